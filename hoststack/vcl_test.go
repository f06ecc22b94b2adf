package hoststack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rlr/hoststack"
)

var (
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

func (s *vclSite) listen(t *testing.T, at netip.Addr, port uint16) net.Listener {
	t.Helper()
	l, err := s.stack.Listen(soon(t), 0, netip.AddrPortFrom(at, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			t.Fatal(r.err)
		}
		t.Cleanup(func() { r.c.Close() })
		_ = r.c.SetDeadline(time.Now().Add(patience))
		return r.c
	case <-time.After(patience):
		t.Fatal("nothing to accept")
		return nil
	}
}

func (s *vclSite) dial(t *testing.T, e hoststack.Endpoints) net.Conn {
	t.Helper()
	c, err := s.stack.Dial(soon(t), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func to(addr netip.Addr, port uint16) hoststack.Endpoints {
	return hoststack.Endpoints{Remote: netip.AddrPortFrom(addr, port)}
}

// pair connects the sites through a listener of b's.
func pair(t *testing.T, a, b *vclSite, l net.Listener, e hoststack.Endpoints) (client, server net.Conn) {
	t.Helper()
	client = a.dial(t, e)
	server = accept(t, l)
	if c, s := fmt.Sprint(client.LocalAddr(), client.RemoteAddr()), fmt.Sprint(server.RemoteAddr(), server.LocalAddr()); c != s {
		t.Fatalf("the client has %s, the server %s", c, s)
	}
	return client, server
}

// stream makes a reproducible stream of bytes.
func stream(seed uint64, n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), int64(n))
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil)[:8]), err
}

// exchange sends streams both ways at once, and checks what arrives until the FINs.
func exchange(t *testing.T, x, y net.Conn, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, c := range []net.Conn{x, y} {
		seed, other := rand.Uint64(), []net.Conn{y, x}[i]
		wg.Add(2)
		go func() {
			defer wg.Done()
			if _, err := io.Copy(c, stream(seed, n)); err != nil {
				t.Error(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		}()
		go func() {
			defer wg.Done()
			want, _ := sum(stream(seed, n))
			if got, err := sum(other); err != nil || got != want {
				t.Errorf("got %s (%v), want %s", got, err, want)
			}
		}()
	}
	wg.Wait()
}

// sessions returns what VPP says about its TCP sessions, without listeners.
func (s *vclSite) sessions(t *testing.T) int {
	t.Helper()
	text, err := s.agent.CLI(soon(t), "show session verbose 1")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(text, "->") - strings.Count(text, "LISTEN")
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// pids of the site's helpers.
func (s *vclSite) pids() (list []int) {
	for _, h := range s.stack.Helpers() {
		if h.PID != 0 {
			list = append(list, h.PID)
		}
	}
	return list
}

func TestVCL(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		a, b := network(t)
		for _, test := range []struct {
			name string
			run  func(t *testing.T, a, b *vclSite)
		}{
			{"streams", testStreams},
			{"half-close", testHalfClose},
			{"backpressure", testBackpressure},
			{"refusals", testRefusals},
			{"listeners", testListeners},
			{"deadlines", testDeadlines},
			{"link-local", testLinkLocal},
			{"many", testMany},
			{"idle", testIdle},
		} {
			t.Run(test.name, func(t *testing.T) { test.run(t, a, b) })
		}
	})
}

func testStreams(t *testing.T, a, b *vclSite) {
	for _, test := range []struct {
		name     string
		any      netip.Addr
		src, dst netip.Addr
	}{{"4", any4, a4, b4}, {"6", any6, a6, b6}} {
		t.Run(test.name, func(t *testing.T) {
			l := b.listen(t, test.any, 1000)
			e := to(test.dst, 1000)
			for range 2 { // with the address that VPP chooses, and with one given
				x, y := pair(t, a, b, l, e)
				if ip := x.LocalAddr().(*net.TCPAddr).IP; !ip.Equal(test.src.AsSlice()) || len(ip) != test.src.BitLen()/8 {
					t.Errorf("local address %v of %d bytes", ip, len(ip))
				}
				exchange(t, x, y, 8<<20)
				e.Local = netip.AddrPortFrom(test.src, 0)
			}
		})
	}
}

func testHalfClose(t *testing.T, a, b *vclSite) {
	l := b.listen(t, any4, 1001)
	for _, closer := range []string{"client", "server"} {
		t.Run(closer, func(t *testing.T) {
			x, y := pair(t, a, b, l, to(b4, 1001))
			if closer == "server" {
				x, y = y, x
			}
			go func() {
				_, _ = io.Copy(x, stream(1, 3<<20))
				_ = x.(interface{ CloseWrite() error }).CloseWrite()
			}()
			want, _ := sum(stream(1, 3<<20))
			if got, err := sum(y); err != nil || got != want {
				t.Fatalf("got %s (%v), want %s", got, err, want)
			}
			// The other direction still works, and Close sends what was written; later than the 2 s that VPP gives it by itself.
			time.Sleep(2500 * time.Millisecond)
			go func() {
				_, _ = io.Copy(y, stream(2, 2<<20))
				_ = y.Close()
			}()
			want, _ = sum(stream(2, 2<<20))
			if got, err := sum(x); err != nil || got != want {
				t.Fatalf("got %s (%v), want %s", got, err, want)
			}
		})
	}
}

// testBackpressure writes to one who does not read: writing stops, and everything arrives once reading starts.
func testBackpressure(t *testing.T, a, b *vclSite) {
	l := b.listen(t, any4, 1002)
	x, y := pair(t, a, b, l, to(b4, 1002))
	_ = x.SetWriteDeadline(time.Now().Add(2 * time.Second))
	n, err := io.Copy(x, stream(3, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes went somewhere: %v", n, err)
	}
	t.Logf("%d bytes under way", n)
	_ = x.Close() // ends what the deadline has cut
	got, err := io.Copy(io.Discard, y)
	if err != nil || got < n {
		t.Fatalf("%d bytes arrived of %d: %v", got, n, err)
	}
}

func testRefusals(t *testing.T, a, b *vclSite) {
	link := func(e hoststack.Endpoints, ifname string) hoststack.Endpoints {
		e.Interface = ifname
		return e
	}
	from := func(local netip.Addr, e hoststack.Endpoints) hoststack.Endpoints {
		e.Local = netip.AddrPortFrom(local, 0)
		return e
	}
	for _, test := range []struct {
		name string
		e    hoststack.Endpoints
		wait time.Duration
		want error
	}{
		{"no listener", to(b4, 1), patience, syscall.ECONNREFUSED},
		{"no listener, IPv6", to(b6, 1), patience, syscall.ECONNREFUSED},
		{"no listener, link-local", link(to(bLL, 1), "tun2"), patience, syscall.ECONNREFUSED},
		{"no route", to(netip.MustParseAddr("203.0.113.1"), 1), patience, syscall.ENETUNREACH},
		{"no route, IPv6", to(netip.MustParseAddr("2001:db8::1"), 1), patience, syscall.ENETUNREACH},
		{"nobody", to(silent4, 1), 300 * time.Millisecond, context.DeadlineExceeded},
		{"nobody, link-local", link(to(netip.MustParseAddr("fe80::77"), 1), "tun1"), 300 * time.Millisecond, context.DeadlineExceeded},
		{"no such interface", link(to(bLL, 1), "tun3"), patience, hoststack.ErrNoInterface},
		{"no interface", to(bLL, 1), patience, hoststack.ErrNeedInterface},
		{"an interface for the FIB to choose", link(to(b4, 1), "tun1"), patience, syscall.EOPNOTSUPP},
		{"two families", from(a4, to(b6, 1)), patience, syscall.EADDRNOTAVAIL},
		{"not our address", from(netip.MustParseAddr("10.9.0.9"), to(b4, 1)), patience, syscall.EADDRNOTAVAIL},
		{"not our address, IPv6", from(netip.MustParseAddr("fd00:9::9"), to(b6, 1)), patience, syscall.EADDRNOTAVAIL},
		{"not our address, link-local", link(from(netip.MustParseAddr("fe80::9"), to(bLL, 1)), "tun1"), patience, syscall.EADDRNOTAVAIL},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), test.wait)
			defer cancel()
			c, err := a.stack.Dial(ctx, test.e)
			if err == nil {
				c.Close()
			}
			if oe := (*net.OpError)(nil); !errors.Is(err, test.want) || !errors.As(err, &oe) || oe.Op != "dial" {
				t.Errorf("got %v after %s, want %v", err, time.Since(began), test.want)
			}
		})
	}
}

func testListeners(t *testing.T, a, b *vclSite) {
	l := b.listen(t, any4, 1003)
	b.listen(t, any6, 1003)
	for _, second := range []netip.Addr{any4, any6} {
		if other, err := b.stack.Listen(soon(t), 0, netip.AddrPortFrom(second, 1003)); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener on %s: %v, %v", second, other, err)
		}
	}
	for _, at := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), bLL} {
		if other, err := b.stack.Listen(soon(t), 0, netip.AddrPortFrom(at, 1003)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("listen on %s: %v, %v", at, other, err)
		}
	}
	x, y := pair(t, a, b, l, to(b4, 1003))            // VPP makes the listener's memory at the first one
	for _, c := range [][2]net.Conn{{x, y}, {y, x}} { // so the helper has passed on the router's end, and closed its own copy
		if _, err := c[0].Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c[1], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	helper := b.pid(t, "default")
	during := openFiles(t, helper)
	x.Close()
	wantEnd(t, "the accepted connection", y)
	y.Close()
	until(t, "the helper has closed it, too", func() bool { return openFiles(t, helper) < during })
	files := openFiles(t, helper)
	waiting := a.dial(t, to(b4, 1003)) // nobody accepts it
	until(t, "b has it, too", func() bool { return openFiles(t, helper) > files })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if n, err := waiting.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that nobody accepted: %d, %v", n, err)
	}
	until(t, "nobody listens any more", func() bool {
		c, err := a.stack.Dial(soon(t), to(b4, 1003))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	x, y = pair(t, a, b, b.listen(t, b4, 1003), to(b4, 1003)) // again, and on one address
	exchange(t, x, y, 1000)
}

func testDeadlines(t *testing.T, a, b *vclSite) {
	x, y := pair(t, a, b, b.listen(t, any4, 1004), to(b4, 1004))
	_ = x.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := x.Read(make([]byte, 1))
	if oe := (*net.OpError)(nil); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &oe) || oe.Net != "tcp" || !oe.Timeout() {
		t.Errorf("%#v", err)
	}
	_ = x.SetReadDeadline(time.Time{})
	got := make(chan error, 1)
	go func() {
		_, err := x.Read(make([]byte, 1))
		got <- err
	}()
	_ = x.Close()
	select {
	case err := <-got:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Close does not end a Read")
	}
	if _, err := y.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other side: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := a.stack.Dial(ctx, to(silent4, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// testLinkLocal has the same pair of addresses on two cables, and connections on both, made by both sides.
func testLinkLocal(t *testing.T, a, b *vclSite) {
	atA, atB := a.listen(t, any6, 179), b.listen(t, any6, 179)
	var all [][2]net.Conn
	for round := range 2 {
		for _, name := range []string{"tun1", "tun2"} {
			e := hoststack.Endpoints{Interface: name, Remote: netip.AddrPortFrom(bLL, 179)}
			if round == 1 {
				e.Local = netip.AddrPortFrom(aLL, 0)
			}
			x, y := pair(t, a, b, atB, e)
			if zone := x.RemoteAddr().(*net.TCPAddr).Zone; zone != name {
				t.Errorf("by %s instead of %s", zone, name)
			}
			all = append(all, [2]net.Conn{x, y})
			e = hoststack.Endpoints{Interface: name, Remote: netip.AddrPortFrom(aLL, 179)}
			x, y = pair(t, b, a, atA, e)
			all = append(all, [2]net.Conn{x, y})
		}
	}
	for _, p := range all {
		exchange(t, p[0], p[1], 100_000)
	}
	// A peer that does not answer does not keep the others waiting.
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := a.stack.Dial(ctx, hoststack.Endpoints{Interface: "tun1", Remote: netip.MustParseAddrPort("[fe80::66]:179")})
			if err == nil {
				c.Close()
				t.Error("connected to nobody")
			}
		}()
	}
	began := time.Now()
	for range 5 {
		x, y := pair(t, a, b, atB, hoststack.Endpoints{Interface: "tun2", Remote: netip.AddrPortFrom(bLL, 179)})
		exchange(t, x, y, 1000)
	}
	t.Logf("5 connections in %s beside 3 attempts that nobody answers", time.Since(began))
	cancel()
	wg.Wait()
}

// testMany looks for leaks.
func testMany(t *testing.T, a, b *vclSite) {
	settle := func(what string, have func() string) string {
		last := ""
		until(t, what+" settles", func() bool {
			now := have()
			same := now == last
			last = now
			if !same {
				time.Sleep(200 * time.Millisecond)
			}
			return same
		})
		return last
	}
	count := func() string {
		var s strings.Builder
		for _, site := range []*vclSite{a, b} {
			for _, pid := range append(site.pids(), os.Getpid()) {
				fmt.Fprint(&s, openFiles(t, pid), " ")
			}
		}
		return s.String()
	}
	l6, l4 := b.listen(t, any6, 1005), b.listen(t, any4, 1005)
	round := func() {
		for _, c := range []struct {
			l net.Listener
			e hoststack.Endpoints
		}{
			{l4, to(b4, 1005)},
			{l6, hoststack.Endpoints{Interface: "tun1", Remote: netip.AddrPortFrom(bLL, 1005)}},
			{l6, hoststack.Endpoints{Interface: "tun2", Remote: netip.AddrPortFrom(bLL, 1005)}},
		} {
			x, y := pair(t, a, b, c.l, c.e)
			exchange(t, x, y, 10_000)
			x.Close()
			y.Close()
			if x, err := a.stack.Dial(soon(t), to(b4, 1)); err == nil {
				x.Close()
				t.Error("nobody listens there")
			}
		}
	}
	round()
	before := settle("number of open files", count)
	began := time.Now()
	for range 50 {
		round()
	}
	t.Logf("150 connections in %s", time.Since(began))
	until(t, fmt.Sprintf("the number of open files is %s again", before), func() bool { return count() == before })
	until(t, "VPP has forgotten the sessions", func() bool {
		return a.sessions(t)+b.sessions(t) == 0
	})
	if len(a.pids()) != 2 {
		t.Errorf("helpers: %v", a.stack.Helpers())
	}
}

// testIdle has helpers sleep while there is nothing to do.
func testIdle(t *testing.T, a, b *vclSite) {
	l := b.listen(t, any6, 1006)
	for _, name := range []string{"tun1", "tun2"} {
		pair(t, a, b, l, hoststack.Endpoints{Interface: name, Remote: netip.AddrPortFrom(bLL, 1006)})
	}
	pair(t, a, b, l, to(b6, 1006))
	before := make(map[int]time.Duration)
	for _, pid := range a.pids() {
		before[pid] = cpuTime(t, pid)
	}
	const watch = 2 * time.Second
	time.Sleep(watch)
	for pid, was := range before {
		if used := cpuTime(t, pid) - was; used > watch/50 {
			t.Errorf("helper %d used %s of processor time in %s", pid, used, watch)
		} else {
			t.Logf("helper %d used %s of processor time in %s, has %s", pid, used, watch, pss(pid))
		}
	}
}

// cpuTime is what a process has used so far, in the ticks of the kernel: 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime: proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func pss(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Pss:") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "no Pss"
}
