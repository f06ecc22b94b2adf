package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"rlr/bgp"
	"rlr/fib"
	"rlr/internal/ctl"
	"rlr/vppagent"
)

// This file puts together what fib and BGP know of a prefix: fib the state and who wins, BGP every path.

// bgpPaths are BGP's paths by key; those of routes that we originate ourselves are left out, as their own protocol shows them.
type bgpPaths map[fib.Key][]bgp.Path

func (r *router) bgpPaths(ctx context.Context, f bgp.Filter) (bgpPaths, error) {
	out := bgpPaths{}
	if r.speaker == nil {
		return out, nil
	}
	err := r.speaker.Paths(ctx, f, func(p bgp.Prefix) bool {
		var foreign []bgp.Path
		for _, path := range p.Paths {
			if path.Neighbor != "" {
				foreign = append(foreign, path)
			}
		}
		if len(foreign) > 0 {
			out[fib.Key{Table: p.Table, Prefix: p.Prefix}] = foreign
		}
		return true
	})
	return out, err
}

// routes answers `show route`.
func (r *router) routes(ctx context.Context, f ctl.RouteFilter, emit func(ctl.Route) error) error {
	return r.eachRoute(ctx, f, emit)
}

// routeCount answers `show route count`. All routes, or those of a protocol that is no neighbour, are counted without being put
// together.
func (r *router) routeCount(ctx context.Context, f ctl.RouteFilter) (ctl.RouteCount, error) {
	if !f.Prefix.IsValid() && !f.For.IsValid() && !f.Failed && f.Protocol == "" && (f.Table == "" || f.Table == defaultTable) {
		if n, ok := r.quickCount(ctx); ok {
			return n, nil
		}
	}
	return r.slowCount(ctx, f)
}

// quickCount adds up what fib and BGP count anyway. ok is false where they do not agree, because something is under way or a
// path has no usable next hop: then only looking at all of them tells.
func (r *router) quickCount(ctx context.Context) (n ctl.RouteCount, ok bool) {
	c := r.syncer.Count()
	n = ctl.RouteCount{Routes: c.Routes, Paths: c.Paths, Installed: c.Installed, Failed: c.Failed}
	if r.speaker == nil {
		return n, true
	}
	b, err := r.speaker.Count(ctx)
	if err != nil || b.Prefixes != c.Feeds["bgp"].Routes {
		return n, false
	}
	n.Paths += b.Paths - c.Feeds["bgp"].Paths
	return n, true
}

func (r *router) slowCount(ctx context.Context, f ctl.RouteFilter) (ctl.RouteCount, error) {
	var n ctl.RouteCount
	err := r.eachRoute(ctx, f, func(row ctl.Route) error {
		n.Routes++
		n.Paths += len(row.Paths)
		switch row.State {
		case fib.Installed.String():
			n.Installed++
		case fib.Failed.String():
			n.Failed++
		}
		return nil
	})
	return n, err
}

func (r *router) eachRoute(ctx context.Context, f ctl.RouteFilter, visit func(ctl.Route) error) error {
	if f.Table != "" && f.Table != defaultTable {
		return ctl.NotFound("no table %q: there is only %s", f.Table, defaultTable)
	}
	if f.Protocol != "" && !r.isProtocol(f.Protocol) {
		return ctl.NotFound("no protocol %q: see `rlr show protocols`", f.Protocol)
	}
	if f.Prefix.IsValid() || f.For.IsValid() {
		return r.oneRoute(ctx, f, visit)
	}
	return r.allRoutes(ctx, f, visit)
}

// tablePiece is how many routes are put together at a time: a full table is not copied for who reads it slowly.
const tablePiece = 1024

func (r *router) allRoutes(ctx context.Context, f ctl.RouteFilter, visit func(ctl.Route) error) error {
	piece := make([]fib.Entry, 0, tablePiece)
	prefixes := make([]netip.Prefix, 0, tablePiece)
	flush := func() error {
		prefixes = prefixes[:0]
		for _, e := range piece {
			if slices.ContainsFunc(e.Candidates, func(c fib.Candidate) bool { return c.Feed == "bgp" }) {
				prefixes = append(prefixes, e.Prefix)
			}
		}
		paths, err := r.bgpPaths(ctx, bgp.Filter{Prefixes: prefixes})
		if err != nil {
			return err
		}
		for _, e := range piece {
			if err := r.visitRoute(e, paths[e.Key], f, visit); err != nil {
				return err
			}
		}
		piece = piece[:0]
		return ctx.Err()
	}
	var err error
	r.syncer.Walk(func(e fib.Entry) bool {
		if piece = append(piece, e); len(piece) == tablePiece {
			err = flush()
		}
		return err == nil
	})
	if err == nil {
		err = flush()
	}
	return err
}

func (r *router) oneRoute(ctx context.Context, f ctl.RouteFilter, visit func(ctl.Route) error) error {
	var e fib.Entry
	var ok bool
	if f.For.IsValid() {
		e, ok = r.syncer.Lookup(0, f.For)
	} else {
		e, ok = r.syncer.Get(fib.Key{Prefix: f.Prefix.Masked()})
	}
	if !ok || f.For.IsValid() && f.Prefix.IsValid() && e.Prefix != f.Prefix.Masked() {
		return nil
	}
	paths, err := r.bgpPaths(ctx, bgp.Filter{Prefix: e.Prefix})
	if err != nil {
		return err
	}
	return r.visitRoute(e, paths[e.Key], f, visit)
}

func (r *router) visitRoute(e fib.Entry, paths []bgp.Path, f ctl.RouteFilter, visit func(ctl.Route) error) error {
	if f.Failed && e.State != fib.Failed {
		return nil
	}
	row := r.routeRow(e, paths)
	if f.Protocol != "" {
		kept := row.Paths[:0]
		for _, p := range row.Paths {
			if p.Protocol == f.Protocol || p.Neighbor == f.Protocol {
				kept = append(kept, p)
			}
		}
		if row.Paths = kept; len(kept) == 0 {
			return nil
		}
	}
	return visit(row)
}

// routeRow makes the answer of one entry: the winner's paths first.
func (r *router) routeRow(e fib.Entry, paths []bgp.Path) ctl.Route {
	row := ctl.Route{Prefix: e.Prefix.String(), Table: defaultTable, State: e.State.String(), Paths: []ctl.Path{}}
	if e.Err != nil {
		row.Error = e.Err.Error()
	}
	if len(e.Candidates) == 0 { // a left-over: only the dataplane knows it
		row.Paths = append(row.Paths, fibPaths(e.Best, "", 0, false)...)
		return row
	}
	runtime := r.overlay.Load()
	for n, c := range e.Candidates {
		if c.Feed != "bgp" {
			paths := fibPaths(c.Route, c.Feed, c.Preference, n == 0)
			for i := range paths {
				paths[i].Runtime = c.Feed == "static" && runtime.hasStatic(e.Prefix.String())
			}
			row.Paths = append(row.Paths, paths...)
			continue
		}
		for _, p := range paths {
			row.Paths = append(row.Paths, r.bgpPath(e.Table, p, c.Preference, n == 0))
		}
	}
	return row
}

func fibPaths(route fib.Route, protocol string, preference int, best bool) []ctl.Path {
	base := ctl.Path{
		Protocol: protocol, Preference: preference, Best: best, Communities: []string{}, Kind: kindName(route.Kind), Weight: 1,
	}
	if len(route.NextHops) == 0 {
		return []ctl.Path{base}
	}
	var out []ctl.Path
	for _, h := range route.NextHops {
		p := base
		p.Interface = h.Interface
		p.Weight = max(h.Weight, 1)
		if h.Addr.IsValid() {
			p.NextHop = h.Addr.String()
		}
		out = append(out, p)
	}
	return out
}

func kindName(k fib.Kind) string {
	switch k {
	case fib.Blackhole:
		return "blackhole"
	case fib.Unreachable:
		return "unreachable"
	case fib.Prohibit:
		return "prohibit"
	}
	return ""
}

func (r *router) bgpPath(table uint32, p bgp.Path, preference int, wins bool) ctl.Path {
	out := ctl.Path{
		Protocol: "bgp", Neighbor: p.Neighbor, Interface: p.Interface, Best: p.Best && wins, Preference: preference,
		ASPath: p.ASPath, Communities: p.Communities, Large: p.LargeCommunities, Origin: p.Origin,
		LocalPref: p.LocalPref, MED: p.MED, Weight: 1, AgeS: time.Since(p.Since).Seconds(), Stale: p.Stale, ROA: p.ROA,
	}
	if out.Communities == nil {
		out.Communities = []string{}
	}
	if p.NextHop.IsValid() {
		out.NextHop = p.NextHop.WithZone("").String()
		if out.Interface == "" {
			out.Interface = r.syncer.ResolveInterface(table, p.NextHop)
		}
	}
	return out
}

// isProtocol reports whether `show protocols` has a row, or a kind, of that name.
func (r *router) isProtocol(name string) bool {
	if name == "direct" || name == "static" || name == "bgp" || name == "learned" || name == grpcProtocol && r.others != nil {
		return true
	}
	for _, n := range r.config.Load().BGP.Neighbors {
		if n.Name == name {
			return true
		}
	}
	return slices.ContainsFunc(r.sessions(), func(s ctl.BGPSession) bool { return s.Dynamic && s.Name == name })
}

// fibEntries answers `show fib`: what the dataplane holds.
func (r *router) fibEntries(ctx context.Context, f ctl.FIBFilter, emit func(ctl.FIBEntry) error) error {
	if f.Table != "" && f.Table != defaultTable {
		return ctl.NotFound("no table %q: there is only %s", f.Table, defaultTable)
	}
	var table uint32 // a dataplane has more, for probes or of others
	entries, err := r.agent.FIB(ctx, vppagent.FIBFilter{Table: &table, Prefix: f.Prefix, Address: f.For})
	if err != nil {
		return ctl.Unavailable("fib: %v", err)
	}
	for _, e := range entries {
		row := ctl.FIBEntry{Prefix: e.Prefix.String(), Table: defaultTable, Source: e.Source, Paths: []ctl.FIBPath{}}
		for _, p := range e.Paths {
			row.Paths = append(row.Paths, ctl.FIBPath{
				Type: p.Type, NextHop: addrString(p.NextHop), Interface: p.Interface, Weight: p.Weight, Backup: p.Backup,
			})
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}

func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func neighborError(err error) error {
	if errors.Is(err, bgp.ErrNoNeighbor) {
		return ctl.NotFound("%v: see `rlr show bgp`", err)
	}
	return err
}

// parseTarget reads ADDRESS or ADDRESS%INTERFACE.
func parseTarget(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, ctl.BadRequest("target %s: not an address (a name would need a resolver; give the address)", strconv.Quote(s))
	}
	return a.Unmap(), nil
}
