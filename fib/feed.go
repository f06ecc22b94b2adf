package fib

import "slices"

// Feed is one protocol's voice: it has at most one candidate for each key. Its methods may be called from any goroutine,
// never wait for the dataplane, and return the revision to give to WaitSynced.
type Feed struct {
	s          *Syncer
	name       string
	preference int
	seq        int
	learned    bool // fed by dumps: see Syncer.Learn

	// Under Syncer.mu:
	complete bool
	routes   int
	paths    int              // next hops of its routes, or one each
	listed   map[key]struct{} // a superset of the feed's keys since its latest Replace; nil: not kept
}

// maxListed bounds Feed.listed: feeds that Replace much are searched for in all entries.
const maxListed = 1 << 16

// Feed names a feed. Of the candidates for a key the one with the highest preference wins (BIRD's: direct 240, static 200,
// bgp 100), of equal ones the feed that was named first. A name that exists returns that feed, with the preference it has.
// Name all feeds before Run: one that is named later closes the gate for left-overs again until it is complete.
func (s *Syncer) Feed(name string, preference int) *Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.feeds {
		if f.name == name {
			return f
		}
	}
	f := s.addFeedLocked(&Feed{s: s, name: name, preference: preference})
	s.complete = false
	return f
}

func (s *Syncer) addFeedLocked(f *Feed) *Feed {
	f.seq = s.feedSeq
	s.feedSeq++
	at, _ := slices.BinarySearchFunc(s.feeds, f, compareFeeds)
	s.feeds = slices.Insert(s.feeds, at, f)
	return f
}

func compareFeeds(a, b *Feed) int {
	if a.preference != b.preference {
		return b.preference - a.preference
	}
	return a.seq - b.seq
}

// Name returns what the feed was named.
func (f *Feed) Name() string { return f.name }

// Len returns how many routes the feed has.
func (f *Feed) Len() int {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return f.routes
}

// Feeds returns all, best first.
func (s *Syncer) Feeds() []*Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.feeds)
}

// Update adds the feed's routes, or replaces them in place. Prefixes are masked, zones removed and IPv4-mapped addresses
// unmapped; a route with an invalid prefix is left out. The routes' NextHops are not kept.
func (f *Feed) Update(routes ...Route) uint64 {
	s := f.s
	rev := uint64(0)
	for part := range slices.Chunk(routes, lockChunk) {
		s.mu.Lock()
		s.rev++
		rev = s.rev
		for i := range part {
			if k, ok := makeKey(part[i].Table, part[i].Prefix); ok {
				f.listLocked(k)
				s.putLocked(f, k, s.internLocked(part[i].Kind, part[i].NextHops))
			}
		}
		s.mu.Unlock()
	}
	s.kick()
	return rev
}

// Withdraw removes the feed's routes. Keys that it has none for are nothing.
func (f *Feed) Withdraw(keys ...Key) uint64 {
	s := f.s
	rev := uint64(0)
	for part := range slices.Chunk(keys, lockChunk) {
		s.mu.Lock()
		s.rev++
		rev = s.rev
		for i := range part {
			if k, ok := makeKey(part[i].Table, part[i].Prefix); ok {
				s.putLocked(f, k, nil)
			}
		}
		s.mu.Unlock()
	}
	s.kick()
	return rev
}

// Replace makes routes all that the feed has: others are withdrawn, equal ones untouched. Of several for one key the last
// counts.
func (f *Feed) Replace(routes []Route) uint64 {
	s := f.s
	keep := make(map[key]struct{}, len(routes))
	for i := range routes {
		if k, ok := makeKey(routes[i].Table, routes[i].Prefix); ok {
			keep[k] = struct{}{}
		}
	}
	f.Update(routes...)
	s.mu.Lock()
	s.rev++
	if f.listed != nil {
		for k := range f.listed {
			if _, ok := keep[k]; !ok {
				s.putLocked(f, k, nil)
			}
		}
	} else {
		s.eachLocked(func(k key, e *entry) {
			if _, ok := keep[k]; !ok && e.of(f) != nil {
				s.putLocked(f, k, nil)
			}
		})
	}
	if f.listed = keep; len(keep) > maxListed {
		f.listed = nil
	}
	rev := s.rev
	s.mu.Unlock()
	s.kick()
	return rev
}

func (f *Feed) listLocked(k key) {
	if f.listed == nil {
		return
	}
	if f.listed[k] = struct{}{}; len(f.listed) > maxListed {
		f.listed = nil
	}
}

// Complete says that the feed has told everything that it knows from the start: BGP's End-of-RIB of all peers (RFC 4724
// §2) or the timer for it, a configuration that is read. When all feeds are complete, left-overs are deleted. Again is
// nothing.
func (f *Feed) Complete() uint64 {
	s := f.s
	s.mu.Lock()
	s.rev++
	f.complete = true
	complete := !slices.ContainsFunc(s.feeds, func(f *Feed) bool { return !f.complete })
	if complete && !s.complete {
		s.scanAsked = true
	}
	s.complete = complete
	rev := s.rev
	s.mu.Unlock()
	s.kick()
	return rev
}

// putLocked sets a feed's candidate for k, nil to remove it, and queues k if its best one changed.
func (s *Syncer) putLocked(f *Feed, k key, act *action) {
	e := s.entries[k]
	if e == nil {
		if act == nil {
			return
		}
		e = s.entryLocked(k)
	}
	old := e.of(f)
	if old == act {
		return
	}
	e.rev = s.rev
	if act != nil && !f.learned {
		e.leftover = false
	}
	f.paths += act.paths() - old.paths()
	switch {
	case old == nil:
		f.routes++
	case act == nil:
		f.routes--
	}
	s.rivals -= len(e.rest)
	best := e.put(f, act)
	s.rivals += len(e.rest)
	s.connectedLocked(k, e, old, act)
	if best || e.best.act.kind == Connected { // what a connected route shadows is part of its state
		s.queueLocked(k, e)
	}
}
