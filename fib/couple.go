package fib

import (
	"context"
	"errors"
	"slices"
	"time"
)

// What an operator does to a Syncer: decouple, couple, resync.

// Decouple makes the Syncer write nothing any more, until Couple: what the dataplane holds stays there and forwards. Feeds are
// listened to as before, and dumps tell what is held. It returns when no write is under way; ctx's error means that one still
// is. Again is nothing.
func (s *Syncer) Decouple(ctx context.Context) error {
	s.mu.Lock()
	if !s.decoupled {
		s.decoupled, s.decoupledSince = true, time.Now()
	}
	s.mu.Unlock()
	err := s.await(ctx, func() bool { return s.flight == 0 })
	if errors.Is(err, ErrStopped) { // what has stopped writes nothing either
		return nil
	}
	return err
}

// Couple ends Decouple: the dataplane is read, and every difference written. Result and errors are Resync's; whatever they
// are, the Syncer is coupled. Coupling again is Resync.
func (s *Syncer) Couple(ctx context.Context) (Comparison, error) {
	s.mu.Lock()
	if s.decoupled {
		s.decoupled, s.decoupledSince = false, time.Time{}
		s.dumpAsked++ // keys that differ are in no queue
	}
	s.mu.Unlock()
	return s.Resync(ctx)
}

// Comparison is what Resync found in the dataplane, and what became of it.
type Comparison struct {
	Held    int // routes that the dataplane told of
	Missing int // wanted and not held
	Changed int // held otherwise than wanted
	Extra   int // ours, and wanted by nobody
	Stale   int // left-overs that stay until every feed is complete: no difference

	// Of Missing, Changed and Extra:
	Repaired int
	Failed   int // or pending
	Waiting  int // not written: decoupled, or the dataplane went away

	First []Difference // by key, at most maxShown
}

// Differ is the number of differences.
func (c Comparison) Differ() int { return c.Missing + c.Changed + c.Extra }

// Difference is a key that was not as it should be.
type Difference struct {
	Key
	What  DifferenceKind
	State State // now
	Gone  bool  // now there is no such route any more, which is right; State means nothing
	Err   error // why Failed or Pending
}

// DifferenceKind says how a key differed.
type DifferenceKind string

// The kinds of difference.
const (
	Missing DifferenceKind = "missing"
	Changed DifferenceKind = "changed"
	Extra   DifferenceKind = "extra"
)

// question is a Resync that waits for a dump.
type question struct{ answer chan answer }

type answer struct {
	found  Comparison
	differ []key
	err    error
}

// Resync reads the dataplane now and compares; unless decoupled, it has every difference written, what failed before, too,
// and waits until that is settled. Errors: the dump's, ctx's, ErrStopped.
func (s *Syncer) Resync(ctx context.Context) (Comparison, error) {
	q := &question{answer: make(chan answer, 1)}
	s.mu.Lock()
	s.questions = append(s.questions, q)
	s.mu.Unlock()
	s.kick()
	var a answer
	select {
	case a = <-q.answer:
	case <-ctx.Done():
		return Comparison{}, ctx.Err()
	case <-s.stopped:
		return Comparison{}, ErrStopped
	}
	if a.err != nil {
		return Comparison{}, a.err
	}
	if err := s.WaitSynced(ctx, s.Revision()); err != nil {
		return a.found, err
	}
	return s.judge(a), nil
}

// compareLocked notes how a key differs, before that is queued, for those who asked.
func (r *reading) compareLocked(s *Syncer, k key, e *entry) {
	if !r.asked {
		return
	}
	want, err := s.wantLocked(k, e)
	switch {
	case err != nil || want == e.have:
		return
	case e.have == nil:
		r.answer.Missing++
		r.note(k, Missing)
	case want == nil:
		r.answer.Extra++
		r.note(k, Extra)
	case e.have == unknown:
		return // behind a better source: there is nothing to compare
	default:
		r.answer.Changed++
		r.note(k, Changed)
	}
	r.differ = append(r.differ, k)
}

func (r *reading) note(k key, what DifferenceKind) {
	if len(r.answer.First) < maxShown {
		r.answer.First = append(r.answer.First, Difference{Key: k.public(), What: what})
	}
}

// judge says what has become of the differences.
func (s *Syncer) judge(a answer) Comparison {
	c := a.found
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range a.differ {
		switch e := s.entries[k]; {
		case e == nil || e.state == Installed || e.state == Shadowed:
			c.Repaired++
		case e.state == Failed || e.state == Pending:
			c.Failed++
		default:
			c.Waiting++
		}
	}
	for i := range c.First {
		d := &c.First[i]
		k, _ := makeKey(d.Table, d.Prefix)
		e := s.entries[k]
		if d.Gone = e == nil; d.Gone {
			continue
		}
		d.State = e.state
		if t := s.troubles[k]; t != nil && (e.state == Failed || e.state == Pending) {
			d.Err = t.err
		}
	}
	slices.SortFunc(c.First, func(a, b Difference) int { return compareKeyOrder(a.Key, b.Key) })
	return c
}
