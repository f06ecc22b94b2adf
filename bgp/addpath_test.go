package bgp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func addPathCap(m bgp.BGPAddPathMode) bgp.ParameterCapabilityInterface {
	return bgp.NewCapAddPath([]*bgp.CapAddPathTuple{bgp.NewCapAddPathTuple(bgp.RF_IPv4_UC, m), bgp.NewCapAddPathTuple(bgp.RF_IPv6_UC, m)})
}

// pathOf announces 10.7.0.0/24 with an identifier, by a path of length n.
func pathOf(id uint32, n int) []byte {
	as := slices.Repeat([]uint32{65002}, n)
	route := append(binary.BigEndian.AppendUint32(nil, id), 24, 10, 7, 0)
	return updateOf(route, []byte{0x40, 1, 1, 0}, aspath(as...), attrBytes(0x40, 3, 169, 254, 1, 2))
}

// Several paths from one neighbour are all shown, the best is used, and another neighbour is told as many as it may have.
func TestAddPath(t *testing.T) {
	s := newStarRaw(t, "169.254.1.2", "169.254.1.1", 65002, "169.254.2.2", "169.254.2.1", 65003, func(first, second *Neighbor) {
		first.AddPath, second.AddPath = AddPath{Receive: true}, AddPath{SendMax: 2}
		first.Limit4 = PrefixLimit{Max: 1} // paths are not counted
	})
	s.first.establishFrom(65002, "10.2.0.1", addPathCap(bgp.BGP_ADD_PATH_BOTH))
	s.second.establishFrom(65003, "10.3.0.1", addPathCap(bgp.BGP_ADD_PATH_RECEIVE))
	s.r1.settled()
	if a, b := s.r1.session("first").AddPath, s.r1.session("second").AddPath; a != "receive" || b != "send" {
		t.Errorf("agreed on %q and %q", a, b)
	}
	for id, n := range map[uint32]int{1: 3, 2: 1, 3: 2} {
		s.first.send(pathOf(id, n))
	}
	s.r1.wantFeed("10.7.0.0/24 via 169.254.1.2")
	all := []string{
		"10.7.0.0/24 * from first via 169.254.1.2 [65002]", "10.7.0.0/24 from first via 169.254.1.2 [65002 65002]",
		"10.7.0.0/24 from first via 169.254.1.2 [65002 65002 65002]",
	}
	s.r1.wantPaths(Filter{}, all...)

	told := map[uint32]bool{}
	for len(told) < 2 {
		u, _ := parseUpdate(s.second.expect(bgp.BGP_MSG_UPDATE))
		for _, b := range [][]byte{u.withdrawn, u.nlri} {
			for ; len(b) > 0; b = b[8:] {
				if string(b[4:8]) != string([]byte{24, 10, 7, 0}) {
					t.Fatalf("told of %x", b)
				}
				told[binary.BigEndian.Uint32(b)] = len(u.nlri) > 0
			}
		}
	}

	// One path goes, the others stay.
	s.first.send(withdraw4(0, 0, 0, 2, 24, 10, 7, 0))
	s.r1.wantPaths(Filter{}, "10.7.0.0/24 * from first via 169.254.1.2 [65002 65002]", all[2])
	s.first.send(withdraw4(0, 0, 0, 1, 24, 10, 7, 0))
	s.first.send(withdraw4(0, 0, 0, 3, 24, 10, 7, 0))
	s.r1.wantFeed()
	eventually(t, 5*time.Second, func() string {
		if l := s.r1.session("first").Limits; len(l) != 1 || l[0].Prefixes != 0 || l[0].Blocked != 0 {
			return fmt.Sprintf("limits are %+v", l)
		}
		return ""
	})
}

// Two of our own kind, in both directions.
func TestAddPathBetweenUs(t *testing.T) {
	r1, r2, _ := twoSites(t, func(one, two *Neighbor) {
		one.AddPath, two.AddPath = AddPath{Receive: true, SendMax: 4}, AddPath{Receive: true, SendMax: 4}
	})
	start(t, r1, r2)
	r1.established()
	r2.established()
	r2.originate("10.2.0.0/24", "10.2.1.0/24")
	r1.originate("10.1.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2", "10.2.1.0/24 via 169.254.12.2")
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1")
	if s := r1.session("r2"); s.AddPath != "both" {
		t.Errorf("agreed on %q", s.AddPath)
	}
	r2.originate("10.2.1.0/24")
	r1.wantFeed("10.2.1.0/24 via 169.254.12.2")
}

// Our own AS in a path is a loop unless it may be there.
func TestAllowOwnAS(t *testing.T) {
	for allowed := range uint8(3) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(c *Config) { c.Neighbors[0].AllowOwnAS = allowed })
		start(t, r1)
		p := dialRaw(t, node, "169.254.0.1")
		p.establish()
		var want []string
		for n := range 4 {
			path := aspath(append([]uint32{65002}, slices.Repeat([]uint32{65001}, n)...)...)
			p.send(updateOf([]byte{24, 10, 7, byte(n)}, []byte{0x40, 1, 1, 0}, path, attrBytes(0x40, 3, 169, 254, 0, 2)))
			if n <= int(allowed) {
				want = append(want, fmt.Sprintf("10.7.%d.0/24 via 169.254.0.2", n))
			}
		}
		r1.wantFeed(want...)
	}
}

// An UPDATE of more than 4096 bytes is taken from a peer that has agreed on it (RFC 8654), and ends the session of another.
func TestExtendedMessages(t *testing.T) {
	long := func() []byte {
		var routes []byte
		for i := range 2000 {
			routes = append(routes, 24, 10, byte(i>>8), byte(i))
		}
		return updateOf(routes, []byte{0x40, 1, 1, 0}, aspath(65002), attrBytes(0x40, 3, 169, 254, 0, 2))
	}()
	t.Run("agreed", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		p := dialRaw(t, node, "169.254.0.1")
		p.establishFrom(65002, "10.2.0.1", bgp.NewCapExtendedMessage())
		p.send(long)
		eventually(t, 5*time.Second, func() string {
			if s := r1.session("raw"); s.Received != 2000 || s.Flaps != 0 {
				return fmt.Sprintf("%d received, %d flaps, %s", s.Received, s.Flaps, s.ErrorText())
			}
			return ""
		})
	})
	t.Run("not agreed", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		p := dialRaw(t, node, "169.254.0.1")
		p.establish()
		p.send(long)
		if body := p.expect(bgp.BGP_MSG_NOTIFICATION); body[0] != 1 || body[1] != 2 {
			t.Errorf("the session ends with %x", body)
		}
	})
}
