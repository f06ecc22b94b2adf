package vppagent

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"time"

	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip6_nd"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
)

// Router advertisements (RFC 4861 §6.2), by which BGP neighbours without an address find each other: the interfaces of such
// neighbours send them, and who is heard there is the neighbour. Where nobody is heard, the only link-local address in the
// interface's neighbour table is.

// Of the advertisements that we send: often, because a session waits for them, and not as a default router.
const (
	advertEvery      = 10 // seconds, at most
	advertEveryLeast = 5
	advertFirst      = 3 // so many at first,
	advertFirstEvery = 2 // seconds apart
	// advertForget is after how long without a word a router gives way to another on its link.
	advertForget = time.Minute
)

// advertised is the router on an interface's link.
type advertised struct {
	addr netip.Addr
	at   time.Time // last heard; zero: it is from the neighbour table
	near bool      // its neighbour entry was seen to since the link came up
}

// Routers returns the link-local address of the router on each advertising interface's link, where one is known. InterfacesChanged
// is told when one comes, or changes.
func (a *Agent) Routers() map[string]netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]netip.Addr)
	for index, r := range a.routers {
		if name, ok := a.byIndex[index]; ok {
			all[name] = r.addr
		}
	}
	return all
}

// hear asks for the advertisements that the dataplane receives.
func (l *life) hear(ctx context.Context) error {
	l.heard = make(chan struct{}, 1)
	l.a.mu.Lock()
	l.a.routers = make(map[uint32]advertised)
	l.a.mu.Unlock()
	if !l.report.Supports(binapi.Advertise) {
		return nil
	}
	var e ip6_nd.IP6RaEvent
	err := l.s.event(&e, func() {
		if l.a.heard(uint32(e.SwIfIndex), netip.AddrFrom16(e.RouterAddr), time.Now()) {
			select {
			case l.heard <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	return l.s.call(ctx, &ip6_nd.WantIP6RaEvents{Enable: true, PID: uint32(os.Getpid())}, new(ip6_nd.WantIP6RaEventsReply))
}

// heard notes a router, and reports whether it is news.
func (a *Agent) heard(index uint32, addr netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, known := a.routers[index]
	if known && r.addr != addr && !r.at.IsZero() && now.Sub(r.at) < advertForget {
		return false
	}
	same := r.addr == addr
	a.routers[index] = advertised{addr, now, same && r.near}
	return !same || !r.near
}

// advertise makes interfaces advertise, or stop it, each when its link has come up: then the other side is there to hear the first.
func (l *life) advertise(ctx context.Context, now map[uint32]*observed) {
	maps.DeleteFunc(l.adverts, func(index uint32, _ bool) bool { return now[index] == nil || !now[index].link })
	cfg := l.a.config()
	if !l.report.Supports(binapi.Advertise) {
		return
	}
	for i := range cfg.Interfaces {
		want := &cfg.Interfaces[i]
		index, ok := l.a.InterfaceIndex(want.Name)
		o := now[index]
		if !ok || o == nil || !o.link || l.adverts[index] == want.Advertise {
			continue
		}
		req := &ip6_nd.SwInterfaceIP6ndRaConfig{
			SwIfIndex: interface_types.InterfaceIndex(index), DefaultRouter: 1, MaxInterval: advertEvery, MinInterval: advertEveryLeast,
			InitialCount: advertFirst, InitialInterval: advertFirstEvery,
		}
		if want.Bare {
			req.LlOption = 1
		}
		if !want.Advertise {
			req = &ip6_nd.SwInterfaceIP6ndRaConfig{SwIfIndex: req.SwIfIndex, Suppress: 1}
		}
		if err := l.s.call(ctx, req, new(ip6_nd.SwInterfaceIP6ndRaConfigReply)); err != nil {
			l.log.WithError(err).WithField("interface", want.Name).Warn("router advertisements not configured")
			l.a.errs.add("interface "+want.Name, err)
			continue
		}
		l.adverts[index] = want.Advertise
		l.a.mu.Lock()
		if r, known := l.a.routers[index]; known { // a link that was down has no neighbours
			r.near = false
			l.a.routers[index] = r
		}
		l.a.mu.Unlock()
	}
}

// lookForRouters looks into the neighbour tables of advertising interfaces on which nobody was heard.
func (l *life) lookForRouters(ctx context.Context) error {
	cfg, news := l.a.config(), false
	for i := range cfg.Interfaces {
		index, ok := l.a.InterfaceIndex(cfg.Interfaces[i].Name)
		l.a.mu.Lock()
		r, known := l.a.routers[index]
		l.a.mu.Unlock()
		if !ok || !cfg.Interfaces[i].Advertise || known && !r.at.IsZero() {
			continue
		}
		var there []netip.Addr
		req := &ip_neighbor.IPNeighborDump{SwIfIndex: interface_types.InterfaceIndex(index), Af: ip_types.ADDRESS_IP6}
		err := dump(ctx, l.s, req, func(d *ip_neighbor.IPNeighborDetails) {
			if addr := binapi.FromAddress(d.Neighbor.IPAddress); addr.IsLinkLocalUnicast() && d.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC == 0 {
				there = append(there, addr)
			}
		})
		if err != nil {
			return err
		}
		if len(there) == 1 && there[0] != r.addr {
			l.a.mu.Lock()
			l.a.routers[index] = advertised{addr: there[0]}
			l.a.mu.Unlock()
			news = true
		}
	}
	if news {
		l.notify(InterfacesChanged)
	}
	return nil
}

// approach makes neighbour entries for routers that were heard, where the MAC address is in the link-local one (RFC 4291 appendix
// A): VPP learns none from an advertisement, and sends no first segment to a link-local address without an entry. The entries
// are no static ones, so that discovery may put them right. A router with another kind of address asks for ours when it
// connects, which makes its entry.
func (l *life) approach(ctx context.Context) error {
	cfg := l.a.config()
	for i := range cfg.Interfaces {
		want := &cfg.Interfaces[i]
		index, ok := l.a.InterfaceIndex(want.Name)
		l.a.mu.Lock()
		r, known := l.a.routers[index]
		todo := ok && known && want.Advertise && !r.near
		if todo {
			r.near = true
			l.a.routers[index] = r
		}
		l.a.mu.Unlock()
		mac, embedded := macOf(r.addr)
		if !todo || want.Bare || !embedded {
			continue
		}
		err := l.s.call(ctx, &ip_neighbor.IPNeighborAddDel{IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
			SwIfIndex: interface_types.InterfaceIndex(index), MacAddress: mac, IPAddress: binapi.ToAddress(r.addr),
		}}, new(ip_neighbor.IPNeighborAddDelReply))
		if err != nil && !isRefusal(err) {
			return err
		}
		if err != nil {
			l.a.errs.add("interface "+want.Name, err)
		}
	}
	return nil
}

// macOf returns the MAC address that a link-local address was made from.
func macOf(a netip.Addr) (mac [6]byte, ok bool) {
	b := a.As16()
	if !a.Is6() || b[11] != 0xff || b[12] != 0xfe {
		return mac, false
	}
	return [6]byte{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}, true
}
