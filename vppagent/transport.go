package vppagent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
)

// transport is a govpp adapter for VPP's API socket. It differs from govpp's socketclient in what a router needs of it:
// messages that are sent while a write is under way leave together in the next one (one write a message halves the rate,
// see route.go); the end of the connection is a channel, at once, whatever ended it; and every wait has an end.
type transport struct {
	path     string
	name     string
	callback adapter.MsgCallback

	conn  *apiSocket
	in    *bufio.Reader
	index uint32 // VPP's name for us, part of each request
	table map[string]uint16

	mu    sync.Mutex
	room  *sync.Cond // out was taken by the writer, or the connection ended
	out   []byte     // framed messages that are not written yet
	err   error      // why it ended
	ready chan struct{}
	done  chan struct{}
	bulks atomic.Int32 // pipelines with many requests under way: replies are read by the hundred
	// closing gives the descriptor back, once.
	closing sync.Once
	wg      sync.WaitGroup
}

var _ adapter.VppAPI = (*transport)(nil)

const (
	connectTimeout = 5 * time.Second
	writeTimeout   = 30 * time.Second
	maxMessage     = 64 << 20 // a message from VPP, bytes; the longest are answers of the command line
	maxUnwritten   = 1 << 20  // bytes that may wait for the writer
	// replyPause is how long replies collect while there are many. VPP's socket has room for some 270 of them; those of a
	// millisecond and a half, at most.
	replyPause = 500 * time.Microsecond
)

// newTransport prepares a connection to the socket at path; name is what VPP's "show api clients" calls us.
func newTransport(path, name string) *transport {
	t := &transport{
		path: path, name: name, callback: func(uint16, []byte) {},
		ready: make(chan struct{}, 1), done: make(chan struct{}),
	}
	t.room = sync.NewCond(&t.mu)
	return t
}

// SetMsgCallback sets who gets the messages, from one goroutine, in the order in which they come. The data is valid during the
// call only. It must be set before Connect.
func (t *transport) SetMsgCallback(cb adapter.MsgCallback) { t.callback = cb }

// WaitReady is not needed: who connects tries again.
func (t *transport) WaitReady() error { return nil }

// Connect connects once; a transport is not used again after it has ended.
func (t *transport) Connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	return t.connect(ctx)
}

func (t *transport) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := dialAPI(ctx, t.path)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("connecting to VPP's API: %w", err)
	}
	t.in = bufio.NewReaderSize(conn, 64<<10)
	stop := context.AfterFunc(ctx, conn.shutdown)
	err = t.open(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = conn.unlimited()
	}
	if err != nil {
		conn.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("opening VPP's API at %s: %w", t.path, err)
	}
	t.conn = conn
	t.wg.Add(2)
	go func() { defer t.wg.Done(); t.fail(t.readLoop()) }()
	go func() { defer t.wg.Done(); t.fail(t.writeLoop()) }()
	return nil
}

// open registers with VPP, which answers with the id of each message.
func (t *transport) open(conn *apiSocket) error {
	msg, err := codec.EncodeMsg(&memclnt.SockclntCreate{Name: t.name}, binapi.SockclntCreateID)
	if err != nil {
		return err
	}
	if _, err := conn.Write(frame(nil, msg)); err != nil {
		return err
	}
	data, err := t.read(nil)
	if err != nil {
		return err
	}
	var reply memclnt.SockclntCreateReply
	if err := codec.DecodeMsg(data, &reply); err != nil {
		return fmt.Errorf("decoding %s: %w", reply.GetMessageName(), err)
	}
	if reply.Response != 0 {
		return fmt.Errorf("%s: VPP refused with %d", reply.GetMessageName(), reply.Response)
	}
	t.index = reply.Index
	t.table = make(map[string]uint16, len(reply.MessageTable))
	for _, e := range reply.MessageTable {
		name, _, _ := strings.Cut(e.Name, "\x00")
		t.table[name] = e.Index
	}
	return nil
}

// frame appends a message with its header to b.
func frame(b, msg []byte) []byte {
	var header [binapi.FrameHeader]byte
	binary.BigEndian.PutUint32(header[8:12], uint32(len(msg)))
	return append(append(b, header[:]...), msg...)
}

// read returns the next message, in buf if it fits.
func (t *transport) read(buf []byte) ([]byte, error) {
	var header [binapi.FrameHeader]byte
	if _, err := io.ReadFull(t.in, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[8:12])
	if n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	if int(n) > cap(buf) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(t.in, buf); err != nil {
		return nil, fmt.Errorf("message of %d bytes: %w", n, err)
	}
	return buf, nil
}

func (t *transport) readLoop() error {
	buf := make([]byte, 8<<10)
	for {
		if t.in.Buffered() == 0 && t.bulks.Load() > 0 {
			nap(replyPause)
		}
		msg, err := t.read(buf)
		if err != nil {
			return err
		}
		if len(msg) >= 2 {
			t.callback(binary.BigEndian.Uint16(msg), msg)
		}
	}
}

func (t *transport) writeLoop() error {
	var spare []byte
	for {
		select {
		case <-t.ready:
		case <-t.done:
			return nil
		}
		t.mu.Lock()
		b := t.out
		t.out = spare[:0]
		t.room.Broadcast()
		t.mu.Unlock()
		if len(b) == 0 {
			spare = b
			continue
		}
		if _, err := t.conn.Write(b); err != nil {
			return err
		}
		if spare = b; cap(spare) > maxUnwritten {
			spare = nil
		}
	}
}

// fail ends the connection; only the first reason counts.
func (t *transport) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	if err == nil {
		err = net.ErrClosed
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("VPP closed the connection")
	}
	t.err = err
	t.conn.shutdown()
	close(t.done)
	t.room.Broadcast()
}

// Done is closed when the connection has ended.
func (t *transport) Done() <-chan struct{} { return t.done }

// Err tells why, then.
func (t *transport) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Disconnect ends the connection and waits for its goroutines. VPP cleans up after a client whose socket closes.
func (t *transport) Disconnect() error {
	if t.conn == nil {
		return nil
	}
	t.fail(net.ErrClosed)
	t.wg.Wait()
	t.closing.Do(t.conn.close)
	return nil
}

// GetMsgID returns this VPP's id of a message; the error is *adapter.UnknownMsgError.
func (t *transport) GetMsgID(name, crc string) (uint16, error) {
	if id, ok := t.table[name+"_"+crc]; ok {
		return id, nil
	}
	return 0, &adapter.UnknownMsgError{MsgName: name, MsgCrc: crc}
}

// SendMsg queues an encoded request. It waits while much is unwritten.
func (t *transport) SendMsg(context uint32, data []byte) error {
	if len(data) < 10 {
		return fmt.Errorf("request of %d bytes", len(data))
	}
	binary.BigEndian.PutUint32(data[2:6], t.index)
	binary.BigEndian.PutUint32(data[6:10], context)
	t.mu.Lock()
	for len(t.out) > maxUnwritten && t.err == nil {
		t.room.Wait()
	}
	err := t.err
	if err == nil {
		t.out = frame(t.out, data)
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case t.ready <- struct{}{}:
	default:
	}
	return nil
}
