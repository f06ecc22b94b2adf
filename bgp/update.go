package bgp

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file takes an UPDATE apart and puts it together again (RFC 4271 §4.3), for what the transport does to UPDATEs on their
// way (traffic.go). Routes are not decoded here.

// update is an UPDATE in its parts. Its slices belong to the message that it was made from until they are replaced.
type update struct {
	withdrawn []byte // IPv4 routes
	attrs     []attr
	nlri      []byte // IPv4 routes
	broken    bool   // the list of attributes ends amid one of them; attrs are those before
}

// attr is a path attribute.
type attr struct {
	flags bgp.BGPAttrFlag
	typ   bgp.BGPAttrType
	value []byte
}

// parseUpdate reports false for a body whose lengths do not fit: where its routes are cannot be said.
func parseUpdate(body []byte) (u update, ok bool) {
	if len(body) < 4 {
		return update{}, false
	}
	n := int(binary.BigEndian.Uint16(body))
	if len(body) < 2+n+2 {
		return update{}, false
	}
	u.withdrawn, body = body[2:2+n], body[2+n:]
	n = int(binary.BigEndian.Uint16(body))
	if len(body) < 2+n {
		return update{}, false
	}
	list := body[2 : 2+n]
	u.nlri = body[2+n:]
	for len(list) > 0 {
		a, rest, whole := cutAttr(list)
		if !whole {
			u.broken = true
			break
		}
		u.attrs, list = append(u.attrs, a), rest
	}
	return u, true
}

// cutAttr takes the first attribute off a list (RFC 4271 §4.3): flags, type, one or two bytes of length, value.
func cutAttr(b []byte) (a attr, rest []byte, whole bool) {
	if len(b) < 3 {
		return attr{}, nil, false
	}
	a.flags, a.typ = bgp.BGPAttrFlag(b[0]), bgp.BGPAttrType(b[1])
	head, length := 3, int(b[2])
	if a.flags&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
		if len(b) < 4 {
			return attr{}, nil, false
		}
		head, length = 4, int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < head+length {
		return attr{}, nil, false
	}
	a.value = b[head : head+length]
	return a, b[head+length:], true
}

// find returns the first attribute of a type, nil where there is none.
func (u *update) find(typ bgp.BGPAttrType) *attr {
	for i := range u.attrs {
		if u.attrs[i].typ == typ {
			return &u.attrs[i]
		}
	}
	return nil
}

// remove takes all attributes of a type out.
func (u *update) remove(typ bgp.BGPAttrType) {
	u.attrs = slices.DeleteFunc(u.attrs, func(a attr) bool { return a.typ == typ })
}

// put adds an attribute at the place where RFC 4271 §5 wants it, in the order of types; MP_REACH_NLRI may be first (RFC 7606
// §5.1).
func (u *update) put(a attr) {
	u.remove(a.typ)
	i := len(u.attrs)
	for i > 0 && u.attrs[i-1].typ > a.typ && !u.attrs[i-1].multiprotocol() {
		i--
	}
	u.attrs = slices.Insert(u.attrs, i, a)
}

func (a *attr) multiprotocol() bool {
	return a.typ == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI || a.typ == bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI
}

// announces reports whether there are routes besides withdrawn ones.
func (u *update) announces() bool {
	return len(u.nlri) > 0 || u.find(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI) != nil
}

// trim takes out what only says something about announced routes, once none are left.
func (u *update) trim() {
	u.attrs = slices.DeleteFunc(u.attrs, func(a attr) bool { return a.typ != bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI })
}

// empty reports whether nothing is left of it. An End-of-RIB is no such one: it came without routes.
func (u *update) empty() bool {
	return len(u.withdrawn) == 0 && len(u.nlri) == 0 && len(u.attrs) == 0 && !u.broken
}

// multiprotocol is the value of an MP_REACH_NLRI (RFC 4760 §3), or without next hop of an MP_UNREACH_NLRI (§4).
type multiprotocol struct {
	family  bgp.Family
	nextHop []byte
	routes  []byte
}

// reach returns the MP_REACH_NLRI; false where there is none, or one whose lengths do not fit.
func (u *update) reach() (multiprotocol, bool) {
	a := u.find(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
	if a == nil || len(a.value) < 5 || len(a.value) < 5+int(a.value[3]) {
		return multiprotocol{}, false
	}
	n := 4 + int(a.value[3])
	return multiprotocol{
		family:  bgp.NewFamily(binary.BigEndian.Uint16(a.value), a.value[2]),
		nextHop: a.value[4:n], routes: a.value[n+1:],
	}, true
}

// unreach returns the MP_UNREACH_NLRI likewise.
func (u *update) unreach() (multiprotocol, bool) {
	a := u.find(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)
	if a == nil || len(a.value) < 3 {
		return multiprotocol{}, false
	}
	return multiprotocol{family: bgp.NewFamily(binary.BigEndian.Uint16(a.value), a.value[2]), routes: a.value[3:]}, true
}

// setReach replaces the MP_REACH_NLRI; it takes it out where no route is left in it.
func (u *update) setReach(m multiprotocol) {
	if len(m.routes) == 0 {
		u.remove(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
		return
	}
	v := binary.BigEndian.AppendUint16(nil, m.family.Afi())
	v = append(v, m.family.Safi(), byte(len(m.nextHop)))
	v = append(v, m.nextHop...)
	v = append(v, 0)
	u.putInPlace(attr{bgp.BGP_ATTR_FLAG_OPTIONAL, bgp.BGP_ATTR_TYPE_MP_REACH_NLRI, append(v, m.routes...)})
}

// setUnreach replaces the MP_UNREACH_NLRI likewise.
func (u *update) setUnreach(m multiprotocol) {
	if len(m.routes) == 0 {
		u.remove(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)
		return
	}
	v := binary.BigEndian.AppendUint16(nil, m.family.Afi())
	v = append(v, m.family.Safi())
	u.putInPlace(attr{bgp.BGP_ATTR_FLAG_OPTIONAL, bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI, append(v, m.routes...)})
}

func (u *update) putInPlace(a attr) {
	if old := u.find(a.typ); old != nil {
		*old = a
		return
	}
	u.put(a)
}

// asWithdrawal turns what is announced into withdrawals of the same routes (RFC 7606 §2, treat-as-withdraw). The UPDATE has
// routes of one family in attributes: see parts.
func (u *update) asWithdrawal() {
	reach, reaches := u.reach()
	unreach, _ := u.unreach()
	*u = update{withdrawn: slices.Concat(u.withdrawn, u.nlri)}
	if reaches {
		unreach.family = reach.family
	}
	u.setUnreach(multiprotocol{family: unreach.family, routes: slices.Concat(unreach.routes, reach.routes)})
}

// parts splits an UPDATE that withdraws routes of one family, as an attribute, and announces those of another.
func (u *update) parts() []update {
	reach, reaches := u.reach()
	unreach, unreaches := u.unreach()
	if !reaches || !unreaches || reach.family == unreach.family {
		return []update{*u}
	}
	var first update
	first.setUnreach(unreach)
	second := *u
	second.attrs = slices.Clone(u.attrs)
	second.remove(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)
	return []update{first, second}
}

// message puts it together. It reports false where a part has become too long for its length field, or all of it for a message
// of at most limit bytes.
func (u *update) message(limit int) ([]byte, bool) {
	var list []byte
	for _, a := range u.attrs {
		list = a.append(list)
	}
	if len(u.withdrawn) > 0xffff || len(list) > 0xffff {
		return nil, false
	}
	length := headerLen + 2 + len(u.withdrawn) + 2 + len(list) + len(u.nlri)
	if length > limit {
		return nil, false
	}
	b := make([]byte, headerLen, length)
	for i := range 16 {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint16(b[16:], uint16(length))
	b[18] = bgp.BGP_MSG_UPDATE
	b = binary.BigEndian.AppendUint16(b, uint16(len(u.withdrawn)))
	b = append(b, u.withdrawn...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	b = append(b, list...)
	return append(b, u.nlri...), true
}

func (a *attr) append(b []byte) []byte {
	flags := a.flags &^ bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH
	if len(a.value) > 0xff {
		flags |= bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH
		b = append(b, byte(flags), byte(a.typ))
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
	} else {
		b = append(b, byte(flags), byte(a.typ), byte(len(a.value)))
	}
	return append(b, a.value...)
}

// messages is message for an UPDATE of any length: it is split between routes as often as need be. paths is how many bytes an
// identifier before each route has (RFC 7911 §3), by family. Routes that do not parse are left out, with an error's false.
func (u *update) messages(limit int, paths func(bgp.Family) int) ([][]byte, bool) {
	if m, ok := u.message(limit); ok {
		return [][]byte{m}, true
	}
	one, two, ok := u.halve(paths)
	if !ok {
		return nil, false
	}
	first, ok1 := one.messages(limit, paths)
	second, ok2 := two.messages(limit, paths)
	return append(first, second...), ok1 && ok2
}

// halve splits an UPDATE of more than one route in two, one with the first half of the routes of its longest part.
func (u *update) halve(paths func(bgp.Family) int) (one, two update, ok bool) {
	reach, reaches := u.reach()
	unreach, unreaches := u.unreach()
	one, two = *u, *u
	one.attrs, two.attrs = slices.Clone(u.attrs), slices.Clone(u.attrs)
	switch longest := max(len(u.withdrawn), len(u.nlri), len(reach.routes), len(unreach.routes)); {
	case longest == len(u.nlri):
		one.nlri, two.nlri, ok = halveRoutes(u.nlri, paths(bgp.RF_IPv4_UC))
		two.withdrawn = nil
	case longest == len(u.withdrawn):
		one.withdrawn, two.withdrawn, ok = halveRoutes(u.withdrawn, paths(bgp.RF_IPv4_UC))
		one.nlri, one.attrs = nil, nil
	case reaches && longest == len(reach.routes):
		a, b, cut := halveRoutes(reach.routes, paths(reach.family))
		reach.routes = a
		one.setReach(reach)
		reach.routes = b
		two.setReach(reach)
		two.withdrawn, two.nlri, ok = nil, nil, cut
		two.remove(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)
	case unreaches:
		a, b, cut := halveRoutes(unreach.routes, paths(unreach.family))
		one.attrs, one.withdrawn, one.nlri, ok = nil, nil, nil, cut
		unreach.routes = a
		one.setUnreach(unreach)
		unreach.routes = b
		two.setUnreach(unreach)
	}
	return one, two, ok
}

func halveRoutes(b []byte, identifier int) (one, two []byte, ok bool) {
	at := 0
	for at < len(b)/2 {
		n := routeLen(b[at:], identifier)
		if n == 0 {
			return nil, nil, false
		}
		at += n
	}
	return b[:at], b[at:], at > 0 && at < len(b)
}

// routeLen is how many bytes the first route has: an identifier, its length in bits, and as many bytes as that takes. It is 0
// where that is more than there is.
func routeLen(b []byte, identifier int) int {
	if len(b) <= identifier {
		return 0
	}
	n := identifier + 1 + (int(b[identifier])+7)/8
	if n > len(b) {
		return 0
	}
	return n
}

// pathKey is one path of a family: without identifiers, id is 0.
type pathKey struct {
	prefix netip.Prefix
	id     uint32
}

// eachRoute visits the routes of a field that is known to be readable, each with its bytes.
func eachRoute(f Family, routes []byte, identifier int, visit func([]byte, pathKey)) {
	size := 16
	if f == IPv4 {
		size = 4
	}
	for len(routes) > 0 {
		n := routeLen(routes, identifier)
		if n == 0 {
			return
		}
		one := routes[:n]
		routes = routes[n:]
		var k pathKey
		if identifier > 0 {
			k.id = binary.BigEndian.Uint32(one)
		}
		var ok bool
		if k.prefix, ok = onlyPrefix(one[identifier:], size); ok {
			visit(one, k)
		}
	}
}
