package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// restart is who outlives whom: a router with a full table is killed while VPP forwards, and VPP is killed while the router
// knows all routes. The way of the packets is memif cables alone, whose other ends survive; WireGuard links live in the
// router's process, so tun12 stops with it, and that is measured too. router3 announces one route at a time, and takes over
// some of router2's.
//
//	server1 ─lan1─ router1 ─core12─ router2 ─lan2─ server2
//	               │     └───tun12────┘
//	            core13
//	               │
//	            router3
//
// Each of router2's many routes is a host route, so that one packet for each is one packet for each route; what arrives of
// them at server2, VPP counts in the route that drops them there. server1's default route points at router1, router1 has none.
func restart() scenario {
	return scenario{
		name:    "restart",
		summary: "A router with 10,000 BGP routes is killed and started again without losing a packet; then its VPP, with 200,000",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"sessions", "all sessions are Established", "router3 has a neighbour that does not exist"},
			{"routes", "router1 has every route of router2's, in its table and in its dataplane", "router2 announces one route fewer"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router3's dataplane drop what is for 10.1.0.0/24"},
			{"ping", "server1 pings server2 with TTL 62, two routers away, by a BGP route", "somebody makes router2's dataplane drop what is for 10.1.0.0/24, for a while"},
			{"latency", "from an UPDATE with one route to its entry in the dataplane: median under 2 ms, 99 % under 10 ms, of 512", "router1's dataplane is stopped for 20 ms of every 21"},
			{"router-killed", "kill -9 of router1 for 5 s under 1,000 packets a second: none lost, VPP the same, no route written", "router2 does not do graceful restart for router1"},
			{"router-killed-changed", "the same with other routes at its return: the difference is written and nothing else", "router3 announces only half of what it took over"},
			{"vpp-killed-many", "kill -9 of router1's VPP with 200,000 routes: a packet for each arrives again", "router2 withdraws half of the routes meanwhile"},
		},
		vppOnly: []string{"router-killed", "router-killed-changed", "vpp-killed-many"},
		network: restartNetwork,
		story:   restartStory,
	}
}

const (
	restartHold   = 30 * time.Second
	restartRoutes = 10_000  // of router2's
	restartFew    = 500     // where a sabotage is to be seen
	restartMany   = 200_000 // on top, for VPP's death
	manyFew       = 2_000
	changedRoutes = 100 // removed, added and moved, of each so many
	singleRoutes  = 560 // announced one by one: more than the router keeps times of
	singleKept    = 512
	singleFew     = 130
	latencyRounds = 3
	singleEvery   = 70 * time.Millisecond

	medianLimit = 2.0 // ms
	p99Limit    = 10.0

	// restartRing holds what comes in a second: a machine that does other things too may stop a VPP for half a second, and what
	// is lost then is not lost by the router's death.
	restartRing = 2048
	awayFor     = 5 * time.Second
	tellAll     = 60 * time.Second // for many routes to go from router to router
	routesPool  = "100.64.0.0/10"  // all that server2 counts
	restartSite = "10.2.0.0/24"
	server1Addr = "10.1.0.2"
	server2Addr = "10.2.0.2"
	tun12Near   = "169.254.12.1"
)

// The pools that routes are made of, in 100.64.0.0/10.
var (
	basePool   = netip.MustParseAddr("100.64.0.0")
	addedPool  = netip.MustParseAddr("100.72.0.0")
	singlePool = netip.MustParseAddr("100.76.0.0")
	manyPool   = netip.MustParseAddr("100.80.0.0")
)

// hostRoutes are n host routes in a row.
func hostRoutes(first netip.Addr, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = first.String() + "/32"
		first = first.Next()
	}
	return out
}

func restartNetwork(sabotage string) network {
	routes := restartRoutes
	if sabotage != "" {
		routes = restartFew
	}
	cable := func(name, role, address string) iface {
		return iface{name: name, cable: name, role: role, ring: restartRing, addresses: []string{address}}
	}
	tunnel := func(address string) iface {
		return iface{name: "tun12", tunnel: "tun12", addresses: []string{address}}
	}
	peer := func(n int, address string) neighbor {
		return neighbor{name: siteNode("router", n), address: address, as: uint32(65000 + n), hold: restartHold.String()}
	}
	net := network{nodes: []node{
		{
			name: "router1", id: "10.1.0.1", as: 65001, originate: []string{"10.1.0.0/24"},
			interfaces: []iface{
				cable("lan1", "master", "10.1.0.1/24"), cable("core12", "master", "10.12.0.1/24"),
				cable("core13", "master", "10.13.0.1/24"), tunnel("169.254.12.1/30"),
			},
			neighbors: []neighbor{peer(2, "10.12.0.2"), peer(3, "10.13.0.2")},
		},
		{
			name: "router2", id: "10.2.0.1", as: 65002, learn: true, originate: append([]string{restartSite}, hostRoutes(basePool, routes)...),
			interfaces: []iface{
				cable("lan2", "master", "10.2.0.1/24"), cable("core12", "slave", "10.12.0.2/24"), tunnel("169.254.12.2/30"),
			},
			static:    []static{{prefix: routesPool, via: server2Addr}},
			neighbors: []neighbor{peer(1, "10.12.0.1")},
		},
		{
			name: "router3", id: "10.13.0.2", as: 65003,
			interfaces: []iface{cable("core13", "slave", "10.13.0.2/24")},
			neighbors:  []neighbor{peer(1, "10.13.0.1")},
		},
		{
			name: "server1", interfaces: []iface{cable("lan1", "slave", server1Addr+"/24")},
			static: []static{{prefix: "0.0.0.0/0", via: "10.1.0.1"}},
		},
		{
			name: "server2", interfaces: []iface{cable("lan2", "slave", server2Addr+"/24")},
			static: []static{{prefix: "10.1.0.0/24", via: "10.2.0.1"}, {prefix: routesPool, blackhole: true}},
		},
	}}
	router2, router3 := net.node("router2"), net.node("router3")
	switch sabotage {
	case "processes-unprivileged":
		router3.direct = true
	case "sessions":
		router3.neighbors = append(router3.neighbors, neighbor{name: "nobody", address: "10.13.0.99", as: 65099, hold: restartHold.String()})
	case "routes":
		router2.originate = router2.originate[:len(router2.originate)-1]
	case "router-killed":
		router2.neighbor("router1").graceful = "off"
	}
	return net
}

func restartStory(ctx context.Context, p *play) error {
	sabotaged := func(check string) bool { return p.opt.Sabotage == check }
	together(
		func() { p.check(ctx, "processes-unprivileged", p.checkProcesses) },
		func() { p.converge(ctx, p.checkManyRoutes) },
	)
	if err := p.dropSite1(ctx, "router3", sabotaged("fib-agrees"), "add"); err != nil {
		return err
	}
	p.check(ctx, "fib-agrees", p.checkFIB)
	if err := p.dropSite1(ctx, "router3", sabotaged("fib-agrees"), "del"); err != nil {
		return err
	}
	if err := p.dropSite1(ctx, "router2", sabotaged("ping"), "add"); err != nil {
		return err
	}
	p.check(ctx, "ping", p.checkRestartPing)
	if err := p.dropSite1(ctx, "router2", sabotaged("ping"), "del"); err != nil {
		return err
	}
	var trouble func(context.Context)
	if sabotaged("latency") {
		trouble = func(ctx context.Context) { p.stutter(ctx, "router1") }
	}
	p.check(ctx, "latency", func(ctx context.Context) (text string, err error) {
		for round := 1; ; round++ { // the rest of the machine is not always idle
			if text, err = p.checkLatency(ctx, trouble); err == nil || round == p.rounds(latencyRounds, 1) {
				return text, err
			}
			p.progress.say("latency, round %d of %d: %v", round, latencyRounds, err)
		}
	})
	dataplane, err := p.dataplaneOf(ctx, "router1")
	if err != nil {
		return err
	}
	if dataplane.Kind != onVPP {
		for _, name := range p.scenario.vppOnly {
			p.skip(name, "the embedded dataplane is in the router's process and dies with it")
		}
		return nil
	}
	p.check(ctx, "router-killed", p.checkRouterKilled)
	p.check(ctx, "router-killed-changed", func(ctx context.Context) (string, error) {
		return p.checkRouterKilledChanged(ctx, sabotaged("router-killed-changed"))
	})
	p.check(ctx, "vpp-killed-many", func(ctx context.Context) (string, error) {
		return p.checkVPPKilledMany(ctx, sabotaged("vpp-killed-many"))
	})
	return nil
}

// dropSite1 is a sabotage: it adds or removes a route of somebody else's that drops what is for site 1.
func (p *play) dropSite1(ctx context.Context, router string, wanted bool, verb string) error {
	if !wanted {
		return nil
	}
	if _, err := p.rlr(ctx, router, "vppctl", "ip", "route", verb, "10.1.0.0/24", "via", "drop"); err != nil {
		return fmt.Errorf("sabotage: %w", err)
	}
	return nil
}

// checkManyRoutes waits until router1 has all of router2's routes, as planned.
func (p *play) checkManyRoutes(ctx context.Context) (string, error) {
	want := 1 + p.rounds(restartRoutes, restartFew)
	if err := p.waitRoutes(ctx, tellAll, "router2", want); err != nil {
		return "", err
	}
	return fmt.Sprintf("router1 has %d routes of router2's, all of them in its dataplane", want), nil
}

// waitRoutes waits until router1 has exactly so many routes of a neighbour's, and all are installed.
func (p *play) waitRoutes(ctx context.Context, limit time.Duration, neighbor string, want int) error {
	return until(ctx, limit, func() error {
		var n ctl.RouteCount
		if err := p.ask(ctx, &n, "router1", "show", "route", "protocol", neighbor, "count"); err != nil {
			return err
		}
		if n.Routes != want || n.Installed != want {
			return fmt.Errorf("router1 has %d routes of %s's, %d of them installed, instead of %d", n.Routes, neighbor, n.Installed, want)
		}
		return nil
	})
}

func (p *play) checkRestartPing(ctx context.Context) (string, error) {
	var rows []ctl.Route
	if err := p.ask(ctx, &rows, "router1", "show", "route", "for", server2Addr); err != nil {
		return "", err
	}
	if err := routeHas(rows, restartSite, wantPath{"core12", "65002", true}); err != nil {
		return "", err
	}
	r, err := p.pingUntil(ctx, "server1", server2Addr, 62)
	if err != nil {
		return "", err
	}
	p.metric("ping_rtt_ms", r.Summary.AvgMs)
	return fmt.Sprintf("server1 to %s by %s: %d of %d, TTL 62, %.2f ms", server2Addr, restartSite, r.Summary.Received, r.Summary.Sent, r.Summary.AvgMs), nil
}

// announce makes routes all that a router originates.
func (p *play) announce(ctx context.Context, router string, routes []string) error {
	n := p.net.node(router)
	n.originate = routes
	if err := p.writeConfig(*n); err != nil {
		return err
	}
	return p.rlrWithin(ctx, tellAll, router, "reload")
}

// checkLatency lets router3 announce routes one by one, while router1 has nothing else to do, and asks router1 how long each
// took: from the moment at which the UPDATE was read from the session to the dataplane's reply.
func (p *play) checkLatency(ctx context.Context, trouble func(context.Context)) (string, error) {
	before, err := p.latency(ctx)
	if err != nil {
		return "", err
	}
	if trouble != nil {
		troubled, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); trouble(troubled) }()
		defer func() { cancel(); <-ended }()
	}
	n := p.net.node("router3")
	own := n.originate
	routes := hostRoutes(singlePool, p.rounds(singleRoutes, singleFew))
	for i := range routes {
		n.originate = slices.Concat(own, routes[:i+1])
		if err := p.writeConfig(*n); err != nil {
			return "", err
		}
		if err := syscall.Kill(p.routerPID("router3"), syscall.SIGHUP); err != nil { // rlr reload, without a process that takes time
			return "", fmt.Errorf("reload router3: %w", err)
		}
		if err := pause(ctx, singleEvery); err != nil {
			return "", err
		}
	}
	if err := p.waitRoutes(ctx, tellAll, "router3", len(own)+len(routes)); err != nil {
		return "", err
	}
	after, err := p.latency(ctx)
	if err != nil {
		return "", err
	}
	if err := p.announce(ctx, "router3", own); err != nil {
		return "", err
	}
	if err := p.waitRoutes(ctx, tellAll, "router3", len(own)); err != nil {
		return "", err
	}
	return p.judgeLatency(after, after.Count-before.Count, len(routes))
}

func (p *play) latency(ctx context.Context) (ctl.Latency, error) {
	var st ctl.Status
	err := p.ask(ctx, &st, "router1", "show", "status")
	return st.FIB.Latency, err
}

func (p *play) judgeLatency(l ctl.Latency, measured uint64, routes int) (string, error) {
	p.metric("route_latency_median_ms", l.MedianMs)
	p.metric("route_latency_p99_ms", l.P99Ms)
	text := fmt.Sprintf("%d routes, one every %s: median %.2f ms, 99 %% %.2f ms, worst %.2f ms", routes, singleEvery, l.MedianMs, l.P99Ms, l.MaxMs)
	switch {
	case measured < uint64(routes)*singleKept/singleRoutes:
		return "", fmt.Errorf("router1 measured %d of %d routes: %s", measured, routes, text)
	case l.MedianMs >= medianLimit || l.P99Ms >= p99Limit:
		return "", fmt.Errorf("%s; under %g ms and %g ms is wanted", text, medianLimit, p99Limit)
	}
	return text, nil
}

// stutter stops a router's dataplane again and again, as a host does that has too little CPU: a sabotage.
func (p *play) stutter(ctx context.Context, router string) {
	d, err := p.dataplaneOf(ctx, router)
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		syscall.Kill(d.PID, syscall.SIGSTOP) //nolint:errcheck // then there is no trouble, and the check tells
		pause(ctx, 20*time.Millisecond)      //nolint:errcheck // it must go on in any case
		syscall.Kill(d.PID, syscall.SIGCONT) //nolint:errcheck // as above
		pause(ctx, time.Millisecond)         //nolint:errcheck // the loop looks
	}
}
