package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// hostSite is a router with a dynamic entry for a LAN, and one node on each of some links of it.
func hostSite(t *testing.T, change func(*Config), hosts ...string) (*testRouter, []*hoststacktest.Node) {
	t.Helper()
	network := hoststacktest.New()
	n1 := network.Node("r1")
	var nodes []*hoststacktest.Node
	for i, h := range hosts {
		n := network.Node("host" + h)
		network.Connect(n1, fmt.Sprintf("tun%d", i), addrs("10.4.0.1"), n, "tun1", addrs(h))
		nodes = append(nodes, n)
	}
	c := Config{AS: 65001, RouterID: a("10.1.0.1"), Dynamic: []Dynamic{{
		Prefix: netip.MustParsePrefix("10.4.0.0/24"), AS: []uint32{65002, 65003}, Limit: 2, ForgetAfter: time.Second,
		Neighbor: Neighbor{Group: "hosts", HoldTime: 30 * time.Second},
	}}}
	if change != nil {
		change(&c)
	}
	return newRouter(t, n1, "r1", c), nodes
}

func (r *testRouter) names() string {
	var names []string
	for _, s := range r.Sessions() {
		names = append(names, fmt.Sprintf("%s %d %s", s.Neighbor.Name, s.Neighbor.AS, s.State))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (r *testRouter) wantNames(want string) {
	r.t.Helper()
	eventually(r.t, 10*time.Second, func() string {
		if got := r.names(); got != want {
			return fmt.Sprintf("neighbors: %s, want %s", got, want)
		}
		return ""
	})
}

func TestDynamic(t *testing.T) {
	r1, nodes := hostSite(t, nil, "10.4.0.2", "10.4.0.3", "10.4.0.4", "10.9.0.2")
	start(t, r1)
	first := dialRaw(t, nodes[0], "10.4.0.1")
	r1.wantNames("") // it has not said who it is
	first.establish()
	r1.wantNames("10.4.0.2 65002 Established")
	if s := r1.session("10.4.0.2"); !s.Neighbor.Dynamic || s.Neighbor.Group != "hosts" || s.HoldTime != 30*time.Second {
		t.Errorf("session is %+v", s)
	}
	first.send(withdrawnNothing(t, "10.5.0.0/16", "10.4.0.2"))
	r1.wantFeed("10.5.0.0/16 via 10.4.0.2")

	// Another AS of the entry; and one that is none of it, which is told so.
	second := dialRaw(t, nodes[1], "10.4.0.1")
	second.send(rawOpen(65099, "10.2.0.3", bothFamilies()...))
	if n := second.expect(bgp.BGP_MSG_NOTIFICATION); n[0] != bgp.BGP_ERROR_OPEN_MESSAGE_ERROR || n[1] != bgp.BGP_ERROR_SUB_BAD_PEER_AS {
		t.Errorf("notification %v, want bad peer AS", n)
	}
	eventually(t, 5*time.Second, func() string { // its place is free again
		r1.mu.RLock()
		defer r1.mu.RUnlock()
		if n := len(r1.guests.waiting); n > 0 {
			return fmt.Sprintf("%d connections wait", n)
		}
		return ""
	})
	second = dialRaw(t, nodes[1], "10.4.0.1")
	second.send(rawOpen(65003, "10.2.0.3", bothFamilies()...))
	second.expect(bgp.BGP_MSG_OPEN)
	second.send(keepalive)
	r1.wantNames("10.4.0.2 65002 Established, 10.4.0.3 65003 Established")

	// The third is one too many, and the fourth comes from elsewhere.
	third := dialRaw(t, nodes[2], "10.4.0.1")
	if n := third.expect(bgp.BGP_MSG_NOTIFICATION); n[0] != bgp.BGP_ERROR_CEASE || n[1] != ceaseResources {
		t.Errorf("notification %v, want out of resources", n)
	}
	fourth := dialRaw(t, nodes[3], "10.4.0.1")
	if _, _, err := fourth.read(10 * time.Second); err == nil {
		t.Error("a stranger is talked to")
	}

	// A reload keeps them, as long as the entry has them.
	since := r1.session("10.4.0.2").Since
	c := r1.cfg
	c.Neighbors = nil
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	if s := r1.session("10.4.0.2"); !s.Since.Equal(since) || s.State != Established {
		t.Errorf("after a reload the session is %s since %s, before since %s", s.State, s.Since, since)
	}
	c.Dynamic = slices.Clone(c.Dynamic)
	c.Dynamic[0].AS, c.Dynamic[0].External = nil, true
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantNames("10.4.0.2 65002 Established, 10.4.0.3 65003 Established")
	c.Dynamic = slices.Clone(c.Dynamic)
	c.Dynamic[0].AS, c.Dynamic[0].External = []uint32{65002}, false
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantNames("10.4.0.2 65002 Established")

	// The end of its session withdraws the routes, and after a while it is forgotten.
	_ = first.conn.Close()
	r1.wantFeed()
	r1.wantNames("")
	if n := len(r1.running.peers); n != 0 {
		t.Errorf("%d peers run", n)
	}
}

// withdrawnNothing is an UPDATE that announces a prefix.
func withdrawnNothing(t *testing.T, prefix, nextHop string) []byte {
	t.Helper()
	return reach(bgp.AFI_IP, a(nextHop).AsSlice(), prefix)
}

// A silent connection holds a place only until the same host connects again, or the speaker ends.
func TestDynamicSilent(t *testing.T) {
	r1, nodes := hostSite(t, func(c *Config) { c.Dynamic[0].Limit = 1 }, "10.4.0.2", "10.4.0.3")
	start(t, r1)
	silent := dialRaw(t, nodes[0], "10.4.0.1")
	other := dialRaw(t, nodes[1], "10.4.0.1")
	if n := other.expect(bgp.BGP_MSG_NOTIFICATION); n[1] != ceaseResources {
		t.Errorf("notification %v", n)
	}
	again := dialRaw(t, nodes[0], "10.4.0.1")
	if _, _, err := silent.read(10 * time.Second); err == nil {
		t.Error("the silent connection goes on")
	}
	again.establish()
	r1.wantNames("10.4.0.2 65002 Established")
	r1.stop()
}

// A neighbour that is written down is none of the dynamic ones, also when it was one before.
func TestDynamicWrittenDown(t *testing.T) {
	r1, nodes := hostSite(t, nil, "10.4.0.2")
	start(t, r1)
	p := dialRaw(t, nodes[0], "10.4.0.1")
	p.establish()
	r1.wantNames("10.4.0.2 65002 Established")
	since := r1.session("10.4.0.2").Since
	c := r1.cfg
	c.Neighbors = []Neighbor{{Name: "anna", Address: a("10.4.0.2"), AS: 65002, HoldTime: 30 * time.Second, Passive: true}}
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantNames("anna 65002 Established")
	if s := r1.session("anna"); s.Neighbor.Dynamic || !s.Since.Equal(since) {
		t.Errorf("session is %+v", s)
	}
	if err := r1.Disable("anna", ""); err != nil {
		t.Fatal(err)
	}
	// What was disabled by hand stays so when a change needs a new session.
	c.Neighbors = []Neighbor{c.Neighbors[0]}
	c.Neighbors[0].HoldTime = 60 * time.Second
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	if s := r1.session("anna"); !s.Disabled {
		t.Error("a reload has enabled what was disabled by hand")
	}
}
