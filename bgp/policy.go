package bgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
	"google.golang.org/protobuf/proto"
)

// GoBGP has one import and one export policy for all neighbours that are not route server clients; statements tell neighbours
// apart by sets of their addresses. So the policies of all neighbours become two, which are replaced as a whole when something
// changes. Rules that come to the same for several neighbours are one statement for all of them.

const (
	importPolicy = "rlr-import"
	exportPolicy = "rlr-export"
	globalRIB    = "global"
)

// never is in every neighbour set, because GoBGP takes an empty one to match all.
const never = "255.255.255.255/32"

// ruleRef says where a statement comes from.
type ruleRef struct {
	policy Policy // "" is what the router does to all neighbours of a kind
	number int    // of the rule, from 1; 0 is the end of the policy, or of what has no rules
	rule   *Rule
	what   string // without a rule: what the statement does
}

// step is a statement of one of the two policies.
type step struct {
	*api.Statement
	ref  ruleRef
	key  string // equal for equal conditions and actions; sets are named by what is in them
	zero bool
	test bool
}

// compiled is what the configuration of all neighbours comes to.
type compiled struct {
	steps [2][]step // by direction
	sets  map[string]*api.DefinedSet
	ids   []netip.Addr // of all neighbours
}

// builder makes one.
type builder struct {
	compiled
	c       *Config
	ids     map[netip.Addr]netip.Addr
	origins map[Source][]netip.Prefix
}

// policies compiles the policies of all neighbours. ids are what GoBGP knows them by; origins is what we announce.
func policies(c *Config, ids map[netip.Addr]netip.Addr, origins ...map[Origin]bool) *compiled {
	b := &builder{compiled: compiled{sets: map[string]*api.DefinedSet{}, ids: slices.SortedFunc(maps.Values(ids), netip.Addr.Compare)}, c: c, ids: ids, origins: map[Source][]netip.Prefix{}}
	if !c.asksOrigins() {
		origins = nil // which may be a full table
	}
	for _, some := range origins {
		for o := range some {
			src := cmp.Or(o.Source, SourceOriginate)
			b.origins[src] = append(b.origins[src], o.Prefix)
		}
	}
	b.imports()
	b.exports()
	b.programs(importing)
	b.programs(exporting)
	return &b.compiled
}

func (b *builder) compiler(d direction) *compiler {
	return &compiler{as: b.c.AS, dir: d, origins: b.origins, sets: b.sets}
}

// add appends a statement for some neighbours.
func (b *builder) add(d direction, who []netip.Addr, s statement, ref ruleRef) {
	if len(who) == 0 {
		return
	}
	list := []string{never}
	for _, a := range who {
		list = append(list, neighborNet(a))
	}
	name := b.compiler(d).set(&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, List: list})
	key := s.key()
	st := &api.Statement{
		Name:       fmt.Sprintf("%s-%d", d, len(b.steps[d])+1),
		Conditions: s.cond,
		Actions:    s.act,
	}
	st.Conditions.NeighborSet = &api.MatchSet{Name: name, Type: api.MatchSet_TYPE_ANY}
	b.steps[d] = append(b.steps[d], step{Statement: st, ref: ref, key: key, zero: s.zero, test: s.test})
}

// who are the neighbours of a kind.
func (b *builder) who(is func(n *Neighbor) bool) (l []netip.Addr) {
	for i := range b.c.Neighbors {
		if n := &b.c.Neighbors[i]; is(n) {
			l = append(l, b.ids[n.Address])
		}
	}
	return l
}

func (b *builder) external(n *Neighbor) bool { return n.AS != b.c.AS }

// imports is what is done to routes from neighbours before their policies.
func (b *builder) imports() {
	c := b.compiler(importing)
	all := b.who(func(*Neighbor) bool { return true })
	b.add(importing, all, statement{
		cond: &api.Conditions{CommunitySet: c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, allMarks)},
		act:  &api.Actions{Community: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: allMarks}},
	}, ruleRef{what: "communities that the router uses itself are removed"})
	b.validations()
	b.add(importing, b.who(b.external), c.gracefulShutdown(), ruleRef{what: "graceful shutdown (RFC 8326): local preference 0"})
}

// exports is what is done to routes towards neighbours before their policies.
func (b *builder) exports() {
	c := b.compiler(exporting)
	b.add(exporting, b.who(func(n *Neighbor) bool { return b.external(n) && b.c.asksLate(n) }), c.withdrawals(),
		ruleRef{what: "withdrawals are always sent"})
	self := b.who(func(n *Neighbor) bool { return n.NextHopSelf && !b.external(n) })
	b.ownNextHop()
	// What was learned by iBGP keeps its next hop even towards such a neighbour: a route reflector does not change it (RFC 4456
	// §10).
	b.add(exporting, self, statement{
		cond: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_EXTERNAL},
		act:  &api.Actions{Nexthop: &api.NexthopAction{Self: true}},
	}, ruleRef{what: "next-hop-self"})
	// GoBGP leaves the communities of RFC 1997 to its user.
	reject := func(who []netip.Addr, names ...string) {
		b.add(exporting, who, statement{
			cond: &api.Conditions{CommunitySet: c.any(api.DefinedType_DEFINED_TYPE_COMMUNITY, patterns(names, communityPattern))},
			act:  &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
			test: true,
		}, ruleRef{what: "community " + strings.Join(names, " or ") + " (RFC 1997)"})
	}
	reject(b.who(b.external), "no-export", "no-export-subconfed", "no-advertise")
	reject(b.who(func(n *Neighbor) bool { return !b.external(n) }), "no-advertise")
}

// assignment is a policy with the neighbours that have it, for all or some of their families.
type assignment struct {
	policy  Policy
	targets []target
	of      []*Neighbor // the targets
}

// programs compiles what the neighbours' imports or exports say.
func (b *builder) programs(d direction) {
	for _, a := range b.assignments(d) {
		b.assign(d, a)
	}
}

func (b *builder) assignments(d direction) []*assignment {
	var all []*assignment
	for i := range b.c.Neighbors {
		n := &b.c.Neighbors[i]
		byPolicy := map[Policy][]Family{}
		for _, f := range n.Families {
			p := n.policy(b.c, d, f)
			byPolicy[p] = append(byPolicy[p], f)
		}
		for _, p := range slices.Sorted(maps.Keys(byPolicy)) {
			t := target{
				id: b.ids[n.Address], external: b.external(n), families: byPolicy[p], limited: len(byPolicy) > 1,
			}
			if d == importing { // to others than ourselves, "self" is the session's local address: see traffic.hop
				t.next4, t.next6 = n.NextHop4, n.NextHop6
			}
			i := slices.IndexFunc(all, func(a *assignment) bool { return a.policy == p })
			if i < 0 {
				i = len(all)
				all = append(all, &assignment{policy: p})
			}
			all[i].targets, all[i].of = append(all[i].targets, t), append(all[i].of, n)
		}
	}
	return all
}

// assign adds the statements of a policy.
func (b *builder) assign(d direction, a *assignment) {
	if a.policy == PolicyAll {
		return // what no statement decides passes
	}
	rules := make([][]*Rule, len(a.targets)) // of each target
	longest := 0
	for i, n := range a.of {
		rules[i] = b.c.rules(a.policy, n, d)
		longest = max(longest, len(rules[i]))
	}
	c := b.compiler(d)
	for k := range longest {
		b.together(d, a, k, func(i int) (*Rule, []statement) {
			r := rules[i][k]
			if r == nil {
				return nil, nil
			}
			return r, c.rule(r, a.targets[i])
		})
	}
	b.together(d, a, -1, func(i int) (*Rule, []statement) {
		s := statement{cond: &api.Conditions{}, act: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT}}
		if t := a.targets[i]; t.limited {
			for _, f := range t.families {
				s.cond.AfiSafiIn = append(s.cond.AfiSafiIn, apiFamily(f))
			}
		}
		return nil, []statement{s}
	})
}

// asksLate reports whether a neighbour's export asks for what GoBGP knows only of the route that is to be announced, and not
// of the one before it: the next hop, and the validity of our own routes.
func (c *Config) asksLate(n *Neighbor) bool {
	return c.asks(n, exporting, func(m *Match) bool { return m.NextHops != nil || byROA(m) })
}

// asks reports whether a rule of the neighbour's policies asks for something.
func (c *Config) asks(n *Neighbor, d direction, what func(*Match) bool) bool {
	return slices.ContainsFunc(n.Families, func(f Family) bool {
		return slices.ContainsFunc(c.Policies[n.policy(c, d, f)], func(r Rule) bool { return what(&r.Match) })
	})
}

// asksOrigins reports whether a rule asks why we announce a prefix.
func (c *Config) asksOrigins() bool {
	for _, rules := range c.Policies {
		if slices.ContainsFunc(rules, func(r Rule) bool { return ours(r.Match.Sources) != nil }) {
			return true
		}
	}
	return false
}

// rules are a policy's for a neighbour.
func (c *Config) rules(p Policy, n *Neighbor, d direction) []*Rule {
	if p == PolicyDN42 {
		return dn42Rules(c, n.DN42, d)
	}
	var l []*Rule
	for i := range c.Policies[p] {
		l = append(l, &c.Policies[p][i])
	}
	return l
}

// together adds the statements of the k-th rule, once for all targets for which they are equal.
func (b *builder) together(d direction, a *assignment, k int, compile func(i int) (*Rule, []statement)) {
	type group struct {
		rule       *Rule
		statements []statement
		who        []netip.Addr
	}
	var order []string
	groups := map[string]*group{}
	for i := range a.targets {
		rule, all := compile(i)
		var key strings.Builder
		for _, s := range all {
			key.WriteString(s.key())
			key.WriteByte(0)
		}
		g := groups[key.String()]
		if g == nil {
			g = &group{rule: rule, statements: all}
			groups[key.String()] = g
			order = append(order, key.String())
		}
		g.who = append(g.who, a.targets[i].id)
	}
	for _, key := range order {
		g := groups[key]
		ref := ruleRef{policy: a.policy, number: k + 1, rule: g.rule}
		if k < 0 {
			ref.what = "end of the policy"
		}
		for _, s := range g.statements {
			b.add(d, g.who, s, ref)
		}
	}
}

// neighborNet is a neighbour as sets of them have it.
func neighborNet(id netip.Addr) string {
	return netip.PrefixFrom(id.WithZone(""), id.BitLen()).String()
}

// forNeighbors is the step for others.
func (s step) forNeighbors(p *compiled, list []string) step {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, List: list}
	name := (&compiler{sets: p.sets}).set(set)
	s.Statement = proto.Clone(s.Statement).(*api.Statement)
	s.Conditions.NeighborSet = &api.MatchSet{Name: name, Type: api.MatchSet_TYPE_ANY}
	return s
}

// request is the program as GoBGP takes it.
func (p *compiled) request() *api.SetPoliciesRequest {
	r := &api.SetPoliciesRequest{Policies: []*api.Policy{{Name: importPolicy}, {Name: exportPolicy}}}
	for _, name := range slices.Sorted(maps.Keys(p.sets)) {
		r.DefinedSets = append(r.DefinedSets, p.sets[name])
	}
	for d, steps := range p.steps {
		for _, s := range steps {
			r.Policies[d].Statements = append(r.Policies[d].Statements, s.Statement)
		}
	}
	return r
}

// applies reports whether a step is for a neighbour.
func (p *compiled) applies(s step, id netip.Addr) bool {
	return slices.Contains(p.sets[s.Conditions.NeighborSet.Name].List, neighborNet(id))
}

// signature is equal for equal policies of a neighbour.
func (p *compiled) signature(d direction, id netip.Addr) string {
	var b strings.Builder
	for _, s := range p.steps[d] {
		if !p.applies(s, id) {
			continue
		}
		b.WriteString(s.key)
		b.WriteByte('\n')
	}
	return b.String()
}

// equal reports whether two programs do the same.
func (p *compiled) equal(o *compiled) bool {
	for d := range p.steps {
		if !slices.EqualFunc(p.steps[d], o.steps[d], func(a, b step) bool {
			return a.key == b.key && a.Conditions.NeighborSet.Name == b.Conditions.NeighborSet.Name
		}) {
			return false
		}
	}
	return true
}

// install makes GoBGP use a program. Where refill says so, all neighbours whose export policy comes to something else are told what
// differs, and so are those of the classes in also; else it is returned which classes these are, for later.
//
// Nobody is told anything by a policy that is not its own, not for a moment: whoever reads an Adj-RIB-Out whose policy changes, or
// goes over to another one, waits meanwhile, and new classes have no stand-ins before GoBGP knows their policies.
func (r *running) install(p *compiled, refill bool, also map[uint32]bool) (changed map[uint32]bool, err error) {
	if old := r.program.Load(); old != nil && old.equal(p) {
		r.program.Store(p) // its rules may have other words
		if refill {
			return also, r.refill(also)
		}
		return also, nil
	}
	next := r.export.classify(p)
	maps.Copy(next.changed, also)
	held := r.export.of(next.left)
	if refill {
		held = r.export.of(next.left, next.changed)
	}
	for _, g := range held {
		g.out.suspend()
	}
	defer func() {
		for _, g := range held {
			if err == nil && refill && next.changed[g.key.class] {
				err = r.retell(g)
			}
			g.out.resume()
		}
	}()
	if err := r.gobgp.SetPolicies(r.ctx, p.forClasses(next)); err != nil {
		return next.changed, fmt.Errorf("set policies: %w", err)
	}
	zero := map[string]bool{}
	for _, steps := range p.steps {
		for _, st := range steps {
			if st.zero {
				zero[st.Name] = true
			}
		}
	}
	zeroLocalPref(r.gobgp, zero)
	r.program.Store(p)
	r.export.publish(next)
	r.regroup()
	return next.changed, nil
}

// assignPolicies makes GoBGP use the two policies; what they do not decide passes.
func assignPolicies(ctx context.Context, s *server.BgpServer) error {
	for _, a := range []*api.PolicyAssignment{
		{
			Name: globalRIB, Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
			Policies: []*api.Policy{{Name: importPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
		{
			Name: globalRIB, Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
			Policies: []*api.Policy{{Name: exportPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
	} {
		if err := s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policy %s: %w", a.Policies[0].Name, err)
		}
	}
	return nil
}
