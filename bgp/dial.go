package bgp

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack"
)

// This file makes connections to a neighbour.

func (p *peer) wantsDial() bool {
	return !p.config().Passive && !p.closing && !p.resting(time.Now()) && p.sessWire == nil && p.in == nil && p.out == nil
}

// dial starts an attempt when it is time. An attempt lasts until the next one begins, which cancels it: a SYN that a silent
// tunnel has eaten is repeated by TCP ever more slowly, and a new attempt sends a fresh one.
func (p *peer) dial(now time.Time) {
	if !p.wantsDial() || now.Before(p.dialAt) {
		return
	}
	if p.dialing != nil {
		p.stopDial()
		p.status.connectFailed(textTimeout)
	}
	// RFC 4271 §10: the interval times a random value between 0.75 and 1.0.
	interval := time.Duration(float64(p.config().ConnectRetry) * (0.75 + rand.Float64()/4))
	p.dialAt = now.Add(interval)
	ctx, cancel := context.WithTimeout(p.ctx, interval)
	p.dialing = cancel
	p.dialID++
	id := p.dialID
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		conn, err := p.stack.Dial(ctx, hoststack.Endpoints{
			Table:     p.config().Table,
			Interface: p.config().Address.Zone(),
			Local:     localPort(p.config().LocalAddress),
			Remote:    netip.AddrPortFrom(p.config().Address, bgp.BGP_PORT),
		})
		if !p.post(func() { p.dialed(id, conn, err) }) && err == nil {
			_ = conn.Close()
		}
	}()
}

func localPort(a netip.Addr) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, 0)
}

func (p *peer) dialed(id int, conn net.Conn, err error) {
	current := id == p.dialID && p.dialing != nil
	if current {
		p.stopDial()
	}
	switch {
	case err != nil && current:
		p.status.connectFailed(dialErrorText(err))
	case err != nil:
	case !current || p.closing || p.ctx.Err() != nil || p.sessWire != nil || p.out != nil:
		_ = conn.Close()
	default:
		p.log.Debug("connected")
		p.adopt(newWire(conn, true))
	}
}

func (p *peer) stopDial() {
	if p.dialing != nil {
		p.dialing()
		p.dialing = nil
	}
}
