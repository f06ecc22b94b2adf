package bgp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rlr/hoststack"
)

// This file runs other BGP speakers in network namespaces of the test, for what the loopback cannot show: link-local addresses on
// an interface. The test runs itself again in a namespace of its own, where it is root, and the other program runs in a second
// one; a cable joins them. Programs are those in the path, or where the variable says; one that is not there skips its test.

// inNamespace runs the test again in namespaces of its own, and returns false for the outer run. It needs no privilege, but a
// kernel that gives namespaces.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "RLR_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=90s")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		GidMappingsEnableSetgroups: os.Getuid() == 0,
	}
	cmd.WaitDelay = time.Second // for what outlives the run
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("this host gives no namespaces: %v", err)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip(string(out))
	}
	if err != nil {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// users makes users and groups of these names, for daemons that want to become another. It needs setgroups(2), which only root
// may give to a namespace.
func users(t *testing.T, names ...string) {
	t.Helper()
	if b, _ := os.ReadFile("/proc/self/setgroups"); string(b) != "allow\n" {
		t.Skip("only root can run a daemon here that changes its groups")
	}
	dir := t.TempDir()
	for file, line := range map[string]string{"passwd": "%s:x:0:0::" + dir + ":/bin/sh\n", "group": "%s:x:0:\n"} {
		all, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			all = fmt.Appendf(all, line, n)
		}
		mine := filepath.Join(dir, file)
		if err := os.WriteFile(mine, all, 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, "mount", "--bind", mine, "/etc/"+file)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// program finds one by its variable, its name, or a usual place; else it skips the test.
func program(t *testing.T, variable, name string, places ...string) string {
	t.Helper()
	if p := os.Getenv(variable); p != "" {
		return p
	}
	for _, p := range append([]string{name}, places...) {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skipf("no %s here, and %s does not say where", name, variable)
	return ""
}

// far is the other side: a namespace whose only interface is far0, on a cable to our near0. Ours are fe80::1 and 10.9.0.1, its
// fe80::2 and 10.9.0.2.
type far struct {
	t   *testing.T
	pid int
	dir string
}

func newFar(t *testing.T) *far {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	holder := exec.Command("cat") // it ends with its input
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = holder.Wait()
	})
	f := &far{t: t, pid: holder.Process.Pid, dir: dir}
	run(t, "ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", fmt.Sprint(f.pid))
	for _, args := range [][]string{
		{"link", "set", "near0", "addrgenmode", "none"},
		{"link", "set", "near0", "up"},
		{"addr", "add", "fe80::1/64", "dev", "near0", "nodad"},
		{"addr", "add", "10.9.0.1/24", "dev", "near0"},
	} {
		run(t, "ip", args...)
	}
	for _, args := range []string{
		"link set lo up", "link set far0 addrgenmode none", "link set far0 up", "addr add fe80::2/64 dev far0 nodad", "addr add 10.9.0.2/24 dev far0",
	} {
		f.run("ip", strings.Fields(args)...)
	}
	return f
}

// command is a program in the namespace.
func (f *far) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/proc/" + fmt.Sprint(f.pid) + "/ns/net", "--", name}, args...)...)
}

func (f *far) run(name string, args ...string) string {
	f.t.Helper()
	out, err := f.command(name, args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start runs a program until the test's end. What it says goes into the test's log when the test fails.
func (f *far) start(name string, args ...string) {
	f.t.Helper()
	cmd := f.command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &said, &said, time.Second
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", name, said.String())
		}
	})
}

func (f *far) file(name, text string) string {
	f.t.Helper()
	p := filepath.Join(f.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// nearStack is the kernel's TCP on our side of the cable.
type nearStack struct{}

func (nearStack) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(e.Local)}
	return d.DialContext(ctx, "tcp", e.Remote.String())
}

func (nearStack) Listen(ctx context.Context, _ uint32, local netip.AddrPort) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp6", local.String())
}

// nearRouter speaks with the far side over link-local addresses, and announces 10.1.0.0/24 and fd00:1::/64.
func nearRouter(t *testing.T, change func(*Neighbor)) *testRouter {
	t.Helper()
	n := Neighbor{Name: "far", Address: a("fe80::2%near0"), LocalAddress: a("fe80::1%near0"), AS: 65002, Families: both, HoldTime: 30 * time.Second}
	if change != nil {
		change(&n)
	}
	feed := newRecorder()
	s, err := New(Options{
		Config: Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{n}}, Stack: nearStack{}, Feed: feed, Log: testLog(t, "r1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &testRouter{Speaker: s, t: t, name: "r1", feed: feed}
	start(t, r)
	r.originate("10.1.0.0/24", "fd00:1::/64")
	return r
}
