package bgp

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// adjOut is an Adj-RIB-Out (RFC 4271 §3.2) that neighbours share: what they are to be told, each prefix once, in the order of
// the last changes. Each of them has read it up to some place. So a neighbour that is slow is told of a prefix that changes often
// only the last state, and what waits for it takes no room besides the table.
type adjOut struct {
	number  uint64  // of two, the one with the lower one is locked first
	several [2]bool // paths to a prefix, by family

	mu      sync.Mutex
	at      map[outKey]*advert
	log     []*advert // in the order of the last changes; nil: it has changed again since
	dead    int       // nil ones
	gone    int       // withdrawn ones, which stay until all have read of it
	free    []uint32
	slots   uint32
	sets    map[string]*attrSet
	tellers map[*teller]bool
	idle    []*teller // they have read all
	ends    [2]int    // End-of-RIBs of each family, in GoBGP's session
	epoch   uint32    // goes up before GoBGP tells all: what has not been told after that is gone
	whole   chan struct{}

	told   atomic.Uint32 // how often GoBGP has begun to tell all, in its session
	done   atomic.Uint32 // how often that has been read
	seen   int           // messages since forget was called; of GoBGP's goroutine
	forget func()        // has GoBGP forget what it has told; nil: it must not
}

// outKey is a path for a neighbour. Without ADD-PATH (RFC 7911) the prefix is all there is to it.
type outKey struct {
	prefix netip.Prefix
	id     uint32
}

func (k outKey) family() Family {
	if k.prefix.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// appendTo appends the route as UPDATEs have it (RFC 4271 §4.3, RFC 7911 §3).
func (k outKey) appendTo(b []byte, identifier bool) []byte {
	if identifier {
		b = binary.BigEndian.AppendUint32(b, k.id)
	}
	n := (k.prefix.Bits() + 7) / 8
	b = append(b, byte(k.prefix.Bits()))
	if k.prefix.Addr().Is4() {
		a := k.prefix.Addr().As4()
		return append(b, a[:n]...)
	}
	a := k.prefix.Addr().As16()
	return append(b, a[:n]...)
}

// advert is one path that is announced.
type advert struct {
	key   outKey
	set   *attrSet // nil: it is withdrawn
	at    int      // in the log
	slot  uint32   // in what a neighbour notes of what it was told
	epoch uint32
}

// attrSet is what paths have in common that are announced together.
type attrSet struct {
	text   string // all of it: equal for equal ones
	family Family
	attrs  []attr     // without next hop and routes
	hop    netip.Addr // invalid: ours
	source netip.Addr // BGP Identifier of the neighbour that it is from; invalid for our own
	path   []uint32   // the AS numbers in its AS_PATH
	marked bool       // it has OTC (RFC 9234 §5)
	refs   int
}

func newAdjOut(number uint64, several [2]bool) *adjOut {
	return &adjOut{
		number: number, several: several, at: map[outKey]*advert{}, sets: map[string]*attrSet{},
		tellers: map[*teller]bool{}, whole: make(chan struct{}),
	}
}

func (o *adjOut) isWhole() bool {
	select {
	case <-o.whole:
		return true
	default:
		return false
	}
}

// take applies a message of GoBGP's.
//
// GoBGP v4.8.0 tells a new session its table first, and notes after that that the session is established (handleFSMMessage, and
// fsm.state.Store behind it). What changes in between is told to established sessions only. So what comes before the first
// End-of-RIBs is thrown away, and all is asked for once more: see running.fill. It is whole after the second ones.
func (o *adjOut) take(m any) {
	all := tellsAll(m)
	if all {
		o.told.Add(1)
		defer o.done.Add(1)
	}
	if o.seen++; o.forget != nil && (all || o.seen >= forgetEvery) {
		o.seen = 0
		o.forget()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	eachOutgoing(m, func(p outgoing) {
		family := familyOf(p.GetFamily())
		switch {
		case family == 0:
		case p.IsEOR():
			o.endLocked(family)
		case o.begunLocked():
			if pfx, ok := prefixOf(p.GetNlri()); ok {
				key := outKey{prefix: pfx}
				if o.several[family-1] {
					key.id = p.LocalID()
				}
				o.changeLocked(key, p)
			}
		}
	})
	o.wakeLocked()
}

// begunLocked reports whether changes count.
func (o *adjOut) begunLocked() bool { return o.atLeastLocked(1) }

func (o *adjOut) atLeastLocked(n int) bool { return min(o.ends[0], o.ends[1]) >= n }

func (o *adjOut) endLocked(f Family) {
	if o.ends[f-1]++; !o.atLeastLocked(2) || o.ends[0] != o.ends[1] {
		return
	}
	for _, a := range o.log { // what there was before GoBGP told all anew, and is not any more
		if a != nil && a.set != nil && a.epoch != o.epoch {
			o.putLocked(a.key, nil)
		}
	}
	if !o.isWhole() {
		close(o.whole)
	}
}

// forgetEvery is how many messages GoBGP keeps notes of.
const forgetEvery = 4096

// refresh begins a telling of all.
func (o *adjOut) refresh() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch++
}

// again makes it incomplete: GoBGP's session has ended, and the next one tells all anew.
func (o *adjOut) again() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends = [2]int{}
	o.told.Store(0)
	o.done.Store(0)
	o.epoch++
	if o.isWhole() {
		o.whole = make(chan struct{})
	}
}

// suspend makes those who read it wait, until resume or until GoBGP has told all anew.
func (o *adjOut) suspend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isWhole() {
		o.whole = make(chan struct{})
	}
}

func (o *adjOut) resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.atLeastLocked(2) && !o.isWhole() {
		close(o.whole)
	}
}

// filled reports whether GoBGP has told all that counts.
func (o *adjOut) filled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.atLeastLocked(2)
}

func (o *adjOut) wholeness() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.whole
}

func (o *adjOut) changeLocked(key outKey, p outgoing) {
	if p.withdrawn() {
		o.putLocked(key, nil)
		return
	}
	s := readSet(key.family(), p)
	if old := o.sets[s.text]; old != nil {
		s = old
	}
	o.putLocked(key, s)
}

// readSet reads what a path has besides its prefix.
func readSet(f Family, p outgoing) *attrSet {
	s := &attrSet{family: f, source: p.source(), path: p.GetAsList()}
	var text []byte
	for _, a := range p.GetPathAttrs() {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			s.hop = a.Value.Unmap()
			continue
		case *bgp.PathAttributeMpReachNLRI:
			s.hop = a.Nexthop.Unmap().WithZone("")
			continue
		case *bgp.PathAttributeMpUnreachNLRI:
			continue
		}
		if b, err := a.Serialize(); err == nil { // what GoBGP has read it can write
			text = append(text, b...)
		}
	}
	list := text
	if s.hop == ourselves {
		s.hop = netip.Addr{}
	}
	text = append(text, byte(f))
	text = s.hop.AppendTo(append(text, ' '))
	text = s.source.AppendTo(append(text, ' '))
	s.text = string(text)
	for list = bytes.Clone(list); len(list) > 0; {
		a, rest, whole := cutAttr(list)
		if !whole {
			break
		}
		s.attrs, list = append(s.attrs, a), rest
		s.marked = s.marked || a.typ == attrOTC
	}
	return s
}

// putLocked makes s what is announced for a key; nil withdraws it.
func (o *adjOut) putLocked(key outKey, s *attrSet) {
	a := o.at[key]
	switch {
	case a == nil && s == nil:
		return
	case a == nil:
		a = &advert{key: key, slot: o.slots}
		if n := len(o.free); n > 0 {
			a.slot, o.free = o.free[n-1], o.free[:n-1]
		} else {
			o.slots++
		}
		o.at[key] = a
	case a.set == s:
		a.epoch = o.epoch
		return
	default:
		o.log[a.at] = nil
		o.dead++
		if a.set == nil {
			o.gone--
		} else if a.set.refs--; a.set.refs == 0 {
			delete(o.sets, a.set.text)
		}
	}
	if a.set, a.epoch = s, o.epoch; s == nil {
		o.gone++
	} else {
		s.refs++
		o.sets[s.text] = s
	}
	a.at = len(o.log)
	o.log = append(o.log, a)
	if spare := o.dead + o.gone; spare > len(o.log)/2+1024 {
		o.compactLocked()
	}
}

// compactLocked throws away what nobody reads any more. Everybody's place moves with it.
func (o *adjOut) compactLocked() {
	read := len(o.log)
	for t := range o.tellers {
		read = min(read, t.cursor)
	}
	where := make([]int, len(o.log)+1)
	live := make([]*advert, 0, len(o.log)-o.dead)
	for i, a := range o.log {
		where[i] = len(live)
		switch {
		case a == nil:
		case a.set == nil && i < read:
			delete(o.at, a.key)
			o.free = append(o.free, a.slot)
			o.gone--
		default:
			a.at = len(live)
			live = append(live, a)
		}
	}
	where[len(o.log)] = len(live)
	o.log, o.dead = live, 0
	for t := range o.tellers {
		if t.cursor = where[t.cursor]; t.endAt >= 0 {
			t.endAt = where[t.endAt]
		}
	}
}

func (o *adjOut) wakeLocked() {
	for _, t := range o.idle {
		t.poke()
	}
	o.idle = o.idle[:0]
}

// join lets t read it from the beginning.
func (o *adjOut) join(t *teller) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tellers[t] = true
	t.fromStartLocked()
}

// leave reports whether t was the last one.
func (o *adjOut) leave(t *teller) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.tellers, t)
	o.idle = slices.DeleteFunc(o.idle, func(i *teller) bool { return i == t })
	return len(o.tellers) == 0
}

// slotSet are the adverts that a neighbour has been told, by their slots.
type slotSet []uint64

func (s slotSet) has(i uint32) bool {
	return int(i/64) < len(s) && s[i/64]&(1<<(i%64)) != 0
}

func (s *slotSet) put(i uint32) {
	for int(i/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

func (s slotSet) drop(i uint32) { s[i/64] &^= 1 << (i % 64) }

func (s slotSet) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}
