package plane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// cable joins two rigs by interfaces with the given addresses and returns their indexes.
func cable(a, b *rig, addrA, addrB []string) (uint32, uint32) {
	pa, pb := wire()
	n := byte(len(a.ports)<<4 | len(b.ports))
	return a.attach(pa, [6]byte{2, 0xaa, 0, 0, a.id, n}, addrA...), b.attach(pb, [6]byte{2, 0xbb, 0, 0, b.id, n}, addrB...)
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

// serve echoes every connection of a listener, prefixed by a word.
func serve(tb testing.TB, l net.Listener, word string) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, word+" "+c.LocalAddr().String()+" "+c.RemoteAddr().String()+"\n")
				io.Copy(c, c)
			}()
		}
	}()
	tb.Cleanup(func() { l.Close() })
}

func readLine(tb testing.TB, c net.Conn) string {
	tb.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil {
			tb.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			c.SetReadDeadline(time.Time{})
			return string(line)
		}
		line = append(line, b[0])
	}
}

// TestLinkLocalTwins is the reason for the NICs: one router with fe80::1 on two links, a peer fe80::2 on each, sessions with the
// very same addresses and ports in both directions.
func TestLinkLocalTwins(t *testing.T) {
	a, b, c := newRig(t), newRig(t), newRig(t)
	ab, ba := cable(a, b, []string{"fe80::1/128"}, []string{"fe80::2/128"})
	ac, ca := cable(a, c, []string{"fe80::1/128"}, []string{"fe80::2/128"})
	for _, x := range []struct {
		r    *rig
		name string
	}{{a, "A"}, {b, "B"}, {c, "C"}} {
		serve(t, must(x.r.ListenTCP(0, ap("[::]:179"))), x.name)
	}
	ctx := testContext(t)
	dial := func(r *rig, idx uint32, from, to string) (net.Conn, string) {
		t.Helper()
		conn, err := r.DialTCP(ctx, 0, idx, ap(from), ap(to))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, readLine(t, conn)
	}
	// Active from A, the same source port on both links.
	ab1, hello := dial(a, ab, "[fe80::1]:40000", "[fe80::2]:179")
	if want := sprintf("B [fe80::2%%%d]:179 [fe80::1%%%d]:40000", ba, ba); hello != want {
		t.Errorf("%s, want %s", hello, want)
	}
	ac1, hello := dial(a, ac, "[fe80::1]:40000", "[fe80::2]:179")
	if want := sprintf("C [fe80::2%%%d]:179 [fe80::1%%%d]:40000", ca, ca); hello != want {
		t.Errorf("%s, want %s", hello, want)
	}
	if l := ac1.LocalAddr().(*net.TCPAddr); l.Zone != strconv.Itoa(int(ac)) || l.Port != 40000 {
		t.Errorf("local address %v", l)
	}
	if r := ab1.RemoteAddr().(*net.TCPAddr); r.Zone != strconv.Itoa(int(ab)) || len(r.IP) != 16 {
		t.Errorf("remote address %v", r)
	}
	// Passive: both peers come from the same address and port.
	ba1, hello := dial(b, ba, "[fe80::2]:50000", "[fe80::1]:179")
	if want := sprintf("A [fe80::1%%%d]:179 [fe80::2%%%d]:50000", ab, ab); hello != want {
		t.Errorf("%s, want %s", hello, want)
	}
	ca1, hello := dial(c, ca, "[fe80::2]:50000", "[fe80::1]:179")
	if want := sprintf("A [fe80::1%%%d]:179 [fe80::2%%%d]:50000", ac, ac); hello != want {
		t.Errorf("%s, want %s", hello, want)
	}
	for k, conn := range []net.Conn{ab1, ac1, ba1, ca1} {
		word := sprintf("word %d", k)
		io.WriteString(conn, word+"\n")
		if got := readLine(t, conn); got != word {
			t.Errorf("conn %d: %q", k, got)
		}
	}
	// A link goes: its sessions are reset, the others stay.
	a.ok(a.DetachPort(ab))
	ab1.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := ab1.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("session on a removed interface: %v", err)
	}
	io.WriteString(ac1, "still\n")
	if got := readLine(t, ac1); got != "still" {
		t.Error(got)
	}
}

// TestTCPGlobal: sessions between global addresses, which may be on loopbacks, over any link.
func TestTCPGlobal(t *testing.T) {
	a, b := newRig(t), newRig(t)
	ab, ba := cable(a, b, []string{"10.0.0.1/30", "2001:db8::1/64"}, []string{"10.0.0.2/30", "2001:db8::2/64"})
	lo := must(b.CreateLoopback([6]byte{}, nil))
	b.ok(b.AddAddress(lo, mustPrefix("172.20.0.2/32")))
	b.ok(b.AddAddress(lo, mustPrefix("2001:db8:f::2/128")))
	b.ok(b.SetAdmin(lo, true))
	a.route("172.20.0.0/24", via("10.0.0.2", ab))
	a.route("2001:db8:f::/48", via("2001:db8::2", ab))
	for _, l := range []string{"0.0.0.0:80", "[::]:80"} {
		serve(t, must(b.ListenTCP(0, ap(l))), "B")
	}
	ctx := testContext(t)
	for _, tt := range []struct {
		idx             uint32
		from, to, hello string
	}{
		{NoInterface, "", "10.0.0.2:80", "B 10.0.0.2:80 10.0.0.1:"},
		{ab, "", "10.0.0.2:80", "B 10.0.0.2:80 10.0.0.1:"},
		{NoInterface, "0.0.0.0:4001", "172.20.0.2:80", "B 172.20.0.2:80 10.0.0.1:4001"},
		{NoInterface, "", "[2001:db8::2]:80", "B [2001:db8::2]:80 [2001:db8::1]:"},
		{ab, "[2001:db8::1]:4000", "[2001:db8:f::2]:80", "B [2001:db8:f::2]:80 [2001:db8::1]:4000"},
	} {
		var from netip.AddrPort
		if tt.from != "" {
			from = ap(tt.from)
		}
		c, err := a.DialTCP(ctx, 0, tt.idx, from, ap(tt.to))
		if err != nil {
			t.Fatalf("%s: %v", tt.to, err)
		}
		if got := readLine(t, c); got[:min(len(got), len(tt.hello))] != tt.hello {
			t.Errorf("%s, want %s", got, tt.hello)
		}
		r := c.RemoteAddr().(*net.TCPAddr)
		if v4 := ap(tt.to).Addr().Is4(); (v4 && len(r.IP) != 4) || r.Zone != "" {
			t.Errorf("remote %#v", r)
		}
		transfer(t, c, 1<<20)
		c.Close()
	}
	// A node can talk to itself.
	c, err := b.DialTCP(ctx, 0, NoInterface, netip.AddrPort{}, ap("172.20.0.2:80"))
	b.ok(err)
	if got := readLine(t, c); got[:15] != "B 172.20.0.2:80" {
		t.Error(got)
	}
	c.Close()
	_ = ba
}

// transfer sends n bytes to an echo server and compares what comes back.
func transfer(tb testing.TB, c net.Conn, n int) {
	tb.Helper()
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	errs := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		errs <- err
	}()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil {
		tb.Fatal(err)
	}
	if err := <-errs; err != nil {
		tb.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(data) {
		tb.Error("data differ")
	}
	c.SetReadDeadline(time.Time{})
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	a, b := newRig(t), newRig(t)
	ab, _ := cable(a, b, []string{"10.0.0.1/24", "fe80::1/128"}, []string{"10.0.0.2/24", "fe80::2/128"})
	a.route("10.66.0.0/16", Path{Type: PathUnreachable, SwIfIndex: NoInterface})
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	a.near(ab, "10.0.0.77", 9) // swallows everything
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		table uint32
		idx   uint32
		from  string
		to    string
		want  error
	}{
		{"closed port", testContext(t), 0, NoInterface, "", "10.0.0.2:1", syscall.ECONNREFUSED},
		{"closed port, link-local", testContext(t), 0, ab, "", "[fe80::2]:1", syscall.ECONNREFUSED},
		{"no route", testContext(t), 0, NoInterface, "", "192.0.2.1:1", syscall.ENETUNREACH},
		{"unreachable route", testContext(t), 0, NoInterface, "", "10.66.0.1:1", syscall.EHOSTUNREACH},
		{"link-local without interface", testContext(t), 0, NoInterface, "", "[fe80::2]:1", syscall.ENETUNREACH},
		{"no such interface", testContext(t), 0, 99, "", "[fe80::2]:1", syscall.ENETUNREACH},
		{"no such table", testContext(t), 7, NoInterface, "", "10.0.0.2:1", syscall.ENETUNREACH},
		{"alien source", testContext(t), 0, NoInterface, "10.0.0.9:0", "10.0.0.2:1", syscall.EADDRNOTAVAIL},
		{"wrong family", testContext(t), 0, NoInterface, "[::1]:0", "10.0.0.2:1", syscall.EADDRNOTAVAIL},
		{"dead neighbour", testContext(t), 0, NoInterface, "", "10.0.0.99:1", syscall.EHOSTUNREACH},
		{"time", short, 0, NoInterface, "", "10.0.0.77:1", context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var from netip.AddrPort
			if tt.from != "" {
				from = ap(tt.from)
			}
			c, err := a.DialTCP(tt.ctx, tt.table, tt.idx, from, ap(tt.to))
			var oe *net.OpError
			if !errors.Is(err, tt.want) || !errors.As(err, &oe) || c != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	a := newRig(t)
	idx := a.port("10.0.0.1/24", "2001:db8::1/64", "fe80::1/128")
	l := must(a.ListenTCP(0, ap("0.0.0.0:80")))
	l6 := must(a.ListenTCP(0, ap("[::]:80"))) // the families are apart
	for _, tt := range []struct {
		addr string
		want error
	}{
		{"0.0.0.0:80", syscall.EADDRINUSE},
		{"[::]:80", syscall.EADDRINUSE},
		{"10.0.0.9:81", syscall.EADDRNOTAVAIL},
		{"[fe80::1]:81", syscall.EADDRNOTAVAIL},
		{"[fe80::1%77]:81", syscall.EADDRNOTAVAIL},
	} {
		if _, err := a.ListenTCP(0, ap(tt.addr)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.addr, err)
		}
	}
	if _, err := a.ListenTCP(9, ap("0.0.0.0:80")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Error(err)
	}
	zoned := must(a.ListenTCP(0, ap(sprintf("[fe80::1%%%d]:81", idx))))
	if z := zoned.Addr().(*net.TCPAddr); z.Zone != sprintf("%d", idx) || z.IP.String() != "fe80::1" {
		t.Errorf("%v", z)
	}
	zoned.Close()
	if a := l.Addr().String(); a != "0.0.0.0:80" {
		t.Error(a)
	}
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	l6.Close()
	must(a.ListenTCP(0, ap("0.0.0.0:80"))).Close() // free again
	if any := must(a.ListenTCP(0, ap("10.0.0.1:0"))); any.Addr().(*net.TCPAddr).Port == 0 {
		t.Error("no port")
	}
}

func TestConnCalls(t *testing.T) {
	a, b := newRig(t), newRig(t)
	cable(a, b, []string{"10.0.0.1/24"}, []string{"10.0.0.2/24"})
	l := must(b.ListenTCP(0, ap("0.0.0.0:80")))
	accepted := make(chan net.Conn, 1)
	go func() { c, _ := l.Accept(); accepted <- c }()
	c := must(a.DialTCP(testContext(t), 0, NoInterface, netip.AddrPort{}, ap("10.0.0.2:80")))
	peer := <-accepted
	// Deadlines.
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	var ne net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
		t.Error(err)
	}
	c.SetReadDeadline(time.Time{})
	// A blocked read ends with Close.
	done := make(chan error)
	go func() { _, err := peer.Read(make([]byte, 1)); done <- err }()
	peer.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	c.Close()
	if _, err := c.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestTCPMTU: the MSS follows the links, so that nothing is lost on a narrow one; and what a router on the way reports is heard.
func TestTCPMTU(t *testing.T) {
	t.Parallel()
	a, m, b := newRig(t), newRig(t), newRig(t)
	am, ma := cable(a, m, []string{"10.0.1.1/24", "2001:db8:1::1/64"}, []string{"10.0.1.2/24", "2001:db8:1::2/64"})
	mb, bm := cable(m, b, []string{"10.0.2.1/24", "2001:db8:2::1/64"}, []string{"10.0.2.2/24", "2001:db8:2::2/64"})
	a.route("10.0.2.0/24", via("10.0.1.2", am))
	a.route("2001:db8:2::/64", via("2001:db8:1::2", am))
	b.route("10.0.1.0/24", via("10.0.2.1", bm))
	b.route("2001:db8:1::/64", via("2001:db8:2::1", bm))
	a.ok(a.SetMTU(am, MTU{L3: 1500}))
	m.ok(m.SetMTU(ma, MTU{L3: 1500}))
	m.ok(m.SetMTU(mb, MTU{L3: 1300})) // only the router in the middle knows
	b.ok(b.SetMTU(bm, MTU{L3: 2000}))
	for _, l := range []string{"0.0.0.0:80", "[::]:80"} {
		serve(t, must(b.ListenTCP(0, ap(l))), "B")
	}
	for _, to := range []string{"10.0.2.2:80", "[2001:db8:2::2]:80"} {
		c, err := a.DialTCP(testContext(t), 0, NoInterface, netip.AddrPort{}, ap(to))
		a.ok(err)
		readLine(t, c)
		transfer(t, c, 300_000)
		c.Close()
	}
	if e := m.Errors()[causeNames[errTooBig]]; e == 0 {
		t.Error("nobody ran into the narrow link")
	}
	if e := a.Errors()[causeNames[errTooBig]] + b.Errors()[causeNames[errTooBig]]; e != 0 {
		t.Errorf("%d own packets were too big", e)
	}
}

// TestTables: the same addresses in two tables are two nodes.
func TestTables(t *testing.T) {
	a, b := newRig(t), newRig(t)
	for _, r := range []*rig{a, b} {
		r.ok(r.AddTable(10, false, "blue"))
		r.ok(r.AddTable(10, true, "blue"))
	}
	bind := func(r *rig, idx uint32, addr string) {
		r.ok(r.SetTable(idx, false, 10))
		r.ok(r.SetTable(idx, true, 10))
		r.ok(r.AddAddress(idx, mustPrefix(addr)))
	}
	a0, b0 := cable(a, b, nil, nil)
	bind(a, a0, "10.0.0.1/24")
	bind(b, b0, "10.0.0.2/24")
	cable(a, b, []string{"10.0.0.1/24"}, []string{"10.0.0.2/24"})
	serve(t, must(b.ListenTCP(0, ap("0.0.0.0:80"))), "zero")
	serve(t, must(b.ListenTCP(10, ap("0.0.0.0:80"))), "ten")
	for table, word := range map[uint32]string{0: "zero", 10: "ten"} {
		c, err := a.DialTCP(testContext(t), table, NoInterface, netip.AddrPort{}, ap("10.0.0.2:80"))
		a.ok(err)
		if got := readLine(t, c); !bytes.HasPrefix([]byte(got), []byte(word+" ")) {
			t.Errorf("table %d: %s", table, got)
		}
		c.Close()
	}
	// The table stays while an interface is bound to it.
	a.ok(a.DelTable(10, false))
	if len(a.Tables()) != 4 {
		t.Errorf("%v", a.Tables())
	}
	a.ok(a.DelAllAddresses(a0))
	a.ok(a.SetTable(a0, false, 0))
	if len(a.Tables()) != 3 {
		t.Errorf("%v", a.Tables())
	}
}

// TestTTL: what the node sends has TTL 255.
func TestTTL(t *testing.T) {
	r := twoPorts(t)
	syn := make([]byte, tcpLen)
	put16(syn, 5000)
	put16(syn[2:], 80)
	syn[12], syn[13] = 5<<4, 2
	put16(syn[14:], 1000)
	in := ip4("10.1.0.2", "10.1.0.1", protoTCP, 1, syn)
	put16(in[header4Len+16:], fold(sum(in[header4Len:], pseudo(in[12:16], in[16:20], protoTCP, tcpLen))))
	r.send(0, in) // nobody listens: a reset
	b := r.expectIP(0)
	if b[8] != 255 || b[9] != protoTCP || b[header4Len+13]&4 == 0 {
		t.Errorf("% x", b)
	}
	must(r.ListenTCP(0, ap("0.0.0.0:80")))
	put16(in[header4Len:], 5001)
	put16(in[header4Len+16:], 0)
	put16(in[header4Len+16:], fold(sum(in[header4Len:], pseudo(in[12:16], in[16:20], protoTCP, tcpLen))))
	r.send(0, in)
	b = r.expectIP(0)
	if b[8] != 255 || b[header4Len+13] != 0x12 {
		t.Errorf("% x", b)
	}
}
