package bgp

import (
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/fib"
)

// This file says where packets for a path go. Peers write next hops on a link in many ways: a global address, a link-local one
// in 16 bytes, [global, link-local] (RFC 2545 §3), [link-local, link-local] (FRR), [::, link-local] (BIRD), and the same for IPv4
// routes (RFC 8950 §3). GoBGP decodes them all, and keeps the first of two.

// forward returns where packets for a path of this neighbour go.
//
// An unspecified next hop stands for the neighbour. On a link-local session of eBGP the neighbour is the next hop for every path
// that does not name another link-local address: RFC 2545 §3 gives the link-local address for forwarding, and a global one
// beside it need not be reachable on the link.
func (p *peer) forward(path *apiutil.Path) (fib.NextHop, bool) {
	cfg, nh := p.config(), nextHopOf(path.Attrs)
	neighbor := fib.NextHop{Addr: cfg.Address.WithZone(""), Interface: cfg.Address.Zone()}
	switch {
	case !nh.IsValid() || nh.IsUnspecified():
		return neighbor, familyOf(path.Family) == IPv4 || cfg.Address.Is6() // IPv6 is not forwarded to an IPv4 address
	case nh.IsLoopback() || nh.IsMulticast() || nh == p.status.localAddr().WithZone(""):
		return fib.NextHop{}, false // RFC 4271 §5.1.3: a route to us through ourselves
	case isLinkLocal(nh):
		return fib.NextHop{Addr: nh, Interface: cfg.Interface}, cfg.Interface != ""
	case isLinkLocal(cfg.Address) && !p.internal():
		return neighbor, true
	}
	return fib.NextHop{Addr: nh}, true
}

// nextHopOf returns a path's next hop as the peer gave it; of two the first.
func nextHopOf(attrs []bgp.PathAttributeInterface) netip.Addr {
	for _, a := range attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			return a.Value.Unmap()
		case *bgp.PathAttributeMpReachNLRI:
			return a.Nexthop.Unmap().WithZone("")
		}
	}
	return netip.Addr{}
}

// nameHop rewrites [::, fe80::x] into fe80::x alone, so that GoBGP keeps what says something. It reports whether it did.
func (u *update) nameHop() bool {
	m, ok := u.reach()
	if !ok || len(m.nextHop) != 32 || !netip.AddrFrom16([16]byte(m.nextHop)).IsUnspecified() {
		return false
	}
	if second := netip.AddrFrom16([16]byte(m.nextHop[16:])); !isLinkLocal(second) {
		return false
	}
	m.nextHop = m.nextHop[16:]
	u.setReach(m)
	return true
}

// ownHop puts our next hop in place of one that says nothing on another link: a link-local one, or none. GoBGP passes next hops
// on within our AS as they came (RFC 4271 §5.1.3). It reports whether it did.
func (u *update) ownHop(self [2]hopBytes) bool {
	m, ok := u.reach()
	if !ok || len(m.nextHop) < 16 {
		return false
	}
	first := netip.AddrFrom16([16]byte(m.nextHop))
	own := self[0]
	if m.family == bgp.RF_IPv6_UC {
		own = self[1]
	}
	if len(own) == 0 || !isLinkLocal(first) && !first.IsUnspecified() {
		return false
	}
	m.nextHop = own
	u.setReach(m)
	return true
}

// plain gives IPv4 routes with an IPv6 next hop our IPv4 next hop, or takes them out where there is none: the peer has not said
// that it takes them as they are (RFC 8950 §4), and GoBGP does not ask. It reports whether it did.
func (u *update) plain(own hopBytes) bool {
	m, ok := u.reach()
	if !ok || m.family != bgp.RF_IPv4_UC || len(m.nextHop) < 16 {
		return false
	}
	u.remove(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
	if len(own) == 4 {
		u.nlri = m.routes
		u.put(attr{wellKnown, bgp.BGP_ATTR_TYPE_NEXT_HOP, own})
		return true
	}
	if len(u.nlri) == 0 {
		u.trim()
	}
	return true
}
