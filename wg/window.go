package wg

// wireguard-go on Linux lets its pools grow without bound (PreallocatedBuffersPerPool is the constant 0), its queues
// hold 1024 batches, and each packet in them occupies a buffer of 64 KiB: under a flood that is gigabytes. Both ends of
// its pipeline are ours, though, so we bound what is inside. A window counts the packets that went in (read from memif,
// or from the socket) and have not come out (to the socket, or to memif), and lets no more in than its limit.
//
// wireguard-go may drop a packet inside without telling (no session, a replay), so a window that is full and has not
// moved for stallTime forgets what it has counted, and lets single packets in until one comes out again: then what
// waits for a session is at most wireguard-go's queue of 128 batches of one packet.

import (
	"sync"
	"time"
)

const (
	windowSize = 256
	stallTime  = 20 * time.Millisecond
)

type window struct {
	moved chan struct{} // has something after a packet came out

	mu      sync.Mutex
	inside  int
	stalled bool
}

func newWindow() *window { return &window{moved: make(chan struct{}, 1), stalled: true} }

// room waits until at least one packet may go in and says how many of want may. It is false when done has been closed.
// One goroutine calls it.
func (w *window) room(want int, done <-chan struct{}) (int, bool) {
	var timer *time.Timer
	for {
		if n := w.free(want); n > 0 {
			return n, true
		}
		if timer == nil {
			timer = time.NewTimer(stallTime)
			defer timer.Stop()
		} else {
			timer.Reset(stallTime)
		}
		select {
		case <-w.moved:
		case <-timer.C:
			w.mu.Lock()
			w.inside, w.stalled = 0, true
			w.mu.Unlock()
		case <-done:
			return 0, false
		}
	}
}

func (w *window) free(want int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stalled {
		want = 1
	}
	return min(want, windowSize-w.inside)
}

// in counts n packets that went in.
func (w *window) in(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside += n
}

// out counts n packets that came out.
func (w *window) out(n int) {
	w.mu.Lock()
	w.inside = max(0, w.inside-n)
	w.stalled = false
	w.mu.Unlock()
	select {
	case w.moved <- struct{}{}:
	default:
	}
}
