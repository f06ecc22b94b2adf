package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"rlr/internal/ctl"
)

// This file measures what an idle router takes, with all the processes that it is made of.

const (
	idleSettle  = 1 * time.Second // after the last command
	idleWindow  = 5 * time.Second
	idlePercent = 2.0 // on the embedded dataplane: the router, which is all
	idleBytes   = 64_000_000
	// On VPP the router, VPP and the helpers together.
	idleTotalPercent = 6.0
	idleTotalPSS     = 200_000_000
)

// checkIdle measures a router while nothing asks it and nothing passes it but keepalives. Load, if not nil, runs meanwhile: a
// sabotage.
func (p *play) checkIdle(ctx context.Context, router string, load func(context.Context)) (string, error) {
	if load != nil {
		loaded, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { load(loaded) })
		defer wg.Wait()
		defer cancel()
	}
	if err := pause(ctx, idleSettle); err != nil {
		return "", err
	}
	before, err := p.measure(ctx, router)
	if err != nil {
		return "", err
	}
	if err := pause(ctx, idleWindow); err != nil {
		return "", err
	}
	after, err := p.measure(ctx, router)
	if err != nil {
		return "", err
	}
	return p.judgeIdle(router, before, after)
}

// judgeIdle records the metrics and compares them with the limits of the dataplane.
func (p *play) judgeIdle(router string, before, after usage) (string, error) {
	took := after.at.Sub(before.at).Seconds()
	percent := func(a, b float64) float64 { return 100 * (b - a) / took }
	cpu := max(percent(before.router.cpu, after.router.cpu), percent(before.own, after.own))
	rss := max(after.rss, after.ownRSS)
	p.metric("cpu_percent", cpu)
	p.metric("rss_bytes", float64(rss))
	if after.vpp.pid == 0 {
		text := fmt.Sprintf("%s: %.2f %% of a core over %.1f s, %.1f MB resident (show status: %.1f MB)",
			router, cpu, took, float64(after.rss)/1e6, float64(after.ownRSS)/1e6)
		if cpu >= idlePercent || rss >= idleBytes {
			return "", fmt.Errorf("%s; under %g %% and %d MB is wanted", text, idlePercent, idleBytes/1_000_000)
		}
		return text, nil
	}
	if !before.sameProcesses(after) {
		return "", fmt.Errorf("%s: its processes changed while it was idle: %s, then %s", router, before.pids(), after.pids())
	}
	vpp := percent(before.vpp.cpu, after.vpp.cpu)
	helpers, helpersPSS := 0.0, uint64(0)
	var each []string
	for i, h := range after.helpers {
		c := percent(before.helpers[i].cpu, h.cpu)
		helpers += c
		helpersPSS += h.pss
		each = append(each, fmt.Sprintf("helper %s %.2f %% %.1f MB", h.name, c, float64(h.pss)/1e6))
	}
	total, totalPSS := cpu+vpp+helpers, after.router.pss+after.vpp.pss+helpersPSS
	p.metric("router_pss_bytes", float64(after.router.pss))
	p.metric("vpp_cpu_percent", vpp)
	p.metric("vpp_pss_bytes", float64(after.vpp.pss))
	p.metric("helpers_cpu_percent", helpers)
	p.metric("helpers_pss_bytes", float64(helpersPSS))
	p.metric("total_cpu_percent", total)
	p.metric("total_pss_bytes", float64(totalPSS))
	text := fmt.Sprintf("%s over %.1f s: %.2f %% of a core, %.1f MB PSS (router %.2f %% %.1f MB, VPP %.2f %% %.1f MB, %s)",
		router, took, total, float64(totalPSS)/1e6, cpu, float64(after.router.pss)/1e6, vpp, float64(after.vpp.pss)/1e6, strings.Join(each, ", "))
	if total >= idleTotalPercent || totalPSS >= idleTotalPSS {
		return "", fmt.Errorf("%s; under %g %% and %d MB in all is wanted", text, idleTotalPercent, idleTotalPSS/1_000_000)
	}
	return text, nil
}

// share is what one process has used: by the kernel's /proc, which counts in hundredths of a second.
type share struct {
	name string
	pid  int
	cpu  float64 // seconds
	pss  uint64  // bytes
}

// usage is what a router has used, with its VPP and helpers.
type usage struct {
	at      time.Time
	router  share
	vpp     share // pid 0 on the embedded dataplane
	helpers []share
	rss     uint64  // bytes, of the router
	own     float64 // the router's seconds of CPU, and bytes, by its own account
	ownRSS  uint64
}

func (u usage) sameProcesses(o usage) bool { return u.pids() == o.pids() }

func (u usage) pids() string {
	text := fmt.Sprintf("router %d, VPP %d", u.router.pid, u.vpp.pid)
	for _, h := range u.helpers {
		text += fmt.Sprintf(", helper %s %d", h.name, h.pid)
	}
	return text
}

func (p *play) measure(ctx context.Context, router string) (usage, error) {
	var st ctl.Status
	if err := p.ask(ctx, &st, router, "show", "status"); err != nil {
		return usage{}, err
	}
	pid := p.routerPID(router)
	u := usage{at: time.Now(), own: st.CPUS, ownRSS: st.RSSBytes}
	pr, err := readPrivileges(pid)
	if err != nil {
		return u, fmt.Errorf("%s: %w", router, err)
	}
	u.rss = pr.rssBytes
	if st.Dataplane.Kind != onVPP {
		stat, err := readStat(pid) // its share of memory is of no use here, and not every kernel tells it
		if err != nil {
			return u, fmt.Errorf("%s: %w", router, err)
		}
		u.router = share{name: "router", pid: pid, cpu: stat.seconds()}
		return u, nil
	}
	if u.router, err = measureProcess("router", pid); err != nil {
		return u, fmt.Errorf("%s: %w", router, err)
	}
	if u.vpp, err = measureProcess("vpp", st.Dataplane.PID); err != nil {
		return u, fmt.Errorf("%s's VPP: %w", router, err)
	}
	helpers, err := helpersOf(pid)
	if err != nil {
		return u, err
	}
	for _, h := range helpers {
		s, err := measureProcess(h.namespace, h.pid)
		if err != nil {
			return u, fmt.Errorf("%s's helper %s: %w", router, h.namespace, err)
		}
		u.helpers = append(u.helpers, s)
	}
	return u, nil
}

func measureProcess(name string, pid int) (share, error) {
	stat, err := readStat(pid)
	if err != nil {
		return share{}, err
	}
	pss, err := pssBytes(pid)
	if err != nil {
		return share{}, err
	}
	return share{name, pid, stat.seconds(), pss}, nil
}
