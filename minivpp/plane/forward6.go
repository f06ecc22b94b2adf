package plane

// IPv6: input checks, lookup, rewrite. Routers do not fragment; our own packets that are too long are cut at the source.

import (
	"net/netip"
)

// input6 checks a received packet (RFC 8200, RFC 4291) and routes it.
func (w *worker) input6(i *iface, k packet) {
	b := k.ip()
	if len(b) < header6Len {
		w.drop(i, errLength)
		return
	}
	if b[0]>>4 != 6 {
		w.drop(i, errVersion)
		return
	}
	total := header6Len + int(get16(b[4:]))
	if total > len(b) {
		w.drop(i, errLength)
		return
	}
	if !i.ll.IsValid() && i.lender == nil {
		w.drop(i, errNotEnabled)
		return
	}
	k = k.trim(total)
	src, dst := addr6(b[8:24]), addr6(b[24:40])
	if src.IsMulticast() || src.IsLoopback() || dst.IsLoopback() || dst.IsUnspecified() || src.Is4In6() || dst.Is4In6() {
		w.drop(i, errMartian)
		return
	}
	if dst.IsMulticast() {
		if !w.joined(i, dst) {
			w.drop(i, errMulticast)
			return
		}
		w.local6(k, i, i.t6)
		return
	}
	if src.IsUnspecified() { // RFC 4291 §2.5.2; duplicate address detection goes to groups
		w.drop(i, errMartian)
		return
	}
	if i.urpf6 != URPFOff && !w.sourced(i, i.t6, src, i.urpf6) {
		return
	}
	if i.aclIn != nil && !w.passes(i.aclIn, i, k.ip(), true, 0, i) {
		return
	}
	if i.clamp.In6 > 0 {
		clampTCP(k.ip(), i.clamp.In6)
	}
	if dst.IsLinkLocalUnicast() {
		if dst != i.ll {
			w.drop(i, errScope)
			return
		}
		w.local6(k, i, i.t6)
		return
	}
	w.route6(k, i, i.t6, nil)
}

// joined reports whether we listen to a group on the interface: all nodes, all routers, and the solicited-node groups of our
// addresses (RFC 4291 §2.8).
func (w *worker) joined(i *iface, g netip.Addr) bool {
	a := g.As16()
	if a[1] != 2 && a[1] != 1 {
		return false
	}
	if a == allNodes || a == allRouters {
		return true
	}
	if [13]byte(a[:13]) != [13]byte(solicitedNode[:13]) {
		return false
	}
	low := [3]byte(a[13:])
	tail := func(o netip.Addr) bool {
		b := o.As16()
		return [3]byte(b[13:]) == low
	}
	if i.ll.IsValid() && tail(i.ll) {
		return true
	}
	for _, list := range [][]netip.Prefix{i.addrs6, lent6(i)} {
		for _, p := range list {
			if tail(p.Addr()) {
				return true
			}
		}
	}
	return false
}

var (
	allNodes      = [16]byte{0: 0xff, 1: 2, 15: 1}
	allRouters    = [16]byte{0: 0xff, 1: 2, 15: 2}
	solicitedNode = [16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff} // and the last 24 bits of the address
)

func lent4(i *iface) []netip.Prefix {
	if i.lender != nil {
		return i.lender.addrs4
	}
	return nil
}

func lent6(i *iface) []netip.Prefix {
	if i.lender != nil {
		return i.lender.addrs6
	}
	return nil
}

// route6 is route4 for IPv6. A link-local destination needs out, or in for answers.
func (w *worker) route6(k packet, in *iface, t *table, out *iface) {
	b := k.ip()
	dst := addr6(b[24:40])
	var h hop
	if in == nil {
		w.from = t
	}
	switch {
	case dst.IsLinkLocalUnicast() || dst.IsMulticast():
		if out == nil || !out.usable() {
			w.drop(in, errScope)
			return
		}
		h = hop{verdict: verdictTransmit, iface: out}
		if dst == out.ll {
			h.verdict = verdictLocal
		}
	case out != nil:
		h = w.via(t, dst, out)
	default:
		h, t = w.lookup(t, dst, b)
	}
	switch h.verdict {
	case verdictTransmit:
		w.forward6(k, in, h, dst)
	case verdictLocal:
		if out != nil {
			w.local6(k, out, t)
			return
		}
		w.local6(k, in, t)
	case verdictNoRoute:
		w.drop(in, errNoRoute)
		w.error6(in, b, icmp6Unreachable, 0, 0) // RFC 4443 §3.1: no route
	case verdictUnreachable:
		w.drop(in, errUnreachable)
		w.error6(in, b, icmp6Unreachable, 3, 0) // address unreachable
	case verdictProhibit:
		w.drop(in, errProhibited)
		w.error6(in, b, icmp6Unreachable, 1, 0) // administratively prohibited
	default:
		w.drop(in, errBlackhole)
	}
}

func (w *worker) forward6(k packet, in *iface, h hop, dst netip.Addr) {
	b := k.ip()
	if in != nil {
		// RFC 4007 §9: a link-local source does not leave its link.
		if src := addr6(b[8:24]); src.IsLinkLocalUnicast() && h.iface != in {
			w.drop(in, errScope)
			w.error6(in, b, icmp6Unreachable, 2, 0)
			return
		}
		if b[7] <= 1 {
			w.drop(in, errTTL)
			w.error6(in, b, icmp6TimeExceeded, 0, 0)
			return
		}
	}
	if mtu := h.iface.packetMTU(true); mtu != 0 && len(b) > mtu {
		w.drop(in, errTooBig)
		w.error6(in, b, icmp6TooBig, 0, uint32(mtu))
		return
	}
	if in != nil {
		b[7]--
	}
	next := h.next
	if !next.IsValid() {
		next = dst
	}
	if next.IsMulticast() {
		w.toGroup(h.iface, k)
		return
	}
	if w.leaves(h.iface, k, in) {
		w.toNeighbor(h.iface, next, k, in)
	}
}

// toGroup sends a packet of our own to an IPv6 group. RFC 2464 §7.
func (w *worker) toGroup(i *iface, k packet) {
	if i.device == nil {
		return
	}
	if i.rawIP {
		w.emit(i, k.ip())
		return
	}
	b := k.ip()
	f := k.buf[k.off-etherLen:]
	putEther(f, [6]byte{0x33, 0x33, b[36], b[37], b[38], b[39]}, i.mac, etherIPv6)
	w.emit(i, f)
}

// upper walks the extension headers (RFC 8200 §4.1) and returns the upper-layer protocol and its offset. fragment is the offset
// of a fragment header, which ends the walk, or 0. bad is the offset of a byte that cannot be processed, with the code of the
// parameter problem message.
func upper6(b []byte) (proto byte, at, fragment, bad int, code byte, ok bool) {
	proto, at = b[6], header6Len
	pointer := 6
	for range 16 {
		switch proto {
		case 0, 60: // hop-by-hop, destination options
			if proto == 0 && at != header6Len {
				return 0, 0, 0, pointer, 1, false
			}
		case 43: // routing
			if len(b) >= at+4 && b[at+3] != 0 {
				return 0, 0, 0, at + 2, 0, false // segments left, type not known: RFC 8200 §4.4
			}
		case 44:
			if len(b) < at+8 {
				return 0, 0, 0, 0, 0, false
			}
			return proto, at, at, 0, 0, true
		default:
			return proto, at, 0, 0, 0, true
		}
		if len(b) < at+8 {
			return 0, 0, 0, 0, 0, false
		}
		n := 8 + int(b[at+1])*8
		if len(b) < at+n {
			return 0, 0, 0, 0, 0, false
		}
		if proto == 0 || proto == 60 {
			switch o, refuse := unknownOption(b[at : at+n]); {
			case refuse == 0:
			case refuse == discardAlways, refuse == discardUnicast && b[24] != 0xff:
				return 0, 0, 0, at + o, 2, false
			default:
				return 0, 0, 0, 0, 0, false
			}
		}
		proto, pointer = b[at], at
		at += n
	}
	return 0, 0, 0, 0, 0, false
}

// What the highest bits of an unknown option's type say is to be done with the packet. RFC 8200 §4.2.
const (
	discardSilently = 1
	discardAlways   = 2 // and tell the source
	discardUnicast  = 3 // and tell the source, if the packet was not for a group
)

// unknownOption looks through the options of an extension header for one that we must not skip: its offset, and what to do. We
// know padding; router alert, and what else may be skipped, has 0 in those bits.
func unknownOption(h []byte) (at int, refuse byte) {
	for at = 2; at < len(h); {
		if h[at] == 0 { // Pad1 has no length
			at++
			continue
		}
		if at+2 > len(h) || at+2+int(h[at+1]) > len(h) {
			return at, discardSilently
		}
		if refuse = h[at] >> 6; refuse != 0 {
			return at, refuse
		}
		at += 2 + int(h[at+1])
	}
	return 0, 0
}

// local6 takes a packet for one of our addresses or groups.
func (w *worker) local6(k packet, in *iface, t *table) {
	b := k.ip()
	if in != nil {
		in.count.punts.Add(1)
	}
	proto, at, fragment, bad, code, ok := upper6(b)
	if ok && fragment != 0 {
		scope := uint32(0)
		if addr6(b[8:24]).IsLinkLocalUnicast() && in != nil {
			scope = in.serial
		}
		whole := w.p.frags.add6(b, at, t.id, scope, w.now)
		if whole == nil {
			return
		}
		k = w.copyPacket(whole)
		b = k.ip()
		proto, at, fragment, bad, code, ok = upper6(b)
		ok = ok && fragment == 0
	}
	if !ok {
		w.drop(in, errExtension)
		if bad != 0 {
			w.error6(in, b, icmp6Parameter, code, uint32(bad))
		}
		return
	}
	if b[24] == 0xff && proto != protoICMPv6 {
		w.drop(in, errMulticast)
		return
	}
	switch proto {
	case protoICMPv6:
		w.icmp6(k, at, in, t)
	case protoTCP:
		w.local = append(w.local, w.deliver6(b, protoTCP, in, t))
	case protoUDP:
		n, ok := lengthUDP(b, at)
		if !ok {
			w.drop(in, errLength)
			return
		}
		b = b[:n]
		put16(b[4:], uint16(n-header6Len))
		if !w.inputBFD(in, b, at) {
			w.local = append(w.local, w.deliver6(b, protoUDP, in, t))
		}
	case 59: // RFC 8200 §4.7: no next header
	default:
		w.drop(in, errUnknownProtocol)
		w.error6(in, b, icmp6Parameter, 1, uint32(nextHeaderField(b, at)))
	}
}

// deliver6 says where in gVisor a packet belongs: what has a link-local end belongs to the interface's NIC.
func (w *worker) deliver6(b []byte, proto byte, in *iface, t *table) delivery {
	d := delivery{packet: b, table: t.id, proto: proto, in: in}
	if in == nil {
		d.from = w.from
	}
	if addr6(b[8:24]).IsLinkLocalUnicast() || addr6(b[24:40]).IsLinkLocalUnicast() {
		d.iface = in
	}
	return d
}

// nextHeaderField is the offset of the byte that named the header at offset at.
func nextHeaderField(b []byte, at int) int {
	field, o := 6, header6Len
	for o < at {
		field = o
		o += 8 + int(b[o+1])*8
	}
	return field
}

// originate6 sends a finished packet of our own, by routes or by out. One that is longer than the egress MTU is fragmented when
// the caller has no use for an error.
func (w *worker) originate6(k packet, t *table, out *iface) {
	w.route6(k, nil, t, out)
}

// originate6Long is originate6 for packets that may be cut. RFC 8200 §4.5.
func (w *worker) originate6Long(k packet, t *table, out *iface) {
	w.originate6Cut(k, t, out, w.firstMTU6(k.ip(), t, out))
}

// firstMTU6 is the MTU of the link by which a packet of our own leaves, 0 when it does not.
func (w *worker) firstMTU6(b []byte, t *table, out *iface) int {
	if out != nil {
		return out.packetMTU(true)
	}
	if h, _ := w.lookup(t, addr6(b[24:40]), b); h.verdict == verdictTransmit {
		return h.iface.packetMTU(true)
	}
	return 0
}

// originate6Cut is originate6 with fragments of at most mtu bytes; 0: whole.
func (w *worker) originate6Cut(k packet, t *table, out *iface, mtu int) {
	b := k.ip()
	if mtu == 0 || len(b) <= mtu {
		w.originate6(k, t, out)
		return
	}
	size := (max(mtu, 1280) - header6Len - 8) &^ 7
	id := w.p.ident.Add(1)
	data := b[header6Len:]
	for at := 0; at < len(data); at += size {
		n := min(size, len(data)-at)
		f := w.newPacket(header6Len + 8 + n)
		o := f.ip()
		copy(o, b[:header6Len])
		put16(o[4:], uint16(8+n))
		o[6] = 44
		o[header6Len] = b[6]
		field := uint16(at)
		if at+n < len(data) {
			field |= 1
		}
		put16(o[header6Len+2:], field)
		put32(o[header6Len+4:], id)
		copy(o[header6Len+8:], data[at:at+n])
		w.originate6(f, t, out)
	}
}

// header6 writes the header of a packet of our own.
func header6(b []byte, src, dst netip.Addr, proto, limit byte) {
	b[0], b[1], b[2], b[3] = 0x60, 0, 0, 0
	put16(b[4:], uint16(len(b)-header6Len))
	b[6], b[7] = proto, limit
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
}
