package plane

// UDP of the node: net.PacketConn and net.Conn, with the errors of package syscall and addresses as hoststack's Backend wants
// them.
//
// gVisor has the ports, finds the socket that a datagram is for, checks and queues it, and hears ICMP errors. Sending does not
// go through it: only the plane knows which source address a datagram without one gets, and which link's MTU it is cut to.
// As with TCP, a link-local address inside gVisor carries the interface's serial number.

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxDatagrams that wait in a socket. gVisor bounds their bytes only, and an empty datagram has none.
const maxDatagrams = 1024

// udpConn is a socket. A dialled one has a remote address.
type udpConn struct {
	host  *host
	ep    tcpip.Endpoint
	wq    waiter.Queue
	table *table
	iface *iface // it is bound to; nil: none
	bound netip.AddrPort
	peer  netip.AddrPort // of a dialled one
	local *net.UDPAddr
	// remote is nil unless it is dialled.
	remote *net.UDPAddr
	taken  atomic.Uint64 // datagrams that were read
	read   deadline
	write  deadline
	once   sync.Once
	closed chan struct{}
}

// DialUDP returns a socket for one remote address; see hoststack.Backend. swIfIndex binds what it sends to an interface, or is
// NoInterface; a link-local remote needs it. local may be invalid or unspecified, and its port 0. A port unreachable message
// makes the next call ECONNREFUSED. The socket is closed with the table, and with the interface if it is bound to one.
// Errors: ENETUNREACH, EHOSTUNREACH, EACCES, EADDRNOTAVAIL, EADDRINUSE, EINVAL, in a *net.OpError.
func (p *Plane) DialUDP(table, swIfIndex uint32, local, remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(remote), Err: err}
	}
	if !remote.IsValid() || remote.Port() == 0 {
		return fail(syscall.EINVAL)
	}
	if !oneHost(remote.Addr()) {
		return fail(syscall.ENETUNREACH)
	}
	p.mu.RLock()
	i, src, err := p.dialFrom(table, swIfIndex, local.Addr(), remote.Addr())
	t := p.tables[tableKey{table, remote.Addr().Is6()}]
	p.mu.RUnlock()
	if err != nil {
		return fail(err)
	}
	c, err := p.openUDP(t, i, netip.AddrPortFrom(src, local.Port()), remote)
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// ListenUDP receives from every interface of a table; see hoststack.Backend. An unspecified address means every address of its
// family; what such a socket sends has the source that SourceFor gives. A link-local address needs its sw_if_index as the zone;
// the addresses of ReadFrom have theirs, and those of WriteTo must. Groups and broadcasts are neither received nor sent to.
// The socket is closed with the table, and one for a link-local address with the interface.
// Errors: EADDRINUSE, EADDRNOTAVAIL, in a *net.OpError; of WriteTo also ENETUNREACH, EHOSTUNREACH, EACCES, EAFNOSUPPORT, EINVAL,
// and EMSGSIZE for more than 65,507 (IPv4) or 65,487 bytes.
func (p *Plane) ListenUDP(table uint32, local netip.AddrPort) (net.PacketConn, error) {
	a := local.Addr().Unmap()
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(local), Err: err}
	}
	p.mu.RLock()
	t := p.tables[tableKey{table, a.Is6()}]
	var i *iface
	if scopedAddr(a) {
		i = p.at(zoneIndex(a.Zone()))
	}
	a = a.WithZone("")
	ok := t != nil && a.IsValid() && (a.IsUnspecified() || p.isOurs(t, i, a))
	p.mu.RUnlock()
	if !ok {
		return fail(syscall.EADDRNOTAVAIL)
	}
	c, err := p.openUDP(t, i, netip.AddrPortFrom(a, local.Port()), netip.AddrPort{})
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// zoneIndex is the sw_if_index that a zone says, NoInterface for none.
func zoneIndex(zone string) uint32 {
	idx, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return NoInterface
	}
	return uint32(idx)
}

// oneHost says whether a can be the address of a host: no group, no broadcast.
func oneHost(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// openUDP makes a socket and keeps it where the end of its table or interface finds it.
func (p *Plane) openUDP(t *table, i *iface, local, remote netip.AddrPort) (*udpConn, error) {
	h := p.hosts.get(p, t.id)
	if h == nil {
		return nil, errStopped
	}
	p.mu.RLock()
	var n *nic
	if i == nil || !i.deleted {
		n = h.nic(i)
	}
	p.mu.RUnlock()
	if n == nil {
		return nil, syscall.EADDRNOTAVAIL
	}
	c := &udpConn{host: h, table: t, iface: i, bound: local, peer: remote, closed: make(chan struct{})}
	c.read.init()
	c.write.init()
	if err := c.bind(n); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.udps[c.ep] = c
	h.mu.Unlock()
	p.mu.RLock()
	gone := p.ctx.Err() != nil || p.tables[t.tableKey] != t || (i != nil && i.deleted)
	p.mu.RUnlock()
	if gone { // who removed it may not have seen us
		c.Close()
		return nil, syscall.EADDRNOTAVAIL
	}
	return c, nil
}

// bind takes the port in gVisor.
func (c *udpConn) bind(n *nic) error {
	proto := ipv4.ProtocolNumber
	if c.bound.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	ep, terr := c.host.stack.NewEndpoint(header.UDPProtocolNumber, proto, &c.wq)
	if terr != nil {
		return errnoOf(terr)
	}
	ep.SocketOptions().SetV6Only(true)
	where := n.inside(c.bound)
	if c.bound.Addr().IsUnspecified() {
		where = tcpip.FullAddress{Port: c.bound.Port()}
	}
	if terr = ep.Bind(where); terr == nil && c.peer.IsValid() {
		terr = ep.Connect(n.inside(c.peer))
	}
	var f tcpip.FullAddress
	if terr == nil {
		f, terr = ep.GetLocalAddress()
	}
	if terr != nil {
		ep.Close()
		return errnoOf(terr)
	}
	c.ep, c.bound = ep, netip.AddrPortFrom(c.bound.Addr(), f.Port)
	c.local = c.outward(c.bound)
	if c.peer.IsValid() {
		c.remote = c.outward(c.peer)
	}
	return nil
}

// outward is an address of the socket for the user: with the zone if it needs one.
func (c *udpConn) outward(a netip.AddrPort) *net.UDPAddr {
	u := net.UDPAddrFromAddrPort(a)
	if c.iface != nil && scopedAddr(a.Addr()) {
		u.Zone = strconv.FormatUint(uint64(c.iface.index), 10)
	}
	return u
}

// closeUDP closes the sockets that which accepts. Plane.mu may be held: closing them does not enter the plane.
func (h *host) closeUDP(which func(*udpConn) bool) {
	h.mu.Lock()
	var list []*udpConn
	for _, c := range h.udps {
		if which(c) {
			list = append(list, c)
		}
	}
	h.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

// tableGone closes the sockets of a table that is no more. Plane.mu is held.
func (s *hosts) tableGone(t *table) {
	if h := s.existing(t.id); h != nil {
		h.closeUDP(func(c *udpConn) bool { return c.table == t })
	}
}

// takesUDP reports whether a socket has room for a datagram; if there is no such socket the sender is told. The host may be
// nil. No lock is held.
func (h *host) takesUDP(p *Plane, d delivery) bool {
	if h != nil {
		proto, id, ok := endpointOf(d)
		if !ok {
			return false
		}
		if found := h.stack.FindTransportEndpoint(proto, header.UDPProtocolNumber, id, 0); found != nil {
			ep, _ := found.(tcpip.Endpoint)
			h.mu.Lock()
			c := h.udps[ep]
			h.mu.Unlock()
			if c == nil || c.waiting() < maxDatagrams {
				return true
			}
			p.errors[errSocketFull].Add(1)
			if d.in != nil {
				d.in.count.drops.Add(1)
			}
			return false
		}
	}
	w := p.begin()
	defer w.finish()
	if d.in != nil && d.in.deleted {
		return false
	}
	w.drop(d.in, errNoListener)
	w.from = d.from
	if d.packet[0]>>4 == 4 {
		w.error4(d.in, d.packet, icmp4Unreachable, 3, 0) // RFC 1122 §4.1.3.1
	} else {
		w.error6(d.in, d.packet, icmp6Unreachable, 4, 0) // RFC 4443 §3.1
	}
	return false
}

// lengthUDP is the length of a packet whose UDP header at an offset may say that the datagram ends before the packet (RFC 768).
func lengthUDP(b []byte, at int) (int, bool) {
	if len(b) < at+udpLen {
		return 0, false
	}
	n := int(get16(b[at+4:]))
	return at + n, n >= udpLen && at+n <= len(b)
}

// endpointOf says what gVisor looks for when it gets a datagram.
func endpointOf(d delivery) (tcpip.NetworkProtocolNumber, stack.TransportEndpointID, bool) {
	b := d.packet
	if b[0]>>4 == 4 {
		m := b[int(b[0]&15)*4:]
		return ipv4.ProtocolNumber, stack.TransportEndpointID{
			LocalPort: get16(m[2:]), LocalAddress: tcpip.AddrFrom4([4]byte(b[16:20])),
			RemotePort: get16(m), RemoteAddress: tcpip.AddrFrom4([4]byte(b[12:16])),
		}, true
	}
	proto, at, _, _, _, ok := upper6(b)
	if !ok || proto != protoUDP || len(b) < at+udpLen {
		return 0, stack.TransportEndpointID{}, false
	}
	inside := func(a [16]byte) tcpip.Address {
		if d.iface != nil && scoped(a[:]) {
			put32(a[2:], d.iface.serial)
		}
		return tcpip.AddrFrom16(a)
	}
	m := b[at:]
	return ipv6.ProtocolNumber, stack.TransportEndpointID{
		LocalPort: get16(m[2:]), LocalAddress: inside([16]byte(b[24:40])),
		RemotePort: get16(m), RemoteAddress: inside([16]byte(b[8:24])),
	}, true
}

// waiting is how many datagrams nobody has read yet.
func (c *udpConn) waiting() int64 {
	s, ok := c.ep.Stats().(*tcpip.TransportEndpointStats)
	if !ok {
		return 0
	}
	lost := s.ReceiveErrors.ReceiveBufferOverflow.Value() + s.ReceiveErrors.ClosedReceiver.Value()
	return int64(s.PacketsReceived.Value() - lost - c.taken.Load())
}

func (c *udpConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is nil when the socket was not dialled.
func (c *udpConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return nil
	}
	return c.remote
}

func (c *udpConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom implements net.PacketConn. What does not fit into b is lost.
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	entry, notify := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	for {
		passed := c.read.passed()
		select {
		case <-c.closed:
			return 0, nil, c.failed("read", c.remote, net.ErrClosed)
		case <-passed:
			return 0, nil, c.failed("read", c.remote, os.ErrDeadlineExceeded)
		default:
		}
		to := tcpip.SliceWriter(b)
		r, terr := c.ep.Read(&to, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch terr.(type) {
		case nil, *tcpip.ErrBadBuffer: // the latter: b has no room at all
			c.taken.Add(1)
			from, _ := c.host.outside(r.RemoteAddr)
			return r.Count, (*net.UDPAddr)(from), nil
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return 0, nil, c.failed("read", c.remote, net.ErrClosed)
		default:
			return 0, nil, c.failed("read", c.remote, errnoOf(terr))
		}
		select {
		case <-notify:
		case <-c.closed:
		case <-passed:
		}
	}
}

func (c *udpConn) Write(b []byte) (int, error) {
	if c.remote == nil {
		return 0, c.failed("write", nil, syscall.EDESTADDRREQ)
	}
	if err := c.send(b, c.peer, NoInterface); err != nil {
		return 0, c.failed("write", c.remote, err)
	}
	return len(b), nil
}

// WriteTo implements net.PacketConn; addr is a *net.UDPAddr. It never blocks.
func (c *udpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok || u == nil {
		return 0, c.failed("write", nil, syscall.EINVAL)
	}
	if c.remote != nil {
		return 0, c.failed("write", u, net.ErrWriteToConnected)
	}
	to, zone := u.AddrPort(), NoInterface
	a := to.Addr().Unmap()
	if scopedAddr(a) {
		zone = zoneIndex(u.Zone)
	}
	if err := c.send(b, netip.AddrPortFrom(a.WithZone(""), to.Port()), zone); err != nil {
		return 0, c.failed("write", u, err)
	}
	return len(b), nil
}

// send makes a datagram and routes it. zone is the interface of a link-local destination, or NoInterface for the socket's.
func (c *udpConn) send(data []byte, to netip.AddrPort, zone uint32) error {
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-c.write.passed():
		return os.ErrDeadlineExceeded
	default:
	}
	if terr := c.ep.LastError(); terr != nil { // an ICMP error about an earlier datagram
		return errnoOf(terr)
	}
	head := header4Len
	if c.bound.Addr().Is6() {
		head = header6Len
	}
	switch {
	case !to.IsValid() || to.Port() == 0:
		return syscall.EINVAL
	case to.Addr().Is6() != c.bound.Addr().Is6():
		return syscall.EAFNOSUPPORT
	case !oneHost(to.Addr()):
		return syscall.ENETUNREACH
	case len(data) > maxPacket-head-udpLen:
		return syscall.EMSGSIZE
	}
	if c.iface != nil {
		if zone != NoInterface && zone != c.iface.index {
			return syscall.ENETUNREACH
		}
		zone = c.iface.index
	}
	w := c.host.p.begin()
	defer w.finish()
	if c.iface != nil && c.iface.deleted { // the index may be another's by now
		return net.ErrClosed
	}
	out, src, err := w.p.dialFrom(c.table.id, zone, c.bound.Addr(), to.Addr())
	if err != nil {
		return err
	}
	k := w.newPacket(head + udpLen + len(data))
	b := k.ip()
	m := b[head:]
	put16(m, c.bound.Port())
	put16(m[2:], to.Port())
	put16(m[4:], uint16(len(m)))
	copy(m[udpLen:], data)
	if to.Addr().Is4() {
		w.header4(b, src, to.Addr(), protoUDP, 0)
		sealUDP(m, b[12:16], b[16:20])
		w.originate4(k, c.table, out) // longer than the MTU: cut there, and by routers on the way
		return nil
	}
	header6(b, src, to.Addr(), protoUDP, ownTTL)
	sealUDP(m, b[8:24], b[24:40])
	mtu := w.firstMTU6(b, c.table, out)
	if mtu != 0 && !scopedAddr(to.Addr()) {
		mtu = min(mtu, header.IPv6MinimumMTU) // RFC 8201 §4: what is sure to pass without path MTU discovery
	}
	w.originate6Cut(k, c.table, out, mtu)
	return nil
}

// Close frees the port. Blocked calls return net.ErrClosed.
func (c *udpConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.ep.Close()
		c.read.set(time.Time{})
		c.write.set(time.Time{})
		c.host.mu.Lock()
		delete(c.host.udps, c.ep)
		c.host.mu.Unlock()
	})
	return nil
}

func (c *udpConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *udpConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.read, t) }
func (c *udpConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *udpConn) setDeadline(d *deadline, t time.Time) error {
	select {
	case <-c.closed:
		return c.failed("set", nil, net.ErrClosed)
	default:
		d.set(t)
		return nil
	}
}

func (c *udpConn) failed(op string, to *net.UDPAddr, err error) error {
	e := &net.OpError{Op: op, Net: "udp", Source: c.local, Err: err}
	if to != nil {
		e.Addr = to
	}
	return e
}

// deadline is a point in time that whoever waits for can be told of, and that may be moved meanwhile.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	round uint64        // of set
	end   chan struct{} // closed when it has passed
}

func (d *deadline) init() { d.end = make(chan struct{}) }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end
}

// set moves it; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.round++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.end:
		d.end = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.end)
		return
	}
	round := d.round
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.round == round { // else it was moved while we were about to run
			close(d.end)
		}
	})
}
