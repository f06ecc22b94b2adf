package fib

import (
	"context"
	"errors"
)

// The worker's steps besides the dump (dump.go): scan, apply.

// lockChunk is how many keys are worked on before others get the mutex.
const lockChunk = 1024

// eachLocked visits all entries, letting go of the mutex now and then. An entry that comes or goes meanwhile is visited or
// not. visit may forget the entry that it is called with.
func (s *Syncer) eachLocked(visit func(key, *entry)) {
	n := 0
	for k, e := range s.entries { // a map may change between the steps of a range, if not during one: the mutex is held then
		visit(k, e)
		if n++; n%lockChunk == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
}

// scanIfAsked looks at every key again.
func (s *Syncer) scanIfAsked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepActionsLocked()
	if !s.scanAsked {
		return
	}
	s.scanAsked = false
	s.eachLocked(func(k key, e *entry) { s.lookLocked(k, e, false) })
	s.progressLocked()
}

// lookLocked compares want and have of a key, and queues it when they differ and it is in no queue yet. What was tried in vain
// waits its time, unless again.
func (s *Syncer) lookLocked(k key, e *entry, again bool) (differs bool) {
	want, err := s.wantLocked(k, e)
	if e.queued { // it will be compared again when its turn comes
		return err != nil || want != e.have
	}
	t := s.troubles[k]
	switch {
	case err == nil && want == e.have:
		s.settledKeyLocked(k, e)
		return false
	case t != nil && t.tried == want && !again:
		return false
	}
	if again {
		s.healedLocked(k)
	}
	s.urgentLocked(k, e)
	return true
}

// settledKeyLocked gives a key whose want and have agree its state, or drops it.
func (s *Syncer) settledKeyLocked(k key, e *entry) {
	s.healedLocked(k)
	switch {
	case e.best.feed == nil && e.have == nil:
		s.forgetLocked(k, e)
	case !e.wanted() && e.have != nil:
		s.setStateLocked(e, Stale)
	case !e.wanted():
		s.setStateLocked(e, Installed) // learned: the dataplane showed it
	case e.best.act.kind != Connected && s.shadowedLocked(k), e.best.act.kind == Connected && len(e.rest) > 0:
		s.setStateLocked(e, Shadowed)
	default:
		s.setStateLocked(e, Installed)
	}
}

// job is a key in flight.
type job struct {
	key  key
	e    *entry
	want *action // nil: deletion
	held bool    // the dataplane holds a route of ours for it
	full bool    // there was no room for it before
}

// outcome of a batch.
type outcome uint8

const (
	idle   outcome = iota // nothing was queued
	worked                // keys were looked at; nothing had to be written
	wrote
	lost // the dataplane went away before it confirmed everything
)

// applyBatch takes keys from the queues and writes what differs.
func (s *Syncer) applyBatch(ctx context.Context) outcome {
	jobs, any := s.take()
	switch {
	case len(jobs) == 0 && any:
		return worked
	case len(jobs) == 0:
		return idle
	}
	changes := make([]Change, len(jobs))
	for i, j := range jobs {
		if j.want == nil {
			changes[i] = Change{Route: Route{Key: j.key.public()}, Delete: true}
		} else {
			changes[i] = Change{Route: j.want.route(j.key), Replaces: j.held}
		}
	}
	if s.settle(ctx, jobs, s.opt.Target.Apply(ctx, changes)) > 0 {
		return lost
	}
	return wrote
}

// take empties the queues as far as a batch goes: additions, then deletions, so that what a deleted route forwarded has
// its new way first. Keys that need no write are settled at once.
func (s *Syncer) take() (jobs []job, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dumpAsked != s.dumpDone || s.resolveAsked {
		return nil, true
	}
	var deletions []job
	s.oldest = 0
	for n := 0; n < s.opt.Batch; n++ {
		var q queued
		switch {
		case s.urgent.len() > 0:
			q = s.urgent.pop()
		case s.queue.len() > 0:
			q = s.queue.pop()
		default:
			n = s.opt.Batch
			continue
		}
		any = true
		e := s.entries[q.key]
		e.queued = false
		want, err := s.wantLocked(q.key, e)
		switch {
		case err != nil:
			s.troubleLocked(q.key, e, want, Failed, err)
			continue
		case want == e.have:
			s.settledKeyLocked(q.key, e)
			continue
		case s.decoupled: // it stays as it is until Couple, which looks at all keys
			s.setStateLocked(e, Queued)
			continue
		}
		if len(jobs)+len(deletions) == 0 {
			s.oldest = q.rev
		}
		j := job{key: q.key, e: e, want: want, held: e.have != nil && e.have != unknown}
		if t := s.troubles[q.key]; t != nil {
			j.full = errors.Is(t.err, ErrFull)
		}
		if want == nil {
			deletions = append(deletions, j)
		} else {
			jobs = append(jobs, j)
		}
	}
	jobs = append(jobs, deletions...)
	s.flight = len(jobs)
	s.progressLocked()
	return jobs, any
}

// settle notes the results of jobs, and returns how many have none.
func (s *Syncer) settle(ctx context.Context, jobs []job, results []error) (lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	refused, room := 0, 0
	for i, j := range jobs {
		err := ErrDisconnected // a target that answers too little
		if i < len(results) {
			err = results[i]
		}
		switch {
		case err == nil:
			if j.want == nil || j.full { // each deletion makes room for about one; where one found room, others may
				room++
			}
			s.confirmedLocked(j)
		case errors.Is(err, ErrDisconnected), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			lost++
			j.e.have = unknown
			s.urgentLocked(j.key, j.e)
		default:
			st := Failed
			if errors.Is(err, ErrNoInterface) {
				st = Pending
			} else {
				s.refused++
				if s.troubles[j.key] == nil {
					if refused++; refused == 1 {
						first = err
					}
				}
			}
			s.troubleLocked(j.key, j.e, j.want, st, err)
			if j.e.queued { // a feed changed its mind meanwhile
				s.setStateLocked(j.e, Queued)
			}
		}
	}
	s.flight = 0
	s.roomLocked(room)
	s.unanswers += uint64(lost)
	if lost > 0 && s.dumpAsked == s.dumpDone {
		s.dumpAsked++
	}
	if lost > 0 && ctx.Err() == nil {
		s.log.WithField("routes", lost).Info("dataplane went away while routes were written")
	}
	if refused > 0 {
		s.log.WithError(first).WithField("routes", refused).Warn("dataplane refuses routes")
	}
	s.progressLocked()
	return lost
}

func (s *Syncer) confirmedLocked(j job) {
	j.e.have = j.want
	if j.want == nil {
		j.e.leftover = false
		s.deleted++
	} else {
		s.written++
		s.stopwatch.confirmed(j.key)
	}
	if j.e.queued {
		s.healedLocked(j.key)
		return
	}
	// Nothing has changed since take, or the key would be queued; but connected routes may have, and then a scan follows.
	s.settledKeyLocked(j.key, j.e)
}

// sweepActionsLocked drops actions that no entry has any more, when there are many more than there were. The worker calls
// it when nothing is in flight.
func (s *Syncer) sweepActionsLocked() {
	if len(s.actions) < 2*s.actionsKept+1024 {
		return
	}
	s.actionRound++ // internLocked marks with it from here on, so what feeds bring meanwhile is kept
	keep := func(act *action) {
		if act != nil && act != unknown {
			act.mark = s.actionRound
		}
	}
	s.eachLocked(func(_ key, e *entry) {
		keep(e.best.act)
		keep(e.have)
		for _, c := range e.rest {
			keep(c.act)
		}
	})
	for l, act := range s.resolved {
		if l.act.mark == s.actionRound {
			keep(act)
		} else {
			delete(s.resolved, l)
		}
	}
	for k, act := range s.actions {
		if act.mark != s.actionRound {
			delete(s.actions, k)
		}
	}
	s.actionsKept = len(s.actions)
}
