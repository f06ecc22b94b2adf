package hoststack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// This file is UDP over a Backend in this process: as for TCP, names are added to the backend's indexes and nothing else.

// Packets is what services that speak UDP use. It is apart from Stack because not every dataplane has it: the Stack that New
// returns implements it, so ask with a type assertion.
type Packets interface {
	// DialPacket returns a connection whose addresses are *net.UDPAddr, IPv4 as 4 bytes, with the interface's name as the zone
	// of a link-local address. Errors as in Backend.DialUDP, or one that says which interface does not exist.
	DialPacket(ctx context.Context, e Endpoints) (net.Conn, error)
	// ListenPacket receives on an address of a table, with addresses as those of DialPacket; WriteTo takes such addresses.
	// A link-local address has its interface's name as the zone. The context bounds only the call.
	ListenPacket(ctx context.Context, table uint32, local netip.AddrPort) (net.PacketConn, error)
}

var _ Packets = (*embedded)(nil)

// DialPacket implements Packets.
func (s *embedded) DialPacket(ctx context.Context, e Endpoints) (net.Conn, error) {
	opErr := func(err error) error {
		return &net.OpError{Op: "dial", Net: "udp", Source: udpAddr(e.Local), Addr: udpAddr(e.Remote), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, opErr(err)
	}
	index, err := s.egress(e)
	if err != nil {
		return nil, opErr(err)
	}
	conn, err := s.backend.DialUDP(e.Table, index, withoutZone(e.Local), withoutZone(e.Remote))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", e.Remote, err)
	}
	return s.named(conn), nil
}

// ListenPacket implements Packets.
func (s *embedded) ListenPacket(ctx context.Context, table uint32, local netip.AddrPort) (net.PacketConn, error) {
	opErr := func(err error) error {
		return &net.OpError{Op: "listen", Net: "udp", Addr: udpAddr(local), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, opErr(err)
	}
	bare := withoutZone(local)
	if needsInterface(bare.Addr()) {
		index, err := s.index(local.Addr().Zone(), bare.Addr())
		if err != nil {
			return nil, opErr(err)
		}
		bare = netip.AddrPortFrom(bare.Addr().WithZone(strconv.FormatUint(uint64(index), 10)), bare.Port())
	}
	c, err := s.backend.ListenUDP(table, bare)
	if err != nil {
		return nil, fmt.Errorf("listen on %s in table %d: %w", local, table, err)
	}
	return &namedPackets{PacketConn: c, stack: s, local: s.nameAddr(c.LocalAddr())}, nil
}

// udpAddr is nil for an invalid address: net.OpError prints that well.
func udpAddr(ap netip.AddrPort) net.Addr {
	if !ap.Addr().IsValid() {
		return nil
	}
	return net.UDPAddrFromAddrPort(ap)
}

type namedPackets struct {
	net.PacketConn
	stack *embedded
	local net.Addr
}

func (c *namedPackets) LocalAddr() net.Addr { return c.local }

func (c *namedPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		return n, nil, err
	}
	return n, c.stack.nameAddr(from), nil
}

// WriteTo takes addresses as ReadFrom gives them: the zone may also be the index of an interface without a name.
func (c *namedPackets) WriteTo(b []byte, addr net.Addr) (int, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok || u == nil || u.Zone == "" {
		return c.PacketConn.WriteTo(b, addr)
	}
	to := *u
	if index, ok := c.stack.ifs.InterfaceIndex(u.Zone); ok {
		to.Zone = strconv.FormatUint(uint64(index), 10)
	} else if _, err := strconv.ParseUint(u.Zone, 10, 32); err != nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Source: c.local, Addr: addr, Err: fmt.Errorf("interface %s: %w", u.Zone, ErrNoInterface)}
	}
	return c.PacketConn.WriteTo(b, &to)
}
