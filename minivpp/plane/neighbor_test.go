package plane

import (
	"bytes"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.fd.io/govpp/api"
)

func arp(op uint16, dst, sha, tha [6]byte, spa, tpa string) []byte {
	f := make([]byte, etherLen+arpLen)
	putEther(f, dst, sha, etherARP)
	m := f[etherLen:]
	put16(m, 1)
	put16(m[2:], etherIPv4)
	m[4], m[5] = 6, 4
	put16(m[6:], op)
	copy(m[8:], sha[:])
	s, t := mustAddr(spa).As4(), mustAddr(tpa).As4()
	copy(m[14:], s[:])
	copy(m[18:], tha[:])
	copy(m[24:], t[:])
	return f
}

var everybody = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func TestARPInput(t *testing.T) {
	lent := func(r *rig) {
		lo := must(r.CreateLoopback([6]byte{}, nil))
		r.ok(r.AddAddress(lo, mustPrefix("172.20.0.1/32")))
		r.ok(r.SetUnnumbered(1, lo, true))
	}
	for _, tt := range []struct {
		name    string
		setup   func(*rig)
		in      []byte
		reply   string // the address that is answered for
		learned string
	}{
		{name: "request", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.1"), reply: "10.1.0.1", learned: "10.1.0.7"},
		{name: "unicast request", in: arp(1, ours(0), theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.1"), reply: "10.1.0.1", learned: "10.1.0.7"},
		{name: "probe", in: arp(1, everybody, theirs(0), [6]byte{}, "0.0.0.0", "10.1.0.1"), reply: "10.1.0.1"},
		{name: "request for another", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.8")},
		{name: "request for another interface's address", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.2.0.1")},
		{name: "alien sender", in: arp(1, everybody, theirs(0), [6]byte{}, "192.0.2.7", "10.1.0.1")},
		{name: "our own address", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.1", "10.1.0.1")},
		{name: "group as sender", in: arp(1, everybody, everybody, [6]byte{}, "10.1.0.7", "10.1.0.1")},
		{name: "unasked reply", in: arp(2, ours(0), theirs(0), ours(0), "10.1.0.7", "10.1.0.1")},
		{name: "gratuitous of a stranger", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.7")},
		{name: "bad operation", in: arp(9, ours(0), theirs(0), ours(0), "10.1.0.7", "10.1.0.1")},
		{name: "lender's address", setup: lent, in: arp(1, everybody, theirs(0), [6]byte{}, "192.0.2.7", "172.20.0.1"), reply: "172.20.0.1", learned: "192.0.2.7"},
		{name: "short", in: arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.1")[:41]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.port("10.1.0.1/24")
			r.port("10.2.0.1/24")
			if tt.setup != nil {
				tt.setup(r)
			}
			r.near(1, "10.1.0.2", 0)
			r.ports[0].in <- tt.in
			if tt.reply != "" {
				want := arp(2, theirs(0), ours(0), theirs(0), tt.reply, netip.AddrFrom4([4]byte(tt.in[28:32])).String())
				if f := r.ports[0].expect(t); !bytes.Equal(f, want) {
					t.Errorf("% x\nwant\n% x", f, want)
				}
			}
			r.quiet(0, "10.1.0.1")
			list := r.Neighbors(1, false)
			i := slices.IndexFunc(list, func(n Neighbor) bool { return !n.Static })
			if (i >= 0) != (tt.learned != "") || (i >= 0 && (list[i].Addr.String() != tt.learned || list[i].MAC != theirs(0))) {
				t.Errorf("neighbours %v", list)
			}
		})
	}
}

func ns(src, dst, target string, limit byte, option ...byte) []byte {
	m := make([]byte, ndLen, ndLen+8)
	m[0] = icmp6NeighborSol
	a := mustAddr(target).As16()
	copy(m[8:], a[:])
	return ip6(src, dst, protoICMPv6, limit, append(m, option...))
}

func na(src, dst, target string, flags byte, option ...byte) []byte {
	m := make([]byte, ndLen, ndLen+8)
	m[0], m[4] = icmp6NeighborAdv, flags
	a := mustAddr(target).As16()
	copy(m[8:], a[:])
	return ip6(src, dst, protoICMPv6, 255, append(m, option...))
}

func option(typ byte, mac [6]byte) []byte { return append([]byte{typ, 1}, mac[:]...) }

func TestNDInput(t *testing.T) {
	me := theirs(0)
	sll, tll := option(1, me), option(2, me)
	for _, tt := range []struct {
		name    string
		in      []byte
		reply   string // source of the advertisement
		to      string
		flags   byte
		learned string
	}{
		{name: "link-local", in: ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 255, sll...), reply: "fe80::1", to: "fe80::7", flags: 0xe0, learned: "fe80::7"},
		{name: "global", in: ns("2001:db8:1::7", "ff02::1:ff00:1", "2001:db8:1::1", 255, sll...), reply: "2001:db8:1::1", to: "2001:db8:1::7", flags: 0xe0, learned: "2001:db8:1::7"},
		{name: "unicast", in: ns("fe80::7", "fe80::1", "fe80::1", 255, sll...), reply: "fe80::1", to: "fe80::7", flags: 0xe0, learned: "fe80::7"},
		{name: "duplicate address detection", in: ns("::", "ff02::1:ff00:1", "fe80::1", 255), reply: "fe80::1", to: "ff02::1", flags: 0xa0},
		{name: "forwarded", in: ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 254, sll...)},
		{name: "another's", in: ns("fe80::7", "ff02::1:ff00:1", "fe80::8:1", 255, sll...)},
		{name: "off link", in: ns("2001:db8:7::7", "ff02::1:ff00:1", "2001:db8:1::1", 255, sll...)},
		{name: "option of length 0", in: ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 255, 1, 0, 0, 0, 0, 0, 0, 0)},
		{name: "cut option", in: ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 255, 1, 1, 0, 0)},
		{name: "detection with an option", in: ns("::", "ff02::1:ff00:1", "fe80::1", 255, sll...)},
		{name: "detection by unicast", in: ns("::", "fe80::1", "fe80::1", 255)},
		{name: "our own address", in: ns("fe80::1", "ff02::1:ff00:1", "fe80::1", 255, sll...)},
		{name: "unasked advertisement", in: na("fe80::7", "fe80::1", "fe80::7", 0x60, tll...)},
		{name: "bad checksum", in: func() []byte {
			b := ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 255, sll...)
			b[42]++
			return b
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.port("10.1.0.1/24", "2001:db8:1::1/64", "fe80::1/128")
			r.near(1, "10.1.0.2", 0)
			r.send(0, tt.in)
			if tt.reply != "" {
				f := r.ports[0].expect(t)
				b := f[etherLen:]
				want := na(tt.reply, tt.to, tt.reply, tt.flags, option(2, ours(0))...)
				if !bytes.Equal(b, want) {
					t.Errorf("% x\nwant\n% x", b, want)
				}
				mac := me
				if tt.to == "ff02::1" {
					mac = [6]byte{0x33, 0x33, 0, 0, 0, 1}
				}
				if [6]byte(f) != mac {
					t.Errorf("to % x", f[:6])
				}
			}
			r.quiet(0, "10.1.0.1")
			list := r.Neighbors(1, true)
			if (len(list) > 0) != (tt.learned != "") || (len(list) > 0 && (list[0].Addr.String() != tt.learned || list[0].MAC != me)) {
				t.Errorf("neighbours %v", list)
			}
		})
	}
}

// TestAdvertisements is the table of RFC 4861 §7.2.5 as far as we keep its states.
func TestAdvertisements(t *testing.T) {
	old, other := [6]byte{2, 1, 1, 1, 1, 1}, [6]byte{2, 9, 9, 9, 9, 9}
	for _, tt := range []struct {
		name  string
		flags byte
		opts  []byte
		want  [6]byte
		age   time.Duration
	}{
		{"solicited, same", 0x40, option(2, old), old, 0},
		{"solicited, no option", 0x40, nil, old, 0},
		{"unsolicited, no option", 0, nil, old, 5 * time.Second},
		{"another without override", 0x40, option(2, other), old, 5 * time.Second},
		{"another with override", 0x60, option(2, other), other, 0},
		{"unsolicited with override", 0x20, option(2, other), other, 0},
		{"a group's address", 0x60, option(2, everybody), old, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.port("fe80::1/128")
				must(r.AddNeighbor(1, Neighbor{Addr: mustAddr("fe80::7"), MAC: old}))
				time.Sleep(5 * time.Second)
				r.send(0, na("fe80::7", "fe80::1", "fe80::7", tt.flags, tt.opts...))
				synctest.Wait()
				if n := r.Neighbors(1, true)[0]; n.MAC != tt.want || n.Age != tt.age {
					t.Errorf("%+v", n)
				}
			})
		})
	}
}

// TestResolution: a packet for an unknown neighbour waits for it, a few more with it, and each goes once.
func TestResolution(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24", "2001:db8:1::1/64")
	b := r.port("10.2.0.1/24", "2001:db8:2::1/64", "fe80::1/128")
	r.near(1, "10.1.0.2", 0)
	events := make(chan Event, 8)
	cancel := r.Subscribe(func(e Event) { events <- e })
	defer cancel()
	for k := range byte(6) {
		in := ip4("10.1.0.2", "10.2.0.9", protoUDP, 64, udp(1, uint16(k), 1))
		r.send(0, in)
	}
	if f := r.ports[1].expect(t); !bytes.Equal(f, arp(1, everybody, ours(1), [6]byte{}, "10.2.0.1", "10.2.0.9")) {
		t.Errorf("% x", f)
	}
	eventually(t, "all six arrived", func() bool { x, _ := r.Interface(1); return x.Counters.RxPackets == 6 })
	if n := r.Neighbors(b, false); len(n) != 0 {
		t.Errorf("incomplete entries are listed: %v", n)
	}
	r.ports[1].in <- arp(2, ours(1), theirs(1), ours(1), "10.2.0.9", "10.2.0.1")
	for k := uint16(2); k < 6; k++ { // the latest four
		if p := r.expectIP(1); get16(p[header4Len+2:]) != k {
			t.Errorf("packet %d came", get16(p[header4Len+2:]))
		}
	}
	e := <-events
	if e.Kind != EventNeighborAdded || e.Interface != b || e.Neighbor.Addr != mustAddr("10.2.0.9") || e.Neighbor.MAC != theirs(1) {
		t.Errorf("%+v", e)
	}
	// The host route of the neighbour.
	eventually(t, "adjacency route", func() bool {
		x, err := r.LookupExact(0, mustPrefix("10.2.0.9/32"))
		return err == nil && x.Source == SourceAdj && x.Paths[0].Addr == mustAddr("10.2.0.9")
	})
	// IPv6.
	r.send(0, ip6("2001:db8:1::7", "2001:db8:2::9", protoUDP, 64, udp(1, 2, 3)))
	f := r.ports[1].expect(t)
	if want := ns("2001:db8:2::1", "ff02::1:ff00:9", "2001:db8:2::9", 255, option(1, ours(1))...); !bytes.Equal(f[etherLen:], want) {
		t.Errorf("% x\nwant\n% x", f[etherLen:], want)
	}
	if [6]byte(f) != ([6]byte{0x33, 0x33, 0xff, 0, 0, 9}) {
		t.Errorf("to % x", f[:6])
	}
	r.send(1, na("2001:db8:2::9", "2001:db8:2::1", "2001:db8:2::9", 0x60, option(2, theirs(1))...))
	if p := r.expectIP(1); p[0]>>4 != 6 || p[7] != 63 {
		t.Errorf("% x", p)
	}
	// Gratuitous ARP moves a neighbour.
	r.ports[1].in <- arp(1, everybody, theirs(5), [6]byte{}, "10.2.0.9", "10.2.0.9")
	eventually(t, "moved", func() bool { return r.Neighbors(b, false)[0].MAC == theirs(5) })
	r.ok(r.DelNeighbor(b, mustAddr("10.2.0.9")))
	if _, err := r.LookupExact(0, mustPrefix("10.2.0.9/32")); err != api.NO_SUCH_ENTRY {
		t.Error(err)
	}
}

// TestUnresolved: three requests, a second apart, then the senders are told.
func TestUnresolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.port("10.1.0.1/24", "2001:db8:1::1/64")
		r.port("10.2.0.1/24", "2001:db8:2::1/64")
		r.near(1, "10.1.0.2", 0)
		r.near(1, "2001:db8:1::2", 0)
		begin := time.Now()
		r.send(0, ip4("10.1.0.2", "10.2.0.9", protoUDP, 64, udp(1, 2, 3)))
		r.send(0, ip6("2001:db8:1::2", "2001:db8:2::9", protoUDP, 64, udp(1, 2, 3)))
		for k := range 3 {
			for range 2 {
				r.ports[1].expect(t)
				if d := time.Since(begin); d != time.Duration(k)*time.Second {
					t.Errorf("request %d after %v", k, d)
				}
			}
		}
		for range 2 {
			b := r.expectIP(0)
			if time.Since(begin) != 3*time.Second {
				t.Errorf("error after %v", time.Since(begin))
			}
			switch b[0] >> 4 {
			case 4:
				if b[20] != 3 || b[21] != 1 {
					t.Errorf("% x", b)
				}
			case 6:
				if b[40] != 1 || b[41] != 3 {
					t.Errorf("% x", b)
				}
			}
		}
		if len(r.ports[1].out) != 0 {
			t.Error("more requests")
		}
	})
}

// TestAgeing: a learned neighbour is asked after a minute, three times, and goes; a static one stays for ever.
func TestAgeing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.port("10.1.0.1/24", "fe80::1/128")
		r.near(1, "10.1.0.2", 0)
		r.ports[0].in <- arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.7", "10.1.0.1")
		r.ports[0].expect(t)
		r.send(0, ns("fe80::7", "ff02::1:ff00:1", "fe80::1", 255, option(1, theirs(0))...))
		r.ports[0].expect(t)
		var gone []Event
		r.Subscribe(func(e Event) { gone = append(gone, e) })
		begin := time.Now()
		request := arp(1, theirs(0), ours(0), theirs(0), "10.1.0.1", "10.1.0.7")
		next := func(at time.Duration) {
			t.Helper()
			for range 2 {
				select {
				case f := <-r.ports[0].out:
					if get16(f[12:]) == etherARP && !bytes.Equal(f, request) {
						t.Errorf("% x", f)
					}
				case <-time.After(2 * time.Minute):
					t.Fatal("nothing")
				}
				if d := time.Since(begin); d != at {
					t.Fatalf("asked after %v, want %v", d, at)
				}
			}
		}
		next(60 * time.Second)
		r.ports[0].in <- arp(2, ours(0), theirs(0), ours(0), "10.1.0.7", "10.1.0.1")
		r.send(0, na("fe80::7", "fe80::1", "fe80::7", 0x40))
		next(120 * time.Second)
		next(121 * time.Second)
		next(122 * time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := r.Neighbors(1, false); len(n) != 1 || !n[0].Static || len(r.Neighbors(1, true)) != 0 {
			t.Errorf("%v", n)
		}
		if len(gone) != 2 || gone[0].Kind != EventNeighborRemoved {
			t.Errorf("%v", gone)
		}
		if _, err := r.LookupExact(0, mustPrefix("10.1.0.7/32")); err != api.NO_SUCH_ENTRY {
			t.Error(err)
		}
		time.Sleep(24 * time.Hour)
		if len(r.ports[0].out) != 0 || len(r.Neighbors(1, false)) != 1 {
			t.Error("static neighbour was asked or forgotten")
		}
	})
}

func TestAddNeighbor(t *testing.T) {
	r := newRig(t)
	idx := r.port("10.1.0.1/24")
	a := mustAddr("10.1.0.5")
	add := func(mac byte, static bool) error {
		_, err := r.AddNeighbor(idx, Neighbor{Addr: a, MAC: [6]byte{2, 0, 0, 0, 0, mac}, Static: static})
		return err
	}
	for _, step := range []struct {
		mac    byte
		static bool
		want   error
		now    byte
	}{
		{1, false, nil, 1},
		{2, false, nil, 2},
		{3, true, nil, 3},
		{4, false, api.VPPApiError(-2), 3},
		{3, false, nil, 3},
		{5, true, nil, 5},
	} {
		if err := add(step.mac, step.static); err != step.want {
			t.Errorf("%+v: %v", step, err)
		}
		if n := r.Neighbors(NoInterface, false); len(n) != 1 || n[0].MAC[5] != step.now {
			t.Errorf("%+v: %v", step, n)
		}
	}
	if err := r.DelNeighbor(idx, mustAddr("10.1.0.6")); err != api.NO_SUCH_ENTRY {
		t.Error(err)
	}
	if err := r.DelNeighbor(77, a); err != api.INVALID_SW_IF_INDEX {
		t.Error(err)
	}
	r.ok(r.DelNeighbor(idx, a))
	_, err := r.AddNeighbor(idx, Neighbor{Addr: mustAddr("10.1.0.8"), MAC: theirs(0), Static: true, NoFIB: true})
	r.ok(err)
	if _, err := r.LookupExact(0, mustPrefix("10.1.0.8/32")); err != api.NO_SUCH_ENTRY {
		t.Error("host route in spite of NoFIB")
	}
	// What is not covered by a connected prefix has no host route.
	_, err = r.AddNeighbor(idx, Neighbor{Addr: mustAddr("192.0.2.8"), MAC: theirs(0), Static: true})
	r.ok(err)
	if _, err := r.LookupExact(0, mustPrefix("192.0.2.8/32")); err != api.NO_SUCH_ENTRY {
		t.Error("host route outside of the prefix")
	}
	r.ok(r.SetAdmin(idx, false))
	if n := r.Neighbors(idx, false); len(n) != 2 {
		t.Errorf("static neighbours of an interface that is down: %v", n)
	}
}

// TestScan: a scan of a connected prefix does not fill memory.
func TestScan(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24")
	idx := r.port("10.128.0.1/9")
	for k := range uint32(3000) {
		var d [4]byte
		put32(d[:], 0x0a800100+k)
		r.send(0, ip4("10.1.0.2", netip.AddrFrom4(d).String(), protoUDP, 64, udp(1, 2, 3)))
	}
	eventually(t, "all arrived", func() bool { x, _ := r.Interface(1); return x.Counters.RxPackets == 3000 })
	n := &r.at(idx).near4
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.m) != maxIncomplete || n.incomplete != maxIncomplete {
		t.Errorf("%d entries, %d incomplete", len(n.m), n.incomplete)
	}
}

// TestManyNeighbors: each newcomer costs as much as the first one did, so that a crowded or hostile link does not stop the
// plane; the host routes follow; and when the interface goes down, all are told to be gone.
func TestManyNeighbors(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	idx := r.port("10.0.0.1/8")
	r.ports[0].loss.Store(true) // nobody reads the answers
	var removed atomic.Int64
	r.Subscribe(func(e Event) {
		if e.Kind == EventNeighborRemoved {
			removed.Add(1)
		}
	})
	const crowd = 20_000
	addr := func(n int) string { return sprintf("10.%d.%d.%d", 1+n>>16, n>>8&255, n&255) }
	for n := range crowd {
		r.ports[0].in <- arp(1, everybody, theirs(0), [6]byte{}, addr(n), "10.0.0.1")
	}
	eventually(t, "all neighbours are known", func() bool { return len(r.Neighbors(idx, false)) == crowd })
	eventually(t, "the last one has a host route", func() bool {
		_, err := r.LookupExact(0, mustPrefix(addr(crowd-1)+"/32"))
		return err == nil
	})
	r.ok(r.SetAdmin(idx, false))
	eventually(t, "all are gone", func() bool { return removed.Load() == crowd })
	if _, err := r.LookupExact(0, mustPrefix(addr(0)+"/32")); err != api.NO_SUCH_ENTRY {
		t.Error(err)
	}
}
