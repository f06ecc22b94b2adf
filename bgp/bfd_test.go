package bgp

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// fakeBFD is a dataplane that says what the test wants.
type fakeBFD struct {
	mu      sync.Mutex
	watched map[string]func(bool) // by what was asked for
	calls   int
}

func (f *fakeBFD) WatchBFD(iface string, local, remote netip.Addr, b BFD, changed func(bool)) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := fmt.Sprintf("%s %s %s x%d", iface, remote, b.Interval, b.Multiplier)
	if local.IsValid() {
		key = local.String() + " " + key
	}
	f.watched[key] = changed
	f.calls++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watched, key)
	}
}

// want waits until exactly these are watched.
func (f *fakeBFD) want(t *testing.T, keys ...string) {
	t.Helper()
	eventually(t, 5*time.Second, func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, k := range keys {
			if f.watched[k] == nil {
				return fmt.Sprintf("watched are %v", f.watched)
			}
		}
		if len(f.watched) != len(keys) {
			return fmt.Sprintf("watched are %v", f.watched)
		}
		return ""
	})
}

func (f *fakeBFD) say(key string, up bool) {
	f.mu.Lock()
	changed := f.watched[key]
	f.mu.Unlock()
	changed(up)
}

func (r *testRouter) wantBFD(text string) {
	r.t.Helper()
	eventually(r.t, 5*time.Second, func() string {
		if s := r.session("raw"); s.BFD != text {
			return fmt.Sprintf("BFD is %q", s.BFD)
		}
		return ""
	})
}

// bfdSite is a router that watches raw.
func bfdSite(t *testing.T, remote, local string) (*testRouter, *hoststacktest.Node, *fakeBFD) {
	r1, node, _ := rawSite(t, remote, local, func(cfg *Config) { cfg.Neighbors[0].BFD = BFD{Interval: 50 * time.Millisecond} })
	fake := &fakeBFD{watched: map[string]func(bool){}}
	r1 = newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, BFD: fake})
	start(t, r1)
	return r1, node, fake
}

// A session whose BFD was up and goes down ends with its routes at once, and no graceful restart keeps them.
func TestBFD(t *testing.T) {
	for _, c := range []struct{ name, remote, local, key, route string }{
		{"global", "169.254.0.2", "169.254.0.1", "tun0 169.254.0.2 50ms x3", raw6},
		{"link-local", "fe80::2", "fe80::1", "tun0 fe80::2%tun0 50ms x3", "fd00:2::/64 via fe80::2 dev tun0"},
	} {
		for _, graceful := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, graceful=%v", c.name, graceful), func(t *testing.T) {
				r1, node, fake := bfdSite(t, c.remote, c.local)
				fake.want(t, c.key) // before there is a session
				r1.wantBFD("down")
				caps := bothFamilies()
				if graceful {
					caps = restarter(60, 0)
				}
				establish := func() *rawPeer {
					p := dialRaw(t, node, c.local)
					p.establishAs(caps...)
					p.send(announce6("fd00:2::/64"))
					r1.wantFeed(c.route)
					return p
				}
				p := establish()
				fake.say(c.key, false) // it was never up: that says nothing
				fake.say(c.key, true)
				r1.wantBFD("up")
				// New timers, and another local address, need no new session.
				cfg := r1.cfg
				change := func(b BFD) {
					t.Helper()
					cfg.Neighbors = append([]Neighbor(nil), cfg.Neighbors...)
					cfg.Neighbors[0].BFD = b
					if err := r1.Apply(cfg); err != nil {
						t.Fatal(err)
					}
				}
				change(BFD{Interval: 100 * time.Millisecond, Multiplier: 5})
				key := c.key[:len(c.key)-len("50ms x3")] + "100ms x5"
				fake.want(t, key)
				r1.wantBFD("down")
				fake.say(key, true)
				r1.wantBFD("up")
				if s := r1.session("raw"); s.State != Established || s.Flaps != 0 {
					t.Fatalf("%s, %d flaps", s.State, s.Flaps)
				}
				fake.say(key, false)
				body := p.expect(bgp.BGP_MSG_NOTIFICATION)
				if body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseBFDDown {
					t.Errorf("the peer is told %d/%d", body[0], body[1])
				}
				r1.wantFeed()
				fake.want(t, key) // until it answers again
				if s := r1.session("raw"); s.Flaps != 1 || s.LastError != "Cease: BFD Down (sent)" || s.Graceful.Helping || s.BFD != "down" {
					t.Errorf("%d flaps, %q, %+v, BFD %q", s.Flaps, s.LastError, s.Graceful, s.BFD)
				}
				p.conn.Close()
				fake.say(key, true)
				establish()
				change(BFD{})
				fake.want(t)
				r1.wantBFD("")
				if s := r1.session("raw"); s.State != Established || s.Flaps != 1 {
					t.Errorf("without BFD: %s, %d flaps", s.State, s.Flaps)
				}
				change(BFD{Interval: 100 * time.Millisecond, Multiplier: 5})
				if err := r1.Disable("raw", ""); err != nil {
					t.Fatal(err)
				}
				fake.want(t)
			})
		}
	}
}

// A neighbour that has no BFD has a session all the same, and is not asked again while it lasts.
func TestBFDWithoutAnswer(t *testing.T) {
	r1, node, fake := bfdSite(t, "169.254.0.2", "169.254.0.1")
	fake.want(t, "tun0 169.254.0.2 50ms x3")
	began := time.Now()
	dialRaw(t, node, "169.254.0.1").establish()
	r1.established()
	eventually(t, 2*bfdPatience, func() string { // what was begun before the session has all the time
		if s := r1.session("raw"); s.BFD != "no answer" {
			return fmt.Sprintf("BFD is %q", s.BFD)
		}
		return ""
	})
	if d := time.Since(began); d < bfdPatience-time.Second {
		t.Errorf("it was given up after %v", d)
	}
	fake.want(t)
	if s := r1.session("raw"); s.State != Established || s.Flaps != 0 {
		t.Errorf("%s, %d flaps, %q", s.State, s.Flaps, s.LastError)
	}
}

// A neighbour whose BFD is configured while its session is established has less time to answer.
func TestBFDBrief(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
	fake := &fakeBFD{watched: map[string]func(bool){}}
	r1 = newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, BFD: fake})
	start(t, r1)
	dialRaw(t, node, "169.254.0.1").establish()
	r1.established()
	cfg := r1.cfg
	cfg.Neighbors = append([]Neighbor(nil), cfg.Neighbors...)
	cfg.Neighbors[0].BFD = BFD{Interval: 50 * time.Millisecond}
	if err := r1.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	fake.want(t, "tun0 169.254.0.2 50ms x3")
	began := time.Now()
	eventually(t, 2*bfdBrief, func() string {
		if s := r1.session("raw"); s.BFD != "no answer" {
			return fmt.Sprintf("BFD is %q", s.BFD)
		}
		return ""
	})
	if d := time.Since(began); d < bfdBrief-time.Second {
		t.Errorf("it was given up after %v", d)
	}
	if s := r1.session("raw"); s.State != Established || s.Flaps != 0 {
		t.Errorf("%s, %d flaps, %q", s.State, s.Flaps, s.LastError)
	}
}

func TestBFDConfig(t *testing.T) {
	for _, c := range []struct {
		n    Neighbor
		want string
	}{
		{Neighbor{BFD: BFD{Interval: time.Millisecond}}, "neighbor x: BFD interval 1ms is not between 10ms and 30s"},
		{Neighbor{BFD: BFD{Interval: time.Second}, Multihop: true}, "neighbor x: BFD over several hops (RFC 5883) is not available: remove bfd or multihop"},
		{Neighbor{BFD: BFD{Multiplier: 5}}, ""},
	} {
		c.n.Name, c.n.Address, c.n.AS = "x", a("192.0.2.1"), 65002
		text := ""
		if err := c.n.normalize(); err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("%q, want %q", text, c.want)
		}
	}
}
