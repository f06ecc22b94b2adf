package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func udp(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runRelays carries one tunnel between a and b and listens for commands.
func runRelays(t *testing.T, a, b *net.UDPConn) (*relay, string) {
	t.Helper()
	sides, err := bindRelay()
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay("tun12", sides, [2]netip.AddrPort{addrOf(a), addrOf(b)})
	sock := filepath.Join(shortDir(t), "relay.sock")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rs := &relays{all: []*relay{r}}
	var wg sync.WaitGroup
	wg.Go(func() { rs.run(ctx, ln) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r, sock
}

// send writes from one end and reports whether it arrives at the other.
func send(t *testing.T, from, to *net.UDPConn, via netip.AddrPort, text string) bool {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(text), via); err != nil {
		t.Fatalf("the sender notices something: %v", err)
	}
	to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	buf := make([]byte, 100)
	n, _, err := to.ReadFromUDPAddrPort(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if err != nil || string(buf[:n]) != text {
		t.Fatalf("arrived: %q, %v", buf[:n], err)
	}
	return true
}

func TestRelay(t *testing.T) {
	a, b := udp(t), udp(t)
	r, sock := runRelays(t, a, b)
	both := func(want bool) {
		t.Helper()
		if send(t, a, b, r.endpoint(0), "there") != want || send(t, b, a, r.endpoint(1), "back") != want {
			t.Errorf("datagrams arrive: not %t", want)
		}
	}
	both(true)
	if err := commandRelay(t.Context(), sock, "cut", "tun12"); err != nil {
		t.Fatal(err)
	}
	both(false)
	if d := r.dropped.Load(); d != 2 {
		t.Errorf("%d datagrams dropped", d)
	}
	if err := commandRelay(t.Context(), sock, "heal", "tun12"); err != nil {
		t.Fatal(err)
	}
	both(true)
}

// A datagram to an end that is not there yet does not stop the relay.
func TestRelayBeforeTheEnds(t *testing.T) {
	a := udp(t)
	gone := udp(t)
	target := addrOf(gone)
	gone.Close()
	sides, err := bindRelay()
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay("tun12", sides, [2]netip.AddrPort{addrOf(a), target})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	defer wg.Wait()
	defer cancel()
	for range 3 {
		if _, err := a.WriteToUDPAddrPort([]byte("early"), r.endpoint(0)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(target))
	if err != nil {
		t.Skipf("somebody took the port meanwhile: %v", err)
	}
	defer b.Close()
	ok := false
	for range 10 {
		ok = ok || send(t, a, b, r.endpoint(0), "early")
	}
	if !ok {
		t.Error("nothing arrives")
	}
}

func TestRelayCommands(t *testing.T) {
	_, sock := runRelays(t, udp(t), udp(t))
	for _, tc := range []struct{ verb, link, want string }{
		{"cut", "tun99", `no link "tun99": there is tun12`},
		{"paint", "tun12", "understands cut LINK"},
		{"cut", "tun12 tun13", "understands cut LINK"},
	} {
		if err := commandRelay(t.Context(), sock, tc.verb, tc.link); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s: %v", tc.verb, tc.link, err)
		}
	}
	// Callers that say nothing, or too much, do not keep others out for long.
	for _, text := range []string{"", strings.Repeat("x", 1000)} {
		c, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := until(t.Context(), time.Minute, func() error { return commandRelay(t.Context(), sock, "cut", "tun12") }); err != nil {
		t.Error(err)
	}
	if err := commandRelay(t.Context(), sock+"x", "cut", "tun12"); err == nil {
		t.Error("a relay that is not there answered")
	}
}

func TestAllocatePorts(t *testing.T) {
	first, release, err := allocatePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	second, release2, err := allocatePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.AddrPort]bool)
	for _, p := range append(first, second...) {
		if seen[p] || p.Port() < firstPort || p.Port() >= lastPort {
			t.Errorf("port %s", p)
		}
		seen[p] = true
	}
	release2()
	release()
	release() // again is allowed
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(first[0]))
	if err != nil {
		t.Errorf("a released port cannot be bound: %v", err)
	} else {
		c.Close()
	}
	if _, _, err := allocatePorts(lastPort); err == nil {
		t.Error("more ports than there are")
	}
}
