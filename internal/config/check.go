package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// check reports what is wrong between values, each of which is right by itself, and fills in the defaults that depend on
// others. It runs after errors too, so that one report has everything: a value that is zero because its decoding failed is
// passed over.
func (d *decoder) check(c *Config) {
	d.checkRouter(c)
	d.checkAddresses(c)
	d.checkUnnumbered(c)
	d.checkMemifs(c)
	d.checkWireGuard(c)
	own := ownAddresses(c)
	d.checkStatic(c, own)
	d.checkBGP(c, own)
	d.checkROA(c)
	d.checkServices(c, own)
}

func (d *decoder) checkRouter(c *Config) {
	if !d.has("router/name") {
		d.errorKey("router", "router.name is missing; write router: {name: NAME}")
	}
	if !d.has("router/id") {
		c.Router.ID = defaultID(c)
	}
}

// defaultID is a loopback's first IPv4 address, which stays when links change, else any interface's.
func defaultID(c *Config) netip.Addr {
	var id netip.Addr
	for _, i := range c.Interfaces {
		for _, p := range i.Addresses {
			a := p.Addr()
			if !a.Is4() {
				continue
			}
			if i.Loopback {
				return a
			}
			if !id.IsValid() {
				id = a
			}
		}
	}
	return id
}

// assigned is an address of an interface.
type assigned struct {
	prefix netip.Prefix
	iface  string
	order  int    // in the file
	path   string // in the file
}

func assignments(c *Config) []assigned {
	var all []assigned
	for _, i := range c.Interfaces {
		for j, p := range i.Addresses {
			if p.IsValid() && !isLinkLocal6(p.Addr()) {
				all = append(all, assigned{p, i.Name, len(all), join("interfaces", i.Name, "addresses", j)})
			}
		}
	}
	return all
}

// ownAddresses maps our addresses to their interfaces, without link-local ones.
func ownAddresses(c *Config) map[netip.Addr]string {
	own := map[netip.Addr]string{}
	for _, a := range assignments(c) {
		if _, dup := own[a.prefix.Addr()]; !dup {
			own[a.prefix.Addr()] = a.iface
		}
	}
	return own
}

// checkAddresses holds to VPP's rule: connected subnets overlap neither between interfaces nor, with different lengths, on
// one. Link-local subnets are each interface's own.
func (d *decoder) checkAddresses(c *Config) {
	for _, i := range c.Interfaces {
		var first netip.Addr
		for j, p := range i.Addresses {
			path := join("interfaces", i.Name, "addresses", j)
			if p.IsValid() && p.Addr().Is6() && i.MTU < minMTU6 {
				d.errorPath(path, "IPv6 needs an mtu of at least %d, and interface %s has %d; raise it, or remove %s", minMTU6, i.Name, i.MTU, p)
			}
			if !p.IsValid() || !isLinkLocal6(p.Addr()) {
				continue
			}
			if first.IsValid() {
				d.errorPath(path, "interface %s has the link-local address %s already; an interface has one", i.Name, first)
			}
			first = p.Addr()
		}
	}
	// Two prefixes are disjoint or nested. Sorted, those that a prefix is nested in are the latest ones before it.
	all := assignments(c)
	slices.SortFunc(all, func(a, b assigned) int {
		return cmp.Or(a.prefix.Masked().Addr().Compare(b.prefix.Masked().Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.order, b.order))
	})
	var around []assigned
	for _, a := range all {
		for len(around) > 0 && !around[len(around)-1].prefix.Overlaps(a.prefix) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			d.checkOverlap(around[len(around)-1], a)
		}
		around = append(around, a)
	}
}

func (d *decoder) checkOverlap(a, b assigned) {
	if a.order > b.order {
		a, b = b, a
	}
	switch {
	case a.prefix == b.prefix && a.iface == b.iface:
		d.errorPath(b.path, "%s is on interface %s twice; remove one", b.prefix, b.iface)
	case a.prefix.Addr() == b.prefix.Addr() && a.iface != b.iface:
		d.errorPath(b.path, "%s is the address of interface %s already; choose another, or write unnumbered: %s to borrow it", b.prefix.Addr(), a.iface, a.iface)
	case a.iface != b.iface:
		d.errorPath(b.path, "%s overlaps %s of interface %s; give each interface a subnet of its own", b.prefix, a.prefix, a.iface)
	case a.prefix.Bits() != b.prefix.Bits():
		d.errorPath(b.path, "%s overlaps %s of the same interface with another prefix length; use one length for both", b.prefix, a.prefix)
	}
}

func (d *decoder) checkUnnumbered(c *Config) {
	for _, i := range c.Interfaces {
		lender, ok := d.iface(c, i.Unnumbered)
		if i.Unnumbered == "" || !ok {
			continue
		}
		path := join("interfaces", i.Name, "unnumbered")
		routable := slices.ContainsFunc(lender.Addresses, func(p netip.Prefix) bool { return !p.IsValid() || !isLinkLocal6(p.Addr()) })
		switch {
		case lender.Name == i.Name:
			d.errorPath(path, "interface %s cannot borrow its own addresses; name another, a loopback for example", i.Name)
		case lender.Unnumbered != "":
			d.errorPath(path, "interface %s is unnumbered itself; borrow from %s", lender.Name, lender.Unnumbered)
		case !routable && !d.has(join("interfaces", lender.Name, "addresses")):
			d.errorPath(path, "interface %s has no addresses to lend; give it some, or name another", lender.Name)
		case !routable:
			d.errorPath(path, "interface %s has no addresses to lend except link-local ones; give it some, or name another", lender.Name)
		}
		for j, p := range i.Addresses {
			if p.IsValid() && !isLinkLocal6(p.Addr()) {
				d.errorPath(join("interfaces", i.Name, "addresses", j), "interface %s is unnumbered and has %s; keep one of them (link-local addresses may stay)", i.Name, p)
			}
		}
	}
}

// checkMemifs: a socket is listened at or connected to, and its links are told apart by their IDs.
func (d *decoder) checkMemifs(c *Config) {
	type link struct {
		socket string
		id     uint32
	}
	links := map[link]string{}
	roles := map[string]Interface{}
	for _, i := range c.Interfaces {
		if i.Memif == nil || i.Memif.Socket == "" {
			continue
		}
		m := i.Memif
		socket := m.SocketPath(d.opt.linksDir)
		path := join("interfaces", i.Name, "memif", "socket")
		if other, ok := roles[socket]; ok && other.Memif.Role != m.Role {
			d.errorPath(path, "interface %s is the %s of socket %q; a router has one role on a socket: use another socket", other.Name, other.Memif.Role, m.Socket)
			continue
		} else if !ok && m.Role != "" {
			roles[socket] = i
		}
		l := link{socket, m.ID}
		if other, dup := links[l]; dup {
			d.errorPath(path, "interface %s uses socket %q with id %d already; give this one another id", other, m.Socket, m.ID)
			continue
		}
		links[l] = i.Name
	}
}

func (d *decoder) checkWireGuard(c *Config) {
	type listener struct {
		netip.AddrPort
		iface string
	}
	ports := map[uint16][]listener{}
	for _, i := range c.Interfaces {
		w := i.WireGuard
		if w == nil {
			continue
		}
		if w.PrivateKey.IsSet() && w.Peer.PublicKey != (Key{}) {
			if own, err := publicOf(w.PrivateKey.Key()); err == nil && own == w.Peer.PublicKey {
				d.errorPath(join("interfaces", i.Name, "wireguard", "peer", "public-key"), "this is our own public key; write the peer's, which rlr pubkey prints on the other side")
			}
		}
		if !w.Listen.IsValid() {
			continue
		}
		for _, other := range ports[w.Listen.Port()] {
			if sameListener(other.Addr(), w.Listen.Addr()) {
				d.errorPath(join("interfaces", i.Name, "wireguard", "listen"), "UDP port %d is listened at by interface %s already (%s); each tunnel needs a port of its own", w.Listen.Port(), other.iface, other.AddrPort)
				break
			}
		}
		ports[w.Listen.Port()] = append(ports[w.Listen.Port()], listener{w.Listen, i.Name})
	}
}

// sameListener reports whether a socket at a and one at b cannot have the same port. The IPv6 wildcard takes IPv4 too.
func sameListener(a, b netip.Addr) bool {
	if a == b || a == netip.IPv6Unspecified() || b == netip.IPv6Unspecified() {
		return true
	}
	return a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

func (d *decoder) checkStatic(c *Config, own map[netip.Addr]string) {
	seen := map[netip.Prefix]int{}
	for i, s := range c.Static {
		path := join("static", i)
		if s.Prefix.IsValid() && s.Prefix == s.Prefix.Masked() {
			d.checkRouted(path+"/prefix", s.Prefix)
			if first, dup := seen[s.Prefix]; dup {
				d.errorPath(path+"/prefix", "%s has a static route already, on line %d; put all next hops into one via", s.Prefix, d.marks[join("static", first)].line)
			} else {
				seen[s.Prefix] = i
			}
		}
		hops := map[NextHop]bool{}
		for j, n := range s.Via {
			at := join(path, "via", j)
			d.checkNextHop(c, at, s, n, own)
			n.Weight = 0
			if hops[n] && (n.Address.IsValid() || n.Interface != "") {
				d.errorPath(at, "this next hop is here twice; give one of them a weight instead")
			}
			hops[n] = true
		}
	}
}

// checkRouted refuses prefixes that routers do not forward.
func (d *decoder) checkRouted(path string, p netip.Prefix) {
	if isLinkLocal6(p.Addr()) { // RFC 4291 §2.5.6
		d.errorPath(path, "%s is link-local, and never routed; remove it", p)
	}
}

func (d *decoder) checkNextHop(c *Config, path string, s Static, n NextHop, own map[netip.Addr]string) {
	iface, known := d.iface(c, n.Interface)
	if known && iface.Loopback {
		d.errorPath(path+"/interface", "%s is a loopback, from which nothing leaves; name another interface, or write blackhole: true", n.Interface)
	}
	a := n.Address
	if !a.IsValid() {
		return
	}
	at := path + "/address"
	switch owner, ours := own[a]; {
	case ours:
		d.errorPath(at, "%s is our own address, on interface %s; a next hop is another router's", a, owner)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		d.errorPath(at, "%s is not the address of a router", a)
	case a.Is4() && s.Prefix.IsValid() && s.Prefix.Addr().Is6():
		d.errorPath(at, "%s is IPv4, and %s is IPv6; the next hop of an IPv6 route is an IPv6 address", a, s.Prefix)
	case isLinkLocal6(a) && !d.has(path+"/interface"):
		d.errorPath(at, "%s is link-local, and could be on any interface; say on which: {address: %q, interface: NAME}", a, a)
	case known && isLinkLocal6(a) && a == iface.LinkLocal():
		d.errorPath(at, "%s is our own address on interface %s; a next hop is another router's", a, iface.Name)
	}
}

// describe names a neighbour's place for a message.
func describe(a netip.Addr, iface string) string {
	if isLinkLocal6(a) && iface != "" {
		return fmt.Sprintf("%s on %s", a, iface)
	}
	return a.String()
}
