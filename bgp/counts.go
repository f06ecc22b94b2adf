package bgp

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is what an operator asks of sessions. What a peer has announced, and what it was told, only GoBGP knows, and it
// counts that anew for each question, in time proportional to the table, while all else in it stands still. It does not
// answer at all while it marks a lost peer's routes as stale. So it is asked in the background, for a part of the time, and
// an answer that does not come soon is not waited for.

const (
	// answerWithin is how long Sessions waits for figures of the moment.
	answerWithin = 500 * time.Millisecond
	// countShare bounds what counting takes away from GoBGP: one part in so many of the time, if somebody asks all the time.
	countShare = 10
	// countEvery is the longest that it keeps anybody waiting for that.
	countEvery = 30 * time.Second
)

// counter keeps what GoBGP has last told of the neighbours.
type counter struct {
	mu     sync.Mutex
	latest *counts       // nil: nothing yet
	next   time.Time     // when it may be asked again
	busy   chan struct{} // closed when the question under way is over; nil: there is none
	closed bool          // it is not asked any more
}

// counts is one answer.
type counts struct {
	at    time.Time
	peers map[string]*counted
}

// counted is what it says of a neighbour, and of which session.
type counted struct {
	epoch
	peer     *api.Peer // nil: GoBGP does not know the neighbour
	stale    uint64
	accepted map[Family]uint64 // of a neighbour whose import policy is selective
}

// epoch tells sessions, and the times between them, apart.
type epoch struct {
	established bool
	flaps       uint64
}

func (s *Session) epoch() epoch { return epoch{s.State == Established, s.Flaps} }

// Sessions returns the state of every configured neighbour, in the configuration's order. It answers at once: where GoBGP is
// busy, or the table is so large that counting takes long, the figures are those of Session.Counted.
func (s *Speaker) Sessions() []Session {
	s.mu.RLock()
	r := s.running
	s.mu.RUnlock()
	var known *counts
	if r != nil {
		known = s.counts(r)
	}
	sessions, ids, tellers, cfg := s.snapshots()
	for i := range sessions {
		one := &sessions[i]
		var c *counted
		if known != nil {
			c = known.peers[ids[i]]
		}
		if c != nil && c.peer != nil {
			one.Graceful.Restarter = c.peer.GetGracefulRestart().GetEnabled() && !c.peer.GetGracefulRestart().GetHelperOnly()
			one.Graceful.Restarting = one.Graceful.Restarter && r.recovering.Load()
		}
		if one.State != Established && !one.Graceful.Helping {
			one.Counted = time.Now() // that there is nothing
			continue
		}
		if c == nil || c.peer == nil || c.epoch != one.epoch() {
			continue
		}
		one.Counted = known.at
		if one.State != Established {
			one.Graceful.Stale = c.stale
			continue
		}
		addCounts(one, c.peer, tellers[i])
		if one.Neighbor.selective(&cfg) { // GoBGP counts what it accepts before policy
			one.Accepted = 0
			for k := range one.PerFamily {
				f := &one.PerFamily[k]
				f.Accepted = c.accepted[f.Family]
				one.Accepted += f.Accepted
			}
		}
	}
	return sessions
}

// snapshots returns what we know of the sessions ourselves, and what GoBGP calls them.
func (s *Speaker) snapshots() (sessions []Session, ids []string, tellers []*teller, cfg Config) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.cfg.Neighbors {
		p := s.peers[n.Address]
		if p == nil {
			continue // Apply is removing it
		}
		sessions = append(sessions, p.status.snapshot(*p.config()))
		ids, tellers = append(ids, p.id.String()), append(tellers, p.telling.Load())
	}
	for _, n := range s.missing {
		sessions = append(sessions, undiscovered(n))
		ids, tellers = append(ids, ""), append(tellers, nil)
	}
	return sessions, ids, tellers, s.cfg
}

// counts returns figures of the moment, or the latest there are, or nil.
func (s *Speaker) counts(r *running) *counts {
	c, asked := &r.counter, time.Now()
	late := time.NewTimer(answerWithin)
	defer late.Stop()
	for {
		c.mu.Lock()
		if c.busy == nil && !c.closed && (c.latest == nil || c.latest.at.Before(asked)) {
			c.busy = make(chan struct{})
			r.work.Go(func() { s.count(r) })
		}
		latest, busy := c.latest, c.busy
		c.mu.Unlock()
		if busy == nil || latest != nil && !latest.at.Before(asked) {
			return latest
		}
		select {
		case <-busy:
		case <-late.C:
			return latest
		}
	}
}

// count asks GoBGP, when its turn has come.
func (s *Speaker) count(r *running) {
	c := &r.counter
	c.mu.Lock()
	turn := time.NewTimer(time.Until(c.next))
	c.mu.Unlock()
	defer turn.Stop()
	var now *counts
	var began time.Time
	select {
	case <-turn.C:
		_, err := r.gobgp.GetBgp(r.ctx, &api.GetBgpRequest{}) // it may be long until it listens, which costs nobody anything
		if began = time.Now(); err == nil {
			now = s.ask(r)
		}
	case <-r.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.busy)
	c.busy = nil
	if now == nil {
		c.closed = true // the speaker ends
		return
	}
	c.latest, c.next = now, time.Now().Add(min((countShare-1)*time.Since(began), countEvery))
}

func (s *Speaker) ask(r *running) *counts {
	now := &counts{at: time.Now(), peers: map[string]*counted{}}
	sessions, ids, _, cfg := s.snapshots()
	selective := map[netip.Addr]*counted{}
	for i := range sessions {
		one := &counted{epoch: sessions[i].epoch(), accepted: map[Family]uint64{}}
		now.peers[ids[i]] = one
		if id, err := netip.ParseAddr(ids[i]); err == nil && sessions[i].Neighbor.selects(&cfg) {
			selective[id] = one
		}
	}
	err := r.gobgp.ListPeer(r.ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if one := now.peers[p.GetConf().GetNeighborAddress()]; one != nil {
			one.peer = p
		}
	})
	if err != nil {
		return nil
	}
	if err := r.countAccepted(selective); err != nil {
		return nil
	}
	for i := range sessions {
		if one := now.peers[ids[i]]; one.peer != nil && sessions[i].Graceful.Helping && !one.established {
			one.stale = r.stale(ids[i], sessions[i].Neighbor.Families)
		}
	}
	return now
}

// countAccepted counts what import policies have let through, in the table: only there GoBGP has it.
func (r *running) countAccepted(of map[netip.Addr]*counted) error {
	if len(of) == 0 {
		return nil
	}
	for _, f := range both {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f.wire()}
		err := r.gobgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				if one := of[p.PeerAddress]; one != nil {
					one.accepted[f]++
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// selective reports whether the neighbour's import does not pass everything.
func (n *Neighbor) selective(c *Config) bool {
	return slices.ContainsFunc(n.Families, func(f Family) bool { return n.policy(c, importing, f) != PolicyAll })
}

// selects reports whether the neighbour's import passes some and not others: of nothing there is nothing to count.
func (n *Neighbor) selects(c *Config) bool {
	return n.selective(c) && slices.ContainsFunc(n.Families, func(f Family) bool { return n.policy(c, importing, f) != PolicyNone })
}

// close ends the counting; nothing is begun after it.
func (c *counter) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// stale counts what GoBGP keeps of a neighbour without a session: its own counts are 0 then.
func (r *running) stale(id string, families []Family) (n uint64) {
	for _, f := range families {
		t, err := r.gobgp.GetTable(r.ctx, &api.GetTableRequest{
			TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: id,
			Family: &api.Family{Afi: api.Family_Afi(f.wire().Afi()), Safi: api.Family_Safi(f.wire().Safi())},
		})
		if err == nil {
			n += t.GetNumPath()
		}
	}
	return n
}

// addCounts adds what GoBGP knows of a session, and what the peer has been told.
func addCounts(s *Session, p *api.Peer, t *teller) {
	for _, f := range p.GetAfiSafis() {
		st := f.GetState()
		one := FamilyCount{
			Family:   familyOf(bgp.NewFamily(uint16(st.GetFamily().GetAfi()), uint8(st.GetFamily().GetSafi()))),
			Received: st.GetReceived(), Accepted: st.GetAccepted(),
		}
		if t != nil && one.Family != 0 {
			one.Advertised = t.count[one.Family-1].Load()
		}
		s.Received, s.Accepted, s.Advertised = s.Received+one.Received, s.Accepted+one.Accepted, s.Advertised+one.Advertised
		s.PerFamily = append(s.PerFamily, one)
	}
	if id, err := netip.ParseAddr(p.GetState().GetRouterId()); err == nil {
		s.RouterID = id
	}
	s.HoldTime = time.Duration(p.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
	s.Keepalive = time.Duration(p.GetTimers().GetState().GetKeepaliveInterval()) * time.Second
}
