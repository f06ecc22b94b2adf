package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rlr/hoststack/hoststacktest"
)

// manyLinks joins two nodes by n links with a neighbour over each.
func manyLinks(t *testing.T, n int) (r1, r2 *testRouter, links []*hoststacktest.Link) {
	t.Helper()
	network := hoststacktest.New()
	n1, n2 := network.Node("r1"), network.Node("r2")
	c1 := Config{AS: 65001, RouterID: a("10.0.0.1")}
	c2 := Config{AS: 65002, RouterID: a("10.0.0.2")}
	for i := range n {
		x, y := netip.AddrFrom4([4]byte{169, 254, byte(i), 1}), netip.AddrFrom4([4]byte{169, 254, byte(i), 2})
		l := network.Connect(n1, fmt.Sprintf("tun%d", i), []netip.Addr{x}, n2, fmt.Sprintf("tun%d", i), []netip.Addr{y})
		links = append(links, l)
		c1.Neighbors = append(c1.Neighbors, Neighbor{Name: fmt.Sprint("n", i), Address: y, AS: 65002})
		c2.Neighbors = append(c2.Neighbors, Neighbor{Name: fmt.Sprint("n", i), Address: x, AS: 65001})
	}
	return newRouter(t, n1, "r1", c1), newRouter(t, n2, "r2", c2), links
}

func TestCollision(t *testing.T) {
	const pairs = 24
	r1, r2, links := manyLinks(t, pairs)
	for _, l := range links {
		l.Cut()
	}
	start(t, r1, r2)
	// SYNs of both sides are under way on every link; healing lets them through at the same moment.
	bothDial := func() string {
		for _, r := range []*testRouter{r1, r2} {
			for _, s := range r.Sessions() {
				if s.State != Connect {
					return fmt.Sprintf("%s: %s is %s", r.name, s.Neighbor.Name, s.State)
				}
			}
		}
		return ""
	}
	eventually(t, 5*time.Second, bothDial)
	for _, l := range links {
		l.Heal()
	}
	took := stopwatch(t)
	r1.established()
	r2.established()
	if d := took(); d > 3*time.Second {
		t.Errorf("collisions took %s: some session was lost over one", d)
	}
	eventually(t, 5*time.Second, func() string {
		if x, y := r1.node.Conns(), r2.node.Conns(); x != pairs || y != pairs {
			return fmt.Sprintf("%d and %d connections for %d sessions", x, y, pairs)
		}
		return ""
	})
	for _, r := range []*testRouter{r1, r2} {
		for _, s := range r.Sessions() {
			if s.Flaps != 0 || s.LastError != "" {
				t.Errorf("%s: %s flapped %d times, last error %q", r.name, s.Neighbor.Name, s.Flaps, s.LastError)
			}
		}
	}
}

func TestHoldTimer(t *testing.T) {
	r1, r2, link := twoSites(t, func(one, two *Neighbor) { one.HoldTime, two.HoldTime = 3*time.Second, 3*time.Second })
	start(t, r1, r2)
	r1.established()
	r2.established()
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	link.Cut()
	cut := stopwatch(t)
	eventually(t, 6*time.Second, func() string {
		if s := r1.session("r2"); !strings.Contains(s.LastError, "Hold Timer Expired") {
			return fmt.Sprintf("state %s, error %q", s.State, s.LastError)
		}
		return ""
	})
	if d := cut(); d > 4*time.Second {
		t.Errorf("the hold timer of 3 s took %s", d)
	}
	r1.wantFeed()
	// GoBGP's idle time passes, attempts fail: the reason of the loss stays.
	eventually(t, 15*time.Second, func() string {
		if s := r1.session("r2"); s.ConnectError != textTimeout || !strings.HasPrefix(s.ErrorText(), "Hold Timer Expired") {
			return fmt.Sprintf("error %q, connect error %q", s.LastError, s.ConnectError)
		}
		return ""
	})
	link.Heal()
	healed := stopwatch(t)
	r1.established()
	if d := healed(); d > 5*time.Second {
		t.Errorf("established %s after the link healed", d)
	}
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	if s := r1.session("r2"); !strings.Contains(s.ErrorText(), "Hold Timer Expired") || s.ConnectError != "" || s.Flaps != 1 {
		t.Errorf("after recovery: error %q, connect error %q, flaps %d", s.ErrorText(), s.ConnectError, s.Flaps)
	}
}

// A peer that forgot the session connects again long before our hold timer would end the old one.
func TestForgottenSession(t *testing.T) {
	r1, r2, _ := twoSites(t, func(one, two *Neighbor) { one.Passive = true })
	start(t, r1, r2)
	r1.established()
	r2.established()
	r2.node.Forget()
	began := time.Now()
	eventually(t, 12*time.Second, func() string {
		if s := r1.session("r2"); s.Flaps == 0 || s.State != Established {
			return fmt.Sprintf("state %s, flaps %d, error %q", s.State, s.Flaps, s.ErrorText())
		}
		return ""
	})
	r2.established()
	t.Logf("back after %s; r1 saw %q", time.Since(began), r1.session("r2").LastError)
	if s := r1.session("r2"); s.LastError != "connection reset by peer" {
		t.Errorf("last error is %q", s.LastError)
	}
}

func TestConnectErrors(t *testing.T) {
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("r2")
	n.Connect(n1, "eth0", addrs("192.0.2.1", "fe80::1"), n2, "eth0", addrs("192.0.2.2"))
	c := Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "deaf", Address: a("192.0.2.2"), AS: 65002},
		{Name: "nowhere", Address: a("198.51.100.1"), AS: 65002},
		{Name: "no-interface", Address: a("fe80::9"), Interface: "tun9", AS: 65002},
		{Name: "off", Address: a("192.0.2.7"), AS: 65002, Disabled: true},
		{Name: "waiting", Address: a("192.0.2.8"), AS: 65002, Passive: true},
	}}
	r := newRouter(t, n1, "r1", c)
	start(t, r)
	for name, want := range map[string]string{
		"deaf": "connection refused", "nowhere": "no route to host",
		"no-interface": "interface tun9: no such interface in the dataplane", "off": "", "waiting": "",
	} {
		eventually(t, 5*time.Second, func() string {
			if got := r.session(name).ErrorText(); got != want {
				return fmt.Sprintf("%s: %q, want %q", name, got, want)
			}
			return ""
		})
	}
	if s := r.session("off"); s.State != Idle || !s.Disabled {
		t.Errorf("the disabled neighbor is %s", s.State)
	}
	if s := r.session("waiting"); s.State != Active {
		t.Errorf("the passive neighbor is %s", s.State)
	}
}

func TestWrongAS(t *testing.T) {
	r1, r2, _ := twoSites(t, func(one, _ *Neighbor) { one.AS = 65009 })
	start(t, r1, r2)
	// Long enough for another attempt, after GoBGP's 5 s of Idle, where both connections of the first are lost in a collision.
	eventually(t, 20*time.Second, func() string {
		if got, want := r1.session("r2").LastError, "OPEN Message Error: Bad Peer AS (peer AS 65002, expected 65009) (sent)"; got != want {
			return fmt.Sprintf("r1: %q, want %q", got, want)
		}
		if got, want := r2.session("r1").LastError, "OPEN Message Error: Bad Peer AS"; !strings.HasPrefix(got, want) {
			return fmt.Sprintf("r2: %q, want %q", got, want)
		}
		return ""
	})
}

func TestDisableEnableReset(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	start(t, r1, r2)
	r1.established()
	r2.established()
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	if err := r1.Disable("r2", "maintenance until noon"); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed()
	if s := r1.session("r2"); s.State != Idle || !s.Disabled || s.LastError != "Cease: Administrative Shutdown (sent)" {
		t.Errorf("disabled: %s, %q", s.State, s.LastError)
	}
	eventually(t, 5*time.Second, func() string {
		if got, want := r2.session("r1").LastError, `Cease: Administrative Shutdown "maintenance until noon" (received)`; got != want {
			return fmt.Sprintf("r2: %q, want %q", got, want)
		}
		return ""
	})
	// It stays so whatever the peer tries.
	eventually(t, 12*time.Second, func() string {
		if got, want := r2.session("r1").ConnectError, "Cease: Connection Rejected (received)"; got != want {
			return fmt.Sprintf("r2: %q, want %q", got, want)
		}
		return ""
	})
	if err := r1.Enable("169.254.12.2"); err != nil {
		t.Fatal(err)
	}
	r1.established()
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	for _, kind := range []ResetKind{ResetSoft, ResetSoftIn, ResetSoftOut} {
		if err := r1.Reset("r2", kind); err != nil {
			t.Fatal(err)
		}
	}
	if s := r1.session("r2"); s.State != Established || s.Flaps != 1 {
		t.Errorf("after soft resets: %s, %d flaps", s.State, s.Flaps)
	}
	if err := r1.Reset("r2", ResetHard); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, func() string {
		if s := r1.session("r2"); s.State != Established || s.Flaps != 2 || s.LastError != "Cease: Administrative Reset (sent)" {
			return fmt.Sprintf("after a reset: %s, %d flaps, %q", s.State, s.Flaps, s.LastError)
		}
		return ""
	})
	if err := r1.Reset("nobody", ResetHard); err == nil {
		t.Error("reset of a neighbor that does not exist succeeds")
	}
}
