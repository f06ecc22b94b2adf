package plane

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// chain is three routers in a row, a - m - b, with routes both ways.
func chain(t *testing.T) (a, m, b *rig, am uint32) {
	a, m, b = newRig(t), newRig(t), newRig(t)
	am, _ = cable(a, m, []string{"10.0.1.1/24", "2001:db8:1::1/64", "fe80::1/128"}, []string{"10.0.1.2/24", "2001:db8:1::2/64", "fe80::2/128"})
	_, bm := cable(m, b, []string{"10.0.2.1/24", "2001:db8:2::1/64"}, []string{"10.0.2.2/24", "2001:db8:2::2/64"})
	a.route("0.0.0.0/0", via("10.0.1.2", am))
	a.route("::/0", via("2001:db8:1::2", am))
	b.route("0.0.0.0/0", via("10.0.2.1", bm))
	b.route("::/0", via("2001:db8:2::1", bm))
	return a, m, b, am
}

func TestPing(t *testing.T) {
	t.Parallel()
	a, m, b, am := chain(t)
	for _, tt := range []struct {
		dst  string
		idx  uint32
		size int
		ttl  byte // of the reply
	}{
		{"10.0.2.2", NoInterface, 0, echoTTL - 1},
		{"10.0.1.2", am, 1000, echoTTL},
		{"10.0.2.2", NoInterface, 20000, echoTTL - 1}, // in fragments, both ways
		{"10.0.1.1", NoInterface, 0, echoTTL},         // ourselves
		{"2001:db8:2::2", NoInterface, 0, echoTTL - 1},
		{"2001:db8:1::1", NoInterface, 0, echoTTL},
		{"fe80::2", am, 0, echoTTL},
		{"fe80::1", am, 0, echoTTL},
	} {
		n := 0
		res, err := a.Ping(testContext(t), PingRequest{Interface: tt.idx, Dst: mustAddr(tt.dst), Count: 3, Interval: time.Millisecond, Size: tt.size},
			func(r PingReply) {
				if !r.Reply || r.From.String() != tt.dst || r.TTL != tt.ttl || r.Seq >= 3 || r.RTT <= 0 { // the first ones may be reordered by resolution
					t.Errorf("%s: %+v", tt.dst, r)
				}
				n++
			})
		if err != nil || res != (PingResult{3, 3}) || n != 3 {
			t.Errorf("%s: %+v %v", tt.dst, res, err)
		}
	}
	// Errors on the way.
	for dst, want := range map[string]PingReply{
		"10.0.3.1":      {From: mustAddr("10.0.1.2"), Type: 3, Code: 0, TTL: 255},
		"2001:db8:3::1": {From: mustAddr("2001:db8:1::2"), Type: 1, Code: 0, TTL: 255},
		"10.0.2.255":    {}, // dropped on the way
	} {
		got := 0
		res, err := a.Ping(testContext(t), PingRequest{Interface: NoInterface, Dst: mustAddr(dst), Count: 1}, func(r PingReply) {
			got++
			r.RTT, r.Bytes = 0, 0
			if r != want {
				t.Errorf("%s: %+v", dst, r)
			}
		})
		if err != nil || res.Received != 0 || (got == 1) != want.From.IsValid() {
			t.Errorf("%s: %+v %v, %d answers", dst, res, err, got)
		}
	}
	for dst, want := range map[string]error{"fe80::2": syscall.EADDRNOTAVAIL, "255.255.255.255": syscall.ENETUNREACH} {
		if _, err := a.Ping(testContext(t), PingRequest{Interface: NoInterface, Dst: mustAddr(dst)}, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	if _, err := b.Ping(testContext(t), PingRequest{Table: 8, Interface: NoInterface, Dst: mustAddr("10.0.1.1")}, nil); !errors.Is(err, syscall.ENETUNREACH) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Ping(ctx, PingRequest{Interface: NoInterface, Dst: mustAddr("10.0.1.77")}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTraceroute sends UDP probes with growing TTLs, as hoststack's users do.
func TestTraceroute(t *testing.T) {
	a, _, _, _ := chain(t)
	p, err := a.OpenProbe(0, NoInterface)
	a.ok(err)
	defer p.Close()
	buf := make([]byte, 2000)
	for ttl, want := range []struct {
		from      string
		typ, code byte
	}{{"10.0.1.2", 11, 0}, {"10.0.2.2", 3, 3}} {
		k := ip4("0.0.0.0", "10.0.2.2", protoUDP, byte(ttl+1), udp(1000, 33434, 20))
		_, err := p.Write(k)
		a.ok(err)
		n, err := p.Read(buf)
		a.ok(err)
		if b := buf[:n]; sourceOf(b).String() != want.from || b[20] != want.typ || b[21] != want.code || !bytes.Equal(b[28+12:28+20], []byte{10, 0, 1, 1, 10, 0, 2, 2}) {
			t.Errorf("TTL %d: % x", ttl+1, b)
		}
	}
	for ttl, want := range []struct {
		from      string
		typ, code byte
	}{{"2001:db8:1::2", 3, 0}, {"2001:db8:2::2", 1, 4}} {
		_, err := p.Write(ip6("::", "2001:db8:2::2", protoUDP, byte(ttl+1), udp(1000, 33434, 20)))
		a.ok(err)
		n, err := p.Read(buf)
		a.ok(err)
		b := buf[:n]
		if sourceOf(b).String() != want.from || b[40] != want.typ || b[41] != want.code {
			t.Errorf("TTL %d: % x", ttl+1, b)
		}
		inner := b[48:]
		if fold(sum(inner[40:], pseudo(inner[8:24], inner[24:40], protoUDP, len(inner)-40))) != 0 {
			t.Error("UDP checksum of the probe")
		}
	}
}

func TestProbe(t *testing.T) {
	a, _, _, am := chain(t)
	a.ok(a.SetMTU(am, MTU{L3: 1400}))
	p, err := a.OpenProbe(0, NoInterface)
	a.ok(err)
	for name, tt := range map[string]struct {
		k    []byte
		want error
	}{
		"rubbish":       {[]byte{1, 2, 3}, syscall.EINVAL},
		"cut":           {make([]byte, 19), syscall.EINVAL},
		"header length": {func() []byte { b := ip4("0.0.0.0", "10.0.2.2", protoUDP, 1, nil); b[0] = 0x4f; return b }(), syscall.EINVAL},
		"alien source":  {ip4("192.0.2.1", "10.0.2.2", protoUDP, 1, udp(1, 2, 3)), syscall.EADDRNOTAVAIL},
		"alien link":    {ip6("fe80::1", "fe80::2", protoUDP, 1, udp(1, 2, 3)), syscall.EADDRNOTAVAIL},
		"too long":      {make([]byte, 70000), syscall.EMSGSIZE},
	} {
		if _, err := p.Write(tt.k); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Too big for the first link: we hear that from ourselves.
	buf := make([]byte, 2000)
	k := ip4("0.0.0.0", "10.0.2.2", protoICMP, 9, echo4(1, 1500))
	k[6] |= 0x40
	must(p.Write(k))
	if n := must(p.Read(buf)); buf[20] != 3 || buf[21] != 4 || get16(buf[26:]) != 1400 {
		t.Errorf("% x", buf[:n])
	}
	must(p.Write(ip6("::", "2001:db8:2::2", protoICMPv6, 9, echo6(1, 1500))))
	if n := must(p.Read(buf)); buf[40] != 2 || get32(buf[44:]) != 1400 {
		t.Errorf("% x", buf[:n])
	}
	// Nobody reads: the plane goes on.
	for range 2 * probeQueue {
		must(p.Write(ip4("0.0.0.0", "10.0.1.1", protoICMP, 9, echo4(1, 1))))
	}
	done := make(chan error)
	q, err := a.OpenProbe(0, am)
	a.ok(err)
	go func() { _, err := q.Read(buf); done <- err }()
	a.ok(q.Close())
	if err := <-done; err != io.EOF {
		t.Error(err)
	}
	a.ok(p.Close())
	if _, err := p.Read(buf); err != io.EOF {
		t.Error(err)
	}
	if _, err := p.Write(k); err == nil {
		t.Error("write after close")
	}
	if _, err := a.OpenProbe(0, 77); !errors.Is(err, syscall.ENODEV) {
		t.Error(err)
	}
}

func TestSourceFor(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24", "10.1.7.1/24", "2001:db8:1::1/64", "fe80::1/128") // 1
	r.port()                                                                // 2: unnumbered
	r.port("fe80::5/128")                                                   // 3: link-local only
	lo := must(r.CreateLoopback([6]byte{}, nil))
	r.ok(r.AddAddress(lo, mustPrefix("172.20.0.1/32")))
	r.ok(r.AddAddress(lo, mustPrefix("2001:db8:f::1/128")))
	r.ok(r.SetAdmin(lo, true))
	r.ok(r.SetUnnumbered(2, lo, true))
	r.route("192.0.2.0/24", via("10.1.7.9", 1))
	r.route("198.51.100.0/24", via("fe80::9", 2))
	r.route("203.0.113.0/24", via("fe80::9", 3))
	r.route("2001:db8:9::/48", via("fe80::9", 3))
	r.route("2001:db8:8::/48", via("2001:db8:1::9", NoInterface))
	for _, tt := range []struct {
		idx  uint32
		dst  string
		want string
		err  error
	}{
		{NoInterface, "10.1.0.9", "10.1.0.1", nil},
		{NoInterface, "10.1.7.9", "10.1.7.1", nil},
		{NoInterface, "192.0.2.1", "10.1.7.1", nil},
		{NoInterface, "198.51.100.1", "172.20.0.1", nil},
		{NoInterface, "203.0.113.1", "172.20.0.1", nil},
		{NoInterface, "2001:db8:9::1", "2001:db8:f::1", nil},
		{NoInterface, "2001:db8:8::1", "2001:db8:1::1", nil},
		{NoInterface, "172.20.0.1", "172.20.0.1", nil},
		{1, "fe80::9", "fe80::1", nil},
		{3, "fe80::9", "fe80::5", nil},
		{2, "10.77.0.1", "172.20.0.1", nil},
		{NoInterface, "fe80::9", "", syscall.EADDRNOTAVAIL},
		{NoInterface, "10.99.0.1", "", syscall.ENETUNREACH},
		{77, "10.1.0.9", "", syscall.ENODEV},
	} {
		got, err := r.SourceFor(0, tt.idx, mustAddr(tt.dst))
		if !errors.Is(err, tt.err) || (tt.want != "" && got.String() != tt.want) {
			t.Errorf("%s on %d: %v %v", tt.dst, int32(tt.idx), got, err)
		}
	}
	if _, err := r.SourceFor(9, NoInterface, mustAddr("10.1.0.9")); !errors.Is(err, syscall.ENETUNREACH) {
		t.Error(err)
	}
	if _, err := r.SourceFor(0, NoInterface, netip.Addr{}); !errors.Is(err, syscall.ENETUNREACH) {
		t.Error(err)
	}
}

// TestPingLong: sequence numbers have 16 bits, and nobody's count decides how much memory there is.
func TestPingLong(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.port("10.0.0.1/24")
	const count = 1<<16 + 500
	var times [1 << 16]int
	again := 0
	res, err := r.Ping(testContext(t), PingRequest{Interface: NoInterface, Dst: mustAddr("10.0.0.1"), Count: count, Interval: 1, Size: 1}, func(reply PingReply) {
		if times[reply.Seq]++; times[reply.Seq] == 2 {
			again++
		}
	})
	// At this speed some answers find the probe's queue full.
	if err != nil || res.Sent != count || res.Received > count || again == 0 {
		t.Errorf("%+v %v, %d numbers were used again", res, err, again)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Ping(ctx, PingRequest{Interface: NoInterface, Dst: mustAddr("10.0.0.1"), Count: 1<<31 - 1}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
