package plane

// The interface table: indexes as VPP's pools give them, admin and link state, MTUs, names, tables and counters.

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"go.fd.io/govpp/api"
)

const defaultMTU = 9000 // VPP's, for loopbacks and memifs

// iface is an interface. Fields without another note are guarded by Plane.mu; changing them also takes Plane.ctl, except link.
type iface struct {
	index    uint32
	serial   uint32 // unlike index, never used twice; gVisor's NIC ids come from it
	name     string
	tag      string
	kind     string
	instance uint32
	mac      [6]byte
	admin    bool
	link     bool
	deleted  bool
	mtu      MTU
	linkMTU  uint32
	t4, t6   *table
	addrs4   []netip.Prefix
	addrs6   []netip.Prefix
	ll       netip.Addr // valid while IPv6 is enabled
	ip6Locks int        // who enabled it: requests and addresses
	lender   *iface
	memif    *MemifInfo
	device   *device // nil for local0 and loopbacks
	rawIP    bool    // the device carries packets without ethernet headers

	routes map[netip.Prefix]routeOf // connected routes that are in the tables
	adj    map[netip.Addr]*table    // neighbours' host routes that are in the tables

	ra            *raState // nil: it does not advertise
	aclIn, aclOut *filter  // nil: everything passes
	clamp         Clamp
	urpf4, urpf6  URPFMode

	near4, near6 neighbors
	count        counters
}

type routeOf struct {
	table  *table
	source uint8
	paths  []Path
}

// usable reports whether packets can leave by the interface.
func (i *iface) usable() bool { return i.admin && i.link && !i.deleted }

// counters of an interface; see Counters.
type counters struct {
	rxPackets, rxBytes, txPackets, txBytes atomic.Uint64
	drops, punts, ip4, ip6, txError        atomic.Uint64
	rxErrorBase                            atomic.Uint64 // the device's count at the last clearing
	rxMulticast, rxBroadcast               atomic.Uint64
	txMulticast, txBroadcast               atomic.Uint64
}

func (p *Plane) newIface(name, kind string, mac [6]byte) *iface {
	i := &iface{
		name: name, kind: kind, mac: mac,
		mtu: MTU{L3: defaultMTU}, linkMTU: defaultMTU,
		routes: map[netip.Prefix]routeOf{},
		adj:    map[netip.Addr]*table{},
	}
	i.near4.init(i)
	i.near6.init(i)
	return i
}

// addIfaceLocked gives the interface the lowest free index and binds it to the tables 0.
func (p *Plane) addIfaceLocked(i *iface) {
	slot := -1
	for k, o := range p.ifaces {
		if o == nil {
			slot = k
			break
		}
	}
	if slot < 0 {
		slot = len(p.ifaces)
		p.ifaces = append(p.ifaces, nil)
	}
	p.serial++
	i.index, i.serial = uint32(slot), p.serial
	i.t4, i.t6 = p.tables[tableKey{0, false}], p.tables[tableKey{0, true}]
	i.t4.users++
	i.t6.users++
	p.ifaces[slot] = i
	p.ifaceGen++
	p.emitInterface(i)
}

// at returns the interface of an index, or nil. The caller holds ctl or mu.
func (p *Plane) at(idx uint32) *iface {
	if idx >= uint32(len(p.ifaces)) {
		return nil
	}
	return p.ifaces[idx]
}

// change runs fn on an interface with both locks held.
func (p *Plane) change(idx uint32, fn func(*iface) error) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.at(idx)
	if i == nil {
		return api.INVALID_SW_IF_INDEX
	}
	return fn(i)
}

func (p *Plane) emitInterface(i *iface) {
	p.wakeAdvertiser()
	p.events.emit(Event{Kind: EventInterface, Interface: i.index, AdminUp: i.admin, LinkUp: i.linkUp()})
}

// linkUp is what the API calls link up: a loopback's and a memif's link is up only while the interface is.
func (i *iface) linkUp() bool { return i.link && i.admin }

func (p *Plane) removeIfaceLocked(i *iface) {
	for _, b := range p.ifaces {
		if b != nil && b.lender == i {
			b.lender = nil
		}
	}
	i.admin, i.link, i.deleted = false, false, true
	i.useACLsLocked(-1)
	i.aclIn, i.aclOut = nil, nil
	p.flows.forget(i.serial)
	p.bfd.forget(i)
	i.addrs4, i.addrs6, i.ip6Locks, i.ll = nil, nil, 0, netip.Addr{}
	p.syncRoutesLocked(i)
	p.flushLocked(i, nil)
	p.syncAdjLocked(i)
	p.forgetListsLocked(i)
	p.ifaces[i.index] = nil
	p.ifaceGen++
	for _, t := range []*table{i.t4, i.t6} {
		t.users--
		p.reapTableLocked(t)
	}
	p.events.emit(Event{Kind: EventDeleted, Interface: i.index})
}

// Interfaces is a snapshot of all interfaces by index. Index 0 is local0, as in VPP.
func (p *Plane) Interfaces() []Interface {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]Interface, 0, len(p.ifaces))
	for _, i := range p.ifaces {
		if i != nil {
			out = append(out, i.export())
		}
	}
	return out
}

// Interface is a snapshot of one interface.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) Interface(idx uint32) (Interface, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	i := p.at(idx)
	if i == nil {
		return Interface{}, api.INVALID_SW_IF_INDEX
	}
	return i.export(), nil
}

func (i *iface) export() Interface {
	x := Interface{
		Index: i.index, Name: i.name, Tag: i.tag, Kind: i.kind, MAC: i.mac,
		AdminUp: i.admin, LinkUp: i.linkUp(), MTU: i.mtu, LinkMTU: i.linkMTU,
		Table4: i.t4.id, Table6: i.t6.id, LinkLocal: i.ll, IP6Enabled: i.ll.IsValid(),
		Unnumbered: NoInterface, Counters: i.count.export(),
	}
	x.Addresses = append(append(make([]netip.Prefix, 0, len(i.addrs4)+len(i.addrs6)), i.addrs4...), i.addrs6...)
	if i.lender != nil {
		x.Unnumbered = i.lender.index
	}
	if i.memif != nil {
		m := *i.memif
		x.Memif = &m
	}
	x.Counters.RxError = i.lostByDevice() - i.count.rxErrorBase.Load()
	return x
}

func (c *counters) export() Counters {
	x := Counters{
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
		Drops: c.drops.Load(), Punts: c.punts.Load(), IP4: c.ip4.Load(), IP6: c.ip6.Load(),
		TxError:     c.txError.Load(),
		RxMulticast: c.rxMulticast.Load(), RxBroadcast: c.rxBroadcast.Load(),
		TxMulticast: c.txMulticast.Load(), TxBroadcast: c.txBroadcast.Load(),
	}
	x.RxUnicast = x.RxPackets - min(x.RxPackets, x.RxMulticast+x.RxBroadcast)
	x.TxUnicast = x.TxPackets - min(x.TxPackets, x.TxMulticast+x.TxBroadcast)
	return x
}

// ClearCounters zeroes an interface's counters, or with NoInterface those of all.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) ClearCounters(idx uint32) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if idx != NoInterface && p.at(idx) == nil {
		return api.INVALID_SW_IF_INDEX
	}
	for _, i := range p.ifaces {
		if i != nil && (idx == NoInterface || i.index == idx) {
			c := &i.count
			for _, v := range []*atomic.Uint64{
				&c.rxPackets, &c.rxBytes, &c.txPackets, &c.txBytes, &c.drops, &c.punts, &c.ip4, &c.ip6,
				&c.txError, &c.rxMulticast, &c.rxBroadcast, &c.txMulticast, &c.txBroadcast,
			} {
				v.Store(0)
			}
			c.rxErrorBase.Store(i.lostByDevice())
		}
	}
	return nil
}

// maxLoopbacks is VPP's LOOPBACK_MAX_INSTANCE.
const maxLoopbacks = 16 * 1024

// CreateLoopback makes loopN, for create_loopback(_instance): N is *instance, or the lowest that is free. A zero mac becomes
// VPP's de:ad:00:00:00:N.
// Errors: INVALID_REGISTRATION when the instance is taken or out of range.
func (p *Plane) CreateLoopback(mac [6]byte, instance *uint32) (uint32, error) {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := map[uint32]bool{}
	for _, i := range p.ifaces {
		if i != nil && i.kind == KindLoopback {
			taken[i.instance] = true
		}
	}
	n := uint32(0)
	if instance != nil {
		n = *instance
	} else {
		for taken[n] {
			n++
		}
	}
	if taken[n] || n >= maxLoopbacks {
		return NoInterface, api.INVALID_REGISTRATION
	}
	if mac == ([6]byte{}) {
		mac = [6]byte{0: 0xde, 1: 0xad, 5: byte(n)}
	}
	i := p.newIface(fmt.Sprintf("loop%d", n), KindLoopback, mac)
	i.instance, i.link = n, true
	p.addIfaceLocked(i)
	return i.index, nil
}

// DeleteLoopback removes a loopback.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) DeleteLoopback(idx uint32) error {
	var gone *iface
	err := p.change(idx, func(i *iface) error {
		if i.kind != KindLoopback {
			return api.INVALID_SW_IF_INDEX
		}
		gone = i
		p.removeIfaceLocked(i)
		return nil
	})
	if gone != nil {
		p.hosts.removeNIC(gone)
	}
	return err
}

// SetAdmin sets an interface up or down, for sw_interface_set_flags. Its addresses are reachable only while it is up.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) SetAdmin(idx uint32, up bool) error {
	return p.change(idx, func(i *iface) error {
		if i.admin == up {
			return nil
		}
		i.admin = up
		p.ifaceGen++
		p.syncRoutesLocked(i)
		if !up {
			p.flushLocked(i, notStatic)
		}
		p.syncAdjLocked(i)
		p.emitInterface(i)
		return nil
	})
}

// setLink notes the device's link state. It may be called from any goroutine that holds no lock.
func (p *Plane) setLink(i *iface, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.deleted || i.link == up {
		return
	}
	i.link = up
	p.ifaceGen++
	if !up {
		p.flushLocked(i, notStatic)
		p.clerk.touchAll(i)
	}
	p.emitInterface(i)
}

// SetMTU sets the packet MTUs, for sw_interface_set_mtu. 0 means no limit of its own: L3's, then the link's.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) SetMTU(idx uint32, mtu MTU) error {
	return p.change(idx, func(i *iface) error {
		i.mtu = mtu
		p.hosts.mtuChanged(i)
		return nil
	})
}

// SetLinkMTU sets what the device carries, for hw_interface_set_mtu.
// Errors: INVALID_SW_IF_INDEX; INVALID_VALUE when frames would be longer than the plane was made for.
func (p *Plane) SetLinkMTU(idx, mtu uint32) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal {
			return api.INVALID_VALUE
		}
		if mtu < 64 || int(mtu)+etherLen > p.cfg.MaxFrame {
			return api.INVALID_VALUE
		}
		i.linkMTU = mtu
		if i.mtu.L3 > mtu {
			i.mtu.L3 = mtu
		}
		p.hosts.mtuChanged(i)
		return nil
	})
}

// packetMTU is the longest IP packet of a family that may leave by the interface.
func (i *iface) packetMTU(ip6 bool) int {
	m := i.mtu.IP4
	if ip6 {
		m = i.mtu.IP6
	}
	if m == 0 {
		m = i.mtu.L3
	}
	if i.linkMTU != 0 && (m == 0 || m > i.linkMTU) {
		m = i.linkMTU
	}
	return int(m)
}

// SetMAC changes an ethernet address. A link-local address that was made from the old one stays, as in VPP.
// Errors: INVALID_SW_IF_INDEX; UNIMPLEMENTED for an interface without one.
func (p *Plane) SetMAC(idx uint32, mac [6]byte) error {
	return p.change(idx, func(i *iface) error {
		if i.kind == KindLocal || i.rawIP {
			return api.UNIMPLEMENTED
		}
		i.mac = mac
		return nil
	})
}

// SetTag sets the tag; empty removes it.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) SetTag(idx uint32, tag string) error {
	return p.change(idx, func(i *iface) error { i.tag = tag; return nil })
}

// SetName renames an interface, for sw_interface_set_interface_name. Names are not checked for being unique, as in VPP.
// Errors: INVALID_SW_IF_INDEX; INVALID_VALUE for an empty name.
func (p *Plane) SetName(idx uint32, name string) error {
	return p.change(idx, func(i *iface) error {
		if name == "" {
			return api.INVALID_VALUE
		}
		i.name = name
		return nil
	})
}

// SetTable binds an interface to a table of one family, for sw_interface_set_table.
// Errors: INVALID_SW_IF_INDEX, NO_SUCH_FIB; ADDRESS_FOUND_FOR_INTERFACE while it has addresses of that family.
func (p *Plane) SetTable(idx uint32, ip6 bool, tableID uint32) error {
	return p.change(idx, func(i *iface) error {
		t := p.tables[tableKey{tableID, ip6}]
		if t == nil {
			return api.NO_SUCH_FIB
		}
		slot, addrs := &i.t4, i.addrs4
		if ip6 {
			slot, addrs = &i.t6, i.addrs6
		}
		if len(addrs) > 0 {
			return api.ADDRESS_FOUND_FOR_INTERFACE
		}
		old := *slot
		if old == t {
			return nil
		}
		*slot = t
		t.users++
		old.users--
		p.ifaceGen++
		p.syncRoutesLocked(i)
		p.syncAdjLocked(i)
		p.reapTableLocked(old)
		return nil
	})
}

// madeUpMAC is a random locally administered address with VPP's first bytes for memifs.
func madeUpMAC() [6]byte {
	mac := [6]byte{0x02, 0xfe}
	binary.BigEndian.PutUint32(mac[2:], rand.Uint32())
	return mac
}
