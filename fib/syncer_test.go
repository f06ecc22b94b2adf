package fib

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a target without faults of its own, that notes what it is told.
type recorder struct {
	mu      sync.Mutex
	held    map[Key]Route
	calls   [][]Change
	times   []time.Time // of calls
	dumps   int
	dumpErr error
	answer  func(Change) error
	block   chan struct{} // Apply waits for it, if not nil
}

func newRecorder(held ...Route) *recorder {
	r := &recorder{held: make(map[Key]Route), answer: func(Change) error { return nil }}
	for _, h := range held {
		r.held[h.Key] = h
	}
	return r
}

func (r *recorder) Dump(context.Context) ([]Held, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dumps++
	var held []Held
	for _, h := range r.held {
		held = append(held, Held{Route: h})
	}
	return held, r.dumpErr
}

func (r *recorder) Apply(ctx context.Context, changes []Change) []error {
	r.mu.Lock()
	block := r.block
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return slices.Repeat([]error{ctx.Err()}, len(changes))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, slices.Clone(changes))
	r.times = append(r.times, time.Now())
	errs := make([]error, len(changes))
	for i, c := range changes {
		if errs[i] = r.answer(c); errs[i] != nil {
			continue
		}
		if c.Delete {
			delete(r.held, c.Key)
		} else {
			r.held[c.Key] = c.Route
		}
	}
	return errs
}

// set changes the recorder under its lock.
func (r *recorder) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// rig runs a Syncer over a target inside a synctest bubble.
func rig(t *testing.T, target Target, test func(t *testing.T, s *Syncer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := NewSyncer(Options{Target: target})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		test(t, s)
		cancel()
		wg.Wait()
	})
}

func route(prefix string, hops ...NextHop) Route {
	return Route{Key: Key{Prefix: netip.MustParsePrefix(prefix)}, NextHops: hops}
}

func via(addr, iface string) NextHop {
	h := NextHop{Interface: iface}
	if addr != "" {
		h.Addr = netip.MustParseAddr(addr)
	}
	return h
}

func connected(prefix, iface string) Route {
	return Route{Key: Key{Prefix: netip.MustParsePrefix(prefix)}, Kind: Connected, NextHops: []NextHop{via("", iface)}}
}

func wantState(t *testing.T, s *Syncer, prefix string, want State) Entry {
	t.Helper()
	e, ok := s.Get(Key{Prefix: netip.MustParsePrefix(prefix)})
	if !ok {
		t.Fatalf("%s: no entry, want %v", prefix, want)
	}
	if e.State != want {
		t.Fatalf("%s is %v (%v), want %v", prefix, e.State, e.Err, want)
	}
	return e
}

func TestNothingIsWrittenBeforeTheFirstDump(t *testing.T) {
	r := newRecorder()
	r.dumpErr = fmt.Errorf("not yet: %w", ErrDisconnected)
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		rev := f.Update(route("10.0.0.0/8", via("", "eth0")))
		f.Complete()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(r.calls) != 0 {
			t.Fatalf("written without a dump: %v", r.calls)
		}
		wantState(t, s, "10.0.0.0/8", Queued)
		if st := s.Status(); st.Synced || !errors.Is(st.Err, ErrDisconnected) {
			t.Errorf("status %+v", st)
		}
		// Doubled waits up to a minute: 1+2+4+8+16+32+60+60…
		if want := 1 + 6 + 9; r.dumps < want-1 || r.dumps > want+1 {
			t.Errorf("%d dumps tried in 10 minutes, want about %d", r.dumps, want)
		}
		r.set(func() { r.dumpErr = nil })
		s.Invalidate() // ends the wait at once
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "10.0.0.0/8", Installed)
	})
}

func TestLeftOversStayUntilAllFeedsAreComplete(t *testing.T) {
	left := route("10.9.0.0/16", via("10.1.0.9", "eth0"))
	same := route("10.8.0.0/16", via("10.1.0.9", "eth0"))
	r := newRecorder(left, same)
	rig(t, r, func(t *testing.T, s *Syncer) {
		bgp, static := s.Feed("bgp", 100), s.Feed("static", 200)
		static.Complete()
		synctest.Wait()
		if e := wantState(t, s, "10.9.0.0/16", Stale); !e.Best.Equal(left) || len(e.Candidates) != 0 {
			t.Errorf("stale entry %+v", e)
		}
		bgp.Update(same) // as it was: nothing to write
		// A route of this life is withdrawn at once, gate or not.
		bgp.Update(route("10.7.0.0/16", via("10.1.0.9", "eth0")))
		synctest.Wait()
		bgp.Withdraw(Key{Prefix: netip.MustParsePrefix("10.7.0.0/16")})
		synctest.Wait()
		if len(r.calls) != 2 || !r.calls[1][0].Delete || len(r.held) != 2 {
			t.Fatalf("calls %v", r.calls)
		}
		rev := bgp.Complete()
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Get(left.Key); ok || len(r.held) != 1 {
			t.Errorf("left-over still there: %v", r.held)
		}
		wantState(t, s, "10.8.0.0/16", Installed)
	})
}

func TestBackOffIsDoubledAndVisible(t *testing.T) {
	r := newRecorder()
	refuse := errors.New("table full")
	r.answer = func(Change) error { return refuse }
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		rev := f.Update(route("10.0.0.0/8", via("", "eth0")))
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err) // failed is settled
		}
		if e := wantState(t, s, "10.0.0.0/8", Failed); !errors.Is(e.Err, refuse) {
			t.Errorf("error %v", e.Err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		var waits []time.Duration
		r.set(func() {
			for i := 1; i < len(r.times); i++ {
				waits = append(waits, r.times[i].Sub(r.times[i-1]))
			}
		})
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			if waits[i] != want*time.Second {
				t.Fatalf("waits %v", waits)
			}
		}
		// Another route for the key, and a dump, are tried at once, and their waits start anew.
		for what, start := range map[string]func(){
			"another route": func() { f.Update(route("10.0.0.0/8", via("", "eth1"))) }, "a dump": s.Invalidate,
		} {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			var before, after int
			r.set(func() { before = len(r.times) })
			start()
			time.Sleep(time.Second)
			synctest.Wait()
			r.set(func() { after = len(r.times) })
			if after != before+2 {
				t.Errorf("%s: %d tries in a second, want 2", what, after-before)
			}
		}
		r.set(func() { r.answer = func(Change) error { return nil } })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
	})
}

func TestPendingWaitsForInterfaces(t *testing.T) {
	r := newRecorder()
	missing := true
	r.answer = func(Change) error {
		if missing {
			return fmt.Errorf("eth0: %w", ErrNoInterface)
		}
		return nil
	}
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		rev := f.Update(route("10.0.0.0/8", via("", "eth0")))
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if e := wantState(t, s, "10.0.0.0/8", Pending); !errors.Is(e.Err, ErrNoInterface) {
			t.Errorf("error %v", e.Err)
		}
		r.set(func() { missing = false })
		s.InterfacesChanged()
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
	})
}

func TestPreferenceAndConnected(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		direct, static, bgp := s.Feed("direct", 240), s.Feed("static", 200), s.Feed("bgp", 100)
		bgp.Update(route("10.0.0.0/24", via("", "eth2")))
		static.Update(route("10.0.0.0/24", via("", "eth1")))
		synctest.Wait()
		e := wantState(t, s, "10.0.0.0/24", Installed)
		if e.Best.NextHops[0].Interface != "eth1" || len(e.Candidates) != 2 || e.Candidates[1].Feed != "bgp" {
			t.Fatalf("entry %+v", e)
		}
		direct.Update(connected("10.0.0.0/24", "eth0"), connected("10.1.0.0/24", "eth0"))
		synctest.Wait()
		wantState(t, s, "10.1.0.0/24", Installed)
		bgp.Update(route("10.1.0.0/24", via("", "eth2")))
		synctest.Wait()
		wantState(t, s, "10.1.0.0/24", Shadowed)
		bgp.Withdraw(Key{Prefix: netip.MustParsePrefix("10.1.0.0/24")})
		synctest.Wait()
		wantState(t, s, "10.1.0.0/24", Installed)
		wantState(t, s, "10.0.0.0/24", Shadowed)
		if len(r.held) != 0 {
			t.Errorf("dataplane holds %v beside its own connected route", r.held)
		}
		direct.Replace([]Route{connected("10.1.0.0/24", "eth0")})
		static.Withdraw(Key{Prefix: netip.MustParsePrefix("10.0.0.0/24")})
		synctest.Wait()
		if h := r.held[e.Key]; len(h.NextHops) != 1 || h.NextHops[0].Interface != "eth2" {
			t.Errorf("dataplane holds %v", h)
		}
	})
}

func TestShadowed(t *testing.T) {
	k := Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	r := newRecorder()
	shadow := &shadowing{recorder: r}
	rig(t, shadow, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		f.Update(route("10.0.0.0/8", via("", "eth0")))
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
		r.set(func() { shadow.key = k })
		for range 3 {
			s.Invalidate()
			synctest.Wait()
			wantState(t, s, "10.0.0.0/8", Shadowed)
		}
		if len(r.calls) != 4 { // once, and after each dump, which cannot tell whether it is there
			t.Errorf("shadowed route written %d times", len(r.calls))
		}
		r.set(func() { shadow.key = Key{} })
		s.Invalidate()
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
	})
	// That a better source is there is remembered for routes that are wanted only later, and is no route of ours.
	shadow.key = k
	rig(t, shadow, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		synctest.Wait()
		if _, ok := s.Get(k); ok {
			t.Error("a better source's route is an entry of ours")
		}
		f.Update(route("10.0.0.0/8", via("", "eth0")))
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Shadowed)
	})
}

// shadowing is a recorder whose dataplane has a better source for a key.
type shadowing struct {
	*recorder
	key Key
}

func (s *shadowing) Dump(ctx context.Context) ([]Held, error) {
	held, err := s.recorder.Dump(ctx)
	if s.key == (Key{}) {
		return held, err
	}
	held = slices.DeleteFunc(held, func(h Held) bool { return h.Key == s.key })
	return append(held, Held{Route: Route{Key: s.key, Kind: Unreachable}, Shadowed: true}), err
}

func TestNextHopsFollowConnectedRoutes(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		direct, bgp := s.Feed("direct", 240), s.Feed("bgp", 100)
		bgp.Update(
			route("172.20.0.0/16", via("10.0.0.2", "")),
			route("fd00::/8", via("10.0.0.2", ""), via("fe80::2", "tun1")),
			route("192.0.2.0/24", via("203.0.113.1", "")), // recursive
			route("198.51.100.0/24", via("fe80::9", "")),
		)
		synctest.Wait()
		hop := func(prefix string) string {
			return fmt.Sprint(r.held[Key{Prefix: netip.MustParsePrefix(prefix)}].NextHops)
		}
		if got := hop("172.20.0.0/16"); got != "[via 10.0.0.2]" {
			t.Errorf("without connected routes: %s", got)
		}
		if e := wantState(t, s, "198.51.100.0/24", Failed); e.Err == nil {
			t.Error("link-local next hop without an interface has no error")
		}
		steps := []struct {
			connected []Route
			want      string
		}{
			{[]Route{connected("10.0.0.0/8", "eth0")}, "[via 10.0.0.2 dev eth0]"},
			{[]Route{connected("10.0.0.0/8", "eth0"), connected("10.0.0.0/24", "eth1")}, "[via 10.0.0.2 dev eth1]"},
			{[]Route{connected("10.0.0.0/24", "eth1")}, "[via 10.0.0.2 dev eth1]"},
			{nil, "[via 10.0.0.2]"},
		}
		for _, step := range steps {
			rev := direct.Replace(step.connected)
			if err := s.WaitSynced(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			if got := hop("172.20.0.0/16"); got != step.want {
				t.Errorf("connected %v: %s, want %s", step.connected, got, step.want)
			}
			if got := hop("192.0.2.0/24"); got != "[via 203.0.113.1]" {
				t.Errorf("recursive route: %s", got)
			}
		}
	})
}

// TestFailedRoutesFollowConnectedRoutes: the wait is for what failed, not for what is wanted now.
func TestFailedRoutesFollowConnectedRoutes(t *testing.T) {
	r := newRecorder()
	r.answer = func(c Change) error {
		if len(c.NextHops) > 0 && c.NextHops[0].Interface == "" {
			return errors.New("no recursion")
		}
		return nil
	}
	rig(t, r, func(t *testing.T, s *Syncer) {
		direct, bgp := s.Feed("direct", 240), s.Feed("bgp", 100)
		bgp.Update(route("172.20.0.0/16", via("10.0.0.2", "")))
		time.Sleep(time.Hour)
		synctest.Wait()
		wantState(t, s, "172.20.0.0/16", Failed)
		direct.Update(connected("10.0.0.0/8", "eth0"))
		synctest.Wait()
		wantState(t, s, "172.20.0.0/16", Installed)
	})
}

// TestLostAnswers: what may have been done is undone, even where it cannot be seen.
func TestLostAnswers(t *testing.T) {
	k := Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	r := newRecorder()
	lose := true
	r.answer = func(Change) error {
		if lose {
			lose = false
			return fmt.Errorf("reset: %w", ErrDisconnected)
		}
		return nil
	}
	shadow := &shadowing{recorder: r, key: k}
	rig(t, shadow, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		synctest.Wait()
		block := make(chan struct{})
		r.set(func() { r.block = block })
		f.Update(route("10.0.0.0/8", via("", "eth0")))
		synctest.Wait()
		f.Withdraw(k)
		close(block)
		synctest.Wait()
		if n := len(r.calls); n != 2 || !r.calls[1][0].Delete {
			t.Errorf("calls %v", r.calls)
		}
		if _, ok := s.Get(k); ok || r.dumps != 2 {
			t.Errorf("entry %v, %d dumps", ok, r.dumps)
		}
	})
}

// slowDump is a recorder whose Dump waits.
type slowDump struct {
	*recorder
	proceed chan struct{}
}

func (s *slowDump) Dump(ctx context.Context) ([]Held, error) {
	held, err := s.recorder.Dump(ctx)
	<-s.proceed
	return held, err
}

func TestADumpThatIsDoubtedIsRepeated(t *testing.T) {
	r := newRecorder()
	slow := &slowDump{recorder: r}
	synctest.Test(t, func(t *testing.T) {
		slow.proceed = make(chan struct{})
		s := NewSyncer(Options{Target: slow})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		s.Feed("bgp", 100).Update(route("10.0.0.0/8", via("", "eth0")))
		synctest.Wait()
		s.Invalidate() // what the dump under way says may be of before
		slow.proceed <- struct{}{}
		synctest.Wait()
		if r.dumps != 2 || len(r.calls) != 0 || s.Status().Synced {
			t.Errorf("%d dumps, %d writes, %+v", r.dumps, len(r.calls), s.Status())
		}
		slow.proceed <- struct{}{}
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
		cancel()
		wg.Wait()
	})
}

func TestFlapsCoalesce(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		gate := make(chan struct{})
		f := s.Feed("bgp", 100)
		synctest.Wait()
		r.set(func() { r.block = gate })
		f.Update(route("10.0.0.0/8", via("", "eth0")))
		synctest.Wait() // in flight
		var rev uint64
		for i := range 1000 {
			rev = f.Update(route("10.0.0.0/8", via("", fmt.Sprintf("eth%d", i%7))))
		}
		wantState(t, s, "10.0.0.0/8", Queued)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.WaitSynced(ctx, rev); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitSynced while in flight: %v", err)
		}
		close(gate)
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if len(r.calls) != 2 {
			t.Errorf("%d writes for 1001 changes", len(r.calls))
		}
		if h := r.held[Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}]; h.NextHops[0].Interface != "eth5" {
			t.Errorf("dataplane holds %v", h)
		}
	})
}

func TestRoutesGoInBatchesAdditionsFirst(t *testing.T) {
	var old, now []Route
	for i := range 10000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		old = append(old, Route{Key: Key{Prefix: p}, NextHops: []NextHop{via("", "eth0")}})
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
		now = append(now, Route{Key: Key{Prefix: p}, NextHops: []NextHop{via("", "eth0")}})
	}
	r := newRecorder(old...)
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		f.Update(now...)
		rev := f.Complete()
		if err := s.WaitSynced(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if len(r.held) != len(now) {
			t.Errorf("dataplane holds %d routes", len(r.held))
		}
		if len(r.calls) > 8 {
			t.Errorf("%d calls for 20,000 changes", len(r.calls))
		}
	})
}

func TestStopEndsEverything(t *testing.T) {
	r := newRecorder()
	synctest.Test(t, func(t *testing.T) {
		r.block = make(chan struct{}) // Apply never answers
		s := NewSyncer(Options{Target: r})
		f := s.Feed("bgp", 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- s.Run(ctx) }()
		rev := f.Update(route("10.0.0.0/8", via("", "eth0")))
		go func() { done <- s.WaitSynced(t.Context(), rev) }()
		synctest.Wait()
		cancel()
		a, b := <-done, <-done
		if a == nil {
			a, b = b, a
		}
		if b != nil || !errors.Is(a, ErrStopped) {
			t.Errorf("Run and WaitSynced: %v, %v", a, b)
		}
		f.Update(route("11.0.0.0/8", via("", "eth0"))) // harmless
	})
}

// TestConcurrency is for the race detector: everything at once.
func TestConcurrency(t *testing.T) {
	r := newRecorder()
	s := NewSyncer(Options{Target: r, Batch: 64, MinBackoff: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var run, wg sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	direct := s.Feed("direct", 240)
	for n := range 4 {
		f := s.Feed(fmt.Sprint("bgp", n), 100+n)
		wg.Go(func() {
			for i := range 3000 {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 7), byte(i), 0}), 24)
				if i%3 == n%3 {
					f.Withdraw(Key{Prefix: p})
				} else {
					f.Update(Route{Key: Key{Prefix: p}, NextHops: []NextHop{via(fmt.Sprintf("192.0.2.%d", i%200), "")}})
				}
			}
			f.Complete()
		})
	}
	wg.Go(func() {
		for i := range 200 {
			direct.Replace([]Route{connected("192.0.2.0/24", fmt.Sprintf("eth%d", i%3))})
			s.InterfacesChanged()
			if i%20 == 0 {
				s.Invalidate()
			}
			s.Walk(func(e Entry) bool { return e.Best.Prefix.IsValid() })
			s.Status()
			s.Lookup(0, netip.AddrFrom4([4]byte{10, byte(i % 7), byte(i), 1}))
		}
		direct.Complete()
	})
	wg.Wait()
	wait, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if err := s.WaitSynced(wait, s.Revision()); err != nil {
		t.Fatalf("%v: %+v", err, s.Status())
	}
	s.Walk(func(e Entry) bool {
		if e.State != Installed {
			t.Errorf("%v is %v", e.Key, e.State)
		}
		return true
	})
	cancel()
	run.Wait()
	for k, h := range r.held {
		if e, ok := s.Get(k); !ok || !e.Best.Equal(h) {
			t.Errorf("%v: dataplane holds %v, entry %v", k, h, e.Best)
		}
	}
}

func TestActionsAreForgotten(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		f, direct := s.Feed("bgp", 100), s.Feed("direct", 240)
		for i := range 5000 {
			f.Update(route("10.0.0.0/8", via(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String(), "")))
		}
		synctest.Wait()
		if n := len(s.actions); n > 1100 {
			t.Errorf("%d actions are kept for one route", n)
		}
		direct.Update(connected("192.0.0.0/16", "eth0"))
		synctest.Wait()
		wantState(t, s, "10.0.0.0/8", Installed)
		direct.Update(connected("192.0.0.0/16", "eth1"))
		synctest.Wait()
		if h := r.held[Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}]; h.NextHops[0].Interface != "eth1" {
			t.Errorf("dataplane holds %v", h)
		}
	})
}
