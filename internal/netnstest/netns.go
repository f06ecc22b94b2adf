// Package netnstest runs other routers in network namespaces of a test, for what the loopback cannot show: link-local addresses on an
// interface. The test runs itself again in a namespace of its own, where it is root, and the other program runs in a second one; a
// cable joins them. Programs are those in the path, or where a variable says; one that is not there skips its test.
package netnstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// InNamespace runs the test again in namespaces of its own, and returns false for the outer run. It needs no privilege, but a
// kernel that gives namespaces.
func InNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "RLR_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		Run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=170s")
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

// Users makes users and groups of these names, for daemons that want to become another. It needs setgroups(2), which only root
// may give to a namespace.
func Users(t *testing.T, names ...string) {
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
		var text strings.Builder
		for l := range strings.Lines(string(all)) { // where the programs are installed, there are such users already
			if name, _, _ := strings.Cut(l, ":"); !slices.Contains(names, name) {
				text.WriteString(l)
			}
		}
		for _, n := range names {
			fmt.Fprintf(&text, line, n)
		}
		mine := filepath.Join(dir, file)
		if err := os.WriteFile(mine, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		Run(t, "mount", "--bind", mine, "/etc/"+file)
	}
}

// Run runs a program in the namespace of the test, and returns what it says.
func Run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Program finds one by its variable, its name, or a usual place; else it skips the test.
func Program(t *testing.T, variable, name string, places ...string) string {
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

// Far is the other side: a namespace whose only interface is far0, on a cable to our near0. Ours are fe80::1 and 10.9.0.1, its
// fe80::2 and 10.9.0.2.
type Far struct {
	t   *testing.T
	pid int
	Dir string // for files of programs there
}

// NewFar makes the namespace and the cable.
func NewFar(t *testing.T) *Far {
	t.Helper()
	f := newFar(t)
	Run(t, "ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", fmt.Sprint(f.pid))
	for _, args := range []string{
		"link set near0 addrgenmode none", "link set near0 up", "addr add fe80::1/64 dev near0 nodad", "addr add 10.9.0.1/24 dev near0",
	} {
		Run(t, "ip", strings.Fields(args)...)
	}
	f.up()
	f.Run("ip", "addr", "add", "10.9.0.2/24", "dev", "far0")
	return f
}

// NewFarTap makes the namespace, where far0 has a link-local address alone, and whose cable is in the hands of the test: what it
// reads, a frame at a time, has been sent there, and what it writes arrives there.
func NewFarTap(t *testing.T) (*Far, *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("/dev/net/tun: %v", err)
	}
	request, err := unix.NewIfreq("far0")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		t.Skipf("a tap: %v", err)
	}
	cable := os.NewFile(uintptr(fd), "tap") // not before it is one: until then polling it is an error
	t.Cleanup(func() { cable.Close() })
	f := newFar(t)
	Run(t, "ip", "link", "set", "far0", "netns", fmt.Sprint(f.pid))
	f.up()
	return f, cable
}

func newFar(t *testing.T) *Far {
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
	return &Far{t: t, pid: holder.Process.Pid, Dir: dir}
}

func (f *Far) up() {
	for _, args := range []string{"link set lo up", "link set far0 addrgenmode none", "link set far0 up", "addr add fe80::2/64 dev far0 nodad"} {
		f.Run("ip", strings.Fields(args)...)
	}
}

// Command is a program in the namespace.
func (f *Far) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/proc/" + fmt.Sprint(f.pid) + "/ns/net", "--", name}, args...)...)
}

// Run runs a program to its end.
func (f *Far) Run(name string, args ...string) string {
	f.t.Helper()
	out, err := f.Command(name, args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Start runs a program until the test's end. What it says goes into the test's log when the test fails.
func (f *Far) Start(name string, args ...string) {
	f.t.Helper()
	cmd := f.Command(name, args...)
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

// File writes a file, for programs there, and returns its path.
func (f *Far) File(name, text string) string {
	f.t.Helper()
	p := filepath.Join(f.Dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return p
}
