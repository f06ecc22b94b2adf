package bgp

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
)

// This file compiles a rule into GoBGP's statements.
//
// A statement of GoBGP has room for one condition of each kind and for one change of each kind, and prefix sets are of one
// family. A rule that fits becomes one statement, or one for each of several cases that exclude each other (the families, for
// example). Any other rule becomes a chain of statements: the first ones put a mark on the route when their conditions hold,
// the next ones do the changes to marked routes, and the last one takes the mark away and accepts or rejects. Otherwise a
// change would decide whether the conditions of the rule's next statement hold. The marks are communities that nobody else
// uses; a route that comes with one from a neighbour loses it before anything else happens.

// direction is of a policy.
type direction uint8

const (
	importing direction = iota
	exporting
)

func (d direction) String() string {
	if d == importing {
		return "import"
	}
	return "export"
}

// The marks are unassigned well-known communities (RFC 1997): no network has their upper half for its AS number.
const (
	markHit = "65535:57005"
	nothing = "^$" // a pattern that no community matches
)

// markPartial are for rules that need more than one statement to ask all that they ask: four at most, about the AS path.
var markPartial = []string{"65535:57001", "65535:57002", "65535:57003"}

var allMarks = append([]string{markHit}, markPartial...)

// statement is one of GoBGP's, without a name and its neighbours.
type statement struct {
	cond *api.Conditions
	act  *api.Actions
	zero bool // the local preference is 0, which GoBGP takes for none; see zeroLocalPref
	test bool // it has conditions of the rule, and not only marks
}

func (s statement) key() string {
	return fmt.Sprint(s.cond.String(), "\x00", s.act.String(), s.zero)
}

// target is the neighbour that a rule is compiled for, as far as it matters.
type target struct {
	id           netip.Addr // GoBGP's name for it
	external     bool
	families     []Family // those that the policy is for
	limited      bool     // for others it has another policy
	next4, next6 netip.Addr
}

// compiler collects what a policy refers to. Sets are named by what is in them, so that equal ones are one.
type compiler struct {
	as      uint32
	dir     direction
	origins map[Source][]netip.Prefix
	sets    map[string]*api.DefinedSet
}

// set returns the name of a set, which exists from now on.
func (c *compiler) set(s *api.DefinedSet) string {
	h := sha256.Sum256([]byte(s.String()))
	s.Name = "set-" + hex.EncodeToString(h[:8])
	c.sets[s.Name] = s
	return s.Name
}

func (c *compiler) any(t api.DefinedType, list []string) *api.MatchSet {
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: c.set(&api.DefinedSet{DefinedType: t, List: list})}
}

func (c *compiler) prefixes(l []PrefixRange) *api.MatchSet {
	s := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX}
	for _, r := range l {
		s.Prefixes = append(s.Prefixes, &api.Prefix{IpPrefix: r.Prefix.String(), MaskLengthMin: uint32(r.Min), MaskLengthMax: uint32(r.Max)})
	}
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: c.set(s)}
}

// slot is a place for one condition in a statement.
type slot uint8

const (
	slotCommunity slot = iota // marks need it too, so its condition goes into the first statement
	slotPrefix
	slotFamily
	slotSource
	slotASPath
	slotLength
	slotLarge
	slotOrigin
	slotNextHop
	slotROA
)

// clause is one condition.
type clause struct {
	slot slot
	put  func(*api.Conditions)
}

// variant is one of the cases that a rule distinguishes; they exclude each other.
type variant struct {
	family  Family // 0: any
	clauses []clause
}

// rule compiles a rule for a neighbour. No statement at all: it can match none of the neighbour's routes.
func (c *compiler) rule(r *Rule, t target) []statement {
	variants := c.variants(r, t)
	if len(variants) == 0 {
		return nil
	}
	ops := c.operations(r)
	if !c.mayRaise(r, t) {
		if flat, ok := c.flat(r, t, variants, ops); ok {
			return flat
		}
	}
	return c.chain(r, t, variants, ops)
}

// mayRaise reports whether a rule would give a preference to a route whose announcer is about to go.
func (c *compiler) mayRaise(r *Rule, t target) bool {
	return c.dir == importing && t.external && r.Set.LocalPref != nil && *r.Set.LocalPref > 0
}

// flat makes a statement of each variant, where that is possible.
func (c *compiler) flat(r *Rule, t target, variants []variant, ops []operation) ([]statement, bool) {
	moves := len(variants) > 1 && r.Set.Origin != "" && len(r.Match.Origins) > 1 // out of one variant into another
	if len(ops) > 1 || moves {
		return nil, false
	}
	var all []statement
	for _, v := range variants {
		stages := pack(v.clauses)
		if len(stages) > 1 {
			return nil, false
		}
		s := statement{cond: conditions(stages[0]), act: &api.Actions{}, test: true}
		if len(ops) == 1 {
			ops[0].apply(&s)
			c.nextHop(r, t, v.family, s.act)
		}
		s.act.RouteAction = routeAction(r.Action)
		all = append(all, s)
	}
	return all, true
}

// chain marks what matches, changes what is marked, and takes the mark away.
func (c *compiler) chain(r *Rule, t target, variants []variant, ops []operation) []statement {
	var all []statement
	partial := 0
	for _, v := range variants {
		stages := pack(v.clauses)
		for i, stage := range stages {
			s := statement{cond: conditions(stage), act: &api.Actions{}, test: true}
			if i > 0 {
				s.cond.CommunitySet = c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, markPartial[i-1:i])
			}
			mark := markHit
			if i < len(stages)-1 {
				mark = markPartial[i]
				partial = max(partial, i+1)
			}
			s.act.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: []string{mark}}
			all = append(all, s)
		}
	}
	hit := c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, []string{markHit})
	for _, op := range ops {
		for _, f := range c.splitByNextHop(r, t, op) {
			s := statement{cond: &api.Conditions{CommunitySet: hit}, act: &api.Actions{}}
			if f != 0 {
				s.cond.AfiSafiIn = []*api.Family{apiFamily(f)}
			}
			op.apply(&s)
			if op.attributes {
				c.nextHop(r, t, f, s.act)
			}
			if a := s.act.Community; a != nil && a.Type == api.CommunityAction_TYPE_REPLACE {
				s.act.Community = &api.CommunityAction{Type: a.Type, Communities: append(slices.Clone(a.Communities), markHit)}
			}
			all = append(all, s)
		}
	}
	if c.mayRaise(r, t) {
		s := c.gracefulShutdown()
		s.cond.CommunitySet = &api.MatchSet{Type: api.MatchSet_TYPE_ALL, Name: c.set(&api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, List: []string{"^65535:0$", markHit},
		})}
		all = append(all, s)
	}
	if partial > 0 {
		marks := markPartial[:partial]
		all = append(all, statement{
			cond: &api.Conditions{CommunitySet: c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, marks)},
			act:  &api.Actions{Community: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: marks}},
		})
	}
	return append(all, statement{
		cond: &api.Conditions{CommunitySet: hit},
		act: &api.Actions{
			Community:   &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{markHit}},
			RouteAction: routeAction(r.Action),
		},
	})
}

// gracefulShutdown lowers the preference of routes whose announcer is about to go (RFC 8326 §4.2), whatever a policy says.
func (c *compiler) gracefulShutdown() statement {
	return statement{
		cond: &api.Conditions{CommunitySet: c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, []string{"^65535:0$"})},
		act:  &api.Actions{LocalPref: &api.LocalPrefAction{Value: almostZero}},
		zero: true,
	}
}

// almostZero stands for a local preference of 0 until zeroLocalPref has made it so.
const almostZero = 1

// pack distributes conditions over as few statements as have room for them.
func pack(clauses []clause) [][]clause {
	stages := [][]clause{{}}
	slices.SortStableFunc(clauses, func(a, b clause) int { return cmp.Compare(a.slot, b.slot) })
next:
	for _, cl := range clauses {
		for i := range stages {
			if !slices.ContainsFunc(stages[i], func(o clause) bool { return o.slot == cl.slot }) {
				stages[i] = append(stages[i], cl)
				continue next
			}
		}
		stages = append(stages, []clause{cl})
	}
	return stages
}

func conditions(clauses []clause) *api.Conditions {
	cond := &api.Conditions{}
	for _, cl := range clauses {
		cl.put(cond)
	}
	return cond
}

func routeAction(a RuleAction) api.RouteAction {
	switch a {
	case Accept:
		return api.RouteAction_ROUTE_ACTION_ACCEPT
	case Reject:
		return api.RouteAction_ROUTE_ACTION_REJECT
	}
	return api.RouteAction_ROUTE_ACTION_UNSPECIFIED
}

func apiFamily(f Family) *api.Family {
	return &api.Family{Afi: api.Family_Afi(f.wire().Afi()), Safi: api.Family_Safi(f.wire().Safi())}
}

// operation is one statement's part of a rule's changes.
type operation struct {
	apply      func(*statement)
	attributes bool // it has those that are no communities, and so the next hop's turn is with it
}

// operations splits a rule's changes into what statements can do, in order.
func (c *compiler) operations(r *Rule) []operation {
	if r.Set.empty() {
		return nil
	}
	s := &r.Set
	first := operation{attributes: true, apply: func(st *statement) { c.attributes(s, st) }}
	communities := edits(s.Communities, communityPattern, exactCommunity, r.fresh)
	large := edits(s.LargeCommunities, largePattern, exactLarge, false)
	if large != nil {
		// GoBGP appends to a path's list of large communities in place: other copies of the path would see it if the list had
		// room left. Removing nothing makes a list without room.
		large = append(large, &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{nothing}})
	}
	var ops []operation
	for i := range max(len(communities), len(large), 1) {
		op := operation{apply: func(*statement) {}}
		if i == 0 {
			op = first
		}
		base := op.apply
		op.apply = func(st *statement) {
			base(st)
			if i < len(communities) {
				st.act.Community = communities[i]
			}
			if i < len(large) {
				st.act.LargeCommunity = large[i]
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// edits are the changes of a list of communities, one for each statement. GoBGP adds what is there already once more; so what
// is added is removed before.
func edits(e Edit, pattern, exact func(string) (string, error), fresh bool) []*api.CommunityAction {
	var l []*api.CommunityAction
	if e.Replace {
		l = append(l, &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: unique(patterns(e.With, exact))})
	}
	remove := patterns(e.Remove, pattern)
	add := unique(patterns(e.Add, exact))
	if !fresh {
		for _, a := range add {
			remove = append(remove, "^"+a+"$")
		}
	}
	if len(remove) > 0 {
		l = append(l, &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: unique(remove)})
	}
	if len(add) > 0 {
		l = append(l, &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: add})
	}
	return l
}

// unique keeps the first of equal ones.
func unique(l []string) []string {
	var out []string
	for _, s := range l {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// attributes are the changes that are no communities.
func (c *compiler) attributes(s *Set, st *statement) {
	if s.LocalPref != nil {
		st.zero = *s.LocalPref == 0
		st.act.LocalPref = &api.LocalPrefAction{Value: *s.LocalPref}
		if st.zero {
			st.act.LocalPref.Value = almostZero
		}
	}
	if s.MED != nil {
		st.act.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: s.MED.Value}
		if s.MED.Relative {
			st.act.Med.Type = api.MedAction_TYPE_MOD
		}
		if s.MED.Relative && s.MED.Value == 0 {
			st.act.Med = nil // GoBGP would take it for an absolute 0
		}
	}
	if s.Origin != "" {
		st.act.OriginAction = &api.OriginAction{Origin: origins[s.Origin]}
	}
	if s.Prepend > 0 {
		// Our own AS in a path that we import would make our iBGP neighbours take it for a loop.
		st.act.AsPrepend = &api.AsPrependAction{Repeat: uint32(s.Prepend), Asn: c.as, UseLeftMost: c.dir == importing}
		if c.dir == importing {
			st.act.AsPrepend.Asn = 0
		}
	}
}

// splits reports whether a rule's next hop depends on the family.
func (c *compiler) splits(r *Rule, t target) bool {
	return r.Set.NextHop.IsValid() || r.Set.NextHopSelf && (t.next4.IsValid() || t.next6.IsValid())
}

func (c *compiler) splitByNextHop(r *Rule, t target, op operation) []Family {
	if op.attributes && c.splits(r, t) {
		return t.families
	}
	return []Family{0}
}

// nextHop is the change of the next hop for routes of a family.
func (c *compiler) nextHop(r *Rule, t target, f Family, act *api.Actions) {
	switch s := &r.Set; {
	case s.NextHop.IsValid():
		if s.NextHop.Is4() == (f == IPv4) {
			act.Nexthop = &api.NexthopAction{Address: s.NextHop.WithZone("").String()}
		}
	case !s.NextHopSelf:
	case f == IPv4 && t.next4.IsValid():
		act.Nexthop = &api.NexthopAction{Address: t.next4.String()}
	case f == IPv6 && t.next6.IsValid():
		act.Nexthop = &api.NexthopAction{Address: t.next6.String()}
	default:
		act.Nexthop = &api.NexthopAction{Self: true}
	}
}
