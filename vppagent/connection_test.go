package vppagent_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// proxy stands between an agent and a dataplane, and breaks connections.
type proxy struct {
	socket string
	mu     sync.Mutex
	open   []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &proxy{socket: filepath.Join(dir, "s")}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("unix", to)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, c, d)
			p.mu.Unlock()
			for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
					pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
}

// TestConnectionDrops loses the connection to a dataplane that goes on forwarding: nothing of what is there changes.
func TestConnectionDrops(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		p := newProxy(t, d.APISocket)
		a, _ := runAgent(t, p.socket, "", site(d.Dir))
		changes := make(chan vppagent.Change, 100)
		a.Watch(func(c vppagent.Change) { changes <- c })
		s := syncer(t, a)
		first := configured(t, a)
		routes := []fib.Route{unicast(0, "10.2.0.0/16", hop("169.254.12.2", "tun12", 1)), blackhole("10.3.0.0/16")}
		s.wait(t, s.feed.Update(routes...))
		s.wait(t, s.feed.Complete())
		before := s.Status()
		connected := fmt.Sprint(a.Connected())
		for range 3 {
			p.cut()
			var attached *vppagent.Change
			eventually(t, "attached again", func() bool {
				if now := fmt.Sprint(a.Connected()); now != connected {
					t.Fatalf("connected routes %s, were %s", now, connected)
				}
				select {
				case c := <-changes:
					if c.Kind == vppagent.Detached {
						attached = new(vppagent.Change)
					} else if attached != nil && c.Kind == vppagent.Attached {
						attached = &c
						return true
					}
				default:
				}
				return false
			})
			if attached.NewInstance {
				t.Error("taken for another dataplane")
			}
			for name, i := range configured(t, a) {
				if i.SwIfIndex != first[name].SwIfIndex {
					t.Errorf("%s was made anew", name)
				}
			}
			s.wait(t, s.Revision())
			wantHeld(t, a, routes...)
		}
		if st := s.Status(); st.Written != before.Written || st.Deleted != 0 {
			t.Errorf("written %d and then %d, deleted %d", before.Written, st.Written, st.Deleted)
		}
	})
}

// TestEverythingAtOnce is for the race detector, and for what hangs: all methods, while configurations change and the
// connection breaks.
func TestEverythingAtOnce(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		p := newProxy(t, d.APISocket)
		a, _ := runAgent(t, p.socket, d.StatsSocket, site(d.Dir))
		s := syncer(t, a)
		configured(t, a)
		s.feed.Complete()
		stop := time.Now().Add(time.Second)
		var wg sync.WaitGroup
		loop := func(f func(n int)) {
			wg.Go(func() {
				for n := 0; time.Now().Before(stop); n++ {
					f(n)
				}
			})
		}
		expect := func(what string, err error) { // with the connection gone, only that
			if err != nil && !errors.Is(err, fib.ErrDisconnected) {
				t.Errorf("%s: %v", what, err)
			}
		}
		loop(func(n int) {
			time.Sleep(time.Duration(20+n%7*10) * time.Millisecond)
			p.cut()
		})
		loop(func(n int) {
			c := site(d.Dir)
			c.Interfaces = c.Interfaces[:2+n%3]
			c.Interfaces[0].MTU = 1400 + n%3
			a.SetConfig(c)
			time.Sleep(5 * time.Millisecond)
		})
		loop(func(int) {
			_, err := a.Interfaces(within(t))
			expect("Interfaces", err)
			_, err = a.FIB(within(t), vppagent.FIBFilter{})
			expect("FIB", err)
			_, err = a.Neighbors(within(t))
			expect("Neighbors", err)
			_, err = a.CLI(within(t), "show version")
			expect("CLI", err)
			a.Status()
			a.Errors()
			a.Addresses()
			a.Watch(func(vppagent.Change) {})()
		})
		loop(func(n int) {
			time.Sleep(100 * time.Microsecond)
			r := unicast(0, fmt.Sprintf("20.%d.%d.0/24", n/250%4, n%250), hop("169.254.12.2", "tun12", 1))
			if n%3 == 0 {
				s.feed.Withdraw(r.Key)
			} else {
				s.feed.Update(r)
			}
		})
		wg.Wait()
		a.SetConfig(site(d.Dir))
		configured(t, a)
		s.Invalidate()
		s.wait(t, s.Revision())
		var want []fib.Route
		s.Walk(func(e fib.Entry) bool {
			if len(e.Candidates) > 0 && e.Candidates[0].Feed == "static" {
				want = append(want, e.Best)
				if e.State != fib.Installed {
					t.Errorf("%v is %v (%v)", e.Key, e.State, e.Err)
				}
			}
			return true
		})
		wantHeld(t, a, want...)
	})
}
