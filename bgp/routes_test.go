package bgp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"rlr/hoststack/hoststacktest"
)

// The same fe80:: addresses on two links of one router, IPv4 and IPv6 over each (RFC 8950).
func TestLinkLocal(t *testing.T) {
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
	n.Connect(n1, "tun12", addrs("fe80::1"), n2, "tun21", addrs("fe80::2"))
	n.Connect(n1, "tun13", addrs("fe80::1"), n3, "tun31", addrs("fe80::2"))
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "r2", Address: a("fe80::2%tun12"), LocalAddress: a("fe80::1"), AS: 65002, Families: both},
		{Name: "r3", Address: a("fe80::2"), Interface: "tun13", LocalAddress: a("fe80::1"), AS: 65003, Families: both, Import: PolicyNone},
	}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("fe80::1%tun21"), AS: 65001, Families: both},
	}})
	r3 := newRouter(t, n3, "r3", Config{AS: 65003, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("fe80::1%tun31"), AS: 65001, Families: both},
	}})
	start(t, r1, r2, r3)
	for _, r := range []*testRouter{r1, r2, r3} {
		r.established()
	}
	r1.originate("10.1.0.0/24", "fd00:1::/64")
	r2.originate("10.2.0.0/24", "fd00:2::/64")
	r3.originate("10.3.0.0/24", "fd00:3::/64")
	// Importing nothing from fe80::2 on one interface leaves fe80::2 on the other alone.
	r1.wantFeed("10.2.0.0/24 via fe80::2 dev tun12", "fd00:2::/64 via fe80::2 dev tun12")
	r2.wantFeed("10.1.0.0/24 via fe80::1 dev tun21", "fd00:1::/64 via fe80::1 dev tun21")
	c := r1.cfg
	c.Neighbors = append([]Neighbor(nil), c.Neighbors...)
	c.Neighbors[1].Import = PolicyAll
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed("10.2.0.0/24 via fe80::2 dev tun12", "10.3.0.0/24 via fe80::2 dev tun13",
		"fd00:2::/64 via fe80::2 dev tun12", "fd00:3::/64 via fe80::2 dev tun13")
	r2.wantFeed("10.1.0.0/24 via fe80::1 dev tun21", "10.3.0.0/24 via fe80::1 dev tun21",
		"fd00:1::/64 via fe80::1 dev tun21", "fd00:3::/64 via fe80::1 dev tun21")
	r1.wantPaths(Filter{Neighbor: "r3"}, "10.3.0.0/24 * from r3 via fe80::2%tun13 [65003]", "fd00:3::/64 * from r3 via fe80::2%tun13 [65003]")
	for _, s := range r1.Sessions() {
		if s.Flaps != 0 || fmt.Sprint(s.Families) != "[ipv4 ipv6]" || s.Received != 2 || s.Accepted != 2 {
			t.Errorf("session %+v", s)
		}
	}
}

// IPv6 over a session between IPv4 addresses, and IPv4 learned over IPv6 passed on over IPv4.
func TestMixedFamilies(t *testing.T) {
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
	n.Connect(n1, "a", addrs("169.254.12.1", "fd00:12::1"), n2, "b", addrs("169.254.12.2", "fd00:12::2"))
	n.Connect(n2, "c", addrs("fd00:23::2"), n3, "d", addrs("fd00:23::3"))
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "r2", Address: a("169.254.12.2"), AS: 65002, Families: both, NextHop6: a("fd00:12::1")},
	}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("169.254.12.1"), AS: 65001, Families: both, NextHop6: a("fd00:12::2")},
		{Name: "r3", Address: a("fd00:23::3"), AS: 65003, Families: both},
	}})
	r3 := newRouter(t, n3, "r3", Config{AS: 65003, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{
		{Name: "r2", Address: a("fd00:23::2"), AS: 65002, Families: both},
	}})
	start(t, r1, r2, r3)
	for _, r := range []*testRouter{r1, r2, r3} {
		r.established()
	}
	r1.originate("10.1.0.0/24", "fd00:1::/64")
	r3.originate("10.3.0.0/24", "fd00:3::/64")
	r1.wantFeed("10.3.0.0/24 via 169.254.12.2", "fd00:3::/64 via fd00:12::2")
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1", "10.3.0.0/24 via fd00:23::3", "fd00:1::/64 via fd00:12::1", "fd00:3::/64 via fd00:23::3")
	r3.wantFeed("10.1.0.0/24 via fd00:23::2", "fd00:1::/64 via fd00:23::2")
}

// r1 –eBGP– r2 –iBGP– r3, with and without next-hop-self.
func TestInternal(t *testing.T) {
	for _, self := range []bool{false, true} {
		t.Run(fmt.Sprintf("next-hop-self=%v", self), func(t *testing.T) {
			n := hoststacktest.New()
			n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
			n.Connect(n1, "a", addrs("169.254.12.1"), n2, "b", addrs("169.254.12.2"))
			n.Connect(n2, "c", addrs("10.0.23.2"), n3, "d", addrs("10.0.23.3"))
			r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("169.254.12.2"), AS: 65002}}})
			r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
				{Name: "r1", Address: a("169.254.12.1"), AS: 65001},
				{Name: "r3", Address: a("10.0.23.3"), AS: 65002, NextHopSelf: self},
			}})
			r3 := newRouter(t, n3, "r3", Config{AS: 65002, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("10.0.23.2"), AS: 65002}}})
			start(t, r1, r2, r3)
			r1.established()
			r2.established()
			r3.established()
			r1.originate("10.1.0.0/24")
			r2.originate("10.2.0.0/24")
			r3.originate("10.3.0.0/24")
			want := "169.254.12.1"
			if self {
				want = "10.0.23.2"
			}
			r3.wantFeed("10.1.0.0/24 via "+want, "10.2.0.0/24 via 10.0.23.2")
			r3.wantPaths(Filter{Prefix: netip.MustParsePrefix("10.1.0.0/24")}, "10.1.0.0/24 * from r2 via "+want+" [65001]")
			r1.wantFeed("10.2.0.0/24 via 169.254.12.2", "10.3.0.0/24 via 169.254.12.2")
		})
	}
}

// Two clients of a reflector see each other's routes with each other's next hops; without reflection they do not.
func TestRouteReflector(t *testing.T) {
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
	n.Connect(n1, "a", addrs("10.0.12.1"), n2, "b", addrs("10.0.12.2"))
	n.Connect(n2, "c", addrs("10.0.23.2"), n3, "d", addrs("10.0.23.3"))
	c2 := Config{AS: 65001, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("10.0.12.1"), AS: 65001},
		{Name: "r3", Address: a("10.0.23.3"), AS: 65001},
	}}
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("10.0.12.2"), AS: 65001}}})
	r2 := newRouter(t, n2, "r2", c2)
	r3 := newRouter(t, n3, "r3", Config{AS: 65001, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("10.0.23.2"), AS: 65001}}})
	start(t, r1, r2, r3)
	r1.established()
	r2.established()
	r3.established()
	r1.originate("10.1.0.0/24")
	r3.originate("10.3.0.0/24")
	r2.wantFeed("10.1.0.0/24 via 10.0.12.1", "10.3.0.0/24 via 10.0.23.3")
	r1.wantFeed()
	for i := range c2.Neighbors {
		c2.Neighbors[i].RouteReflectorClient = true
	}
	if err := r2.Apply(c2); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed("10.3.0.0/24 via 10.0.23.3")
	r3.wantFeed("10.1.0.0/24 via 10.0.12.1")
	if up, total := r2.Established(); up != 2 || total != 2 {
		t.Errorf("%d of %d established", up, total)
	}
	if got, want := r1.session("r2").LastError, "Cease: Other Configuration Change (received)"; got != want {
		t.Errorf("r1's last error is %q, want %q", got, want)
	}
}

func TestPolicies(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	start(t, r1, r2)
	r1.established()
	r2.established()
	r1.originate("10.1.0.0/24")
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1")
	apply := func(imp, exp, ebgp Policy) {
		t.Helper()
		c := r1.cfg
		c.Neighbors = append([]Neighbor(nil), c.Neighbors...)
		c.Neighbors[0].Import, c.Neighbors[0].Export, c.EBGPDefault = imp, exp, ebgp
		if err := r1.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		imp, exp, ebgp Policy
		in, out        bool
	}{
		{PolicyNone, PolicyAll, PolicyDefault, false, true},
		{PolicyAll, PolicyNone, PolicyDefault, true, false},
		{PolicyDefault, PolicyDefault, PolicyNone, false, false}, // RFC 8212
		{PolicyDefault, PolicyAll, PolicyNone, false, true},
		{PolicyAll, PolicyDefault, PolicyNone, true, false},
		{PolicyDefault, PolicyDefault, PolicyAll, true, true},
	} {
		apply(c.imp, c.exp, c.ebgp)
		var in, out []string
		if c.in {
			in = []string{"10.2.0.0/24 via 169.254.12.2"}
		}
		if c.out {
			out = []string{"10.1.0.0/24 via 169.254.12.1"}
		}
		r1.wantFeed(in...)
		r2.wantFeed(out...)
	}
	s := r1.session("r2")
	if s.Flaps != 0 || s.Uptime == 0 {
		t.Errorf("policies cost the session: %+v", s)
	}
	apply(PolicyNone, PolicyNone, PolicyDefault)
	eventually(t, 5*time.Second, func() string {
		if s := r1.session("r2"); s.Received != 1 || s.Accepted != 0 || s.Advertised != 0 {
			return fmt.Sprintf("received %d, accepted %d, advertised %d", s.Received, s.Accepted, s.Advertised)
		}
		return ""
	})
}

// The article's triangle: the best path over the direct link, the alternative over the third router, and the shift.
func TestTriangle(t *testing.T) {
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
	l12 := n.Connect(n1, "tun12", addrs("169.254.12.1"), n2, "tun21", addrs("169.254.12.2"))
	n.Connect(n1, "tun13", addrs("169.254.13.1"), n3, "tun31", addrs("169.254.13.2"))
	n.Connect(n2, "tun23", addrs("169.254.23.1"), n3, "tun32", addrs("169.254.23.2"))
	hold := 3 * time.Second
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "r2", Address: a("169.254.12.2"), AS: 65002, HoldTime: hold}, {Name: "r3", Address: a("169.254.13.2"), AS: 65003, HoldTime: hold},
	}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("169.254.12.1"), AS: 65001, HoldTime: hold}, {Name: "r3", Address: a("169.254.23.2"), AS: 65003, HoldTime: hold},
	}})
	r3 := newRouter(t, n3, "r3", Config{AS: 65003, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("169.254.13.1"), AS: 65001, HoldTime: hold}, {Name: "r2", Address: a("169.254.23.1"), AS: 65002, HoldTime: hold},
	}})
	start(t, r1, r2, r3)
	r1.established()
	r2.established()
	r3.established()
	r1.originate("10.1.0.0/24")
	r2.originate("10.2.0.0/24")
	r3.originate("10.3.0.0/24")
	direct := []string{
		"10.1.0.0/24 *",
		"10.2.0.0/24 * from r2 via 169.254.12.2 [65002]", "10.2.0.0/24 from r3 via 169.254.13.2 [65003 65002]",
		"10.3.0.0/24 * from r3 via 169.254.13.2 [65003]", "10.3.0.0/24 from r2 via 169.254.12.2 [65002 65003]",
	}
	r1.wantPaths(Filter{}, direct...)
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2", "10.3.0.0/24 via 169.254.13.2")
	l12.Cut()
	r1.wantFeed("10.2.0.0/24 via 169.254.13.2", "10.3.0.0/24 via 169.254.13.2")
	l12.Heal()
	r1.wantPaths(Filter{}, direct...)
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2", "10.3.0.0/24 via 169.254.13.2")
}

// Two equal paths are one route with two next hops; the cap and the loss of one are followed.
func TestMultipath(t *testing.T) {
	n := hoststacktest.New()
	n1 := n.Node("r1")
	var neighbors []Neighbor
	var others []*testRouter
	for i := 2; i <= 4; i++ {
		ni := n.Node(fmt.Sprint("r", i))
		x, y := netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), netip.AddrFrom4([4]byte{10, 0, byte(i), 2})
		n.Connect(n1, fmt.Sprint("eth", i), []netip.Addr{x}, ni, "eth0", []netip.Addr{y})
		neighbors = append(neighbors, Neighbor{Name: fmt.Sprint("r", i), Address: y, AS: 65002})
		others = append(others, newRouter(t, ni, fmt.Sprint("r", i), Config{
			AS: 65002, RouterID: netip.AddrFrom4([4]byte{10, byte(i), 0, 1}), Multipath: 2,
			Neighbors: []Neighbor{{Name: "r1", Address: x, AS: 65001}},
		}))
	}
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Multipath: 2, Neighbors: neighbors})
	start(t, append(others, r1)...)
	r1.established()
	others[1].originate("192.0.2.0/24")
	r1.wantFeed("192.0.2.0/24 via 10.0.3.2")
	others[2].originate("192.0.2.0/24")
	r1.wantFeed("192.0.2.0/24 via 10.0.3.2, via 10.0.4.2")
	others[0].originate("192.0.2.0/24")
	r1.wantFeed("192.0.2.0/24 via 10.0.2.2, via 10.0.3.2")
	others[0].originate()
	r1.wantFeed("192.0.2.0/24 via 10.0.3.2, via 10.0.4.2")
	others[1].stop()
	r1.wantFeed("192.0.2.0/24 via 10.0.4.2")
	r1.originate("192.0.2.0/24")
	r1.wantFeed()
	r1.originate()
	r1.wantFeed("192.0.2.0/24 via 10.0.4.2")
	others[2].originate()
	r1.wantFeed()
}

func TestComplete(t *testing.T) {
	completed := func(r *testRouter) int {
		r.feed.mu.Lock()
		defer r.feed.mu.Unlock()
		return r.feed.complete
	}
	t.Run("without neighbors", func(t *testing.T) {
		r := newRouter(t, hoststacktest.New().Node("r"), "r", Config{AS: 65001, RouterID: a("10.1.0.1")})
		start(t, r)
		eventually(t, time.Second, func() string {
			if completed(r) != 1 {
				return "not complete"
			}
			return ""
		})
	})
	t.Run("deferral", func(t *testing.T) {
		r := newRouter(t, hoststacktest.New().Node("r"), "r", Config{
			AS: 65001, RouterID: a("10.1.0.1"), Deferral: time.Second, Neighbors: []Neighbor{{Address: a("192.0.2.1"), AS: 65002}},
		})
		start(t, r)
		if completed(r) != 0 {
			t.Error("complete before the deferral")
		}
		eventually(t, 3*time.Second, func() string {
			if completed(r) != 1 {
				return "not complete"
			}
			return ""
		})
	})
	t.Run("quiet", func(t *testing.T) {
		r1, r2, _ := twoSites(t, nil)
		start(t, r1, r2)
		r2.established()
		r2.originate("10.2.0.0/24")
		eventually(t, 10*time.Second, func() string {
			if completed(r1) != 1 {
				return "not complete"
			}
			return ""
		})
		if r1.feed.text() == "" {
			t.Error("complete before the route")
		}
	})
}
