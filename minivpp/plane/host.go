package plane

// The node's TCP and UDP: one gVisor stack for each table in use, made when it is first needed.
//
// gVisor is a transport here, nothing else: it has no routes but "everything goes down", resolves nobody, answers no echo. The
// plane decides what is for us and where what gVisor sends goes. A stack has one NIC for the node's global addresses, which
// belong to no interface in particular (weak host model, as VPP), and one for each interface with link-local traffic, so that
// a link-local session is bound to its interface.
//
// The same pair of fe80:: addresses, and even the same ports, may be in use on several interfaces. gVisor finds connections by
// addresses and ports first, so inside it a link-local address carries the interface's serial number in bytes 2 to 5, which are
// zero on the wire (RFC 4291 §2.5.6); KAME embedded its scopes alike. The NIC puts it in and takes it out.

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	udptransport "gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nodeNIC = tcpip.NICID(1)

	tcpBufferMin     = 4 << 10
	tcpBufferDefault = 128 << 10
	tcpBufferMax     = 1 << 20
)

// hosts are the stacks by table id.
type hosts struct {
	mu     sync.Mutex
	byID   map[uint32]*host
	closed bool
}

type host struct {
	p     *Plane
	table uint32
	stack *stack.Stack

	mu    sync.Mutex
	nics  map[uint32]*nic // by interface serial; 0 is the node's
	conns map[*conn]struct{}
	udps  map[tcpip.Endpoint]*udpConn
}

func (s *hosts) init() { s.byID = map[uint32]*host{} }

// get returns the table's host, nil when the plane has stopped.
func (s *hosts) get(p *Plane, table uint32) *host {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	h := s.byID[table]
	if h == nil {
		h = newHost(p, table)
		s.byID[table] = h
	}
	return h
}

// existing returns the table's host if there is one.
func (s *hosts) existing(table uint32) *host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[table]
}

// all lists the hosts.
func (s *hosts) all() []*host {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*host, 0, len(s.byID))
	for _, h := range s.byID {
		out = append(out, h)
	}
	return out
}

// close resets all connections and waits for gVisor's goroutines.
func (s *hosts) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, h := range s.all() {
		h.abort(func(*conn) bool { return true })
		h.closeUDP(func(*udpConn) bool { return true })
		h.stack.Close()
		h.stack.Wait()
	}
}

// removeNIC ends what was bound to an interface that is gone. No lock may be held.
func (s *hosts) removeNIC(i *iface) {
	for _, h := range s.all() {
		h.closeUDP(func(c *udpConn) bool { return c.iface == i })
		h.mu.Lock()
		n := h.nics[i.serial]
		delete(h.nics, i.serial)
		h.mu.Unlock()
		if n == nil {
			continue
		}
		h.abort(func(c *conn) bool { return c.serial == i.serial })
		h.stack.RemoveRoutes(func(r tcpip.Route) bool { return r.NIC == n.id })
		h.stack.RemoveNIC(n.id)
	}
}

// mtuChanged tells the interface's NICs. Plane.mu may be held.
func (s *hosts) mtuChanged(i *iface) {
	for _, h := range s.all() {
		h.mu.Lock()
		if n := h.nics[i.serial]; n != nil {
			n.mtu.Store(linkMTU(i))
		}
		h.mu.Unlock()
	}
}

func linkMTU(i *iface) uint32 {
	if m := i.packetMTU(true); m > 0 {
		return uint32(max(m, header.IPv6MinimumMTU))
	}
	return defaultMTU
}

// abort resets the connections that which accepts.
func (h *host) abort(which func(*conn) bool) {
	h.mu.Lock()
	var list []*conn
	for c := range h.conns {
		if which(c) {
			list = append(list, c)
		}
	}
	h.mu.Unlock()
	for _, c := range list {
		c.ep.Abort()
	}
}

func newHost(p *Plane, table uint32) *host {
	h := &host{p: p, table: table, nics: map[uint32]*nic{}, conns: map[*conn]struct{}{}, udps: map[tcpip.Endpoint]*udpConn{}}
	h.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udptransport.NewProtocol},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax}
	cubic := tcpip.CongestionControlOption("cubic")
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send, &cubic} {
		if err := h.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			p.log.WithField("table", table).Warnf("gVisor refuses %T: %s", o, err)
		}
	}
	ttl := tcpip.DefaultTTLOption(ownTTL)
	for _, proto := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		if err := h.stack.SetNetworkProtocolOption(proto, &ttl); err != nil {
			p.log.WithField("table", table).Warnf("gVisor refuses the TTL: %s", err)
		}
	}
	h.nic(nil)
	return h
}

// nic returns the NIC for an interface, or the node's for nil. It is nil when gVisor refuses one.
func (h *host) nic(i *iface) *nic {
	serial, mtu := uint32(0), uint32(defaultMTU)
	if i != nil {
		serial, mtu = i.serial, linkMTU(i)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nics[serial]; n != nil {
		return n
	}
	n := &nic{host: h, iface: i, id: nodeNIC + tcpip.NICID(serial)}
	n.mtu.Store(mtu)
	if err := h.stack.CreateNIC(n.id, n); err != nil {
		h.p.log.WithField("table", h.table).Errorf("gVisor NIC: %s", err)
		return nil
	}
	// Any address that the plane says is ours is: it has checked.
	h.stack.SetPromiscuousMode(n.id, true)
	h.stack.SetSpoofing(n.id, true)
	h.stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: n.id})
	h.stack.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: n.id})
	h.nics[serial] = n
	return n
}

// inject hands a packet for this node to gVisor. No lock is held.
func (s *hosts) inject(p *Plane, d delivery) {
	var h *host
	if d.proto == protoTCP {
		h = s.get(p, d.table) // if only to refuse the connection
	} else {
		h = s.existing(d.table)
	}
	if d.proto == protoUDP && !h.takesUDP(p, d) {
		return
	}
	if h == nil {
		return
	}
	var n *nic
	p.mu.RLock()
	if d.iface == nil || !d.iface.deleted {
		n = h.nic(d.iface)
	}
	if d.iface == nil {
		clampMSS(d.packet, func() int { return p.mtuTowards(d.table, sourceOf(d.packet)) })
	}
	p.mu.RUnlock()
	if n == nil {
		return
	}
	proto := ipv4.ProtocolNumber
	if d.packet[0]>>4 == 6 {
		proto = ipv6.ProtocolNumber
		if d.iface != nil && !embed(d.packet, d.iface.serial) {
			return
		}
	}
	up := n.dispatcher.Load()
	if up == nil {
		return
	}
	k := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(d.packet)})
	(*up).DeliverNetworkPacket(proto, k)
	k.DecRef()
}

func sourceOf(b []byte) netip.Addr {
	if b[0]>>4 == 4 {
		return addr4(b[12:16])
	}
	return addr6(b[8:24])
}

func destinationOf(b []byte) netip.Addr {
	if b[0]>>4 == 4 {
		return addr4(b[16:20])
	}
	return addr6(b[24:40])
}

// mtuTowards is the MTU of the interface by which packets to a leave, 0 when there is none. The caller holds mu.
func (p *Plane) mtuTowards(table uint32, a netip.Addr) int {
	t := p.tables[tableKey{table, a.Is6()}]
	if t == nil {
		return 0
	}
	h, err := p.hopFor(t, nil, a)
	if err != nil || h.verdict != verdictTransmit {
		return 0
	}
	return h.iface.packetMTU(a.Is6())
}

// clampMSS lowers the MSS of a SYN to what the path's first link takes: the node's NIC knows no link. RFC 9293 §3.7.1.
func clampMSS(b []byte, mtu func() int) {
	at := header6Len
	if b[0]>>4 == 4 {
		at = int(b[0]&15) * 4
		if b[9] != protoTCP {
			return
		}
	} else if b[6] != protoTCP {
		return
	}
	if len(b) < at+tcpLen || b[at+13]&2 == 0 {
		return
	}
	end := min(at+int(b[at+12]>>4)*4, len(b))
	for o := at + tcpLen; o+1 < end && b[o] != 0; {
		if b[o] == 1 {
			o++
			continue
		}
		n := int(b[o+1])
		if n < 2 || o+n > end {
			return
		}
		if b[o] == 2 && n == 4 {
			m := mtu()
			if most := m - at - tcpLen; m > 0 && most > 0 && int(get16(b[o+2:])) > most {
				replace16(b[at:], 16, b[o+2:], uint16(most), (o+2-at)&1 == 1)
			}
			return
		}
		o += n
	}
}

// replace16 changes a word of a message and its checksum at an offset; odd says that the word is not aligned in the message.
func replace16(m []byte, at int, word []byte, v uint16, odd bool) {
	before, after := get16(word), v
	if odd {
		before, after = before<<8|before>>8, after<<8|after>>8
	}
	put16(m[at:], updateChecksum(get16(m[at:]), before, after))
	put16(word, v)
}

// embed puts an interface's serial number into the link-local addresses of a packet for gVisor, and adapts the checksum.
func embed(b []byte, serial uint32) bool {
	at := header6Len
	sumAt := at
	switch b[6] {
	case protoTCP:
		sumAt += 16
	case protoUDP:
		sumAt += 6
	case protoICMPv6:
		sumAt += 2
	default:
		return false
	}
	if len(b) < sumAt+2 {
		return false
	}
	if b[6] == protoICMPv6 && !embedQuoted(b[at:], serial) {
		return false
	}
	if b[6] == protoUDP && get16(b[sumAt:]) == 0 {
		return false // RFC 8200 §8.1: it must have a checksum
	}
	for _, a := range [2][]byte{b[8:24], b[24:40]} {
		if !scoped(a) {
			continue
		}
		if get32(a[2:]) != 0 {
			return false
		}
		rescope(b[at:], sumAt-at, a, serial)
	}
	if b[6] == protoUDP && get16(b[sumAt:]) == 0 {
		put16(b[sumAt:], 0xffff)
	}
	return true
}

// embedQuoted does the same to the packet of ours that an ICMPv6 error m is about. Errors about TCP segments between
// link-local addresses are not taken: there is no router in between, and a peer that wants to refuse resets.
func embedQuoted(m []byte, serial uint32) bool {
	if len(m) < 8+header6Len {
		return false
	}
	quoted := m[8:]
	for _, a := range [2][]byte{quoted[8:24], quoted[24:40]} {
		if !scoped(a) {
			continue
		}
		if quoted[6] != protoUDP || get32(a[2:]) != 0 {
			return false
		}
		rescope(m, 2, a, serial)
	}
	return true
}

// unembed undoes embed in a packet from gVisor.
func unembed(b []byte) {
	for _, a := range [2][]byte{b[8:24], b[24:40]} {
		if scoped(a) {
			rescope(b[header6Len:], 16, a, 0)
		}
	}
}

func rescope(m []byte, at int, a []byte, serial uint32) {
	if len(m) < at+2 {
		return
	}
	replace16(m, at, a[2:4], uint16(serial>>16), false)
	replace16(m, at, a[4:6], uint16(serial), false)
}

func scoped(a []byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// nic is gVisor's link endpoint for an interface, or for the node.
type nic struct {
	host       *host
	iface      *iface
	id         tcpip.NICID
	mtu        atomic.Uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

// WritePackets routes what gVisor sends.
func (n *nic) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	p := n.host.p
	w := p.begin()
	count := 0
	for _, pb := range list.AsSlice() {
		k := w.newPacket(pb.Size())
		o := k.ip()
		at := 0
		for _, s := range pb.AsSlices() {
			at += copy(o[at:], s)
		}
		count++
		n.send(w, k)
	}
	w.finish()
	return count, nil
}

func (n *nic) send(w *worker, k packet) {
	p, b := w.p, k.ip()
	ip6 := b[0]>>4 == 6
	t := p.tables[tableKey{n.host.table, ip6}]
	if t == nil || (n.iface != nil && n.iface.deleted) || len(b) < header4Len || (ip6 && len(b) < header6Len) {
		return
	}
	if n.iface == nil {
		clampMSS(b, func() int { return p.mtuTowards(n.host.table, destinationOf(b)) })
	}
	// gVisor's own ICMP has no business here, and UDP does not leave by it.
	if !ip6 {
		if b[9] == protoTCP {
			w.originate4(k, t, n.iface)
		}
		return
	}
	if b[6] != protoTCP {
		return
	}
	unembed(b)
	w.originate6(k, t, n.iface)
}

// The rest of stack.LinkEndpoint.

func (n *nic) MTU() uint32                                  { return n.mtu.Load() }
func (n *nic) SetMTU(m uint32)                              { n.mtu.Store(m) }
func (n *nic) MaxHeaderLength() uint16                      { return 0 }
func (n *nic) LinkAddress() tcpip.LinkAddress               { return "" }
func (n *nic) SetLinkAddress(tcpip.LinkAddress)             {}
func (n *nic) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }
func (n *nic) IsAttached() bool                             { return n.dispatcher.Load() != nil }
func (n *nic) Wait()                                        {}
func (n *nic) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (n *nic) AddHeader(*stack.PacketBuffer)                {}
func (n *nic) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (n *nic) Close()                                       {}
func (n *nic) SetOnCloseAction(func())                      {}

// Attach is called when the NIC is made, and with nil when it is removed.
func (n *nic) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		n.dispatcher.Store(nil)
		return
	}
	n.dispatcher.Store(&d)
}
