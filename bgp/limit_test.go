package bgp

import (
	"fmt"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// limitSite is a router whose neighbour may announce three IPv4 prefixes.
func limitSite(t *testing.T, l PrefixLimit) (*testRouter, *hoststacktest.Node, *rawPeer) {
	t.Helper()
	l.Max = 3
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(c *Config) { c.Neighbors[0].Limit4 = l })
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	p.establish()
	r1.established()
	return r1, node, p
}

func withdraw4(routes ...byte) []byte {
	return message(bgp.BGP_MSG_UPDATE, append(append([]byte{0, byte(len(routes))}, routes...), 0, 0))
}

// feedOf is the feed of 10.0.N.0/24 and 10.9.0.0/16.
func feedOf(more []string, ns ...int) []string {
	var all []string
	for _, n := range ns {
		all = append(all, fmt.Sprintf("10.0.%d.0/24 via 169.254.0.2", n))
	}
	return append(all, more...)
}

// wantLimit waits until a limit is at so many prefixes, with so many left out.
func (r *testRouter) wantLimit(prefixes int, blocked uint64) {
	r.t.Helper()
	eventually(r.t, 5*time.Second, func() string {
		l := r.session("raw").Limits
		if len(l) != 1 || l[0].Prefixes != prefixes || l[0].Blocked != blocked {
			return fmt.Sprintf("limits are %+v, want %d prefixes, %d blocked", l, prefixes, blocked)
		}
		return ""
	})
}

func TestLimitBlock(t *testing.T) {
	r1, _, p := limitSite(t, PrefixLimit{Action: LimitBlock})
	for n := range 3 {
		p.send(announce4(fmt.Sprintf("10.0.%d.0/24", n)))
	}
	p.send(announce4("10.0.1.0/24")) // anew: no further one
	r1.wantLimit(3, 0)
	// Two more in one message with one that is there.
	body := []byte{0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 169, 254, 0, 2}
	p.send(message(bgp.BGP_MSG_UPDATE, append(body, 24, 10, 0, 7, 24, 10, 0, 2, 24, 10, 0, 8)))
	p.send(reach(bgp.AFI_IP, b16("fd00::2"), "10.0.9.0/24")) // the family counts, not how it is written
	p.send(reach(bgp.AFI_IP6, b16("fd00::2"), "fd00:1::/64"))
	v6 := []string{"fd00:1::/64 via fd00::2"}
	r1.wantFeed(feedOf(v6, 0, 1, 2)...)
	r1.wantLimit(3, 3)

	// There is room: it is asked for all anew, once.
	p.send(withdraw4(24, 10, 0, 0))
	if body := p.expect(bgp.BGP_MSG_ROUTE_REFRESH); body[1] != bgp.AFI_IP {
		t.Errorf("asked for %x", body)
	}
	for _, n := range []int{1, 2, 7, 8} {
		p.send(announce4(fmt.Sprintf("10.0.%d.0/24", n)))
	}
	r1.wantFeed(feedOf(v6, 1, 2, 7)...)
	r1.wantLimit(3, 1)

	// A higher limit, by a reload: asked again.
	c := r1.cfg
	c.Neighbors = append([]Neighbor(nil), c.Neighbors...)
	c.Neighbors[0].Limit4.Max = 10
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	p.expect(bgp.BGP_MSG_ROUTE_REFRESH)
	p.send(announce4("10.0.8.0/24"))
	r1.wantFeed(feedOf(v6, 1, 2, 7, 8)...)
	r1.wantLimit(4, 0)
	if s := r1.session("raw"); s.Flaps != 0 {
		t.Errorf("%d flaps", s.Flaps)
	}
}

func TestLimitWarn(t *testing.T) {
	r1, _, p := limitSite(t, PrefixLimit{Action: LimitWarn})
	for n := range 5 {
		p.send(announce4(fmt.Sprintf("10.0.%d.0/24", n)))
	}
	r1.wantFeed(feedOf(nil, 0, 1, 2, 3, 4)...)
	r1.wantLimit(5, 0)
	if l := r1.session("raw").Limits[0]; !l.Reached() {
		t.Errorf("%+v is not reached", l)
	}
}

func TestLimitRestart(t *testing.T) {
	r1, node, p := limitSite(t, PrefixLimit{Action: LimitRestart, RestartAfter: 3 * time.Second})
	for n := range 4 {
		p.send(announce4(fmt.Sprintf("10.0.%d.0/24", n)))
	}
	body := p.expect(bgp.BGP_MSG_NOTIFICATION)
	if want := "060100010100000003"; fmt.Sprintf("%x", body) != want {
		t.Errorf("the session ends with %x, want %s", body, want)
	}
	ended := time.Now()
	r1.wantFeed()
	eventually(t, 2*time.Second, func() string {
		s := r1.session("raw")
		if want := "Cease: Maximum Number of Prefixes Reached (sent): more than 3 of ipv4; next try in 3s"; s.LastError != want || s.State != Idle {
			return fmt.Sprintf("%s, %q", s.State, s.LastError)
		}
		return ""
	})
	early := dialRaw(t, node, "169.254.0.1")
	if body := early.expect(bgp.BGP_MSG_NOTIFICATION); body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseRejected {
		t.Errorf("it is turned away with %x", body)
	}
	eventually(t, 20*time.Second, func() string {
		if s := r1.session("raw"); s.State == Idle {
			return "still Idle"
		}
		return ""
	})
	if rested := time.Since(ended); rested < 3*time.Second {
		t.Errorf("it rests for %s only", rested)
	}
	again := dialRaw(t, node, "169.254.0.1")
	again.establish()
	r1.established()
	again.send(announce4("10.0.1.0/24"))
	r1.wantFeed(feedOf(nil, 1)...)

	// The operator may end the rest.
	for n := range 4 {
		again.send(announce4(fmt.Sprintf("10.0.%d.0/24", n)))
	}
	again.expect(bgp.BGP_MSG_NOTIFICATION)
	r1.wantFeed()
	if err := r1.Reset("raw", ResetHard); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, func() string {
		if s := r1.session("raw"); s.State == Idle {
			return "still Idle"
		}
		return ""
	})
}
