package vppagent

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"syscall"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
)

// Where a packet of the node's own would go, and with what source: VPP's forwarding tables are asked.

// way is how a lane's packets for an address go on.
type way struct {
	kind  wayKind
	table uint32     // wayTable
	index uint32     // wayInterface
	next  netip.Addr // wayInterface
	mtu   int        // of packets, bytes; not of the route
}

type wayKind uint8

const (
	wayTable     wayKind = iota // looked up in a table
	wayInterface                // to a neighbour on an interface
	wayLocal                    // to the node
	wayBack                     // back to us
)

func (w way) path(ln *lane) binapi.Path {
	switch w.kind {
	case wayInterface:
		return binapi.Path{SwIfIndex: w.index, Addr: w.next}
	case wayLocal:
		return binapi.Path{Type: fib_types.FIB_API_PATH_TYPE_LOCAL, SwIfIndex: ln.index}
	case wayBack:
		return binapi.Path{SwIfIndex: ln.index}
	default:
		return binapi.Path{SwIfIndex: noInterface, TableID: w.table}
	}
}

// hop is one of the places where a table sends an address.
type hop struct {
	local bool
	index uint32
	next  netip.Addr // invalid: the address itself, on the link
}

// maxDepth bounds how often a next hop is looked up in turn; VPP has no loops, but may change while we look.
const maxDepth = 8

// hops asks a table where it sends dst. Errors: ENETUNREACH, EHOSTUNREACH, EACCES, the connection's.
func (l *life) hops(ctx context.Context, table uint32, dst netip.Addr, depth int) ([]hop, error) {
	if depth == 0 {
		return nil, syscall.ENETUNREACH
	}
	var reply ip.IPRouteLookupV2Reply
	err := l.s.call(ctx, &ip.IPRouteLookupV2{TableID: table, Prefix: binapi.ToPrefix(netip.PrefixFrom(dst, dst.BitLen()))}, &reply)
	switch {
	case errors.Is(err, api.NO_SUCH_FIB), errors.Is(err, api.NO_SUCH_ENTRY):
		return nil, syscall.ENETUNREACH
	case err != nil:
		return nil, err
	}
	var found []hop
	why := error(syscall.ENETUNREACH)
	for _, in := range reply.Route.Paths {
		p, err := binapi.FromPath(in)
		switch {
		case err != nil: // something more than IP: it goes somewhere
			if in.SwIfIndex != noInterface {
				found = append(found, hop{index: in.SwIfIndex})
			}
		case p.Type == fib_types.FIB_API_PATH_TYPE_LOCAL:
			found = append(found, hop{local: true, index: p.SwIfIndex})
		case p.Type == fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH:
			why = syscall.EHOSTUNREACH
		case p.Type == fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
			why = syscall.EACCES
		case p.Type == fib_types.FIB_API_PATH_TYPE_DROP:
		case p.SwIfIndex != noInterface:
			found = append(found, hop{index: p.SwIfIndex, next: p.Addr})
		default:
			more, err := l.further(ctx, p, dst, depth)
			if err != nil {
				why = err
			}
			found = append(found, more...)
		}
	}
	if len(found) == 0 {
		return nil, why
	}
	return found, nil
}

// further follows a path that another route tells the end of.
func (l *life) further(ctx context.Context, p binapi.Path, dst netip.Addr, depth int) ([]hop, error) {
	if !p.Addr.IsValid() {
		return l.hops(ctx, p.TableID, dst, depth-1)
	}
	found, err := l.hops(ctx, p.TableID, p.Addr, depth-1)
	for i := range found {
		if !found[i].next.IsValid() {
			found[i].next = p.Addr
		}
	}
	return found, err
}

// bound returns the hop by an interface: the route's, if it has one there, else dst itself as a neighbour.
func (l *life) bound(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (hop, *observed, error) {
	o, err := lookAt(ctx, l.s, swIfIndex)
	if err != nil {
		if errors.Is(err, errGone) {
			err = syscall.ENODEV
		}
		return hop{}, nil, err
	}
	if isLinkLocal(dst) {
		return hop{local: o.linkLocal == dst, index: swIfIndex, next: dst}, o, nil
	}
	found, err := l.hops(ctx, table, dst, maxDepth)
	if err != nil && !isErrno(err) {
		return hop{}, nil, err
	}
	for _, h := range found {
		if h.local || h.index == swIfIndex {
			if !h.next.IsValid() {
				h.next = dst
			}
			return h, o, nil
		}
	}
	return hop{index: swIfIndex, next: dst}, o, nil
}

func isLinkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func isErrno(err error) bool { return errors.As(err, new(syscall.Errno)) }

// wayTo returns how a lane is to send packets to dst. Errors: as of hops; ENODEV.
func (l *life) wayTo(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (way, error) {
	if swIfIndex != noInterface {
		h, o, err := l.bound(ctx, table, swIfIndex, dst)
		switch {
		case err != nil:
			return way{}, err
		case h.local:
			return way{kind: wayLocal, mtu: laneMTU}, nil
		}
		return way{kind: wayInterface, index: h.index, next: h.next, mtu: o.packetMTU()}, nil
	}
	if isLinkLocal(dst) {
		return way{}, fmt.Errorf("%s without an interface: %w", dst, syscall.ENETUNREACH)
	}
	found, err := l.hops(ctx, table, dst, maxDepth)
	if err != nil {
		return way{}, err
	}
	if found[0].local {
		return way{kind: wayLocal, mtu: laneMTU}, nil
	}
	all, err := links(ctx, l.s)
	if err != nil {
		return way{}, err
	}
	w := way{kind: wayTable, table: table, mtu: laneMTU}
	for _, h := range found { // VPP chooses among them by the packet
		if o := all[h.index]; o != nil {
			w.mtu = min(w.mtu, o.packetMTU())
		}
	}
	return w, nil
}

// packetMTU is how long an IP packet may be. VPP says 0 for an interface without a limit of its own.
func (o *observed) packetMTU() int {
	if o.mtu == 0 {
		return laneMTU
	}
	return int(o.mtu)
}

// checkSource refuses what is no address of the node: answers would go to somebody else.
func (l *life) checkSource(ctx context.Context, table, swIfIndex uint32, src netip.Addr) error {
	if isLinkLocal(src) {
		if swIfIndex == noInterface {
			return fmt.Errorf("a link-local source needs an interface: %w", syscall.EADDRNOTAVAIL)
		}
		o, err := lookAt(ctx, l.s, swIfIndex)
		if err != nil {
			return err
		}
		if o.linkLocal != src {
			return fmt.Errorf("%w: %w", errOwnProbing, syscall.EADDRNOTAVAIL)
		}
		return nil
	}
	found, err := l.hops(ctx, table, src, maxDepth)
	if err != nil && !isErrno(err) {
		return err
	}
	if len(found) == 0 || !found[0].local {
		return fmt.Errorf("%w: %w", errOwnProbing, syscall.EADDRNOTAVAIL)
	}
	return nil
}

// SourceFor returns the address that the node would use towards dst, as VPP chooses it: of the interface by which dst is
// reached, or of the one that lends it addresses, the one with the most leading bits in common; else another of the table,
// a loopback's first. swIfIndex is the interface, or ^0 for the route's. Errors: ENETUNREACH, EHOSTUNREACH, EACCES, ENODEV,
// EADDRNOTAVAIL, fib.ErrDisconnected; wrapped.
func (a *Agent) SourceFor(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error) {
	l, err := a.current()
	if err != nil {
		return netip.Addr{}, err
	}
	src, err := l.sourceFor(ctx, table, swIfIndex, dst.Unmap().WithZone(""))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("source for %s: %w", dst, err)
	}
	return src, nil
}

func (l *life) sourceFor(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error) {
	h, o, err := l.egress(ctx, table, swIfIndex, dst)
	if err != nil {
		return netip.Addr{}, err
	}
	if h.local {
		return dst, nil
	}
	if isLinkLocal(dst) {
		if !o.linkLocal.IsValid() {
			return netip.Addr{}, syscall.EADDRNOTAVAIL
		}
		return o.linkLocal, nil
	}
	towards := dst
	if h.next.IsValid() && h.next.Is4() == dst.Is4() && !isLinkLocal(h.next) {
		towards = h.next
	}
	lender, err := l.lender(ctx, o)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, from := range []*observed{o, lender} {
		if from == nil {
			continue
		}
		if a := nearest(from, towards); a.IsValid() {
			return a, nil
		}
	}
	if a := l.a.anyAddress(table, dst.Is4()); a.IsValid() {
		return a, nil
	}
	return netip.Addr{}, syscall.EADDRNOTAVAIL
}

func (l *life) egress(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (hop, *observed, error) {
	if swIfIndex != noInterface {
		return l.bound(ctx, table, swIfIndex, dst)
	}
	if isLinkLocal(dst) {
		return hop{}, nil, fmt.Errorf("no interface given: %w", syscall.EADDRNOTAVAIL)
	}
	found, err := l.hops(ctx, table, dst, maxDepth)
	if err != nil || found[0].local {
		return hop{local: true}, nil, err
	}
	o, err := lookAt(ctx, l.s, found[0].index)
	return found[0], o, err
}

// lender returns the interface whose addresses another uses, or nil.
func (l *life) lender(ctx context.Context, o *observed) (*observed, error) {
	lender := uint32(noInterface)
	err := dump(ctx, l.s, &ip.IPUnnumberedDump{SwIfIndex: interface_types.InterfaceIndex(o.index)}, func(d *ip.IPUnnumberedDetails) {
		if uint32(d.SwIfIndex) == o.index {
			lender = uint32(d.IPSwIfIndex)
		}
	})
	if err != nil || lender == noInterface {
		return nil, err
	}
	return lookAt(ctx, l.s, lender)
}

// nearest returns the interface's address with the most leading bits in common with another; the first of equals.
func nearest(o *observed, to netip.Addr) (best netip.Addr) {
	most := -1
	for _, p := range o.addresses {
		if p.Addr().Is4() != to.Is4() {
			continue
		}
		if n := commonBits(p.Addr(), to); n > most {
			best, most = p.Addr(), n
		}
	}
	return best
}

func commonBits(a, b netip.Addr) (n int) {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return n + bits.LeadingZeros8(d)
		}
		n += 8
	}
	return n
}

// anyAddress returns an address of the table's configured interfaces, preferably one that is not of a cable.
func (a *Agent) anyAddress(table uint32, ip4 bool) (found netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	loopback := false
	for i := range a.cfg.Interfaces {
		l, ok := a.links[a.cfg.Interfaces[i].Name]
		if !ok || l.table != table || !l.admin || found.IsValid() && (loopback || !l.loopback) {
			continue
		}
		for _, p := range l.addresses {
			if p.Addr().Is4() == ip4 {
				found, loopback = p.Addr(), l.loopback
				break
			}
		}
	}
	return found
}
