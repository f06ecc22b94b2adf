package hoststack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// client is a helper process from the router's side.
type client struct {
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	exitErr error         // how; set before
	stderr  *lines
	log     *logrus.Entry
	// accept is given each accepted connection, in a goroutine of its own. Set before run.
	accept func(ctx context.Context, l *vclListener, conn *vclConn, local, remote netip.AddrPort)

	gone chan struct{} // closed when the helper is of no use any more
	wg   sync.WaitGroup

	sendMu  sync.Mutex
	control *net.UnixConn

	mu        sync.Mutex
	dead      bool
	dials     map[uint64]*dialing
	conns     map[uint64]*vclConn
	listens   map[uint64]*listenCall
	listeners map[uint64]*vclListener
	accepting int // connections whose interface is being looked for
}

// dialing is a connect that VPP has not answered.
type dialing struct {
	id     uint64
	remote netip.AddrPort
	zone   string

	done  chan struct{} // closed when one of conn and err is set
	conn  *vclConn
	local netip.AddrPort
	err   error
}

func (d *dialing) isDone() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

type listenCall struct {
	l    *vclListener
	done chan error // one slot
}

// errHelperEnded is what connections and calls of a helper see that has ended.
var errHelperEnded = fmt.Errorf("%w: its helper ended", ErrNoHelper)

// stopTime is what a helper has to send what is on its way, and to end.
const stopTime = 4 * time.Second

func (c *client) pid() int { return c.cmd.Process.Pid }

// run takes the helper's messages until it ends, or ctx does. Then everything that depends on it ends.
func (c *client) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.control.CloseWrite() }) // the helper takes it for goodbye
	err := c.receive(ctx)
	stop()
	c.end()
	if ctx.Err() == nil && err != nil { // it talks nonsense, and may do worse
		_ = c.cmd.Process.Kill()
	}
	cancel()
	_ = c.control.Close()
	select {
	case <-c.exited:
	case <-time.After(stopTime):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	c.wg.Wait()
	if err == nil {
		err = c.exitReason()
	}
	return err
}

// exitReason is the helper's last words, or how its process ended.
func (c *client) exitReason() error {
	if last := c.stderr.last(); last != "" {
		return fmt.Errorf("VCL helper: %s", last)
	}
	select {
	case <-c.exited:
		if c.exitErr != nil {
			return fmt.Errorf("VCL helper: %w", c.exitErr)
		}
	default:
	}
	return errors.New("VCL helper: it has closed the control socket")
}

// receive returns nil at the end of the control socket, or says what is wrong with a message.
func (c *client) receive(ctx context.Context) error {
	b, oob := make([]byte, maxMessage), make([]byte, 256)
	for {
		n, oobn, flags, _, err := c.control.ReadMsgUnix(b, oob)
		if err != nil || n == 0 {
			return nil
		}
		m, fd, err := takeMessage(b[:n], oob[:oobn], flags)
		if err == nil {
			err = c.handle(ctx, m, fd)
		}
		if err != nil {
			return fmt.Errorf("VCL helper: %w", err)
		}
	}
}

// handle acts on a message, and takes fd over. IDs that are not known may be of what the router has given up meanwhile.
func (c *client) handle(ctx context.Context, m message, fd int) error {
	switch m.Op {
	case opConnected:
		return c.connected(m, fd)
	case opAccepted:
		return c.accepted(ctx, m, fd)
	case opFailed:
		return c.failed(m)
	case opListening:
		c.mu.Lock()
		call := c.listens[m.ID]
		delete(c.listens, m.ID)
		c.mu.Unlock()
		if call != nil {
			call.l.setAddr(m.Local)
			call.done <- nil
		}
	case opEnded:
		c.mu.Lock()
		conn := c.conns[m.ID]
		c.mu.Unlock()
		if conn != nil {
			conn.end(endError(m.Errno))
		}
	default:
		return fmt.Errorf("%w: unexpected %s", errProtocol, m.Op)
	}
	return nil
}

func (c *client) connected(m message, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dials[m.ID]
	if d == nil { // cancelled
		return syscall.Close(fd)
	}
	if d.remote != m.Remote || c.conns[m.ID] != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("%w: connected to %s instead of %s", errProtocol, m.Remote, d.remote)
	}
	delete(c.dials, m.ID)
	d.local = m.Local
	d.conn, d.err = c.addLocked(m, fd, d.zone)
	close(d.done)
	return nil
}

// addLocked makes a connection and keeps it, to be told how it ends, until it is closed.
func (c *client) addLocked(m message, fd int, zone string) (*vclConn, error) {
	conn, err := newVCLConn(fd, m.Local, m.Remote, zone, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.conns, m.ID)
	})
	if err != nil {
		return nil, err
	}
	c.conns[m.ID] = conn
	return conn, nil
}

func (c *client) accepted(ctx context.Context, m message, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.listeners[m.Listener]
	if l == nil || c.accepting >= backlog { // closed, or overwhelmed
		return syscall.Close(fd)
	}
	if c.conns[m.ID] != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("%w: connection %d is there twice", errProtocol, m.ID)
	}
	conn, err := c.addLocked(m, fd, "")
	if err != nil {
		return err
	}
	c.accepting++
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		c.accept(ctx, l, conn, m.Local, m.Remote)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.accepting--
	}()
	return nil
}

func (c *client) failed(m message) error {
	err := error(m.Errno)
	if m.Errno == 0 {
		return fmt.Errorf("%w: failure without an errno", errProtocol)
	}
	if m.Text != "" {
		err = fmt.Errorf("%w: %s", err, m.Text)
	}
	c.mu.Lock()
	d, call := c.dials[m.ID], c.listens[m.ID]
	delete(c.dials, m.ID)
	delete(c.listens, m.ID)
	delete(c.listeners, m.ID)
	c.mu.Unlock()
	if d != nil {
		d.err = err
		close(d.done)
	}
	if call != nil {
		call.done <- err
	}
	return nil
}

func endError(e syscall.Errno) error {
	if e == 0 {
		return io.EOF
	}
	return e
}

// end ends everything that depends on the helper.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	close(c.gone)
	for _, d := range c.dials {
		d.err = errHelperEnded
		close(d.done)
	}
	clear(c.dials)
	for _, call := range c.listens {
		call.done <- errHelperEnded
	}
	clear(c.listens)
	clear(c.listeners)
	for _, conn := range c.conns {
		conn.end(syscall.ECONNRESET)
	}
}

// send writes a message. The helper reads them at once, or it hangs.
func (c *client) send(m message) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if err := c.control.SetWriteDeadline(time.Now().Add(stopTime)); err != nil {
		return fmt.Errorf("%w: %w", errHelperEnded, err)
	}
	if _, err := c.control.Write(b); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = c.cmd.Process.Kill()
		}
		return fmt.Errorf("%w: %w", errHelperEnded, err)
	}
	return nil
}

// dial begins a connect.
func (c *client) dial(id uint64, table uint32, local, remote netip.AddrPort, zone string) (*dialing, error) {
	d := &dialing{id: id, remote: remote, zone: zone, done: make(chan struct{})}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return nil, errHelperEnded
	}
	c.dials[id] = d
	c.mu.Unlock()
	if err := c.send(message{Op: opDial, ID: id, Table: table, Local: local, Remote: remote}); err != nil {
		c.cancel(d)
		return nil, err
	}
	return d, nil
}

// wait returns the connection when VPP has answered.
func (c *client) wait(ctx context.Context, d *dialing) (net.Conn, error) {
	select {
	case <-d.done:
		if d.err != nil {
			return nil, d.err
		}
		return d.conn, nil
	case <-ctx.Done():
		c.cancel(d)
		return nil, ctx.Err()
	}
}

// cancel gives a connect up.
func (c *client) cancel(d *dialing) {
	c.mu.Lock()
	_, waiting := c.dials[d.id]
	delete(c.dials, d.id)
	c.mu.Unlock()
	switch {
	case waiting:
		_ = c.send(message{Op: opCancel, ID: d.id})
	case d.isDone() && d.conn != nil:
		_ = d.conn.Close()
	}
}

// listen has VPP listen, and waits for its answer.
func (c *client) listen(ctx context.Context, id uint64, table uint32, l *vclListener) error {
	call := &listenCall{l: l, done: make(chan error, 1)}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return errHelperEnded
	}
	c.listens[id], c.listeners[id] = call, l
	c.mu.Unlock()
	err := c.send(message{Op: opListen, ID: id, Table: table, Local: l.where()})
	if err == nil {
		select {
		case err = <-call.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil || l.isClosed() {
		c.unlisten(l)
	}
	return err
}

func (c *client) unlisten(l *vclListener) {
	c.mu.Lock()
	var ids []uint64
	for id, have := range c.listeners {
		if have == l {
			ids = append(ids, id)
			delete(c.listeners, id)
			delete(c.listens, id)
		}
	}
	dead := c.dead
	c.mu.Unlock()
	for _, id := range ids {
		if !dead {
			_ = c.send(message{Op: opClose, ID: id})
		}
	}
}
