package fib

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A slow, obvious model of what must come out, and random operations that drive a Syncer between it and a dataplane that does
// everything that can go wrong (faults_test.go).

// chooser makes the random choices: a rand.Rand, or a fuzzer's bytes.
type chooser interface{ IntN(n int) int }

type byteChooser struct {
	data []byte
	done bool
}

func (b *byteChooser) IntN(n int) int {
	if len(b.data) == 0 {
		b.done = true
		return 0
	}
	v := int(b.data[0])
	b.data = b.data[1:]
	return v % n
}

// world is a Syncer, its target, and the model.
type world struct {
	t      *testing.T
	ch     chooser
	s      *Syncer
	target *fakeTarget
	feeds  []*Feed
	learn  *Feed

	mu       sync.Mutex // for what target.mayDelete reads
	wants    []map[Key]Route
	prefs    []int
	complete []bool
	wanted   map[Key]bool // in this life
	rev      uint64
	meddled  uint64 // times that others touched our routes without a sign
	news     int    // times that the Syncer said it has learned something
}

// learned is the index of what is learned, after the feeds, in what compare works on.
const learned = 4

var worldPrefixes = []string{
	"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/24", "10.1.0.0/25", "10.1.0.7/32", "10.2.0.0/24", "172.20.0.0/14",
	"::/0", "fd00::/8", "fd42:1::/64", "fd42:1::7/128", "fd42:2::/48",
}

var worldHops = []NextHop{
	{Addr: netip.MustParseAddr("10.1.0.9")},
	{Addr: netip.MustParseAddr("10.1.0.200"), Weight: 3},
	{Addr: netip.MustParseAddr("fd42:1::9")},
	{Addr: netip.MustParseAddr("fe80::2"), Interface: "eth1"},
	{Addr: netip.MustParseAddr("fe80::2")},
	{Addr: netip.MustParseAddr("10.2.0.1"), Interface: "eth2"},
	{Interface: "eth0"},
	{Addr: netip.MustParseAddr("10.1.0.9"), Backup: true},
	{Addr: netip.MustParseAddr("fe80::2"), Interface: "eth1", Backup: true},
}

func newWorld(t *testing.T, ch chooser) *world {
	w := &world{t: t, ch: ch, wanted: make(map[Key]bool)}
	w.target = &fakeTarget{
		t: t, ch: ch, ours: make(map[Key]Route), wrote: make(map[Key]bool), better: make(map[Key]bool), poison: make(map[Key]bool),
		doubtful: make(map[Key]bool), ifaces: map[string]bool{"eth0": true, "eth1": true},
		worse: make(map[Key]bool), aliens: make(map[Key]Route),
		up: true, fresh: true, told: true, mayDelete: w.mayDelete,
	}
	w.s = NewSyncer(Options{Target: w.target, Batch: 3, MinBackoff: time.Second, MaxBackoff: 8 * time.Second, Audit: 7 * time.Second})
	w.target.invalidate = w.s.Invalidate
	for _, f := range []struct {
		name string
		pref int
	}{{"direct", 240}, {"bgp", 100}, {"static", 200}, {"bgp2", 100}} {
		w.feeds = append(w.feeds, w.s.Feed(f.name, f.pref))
		w.prefs = append(w.prefs, f.pref)
		w.wants = append(w.wants, make(map[Key]Route))
		w.complete = append(w.complete, false)
	}
	w.learn = w.s.Learn("learned", 10, func() { w.s.Learned(); w.news++ })
	w.prefs = append(w.prefs, 10)
	for range ch.IntN(8) { // left-overs of an earlier life
		r := w.route(1)
		w.target.ours[r.Key] = r
	}
	return w
}

func (w *world) mayDelete(k Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted[k] || !slices.Contains(w.complete, false)
}

func (w *world) key() Key {
	return Key{Table: uint32(w.ch.IntN(4) / 3), Prefix: netip.MustParsePrefix(worldPrefixes[w.ch.IntN(len(worldPrefixes))])}
}

// route makes one up; feed 0 has connected ones only.
func (w *world) route(feed int) Route {
	r := Route{Key: w.key()}
	if feed == 0 {
		r.Kind, r.NextHops = Connected, []NextHop{{Interface: fmt.Sprintf("eth%d", w.ch.IntN(3))}}
		return r
	}
	if w.ch.IntN(8) == 0 {
		r.Kind = Blackhole
		return r
	}
	for range w.ch.IntN(3) + w.ch.IntN(2) {
		r.NextHops = append(r.NextHops, worldHops[w.ch.IntN(len(worldHops))])
	}
	return r
}

func (w *world) update(feed int, rs ...Route) {
	w.mu.Lock()
	for _, r := range rs {
		w.wants[feed][r.Key] = r
		w.wanted[r.Key] = true
	}
	w.mu.Unlock()
	w.rev = w.feeds[feed].Update(rs...)
}

func (w *world) step() {
	feed := w.ch.IntN(len(w.feeds))
	switch w.ch.IntN(20) {
	case 0, 1, 2, 3:
		w.update(feed, w.route(feed))
	case 4:
		w.update(feed, w.route(feed), w.route(feed), w.route(feed))
	case 5, 6, 7:
		k := w.key()
		w.mu.Lock()
		delete(w.wants[feed], k)
		w.mu.Unlock()
		w.rev = w.feeds[feed].Withdraw(k)
	case 8:
		w.replace(feed)
	case 9:
		w.s.Invalidate()
	case 10:
		w.target.mu.Lock()
		name := fmt.Sprintf("eth%d", w.ch.IntN(3))
		w.target.ifaces[name] = !w.target.ifaces[name]
		w.target.mu.Unlock()
		w.s.InterfacesChanged()
	case 11:
		w.crash()
	case 12:
		w.target.mu.Lock()
		k := w.key()
		w.target.poison[k] = !w.target.poison[k]
		w.target.mu.Unlock()
	case 13:
		if w.ch.IntN(4) == 0 {
			w.mu.Lock()
			w.complete[feed] = true
			w.mu.Unlock()
			w.rev = w.feeds[feed].Complete()
		}
	case 14:
		time.Sleep(time.Duration(w.ch.IntN(3000)) * time.Millisecond)
	case 15:
		synctest.Wait()
	case 16:
		w.couple()
	case 17:
		// A dataplane that stays away keeps it waiting.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if c, err := w.s.Resync(ctx); err == nil && c.Differ() != c.Repaired+c.Failed+c.Waiting {
			w.t.Errorf("resync: %+v", c)
		}
	case 18:
		w.s.Audit()
	case 19:
		w.meddle()
	}
}

// couple couples, or decouples.
func (w *world) couple() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w.target.mu.Lock()
	decouple := !w.target.decoupled
	w.target.decoupled = false
	w.target.mu.Unlock()
	if !decouple {
		w.s.Couple(ctx) //nolint:errcheck // the dataplane may be away
		return
	}
	if err := w.s.Decouple(ctx); err != nil {
		w.t.Errorf("decouple: %v", err)
	}
	w.target.mu.Lock()
	w.target.decoupled = true
	w.target.mu.Unlock()
}

// meddle is somebody else, of whom nobody tells the Syncer.
func (w *world) meddle() {
	w.target.mu.Lock()
	defer w.target.mu.Unlock()
	k := w.key()
	w.target.doubtful[k] = true
	r := w.route(1)
	r.Key = k
	switch w.ch.IntN(4) {
	case 0:
		delete(w.target.ours, k)
		w.meddled++
	case 1:
		delete(w.target.wrote, k)
		w.target.ours[k] = w.resolve(r)
		w.meddled++
	case 2:
		w.target.better[k] = !w.target.better[k]
		w.target.aliens[k] = r
	case 3:
		w.target.worse[k] = !w.target.worse[k]
		w.target.aliens[k] = r
	}
}

func (w *world) replace(feed int) {
	rs := make([]Route, w.ch.IntN(5))
	for i := range rs {
		rs[i] = w.route(feed)
	}
	w.mu.Lock()
	clear(w.wants[feed])
	for _, r := range rs {
		w.wants[feed][r.Key] = r
		w.wanted[r.Key] = true
	}
	w.mu.Unlock()
	w.rev = w.feeds[feed].Replace(rs)
}

// crash ends the connection, and perhaps the dataplane with all its routes; or somebody else meddles with it.
func (w *world) crash() {
	w.target.mu.Lock()
	defer w.target.mu.Unlock()
	k := w.key()
	switch w.ch.IntN(4) {
	case 0:
		w.target.up = false
		return
	case 1:
		w.target.restart()
	case 2:
		delete(w.target.ours, k)
		delete(w.target.better, k)
		w.target.doubtful[k] = true
	case 3:
		w.target.better[k] = !w.target.better[k]
		w.target.aliens[k] = Route{Key: k, Kind: Prohibit}
		w.target.doubtful[k] = true
	}
	w.s.Invalidate()
}

// check lets everything settle without faults, and compares.
func (w *world) check() {
	w.t.Helper()
	w.target.mu.Lock()
	faults := w.target.faults
	w.target.faults, w.target.up = false, true
	w.target.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait := func() {
		if err := w.s.WaitSynced(ctx, w.s.Revision()); err != nil {
			w.t.Fatalf("WaitSynced: %v; %+v", err, w.s.Status())
		}
	}
	for range 2 { // what is written after the first dump may hide what that showed of others
		w.s.Invalidate()
		wait()
		wait() // for what the dump itself has brought
	}
	w.compare()
	if n := w.s.Status().Drift.Count(); n > w.meddled {
		w.t.Errorf("drift of %d routes, though %d were touched", n, w.meddled)
	}
	w.target.mu.Lock()
	w.target.faults = faults
	w.target.mu.Unlock()
}

func (w *world) compare() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target.mu.Lock()
	defer w.target.mu.Unlock()
	keys := make(map[Key]bool)
	w.wants = append(w.wants, w.learnable())
	defer func() { w.wants = w.wants[:learned] }()
	if n := len(w.s.Learned()); n != len(w.wants[learned]) {
		w.t.Errorf("%d routes learned, want %d", n, len(w.wants[learned]))
	}
	for _, wants := range w.wants {
		for k := range wants {
			keys[k] = true
		}
	}
	for k := range w.target.ours {
		keys[k] = true
	}
	for k := range keys {
		if w.target.better[k] && len(w.candidates(k)) == 0 {
			delete(keys, k)
			w.compareHidden(k)
			continue
		}
		w.compareKey(k)
	}
	w.s.Walk(func(e Entry) bool {
		if !keys[e.Key] && !w.target.better[e.Key] {
			w.t.Errorf("%v is an entry that nobody wants or holds: %v", e.Key, e.State)
		}
		delete(keys, e.Key)
		return true
	})
	if len(keys) > 0 {
		w.t.Errorf("no entries for %v", slices.Collect(maps.Keys(keys)))
	}
}

// learnable is what a dump shows of others.
func (w *world) learnable() map[Key]Route {
	out := make(map[Key]Route)
	for k, r := range w.target.aliens {
		if _, hidden := w.target.ours[k]; w.target.better[k] || w.target.worse[k] && !hidden {
			out[k] = r
		}
	}
	return out
}

// compareHidden compares a key that nobody wants and where a better source forwards. What we wrote there must be gone; what an
// earlier life left there, nobody can see.
func (w *world) compareHidden(k Key) {
	w.t.Helper()
	_, isHeld := w.target.ours[k]
	if isHeld && !w.target.decoupled && w.target.wrote[k] && !w.target.poison[k] {
		w.t.Errorf("%v is still held, behind a better source", k)
	}
}

func (w *world) compareKey(k Key) {
	w.t.Helper()
	held, isHeld := w.target.ours[k]
	e, ok := w.s.Get(k)
	if !ok {
		w.t.Errorf("%v: no entry", k)
		return
	}
	order := w.candidates(k)
	if len(order) != len(e.Candidates) {
		w.t.Errorf("%v: %d candidates, want %d", k, len(e.Candidates), len(order))
		return
	}
	for i, f := range order {
		if e.Candidates[i].Feed != append(w.feeds, w.learn)[f].Name() || !e.Candidates[i].Route.Equal(w.resolve(w.wants[f][k])) {
			w.t.Errorf("%v: candidate %d is %+v", k, i, e.Candidates[i])
		}
	}
	want, state := w.expect(k, order)
	switch {
	case len(order) == 0 && state == Failed && e.State == Stale && slices.Contains(w.complete, false):
		state = Stale // put there by somebody else after it was deleted
	case len(order) > 0 && order[0] == learned:
		if e.State == Stale && w.target.better[k] && slices.Contains(w.complete, false) || w.target.poison[k] {
			return // what was seen of ours before the better source came, nobody can tell
		}
		if w.target.better[k] && w.target.decoupled && e.State == Queued {
			return
		}
	case w.target.decoupled && (state == Failed && want == nil || state == Pending || state == Installed || state == Shadowed):
		w.compareDecoupled(k, e, order)
		return
	case w.target.decoupled && len(order) == 0:
		if e.State == Queued { // not to be there any more, or not a left-over
			return
		}
	}
	if w.target.poison[k] && w.target.better[k] && e.State == Failed {
		return // what there is behind the better source is not known, so it was to be written or deleted, and that was refused
	}
	if e.State != state {
		w.t.Errorf("%v is %v (%v), want %v; best %v, held %v, wants %v", k, e.State, e.Err, state, e.Best.NextHops, held.NextHops, w.wants)
	}
	if (e.Err != nil) != (state == Failed || state == Pending) {
		w.t.Errorf("%v: state %v with error %v", k, e.State, e.Err)
	}
	switch state {
	case Failed, Pending, Stale:
		return // the dataplane holds what it held
	}
	if len(order) > 0 && order[0] == learned && w.target.decoupled {
		return
	}
	if want == nil && w.target.better[k] {
		w.compareHidden(k)
		return
	}
	if (want != nil) != isHeld || want != nil && !want.Equal(held) {
		w.t.Errorf("%v: dataplane holds %v %+v, want %+v", k, isHeld, held, want)
	}
}

// compareDecoupled: what is not as it should be stays so.
func (w *world) compareDecoupled(k Key, e Entry, order []int) {
	w.t.Helper()
	held, isHeld := w.target.ours[k]
	var best Route
	if len(order) > 0 {
		best = w.resolve(w.wants[order[0]][k])
	}
	local := best.Kind == Unicast && len(order) > 0 && (len(best.NextHops) == 0 ||
		slices.ContainsFunc(best.NextHops, func(h NextHop) bool { return h.Interface == "" && h.Addr.IsLinkLocalUnicast() }))
	state := Queued
	switch {
	case w.target.better[k]:
		if e.State == Queued || e.State == Shadowed || e.State == Failed && local || best.Kind == Connected && e.State == Installed {
			return
		}
	case local:
		state = Failed
	case best.Kind == Connected && !isHeld && len(order) > 1:
		state = Shadowed
	case best.Kind == Connected && !isHeld, best.Kind != Connected && isHeld && held.Equal(best):
		state = Installed
	}
	if e.State != state {
		w.t.Errorf("%v is %v while decoupled, want %v; held %v %v, best %v", k, e.State, state, isHeld, held, best)
	}
}

// candidates returns the feeds that want k, best first.
func (w *world) candidates(k Key) (order []int) {
	for f := range w.wants {
		if _, ok := w.wants[f][k]; ok {
			order = append(order, f)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return w.prefs[b] - w.prefs[a] })
	return order
}

// expect says what the dataplane should hold of ours, and the state.
func (w *world) expect(k Key, order []int) (*Route, State) {
	if len(order) == 0 {
		if w.target.poison[k] && w.wanted[k] || w.target.poison[k] && !slices.Contains(w.complete, false) {
			return nil, Failed
		}
		return nil, Stale
	}
	if order[0] == learned {
		return nil, Installed
	}
	best := w.resolve(w.wants[order[0]][k])
	if best.Kind == Connected {
		if _, ok := w.target.ours[k]; ok && w.target.poison[k] && !w.target.better[k] {
			return nil, Failed
		}
		if len(order) > 1 {
			return nil, Shadowed
		}
		return nil, Installed
	}
	if best.Kind == Unicast && len(best.NextHops) == 0 {
		return nil, Failed
	}
	for _, h := range best.NextHops {
		if h.Interface == "" && h.Addr.IsLinkLocalUnicast() {
			return nil, Failed
		}
	}
	done := Installed
	if w.target.better[k] {
		done = Shadowed
	}
	if held, ok := w.target.ours[k]; ok && held.Equal(best) && !w.target.better[k] {
		return &best, done // even if it would be refused now
	}
	if w.target.poison[k] {
		return nil, Failed
	}
	for _, h := range best.NextHops {
		if h.Interface != "" && !w.target.ifaces[h.Interface] {
			return nil, Pending
		}
	}
	return &best, done
}

func (w *world) resolve(r Route) Route {
	out := Route{Key: r.Key, Kind: r.Kind}
	for _, h := range r.NextHops {
		if h.Weight == 0 {
			h.Weight = 1
		}
		if r.Kind == Unicast && h.Interface == "" && !h.Addr.IsLinkLocalUnicast() {
			bits := -1
			for k, c := range w.wants[0] {
				if k.Table == r.Table && k.Prefix.Contains(h.Addr) && k.Prefix.Bits() > bits {
					bits, h.Interface = k.Prefix.Bits(), c.NextHops[0].Interface
				}
			}
		}
		if !slices.Contains(out.NextHops, h) {
			out.NextHops = append(out.NextHops, h)
		}
	}
	return out
}

func (w *world) run(steps int, every int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.s.Run(ctx) }()
	w.target.mu.Lock()
	w.target.faults = true
	w.target.mu.Unlock()
	for i := 0; i < steps && !w.t.Failed(); i++ {
		if b, ok := w.ch.(*byteChooser); ok && b.done {
			break
		}
		w.step()
		if i%every == every-1 {
			w.check()
		}
	}
	w.check()
	cancel()
	if err := <-done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

// lockedChooser: the target's and the driver's choices come from different goroutines.
type lockedChooser struct {
	mu sync.Mutex
	ch chooser
}

func (l *lockedChooser) IntN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ch.IntN(n)
}

func TestRandomOperationsAgainstModel(t *testing.T) {
	seeds, steps := 200, 500 // 100,000 steps
	if testing.Short() {
		seeds = 5
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ch := &lockedChooser{ch: rand.New(rand.NewPCG(seed, 1))}
				newWorld(t, ch).run(steps, 25)
			})
		})
	}
}

func FuzzSyncer(f *testing.F) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, &lockedChooser{ch: &byteChooser{data: data}})
			w.run(min(len(data), 300), 20)
		})
	})
}
