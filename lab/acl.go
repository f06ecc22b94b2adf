package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// acl is packet filters: client and server are hosts in the lab's own process, which send packets of any kind and count what
// arrives. router1 drops tcp/8080, its tunnel carries nothing from or to outside of DN42 by an ACL that is built in, and router2 lets the server's network
// answer and nothing else.
//
//	client ─lan1─ router1 ─tun12─ router2 ─lan2─ server
func aclScenario() scenario {
	return scenario{
		name:    "acl",
		summary: "Packet filters: a port denied, a reload under traffic, answers only, no transit for the Internet",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router2 is started in the lab's session with all privileges that the lab has"},
			{"applied", "show acl has every ACL in state ok, applied where it should be", "router1 has an ACL that no interface applies"},
			{"denied", "100 packets to tcp/8080 in each family do not arrive, the rule's counter says 200 and their bytes, others arrive", "router1's rule is for tcp/8081"},
			{"reflect", "the server's answers come in, in both families, and nothing else does", "router2 lets in what comes from udp/9999"},
			{"transit", "nothing from or to outside of DN42 crosses the tunnel, and the counter says how much was dropped", "both ends of the tunnel let 198.51.100.0/24 through"},
			{"reload", "the denied port changes under traffic: no packet of other flows is lost, and the new rule holds", "the new rules deny UDP, too"},
		},
		network: aclNetwork,
		story:   aclStory,
	}
}

const (
	aclClient4, aclClient6 = "172.20.1.2", "fd42:1::2"
	aclServer4, aclServer6 = "172.20.2.2", "fd42:2::2"
	aclOutside             = "198.51.100.1"
	aclOutsideNet          = "198.51.100.0/24"
	builtinACL             = "dn42"
	lastRule               = 0
	aclEach                = 100 // packets of a kind
	aclWindow              = 20  // packets that are under way together
	aclRounds              = 100 // of the reload
	aclArrive              = 5 * time.Second
)

func no8080(port int, more ...string) ruleList {
	rules := append([]string{fmt.Sprintf("{action: deny, protocol: tcp, destination-port: %d}", port)}, more...)
	return ruleList{"no8080", append(rules, "{action: permit}")}
}

func aclNetwork(sabotage string) network {
	denied, transit, leak := no8080(8080), []string{builtinACL}, []ruleList(nil)
	closed := []string{"{action: permit, protocol: icmp6, icmp-type: 135-136}"}
	switch sabotage {
	case "denied":
		denied = no8080(8081)
	case "reflect":
		closed = append(closed, "{action: permit, protocol: udp, source-port: 9999}")
	case "transit":
		leak = []ruleList{{"leak", []string{"{action: permit, source: 198.51.100.0/24}", "{action: permit, destination: 198.51.100.0/24}"}}}
		transit = []string{"leak", builtinACL}
	}
	tun := func(address4, address6 string) iface {
		return iface{name: "tun12", tunnel: "tun12", addresses: []string{address4 + "/30", address6 + "/64"}, aclIn: transit, aclOut: transit}
	}
	lan := func(n int) iface {
		return iface{name: fmt.Sprintf("lan%d", n), cable: fmt.Sprintf("lan%d", n), role: "master", addresses: []string{loop4(n) + "/24", loop6(n) + "/64"}}
	}
	router1 := node{
		name: "router1", interfaces: []iface{lan(1), tun("172.20.12.1", "fd42:12::1")}, acls: append([]ruleList{denied}, leak...),
		static: []static{{prefix: net4(2), via: "172.20.12.2"}, {prefix: net6(2), via: "fd42:12::2"}, {prefix: aclOutsideNet, via: "172.20.12.2"}},
	}
	router1.iface("lan1").aclIn = []string{"no8080"}
	router2 := node{
		name: "router2", interfaces: []iface{lan(2), tun("172.20.12.2", "fd42:12::2")},
		acls:   append([]ruleList{{"asked", []string{"{action: reflect}"}}, {"closed", closed}}, leak...),
		static: []static{{prefix: net4(1), via: "172.20.12.1"}, {prefix: net6(1), via: "fd42:12::1"}, {prefix: aclOutsideNet, via: aclServer4}},
		direct: sabotage == "processes-unprivileged",
	}
	router2.iface("lan2").aclIn, router2.iface("lan2").aclOut = []string{"closed"}, []string{"asked"}
	if sabotage == "applied" {
		router1.acls = append(router1.acls, ruleList{"idle", []string{"{action: deny}"}})
	}
	return network{nodes: []node{router1, router2}}
}

// aclHosts are the two ends, and the number of the latest packet.
type aclHosts struct {
	*play
	client, server *host
	number         uint32
}

func aclStory(ctx context.Context, p *play) error {
	p.check(ctx, "processes-unprivileged", p.checkProcesses)
	p.check(ctx, "applied", p.checkApplied)
	h := &aclHosts{play: p}
	var err error
	if h.client, err = p.newHost(ctx, "lan1", 1, aclClient4, loop4(1), aclClient6); err != nil {
		return err
	}
	if h.server, err = p.newHost(ctx, "lan2", 2, aclServer4, loop4(2), aclServer6); err != nil {
		return err
	}
	if err := h.ready(ctx); err != nil {
		return err
	}
	p.check(ctx, "denied", h.checkDenied)
	p.check(ctx, "reflect", h.checkReflect)
	p.check(ctx, "transit", h.checkTransit)
	p.check(ctx, "reload", h.checkReload)
	return nil
}

// checkApplied compares show acl with the topology.
func (p *play) checkApplied(ctx context.Context) (string, error) {
	var told []string
	for _, n := range p.net.nodes {
		err := until(ctx, convergeLimit, func() error {
			rows, err := p.acls(ctx, n.name)
			if err != nil {
				return err
			}
			return judgeApplied(n, rows)
		})
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.name, err)
		}
		var names []string
		for _, a := range n.acls {
			names = append(names, a.name)
		}
		names = append(names, builtinACL)
		told = append(told, n.name+": "+strings.Join(names, ", "))
	}
	return strings.Join(told, "; "), nil
}

func (p *play) acls(ctx context.Context, router string) (rows []ctl.ACL, err error) {
	err = p.ask(ctx, &rows, router, "show", "acl")
	return rows, err
}

func judgeApplied(n node, rows []ctl.ACL) error {
	wanted := append(slices.Clone(n.acls), ruleList{name: builtinACL})
	if len(rows) != len(wanted) {
		return fmt.Errorf("%d ACLs instead of %d", len(rows), len(wanted))
	}
	for i, a := range wanted {
		row := rows[i]
		if a.name == builtinACL {
			a.rules = make([]string, len(row.Rules)) // they are the program's
		}
		var in, out []string
		for _, f := range n.interfaces {
			if slices.Contains(f.aclIn, a.name) {
				in = append(in, f.name)
			}
			if slices.Contains(f.aclOut, a.name) {
				out = append(out, f.name)
			}
		}
		slices.Sort(row.In)
		slices.Sort(row.Out)
		switch {
		case row.Name != a.name || row.State != "ok" || len(row.Rules) != len(a.rules):
			return fmt.Errorf("ACL %s is %s with %d rules: %s", row.Name, row.State, len(row.Rules), row.Error)
		case len(in)+len(out) == 0:
			return fmt.Errorf("ACL %s is applied nowhere", a.name)
		case !slices.Equal(in, row.In) || !slices.Equal(out, row.Out):
			return fmt.Errorf("ACL %s is applied in %v, out %v, instead of in %v, out %v", a.name, row.In, row.Out, in, out)
		}
	}
	return nil
}

// counter reads what a rule has decided, rules from 1, or the last with lastRule.
func (p *play) counter(ctx context.Context, router, name string, rule int) (packets, bytes uint64, err error) {
	rows, err := p.acls(ctx, router)
	if err != nil {
		return 0, 0, err
	}
	i := slices.IndexFunc(rows, func(a ctl.ACL) bool { return a.Name == name })
	if i >= 0 && rule == lastRule {
		rule = len(rows[i].Rules)
	}
	if i < 0 || rule == 0 || len(rows[i].Rules) < rule || rows[i].Rules[rule-1].Packets == nil {
		return 0, 0, fmt.Errorf("%s does not count rule %d of %s", router, rule, name)
	}
	r := rows[i].Rules[rule-1]
	return *r.Packets, *r.Bytes, nil
}

// counted waits until a rule has decided about so many packets more than before, and no others. Counters may be a second old.
func (p *play) counted(ctx context.Context, router, name string, rule int, before, packets, bytes uint64) error {
	return until(ctx, aclArrive, func() error {
		n, b, err := p.counter(ctx, router, name, rule)
		switch {
		case err != nil:
			return err
		case n-before > packets:
			return final(fmt.Errorf("rule %d of %s counts %d packets, %d were sent", rule, name, n-before, packets))
		case n-before != packets || before == 0 && b != bytes:
			return fmt.Errorf("rule %d of %s counts %d packets and %d bytes, %d and %d were sent", rule, name, n-before, b, packets, bytes)
		}
		return nil
	})
}

// flowOf is a packet from the client to the server.
func (h *aclHosts) flowOf(ip6 bool, proto uint8, sport, dport uint16) probe {
	h.number++
	q := probe{proto: proto, src: netip.MustParseAddr(aclClient4), dst: netip.MustParseAddr(aclServer4), sport: sport, dport: dport, number: h.number}
	if ip6 {
		q.src, q.dst = netip.MustParseAddr(aclClient6), netip.MustParseAddr(aclServer6)
	}
	return q
}

// back turns a packet round, with a number of its own.
func (h *aclHosts) back(q probe) probe {
	h.number++
	q.src, q.dst, q.sport, q.dport, q.number = q.dst, q.src, q.dport, q.sport, h.number
	return q
}

func numbers(list []probe) (out []uint32) {
	for _, q := range list {
		out = append(out, q.number)
	}
	return out
}

// ready waits until packets pass in both families and both directions: neighbours are resolved, and the tunnel is up.
func (h *aclHosts) ready(ctx context.Context) error {
	for _, host := range []*host{h.client, h.server} {
		if err := host.ready(ctx); err != nil {
			return err
		}
	}
	for _, ip6 := range []bool{false, true} {
		err := until(ctx, convergeLimit, func() error {
			there := h.flowOf(ip6, protoUDP, 1000, 2000)
			if err := h.client.send(ctx, there); err != nil {
				return err
			}
			if err := h.server.wait(ctx, time.Second, there.number); err != nil {
				return err
			}
			back := h.back(there)
			if err := h.server.send(ctx, back); err != nil {
				return err
			}
			return h.client.wait(ctx, time.Second, back.number)
		})
		if err != nil {
			return fmt.Errorf("client and server: %w", err)
		}
	}
	return nil
}

// pass sends packets and behind them, in each family, one that passes. It returns how many of them have arrived until that has.
func (h *aclHosts) pass(ctx context.Context, from, to *host, last []probe, list ...probe) (int, error) {
	for chunk := range slices.Chunk(list, aclWindow) {
		if err := from.send(ctx, chunk...); err != nil {
			return 0, err
		}
	}
	if err := from.send(ctx, last...); err != nil {
		return 0, err
	}
	if err := to.wait(ctx, aclArrive, numbers(last)...); err != nil {
		return 0, fmt.Errorf("what is allowed: %w", err)
	}
	return to.count(numbers(list)...), nil
}

// allowed are packets that the client may send, one in each family.
func (h *aclHosts) allowed() []probe {
	return []probe{h.flowOf(false, protoUDP, 1000, 2000), h.flowOf(true, protoUDP, 1000, 2000)}
}

func (h *aclHosts) checkDenied(ctx context.Context) (string, error) {
	before, _, err := h.counter(ctx, "router1", "no8080", 1)
	if err != nil {
		return "", err
	}
	var denied, others []probe
	bytes := uint64(0)
	for i := range uint16(aclEach) {
		for _, ip6 := range []bool{false, true} {
			denied = append(denied, h.flowOf(ip6, protoTCP, 1000+i, 8080))
			bytes += uint64(len(denied[len(denied)-1].packet()))
			others = append(others, h.flowOf(ip6, []uint8{protoTCP, protoUDP}[i%2], 1000+i, 80), h.flowOf(ip6, protoUDP, 1000+i, 8080))
		}
	}
	n, err := h.pass(ctx, h.client, h.server, h.allowed(), denied...)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return "", fmt.Errorf("%d of %d packets to tcp/8080 arrived", n, len(denied))
	}
	for chunk := range slices.Chunk(others, aclWindow) {
		if err := h.client.send(ctx, chunk...); err != nil {
			return "", err
		}
		if err := h.server.wait(ctx, aclArrive, numbers(chunk)...); err != nil {
			return "", fmt.Errorf("packets to other ports: %w", err)
		}
	}
	if err := h.counted(ctx, "router1", "no8080", 1, before, uint64(len(denied)), bytes); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d packets to tcp/8080 sent, none arrived, %d counted with %d bytes; all %d to other ports arrived", len(denied), len(denied), bytes, len(others)), nil
}

func (h *aclHosts) checkReflect(ctx context.Context) (string, error) {
	asked := []probe{
		h.flowOf(false, protoUDP, 3000, 53), h.flowOf(true, protoUDP, 3000, 53), h.flowOf(false, protoTCP, 3000, 80), h.flowOf(true, protoTCP, 3000, 80),
	}
	if n, err := h.pass(ctx, h.client, h.server, h.allowed(), asked...); err != nil || n != len(asked) {
		return "", fmt.Errorf("%d of %d questions arrived: %w", n, len(asked), err)
	}
	var answers, others, ends []probe
	for _, q := range asked {
		answers = append(answers, h.back(q))
		for _, o := range []probe{{sport: 9999, dport: 3000}, {sport: q.dport, dport: 3001}, {sport: q.dport + 1, dport: 3000}, {sport: q.dport, dport: 3000, proto: protoTCP + protoUDP - q.proto}} {
			unasked := h.back(q)
			unasked.sport, unasked.dport = o.sport, o.dport
			if o.proto != 0 {
				unasked.proto = o.proto
			}
			others = append(others, unasked)
		}
	}
	for _, q := range asked[:2] {
		ends = append(ends, h.back(q))
	}
	n, err := h.pass(ctx, h.server, h.client, ends, others...)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return "", fmt.Errorf("%d of %d packets that nobody asked for came in", n, len(others))
	}
	if err := h.server.send(ctx, answers...); err != nil {
		return "", err
	}
	if err := h.client.wait(ctx, aclArrive, numbers(answers)...); err != nil {
		return "", fmt.Errorf("answers: %w", err)
	}
	return fmt.Sprintf("%d answers came in, none of %d other packets", len(answers)+len(ends), len(others)), nil
}

func (h *aclHosts) checkTransit(ctx context.Context) (string, error) {
	before, _, err := h.counter(ctx, "router1", builtinACL, lastRule)
	if err != nil {
		return "", err
	}
	var outside []probe
	for i := range uint16(aclEach) {
		to, from := h.flowOf(false, protoUDP, 4000+i, 53), h.flowOf(false, protoUDP, 4000+i, 53)
		to.dst, from.src = netip.MustParseAddr(aclOutside), netip.MustParseAddr(aclOutside)
		outside = append(outside, to, from)
	}
	n, err := h.pass(ctx, h.client, h.server, h.allowed(), outside...)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return "", fmt.Errorf("%d of %d packets from or to %s crossed the tunnel", n, len(outside), aclOutsideNet)
	}
	// The bytes are those of frames here, and nothing else was dropped before.
	if err := h.counted(ctx, "router1", builtinACL, lastRule, before, uint64(len(outside)), uint64(len(outside)*(14+len(outside[0].packet())))); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d packets from or to %s: none crossed, %d counted", len(outside), aclOutsideNet, len(outside)), nil
}

// checkReload changes the denied port while packets of other flows are on their way, a few at a time so that no queue is ever
// full: what does not arrive was dropped.
func (h *aclHosts) checkReload(ctx context.Context) (string, error) {
	n := h.net.node("router1")
	reloaded := make(chan error, 1)
	sent := 0
	for round := range aclRounds {
		if round == aclRounds/4 {
			n.acls[0] = no8080(8082)
			if h.opt.Sabotage == "reload" {
				n.acls[0] = no8080(8082, "{action: deny, protocol: udp}")
			}
			if err := h.writeConfig(*n); err != nil {
				return "", err
			}
			h.owned.Go(func() { reloaded <- h.rlrWithin(ctx, convergeLimit, "router1", "reload") })
		}
		var list []probe
		for i := range uint16(aclWindow) {
			list = append(list, h.flowOf(i%2 == 1, []uint8{protoUDP, protoTCP}[i/2%2], 5000+uint16(round), 80+i/2))
		}
		if err := h.client.send(ctx, list...); err != nil {
			return "", err
		}
		if err := h.server.wait(ctx, aclArrive, numbers(list)...); err != nil {
			return "", fmt.Errorf("after %d packets: %w", sent, err)
		}
		sent += len(list)
		if round == aclRounds*3/4 { // from here on the change has happened
			if err := <-reloaded; err != nil {
				return "", err
			}
		}
	}
	now, was := h.flowOf(false, protoTCP, 6000, 8082), h.flowOf(false, protoTCP, 6000, 8080)
	if err := until(ctx, aclArrive, func() error {
		rows, err := h.acls(ctx, "router1")
		if err == nil && (len(rows) == 0 || rows[0].State != "ok" || rows[0].Rules[0].DestinationPort != "8082") {
			err = fmt.Errorf("the new rules are not there: %+v", rows)
		}
		return err
	}); err != nil {
		return "", err
	}
	if k, err := h.pass(ctx, h.client, h.server, append(h.allowed(), was), now); err != nil || k != 0 {
		return "", fmt.Errorf("after the reload %d packets to tcp/8082 arrived: %w", k, err)
	}
	return fmt.Sprintf("%d packets of other flows arrived during the reload, none was lost; then tcp/8082 was denied and tcp/8080 passed", sent), nil
}
