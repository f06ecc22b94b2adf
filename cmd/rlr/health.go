package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rlr/fib"
	"rlr/internal/web"
)

// This file is how the router tells a supervisor whether to restart it (/healthz), and whether to rely on it (/readyz).

// dataplaneLimit is how long the dataplane may be away before a supervisor should restart the router: an attempt to start VPP
// after the longest pause between attempts (30 s, and 30 s to answer; see rootless), and time to connect to it.
const dataplaneLimit = 90 * time.Second

// waitingShare is which part of the routes may wait to be written while the dataplane counts as holding the routes: where
// neighbours are busy, some always wait.
const waitingShare = 20

// health is what the answers need to remember.
type health struct {
	mu       sync.Mutex
	stopping bool
	settled  uint64 // the dataplane's life in which it was first seen to hold the routes; 0: none yet
}

// stop makes the router one that nobody should rely on any more.
func (h *health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// vitals are what health is judged by.
type vitals struct {
	connected bool
	since     time.Duration // for how long it has been connected, or not
	life      uint64        // of the dataplane
	fib       fib.Status

	bgp                 bool
	deferral            time.Duration
	sessions, neighbors int // neighbours that are Established, and all of them
}

func (r *router) vitals() vitals {
	dp := r.agent.Status()
	since := dp.Since
	if since.IsZero() {
		since = r.started
	}
	v := vitals{
		connected: dp.Connected, since: time.Since(since), life: r.lives.Load(), fib: r.syncer.Status(),
		bgp: r.speaker != nil, deferral: r.config.Load().BGP.Deferral,
	}
	if v.bgp {
		v.sessions, v.neighbors = r.speaker.Established()
	}
	return v
}

func (r *router) startWeb() {
	cfg := r.config.Load()
	if !cfg.Services.HTTP.IsValid() {
		return
	}
	s := web.New(web.Options{
		Listen:  cfg.Services.HTTP,
		Healthy: func(context.Context) []web.Check { return []web.Check{alive(r.vitals())} },
		Ready:   func(context.Context) []web.Check { return r.health.ready(r.vitals()) },
		Figures: r.figures,
		Log:     r.subsystem("web"),
	})
	r.stages.start("web", s.Run)
}

// figures are those of the commands `rlr show …`.
func (r *router) figures(ctx context.Context) (web.Figures, error) {
	f := web.Figures{BGP: r.sessions()}
	var errs [4]error
	f.Status, errs[0] = r.status(ctx)
	f.BFD, errs[1] = r.bfdRows(ctx)
	f.WireGuard, errs[2] = r.wireguard(ctx)
	if f.Interfaces, errs[3] = r.interfaces(ctx); errs[3] != nil {
		r.subsystem("web").WithError(errs[3]).Debug("no interfaces for /metrics") // the dataplane is away, which rlr_dataplane_up says
		errs[3] = nil
	}
	return f, errors.Join(errs[:]...)
}

// alive is the dataplane's check of /healthz.
func alive(v vitals) web.Check {
	c := web.Check{Name: "dataplane", OK: v.connected || v.since < dataplaneLimit, Detail: "connected"}
	if !v.connected {
		c.Detail = fmt.Sprintf("away for %s, restarting", v.since.Truncate(time.Second))
		if !c.OK {
			c.Detail = fmt.Sprintf("away for %s, which is longer than a restart takes", v.since.Truncate(time.Second))
		}
	}
	return c
}

// ready are the checks of /readyz. What was true once in a life of the dataplane stays true: its routes are read again at
// every audit, and neighbours always have changes under way.
func (h *health) ready(v vitals) []web.Check {
	h.mu.Lock()
	defer h.mu.Unlock()
	dataplane := alive(v)
	dataplane.OK = v.connected
	if v.connected && v.fib.Synced && v.fib.Unsettled <= v.fib.Routes/waitingShare {
		h.settled = v.life
	}
	routes := web.Check{Name: "routes", OK: v.connected && h.settled == v.life && v.life > 0}
	switch {
	case routes.OK:
		routes.Detail = fmt.Sprintf("%d, in the dataplane", v.fib.Routes)
	case !v.connected:
		routes.Detail = "the dataplane is away"
	case !v.fib.Synced:
		routes.Detail = "the dataplane's routes have not been read yet"
	default:
		routes.Detail = fmt.Sprintf("%d of %d wait to be written", v.fib.Unsettled, v.fib.Routes)
	}
	out := []web.Check{dataplane, routes, firstRoutes(v)}
	if h.stopping {
		out = append(out, web.Check{Name: "router", Detail: "stopping"})
	}
	return out
}

// firstRoutes is BGP's check of /readyz: the first routes are here, or were awaited long enough. A dataplane that has died took
// the sessions with it, and so it is with one of them in the next life.
func firstRoutes(v vitals) web.Check {
	if !v.bgp {
		return web.Check{Name: "bgp", OK: true, Detail: "none configured"}
	}
	again := v.life <= 1 || v.sessions > 0 || v.neighbors == 0 || v.since >= v.deferral
	c := web.Check{Name: "bgp", OK: v.fib.Complete && again, Detail: fmt.Sprintf("%d of %d sessions Established", v.sessions, v.neighbors)}
	if !c.OK {
		c.Detail += ", first routes awaited"
	}
	return c
}
