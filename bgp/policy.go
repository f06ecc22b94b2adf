package bgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// GoBGP has one import and one export policy for all neighbours that are not route server clients; statements tell neighbours
// apart by sets of their addresses. So the configuration of all neighbours becomes two policies, which are replaced as a
// whole when it changes.

const (
	importPolicy = "rlr-import"
	exportPolicy = "rlr-export"
	globalRIB    = "global"
)

// never is in every neighbour set, because GoBGP takes an empty one to match all.
const never = "255.255.255.255/32"

// policySet collects the statements of one direction.
type policySet struct {
	sets       []*api.DefinedSet
	statements []*api.Statement
}

// add makes a statement for the neighbours with these addresses.
func (ps *policySet) add(name string, who []netip.Addr, cond *api.Conditions, actions *api.Actions) {
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: []string{never}}
	for _, a := range who {
		set.List = append(set.List, netip.PrefixFrom(a.WithZone(""), a.BitLen()).String())
	}
	cond.NeighborSet = &api.MatchSet{Name: name, Type: api.MatchSet_TYPE_ANY}
	ps.sets = append(ps.sets, set)
	ps.statements = append(ps.statements, &api.Statement{Name: name, Conditions: cond, Actions: actions})
}

// policies turns the neighbours into GoBGP's request. ids are what GoBGP knows them by.
func policies(c *Config, ids map[netip.Addr]netip.Addr) *api.SetPoliciesRequest {
	var importNone, exportNone, self []netip.Addr
	nextHops := map[nextHopRule][]netip.Addr{}
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		id := ids[n.Address]
		imp, exp := n.policies(c)
		if imp == PolicyNone {
			importNone = append(importNone, id)
		}
		if exp == PolicyNone {
			exportNone = append(exportNone, id)
		}
		if n.NextHopSelf && n.AS == c.AS {
			self = append(self, id)
		}
		for _, nh := range []netip.Addr{n.NextHop4, n.NextHop6} {
			for _, r := range nextHopRules(n, c, nh) {
				nextHops[r] = append(nextHops[r], id)
			}
		}
	}
	reject := func() *api.Actions { return &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT} }
	var in, out policySet
	in.addROA(c, ids)
	in.add("import-none", importNone, &api.Conditions{}, reject())
	out.add("export-none", exportNone, &api.Conditions{}, reject())
	addOwnNextHop(&out, c, ids)
	// What was learned by iBGP keeps its next hop even towards such a neighbour: a route reflector does not change it (RFC 4456
	// §10).
	out.add("next-hop-self", self, &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_EXTERNAL},
		&api.Actions{Nexthop: &api.NexthopAction{Self: true}})
	for _, r := range slices.SortedFunc(maps.Keys(nextHops), nextHopRule.compare) {
		family := &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
		if r.addr.Is4() {
			family.Afi = api.Family_AFI_IP
		}
		out.add(fmt.Sprintf("next-hop-%s-%d", r.addr, r.routes), nextHops[r],
			&api.Conditions{AfiSafiIn: []*api.Family{family}, RouteType: r.routes},
			&api.Actions{Nexthop: &api.NexthopAction{Address: r.addr.String()}})
	}
	return &api.SetPoliciesRequest{
		DefinedSets: append(in.sets, out.sets...),
		Policies: []*api.Policy{
			{Name: importPolicy, Statements: in.statements},
			{Name: exportPolicy, Statements: out.statements},
		},
	}
}

// nextHopRule replaces our next hop by an address of the route's own family, where the session has none to give.
type nextHopRule struct {
	addr   netip.Addr
	routes api.Conditions_RouteType
}

func (r nextHopRule) compare(o nextHopRule) int {
	return cmp.Or(r.addr.Compare(o.addr), cmp.Compare(r.routes, o.routes))
}

// nextHopRules are for the routes whose next hop we would set: all towards eBGP, and towards iBGP our own and, with
// next-hop-self, those from eBGP (RFC 4271 §5.1.3).
func nextHopRules(n *Neighbor, c *Config, nh netip.Addr) []nextHopRule {
	switch {
	case !nh.IsValid():
		return nil
	case n.AS != c.AS:
		return []nextHopRule{{nh, api.Conditions_ROUTE_TYPE_UNSPECIFIED}}
	case n.NextHopSelf:
		return []nextHopRule{{nh, api.Conditions_ROUTE_TYPE_LOCAL}, {nh, api.Conditions_ROUTE_TYPE_EXTERNAL}}
	}
	return []nextHopRule{{nh, api.Conditions_ROUTE_TYPE_LOCAL}}
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
