package fib

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Reading the dataplane's tables. It is done for one of three reasons, and always ends alike: what is held is noted, every key
// is looked at, and differences are queued.
//
//   - Doubt: the dataplane (re)connected, or somebody called Invalidate. The gate is closed until it is done; differences are
//     what is to be expected.
//   - An audit: nothing has happened, so what the dataplane confirmed should be there. Where it is not, somebody else was at
//     it: that is counted as drift, besides being repaired.
//   - A question: an operator wants to know what differs (Resync).

// reason is why there is a dump.
type reason uint8

const (
	noReason reason = iota
	doubt
	audit
)

// auditShare bounds what audits cost a large dataplane: it reads its tables on its main thread, where nothing else gets done
// meanwhile. An audit waits for so many times the time that the latest dump took.
const auditShare = 100

func (s *Syncer) auditEveryLocked() time.Duration {
	if s.opt.Audit < 0 {
		return 0
	}
	return max(s.opt.Audit, auditShare*s.dumpTook)
}

// SetAudit changes Options.Audit, and audits once.
func (s *Syncer) SetAudit(every time.Duration) {
	s.mu.Lock()
	s.opt.Audit = every
	s.auditAsked = true
	s.mu.Unlock()
	s.kick()
}

// Audit reads the dataplane now, as it is done from time to time: what others did to our routes is repaired and counted.
func (s *Syncer) Audit() {
	s.mu.Lock()
	s.auditAsked = true
	s.mu.Unlock()
	s.kick()
}

// dumpNeeded says why there should be a dump now, or else how long it is until the next audit (negative: none).
func (s *Syncer) dumpNeeded() (want uint64, why reason, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = -1
	if every := s.auditEveryLocked(); every > 0 {
		wait = max(time.Until(s.dumpAt.Add(every)), 0)
	}
	switch {
	case s.dumpAsked != s.dumpDone:
		why = doubt
	case s.auditAsked || len(s.questions) > 0 || wait == 0:
		why = audit
	}
	return s.dumpAsked, why, wait
}

// reading is one dump while it is taken in.
type reading struct {
	why     reason
	asked   bool // somebody waits for the answer
	drift   Drift
	answer  Comparison
	differ  []key // only if asked
	learned map[key]struct{}
	news    bool             // what is learned has changed
	hidden  map[key]struct{} // where a better source forwarded at the dump before: what of ours was behind it, nobody could see
}

// dump asks the target what it holds, and queues every difference. If it was asked for again meanwhile, the answer may be
// of before, so the gate stays closed.
func (s *Syncer) dump(ctx context.Context, want uint64, why reason) bool {
	s.mu.Lock()
	questions := s.questions
	s.questions, s.auditAsked = nil, false
	s.mu.Unlock()
	began := time.Now()
	held, err := s.opt.Target.Dump(ctx)
	r := &reading{why: why, asked: len(questions) > 0, learned: make(map[key]struct{})}
	s.takeIn(ctx, held, err, want, time.Since(began), r)
	for _, q := range questions {
		q.answer <- answer{r.answer, r.differ, err}
	}
	if err == nil && r.news && s.learnedChanged != nil {
		s.learnedChanged()
	}
	return err == nil
}

func (s *Syncer) takeIn(ctx context.Context, held []Held, err error, want uint64, took time.Duration, r *reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.progressLocked()
	s.dumpAt, s.dumpTook = time.Now(), took
	if err != nil {
		if s.dumpErr == nil && ctx.Err() == nil && !errors.Is(err, ErrDisconnected) {
			s.log.WithError(err).Warn("cannot read the dataplane's routes")
		}
		s.dumpErr = err
		return
	}
	s.dumps++
	s.dumpErr = nil
	s.round++
	s.rev++ // of what is learned
	r.hidden, s.shadows = s.shadows, make(map[key]struct{})
	s.scanAsked = false
	for i := range held {
		s.heldLocked(&held[i], r)
		if i%lockChunk == lockChunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.forgetLearnedLocked(r)
	differ, stale := 0, 0
	s.eachLocked(func(k key, e *entry) {
		if e.round != s.round {
			if e.have != nil && e.have != unknown {
				r.drifted(&r.drift.Missing, k)
			}
			e.have = nil
		}
		r.compareLocked(s, k, e)
		if s.lookLocked(k, e, r.why == doubt || r.asked) && !s.shadowedLocked(k) {
			differ++
		} else if e.state == Stale {
			stale++
		}
	})
	r.answer.Held, r.answer.Stale = len(held), stale
	log := s.log.WithField("held", len(held)).WithField("differ", differ).WithField("stale", stale)
	if r.why == doubt {
		s.dumpDone = want
		log.Info("read the dataplane's routes")
		return
	}
	s.audits++
	log.Debug("audited the dataplane's routes")
	// An Invalidate meanwhile says that something happened, which explains what was found.
	if n := r.drift.Count(); n > 0 && s.dumpAsked == want {
		s.driftedLocked(r)
	}
}

// heldLocked notes what a dump says. Nobody else sets have, so the mutex may be free between two calls.
func (s *Syncer) heldLocked(h *Held, r *reading) {
	k, ok := makeKey(h.Table, h.Prefix)
	if !ok {
		return
	}
	if h.Alien {
		s.learnLocked(k, h, r)
	}
	e := s.entries[k]
	switch {
	case h.Shadowed:
		s.shadows[k] = struct{}{}
		if e == nil || e.have == nil {
			return
		}
		e.round = s.round
		if r.why == doubt { // whether what we wrote is still behind it, nobody can tell: it is written again
			e.have = unknown
		}
		return
	case h.Alien:
		return
	case e == nil:
		e = s.entryLocked(k)
		e.leftover = true
		r.extra(k)
	case e.have == nil:
		// An entry for what others have there is none of ours.
		e.leftover = e.leftover || e.best.feed != nil && !e.wanted() && len(e.rest) == 0
		r.extra(k)
	}
	have := s.internLocked(h.Kind, h.NextHops)
	if e.have != nil && e.have != unknown && e.have != have {
		r.drifted(&r.drift.Changed, k)
	}
	e.round, e.have = s.round, have
}

// drifted counts a route that nobody but another can have touched; in a dump that has a reason it means nothing.
func (r *reading) drifted(n *uint64, k key) {
	if r.why != audit {
		return
	}
	*n++
	if len(r.drift.First) < maxShown {
		r.drift.First = append(r.drift.First, k.public())
	}
}

// extra counts a route of ours that was not known to be there, unless it was behind another's until now.
func (r *reading) extra(k key) {
	if _, ok := r.hidden[k]; !ok {
		r.drifted(&r.drift.Extra, k)
	}
}

func (s *Syncer) driftedLocked(r *reading) {
	d := &s.drift
	d.Missing += r.drift.Missing
	d.Changed += r.drift.Changed
	d.Extra += r.drift.Extra
	d.Last, d.First = time.Now(), r.drift.First
	slices.SortFunc(d.First, compareKeyOrder)
	s.log.WithField("missing", r.drift.Missing).WithField("changed", r.drift.Changed).WithField("extra", r.drift.Extra).
		WithField("first", d.First[0]).Info("somebody else has changed our routes in the dataplane")
}

func compareKeyOrder(a, b Key) int {
	ka, _ := makeKey(a.Table, a.Prefix)
	kb, _ := makeKey(b.Table, b.Prefix)
	return compareKeys(ka, kb)
}

func (s *Syncer) shadowedLocked(k key) bool {
	_, ok := s.shadows[k]
	return ok
}
