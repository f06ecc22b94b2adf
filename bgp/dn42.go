package bgp

import (
	"fmt"
	"net/netip"
	"slices"
)

// This file is the built-in policy dn42: what the networks of DN42 expect of each other, from the wiki's "Filter", "BGP
// communities" pages; Config.ROA is for all external neighbours and so for those, too. It is made of the rules that anybody could write, so that what compiles, explains and tests
// those does the same for these.

// DN42 is what the policy must know of us.
type DN42 struct {
	Own     []netip.Prefix // ours: nobody else announces them to us, nor parts of them; those outside of DN42's networks do not count
	Region  uint16         // a community of own routes, 41 to 57; 0: none
	Country uint16         // likewise, 1000 and a number of ISO 3166-1; 0: none
}

// DN42Link says what the link to a neighbour is like, in the numbers of the wiki's tables. A 0 says nothing.
type DN42Link struct {
	Latency   uint16 // 1 to 9: class x is up to e^x ms, and 9 any longer
	Bandwidth uint16 // 21 to 25: class 2x is 10^(x-2) Mb/s at least
	Crypto    uint16 // 31 (none) to 36
}

// dn42High is the upper half of DN42's communities.
const dn42High = 64511

// numbers is a range of DN42's communities.
type numbers struct {
	what   string
	lo, hi uint16
}

var (
	dn42Latency   = numbers{"latency", 1, 9}
	dn42Bandwidth = numbers{"bandwidth", 21, 25}
	dn42Crypto    = numbers{"crypto", 31, 36}
	dn42Region    = numbers{"region", 41, 57}
	dn42Country   = numbers{"country", 1001, 1999}
)

func (n numbers) check(v uint16) error {
	if v != 0 && (v < n.lo || v > n.hi) {
		return fmt.Errorf("dn42: %s %d is not from %d to %d", n.what, v, n.lo, n.hi)
	}
	return nil
}

func (l DN42Link) check() error {
	for _, c := range []struct {
		numbers
		value uint16
	}{{dn42Latency, l.Latency}, {dn42Bandwidth, l.Bandwidth}, {dn42Crypto, l.Crypto}} {
		if err := c.check(c.value); err != nil {
			return err
		}
	}
	return nil
}

func (d DN42) check() error {
	if err := dn42Region.check(d.Region); err != nil {
		return err
	}
	return dn42Country.check(d.Country)
}

// dn42Networks is what may be announced in DN42, its anycast addresses and the networks that it is connected to.
var dn42Networks = func() (l []PrefixRange) {
	for _, r := range []struct {
		prefix   string
		min, max int
	}{
		{"172.20.0.0/14", 21, 29},
		{"172.20.0.0/24", 28, 32},
		{"172.21.0.0/24", 28, 32},
		{"172.22.0.0/24", 28, 32},
		{"172.23.0.0/24", 28, 32},
		{"172.31.0.0/16", 16, 32}, // ChaosVPN
		{"10.100.0.0/14", 14, 32}, // ChaosVPN
		{"10.127.0.0/16", 16, 32}, // NeoNetwork
		{"10.0.0.0/8", 15, 24},    // Freifunk
		{"fd00::/8", 44, 64},
	} {
		l = append(l, PrefixRange{netip.MustParsePrefix(r.prefix), r.min, r.max})
	}
	return l
}()

// ours are those of our own prefixes that are DN42's, and all parts of them. A default route that we announce to others does not
// make the whole of DN42 ours.
func (d DN42) ours() (l []PrefixRange) {
	for _, p := range d.Own {
		if slices.ContainsFunc(dn42Networks, func(r PrefixRange) bool { return r.Prefix.Bits() <= p.Bits() && r.Prefix.Contains(p.Addr()) }) {
			l = append(l, PrefixRange{p, p.Bits(), p.Addr().BitLen()})
		}
	}
	return l
}

// dn42Rules are the policy's rules for one neighbour. They are the same number for each, so that compile.go can lay them side
// by side; nil stands for one that the neighbour lacks.
func dn42Rules(c *Config, l DN42Link, d direction) []*Rule {
	var rules []*Rule
	add := func(when bool, r Rule) {
		if !when {
			rules = append(rules, nil)
			return
		}
		rules = append(rules, &r)
	}
	add(true, Rule{
		Name:   "not a network of DN42",
		Match:  Match{Prefixes: dn42Networks, NotPrefixes: true, Words: map[string]string{"not-prefix": "DN42's networks"}},
		Action: Reject,
	})
	if d == importing {
		ours := c.DN42.ours()
		add(len(ours) > 0, Rule{
			Name:   "own prefix",
			Match:  Match{Prefixes: ours, Words: map[string]string{"prefix": "our own prefixes"}},
			Action: Reject,
		})
		// RFC 7999 §3.2: whoever takes such a route keeps it to himself.
		add(true, Rule{
			Name:  "blackhole",
			Match: Match{Communities: []string{"blackhole"}},
			Set:   Set{Communities: Edit{Add: []string{"no-export"}}},
		})
	} else {
		own := Match{Sources: []Source{SourceOwn}}
		add(c.DN42.Region != 0, Rule{Name: "region", Match: own, Set: Set{Communities: Edit{Add: []string{dn42Community(c.DN42.Region)}}}})
		add(c.DN42.Country != 0, Rule{Name: "country", Match: own, Set: Set{Communities: Edit{Add: []string{dn42Community(c.DN42.Country)}}}})
	}
	rules = append(rules, dn42Worst(dn42Latency, l.Latency, true)...)
	rules = append(rules, dn42Worst(dn42Bandwidth, l.Bandwidth, false)...)
	rules = append(rules, dn42Worst(dn42Crypto, l.Crypto, false)...)
	add(true, Rule{Name: "network of DN42", Action: Accept})
	return rules
}

// dn42Worst makes a route carry one community of a range: the worst that it has come by, this link included.
func dn42Worst(n numbers, link uint16, larger bool) []*Rule {
	span := func(lo, hi uint16) (l []string) {
		for v := lo; v <= hi; v++ {
			l = append(l, dn42Community(v))
		}
		return l
	}
	// worse are those from v on, in the direction of the worse; better are those before it.
	worse := func(v uint16) []string { return span(n.lo, v) }
	better := func(v uint16) []string { return span(v+1, n.hi) }
	var order []uint16
	for v := n.lo; v < n.hi; v++ {
		order = append(order, v)
	}
	if larger {
		worse = func(v uint16) []string { return span(v, n.hi) }
		better = func(v uint16) []string { return span(n.lo, v-1) }
		order = nil
		for v := n.hi; v > n.lo; v-- {
			order = append(order, v)
		}
	}
	if link == 0 {
		return make([]*Rule, 1+len(order))
	}
	rules := []*Rule{{
		Name:  n.what,
		Match: Match{Communities: worse(link), NotCommunities: true},
		Set:   Set{Communities: Edit{Add: []string{dn42Community(link)}}},
		fresh: true,
	}}
	for _, v := range order {
		rules = append(rules, &Rule{
			Name:  n.what,
			Match: Match{Communities: []string{dn42Community(v)}},
			Set:   Set{Communities: Edit{Remove: better(v)}},
		})
	}
	return slices.Clip(rules)
}

func dn42Community(v uint16) string { return fmt.Sprintf("%d:%d", dn42High, v) }
