package plane

// Packet filters, as VPP's acl plugin has them (src/plugins/acl): lists of rules that interfaces apply to what they receive
// before it is routed, and to what they send. The first rule that matches decides, and without one the packet goes nowhere.
// Packets to groups, ARP, and the neighbour discovery that the plane sends itself are not filtered, as in VPP.
//
// Rules are compiled into two lists, one a family, of masks and ranges, and tried one after the other. A change replaces an
// ACL's lists under the plane's lock, between two batches of packets. An interface without filters has two nil pointers.

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"go.fd.io/govpp/api"
)

// ACLAction is what a rule does, with the API's values. VPP lets packets of rules with other values through.
type ACLAction uint8

// Actions.
const (
	ACLDeny    ACLAction = 0
	ACLPermit  ACLAction = 1
	ACLReflect ACLAction = 2
)

// ACLRule is a rule of one family, that of its prefixes, in the API's terms. Prefixes keep their host bits, and with some set
// match nothing.
type ACLRule struct {
	Action         ACLAction
	Src, Dst       netip.Prefix
	Proto          uint8     // 0: any, whatever follows
	Src4, Dst4     PortRange // ports of TCP and UDP; type and code of ICMP; 0 of other protocols
	FlagsMask      uint8     // of TCP
	FlagsValue     uint8
	Packets, Bytes uint64 // that it decided since its ACL was made or replaced; not part of a request
}

// PortRange has both ends in it.
type PortRange struct{ First, Last uint16 }

// ACL is a snapshot of a list of rules.
type ACL struct {
	Index uint32
	Tag   string
	Rules []ACLRule
}

// acl is a list of rules; guarded by Plane.mu, the counters apart.
type acl struct {
	index  uint32
	tag    string
	rules  []ACLRule
	match  [2][]aclMatch // IPv4's, IPv6's
	counts []aclCount    // by rule
	users  [2]int        // interfaces that apply it to output, to input
}

type aclCount struct{ packets, bytes atomic.Uint64 }

// aclMatch is a rule as packets are compared with it. IPv4 addresses are in the low half of lo.
type aclMatch struct {
	src, srcMask, dst, dstMask addr128
	first, second              PortRange
	proto, mask, value         uint8
	action                     ACLAction
	count                      *aclCount
}

// addr128 is an address as numbers.
type addr128 struct{ hi, lo uint64 }

// filter is what an interface applies in one direction.
type filter struct{ acls []*acl }

// tuple is what of a packet rules look at: fa_5tuple_t of src/plugins/acl/fa_node.h.
type tuple struct {
	src, dst addr128
	ports    [2]uint16 // or ICMP's type and code
	proto    uint8
	flags    uint8 // of TCP
	ip6      bool
	l4       bool // ports, or zeros of a protocol without, were there
	later    bool // a fragment other than the first
}

// extension6 are the headers that VPP looks behind (foreach_acl_eh in src/plugins/acl/acl.h).
var extension6 = [256]bool{0: true, 43: true, 44: true, 60: true, 135: true, 139: true, 140: true, 253: true, 254: true}

// read takes a packet apart that has a whole IP header. As in VPP, a transport header counts when 8 bytes of it are there.
func (p *tuple) read(b []byte) {
	var at int
	if b[0]>>4 == 4 {
		p.proto, at = b[9], int(b[0]&15)*4
		p.src.lo, p.dst.lo = uint64(get32(b[12:])), uint64(get32(b[16:]))
		p.later = get16(b[6:])&0x1fff != 0
	} else {
		p.ip6, p.proto, at = true, b[6], header6Len
		p.src, p.dst = number128(b[8:]), number128(b[24:])
		for extension6[p.proto] && at+8 <= len(b) && !p.later {
			if p.proto == 44 {
				p.proto, p.later = b[at], get16(b[at+2:])&^7 != 0
				at += 8
				continue
			}
			p.proto, at = b[at], at+8+8*int(b[at+1])
		}
	}
	if p.later || at+8 > len(b) {
		return
	}
	p.l4 = true
	switch m := b[at:]; p.proto {
	case protoTCP:
		p.ports = [2]uint16{get16(m), get16(m[2:])}
		if len(m) > 13 {
			p.flags = m[13]
		}
	case protoUDP:
		p.ports = [2]uint16{get16(m), get16(m[2:])}
	case p.icmp():
		p.ports = [2]uint16{uint16(m[0]), uint16(m[1])}
	}
}

// icmp is the number of the family's ICMP.
func (p *tuple) icmp() uint8 {
	if p.ip6 {
		return protoICMPv6
	}
	return protoICMP
}

func number128(b []byte) addr128 {
	return addr128{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// has reports whether the rule is for the packet: single_acl_match_5tuple of src/plugins/acl/public_inlines.h.
func (r *aclMatch) has(p *tuple) bool {
	if p.dst.hi&r.dstMask.hi != r.dst.hi || p.dst.lo&r.dstMask.lo != r.dst.lo ||
		p.src.hi&r.srcMask.hi != r.src.hi || p.src.lo&r.srcMask.lo != r.src.lo {
		return false
	}
	switch {
	case r.proto == 0:
		return true
	case r.proto != p.proto:
		return false
	case p.later: // VPP's l4-match-nonfirst-fragment, which is on
		return true
	case !p.l4:
		return false
	}
	return p.ports[0] >= r.first.First && p.ports[0] <= r.first.Last && p.ports[1] >= r.second.First && p.ports[1] <= r.second.Last &&
		(p.proto != protoTCP || p.flags&r.mask == r.value)
}

// decide finds the rule for a packet, nil when there is none.
func (f *filter) decide(p *tuple) *aclMatch {
	family := 0
	if p.ip6 {
		family = 1
	}
	for _, a := range f.acls {
		rules := a.match[family]
		for k := range rules {
			if rules[k].has(p) {
				return &rules[k]
			}
		}
	}
	return nil
}

// passes says whether a packet may come in by an interface, or go out, and counts it; link is how much of a frame's header
// the count has. in is where it was received, nil for our own.
func (w *worker) passes(f *filter, i *iface, b []byte, input bool, link int, in *iface) bool {
	var p tuple
	p.read(b)
	flows := &w.p.flows
	if flows.any.Load() > 0 {
		if key := p.key(i, input); flows.seen(&key, p.flags, w.now) {
			return true
		}
	}
	r := f.decide(&p)
	if r == nil {
		w.drop(in, errACL)
		return false
	}
	if w.p.countACLs.Load() {
		r.count.packets.Add(1)
		r.count.bytes.Add(uint64(len(b) + link))
	}
	switch {
	case r.action == ACLDeny:
		w.drop(in, errACL)
		return false
	case r.action == ACLReflect:
		if key := p.key(i, input); !flows.add(&key, p.flags, w.now) {
			w.drop(in, errFlows)
			return false
		}
	}
	return true
}

// leaves is passes for a packet that is about to go out, and does to it what the interface does on the way out.
func (w *worker) leaves(i *iface, k packet, in *iface) bool {
	if b := k.ip(); i.clamp.Out4 > 0 && b[0]>>4 == 4 {
		clampTCP(b, i.clamp.Out4)
	} else if i.clamp.Out6 > 0 && b[0]>>4 == 6 {
		clampTCP(b, i.clamp.Out6)
	}
	return i.aclOut == nil || w.passes(i.aclOut, i, k.ip(), false, w.linkLen(i), in)
}

// key names the packet's flow.
func (p *tuple) key(i *iface, input bool) flowKey {
	return flowKey{
		src: p.src, dst: p.dst, ports: p.ports, proto: p.proto, ip6: p.ip6, input: input, serial: i.serial,
		odd: p.l4 && p.proto != protoTCP && p.proto != protoUDP,
	}
}

// compile makes an ACL's lists.
func (a *acl) compile(rules []ACLRule) {
	a.rules = slices.Clone(rules)
	a.match = [2][]aclMatch{}
	a.counts = make([]aclCount, len(rules))
	for k := range rules {
		r := &rules[k]
		m := aclMatch{
			first: r.Src4, second: r.Dst4, proto: r.Proto, mask: r.FlagsMask, value: r.FlagsValue, action: r.Action, count: &a.counts[k],
		}
		m.src, m.srcMask = split128(r.Src)
		m.dst, m.dstMask = split128(r.Dst)
		family := 0
		if r.Src.Addr().Is6() {
			family = 1
		}
		a.match[family] = append(a.match[family], m)
	}
}

// split128 makes numbers of a prefix. With a length of 0 the address does not matter.
func split128(p netip.Prefix) (value, mask addr128) {
	bits := p.Bits()
	if bits == 0 {
		return value, mask
	}
	b := p.Addr().As16()
	value = number128(b[:])
	if p.Addr().Is4() {
		return addr128{lo: value.lo & 0xffffffff}, addr128{lo: uint64(^uint32(0) << (32 - bits))}
	}
	mask.hi = ^uint64(0) << (64 - min(bits, 64))
	if bits > 64 {
		mask.lo = ^uint64(0) << (128 - bits)
	}
	return value, mask
}

// ReplaceACL makes an ACL, for the index NoInterface, or replaces one, for acl_add_replace; its counters start again.
// Errors: NO_SUCH_ENTRY.
func (p *Plane) ReplaceACL(index uint32, tag string, rules []ACLRule) (uint32, error) {
	next := &acl{tag: tag}
	next.compile(rules)
	p.ctl.Lock()
	defer p.ctl.Unlock()
	have := p.acls[index]
	if have == nil && index != NoInterface {
		return index, api.NO_SUCH_ENTRY
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if have == nil {
		next.index = p.aclIndexes.take()
		p.acls[next.index] = next
		return next.index, nil
	}
	have.tag, have.rules, have.match, have.counts = tag, next.rules, next.match, next.counts
	return index, nil
}

// DeleteACL removes an ACL that no interface applies.
// Errors: NO_SUCH_ENTRY; ACL_IN_USE_INBOUND, ACL_IN_USE_OUTBOUND.
func (p *Plane) DeleteACL(index uint32) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.acls[index]
	switch {
	case a == nil:
		return api.NO_SUCH_ENTRY
	case a.users[1] > 0:
		return api.ACL_IN_USE_INBOUND
	case a.users[0] > 0:
		return api.ACL_IN_USE_OUTBOUND
	}
	delete(p.acls, index)
	p.aclIndexes.free(index)
	return nil
}

// ACLs is a snapshot of all, by index.
func (p *Plane) ACLs() []ACL {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]ACL, 0, len(p.acls))
	for _, index := range slices.Sorted(maps.Keys(p.acls)) {
		a := p.acls[index]
		x := ACL{Index: index, Tag: a.tag, Rules: slices.Clone(a.rules)}
		for k := range x.Rules {
			x.Rules[k].Packets, x.Rules[k].Bytes = a.counts[k].packets.Load(), a.counts[k].bytes.Load()
		}
		out = append(out, x)
	}
	return out
}

// CountACLs says whether packets are counted by rule, for acl_stats_intf_counters_enable. At first they are not.
func (p *Plane) CountACLs(on bool) { p.countACLs.Store(on) }

// SetInterfaceACLs says which ACLs an interface applies, in this order, for acl_interface_set_acl_list. When they become others
// the interface's reflected flows end.
// Errors: INVALID_SW_IF_INDEX, NO_SUCH_ENTRY, ENTRY_ALREADY_EXISTS for one that is in a list twice.
func (p *Plane) SetInterfaceACLs(idx uint32, in, out []uint32) error {
	return p.change(idx, func(i *iface) error {
		next := [2]*filter{}
		for direction, list := range [2][]uint32{out, in} {
			for k, index := range list {
				if p.acls[index] == nil {
					return api.NO_SUCH_ENTRY
				}
				if slices.Contains(list[:k], index) {
					return api.ENTRY_ALREADY_EXISTS
				}
				if next[direction] == nil {
					next[direction] = &filter{}
				}
				next[direction].acls = append(next[direction].acls, p.acls[index])
			}
		}
		changed := !sameACLs(i.aclOut, next[0]) || !sameACLs(i.aclIn, next[1])
		i.useACLsLocked(-1)
		i.aclOut, i.aclIn = next[0], next[1]
		i.useACLsLocked(1)
		if changed {
			p.flows.forget(i.serial)
		}
		return nil
	})
}

// sameACLs compares without regard to the order.
func sameACLs(a, b *filter) bool {
	if a == nil || b == nil {
		return a == b
	}
	return len(a.acls) == len(b.acls) && !slices.ContainsFunc(a.acls, func(x *acl) bool { return !slices.Contains(b.acls, x) })
}

func (i *iface) useACLsLocked(n int) {
	for direction, f := range [2]*filter{i.aclOut, i.aclIn} {
		if f != nil {
			for _, a := range f.acls {
				a.users[direction] += n
			}
		}
	}
}

// InterfaceACLs are the indexes of the ACLs that an interface applies.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) InterfaceACLs(idx uint32) (in, out []uint32, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i := p.at(idx)
	if i == nil {
		return nil, nil, api.INVALID_SW_IF_INDEX
	}
	indexes := func(f *filter) (list []uint32) {
		if f != nil {
			for _, a := range f.acls {
				list = append(list, a.index)
			}
		}
		return list
	}
	return indexes(i.aclIn), indexes(i.aclOut), nil
}
