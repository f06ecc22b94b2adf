package plane

// Router advertisements (RFC 4861 §6.2): sent on interfaces that are told to, and told of when they are received. Nothing is
// learned from them but the router's MAC address: this is a router itself.

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"go.fd.io/govpp/api"
)

// RAConfig is how an interface advertises.
type RAConfig struct {
	On                    bool
	Cease                 bool // the initial ones only
	Managed, Other        bool
	NoLinkOption          bool
	MinInterval, Interval time.Duration
	Lifetime              uint16 // as a default router, seconds; 0: none
	InitialCount          int
	InitialInterval       time.Duration // the longest one between the initial ones
}

// RADefaults are VPP's (src/vnet/ip6-nd/ip6_ra.c), for an interface that has been told nothing.
var RADefaults = RAConfig{
	MinInterval: 150 * time.Second, Interval: 200 * time.Second, Lifetime: 600, InitialCount: 3, InitialInterval: 16 * time.Second,
}

// RouterAdvert is one that was received.
type RouterAdvert struct {
	Router       netip.Addr
	HopLimit     uint8
	Flags        uint8
	Lifetime     uint16 // seconds
	ReachableMs  uint32
	RetransmitMs uint32
	Prefixes     []RAPrefix
}

// RAPrefix is an advertised prefix (RFC 4861 §4.6.2).
type RAPrefix struct {
	Prefix           netip.Prefix
	Flags            uint8
	Valid, Preferred uint32 // seconds
}

const (
	icmp6RouterSol = 133
	raLen          = 16 // ICMPv6 header, hop limit, flags, lifetime, times
	optionPrefix   = 3
	optionMTU      = 5
)

// raState is an interface's. It is replaced by a change of its configuration, and otherwise the advertiser's alone.
type raState struct {
	RAConfig
	initial int   // how many of the initial ones are left
	next    int64 // the plane's clock
}

func (s *raState) restart(now int64) { s.initial, s.next = max(s.InitialCount-1, 0), now }

// sent schedules the next one. RFC 4861 §6.2.4.
func (s *raState) sent(now int64) {
	wait := s.MinInterval
	if s.Interval > wait {
		wait += rand.N(s.Interval - wait)
	}
	if s.initial > 0 {
		s.initial--
		wait = min(wait, s.InitialInterval)
		if s.initial == 0 && s.Cease {
			s.On = false
		}
	}
	s.next = now + int64(wait)
}

// RA returns how an interface advertises. Errors: INVALID_SW_IF_INDEX, IP6_NOT_ENABLED.
func (p *Plane) RA(idx uint32) (c RAConfig, err error) {
	err = p.change(idx, func(i *iface) error {
		switch {
		case !i.ll.IsValid():
			return api.IP6_NOT_ENABLED
		case i.ra != nil:
			c = i.ra.RAConfig
		default:
			c = RADefaults
		}
		return nil
	})
	return c, err
}

// SetRA makes an interface advertise, beginning at once. Errors: as of RA.
func (p *Plane) SetRA(idx uint32, c RAConfig) error {
	err := p.change(idx, func(i *iface) error {
		if !i.ll.IsValid() {
			return api.IP6_NOT_ENABLED
		}
		i.ra = &raState{RAConfig: c}
		i.ra.restart(p.now())
		return nil
	})
	p.wakeAdvertiser()
	return err
}

func (p *Plane) wakeAdvertiser() {
	select {
	case p.raWake <- struct{}{}:
	default:
	}
}

// runAdvertiser sends advertisements when they are due.
func (p *Plane) runAdvertiser(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.raWake:
		case <-timer.C:
		}
		timer.Reset(p.advertiseDue())
	}
}

func (p *Plane) advertiseDue() time.Duration {
	w := p.begin()
	defer w.finish()
	wait := time.Hour
	for _, i := range p.ifaces {
		switch {
		case i == nil || i.ra == nil || !i.ra.On:
			continue
		case !i.usable() || !i.ll.IsValid():
			i.ra.restart(w.now) // what comes up begins anew; it wakes us
			continue
		case w.now >= i.ra.next:
			w.routerAdvertise(i, netip.AddrFrom16(allNodes))
			i.ra.sent(w.now)
		}
		wait = min(wait, time.Duration(max(i.ra.next-w.now, 0)))
	}
	return wait
}

// routerAdvertise sends one. RFC 4861 §4.2.
func (w *worker) routerAdvertise(i *iface, dst netip.Addr) {
	options := 8
	if !i.ra.NoLinkOption {
		options += 8
	}
	k := w.newPacket(header6Len + raLen + options)
	b := k.ip()
	header6(b, i.ll, dst, protoICMPv6, 255)
	m := b[header6Len:]
	m[0], m[4] = icmp6RouterAdv, 64
	if i.ra.Managed {
		m[5] |= 0x80
	}
	if i.ra.Other {
		m[5] |= 0x40
	}
	put16(m[6:], i.ra.Lifetime)
	o := m[raLen:]
	if !i.ra.NoLinkOption {
		o[0], o[1] = optionSource, 1
		copy(o[2:], i.mac[:])
		o = o[8:]
	}
	o[0], o[1] = optionMTU, 1
	put32(o[4:], uint32(i.packetMTU(true)))
	seal6(b, header6Len)
	if dst.IsMulticast() {
		w.toGroup(i, k)
		return
	}
	w.from = i.t6
	w.toNeighbor(i, dst, k, nil)
}

// inputRouterSolicit answers one whose checksum is right. RFC 4861 §6.1.1, §6.2.6.
func (w *worker) inputRouterSolicit(i *iface, b []byte) {
	src := addr6(b[8:24])
	if b[7] != 255 || b[header6Len+1] != 0 || src.IsMulticast() {
		w.drop(i, errND)
		return
	}
	if i.ra == nil || !i.ra.On || !i.ll.IsValid() {
		return
	}
	if !src.IsLinkLocalUnicast() {
		src = netip.AddrFrom16(allNodes)
	}
	w.routerAdvertise(i, src)
}

// inputRouterAdvert takes one whose checksum is right. RFC 4861 §6.1.2.
func (w *worker) inputRouterAdvert(i *iface, b []byte) {
	m, src := b[header6Len:], addr6(b[8:24])
	if b[7] != 255 || m[1] != 0 || len(m) < raLen || !src.IsLinkLocalUnicast() || src == i.ll {
		w.drop(i, errND)
		return
	}
	a := RouterAdvert{
		Router: src, HopLimit: m[4], Flags: m[5], Lifetime: get16(m[6:]), ReachableMs: get32(m[8:]), RetransmitMs: get32(m[12:]),
	}
	var mac [6]byte
	have := false
	for o := m[raLen:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || len(o) < int(o[1])*8 {
			w.drop(i, errND)
			return
		}
		switch {
		case o[0] == optionSource && o[1] == 1:
			mac, have = [6]byte(o[2:8]), o[2]&1 == 0
		case o[0] == optionPrefix && o[1] == 4 && o[2] <= 128:
			a.Prefixes = append(a.Prefixes, RAPrefix{
				Prefix: netip.PrefixFrom(addr6(o[16:32]), int(o[2])), Flags: o[3], Valid: get32(o[4:]), Preferred: get32(o[8:]),
			})
		}
		o = o[int(o[1])*8:]
	}
	if have && mac != ([6]byte{}) {
		w.learned(i, src, mac, learnNew)
	}
	w.p.events.emit(Event{Kind: EventRouterAdvert, Interface: i.index, Advert: &a})
}
