package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// play is one run of a scenario: its place, its processes, and what came of its checks.
type play struct {
	scenario scenario
	opt      Options
	binary   string
	place    *place
	net      network
	progress *progress
	began    time.Time // when the first router was started

	wg       map[end]wireguard // of the configurations
	procs    []*child
	cancel   context.CancelCauseFunc // ends the story; set before it begins
	stopping chan struct{}
	stopOnce sync.Once
	owned    sync.WaitGroup     // goroutines of this play
	endRelay context.CancelFunc // of the relay in this process
	vpp      string             // the installed VPP; "" without one, or where it is not wanted

	mu        sync.Mutex // guards the results
	results   map[string]Check
	metrics   map[string]float64
	dataplane string
	keep      bool // leave logs behind
}

// relayName is the relay among the processes of a lab that is up.
const relayName = "relay"

func newPlay(ctx context.Context, s scenario, opt Options) (*play, error) {
	if opt.Dataplane == "" {
		opt.Dataplane = "auto"
	}
	if opt.Sabotage != "" && !slices.ContainsFunc(s.checks, func(c CheckInfo) bool { return c.Name == opt.Sabotage }) {
		return nil, fmt.Errorf("lab %s has no check %q", s.name, opt.Sabotage)
	}
	binary, err := opt.binary()
	if err != nil {
		return nil, err
	}
	vpp := ""
	if opt.Dataplane != "embedded" {
		if vpp, err = installedVPP(ctx, binary); err != nil {
			return nil, fmt.Errorf("lab %s: %w", s.name, err)
		}
	}
	if vpp == "" && slices.Contains(s.vppOnly, opt.Sabotage) {
		return nil, fmt.Errorf("lab %s: the check %s, and so its sabotage, needs --dataplane vpp and an installed VPP", s.name, opt.Sabotage)
	}
	pl, err := findPlace(s.name, binary)
	if err != nil {
		return nil, err
	}
	if err := pl.claim(ctx); err != nil {
		return nil, err
	}
	return &play{
		scenario: s, opt: opt, binary: binary, vpp: vpp, place: pl, net: s.network(opt.Sabotage),
		progress: newProgress(opt.Progress), stopping: make(chan struct{}), endRelay: func() {},
		results: make(map[string]Check), metrics: make(map[string]float64),
	}, nil
}

// tunnel is what a tunnel of this play is made of.
type tunnel struct {
	name   string
	ends   [2]end
	listen [2]netip.AddrPort
	relay  *relay
}

// start writes the configurations and starts the relays and every router.
func (p *play) start(mode string) error {
	for _, d := range []string{"etc", "log", "links"} {
		if err := ctl.MakeDir(filepath.Join(p.place.dir, d)); err != nil {
			return err
		}
	}
	names := p.net.links()
	ports, release, err := allocatePorts(2 * len(names))
	if err != nil {
		return err
	}
	defer release()
	var tunnels []tunnel
	for i, name := range names {
		t := tunnel{name: name, listen: [2]netip.AddrPort{ports[2*i], ports[2*i+1]}}
		if t.ends, err = p.net.ends(name); err != nil {
			return err
		}
		sides, err := bindRelay()
		if err != nil {
			return err
		}
		t.relay = newRelay(name, sides, t.listen)
		tunnels = append(tunnels, t)
	}
	if err := p.writeConfigs(tunnels); err != nil {
		return err
	}
	if err := p.startRelays(mode, tunnels); err != nil {
		return err
	}
	release()
	return p.startRouters(mode)
}

// writeConfigs makes keys and writes one YAML file per router.
func (p *play) writeConfigs(tunnels []tunnel) error {
	wg := make(map[end]wireguard)
	etc := filepath.Join(p.place.dir, "etc")
	secret := func(name, value string) error {
		return os.WriteFile(filepath.Join(etc, name), []byte(value+"\n"), 0o600)
	}
	for _, t := range tunnels {
		psk := t.name + "-psk.key"
		if err := secret(psk, newPresharedKey()); err != nil {
			return fmt.Errorf("write key: %w", err)
		}
		var keys [2]keyPair
		for i, e := range t.ends {
			k, err := newKeyPair()
			if err != nil {
				return err
			}
			if err := secret(e.String()+".key", k.private); err != nil {
				return fmt.Errorf("write key: %w", err)
			}
			keys[i] = k
		}
		for i, e := range t.ends {
			wg[e] = wireguard{
				listen: t.listen[i].String(), endpoint: t.relay.endpoint(i).String(), keyFile: e.String() + ".key",
				pskFile: psk, peerKey: keys[1-i].public, keepalive: "25s",
			}
		}
	}
	p.wg = wg
	for name, content := range p.net.files {
		if err := writeFile(p.place.etc(name), []byte(content)); err != nil {
			return err
		}
	}
	for _, n := range p.net.nodes {
		if err := p.writeConfig(n); err != nil {
			return err
		}
	}
	return nil
}

// writeConfig writes a node's YAML file, or replaces it as a whole.
func (p *play) writeConfig(n node) error {
	return writeFile(p.place.config(n.name), n.render(p.opt.Dataplane, p.wg))
}

// writeFile writes a file that routers read, or replaces it as a whole.
func writeFile(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// startRelays carries the tunnels in this process, or for a lab that stays up in one of its own.
func (p *play) startRelays(mode string, tunnels []tunnel) error {
	if mode == modeUp {
		return p.spawnRelay(tunnels)
	}
	rs := &relays{}
	for _, t := range tunnels {
		rs.all = append(rs.all, t.relay)
	}
	ln, err := net.Listen("unix", p.place.relaySocket())
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.endRelay = cancel
	p.owned.Go(func() { rs.run(ctx, ln) })
	return p.writeState(mode)
}

// writeState records the processes that there are.
func (p *play) writeState(mode string) error {
	owner, err := identify("lab", os.Getpid())
	if err != nil {
		return fmt.Errorf("lab: read /proc: %w", err)
	}
	st := state{Mode: mode, Owner: owner}
	for _, c := range p.procs {
		st.Processes = append(st.Processes, c.id)
	}
	return p.place.writeState(st)
}

func (p *play) startRouters(mode string) error {
	p.progress.say("starting %d processes in %s", len(p.net.nodes), p.place.dir)
	p.began = time.Now()
	for _, n := range p.net.nodes {
		c, err := p.startRouter(n)
		if err != nil {
			return err
		}
		p.procs = append(p.procs, c)
		if err := p.writeState(mode); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) startRouter(n node) (*child, error) {
	args := []string{"run", "-c", p.place.config(n.name)}
	if !n.direct {
		args = append([]string{"lab", "exec", "--"}, args...)
	}
	env := p.env()
	if n.breakable && p.vpp != "" {
		prefix, err := newBreakableVPP(p.place.breakable(n.name), p.vpp)
		if err != nil {
			return nil, err
		}
		env = append(env, "VPP_PREFIX="+prefix)
	}
	return spawn(spawnOptions{
		name: n.name, binary: p.binary, args: args, env: env, log: p.place.log(n.name), shared: n.direct,
	})
}

// env makes the lab's directory the runtime directory of a process.
func (p *play) env() []string { return []string{ctl.RuntimeEnv + "=" + p.place.dir} }

// watchProcesses ends the story when a router ends by itself.
func (p *play) watchProcesses(cancel context.CancelCauseFunc) {
	p.cancel = cancel
	for _, c := range p.procs {
		p.watchProcess(c)
	}
}

func (p *play) watchProcess(c *child) {
	p.owned.Go(func() {
		select {
		case <-p.stopping:
		case <-c.done:
			if !c.meant.Load() {
				p.cancel(p.ended(c))
			}
		}
	})
}

// ended says that a process ended which should not have.
func (p *play) ended(c *child) error {
	how := "exit status 0"
	if c.err != nil {
		how = c.err.Error()
	}
	return fmt.Errorf("%s ended by itself (%s):\n%s", c.name, how, tail(p.place.log(c.name), 5))
}

// waitAnswering waits until every router answers.
func (p *play) waitAnswering(ctx context.Context) error {
	for _, n := range p.net.nodes {
		if err := until(ctx, 20*time.Second, func() error {
			for _, c := range p.procs {
				select {
				case <-c.done:
					return final(p.ended(c))
				default:
				}
			}
			var st ctl.Status
			return p.ask(ctx, &st, n.name, "show", "status")
		}); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all processes and the relays. It may be called again.
func (p *play) stop() {
	p.stopOnce.Do(func() {
		close(p.stopping)
		if len(p.procs) > 0 {
			p.progress.say("stopping")
		}
		for _, c := range p.procs {
			syscall.Kill(c.pid, syscall.SIGTERM) //nolint:errcheck // it may have ended by itself; it is not reaped under this pid twice
		}
		late := time.NewTimer(stopTimeout)
		defer late.Stop()
		killed := false
		for _, c := range p.procs {
			for waiting := true; waiting; {
				select {
				case <-c.done:
					waiting = false
				case <-late.C:
					killed = true
					p.killRest()
				}
			}
		}
		if killed {
			p.progress.say("some processes did not stop within %s and were killed", stopTimeout)
		}
		if err := endLeftVPPs(context.Background(), p.place.dir); err != nil {
			p.progress.say("%v", err)
		}
		p.endRelay()
		p.owned.Wait()
	})
}

func (p *play) killRest() {
	for _, c := range p.procs {
		if c.id.alive() {
			syscall.Kill(c.pid, syscall.SIGKILL) //nolint:errcheck // it may end this very moment
		}
	}
}

// cleanUp ends whatever there is and gives the place back.
func (p *play) cleanUp() {
	p.stop()
	p.progress.close()
	if err := p.place.remove(p.keep); err != nil {
		p.progress.say("clean up: %v", err)
	}
}

// release forgets the processes: the lab stays up. The relay holds the place's lock from here on.
func (p *play) release() { p.place.lock.Close() }

// commandTimeout bounds one command of a check.
const commandTimeout = 15 * time.Second

// command prepares a command line that asks a router of this lab.
func (p *play) command(ctx context.Context, router string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.binary, append([]string{"--json", "-r", router}, args...)...)
	cmd.Env = append(os.Environ(), p.env()...)
	cmd.WaitDelay = time.Second
	return cmd
}

// rlr runs a command line against a router and returns what it printed, also when it failed.
func (p *play) rlr(ctx context.Context, router string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := p.command(ctx, router, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if msg := strings.TrimSpace(errOut.String()); msg != "" {
			err = errors.New(strings.TrimPrefix(msg, "rlr: "))
		}
		return out.Bytes(), fmt.Errorf("%s: %s: %w", router, strings.Join(args, " "), err)
	}
	return out.Bytes(), nil
}

// ask runs a command line and decodes its JSON.
func (p *play) ask(ctx context.Context, into any, router string, args ...string) error {
	out, err := p.rlr(ctx, router, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s: %s: %w", router, strings.Join(args, " "), err)
	}
	return nil
}

// check runs one check and records what came of it.
func (p *play) check(ctx context.Context, name string, f func(ctx context.Context) (detail string, err error)) bool {
	end := p.progress.begin(name)
	detail, err := f(ctx)
	if err != nil {
		detail = err.Error()
	}
	c := Check{Name: name, OK: err == nil, Detail: detail}
	if ctx.Err() != nil && err != nil {
		end("") // the end of the story is the reason, which is told once
		return false
	}
	p.mu.Lock()
	p.results[name] = c
	p.mu.Unlock()
	end(p.progress.verdict(c))
	return c.OK
}

// skip records that a check has nothing to check on this dataplane.
func (p *play) skip(name, why string) {
	c := Check{Name: name, OK: true, Skipped: true, Detail: "skipped: " + why}
	p.mu.Lock()
	p.results[name] = c
	p.mu.Unlock()
	p.progress.say("%s", p.progress.verdict(c))
}

// metric records a number of the result; metricTexts has its name.
func (p *play) metric(name string, value float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.metrics[name] = value
}

// finishChecks records why checks were not reached.
func (p *play) finishChecks(err, cause error) {
	if cause != nil {
		err = cause
	}
	if err == nil {
		err = errors.New("the story left it out")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.scenario.checks {
		if _, ok := p.results[c.Name]; !ok {
			p.results[c.Name] = Check{Name: c.Name, Detail: "not reached: " + err.Error()}
		}
	}
}

func (p *play) result() Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Result{Scenario: p.scenario.name, Dataplane: p.dataplane, OK: true, Metrics: p.metrics}
	if r.Dataplane == "" {
		r.Dataplane = p.opt.Dataplane // no router told
	}
	for _, c := range p.scenario.checks {
		got := p.results[c.Name]
		r.OK = r.OK && got.OK
		r.Checks = append(r.Checks, got)
	}
	return r
}

// finalError ends until at once.
type finalError struct{ error }

func final(err error) error { return finalError{err} }

// until calls f until it succeeds, for at most limit, and returns its last error.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		var last finalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &last):
			return last.error
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return fmt.Errorf("after %s: %w", limit, err)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// pollEvery is how often a check looks again: often enough for a second's accuracy, seldom enough for two cores.
const pollEvery = 200 * time.Millisecond

// together runs functions at the same time and waits for all.
func together(fs ...func()) {
	var wg sync.WaitGroup
	for _, f := range fs {
		wg.Go(f)
	}
	wg.Wait()
}
