package hoststack_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rlr/hoststack"
)

// Tests of what outlives what: helpers, VPP, listeners.

// wantReset reads until the connection ends, which must not look like a peer's goodbye.
func wantReset(t *testing.T, what string, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 1000)
	for {
		if _, err := c.Read(buf); err != nil {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
	}
}

// wantEnd reads until the connection ends in any way.
func wantEnd(t *testing.T, what string, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 1000)
	for {
		if _, err := c.Read(buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s does not end", what)
			}
			return
		}
	}
}

// reconnect dials a listener of another site until it succeeds, as a BGP speaker does. Attempts that were given up may still
// reach the listener, when VPP repeats their SYN.
func reconnect(t *testing.T, s *vclSite, l net.Listener, e hoststack.Endpoints) (client, server net.Conn) {
	t.Helper()
	until(t, "dial succeeds", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		client, err = s.stack.Dial(ctx, e)
		return err == nil
	})
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(patience))
	for {
		server = accept(t, l)
		if server.RemoteAddr().String() == client.LocalAddr().String() {
			return client, server
		}
		server.Close()
	}
}

func (s *vclSite) pid(t *testing.T, namespace string) int {
	t.Helper()
	for _, h := range s.stack.Helpers() {
		if h.Namespace == namespace && h.PID != 0 {
			return h.PID
		}
	}
	t.Fatalf("no helper in %s: %+v", namespace, s.stack.Helpers())
	return 0
}

func linkLocal(ifname string, port uint16) hoststack.Endpoints {
	return hoststack.Endpoints{Interface: ifname, Remote: netip.AddrPortFrom(bLL, port)}
}

func TestVCLHelperKilled(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		a, b := network(t)
		l4, l6 := b.listen(t, any4, 179), b.listen(t, any6, 179)
		x4, y4 := pair(t, a, b, l4, to(b4, 179))
		x6, y6 := pair(t, a, b, l6, linkLocal("tun2", 179))

		kill(t, a.pid(t, "a-0-if"))
		wantReset(t, "the end of the killed helper", x6)
		wantEnd(t, "the other end", y6)
		exchange(t, x4, y4, 100_000) // not concerned
		x6, y6 = reconnect(t, a, l6, linkLocal("tun2", 179))

		x4, y4 = reconnect(t, a, l4, to(b4, 179))
		kill(t, b.pid(t, "default")) // the one that listens
		wantReset(t, "the end of the killed helper", y4)
		wantReset(t, "the end of the killed helper", y6)
		wantEnd(t, "the other end", x4)
		wantEnd(t, "the other end", x6)
		x4, y4 = reconnect(t, a, l4, to(b4, 179))
		exchange(t, x4, y4, 100_000)
		x6, y6 = reconnect(t, a, l6, linkLocal("tun1", 179))
		exchange(t, x6, y6, 100_000)
		for range 3 { // and while nobody looks
			pid := a.pid(t, "default")
			kill(t, pid)
			until(t, "there is a helper again", func() bool {
				now := a.pids()
				return len(now) == 2 && !slices.Contains(now, pid)
			})
		}
		x4, y4 = reconnect(t, a, l4, to(b4, 179))
		exchange(t, x4, y4, 100_000)
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the helper is gone", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestVCLDataplaneKilled(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		a, b := network(t)
		l4, l6 := b.listen(t, any4, 179), b.listen(t, any6, 179)
		for range 3 {
			x4, y4 := reconnect(t, a, l4, to(b4, 179))
			x6, y6 := reconnect(t, a, l6, linkLocal("tun2", 179))
			exchange(t, x6, y6, 1000)
			x6, y6 = reconnect(t, a, l6, linkLocal("tun2", 179))

			b.vpp.kill(syscall.SIGKILL)
			began := time.Now()
			wantReset(t, "a connection of the killed VPP", y4)
			wantReset(t, "a connection of the killed VPP", y6)
			if d := time.Since(began); d > 2*time.Second {
				t.Errorf("connections ended after %s", d)
			}
			if _, err := b.stack.Dial(soon(t), to(a4, 179)); err == nil {
				t.Error("dialed without VPP")
			}
			b.vpp.start(t)
			b.waitUp(t)
			began = time.Now()
			n4, m4 := reconnect(t, a, l4, to(b4, 179))
			t.Logf("the listener accepts %s after the cables are up", time.Since(began))
			exchange(t, n4, m4, 100_000)
			n6, m6 := reconnect(t, a, l6, linkLocal("tun1", 179))
			exchange(t, n6, m6, 100_000)
			// The other VPP still holds what it had with the one before: the new one answers with resets.
			for _, c := range []net.Conn{x4, x6} {
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := c.Write([]byte("anybody there?")); err != nil {
					t.Error(err)
				}
				wantReset(t, "a connection with the VPP before", c)
			}
		}
	})
}

func TestVCLBeforeVPP(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		a, _ := network(t)
		a.vpp.kill(syscall.SIGTERM)
		until(t, "it is known that VPP is away", func() bool {
			_, err := a.stack.Listen(soon(t), 0, netip.AddrPortFrom(any4, 179))
			return errors.Is(err, hoststack.ErrNoHelper) && strings.Contains(err.Error(), filepath.Join(a.vpp.dir, "app_ns_sockets", "default"))
		})
		a.vpp.start(t)
		until(t, "Listen succeeds", func() bool {
			l, err := a.stack.Listen(soon(t), 0, netip.AddrPortFrom(any4, 179))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err == nil
		})
		a.waitUp(t) // vppagent may be later than the helper
		text, err := a.agent.CLI(soon(t), "show session verbose 1")
		if err != nil || !strings.Contains(text, "0.0.0.0:179->0.0.0.0:0") {
			t.Errorf("%v: VPP has\n%s", err, text)
		}
	})
}

// TestVCLStop ends Run: listeners and connections end, what was written arrives, and VPP is as before.
func TestVCLStop(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		a, b := network(t)
		l := a.listen(t, any6, 179)
		x, y := pair(t, a, b, b.listen(t, any6, 179), linkLocal("tun1", 179))
		if _, err := x.Write([]byte("goodbye")); err != nil {
			t.Fatal(err)
		}
		x.Close()
		pids := a.pids()
		began := time.Now()
		a.stop()
		t.Logf("stopped in %s", time.Since(began))
		if got, err := sum(y); err != nil || !strings.HasPrefix(got, "7 bytes") {
			t.Errorf("got %s, %v", got, err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				t.Errorf("helper %d is still there", pid)
			}
		}
		if _, err := a.stack.Dial(soon(t), to(b4, 179)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		until(t, "VPP has forgotten namespace and applications", func() bool {
			spaces, err1 := a.agent.CLI(soon(t), "show app ns")
			apps, err2 := a.agent.CLI(soon(t), "show app")
			return err1 == nil && err2 == nil && !strings.Contains(spaces, "a-0") && !strings.Contains(apps, "rlr")
		})
	})
}

// absent is a dataplane that nobody can ask.
type absent struct{}

func (absent) InterfaceIndex(string) (uint32, bool) { return 1, true }
func (absent) InterfaceName(uint32) (string, bool)  { return "tun1", true }
func (absent) BindNamespace(context.Context, string, uint64, uint32, uint32) error {
	return errors.New("absent")
}
func (absent) RemoveNamespace(context.Context, string) error { return errors.New("absent") }
func (absent) LinkLocalAddress(context.Context, uint32) (netip.Addr, error) {
	return netip.Addr{}, errors.New("absent")
}

func (absent) HasAddress(context.Context, uint32, netip.Addr) (bool, error) {
	return false, errors.New("absent")
}

func (absent) SessionInterface(context.Context, uint32, netip.AddrPort, netip.AddrPort) (uint32, bool, error) {
	return 0, false, errors.New("absent")
}

// TestVCLErrors has what is wrong on the way to VPP told by name, with a cure, and not after a long wait.
func TestVCLErrors(t *testing.T) {
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sockets := filepath.Join(dir, "app_ns_sockets")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sockets, "default"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	notVPPs := filepath.Join(dir, "libvppcom.so")
	if err := os.WriteFile(notVPPs, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, library, sockets string
		helper                 []string
		version                string
		want                   []string
	}{
		{"no library", "/nowhere/libvppcom.so", sockets, nil, "", []string{"/nowhere/libvppcom.so", "no such file", "release in use"}},
		{"no library at all", notVPPs, sockets, nil, "", []string{notVPPs, "does not load"}},
		{"no VPP", notVPPs, filepath.Join(dir, "none"), nil, "", []string{"none/default", "VPP is not running", "use-app-socket-api"}},
		{"no helper", notVPPs, sockets, []string{"/nowhere/rlr"}, "", []string{"/nowhere/rlr"}},
		{"not a helper", notVPPs, sockets, []string{"/bin/echo", "hello"}, "", []string{"VCL helper", "control socket"}},
		{"helper fails", notVPPs, sockets, []string{"/bin/false"}, "", []string{"VCL helper", "exit status 1"}},
		{"helper ends", notVPPs, sockets, []string{"/bin/sh", "-c", "kill -9 $$"}, "", []string{"VCL helper", "signal: killed"}},
		{"another release", filepath.Join(dir, "libvppcom.so.25.10"), sockets, nil, "26.06-release", []string{"25.10", "26.06-release"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasSuffix(test.library, ".25.10") {
				if err := os.WriteFile(test.library, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if test.helper == nil {
				test.helper = []string{os.Args[0], "vcl-helper"}
			}
			own := t.TempDir()
			v, err := hoststack.NewVCL(hoststack.VCLOptions{
				Name: "a", Dir: own, Library: test.library, AppSockets: test.sockets, Helper: test.helper,
				Interfaces: absent{}, Namespaces: absent{}, Addresses: absent{}, Sessions: absent{}, Log: testLog(t, "a"),
				Version: func() string { return test.version },
			})
			if err != nil {
				t.Fatal(err)
			}
			runUntil(t, v.Run)
			for _, call := range []func() error{
				func() error { _, err := v.Dial(soon(t), to(b4, 179)); return err },
				func() error { _, err := v.Listen(soon(t), 0, netip.AddrPortFrom(any4, 179)); return err },
			} {
				err := call()
				if !errors.Is(err, hoststack.ErrNoHelper) {
					t.Errorf("%v", err)
				}
				for _, want := range test.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%v: lacks %q", err, want)
					}
				}
			}
		})
	}
}

func TestNewVCLRefuses(t *testing.T) {
	good := hoststack.VCLOptions{
		Name: "a", Dir: "/tmp", Library: "/lib/libvppcom.so", AppSockets: "/tmp/app_ns_sockets", Helper: []string{"rlr"},
		Interfaces: absent{}, Namespaces: absent{}, Addresses: absent{}, Sessions: absent{},
	}
	if _, err := hoststack.NewVCL(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(o *hoststack.VCLOptions){
		"no name":           func(o *hoststack.VCLOptions) { o.Name = "" },
		"path as name":      func(o *hoststack.VCLOptions) { o.Name = "a/b" },
		"long name":         func(o *hoststack.VCLOptions) { o.Name = strings.Repeat("a", 41) },
		"no helper":         func(o *hoststack.VCLOptions) { o.Helper = nil },
		"no namespaces":     func(o *hoststack.VCLOptions) { o.Namespaces = nil },
		"no sessions":       func(o *hoststack.VCLOptions) { o.Sessions = nil },
		"relative path":     func(o *hoststack.VCLOptions) { o.AppSockets = "app_ns_sockets" },
		"space in a path":   func(o *hoststack.VCLOptions) { o.AppSockets = "/tmp/a b" },
		"too long a path":   func(o *hoststack.VCLOptions) { o.AppSockets = "/" + strings.Repeat("a", 100) },
		"no library's path": func(o *hoststack.VCLOptions) { o.Library = "" },
	} {
		opt := good
		spoil(&opt)
		if _, err := hoststack.NewVCL(opt); err == nil {
			t.Error(name)
		}
	}
}
