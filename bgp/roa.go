package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/bgp/rpki"
)

// This file validates the origins of routes (RFC 6811): GoBGP's policies by the table that roatable.go fills, and what an
// operator sees by the same VRPs. When those change, the routes that a neighbour has announced are judged again, without the
// session noticing, but only those of neighbours that have announced a route whose state is another one now.

// ROAPolicy says what validation means for the routes that eBGP neighbours announce. Nothing is asked of iBGP's: the router
// that they came in by has judged them.
type ROAPolicy string

// The policies.
const (
	ROAOff         ROAPolicy = ""             // all pass; named policies may match the state
	ROADropInvalid ROAPolicy = "drop-invalid" // invalid ones are refused
	ROAStrict      ROAPolicy = "strict"       // only valid ones pass
)

// SetROAs gives the speaker the VRPs of the moment; nil means that routes are not validated. Routes that are there are judged
// again soon.
func (s *Speaker) SetROAs(t *rpki.Table) {
	s.roas.Store(t)
	select {
	case s.roasChanged <- struct{}{}:
	default:
	}
}

// roaPolicy is the one that counts for a neighbour.
func (n *Neighbor) roaPolicy(c *Config) ROAPolicy {
	if n.AS == c.AS {
		return ROAOff
	}
	return c.ROA
}

// roaMatters says whether the neighbour's import or export depends on the state of a route.
func (n *Neighbor) roaMatters(c *Config) (in, out bool) {
	return n.roaPolicy(c) != ROAOff || c.asks(n, importing, byROA), c.asks(n, exporting, byROA)
}

func byROA(m *Match) bool { return m.ROA != "" }

// asSetSuffix matches GoBGP's text of an AS_PATH that ends with an AS_SET.
const asSetSuffix = `\}$`

// validations puts what Config.ROA says in front of the import policies. GoBGP differs from RFC 6811 in two things. A path that
// ends with an AS_SET is unknown to it even where VRPs cover it, and invalid to the RFC: such paths are refused first, as RFC 9774
// wants. And a route of our own has no origin to it towards our own AS, so that VRPs that cover it make it invalid.
func (b *builder) validations() {
	c := b.compiler(importing)
	judged := b.who(func(n *Neighbor) bool { return n.roaPolicy(b.c) != ROAOff })
	reject := func(who []netip.Addr, cond *api.Conditions, what string) {
		b.add(importing, who, statement{
			cond: cond, act: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT}, test: true,
		}, ruleRef{what: what})
	}
	reject(judged, &api.Conditions{AsPathSet: c.any(api.DefinedType_DEFINED_TYPE_AS_PATH, []string{asSetSuffix})}, "roa.policy: the AS path ends with a set (RFC 9774)")
	reject(judged, &api.Conditions{RpkiResult: validities[ROAInvalid]}, "roa.policy: the route's origin is invalid")
	reject(b.who(func(n *Neighbor) bool { return n.roaPolicy(b.c) == ROAStrict }), &api.Conditions{RpkiResult: validities[ROAUnknown]},
		"roa.policy strict: there is no ROA for the route")
}

// originOf returns the AS that a route comes from (RFC 6811 §2); 0 for none, where the path ends with an AS_SET. own is ours:
// of routes from within.
func originOf(attrs []bgp.PathAttributeInterface, own uint32) uint32 {
	for _, a := range attrs {
		path, ok := a.(*bgp.PathAttributeAsPath)
		if !ok || len(path.Value) == 0 {
			continue
		}
		last := path.Value[len(path.Value)-1]
		list := last.GetAS()
		switch {
		case last.GetType() == bgp.BGP_ASPATH_ATTR_TYPE_SET:
			return 0
		case last.GetType() == bgp.BGP_ASPATH_ATTR_TYPE_SEQ && len(list) > 0:
			return list[len(list)-1]
		}
	}
	return own
}

// validation is the state of a path by the VRPs of the moment; "" where routes are not validated.
func (s *Speaker) validation(p *apiutil.Path) string {
	t := s.roas.Load()
	if t == nil {
		return ""
	}
	prefix, ok := prefixOf(p.Nlri)
	if !ok {
		return ""
	}
	return t.Validate(prefix, originOf(p.Attrs, s.local.as)).String()
}

// --- following the VRPs

// roaShare bounds what judging routes again takes away from all else: one part in so many of the time.
const (
	roaShare   = 4
	roaLongest = 30 * time.Second
)

// takeROAs gives GoBGP's policies the VRPs of the moment, and returns those.
func (s *Speaker) takeROAs(r *running) *rpki.Table {
	r.roaMu.Lock()
	defer r.roaMu.Unlock()
	t := s.roas.Load()
	r.roa.change(rpki.Diff(r.roaHas, t))
	r.roaHas = t
	return t
}

// followROAs judges routes again when the VRPs change, until r ends. judged is what they were judged by so far.
func (s *Speaker) followROAs(r *running, judged *rpki.Table) {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-s.roasChanged:
		}
		began := time.Now()
		next := s.takeROAs(r)
		if err := s.judgeAgain(r, judged, next); err != nil && r.ctx.Err() == nil {
			s.log.WithError(err).Error("routes could not be validated again")
		}
		judged = next
		rest := time.NewTimer(min(roaShare*time.Since(began), roaLongest))
		select {
		case <-rest.C:
		case <-r.ctx.Done():
			rest.Stop()
			return
		}
	}
}

// judgeAgain applies the policies that depend on validation to the routes that are there, where states have changed.
func (s *Speaker) judgeAgain(r *running, old, next *rpki.Table) error {
	added, removed := rpki.Diff(old, next)
	if len(added)+len(removed) == 0 {
		return nil
	}
	c := roaChange{old: old, next: next, touched: rpki.NewTable(added, removed), own: s.local.as}
	s.mu.RLock()
	cfg := s.cfg
	s.mu.RUnlock()
	var errs []error
	outbound := map[uint32]bool{}
	again := 0
	for i := range cfg.Neighbors {
		n := &cfg.Neighbors[i]
		in, out := n.roaMatters(&cfg)
		p := s.peerByAddr(n.Address)
		if p == nil {
			continue // it has just gone
		}
		if out {
			outbound[r.export.class(p.id)] = true
		}
		if !in {
			continue
		}
		if hit, err := r.concerns(p, c); err != nil || !hit {
			errs = append(errs, err)
			continue
		}
		again++
		errs = append(errs, r.judgeIn(p))
	}
	if len(outbound) > 0 {
		hit, err := r.affected(api.TableType_TABLE_TYPE_GLOBAL, "", c)
		if errs = append(errs, err); hit {
			errs = append(errs, r.refill(outbound))
		}
	}
	s.log.WithFields(map[string]any{"added": len(added), "removed": len(removed), "neighbors": again}).Info("ROAs changed; routes are validated again")
	return errors.Join(errs...)
}

// roaChange is a change of VRPs.
type roaChange struct {
	old, next *rpki.Table
	touched   *rpki.Table // what was added or removed
	own       uint32
}

// flips reports whether the change makes another state of a route's.
func (c roaChange) flips(p *apiutil.Path) bool {
	prefix, ok := prefixOf(p.Nlri)
	if !ok {
		return false
	}
	for range c.touched.Covering(prefix) {
		origin := originOf(p.Attrs, c.own)
		return c.old.Validate(prefix, origin) != c.next.Validate(prefix, origin)
	}
	return false
}

// concerns reports whether a neighbour has announced a route whose state is another one now. It answers yes without looking
// for one that has announced so much that a copy of all would be more than the answer is worth.
func (r *running) concerns(p *peer, c roaChange) (bool, error) {
	const many = 100_000
	r.peerMu.Lock()
	known := p.known
	r.peerMu.Unlock()
	if !known {
		return false, nil
	}
	total := uint64(0)
	for _, family := range []Family{IPv4, IPv6} {
		f := family.wire()
		t, err := r.gobgp.GetTable(r.ctx, &api.GetTableRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.id.String(),
			Family: &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())},
		})
		if err == nil { // otherwise it has no such family, or has just gone
			total += t.GetNumPath()
		}
	}
	if total == 0 || total > many {
		return total > 0, nil
	}
	return r.affected(api.TableType_TABLE_TYPE_ADJ_IN, p.id.String(), c)
}

// affected reports whether a table has a route whose state is another one now.
func (r *running) affected(kind api.TableType, name string, c roaChange) (bool, error) {
	hit := false
	for _, family := range []Family{IPv4, IPv6} {
		ip4, ip6 := c.touched.Len()
		if hit || family == IPv4 && ip4 == 0 || family == IPv6 && ip6 == 0 {
			continue
		}
		err := r.gobgp.ListPath(apiutil.ListPathRequest{TableType: kind, Name: name, Family: family.wire()}, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				hit = hit || c.flips(p)
			}
		})
		if err != nil {
			return false, fmt.Errorf("%s routes of %s: %w", family, cmp.Or(name, "all"), err)
		}
	}
	return hit, nil
}
