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
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/bgp/rpki"
)

// policyDice makes random routes and policies out of few values, so that they meet.
type policyDice struct{ *rand.Rand }

func (d policyDice) yes(percent int) bool { return d.IntN(100) < percent }

func one[T any](d policyDice, l ...T) T { return l[d.IntN(len(l))] }

func some[T any](d policyDice, l ...T) []T {
	out := []T{}
	for range 1 + d.IntN(3) {
		out = append(out, one(d, l...))
	}
	return out
}

var (
	dicePrefixes = []string{
		"10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.2.0.0/16", "172.20.1.0/24", "172.20.1.0/27", "172.20.0.53/32", "172.22.7.7/32", "192.0.2.0/24", "8.8.8.0/24",
		"fd00:1::/48", "fd00:1:2::/64", "fd00:2::/32", "2001:db8::/32", "2001:db8:1::/48",
	}
	diceAS          = []uint32{65002, 65003, 65004, 65010, 4242420001}
	diceCommunities = []string{"65001:1", "65001:2", "65002:1", "64511:1", "64511:3", "64511:7", "64511:21", "64511:24", "64511:31", "64511:35", "64511:43", "no-export", "no-advertise", "graceful-shutdown", "blackhole"}
	diceLarge       = []string{"65001:1:1", "65001:1:2", "65001:2:1", "65002:1:1"}
)

func (d policyDice) route(prefix string, p *listeningPeer) route {
	r := route{prefix: netip.MustParsePrefix(prefix), origin: d.IntN(3)}
	r.nextHop = p.addr.WithZone("")
	if r.family() == IPv6 && r.nextHop.Is4() {
		r.nextHop = a("fd00:9::9")
	}
	if d.yes(20) {
		r.nextHop = a("fd00:9::8")
		if r.family() == IPv4 {
			r.nextHop = a("203.0.113.8")
		}
	}
	if p.as != 65001 {
		r.asPath = []segment{{bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{p.as}}}
	} else {
		pref := uint32(100)
		r.localPref = &pref
	}
	for range d.IntN(4) {
		n := one(d, diceAS...)
		if len(r.asPath) == 0 {
			r.asPath = []segment{{typ: bgp.BGP_ASPATH_ATTR_TYPE_SEQ}}
		}
		r.asPath[0].as = append(r.asPath[0].as, n)
	}
	if d.yes(40) {
		med := uint32(d.IntN(3)) * 50
		r.med = &med
	}
	for _, c := range some(d, append(diceCommunities, markHit, markPartial[0])...) {
		if d.yes(40) {
			high, low, _, _ := communityNumber(c)
			r.communities = append(r.communities, uint32(high)<<16|uint32(low))
		}
	}
	for _, c := range some(d, diceLarge...) {
		if d.yes(40) {
			var l [3]uint32
			_, _ = fmt.Sscanf(c, "%d:%d:%d", &l[0], &l[1], &l[2])
			if !slices.Contains(r.large, l) { // else it is made so at once (RFC 8092 §5)
				r.large = append(r.large, l)
			}
		}
	}
	return r
}

func (d policyDice) ranges() (l []PrefixRange) {
	for range d.IntN(3) + 1 {
		p := netip.MustParsePrefix(one(d, dicePrefixes...))
		if d.yes(50) {
			p = netip.PrefixFrom(p.Addr(), max(p.Bits()-d.IntN(16), 8)).Masked()
		}
		r := PrefixRange{p, p.Bits(), p.Bits()}
		if d.yes(70) {
			r.Max = p.Bits() + d.IntN(p.Addr().BitLen()-p.Bits()+1)
			r.Min += d.IntN(r.Max - r.Min + 1)
		}
		l = append(l, r)
	}
	return l
}

func (d policyDice) match() (m Match) {
	if d.yes(40) {
		m.Prefixes, m.NotPrefixes = d.ranges(), d.yes(30)
	}
	if d.yes(15) {
		m.Families = some(d, IPv4, IPv6)
	}
	if d.yes(15) {
		m.ASContains = some(d, diceAS...)
	}
	if d.yes(15) {
		m.ASLast = some(d, append(diceAS, 65001)...)
	}
	if d.yes(15) {
		m.ASNeighbor = some(d, diceAS...)
	}
	if d.yes(15) {
		m.ASLength = &Span{d.IntN(4), d.IntN(6) - 1}
		if m.ASLength.Max >= 0 {
			m.ASLength.Max = max(m.ASLength.Max, m.ASLength.Min)
		}
	}
	if d.yes(25) {
		m.Communities, m.NotCommunities = some(d, append(diceCommunities, "65001:*", "64511:*")...), d.yes(30)
	}
	if d.yes(15) {
		m.LargeCommunities = some(d, append(diceLarge, "65001:*:1", "65001:1:*", "65001:*:*")...)
	}
	if d.yes(15) {
		m.Origins = some(d, "igp", "egp", "incomplete")
	}
	if d.yes(10) {
		m.NextHops = some(d, a("203.0.113.8"), a("fd00:9::8"), a("fd00:9::9"), a("169.254.1.2"))
	}
	if d.yes(20) {
		m.Sources = some(d, SourceOwn, SourceOriginate, SourceConnected, SourceStatic, SourceLearned, SourceInternal, SourceExternal)
	}
	if d.yes(15) {
		m.ROA = one(d, ROAValid, ROAInvalid, ROAUnknown)
	}
	return m
}

func (d policyDice) edit(exact, patterns []string) (e Edit) {
	if d.yes(10) {
		e.Replace, e.With = true, some(d, exact...)[d.IntN(2):]
	}
	if d.yes(25) {
		e.Remove = some(d, patterns...)
	}
	if d.yes(25) {
		e.Add = some(d, exact...)
	}
	return e
}

func (d policyDice) rule(export bool) Rule {
	r := Rule{Match: d.match(), Action: one(d, Continue, Continue, Accept, Accept, Reject)}
	if r.Action == Reject {
		return r
	}
	s := &r.Set
	if d.yes(25) {
		pref := one(d, uint32(0), 50, 200)
		s.LocalPref = &pref
	}
	if d.yes(20) {
		s.MED = &MED{int64(d.IntN(3)) * 20, false}
		if d.yes(60) {
			s.MED = &MED{int64(d.IntN(120) - 60), true}
		}
	}
	if d.yes(15) {
		s.Origin = one(d, "igp", "egp", "incomplete")
	}
	if d.yes(15) {
		s.Prepend = uint8(1 + d.IntN(3))
	}
	if export {
		s.NextHopSelf = d.yes(10)
	}
	if !s.NextHopSelf && d.yes(10) {
		s.NextHop = one(d, a("203.0.113.77"), a("fd00:77::1"))
	}
	s.Communities = d.edit(diceCommunities, append(diceCommunities, "65001:*", "64511:*"))
	s.LargeCommunities = d.edit(diceLarge, append(diceLarge, "65001:*:1", "65001:*:*"))
	return r
}

func (d policyDice) policies(c *Config) {
	c.Policies = map[Policy][]Rule{}
	// p0 is for imports and p5 for exports to other ASes, which may ask for the next hop; p1 and p3 may set it to ourselves.
	for i := range 6 {
		name := Policy(fmt.Sprintf("p%d", i))
		for range 1 + d.IntN(6) {
			r := d.rule(i%2 == 1)
			if i > 0 && i < 5 {
				r.Match.NextHops = nil
			}
			c.Policies[name] = append(c.Policies[name], r)
		}
	}
	in, out := []Policy{"p0", "p2", "p4"}, []Policy{"p1", "p2", "p3", "p4"}
	in = append(in, PolicyAll, PolicyDefault, PolicyNone, PolicyDN42)
	out = append(out, PolicyAll, PolicyDefault, PolicyNone, PolicyDN42)
	c.EBGPDefault = one(d, PolicyAll, PolicyNone)
	c.ROA = one(d, ROAOff, ROAOff, ROADropInvalid, ROAStrict)
	c.DN42 = DN42{
		Own:    []netip.Prefix{netip.MustParsePrefix("172.20.1.0/24")},
		Region: one(d, uint16(0), 41), Country: one(d, uint16(0), 1276),
	}
	c.Neighbors = slices.Clone(c.Neighbors)
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		out := out
		if n.AS != c.AS {
			out = append(slices.Clone(out), "p5")
		}
		n.Import, n.Export, n.ImportOf, n.ExportOf = one(d, in...), one(d, out...), nil, nil
		if d.yes(30) {
			n.ImportOf = map[Family]Policy{one(d, IPv4, IPv6): one(d, in...)}
		}
		if d.yes(30) {
			n.ExportOf = map[Family]Policy{one(d, IPv4, IPv6): one(d, out...)}
		}
		n.DN42 = DN42Link{uint16(d.IntN(10)), one(d, uint16(0), 21, 23, 25), one(d, uint16(0), 31, 34, 36)}
	}
}

func (d policyDice) origins() (l []Origin) {
	for range d.IntN(8) {
		l = append(l, Origin{
			Prefix: netip.MustParsePrefix(one(d, dicePrefixes...)),
			Source: one(d, SourceOriginate, SourceConnected, SourceStatic, SourceLearned),
		})
	}
	return l
}

// What the explainer says is what GoBGP does: with random policies and routes, for each neighbour, both ways, attributes
// included, when routes come, and when the policies change under them. No session ends for that.
func TestPolicyLikeGoBGP(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := policyDice{rand.New(rand.NewPCG(seed, 1))}
	r1, peers := policySite(t)
	var vrps []rpki.VRP
	for range 12 {
		p := netip.MustParsePrefix(one(d, dicePrefixes...))
		vrps = append(vrps, rpki.VRP{Prefix: p, MaxLength: uint8(p.Bits() + d.IntN(p.Addr().BitLen()-p.Bits()+1)), AS: one(d, append(diceAS, 0)...)})
	}
	r1.SetROAs(rpki.NewTable(vrps))
	r1.takeROAs(r1.running)
	seen := map[string]int{}
	for round := range 60 {
		if round%3 != 1 { // else the policies stay, and other routes come
			c := r1.cfg
			d.policies(&c)
			if err := r1.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		if round%3 != 2 {
			for _, p := range peers {
				for range 8 {
					p.announce(d.route(one(d, dicePrefixes...), p))
				}
			}
			if err := r1.Originate(d.origins()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, 10*time.Second, func() string { return importsDiffer(r1, peers, seen) })
		eventually(t, 10*time.Second, func() string { return exportsDiffer(r1, peers, seen) })
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
	for _, s := range r1.Sessions() {
		if s.Flaps != 0 || s.State != Established {
			t.Errorf("%s: %d flaps, %s: %s", s.Neighbor.Name, s.Flaps, s.State, s.ErrorText())
		}
	}
	t.Log(seen)
	for _, what := range []string{"import accept", "import reject", "export accept", "export reject"} {
		if seen[what] == 0 {
			t.Errorf("there was no %s", what)
		}
	}
}

func (r *testRouter) table() map[netip.Prefix][]*apiutil.Path {
	all := map[netip.Prefix][]*apiutil.Path{}
	for _, f := range both {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f.wire()}
		if err := r.running.gobgp.ListPath(req, func(n bgp.NLRI, paths []*apiutil.Path) {
			if pfx, ok := prefixOf(n); ok {
				all[pfx] = paths
			}
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

func (r *testRouter) evaluatorFor(name string, export bool) (*evaluator, *peer) {
	p, err := r.peerByName(name)
	if err != nil {
		r.t.Fatal(err)
	}
	e := r.evaluator(r.running, p, export)
	e.validate = func(x *route) Validity {
		roas, err := r.running.roas(context.Background(), x.prefix)
		if err != nil {
			r.t.Fatal(err)
		}
		return validator(roas, r.cfg.AS)(x)
	}
	return e, p
}

func importsDiffer(r *testRouter, peers []*listeningPeer, seen map[string]int) string {
	table := r.table()
	for _, p := range peers {
		e, peer := r.evaluatorFor(p.name, false)
		for pfx, sent := range p.sent {
			sent.source = SourceInternal
			if e.external {
				sent.source = SourceExternal
			}
			want := "nothing"
			ok, out, _ := e.run(sent)
			if ok {
				want = out.text()
			}
			got := "nothing"
			want = strings.ReplaceAll(want, " pref 0 ", " pref 1 ")
			for _, x := range table[pfx] {
				if x.PeerAddress == peer.id {
					got = strings.ReplaceAll(routeOf(pfx, sent.source, x.Attrs).text(), " pref 0 ", " pref 1 ") // see zeroLocalPref
				}
			}
			if got != want {
				return fmt.Sprintf("import from %s of\n%s\nGoBGP: %s\nwant:  %s\n%s", p.name, sent.text(), got, want, r.traceText(p.name, false, sent))
			}
			if ok {
				seen["import accept"]++
			} else {
				seen["import reject"]++
			}
		}
	}
	return ""
}

func exportsDiffer(r *testRouter, peers []*listeningPeer, seen map[string]int) string {
	table := r.table()
	for _, p := range peers {
		e, peer := r.evaluatorFor(p.name, true)
		want := map[netip.Prefix]string{}
		for pfx, paths := range table {
			best, from := paths[0], r.peerByID(paths[0].PeerAddress)
			source := SourceOwn
			switch {
			case from == nil:
			case from.config().AS == r.cfg.AS:
				source = SourceInternal
			default:
				source = SourceExternal
			}
			in := routeOf(pfx, source, best.Attrs)
			if r.blocked(peer, from, &in) != "" {
				seen["export blocked"]++
				continue
			}
			ok, out, _ := e.run(in)
			if !r.cfg.asksLate(peer.config()) {
				// What GoBGP asks when another path takes this one's place: a path that it announced must be withdrawn then.
				if announced, _, _ := e.execute(in); announced != ok {
					return fmt.Sprintf("export to %s of %s: accepted %v, and without our AS in front %v", p.name, in.text(), ok, announced)
				}
			}
			if !ok {
				seen["export reject"]++
				continue
			}
			seen["export accept"]++
			want[pfx] = out.text()
		}
		p.mu.Lock()
		told := maps.Clone(p.told)
		p.mu.Unlock()
		for pfx := range want {
			if told[pfx] != want[pfx] {
				var all strings.Builder
				for _, x := range table[pfx] {
					fmt.Fprintln(&all, x.PeerAddress, x.Best, routeOf(pfx, SourceOwn, x.Attrs).text())
				}
				return fmt.Sprintf("export to %s of %s\nGoBGP: %s\nwant:  %s\n%s", p.name, pfx, told[pfx], want[pfx], all.String())
			}
		}
		for pfx := range told {
			if want[pfx] == "" {
				return fmt.Sprintf("export to %s of %s: %s, want nothing", p.name, pfx, told[pfx])
			}
		}
	}
	return ""
}

func (r *testRouter) traceText(name string, export bool, in route) string {
	e, _ := r.evaluatorFor(name, export)
	_, _, trace := e.run(in)
	var b strings.Builder
	for _, x := range trace {
		fmt.Fprintf(&b, "%v %s: %s %s\n\t%s\n", x.matched, x.step.Name, x.step.Conditions, x.step.Actions, x.after.text())
	}
	return b.String()
}
