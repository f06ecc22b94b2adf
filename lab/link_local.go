package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// linkLocal is how dn42 peers: router1 has the same fe80::1 on both tunnels, both its neighbours are fe80::2, and each session is
// bound to its interface. IPv4 routes have IPv6 next hops (RFC 8950), and the tunnels borrow dum0's addresses.
//
//	router2 fe80::2 ─tun12─ fe80::1 router1 fe80::1 ─tun13─ fe80::2 router3
func linkLocal() scenario {
	return scenario{
		name:    "link-local",
		summary: "Two tunnels with the same fe80::1, a BGP session over each, IPv4 routes over IPv6 next hops",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"same-address", "router1 has fe80::1 on both tunnels and fe80::2 as neighbour on both", "router1 and router3 use other addresses on tun13"},
			{"sessions", "all sessions are Established", "router3 has a neighbour that does not exist"},
			{"routes", "router1 has the IPv4 and IPv6 routes of each neighbour through its tunnel", "router3 is configured with another AS number"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router3's dataplane drop what is for 172.20.2.0/24"},
			{"ping-ipv4", "the loopbacks reach each other by IPv4, through router1 too", "router3 drops what is for router2's IPv4 loopback"},
			{"ping-ipv6", "the loopbacks reach each other by IPv6, through router1 too", "router3 drops what is for router2's IPv6 loopback"},
		},
		network: linkLocalNetwork,
		story:   linkLocalStory,
	}
}

func loop4(n int) string { return fmt.Sprintf("172.20.%d.1", n) }
func loop6(n int) string { return fmt.Sprintf("fd42:%d::1", n) }
func net4(n int) string  { return fmt.Sprintf("172.20.%d.0/24", n) }
func net6(n int) string  { return fmt.Sprintf("fd42:%d::/48", n) }
func llAS(n int) uint32  { return uint32(4242420000 + n) }

// linkLocalPeer names the tunnel and the addresses of router N (2 and up) and router1.
func linkLocalPeer(n int) (tunnel, hub, spoke string) {
	return fmt.Sprintf("tun1%d", n), "fe80::1", "fe80::2"
}

func linkLocalNetwork(sabotage string) network {
	var net network
	for n := 1; n <= 3; n++ {
		net.nodes = append(net.nodes, linkLocalNode(n))
	}
	for n := 2; n <= 3; n++ {
		tunnel, hub, spoke := linkLocalPeer(n)
		if sabotage == "same-address" && n == 3 {
			hub, spoke = "fe80::31", "fe80::32"
		}
		joinLinkLocal(net.node("router1"), tunnel, hub, spoke, n)
		joinLinkLocal(net.node(siteNode("router", n)), tunnel, spoke, hub, 1)
	}
	router1, router3 := net.node("router1"), net.node("router3")
	switch sabotage {
	case "processes-unprivileged":
		router3.direct = true
	case "sessions":
		router3.neighbors = append(router3.neighbors, neighbor{
			name: "nobody", address: "fe80::99", iface: "tun13", as: 65099, hold: siteHold.String(),
		})
	case "routes":
		router3.as = llAS(33)
		router1.neighbor("router3").as = llAS(33)
	case "ping-ipv4":
		router3.static = append(router3.static, static{prefix: loop4(2) + "/32", blackhole: true})
	case "ping-ipv6":
		router3.static = append(router3.static, static{prefix: loop6(2) + "/128", blackhole: true})
	}
	return net
}

// linkLocalNode is router N with its nets and its loopback, and no link yet.
func linkLocalNode(n int) node {
	router := node{
		name: siteNode("router", n), id: loop4(n), as: llAS(n), announce: []string{"dum0"},
		interfaces: []iface{{name: "dum0", loopback: true, addresses: []string{loop4(n) + "/32", loop6(n) + "/128"}}},
	}
	router.anchor(net4(n), net6(n))
	return router
}

func joinLinkLocal(n *node, tunnel, mine, theirs string, peer int) {
	n.interfaces = append(n.interfaces, iface{
		name: tunnel, tunnel: tunnel, addresses: []string{mine + "/64"}, unnumbered: "dum0",
	})
	n.neighbors = append(n.neighbors, neighbor{
		name: siteNode("router", peer), address: theirs, iface: tunnel, as: llAS(peer), hold: siteHold.String(),
		families: "[ipv4, ipv6]",
	})
}

func linkLocalStory(ctx context.Context, p *play) error {
	together(
		func() { p.check(ctx, "processes-unprivileged", p.checkProcesses) },
		func() {
			p.check(ctx, "same-address", func(ctx context.Context) (string, error) { return p.checkSameAddress(ctx, 3) })
		},
		func() {
			p.converge(ctx, func(ctx context.Context) (string, error) { return p.checkLinkLocalRoutes(ctx, 3) })
		},
	)
	if p.opt.Sabotage == "fib-agrees" {
		if err := p.meddle(ctx, "router3", net4(2)); err != nil {
			return err
		}
	}
	together(
		func() { p.check(ctx, "fib-agrees", p.checkFIB) },
		func() {
			p.check(ctx, "ping-ipv4", func(ctx context.Context) (string, error) { return p.checkLoopbacks(ctx, loop4) })
		},
		func() {
			p.check(ctx, "ping-ipv6", func(ctx context.Context) (string, error) { return p.checkLoopbacks(ctx, loop6) })
		},
	)
	return nil
}

// checkSameAddress asks router1 for its addresses and its neighbours', routers 2 to last.
func (p *play) checkSameAddress(ctx context.Context, last int) (string, error) {
	err := until(ctx, convergeLimit, func() error {
		var ifs []ctl.Interface
		if err := p.ask(ctx, &ifs, "router1", "show", "interfaces"); err != nil {
			return err
		}
		var peers []ctl.BGPSession
		if err := p.ask(ctx, &peers, "router1", "show", "bgp"); err != nil {
			return err
		}
		return judgeSameAddress(ifs, peers, last)
	})
	return "router1 has fe80::1 on " + tunnelsTo(last) + ", and its neighbour is fe80::2 on each", err
}

func tunnelsTo(last int) string {
	var names []string
	for n := 2; n <= last; n++ {
		tunnel, _, _ := linkLocalPeer(n)
		names = append(names, tunnel)
	}
	return strings.Join(names, ", ")
}

func judgeSameAddress(ifs []ctl.Interface, peers []ctl.BGPSession, last int) error {
	for n := 2; n <= last; n++ {
		tunnel, hub, spoke := linkLocalPeer(n)
		// The prefix length of a link-local address is the dataplane's own affair: VPP says 128.
		has := func(a string) bool { return strings.HasPrefix(a, hub+"/") }
		if !slices.ContainsFunc(ifs, func(i ctl.Interface) bool {
			return i.Name == tunnel && slices.ContainsFunc(i.Addresses, has)
		}) {
			return fmt.Errorf("router1 does not have %s on %s", hub, tunnel)
		}
		if !slices.ContainsFunc(peers, func(b ctl.BGPSession) bool { return b.Interface == tunnel && b.Address == spoke }) {
			return fmt.Errorf("router1 does not have %s on %s as neighbour", spoke, tunnel)
		}
	}
	return nil
}

func (p *play) checkLinkLocalRoutes(ctx context.Context, last int) (string, error) {
	err := until(ctx, convergeLimit, func() error {
		var rows []ctl.Route
		if err := p.ask(ctx, &rows, "router1", "show", "route", "protocol", "bgp"); err != nil {
			return err
		}
		for n := 2; n <= last; n++ {
			tunnel, _, _ := linkLocalPeer(n)
			for _, prefix := range []string{net4(n), net6(n), loop4(n) + "/32", loop6(n) + "/128"} {
				if err := routeHas(rows, prefix, wantPath{tunnel, fmt.Sprint(llAS(n)), true}); err != nil {
					return err
				}
				if err := nextHopIs6(rows, prefix); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return "router1: IPv4 and IPv6 of each neighbour via " + tunnelsTo(last) + ", all with fe80:: next hops", err
}

// nextHopIs6 checks that all paths of a prefix have a link-local next hop: RFC 8950 for IPv4.
func nextHopIs6(rows []ctl.Route, prefix string) error {
	for _, r := range rows {
		for _, path := range r.Paths {
			if r.Prefix == prefix && !strings.HasPrefix(path.NextHop, "fe80:") {
				return fmt.Errorf("%s has next hop %s, which is not link-local IPv6", prefix, path.NextHop)
			}
		}
	}
	return nil
}

// checkLoopbacks pings between all loopbacks; router2 and router3 are one router apart.
func (p *play) checkLoopbacks(ctx context.Context, addr func(int) string) (string, error) {
	var done []string
	var total time.Duration
	for _, w := range []struct{ from, to, ttl int }{{1, 2, 64}, {1, 3, 64}, {2, 3, 63}, {3, 2, 63}} {
		from := siteNode("router", w.from)
		r, err := p.pingUntil(ctx, from, addr(w.to), w.ttl, "-S", addr(w.from))
		if err != nil {
			return "", err
		}
		total += time.Duration(r.Summary.AvgMs * float64(time.Millisecond))
		done = append(done, fmt.Sprintf("%s → %s", from, addr(w.to)))
	}
	return fmt.Sprintf("%s (%.2f ms on average)", strings.Join(done, ", "), total.Seconds()*1000/float64(len(done))), nil
}
