package plane

// Probes: whole IP packets that the node originates, and the ICMP messages that come back. Ping and traceroute use them.

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

const probeQueue = 128 // packets that wait for a reader

// probes are the open ones.
type probes struct {
	mu     sync.Mutex
	open   []*probe
	closed bool
}

// probe implements io.ReadWriteCloser; see OpenProbe.
type probe struct {
	p      *Plane
	table  uint32
	iface  *iface // nil: by routes
	in     chan []byte
	done   chan struct{}
	closer sync.Once
}

// OpenProbe returns a conduit for whole IP packets. Each Write originates one packet: its length, checksum and, when it is
// unspecified, source address are filled in. Each Read returns one ICMP or ICMPv6 packet, other than requests, that the node
// received in the table since. Read after or during Close fails with io.EOF. Packets that nobody reads are dropped.
// Errors: ENETUNREACH for a table that does not exist, ENODEV for an interface.
func (p *Plane) OpenProbe(table, swIfIndex uint32) (io.ReadWriteCloser, error) {
	b := &probe{p: p, table: table, in: make(chan []byte, probeQueue), done: make(chan struct{})}
	p.mu.RLock()
	_, ok4 := p.tables[tableKey{table, false}]
	_, ok6 := p.tables[tableKey{table, true}]
	if swIfIndex != NoInterface {
		b.iface = p.at(swIfIndex)
	}
	p.mu.RUnlock()
	if !ok4 && !ok6 {
		return nil, fmt.Errorf("open probe in table %d: %w", table, syscall.ENETUNREACH)
	}
	if swIfIndex != NoInterface && b.iface == nil {
		return nil, fmt.Errorf("open probe on interface %d: %w", swIfIndex, syscall.ENODEV)
	}
	p.taps.mu.Lock()
	defer p.taps.mu.Unlock()
	if p.taps.closed {
		return nil, fmt.Errorf("open probe: %w", errStopped)
	}
	p.taps.open = append(p.taps.open, b)
	return b, nil
}

var errStopped = errors.New("the plane has stopped")

// deliver copies a packet to the probes that it may concern. It never blocks.
func (s *probes) deliver(table uint32, in *iface, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		if o.table != table {
			continue
		}
		// The same link-local address may be on many links.
		if b[0]>>4 == 6 && o.iface != nil && in != nil && in != o.iface && addr6(b[8:24]).IsLinkLocalUnicast() {
			continue
		}
		if len(o.in) < cap(o.in) { // the only sender, so there is room
			o.in <- slices.Clone(b)
		}
	}
}

func (s *probes) close() {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	for _, o := range open {
		o.closer.Do(func() { close(o.done) })
	}
}

// Read returns one packet; what does not fit into buf is cut.
func (b *probe) Read(buf []byte) (int, error) {
	select {
	case <-b.done:
		return 0, io.EOF
	default:
	}
	select {
	case <-b.done:
		return 0, io.EOF
	case k := <-b.in:
		return copy(buf, k), nil
	}
}

// Close ends the probe.
func (b *probe) Close() error {
	s := &b.p.taps
	s.mu.Lock()
	if i := slices.Index(s.open, b); i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
	}
	s.mu.Unlock()
	b.closer.Do(func() { close(b.done) })
	return nil
}

// Write originates a packet. Its hop limit is not decremented here: 1 reaches the first neighbour.
// Errors: EINVAL for what is no IP packet; EADDRNOTAVAIL for a source that is not ours; ENETUNREACH; EMSGSIZE.
func (b *probe) Write(pkt []byte) (int, error) {
	select {
	case <-b.done:
		return 0, io.ErrClosedPipe
	default:
	}
	if len(pkt) > maxPacket {
		return 0, fmt.Errorf("probe: %w", syscall.EMSGSIZE)
	}
	var err error
	w := b.p.begin()
	switch {
	case len(pkt) >= header4Len && pkt[0]>>4 == 4:
		err = b.write4(w, w.copyPacket(pkt))
	case len(pkt) >= header6Len && pkt[0]>>4 == 6:
		err = b.write6(w, w.copyPacket(pkt))
	default:
		err = syscall.EINVAL
	}
	w.finish()
	if err != nil {
		return 0, fmt.Errorf("probe: %w", err)
	}
	return len(pkt), nil
}

func (b *probe) write4(w *worker, k packet) error {
	o := k.ip()
	t := b.p.tables[tableKey{b.table, false}]
	ihl := int(o[0]&15) * 4
	if ihl < header4Len || ihl > len(o) {
		return syscall.EINVAL
	}
	if t == nil {
		return syscall.ENETUNREACH
	}
	src, dst := addr4(o[12:16]), addr4(o[16:20])
	filled, err := b.source(t, src, dst)
	if err != nil {
		return err
	}
	put16(o[2:], uint16(len(o)))
	s := filled.As4()
	copy(o[12:16], s[:])
	if filled != src && o[9] == protoUDP && get16(o[6:])&0x3fff == 0 {
		sealUDP(o[ihl:], o[12:16], o[16:20])
	}
	w.originate4(k, t, b.iface)
	return nil
}

func (b *probe) write6(w *worker, k packet) error {
	o := k.ip()
	t := b.p.tables[tableKey{b.table, true}]
	if t == nil {
		return syscall.ENETUNREACH
	}
	src, dst := addr6(o[8:24]), addr6(o[24:40])
	filled, err := b.source(t, src, dst)
	if err != nil {
		return err
	}
	put16(o[4:], uint16(len(o)-header6Len))
	s := filled.As16()
	copy(o[8:24], s[:])
	switch {
	case o[6] == protoICMPv6 && len(o) >= header6Len+4:
		seal6(o, header6Len)
	case o[6] == protoUDP && filled != src:
		sealUDP(o[header6Len:], o[8:24], o[24:40])
	}
	w.originate6(k, t, b.iface)
	return nil
}

func sealUDP(m, src, dst []byte) {
	if len(m) < udpLen {
		return
	}
	put16(m[6:], 0)
	c := fold(sum(m, pseudo(src, dst, protoUDP, len(m))))
	if c == 0 { // RFC 768: zero means none
		c = 0xffff
	}
	put16(m[6:], c)
}

// source checks the packet's source or chooses one. The caller holds mu.
func (b *probe) source(t *table, src, dst netip.Addr) (netip.Addr, error) {
	if b.iface != nil && b.iface.deleted {
		return netip.Addr{}, syscall.ENODEV
	}
	if src.IsUnspecified() {
		return b.p.sourceFor(t, b.iface, dst)
	}
	if !b.p.isOurs(t, b.iface, src) {
		return netip.Addr{}, syscall.EADDRNOTAVAIL
	}
	return src, nil
}

// isOurs reports whether a is an address of the node in a table, or the link-local one of an interface. The caller holds mu.
func (p *Plane) isOurs(t *table, i *iface, a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return i != nil && i.ll == a
	}
	e, ok := t.routes.Lookup(a)
	if !ok {
		return false
	}
	for _, h := range p.resolve(e.list).hops {
		if h.verdict == verdictLocal {
			return true
		}
	}
	return false
}

// SourceFor returns the address that the node would use towards dst, as VPP chooses it: one of the egress interface, or of its
// lender, or another of the table's, a loopback's first. swIfIndex is the egress interface, or NoInterface for the route's.
// Errors: ENETUNREACH, EADDRNOTAVAIL, ENODEV.
func (p *Plane) SourceFor(table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error) {
	dst = dst.Unmap().WithZone("")
	p.mu.RLock()
	defer p.mu.RUnlock()
	var i *iface
	if swIfIndex != NoInterface {
		if i = p.at(swIfIndex); i == nil {
			return netip.Addr{}, fmt.Errorf("source for %v on interface %d: %w", dst, swIfIndex, syscall.ENODEV)
		}
	}
	t := p.tables[tableKey{table, dst.Is6()}]
	if t == nil || !dst.IsValid() {
		return netip.Addr{}, fmt.Errorf("source for %v in table %d: %w", dst, table, syscall.ENETUNREACH)
	}
	a, err := p.sourceFor(t, i, dst)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("source for %v in table %d: %w", dst, table, err)
	}
	return a, nil
}

// sourceFor is SourceFor with mu held.
func (p *Plane) sourceFor(t *table, out *iface, dst netip.Addr) (netip.Addr, error) {
	if dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast()) {
		if out == nil || !out.ll.IsValid() {
			return netip.Addr{}, syscall.EADDRNOTAVAIL
		}
		return out.ll, nil
	}
	h, err := p.hopFor(t, out, dst)
	if err != nil {
		return netip.Addr{}, err
	}
	if h.verdict == verdictLocal {
		return dst, nil
	}
	towards := dst
	if h.next.IsValid() && h.next.Is6() == dst.Is6() {
		towards = h.next
	}
	var a netip.Addr
	if dst.Is6() {
		a = p.source6(h.iface, t, unscoped(towards, dst))
	} else {
		a = p.source4(h.iface, t, towards)
	}
	if !a.IsValid() || (a.Is6() && a.IsLinkLocalUnicast()) {
		return netip.Addr{}, syscall.EADDRNOTAVAIL
	}
	return a, nil
}

// unscoped keeps a link-local next hop from choosing a link-local source.
func unscoped(next, dst netip.Addr) netip.Addr {
	if next.IsLinkLocalUnicast() {
		return dst
	}
	return next
}

// hopFor returns where a packet of our own for dst would go. The caller holds mu.
func (p *Plane) hopFor(t *table, out *iface, dst netip.Addr) (hop, error) {
	w := worker{p: p}
	var h hop
	if out != nil {
		h = w.via(t, dst, out)
	} else {
		var flow [header6Len]byte
		if h, _ = w.lookup(t, dst, flowOf(dst, flow[:])); h.verdict == verdictTransmit && !h.iface.usable() {
			h.verdict = verdictNoRoute
		}
	}
	switch h.verdict {
	case verdictTransmit, verdictLocal:
		return h, nil
	case verdictUnreachable:
		return h, syscall.EHOSTUNREACH
	case verdictProhibit:
		return h, syscall.EACCES
	default:
		return h, syscall.ENETUNREACH
	}
}

// flowOf makes a header for choosing among equal paths when only the destination is known.
func flowOf(dst netip.Addr, b []byte) []byte {
	if dst.Is4() {
		b[0] = 0x45
		a := dst.As4()
		copy(b[16:], a[:])
		return b
	}
	b[0] = 0x60
	a := dst.As16()
	copy(b[24:], a[:])
	return b
}
