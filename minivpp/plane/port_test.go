package plane

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// testPort is a Port in memory: what is put into in arrives at the plane, and what the plane sends goes to out.
type testPort struct {
	in   chan []byte
	out  chan []byte
	done chan struct{}
	loss atomic.Bool // the cable eats everything
}

func newTestPort() *testPort {
	return &testPort{in: make(chan []byte, 4096), out: make(chan []byte, 4096), done: make(chan struct{})}
}

// wire returns two ports with a cable between them.
func wire() (*testPort, *testPort) {
	a := newTestPort()
	return a, &testPort{in: a.out, out: a.in, done: make(chan struct{})}
}

func (t *testPort) Run(ctx context.Context) error {
	<-ctx.Done()
	close(t.done)
	return nil
}

func (t *testPort) ReadBatch(_ int, bufs [][]byte, sizes []int) (int, error) {
	n := 0
	for n < len(bufs) {
		var f []byte
		if n == 0 {
			select {
			case f = <-t.in:
			case <-t.done:
				return 0, net.ErrClosed
			}
		} else {
			select {
			case f = <-t.in:
			default:
				return n, nil
			}
		}
		if len(f) > len(bufs[n]) {
			if n == 0 {
				continue
			}
			return n, nil
		}
		sizes[n] = copy(bufs[n], f)
		n++
	}
	return n, nil
}

func (t *testPort) WriteBatch(_ int, frames [][]byte) (int, error) {
	for n, f := range frames {
		if t.loss.Load() {
			continue
		}
		select {
		case t.out <- bytes.Clone(f):
		default:
			return n, nil
		}
	}
	return len(frames), nil
}

// expect returns the next frame that the plane sends.
func (t *testPort) expect(tb testing.TB) []byte {
	tb.Helper()
	select {
	case f := <-t.out:
		return f
	case <-time.After(time.Minute):
		tb.Fatal("the plane sent nothing")
		return nil
	}
}

// rig is a plane under test.
type rig struct {
	*Plane
	tb    testing.TB
	ports []*testPort
	fence int
	id    byte
}

var rigs atomic.Uint32

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{Plane: New(Config{}), tb: tb, id: byte(rigs.Add(1))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Error(err)
			}
		case <-time.After(time.Minute):
			tb.Error("Run does not end")
		}
	})
	return r
}

// ours is the plane's MAC on its n-th port, theirs that of the test.
func ours(n int) [6]byte   { return [6]byte{2, 0, 0, 0, 0, byte(n)} }
func theirs(n int) [6]byte { return [6]byte{2, 0, 0, 0, 1, byte(n)} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (r *rig) ok(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// port attaches a port with addresses, up; it returns its index. Port k has interface index k+1 in a fresh rig.
func (r *rig) port(addrs ...string) uint32 {
	r.tb.Helper()
	p := newTestPort()
	return r.attach(p, ours(len(r.ports)), addrs...)
}

func (r *rig) attach(p *testPort, mac [6]byte, addrs ...string) uint32 {
	r.tb.Helper()
	idx, err := r.AttachPort("port", mac, p, 1)
	r.ok(err)
	r.ports = append(r.ports, p)
	for _, a := range addrs {
		r.ok(r.AddAddress(idx, netip.MustParsePrefix(a)))
	}
	r.ok(r.SetAdmin(idx, true))
	return idx
}

// near adds a static neighbour with the MAC of the test's side of port n.
func (r *rig) near(idx uint32, addr string, n int) {
	r.tb.Helper()
	_, err := r.AddNeighbor(idx, Neighbor{Addr: netip.MustParseAddr(addr), MAC: theirs(n), Static: true})
	r.ok(err)
}

// route adds a route by API.
func (r *rig) route(pfx string, paths ...Path) {
	r.tb.Helper()
	_, err := r.AddRoute(0, netip.MustParsePrefix(pfx), RouteUpdate{Paths: paths})
	r.ok(err)
}

func via(addr string, idx uint32) Path {
	p := Path{SwIfIndex: idx, Weight: 1}
	if addr != "" {
		p.Addr = netip.MustParseAddr(addr)
	}
	return p
}

// send puts an IP packet on port n, as the test's host there.
func (r *rig) send(n int, ip []byte) { r.ports[n].in <- frame(ours(n), theirs(n), ip) }

func frame(dst, src [6]byte, ip []byte) []byte {
	f := make([]byte, etherLen+len(ip))
	t := uint16(etherIPv4)
	if ip[0]>>4 == 6 {
		t = etherIPv6
	}
	putEther(f, dst, src, t)
	copy(f[etherLen:], ip)
	return f
}

// expectIP returns the next IP packet on port n.
func (r *rig) expectIP(n int) []byte {
	r.tb.Helper()
	f := r.ports[n].expect(r.tb)
	if len(f) < etherLen+header4Len {
		r.tb.Fatalf("short frame % x", f)
	}
	return f[etherLen:]
}

// quiet fails when the plane sends something on any port. An echo request that must be answered tells when the plane is done.
func (r *rig) quiet(n int, own string) {
	r.tb.Helper()
	r.fence++
	host := netip.MustParseAddr(own).Next()
	r.send(n, udpless(host.String(), own, uint16(r.fence)))
	for {
		b := r.expectIP(n)
		if b[0]>>4 == 4 && b[9] == protoICMP && b[20] == icmp4EchoReply && get16(b[26:]) == uint16(r.fence) && get16(b[24:]) == 0xfe9c {
			break
		}
		r.tb.Fatalf("unexpected packet % x", b)
	}
	for k, p := range r.ports {
		select {
		case f := <-p.out:
			r.tb.Fatalf("unexpected frame on port %d: % x", k, f)
		default:
		}
	}
}

func udpless(src, dst string, seq uint16) []byte {
	m := make([]byte, 8)
	m[0] = icmp4Echo
	put16(m[4:], 0xfe9c)
	put16(m[6:], seq)
	put16(m[2:], checksum(m))
	return ip4(src, dst, protoICMP, 64, m)
}

func ip4(src, dst string, proto, ttl byte, payload []byte) []byte {
	b := make([]byte, header4Len+len(payload))
	b[0] = 0x45
	put16(b[2:], uint16(len(b)))
	put16(b[4:], 0x1234)
	b[8], b[9] = ttl, proto
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	copy(b[header4Len:], payload)
	put16(b[10:], checksum(b[:header4Len]))
	return b
}

func ip6(src, dst string, proto, limit byte, payload []byte) []byte {
	b := make([]byte, header6Len+len(payload))
	header6(b, netip.MustParseAddr(src), netip.MustParseAddr(dst), proto, limit)
	copy(b[header6Len:], payload)
	if proto == protoICMPv6 {
		seal6(b, header6Len)
	}
	return b
}

func udp(sport, dport uint16, n int) []byte {
	b := make([]byte, udpLen+n)
	put16(b, sport)
	put16(b[2:], dport)
	put16(b[4:], uint16(len(b)))
	return b
}

func echo4(seq uint16, n int) []byte {
	m := make([]byte, 8+n)
	m[0] = icmp4Echo
	put16(m[4:], 7)
	put16(m[6:], seq)
	for k := range m[8:] {
		m[8+k] = byte(k)
	}
	put16(m[2:], checksum(m))
	return m
}

func echo6(seq uint16, n int) []byte {
	m := make([]byte, 8+n)
	m[0] = icmp6Echo
	put16(m[4:], 7)
	put16(m[6:], seq)
	for k := range m[8:] {
		m[8+k] = byte(k)
	}
	return m
}

// eventually polls until ok, without a fixed sleep.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	// Pauses are counted and not the clock: a machine that is busy with others gives the test its time all the same.
	for range 10_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	tb.Fatal("never: " + what)
}
