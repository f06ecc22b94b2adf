package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rlr/internal/ctl"
)

func newPlace(t *testing.T) *place {
	t.Helper()
	base := filepath.Join(shortDir(t), "rlr")
	t.Setenv(ctl.RuntimeEnv, base)
	return &place{scenario: "three-sites", dir: filepath.Join(base, "three-sites-0a1b2c3d")}
}

func (pl *place) again() *place { return &place{scenario: pl.scenario, dir: pl.dir} }

func TestCloneID(t *testing.T) {
	dir := t.TempDir()
	mk := func(path string) string {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		return full
	}
	mk("a/go.mod")
	mk("b/go.mod")
	id := func(path string) string {
		t.Helper()
		s, err := cloneID(path)
		if err != nil || len(s) != 8 {
			t.Fatalf("%q, %v", s, err)
		}
		return s
	}
	one, two := id(mk("a/bin/rlr")), id(mk("a/other/deep/rlr"))
	if one != two {
		t.Error("two binaries of one clone have two IDs")
	}
	if other := id(mk("b/bin/rlr")); other == one {
		t.Error("two clones have one ID")
	}
	link := filepath.Join(dir, "rlr")
	if err := os.Symlink(filepath.Join(dir, "a/bin/rlr"), link); err != nil {
		t.Fatal(err)
	}
	if id(link) != one {
		t.Error("a symlink has another ID")
	}
	if _, err := cloneID(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a binary that is not there has an ID")
	}
}

func TestClaimPlace(t *testing.T) {
	pl := newPlace(t)
	if pl.inUse() {
		t.Error("in use before anything")
	}
	if err := pl.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !pl.inUse() {
		t.Error("not in use")
	}
	says(t, "before its state is known", pl.again().claim(t.Context()), "just starting")
	if err := pl.writeState(state{Mode: modeRun, Owner: process{PID: 42}}); err != nil {
		t.Fatal(err)
	}
	says(t, "second run", pl.again().claim(t.Context()), "runs already, pid 42")
	says(t, "down of a run", pl.again().down(t.Context()), "run by pid 42: interrupt that")
	if err := pl.writeState(state{Mode: modeUp}); err != nil {
		t.Fatal(err)
	}
	says(t, "run of one that is up", pl.again().claim(t.Context()), "rlr lab down three-sites")
	if err := pl.remove(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pl.dir); err == nil || pl.inUse() {
		t.Error("still there")
	}
	says(t, "down of nothing", pl.again().down(t.Context()), "is not up")
}

// sleeper is a process of ours that a killed lab could have left.
func sleeper(t *testing.T) (process, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	p, err := identify("router1", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p, cmd
}

// What a killed lab left is stopped, and nothing else: a pid that somebody else has by now is let be.
func TestStaleLab(t *testing.T) {
	pl := newPlace(t)
	if err := pl.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, _ := sleeper(t)
	other, _ := sleeper(t)
	reused := other
	reused.Start--
	if err := pl.writeState(state{Mode: modeRun, Processes: []process{left, reused}}); err != nil {
		t.Fatal(err)
	}
	pl.lock.Close() // as the kernel does for a killed process
	if err := os.MkdirAll(filepath.Join(pl.dir, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	next := pl.again()
	if err := next.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left.alive() {
		t.Error("a left process still runs")
	}
	if !other.alive() {
		t.Error("a process that is not ours was ended")
	}
	if _, err := os.Stat(filepath.Join(pl.dir, "etc")); err == nil {
		t.Error("old files stayed")
	}
	if err := next.remove(false); err != nil {
		t.Error(err)
	}
}

func TestDownEndsProcesses(t *testing.T) {
	pl := newPlace(t)
	if err := pl.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, _ := sleeper(t)
	if err := pl.writeState(state{Mode: modeUp, Processes: []process{a}}); err != nil {
		t.Fatal(err)
	}
	pl.lock.Close()
	if err := pl.again().down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.alive() {
		t.Error("still running")
	}
	if _, err := os.Stat(pl.dir); err == nil {
		t.Error("the files stayed")
	}
}

// After a failed lab its logs can be read, and its keys are gone.
func TestKeepLogs(t *testing.T) {
	pl := newPlace(t)
	if err := pl.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/router1.yaml", "etc/router1-tun12.key", "log/router1.log", "state.json"} {
		path := filepath.Join(pl.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := pl.remove(true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"etc/router1.yaml": true, "etc/router1-tun12.key": false, "log/router1.log": true, "state.json": false,
	} {
		if _, err := os.Stat(filepath.Join(pl.dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if pl.inUse() {
		t.Error("still in use")
	}
}

func TestEndAllKillsTheStubborn(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.1; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	p, err := identify("stubborn", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	signalAll([]process{p}, syscall.SIGTERM)
	if !p.alive() {
		t.Fatal("it is not stubborn")
	}
	signalAll([]process{p}, syscall.SIGKILL)
	<-done
	if err := waitGone(t.Context(), []process{p}); err != nil || p.alive() {
		t.Errorf("still there: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	line := "4711 (a) b (c) S 1 4711 4710 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 12 0 987654 1000 200 18446744073709551615 1"
	st, err := parseStat(line)
	if err != nil || st.state != 'S' || st.session != 4710 || st.ticks != 300 || st.start != 987654 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2", strings.Replace(line, "987654", "x", 1)} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
	// The session may be 0: its leader is then outside of this PID namespace.
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	own, err := readStat(os.Getpid())
	if err != nil || own.start == 0 || own.session != session {
		t.Errorf("ourselves: %+v, %v, want session %d", own, err, session)
	}
}

func TestParsePrivileges(t *testing.T) {
	p := parsePrivileges([]byte("Name:\tx\nUid:\t1000\t1000\t1000\t1000\nVmRSS:\t   33000 kB\nCapPrm:\t0000000000000000\n" +
		"CapEff:\t000001ffffffffff\nNoNewPrivs:\t1\nempty:\n"))
	want := privileges{uid: 1000, permitted: "0000000000000000", effective: "000001ffffffffff", noNewPrivs: true, rssBytes: 33000 << 10}
	if p != want {
		t.Errorf("%+v", p)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if tail(path, 3) != "" {
		t.Error("a log that is not there")
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("line\n", 5000)+"one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 2); got != "two\nthree" {
		t.Errorf("%q", got)
	}
}

// The tests run this binary again as the child of a lab.
func TestMain(m *testing.M) {
	if os.Getenv("LAB_TEST_CHILD") == "drop" {
		os.Setenv("LAB_TEST_CHILD", "sleep")
		if err := ExecUnprivileged(nil); err != nil {
			os.Stderr.WriteString(err.Error())
		}
		os.Exit(1)
	}
	if os.Getenv("LAB_TEST_CHILD") == "sleep" {
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// A router of a lab has no privilege, also where the lab has all: this is what the check of that name sees.
func TestExecUnprivileged(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func(mode string, shared bool) (*child, error) {
		log := filepath.Join(t.TempDir(), "log")
		c, err := spawn(spawnOptions{name: "router1", binary: exe, env: []string{"LAB_TEST_CHILD=" + mode}, log: log, shared: shared})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Kill(c.pid, syscall.SIGKILL); <-c.done })
		if err := until(t.Context(), time.Minute, func() error {
			if tail(log, 1) == "ready" {
				return nil
			}
			return os.ErrNotExist
		}); err != nil {
			t.Fatalf("the child does not start: %v: %s", err, tail(log, 5))
		}
		return c, judgeProcess(c, ctl.Status{PID: c.pid})
	}
	c, err := start("drop", false)
	says(t, "dropped", err, "")
	if err := judgeProcess(c, ctl.Status{PID: 1}); err == nil {
		t.Error("a router with another pid passes")
	}
	_, err = start("sleep", true)
	says(t, "as it is", err, "not in one of its own")
	if caps, _ := readPrivileges(os.Getpid()); strings.Trim(caps.effective, "0") != "" {
		_, err = start("sleep", false)
		says(t, "with capabilities", err, "has capabilities")
	}
}
