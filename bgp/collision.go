package bgp

import (
	"cmp"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file chooses between two connections with one neighbour (RFC 4271 §6.8), and between a session and a connection that
// comes while there is one. Both sides must choose alike, or they close one another's choice; so the rule is kept to the
// letter where the peer can see it, and a connection of our own that nobody needs is closed before it says a word.

// decide chooses the wire that GoBGP reads from, once it is known which (RFC 4271 §6.8).
func (p *peer) decide(now time.Time) {
	if !p.sessTaken {
		return // GoBGP may still refuse: then nothing was decided
	}
	opened := func(w *wire) bool { return w != nil && !w.openedAt.IsZero() }
	if p.out == nil || p.in == nil {
		for _, w := range []*wire{p.out, p.in} {
			if opened(w) {
				p.choose(w, now)
			}
		}
		return
	}
	for _, w := range []*wire{p.out, p.in} {
		if opened(w) && w.open == nil {
			p.discard(w, "not an OPEN, and there is another connection")
			return
		}
	}
	var winner, loser *wire
	switch {
	case opened(p.out):
		winner, loser = p.rank(p.out.open)
	case opened(p.in):
		winner, loser = p.rank(p.in.open)
	default:
		return
	}
	switch {
	case opened(winner):
		p.refuse(loser)
		p.choose(winner, now)
	case now.Sub(loser.openedAt) >= collisionGrace:
		// The winner by the rule has not said a word. A live peer sends its OPEN at once, so it is as good as dead.
		p.refuse(winner)
		p.choose(loser, now)
	}
}

// rank orders out and in by the rule: the connection made by the speaker with the higher identifier wins.
func (p *peer) rank(peer *openInfo) (winner, loser *wire) {
	if dominates(p.local.id, p.local.as, *peer) {
		return p.out, p.in
	}
	return p.in, p.out
}

func (p *peer) choose(w *wire, now time.Time) {
	p.stopDial()
	p.sessWire = w
	p.confirmBy = now.Add(openWait)
	t := p.newTraffic(w)
	p.status.opened(w, p.sess, t.paths)
	p.sess.choose(w, p.agree(w), t, cmp.Or(p.wrongAS(w.openOrZero()), p.config().mismatch(w.openOrZero())))
	p.out, p.in = nil, nil
}

// resolveLate deals with a connection that the peer makes while there is a chosen one.
func (p *peer) resolveLate(now time.Time) {
	if p.sess == nil || p.sessWire == nil || p.in == nil || p.closing {
		return
	}
	if !p.sess.confirmed.Load() {
		p.resolveOpenConfirm()
		return
	}
	if o := p.in.open; o != nil && o.gr.restarting && len(p.sess.agreedTerms().kept) > 0 {
		p.sess.hangUp() // RFC 4724 §4.2: it has restarted, so the old session is none; no NOTIFICATION
		return
	}
	// RFC 4271 §6.8 closes the new connection. But a peer that lost its session without a word connects anew and would be
	// turned away until our hold timer ends. So the old session must prove itself: its peer answers a KEEPALIVE with a reset
	// if it has forgotten the connection, and with messages of its own if not.
	switch {
	case p.probed != p.in:
		p.probed, p.proveFrom = p.in, now.Add(proofDelay)
		s := p.sess
		p.work.Go(s.probe) // in a goroutine: a full send buffer may hold it up
	case !p.proveFrom.IsZero():
		if !now.Before(p.proveFrom) {
			p.proveFrom, p.seen = time.Time{}, p.sess.messages.Load()
		}
	case p.sess.messages.Load() != p.seen:
		p.refuse(p.in)
		p.probed = nil
	}
}

func (p *peer) resolveOpenConfirm() {
	old := p.sessWire
	switch {
	case old.dialed && dominates(p.local.id, p.local.as, *old.openOrZero()):
		p.refuse(p.in)
	case p.in.open != nil:
		// The peer's identifier is the higher one, or the older connection was the peer's too: the new one stays.
		in := p.in
		if !p.sess.swap(in) {
			p.sess.cease(&p.work, ceaseCollision, nil, causeQuiet) // the new one waits until GoBGP wants a session again
			return
		}
		p.in, p.sessWire = nil, in
		p.log.WithField("dialed", old.dialed).Debug("connection lost a collision")
		old.refuse(&p.work, bgp.BGP_ERROR_CEASE, ceaseCollision, nil)
		p.status.opened(in, p.sess, p.sess.pathsAgreed())
	}
}

func (w *wire) openOrZero() *openInfo {
	if w.open == nil {
		return &openInfo{}
	}
	return w.open
}

// watchConfirm ends a session whose peer does not answer our OPEN with a KEEPALIVE: GoBGP would wait for ever.
func (p *peer) watchConfirm(now time.Time) {
	if p.confirmBy.IsZero() || p.sess == nil {
		return
	}
	if p.sess.confirmed.Load() {
		p.confirmBy = time.Time{}
		return
	}
	if now.After(p.confirmBy) {
		p.confirmBy = time.Time{}
		p.sess.setCause("no KEEPALIVE from the peer within " + openWait.String())
		p.sess.hangUp()
	}
}
