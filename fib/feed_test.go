package fib

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
)

func TestFeedsNormalize(t *testing.T) {
	r := newRecorder()
	rig(t, r, func(t *testing.T, s *Syncer) {
		f := s.Feed("static", 200)
		f.Update(
			Route{Key: Key{Prefix: netip.MustParsePrefix("10.1.2.3/8")}, NextHops: []NextHop{
				via("::ffff:192.0.2.1", "eth0"), via("192.0.2.1", "eth0"), {Addr: netip.MustParseAddr("fe80::1%wg0"), Interface: "eth0"},
			}},
			Route{Key: Key{Prefix: netip.MustParsePrefix("::ffff:11.0.0.0/104")}, Kind: Blackhole},
			Route{}, // no prefix: left out
		)
		f.Update(route("12.0.0.0/8")) // no next hop
		synctest.Wait()
		if h := r.held[Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}]; fmt.Sprint(h.NextHops) != "[via 192.0.2.1 dev eth0 via fe80::1 dev eth0]" {
			t.Errorf("dataplane holds %v", h.NextHops)
		}
		if h, ok := r.held[Key{Prefix: netip.MustParsePrefix("11.0.0.0/8")}]; !ok || h.Kind != Blackhole {
			t.Errorf("dataplane holds %v", h)
		}
		wantState(t, s, "12.0.0.0/8", Failed)
		if n := s.Status().Routes; n != 3 {
			t.Errorf("%d routes", n)
		}
		f.Withdraw(Key{Prefix: netip.MustParsePrefix("::ffff:10.9.9.9/104")}, Key{})
		synctest.Wait()
		if _, ok := s.Get(Key{Prefix: netip.MustParsePrefix("10.0.0.0/8")}); ok {
			t.Error("not withdrawn")
		}
	})
}
