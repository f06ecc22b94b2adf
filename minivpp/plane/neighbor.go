package plane

// Neighbours: who has which link-layer address, for ARP and ND alike.
//
// A packet for an unknown neighbour makes an incomplete entry, waits there with a few others, and starts solicitation: three
// tries a second apart (RFC 4861 §10, MAX_MULTICAST_SOLICIT and RETRANS_TIMER; RFC 1122 §2.3.2.1 for ARP). Then its senders
// are told. A learned entry that has not been confirmed for a minute is asked directly, and goes when it does not answer;
// static entries stay. One goroutine, the clerk, does what is due, on a timer that runs only while something will be.

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.fd.io/govpp/api"
)

const (
	probeInterval = int64(time.Second)
	maxProbes     = 3
	confirmAfter  = int64(60 * time.Second)
	maxWaiting    = 4     // packets that wait in an incomplete entry
	maxIncomplete = 1024  // entries of an interface and family, so that a scan of a large prefix does not fill memory
	maxNeighbors  = 50000 // VPP's default
)

// neighbor is an entry of a neighbour table.
type neighbor struct {
	addr  netip.Addr
	iface *iface
	mac   atomic.Uint64 // macKnown and 48 bits; 0 while incomplete
	// confirmed and probes say how sure we are: the time of the last sign of life, and the probes sent since.
	confirmed atomic.Int64

	// Guarded by the table's lock.
	static  bool
	noFIB   bool
	probes  int
	next    int64 // when the next probe, or the verdict, is due
	waiting []parked
}

// parked is a packet that waits for its neighbour's address.
type parked struct {
	packet []byte
	in     *iface // nil: our own
	from   *table // of our own
}

const macKnown = 1 << 48

func packMAC(m [6]byte) uint64 {
	return macKnown | uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 | uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

func unpackMAC(v uint64) [6]byte {
	return [6]byte{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func (n *neighbor) complete() bool { return n.mac.Load() != 0 }

func notStatic(n *neighbor) bool { return !n.static }

func notStatic6(n *neighbor) bool { return !n.static && n.addr.Is6() }

// neighbors is the table of one interface and family.
type neighbors struct {
	iface      *iface
	mu         sync.RWMutex
	m          map[netip.Addr]*neighbor
	incomplete int
}

func (t *neighbors) init(i *iface) {
	t.iface = i
	t.m = map[netip.Addr]*neighbor{}
}

func (t *neighbors) each(fn func(*neighbor)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, n := range t.m {
		fn(n)
	}
}

// flushLocked forgets an interface's neighbours that gone accepts, all when it is nil, and says so to who wants to know.
func (p *Plane) flushLocked(i *iface, gone func(*neighbor) bool) {
	for _, t := range [2]*neighbors{&i.near4, &i.near6} {
		for _, n := range t.flush(gone) {
			p.events.emit(Event{Kind: EventNeighborRemoved, Interface: i.index, Neighbor: n.export(p.now())})
		}
	}
}

// flush removes entries and returns those that were complete.
func (t *neighbors) flush(gone func(*neighbor) bool) (known []*neighbor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.m {
		if gone != nil && !gone(n) {
			continue
		}
		if n.complete() {
			known = append(known, n)
		}
		t.removeLocked(n)
	}
	return known
}

func (t *neighbors) removeLocked(n *neighbor) {
	if !n.complete() {
		t.incomplete--
	}
	n.waiting = nil
	delete(t.m, n.addr)
}

// find returns the neighbour's address, 0 when it has to be resolved.
func (t *neighbors) find(a netip.Addr) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.m[a]; n != nil {
		return n.mac.Load()
	}
	return 0
}

func (t *neighbors) get(a netip.Addr) *neighbor {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.m[a]
}

// await leaves a packet with an incomplete neighbour, and reports whether the caller shall send the first probe. It returns the
// address when it became known meanwhile.
func (t *neighbors) await(a netip.Addr, w parked, now int64) (mac uint64, probe bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[a]
	if n == nil {
		if t.incomplete >= maxIncomplete || len(t.m) >= maxNeighbors {
			return 0, false
		}
		n = &neighbor{addr: a, iface: t.iface, probes: 1, next: now + probeInterval}
		t.m[a] = n
		t.incomplete++
		probe = true
	}
	if mac = n.mac.Load(); mac != 0 {
		return mac, false
	}
	if w.packet != nil {
		if len(n.waiting) >= maxWaiting {
			n.waiting = n.waiting[1:] // RFC 1122 §2.3.2.2: keep the latest
		}
		n.waiting = append(n.waiting, parked{slices.Clone(w.packet), w.in, w.from})
	}
	return 0, probe
}

// learning says what a sign of life may change.
type learning uint8

const (
	learnKnown   learning = iota // confirm or change an entry that is there
	learnNew                     // also make one
	learnConfirm                 // only the same address: what an answer without the override flag means
)

// learn takes in that a has mac. It returns the packets that waited for that, and whether anything became different.
func (t *neighbors) learn(a netip.Addr, mac [6]byte, how learning, now int64) (released []parked, changed bool) {
	v := packMAC(mac)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[a]
	if n == nil {
		if how != learnNew || len(t.m) >= maxNeighbors {
			return nil, false
		}
		n = &neighbor{addr: a, iface: t.iface}
		t.m[a] = n
		t.incomplete++
	}
	if n.static {
		return nil, false
	}
	old := n.mac.Load()
	if old != 0 && old != v && how == learnConfirm {
		return nil, false
	}
	n.confirmed.Store(now)
	n.probes = 0
	if old == v {
		return nil, false
	}
	if old == 0 {
		t.incomplete--
	}
	n.mac.Store(v)
	released, n.waiting = n.waiting, nil
	return released, true
}

func (i *iface) near(a netip.Addr) *neighbors {
	if a.Is6() {
		return &i.near6
	}
	return &i.near4
}

// AddNeighbor adds or changes an entry, for ip_neighbor_add_del, and returns the statistics index, which is always ~0: the
// plane does not count by neighbour. A static entry is not overwritten by a dynamic one, and a dynamic one becomes static.
// Errors: INVALID_SW_IF_INDEX, INVALID_VALUE for an address that cannot be a neighbour's; -2 as in VPP when a static entry with
// another MAC is in the way; LIMIT_EXCEEDED.
func (p *Plane) AddNeighbor(idx uint32, add Neighbor) (statsIndex uint32, err error) {
	var released []parked
	var ifc *iface
	a := add.Addr.Unmap().WithZone("")
	if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() {
		return NoInterface, api.INVALID_VALUE
	}
	err = p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.INVALID_SW_IF_INDEX
		}
		ifc = i
		released, err = i.near(a).configure(a, add, p.now())
		if err != nil {
			return err
		}
		p.syncNeighborLocked(i, a)
		if !add.Static {
			p.clerk.due(p.now() + confirmAfter)
		}
		add.Interface, add.Addr, add.Age = idx, a, 0
		p.events.emit(Event{Kind: EventNeighborAdded, Interface: idx, Neighbor: add})
		return nil
	})
	if err == nil {
		p.release(ifc, a, released)
	}
	return NoInterface, err
}

func (t *neighbors) configure(a netip.Addr, add Neighbor, now int64) ([]parked, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[a]
	v := packMAC(add.MAC)
	if n != nil && n.static && !add.Static {
		if n.mac.Load() == v {
			return nil, nil
		}
		return nil, api.VPPApiError(-2)
	}
	if n == nil {
		if len(t.m) >= maxNeighbors {
			return nil, api.LIMIT_EXCEEDED
		}
		n = &neighbor{addr: a, iface: t.iface}
		t.m[a] = n
		t.incomplete++
	}
	if n.mac.Swap(v) == 0 {
		t.incomplete--
	}
	n.static, n.noFIB, n.probes = add.Static, add.NoFIB, 0
	n.confirmed.Store(now)
	released := n.waiting
	n.waiting = nil
	return released, nil
}

// DelNeighbor removes an entry.
// Errors: INVALID_SW_IF_INDEX, NO_SUCH_ENTRY.
func (p *Plane) DelNeighbor(idx uint32, a netip.Addr) error {
	a = a.Unmap().WithZone("")
	return p.change(idx, func(i *iface) error {
		t := i.near(a)
		t.mu.Lock()
		n := t.m[a]
		if n == nil || !n.complete() {
			t.mu.Unlock()
			return api.NO_SUCH_ENTRY
		}
		gone := n.export(p.now())
		t.removeLocked(n)
		t.mu.Unlock()
		p.syncNeighborLocked(i, a)
		p.events.emit(Event{Kind: EventNeighborRemoved, Interface: idx, Neighbor: gone})
		return nil
	})
}

func (n *neighbor) export(now int64) Neighbor {
	x := Neighbor{Interface: n.iface.index, Addr: n.addr, MAC: unpackMAC(n.mac.Load()), Static: n.static, NoFIB: n.noFIB}
	if !n.static {
		x.Age = time.Duration(now - n.confirmed.Load())
	}
	return x
}

// Neighbors lists the complete entries of a family on an interface, or with NoInterface on all, by interface and address.
func (p *Plane) Neighbors(idx uint32, ip6 bool) []Neighbor {
	p.mu.RLock()
	defer p.mu.RUnlock()
	now := p.now()
	var out []Neighbor
	for _, i := range p.ifaces {
		if i == nil || (idx != NoInterface && i.index != idx) {
			continue
		}
		t := &i.near4
		if ip6 {
			t = &i.near6
		}
		first := len(out)
		t.each(func(n *neighbor) {
			if n.complete() {
				out = append(out, n.export(now))
			}
		})
		slices.SortFunc(out[first:], func(a, b Neighbor) int { return a.Addr.Compare(b.Addr) })
	}
	return out
}

// release sends packets that waited for a neighbour whose address is known now. No lock is held.
func (p *Plane) release(i *iface, a netip.Addr, released []parked) {
	if len(released) == 0 {
		return
	}
	w := p.begin()
	for _, r := range released {
		w.from = r.from
		w.toNeighbor(i, a, w.copyPacket(r.packet), r.in)
	}
	w.finish()
}

// clerk remembers what has to be done outside the packets' path.
type clerk struct {
	mu    sync.Mutex
	dirty map[*iface]map[netip.Addr]struct{} // these neighbours changed; nil: all
	when  int64                              // the next look at the neighbours; 0: none
	wake  chan struct{}
}

func (c *clerk) init() {
	c.dirty = map[*iface]map[netip.Addr]struct{}{}
	c.wake = make(chan struct{}, 1)
}

func (c *clerk) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// touchAll asks for the interface's host routes to be brought up to date.
func (c *clerk) touchAll(i *iface) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty[i] = nil
	c.nudge()
}

// touch is touchAll for one neighbour.
func (c *clerk) touch(i *iface, a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	some, noted := c.dirty[i]
	if !noted {
		some = map[netip.Addr]struct{}{}
		c.dirty[i] = some
	}
	if some != nil {
		some[a] = struct{}{}
	}
	c.nudge()
}

// due asks for a look at the neighbours at a time of the plane's clock.
func (c *clerk) due(when int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.when == 0 || when < c.when {
		c.when = when
		c.nudge()
	}
}

func (c *clerk) take(now int64) (dirty map[*iface]map[netip.Addr]struct{}, look bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dirty) > 0 {
		dirty, c.dirty = c.dirty, map[*iface]map[netip.Addr]struct{}{}
	}
	if c.when != 0 && c.when <= now {
		c.when, look = 0, true
	}
	return dirty, look
}

func (c *clerk) wait(now int64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.when == 0 {
		return 24 * time.Hour
	}
	return time.Duration(max(c.when-now, int64(time.Millisecond)))
}

func (p *Plane) runClerk(ctx context.Context) {
	timer := time.NewTimer(24 * time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(p.clerk.wait(p.now()))
		select {
		case <-ctx.Done():
			return
		case <-p.clerk.wake:
		case <-timer.C:
		}
		dirty, look := p.clerk.take(p.now())
		for i, some := range dirty {
			p.syncDirty(i, some)
		}
		if look {
			p.lookAfterNeighbors()
		}
	}
}

// syncBatch is for how many neighbours at a time packets have to wait.
const syncBatch = 64

// syncDirty brings host routes up to date: of some neighbours, or with nil of all.
func (p *Plane) syncDirty(i *iface, some map[netip.Addr]struct{}) {
	locked := func(fn func()) {
		p.ctl.Lock()
		defer p.ctl.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		fn()
	}
	if some == nil {
		locked(func() { p.syncAdjLocked(i) })
		return
	}
	for batch := range slices.Chunk(slices.Collect(maps.Keys(some)), syncBatch) {
		locked(func() {
			for _, a := range batch {
				p.syncNeighborLocked(i, a)
			}
		})
	}
}

// lookAfterNeighbors probes and buries, and arranges the next look.
func (p *Plane) lookAfterNeighbors() {
	now := p.now()
	w := p.begin()
	next := int64(0)
	for _, i := range p.ifaces {
		if i == nil {
			continue
		}
		for _, t := range []*neighbors{&i.near4, &i.near6} {
			probe, dead, when := t.look(now)
			if when != 0 && (next == 0 || when < next) {
				next = when
			}
			for _, n := range probe {
				w.solicit(i, n.addr, n.mac.Load())
			}
			for _, n := range dead {
				if n.complete() {
					p.clerk.touch(i, n.addr)
					p.events.emit(Event{Kind: EventNeighborRemoved, Interface: i.index, Neighbor: n.export(now)})
				}
				for _, q := range n.waiting {
					w.unreachableHost(q)
				}
			}
		}
	}
	w.finish()
	if next != 0 {
		p.clerk.due(max(next, now+probeInterval))
	}
}

// look returns who has to be probed, who is dead (and removed), and when to look again.
func (t *neighbors) look(now int64) (probe, dead []*neighbor, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.m {
		if n.static {
			continue
		}
		at := n.next
		if n.complete() && n.probes == 0 {
			at = n.confirmed.Load() + confirmAfter
		}
		if at > now {
			next = earlier(next, at)
			continue
		}
		if n.probes < maxProbes {
			n.probes++
			n.next = now + probeInterval
			probe = append(probe, n)
			next = earlier(next, n.next)
			continue
		}
		dead = append(dead, n)
		waiting := n.waiting
		t.removeLocked(n)
		n.waiting = waiting
	}
	return probe, dead, next
}

func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}
