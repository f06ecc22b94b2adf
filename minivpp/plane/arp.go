package plane

// ARP (RFC 826) for the addresses of an interface and of its lender.

import (
	"net/netip"
)

const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
)

// inputARP takes a frame with an ARP message.
func (w *worker) inputARP(i *iface, f []byte) {
	if len(f) < etherLen+arpLen {
		w.drop(i, errRunt)
		return
	}
	m := f[etherLen:]
	if get16(m) != 1 || get16(m[2:]) != etherIPv4 || m[4] != 6 || m[5] != 4 {
		w.drop(i, errARP)
		return
	}
	op := get16(m[6:])
	sha := [6]byte(m[8:14])
	spa, tpa := addr4(m[14:18]), addr4(m[24:28])
	if (op != arpRequest && op != arpReply) || sha[0]&1 != 0 || sha == ([6]byte{}) || spa.IsMulticast() || ours4(i, spa) {
		w.drop(i, errARP) // also: somebody else uses our address
		return
	}
	known := !spa.IsUnspecified() // RFC 5227 §1.1: a probe has no sender
	if known && !w.onLink(i, spa, i.addrs4, i.t4) {
		w.drop(i, errARP)
		return
	}
	if op != arpRequest || !ours4(i, tpa) {
		if known {
			w.learned(i, spa, sha, learnKnown) // replies, and requests and gratuitous messages about others
		}
		return
	}
	if known {
		w.learned(i, spa, sha, learnNew) // RFC 826: who asks will be talked to
	}
	// The reply goes back in the same buffer.
	copy(m[18:24], sha[:])
	copy(m[24:28], m[14:18])
	t := tpa.As4()
	copy(m[8:14], i.mac[:])
	copy(m[14:18], t[:])
	put16(m[6:], arpReply)
	putEther(f, sha, i.mac, etherARP)
	w.emit(i, f[:etherLen+arpLen])
}

func ours4(i *iface, a netip.Addr) bool {
	for _, list := range [2][]netip.Prefix{i.addrs4, lent4(i)} {
		for _, p := range list {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// onLink reports whether a may be a neighbour on i: it is in a connected prefix, a route says so, or the interface has no
// prefixes of its own because it is unnumbered.
func (w *worker) onLink(i *iface, a netip.Addr, addrs []netip.Prefix, t *table) bool {
	if i.lender != nil {
		return true
	}
	for _, p := range addrs {
		if p.Contains(a) {
			return true
		}
	}
	e, ok := t.routes.Lookup(a)
	if !ok {
		return false
	}
	for k := range e.list.paths {
		path := &e.list.paths[k]
		if path.Type == PathNormal && e.list.ifaces[k] == i && (!path.Addr.IsValid() || path.Addr == a) {
			return true
		}
	}
	return false
}

// requestARP asks who has an address: everybody, or the neighbour with a MAC.
func (w *worker) requestARP(i *iface, target netip.Addr, mac uint64) {
	src := w.p.source4(i, i.t4, target)
	if !src.IsValid() {
		return
	}
	k := w.newPacket(arpLen)
	f := k.buf[k.off-etherLen:]
	dst := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	m := f[etherLen:]
	if mac != 0 {
		dst = unpackMAC(mac)
		copy(m[18:], dst[:])
	}
	putEther(f, dst, i.mac, etherARP)
	put16(m, 1)
	put16(m[2:], etherIPv4)
	m[4], m[5] = 6, 4
	put16(m[6:], arpRequest)
	copy(m[8:], i.mac[:])
	s, t := src.As4(), target.As4()
	copy(m[14:], s[:])
	copy(m[24:], t[:])
	w.emit(i, f)
}
