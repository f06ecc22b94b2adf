package rootless

import (
	"errors"
	"testing"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		limit             uint64 // MiB
		heap, stats       uint64 // MiB
		buffers, routesAt int
	}{
		{limit: 176, heap: 105, stats: 17, buffers: 4096, routesAt: 100_000},
		{limit: 256, heap: 137, stats: 22, buffers: 4096, routesAt: 150_000},
		{limit: 1024, heap: 444, stats: 74, buffers: 4096, routesAt: 700_000},
		{limit: 4096, heap: 1673, stats: 278, buffers: 4096, routesAt: 2_500_000},
		{limit: 0, heap: 2048, stats: 512, buffers: 4096, routesAt: 4_000_000}, // unknown is plenty
		{limit: 1 << 20, heap: 2048, stats: 512, buffers: 4096, routesAt: 4_000_000},
	} {
		s, err := Size(Host{MemoryLimit: c.limit * mib}, 0)
		if err != nil {
			t.Errorf("%d MiB: %v", c.limit, err)
			continue
		}
		if s.Heap != c.heap*mib || s.Stats != c.stats*mib || s.Buffers != c.buffers {
			t.Errorf("%d MiB: heap %d, stats %d MiB, %d buffers; want %d, %d, %d", c.limit, s.Heap/mib, s.Stats/mib, s.Buffers, c.heap, c.stats, c.buffers)
		}
		if s.Routes() < c.routesAt {
			t.Errorf("%d MiB: room for %d routes, want %d", c.limit, s.Routes(), c.routesAt)
		}
		if err := s.check(); err != nil {
			t.Errorf("%d MiB: %v", c.limit, err)
		}
	}
}

func TestSizeNamesWhatIsMissing(t *testing.T) {
	for _, limit := range []uint64{1, 64 * mib, MinimumVPPMemory - 1} {
		_, err := Size(Host{MemoryLimit: limit}, 0)
		var missing *MemoryError
		if !errors.As(err, &missing) {
			t.Fatalf("%d bytes: %v, want a *MemoryError", limit, err)
		}
		if missing.Need != MinimumVPPMemory || missing.Limit != limit {
			t.Errorf("%d bytes: %+v", limit, missing)
		}
	}
	_, err := Size(Host{MemoryLimit: 64 * mib}, 0)
	contains(t, err, "need 176 MiB", "64 MiB", "112 MiB too few", "embedded")
}

// The rings of memif slaves get buffers of their own, and these their memory.
func TestSizeForRings(t *testing.T) {
	s, err := Size(Host{MemoryLimit: 256 * mib}, 4096)
	if err != nil || s.Buffers != 4096+5613 || s.Heap >= 137*mib {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = Size(Host{MemoryLimit: 256 * mib}, 16384)
	contains(t, err, "need 264 MiB", "8 MiB too few")
}

// More memory never makes anything smaller.
func TestSizeGrowsWithMemory(t *testing.T) {
	var last Sizes
	for limit := uint64(MinimumVPPMemory); limit < 20<<30; limit += 13 * mib {
		s, err := Size(Host{MemoryLimit: limit}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s.Buffers < last.Buffers || s.Stats < last.Stats || s.Heap < last.Heap {
			t.Errorf("%d MiB: %+v is less than %+v", limit/mib, s, last)
		}
		last = s
	}
}

// What VPP was seen to take before it aborted is never promised.
func TestRoutesAreFewerThanVPPDiedOf(t *testing.T) {
	for heap, took := range map[uint64]int{102: 120_000, 123: 200_000, 200: 460_000, 328: 680_000} {
		if got := (Sizes{Heap: heap * mib, Stats: maxStats}).Routes(); got > took {
			t.Errorf("heap of %d MiB: %d routes, and VPP takes %d", heap, got, took)
		}
	}
	if got := (Sizes{}).Routes(); got != 0 {
		t.Errorf("no heap: %d routes", got)
	}
}
