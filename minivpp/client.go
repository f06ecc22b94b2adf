package minivpp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
)

// maxMessage is the longest request, bytes. The longest that there is, a route with 255 paths, has 43 KB.
const maxMessage = 1 << 20

// writeChunk is how much is handed to the kernel at once, bytes.
const writeChunk = 256 << 10

// limits of a client.
type limits struct {
	// highWater is how many bytes a client may leave unread before it is kept waiting: a dump does not go on, and its next
	// request is not looked at, until it has read some.
	highWater int
	// backlog is how many bytes may wait when an event comes. A client that leaves more unread is disconnected, because an
	// event cannot be held back and must not be dropped silently.
	backlog int
	// stall is how long a client may not read at all while something waits for it.
	stall time.Duration
}

var defaultLimits = limits{highWater: 16 << 20, backlog: 64 << 20, stall: 30 * time.Second}

var errSlow = errors.New("the client does not read")

// client is a connection to the API socket.
type client struct {
	srv  *Server
	conn *net.UnixConn
	log  *logrus.Entry
	ctx  context.Context // ends with the connection
	wg   sync.WaitGroup  // what runs on behalf of the client, such as pings

	// index is what the client must send as client_index: VPP's handle of a socket registration. Zero before
	// sockclnt_create.
	index uint32
	gone  bool // after sockclnt_delete: nothing more is read

	mu     sync.Mutex
	out    []byte // frames that wait for the writer
	err    error  // the first reason to give up
	jobs   int    // that run beside the reader
	wake   chan struct{}
	drains chan struct{} // signalled when out has been taken
}

// serveAPI talks to one client until it leaves, errs or ctx ends.
func (s *Server) serveAPI(ctx context.Context, conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	c := &client{
		srv: s, conn: conn, ctx: ctx, log: s.log,
		wake: make(chan struct{}, 1), drains: make(chan struct{}, 1),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	var writer sync.WaitGroup
	writer.Go(func() { c.write(ctx, cancel) })
	err := c.read()
	s.hub.forget(c)
	c.flush()
	// What has been answered still goes out, unless the client does not take it.
	cancel()
	writer.Wait()
	c.wg.Wait()
	if failure := c.failure(); failure != nil {
		err = failure
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		c.log.WithError(err).Info("API client disconnected")
	}
}

// read takes requests from the connection and works through them in order. Answers are collected while there is more to
// read, so that a client that sends many requests with one write gets the answers with few.
func (c *client) read() error {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	var buf []byte
	for !c.gone {
		if r.Buffered() < binapi.FrameHeader {
			c.flush()
		}
		var err error
		if buf, err = readFrame(r, buf); err != nil {
			if c.ctx.Err() != nil {
				return c.ctx.Err()
			}
			return err
		}
		c.dispatch(buf)
		if err := c.throttle(); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads one message into buf, which it may replace. A frame has 16 bytes before the message, of which only the
// length counts (msgbuf_t in VPP's src/vlibapi/api_common.h).
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	header, err := r.Peek(binapi.FrameHeader)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return buf, err
	}
	n := binary.BigEndian.Uint32(header[8:12])
	if n < 2 || n > maxMessage {
		return buf, fmt.Errorf("a message of %d bytes is announced", n)
	}
	_, _ = r.Discard(binapi.FrameHeader) // it is buffered
	buf = slices.Grow(buf[:0], int(n))[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, fmt.Errorf("reading a message of %d bytes: %w", n, err)
	}
	return buf, nil
}

// maxJobs is how many pings a client may have running.
const maxJobs = 16

// beside runs fn, which ends with the client's context, while the client's next requests are worked through.
// Errors: EAGAIN when too many such run.
func (c *client) beside(fn func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs >= maxJobs {
		return api.EAGAIN
	}
	c.jobs++
	c.wg.Go(func() {
		fn()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.jobs--
	})
	return nil
}

// dispatch serves one message. As in VPP, messages that are unknown, too short, or of another client are logged and
// dropped; the connection goes on.
func (c *client) dispatch(data []byte) {
	// Without this, a truncated message would be decoded with what an earlier one left behind it in the buffer.
	data = slices.Clip(data)
	id := binary.BigEndian.Uint16(data)
	m := c.srv.messages.byID[id]
	if m == nil || m.serve == nil {
		c.log.WithField("id", id).Warn("no handler for an API message")
		return
	}
	n := headerLen(m.proto)
	if len(data) < n {
		c.log.WithFields(logrus.Fields{"message": m.proto.GetMessageName(), "bytes": len(data)}).Warn("truncated API message dropped")
		return
	}
	var context uint32
	switch n {
	case 6:
		context = binary.BigEndian.Uint32(data[2:])
	case 10:
		context = binary.BigEndian.Uint32(data[6:])
		if index := binary.BigEndian.Uint32(data[2:]); index != c.index || index == 0 {
			c.log.WithField("message", m.proto.GetMessageName()).Warn("API message with another client's index dropped")
			return
		}
	}
	m.serve(c, context, data)
}

// decode reports whether data was a whole message.
func (c *client) decode(data []byte, m api.Message) bool {
	if err := codec.DecodeMsg(data, m); err != nil {
		c.log.WithFields(logrus.Fields{"message": m.GetMessageName(), "bytes": len(data)}).Warn("truncated API message dropped")
		return false
	}
	return true
}

// outgoing is a message that can be sent.
type outgoing interface {
	api.Message
	codec.Marshaler
}

// reply sends the answer to a request, with retval in its first field.
func (c *client) reply(context uint32, m outgoing, retval int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := len(c.out)
	c.appendLocked(context, m)
	if at := start + binapi.FrameHeader + headerLen(m); retval != 0 && len(c.out) >= at+4 {
		binary.BigEndian.PutUint32(c.out[at:], uint32(retval))
	}
}

// send sends a message. The context is the request's; for an event it is the client's index.
func (c *client) send(context uint32, m outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appendLocked(context, m)
}

// post sends an event. It never waits: a client that has too much unread is disconnected.
func (c *client) post(m outgoing) {
	c.mu.Lock()
	if len(c.out) > c.srv.limits.backlog {
		c.failLocked(errSlow)
		c.mu.Unlock()
		return
	}
	c.appendLocked(c.index, m)
	c.mu.Unlock()
	c.flush()
}

func (c *client) appendLocked(context uint32, m outgoing) {
	if c.err != nil {
		return
	}
	header, size := headerLen(m), m.Size()
	start := len(c.out)
	total := binapi.FrameHeader + header + size
	c.out = slices.Grow(c.out, total)[:start+total]
	frame := c.out[start:]
	clear(frame)
	binary.BigEndian.PutUint32(frame[8:], uint32(header+size))
	msg := frame[binapi.FrameHeader:]
	binary.BigEndian.PutUint16(msg, c.srv.messages.byType[reflect.TypeOf(m)])
	switch header {
	case 6:
		binary.BigEndian.PutUint32(msg[2:], context)
	case 10:
		binary.BigEndian.PutUint32(msg[2:], c.index)
		binary.BigEndian.PutUint32(msg[6:], context)
	}
	if _, err := m.Marshal(msg[header:]); err != nil {
		c.out = c.out[:start]
		c.failLocked(fmt.Errorf("encoding %s: %w", m.GetMessageName(), err))
	}
}

// flush lets the writer send what is waiting.
func (c *client) flush() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// throttle waits while the client has too much unread.
func (c *client) throttle() error {
	for {
		c.mu.Lock()
		waiting, err := len(c.out), c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return err
		case waiting > c.srv.limits.highWater:
			c.flush()
		case waiting > writeChunk:
			c.flush()
			return nil
		default:
			return nil
		}
		select {
		case <-c.drains:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// write sends what is waiting until ctx ends and nothing waits any more.
func (c *client) write(ctx context.Context, cancel context.CancelFunc) {
	var spare []byte
	for last := false; !last; {
		select {
		case <-c.wake:
		case <-ctx.Done():
			last = true
		}
		c.mu.Lock()
		batch := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		select {
		case c.drains <- struct{}{}:
		default:
		}
		for chunk := range slices.Chunk(batch, writeChunk) {
			// Once the server stops, a client that does not read at once does not hold it up.
			deadline := time.Now().Add(c.srv.limits.stall)
			if last {
				deadline = time.Now().Add(time.Second)
			}
			_ = c.conn.SetWriteDeadline(deadline)
			if _, err := c.conn.Write(chunk); err != nil {
				if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
					err = errSlow
				}
				c.mu.Lock()
				c.failLocked(err)
				c.mu.Unlock()
				cancel()
				return
			}
		}
		if spare = batch; cap(spare) > c.srv.limits.highWater {
			spare = nil // the memory of a big dump is not kept
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// failLocked remembers why the client is given up, and ends its reader.
func (c *client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		c.out = nil
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
