package vppagent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/memif"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// TestSomebodyElseDeletes deletes an interface of ours behind our back: it comes back, and so do the routes over it.
func TestSomebodyElseDeletes(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		s := syncer(t, a)
		before := configured(t, a)
		route := unicast(0, "10.2.0.0/16", hop("fe80::2", "tun12", 1))
		other := unicast(0, "10.3.0.0/16", hop("fe80::2", "tun13", 1))
		rev := s.feed.Update(route, other)
		s.wait(t, rev)
		wantHeld(t, a, route, other)

		conn := alien(t, d.APISocket)
		index := interface_types.InterfaceIndex(before["tun12"].SwIfIndex)
		if _, err := memif.NewServiceClient(conn).MemifDelete(within(t), &memif.MemifDelete{SwIfIndex: index}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "tun12 is back", func() bool {
			i, err := a.Interfaces(within(t))
			return err == nil && slices.ContainsFunc(i, func(i vppagent.InterfaceStatus) bool {
				return i.Name == "tun12" && i.State == vppagent.Configured && i.DataplaneName != "" && i.MTU == 1420
			})
		})
		configured(t, a)
		eventually(t, "the routes are back", func() bool {
			e, _ := s.Get(route.Key)
			h := held(t, a)[route.Key]
			return e.State == fib.Installed && h.Equal(route)
		})
		wantHeld(t, a, route, other)
		if s.Status().Refused != 0 {
			t.Errorf("%+v", s.Status())
		}
	})
}

// following is a fib.Syncer that is wired to an agent as cmd/rlr does it.
type following struct {
	*fib.Syncer
	feed, direct *fib.Feed
}

func syncer(t *testing.T, a *vppagent.Agent) *following {
	t.Helper()
	s := &following{Syncer: fib.NewSyncer(fib.Options{Target: a, MinBackoff: 20 * time.Millisecond, Audit: -1})}
	s.feed, s.direct = s.Feed("static", 200), s.Feed("direct", 240)
	s.Learn("learned", 10, nil)
	t.Cleanup(a.Watch(func(c vppagent.Change) {
		switch c.Kind {
		case vppagent.Attached, vppagent.RoutesChanged:
			s.Invalidate()
		case vppagent.InterfacesChanged:
			s.direct.Replace(a.Reachable())
			s.InterfacesChanged()
		}
	}))
	s.direct.Replace(a.Reachable())
	s.direct.Complete()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Syncer.Run: %v", err)
		}
	})
	return s
}

func (s *following) wait(t *testing.T, rev uint64) {
	t.Helper()
	if err := s.WaitSynced(within(t), rev); err != nil {
		t.Fatalf("WaitSynced: %v; %+v", err, s.Status())
	}
}

// TestRouterRestarts leaves routes in the dataplane, as a crash would, and sees the next life take them over.
func TestRouterRestarts(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		var routes []fib.Route
		for i := range 2000 {
			routes = append(routes, unicast(0, fmt.Sprintf("20.%d.%d.0/24", i/250, i%250), hop("169.254.12.2", "tun12", 1)))
		}
		a, stop := runAgent(t, d.APISocket, d.StatsSocket, site(d.Dir))
		configured(t, a)
		wantHeld(t, a)
		write(t, a, false, routes...)
		stop()

		a = start(t, d, site(d.Dir))
		s := syncer(t, a)
		configured(t, a)
		gone, changed := routes[0], routes[1]
		changed.NextHops = []fib.NextHop{hop("169.254.12.2", "tun12", 1), hop("fe80::2", "tun13", 1)}
		s.wait(t, s.feed.Update(append([]fib.Route{changed}, routes[2:]...)...))
		if e, _ := s.Get(gone.Key); e.State != fib.Stale {
			t.Errorf("a route that nobody has wanted yet is %v", e.State)
		}
		if st := s.Status(); st.Written != 1 || st.Deleted != 0 {
			t.Errorf("written %d, deleted %d; want only the difference", st.Written, st.Deleted)
		}
		s.wait(t, s.feed.Complete())
		wantHeld(t, a, append([]fib.Route{changed}, routes[2:]...)...)
		if st := s.Status(); st.Written != 1 || st.Deleted != 1 {
			t.Errorf("written %d, deleted %d", st.Written, st.Deleted)
		}
	})
}

// TestDataplaneRestarts replaces the dataplane under a running router: everything is built again.
func TestDataplaneRestarts(t *testing.T) {
	for _, kind := range []dataplanetest.Kind{dataplanetest.Embedded, dataplanetest.VPP} {
		t.Run(string(kind), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "r")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "api.sock")
			var a *vppagent.Agent
			var s *following
			attached := make(chan bool, 100)
			var pid uint32
			routes := []fib.Route{
				unicast(0, "10.2.0.0/16", hop("169.254.12.2", "tun12", 1)), unicast(10, "fd42:2::/48", hop("fd42:10::9", "eth1", 1)),
				blackhole("10.3.0.0/16"),
			}
			for life := range 3 {
				t.Run(fmt.Sprint("life", life), func(t2 *testing.T) {
					d := dataplanetest.Start(t2, kind)
					_ = os.Remove(socket)
					if err := os.Symlink(d.APISocket, socket); err != nil {
						t2.Fatal(err)
					}
					if a == nil {
						a, _ = runAgent(t, socket, "", site(dir))
						a.Watch(func(c vppagent.Change) {
							if c.Kind == vppagent.Attached {
								attached <- c.NewInstance
							}
						})
						s = syncer(t, a)
						s.feed.Update(routes...)
						s.feed.Complete()
					}
					configured(t2, a)
					s.wait(t2, s.Revision())
					wantInterfaces(t2, statuses(t2, a), map[string]string{"tun12": "memif ok", "tun13": "memif ok", "dum0": "loopback ok", "eth1": "memif ok"})
					wantHeld(t2, a, routes...)
					if kind == dataplanetest.VPP {
						if now := a.Status().PID; now == pid || !<-attached {
							t2.Errorf("process %d taken for the one of before", now)
						}
						pid = a.Status().PID
						if life == 1 { // without a word
							if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
								t2.Fatal(err)
							}
						}
					}
				})
				if t.Failed() || a == nil {
					return // no VPP, for instance
				}
				eventually(t, "the end is noticed", func() bool { return !a.Status().Connected })
				if err := a.Status().Err; err == nil {
					t.Error("no reason for the end")
				}
				if errs := a.Apply(within(t), []fib.Change{{Route: blackhole("10.9.0.0/16")}}); !errors.Is(errs[0], fib.ErrDisconnected) {
					t.Errorf("Apply without a dataplane: %v", errs)
				}
				if i, err := a.Interfaces(within(t)); err != nil || len(i) != 4 || i[0].State != vppagent.Pending {
					t.Errorf("Interfaces without a dataplane: %+v, %v", i, err)
				}
			}
		})
	}
}
