package hoststack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// vclConn is the router's end of a connection that a helper has with VPP: a socket pair for the bytes, with the true
// addresses in front. How the connection ended comes over the control socket, always before the socket's end.
type vclConn struct {
	conn          *net.UnixConn
	local, remote *net.TCPAddr // not changed once the caller has it
	onClose       func()

	once  sync.Once
	mu    sync.Mutex
	err   error         // why there is no more to read: io.EOF or an errno
	ended chan struct{} // closed when err is set
}

// newVCLConn takes fd over.
func newVCLConn(fd int, local, remote netip.AddrPort, zone string, onClose func()) (*vclConn, error) {
	f := os.NewFile(uintptr(fd), "vcl")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("not a unix socket")
	}
	return &vclConn{
		conn: u, local: plainTCPAddr(local, zone), remote: plainTCPAddr(remote, zone), onClose: onClose, ended: make(chan struct{}),
	}, nil
}

// plainTCPAddr has a 4-byte IP for IPv4, and a zone only where one belongs.
func plainTCPAddr(ap netip.AddrPort, zone string) *net.TCPAddr {
	if !needsInterface(ap.Addr()) {
		zone = ""
	}
	return &net.TCPAddr{IP: ap.Addr().AsSlice(), Port: int(ap.Port()), Zone: zone}
}

// LocalAddr implements net.Conn.
func (c *vclConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *vclConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *vclConn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *vclConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *vclConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// end notes why there is no more to read. A reset after a FIN counts.
func (c *vclConn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		close(c.ended)
	}
	if c.err == nil || errors.Is(c.err, io.EOF) {
		c.err = err
	}
}

func (c *vclConn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// endPatience is longer than the control socket's message can take.
const endPatience = 2 * time.Second

// Read implements net.Conn: io.EOF after a FIN, ECONNRESET after a reset or the end of the helper.
func (c *vclConn) Read(b []byte) (int, error) {
	n, err := c.conn.Read(b)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, c.opError("read", err)
	}
	t := time.NewTimer(endPatience)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-t.C: // a helper that is at odds with itself
		c.end(syscall.ECONNRESET)
	}
	if err := c.ending(); !errors.Is(err, io.EOF) {
		return n, c.opError("read", err)
	}
	return n, io.EOF
}

// Write implements net.Conn.
func (c *vclConn) Write(b []byte) (int, error) {
	n, err := c.conn.Write(b)
	if err == nil {
		return n, nil
	}
	if end := c.ending(); errors.Is(err, syscall.EPIPE) && end != nil && !errors.Is(end, io.EOF) {
		err = end
	}
	return n, c.opError("write", err)
}

// Close implements net.Conn. What was written is still sent.
func (c *vclConn) Close() error {
	c.once.Do(c.onClose)
	if err := c.conn.Close(); err != nil {
		return c.opError("close", err)
	}
	return nil
}

// CloseWrite sends a FIN after what was written.
func (c *vclConn) CloseWrite() error {
	if err := c.conn.CloseWrite(); err != nil {
		return c.opError("close", err)
	}
	return nil
}

// opError puts the true addresses in the place of the socket pair's.
func (c *vclConn) opError(op string, err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) {
		err = oe.Err
	}
	var se *os.SyscallError
	if errors.As(err, &se) {
		err = se.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// vclListener survives helpers: each new one is told to listen again.
type vclListener struct {
	slot  *slot
	queue chan *vclConn

	once   sync.Once
	closed chan struct{}

	mu   sync.Mutex
	addr netip.AddrPort
}

// backlog is how many connections may wait for Accept, and how many for their attribution.
const backlog = 128

func newVCLListener(s *slot, local netip.AddrPort) *vclListener {
	return &vclListener{slot: s, addr: local, queue: make(chan *vclConn, backlog), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *vclListener) Accept() (net.Conn, error) {
	if !l.isClosed() {
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close implements net.Listener. Connections that nobody accepted are closed.
func (l *vclListener) Close() error {
	err := error(&net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed})
	l.once.Do(func() {
		err = nil
		close(l.closed)
		l.slot.unlisten(l)
		l.flush()
	})
	return err
}

func (l *vclListener) flush() {
	for {
		select {
		case c := <-l.queue:
			_ = c.Close()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (l *vclListener) Addr() net.Addr { return plainTCPAddr(l.where(), "") }

func (l *vclListener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// where it listens: as asked at first, then as VPP has answered.
func (l *vclListener) where() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr
}

func (l *vclListener) setAddr(a netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addr = a
}

// deliver hands a connection to Accept, or closes it.
func (l *vclListener) deliver(c *vclConn) {
	select {
	case l.queue <- c:
		if l.isClosed() { // Close may have flushed before
			l.flush()
		}
	default:
		l.slot.log.WithField("remote", c.remote.String()).Info("connection refused: too many wait to be accepted")
		_ = c.Close()
	}
}
