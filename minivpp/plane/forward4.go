package plane

// IPv4: input checks, lookup, rewrite, fragmentation.

import (
	"net/netip"
)

// input4 checks a received packet (RFC 1812 §5.2.2) and routes it.
func (w *worker) input4(i *iface, k packet) {
	b := k.ip()
	if len(b) < header4Len {
		w.drop(i, errLength)
		return
	}
	ihl := int(b[0]&15) * 4
	if b[0]>>4 != 4 || ihl < header4Len || len(b) < ihl {
		w.drop(i, errVersion)
		return
	}
	total := int(get16(b[2:]))
	if total < ihl || total > len(b) {
		w.drop(i, errLength)
		return
	}
	if checksum(b[:ihl]) != 0 {
		w.drop(i, errChecksum)
		return
	}
	if len(i.addrs4) == 0 && i.lender == nil {
		w.drop(i, errNotEnabled)
		return
	}
	k = k.trim(total)
	// RFC 1812 §5.3.7. Classes D and E and the broadcast address have no hosts.
	if src, dst := b[12], b[16]; src == 0 || src == 127 || src >= 224 || dst == 0 || dst == 127 {
		w.drop(i, errMartian)
		return
	} else if dst >= 224 {
		w.drop(i, errMulticast)
		return
	}
	if i.urpf4 != URPFOff && !w.sourced(i, i.t4, addr4(b[12:16]), i.urpf4) {
		return
	}
	if i.aclIn != nil && !w.passes(i.aclIn, i, k.ip(), true, 0, i) {
		return
	}
	if i.clamp.In4 > 0 {
		clampTCP(k.ip(), i.clamp.In4)
	}
	w.route4(k, i, i.t4, nil)
}

// lookup finds the hop for a destination, through as many tables as routes say.
func (w *worker) lookup(t *table, dst netip.Addr, b []byte) (hop, *table) {
	for range maxRecursion {
		e, ok := t.routes.Lookup(dst)
		if !ok {
			return hop{verdict: verdictNoRoute}, t
		}
		if e.source == SourceDefaultRoute {
			return hop{verdict: verdictNoRoute}, t
		}
		r := w.p.resolve(e.list)
		h := &r.hops[0]
		if r.buckets != nil {
			h = r.pick(w.flowHash(b, t.hash))
		}
		if h.verdict != verdictLookup {
			return *h, t
		}
		if t = w.p.tables[tableKey{h.table, t.ip6}]; t == nil {
			return dropHop, t
		}
	}
	return dropHop, t
}

// via restricts a lookup to an egress interface: the route's hop there, or else the destination itself as a neighbour.
func (w *worker) via(t *table, dst netip.Addr, out *iface) hop {
	e, ok := t.routes.Lookup(dst)
	if ok {
		for _, h := range w.p.resolve(e.list).hops {
			if h.verdict == verdictLocal || (h.verdict == verdictTransmit && h.iface == out) {
				return h
			}
		}
	}
	if !out.usable() {
		return hop{verdict: verdictNoRoute}
	}
	return hop{verdict: verdictTransmit, iface: out}
}

// route4 decides about a packet and carries it out. in is where it was received, nil for our own packets, for which out may
// name the egress interface.
func (w *worker) route4(k packet, in *iface, t *table, out *iface) {
	b := k.ip()
	dst := addr4(b[16:20])
	var h hop
	if in == nil {
		w.from = t
	}
	if out != nil {
		h = w.via(t, dst, out)
	} else {
		h, t = w.lookup(t, dst, b)
	}
	switch h.verdict {
	case verdictTransmit:
		w.forward4(k, in, h, dst)
	case verdictLocal:
		w.local4(k, in, t)
	case verdictNoRoute:
		w.drop(in, errNoRoute)
		w.error4(in, b, icmp4Unreachable, 0, 0) // RFC 1812 §5.2.7.1: network unreachable
	case verdictUnreachable:
		w.drop(in, errUnreachable)
		w.error4(in, b, icmp4Unreachable, 1, 0)
	case verdictProhibit:
		w.drop(in, errProhibited)
		w.error4(in, b, icmp4Unreachable, 13, 0) // RFC 1812 §5.2.7.1: administratively prohibited
	default:
		w.drop(in, errBlackhole)
	}
}

func (w *worker) forward4(k packet, in *iface, h hop, dst netip.Addr) {
	b := k.ip()
	if in != nil {
		if b[8] <= 1 {
			w.drop(in, errTTL)
			w.error4(in, b, icmp4TimeExceeded, 0, 0)
			return
		}
	}
	mtu := h.iface.packetMTU(false)
	big := mtu != 0 && len(b) > mtu
	if big && b[6]&0x40 != 0 {
		w.drop(in, errTooBig)
		w.error4(in, b, icmp4Unreachable, 4, uint32(mtu)) // RFC 1191 §4
		return
	}
	if in != nil {
		before := get16(b[8:])
		b[8]--
		put16(b[10:], updateChecksum(get16(b[10:]), before, get16(b[8:])))
	}
	next := h.next
	if !next.IsValid() {
		next = dst
	}
	if !big {
		if w.leaves(h.iface, k, in) {
			w.toNeighbor(h.iface, next, k, in)
		}
		return
	}
	w.fragment4(b, mtu, func(f packet) {
		if w.leaves(h.iface, f, in) {
			w.toNeighbor(h.iface, next, f, in)
		}
	})
}

// fragment4 cuts a packet into fragments of at most mtu bytes. RFC 791 §3.2.
func (w *worker) fragment4(b []byte, mtu int, send func(packet)) {
	ihl := int(b[0]&15) * 4
	size := (mtu - ihl) &^ 7
	if size <= 0 {
		return
	}
	field := get16(b[6:])
	first, more := int(field&0x1fff)*8, field&0x2000
	data := b[ihl:]
	for at := 0; at < len(data); {
		hlen := ihl
		if at > 0 {
			hlen = header4Len + copied4(b[header4Len:ihl], nil)
		}
		n := min(size, len(data)-at)
		k := w.newPacket(hlen + n)
		f := k.ip()
		copy(f, b[:header4Len])
		if at == 0 {
			copy(f[header4Len:], b[header4Len:ihl])
		} else {
			copied4(b[header4Len:ihl], f[header4Len:hlen])
		}
		copy(f[hlen:], data[at:at+n])
		f[0] = 4<<4 | byte(hlen/4)
		put16(f[2:], uint16(hlen+n))
		flags := uint16((first + at) / 8)
		if at+n < len(data) {
			flags |= 0x2000
		} else {
			flags |= more
		}
		put16(f[6:], flags)
		put16(f[10:], 0)
		put16(f[10:], checksum(f[:hlen]))
		at += n
		send(k)
	}
}

// copied4 keeps the options that every fragment carries (RFC 791 §3.1, copied flag), padded, and returns their length.
func copied4(options, to []byte) int {
	n := 0
	for len(options) > 0 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if len(options) < 2 || int(options[1]) < 2 || int(options[1]) > len(options) {
			break
		}
		l := int(options[1])
		if options[0]&0x80 != 0 {
			if to != nil {
				copy(to[n:], options[:l])
			}
			n += l
		}
		options = options[l:]
	}
	return (n + 3) &^ 3
}

// local4 takes a packet for one of our addresses; t is the table that says so.
func (w *worker) local4(k packet, in *iface, t *table) {
	b := k.ip()
	if in != nil {
		in.count.punts.Add(1)
	}
	if get16(b[6:])&0x3fff != 0 {
		whole := w.p.frags.add4(b, t.id, w.now)
		if whole == nil {
			return
		}
		k = w.copyPacket(whole)
		b = k.ip()
	}
	ihl := int(b[0]&15) * 4
	switch b[9] {
	case protoICMP:
		w.icmp4(k, in, t)
	case protoTCP:
		w.local = append(w.local, delivery{packet: b, table: t.id, proto: protoTCP})
	case protoUDP:
		n, ok := lengthUDP(b, ihl)
		if !ok {
			w.drop(in, errLength)
			return
		}
		if n < len(b) {
			b = b[:n]
			put16(b[2:], uint16(n))
			put16(b[10:], 0)
			put16(b[10:], checksum(b[:ihl]))
		}
		if w.inputBFD(in, b, ihl) {
			return
		}
		d := delivery{packet: b, table: t.id, proto: protoUDP, in: in}
		if in == nil {
			d.from = w.from
		}
		w.local = append(w.local, d)
	default:
		w.drop(in, errUnknownProtocol)
		w.error4(in, b, icmp4Unreachable, 2, 0)
	}
}

// originate4 finishes a packet of our own and sends it: by routes, or when out is given by that interface.
func (w *worker) originate4(k packet, t *table, out *iface) {
	b := k.ip()
	ihl := int(b[0]&15) * 4
	put16(b[10:], 0)
	put16(b[10:], checksum(b[:ihl]))
	w.route4(k, nil, t, out)
}

// header4 writes the header of a packet of our own; originate4 adds the checksum.
func (w *worker) header4(b []byte, src, dst netip.Addr, proto, tos byte) {
	b[0], b[1] = 0x45, tos
	put16(b[2:], uint16(len(b)))
	put16(b[4:], uint16(w.p.ident.Add(1)))
	put16(b[6:], 0)
	b[8], b[9] = ownTTL, proto
	s, d := src.As4(), dst.As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
}
