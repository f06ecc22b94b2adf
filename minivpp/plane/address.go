package plane

// Addresses of interfaces, and the routes that follow from them.
//
// The routes of an interface are worked out anew from its addresses and state at each change, and only the difference goes
// into the tables: there is no second place that must know what adding undid. As in VPP they exist while the interface is up.

import (
	"net/netip"
	"slices"

	"go.fd.io/govpp/api"
)

// AddAddress adds an address with its prefix length. A link-local address replaces the present one and must be a /128.
// Errors: INVALID_SW_IF_INDEX; UNSUPPORTED for local0; ADDRESS_LENGTH_MISMATCH; ADDRESS_IN_USE (IPv4) or
// DUPLICATE_IF_ADDRESS (IPv6) when an interface of the same table has an overlapping prefix, or this one has the address.
func (p *Plane) AddAddress(idx uint32, pfx netip.Prefix) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.UNSUPPORTED
		}
		if !pfx.IsValid() || pfx.Bits() == 0 || pfx.Addr().Is4In6() {
			return api.ADDRESS_LENGTH_MISMATCH
		}
		a := pfx.Addr()
		if a.Is6() && a.IsLinkLocalUnicast() {
			if pfx.Bits() != 128 {
				return api.ADDRESS_LENGTH_MISMATCH
			}
			return p.setLinkLocalLocked(i, a)
		}
		if p.overlapsLocked(i, pfx) {
			if a.Is6() {
				return api.DUPLICATE_IF_ADDRESS
			}
			return api.ADDRESS_IN_USE
		}
		if a.Is4() {
			i.addrs4 = append(slices.Clip(i.addrs4), pfx)
		} else {
			i.addrs6 = append(slices.Clip(i.addrs6), pfx)
			p.enableIP6Locked(i, netip.Addr{})
		}
		p.syncRoutesLocked(i)
		p.syncAdjLocked(i)
		return nil
	})
}

// overlapsLocked reports whether pfx conflicts with an address in the same table. An interface may have several addresses of
// one prefix.
func (p *Plane) overlapsLocked(i *iface, pfx netip.Prefix) bool {
	for _, o := range p.ifaces {
		if o == nil {
			continue
		}
		have, same := o.addrs4, o.t4 == i.t4
		if pfx.Addr().Is6() {
			have, same = o.addrs6, o.t6 == i.t6
		}
		if !same {
			continue
		}
		for _, h := range have {
			if h.Overlaps(pfx) && (o != i || h.Bits() != pfx.Bits() || h.Addr() == pfx.Addr()) {
				return true
			}
		}
	}
	return false
}

// DelAddress removes an address.
// Errors: INVALID_SW_IF_INDEX; ADDRESS_NOT_FOUND_FOR_INTERFACE; ADDRESS_NOT_DELETABLE for the link-local one.
func (p *Plane) DelAddress(idx uint32, pfx netip.Prefix) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.UNSUPPORTED
		}
		a := pfx.Addr()
		if a.Is6() && a.IsLinkLocalUnicast() {
			if a == i.ll {
				return api.ADDRESS_NOT_DELETABLE
			}
			return api.ADDRESS_NOT_FOUND_FOR_INTERFACE
		}
		list := &i.addrs4
		if a.Is6() {
			list = &i.addrs6
		}
		k := slices.Index(*list, pfx)
		if k < 0 {
			return api.ADDRESS_NOT_FOUND_FOR_INTERFACE
		}
		*list = slices.Concat((*list)[:k], (*list)[k+1:])
		if a.Is6() {
			p.disableIP6Locked(i)
		}
		p.addressesGoneLocked(i)
		return nil
	})
}

// DelAllAddresses removes all addresses but the link-local one.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) DelAllAddresses(idx uint32) error {
	return p.change(idx, func(i *iface) error {
		for range i.addrs6 {
			p.disableIP6Locked(i)
		}
		i.addrs4, i.addrs6 = nil, nil
		p.addressesGoneLocked(i)
		return nil
	})
}

// addressesGoneLocked brings the routes up to date, and forgets learned neighbours that are no longer on a connected prefix.
func (p *Plane) addressesGoneLocked(i *iface) {
	p.syncRoutesLocked(i)
	gone := func(n *neighbor) bool {
		if n.static || n.addr.IsLinkLocalUnicast() {
			return false
		}
		for _, list := range [][]netip.Prefix{i.addrs4, i.addrs6} {
			for _, a := range list {
				if a.Contains(n.addr) {
					return false
				}
			}
		}
		return i.lender == nil
	}
	p.flushLocked(i, gone)
	p.syncAdjLocked(i)
}

// SetLinkLocal replaces the interface's link-local address, and enables IPv6 when it is not, for
// sw_interface_ip6_set_link_local_address.
// Errors: INVALID_SW_IF_INDEX; INVALID_VALUE for another kind of address.
func (p *Plane) SetLinkLocal(idx uint32, a netip.Addr) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.UNSUPPORTED
		}
		return p.setLinkLocalLocked(i, a)
	})
}

func (p *Plane) setLinkLocalLocked(i *iface, a netip.Addr) error {
	a = a.WithZone("")
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		return api.INVALID_VALUE
	}
	if !i.ll.IsValid() {
		p.enableIP6Locked(i, a)
		return nil
	}
	i.ll = a
	return nil
}

// EnableIP6 enables or disables IPv6 without an address, for sw_interface_ip6_enable_disable.
// Errors: INVALID_SW_IF_INDEX; VALUE_EXIST when it was enabled (it counts nevertheless, as in VPP); IP6_NOT_ENABLED.
func (p *Plane) EnableIP6(idx uint32, on bool) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.UNSUPPORTED
		}
		if !on {
			if !i.ll.IsValid() {
				return api.IP6_NOT_ENABLED
			}
			p.disableIP6Locked(i)
			return nil
		}
		if !p.enableIP6Locked(i, netip.Addr{}) {
			return api.VALUE_EXIST
		}
		return nil
	})
}

// enableIP6Locked counts one more reason for IPv6, and reports whether it was the first. Then the interface gets a link-local
// address: a, or one made from its MAC (RFC 4291 appendix A), or a random one.
func (p *Plane) enableIP6Locked(i *iface, a netip.Addr) bool {
	i.ip6Locks++
	if i.ll.IsValid() {
		return false
	}
	if !a.IsValid() {
		mac := i.mac
		if i.rawIP {
			mac = madeUpMAC()
		}
		a = netip.AddrFrom16([16]byte{
			0: 0xfe, 1: 0x80,
			8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
		})
	}
	i.ll = a
	return true
}

func (p *Plane) disableIP6Locked(i *iface) {
	if i.ip6Locks--; i.ip6Locks <= 0 {
		i.ip6Locks, i.ll, i.ra = 0, netip.Addr{}, nil
		p.flushLocked(i, notStatic6)
	}
}

// SetUnnumbered lets interface idx borrow the addresses of lender, or ends that, for sw_interface_set_unnumbered.
// Errors: INVALID_SW_IF_INDEX, INVALID_SW_IF_INDEX_2 (the lender); UNEXPECTED_INTF_STATE when their tables differ.
func (p *Plane) SetUnnumbered(idx, lender uint32, add bool) error {
	return p.change(idx, func(i *iface) error {
		if !add {
			i.lender = nil
			p.addressesGoneLocked(i)
			return nil
		}
		l := p.at(lender)
		if l == nil {
			return api.INVALID_SW_IF_INDEX_2
		}
		if l.t4 != i.t4 || l.t6 != i.t6 {
			return api.UNEXPECTED_INTF_STATE
		}
		if l == i {
			return api.INVALID_SW_IF_INDEX_2
		}
		i.lender = l
		return nil
	})
}

// syncRoutesLocked makes the tables hold exactly the routes that the interface's addresses and state ask for.
func (p *Plane) syncRoutesLocked(i *iface) {
	want := i.connected()
	for pfx, r := range i.routes {
		if w, ok := want[pfx]; !ok || w.table != r.table {
			if p.tables[r.table.tableKey] == r.table {
				p.unsetLocked(r.table, pfx, r.source)
			}
			delete(i.routes, pfx)
		}
	}
	for pfx, w := range want {
		if have, ok := i.routes[pfx]; ok && slices.Equal(have.paths, w.paths) {
			continue
		}
		p.setLocked(w.table, pfx, w.source, w.paths)
		i.routes[pfx] = w
	}
}

// connected gives the routes of an interface that is up: what ip4_add_interface_routes and its IPv6 sister add in VPP.
func (i *iface) connected() map[netip.Prefix]routeOf {
	out := map[netip.Prefix]routeOf{}
	if !i.admin {
		return out
	}
	put := func(t *table, pfx netip.Prefix, path Path) {
		path.Weight = 1
		out[pfx] = routeOf{t, SourceInterface, []Path{path}}
	}
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	for _, pfx := range i.addrs4 {
		a := pfx.Addr()
		if pfx.Bits() == 32 {
			continue
		}
		put(i.t4, pfx.Masked(), Path{SwIfIndex: i.index})
		first, last := pfx.Masked().Addr(), lastAddr4(pfx)
		switch {
		case pfx.Bits() <= 30:
			for _, edge := range []netip.Addr{first, last} {
				put(i.t4, host(edge), Path{Type: PathDrop, SwIfIndex: NoInterface})
			}
		case a == first: // RFC 3021: both addresses of a /31 are hosts
			put(i.t4, host(last), Path{Addr: last, SwIfIndex: i.index})
		default:
			put(i.t4, host(first), Path{Addr: first, SwIfIndex: i.index})
		}
	}
	for _, pfx := range i.addrs6 {
		if pfx.Bits() < 128 {
			put(i.t6, pfx.Masked(), Path{SwIfIndex: i.index})
		}
	}
	// Own addresses last: they may be the edge of a prefix.
	for _, pfx := range i.addrs4 {
		put(i.t4, host(pfx.Addr()), Path{Type: PathLocal, Addr: pfx.Addr(), SwIfIndex: i.index})
	}
	for _, pfx := range i.addrs6 {
		put(i.t6, host(pfx.Addr()), Path{Type: PathLocal, Addr: pfx.Addr(), SwIfIndex: i.index})
	}
	return out
}

func lastAddr4(pfx netip.Prefix) netip.Addr {
	b := pfx.Addr().As4()
	v := get32(b[:]) | (1<<(32-pfx.Bits()) - 1)
	put32(b[:], v)
	return netip.AddrFrom4(b)
}

// syncAdjLocked makes the tables hold a host route for each complete neighbour whose address the interface's connected
// prefixes cover, as VPP's adjacency source does.
func (p *Plane) syncAdjLocked(i *iface) {
	want := map[netip.Addr]*table{}
	for _, near := range [2]*neighbors{&i.near4, &i.near6} {
		near.each(func(n *neighbor) {
			if t := p.adjTable(i, n); t != nil {
				want[n.addr] = t
			}
		})
	}
	for a := range i.adj {
		p.setAdjLocked(i, a, want[a])
	}
	for a, t := range want {
		p.setAdjLocked(i, a, t)
	}
}

// syncNeighborLocked is syncAdjLocked for one address: an interface may have tens of thousands.
func (p *Plane) syncNeighborLocked(i *iface, a netip.Addr) {
	var want *table
	if n := i.near(a).get(a); n != nil {
		want = p.adjTable(i, n)
	}
	p.setAdjLocked(i, a, want)
}

// setAdjLocked makes t, or with nil no table, hold a neighbour's host route.
func (p *Plane) setAdjLocked(i *iface, a netip.Addr, t *table) {
	have := i.adj[a]
	if have == t {
		return
	}
	pfx := netip.PrefixFrom(a, a.BitLen())
	if have != nil && p.tables[have.tableKey] == have {
		p.unsetLocked(have, pfx, SourceAdj)
	}
	if t == nil {
		delete(i.adj, a)
		return
	}
	p.setLocked(t, pfx, SourceAdj, []Path{{Addr: a, SwIfIndex: i.index, Weight: 1}})
	i.adj[a] = t
}

// adjTable is where a neighbour has a host route, nil when it has none.
func (p *Plane) adjTable(i *iface, n *neighbor) *table {
	if i.deleted || n.noFIB || !n.complete() || n.addr.IsLinkLocalUnicast() {
		return nil
	}
	t := i.t4
	if n.addr.Is6() {
		t = i.t6
	}
	_, e, ok := t.routes.LookupPrefixLPM(netip.PrefixFrom(n.addr, n.addr.BitLen()-1))
	if !ok || len(e.list.paths) != 1 {
		return nil
	}
	cover := &e.list.paths[0]
	if cover.Type != PathNormal || cover.Addr.IsValid() || e.list.ifaces[0] != i {
		return nil
	}
	return t
}
