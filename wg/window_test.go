package wg

import (
	"testing"
	"testing/synctest"
	"time"
)

// started is a window through which a packet has come already.
func started() *window {
	w := newWindow()
	w.in(1)
	w.out(1)
	return w
}

func TestWindowBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started()
		inside := 0
		for {
			n := w.free(batchSize)
			if n == 0 {
				break
			}
			w.in(n)
			inside += n
		}
		if inside != windowSize {
			t.Fatalf("%d packets inside, limit %d", inside, windowSize)
		}
		go func() {
			time.Sleep(stallTime / 2)
			w.out(3)
		}()
		begin := time.Now()
		n, ok := w.room(batchSize, nil)
		if n != 3 || !ok || time.Since(begin) != stallTime/2 {
			t.Errorf("room for %d, %v after %v", n, ok, time.Since(begin))
		}
	})
}

// TestWindowStalls: packets that never come out do not stop the tunnel for ever, but make it slow until one does.
func TestWindowStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started()
		w.in(windowSize)
		begin := time.Now()
		for k := range windowSize {
			n, ok := w.room(batchSize, nil)
			if n != 1 || !ok {
				t.Fatalf("packet %d: room for %d", k, n)
			}
			w.in(n)
		}
		if d := time.Since(begin); d != stallTime {
			t.Errorf("waited %v", d)
		}
		w.out(1)
		if n, _ := w.room(batchSize, nil); n != 1 || time.Since(begin) != stallTime {
			t.Errorf("room for %d after %v", n, time.Since(begin))
		}
		w.out(100)
		if n, _ := w.room(batchSize, nil); n != batchSize {
			t.Errorf("room for %d after it moves again", n)
		}
	})
}

func TestWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started()
		w.in(windowSize)
		done := make(chan struct{})
		go func() {
			time.Sleep(time.Millisecond)
			close(done)
		}()
		if _, ok := w.room(1, done); ok {
			t.Error("room after the end")
		}
	})
}
