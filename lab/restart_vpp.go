package lab

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// This file kills a VPP that holds many routes, and proves that every one of them forwards again: VPP's packet generator on
// server1 sends one packet to each, and server2's VPP counts what arrives.

const (
	sweepRate  = 5_000           // packets a second: a ring holds what comes while a busy machine stops a VPP
	manyLimit  = 3 * time.Minute // to learn many routes, and to put them into another VPP
	sweepTries = 5               // a busy machine drops packets of a stream that waits for nobody
)

// rlrWithin runs a command that may take longer than others.
func (p *play) rlrWithin(ctx context.Context, limit time.Duration, router string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p.command(ctx, router, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s: %w: %s", router, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

var arrivedPackets = regexp.MustCompile(`dpo-load-balance: \[proto:ip4 index:\d+ .*? to:\[(\d+):\d+\]`)

// arrived asks server2's VPP how many packets for the pool have come.
func (p *play) arrived(ctx context.Context) (int, error) {
	text, err := p.vppctl(ctx, "server2", "show", "ip", "fib", routesPool)
	if err != nil {
		return 0, err
	}
	m := arrivedPackets.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("server2's VPP does not tell what %s has dropped:\n%s", routesPool, text)
	}
	return strconv.Atoi(m[1])
}

// sweep sends a packet to each of n addresses from server1 and returns how many arrived at server2.
func (p *play) sweep(ctx context.Context, first string, n int) (int, error) {
	before, err := p.arrived(ctx)
	if err != nil {
		return 0, err
	}
	last := strings.TrimSuffix(hostRoutes(netip.MustParseAddr(first), n)[n-1], "/32")
	stream := fmt.Sprintf("packet-generator new { name sweep limit %d rate %d size 64-64 node ip4-lookup data { UDP: %s -> %s-%s UDP: 4000 -> 4000 incrementing 22 } }",
		n, sweepRate, server1Addr, first, last)
	if _, err := p.vppctl(ctx, "server1", strings.Fields(stream)...); err != nil {
		return 0, err
	}
	defer p.vppctl(ctx, "server1", "packet-generator", "delete", "sweep") //nolint:errcheck // the next one with the name would tell
	if _, err := p.vppctl(ctx, "server1", "packet-generator", "enable-stream", "sweep"); err != nil {
		return 0, err
	}
	got, quiet := 0, 0
	limit := time.Duration(n/sweepRate+20) * time.Second
	err = until(ctx, limit, func() error {
		now, err := p.arrived(ctx)
		if err != nil {
			return err
		}
		if now-before == got {
			quiet++
		} else {
			got, quiet = now-before, 0
		}
		if got < n && quiet < 10 {
			return fmt.Errorf("%d of %d packets have arrived", got, n)
		}
		return nil
	})
	return got, err
}

// sweepAll sweeps until all packets arrive, a few times at most.
func (p *play) sweepAll(ctx context.Context, first string, n int) error {
	most := 0
	for range sweepTries {
		got, err := p.sweep(ctx, first, n)
		if err != nil {
			return err
		}
		if most = max(most, got); got == n {
			return nil
		}
		p.progress.say("a sweep: of %d packets %d arrive", n, got)
	}
	return fmt.Errorf("of a packet for each of %d routes at most %d arrive at server2", n, most)
}

// alien adds or removes routes in router2's VPP, as somebody else who uses it, and lets router2 look.
func (p *play) alien(ctx context.Context, verb string, n int) error {
	if _, err := p.vppctl(ctx, "router2", "ip", "route", verb, "count", strconv.Itoa(n), manyPool.String()+"/32", "via", server2Addr); err != nil {
		return err
	}
	return p.rlrWithin(ctx, manyLimit, "router2", "fib", "resync")
}

// checkVPPKilledMany gives router1 many routes and kills its VPP.
func (p *play) checkVPPKilledMany(ctx context.Context, withdraw bool) (string, error) {
	n := p.rounds(restartMany, manyFew)
	first, err := p.back(ctx)
	if err != nil {
		return "", err
	}
	told := time.Now()
	if err := p.alien(ctx, "add", n); err != nil {
		return "", err
	}
	if err := until(ctx, manyLimit, func() error { return p.holds(ctx, 0, first.FIB.States["installed"]+n) }); err != nil {
		return "", err
	}
	learned := time.Since(told)
	if err := p.passedOn(ctx, n); err != nil {
		return "", err
	}
	if err := p.sweepAll(ctx, manyPool.String(), n); err != nil {
		return "", fmt.Errorf("before the kill: %w", err)
	}
	before, err := p.back(ctx)
	if err != nil {
		return "", err
	}
	installed := before.FIB.States["installed"]
	if err := syscall.Kill(before.Dataplane.PID, syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill VPP (pid %d): %w", before.Dataplane.PID, err)
	}
	killed := time.Now()
	p.progress.say("VPP of router1 is killed, with %d routes", installed)
	wanted := installed
	if withdraw {
		wanted -= n / 2
		if err := p.alien(ctx, "del", n/2); err != nil {
			return "", fmt.Errorf("sabotage: %w", err)
		}
	}
	if err := until(ctx, manyLimit, func() error { return p.holds(ctx, before.Dataplane.PID, wanted) }); err != nil {
		return "", err
	}
	took := time.Since(killed)
	after, err := p.back(ctx)
	if err != nil {
		return "", err
	}
	if !withdraw {
		if err := p.passedOn(ctx, n); err != nil {
			return "", err
		}
	}
	if err := p.sweepAll(ctx, manyPool.String(), n); err != nil {
		return "", err
	}
	p.metric("many_routes", float64(installed))
	p.metric("many_learned_ms", ms(learned))
	p.metric("many_back_ms", ms(took))
	p.metric("many_vpp_rss_bytes", float64(after.Dataplane.RSSBytes))
	p.metric("many_rss_bytes", float64(after.RSSBytes))
	return fmt.Sprintf("%d routes learned in %.1f s; all in the new VPP %.1f s after the old one's death, and a packet for each of %d arrives; VPP takes %.0f MB, the router %.0f MB",
		installed, learned.Seconds(), took.Seconds(), n, float64(after.Dataplane.RSSBytes)/1e6, float64(after.RSSBytes)/1e6), nil
}

// passedOn waits until router3 has n routes too: while it learns them from router1, both are busy, and so is the machine.
func (p *play) passedOn(ctx context.Context, n int) error {
	return until(ctx, manyLimit, func() error {
		var st ctl.Status
		if err := p.ask(ctx, &st, "router3", "show", "status"); err != nil {
			return err
		}
		if got := st.FIB.States["installed"]; got < n || st.FIB.Unsettled > 0 {
			return fmt.Errorf("of %d routes router3 has %d in its dataplane: %v", n, got, st.FIB.States)
		}
		return nil
	})
}

// holds checks that another VPP than old has confirmed so many routes.
func (p *play) holds(ctx context.Context, old, installed int) error {
	var st ctl.Status
	if err := p.ask(ctx, &st, "router1", "show", "status"); err != nil {
		return err
	}
	if d := st.Dataplane; d.PID == old || d.State != "connected" {
		return fmt.Errorf("router1's dataplane is %s, pid %d: %s", d.State, d.PID, d.Error)
	}
	if f := st.FIB; !f.Synced || f.States["installed"] < installed {
		return fmt.Errorf("of %d routes router1 has %d in its dataplane: %v", installed, f.States["installed"], f.States)
	}
	return nil
}
