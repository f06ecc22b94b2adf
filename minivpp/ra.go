package minivpp

import (
	"math"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip6_nd"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// Router advertisements: ip6_nd.api.

// Limits of VPP's ip6_ra_config, and of RFC 4861 §6.2.1 and §10.
const (
	maxRALifetime    = 9000 // seconds
	maxInitialRAs    = 3
	maxInitialRAWait = 16 // seconds
	minRAInterval    = 3
)

// swInterfaceIP6ndRaConfig: a flag that is set changes a setting, to its default with is_no; one that is not leaves it alone. A
// call without suppress always begins to send (ip6_ra_config of VPP's src/vnet/ip6-nd/ip6_ra.c).
func (s *Server) swInterfaceIP6ndRaConfig(_ *client, q *ip6_nd.SwInterfaceIP6ndRaConfig, _ *ip6_nd.SwInterfaceIP6ndRaConfigReply) error {
	if _, err := s.Interface(uint32(q.SwIfIndex)); err != nil {
		return err
	}
	c, err := s.RA(uint32(q.SwIfIndex))
	if err != nil {
		return err
	}
	maxWait, minWait, lifetime := uint32(c.Interval/time.Second), uint32(c.MinInterval/time.Second), uint32(c.Lifetime)
	usual := plane.RADefaults
	set := func(v *uint32, asked uint32, otherwise uint32) {
		switch {
		case asked == 0:
		case q.IsNo:
			*v = otherwise
		default:
			*v = asked
		}
	}
	least := q.MinInterval
	if q.MaxInterval != 0 && least == 0 {
		least = uint32(float64(q.MaxInterval) * .75)
	}
	set(&maxWait, q.MaxInterval, uint32(usual.Interval/time.Second))
	set(&minWait, least, uint32(usual.MinInterval/time.Second))
	if q.DefaultRouter == 1 {
		lifetime = q.Lifetime
		if q.IsNo {
			lifetime = uint32(usual.Lifetime)
		}
	}
	if lifetime > 0 {
		if lifetime = min(lifetime, maxRALifetime); lifetime <= maxWait {
			return api.INVALID_VALUE
		}
	}
	if minWait != 0 && (float64(minWait) > .75*float64(maxWait) || minWait < minRAInterval) ||
		q.InitialCount > maxInitialRAs || q.InitialInterval > maxInitialRAWait || maxWait > math.MaxInt32 {
		return api.INVALID_VALUE
	}
	flag := func(v *bool, asked uint8, on bool) {
		if asked == 1 {
			*v = on != q.IsNo
		}
	}
	c.On = true
	flag(&c.On, q.Suppress, false)
	flag(&c.Managed, q.Managed, true)
	flag(&c.Other, q.Other, true)
	flag(&c.NoLinkOption, q.LlOption, true)
	flag(&c.Cease, q.Cease, true)
	c.Interval, c.MinInterval, c.Lifetime = time.Duration(maxWait)*time.Second, time.Duration(minWait)*time.Second, uint16(lifetime)
	count, wait := uint32(c.InitialCount), uint32(c.InitialInterval/time.Second)
	set(&count, q.InitialCount, uint32(usual.InitialCount))
	set(&wait, q.InitialInterval, uint32(usual.InitialInterval/time.Second))
	c.InitialCount, c.InitialInterval = int(count), time.Duration(wait)*time.Second
	return s.SetRA(uint32(q.SwIfIndex), c)
}

// wantIP6RaEvents is wantInterfaceEvents for advertisements that are received.
func (s *Server) wantIP6RaEvents(c *client, q *ip6_nd.WantIP6RaEvents, _ *ip6_nd.WantIP6RaEventsReply) error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	_, has := s.hub.adverts[c]
	switch {
	case q.Enable == has:
		return api.INVALID_REGISTRATION
	case q.Enable:
		s.hub.adverts[c] = q.PID
	default:
		delete(s.hub.adverts, c)
	}
	return nil
}

func (h *hub) advertEvents(batch []plane.Event) {
	h.mu.Lock()
	clients := make(map[*client]uint32, len(h.adverts))
	for c, pid := range h.adverts {
		clients[c] = pid
	}
	h.mu.Unlock()
	for _, e := range batch {
		if e.Kind != plane.EventRouterAdvert {
			continue
		}
		for c, pid := range clients {
			c.post(toRAEvent(pid, e.Interface, e.Advert))
		}
	}
}

func toRAEvent(pid, index uint32, a *plane.RouterAdvert) *ip6_nd.IP6RaEvent {
	out := &ip6_nd.IP6RaEvent{
		PID: pid, SwIfIndex: interface_types.InterfaceIndex(index), RouterAddr: binapi.ToIP6(a.Router), CurrentHopLimit: a.HopLimit,
		Flags: a.Flags, RouterLifetimeInSec: a.Lifetime, NeighborReachableTimeInMsec: a.ReachableMs,
		TimeInMsecBetweenRetransmittedNeighborSolicitations: a.RetransmitMs,
	}
	for _, p := range a.Prefixes {
		out.Prefixes = append(out.Prefixes, ip6_nd.IP6RaPrefixInfo{
			Prefix: ip_types.Prefix{Address: binapi.ToAddress(p.Prefix.Addr()), Len: uint8(p.Prefix.Bits())},
			Flags:  p.Flags, ValidTime: p.Valid, PreferredTime: p.Preferred,
		})
	}
	return out
}
