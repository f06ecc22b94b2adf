package bgp

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/fib"
)

// This file finds backup paths: with each prefix's best paths the dataplane gets the next best one, and turns to it by itself when
// those are dead (BFD is down, or the interface). That is one change there, whatever the number of prefixes, and does not wait for
// BGP, which comes to the same a little later (prefix-independent convergence, draft-ietf-rtgwg-bgp-pic).
//
// GoBGP tells of best paths only, so a prefix is noted whenever a path of it may have changed, and is looked up when things are
// calm: who needs a backup path does not need it in the same second. What was read off a session may be with GoBGP a while
// later, so such prefixes are looked up twice.
//
// It is done while a neighbour has BFD; without, hardly anything dies that the dataplane would notice.

const (
	backupCalm   = 200 * time.Millisecond // nothing has been noted for so long
	backupHurry  = 3 * time.Second        // that a look waits for calm at most
	backupSecond = 5 * time.Second        // between two looks
	backupChunk  = 256                    // prefixes at a time; GoBGP waits meanwhile
)

// backups are the feeder's.
type backups struct {
	wake chan struct{} // holds one when there is something to look at

	mu     sync.Mutex
	on     bool
	noted  map[fib.Key]bool // true: to be looked at twice
	again  map[fib.Key]bool // those whose second look is to come
	due    time.Time        // of again
	first  time.Time        // that something was noted, since the last look
	last   time.Time
	of     map[fib.Key]*backup
	shared map[backup]*backup // backups are few: neighbours by next hops
}

// backup is a path that stands by.
type backup struct {
	source netip.Addr // GoBGP's name of the neighbour
	hop    fib.NextHop
}

func newBackups() *backups {
	return &backups{
		wake: make(chan struct{}, 1), noted: map[fib.Key]bool{}, again: map[fib.Key]bool{},
		of: map[fib.Key]*backup{}, shared: map[backup]*backup{},
	}
}

// note says that paths of prefixes have changed; coming: it may take GoBGP a while to know.
func (b *backups) note(coming bool, keys ...fib.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		b.noteLocked(coming, keys)
	}
}

func (b *backups) noteLocked(coming bool, keys []fib.Key) {
	if len(keys) == 0 {
		return
	}
	for _, k := range keys {
		b.noted[k] = b.noted[k] || coming
	}
	b.last = time.Now()
	if b.first.IsZero() {
		b.first = b.last
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// lost says that a neighbour's paths may have gone: its session has ended, or they are judged anew.
func (b *backups) lost(source netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []fib.Key
	for k, v := range b.of {
		if v.source == source {
			keys = append(keys, k)
		}
	}
	b.noteLocked(true, keys)
}

// hop returns the backup of a prefix.
func (b *backups) hop(k fib.Key) (fib.NextHop, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.of[k]; v != nil {
		return v.hop, true
	}
	return fib.NextHop{}, false
}

// found sets a prefix's backup, nil for none, unless a path of it has changed since it was looked up. It reports whether it did.
func (b *backups) found(k fib.Key, v *backup) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, changed := b.noted[k]; changed || !b.on && v != nil {
		return false
	}
	if v == nil {
		delete(b.of, k)
		return true
	}
	if b.shared[*v] == nil {
		b.shared[*v] = v
	}
	b.of[k] = b.shared[*v]
	return true
}

// take returns the prefixes that it is time to look at, or how long until then; 0: until wake.
func (b *backups) take(now time.Time) (keys []fib.Key, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.due.IsZero() && !now.Before(b.due) {
		for k := range b.again {
			if _, there := b.noted[k]; !there {
				b.noted[k] = false
			}
		}
		clear(b.again)
		b.due = time.Time{}
		if b.first.IsZero() {
			b.first = now
		}
	}
	if !b.first.IsZero() {
		wait = min(b.last.Add(backupCalm).Sub(now), b.first.Add(backupHurry).Sub(now))
		if wait > 0 {
			return nil, wait
		}
		for k, twice := range b.noted {
			keys = append(keys, k)
			if twice {
				b.again[k] = true
			}
		}
		clear(b.noted)
		b.first = time.Time{}
		if len(b.again) > 0 && b.due.IsZero() {
			b.due = now.Add(backupSecond)
		}
		return keys, 0
	}
	if !b.due.IsZero() {
		return nil, max(b.due.Sub(now), time.Millisecond)
	}
	return nil, 0
}

// backUp keeps backup paths up to date until ctx ends.
func (s *Speaker) backUp(ctx context.Context, r *running) {
	b := s.feeder.backups
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		keys, wait := b.take(time.Now())
		for part := range slices.Chunk(keys, backupChunk) {
			if ctx.Err() != nil {
				return
			}
			if err := s.lookUpBackups(r, part); err != nil {
				s.log.WithError(err).Warn("backup paths are unknown")
			}
		}
		if len(keys) > 0 {
			continue
		}
		if wait == 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
	}
}

func (s *Speaker) lookUpBackups(r *running, keys []fib.Key) error {
	left := make(map[fib.Key]bool, len(keys))
	var f Filter
	for _, k := range keys {
		left[k] = true
		f.Prefixes = append(f.Prefixes, k.Prefix)
	}
	for _, family := range []Family{IPv4, IPv6} {
		wanted := f.wanted(family)
		if len(wanted) == 0 {
			continue
		}
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire(), Prefixes: wanted}
		err := r.gobgp.ListPath(req, func(n bgp.NLRI, paths []*apiutil.Path) {
			if p, ok := prefixOf(n); ok {
				k := fib.Key{Prefix: p}
				delete(left, k)
				s.feeder.stand(k, paths)
			}
		})
		if err != nil {
			return err
		}
	}
	for k := range left { // nobody has a path any more
		s.feeder.backups.found(k, nil)
	}
	return nil
}

// stand chooses the backup among a prefix's paths, the best first, and publishes the prefix with it.
func (f *feeder) stand(key fib.Key, paths []*apiutil.Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.held != nil {
		return
	}
	var set []member
	for _, p := range paths {
		if p.Best && !p.Withdrawal {
			set = append(set, f.member(p))
		}
	}
	if len(set) == 0 || slices.ContainsFunc(set, func(m member) bool { return !m.source.IsValid() }) {
		f.backups.found(key, nil)
		return // nothing, or our own, which needs none
	}
	var v *backup
	if f.backups.enabled() {
		used := f.usedHops(set)
		for _, p := range paths {
			if p.Best || p.Withdrawal || !p.PeerAddress.IsValid() {
				continue
			}
			if m := f.member(p); m.usable && !slices.Contains(used, m.hop) {
				v = &backup{m.source, m.hop}
				break
			}
		}
	}
	old, had := f.backups.hop(key)
	if !f.backups.found(key, v) || had == (v != nil) && (v == nil || v.hop == old) {
		return
	}
	f.publish(key, set)
}

func (b *backups) enabled() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on
}

// backUpIf looks for backup paths, or gives up those that there are.
func (r *running) backUpIf(on bool) {
	b := r.backups
	b.mu.Lock()
	was := b.on
	b.on = on
	if was && !on {
		b.noteLocked(false, slices.Collect(maps.Keys(b.of)))
	}
	b.mu.Unlock()
	if on && !was {
		if err := r.noteAll(); err != nil {
			r.log.WithError(err).Warn("backup paths are unknown")
		}
	}
}

// noteAll has every prefix looked at that may have a backup path.
func (r *running) noteAll() error {
	if !r.backups.enabled() {
		return nil
	}
	for _, family := range []Family{IPv4, IPv6} {
		var keys []fib.Key
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire()}
		err := r.gobgp.ListPath(req, func(n bgp.NLRI, paths []*apiutil.Path) {
			if p, ok := prefixOf(n); ok && len(paths) > 1 {
				keys = append(keys, fib.Key{Prefix: p})
			}
		})
		if err != nil {
			return err
		}
		r.backups.note(true, keys...)
	}
	return nil
}

// watches reports whether a neighbour has BFD.
func (c *Config) watches() bool {
	return slices.ContainsFunc(c.Neighbors, func(n Neighbor) bool { return n.BFD.Interval > 0 })
}

// keys are the prefixes that an UPDATE announces or withdraws.
func (u *update) keys(ids func(bgp.Family) int) (all []fib.Key) {
	each := func(f bgp.Family, routes []byte) {
		if family := familyOf(f); family != 0 && len(routes) > 0 {
			eachRoute(family, routes, ids(f), func(_ []byte, k pathKey) { all = append(all, fib.Key{Prefix: k.prefix}) })
		}
	}
	each(bgp.RF_IPv4_UC, u.withdrawn)
	each(bgp.RF_IPv4_UC, u.nlri)
	if m, ok := u.reach(); ok {
		each(m.family, m.routes)
	}
	if m, ok := u.unreach(); ok {
		each(m.family, m.routes)
	}
	return all
}
