package bgp

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"rlr/bgp/rpki"
	"rlr/hoststack/hoststacktest"
)

func vrp(prefix string, length uint8, as uint32) rpki.VRP {
	return rpki.VRP{Prefix: netip.MustParsePrefix(prefix), MaxLength: length, AS: as}
}

func roas(l ...rpki.VRP) *rpki.Table { return rpki.NewTable(l) }

// states is the validation of every path from neighbours, a line each.
func (r *testRouter) states() string {
	r.t.Helper()
	var lines []string
	err := r.Paths(context.Background(), Filter{}, func(p Prefix) bool {
		for _, x := range p.Paths {
			if x.Neighbor != "" {
				lines = append(lines, fmt.Sprintf("%s %s", p.Prefix, x.ROA))
			}
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func (r *testRouter) wantStates(lines ...string) {
	r.t.Helper()
	want := strings.Join(lines, "\n")
	eventually(r.t, 10*time.Second, func() string {
		if got := r.states(); got != want {
			return fmt.Sprintf("%s: states are\n%s\nwant\n%s", r.name, got, want)
		}
		return ""
	})
}

// A change of ROAs takes routes out and in within 5 seconds, and no session notices; so does a change of the policy.
func TestROA(t *testing.T) {
	r1, r2, _ := twoSites(t, func(one, two *Neighbor) {
		one.Families, two.Families = both, both
		one.NextHop6, two.NextHop6 = a("fd00::1"), a("fd00::2")
	})
	r1.cfg.ROA = ROADropInvalid
	start(t, r1, r2)
	r1.established()
	r2.originate("10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/25", "fd00:2::/64")
	all := []string{"10.2.0.0/24 via 169.254.12.2", "10.2.1.0/24 via 169.254.12.2", "10.2.2.0/25 via 169.254.12.2", "fd00:2::/64 via fd00::2"}
	r1.wantFeed(all...)
	r1.wantStates("10.2.0.0/24 ", "10.2.1.0/24 ", "10.2.2.0/25 ", "fd00:2::/64 ") // nothing is said where nothing is known

	elapsed := stopwatch(t)
	r1.SetROAs(roas(vrp("10.2.0.0/24", 24, 65002), vrp("10.2.1.0/24", 24, 65009), vrp("10.2.2.0/24", 24, 65002), vrp("fd00:2::/64", 64, 0)))
	r1.wantFeed(all[0])
	r1.wantStates("10.2.0.0/24 valid")
	if took := elapsed(); took > 5*time.Second {
		t.Errorf("a change of ROAs took %s", took)
	}
	r1.SetROAs(roas(vrp("10.2.0.0/24", 24, 65002), vrp("10.2.1.0/24", 24, 65002), vrp("10.2.2.0/24", 25, 65002)))
	r1.wantFeed(all...)
	r1.wantStates("10.2.0.0/24 valid", "10.2.1.0/24 valid", "10.2.2.0/25 valid", "fd00:2::/64 unknown")

	c := r1.cfg
	c.ROA = ROAStrict
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed(all[:3]...)
	r2.originate("10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/25", "fd00:2::/64", "10.2.9.0/24") // a new one is judged as well
	r1.SetROAs(roas(vrp("fd00::/8", 64, 65002)))
	r1.wantFeed(all[3])
	c.ROA = ROAOff
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed(append(slices.Clone(all[:3]), "10.2.9.0/24 via 169.254.12.2", all[3])...)
	r1.wantStates("10.2.0.0/24 unknown", "10.2.1.0/24 unknown", "10.2.2.0/25 unknown", "10.2.9.0/24 unknown", "fd00:2::/64 valid")
	r1.SetROAs(nil)
	r1.wantStates("10.2.0.0/24 ", "10.2.1.0/24 ", "10.2.2.0/25 ", "10.2.9.0/24 ", "fd00:2::/64 ")
	for _, r := range []*testRouter{r1, r2} {
		for _, s := range r.Sessions() {
			if s.Flaps != 0 || s.State != Established {
				t.Errorf("%s: session %s is %s after %d flaps (%s)", r.name, s.Neighbor.Name, s.State, s.Flaps, s.ErrorText())
			}
		}
	}
}

// VRPs that are there before Run count from the first route on, and a policy that Apply brings finds the latest VRPs.
func TestROABeforeRun(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	r1.cfg.ROA = ROAStrict
	r1.SetROAs(roas(vrp("10.2.0.0/24", 24, 65002)))
	start(t, r1, r2)
	r2.originate("10.2.0.0/24", "10.2.1.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	if lost, _ := r1.feed.counts(); lost != 0 {
		t.Errorf("%d routes were in the feed and went", lost)
	}
}

// Where an export policy asks for the state, a change of ROAs takes back what was announced, and announces it again.
func TestROAExport(t *testing.T) {
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("r2"), n.Node("r3")
	n.Connect(n1, "tun12", addrs("169.254.12.1"), n2, "tun21", addrs("169.254.12.2"))
	n.Connect(n2, "tun23", addrs("169.254.23.2"), n3, "tun32", addrs("169.254.23.3"))
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("169.254.12.2"), AS: 65002}}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{
		{Name: "r1", Address: a("169.254.12.1"), AS: 65001}, {Name: "r3", Address: a("169.254.23.3"), AS: 65003, exportsByROA: true},
	}})
	r3 := newRouter(t, n3, "r3", Config{AS: 65003, RouterID: a("10.3.0.1"), Neighbors: []Neighbor{{Name: "r2", Address: a("169.254.23.2"), AS: 65002}}})
	start(t, r1, r2, r3)
	req := policies(&r2.cfg, r2.ids())
	var out policySet
	out.add("external-invalid", []netip.Addr{a("169.254.23.3")}, matchROA(&api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_EXTERNAL}, rpki.Invalid),
		&api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
	req.DefinedSets = append(req.DefinedSets, out.sets...)
	req.Policies[1].Statements = append(out.statements, req.Policies[1].Statements...)
	if err := r2.running.gobgp.SetPolicies(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	r1.originate("10.1.0.0/24", "10.1.1.0/24")
	r2.originate("10.2.0.0/24")
	one, two, own := "10.1.0.0/24 via 169.254.23.2", "10.1.1.0/24 via 169.254.23.2", "10.2.0.0/24 via 169.254.23.2"
	r3.wantFeed(one, two, own)
	r2.SetROAs(roas(vrp("10.1.0.0/24", 24, 65009), vrp("10.2.0.0/16", 24, 65002)))
	r3.wantFeed(two, own)
	r2.SetROAs(roas(vrp("10.1.0.0/24", 24, 65001), vrp("10.1.1.0/24", 24, 0)))
	r3.wantFeed(one, own)
	r2.wantStates("10.1.0.0/24 valid", "10.1.1.0/24 invalid")
	for _, r := range []*testRouter{r1, r2, r3} {
		for _, s := range r.Sessions() {
			if s.Flaps != 0 {
				t.Errorf("%s: session %s has flapped (%s)", r.name, s.Neighbor.Name, s.ErrorText())
			}
		}
	}
}

// What iBGP neighbours announce is not judged.
func TestROAInternal(t *testing.T) {
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("r2")
	n.Connect(n1, "tun12", addrs("169.254.12.1"), n2, "tun21", addrs("169.254.12.2"))
	r1 := newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), ROA: ROAStrict, Neighbors: []Neighbor{{Name: "r2", Address: a("169.254.12.2"), AS: 65001}}})
	r2 := newRouter(t, n2, "r2", Config{AS: 65001, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{{Name: "r1", Address: a("169.254.12.1"), AS: 65001}}})
	r1.SetROAs(roas(vrp("10.2.0.0/24", 24, 65009)))
	start(t, r1, r2)
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	r1.wantStates("10.2.0.0/24 invalid")
}

// Routes are judged again only where a state has changed.
func TestROARelevance(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	hook := logtest.NewLocal(r1.log.Logger)
	r1.log.Logger.SetLevel(logrus.InfoLevel)
	r1.cfg.ROA = ROADropInvalid
	start(t, r1, r2)
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	judged := func() (out []int) {
		for _, e := range hook.AllEntries() {
			if n, ok := e.Data["neighbors"].(int); ok {
				out = append(out, n)
			}
		}
		return out
	}
	steps := []struct {
		table *rpki.Table
		again int
	}{
		{roas(vrp("10.9.0.0/16", 24, 65009)), 0},                                // of no route that is there
		{roas(vrp("10.2.0.0/24", 24, 65002)), 1},                                // unknown becomes valid
		{roas(vrp("10.2.0.0/24", 24, 65002), vrp("10.2.0.0/16", 16, 65009)), 0}, // valid remains valid
		{roas(vrp("10.2.0.0/16", 16, 65009)), 1},
	}
	var want []int
	for _, s := range steps {
		r1.SetROAs(s.table)
		want = append(want, s.again)
		eventually(t, 10*time.Second, func() string {
			if got := judged(); !slices.Equal(got, want) {
				return fmt.Sprintf("neighbors judged again: %v, want %v", got, want)
			}
			return ""
		})
	}
	r1.wantFeed()
}

// A path that ends with an AS_SET has no origin: VRPs that cover it make it invalid, and it is refused in any case where
// routes are judged (RFC 6811 §2, RFC 9774).
func TestROASet(t *testing.T) {
	r1, node, _ := rawSite(t, "fe80::2", "fe80::1", nil)
	r1.SetROAs(roas(vrp("10.2.0.0/16", 24, 65002)))
	start(t, r1)
	p := dialRaw(t, node, "fe80::1")
	p.establish()
	p.send(withPath("10.2.0.0/24", bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65002})))
	p.send(withPath("10.2.1.0/24", bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65002}), bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SET, []uint32{65002, 65003})))
	p.send(withPath("10.3.1.0/24", bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{65002}), bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SET, []uint32{65002})))
	r1.wantStates("10.2.0.0/24 valid", "10.2.1.0/24 invalid", "10.3.1.0/24 unknown")
	c := r1.cfg
	c.ROA = ROADropInvalid
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	r1.wantStates("10.2.0.0/24 valid")
}

// withPath is an UPDATE with a prefix and an AS_PATH of these segments.
func withPath(prefix string, segments ...bgp.AsPathParamInterface) []byte {
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv4_UC, []bgp.PathNLRI{{NLRI: mustNLRI(prefix)}}, a("fe80::2"))
	if err != nil {
		panic(err)
	}
	m := bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), bgp.NewPathAttributeAsPath(segments), reach}, nil)
	b, err := m.Serialize()
	if err != nil {
		panic(err)
	}
	return b
}

func mustNLRI(prefix string) bgp.NLRI {
	n, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix(prefix))
	if err != nil {
		panic(err)
	}
	return n
}

// Whatever the changes, GoBGP's table is ours.
func TestROATable(t *testing.T) {
	if err := checkROATable(); err != nil {
		t.Fatal(err)
	}
	s := server.NewBgpServer()
	go s.Serve()
	defer s.Stop()
	if err := s.StartBgp(context.Background(), &api.StartBgpRequest{Global: &api.Global{Asn: 65001, RouterId: "10.0.0.1", ListenPort: -1}}); err != nil {
		t.Fatal(err)
	}
	table := roaTableOf(s)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	random := func() rpki.VRP {
		addr := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(4))})
		if rnd.IntN(2) == 0 {
			addr = netip.AddrFrom16([16]byte{0xfd, byte(rnd.IntN(4))})
		}
		p, _ := addr.Prefix(8 + rnd.IntN(12))
		return rpki.VRP{Prefix: p, MaxLength: uint8(p.Bits() + rnd.IntN(4)), AS: uint32(rnd.IntN(3))}
	}
	have := roas()
	for range 50 {
		var list []rpki.VRP
		for range rnd.IntN(30) {
			list = append(list, random())
		}
		next := roas(list...)
		table.change(rpki.Diff(have, next))
		have = next
		got := map[string]bool{}
		err := s.ListRpkiTable(context.Background(), &api.ListRpkiTableRequest{}, func(r *api.Roa) {
			got[fmt.Sprintf("%s/%d-%d AS%d", r.Prefix, r.Prefixlen, r.Maxlen, r.Asn)] = true
		})
		want := map[string]bool{}
		for _, v := range next.All() {
			want[v.String()] = true
		}
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("GoBGP has %v (%v), want %v", got, err, want)
		}
	}
}

// BenchmarkROATable: the Internet's ROAs for GoBGP.
func BenchmarkROATable(b *testing.B) {
	const many = 800_000
	rnd := rand.New(rand.NewPCG(1, 1))
	list := make([]rpki.VRP, 0, many)
	for range many {
		p, err := netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(220)), byte(rnd.IntN(256)), byte(rnd.IntN(256))}).Prefix(16 + rnd.IntN(9))
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, rpki.VRP{Prefix: p, MaxLength: 24, AS: rnd.Uint32()})
	}
	for b.Loop() {
		roaTableOf(server.NewBgpServer()).change(list, nil)
	}
}
