package hoststack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// DialUDP remembers what it was asked; the connection is not for use.
func (b *fakeBackend) DialUDP(table, index uint32, local, remote netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialed = fmt.Sprint(table, int32(index), local, remote)
	if b.dialErr != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Err: b.dialErr}
	}
	zone := ""
	if needsInterface(remote.Addr()) {
		zone = fmt.Sprint(index)
	}
	return &fakeConn{
		local:  &net.UDPAddr{IP: local.Addr().AsSlice(), Zone: zone, Port: 1},
		remote: &net.UDPAddr{IP: remote.Addr().AsSlice(), Zone: zone, Port: int(remote.Port())},
	}, nil
}

func (b *fakeBackend) ListenUDP(table uint32, local netip.AddrPort) (net.PacketConn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialed = fmt.Sprint(table, local)
	if b.dialErr != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: b.dialErr}
	}
	return &fakePackets{local: net.UDPAddrFromAddrPort(local)}, nil
}

// fakePackets hands what was written back, and its address.
type fakePackets struct {
	net.PacketConn
	local net.Addr
	from  []net.Addr
}

func (c *fakePackets) LocalAddr() net.Addr { return c.local }

func (c *fakePackets) WriteTo(b []byte, to net.Addr) (int, error) {
	c.from = append(c.from, to)
	return len(b), nil
}

func (c *fakePackets) ReadFrom([]byte) (int, net.Addr, error) {
	if len(c.from) == 0 {
		return 0, nil, net.ErrClosed
	}
	from := c.from[0]
	c.from = c.from[1:]
	return 1, from, nil
}

func TestDialPacket(t *testing.T) {
	ifs := names{"local0", "tun12", "tun13"}
	for _, c := range []struct {
		name          string
		e             Endpoints
		asked         string
		local, remote string
		err           error
	}{
		{
			name: "global", e: Endpoints{Table: 7, Local: netip.AddrPortFrom(addr("192.0.2.1"), 0), Remote: netip.AddrPortFrom(addr("192.0.2.2"), 53)},
			asked: "7 -1 192.0.2.1:0 192.0.2.2:53", local: "192.0.2.1:1", remote: "192.0.2.2:53",
		},
		{
			name: "link-local by name", e: Endpoints{Interface: "tun13", Local: netip.AddrPortFrom(addr("fe80::1"), 0), Remote: netip.AddrPortFrom(addr("fe80::2"), 53)},
			asked: "0 2 [fe80::1]:0 [fe80::2]:53", local: "[fe80::1%tun13]:1", remote: "[fe80::2%tun13]:53",
		},
		{
			name: "link-local by zone", e: Endpoints{Local: netip.AddrPortFrom(addr("fe80::1"), 0), Remote: netip.AddrPortFrom(addr("fe80::2%tun12"), 53)},
			asked: "0 1 [fe80::1]:0 [fe80::2]:53", local: "[fe80::1%tun12]:1", remote: "[fe80::2%tun12]:53",
		},
		{name: "link-local without interface", e: Endpoints{Remote: netip.AddrPortFrom(addr("fe80::2"), 53)}, err: ErrNeedInterface},
		{name: "unknown interface", e: Endpoints{Interface: "tun99", Remote: netip.AddrPortFrom(addr("192.0.2.2"), 53)}, err: ErrNoInterface},
		{
			name: "families", e: Endpoints{Local: netip.AddrPortFrom(addr("::1"), 0), Remote: netip.AddrPortFrom(addr("192.0.2.2"), 53)},
			err: syscall.EADDRNOTAVAIL,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &fakeBackend{}
			conn, err := New(b, ifs).(Packets).DialPacket(context.Background(), c.e)
			if c.err != nil {
				if !errors.Is(err, c.err) {
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
		})
	}
	s := New(&fakeBackend{dialErr: syscall.EADDRINUSE}, ifs).(Packets)
	remote := netip.AddrPortFrom(addr("192.0.2.2"), 53)
	if _, err := s.DialPacket(context.Background(), Endpoints{Remote: remote}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "192.0.2.2:53") {
		t.Errorf("in use: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.DialPacket(ended, Endpoints{Remote: remote}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if _, err := s.ListenPacket(ended, 0, remote); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}

func TestListenPacket(t *testing.T) {
	ifs := names{"local0", "tun12"}
	b := &fakeBackend{}
	s := New(b, ifs).(Packets)
	l, err := s.ListenPacket(context.Background(), 5, netip.AddrPortFrom(addr("fe80::1%tun12"), 53))
	if err != nil || b.dialed != "5 [fe80::1%1]:53" || l.LocalAddr().String() != "[fe80::1%tun12]:53" {
		t.Fatalf("%v, asked %q", err, b.dialed)
	}
	inner := l.(*namedPackets).PacketConn.(*fakePackets)
	for _, c := range []struct{ to, asked, back string }{
		{"[fe80::2%tun12]:7", "[fe80::2%1]:7", "[fe80::2%tun12]:7"},
		{"[fe80::2%9]:7", "[fe80::2%9]:7", "[fe80::2%9]:7"}, // an interface without a name
		{"[fe80::2]:7", "[fe80::2]:7", "[fe80::2]:7"},
		{"192.0.2.1:7", "192.0.2.1:7", "192.0.2.1:7"},
	} {
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.to))
		if _, err := l.WriteTo([]byte("x"), to); err != nil || inner.from[0].String() != c.asked || to.String() != c.to {
			t.Errorf("%s: %v, asked %v", c.to, err, inner.from)
		}
		if _, from, err := l.ReadFrom(nil); err != nil || from.String() != c.back {
			t.Errorf("%s came back from %v, %v", c.to, from, err)
		}
	}
	if _, err := l.WriteTo(nil, &net.UDPAddr{IP: net.ParseIP("fe80::2"), Port: 7, Zone: "tun99"}); !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), "tun99") {
		t.Errorf("unknown interface: %v", err)
	}
	if _, from, err := l.ReadFrom(nil); from != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from %v: %v", from, err)
	}
	for local, want := range map[string]error{"[fe80::1]:53": ErrNeedInterface, "[fe80::1%tun99]:53": ErrNoInterface} {
		if _, err := s.ListenPacket(context.Background(), 0, netip.MustParseAddrPort(local)); !errors.Is(err, want) {
			t.Errorf("%s: %v", local, err)
		}
	}
	b.dialErr = syscall.EADDRINUSE
	if _, err := s.ListenPacket(context.Background(), 3, netip.AddrPortFrom(netip.IPv4Unspecified(), 53)); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "table 3") {
		t.Errorf("in use: %v", err)
	}
}
