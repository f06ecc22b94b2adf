package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rlr/hoststack"
)

// frailStack is a kernelStack whose connections can be broken from below, as they are when a process is killed.
type frailStack struct {
	kernelStack
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (s *frailStack) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	c, err := s.kernelStack.Dial(ctx, e)
	return s.keep(c, err)
}

func (s *frailStack) Listen(ctx context.Context, table uint32, local netip.AddrPort) (net.Listener, error) {
	l, err := s.kernelStack.Listen(ctx, table, local)
	return frailListener{l, s}, err
}

type frailListener struct {
	net.Listener
	stack *frailStack
}

func (l frailListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return l.stack.keep(c, err)
}

func (s *frailStack) keep(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	if s.dead {
		c.Close()
	}
	return c, nil
}

// kill closes all connections, and those that come.
func (s *frailStack) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	for _, c := range s.conns {
		c.Close()
	}
}

func birdNeighbor() Neighbor {
	return Neighbor{
		Name: "bird", Address: a("127.0.0.2"), LocalAddress: a("127.0.0.1"), AS: 65002, Multihop: true,
		Families: both, NextHop6: a("fd00:99::1"), HoldTime: 30 * time.Second,
	}
}

// birdRouter is a router beside bird.
func birdRouter(t *testing.T, stack hoststack.Stack, change func(*Neighbor)) *testRouter {
	t.Helper()
	n, feed := birdNeighbor(), newRecorder()
	if change != nil {
		change(&n)
	}
	s, err := New(Options{
		Config: Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{n}},
		Stack:  stack, Feed: feed, Log: testLog(t, "r1"), Outlived: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &testRouter{Speaker: s, t: t, name: "r1", feed: feed}
}

// wantBird waits until an answer of BIRD's has all of these.
func (b *bird) want(command string, all ...string) {
	b.t.Helper()
	eventually(b.t, 15*time.Second, func() string {
		got := b.ask(command)
		for _, w := range all {
			if !strings.Contains(got, w) {
				return fmt.Sprintf("bird says no %q in\n%s", w, got)
			}
		}
		return ""
	})
}

const (
	bird4 = "10.2.0.0/24 via 10.99.0.2"
	bird6 = "fd00:2::/64 via fd00:99::2"
)

// BIRD is killed and comes back, with one route less; its others stay all the while.
func TestBirdRestarts(t *testing.T) {
	b, stack := newBird(t, "graceful restart yes; graceful restart time 60;")
	r := birdRouter(t, stack, nil)
	start(t, r)
	b.start()
	r.established()
	r.wantFeed(bird4, bird6)
	if g := r.session("bird").Graceful; !g.Aware || len(g.Families) != 2 || g.RestartTime != time.Minute {
		t.Errorf("%+v", g)
	}
	b.kill()
	r.wantHelping("bird", 2)
	b.change("route fd00:2::/64 blackhole;", "")
	b.start("-R")
	r.established()
	r.wantFeed(bird4)
	eventually(t, 5*time.Second, func() string {
		if s := r.session("bird"); s.Graceful.Helping || s.State != Established {
			return fmt.Sprintf("%s, %+v", s.State, s.Graceful)
		}
		return ""
	})
	if lost, _ := r.feed.counts(); lost != 1 {
		t.Errorf("%d routes were withdrawn", lost)
	}
	// It is stopped in earnest.
	b.ask("down")
	r.wantFeed()
}

// change replaces a text in BIRD's configuration.
func (b *bird) change(from, to string) {
	b.t.Helper()
	path := filepath.Join(b.dir, "bird.conf")
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		b.t.Fatalf("bird.conf has no %q", from)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// We are killed, or restarted by command, while BIRD keeps our routes; it is told that we have preserved ours, and drops what
// we do not announce any more.
func TestRestartBesideBird(t *testing.T) {
	for _, how := range []string{"killed", "restart"} {
		t.Run(how, func(t *testing.T) {
			b, kernel := newBird(t, "")
			stack := &frailStack{kernelStack: kernel}
			old := birdRouter(t, stack, nil)
			start(t, old)
			old.originate("10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64")
			b.start()
			old.established()
			b.want("show route protocol r1", "10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64")
			old.wantFeed(bird4, bird6)
			if how == "killed" {
				stack.kill()
			} else {
				old.Leave()
			}
			old.stop()
			b.want("show protocols all r1", "Neighbor graceful restart active")
			b.want("show route protocol r1", "10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64")

			r := birdRouter(t, kernel, nil)
			r.Resume()
			r.originate("10.1.0.0/24", "fd00:1::/64")
			start(t, r)
			r.established()
			b.want("show protocols all r1", "Restart recovery", "AF preserved: ipv4 ipv6")
			r.wantFeed(bird4, bird6)
			eventually(t, 5*time.Second, func() string {
				lost, complete := r.feed.counts()
				if got := b.ask("show route protocol r1"); complete != 1 || lost != 0 || strings.Contains(got, "10.1.1.0/24") ||
					!strings.Contains(got, "10.1.0.0/24") || !strings.Contains(got, "fd00:1::/64") {
					return fmt.Sprintf("%d lost, %d times complete, bird has\n%s", lost, complete, got)
				}
				return ""
			})
			r.stop()
			eventually(t, 5*time.Second, func() string {
				if got := b.ask("show route protocol r1"); strings.Contains(got, "10.1.0.0/24") {
					return "we have stopped, and bird has still\n" + got
				}
				return ""
			})
		})
	}
}

// BIRD keeps our routes for as long as we ask it to, as a last resort.
func TestLongLivedBesideBird(t *testing.T) {
	b, kernel := newBird(t, "long lived graceful restart yes; long lived stale time 40; graceful restart yes; graceful restart time 1;")
	stack := &frailStack{kernelStack: kernel}
	r := birdRouter(t, stack, func(n *Neighbor) {
		n.Graceful = GracefulRestart{RestartTime: time.Second, LongLived: time.Minute}
	})
	start(t, r)
	r.originate("10.1.0.0/24")
	b.start()
	r.established()
	r.wantFeed(bird4, bird6)
	if g := r.session("bird").Graceful; g.LongLived != 40*time.Second {
		t.Errorf("%+v", g)
	}
	b.want("show protocols all r1", "Long-lived graceful restart", "LL stale time: 60")
	b.kill()
	eventually(t, 10*time.Second, func() string {
		if g := r.session("bird").Graceful; !g.LastResort || g.Stale != 2 {
			return fmt.Sprintf("%+v", g)
		}
		return ""
	})
	r.wantFeed(bird4, bird6)
	b.start("-R")
	r.established()
	eventually(t, 10*time.Second, func() string {
		if g := r.session("bird").Graceful; g.Helping {
			return fmt.Sprintf("%+v", g)
		}
		return ""
	})
	r.wantFeed(bird4, bird6)
	b.want("show route protocol r1", "10.1.0.0/24")
	stack.kill()
	b.want("show route protocol r1 all", "10.1.0.0/24", "(65535,6)") // LLGR_STALE
}

// Both sides ask for routes again, and answer.
func TestRefreshBird(t *testing.T) {
	b, stack := newBird(t, "")
	r := birdRouter(t, stack, nil)
	start(t, r)
	r.originate("10.1.0.0/24")
	b.start()
	r.established()
	r.wantFeed(bird4, bird6)
	p := r.peerByAddr(a("127.0.0.2"))
	lastUpdate := func() time.Time {
		p.status.mu.Lock()
		defer p.status.mu.Unlock()
		return p.status.lastUpdate()
	}
	before := lastUpdate()
	if err := r.Reset("bird", ResetSoftIn); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() string {
		if !lastUpdate().After(before) {
			return "no UPDATE came"
		}
		return ""
	})
	b.want("show route protocol r1", "10.1.0.0/24")
	imports := func() string {
		_, rest, _ := strings.Cut(b.ask("show protocols all r1"), "Import updates:")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	old := imports()
	b.ask("reload in r1")
	eventually(t, 5*time.Second, func() string {
		if now := imports(); now == old || now == "" {
			return "bird counts" + now
		}
		return ""
	})
	for range 2 { // what came twice is there once
		r.wantFeed(bird4, bird6)
		b.want("show route protocol r1", "10.1.0.0/24")
	}
	if s := r.session("bird"); s.Flaps != 0 || s.Received != 2 {
		t.Errorf("%d flaps, %d received", s.Flaps, s.Received)
	}
}
