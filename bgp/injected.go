package bgp

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"

	"rlr/fib"
)

// injected hands on the routes that others have put into GoBGP by its API: best paths of our own that Originate knows nothing
// of. They are a feed by themselves, so that the dataplane forwards by them and an operator sees whose they are.
type injected struct {
	feed       Feed // nil: there is no API
	keys       map[fib.Key]bool
	originated func(netip.Prefix) bool
}

// publish is the feeder's, for the best paths of a prefix, and whether any is our own.
func (i *injected) publish(key fib.Key, set []member, own bool) {
	if i.feed == nil {
		return
	}
	if !own || i.originated(key.Prefix) {
		if i.keys[key] {
			delete(i.keys, key)
			i.feed.Withdraw(key)
		}
		return
	}
	// What is announced without a next hop is ours: what nothing more specific covers goes nowhere, and not round in circles.
	r := fib.Route{Key: key, Kind: fib.Blackhole}
	for _, m := range set {
		if !m.source.IsValid() && m.hop.Addr.IsValid() && !m.hop.Addr.IsUnspecified() && !slices.Contains(r.NextHops, m.hop) {
			r.Kind = fib.Unicast
			r.NextHops = append(r.NextHops, m.hop)
		}
	}
	slices.SortFunc(r.NextHops, compareHops)
	i.keys[key] = true
	i.feed.Update(r)
}

func (i *injected) complete() {
	if i.feed != nil {
		i.feed.Complete()
	}
}

// injectedPrefixes are those that are in the feed.
func (f *feeder) injectedPrefixes() []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []netip.Prefix
	for key := range maps.Keys(f.injected.keys) {
		all = append(all, key.Prefix)
	}
	return all
}

// ownNextHop makes us the next hop of injected routes towards external neighbours: such a route may name its own next hop,
// to which we forward, and which a neighbour need not reach.
func (b *builder) ownNextHop() {
	b.add(exporting, b.who(b.external), statement{
		cond: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		act:  &api.Actions{Nexthop: &api.NexthopAction{Self: true}},
	}, ruleRef{what: "next hop of injected routes"})
}
