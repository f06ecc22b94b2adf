package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Sets are the lists that rules refer to by name, in the file's order.
type Sets struct {
	Prefixes         []PrefixSet
	AS               []ASSet
	Communities      []WordSet
	LargeCommunities []WordSet
}

// PrefixSet is an entry of `sets.prefixes`.
type PrefixSet struct {
	Name    string
	Members []PrefixRange
}

// ASSet is an entry of `sets.as`.
type ASSet struct {
	Name    string
	Members []uint32
}

// WordSet is an entry of `sets.communities` or `sets.large-communities`.
type WordSet struct {
	Name    string
	Members []string // canonical
}

// PrefixRange is every prefix in Prefix whose length is from Min to Max.
type PrefixRange struct {
	Prefix   netip.Prefix // masked
	Min, Max int
}

func (r PrefixRange) String() string {
	switch {
	case r.Min == r.Prefix.Bits() && r.Max == r.Min:
		return r.Prefix.String()
	case r.Min == r.Prefix.Bits() && r.Max == r.Prefix.Addr().BitLen():
		return r.Prefix.String() + "+"
	}
	return fmt.Sprintf("%s %d-%d", r.Prefix, r.Min, r.Max)
}

// RulePolicy is an entry of `policies`.
type RulePolicy struct {
	Name  string
	Rules []Rule
}

// RuleAction is what becomes of a route that a rule matches.
type RuleAction string

// The actions.
const (
	ActionContinue RuleAction = "continue"
	ActionAccept   RuleAction = "accept"
	ActionReject   RuleAction = "reject"
)

// Rule is one of a policy's.
type Rule struct {
	Name   string
	Match  Match
	Set    Change
	Action RuleAction
}

// Match is what a rule asks. What is nil is not asked; of a list, one member suffices. Words are names of sets, or what is in
// such sets, in canonical form.
type Match struct {
	Prefix         []string
	NotPrefix      []string
	Family         []Family
	ASContains     []string
	ASLast         []string
	ASNeighbor     []string
	ASLength       *Span
	Community      []string
	NotCommunity   []string
	LargeCommunity []string
	Origin         []string
	NextHop        []netip.Addr
	Source         []string
	ROA            string
}

// Span is a range of numbers; a negative Max is no limit.
type Span struct{ Min, Max int }

func (s Span) String() string {
	switch {
	case s.Max < 0:
		return strconv.Itoa(s.Min) + "+"
	case s.Max == s.Min:
		return strconv.Itoa(s.Min)
	}
	return fmt.Sprintf("%d-%d", s.Min, s.Max)
}

// Change is a rule's `set`.
type Change struct {
	LocalPref        *uint32
	MED              string // "50"; "+10" and "-10" are relative
	Origin           string
	Prepend          uint8
	NextHop          string // "self", or an address
	Communities      CommunityEdit
	LargeCommunities CommunityEdit
}

func (c *Change) empty() bool {
	return c.LocalPref == nil && c.MED == "" && c.Origin == "" && c.Prepend == 0 && c.NextHop == "" && c.Communities.empty() && c.LargeCommunities.empty()
}

// CommunityEdit changes a list of communities, in this order. Members are communities, or for Remove patterns of them.
type CommunityEdit struct {
	Replace []string // nil: not at all; empty: all are removed
	Remove  []string
	Add     []string
}

func (e *CommunityEdit) empty() bool { return e.Replace == nil && e.Remove == nil && e.Add == nil }

// DN42 is `bgp.dn42`: communities of our own routes; 0: none.
type DN42 struct {
	Region  uint16 // 41 to 57
	Country uint16 // 1000 and a number of ISO 3166-1
}

// DN42Link is a neighbour's `dn42`: what the link to it is like, in DN42's numbers; 0: nothing is said.
type DN42Link struct {
	Latency   uint16 // 1 to 9
	Bandwidth uint16 // 21 to 25
	Crypto    uint16 // 31 to 36
}

// PolicyOf is what a neighbour's import or export says of a family.
func PolicyOf(all Policy, of map[Family]Policy, f Family) Policy {
	if p, ok := of[f]; ok {
		return p
	}
	return all
}

// PrefixRanges resolves words of a match.
func (c *Config) PrefixRanges(words []string) []PrefixRange {
	return resolve(words, func(w string) ([]PrefixRange, bool) {
		for _, s := range c.Sets.Prefixes {
			if s.Name == w {
				return s.Members, true
			}
		}
		return nil, false
	}, func(w string) (PrefixRange, error) { return parseRange(w) })
}

// ASNumbers resolves words of a match.
func (c *Config) ASNumbers(words []string) []uint32 {
	return resolve(words, func(w string) ([]uint32, bool) {
		for _, s := range c.Sets.AS {
			if s.Name == w {
				return s.Members, true
			}
		}
		return nil, false
	}, func(w string) (uint32, error) {
		n, err := strconv.ParseUint(w, 10, 32)
		return uint32(n), err
	})
}

// Words resolves words of a match by one of the sets of communities.
func (c *Config) Words(words []string, sets []WordSet) []string {
	return resolve(words, func(w string) ([]string, bool) {
		for _, s := range sets {
			if s.Name == w {
				return s.Members, true
			}
		}
		return nil, false
	}, func(w string) (string, error) { return w, nil })
}

// resolve puts the members of sets in place of their names. Nil stays nil: it asks nothing.
func resolve[T any](words []string, set func(string) ([]T, bool), parse func(string) (T, error)) []T {
	if words == nil {
		return nil
	}
	out := []T{}
	for _, w := range words {
		if members, ok := set(w); ok {
			out = append(out, members...)
		} else if m, err := parse(w); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// parseRange reads "10.0.0.0/8", "10.0.0.0/8+" and "10.0.0.0/8 15-24".
func parseRange(s string) (PrefixRange, error) {
	wrong := fmt.Errorf("%q is no prefix; write 10.1.0.0/16, 10.1.0.0/16+ with all parts of it, or 10.1.0.0/16 20-24 with those of these lengths", shorten(s))
	text, span, _ := strings.Cut(s, " ")
	text, longer := strings.CutSuffix(text, "+")
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || longer && span != "" {
		return PrefixRange{}, wrong
	}
	if m := p.Masked(); m != p {
		return PrefixRange{}, fmt.Errorf("%s has host bits set; the prefix is %s", p, m)
	}
	r := PrefixRange{p, p.Bits(), p.Bits()}
	switch {
	case longer:
		r.Max = p.Addr().BitLen()
	case span != "":
		limits, err := parseSpan(strings.TrimSpace(span))
		if err != nil {
			return PrefixRange{}, wrong
		}
		if limits.Max < 0 {
			limits.Max = p.Addr().BitLen()
		}
		if r.Min, r.Max = limits.Min, limits.Max; r.Min < p.Bits() || r.Max > p.Addr().BitLen() {
			return PrefixRange{}, fmt.Errorf("the lengths of prefixes in %s are from %d to %d, not %s", p, p.Bits(), p.Addr().BitLen(), shorten(span))
		}
	}
	return r, nil
}

// parseSpan reads "3", "3+" and "1-5".
func parseSpan(s string) (Span, error) {
	wrong := fmt.Errorf("%q is no range of numbers; write 3, 3+ or 1-5", shorten(s))
	lo, hi, isRange := strings.Cut(s, "-")
	lo, open := strings.CutSuffix(lo, "+")
	a, err := strconv.ParseUint(lo, 10, 8)
	if err != nil || open && isRange {
		return Span{}, wrong
	}
	span := Span{int(a), int(a)}
	switch {
	case open:
		span.Max = -1
	case isRange:
		b, err := strconv.ParseUint(hi, 10, 8)
		if err != nil || b < a {
			return Span{}, wrong
		}
		span.Max = int(b)
	}
	return span, nil
}

// wellKnownCommunities have names (RFC 1997, RFC 7999, RFC 8326, RFC 9494).
var wellKnownCommunities = []string{
	"graceful-shutdown", "llgr-stale", "no-llgr", "blackhole", "no-export", "no-advertise", "no-export-subconfed", "no-peer",
}

// parseCommunity returns the canonical form of a community, or of a pattern of them.
func parseCommunity(s string, pattern bool) (string, error) {
	if slices.Contains(wellKnownCommunities, s) {
		return s, nil
	}
	return parseParts(s, pattern, "a community", "65001:1", []int{16, 16})
}

// parseLarge is parseCommunity for large communities (RFC 8092).
func parseLarge(s string, pattern bool) (string, error) {
	return parseParts(s, pattern, "a large community", "65001:1:2", []int{32, 32, 32})
}

func parseParts(s string, pattern bool, what, example string, bits []int) (string, error) {
	parts := strings.Split(s, ":")
	if len(parts) != len(bits) {
		return "", fmt.Errorf("%q is not %s such as %s", shorten(s), what, example)
	}
	for i, p := range parts {
		if p == "*" && i > 0 {
			switch {
			case !pattern:
				return "", fmt.Errorf("%q stands for many, and one is needed here; write it out, as in %s", shorten(s), example)
			case len(bits) == 2 && parts[0] == "65535":
				return "", fmt.Errorf("the well-known communities are meant one by one; write their names instead of %q", shorten(s))
			}
			continue
		}
		n, err := strconv.ParseUint(p, 10, bits[i])
		if err != nil {
			return "", fmt.Errorf("%q is not %s such as %s: each part is a number of %d bits", shorten(s), what, example, bits[i])
		}
		parts[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(parts, ":"), nil
}
