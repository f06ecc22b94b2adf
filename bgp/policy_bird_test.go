package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Policies with a neighbour that is another implementation: BIRD sees what they set, and what they take back.
func TestPolicyWithBird(t *testing.T) {
	b, stack := newBird(t, "")
	feed := newRecorder()
	pref := uint32(250)
	ours := func(p string) PrefixRange { return PrefixRange{netip.MustParsePrefix(p), 16, 24} }
	c := Config{
		AS: 65001, RouterID: a("10.1.0.1"), EBGPDefault: PolicyNone,
		Policies: map[Policy][]Rule{
			"in": {{Match: Match{Prefixes: []PrefixRange{ours("10.2.0.0/16")}, ASLast: []uint32{65002}}, Set: Set{LocalPref: &pref, Communities: Edit{Add: []string{"65001:9"}}}, Action: Accept}},
			"out": {
				{Match: Match{Prefixes: []PrefixRange{ours("10.1.0.0/16")}, Sources: []Source{SourceStatic}}, Action: Reject},
				{Match: Match{Sources: []Source{SourceOwn}}, Set: Set{
					MED: &MED{Value: 70}, Prepend: 2, Origin: "egp",
					Communities: Edit{Add: []string{"65001:1", "no-export"}}, LargeCommunities: Edit{Add: []string{"65001:2:3"}},
				}, Action: Accept},
			},
		},
		Neighbors: []Neighbor{{
			Name: "bird", Address: a("127.0.0.2"), LocalAddress: a("127.0.0.1"), AS: 65002, Multihop: true,
			Families: both, NextHop6: a("fd00:99::1"), HoldTime: 30 * time.Second, Import: "in", Export: "out",
		}},
	}
	s, err := New(Options{Config: c, Stack: stack, Feed: feed, Log: testLog(t, "r1")})
	if err != nil {
		t.Fatal(err)
	}
	r := &testRouter{Speaker: s, t: t, name: "r1", feed: feed}
	start(t, r)
	if err := r.Originate([]Origin{
		{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Source: SourceOriginate}, {Prefix: netip.MustParsePrefix("10.1.1.0/24"), Source: SourceStatic},
	}); err != nil {
		t.Fatal(err)
	}
	b.start()
	r.established()
	r.wantFeed("10.2.0.0/24 via 10.99.0.2")
	has := func(want, not []string) {
		t.Helper()
		eventually(t, 10*time.Second, func() string {
			got := b.ask("show route protocol r1 all")
			for _, w := range want {
				if !strings.Contains(got, w) {
					return fmt.Sprintf("bird has no %s in\n%s", w, got)
				}
			}
			for _, w := range not {
				if strings.Contains(got, w) {
					return fmt.Sprintf("bird has %s in\n%s", w, got)
				}
			}
			return ""
		})
	}
	attributes := []string{
		"10.1.0.0/24", "BGP.as_path: 65001 65001 65001", "BGP.med: 70", "BGP.origin: EGP", "(65001,1) (65535,65281)", "BGP.large_community: (65001, 2, 3)",
	}
	has(attributes, []string{"10.1.1.0/24"})
	for _, p := range r.table()[netip.MustParsePrefix("10.2.0.0/24")] {
		in := routeOf(netip.MustParsePrefix("10.2.0.0/24"), SourceExternal, p.Attrs)
		if got := in.describe(); got.LocalPref != 250 || fmt.Sprint(got.Communities) != "[65001:9]" {
			t.Errorf("imported as %+v", got)
		}
	}

	// The static route turns into one that the configuration announces: it may go now. Then it is static again.
	r.originate("10.1.0.0/24", "10.1.1.0/24")
	has(append(attributes, "10.1.1.0/24"), nil)
	if err := r.Originate([]Origin{
		{Prefix: netip.MustParsePrefix("10.1.0.0/24")}, {Prefix: netip.MustParsePrefix("10.1.1.0/24"), Source: SourceStatic},
	}); err != nil {
		t.Fatal(err)
	}
	has(attributes, []string{"10.1.1.0/24"})

	// Other policies, the same session.
	c.Policies = map[Policy][]Rule{"in": {{Match: Match{Families: []Family{IPv6}}, Action: Accept}}, "out": {{Match: Match{Sources: []Source{SourceStatic}}, Action: Accept}}}
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	r.wantFeed("fd00:2::/64 via fd00:99::2")
	has([]string{"10.1.1.0/24"}, []string{"10.1.0.0/24", "65281"})
	if answer, err := r.TestPolicy(context.Background(), PolicyQuestion{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Neighbor: "bird", Export: true}); err != nil || answer.Accepted || answer.Reason != "no rule accepts it" {
		t.Errorf("%+v (%v)", answer, err)
	}
	if s := r.session("bird"); s.Flaps != 0 || s.Received != 2 || s.Accepted != 1 {
		t.Errorf("%d flaps, received %d, accepted %d", s.Flaps, s.Received, s.Accepted)
	}
}
