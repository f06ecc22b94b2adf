package rootless

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Tests of the installed VPP. Their subtests are named vpp, by which the report counts them.

// realVPP returns the vpp that is installed, or skips the test; RLR_REQUIRE_VPP=1 makes that a failure.
func realVPP(t *testing.T) string {
	t.Helper()
	binary := FindVPP()
	if binary == "" {
		if os.Getenv("RLR_REQUIRE_VPP") == "1" {
			t.Fatal("VPP is not installed, and RLR_REQUIRE_VPP=1")
		}
		t.Skip("VPP is not installed")
	}
	return binary
}

// ordinaryUser runs body as an ordinary user without capabilities: at once if this process is one, else in a copy of itself.
func ordinaryUser(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		body(t)
		return
	}
	const nobody = 65534
	// The path of the test binary may be closed to that user, but a process may always execute itself.
	args := []string{"-test.v", "-test.count=1", "-test.run=^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp", "HOME=/", "GORACE=atexit_sleep_ms=0", "VPP_PREFIX="+filepath.Dir(filepath.Dir(FindVPP())))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("as user %d:\n%s", nobody, out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v", nobody, err)
	}
}

func TestStart(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		binary := realVPP(t)
		ordinaryUser(t, func(t *testing.T) { startReal(t, binary) })
	})
}

// startReal starts two routers' VPPs beside each other and looks at what they are and leave.
func startReal(t *testing.T, binary string) {
	dirs := []string{shortDir(t), shortDir(t)}
	var all []*supervised
	for _, dir := range dirs {
		all = append(all, supervise(t, dir, binary, nil))
	}
	for i, s := range all {
		pid := s.await(t, Running).PID
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || exe != binary {
			t.Errorf("it runs %s (%v), want %s", exe, err, binary)
		}
		for _, path := range []string{s.Sockets().API, s.Sockets().Stats, s.Sockets().CLI, filepath.Join(s.Sockets().Apps, "default")} {
			if fi, err := os.Stat(path); err != nil || fi.Mode().Type() != os.ModeSocket {
				t.Errorf("%s is no socket: %v", path, err)
			}
		}
		if n := len(sharedMemory(t, dirs[i])); n == 0 {
			t.Error("no shared memory under its own prefix")
		}
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil || set.Count() != runtime.NumCPU() {
			t.Errorf("it may run on %d cores (%v), want %d", set.Count(), err, runtime.NumCPU())
		}
		st := s.Status()
		t.Logf("VPP %s: %d MiB resident, %d MiB its share", st.Version, st.RSS>>20, st.PSS>>20)
		if st.PSS > 130<<20 {
			t.Errorf("%d MiB of memory, want at most 130", st.PSS>>20)
		}
	}
	for i, s := range all {
		pid := s.Status().PID
		s.stop(t)
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
		if left := sharedMemory(t, dirs[i]); len(left) != 0 {
			t.Errorf("shared memory is left: %v", left)
		}
	}
}

func TestKill(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		binary := realVPP(t)
		ordinaryUser(t, func(t *testing.T) { killReal(t, binary) })
	})
}

// killReal kills a VPP that clients are connected to: the next must come at once, in the same places.
func killReal(t *testing.T, binary string) {
	dir := shortDir(t)
	s := supervise(t, dir, binary, func(c *timing) { c.backoff.early = 0 })
	for range 5 {
		pid := s.await(t, Running).PID
		client, err := net.Dial("unix", s.Sockets().API)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		kill(t, pid)
		st := s.await(t, Running)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("VPP was back after %s, want less than 3 s", took)
		}
		_ = client.Close()
		if st.PID == pid || !gone(pid) {
			t.Errorf("process %d was not replaced", pid)
		}
		s.changes <- st // for the next round
	}
	s.stop(t)
	if left := sharedMemory(t, dir); len(left) != 0 {
		t.Errorf("shared memory is left: %v", left)
	}
}

func TestAdopt(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		binary := realVPP(t)
		ordinaryUser(t, func(t *testing.T) { adoptReal(t, binary) })
	})
}

func adoptReal(t *testing.T, binary string) {
	dir := shortDir(t)
	pid := leave(t, dir, binary)
	s := supervise(t, dir, binary, nil)
	if st := s.await(t, Running); st.PID != pid || !st.Adopted {
		t.Errorf("status %+v; want process %d adopted", st, pid)
	}
	s.stop(t)
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		binary := realVPP(t)
		ordinaryUser(t, func(t *testing.T) {
			s := newSupervised(t, shortDir(t), binary)
			s.settings.Plugins = append(s.settings.Plugins, "{ } nonsense")
			s.run(t)
			st := s.await(t, Waiting)
			contains(t, st.Err, "before it answered", "it said last")
			t.Log(st.Err)
		})
	})
}

func TestInstallation(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		binary := realVPP(t)
		lib, err := FindLibrary(binary)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(lib); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s: %v", lib, err)
		}
		if v := VPPVersion(binary); v == "" {
			t.Error("its release is unknown")
		}
		found, err := availablePlugins(binary)
		if err != nil || len(found) < 2 {
			t.Errorf("plugins %v, %v", found, err)
		}
		h := Probe("/")
		if h.VPP != binary || h.VPPLibrary != lib {
			t.Errorf("probed %+v", h)
		}
		if _, err := h.CheckVPP(0); err != nil {
			t.Errorf("VPP cannot be used here: %v", err)
		}
	})
}
