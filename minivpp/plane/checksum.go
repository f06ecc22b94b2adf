package plane

// The internet checksum: whole (RFC 1071), for messages that the plane makes, and incremental (RFC 1624), for headers that it
// changes on the way. A forwarded packet's payload is never read.

import (
	"encoding/binary"
	"net/netip"
)

// sum adds b to a partial one's complement sum.
func sum(b []byte, acc uint64) uint64 {
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		acc += v>>32 + v&0xffffffff
		b = b[8:]
	}
	for len(b) >= 2 {
		acc += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	return acc
}

// fold turns a partial sum into the checksum field's value.
func fold(acc uint64) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

// checksum is the internet checksum of b, whose checksum field is zero; of a correct message with the field in place it is 0.
func checksum(b []byte) uint16 { return fold(sum(b, 0)) }

// pseudo is the partial sum of a pseudo header: RFC 9293 §3.1 for IPv4, RFC 8200 §8.1 for IPv6. They sum up alike.
func pseudo(src, dst []byte, proto uint8, length int) uint64 {
	acc := sum(src, 0)
	acc = sum(dst, acc)
	return acc + uint64(proto) + uint64(length)
}

// updateChecksum gives the checksum after one 16-bit word of the message changed. RFC 1624 §3, equation 3.
func updateChecksum(field, before, after uint16) uint16 {
	acc := uint64(^field) + uint64(^before) + uint64(after)
	return fold(acc)
}

func get16(b []byte) uint16    { return binary.BigEndian.Uint16(b) }
func put16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }
func get32(b []byte) uint32    { return binary.BigEndian.Uint32(b) }
func put32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
func addr6(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)) }

// Protocol numbers and header offsets that more than one file needs.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	etherLen   = 14
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherIPv6  = 0x86dd
	header4Len = 20
	header6Len = 40
	tcpLen     = 20
	udpLen     = 8

	ownTTL  = 255 // of what this node sends itself, as VPP
	echoTTL = 64  // of echo replies: VPP's host_config.ttl, set by ip4_init and ip6_init
)
