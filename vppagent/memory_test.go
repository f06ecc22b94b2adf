package vppagent

import (
	"errors"
	"testing"

	"rlr/fib"
)

// The gates are where VPP 26.06 was seen to grow.
func TestGates(t *testing.T) {
	for n, want := range map[int]int{8: 11, 40_000: 40_963, 61_445: 92_168, 138_252: 138_253, 207_379: 207_380, 207_380: 311_071} {
		if got := nextGate(n); got != want {
			t.Errorf("%d elements: next gate %d, want %d", n, got, want)
		}
	}
	if got := nextHashGate(190_000); got != 196_608 {
		t.Errorf("hash gate %d", got)
	}
}

// A guard is shown what VPP would show, and asked for routes until it lets no more in.
func TestGuardStops(t *testing.T) {
	const mib = 1 << 20
	reading := func(n int, top, free uint64) memoryReading {
		return memoryReading{
			main: heap{total: 128 * mib, free: free, top: top, resident: 100 * mib}, stats: heap{total: 32 * mib, top: 20 * mib},
			heartbeat: 1, objects: n, counters: []int{1 << 20, 1 << 20},
		}
	}
	for _, c := range []struct {
		name string
		r    memoryReading
		want int // routes let in at this look
		full bool
	}{
		{"far from a gate", reading(100_000, 60*mib, 70*mib), 7645, false},
		{"far from a gate, with less free", reading(100_000, 31*mib, 35*mib), 4096, false},
		{"near a gate with room", reading(138_200, 60*mib, 70*mib), finely, false},
		{"a gate comes, and there is no room", reading(206_000, 17*mib, 24*mib), 343, false},
		{"at a gate without room", reading(206_343, 17*mib, 24*mib), 0, true},
		{"little is free", reading(100_000, 60*mib, 5*mib), 0, true},
		{"counters fill up", func() memoryReading {
			r := reading(150_000, 60*mib, 70*mib)
			r.stats.used, r.stats.top, r.counters = 29*mib, 2*mib, []int{150_100, 160_000}
			return r
		}(), 99, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g guard
			g.look(c.r)
			if g.left != c.want || (g.full != nil) != c.full || c.full && !errors.Is(g.full, fib.ErrFull) {
				t.Errorf("%d routes, %v", g.left, g.full)
			}
		})
	}
}

// What was deleted makes room, with as few routes at a look as may be wrong.
func TestGuardCountsDeleted(t *testing.T) {
	var g guard
	r := memoryReading{main: heap{total: 1 << 27, free: 1 << 26, top: 1 << 24, resident: 1}, stats: heap{top: 1 << 24}, objects: 206_400}
	g.look(r)
	if g.left != 0 || g.full == nil {
		t.Fatalf("%d routes, %v", g.left, g.full)
	}
	g.wrote(0, 300)
	for _, want := range []int{256, 44, 0} {
		g.look(r)
		if g.left != want || (g.full == nil) != (want > 0) {
			t.Errorf("%d routes, %v, want %d", g.left, g.full, want)
		}
		g.wrote(g.left, 0)
	}
}

// Top is what it was when it was told, less what has become resident since: never more than it is.
func TestGuardTop(t *testing.T) {
	var g guard
	r := memoryReading{main: heap{total: 1 << 30, free: 900, top: 800 << 20, resident: 50 << 20}, stats: heap{top: 1 << 30}, heartbeat: 1, objects: 1000}
	step := func(told uint64, heartbeat float64, resident uint64, want uint64) {
		t.Helper()
		r.main.top, r.heartbeat, r.main.resident = told<<20, heartbeat, resident<<20
		g.look(r)
		if got := g.main.least(g.last.main); got != want<<20 {
			t.Errorf("top %d MiB, want %d", got>>20, want)
		}
	}
	step(800, 1, 50, 800)
	step(800, 1, 60, 790)
	step(700, 2, 70, 690) // told between the looks: what came after it may have come before it
	step(700, 2, 900, 0)
	step(710, 3, 900, 710)
}
