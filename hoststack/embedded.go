package hoststack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// This file is the Stack over a Backend in this process. It adds names to the backend's indexes and nothing else: the
// backend's connections are used as they are, with the addresses that callers expect in front.

// ErrNoInterface is in the error of a Dial that names an interface which the dataplane does not have (yet).
var ErrNoInterface = errors.New("no such interface in the dataplane")

// ErrNeedInterface is in the error of a Dial to a link-local address without an interface: the address alone names no peer
// (RFC 4007 §6).
var ErrNeedInterface = errors.New("a link-local address needs an interface")

// New returns the Stack of a dataplane in this process.
func New(backend Backend, ifs Interfaces) Stack {
	return &embedded{backend: backend, ifs: ifs}
}

type embedded struct {
	backend Backend
	ifs     Interfaces
}

// Dial implements Stack.
func (s *embedded) Dial(ctx context.Context, e Endpoints) (net.Conn, error) {
	index, err := s.egress(e)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: tcpAddr(e.Local), Addr: tcpAddr(e.Remote), Err: err}
	}
	conn, err := s.backend.DialTCP(ctx, e.Table, index, withoutZone(e.Local), withoutZone(e.Remote))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", e.Remote, err)
	}
	return s.named(conn), nil
}

// Listen implements Stack. The context bounds only the call: the listener lives until it is closed.
func (s *embedded) Listen(ctx context.Context, table uint32, local netip.AddrPort) (net.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: tcpAddr(local), Err: err}
	}
	l, err := s.backend.ListenTCP(table, withoutZone(local))
	if err != nil {
		return nil, fmt.Errorf("listen on %s in table %d: %w", local, table, err)
	}
	return &namedListener{Listener: l, stack: s}, nil
}

// egress checks endpoints and returns the interface that they are bound to.
func (s *embedded) egress(e Endpoints) (uint32, error) {
	index, err := s.index(interfaceOf(e.Interface, e.Remote.Addr(), e.Local.Addr()), e.Remote.Addr())
	if err != nil {
		return 0, err
	}
	if e.Local.Addr().IsValid() && e.Local.Addr().Is4() != e.Remote.Addr().Is4() {
		return 0, fmt.Errorf("local %s and remote %s are of different families: %w", e.Local.Addr(), e.Remote.Addr(), syscall.EADDRNOTAVAIL)
	}
	return index, nil
}

// interfaceOf returns the interface that a name or the zones of addresses give; "" when none does.
func interfaceOf(name string, addrs ...netip.Addr) string {
	for _, a := range addrs {
		if name == "" {
			name = a.Zone()
		}
	}
	return name
}

// index translates the interface that traffic to dst is bound to.
func (s *embedded) index(name string, dst netip.Addr) (uint32, error) {
	return interfaceIndex(s.ifs, name, dst)
}

func interfaceIndex(ifs Interfaces, name string, dst netip.Addr) (uint32, error) {
	switch {
	case !dst.IsValid():
		return 0, fmt.Errorf("no remote address: %w", syscall.EADDRNOTAVAIL)
	case name == "" && needsInterface(dst):
		return 0, fmt.Errorf("%s: %w", dst, ErrNeedInterface)
	case name == "":
		return AnyInterface, nil
	}
	index, ok := ifs.InterfaceIndex(name)
	if !ok {
		return 0, fmt.Errorf("interface %s: %w", name, ErrNoInterface)
	}
	return index, nil
}

// needsInterface reports whether an address is unique on a link only.
func needsInterface(a netip.Addr) bool {
	return a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast())
}

func withoutZone(ap netip.AddrPort) netip.AddrPort {
	if !ap.Addr().IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// tcpAddr is nil for an invalid address: net.OpError prints that well.
func tcpAddr(ap netip.AddrPort) net.Addr {
	if !ap.Addr().IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(ap)
}

// named puts the addresses with names in front of the backend's connection.
func (s *embedded) named(conn net.Conn) net.Conn {
	return &namedConn{Conn: conn, local: s.nameAddr(conn.LocalAddr()), remote: s.nameAddr(conn.RemoteAddr())}
}

// nameAddr turns the backend's zone, a sw_if_index in decimal, into the interface's name. A zone that no longer names an
// interface stays as it is: it then matches no configured neighbour, which is right.
func (s *embedded) nameAddr(a net.Addr) net.Addr {
	switch t := a.(type) {
	case *net.TCPAddr:
		c := *t
		c.IP, c.Zone = s.nameIP(c.IP, c.Zone)
		return &c
	case *net.UDPAddr:
		c := *t
		c.IP, c.Zone = s.nameIP(c.IP, c.Zone)
		return &c
	}
	return a
}

func (s *embedded) nameIP(ip net.IP, zone string) (net.IP, string) {
	if v4 := ip.To4(); v4 != nil {
		return v4, "" // 4 bytes: what GoBGP's accept path expects
	}
	if index, err := strconv.ParseUint(zone, 10, 32); err == nil {
		if name, ok := s.ifs.InterfaceName(uint32(index)); ok {
			zone = name
		}
	}
	return ip, zone
}

type namedConn struct {
	net.Conn
	local, remote net.Addr
}

func (c *namedConn) LocalAddr() net.Addr  { return c.local }
func (c *namedConn) RemoteAddr() net.Addr { return c.remote }

// CloseWrite ends our half of the connection, where the backend can: relays need it.
func (c *namedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

type namedListener struct {
	net.Listener
	stack *embedded
}

func (l *namedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.stack.named(conn), nil
}

func (l *namedListener) Addr() net.Addr { return l.stack.nameAddr(l.Listener.Addr()) }
