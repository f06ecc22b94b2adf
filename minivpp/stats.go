package minivpp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"rlr/minivpp/plane"
)

// The statistics segment: shared memory with VPP's layout (version 2; VPP's src/vlib/stats/shared.h), whose descriptor is
// handed to each client that connects. Clients map it and read; they never write, and nothing tells when they leave.
//
// The layout is made anew when interfaces come, go or change their names, in that half of the segment that is not in use,
// so that a client which reads at that moment sees old data and not half of the new; it then finds that the epoch has
// changed. Between such changes only counters are stored. That happens once a second, and only after the first client came.

// statsInterval is how old counters may be.
const statsInterval = time.Second

// simpleStats and combinedStats are the counters of interfaces, in VPP's order and with its names.
var (
	simpleStats = []struct {
		name string
		of   func(*plane.Counters) uint64
	}{
		{"drops", func(c *plane.Counters) uint64 { return c.Drops }},
		{"punt", func(c *plane.Counters) uint64 { return c.Punts }},
		{"ip4", func(c *plane.Counters) uint64 { return c.IP4 }},
		{"ip6", func(c *plane.Counters) uint64 { return c.IP6 }},
		{"rx-no-buf", func(c *plane.Counters) uint64 { return c.RxNoBuf }},
		{"rx-miss", func(c *plane.Counters) uint64 { return c.RxMiss }},
		{"rx-error", func(c *plane.Counters) uint64 { return c.RxError }},
		{"tx-error", func(c *plane.Counters) uint64 { return c.TxError }},
	}
	combinedStats = []struct {
		name string
		of   func(*plane.Counters) (packets, bytes uint64)
	}{
		{"rx", func(c *plane.Counters) (uint64, uint64) { return c.RxPackets, c.RxBytes }},
		{"tx", func(c *plane.Counters) (uint64, uint64) { return c.TxPackets, c.TxBytes }},
	}
)

// stats fills the segment.
type stats struct {
	srv *Server
	seg *segment

	mu    sync.Mutex
	names []string // by sw_if_index, "" where there is no interface
	acls  []int    // rules by ACL, -1 where there is none
	at    places
	beats uint64
}

// places are offsets in the segment of what is stored between layouts.
type places struct {
	heartbeat, update int
	simple            []int // the counters of interface 0, by simpleStats
	combined          []int // the same, by combinedStats
	acls              []int // the counters of the first rule, by ACL
}

// serveStats hands out the segment until ctx ends.
func (s *Server) serveStats(ctx context.Context, l *net.UnixListener) error {
	seg, err := newSegment()
	if err != nil {
		return fmt.Errorf("minivpp: making the statistics segment: %w", err)
	}
	defer seg.close()
	st := &stats{srv: s, seg: seg}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()

	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	first := true
	for {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		default:
			return fmt.Errorf("minivpp: accepting on %s: %w", l.Addr(), err)
		}
		st.update() // a new client sees the present
		if first {
			first = false
			g.Go(func() error { st.run(ctx); return nil })
		}
		// One small datagram into an empty buffer: it does not block.
		if _, _, err := conn.WriteMsgUnix(nil, unix.UnixRights(seg.fd), nil); err != nil {
			s.log.WithError(err).Debug("statistics client left")
		}
		conn.Close()
	}
}

// run keeps the counters fresh.
func (st *stats) run(ctx context.Context) {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			st.update()
		}
	}
}

// update stores the counters, in a new layout if the interfaces are not those of the last one.
func (st *stats) update() {
	st.mu.Lock()
	defer st.mu.Unlock()
	ifaces := st.srv.Interfaces()
	var names []string
	for _, i := range ifaces {
		for uint32(len(names)) <= i.Index {
			names = append(names, "")
		}
		names[i.Index] = i.Name
	}
	filters := st.srv.ACLs()
	var acls []int
	for _, a := range filters {
		for uint32(len(acls)) <= a.Index {
			acls = append(acls, -1)
		}
		acls[a.Index] = len(a.Rules)
	}
	st.beats++
	if st.names == nil || !slices.Equal(names, st.names) || !slices.Equal(acls, st.acls) {
		var at places
		if err := st.seg.layout(func(b *builder) { at = st.buildLocked(b, names, acls) }); err != nil {
			// Clients keep what they had, with a heartbeat that stands still.
			st.srv.log.WithError(err).Warn("statistics are not updated")
			return
		}
		st.names, st.acls, st.at = names, acls, at
	}
	st.seg.store(st.at.heartbeat, st.beats)
	st.seg.store(st.at.update, uint64(time.Since(st.srv.boot).Seconds()))
	for _, i := range ifaces {
		for n, c := range simpleStats {
			st.seg.store(st.at.simple[n]+8*int(i.Index), c.of(&i.Counters))
		}
		for n, c := range combinedStats {
			packets, bytes := c.of(&i.Counters)
			st.seg.store(st.at.combined[n]+16*int(i.Index), packets)
			st.seg.store(st.at.combined[n]+16*int(i.Index)+8, bytes)
		}
	}
	for _, a := range filters {
		for n := range a.Rules {
			st.seg.store(st.at.acls[a.Index]+16*n, a.Rules[n].Packets)
			st.seg.store(st.at.acls[a.Index]+16*n+8, a.Rules[n].Bytes)
		}
	}
}

// buildLocked makes the directory. The first three entries have fixed places in VPP.
func (st *stats) buildLocked(b *builder, names []string, acls []int) (at places) {
	at.heartbeat = b.scalar("/sys/heartbeat", st.beats)
	b.scalar("/sys/last_stats_clear", 0)
	b.scalar("/sys/boottime", uint64(st.srv.boot.Unix()))
	b.scalar("/sys/num_worker_threads", 0)
	at.update = b.scalar("/sys/last_update", 0)

	type ref struct {
		name  string
		entry int
	}
	var refs []ref
	for _, c := range simpleStats {
		entry, offset := b.counters("/if/"+c.name, dirSimple, 8, len(names))
		at.simple = append(at.simple, offset)
		refs = append(refs, ref{c.name, entry})
	}
	for _, c := range combinedStats {
		entry, offset := b.counters("/if/"+c.name, dirCombined, 16, len(names))
		at.combined = append(at.combined, offset)
		refs = append(refs, ref{c.name, entry})
	}
	for index, rules := range acls {
		offset := 0
		if rules >= 0 { // VPP has one more than there are rules
			_, offset = b.counters(fmt.Sprintf("/acl/%d/matches", index), dirCombined, 16, rules+1)
		}
		at.acls = append(at.acls, offset)
	}
	shown := slices.Clone(names)
	for i := range shown {
		if shown[i] == "" {
			shown[i] = "deleted" // what VPP shows for an index that is free
		}
	}
	b.strings("/if/names", shown)
	for idx, name := range names {
		if name == "" {
			continue
		}
		// A "/" in a name would look like another level; VPP writes "_" too.
		path := "/interfaces/" + strings.ReplaceAll(name, "/", "_") + "/"
		for _, r := range refs {
			b.symlink(path+r.name, r.entry, idx)
		}
	}
	return at
}
