package hoststack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// This file is the wire format of probes: echo requests as whole IP packets, and what comes back for them. The parser is
// given whatever arrives at the node, so it believes no length and returns an error where a packet is not an answer to
// anything.

const (
	protocolICMP   = 1
	protocolICMPv6 = 58

	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	echoHeaderLen = 8 // type, code, checksum, identifier, sequence number

	// maxPayload is what an IPv4 packet of 65535 bytes leaves for an echo's data.
	maxPayload = 65535 - ipv4HeaderLen - echoHeaderLen
)

// echo is one echo request.
type echo struct {
	src, dst netip.Addr // of one family, without zones
	id, seq  uint16
	ttl      uint8
	size     int  // bytes of data
	dontFrag bool // IPv4's DF: a router never fragments IPv6 (RFC 8200 §5)
}

// marshal returns the IP packet.
func (e echo) marshal() ([]byte, error) {
	data := make([]byte, e.size)
	for i := range data {
		data[i] = byte(i)
	}
	body := &icmp.Echo{ID: int(e.id), Seq: int(e.seq), Data: data}
	if e.dst.Is4() {
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: body}
		payload, err := m.Marshal(nil)
		if err != nil {
			return nil, fmt.Errorf("echo request: %w", err)
		}
		return e.ipv4Packet(payload), nil
	}
	m := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: body}
	payload, err := m.Marshal(icmp.IPv6PseudoHeader(e.src.AsSlice(), e.dst.AsSlice()))
	if err != nil {
		return nil, fmt.Errorf("echo request: %w", err)
	}
	return e.ipv6Packet(payload), nil
}

// ipv4Packet puts a header in front (RFC 791 §3.1). The header is written here because x/net/ipv4's Marshal is made for raw
// sockets, whose kernels fill in the checksum.
func (e echo) ipv4Packet(payload []byte) []byte {
	p := make([]byte, ipv4HeaderLen, ipv4HeaderLen+len(payload))
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(ipv4HeaderLen+len(payload)))
	binary.BigEndian.PutUint16(p[4:], e.seq) // an identification that differs, for when the packet is fragmented
	if e.dontFrag {
		p[6] = 0x40
	}
	p[8], p[9] = e.ttl, protocolICMP
	src, dst := e.src.As4(), e.dst.As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(p, payload...)
}

// ipv6Packet puts a header in front (RFC 8200 §3).
func (e echo) ipv6Packet(payload []byte) []byte {
	p := make([]byte, ipv6HeaderLen, ipv6HeaderLen+len(payload))
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = protocolICMPv6, e.ttl
	src, dst := e.src.As16(), e.dst.As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	return append(p, payload...)
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes whose checksum field is zero.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// answer is a packet that belongs to an echo request.
type answer struct {
	from    netip.Addr
	ttl     uint8 // of the answer's own header
	bytes   int   // of ICMP: what ping prints
	id, seq uint16
	dst     netip.Addr // where the request went: the source of a reply, or the destination in an error's quotation
	err     string     // what an error says; "" for an echo reply
}

var errNotAnswer = errors.New("not an answer to an echo request")

// parseAnswer reads an IP packet that was delivered to this node.
func parseAnswer(p []byte) (answer, error) {
	h, body, err := parseIP(p)
	if err != nil {
		return answer{}, err
	}
	a := answer{from: h.src, ttl: h.ttl, bytes: len(body)}
	switch {
	case h.version == 4 && h.protocol == protocolICMP:
		err = a.parseICMPv4(body)
	case h.version == 6 && h.protocol == protocolICMPv6:
		err = a.parseICMPv6(body)
	default:
		err = errNotAnswer
	}
	return a, err
}

func (a *answer) parseICMPv4(b []byte) error {
	m, err := icmp.ParseMessage(protocolICMP, b)
	if err != nil {
		return fmt.Errorf("ICMP: %w", err)
	}
	code := m.Code
	switch m.Type {
	case ipv4.ICMPTypeEchoReply:
		return a.reply(m.Body)
	case ipv4.ICMPTypeTimeExceeded:
		a.err = "time exceeded"
		if code == 1 {
			a.err = "fragment reassembly time exceeded"
		}
	case ipv4.ICMPTypeDestinationUnreachable:
		a.err = unreachableV4(code, b)
	case ipv4.ICMPTypeParameterProblem:
		a.err = "parameter problem"
	case ipv4.ICMPTypeRedirect:
		return errNotAnswer // the packet went on
	default:
		return errNotAnswer
	}
	return a.quoted(b)
}

func (a *answer) parseICMPv6(b []byte) error {
	m, err := icmp.ParseMessage(protocolICMPv6, b)
	if err != nil {
		return fmt.Errorf("ICMPv6: %w", err)
	}
	switch m.Type {
	case ipv6.ICMPTypeEchoReply:
		return a.reply(m.Body)
	case ipv6.ICMPTypeTimeExceeded:
		a.err = "time exceeded"
		if m.Code == 1 {
			a.err = "fragment reassembly time exceeded"
		}
	case ipv6.ICMPTypeDestinationUnreachable:
		a.err = unreachableV6(m.Code)
	case ipv6.ICMPTypePacketTooBig:
		a.err = "packet too big"
		if len(b) >= echoHeaderLen {
			a.err = fmt.Sprintf("packet too big (MTU %d)", binary.BigEndian.Uint32(b[4:]))
		}
	case ipv6.ICMPTypeParameterProblem:
		a.err = "parameter problem"
	default:
		return errNotAnswer
	}
	return a.quoted(b)
}

func (a *answer) reply(body icmp.MessageBody) error {
	e, ok := body.(*icmp.Echo)
	if !ok {
		return errNotAnswer
	}
	a.id, a.seq, a.dst = uint16(e.ID), uint16(e.Seq), a.from
	return nil
}

// quoted finds the request in an error: its IP header and at least 8 bytes more are there (RFC 792, RFC 4443 §2.4).
func (a *answer) quoted(b []byte) error {
	if len(b) < echoHeaderLen {
		return errNotAnswer
	}
	h, inner, err := parseQuotedIP(b[echoHeaderLen:])
	if err != nil {
		return err
	}
	if len(inner) < echoHeaderLen {
		return errNotAnswer
	}
	request := h.version == 4 && h.protocol == protocolICMP && inner[0] == byte(ipv4.ICMPTypeEcho) ||
		h.version == 6 && h.protocol == protocolICMPv6 && inner[0] == byte(ipv6.ICMPTypeEchoRequest)
	if !request {
		return errNotAnswer
	}
	a.id, a.seq, a.dst = binary.BigEndian.Uint16(inner[4:]), binary.BigEndian.Uint16(inner[6:]), h.dst
	return nil
}

type ipHeader struct {
	version  int
	protocol uint8
	ttl      uint8
	src, dst netip.Addr
}

// parseIP splits a whole packet and cuts what is beyond its own length.
func parseIP(p []byte) (ipHeader, []byte, error) {
	h, body, err := parseQuotedIP(p)
	if err != nil {
		return h, nil, err
	}
	length := int(binary.BigEndian.Uint16(p[2:])) - (len(p) - len(body)) // IPv4: total length less the header
	if h.version == 6 {
		length = int(binary.BigEndian.Uint16(p[4:]))
	}
	if length < 0 || length > len(body) {
		return h, nil, fmt.Errorf("IP packet says %d bytes of payload, has %d", length, len(body))
	}
	return h, body[:length], nil
}

// parseQuotedIP splits a packet of which only the beginning may be there.
func parseQuotedIP(p []byte) (ipHeader, []byte, error) {
	if len(p) == 0 {
		return ipHeader{}, nil, errNotAnswer
	}
	h := ipHeader{version: int(p[0] >> 4)}
	switch h.version {
	case 4:
		n := int(p[0]&0x0f) * 4
		if n < ipv4HeaderLen || len(p) < n {
			return h, nil, fmt.Errorf("IPv4 header of %d bytes in %d", n, len(p))
		}
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return h, nil, errNotAnswer // a fragment other than the first has no ICMP header
		}
		h.protocol, h.ttl = p[9], p[8]
		h.src, h.dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		return h, p[n:], nil
	case 6:
		if len(p) < ipv6HeaderLen {
			return h, nil, fmt.Errorf("IPv6 header in %d bytes", len(p))
		}
		h.protocol, h.ttl = p[6], p[7]
		h.src, h.dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		return h, p[ipv6HeaderLen:], nil
	}
	return h, nil, fmt.Errorf("IP version %d", h.version)
}

// unreachableV4 words the codes of RFC 792, RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1.
func unreachableV4(code int, b []byte) string {
	words := map[int]string{
		0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
		5: "source route failed", 6: "network unknown", 7: "host unknown", 9: "network prohibited", 10: "host prohibited",
		11: "network unreachable for this service", 12: "host unreachable for this service", 13: "administratively prohibited",
	}
	if code == 4 {
		if len(b) >= echoHeaderLen {
			if mtu := binary.BigEndian.Uint16(b[6:]); mtu != 0 { // RFC 1191 §4
				return fmt.Sprintf("fragmentation needed (MTU %d)", mtu)
			}
		}
		return "fragmentation needed"
	}
	if w, ok := words[code]; ok {
		return w
	}
	return fmt.Sprintf("destination unreachable, code %d", code)
}

// unreachableV6 words the codes of RFC 4443 §3.1.
func unreachableV6(code int) string {
	words := []string{
		"no route to destination", "administratively prohibited", "beyond scope of source address", "address unreachable",
		"port unreachable", "source address failed policy", "route rejected",
	}
	if code >= 0 && code < len(words) {
		return words[code]
	}
	return fmt.Sprintf("destination unreachable, code %d", code)
}
