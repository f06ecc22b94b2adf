package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file is about neighbours that nobody has written down: who connects from an address in a prefix, and names an AS of it
// in its OPEN, becomes a neighbour; GoBGP, the policies and the status then know it as one. A guest is a connection whose
// OPEN is awaited, or such a neighbour.

// Dynamic makes neighbours of those who connect from a prefix.
type Dynamic struct {
	Prefix      netip.Prefix
	AS          []uint32      // who may come; none where External
	External    bool          // anybody of another AS than ours
	Limit       int           // guests at once
	ForgetAfter time.Duration // without a session, and without routes that are kept for it
	Neighbor    Neighbor      // the settings; Name, Address, AS, Passive and Dynamic are the guest's
}

func (d *Dynamic) normalize() error {
	switch {
	case !d.Prefix.IsValid() || d.Prefix != d.Prefix.Masked() || isLinkLocal(d.Prefix.Addr()):
		return fmt.Errorf("dynamic neighbors of %s: no prefix of neighbors", d.Prefix)
	case (len(d.AS) == 0) != d.External || slices.Contains(d.AS, 0):
		return fmt.Errorf("dynamic neighbors of %s: no AS, or AS 0 (RFC 7607)", d.Prefix)
	case d.Limit <= 0 || d.ForgetAfter <= 0:
		return fmt.Errorf("dynamic neighbors of %s: limit %d, forgotten after %s", d.Prefix, d.Limit, d.ForgetAfter)
	}
	n := d.guest(d.Prefix.Addr(), append(slices.Clone(d.AS), 1)[0])
	if n.Address.IsUnspecified() {
		n = d.guest(n.Address.Next(), n.AS)
	}
	if err := n.normalize(); err != nil {
		return fmt.Errorf("dynamic neighbors of %s: %w", d.Prefix, err)
	}
	return nil
}

// guest is the neighbour that one of them becomes.
func (d *Dynamic) guest(a netip.Addr, as uint32) Neighbor {
	n := d.Neighbor
	n.Name, n.Address, n.AS, n.External, n.Passive, n.Dynamic = "", a, as, false, true, true
	return n
}

// admits reports whether a speaker of an AS may come; ours is our own.
func (d *Dynamic) admits(as, ours uint32) bool {
	if d.External {
		return as != ours && as != 0
	}
	return slices.Contains(d.AS, as)
}

// dynamicFor returns the entry that an address belongs to, the one with the longest prefix; nil if there is none.
func (c *Config) dynamicFor(a netip.Addr) (best *Dynamic) {
	for i := range c.Dynamic {
		d := &c.Dynamic[i]
		if d.Prefix.Contains(a) && (best == nil || d.Prefix.Bits() > best.Prefix.Bits()) {
			best = d
		}
	}
	return best
}

// withDynamic adds to a checked configuration the dynamic neighbours that there are, as its entries have them. The caller
// holds changes.
func (s *Speaker) withDynamic(c Config) Config {
	for _, n := range s.cfg.Neighbors {
		if !n.Dynamic || slices.ContainsFunc(c.Neighbors, func(o Neighbor) bool { return o.Address == n.Address || o.Name == n.Name }) {
			continue
		}
		d := c.dynamicFor(n.Address)
		if d == nil || d.Neighbor.Disabled || !d.admits(n.AS, c.AS) {
			continue
		}
		if n := d.guest(n.Address, n.AS); n.normalize() == nil {
			c.Neighbors = append(c.Neighbors, n)
		}
	}
	return c
}

// guests are the connections whose OPEN is awaited; guarded by Speaker.mu.
type guests struct {
	waiting map[netip.Addr]net.Conn
	came    chan struct{} // holds one when there is a new neighbour to look after
}

func newGuests() guests {
	return guests{waiting: map[netip.Addr]net.Conn{}, came: make(chan struct{}, 1)}
}

// welcome takes a connection from an address that is no neighbour's, if there is an entry for it and room.
func (s *Speaker) welcome(r *running, conn net.Conn, remote, local netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.cfg.dynamicFor(remote)
	if d == nil || d.Neighbor.Disabled || d.Neighbor.LocalAddress.IsValid() && d.Neighbor.LocalAddress != local {
		return false
	}
	if before := s.guests.waiting[remote]; before != nil { // the peer gave it up, or should have
		_ = before.Close()
	} else if n := s.guestsOfLocked(d); n >= d.Limit {
		if s.strangers.count(remote) {
			s.log.WithFields(logrus.Fields{"remote": remote.String(), "prefix": d.Prefix.String(), "limit": d.Limit}).
				Warn("BGP connection refused: there are as many dynamic neighbors as may be")
		}
		w := newWire(conn, false)
		r.work.Go(func() { w.refuse(&r.work, bgp.BGP_ERROR_CEASE, ceaseResources, nil) }) // RFC 4486 §4
		return true
	}
	s.guests.waiting[remote] = conn
	r.work.Go(func() {
		s.admit(r, conn, remote)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.guests.waiting[remote] == conn {
			delete(s.guests.waiting, remote)
		}
	})
	return true
}

func (s *Speaker) guestsOfLocked(d *Dynamic) (n int) {
	for i := range s.cfg.Neighbors {
		if one := &s.cfg.Neighbors[i]; one.Dynamic && s.cfg.dynamicFor(one.Address) == d {
			n++
		}
	}
	for a := range s.guests.waiting {
		if s.cfg.dynamicFor(a) == d {
			n++
		}
	}
	return n
}

// admit waits for the OPEN, and makes a neighbour of who sent it.
func (s *Speaker) admit(r *running, conn net.Conn, remote netip.Addr) {
	log := s.log.WithField("remote", remote.String())
	w := newWire(conn, false)
	stop := context.AfterFunc(r.ctx, w.close)
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(openWait)) // a connection without deadlines still ends with its peer
	first, err := readFirst(conn)
	if err != nil {
		log.WithField("error", connErrorText(err)).Debug("BGP connection for a dynamic neighbor ended without an OPEN")
		w.close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	open := parseOpen(first)
	if open == nil {
		w.refuse(&r.work, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, 0, nil)
		return
	}
	if !s.changes.lockUntil(r.ctx) {
		w.close()
		return
	}
	defer s.changes.Unlock()
	p := s.peerByAddr(remote)
	if p == nil {
		d := s.cfg.dynamicFor(remote) // only changed under changes
		if d == nil || !d.admits(open.as, s.cfg.AS) {
			if s.strangers.count(remote) {
				log.WithField("as", open.as).Info("BGP connection from an AS that is none of the dynamic neighbors'")
			}
			w.refuse(&r.work, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS, nil)
			return
		}
		if p, err = s.addGuest(d.guest(remote, open.as)); err != nil {
			log.WithError(err).Error("dynamic BGP neighbor not added")
			w.close()
			return
		}
		log.WithField("as", open.as).Info("dynamic BGP neighbor added")
	}
	w.early = first
	if !p.post(func() { p.accepted(w) }) {
		w.close()
	}
}

// addGuest makes a neighbour of a guest. The caller holds changes.
func (s *Speaker) addGuest(n Neighbor) (*peer, error) {
	if err := n.normalize(); err != nil {
		return nil, err
	}
	c := s.asked
	c.Neighbors = append(slices.Clone(c.Neighbors), n)
	if err := s.applyLocked(c); err != nil {
		return nil, err
	}
	select {
	case s.guests.came <- struct{}{}:
	default:
	}
	return s.peerByAddr(n.Address), nil
}

// guestPoll is how often dynamic neighbours are looked at for the end of their sessions.
const guestPoll = 15 * time.Second

// forgetGuests forgets dynamic neighbours whose time without a session is over, until the speaker ends.
func (s *Speaker) forgetGuests(r *running) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-s.guests.came:
		case <-timer.C:
		}
		if next := s.forgetDue(r, time.Now()); next > 0 {
			timer.Reset(next)
		}
	}
}

// forgetDue forgets those that are due, and returns when to look again: 0 is when there are new ones.
func (s *Speaker) forgetDue(r *running, now time.Time) (next time.Duration) {
	if !s.changes.lockUntil(r.ctx) {
		return 0
	}
	defer s.changes.Unlock()
	c := s.asked
	c.Neighbors = nil
	for _, n := range s.asked.Neighbors {
		if n.Dynamic {
			left := s.patience(&n, now)
			if left <= 0 {
				s.log.WithField("neighbor", n.Name).Info("dynamic BGP neighbor forgotten")
				continue
			}
			if next == 0 || left < next {
				next = left
			}
		}
		c.Neighbors = append(c.Neighbors, n)
	}
	if len(c.Neighbors) < len(s.asked.Neighbors) {
		if err := s.applyLocked(c); err != nil {
			s.log.WithError(err).Error("dynamic BGP neighbors not forgotten")
		}
	}
	return next
}

// patience is how long a dynamic neighbour is kept at least.
func (s *Speaker) patience(n *Neighbor, now time.Time) time.Duration {
	d := s.cfg.dynamicFor(n.Address)
	if d == nil {
		return 0
	}
	p := s.peerByAddr(n.Address)
	one := p.status.snapshot(*p.config())
	if one.State == Established || one.Graceful.Helping || one.Disabled { // Disable would not last if it were forgotten
		return min(guestPoll, d.ForgetAfter)
	}
	return min(guestPoll, d.ForgetAfter-now.Sub(one.Since))
}
