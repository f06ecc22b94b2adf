package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"rlr/internal/config"
	"rlr/internal/ctl"
)

// reload reads the configuration again and applies what differs. A file that is wrong, or that asks for what only a restart
// can do, changes nothing.
func (r *router) reload(ctx context.Context) (ctl.Done, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	text, err := config.Read(r.path)
	if err != nil {
		return ctl.Done{}, ctl.BadRequest("%v", err)
	}
	ov, next, err := r.overlay.Load().on(text)
	if err != nil {
		return ctl.Done{}, ctl.BadRequest("%v", err)
	}
	changes, err := r.become(ctx, ov, next)
	if err != nil {
		return ctl.Done{}, err
	}
	if len(changes) == 0 {
		return ctl.Done{Message: "nothing has changed"}, nil
	}
	r.log.WithField("changes", len(changes)).Info("configuration reloaded")
	return ctl.Done{Message: fmt.Sprintf("configuration reloaded from %s", r.path), Changes: changes}, nil
}

// become makes a configuration the router's, with the overlay that it comes of, and returns what that touches. The caller
// holds reloading.
func (r *router) become(ctx context.Context, ov overlay, next *config.Config) ([]string, error) {
	old := r.config.Load()
	if err := needsRestart(old, next); err != nil {
		return nil, ctl.BadRequest("%v", err)
	}
	if held := heldBuffers(next); r.dp.vpp != nil && held > r.dp.held+sparedBuffers {
		return nil, ctl.BadRequest("the rings of memif slaves hold %d packet buffers, and VPP was started with %d for them: that needs `rlr stop` and `rlr run`, or smaller rings (ring-size, queues); nothing was changed",
			held, r.dp.held)
	}
	changes := difference(old, next)
	if len(changes) == 0 {
		r.overlay.Store(&ov)
		r.config.Store(next)
		return nil, nil
	}
	// The links come first: they are what can fail, and they leave everything as it was when they do.
	if err := r.links.apply(next, r.claim.Dir); err != nil {
		return nil, err
	}
	r.overlay.Store(&ov)
	r.config.Store(next)
	setLevel(r.logger, next.Log)
	defer r.applyProxies(next) // when their addresses are there
	r.discovering.Lock()
	r.configureAgent()
	r.discovering.Unlock()
	r.static.Replace(staticRoutes(next))
	r.direct.Replace(r.agent.Reachable())
	if old.Dataplane != next.Dataplane {
		r.syncer.SetAudit(auditEvery(next)) // which audits, and so finds what is learned now
	}
	if r.speaker == nil {
		return changes, nil
	}
	return changes, errors.Join(r.applyBGP(ctx, old, next), r.tryOriginate())
}

// needsRestart says which change of a configuration cannot be made while the router runs.
func needsRestart(old, next *config.Config) error {
	for _, c := range []struct {
		what      string
		old, next any
	}{
		{"router.name", old.Router.Name, next.Router.Name},
		{"router.id", old.Router.ID, next.Router.ID},
		{"router.as", old.Router.AS, next.Router.AS},
		{"bgp.multipath", old.BGP.Multipath, next.BGP.Multipath},
		{"bgp.cluster-id", old.BGP.ClusterID, next.BGP.ClusterID},
		{"dataplane.kind", old.Dataplane.Kind, next.Dataplane.Kind},
		{"dataplane.vpp.attach", old.Dataplane.Attach, next.Dataplane.Attach},
		{"services.http", old.Services.HTTP, next.Services.HTTP},
		{"control", old.Control, next.Control},
		{"log.format", old.Log.Format, next.Log.Format},
	} {
		if c.old != c.next {
			return fmt.Errorf("%s changes from %v to %v: that needs `rlr restart`; nothing was changed", c.what, c.old, c.next)
		}
	}
	return nil
}

// difference lists what a reload will touch, a line each.
func difference(old, next *config.Config) []string {
	var out []string
	named := func(kind, name string, a, b any, inOld, inNext bool) {
		switch {
		case !inOld:
			out = append(out, kind+" "+name+" added")
		case !inNext:
			out = append(out, kind+" "+name+" removed")
		case !reflect.DeepEqual(a, b):
			out = append(out, kind+" "+name+" changed")
		}
	}
	byName(old.Interfaces, next.Interfaces, func(i config.Interface) string { return i.Name }, func(name string, a, b config.Interface, inOld, inNext bool) {
		named("interface", name, a, b, inOld, inNext)
	})
	byName(old.BGP.Neighbors, next.BGP.Neighbors, func(n config.Neighbor) string { return n.Name }, func(name string, a, b config.Neighbor, inOld, inNext bool) {
		named("neighbor", name, a, b, inOld, inNext)
	})
	byName(old.BGP.Dynamic, next.BGP.Dynamic, func(e config.Dynamic) string { return e.Prefix.String() }, func(name string, a, b config.Dynamic, inOld, inNext bool) {
		named("dynamic neighbors of", name, a, b, inOld, inNext)
	})
	byName(old.Static, next.Static, func(s config.Static) string { return s.Prefix.String() }, func(name string, a, b config.Static, inOld, inNext bool) {
		named("static route", name, a, b, inOld, inNext)
	})
	byName(old.ACLs, next.ACLs, func(a config.ACL) string { return a.Name }, func(name string, a, b config.ACL, inOld, inNext bool) {
		named("acl", name, a, b, inOld, inNext)
	})
	byName(old.Policies, next.Policies, func(p config.RulePolicy) string { return p.Name }, func(name string, a, b config.RulePolicy, inOld, inNext bool) {
		named("policy", name, a, b, inOld, inNext)
	})
	if !reflect.DeepEqual(old.Sets, next.Sets) {
		out = append(out, "sets changed")
	}
	if old.BGP.PolicyOptional != next.BGP.PolicyOptional {
		out = append(out, "bgp.ebgp-requires-policy changed")
	}
	if old.BGP.DN42 != next.BGP.DN42 {
		out = append(out, "bgp.dn42 changed")
	}
	if !reflect.DeepEqual(old.BGP.Originate, next.BGP.Originate) {
		out = append(out, "bgp.originate changed")
	}
	if !reflect.DeepEqual(old.BGP.Redistribute, next.BGP.Redistribute) {
		out = append(out, "bgp.redistribute changed")
	}
	if !reflect.DeepEqual(old.ROA, next.ROA) {
		out = append(out, "roa changed")
	}
	out = append(out, proxyChanges(old.Services, next.Services)...)
	if old.Dataplane.Audit != next.Dataplane.Audit {
		out = append(out, "dataplane.audit changed")
	}
	if old.Dataplane.Learn != next.Dataplane.Learn {
		out = append(out, "dataplane.learn changed")
	}
	if old.BGP.Farewell != next.BGP.Farewell {
		out = append(out, "bgp.graceful-shutdown changed")
	}
	if old.BGP.Deferral != next.BGP.Deferral {
		out = append(out, "bgp.deferral changed, for the next start")
	}
	if old.Log.Level != next.Log.Level {
		out = append(out, "log.level changed")
	}
	return out
}

// byName pairs the members of two lists by name and visits those of the new list first, then what only the old one has.
func byName[T any](old, next []T, name func(T) string, visit func(name string, old, next T, inOld, inNext bool)) {
	was := make(map[string]T, len(old))
	for _, v := range old {
		was[name(v)] = v
	}
	for _, v := range next {
		o, ok := was[name(v)]
		visit(name(v), o, v, ok, true)
		delete(was, name(v))
	}
	for _, v := range old {
		if _, gone := was[name(v)]; gone {
			var none T
			visit(name(v), v, none, true, false)
		}
	}
}
