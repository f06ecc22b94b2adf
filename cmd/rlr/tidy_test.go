package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestUntidy(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, held, allocated uint64
		want                  bool
	}{
		{live: 10 * mb, held: 20 * mb},
		{live: 10 * mb, held: 30 * mb, want: true},
		{live: 200 * mb, held: 215 * mb},
		{live: 200 * mb, held: 400 * mb, want: true},
		{live: 200 * mb, held: 400 * mb, allocated: 100 * mb},
	} {
		if got := (heapFigures{live: c.live, held: c.held}).untidy(c.allocated); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if h := readHeap(); h.allocated == 0 || h.held == 0 {
		t.Errorf("the runtime's figures: %+v", h)
	}
}

func TestLimitHeap(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const mb = 1 << 20
	for _, c := range []struct {
		limit, vpp uint64
		want       int64
	}{
		{0, 0, math.MaxInt64}, {100 * mb, 0, 90 * mb}, {300 * mb, 120 * mb, (270 - 120 - 24) * mb}, {128 * mb, 120 * mb, leastHeap},
	} {
		debug.SetMemoryLimit(math.MaxInt64)
		limitHeap(c.limit, c.vpp)
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("%d MB, VPP takes %d MB: %d, want %d", c.limit/mb, c.vpp/mb, got, c.want)
		}
	}
}
