package vppagent

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
)

// A template's bytes are those that govpp's codec makes of the whole message.
func TestRouteTemplates(t *testing.T) {
	_, s := newScript()
	indexes := map[string]uint32{"tun12": 3, "eth0": 9}
	e := routeEncoder{s: s, source: 77, indexes: indexes, templates: make(map[routeShape]*template)}
	addr := netip.MustParseAddr
	sets := [][]fib.NextHop{
		nil,
		{{Addr: addr("169.254.12.2"), Interface: "tun12"}},
		{{Addr: addr("fe80::2"), Interface: "tun12", Weight: 3}, {Addr: addr("fd00::9"), Interface: "eth0", Weight: 1}},
		{{Addr: addr("10.1.1.1")}},
		{{Interface: "tun99"}},
	}
	random := rand.New(rand.NewPCG(1, 2))
	encoded := 0
	for range 5000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(random.IntN(256))
		}
		a := netip.AddrFrom16(b)
		if random.IntN(2) == 0 {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		c := fib.Change{
			Route: fib.Route{
				Key:  fib.Key{Table: uint32(random.IntN(3)), Prefix: netip.PrefixFrom(a, random.IntN(a.BitLen()+1)).Masked()},
				Kind: fib.Kind(random.IntN(5)), NextHops: sets[random.IntN(len(sets))],
			},
			Delete: random.IntN(4) == 0,
		}
		want := &ip.IPRouteAddDelV2{
			IsAdd: !c.Delete,
			Route: ip.IPRouteV2{TableID: c.Table, Prefix: binapi.ToPrefix(c.Prefix), Src: 77},
		}
		var wantErr error
		if !c.Delete {
			want.Route.Paths, wantErr = routePaths(&c.Route, indexes)
			want.Route.NPaths = uint8(len(want.Route.Paths))
		}
		got := e.template(&c)
		if (got.err != nil) != (wantErr != nil) || errors.Is(got.err, fib.ErrNoInterface) != errors.Is(wantErr, fib.ErrNoInterface) {
			t.Fatalf("%+v: error %v, want %v", c, got.err, wantErr)
		}
		if wantErr != nil {
			continue
		}
		encoded++
		whole, err := s.encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if made := got.of(c.Prefix); !bytes.Equal(made, whole) {
			t.Fatalf("%+v:\n% x, want\n% x", c, made, whole)
		}
	}
	if encoded < 1000 || len(e.templates) > 200 {
		t.Errorf("%d messages of %d templates", encoded, len(e.templates))
	}
}
