package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rlr/internal/ctl"
)

// survival is what a router outlives: resets, the death of its helpers, the death of its VPP. A hub has fe80::1 on its three
// tunnels, and each neighbour is fe80::2. The hub makes the connection to router2, router3 makes the one to the hub, and
// whoever is first makes the one between router4 and the hub: so both directions, and collisions, are proven.
//
//	                 router1
//	fe80::1 tun12 ╱  tun13 │ fe80::1  ╲ tun14 fe80::1
//	          router2   router3    router4
//	          (passive)
func survival() scenario {
	return scenario{
		name:    "survival",
		summary: "A hub with three link-local sessions loses its sessions, its helpers and its VPP, and recovers from each",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"same-address", "router1 has fe80::1 on its three tunnels and fe80::2 as neighbour on each", "router1 and router4 use other addresses on tun14"},
			{"sessions", "all sessions are Established", "router3 has a neighbour that does not exist"},
			{"routes", "router1 has the IPv4 and IPv6 routes of each neighbour through its tunnel", "router3 is configured with another AS number"},
			{"directions", "on VPP, router1 made the connection to router2 and accepted that of router3, each on its own tunnel", "it is the other way round"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router3's dataplane drop what is for 172.20.2.0/24"},
			{"ping", "the loopbacks reach each other by IPv4 and IPv6 through router1", "router3 drops what is for router2's IPv4 loopback"},
			{"idle", "an idle router takes under 2 % of a core and 64 MB; on VPP, with VPP and helpers, under 6 % and 200 MB PSS", "a flood of pings passes router1"},
			{"reconnects", "50 resets in a row, from either side, and each session comes back", "router1 disables the session with router3"},
			{"no-leak", "after the resets there are no more sessions, descriptors, helpers and namespaces than before", "somebody leaves a ping running on router1"},
			{"helper-killed", "kill -9 of a helper ends only its sessions, and they come back", "both helpers are killed at once"},
			{"vpp-killed", "kill -9 of VPP under traffic, ten times: routes back in 3 s, sessions and pings in 10 s", "VPP takes 5 s to start"},
			{"vpp-crash-loop", "a VPP that dies at every start is retried ever more rarely and reported, and used when it works again", "it dies at its first start only"},
		},
		vppOnly: []string{"directions", "helper-killed", "vpp-killed", "vpp-crash-loop"},
		network: survivalNetwork,
		story:   survivalStory,
	}
}

const (
	hub        = "router1"
	lastSpoke  = 4
	resetTotal = 50
	killTotal  = 10
	// survivalHold makes keepalives every 5 s (RFC 4271 §10). A session that router1 accepted ends for its peer only when
	// the peer sends something to the new VPP and is answered with a reset: that is the longest part of the way back.
	survivalHold = 15 * time.Second
)

func spokeName(n int) string { return siteNode("router", n) }

func survivalNetwork(sabotage string) network {
	var net network
	for n := 1; n <= lastSpoke; n++ {
		net.nodes = append(net.nodes, linkLocalNode(n))
	}
	for n := 2; n <= lastSpoke; n++ {
		tunnel, hubAddress, spoke := linkLocalPeer(n)
		if sabotage == "same-address" && n == 4 {
			hubAddress, spoke = "fe80::41", "fe80::42"
		}
		joinLinkLocal(net.node(hub), tunnel, hubAddress, spoke, n)
		joinLinkLocal(net.node(spokeName(n)), tunnel, spoke, hubAddress, 1)
	}
	for i := range net.nodes {
		for j := range net.nodes[i].neighbors {
			net.nodes[i].neighbors[j].hold = survivalHold.String()
		}
	}
	router1, router2, router3 := net.node(hub), net.node("router2"), net.node("router3")
	router1.breakable = true
	passive := [2]*neighbor{router2.neighbor(hub), router1.neighbor("router3")}
	if sabotage == "directions" {
		passive = [2]*neighbor{router1.neighbor("router2"), router3.neighbor(hub)}
	}
	for _, n := range passive {
		n.passive = true
	}
	switch sabotage {
	case "processes-unprivileged":
		router3.direct = true
	case "sessions":
		router3.neighbors = append(router3.neighbors, neighbor{
			name: "nobody", address: "fe80::99", iface: "tun13", as: 65099, hold: survivalHold.String(), passive: true,
		})
	case "routes":
		router3.as = llAS(33)
		router1.neighbor("router3").as = llAS(33)
	case "ping":
		router3.static = append(router3.static, static{prefix: loop4(2) + "/32", blackhole: true})
	}
	return net
}

// rounds returns how often something is done: less often where a sabotage is to be seen, which every one is at once.
func (p *play) rounds(all, few int) int {
	if p.opt.Sabotage == "" {
		return all
	}
	return few
}

func survivalStory(ctx context.Context, p *play) error {
	sabotaged := func(check string) bool { return p.opt.Sabotage == check }
	together(
		func() { p.check(ctx, "processes-unprivileged", p.checkProcesses) },
		func() {
			p.check(ctx, "same-address", func(ctx context.Context) (string, error) { return p.checkSameAddress(ctx, lastSpoke) })
		},
		func() {
			p.converge(ctx, func(ctx context.Context) (string, error) { return p.checkLinkLocalRoutes(ctx, lastSpoke) })
		},
	)
	dataplane, err := p.dataplaneOf(ctx, hub)
	if err != nil {
		return err
	}
	vpp := dataplane.Kind == onVPP
	if sabotaged("fib-agrees") {
		if _, err := p.vppctl(ctx, "router3", "ip", "route", "add", net4(2), "via", "drop"); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	if vpp {
		p.check(ctx, "directions", p.checkDirections)
	}
	together(
		func() { p.check(ctx, "fib-agrees", p.checkFIB) },
		func() { p.check(ctx, "ping", p.checkSpokes) },
	)
	var load func(context.Context)
	if sabotaged("idle") {
		load = p.spokeFlood
	}
	p.check(ctx, "idle", func(ctx context.Context) (string, error) { return p.checkIdle(ctx, hub, load) })
	if err := p.resetSessions(ctx); err != nil {
		return err
	}
	if !vpp {
		for _, name := range p.scenario.vppOnly {
			p.skip(name, "the embedded dataplane is in the router's process: there is no VPP and no helper")
		}
		return nil
	}
	p.check(ctx, "helper-killed", func(ctx context.Context) (string, error) {
		return p.checkHelperKilled(ctx, sabotaged("helper-killed"))
	})
	return p.killVPPs(ctx)
}

// checkSpokes pings between all loopbacks, both families; the hub's too, so that its prober is there before it is counted
// what the hub holds.
func (p *play) checkSpokes(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var failed error
	var total float64
	pings := 0
	var all []func()
	for from := 1; from <= lastSpoke; from++ {
		all = append(all, func() {
			for to := 1; to <= lastSpoke; to++ {
				if to == from {
					continue
				}
				ttl := 63
				if from == 1 || to == 1 {
					ttl = 64
				}
				for _, addr := range []func(int) string{loop4, loop6} {
					r, err := p.pingUntil(ctx, spokeName(from), addr(to), ttl, "-S", addr(from))
					mu.Lock()
					total += r.Summary.AvgMs
					pings++
					if failed == nil {
						failed = err
					}
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}
		})
	}
	together(all...)
	if failed != nil {
		return "", failed
	}
	p.metric("ping_rtt_ms", total/float64(pings))
	return fmt.Sprintf("%d ways between %d loopbacks, IPv4 and IPv6, %.2f ms on average", pings, lastSpoke, total/float64(pings)), nil
}

// spokeFlood sends a thousand pings a second through the hub.
func (p *play) spokeFlood(ctx context.Context) {
	cmd := p.command(ctx, "router2", "ping", loop4(4), "-c", "0", "-i", "1ms", "-S", loop4(2))
	cmd.Run() //nolint:errcheck // killed by ctx
}

// hubSession is a session of the hub's as VPP has it.
type hubSession struct {
	neighbor string
	dialed   bool // by the hub
}

// hubSessions asks the hub's VPP which connection each neighbour has.
func (p *play) hubSessions(ctx context.Context) ([]hubSession, error) {
	text, err := p.vppctl(ctx, hub, "show", "session", "verbose", "2")
	if err != nil {
		return nil, err
	}
	var ifs []ctl.Interface
	if err := p.ask(ctx, &ifs, hub, "show", "interfaces"); err != nil {
		return nil, err
	}
	return matchSessions(parseSessions(text), ifs, p.net.node(hub).neighbors)
}

const bgpPort = "179"

// matchSessions tells for each neighbour the one established connection that leaves by its interface.
func matchSessions(sessions []vppSession, ifs []ctl.Interface, neighbors []neighbor) ([]hubSession, error) {
	var out []hubSession
	for _, n := range neighbors {
		i := slices.IndexFunc(ifs, func(i ctl.Interface) bool { return i.Name == n.iface })
		if i < 0 {
			return nil, fmt.Errorf("no interface %s", n.iface)
		}
		var found []hubSession
		for _, s := range sessions {
			if s.state != "ESTABLISHED" || s.swIfIndex != int(ifs[i].SwIfIndex) {
				continue
			}
			dialed := s.remote == n.address+":"+bgpPort
			if !dialed && !strings.HasSuffix(s.local, ":"+bgpPort) {
				return nil, fmt.Errorf("VPP has %s->%s on %s, which is no BGP", s.local, s.remote, n.iface)
			}
			found = append(found, hubSession{n.name, dialed})
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("VPP has %d sessions on %s", len(found), n.iface)
		}
		out = append(out, found[0])
	}
	return out, nil
}

func (p *play) checkDirections(ctx context.Context) (string, error) {
	var text []string
	err := until(ctx, convergeLimit, func() error {
		list, err := p.hubSessions(ctx)
		if err != nil {
			return err
		}
		text, err = judgeDirections(list)
		return err
	})
	return strings.Join(text, ", "), err
}

func judgeDirections(list []hubSession) ([]string, error) {
	var text []string
	for _, s := range list {
		how := "accepted from "
		if s.dialed {
			how = "made to "
		}
		text = append(text, how+s.neighbor)
		if s.neighbor == "router2" && !s.dialed || s.neighbor == "router3" && s.dialed {
			return nil, final(fmt.Errorf("%s's connection was %s%s", hub, how, s.neighbor))
		}
	}
	return text, nil
}
