package bgp

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"

	"rlr/fib"
)

// feeder turns GoBGP's best-path events into routes of a Feed. Events for a prefix come in order, and each carries what
// changed; with multipath that is some paths of a set, so the sets are kept here, and only then.
type feeder struct {
	feed      Feed
	multipath int
	peer      func(id netip.Addr) *peer // nil for a neighbour that is gone
	log       *logrus.Entry

	injected injected
	backups  *backups

	mu     sync.Mutex
	sets   map[fib.Key][]member // with multipath
	held   map[fib.Key][]member // what is to be published when all is here; nil: publish at once
	closed bool                 // the speaker ends: the dataplane keeps what it has
	last   time.Time
}

// member is one path of an equal-cost set. A path of our own has no source.
type member struct {
	source netip.Addr
	id     uint32 // of add-path
	hop    fib.NextHop
	usable bool
	last   bool // long-lived stale: a last resort (RFC 9494)
}

// update takes one event.
func (f *feeder) update(paths []*apiutil.Path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.last = time.Now()
	if f.multipath <= 1 {
		for _, p := range paths {
			if p == nil {
				continue
			}
			if key, ok := keyOf(p); ok {
				var set []member
				if !p.Withdrawal {
					set = []member{f.member(p)}
				}
				f.backups.note(false, key)
				f.settle(key, set)
			}
		}
		return
	}
	changed := map[fib.Key]bool{}
	for _, p := range paths {
		if p == nil {
			continue
		}
		if key, ok := keyOf(p); ok {
			f.change(key, p)
			changed[key] = true
		}
	}
	for key := range changed {
		f.backups.note(false, key)
		f.settle(key, f.sets[key])
	}
}

// settle publishes a prefix's best paths, now or when hold ends.
func (f *feeder) settle(key fib.Key, set []member) {
	if f.held != nil {
		f.held[key] = set
		return
	}
	f.publish(key, set)
}

// hold defers the selection of routes (RFC 4724 §4.1) until complete: the dataplane goes on with what an earlier run left in
// it, and is not made to follow each neighbour's routes as they trickle in.
func (f *feeder) hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = map[fib.Key][]member{}
}

// change applies a path to its prefix's set.
func (f *feeder) change(key fib.Key, p *apiutil.Path) {
	set := slices.DeleteFunc(slices.Clone(f.sets[key]), func(m member) bool {
		return m.source == p.PeerAddress && m.id == p.RemoteID
	})
	if !p.Withdrawal {
		set = append(set, f.member(p))
	}
	if len(set) == 0 {
		delete(f.sets, key)
		return
	}
	f.sets[key] = set
}

func (f *feeder) member(p *apiutil.Path) member {
	m := member{source: p.PeerAddress, id: p.RemoteID, last: lastResort(p.Attrs)}
	if !p.PeerAddress.IsValid() {
		m.hop.Addr = nextHopOf(p.Attrs)
		return m
	}
	if from := f.peer(p.PeerAddress); from != nil {
		nh := nextHopOf(p.Attrs)
		m.hop, m.usable = from.forward(p)
		if !m.usable {
			f.log.WithFields(logrus.Fields{"prefix": p.Nlri.String(), "neighbor": from.config().Name, "nexthop": nh.String()}).
				Debug("route has no usable next hop")
		}
	}
	return m
}

// publish hands a prefix's best paths on. Where one of ours is best, or no next hop is usable, BGP has no route to give:
// what we originate is in the dataplane by its own feed.
func (f *feeder) publish(key fib.Key, set []member) {
	hops := f.usedHops(set)
	own := slices.ContainsFunc(set, func(m member) bool { return !m.source.IsValid() })
	f.injected.publish(key, set, own)
	if own || len(hops) == 0 {
		f.feed.Withdraw(key)
		return
	}
	if standby, ok := f.backups.hop(key); ok && !slices.Contains(hops, standby) {
		standby.Backup = true
		hops = append(hops, standby)
	}
	f.feed.Update(fib.Route{Key: key, Kind: fib.Unicast, NextHops: hops})
}

// usedHops are the next hops that packets take.
func (f *feeder) usedHops(set []member) (hops []fib.NextHop) {
	resort := !slices.ContainsFunc(set, func(m member) bool { return !m.last }) // GoBGP leaves such paths in a set with others
	for _, m := range set {
		if m.usable && m.last == resort && !slices.Contains(hops, m.hop) {
			hops = append(hops, m.hop)
		}
	}
	slices.SortFunc(hops, compareHops)
	return hops[:min(len(hops), max(f.multipath, 1))]
}

func compareHops(a, b fib.NextHop) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	switch {
	case a.Interface < b.Interface:
		return -1
	case a.Interface > b.Interface:
		return 1
	}
	return 0
}

// quiet reports whether the feed has had nothing to do for d.
func (f *feeder) quiet(now time.Time, d time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Sub(f.last) >= d
}

// complete says that the neighbours' first routes are here.
func (f *feeder) complete() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for key, set := range f.held {
		f.publish(key, set)
	}
	f.held = nil
	f.feed.Complete()
	f.injected.complete()
}

// close leaves the feed as it is.
func (f *feeder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// lastResort reports whether a path is long-lived stale (RFC 9494 §4.6).
func lastResort(attrs []bgp.PathAttributeInterface) bool {
	for _, a := range attrs {
		if c, ok := a.(*bgp.PathAttributeCommunities); ok {
			return slices.Contains(c.Value, uint32(bgp.COMMUNITY_LLGR_STALE))
		}
	}
	return false
}

func keyOf(p *apiutil.Path) (fib.Key, bool) {
	pfx, ok := prefixOf(p.Nlri)
	return fib.Key{Prefix: pfx}, ok
}

// prefixOf returns the prefix of a unicast NLRI, masked: a peer may send host bits (RFC 4271 §4.3).
func prefixOf(n bgp.NLRI) (netip.Prefix, bool) {
	a, ok := n.(*bgp.IPAddrPrefix)
	if !ok {
		return netip.Prefix{}, false
	}
	return a.Prefix.Masked(), a.Prefix.IsValid()
}
