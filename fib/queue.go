package fib

import (
	"container/heap"
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

// troubleLocked notes a failure; the wait doubles with each of the same key.
func (s *Syncer) troubleLocked(k key, e *entry, tried *action, st State, err error) {
	s.setStateLocked(e, st)
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

// nextRetry queues what is due and returns how long until the next is; ok is false when there is none.
func (s *Syncer) nextRetry() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.retries) > 0 {
		if wait = s.retries[0].at.Sub(now); wait > 0 {
			return wait, true
		}
		s.retryLocked(s.retries[0].key)
	}
	return 0, false
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
