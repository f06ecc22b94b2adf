package bgp

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is what graceful restart (RFC 4724) and its long-lived kind (RFC 9494) need besides GoBGP, which marks routes stale
// and counts the restart time. GoBGP keeps routes after every end of a session that looks like a broken connection, and forgets
// them only when the restart time ends or an End-of-RIB comes. Here it is decided what a broken connection is (session.lose),
// and End-of-RIBs are made up for a peer that has not preserved its forwarding state, or that never sends one.

// GracefulMode is how far graceful restart goes with a neighbour. BIRD calls them on, aware and off.
type GracefulMode uint8

// The modes.
const (
	GracefulOn     GracefulMode = iota // help; and announce that we can restart, where the dataplane outlives us
	GracefulHelper                     // keep the neighbour's routes while it restarts
	GracefulOff
)

func (m GracefulMode) String() string {
	names := [...]string{"on", "helper", "off"}
	if int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// GracefulRestart are a neighbour's settings of it. The zero value is on, with the defaults.
type GracefulRestart struct {
	Mode        GracefulMode
	RestartTime time.Duration // for which the neighbour is to keep our routes without a session; 0 means DefaultRestartTime
	StaleTime   time.Duration // for which its stale routes are kept once there is a session again; 0 means DefaultStaleTime
	LongLived   time.Duration // how much longer the neighbour is to keep our routes as a last resort; 0: not long-lived at all
}

// Defaults and limits of graceful restart.
const (
	DefaultRestartTime = 120 * time.Second  // BIRD's and FRR's
	DefaultStaleTime   = 360 * time.Second  // FRR's: a peer that restarted may itself wait for others, BIRD for 240 s
	MaxRestartTime     = 4095 * time.Second // 12 bits (RFC 4724 §3)
	MaxLongLived       = 1<<24*time.Second - time.Second
)

func (g *GracefulRestart) normalize() error {
	if g.RestartTime == 0 {
		g.RestartTime = DefaultRestartTime
	}
	if g.StaleTime == 0 {
		g.StaleTime = DefaultStaleTime
	}
	for _, t := range []struct {
		name      string
		v, lo, hi time.Duration
	}{
		{"restart time", g.RestartTime, time.Second, MaxRestartTime},
		{"stale time", g.StaleTime, time.Second, MaxHoldTime},
		{"long-lived stale time", g.LongLived, 0, MaxLongLived}, // 24 bits (RFC 9494 §3)
	} {
		if t.v < t.lo || t.v > t.hi || t.v%time.Second != 0 {
			return fmt.Errorf("%s %s is not whole seconds between %s and %s", t.name, t.v, t.lo, t.hi)
		}
	}
	if g.Mode > GracefulOff {
		return fmt.Errorf("graceful restart %s does not exist", g.Mode)
	}
	return nil
}

// grOffer is what a peer's OPEN says of graceful restart.
type grOffer struct {
	aware      bool // it has the capability
	restarting bool // it has just restarted (the R bit)
	time       time.Duration
	families   map[Family]bool // that it preserves, and whether it has preserved them over the restart just made (the F bit)
	longLived  map[Family]time.Duration
}

// graceful reads RFC 4724 §3.
func (g *grOffer) graceful(c *bgp.CapGracefulRestart) {
	g.aware, g.restarting = true, c.Flags&0x8 != 0
	g.time, g.families = time.Duration(c.Time)*time.Second, map[Family]bool{}
	for _, t := range c.Tuples {
		if f := familyOf(bgp.NewFamily(t.AFI, t.SAFI)); f != 0 {
			g.families[f] = t.Flags&0x80 != 0
		}
	}
}

// longLivedGraceful reads RFC 9494 §3.
func (g *grOffer) longLivedGraceful(c *bgp.CapLongLivedGracefulRestart) {
	g.longLived = map[Family]time.Duration{}
	for _, t := range c.Tuples {
		if f := familyOf(bgp.NewFamily(t.AFI, t.SAFI)); f != 0 {
			g.longLived[f] = time.Duration(t.RestartTime) * time.Second
		}
	}
}

// terms is what a session's two OPENs come to.
type terms struct {
	kept      []Family      // whose routes GoBGP keeps if the connection breaks
	keptFor   time.Duration // until a new session
	longLived bool          // and longer as a last resort
	leaves    bool          // the peer keeps our routes if the connection breaks
	forced    bool          // GoBGP takes a broken connection for a restart of the peer: it does so for ever once it has seen one that can
	flush     []Family      // whose stale routes are no good any more
}

// agree works out the terms of a session that begins on w.
func (p *peer) agree(w *wire) terms {
	cfg := p.config()
	gr := w.openOrZero().gr
	if cfg.Graceful.Mode == GracefulOff {
		gr = grOffer{}
	}
	t := terms{leaves: gr.aware && p.restarter(), keptFor: gr.time}
	for _, f := range cfg.Families {
		if _, ok := gr.families[f]; ok {
			t.kept = append(t.kept, f)
		}
		if d := gr.longLived[f]; d > 0 && cfg.Graceful.LongLived > 0 && gr.aware {
			t.longLived, t.keptFor = true, max(t.keptFor, gr.time+d)
		}
	}
	// RFC 4724 §4.2: without the F bit, or without the capability, what is kept of that family is removed at once.
	for _, f := range p.status.heldFamilies(time.Now()) {
		if !gr.families[f] {
			t.flush = append(t.flush, f)
		}
	}
	t.forced = p.status.agreed(gr, len(t.kept) > 0)
	return t
}

// intact reports whether our forwarding goes on as the peer knows it from the last session. A connection may break without a
// restart of either side, and then the F bit says that nothing is lost; GoBGP sets it only with the R bit.
func (p *peer) intact() bool {
	life := p.local.life()
	return p.restarter() && life != 0 && life == p.life.Load()
}

// claims is what our OPEN says of us: that we have just restarted, and that we forward by what the peer had announced.
func (p *peer) claims() (restarted, preserved bool) {
	restarted = p.restarter() && p.gobgp.restarting()
	return restarted, restarted || p.intact()
}

// restarter reports whether we announce that our forwarding outlives us.
func (p *peer) restarter() bool { return p.local.outlived && p.config().Graceful.Mode == GracefulOn }

// The flags of the capability (RFC 4724 §3), and of a family in it or in that of RFC 9494 §3.
const (
	flagRestarted = 0x80 // of the two bytes of flags and time
	flagPreserved = 0x80
)

// restartFlags returns our OPEN with these flags. GoBGP believes that we have always just restarted: see outgoing.go.
func restartFlags(open []byte, restarted, preserved bool) []byte {
	set := func(b *byte, flag byte, on bool) {
		if *b &^= flag; on {
			*b |= flag
		}
	}
	return editCapabilities(open, func(code bgp.BGPCapabilityCode, value []byte) {
		switch code {
		case bgp.BGP_CAP_GRACEFUL_RESTART: // flags and time, then AFI, SAFI and flags of each family
			if len(value) > 0 {
				set(&value[0], flagRestarted, restarted)
			}
			for i := 2 + 3; i < len(value); i += 4 {
				set(&value[i], flagPreserved, preserved)
			}
		case bgp.BGP_CAP_LONG_LIVED_GRACEFUL_RESTART: // AFI, SAFI, flags and time of each family
			for i := 3; i < len(value); i += 7 {
				set(&value[i], flagPreserved, preserved)
			}
		}
	})
}

// withoutRestart returns a peer's OPEN that does not say that it has just restarted. GoBGP, which believes that we have, would take
// that for End-of-RIBs of it.
func withoutRestart(open []byte) []byte {
	return editCapabilities(open, func(code bgp.BGPCapabilityCode, value []byte) {
		if code == bgp.BGP_CAP_GRACEFUL_RESTART && len(value) > 0 {
			value[0] &^= flagRestarted
		}
	})
}

// editCapabilities returns a copy of an OPEN, in which edit has changed the values of capabilities. What is no OPEN stays as it is.
func editCapabilities(open []byte, edit func(bgp.BGPCapabilityCode, []byte)) []byte {
	if len(open) < headerLen || open[18] != bgp.BGP_MSG_OPEN {
		return open
	}
	open = slices.Clone(open)
	const fixed = headerLen + 10 // version, AS, hold time, identifier, length of what follows
	for params := open[min(fixed, len(open)):]; len(params) > 2 && len(params) >= 2+int(params[1]); params = params[2+int(params[1]):] {
		caps := params[2 : 2+int(params[1])]
		for params[0] == bgp.BGP_OPT_CAPABILITY && len(caps) > 2 && len(caps) >= 2+int(caps[1]) {
			edit(bgp.BGPCapabilityCode(caps[0]), caps[2:2+int(caps[1])])
			caps = caps[2+int(caps[1]):]
		}
	}
	return open
}

// endOfRIB are the markers of families (RFC 4724 §2).
func endOfRIB(families []Family) []byte {
	var all []byte
	for _, f := range families {
		b, err := bgp.NewEndOfRib(f.wire()).Serialize()
		if err != nil {
			panic("bgp: an End-of-RIB does not serialize: " + err.Error())
		}
		all = append(all, b...)
	}
	return all
}

// pretend gives GoBGP messages that the peer did not send.
func (s *session) pretend(msgs []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert = append(s.insert, msgs...)
	if s.chosen != nil && s.readBy.IsZero() {
		_ = s.chosen.conn.SetReadDeadline(time.Now()) // Read begins anew
	}
}

// holdTimerExpired is for GoBGP's own NOTIFICATION of that. By RFC 4724 a NOTIFICATION ends everything, and a dead link is no
// restart; GoBGP keeps the routes all the same, unless it fails to write. With long-lived graceful restart they are kept, as
// BIRD does: that is made for links that are away for long, and its stale routes lose against any other.
func (s *session) holdTimerExpired() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.confirmed.Load() || !s.terms.forced || s.graceful:
		return nil
	case s.terms.longLived && len(s.terms.kept) > 0 && !s.lost && !s.ceased:
		s.graceful = true
		return nil
	}
	return fmt.Errorf("the session is over: %s", noticeNames[bgp.BGP_ERROR_HOLD_TIMER_EXPIRED].name)
}

// refresh asks the peer for its routes anew (RFC 2918 §3), where it can do that.
func (p *peer) refresh() {
	p.post(func() { p.askAnew(p.status.sessionFamilies()) })
}

// askAnew is refresh for some families. Of the peer's goroutine.
func (p *peer) askAnew(families []Family) {
	w := p.sessWire
	if w == nil || p.status.current() != Established || !w.openOrZero().refresh {
		return
	}
	for _, f := range families {
		b, err := bgp.NewBGPRouteRefreshMessage(f.wire().Afi(), 0, f.wire().Safi()).Serialize()
		if err == nil {
			p.work.Go(func() { w.sendAlong(b) }) // in a goroutine: a full send buffer may hold it up
		}
	}
}

// watchStale ends the wait for the End-of-RIB of a peer that is back. RFC 4724 §4.2 allows such a bound, and GoBGP has none.
func (p *peer) watchStale(now time.Time) {
	if p.staleBy.IsZero() {
		return
	}
	held := p.status.heldFamilies(now)
	if p.sess == nil || len(held) == 0 {
		p.staleBy = time.Time{}
		return
	}
	if now.Before(p.staleBy) {
		return
	}
	p.staleBy = time.Time{}
	p.log.WithField("after", p.config().Graceful.StaleTime.String()).Info("BGP neighbor is back but has not sent all its routes: stale ones are removed")
	carried := p.status.sessionFamilies()
	if slices.ContainsFunc(held, func(f Family) bool { return !slices.Contains(carried, f) }) {
		p.sess.cease(&p.work, ceaseReset, nil, "Cease: Administrative Reset (sent)") // GoBGP would not believe the marker
		return
	}
	p.sess.pretend(endOfRIB(held))
}

// depart ends the session at the end of a run that another follows: without a word where the peer then keeps our routes
// (RFC 4724 §4: a NOTIFICATION would make it drop them), and with a Cease elsewhere.
func (p *peer) depart() <-chan struct{} {
	return p.close(ceaseShutdown, nil, func(s *session) {
		if p.sessWire == nil || !s.confirmed.Load() || !s.agreedTerms().leaves {
			s.cease(&p.work, ceaseShutdown, nil, causeQuiet)
			return
		}
		s.setCause(causeQuiet)
		s.hangUp()
	})
}

// keeps returns the terms of a session that ended so that the peer's routes are kept; else none.
func (s *session) keeps() terms {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.graceful {
		return terms{}
	}
	return s.terms
}

func (s *session) agreedTerms() terms {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terms
}

// --- what is kept

// held is what GoBGP keeps of a peer that it lost.
type held struct {
	families []Family
	since    time.Time
	until    time.Time // without a new session
	last     time.Time // from when on the routes are a last resort: RFC 9494; zero: never
	back     bool      // there is a session again: End-of-RIBs that come later are its, and not late ones of the one before
}

// agreed notes the terms of a new session, and returns whether any session since GoBGP knows the neighbour could be kept.
func (st *peerStatus) agreed(gr grOffer, kept bool) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.gr = gr
	st.everKept = st.everKept || kept
	return st.everKept
}

// hold notes the end of an established session; t is zero where nothing is kept.
func (st *peerStatus) hold(t terms, now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.held = held{}
	if len(t.kept) > 0 {
		st.held = held{families: t.kept, since: now, until: now.Add(t.keptFor)}
		if t.longLived {
			st.held.last = now.Add(st.gr.time)
		}
	}
}

// attemptFailed notes that a session ended before it was established: GoBGP takes that for the end of the restart time.
func (st *peerStatus) attemptFailed(now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.held.last.IsZero() {
		st.held = held{}
	} else if st.held.last.After(now) {
		st.held.last = now
	}
}

// forgotten is called when GoBGP has forgotten the neighbour, and with it all it knew.
func (st *peerStatus) forgotten() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.held, st.everKept, st.gr = held{}, false, grOffer{}
}

func (st *peerStatus) heldFamilies(now time.Time) []Family {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.heldLocked(now)
}

func (st *peerStatus) heldLocked(now time.Time) []Family {
	if st.fsm != bgp.BGP_FSM_ESTABLISHED && now.After(st.held.until) {
		st.held = held{}
	}
	return st.held.families
}

// releaseLocked is called for each End-of-RIB: at the last one GoBGP drops what is still stale.
func (st *peerStatus) releaseLocked() {
	if st.held.back && !slices.ContainsFunc(st.held.families, func(f Family) bool { return !st.endOfRIB[f] }) {
		st.held = held{}
	}
}

// Graceful is the state of graceful restart with a neighbour.
type Graceful struct {
	Mode        GracefulMode
	Restarter   bool          // we have announced that our forwarding outlives us
	Aware       bool          // the peer has the capability
	Families    []Family      // that the peer can preserve
	RestartTime time.Duration // the peer's
	LongLived   time.Duration // the peer's, the longest of its families; 0: not agreed
	Restarting  bool          // our OPEN says that we have restarted, and routes are announced when all neighbours' are here
	Helping     bool          // the peer is restarting: its routes are kept
	HelpingFor  time.Duration
	LastResort  bool   // the restart time is over, and they are kept as long-lived stale ones
	Stale       uint64 // how many are kept, while there is no session
}

func (st *peerStatus) gracefulLocked(cfg Neighbor, now time.Time) Graceful {
	g := Graceful{
		Mode: cfg.Graceful.Mode, Aware: st.gr.aware, RestartTime: st.gr.time,
		Families: slices.Sorted(maps.Keys(st.gr.families)),
	}
	if cfg.Graceful.LongLived > 0 {
		for _, d := range st.gr.longLived {
			g.LongLived = max(g.LongLived, d)
		}
	}
	if len(st.heldLocked(now)) > 0 {
		g.Helping, g.HelpingFor = true, now.Sub(st.held.since)
		g.LastResort = !st.held.last.IsZero() && now.After(st.held.last)
	}
	return g
}

// --- GoBGP's settings

// advertDeferral is how long a neighbour is told of no routes after our restart, while the deferral of all lasts. It is
// the shorter one: a peer may count no more than 120 s from the session's beginning until it drops our old routes (BIRD).
func advertDeferral(deferral time.Duration) time.Duration {
	return max(deferral*3/4, time.Second)
}

// graceful adds graceful restart to what GoBGP is to know of a neighbour: also that we have just restarted, so that it announces
// nothing to it. See outgoing.go.
func (p *peer) graceful(peer *api.Peer) {
	n, restarter := p.config(), p.restarter()
	peer.GracefulRestart = &api.GracefulRestart{LocalRestarting: true, DeferralTime: math.MaxUint16}
	if n.Graceful.Mode == GracefulOff {
		return
	}
	g := peer.GracefulRestart
	g.Enabled, g.HelperOnly, g.RestartTime = true, !restarter, uint32(n.Graceful.RestartTime.Seconds())
	g.LonglivedEnabled = n.Graceful.LongLived > 0
	for _, f := range peer.AfiSafis {
		f.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: restarter}}
		f.LongLivedGracefulRestart = &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
			Enabled: restarter && n.Graceful.LongLived > 0, RestartTime: uint32(n.Graceful.LongLived.Seconds()),
		}}
	}
}
