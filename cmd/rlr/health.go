package main

import (
	"context"
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
	away      time.Duration // since when it is not connected
	life      uint64        // of the dataplane
	fib       fib.Status
	bgp       bool
	sessions  string // for people
}

func (r *router) vitals() vitals {
	dp := r.agent.Status()
	since := dp.Since
	if since.IsZero() {
		since = r.started
	}
	v := vitals{connected: dp.Connected, away: time.Since(since), life: r.lives.Load(), fib: r.syncer.Status(), bgp: r.speaker != nil}
	if v.bgp {
		established, total := r.speaker.Established()
		v.sessions = fmt.Sprintf("%d of %d sessions Established", established, total)
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
		Log:     r.subsystem("web"),
	})
	r.stages.start("web", s.Run)
}

// alive is the dataplane's check of /healthz.
func alive(v vitals) web.Check {
	c := web.Check{Name: "dataplane", OK: v.connected || v.away < dataplaneLimit, Detail: "connected"}
	if !v.connected {
		c.Detail = fmt.Sprintf("away for %s, restarting", v.away.Truncate(time.Second))
		if !c.OK {
			c.Detail = fmt.Sprintf("away for %s, which is longer than a restart takes", v.away.Truncate(time.Second))
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
	first := web.Check{Name: "bgp", OK: v.fib.Complete, Detail: v.sessions}
	switch {
	case !v.bgp:
		first.OK, first.Detail = true, "none configured"
	case !first.OK:
		first.Detail += ", not all first routes here yet"
	}
	out := []web.Check{dataplane, routes, first}
	if h.stopping {
		out = append(out, web.Check{Name: "router", Detail: "stopping"})
	}
	return out
}
