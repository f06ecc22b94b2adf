package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// This file has the checks that several scenarios share.

const convergeLimit = 20 * time.Second // from the start; routers dial again every two seconds

// checkProcesses proves that every router is a process of its own without any privilege, on the dataplane that was asked for.
func (p *play) checkProcesses(ctx context.Context) (string, error) {
	kind, what := "", ""
	for _, c := range p.procs {
		var st ctl.Status
		if err := until(ctx, convergeLimit, func() error {
			if err := p.ask(ctx, &st, c.name, "show", "status"); err != nil {
				return err
			}
			if st.Dataplane.State != "connected" {
				return fmt.Errorf("%s: dataplane is %s %s", c.name, st.Dataplane.State, st.Dataplane.Error)
			}
			return nil
		}); err != nil {
			return "", err
		}
		if err := judgeProcess(c, st); err != nil {
			return "", err
		}
		if err := judgeDataplane(c.name, p.opt.Dataplane, st); err != nil {
			return "", err
		}
		if kind != "" && kind != st.Dataplane.Kind {
			return "", fmt.Errorf("%s has the %s dataplane, others %s", c.name, st.Dataplane.Kind, kind)
		}
		kind = st.Dataplane.Kind
		if kind == onVPP {
			if err := judgeVPP(c.name, st.Dataplane.PID, p.vpp); err != nil {
				return "", err
			}
			what = ": " + p.vpp + ", a process for each"
		}
	}
	p.mu.Lock()
	p.dataplane = kind
	p.mu.Unlock()
	return fmt.Sprintf("%d processes without capabilities, no_new_privs, each in its own session, dataplane %s%s", len(p.procs), kind, what), nil
}

func judgeProcess(c *child, st ctl.Status) error {
	if st.PID != c.pid {
		return fmt.Errorf("%s answers from pid %d, started was %d", c.name, st.PID, c.pid)
	}
	stat, err := readStat(c.pid)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	if stat.session != c.pid {
		return fmt.Errorf("%s (pid %d) is in session %d, not in one of its own", c.name, c.pid, stat.session)
	}
	return unprivileged(c.name, c.pid)
}

func unprivileged(name string, pid int) error {
	pr, err := readPrivileges(pid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, set := range []string{pr.effective, pr.permitted} {
		if v, err := strconv.ParseUint(set, 16, 64); err != nil || v != 0 {
			return fmt.Errorf("%s (pid %d) has capabilities: effective %s, permitted %s", name, pid, pr.effective, pr.permitted)
		}
	}
	if !pr.noNewPrivs {
		return fmt.Errorf("%s (pid %d) could gain privileges: no_new_privs is not set", name, pid)
	}
	return nil
}

// judgeDataplane checks the kind: there is no fallback in a lab.
func judgeDataplane(name, asked string, st ctl.Status) error {
	d := st.Dataplane
	if asked != "auto" && d.Kind != asked {
		return fmt.Errorf("%s: dataplane %s was asked for, %s it is", name, asked, d.Kind)
	}
	if d.Kind == "embedded" {
		if d.PID != st.PID {
			return fmt.Errorf("%s: the embedded dataplane has pid %d, the router %d", name, d.PID, st.PID)
		}
		return nil
	}
	return unprivileged(name+"'s dataplane", d.PID)
}

// judgeVPP proves that the dataplane's process is the VPP that is installed, whatever started it.
func judgeVPP(name string, pid int, installed string) error {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return fmt.Errorf("%s's dataplane: %w", name, err)
	}
	if exe != installed {
		return fmt.Errorf("%s's dataplane (pid %d) runs %s, installed is %s", name, pid, exe, installed)
	}
	return nil
}

// bgpRouters are the names of the nodes that speak BGP.
func (p *play) bgpRouters() []string {
	var out []string
	for _, n := range p.net.nodes {
		if n.as != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// sessionsNow counts the sessions of all routers; the error says which are not Established.
func (p *play) sessionsNow(ctx context.Context) (int, error) {
	total := 0
	for _, r := range p.bgpRouters() {
		var rows []ctl.BGPSession
		if err := p.ask(ctx, &rows, r, "show", "bgp"); err != nil {
			return 0, err
		}
		if want := len(p.net.node(r).neighbors); len(rows) != want {
			return 0, fmt.Errorf("%s has %d sessions, %d are configured", r, len(rows), want)
		}
		if err := sessionsUp(r, rows); err != nil {
			return 0, err
		}
		total += len(rows)
	}
	return total, nil
}

func (p *play) checkSessions(ctx context.Context) (string, error) {
	total := 0
	err := until(ctx, convergeLimit, func() (err error) {
		total, err = p.sessionsNow(ctx)
		return err
	})
	return fmt.Sprintf("%d session ends Established", total), err
}

// converge runs the checks of the first state and measures how long it takes.
func (p *play) converge(ctx context.Context, routes func(context.Context) (string, error)) {
	var sessions, routed bool
	var atSessions, atRoutes time.Duration
	together(
		func() {
			sessions = p.check(ctx, "sessions", p.checkSessions)
			atSessions = time.Since(p.began)
		},
		func() {
			routed = p.check(ctx, "routes", routes)
			atRoutes = time.Since(p.began)
		},
	)
	if sessions && routed {
		p.metric("converge_ms", float64(max(atSessions, atRoutes).Milliseconds()))
	}
}

// checkFIB compares show fib with show route on every router.
func (p *play) checkFIB(ctx context.Context) (string, error) {
	var done []string
	for _, n := range p.net.nodes {
		agree := 0
		// What arrives between the two questions may differ for a moment.
		err := until(ctx, 3*time.Second, func() (err error) {
			var routes []ctl.Route
			var entries []ctl.FIBEntry
			if err := p.ask(ctx, &routes, n.name, "show", "route"); err != nil {
				return err
			}
			if err := p.ask(ctx, &entries, n.name, "show", "fib"); err != nil {
				return err
			}
			agree, err = fibAgrees(routes, entries)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.name, err)
		}
		done = append(done, fmt.Sprintf("%s %d", n.name, agree))
	}
	return "routes that agree: " + strings.Join(done, ", "), nil
}

// meddle makes a router's dataplane drop what is for a prefix, behind the router's back: a sabotage.
func (p *play) meddle(ctx context.Context, router, prefix string) error {
	if _, err := p.rlr(ctx, router, "vppctl", "ip", "route", "add", prefix, "via", "drop"); err != nil {
		return fmt.Errorf("sabotage: %w", err)
	}
	return nil
}

// ping sends three pings, and reports what came of them, also when none was answered.
func (p *play) ping(ctx context.Context, from, target string, args ...string) (r pingReport, err error) {
	words := append([]string{"ping", target, "-c", "3", "-i", "100ms", "-W", "1s"}, args...)
	out, err := p.rlr(ctx, from, words...)
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		return r, errors.Join(err, jerr)
	}
	return r, nil
}

// pingOnce sends three pings, which all must be answered.
func (p *play) pingOnce(ctx context.Context, from, target string, ttl int, args ...string) (pingReport, error) {
	r, err := p.ping(ctx, from, target, args...)
	if err != nil {
		return r, err
	}
	if err := r.repliesWith(target, ttl); err != nil {
		return r, fmt.Errorf("%s to %s: %w", from, target, err)
	}
	return r, nil
}

// pingUntil pings until all of three are answered: the first ones may meet an unresolved neighbour.
func (p *play) pingUntil(ctx context.Context, from, target string, ttl int, args ...string) (r pingReport, err error) {
	err = until(ctx, 6*time.Second, func() (err error) {
		r, err = p.pingOnce(ctx, from, target, ttl, args...)
		return err
	})
	return r, err
}

// stream is a ping that runs in the background.
type stream struct {
	cmd   *exec.Cmd
	read  sync.WaitGroup
	ended chan struct{} // closed when the command has ended

	mu      sync.Mutex
	replies []time.Time // when each good reply came
	lost    int
	latest  int // sequence number that was answered, or was given up
}

// pingStream pings ten times a second until stop.
func (p *play) pingStream(ctx context.Context, from, target string) (*stream, error) {
	return p.pingEvery(ctx, from, target, 100*time.Millisecond, time.Second)
}

// pingEvery pings until stop, and waits for each answer.
func (p *play) pingEvery(ctx context.Context, from, target string, interval, wait time.Duration) (*stream, error) {
	s := &stream{ended: make(chan struct{})}
	s.cmd = p.command(ctx, from, "ping", target, "-c", "0", "-i", interval.String(), "-W", wait.String())
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("ping %s: %w", target, err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("ping %s: %w", target, err)
	}
	s.read.Go(func() {
		defer close(s.ended)
		s.follow(out)
		s.cmd.Wait() //nolint:errcheck // it is interrupted by us; its replies have been read
	})
	return s, nil
}

// follow reads the document as it comes: {"target": …, "replies": [{…}, …], "summary": …}.
func (s *stream) follow(r io.Reader) {
	defer io.Copy(io.Discard, r) //nolint:errcheck // so that the command never waits for us
	dec := json.NewDecoder(r)
	for {
		t, err := dec.Token()
		if err != nil {
			return
		}
		if t == json.Delim('[') {
			break
		}
	}
	for dec.More() {
		var reply ctl.ProbeReply
		if dec.Decode(&reply) != nil {
			return
		}
		s.mu.Lock()
		s.latest = max(s.latest, reply.Seq)
		if reply.Error == "" && reply.From != "" {
			s.replies = append(s.replies, time.Now())
		} else {
			s.lost++
		}
		s.mu.Unlock()
	}
}

// since returns the good replies after t and how many requests were lost so far.
func (s *stream) since(t time.Time) ([]time.Time, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.replies, func(r time.Time) bool { return r.After(t) })
	if i < 0 {
		return nil, s.lost
	}
	return slices.Clone(s.replies[i:]), s.lost
}

// silence says when the longest time without a reply was.
func (s *stream) silence(began time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var longest, at time.Duration
	for i := 1; i < len(s.replies); i++ {
		if d := s.replies[i].Sub(s.replies[i-1]); d > longest {
			longest, at = d, s.replies[i-1].Sub(began)
		}
	}
	return fmt.Sprintf("%d ms, from %.1f s on", longest.Milliseconds(), at.Seconds())
}

// gap returns the longest time without a reply.
func (s *stream) gap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return longestGap(s.replies)
}

// score returns how many requests were answered, and how many before the latest of those were not.
func (s *stream) score() (answered, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.replies), s.latest - len(s.replies)
}

func (s *stream) stop() {
	s.cmd.Process.Signal(syscall.SIGINT) //nolint:errcheck // it may have ended
	select {
	case <-s.ended:
	case <-time.After(3 * time.Second):
		s.cmd.Process.Kill() //nolint:errcheck // as above
	}
	s.read.Wait()
}
