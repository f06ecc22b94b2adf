package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// This file kills a router whose VPP lives, and proves from VPP that nothing was written. Three witnesses: VPP's trace of API
// messages has every change of a route that was asked for; a route that is deleted and added again has a new load-balance
// object, as a rule with another index and always with its packet counter at zero. So each route gets a packet first.

const (
	streamEvery = time.Millisecond // of the ping in each direction
	streamWait  = 10 * time.Second // for an answer: late is not lost
	streamMin   = 1000             // packets a second through router1's VPP, each way
	backLimit   = 60 * time.Second // for router1's sessions and routes after its start
	traceItems  = 65_536           // of API messages that VPP keeps
)

// vppRoute is a route of VPP's as `show ip fib` has it.
type vppRoute struct {
	index   int    // of its load-balance object
	packets uint64 // forwarded by it
}

var (
	fibPrefix  = regexp.MustCompile(`^(\d+\.\d+\.\d+\.\d+/\d+)\s*$`)
	fibBalance = regexp.MustCompile(`dpo-load-balance: \[proto:ip4 index:(\d+) .*? to:\[(\d+):\d+\]`)
)

// parseVPPFIB reads `show ip fib` of the default table.
func parseVPPFIB(text string) map[string]vppRoute {
	out := make(map[string]vppRoute)
	prefix, table := "", false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "ipv4-VRF:") {
			table = strings.HasPrefix(line, "ipv4-VRF:0,")
			continue
		}
		if m := fibPrefix.FindStringSubmatch(line); m != nil {
			prefix = m[1]
			continue
		}
		if m := fibBalance.FindStringSubmatch(line); m != nil && table && prefix != "" {
			index, _ := strconv.Atoi(m[1])                     //nolint:errcheck // the pattern has digits
			packets, _ := strconv.ParseUint(m[2], 10, 64)      //nolint:errcheck // as above
			out[prefix], prefix = vppRoute{index, packets}, "" // further lines are of what it stacks on
		}
	}
	return out
}

// kept compares what VPP says of routes before and after: those in both must be the same objects. It returns how many are.
func kept(before, after map[string]vppRoute, routes []string) (int, error) {
	for _, r := range routes {
		b, had := before[r]
		a, has := after[r]
		switch {
		case !had || !has:
			return 0, fmt.Errorf("%s is not in VPP: before %t, after %t", r, had, has)
		case a.index != b.index:
			return 0, fmt.Errorf("%s was deleted and added: its load-balance object was %d and is %d", r, b.index, a.index)
		case b.packets == 0:
			return 0, fmt.Errorf("%s forwarded no packet before", r)
		case a.packets < b.packets:
			return 0, fmt.Errorf("%s was deleted and added: it had forwarded %d packets, and now %d", r, b.packets, a.packets)
		}
	}
	return len(routes), nil
}

var tracedRoute = regexp.MustCompile(`\bvl_api_(ip_route_add_del(?:_v2)?|ip_mroute_add_del)_t\b`)

// tracedRoutes counts the changes of routes in VPP's trace of API messages.
func tracedRoutes(dump string) int { return len(tracedRoute.FindAllString(dump, -1)) }

// scene is router1 before it is killed.
type scene struct {
	vpp    int // pid
	fib    map[string]vppRoute
	routes []ctl.Route
}

func (p *play) vppFIB(ctx context.Context, router string) (map[string]vppRoute, error) {
	text, err := p.vppctl(ctx, router, "show", "ip", "fib")
	return parseVPPFIB(text), err
}

func (p *play) bgpRoutes(ctx context.Context) (rows []ctl.Route, err error) {
	err = p.ask(ctx, &rows, "router1", "show", "route", "protocol", "bgp")
	return rows, err
}

// told are the host routes that router2 announces, in a row from basePool on.
func (p *play) told() []string { return p.net.node("router2").originate[1:] }

// before notes what there is, after each of router2's routes has forwarded a packet, and lets VPP trace from here on.
func (p *play) before(ctx context.Context) (s scene, err error) {
	if err := p.sweepAll(ctx, basePool.String(), len(p.told())); err != nil {
		return s, err
	}
	d, err := p.dataplaneOf(ctx, "router1")
	if err != nil {
		return s, err
	}
	s.vpp = d.PID
	if s.routes, err = p.bgpRoutes(ctx); err != nil {
		return s, err
	}
	if s.fib, err = p.vppFIB(ctx, "router1"); err != nil {
		return s, err
	}
	_, err = p.vppctl(ctx, "router1", "api", "trace", "on", "nitems", strconv.Itoa(traceItems))
	return s, err
}

// traced returns how many changes of routes VPP was asked for since before, and ends the trace.
func (p *play) traced(ctx context.Context) (int, error) {
	if _, err := p.vppctl(ctx, "router1", "api", "trace", "off"); err != nil {
		return 0, err
	}
	dump, err := p.vppctl(ctx, "router1", "api", "trace", "dump")
	if err != nil {
		return 0, err
	}
	if !strings.Contains(dump, "vl_api_") {
		return 0, errors.New("VPP has traced no API message at all")
	}
	_, err = p.vppctl(ctx, "router1", "api", "trace", "free")
	return tracedRoutes(dump), err
}

// killRouter kills router1's process, lets meanwhile happen, and starts it again after awayFor. It returns when it was started.
func (p *play) killRouter(ctx context.Context, meanwhile func() error) (time.Time, error) {
	none := time.Time{}
	i := slices.IndexFunc(p.procs, func(c *child) bool { return c.name == "router1" })
	old := p.procs[i]
	old.meant.Store(true)
	if err := syscall.Kill(old.pid, syscall.SIGKILL); err != nil {
		return none, fmt.Errorf("kill router1 (pid %d): %w", old.pid, err)
	}
	killed := time.Now()
	<-old.done
	p.progress.say("router1 is killed")
	if meanwhile != nil {
		if err := meanwhile(); err != nil {
			return none, err
		}
	}
	if err := pause(ctx, awayFor-time.Since(killed)); err != nil {
		return none, err
	}
	started := time.Now()
	c, err := p.startRouter(*p.net.node("router1"))
	if err != nil {
		return none, err
	}
	p.procs[i] = c
	p.watchProcess(c)
	p.progress.say("router1 is started again")
	return started, p.writeState(modeRun)
}

// back waits until router1 has its sessions, every neighbour has told all, and nothing is left to write.
func (p *play) back(ctx context.Context) (st ctl.Status, err error) {
	err = until(ctx, backLimit, func() error {
		st = ctl.Status{}
		if err := p.ask(ctx, &st, "router1", "show", "status"); err != nil {
			return err
		}
		var rows []ctl.BGPSession
		if err := p.ask(ctx, &rows, "router1", "show", "bgp"); err != nil {
			return err
		}
		if err := sessionsUp("router1", rows); err != nil {
			return err
		}
		if f := st.FIB; !f.Synced || !f.Complete || f.Unsettled > 0 {
			return fmt.Errorf("router1's routes are not settled: synced %t, complete %t, unsettled %d, %v", f.Synced, f.Complete, f.Unsettled, f.States)
		}
		return nil
	})
	return st, err
}

// checkRouterKilled kills router1 under traffic in both directions, with nothing changed at its return.
func (p *play) checkRouterKilled(ctx context.Context) (string, error) {
	s, err := p.before(ctx)
	if err != nil {
		return "", err
	}
	streams, stop, err := p.restartStreams(ctx)
	if err != nil {
		return "", err
	}
	defer stop()
	began := time.Now()
	if err := pause(ctx, time.Second); err != nil {
		return "", err
	}
	started, err := p.killRouter(ctx, nil)
	if err != nil {
		return "", err
	}
	st, err := p.back(ctx)
	if err != nil {
		return "", err
	}
	took := time.Since(started)
	if err := until(ctx, backLimit, func() error { // WireGuard makes its handshake by itself
		if got, _ := streams.tunnel.since(started); len(got) == 0 {
			return errors.New("tun12 carries nothing yet")
		}
		return nil
	}); err != nil {
		return "", err
	}
	watched := time.Since(began)
	stop()
	p.metric("router_back_ms", ms(took))
	p.metric("wireguard_outage_ms", ms(streams.tunnel.gap()))
	text, err := streams.judge(watched, began)
	if err != nil {
		return "", err
	}
	same, err := p.judgeUntouched(ctx, s, st)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %s; sessions and routes settled %.1f s after the start; WireGuard's outage was %.1f s",
		text, same, took.Seconds(), streams.tunnel.gap().Seconds()), nil
}

// judgeUntouched checks that VPP and all routes in it are the ones of before, and that nobody wrote any.
func (p *play) judgeUntouched(ctx context.Context, s scene, st ctl.Status) (string, error) {
	if st.Dataplane.PID != s.vpp {
		return "", fmt.Errorf("router1's VPP was pid %d and is %d", s.vpp, st.Dataplane.PID)
	}
	changes, err := p.traced(ctx)
	if err != nil {
		return "", err
	}
	if f := st.FIB; changes != 0 || f.Written != 0 || f.Deleted != 0 {
		return "", fmt.Errorf("VPP was asked for %d changes of routes; router1 counts %d written, %d deleted", changes, f.Written, f.Deleted)
	}
	after, err := p.vppFIB(ctx, "router1")
	if err != nil {
		return "", err
	}
	n, err := kept(s.fib, after, p.told())
	if err != nil {
		return "", err
	}
	routes, err := p.bgpRoutes(ctx)
	if err != nil {
		return "", err
	}
	if err := sameRoutes(s.routes, routes); err != nil {
		return "", err
	}
	return fmt.Sprintf("VPP is the same process, its trace has no change of a route, %d routes are the same objects with their packet counters", n), nil
}

// sameRoutes compares tables by prefix: states, and the ways of the best paths.
func sameRoutes(before, after []ctl.Route) error {
	text := func(r ctl.Route) string {
		out := r.State
		for _, path := range r.Paths {
			if path.Best {
				out += " " + hopText(path.NextHop, path.Interface)
			}
		}
		return out
	}
	now := make(map[string]string, len(after))
	for _, r := range after {
		now[r.Prefix] = text(r)
	}
	for _, r := range before {
		if now[r.Prefix] != text(r) {
			return fmt.Errorf("%s was %q and is %q", r.Prefix, text(r), now[r.Prefix])
		}
	}
	if len(before) != len(after) {
		return fmt.Errorf("there were %d routes, and now %d", len(before), len(after))
	}
	return nil
}

// checkRouterKilledChanged kills router1 and changes its neighbours' routes: some go, some are new, some move to router3.
func (p *play) checkRouterKilledChanged(ctx context.Context, half bool) (string, error) {
	s, err := p.before(ctx)
	if err != nil {
		return "", err
	}
	n := p.rounds(changedRoutes, changedRoutes/10)
	base := p.told()
	removed, moved, stay := base[:n], base[n:2*n], base[2*n:]
	added := hostRoutes(addedPool, n)
	_, err = p.killRouter(ctx, func() error {
		taken := moved
		if half {
			taken = moved[:n/2]
		}
		return errors.Join(
			p.announce(ctx, "router2", slices.Concat([]string{restartSite}, stay, added)),
			p.announce(ctx, "router3", slices.Concat(p.net.node("router3").originate, taken)),
		)
	})
	if err != nil {
		return "", err
	}
	st, err := p.back(ctx)
	if err != nil {
		return "", err
	}
	changes, err := p.traced(ctx)
	if err != nil {
		return "", err
	}
	f := st.FIB
	if changes != 3*n || f.Written != uint64(2*n) || f.Deleted != uint64(n) {
		return "", fmt.Errorf("VPP was asked for %d changes of routes, and router1 counts %d written and %d deleted, instead of %d, %d and %d",
			changes, f.Written, f.Deleted, 3*n, 2*n, n)
	}
	if st.Dataplane.PID != s.vpp {
		return "", fmt.Errorf("router1's VPP was pid %d and is %d", s.vpp, st.Dataplane.PID)
	}
	after, err := p.vppFIB(ctx, "router1")
	if err != nil {
		return "", err
	}
	same, err := kept(s.fib, after, stay)
	if err != nil {
		return "", err
	}
	if err := p.judgeChanged(ctx, removed, moved, added); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d removed, %d added, %d moved to router3: VPP's trace has exactly %d changes of routes; %d routes are the same objects", n, n, n, changes, same), nil
}

// judgeChanged checks that router1 has the new routes and forwards by them.
func (p *play) judgeChanged(ctx context.Context, removed, moved, added []string) error {
	rows, err := p.bgpRoutes(ctx)
	if err != nil {
		return err
	}
	have := make(map[string]bool, len(rows))
	for _, r := range rows {
		have[r.Prefix] = true
	}
	for _, r := range removed {
		if have[r] {
			return fmt.Errorf("router1 still has %s", r)
		}
	}
	for iface, list := range map[string][]string{"core13": moved, "core12": added} {
		for _, r := range list {
			if err := leadsTo(rows, r, iface); err != nil {
				return err
			}
		}
	}
	_, err = p.checkFIB(ctx)
	return err
}

// restartStreams are the pings through router1's VPP.
type restartStreams struct {
	there, back *stream // between the servers, in both directions
	tunnel      *stream // through the WireGuard link, to router1
}

func (p *play) restartStreams(ctx context.Context) (s restartStreams, stop func(), err error) {
	var all []*stream
	stop = func() {
		for _, one := range all {
			one.stop()
		}
		all = nil
	}
	for _, w := range []struct {
		into     **stream
		from, to string
		every    time.Duration
	}{
		{&s.there, "server1", server2Addr, streamEvery},
		{&s.back, "server2", server1Addr, streamEvery},
		{&s.tunnel, "router2", tun12Near, 50 * time.Millisecond},
	} {
		if *w.into, err = p.pingEvery(ctx, w.from, w.to, w.every, streamWait); err != nil {
			stop()
			return s, func() {}, err
		}
		all = append(all, *w.into)
	}
	return s, stop, nil
}

// judge checks that no request between the servers was lost, and that there were enough in the time.
func (s restartStreams) judge(took time.Duration, began time.Time) (string, error) {
	there, lostThere := s.there.score()
	back, lostBack := s.back.score()
	if lost := lostThere + lostBack; lost > 0 {
		return "", fmt.Errorf("of %d pings %d were lost, %d from server1 and %d from server2; the longest silences: %s and %s",
			there+back+lost, lost, lostThere, lostBack, s.there.silence(began), s.back.silence(began))
	}
	rate := float64(there+back) / took.Seconds() // each request passes router1, and each answer, one in each direction
	text := fmt.Sprintf("%d pings and as many answers, none lost, %.0f packets/s in each direction", there+back, rate)
	if rate < streamMin {
		return "", fmt.Errorf("%s; %d are wanted", text, streamMin)
	}
	return text, nil
}
