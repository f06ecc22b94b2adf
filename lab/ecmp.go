package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// ecmp is a route with four paths of different weights. A host sends many flows; the hosts at the ends of the paths tell which came
// to whom, and the router's counters are held against what the hosts have sent and got, byte for byte.
//
//	          ┌─path1─ host1
//	client ─lan─ router1 ─path2─ host2
//	          ├─path3─ host3
//	          └─path4─ host4
func ecmpScenario() scenario {
	return scenario{
		name:    "ecmp",
		summary: "A route with four weighted paths: flows spread by weight and stay where they are, and counters tell every byte",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router1 is started in the lab's session with all privileges that the lab has"},
			{"shares", fmt.Sprintf("of %d flows each path gets its weight's share, within 10 %%", ecmpFlows), "the route has equal weights"},
			{"stays", "each flow takes the same path again, five times", "the weights are the other way round the last time"},
			{"counters", "interfaces count exactly the packets and bytes that the hosts have sent and got", "router1 pings a host whose answers nobody counts"},
			{"removed", "the fourth path goes under traffic: nothing is lost, and its flows are at the others", "the fourth path stays"},
			{"flow-hash", "with flow-hash: addresses all flows between two addresses take one path", "router1 is not told to"},
		},
		network: ecmpNetwork,
		story:   ecmpStory,
	}
}

const (
	ecmpFlows   = 10_000
	ecmpRounds  = 5
	ecmpBatch   = 200 // flows on their way at once: no ring is ever full
	ecmpPrefix  = "10.9.0.0/16"
	ecmpClient  = "10.1.0.2"
	ecmpArrive  = 10 * time.Second
	ecmpBetween = 200 * time.Millisecond // looks at counters
)

// ecmpWeights are the paths'.
var ecmpWeights = []int{1, 2, 3, 2}

func ecmpHost(k int) string { return fmt.Sprintf("10.2.%d.2", k+1) }

// ecmpPaths is the route's `via`; a weight of 0 leaves the path out.
func ecmpPaths(weights []int) string {
	var via []string
	for k, w := range weights {
		if w > 0 {
			via = append(via, fmt.Sprintf("{address: %s, weight: %d}", ecmpHost(k), w))
		}
	}
	return strings.Join(via, ", ")
}

func ecmpNetwork(sabotage string) network {
	weights := ecmpWeights
	if sabotage == "shares" {
		weights = []int{1, 1, 1, 1}
	}
	n := node{
		name: "router1", direct: sabotage == "processes-unprivileged",
		interfaces: []iface{{name: "lan", cable: "lan", role: "master", addresses: []string{"10.1.0.1/24"}}},
		static:     []static{{prefix: ecmpPrefix, paths: ecmpPaths(weights)}},
	}
	for k := range ecmpWeights {
		name := fmt.Sprintf("path%d", k+1)
		n.interfaces = append(n.interfaces, iface{name: name, cable: name, role: "master", addresses: []string{fmt.Sprintf("10.2.%d.1/24", k+1)}})
	}
	return network{nodes: []node{n}}
}

type ecmpPlay struct {
	*play
	client *host
	ends   []*host
	number uint32
}

func ecmpStory(ctx context.Context, p *play) error {
	p.check(ctx, "processes-unprivileged", p.checkProcesses)
	e := &ecmpPlay{play: p}
	var err error
	if e.client, err = p.newHost(ctx, "lan", 1, ecmpClient, "10.1.0.1", "fd42::2"); err != nil {
		return err
	}
	for k := range ecmpWeights {
		h, err := p.newHost(ctx, fmt.Sprintf("path%d", k+1), byte(k+2), ecmpHost(k), fmt.Sprintf("10.2.%d.1", k+1), "fd42::2")
		if err != nil {
			return err
		}
		e.ends = append(e.ends, h)
	}
	for _, h := range append([]*host{e.client}, e.ends...) {
		if err := h.ready(ctx); err != nil {
			return err
		}
	}
	if err := e.warm(ctx); err != nil {
		return err
	}
	var first []int
	p.check(ctx, "shares", func(ctx context.Context) (detail string, err error) {
		detail, first, err = e.checkShares(ctx)
		return detail, err
	})
	p.check(ctx, "stays", func(ctx context.Context) (string, error) { return e.checkStays(ctx, first) })
	p.check(ctx, "counters", e.checkCounters)
	p.check(ctx, "removed", func(ctx context.Context) (string, error) { return e.checkRemoved(ctx, first) })
	p.check(ctx, "flow-hash", e.checkFlowHash)
	return nil
}

// flow is one of many between two addresses.
func (e *ecmpPlay) flow(i int) probe {
	e.number++
	return probe{
		proto: protoUDP, src: netip.MustParseAddr(ecmpClient), dst: netip.MustParseAddr("10.9.0.1"),
		sport: uint16(10000 + i%50000), dport: 9, number: e.number,
	}
}

// warm sends until a packet comes to each path: until then the router looks for its neighbours.
func (e *ecmpPlay) warm(ctx context.Context) error {
	seen := make([]bool, len(e.ends))
	i := 0
	return until(ctx, convergeLimit, func() error {
		for range 50 {
			f := e.flow(i)
			i++
			if err := e.client.send(ctx, f); err != nil {
				return err
			}
			if k, err := e.where(ctx, time.Second, f.number); err == nil {
				seen[k] = true
			}
		}
		if n := slices.Index(seen, false); n >= 0 {
			return fmt.Errorf("nothing comes to path%d", n+1)
		}
		return nil
	})
}

// where waits for packets and tells which path each took.
func (e *ecmpPlay) where(ctx context.Context, limit time.Duration, numbers ...uint32) (path int, err error) {
	paths, err := e.paths(ctx, limit, numbers)
	if err != nil {
		return 0, err
	}
	return paths[0], nil
}

func (e *ecmpPlay) paths(ctx context.Context, limit time.Duration, numbers []uint32) ([]int, error) {
	out := make([]int, len(numbers))
	deadline := time.Now().Add(limit)
	for {
		missing := 0
		for i, n := range numbers {
			if out[i] = slices.IndexFunc(e.ends, func(h *host) bool { return h.count(n) > 0 }); out[i] < 0 {
				missing++
			}
		}
		switch {
		case missing == 0:
			return out, nil
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: %d of %d came to no path in %s", errMissing, missing, len(numbers), limit)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// sendAll sends a packet of each of n flows and tells which path each took.
func (e *ecmpPlay) sendAll(ctx context.Context, n int) (paths []int, err error) {
	for from := 0; from < n; from += ecmpBatch {
		var flows []probe
		for i := from; i < min(from+ecmpBatch, n); i++ {
			flows = append(flows, e.flow(i))
		}
		if err := e.client.send(ctx, flows...); err != nil {
			return nil, err
		}
		took, err := e.paths(ctx, ecmpArrive, numbers(flows))
		if err != nil {
			return nil, err
		}
		paths = append(paths, took...)
	}
	return paths, nil
}

func (e *ecmpPlay) share(paths []int) []int {
	n := make([]int, len(e.ends))
	for _, k := range paths {
		n[k]++
	}
	return n
}

func (e *ecmpPlay) checkShares(ctx context.Context) (string, []int, error) {
	paths, err := e.sendAll(ctx, ecmpFlows)
	if err != nil {
		return "", nil, err
	}
	total, worst := 0, 0.0
	for _, w := range ecmpWeights {
		total += w
	}
	got := e.share(paths)
	for k, w := range ecmpWeights {
		want := float64(len(paths)) * float64(w) / float64(total)
		worst = max(worst, math.Abs(float64(got[k])-want)/want)
	}
	e.metric("ecmp_worst_percent", 100*worst)
	detail := fmt.Sprintf("%d flows with weights %v: %v, at most %.1f %% off", len(paths), ecmpWeights, got, 100*worst)
	if worst > 0.1 {
		return "", paths, errors.New(detail)
	}
	return detail, paths, nil
}

func (e *ecmpPlay) checkStays(ctx context.Context, first []int) (string, error) {
	if first == nil {
		return "", errors.New("there are no flows")
	}
	for round := range ecmpRounds {
		if e.opt.Sabotage == "stays" && round == ecmpRounds-1 {
			weights := slices.Clone(ecmpWeights)
			slices.Reverse(weights)
			weights[0], weights[3] = 5, 1
			if err := e.use(ctx, weights, ""); err != nil {
				return "", err
			}
			defer e.use(ctx, ecmpWeights, "") //nolint:errcheck // the next check tells
		}
		again, err := e.sendAll(ctx, len(first))
		if err != nil {
			return "", err
		}
		if moved := different(first, again); moved > 0 {
			return "", fmt.Errorf("in round %d, %d of %d flows took another path", round+1, moved, len(first))
		}
	}
	return fmt.Sprintf("%d flows, %d packets each", len(first), 1+ecmpRounds), nil
}

func different(a, b []int) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// use gives the route other weights, or router1 another flow hash, and waits until they hold.
func (e *ecmpPlay) use(ctx context.Context, weights []int, hash string) error {
	n := e.net.node("router1")
	n.static[0].paths, n.flowHash = ecmpPaths(weights), hash
	if err := e.writeConfig(*n); err != nil {
		return err
	}
	if err := e.rlrWithin(ctx, convergeLimit, "router1", "reload"); err != nil {
		return err
	}
	paths := 0
	for _, w := range weights {
		if w > 0 {
			paths++
		}
	}
	return until(ctx, convergeLimit, func() error {
		var entries []ctl.FIBEntry
		if err := e.ask(ctx, &entries, "router1", "show", "fib", ecmpPrefix); err != nil {
			return err
		}
		if len(entries) != 1 || len(entries[0].Paths) != paths {
			return fmt.Errorf("router1's dataplane has not got the %d paths: %+v", paths, entries)
		}
		return nil
	})
}

// traffic is what went by an interface, or by a host's cable.
type traffic struct{ rxPackets, rxBytes, txPackets, txBytes uint64 }

func (t traffic) less(o traffic) traffic {
	return traffic{t.rxPackets - o.rxPackets, t.rxBytes - o.rxBytes, t.txPackets - o.txPackets, t.txBytes - o.txBytes}
}

// countersOf reads the router's counters once they stand still, and the hosts' as the router should see them.
func (e *ecmpPlay) countersOf(ctx context.Context) (told, real map[string]traffic, err error) {
	read := func() (map[string]traffic, error) {
		var rows []ctl.Interface
		if err := e.ask(ctx, &rows, "router1", "show", "interfaces"); err != nil {
			return nil, err
		}
		out := map[string]traffic{}
		for _, r := range rows {
			out[r.Name] = traffic{r.RxPackets, r.RxBytes, r.TxPackets, r.TxBytes}
		}
		return out, nil
	}
	if told, err = read(); err != nil {
		return nil, nil, err
	}
	for {
		if err := pause(ctx, ecmpBetween); err != nil {
			return nil, nil, err
		}
		now, err := read()
		if err != nil {
			return nil, nil, err
		}
		still := true
		for name, t := range now {
			still = still && told[name] == t
		}
		if told = now; still {
			break
		}
	}
	real = map[string]traffic{"lan": e.client.traffic()}
	for k, h := range e.ends {
		real[fmt.Sprintf("path%d", k+1)] = h.traffic()
	}
	return told, real, nil
}

func (e *ecmpPlay) checkCounters(ctx context.Context) (string, error) {
	toldBefore, trueBefore, err := e.countersOf(ctx)
	if err != nil {
		return "", err
	}
	if _, err := e.sendAll(ctx, ecmpFlows); err != nil {
		return "", err
	}
	if e.opt.Sabotage == "counters" {
		e.ends[0].deaf(true)
		_, _ = e.rlr(ctx, "router1", "ping", ecmpHost(0), "-c", "1", "-W", "100ms")
		e.ends[0].deaf(false)
	}
	toldAfter, trueAfter, err := e.countersOf(ctx)
	if err != nil {
		return "", err
	}
	var packets, bytes uint64
	for name, after := range trueAfter {
		want, got := after.less(trueBefore[name]), toldAfter[name].less(toldBefore[name])
		if want != got {
			return "", fmt.Errorf("%s counts %+v; it was %+v", name, got, want)
		}
		packets, bytes = packets+got.rxPackets+got.txPackets, bytes+got.rxBytes+got.txBytes
	}
	return fmt.Sprintf("%d packets with %d bytes in and out, to the byte", packets, bytes), nil
}

func (e *ecmpPlay) checkRemoved(ctx context.Context, first []int) (string, error) {
	if first == nil {
		return "", errors.New("there are no flows")
	}
	weights := slices.Clone(ecmpWeights)
	weights[3] = 0
	if e.opt.Sabotage == "removed" {
		weights[3] = 1
	}
	done := make(chan error, 1)
	e.owned.Go(func() { done <- e.use(ctx, weights, "") })
	for running := true; running; { // nothing is lost meanwhile
		select {
		case err := <-done:
			if err != nil {
				return "", err
			}
			running = false
		default:
		}
		if _, err := e.sendAll(ctx, ecmpBatch); err != nil {
			return "", err
		}
	}
	now, err := e.sendAll(ctx, len(first))
	if err != nil {
		return "", err
	}
	moved, others := 0, 0
	for i := range first {
		if first[i] == 3 {
			continue
		}
		if others++; first[i] != now[i] {
			moved++
		}
	}
	share := e.share(now)
	if share[3] > 0 {
		return "", fmt.Errorf("%d flows still take the path that is gone", share[3])
	}
	e.metric("ecmp_moved_percent", 100*float64(moved)/float64(others))
	return fmt.Sprintf("%v; of the other paths' flows %.0f %% moved, too", share, 100*float64(moved)/float64(others)), nil
}

func (e *ecmpPlay) checkFlowHash(ctx context.Context) (string, error) {
	hash := "addresses"
	if e.opt.Sabotage == "flow-hash" {
		hash = ""
	}
	if err := e.use(ctx, ecmpWeights, hash); err != nil {
		return "", err
	}
	var share []int
	err := until(ctx, convergeLimit, func() error {
		paths, err := e.sendAll(ctx, ecmpBatch)
		if err != nil {
			return err
		}
		if share = e.share(paths); slices.Max(share) != len(paths) {
			return fmt.Errorf("%d flows between two addresses take the paths %v", len(paths), share)
		}
		return nil
	})
	return fmt.Sprintf("%d flows between two addresses: %v", ecmpBatch, share), err
}
