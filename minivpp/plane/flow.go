package plane

// Flows that a rule has reflected: their packets pass by an interface without a look at rules, and the answers the other way.
// As in VPP (src/plugins/acl/session_inlines.h) a flow is of one interface, and ends when it was idle for long.
//
// The table is bounded. Nothing runs while no flow comes: each new one looks at some of the oldest of each kind, which removes
// more than comes. A packet of a flow takes the lock for reading, and for writing only when TCP's state makes it another kind.

import (
	"sync"
	"sync/atomic"
	"time"
)

// MaxFlows is the number of flows that there may be.
const MaxFlows = 1 << 16

// flowKey is one direction of a flow.
type flowKey struct {
	src, dst addr128
	ports    [2]uint16
	serial   uint32 // of the interface
	proto    uint8
	ip6      bool
	input    bool
	odd      bool // of a protocol without ports, a whole packet or its first fragment
}

// Kinds of flows, by how long they may be idle.
const (
	flowTransient = iota // TCP before both sides have sent SYN and ACK, and after FIN or RST
	flowTCP
	flowOther
	flowKinds
)

// flowLife is for how long: VPP's defaults (src/plugins/acl/acl.h).
var flowLife = [flowKinds]int64{int64(120 * time.Second), int64(24 * time.Hour), int64(600 * time.Second)}

// flow is an entry under one or two keys.
type flow struct {
	key, back flowKey
	answers   bool             // there is a way back
	last      atomic.Int64     // when a packet was seen
	flags     [2]atomic.Uint32 // of TCP that went out, and came in

	// Guarded by flows.mu.
	kind       int
	queued     int64 // when it was put into its list
	prev, next *flow
}

// flows is the table. The lists have those first that were put in first.
type flows struct {
	any   atomic.Int64 // how many
	limit int

	mu    sync.RWMutex
	table map[flowKey]*flow
	lists [flowKinds]struct{ head, tail *flow }
}

func (t *flows) init() { t.table, t.limit = map[flowKey]*flow{}, MaxFlows }

// kindOf is fa_session_get_timeout_type.
func (f *flow) kindOf() int {
	const fin, syn, rst, ack = 1, 2, 4, 16
	if f.key.proto != protoTCP {
		return flowOther
	}
	for k := range f.flags {
		if f.flags[k].Load()&(fin|syn|rst|ack) != syn|ack {
			return flowTransient
		}
	}
	return flowTCP
}

// seen reports whether a packet belongs to a flow, and notes it.
func (t *flows) seen(key *flowKey, flags uint8, now int64) bool {
	t.mu.RLock()
	f := t.table[*key]
	kind := 0
	if f != nil {
		kind = f.kind
	}
	t.mu.RUnlock()
	if f == nil || f.last.Load()+flowLife[kind] < now {
		return false
	}
	f.last.Store(now)
	t.track(f, key.input, flags, kind, now)
	return true
}

// track notes TCP's flags.
func (t *flows) track(f *flow, input bool, flags uint8, kind int, now int64) {
	if f.key.proto != protoTCP {
		return
	}
	side := &f.flags[0]
	if input {
		side = &f.flags[1]
	}
	if old := side.Load(); old|uint32(flags) == old {
		return
	}
	side.Or(uint32(flags))
	if f.kindOf() == kind {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.table[f.key] == f { // and not removed meanwhile
		t.unlink(f)
		t.link(f, now)
	}
}

// add makes a flow of its first packet. It says no when the table is full of flows that must not go.
func (t *flows) add(key *flowKey, flags uint8, now int64) bool {
	f := &flow{key: *key}
	f.back, f.answers = key.reverse()
	f.last.Store(now)
	side := 0
	if key.input {
		side = 1
	}
	f.flags[side].Store(uint32(flags))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	if old := t.table[*key]; old != nil {
		t.remove(old)
	}
	if int(t.any.Load()) >= t.limit {
		oldest := t.lists[flowTransient].head
		if oldest == nil {
			return false
		}
		t.remove(oldest)
	}
	if f.answers {
		t.table[f.back] = f
	}
	t.table[f.key] = f
	t.link(f, now)
	t.any.Add(1)
	return true
}

// reverse is the key of answers. Of ICMP only requests have such.
func (k *flowKey) reverse() (flowKey, bool) {
	r := *k
	r.src, r.dst, r.input = k.dst, k.src, !k.input
	r.ports = [2]uint16{k.ports[1], k.ports[0]}
	if !k.odd || k.ip6 && k.proto != protoICMPv6 || !k.ip6 && k.proto != protoICMP {
		return r, true
	}
	answers := map4Answers
	if k.ip6 {
		answers = map6Answers
	}
	r.ports[0], r.ports[1] = uint16(answers[uint8(k.ports[0])]), k.ports[1]
	return r, answers[uint8(k.ports[0])] != noAnswer
}

// noAnswer is a type that no message has as its answer.
const noAnswer = 255

// map4Answers and map6Answers are icmp4_invmap and icmp6_invmap: the type of the answer to a type.
var (
	map4Answers = answersOf(icmp4Echo, icmp4EchoReply, 13, 14, 15, 16, 17, 18)
	map6Answers = answersOf(icmp6Echo, icmp6EchoReply, 139, 140)
)

func answersOf(pairs ...uint8) (m [256]uint8) {
	for k := range m {
		m[k] = noAnswer
	}
	for k := 0; k < len(pairs); k += 2 {
		m[pairs[k]] = pairs[k+1]
	}
	return m
}

// sweep looks at the oldest of each kind: those that were idle for too long go, those that were not are looked at again when
// they could be.
func (t *flows) sweep(now int64) {
	const most = 4
	for kind := range t.lists {
		for range most {
			f := t.lists[kind].head
			if f == nil || f.queued+flowLife[kind] >= now {
				break
			}
			if last := f.last.Load(); last+flowLife[kind] >= now {
				t.unlink(f)
				t.link(f, now)
			} else {
				t.remove(f)
			}
		}
	}
}

func (t *flows) link(f *flow, now int64) {
	f.kind, f.queued = f.kindOf(), now
	l := &t.lists[f.kind]
	f.prev, f.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = f
	} else {
		l.head = f
	}
	l.tail = f
}

func (t *flows) unlink(f *flow) {
	l := &t.lists[f.kind]
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		l.head = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		l.tail = f.prev
	}
	f.prev, f.next = nil, nil
}

func (t *flows) remove(f *flow) {
	t.unlink(f)
	for _, key := range []*flowKey{&f.key, &f.back} {
		if t.table[*key] == f { // a later flow may have the way back
			delete(t.table, *key)
		}
	}
	t.any.Add(-1)
}

// forget ends the flows of an interface.
func (t *flows) forget(serial uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind := range t.lists {
		for f := t.lists[kind].head; f != nil; {
			next := f.next
			if f.key.serial == serial {
				t.remove(f)
			}
			f = next
		}
	}
}
