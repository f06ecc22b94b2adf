package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"
)

// This file is the compiler's part of what a rule asks; see compile.go.

// variants lists the cases of a rule, with all its conditions.
func (c *compiler) variants(r *Rule, t target) []variant {
	m := &r.Match
	common := c.common(m, t)
	families := []Family{0}
	if t.limited || m.Families != nil || m.Prefixes != nil || ours(m.Sources) != nil || c.splits(r, t) {
		families = slices.DeleteFunc(slices.Clone(t.families), func(f Family) bool {
			return m.Families != nil && !slices.Contains(m.Families, f)
		})
	}
	var all []variant
	for _, f := range families {
		for _, src := range c.sources(m.Sources) {
			where, possible := c.where(m, f, src)
			if !possible {
				continue
			}
			for _, o := range oneOf(m.Origins) {
				v := variant{family: f, clauses: slices.Concat(where, common)}
				if src.typ != api.Conditions_ROUTE_TYPE_UNSPECIFIED {
					v.clauses = append(v.clauses, clause{slotSource, func(a *api.Conditions) { a.RouteType = src.typ }})
				}
				if o != "" {
					v.clauses = append(v.clauses, clause{slotOrigin, func(a *api.Conditions) { a.Origin = origins[o] }})
				}
				all = append(all, v)
			}
		}
	}
	return all
}

// oneOf is a list to go through, with one entry where nothing is asked.
func oneOf(l []string) []string {
	if len(l) == 0 {
		return []string{""}
	}
	return slices.Compact(slices.Sorted(slices.Values(l)))
}

// source is a case of Match.Sources.
type source struct {
	typ  api.Conditions_RouteType
	ours []Source // only prefixes that we announce for one of these reasons
}

// ours are the sources that are told apart by prefixes.
func ours(l []Source) []Source {
	if slices.Contains(l, SourceOwn) {
		return nil
	}
	var own []Source
	for _, s := range l {
		switch s {
		case SourceOriginate, SourceConnected, SourceStatic, SourceLearned:
			own = append(own, s)
		}
	}
	return own
}

func (c *compiler) sources(l []Source) []source {
	if len(l) == 0 {
		return []source{{}}
	}
	var all []source
	own := ours(l)
	if own != nil || slices.Contains(l, SourceOwn) {
		all = append(all, source{api.Conditions_ROUTE_TYPE_LOCAL, own})
	}
	if slices.Contains(l, SourceInternal) {
		all = append(all, source{typ: api.Conditions_ROUTE_TYPE_INTERNAL})
	}
	if slices.Contains(l, SourceExternal) {
		all = append(all, source{typ: api.Conditions_ROUTE_TYPE_EXTERNAL})
	}
	return all
}

// wants reports whether a prefix is one that the rule asks for.
func (m *Match) wants(p netip.Prefix) bool {
	return m.Prefixes == nil || m.NotPrefixes != slices.ContainsFunc(m.Prefixes, func(r PrefixRange) bool { return r.Contains(p) })
}

// where is the condition on the prefix; not possible: there is no such prefix.
func (c *compiler) where(m *Match, f Family, src source) (where []clause, possible bool) {
	of := func(p netip.Prefix) bool { return p.Addr().Is4() == (f == IPv4) }
	family := clause{slotFamily, func(a *api.Conditions) { a.AfiSafiIn = []*api.Family{apiFamily(f)} }}
	var ranges []PrefixRange
	invert := false
	switch {
	case src.ours != nil:
		for _, s := range src.ours {
			for _, p := range c.origins[s] {
				if of(p) && m.wants(p) {
					ranges = append(ranges, PrefixRange{p, p.Bits(), p.Bits()})
				}
			}
		}
	case m.Prefixes != nil:
		invert = m.NotPrefixes
		for _, r := range m.Prefixes {
			if of(r.Prefix) {
				ranges = append(ranges, r)
			}
		}
	case f != 0:
		return []clause{family}, true
	default:
		return nil, true
	}
	if len(ranges) == 0 {
		return []clause{family}, invert
	}
	slices.SortFunc(ranges, func(a, b PrefixRange) int {
		return cmp.Or(comparePrefixes(a.Prefix, b.Prefix), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	set := c.prefixes(slices.Compact(ranges))
	if invert {
		set.Type = api.MatchSet_TYPE_INVERT // of a set of one family it does not hold for routes of another
	}
	return []clause{{slotPrefix, func(a *api.Conditions) { a.PrefixSet = set }}}, true
}

// common are the conditions that are the same in all variants.
func (c *compiler) common(m *Match, t target) []clause {
	var l []clause
	put := func(s slot, f func(*api.Conditions)) { l = append(l, clause{s, f}) }
	if m.Communities != nil {
		set := c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, patterns(m.Communities, communityPattern))
		if m.NotCommunities {
			set.Type = api.MatchSet_TYPE_INVERT
		}
		put(slotCommunity, func(a *api.Conditions) { a.CommunitySet = set })
	}
	if m.LargeCommunities != nil {
		set := c.any(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, patterns(m.LargeCommunities, largePattern))
		put(slotLarge, func(a *api.Conditions) { a.LargeCommunitySet = set })
	}
	asPath := func(as []uint32, format string) {
		if as == nil {
			return
		}
		list := []string{}
		for _, n := range as {
			if n != c.as || !c.ahead(t) {
				list = append(list, fmt.Sprintf(format, n))
			}
		}
		set := c.any(api.DefinedType_DEFINED_TYPE_AS_PATH, list)
		put(slotASPath, func(a *api.Conditions) { a.AsPathSet = set })
	}
	asPath(m.ASContains, "_%d_")
	asPath(m.ASLast, "_%d$")
	if c.ahead(t) {
		asPath(m.ASNeighbor, fmt.Sprintf("^(%d )*", c.as)+"%d_")
	} else {
		asPath(m.ASNeighbor, "^%d_")
	}
	switch s := m.ASLength; {
	case s == nil:
	case c.ahead(t):
		set := c.any(api.DefinedType_DEFINED_TYPE_AS_PATH, lengthBehind(c.as, *s))
		put(slotASPath, func(a *api.Conditions) { a.AsPathSet = set })
	default:
		length := func(t api.Comparison, n int) {
			put(slotLength, func(a *api.Conditions) { a.AsPathLength = &api.AsPathLength{Type: t, Length: uint32(n)} })
		}
		if s.Min > 0 {
			length(api.Comparison_COMPARISON_GE, s.Min)
		}
		if s.Max >= 0 {
			length(api.Comparison_COMPARISON_LE, s.Max)
		}
	}
	if m.NextHops != nil {
		var list []string
		for _, a := range m.NextHops {
			list = append(list, a.WithZone("").String())
		}
		put(slotNextHop, func(a *api.Conditions) { a.NextHopInList = list })
	}
	if m.ROA != "" {
		put(slotROA, func(a *api.Conditions) { a.RpkiResult = validities[m.ROA] })
	}
	return l
}

var origins = map[string]api.OriginType{
	"igp": api.OriginType_ORIGIN_TYPE_IGP, "egp": api.OriginType_ORIGIN_TYPE_EGP, "incomplete": api.OriginType_ORIGIN_TYPE_INCOMPLETE,
}

var validities = map[Validity]api.ValidationState{
	ROAValid: api.ValidationState_VALIDATION_STATE_VALID, ROAInvalid: api.ValidationState_VALIDATION_STATE_INVALID,
	ROAUnknown: api.ValidationState_VALIDATION_STATE_NOT_FOUND,
}

// patterns translates a list that has been checked.
func patterns(l []string, translate func(string) (string, error)) []string {
	var out []string
	for _, s := range l {
		if p, err := translate(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// lengthBehind are patterns of paths whose length is in a range, as in front of them not counted.
func lengthBehind(as uint32, s Span) []string {
	const end = "( |$)"
	front := fmt.Sprintf("^(%d%s)*", as, end)
	l := []string{}
	if s.Min == 0 {
		l = append(l, front+"$")
	}
	if s.Max == 0 {
		return l
	}
	limit := "" // RE2 counts to 1000, and a path is not that long
	if s.Max > 0 && s.Max <= maxPath {
		limit = strconv.Itoa(s.Max - 1)
	}
	const set = "{[^}]*}"
	first := "(" + otherNumber(as) + "|" + set + ")" + end
	rest := fmt.Sprintf("(([0-9]+|%s)%s){%d,%s}$", set, end, min(max(s.Min, 1), maxPath)-1, limit)
	return append(l, front+first+rest)
}

// maxPath is the longest path that is counted.
const maxPath = 255

// otherNumber is a pattern of all numbers but n.
func otherNumber(n uint32) string {
	digits := strconv.FormatUint(uint64(n), 10)
	l := []string{fmt.Sprintf("[0-9]{%d,}", len(digits)+1)}
	if len(digits) > 1 {
		l = append(l, fmt.Sprintf("[0-9]{1,%d}", len(digits)-1))
	}
	for i := range digits {
		others := strings.ReplaceAll("0123456789", digits[i:i+1], "")
		l = append(l, fmt.Sprintf("%s[%s][0-9]{%d}", digits[:i], others, len(digits)-i-1))
	}
	return "(" + strings.Join(l, "|") + ")"
}

// ahead reports whether paths have our own AS in front when the policy is asked (RFC 4271 §5.1.2 b). GoBGP asks it for another
// reason too, without that: whether the route that a new one replaces has been announced, and so must be withdrawn if the
// new one is rejected. Conditions must come to the same in both cases, or routes stay with the neighbour for ever; therefore
// they look past our own AS. See withdrawals for those that cannot.
func (c *compiler) ahead(t target) bool { return c.dir == exporting && t.external }

// withdrawals accepts routes that do not have our AS in front. None is ever announced so; see ahead.
func (c *compiler) withdrawals() statement {
	set := c.any(api.DefinedType_DEFINED_TYPE_AS_PATH, []string{fmt.Sprintf("^%d_", c.as)})
	set.Type = api.MatchSet_TYPE_INVERT
	return statement{cond: &api.Conditions{AsPathSet: set}, act: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}}
}

// text writes what a rule asks, for explanations.
func (m *Match) text() string {
	var l []string
	for _, p := range m.parts() {
		l = append(l, p.key+" "+p.words)
	}
	return strings.Join(l, ", ")
}

// part is one thing that a rule asks.
type part struct {
	slot  slot
	key   string
	words string
}

func (m *Match) parts() []part {
	var l []part
	add := func(s slot, key string, there bool, words any) {
		if !there {
			return
		}
		w, ok := m.Words[key]
		if !ok {
			w = strings.Trim(fmt.Sprint(words), "[]")
		}
		l = append(l, part{s, key, w})
	}
	add(slotPrefix, "prefix", m.Prefixes != nil && !m.NotPrefixes, m.Prefixes)
	add(slotPrefix, "not-prefix", m.Prefixes != nil && m.NotPrefixes, m.Prefixes)
	add(slotFamily, "family", m.Families != nil, m.Families)
	add(slotASPath, "as-path contains", m.ASContains != nil, m.ASContains)
	add(slotASPath, "as-path last", m.ASLast != nil, m.ASLast)
	add(slotASPath, "as-path neighbor", m.ASNeighbor != nil, m.ASNeighbor)
	add(slotLength, "as-path length", m.ASLength != nil, m.ASLength)
	add(slotCommunity, "community", m.Communities != nil && !m.NotCommunities, m.Communities)
	add(slotCommunity, "not-community", m.Communities != nil && m.NotCommunities, m.Communities)
	add(slotLarge, "large-community", m.LargeCommunities != nil, m.LargeCommunities)
	add(slotOrigin, "origin", m.Origins != nil, m.Origins)
	add(slotNextHop, "next-hop", m.NextHops != nil, m.NextHops)
	add(slotSource, "source", m.Sources != nil, m.Sources)
	add(slotROA, "roa", m.ROA != "", m.ROA)
	return l
}
