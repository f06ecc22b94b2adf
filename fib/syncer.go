package fib

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// The Syncer. Two sides share a map under a mutex:
//
//   - Feeds, from any goroutine, put their candidates into entries and queue the keys whose best candidate changed. They
//     never wait for the dataplane. A key is in the queue once, however often it flaps meanwhile.
//   - The worker, Run's goroutine, is the only one that talks to the target and the only one that sets what is held. It
//     dumps when that was asked for, then takes keys from the queue, compares, and writes differences by the batch, with
//     the mutex free while the target works.
//
// Everything that could go wrong in between ends in the same two steps: dump, and look at all keys again (see scan).
//
// The gates: (1) until a dump has succeeded since the latest Invalidate, nothing is written; (2) until every feed has said
// that it is complete, a route that the dataplane held before any feed wanted it (a left-over of an earlier life) stays.
// A route that a feed has wanted in this life and withdraws is no left-over: it is deleted at once.

// Options of NewSyncer. Zero values mean the defaults.
type Options struct {
	Target     Target
	Log        *logrus.Entry
	Batch      int           // changes in a call of Target.Apply; DefaultBatch
	MinBackoff time.Duration // wait after a route's first failure, and a failed dump's; doubled each time; 1 s
	MaxBackoff time.Duration // longest wait; 1 min
	Audit      time.Duration // how often the dataplane is read without a reason; 1 min; negative never. See Syncer.SetAudit
}

// DefaultBatch is how many changes go to the Target at once. Between batches the dataplane waits for us, and a lone change waits
// for a batch that is under way: VPP takes one of this size in some 40 ms.
const DefaultBatch = 8192

// Syncer makes what feeds want true in a Target. All methods may be called from any goroutine.
type Syncer struct {
	opt Options
	log *logrus.Entry

	wake    chan struct{} // one slot: there may be work
	stopped chan struct{} // closed when Run returns

	mu      sync.Mutex
	feeds   []*Feed // best first
	feedSeq int
	entries map[key]*entry
	rivals  int // candidates that are not their keys' best
	rev     uint64

	urgent fifo // keys that a scan or a lost connection put back: they count for every revision
	queue  fifo // keys that feeds changed, with the revision of the oldest such change; revisions ascend
	flight int  // keys taken from the queues and not settled
	oldest uint64
	// progress is closed and replaced whenever something settles.
	progress chan struct{}

	dumpAsked, dumpDone uint64 // Invalidate counts up the first; the gate is open while they are equal
	dumpErr             error
	dumpTook            time.Duration
	dumpAt              time.Time // when the latest one ended
	auditAsked          bool
	questions           []*question // of Resync, for the next dump
	drift               Drift
	audits              uint64

	decoupled      bool
	decoupledSince time.Time

	learner        *Feed
	learned        map[key]struct{} // the learner's keys
	learnedChanged func()

	resolveAsked bool // look all next hops up again: connected routes changed
	scanAsked    bool // look at all keys again: next hops moved, or all feeds are complete
	round        uint32
	shadows      map[key]struct{} // where a better source forwards, said the latest dump
	complete     bool             // all feeds are; false while there is none

	troubles map[key]*trouble
	retries  retryHeap
	crowd    fifo      // keys that the dataplane has no room for; those with entry.waits
	crowdAt  time.Time // when the first of them are tried again, whatever happens

	connected map[key]string     // interface by connected prefix
	resolved  map[lookup]*action // what resolveLocked found since connected last changed

	actions     map[string]*action
	actionRound uint32
	actionsKept int // after the latest sweepActions
	scratch     []byte
	hops        []NextHop

	states                                      [numStates]int
	dumps, written, deleted, refused, unanswers uint64

	stopwatch stopwatch
}

// NewSyncer makes a Syncer. Name its feeds, then Run it.
func NewSyncer(opt Options) *Syncer {
	if opt.Batch <= 0 {
		opt.Batch = DefaultBatch
	}
	if opt.MinBackoff <= 0 {
		opt.MinBackoff = time.Second
	}
	if opt.MaxBackoff <= 0 {
		opt.MaxBackoff = time.Minute
	}
	if opt.Audit == 0 {
		opt.Audit = time.Minute
	}
	if opt.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		opt.Log = logrus.NewEntry(l)
	}
	return &Syncer{
		opt: opt, log: opt.Log,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), progress: make(chan struct{}),
		entries: make(map[key]*entry), dumpAsked: 1,
		troubles:  make(map[key]*trouble),
		connected: make(map[key]string), resolved: make(map[lookup]*action),
		actions: make(map[string]*action),
	}
}

// Run makes wants true until ctx ends, which it answers with nil. It leaves the target's routes as they are. A Syncer runs
// once.
func (s *Syncer) Run(ctx context.Context) error {
	defer close(s.stopped)
	dumpWait, lostWait := s.opt.MinBackoff, time.Duration(0)
	for ctx.Err() == nil {
		want, why, wait := s.dumpNeeded()
		switch {
		case why != noReason && s.dump(ctx, want, why):
			dumpWait = s.opt.MinBackoff
			continue
		case why == doubt: // it failed
			// A second Invalidate (the dataplane is back) ends the wait.
			s.sleep(ctx, dumpWait, func() bool { return s.dumpAsked != want || len(s.questions) > 0 })
			dumpWait = min(2*dumpWait, s.opt.MaxBackoff)
			continue
		}
		s.resolveIfAsked()
		s.scanIfAsked()
		switch s.applyBatch(ctx) {
		case idle:
		case worked:
			continue
		case wrote:
			lostWait = 0
			continue
		case lost: // a dataplane that dies of what it is told is not told at once, from the second time on
			asked, _, _ := s.dumpNeeded()
			s.sleep(ctx, lostWait, func() bool { return lostWait == 0 || s.dumpAsked != asked })
			lostWait = min(max(2*lostWait, s.opt.MinBackoff), s.opt.MaxBackoff)
			continue
		}
		if retry, ok := s.nextRetry(); ok && (wait < 0 || retry < wait) {
			wait = retry
		}
		s.sleep(ctx, wait, s.hasWorkLocked)
	}
	return nil
}

// sleep returns after d (never, when d is negative), when ctx ends, or when until is true after somebody kicked.
func (s *Syncer) sleep(ctx context.Context, d time.Duration, until func() bool) {
	var timer <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	for {
		s.mu.Lock()
		done := until()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-s.wake:
		}
	}
}

func (s *Syncer) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Syncer) hasWorkLocked() bool {
	return s.dumpAsked != s.dumpDone || s.auditAsked || len(s.questions) > 0 || s.resolveAsked || s.scanAsked || s.urgent.len() > 0 || s.queue.len() > 0
}

// Invalidate says that the dataplane (re)connected, or that what it holds is doubted: it is dumped, and every difference
// written. Failed and pending routes are tried again at once.
func (s *Syncer) Invalidate() {
	s.mu.Lock()
	s.dumpAsked++
	s.mu.Unlock()
	s.kick()
}

// InterfacesChanged says that interfaces or tables appeared or went: pending routes are tried again.
func (s *Syncer) InterfacesChanged() {
	s.mu.Lock()
	for k, t := range s.troubles {
		if t.state == Pending {
			s.retryLocked(k)
		}
	}
	s.mu.Unlock()
	s.kick()
}

// Revision returns the latest one that a feed's method returned.
func (s *Syncer) Revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// WaitSynced waits until every change up to revision rev is settled: the dataplane has been dumped since it last
// (re)connected, and no key of such a change is queued or being written. Installed, deleted, shadowed, stale, pending and
// failed all count as settled; what became of a route, Get tells. While decoupled, it is enough that the key was looked at.
// Errors: ctx's, or ErrStopped.
func (s *Syncer) WaitSynced(ctx context.Context, rev uint64) error {
	return s.await(ctx, func() bool { return s.settledLocked(rev) })
}

// await returns nil as soon as done is, which it asks with the mutex held whenever something has settled. Errors: ctx's, or
// ErrStopped.
func (s *Syncer) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, progress := done(), s.progress
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopped:
			return ErrStopped
		}
	}
}

func (s *Syncer) settledLocked(rev uint64) bool {
	if s.dumpAsked != s.dumpDone || s.resolveAsked || s.scanAsked || s.urgent.len() > 0 {
		return false
	}
	if s.flight > 0 && s.oldest <= rev {
		return false
	}
	return s.queue.len() == 0 || s.queue.front().rev > rev
}

func (s *Syncer) progressLocked() {
	close(s.progress)
	s.progress = make(chan struct{})
}

// setStateLocked keeps the count of states.
func (s *Syncer) setStateLocked(e *entry, st State) {
	s.states[e.state]--
	s.states[st]++
	e.state = st
}

// entryLocked returns k's entry, made if need be.
func (s *Syncer) entryLocked(k key) *entry {
	e := s.entries[k]
	if e == nil {
		e = &entry{state: Queued}
		s.entries[k] = e
		s.states[Queued]++
	}
	return e
}

// forgetLocked drops an entry that nobody wants and the dataplane does not hold.
func (s *Syncer) forgetLocked(k key, e *entry) {
	s.states[e.state]--
	delete(s.entries, k)
}

// Status sums up.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Synced: s.dumpAsked == s.dumpDone, Err: s.dumpErr, Complete: s.complete, Revision: s.rev,
		Unsettled: s.urgent.len() + s.queue.len() + s.flight, Routes: len(s.entries), States: make(map[State]int),
		Decoupled: s.decoupledSince, Audits: s.audits, AuditEvery: s.auditEveryLocked(), Drift: s.drift.clone(),
		Learned: len(s.learned), Bytes: s.bytesLocked(),
		Dumps: s.dumps, DumpTook: s.dumpTook, Written: s.written, Deleted: s.deleted, Refused: s.refused, Unanswered: s.unanswers,
		Latency: s.stopwatch.latency(),
	}
	for i, n := range s.states {
		if n > 0 {
			st.States[State(i)] = n
		}
	}
	return st
}
