package wg

// Ethernet frames between the dataplane and a tunnel that knows only IP. The far end of the link is, for the
// dataplane, one machine with our MAC that has every address but the dataplane's own: ARP (RFC 826) and neighbour
// solicitations (RFC 4861) are answered here, never by the peer. What VPP needs this for is in DESIGN.md: TCP to a
// link-local address wants a real neighbour.

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

const (
	etherSize = 14
	typeIPv4  = 0x0800
	typeARP   = 0x0806
	typeIPv6  = 0x86dd

	arpSize   = 28
	ipv4Size  = 20
	ipv6Size  = 40
	hopByHop  = 0
	icmpv6    = 58
	nsType    = 135
	naType    = 136
	nsMinSize = 24
)

type mac [6]byte

func (m mac) multicast() bool { return m[0]&1 != 0 }

// packetSize is the length of the IP packet at the beginning of b by its own header, and its ethertype. It is false
// when b is no IP packet, or a part of one. What follows the packet (ethernet padding, WireGuard padding) is not of it.
func packetSize(b []byte) (size int, etherType uint16, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch b[0] >> 4 {
	case 4:
		if len(b) < ipv4Size {
			return 0, 0, false
		}
		header, size := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		return size, typeIPv4, header >= ipv4Size && size >= header && size <= len(b)
	case 6:
		if len(b) < ipv6Size {
			return 0, 0, false
		}
		size := ipv6Size + int(binary.BigEndian.Uint16(b[4:]))
		return size, typeIPv6, size <= len(b)
	default:
		return 0, 0, false
	}
}

// verdict says what becomes of a frame from the dataplane.
type verdict uint8

const (
	toPeer    verdict = iota
	answer            // by the reply
	swallow           // link-local business that the peer has no part in
	malformed         // or of another protocol
	misplaced         // for another machine
)

// inspect decides about one frame. size is that of the IP packet behind the ethernet header, for toPeer; reply is a
// frame for the dataplane, for answer.
func inspect(frame []byte, own mac) (v verdict, size int, reply []byte) {
	if len(frame) < etherSize {
		return malformed, 0, nil
	}
	if dst := mac(frame[:6]); dst != own && !dst.multicast() {
		return misplaced, 0, nil
	}
	body := frame[etherSize:]
	etherType := binary.BigEndian.Uint16(frame[12:])
	if etherType == typeARP {
		return inspectARP(mac(frame[6:12]), body, own)
	}
	size, really, ok := packetSize(body)
	if !ok || really != etherType {
		return malformed, 0, nil
	}
	if etherType == typeIPv6 {
		if v, reply := inspectICMPv6(mac(frame[6:12]), body[:size], own); v != toPeer {
			return v, 0, reply
		}
	}
	return toPeer, size, nil
}

// arpPrefix: ethernet, IPv4, and their address lengths.
var arpPrefix = []byte{0, 1, 8, 0, 6, 4}

// inspectARP answers requests. A request for the sender's own address is an announcement or (RFC 5227) a probe comes
// from 0.0.0.0: to answer would be to claim the address.
func inspectARP(from mac, b []byte, own mac) (verdict, int, []byte) {
	if len(b) < arpSize || !bytes.Equal(b[:6], arpPrefix) {
		return malformed, 0, nil
	}
	op := binary.BigEndian.Uint16(b[6:])
	sender, target := [4]byte(b[14:18]), [4]byte(b[24:28])
	if op != 1 || sender == target || sender == [4]byte{} {
		return swallow, 0, nil
	}
	reply := make([]byte, 0, etherSize+arpSize)
	reply = append(reply, from[:]...)
	reply = append(reply, own[:]...)
	reply = append(reply, typeARP>>8, typeARP&0xff)
	reply = append(reply, arpPrefix...)
	reply = append(reply, 0, 2)
	reply = append(reply, own[:]...)
	reply = append(reply, target[:]...)
	reply = append(reply, b[8:18]...) // the asker's two addresses
	return answer, 0, reply
}

// inspectICMPv6 answers solicitations and keeps multicast listener reports (RFC 2710, RFC 3810) to itself: there is no
// switch on the other side. packet has its exact length.
func inspectICMPv6(from mac, packet []byte, own mac) (verdict, []byte) {
	next, body := packet[6], packet[ipv6Size:]
	if next == hopByHop && len(body) >= 8 {
		next = body[0]
		body = body[min(len(body), 8+8*int(body[1])):]
	}
	if next != icmpv6 || len(body) == 0 {
		return toPeer, nil
	}
	switch body[0] {
	case 130, 131, 132, 143: // MLD query, reports, done
		return swallow, nil
	case nsType:
		return inspectSolicitation(from, packet, own)
	default:
		return toPeer, nil
	}
}

func inspectSolicitation(from mac, packet []byte, own mac) (verdict, []byte) {
	body := packet[ipv6Size:]
	// The checks of RFC 4861 §7.1.1; an extension header before a solicitation is nothing that anybody sends.
	if packet[6] != icmpv6 || packet[7] != 255 || len(body) < nsMinSize || body[1] != 0 || icmpv6Sum(packet) != 0 {
		return malformed, nil
	}
	source, target := netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(body[8:24]))
	if target.IsMulticast() || source.IsMulticast() {
		return malformed, nil
	}
	// From "::" it is duplicate address detection (RFC 4862 §5.4): nobody else has the dataplane's addresses.
	if source.IsUnspecified() || source == target {
		return swallow, nil
	}
	return answer, advertisement(from, own, source, target)
}

// advertisement is the neighbour advertisement of RFC 4861 §4.4 for target, with all three flags: it is solicited, it
// overrides, and at the other end is a router.
func advertisement(to, own mac, source, target netip.Addr) []byte {
	f := make([]byte, etherSize+ipv6Size+32)
	copy(f, to[:])
	copy(f[6:], own[:])
	binary.BigEndian.PutUint16(f[12:], typeIPv6)
	packet := f[etherSize:]
	packet[0] = 6 << 4
	packet[5] = 32
	packet[6] = icmpv6
	packet[7] = 255
	copy(packet[8:], target.AsSlice())
	copy(packet[24:], source.AsSlice())
	body := packet[ipv6Size:]
	body[0] = naType
	body[4] = 0xe0
	copy(body[8:], target.AsSlice())
	body[24], body[25] = 2, 1 // target link-layer address
	copy(body[26:], own[:])
	binary.BigEndian.PutUint16(body[2:], icmpv6Sum(packet))
	return f
}

// icmpv6Sum is the checksum over an ICMPv6 packet without extension headers (RFC 8200 §8.1): 0 when a present one is
// right.
func icmpv6Sum(packet []byte) uint16 {
	body := packet[ipv6Size:]
	sum := uint32(icmpv6) + uint32(len(body))
	for _, part := range [][]byte{packet[8:ipv6Size], body} {
		for ; len(part) >= 2; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) > 0 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
