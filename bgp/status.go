package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// State is a state of RFC 4271 §8.2.2.
type State uint8

// The states.
const (
	Idle State = iota
	Connect
	Active
	OpenSent
	OpenConfirm
	Established
)

func (s State) String() string {
	names := [...]string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Session is the state of one neighbour.
type Session struct {
	Neighbor     Neighbor
	State        State
	Since        time.Time     // of the state
	Uptime       time.Duration // of an established session
	LocalAddress netip.Addr    // of the session, or the configured one
	RouterID     netip.Addr    // the peer's; invalid until known
	HoldTime     time.Duration // negotiated; 0 while there is no session, or it is not counted
	Keepalive    time.Duration
	Families     []Family // negotiated; the configured ones while there is no session
	Received     uint64   // prefixes that the peer has announced
	Accepted     uint64   // of those, what passed import
	Advertised   uint64   // prefixes that we have announced to it
	PerFamily    []FamilyCount
	Flaps        uint64 // ends of established sessions
	Disabled     bool   // administratively
	Graceful     Graceful
	Leaks        uint64 // UPDATEs whose routes came the wrong way (RFC 9234 §5)
	AddPath      string // what was agreed on: receive, send or both; "": nothing
	Malformed    uint64 // UPDATEs whose routes were taken as withdrawn for something malformed in them (RFC 7606)
	Limits       []LimitState
	BFD          string // up, down, or "no answer" where it is not watched for that; "": not wanted

	// Counted is when the figures were so that only GoBGP knows: Received, Accepted, Advertised, Graceful.Stale, HoldTime and
	// Keepalive. It is zero, and they are, while GoBGP has not been able to say of this session.
	Counted time.Time

	// LastError is why the last session ended or was not established; it stays when there is a session again, until the next
	// error. ConnectError is why there is no connection now. Both may be empty.
	LastError    string
	LastErrorAt  time.Time
	ConnectError string
}

// FamilyCount are Received, Accepted and Advertised of one family.
type FamilyCount struct {
	Family                         Family
	Received, Accepted, Advertised uint64
}

// ErrorText is LastError and, while there is no session, ConnectError: what an operator wants in one column.
func (s Session) ErrorText() string {
	switch {
	case s.ConnectError == "" || s.State == Established:
		return s.LastError
	case s.LastError == "":
		return s.ConnectError
	}
	return s.LastError + "; since then: " + s.ConnectError
}

// peerStatus is what others may know of a peer. It is written by the peer's goroutine and by the watch of GoBGP's events.
type peerStatus struct {
	mu           sync.Mutex
	state        State
	since        time.Time
	fsm          bgp.FSMState // GoBGP's
	flaps        uint64
	lastError    string
	lastErrorAt  time.Time
	connectError string
	local        netip.Addr
	remoteAS     uint32 // in the peer's last OPEN
	families     []Family
	endOfRIB     map[Family]bool
	lastUpdate   func() time.Time
	disabled     bool
	hurried      time.Time
	gr           grOffer // of the peer's last OPEN, as far as we take part
	held         held
	everKept     bool
	tally        tally
	limits       []*limiter         // of the last session
	paths        bgp.BGPAddPathMode // that it carries, of any family
	bfd          string
}

func (st *peerStatus) init(cfg Neighbor) {
	st.since, st.local, st.families = time.Now(), cfg.LocalAddress, cfg.Families
	st.endOfRIB = map[Family]bool{}
	st.disabled = cfg.Disabled
}

// setState returns the state before.
func (st *peerStatus) setState(s State) State {
	st.mu.Lock()
	defer st.mu.Unlock()
	old := st.state
	if old == s {
		return old
	}
	if s == Established {
		st.connectError = ""
	}
	st.state, st.since = s, time.Now()
	return old
}

func (st *peerStatus) fsmState() bgp.FSMState {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.fsm
}

// setFSM notes GoBGP's state; caps are the peer's when it is established.
func (st *peerStatus) setFSM(state bgp.FSMState, configured []Family, caps []bgp.ParameterCapabilityInterface) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if state == bgp.BGP_FSM_ESTABLISHED && st.fsm != state {
		st.families = negotiated(configured, caps)
		st.endOfRIB = map[Family]bool{}
		st.held.back = true
	}
	st.fsm = state
}

// negotiated are the families that both sides carry (RFC 4760 §8; without the capability a peer carries IPv4).
func negotiated(configured []Family, caps []bgp.ParameterCapabilityInterface) []Family {
	peer := map[bgp.Family]bool{}
	for _, c := range caps {
		if mp, ok := c.(*bgp.CapMultiProtocol); ok {
			peer[mp.CapValue] = true
		}
	}
	if len(peer) == 0 {
		peer[bgp.RF_IPv4_UC] = true
	}
	return slices.DeleteFunc(slices.Clone(configured), func(f Family) bool { return !peer[f.wire()] })
}

// opened notes what a chosen connection tells of the peer.
func (st *peerStatus) opened(w *wire, s *session, paths map[Family]bgp.BGPAddPathMode) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.local = w.local
	st.remoteAS = w.openOrZero().as
	st.lastUpdate = s.lastUpdateAt
	st.paths = 0
	for _, m := range paths {
		st.paths |= m
	}
}

func (st *peerStatus) peerAS() uint32 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.remoteAS
}

func (st *peerStatus) localAddr() netip.Addr {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.local
}

func (st *peerStatus) connectFailed(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.state != Established { // a loser of a collision may be heard of late
		st.connectError = text
	}
}

func (st *peerStatus) sessionFailed(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.lastError, st.lastErrorAt, st.connectError = text, time.Now(), ""
}

// mayHurry reports whether a lost session is one of few. There is a bucket of hurryBurst of them, into which one returns after
// each hurryEvery; hurried is when the bucket will be full again.
func (st *peerStatus) mayHurry(now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	full := st.hurried
	if full.Before(now) {
		full = now
	}
	if full.Sub(now) > (hurryBurst-1)*hurryEvery {
		return false
	}
	st.hurried = full.Add(hurryEvery)
	return true
}

func (st *peerStatus) flapped() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.flaps++
}

func (st *peerStatus) setDisabled(v bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.disabled = v
}

func (st *peerStatus) isDisabled() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.disabled
}

func (st *peerStatus) setBFD(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.bfd = text
}

func (st *peerStatus) gotEndOfRIB(f Family) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.endOfRIB[f] = true
	st.releaseLocked()
}

// fed reports whether the peer's first routes are all here: it has said so for each family (RFC 4724 §2), or it is
// established and has been quiet for a while, because many peers do not say so; those are the ones that are not told. RFC 4724
// §4.1 waits for all who can say so, except for those who restart too.
func (st *peerStatus) fed(now time.Time, quiet time.Duration) (fed, told bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.disabled:
		return true, true
	case st.state != Established:
		return false, false
	case st.gr.restarting, !slices.ContainsFunc(st.families, func(f Family) bool { return !st.endOfRIB[f] }):
		return true, true
	case st.gr.aware:
		return false, false
	}
	return now.Sub(st.since) >= quiet && now.Sub(st.lastUpdate()) >= quiet, false
}

func (st *peerStatus) current() State {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.state
}

// sessionFamilies are those that the session carries.
func (st *peerStatus) sessionFamilies() []Family {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.families
}

// snapshot fills in what a peer knows itself.
func (st *peerStatus) snapshot(cfg Neighbor) Session {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := Session{
		Neighbor: cfg, State: st.state, Since: st.since, LocalAddress: st.local, Families: cfg.Families, Flaps: st.flaps,
		Disabled: st.disabled, LastError: st.lastError, LastErrorAt: st.lastErrorAt, ConnectError: st.connectError,
		BFD: st.bfd, Graceful: st.gracefulLocked(cfg, time.Now()), Malformed: st.tally.withdrawn.Load(), Leaks: st.tally.leaks.Load(),
	}
	s.Limits = st.limitsLocked(cfg)
	if cfg.External {
		s.Neighbor.AS = st.remoteAS
	}
	if st.state == Established {
		if st.paths != 0 {
			s.AddPath = pathsText(st.paths)
		}
		s.Uptime, s.Families = time.Since(st.since), st.families
	}
	return s
}
