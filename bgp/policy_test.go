package bgp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/bgp/rpki"
	"rlr/hoststack/hoststacktest"
)

// announced makes a route of a neighbour: "PREFIX [AS PATH] COMMUNITY…".
func (p *listeningPeer) announced(text string) {
	p.t.Helper()
	fields := strings.Fields(strings.NewReplacer("[", " [ ", "]", " ] ").Replace(text))
	r := route{prefix: netip.MustParsePrefix(fields[0]), nextHop: p.addr.WithZone("")}
	inPath := false
	seq := []uint32{}
	for _, f := range fields[1:] {
		switch {
		case f == "[" || f == "]":
			inPath = f == "["
		case inPath:
			n, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				p.t.Fatal(err)
			}
			seq = append(seq, uint32(n))
		default:
			high, low, _, err := communityNumber(f)
			if err != nil {
				p.t.Fatal(err)
			}
			r.communities = append(r.communities, uint32(high)<<16|uint32(low))
		}
	}
	r.asPath = []segment{{bgp.BGP_ASPATH_ATTR_TYPE_SEQ, seq}}
	p.announce(r)
}

// wantTold waits until the neighbour was told exactly these routes: "PREFIX [AS PATH] COMMUNITIES".
func (p *listeningPeer) wantTold(lines ...string) {
	p.t.Helper()
	eventually(p.t, 10*time.Second, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		var got []string
		for pfx, r := range p.told {
			m := regexp.MustCompile(`(\[[^]]*\]).* (\[[^]]*\]) \[[^]]*\]$`).FindStringSubmatch(r)
			got = append(got, fmt.Sprint(pfx, " ", m[1], " ", strings.Trim(m[2], "[]")))
		}
		slices.Sort(got)
		slices.Sort(lines)
		if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
			return fmt.Sprintf("%s is told\n%s\nwant\n%s", p.name, g, w)
		}
		return ""
	})
}

// two neighbours, from and to, of other ASes.
func policyPair(t *testing.T, change func(*Config)) (*testRouter, *listeningPeer, *listeningPeer) {
	t.Helper()
	r1, peers := policySite(t)
	c := r1.cfg
	c.Neighbors = slices.Clone(c.Neighbors)
	change(&c)
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	return r1, peers[1], peers[2] // both are of IPv6, and carry both families
}

// neighbor returns the configuration of a neighbour, to change it.
func (c *Config) neighbor(name string) *Neighbor {
	return &c.Neighbors[slices.IndexFunc(c.Neighbors, func(n Neighbor) bool { return n.Name == name })]
}

// The policy dn42 with a neighbour that announces all that must not get in: what does, and what a third network sees of it.
func TestDN42(t *testing.T) {
	r1, from, to := policyPair(t, func(c *Config) {
		c.ROA = ROADropInvalid
		// The default route is for somebody else than DN42.
		c.DN42 = DN42{Own: []netip.Prefix{
			netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("172.20.1.0/24"), netip.MustParsePrefix("fd01::/48"),
		}, Region: 41, Country: 1276}
		c.neighbor("extll").Import, c.neighbor("extll").DN42 = PolicyDN42, DN42Link{Latency: 3, Bandwidth: 24, Crypto: 34}
		c.neighbor("ext6").Export, c.neighbor("ext6").DN42 = PolicyDN42, DN42Link{Latency: 2, Bandwidth: 25, Crypto: 33}
	})
	known := []rpki.VRP{
		vrp("172.20.5.0/24", 28, 4242420005), vrp("172.20.6.0/24", 28, 4242420006), vrp("172.20.7.0/24", 28, 0), vrp("fd05::/44", 48, 4242420005),
	}
	r1.SetROAs(rpki.NewTable(known))
	for _, s := range []string{
		"172.20.5.0/24 [65003 4242420005]",
		"172.20.5.0/25 [65003 4242420005] 64511:7 64511:21 64511:36 64511:43 64511:1380", // the worst of each
		"172.20.6.0/24 [65003 4242420005]",                                               // invalid: another AS
		"172.20.7.0/24 [65003 4242420007]",                                               // invalid: AS 0
		"172.20.5.0/29 [65003 4242420005]",                                               // invalid: too long
		"172.20.8.0/24 [65003 4242420008]",                                               // unknown
		"172.20.8.0/30 [65003 4242420008]",                                               // too long for DN42
		"172.20.1.0/24 [65003]",                                                          // ours
		"172.20.1.128/25 [65003]",
		"fd01::/48 [65003]",
		"8.8.8.0/24 [65003]",
		"0.0.0.0/0 [65003]",
		"10.0.0.0/8 [65003]",
		"10.100.0.0/14 [65003]",
		"172.22.0.53/32 [65003]", // anycast
		"2001:db8::/48 [65003]",
		"fd05::/44 [65003 4242420005]",
		"fd05:0:1::/64 [65003 4242420005]", // invalid: too long
		"fd06::/65 [65003]",
		"172.20.9.0/24 [65003] blackhole", // for us alone
	} {
		from.announced(s)
	}
	if err := r1.Originate([]Origin{
		{Prefix: netip.MustParsePrefix("172.20.1.0/24"), Source: SourceOriginate},
		{Prefix: netip.MustParsePrefix("192.168.5.0/24"), Source: SourceConnected}, // a link's, never announced
	}); err != nil {
		t.Fatal(err)
	}
	lenient := []string{
		"172.20.5.0/24 [65001 65003 4242420005] 64511:3 64511:24 64511:33",
		"172.20.5.0/25 [65001 65003 4242420005] 64511:7 64511:21 64511:43 64511:1380 64511:33",
		"10.100.0.0/14 [65001 65003] 64511:3 64511:24 64511:33",
		"172.22.0.53/32 [65001 65003] 64511:3 64511:24 64511:33",
		"172.20.8.0/24 [65001 65003 4242420008] 64511:3 64511:24 64511:33",
		"fd05::/44 [65001 65003 4242420005] 64511:3 64511:24 64511:33",
		"172.20.1.0/24 [65001] 64511:41 64511:1276 64511:2 64511:25 64511:33",
	}
	to.wantTold(slices.Clone(lenient)...)

	answer, err := r1.TestPolicy(context.Background(), PolicyQuestion{Prefix: netip.MustParsePrefix("172.20.7.0/24"), Neighbor: "extll"})
	if err != nil || answer.Accepted || !strings.Contains(answer.Reason, "invalid") || answer.Validity != ROAInvalid || answer.Supposed || *answer.InTable {
		t.Errorf("%+v (%v)", answer, err)
	}
	answer, err = r1.TestPolicy(context.Background(), PolicyQuestion{Prefix: netip.MustParsePrefix("8.8.8.0/24"), Neighbor: "extll"})
	if err != nil || answer.Accepted || answer.Name != "not a network of DN42" || answer.Reason != "it matches: not-prefix DN42's networks" {
		t.Errorf("%+v (%v)", answer, err)
	}

	// Strict, without a new session: what nobody has authorized goes.
	c := r1.cfg
	c.ROA = ROAStrict
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	to.wantTold(slices.DeleteFunc(slices.Clone(lenient), func(s string) bool {
		return strings.HasPrefix(s, "10.100") || strings.HasPrefix(s, "172.22") || strings.HasPrefix(s, "172.20.8")
	})...)
	c.ROA = ROADropInvalid
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	to.wantTold(lenient...)
	// An authorization that comes makes a route go, and come back with it.
	r1.SetROAs(rpki.NewTable(known, []rpki.VRP{vrp("172.20.8.0/24", 24, 4242420009)}))
	to.wantTold(slices.DeleteFunc(slices.Clone(lenient), func(s string) bool { return strings.HasPrefix(s, "172.20.8") })...)
	r1.SetROAs(rpki.NewTable(known))
	to.wantTold(lenient...)
	for _, s := range r1.Sessions() {
		if s.Flaps != 0 {
			t.Errorf("%s flapped", s.Neighbor.Name)
		}
	}
	if s := r1.session("extll"); s.Received != 20 || s.Accepted != 7 {
		t.Errorf("received %d, accepted %d", s.Received, s.Accepted)
	}
}

// RFC 8326: 0 and nothing else, whatever a rule sets; unless it takes the community away first.
func TestGracefulShutdownCommunity(t *testing.T) {
	pref := uint32(200)
	r1, from, _ := policyPair(t, func(c *Config) {
		c.Policies = map[Policy][]Rule{"raise": {
			{Match: Match{Prefixes: []PrefixRange{{netip.MustParsePrefix("10.3.0.0/16"), 16, 16}}}, Set: Set{Communities: Edit{Remove: []string{"graceful-shutdown"}}}},
			{Set: Set{LocalPref: &pref}, Action: Accept},
		}}
		c.neighbor("extll").Import = "raise"
	})
	from.announced("10.1.0.0/16 [65003] graceful-shutdown")
	from.announced("10.2.0.0/16 [65003]")
	from.announced("10.3.0.0/16 [65003] graceful-shutdown")
	eventually(t, 10*time.Second, func() string {
		got := map[string]uint32{}
		for pfx, paths := range r1.table() {
			r := routeOf(pfx, SourceExternal, paths[0].Attrs)
			if r.localPref == nil {
				return fmt.Sprintf("%s has no local preference", pfx)
			}
			got[pfx.String()] = *r.localPref
		}
		if g, w := fmt.Sprint(got), fmt.Sprint(map[string]uint32{"10.1.0.0/16": 0, "10.2.0.0/16": 200, "10.3.0.0/16": 200}); g != w {
			return g + ", want " + w
		}
		return ""
	})
}

// RFC 1997, which GoBGP leaves to its user.
func TestWellKnownCommunities(t *testing.T) {
	r1, peers := policySite(t)
	from, external, internal := peers[1], peers[2], peers[3]
	for _, s := range []string{"10.1.0.0/16 [65003]", "10.2.0.0/16 [65003] no-export", "10.3.0.0/16 [65003] no-advertise", "10.4.0.0/16 [65003] no-export-subconfed", "10.5.0.0/16 [65003] no-peer"} {
		from.announced(s)
	}
	external.wantTold("10.1.0.0/16 [65001 65003] ", "10.5.0.0/16 [65001 65003] no-peer")
	internal.wantTold("10.1.0.0/16 [65003] ", "10.2.0.0/16 [65003] no-export", "10.4.0.0/16 [65003] no-export-subconfed", "10.5.0.0/16 [65003] no-peer")
	a, err := r1.TestPolicy(context.Background(), PolicyQuestion{Prefix: netip.MustParsePrefix("10.2.0.0/16"), Neighbor: "ext6", Export: true})
	if err != nil || a.Accepted || !strings.HasPrefix(a.Reason, "community no-export") || a.From != "extll" {
		t.Errorf("%+v (%v)", a, err)
	}
}

// RFC 8212 §2, and what the explainer says of it.
func TestDefaultDeny(t *testing.T) {
	r1, from, to := policyPair(t, func(c *Config) { c.EBGPDefault = PolicyNone })
	from.announced("10.1.0.0/16 [65003]")
	r1.originate("10.9.0.0/16")
	eventually(t, 10*time.Second, func() string {
		if s := r1.session("extll"); s.Received != 1 || s.Accepted != 0 {
			return fmt.Sprintf("received %d, accepted %d", s.Received, s.Accepted)
		}
		return ""
	})
	to.wantTold()
	a, err := r1.TestPolicy(context.Background(), PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Neighbor: "extll"})
	if err != nil || a.Accepted || !strings.Contains(a.Reason, "RFC 8212") {
		t.Errorf("%+v (%v)", a, err)
	}
	c := r1.cfg
	c.EBGPDefault = PolicyAll
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	to.wantTold("10.1.0.0/16 [65001 65003] ", "10.9.0.0/16 [65001] ")
}

// What an explanation says, for a route that there is, and for one that is supposed.
func TestExplain(t *testing.T) {
	pref := uint32(300)
	r1, from, _ := policyPair(t, func(c *Config) {
		c.Policies = map[Policy][]Rule{"p": {
			{Name: "far", Match: Match{ASLength: &Span{4, -1}}, Action: Reject},
			{Match: Match{Communities: []string{"65001:7"}, Words: map[string]string{"community": "mine"}}, Set: Set{LocalPref: &pref, Communities: Edit{Add: []string{"no-export"}}}},
			{Match: Match{Prefixes: []PrefixRange{{netip.MustParsePrefix("10.0.0.0/8"), 8, 24}}, ASLast: []uint32{65010}}, Action: Accept},
		}}
		c.neighbor("extll").Import = "p"
		c.neighbor("int").Export = "p"
	})
	from.announced("10.1.0.0/16 [65003 65010] 65001:7")
	ask := func(q PolicyQuestion) PolicyAnswer {
		t.Helper()
		if q.Neighbor == "" {
			q.Neighbor = "extll"
		}
		a, err := r1.TestPolicy(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	eventually(t, 10*time.Second, func() string {
		if a := ask(PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/16")}); a.Supposed || !*a.InTable {
			return fmt.Sprintf("%+v", a)
		}
		return ""
	})
	a := ask(PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/16")})
	text := func(a PolicyAnswer) string {
		var l []string
		for _, r := range a.Rules {
			l = append(l, fmt.Sprintf("%s %d %v %s%s %v", r.Policy, r.Rule, r.Matched, r.Action, r.Why, r.Changes))
		}
		return fmt.Sprintf("%v by %s %d: %s\n%s", a.Accepted, a.Policy, a.Rule, a.Reason, strings.Join(l, "\n"))
	}
	want := `true by p 3: it matches: prefix 10.0.0.0/8 8-24, as-path last 65010
p 1 false it does not have as-path length 4 or more []
p 2 true continue [local-pref none → 300 community no-export added]
p 3 true accept []`
	if got := text(a); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	a = ask(PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Route: &SupposedRoute{ASPath: "65003 1 2 3"}})
	if got, want := text(a), "false by p 1: it matches: as-path length 4 or more\np 1 true reject []"; got != want || !a.Supposed {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	a = ask(PolicyQuestion{Prefix: netip.MustParsePrefix("fd00::/48")})
	want = `false by p 0: no rule accepts it
p 1 false it does not have as-path length 4 or more []
p 2 false it does not have community mine []
p 3 false it does not have prefix 10.0.0.0/8 8-24 []
p 0 true reject []`
	if got := text(a); got != want || !a.Supposed {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if a := ask(PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Neighbor: "extll", Export: true}); a.Blocked != "it comes from the neighbor itself" {
		t.Errorf("%+v", a)
	}
	for _, q := range []PolicyQuestion{
		{Neighbor: "extll", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Route: &SupposedRoute{ASPath: "x"}},
		{Neighbor: "extll", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Route: &SupposedRoute{Communities: []string{"1"}}},
		{Neighbor: "extll", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Route: &SupposedRoute{LargeCommunities: []string{"1:2"}}},
		{Neighbor: "extll", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Route: &SupposedRoute{Origin: "bgp"}},
		{Neighbor: "nobody", Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		{Neighbor: "extll"},
	} {
		if _, err := r1.TestPolicy(context.Background(), q); err == nil {
			t.Errorf("%+v: no error", q)
		}
	}
}

// otherNumber matches every number but one.
func TestOtherNumber(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []uint32{1, 7, 10, 99, 65001, 4242420001, 4294967294} {
		re := regexp.MustCompile("^" + otherNumber(n) + "$")
		for range 2000 {
			m := rng.Uint32() >> rng.IntN(32)
			if rng.IntN(4) == 0 {
				m = n + uint32(rng.IntN(20)) - 10
			}
			if got := re.MatchString(strconv.FormatUint(uint64(m), 10)); got != (m != n) {
				t.Fatalf("other than %d: %d is %v", n, m, got)
			}
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"there is no policy x":                 func(c *Config) { c.Neighbors[0].Import = "x" },
		"there is no policy y":                 func(c *Config) { c.Neighbors[0].ExportOf = map[Family]Policy{IPv6: "y"} },
		"policy all is built in":               func(c *Config) { c.Policies[PolicyAll] = nil },
		"to ourselves":                         func(c *Config) { c.Neighbors[0].Import = "self" },
		"asks for the next hop":                func(c *Config) { c.Neighbors[0].AS, c.Neighbors[0].Export = 65001, "via" },
		"dn42: latency 10":                     func(c *Config) { c.Neighbors[0].DN42.Latency = 10 },
		"dn42: country 276":                    func(c *Config) { c.DN42.Country = 276 },
		`"x" is not a community`:               func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{Communities: []string{"x"}}}} },
		`"65535:*" is a pattern`:               func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{Communities: []string{"65535:*"}}}} },
		`"1:*" is a pattern`:                   func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{Communities: Edit{Add: []string{"1:*"}}}}} },
		`"1:2" is not a large community`:       func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{LargeCommunities: []string{"1:2"}}}} },
		"is no range of prefixes":              func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{Prefixes: []PrefixRange{{}}}}} },
		"a route that is rejected is not":      func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{Prepend: 1}, Action: Reject}} },
		`"bgp" is no source of routes`:         func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{Sources: []Source{"bgp"}}}} },
		`"good" is no result of route origin`:  func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{ROA: "good"}}} },
		"no next hop is asked for":             func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{NextHops: []netip.Addr{}}}} },
		"MED -1 does not fit":                  func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{MED: &MED{-1, false}}}} },
		`"x" is no origin`:                     func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{Origin: "x"}}} },
		"5 to 3 is no range of lengths":        func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{ASLength: &Span{5, 3}}}} },
		"either ourselves or an address":       func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{NextHopSelf: true, NextHop: a("1.1.1.1")}}} },
		"unknown family 9":                     func(c *Config) { c.Policies["p"] = []Rule{{Match: Match{Families: []Family{9}}}} },
		`"1:2:*" is a pattern, and only a lar`: func(c *Config) { c.Policies["p"] = []Rule{{Set: Set{LargeCommunities: Edit{Add: []string{"1:2:*"}}}}} },
	} {
		c := Config{AS: 65001, RouterID: a("10.0.0.1"), Neighbors: []Neighbor{{Name: "x", Address: a("192.0.2.1"), AS: 65002}}, Policies: map[Policy][]Rule{
			"self": {{Set: Set{NextHopSelf: true}}}, "via": {{Match: Match{NextHops: addrs("1.1.1.1")}}},
		}}
		if _, err := c.check(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if _, err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

// A neighbour that is changed in nothing else keeps its routes when a policy of another changes: only whom it concerns is asked.
func TestPolicyChangeConcerns(t *testing.T) {
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("r2")
	n.Connect(n1, "a", addrs("169.254.1.1"), n2, "b", addrs("169.254.1.2"))
	c := Config{AS: 65001, RouterID: a("10.0.0.1"), Policies: map[Policy][]Rule{"p": {{Action: Accept}}, "q": {{Action: Accept}}}, Neighbors: []Neighbor{
		{Name: "x", Address: a("169.254.1.2"), AS: 65002, Import: "p", Export: "q"}, {Name: "y", Address: a("169.254.9.2"), AS: 65003, Import: "q", Export: "p"},
	}}
	r := newRouter(t, n1, "r1", c)
	ids := r.ids()
	before := policies(&r.cfg, ids)
	next := r.cfg
	next.Policies = map[Policy][]Rule{"p": {{Match: Match{Origins: []string{"igp"}}, Action: Accept}}, "q": c.Policies["q"]}
	after := policies(&next, ids)
	for _, x := range []struct {
		name string
		d    direction
		want bool
	}{{"169.254.1.2", importing, true}, {"169.254.1.2", exporting, false}, {"169.254.9.2", importing, false}, {"169.254.9.2", exporting, true}} {
		id := ids[a(x.name)]
		if got := before.signature(x.d, id) != after.signature(x.d, id); got != x.want {
			t.Errorf("%s of %s changed: %v, want %v", x.d, x.name, got, x.want)
		}
	}
	if !before.equal(policies(&r.cfg, ids)) || before.equal(after) {
		t.Error("equal programs are not, or others are")
	}
}
