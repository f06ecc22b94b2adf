package memif

// The sending end of one ring. A slave fills its own buffers and publishes them at head; a master fills the buffers
// that the slave put up and publishes them at tail. A frame longer than a buffer is a chain (MEMIF_DESC_FLAG_NEXT).
// Only whole frames are published, and the reader is interrupted once a batch, if it wants that at all.

import (
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

type txQueue struct {
	slave   bool
	buffers ownBuffers // slave
	regions [][]byte   // master
	shrinks bool       // some region can fault
	fail    func(error)
	stats   *counters

	mu     sync.Mutex
	ring   ring
	next   uint16 // the first slot not filled yet
	intFD  int    // the eventfd, owned; non-blocking
	closed bool
	chain  []txSlot // scratch
}

// txSlot is one buffer that a frame is going to fill.
type txSlot struct {
	d   descriptor
	buf []byte
}

var interruptWord = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// write takes as many frames as there is room for. It fails only when the session has ended.
func (q *txQueue) write(frames [][]byte) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, ErrDown
	}
	if q.shrinks {
		defer func() {
			if err != nil {
				n, err = 0, ErrDown
			}
		}()
		defer contain(debug.SetPanicOnFault(true), q.fail, &err)
	}
	free, ok := q.freeLocked()
	if !ok {
		q.fail(errBadIndex)
		return 0, ErrDown
	}
	var used, sent uint16
	var bytes uint64
	for n < len(frames) {
		slots, verdict := q.fillLocked(q.next+used, free-used, frames[n])
		if verdict == fillFull {
			q.stats.txFull.Add(1)
			break
		}
		if verdict == fillBadBuffer {
			q.fail(errBadBuffer)
			break
		}
		n++
		if verdict == fillImpossible {
			q.stats.txUnsendable.Add(1)
			continue
		}
		used += slots
		sent++
		bytes += uint64(len(frames[n-1]))
	}
	if used > 0 {
		q.publishLocked(used)
		q.stats.txFrames.Add(uint64(sent))
		q.stats.txBytes.Add(bytes)
	}
	return n, nil
}

// freeLocked says how many slots we may fill; false when the peer's index makes no sense.
func (q *txQueue) freeLocked() (uint16, bool) {
	if q.slave {
		inFlight := q.next - q.ring.tail()
		return q.ring.size - inFlight, inFlight <= q.ring.size
	}
	free := q.ring.head() - q.next
	return free, free <= q.ring.size
}

type fillVerdict uint8

const (
	fillDone       fillVerdict = iota
	fillFull                   // no room now
	fillImpossible             // no room ever
	fillBadBuffer              // the peer put up a buffer outside its memory
)

// fillLocked copies one frame into the slots from index on, of which free are ours. Nothing is visible to the peer
// before publishLocked.
func (q *txQueue) fillLocked(index, free uint16, frame []byte) (uint16, fillVerdict) {
	if len(frame) == 0 || len(frame) > maxFrame {
		return 0, fillImpossible
	}
	q.chain = q.chain[:0]
	for room := 0; room < len(frame); {
		slots := uint16(len(q.chain))
		if slots == q.ring.size {
			return 0, fillImpossible
		}
		if slots == free {
			if q.slave && len(frame) > int(q.ring.size)*int(q.buffers.size) {
				return 0, fillImpossible
			}
			return 0, fillFull
		}
		s := q.slotLocked(index + slots)
		if s.buf == nil {
			return 0, fillBadBuffer
		}
		q.chain = append(q.chain, s)
		room += len(s.buf)
	}
	slots := uint16(len(q.chain))
	for i := range q.chain {
		s := &q.chain[i]
		n := copy(s.buf, frame)
		frame = frame[n:]
		s.d.length = uint32(n)
		s.d.flags = 0
		if len(frame) > 0 {
			s.d.flags = descFlagNext
		}
		q.ring.store(index+uint16(i), s.d)
	}
	return slots, fillDone
}

func (q *txQueue) slotLocked(index uint16) txSlot {
	if q.slave {
		slot := index & q.ring.mask
		return txSlot{d: descriptor{offset: q.buffers.offset(slot)}, buf: q.buffers.at(slot)}
	}
	d := q.ring.load(index)
	return txSlot{d: d, buf: d.buffer(q.regions)}
}

func (q *txQueue) publishLocked(n uint16) {
	q.next += n
	if q.slave {
		q.ring.addHead(n)
	} else {
		q.ring.setTail(q.next)
	}
	if q.ring.wantsInterrupt() {
		q.stats.interrupts.Add(1)
		// Fails when the counter is full: then the reader has been interrupted often enough.
		_, _ = unix.Write(q.intFD, interruptWord)
	}
}

func (q *txQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		closeFD(q.intFD)
	}
	q.closed = true
}
