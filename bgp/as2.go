package bgp

import (
	"encoding/binary"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is what a neighbour without 4-byte AS numbers is told (RFC 6793 §4.2.2).

// twoBytes writes AS numbers in 2 bytes. Where one does not fit, AS_TRANS takes its place, and all of them go along in AS4_PATH and
// AS4_AGGREGATOR.
func (u *update) twoBytes() {
	if a := u.find(bgp.BGP_ATTR_TYPE_AS_PATH); a != nil {
		path, wide := narrowPath(a.value)
		all := confederationless(a.value)
		a.value = path
		if wide && len(all) > 0 {
			u.put(attr{optTransitive, bgp.BGP_ATTR_TYPE_AS4_PATH, all})
		}
	}
	if a := u.find(bgp.BGP_ATTR_TYPE_AGGREGATOR); a != nil && len(a.value) == 8 {
		all := a.value
		as := binary.BigEndian.Uint32(all)
		a.value = append(binary.BigEndian.AppendUint16(nil, narrow(as)), all[4:]...)
		if as > 0xffff {
			u.put(attr{optTransitive, bgp.BGP_ATTR_TYPE_AS4_AGGREGATOR, all})
		}
	}
}

func narrow(as uint32) uint16 {
	if as > 0xffff {
		return bgp.AS_TRANS
	}
	return uint16(as)
}

// narrowPath reports whether there was a number that did not fit.
func narrowPath(v []byte) (path []byte, wide bool) {
	for len(v) >= 2 && len(v) >= 2+int(v[1])*4 {
		path = append(path, v[:2]...)
		for i := range int(v[1]) {
			as := binary.BigEndian.Uint32(v[2+4*i:])
			wide = wide || as > 0xffff
			path = binary.BigEndian.AppendUint16(path, narrow(as))
		}
		v = v[2+int(v[1])*4:]
	}
	return path, wide
}

// confederationless is a path without the segments that AS4_PATH must not have (RFC 6793 §3).
func confederationless(v []byte) (path []byte) {
	for len(v) >= 2 && len(v) >= 2+int(v[1])*4 {
		n := 2 + int(v[1])*4
		if v[0] != bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ && v[0] != bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET {
			path = append(path, v[:n]...)
		}
		v = v[n:]
	}
	return path
}
