//go:build linux && (amd64 || arm64) && !novcl

package hoststack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the VCL helper: a process that the router starts from its own executable. It owns one attachment to VPP's
// session layer, and passes each TCP connection as one end of a socket pair to the router.
//
// One thread does everything: VCL's calls belong to a thread, and what there is to do is moving bytes. It sleeps in one epoll
// of the kernel, in which VCL's own (an epoll of event fds) is one descriptor beside the sockets, so that an idle helper
// costs nothing.

const (
	controlFD  = 3                // the control socket
	helperName = "rlr"            // as VPP's "show app" has it
	flushTime  = 2 * time.Second  // for what is still on its way when the router closes the control socket
	lingerTime = 30 * time.Second // for a peer to take what was written before a close
	blockedFor = 100 * time.Millisecond
)

// HelperMain is the helper process. It returns when the router has closed the control socket, or with the reason why the
// helper is of no use any more: VPP has gone, or the library is not what it should be. The caller exits then.
func HelperMain() error {
	runtime.LockOSThread()
	if err := unix.SetNonblock(controlFD, false); err != nil {
		return fmt.Errorf("no control socket: this command is for the router's own use: %w", err)
	}
	unix.CloseOnExec(controlFD)
	lib, err := load(os.Getenv(envLibrary))
	if err != nil {
		return err
	}
	if err := exitWithVPP(os.Getenv(envSocket)); err != nil {
		return err
	}
	if r := lib.appCreate(helperName); r != 0 {
		return fmt.Errorf("attach to VPP at %s: VCL says %w; is the session layer enabled with use-app-socket-api?", os.Getenv(envSocket), errnoOf(r))
	}
	h := &helper{
		lib: lib, relays: make(map[uint64]*relay), byFD: make(map[int32]*relay), listeners: make(map[uint64]*listening),
		scratch: make([]byte, 64<<10), events: make([]unix.EpollEvent, 128),
	}
	if err := h.begin(); err != nil {
		return err
	}
	return h.loop()
}

// exitWithVPP ends the process when VPP goes. VCL sees that too, but sleeps for a second before it says so, and may meanwhile
// wait for ever for room in a queue that nobody reads. So a connection of our own to the same socket is watched.
func exitWithVPP(path string) error {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("VPP's application socket: %w", err)
	}
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		fmt.Fprintln(os.Stderr, errDetached)
		os.Exit(1)
	}()
	return nil
}

// helper is the state of the one thread.
type helper struct {
	lib       *vppcom
	vep       uint32 // VCL's epoll
	epoll     int    // the kernel's
	relays    map[uint64]*relay
	byFD      map[int32]*relay
	listeners map[uint64]*listening
	accepts   uint64 // number of the latest accepted connection
	busy      []*relay
	scratch   []byte
	events    []unix.EpollEvent // VCL's
	closing   time.Time         // zero until the router has closed the control socket
}

// listening is a listener of VPP's.
type listening struct {
	id uint64
	sh uint32
}

func (h *helper) begin() (err error) {
	r := h.lib.epollCreate()
	if r < 0 {
		return fmt.Errorf("VCL's epoll: %w", errnoOf(r))
	}
	h.vep = uint32(r)
	mqs := h.lib.workerMQFD()
	if mqs < 0 {
		return fmt.Errorf("VCL has no event descriptor: %s lacks use-mq-eventfd", os.Getenv(envConfig))
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, fd := range []int32{mqs, controlFD} {
		if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd}); err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
	}
	return h.send(message{Op: opReady}, -1)
}

func (h *helper) send(m message, fd int) error { return sendMessage(controlFD, m, fd) }

// loop runs until the router or VPP has gone.
func (h *helper) loop() error {
	events := make([]unix.EpollEvent, 64)
	for {
		if err := h.vclEvents(); err != nil {
			return err
		}
		if err := h.work(); err != nil {
			return err
		}
		wait, done := h.patience()
		if done {
			return nil
		}
		n, err := unix.EpollWait(h.epoll, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		if n == 0 && wait > 0 {
			h.retryBlocked()
		}
		for i := range max(n, 0) {
			if err := h.kernelEvent(events[i]); err != nil {
				return err
			}
		}
	}
}

// patience returns how many milliseconds to sleep at most, -1 for ever; done means that nothing is left to do.
func (h *helper) patience() (ms int, done bool) {
	if len(h.busy) > 0 {
		return 0, false
	}
	blocked := false
	now := time.Now()
	for _, r := range h.relays {
		blocked = blocked || r.blocked()
		if !r.deadline.IsZero() && now.After(r.deadline) {
			h.terminate(r)
		}
	}
	if !h.closing.IsZero() {
		if len(h.relays) == 0 || now.After(h.closing) {
			return 0, true
		}
		blocked = true
	}
	if blocked {
		return int(blockedFor.Milliseconds()), false
	}
	return -1, false
}

func (h *helper) retryBlocked() {
	for _, r := range h.relays {
		if len(r.up) > 0 {
			r.vclWritable = true
			h.mark(r)
		}
	}
}

func (h *helper) kernelEvent(ev unix.EpollEvent) error {
	if ev.Fd == controlFD {
		return h.control()
	}
	r := h.byFD[ev.Fd]
	if r == nil {
		return nil // VCL's: looked at in any case
	}
	if ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.fdReadable = true
	}
	if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.fdWritable = true
	}
	if ev.Events&unix.EPOLLHUP != 0 {
		r.routerClosed = true
	}
	h.mark(r)
	return nil
}

// mark has a relay looked at by work.
func (h *helper) mark(r *relay) {
	if !r.marked {
		r.marked = true
		h.busy = append(h.busy, r)
	}
}

// work moves bytes, a bounded number for each relay in turn.
func (h *helper) work() error {
	todo := h.busy
	h.busy = nil
	for _, r := range todo {
		r.marked = false
		if r.gone {
			continue
		}
		more, err := h.pump(r)
		if err != nil {
			return err
		}
		if more {
			h.mark(r)
		}
	}
	return nil
}

// vclEvents takes all events of VCL's.
func (h *helper) vclEvents() error {
	events := h.events
	for {
		n := h.lib.epollWait(h.vep, &events[0], int32(len(events)), 0)
		if h.lib.workerIsDetached() == 1 {
			return errDetached
		}
		if n < 0 {
			return fmt.Errorf("VCL's epoll: %w", errnoOf(n))
		}
		if n == 0 {
			return nil
		}
		for i := range events[:n] {
			if err := h.vclEvent(idOf(&events[i]), events[i].Events); err != nil {
				return err
			}
		}
	}
}

func (h *helper) vclEvent(id uint64, events uint32) error {
	if l := h.listeners[id]; l != nil {
		return h.accept(l)
	}
	r := h.relays[id]
	if r == nil {
		return nil
	}
	if r.connecting {
		return h.connected(r, events)
	}
	if events&unix.EPOLLIN != 0 {
		r.vclReadable = true
	}
	if events&unix.EPOLLOUT != 0 {
		r.vclWritable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.vclReadable, r.vclWritable = true, true // a call tells what it is
		r.drain = true
		if err := h.lib.watch(h.vep, unix.EPOLL_CTL_MOD, r.sh, r.id, unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
			return fmt.Errorf("VCL's epoll: %w", err)
		}
	}
	h.mark(r)
	return nil
}

// control takes one message of the router's.
func (h *helper) control() error {
	b := make([]byte, maxMessage)
	n, err := unix.Read(controlFD, b)
	switch {
	case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("control socket: %w", err)
	case n <= 0: // the router has gone, or has no use for us any more
		h.closing = time.Now().Add(flushTime)
		return os.NewSyscallError("epoll_ctl", unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, controlFD, nil))
	}
	m, err := decode(b[:n])
	if err != nil {
		return err
	}
	switch m.Op {
	case opDial:
		return h.dial(m)
	case opCancel:
		if r := h.relays[m.ID]; r != nil && r.connecting {
			r.cancelled = true // the session can be closed only when VPP has answered, or VCL never frees it
		}
	case opListen:
		return h.listen(m)
	case opClose:
		return h.closeListener(m.ID)
	}
	return nil
}

func (h *helper) failed(id uint64, errno syscall.Errno, text string) error {
	return h.send(message{Op: opFailed, ID: id, Errno: errno, Text: text}, -1)
}

func (h *helper) dial(m message) error {
	sh, err := h.lib.create()
	if err != nil {
		return h.failed(m.ID, syscall.ENOBUFS, "create: "+err.Error())
	}
	fail := func(what string, result int32) error {
		h.lib.sessionClose(sh)
		return h.failed(m.ID, syscall.EIO, what+": "+errnoOf(result).Error())
	}
	if m.Local.IsValid() {
		if r := h.lib.sessionBind(sh, endpointOf(m.Local)); r < 0 {
			return fail("bind", r)
		}
	}
	if err := h.lib.watch(h.vep, unix.EPOLL_CTL_ADD, sh, m.ID, sessionEvents); err != nil {
		h.lib.sessionClose(sh)
		return h.failed(m.ID, syscall.EIO, "epoll: "+err.Error())
	}
	if r := h.lib.sessionConnect(sh, endpointOf(m.Remote)); r < 0 && errnoOf(r) != syscall.EINPROGRESS {
		return fail("connect", r)
	}
	h.relays[m.ID] = &relay{id: m.ID, sh: sh, fd: -1, connecting: true, began: time.Now(), remote: m.Remote}
	return nil
}

// connected handles VPP's answer to a connect.
func (h *helper) connected(r *relay, events uint32) error {
	r.connecting = false
	if events&unix.EPOLLHUP != 0 || !h.lib.open(r.sh) {
		errno := h.connectError(r)
		h.drop(r)
		if r.cancelled {
			return nil
		}
		return h.failed(r.id, errno, "")
	}
	if r.cancelled {
		h.drop(r)
		return nil
	}
	local, err := h.lib.address(r.sh, attrLocalAddr)
	if err != nil {
		h.drop(r)
		return h.failed(r.id, syscall.EIO, "local address: "+err.Error())
	}
	return h.hand(r, message{Op: opConnected, ID: r.id, Local: local, Remote: r.remote})
}

// connectError says why a connect failed. VCL keeps VPP's reason, but tells only some of them: what is neither a refusal nor
// a port in use may be that there is no route, no interface or no source address, which VPP knows at once, or that nobody
// answered, which takes seconds.
func (h *helper) connectError(r *relay) syscall.Errno {
	switch e := errnoOf(h.lib.sessionGetError(r.sh)); {
	case e == syscall.ECONNREFUSED || e == syscall.EADDRINUSE:
		return e
	case time.Since(r.began) < time.Second:
		return syscall.ENETUNREACH
	}
	return syscall.ETIMEDOUT
}

// hand gives the router its end of a new connection.
func (h *helper) hand(r *relay, m message) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.terminate(r)
		if m.Op == opAccepted {
			return nil
		}
		return h.failed(r.id, syscall.ENOBUFS, "socketpair: "+err.Error())
	}
	defer unix.Close(pair[1])
	r.fd = pair[0]
	r.fdWritable, r.vclReadable, r.vclWritable = true, true, true // or a call says EAGAIN
	h.relays[r.id], h.byFD[int32(r.fd)] = r, r
	events := uint32(unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET)
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, r.fd, &unix.EpollEvent{Events: events, Fd: int32(r.fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	h.mark(r)
	return h.send(m, pair[1])
}

func (h *helper) listen(m message) error {
	sh, err := h.lib.create()
	if err != nil {
		return h.failed(m.ID, syscall.ENOBUFS, "create: "+err.Error())
	}
	r := h.lib.sessionBind(sh, endpointOf(m.Local))
	if r >= 0 {
		r = h.lib.sessionListen(sh, 128)
	}
	if r < 0 {
		h.lib.sessionClose(sh)
		errno := errnoOf(r)
		if errno != syscall.EADDRINUSE {
			errno = syscall.EADDRNOTAVAIL // VCL calls every other refusal ECONNREFUSED
		}
		return h.failed(m.ID, errno, "")
	}
	l := &listening{id: m.ID, sh: sh}
	h.listeners[m.ID] = l
	if err := h.lib.watch(h.vep, unix.EPOLL_CTL_ADD, sh, m.ID, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return fmt.Errorf("VCL's epoll: %w", err)
	}
	local, err := h.lib.address(sh, attrLocalAddr)
	if err != nil {
		local = m.Local
	}
	if err := h.send(message{Op: opListening, ID: m.ID, Local: local}, -1); err != nil {
		return err
	}
	return h.accept(l)
}

// accept takes all connections that wait.
func (h *helper) accept(l *listening) error {
	for {
		ep := endpointOf(netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
		r := h.lib.sessionAccept(l.sh, ep, nonblocking)
		switch errno := errnoOf(r); {
		case r >= 0:
		case errno == syscall.ECONNABORTED:
			continue
		default: // EAGAIN
			return nil
		}
		if err := h.accepted(l, uint32(r), ep.addrPort()); err != nil {
			return err
		}
	}
}

func (h *helper) accepted(l *listening, sh uint32, remote netip.AddrPort) error {
	h.accepts++
	r := &relay{id: acceptedID | h.accepts, sh: sh, fd: -1, remote: remote}
	local, err := h.lib.address(sh, attrLocalAddr)
	if err == nil {
		err = h.lib.watch(h.vep, unix.EPOLL_CTL_ADD, sh, r.id, sessionEvents)
	}
	if err != nil || !h.closing.IsZero() {
		h.drop(r)
		return nil
	}
	return h.hand(r, message{Op: opAccepted, ID: r.id, Listener: l.id, Local: local, Remote: remote})
}

// closeListener refuses what still waits to be accepted by closing it: VCL's own way of refusing uses a queue that a listener
// does not have. A connection that VPP announces later, in the moment of its closing the listener, is one that VCL ignores:
// it hangs until the peer or this process ends.
func (h *helper) closeListener(id uint64) error {
	l := h.listeners[id]
	if l == nil {
		return nil
	}
	for {
		r := h.lib.sessionAccept(l.sh, nil, nonblocking)
		if r >= 0 {
			h.lib.sessionClose(uint32(r))
		} else if errnoOf(r) != syscall.ECONNABORTED {
			break
		}
	}
	h.lib.sessionClose(l.sh)
	delete(h.listeners, id)
	return nil
}

// drop forgets a relay and closes its session, with a FIN after what was written.
func (h *helper) drop(r *relay) {
	h.discard(r)
	h.lib.sessionClose(r.sh)
	h.forget(r)
}

// discard reads what came and nobody wants, because VPP answers a close with unread data by a reset, which might overtake
// what we wrote last.
func (h *helper) discard(r *relay) {
	for range 64 { // a fifo's length, and no more of one who goes on sending
		if n, err := h.lib.read(r.sh, h.scratch); n == 0 || err != nil {
			return
		}
	}
}

// terminate forgets a relay and resets its connection.
func (h *helper) terminate(r *relay) {
	if !r.closed {
		h.lib.sessionTerminate(r.sh)
		h.lib.sessionClose(r.sh)
	}
	h.forget(r)
}

func (h *helper) forget(r *relay) {
	r.gone = true
	if r.fd >= 0 {
		delete(h.byFD, int32(r.fd))
		_ = unix.Close(r.fd)
	}
	delete(h.relays, r.id)
}
