package wg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	frameOwn  = mac{2, 0, 0, 0, 9, 0}
	frameDP   = mac{2, 0, 0, 0, 9, 1}
	broadcast = mac{255, 255, 255, 255, 255, 255}
)

func arp(dst mac, op byte, sender, targetIP string) []byte {
	f := append(append([]byte{}, dst[:]...), frameDP[:]...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
	f = append(append(f, frameDP[:]...), netip.MustParseAddr(sender).AsSlice()...)
	f = append(f, make([]byte, 6)...)
	return append(f, netip.MustParseAddr(targetIP).AsSlice()...)
}

func arpReply(sender, targetIP string) []byte {
	f := append(append([]byte{}, frameDP[:]...), frameOwn[:]...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	f = append(append(f, frameOwn[:]...), netip.MustParseAddr(targetIP).AsSlice()...)
	return append(append(f, frameDP[:]...), netip.MustParseAddr(sender).AsSlice()...)
}

// icmp6 is an ICMPv6 packet in a frame with a right checksum.
func icmp6(dst mac, src, dstIP string, body []byte) []byte {
	f := append(append(append([]byte{}, dst[:]...), frameDP[:]...), 0x86, 0xdd)
	p := []byte{0x60, 0, 0, 0, 0, byte(len(body)), 58, 255}
	p = append(append(p, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dstIP).AsSlice()...)
	p = append(p, body...)
	p[42], p[43] = 0, 0
	binary.BigEndian.PutUint16(p[42:], icmpv6Sum(p))
	return append(f, p...)
}

func solicit(src, targetIP string) []byte {
	body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(targetIP).AsSlice()...)
	if src != "::" {
		body = append(append(body, 1, 1), frameDP[:]...)
	}
	return icmp6(mac{0x33, 0x33, 0xff, 0, 0, 2}, src, "ff02::1:ff00:2", body)
}

// advertised is the answer that RFC 4861 §7.2.4 asks for, built by another hand than the one in frame.go.
func advertised(to, targetIP string) []byte {
	body := append([]byte{136, 0, 0, 0, 0xe0, 0, 0, 0}, netip.MustParseAddr(targetIP).AsSlice()...)
	body = append(append(body, 2, 1), frameOwn[:]...)
	f := icmp6(frameDP, targetIP, to, body)
	copy(f[6:], frameOwn[:])
	return f
}

func patched(f []byte, at int, b byte) []byte {
	f = bytes.Clone(f)
	f[at] = b
	return f
}

// hopByHopped puts a router alert before the ICMPv6 message, as MLD has it.
func hopByHopped(f []byte) []byte {
	out := append(bytes.Clone(f[:54]), 58, 0, 5, 2, 0, 0, 1, 0)
	out[20] = 0
	binary.BigEndian.PutUint16(out[18:], binary.BigEndian.Uint16(f[18:])+8)
	return append(out, f[54:]...)
}

func mld(kind byte) []byte {
	return hopByHopped(icmp6(mac{0x33, 0x33, 0, 0, 0, 0x16}, "fe80::1", "ff02::16", append([]byte{kind}, make([]byte, 27)...)))
}

var frameTests = []struct {
	name  string
	frame []byte
	want  verdict
	reply []byte
}{
	{"arp request", arp(broadcast, 1, "169.254.12.1", "169.254.12.2"), answer, arpReply("169.254.12.1", "169.254.12.2")},
	{"arp request, padded", append(arp(broadcast, 1, "10.0.0.1", "10.0.0.9"), make([]byte, 18)...), answer, arpReply("10.0.0.1", "10.0.0.9")},
	{"arp request, unicast", arp(frameOwn, 1, "10.0.0.1", "10.0.0.9"), answer, arpReply("10.0.0.1", "10.0.0.9")},
	{"arp announcement", arp(broadcast, 1, "10.0.0.1", "10.0.0.1"), swallow, nil},
	{"arp probe", arp(broadcast, 1, "0.0.0.0", "10.0.0.1"), swallow, nil},
	{"arp reply", arp(frameOwn, 2, "10.0.0.1", "10.0.0.9"), swallow, nil},
	{"arp short", arp(broadcast, 1, "10.0.0.1", "10.0.0.9")[:41], malformed, nil},
	{"arp of tokens", patched(arp(broadcast, 1, "10.0.0.1", "10.0.0.9"), 15, 6), malformed, nil},
	{"solicitation", solicit("fe80::1", "fe80::2"), answer, advertised("fe80::1", "fe80::2")},
	{"solicitation, global", solicit("fd42::1", "fd42::9"), answer, advertised("fd42::1", "fd42::9")},
	{"solicitation, no option", icmp6(frameOwn, "fe80::1", "fe80::2", solicit("::", "fe80::2")[54:]), answer, advertised("fe80::1", "fe80::2")},
	{"duplicate address detection", solicit("::", "fe80::1"), swallow, nil},
	{"solicitation of oneself", solicit("fe80::1", "fe80::1"), swallow, nil},
	{"solicitation, hop limit", patched(solicit("fe80::1", "fe80::2"), 21, 64), malformed, nil},
	{"solicitation, checksum", patched(solicit("fe80::1", "fe80::2"), 57, 1), malformed, nil},
	{"solicitation, code", patched(solicit("fe80::1", "fe80::2"), 55, 1), malformed, nil},
	{"solicitation of a multicast address", solicit("fe80::1", "ff02::2"), malformed, nil},
	{"solicitation from a multicast address", solicit("ff02::1", "fe80::2"), malformed, nil},
	{"solicitation behind another header", hopByHopped(solicit("fe80::1", "fe80::2")), malformed, nil},
	{"solicitation, short", icmp6(frameOwn, "fe80::1", "fe80::2", []byte{135, 0, 0, 0, 0, 0, 0, 0}), malformed, nil},
	{"mld report", mld(143), swallow, nil},
	{"mld report of version 1", mld(131), swallow, nil},
	{"mld done", mld(132), swallow, nil},
	{"mld query", mld(130), swallow, nil},
	{"router solicitation", icmp6(mac{0x33, 0x33, 0, 0, 0, 2}, "fe80::1", "ff02::2", []byte{133, 0, 0, 0, 0, 0, 0, 0}), toPeer, nil},
	{"router advertisement", icmp6(mac{0x33, 0x33, 0, 0, 0, 1}, "fe80::1", "ff02::1", make16(134)), toPeer, nil},
	{"neighbour advertisement", icmp6(frameOwn, "fe80::1", "fe80::2", make16(136)), toPeer, nil},
	{"echo", icmp6(frameOwn, "fe80::1", "fe80::2", make16(128)), toPeer, nil},
	{"hop-by-hop to nowhere", patched(mld(143), 55, 255), toPeer, nil},
	{"hop-by-hop and something else", patched(mld(143), 54, 17), toPeer, nil},
	{"ipv4", append(append(append([]byte{}, frameOwn[:]...), frameDP[:]...), append([]byte{8, 0}, packet4(60, 1)...)...), toPeer, nil},
	{"ipv4 broadcast", append(append(append([]byte{}, broadcast[:]...), frameDP[:]...), append([]byte{8, 0}, packet4(60, 1)...)...), toPeer, nil},
	{"another's", append(append(append([]byte{}, frameDP[:]...), frameDP[:]...), append([]byte{8, 0}, packet4(60, 1)...)...), misplaced, nil},
	{"short", []byte{1, 2, 3}, malformed, nil},
	{"empty", nil, malformed, nil},
	{"header only", append(append(append([]byte{}, frameOwn[:]...), frameDP[:]...), 8, 0), malformed, nil},
	{"vlan", append(append(append([]byte{}, frameOwn[:]...), frameDP[:]...), append([]byte{0x81, 0, 0, 1, 8, 0}, packet4(60, 1)...)...), malformed, nil},
	{"lldp", append(append(append([]byte{}, frameOwn[:]...), frameDP[:]...), 0x88, 0xcc, 2, 7, 4), malformed, nil},
}

func make16(kind byte) []byte { return append([]byte{kind}, make([]byte, 15)...) }

func TestInspect(t *testing.T) {
	for _, tt := range frameTests {
		t.Run(tt.name, func(t *testing.T) {
			v, size, reply := inspect(tt.frame, frameOwn)
			if v != tt.want || !bytes.Equal(reply, tt.reply) {
				t.Errorf("verdict %d, want %d\nreply % x\nwant  % x", v, tt.want, reply, tt.reply)
			}
			if (size > 0) != (v == toPeer) || size > len(tt.frame) {
				t.Errorf("size %d", size)
			}
		})
	}
}

func TestPacketSize(t *testing.T) {
	v4, v6 := packet4(60, 0), packet6(60, 0, "fe80::2")
	tests := []struct {
		name   string
		packet []byte
		size   int
		ok     bool
	}{
		{"ipv4", v4, 60, true},
		{"ipv4 with padding", append(bytes.Clone(v4), 0, 0), 60, true},
		{"ipv4 cut", v4[:59], 0, false},
		{"ipv4 header cut", v4[:19], 0, false},
		{"ipv4 total length below header", patched(v4, 3, 19), 0, false},
		{"ipv4 header length 4", patched(v4, 0, 0x41), 0, false},
		{"ipv4 header longer than packet", patched(patched(v4, 3, 40), 0, 0x4f), 0, false},
		{"ipv6", v6, 60, true},
		{"ipv6 with padding", append(bytes.Clone(v6), 0, 0), 60, true},
		{"ipv6 cut", v6[:59], 0, false},
		{"ipv6 header cut", v6[:39], 0, false},
		{"ipv6 payload length overflows", patched(patched(v6, 4, 255), 5, 255), 0, false},
		{"version 5", patched(v4, 0, 0x55), 0, false},
		{"empty", nil, 0, false},
	}
	for _, tt := range tests {
		size, _, ok := packetSize(tt.packet)
		if ok != tt.ok || ok && size != tt.size {
			t.Errorf("%s: %d, %v", tt.name, size, ok)
		}
	}
}

func FuzzInspect(f *testing.F) {
	for _, tt := range frameTests {
		f.Add(tt.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		v, size, reply := inspect(frame, frameOwn)
		if !bytes.Equal(before, frame) {
			t.Fatal("frame was changed")
		}
		if (v == answer) != (reply != nil) || (v == toPeer) != (size > 0) || v == toPeer && etherSize+size > len(frame) {
			t.Fatalf("verdict %d, size %d, reply % x", v, size, reply)
		}
		if v == answer && (!bytes.Equal(reply[:6], frame[6:12]) || !bytes.Equal(reply[6:12], frameOwn[:])) {
			t.Fatalf("reply % x", reply)
		}
	})
}
