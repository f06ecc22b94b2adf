package fib

import (
	"container/heap"
	"errors"
	"time"
)

// queued is a key that waits for the worker, with the revision of the change that put it there.
type queued struct {
	key key
	rev uint64
}

// fifo is a queue that gives back its memory when it is empty.
type fifo struct {
	items []queued
	head  int
}

func (f *fifo) len() int      { return len(f.items) - f.head }
func (f *fifo) push(q queued) { f.items = append(f.items, q) }
func (f *fifo) front() queued { return f.items[f.head] }
func (f *fifo) pop() (q queued) {
	q = f.items[f.head]
	f.head++
	switch {
	case f.head == len(f.items):
		if cap(f.items) > 1<<12 {
			f.items = nil
		}
		f.items, f.head = f.items[:0], 0
	case f.head > 1<<12 && f.head > len(f.items)/2: // a queue that never empties must not grow for ever
		n := copy(f.items, f.items[f.head:])
		f.items, f.head = f.items[:n], 0
	}
	return q
}

// queueLocked puts a key that a feed changed in the queue, if it is in none.
func (s *Syncer) queueLocked(k key, e *entry) {
	s.setStateLocked(e, Queued)
	if !e.queued {
		e.queued = true
		s.queue.push(queued{k, s.rev})
	}
}

// urgentLocked puts a key before all that feeds change, if it is in no queue.
func (s *Syncer) urgentLocked(k key, e *entry) {
	s.setStateLocked(e, Queued)
	if !e.queued {
		e.queued = true
		s.urgent.push(queued{key: k})
	}
}

// trouble is why a key is Pending or Failed, and when it is tried again.
type trouble struct {
	key   key
	state State
	err   error
	tried *action // what was to be written; nil a deletion
	wait  time.Duration
	at    time.Time
	index int // in retries
}

// troubleLocked notes a failure; the wait doubles with each of the same key. What has found no room waits for some instead.
func (s *Syncer) troubleLocked(k key, e *entry, tried *action, st State, err error) {
	s.setStateLocked(e, st)
	if errors.Is(err, ErrFull) {
		s.healedLocked(k)
		s.troubles[k] = &trouble{key: k, state: st, err: err, tried: tried, index: -1}
		s.crowdLocked(k, e)
		return
	}
	t := s.troubles[k]
	if t == nil {
		t = &trouble{key: k, index: -1}
		s.troubles[k] = t
	}
	switch {
	case t.wait == 0 || t.tried != tried:
		t.wait = s.opt.MinBackoff
	default:
		t.wait = min(2*t.wait, s.opt.MaxBackoff)
	}
	t.state, t.err, t.tried, t.at = st, err, tried, time.Now().Add(t.wait)
	if t.index >= 0 {
		heap.Fix(&s.retries, t.index)
	} else {
		heap.Push(&s.retries, t)
	}
}

// retryLocked queues a troubled key. The trouble itself stays, for the next wait's length, until it is settled.
func (s *Syncer) retryLocked(k key) {
	t := s.troubles[k]
	if t.index >= 0 {
		heap.Remove(&s.retries, t.index)
	}
	if e := s.entries[k]; e != nil && !e.queued {
		s.setStateLocked(e, Queued)
		e.queued = true
		s.queue.push(queued{k, s.rev})
	}
}

func (s *Syncer) healedLocked(k key) {
	if t := s.troubles[k]; t != nil {
		if t.index >= 0 {
			heap.Remove(&s.retries, t.index)
		}
		delete(s.troubles, k)
	}
}

// crowdLocked lines up a key for which the dataplane had no room. There may be a million of them, so that they have no times to
// be tried again of their own: those in front are, when others have made room, and now and then.
func (s *Syncer) crowdLocked(k key, e *entry) {
	if e.waits {
		return
	}
	if s.crowd.len() == 0 {
		s.crowdAt = time.Now().Add(s.opt.MaxBackoff)
	}
	e.waits = true
	s.crowd.push(queued{key: k})
	if s.crowd.len() > 2*len(s.troubles)+lockChunk { // most have been forgotten
		for n := s.crowd.len(); n > 0; n-- {
			q := s.crowd.pop()
			if e := s.entries[q.key]; e != nil && e.waits {
				e.waits = false // once is enough
				s.crowd.push(q)
			}
		}
		for _, q := range s.crowd.items[s.crowd.head:] {
			s.entries[q.key].waits = true
		}
	}
}

// roomLocked queues up to n keys that wait for room.
func (s *Syncer) roomLocked(n int) {
	for n > 0 && s.crowd.len() > 0 {
		k := s.crowd.pop().key
		e := s.entries[k]
		if e == nil || !e.waits { // forgotten, and perhaps another entry since
			continue
		}
		e.waits = false
		if t := s.troubles[k]; t != nil && errors.Is(t.err, ErrFull) && !e.queued { // one that is queued may be withdrawn
			s.retryLocked(k)
			n--
		}
	}
}

// nextRetry queues what is due and returns how long until the next is; ok is false when there is none.
func (s *Syncer) nextRetry() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.decoupled {
		return 0, false
	}
	now := time.Now()
	if s.crowd.len() > 0 {
		if wait = s.crowdAt.Sub(now); wait <= 0 {
			wait = s.opt.MaxBackoff
			s.crowdAt = now.Add(wait)
			s.roomLocked(s.opt.Batch)
		}
		ok = true
	}
	until := wait
	for len(s.retries) > 0 {
		if wait = s.retries[0].at.Sub(now); wait > 0 {
			if ok {
				wait = min(wait, until)
			}
			return wait, true
		}
		s.retryLocked(s.retries[0].key)
	}
	return until, ok
}

// retryHeap has the next trouble to try again at its top.
type retryHeap []*trouble

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h retryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *retryHeap) Push(x any) {
	t := x.(*trouble)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *retryHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
