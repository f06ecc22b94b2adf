package memif

// The receiving end of one ring. A master consumes filled buffers at head; a slave consumes them at tail and gives
// the emptied ones back at head.
//
// Sleeping. The reader parks in Go's netpoller until the ring's eventfd is written. It never reads the eventfd: the
// poller is edge-triggered and every write is a new edge, so a wake-up costs no system call of ours, and a peer that
// makes its descriptor block cannot block us. While it works, it masks interrupts in the ring, so that a producer at
// full speed makes no system calls at all; before it sleeps it unmasks and looks once more. With sequentially
// consistent accesses on both sides a wake-up cannot be lost: either the producer's publication is before our second
// look, or our unmasking is before its test. VPP and libmemif, however, test the flag by a plain load after a release
// store, which the processor may reorder, so for them interrupts stay unmasked (one eventfd write per vector of up to
// 256 packets).

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	errSessionEnded = errors.New("session ended")
	errBadIndex     = errors.New("peer published an impossible ring index")
	errEndlessChain = errors.New("peer published a chain of buffers without end")
)

type rxQueue struct {
	file *os.File // the eventfd, owned
	raw  syscall.RawConn
	// masks says that the peer's interrupt test is ordered, as ours is.
	masks bool
	slave bool
	// buffers are the slave's own, one a slot: what the peer wrote about their place is not looked at.
	buffers ownBuffers
	regions [][]byte
	shrinks bool // some region can fault
	fail    func(error)
	stats   *counters

	mu     sync.Mutex
	ring   ring
	next   uint16 // the first slot not consumed yet
	masked bool
	closed bool
	// partial is the producer's index at which the last chain had no end yet: no use to look before it moves.
	partial    uint16
	hasPartial bool
}

// ownBuffers are the equal buffers of one of our own rings.
type ownBuffers struct {
	mem  []byte // from the beginning of the region
	base uint32
	size uint32
}

func (b ownBuffers) offset(slot uint16) uint32 { return b.base + uint32(slot)*b.size }

func (b ownBuffers) at(slot uint16) []byte {
	off := b.offset(slot)
	return b.mem[off : off+b.size : off+b.size]
}

// listen hands the eventfd to the netpoller; fd is owned by q afterwards, also on error.
func (q *rxQueue) listen(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return fmt.Errorf("interrupt descriptor: %w", err)
	}
	q.file = os.NewFile(uintptr(fd), "memif interrupt")
	raw, err := q.file.SyscallConn()
	if err != nil {
		q.file.Close()
		return fmt.Errorf("interrupt descriptor: %w", err)
	}
	q.raw = raw
	// A descriptor that epoll refuses (a regular file) would make every wait return at once.
	if err := q.file.SetReadDeadline(noDeadline); err != nil {
		q.file.Close()
		return fmt.Errorf("interrupt descriptor cannot be waited for: %w", err)
	}
	return nil
}

// start gives all buffers of a slave's ring to the master. Not before CONNECTED: a libmemif master clears the ring's
// indexes when it connects.
func (q *rxQueue) start() {
	if !q.slave {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range uint32(q.ring.size) {
		q.refillLocked(uint16(i))
	}
	q.ring.addHead(q.ring.size)
}

func (q *rxQueue) refillLocked(index uint16) {
	q.ring.store(index, descriptor{length: q.buffers.size, offset: q.buffers.offset(index & q.ring.mask)})
}

// read blocks until it has at least one frame, or the session has ended.
func (q *rxQueue) read(bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := q.take(bufs, sizes)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			return n, nil
		}
		if err := q.wait(); err != nil {
			return 0, errSessionEnded
		}
	}
}

// wait sleeps until the ring has something, or its eventfd is closed.
func (q *rxQueue) wait() error {
	first := true
	return q.raw.Read(func(uintptr) bool {
		// The poller has forgotten earlier edges before this is called, so an edge from now on ends the sleep.
		if !first {
			q.stats.wakeups.Add(1)
		}
		first = false
		ready, err := q.ready()
		return ready || err != nil
	})
}

// ready says whether it is of use to call take; if not, the peer will interrupt when it is.
func (q *rxQueue) ready() (ready bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return true, nil
	}
	if q.shrinks {
		defer contain(debug.SetPanicOnFault(true), q.fail, &err)
	}
	if q.masked {
		q.ring.unmaskInterrupts()
		q.masked = false
	}
	produced := q.producedLocked()
	return produced != q.next && (!q.hasPartial || produced != q.partial), nil
}

func (q *rxQueue) producedLocked() uint16 {
	if q.slave {
		return q.ring.tail()
	}
	return q.ring.head()
}

// take copies what is there, without waiting.
func (q *rxQueue) take(bufs [][]byte, sizes []int) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, errSessionEnded
	}
	if q.shrinks {
		defer contain(debug.SetPanicOnFault(true), q.fail, &err)
	}
	produced := q.producedLocked()
	avail := produced - q.next
	if avail > q.ring.size {
		q.fail(errBadIndex)
		return 0, errSessionEnded
	}
	var used uint16
	var bytes uint64
	q.hasPartial = false
	for n < len(bufs) && used < avail {
		slots, length, verdict := q.frameLocked(q.next+used, avail-used, bufs[n])
		if verdict == frameUnfinished {
			if slots == q.ring.size {
				q.fail(errEndlessChain)
				return 0, errSessionEnded
			}
			q.partial, q.hasPartial = produced, true
			break
		}
		used += slots
		switch verdict {
		case frameGood:
			sizes[n] = length
			bytes += uint64(length)
			n++
		case frameTooLong:
			q.stats.rxTooLong.Add(1)
		case frameBad:
			q.stats.rxBad.Add(1)
		}
	}
	if used > 0 {
		q.releaseLocked(used)
	}
	if n > 0 {
		q.stats.rxFrames.Add(uint64(n))
		q.stats.rxBytes.Add(bytes)
		if q.masks && !q.masked {
			q.ring.maskInterrupts()
			q.masked = true
		}
	}
	return n, nil
}

type frameVerdict uint8

const (
	frameGood frameVerdict = iota
	frameTooLong
	frameBad
	frameUnfinished
)

// frameLocked copies the frame that begins at index into buf. It looks at avail slots at most and says how many the
// frame takes, also when the frame is to be dropped.
func (q *rxQueue) frameLocked(index, avail uint16, buf []byte) (slots uint16, length int, verdict frameVerdict) {
	for slots < avail {
		d := q.ring.load(index + slots)
		slots++
		var part []byte
		if q.slave {
			part = q.buffers.at((index + slots - 1) & q.ring.mask)
			if d.length == 0 || d.length > uint32(len(part)) {
				part = nil
			} else {
				part = part[:d.length]
			}
		} else {
			part = d.buffer(q.regions)
		}
		switch {
		case verdict == frameBad:
		case part == nil:
			verdict = frameBad
		case verdict == frameTooLong || len(part) > len(buf)-length:
			verdict = frameTooLong
		default:
			length += copy(buf[length:], part)
		}
		if d.flags&descFlagNext == 0 {
			return slots, length, verdict
		}
	}
	return slots, 0, frameUnfinished
}

// releaseLocked gives n consumed slots back to the producer.
func (q *rxQueue) releaseLocked(n uint16) {
	if q.slave {
		for i := range n {
			q.refillLocked(q.next + i) // the master has overwritten length and flags
		}
		q.next += n
		q.ring.addHead(n)
		return
	}
	q.next += n
	q.ring.setTail(q.next)
}

// close ends a waiting read and lets nobody touch the memory any more.
func (q *rxQueue) close() {
	if q.file != nil {
		q.file.Close()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// counters are an interface's, over all its sessions and queues.
type counters struct {
	rxFrames, rxBytes, rxTooLong, rxBad     atomic.Uint64
	txFrames, txBytes, txFull, txUnsendable atomic.Uint64
	interrupts, wakeups, connects           atomic.Uint64
}
