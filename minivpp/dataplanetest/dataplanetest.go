// Package dataplanetest starts dataplanes for tests: minivpp always, and a real VPP where one is installed, so that the
// same test runs on both.
//
// VPP is looked for in $VPP_PREFIX/bin, then in $PATH. A test that cannot have it is skipped for VPP, or fails when
// RLR_REQUIRE_VPP=1. It runs unprivileged, with the few plugins that the router needs.
package dataplanetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/minivpp"
)

// Kind tells the dataplanes apart.
type Kind string

// Kinds.
const (
	Embedded Kind = "embedded"
	VPP      Kind = "vpp"
)

// Dataplane is a running dataplane with nothing configured.
type Dataplane struct {
	Kind        Kind
	Dir         string // short, for sockets of the test's own; relative memif sockets are here too
	APISocket   string
	StatsSocket string
	CLISocket   string
	Embedded    *minivpp.Server // nil for VPP
}

// startTimeout bounds how long a dataplane may take until its API accepts.
const startTimeout = 20 * time.Second

// Each runs a test on every kind of dataplane, each time on a fresh one.
func Each(t *testing.T, test func(t *testing.T, d *Dataplane)) {
	t.Helper()
	for _, kind := range []Kind{Embedded, VPP} {
		t.Run(string(kind), func(t *testing.T) { test(t, Start(t, kind)) })
	}
}

// Memory is what a VPP gets, in MiB. The embedded dataplane takes what it needs.
type Memory struct{ Heap, Stats int }

// Start starts a dataplane that is stopped when the test ends. It skips or fails the test when there is no VPP.
func Start(t testing.TB, kind Kind) *Dataplane {
	t.Helper()
	return startWith(t, kind, Memory{Heap: 128, Stats: 32}, aclPlugin)
}

// StartWith is Start for a test that needs much memory, or little. Its VPP has no plugin besides those of links and pings: each has
// counters in the statistics segment, and for how many routes there is room beside them is what such tests measure.
func StartWith(t testing.TB, kind Kind, m Memory) *Dataplane {
	t.Helper()
	return startWith(t, kind, m, "")
}

func startWith(t testing.TB, kind Kind, m Memory, more string) *Dataplane {
	t.Helper()
	binary := ""
	if kind == VPP {
		if binary = find(); binary == "" {
			if os.Getenv("RLR_REQUIRE_VPP") == "1" {
				t.Fatal("RLR_REQUIRE_VPP=1, and there is no vpp in $VPP_PREFIX/bin or $PATH")
			}
			t.Skip("no vpp installed")
		}
	}
	// t.TempDir is too long for unix sockets.
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &Dataplane{
		Kind: kind, Dir: dir, APISocket: filepath.Join(dir, "api.sock"),
		StatsSocket: filepath.Join(dir, "stats.sock"), CLISocket: filepath.Join(dir, "cli.sock"),
	}
	if kind == VPP {
		d.startVPP(t, binary, m, more)
	} else {
		d.startEmbedded(t)
	}
	return d
}

func find() string {
	if prefix := os.Getenv("VPP_PREFIX"); prefix != "" {
		binary := filepath.Join(prefix, "bin", "vpp")
		if _, err := os.Stat(binary); err == nil {
			return binary
		}
	}
	binary, err := exec.LookPath("vpp")
	if err != nil {
		return ""
	}
	return binary
}

func (d *Dataplane) startEmbedded(t testing.TB) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	if testing.Verbose() {
		log.SetOutput(t.Output())
		log.SetLevel(logrus.DebugLevel)
	}
	s, err := minivpp.New(minivpp.Config{
		APISocket: d.APISocket, StatsSocket: d.StatsSocket, CLISocket: d.CLISocket, RuntimeDir: d.Dir,
		Version: "test", Log: logrus.NewEntry(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("minivpp: %v", err)
			}
		case <-time.After(startTimeout):
			t.Error("minivpp does not stop")
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- err
		t.Fatalf("minivpp: %v", err)
	case <-time.After(startTimeout):
		t.Fatal("minivpp is not ready in time")
	}
	d.Embedded = s
}

// config is a VPP for tests: small, without DPDK, huge pages or privileges.
const config = `unix { nodaemon nosyslog runtime-dir %[1]s cli-listen %[1]s/cli.sock }
socksvr { socket-name %[1]s/api.sock }
statseg { socket-name %[1]s/stats.sock size %[4]dM }
api-segment { prefix %[2]s }
memory { main-heap-size %[3]dM }
buffers { buffers-per-numa 4096 default data-size 2048 page-size 4k }
session { enable use-app-socket-api use-private-rx-mqs }
plugins { plugin default { disable } plugin memif_plugin.so { enable } plugin ping_plugin.so { enable } }
`

// aclPlugin loads the plugins of packet filters and guards, with a table of flows that fits into a small heap.
const aclPlugin = `plugins { plugin acl_plugin.so { enable } plugin mss_clamp_plugin.so { enable } plugin urpf_plugin.so { enable } }
acl-plugin { connection count max 16384 connection hash buckets 4096 }
`

func (d *Dataplane) startVPP(t testing.TB, binary string, m Memory, more string) {
	path := filepath.Join(d.Dir, "startup.conf")
	text := fmt.Sprintf(config, d.Dir, filepath.Base(d.Dir), m.Heap, m.Stats) + more
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var output buffer
	cmd := exec.Command(binary, "-c", path)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(startTimeout):
			_ = cmd.Process.Kill()
			<-done
			t.Error("VPP did not stop")
		}
		if t.Failed() {
			t.Logf("VPP's output:\n%s", output.String())
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(startTimeout)
	for {
		if conn, err := net.Dial("unix", d.APISocket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-done:
			t.Fatalf("VPP ended at once:\n%s", output.String())
		case <-deadline:
			t.Fatalf("VPP's API does not accept:\n%s", output.String())
		}
	}
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
