package plane

// ICMP and ICMPv6: errors about packets that cannot go on, and the answers that a node owes.

import (
	"net/netip"
	"sync"
	"time"
)

const (
	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4Echo         = 8
	icmp4TimeExceeded = 11

	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
	icmp6Parameter    = 4
	icmp6Echo         = 128
	icmp6EchoReply    = 129
	icmp6RouterAdv    = 134
	icmp6NeighborSol  = 135
	icmp6NeighborAdv  = 136

	max4Error = 576  // RFC 1812 §4.3.2.3
	max6Error = 1280 // RFC 4443 §2.4 (c)

	icmpBurst = 200
	icmpRate  = 1000 // a second, of the whole router
)

// bucket is a token bucket: RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f).
type bucket struct {
	mu     sync.Mutex
	tokens int64 // in units of 1/icmpRate s
	last   int64
}

func (b *bucket) init(burst int64) { b.tokens = burst }

func (b *bucket) take(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	const unit = int64(time.Second) / icmpRate
	if n := (now - b.last) / unit; n > 0 {
		b.tokens = min(b.tokens+n, icmpBurst)
		b.last += n * unit
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}

// deserves4 says whether an error about a packet may be sent. RFC 1122 §3.2.2, RFC 1812 §4.3.2.7.
func deserves4(b []byte) bool {
	ihl := int(b[0]&15) * 4
	if get16(b[6:])&0x1fff != 0 {
		return false
	}
	if b[9] == protoICMP {
		if len(b) <= ihl {
			return false
		}
		switch b[ihl] { // only queries
		case icmp4EchoReply, icmp4Echo, 13, 14, 15, 16, 17, 18:
		default:
			return false
		}
	}
	return b[12] != 0 && b[12] != 127 && b[12] < 224 && b[16] < 224
}

// error4 tells the source of packet b what is wrong with it. in is where it came from, nil for our own.
func (w *worker) error4(in *iface, b []byte, typ, code byte, info uint32) {
	if !deserves4(b) {
		return
	}
	if !w.p.icmpRate.take(w.now) {
		w.p.errors[errICMPLimit].Add(1)
		return
	}
	dst := addr4(b[12:16])
	t, src := w.from, dst // about our own packet: from ourselves
	if in != nil {
		t = in.t4
		if src = w.p.source4(in, t, dst); !src.IsValid() {
			return
		}
	}
	if t == nil {
		return
	}
	quote := b[:min(len(b), max4Error-header4Len-8)]
	k := w.newPacket(header4Len + 8 + len(quote))
	o := k.ip()
	w.header4(o, src, dst, protoICMP, 0xc0) // RFC 1812 §4.3.2.5: internetwork control
	m := o[header4Len:]
	m[0], m[1] = typ, code
	put32(m[4:], info)
	copy(m[8:], quote)
	put16(m[2:], checksum(m))
	w.originate4(k, t, nil)
}

// deserves6 is RFC 4443 §2.4 (e).
func deserves6(b []byte, typ, code byte) bool {
	src := addr6(b[8:24])
	if src.IsUnspecified() || src.IsMulticast() || src.IsLoopback() {
		return false
	}
	if b[24] == 0xff && typ != icmp6TooBig && (typ != icmp6Parameter || code != 2) {
		return false
	}
	proto, at, fragment, _, _, ok := upper6(b)
	if !ok {
		return typ == icmp6Parameter
	}
	if fragment != 0 {
		if get16(b[at+2:])&^7 != 0 {
			return false
		}
		proto, at = b[at], at+8
	}
	if proto == protoICMPv6 && (len(b) <= at || b[at] < 128 || b[at] == 137) {
		return false
	}
	return true
}

// error6 is error4 for IPv6.
func (w *worker) error6(in *iface, b []byte, typ, code byte, info uint32) {
	if !deserves6(b, typ, code) {
		return
	}
	if !w.p.icmpRate.take(w.now) {
		w.p.errors[errICMPLimit].Add(1)
		return
	}
	dst := addr6(b[8:24])
	t, src := w.from, dst
	var out *iface
	if in != nil {
		t = in.t6
		if dst.IsLinkLocalUnicast() {
			out = in
		}
		if src = w.p.source6(in, t, dst); !src.IsValid() {
			return
		}
	} else if dst.IsLinkLocalUnicast() {
		return // our own link-local packet: who cares gets a timeout
	}
	if t == nil {
		return
	}
	quote := b[:min(len(b), max6Error-header6Len-8)]
	k := w.newPacket(header6Len + 8 + len(quote))
	o := k.ip()
	header6(o, src, dst, protoICMPv6, ownTTL)
	m := o[header6Len:]
	m[0], m[1] = typ, code
	put32(m[4:], info)
	copy(m[8:], quote)
	seal6(o, header6Len)
	w.originate6(k, t, out)
}

// seal6 fills in the checksum of the ICMPv6 message at an offset of a packet.
func seal6(b []byte, at int) {
	m := b[at:]
	put16(m[2:], 0)
	put16(m[2:], fold(sum(m, pseudo(b[8:24], b[24:40], protoICMPv6, len(m)))))
}

// unreachableHost tells the source of a packet that waited in vain for a neighbour.
func (w *worker) unreachableHost(q parked) {
	w.drop(q.in, errUnresolved)
	w.from = q.from
	if q.packet[0]>>4 == 4 {
		w.error4(q.in, q.packet, icmp4Unreachable, 1, 0) // RFC 1812 §5.2.7.1: host unreachable
		return
	}
	w.error6(q.in, q.packet, icmp6Unreachable, 3, 0) // RFC 4861 §7.2.2: address unreachable
}

// icmp4 takes an ICMP message for us.
func (w *worker) icmp4(k packet, in *iface, t *table) {
	b := k.ip()
	ihl := int(b[0]&15) * 4
	m := b[ihl:]
	if len(m) < 8 || checksum(m) != 0 {
		w.drop(in, errTransportChecksum)
		return
	}
	switch m[0] {
	case icmp4Echo:
		w.echo4(k, t)
	case icmp4Unreachable:
		w.p.taps.deliver(t.id, in, b)
		if inner := m[8:]; len(inner) >= header4Len+8 && (inner[9] == protoTCP || inner[9] == protoUDP) {
			w.local = append(w.local, delivery{packet: b, table: t.id, proto: protoICMP})
		}
	default:
		w.p.taps.deliver(t.id, in, b)
	}
}

// echo4 turns a request into the reply. RFC 1122 §3.2.2.6; options are not sent back.
func (w *worker) echo4(k packet, t *table) {
	b := k.ip()
	ihl := int(b[0]&15) * 4
	if ihl > header4Len {
		k = packet{k.buf, k.off + ihl - header4Len}
		copy(k.ip()[:header4Len], b[:header4Len])
		b = k.ip()
	}
	m := b[header4Len:]
	src, dst := addr4(b[16:20]), addr4(b[12:16])
	w.header4(b, src, dst, protoICMP, b[1])
	b[8] = echoTTL
	before := get16(m)
	m[0] = icmp4EchoReply
	put16(m[2:], updateChecksum(get16(m[2:]), before, get16(m)))
	w.originate4(k, t, nil)
}

// icmp6 takes an ICMPv6 message for us; it starts at offset at.
func (w *worker) icmp6(k packet, at int, in *iface, t *table) {
	b := k.ip()
	m := b[at:]
	if len(m) < 8 || fold(sum(m, pseudo(b[8:24], b[24:40], protoICMPv6, len(m)))) != 0 {
		w.drop(in, errTransportChecksum)
		return
	}
	group := b[24] == 0xff
	switch m[0] {
	case icmp6Echo:
		w.echo6(b, at, in, t)
	case icmp6NeighborSol, icmp6NeighborAdv:
		if in == nil || at != header6Len {
			w.drop(in, errND)
			return
		}
		if m[0] == icmp6NeighborSol {
			w.inputSolicit(in, b)
		} else {
			w.inputAdvertise(in, b)
		}
	case icmp6RouterSol, icmp6RouterAdv:
		if in == nil || at != header6Len {
			w.drop(in, errND)
			return
		}
		if m[0] == icmp6RouterSol {
			w.inputRouterSolicit(in, b)
		} else {
			w.inputRouterAdvert(in, b)
		}
	case 137: // we are a router: no redirects are taken (RFC 4861 §8.1)
	case icmp6Unreachable, icmp6TooBig, icmp6TimeExceeded, icmp6Parameter, icmp6EchoReply:
		if group {
			return
		}
		w.p.taps.deliver(t.id, in, b)
		if inner := m[8:]; m[0] <= icmp6TooBig && len(inner) >= header6Len+8 && (inner[6] == protoTCP || inner[6] == protoUDP) {
			d := w.deliver6(b, protoICMPv6, in, t)
			if scoped(inner[8:24]) || scoped(inner[24:40]) {
				d.iface = in
			}
			w.local = append(w.local, d)
		}
	}
}

// echo6 answers an echo request, with the address that was asked, or one of the interface for a group. RFC 4443 §4.2.
func (w *worker) echo6(b []byte, at int, in *iface, t *table) {
	m := b[at:]
	src, dst := addr6(b[24:40]), addr6(b[8:24])
	var out *iface
	if dst.IsLinkLocalUnicast() || src.IsLinkLocalUnicast() {
		out = in
	}
	if src.IsMulticast() {
		if src = w.p.source6(in, t, dst); !src.IsValid() {
			return
		}
	}
	k := w.newPacket(header6Len + len(m))
	o := k.ip()
	header6(o, src, dst, protoICMPv6, echoTTL)
	copy(o[header6Len:], m)
	o[header6Len] = icmp6EchoReply
	seal6(o, header6Len)
	w.originate6Long(k, t, out)
}

// source4 chooses an address of ours for something that concerns an interface: one of its own, of its lender, or of any other
// interface of the table, preferring one in the destination's prefix.
func (p *Plane) source4(i *iface, t *table, dst netip.Addr) netip.Addr {
	if i != nil {
		if a := choose(dst, i.addrs4, lent4(i)); a.IsValid() {
			return a
		}
	}
	return p.anyAddress(t)
}

// source6 is source4 for IPv6; link-local destinations are reached from the link-local address.
func (p *Plane) source6(i *iface, t *table, dst netip.Addr) netip.Addr {
	if i != nil {
		if dst.IsLinkLocalUnicast() {
			return i.ll
		}
		if a := choose(dst, i.addrs6, lent6(i)); a.IsValid() {
			return a
		}
	}
	if a := p.anyAddress(t); a.IsValid() || i == nil {
		return a
	}
	return i.ll
}

// choose returns the first address whose prefix has dst in it, else the first of all.
func choose(dst netip.Addr, lists ...[]netip.Prefix) netip.Addr {
	var first netip.Addr
	for _, l := range lists {
		for _, p := range l {
			if p.Contains(dst) {
				return p.Addr()
			}
			if !first.IsValid() {
				first = p.Addr()
			}
		}
	}
	return first
}

// anyAddress returns an address of the router in a table: a loopback's if there is one.
func (p *Plane) anyAddress(t *table) netip.Addr {
	var found netip.Addr
	for _, i := range p.ifaces {
		if i == nil || !i.admin {
			continue
		}
		list, same := i.addrs4, i.t4 == t
		if t.ip6 {
			list, same = i.addrs6, i.t6 == t
		}
		if !same || len(list) == 0 {
			continue
		}
		if i.kind == KindLoopback {
			return list[0].Addr()
		}
		if !found.IsValid() {
			found = list[0].Addr()
		}
	}
	return found
}
