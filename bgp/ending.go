package bgp

import (
	"os"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is the end of a session, by whomever: the peer is told why, and GoBGP so that it does with the peer's routes what it should.

// ending is why we end a session: with a NOTIFICATION of ours, or, without a code, after one of the peer's.
type ending struct {
	code, subcode uint8
	data          []byte
	text          string        // what the operator reads; "": what the NOTIFICATION says
	rest          time.Duration // for which the peer is left alone afterwards
}

// finish tells the peer why the session ends, if it does not know.
func (s *session) finish(w *wire, e *ending) {
	if e.code == 0 {
		return
	}
	msg := notification(e.code, e.subcode, e.data)
	text := e.text
	if text == "" {
		text = s.watch.sessionNotice(true, msg[headerLen:])
	}
	if e.rest > 0 {
		s.watch.sessionRests(e.rest)
	}
	s.setCause(text)
	_ = w.send(msg) // the peer may be gone, and then needs none
	w.close()
}

// lose ends an established session whose wire is of no use any more. GoBGP sits in Idle for 5 seconds after any end of a
// session but one: a reset that it was asked for. So it is asked for one, and its NOTIFICATION goes nowhere. Where the watcher
// does not want that, GoBGP gets the error.
//
// It also gets the error where that makes it keep the peer's routes: graceful restart is for a connection that broke, not for
// a session that one side ended by a NOTIFICATION (RFC 4724 §4). GoBGP cannot tell the two apart in an error, so for the latter
// the reset is then a must.
func (s *session) lose(err error, notice bool) error {
	s.mu.Lock()
	s.lost = true
	closed, must := s.sawClose, s.terms.forced
	if !closed {
		s.graceful = !notice && !s.ceased && len(s.terms.kept) > 0 && s.confirmed.Load()
	}
	graceful := s.graceful
	s.mu.Unlock()
	if graceful && !closed {
		s.watch.sessionKept()
		return err
	}
	select {
	case <-s.ended: // by us, or GoBGP knows
		return err
	default:
	}
	if closed || !s.confirmed.Load() || !s.watch.sessionLost(must) {
		return err
	}
	for { // for as long as GoBGP takes: it has the order, and an error that overtakes it would mean a graceful restart
		s.mu.Lock()
		told := !s.readBy.IsZero()
		s.mu.Unlock()
		if told { // GoBGP wants its reader back: it is about to end the session
			return os.ErrDeadlineExceeded
		}
		select {
		case <-s.ended:
			return err
		case <-s.kick:
		}
	}
}

// failed notes that nothing can be written on an established session's wire. Its reader finds it closed, so that all ends go one way.
func (s *session) failed(w *wire, err error) {
	s.mu.Lock()
	s.setCauseLocked(connErrorText(err))
	s.lost = true
	s.mu.Unlock()
	w.close()
}

// cease ends the session with a NOTIFICATION of ours; GoBGP's reader finds it ended. local is what the operator reads.
func (s *session) cease(work *sync.WaitGroup, subcode uint8, data []byte, local string) {
	s.setCause(local)
	s.mu.Lock()
	wires, chosen := slices.Clone(s.wires), s.chosen
	first := chosen == nil || chosen.hold()
	if first { // before the peer can close the connection for it
		s.ceased = chosen != nil && s.terms.forced && s.confirmed.Load()
		if !s.ceased { // else lose sees to it
			s.endLocked()
		}
	}
	s.mu.Unlock()
	for _, w := range wires {
		w.refuse(work, bgp.BGP_ERROR_CEASE, subcode, data)
	}
	if chosen != nil && first {
		chosen.part(work, notification(bgp.BGP_ERROR_CEASE, subcode, data))
	}
}

// hangUp makes GoBGP's reads fail. GoBGP then closes the session, which is reported.
func (s *session) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
	if s.chosen != nil {
		s.chosen.close()
	}
}

// overLocked reports whether we have ended the session: GoBGP is to read no more.
func (s *session) overLocked() bool {
	select {
	case <-s.ended:
		return true
	default:
		return s.ceased
	}
}

func (s *session) endLocked() {
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
}
