package binapi

import (
	"errors"
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/fib_types"
)

// AnyInterface is the API's ~0: no interface given.
const AnyInterface = ^uint32(0)

// noLabel is MPLS_LABEL_INVALID of src/vnet/mpls/packet.h: one above the largest label.
const noLabel = 0x100000

// Path is one way of a route, as fib_path of src/vnet/fib/fib_types.api without MPLS and the other encapsulations.
//
// A NORMAL path with an interface and no address is attached; with both it is an attached next hop; with an address alone it
// is recursive, looked up in TableID; with neither, the packet's own destination is looked up in TableID. A link-local
// address needs the interface.
type Path struct {
	Type       fib_types.FibPathType
	Addr       netip.Addr // without zone; may be of the other family (RFC 8950)
	SwIfIndex  uint32     // or AnyInterface
	TableID    uint32     // for recursive paths
	Weight     uint8      // 0 counts as 1
	Preference uint8      // the lowest forwards
	Flags      fib_types.FibPathFlags
}

// ToPath converts to the API's path of a route to prefix-family destinations. The path's protocol follows the next hop's
// family, and without a next hop the destination's; fields that other path types use hold the values that mean "unset".
func ToPath(p Path, destination netip.Addr) fib_types.FibPath {
	out := fib_types.FibPath{
		SwIfIndex: p.SwIfIndex, TableID: p.TableID, RpfID: ^uint32(0),
		Weight: max(p.Weight, 1), Preference: p.Preference,
		Type: p.Type, Flags: p.Flags,
		Nh: fib_types.FibPathNh{
			Address: toUnion(p.Addr), ViaLabel: noLabel, ObjID: ^uint32(0), ClassifyTableIndex: ^uint32(0),
		},
	}
	// Not every path type has an interface, and VPP's own dumps say ~0 then.
	switch p.Type {
	case fib_types.FIB_API_PATH_TYPE_DROP, fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH, fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
		out.SwIfIndex = AnyInterface
	}
	family := p.Addr
	if !family.IsValid() {
		family = destination
	}
	if family.Is6() {
		out.Proto = fib_types.FIB_API_PATH_NH_PROTO_IP6
	}
	return out
}

// ErrPath is wrapped by FromPath's errors: the path is of a kind that Path cannot hold.
var ErrPath = errors.New("unsupported path")

// FromPath converts from the API's path. An unspecified next hop (0.0.0.0, ::) is no next hop: Addr is invalid. Paths with
// labels, tunnels and protocols other than IP are refused with ErrPath.
func FromPath(in fib_types.FibPath) (Path, error) {
	out := Path{
		Type: in.Type, SwIfIndex: in.SwIfIndex, TableID: in.TableID,
		Weight: max(in.Weight, 1), Preference: in.Preference, Flags: in.Flags,
	}
	if in.NLabels != 0 {
		return out, fmt.Errorf("%w: %d MPLS labels", ErrPath, in.NLabels)
	}
	switch in.Type {
	case fib_types.FIB_API_PATH_TYPE_NORMAL, fib_types.FIB_API_PATH_TYPE_LOCAL, fib_types.FIB_API_PATH_TYPE_DROP,
		fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH, fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
	default:
		return out, fmt.Errorf("%w: type %s", ErrPath, in.Type)
	}
	switch in.Proto {
	case fib_types.FIB_API_PATH_NH_PROTO_IP4:
		out.Addr = netip.AddrFrom4(in.Nh.Address.GetIP4())
	case fib_types.FIB_API_PATH_NH_PROTO_IP6:
		out.Addr = netip.AddrFrom16(in.Nh.Address.GetIP6())
	default:
		return out, fmt.Errorf("%w: protocol %s", ErrPath, in.Proto)
	}
	if out.Addr.IsUnspecified() {
		out.Addr = netip.Addr{}
	}
	return out, nil
}
