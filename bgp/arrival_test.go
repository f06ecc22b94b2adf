package bgp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func serialized(t testing.TB, m *bgp.BGPMessage) []byte {
	t.Helper()
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nlri(t testing.TB, prefixes ...string) []bgp.PathNLRI {
	t.Helper()
	var out []bgp.PathNLRI
	for _, p := range prefixes {
		n, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix(p))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bgp.PathNLRI{NLRI: n})
	}
	return out
}

func reachUpdate(t testing.TB, family bgp.Family, nexthop string, prefixes ...string) []byte {
	t.Helper()
	reach, err := bgp.NewPathAttributeMpReachNLRI(family, nlri(t, prefixes...), netip.MustParseAddr(nexthop))
	if err != nil {
		t.Fatal(err)
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), reach}
	return serialized(t, bgp.NewBGPUpdateMessage(nil, attrs, nil))
}

func TestSingleRoute(t *testing.T) {
	origin := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}
	plain := func(withdrawn []bgp.PathNLRI, prefixes ...string) []byte {
		return serialized(t, bgp.NewBGPUpdateMessage(withdrawn, origin, nlri(t, prefixes...)))
	}
	for name, tc := range map[string]struct {
		message []byte
		want    string // "": not one
	}{
		"one":           {plain(nil, "192.0.2.0/25"), "192.0.2.0/25"},
		"default":       {plain(nil, "0.0.0.0/0"), "0.0.0.0/0"},
		"two":           {plain(nil, "192.0.2.0/24", "198.51.100.0/24"), ""},
		"withdrawal":    {plain(nlri(t, "192.0.2.0/24")), ""},
		"with another":  {plain(nlri(t, "192.0.2.0/24"), "198.51.100.0/24"), ""},
		"end of RIB":    {serialized(t, bgp.NewEndOfRib(bgp.RF_IPv4_UC)), ""},
		"end of RIB 6":  {serialized(t, bgp.NewEndOfRib(bgp.RF_IPv6_UC)), ""},
		"IPv6":          {reachUpdate(t, bgp.RF_IPv6_UC, "2001:db8::1", "2001:db8:1::/48"), "2001:db8:1::/48"},
		"IPv6 two":      {reachUpdate(t, bgp.RF_IPv6_UC, "2001:db8::1", "2001:db8:1::/48", "2001:db8:2::/48"), ""},
		"IPv4 by fe80:": {reachUpdate(t, bgp.RF_IPv4_UC, "fe80::1", "192.0.2.0/24"), "192.0.2.0/24"},
	} {
		// The tap of a session hands the body on, in whatever pieces the message comes.
		for cut := range tc.message {
			var in tap
			var got []string
			report := func(typ uint8, body []byte) {
				if p, ok := singleRoute(body); ok && typ == bgp.BGP_MSG_UPDATE {
					got = append(got, p.String())
				}
			}
			in.feed(tc.message[:cut], report)
			in.feed(tc.message[cut:], report)
			in.feed(serialized(t, bgp.NewBGPKeepAliveMessage()), report)
			var want []string
			if tc.want != "" {
				want = []string{tc.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, cut at %d: %v, want %v", name, cut, got, want)
			}
		}
	}
}

// A long UPDATE is not kept, and host bits are not taken over (RFC 4271 §4.3).
func TestSingleRouteLimits(t *testing.T) {
	var many []string
	for i := range 120 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, byte(i), 1}).String()+"/32")
	}
	long := serialized(t, bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}, nlri(t, many...)))
	var in tap
	in.feed(long, func(_ uint8, body []byte) {
		if len(body) != 0 {
			t.Errorf("a body of %d bytes", len(body))
		}
	})
	body := []byte{0, 0, 0, 0, 20, 192, 0, 0xff}
	if p, ok := singleRoute(body); !ok || p.String() != "192.0.240.0/20" {
		t.Errorf("%v %v", p, ok)
	}
}

// Whatever a peer sends, it is a valid prefix or none.
func FuzzSingleRoute(f *testing.F) {
	for _, m := range [][]byte{
		reachUpdate(f, bgp.RF_IPv6_UC, "2001:db8::1", "2001:db8:1::/48"),
		serialized(f, bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}, nlri(f, "192.0.2.0/24"))),
	} {
		f.Add(m[headerLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, ok := singleRoute(body)
		if ok != p.IsValid() || ok && (p != p.Masked() || binary.BigEndian.Uint16(body) != 0) {
			t.Errorf("%x: %v %t", body, p, ok)
		}
	})
}
