// Package bgp is the router's BGP speaker: GoBGP as a library, with a transport of ours below it and the fib above.
//
//	hoststack ──conns──► listener ─┐
//	    ▲                          ├─► peer (one a neighbour) ──session──► GoBGP ──events──► feeder ──routes──► Feed
//	    └────── dials ─────────────┘                  ▲                   │  ▲
//	                             UPDATEs ◄── teller ◄── adjOut ◄──────────┘  └── Originate, Apply, policies
//
// GoBGP dials and listens with the kernel's TCP; this router has none. So every neighbour is passive to GoBGP, and peer.go
// makes and takes the connections, resolves collisions, and hands over one session at a time (session.go, inject.go).
// What GoBGP announces goes to a stand-in of all neighbours with the same policy, and from there to each of them (export.go).
// Everything else is GoBGP's: the state machine, the tables, the decision, the policies.
//
// There is one Speaker in a process: GoBGP keeps some options (multipath among them) in variables of its packages.
package bgp

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
	"github.com/sirupsen/logrus"

	"rlr/bgp/rpki"
	"rlr/fib"
	"rlr/hoststack"
)

// Options are what a Speaker is made of. All are needed.
type Options struct {
	Config Config
	Stack  hoststack.Stack
	Feed   Feed
	Log    *logrus.Entry

	// Injected takes the routes that ServeGRPC is given by others. It may be left out where that is not called.
	Injected Feed

	// Outlived says that the dataplane goes on forwarding when this process ends: then neighbours are asked to keep our routes
	// (RFC 4724). Unlike the others it may be left out.
	Outlived bool

	// Life is a number that changes when the dataplane has lost what it held, and 0 while that is not known. It may be left out.
	Life func() uint64

	// BFD watches the neighbours that the configuration says. It may be left out: then none is watched.
	BFD BFDMonitor

	// Arrived, if not nil, is told when an UPDATE with one route has been read from a neighbour, so that somebody can measure
	// how long it takes from there. It must not block.
	Arrived func(prefix netip.Prefix, at time.Time)
}

// Speaker is a BGP speaker. Its methods may be called from any goroutine, before, during and after Run; what is changed
// before Run is there when it begins.
type Speaker struct {
	stack  hoststack.Stack
	log    *logrus.Entry
	feeder *feeder
	local  localSpeaker
	ready  chan struct{}
	// arrived is Options.Arrived.
	arrived func(netip.Prefix, time.Time)
	bfd     BFDMonitor
	pulse   *pulse

	strangers strangers

	changes turn // serializes what changes GoBGP: Run's beginning and end, Apply, Originate, Enable, Disable, Reset

	roas        atomic.Pointer[rpki.Table] // nil: routes are not validated
	roasChanged chan struct{}              // holds one when roas has

	voided chan struct{} // holds one when the dataplane has lost what it held

	mu      sync.RWMutex
	resumed bool                  // the dataplane holds routes of an earlier run
	leaving bool                  // another run will follow this one
	asked   Config                // as configured; guarded by changes
	found   map[string]netip.Addr // who is on which link; guarded by changes
	missing []Neighbor            // that were not found
	cfg     Config                // asked, with addresses
	peers   map[netip.Addr]*peer  // by configured address, with zone
	byID    map[netip.Addr]*peer  // by what GoBGP calls them
	origins map[Origin]bool
	guests  guests
	running *running // nil before Run and after
}

// running is what exists while Run runs.
type running struct {
	ctx       context.Context // of peers and listeners: it ends after they have said goodbye
	cancel    context.CancelFunc
	gobgp     *server.BgpServer
	conns     chan<- net.Conn // to GoBGP
	peers     map[*peer]func()
	listeners map[netip.Addr]func() // by 0.0.0.0 or ::
	work      sync.WaitGroup

	deferral   time.Duration
	recovering atomic.Bool // the first routes of the neighbours are awaited after a restart of ours

	counter counter
	export  *exporter
	program atomic.Pointer[compiled] // of GoBGP's policies

	roa    *roaTable   // GoBGP's
	roaMu  sync.Mutex  // guards what roa has
	roaHas *rpki.Table // never another's than ours

	as      uint32 // ours
	cluster netip.Addr
	log     *logrus.Entry

	peerMu   sync.Mutex          // GoBGP's list of peers
	standIns map[netip.Addr]bool // that are in it
	stopped  bool                // it is GoBGP's own again; guarded by peerMu

	backups *backups           // the feeder's
	calm    context.CancelFunc // ends the pulse; guarded by Speaker.changes
}

const (
	// shutdownWait is how long a session may take to end once its NOTIFICATION is sent.
	shutdownWait = 2 * time.Second
	// quietTime without a route is taken for the end of a neighbour's first routes.
	quietTime = 3 * time.Second
	// idleAfterReset is how many seconds GoBGP stays idle after a reset that it was asked for; its smallest value.
	idleAfterReset = 1
)

// New checks the configuration and that this GoBGP takes connections from us. It starts nothing.
func New(o Options) (*Speaker, error) {
	if err := checkInjection(); err != nil {
		return nil, fmt.Errorf("bgp: %w", err)
	}
	if err := checkROATable(); err != nil {
		return nil, fmt.Errorf("bgp: %w", err)
	}
	cfg, err := o.Config.check()
	if err != nil {
		return nil, fmt.Errorf("bgp: %w", err)
	}
	asked := cfg
	cfg, missing := asked.resolve(nil)
	if o.Life == nil {
		o.Life = func() uint64 { return 0 }
	}
	s := &Speaker{
		stack: o.Stack, log: o.Log,
		local: localSpeaker{as: cfg.AS, id: cfg.RouterID, cluster: cfg.ClusterID, outlived: o.Outlived, life: o.Life},
		ready: make(chan struct{}), voided: make(chan struct{}, 1), arrived: o.Arrived, bfd: o.BFD, pulse: newPulse(), roasChanged: make(chan struct{}, 1),
		asked: asked, missing: missing, cfg: cfg,
		peers: map[netip.Addr]*peer{}, byID: map[netip.Addr]*peer{}, origins: map[Origin]bool{},
		changes: make(turn, 1), guests: newGuests(),
	}
	s.feeder = &feeder{feed: o.Feed, multipath: cfg.Multipath, peer: s.peerByID, log: o.Log, sets: map[fib.Key][]member{}, backups: newBackups()}
	s.feeder.injected = injected{feed: o.Injected, keys: map[fib.Key]bool{}, originated: s.originated}
	for _, n := range cfg.Neighbors {
		s.addPeerLocked(n)
	}
	return s, nil
}

// Ready is closed when Run has begun to speak.
func (s *Speaker) Ready() <-chan struct{} { return s.ready }

// Run speaks until ctx ends; then it tells every neighbour so (Cease, Administrative Shutdown), and returns when all is
// closed; see Leave for another end. The feed keeps the routes that it has: whether they shall go is for the dataplane's owner
// to say. A Speaker runs once.
func (s *Speaker) Run(ctx context.Context) error {
	s.changes.Lock()
	r, err := s.start(ctx)
	s.changes.Unlock()
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	close(s.ready)
	s.waitFed(ctx)
	if ctx.Err() == nil {
		s.recovered(r, false)
	}
	for ctx.Err() == nil {
		select {
		case <-s.voided:
			s.recovered(r, true)
		case <-ctx.Done():
		}
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.stop(r)
	return nil
}

// start brings GoBGP up with all that is configured.
func (s *Speaker) start(ctx context.Context) (*running, error) {
	gobgp := server.NewBgpServer(server.LoggerOption(newLogger(s.log), nil))
	conns, err := injector(gobgp)
	if err != nil {
		return nil, err
	}
	r := &running{
		gobgp: gobgp, conns: conns, peers: map[*peer]func(){}, listeners: map[netip.Addr]func(){}, deferral: s.cfg.Deferral,
		roa: roaTableOf(gobgp), export: newExporter(), as: s.local.as, cluster: s.local.cluster, log: s.log, standIns: map[netip.Addr]bool{},
		backups: s.feeder.backups,
	}
	s.mu.RLock()
	r.recovering.Store(s.resumed)
	s.mu.RUnlock()
	if r.recovering.Load() {
		s.feeder.hold()
	} else {
		r.export.open()
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.work.Go(gobgp.Serve)
	if err := s.configure(r); err != nil {
		s.stop(r)
		return nil, err
	}
	return r, nil
}

func (s *Speaker) configure(r *running) error {
	err := r.gobgp.StartBgp(r.ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: s.cfg.AS, RouterId: s.cfg.RouterID.String(), ListenPort: -1, UseMultiplePaths: s.cfg.Multipath > 1,
		Families: []uint32{uint32(oc.AFI_SAFI_TYPE_IPV4_UNICAST.ToInt()), uint32(oc.AFI_SAFI_TYPE_IPV6_UNICAST.ToInt())},
	}})
	if err != nil {
		return fmt.Errorf("start GoBGP: %w", err)
	}
	judged := s.takeROAs(r)
	r.work.Go(func() { s.followROAs(r, judged) })
	if err := s.watch(r); err != nil {
		return fmt.Errorf("watch GoBGP: %w", err)
	}
	if err := r.hush(); err != nil {
		return err
	}
	if _, err := r.install(policies(&s.cfg, s.ids(), s.ownOrigins()), false, nil); err != nil {
		return err
	}
	if err := assignPolicies(r.ctx, r.gobgp); err != nil {
		return err
	}
	s.mu.Lock()
	s.running = r
	origins := s.origins
	peers := slices.Collect(maps.Values(s.peers))
	s.mu.Unlock()
	if err := changeOrigins(r.gobgp, nil, origins); err != nil {
		return err
	}
	for _, p := range peers {
		if err := s.startPeer(r, p); err != nil {
			return err
		}
	}
	s.updateListeners(r)
	r.work.Go(func() { s.forgetGuests(r) })
	s.heedBFD(r, s.cfg.watches())
	r.work.Go(func() { s.backUp(r.ctx, r) })
	return nil
}

// stop is the end of Run.
func (s *Speaker) stop(r *running) {
	s.feeder.close()
	for _, stop := range r.listeners {
		stop()
	}
	var down []<-chan struct{}
	s.mu.RLock()
	leaving := s.leaving
	s.mu.RUnlock()
	if !leaving {
		s.farewell(r)
	}
	for p := range r.peers {
		if leaving {
			down = append(down, p.depart())
		} else {
			down = append(down, p.shutdown(ceaseShutdown, nil, causeQuiet))
		}
	}
	waitAll(down)
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	r.cancel()
	r.peerMu.Lock()
	r.stopped = true
	r.peerMu.Unlock()
	r.counter.close()
	r.gobgp.Stop()
	for _, stop := range r.peers {
		stop()
	}
	r.work.Wait()
}

// waitAll waits until all channels are closed, but no longer than a session may take to end.
func waitAll(chans []<-chan struct{}) {
	timeout := time.NewTimer(shutdownWait)
	defer timeout.Stop()
	for _, c := range chans {
		select {
		case <-c:
		case <-timeout.C:
			return
		}
	}
}

// resetLost implements gobgpSide.
func (r *running) resetLost(p *peer) error {
	return r.gobgp.ResetPeer(r.ctx, &api.ResetPeerRequest{Address: p.id.String()})
}

// hurryLost implements gobgpSide.
func (r *running) hurryLost(p *peer) {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if p.known && !r.stopped {
		skipIdle(r.gobgp, p.id)
	}
}

// restarting implements gobgpSide.
func (r *running) restarting() bool { return r.recovering.Load() }

// give implements gobgpSide. A neighbour that is being added gets no session before it is complete.
func (r *running) give(s *session) {
	r.peerMu.Lock()
	conns := r.conns
	r.peerMu.Unlock()
	select {
	case conns <- s:
	case <-r.ctx.Done():
		_ = s.Close()
	}
}

// watch has GoBGP's events sent to the feeder and the peers. They come in one stream, in order.
func (s *Speaker) watch(r *running) error {
	return r.gobgp.WatchEvent(r.ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) { s.feeder.update(paths) },
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			if peer := s.peerByID(p.PeerAddress); peer != nil && familyOf(p.Family) != 0 {
				peer.status.gotEndOfRIB(familyOf(p.Family))
			}
		},
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
			if e.Type != apiutil.PEER_EVENT_STATE {
				return
			}
			if p := s.peerByID(e.Peer.State.NeighborAddress); p != nil {
				if e.Peer.State.SessionState == packet.BGP_FSM_ESTABLISHED {
					disarm(r.gobgp, p.id)
				}
				if e.Peer.State.SessionState == packet.BGP_FSM_IDLE {
					s.feeder.backups.lost(p.id)
				}
				p.fsmChanged(e.Peer.State.SessionState, e.Peer.State.RemoteCap)
			}
		},
	}, server.WatchBestPath(true), server.WatchEor(false), server.WatchPeer())
}

// waitFed completes the feed: once every enabled neighbour's first routes are here, or at the configured deferral. Until
// then the dataplane keeps what an earlier run left in it (RFC 4724 §4.1 calls this the selection deferral).
func (s *Speaker) waitFed(ctx context.Context) {
	s.mu.RLock()
	wait := s.cfg.Deferral
	s.mu.RUnlock()
	deferral := time.NewTimer(wait)
	defer deferral.Stop()
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	for !s.fed(time.Now()) {
		select {
		case <-ctx.Done():
			return
		case <-deferral.C:
			s.log.Info("not every BGP neighbor has sent its routes; going on without them")
			s.feeder.complete()
			return
		case <-s.voided: // there is nothing to spare any more
			s.Void() // for Run to see as well
			s.feeder.complete()
			return
		case <-poll.C:
		}
	}
	s.feeder.complete()
}

func (s *Speaker) fed(now time.Time) bool {
	s.mu.RLock()
	peers := slices.Collect(maps.Values(s.peers))
	s.mu.RUnlock() // the feeder takes it while it holds its own lock
	allTold := true
	for _, p := range peers {
		fed, told := p.status.fed(now, quietTime)
		if !fed {
			return false
		}
		allTold = allTold && told
	}
	return allTold || s.feeder.quiet(now, quietTime/3)
}

// turn is a mutex that can also be waited for until a context ends: for goroutines whose end its holder waits for.
type turn chan struct{}

func (t turn) Lock() { t <- struct{}{} }

func (t turn) Unlock() { <-t }

func (t turn) lockUntil(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Speaker) peerByID(id netip.Addr) *peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

func (s *Speaker) peerByAddr(a netip.Addr) *peer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.peers[a]
}

// peerByName returns the peer with a name, or with an address in place of it.
func (s *Speaker) peerByName(name string) (*peer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.peers {
		if p.config().Name == name {
			return p, nil
		}
	}
	if a, err := netip.ParseAddr(name); err == nil && s.peers[a] != nil {
		return s.peers[a], nil
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNoNeighbor)
}

// Strangers returns how many connections came from addresses that are no neighbour's (or to an address that is not the
// neighbour's local one), and the last such address.
func (s *Speaker) Strangers() (total uint64, last netip.Addr) {
	s.strangers.mu.Lock()
	defer s.strangers.mu.Unlock()
	return s.strangers.total, s.strangers.last
}
