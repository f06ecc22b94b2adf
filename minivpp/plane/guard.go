package plane

// What an interface does to packets besides forwarding them: it lowers TCP's segment size (VPP's mss_clamp plugin), and refuses
// sources to which there is no way back (VPP's urpf plugin, RFC 3704).

import "net/netip"

// Clamp is the largest segment size that TCP may ask for through an interface, in each direction; 0: any.
type Clamp struct{ In4, Out4, In6, Out6 uint16 }

// URPFMode is how sources are looked at; the values are the API's (urpf_mode of urpf.api).
type URPFMode uint8

// Modes.
const (
	URPFOff    URPFMode = iota
	URPFLoose           // there is a route to the source
	URPFStrict          // and it leaves by the interface
)

// SetClamp sets an interface's, for mss_clamp_enable_disable. Error: INVALID_SW_IF_INDEX.
func (p *Plane) SetClamp(idx uint32, c Clamp) error {
	return p.change(idx, func(i *iface) error {
		i.clamp = c
		return nil
	})
}

// SetURPF sets an interface's mode for packets of a family that come in, for urpf_update. Error: INVALID_SW_IF_INDEX.
func (p *Plane) SetURPF(idx uint32, ip6 bool, mode URPFMode) error {
	return p.change(idx, func(i *iface) error {
		if ip6 {
			i.urpf6 = mode
		} else {
			i.urpf4 = mode
		}
		return nil
	})
}

// sourced reports whether the route to a packet's source is one by which it may have come; mode is not URPFOff.
func (w *worker) sourced(i *iface, t *table, src netip.Addr, mode URPFMode) bool {
	if t == nil || src.Is6() && src.IsLinkLocalUnicast() {
		return true // a link-local source is on the link
	}
	e, ok := t.routes.Lookup(src)
	if ok && e.source != SourceDefaultRoute {
		for _, h := range w.p.resolve(e.list).hops {
			if h.verdict == verdictTransmit && (mode == URPFLoose || h.iface == i) {
				return true
			}
		}
	}
	w.drop(i, errURPF)
	return false
}

// clampTCP lowers the segment size that a SYN asks for (RFC 9293 §3.7.1).
func clampTCP(b []byte, most uint16) {
	at, proto := header6Len, byte(0)
	if b[0]>>4 == 4 {
		at, proto = int(b[0]&15)*4, b[9]
		if get16(b[6:])&0x1fff != 0 {
			return // not the first fragment
		}
	} else {
		proto = b[6]
	}
	if proto != protoTCP || len(b) < at+20 || b[at+13]&2 == 0 {
		return
	}
	end := at + int(b[at+12]>>4)*4
	if end > len(b) {
		return
	}
	for o := at + 20; o < end; {
		switch b[o] {
		case 0:
			return
		case 1:
			o++
			continue
		}
		if o+1 >= end || b[o+1] < 2 || o+int(b[o+1]) > end {
			return
		}
		if b[o] == 2 && b[o+1] == 4 {
			if get16(b[o+2:]) <= most {
				return
			}
			words := b[o+2 : o+4]
			if (o-at)%2 != 0 { // the value lies across two words of the checksum
				words = b[o+1 : o+5]
			}
			var before [4]byte
			copy(before[:], words)
			put16(b[o+2:], most)
			field := b[at+16:]
			for w := 0; w < len(words); w += 2 {
				put16(field, updateChecksum(get16(field), get16(before[w:]), get16(words[w:])))
			}
			return
		}
		o += int(b[o+1])
	}
}
