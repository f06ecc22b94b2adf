package fib

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
)

// A full table: what it costs in memory and time. The dataplane here takes everything and remembers nothing.

type taker struct{}

func (taker) Dump(context.Context) ([]Held, error) { return nil, nil }

func (taker) Apply(_ context.Context, changes []Change) []error { return make([]error, len(changes)) }

// million is the n-th route of a table: /24 prefixes by many next hops, as from several peers.
func million(n, hop int) Route {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x14000000+uint32(n)<<8)
	return Route{
		Key:      Key{Prefix: netip.PrefixFrom(netip.AddrFrom4(a), 24)},
		NextHops: []NextHop{{Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(hop)}), Interface: "eth0"}},
	}
}

// table is a running Syncer for n routes.
type table struct {
	tb   testing.TB
	s    *Syncer
	feed *Feed
	n    int
	buf  []Route
}

func newTable(tb testing.TB, n int) *table {
	t := &table{tb: tb, s: NewSyncer(Options{Target: taker{}, Audit: -1}), n: n}
	t.feed = t.s.Feed("bgp", 100)
	t.feed.Complete()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- t.s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	return t
}

// update gives all routes next hops from a range that begins at first, and waits until they are installed.
func (t *table) update(first int) {
	t.tb.Helper()
	for n := 0; n < t.n; n += len(t.buf) {
		t.buf = t.buf[:0]
		for i := n; i < min(n+1024, t.n); i++ {
			t.buf = append(t.buf, million(i, first+i%100))
		}
		t.feed.Update(t.buf...)
	}
	t.wait(t.n)
}

func (t *table) withdraw() {
	t.tb.Helper()
	var keys []Key
	for n := 0; n < t.n; n += len(keys) {
		keys = keys[:0]
		for i := n; i < min(n+1024, t.n); i++ {
			keys = append(keys, million(i, 0).Key)
		}
		t.feed.Withdraw(keys...)
	}
	t.wait(0)
}

func (t *table) wait(installed int) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := t.s.WaitSynced(ctx, t.s.Revision()); err != nil {
		t.tb.Fatal(err)
	}
	if st := t.s.Status(); st.Routes != installed || st.States[Installed] != installed {
		t.tb.Fatalf("%+v, want %d installed", st, installed)
	}
}

func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one finalizes
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// maxBytesPerRoute is what a route may cost here. The worst case is a map that has just doubled: 24 bytes of key and 8 of
// pointer then take twice their room, beside the entry's 64.
const maxBytesPerRoute = 160

func TestBytesPerRoute(t *testing.T) {
	sizes := []int{50_000, 200_000, 230_000}
	if os.Getenv("RLR_LONG") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			before := heapBytes()
			tab := newTable(t, n)
			tab.update(1)
			tab.buf = nil
			measured := float64(heapBytes()-before) / float64(n)
			computed := float64(tab.s.Status().Bytes) / float64(n)
			t.Logf("%.0f bytes a route measured, %.0f computed", measured, computed)
			if measured > maxBytesPerRoute {
				t.Errorf("%.0f bytes a route, at most %d are allowed", measured, maxBytesPerRoute)
			}
			if computed < 0.75*measured || computed > 1.25*measured {
				t.Errorf("%.0f bytes a route are shown, %.0f are used", computed, measured)
			}
			// New next hops for all leave nothing behind of the old ones.
			tab.update(101)
			tab.buf = nil
			if again := float64(heapBytes()-before) / float64(n); again > 1.05*measured+1 {
				t.Errorf("%.0f bytes a route after all have changed, %.0f before", again, measured)
			}
			runtime.KeepAlive(tab)
		})
	}
}

func BenchmarkInsert(b *testing.B) {
	perRoute := 0.0
	const n = 1_000_000
	for b.Loop() {
		b.StopTimer()
		before := heapBytes()
		t := newTable(b, n)
		b.StartTimer()
		t.update(1)
		b.StopTimer()
		t.buf = nil
		perRoute = float64(heapBytes()-before) / n
		runtime.KeepAlive(t)
		b.StartTimer()
	}
	b.ReportMetric(perRoute, "B/route")
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "routes/s")
}

func BenchmarkFlap(b *testing.B) {
	t := newTable(b, 1_000_000)
	t.update(1)
	hop := 0
	for b.Loop() {
		hop = 101 - hop
		t.update(hop)
	}
	b.ReportMetric(float64(t.n)*float64(b.N)/b.Elapsed().Seconds(), "routes/s")
}

func BenchmarkWithdraw(b *testing.B) {
	t := newTable(b, 1_000_000)
	for b.Loop() {
		b.StopTimer()
		t.update(1)
		b.StartTimer()
		t.withdraw()
	}
	b.ReportMetric(float64(t.n)*float64(b.N)/b.Elapsed().Seconds(), "routes/s")
}

func BenchmarkAudit(b *testing.B) {
	t := newTable(b, 1_000_000)
	t.update(1)
	held := make([]Held, 0, t.n)
	for i := range t.n {
		held = append(held, Held{Route: million(i, 1+i%100)})
	}
	t.s.opt.Target = fullTarget(held)
	for b.Loop() {
		c, err := t.s.Resync(context.Background())
		if err != nil || c.Differ() != 0 || c.Held != t.n {
			b.Fatalf("%+v, %v", c, err)
		}
	}
}

// fullTarget holds what it holds.
type fullTarget []Held

func (f fullTarget) Dump(context.Context) ([]Held, error) { return f, nil }

func (f fullTarget) Apply(_ context.Context, changes []Change) []error {
	return make([]error, len(changes))
}
