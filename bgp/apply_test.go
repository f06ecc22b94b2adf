package bgp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestApply(t *testing.T) {
	r1, r2, _ := manyLinks(t, 6)
	c1, c2 := r1.cfg, r2.cfg
	all1, all2 := c1.Neighbors, c2.Neighbors
	// r1 begins without the last.
	c1.Neighbors = all1[:5]
	if err := r1.Apply(c1); err != nil { // before Run
		t.Fatal(err)
	}
	start(t, r1, r2)
	r1.established()
	since := map[string]time.Time{}
	for _, s := range r1.Sessions() {
		since[s.Neighbor.Name] = s.Since
	}
	// One added, one removed, one changed so that it needs a new session, one changed so that it does not.
	c1.Neighbors = append([]Neighbor(nil), all1[1:]...)
	c1.Neighbors[0].HoldTime = 60 * time.Second
	c1.Neighbors[1].Name, c1.Neighbors[1].Import, c1.Neighbors[1].Passive = "renamed", PolicyNone, true
	if err := r1.Apply(c1); err != nil {
		t.Fatal(err)
	}
	if _, err := r1.peerByName("n0"); !errors.Is(err, ErrNoNeighbor) {
		t.Errorf("n0 is still there: %v", err)
	}
	r1.established()
	for _, s := range r1.Sessions() {
		same := s.Since.Equal(since[s.Neighbor.Name]) || s.Neighbor.Name == "renamed" && s.Since.Equal(since["n2"])
		if want := s.Neighbor.Name != "n1" && s.Neighbor.Name != "n5"; same != want {
			t.Errorf("%s: same session: %v, want %v", s.Neighbor.Name, same, want)
		}
	}
	if s := r1.session("n1"); s.HoldTime != 60*time.Second {
		t.Errorf("n1's hold time is %s", s.HoldTime)
	}
	eventually(t, 5*time.Second, func() string {
		for name, want := range map[string]string{
			"n0": "Cease: Peer De-configured (received)", "n1": "Cease: Other Configuration Change (received)", "n2": "",
		} {
			if got := r2.session(name).LastError; got != want {
				return fmt.Sprintf("r2's %s: %q, want %q", name, got, want)
			}
		}
		return ""
	})

	// What is refused changes nothing.
	bad := c1
	bad.Neighbors = append([]Neighbor(nil), c1.Neighbors...)
	bad.Neighbors[0].AS = 0
	if err := r1.Apply(bad); err == nil || !strings.Contains(err.Error(), "AS 0") {
		t.Errorf("AS 0: %v", err)
	}
	for _, change := range []func(*Config){func(c *Config) { c.AS = 1 }, func(c *Config) { c.RouterID = a("1.1.1.1") }, func(c *Config) { c.Multipath = 8 }, func(c *Config) { c.ClusterID = a("9.9.9.9") }} {
		c := c1
		change(&c)
		if err := r1.Apply(c); !errors.Is(err, ErrNeedsRestart) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r1.established()
	// To nothing, and back.
	none := c1
	none.Neighbors = nil
	if err := r1.Apply(none); err != nil {
		t.Fatal(err)
	}
	if n := r1.node.Conns(); n != 0 {
		t.Errorf("%d connections without neighbors", n)
	}
	c1.Neighbors, c2.Neighbors = all1, all2
	if err := r1.Apply(c1); err != nil {
		t.Fatal(err)
	}
	r1.established()
}

func TestApplyDisabled(t *testing.T) {
	r1, r2, _ := twoSites(t, func(one, _ *Neighbor) { one.Disabled = true })
	start(t, r1, r2)
	c := r1.cfg
	for _, off := range []bool{false, true, false} {
		c.Neighbors = append([]Neighbor(nil), c.Neighbors...)
		c.Neighbors[0].Disabled = off
		if err := r1.Apply(c); err != nil {
			t.Fatal(err)
		}
		if off {
			if s := r1.session("r2"); !s.Disabled || s.State != Idle {
				t.Errorf("disabled: %v, %s", s.Disabled, s.State)
			}
			continue
		}
		r1.established()
	}
}

func TestConfigCheck(t *testing.T) {
	ok := Config{AS: 65001, RouterID: a("10.0.0.1")}
	for _, c := range []struct {
		want string
		with func(*Config)
	}{
		{"AS 0", func(c *Config) { c.AS = 0 }},
		{"router id ::1", func(c *Config) { c.RouterID = a("::1") }},
		{"router id 0.0.0.0", func(c *Config) { c.RouterID = a("0.0.0.0") }},
		{"multipath 65", func(c *Config) { c.Multipath = 65 }},
		{"neighbor x: AS 0", func(c *Config) { c.Neighbors[0].AS = 0 }},
		{"neighbor x: table 7", func(c *Config) { c.Neighbors[0].Table = 7 }},
		{"neighbor x: link-local address fe80::1 needs an interface", func(c *Config) { c.Neighbors[0].Address = a("fe80::1") }},
		{"neighbor x: interface b and zone a differ", func(c *Config) { c.Neighbors[0].Address, c.Neighbors[0].Interface = a("fe80::1%a"), "b" }},
		{"neighbor x: hold time 1s", func(c *Config) { c.Neighbors[0].HoldTime = time.Second }},
		{"neighbor x: hold time 3.5s", func(c *Config) { c.Neighbors[0].HoldTime = 3500 * time.Millisecond }},
		{"another family", func(c *Config) { c.Neighbors[0].LocalAddress = a("fd00::1") }},
		{"both be link-local", func(c *Config) { c.Neighbors[0].Address, c.Neighbors[0].LocalAddress = a("fe80::1%a"), a("fd00::1") }},
		{"is no address of a neighbor", func(c *Config) { c.Neighbors[0].Address = a("224.0.0.1") }},
		{"IPv6 next hop", func(c *Config) { c.Neighbors[0].Families = []Family{IPv4, IPv6} }},
		{"the name is used twice", func(c *Config) { c.Neighbors = append(c.Neighbors, c.Neighbors[0]) }},
		{"is used twice", func(c *Config) { c.Neighbors = append(c.Neighbors, c.Neighbors[0]); c.Neighbors[1].Name = "y" }},
	} {
		cfg := ok
		cfg.Neighbors = []Neighbor{{Name: "x", Address: a("192.0.2.1"), AS: 65002}}
		if _, err := cfg.check(); err != nil {
			t.Fatal(err)
		}
		c.with(&cfg)
		if _, err := cfg.check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q in %v", c.want, err)
		}
	}
}
