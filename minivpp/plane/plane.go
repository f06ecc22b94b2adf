// Package plane is the forwarding plane of minivpp: an IPv4 and IPv6 router in user space, with VPP's model of interfaces, FIB
// tables, FIB sources and neighbours, and VPP's answers to the requests that change them.
//
//	port (memif) ─ rx worker ─ ethernet ─┬ ARP, ND ─────────── neighbour tables
//	                                     └ IPv4, IPv6 ─ FIB ─┬ rewrite, fragment ─ tx of the egress port
//	                                                         ├ ICMP errors, echo
//	TCP, UDP (gVisor, one NIC an interface), probes ◄────────┴ local delivery (whole packets)
//
// One goroutine per receive queue carries a batch of frames from the ring to the rings of the egress ports; nothing is queued
// in between except for neighbours that are being resolved. Packets of the node itself go through the same code.
//
// Locks, in this order: ctl serialises requests; mu guards everything that packets look at, held for reading for a batch and
// for writing for one change; each neighbour table has its own. No lock is held while frames enter gVisor or a subscriber,
// because both may come back into the plane.
package plane

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

const defaultMaxFrame = 9000 + 22 // VPP's default frame: MTU 9000 and a header with two tags

// Plane is a router's forwarding plane. Its methods may be called concurrently, also before Run.
type Plane struct {
	cfg   Config
	log   *logrus.Entry
	start time.Time

	ctx    context.Context // ends when Run does
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine

	ctl     sync.Mutex
	mu      sync.RWMutex
	ifaces  []*iface // by index; nil is free
	serial  uint32   // of the last interface; guarded by ctl
	tables  map[tableKey]*table
	sources []Source
	lists   map[string]*pathList // guarded by ctl
	stats   indexPool            // guarded by ctl

	acls       map[uint32]*acl // by index
	aclIndexes indexPool       // guarded by ctl
	countACLs  atomic.Bool

	dead map[bfdTarget]bool // neighbours that BFD says do not answer

	// Generations of what resolutions depend on.
	ifaceGen uint64
	routeGen uint64

	memifMu sync.Mutex // serialises making and removing memifs; before ctl
	sockets map[uint32]string
	stopped bool // no device can be made any more

	workers  sync.Pool
	raWake   chan struct{} // holds one when an interface may have to advertise
	errors   [numErrors]atomic.Uint64
	icmpRate bucket
	ident    atomic.Uint32 // of IPv4 packets and IPv6 fragments that we make
	seed     uint32        // of flow hashes

	flows flows
	frags reassembler
	hosts hosts
	taps  probes
	bfd   bfds

	events eventQueue
	clerk  clerk
}

// New makes a plane with local0 and the tables 0. Nothing moves before Run.
func New(cfg Config) *Plane {
	if cfg.MaxFrame == 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	cfg.MaxFrame = max(cfg.MaxFrame, 1514)
	if cfg.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		cfg.Log = logrus.NewEntry(l)
	}
	p := &Plane{
		cfg:     cfg,
		log:     cfg.Log,
		start:   time.Now(),
		tables:  map[tableKey]*table{},
		sources: append([]Source(nil), fixedSources...),
		lists:   map[string]*pathList{},
		acls:    map[uint32]*acl{},
		sockets: map[uint32]string{},
		seed:    rand.Uint32(),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.workers.New = func() any { return p.newWorker() }
	p.ident.Store(rand.Uint32())
	p.icmpRate.init(icmpBurst)
	p.events.init()
	p.raWake = make(chan struct{}, 1)
	p.clerk.init()
	p.frags.init()
	p.flows.init()
	p.hosts.init()
	p.bfd.init()
	for _, ip6 := range []bool{false, true} {
		p.newTableLocked(tableKey{0, ip6}, "").held = true
	}
	lo := p.newIface("local0", KindLocal, [6]byte{})
	lo.mtu, lo.linkMTU = MTU{}, 0
	p.addIfaceLocked(lo)
	return p
}

// Run moves packets until ctx ends, then takes everything down: memifs, connections, goroutines. A plane runs once.
func (p *Plane) Run(ctx context.Context) error {
	p.wg.Go(func() { p.events.run(p.ctx) })
	p.wg.Go(func() { p.runClerk(p.ctx) })
	p.wg.Go(func() { p.runAdvertiser(p.ctx) })
	p.wg.Go(func() { p.runBFD(p.ctx) })
	<-ctx.Done()
	p.cancel()
	p.taps.close()
	p.hosts.close()
	p.closePorts()
	p.wg.Wait()
	return nil
}

// now is the plane's clock: nanoseconds since New.
func (p *Plane) now() int64 { return int64(time.Since(p.start)) }

// Subscribe calls fn for every event from now on, one at a time and in order, until cancel. fn must not block, but may call the
// plane.
func (p *Plane) Subscribe(fn func(Event)) (cancel func()) { return p.events.subscribe(fn) }

// eventQueue hands events to subscribers outside all locks. Events wait while nobody has subscribed only if there is room.
type eventQueue struct {
	mu     sync.Mutex
	queue  []Event
	subs   map[uint64]func(Event)
	next   uint64
	notify chan struct{}
}

func (q *eventQueue) init() {
	q.subs = map[uint64]func(Event){}
	q.notify = make(chan struct{}, 1)
}

func (q *eventQueue) subscribe(fn func(Event)) func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	id := q.next
	q.next++
	q.subs[id] = fn
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.subs, id)
	}
}

// emit queues an event. It takes no other lock and never blocks.
func (q *eventQueue) emit(ev Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.subs) == 0 {
		return
	}
	q.queue = append(q.queue, ev)
	select {
	case q.notify <- struct{}{}:
	default:
	}
}

func (q *eventQueue) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.notify:
		}
		q.mu.Lock()
		queue := q.queue
		q.queue = nil
		q.mu.Unlock()
		for _, ev := range queue {
			for _, fn := range q.subscribers() {
				fn(ev)
			}
		}
	}
}

// subscribers in the order of subscription.
func (q *eventQueue) subscribers() []func(Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]func(Event), 0, len(q.subs))
	for id := range q.next {
		if fn, ok := q.subs[id]; ok {
			out = append(out, fn)
		}
	}
	return out
}
