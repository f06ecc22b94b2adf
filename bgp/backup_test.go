package bgp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/fib"
)

// The next best path stands by while there is one and a neighbour has BFD, whichever of the two changes.
func TestBackups(t *testing.T) {
	s := newStarWith(t, func(c *Config) { c.Neighbors[0].BFD = BFD{Interval: time.Second} },
		"169.254.2.2", "169.254.2.1", 65002, "169.254.3.2", "169.254.3.1", 65003)
	const prefix = "10.9.0.0/24"
	best := announce(bgp.AFI_IP, b4("169.254.2.2"), prefix, aspath(65002))
	other := func(as ...uint32) []byte { return announce(bgp.AFI_IP, b4("169.254.3.2"), prefix, aspath(as...)) }
	gone := withdraw4(24, 10, 9, 0)
	const first, second = prefix + " via 169.254.2.2", "via 169.254.3.2"

	s.first.send(best)
	s.r1.wantFeed(first)
	s.second.send(other(65003, 65009)) // no event of GoBGP's tells of it
	s.r1.wantFeed(first + ", " + second + " backup")
	s.second.send(gone)
	s.r1.wantFeed(first)
	s.second.send(other(65003, 65009))
	s.r1.wantFeed(first + ", " + second + " backup")
	s.first.send(announce(bgp.AFI_IP, b4("169.254.2.2"), prefix, aspath(65002, 65008, 65009))) // now the other one is best
	s.r1.wantFeed(first + " backup, " + second)
	s.first.send(best)
	s.r1.wantFeed(first + ", " + second + " backup")

	cfg := s.r1.cfg
	cfg.Neighbors = append([]Neighbor(nil), cfg.Neighbors...)
	cfg.Neighbors[0].BFD = BFD{}
	if err := s.r1.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	s.r1.wantFeed(first)
	cfg.Neighbors[0].BFD = BFD{Interval: time.Second}
	if err := s.r1.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	s.r1.wantFeed(first + ", " + second + " backup")
	s.r1.lookedUp() // so that it is the policy alone that has it looked at
	cfg.Neighbors = append([]Neighbor(nil), cfg.Neighbors...)
	cfg.Neighbors[1].Import = PolicyNone
	if err := s.r1.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	s.r1.wantFeed(first)
	cfg.Neighbors = append([]Neighbor(nil), cfg.Neighbors...)
	cfg.Neighbors[1].Import = PolicyAll
	if err := s.r1.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	s.r1.wantFeed(first + ", " + second + " backup")
	s.second.conn.Close()
	s.r1.wantFeed(first)
}

// lookedUp has second looks taken now, and waits until none is left.
func (r *testRouter) lookedUp() {
	r.t.Helper()
	b := r.feeder.backups
	eventually(r.t, 10*time.Second, func() string {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.noted)+len(b.again) == 0 {
			return ""
		}
		if !b.due.IsZero() {
			b.due = time.Now()
			select {
			case b.wake <- struct{}{}:
			default:
			}
		}
		return "prefixes are still to be looked up"
	})
}

// What is looked up is looked up when it is calm, what may not be with GoBGP yet once more, and never what has changed meanwhile.
func TestBackupTimes(t *testing.T) {
	b := newBackups()
	k1, k2 := fib.Key{Prefix: netip.MustParsePrefix("10.1.0.0/24")}, fib.Key{Prefix: netip.MustParsePrefix("10.2.0.0/24")}
	b.note(true, k1)
	if keys, wait := b.take(time.Now().Add(time.Hour)); keys != nil || wait != 0 {
		t.Fatalf("while off: %v, %v", keys, wait)
	}
	b.on = true
	b.note(true, k1)
	b.note(false, k2)
	now := b.last
	if keys, wait := b.take(now); keys != nil || wait <= 0 || wait > backupCalm {
		t.Fatalf("at once: %v, %v", keys, wait)
	}
	if keys, _ := b.take(now.Add(backupCalm)); len(keys) != 2 {
		t.Fatalf("when calm: %v", keys)
	}
	v := &backup{hop: fib.NextHop{Addr: a("10.0.0.1")}}
	b.note(false, k2)
	if !b.found(k1, v) || b.found(k2, v) {
		t.Error("what has changed was taken, or what has not was not")
	}
	if keys, _ := b.take(b.last.Add(backupCalm)); len(keys) != 1 || keys[0] != k2 {
		t.Fatalf("what changed: %v", keys)
	}
	if keys, _ := b.take(now.Add(backupCalm + backupSecond + time.Second)); len(keys) != 1 || keys[0] != k1 {
		t.Fatalf("the second look: %v", keys)
	}
	if keys, wait := b.take(now.Add(time.Hour)); keys != nil || wait != 0 {
		t.Fatalf("afterwards: %v, %v", keys, wait)
	}
	if hop, ok := b.hop(k1); !ok || hop != v.hop {
		t.Errorf("the backup is %v, %v", hop, ok)
	}
}

// A machine that is late itself believes nothing that BFD says of its neighbour, for a while.
func TestBFDWhileLate(t *testing.T) {
	const key = "tun0 169.254.0.2 50ms x3"
	r1, node, fake := bfdSite(t, "169.254.0.2", "169.254.0.1")
	fake.want(t, key)
	p := dialRaw(t, node, "169.254.0.1")
	p.establishAs(bothFamilies()...)
	r1.established()
	fake.say(key, true)
	r1.wantBFD("up")
	late := func() {
		now := int64(time.Since(r1.pulse.start))
		r1.pulse.worstAt.Store(now)
		r1.pulse.worst.Store(int64(time.Second))
	}
	late()
	fake.say(key, false)
	r1.wantBFD("down")
	if s := r1.session("raw"); s.State != Established {
		t.Fatalf("the session is %s", s.State)
	}
	fake.say(key, true)
	r1.wantBFD("up")
	late()
	fake.say(key, false)
	body := p.expect(bgp.BGP_MSG_NOTIFICATION) // in the end
	if body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseBFDDown {
		t.Errorf("the peer is told %d/%d", body[0], body[1])
	}
}

func TestPulse(t *testing.T) {
	if (*pulse)(nil).late() != 0 || newPulse().late() != 0 {
		t.Error("late without a beat")
	}
	p := newPulse()
	ms := int64(time.Millisecond)
	for _, c := range []struct{ now, late, want int64 }{{1, 5, 5}, {2, 3, 5}, {2000, 1, 5}, {5000, 2, 2}, {5001, 4, 4}} {
		p.noted(c.now*ms, c.late*ms)
		if got := p.worst.Load(); got != c.want*ms {
			t.Errorf("at %d ms: %d ms instead of %d", c.now, got/ms, c.want)
		}
	}
}
