package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// Two routers whose neighbours have neither an address nor a number.
func TestUnnumbered(t *testing.T) {
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("r2")
	n.Connect(n1, "eth1", addrs("fe80::1"), n2, "eth1", addrs("fe80::2"))
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "r2", Interface: "eth1", External: true, Role: Peer, StrictRole: true},
		{Name: "nobody", Interface: "eth2", External: true},
	}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Interface: "eth1", External: true, Role: Peer, StrictRole: true, Limit4: PrefixLimit{Max: 9}},
	}})
	start(t, r1, r2)
	for _, name := range []string{"r2", "nobody"} {
		s := r1.session(name)
		if s.State != Active || !strings.HasPrefix(s.ErrorText(), "nobody has been heard of on interface eth") || fmt.Sprint(s.Families) != "[ipv4 ipv6]" {
			t.Errorf("%s is %s, %q", name, s.State, s.ErrorText())
		}
	}
	discover := func(r *testRouter, addr string) {
		t.Helper()
		if err := r.Discovered(map[string]netip.Addr{"eth1": a(addr)}); err != nil {
			t.Fatal(err)
		}
	}
	discover(r1, "fe80::2")
	discover(r2, "fe80::1")
	eventually(t, 20*time.Second, func() string {
		s := r1.session("r2")
		if s.State != Established || s.Neighbor.AS != 65002 || s.Neighbor.Address != a("fe80::2%eth1") {
			return fmt.Sprintf("%s %s AS %d: %s", s.State, s.Neighbor.Address, s.Neighbor.AS, s.ErrorText())
		}
		return ""
	})
	r2.settled()
	r1.originate("10.1.0.0/24", "fd00:1::/64")
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via fe80::2 dev eth1")
	r2.wantFeed("10.1.0.0/24 via fe80::1 dev eth1", "fd00:1::/64 via fe80::1 dev eth1")
	r1.wantPaths(Filter{Neighbor: "r2"}, "10.2.0.0/24 * from r2 via fe80::2%eth1 [65002]")

	// Neither what is known already, nor a reload without a difference, touches the session.
	discover(r1, "fe80::2")
	if err := r1.Apply(r1.asked); err != nil {
		t.Fatal(err)
	}
	if s := r1.session("r2"); s.State != Established || s.Flaps != 0 {
		t.Errorf("%s, %d flaps", s.State, s.Flaps)
	}
	// Another address is another neighbour.
	discover(r1, "fe80::7")
	r1.wantFeed()
	discover(r1, "fe80::2")
	r1.wantFeed("10.2.0.0/24 via fe80::2 dev eth1")
}

// Any AS will do but our own.
func TestAnyExternalAS(t *testing.T) {
	for _, as := range []uint32{65001, 65009, 4200000001} {
		t.Run(fmt.Sprint(as), func(t *testing.T) {
			r1, node, _ := rawSite(t, "fe80::2", "fe80::1", func(c *Config) { c.Neighbors[0].AS, c.Neighbors[0].External = 0, true })
			start(t, r1)
			p := dialRaw(t, node, "fe80::1")
			p.send(rawOpen(as, "10.2.0.1", bothFamilies()...))
			p.expect(bgp.BGP_MSG_OPEN)
			if as == 65001 {
				if body := p.expect(bgp.BGP_MSG_NOTIFICATION); body[0] != 2 || body[1] != 2 {
					t.Errorf("the connection ends with %x", body)
				}
				return
			}
			p.send(keepalive)
			r1.settled()
			p.send(announce(bgp.AFI_IP, b16("fe80::2"), "10.2.0.0/24", aspath(as)))
			r1.wantFeed("10.2.0.0/24 via fe80::2 dev tun0")
			r1.originate("10.1.0.0/24") // as to an external neighbour
			for {
				u, _ := parseUpdate(p.expect(bgp.BGP_MSG_UPDATE))
				if !u.announces() {
					continue
				}
				if path := u.find(bgp.BGP_ATTR_TYPE_AS_PATH); string(path.value) != string(aspath(65001)[3:]) || u.find(bgp.BGP_ATTR_TYPE_LOCAL_PREF) != nil {
					t.Errorf("announced with path %x", path.value)
				}
				break
			}
			if s := r1.session("raw"); s.Neighbor.AS != as {
				t.Errorf("the neighbor's AS is shown as %d", s.Neighbor.AS)
			}
		})
	}
}
