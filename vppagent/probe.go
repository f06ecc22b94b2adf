package vppagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/memif"

	"rlr/binapi"
)

// Ping and traceroute on VPP: the dataplane's side of them.
//
// VPP's own ping has no times, so the router writes the packets itself, into a memif in IP mode: a lane. A lane has tables
// of its own, which hold nothing but a host route for each address that is being probed: to the neighbour on a given
// interface, to the lookup in the table that the probe is for, or, for an address of the node itself, to the node. So a
// probe can leave by any interface, also for fe80::2, which may be on several; and nothing of it is seen in other tables.
// Probes of one address by different ways need different lanes.
//
// Answers are sent to an address of the node. What VPP receives there and has no use for (echo replies to requests that are
// not its own, most ICMP errors) it punts, and its punt redirect sends that out of lane 0. IPv4's "destination unreachable"
// has a use in VPP, see probeunreach.go. Errors about packets that VPP could not send itself do not come at all over IPv4:
// VPP drops packets for the node from the node as spoofed. So OpenProbe says how long packets may be, and whether there is
// a route. For the same reason a request to an address of the node carries a source that only the lane knows.
//
// Lanes are made when the first probe needs them, and removed when CloseProbes is called, or at the next connection, so that
// a router that died leaves nothing for long.

// Addresses in a lane's tables; nowhere else are they seen or shadowed. 127.0.0.0/8 never leaves a node (RFC 1122
// §3.2.1.3), 100::/64 is nobody's (RFC 6666).
var (
	nearSide4, farSide4 = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	nearSide6, farSide6 = netip.MustParseAddr("100::1"), netip.MustParseAddr("100::2")
)

const (
	maxLanes  = 16
	laneMTU   = 65535 // so that answers come whole
	laneDrain = 5 * time.Second
)

var (
	errNoProbes   = errors.New("this VPP lacks messages that ping needs (memif, punt redirect, table allocation)")
	errAlienPunt  = errors.New("somebody else has redirected this VPP's punted packets, so answers would not come here")
	errManyLanes  = errors.New("too many probes of one address by different ways")
	errOwnProbing = errors.New("not an address of this node")
)

// probes are the lanes of one life.
type probes struct {
	mu      sync.Mutex // held during requests, which wait for nothing else
	life    *life
	lanes   []*lane
	unreach catcher
}

// lane is a memif in IP mode with its tables. Its ID is its place in the list.
type lane struct {
	index  uint32
	tables [2]uint32 // IPv4, IPv6
	routes map[netip.Addr]*laneRoute
}

type laneRoute struct {
	way   way
	users int
}

// OpenProbe prepares the way of packets from src to dst, routed in table or, unless swIfIndex is ^0, out of that interface.
// The caller connects to memif lane at socket, as slave in IP mode, and writes packets there with the source from, which
// is another than src when dst is an address of the node itself. Longer packets than mtu, in bytes, leave only in fragments.
// Answers come from any lane's memif. release ends it.
//
// Errors: ENETUNREACH, EHOSTUNREACH, EACCES for what the route to dst says, ENODEV, EADDRNOTAVAIL for a source that is not
// ours, VPP's refusals, fib.ErrDisconnected.
func (a *Agent) OpenProbe(
	ctx context.Context, socket string, table, swIfIndex uint32, src, dst netip.Addr,
) (lane uint32, from netip.Addr, mtu int, release func(), err error) {
	fail := func(err error) (uint32, netip.Addr, int, func(), error) {
		return 0, netip.Addr{}, 0, nil, err
	}
	l, err := a.current()
	if err != nil {
		return fail(err)
	}
	if !l.report.Supports(binapi.Probe) || !l.report.Supports(binapi.Memif) {
		return fail(errNoProbes)
	}
	if err := l.checkSource(ctx, table, swIfIndex, src); err != nil {
		return fail(fmt.Errorf("source %s: %w", src, err))
	}
	w, err := l.wayTo(ctx, table, swIfIndex, dst)
	if err != nil {
		return fail(err)
	}
	if from = src; w.kind == wayLocal {
		if from = farSide6; dst.Is4() {
			from = farSide4
		}
	}
	if slices.Contains([]netip.Addr{nearSide4, nearSide6, farSide4, farSide6}, dst) {
		return fail(fmt.Errorf("%s: %w", dst, syscall.EADDRNOTAVAIL))
	}
	mtu = w.mtu
	w.mtu = 0
	u := use{dst: dst, way: w}
	if src.Is4() && w.kind != wayLocal {
		u.src = src
	}
	if u.lane, err = a.probes.take(ctx, l, socket, u); err != nil {
		return fail(err)
	}
	return u.lane, from, mtu, sync.OnceFunc(func() { a.probes.release(l, u) }), nil
}

// use is what a probe has of the lanes.
type use struct {
	lane uint32
	dst  netip.Addr
	way  way
	src  netip.Addr // whose unreachables are caught; invalid: none
}

// CloseProbes removes all lanes from the dataplane.
func (a *Agent) CloseProbes(ctx context.Context) error {
	l, err := a.current()
	if err != nil {
		return err
	}
	return l.sweepProbes(ctx)
}

// take finds or makes a lane where an address has this way.
func (p *probes) take(ctx context.Context, l *life, socket string, u use) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != l {
		p.resetLocked(l)
	}
	n := slices.IndexFunc(p.lanes, func(ln *lane) bool {
		r := ln.routes[u.dst]
		return r == nil || r.way == u.way
	})
	if n < 0 {
		if n = len(p.lanes); n == maxLanes {
			return 0, errManyLanes
		}
		ln, err := l.makeLane(ctx, uint32(n), socket)
		if err != nil {
			return 0, fmt.Errorf("probe interface: %w", err)
		}
		p.lanes = append(p.lanes, ln)
		l.a.setLanes(p.lanes)
	}
	if u.src.IsValid() {
		if err := p.unreach.catch(ctx, l, p.lanes[0], u.src); err != nil {
			return 0, fmt.Errorf("catching what is unreachable: %w", err)
		}
	}
	if err := l.addLaneRoute(ctx, p.lanes[n], u); err != nil {
		p.unreach.release(ctx, l, u.src)
		return 0, fmt.Errorf("probe route to %s: %w", u.dst, err)
	}
	return uint32(n), nil
}

func (p *probes) resetLocked(l *life) {
	p.life, p.lanes, p.unreach = l, nil, catcher{}
	l.a.setLanes(nil)
}

func (p *probes) release(l *life, u use) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != l || int(u.lane) >= len(p.lanes) {
		return // removed with all else
	}
	ctx, cancel := context.WithTimeout(context.Background(), laneDrain)
	defer cancel()
	p.unreach.release(ctx, l, u.src)
	ln := p.lanes[u.lane]
	r := ln.routes[u.dst]
	if r == nil { // of lanes that were made since
		return
	}
	if r.users--; r.users > 0 {
		return
	}
	delete(ln.routes, u.dst)
	if err := l.laneRoute(ctx, ln, u.dst, r.way, false); err != nil {
		l.log.WithError(err).WithField("address", u.dst).Debug("probe route not removed") // it goes with the lane
	}
}

func (l *life) addLaneRoute(ctx context.Context, ln *lane, u use) error {
	if r := ln.routes[u.dst]; r != nil {
		r.users++
		return nil
	}
	if err := l.laneRoute(ctx, ln, u.dst, u.way, true); err != nil {
		return err
	}
	ln.routes[u.dst] = &laneRoute{way: u.way, users: 1}
	return nil
}

// laneRoute writes with the API's own source: fib asks for what ours holds in all tables, and this is none of its business.
func (l *life) laneRoute(ctx context.Context, ln *lane, addr netip.Addr, w way, add bool) error {
	r := ln.route(netip.PrefixFrom(addr, addr.BitLen()), w, add)
	return l.s.call(ctx, r.req, r.reply)
}

func (ln *lane) route(prefix netip.Prefix, w way, add bool) request {
	r := ip.IPRouteV2{TableID: ln.tables[0], Prefix: binapi.ToPrefix(prefix)}
	if prefix.Addr().Is6() {
		r.TableID = ln.tables[1]
	}
	if add {
		r.Paths, r.NPaths = []fibPath{binapi.ToPath(w.path(ln), prefix.Addr())}, 1
	}
	return request{req: &ip.IPRouteAddDelV2{IsAdd: add, Route: r}, reply: new(ip.IPRouteAddDelV2Reply)}
}

// makeLane makes a lane ready for the caller to connect to. What fails halfway is removed again.
func (l *life) makeLane(ctx context.Context, n uint32, socket string) (*lane, error) {
	if n == 0 {
		if err := l.checkPunt(ctx); err != nil {
			return nil, err
		}
	}
	w, err := l.memifs(ctx)
	if err != nil {
		return nil, err
	}
	id, err := memifSocket(ctx, l.s, socket, w)
	if err != nil {
		return nil, err
	}
	var made memif.MemifCreateV2Reply
	err = l.s.call(ctx, &memif.MemifCreateV2{
		Role: memif.MEMIF_ROLE_API_MASTER, Mode: memif.MEMIF_MODE_API_IP, ID: n, SocketID: id, RxQueues: 1, TxQueues: 1,
		RingSize: 1024, BufferSize: 2048,
	}, &made)
	if err != nil {
		return nil, fmt.Errorf("memif %d of socket %s: %w", n, socket, err)
	}
	ln := &lane{index: uint32(made.SwIfIndex), routes: make(map[netip.Addr]*laneRoute)}
	if err = l.setUpLane(ctx, ln, n); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), laneDrain)
		defer cancel()
		return nil, errors.Join(err, l.removeLane(undo, ln))
	}
	l.log.WithField("sw_if_index", ln.index).WithField("lane", n).Debug("probe interface made")
	return ln, nil
}

func (l *life) setUpLane(ctx context.Context, ln *lane, n uint32) error {
	index, name := interface_types.InterfaceIndex(ln.index), l.a.probeTag()
	err := l.s.call(ctx, &interfaces.SwInterfaceTagAddDel{IsAdd: true, SwIfIndex: index, Tag: name}, new(interfaces.SwInterfaceTagAddDelReply))
	if err != nil {
		return err
	}
	for at, ip6 := range []bool{false, true} {
		var reply ip.IPTableAllocateReply
		err := l.s.call(ctx, &ip.IPTableAllocate{Table: ip.IPTable{TableID: ^uint32(0), IsIP6: ip6, Name: name}}, &reply)
		if err != nil {
			return err
		}
		ln.tables[at] = reply.Table.TableID
	}
	todo := []request{
		{
			req:   &interfaces.SwInterfaceSetInterfaceName{SwIfIndex: index, Name: fmt.Sprintf("probe%d", n)},
			reply: new(interfaces.SwInterfaceSetInterfaceNameReply), optional: true,
		},
		{req: &interfaces.SwInterfaceSetTable{SwIfIndex: index, VrfID: ln.tables[0]}, reply: new(interfaces.SwInterfaceSetTableReply)},
		{req: &interfaces.SwInterfaceSetTable{SwIfIndex: index, IsIPv6: true, VrfID: ln.tables[1]}, reply: new(interfaces.SwInterfaceSetTableReply)},
		{
			req:   &interfaces.SwInterfaceSetMtu{SwIfIndex: index, Mtu: []uint32{laneMTU, 0, 0, 0}},
			reply: new(interfaces.SwInterfaceSetMtuReply),
		},
	}
	// VPP takes packets only from an interface that has an address of their family.
	for _, a := range []netip.Addr{nearSide4, nearSide6} {
		req, reply := address(ln.index, netip.PrefixFrom(a, a.BitLen()), true)
		todo = append(todo, request{req: req, reply: reply})
	}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		todo = append(todo, ln.route(netip.PrefixFrom(any, 0), way{kind: wayBack}, true))
	}
	todo = append(todo, request{
		req: &interfaces.SwInterfaceSetFlags{SwIfIndex: index, Flags: adminFlag(true)}, reply: new(interfaces.SwInterfaceSetFlagsReply),
	})
	if n == 0 {
		for _, ip6 := range []bool{false, true} {
			todo = append(todo, puntRedirect(ln.index, ip6, true))
		}
	}
	return apply(ctx, l.s, todo)
}

// probeTag marks lanes and their tables as this router's. It is none that an interface of the configuration could have.
func (a *Agent) probeTag() string {
	name := "rlr-probe/" + a.config().Router
	return name[:min(len(name), maxTag)]
}

func (l *life) removeLane(ctx context.Context, ln *lane) error {
	return l.sweepSome(ctx, func(o *observed) bool { return o.index == ln.index }, func(t table) bool {
		return t.id == ln.tables[0] && !t.ip6 || t.id == ln.tables[1] && t.ip6
	})
}

// sweepProbes removes the lanes, used or left over.
func (l *life) sweepProbes(ctx context.Context) error {
	p := &l.a.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(l.sweepCatchers(ctx), l.sweepLanes(ctx)) // classifiers refer to lanes' tables
	p.resetLocked(l)
	return err
}

func (l *life) sweepLanes(ctx context.Context) error {
	if !l.report.Supports(binapi.Probe) || !l.report.Supports(binapi.Memif) {
		return nil
	}
	return l.sweepSome(ctx, func(*observed) bool { return true }, func(table) bool { return true })
}

// sweepSome removes those of our lanes and tables that match: what sends packets to a lane before the lane.
func (l *life) sweepSome(ctx context.Context, lanes func(*observed) bool, tables func(table) bool) error {
	w, err := l.memifs(ctx)
	if err != nil {
		return err
	}
	tag := l.a.probeTag()
	doomed := make(map[uint32]bool)
	for _, o := range w.interfaces {
		doomed[o.index] = o.tag == tag && lanes(o)
	}
	var errs []error
	for _, ip6 := range []bool{false, true} {
		to, err := l.puntsTo(ctx, ip6)
		if err == nil && to != noInterface && doomed[to] {
			r := puntRedirect(to, ip6, false)
			err = l.s.call(ctx, r.req, r.reply)
		}
		errs = append(errs, err)
	}
	for _, o := range w.sorted() {
		if !doomed[o.index] {
			continue
		}
		err := deleteMemif(ctx, l.s, interface_types.InterfaceIndex(o.index))
		if err == nil {
			delete(w.interfaces, o.index)
			err = dropMemifSocket(ctx, l.s, o, w)
		}
		errs = append(errs, err)
	}
	for t, name := range w.tables {
		if name != tag || t.id == 0 || !tables(t) {
			continue
		}
		its := ip.IPTable{TableID: t.id, IsIP6: t.ip6}
		errs = append(errs,
			l.s.call(ctx, &ip.IPTableFlush{Table: its}, new(ip.IPTableFlushReply)),
			l.s.call(ctx, &ip.IPTableAddDel{Table: its}, new(ip.IPTableAddDelReply)))
	}
	return errors.Join(errs...)
}

// memifs looks at what makeLane and sweepSome need.
func (l *life) memifs(ctx context.Context) (*world, error) {
	return look(ctx, l.s, true, func(*observed) bool { return false })
}

// puntRedirect sends what VPP punts, from whatever interface, to a lane.
func puntRedirect(lane uint32, ip6, add bool) request {
	family, any := ip_types.ADDRESS_IP4, netip.IPv4Unspecified()
	if ip6 {
		family, any = ip_types.ADDRESS_IP6, netip.IPv6Unspecified()
	}
	path := binapi.ToPath(binapi.Path{SwIfIndex: lane}, any)
	return request{
		req: &ip.AddDelIPPuntRedirectV2{IsAdd: add, Punt: ip.PuntRedirectV2{
			RxSwIfIndex: interface_types.InterfaceIndex(noInterface), Af: family, Paths: []fibPath{path},
		}},
		reply: new(ip.AddDelIPPuntRedirectV2Reply),
	}
}

// puntsTo returns the interface that punted packets are sent to by default, or noInterface.
func (l *life) puntsTo(ctx context.Context, ip6 bool) (uint32, error) {
	family, to := ip_types.ADDRESS_IP4, uint32(noInterface)
	if ip6 {
		family = ip_types.ADDRESS_IP6
	}
	err := dump(ctx, l.s, &ip.IPPuntRedirectV2Dump{SwIfIndex: interface_types.InterfaceIndex(noInterface), Af: family},
		func(d *ip.IPPuntRedirectV2Details) {
			if uint32(d.Punt.RxSwIfIndex) == noInterface && len(d.Punt.Paths) > 0 {
				to = d.Punt.Paths[0].SwIfIndex
			}
		})
	return to, err
}

// checkPunt refuses to take over what somebody else has set up, and removes a redirect to an interface that is no more:
// VPP counts redirects, and would not forget one that is written over.
func (l *life) checkPunt(ctx context.Context) error {
	all, err := links(ctx, l.s)
	if err != nil {
		return err
	}
	for _, ip6 := range []bool{false, true} {
		to, err := l.puntsTo(ctx, ip6)
		if err != nil {
			return err
		}
		if to == noInterface {
			continue
		}
		if o := all[to]; o != nil {
			return fmt.Errorf("%w: they go to %s", errAlienPunt, o.name)
		}
		r := puntRedirect(to, ip6, false)
		if err := l.s.call(ctx, r.req, r.reply); err != nil {
			return err
		}
	}
	return nil
}

// setLanes tells setAdaptive of the lanes' interfaces.
func (a *Agent) setLanes(lanes []*lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes = nil
	for _, ln := range lanes {
		a.lanes = append(a.lanes, ln.index)
	}
}
