package bgp

import (
	"encoding/binary"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// singleRoute returns the prefix that an UPDATE's body announces, if it announces one alone and withdraws none (RFC 4271
// §4.3, RFC 4760 §3). It is for measuring, before GoBGP has judged the message: anything odd is no single route.
func singleRoute(body []byte) (netip.Prefix, bool) {
	none := netip.Prefix{}
	if len(body) < 4 || binary.BigEndian.Uint16(body) != 0 {
		return none, false
	}
	attrs := int(binary.BigEndian.Uint16(body[2:]))
	if len(body) < 4+attrs {
		return none, false
	}
	nlri := body[4+attrs:]
	if reach, ok := attribute(body[4:4+attrs], bgp.BGP_ATTR_TYPE_MP_REACH_NLRI); ok {
		return singleReach(reach, len(nlri))
	}
	return onlyPrefix(nlri, 4)
}

// singleReach reads an MP_REACH_NLRI: AFI, SAFI, the next hop with its length, a reserved byte, the routes.
func singleReach(reach []byte, others int) (netip.Prefix, bool) {
	if others > 0 || len(reach) < 4 || reach[2] != bgp.SAFI_UNICAST || len(reach) < 5+int(reach[3]) {
		return netip.Prefix{}, false
	}
	nlri := reach[5+int(reach[3]):]
	switch binary.BigEndian.Uint16(reach) {
	case bgp.AFI_IP:
		return onlyPrefix(nlri, 4)
	case bgp.AFI_IP6:
		return onlyPrefix(nlri, 16)
	}
	return netip.Prefix{}, false
}

// attribute finds a path attribute's value.
func attribute(list []byte, typ bgp.BGPAttrType) ([]byte, bool) {
	for {
		a, rest, whole := cutAttr(list)
		if !whole || a.typ == typ {
			return a.value, whole
		}
		list = rest
	}
}

// onlyPrefix decodes NLRI that is one prefix: its length in bits, and as many bytes as that takes.
func onlyPrefix(nlri []byte, size int) (netip.Prefix, bool) {
	if len(nlri) == 0 || int(nlri[0]) > 8*size || len(nlri) != 1+(int(nlri[0])+7)/8 {
		return netip.Prefix{}, false
	}
	full := make([]byte, size)
	copy(full, nlri[1:])
	addr, _ := netip.AddrFromSlice(full)
	return netip.PrefixFrom(addr, int(nlri[0])).Masked(), true
}
