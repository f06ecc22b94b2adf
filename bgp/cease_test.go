package bgp

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// halfPipe is a connection whose peer reads what it is told and never closes.
type halfPipe struct{ net.Conn }

func (halfPipe) CloseWrite() error { return nil }

// gobgpStub is a peer's goroutine and GoBGP in one: it takes the order to end a session as GoBGP does.
type gobgpStub struct {
	s     *session
	asked bool
}

func (*gobgpStub) sessionTaken(*session)               {}
func (*gobgpStub) sessionConfirmed(*session)           {}
func (*gobgpStub) sessionKept()                        {}
func (*gobgpStub) sessionRefresh(*session)             {}
func (*gobgpStub) sessionEnded(*session, bool, string) {}
func (*gobgpStub) sessionNotice(bool, []byte) string   { return "" }
func (*gobgpStub) sessionRests(time.Duration)          {}

func (g *gobgpStub) sessionLost(bool) bool {
	g.asked = true
	go func() { _ = g.s.SetReadDeadline(time.Now()) }()
	return true
}

// GoBGP learns at once that we ended a session, whatever the peer does with its side of the connection: a hold timer that ends
// first would make GoBGP keep the routes. And where that must not look like a connection that broke, it does not.
func TestCeaseNeedsNoPeer(t *testing.T) {
	for _, forced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ours, peers := net.Pipe()
			defer peers.Close()
			var work sync.WaitGroup
			work.Go(func() {
				for b := make([]byte, 4096); ; {
					if _, err := peers.Read(b); err != nil {
						return
					}
				}
			})
			w := newWire(halfPipe{ours}, true)
			w.early = rawOpen(65002, "10.2.0.1", bothFamilies()...)
			gobgp := &gobgpStub{}
			s := newSession(a("10.2.0.1"), w, gobgp, func() (bool, bool) { return false, false }, NoRole)
			gobgp.s = s
			work.Go(func() { w.read(func([]byte, error) {}, func(string) {}) })
			synctest.Wait()
			w.first = w.early
			s.choose(w, terms{forced: forced}, nil, nil)
			read := make(chan error)
			go func() {
				for b := make([]byte, 4096); ; {
					if _, err := s.Read(b); err != nil {
						read <- err
						return
					}
				}
			}()
			_, _ = peers.Write(keepalive)
			synctest.Wait()
			begun := time.Now()
			s.cease(&work, ceaseReset, nil, "reset")
			err := <-read
			if took := time.Since(begun); took != 0 {
				t.Errorf("forced=%v: GoBGP learns it after %v", forced, took)
			}
			if timeout, _ := err.(net.Error); gobgp.asked != forced || forced != (timeout != nil && timeout.Timeout()) {
				t.Errorf("forced=%v: GoBGP was asked for a reset: %v, reads %v", forced, gobgp.asked, err)
			}
			expired := notification(bgp.BGP_ERROR_HOLD_TIMER_EXPIRED, 0, nil)
			if _, err := s.Write(expired); forced && err == nil {
				t.Error("a hold timer that ends now makes it a graceful restart")
			}
			_ = s.Close()
			work.Wait() // part's goroutine among them
			if took := time.Since(begun); took != writeWait {
				t.Errorf("forced=%v: the connection stayed for %v", forced, took)
			}
		})
	}
}
