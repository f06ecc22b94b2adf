package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// This file kills helpers and VPPs, as a crash or the kernel's out-of-memory killer would.

const (
	helperLimit   = 20 * time.Second // for the sessions of a killed helper
	vppLimit      = 3 * time.Second  // for VPP and its routes
	recoveryLimit = 10 * time.Second // for sessions and pings
	// giveUp is how long a recovery is watched, so that one that takes too long is told in seconds.
	giveUp      = 40 * time.Second
	crashWindow = 8 * time.Second // in which a VPP that always dies is watched
	crashMin    = 3               // starts in it: it is retried
	crashMax    = 12              // and not spun on
)

// checkHelperKilled kills each helper of the hub in turn.
func (p *play) checkHelperKilled(ctx context.Context, both bool) (string, error) {
	before, err := p.holdingsOf(ctx, hub)
	if err != nil {
		return "", err
	}
	var done []string
	worst := time.Duration(0)
	for _, ns := range []string{defaultNamespace, ""} {
		dropped, took, err := p.killHelper(ctx, ns, both)
		if err != nil {
			return "", err
		}
		worst = max(worst, took)
		done = append(done, fmt.Sprintf("the helper of %s: only %s dropped, back after %.1f s",
			helperText(ns), strings.Join(dropped, " and "), took.Seconds()))
	}
	err = until(ctx, 15*time.Second, func() error {
		now, err := p.holdingsOf(ctx, hub)
		if err != nil {
			return err
		}
		return leaked(map[string]holdings{hub: before}, map[string]holdings{hub: now})
	})
	if err != nil {
		return "", fmt.Errorf("left behind: %w", err)
	}
	p.metric("helper_back_ms", ms(worst))
	return strings.Join(done, "; "), nil
}

func helperText(namespace string) string {
	if namespace == defaultNamespace {
		return "accepted sessions"
	}
	return "sessions that " + hub + " made"
}

// killHelper kills the helper of the accepted sessions (defaultNamespace), or that of the ones that the hub made (""), and
// returns which sessions dropped.
func (p *play) killHelper(ctx context.Context, namespace string, both bool) (dropped []string, took time.Duration, err error) {
	var list []hubSession
	if err := until(ctx, helperLimit, func() (err error) {
		if err := p.hubUp(ctx, time.Time{}); err != nil {
			return err
		}
		list, err = p.hubSessions(ctx)
		return err
	}); err != nil {
		return nil, 0, err
	}
	before, err := p.sessionRows(ctx)
	if err != nil {
		return nil, 0, err
	}
	helpers, err := helpersOf(p.routerPID(hub))
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	killed := 0
	for _, h := range helpers {
		if both || (h.namespace == defaultNamespace) == (namespace == defaultNamespace) {
			if err := syscall.Kill(h.pid, syscall.SIGKILL); err != nil {
				return nil, 0, fmt.Errorf("kill helper %s: %w", h.namespace, err)
			}
			killed++
		}
	}
	if killed == 0 {
		return nil, 0, fmt.Errorf("%s has no helper of %s", hub, helperText(namespace))
	}
	p.progress.say("killed %d of %d helpers of %s", killed, len(helpers), hub)
	for _, s := range list {
		if s.dialed == (namespace != defaultNamespace) {
			dropped = append(dropped, s.neighbor)
		}
	}
	if len(dropped) == 0 {
		return nil, 0, fmt.Errorf("the helper of %s had no session", helperText(namespace))
	}
	err = until(ctx, helperLimit, func() error {
		now, err := p.sessionRows(ctx)
		if err != nil {
			return err
		}
		return judgeDropped(before, now, dropped)
	})
	took = time.Since(began)
	if err != nil {
		return nil, 0, err
	}
	err = until(ctx, helperLimit, func() error { return p.hubUp(ctx, time.Time{}) }) // the spokes' ends too
	return dropped, took, err
}

// sessionRows are the hub's sessions, by name.
func (p *play) sessionRows(ctx context.Context) (map[string]ctl.BGPSession, error) {
	var rows []ctl.BGPSession
	if err := p.ask(ctx, &rows, hub, "show", "bgp"); err != nil {
		return nil, err
	}
	out := make(map[string]ctl.BGPSession)
	for _, r := range rows {
		out[r.Name] = r
	}
	return out, nil
}

// judgeDropped checks that the sessions dropped and are back, and that no other one flapped.
func judgeDropped(before, now map[string]ctl.BGPSession, dropped []string) error {
	for name, b := range before {
		n, should := now[name], slices.Contains(dropped, name)
		switch {
		case !should && (n.State != established || n.Flaps != b.Flaps || n.UptimeS < b.UptimeS):
			return final(fmt.Errorf("%s's session with %s dropped too, whose helper was not killed: %s", hub, name, n.LastError))
		case should && n.State != established:
			return sessionsUp(hub, []ctl.BGPSession{n})
		case should && n.Flaps == b.Flaps:
			return fmt.Errorf("%s's session with %s has outlived its helper", hub, name)
		}
	}
	return nil
}

// killVPPs plays the checks vpp-killed and vpp-crash-loop.
func (p *play) killVPPs(ctx context.Context) error {
	script := breakableVPP{p.place.breakable(hub)}
	if p.opt.Sabotage == "vpp-killed" {
		if err := script.set(vppSlow); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	ping, err := p.pingStream(ctx, "router2", loop4(4))
	if err != nil {
		return err
	}
	defer ping.stop()
	p.check(ctx, "vpp-killed", func(ctx context.Context) (string, error) { return p.checkVPPKilled(ctx, ping) })
	if err := script.set(""); err != nil {
		return err
	}
	p.check(ctx, "vpp-crash-loop", func(ctx context.Context) (string, error) {
		return p.checkCrashLoop(ctx, script, ping)
	})
	return nil
}

// recovery is how long after the death of VPP things were back.
type recovery struct{ routes, sessions, pings time.Duration }

func (p *play) checkVPPKilled(ctx context.Context, ping *stream) (string, error) {
	var routes, sessions, pings []time.Duration
	var late error
	kills := p.rounds(killTotal, 2)
	for i := 1; i <= kills; i++ {
		if err := p.quiet(ctx, ping); err != nil {
			return "", err
		}
		r, err := p.killVPP(ctx, ping)
		if err != nil {
			return "", fmt.Errorf("kill %d of %d: %w", i, kills, err)
		}
		p.progress.say("kill %d of %d: routes after %.1f s, sessions after %.1f s, pings after %.1f s", i, kills,
			r.routes.Seconds(), r.sessions.Seconds(), r.pings.Seconds())
		routes, sessions, pings = append(routes, r.routes), append(sessions, r.sessions), append(pings, r.pings)
		if late == nil && (r.routes >= vppLimit || r.sessions >= recoveryLimit || r.pings >= recoveryLimit) {
			late = fmt.Errorf("kill %d of %d: VPP and its routes took %.1f s, sessions %.1f s, pings %.1f s; under %s, %s and %s is wanted", i, kills,
				r.routes.Seconds(), r.sessions.Seconds(), r.pings.Seconds(), vppLimit, recoveryLimit, recoveryLimit)
		}
	}
	for name, times := range map[string][]time.Duration{"vpp": routes, "sessions": sessions, "ping": pings} {
		p.metric(name+"_back_median_ms", ms(median(times)))
		p.metric(name+"_back_worst_ms", ms(slices.Max(times)))
	}
	return fmt.Sprintf("%d kills under traffic; VPP and its routes: %s; sessions: %s; pings: %s", kills,
		timesText(routes), timesText(sessions), timesText(pings)), late
}

// quiet waits for all sessions and for answers to the ping.
func (p *play) quiet(ctx context.Context, ping *stream) error {
	began := time.Now()
	return until(ctx, giveUp, func() error {
		if err := p.hubUp(ctx, time.Time{}); err != nil {
			return err
		}
		if got, _ := ping.since(began); len(got) < 3 {
			return fmt.Errorf("router2 gets no answer from %s", loop4(4))
		}
		return nil
	})
}

// killVPP kills the hub's VPP and measures the recovery.
func (p *play) killVPP(ctx context.Context, ping *stream) (r recovery, err error) {
	d, err := p.dataplaneOf(ctx, hub)
	if err != nil {
		return r, err
	}
	if err := syscall.Kill(d.PID, syscall.SIGKILL); err != nil {
		return r, fmt.Errorf("kill VPP (pid %d): %w", d.PID, err)
	}
	killed := time.Now()
	var errs [3]error
	together(
		func() {
			errs[0] = until(ctx, giveUp, func() error { return p.reprogrammed(ctx, d.PID) })
			r.routes = time.Since(killed)
		},
		func() {
			errs[1] = until(ctx, giveUp, func() error { return p.hubUp(ctx, killed) })
			r.sessions = time.Since(killed)
		},
		func() {
			silent := killed.Add(200 * time.Millisecond) // what was on its way may still come
			errs[2] = until(ctx, giveUp, func() error {
				got, _ := ping.since(silent)
				if len(got) < 3 {
					return fmt.Errorf("router2 gets no answer from %s", loop4(4))
				}
				r.pings = got[0].Sub(killed)
				return nil
			})
		},
	)
	return r, errors.Join(errs[:]...)
}

// reprogrammed checks that a new VPP answers and holds every route of the hub.
func (p *play) reprogrammed(ctx context.Context, old int) error {
	d, err := p.dataplaneOf(ctx, hub)
	if err != nil {
		return err
	}
	if d.PID == old || d.State != "connected" {
		return fmt.Errorf("%s's dataplane is %s, pid %d: %s", hub, d.State, d.PID, d.Error)
	}
	var routes []ctl.Route
	if err := p.ask(ctx, &routes, hub, "show", "route"); err != nil {
		return err
	}
	var entries []ctl.FIBEntry
	if err := p.ask(ctx, &entries, hub, "show", "fib"); err != nil {
		return err
	}
	if len(routes) < ownRoutes {
		return fmt.Errorf("%s has %d routes", hub, len(routes))
	}
	_, err = fibAgrees(routes, entries)
	return err
}

// ownRoutes are those that the hub has without any session: its nets and its loopback, IPv4 and IPv6.
const ownRoutes = 4

// hubUp checks that every session of the hub is Established at both ends, and began after t.
func (p *play) hubUp(ctx context.Context, t time.Time) error {
	for _, router := range p.bgpRouters() {
		args := []string{"show", "bgp"}
		if router != hub {
			args = append(args, hub)
		}
		var rows []ctl.BGPSession
		if err := p.ask(ctx, &rows, router, args...); err != nil {
			return err
		}
		if err := sessionsUp(router, rows); err != nil {
			return err
		}
		for _, b := range rows {
			if b.UptimeS > time.Since(t).Seconds() {
				return fmt.Errorf("%s still has its old session with %s", router, b.Name)
			}
		}
	}
	return nil
}

// checkCrashLoop makes every start of the hub's VPP fail, watches, and lets it work again.
func (p *play) checkCrashLoop(ctx context.Context, script breakableVPP, ping *stream) (string, error) {
	if err := p.quiet(ctx, ping); err != nil {
		return "", err
	}
	mode := vppFails
	if p.opt.Sabotage == "vpp-crash-loop" {
		mode = vppFailsOnce
	}
	if err := script.set(mode); err != nil {
		return "", err
	}
	before, err := script.times()
	if err != nil {
		return "", err
	}
	d, err := p.dataplaneOf(ctx, hub)
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(d.PID, syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill VPP (pid %d): %w", d.PID, err)
	}
	p.progress.say("VPP of %s fails at every start from now on", hub)
	if err := pause(ctx, crashWindow); err != nil {
		return "", err
	}
	after, err := script.times()
	if err != nil {
		return "", err
	}
	dead, err := p.dataplaneOf(ctx, hub)
	if err != nil {
		return "", err
	}
	if err := script.set(""); err != nil {
		return "", err
	}
	repaired := time.Now()
	if err := judgeCrashLoop(after[len(before):], dead); err != nil {
		return "", err
	}
	p.metric("vpp_starts", float64(len(after)-len(before)))
	if err := p.quiet(ctx, ping); err != nil {
		return "", fmt.Errorf("VPP can start again: %w", err)
	}
	return fmt.Sprintf("%d starts in %s, the last two %.1f s apart; show status: %s, %q; sessions and pings %.1f s after VPP could start again",
		len(after)-len(before), crashWindow, after[len(after)-1]-after[len(after)-2], dead.State, firstLine(dead.Error),
		time.Since(repaired).Seconds()), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// judgeCrashLoop checks that a VPP that dies at each start was started some times, ever more rarely, and is reported.
func judgeCrashLoop(starts []float64, d ctl.DataplaneStatus) error {
	if len(starts) < crashMin || len(starts) > crashMax {
		return fmt.Errorf("it was started %d times in %s (%s %s), wanted are %d to %d", len(starts), crashWindow, d.State, d.Error, crashMin, crashMax)
	}
	first, last := starts[1]-starts[0], starts[len(starts)-1]-starts[len(starts)-2]
	if last < 2*first {
		return fmt.Errorf("it is started every %.1f s, at first every %.1f s: that is no back-off", last, first)
	}
	if d.State == "connected" || !strings.Contains(d.Error, "exited with status 1") {
		return fmt.Errorf("show status does not report it: the dataplane is %s, error %q", d.State, d.Error)
	}
	return nil
}
