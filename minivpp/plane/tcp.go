package plane

// Dial and listen: net.Conn and net.Listener on the node's stacks, with the errors of package syscall and addresses as
// hoststack's Backend wants them.

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const listenBacklog = 128

// errnos maps gVisor's errors by their text, which is all that gonet leaves of them.
var errnos = func() map[string]error {
	m := map[string]error{}
	for _, e := range []struct {
		from tcpip.Error
		to   error
	}{
		{&tcpip.ErrConnectionRefused{}, syscall.ECONNREFUSED},
		{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
		{&tcpip.ErrConnectionAborted{}, syscall.ECONNABORTED},
		{&tcpip.ErrAborted{}, syscall.ECONNABORTED},
		{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
		{&tcpip.ErrNetworkUnreachable{}, syscall.ENETUNREACH},
		{&tcpip.ErrHostUnreachable{}, syscall.EHOSTUNREACH},
		{&tcpip.ErrBadLocalAddress{}, syscall.EADDRNOTAVAIL},
		{&tcpip.ErrNoPortAvailable{}, syscall.EADDRNOTAVAIL},
		{&tcpip.ErrPortInUse{}, syscall.EADDRINUSE},
		{&tcpip.ErrClosedForSend{}, syscall.EPIPE},
		{&tcpip.ErrInvalidEndpointState{}, net.ErrClosed},
		{&tcpip.ErrNotConnected{}, syscall.ENOTCONN},
	} {
		m[e.from.String()] = e.to
	}
	return m
}()

func errnoOf(e tcpip.Error) error {
	if err, ok := errnos[e.String()]; ok {
		return err
	}
	return errors.New(e.String())
}

// DialTCP connects from a table; see hoststack.Backend. swIfIndex binds the connection's packets to an interface, or is
// NoInterface; a link-local remote needs it. local may be invalid or unspecified, and its port 0.
// Errors: ctx's; ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EADDRINUSE, in a *net.OpError.
func (p *Plane) DialTCP(ctx context.Context, table, swIfIndex uint32, local, remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: err}
	}
	if !remote.IsValid() {
		return fail(syscall.EINVAL)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	p.mu.RLock()
	i, src, err := p.dialFrom(table, swIfIndex, local.Addr(), remote.Addr())
	p.mu.RUnlock()
	if err != nil {
		return fail(err)
	}
	h := p.hosts.get(p, table)
	if h == nil {
		return fail(errStopped)
	}
	p.mu.RLock()
	var n *nic
	if i == nil || !i.deleted {
		n = h.nic(i)
	}
	p.mu.RUnlock()
	if n == nil {
		return fail(syscall.ENETUNREACH)
	}
	c, err := h.dial(ctx, n, netip.AddrPortFrom(src, local.Port()), remote)
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// dialFrom chooses the interface and the source of a connection. The caller holds mu.
func (p *Plane) dialFrom(table, swIfIndex uint32, local, remote netip.Addr) (*iface, netip.Addr, error) {
	var i *iface
	if swIfIndex != NoInterface {
		if i = p.at(swIfIndex); i == nil {
			return nil, local, syscall.ENETUNREACH
		}
	}
	t := p.tables[tableKey{table, remote.Is6()}]
	if t == nil {
		return nil, local, syscall.ENETUNREACH
	}
	if remote.Is6() && remote.IsLinkLocalUnicast() {
		if i == nil || !i.usable() {
			return nil, local, syscall.ENETUNREACH
		}
	} else if _, err := p.hopFor(t, i, remote); err != nil {
		return nil, local, err
	}
	if !local.IsValid() || local.IsUnspecified() {
		src, err := p.sourceFor(t, i, remote)
		return i, src, err
	}
	if local.Is6() != remote.Is6() || !p.isOurs(t, i, local) {
		return nil, local, syscall.EADDRNOTAVAIL
	}
	return i, local, nil
}

// inside is an address as gVisor knows it on a NIC.
func (n *nic) inside(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: n.id, Port: a.Port()}
	if a.Addr().Is4() {
		f.Addr = tcpip.AddrFrom4(a.Addr().As4())
		return f
	}
	b := a.Addr().As16()
	if scoped(b[:]) && n.iface != nil {
		put32(b[2:], n.iface.serial)
	}
	f.Addr = tcpip.AddrFrom16(b)
	return f
}

func (h *host) dial(ctx context.Context, n *nic, local, remote netip.AddrPort) (net.Conn, error) {
	proto := ipv4.ProtocolNumber
	if remote.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	var wq waiter.Queue
	ep, terr := h.stack.NewEndpoint(tcp.ProtocolNumber, proto, &wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	ep.SocketOptions().SetV6Only(true)
	if terr := ep.Bind(n.inside(local)); terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	entry, notify := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr = ep.Connect(n.inside(remote))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		case <-h.p.ctx.Done():
			ep.Abort()
			return nil, errStopped
		case <-notify:
			terr = ep.LastError()
		}
	}
	if terr == nil && tcp.EndpointState(ep.State()) == tcp.StateError {
		terr = &tcpip.ErrConnectionAborted{} // aborted before we looked
	}
	if terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	return h.newConn(ep, &wq), nil
}

// ListenTCP accepts from every interface of a table; see hoststack.Backend. An unspecified address means every address of its
// family. A link-local address needs its sw_if_index as the zone.
// Errors: EADDRINUSE, EADDRNOTAVAIL, in a *net.OpError.
func (p *Plane) ListenTCP(table uint32, local netip.AddrPort) (net.Listener, error) {
	a := local.Addr().Unmap()
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(local), Err: err}
	}
	p.mu.RLock()
	t := p.tables[tableKey{table, a.Is6()}]
	var i *iface
	if zone := a.Zone(); zone != "" {
		if idx, err := strconv.ParseUint(zone, 10, 32); err == nil {
			i = p.at(uint32(idx))
		}
		a = a.WithZone("")
	}
	ok := t != nil && a.IsValid() && (a.IsUnspecified() || p.isOurs(t, i, a))
	p.mu.RUnlock()
	if !ok {
		return fail(syscall.EADDRNOTAVAIL)
	}
	h := p.hosts.get(p, table)
	if h == nil {
		return fail(errStopped)
	}
	if !scopedAddr(a) {
		i = nil
	}
	p.mu.RLock()
	n := h.nic(i)
	p.mu.RUnlock()
	if n == nil {
		return fail(syscall.EADDRNOTAVAIL)
	}
	l, err := h.listen(n, netip.AddrPortFrom(a, local.Port()))
	if err != nil {
		return fail(err)
	}
	return l, nil
}

func scopedAddr(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

func (h *host) listen(n *nic, local netip.AddrPort) (*listener, error) {
	proto := ipv4.ProtocolNumber
	if local.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	l := &listener{host: h, closing: make(chan struct{})}
	ep, terr := h.stack.NewEndpoint(tcp.ProtocolNumber, proto, &l.wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	l.ep = ep
	ep.SocketOptions().SetV6Only(true)
	ep.SocketOptions().SetReuseAddress(true) // connections that linger do not keep the port
	where := n.inside(local)
	if local.Addr().IsUnspecified() {
		where = tcpip.FullAddress{Port: local.Port()}
	}
	if terr := ep.Bind(where); terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	if terr := ep.Listen(listenBacklog); terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	f, terr := ep.GetLocalAddress()
	if terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	if local.Addr().IsUnspecified() {
		l.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), f.Port))
	} else {
		l.addr, _ = h.outside(f)
	}
	return l, nil
}

// listener implements net.Listener.
type listener struct {
	host    *host
	ep      tcpip.Endpoint
	wq      waiter.Queue
	addr    *net.TCPAddr
	once    sync.Once
	closing chan struct{}
}

// Accept waits for a connection, until Close or until the plane stops: then net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	entry, notify := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, terr := l.ep.Accept(nil)
		if terr == nil {
			return l.host.newConn(ep, wq), nil
		}
		if _, ok := terr.(*tcpip.ErrWouldBlock); !ok {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
		select {
		case <-notify:
		case <-l.closing:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		case <-l.host.p.ctx.Done():
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closing)
		l.ep.Close()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// conn is a net.Conn. gonet carries the data and the deadlines; addresses and errors are ours.
type conn struct {
	*gonet.TCPConn
	host   *host
	ep     tcpip.Endpoint
	local  *net.TCPAddr
	remote *net.TCPAddr
	serial uint32 // of the interface that it is bound to by its addresses; 0: none
	closed atomic.Bool
}

func (h *host) newConn(ep tcpip.Endpoint, wq *waiter.Queue) *conn {
	ep.SocketOptions().SetDelayOption(false) // as Go's own connections
	c := &conn{TCPConn: gonet.NewTCPConn(wq, ep), host: h, ep: ep, local: &net.TCPAddr{}, remote: &net.TCPAddr{}}
	if f, terr := ep.GetLocalAddress(); terr == nil {
		c.local, c.serial = h.outside(f)
	}
	if f, terr := ep.GetRemoteAddress(); terr == nil {
		var serial uint32
		if c.remote, serial = h.outside(f); serial != 0 {
			c.serial = serial
		}
	}
	h.mu.Lock()
	h.conns[c] = struct{}{}
	h.mu.Unlock()
	return c
}

// outside is inside undone; the zone is the interface's sw_if_index in decimal.
func (h *host) outside(f tcpip.FullAddress) (*net.TCPAddr, uint32) {
	b := f.Addr.AsSlice()
	a := &net.TCPAddr{IP: append(net.IP(nil), b...), Port: int(f.Port)}
	if len(b) != 16 || !scoped(b) {
		return a, 0
	}
	serial := get32(b[2:])
	put32(a.IP[2:], 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nics[serial]; n != nil && n.iface != nil {
		a.Zone = strconv.FormatUint(uint64(n.iface.index), 10)
	}
	return a, serial
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.translate("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.translate("write", err)
}

func (c *conn) CloseWrite() error { return c.translate("close", c.TCPConn.CloseWrite()) }

// Close ends the connection; what was written is still delivered. Blocked calls return net.ErrClosed.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	err := c.TCPConn.Close()
	c.TCPConn.SetDeadline(time.Unix(1, 0)) // wakes whoever waits
	c.host.mu.Lock()
	delete(c.host.conns, c)
	c.host.mu.Unlock()
	return err
}

// translate gives gonet's errors the values that callers of package net compare with.
func (c *conn) translate(op string, err error) error {
	if err == nil {
		return nil
	}
	if c.closed.Load() {
		err = net.ErrClosed
	} else if err == io.EOF {
		return err
	}
	var oe *net.OpError
	if errors.As(err, &oe) {
		switch known, ok := errnos[oe.Err.Error()]; {
		case ok:
			err = known
		case oe.Timeout():
			err = os.ErrDeadlineExceeded
		default:
			err = oe.Err
		}
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
