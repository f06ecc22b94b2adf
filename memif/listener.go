package memif

// Listening sockets. Masters with the same path share one, told apart by their IDs, as in VPP; so this is the
// package's one piece of process-wide state. The socket file is 0600 from its first moment. A file that nobody
// listens on is a left-over of a crash and is replaced; a live one, or something that is no socket, is an error.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var listeners = registry{byPath: map[string]*listener{}}

type registry struct {
	mu     sync.Mutex
	byPath map[string]*listener
}

// handOver is how long a new connection waits for the interface's old one to be noticed as dead.
const handOver = 250 * time.Millisecond

// maxPending is how many connections may be before INIT at once.
const maxPending = 64

type listener struct {
	path   string
	ln     *net.UnixListener
	file   os.FileInfo // the socket file that we made; nil in the abstract namespace
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu   sync.Mutex
	byID map[uint32]*Interface
}

// queues is what HELLO, which comes before the slave says which interface it wants, can promise for any of them.
func (l *listener) queues() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := maxQueues
	for _, i := range l.byID {
		n = min(n, i.cfg.Queues)
	}
	return n
}

// join finds or makes the listener of i's path and adds i to it.
func (r *registry) join(i *Interface) (*listener, error) {
	path := i.cfg.Socket
	if path[0] != '@' {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		path = abs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byPath[path]
	if l == nil {
		var err error
		// The path as given: it may be short enough for the kernel where the absolute one is not.
		if l, err = listen(i.cfg.Socket); err != nil {
			return nil, err
		}
		l.path = path
		r.byPath[path] = l
		l.wg.Go(l.accept)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID[i.cfg.ID] != nil {
		return nil, fmt.Errorf("socket %s already has an interface with id %d", path, i.cfg.ID)
	}
	l.byID[i.cfg.ID] = i
	return l, nil
}

// leave takes i off; the last one closes the socket and waits for the goroutines.
func (r *registry) leave(l *listener, i *Interface) {
	r.mu.Lock()
	l.mu.Lock()
	delete(l.byID, i.cfg.ID)
	last := len(l.byID) == 0
	l.mu.Unlock()
	if last {
		delete(r.byPath, l.path)
		l.cancel()
		l.removeFile()
		l.ln.Close()
	}
	r.mu.Unlock()
	if last {
		l.wg.Wait()
	}
}

// removeFile removes the socket file, unless somebody has put another in its place.
func (l *listener) removeFile() {
	if l.file == nil {
		return
	}
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		_ = os.Remove(l.path)
	}
}

// listen binds path. Whoever else tests and replaces left-over sockets in this folder does it under the same lock.
func listen(path string) (*listener, error) {
	unlock := lockFolder(path)
	defer unlock()
	ln, err := bind(path)
	if errors.Is(err, unix.EADDRINUSE) && path[0] != '@' {
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
		ln, err = bind(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Unwrap(err))
	}
	ln.SetUnlinkOnClose(false) // removeFile does it, when the file is ours
	l := &listener{ln: ln, byID: map[uint32]*Interface{}, slots: make(chan struct{}, maxPending)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if path[0] != '@' {
		if l.file, err = os.Lstat(path); err != nil {
			ln.Close()
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	return l, nil
}

// bind makes the socket. The mode of an unbound socket is the mode that its file gets.
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if cerr := rc.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := lc.Listen(context.Background(), "unixpacket", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

var errInUse = errors.New("in use by another process")

// removeStale removes a socket file that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return errors.New("exists and is not a socket")
	}
	nc, err := net.Dial("unixpacket", path)
	switch {
	case err == nil:
		nc.Close()
		return errInUse
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, unix.EPROTOTYPE): // a socket of another kind: somebody's, alive
		return errInUse
	default:
		return err
	}
}

// lockFolder serialises the replacing of sockets between processes. Where it cannot be had within a second (abstract
// sockets, a folder that may not be read, a stranger who holds it), one goes without.
func lockFolder(path string) (unlock func()) {
	if path[0] == '@' {
		return func() {}
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {}
	}
	for range 100 {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() { folder.Close() }
}

// accept takes connections until the listener is closed.
func (l *listener) accept() {
	for {
		uc, err := l.ln.AcceptUnix()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			select { // out of descriptors, most likely
			case <-l.ctx.Done():
				return
			case <-time.After(retryMost):
			}
			continue
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			uc.Close()
			return
		}
		l.wg.Go(func() {
			defer func() { <-l.slots }()
			l.greet(newConn(uc))
		})
	}
}

// greet leads a connection to its interface, or tells it why not.
func (l *listener) greet(c *conn) {
	stop := context.AfterFunc(l.ctx, func() { c.interrupt(errShutdown) })
	defer stop()
	cand, err := hello(c, l.queues())
	if err == nil {
		err = l.deliver(cand)
	}
	if err != nil {
		c.disconnect(err)
		c.close()
	}
}

func (l *listener) deliver(cand *candidate) error {
	l.mu.Lock()
	i := l.byID[cand.init.ID]
	l.mu.Unlock()
	if i == nil {
		return fmt.Errorf("unmatched interface id %d", cand.init.ID)
	}
	timer := time.NewTimer(handOver)
	defer timer.Stop()
	select {
	case i.incoming <- cand:
		return nil
	case <-timer.C:
		return errors.New("already connected")
	case <-i.done:
		return errShutdown
	case <-l.ctx.Done():
		return errShutdown
	}
}
