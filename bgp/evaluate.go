package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file does with a route what GoBGP does, statement by statement, to say which of them decides. It executes the
// statements that GoBGP has got, not the rules that they were made of, so that the two can differ only in what a statement
// means; a test has both do the same to random routes.

// route is what policies see of a path.
type route struct {
	prefix      netip.Prefix
	source      Source // SourceOwn, SourceInternal or SourceExternal
	asPath      []segment
	communities []uint32
	large       [][3]uint32
	origin      int // -1: absent
	nextHop     netip.Addr
	original    netip.Addr // exporting: the next hop before the session's took its place
	localPref   *uint32
	med         *uint32
}

// segment is one of an AS_PATH (RFC 4271 §4.3).
type segment struct {
	typ uint8
	as  []uint32
}

func (r route) clone() route {
	r.communities, r.large = slices.Clone(r.communities), slices.Clone(r.large)
	path := make([]segment, len(r.asPath))
	for i, s := range r.asPath {
		path[i] = segment{s.typ, slices.Clone(s.as)}
	}
	r.asPath = path
	return r
}

func (r *route) family() Family {
	if r.prefix.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// routeOf reads a path's attributes.
func routeOf(prefix netip.Prefix, source Source, attrs []bgp.PathAttributeInterface) route {
	r := route{prefix: prefix, source: source, origin: -1, nextHop: nextHopOf(attrs)}
	for _, a := range attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeAsPath:
			for _, s := range a.Value {
				r.asPath = append(r.asPath, segment{s.GetType(), slices.Clone(s.GetAS())})
			}
		case *bgp.PathAttributeOrigin:
			r.origin = int(a.Value)
		case *bgp.PathAttributeLocalPref:
			r.localPref = &a.Value
		case *bgp.PathAttributeMultiExitDisc:
			r.med = &a.Value
		case *bgp.PathAttributeCommunities:
			r.communities = slices.Clone(a.Value)
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				r.large = append(r.large, [3]uint32{c.ASN, c.LocalData1, c.LocalData2})
			}
		}
	}
	return r
}

// evaluator executes the statements of one direction for one neighbour.
type evaluator struct {
	program  *compiled
	dir      direction
	id       netip.Addr
	as       uint32
	external bool
	own      [2]hopBytes // our next hops, by family
	validate func(*route) Validity
}

// executed is a statement that was reached: what it did, or which of its conditions does not hold.
type executed struct {
	step    step
	matched bool
	failed  slot
	after   route
}

// run takes a route as it comes, from the neighbour or out of the table, and returns what leaves the policy.
func (e *evaluator) run(r route) (accepted bool, out route, trace []executed) {
	return e.execute(e.enter(r))
}

// enter is the route as the policy gets it.
func (e *evaluator) enter(r route) route {
	r = r.clone()
	if e.dir == exporting {
		e.address(&r)
	} else if e.external {
		r.localPref = nil // RFC 4271 §5.1.5
	}
	return r
}

func (e *evaluator) execute(r route) (accepted bool, out route, trace []executed) {
	for _, s := range e.program.steps[e.dir] {
		if !e.program.applies(s, e.id) {
			continue
		}
		failed, matched := e.matches(&r, s.Conditions)
		if matched {
			r = r.clone()
			e.change(&r, s)
		}
		trace = append(trace, executed{s, matched, failed, r})
		if matched && s.Actions.RouteAction != api.RouteAction_ROUTE_ACTION_UNSPECIFIED {
			return s.Actions.RouteAction == api.RouteAction_ROUTE_ACTION_ACCEPT, e.leave(r), trace
		}
	}
	return true, e.leave(r), trace
}

// address prepares a route for a neighbour as GoBGP does before it asks the policy (RFC 4271 §5.1.2 to §5.1.5).
func (e *evaluator) address(r *route) {
	own := r.source == SourceOwn
	r.original = r.nextHop
	if own && r.nextHop.IsUnspecified() {
		r.original = ourselves
	}
	if own && r.nextHop.IsUnspecified() || !own && e.external {
		r.nextHop = e.self(r)
	}
	if !e.external {
		if r.localPref == nil {
			pref := uint32(defaultLocalPref)
			r.localPref = &pref
		}
		return
	}
	r.prepend(e.as, 1)
	r.asPath = slices.DeleteFunc(r.asPath, func(s segment) bool {
		return s.typ == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ || s.typ == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET
	})
	if !own {
		r.med = nil
	}
}

// self is our next hop for a route.
func (e *evaluator) self(r *route) netip.Addr {
	a, _ := netip.AddrFromSlice(e.own[r.family()-1])
	return a
}

const defaultLocalPref = 100

func (e *evaluator) leave(r route) route {
	if e.dir == exporting && e.external {
		r.localPref = nil
	}
	return r
}

// matches reports the first condition that does not hold.
func (e *evaluator) matches(r *route, c *api.Conditions) (slot, bool) {
	if c.AfiSafiIn != nil && !slices.ContainsFunc(c.AfiSafiIn, func(f *api.Family) bool { return f.Afi == apiFamily(r.family()).Afi }) {
		return slotFamily, false
	}
	if c.PrefixSet != nil && !e.inPrefixes(r, c.PrefixSet) {
		return slotPrefix, false
	}
	if l := c.AsPathLength; l != nil && !compare(l.Type, r.length(), l.Length) {
		return slotLength, false
	}
	switch c.RouteType {
	case api.Conditions_ROUTE_TYPE_LOCAL:
		if r.source != SourceOwn {
			return slotSource, false
		}
	case api.Conditions_ROUTE_TYPE_INTERNAL:
		if r.source != SourceInternal {
			return slotSource, false
		}
	case api.Conditions_ROUTE_TYPE_EXTERNAL:
		if r.source != SourceExternal {
			return slotSource, false
		}
	}
	if c.Origin != api.OriginType_ORIGIN_TYPE_UNSPECIFIED && (r.origin < 0 || origins[originText(uint8(r.origin))] != c.Origin) {
		return slotOrigin, false
	}
	if c.AsPathSet != nil && !e.list(c.AsPathSet, 1, func(p string, _ int) bool { return r.pathMatches(p) }) {
		return slotASPath, false
	}
	if c.CommunitySet != nil && !e.list(c.CommunitySet, len(r.communities), func(p string, i int) bool {
		return matchText(p, communityDigits(r.communities[i]))
	}) {
		return slotCommunity, false
	}
	if c.LargeCommunitySet != nil && !e.list(c.LargeCommunitySet, len(r.large), func(p string, i int) bool {
		return matchText(p, largeText(r.large[i]))
	}) {
		return slotLarge, false
	}
	if c.NextHopInList != nil && !slices.Contains(c.NextHopInList, cmp.Or(usable(r.original), r.nextHop).String()) {
		return slotNextHop, false
	}
	if c.RpkiResult != api.ValidationState_VALIDATION_STATE_UNSPECIFIED && validities[e.validate(r)] != c.RpkiResult {
		return slotROA, false
	}
	return 0, true
}

// usable is a next hop that GoBGP prefers to the one that it has put in its place.
func usable(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func compare(t api.Comparison, a, b uint32) bool {
	switch t {
	case api.Comparison_COMPARISON_GE:
		return a >= b
	case api.Comparison_COMPARISON_LE:
		return a <= b
	}
	return a == b
}

func (e *evaluator) inPrefixes(r *route, m *api.MatchSet) bool {
	in, ofFamily := false, false
	for _, p := range e.program.sets[m.Name].Prefixes {
		pfx, err := netip.ParsePrefix(p.IpPrefix)
		if err != nil || pfx.Addr().Is4() != r.prefix.Addr().Is4() {
			continue
		}
		ofFamily = true
		in = in || PrefixRange{pfx, int(p.MaskLengthMin), int(p.MaskLengthMax)}.Contains(r.prefix)
	}
	if m.Type == api.MatchSet_TYPE_INVERT {
		return ofFamily && !in
	}
	return in
}

// list applies a set of patterns to n values: ANY wants one match, ALL one of each pattern, INVERT none.
func (e *evaluator) list(m *api.MatchSet, n int, match func(pattern string, i int) bool) bool {
	some := func(p string) bool {
		for i := range n {
			if match(p, i) {
				return true
			}
		}
		return false
	}
	patterns := e.program.sets[m.Name].List
	switch m.Type {
	case api.MatchSet_TYPE_ALL:
		return len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p string) bool { return !some(p) })
	case api.MatchSet_TYPE_INVERT:
		return !slices.ContainsFunc(patterns, some)
	}
	return slices.ContainsFunc(patterns, some)
}

// matchText matches one of our patterns of communities, or a community.
func matchText(pattern, text string) bool {
	if !strings.HasPrefix(pattern, "^") {
		return pattern == text
	}
	ok, err := regexp.MatchString(pattern, text)
	return err == nil && ok
}

func communityDigits(c uint32) string { return fmt.Sprintf("%d:%d", c>>16, c&0xffff) }

func largeText(c [3]uint32) string { return fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]) }

// sequence is the path as GoBGP's simple patterns see it: a segment that is no sequence counts as one AS 0.
func (r *route) sequence() (l []uint32) {
	for _, s := range r.asPath {
		if s.typ == bgp.BGP_ASPATH_ATTR_TYPE_SEQ {
			l = append(l, s.as...)
		} else {
			l = append(l, 0)
		}
	}
	return l
}

// length is RFC 4271 §9.1.2.2 a, and RFC 5065 §5.3 3.
func (r *route) length() (n uint32) {
	for _, s := range r.asPath {
		switch s.typ {
		case bgp.BGP_ASPATH_ATTR_TYPE_SEQ:
			n += uint32(len(s.as))
		case bgp.BGP_ASPATH_ATTR_TYPE_SET:
			n++
		}
	}
	return n
}

// pathMatches matches one of our patterns of AS paths.
func (r *route) pathMatches(pattern string) bool {
	seq := r.sequence()
	number := func(s string) (uint32, bool) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err == nil
	}
	if n, ok := number(strings.Trim(pattern, "_")); ok {
		return slices.Contains(seq, n)
	}
	if n, ok := number(strings.TrimSuffix(strings.TrimPrefix(pattern, "_"), "$")); ok {
		return len(seq) > 0 && seq[len(seq)-1] == n
	}
	if n, ok := number(strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "_")); ok {
		return len(seq) > 0 && seq[0] == n
	}
	ok, err := regexp.MatchString(strings.ReplaceAll(pattern, "_", "(^|[,{}() ]|$)"), r.pathText(","))
	return err == nil && ok
}

// pathText writes the path; sets have the separator between their members.
func (r *route) pathText(sep string) string {
	var l []string
	for _, s := range r.asPath {
		between, open, end := " ", "", ""
		switch s.typ {
		case bgp.BGP_ASPATH_ATTR_TYPE_SET:
			between, open, end = sep, "{", "}"
		case bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ:
			open, end = "(", ")"
		case bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET:
			between, open, end = sep, "[", "]"
		}
		var as []string
		for _, n := range s.as {
			as = append(as, strconv.FormatUint(uint64(n), 10))
		}
		l = append(l, open+strings.Join(as, between)+end)
	}
	return strings.Join(l, " ")
}

// prepend is RFC 4271 §5.1.2 b.1 and b.2.
func (r *route) prepend(as uint32, times int) {
	more := slices.Repeat([]uint32{as}, times)
	if len(r.asPath) > 0 && r.asPath[0].typ == bgp.BGP_ASPATH_ATTR_TYPE_SEQ {
		room := min(times, 255-len(r.asPath[0].as))
		r.asPath[0].as = slices.Concat(more[:room], r.asPath[0].as)
		more = more[room:]
	}
	if len(more) > 0 {
		r.asPath = slices.Insert(r.asPath, 0, segment{bgp.BGP_ASPATH_ATTR_TYPE_SEQ, more})
	}
}

// change does a statement's changes, in GoBGP's order.
func (e *evaluator) change(r *route, s step) {
	a := s.Actions
	if a.Community != nil {
		r.communities = edit(r.communities, a.Community, communityDigits, func(s string) uint32 {
			high, low, _, _ := communityNumber(s)
			return uint32(high)<<16 | uint32(low)
		})
	}
	if a.LargeCommunity != nil {
		r.large = edit(r.large, a.LargeCommunity, largeText, func(s string) (c [3]uint32) {
			_, _ = fmt.Sscanf(s, "%d:%d:%d", &c[0], &c[1], &c[2])
			return c
		})
	}
	if a.Med != nil {
		med := a.Med.Value
		if a.Med.Type == api.MedAction_TYPE_MOD && r.med != nil {
			med += int64(*r.med)
		}
		if med >= 0 && med <= maxUint32 {
			m := uint32(med)
			r.med = &m
		}
	}
	if a.LocalPref != nil {
		pref := a.LocalPref.Value
		if s.zero {
			pref = 0
		}
		r.localPref = &pref
	}
	if p := a.AsPrepend; p != nil {
		as := p.Asn
		if seq := r.sequence(); p.UseLeftMost && len(seq) > 0 {
			as = seq[0]
		}
		if as != 0 {
			r.prepend(as, int(p.Repeat))
		}
	}
	if n := a.Nexthop; n != nil {
		if n.Self {
			r.nextHop = e.self(r)
		} else if addr, err := netip.ParseAddr(n.Address); err == nil {
			r.nextHop = addr
		}
	}
	if a.OriginAction != nil {
		for text, o := range origins {
			if o == a.OriginAction.Origin {
				r.origin = originNumber(text)
			}
		}
	}
}

func originNumber(text string) int {
	return slices.Index([]string{"igp", "egp", "incomplete"}, text) // RFC 4271 §5.1.1
}

func edit[T any](l []T, a *api.CommunityAction, text func(T) string, parse func(string) T) []T {
	var given []T
	if a.Type != api.CommunityAction_TYPE_REMOVE {
		for _, s := range a.Communities {
			given = append(given, parse(s))
		}
	}
	switch a.Type {
	case api.CommunityAction_TYPE_ADD:
		return append(l, given...)
	case api.CommunityAction_TYPE_REPLACE:
		return given
	}
	return slices.DeleteFunc(l, func(c T) bool {
		return slices.ContainsFunc(a.Communities, func(p string) bool { return matchText(p, text(c)) })
	})
}

// roa is a route origin authorization.
type roa struct {
	prefix netip.Prefix
	max    int
	as     uint32
}

// validator is RFC 6811 §2.1 as GoBGP has it: a path that ends with a set is unknown, and one without an AS in it is of our
// own AS if it came from a neighbour.
func validator(all []roa, own uint32) func(*route) Validity {
	return func(r *route) Validity {
		var as uint32
		if r.source != SourceOwn {
			as = own
		}
		if n := len(r.asPath); n > 0 {
			switch last := r.asPath[n-1]; {
			case last.typ == bgp.BGP_ASPATH_ATTR_TYPE_SET:
				return ROAUnknown
			case last.typ == bgp.BGP_ASPATH_ATTR_TYPE_SEQ && len(last.as) > 0:
				as = last.as[len(last.as)-1]
			}
		}
		state := ROAUnknown
		for _, a := range all {
			if a.prefix.Bits() > r.prefix.Bits() || !a.prefix.Contains(r.prefix.Addr()) {
				continue
			}
			if r.prefix.Bits() <= a.max && a.as == as && as != 0 {
				return ROAValid
			}
			state = ROAInvalid
		}
		return state
	}
}
