// How large VPP's heap, stats segment and buffers may be on this host.
//
// VPP aborts when its heap or its stats segment is full, and the kernel kills it when the cgroup's memory is. So both are
// made from the memory limit: what VPP needs to start, what the router and its helpers need, and the rest divided in the
// proportion in which routes cost memory in both. Address space is not memory: a large heap costs nothing until it is used.

package rootless

import "fmt"

// Sizes are bytes, except Buffers.
type Sizes struct {
	Heap    uint64 // main heap: whole MiB
	Stats   uint64 // stats segment: whole MiB
	Buffers int    // packet buffers of each NUMA node to ask for; each takes a page of 4 KiB
}

const (
	mib = 1 << 20

	// Measured with VPP 26.06, resident after its start, without buffers.
	vppBase    = 84 * mib // 66 of heap, 17 of code and libraries, 1 of segments
	routerBase = 52 * mib // router 40, two helpers of 6
	bufferPage = 4096

	// MinimumVPPMemory is the least memory, in bytes, that VPP, the router and its helpers are started in together: their
	// bases, the fewest buffers, and room for some thousands of routes.
	MinimumVPPMemory = 176 * mib

	// VPP writes to every buffer at its start, so each costs its page at once. A memif master copies, so that buffers are needed
	// only for the packets that are between its rings: some vectors of 256, TCP's unacknowledged segments, and fragments waiting.
	// What a slave's rings hold comes on top.
	//
	// Of 4,096 that are asked for there are 2,989: VPP lays them in a row, and leaves out those that would cross a page.
	usualBuffers = 4096
	usualThere   = 2989

	minHeap  = 96 * mib
	maxHeap  = 2048 * mib
	minStats = 16 * mib
	maxStats = 512 * mib
)

// MemoryError says how much memory is missing for VPP.
type MemoryError struct {
	Need, Limit uint64 // bytes
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("vpp and the router need %d MiB of memory, and %d MiB are allowed here (%d MiB too few): raise the memory limit, or use the embedded dataplane (dataplane: {kind: embedded})",
		e.Need/mib, e.Limit/mib, (e.Need-e.Limit+mib-1)/mib)
}

// Size divides the host's memory. held is how many packet buffers the rings of memif interfaces hold for good: VPP, where it is
// the slave, fills both of a pair with buffers of its own, and without a free one it neither sends nor receives any more. A
// limit that is unknown is taken for plenty. The error is a *MemoryError.
func Size(h Host, held int) (Sizes, error) {
	limit := h.MemoryLimit
	if limit == 0 {
		limit = 8192 * mib
	}
	more := (held*usualBuffers + usualThere - 1) / usualThere
	need := uint64(MinimumVPPMemory + more*bufferPage)
	if limit < need {
		return Sizes{}, &MemoryError{Need: (need + mib - 1) / mib * mib, Limit: limit}
	}
	spare := limit - (vppBase + routerBase + uint64(usualBuffers+more)*bufferPage) // the minimum is more than these together
	// A route costs the router about twice what it costs VPP, and the stats segment a sixth of the heap.
	return Sizes{
		Heap:    clamp(minHeap+spare*2/5, minHeap, maxHeap) / mib * mib,
		Stats:   clamp(minStats+spare/15, minStats, maxStats) / mib * mib,
		Buffers: usualBuffers + more,
	}, nil
}

// Routes is how many IPv4 routes there is room for, and about half as many IPv6 ones. VPP aborts beyond it, long before its
// heap is full: its tables grow by half at a time, the old one and the new in the heap together. Heaps of 102, 123, 200 and 328
// MiB took 120,000, 200,000, 460,000 and 680,000 routes (26.06), and died of the next 20,000.
func (s Sizes) Routes() int {
	const (
		start     = 45 * mib // of the heap, before the first route
		heapEach  = 500
		statsEach = 100
	)
	if s.Heap < start {
		return 0
	}
	return int(min((s.Heap-start)/heapEach, s.Stats/statsEach)) / 1000 * 1000
}

// reflections is how many entries the acl plugin's table of reflected flows has. VPP takes memory for all of them, 132 bytes each
// and in one piece, when the first ACL is applied (acl_fa_verify_init_sessions in src/plugins/acl/sess_mgmt_node.c): with its
// default of 500,000 a heap of 128 MiB is full, and VPP aborts.
func (s Sizes) reflections() int {
	const (
		fewest = 16 << 10
		usual  = 500_000 // VPP's
	)
	return int(clamp(s.Heap/4096, fewest, usual))
}

func clamp(n, low, high uint64) uint64 { return min(max(n, low), high) }

func (s Sizes) check() error {
	switch {
	case s.Heap < minHeap:
		return fmt.Errorf("vpp's heap of %d MiB is too small: it needs %d MiB", s.Heap/mib, minHeap/mib)
	case s.Stats < minStats:
		return fmt.Errorf("vpp's stats segment of %d MiB is too small: it needs %d MiB", s.Stats/mib, minStats/mib)
	case s.Buffers < 1024:
		return fmt.Errorf("%d packet buffers are too few: VPP needs 1024", s.Buffers)
	}
	return nil
}
