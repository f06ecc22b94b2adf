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
	"testing"
	"time"

	"rlr/hoststack"
)

// kernelStack is a hoststack.Stack on the loopback, for peers that are programs. Both sides' port 179 is another one there.
type kernelStack struct {
	listen, dial uint16
}

func (s kernelStack) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(e.Local)}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(e.Remote.Addr(), s.dial).String())
}

func (s kernelStack) Listen(ctx context.Context, _ uint32, _ netip.AddrPort) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", netip.AddrPortFrom(a("127.0.0.1"), s.listen).String())
}

// bird runs BIRD 2 at 127.0.0.2 as AS 65002, if there is one: in the path, or as RLR_BIRD says.
type bird struct {
	t       *testing.T
	program string
	dir     string
	cmd     *exec.Cmd
}

// options go into its BGP protocol.
func newBird(t *testing.T, options string) (*bird, kernelStack) {
	t.Helper()
	program := os.Getenv("RLR_BIRD")
	if program == "" {
		var err error
		if program, err = exec.LookPath("bird"); err != nil {
			t.Skip("no bird here")
		}
	}
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := kernelStack{listen: freePort(t, "127.0.0.1"), dial: freePort(t, "127.0.0.2")}
	config := fmt.Sprintf(`
router id 10.2.0.1;
protocol device {}
protocol static { ipv4; route 10.2.0.0/24 blackhole; }
protocol static { ipv6; route fd00:2::/64 blackhole; }
protocol bgp r1 {
	local 127.0.0.2 port %d as 65002;
	neighbor 127.0.0.1 port %d as 65001;
	strict bind yes;
	multihop;
	hold time 30;
	connect delay time 1;
	connect retry time 2;
	error wait time 1, 2;
	ipv4 { import all; export where source = RTS_STATIC; next hop address 10.99.0.2; };
	ipv6 { import all; export where source = RTS_STATIC; next hop address fd00:99::2; };
	%s
}
`, s.dial, s.listen, options)
	if err := os.WriteFile(filepath.Join(dir, "bird.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bird{t: t, program: program, dir: dir}
	t.Cleanup(b.kill)
	return b, s
}

func freePort(t *testing.T, host string) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func (b *bird) start(flags ...string) {
	b.t.Helper()
	b.cmd = exec.Command(b.program, append(flags, "-f", "-c", filepath.Join(b.dir, "bird.conf"), "-s", filepath.Join(b.dir, "ctl"), "-P", filepath.Join(b.dir, "pid"))...)
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, 5*time.Second, func() string {
		if _, err := os.Stat(filepath.Join(b.dir, "ctl")); err != nil {
			return err.Error()
		}
		return ""
	})
}

func (b *bird) kill() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
		_ = os.Remove(filepath.Join(b.dir, "ctl"))
	}
}

// ask is birdc.
func (b *bird) ask(command string) string {
	conn, err := net.Dial("unix", filepath.Join(b.dir, "ctl"))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintln(conn, command)
	var all []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(all, []byte("\n0000 ")) && bytes.Count(all, []byte("\n")) < 200 {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil || strings.HasSuffix(string(all), "\n") && bytes.Count(all, []byte("\n")) > 1 {
			break
		}
	}
	return string(all)
}

func TestBird(t *testing.T) {
	for _, passive := range []bool{false, true} {
		t.Run(fmt.Sprintf("passive=%v", passive), func(t *testing.T) {
			b, stack := newBird(t, "")
			feed := newRecorder()
			s, err := New(Options{
				Config: Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{{
					Name: "bird", Address: a("127.0.0.2"), LocalAddress: a("127.0.0.1"), AS: 65002, Multihop: true, Passive: passive,
					Families: both, NextHop6: a("fd00:99::1"), HoldTime: 30 * time.Second,
				}}},
				Stack: stack, Feed: feed, Log: testLog(t, "r1"),
			})
			if err != nil {
				t.Fatal(err)
			}
			r := &testRouter{Speaker: s, t: t, name: "r1", feed: feed}
			start(t, r)
			r.originate("10.1.0.0/24", "fd00:1::/64")
			b.start()
			r.established()
			want := []string{"10.2.0.0/24 via 10.99.0.2", "fd00:2::/64 via fd00:99::2"}
			r.wantFeed(want...)
			birdHas := func() string {
				got := b.ask("show route protocol r1 all")
				for _, w := range []string{"10.1.0.0/24", "fd00:1::/64", "BGP.as_path: 65001", "BGP.next_hop: fd00:99::1", "BGP.next_hop: 127.0.0.1"} {
					if !strings.Contains(got, w) {
						return fmt.Sprintf("bird has no %s in\n%s", w, got)
					}
				}
				return ""
			}
			eventually(t, 10*time.Second, birdHas)

			// It dies without a word from BGP, and comes back.
			b.kill()
			r.wantFeed()
			b.start()
			r.established()
			r.wantFeed(want...)
			eventually(t, 10*time.Second, birdHas)

			b.ask("disable r1")
			eventually(t, 5*time.Second, func() string {
				if got, want := r.session("bird").LastError, "Cease: Administrative Shutdown (received)"; got != want {
					return fmt.Sprintf("last error %q, want %q", got, want)
				}
				return ""
			})
			b.ask("enable r1")
			r.established()
			if err := r.Reset("bird", ResetHard); err != nil {
				t.Fatal(err)
			}
			eventually(t, 15*time.Second, func() string {
				if s := r.session("bird"); s.State != Established || s.Flaps != 3 {
					return fmt.Sprintf("%s, %d flaps, %s", s.State, s.Flaps, s.ErrorText())
				}
				return ""
			})
			eventually(t, 10*time.Second, birdHas)
		})
	}
}
