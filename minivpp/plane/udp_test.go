package plane

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reflect answers every datagram of a socket with a word, the addresses it saw, and the datagram.
func reflect(tb testing.TB, c net.PacketConn, word string) {
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, maxPacket)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					tb.Errorf("%s: %v", word, err)
				}
				return
			}
			head := word + " " + from.String() + "\n"
			if _, err := c.WriteTo(append([]byte(head), b[:n]...), from); errors.Is(err, net.ErrClosed) {
				return
			} else if err != nil && !errors.Is(err, syscall.EMSGSIZE) { // with the word
				tb.Errorf("%s to %v: %v", word, from, err)
			}
		}
	})
	tb.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
}

// ask sends a datagram on a dialled socket and returns the answer's head, after checking the rest.
func ask(tb testing.TB, c net.Conn, data []byte) string {
	tb.Helper()
	if _, err := c.Write(data); err != nil {
		tb.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, maxPacket)
	n, err := c.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	head, rest, _ := bytes.Cut(b[:n], []byte("\n"))
	if !bytes.Equal(rest, data) {
		tb.Errorf("%d bytes came back as %d others", len(data), len(rest))
	}
	return string(head)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// TestUDPEcho: global addresses of both families, sources chosen and given, and datagrams longer than every MTU, also one that
// only a router on the way knows.
func TestUDPEcho(t *testing.T) {
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
	m.ok(m.SetMTU(mb, MTU{L3: 1300}))
	for _, l := range []string{"0.0.0.0:53", "[::]:53"} {
		reflect(t, must(b.ListenUDP(0, ap(l))), "B")
	}
	for _, tt := range []struct {
		idx            uint32
		from, to, head string
		most           int
	}{
		{NoInterface, "", "10.0.2.2:53", "B 10.0.1.1:", 65507},
		{am, "10.0.1.1:4000", "10.0.2.2:53", "B 10.0.1.1:4000", 65507},
		{NoInterface, "0.0.0.0:4001", "10.0.2.2:53", "B 10.0.1.1:4001", 65507},
		{NoInterface, "", "[2001:db8:2::2]:53", "B [2001:db8:1::1]:", 65487},
		{am, "[2001:db8:1::1]:4000", "[2001:db8:2::2]:53", "B [2001:db8:1::1]:4000", 65487},
	} {
		var from netip.AddrPort
		if tt.from != "" {
			from = ap(tt.from)
		}
		c, err := a.DialUDP(0, tt.idx, from, ap(tt.to))
		if err != nil {
			t.Fatalf("%s: %v", tt.to, err)
		}
		for _, n := range []int{4, 0, 1, 1253, 1400, 1473, 9000, 60000} { // the first resolves the neighbours
			if head := ask(t, c, noise(n)); !strings.HasPrefix(head, tt.head) {
				t.Errorf("%d bytes: %s, want %s", n, head, tt.head)
			}
		}
		if l := c.LocalAddr().(*net.UDPAddr); l.Port == 0 || (from.Port() != 0 && l.Port != int(from.Port())) {
			t.Errorf("local %v", l)
		}
		r := c.RemoteAddr().(*net.UDPAddr)
		if v4 := ap(tt.to).Addr().Is4(); r.String() != tt.to || (v4 && len(r.IP) != 4) {
			t.Errorf("remote %#v", r)
		}
		if _, err := c.Write(make([]byte, tt.most+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too long: %v", err)
		}
		if n, err := c.Write(make([]byte, tt.most)); err != nil || n != tt.most {
			t.Errorf("longest: %d, %v", n, err)
		}
		c.Close()
	}
	// A node can talk to itself, in the largest datagrams.
	for to, most := range map[string]int{"10.0.2.2:53": 65507, "[2001:db8:2::2]:53": 65487} {
		c := must(b.DialUDP(0, NoInterface, netip.AddrPort{}, ap(to)))
		head := ask(t, c, noise(most-60)) // room for the head
		if want := "B " + c.LocalAddr().String(); head != want {
			t.Errorf("%s, want %s", head, want)
		}
		c.Close()
		l := must(b.ListenUDP(0, netip.AddrPortFrom(ap(to).Addr(), 0)))
		must(l.WriteTo(noise(most), l.LocalAddr()))
		if n, _, err := l.ReadFrom(make([]byte, maxPacket)); n != most || err != nil {
			t.Errorf("%d of %d bytes, %v", n, most, err)
		}
		l.Close()
	}
	if e := m.Errors()[causeNames[errTooBig]]; e != 0 {
		t.Errorf("%d packets were too big for the middle", e)
	}
}

// TestUDPTwins: the same fe80:: addresses and ports on two links, dialled from either side, and an unbound listener that answers
// each on its own.
func TestUDPTwins(t *testing.T) {
	a, b, c := newRig(t), newRig(t), newRig(t)
	ab, ba := cable(a, b, []string{"fe80::1/128"}, []string{"fe80::2/128"})
	ac, ca := cable(a, c, []string{"fe80::1/128"}, []string{"fe80::2/128"})
	reflect(t, must(a.ListenUDP(0, ap("[::]:53"))), "A")
	reflect(t, must(b.ListenUDP(0, ap("[::]:53"))), "B")
	reflect(t, must(c.ListenUDP(0, ap(sprintf("[fe80::2%%%d]:53", ca)))), "C")
	for _, x := range []struct {
		r                    *rig
		idx, there           uint32
		from, to, word, peer string
	}{
		{a, ab, ba, "[fe80::1]:4000", "[fe80::2]:53", "B", "fe80::1"},
		{a, ac, ca, "[fe80::1]:4000", "[fe80::2]:53", "C", "fe80::1"},
		{b, ba, ab, "[fe80::2]:4000", "[fe80::1]:53", "A", "fe80::2"},
		{c, ca, ac, "[fe80::2]:4000", "[fe80::1]:53", "A", "fe80::2"},
	} {
		conn := must(x.r.DialUDP(0, x.idx, ap(x.from), ap(x.to)))
		defer conn.Close()
		for _, n := range []int{3, 20000} {
			if head, want := ask(t, conn, noise(n)), sprintf("%s [%s%%%d]:4000", x.word, x.peer, x.there); head != want {
				t.Errorf("%s, want %s", head, want)
			}
		}
		if l, want := conn.LocalAddr().String(), sprintf("[%s%%%d]:4000", x.peer, x.idx); l != want {
			t.Errorf("local %s, want %s", l, want)
		}
		if z := conn.RemoteAddr().(*net.UDPAddr).Zone; z != sprintf("%d", x.idx) {
			t.Errorf("remote zone %s", z)
		}
	}
	// Two sockets of A bound to the same address and port, each on its own link.
	onB := must(a.ListenUDP(0, ap(sprintf("[fe80::1%%%d]:99", ab))))
	onC := must(a.ListenUDP(0, ap(sprintf("[fe80::1%%%d]:99", ac))))
	if got := onC.LocalAddr().String(); got != sprintf("[fe80::1%%%d]:99", ac) {
		t.Error(got)
	}
	to := func(zone uint32) *net.UDPAddr {
		return &net.UDPAddr{IP: net.ParseIP("fe80::2"), Port: 53, Zone: sprintf("%d", zone)}
	}
	if _, err := onB.WriteTo([]byte("x"), to(ac)); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("out of the other link: %v", err)
	}
	for word, s := range map[string]net.PacketConn{"B": onB, "C": onC} {
		plain := to(0)
		plain.Zone = "" // its own
		must(s.WriteTo([]byte("x"), plain))
		buf := make([]byte, 100)
		s.SetReadDeadline(time.Now().Add(time.Minute))
		if n, _, err := s.ReadFrom(buf); err != nil || string(buf[:1]) != word {
			t.Errorf("%s: %q, %v", word, buf[:n], err)
		}
		s.SetReadDeadline(time.Time{})
	}
	// A link goes: its socket closes, the other stays, and nothing leaves by the one that is gone.
	done := make(chan error, 1)
	go func() { _, _, err := onB.ReadFrom(make([]byte, 1)); done <- err }()
	a.ok(a.DetachPort(ab))
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("on a removed interface: %v", err)
	}
	if _, err := onC.WriteTo([]byte("x"), to(ac)); err != nil {
		t.Error(err)
	}
	free := must(a.ListenUDP(0, ap("[::]:98")))
	defer free.Close()
	for _, zone := range []uint32{ab, 77} {
		if _, err := free.WriteTo([]byte("x"), to(zone)); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("zone %d: %v", zone, err)
		}
	}
	onC.Close()
}

// TestUDPRefused: nobody has the port, and a dialled socket hears it in the call that waits and in the next write.
func TestUDPRefused(t *testing.T) {
	a, b := newRig(t), newRig(t)
	ab, _ := cable(a, b, []string{"10.0.0.1/24", "2001:db8::1/64", "fe80::1/128"}, []string{"10.0.0.2/24", "2001:db8::2/64", "fe80::2/128"})
	other := must(b.ListenUDP(0, ap("10.0.0.2:7"))) // the stack exists, the port does not
	defer other.Close()
	for _, to := range []string{"10.0.0.2:1", "[2001:db8::2]:1", "[fe80::2]:1", "10.0.0.1:1", "[fe80::1]:1"} {
		c := must(a.DialUDP(0, ab, netip.AddrPort{}, ap(to)))
		done := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
		must(c.Write([]byte("anybody?")))
		var oe *net.OpError
		if err := <-done; !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &oe) || oe.Op != "read" {
			t.Errorf("%s: read %v", to, err)
		}
		must(c.Write([]byte("anybody?")))
		eventually(t, "a write is refused", func() bool {
			_, err := c.Write([]byte("anybody?"))
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		c.Close()
	}
	// A listener is not disturbed by what one peer refuses.
	l := must(a.ListenUDP(0, ap("0.0.0.0:9")))
	before := b.Errors()[causeNames[errNoListener]]
	must(l.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1})) // 16 bytes of IPv4
	eventually(t, "refused", func() bool { return b.Errors()[causeNames[errNoListener]] > before })
	must(l.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(ap("10.0.0.1:9")))) // to itself
	if n, from, err := l.ReadFrom(make([]byte, 9)); n != 1 || err != nil || len(from.(*net.UDPAddr).IP) != 4 {
		t.Errorf("%d from %v, %v", n, from, err)
	}
	l.Close()
}

func TestUDPErrors(t *testing.T) {
	a := newRig(t)
	idx := a.port("10.0.0.1/24", "2001:db8::1/64", "fe80::1/128")
	a.route("10.66.0.0/16", Path{Type: PathUnreachable, SwIfIndex: NoInterface})
	a.route("0.0.0.0/0", via("10.0.0.2", idx))
	l := must(a.ListenUDP(0, ap("0.0.0.0:80")))
	l6 := must(a.ListenUDP(0, ap("[::]:80"))) // the families are apart
	for addr, want := range map[string]error{
		"0.0.0.0:80": syscall.EADDRINUSE, "10.0.0.1:80": syscall.EADDRINUSE, "[::]:80": syscall.EADDRINUSE,
		"10.0.0.9:81": syscall.EADDRNOTAVAIL, "[fe80::1]:81": syscall.EADDRNOTAVAIL, "[fe80::1%77]:81": syscall.EADDRNOTAVAIL,
		"224.0.0.9:81": syscall.EADDRNOTAVAIL,
	} {
		if c, err := a.ListenUDP(0, ap(addr)); !errors.Is(err, want) || c != nil {
			t.Errorf("listen %s: %v", addr, err)
		}
	}
	for _, err := range []error{errOf(a.ListenUDP(9, ap("0.0.0.0:80"))), errOf(a.ListenUDP(0, netip.AddrPort{}))} {
		if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		table, idx uint32
		from, to   string
		want       error
	}{
		{0, NoInterface, "", "[2001:db9::1]:1", syscall.ENETUNREACH},
		{0, NoInterface, "", "10.66.0.1:1", syscall.EHOSTUNREACH},
		{0, NoInterface, "", "[fe80::2]:1", syscall.ENETUNREACH},
		{0, 99, "", "[fe80::2]:1", syscall.ENETUNREACH},
		{7, NoInterface, "", "10.0.0.2:1", syscall.ENETUNREACH},
		{0, NoInterface, "10.0.0.9:0", "10.0.0.2:1", syscall.EADDRNOTAVAIL},
		{0, NoInterface, "[::1]:0", "10.0.0.2:1", syscall.EADDRNOTAVAIL},
		{0, NoInterface, "10.0.0.1:80", "10.0.0.2:1", syscall.EADDRINUSE},
		{0, NoInterface, "", "10.0.0.2:0", syscall.EINVAL},
		{0, NoInterface, "", "224.0.0.1:1", syscall.ENETUNREACH},
		{0, NoInterface, "", "255.255.255.255:1", syscall.ENETUNREACH},
	} {
		var from netip.AddrPort
		if tt.from != "" {
			from = ap(tt.from)
		}
		c, err := a.DialUDP(tt.table, tt.idx, from, ap(tt.to))
		var oe *net.OpError
		if !errors.Is(err, tt.want) || !errors.As(err, &oe) || c != nil {
			t.Errorf("dial %s: %v, want %v", tt.to, err, tt.want)
		}
	}
	for to, want := range map[net.Addr]error{
		&net.UDPAddr{IP: net.ParseIP("2001:db8::2"), Port: 1}: syscall.EAFNOSUPPORT,
		&net.UDPAddr{IP: net.IPv4(10, 66, 0, 1), Port: 1}:     syscall.EHOSTUNREACH,
		&net.UDPAddr{IP: net.IPv4(224, 0, 0, 1), Port: 1}:     syscall.ENETUNREACH,
		&net.UDPAddr{IP: net.IPv4(10, 0, 0, 2)}:               syscall.EINVAL,
		&net.UDPAddr{}:                                        syscall.EINVAL,
		&net.TCPAddr{}:                                        syscall.EINVAL,
		nil:                                                   syscall.EINVAL,
	} {
		if _, err := l.WriteTo([]byte("x"), to); !errors.Is(err, want) {
			t.Errorf("write to %v: %v, want %v", to, err, want)
		}
	}
	if any := must(a.ListenUDP(0, ap("10.0.0.1:0"))); any.LocalAddr().(*net.UDPAddr).Port == 0 {
		t.Error("no port")
	}
	l.Close()
	l6.Close()
	must(a.ListenUDP(0, ap("0.0.0.0:80"))).Close() // free again
}

func errOf[T any](_ T, err error) error { return err }

func TestUDPCalls(t *testing.T) {
	a := newRig(t)
	a.port("10.0.0.1/24")
	l := must(a.ListenUDP(0, ap("0.0.0.0:80")))
	buf := make([]byte, 10)
	// Deadlines: passed, moved while somebody waits, and none again.
	l.SetReadDeadline(time.Now().Add(-time.Second))
	_, _, err := l.ReadFrom(buf)
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Error(err)
	}
	l.SetReadDeadline(time.Now().Add(time.Hour))
	done := make(chan error, 1)
	read := func() { _, _, err := l.ReadFrom(buf); done <- err }
	go read()
	l.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	self := net.UDPAddrFromAddrPort(ap("10.0.0.1:80"))
	eventually(t, "writing times out", func() bool { return errors.Is(errOf(l.WriteTo([]byte("x"), self)), os.ErrDeadlineExceeded) })
	l.SetDeadline(time.Time{})
	for len(done) == 0 { // what was written before the deadline, if anything
		l.SetReadDeadline(time.Now().Add(-1))
		l.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if read(); errors.Is(<-done, os.ErrDeadlineExceeded) {
			break
		}
	}
	l.SetDeadline(time.Time{})
	// A short buffer takes what fits; no buffer takes a datagram too.
	for _, n := range []int{3, 0} {
		must(l.WriteTo([]byte("abcdef"), self))
		if got, from, err := l.ReadFrom(buf[:n]); got != n || err != nil || from.String() != self.String() {
			t.Errorf("%d from %v, %v", got, from, err)
		}
	}
	go read()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for _, err := range []error{errOf(l.WriteTo(buf, self)), l.SetReadDeadline(time.Time{})} {
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// A dialled socket writes to nobody else.
	c := must(a.DialUDP(0, NoInterface, netip.AddrPort{}, ap("10.0.0.1:81")))
	if _, err := c.(net.PacketConn).WriteTo(buf, self); !errors.Is(err, net.ErrWriteToConnected) {
		t.Error(err)
	}
	c.Close()
}

// TestUDPTables: the same port in two tables, and the end of one.
func TestUDPTables(t *testing.T) {
	a := newRig(t)
	a.ok(a.AddTable(10, false, "blue"))
	a.port("10.0.0.1/24")
	zero, ten := must(a.ListenUDP(0, ap("0.0.0.0:53"))), must(a.ListenUDP(10, ap("0.0.0.0:53")))
	done := make(chan error, 1)
	go func() { _, _, err := ten.ReadFrom(make([]byte, 1)); done <- err }()
	a.ok(a.DelTable(10, false))
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	reflect(t, zero, "zero")
	c := must(a.DialUDP(0, NoInterface, netip.AddrPort{}, ap("10.0.0.1:53")))
	if head := ask(t, c, []byte("x")); !strings.HasPrefix(head, "zero ") {
		t.Error(head)
	}
	c.Close()
	a.ok(a.AddTable(10, false, "blue"))
	must(a.ListenUDP(10, ap("0.0.0.0:53"))).Close()
}

// TestUDPFlood: what nobody reads is bounded, even if it is empty; damaged datagrams do not count.
func TestUDPFlood(t *testing.T) {
	r := twoPorts(t)
	l := must(r.ListenUDP(0, ap("0.0.0.0:53")))
	defer l.Close()
	bad := ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1000, 53, 5))
	put16(bad[header4Len+6:], 1) // not its checksum
	r.send(0, bad)
	long := ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1000, 53, 5))
	put16(long[header4Len+4:], udpLen+6) // more than there is
	r.send(0, long)
	short := ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1000, 53, 5))
	put16(short[header4Len+4:], udpLen+2) // padding after it
	r.send(0, short)
	for range maxDatagrams + 9 {
		r.send(0, ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1000, 53, 0)))
	}
	eventually(t, "the socket is full", func() bool { return r.Errors()[causeNames[errSocketFull]] == 10 })
	if n := r.Errors()[causeNames[errLength]]; n != 1 {
		t.Errorf("%d lengths were wrong", n)
	}
	for k := range maxDatagrams {
		want := 0
		if k == 0 {
			want = 2
		}
		if n, _, err := l.ReadFrom(make([]byte, 9)); n != want || err != nil {
			t.Fatalf("datagram %d: %d bytes, %v", k, n, err)
		}
	}
	l.SetReadDeadline(time.Now().Add(-1))
	if _, _, err := l.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	l.SetReadDeadline(time.Now().Add(time.Minute))
	r.send(0, ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1000, 53, 3))) // there is room again
	if n, _, err := l.ReadFrom(make([]byte, 9)); n != 3 || err != nil {
		t.Error(n, err)
	}
}
