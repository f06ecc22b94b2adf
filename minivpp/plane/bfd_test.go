package plane

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.fd.io/govpp/api"
)

// bfdPair are two planes on a cable, with a session each.
type bfdPair struct {
	one, two *rig
	k1, k2   BFDKey
	heard    chan BFDState // by the first
	a, b     *testPort
}

func newBFDPair(t *testing.T, local, peer string, timers1, timers2 BFDTimers) *bfdPair {
	p := &bfdPair{one: newRig(t), two: newRig(t), heard: make(chan BFDState, 64)}
	p.a, p.b = wire()
	bits := "/24"
	if mustAddr(local).Is6() {
		bits = "/128"
	}
	i1 := p.one.attach(p.a, [6]byte{2, 0, 0, 0, 0, 1}, local+bits)
	i2 := p.two.attach(p.b, [6]byte{2, 0, 0, 0, 0, 2}, peer+bits)
	p.k1, p.k2 = BFDKey{i1, mustAddr(local), mustAddr(peer)}, BFDKey{i2, mustAddr(peer), mustAddr(local)}
	cancel := p.one.Subscribe(func(e Event) {
		if e.Kind == EventBFD {
			p.heard <- e.BFD.State
		}
	})
	t.Cleanup(cancel)
	p.one.ok(p.one.AddBFD(p.k1, timers1))
	p.two.ok(p.two.AddBFD(p.k2, timers2))
	return p
}

func (p *bfdPair) state(r *rig, k BFDKey) BFDState {
	for _, s := range r.BFDSessions() {
		if s.BFDKey == k {
			return s.State
		}
	}
	return 99
}

func (p *bfdPair) await(t *testing.T, want BFDState) time.Duration {
	t.Helper()
	began := time.Now()
	for s := range p.heard {
		if s == want {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			break
		}
	}
	t.Fatalf("the session does not become %d", want)
	return 0
}

func bfdMs(tx, rx int, multiplier uint8) BFDTimers {
	return BFDTimers{time.Duration(tx) * time.Millisecond, time.Duration(rx) * time.Millisecond, multiplier}
}

// Two sessions come up, notice silence by the timers that they agreed on, and come up again.
func TestBFD(t *testing.T) {
	for _, c := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fe80::1", "fe80::2"}} {
		synctest.Test(t, func(t *testing.T) {
			p := newBFDPair(t, c[0], c[1], bfdMs(50, 100, 3), bfdMs(20, 80, 5))
			if d := p.await(t, BFDUp); d > 3*time.Second {
				t.Errorf("up after %v", d)
			}
			time.Sleep(5 * time.Second) // of the test's clock
			if s := p.state(p.two, p.k2); s != BFDUp || len(p.heard) > 0 {
				t.Fatalf("the other side is %d, events: %d", s, len(p.heard))
			}
			// The first wants 100 ms between packets, and gets them; five of them are its detection time.
			p.two.ok(p.two.DelBFD(p.k2))
			if d := p.await(t, BFDDown); d < 350*time.Millisecond || d > 510*time.Millisecond {
				t.Errorf("silence was noticed after %v, want 500 ms less a packet's interval", d)
			}
			p.two.ok(p.two.AddBFD(p.k2, bfdMs(20, 80, 5)))
			p.await(t, BFDUp)

			// What is taken down by order is told, and comes up again.
			p.two.ok(p.two.SetBFD(p.k2, false))
			if d := p.await(t, BFDDown); d > 10*time.Millisecond {
				t.Errorf("an order was heard of after %v", d)
			}
			p.two.ok(p.two.SetBFD(p.k2, true))
			p.await(t, BFDUp)

			// New timers count after a poll, without the session's end.
			p.two.ok(p.two.ModBFD(p.k2, bfdMs(200, 200, 2)))
			p.one.ok(p.one.ModBFD(p.k1, bfdMs(300, 10, 2)))
			time.Sleep(3 * time.Second)
			if len(p.heard) > 0 {
				t.Errorf("new timers end the session: %d", <-p.heard)
			}
			p.two.ok(p.two.DelBFD(p.k2))
			if d := p.await(t, BFDDown); d < 200*time.Millisecond || d > 410*time.Millisecond {
				t.Errorf("with new timers silence was noticed after %v", d)
			}
		})
	}
}

func TestBFDRefused(t *testing.T) {
	r := newRig(t)
	idx := r.port("10.0.0.1/24", "fd00::1/64")
	key := func(i uint32, local, peer string) BFDKey { return BFDKey{i, mustAddr(local), mustAddr(peer)} }
	one := key(idx, "10.0.0.1", "10.0.0.2")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"no such interface", r.AddBFD(key(77, "10.0.0.1", "10.0.0.2"), bfdMs(50, 50, 3)), api.INVALID_SW_IF_INDEX},
		{"two families", r.AddBFD(key(idx, "10.0.0.1", "fd00::2"), bfdMs(50, 50, 3)), api.INVALID_ARGUMENT},
		{"no multiplier", r.AddBFD(one, bfdMs(50, 50, 0)), api.INVALID_ARGUMENT},
		{"no interval", r.AddBFD(one, bfdMs(0, 50, 3)), api.INVALID_ARGUMENT},
		{"change of none", r.ModBFD(one, bfdMs(50, 50, 3)), api.BFD_ENOENT},
		{"removal of none", r.DelBFD(one), api.BFD_ENOENT},
		{"order to none", r.SetBFD(one, true), api.BFD_ENOENT},
		{"the first", r.AddBFD(one, bfdMs(50, 50, 3)), nil},
		{"the second", r.AddBFD(one, bfdMs(50, 50, 3)), api.BFD_EEXIST},
	} {
		if c.err != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	if n := len(r.BFDSessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// What is not right changes nothing.
func TestBFDInput(t *testing.T) {
	packet := func(ttl byte, change func(c []byte)) []byte {
		u := make([]byte, udpLen+bfdLen)
		put16(u, 50000)
		put16(u[2:], bfdPort)
		put16(u[4:], uint16(len(u)))
		c := u[udpLen:]
		c[0], c[1], c[2], c[3] = bfdVersion<<5, byte(BFDDown)<<6, 3, bfdLen
		put32(c[4:], 7)
		put32(c[12:], 1e6)
		put32(c[16:], 1e6)
		change(c)
		b := ip6("fe80::2", "fe80::1", protoUDP, ttl, u)
		put16(b[header6Len+6:], fold(sum(b[header6Len:], pseudo(b[8:24], b[24:40], protoUDP, len(u)))))
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"right", packet(255, func([]byte) {}), true},
		{"through a router", packet(254, func([]byte) {}), false},
		{"version 0", packet(255, func(c []byte) { c[0] = 0 }), false},
		{"a length that is too short", packet(255, func(c []byte) { c[3] = 23 }), false},
		{"a length that is too long", packet(255, func(c []byte) { c[3] = 25 }), false},
		{"no multiplier", packet(255, func(c []byte) { c[2] = 0 }), false},
		{"authenticated", packet(255, func(c []byte) { c[1] |= bfdAuth }), false},
		{"multipoint", packet(255, func(c []byte) { c[1] |= bfdMultipoint }), false},
		{"no discriminator", packet(255, func(c []byte) { put32(c[4:], 0) }), false},
		{"another's discriminator", packet(255, func(c []byte) { put32(c[8:], 1) }), false},
		{"up to nobody", packet(255, func(c []byte) { c[1] = byte(BFDUp) << 6 }), false},
		{"a bad checksum", func() []byte { b := packet(255, func([]byte) {}); b[len(b)-1] ^= 1; return b }(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				idx := r.port("fe80::1/128")
				r.near(idx, "fe80::2", 0)
				r.ok(r.AddBFD(BFDKey{idx, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")}, bfdMs(50, 50, 3)))
				r.send(0, c.b)
				synctest.Wait()
				if s := r.BFDSessions()[0].State; (s == BFDInit) != c.ok {
					t.Errorf("the session is %d", s)
				}
			})
		})
	}
}

// A path to a neighbour whose session is not up is dead, and the next best takes its place, as in VPP.
func TestBFDMovesRoutes(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24")
	var paths []Path
	var first uint32
	for k := 1; k <= 2; k++ {
		i := r.port(sprintf("10.2.%d.1/24", k))
		r.near(i, sprintf("10.2.%d.2", k), k)
		v := via(sprintf("10.2.%d.2", k), i)
		v.Preference = uint8(k - 1)
		paths = append(paths, v)
		if k == 1 {
			first = i
		}
	}
	r.route("192.0.2.0/24", paths...)
	leaves := func(port int) {
		t.Helper()
		eventually(t, sprintf("packets leave by port %d", port), func() bool { return hopsOf(r, "192.0.2.1", 10)[port] == 10 })
	}
	leaves(1)
	key := BFDKey{first, mustAddr("10.2.1.1"), mustAddr("10.2.1.2")}
	r.ok(r.AddBFD(key, bfdMs(1000, 1000, 3)))
	eventually(t, "the neighbour counts as dead", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.dead) == 1
	})
	leaves(2)
	r.ok(r.DelBFD(key))
	eventually(t, "nobody counts as dead", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.dead) == 0
	})
	leaves(1)
}
