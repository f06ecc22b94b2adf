package bgp

import (
	"context"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file sees to it that a new session misses no route.
//
// GoBGP v4.8.0 sends a new session its table first, and notes after that that the session is established
// (BgpServer.handleFSMMessage, and fsm.state.Store behind it). A route that changes in between is sent to established sessions
// only, and is not in what was taken from the table either: the neighbour never hears of it. So where a best path has changed in
// that time, everything is announced to the neighbour once more.

const (
	// storeTime is how long GoBGP may take from telling of the new state to noting it.
	storeTime = 100 * time.Millisecond
	// missedWait is how long after a session's beginning the events of that time are all here.
	missedWait = time.Second
)

// missed looks for changes at the beginnings of sessions, by the times that GoBGP's events bear. The events come in order.
type missed struct {
	mu        sync.Mutex
	changed   time.Time // when a best path changed last
	confirmed map[*peer]time.Time
	beginning map[*peer]*beginning
	begun     chan struct{} // holds one when there is a new beginning
}

// beginning is a session's, from its OpenConfirm to when GoBGP has noted that it is established.
type beginning struct {
	end     time.Time
	judge   time.Time // when what happened until the end is known
	changed bool
}

func newMissed() *missed {
	return &missed{confirmed: map[*peer]time.Time{}, beginning: map[*peer]*beginning{}, begun: make(chan struct{}, 1)}
}

// change notes that a best path changed.
func (m *missed) change(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = at
	for _, b := range m.beginning {
		b.changed = b.changed || at.Before(b.end)
	}
}

// state notes a session's new state.
func (m *missed) state(p *peer, s bgp.FSMState, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch s {
	case bgp.BGP_FSM_OPENCONFIRM:
		m.confirmed[p] = at
	case bgp.BGP_FSM_ESTABLISHED:
		m.beginning[p] = &beginning{
			end: at.Add(storeTime), judge: time.Now().Add(missedWait), changed: !m.changed.Before(m.confirmed[p]),
		}
		select {
		case m.begun <- struct{}{}:
		default:
		}
	default:
		delete(m.confirmed, p)
		delete(m.beginning, p)
	}
}

// judge forgets the beginnings that are known by now, and returns whose neighbour may have missed something. wait is how long it
// is until the next one is known; negative: there is none.
func (m *missed) judge(now time.Time) (who []*peer, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait = -1
	for p, b := range m.beginning {
		left := b.judge.Sub(now)
		switch {
		case left > 0 && (wait < 0 || left < wait):
			wait = left
		case left > 0:
		default:
			delete(m.beginning, p)
			if b.changed {
				who = append(who, p)
			}
		}
	}
	return who, wait
}

// makeUp announces everything once more to neighbours that may have missed something, until ctx ends.
func (r *running) makeUp(ctx context.Context, log *logrus.Entry) {
	for {
		who, wait := r.missed.judge(time.Now())
		for _, p := range who {
			if err := r.softReset(p, api.ResetPeerRequest_DIRECTION_OUT); err != nil {
				log.WithError(err).Warn("routes that changed at a session's beginning may be unknown to the neighbor")
			}
		}
		var next <-chan time.Time
		if wait >= 0 {
			next = time.After(wait)
		}
		select {
		case <-next:
		case <-r.missed.begun:
		case <-ctx.Done():
			return
		}
	}
}
