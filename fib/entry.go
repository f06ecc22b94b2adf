package fib

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// What is kept for each of perhaps a million keys is kept small: 24 bytes of key without a pointer, 64 of entry. What a
// route does (kind and next hops) is shared between all routes that do the same, and compared by its address. What only
// few routes have (an error, a time to try again) is beside, in Syncer.troubles.

// key is Key without pointers: a netip.Prefix takes 32 bytes and hashes slowly.
type key struct {
	addr  [16]byte // IPv4 in the first four
	table uint32
	bits  uint8
	v4    bool
}

// makeKey normalizes: masked, and an IPv4-mapped prefix is the IPv4 one. ok is false for an invalid prefix.
func makeKey(table uint32, p netip.Prefix) (k key, ok bool) {
	if !p.IsValid() {
		return key{}, false
	}
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	m, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return key{}, false
	}
	k = key{table: table, bits: uint8(bits), v4: a.Is4()}
	if k.v4 {
		b := m.Addr().As4()
		copy(k.addr[:], b[:])
	} else {
		k.addr = m.Addr().As16()
	}
	return k, true
}

func (k key) netAddr() netip.Addr {
	if k.v4 {
		return netip.AddrFrom4([4]byte(k.addr[:4]))
	}
	return netip.AddrFrom16(k.addr)
}

func (k key) public() Key {
	return Key{Table: k.table, Prefix: netip.PrefixFrom(k.netAddr(), int(k.bits))}
}

// compareKeys orders by table, family, address and length.
func compareKeys(a, b key) int {
	if c := cmp.Compare(a.table, b.table); c != 0 {
		return c
	}
	if a.v4 != b.v4 {
		if a.v4 {
			return -1
		}
		return 1
	}
	if c := bytes.Compare(a.addr[:], b.addr[:]); c != 0 {
		return c
	}
	return int(a.bits) - int(b.bits)
}

// action is what a route does. There is one in Syncer.actions for each that is in use, so equal actions are the same
// pointer. It never changes, but for mark.
type action struct {
	kind   Kind
	hops   []NextHop // sorted, without doubles; weights are at least 1
	lookup bool      // a next hop has an address and no interface, so the connected routes are asked
	mark   uint32    // the latest round of sweepActions in which it was in use
}

// unknown stands in entry.have for a route that the dataplane may hold, with whatever next hops. It equals nothing that is
// wanted, so it is written or deleted.
var unknown = &action{}

func (a *action) route(k key) Route {
	return Route{Key: k.public(), Kind: a.kind, NextHops: a.hops}
}

// candidate is a feed's action for a key.
type candidate struct {
	act  *action
	feed *Feed
}

// entry is want and have of one key.
type entry struct {
	best     candidate   // feed nil: nobody wants the key
	rest     []candidate // the other feeds' candidates, best first
	have     *action     // what the dataplane holds of ours: set by a confirmed reply or a dump only; nil nothing
	rev      uint64      // Syncer.rev at the latest change by a feed
	round    uint32      // the dump that saw it last
	state    State
	queued   bool // in Syncer.urgent or Syncer.queue
	leftover bool // the dataplane held it before anybody wanted it
	waits    bool // in Syncer.crowd
}

// wanted says whether a feed of ours wants the key: what is only learned is the dataplane's own already.
func (e *entry) wanted() bool { return e.best.feed != nil && !e.best.feed.learned }

// put sets a feed's candidate (act nil: removes it), and says whether the best one is another now.
func (e *entry) put(f *Feed, act *action) bool {
	old := e.best
	if len(e.rest) == 0 && (old.feed == nil || old.feed == f) { // nearly always
		e.best = candidate{}
		if act != nil {
			e.best = candidate{act, f}
		}
		return e.best != old
	}
	all := e.rest
	if e.best.feed != nil {
		all = append([]candidate{e.best}, e.rest...)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.feed == f })
	if act != nil {
		at, _ := slices.BinarySearchFunc(all, f, func(c candidate, f *Feed) int { return compareFeeds(c.feed, f) })
		all = slices.Insert(all, at, candidate{act, f})
	}
	e.best, e.rest = candidate{}, nil
	if len(all) > 0 {
		e.best = all[0]
	}
	if len(all) > 1 {
		e.rest = slices.Clip(all[1:])
	}
	return e.best != old
}

// of returns a feed's candidate action, or nil.
func (e *entry) of(f *Feed) *action {
	if e.best.feed == f {
		return e.best.act
	}
	for _, c := range e.rest {
		if c.feed == f {
			return c.act
		}
	}
	return nil
}

// internLocked returns the action that is equal to kind and hops.
func (s *Syncer) internLocked(kind Kind, hops []NextHop) *action {
	if kind != Unicast && kind != Connected {
		hops = nil
	}
	hops = s.normalizeLocked(hops)
	buf := s.scratch[:0]
	buf = append(buf, byte(kind))
	for _, h := range hops {
		addr := h.Addr.AsSlice()
		standby := byte(0)
		if h.Backup {
			standby = 1
		}
		buf = append(buf, standby, h.Weight, byte(len(addr)))
		buf = append(buf, addr...)
		buf = binary.AppendUvarint(buf, uint64(len(h.Interface)))
		buf = append(buf, h.Interface...)
	}
	s.scratch = buf
	act := s.actions[string(buf)]
	if act == nil {
		act = &action{kind: kind, hops: slices.Clone(hops)}
		for _, h := range hops {
			act.lookup = act.lookup || (kind == Unicast && h.Interface == "" && h.Addr.IsValid())
		}
		s.actions[string(buf)] = act
	}
	act.mark = s.actionRound
	return act
}

// normalizeLocked returns hops sorted, without doubles, zones and IPv4-mapped addresses, in a buffer that the next call
// uses again.
func (s *Syncer) normalizeLocked(hops []NextHop) []NextHop {
	s.hops = s.hops[:0]
	for _, h := range hops {
		h.Addr = h.Addr.Unmap().WithZone("")
		if h.Weight == 0 {
			h.Weight = 1
		}
		s.hops = append(s.hops, h)
	}
	if len(s.hops) > 1 {
		s.hops = sortHops(s.hops)
	}
	return s.hops
}

// sortHops sorts hops in place, backups last, without doubles: what is used anyway is no backup.
func sortHops(hops []NextHop) []NextHop {
	slices.SortFunc(hops, compareHops)
	hops = slices.Compact(hops)
	if len(hops) == 0 || !hops[len(hops)-1].Backup {
		return hops
	}
	used := slices.IndexFunc(hops, func(h NextHop) bool { return h.Backup })
	return append(hops[:used], slices.DeleteFunc(hops[used:], func(b NextHop) bool {
		return slices.ContainsFunc(hops[:used], func(h NextHop) bool { return h.Addr == b.Addr && h.Interface == b.Interface })
	})...)
}

func compareHops(a, b NextHop) int {
	if a.Backup != b.Backup {
		if a.Backup {
			return 1
		}
		return -1
	}
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if c := strings.Compare(a.Interface, b.Interface); c != 0 {
		return c
	}
	return int(a.Weight) - int(b.Weight)
}
