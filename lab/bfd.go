package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// bfdScenario is three-sites with BFD on each session: a silent cut costs milliseconds, not a hold time.
func bfdScenario() scenario {
	return scenario{
		name:    "bfd",
		summary: "Three sites that watch their tunnels by BFD; a tunnel dies silently, again and again, and traffic moves within milliseconds",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router3 is started in the lab's session with all privileges that the lab has"},
			{"sessions", "all sessions are Established", "router3 has a neighbour that does not exist"},
			{"routes", "router1 has the direct path as best and the way around as alternative", "router3 and its neighbours are configured with another AS number"},
			{"fib-agrees", "show fib agrees with show route on every router", "somebody makes router2's dataplane drop what is for 10.3.0.0/24"},
			{"watched", "every session is watched, and every BFD session is up", "the session over tun23 has no BFD"},
			{"failover", fmt.Sprintf("%d silent cuts of tun12 under a thousand pings a second: the median outage is under 250 ms, the longest under 500 ms", bfdCuts), "the sessions over tun12 have a BFD interval of 400 ms"},
			{"failover-many", fmt.Sprintf("the same with %d prefixes behind the tunnel, and the ping to one amid them: the median is within 1.5 times of the small table's", bfdPrefixes), "somebody makes router3's dataplane drop what is for the target"},
			{"reason", "the cuts ended router1's session with router2 as Cease: BFD Down, and nothing else did", "an operator resets the session once"},
			{"healed", "the first state returns when the tunnel works again, and the way back costs under 500 ms, each time", "the tunnel stays cut after the last time"},
		},
		timed:   true,
		network: bfdNetwork,
		story:   bfdStory,
	}
}

const (
	bfdTimes      = "{interval: 50ms, multiplier: 3}"
	bfdCuts       = 20
	bfdManyCuts   = 5
	bfdManyFactor = 1.5
	bfdMedian     = 250 * time.Millisecond
	bfdLongest    = 500 * time.Millisecond
	bfdPrefixes   = 20_000
	bfdFew        = 1_000           // where a sabotage is to be seen
	bfdManyLimit  = 3 * time.Minute // for all routers to have them
	bfdDown       = "Cease: BFD Down"
	bfdRecovery   = 10 * time.Second // for packets to come back at all
	bfdPingPeriod = time.Millisecond
)

func bfdNetwork(sabotage string) network {
	net := threeSitesNetwork(sabotage) // which knows those of its own checks
	for i := range net.nodes {
		for k := range net.nodes[i].neighbors {
			net.nodes[i].neighbors[k].bfd = bfdTimes
		}
	}
	// server2 answers for one of the many prefixes, too.
	n := bfdPrefixes
	if sabotage != "" {
		n = bfdFew
	}
	server2 := net.node("server2").iface("eth0")
	server2.addresses = append(server2.addresses, hostRoutes(basePool, n)[n/2])
	net.node("router2").static = append(net.node("router2").static, static{prefix: routesPool, via: siteServer2})
	switch sabotage {
	case "watched":
		net.node("router2").neighbor("router3").bfd = "false"
		net.node("router3").neighbor("router2").bfd = "false"
	case "failover":
		net.node("router1").neighbor("router2").bfd = "{interval: 400ms, multiplier: 3}"
		net.node("router2").neighbor("router1").bfd = "{interval: 400ms, multiplier: 3}"
	}
	return net
}

func bfdStory(ctx context.Context, p *play) error {
	together(
		func() { p.check(ctx, "processes-unprivileged", p.checkProcesses) },
		func() { p.converge(ctx, checkSiteRoutes(p)) },
	)
	switch p.opt.Sabotage {
	case "fib-agrees":
		if err := p.meddle(ctx, "router2", siteNet3); err != nil {
			return err
		}
	case "reason":
		if _, err := p.rlr(ctx, "router1", "neighbor", "reset", "router2"); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	together(
		func() { p.check(ctx, "fib-agrees", p.checkFIB) },
		func() { p.check(ctx, "watched", p.checkWatched) },
	)
	ping, err := p.pingEvery(ctx, "server1", siteServer2, bfdPingPeriod, time.Second)
	if err != nil {
		return err
	}
	defer ping.stop()
	var back []time.Duration
	var small time.Duration
	var made int
	p.check(ctx, "failover", func(ctx context.Context) (detail string, err error) {
		detail, small, back, err = p.checkCuts(ctx, cuts{ping: ping, target: siteServer2, n: bfdCuts, ready: p.bfdAsAtFirst, metric: "outage", made: &made})
		return detail, err
	})
	p.check(ctx, "reason", func(ctx context.Context) (string, error) { return p.checkBFDReason(ctx, made) })
	p.check(ctx, "failover-many", func(ctx context.Context) (string, error) { return p.checkCutsMany(ctx, small, &made) })
	p.check(ctx, "healed", func(ctx context.Context) (string, error) {
		began := time.Now()
		gap, err := p.healOnce(ctx, cuts{ping: ping, ready: p.bfdAsAtFirst}, p.opt.Sabotage != "healed")
		if err != nil {
			return "", err
		}
		longest := slices.Max(append(back, gap))
		p.metric("way_back_worst_ms", ms(longest))
		detail := fmt.Sprintf("after %.1f s; the way back cost %d ms at most", time.Since(began).Seconds(), longest.Milliseconds())
		if longest >= bfdLongest {
			return "", errors.New(detail)
		}
		return detail, nil
	})
	return nil
}

// cuts are silent cuts of tun12, one after the other.
type cuts struct {
	ping   *stream // that is interrupted, to target
	target string
	n      int
	ready  func(context.Context) error // all is as before the first one
	metric string
	made   *int // counts them
}

// healOnce lets tun12 work, if it is to, and returns the longest time without an answer until all is as at first.
func (p *play) healOnce(ctx context.Context, c cuts, really bool) (time.Duration, error) {
	healed := time.Now()
	if really {
		if err := commandRelay(ctx, p.place.relaySocket(), "heal", "tun12"); err != nil {
			return 0, err
		}
	}
	if err := until(ctx, bfdManyLimit, func() error { return c.ready(ctx) }); err != nil {
		return 0, err
	}
	if c.ping == nil {
		return 0, nil
	}
	replies, _ := c.ping.since(healed)
	return longestGap(replies), nil
}

func (p *play) checkWatched(ctx context.Context) (string, error) {
	err := until(ctx, convergeLimit, func() error {
		for _, router := range p.bgpRouters() {
			if err := p.watching(ctx, router, "tun12", "tun13", "tun23"); err != nil {
				return err
			}
		}
		return nil
	})
	return "two BFD sessions up on each router, " + bfdTimes, err
}

// watching checks that a router's sessions over these tunnels, as far as it has them, are watched, and that BFD is up.
func (p *play) watching(ctx context.Context, router string, tunnels ...string) error {
	var rows []ctl.BFDSession
	if err := p.ask(ctx, &rows, router, "show", "bfd"); err != nil {
		return err
	}
	for _, t := range tunnels {
		i := slices.IndexFunc(rows, func(b ctl.BFDSession) bool { return b.Interface == t })
		switch {
		case p.net.node(router).iface(t) == nil:
		case i < 0:
			return fmt.Errorf("%s does not watch its session over %s", router, t)
		case rows[i].State != "up":
			return fmt.Errorf("%s has BFD over %s in the state %s", router, t, rows[i].State)
		}
	}
	return nil
}

// bfdAsAtFirst is asAtFirst, with BFD.
func (p *play) bfdAsAtFirst(ctx context.Context) error {
	if err := p.asAtFirst(ctx); err != nil {
		return err
	}
	return errors.Join(p.watching(ctx, "router1", "tun12"), p.watching(ctx, "router2", "tun12"))
}

// checkCuts cuts tun12 again and again, and measures how long server1 goes without an answer, then and on the way back. The last
// cut is not healed.
func (p *play) checkCuts(ctx context.Context, c cuts) (detail string, typical time.Duration, back []time.Duration, err error) {
	fail := func(err error) (string, time.Duration, []time.Duration, error) { return "", 0, nil, err }
	if err := until(ctx, bfdManyLimit, func() error { return c.ready(ctx) }); err != nil {
		return fail(err)
	}
	var outages []time.Duration
	for n := range c.n {
		if n > 0 {
			gap, err := p.healOnce(ctx, c, true)
			if err != nil {
				return fail(err)
			}
			back = append(back, gap)
		}
		*c.made++
		outage, err := p.cutOnce(ctx, c)
		if err != nil {
			return fail(fmt.Errorf("cut %d: %w", n+1, err))
		}
		p.progress.say("cut %d of %d: %d ms", n+1, c.n, outage.Milliseconds())
		outages = append(outages, outage)
	}
	typical, longest := median(outages), slices.Max(outages)
	p.metric(c.metric+"_median_ms", ms(typical))
	p.metric(c.metric+"_worst_ms", ms(longest))
	detail = fmt.Sprintf("%d cuts: outage %d ms (median), %d ms (longest)", len(outages), typical.Milliseconds(), longest.Milliseconds())
	if typical >= bfdMedian || longest >= bfdLongest {
		return fail(fmt.Errorf("%s; wanted under %d and %d ms", detail, bfdMedian.Milliseconds(), bfdLongest.Milliseconds()))
	}
	return detail, typical, back, nil
}

// bfdTarget is amid the many prefixes.
func (p *play) bfdTarget() string {
	n := p.rounds(bfdPrefixes, bfdFew)
	return strings.TrimSuffix(hostRoutes(basePool, n)[n/2], "/32")
}

// checkCutsMany has router2 announce many prefixes, and does the same with a ping to one of them.
func (p *play) checkCutsMany(ctx context.Context, small time.Duration, made *int) (string, error) {
	n, target := p.rounds(bfdPrefixes, bfdFew), p.bfdTarget()
	if _, err := p.healOnce(ctx, cuts{ready: p.bfdAsAtFirst}, true); err != nil {
		return "", err
	}
	if err := p.announce(ctx, "router2", append([]string{siteNet2}, hostRoutes(basePool, n)...)); err != nil {
		return "", err
	}
	began := time.Now()
	ready := func(ctx context.Context) error {
		for _, router := range []string{"router1", "router3"} {
			if err := p.hasMany(ctx, router, n); err != nil {
				return err
			}
		}
		return errors.Join(p.hasBackup(ctx, "router1", target+"/32"), p.bfdAsAtFirst(ctx))
	}
	if err := until(ctx, bfdManyLimit, func() error { return ready(ctx) }); err != nil {
		return "", err
	}
	p.progress.say("%d prefixes are everywhere after %.1f s", n, time.Since(began).Seconds())
	if p.opt.Sabotage == "failover-many" {
		if err := p.meddle(ctx, "router3", target+"/32"); err != nil {
			return "", err
		}
	}
	ping, err := p.pingEvery(ctx, "server1", target, bfdPingPeriod, time.Second)
	if err != nil {
		return "", err
	}
	defer ping.stop()
	detail, typical, _, err := p.checkCuts(ctx, cuts{ping: ping, target: target, n: bfdManyCuts, ready: ready, metric: "outage_many", made: made})
	if err != nil {
		return "", err
	}
	detail = fmt.Sprintf("%d prefixes: %s, %.2f times of the small table's median", n, detail, ms(typical)/ms(small))
	if float64(typical) > bfdManyFactor*float64(small) {
		return "", errors.New(detail)
	}
	return detail, nil
}

// hasMany checks that a router has all of router2's prefixes in its dataplane.
func (p *play) hasMany(ctx context.Context, router string, n int) error {
	var count ctl.RouteCount
	if err := p.ask(ctx, &count, router, "show", "route", "protocol", "router2", "count"); err != nil {
		return err
	}
	if count.Installed < n {
		return fmt.Errorf("%s has %d of router2's %d routes in its dataplane", router, count.Installed, n)
	}
	return nil
}

// hasBackup checks that a router's dataplane knows where to turn when the best path is dead.
func (p *play) hasBackup(ctx context.Context, router, prefix string) error {
	var entries []ctl.FIBEntry
	if err := p.ask(ctx, &entries, router, "show", "fib", prefix); err != nil {
		return err
	}
	if len(entries) != 1 || !slices.ContainsFunc(entries[0].Paths, func(f ctl.FIBPath) bool { return f.Backup }) {
		return fmt.Errorf("%s has no backup path for %s", router, prefix)
	}
	return nil
}

// cutOnce cuts tun12 under the ping, and returns the longest time without an answer.
func (p *play) cutOnce(ctx context.Context, c cuts) (time.Duration, error) {
	before := time.Now()
	if err := until(ctx, bfdRecovery, func() error {
		if got, _ := c.ping.since(before); len(got) < 20 {
			return fmt.Errorf("server1 gets no answer from %s", c.target)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	if err := commandRelay(ctx, p.place.relaySocket(), "cut", "tun12"); err != nil {
		return 0, err
	}
	cut := time.Now()
	const settled = 700 * time.Millisecond // longer than an outage may be: until then answers are those of before, or none
	if err := pause(ctx, settled); err != nil {
		return 0, err
	}
	err := until(ctx, bfdRecovery, func() error {
		if got, lost := c.ping.since(cut.Add(settled)); len(got) < 20 {
			return fmt.Errorf("server1 gets no answer from %s, %d pings lost", c.target, lost)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	replies, _ := c.ping.since(before)
	return longestGap(replies), nil
}

func (p *play) checkBFDReason(ctx context.Context, cuts int) (string, error) {
	sessions, err := p.sessionRows(ctx)
	if err != nil {
		return "", err
	}
	b := sessions["router2"]
	if !strings.HasPrefix(b.LastError, bfdDown) || b.Flaps < 1 || b.Flaps > uint64(cuts) {
		return "", fmt.Errorf("router1's session with router2 has %d flaps, the last one by %q", b.Flaps, b.LastError)
	}
	return fmt.Sprintf("%d flaps, the last one: %s", b.Flaps, b.LastError), nil
}
