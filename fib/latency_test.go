package fib

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// A measurement lasts from the arrival to the dataplane's answer, whatever lies between; nothing else is one.
func TestLatency(t *testing.T) {
	target := newRecorder()
	target.answer = func(Change) error { time.Sleep(3 * time.Millisecond); return nil } // the bubble's time
	rig(t, target, func(t *testing.T, s *Syncer) {
		feed := s.Feed("bgp", 100)
		arrive := func(prefix string, before time.Duration) {
			t.Helper()
			s.Arrived(Key{Prefix: netip.MustParsePrefix(prefix)}, time.Now())
			time.Sleep(before) // BGP decides
			if err := s.WaitSynced(t.Context(), feed.Update(route(prefix, via("10.0.0.1", "eth0")))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			arrive(fmt.Sprintf("192.0.2.%d/32", i), time.Duration(i)*time.Millisecond)
		}
		l := s.Status().Latency
		if l.Count != 100 || l.Median != 52*time.Millisecond || l.P99 != 101*time.Millisecond || l.Max != 102*time.Millisecond {
			t.Errorf("%+v", l)
		}
		arrive("192.0.2.7/32", 0) // changes nothing, so nothing is confirmed
		if err := s.WaitSynced(t.Context(), feed.Update(route("198.51.100.0/24", via("10.0.0.1", "eth0")))); err != nil {
			t.Fatal(err) // nobody said when it came
		}
		time.Sleep(latencyExpire)
		if err := s.WaitSynced(t.Context(), feed.Update(route("192.0.2.7/32", via("10.0.0.2", "eth0")))); err != nil {
			t.Fatal(err) // much later, for another reason
		}
		if got := s.Status().Latency; got != l {
			t.Errorf("%+v, was %+v", got, l)
		}
	})
}

// In a flood only some are measured, and what is never confirmed makes room in time.
func TestLatencyFlood(t *testing.T) {
	rig(t, newRecorder(), func(t *testing.T, s *Syncer) {
		flood := func() {
			for i := range 2 * latencyOpen {
				s.Arrived(Key{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}, time.Now())
			}
		}
		flood()
		if n := s.stopwatch.open.Load(); n != latencyOpen {
			t.Errorf("%d open", n)
		}
		time.Sleep(latencyExpire + 1)
		s.Arrived(Key{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, time.Now())
		if n := s.stopwatch.open.Load(); n != 1 {
			t.Errorf("%d open", n)
		}
		s.Arrived(Key{}, time.Now()) // no prefix
	})
}

// Only the latest are kept.
func TestLatencyKept(t *testing.T) {
	rig(t, newRecorder(), func(t *testing.T, s *Syncer) {
		measure := func(n int, took time.Duration) {
			for i := range n {
				k := Key{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
				s.Arrived(k, time.Now().Add(-took))
				id, _ := makeKey(0, k.Prefix)
				s.stopwatch.confirmed(id)
			}
		}
		measure(100, time.Second)
		measure(latencyKept, time.Millisecond)
		if l := s.Status().Latency; l.Count != 100+latencyKept || l.Max != time.Millisecond || l.Median != time.Millisecond {
			t.Errorf("%+v", l)
		}
	})
}
