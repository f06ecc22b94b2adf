package bgp

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func noIdentifier(bgp.Family) int { return 0 }

// An UPDATE that is put together again is the same, and one that is split has the same routes, each with all attributes.
func TestUpdateMessages(t *testing.T) {
	var prefixes []string
	for i := range 300 {
		prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	for _, msg := range [][]byte{
		reachUpdate(t, bgp.RF_IPv6_UC, "fe80::2", "fd00:1::/64", "fd00:2::/48", "::/0"),
		reachUpdate(t, bgp.RF_IPv4_UC, "10.2.0.1", prefixes...),
		reachUpdate(t, bgp.RF_IPv4_UC, "fd00::2", prefixes...),
		serialized(t, bgp.NewBGPUpdateMessage(nlri(t, prefixes...), nil, nil)),
		serialized(t, bgp.NewEndOfRib(bgp.RF_IPv4_UC)), serialized(t, bgp.NewEndOfRib(bgp.RF_IPv6_UC)),
	} {
		u, ok := parseUpdate(msg[headerLen:])
		if !ok || u.broken {
			t.Fatalf("%x does not parse", msg)
		}
		again, ok := u.message(bgp.BGP_MAX_MESSAGE_LENGTH)
		if !ok || !bytes.Equal(again, msg) {
			t.Errorf("%x\nbecomes\n%x", msg, again)
		}
		const limit = 200
		parts, ok := u.messages(limit, noIdentifier)
		if !ok {
			t.Fatalf("%x does not split", msg)
		}
		var routes []byte
		for _, m := range parts {
			if len(m) > limit {
				t.Errorf("a part of %d bytes", len(m))
			}
			p, ok := parseUpdate(m[headerLen:])
			reach, _ := p.reach()
			routes = slices.Concat(routes, p.withdrawn, p.nlri, reach.routes)
			if !ok || len(p.attrs) != len(u.attrs) {
				t.Errorf("a part with %d attributes: %x", len(p.attrs), m)
			}
		}
		all, _ := u.reach()
		if want := slices.Concat(u.withdrawn, u.nlri, all.routes); !bytes.Equal(routes, want) {
			t.Errorf("routes %x, want %x", routes, want)
		}
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(reach(bgp.AFI_IP6, b16("fe80::2"), "fd00:1::/64")[headerLen:])
	f.Add(reach(bgp.AFI_IP, append(b16("::"), b16("fe80::2")...), "10.0.1.0/24")[headerLen:])
	f.Add([]byte{0, 2, 8, 10, 0, 0, 8, 11})
	f.Fuzz(func(t *testing.T, body []byte) {
		u, ok := parseUpdate(body)
		if !ok {
			return
		}
		if m, ok := u.message(1 << 17); ok && !u.broken && len(m) <= len(body)+headerLen {
			again, ok := parseUpdate(m[headerLen:])
			if !ok || !bytes.Equal(again.nlri, u.nlri) || !bytes.Equal(again.withdrawn, u.withdrawn) || len(again.attrs) != len(u.attrs) {
				t.Errorf("%x becomes %x", body, m)
			}
		}
		if parts, ok := u.messages(64, noIdentifier); ok {
			for _, m := range parts {
				if len(m) > 64 {
					t.Errorf("a part of %d bytes", len(m))
				}
			}
		}
		tr := &traffic{log: testLog(t, "r1"), tally: &tally{}, families: both, as4: true, limit: bgp.BGP_MAX_MESSAGE_LENGTH, farewell: &atomic.Bool{}, otc: newOTC(Peer, 65001, 65002)}
		tr.farewell.Store(true)
		if len(body) > 4000 {
			return
		}
		_, _ = tr.receive(message(bgp.BGP_MSG_UPDATE, slices.Clone(body)))
		u.attrs = slices.Clone(u.attrs)
		u.twoBytes()
	})
}
