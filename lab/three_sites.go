package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// threeSites is the scene of the article "BIRD を用いて Linux サーバで BGP を試す": three sites, a tunnel between each two, BGP over the
// tunnels, a server at each site. Site N has 10.N.0.0/24, AS 6500N and router ID 10.N.0.1.
//
//	             server1
//	                │ 10.1.0.0/24
//	             router1
//	      tun12 ╱       ╲ tun13
//	     router2 ─tun23─ router3
//	10.2.0.0/24 │       │ 10.3.0.0/24
//	     server2         server3
func threeSites() scenario {
	return scenario{
		name:    "three-sites",
		summary: "Three sites in a triangle of WireGuard tunnels; one tunnel dies silently, and BGP heals",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"sessions", "all sessions are Established", "router3 has a neighbour that does not exist"},
			{"routes", "router1 has the direct path as best and the way around as alternative", "router3 and its neighbours are configured with another AS number"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router2's dataplane drop what is for 10.3.0.0/24"},
			{"ping", "server1 pings server2 with TTL 62, two routers away", "router2 sends what is for site 1 around by router3"},
			{"traceroute", "server1 traces the way to server2 through router1 and router2", "tun12 has other addresses than planned"},
			{"idle", "an idle router takes under 2 % of a core and under 64 MB", "a flood of pings passes router1"},
			{"hold-timer", "the silently cut session ends with Hold Timer Expired", "an operator resets the session before its timer expires"},
			{"failover", "router1's route moves to the other tunnel within the hold time and a second", "the session has a hold time of 60 s"},
			{"ping-recovers", "server1 reaches server2 again while the tunnel is cut", "router2 has a static route back through the dead tunnel"},
			{"healed", "the first state returns when the tunnel works again", "the tunnel stays cut"},
		},
		network: threeSitesNetwork,
		story:   threeSitesStory,
	}
}

const (
	siteHold     = 30 * time.Second
	longHold     = 60 * time.Second // of the sabotage of failover
	siteNet2     = "10.2.0.0/24"
	siteNet3     = "10.3.0.0/24"
	siteServer2  = "10.2.0.2"
	tun12Router1 = "169.254.12.1"
	tun12Router2 = "169.254.12.2"
)

func siteNode(kind string, n int) string { return fmt.Sprintf("%s%d", kind, n) }

// threeSitesNetwork builds the triangle. Tunnel IJ has 169.254.IJ.1 at the router with the smaller number.
func threeSitesNetwork(sabotage string) network {
	var net network
	for n := 1; n <= 3; n++ {
		net.nodes = append(net.nodes, siteRouter(n))
	}
	for n := 1; n <= 3; n++ {
		net.nodes = append(net.nodes, siteServer(n))
	}
	sabotageThreeSites(&net, sabotage)
	return net
}

func siteRouter(n int) node {
	lan := fmt.Sprintf("10.%d.0", n)
	r := node{
		name: siteNode("router", n), id: lan + ".1", as: uint32(65000 + n), originate: []string{lan + ".0/24"},
		interfaces: []iface{{name: "eth0", cable: fmt.Sprintf("lan%d", n), role: "master", addresses: []string{lan + ".1/24"}}},
	}
	for peer := 1; peer <= 3; peer++ {
		if peer == n {
			continue
		}
		pair := fmt.Sprintf("%d%d", min(n, peer), max(n, peer))
		mine, theirs := "1", "2"
		if n > peer {
			mine, theirs = theirs, mine
		}
		r.interfaces = append(r.interfaces, iface{
			name: "tun" + pair, tunnel: "tun" + pair, addresses: []string{"169.254." + pair + "." + mine + "/30"},
		})
		r.neighbors = append(r.neighbors, neighbor{
			name: siteNode("router", peer), address: "169.254." + pair + "." + theirs, as: uint32(65000 + peer), hold: siteHold.String(),
		})
	}
	return r
}

func siteServer(n int) node {
	lan := fmt.Sprintf("10.%d.0", n)
	return node{
		name:       siteNode("server", n),
		interfaces: []iface{{name: "eth0", cable: fmt.Sprintf("lan%d", n), role: "slave", addresses: []string{lan + ".2/24"}}},
		static:     []static{{prefix: "0.0.0.0/0", via: lan + ".1"}},
	}
}

// sabotageThreeSites puts the defects into the topology that belong there; the others are in the story.
func sabotageThreeSites(net *network, sabotage string) {
	router1, router2, router3 := net.node("router1"), net.node("router2"), net.node("router3")
	switch sabotage {
	case "processes-unprivileged":
		router3.direct = true
	case "sessions":
		router3.neighbors = append(router3.neighbors, neighbor{name: "nobody", address: "10.3.0.99", as: 65099, hold: siteHold.String()})
	case "routes":
		router3.as = 65033
		router1.neighbor("router3").as = 65033
		router2.neighbor("router3").as = 65033
	case "ping":
		router2.static = append(router2.static, static{prefix: "10.1.0.0/24", via: "169.254.23.2"})
	case "traceroute":
		router1.iface("tun12").addresses = []string{"169.254.112.1/30"}
		router2.iface("tun12").addresses = []string{"169.254.112.2/30"}
		router1.neighbor("router2").address = "169.254.112.2"
		router2.neighbor("router1").address = "169.254.112.1"
	case "failover":
		router1.neighbor("router2").hold = longHold.String()
		router2.neighbor("router1").hold = longHold.String()
	case "ping-recovers":
		router2.static = append(router2.static, static{prefix: "10.1.0.0/24", via: tun12Router1})
	}
}

// firstState checks router1's routes as they are while all tunnels work.
func (p *play) firstState(ctx context.Context) error {
	var rows []ctl.Route
	if err := p.ask(ctx, &rows, "router1", "show", "route", "protocol", "bgp"); err != nil {
		return err
	}
	if err := routeHas(rows, siteNet2, wantPath{"tun12", "65002", true}, wantPath{"tun13", "65003 65002", false}); err != nil {
		return err
	}
	return routeHas(rows, siteNet3, wantPath{"tun13", "65003", true}, wantPath{"tun12", "65002 65003", false})
}

func checkSiteRoutes(p *play) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		err := until(ctx, convergeLimit, func() error { return p.firstState(ctx) })
		return "router1: " + siteNet2 + " best tun12 [65002], also tun13 [65003 65002]; " + siteNet3 + " mirrored", err
	}
}

func threeSitesStory(ctx context.Context, p *play) error {
	sabotaged := func(check string) bool { return p.opt.Sabotage == check }
	together(
		func() { p.check(ctx, "processes-unprivileged", p.checkProcesses) },
		func() { p.converge(ctx, checkSiteRoutes(p)) },
	)
	if sabotaged("fib-agrees") {
		if err := p.meddle(ctx, "router2", siteNet3); err != nil {
			return err
		}
	}
	together(
		func() { p.check(ctx, "fib-agrees", p.checkFIB) },
		func() { p.check(ctx, "ping", p.checkSitePing) },
		func() { p.check(ctx, "traceroute", p.checkSiteTrace) },
	)
	var load func(context.Context)
	if sabotaged("idle") {
		load = p.pingFlood
	}
	p.check(ctx, "idle", func(ctx context.Context) (string, error) { return p.checkIdle(ctx, "router1", load) })
	if err := p.cutTunnel(ctx, sabotaged("hold-timer")); err != nil {
		return err
	}
	return p.healTunnel(ctx, sabotaged("healed"))
}

func (p *play) checkSitePing(ctx context.Context) (string, error) {
	r, err := p.pingUntil(ctx, "server1", siteServer2, 62)
	if err != nil {
		return "", err
	}
	p.metric("ping_rtt_ms", r.Summary.AvgMs)
	return fmt.Sprintf("server1 to %s: %d of %d, TTL 62, %.2f ms", siteServer2, r.Summary.Received, r.Summary.Sent, r.Summary.AvgMs), nil
}

func (p *play) checkSiteTrace(ctx context.Context) (string, error) {
	want := []string{"10.1.0.1", tun12Router2, siteServer2}
	err := until(ctx, 10*time.Second, func() error {
		var r traceReport
		if err := p.ask(ctx, &r, "server1", "traceroute", siteServer2, "-W", "500ms", "-m", "8"); err != nil {
			return err
		}
		return r.passes(want...)
	})
	return "server1 → " + strings.Join(want, " → "), err
}

// pingFlood sends a thousand pings a second through router1.
func (p *play) pingFlood(ctx context.Context) {
	cmd := p.command(ctx, "server1", "ping", siteServer2, "-c", "0", "-i", "1ms")
	cmd.Run() //nolint:errcheck // killed by ctx
}

// cutTunnel cuts tun12 silently under a running ping and checks what follows.
func (p *play) cutTunnel(ctx context.Context, resetEarly bool) error {
	ping, err := p.pingStream(ctx, "server1", siteServer2)
	if err != nil {
		return err
	}
	defer ping.stop()
	began := time.Now()
	if err := until(ctx, 5*time.Second, func() error {
		if got, _ := ping.since(began); len(got) == 0 {
			return fmt.Errorf("server1 gets no answer from %s", siteServer2)
		}
		return nil
	}); err != nil {
		return err
	}
	p.progress.say("cutting tun12: every datagram is dropped silently from now on")
	if err := commandRelay(ctx, p.place.relaySocket(), "cut", "tun12"); err != nil {
		return err
	}
	cut := time.Now()
	if resetEarly {
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		if _, err := p.rlr(ctx, "router1", "neighbor", "reset", "router2"); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	together(
		func() {
			p.check(ctx, "hold-timer", func(ctx context.Context) (string, error) { return p.checkHoldTimer(ctx, cut) })
		},
		func() {
			p.check(ctx, "failover", func(ctx context.Context) (string, error) { return p.checkFailover(ctx, cut) })
		},
		func() {
			p.check(ctx, "ping-recovers", func(ctx context.Context) (string, error) { return p.checkRecovery(ctx, ping, cut) })
		},
	)
	return nil
}

// checkHoldTimer waits for the end of router1's session with router2 and for its reason.
func (p *play) checkHoldTimer(ctx context.Context, cut time.Time) (string, error) {
	seen := 0
	err := until(ctx, longHold+10*time.Second, func() error {
		var rows []ctl.BGPSession
		if err := p.ask(ctx, &rows, "router1", "show", "bgp", "router2"); err != nil {
			return err
		}
		err := judgeHoldTimer(rows)
		if err != nil && len(rows) == 1 && rows[0].State != established {
			if seen++; seen > 2 {
				return final(err)
			}
		}
		return err
	})
	return fmt.Sprintf("router1's session with router2 ended after %.1f s: %s", time.Since(cut).Seconds(), holdExpired), err
}

func judgeHoldTimer(rows []ctl.BGPSession) error {
	if len(rows) != 1 {
		return fmt.Errorf("router1 has %d sessions named router2", len(rows))
	}
	b := rows[0]
	if b.State == established {
		return fmt.Errorf("router1's session with router2 is still %s", b.State)
	}
	if !strings.Contains(b.LastError, holdExpired) {
		return fmt.Errorf("router1's session with router2 ended with %q instead of %q", b.LastError, holdExpired)
	}
	return nil
}

// checkFailover waits for router1's route to take the other tunnel.
func (p *play) checkFailover(ctx context.Context, cut time.Time) (string, error) {
	limit := siteHold + time.Second
	err := until(ctx, limit-time.Since(cut), func() error {
		var rows []ctl.Route
		if err := p.ask(ctx, &rows, "router1", "show", "route", siteNet2); err != nil {
			return err
		}
		return leadsTo(rows, siteNet2, "tun13")
	})
	took := time.Since(cut)
	if err == nil && took > limit {
		err = fmt.Errorf("it took %.1f s, more than %s", took.Seconds(), limit)
	}
	if err != nil {
		return "", err
	}
	p.metric("failover_ms", float64(took.Milliseconds()))
	return fmt.Sprintf("router1's route to %s moved to tun13 after %.1f s", siteNet2, took.Seconds()), nil
}

// checkRecovery waits for answers after the silence and measures it.
func (p *play) checkRecovery(ctx context.Context, ping *stream, cut time.Time) (string, error) {
	// Echoes that were on their way when the relay was cut still come within a moment.
	silent := cut.Add(500 * time.Millisecond)
	err := until(ctx, longHold+10*time.Second, func() error {
		if got, lost := ping.since(silent); len(got) < 5 {
			return fmt.Errorf("server1 gets no answer from %s, %d pings lost", siteServer2, lost)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	gap := ping.gap()
	_, lost := ping.since(silent)
	p.metric("outage_ms", float64(gap.Milliseconds()))
	p.metric("ping_lost", float64(lost))
	return fmt.Sprintf("outage %d ms, %d pings lost", gap.Milliseconds(), lost), nil
}

// healTunnel lets tun12 work again and waits for the first state.
func (p *play) healTunnel(ctx context.Context, stays bool) error {
	if !stays {
		p.progress.say("healing tun12")
		if err := commandRelay(ctx, p.place.relaySocket(), "heal", "tun12"); err != nil {
			return err
		}
	}
	healed := time.Now()
	p.check(ctx, "healed", func(ctx context.Context) (string, error) {
		err := until(ctx, convergeLimit, func() error { return p.asAtFirst(ctx) })
		if err != nil {
			return "", err
		}
		took := time.Since(healed)
		p.metric("heal_ms", float64(took.Milliseconds()))
		return fmt.Sprintf("sessions, routes and the way to server2 as at first after %.1f s", took.Seconds()), nil
	})
	return nil
}

// asAtFirst checks what the cut had changed: the session over tun12, router1's route, and packets that take it again.
func (p *play) asAtFirst(ctx context.Context) error {
	for router, peer := range map[string]string{"router1": "router2", "router2": "router1"} {
		var rows []ctl.BGPSession
		if err := p.ask(ctx, &rows, router, "show", "bgp", peer); err != nil {
			return err
		}
		if err := sessionsUp(router, rows); err != nil {
			return err
		}
	}
	var rows []ctl.Route
	if err := p.ask(ctx, &rows, "router1", "show", "route", siteNet2); err != nil {
		return err
	}
	if err := leadsTo(rows, siteNet2, "tun12"); err != nil {
		return err
	}
	if n := len(rows[0].Paths); n != 2 {
		return fmt.Errorf("router1's route to %s has %d paths instead of 2", siteNet2, n)
	}
	var entries []ctl.FIBEntry
	if err := p.ask(ctx, &entries, "router1", "show", "fib", siteNet2); err != nil {
		return err
	}
	if _, err := fibAgrees(rows, entries); err != nil {
		return err
	}
	var r pingReport
	if err := p.ask(ctx, &r, "server1", "ping", siteServer2, "-c", "3", "-i", "100ms", "-W", "1s"); err != nil {
		return err
	}
	if r.Summary.Received != r.Summary.Sent {
		return fmt.Errorf("%d of %d pings answered", r.Summary.Received, r.Summary.Sent)
	}
	return nil
}
