package plane

// Workers: from a batch of received frames to batches of frames to send.
//
// A worker owns what it touches: the receive buffers, a scratch arena for packets that it makes, and the output batches, so
// that the path of a forwarded packet allocates nothing. A frame is rewritten where it was received and copied once, into
// the egress ring. Code that sends a packet of its own outside a batch borrows a worker with begin and finish.

import (
	"net/netip"
	"sync/atomic"
)

const (
	batchSize = 64
	headroom  = 16 // before the IP header, for an ethernet header and its alignment
	arenaSize = 4096
)

// packet is an IP packet with room for a link header before it.
type packet struct {
	buf []byte
	off int // of the IP header; at least etherLen
}

func (k packet) ip() []byte { return k.buf[k.off:] }

// trim cuts what follows the IP packet (ethernet padding).
func (k packet) trim(n int) packet { return packet{k.buf[:k.off+n], k.off} }

// outbox is the batch for one egress interface.
type outbox struct {
	iface  *iface
	frames [][]byte
}

// delivery is a packet for gVisor, which must not be entered with a lock held.
type delivery struct {
	packet []byte
	iface  *iface // whose NIC takes it; nil: the table's
	table  uint32
	proto  byte   // TCP, UDP, or the ICMP of an error about one of them
	in     *iface // where it was received; nil for our own
	from   *table // which an error about it is to leave by if it is our own
}

type worker struct {
	p     *Plane
	now   int64
	queue int // of the egress ports
	boxes []outbox
	used  int // boxes with frames
	local []delivery
	arena []byte
	fill  int
	from  *table // of the packet of our own that is on its way
}

func (p *Plane) newWorker() *worker { return &worker{p: p} }

// begin borrows a worker and holds mu for reading; finish ends that.
func (p *Plane) begin() *worker {
	w := p.workers.Get().(*worker)
	w.enter()
	return w
}

func (w *worker) finish() {
	w.leave()
	w.p.workers.Put(w)
}

func (w *worker) enter() {
	w.p.mu.RLock()
	w.now = w.p.now()
}

// leave gives up the lock, then lets go of everything that the batch has produced.
func (w *worker) leave() {
	w.p.mu.RUnlock()
	for k := range w.boxes[:w.used] {
		w.boxes[k].flush(w.queue)
	}
	w.used = 0
	if len(w.local) > 0 {
		local := w.local
		w.local = nil // gVisor may come back into the plane, but not into this worker
		for _, d := range local {
			w.p.hosts.inject(w.p, d)
		}
		clear(local)
		w.local = local[:0]
	}
	w.fill = 0
	if len(w.arena) > 16*arenaSize {
		w.arena = nil
	}
}

func (b *outbox) flush(queue int) {
	d, c := b.iface.device, &b.iface.count
	n, _ := d.port.WriteBatch(queue, b.frames)
	bytes, multi, broad := uint64(0), uint64(0), uint64(0)
	for _, f := range b.frames[:n] {
		bytes += uint64(len(f))
		if !b.iface.rawIP && f[0]&1 != 0 {
			if isBroadcast(f) {
				broad++
			} else {
				multi++
			}
		}
	}
	c.txPackets.Add(uint64(n))
	c.txBytes.Add(bytes)
	addSome(&c.txMulticast, multi)
	addSome(&c.txBroadcast, broad)
	addSome(&c.txError, uint64(len(b.frames)-n))
	clear(b.frames)
	b.frames = b.frames[:0]
	b.iface = nil
}

// emit adds a frame to the batch of an egress interface with a device.
func (w *worker) emit(i *iface, frame []byte) {
	for k := range w.boxes[:w.used] {
		if w.boxes[k].iface == i {
			w.boxes[k].frames = append(w.boxes[k].frames, frame)
			return
		}
	}
	if w.used == len(w.boxes) {
		w.boxes = append(w.boxes, outbox{})
	}
	b := &w.boxes[w.used]
	w.used++
	b.iface = i
	b.frames = append(b.frames, frame)
}

// newPacket gives a zeroed packet of n bytes that lives until the batch has left.
func (w *worker) newPacket(n int) packet {
	need := headroom + n
	if len(w.arena)-w.fill < need {
		w.arena = make([]byte, max(arenaSize, need, min(2*len(w.arena), 16*arenaSize)))
		w.fill = 0
	}
	b := w.arena[w.fill : w.fill+need : w.fill+need]
	w.fill += need
	clear(b)
	return packet{b, headroom}
}

func (w *worker) copyPacket(b []byte) packet {
	k := w.newPacket(len(b))
	copy(k.ip(), b)
	return k
}

// drop counts a packet that goes nowhere. in is nil for packets of our own.
func (w *worker) drop(in *iface, why cause) {
	w.p.errors[why].Add(1)
	if in != nil {
		in.count.drops.Add(1)
	}
}

// receive takes frames from an interface, with the lock held. They start at the given offset of their slots.
func (w *worker) receive(i *iface, slots [][]byte, start int, sizes []int) {
	var total, multi, broad, ip4, ip6 uint64
	for k, size := range sizes {
		total += uint64(size)
		if !i.admin {
			w.drop(i, errInterfaceDown)
			continue
		}
		f := slots[k][start : start+size]
		etherType, group := uint16(0), groupNone
		if !i.rawIP {
			if etherType, group = w.etherInput(i, f); etherType == 0 {
				continue
			}
		} else if size > 0 {
			switch f[0] >> 4 {
			case 4:
				etherType = etherIPv4
			case 6:
				etherType = etherIPv6
			}
		}
		switch group {
		case groupMulti:
			multi++
		case groupBroad:
			broad++
		}
		k := packet{slots[k][:start+size], start + w.linkLen(i)}
		switch etherType {
		case etherIPv4:
			ip4++
			if group != groupNone { // RFC 1812 §5.3.4: what came by link broadcast is not forwarded, and we are in no group
				w.drop(i, errMulticast)
				continue
			}
			w.input4(i, k)
		case etherIPv6:
			ip6++
			if b := k.ip(); group != groupNone && (len(b) < header6Len || b[24] != 0xff) {
				w.drop(i, errMulticast)
				continue
			}
			w.input6(i, k)
		case etherARP:
			w.inputARP(i, f)
		default:
			w.drop(i, errEtherType)
		}
	}
	c := &i.count
	c.rxPackets.Add(uint64(len(sizes)))
	c.rxBytes.Add(total)
	addSome(&c.ip4, ip4)
	addSome(&c.ip6, ip6)
	addSome(&c.rxMulticast, multi)
	addSome(&c.rxBroadcast, broad)
}

// addSome leaves alone a counter, and the cache line that other processors have, when there is nothing to add.
func addSome(to *atomic.Uint64, n uint64) {
	if n > 0 {
		to.Add(n)
	}
}

// group is how a frame was addressed.
type group uint8

const (
	groupNone group = iota
	groupMulti
	groupBroad
)

// etherInput checks an ethernet header and returns the type, 0 when the frame has been dropped.
func (w *worker) etherInput(i *iface, f []byte) (uint16, group) {
	if len(f) < etherLen {
		w.drop(i, errRunt)
		return 0, groupNone
	}
	g := groupNone
	switch {
	case isBroadcast(f):
		g = groupBroad
	case f[0]&1 != 0:
		g = groupMulti
	case [6]byte(f[:6]) != i.mac:
		w.drop(i, errNotForUs)
		return 0, groupNone
	}
	t := get16(f[12:])
	if t == 0 {
		w.drop(i, errEtherType)
	}
	return t, g
}

func (w *worker) linkLen(i *iface) int {
	if i.rawIP {
		return 0
	}
	return etherLen
}

func isBroadcast(f []byte) bool { return get32(f) == 0xffffffff && get16(f[4:]) == 0xffff }

// toNeighbor sends a finished packet to a neighbour on i; in is where it came from, nil for our own.
func (w *worker) toNeighbor(i *iface, next netip.Addr, k packet, in *iface) {
	if i.device == nil || !i.usable() {
		w.drop(in, errNoAdjacency)
		return
	}
	if i.rawIP {
		w.emit(i, k.ip())
		return
	}
	mac := i.near(next).find(next)
	if mac == 0 {
		var probe bool
		mac, probe = i.near(next).await(next, parked{k.ip(), in, w.from}, w.now)
		if probe {
			w.solicit(i, next, 0)
			w.p.clerk.due(w.now + probeInterval)
		}
		if mac == 0 {
			return // it waits there, or was dropped because too many do
		}
	}
	etherType := uint16(etherIPv4)
	if k.buf[k.off]>>4 == 6 {
		etherType = etherIPv6
	}
	f := k.buf[k.off-etherLen:]
	putEther(f, unpackMAC(mac), i.mac, etherType)
	w.emit(i, f)
}

func putEther(f []byte, dst, src [6]byte, etherType uint16) {
	copy(f, dst[:])
	copy(f[6:], src[:])
	put16(f[12:], etherType)
}

// solicit asks for a neighbour's address: everybody, or the one that mac says.
func (w *worker) solicit(i *iface, a netip.Addr, mac uint64) {
	if i.device == nil || i.rawIP || !i.usable() {
		return
	}
	if a.Is4() {
		w.requestARP(i, a, mac)
	} else {
		w.solicitND(i, a, mac)
	}
}

// learned lets packets go that waited for a neighbour, and tells who wants to know.
func (w *worker) learned(i *iface, a netip.Addr, mac [6]byte, how learning) {
	released, changed := i.near(a).learn(a, mac, how, w.now)
	for _, r := range released {
		w.from = r.from
		w.toNeighbor(i, a, w.copyPacket(r.packet), r.in)
	}
	if !changed {
		return
	}
	w.p.clerk.touch(i, a)
	w.p.clerk.due(w.now + confirmAfter)
	w.p.events.emit(Event{Kind: EventNeighborAdded, Interface: i.index, Neighbor: Neighbor{Interface: i.index, Addr: a, MAC: mac}})
}
