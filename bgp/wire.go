package bgp

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// wire is one TCP connection with a neighbour, from dial or accept to its end. A neighbour may have two for a while: the
// one that it made and the one that we made. Which of them GoBGP gets is for peer.go.
type wire struct {
	conn   net.Conn
	dialed bool // we made it
	local  netip.Addr

	wmu sync.Mutex // a message is written whole

	// What the reader of the first message found; set once by the peer's goroutine when the reader reports.
	first    []byte
	open     *openInfo // nil if first is no OPEN
	openedAt time.Time // zero: nothing came yet
	failed   string    // why it ended before its first message was whole; "" while it lives
	sentOpen bool      // GoBGP's OPEN went out on it
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
	return &wire{conn: conn, dialed: dialed, local: addrOf(conn.LocalAddr())}
}

// readFirst waits for the peer's first message and reports it to done, once.
func (w *wire) readFirst(done func(first []byte, err error)) {
	_ = w.conn.SetReadDeadline(time.Now().Add(openWait)) // a connection without deadlines still ends with its peer
	first, err := readFirst(w.conn)
	if err == nil {
		_ = w.conn.SetReadDeadline(time.Time{})
	}
	done(first, err)
}

// send writes a message of ours.
func (w *wire) send(msg []byte) error {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(writeWait))
	_, err := w.conn.Write(msg)
	_ = w.conn.SetWriteDeadline(time.Time{})
	return err
}

// refuse ends the connection with a NOTIFICATION.
func (w *wire) refuse(code, subcode uint8, data []byte) {
	_ = w.send(notification(code, subcode, data)) // the peer may be gone, and then needs none
	w.close()
}

func (w *wire) close() { _ = w.conn.Close() }

// addrOf returns the address of a *net.TCPAddr, with its zone.
func addrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap()
}
