package vppagent_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// A VPP that is too small for a million routes lives on with as many as it can hold, and takes others for those that go.
func TestMemoryGuard(t *testing.T) {
	for name, memory := range map[string]dataplanetest.Memory{
		"heap": {Heap: 128, Stats: 32}, "statistics segment": {Heap: 256, Stats: 8},
	} {
		t.Run(name+"/vpp", func(t *testing.T) {
			kills := unguarded(t, memory)
			d := dataplanetest.StartWith(t, dataplanetest.VPP, memory)
			a, _ := runAgent(t, d.APISocket, d.StatsSocket, benchConfig)
			s := fib.NewSyncer(fib.Options{Target: a, MaxBackoff: 11 * time.Second}) // VPP tells of its heaps every 10 s
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			feed := s.Feed("bgp", 100)
			feed.Complete()
			if err := a.WaitConfigured(within(t)); err != nil {
				t.Fatal(err)
			}
			s.Invalidate()
			pid := a.Status().PID
			const all = 1_000_000
			routes := make([]fib.Route, all)
			keys := make([]fib.Key, all)
			for i := range routes {
				keys[i] = fib.Key{Prefix: benchPrefix(i)}
				routes[i] = fib.Route{Key: keys[i], NextHops: benchHops}
			}
			settle := func(what string, rev uint64, want int) int {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				if err := s.WaitSynced(ctx, rev); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				st := s.Status()
				installed, failed := st.States[fib.Installed], st.States[fib.Failed]
				t.Logf("%s: %d installed, %d failed", what, installed, failed)
				if installed+failed != want || installed < min(want, kills*8/10) || a.Status().PID != pid {
					t.Fatalf("%s: %v, pid %d; without a guard %d were too many", what, st.States, a.Status().PID, kills)
				}
				return installed
			}
			rev := feed.Update(routes...)
			if err := s.WaitSynced(within(t), rev); err != nil {
				t.Fatal(err)
			}
			t.Logf("at once: %v", s.Status().States)
			eventually(t, "four fifths have room", func() bool { return s.Status().States[fib.Installed] >= kills*8/10 })
			admitted := settle("a million", rev, all)
			if e, _ := s.Get(keys[all-1]); !errors.Is(e.Err, fib.ErrFull) {
				t.Errorf("the last one: %v, %v", e.State, e.Err)
			}
			wantForwarding(t, a, s, keys)
			// Half of those that found room go; as many others take their place.
			again := settle("half of the admitted withdrawn", feed.Withdraw(keys[:admitted/2]...), all-admitted/2)
			if again < admitted*95/100 {
				t.Errorf("only %d have room now, %d had before", again, admitted)
			}
			wantForwarding(t, a, s, keys)
			// What is left fits.
			left := kills / 2
			settle("few left", feed.Withdraw(keys[:all-left]...), left)
			if st := s.Status(); st.States[fib.Installed] != left {
				t.Errorf("%v, want %d installed", st.States, left)
			}
			wantForwarding(t, a, s, keys)
		})
	}
}

// unguarded returns how many routes a VPP without a guard dies of.
func unguarded(t *testing.T, memory dataplanetest.Memory) int {
	t.Helper()
	d := dataplanetest.StartWith(t, dataplanetest.VPP, memory)
	a, _ := runAgent(t, d.APISocket, "", benchConfig)
	if err := a.WaitConfigured(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Dump(within(t)); err != nil {
		t.Fatal(err)
	}
	const step = 1000
	for n := 0; n < 1_000_000; n += step {
		changes := make([]fib.Change, step)
		for i := range changes {
			changes[i] = fib.Change{Route: fib.Route{Key: fib.Key{Prefix: benchPrefix(n + i)}, NextHops: benchHops}}
		}
		if err := errors.Join(a.Apply(t.Context(), changes)...); err != nil {
			t.Logf("without a guard, VPP died between %d and %d routes", n, n+step)
			return n + step
		}
	}
	t.Fatal("a million routes did not kill VPP")
	return 0
}

// wantForwarding compares what VPP would do with some of the addresses with what the Syncer says.
func wantForwarding(t *testing.T, a *vppagent.Agent, s *fib.Syncer, keys []fib.Key) {
	t.Helper()
	for i := 0; i < len(keys); i += len(keys) / 200 {
		e, wanted := s.Get(keys[i])
		found, err := a.FIB(within(t), vppagent.FIBFilter{Prefix: keys[i].Prefix})
		if err != nil {
			t.Fatal(err)
		}
		there := len(found) == 1 && found[0].Ours && found[0].Paths[0].NextHop == benchHops[0].Addr
		if want := wanted && e.State == fib.Installed; there != want {
			t.Fatalf("%v is %v, and VPP has %+v", keys[i], e.State, found)
		}
	}
}

var (
	benchHops   = []fib.NextHop{{Addr: netip.MustParseAddr("192.0.2.2"), Interface: "dum0", Weight: 1}}
	benchConfig = vppagent.Config{Router: "bench", Interfaces: []vppagent.Interface{
		{Name: "dum0", Loopback: &vppagent.Loopback{}, Addresses: prefixes("192.0.2.1/24"), Enabled: true},
	}}
)
