package main

import (
	"context"
	"errors"
	"net/netip"

	"rlr/bgp"
	"rlr/internal/ctl"
)

// policyTest answers `rlr policy test`.
func (r *router) policyTest(ctx context.Context, req ctl.PolicyRequest, emit func(ctl.PolicyResult) error) error {
	if r.speaker == nil {
		return ctl.NotFound("this router speaks no BGP: router.as is not set")
	}
	q := bgp.PolicyQuestion{Neighbor: req.Neighbor}
	var err error
	if q.Prefix, err = netip.ParsePrefix(req.Prefix); err != nil {
		return ctl.BadRequest("prefix %q: %v", req.Prefix, err)
	}
	if req.Suppose {
		q.Route = &bgp.SupposedRoute{
			ASPath: req.ASPath, Communities: req.Communities, LargeCommunities: req.LargeCommunities, Origin: req.Origin, MED: req.MED,
		}
		if req.NextHop != "" {
			if q.Route.NextHop, err = netip.ParseAddr(req.NextHop); err != nil {
				return ctl.BadRequest("next hop %q: %v", req.NextHop, err)
			}
		}
	}
	directions := []string{"import", "export"}
	switch req.Direction {
	case "":
	case "import", "export":
		directions = []string{req.Direction}
	default:
		return ctl.BadRequest("direction %q: it is import or export", req.Direction)
	}
	for _, d := range directions {
		q.Export = d == "export"
		a, err := r.speaker.TestPolicy(ctx, q)
		switch {
		case errors.Is(err, bgp.ErrNoNeighbor):
			return neighborError(err)
		case err != nil:
			return ctl.BadRequest("%v", err)
		}
		if err := emit(policyResult(d, a)); err != nil {
			return err
		}
	}
	return nil
}

func policyResult(direction string, a bgp.PolicyAnswer) ctl.PolicyResult {
	out := ctl.PolicyResult{
		Prefix: a.Prefix.String(), Neighbor: a.Neighbor, Direction: direction, Supposed: a.Supposed, From: a.From,
		Accepted: a.Accepted, Policy: string(a.Policy), Rule: a.Rule, RuleName: a.Name, Reason: a.Reason,
		Validity: string(a.Validity), Blocked: a.Blocked, InTable: a.InTable,
		Before: policyRoute(a.Before), After: policyRoute(a.After), Rules: []ctl.PolicyRule{},
	}
	for _, one := range a.Rules {
		out.Rules = append(out.Rules, ctl.PolicyRule{
			Policy: string(one.Policy), Rule: one.Rule, Name: one.Name, Asks: one.Asks, Matched: one.Matched, Why: one.Why,
			Action: one.Action, Changes: one.Changes,
		})
	}
	return out
}

func policyRoute(p bgp.Path) ctl.PolicyRoute {
	return ctl.PolicyRoute{
		ASPath: p.ASPath, NextHop: addrString(p.NextHop), Origin: p.Origin, LocalPref: p.LocalPref, MED: p.MED,
		Communities: append([]string{}, p.Communities...), LargeCommunities: append([]string{}, p.LargeCommunities...),
	}
}
