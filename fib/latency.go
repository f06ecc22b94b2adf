package fib

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How long a route takes from the peer's message to the dataplane's confirmation. Whoever receives a message with one route
// in it says so (Arrived), and the confirmation of that key's next write ends the measurement. Nothing of a route's way in
// between is told about it, so nothing can be left out: BGP's decision, the queue, the dataplane's own time, and the reply.

const (
	latencyKept   = 512              // the latest measurements
	latencyOpen   = 64               // at a time; in a flood a few are measured
	latencyExpire = 10 * time.Second // a message that changes no route is never confirmed
)

// Latency is how long single routes took from their arrival to the dataplane's confirmation.
type Latency struct {
	Count            uint64 // measurements since the start; the times are of the latest 512
	Median, P99, Max time.Duration
}

// stopwatch has a mutex of its own: messages arrive while the Syncer is busy.
type stopwatch struct {
	open atomic.Int32 // len(since), so that the worker need not lock for nothing

	mu    sync.Mutex
	since map[key]time.Time
	swept time.Time // when since was last freed of what has expired
	took  [latencyKept]time.Duration
	count uint64
}

// Arrived says that a peer's message with k alone arrived at that time. It never waits for the Syncer.
func (s *Syncer) Arrived(k Key, at time.Time) {
	id, ok := makeKey(k.Table, k.Prefix)
	if !ok {
		return
	}
	w := &s.stopwatch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since == nil {
		w.since = make(map[key]time.Time)
	}
	if len(w.since) >= latencyOpen && at.Sub(w.swept) > time.Second {
		w.swept = at
		for old, t := range w.since {
			if at.Sub(t) > latencyExpire {
				delete(w.since, old)
			}
		}
	}
	if len(w.since) < latencyOpen {
		w.since[id] = at
	}
	w.open.Store(int32(len(w.since)))
}

// confirmed ends the measurement of k, if there is one.
func (w *stopwatch) confirmed(k key) {
	if w.open.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.since[k]
	if !ok {
		return
	}
	delete(w.since, k)
	w.open.Store(int32(len(w.since)))
	if took := time.Since(at); took <= latencyExpire {
		w.took[w.count%latencyKept] = took
		w.count++
	}
}

// latency sums up.
func (w *stopwatch) latency() Latency {
	w.mu.Lock()
	l := Latency{Count: w.count}
	took := slices.Clone(w.took[:min(w.count, latencyKept)])
	w.mu.Unlock()
	if len(took) == 0 {
		return l
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1] } // nearest rank
	l.Median, l.P99, l.Max = at(50), at(99), took[len(took)-1]
	return l
}
