package vppagent_test

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.fd.io/govpp/binapi/bfd"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// bfdStates notes what a watcher is told.
type bfdStates struct {
	mu  sync.Mutex
	all []vppagent.BFDState
}

func (s *bfdStates) note(b vppagent.BFDState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, b)
}

func (s *bfdStates) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l []string
	for _, b := range s.all {
		l = append(l, b.String())
	}
	return strings.Join(l, " ")
}

// Two agents watch one another's dataplanes: sessions come up, change, end without a trace, and those of a router that died stay.
func TestBFD(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		dir, err := os.MkdirTemp("", "b")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		end := func(name string, role vppagent.MemifRole, addresses ...string) vppagent.Config {
			return vppagent.Config{Router: name, Interfaces: []vppagent.Interface{{
				Name: name, Memif: &vppagent.Memif{Socket: dir + "/cable.sock", Role: role}, Addresses: prefixes(addresses...), Enabled: true,
			}}}
		}
		far := start(t, dataplanetest.Start(t, dataplanetest.Embedded), end("right", vppagent.MemifMaster, "192.0.2.2/30", "fe80::2/64"))
		configured(t, far)
		cfg := end("left", vppagent.MemifSlave, "192.0.2.1/30", "fe80::1/64")
		near, stop := runAgent(t, d.APISocket, "", cfg)
		configured(t, near)
		eventually(t, "the link is up", func() bool { return len(near.Connected()) == 1 && len(far.Connected()) == 1 })

		want := func(iface, local, peer string, every time.Duration) vppagent.BFD {
			b := vppagent.BFD{Interface: iface, Peer: netip.MustParseAddr(peer), Interval: every, Multiplier: 3}
			if local != "" {
				b.Local = netip.MustParseAddr(local)
			}
			return b
		}
		const every = 50 * time.Millisecond
		var ours, theirs, linkLocal bfdStates
		stopNear := near.WatchBFD(want("", "", "192.0.2.2", every), ours.note)
		stopFar := far.WatchBFD(want("right", "192.0.2.2", "192.0.2.1", every), theirs.note)
		near.WatchBFD(want("left", "fe80::1%left", "fe80::2%left", every), linkLocal.note)
		far.WatchBFD(want("right", "", "fe80::1", every), func(vppagent.BFDState) {})
		up := func(a *vppagent.Agent) func() bool {
			return func() bool {
				n := 0
				for _, s := range a.BFDSessions() {
					if s.Err != nil {
						t.Fatal(s.Err)
					}
					if s.State == vppagent.BFDUp && s.Interface != "" && s.Local.IsValid() {
						n++
					}
				}
				return n == 2
			}
		}
		eventually(t, "both sessions are up", up(near))
		eventually(t, "and at the other side", up(far))
		if got := ours.text(); !strings.HasSuffix(got, "up") {
			t.Errorf("the watcher was told: %s", got)
		}

		client := bfd.NewServiceClient(alien(t, d.APISocket))
		dump := func() map[string]bfd.BfdUDPSessionDetails {
			t.Helper()
			stream, err := client.BfdUDPSessionDump(within(t), &bfd.BfdUDPSessionDump{})
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]bfd.BfdUDPSessionDetails{}
			for {
				s, err := stream.Recv()
				if err != nil {
					return all
				}
				all[binapi.FromAddress(s.PeerAddr).String()] = *s
			}
		}

		// Other timers: the session goes on.
		stopNear()
		near.WatchBFD(want("left", "192.0.2.1", "192.0.2.2", 2*every), ours.note)
		eventually(t, "the dataplane has other timers", func() bool { return dump()["192.0.2.2"].DesiredMinTx == 100_000 })
		eventually(t, "both sessions are up", up(near))

		// The far side ends its session: by order, which is quicker than any timer of it, and leaves none.
		before := len(strings.Fields(ours.text()))
		stopFar()
		eventually(t, "the end is told", func() bool {
			states := strings.Fields(ours.text())
			return len(states) > before && states[len(states)-1] == "down"
		})
		far.WatchBFD(want("right", "192.0.2.2", "192.0.2.1", every), theirs.note)
		eventually(t, "it comes up again", up(near))

		// A router dies; the one after it finds its sessions up.
		stop()
		if s := dump()["192.0.2.2"]; s.State != bfd.BFD_STATE_API_UP {
			t.Errorf("without a router a session is %s", s.State)
		}
		again, _ := runAgent(t, d.APISocket, "", cfg)
		configured(t, again)
		var third bfdStates
		stop1 := again.WatchBFD(want("left", "192.0.2.1", "192.0.2.2", 2*every), third.note)
		stop2 := again.WatchBFD(want("left", "fe80::1", "fe80::2", every), third.note)
		eventually(t, "they are known to be up", up(again))
		stop1()
		stop2()
		eventually(t, "what is not wanted goes", func() bool { return len(dump()) == 0 })

		again.WatchBFD(want("left9", "192.0.2.1", "192.0.2.2", every), third.note)
		again.WatchBFD(want("", "192.0.2.1", "198.51.100.2", every), third.note)
		eventually(t, "what cannot be is said", func() bool {
			l := again.BFDSessions()
			return len(l) == 2 && l[0].Err != nil && l[1].Err != nil && strings.Contains(l[0].Err.Error(), "on the link of no interface") &&
				strings.Contains(l[1].Err.Error(), "interface left9 is not there")
		})
	})
}
