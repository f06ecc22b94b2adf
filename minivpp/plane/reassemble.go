package plane

// Reassembly of packets for this node (RFC 791 §3.2, RFC 8200 §4.5). Forwarded fragments pass untouched.
//
// The memory is bounded for the whole router; old attempts go when a new fragment comes, so nothing runs while there are none.
// Fragments that overlap condemn the packet: RFC 5722 says so for IPv6, and nobody honest sends them in IPv4.

import (
	"slices"
	"sync"
	"time"
)

const (
	maxAttempts      = 64
	maxFragmentBytes = 512 << 10
	fragmentLife     = int64(30 * time.Second)
	maxPacket        = 65535
)

type fragmentKey struct {
	src, dst     [16]byte
	id           uint32
	table, scope uint32
	proto        byte
	ip6          bool
}

type fragment struct {
	at   int
	data []byte
}

type attempt struct {
	key    fragmentKey
	since  int64
	header []byte // of the fragment at offset 0, without a fragment header; IPv6: up to it
	parts  []fragment
	size   int // of the payload; -1 until the last fragment is here
	bytes  int
	next   byte // IPv6: protocol after the fragment header
	field  int  // IPv6: offset in header of the byte that names the next protocol
	broken bool
}

type reassembler struct {
	mu       sync.Mutex
	attempts map[fragmentKey]*attempt
	order    []*attempt // oldest first
	bytes    int
}

func (r *reassembler) init() { r.attempts = map[fragmentKey]*attempt{} }

// add4 takes a fragment and returns the whole packet when it was the last that was missing.
func (r *reassembler) add4(b []byte, table uint32, now int64) []byte {
	ihl := int(b[0]&15) * 4
	key := fragmentKey{id: uint32(get16(b[4:])), table: table, proto: b[9]}
	copy(key.src[:], b[12:16])
	copy(key.dst[:], b[16:20])
	field := get16(b[6:])
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.add(key, int(field&0x1fff)*8, field&0x2000 != 0, b[ihl:], now)
	if a != nil && field&0x1fff == 0 && a.header == nil {
		a.header = slices.Clone(b[:ihl])
	}
	whole := r.finish(a)
	if whole == nil {
		return nil
	}
	hl := len(a.header)
	put16(whole[2:], uint16(len(whole)))
	put16(whole[6:], 0)
	put16(whole[10:], 0)
	put16(whole[10:], checksum(whole[:hl]))
	return whole
}

// add6 takes a fragment whose fragment header is at offset at.
func (r *reassembler) add6(b []byte, at int, table, scope uint32, now int64) []byte {
	key := fragmentKey{id: get32(b[at+4:]), table: table, scope: scope, ip6: true}
	copy(key.src[:], b[8:24])
	copy(key.dst[:], b[24:40])
	field := get16(b[at+2:])
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.add(key, int(field&^7), field&1 != 0, b[at+8:], now)
	if a != nil && field&^7 == 0 && a.header == nil {
		a.header = slices.Clone(b[:at])
		a.next, a.field = b[at], nextHeaderField(b, at)
	}
	whole := r.finish(a)
	if whole == nil {
		return nil
	}
	whole[a.field] = a.next
	put16(whole[4:], uint16(len(whole)-header6Len))
	return whole
}

// add puts a fragment into its attempt and returns it, nil when it cannot become a packet.
func (r *reassembler) add(key fragmentKey, at int, more bool, data []byte, now int64) *attempt {
	for len(r.order) > 0 && (r.order[0].since+fragmentLife < now || len(r.order) > maxAttempts || r.bytes > maxFragmentBytes) {
		r.remove(r.order[0])
	}
	a := r.attempts[key]
	if a == nil {
		a = &attempt{key: key, since: now, size: -1}
		r.attempts[key] = a
		r.order = append(r.order, a)
	}
	end := at + len(data)
	if end > maxPacket-header6Len || len(data) == 0 || (more && len(data)%8 != 0) {
		a.broken = true
	}
	if a.broken { // its rest is thrown away until it expires
		return nil
	}
	if !more {
		if a.size >= 0 && a.size != end {
			a.broken = true
			return nil
		}
		a.size = end
	}
	i, found := slices.BinarySearchFunc(a.parts, at, func(f fragment, at int) int { return f.at - at })
	if found && len(a.parts[i].data) == len(data) {
		return a // a duplicate
	}
	if found || (i > 0 && a.parts[i-1].at+len(a.parts[i-1].data) > at) || (i < len(a.parts) && a.parts[i].at < end) {
		r.bytes -= a.bytes
		a.parts, a.bytes, a.broken = nil, 0, true
		return nil
	}
	a.parts = slices.Insert(a.parts, i, fragment{at, slices.Clone(data)})
	a.bytes += len(data)
	r.bytes += len(data)
	return a
}

// finish returns the packet when all parts are there.
func (r *reassembler) finish(a *attempt) []byte {
	if a == nil || a.size < 0 || a.bytes != a.size || a.header == nil {
		return nil
	}
	r.remove(a)
	if len(a.header)+a.size > maxPacket {
		return nil
	}
	whole := append(make([]byte, 0, len(a.header)+a.size), a.header...)
	for _, f := range a.parts {
		if len(whole) != len(a.header)+f.at { // a part beyond the end that the last one claims
			return nil
		}
		whole = append(whole, f.data...)
	}
	return whole
}

func (r *reassembler) remove(a *attempt) {
	delete(r.attempts, a.key)
	if i := slices.Index(r.order, a); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
	r.bytes -= a.bytes
}
