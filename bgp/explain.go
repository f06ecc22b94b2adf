package bgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file says what policies do to a route, and why.

// PolicyQuestion asks what becomes of a route from or to a neighbour.
type PolicyQuestion struct {
	Prefix   netip.Prefix
	Neighbor string // its name or address
	Export   bool   // towards it; else from it
	// Route is a route to suppose. Without one it is that of the table, or what the neighbour announced; where there is none, a
	// plain route of the neighbour's own, or one of ours.
	Route *SupposedRoute
}

// SupposedRoute is a route that need not exist.
type SupposedRoute struct {
	ASPath           string // as Path.ASPath; "" is the neighbour's AS on import from another AS, and empty otherwise
	Communities      []string
	LargeCommunities []string
	Origin           string     // "" is igp
	NextHop          netip.Addr // invalid: the neighbour; on export of a route with an AS path: unknown
	MED              *uint32
	Source           Source // on export: SourceOwn, SourceInternal or SourceExternal; "" is SourceOwn without an AS path, else SourceExternal
}

// PolicyAnswer is the answer.
type PolicyAnswer struct {
	Prefix   netip.Prefix
	Neighbor string
	Export   bool
	Supposed bool   // the route is not one that there is
	From     string // the neighbour that it comes from; "" for our own, and a supposed one's
	Accepted bool
	Policy   Policy // whose rule decided
	Rule     int    // its number, from 1; 0: no rule did
	Name     string // the rule's
	Reason   string
	Before   Path // as the policy gets it
	After    Path // as it leaves
	Validity Validity
	Rules    []RuleAnswer // what was looked at, in order

	// Blocked says why the route is not announced even though the policy passes it; "" if nothing speaks against it.
	Blocked string
	// InTable says whether the route is in the table, as an imported one should be. It is nil where that is not the question.
	InTable *bool
}

// RuleAnswer is what a rule, or what the router does to all, did.
type RuleAnswer struct {
	Policy  Policy // "" is the router itself
	Rule    int
	Name    string
	Asks    string // its conditions, in words
	Matched bool
	Why     string // not matched: the condition that does not hold
	Action  string // matched: accept, reject or continue
	Changes []string
}

// TestPolicy answers a question. Errors: ErrNoNeighbor, one of the supposed route's, the context's.
func (s *Speaker) TestPolicy(ctx context.Context, q PolicyQuestion) (PolicyAnswer, error) {
	a, err := s.testPolicy(ctx, q)
	if err != nil {
		return a, fmt.Errorf("bgp: %w", err)
	}
	return a, nil
}

func (s *Speaker) testPolicy(ctx context.Context, q PolicyQuestion) (PolicyAnswer, error) {
	answer := PolicyAnswer{Prefix: q.Prefix.Masked(), Export: q.Export}
	p, err := s.peerByName(q.Neighbor)
	if err != nil {
		return answer, err
	}
	if !q.Prefix.IsValid() {
		return answer, fmt.Errorf("%s is no prefix", q.Prefix)
	}
	s.mu.RLock()
	r, cfg := s.running, s.cfg
	s.mu.RUnlock()
	if r == nil {
		return answer, errNotRunning
	}
	n := p.config()
	answer.Neighbor = n.Name
	e := s.evaluator(r, p, q.Export)
	roas, err := r.roas(ctx, answer.Prefix)
	if err != nil {
		return answer, err
	}
	e.validate = validator(roas, e.as)
	in, from, err := s.questioned(r, p, q, &answer)
	if err != nil {
		return answer, err
	}
	accepted, out, trace := e.run(in)
	entered := e.enter(in)
	answer.Accepted, answer.Before, answer.After = accepted, entered.describe(), out.describe()
	answer.Validity = e.validate(&in)
	answer.explain(&cfg, n, e, in, trace)
	if q.Export {
		answer.Blocked = s.blocked(p, from, &in)
	} else if !answer.Supposed {
		there, err := r.inTable(p.id, answer.Prefix)
		if err != nil {
			return answer, err
		}
		answer.InTable = &there
	}
	return answer, nil
}

// evaluator executes the policies in use.
func (s *Speaker) evaluator(r *running, p *peer, export bool) *evaluator {
	n := p.config()
	e := &evaluator{
		program: r.program.Load(), dir: importing, id: p.id, as: p.local.as, external: n.AS != p.local.as,
	}
	if export {
		e.dir = exporting
	}
	local := p.status.localAddr()
	if !local.IsValid() { // there has been no session yet
		local = cmp.Or(n.LocalAddress, netip.IPv6Unspecified())
	}
	e.own = ownHops(n, local)
	return e
}

// questioned finds the route that is meant, and the neighbour that it is from.
func (s *Speaker) questioned(r *running, p *peer, q PolicyQuestion, a *PolicyAnswer) (in route, from *peer, err error) {
	if q.Route == nil {
		path, err := r.realPath(p.id, q)
		if err != nil {
			return in, nil, err
		}
		if path != nil {
			source := SourceOwn
			from = s.peerByID(path.PeerAddress)
			if !q.Export {
				from = p
			}
			if from != nil {
				source = SourceInternal
				if from.config().AS != from.local.as {
					source = SourceExternal
				}
				a.From = from.config().Name
			}
			return routeOf(a.Prefix, source, path.Attrs), from, nil
		}
		q.Route = &SupposedRoute{}
	}
	a.Supposed = true
	in, err = supposed(a.Prefix, p, q)
	return in, nil, err
}

// realPath returns what the neighbour announced, or what we would announce to it; nil where there is nothing.
func (r *running) realPath(id netip.Addr, q PolicyQuestion) (*apiutil.Path, error) {
	family := IPv6
	if q.Prefix.Addr().Is4() {
		family = IPv4
	}
	req := apiutil.ListPathRequest{
		TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire(),
		Prefixes: []*apiutil.LookupPrefix{{Prefix: q.Prefix.Masked().String()}},
	}
	if !q.Export {
		r.peerMu.Lock()
		defer r.peerMu.Unlock()
		if !r.knowsLocked(id) {
			return nil, nil
		}
		req.TableType, req.Name = api.TableType_TABLE_TYPE_ADJ_IN, id.String()
	}
	var first *apiutil.Path
	err := r.gobgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
		if first == nil && len(paths) > 0 {
			first = paths[0]
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list paths: %w", err)
	}
	return first, nil
}

func (r *running) knowsLocked(id netip.Addr) bool {
	for p := range r.peers {
		if p.id == id {
			return p.known
		}
	}
	return false
}

// inTable reports whether the table has a path of a neighbour.
func (r *running) inTable(id netip.Addr, prefix netip.Prefix) (there bool, err error) {
	family := IPv6
	if prefix.Addr().Is4() {
		family = IPv4
	}
	req := apiutil.ListPathRequest{
		TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire(), Prefixes: []*apiutil.LookupPrefix{{Prefix: prefix.String()}},
	}
	err = r.gobgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
		there = there || slices.ContainsFunc(paths, func(p *apiutil.Path) bool { return p.PeerAddress == id })
	})
	if err != nil {
		return false, fmt.Errorf("list paths: %w", err)
	}
	return there, nil
}

// roas returns the authorizations that cover a prefix.
func (r *running) roas(ctx context.Context, prefix netip.Prefix) (l []roa, err error) {
	family := IPv6
	if prefix.Addr().Is4() {
		family = IPv4
	}
	err = r.gobgp.ListRpkiTable(ctx, &api.ListRpkiTableRequest{Family: apiFamily(family)}, func(a *api.Roa) {
		addr, err := netip.ParseAddr(a.Prefix)
		if err != nil {
			return
		}
		if p := netip.PrefixFrom(addr, int(a.Prefixlen)); p.Contains(prefix.Addr()) && p.Bits() <= prefix.Bits() {
			l = append(l, roa{p, int(a.Maxlen), a.Asn})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list ROAs: %w", err)
	}
	return l, nil
}

// supposed makes a route of what the question says of it.
func supposed(prefix netip.Prefix, p *peer, q PolicyQuestion) (route, error) {
	n, s := p.config(), q.Route
	external := n.AS != p.local.as
	r := route{prefix: prefix, source: SourceExternal, origin: originNumber(cmp.Or(s.Origin, "igp")), nextHop: s.NextHop, med: s.MED}
	if r.origin < 0 {
		return r, fmt.Errorf("origin %q: it is igp, egp or incomplete", s.Origin)
	}
	var err error
	if r.asPath, err = parsePath(s.ASPath); err != nil {
		return r, err
	}
	switch {
	case !q.Export:
		if !external {
			r.source = SourceInternal
		}
		if as := cmp.Or(n.AS, p.status.peerAS()); external && len(r.asPath) == 0 && as != 0 {
			r.asPath = []segment{{bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{as}}}
		}
		if !r.nextHop.IsValid() {
			r.nextHop = n.Address.WithZone("")
		}
	case s.Source != "":
		r.source = s.Source
	case len(r.asPath) == 0:
		r.source = SourceOwn
	}
	if !r.nextHop.IsValid() {
		r.nextHop = netip.IPv6Unspecified()
		if prefix.Addr().Is4() {
			r.nextHop = netip.IPv4Unspecified()
		}
	}
	for _, c := range s.Communities {
		high, low, pattern, err := communityNumber(c)
		if err != nil || pattern {
			return r, fmt.Errorf("%q is not a community, as 65001:1 or no-export is", c)
		}
		r.communities = append(r.communities, uint32(high)<<16|uint32(low))
	}
	for _, c := range s.LargeCommunities {
		exact, err := exactLarge(c)
		if err != nil {
			return r, err
		}
		var l [3]uint32
		_, _ = fmt.Sscanf(exact, "%d:%d:%d", &l[0], &l[1], &l[2])
		r.large = append(r.large, l)
	}
	return r, nil
}

// parsePath reads an AS path as Path.ASPath writes it; confederations have no place in it.
func parsePath(text string) ([]segment, error) {
	var l []segment
	inSet := false
	text = strings.NewReplacer("{", " { ", "}", " } ", ",", " ").Replace(text)
	for _, word := range strings.Fields(text) {
		switch {
		case word == "{" && !inSet:
			inSet = true
			l = append(l, segment{typ: bgp.BGP_ASPATH_ATTR_TYPE_SET})
			continue
		case word == "}" && inSet:
			inSet = false
			continue
		}
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not an AS number, in the AS path", word)
		}
		if !inSet && (len(l) == 0 || l[len(l)-1].typ != bgp.BGP_ASPATH_ATTR_TYPE_SEQ) {
			l = append(l, segment{typ: bgp.BGP_ASPATH_ATTR_TYPE_SEQ})
		}
		last := &l[len(l)-1]
		last.as = append(last.as, uint32(n))
	}
	if inSet {
		return nil, fmt.Errorf("a set of the AS path has no end")
	}
	return l, nil
}

func (r *route) describe() Path {
	d := Path{ASPath: r.pathText(" "), NextHop: r.nextHop}
	if r.origin >= 0 {
		d.Origin = originText(uint8(r.origin))
	}
	if r.localPref != nil {
		d.LocalPref = *r.localPref
	}
	if r.med != nil {
		d.MED = *r.med
	}
	for _, c := range r.communities {
		d.Communities = append(d.Communities, communityText(c))
	}
	for _, c := range r.large {
		d.LargeCommunities = append(d.LargeCommunities, largeText(c))
	}
	return d
}

// explain finds out which rules did what, and which one decided.
func (a *PolicyAnswer) explain(c *Config, n *Neighbor, e *evaluator, in route, trace []executed) {
	before := e.enter(in)
	var last ruleRef
	for len(trace) > 0 {
		ref := trace[0].step.ref
		end := slices.IndexFunc(trace, func(x executed) bool { return !sameRule(x.step.ref, ref) })
		if end < 0 {
			end = len(trace)
		}
		one := ruleAnswer(ref, before, trace[:end])
		before, trace = trace[end-1].after, trace[end:]
		last = ref
		if one.Matched || ref.rule != nil {
			a.Rules = append(a.Rules, one)
		}
	}
	decided := len(a.Rules) > 0 && a.Rules[len(a.Rules)-1].Matched && a.Rules[len(a.Rules)-1].Action != Continue.String()
	named := n.policy(c, e.dir, in.family())
	switch {
	case decided && last.rule != nil:
		a.Policy, a.Rule, a.Name = last.policy, last.number, last.rule.Name
		a.Reason = "it matches"
		if asks := last.rule.Match.text(); asks != "" {
			a.Reason += ": " + asks
		}
	case decided && last.policy == PolicyNone:
		a.Policy = PolicyNone
		a.Reason = fmt.Sprintf("%s: none", e.dir)
		if e.external {
			a.Reason += ", which is also what an external neighbor has without a policy (RFC 8212)"
		}
	case decided && last.policy != "":
		a.Policy = last.policy
		a.Reason = "no rule accepts it"
	case decided:
		a.Reason = last.what
	default:
		a.Policy = named
		a.Reason = fmt.Sprintf("%s: %s", e.dir, named)
	}
}

// sameRule reports whether two statements are of one rule.
func sameRule(a, b ruleRef) bool {
	return a.policy == b.policy && a.number == b.number && a.what == b.what
}

// said is what the configuration says of a family, with nothing in place of silence.
func (n *Neighbor) said(d direction, f Family) Policy {
	p, of := n.Import, n.ImportOf
	if d == exporting {
		p, of = n.Export, n.ExportOf
	}
	if special, ok := of[f]; ok {
		return special
	}
	return p
}

func ruleAnswer(ref ruleRef, before route, trace []executed) RuleAnswer {
	one := RuleAnswer{Policy: ref.policy, Rule: ref.number, Name: ref.what}
	var m *Match
	if ref.rule != nil {
		m = &ref.rule.Match
		one.Name, one.Asks = ref.rule.Name, m.text()
	}
	var failed []slot
	for _, x := range trace {
		switch {
		case x.matched && !x.marksPartly() && (x.step.test || m == nil):
			one.Matched = true
		case !x.matched && x.step.test:
			failed = append(failed, x.failed)
		}
	}
	if !one.Matched {
		one.Why = whyNot(m, failed, before.prefix)
		return one
	}
	one.Action = Continue.String()
	switch last := trace[len(trace)-1]; last.step.Actions.RouteAction {
	case api.RouteAction_ROUTE_ACTION_ACCEPT:
		one.Action = Accept.String()
	case api.RouteAction_ROUTE_ACTION_REJECT:
		one.Action = Reject.String()
	}
	one.Changes = changes(before, trace[len(trace)-1].after)
	return one
}

// marksPartly reports whether a statement did no more than to say that the rule may match yet.
func (x executed) marksPartly() bool {
	c := x.step.Actions.Community
	return c != nil && c.Type == api.CommunityAction_TYPE_ADD && len(c.Communities) == 1 && slices.Contains(markPartial, c.Communities[0])
}

// whyNot names the conditions that do not hold. Of the cases that a rule distinguishes, those of another family do not count.
func whyNot(m *Match, failed []slot, p netip.Prefix) string {
	if m == nil {
		return ""
	}
	if m.wants(p) { // then the prefix stands for why we announce it
		for i, s := range failed {
			if s == slotPrefix {
				failed[i] = slotSource
			}
		}
	}
	slices.Sort(failed)
	failed = slices.Compact(failed)
	asks := func(s slot) bool { return slices.ContainsFunc(m.parts(), func(p part) bool { return p.slot == s }) }
	if len(failed) > 1 {
		failed = slices.DeleteFunc(failed, func(s slot) bool { return !asks(s) || s == slotFamily })
	}
	var l []string
	for _, p := range m.parts() {
		if slices.Contains(failed, p.slot) {
			l = append(l, p.key+" "+p.words)
		}
	}
	if len(l) == 0 {
		return "it is for routes of another family, or from elsewhere"
	}
	return "it does not have " + strings.Join(l, " or ")
}

// changes lists what differs, a line each.
func changes(from, to route) []string {
	a, b := from.describe(), to.describe()
	var l []string
	value := func(what, a, b string) {
		if a != b {
			l = append(l, fmt.Sprintf("%s %s → %s", what, cmp.Or(a, "none"), cmp.Or(b, "none")))
		}
	}
	number := func(n *uint32) string {
		if n == nil {
			return ""
		}
		return strconv.FormatUint(uint64(*n), 10)
	}
	value("local-pref", number(from.localPref), number(to.localPref))
	value("med", number(from.med), number(to.med))
	value("origin", a.Origin, b.Origin)
	value("as-path", a.ASPath, b.ASPath)
	value("next-hop", a.NextHop.String(), b.NextHop.String())
	list := func(what string, a, b []string) {
		for _, c := range a {
			if !slices.Contains(b, c) {
				l = append(l, what+" "+c+" removed")
			}
		}
		for _, c := range b {
			if !slices.Contains(a, c) {
				l = append(l, what+" "+c+" added")
			}
		}
	}
	list("community", a.Communities, b.Communities)
	list("large-community", a.LargeCommunities, b.LargeCommunities)
	return l
}

// blocked says why GoBGP does not even ask the policy.
func (s *Speaker) blocked(to, from *peer, r *route) string {
	n := to.config()
	external, as := n.AS != to.local.as, cmp.Or(n.AS, to.status.peerAS())
	families := n.Families
	if to.status.current() == Established {
		families = to.status.sessionFamilies()
	}
	switch {
	case !slices.Contains(families, r.family()):
		return fmt.Sprintf("the session does not carry %s", r.family())
	case from == to:
		return "it comes from the neighbor itself"
	case !external && r.source == SourceInternal && !n.RouteReflectorClient && (from == nil || !from.config().RouteReflectorClient):
		return "it comes from another internal neighbor, and neither is a client of ours (RFC 4456)"
	case slices.ContainsFunc(r.asPath, func(s segment) bool { return slices.Contains(s.as, as) }):
		return fmt.Sprintf("AS %d is in its AS path already", as)
	case to.status.current() != Established:
		return "there is no session"
	}
	return ""
}
