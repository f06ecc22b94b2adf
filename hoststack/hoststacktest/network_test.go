package hoststacktest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rlr/hoststack"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// pair is two nodes with two links that have the same addresses, and a listener on the second.
func pair(t *testing.T) (a, b *Node, links [2]*Link, l net.Listener) {
	t.Helper()
	n := New()
	a, b = n.Node("a"), n.Node("b")
	one, two := []netip.Addr{netip.MustParseAddr("fe80::1")}, []netip.Addr{netip.MustParseAddr("fe80::2")}
	links[0] = n.Connect(a, "x0", one, b, "y0", two)
	links[1] = n.Connect(a, "x1", one, b, "y1", two)
	l, err := b.Listen(t.Context(), 0, ap("[::]:179"))
	if err != nil {
		t.Fatal(err)
	}
	return a, b, links, l
}

func connect(t *testing.T, a *Node, nic string, l net.Listener) (ours, theirs net.Conn) {
	t.Helper()
	ours, err := a.Dial(t.Context(), hoststack.Endpoints{Interface: nic, Remote: ap("[fe80::2]:179")})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func TestZones(t *testing.T) {
	a, b, _, l := pair(t)
	for _, c := range [][4]string{{"x0", "fe80::2%x0", "y0", "fe80::1%y0"}, {"x1", "fe80::2%x1", "y1", "fe80::1%y1"}} {
		ours, theirs := connect(t, a, c[0], l)
		if got := ours.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String(); got != c[1] {
			t.Errorf("dialed %s", got)
		}
		if got := theirs.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String(); got != c[3] {
			t.Errorf("accepted %s", got)
		}
		ours.Close()
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after close: %v", err)
		}
		theirs.Close()
	}
	if a.Conns() != 0 || b.Conns() != 0 {
		t.Errorf("%d, %d connections left", a.Conns(), b.Conns())
	}
	for _, c := range []struct {
		e   hoststack.Endpoints
		err error
	}{
		{hoststack.Endpoints{Interface: "x0", Remote: ap("[fe80::2]:80")}, syscall.ECONNREFUSED},
		{hoststack.Endpoints{Interface: "x9", Remote: ap("[fe80::2]:179")}, hoststack.ErrNoInterface},
		{hoststack.Endpoints{Remote: ap("192.0.2.1:179")}, syscall.EHOSTUNREACH},
	} {
		if _, err := a.Dial(t.Context(), c.e); !errors.Is(err, c.err) {
			t.Errorf("%v: %v", c.e, err)
		}
	}
}

func TestCutAndForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, links, l := pair(t)
		ours, theirs := connect(t, a, "x0", l)
		links[0].Cut()
		if _, err := ours.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 9)
		_ = theirs.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := theirs.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read over a cut link: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Dial(ctx, hoststack.Endpoints{Interface: "x0", Remote: ap("[fe80::2]:179")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial over a cut link: %v", err)
		}
		links[0].Heal()
		_ = theirs.SetReadDeadline(time.Time{})
		if n, err := theirs.Read(buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("after the cut: %q, %v", buf[:n], err)
		}
		b.Forget()
		_ = ours.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := ours.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a forgotten connection says %v", err)
		}
		_ = ours.SetReadDeadline(time.Time{})
		if _, err := ours.Write([]byte("x")); err != nil {
			t.Errorf("write to a forgotten connection: %v", err)
		}
		if _, err := ours.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after that: %v", err)
		}
	})
}

func TestBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, l := pair(t)
		ours, theirs := connect(t, a, "x0", l)
		big := make([]byte, 2*sendBuffer)
		_ = ours.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := ours.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) || n != sendBuffer {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = ours.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := ours.Write(big)
			ours.Close()
			done <- err
		}()
		n, err := io.Copy(io.Discard, theirs)
		if err != nil || n != 3*sendBuffer {
			t.Errorf("read %d, %v", n, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
