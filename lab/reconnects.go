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

// This file resets sessions many times and counts what may have been left behind.

// reconnectLimit is for a session to be Established again at both ends.
const reconnectLimit = 20 * time.Second

// resetSessions plays the checks reconnects and no-leak.
func (p *play) resetSessions(ctx context.Context) error {
	before, err := p.steadyHoldings(ctx)
	if err != nil {
		return err
	}
	if p.opt.Sabotage == "reconnects" {
		if _, err := p.rlr(ctx, hub, "neighbor", "disable", "router3"); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	p.check(ctx, "reconnects", p.checkReconnects)
	if p.opt.Sabotage == "reconnects" {
		if _, err := p.rlr(ctx, hub, "neighbor", "enable", "router3"); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
		if _, err := p.checkSessions(ctx); err != nil {
			return err
		}
	}
	if p.opt.Sabotage == "no-leak" {
		left, err := p.pingStream(ctx, hub, loop4(2))
		if err != nil {
			return err
		}
		defer left.stop()
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	p.check(ctx, "no-leak", func(ctx context.Context) (string, error) { return p.checkNoLeak(ctx, before) })
	return nil
}

// checkReconnects resets the three sessions at the same time, each from one side and the next time from the other.
func (p *play) checkReconnects(ctx context.Context) (string, error) {
	resets := p.rounds(resetTotal, 6)
	var times []time.Duration
	for done := 0; done < resets; {
		var mu sync.Mutex
		var failed error
		var batch []func()
		for spoke := 2; spoke <= lastSpoke && done < resets; spoke++ {
			fromHub := (done/(lastSpoke-1)+spoke)%2 == 0
			done++
			number := done
			batch = append(batch, func() {
				took, err := p.resetOne(ctx, spoke, fromHub)
				mu.Lock()
				defer mu.Unlock()
				times = append(times, took)
				if err != nil && failed == nil {
					failed = fmt.Errorf("reset %d of %d: %w", number, resets, err)
				}
			})
		}
		together(batch...)
		if failed != nil {
			return "", failed
		}
	}
	p.metric("reconnect_median_ms", ms(median(times)))
	p.metric("reconnect_worst_ms", ms(slices.Max(times)))
	return fmt.Sprintf("%d resets, half of them from either side, all Established again: %s", resets, timesText(times)), nil
}

// resetOne resets the session with a spoke and waits until both ends have it again.
func (p *play) resetOne(ctx context.Context, spoke int, fromHub bool) (time.Duration, error) {
	name := spokeName(spoke)
	ends := [2]sessionEnd{{hub, name}, {name, hub}}
	var before [2]ctl.BGPSession
	for i, e := range ends {
		var err error
		if before[i], err = p.session(ctx, e); err != nil {
			return 0, err
		}
	}
	resetter := ends[1]
	if fromHub {
		resetter = ends[0]
	}
	began := time.Now()
	if _, err := p.rlr(ctx, resetter.router, "neighbor", "reset", resetter.neighbor); err != nil {
		return 0, err
	}
	err := until(ctx, reconnectLimit, func() error {
		for i, e := range ends {
			now, err := p.session(ctx, e)
			if err != nil {
				return err
			}
			if err := sessionsUp(e.router, []ctl.BGPSession{now}); err != nil {
				return err
			}
			if now.Flaps <= before[i].Flaps {
				return fmt.Errorf("%s's session with %s has not ended", e.router, e.neighbor)
			}
		}
		return nil
	})
	return time.Since(began), err
}

// sessionEnd is one router's view of a session.
type sessionEnd struct{ router, neighbor string }

func (p *play) session(ctx context.Context, e sessionEnd) (ctl.BGPSession, error) {
	var rows []ctl.BGPSession
	if err := p.ask(ctx, &rows, e.router, "show", "bgp", e.neighbor); err != nil {
		return ctl.BGPSession{}, err
	}
	if len(rows) != 1 {
		return ctl.BGPSession{}, fmt.Errorf("%s has %d sessions named %s", e.router, len(rows), e.neighbor)
	}
	return rows[0], nil
}

// holdings is what a router holds that could leak. On the embedded dataplane only its descriptors.
type holdings struct {
	sessions, apps, namespaces int // of VPP
	helpers                    int
	files, helperFiles         int
}

// holdingsNow counts for the hub and those spokes whose connection is always made by the same side. Router4's is made by whoever
// is first, so a helper of its may be started late, and maps a segment when it first has a session; the hub's helpers all have a
// session of their own.
func (p *play) holdingsNow(ctx context.Context) (map[string]holdings, error) {
	out := make(map[string]holdings)
	for _, r := range []string{hub, "router2", "router3"} {
		h, err := p.holdingsOf(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		out[r] = h
	}
	return out, nil
}

func (p *play) holdingsOf(ctx context.Context, router string) (h holdings, err error) {
	d, err := p.dataplaneOf(ctx, router)
	if err != nil {
		return h, err
	}
	pid := p.routerPID(router)
	if d.Kind == onVPP {
		for _, q := range []struct {
			into  *int
			line  string
			count func(string) int
		}{
			{&h.sessions, "show session verbose", func(text string) int { return len(parseSessions(text)) }},
			{&h.apps, "show app", tableRows},
			{&h.namespaces, "show app ns", tableRows},
		} {
			text, err := p.vppctl(ctx, router, strings.Fields(q.line)...)
			if err != nil {
				return h, err
			}
			*q.into = q.count(text)
		}
		helpers, err := helpersOf(pid)
		if err != nil {
			return h, err
		}
		h.helpers = len(helpers)
		for _, x := range helpers {
			n, err := fewestFiles(ctx, x.pid)
			if err != nil {
				return h, err
			}
			h.helperFiles += n
		}
	}
	h.files, err = fewestFiles(ctx, pid)
	return h, err
}

// fewestFiles counts the descriptors of a process for a moment and takes the lowest: some are of questions that have just been
// answered, ours among them.
func fewestFiles(ctx context.Context, pid int) (int, error) {
	fewest, err := openFiles(pid)
	for range 4 {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
		n, err := openFiles(pid)
		if err != nil {
			return 0, err
		}
		fewest = min(fewest, n)
	}
	return fewest, err
}

// steadyHoldings counts until nothing changes for a second.
func (p *play) steadyHoldings(ctx context.Context) (map[string]holdings, error) {
	var last map[string]holdings
	err := until(ctx, 15*time.Second, func() error {
		now, err := p.holdingsNow(ctx)
		if err != nil {
			return err
		}
		diff := leaked(last, now)
		if diff == nil {
			diff = leaked(now, last)
		}
		if last == nil {
			diff = fmt.Errorf("counted once")
		}
		if last = now; diff != nil {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
		}
		return diff
	})
	return last, err
}

// leaked says what there is more of.
func leaked(before, after map[string]holdings) error {
	var more []string
	for _, r := range sortedNames(after) {
		b, a := before[r], after[r]
		for _, c := range []struct {
			what string
			b, a int
		}{
			{"sessions on VPP", b.sessions, a.sessions},
			{"applications on VPP", b.apps, a.apps},
			{"application namespaces", b.namespaces, a.namespaces},
			{"helpers", b.helpers, a.helpers},
			{"descriptors of the router", b.files, a.files},
			{"descriptors of helpers", b.helperFiles, a.helperFiles},
		} {
			if c.a > c.b {
				more = append(more, fmt.Sprintf("%s: %d %s, before %d", r, c.a, c.what, c.b))
			}
		}
	}
	if more == nil {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(more, "; "))
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// checkNoLeak compares with the counts of before. What is being closed may take a moment to be gone.
func (p *play) checkNoLeak(ctx context.Context, before map[string]holdings) (string, error) {
	var after map[string]holdings
	err := until(ctx, 30*time.Second, func() (err error) {
		if after, err = p.holdingsNow(ctx); err != nil {
			return err
		}
		return leaked(before, after)
	})
	if err != nil {
		return "", err
	}
	b, a := before[hub], after[hub]
	text := fmt.Sprintf("%d routers counted; %s: descriptors %d → %d", len(after), hub, b.files, a.files)
	if b.helpers > 0 {
		text += fmt.Sprintf(", sessions on VPP %d → %d, applications %d → %d, namespaces %d → %d, helpers %d → %d, their descriptors %d → %d",
			b.sessions, a.sessions, b.apps, a.apps, b.namespaces, a.namespaces, b.helpers, a.helpers, b.helperFiles, a.helperFiles)
	}
	return text, nil
}

func median(times []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(times))
	return s[len(s)/2]
}

func ms(d time.Duration) float64 { return float64(d.Milliseconds()) }

func timesText(times []time.Duration) string {
	return fmt.Sprintf("median %.1f s, worst %.1f s", median(times).Seconds(), slices.Max(times).Seconds())
}
