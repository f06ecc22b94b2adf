package bgp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// reader is a teller without a session, and what its neighbour has been told.
type reader struct {
	*teller
	has map[outKey]string // by route: its attributes and next hop
}

func newReader(id string, as uint32, several bool) *reader {
	shape := &traffic{
		families: both, as4: true, limit: 300, self: [2]hopBytes{b4("192.0.2.1"), b16("fd00::1")}, farewell: &atomic.Bool{},
		paths: map[Family]bgp.BGPAddPathMode{},
	}
	if several {
		shape.paths[IPv4], shape.paths[IPv6] = bgp.BGP_ADD_PATH_SEND, bgp.BGP_ADD_PATH_SEND
	}
	return &reader{&teller{shape: shape, id: a(id), as: as, marks: true, wake: make(chan struct{}, 1)}, map[outKey]string{}}
}

func (r *reader) join(o *adjOut) {
	r.teller.out = o
	o.join(r.teller)
}

// hear reads once and notes what the neighbour is told.
func (r *reader) hear(t *testing.T) (all bool) {
	t.Helper()
	msgs, all := r.read(0)
	for len(msgs) > 0 {
		n := int(binary.BigEndian.Uint16(msgs[16:]))
		if n > r.shape.limit {
			t.Fatalf("a message of %d bytes", n)
		}
		r.apply(t, msgs[headerLen:n])
		msgs = msgs[n:]
	}
	return all
}

func (r *reader) apply(t *testing.T, body []byte) {
	u, ok := parseUpdate(body)
	if !ok || u.broken {
		t.Fatalf("malformed UPDATE %x", body)
	}
	reach, reaches := u.reach()
	unreach, _ := u.unreach()
	key := func(k pathKey) outKey { return outKey(k) }
	each := func(f Family, routes []byte, visit func(outKey)) {
		eachRoute(f, routes, r.shape.idsOut(f.wire()), func(_ []byte, k pathKey) { visit(key(k)) })
	}
	drop := func(k outKey) {
		if _, there := r.has[k]; !there {
			t.Fatalf("%v is withdrawn and was not announced", k)
		}
		delete(r.has, k)
	}
	each(IPv4, u.withdrawn, drop)
	each(familyOf(unreach.family), unreach.routes, drop)
	hop := []byte(nil)
	if h := u.find(bgp.BGP_ATTR_TYPE_NEXT_HOP); h != nil {
		hop = h.value
	}
	text := func(hop []byte) string { return fmt.Sprintf("%x via %x", medOf(u), hop) }
	each(IPv4, u.nlri, func(k outKey) { r.has[k] = text(hop) })
	if reaches {
		each(familyOf(reach.family), reach.routes, func(k outKey) { r.has[k] = text(reach.nextHop) })
	}
}

// want is what the neighbour should have.
func (r *reader) want() map[outKey]string {
	all := map[outKey]string{}
	for k, a := range r.out.at {
		if r.sees(a) {
			hop := r.shape.hop(a.set)
			med, _ := attribute(r.shape.dress(a.set, hop), bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC)
			all[k] = fmt.Sprintf("%x via %x", med, []byte(hop))
		}
	}
	return all
}

// Whatever changes, whoever reads when, comes late, goes over to another table or asks for all once more: in the end all have what
// the table has for them, nobody is told of a withdrawal of what it does not have, and what nobody reads any more is thrown away.
func TestAdjOut(t *testing.T) {
	for _, several := range []bool{false, true} {
		t.Run(fmt.Sprint("several ", several), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			d := rand.New(rand.NewPCG(seed, 2))
			tables := []*adjOut{newAdjOut(1, [2]bool{several, several}), newAdjOut(2, [2]bool{several, several})}
			close(tables[0].whole)
			close(tables[1].whole)
			sources := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}
			readers := map[*reader]bool{}
			change := func() {
				o, i := tables[d.IntN(2)], d.IntN(40)
				key := outKey{prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)}
				if i%2 == 0 {
					key.prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 16+i)
				}
				if several {
					key.id = uint32(d.IntN(3))
				}
				o.mu.Lock()
				defer o.mu.Unlock()
				if d.IntN(3) == 0 {
					o.putLocked(key, nil)
					return
				}
				med := byte(d.IntN(4))
				s := &attrSet{
					family: key.family(), source: a(sources[d.IntN(3)]), path: []uint32{uint32(65000 + d.IntN(5))},
					attrs: []attr{{optional, bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC, []byte{0, 0, 0, med}}},
				}
				s.text = fmt.Sprint(s.family, s.source, s.path, med)
				if old := o.sets[s.text]; old != nil {
					s = old
				}
				o.putLocked(key, s)
			}
			pick := func() *reader {
				for r := range readers {
					return r
				}
				return nil
			}
			drain := func(r *reader) {
				for !r.hear(t) {
				}
				want := r.want()
				for k := range want {
					if r.has[k] != want[k] {
						t.Fatalf("%s: %d paths, of %v has %q, want %q", r.id, len(r.has), k, r.has[k], want[k])
					}
				}
				for k := range r.has {
					if _, there := want[k]; !there {
						t.Fatalf("%s: %d paths, of %v has %q, want none", r.id, len(r.has), k, r.has[k])
					}
				}
				if n := r.count[0].Load() + r.count[1].Load(); n != uint64(len(r.has)) || r.sent.len() != len(r.has) {
					t.Fatalf("counted %d, noted %d, has %d", n, r.sent.len(), len(r.has))
				}
			}
			for range 20_000 {
				switch n := d.IntN(100); {
				case n < 80:
					change()
				case n < 90:
					if r := pick(); r != nil {
						r.hear(t)
					}
				case n < 92:
					if r := pick(); r != nil {
						drain(r)
					}
				case n < 94 && len(readers) < 6:
					r := newReader(sources[d.IntN(3)], uint32(65000+d.IntN(5)), several)
					r.join(tables[d.IntN(2)])
					readers[r] = true
				case n < 95:
					if r := pick(); r != nil {
						r.out.leave(r.teller)
						delete(readers, r)
					}
				case n < 97:
					if r := pick(); r != nil {
						r.move(r.out, tables[2-r.out.number])
					}
				case n < 98:
					if r := pick(); r != nil {
						r.again()
					}
				}
			}
			for r := range readers {
				drain(r)
			}
			for _, o := range tables {
				o.compactLocked()
				live := slices.DeleteFunc(slices.Clone(o.log), func(a *advert) bool { return a.set == nil })
				if len(o.log) != len(live) || len(o.at) != len(live) || o.gone != 0 || int(o.slots) != len(live)+len(o.free) {
					t.Errorf("%d in the log, %d live, %d known, %d gone, %d slots, %d of them free", len(o.log), len(live), len(o.at), o.gone, o.slots, len(o.free))
				}
				refs := map[*attrSet]int{}
				for _, a := range live {
					refs[a.set]++
				}
				if len(refs) != len(o.sets) {
					t.Errorf("%d sets of attributes, %d are kept", len(refs), len(o.sets))
				}
			}
		})
	}
}

// The End-of-RIB comes after all that there was when reading began, also for who has joined before there was anything, and not after
// what has come since.
func TestEndOfRIBIsLast(t *testing.T) {
	o := newAdjOut(1, [2]bool{})
	close(o.whole)
	r := newReader("10.0.0.9", 65009, false)
	r.join(o)
	const n = 3*tellBatch - 100
	s := &attrSet{family: IPv4, text: "all"}
	put := func(i int) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.putLocked(outKey{prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}, s)
	}
	for i := range n {
		put(i)
	}
	for round := range 2 { // the second time the neighbour has asked for all anew
		before := 0
		for ended := false; !ended; {
			msgs, all := r.read(0)
			if all && round == 0 {
				put(n) // later than the beginning
			}
			for len(msgs) > 0 {
				length := int(binary.BigEndian.Uint16(msgs[16:]))
				if length == headerLen+4 {
					ended = true
				} else if !ended {
					before += countRoutes(msgs[headerLen:length])
				}
				msgs = msgs[length:]
			}
			if all && !ended {
				t.Fatalf("round %d: all has been told, and no End-of-RIB", round)
			}
		}
		if before != n+round {
			t.Errorf("round %d: an End-of-RIB after %d routes, want %d", round, before, n+round)
		}
		r.again()
	}
}

// A neighbour without 4-byte AS numbers gets AS_TRANS, and the rest beside it (RFC 6793 §4.2.2).
func TestTwoBytes(t *testing.T) {
	path := append([]byte{bgp.BGP_ASPATH_ATTR_TYPE_SEQ, 2}, binary.BigEndian.AppendUint32([]byte{0, 0, 0xfd, 0xe9}, 4242420001)...)
	u := update{attrs: []attr{
		{wellKnown, bgp.BGP_ATTR_TYPE_AS_PATH, path},
		{optTransitive, bgp.BGP_ATTR_TYPE_AGGREGATOR, append(binary.BigEndian.AppendUint32(nil, 4242420001), 10, 0, 0, 1)},
	}}
	u.twoBytes()
	for typ, want := range map[bgp.BGPAttrType]string{
		bgp.BGP_ATTR_TYPE_AS_PATH:        "0202fde95ba0",
		bgp.BGP_ATTR_TYPE_AS4_PATH:       fmt.Sprintf("%x", path),
		bgp.BGP_ATTR_TYPE_AGGREGATOR:     "5ba00a000001",
		bgp.BGP_ATTR_TYPE_AS4_AGGREGATOR: "fcde31210a000001",
	} {
		if got := u.find(typ); got == nil || fmt.Sprintf("%x", got.value) != want {
			t.Errorf("%s: %+v, want %s", typ, got, want)
		}
	}
	u = update{attrs: []attr{{wellKnown, bgp.BGP_ATTR_TYPE_AS_PATH, path[:0]}}}
	u.twoBytes()
	if len(u.attrs) != 1 || len(u.attrs[0].value) != 0 {
		t.Errorf("an empty path becomes %+v", u.attrs)
	}
}

func medOf(u update) []byte {
	if a := u.find(bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC); a != nil {
		return a.value
	}
	return nil
}
