package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

// What a memory limit makes of a router, with the real program in a real control group. Under the race detector it would take
// several times its memory, so the tests of cmd/rlr could not show this.

// memoryGroup makes a control group with a memory limit, below that of this process, and returns its file of processes. Where
// that is not allowed, the test is skipped.
func memoryGroup(t *testing.T, limit int) (procs string) {
	t.Helper()
	parent, file, err := memoryParent()
	if err != nil {
		t.Skipf("no control group can be made here: %v", err)
	}
	dir := filepath.Join(parent, fmt.Sprintf("rlr-test-%d-%d", os.Getpid(), limit>>20))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control group can be made here: %v", err)
	}
	t.Cleanup(func() {
		gone := func() error { return os.Remove(dir) } // busy until the last process in it is
		if err := until(context.Background(), 20*time.Second, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove the control group: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		t.Skipf("no control group can be limited here: %v", err)
	}
	return filepath.Join(dir, "cgroup.procs")
}

// memoryParent finds where groups can be made below: of version 1 this process's own, of version 2 the outermost, which alone
// may have processes beside groups; and the name of the file with the limit.
func memoryParent() (dir, file string, err error) {
	own, err := os.ReadFile("/proc/self/cgroup") // cgroups(7): hierarchy:controllers:path
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && f[1] == "memory" {
			return filepath.Join("/sys/fs/cgroup/memory", f[2]), "memory.limit_in_bytes", nil
		}
	}
	handed, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control")
	if err != nil {
		return "", "", err
	}
	if !strings.Contains(string(handed), "memory") {
		return "", "", errors.New("the memory controller is not handed to groups")
	}
	return "/sys/fs/cgroup", "memory.max", nil
}

// within prepares a command that enters a control group before it starts.
func (c clone) within(procs string, args ...string) *exec.Cmd {
	cmd := c.command(context.Background(), args...)
	inside := exec.Command("/bin/sh", append([]string{"-c", `echo $$ > "$0" && exec "$@"`, procs, cmd.Path}, args...)...)
	inside.Env = cmd.Env
	return inside
}

// running is a router in the background, stopped with SIGINT at the end of the test: the test's context would end before, and
// kill it, and VPP outlives a router that was killed.
func running(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Error("the router does not stop")
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
}

func (c clone) status(t *testing.T, name string) (ctl.Status, error) {
	t.Helper()
	var st ctl.Status
	out, err := c.command(t.Context(), "-r", name, "show", "status", "--json").Output()
	if err != nil {
		return st, fmt.Errorf("show status of %s: %w", name, err)
	}
	return st, json.Unmarshal(out, &st)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// In 64 MiB there is no room for VPP. Nobody starts it, so that files by the names of an installation are enough.
func TestTooLittleMemoryForVPP(t *testing.T) {
	procs := memoryGroup(t, 64<<20)
	dir := shortDir(t)
	write(t, dir, "bin/vpp", "#!/bin/sh\nexit 1\n")
	write(t, dir, "lib/libvppcom.so", "")
	c := newClone(t, filepath.Join(dir, "r"))
	c.env = append(c.env, "VPP_PREFIX="+dir)
	const missing = "vpp and the router need 176 MiB of memory, and 64 MiB are allowed here (112 MiB too few)"

	out, _ := c.within(procs, "doctor").CombinedOutput() // exits with 1
	for _, want := range []string{"64 MiB", "too little for VPP: the embedded dataplane forwards", "give it at least 176 MiB"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("rlr doctor does not say %q:\n%s", want, out)
		}
	}

	refused := write(t, dir, "refused.yaml", "router: {name: refused, id: 10.0.0.1}\ndataplane: {kind: vpp}\n")
	out, err := c.within(procs, "run", "-c", refused).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), missing) {
		t.Errorf("kind: vpp: %v\n%s", err, out)
	}

	auto := write(t, dir, "auto.yaml", "router: {name: auto, id: 10.0.0.1, as: 65001}\ninterfaces: {dum0: {loopback: true, addresses: [10.0.0.1/32]}}\n")
	running(t, c.within(procs, "run", "-c", auto))
	var st ctl.Status
	if err := until(t.Context(), 30*time.Second, func() error {
		st, err = c.status(t, "auto")
		if err == nil && st.Dataplane.State != "connected" {
			err = errors.New("not connected")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if st.Dataplane.Kind != embedded || !strings.Contains(st.Dataplane.Instead, missing) {
		t.Errorf("%+v", st.Dataplane)
	}
	for _, command := range []string{"status", "log"} {
		if out := c.must(t, "-r", "auto", "show", command); !strings.Contains(out, missing) {
			t.Errorf("show %s does not say why:\n%s", command, out)
		}
	}
	t.Logf("embedded, in 64 MiB: %d MiB resident", st.RSSBytes>>20)
}

// 256 MiB hold a router with VPP and 3,000 routes, which a neighbour outside of the control group announces.
func TestRoutesOnVPPInLittleMemory(t *testing.T) {
	needVPP(t)
	procs := memoryGroup(t, 256<<20)
	const count = 3000
	dir := shortDir(t)
	c := newClone(t, filepath.Join(dir, "r"))
	var prefixes, static []string
	for k := range count {
		p := fmt.Sprintf("10.%d.%d.0/24", 1+k/250, k%250)
		prefixes = append(prefixes, p)
		static = append(static, "  - {prefix: "+p+", blackhole: true}\n")
	}
	router := func(name string, as int, kind, role, own, other string) string {
		return fmt.Sprintf(`router: {name: %s, id: %s, as: %d}
dataplane: {kind: %s}
interfaces:
  eth0: {memif: {socket: lan.sock, role: %s}, addresses: [%s/30]}
bgp:
  originate: [ORIGINATE]
  neighbors: [{name: other, address: %s, as: %d, import: all, export: all}]
`, name, own, as, kind, role, own, other, 65001+65002-as)
	}
	small := router("small", 65001, onVPP, "master", "192.0.2.1", "192.0.2.2")
	large := router("large", 65002, embedded, "slave", "192.0.2.2", "192.0.2.1") + "static:\n" + strings.Join(static, "")
	small = strings.Replace(small, "  originate: [ORIGINATE]\n", "", 1)
	large = strings.Replace(large, "ORIGINATE", strings.Join(prefixes, ", "), 1)
	running(t, c.within(procs, "run", "-c", write(t, dir, "small.yaml", small)))
	running(t, c.command(context.Background(), "run", "-c", write(t, dir, "large.yaml", large)))

	var st ctl.Status
	installed := func() (err error) {
		if st, err = c.status(t, "small"); err != nil {
			return err
		}
		out, err := c.rlr(t, "-r", "small", "show", "route", "protocol", "bgp", "--json")
		if n := strings.Count(out, `"state":"installed"`); err != nil || n != count {
			return fmt.Errorf("%d routes of %d are installed, %w", n, count, err)
		}
		return nil
	}
	if err := until(t.Context(), 2*time.Minute, installed); err != nil {
		t.Fatal(err)
	}
	d := st.Dataplane
	if d.Kind != onVPP || d.Restarts != 0 {
		t.Errorf("%+v", d)
	}
	held := c.must(t, "-r", "small", "vppctl", "show", "ip", "fib", "10.12.249.0/24")
	if !strings.Contains(held, "192.0.2.2") {
		t.Errorf("VPP's last route:\n%s", held)
	}
	used, err := os.ReadFile(filepath.Join(filepath.Dir(procs), "memory.usage_in_bytes"))
	if err != nil {
		used, err = os.ReadFile(filepath.Join(filepath.Dir(procs), "memory.current"))
	}
	bytes, _ := strconv.Atoi(strings.TrimSpace(string(used)))
	t.Logf("256 MiB, %d routes: router %d MiB, VPP %d MiB, control group with helpers and cached files %d MiB (%v)",
		st.Routes, st.RSSBytes>>20, d.PSSBytes>>20, bytes>>20, err)
}
