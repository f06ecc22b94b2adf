package fib

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// What an operator does (couple.go), audits (dump.go) and learning (learn.go), one by one; model_test.go has them in all orders.

func keyOf(prefix string) Key { return Key{Prefix: netip.MustParsePrefix(prefix)} }

// synced waits until all that feeds have said is settled.
func synced(t *testing.T, s *Syncer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // the second time for what a dump has brought, that the first waited for
		if err := s.WaitSynced(ctx, s.Revision()); err != nil {
			t.Fatalf("WaitSynced: %v; %+v", err, s.Status())
		}
	}
}

func TestDecoupledNothingIsWritten(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		f.Complete()
		f.Update(route("10.1.0.0/16", via("", "eth0")), route("10.2.0.0/16", via("", "eth0")))
		synced(t, s)
		since := time.Now()
		if err := s.Decouple(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Update(route("10.1.0.0/16", via("", "eth1")), route("10.3.0.0/16", via("", "eth0")))
		f.Withdraw(keyOf("10.2.0.0/16"))
		s.Invalidate() // as after a reconnection: read, but not written
		synced(t, s)
		for _, p := range []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"} {
			wantState(t, s, p, Queued)
		}
		if len(r.calls) != 1 || len(r.held) != 2 || !s.Status().Decoupled.Equal(since) {
			t.Errorf("decoupled: calls %v, held %v, status %+v", r.calls, r.held, s.Status())
		}
		// What comes back to what is held is right without a write.
		f.Update(route("10.1.0.0/16", via("", "eth0")))
		synced(t, s)
		wantState(t, s, "10.1.0.0/16", Installed)
		f.Update(route("10.1.0.0/16", via("", "eth1")))

		c, err := s.Resync(t.Context())
		if err != nil || c.Missing != 1 || c.Changed != 1 || c.Extra != 1 || c.Waiting != 3 || len(r.calls) != 1 {
			t.Fatalf("resync while decoupled: %+v, %v; calls %v", c, err, r.calls)
		}
		c, err = s.Couple(t.Context())
		want := Comparison{Held: 2, Missing: 1, Changed: 1, Extra: 1, Repaired: 3, First: []Difference{
			{Key: keyOf("10.1.0.0/16"), What: Changed, State: Installed},
			{Key: keyOf("10.2.0.0/16"), What: Extra, Gone: true},
			{Key: keyOf("10.3.0.0/16"), What: Missing, State: Installed},
		}}
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("couple: %+v, %v, want %+v", c, err, want)
		}
		if _, there := r.held[keyOf("10.2.0.0/16")]; there || len(r.held) != 2 || !s.Status().Decoupled.IsZero() {
			t.Errorf("coupled: held %v, status %+v", r.held, s.Status())
		}
		if c, err := s.Resync(t.Context()); err != nil || c.Differ() != 0 {
			t.Errorf("and again: %+v, %v", c, err)
		}
	})
}

// TestDecoupleWaitsForWhatIsUnderWay is why a caller can rely on it when it returns.
func TestDecoupleWaitsForWhatIsUnderWay(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		r.set(func() { r.block = make(chan struct{}) })
		f := s.Feed("static", 200)
		f.Complete()
		f.Update(route("10.1.0.0/16", via("", "eth0")))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Decouple(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("decoupled while a route was being written: %v", err)
		}
		close(r.block)
		if err := s.Decouple(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "10.1.0.0/16", Installed)
	})
}

// TestCoupleWithoutADataplane: the switch is thrown at once, and what differs is written when the dataplane is back.
func TestCoupleWithoutADataplane(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		f.Complete()
		synced(t, s)
		if err := s.Decouple(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Update(route("10.1.0.0/16", via("", "eth0")))
		synced(t, s)
		r.set(func() { r.dumpErr = ErrDisconnected })
		if _, err := s.Couple(t.Context()); !errors.Is(err, ErrDisconnected) {
			t.Errorf("couple: %v", err)
		}
		r.set(func() { r.dumpErr = nil })
		time.Sleep(10 * time.Second) // it is tried again soon, without a sign of the dataplane
		synced(t, s)
		wantState(t, s, "10.1.0.0/16", Installed)
	})
}

func TestAuditRepairsAndCounts(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		f.Complete()
		f.Update(route("10.1.0.0/16", via("", "eth0")), route("10.2.0.0/16", via("", "eth0")), route("10.3.0.0/16", via("", "eth0")))
		synced(t, s)
		// What differs after a reconnection is no drift.
		r.set(func() { delete(r.held, keyOf("10.1.0.0/16")) })
		s.Invalidate()
		synced(t, s)
		if d := s.Status().Drift; d.Count() != 0 || len(r.held) != 3 {
			t.Fatalf("drift after a reconnection: %+v, held %v", d, r.held)
		}
		r.set(func() {
			delete(r.held, keyOf("10.2.0.0/16"))
			r.held[keyOf("10.3.0.0/16")] = route("10.3.0.0/16", via("", "eth9"))
			r.held[keyOf("10.9.0.0/16")] = route("10.9.0.0/16", via("", "eth9"))
		})
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if d := s.Status().Drift; d.Count() != 0 {
			t.Fatalf("audited too early: %+v", d)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d := s.Status().Drift
		if d.Missing != 1 || d.Changed != 1 || d.Extra != 1 || time.Since(d.Last) > 2*time.Second {
			t.Errorf("drift %+v", d)
		}
		if want := []Key{keyOf("10.2.0.0/16"), keyOf("10.3.0.0/16"), keyOf("10.9.0.0/16")}; !reflect.DeepEqual(d.First, want) {
			t.Errorf("drift of %v, want %v", d.First, want)
		}
		want := map[Key]Route{}
		for _, p := range []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"} {
			want[keyOf(p)] = Route{Key: keyOf(p), NextHops: []NextHop{{Interface: "eth0", Weight: 1}}}
		}
		if !reflect.DeepEqual(r.held, want) {
			t.Errorf("held %v", r.held)
		}
		time.Sleep(10 * time.Minute) // nothing more happens
		synctest.Wait()
		if st := s.Status(); st.Drift.Count() != 3 || st.Audits < 10 {
			t.Errorf("later: %+v", st)
		}
	})
}

// hooked calls hook in each dump, before the dataplane is read.
type hooked struct {
	*recorder
	hook func()
}

func (h *hooked) Dump(ctx context.Context) ([]Held, error) {
	h.hook()
	return h.recorder.Dump(ctx)
}

// TestARestartDuringAnAuditIsNoDrift: whoever calls Invalidate knows why the routes are gone.
func TestARestartDuringAnAuditIsNoDrift(t *testing.T) {
	h := &hooked{recorder: newRecorder(), hook: func() {}}
	rig(t, h, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		f.Complete()
		f.Update(route("10.1.0.0/16", via("", "eth0")))
		synced(t, s)
		h.hook = func() {
			h.hook = func() {}
			h.set(func() { clear(h.held) })
			s.Invalidate()
		}
		s.Audit()
		synctest.Wait()
		if st := s.Status(); st.Audits != 1 || st.Drift.Count() != 0 || len(h.held) != 1 {
			t.Errorf("status %+v, held %v", st, h.held)
		}
	})
}

// lazyDump is a dataplane that needs long to tell its routes.
type lazyDump struct{ *recorder }

func (d lazyDump) Dump(ctx context.Context) ([]Held, error) {
	time.Sleep(3 * time.Second)
	return d.recorder.Dump(ctx)
}

func TestAuditsSpareASlowDataplane(t *testing.T) {
	r := newRecorder()
	rig(t, lazyDump{r}, func(t *testing.T, s *Syncer) {
		s.Feed("static", 200).Complete()
		synced(t, s)
		if st := s.Status(); st.AuditEvery != 5*time.Minute {
			t.Errorf("audits every %v, want 100 times what a dump takes", st.AuditEvery)
		}
		time.Sleep(time.Hour)
		if n := s.Status().Dumps; n < 11 || n > 13 {
			t.Errorf("%d dumps in an hour, want about 12", n)
		}
		s.SetAudit(-1)
		time.Sleep(time.Minute)
		before := s.Status().Dumps
		time.Sleep(time.Hour)
		if st := s.Status(); st.Dumps != before || st.AuditEvery != 0 {
			t.Errorf("audits that are turned off: %d dumps", st.Dumps-before)
		}
	})
}

// others shows routes of others beside those of the recorder.
type others struct {
	*recorder
	shown map[Key]Held
}

func (o *others) Dump(ctx context.Context) ([]Held, error) {
	held, err := o.recorder.Dump(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []Held
	for _, h := range held {
		if _, hidden := o.shown[h.Key]; !hidden {
			out = append(out, h)
		}
	}
	for _, h := range o.shown {
		out = append(out, h)
	}
	return out, err
}

func alien(r Route, better bool) Held { return Held{Route: r, Shadowed: better, Alien: true} }

func TestLearn(t *testing.T) {
	left := route("10.5.0.0/16", via("", "eth0"))
	o := &others{recorder: newRecorder(left), shown: map[Key]Held{}}
	news := 0
	rig(t, o, func(t *testing.T, s *Syncer) {
		s.Learn("learned", 10, func() { news++ })
		f := s.Feed("static", 200)
		f.Update(route("10.1.0.0/16", via("", "eth0")))
		synced(t, s)
		show := func(held ...Held) {
			t.Helper()
			o.set(func() {
				clear(o.shown)
				for _, h := range held {
					o.shown[h.Key] = h
				}
			})
			s.Audit()
			synctest.Wait()
		}
		theirs := route("10.2.0.0/16", via("192.0.2.9", "eth7"))
		show(alien(theirs, false), alien(route("10.1.0.0/16", via("", "eth7")), true), alien(route("10.5.0.0/16", via("", "eth7")), true))
		e := wantState(t, s, "10.2.0.0/16", Installed)
		if len(e.Candidates) != 1 || e.Candidates[0].Feed != "learned" || e.Candidates[0].Preference != 10 || !e.Best.Equal(theirs) {
			t.Errorf("a learned route: %+v", e)
		}
		if e := wantState(t, s, "10.1.0.0/16", Shadowed); len(e.Candidates) != 2 || e.Candidates[0].Feed != "static" {
			t.Errorf("a route of ours behind one of somebody else: %+v", e)
		}
		wantState(t, s, "10.5.0.0/16", Stale) // the left-over is still there, behind
		if news != 1 || len(s.Learned()) != 3 {
			t.Errorf("%d calls, learned %v", news, s.Learned())
		}
		show(alien(theirs, false)) // the others have gone
		wantState(t, s, "10.1.0.0/16", Installed)
		wantState(t, s, "10.5.0.0/16", Stale)
		show(alien(theirs, false))
		if news != 2 {
			t.Errorf("%d calls, want none without news", news)
		}
		f.Complete()
		synctest.Wait()
		if len(o.calls) != 2 || o.calls[1][0].Key != left.Key {
			t.Errorf("calls %v, want our route and the left-over's end", o.calls)
		}
		// Ours at the same prefix is written, and hides theirs.
		f.Update(route("10.2.0.0/16", via("", "eth0")))
		synctest.Wait()
		show()
		if e := wantState(t, s, "10.2.0.0/16", Installed); len(e.Candidates) != 1 {
			t.Errorf("ours in their place: %+v", e)
		}
		if st := s.Status(); st.Learned != 0 || st.Drift.Count() != 0 || len(s.Learned()) != 0 {
			t.Errorf("at the end: %+v", st)
		}
	})
}

// TestALeftOverBehindALearnedRoute comes to light when the other's route goes, and is no less a left-over for that.
func TestALeftOverBehindALearnedRoute(t *testing.T) {
	left := route("10.5.0.0/16", via("", "eth0"))
	o := &others{recorder: newRecorder(left), shown: map[Key]Held{left.Key: alien(route("10.5.0.0/16", via("", "eth7")), true)}}
	rig(t, o, func(t *testing.T, s *Syncer) {
		s.Learn("learned", 10, nil)
		f := s.Feed("static", 200)
		s.Invalidate() // the rig runs it already
		synced(t, s)
		wantState(t, s, "10.5.0.0/16", Installed)
		o.set(func() { clear(o.shown) })
		s.Invalidate()
		synced(t, s)
		wantState(t, s, "10.5.0.0/16", Stale)
		if len(o.calls) != 0 {
			t.Fatalf("calls %v", o.calls)
		}
		f.Complete()
		synctest.Wait()
		if len(o.held) != 0 {
			t.Errorf("held %v", o.held)
		}
	})
}
