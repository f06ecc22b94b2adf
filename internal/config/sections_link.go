package config

import (
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func (d *decoder) memif(v value) *Memif {
	m := &Memif{RingSize: DefaultRingSize, BufferSize: DefaultBufferSize, Queues: DefaultQueues}
	d.mapping(v, memifSection, func(key string, v value) {
		switch key {
		case "socket":
			m.Socket = d.memifSocket(v)
		case "role":
			m.Role = Role(d.choice(v, "role", string(Master), string(Slave)))
		case "id":
			n, _ := d.number(v, "id", 0, math.MaxUint32)
			m.ID = uint32(n)
		case "secret-file", "secret":
			m.Secret = d.secret(v, key, m.Secret)
			if len(m.Secret.value) > maxMemifSecret {
				d.errorf(v, "the secret has %d bytes; a memif secret has at most %d", len(m.Secret.value), maxMemifSecret)
			}
		case "ring-size":
			n, ok := d.number(v, "ring-size", 2, 32768)
			if ok && n&(n-1) != 0 {
				d.errorf(v, "ring-size must be a power of two, not %d; the next one is %d", n, nextPower(n))
			}
			m.RingSize = int(n)
		case "buffer-size":
			n, _ := d.number(v, "buffer-size", 256, 65535)
			m.BufferSize = int(n)
		case "queues":
			n, _ := d.number(v, "queues", 1, 16)
			m.Queues = int(n)
		}
	})
	if !d.has(v.path + "/socket") {
		d.errorKey(v.path, "the socket of the memif is missing; write socket: NAME.sock")
	}
	if !d.has(v.path + "/role") {
		d.errorKey(v.path, "the role of the memif is missing; write role: master on one side and role: slave on the other")
	}
	return m
}

// maxMemifSecret is the size of the protocol's field, in bytes.
const maxMemifSecret = 24

func nextPower(n uint64) uint64 {
	p := uint64(1)
	for p < n {
		p *= 2
	}
	return p
}

func (d *decoder) memifSocket(v value) string {
	s, ok := d.text(v, "socket must be a path")
	switch {
	case !ok:
		return ""
	case filepath.IsAbs(s):
		s = filepath.Clean(s)
		d.socketLength(v.at, s)
	case s == "" || s == "." || s == ".." || strings.Contains(s, "/"):
		d.errorf(v, "a socket is a plain name, which is put into the routers' common folder, or an absolute path; %q is neither", shorten(s))
		return ""
	case d.opt.linksDir != "":
		d.socketLength(v.at, filepath.Join(d.opt.linksDir, s))
	}
	return s
}

// maxKeepalive is WireGuard's: 16 bits of seconds.
const maxKeepalive = math.MaxUint16 * time.Second

func (d *decoder) wireguard(v value) *WireGuard {
	w := &WireGuard{}
	d.mapping(v, wireguardSection, func(key string, v value) {
		switch key {
		case "listen":
			w.Listen = d.listen(v)
		case "private-key-file", "private-key":
			w.PrivateKey = d.key(v, key, w.PrivateKey)
		case "preshared-key-file", "preshared-key":
			w.PresharedKey = d.key(v, key, w.PresharedKey)
		case "peer":
			d.peer(v, w)
		}
	})
	if !d.has(v.path+"/private-key-file") && !d.has(v.path+"/private-key") {
		d.errorKey(v.path, "the private key is missing; write private-key-file: FILE (rlr genkey makes one), or private-key: ${NAME}")
	}
	if !d.has(v.path + "/peer") {
		d.errorKey(v.path, "the peer of the tunnel is missing; write peer: {public-key: …, endpoint: HOST:PORT}")
		return w
	}
	if !d.has(v.path + "/peer/public-key") {
		d.errorKey(v.path+"/peer", "the public-key of the peer is missing; rlr pubkey prints it from the peer's private key")
	}
	if !d.has(v.path+"/listen") && !d.has(v.path+"/peer/endpoint") {
		d.errorKey(v.path, "the tunnel has neither listen nor the peer's endpoint, so that neither side finds the other; give at least one")
	}
	return w
}

func (d *decoder) peer(v value, w *WireGuard) {
	d.mapping(v, peerSection, func(key string, v value) {
		switch key {
		case "public-key":
			s, ok := d.text(v, "public-key must be the peer's key in base64")
			if !ok {
				return
			}
			k, err := parseKey(s)
			if err != nil {
				d.errorf(v, "public-key %v", err)
			}
			w.Peer.PublicKey = k
		case "endpoint":
			w.Peer.Endpoint = d.endpoint(v)
		case "keepalive":
			w.Peer.Keepalive = d.duration(v, "keepalive", 0, maxKeepalive, time.Second)
		case "preshared-key-file", "preshared-key":
			w.PresharedKey = d.key(v, key, w.PresharedKey)
		}
	})
}

// secret decodes a secret: KEY-file names its file, KEY is a ${NAME} reference. old is what another key gave already.
func (d *decoder) secret(v value, name string, old Secret) Secret {
	base, isFile := strings.CutSuffix(name, "-file")
	if old.IsSet() {
		d.errorf(v, "%s is given twice, by %s and here; keep one", base, old)
		return old
	}
	if !isFile {
		s, ok := d.text(v, name+" must be a reference ${NAME}")
		if !ok {
			return Secret{Env: "${}"} // something is there: no second error
		}
		if r, err := expand(v.node.Value, d.opt.env); err != nil || !r.whole {
			d.errorf(v, "%s is written into the configuration; put it into a file and write %s-file: FILE, or write %s: ${NAME}", name, base, name)
		} else if s == "" {
			d.errorf(v, "the environment variable of %s is empty", v.node.Value)
		}
		return Secret{Env: v.node.Value, value: s}
	}
	s, ok := d.text(v, name+" must be a file's name")
	if !ok || s == "" {
		if ok {
			d.errorf(v, "%s must be a file's name, not nothing", name)
		}
		return Secret{File: "."}
	}
	content, err := readSecret(d.dir, s)
	if err != nil {
		d.errorf(v, "%s: %v%s", name, err, d.keyAdvice(name, err))
	}
	return Secret{File: s, value: content}
}

// key is secret for a WireGuard key, whose value is its 32 bytes.
func (d *decoder) key(v value, name string, old Secret) Secret {
	before := len(d.errs)
	s := d.secret(v, name, old)
	if len(d.errs) > before {
		return s
	}
	k, err := parseKey(s.value)
	switch {
	case err != nil && s.File != "":
		d.errorf(v, "%s: the content of %q %v", name, s.File, err)
	case err != nil:
		d.errorf(v, "the value of %s %v", s, err)
	}
	s.value = string(k[:])
	return s
}

// listen decodes a UDP address of the host. ":51820" listens on all addresses.
func (d *decoder) listen(v value) netip.AddrPort {
	return d.hostSocket(v, "listen", "51820", "; for any free port, remove listen")
}

// serve decodes a TCP address of the host at which a service is offered, likewise.
func (d *decoder) serve(v value, key string) netip.AddrPort {
	return d.hostSocket(v, key, "8042", "; the port is a number from 1 to 65535")
}

// hostSocket decodes an address of the host and a port. noPort is what to do about port 0.
func (d *decoder) hostSocket(v value, key, port, noPort string) netip.AddrPort {
	what := key + " must be ADDRESS:PORT such as 0.0.0.0:" + port
	s, ok := d.text(v, what)
	if !ok {
		return netip.AddrPort{}
	}
	if strings.HasPrefix(s, ":") {
		s = "[::]" + s
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil && isDigits(s):
		d.errorf(v, "%s, not %q; write %s for all addresses", what, shorten(s), quote(":"+shorten(s)))
	case err != nil:
		d.errorf(v, "%s, not %q; an IPv6 address is in brackets: [::1]:%s", what, shorten(s), port)
	case a.Port() == 0:
		d.errorf(v, "%s%s", what, noPort)
	case a.Addr().IsMulticast() || a.Addr().Is4In6():
		d.errorf(v, "%s is not an address to listen at; it must be one of this machine, or 0.0.0.0 or [::]", a.Addr())
	default:
		return a
	}
	return netip.AddrPort{}
}

// endpoint decodes HOST:PORT. The host may be a name: it is resolved when the tunnel comes up, and again.
func (d *decoder) endpoint(v value) string {
	const what = "endpoint must be HOST:PORT such as peer.example.net:51820"
	s, ok := d.text(v, what)
	if !ok {
		return ""
	}
	return d.hostPort(v, s, what, "[2001:db8::1]:51820")
}

// hostPort decodes HOST:PORT. what says what it must be, example how an IPv6 address is written.
func (d *decoder) hostPort(v value, s, what, example string) string {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil && strings.Count(s, ":") > 1:
		d.errorf(v, "%s, not %q; an IPv6 address is in brackets: \"%s\"", what, shorten(s), example)
	case err != nil:
		d.errorf(v, "%s, not %q", what, shorten(s))
	case perr != nil || n == 0:
		d.errorf(v, "%s; the port is a number from 1 to 65535, not %q", what, shorten(port))
	case !isHost(host):
		d.errorf(v, "%s; %q is not the name or address of a host", what, shorten(host))
	default:
		return net.JoinHostPort(host, strconv.FormatUint(n, 10))
	}
	return ""
}

// isHost reports whether s is an IP address or has the letters of a DNS name.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return !a.IsUnspecified() && !a.IsMulticast()
	}
	if s == "" || len(s) > 253 || strings.Contains(s, "..") || s[0] == '.' || s[0] == '-' || isDigits(strings.ReplaceAll(s, ".", "")) {
		return false
	}
	return strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

// keyAdvice adds the cure that a missing key needs.
func (d *decoder) keyAdvice(name string, err error) string {
	if strings.Contains(err.Error(), "does not exist") && name == "private-key-file" {
		return "; make it: (umask 077; rlr genkey > FILE)"
	}
	return ""
}
