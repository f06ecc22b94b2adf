package plane

// IPv6 neighbour discovery (RFC 4861): solicitations and advertisements for link-local and global addresses.
// Addresses are used without duplicate address detection, as in VPP, but other
// nodes' detection is answered.

import (
	"net/netip"
)

const (
	ndLen        = 24 // ICMPv6 header, flags, target
	optionSource = 1
	optionTarget = 2

	flagRouter    = 0x80
	flagSolicited = 0x40
	flagOverride  = 0x20
)

// linkOption finds a link-layer address option of a type; ok is false when the options are malformed. RFC 4861 §4.6.
func linkOption(m []byte, want byte) (mac [6]byte, found, ok bool) {
	for o := m[ndLen:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || len(o) < int(o[1])*8 {
			return mac, false, false
		}
		if o[0] == want && o[1] == 1 {
			mac, found = [6]byte(o[2:8]), true
		}
		o = o[int(o[1])*8:]
	}
	return mac, found && mac[0]&1 == 0 && mac != ([6]byte{}), true
}

func ours6(i *iface, a netip.Addr) bool {
	if a == i.ll {
		return true
	}
	for _, list := range [2][]netip.Prefix{i.addrs6, lent6(i)} {
		for _, p := range list {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// inputSolicit takes a neighbour solicitation whose checksum is right. RFC 4861 §7.1.1, §7.2.3.
func (w *worker) inputSolicit(i *iface, b []byte) {
	m := b[header6Len:]
	if b[7] != 255 || m[1] != 0 || len(m) < ndLen {
		w.drop(i, errND)
		return
	}
	src, dst, target := addr6(b[8:24]), addr6(b[24:40]), addr6(m[8:24])
	mac, have, ok := linkOption(m, optionSource)
	dad := src.IsUnspecified()
	if !ok || target.IsMulticast() || (dad && (have || !dst.IsMulticast())) || ours6(i, src) {
		w.drop(i, errND)
		return
	}
	if !ours6(i, target) {
		return // a neighbour of ours with the same last 24 bits
	}
	if dad {
		// Somebody wants an address that is ours: tell everybody. §7.2.4.
		w.advertise(i, target, netip.AddrFrom16(allNodes), flagRouter|flagOverride)
		return
	}
	if !src.IsLinkLocalUnicast() && !w.onLink(i, src, i.addrs6, i.t6) {
		w.drop(i, errND)
		return
	}
	if have {
		w.learned(i, src, mac, learnNew)
	}
	w.advertise(i, target, src, flagRouter|flagSolicited|flagOverride)
}

// advertise sends a neighbour advertisement.
func (w *worker) advertise(i *iface, target, dst netip.Addr, flags byte) {
	k := w.newPacket(header6Len + ndLen + 8)
	b := k.ip()
	header6(b, target, dst, protoICMPv6, 255)
	m := b[header6Len:]
	m[0], m[4] = icmp6NeighborAdv, flags
	t := target.As16()
	copy(m[8:], t[:])
	m[ndLen], m[ndLen+1] = optionTarget, 1
	copy(m[ndLen+2:], i.mac[:])
	seal6(b, header6Len)
	if dst.IsMulticast() {
		w.toGroup(i, k)
		return
	}
	w.from = i.t6
	w.toNeighbor(i, dst, k, nil)
}

// inputAdvertise takes a neighbour advertisement whose checksum is right. RFC 4861 §7.1.2, §7.2.5.
func (w *worker) inputAdvertise(i *iface, b []byte) {
	m := b[header6Len:]
	if b[7] != 255 || m[1] != 0 || len(m) < ndLen {
		w.drop(i, errND)
		return
	}
	target := addr6(m[8:24])
	solicited, override := m[4]&flagSolicited != 0, m[4]&flagOverride != 0
	mac, have, ok := linkOption(m, optionTarget)
	if !ok || target.IsMulticast() || (solicited && b[24] == 0xff) || ours6(i, target) {
		w.drop(i, errND)
		return
	}
	known := i.near6.find(target)
	if !have {
		if known == 0 || !solicited {
			return
		}
		mac, override = unpackMAC(known), false
	}
	how := learnKnown
	if !override {
		how = learnConfirm
	}
	w.learned(i, target, mac, how)
}

// solicitND asks for a neighbour's address: the group of those who may have it, or the one with a MAC. RFC 4861 §7.2.2.
func (w *worker) solicitND(i *iface, target netip.Addr, mac uint64) {
	src := i.ll
	if !src.IsValid() || !target.IsLinkLocalUnicast() {
		if a := choose(target, i.addrs6, lent6(i)); a.IsValid() {
			src = a
		}
	}
	if !src.IsValid() {
		return
	}
	t := target.As16()
	dst := target
	if mac == 0 {
		g := solicitedNode
		copy(g[13:], t[13:])
		dst = netip.AddrFrom16(g)
	}
	k := w.newPacket(header6Len + ndLen + 8)
	b := k.ip()
	header6(b, src, dst, protoICMPv6, 255)
	m := b[header6Len:]
	m[0] = icmp6NeighborSol
	copy(m[8:], t[:])
	m[ndLen], m[ndLen+1] = optionSource, 1
	copy(m[ndLen+2:], i.mac[:])
	seal6(b, header6Len)
	if mac == 0 {
		w.toGroup(i, k)
		return
	}
	f := k.buf[k.off-etherLen:]
	putEther(f, unpackMAC(mac), i.mac, etherIPv6)
	w.emit(i, f)
}
