package bgp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// teller tells one neighbour, over one session, what an Adj-RIB-Out has: all of it, then an End-of-RIB, then each change.
type teller struct {
	r       *running
	sess    *session
	wire    *wire
	shape   *traffic
	id      netip.Addr // the neighbour's BGP Identifier
	as      uint32
	marks   bool // it knows of graceful restart: it gets End-of-RIBs
	class   atomic.Uint32
	updates atomic.Uint64 // sent
	count   [2]atomic.Uint64
	wake    chan struct{} // holds one when there is something to do

	mu  sync.Mutex // guards that out changes
	out *adjOut

	// Of the goroutine, and guarded by out.mu.
	cursor int // all before it in out.log has been read
	endAt  int // when all before it has been read an End-of-RIB is due; negative: what there is when reading begins
	owes   bool
	first  []*advert // besides the log, and before it
	taken  []outKey  // to be withdrawn before all else
	sent   slotSet
}

const (
	// tellPace is how long changes are collected once some have been sent. The first after a pause goes out at once.
	tellPace = 20 * time.Millisecond
	// tellBatch is how many paths are looked at in one go: the Adj-RIB-Out is locked meanwhile.
	tellBatch = 4096
)

func (t *teller) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run works until the session ends. It returns what it has read last. After a restart of ours it waits until announcing may begin,
// but no longer than the neighbour keeps our old routes.
func (t *teller) run(g *shared) *shared {
	deferral := time.NewTimer(advertDeferral(t.r.deferral))
	defer deferral.Stop()
	select {
	case <-t.r.export.gate:
	case <-deferral.C:
	case <-t.sess.ended:
		return g
	}
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		if c := t.class.Load(); c != g.key.class {
			key := g.key
			key.class = c
			next := t.r.join(key)
			if !t.await(next.out) {
				t.r.leave(next)
				return g
			}
			t.move(g.out, next.out)
			t.r.leave(g)
			g = next
		}
		if !t.await(g.out) {
			return g
		}
		msgs, all := t.read(g.key.class)
		if len(msgs) > 0 && !t.sess.tell(t.wire, msgs) {
			return g
		}
		if !all {
			continue
		}
		pace.Reset(tellPace)
		select {
		case <-t.wake:
		case <-t.sess.ended:
			return g
		}
		select {
		case <-pace.C:
		case <-t.sess.ended:
			return g
		}
	}
}

// await waits until an Adj-RIB-Out is whole; false: the session has ended.
func (t *teller) await(o *adjOut) bool {
	select {
	case <-o.wholeness():
		return true
	case <-t.sess.ended:
		return false
	}
}

// goOn makes it tell what a class is told from now on.
func (t *teller) goOn(class uint32) {
	if class != 0 && t.class.Swap(class) != class {
		t.poke()
	}
}

// again tells everything once more.
func (t *teller) again() {
	t.mu.Lock()
	o := t.out
	t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tellers[t] {
		t.fromStartLocked()
		t.poke()
	}
}

func (t *teller) fromStartLocked() { t.cursor, t.endAt, t.owes = 0, -1, true }

// move goes from one Adj-RIB-Out to another: what differs is told.
func (t *teller) move(a, b *adjOut) {
	if a.number < b.number {
		a.mu.Lock()
		b.mu.Lock()
	} else {
		b.mu.Lock()
		a.mu.Lock()
	}
	had, untold := t.sent, map[*advert]bool{}
	for _, o := range t.first {
		untold[o] = true
	}
	t.mu.Lock()
	t.out = b
	t.mu.Unlock()
	t.sent, t.first = nil, nil
	for key, n := range b.at {
		if n.set == nil {
			continue
		}
		o := a.at[key]
		told := o != nil && had.has(o.slot) // something of it
		if told {
			t.sent.put(n.slot)
		}
		if same := told && o.set != nil && o.at < t.cursor && !untold[o] && o.set.text == n.set.text; !same || !t.sees(n) {
			t.first = append(t.first, n)
		}
	}
	for key, o := range a.at {
		if n := b.at[key]; had.has(o.slot) && (n == nil || n.set == nil) {
			t.taken = append(t.taken, key)
		}
	}
	slices.SortFunc(t.first, func(x, y *advert) int { return x.at - y.at })
	delete(a.tellers, t)
	a.idle = slices.DeleteFunc(a.idle, func(i *teller) bool { return i == t })
	b.tellers[t] = true
	t.cursor, t.endAt = len(b.log), len(b.log)
	t.countLocked(b)
	a.mu.Unlock()
	b.mu.Unlock()
}

func (t *teller) countLocked(o *adjOut) {
	var n [2]uint64
	for _, a := range o.at {
		if t.sent.has(a.slot) {
			n[a.key.family()-1]++
		}
	}
	t.count[0].Store(n[0])
	t.count[1].Store(n[1])
}

// read returns UPDATEs for the next changes, and whether these are all. It notes that they have been told. There are none while the
// Adj-RIB-Out is not whole, and for who is in another class by now.
func (t *teller) read(class uint32) (msgs []byte, all bool) {
	o := t.out
	o.mu.Lock()
	if !o.isWhole() || t.class.Load() != class {
		o.mu.Unlock()
		return nil, false
	}
	if t.endAt < 0 {
		t.endAt = len(o.log)
	}
	b := batch{t: t, at: map[*attrSet]int{}}
	for _, key := range t.taken {
		b.withdraw(key)
	}
	t.taken = nil
	left := tellBatch
	for ; len(t.first) > 0 && left > 0; left-- {
		b.add(t.first[0])
		t.first = t.first[1:]
	}
	for ; t.cursor < len(o.log) && left > 0; t.cursor++ {
		if a := o.log[t.cursor]; a != nil {
			b.add(a)
			left--
		}
	}
	end := t.owes && len(t.first) == 0 && t.cursor >= t.endAt
	if end {
		t.owes = false
	}
	if all = len(t.first) == 0 && t.cursor == len(o.log); all {
		o.idle = append(o.idle, t)
	}
	o.mu.Unlock()
	msgs = b.messages()
	for rest := msgs; len(rest) > 0; rest = rest[binary.BigEndian.Uint16(rest[16:]):] {
		t.updates.Add(1)
	}
	if end && t.marks {
		msgs = append(msgs, endOfRIB(t.shape.families)...)
	}
	return msgs, all
}

// sees reports whether the neighbour is told of a path. It is not told of its own, nor of one that has been through its AS, and
// not of one that it could not use.
func (t *teller) sees(a *advert) bool {
	s := a.set
	switch {
	case s == nil, !slices.Contains(t.shape.families, s.family):
		return false
	case s.source.IsValid() && s.source == t.id:
		return false
	case !t.shape.internal && slices.Contains(s.path, t.as):
		return false
	case s.marked && t.shape.otc != nil && !t.shape.otc.role.down():
		return false // RFC 9234 §5: it came from above or beside, and must not go there
	}
	return len(t.shape.hop(s)) > 0
}

// batch is what goes out in one go.
type batch struct {
	t         *teller
	withdrawn [2][]byte
	runs      []together
	at        map[*attrSet]int
}

// together is routes with the same attributes.
type together struct {
	set    *attrSet
	routes []byte
}

func (b *batch) identifier(f Family) bool { return b.t.shape.idsOut(f.wire()) > 0 }

func (b *batch) withdraw(key outKey) {
	f := key.family()
	b.withdrawn[f-1] = key.appendTo(b.withdrawn[f-1], b.identifier(f))
}

func (b *batch) add(a *advert) {
	t, f := b.t, a.key.family()
	if !t.sees(a) {
		if t.sent.has(a.slot) {
			t.sent.drop(a.slot)
			t.count[f-1].Add(^uint64(0))
			b.withdraw(a.key)
		}
		return
	}
	i, there := b.at[a.set]
	if !there {
		i = len(b.runs)
		b.at[a.set] = i
		b.runs = append(b.runs, together{set: a.set})
	}
	b.runs[i].routes = a.key.appendTo(b.runs[i].routes, b.identifier(f))
	if !t.sent.has(a.slot) {
		t.sent.put(a.slot)
		t.count[f-1].Add(1)
	}
}

// messages packs it: withdrawals first.
func (b *batch) messages() (all []byte) {
	for i, routes := range b.withdrawn {
		all = b.t.shape.pack(all, Family(i+1), nil, nil, routes)
	}
	for _, r := range b.runs {
		hop := b.t.shape.hop(r.set)
		all = b.t.shape.pack(all, r.set.family, b.t.shape.dress(r.set, hop), hop, r.routes)
	}
	return all
}

// pack appends UPDATEs (RFC 4271 §4.3) that announce routes with these attributes, or withdraw them where there is no next hop. What
// is of MP-BGP (RFC 4760 §3, §4) is the first attribute, as RFC 7606 §5.1 wants it.
func (t *traffic) pack(all []byte, f Family, attrs []byte, hop hopBytes, routes []byte) []byte {
	if len(routes) == 0 {
		return all
	}
	plain := f == IPv4 && len(hop) != 16 // routes outside of attributes
	var head []byte                      // of the attribute that has the routes
	if !plain {
		head = []byte{byte(bgp.BGP_ATTR_FLAG_OPTIONAL | bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH), byte(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI), 0, 0}
		head = append(binary.BigEndian.AppendUint16(head, f.wire().Afi()), f.wire().Safi())
		if len(hop) > 0 {
			head[1] = byte(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
			head = append(append(append(head, byte(len(hop))), hop...), 0)
		}
	}
	room, id := t.limit-headerLen-2-2-len(head)-len(attrs), t.idsOut(f.wire())
	for len(routes) > 0 {
		n := 0
		for n < len(routes) {
			next := routeLen(routes[n:], id)
			if next == 0 || n+next > room {
				break
			}
			n += next
		}
		if n == 0 {
			t.log.Error("the attributes of a route leave no room for it in an UPDATE: it is not announced to the BGP neighbor")
			return all
		}
		all = append(all, marker[:]...)
		all = binary.BigEndian.AppendUint16(all, uint16(headerLen+2+2+len(head)+len(attrs)+n))
		all = append(all, bgp.BGP_MSG_UPDATE)
		switch {
		case !plain:
			all = binary.BigEndian.AppendUint16(append(all, 0, 0), uint16(len(head)+n+len(attrs)))
			at := len(all)
			all = append(append(append(all, head...), routes[:n]...), attrs...)
			binary.BigEndian.PutUint16(all[at+2:], uint16(len(head)-4+n))
		case len(hop) == 0:
			all = append(binary.BigEndian.AppendUint16(all, uint16(n)), routes[:n]...)
			all = append(all, 0, 0)
		default:
			all = binary.BigEndian.AppendUint16(append(all, 0, 0), uint16(len(attrs)))
			all = append(append(all, attrs...), routes[:n]...)
		}
		routes = routes[n:]
	}
	return all
}

// marker begins each message.
var marker = [16]byte(bytes.Repeat([]byte{0xff}, 16))

// hop is the next hop that the neighbour is told with a path; empty where there is none that it could use.
func (t *traffic) hop(s *attrSet) hopBytes {
	hop, own := s.hop, t.self[s.family-1]
	// Within our AS next hops go on as they came (RFC 4271 §5.1.3), unless they say nothing on another link.
	if !hop.IsValid() || hop.IsUnspecified() || isLinkLocal(hop) {
		if t.plain(s.family, own) {
			return own
		}
		return t.instead()
	}
	var b hopBytes
	if s.family == IPv6 {
		b16 := hop.As16()
		return b16[:]
	}
	b = hop.AsSlice()
	if t.plain(s.family, b) {
		return b
	}
	return t.instead()
}

// plain reports whether the neighbour takes such a next hop: not an IPv6 one of an IPv4 route unless it has said so (RFC 8950 §4).
func (t *traffic) plain(f Family, hop hopBytes) bool { return f == IPv6 || len(hop) == 4 || t.mixed }

// instead is our IPv4 next hop, for one that the neighbour does not take.
func (t *traffic) instead() hopBytes {
	if own := t.self[0]; len(own) == 4 {
		return own
	}
	return nil
}

// dress are the attributes that the neighbour is told with a path and this next hop, without those of MP-BGP.
func (t *traffic) dress(s *attrSet, hop hopBytes) (list []byte) {
	u := update{attrs: slices.Clone(s.attrs)}
	if t.otc != nil && !s.marked && !t.otc.role.up() {
		u.put(attr{optTransitive, attrOTC, binary.BigEndian.AppendUint32(nil, t.otc.own)})
	}
	if t.farewell.Load() {
		u.sayFarewell(t.internal)
	}
	if !t.as4 {
		u.twoBytes()
	}
	if s.family == IPv4 && len(hop) == 4 {
		u.put(attr{wellKnown, bgp.BGP_ATTR_TYPE_NEXT_HOP, hop})
	}
	for _, a := range u.attrs {
		list = a.append(list)
	}
	return list
}
