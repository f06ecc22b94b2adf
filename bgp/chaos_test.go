package bgp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Random trouble, and then peace: every session comes back, with one connection each, and the routes are right.
func TestChaos(t *testing.T) {
	for _, outlived := range []bool{false, true} { // with it, most losses are graceful
		t.Run(fmt.Sprintf("graceful=%v", outlived), func(t *testing.T) { chaos(t, outlived) })
	}
}

func chaos(t *testing.T, outlived bool) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BGP_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("BGP_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const pairs = 6
	r1, r2, links := manyLinks(t, pairs)
	r1 = newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, Outlived: outlived})
	r2 = newRouterWith(t, r2.node, "r2", Options{Config: r2.cfg, Outlived: outlived})
	routers := []*testRouter{r1, r2}
	c := []Config{r1.cfg, r2.cfg}
	for k := range c {
		for i := range c[k].Neighbors {
			n := &c[k].Neighbors[i]
			n.HoldTime, n.ConnectRetry = 3*time.Second, time.Second
			n.Passive = i == k // on some links only one side dials
		}
		if err := routers[k].Apply(c[k]); err != nil {
			t.Fatal(err)
		}
	}
	start(t, r1, r2)
	r1.originate("10.1.0.0/24")
	r2.originate("10.2.0.0/24")
	for range 60 {
		i, k := rng.IntN(pairs), rng.IntN(2)
		r, name := routers[k], fmt.Sprint("n", i)
		var err error
		switch rng.IntN(9) {
		case 0, 1:
			links[i].Cut()
		case 2, 3:
			links[i].Heal()
		case 4:
			r.node.Forget()
		case 5:
			err = r.Reset(name, ResetHard)
		case 6:
			err = r.Disable(name, "chaos")
		case 7:
			err = r.Enable(name)
		case 8:
			n := append([]Neighbor(nil), c[k].Neighbors...)
			n[i].Passive, n[i].RouteReflectorClient = false, rng.IntN(2) == 0
			if rng.IntN(3) == 0 {
				n = append(n[:i:i], n[i+1:]...)
			}
			changed := c[k]
			changed.Neighbors = n
			err = r.Apply(changed)
		}
		if err != nil && r.hasNeighbor(name) {
			t.Errorf("%s %s: %v", r.name, name, err)
		}
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
	}
	for k, r := range routers {
		if err := r.Apply(c[k]); err != nil {
			t.Fatal(err)
		}
		for i := range pairs {
			links[i].Heal()
			if err := r.Enable(fmt.Sprint("n", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, 30*time.Second, func() string {
		for _, r := range routers {
			for _, s := range r.Sessions() {
				if s.State != Established {
					return fmt.Sprintf("%s: %s is %s (%s)", r.name, s.Neighbor.Name, s.State, s.ErrorText())
				}
				if g := s.Graceful; !g.Aware || g.Restarter != outlived || g.Helping {
					return fmt.Sprintf("%s: %s has %+v", r.name, s.Neighbor.Name, g)
				}
				if s.Received != 1 || s.Advertised != 1 {
					return fmt.Sprintf("%s: %s has received %d and advertised %d", r.name, s.Neighbor.Name, s.Received, s.Advertised)
				}
			}
			if n := r.node.Conns(); n != pairs {
				return fmt.Sprintf("%s has %d connections", r.name, n)
			}
			if n := len(r.feed.text()); n == 0 {
				return r.name + " has no route"
			}
		}
		return ""
	})
}

// hasNeighbor reports whether the router has a neighbour of that name.
func (r *testRouter) hasNeighbor(name string) bool {
	_, err := r.peerByName(name)
	return err == nil
}

// Run leaves nothing of ours behind. (GoBGP leaves a goroutine for some deleted neighbours: its queue is not drained.)
func TestLeak(t *testing.T) {
	ours := func() (n int, all string) {
		buf := make([]byte, 1<<20)
		all = string(buf[:runtime.Stack(buf, true)])
		for g := range strings.SplitSeq(all, "\n\n") {
			if strings.Contains(g, "created by rlr/") || strings.Contains(g, "rlr/bgp.(") {
				n++
			}
		}
		return n, all
	}
	before, _ := ours()
	r1, r2, _ := twoSites(t, nil)
	start(t, r1, r2)
	r1.established()
	r1.stop()
	r2.stop()
	eventually(t, 5*time.Second, func() string {
		if n, all := ours(); n > before {
			return fmt.Sprintf("%d goroutines, there were %d\n%s", n, before, all)
		}
		return ""
	})
}
