//go:build linux && (amd64 || arm64) && !novcl

package hoststack

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// This file calls libvppcom, VPP's client library for its TCP, without cgo. Only what is needed, with the meaning that
// src/vcl/vppcom.h and vppcom.c of VPP 26.06 give it. The library keeps its state by thread: all calls are made on the thread
// that made the first one.
//
// With the build tag novcl the program has no part in this: purego makes it a dynamically linked one, which does not start
// where there is no glibc.

// Values of vppcom.h.
const (
	protoTCP        = 0
	attrNWrite      = 1 // VPPCOM_ATTR_GET_NWRITE
	attrLocalAddr   = 4 // VPPCOM_ATTR_GET_LCL_ADDR
	attrRemoteAddr  = 6 // VPPCOM_ATTR_GET_PEER_ADDR
	nonblocking     = unix.O_NONBLOCK
	shutdownWriting = unix.SHUT_WR
)

// endpoint is vppcom_endpt_t, with room for what other versions of it may hold more.
type endpoint struct {
	_    uint8
	ip4  uint8
	ip   *[16]byte
	port uint16 // in network order
	_    uint64
	_    [6]uint64
}

func endpointOf(ap netip.AddrPort) *endpoint {
	e := &endpoint{ip: new([16]byte), port: networkOrder(ap.Port())}
	if ap.Addr().Is4() {
		e.ip4 = 1
	}
	copy(e.ip[:], ap.Addr().AsSlice())
	return e
}

func (e *endpoint) addrPort() netip.AddrPort {
	if e.ip4 != 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.ip[:4])), networkOrder(e.port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(*e.ip), networkOrder(e.port))
}

// networkOrder swaps: both processors are little-endian.
func networkOrder(p uint16) uint16 { return p<<8 | p>>8 }

// vppcom is the loaded library. Functions return what the C ones do: a count or handle, or a negative errno.
type vppcom struct {
	appCreate        func(name string) int32
	sessionCreate    func(proto uint8, nonblocking uint8) int32
	sessionBind      func(sh uint32, ep *endpoint) int32
	sessionListen    func(sh uint32, backlog uint32) int32
	sessionAccept    func(sh uint32, ep *endpoint, flags uint32) int32
	sessionConnect   func(sh uint32, ep *endpoint) int32
	sessionRead      func(sh uint32, buf unsafe.Pointer, n uintptr) int32
	sessionWrite     func(sh uint32, buf unsafe.Pointer, n uintptr) int32
	sessionShutdown  func(sh uint32, how int32) int32
	sessionClose     func(sh uint32) int32
	sessionTerminate func(sh uint32) int32
	sessionAttr      func(sh, op uint32, buf unsafe.Pointer, n *uint32) int32
	sessionGetError  func(sh uint32) int32
	epollCreate      func() int32
	epollCtl         func(ep uint32, op int32, sh uint32, ev *unix.EpollEvent) int32
	epollWait        func(ep uint32, evs *unix.EpollEvent, n int32, ms float64) int32
	workerMQFD       func() int32
	workerIsDetached func() int32
}

// load opens the library and finds the functions.
func load(path string) (*vppcom, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("VPP's client library %s does not load: %w: %s", path, err, libraryCure)
	}
	v := new(vppcom)
	for _, f := range []struct {
		name string
		fn   any
	}{
		{"vppcom_app_create", &v.appCreate},
		{"vppcom_session_create", &v.sessionCreate},
		{"vppcom_session_bind", &v.sessionBind},
		{"vppcom_session_listen", &v.sessionListen},
		{"vppcom_session_accept", &v.sessionAccept},
		{"vppcom_session_connect", &v.sessionConnect},
		{"vppcom_session_read", &v.sessionRead},
		{"vppcom_session_write", &v.sessionWrite},
		{"vppcom_session_shutdown", &v.sessionShutdown},
		{"vppcom_session_close", &v.sessionClose},
		{"vppcom_session_terminate", &v.sessionTerminate},
		{"vppcom_session_attr", &v.sessionAttr},
		{"vppcom_session_get_error", &v.sessionGetError},
		{"vppcom_epoll_create", &v.epollCreate},
		{"vppcom_epoll_ctl", &v.epollCtl},
		{"vppcom_epoll_wait", &v.epollWait},
		{"vppcom_worker_mqs_epfd", &v.workerMQFD},
		{"vppcom_worker_is_detached", &v.workerIsDetached},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			real, _ := filepath.EvalSymlinks(path)
			return nil, fmt.Errorf("VPP's client library %s (%s) has no %s: it is of another version; VPP 26.06 has it", path, real, f.name)
		}
		purego.RegisterFunc(f.fn, symbol)
	}
	return v, nil
}

// errnoOf is the errno of a negative result.
func errnoOf(result int32) syscall.Errno { return syscall.Errno(-result) }

// address asks for one end of a session.
func (v *vppcom) address(sh uint32, attr uint32) (netip.AddrPort, error) {
	ep := &endpoint{ip: new([16]byte)}
	n := uint32(unsafe.Sizeof(*ep))
	if r := v.sessionAttr(sh, attr, unsafe.Pointer(ep), &n); r < 0 {
		return netip.AddrPort{}, errnoOf(r)
	}
	return ep.addrPort(), nil
}

// read returns 0 and nil at the end of the stream.
func (v *vppcom) read(sh uint32, buf []byte) (int, error) {
	r := v.sessionRead(sh, unsafe.Pointer(unsafe.SliceData(buf)), uintptr(len(buf)))
	if r < 0 {
		return 0, errnoOf(r)
	}
	return int(r), nil
}

func (v *vppcom) write(sh uint32, buf []byte) (int, error) {
	r := v.sessionWrite(sh, unsafe.Pointer(unsafe.SliceData(buf)), uintptr(len(buf)))
	if r < 0 {
		return 0, errnoOf(r)
	}
	return int(r), nil
}

// open reports whether a session is one that can be written to at all, now or later.
func (v *vppcom) open(sh uint32) bool { return v.sessionAttr(sh, attrNWrite, nil, nil) >= 0 }

// create makes a session that does not block.
func (v *vppcom) create() (uint32, error) {
	r := v.sessionCreate(protoTCP, 1)
	if r < 0 {
		return 0, errnoOf(r)
	}
	return uint32(r), nil
}

// Events of VCL's own epoll, edge-triggered: each is told once, and remembered by relay until a call says EAGAIN.
// Level-triggered, VCL would tell a session that waits for its other side again and again.
const sessionEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// watch adds a session to VCL's epoll, or sets its events again: VCL clears them when it tells that the peer has closed.
func (v *vppcom) watch(ep uint32, op int32, sh uint32, id uint64, events uint32) error {
	ev := &unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	if r := v.epollCtl(ep, op, sh, ev); r < 0 {
		return errnoOf(r)
	}
	return nil
}

func idOf(ev *unix.EpollEvent) uint64 { return uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32 }

// errDetached ends a helper: VPP has gone, or ended this application. VCL would attach again by itself, with sessions that
// are no more; a new process is simpler and the same in all cases.
var errDetached = errors.New("VPP has gone")
