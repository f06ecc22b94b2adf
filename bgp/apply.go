package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/osrg/gobgp/v4/api"
	"github.com/sirupsen/logrus"
)

// This file changes a speaker while it runs: neighbours come, go and change, and only those sessions end whose settings need
// a new one.

// Apply makes c the configuration. Sessions of neighbours that did not change, or changed only in what needs no new session
// (name, policies, validation, next-hop-self, passive, connect retry, limits of prefixes, BFD), go on. A configuration that is refused
// changes nothing: all errors
// of its check are joined, and a change of AS, router id, cluster id or multipath is ErrNeedsRestart.
func (s *Speaker) Apply(c Config) error {
	c, err := c.check()
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	return s.applyLocked(s.withDynamic(c))
}

// applyLocked is Apply of a checked configuration, which has the dynamic neighbours.
func (s *Speaker) applyLocked(asked Config) error {
	c, missing := asked.resolve(s.found)
	old := s.cfg // only changed under changes
	switch {
	case c.AS != old.AS:
		return fmt.Errorf("bgp: change of AS from %d to %d: %w", old.AS, c.AS, ErrNeedsRestart)
	case c.RouterID != old.RouterID:
		return fmt.Errorf("bgp: change of router id from %s to %s: %w", old.RouterID, c.RouterID, ErrNeedsRestart)
	case c.ClusterID != old.ClusterID:
		return fmt.Errorf("bgp: change of cluster id from %s to %s: %w", old.ClusterID, c.ClusterID, ErrNeedsRestart)
	case max(c.Multipath, 1) != max(old.Multipath, 1):
		return fmt.Errorf("bgp: change of multipath from %d to %d: %w", old.Multipath, c.Multipath, ErrNeedsRestart)
	}
	d := diff(&old, &c)
	byHand := s.disabledByHand(d.replace)
	errs := []error{s.removePeers(d.remove, d.replace)}

	s.mu.Lock()
	s.asked, s.missing, s.cfg = asked, missing, c
	var started []*peer
	for _, n := range d.add {
		p := s.addPeerLocked(n)
		if was, there := byHand[n.Address]; there && was.configured == n.Disabled {
			p.setDisabled(was.is)
		}
		started = append(started, p)
	}
	for _, n := range d.soft {
		s.peers[n.Address].cfg.Store(&n)
	}
	r := s.running
	s.mu.Unlock()
	if r == nil {
		return errors.Join(errs...)
	}
	s.takeROAs(r) // before the policies that ask for them
	errs = append(errs, s.setPolicies(r, d))
	for _, p := range started {
		errs = append(errs, s.startPeer(r, p))
	}
	for _, n := range d.soft {
		errs = append(errs, s.applySoft(r, s.peerByAddr(n.Address), d))
	}
	s.updateListeners(r)
	s.heedBFD(r, c.watches())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bgp: apply: %w", err)
	}
	return nil
}

// changeSet is the difference of two configurations.
type changeSet struct {
	remove, replace []netip.Addr        // sessions that end: for good, or to begin again
	add             []Neighbor          // with those that replace
	soft            []Neighbor          // new settings for sessions that go on
	in              map[netip.Addr]bool // the import policy has changed: setPolicies finds out
	admin           map[netip.Addr]bool // Disabled has changed
}

func diff(old, next *Config) changeSet {
	d := changeSet{in: map[netip.Addr]bool{}, admin: map[netip.Addr]bool{}}
	before := map[netip.Addr]*Neighbor{}
	for i := range old.Neighbors {
		before[old.Neighbors[i].Address] = &old.Neighbors[i]
	}
	for _, n := range next.Neighbors {
		b := before[n.Address]
		delete(before, n.Address)
		switch {
		case b == nil:
			d.add = append(d.add, n)
		case !sameSession(b, &n):
			d.replace = append(d.replace, n.Address)
			d.add = append(d.add, n)
		default:
			d.soft = append(d.soft, n)
			d.admin[n.Address] = b.Disabled != n.Disabled
		}
	}
	d.remove = slices.Collect(maps.Keys(before))
	return d
}

// setPolicies gives GoBGP the policies of the configuration, notes which neighbours that stay have another import policy than before,
// and has those told anew that have another export policy.
func (s *Speaker) setPolicies(r *running, d changeSet) error {
	old, next := r.program.Load(), policies(&s.cfg, s.ids(), s.ownOrigins())
	for _, n := range d.soft {
		id := s.peerByAddr(n.Address).id
		d.in[n.Address] = old.signature(importing, id) != next.signature(importing, id)
	}
	_, err := r.install(next, true, nil)
	return err
}

// sameSession reports whether a session made for a serves b.
func sameSession(a, b *Neighbor) bool {
	return a.Address == b.Address && a.Interface == b.Interface && a.Table == b.Table && a.AS == b.AS && a.External == b.External &&
		a.LocalAddress == b.LocalAddress && a.HoldTime == b.HoldTime && slices.Equal(a.Families, b.Families) &&
		a.RouteReflectorClient == b.RouteReflectorClient && a.Multihop == b.Multihop && a.Graceful == b.Graceful &&
		a.AllowOwnAS == b.AllowOwnAS && a.AddPath == b.AddPath && a.Role == b.Role && a.StrictRole == b.StrictRole
}

// applySoft gives a session that goes on its new settings.
func (s *Speaker) applySoft(r *running, p *peer, d changeSet) error {
	addr := p.config().Address
	p.limitsChanged() // and passive or connect retry may have changed
	if d.admin[addr] {
		if p.config().Disabled {
			return s.disable(r, p)
		}
		return s.enable(r, p)
	}
	if d.in[addr] {
		return r.judgeIn(p)
	}
	return nil
}

// disabledState is whether a neighbour is disabled, and whether its configuration says so.
type disabledState struct{ is, configured bool }

// disabledByHand notes what Disable and Enable have made of neighbours that come back with other settings.
func (s *Speaker) disabledByHand(addrs []netip.Addr) map[netip.Addr]disabledState {
	was := map[netip.Addr]disabledState{}
	for _, a := range addrs {
		p := s.peerByAddr(a)
		was[a] = disabledState{p.status.isDisabled(), p.config().Disabled}
	}
	return was
}

// setDisabled is for a peer that has not been started.
func (p *peer) setDisabled(v bool) {
	p.status.setDisabled(v)
	p.closing = v
}

// addPeerLocked makes a peer of a neighbour.
func (s *Speaker) addPeerLocked(n Neighbor) *peer {
	p := newPeer(n, s.newIDLocked(n.Address), s.local, s.stack, s.log)
	p.arrived, p.bfd, p.backups, p.pulse = s.arrived, s.bfd, s.feeder.backups, s.pulse
	s.peers[n.Address], s.byID[p.id] = p, p
	return p
}

// newIDLocked returns what GoBGP shall call a neighbour: its address, which for most is all there is to it. But GoBGP's
// policies tell neighbours apart by addresses without zones, and the same fe80:: address may be a neighbour's on several
// interfaces. The second and further of them get a number in the bits that are zero in a link-local address (RFC 4291
// §2.5.6), where other stacks have put their interface's number as well.
func (s *Speaker) newIDLocked(a netip.Addr) netip.Addr {
	if !isLinkLocal(a) {
		return a
	}
	taken := map[netip.Addr]bool{}
	for id := range s.byID {
		taken[id.WithZone("")] = true
	}
	b := a.As16()
	for i := 0; ; i++ {
		b[2], b[3] = byte(i>>8), byte(i)
		if id := netip.AddrFrom16(b); !taken[id] {
			return id.WithZone(a.Zone())
		}
	}
}

// ids maps neighbours' addresses to what GoBGP calls them.
func (s *Speaker) ids() map[netip.Addr]netip.Addr {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := map[netip.Addr]netip.Addr{}
	for a, p := range s.peers {
		ids[a] = p.id
	}
	return ids
}

// startPeer starts a peer's goroutine and makes it known to GoBGP.
func (s *Speaker) startPeer(r *running, p *peer) error {
	ctx, cancel := context.WithCancel(r.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { p.run(ctx, r) })
	r.peers[p] = func() {
		cancel()
		wg.Wait()
	}
	if p.status.isDisabled() {
		return nil
	}
	return r.add(p)
}

// add makes a neighbour known to GoBGP.
func (r *running) add(p *peer) error {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	return r.addLocked(p)
}

func (r *running) addLocked(p *peer) error {
	n := p.config()
	anyAddr := netip.IPv6Unspecified()
	if n.Address.Is4() {
		anyAddr = netip.IPv4Unspecified()
	}
	peer := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.id.String(), PeerAsn: n.AS, LocalAsn: p.local.as, Description: n.Name, AllowOwnAsn: uint32(n.AllowOwnAS)},
		// The unspecified local address keeps GoBGP from asking the kernel for one; listen.go checks the real one.
		Transport: &api.Transport{PassiveMode: true, LocalAddress: anyAddr.String()},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(n.HoldTime.Seconds()), KeepaliveInterval: max(uint64(n.HoldTime.Seconds())/3, 1), // RFC 4271 §4.4
			IdleHoldTimeAfterReset: idleAfterReset,
		}},
		RouteReflector: &api.RouteReflector{
			RouteReflectorClient: n.RouteReflectorClient, RouteReflectorClusterId: p.local.cluster.String(),
		},
		EbgpMultihop: &api.EbgpMultihop{Enabled: n.Multihop && n.AS != p.local.as},
	}
	for _, f := range n.Families {
		family := &api.Family{Afi: api.Family_Afi(f.wire().Afi()), Safi: api.Family_Safi(f.wire().Safi())}
		one := &api.AfiSafi{Config: &api.AfiSafiConfig{Family: family, Enabled: true}}
		n.offerPaths(one)
		peer.AfiSafis = append(peer.AfiSafis, one)
	}
	p.graceful(peer)
	if err := r.gobgp.AddPeer(r.ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("add neighbor %s: %w", n.Name, err)
	}
	p.known = true
	return nil
}

// removePeers ends the sessions of neighbours that go, and of those that come back changed, all at once.
func (s *Speaker) removePeers(gone, changed []netip.Addr) error {
	s.mu.RLock()
	r := s.running
	s.mu.RUnlock()
	var peers []*peer
	var down []<-chan struct{}
	for i, a := range slices.Concat(gone, changed) {
		p := s.peerByAddr(a)
		peers = append(peers, p)
		if r == nil {
			continue
		}
		subcode := uint8(ceaseDeconfigured)
		if i >= len(gone) {
			subcode = ceaseConfigChange
		}
		down = append(down, p.shutdown(subcode, nil, causeQuiet))
	}
	waitAll(down)
	var errs []error
	for _, p := range peers {
		if r != nil {
			errs = append(errs, r.delete(p))
			r.peers[p]()
			delete(r.peers, p)
		}
		s.mu.Lock()
		delete(s.peers, p.config().Address)
		delete(s.byID, p.id)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// delete makes GoBGP forget a neighbour. It must come after the session's end: GoBGP may otherwise still be working on an
// UPDATE of a neighbour that it has just forgotten, and keep the route for ever.
func (r *running) delete(p *peer) error {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	return r.deleteLocked(p)
}

func (r *running) deleteLocked(p *peer) error {
	if !p.known {
		return nil
	}
	p.known = false
	p.status.forgotten()
	if err := r.gobgp.DeletePeer(r.ctx, &api.DeletePeerRequest{Address: p.id.String()}); err != nil {
		return fmt.Errorf("delete neighbor %s: %w", p.config().Name, err)
	}
	return nil
}

// updateListeners listens for the families of the neighbours that there are.
func (s *Speaker) updateListeners(r *running) {
	want := map[netip.Addr]bool{}
	from := func(a netip.Addr) {
		if a.Is4() {
			want[netip.IPv4Unspecified()] = true
		} else {
			want[netip.IPv6Unspecified()] = true
		}
	}
	s.mu.RLock()
	for a := range s.peers {
		from(a)
	}
	for i := range s.cfg.Dynamic {
		from(s.cfg.Dynamic[i].Prefix.Addr())
	}
	s.mu.RUnlock()
	for a, stop := range r.listeners {
		if !want[a] {
			stop()
			delete(r.listeners, a)
		}
	}
	for a := range want {
		if r.listeners[a] != nil {
			continue
		}
		l := &listener{stack: s.stack, any: a, find: s.peerByAddr, log: s.log, strangers: &s.strangers}
		l.welcome = func(conn net.Conn, remote, local netip.Addr) bool { return s.welcome(r, conn, remote, local) }
		ctx, cancel := context.WithCancel(r.ctx)
		var wg sync.WaitGroup
		wg.Go(func() { l.run(ctx) })
		r.listeners[a] = func() {
			cancel()
			wg.Wait()
		}
	}
}

// --- by hand

// ResetKind says what a reset does.
type ResetKind uint8

// The resets.
const (
	ResetHard    ResetKind = iota // ends the session; or makes a neighbour without one try again at once
	ResetSoft                     // both of the following
	ResetSoftIn                   // applies the import policy anew to what the neighbour has announced, and asks it for that anew
	ResetSoftOut                  // announces everything anew
)

// Reset resets the session of the neighbour with this name or address. Error: ErrNoNeighbor.
func (s *Speaker) Reset(name string, kind ResetKind) error {
	return s.withPeer(name, func(r *running, p *peer) error {
		if r == nil {
			return nil
		}
		switch kind {
		case ResetSoft:
			p.tellAgain()
			p.refresh()
			return r.judgeIn(p)
		case ResetSoftIn:
			p.refresh()
			return r.judgeIn(p)
		case ResetSoftOut:
			p.tellAgain()
			return nil
		}
		p.reset(nil) // not GoBGP's: it would keep its NOTIFICATION for the next session where there is none
		return nil
	})
}

// ResetSaying is a hard reset with words for the other side's operator (RFC 9003). Error: ErrNoNeighbor.
func (s *Speaker) ResetSaying(name, communication string) error {
	return s.withPeer(name, func(r *running, p *peer) error {
		if r != nil {
			p.reset(shutdownCommunication(communication))
		}
		return nil
	})
}

// judgeIn applies the import policy anew to what a neighbour has announced.
func (r *running) judgeIn(p *peer) error {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if !p.known {
		return nil
	}
	err := r.gobgp.ResetPeer(r.ctx, &api.ResetPeerRequest{Address: p.id.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_IN})
	if err != nil {
		return fmt.Errorf("reset neighbor %s: %w", p.config().Name, err)
	}
	r.backups.lost(p.id)
	return r.noteAll()
}

// Disable ends the session of the neighbour with this name or address and makes no new one, until Enable. communication is
// for the other side's operator and may be empty (RFC 9003). Error: ErrNoNeighbor.
func (s *Speaker) Disable(name, communication string) error {
	return s.withPeer(name, func(r *running, p *peer) error {
		if p.status.isDisabled() {
			return nil
		}
		p.goodbye = shutdownCommunication(communication)
		return s.disable(r, p)
	})
}

func (s *Speaker) disable(r *running, p *peer) error {
	s.log.WithFields(logrus.Fields{"neighbor": p.config().Name}).Info("BGP neighbor disabled")
	p.status.setDisabled(true)
	done := p.shutdown(ceaseShutdown, p.goodbye, "Cease: Administrative Shutdown (sent)")
	if r == nil {
		return nil
	}
	waitAll([]<-chan struct{}{done})
	return r.delete(p)
}

// Enable undoes Disable. Error: ErrNoNeighbor.
func (s *Speaker) Enable(name string) error {
	return s.withPeer(name, func(r *running, p *peer) error {
		if !p.status.isDisabled() {
			return nil
		}
		return s.enable(r, p)
	})
}

func (s *Speaker) enable(r *running, p *peer) error {
	s.log.WithFields(logrus.Fields{"neighbor": p.config().Name}).Info("BGP neighbor enabled")
	p.status.setDisabled(false)
	p.goodbye = nil
	p.resume()
	if r == nil {
		return nil
	}
	return r.add(p)
}

func (s *Speaker) withPeer(name string, f func(*running, *peer) error) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	p, err := s.peerByName(name)
	if err == nil {
		s.mu.RLock()
		r := s.running
		s.mu.RUnlock()
		err = f(r, p)
	}
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	return nil
}
