package hoststack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fakeBackend dials the loopback whatever the address, and remembers what it was asked.
type fakeBackend struct {
	mu      sync.Mutex
	dialed  string
	dialErr error
	listen  net.Listener
	probes  func(index uint32) io.ReadWriteCloser
	source  netip.Addr
}

func (b *fakeBackend) DialTCP(_ context.Context, table, index uint32, local, remote netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialed = fmt.Sprint(table, int32(index), local, remote)
	if b.dialErr != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: b.dialErr}
	}
	c, other := net.Pipe()
	other.Close()
	zone := ""
	if remote.Addr().IsLinkLocalUnicast() && remote.Addr().Is6() {
		zone = fmt.Sprint(index)
	}
	return &fakeConn{Conn: c, local: &net.TCPAddr{IP: local.Addr().AsSlice(), Zone: zone, Port: 1}, remote: &net.TCPAddr{IP: remote.Addr().AsSlice(), Zone: zone, Port: int(remote.Port())}}, nil
}

func (b *fakeBackend) ListenTCP(uint32, netip.AddrPort) (net.Listener, error) {
	if b.listen == nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	return b.listen, nil
}

func (b *fakeBackend) OpenProbe(_, index uint32) (io.ReadWriteCloser, error) {
	return b.probes(index), nil
}

func (b *fakeBackend) SourceFor(_, _ uint32, dst netip.Addr) (netip.Addr, error) {
	if !b.source.IsValid() {
		return netip.Addr{}, syscall.ENETUNREACH
	}
	return b.source, nil
}

type fakeConn struct {
	net.Conn
	local, remote net.Addr
}

func (c *fakeConn) LocalAddr() net.Addr  { return c.local }
func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }

type fakeListener struct{ conns chan net.Conn }

func (l *fakeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *fakeListener) Close() error   { close(l.conns); return nil }
func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv6unspecified, Port: 179} }

// names is the dataplane's interfaces by sw_if_index.
type names []string

func (n names) InterfaceIndex(name string) (uint32, bool) {
	i := slices.Index(n, name)
	return uint32(i), i >= 0
}

func (n names) InterfaceName(i uint32) (string, bool) {
	if int(i) >= len(n) {
		return "", false
	}
	return n[i], true
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestDial(t *testing.T) {
	ifs := names{"local0", "tun12", "tun13"}
	for _, c := range []struct {
		name          string
		e             Endpoints
		asked         string
		local, remote string
		err           error
		errText       string
	}{
		{
			name: "global", e: Endpoints{Table: 7, Local: netip.AddrPortFrom(addr("192.0.2.1"), 0), Remote: netip.AddrPortFrom(addr("192.0.2.2"), 179)},
			asked: "7 -1 192.0.2.1:0 192.0.2.2:179", local: "192.0.2.1:1", remote: "192.0.2.2:179",
		},
		{
			name: "link-local by name", e: Endpoints{Interface: "tun13", Local: netip.AddrPortFrom(addr("fe80::1"), 0), Remote: netip.AddrPortFrom(addr("fe80::2"), 179)},
			asked: "0 2 [fe80::1]:0 [fe80::2]:179", local: "[fe80::1%tun13]:1", remote: "[fe80::2%tun13]:179",
		},
		{
			name: "link-local by zone", e: Endpoints{Local: netip.AddrPortFrom(addr("fe80::1"), 0), Remote: netip.AddrPortFrom(addr("fe80::2%tun12"), 179)},
			asked: "0 1 [fe80::1]:0 [fe80::2]:179", local: "[fe80::1%tun12]:1", remote: "[fe80::2%tun12]:179",
		},
		{name: "link-local without interface", e: Endpoints{Remote: netip.AddrPortFrom(addr("fe80::2"), 179)}, err: ErrNeedInterface, errText: "fe80::2"},
		{name: "unknown interface", e: Endpoints{Interface: "tun99", Remote: netip.AddrPortFrom(addr("192.0.2.2"), 179)}, err: ErrNoInterface, errText: "tun99"},
		{
			name: "families", e: Endpoints{Local: netip.AddrPortFrom(addr("::1"), 0), Remote: netip.AddrPortFrom(addr("192.0.2.2"), 179)},
			err: syscall.EADDRNOTAVAIL, errText: "different families",
		},
		{name: "no remote", e: Endpoints{}, err: syscall.EADDRNOTAVAIL},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &fakeBackend{}
			conn, err := New(b, ifs).Dial(context.Background(), c.e)
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.errText) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.dialed != c.asked {
				t.Errorf("backend was asked %q, want %q", b.dialed, c.asked)
			}
			if conn.LocalAddr().String() != c.local || conn.RemoteAddr().String() != c.remote {
				t.Errorf("connection is %s – %s", conn.LocalAddr(), conn.RemoteAddr())
			}
			if r := conn.RemoteAddr().(*net.TCPAddr); c.e.Remote.Addr().Is4() && len(r.IP) != 4 {
				t.Errorf("IPv4 address of %d bytes", len(r.IP))
			}
		})
	}
	b := &fakeBackend{dialErr: syscall.ECONNREFUSED}
	_, err := New(b, ifs).Dial(context.Background(), Endpoints{Remote: netip.AddrPortFrom(addr("192.0.2.2"), 179)})
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "192.0.2.2:179") {
		t.Errorf("refused: %v", err)
	}
}

func TestListen(t *testing.T) {
	fl := &fakeListener{conns: make(chan net.Conn, 3)}
	s := New(&fakeBackend{listen: fl}, names{"local0", "tun12"})
	l, err := s.Listen(context.Background(), 0, netip.AddrPortFrom(netip.IPv6Unspecified(), 179))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ zone, want string }{{"1", "[fe80::2%tun12]:5"}, {"9", "[fe80::2%9]:5"}} {
		fl.conns <- &fakeConn{local: &net.TCPAddr{}, remote: &net.TCPAddr{IP: net.ParseIP("fe80::2"), Zone: c.zone, Port: 5}}
		conn, err := l.Accept()
		if err != nil || conn.RemoteAddr().String() != c.want {
			t.Errorf("accepted %v, %v; want %s", conn.RemoteAddr(), err, c.want)
		}
	}
	fl.conns <- &fakeConn{local: &net.TCPAddr{}, remote: &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 5}}
	conn, err := l.Accept()
	if err != nil || len(conn.RemoteAddr().(*net.TCPAddr).IP) != 4 {
		t.Errorf("accepted %v, %v", conn.RemoteAddr(), err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := New(&fakeBackend{}, names{}).Listen(context.Background(), 3, netip.AddrPortFrom(netip.IPv4Unspecified(), 179)); !errors.Is(err, syscall.EADDRINUSE) ||
		!strings.Contains(err.Error(), "table 3") {
		t.Errorf("in use: %v", err)
	}
}
