// Package hoststack gives the router TCP connections, and UDP where the dataplane has it, on the dataplane's own stack instead of the kernel's.
//
// A session belongs to an interface: the same fe80:: address may be ours on every tunnel, and the peer's on several. So
// callers name interfaces as the configuration does, and this package translates to and from the dataplane's sw_if_index.
package hoststack

import (
	"context"
	"io"
	"net"
	"net/netip"
)

// AnyInterface is VPP's ~0: no interface given.
const AnyInterface = ^uint32(0)

// Backend is a dataplane whose TCP and UDP live in this process. minivpp implements it without importing this package, so
// its methods use std types only. A *net.TCPAddr or *net.UDPAddr of a link-local address carries the sw_if_index in
// decimal as its zone; one of IPv4 has a 4-byte IP.
type Backend interface {
	// DialTCP connects from table. swIfIndex binds the connection to an interface, or is AnyInterface; it must be given for a
	// link-local remote. local may be invalid (the dataplane chooses) and its port 0.
	// Errors: context's; syscall.ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EADDRNOTAVAIL wrapped in *net.OpError.
	DialTCP(ctx context.Context, table, swIfIndex uint32, local, remote netip.AddrPort) (net.Conn, error)
	// ListenTCP accepts from every interface of table. An unspecified address means every address of its family.
	// Errors: syscall.EADDRINUSE, EADDRNOTAVAIL wrapped in *net.OpError.
	ListenTCP(table uint32, local netip.AddrPort) (net.Listener, error)
	// DialUDP is DialTCP for datagrams; it does not wait. After a port unreachable message a call ends with ECONNREFUSED.
	DialUDP(table, swIfIndex uint32, local, remote netip.AddrPort) (net.Conn, error)
	// ListenUDP is ListenTCP for datagrams. A link-local local address carries its sw_if_index as the zone; ReadFrom gives
	// addresses with zones, and WriteTo takes them.
	// Errors of WriteTo: those of DialUDP, syscall.EMSGSIZE, EAFNOSUPPORT, EINVAL wrapped in *net.OpError.
	ListenUDP(table uint32, local netip.AddrPort) (net.PacketConn, error)
	// OpenProbe returns a conduit as Probes.OpenProbe does, for whatever source and destination.
	OpenProbe(table, swIfIndex uint32) (io.ReadWriteCloser, error)
	// SourceFor returns the address that the node would use towards dst.
	SourceFor(table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error)
}

// Probes is a dataplane's way in for whole IP packets of the node's own. InProcess and MemifProbes are the two there are.
type Probes interface {
	// OpenProbe returns a conduit: each Write originates one packet from src to dst (routed in table, or out of swIfIndex unless
	// that is AnyInterface) whose TTL the first neighbour is to see, each Read returns one ICMP or ICMPv6 packet that was
	// delivered to the node after the probe was opened: echo replies and errors, also of other probes. Close ends a blocked
	// Read with io.EOF; a Read ends with another error when the dataplane does. Packets that nobody reads in time are dropped.
	OpenProbe(ctx context.Context, table, swIfIndex uint32, src, dst netip.Addr) (io.ReadWriteCloser, error)
	// SourceFor returns the address that the node would use towards dst.
	// Errors: syscall.ENETUNREACH, EHOSTUNREACH, EACCES, ENODEV, EADDRNOTAVAIL wrapped; the context's; the dataplane's.
	SourceFor(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error)
}

// InProcess returns the Probes of a dataplane in this process.
func InProcess(backend Backend) Probes { return inProcess{backend} }

type inProcess struct{ backend Backend }

func (p inProcess) OpenProbe(_ context.Context, table, swIfIndex uint32, _, _ netip.Addr) (io.ReadWriteCloser, error) {
	return p.backend.OpenProbe(table, swIfIndex)
}

func (p inProcess) SourceFor(_ context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error) {
	return p.backend.SourceFor(table, swIfIndex, dst)
}

// Interfaces translates between the configuration's interface names and sw_if_index. vppagent implements it.
type Interfaces interface {
	InterfaceIndex(name string) (swIfIndex uint32, ok bool)
	InterfaceName(swIfIndex uint32) (name string, ok bool)
}

// Endpoints of a connection to be made.
type Endpoints struct {
	Table     uint32
	Interface string         // "" when the remote is not link-local and any interface will do
	Local     netip.AddrPort // may be zero
	Remote    netip.AddrPort
}

// Stack is what bgp and the services use.
type Stack interface {
	// Dial returns a connection whose addresses are *net.TCPAddr, IPv4 as 4 bytes, with the interface's name as the zone of a
	// link-local address. Errors as in Backend.DialTCP, or one that says which interface does not exist.
	Dial(ctx context.Context, e Endpoints) (net.Conn, error)
	// Listen accepts on an address of a table; accepted connections have addresses as those of Dial.
	Listen(ctx context.Context, table uint32, local netip.AddrPort) (net.Listener, error)
}
