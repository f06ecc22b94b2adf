package bgp

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// stopper stops GoBGP where it writes a message to the log, which it does with everything locked.
type stopper struct {
	message string
	armed   atomic.Bool
	stopped chan struct{}
	resume  chan struct{}
	once    sync.Once
}

func (s *stopper) Levels() []logrus.Level { return logrus.AllLevels }

func (s *stopper) Fire(e *logrus.Entry) error {
	if s.armed.Load() && strings.Contains(e.Message, s.message) {
		s.once.Do(func() { close(s.stopped) })
		<-s.resume
	}
	return nil
}

// Sessions answers while GoBGP does not, and says of which figures it knows nothing.
func TestSessionsWhileBusy(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
	stop := &stopper{message: "Accepted a new passive connection", stopped: make(chan struct{}), resume: make(chan struct{})}
	r1.log.Logger.SetLevel(logrus.TraceLevel)
	r1.log.Logger.AddHook(stop)
	resume := sync.OnceFunc(func() { close(stop.resume) })
	start(t, r1)
	t.Cleanup(resume)
	p := dialRaw(t, node, "169.254.0.1")
	p.establishAs(restarter(60, 0)...)
	p.send(announce4("10.2.0.0/24"))
	p.send(endOfRIB(both))
	r1.wantFeed(raw4)
	if s := r1.session("raw"); s.Received != 1 || time.Since(s.Counted) > answerWithin {
		t.Errorf("%d received, counted %s ago", s.Received, time.Since(s.Counted))
	}
	p.conn.Close()
	r1.wantHelping("raw", 1)
	stop.armed.Store(true)
	again := dialRaw(t, node, "169.254.0.1")
	_, _ = again.conn.Write(rawOpen(65002, "10.2.0.1", restarter(60, restarted|preserved)...))
	select {
	case <-stop.stopped:
	case <-time.After(20 * time.Second):
		t.Fatal("GoBGP has logged nothing of the connection")
	}
	for range 3 {
		began := time.Now()
		s := r1.session("raw")
		if d := time.Since(began); d > 4*answerWithin {
			t.Errorf("an answer took %s", d)
		}
		// The figure is of the latest look, in this same time without a session, and it says so.
		if s.State == Established || !s.Graceful.Helping || s.Graceful.Stale != 1 || s.Counted.IsZero() || !s.Counted.Before(began) {
			t.Errorf("%s, %+v, counted %s before", s.State, s.Graceful, began.Sub(s.Counted))
		}
	}
	resume()
	again.expect(bgp.BGP_MSG_OPEN)
	again.send(keepalive)
	again.expect(bgp.BGP_MSG_KEEPALIVE)
	again.send(announce4("10.2.0.0/24"))
	again.send(announce4("10.2.1.0/24"))
	again.send(endOfRIB(both))
	r1.wantFeed(raw4, raw41)
	eventually(t, 5*time.Second, func() string {
		if s := r1.session("raw"); s.State != Established || s.Received != 2 || s.Counted.IsZero() {
			return fmt.Sprintf("%s, %d received, counted %s", s.State, s.Received, s.Counted)
		}
		return ""
	})
}

// What was counted of one session is not told of the next.
func TestCountsOfAnotherSession(t *testing.T) {
	r1, node, _, p := grSite(t, restarter(60, 0), nil)
	if s := r1.session("raw"); s.Received != 3 {
		t.Fatalf("%d received", s.Received)
	}
	c := &r1.running.counter
	never := make(chan struct{})
	c.mu.Lock()
	c.busy = never // GoBGP does not answer any more
	c.mu.Unlock()
	p.conn.Close()
	eventually(t, 5*time.Second, func() string {
		if s := r1.session("raw"); s.State == Established || !s.Graceful.Helping || !s.Counted.IsZero() || s.Graceful.Stale != 0 {
			return fmt.Sprintf("%s, %+v, counted %s", s.State, s.Graceful, s.Counted)
		}
		return ""
	})
	dialRaw(t, node, "169.254.0.1").establishAs(restarter(60, restarted|preserved)...)
	eventually(t, 5*time.Second, func() string {
		if s := r1.session("raw"); s.State != Established || !s.Counted.IsZero() || s.Received != 0 || s.HoldTime != 0 {
			return fmt.Sprintf("%s, %d received, counted %s", s.State, s.Received, s.Counted)
		}
		return ""
	})
}
