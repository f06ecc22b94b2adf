package fib

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWalkIsOrderedAndLookupTakesTheLongest(t *testing.T) {
	s := NewSyncer(Options{Target: newRecorder()})
	f := s.Feed("static", 200)
	for _, p := range []string{"10.1.0.0/16", "fd00::/8", "0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "9.0.0.0/8"} {
		f.Update(route(p, via("", "eth0")))
	}
	f.Update(Route{Key: Key{Table: 7, Prefix: netip.MustParsePrefix("1.0.0.0/8")}, Kind: Blackhole})
	var got []string
	s.Walk(func(e Entry) bool {
		got = append(got, e.Key.String())
		return true
	})
	want := []string{
		"0.0.0.0/0", "9.0.0.0/8", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8", "1.0.0.0/8 table 7",
	}
	if !slices.Equal(got, want) {
		t.Errorf("order %v", got)
	}
	got = nil
	s.Walk(func(e Entry) bool {
		got = append(got, e.Key.String())
		return len(got) < 2
	})
	if len(got) != 2 {
		t.Errorf("walk does not stop: %v", got)
	}
	for addr, want := range map[string]string{
		"10.1.2.3": "10.1.2.3/32", "10.1.2.4": "10.1.0.0/16", "10.2.0.0": "10.0.0.0/8", "11.0.0.0": "0.0.0.0/0",
		"fd00::1": "fd00::/8", "fe80::1%eth0": "::/0", "::ffff:10.1.2.3": "10.1.2.3/32",
	} {
		if e, ok := s.Lookup(0, netip.MustParseAddr(addr)); !ok || e.Prefix.String() != want {
			t.Errorf("lookup of %s: %v, want %s", addr, e.Prefix, want)
		}
	}
	if _, ok := s.Lookup(7, netip.MustParseAddr("2.0.0.0")); ok {
		t.Error("lookup of an address without a route finds one")
	}
	if _, ok := s.Lookup(0, netip.Addr{}); ok {
		t.Error("lookup of no address finds one")
	}
}
