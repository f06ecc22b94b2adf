package bgp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// attrBytes are an attribute's; the length may lie.
func attrBytes(flags, typ byte, value ...byte) []byte {
	return append([]byte{flags, typ, byte(len(value))}, value...)
}

// updateOf is an UPDATE of these attributes, with IPv4 routes.
func updateOf(nlri []byte, attrs ...[]byte) []byte {
	list := slices.Concat(attrs...)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(list)))
	return message(bgp.BGP_MSG_UPDATE, slices.Concat(body, list, nlri))
}

// Malformed UPDATEs, and what RFC 7606 wants to come of them. In each case the neighbour has announced 10.7.0.0/24 and fd00:7::/64
// well, and now announces one of them anew with something wrong.
func TestMalformed(t *testing.T) {
	const (
		kept      = "kept"      // the announcement counts, without the attribute
		withdrawn = "withdrawn" // its route is withdrawn
	)
	origin, path, hop := []byte{0x40, 1, 1, 0}, aspath(65002), attrBytes(0x40, 3, 169, 254, 0, 2)
	route := []byte{24, 10, 7, 0}
	with := func(more ...[]byte) []byte { return updateOf(route, append([][]byte{origin, path, hop}, more...)...) }
	mp := func(value ...byte) []byte { return attrBytes(0x80, 14, value...) }
	mp6 := mp(slices.Concat([]byte{0, 2, 1, 16}, b16("fd00::2"), []byte{0, 64}, b16("fd00:7::")[:8])...)
	for _, c := range []struct {
		name string
		msg  []byte
		want string // kept, withdrawn, or the NOTIFICATION's code and subcode
	}{
		{"well", with(), kept},
		{"ORIGIN of 2 bytes", updateOf(route, attrBytes(0x40, 1, 0, 0), path, hop), withdrawn},
		{"ORIGIN of no bytes", updateOf(route, attrBytes(0x40, 1), path, hop), withdrawn},
		{"ORIGIN 3", updateOf(route, attrBytes(0x40, 1, 3), path, hop), withdrawn},
		{"no ORIGIN", updateOf(route, path, hop), withdrawn},
		{"no AS_PATH", updateOf(route, origin, hop), withdrawn},
		{"no NEXT_HOP", updateOf(route, origin, path), withdrawn},
		{"AS_PATH with segment 5", updateOf(route, origin, attrBytes(0x40, 2, 5, 1, 0, 0, 0xfd, 0xea), hop), withdrawn},
		{"AS_PATH with an empty segment", updateOf(route, origin, attrBytes(0x40, 2, 2, 0), hop), withdrawn},
		{"AS_PATH that is short", updateOf(route, origin, attrBytes(0x40, 2, 2, 2, 0, 0, 0xfd, 0xea), hop), withdrawn},
		{"AS_PATH of one byte", updateOf(route, origin, attrBytes(0x40, 2, 2), hop), withdrawn},
		{"AS_PATH of a confederation", updateOf(route, origin, attrBytes(0x40, 2, 3, 1, 0, 0, 0xfd, 0xea), hop), withdrawn},
		{"NEXT_HOP of 3 bytes", updateOf(route, origin, path, attrBytes(0x40, 3, 169, 254, 0)), withdrawn},
		{"NEXT_HOP of 16 bytes", updateOf(route, origin, path, attrBytes(0x40, 3, b16("fd00::2")...)), withdrawn},
		{"NEXT_HOP of multicast", updateOf(route, origin, path, attrBytes(0x40, 3, 224, 0, 0, 1)), withdrawn},
		{"MULTI_EXIT_DISC of 5 bytes", with(attrBytes(0x80, 4, 0, 0, 0, 0, 1)), withdrawn},
		{"LOCAL_PREF from outside", with(attrBytes(0x40, 5, 0, 0, 0, 1)), kept},
		{"LOCAL_PREF of 1 byte from outside", with(attrBytes(0x40, 5, 1)), kept},
		{"ATOMIC_AGGREGATE of 1 byte", with(attrBytes(0x40, 6, 0)), kept},
		{"AGGREGATOR of 5 bytes", with(attrBytes(0xc0, 7, 1, 2, 3, 4, 5)), kept},
		{"AGGREGATOR of 6 bytes", with(attrBytes(0xc0, 7, 1, 2, 3, 4, 5, 6)), kept},
		{"COMMUNITIES of 5 bytes", with(attrBytes(0xc0, 8, 1, 2, 3, 4, 5)), withdrawn},
		{"COMMUNITIES of no bytes", with(attrBytes(0xc0, 8)), withdrawn},
		{"ORIGINATOR_ID from outside", with(attrBytes(0x80, 9, 1, 2, 3)), kept},
		{"CLUSTER_LIST from outside", with(attrBytes(0x80, 10, 1, 2, 3)), kept},
		{"EXTENDED COMMUNITIES of 7 bytes", with(attrBytes(0xc0, 16, 1, 2, 3, 4, 5, 6, 7)), withdrawn},
		{"EXTENDED COMMUNITIES of no bytes", with(attrBytes(0xc0, 16)), withdrawn},
		{"IPv6 EXTENDED COMMUNITIES of 8 bytes", with(attrBytes(0xc0, 25, 1, 2, 3, 4, 5, 6, 7, 8)), withdrawn},
		{"LARGE_COMMUNITY of 11 bytes", with(attrBytes(0xc0, 32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)), withdrawn},
		{"LARGE_COMMUNITY of no bytes", with(attrBytes(0xc0, 32)), withdrawn},
		{"OTC of 3 bytes", with(attrBytes(0xc0, 35, 1, 2, 3)), withdrawn},
		{"AS4_PATH from a new speaker", with(attrBytes(0xc0, 17, 2, 1, 0, 0, 0, 1)), kept},
		{"AS4_PATH that is short", with(attrBytes(0xc0, 17, 2, 1, 0)), kept},
		{"AS4_AGGREGATOR of 3 bytes", with(attrBytes(0xc0, 18, 1, 2, 3)), kept},
		{"AIGP of 1 byte", with(attrBytes(0x80, 26, 1)), kept},
		{"PREFIX_SID of 2 bytes", with(attrBytes(0xc0, 40, 1, 2)), kept},
		{"PMSI tunnel of 1 byte", with(attrBytes(0xc0, 22, 1)), withdrawn},
		{"tunnel encapsulation of 1 byte", with(attrBytes(0xc0, 23, 1)), kept},
		{"BGP-LS of 3 bytes", with(attrBytes(0x80, 29, 1, 2, 3)), kept},
		{"an optional attribute that nobody knows", with(attrBytes(0xc0, 99, 1, 2, 3)), kept},
		{"a well-known attribute that nobody knows", with(attrBytes(0x40, 99, 1, 2, 3)), "3/2"},
		{"ORIGIN with optional flags", updateOf(route, attrBytes(0xc0, 1, 0), path, hop), withdrawn},
		{"NEXT_HOP that is not transitive", updateOf(route, origin, path, attrBytes(0, 3, 169, 254, 0, 2)), withdrawn},
		{"COMMUNITIES with flags of a well-known one", with(attrBytes(0x40, 8, 0, 1, 0, 1)), withdrawn},
		{"MULTI_EXIT_DISC that is partial", with(attrBytes(0xa0, 4, 0, 0, 0, 1)), withdrawn},
		{"COMMUNITIES twice", with(attrBytes(0xc0, 8, 0, 1, 0, 1), attrBytes(0xc0, 8, 0, 1, 0, 2)), kept},
		{"ORIGIN twice", with(origin), kept},
		{"an attribute that is longer than the list", updateOf(route, origin, path, hop, []byte{0xc0, 8, 200, 0, 1}), withdrawn},
		{"an attribute without a length", updateOf(route, origin, path, hop, []byte{0xc0, 8}), withdrawn},
		{"nothing but half an attribute", updateOf(nil, []byte{0xc0, 8, 200}), "3/1"},
		{"a malformed attribute and no routes", updateOf(nil, origin, path, attrBytes(0xc0, 8, 1)), "3/1"},
		{"MP_REACH_NLRI with flags of a transitive one", updateOf(nil, origin, path, append([]byte{0xc0}, mp6[1:]...)), withdrawn},
		{"MP_REACH_NLRI behind a malformed attribute", updateOf(nil, origin, attrBytes(0x40, 2, 9), mp6), withdrawn},
		{"MP_REACH_NLRI before half an attribute", updateOf(nil, mp6, origin, path, []byte{0xc0, 8, 200}), withdrawn},
		{"MP_REACH_NLRI without ORIGIN", updateOf(nil, path, mp6), withdrawn},
		{"MP_REACH_NLRI twice", updateOf(nil, origin, path, mp6, mp6), "3/1"},
		{"MP_REACH_NLRI with a next hop of 15 bytes", updateOf(nil, origin, path, mp(slices.Concat([]byte{0, 2, 1, 15}, b16("fd00::2")[:15], []byte{0, 64}, b16("fd00:7::")[:8])...)), "3/9"},
		{"MP_REACH_NLRI with a next hop that is cut", updateOf(nil, origin, path, mp(0, 2, 1, 16, 0xfd)), "3/9"},
		{"MP_REACH_NLRI of 2 bytes", updateOf(nil, origin, path, mp(0, 2)), "3/9"},
		{"MP_REACH_NLRI of a route of 129 bits", updateOf(nil, origin, path, mp(slices.Concat([]byte{0, 2, 1, 16}, b16("fd00::2"), []byte{0, 129}, make([]byte, 17))...)), "3/9"},
		{"MP_REACH_NLRI of a family that was not agreed", updateOf(nil, origin, path, mp(slices.Concat([]byte{0, 2, 128, 24}, make([]byte, 30))...)), "nothing"},
		{"MP_UNREACH_NLRI of a family that was not agreed", updateOf(nil, attrBytes(0x80, 15, 0, 25, 70, 1, 2, 3)), "nothing"},
		{"MP_UNREACH_NLRI of 1 byte", updateOf(nil, attrBytes(0x80, 15, 0)), "3/9"},
		{"a route of 33 bits", updateOf([]byte{33, 10, 7, 0, 0, 0}, origin, path, hop), "3/10"},
		{"a route that is cut", updateOf([]byte{24, 10, 7}, origin, path, hop), "3/10"},
		{"withdrawn routes that are longer than the message", message(bgp.BGP_MSG_UPDATE, []byte{0, 9, 24, 10, 7, 0}), "3/1"},
		{"attributes that are longer than the message", message(bgp.BGP_MSG_UPDATE, []byte{0, 0, 0, 9, 1}), "3/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
			start(t, r1)
			p := dialRaw(t, node, "169.254.0.1")
			p.establish()
			p.send(updateOf(route, origin, path, hop))
			p.send(updateOf(nil, origin, path, mp6))
			v4, v6 := "10.7.0.0/24 via 169.254.0.2", "fd00:7::/64 via fd00::2"
			r1.wantFeed(v4, v6)

			p.send(c.msg)
			if c.want != kept && c.want != withdrawn && c.want != "nothing" {
				body := p.expect(bgp.BGP_MSG_NOTIFICATION)
				if got := fmt.Sprintf("%d/%d", body[0], body[1]); got != c.want {
					t.Errorf("the session ends with %s, want %s", got, c.want)
				}
				return
			}
			p.send(updateOf([]byte{24, 10, 8, 0}, origin, path, hop)) // the session goes on
			want := []string{v4, "10.8.0.0/24 via 169.254.0.2", v6}
			u, _ := parseUpdate(c.msg[headerLen:])
			if _, six := u.reach(); c.want == withdrawn && six {
				want = want[:2]
			} else if c.want == withdrawn {
				want = want[1:]
			}
			r1.wantFeed(want...)
			if s := r1.session("raw"); s.State != Established || s.Flaps != 0 {
				t.Errorf("the session is %s, %d flaps: %s", s.State, s.Flaps, s.ErrorText())
			} else if got := s.Malformed; (got > 0) != (c.want == withdrawn) && got != 0 {
				t.Errorf("%d UPDATEs were malformed", got)
			}
		})
	}
}

// What belongs into our AS only is kept within it, and checked.
func TestMalformedInternal(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(c *Config) { c.AS = 65002 })
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	p.establish()
	send := func(last byte, more ...[]byte) {
		p.send(updateOf([]byte{24, 10, 7, last}, append([][]byte{{0x40, 1, 1, 0}, aspath(), attrBytes(0x40, 3, 169, 254, 0, 2)}, more...)...))
	}
	send(1, attrBytes(0x40, 5, 0, 0, 0, 200))
	send(2, attrBytes(0x40, 5, 200))
	send(3, attrBytes(0x40, 5, 0, 0, 0, 100), attrBytes(0x80, 9, 1, 2, 3))
	send(4, attrBytes(0x40, 5, 0, 0, 0, 100), attrBytes(0x80, 10, 1, 2, 3, 4, 5))
	send(5, attrBytes(0x40, 5, 0, 0, 0, 100), attrBytes(0x80, 9, 1, 2, 3, 4), attrBytes(0x80, 10, 1, 2, 3, 4))
	r1.wantFeed("10.7.1.0/24 via 169.254.0.2", "10.7.5.0/24 via 169.254.0.2")
	eventually(t, 5*time.Second, func() string {
		if n := r1.session("raw").Malformed; n != 3 {
			return fmt.Sprintf("%d malformed UPDATEs are counted, want 3", n)
		}
		return ""
	})
}
