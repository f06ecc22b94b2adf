package vppagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"go.fd.io/govpp/binapi/bfd"
	"go.fd.io/govpp/binapi/interface_types"

	"rlr/binapi"
)

// BFD over one hop (RFC 5880, RFC 5881). A session exists for who watches it; it is known as ours by its interface. One that
// nobody watches is a dead router's: it stays for a while, because it tells the peer that we forward, and the next router is
// about to want it.

// BFD is what somebody wants of a session.
type BFD struct {
	Interface  string        // "": the one in whose subnet Peer is
	Peer       netip.Addr    // link-local with an interface only
	Local      netip.Addr    // invalid: the interface's in Peer's subnet, or its link-local one
	Interval   time.Duration // least time between packets, both ways
	Multiplier uint8         // so many of our packets that are missing are a failure for the peer
}

// BFDState is a session's, with RFC 5880's values.
type BFDState uint8

// States.
const (
	BFDAdminDown BFDState = iota
	BFDDown
	BFDInit
	BFDUp
)

func (s BFDState) String() string {
	if int(s) < len(bfdStates) {
		return bfdStates[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var bfdStates = [...]string{"admin-down", "down", "init", "up"}

// BFDSession is a session as it is, with interface and local address where they are known.
type BFDSession struct {
	BFD
	State BFDState
	Since time.Time // of the state
	Err   error     // why there is none
}

const (
	// bfdStray is how long a session that nobody wants stays: as long as a router's BGP sessions may take to come back.
	bfdStray = 2 * time.Minute
	// bfdGoodbye is how long one that was wanted goes on saying that it is taken down by order: longer than its interval then.
	bfdGoodbye = 1200 * time.Millisecond
)

// bfdKey is what the dataplane knows a session by.
type bfdKey struct {
	index       uint32
	local, peer netip.Addr
}

func (k bfdKey) String() string { return fmt.Sprintf("BFD of %s with %s", k.local, k.peer) }

// bfdWatch is somebody's interest in a session.
type bfdWatch struct {
	BFDSession
	key     bfdKey
	there   bool // the dataplane has it, in this life
	changed func(BFDState)
}

// WatchBFD has a session in the dataplane until stop is called, and calls changed with its states as they change; changed must
// not block, nor use the agent.
func (a *Agent) WatchBFD(want BFD, changed func(BFDState)) (stop func()) {
	want.Local, want.Peer = want.Local.WithZone(""), want.Peer.WithZone("")
	w := &bfdWatch{BFDSession: BFDSession{BFD: want, State: BFDDown, Since: time.Now()}, changed: changed}
	a.mu.Lock()
	a.bfds[w] = true
	a.mu.Unlock()
	a.kickBFD()
	return func() {
		a.mu.Lock()
		delete(a.bfds, w)
		if w.there {
			a.bfdLeft[w.key] = true
		}
		a.mu.Unlock()
		a.kickBFD()
	}
}

func (a *Agent) kickBFD() {
	select {
	case a.pokeBFD <- struct{}{}:
	default:
	}
}

// BFDSessions returns those that are watched, ordered by interface and peer.
func (a *Agent) BFDSessions() []BFDSession {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []BFDSession
	for w := range a.bfds {
		s := w.BFDSession
		if name, ok := a.byIndex[w.key.index]; ok && w.there {
			s.Interface, s.Local = name, w.key.local
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y BFDSession) int {
		return cmp.Or(cmp.Compare(x.Interface, y.Interface), x.Peer.Compare(y.Peer), x.Local.Compare(y.Local))
	})
	return list
}

// watchBFD asks for the changes of sessions.
func (l *life) watchBFD(ctx context.Context) error {
	l.a.mu.Lock()
	for w := range l.a.bfds {
		w.there = false
	}
	clear(l.a.bfdLeft)
	l.a.mu.Unlock()
	if !l.report.Supports(binapi.BFD) {
		return nil
	}
	var e bfd.BfdUDPSessionEvent
	err := l.s.event(&e, func() {
		key := bfdKey{uint32(e.SwIfIndex), binapi.FromAddress(e.LocalAddr), binapi.FromAddress(e.PeerAddr)}
		l.a.bfdEvent(key, BFDState(e.State))
	})
	if err != nil {
		return err
	}
	return l.s.call(ctx, &bfd.WantBfdEvents{EnableDisable: true, PID: uint32(os.Getpid())}, new(bfd.WantBfdEventsReply))
}

// bfdEvent notes a state of which the dataplane tells.
func (a *Agent) bfdEvent(key bfdKey, state BFDState) {
	a.mu.Lock()
	a.bfdHeard++
	tell := a.bfdIsLocked(key, state)
	a.mu.Unlock()
	tell()
}

// bfdRead notes a state that was read when so many events had come. It reports false where more have: one may be newer.
func (a *Agent) bfdRead(key bfdKey, state BFDState, heard uint64) bool {
	a.mu.Lock()
	if a.bfdHeard != heard {
		a.mu.Unlock()
		return false
	}
	tell := a.bfdIsLocked(key, state)
	a.mu.Unlock()
	tell()
	return true
}

// bfdIsLocked notes a state; what it returns tells who watches.
func (a *Agent) bfdIsLocked(key bfdKey, state BFDState) (tell func()) {
	var all []func(BFDState)
	for w := range a.bfds {
		if w.there && w.key == key && w.State != state {
			w.State, w.Since = state, time.Now()
			all = append(all, w.changed)
		}
	}
	return func() {
		for _, f := range all {
			f(state)
		}
	}
}

// settleBFD makes the dataplane's sessions those that are wanted. Its error is the connection's.
func (l *life) settleBFD(ctx context.Context) error {
	wanted := l.a.wantedBFD()
	if !l.report.Supports(binapi.BFD) {
		for _, w := range wanted {
			l.a.bfdSettled(w, errors.New("this VPP has no BFD, or another version of its messages"))
		}
		return nil
	}
	have := map[bfdKey]*bfd.BfdUDPSessionDetails{}
	l.a.mu.Lock()
	heard := l.a.bfdHeard
	l.a.mu.Unlock()
	err := dump(ctx, l.s, &bfd.BfdUDPSessionDump{}, func(d *bfd.BfdUDPSessionDetails) {
		if _, ours := l.a.InterfaceName(uint32(d.SwIfIndex)); ours {
			have[bfdKey{uint32(d.SwIfIndex), binapi.FromAddress(d.LocalAddr), binapi.FromAddress(d.PeerAddr)}] = d
		}
	})
	if err != nil {
		return err
	}
	keep := map[bfdKey]bool{}
	for _, w := range wanted {
		key, err := l.a.bfdPlace(&w.BFD)
		if err == nil {
			keep[key] = true
			l.a.bfdIsWanted(w, key)
			if have[key] == nil {
				l.a.bfdEvent(key, BFDDown) // before it is made: from then on events tell
				heard++
			}
			err = l.makeBFD(ctx, key, &w.BFD, have[key])
		}
		if err != nil && !isRefusal(err) && l.s.err() != nil {
			return err
		}
		l.a.bfdSettled(w, err)
		if d := have[key]; err == nil && d != nil && BFDState(d.State) != BFDAdminDown && !l.a.bfdRead(key, BFDState(d.State), heard) {
			l.a.kickBFD() // and read again
		}
	}
	return l.dropBFD(ctx, have, keep)
}

func (a *Agent) wantedBFD() []*bfdWatch {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.bfds))
}

// bfdPlace finds a session's interface and local address.
func (a *Agent) bfdPlace(b *BFD) (bfdKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	near := func(p netip.Prefix) bool { return p.Bits() < p.Addr().BitLen() && p.Masked().Contains(b.Peer) }
	for name, l := range a.links {
		at := slices.IndexFunc(l.addresses, near)
		if name != b.Interface && (b.Interface != "" || at < 0) {
			continue
		}
		key := bfdKey{l.index, b.Local, b.Peer}
		switch {
		case b.Local.IsValid():
		case b.Peer.Is6() && b.Peer.IsLinkLocalUnicast():
			key.local = l.linkLocal
		case at >= 0:
			key.local = l.addresses[at].Addr()
		}
		if !key.local.IsValid() {
			return key, fmt.Errorf("interface %s has no address beside %s, and none is given", name, b.Peer)
		}
		return key, nil
	}
	if b.Interface != "" {
		return bfdKey{}, fmt.Errorf("interface %s is not there", b.Interface)
	}
	return bfdKey{}, fmt.Errorf("%s is on the link of no interface", b.Peer)
}

// bfdIsWanted has events of the session told from now on.
func (a *Agent) bfdIsWanted(w *bfdWatch, key bfdKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.key, w.there = key, true
	delete(a.bfdLeft, key)
}

func (a *Agent) bfdSettled(w *bfdWatch, err error) {
	a.mu.Lock()
	news := err != nil && (w.Err == nil || w.Err.Error() != err.Error())
	w.Err, w.there = err, err == nil
	a.mu.Unlock()
	if news {
		object := fmt.Sprintf("BFD with %s", w.Peer)
		a.log.WithError(err).WithField("object", object).Warn("no BFD session")
		a.errs.add(object, err)
	}
}

// makeBFD makes a session, or changes the one that there is.
func (l *life) makeBFD(ctx context.Context, k bfdKey, want *BFD, have *bfd.BfdUDPSessionDetails) error {
	index, interval := interface_types.InterfaceIndex(k.index), uint32(want.Interval.Microseconds())
	local, peer := binapi.ToAddress(k.local), binapi.ToAddress(k.peer)
	if have == nil {
		return l.s.call(ctx, &bfd.BfdUDPAdd{
			SwIfIndex: index, DesiredMinTx: interval, RequiredMinRx: interval, LocalAddr: local, PeerAddr: peer, DetectMult: want.Multiplier,
		}, new(bfd.BfdUDPAddReply))
	}
	if have.DesiredMinTx != interval || have.RequiredMinRx != interval || have.DetectMult != want.Multiplier {
		err := l.s.call(ctx, &bfd.BfdUDPMod{
			SwIfIndex: index, DesiredMinTx: interval, RequiredMinRx: interval, LocalAddr: local, PeerAddr: peer, DetectMult: want.Multiplier,
		}, new(bfd.BfdUDPModReply))
		if err != nil {
			return err
		}
	}
	delete(l.bfdDoomed, k)
	if have.State != bfd.BFD_STATE_API_ADMIN_DOWN {
		return nil
	}
	return l.setBFD(ctx, k, true)
}

func (l *life) setBFD(ctx context.Context, k bfdKey, up bool) error {
	req := &bfd.BfdUDPSessionSetFlags{
		SwIfIndex: interface_types.InterfaceIndex(k.index), LocalAddr: binapi.ToAddress(k.local), PeerAddr: binapi.ToAddress(k.peer),
	}
	if up {
		req.Flags = interface_types.IF_STATUS_API_FLAG_ADMIN_UP
	}
	return l.s.call(ctx, req, new(bfd.BfdUDPSessionSetFlagsReply))
}

// dropBFD ends the sessions that nobody wants: the peer is told that it is by order, and no failure (RFC 5880 §6.8.16), and then
// they go.
func (l *life) dropBFD(ctx context.Context, have map[bfdKey]*bfd.BfdUDPSessionDetails, keep map[bfdKey]bool) error {
	maps.DeleteFunc(l.bfdDoomed, func(k bfdKey, _ time.Time) bool { return have[k] == nil })
	for k, d := range have {
		if keep[k] {
			continue
		}
		at, doomed := l.bfdDoomed[k]
		left := l.a.hasLeftBFD(k)
		goodbye := d.State == bfd.BFD_STATE_API_ADMIN_DOWN
		var err error
		switch due := !time.Now().Before(at); {
		case !doomed && !left && !goodbye:
			l.bfdDoomed[k] = time.Now().Add(bfdStray)
		case !goodbye && (left || due):
			err = l.setBFD(ctx, k, false)
			l.bfdDoomed[k] = time.Now().Add(bfdGoodbye)
		case !doomed || due:
			err = l.s.call(ctx, &bfd.BfdUDPDel{
				SwIfIndex: interface_types.InterfaceIndex(k.index), LocalAddr: binapi.ToAddress(k.local), PeerAddr: binapi.ToAddress(k.peer),
			}, new(bfd.BfdUDPDelReply))
			delete(l.bfdDoomed, k)
		}
		if err != nil && !isRefusal(err) {
			return err
		}
		if err != nil {
			l.a.errs.add(k.String(), err)
		}
	}
	return nil
}

// hasLeftBFD reports, once, whether a session was wanted until now.
func (a *Agent) hasLeftBFD(k bfdKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.bfdLeft[k]
	delete(a.bfdLeft, k)
	return left
}
