package memif

// The control channel: an AF_UNIX SOCK_SEQPACKET connection that carries 128-byte messages, some with one file
// descriptor. A conn is used by one goroutine; interrupt may come from any other and ends its wait with a cause.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// handshakeTime bounds the whole exchange from HELLO to CONNECTED. VPP answers on its main thread, which a
	// large dump can hold for seconds.
	handshakeTime = 10 * time.Second
	sendTime      = time.Second
	// maxPassed is how many descriptors one message can bring before the kernel cuts them off; one is expected.
	maxPassed = 4
)

var errHandshakeTime = errors.New("peer does not answer")

type conn struct {
	uc    *net.UnixConn
	cause atomic.Pointer[error]
}

func newConn(uc *net.UnixConn) *conn { return &conn{uc: uc} }

// interrupt ends the present and every later recv with cause. The first cause stays.
func (c *conn) interrupt(cause error) {
	if c.cause.CompareAndSwap(nil, &cause) {
		_ = c.uc.SetReadDeadline(time.Unix(1, 0)) // fails on a closed socket only: then nobody waits
	}
}

func (c *conn) interrupted() error {
	if p := c.cause.Load(); p != nil {
		return *p
	}
	return nil
}

func (c *conn) close() { _ = c.uc.Close() }

// send writes one message, with the descriptor fd unless it is negative. The descriptor stays the caller's.
func (c *conn) send(m message, fd int) error {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if err := c.uc.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("send %v: %w", m.kind(), err)
	}
	if _, _, err := c.uc.WriteMsgUnix(encode(m), oob, nil); err != nil {
		return fmt.Errorf("send %v: %w", m.kind(), err)
	}
	return nil
}

// recv reads one message. A zero deadline waits for ever. fd is -1, or a descriptor that is now the caller's.
func (c *conn) recv(deadline time.Time) (m message, fd int, err error) {
	if err := c.uc.SetReadDeadline(deadline); err != nil {
		return nil, -1, fmt.Errorf("receive: %w", err)
	}
	// After the deadline is set: an interrupt from now on moves it into the past again.
	if err := c.interrupted(); err != nil {
		return nil, -1, err
	}
	buf := make([]byte, messageSize+1)
	oob := make([]byte, unix.CmsgSpace(maxPassed*4)+unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := c.uc.ReadMsgUnix(buf, oob)
	fd, ferr := takeDescriptor(oob[:max(oobn, 0)], flags)
	if err == nil {
		err = ferr
	}
	if err == nil {
		m, err = decode(buf[:n])
	}
	if err == nil {
		return m, fd, nil
	}
	closeFD(fd)
	if cause := c.interrupted(); cause != nil {
		return nil, -1, cause
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errHandshakeTime
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		err = errPeerGone
	}
	return nil, -1, fmt.Errorf("receive: %w", err)
}

// takeDescriptor picks the one descriptor out of the ancillary data and closes any others, so that a peer cannot
// make us hold what we did not ask for.
func takeDescriptor(oob []byte, flags int) (int, error) {
	fd := -1
	var failed error
	if flags&unix.MSG_CTRUNC != 0 {
		failed = fmt.Errorf("%w: too many descriptors", errMessageSize)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, fmt.Errorf("ancillary data: %w", err)
	}
	for i := range cmsgs {
		fds, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			continue // credentials, when the peer asked for them
		}
		for _, got := range fds {
			if fd < 0 && failed == nil {
				fd = got
				continue
			}
			failed = fmt.Errorf("%w: more than one descriptor", errMessageSize)
			closeFD(got)
		}
	}
	if failed != nil {
		closeFD(fd)
		return -1, failed
	}
	return fd, nil
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// disconnect tells the peer why before the socket closes, unless the peer itself was the reason. Whether it hears it
// does not matter.
func (c *conn) disconnect(reason error) {
	var rejected *RejectedError
	if errors.As(reason, &rejected) || errors.Is(reason, errPeerGone) {
		return
	}
	_ = c.send(disconnectMessage{Reason: reason.Error()}, -1)
}
