package vppagent

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"

	"rlr/fib"
)

// The memory guard. VPP aborts when its main heap or its statistics segment has no room for an allocation, so routes must stop
// coming before that.
//
// Percentages do not tell when. A route takes some 80 bytes in small pieces, which fit in anywhere; what kills is growth of the few
// large vectors, by half, into one piece of memory, while the old one still holds its own (src/vppinfra/vec.c). With 200,000
// routes a heap with a fifth of it free may die of the next one, or take 100,000 more. But when a vector grows is known to the
// element: it depends on the number of elements only. So the guard looks at these gates, before each of them: at a gate there must
// be room for the vector that grows there, or no route passes it; between gates routes flow without a look.
//
//   - The pools of FIB entries and of load-balance objects. There is one of each for every prefix of any table. How many there were
//     at most, the length of their counters in the statistics segment tells (/net/route/to), at any time.
//   - The hash tables of prefixes, which double.
//   - The counters themselves, in the statistics segment, whose sizes can be read there.
//
// Large vectors are placed at the end of the heap, where nothing was yet ("top" in dlmalloc's words, the releasable bytes of
// /mem/main heap), or in holes that older ones have left. Nobody tells how large the holes are, so top alone must do. Its reading
// is up to ten seconds old, but memory that was never used is not resident either: what VPP's resident memory has grown by since
// is the most that top can have shrunk by.
//
// Measured with VPP 26.06: the pools grow together, at 207,380 and 311,071 elements as reckoned here, and take from top 204 bytes
// an element when both move there, 96 when only one does, 32 when that one has grown in place. minivpp has no such limits, and
// tells of no heap.

const (
	entryBytes  = 72 // fib_entry_t
	objectBytes = 64 // load_balance_t
	hashPair    = 16 // bytes for a prefix; a table of 2^k has room for 3/4 of that
	counterSize = 16 // bytes of a combined counter

	routeBytes = 600 // the most that a route takes of the heap, its share of the large vectors included

	heapSlack = 1 << 20 // what else may be in the way of an allocation, bytes
	finely    = 64      // routes at a time, around a gate
	statPage  = 4096
)

// Names in the statistics segment (src/vlib/stats).
const (
	statMainHeap  = "/mem/main heap"
	statOwnHeap   = "/mem/stat segment"
	statHeartbeat = "/sys/heartbeat"
	statRouteTo   = "/net/route/to"
	statRouteVia  = "/net/route/via"
)

// Indexes in /mem counters (src/vlib/stats/provider_mem.c).
const (
	memTotal = 0
	memUsed  = 1
	memFree  = 2
	memTop   = 6
)

// heap is what is known of a heap, in bytes.
type heap struct {
	total, used, free, top uint64 // as the statistics segment tells
	resident               uint64 // of the process, and more than the heap: its own pages for the main heap, the shared ones for the segment
}

// memoryReading is one look at VPP's memory.
type memoryReading struct {
	main, stats heap
	heartbeat   float64 // counts the collections of the heaps' figures
	objects     int     // load-balance objects, at most so far
	counters    []int   // capacities of the vectors of route counters
}

// readMemory looks. ok is false for a dataplane that tells of no heap.
func readMemory(ctx context.Context, socket string, pid uint32) (r memoryReading, ok bool, err error) {
	s, err := openSegment(ctx, socket)
	if err != nil {
		return r, false, err
	}
	defer s.close()
	err = s.consistently(func() error {
		r = memoryReading{}
		return s.entries(func(name string, kind uint32, value uint64) error {
			var err error
			switch name {
			case statHeartbeat:
				r.heartbeat = math.Float64frombits(value)
			case statMainHeap:
				r.main, err = s.heap(kind, value)
			case statOwnHeap:
				r.stats, err = s.heap(kind, value)
			case statRouteTo, statRouteVia:
				err = s.capacities(value, func(length, capacity int) {
					r.objects = max(r.objects, length)
					r.counters = append(r.counters, capacity)
				})
			}
			return err
		})
	})
	if err != nil || r.main.total == 0 {
		return r, false, err
	}
	r.main.resident, r.stats.resident = resident(pid)
	return r, true, nil
}

func (s *segment) heap(kind uint32, value uint64) (heap, error) {
	values, err := s.sum(kind, value)
	if err != nil || len(values) <= memTop {
		return heap{}, err
	}
	return heap{total: values[memTotal][0], used: values[memUsed][0], free: values[memFree][0], top: values[memTop][0]}, nil
}

// resident is what of a process is in memory, its own and shared, in bytes; zeros when that cannot be told.
func resident(pid uint32) (private, shared uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return 0, 0
	}
	all, err1 := strconv.ParseUint(f[1], 10, 64)
	common, err2 := strconv.ParseUint(f[2], 10, 64)
	if err1 != nil || err2 != nil || common > all {
		return 0, 0
	}
	page := uint64(os.Getpagesize())
	return (all - common) * page, common * page
}

// Heap is how full a heap of VPP's is, in bytes. VPP aborts when one has no room for what it needs; see the memory guard.
type Heap struct {
	Name        string // VPP's: main heap, stat segment
	Total, Used uint64
}

// Heaps tells how full VPP's heaps are, as VPP counted at most ten seconds ago; nothing for a dataplane without such limits, or
// one that is not connected. What cannot be read is in Errors.
func (a *Agent) Heaps(ctx context.Context) []Heap {
	if a.opt.StatsSocket == "" {
		return nil
	}
	r, ok, err := readMemory(ctx, a.opt.StatsSocket, a.Status().PID)
	if err != nil {
		a.errs.add("statistics", err)
	}
	if err != nil || !ok {
		return nil
	}
	named := func(name string, h heap) Heap {
		return Heap{Name: strings.TrimPrefix(name, "/mem/"), Total: h.total, Used: h.used}
	}
	return []Heap{named(statMainHeap, r.main), named(statOwnHeap, r.stats)}
}

// top follows the end of a heap: what was told of it, less what has become resident since it was told.
type top struct{ told, at uint64 }

// tell notes what h tells, which was so when before was read, or later.
func (t *top) tell(h, before heap) { t.told, t.at = h.top, before.resident }

// least is the least that it can be.
func (t *top) least(h heap) uint64 {
	grown := h.resident - min(t.at, h.resident)
	return t.told - min(grown, t.told)
}

// nextGate returns the number of elements at which a pool that has had n grows next: a full one makes room for half as many again.
func nextGate(n int) int {
	g := 1
	for g <= n {
		g = g*3/2 + 1
	}
	return g
}

// nextHashGate is nextGate for a hash table, which is doubled when three quarters are full.
func nextHashGate(n int) int {
	g := 12
	for g <= n {
		g *= 2
	}
	return g
}

// guard is for one life of a dataplane.
type guard struct {
	mu    sync.Mutex
	off   bool // this dataplane has no such limits
	known bool // there was a look
	last  memoryReading
	main  top
	stats top
	// statsUsed is what is in use of the statistics segment besides the counters of routes, at most.
	statsUsed uint64
	inUse     int    // load-balance objects, as far as we know
	atEnd     bool   // the pool of load-balance objects lies before top, so that it will grow in place
	topAt     uint64 // top when that was found
	left      int    // routes that may be added without another look
	full      error  // why it is none
}

// admit says how many of n new routes may be written now; when none, why.
func (l *life) admit(ctx context.Context, n int) (int, error) {
	g := &l.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.off || l.a.opt.StatsSocket == "" {
		return n, nil
	}
	if g.left < n {
		r, ok, err := readMemory(ctx, l.a.opt.StatsSocket, l.status.PID)
		switch {
		case err != nil: // what cannot be seen cannot be guarded
			l.a.errs.add("memory guard", err)
			return n, nil
		case !ok:
			g.off = true
			return n, nil
		}
		g.look(r)
	}
	return min(n, g.left), g.full
}

// wrote notes how many routes were added and deleted.
func (g *guard) wrote(added, deleted int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left -= min(added, g.left)
	g.inUse += added - deleted
}

// counted notes how many FIB entries there are. Some objects are of no entry.
func (g *guard) counted(entries int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inUse = entries + 256
}

// look takes a new reading and works out what is left. The caller has mu.
func (g *guard) look(r memoryReading) {
	if r.main.resident == 0 { // a process that cannot be seen: as if every route took the most that one does
		r.main.resident, r.stats.resident = routeBytes*uint64(r.objects), 96*uint64(r.objects)
	}
	before := g.last
	switch {
	case !g.known:
		before = r
		g.main.tell(r.main, r.main)
		g.stats.tell(r.stats, r.stats)
		g.statsUsed = r.stats.used
		if g.inUse == 0 {
			g.inUse = r.objects
		}
	case r.heartbeat != before.heartbeat: // collected after the look before
		g.main.tell(r.main, before.main)
		g.stats.tell(r.stats, before.stats)
		g.statsUsed = r.stats.used
		for _, c := range before.counters { // they had at least this when it was collected
			g.statsUsed -= min(uint64(c)*counterSize, g.statsUsed)
		}
	}
	topBefore, top := g.main.least(before.main), g.main.least(r.main)
	switch {
	case nextGate(before.objects) == nextGate(r.objects):
		g.atEnd = g.atEnd && near(top, g.topAt)
	default:
		g.atEnd, g.topAt = g.objectsAtTop(topBefore, top, nextGate(before.objects)), top
	}
	if r.objects > before.objects { // a pool grows when it has no free element
		g.inUse = r.objects
	}
	g.inUse = min(g.inUse, r.objects)
	g.known, g.last = true, r
	g.decide(top)
}

// near allows for pages.
func near(a, b uint64) bool { return a <= b+4*statPage && b <= a+4*statPage }

// objectsAtTop reports whether top lost at a gate exactly what the pool of load-balance objects took: all of its new size, or what
// it grew by in place. The entries have found a hole then.
func (g *guard) objectsAtTop(before, after uint64, gate int) bool {
	lost, half := before-min(after, before), uint64(gate)*objectBytes/2
	return near(lost, 3*half) || g.atEnd && near(lost, half)
}

// decide sets left: up to the next gate, or, when there is room for what grows there, beyond it.
func (g *guard) decide(top uint64) {
	n := g.last.objects
	limit, why := math.MaxInt, error(nil)
	stop := func(at int, what string, h heap, need uint64) {
		if at < limit {
			limit, why = at, fmt.Errorf("%w (VPP's %s of %d MiB: the next routes need %d MiB more in one piece)", fib.ErrFull,
				what, h.total>>20, (need+1<<20-1)>>20)
		}
	}
	main := g.last.main
	if reserve := main.total / 20; main.free < reserve {
		stop(n, "heap", main, reserve)
	}
	// The small pieces are looked at now and then, too: the less is free, the oftener.
	step := max(4096, n/32, int(main.free/16/routeBytes))
	gate := nextGate(n)
	need := uint64(gate)*(entryBytes+objectBytes)*3/2 + heapSlack
	if g.atEnd {
		need -= uint64(gate) * objectBytes
	}
	if top < need {
		stop(gate-1-gate/200, "heap", main, need)
	} else { // what top loses at the gate shall be the pools' alone
		step = min(step, max(gate-gate/100-n, finely))
	}
	if gate := nextHashGate(n); gate <= n+step {
		need, holes := uint64(gate)*hashPair*8/3+heapSlack, main.free-min(main.top, main.free)
		if top < need && holes < 3*need {
			stop(gate-1, "heap", main, need)
		}
	}
	room := g.stats.least(g.last.stats)
	for _, capacity := range g.last.counters {
		if need := g.counterNeed(capacity, room); room < need {
			stop(capacity-1, "statistics segment", g.last.stats, need)
		} else {
			step = min(step, max(capacity-n, finely))
		}
	}
	g.left, g.full = step, nil
	if n+step > limit { // up to the limit, and what was deleted before, of which not all may be free any more
		g.left = max(limit-n, 0) + min(n-g.inUse, 4*finely)
	}
	if g.left == 0 {
		g.full = why
	}
}

// counterNeed is what a vector of counters that is full takes from the end of the statistics segment's heap, with those that are
// full at the same time. Little else lives there, so that its holes are the places of older vectors, and lie together: where
// they have ample room, they are used.
func (g *guard) counterNeed(capacity int, room uint64) uint64 {
	old := uint64(capacity+1) * counterSize
	next, together := old*3/2, uint64(0)
	used := g.statsUsed
	for _, c := range g.last.counters {
		used += uint64(c) * counterSize
		if c-capacity < finely && capacity-c < finely {
			together++
		}
	}
	holes := g.last.stats.total - min(g.last.stats.total, used+room)
	switch {
	case together == 1 && holes >= next*23/20:
		return statPage
	case together > 1 && holes+old >= next*5/4: // the second one has the first one's old place
		return next + statPage
	}
	return next*together + statPage
}
