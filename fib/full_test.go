package fib

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A full dataplane: what has no room is Failed, what is there can be replaced, and room that appears is used: at once when we
// made it, within MaxBackoff when somebody else did.
func TestFull(t *testing.T) {
	const room, all = 10, 30
	r := newRecorder()
	limit, tries := room, 0
	r.answer = func(c Change) error {
		if c.Delete {
			return nil
		}
		tries++
		_, there := r.held[c.Key]
		if c.Replaces != there {
			t.Errorf("%v: replaces %v, there %v", c.Key, c.Replaces, there)
		}
		if !there && len(r.held) >= limit {
			return fmt.Errorf("heap: %w", ErrFull)
		}
		return nil
	}
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		states := func(what string, installed, failed int) {
			t.Helper()
			synctest.Wait()
			if st := s.Status().States; st[Installed] != installed || st[Failed] != failed || len(st) > 2 {
				t.Errorf("%s: %v, want %d installed and %d failed", what, st, installed, failed)
			}
			r.set(func() {
				if len(r.held) != installed {
					t.Errorf("%s: the dataplane holds %d, want %d", what, len(r.held), installed)
				}
			})
		}
		key := func(i int) string { return fmt.Sprintf("10.0.%d.0/24", i) }
		var routes []Route
		for i := range all {
			routes = append(routes, route(key(i), via("", "eth0")))
		}
		f.Update(routes...)
		states("full", room, all-room)
		wantState(t, s, key(0), Installed)

		f.Update(route(key(0), via("", "eth1")))
		synctest.Wait()
		if e := wantState(t, s, key(0), Installed); e.Best.NextHops[0].Interface != "eth1" {
			t.Errorf("not replaced: %+v", e.Best)
		}
		var before int
		r.set(func() { before = tries })
		f.Withdraw(routes[1].Key, routes[2].Key, routes[all-1].Key) // the last has no room, and waits no longer
		states("two deleted", room, all-3-room)
		f.Withdraw(routes[3].Key)
		f.Update(routes[3]) // who goes and comes again is as good as the others
		states("one flapped", room, all-3-room)
		r.set(func() {
			if tries-before > 10 {
				t.Errorf("%d tries to fill two places and a flap", tries-before)
			}
			limit = 20
		})
		time.Sleep(time.Minute + time.Second)
		states("more room", 20, all-3-20)
		r.set(func() { limit = 100 })
		s.Invalidate()
		states("looked again", all-3, 0)
	})
}

// A feed that announces and withdraws while there is no room leaves nothing behind.
func TestFullForgets(t *testing.T) {
	r := newRecorder()
	r.answer = func(Change) error { return ErrFull }
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("bgp", 100)
		for round := range 100 {
			var routes []Route
			var keys []Key
			for i := range 200 {
				routes = append(routes, route(fmt.Sprintf("10.%d.%d.0/24", round%2, i), via("", "eth0")))
				keys = append(keys, routes[i].Key)
			}
			f.Update(routes...)
			synctest.Wait()
			f.Withdraw(keys...)
			synctest.Wait()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.crowd.len(); n > 3*lockChunk || len(s.troubles) > 0 || len(s.entries) > 0 {
			t.Errorf("%d wait, %d troubles, %d entries", n, len(s.troubles), len(s.entries))
		}
	})
}
