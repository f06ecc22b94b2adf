package hoststack_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/hoststack"
	"rlr/rootless"
	"rlr/vppagent"
)

// This file has two real VPPs for the tests of VCL, joined by two cables, and each with a router's agent and stack.

// patience bounds every wait of these tests.
const patience = 2 * time.Minute // spent only by a test that fails

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func findVPP(t testing.TB) string {
	t.Helper()
	if prefix := os.Getenv("VPP_PREFIX"); prefix != "" {
		if p := filepath.Join(prefix, "bin", "vpp"); exists(p) {
			return p
		}
	}
	p, err := exec.LookPath("vpp")
	if err != nil {
		if os.Getenv("RLR_REQUIRE_VPP") == "1" {
			t.Fatal("RLR_REQUIRE_VPP=1, and there is no vpp in $VPP_PREFIX/bin or $PATH")
		}
		t.Skip("no vpp installed")
	}
	return p
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// vpp is a VPP process that can be killed and started again.
type vpp struct {
	binary, dir string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	out  *output
}

const startupConf = `unix { nodaemon nosyslog runtime-dir %[1]s cli-listen %[1]s/cli.sock }
socksvr { socket-name %[1]s/api.sock }
statseg { socket-name %[1]s/stats.sock size 32M }
api-segment { prefix %[2]s }
memory { main-heap-size 128M }
buffers { buffers-per-numa 4096 default data-size 2048 page-size 4k }
session { enable use-app-socket-api use-private-rx-mqs }
tcp { closewait-time 60 }
plugins { plugin default { disable } plugin memif_plugin.so { enable } }
`

// nobody owns the VPPs when the tests are run by root.
const nobody = 65534

func newVPP(t testing.TB, binary, dir string) *vpp {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "startup.conf")
	prefix := filepath.Base(filepath.Dir(dir)) + filepath.Base(dir)
	if err := os.WriteFile(conf, fmt.Appendf(nil, startupConf, dir, prefix), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	v := &vpp{binary: binary, dir: dir, out: new(output)}
	v.start(t)
	t.Cleanup(func() {
		v.kill(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("output of the VPP in %s:\n%s", dir, v.out)
		}
	})
	return v
}

func (v *vpp) start(t testing.TB) {
	t.Helper()
	args := []string{v.binary, "-c", filepath.Join(v.dir, "startup.conf")}
	if setpriv, err := exec.LookPath("setpriv"); err == nil && os.Getuid() == 0 {
		args = append([]string{
			setpriv, "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups", "--no-new-privs",
			"--bounding-set=-all", "--inh-caps=-all", "--pdeathsig", "KILL",
		}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = v.out, v.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	v.mu.Lock()
	v.cmd, v.done = cmd, done
	v.mu.Unlock()
	until(t, "VPP's API accepts", func() bool {
		conn, err := net.Dial("unix", filepath.Join(v.dir, "api.sock"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (v *vpp) kill(sig syscall.Signal) {
	v.mu.Lock()
	cmd, done := v.cmd, v.done
	v.mu.Unlock()
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
}

// until polls a condition that nothing tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// vclSite is a VPP with a router's parts.
type vclSite struct {
	vpp   *vpp
	agent *vppagent.Agent
	stack *hoststack.VCL
	stop  func() // of the stack
}

// Addresses of the two sites, a and b. On both cables a is fe80::1 and b is fe80::2.
var (
	a4, b4   = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	a6, b6   = netip.MustParseAddr("fd00:9::1"), netip.MustParseAddr("fd00:9::2")
	aLL, bLL = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	silent4  = netip.MustParseAddr("10.9.0.77") // on the cable, and nobody has it
)

func mac(side, cable byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, side, cable} }

func siteConfig(name string, dir string, side byte) vppagent.Config {
	role, own4, own6, ownLL, peerLL := vppagent.MemifMaster, a4, a6, aLL, bLL
	if side == 2 {
		role, own4, own6, ownLL, peerLL = vppagent.MemifSlave, b4, b6, bLL, aLL
	}
	cfg := vppagent.Config{Router: name}
	for cable := byte(1); cable <= 2; cable++ {
		i := vppagent.Interface{
			Name: fmt.Sprintf("tun%d", cable), MAC: mac(side, cable), MTU: 1500, Enabled: true,
			Memif:     &vppagent.Memif{Socket: filepath.Join(dir, "links", "cable.sock"), ID: uint32(cable), Role: role},
			Addresses: []netip.Prefix{netip.PrefixFrom(ownLL, 64)},
			Neighbors: []vppagent.StaticNeighbor{{Address: peerLL, MAC: mac(3-side, cable)}},
		}
		if cable == 1 {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(own4, 24), netip.PrefixFrom(own6, 64))
		}
		cfg.Interfaces = append(cfg.Interfaces, i)
	}
	return cfg
}

// network starts two sites.
func network(t *testing.T) (a, b *vclSite) {
	t.Helper()
	binary := findVPP(t)
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	links := filepath.Join(dir, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(links, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	a, b = newVCLSite(t, binary, dir, "a", 1), newVCLSite(t, binary, dir, "b", 2)
	for _, s := range []*vclSite{a, b} {
		s.waitUp(t)
	}
	return a, b
}

// waitUp waits until the site's cables are plugged in at both ends.
func (s *vclSite) waitUp(t testing.TB) {
	t.Helper()
	until(t, "the cables are up", func() bool {
		if s.agent.WaitConfigured(soon(t)) != nil {
			return false
		}
		up := 0
		list, _ := s.agent.Interfaces(soon(t))
		for _, i := range list {
			if i.Link {
				up++
			}
		}
		return up >= 2
	})
}

func testLog(t testing.TB, name string) *logrus.Entry {
	log := logrus.New()
	log.SetOutput(t.Output())
	if testing.Verbose() {
		log.SetLevel(logrus.DebugLevel)
	}
	return log.WithField("site", name)
}

func newVCLSite(t *testing.T, binary, dir, name string, side byte) *vclSite {
	t.Helper()
	s := &vclSite{vpp: newVPP(t, binary, filepath.Join(dir, name))}
	log := testLog(t, name)
	s.agent = vppagent.New(vppagent.Options{
		Socket: filepath.Join(s.vpp.dir, "api.sock"), Config: siteConfig(name, dir, side), Log: log,
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
	})
	runUntil(t, s.agent.Run)
	library, err := rootless.FindLibrary(binary)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, name+"-router")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	s.stack, err = hoststack.NewVCL(hoststack.VCLOptions{
		Name: name, Dir: own, Library: library, AppSockets: filepath.Join(s.vpp.dir, "app_ns_sockets"),
		Helper: []string{os.Args[0], "vcl-helper"}, Interfaces: s.agent, Namespaces: s.agent, Addresses: s.agent, Sessions: s.agent, Log: log,
		Version: func() string { return s.agent.Status().Version },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stop = runUntil(t, s.stack.Run)
	return s
}

// runUntil runs something until the test ends or stop is called.
func runUntil(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	}
	t.Cleanup(stop)
	return stop
}
