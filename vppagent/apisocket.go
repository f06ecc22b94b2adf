package vppagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// apiSocket is a connection to VPP's API, whose reader and writer block a thread each.
//
// VPP writes each of its replies by itself. Go's own connections are watched by its poller, which every such write wakes: while
// routes come by the hundred thousand, that takes both processes more time than the routes. A thread that sleeps is not woken,
// and finds a hundred replies at once afterwards; see transport.readLoop.
type apiSocket struct {
	fd int
	// order tells Go's memory model what it cannot know of two system calls: that a reply is read after its request was written.
	order atomic.Uint64
}

// roomPause is how long a full socket is left alone: VPP takes some 50 messages meanwhile, of the 900 that fit in.
const roomPause = 300 * time.Microsecond

// dialAPI connects to the unix socket at path; ctx bounds it, and what is read until unlimited.
func dialAPI(ctx context.Context, path string) (*apiSocket, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &apiSocket{fd: fd}
	left := writeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), 0)
	}
	limit := syscall.NsecToTimeval((left + 100*time.Millisecond).Nanoseconds()) // ctx ends first, and is the reason that is told
	err = errors.Join(
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit), // of connect, too
	)
	if err == nil {
		err = os.NewSyscallError("connect", retried(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}) }))
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// unlimited lets reads wait for ever.
func (s *apiSocket) unlimited() error {
	return syscall.SetsockoptTimeval(s.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{})
}

// Read implements io.Reader.
func (s *apiSocket) Read(b []byte) (n int, err error) {
	err = retried(func() error { n, err = syscall.Read(s.fd, b); return err })
	s.order.Load()
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements io.Writer. It does not wait in the kernel for room: there, each of VPP's replies would wake it.
func (s *apiSocket) Write(b []byte) (written int, err error) {
	began := time.Now()
	s.order.Add(1)
	for written < len(b) {
		var n int
		err = retried(func() error {
			n, err = syscall.SendmsgN(s.fd, b[written:], nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
			return err
		})
		switch {
		case errors.Is(err, syscall.EAGAIN) && time.Since(began) > writeTimeout:
			return written, os.ErrDeadlineExceeded
		case errors.Is(err, syscall.EAGAIN):
			nap(roomPause)
		case err != nil:
			return written, os.NewSyscallError("write", err)
		}
		written += max(n, 0)
	}
	return written, nil
}

// nap sleeps in the kernel, and not in Go's scheduler, whose poller everything wakes. A signal may end it early.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&t, nil)
}

func retried(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// shutdown ends the connection, and every read and write that is under way.
func (s *apiSocket) shutdown() { _ = syscall.Shutdown(s.fd, syscall.SHUT_RDWR) }

// close gives the descriptor back, when nobody reads or writes any more.
func (s *apiSocket) close() { _ = syscall.Close(s.fd) }
