package hoststack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is what the router and a VCL helper say to each other: one JSON message in each packet of a SOCK_SEQPACKET
// socket pair, and with two of them the router's end of a connection as a file descriptor (SCM_RIGHTS). The helper runs a
// library of another project in its address space, so the router checks what it says; a helper that says what it cannot
// mean is ended, and started anew.

// Environment of a helper.
const (
	envLibrary = "RLR_LIBVPPCOM"  // path of libvppcom.so
	envSocket  = "RLR_VCL_SOCKET" // of the app namespace
	envConfig  = "VCL_CONFIG"     // VCL's own: path of its configuration file
)

// op names a message.
type op string

// Messages. The first four go to the helper, the others come from it.
const (
	opDial   op = "dial"   // ID, Table, Local, Remote: connect; Local's port may be 0
	opCancel op = "cancel" // ID: nobody waits for this dial any more
	opListen op = "listen" // ID, Table, Local
	opClose  op = "close"  // ID of a listener

	opReady     op = "ready"     // the helper is attached to VPP
	opConnected op = "connected" // ID of the dial, Local, Remote, and a file descriptor
	opFailed    op = "failed"    // ID of the dial or listener, Errno, Text
	opListening op = "listening" // ID, Local
	opAccepted  op = "accepted"  // ID of the new connection, Listener, Local, Remote, and a file descriptor
	opEnded     op = "ended"     // ID of a connection: the peer sends no more; Errno 0 for a FIN
)

// message is any of them.
type message struct {
	Op       op             `json:"op"`
	ID       uint64         `json:"id,omitempty"`
	Listener uint64         `json:"listener,omitempty"`
	Table    uint32         `json:"table,omitempty"`
	Local    netip.AddrPort `json:"local,omitzero"`
	Remote   netip.AddrPort `json:"remote,omitzero"`
	Errno    syscall.Errno  `json:"errno,omitempty"`
	Text     string         `json:"text,omitempty"`
}

// acceptedID marks the numbers that the helper gives, for accepted connections. The router gives all others.
const acceptedID = uint64(1) << 63

const (
	maxMessage = 1024 // bytes
	maxText    = 300
)

// errProtocol is in the error of a message that cannot be meant.
var errProtocol = errors.New("malformed control message")

// encode returns a message's bytes. A long text is cut.
func (m message) encode() ([]byte, error) {
	if len(m.Text) > maxText {
		m.Text = m.Text[:maxText]
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMessage {
		err = fmt.Errorf("%w: %d bytes", errProtocol, len(b))
	}
	return b, err
}

// errnos that a helper may tell.
var errnos = []syscall.Errno{
	0, syscall.ECONNREFUSED, syscall.ETIMEDOUT, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE,
	syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.EIO, syscall.EINVAL,
}

// decode reads a message and checks what is in it, but not whether its ID is known.
func decode(b []byte) (message, error) {
	var m message
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return message{}, fmt.Errorf("%w: something follows it", errProtocol)
	}
	if err := m.check(); err != nil {
		return message{}, fmt.Errorf("%w: %s: %w", errProtocol, m.Op, err)
	}
	return m, nil
}

func (m *message) check() error {
	fromHelper := m.ID&acceptedID != 0
	switch m.Op {
	case opReady:
		return nil
	case opDial:
		return errors.Join(checkPair(m.Local, m.Remote), checkID(m.ID != 0 && !fromHelper))
	case opConnected:
		if !m.Local.IsValid() {
			return errors.New("no local address")
		}
		return errors.Join(checkPair(m.Local, m.Remote), checkID(m.ID != 0 && !fromHelper))
	case opAccepted:
		if !m.Local.IsValid() {
			return errors.New("no local address")
		}
		return errors.Join(checkPair(m.Local, m.Remote), checkID(fromHelper && m.Listener != 0 && m.Listener&acceptedID == 0))
	case opListen, opListening:
		if !m.Local.IsValid() || m.Local.Addr().Zone() != "" || m.Local.Addr().Is4In6() {
			return errors.New("no address to listen on")
		}
		return checkID(m.ID != 0 && !fromHelper)
	case opFailed:
		return errors.Join(checkErrno(m.Errno), checkID(m.ID != 0 && !fromHelper))
	case opEnded:
		return errors.Join(checkErrno(m.Errno), checkID(m.ID != 0))
	case opCancel, opClose:
		return checkID(m.ID != 0 && !fromHelper)
	}
	return errors.New("unknown message")
}

func checkID(ok bool) error {
	if !ok {
		return errors.New("impossible ID")
	}
	return nil
}

func checkErrno(e syscall.Errno) error {
	if !slices.Contains(errnos, e) {
		return fmt.Errorf("impossible errno %d", int(e))
	}
	return nil
}

// checkPair checks the ends of a connection; local may be absent.
func checkPair(local, remote netip.AddrPort) error {
	switch r, l := remote.Addr(), local.Addr(); {
	case !r.IsValid() || r.IsUnspecified() || remote.Port() == 0:
		return errors.New("no remote address")
	case r.Is4In6() || l.Is4In6() || r.Zone() != "" || l.Zone() != "":
		return errors.New("address is not in its plain form")
	case l.IsValid() && l.Is4() != r.Is4():
		return errors.New("addresses of two families")
	}
	return nil
}

// sendMessage writes a message to the control socket, with a file descriptor unless fd is negative. It waits while the
// socket is full.
func sendMessage(control int, m message, fd int) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(control, b, rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// takeMessage decodes a packet that was received with its ancillary data. Exactly the messages that need one come with a file
// descriptor: an open, connected unix stream socket. It is the caller's, or -1.
func takeMessage(b, oob []byte, flags int) (m message, fd int, err error) {
	fds, err := rightsOf(oob)
	defer func() {
		if err != nil {
			for _, f := range fds {
				_ = unix.Close(f)
			}
			fd = -1
		}
	}()
	if err != nil {
		return message{}, -1, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return message{}, -1, fmt.Errorf("%w: too long", errProtocol)
	}
	if m, err = decode(b); err != nil {
		return message{}, -1, err
	}
	needs := m.Op == opConnected || m.Op == opAccepted
	switch {
	case !needs && len(fds) == 0:
		return m, -1, nil
	case !needs || len(fds) != 1:
		return message{}, -1, fmt.Errorf("%w: %s with %d file descriptors", errProtocol, m.Op, len(fds))
	}
	if err := checkSocket(fds[0]); err != nil {
		return message{}, -1, fmt.Errorf("%w: %s: %w", errProtocol, m.Op, err)
	}
	return m, fds[0], nil
}

func rightsOf(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range scms {
		got, rerr := unix.ParseUnixRights(&scms[i])
		if rerr != nil {
			err = rerr
			continue
		}
		fds = append(fds, got...)
	}
	return fds, err
}

func checkSocket(fd int) error {
	for _, want := range []struct{ option, value int }{{unix.SO_DOMAIN, unix.AF_UNIX}, {unix.SO_TYPE, unix.SOCK_STREAM}} {
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option); err != nil || v != want.value {
			return errors.New("the file descriptor is no unix stream socket")
		}
	}
	return nil
}
