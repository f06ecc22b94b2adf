package main

import (
	"net/netip"
	"strconv"
	"strings"

	"rlr/bgp"
	"rlr/internal/config"
)

// This file turns the configuration's policies into the speaker's.

// bgpPolicies resolves the names of sets.
func bgpPolicies(cfg *config.Config) map[bgp.Policy][]bgp.Rule {
	out := map[bgp.Policy][]bgp.Rule{}
	for _, p := range cfg.Policies {
		rules := []bgp.Rule{}
		for _, r := range p.Rules {
			rules = append(rules, bgpRule(cfg, r))
		}
		out[bgp.Policy(p.Name)] = rules
	}
	return out
}

func bgpRule(cfg *config.Config, r config.Rule) bgp.Rule {
	out := bgp.Rule{Name: r.Name, Match: bgpMatch(cfg, r.Match), Set: bgpSet(r.Set)}
	switch r.Action {
	case config.ActionAccept:
		out.Action = bgp.Accept
	case config.ActionReject:
		out.Action = bgp.Reject
	}
	return out
}

func bgpMatch(cfg *config.Config, m config.Match) bgp.Match {
	out := bgp.Match{
		ASContains: cfg.ASNumbers(m.ASContains), ASLast: cfg.ASNumbers(m.ASLast), ASNeighbor: cfg.ASNumbers(m.ASNeighbor),
		LargeCommunities: cfg.Words(m.LargeCommunity, cfg.Sets.LargeCommunities),
		Communities:      cfg.Words(m.Community, cfg.Sets.Communities),
		Origins:          m.Origin, NextHops: m.NextHop, ROA: bgp.Validity(m.ROA),
		Words: map[string]string{},
	}
	prefixes := m.Prefix
	if m.NotPrefix != nil {
		prefixes, out.NotPrefixes = m.NotPrefix, true
	}
	if prefixes != nil {
		out.Prefixes = []bgp.PrefixRange{}
		for _, r := range cfg.PrefixRanges(prefixes) {
			out.Prefixes = append(out.Prefixes, bgp.PrefixRange(r))
		}
	}
	if m.NotCommunity != nil {
		out.Communities, out.NotCommunities = cfg.Words(m.NotCommunity, cfg.Sets.Communities), true
	}
	for _, f := range m.Family {
		out.Families = append(out.Families, bgpFamily(f))
	}
	if m.ASLength != nil {
		out.ASLength = &bgp.Span{Min: m.ASLength.Min, Max: m.ASLength.Max}
	}
	for _, s := range m.Source {
		out.Sources = append(out.Sources, bgp.Source(s))
	}
	for key, words := range map[string][]string{
		"prefix": m.Prefix, "not-prefix": m.NotPrefix, "as-path contains": m.ASContains, "as-path last": m.ASLast,
		"as-path neighbor": m.ASNeighbor, "community": m.Community, "not-community": m.NotCommunity, "large-community": m.LargeCommunity,
	} {
		if words != nil {
			out.Words[key] = strings.Join(words, ", ")
		}
	}
	return out
}

func bgpSet(c config.Change) bgp.Set {
	out := bgp.Set{
		LocalPref: c.LocalPref, Origin: c.Origin, Prepend: c.Prepend, NextHopSelf: c.NextHop == "self",
		Communities: bgpEdit(c.Communities), LargeCommunities: bgpEdit(c.LargeCommunities),
	}
	if c.MED != "" {
		if n, err := strconv.ParseInt(c.MED, 10, 64); err == nil {
			out.MED = &bgp.MED{Value: n, Relative: strings.ContainsAny(c.MED, "+-")}
		}
	}
	if a, err := netip.ParseAddr(c.NextHop); err == nil {
		out.NextHop = a
	}
	return out
}

func bgpEdit(e config.CommunityEdit) bgp.Edit {
	return bgp.Edit{Replace: e.Replace != nil, With: e.Replace, Remove: e.Remove, Add: e.Add}
}

func bgpFamily(f config.Family) bgp.Family {
	if f == config.IPv4 {
		return bgp.IPv4
	}
	return bgp.IPv6
}

// familyPolicies are those of a direction that has them by family.
func familyPolicies(of map[config.Family]config.Policy) map[bgp.Family]bgp.Policy {
	if of == nil {
		return nil
	}
	out := map[bgp.Family]bgp.Policy{}
	for f, p := range of {
		out[bgpFamily(f)] = bgp.Policy(p)
	}
	return out
}
