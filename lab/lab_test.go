package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rlr/internal/ctl"
)

// These tests play labs with the real program. RLR_LONG=1 also proves every sabotage, which takes minutes.

// built is the directory of the program, which TestMain removes.
var built string

// program builds rlr once for all tests.
var program = sync.OnceValues(func() (string, error) {
	var err error
	if built, err = os.MkdirTemp("", "rlr"); err != nil {
		return "", err
	}
	bin := filepath.Join(built, "rlr")
	cmd := exec.Command("go", "build", "-o", bin, "rlr/cmd/rlr")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build rlr: %w\n%s", err, out)
	}
	return bin, nil
})

// clone is a copy of the program with its own identity, as in a clone of the repository of its own, and with a runtime
// directory that clones share.
type clone struct {
	bin, runtime string
	env          []string
}

func newClone(t *testing.T, runtime string) clone {
	t.Helper()
	if testing.Short() {
		t.Skip("plays a lab")
	}
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	if err := os.Link(bin, filepath.Join(dir, "rlr")); err != nil {
		t.Fatal(err)
	}
	return clone{bin: filepath.Join(dir, "rlr"), runtime: runtime}
}

// command prepares a command line of this clone.
func (c clone) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.bin, args...)
	cmd.Env = append(append(os.Environ(), ctl.RuntimeEnv+"="+c.runtime), c.env...)
	return cmd
}

// played is what `rlr lab run --json` did.
type played struct {
	result Result
	code   int
	stderr string
	took   time.Duration
}

// playLimit is for the longest labs, survival and restart on VPP, on a busy machine.
const playLimit = 8 * time.Minute

func (c clone) play(t *testing.T, args ...string) played {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), playLimit)
	defer cancel()
	cmd := c.command(ctx, append([]string{"lab", "run", "--json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	began := time.Now()
	err := cmd.Run()
	p := played{code: cmd.ProcessState.ExitCode(), stderr: errOut.String(), took: time.Since(began)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &p.result); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), p.stderr)
	}
	return p
}

// nothingLeft checks that a lab has gone without a trace.
func nothingLeft(t *testing.T, runtime string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(runtime, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func wantPassed(t *testing.T, p played, limit time.Duration) {
	t.Helper()
	if !p.result.OK || p.code != 0 {
		t.Errorf("exit %d\n%s", p.code, p.stderr)
	}
	for _, c := range p.result.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	if p.took > limit {
		t.Errorf("it took %s", p.took)
	}
}

const (
	embedded = "embedded"
	onlyLong = "takes minutes: RLR_LONG=1, or make test-long"
)

// needVPP skips the test where no VPP is installed; RLR_REQUIRE_VPP=1 makes that a failure.
func needVPP(t *testing.T) {
	t.Helper()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	vpp, err := installedVPP(t.Context(), bin)
	switch {
	case err != nil:
		t.Fatal(err)
	case vpp == "" && os.Getenv("RLR_REQUIRE_VPP") == "1":
		t.Fatal("RLR_REQUIRE_VPP=1, and no VPP is installed")
	case vpp == "":
		t.Skip("no VPP is installed")
	}
}

// eachDataplane runs a test on both dataplanes, in subtests that are named after them.
func eachDataplane(t *testing.T, f func(t *testing.T, kind string)) {
	t.Helper()
	if testing.Short() {
		t.Skip("plays a lab")
	}
	t.Run(embedded, func(t *testing.T) { f(t, embedded) })
	t.Run(onVPP, func(t *testing.T) {
		needVPP(t)
		f(t, onVPP)
	})
}

func needLong(t *testing.T) {
	t.Helper()
	if os.Getenv("RLR_LONG") == "" {
		t.Skip(onlyLong)
	}
}

func wantDataplane(t *testing.T, p played, kind string) {
	t.Helper()
	if p.result.Dataplane != kind {
		t.Errorf("it ran on %s instead of %s", p.result.Dataplane, kind)
	}
}

// Two labs at once, in two clones, and the same one again.
func TestThreeSites(t *testing.T) {
	eachDataplane(t, func(t *testing.T, kind string) {
		limit := time.Minute
		if kind == onVPP {
			needLong(t)
			limit *= 2
		}
		runtime := filepath.Join(shortDir(t), "rlr")
		one, two := newClone(t, runtime), newClone(t, runtime)
		var first, second played
		together(
			func() { first = one.play(t, "three-sites", "--dataplane", kind) },
			func() { second = two.play(t, "three-sites", "--dataplane", kind) },
		)
		for _, p := range []played{first, second} {
			wantPassed(t, p, limit)
			wantDataplane(t, p, kind)
		}
		wantMetrics(t, first, "converge_ms", "outage_ms", "failover_ms", "heal_ms", "rss_bytes", "cpu_percent")
		if kind == onVPP {
			wantMetrics(t, first, vppMetrics...)
		}
		nothingLeft(t, runtime)
	})
}

var vppMetrics = []string{
	"vpp_cpu_percent", "vpp_pss_bytes", "helpers_cpu_percent", "helpers_pss_bytes", "total_cpu_percent", "total_pss_bytes",
}

func wantMetrics(t *testing.T, p played, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, ok := p.result.Metrics[name]; !ok {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestLinkLocal(t *testing.T) {
	eachDataplane(t, func(t *testing.T, kind string) {
		runtime := filepath.Join(shortDir(t), "rlr")
		c := newClone(t, runtime)
		for range 2 { // twice in a row
			p := c.play(t, "link-local", "--dataplane", kind)
			wantPassed(t, p, 30*time.Second)
			wantDataplane(t, p, kind)
			nothingLeft(t, runtime)
		}
	})
}

func TestACL(t *testing.T)      { passes(t, "acl") }
func TestDN42(t *testing.T)     { passes(t, "dn42") }
func TestECMP(t *testing.T)     { passes(t, "ecmp") }
func TestServices(t *testing.T) { passes(t, "services") }

func TestBFD(t *testing.T) {
	needLong(t) // other tests beside it stall what answers within 150 ms
	passes(t, "bfd")
}

func passes(t *testing.T, scenario string) {
	eachDataplane(t, func(t *testing.T, kind string) {
		runtime := filepath.Join(shortDir(t), "rlr")
		p := newClone(t, runtime).play(t, scenario, "--dataplane", kind)
		wantPassed(t, p, 60*time.Second)
		wantDataplane(t, p, kind)
		nothingLeft(t, runtime)
	})
}

func TestSurvival(t *testing.T) {
	needLong(t)
	eachDataplane(t, func(t *testing.T, kind string) {
		runtime := filepath.Join(shortDir(t), "rlr")
		p := newClone(t, runtime).play(t, "survival", "--dataplane", kind)
		wantPassed(t, p, playLimit)
		wantDataplane(t, p, kind)
		wantMetrics(t, p, "reconnect_median_ms", "reconnect_worst_ms")
		for _, c := range p.result.Checks {
			t.Logf("%s: %s", c.Name, c.Detail)
			if only := slices.Contains(survival().vppOnly, c.Name); c.Skipped != (only && kind == embedded) {
				t.Errorf("%s on %s: skipped %v", c.Name, kind, c.Skipped)
			}
		}
		if kind == onVPP {
			wantMetrics(t, p, vppMetrics...)
			wantMetrics(t, p, "helper_back_ms", "vpp_back_worst_ms", "sessions_back_worst_ms", "ping_back_worst_ms", "vpp_starts")
		}
		nothingLeft(t, runtime)
	})
}

// With VPP asked for there is no fallback to the embedded dataplane.
func TestNoFallback(t *testing.T) {
	runtime := filepath.Join(shortDir(t), "rlr")
	c := newClone(t, runtime)
	c.env = append(c.env, "VPP_PREFIX="+shortDir(t)) // a prefix without a vpp means none
	doctor, _ := c.rlr(t, "doctor", "--json")        // exits with 1 where the host lacks something
	if vpp, err := vppOfDoctor([]byte(doctor)); err != nil || vpp != "" {
		t.Skipf("VPP is installed in a usual place: %s, %v", vpp, err)
	}
	p := c.play(t, "link-local", "--dataplane", "vpp")
	if p.result.OK || p.code != 1 {
		t.Errorf("exit %d: %+v", p.code, p.result)
	}
	for _, c := range p.result.Checks {
		if c.OK {
			t.Errorf("%s passed: %s", c.Name, c.Detail)
		}
	}
}

// What VPP alone can do is not sabotaged elsewhere: a skipped check could not fail.
func TestSabotageNeedsVPP(t *testing.T) {
	c := newClone(t, filepath.Join(shortDir(t), "rlr"))
	out, err := c.rlr(t, "lab", "run", "survival", "--dataplane", embedded, "--sabotage", "vpp-killed")
	if err == nil || !strings.Contains(out, "needs --dataplane vpp and an installed VPP") {
		t.Errorf("%v %s", err, out)
	}
}

// rlr runs a command line of the clone and returns its output.
func (c clone) rlr(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := c.command(t.Context(), args...).CombinedOutput()
	return string(out), err
}

func (c clone) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.rlr(t, args...)
	if err != nil {
		t.Fatalf("rlr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// A lab to play with: up, used by hand, refused a second time, cut, healed, down.
func TestUpAndDown(t *testing.T) { eachDataplane(t, testUpAndDown) }

func testUpAndDown(t *testing.T, kind string) {
	runtime := filepath.Join(shortDir(t), "rlr")
	c := newClone(t, runtime)
	t.Cleanup(func() { c.command(context.Background(), "lab", "down", "link-local").Run() })
	c.must(t, "lab", "up", "link-local", "--dataplane", kind)
	if out := c.must(t, "lab", "list", "--json"); !strings.Contains(out, `"running":true`) {
		t.Errorf("list: %s", out)
	}
	out, err := c.rlr(t, "lab", "up", "link-local")
	if err == nil || !strings.Contains(out, "rlr lab down link-local") {
		t.Errorf("up again: %v %s", err, out)
	}
	out, err = c.rlr(t, "lab", "run", "link-local")
	if err == nil || !strings.Contains(out, "is up already") {
		t.Errorf("run of one that is up: %v %s", err, out)
	}
	ping := func() error {
		out, err := c.rlr(t, "-r", "router1", "ping", loop4(2), "-c", "1", "-S", loop4(1))
		if err != nil {
			return errors.New(out)
		}
		return nil
	}
	if err := until(t.Context(), 20*time.Second, ping); err != nil {
		t.Fatal(err)
	}
	c.must(t, "lab", "cut", "link-local", "tun12")
	if ping() == nil {
		t.Error("a cut tunnel carries a ping")
	}
	if out, err := c.rlr(t, "lab", "cut", "link-local", "tun77"); err == nil || !strings.Contains(out, "tun12, tun13") {
		t.Errorf("cut of no link: %v %s", err, out)
	}
	c.must(t, "lab", "heal", "link-local", "tun12")
	if err := until(t.Context(), 20*time.Second, ping); err != nil {
		t.Error(err)
	}
	c.must(t, "lab", "down", "link-local")
	nothingLeft(t, runtime)
	if out, err := c.rlr(t, "lab", "down", "link-local"); err == nil || !strings.Contains(out, "is not up") {
		t.Errorf("down again: %v %s", err, out)
	}
}

// waitFor reads a stream until it holds text.
type waitFor struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen chan struct{}
	once sync.Once
}

func (w *waitFor) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(b)
	if strings.Contains(w.buf.String(), w.text) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(b), nil
}

// Interrupted, a lab stops and removes everything; killed, the next one does it for it.
func TestInterruptAndKill(t *testing.T) { eachDataplane(t, testInterruptAndKill) }

func testInterruptAndKill(t *testing.T, kind string) {
	runtime := filepath.Join(shortDir(t), "rlr")
	c := newClone(t, runtime)
	start := func() (*exec.Cmd, []process) {
		w := &waitFor{text: "cutting tun12", seen: make(chan struct{})}
		cmd := c.command(t.Context(), "lab", "run", "three-sites", "--dataplane", kind)
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.seen:
		case <-time.After(time.Minute):
			t.Fatalf("the lab does not come to its cut: %s", w.buf.String())
		}
		dirs, err := filepath.Glob(filepath.Join(runtime, "three-sites-*"))
		if err != nil || len(dirs) != 1 {
			t.Fatalf("%v, %v", dirs, err)
		}
		pl := &place{scenario: "three-sites", dir: dirs[0]}
		st, err := pl.readState()
		if err != nil || len(st.Processes) != 6 {
			t.Fatalf("%+v, %v", st, err)
		}
		return cmd, st.Processes
	}
	allGone := func(procs []process) {
		t.Helper()
		for _, p := range procs {
			if p.alive() {
				t.Errorf("%s (pid %d) still runs", p.Name, p.PID)
			}
		}
		if left, err := leftVPPs(runtime); err != nil || len(left) > 0 {
			t.Errorf("VPPs still run: %v, %v", left, err)
		}
	}
	cmd, procs := start()
	if out, err := c.rlr(t, "lab", "run", "three-sites"); err == nil || !strings.Contains(out, "runs already, pid") {
		t.Errorf("a second run: %v %s", err, out)
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("interrupted: %v", err)
	}
	allGone(procs)
	nothingLeft(t, runtime)

	cmd, procs = start()
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	for _, p := range procs {
		if !p.alive() {
			t.Errorf("%s is gone already", p.Name)
		}
	}
	c.must(t, "lab", "down", "three-sites")
	allGone(procs)
	nothingLeft(t, runtime)
}

// Every sabotage makes exactly its check fail.
func TestSabotage(t *testing.T) {
	needLong(t)
	eachDataplane(t, func(t *testing.T, kind string) {
		// Labs mostly wait for timers, so a few more than there are cores play at once. Those on VPP measure seconds and a few
		// per cent of a core, and have the machine to themselves.
		slots := make(chan struct{}, 4)
		if kind == onVPP {
			slots = make(chan struct{}, 1)
		}
		runtime := filepath.Join(shortDir(t), "rlr")
		var wg sync.WaitGroup
		var alone []func()
		for _, s := range scenarios() {
			for _, check := range s.checks {
				if kind == embedded && slices.Contains(s.vppOnly, check.Name) {
					continue // refused: TestNoFallback
				}
				prove := func() {
					t.Run(s.name+"/"+check.Name, func(t *testing.T) {
						proveSabotage(t, newClone(t, runtime), kind, s.name, check.Name)
					})
				}
				if s.timed {
					alone = append(alone, prove)
					continue
				}
				wg.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					prove()
				})
			}
		}
		wg.Wait()
		for _, prove := range alone {
			prove()
		}
	})
}

func proveSabotage(t *testing.T, c clone, kind, scenario, check string) {
	p := c.play(t, scenario, "--dataplane", kind, "--sabotage", check)
	if p.code != 1 || p.result.OK {
		t.Errorf("%s sabotaged %s: exit %d", scenario, check, p.code)
	}
	for _, got := range p.result.Checks {
		switch {
		case got.Name == check && got.OK:
			t.Errorf("%s sabotaged %s: it passes all the same: %s", scenario, check, got.Detail)
		case got.Name == check:
			t.Logf("%s sabotaged %s (%.0f s): %s", scenario, check, p.took.Seconds(), got.Detail)
		case !got.OK:
			t.Errorf("%s sabotaged %s: %s fails too: %s", scenario, check, got.Name, got.Detail)
		}
	}
}
