package wg

// The UDP side: one kernel socket, bound to the configured address (wireguard-go's own bind takes the wildcard
// address only). It needs no privilege. Receiving takes what is there, up to a batch, per wake-up of the poller.

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// batchSize is how many packets go through the pipeline together. wireguard-go keeps two batches of 64 KiB buffers
// for each device; its own default of 128 would be 16 MB.
const batchSize = 16

// bind is a conn.Bind.
type bind struct {
	listen   netip.AddrPort // zero: any address; the port comes with Open
	inbound  *window        // socket → memif
	outbound *window        // memif → socket
	// trying is called after a handshake initiation has been sent, with how many have been since the last answer.
	trying func(unanswered int)

	unanswered atomic.Int32

	mu     sync.RWMutex
	conn   *net.UDPConn
	closed chan struct{} // while conn is open
}

// endpoint is a conn.Endpoint. It is immutable, and so shared by packets.
type endpoint struct{ addr netip.AddrPort }

func (e *endpoint) ClearSrc()           {}
func (e *endpoint) SrcToString() string { return "" }
func (e *endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e *endpoint) DstToString() string { return e.addr.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.addr.Addr() }
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	return b
}

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	network, at := "udp", &net.UDPAddr{Port: int(port)}
	if addr := b.listen.Addr(); addr.IsValid() {
		at = net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port))
		switch {
		case addr.Is4():
			network = "udp4"
		case !addr.IsUnspecified(): // "::" takes both families
			network = "udp6"
		}
	}
	c, err := net.ListenUDP(network, at)
	if err != nil {
		return nil, 0, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, 0, err
	}
	b.conn, b.closed = c, make(chan struct{})
	receive := b.receiver(raw, b.closed)
	return []conn.ReceiveFunc{receive}, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

// Close implements conn.Bind. Receivers end with net.ErrClosed.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	close(b.closed)
	b.conn = nil
	return err
}

// SetMark implements conn.Bind. Marks need CAP_NET_ADMIN, and we have none to set.
func (b *bind) SetMark(mark uint32) error {
	if mark != 0 {
		return errors.New("no packet marks without privileges")
	}
	return nil
}

// BatchSize implements conn.Bind.
func (b *bind) BatchSize() int { return batchSize }

// ParseEndpoint implements conn.Bind.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{unmap(addr)}, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// local is the address that the socket is bound to, zero while closed.
func (b *bind) local() netip.AddrPort {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.conn == nil {
		return netip.AddrPort{}
	}
	return unmap(b.conn.LocalAddr().(*net.UDPAddr).AddrPort())
}

// Send implements conn.Bind. All messages are tried; the first error is returned.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	to, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.RLock()
	c := b.conn
	b.mu.RUnlock()
	var failed error
	if c == nil {
		failed = net.ErrClosed
	}
	data, initiations := 0, 0
	for _, buf := range bufs {
		switch messageType(buf) {
		case device.MessageTransportType:
			if len(buf) > device.MessageKeepaliveSize {
				data++
			}
		case device.MessageInitiationType:
			initiations++
		}
		if c == nil {
			continue
		}
		if _, err := c.WriteToUDPAddrPort(buf, to.addr); err != nil && failed == nil {
			failed = err
		}
	}
	if data > 0 {
		b.outbound.out(data)
	}
	if initiations > 0 {
		b.trying(int(b.unanswered.Add(int32(initiations))))
	}
	return failed
}

func messageType(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// errorPause keeps a socket that fails for a while (ENOBUFS) from becoming a busy loop. wireguard-go itself would give
// up after ten errors, for ever.
const errorPause = 50 * time.Millisecond

// receiver makes the receive function of one opened socket.
func (b *bind) receiver(raw syscall.RawConn, closed <-chan struct{}) conn.ReceiveFunc {
	last := &endpoint{} // of the previous packet: most come from one place
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		for {
			want, ok := b.inbound.room(min(len(bufs), len(sizes), len(eps)), closed)
			if !ok {
				return 0, net.ErrClosed
			}
			n, failed, data := 0, error(nil), 0
			err := raw.Read(func(fd uintptr) bool {
				for n < want {
					size, from, err := syscall.Recvfrom(int(fd), bufs[n], syscall.MSG_DONTWAIT)
					switch {
					case errors.Is(err, syscall.EINTR):
						continue
					case errors.Is(err, syscall.EAGAIN):
						return n > 0
					case err != nil:
						failed = err
						return true
					}
					if addr := addrOf(from); addr != last.addr {
						last = &endpoint{addr}
					}
					switch messageType(bufs[n][:size]) {
					case device.MessageTransportType:
						if size > device.MessageKeepaliveSize {
							data++
						}
					case device.MessageResponseType:
						b.unanswered.Store(0)
					}
					sizes[n], eps[n] = size, last
					n++
				}
				return true
			})
			if err != nil {
				return 0, net.ErrClosed // RawConn.Read itself fails on a closed socket only
			}
			b.inbound.in(data)
			if n > 0 {
				return n, nil
			}
			if failed != nil {
				select {
				case <-closed:
					return 0, net.ErrClosed
				case <-time.After(errorPause):
				}
			}
		}
	}
}

// addrOf reads a kernel address; a zone is given by its number.
func addrOf(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	default:
		return netip.AddrPort{}
	}
}
