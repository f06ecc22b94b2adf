package hoststack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// path is a fake way to a target: routers at each hop ("" is silent), then the target, each a millisecond further.
type path struct {
	routers []string
	target  string
	deaf    bool     // the target does not answer
	noise   [][]byte // delivered before each answer
	sent    func(packet []byte)
	errs    map[int]echoError // by hop: what the router says instead of forwarding
}

type echoError struct {
	typ  icmp.Type
	code int
	rest uint32
}

// conduit is a probe's way into the fake.
type conduit struct {
	path   *path
	answer chan []byte
	closed chan struct{}
	once   sync.Once
	work   sync.WaitGroup
}

func newConduit(p *path) *conduit {
	return &conduit{path: p, answer: make(chan []byte, 64), closed: make(chan struct{})}
}

func (c *conduit) Read(b []byte) (int, error) {
	select {
	case a := <-c.answer:
		return copy(b, a), nil
	case <-c.closed:
		return 0, io.EOF
	}
}

func (c *conduit) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.work.Wait()
	return nil
}

func (c *conduit) Write(b []byte) (int, error) {
	packet := append([]byte(nil), b...)
	if c.path.sent != nil {
		c.path.sent(packet)
	}
	h, _, err := parseIP(packet)
	if err != nil {
		return 0, err
	}
	ttl := int(h.ttl)
	var reply []byte
	hop := len(c.path.routers) + 1
	for i, r := range c.path.routers {
		if e, ok := c.path.errs[i+1]; ok && ttl > i+1 {
			hop, reply = i+1, icmpError(addr(r), h.src, e, packet)
			break
		}
		if ttl == i+1 {
			hop = i + 1
			if r != "" {
				reply = icmpError(addr(r), h.src, timeExceeded(h.version), packet)
			}
			break
		}
	}
	if hop == len(c.path.routers)+1 && !c.path.deaf {
		reply = echoReply(h, packet)
	}
	c.work.Go(func() {
		select {
		case <-time.After(time.Duration(hop) * time.Millisecond):
		case <-c.closed:
			return
		}
		for _, p := range append(c.path.noise, reply) {
			if p == nil {
				continue
			}
			select {
			case c.answer <- p:
			case <-c.closed:
			}
		}
	})
	return len(b), nil
}

func timeExceeded(version int) echoError {
	if version == 4 {
		return echoError{typ: ipv4.ICMPTypeTimeExceeded}
	}
	return echoError{typ: ipv6.ICMPTypeTimeExceeded}
}

// icmpError builds an error message about a packet, with as much of it as fits in 576 bytes.
func icmpError(from, to netip.Addr, e echoError, packet []byte) []byte {
	quote := packet[:min(len(packet), 500)]
	var typ byte
	switch t := e.typ.(type) {
	case ipv4.ICMPType:
		typ = byte(t)
	case ipv6.ICMPType:
		typ = byte(t)
	}
	b := append([]byte{typ, byte(e.code), 0, 0}, binary.BigEndian.AppendUint32(nil, e.rest)...)
	return wrap(from, to, append(b, quote...))
}

func echoReply(h ipHeader, packet []byte) []byte {
	_, body, err := parseIP(packet)
	if err != nil {
		panic(err)
	}
	b := append([]byte(nil), body...)
	b[0] = byte(ipv4.ICMPTypeEchoReply)
	if h.version == 6 {
		b[0] = byte(ipv6.ICMPTypeEchoReply)
	}
	return wrap(h.dst, h.src, b)
}

func wrap(from, to netip.Addr, icmp []byte) []byte {
	e := echo{src: from, dst: to, ttl: 61}
	if from.Is4() {
		return e.ipv4Packet(icmp)
	}
	return e.ipv6Packet(icmp)
}

func line(r Reply) string {
	s := fmt.Sprintf("%d", r.Seq)
	if r.Hop > 0 {
		s = fmt.Sprintf("hop %d", r.Hop)
	}
	if r.From.IsValid() {
		s += fmt.Sprintf(" %s %s ttl %d %d bytes", r.From, r.RTT, r.TTL, r.Bytes)
	}
	if r.Err != "" {
		s += " " + r.Err
	}
	if r.Final {
		s += " final"
	}
	return s
}

func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func newFake(p *path, source string) *fakeBackend {
	return &fakeBackend{source: addr(source), probes: func(uint32) io.ReadWriteCloser { return newConduit(p) }}
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &path{routers: []string{"10.1.0.1", "10.2.0.1"}, target: "10.2.0.2", noise: [][]byte{{}, {0x45}, []byte(strings.Repeat("x", 70))}}
		p.sent = func(b []byte) {
			n++
			p.deaf = n == 2
			if b[8] != 64 || b[6] != 0x40 || checksum(b[:20]) != 0 || len(b) != 20+8+56 {
				t.Errorf("packet %x", b)
			}
		}
		var lines []string
		s, err := NewProber(InProcess(newFake(p, "10.1.0.2")), names{}).Ping(t.Context(),
			PingRequest{Target: Target{Addr: addr("10.2.0.2"), Size: 56, DontFrag: true}, Count: 3, Interval: 200 * time.Millisecond},
			func(r Reply) { lines = append(lines, line(r)) })
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, lines, []string{"1 10.2.0.2 3ms ttl 61 64 bytes", "3 10.2.0.2 3ms ttl 61 64 bytes", "2 timeout"})
		if s != (Summary{Sent: 3, Received: 2, Min: 3 * time.Millisecond, Avg: 3 * time.Millisecond, Max: 3 * time.Millisecond}) {
			t.Errorf("summary %+v", s)
		}
	})
}

func TestPingErrors(t *testing.T) {
	for _, c := range []struct {
		dst, src, router string
		e                echoError
		want             string
	}{
		{"10.2.0.2", "10.1.0.2", "10.1.0.1", echoError{ipv4.ICMPTypeDestinationUnreachable, 1, 0}, "host unreachable"},
		{"10.2.0.2", "10.1.0.2", "10.1.0.1", echoError{ipv4.ICMPTypeDestinationUnreachable, 13, 0}, "administratively prohibited"},
		{"10.2.0.2", "10.1.0.2", "10.1.0.1", echoError{ipv4.ICMPTypeDestinationUnreachable, 4, 1420}, "fragmentation needed (MTU 1420)"},
		{"10.2.0.2", "10.1.0.2", "10.1.0.1", echoError{ipv4.ICMPTypeDestinationUnreachable, 77, 0}, "destination unreachable, code 77"},
		{"10.2.0.2", "10.1.0.2", "10.1.0.1", timeExceeded(4), "time exceeded"},
		{"fd00:2::2", "fd00:1::2", "fd00:1::1", echoError{ipv6.ICMPTypeDestinationUnreachable, 0, 0}, "no route to destination"},
		{"fd00:2::2", "fd00:1::2", "fd00:1::1", echoError{ipv6.ICMPTypePacketTooBig, 0, 1280}, "packet too big (MTU 1280)"},
		{"fd00:2::2", "fd00:1::2", "fd00:1::1", timeExceeded(6), "time exceeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got Reply
			s, err := NewProber(InProcess(newFake(&path{routers: []string{c.router}, target: c.dst, errs: map[int]echoError{1: c.e}}, c.src)), names{}).
				Ping(t.Context(), PingRequest{Target: Target{Addr: addr(c.dst), Size: 1000}, Count: 1}, func(r Reply) { got = r })
			if err != nil || got.Err != c.want || got.From != addr(c.router) || s.Received != 0 {
				t.Errorf("%s: %+v, %v", c.want, got, err)
			}
		})
	}
}

func TestTraceroute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFake(&path{routers: []string{"fd00:1::1", "", "fd00:2::1"}, target: "fd00:2::2"}, "fd00:1::2")
		var lines []string
		err := NewProber(InProcess(b), names{}).Traceroute(t.Context(), TraceRequest{Target: Target{Addr: addr("fd00:2::2"), Size: 10}, Count: 1},
			func(r Reply) { lines = append(lines, line(r)) })
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, lines, []string{
			"hop 1 fd00:1::1 1ms ttl 61 66 bytes time exceeded", "hop 2 timeout",
			"hop 3 fd00:2::1 3ms ttl 61 66 bytes time exceeded", "hop 4 fd00:2::2 4ms ttl 61 18 bytes final",
		})
	})
	synctest.Test(t, func(t *testing.T) { // a router says no: nothing is beyond it
		b := newFake(&path{routers: []string{"10.1.0.1", "10.2.0.1"}, target: "10.2.0.2", errs: map[int]echoError{2: {ipv4.ICMPTypeDestinationUnreachable, 1, 0}}}, "10.1.0.2")
		var lines []string
		if err := NewProber(InProcess(b), names{}).Traceroute(t.Context(), TraceRequest{Target: Target{Addr: addr("10.2.0.2")}, Count: 1}, func(r Reply) { lines = append(lines, line(r)) }); err != nil {
			t.Fatal(err)
		}
		wantLines(t, lines, []string{
			"hop 1 10.1.0.1 1ms ttl 61 36 bytes time exceeded", "hop 2 10.2.0.1 2ms ttl 61 36 bytes time exceeded", "hop 3 10.2.0.1 2ms ttl 61 36 bytes host unreachable final",
		})
	})
	synctest.Test(t, func(t *testing.T) {
		b := newFake(&path{target: "10.2.0.2", deaf: true}, "10.1.0.2")
		n := 0
		if err := NewProber(InProcess(b), names{}).Traceroute(t.Context(), TraceRequest{Target: Target{Addr: addr("10.2.0.2")}, MaxHops: 4}, func(r Reply) { n++ }); err != nil || n != 12 {
			t.Errorf("%d answers from nobody, %v", n, err)
		}
	})
}

// A router that limits its errors to one in a while loses some answers: they are asked for again. One that never answers is
// asked once, and a target that has stopped answering a few times.
func TestTracerouteAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &path{routers: []string{"10.1.0.1", ""}, target: "10.2.0.2"}
		asked := make(map[byte]int) // by TTL
		seqs := make(map[uint16]bool)
		p.sent = func(b []byte) {
			ttl := b[8]
			asked[ttl]++
			p.routers[0] = "10.1.0.1"
			if asked[1] == 2 || asked[1] == 3 || asked[1] == 4 {
				p.routers[0] = "" // of the first hop's, the second and third, and then the second again
			}
			p.deaf = ttl == 3 && asked[3] > 1
			seq := binary.BigEndian.Uint16(b[26:])
			if seqs[seq] {
				t.Errorf("sequence number %d twice", seq)
			}
			seqs[seq] = true
		}
		var lines []string
		began := time.Now()
		err := NewProber(InProcess(newFake(p, "10.1.0.2")), names{}).Traceroute(t.Context(), TraceRequest{Target: Target{Addr: addr("10.2.0.2")}},
			func(r Reply) { lines = append(lines, fmt.Sprintf("%d %s", r.Seq, line(r))) })
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, lines, []string{
			"1 hop 1 10.1.0.1 1ms ttl 61 36 bytes time exceeded", "3 hop 1 10.1.0.1 1ms ttl 61 36 bytes time exceeded",
			"2 hop 1 10.1.0.1 1ms ttl 61 36 bytes time exceeded",
			"4 hop 2 timeout", "5 hop 2 timeout", "6 hop 2 timeout",
			"7 hop 3 10.2.0.2 3ms ttl 61 8 bytes final", "8 hop 3 timeout", "9 hop 3 timeout",
		})
		if asked[1] != 6 || asked[2] != 3 || asked[3] != 7 {
			t.Errorf("requests by hop: %v", asked)
		}
		t.Logf("took %s", time.Since(began))
	})
}

// Several runs at once get their own answers only; a cancelled one ends at once and leaves nothing behind.
func TestManyPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		conduits := map[*conduit]bool{}
		b := &fakeBackend{source: addr("10.1.0.2")}
		b.probes = func(uint32) io.ReadWriteCloser {
			mu.Lock()
			defer mu.Unlock()
			c := newConduit(&path{target: "10.2.0.2"})
			// Everybody gets everything, as on a node.
			c.path.sent = func(packet []byte) {
				h, _, _ := parseIP(packet)
				mu.Lock()
				defer mu.Unlock()
				for other := range conduits {
					select {
					case other.answer <- echoReply(h, packet):
					default:
					}
				}
			}
			c.path.deaf = true
			conduits[c] = true
			return c
		}
		prober := NewProber(InProcess(b), names{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				s, err := prober.Ping(t.Context(), PingRequest{Target: Target{Addr: addr("10.2.0.2")}, Count: 5, Interval: 10 * time.Millisecond}, func(Reply) {})
				if err != nil || s.Received != 5 || s.Sent != 5 {
					t.Errorf("%+v, %v", s, err)
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := prober.Ping(ctx, PingRequest{Target: Target{Addr: addr("10.2.0.3")}, Count: 1000}, func(Reply) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
		if len(prober.used) != 0 {
			t.Errorf("identifiers left: %v", prober.used)
		}
	})
}

func TestProbeRefusals(t *testing.T) {
	p := NewProber(InProcess(&fakeBackend{}), names{"local0", "tun12"})
	for _, c := range []struct {
		target Target
		err    error
		text   string
	}{
		{Target{Addr: addr("10.0.0.1")}, syscall.ENETUNREACH, ""},
		{Target{Addr: addr("fe80::1")}, ErrNeedInterface, ""},
		{Target{Addr: addr("fe80::1%nope")}, ErrNoInterface, "nope"},
		{Target{Addr: addr("10.0.0.1"), Source: addr("::1")}, syscall.EADDRNOTAVAIL, "another family"},
		{Target{Addr: addr("224.0.0.1")}, nil, "no address of a node"},
		{Target{Addr: addr("10.0.0.1"), Size: 70000}, nil, "size is 70000"},
		{Target{}, nil, "ping"},
	} {
		_, err := p.Ping(t.Context(), PingRequest{Target: c.target}, func(Reply) {})
		if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.target, err)
		}
	}
	if _, err := p.Ping(t.Context(), PingRequest{Target: Target{Addr: addr("10.0.0.1")}, TTL: 256}, nil); err == nil || !strings.Contains(err.Error(), "TTL is 256") {
		t.Error(err)
	}
	// The dataplane goes away in the middle.
	b := newFake(&path{deaf: true}, "10.0.0.2")
	b.probes = func(uint32) io.ReadWriteCloser {
		c := newConduit(&path{deaf: true})
		time.AfterFunc(20*time.Millisecond, func() { c.Close() })
		return c
	}
	if _, err := NewProber(InProcess(b), names{}).Ping(t.Context(), PingRequest{Target: Target{Addr: addr("10.0.0.1")}}, func(Reply) {}); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, dst := range []string{"10.2.0.2", "fd00::2"} {
		src := addr("10.1.0.1")
		if addr(dst).Is6() {
			src = addr("fd00::1")
		}
		packet, err := echo{src: src, dst: addr(dst), id: 7, seq: 9, ttl: 3, size: 20}.marshal()
		if err != nil {
			f.Fatal(err)
		}
		h, _, err := parseIP(packet)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
		f.Add(echoReply(h, packet))
		f.Add(icmpError(h.dst, h.src, timeExceeded(h.version), packet))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err == nil && (!a.from.IsValid() || !a.dst.IsValid() || a.from.Is4() != a.dst.Is4() || a.bytes > len(b)) {
			t.Errorf("%x is %+v", b, a)
		}
	})
}
