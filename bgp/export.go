package bgp

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file is how neighbours are told of routes.
//
//	GoBGP ──one export──► adjOut (shared) ──► teller (one a session) ──UPDATEs──► wire
//
// GoBGP v4.8.0 works out what each neighbour is told for each neighbour: with fifty of them it asks fifty policies of each change,
// and keeps fifty notes of it. Most of them come to the same. So neighbours that have the same policy, and whose sessions carry
// the same, are one neighbour to GoBGP as far as announcing goes: a stand-in, whose session ends in this process. What GoBGP tells
// it is an Adj-RIB-Out that they share. What is different for each of them is done when it is told: its own next hop, its own
// routes left out, and what traffic.go does. GoBGP itself announces nothing to the real neighbours; see outgoing.go.
//
// Stand-ins have addresses of their own in a prefix that no neighbour can be in (RFC 6666). Policies know a class of neighbours
// that have the same policy by the prefix of its stand-ins, and a class keeps its number when its policy changes: GoBGP is asked
// to tell everything anew, and only what differs goes out.

// ourselves is the next hop that stands for the local address of a session.
var ourselves = netip.MustParseAddr("100::2")

// silent is a neighbour that never comes; see outgoing.go.
var silent = netip.MustParseAddr("100::1")

const (
	// standInAS is the AS of stand-ins outside of ours. It can be nobody's (RFC 7300).
	standInAS = 4294967295
	classBits = 96
	// retellStart is how long it may take until what GoBGP has been asked for begins to come, and retellPoll how often one looks.
	retellStart = 20 * time.Millisecond
	retellPoll  = 2 * time.Millisecond
	// standInPause is how long GoBGP is left alone when it has refused a stand-in's session: it may not be ready.
	standInPause = 50 * time.Millisecond
)

// standIn reports whether a name of GoBGP's is none of a neighbour's.
func standIn(id netip.Addr) bool { return netip.PrefixFrom(silent, 64).Masked().Contains(id) }

// classPrefix has the addresses of a class's stand-ins. Numbers of classes begin with 1.
func classPrefix(class uint32) netip.Prefix {
	b := netip.MustParseAddr("100::").As16()
	binary.BigEndian.PutUint32(b[8:], class)
	return netip.PrefixFrom(netip.AddrFrom16(b), classBits)
}

func standInAddr(class, number uint32) netip.Addr {
	b := classPrefix(class).Addr().As16()
	binary.BigEndian.PutUint32(b[12:], number)
	return netip.AddrFrom16(b)
}

// exportKey is what neighbours have in common that share an Adj-RIB-Out.
type exportKey struct {
	class     uint32
	internal  bool
	client    bool     // of our route reflector
	longLived [2]bool  // they take long-lived stale routes (RFC 9494), by family
	most      [2]uint8 // paths to a prefix that they are told; 0: one, without identifiers
}

// exporter has what neighbours share.
type exporter struct {
	gate chan struct{} // closed when announcing may begin
	open func()

	mu      sync.Mutex
	next    uint32                // number of a stand-in
	last    uint32                // number of a class
	classes map[netip.Addr]uint32 // by GoBGP's name of the neighbour
	text    map[uint32]string     // a class's policy
	groups  map[exportKey]*shared
}

func newExporter() *exporter {
	e := &exporter{gate: make(chan struct{}), classes: map[netip.Addr]uint32{}, text: map[uint32]string{}, groups: map[exportKey]*shared{}}
	e.open = sync.OnceFunc(func() { close(e.gate) })
	return e
}

// shared is an Adj-RIB-Out with its stand-in.
type shared struct {
	key   exportKey
	id    netip.Addr // the stand-in's
	out   *adjOut
	end   context.CancelFunc
	users int        // guarded by exporter.mu
	turn  sync.Mutex // of those who have everything told anew
}

// classing says which class each neighbour is in.
type classing struct {
	last    uint32
	classes map[netip.Addr]uint32
	text    map[uint32]string
	changed map[uint32]bool // their policy is another one than before
	left    map[uint32]bool // neighbours of theirs are in another one now
}

// classify puts the neighbours of a program into classes by their export policies. A class whose neighbours have all the same policy
// as before, or another one together, keeps its number. Nothing of it counts before publish.
func (e *exporter) classify(p *compiled) classing {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := classing{
		last: e.last, classes: map[netip.Addr]uint32{}, text: map[uint32]string{}, changed: map[uint32]bool{}, left: map[uint32]bool{},
	}
	byText := map[string]uint32{}
	signatures := map[netip.Addr]string{}
	for _, id := range p.ids {
		signatures[id] = p.signature(exporting, id)
	}
	settle := func(c uint32, sign string) {
		byText[sign], next.text[c] = c, sign
		if was, there := e.text[c]; there && was != sign {
			next.changed[c] = true
		}
	}
	for _, same := range []bool{true, false} { // classes that stay as they are first: another one may have become equal to one
		for _, id := range p.ids {
			c, sign := e.classes[id], signatures[id]
			if _, named := next.text[c]; c == 0 || named || byText[sign] != 0 || same != (e.text[c] == sign) {
				continue
			}
			settle(c, sign)
		}
	}
	for _, id := range p.ids {
		sign := signatures[id]
		if byText[sign] == 0 {
			next.last++
			settle(next.last, sign)
		}
		next.classes[id] = byText[sign]
		if was := e.classes[id]; was != 0 && was != next.classes[id] {
			next.left[was] = true
		}
	}
	return next
}

func (e *exporter) publish(c classing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.classes, e.text = c.last, c.classes, c.text
}

// of are the Adj-RIB-Outs of classes.
func (e *exporter) of(classes ...map[uint32]bool) (groups []*shared) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, g := range e.groups {
		if slices.ContainsFunc(classes, func(c map[uint32]bool) bool { return c[k.class] }) {
			groups = append(groups, g)
		}
	}
	return groups
}

// class is a neighbour's.
func (e *exporter) class(id netip.Addr) uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.classes[id]
}

// join finds or makes the Adj-RIB-Out for a key. leave must follow.
func (r *running) join(k exportKey) *shared {
	e := r.export
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[k]
	if g == nil {
		e.next++
		var ctx context.Context
		g = &shared{
			key: k, id: standInAddr(k.class, e.next),
			out: newAdjOut(uint64(e.next), [2]bool{k.most[0] > 0, k.most[1] > 0}),
		}
		ctx, g.end = context.WithCancel(r.ctx)
		e.groups[k] = g
		r.work.Go(func() { r.standIn(ctx, g) })
	}
	g.users++
	return g
}

// leave ends one's use of it. An Adj-RIB-Out that nobody uses goes.
func (r *running) leave(g *shared) {
	r.export.mu.Lock()
	defer r.export.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(r.export.groups, g.key)
		g.end()
	}
}

// keyFor is for a session whose OPENs are here.
func (p *peer) keyFor(class uint32, t *traffic, open *openInfo) exportKey {
	cfg := p.config()
	k := exportKey{class: class, internal: t.internal, client: cfg.RouteReflectorClient}
	for _, f := range both {
		if t.idsOut(f.wire()) > 0 {
			k.most[f-1] = cfg.AddPath.SendMax
		}
		k.longLived[f-1] = cfg.Graceful.Mode != GracefulOff && cfg.Graceful.LongLived > 0 && open.gr.aware && open.gr.longLived[f] > 0
	}
	return k
}

// tell tells a neighbour of routes until its session ends, which has just been established.
func (r *running) tell(p *peer, s *session, w *wire) {
	class, shape, open := r.export.class(p.id), s.shaper(), w.openOrZero()
	if class == 0 {
		p.log.Error("the BGP neighbor has no export policy, and is told of no routes")
		return
	}
	t := &teller{
		r: r, sess: s, wire: w, shape: shape, id: open.identifier(), as: open.as,
		marks: open.gr.aware && p.config().Graceful.Mode != GracefulOff, wake: make(chan struct{}, 1),
	}
	g := r.join(p.keyFor(class, shape, open))
	t.out = g.out
	t.class.Store(class)
	g.out.join(t)
	p.telling.Store(t)
	p.work.Go(func() {
		last := t.run(g)
		p.telling.CompareAndSwap(t, nil)
		last.out.leave(t)
		r.leave(last)
	})
}

// regroup makes neighbours whose class is another one now go on with that.
func (r *running) regroup() {
	for p := range r.peers {
		if t := p.telling.Load(); t != nil {
			t.goOn(r.export.class(p.id))
		}
	}
}

// refill has GoBGP tell everything anew to the stand-ins of classes: their policies come to something else than before.
func (r *running) refill(classes map[uint32]bool) error {
	var errs []error
	for _, g := range r.export.of(classes) {
		errs = append(errs, r.retell(g))
	}
	return errors.Join(errs...)
}

// retell has GoBGP tell a stand-in everything anew, and waits until all of it has been read. GoBGP does nothing where it has not
// noted yet that the session is established; then all is still to come.
func (r *running) retell(g *shared) error {
	g.turn.Lock() // one at a time: what is told to the first must not be taken for what is told to the second
	defer g.turn.Unlock()
	told := g.out.told.Load()
	g.out.refresh()
	if err := r.softResetOut(g.id); err != nil {
		return fmt.Errorf("announce anew: %w", err)
	}
	tick := time.NewTicker(retellPoll)
	defer tick.Stop()
	for began := time.Now(); r.ctx.Err() == nil; {
		now := g.out.told.Load()
		if now == told && time.Since(began) > retellStart || now != told && g.out.done.Load() >= now {
			break
		}
		select {
		case <-tick.C:
		case <-r.ctx.Done():
		}
	}
	return nil
}

func (r *running) softResetOut(id netip.Addr) error {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if !r.standIns[id] || r.stopped {
		return nil // it is not there yet, and will be told all
	}
	return r.gobgp.ResetPeer(r.ctx, &api.ResetPeerRequest{Address: id.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
}

// --- stand-ins

// standIn has a stand-in until ctx ends.
func (r *running) standIn(ctx context.Context, g *shared) {
	log := r.log.WithField("stand_in", g.id.String())
	if err := r.addStandIn(g); err != nil {
		log.WithError(err).Error("BGP neighbors are told of no routes")
		<-ctx.Done()
		return
	}
	for pause := time.Duration(0); ctx.Err() == nil; pause = standInPause {
		select {
		case <-time.After(pause):
			r.standInSession(ctx, g, log)
			g.out.again()
		case <-ctx.Done():
		}
	}
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	delete(r.standIns, g.id)
	if r.stopped {
		return
	}
	if err := r.gobgp.DeletePeer(r.ctx, &api.DeletePeerRequest{Address: g.id.String()}); err != nil && r.ctx.Err() == nil {
		log.WithError(err).Warn("GoBGP does not forget a stand-in")
	}
}

func (r *running) addStandIn(g *shared) error {
	k := g.key
	peer := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: g.id.String(), PeerAsn: g.as(r.as), LocalAsn: r.as},
		Transport: &api.Transport{PassiveMode: true, LocalAddress: netip.IPv6Unspecified().String()},
		Timers:    &api.Timers{Config: &api.TimersConfig{HoldTime: 90, KeepaliveInterval: 30, IdleHoldTimeAfterReset: idleAfterReset}},
		RouteReflector: &api.RouteReflector{
			RouteReflectorClient: k.client, RouteReflectorClusterId: r.cluster.String(),
		},
		GracefulRestart: &api.GracefulRestart{Enabled: true, HelperOnly: true, RestartTime: 1, LonglivedEnabled: k.longLived != [2]bool{}},
	}
	for _, f := range both {
		one := &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{}},
			LongLivedGracefulRestart: &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
				Enabled: k.longLived[f-1], RestartTime: 1,
			}},
		}
		if n := k.most[f-1]; n > 0 {
			one.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{SendMax: uint32(n)}}
		}
		peer.AfiSafis = append(peer.AfiSafis, one)
	}
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if r.stopped {
		return nil
	}
	if err := r.gobgp.AddPeer(r.ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("add stand-in: %w", err)
	}
	work, forget, err := takeQueue(r.gobgp, g.id, g.out.take)
	if err != nil {
		return fmt.Errorf("add stand-in: %w", err)
	}
	if k.most == [2]uint8{} {
		g.out.forget = forget
	}
	r.work.Go(work)
	r.standIns[g.id] = true
	return nil
}

func (g *shared) as(own uint32) uint32 {
	if g.key.internal {
		return own
	}
	return standInAS
}

// open is the stand-in's OPEN: it can do whatever its neighbours can.
func (g *shared) open(own uint32) ([]byte, error) {
	k, as := g.key, g.as(own)
	caps := []bgp.ParameterCapabilityInterface{bgp.NewCapRouteRefresh(), bgp.NewCapFourOctetASNumber(as)}
	var lasting []*bgp.CapLongLivedGracefulRestartTuple
	var several []*bgp.CapAddPathTuple
	for _, f := range both {
		caps = append(caps, bgp.NewCapMultiProtocol(f.wire()))
		if k.longLived[f-1] {
			lasting = append(lasting, bgp.NewCapLongLivedGracefulRestartTuple(f.wire(), false, 1))
		}
		if k.most[f-1] > 0 {
			several = append(several, bgp.NewCapAddPathTuple(f.wire(), bgp.BGP_ADD_PATH_RECEIVE))
		}
	}
	caps = append(caps, bgp.NewCapGracefulRestart(false, false, 1, nil)) // so that GoBGP sends End-of-RIBs
	if lasting != nil {
		caps = append(caps, bgp.NewCapLongLivedGracefulRestart(lasting))
	}
	if several != nil {
		caps = append(caps, bgp.NewCapAddPath(several))
	}
	b := g.id.As16()
	id := netip.AddrFrom4([4]byte{255, b[13], b[14], b[15]}) // a BGP Identifier that no neighbour should have
	m, err := bgp.NewBGPOpenMessage(narrow(as), 0, id, []bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		return nil, err
	}
	return m.Serialize()
}

// standInSession is one session of a stand-in. Its hold time is 0: it lasts.
func (r *running) standInSession(ctx context.Context, g *shared, log *logrus.Entry) {
	open, err := g.open(r.as)
	if err != nil {
		log.WithError(err).Error("a stand-in has no OPEN")
		<-ctx.Done()
		return
	}
	near, far := net.Pipe()
	defer near.Close()
	conn := &standInConn{Conn: far, remote: &net.TCPAddr{IP: g.id.AsSlice(), Port: bgp.BGP_PORT}, local: &net.TCPAddr{IP: ourselves.AsSlice(), Port: bgp.BGP_PORT}}
	r.peerMu.Lock()
	conns := r.conns
	r.peerMu.Unlock()
	select {
	case conns <- conn:
	case <-ctx.Done():
		return
	}
	session, over := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer near.Close()
	defer over()
	work.Go(func() {
		defer over()
		_, _ = io.Copy(io.Discard, near) // until GoBGP closes it
	})
	work.Go(func() {
		for _, m := range [][]byte{open, keepaliveMessage()} {
			if _, err := near.Write(m); err != nil {
				return
			}
		}
		r.fill(session, g)
	})
	<-session.Done()
}

// fill has everything told once more after what comes at the beginning; see adjOut.take.
func (r *running) fill(ctx context.Context, g *shared) {
	tick := time.NewTicker(retellStart)
	defer tick.Stop()
	for !g.out.filled() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.out.told.Load() == 0 {
			continue // the session has not begun
		}
		if err := r.retell(g); err != nil && ctx.Err() == nil {
			r.log.WithError(err).Warn("GoBGP does not say what neighbors are to be told")
		}
	}
}

// standInConn is GoBGP's end of such a session.
type standInConn struct {
	net.Conn
	noSyscalls
	remote, local *net.TCPAddr
}

func (c *standInConn) RemoteAddr() net.Addr { return c.remote }
func (c *standInConn) LocalAddr() net.Addr  { return c.local }

// hush adds the neighbour that never comes: while GoBGP waits for it, it announces nothing to the others.
func (r *running) hush() error {
	peer := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: silent.String(), PeerAsn: standInAS, LocalAsn: r.as},
		Transport:       &api.Transport{PassiveMode: true, LocalAddress: netip.IPv6Unspecified().String()},
		GracefulRestart: &api.GracefulRestart{Enabled: true, RestartTime: 1},
	}
	for _, f := range both {
		peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
		})
	}
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if err := r.gobgp.AddPeer(r.ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("add the silent neighbor: %w", err)
	}
	return nil
}

// forClasses is a program in which the exporting statements are for classes, and not for neighbours.
func (p *compiled) forClasses(c classing) *api.SetPoliciesRequest {
	byNet := map[string]uint32{}
	for id, class := range c.classes {
		byNet[neighborNet(id)] = class
	}
	groups := &compiled{sets: maps.Clone(p.sets)}
	groups.steps[importing] = p.steps[importing]
	for _, s := range p.steps[exporting] {
		var classes []uint32
		for _, net := range p.sets[s.Conditions.NeighborSet.Name].List {
			if class, there := byNet[net]; there {
				classes = append(classes, class)
			}
		}
		slices.SortFunc(classes, cmp.Compare[uint32])
		list := []string{never}
		for _, class := range slices.Compact(classes) {
			list = append(list, classPrefix(class).String())
		}
		groups.steps[exporting] = append(groups.steps[exporting], s.forNeighbors(groups, list))
	}
	return groups.request()
}
