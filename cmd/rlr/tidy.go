package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// This file gives memory back. A table that has come in leaves as much garbage as it takes itself, and Go keeps that for when it is
// needed again: two minutes at least, and for ever where little is allocated afterwards. A router shares a small machine with its
// dataplane, so it gives the memory back when the work is done; and where memory is limited, it collects more often before the limit
// is reached, instead of being killed at it.

const (
	tidyEvery = 2 * time.Second
	// tidyCalm is how many bytes may be allocated in that time while all is calm.
	tidyCalm = 4 << 20
	// tidyShare is how large a part of what is in use garbage may be, and tidyLeast how many bytes in any case.
	tidyShare = 10
	tidyLeast = 16 << 20
	// gcPercent makes the garbage at the busiest half of what is in use, and not as much (Go's default, which GOGC may ask for): a
	// table that has come in then lies closer together, too, and what is between its parts cannot be given back.
	gcPercent = 50
	// tidyRest is how long nothing is given back after that: each time costs a collection.
	tidyRest = 10 * time.Second
)

// heapFigures are the runtime's.
type heapFigures struct {
	allocated uint64 // bytes since the start
	live      uint64 // bytes that the last collection found in use
	held      uint64 // bytes that the process has for its heap
}

func readHeap() heapFigures {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return heapFigures{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64()}
}

// untidy reports whether it is worth a collection to give memory back, after a time in which this was allocated.
func (h heapFigures) untidy(allocated uint64) bool {
	return allocated < tidyCalm && h.held > h.live+max(h.live/tidyShare, tidyLeast)
}

const (
	limitEvery = 30 * time.Second
	// helpersShare is what the helpers of VPP take, and leastHeap what the limit is in any case: below it, collecting is all that
	// would be done.
	helpersShare = 24 << 20
	leastHeap    = 48 << 20
)

// limitHeap tells the runtime of how much memory there is for it: what may be used (0: unknown), less a tenth, and what VPP takes.
func limitHeap(limit, vpp uint64) {
	if limit == 0 {
		return
	}
	rest := limit / 10 * 9
	if vpp > 0 {
		rest -= min(rest, vpp+helpersShare)
	}
	debug.SetMemoryLimit(int64(max(rest, leastHeap)))
}

// tidy gives memory back when there is much of it to give and nothing goes on, until ctx ends. limit is how many bytes the router and
// its VPP may use, and vpp how many that one does.
func tidy(ctx context.Context, limit uint64, vpp func() uint64) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	limitHeap(limit, vpp())
	again := time.NewTicker(limitEvery)
	defer again.Stop()
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	before := readHeap()
	var last time.Time
	given := uint64(0) // allocated by then: what has not come since cannot go
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			limitHeap(limit, vpp())
			continue
		case <-tick.C:
		}
		h := readHeap()
		if h.untidy(h.allocated-before.allocated) && time.Since(last) > tidyRest && h.allocated > given+tidyLeast {
			debug.FreeOSMemory()
			h, last = readHeap(), time.Now()
			given = h.allocated
		}
		before = h
	}
}
