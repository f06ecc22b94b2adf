package bgp

import (
	"testing"
	"time"

	"rlr/hoststack/hoststacktest"
)

// star is a router r1 of AS 65001 with two raw neighbours, both established: what the first says, the second may hear.
type star struct {
	r1            *testRouter
	first, second *rawPeer
}

// newStar takes, for each neighbour, its address, ours and its AS. change may add to the configuration.
func newStar(t *testing.T, remote1, local1 string, as1 uint32, remote2, local2 string, as2 uint32, change ...func(first, second *Neighbor)) *star {
	t.Helper()
	return newStarRaw(t, remote1, local1, as1, remote2, local2, as2, change...).establish(as1, as2)
}

// newStarWith is newStar with another configuration of the speaker.
func newStarWith(t *testing.T, change func(*Config), remote1, local1 string, as1 uint32, remote2, local2 string, as2 uint32) *star {
	t.Helper()
	return makeStar(t, change, remote1, local1, as1, remote2, local2, as2).establish(as1, as2)
}

// newStarRaw is newStar whose neighbours are connected, and have said nothing.
func newStarRaw(t *testing.T, remote1, local1 string, as1 uint32, remote2, local2 string, as2 uint32, change ...func(first, second *Neighbor)) *star {
	t.Helper()
	return makeStar(t, func(c *Config) {
		for _, f := range change {
			f(&c.Neighbors[0], &c.Neighbors[1])
		}
	}, remote1, local1, as1, remote2, local2, as2)
}

func makeStar(t *testing.T, change func(*Config), remote1, local1 string, as1 uint32, remote2, local2 string, as2 uint32) *star {
	t.Helper()
	n := hoststacktest.New()
	n1, n2, n3 := n.Node("r1"), n.Node("first"), n.Node("second")
	n.Connect(n1, "tun1", addrs(local1), n2, "tun1", addrs(remote1))
	n.Connect(n1, "tun2", addrs(local2), n3, "tun1", addrs(remote2))
	c := Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "first", Address: a(remote1), Interface: "tun1", AS: as1, Families: both, Passive: true, NextHop6: a("fd00::a1")},
		{Name: "second", Address: a(remote2), Interface: "tun2", AS: as2, Families: both, Passive: true, NextHop6: a("fd00::a2")},
	}}
	change(&c)
	s := &star{r1: newRouter(t, n1, "r1", c)}
	start(t, s.r1)
	s.first, s.second = dialRaw(t, n2, local1), dialRaw(t, n3, local2)
	return s
}

func (s *star) establish(as1, as2 uint32) *star {
	s.first.establishFrom(as1, "10.2.0.1")
	s.second.establishFrom(as2, "10.3.0.1")
	s.r1.settled()
	return s
}

// settled waits until all sessions are established, and neighbours are told of changes as they come: what there is before comes in any
// order.
func (r *testRouter) settled() {
	r.t.Helper()
	r.established()
	eventually(r.t, 10*time.Second, func() string {
		r.mu.RLock()
		defer r.mu.RUnlock()
		for _, p := range r.peers {
			t := p.telling.Load()
			if t == nil {
				return p.config().Name + " is told of nothing"
			}
			t.mu.Lock()
			whole := t.out
			t.mu.Unlock()
			if !whole.filled() {
				return p.config().Name + " is still to be told of everything"
			}
		}
		return ""
	})
}
