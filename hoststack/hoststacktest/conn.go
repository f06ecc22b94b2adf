package hoststacktest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// sendBuffer is how many bytes a connection holds that the other side has not read; a Write beyond it waits.
const sendBuffer = 256 << 10

// conn is one end of a connection. Both ends share the link, which holds up delivery while it is cut.
type conn struct {
	node          *Node
	link          *Link
	local, remote *net.TCPAddr
	other         *conn

	mu       sync.Mutex
	change   chan struct{} // closed and replaced at every change that a waiting call may wait for
	buf      []byte        // sent by the other end, not yet read
	eof      bool          // the other end was closed
	err      error         // the connection is dead
	closed   bool          // by us
	half     bool          // closed by us for writing
	gone     bool          // this end has forgotten the connection: what is sent to it is answered by a reset
	rby, wby time.Time
}

func newPair(l *Link) (a, b *conn) {
	a, b = &conn{link: l, change: make(chan struct{})}, &conn{link: l, change: make(chan struct{})}
	a.other, b.other = b, a
	return a, b
}

func (c *conn) changedLocked() {
	close(c.change)
	c.change = make(chan struct{})
}

// wait waits for a change, the link, or a deadline.
func wait(change, works <-chan struct{}, by time.Time) error {
	var expire <-chan time.Time
	if !by.IsZero() {
		d := time.Until(by)
		if d <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(d)
		defer t.Stop()
		expire = t.C
	}
	select {
	case <-change:
	case <-works:
	case <-expire:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *conn) Read(b []byte) (int, error) {
	for {
		works := c.link.works()
		c.mu.Lock()
		arrives := isClosed(works)
		switch {
		case c.closed:
			c.mu.Unlock()
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
		case !c.rby.IsZero() && !time.Now().Before(c.rby):
			c.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case arrives && len(c.buf) > 0:
			n := copy(b, c.buf)
			c.buf = c.buf[n:]
			c.mu.Unlock()
			c.other.poke()
			return n, nil
		case arrives && c.err != nil:
			c.mu.Unlock()
			return 0, c.err
		case arrives && c.eof:
			c.mu.Unlock()
			return 0, io.EOF
		}
		change, by := c.change, c.rby
		c.mu.Unlock()
		if arrives {
			works = nil
		}
		if err := wait(change, works, by); err != nil {
			return 0, err
		}
	}
}

func (c *conn) poke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changedLocked()
}

func (c *conn) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		arrives := isClosed(c.link.works())
		c.mu.Lock()
		change, by := c.change, c.wby
		var err error
		if arrives {
			err = c.err
		}
		switch {
		case c.closed:
			err = &net.OpError{Op: "write", Net: "tcp", Err: net.ErrClosed}
		case c.half:
			err = &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
		}
		c.mu.Unlock()
		if err != nil {
			return written, err
		}
		n, gone := c.other.deliver(b[written:])
		if gone {
			if arrives {
				c.reset()
			}
			return len(b), nil // as TCP: the answer comes later
		}
		written += n
		if n == 0 {
			if err := wait(change, nil, by); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// deliver appends what fits; gone says that this end knows no such connection.
func (c *conn) deliver(b []byte) (n int, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.closed {
		return 0, true
	}
	n = min(len(b), sendBuffer-len(c.buf))
	c.buf = append(c.buf, b[:n]...)
	c.changedLocked()
	return n, false
}

// reset makes this end dead, as by a RST from the other.
func (c *conn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = errReset
	}
	c.changedLocked()
}

// forget ends this side only.
func (c *conn) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone, c.closed = true, true
	c.changedLocked()
}

func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	unread := len(c.buf) > 0
	c.changedLocked()
	c.mu.Unlock()

	c.node.net.mu.Lock()
	delete(c.node.conns, c)
	c.node.net.mu.Unlock()

	if unread {
		c.other.reset() // as TCP: closing with unread data resets
		return nil
	}
	c.other.mu.Lock()
	defer c.other.mu.Unlock()
	c.other.eof = true
	c.other.changedLocked()
	return nil
}

// CloseWrite ends our half: the other end reads what was written and then the end.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return &net.OpError{Op: "close", Net: "tcp", Err: net.ErrClosed}
	}
	c.half = true
	c.changedLocked()
	c.mu.Unlock()
	c.other.mu.Lock()
	defer c.other.mu.Unlock()
	c.other.eof = true
	c.other.changedLocked()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rby, c.wby = t, t
	c.changedLocked()
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rby = t
	c.changedLocked()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wby = t
	c.changedLocked()
	return nil
}
