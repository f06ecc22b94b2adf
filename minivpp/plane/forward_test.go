package plane

import (
	"bytes"
	"testing"

	"go.fd.io/govpp/api"
)

// twoPorts is a router with hosts on both sides whose MACs it knows.
func twoPorts(tb testing.TB) *rig {
	r := newRig(tb)
	a := r.port("10.1.0.1/24", "2001:db8:1::1/64")
	b := r.port("10.2.0.1/24", "2001:db8:2::1/64")
	r.near(a, "10.1.0.2", 0)
	r.near(a, "2001:db8:1::2", 0)
	r.near(b, "10.2.0.2", 1)
	r.near(b, "2001:db8:2::2", 1)
	return r
}

func TestForward4(t *testing.T) {
	r := twoPorts(t)
	in := ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 100))
	f := frame(ours(0), theirs(0), in)
	f = append(f, make([]byte, 7)...) // padding, to be cut
	r.ports[0].in <- f
	out := r.ports[1].expect(t)
	if [6]byte(out) != theirs(1) || [6]byte(out[6:]) != ours(1) {
		t.Errorf("MACs % x", out[:12])
	}
	b := out[etherLen:]
	if b[8] != 63 || checksum(b[:header4Len]) != 0 {
		t.Errorf("TTL %d, checksum %#x", b[8], checksum(b[:header4Len]))
	}
	if !bytes.Equal(b[header4Len:], in[header4Len:]) {
		t.Error("payload changed")
	}
	x, _ := r.Interface(1)
	if x.Counters.RxPackets != 1 || x.Counters.IP4 != 1 || x.Counters.Drops != 0 {
		t.Errorf("counters %+v", x.Counters)
	}
}

func TestForward6(t *testing.T) {
	r := twoPorts(t)
	in := ip6("2001:db8:1::2", "2001:db8:2::2", protoUDP, 64, udp(1, 2, 100))
	r.send(0, in)
	b := r.expectIP(1)
	if b[7] != 63 {
		t.Errorf("hop limit %d", b[7])
	}
	if in[7] = 63; !bytes.Equal(b, in) {
		t.Error("packet changed")
	}
}

// TestICMPErrors has one row for every error that the plane sends, and for every reason not to.
func TestICMPErrors(t *testing.T) {
	big := func(df bool, n int) []byte {
		b := ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, n))
		if df {
			b[6] |= 0x40
		}
		put16(b[10:], 0)
		put16(b[10:], checksum(b[:header4Len]))
		return b
	}
	edit4 := func(b []byte, fn func([]byte)) []byte {
		fn(b)
		put16(b[10:], 0)
		put16(b[10:], checksum(b[:header4Len]))
		return b
	}
	icmpError := []byte{3, 1, 0, 0, 0, 0, 0, 0}
	put16(icmpError[2:], checksum(icmpError))
	tests := []struct {
		name      string
		in        []byte
		typ, code byte
		info      uint32
		from      string
		none      bool
	}{
		{name: "ttl 1", in: ip4("10.1.0.2", "10.2.0.2", protoUDP, 1, udp(1, 2, 10)), typ: 11, from: "10.1.0.1"},
		{name: "ttl 0", in: ip4("10.1.0.2", "10.2.0.2", protoUDP, 0, udp(1, 2, 10)), typ: 11, from: "10.1.0.1"},
		{name: "no route", in: ip4("10.1.0.2", "192.0.2.1", protoUDP, 64, udp(1, 2, 10)), typ: 3, code: 0, from: "10.1.0.1"},
		{name: "unreachable route", in: ip4("10.1.0.2", "10.91.0.1", protoUDP, 64, udp(1, 2, 10)), typ: 3, code: 1, from: "10.1.0.1"},
		{name: "prohibit route", in: ip4("10.1.0.2", "10.92.0.1", protoUDP, 64, udp(1, 2, 10)), typ: 3, code: 13, from: "10.1.0.1"},
		{name: "drop route", in: ip4("10.1.0.2", "10.93.0.1", protoUDP, 64, udp(1, 2, 10)), none: true},
		{name: "too big, DF", in: big(true, 1500), typ: 3, code: 4, info: 1400, from: "10.1.0.1"},
		{name: "closed port", in: ip4("10.1.0.2", "10.1.0.1", protoUDP, 64, udp(1, 33434, 10)), typ: 3, code: 3, from: "10.1.0.1"},
		{name: "closed port of another interface", in: ip4("10.1.0.2", "10.2.0.1", protoUDP, 1, udp(1, 33434, 10)), typ: 3, code: 3, from: "10.1.0.1"},
		{name: "unknown protocol", in: ip4("10.1.0.2", "10.1.0.1", 99, 64, []byte{1, 2, 3, 4, 5, 6, 7, 8}), typ: 3, code: 2, from: "10.1.0.1"},
		{name: "about an ICMP error", in: ip4("10.1.0.2", "192.0.2.1", protoICMP, 64, icmpError), none: true},
		{name: "about an echo request", in: ip4("10.1.0.2", "192.0.2.1", protoICMP, 64, echo4(1, 1)), typ: 3, code: 0, from: "10.1.0.1"},
		{name: "about a later fragment", in: edit4(big(false, 100), func(b []byte) { put16(b[6:], 10); b[8] = 1 }), none: true},
		{name: "from 0.0.0.0", in: ip4("0.0.0.0", "192.0.2.1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "from loopback", in: ip4("127.0.0.1", "192.0.2.1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "from a group", in: ip4("224.0.0.1", "192.0.2.1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "to loopback", in: ip4("10.1.0.2", "127.0.0.1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "to a group", in: ip4("10.1.0.2", "224.0.0.1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "to broadcast", in: ip4("10.1.0.2", "255.255.255.255", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "to the subnet's broadcast", in: ip4("10.1.0.2", "10.1.0.255", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "bad checksum", in: func() []byte { b := big(false, 10); b[10]++; return b }(), none: true},
		{name: "bad version", in: func() []byte { b := big(false, 10); b[0] = 0x55; return b }(), none: true},
		{name: "short header", in: edit4(big(false, 10), func(b []byte) { b[0] = 0x44 }), none: true},
		{name: "wrong length", in: edit4(big(false, 10), func(b []byte) { put16(b[2:], 9999) }), none: true},
		{name: "length below the header", in: edit4(big(false, 10), func(b []byte) { put16(b[2:], 19) }), none: true},

		{name: "6 hop limit 1", in: ip6("2001:db8:1::2", "2001:db8:2::2", protoUDP, 1, udp(1, 2, 10)), typ: 3, from: "2001:db8:1::1"},
		{name: "6 no route", in: ip6("2001:db8:1::2", "2001:db8:9::2", protoUDP, 64, udp(1, 2, 10)), typ: 1, code: 0, from: "2001:db8:1::1"},
		{name: "6 unreachable route", in: ip6("2001:db8:1::2", "2001:db8:91::2", protoUDP, 64, udp(1, 2, 10)), typ: 1, code: 3, from: "2001:db8:1::1"},
		{name: "6 prohibit route", in: ip6("2001:db8:1::2", "2001:db8:92::2", protoUDP, 64, udp(1, 2, 10)), typ: 1, code: 1, from: "2001:db8:1::1"},
		{name: "6 too big", in: ip6("2001:db8:1::2", "2001:db8:2::2", protoUDP, 64, udp(1, 2, 1500)), typ: 2, info: 1400, from: "2001:db8:1::1"},
		{name: "6 closed port", in: ip6("2001:db8:1::2", "2001:db8:2::1", protoUDP, 64, udp(1, 2, 10)), typ: 1, code: 4, from: "2001:db8:1::1"},
		{name: "6 unknown protocol", in: ip6("2001:db8:1::2", "2001:db8:1::1", 99, 64, udp(1, 2, 10)), typ: 4, code: 1, info: 6, from: "2001:db8:1::1"},
		{name: "6 unknown protocol after options", in: ip6("2001:db8:1::2", "2001:db8:1::1", 60, 64, append([]byte{99, 0, 1, 4, 0, 0, 0, 0}, 1, 2, 3, 4, 5, 6, 7, 8)), typ: 4, code: 1, info: 40, from: "2001:db8:1::1"},
		{name: "6 routing header with segments left", in: ip6("2001:db8:1::2", "2001:db8:1::1", 43, 64, []byte{17, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), typ: 4, code: 0, info: 42, from: "2001:db8:1::1"},
		{name: "6 link-local source leaves its link", in: ip6("fe80::9", "2001:db8:2::2", protoUDP, 64, udp(1, 2, 1)), typ: 1, code: 2, from: "fe80::ff:fe00:0"},
		{name: "6 about an ICMPv6 error", in: ip6("2001:db8:1::2", "2001:db8:9::2", protoICMPv6, 64, []byte{1, 0, 0, 0, 0, 0, 0, 0}), none: true},
		{name: "6 about an echo request", in: ip6("2001:db8:1::2", "2001:db8:9::2", protoICMPv6, 64, echo6(1, 1)), typ: 1, code: 0, from: "2001:db8:1::1"},
		{name: "6 about a redirect", in: ip6("2001:db8:1::2", "2001:db8:9::2", protoICMPv6, 64, []byte{137, 0, 0, 0, 0, 0, 0, 0}), none: true},
		{name: "6 from a group", in: ip6("ff02::1", "2001:db8:9::2", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "6 from nobody", in: ip6("::", "2001:db8:9::2", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "6 to loopback", in: ip6("2001:db8:1::2", "::1", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "6 to another's link-local", in: ip6("2001:db8:1::2", "fe80::77", protoUDP, 64, udp(1, 2, 1)), none: true},
		{name: "6 wrong length", in: func() []byte {
			b := ip6("2001:db8:1::2", "2001:db8:9::2", protoUDP, 64, udp(1, 2, 1))
			put16(b[4:], 999)
			return b
		}(), none: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := twoPorts(t)
			r.near(1, "fe80::9", 0)
			r.ok(r.SetMTU(2, MTU{L3: 1400}))
			for _, p := range []string{"10.9%s.0.0/16", "2001:db8:9%s::/48"} {
				for k, typ := range []PathType{PathUnreachable, PathProhibit, PathDrop} {
					r.route(sprintf(p, string('1'+rune(k))), Path{Type: typ, SwIfIndex: NoInterface})
				}
			}
			r.send(0, tt.in)
			if tt.none {
				r.quiet(0, "10.1.0.1")
				return
			}
			b := r.expectIP(0)
			at, m := header4Len, b[header4Len:]
			if b[0]>>4 == 6 {
				at, m = header6Len, b[header6Len:]
				if fold(sum(m, pseudo(b[8:24], b[24:40], protoICMPv6, len(m)))) != 0 {
					t.Error("checksum")
				}
			} else if checksum(m) != 0 || checksum(b[:header4Len]) != 0 {
				t.Error("checksum")
			}
			if m[0] != tt.typ || m[1] != tt.code || get32(m[4:]) != tt.info {
				t.Errorf("type %d code %d info %d", m[0], m[1], get32(m[4:]))
			}
			if from := sourceOf(b).String(); from != tt.from {
				t.Errorf("from %s", from)
			}
			if want := tt.in[:min(len(tt.in), len(m)-8)]; !bytes.Equal(m[8:], want) || len(want) < min(len(tt.in), 500) {
				t.Errorf("quotes %d bytes:\n% x, want\n% x", len(m)-8, m[8:], want)
			}
			if len(b) > max4Error && at == header4Len || len(b) > max6Error {
				t.Errorf("%d bytes long", len(b))
			}
			r.quiet(0, "10.1.0.1")
		})
	}
}

func TestICMPRateLimit(t *testing.T) {
	var b bucket
	b.init(icmpBurst)
	n := 0
	for range 10 * icmpBurst {
		if b.take(0) {
			n++
		}
	}
	if n != icmpBurst {
		t.Errorf("burst of %d", n)
	}
	for k := range int64(2000) {
		if b.take(k * 500_000) { // 2000 a second
			n++
		}
	}
	if n -= icmpBurst; n < icmpRate-2 || n > icmpRate+2 {
		t.Errorf("%d in a second", n)
	}
}

func TestFragment4(t *testing.T) {
	r := twoPorts(t)
	r.ok(r.SetMTU(2, MTU{L3: 600}))
	payload := udp(5, 6, 2000)
	for k := range payload[udpLen:] {
		payload[udpLen+k] = byte(k * 7)
	}
	in := ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, payload)
	// Options: one that is copied, one that is not.
	opts := []byte{0x83, 4, 4, 0, 7, 3, 4, 0}
	in = append(append(append([]byte(nil), in[:header4Len]...), opts...), in[header4Len:]...)
	in[0] = 0x47
	put16(in[2:], uint16(len(in)))
	put16(in[10:], 0)
	put16(in[10:], checksum(in[:28]))
	r.send(0, in)
	var re reassembler
	re.init()
	var whole []byte
	for whole == nil {
		b := r.expectIP(1)
		if len(b) > 600 || b[8] != 63 || checksum(b[:int(b[0]&15)*4]) != 0 {
			t.Fatalf("fragment of %d bytes, TTL %d", len(b), b[8])
		}
		if get16(b[6:])&0x1fff != 0 && b[0]&15 != 6 {
			t.Errorf("header of %d words in a later fragment", b[0]&15)
		}
		whole = re.add4(bytes.Clone(b), 0, 0)
	}
	if !bytes.Equal(whole[28:], payload) {
		t.Error("payload differs")
	}
	r.quiet(0, "10.1.0.1")
}

func TestEcho(t *testing.T) {
	r := twoPorts(t)
	for _, n := range []int{0, 1, 56, 1400} {
		r.send(0, ip4("10.1.0.2", "10.1.0.1", protoICMP, 1, echo4(3, n)))
		b := r.expectIP(0)
		m := b[header4Len:]
		if m[0] != 0 || checksum(m) != 0 || checksum(b[:header4Len]) != 0 || b[8] != echoTTL || !bytes.Equal(m[4:], echo4(3, n)[4:]) {
			t.Errorf("IPv4 %d: % x", n, b)
		}
		for _, a := range []struct{ src, dst, from string }{
			{"2001:db8:1::2", "2001:db8:1::1", "2001:db8:1::1"},
			{"2001:db8:1::2", "2001:db8:2::1", "2001:db8:2::1"},
			{"2001:db8:1::2", "ff02::1", "2001:db8:1::1"},
		} {
			r.send(0, ip6(a.src, a.dst, protoICMPv6, 1, echo6(3, n)))
			b = r.expectIP(0)
			m = b[header6Len:]
			if m[0] != icmp6EchoReply || sourceOf(b).String() != a.from || fold(sum(m, pseudo(b[8:24], b[24:40], protoICMPv6, len(m)))) != 0 || !bytes.Equal(m[4:], echo6(3, n)[4:]) {
				t.Errorf("IPv6 to %s, %d: % x", a.dst, n, b)
			}
		}
	}
}

// TestEchoOptions: the reply to a request with options has none.
func TestEchoOptions(t *testing.T) {
	r := twoPorts(t)
	in := ip4("10.1.0.2", "10.1.0.1", protoICMP, 9, echo4(3, 9))
	in = append(append(append([]byte(nil), in[:header4Len]...), 1, 1, 1, 0), in[header4Len:]...)
	in[0] = 0x46
	put16(in[2:], uint16(len(in)))
	put16(in[10:], 0)
	put16(in[10:], checksum(in[:24]))
	r.send(0, in)
	b := r.expectIP(0)
	if b[0] != 0x45 || len(b) != header4Len+8+9 || checksum(b[header4Len:]) != 0 || checksum(b[:header4Len]) != 0 {
		t.Errorf("% x", b)
	}
}

// TestEchoFragmented: a request in fragments is answered, and the reply fits the MTU.
func TestEchoFragmented(t *testing.T) {
	r := twoPorts(t)
	w := r.begin()
	var frags [][]byte
	w.fragment4(ip4("10.1.0.2", "10.1.0.1", protoICMP, 64, echo4(9, 3000)), 1500, func(k packet) { frags = append(frags, bytes.Clone(k.ip())) })
	w.finish()
	if len(frags) != 3 {
		t.Fatalf("%d fragments", len(frags))
	}
	r.ok(r.SetMTU(1, MTU{L3: 1500}))
	for _, k := range []int{2, 0, 1} {
		r.send(0, frags[k])
	}
	var re reassembler
	re.init()
	var whole []byte
	for whole == nil {
		b := r.expectIP(0)
		if len(b) > 1500 {
			t.Fatalf("%d bytes", len(b))
		}
		whole = re.add4(b, 0, 0)
	}
	if m := whole[header4Len:]; m[0] != 0 || checksum(m) != 0 || len(m) != 3008 {
		t.Errorf("reply % x", m[:16])
	}
	// IPv6.
	msg := ip6("2001:db8:1::2", "2001:db8:1::1", protoICMPv6, 64, echo6(9, 3000))
	data := msg[header6Len:]
	for at := 0; at < len(data); at += 1200 {
		part := data[at:min(at+1200, len(data))]
		h := []byte{protoICMPv6, 0, 0, 0, 0, 0, 0, 77}
		put16(h[2:], uint16(at))
		if at+1200 < len(data) {
			h[3] |= 1
		}
		r.send(0, ip6("2001:db8:1::2", "2001:db8:1::1", 44, 64, append(h, part...)))
	}
	whole = nil
	for whole == nil {
		b := r.expectIP(0)
		if len(b) > 1500 || b[6] != 44 {
			t.Fatalf("%d bytes, next header %d", len(b), b[6])
		}
		whole = re.add6(b, header6Len, 0, 0, 0)
	}
	if m := whole[header6Len:]; whole[6] != protoICMPv6 || m[0] != icmp6EchoReply || fold(sum(m, pseudo(whole[8:24], whole[24:40], protoICMPv6, len(m)))) != 0 || len(m) != 3008 {
		t.Errorf("reply % x", whole[:60])
	}
}

// TestViaIPv6 is RFC 8950: IPv4 over an IPv6 next hop, on an unnumbered interface.
func TestViaIPv6(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24")
	b := r.port()
	lo := must(r.CreateLoopback([6]byte{}, nil))
	r.ok(r.AddAddress(lo, mustPrefix("172.20.0.1/32")))
	r.ok(r.SetAdmin(lo, true))
	r.ok(r.SetUnnumbered(b, lo, true))
	r.ok(r.SetLinkLocal(b, mustAddr("fe80::1")))
	r.near(b, "fe80::2", 1)
	r.near(1, "10.1.0.2", 0)
	r.route("192.0.2.0/24", via("fe80::2", b))
	r.send(0, ip4("10.1.0.2", "192.0.2.9", protoUDP, 64, udp(1, 2, 3)))
	f := r.ports[1].expect(t)
	if get16(f[12:]) != etherIPv4 || [6]byte(f) != theirs(1) {
		t.Errorf("% x", f[:14])
	}
	// And back: an error about it comes from the lender's address.
	r.send(1, ip4("192.0.2.9", "198.51.100.1", protoUDP, 64, udp(1, 2, 3)))
	e := r.expectIP(1)
	if e[20] != 3 || sourceOf(e).String() != "172.20.0.1" {
		t.Errorf("% x", e)
	}
}

func TestInterfaceDown(t *testing.T) {
	r := twoPorts(t)
	send := func() { r.send(0, ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 3))) }
	send()
	r.expectIP(1)
	r.ok(r.SetAdmin(2, false))
	send()
	if b := r.expectIP(0); b[20] != 3 || b[21] != 0 {
		t.Errorf("% x", b)
	}
	r.send(0, ip4("10.1.0.2", "10.2.0.1", protoICMP, 64, echo4(1, 1)))
	if b := r.expectIP(0); b[20] != 3 || b[21] != 0 {
		t.Errorf("address of a down interface: % x", b)
	}
	r.ok(r.SetAdmin(2, true))
	send()
	r.expectIP(1)
	// Frames that come in while it is down are dropped.
	r.ok(r.SetAdmin(1, false))
	send()
	eventually(t, "drop", func() bool { x, _ := r.Interface(1); return x.Counters.Drops == 3 })
	r.ok(r.DetachPort(2))
	if err := r.SetAdmin(2, true); err != api.INVALID_SW_IF_INDEX {
		t.Error(err)
	}
}

// TestExtensionHeaders: echo requests to us behind headers of IPv6, which are walked as RFC 8200 says.
func TestExtensionHeaders(t *testing.T) {
	const us, group = "2001:db8:1::1", "ff02::1"
	options := func(next byte, o ...byte) []byte { // a header of 8 bytes
		return append([]byte{next, 0}, append(o, make([]byte, 6-len(o))...)...)
	}
	routing := func(left byte) []byte { return []byte{protoICMPv6, 0, 0, left, 0, 0, 0, 0} }
	none := [2]int{-1, -1}
	for _, tt := range []struct {
		name, dst string
		first     byte
		headers   []byte
		problem   [2]int // code and pointer of a parameter problem; none for nothing
		answered  bool
	}{
		{"hop by hop with router alert", us, 0, options(protoICMPv6, 5, 2, 0, 0, 1, 0), none, true},
		{"padding", us, 60, options(protoICMPv6, 0, 0, 1, 2), none, true},
		{"option to skip", us, 60, options(protoICMPv6, 0x1e, 4), none, true},
		{"option to drop", us, 60, options(protoICMPv6, 0x5e, 4), none, false},
		{"option to complain about", us, 60, options(protoICMPv6, 0x9e, 4), [2]int{2, 42}, false},
		{"option to complain about to a group", group, 60, options(protoICMPv6, 0x9e, 4), [2]int{2, 42}, false},
		{"option to complain about in person", us, 60, options(protoICMPv6, 0, 0xde, 3), [2]int{2, 43}, false},
		{"the same to a group", group, 60, options(protoICMPv6, 0, 0xde, 3), none, false},
		{"option beyond its header", us, 60, options(protoICMPv6, 0x1e, 5), none, false},
		{"option without a length", us, 60, options(protoICMPv6, 1, 3, 0, 0, 0, 0x1e), none, false},
		{"header beyond the packet", us, 60, []byte{protoICMPv6, 200, 1, 4, 0, 0, 0, 0}, none, false},
		{"routing header at its end", us, 43, routing(0), none, true},
		{"routing header", us, 43, routing(1), [2]int{0, 42}, false},
		{"hop by hop as the second", us, 60, append(options(0), options(protoICMPv6)...), [2]int{1, 40}, false},
		{"two", us, 0, append(options(60), options(protoICMPv6)...), none, true},
		{"unknown protocol", us, 60, options(200), [2]int{1, 40}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := twoPorts(t)
			m := echo6(1, 8)
			src, dst := mustAddr("2001:db8:1::2").As16(), mustAddr(tt.dst).As16()
			put16(m[2:], fold(sum(m, pseudo(src[:], dst[:], protoICMPv6, len(m)))))
			in := ip6("2001:db8:1::2", tt.dst, tt.first, 64, append(tt.headers, m...))
			r.send(0, in)
			if !tt.answered && tt.problem == none {
				r.quiet(0, "10.1.0.1")
				if r.Errors()[causeNames[errExtension]] != 1 {
					t.Errorf("%v", r.Errors())
				}
				return
			}
			o := r.expectIP(0)
			switch m := o[header6Len:]; {
			case tt.answered && m[0] != icmp6EchoReply, !tt.answered && m[0] != icmp6Parameter:
				t.Errorf("% x", o)
			case !tt.answered && (m[1] != byte(tt.problem[0]) || get32(m[4:]) != uint32(tt.problem[1])):
				t.Errorf("code %d, pointer %d", m[1], get32(m[4:]))
			}
		})
	}
}
