package bgp

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// This file is a network of a router and neighbours made of bytes, for the tests of policies.

// text is all of a route that a neighbour may see.
func (r route) text() string {
	number := func(n *uint32) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	d := r.describe()
	return fmt.Sprintf("%s via %s [%s] %s pref %s med %s %v %v", r.prefix, r.nextHop, d.ASPath, d.Origin, number(r.localPref), number(r.med), d.Communities, d.LargeCommunities)
}

// listeningPeer is a neighbour made of bytes that remembers what it was told.
type listeningPeer struct {
	*rawPeer
	name string
	as   uint32
	addr netip.Addr
	mu   sync.Mutex
	told map[netip.Prefix]string
	sent map[netip.Prefix]route
}

func (p *listeningPeer) listen() {
	for {
		typ, body, err := p.read(time.Minute)
		if err != nil {
			return
		}
		if typ != bgp.BGP_MSG_UPDATE {
			continue
		}
		m, err := bgp.ParseBGPMessage(message(typ, body))
		if err != nil {
			p.t.Errorf("%s: what we send cannot be read: %v", p.name, err)
			return
		}
		p.note(m.Body.(*bgp.BGPUpdate))
	}
}

func (p *listeningPeer) note(u *bgp.BGPUpdate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	withdrawn, reached := u.WithdrawnRoutes, u.NLRI
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			reached = append(reached, a.Value...)
		case *bgp.PathAttributeMpUnreachNLRI:
			withdrawn = append(withdrawn, a.Value...)
		}
	}
	for _, n := range withdrawn {
		if pfx, ok := prefixOf(n.NLRI); ok {
			delete(p.told, pfx)
		}
	}
	for _, n := range reached {
		if pfx, ok := prefixOf(n.NLRI); ok {
			p.told[pfx] = routeOf(pfx, SourceOwn, u.PathAttributes).text()
		}
	}
}

// announce sends a route.
func (p *listeningPeer) announce(r route) {
	p.t.Helper()
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(uint8(r.origin))}
	var segments []bgp.AsPathParamInterface
	for _, s := range r.asPath {
		segments = append(segments, bgp.NewAs4PathParam(s.typ, s.as))
	}
	attrs = append(attrs, bgp.NewPathAttributeAsPath(segments))
	nlri, err := bgp.NewIPAddrPrefix(r.prefix)
	if err != nil {
		p.t.Fatal(err)
	}
	reached := []bgp.PathNLRI{{NLRI: nlri}}
	var plain []bgp.PathNLRI
	if r.family() == IPv4 && r.nextHop.Is4() {
		nh, _ := bgp.NewPathAttributeNextHop(r.nextHop)
		attrs, plain = append(attrs, nh), reached
	} else {
		mp, err := bgp.NewPathAttributeMpReachNLRI(r.family().wire(), reached, r.nextHop)
		if err != nil {
			p.t.Fatal(err)
		}
		attrs = append(attrs, mp)
	}
	if r.med != nil {
		attrs = append(attrs, bgp.NewPathAttributeMultiExitDisc(*r.med))
	}
	if r.localPref != nil {
		attrs = append(attrs, bgp.NewPathAttributeLocalPref(*r.localPref))
	}
	if len(r.communities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(r.communities))
	}
	if len(r.large) > 0 {
		var l []*bgp.LargeCommunity
		for _, c := range r.large {
			l = append(l, bgp.NewLargeCommunity(c[0], c[1], c[2]))
		}
		attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(l))
	}
	b, err := bgp.NewBGPUpdateMessage(nil, attrs, plain).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	p.send(b)
	p.sent[r.prefix] = r
}

// policySite is r1 with neighbours of all kinds.
func policySite(t *testing.T) (*testRouter, []*listeningPeer) {
	t.Helper()
	net := hoststacktest.New()
	n1, n2 := net.Node("r1"), net.Node("raw")
	c := Config{AS: 65001, RouterID: a("10.9.0.1")}
	var peers []*listeningPeer
	for i, k := range []struct {
		name, ours, theirs string
		as                 uint32
		change             func(*Neighbor)
	}{
		{"ext4", "169.254.1.1", "169.254.1.2", 65002, func(n *Neighbor) { n.NextHop6 = a("fd00:12::1") }},
		{"extll", "fe80::1", "fe80::2", 65003, func(*Neighbor) {}},
		{"ext6", "fd00:33::1", "fd00:33::2", 65004, func(n *Neighbor) { n.NextHop4 = a("10.33.0.1") }},
		{"int", "169.254.4.1", "169.254.4.2", 65001, func(n *Neighbor) { n.NextHop6, n.NextHopSelf = a("fd00:14::1"), true }},
	} {
		tun := fmt.Sprint("tun", i)
		net.Connect(n1, tun, addrs(k.ours), n2, tun, addrs(k.theirs))
		n := Neighbor{Name: k.name, Address: a(k.theirs), Interface: tun, AS: k.as, Families: both, Passive: true}
		k.change(&n)
		c.Neighbors = append(c.Neighbors, n)
		peers = append(peers, &listeningPeer{
			name: k.name, as: k.as, addr: a(k.theirs), told: map[netip.Prefix]string{}, sent: map[netip.Prefix]route{},
		})
	}
	r1 := newRouter(t, n1, "r1", c)
	start(t, r1)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for i, p := range peers {
		p.rawPeer = dialRawOn(t, n2, fmt.Sprint("tun", i), r1.cfg.Neighbors[i].localOf())
		p.send(rawOpen(p.as, fmt.Sprintf("10.2.0.%d", i+1), bothFamilies()...))
		p.expect(bgp.BGP_MSG_OPEN)
		p.send(keepalive)
		p.expect(bgp.BGP_MSG_KEEPALIVE)
		wg.Go(p.listen)
		t.Cleanup(func() { p.conn.Close() })
	}
	r1.established()
	return r1, peers
}

// localOf is our address in policySite: the neighbour's with a 1 at its end.
func (n Neighbor) localOf() string {
	b := n.Address.WithZone("").AsSlice()
	b[len(b)-1] = 1
	l, _ := netip.AddrFromSlice(b)
	return l.String()
}
