package plane

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.fd.io/govpp/api"
)

// Two planes on a cable: what one advertises, the other tells of, and learns the sender's MAC address.
func TestRouterAdvertisements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newRig(t), newRig(t)
		a, b := wire()
		i1, i2 := one.attach(a, [6]byte{2, 0, 0, 0, 0, 1}, "fe80::1/128"), two.attach(b, [6]byte{2, 0, 0, 0, 0, 2}, "fe80::2/128")
		heard := make(chan Event, 16)
		defer two.Subscribe(func(e Event) {
			if e.Kind == EventRouterAdvert {
				heard <- e
			}
		})()
		c := must(one.RA(i1))
		if c != RADefaults {
			t.Errorf("an interface advertises %+v", c)
		}
		c.On, c.Interval, c.MinInterval, c.Lifetime, c.InitialInterval = true, 10*time.Second, 7*time.Second, 0, time.Second
		began := time.Now()
		one.ok(one.SetRA(i1, c))
		for n, until := range []time.Duration{0, time.Second, 2 * time.Second} { // the initial ones
			e := <-heard
			if e.Interface != i2 || sprintf("%+v", *e.Advert) != sprintf("%+v", RouterAdvert{Router: mustAddr("fe80::1"), HopLimit: 64}) {
				t.Errorf("heard of %+v on %d", e.Advert, e.Interface)
			}
			if after := time.Since(began); after < until || after > until+100*time.Millisecond {
				t.Errorf("advertisement %d after %s", n, after)
			}
		}
		before := time.Now()
		<-heard
		if d := time.Since(before); d < 7*time.Second || d > 10*time.Second {
			t.Errorf("the next one after %s", d)
		}
		mac, known := [6]byte{}, false
		for _, n := range two.Neighbors(i2, true) {
			if n.Addr == mustAddr("fe80::1") {
				mac, known = n.MAC, true
			}
		}
		if !known || mac != ([6]byte{2, 0, 0, 0, 0, 1}) {
			t.Errorf("the router's MAC address is %x, known: %v", mac, known)
		}

		c.On = false
		one.ok(one.SetRA(i1, c))
		time.Sleep(time.Minute) // of the test's clock
		if len(heard) > 0 {
			t.Error("it goes on when it was told to stop")
		}
		if _, err := one.RA(one.port("10.9.0.1/24")); err != api.IP6_NOT_ENABLED {
			t.Errorf("without IPv6: %v", err)
		}
	})
}

// Only what RFC 4861 §6.1.2 allows is told of; a solicitation is answered.
func TestRouterAdvertInput(t *testing.T) {
	advert := func(src string, limit byte, change func([]byte)) []byte {
		m := make([]byte, raLen+8+32)
		m[0], m[4], m[5] = icmp6RouterAdv, 255, 0x40
		put16(m[6:], 1800)
		o := m[raLen:]
		o[0], o[1] = optionSource, 1
		copy(o[2:], []byte{2, 0, 0, 0, 1, 7})
		o = o[8:]
		o[0], o[1], o[2], o[3] = optionPrefix, 4, 64, 0xc0
		put32(o[4:], 3600)
		put32(o[8:], 1800)
		copy(o[16:], mustAddr("fd00:7::").AsSlice())
		if change != nil {
			change(m)
		}
		b := ip6(src, "ff02::1", protoICMPv6, limit, m)
		seal6(b, header6Len)
		return b
	}
	want := &RouterAdvert{
		Router: mustAddr("fe80::7"), HopLimit: 255, Flags: 0x40, Lifetime: 1800,
		Prefixes: []RAPrefix{{netip.MustParsePrefix("fd00:7::/64"), 0xc0, 3600, 1800}},
	}
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"as FRR sends it", advert("fe80::7", 255, nil), true},
		{"through a router", advert("fe80::7", 254, nil), false},
		{"of a global address", advert("fd00::7", 255, nil), false},
		{"with a code", advert("fe80::7", 255, func(m []byte) { m[1] = 1 }), false},
		{"with an option of no length", advert("fe80::7", 255, func(m []byte) { m[raLen+1] = 0 }), false},
		{"with an option that is cut", advert("fe80::7", 255, func(m []byte) { m[raLen+9] = 9 }), false},
		{"of our own address", advert("fe80::1", 255, nil), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			idx := r.port("fe80::1/128", "fd00::1/64")
			heard := make(chan Event, 1)
			defer r.Subscribe(func(e Event) {
				if e.Kind == EventRouterAdvert {
					heard <- e
				}
			})()
			f := make([]byte, etherLen+len(c.b))
			putEther(f, [6]byte{0x33, 0x33}, theirs(0), etherIPv6)
			f[5] = 1
			copy(f[etherLen:], c.b)
			r.ports[0].in <- f
			// A solicitation behind it: when that is answered, the first is done with.
			cfg := must(r.RA(idx))
			cfg.On, cfg.Interval, cfg.MinInterval = true, time.Hour, time.Hour
			r.ok(r.SetRA(idx, cfg))
			for reply := r.expectIP(0); reply[header6Len] != icmp6RouterAdv; reply = r.expectIP(0) {
			}
			select {
			case e := <-heard:
				if !c.ok || sprintf("%+v", *e.Advert) != sprintf("%+v", *want) {
					t.Errorf("heard of %+v", e.Advert)
				}
			case <-time.After(300 * time.Millisecond):
				if c.ok {
					t.Error("not heard of")
				}
			}
		})
	}
}
