package config

import (
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// config decodes the whole file. A value that could not be decoded is zero in the result, so that the indexes of lists stay
// those of the file; its error is noted, and the checks pass over it.
func (d *decoder) config(v value) *Config {
	d.root = v
	c := &Config{
		Dataplane: Dataplane{Kind: Auto, Audit: DefaultAudit, FlowHash: HashPorts},
		BGP:       BGP{Multipath: 1, Deferral: DefaultDeferral, Farewell: DefaultFarewell},
		Log:       Log{Level: "info", Format: LogText},
	}
	d.mapping(v, rootSection, func(key string, v value) {
		switch key {
		case "router":
			c.Router = d.router(v)
		case "dataplane":
			c.Dataplane = d.dataplane(v)
		case "interfaces":
			d.entries(v, "interfaces must be a mapping of names to interfaces", func(name string, at mark, v value) {
				d.checkName(at, "an interface", name, maxInterfaceName)
				c.Interfaces = append(c.Interfaces, d.interfaceEntry(name, v))
			})
		case "static":
			d.list(v, "static must be a list of routes", func(_ int, v value) {
				c.Static = append(c.Static, d.static(v))
			})
		case "acl":
			c.ACLs = d.acls(v)
		case "sets":
			c.Sets = d.sets(v)
		case "policies":
			c.Policies = d.policies(v)
		case "bgp":
			c.BGP = d.bgp(v)
		case "roa":
			c.ROA = d.roa(v)
		case "services":
			c.Services = d.services(v)
		case "control":
			c.Control = d.control(v)
		case "log":
			c.Log = d.log(v)
		}
	})
	c.builtinACLs()
	return c
}

// Lengths of names. Interfaces have Linux's, the others what fits, with an interface's, into VPP's 63 characters of a tag.
const (
	maxInterfaceName = 15
	maxName          = 32
)

func (d *decoder) checkName(at mark, what, name string, limit int) {
	bad := strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
	letter := name != "" && (name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z')
	switch {
	case name == "":
		d.errorAt(at, "the name of %s is empty", what)
	case bad != "" || !letter:
		d.errorAt(at, `the name of %s is a letter and then letters, digits, ".", "_" and "-", not %q`, what, shorten(name))
	case len(name) > limit:
		d.errorAt(at, "the name of %s has at most %d characters; %q has %d", what, limit, shorten(name), len(name))
	}
}

func (d *decoder) name(v value, what string, limit int) string {
	s, ok := d.text(v, "the name of "+what+" must be a word")
	if ok {
		d.checkName(v.at, what, s, limit)
	}
	return s
}

func (d *decoder) router(v value) (r Router) {
	d.mapping(v, routerSection, func(key string, v value) {
		switch key {
		case "name":
			r.Name = d.name(v, "a router", maxName)
			if r.Name == linksFolder {
				d.errorf(v, "a router cannot be named %q: the folder of the memif sockets has that name beside the routers'", r.Name)
			}
		case "id":
			r.ID = d.identifier(v, "router.id")
		case "as":
			r.AS = d.as(v, "router.as must be a number from 1 to 4294967294")
		}
	})
	return r
}

// linksFolder is the name of the folder of relative memif sockets.
const linksFolder = "links"

// identifier decodes a BGP identifier: 4 bytes, not zero (RFC 6286 §2.1), written as an IPv4 address.
func (d *decoder) identifier(v value, key string) netip.Addr {
	a, ok := d.address(v, key)
	if ok && (!a.Is4() || a.IsUnspecified()) {
		d.errorf(v, "%s has the form of an IPv4 address and is not 0.0.0.0; %s is not one", key, a)
		return netip.Addr{}
	}
	return a
}

// as decodes an AS number that a speaker may have.
func (d *decoder) as(v value, what string) uint32 {
	s, quoted, ok := d.scalar(v, what)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	switch {
	case quoted:
		d.errorf(v, "%s, not the string %q; remove the quotes", what, shorten(s))
	case err != nil && strings.HasPrefix(strings.ToUpper(s), "AS") && isDigits(s[2:]):
		d.errorf(v, "%s, not %q; write %s", what, shorten(s), shorten(s[2:]))
	case err != nil && !isDigits(s):
		d.errorf(v, "%s, not %q", what, shorten(s))
	case err != nil || n > math.MaxUint32:
		d.errorf(v, "AS %s does not fit into 32 bits; an AS number is from 1 to 4294967294", shorten(s))
	case n == 0: // RFC 7607
		d.errorf(v, "AS 0 is reserved; use your own number, or a private one: 64512 to 65534, 4200000000 to 4294967294")
	case n == 23456: // RFC 6793 §9
		d.errorf(v, "AS 23456 (AS_TRANS) stands for 4-byte numbers in old speakers; use the number itself")
	case n == math.MaxUint16 || n == math.MaxUint32: // RFC 7300
		d.errorf(v, "AS %d is reserved as the last one; private numbers end at %d", n, n-1)
	default:
		return uint32(n)
	}
	return 0
}

func (d *decoder) dataplane(v value) Dataplane {
	p := Dataplane{Kind: Auto, Audit: DefaultAudit, FlowHash: HashPorts}
	var attach value
	d.mapping(v, dataplaneSection, func(name string, v value) {
		switch name {
		case "kind":
			p.Kind = DataplaneKind(d.choice(v, "dataplane.kind", string(Auto), string(Embedded), string(VPP)))
		case "vpp":
			d.mapping(v, vppSection, func(_ string, v value) {
				attach = v
				p.Attach = d.socketPath(v, "dataplane.vpp.attach")
			})
		case "audit":
			p.Audit = d.duration(v, "dataplane.audit", 0, 24*time.Hour, time.Second)
		case "learn":
			p.Learn = d.boolean(v, "dataplane.learn")
		case "flow-hash":
			p.FlowHash = FlowHash(d.choice(v, "dataplane.flow-hash", string(HashPorts), string(HashAddresses), string(HashFlowLabel)))
		}
	})
	if p.Attach != "" && p.Kind != VPP {
		d.errorf(attach, "dataplane.vpp.attach needs kind: vpp, not kind: %s", p.Kind)
	}
	return p
}

// socketPath reads the absolute path of a unix socket.
func (d *decoder) socketPath(v value, name string) string {
	s, ok := d.text(v, name+" must be a path")
	switch {
	case !ok:
	case !filepath.IsAbs(s):
		d.errorf(v, "%s must be an absolute path, not %q", name, shorten(s))
	default:
		d.socketLength(v.at, filepath.Clean(s))
		return filepath.Clean(s)
	}
	return ""
}

// maxSocketPath is how long a path a unix socket can have: sun_path of unix(7) has 108 bytes, the last of them zero.
const maxSocketPath = 107

func (d *decoder) socketLength(at mark, path string) {
	if len(path) > maxSocketPath {
		d.errorAt(at, "the socket's path %q has %d bytes, and the kernel takes %d; choose a shorter one, or a shorter XDG_RUNTIME_DIR", path, len(path), maxSocketPath)
	}
}

func (d *decoder) log(v value) Log {
	l := Log{Level: "info", Format: LogText}
	d.mapping(v, logSection, func(key string, v value) {
		switch key {
		case "level":
			l.Level = LogLevel(d.choice(v, "log.level", "error", "warning", "info", "debug", "trace"))
		case "format":
			l.Format = LogFormat(d.choice(v, "log.format", string(LogText), string(LogJSON)))
		}
	})
	return l
}

// MTU limits in bytes: IPv4's least (RFC 791 §3.2), and what jumbo frames carry. IPv6 needs 1280 (RFC 8200 §5), which is
// checked with the addresses.
const (
	minMTU  = 68
	minMTU6 = 1280
	maxMTU  = 9216
)

func (d *decoder) interfaceEntry(name string, v value) Interface {
	i := Interface{Name: name}
	before, laters := len(d.errs), len(d.laters)
	var kinds []string
	d.mapping(v, interfaceSection, func(key string, v value) {
		switch key {
		case "loopback":
			kinds = append(kinds, key)
			if i.Loopback = d.boolean(v, "loopback"); !i.Loopback && v.node.Value == "false" {
				d.errorf(v, "loopback: false says nothing; remove it")
			}
		case "memif":
			kinds = append(kinds, key)
			i.Memif = d.memif(v)
		case "wireguard":
			kinds = append(kinds, key)
			i.WireGuard = d.wireguard(v)
		case "addresses":
			d.words(v, "addresses must be a list of addresses with prefix lengths", func(_ int, v value, s string) {
				i.Addresses = append(i.Addresses, d.interfaceAddress(v, s))
			})
		case "mtu":
			n, _ := d.number(v, "mtu", minMTU, maxMTU)
			i.MTU = int(n)
		case "urpf":
			i.URPF = URPF(d.choice(v, "urpf", string(URPFLoose), string(URPFStrict)))
		case "mss-clamp":
			i.MSSClamp = d.mssClamp(v)
		case "unnumbered":
			i.Unnumbered, _ = d.text(v, "unnumbered must be the name of an interface")
		case "acl":
			i.ACL = d.interfaceACLs(v)
		}
	})
	for _, l := range d.laters[laters:] {
		if l.value.path == v.path+"/tap" || l.value.path == v.path+"/host-interface" {
			kinds = append(kinds, l.key.name)
		}
	}
	switch {
	case len(kinds) == 0 && len(d.errs) == before: // with an error it may be the kind that is misspelt
		d.errorKey(v.path, "interface %s has no kind; give it one of loopback: true, memif: {…} or wireguard: {…}", name)
	case len(kinds) > 1:
		d.errorKey(v.path, "interface %s is %s at once; keep one of them", name, strings.Join(kinds, " and "))
	}
	if i.MTU == 0 {
		i.MTU = DefaultMTU
		if i.WireGuard != nil {
			i.MTU = DefaultWireGuardMTU
		}
	}
	return i
}

// interfaceAddress decodes an address that an interface can have.
func (d *decoder) interfaceAddress(v value, s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	p, ok := d.parsePrefix(v, s, "an address of an interface must be an address with its prefix length", "10.1.0.1/24")
	if !ok {
		return netip.Prefix{}
	}
	a := p.Addr()
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		d.errorf(v, "%s is not an address that an interface can have", a)
	case isLinkLocal6(a) && p.Bits() != 64: // RFC 4291 §2.5.6
		d.errorf(v, "%s is link-local, whose prefix length is 64; write %s/64", p, a)
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		d.errorf(v, "%s is the address of the network itself; the first one of an interface is %s/%d", p, a.Next(), p.Bits())
	case a.Is4() && p.Bits() < 31 && a == lastOf(p):
		d.errorf(v, "%s is the broadcast address of %s; choose another", p, p.Masked())
	default:
		return p
	}
	return netip.Prefix{}
}

// lastOf returns the last address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := range b {
		b[i] |= byte(0xFF >> min(max(p.Bits()-8*i, 0), 8))
	}
	return netip.AddrFrom4(b)
}

// mssClamp reads auto, false or a size.
func (d *decoder) mssClamp(v value) int {
	const what = "mss-clamp must be auto, false or a number from 536 to 8960"
	s, quoted, ok := d.scalar(v, what)
	if !ok {
		return AutoClamp
	}
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case s == "auto":
		return AutoClamp
	case s == "false" && !quoted:
		return NoClamp
	case err != nil || quoted || n < minClamp || n > maxClamp:
		d.errorf(v, "%s, not %s", what, shorten(s))
		return AutoClamp
	}
	return int(n)
}
