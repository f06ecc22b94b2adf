package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

const (
	restarted = 1 << iota // the R bit
	preserved             // the F bits
)

// grCaps are the capabilities of a peer that can restart, with its restart time in seconds.
func grCaps(seconds uint16, bits int, families ...bgp.Family) []bgp.ParameterCapabilityInterface {
	var tuples []*bgp.CapGracefulRestartTuple
	for _, f := range families {
		tuples = append(tuples, bgp.NewCapGracefulRestartTuple(f, bits&preserved != 0))
	}
	return append(bothFamilies(), bgp.NewCapGracefulRestart(bits&restarted != 0, false, seconds, tuples))
}

func restarter(seconds uint16, bits int) []bgp.ParameterCapabilityInterface {
	return grCaps(seconds, bits, bgp.RF_IPv4_UC, bgp.RF_IPv6_UC)
}

// establishAs does the handshake with these capabilities, and returns what our OPEN said.
func (p *rawPeer) establishAs(caps ...bgp.ParameterCapabilityInterface) grOffer {
	p.t.Helper()
	p.send(rawOpen(65002, "10.2.0.1", caps...))
	open := parseOpen(message(bgp.BGP_MSG_OPEN, p.expect(bgp.BGP_MSG_OPEN)))
	p.send(keepalive)
	p.expect(bgp.BGP_MSG_KEEPALIVE)
	return open.gr
}

// establishSoon connects until it gets an OPEN.
func establishSoon(t *testing.T, node *hoststacktest.Node, nic, remote string, caps ...bgp.ParameterCapabilityInterface) (offer grOffer) {
	t.Helper()
	eventually(t, 15*time.Second, func() string {
		p := dialRawOn(t, node, nic, remote)
		_, _ = p.conn.Write(rawOpen(65002, "10.2.0.1", caps...)) // it may be closed already
		typ, body, err := p.read(10 * time.Second)
		if err != nil || typ != bgp.BGP_MSG_OPEN {
			return fmt.Sprintf("message of type %d, %v", typ, err)
		}
		offer = parseOpen(message(typ, body)).gr
		return ""
	})
	return offer
}

// announce4 and announce6 are UPDATEs.
func announce4(prefix string) []byte { return reach(bgp.AFI_IP, a("169.254.0.2").AsSlice(), prefix) }
func announce6(prefix string) []byte { return reach(bgp.AFI_IP6, b16("fd00::2"), prefix) }

const (
	raw4  = "10.2.0.0/24 via 169.254.0.2"
	raw41 = "10.2.1.0/24 via 169.254.0.2"
	raw6  = "fd00:2::/64 via fd00::2"
)

// grSite is a router whose neighbour raw has announced three routes, and their end.
func grSite(t *testing.T, caps []bgp.ParameterCapabilityInterface, change func(*Config)) (*testRouter, *hoststacktest.Node, *hoststacktest.Link, *rawPeer) {
	t.Helper()
	r1, node, link := rawSite(t, "169.254.0.2", "169.254.0.1", change)
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	p.establishAs(caps...)
	p.send(announce4("10.2.0.0/24"))
	p.send(announce4("10.2.1.0/24"))
	p.send(announce6("fd00:2::/64"))
	p.send(endOfRIB(both))
	r1.wantFeed(raw4, raw41, raw6)
	return r1, node, link, p
}

func (r *testRouter) wantHelping(name string, stale uint64) {
	r.t.Helper()
	eventually(r.t, 5*time.Second, func() string {
		if s := r.session(name); s.State == Established || !s.Graceful.Helping || s.Graceful.Stale != stale {
			return fmt.Sprintf("%s, %+v", s.State, s.Graceful)
		}
		return ""
	})
}

// A peer whose connection breaks keeps its routes until it has announced them again.
func TestGracefulHelper(t *testing.T) {
	r1, node, _, p := grSite(t, restarter(60, 0), nil)
	if g := r1.session("raw").Graceful; !g.Aware || g.Helping || !slices.Equal(g.Families, both) || g.RestartTime != time.Minute {
		t.Errorf("before: %+v", g)
	}
	p.conn.Close()
	r1.wantHelping("raw", 3)
	r1.wantFeed(raw4, raw41, raw6)
	stale := func() (n int) {
		_ = r1.Paths(t.Context(), Filter{}, func(p Prefix) bool {
			for _, x := range p.Paths {
				if x.Stale {
					n++
				}
			}
			return true
		})
		return n
	}
	if n := stale(); n != 3 {
		t.Errorf("%d paths are stale", n)
	}
	again := time.Now()
	p = dialRaw(t, node, "169.254.0.1")
	p.establishAs(restarter(60, restarted|preserved)...)
	r1.established()
	if d := time.Since(again); d > 4*time.Second { // GoBGP's idle time is 5 s
		t.Errorf("the next session took %s", d)
	}
	p.send(announce4("10.2.0.0/24"))
	p.send(announce6("fd00:2::/64"))
	p.send(endOfRIB([]Family{IPv4}))
	eventually(t, 5*time.Second, func() string {
		if n := stale(); n != 1 {
			return fmt.Sprintf("%d paths are stale", n)
		}
		return ""
	})
	if lost, _ := r1.feed.counts(); lost != 0 || !r1.session("raw").Graceful.Helping {
		t.Errorf("%d routes are lost, %+v", lost, r1.session("raw").Graceful)
	}
	p.send(endOfRIB([]Family{IPv6}))
	r1.wantFeed(raw4, raw6)
	if lost, _ := r1.feed.counts(); lost != 1 || r1.session("raw").Graceful.Helping {
		t.Errorf("%d routes are lost, %+v", lost, r1.session("raw").Graceful)
	}
}

// What is no restart ends everything at once, and the next session begins soon where it did so before.
func TestNotGraceful(t *testing.T) {
	for _, c := range []struct {
		name  string
		caps  []bgp.ParameterCapabilityInterface
		mode  GracefulMode
		lose  func(*testRouter, *hoststacktest.Link, *rawPeer)
		hurry bool
	}{
		{name: "no capability", caps: bothFamilies(), lose: closeRaw, hurry: true},
		{name: "only aware", caps: grCaps(60, 0), lose: closeRaw, hurry: true},
		{name: "off", caps: restarter(60, 0), mode: GracefulOff, lose: closeRaw, hurry: true},
		{name: "NOTIFICATION", caps: restarter(60, 0), hurry: true, lose: func(_ *testRouter, _ *hoststacktest.Link, p *rawPeer) {
			p.send(notification(bgp.BGP_ERROR_CEASE, ceaseShutdown, nil))
			p.conn.Close()
		}},
		{name: "reset", caps: restarter(60, 0), hurry: true, lose: func(r *testRouter, _ *hoststacktest.Link, _ *rawPeer) {
			if err := r.Reset("raw", ResetHard); err != nil {
				r.t.Error(err)
			}
		}},
		{name: "disable", caps: restarter(60, 0), lose: func(r *testRouter, _ *hoststacktest.Link, _ *rawPeer) {
			if err := r.Disable("raw", ""); err != nil {
				r.t.Error(err)
			}
		}},
		{name: "hold timer", caps: restarter(60, 0), lose: func(_ *testRouter, l *hoststacktest.Link, _ *rawPeer) { l.Cut() }},
		{name: "malformed", caps: restarter(60, 0), lose: func(_ *testRouter, _ *hoststacktest.Link, p *rawPeer) {
			p.send(message(bgp.BGP_MSG_UPDATE, []byte{0xff, 0xff, 0, 0}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r1, node, link, p := grSite(t, c.caps, func(cfg *Config) {
				cfg.Neighbors[0].Graceful.Mode, cfg.Neighbors[0].HoldTime = c.mode, 3*time.Second
			})
			c.lose(r1, link, p)
			r1.wantFeed()
			if g := r1.session("raw").Graceful; g.Helping {
				t.Errorf("%+v", g)
			}
			if !c.hurry {
				return
			}
			began := time.Now()
			dialRaw(t, node, "169.254.0.1").establishAs(c.caps...)
			if d := time.Since(began); d > 4*time.Second { // GoBGP's idle time is 5 s
				t.Errorf("the next session took %s", d)
			}
		})
	}
}

func closeRaw(_ *testRouter, _ *hoststacktest.Link, p *rawPeer) { p.conn.Close() }

// What GoBGP has seen once it believes for ever; a session without the capability is not to profit from it.
func TestGracefulNoMore(t *testing.T) {
	r1, node, _, p := grSite(t, restarter(60, 0), nil)
	p.conn.Close()
	r1.wantHelping("raw", 3)
	p = dialRaw(t, node, "169.254.0.1")
	p.establishAs(bothFamilies()...)
	r1.wantFeed() // RFC 4724 §4.2: no capability, nothing is kept, whether or not an End-of-RIB comes
	p.send(announce4("10.2.0.0/24"))
	r1.wantFeed(raw4)
	status := &r1.peerByAddr(a("169.254.0.2")).status
	status.mu.Lock()
	status.hurried = time.Now().Add(time.Hour) // a session that keeps failing is not spared GoBGP's idle time
	status.mu.Unlock()
	p.conn.Close()
	closed := time.Now()
	r1.wantFeed()
	dialRaw(t, node, "169.254.0.1").establishAs(bothFamilies()...)
	if d := time.Since(closed); d < 4*time.Second {
		t.Errorf("a session that keeps failing is back after %s", d)
	}
}

func TestForwardingNotPreserved(t *testing.T) {
	r1, node, _, p := grSite(t, restarter(60, 0), nil)
	p.conn.Close()
	r1.wantHelping("raw", 3)
	p = dialRaw(t, node, "169.254.0.1")
	p.establishAs(restarter(60, restarted)...)
	r1.wantFeed()
	r1.established()
	if s := r1.session("raw"); s.Flaps != 1 {
		t.Errorf("%d flaps, %s", s.Flaps, s.LastError)
	}
}

func TestRestartTimeEnds(t *testing.T) {
	r1, _, _, p := grSite(t, restarter(2, 0), nil)
	p.conn.Close()
	closed := time.Now()
	r1.wantHelping("raw", 3)
	r1.wantFeed()
	if d := time.Since(closed); d < 1900*time.Millisecond || d > 4*time.Second {
		t.Errorf("routes went after %s, the restart time is 2 s", d)
	}
	if g := r1.session("raw").Graceful; g.Helping {
		t.Errorf("%+v", g)
	}
}

// A peer that is back and never says that it has said all.
func TestStaleTime(t *testing.T) {
	r1, node, _, p := grSite(t, restarter(60, 0), func(c *Config) { c.Neighbors[0].Graceful.StaleTime = time.Second })
	p.conn.Close()
	r1.wantHelping("raw", 3)
	p = dialRaw(t, node, "169.254.0.1")
	p.establishAs(restarter(60, restarted|preserved)...)
	p.send(announce4("10.2.1.0/24"))
	r1.wantFeed(raw41)
	if s := r1.session("raw"); s.State != Established || s.Flaps != 1 || s.Graceful.Helping {
		t.Errorf("%s, %d flaps, %+v", s.State, s.Flaps, s.Graceful)
	}
	p.send(announce4("10.2.0.0/24")) // the stream of messages is whole
	r1.wantFeed(raw4, raw41)
}

// A restarted peer connects while its old connection looks alive.
func TestRestartedUnnoticed(t *testing.T) {
	r1, node, _, _ := grSite(t, restarter(60, 0), nil)
	began := time.Now()
	p := dialRaw(t, node, "169.254.0.1")
	p.establishAs(restarter(60, restarted|preserved)...)
	p.send(announce4("10.2.0.0/24"))
	p.send(endOfRIB(both))
	r1.wantFeed(raw4)
	if lost, _ := r1.feed.counts(); lost != 2 {
		t.Errorf("%d routes were lost", lost)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("the new session took %s", d)
	}
}

func longLived(caps []bgp.ParameterCapabilityInterface, seconds uint32) []bgp.ParameterCapabilityInterface {
	return append(caps, bgp.NewCapLongLivedGracefulRestart([]*bgp.CapLongLivedGracefulRestartTuple{
		bgp.NewCapLongLivedGracefulRestartTuple(bgp.RF_IPv4_UC, true, seconds), bgp.NewCapLongLivedGracefulRestartTuple(bgp.RF_IPv6_UC, true, seconds),
	}))
}

// Long-lived stale routes outlive the restart time, lose against all others, and are in no set with them.
func TestLongLived(t *testing.T) {
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("raw")
	n.Connect(n1, "tun0", addrs("169.254.0.1"), n2, "tun1", addrs("169.254.0.2"))
	n.Connect(n1, "tun2", addrs("169.254.2.1"), n2, "tun3", addrs("169.254.2.2"))
	c := Config{AS: 65001, RouterID: a("10.1.0.1"), Multipath: 4}
	for i, addr := range []string{"169.254.0.2", "169.254.2.2"} {
		c.Neighbors = append(c.Neighbors, Neighbor{
			Name: fmt.Sprint("raw", i), Address: a(addr), AS: 65002, Passive: true, Families: both, NextHop6: a("fd00::1"),
			Graceful: GracefulRestart{LongLived: time.Minute},
		})
	}
	r1 := newRouter(t, n1, "r1", c)
	start(t, r1)
	p := dialRawOn(t, n2, "tun1", "169.254.0.1")
	p.establishAs(longLived(restarter(1, 0), 4)...)
	p.send(announce4("10.2.0.0/24"))
	p.send(announce4("10.2.1.0/24"))
	p.send(endOfRIB(both))
	other := dialRawOn(t, n2, "tun3", "169.254.2.1")
	other.establishAs(bothFamilies()...)
	other.send(reach(bgp.AFI_IP, a("169.254.2.2").AsSlice(), "10.2.0.0/24"))
	r1.wantFeed("10.2.0.0/24 via 169.254.0.2, via 169.254.2.2", raw41)
	p.conn.Close()
	closed := time.Now()
	r1.wantFeed("10.2.0.0/24 via 169.254.2.2", raw41)
	if d := time.Since(closed); d < 900*time.Millisecond {
		t.Errorf("after %s, when the restart time is 1 s", d)
	}
	s := r1.session("raw0")
	if !s.Graceful.Helping || !s.Graceful.LastResort || s.Graceful.LongLived != 4*time.Second || s.Graceful.Stale != 2 {
		t.Errorf("%+v", s.Graceful)
	}
	best := map[string]bool{}
	_ = r1.Paths(t.Context(), Filter{}, func(p Prefix) bool {
		for _, x := range p.Paths {
			if slices.Contains(x.Communities, "llgr-stale") != (x.Neighbor == "raw0") {
				t.Errorf("%s from %s has communities %v", p.Prefix, x.Neighbor, x.Communities)
			}
			best[p.Prefix.String()+" "+x.Neighbor] = x.Best
		}
		return true
	})
	if best["10.2.0.0/24 raw0"] || !best["10.2.0.0/24 raw1"] || !best["10.2.1.0/24 raw0"] {
		t.Errorf("best paths: %v", best)
	}
	r1.wantFeed("10.2.0.0/24 via 169.254.2.2") // at the end of the stale time
	if d := time.Since(closed); d < 4900*time.Millisecond || d > 8*time.Second {
		t.Errorf("gone after %s, 1 s and 4 s were agreed", d)
	}
}

// With long-lived routes an expired hold timer is as good as a broken connection.
func TestLongLivedHoldTimer(t *testing.T) {
	r1, _, link, _ := grSite(t, longLived(restarter(1, 0), 60), func(c *Config) {
		c.Neighbors[0].HoldTime, c.Neighbors[0].Graceful.LongLived = 3*time.Second, time.Minute
	})
	link.Cut()
	eventually(t, 10*time.Second, func() string {
		if s := r1.session("raw"); !strings.HasPrefix(s.LastError, "Hold Timer Expired") || !s.Graceful.LastResort || s.Graceful.Stale != 3 {
			return fmt.Sprintf("%q, %+v", s.LastError, s.Graceful)
		}
		return ""
	})
	r1.wantFeed(raw4, raw41, raw6)
	if lost, _ := r1.feed.counts(); lost != 0 {
		t.Errorf("%d routes were lost", lost)
	}
}

func TestRefresh(t *testing.T) {
	r1, _, _, p := grSite(t, bothFamilies(), nil)
	for _, kind := range []ResetKind{ResetSoftIn, ResetSoft} {
		r1.established()
		if err := r1.Reset("raw", kind); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range 2 {
			got = append(got, fmt.Sprint(p.expect(bgp.BGP_MSG_ROUTE_REFRESH)))
		}
		slices.Sort(got)
		if want := []string{"[0 1 0 1]", "[0 2 0 1]"}; !slices.Equal(got, want) {
			t.Errorf("asked for %v, want %v", got, want)
		}
	}
	if s := r1.session("raw"); s.Flaps != 0 || s.Received != 3 {
		t.Errorf("%d flaps, %d received", s.Flaps, s.Received)
	}
}
