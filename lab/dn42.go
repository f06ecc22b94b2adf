package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// dn42 is five networks of DN42. Network 5 is hostile: it announces what is not its own, what nobody may announce, and lies about
// the quality of its routes; it filters nothing. The others have the built-in policy and ACL dn42, and ROAs from a file.
//
//	         ┌─ router2 ─┐
//	router5 ─ router1     router4
//	hostile  └─ router3 ─┘
func dn42Scenario() scenario {
	return scenario{
		name:    "dn42",
		summary: "Five networks of DN42, one of them hostile: filters, ROAs, communities, no transit for the Internet",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"sessions", "all sessions are Established, from fe80::1 on every tunnel of router1", "router3 has a neighbor that does not exist"},
			{"imports", "of all that router5 announces, router1 takes router5's own networks and nothing else", "router1 takes what has no ROA, too"},
			{"exports", "router1 announces registered networks to router5, and no route of the Internet", "router1 announces everything to router5"},
			{"routes", "the honest routers have the networks of each other, and no others but router5's", "router4 announces a network that is not its own, without a ROA"},
			{"communities", "latency, bandwidth and encryption are those of the worst link of each way, region and country the origin's; router5's lies are gone", "routers 2 and 4 take the link between them for a faster one"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router3's dataplane drop what is for 172.20.14.0/24"},
			{"pings", "the loopbacks reach each other by IPv4 and IPv6 over up to three tunnels", "router4 drops what is for router5"},
			{"transit", "packets from or to outside of DN42 do not cross router5's tunnel, and the counter says how many", "router1 has no ACL on that tunnel"},
			{"roa", "a ROA that changes takes a route away within 5 s, and back; no session ends for it", "the routers read other ROAs, which do not change"},
		},
		network: dn42Network,
		story:   dn42Story,
	}
}

// dn42Link is a tunnel between two networks: numbers of DN42's communities.
type dn42Link struct {
	a, b                       int
	latency, bandwidth, crypto int
}

var dn42Links = []dn42Link{
	{1, 2, 2, 24, 34},
	{1, 3, 4, 25, 35},
	{2, 4, 3, 23, 33},
	{3, 4, 1, 24, 36},
	{1, 5, 5, 22, 31},
}

func (l dn42Link) tunnel() string { return fmt.Sprintf("tun%d%d", l.a, l.b) }

// text is the link in the configuration of its ends.
func (l dn42Link) text(sabotage string) string {
	if sabotage == "communities" && l.a == 2 {
		l.latency = 1
	}
	return fmt.Sprintf("{latency: %d, bandwidth: %d, crypto: %d}", l.latency, l.bandwidth, l.crypto)
}

const (
	dn42Spare    = "172.20.14.0/24" // a second network of router4's, whose ROA changes
	dn42ROAs     = "roa.json"
	dn42Inet4    = "198.51.100.1" // of the Internet, on router1
	dn42Inet6    = "2001:db8:1::1"
	dn42InetNet  = "198.51.100.0/24"
	dn42Hostile4 = "203.0.113.1" // of the Internet, on router5
	dn42Flip     = 5 * time.Second
)

// Of router n.
func dn42Region(n int) int  { return 40 + n }
func dn42Country(n int) int { return 1000 + 100*n }

// dn42LinkLocal is the address of router n on all its tunnels.
func dn42LinkLocal(n int) string {
	if n == 1 {
		return "fe80::1"
	}
	return fmt.Sprintf("fe80::%d:1", n)
}

// dn42Communities are DN42's with these numbers.
func dn42Communities(numbers ...int) (out []string) {
	for _, n := range numbers {
		out = append(out, fmt.Sprintf("64511:%d", n))
	}
	return out
}

// dn42Evil is what router5 announces beside its own networks. Comments say why it must not pass.
var dn42Evil = []string{
	"0.0.0.0/0", "::/0", "203.0.113.0/24", "2001:db8:66::/48", // the Internet's
	"172.20.1.0/24", "172.20.1.64/26", "fd42:1::/48", // router1's own
	"172.20.2.0/24", "fd42:2::/48", // router2's, as the ROAs say
	"172.20.9.0/24",                                       // another network's, as the ROAs say
	"172.20.10.0/24",                                      // of AS 0: nobody's
	"172.20.77.0/24",                                      // without a ROA
	"172.20.5.0/25",                                       // longer than the ROA allows
	"172.20.5.128/30", "fd42:5:0:1::/65", "172.20.5.5/32", // too long for DN42
	"172.20.0.0/16", "fd00::/8", // too short
}

// dn42ROA is the file of ROAs; spare is the AS of router4's second network.
func dn42ROA(spare uint32) string {
	type roa struct {
		Prefix    string `json:"prefix"`
		MaxLength int    `json:"maxLength"`
		ASN       string `json:"asn"`
	}
	entry := func(prefix string, length int, as uint32) roa { return roa{prefix, length, fmt.Sprintf("AS%d", as)} }
	list := []roa{entry(dn42Spare, 24, spare), entry("172.20.9.0/24", 29, llAS(99)), entry("172.20.10.0/24", 29, 0)}
	for n := 1; n <= 5; n++ {
		list = append(list, entry(net4(n), 24, llAS(n)), entry(net6(n), 48, llAS(n)))
	}
	b, err := json.MarshalIndent(map[string][]roa{"roas": list}, "", "  ")
	if err != nil {
		panic(err) // it is strings and numbers
	}
	return string(b)
}

func dn42Network(sabotage string) network {
	net := network{files: map[string]string{dn42ROAs: dn42ROA(llAS(4)), "old-" + dn42ROAs: dn42ROA(llAS(4))}}
	for n := 1; n <= 5; n++ {
		node := linkLocalNode(n)
		node.roa = fmt.Sprintf("{files: [%s], policy: drop-invalid}", dn42ROAs)
		node.dn42 = fmt.Sprintf("{region: %d, country: %d}", dn42Region(n), dn42Country(n))
		net.nodes = append(net.nodes, node)
	}
	for _, l := range dn42Links {
		for _, side := range [][2]int{{l.a, l.b}, {l.b, l.a}} {
			n := net.node(siteNode("router", side[0]))
			joinLinkLocal(n, l.tunnel(), dn42LinkLocal(side[0]), dn42LinkLocal(side[1]), side[1])
			tunnel, peer := n.iface(l.tunnel()), n.neighbor(siteNode("router", side[1]))
			tunnel.aclIn, tunnel.aclOut = []string{builtinACL}, []string{builtinACL}
			peer.in, peer.out, peer.dn42 = "dn42", "dn42", l.text(sabotage)
		}
	}
	router1, router3, router4, router5 := net.node("router1"), net.node("router3"), net.node("router4"), net.node("router5")
	router1.roa = strings.Replace(router1.roa, "drop-invalid", "strict", 1)
	// router1 announces a network of the Internet and two addresses, to whomever. DN42 must not see them.
	router1.interfaces = append(router1.interfaces, iface{name: "inet0", loopback: true, addresses: []string{dn42Inet4 + "/32", dn42Inet6 + "/128"}})
	router1.announce = append(router1.announce, "inet0")
	router1.anchor(dn42InetNet)
	router4.anchor(dn42Spare)
	hostileNode(router5)
	switch sabotage {
	case "processes-unprivileged":
		router3.direct = true
	case "sessions":
		router3.neighbors = append(router3.neighbors, neighbor{name: "nobody", address: "fe80::99", iface: "tun13", as: 65099, hold: siteHold.String()})
	case "imports":
		router1.roa = strings.Replace(router1.roa, "strict", "drop-invalid", 1)
	case "exports":
		router1.neighbor("router5").out = "all"
	case "routes":
		router4.anchor("fd42:44::/48")
	case "pings":
		router4.static = append(router4.static, static{prefix: loop4(5) + "/32", blackhole: true})
	case "transit":
		router1.iface("tun15").aclIn, router1.iface("tun15").aclOut = nil, nil
	case "roa":
		for i := range net.nodes {
			net.nodes[i].roa = strings.Replace(net.nodes[i].roa, dn42ROAs, "old-"+dn42ROAs, 1)
		}
	}
	return net
}

// hostileNode makes a router announce all evil, praise its routes, filter nothing, and send the Internet's packets to router1.
func hostileNode(n *node) {
	n.roa, n.dn42 = "", ""
	n.anchor(dn42Evil...)
	n.policies = []ruleList{{"praise", []string{`{set: {communities: {replace: ["64511:1", "64511:25", "64511:36"]}}, action: accept}`}}}
	peer := n.neighbor("router1")
	peer.in, peer.out, peer.dn42 = "all", "praise", ""
	n.iface("tun15").aclIn, n.iface("tun15").aclOut = nil, nil
	n.interfaces = append(n.interfaces, iface{name: "inet0", loopback: true, addresses: []string{dn42Hostile4 + "/32"}})
	n.static = append(n.static,
		static{prefix: dn42Inet4 + "/32", via: "fe80::1", iface: "tun15"}, static{prefix: dn42Inet6 + "/128", via: "fe80::1", iface: "tun15"},
		// These two are more specific than what is announced and dropped.
		static{prefix: loop4(1) + "/32", via: "fe80::1", iface: "tun15"}, static{prefix: loop6(1) + "/128", via: "fe80::1", iface: "tun15"})
}

// dn42Registered are the networks of routers 1 to 5, but not those of one.
func dn42Registered(without int) []string {
	list := []string{dn42Spare}
	if without == 4 {
		list = nil
	}
	for n := 1; n <= 5; n++ {
		if n != without {
			list = append(list, net4(n), net6(n))
		}
	}
	return list
}

func dn42Story(ctx context.Context, p *play) error {
	p.check(ctx, "processes-unprivileged", p.checkProcesses)
	p.converge(ctx, p.checkRegistered)
	p.check(ctx, "imports", p.checkImports)
	p.check(ctx, "exports", p.checkExports)
	p.check(ctx, "communities", p.checkCommunities)
	if p.opt.Sabotage == "fib-agrees" {
		if err := p.meddle(ctx, "router3", dn42Spare); err != nil {
			return err
		}
	}
	together(
		func() { p.check(ctx, "fib-agrees", p.checkFIB) },
		func() { p.check(ctx, "pings", p.checkDN42Pings) },
	)
	p.check(ctx, "transit", p.checkNoTransit)
	p.check(ctx, "roa", p.checkROAFlip)
	return nil
}

// learned returns the prefixes that a router has from a neighbour, of all neighbours for "", and their paths.
func (p *play) learned(ctx context.Context, router, neighbor string) (map[string][]ctl.Path, error) {
	var rows []ctl.Route
	if err := p.ask(ctx, &rows, router, "show", "route", "protocol", "bgp"); err != nil {
		return nil, err
	}
	got := make(map[string][]ctl.Path)
	for _, r := range rows {
		for _, path := range r.Paths {
			if path.Protocol == "bgp" && (neighbor == "" || path.Neighbor == neighbor) {
				got[r.Prefix] = append(got[r.Prefix], path)
			}
		}
	}
	return got, nil
}

// samePrefixes compares prefixes with what they should be.
func samePrefixes(got map[string][]ctl.Path, want []string) error {
	var more, less []string
	for prefix := range got {
		if !slices.Contains(want, prefix) {
			more = append(more, prefix)
		}
	}
	for _, prefix := range want {
		if got[prefix] == nil {
			less = append(less, prefix)
		}
	}
	slices.Sort(more)
	if len(more)+len(less) > 0 {
		return fmt.Errorf("too many: %s; missing: %s", cmp.Or(strings.Join(more, ", "), "none"), cmp.Or(strings.Join(less, ", "), "none"))
	}
	return nil
}

// checkRegistered compares the routes of the honest routers with the registry. What router5 has originated is for other checks.
func (p *play) checkRegistered(ctx context.Context) (string, error) {
	var told []string
	hostile := fmt.Sprint(llAS(5))
	for n := 1; n <= 4; n++ {
		router := siteNode("router", n)
		want := slices.DeleteFunc(dn42Registered(n), func(s string) bool { return s == net4(5) || s == net6(5) })
		if err := until(ctx, convergeLimit, func() error {
			got, err := p.learned(ctx, router, "")
			if err != nil {
				return err
			}
			for prefix, paths := range got {
				if slices.ContainsFunc(paths, func(q ctl.Path) bool { return strings.HasSuffix(q.ASPath, hostile) }) {
					delete(got, prefix)
				}
			}
			return samePrefixes(got, want)
		}); err != nil {
			return "", fmt.Errorf("%s: %w", router, err)
		}
		told = append(told, fmt.Sprintf("%s %d", router, len(want)))
	}
	return "networks learned: " + strings.Join(told, ", "), nil
}

// checkImports compares what router1 has from router5, which must have announced all its evil.
func (p *play) checkImports(ctx context.Context) (string, error) {
	own := []string{net4(5), net6(5)}
	announced := uint64(len(dn42Evil) + len(own))
	err := until(ctx, convergeLimit, func() error {
		sessions, err := p.sessionRows(ctx)
		if err != nil {
			return err
		}
		if n := sessions["router5"].Received; n < announced {
			return fmt.Errorf("router5 has announced %d of its %d prefixes", n, announced)
		}
		got, err := p.learned(ctx, "router1", "router5")
		if err != nil {
			return err
		}
		return samePrefixes(got, own)
	})
	return fmt.Sprintf("router5 announces %d prefixes; router1 has taken %s", announced, strings.Join(own, " and ")), err
}

// checkExports compares what router5 gets, and takes without a filter. What it announces itself, it does not show from others.
func (p *play) checkExports(ctx context.Context) (string, error) {
	want := slices.DeleteFunc(dn42Registered(5), func(s string) bool { return slices.Contains(dn42Evil, s) })
	err := until(ctx, convergeLimit, func() error {
		got, err := p.learned(ctx, "router5", "router1")
		if err != nil {
			return err
		}
		return samePrefixes(got, want)
	})
	return fmt.Sprintf("router1 announces %d networks to router5; three routes of the Internet stay", len(want)), err
}

// worst returns the communities that a route has after these links, of which the worst count.
func worst(links ...dn42Link) []string {
	w := links[0]
	for _, l := range links[1:] {
		w.latency, w.bandwidth, w.crypto = max(w.latency, l.latency), min(w.bandwidth, l.bandwidth), min(w.crypto, l.crypto)
	}
	return dn42Communities(w.latency, w.bandwidth, w.crypto)
}

func (p *play) checkCommunities(ctx context.Context) (string, error) {
	link := make(map[string]dn42Link)
	for _, l := range dn42Links {
		link[l.tunnel()] = l
	}
	checked := 0
	for _, w := range []struct {
		at, from int // a router, and the neighbour by whom the route comes
		prefix   string
		origin   int // who has set region and country
		links    []string
	}{
		{1, 2, net4(2), 2, []string{"tun12"}},
		{1, 2, net4(4), 4, []string{"tun24", "tun12"}},
		{1, 3, net6(4), 4, []string{"tun34", "tun13"}},
		{2, 4, net6(3), 3, []string{"tun34", "tun24"}},
		{3, 1, net4(2), 2, []string{"tun12", "tun13"}},
		{1, 5, net4(5), 0, []string{"tun15"}},
		{2, 1, net6(5), 0, []string{"tun15", "tun12"}},
		{4, 2, net4(5), 0, []string{"tun15", "tun12", "tun24"}},
		{4, 3, net6(5), 0, []string{"tun15", "tun13", "tun34"}},
	} {
		var links []dn42Link
		for _, name := range w.links {
			links = append(links, link[name])
		}
		want := worst(links...)
		if w.origin != 0 {
			want = append(want, dn42Communities(dn42Region(w.origin), dn42Country(w.origin))...)
		}
		slices.Sort(want)
		at, from := siteNode("router", w.at), siteNode("router", w.from)
		if err := until(ctx, convergeLimit, func() error {
			got, err := p.learned(ctx, at, from)
			if err != nil {
				return err
			}
			if len(got[w.prefix]) != 1 {
				return fmt.Errorf("%s has %d paths to %s by %s", at, len(got[w.prefix]), w.prefix, from)
			}
			have := slices.Sorted(slices.Values(got[w.prefix][0].Communities))
			if !slices.Equal(have, want) {
				return fmt.Errorf("%s has %s by %s with the communities %v instead of %v", at, w.prefix, from, have, want)
			}
			return nil
		}); err != nil {
			return "", err
		}
		checked++
	}
	return fmt.Sprintf("right on %d routes, of one, two and three links", checked), nil
}

func (p *play) checkDN42Pings(ctx context.Context) (string, error) {
	var done []string
	for _, w := range []struct{ from, to, ttl int }{{1, 5, 64}, {5, 4, 62}, {4, 1, 63}, {2, 3, 63}} {
		from := siteNode("router", w.from)
		for _, addr := range []func(int) string{loop4, loop6} {
			if _, err := p.pingUntil(ctx, from, addr(w.to), w.ttl, "-S", addr(w.from)); err != nil {
				return "", err
			}
		}
		done = append(done, fmt.Sprintf("%s → router%d", from, w.to))
	}
	return strings.Join(done, ", "), nil
}

// checkNoTransit sends from router5 what is to or from the Internet, and counts what router1's ACL dropped.
func (p *play) checkNoTransit(ctx context.Context) (string, error) {
	before, _, err := p.counter(ctx, "router1", builtinACL, lastRule)
	if err != nil {
		return "", err
	}
	sent := uint64(0)
	for _, w := range []struct{ to, from string }{{dn42Inet4, loop4(5)}, {dn42Inet6, loop6(5)}, {loop4(1), dn42Hostile4}} {
		r, err := p.ping(ctx, "router5", w.to, "-S", w.from)
		if err != nil {
			return "", err
		}
		if r.Summary.Received > 0 || r.Summary.Sent != 3 {
			return "", fmt.Errorf("%d of %d pings from %s were answered by %s", r.Summary.Received, r.Summary.Sent, w.from, w.to)
		}
		sent += uint64(r.Summary.Sent)
	}
	err = until(ctx, aclArrive, func() error {
		after, _, err := p.counter(ctx, "router1", builtinACL, lastRule)
		if err == nil && after-before != sent {
			err = fmt.Errorf("router1's ACL %s counts %d packets, %d were sent", builtinACL, after-before, sent)
		}
		return err
	})
	return fmt.Sprintf("%d packets sent, %d dropped by router1's ACL %s", sent, sent, builtinACL), err
}

// checkROAFlip gives router4's second network to another AS, and back.
func (p *play) checkROAFlip(ctx context.Context) (string, error) {
	before, err := p.sessionRows(ctx)
	if err != nil {
		return "", err
	}
	var took []time.Duration
	for _, w := range []struct {
		as   uint32
		with bool
	}{{llAS(3), false}, {llAS(4), true}} {
		if err := writeFile(p.place.etc(dn42ROAs), []byte(dn42ROA(w.as))); err != nil {
			return "", err
		}
		changed := time.Now()
		if err := until(ctx, dn42Flip, func() error {
			got, err := p.learned(ctx, "router1", "")
			if err == nil && (len(got[dn42Spare]) > 0) != w.with {
				err = fmt.Errorf("router1 has %d paths to %s, which the ROAs now give to AS %d", len(got[dn42Spare]), dn42Spare, w.as)
			}
			return err
		}); err != nil {
			return "", err
		}
		took = append(took, time.Since(changed))
	}
	p.metric("roa_flip_ms", float64(max(took[0], took[1]).Milliseconds()))
	after, err := p.sessionRows(ctx)
	if err != nil {
		return "", err
	}
	for name, b := range before {
		if a := after[name]; a.State != established || a.Flaps != b.Flaps || a.UptimeS < b.UptimeS {
			return "", fmt.Errorf("the session with %s was up for %.1f s with %d flaps, and is %s for %.1f s with %d", name, b.UptimeS, b.Flaps, a.State, a.UptimeS, a.Flaps)
		}
	}
	return fmt.Sprintf("%s went away after %.1f s and came back after %.1f s; %d sessions untouched", dn42Spare, took[0].Seconds(), took[1].Seconds(), len(before)), nil
}
