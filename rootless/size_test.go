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
		{limit: 176, heap: 102, stats: 17, buffers: 4096, routesAt: 100_000},
		{limit: 256, heap: 123, stats: 22, buffers: 4096, routesAt: 150_000},
		{limit: 1024, heap: 328, stats: 74, buffers: 4096, routesAt: 600_000},
		{limit: 4096, heap: 1147, stats: 278, buffers: 4096, routesAt: 2_000_000},
		{limit: 0, heap: 2048, stats: 512, buffers: 4096, routesAt: 4_000_000}, // unknown is plenty
		{limit: 1 << 20, heap: 2048, stats: 512, buffers: 4096, routesAt: 4_000_000},
	} {
		s, err := Size(Host{MemoryLimit: c.limit * mib})
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
		_, err := Size(Host{MemoryLimit: limit})
		var missing *MemoryError
		if !errors.As(err, &missing) {
			t.Fatalf("%d bytes: %v, want a *MemoryError", limit, err)
		}
		if missing.Need != MinimumVPPMemory || missing.Limit != limit {
			t.Errorf("%d bytes: %+v", limit, missing)
		}
	}
	_, err := Size(Host{MemoryLimit: 64 * mib})
	contains(t, err, "need 176 MiB", "64 MiB", "112 MiB too few", "embedded")
}

// More memory never makes anything smaller.
func TestSizeGrowsWithMemory(t *testing.T) {
	var last Sizes
	for limit := uint64(MinimumVPPMemory); limit < 20<<30; limit += 13 * mib {
		s, err := Size(Host{MemoryLimit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if s.Buffers < last.Buffers || s.Stats < last.Stats || s.Heap < last.Heap {
			t.Errorf("%d MiB: %+v is less than %+v", limit/mib, s, last)
		}
		last = s
	}
}
