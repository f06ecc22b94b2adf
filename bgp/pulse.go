package bgp

import (
	"context"
	"sync/atomic"
	"time"
)

// pulse tells how late this process is: how much later than it should a timer fires. A machine that has too much to do does not get
// to a neighbour's packets in time, nor to its own, and BFD then says that the link is dead. Were the session to end for that, and all
// its routes to go and come again, there would be even more to do.
type pulse struct {
	last    atomic.Int64 // beat, ns since start; 0: it does not beat
	worst   atomic.Int64 // ns, of pulseMemory
	worstAt atomic.Int64
	start   time.Time
}

const (
	pulseEvery  = 20 * time.Millisecond
	pulseMemory = 3 * time.Second // how long a delay counts: as long as a machine that was busy may go on being so
)

func newPulse() *pulse { return &pulse{start: time.Now()} }

// beat measures until ctx ends.
func (p *pulse) beat(ctx context.Context) {
	t := time.NewTicker(pulseEvery)
	defer t.Stop()
	defer p.last.Store(0)
	for {
		now := int64(time.Since(p.start))
		if last := p.last.Swap(now); last != 0 {
			p.noted(now, now-last-int64(pulseEvery))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (p *pulse) noted(now, late int64) {
	if late >= p.worst.Load() || now-p.worstAt.Load() > int64(pulseMemory) {
		p.worst.Store(late)
		p.worstAt.Store(now)
	}
}

// late is the longest delay of the latest time, one that has not ended included.
func (p *pulse) late() time.Duration {
	if p == nil {
		return 0
	}
	last := p.last.Load()
	if last == 0 {
		return 0
	}
	now := int64(time.Since(p.start))
	d := now - last - int64(pulseEvery)
	if now-p.worstAt.Load() <= int64(pulseMemory) {
		d = max(d, p.worst.Load())
	}
	return time.Duration(max(d, 0))
}
