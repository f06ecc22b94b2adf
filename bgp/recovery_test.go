package bgp

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// What our OPEN says of a restart.
func TestGracefulOpen(t *testing.T) {
	for _, c := range []struct {
		name              string
		mode              GracefulMode
		outlived, resumed bool
		void              bool
		want              string
	}{
		{name: "on", outlived: true, want: "aware ipv4 ipv6"},
		{name: "resumed", outlived: true, resumed: true, want: "aware restarted ipv4+F ipv6+F"},
		{name: "void", outlived: true, resumed: true, void: true, want: "aware ipv4 ipv6"},
		{name: "dataplane dies with us", resumed: true, want: "aware"},
		{name: "helper", mode: GracefulHelper, outlived: true, resumed: true, want: "aware"},
		{name: "off", mode: GracefulOff, outlived: true, resumed: true, want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r1, node := outlivedSite(t, c.outlived, func(cfg *Config) { cfg.Neighbors[0].Graceful.Mode = c.mode })
			if c.resumed {
				r1.Resume()
			}
			if c.void {
				r1.Void()
			}
			start(t, r1)
			got := dialRaw(t, node, "169.254.0.1").establishAs(restarter(60, 0)...)
			if s := offerText(got); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
			if got.aware && got.time != DefaultRestartTime {
				t.Errorf("restart time %s", got.time)
			}
		})
	}
}

// A connection that breaks without a restart of ours: our forwarding has gone on, unless the dataplane has lost it meanwhile.
func TestForwardingIntact(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(c *Config) { c.Neighbors[0].Graceful.LongLived = time.Hour })
	var life atomic.Uint64
	life.Store(7)
	r1 = newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, Outlived: true, Life: life.Load})
	start(t, r1)
	for i, c := range []struct {
		life uint64
		want string
	}{
		{7, "aware ipv4 ipv6"}, {7, "aware ipv4+F ipv6+F"}, {8, "aware ipv4 ipv6"}, {8, "aware ipv4+F ipv6+F"}, {0, "aware ipv4 ipv6"},
	} {
		life.Store(c.life)
		p := dialRaw(t, node, "169.254.0.1")
		got := p.establishAs(longLived(restarter(60, 0), 60)...)
		if s := offerText(got); s != c.want || got.longLived[IPv4] != time.Hour {
			t.Errorf("session %d: %q, long-lived %v, want %q", i, s, got.longLived, c.want)
		}
		r1.established()
		p.conn.Close()
		r1.wantHelping("raw", 0)
	}
}

func TestRestartFlags(t *testing.T) {
	for _, caps := range [][]bgp.ParameterCapabilityInterface{nil, bothFamilies(), grCaps(60, 0), longLived(restarter(60, restarted), 60)} {
		open := rawOpen(65001, "10.1.0.1", caps...)
		for _, c := range []struct{ restarted, preserved bool }{{false, false}, {false, true}, {true, true}} {
			want, got := parseOpen(open).gr, parseOpen(restartFlags(open, c.restarted, c.preserved)).gr
			for f := range want.families {
				want.families[f] = c.preserved
			}
			want.restarting = want.aware && c.restarted
			if !reflect.DeepEqual(want, got) {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
		if got, want := parseOpen(withoutRestart(open)).gr, parseOpen(open).gr; got.restarting || got.time != want.time || !maps.Equal(got.families, want.families) {
			t.Errorf("without the restart: %+v, was %+v", got, want)
		}
		for n := range open {
			restartFlags(open[:n], true, true) // does not panic
		}
	}
}

func offerText(g grOffer) string {
	var words []string
	if g.aware {
		words = append(words, "aware")
	}
	if g.restarting {
		words = append(words, "restarted")
	}
	for _, f := range both {
		if kept, there := g.families[f]; there {
			words = append(words, f.String()+map[bool]string{true: "+F"}[kept])
		}
	}
	return strings.Join(words, " ")
}

func outlivedSite(t *testing.T, outlived bool, change func(*Config)) (*testRouter, *hoststacktest.Node) {
	t.Helper()
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", change)
	return newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, Outlived: outlived}), node
}

// The end of a run: who keeps our routes sees the connection close, all others get a Cease.
func TestLeave(t *testing.T) {
	for _, c := range []struct {
		name            string
		outlived, leave bool
		caps            []bgp.ParameterCapabilityInterface
		quiet           bool
	}{
		{"restart", true, true, grCaps(0, 0), true},
		{"restart, peer forgets", true, true, bothFamilies(), false},
		{"restart, dataplane dies", false, true, grCaps(0, 0), false},
		{"stop", true, false, grCaps(0, 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r1, node := outlivedSite(t, c.outlived, nil)
			start(t, r1)
			p := dialRaw(t, node, "169.254.0.1")
			p.establishAs(c.caps...)
			r1.established()
			if c.leave {
				r1.Leave()
			}
			r1.stop()
			for {
				typ, body, err := p.read(5 * time.Second)
				if typ == bgp.BGP_MSG_NOTIFICATION && !c.quiet {
					if body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseShutdown {
						t.Errorf("NOTIFICATION %v", body)
					}
					return
				}
				switch {
				case typ == bgp.BGP_MSG_NOTIFICATION:
					t.Errorf("NOTIFICATION %v", body)
				case errors.Is(err, io.EOF) && c.quiet:
					return
				case err != nil:
					t.Fatalf("no Cease: %v", err)
				}
			}
		})
	}
}

// After our restart nothing reaches the dataplane or the neighbours before all neighbours have said all, or the deferral; a
// neighbour that never comes does not hold it up for ever, and is not told of an old restart when it comes at last.
func TestDeferral(t *testing.T) {
	for _, complete := range []bool{true, false} {
		t.Run(fmt.Sprintf("all=%v", complete), func(t *testing.T) {
			n := hoststacktest.New()
			n1, n2 := n.Node("r1"), n.Node("raw")
			n.Connect(n1, "tun0", addrs("169.254.0.1"), n2, "tun1", addrs("169.254.0.2"))
			n.Connect(n1, "tun2", addrs("169.254.2.1"), n2, "tun3", addrs("169.254.2.2"))
			c := Config{AS: 65001, RouterID: a("10.1.0.1"), Deferral: 4 * time.Second}
			for i, addr := range []string{"169.254.0.2", "169.254.2.2"} {
				c.Neighbors = append(c.Neighbors, Neighbor{Name: fmt.Sprint("raw", i), Address: a(addr), AS: 65002, Passive: true})
			}
			if complete {
				c.Deferral = time.Hour
			}
			r1 := newRouterWith(t, n1, "r1", Options{Config: c, Outlived: true})
			r1.Resume()
			r1.originate("10.1.0.0/24")
			start(t, r1)
			began := time.Now()
			p := dialRawOn(t, n2, "tun1", "169.254.0.1")
			p.establishAs(grCaps(60, 0, bgp.RF_IPv4_UC)...)
			p.send(announce4("10.2.0.0/24"))
			p.send(endOfRIB([]Family{IPv4}))
			r1.wantPaths(Filter{Neighbor: "raw0"}, "10.2.0.0/24 * from raw0 via 169.254.0.2 [65002]")
			if got := r1.feed.text(); got != "" {
				t.Errorf("the feed has %s already", got)
			}
			if g := r1.session("raw0").Graceful; !g.Restarting || !g.Restarter {
				t.Errorf("%+v", g)
			}
			if typ, _, err := p.read(300 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a message of type %d comes already, or %v", typ, err)
			}
			if complete {
				q := dialRawOn(t, n2, "tun3", "169.254.2.1")
				q.establishAs(grCaps(60, 0, bgp.RF_IPv4_UC)...)
				q.send(endOfRIB([]Family{IPv4}))
			}
			if body := p.expect(bgp.BGP_MSG_UPDATE); len(body) <= 4 {
				t.Error("the first UPDATE is an End-of-RIB")
			}
			if body := p.expect(bgp.BGP_MSG_UPDATE); len(body) != 4 {
				t.Error("no End-of-RIB follows")
			}
			r1.wantFeed(raw4)
			if d := time.Since(began); !complete && d < 3*time.Second {
				t.Errorf("after %s already", d)
			}
			eventually(t, 5*time.Second, func() string {
				if lost, done := r1.feed.counts(); lost != 0 || done != 1 {
					return fmt.Sprintf("%d lost, %d times complete", lost, done)
				}
				return ""
			})
			if complete {
				return
			}
			eventually(t, 5*time.Second, func() string {
				if r1.session("raw1").Graceful.Restarting {
					return "raw1 is still to be told of the restart"
				}
				return ""
			})
			late := establishSoon(t, n2, "tun3", "169.254.2.1", bothFamilies()...)
			if got := offerText(late); got != "aware ipv4" {
				t.Errorf("the late one is told %q", got)
			}
		})
	}
}

// The dataplane dies while the first routes are awaited: nothing is preserved any more.
func TestVoid(t *testing.T) {
	r1, node := outlivedSite(t, true, nil)
	r1.Resume()
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	if got := offerText(p.establishAs(restarter(60, 0)...)); got != "aware restarted ipv4+F ipv6+F" {
		t.Errorf("first %q", got)
	}
	p.send(announce4("10.2.0.0/24"))
	r1.wantPaths(Filter{}, "10.2.0.0/24 * from raw via 169.254.0.2 [65002]")
	r1.Void()
	p.expect(bgp.BGP_MSG_NOTIFICATION)
	if got := offerText(establishSoon(t, node, "tun1", "169.254.0.1", restarter(60, 0)...)); got != "aware ipv4 ipv6" {
		t.Errorf("then %q", got)
	}
}
