//go:build linux && (amd64 || arm64) && !novcl

package hoststack

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relay joins a session of VPP's to the router's socket. What one side does not take is kept, and the other side is not read
// meanwhile: so each side's own flow control reaches the other.
type relay struct {
	id     uint64
	sh     uint32
	remote netip.AddrPort
	fd     int // our end of the socket pair; -1 while there is none

	connecting bool
	cancelled  bool // nobody waits for the connect
	began      time.Time

	// From VPP to the router.
	down        []byte // read, and not yet written
	vclReadable bool
	fdWritable  bool
	drain       bool // the peer has closed: VPP drops what it still holds for us when it loses patience, so take it all
	ended       bool // the peer sends no more, and the router knows
	endWritten  bool // and its socket says so

	// From the router to VPP.
	up           []byte
	fdReadable   bool
	vclWritable  bool
	upEnded      bool // the router sends no more
	shut         bool // and VPP knows
	routerClosed bool // the router has closed its end altogether

	reset    bool // the session is no more
	closed   bool // by us: VCL's handle is not to be used any more
	marked   bool // in helper.busy
	gone     bool
	deadline time.Time // for the peer to take the rest, once the router has closed
}

const (
	// pumpRounds bounds what one relay may move in its turn.
	pumpRounds = 16
	// drainLimit bounds what is kept of a peer that has closed: more than a fifo holds.
	drainLimit = 4 << 20
)

// blocked reports that a relay waits for VPP to take data, or for a deadline. VPP tells when there is room in a fifo that was
// full, but not when it had no memory to make the fifo longer: so blocked ones are tried again now and then.
func (r *relay) blocked() bool { return len(r.up) > 0 || !r.deadline.IsZero() }

// pump moves what can be moved; more says that it stopped for the sake of the others.
func (h *helper) pump(r *relay) (more bool, err error) {
	for range pumpRounds {
		down, err := h.pumpDown(r)
		if err != nil {
			return false, err
		}
		up, err := h.pumpUp(r)
		if err != nil {
			return false, err
		}
		if !down && !up {
			h.settle(r)
			return false, nil
		}
	}
	return true, nil
}

// pumpDown makes one step from VPP to the router.
func (h *helper) pumpDown(r *relay) (moved bool, err error) {
	if len(r.down) > 0 && r.fdWritable && !r.routerClosed {
		n := r.toRouter(r.down)
		moved = n > 0
		if r.down = r.down[n:]; len(r.down) == 0 {
			r.down = nil
		}
	}
	if !r.vclReadable || r.ended || len(r.down) > 0 && (!r.drain || len(r.down) > drainLimit) {
		return moved, nil
	}
	n, err := h.lib.read(r.sh, h.scratch)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		r.vclReadable = false
		return moved, nil
	case err != nil: // ECONNRESET, or ENOTCONN when VPP has forgotten the session
		return true, h.lost(r)
	case n == 0:
		r.ended = true
		return true, h.send(message{Op: opEnded, ID: r.id}, -1)
	case r.routerClosed:
		return true, nil
	}
	rest := h.scratch[:n]
	if len(r.down) == 0 && r.fdWritable {
		rest = rest[r.toRouter(rest):]
	}
	r.down = append(r.down, rest...)
	return true, nil
}

// toRouter writes to the router's socket, and returns how much it took.
func (r *relay) toRouter(b []byte) int {
	n, err := unix.Write(r.fd, b)
	switch {
	case err == nil:
		return n
	case errors.Is(err, unix.EINTR):
	case errors.Is(err, unix.EAGAIN):
		r.fdWritable = false
	default: // EPIPE or ECONNRESET
		r.routerClosed, r.fdReadable = true, true
	}
	return 0
}

// pumpUp makes one step from the router to VPP.
func (h *helper) pumpUp(r *relay) (moved bool, err error) {
	if r.reset {
		return false, nil
	}
	if len(r.up) > 0 {
		if !r.vclWritable {
			return false, nil
		}
		n, err := h.toVPP(r, r.up)
		if r.up = r.up[n:]; len(r.up) == 0 {
			r.up = nil
		}
		return n > 0, err
	}
	if !r.fdReadable || r.upEnded {
		return false, nil
	}
	n, err := unix.Read(r.fd, h.scratch)
	switch {
	case errors.Is(err, unix.EINTR):
		return true, nil
	case errors.Is(err, unix.EAGAIN):
		r.fdReadable = false
		return false, nil
	case err != nil: // ECONNRESET: the router closed without having read everything
		r.upEnded, r.routerClosed = true, true
		return true, nil
	case n == 0:
		r.upEnded = true
		return true, nil
	}
	took, err := h.toVPP(r, h.scratch[:n])
	if took < n && !r.reset {
		r.up = append([]byte(nil), h.scratch[took:n]...)
	}
	return true, err
}

// toVPP writes to the session, and returns how much it took.
func (h *helper) toVPP(r *relay, b []byte) (int, error) {
	n, err := h.lib.write(r.sh, b)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		r.vclWritable = false
		return 0, nil
	case err != nil:
		return 0, h.lost(r)
	case n < len(b):
		r.vclWritable = false
	}
	return n, nil
}

// lost ends a relay whose session was reset. The router may still read what came before.
func (h *helper) lost(r *relay) error {
	if r.reset {
		return nil
	}
	r.reset, r.ended = true, true
	r.up, r.upEnded = nil, true
	_ = unix.Shutdown(r.fd, unix.SHUT_RD) // the router's writes fail
	return h.send(message{Op: opEnded, ID: r.id, Errno: syscall.ECONNRESET}, -1)
}

// settle draws the consequences once nothing moves.
func (h *helper) settle(r *relay) {
	toldRouter := r.routerClosed || len(r.down) == 0
	if r.ended && toldRouter && !r.endWritten {
		r.endWritten = true
		_ = unix.Shutdown(r.fd, unix.SHUT_WR)
	}
	if r.upEnded && len(r.up) == 0 && !r.closed {
		switch {
		case r.reset || r.routerClosed || r.ended: // nothing to come from either side
			h.discard(r)
			h.lib.sessionClose(r.sh)
			r.closed, r.ended = true, true
		case !r.shut:
			r.shut = true
			h.lib.sessionShutdown(r.sh, shutdownWriting)
		}
	}
	switch {
	case r.closed && toldRouter:
		h.forget(r)
	case r.routerClosed && r.deadline.IsZero():
		r.deadline = time.Now().Add(lingerTime)
	}
}
