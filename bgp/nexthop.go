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
