package bgp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// wire is one TCP connection with a neighbour, from dial or accept to its end. A neighbour may have two for a while: the
// one that it made and the one that we made. Which of them GoBGP gets is for peer.go.
type wire struct {
	conn   net.Conn
	dialed bool // we made it
	local  netip.Addr

	early []byte // the first message, where it was read before the neighbour was known

	wmu sync.Mutex // a message is written whole

	// What the reader of the first message found; set once by the peer's goroutine when the reader reports.
	first    []byte
	open     *openInfo // nil if first is no OPEN
	openedAt time.Time // zero: nothing came yet
	failed   string    // why it ended before its first message was whole; "" while it lives
	sentOpen bool      // GoBGP's OPEN went out on it

	extra   []byte        // what came after the first message; the reader's until reading is closed
	reading chan struct{} // closed when the reader has ended

	cmu     sync.Mutex
	parting bool          // part closes the connection
	letGo   chan struct{} // closed by close
}

const (
	// openWait is how long a connection may be silent before its OPEN is whole. RFC 4271 §8.2.2 suggests "a large value", 4
	// minutes; a tunnel that ate the rest of the handshake should cost less. It is longer than the time that GoBGP is Idle
	// after an error, because the peer may be another rlr that holds our connection for so long.
	openWait = 30 * time.Second
	// writeWait bounds the writing of a message by us: it fits in any send buffer, so only a dead stack makes it wait.
	writeWait = time.Second
)

func newWire(conn net.Conn, dialed bool) *wire {
	return &wire{conn: conn, dialed: dialed, local: addrOf(conn.LocalAddr()), reading: make(chan struct{}), letGo: make(chan struct{})}
}

// read waits for the peer's first message and reports it to opened, once. Then it looks whether the peer gives the connection
// up while it waits for its turn, and reports that to gone; take ends it.
func (w *wire) read(opened func(first []byte, err error), gone func(text string)) {
	defer close(w.reading)
	_ = w.conn.SetReadDeadline(time.Now().Add(openWait)) // a connection without deadlines still ends with its peer
	first, err := w.early, error(nil)
	if first == nil {
		first, err = readFirst(w.conn)
	}
	if err == nil {
		_ = w.conn.SetReadDeadline(time.Time{})
	}
	opened(first, err)
	buf := make([]byte, 512)
	for err == nil && len(w.extra) < maxOpenLen {
		var n int
		n, err = w.conn.Read(buf)
		w.extra = append(w.extra, buf[:n]...)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		gone(connErrorText(err))
	}
}

// take ends the reader and returns all that it has read. Only after opened was reported without an error.
func (w *wire) take() (first, extra []byte) {
	_ = w.conn.SetReadDeadline(time.Now())
	<-w.reading
	_ = w.conn.SetReadDeadline(time.Time{})
	return w.first, w.extra
}

// send writes a message of ours. The deadline also ends a write of GoBGP's that is stuck: whoever calls this ends the
// connection.
func (w *wire) send(msg []byte) error {
	_ = w.conn.SetWriteDeadline(time.Now().Add(writeWait))
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return w.writeLocked(msg)
}

// trySend writes a message of ours if nobody else is writing. If it fails the connection ends: the message may be there in
// part.
func (w *wire) trySend(msg []byte) {
	if !w.wmu.TryLock() {
		return
	}
	defer w.wmu.Unlock()
	if w.writeLocked(msg) != nil {
		w.close()
	}
}

// sendAlong writes a message of ours after the one that is being written; the connection goes on, if that works.
func (w *wire) sendAlong(msg []byte) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.writeLocked(msg) != nil {
		w.close()
	}
}

func (w *wire) writeLocked(msg []byte) error {
	_ = w.conn.SetWriteDeadline(time.Now().Add(writeWait))
	_, err := w.conn.Write(msg)
	_ = w.conn.SetWriteDeadline(time.Time{})
	return err
}

// refuse ends a connection that GoBGP does not have with a NOTIFICATION. The peer's OPEN may lie unread in the stack, and
// closing then would be a reset, which may overtake the NOTIFICATION: so what the peer sends is read until it closes too, for
// a while, in a goroutine of work.
func (w *wire) refuse(work *sync.WaitGroup, code, subcode uint8, data []byte) {
	_ = w.send(notification(code, subcode, data)) // the peer may be gone, and then needs none
	half, ok := w.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		w.close()
		return
	}
	work.Go(func() {
		_ = w.conn.SetReadDeadline(time.Now().Add(writeWait))
		_, _ = io.Copy(io.Discard, w.conn) // any end will do
		w.close()
	})
}

// hold makes close leave the connection to part, which must follow. It reports whether it is the first to do so.
func (w *wire) hold() bool {
	w.cmu.Lock()
	defer w.cmu.Unlock()
	first := !w.parting
	w.parting = true
	return first
}

func (w *wire) isParting() bool {
	w.cmu.Lock()
	defer w.cmu.Unlock()
	return w.parting
}

// part ends a connection that GoBGP has with a NOTIFICATION, and wakes GoBGP's reader. The stack has that message still to send,
// and where the router ends, what carries its packets ends soon after: so the connection stays until the peer has closed it too,
// for a while, in a goroutine of work, which reads what still comes once GoBGP reads no more.
func (w *wire) part(work *sync.WaitGroup, notification []byte) {
	_ = w.conn.SetReadDeadline(time.Now())
	_ = w.send(notification) // the peer may be gone, and then needs none
	half, ok := w.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		_ = w.conn.Close()
		return
	}
	until := time.Now().Add(writeWait)
	work.Go(func() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		select {
		case <-w.letGo:
			_ = w.conn.SetReadDeadline(until)
			_, _ = io.Copy(io.Discard, w.conn) // any end will do
		case <-t.C:
		}
		_ = w.conn.Close()
	})
}

func (w *wire) close() {
	w.cmu.Lock()
	defer w.cmu.Unlock()
	select {
	case <-w.letGo:
	default:
		close(w.letGo)
	}
	if !w.parting {
		_ = w.conn.Close()
	}
}

// addrOf returns the address of a *net.TCPAddr, with its zone.
func addrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap()
}
