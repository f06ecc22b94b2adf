package fib

import (
	"net/netip"
	"slices"
)

// Walk visits all entries, ordered by table, IPv4 before IPv6, address and length, until visit says false. It works on the
// keys of the moment it was called; an entry is as it is when it is visited, and is left out if it has gone by then. visit
// may call any method.
func (s *Syncer) Walk(visit func(Entry) bool) {
	s.mu.Lock()
	keys := make([]key, 0, len(s.entries))
	s.eachLocked(func(k key, _ *entry) { keys = append(keys, k) })
	s.mu.Unlock()
	slices.SortFunc(keys, compareKeys)
	buf := make([]Entry, 0, min(len(keys), lockChunk))
	for part := range slices.Chunk(keys, lockChunk) {
		buf = buf[:0]
		s.mu.Lock()
		for _, k := range part {
			if e := s.entries[k]; e != nil {
				buf = append(buf, s.snapshotLocked(k, e))
			}
		}
		s.mu.Unlock()
		for _, e := range buf {
			if !visit(e) {
				return
			}
		}
	}
}

// Count is how many routes and paths there are.
type Count struct {
	Routes    int // keys
	Paths     int // next hops, or one where there are none, of all candidates; of left-overs, what the dataplane holds
	Installed int
	Failed    int
	Feeds     map[string]FeedCount
}

// FeedCount is a feed's part of a Count.
type FeedCount struct {
	Routes int
	Paths  int
}

// Count counts. The numbers of states are kept, paths are counted in one pass.
func (s *Syncer) Count() Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := Count{Feeds: make(map[string]FeedCount)}
	for _, f := range s.feeds {
		n.Feeds[f.name] = FeedCount{Routes: f.routes, Paths: f.paths}
		n.Paths += f.paths
	}
	n.Routes, n.Installed, n.Failed = len(s.entries), s.states[Installed], s.states[Failed]
	if s.states[Stale]+s.states[Queued] == 0 {
		return n
	}
	s.eachLocked(func(_ key, e *entry) { // what nobody wants is stale, or about to go
		if e.best.feed == nil && e.have != nil {
			n.Paths += e.have.paths()
		} else if e.best.feed == nil {
			n.Paths++
		}
	})
	return n
}

func (a *action) paths() int {
	if a == nil {
		return 0
	}
	return max(len(a.hops), 1)
}

// Get returns the entry of exactly that key.
func (s *Syncer) Get(pk Key) (Entry, bool) {
	k, ok := makeKey(pk.Table, pk.Prefix)
	if !ok {
		return Entry{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		return Entry{}, false
	}
	return s.snapshotLocked(k, e), true
}

// Lookup returns the entry with the longest prefix that contains addr, whatever its state.
func (s *Syncer) Lookup(table uint32, addr netip.Addr) (found Entry, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	matches(table, addr, func(k key) bool {
		e := s.entries[k]
		if e == nil {
			return false
		}
		found, ok = s.snapshotLocked(k, e), true
		return true
	})
	return found, ok
}

func (s *Syncer) snapshotLocked(k key, e *entry) Entry {
	out := Entry{Key: k.public(), State: e.state, Revision: e.rev, Best: Route{Key: k.public()}}
	if t := s.troubles[k]; t != nil && (e.state == Pending || e.state == Failed) {
		out.Err = t.err
	}
	if e.best.feed == nil {
		if e.have != nil {
			out.Best = e.have.route(k)
		}
		return out
	}
	out.Candidates = make([]Candidate, 0, 1+len(e.rest))
	add := func(c candidate) {
		out.Candidates = append(out.Candidates, Candidate{
			Feed: c.feed.name, Preference: c.feed.preference, Route: s.resolveLocked(k.table, c.act).route(k),
		})
	}
	add(e.best)
	for _, c := range e.rest {
		add(c)
	}
	out.Best = out.Candidates[0].Route
	return out
}
