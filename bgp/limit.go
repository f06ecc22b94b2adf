package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file bounds how many prefixes a neighbour may announce. GoBGP can only end the session, and for good; here a session may
// also go on without what is too much. So prefixes are counted before GoBGP sees them, by a set of those that are let in: it is
// kept for a session that has a limit.

// LimitAction is what happens when a neighbour announces more prefixes than its limit.
type LimitAction uint8

// The actions.
const (
	LimitBlock   LimitAction = iota // no further prefixes are let in; as soon as there is room the neighbour is asked for all anew
	LimitWarn                       // it is logged and shown
	LimitRestart                    // the session ends, and is tried again later
)

func (a LimitAction) String() string {
	names := [...]string{"block", "warn", "restart"}
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// PrefixLimit bounds the prefixes of a family that a neighbour may announce, before import. The zero value is no limit.
type PrefixLimit struct {
	Max          int
	Action       LimitAction
	RestartAfter time.Duration // for LimitRestart; 0 means DefaultRestartAfter
}

// DefaultRestartAfter is how long a neighbour that announced too much is left alone.
const DefaultRestartAfter = 15 * time.Minute

// healEvery is how often a blocked neighbour is asked for all its routes at most: near the limit each withdrawal makes room.
const healEvery = 30 * time.Second

// LimitState is what a limit has come to.
type LimitState struct {
	PrefixLimit
	Family   Family
	Prefixes int    // let in
	Blocked  uint64 // announcements that were not, since the neighbour was last asked for all
}

// Reached reports whether there are more prefixes than the limit, as far as they are counted.
func (l LimitState) Reached() bool { return l.Blocked > 0 || l.Prefixes > l.Max }

// limiter counts the prefixes of one family in a session.
type limiter struct {
	family Family
	limit  func() PrefixLimit // of the moment: a reload may change it
	log    *logrus.Entry

	mu       sync.Mutex
	prefixes map[netip.Prefix]int // how many paths each has
	paths    map[pathKey]struct{} // with identifiers (RFC 7911)
	blocked  uint64
	warned   bool
	hinted   bool // it was said that there is room
}

func newLimiter(f Family, limit func() PrefixLimit, log *logrus.Entry) *limiter {
	return &limiter{family: f, limit: limit, log: log, prefixes: map[netip.Prefix]int{}, paths: map[pathKey]struct{}{}}
}

// apply takes the routes out of an UPDATE that are too much. It reports whether it took any, whether there is room for some that
// were taken out before, or why the session ends.
func (l *limiter) apply(u *update, identifier int) (changed, room bool, end *ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wire := l.family.wire()
	withdrawn, announced := u.withdrawn, u.nlri
	reach, reaches := u.reach()
	if reaches = reaches && reach.family == wire; l.family == IPv6 {
		withdrawn, announced = nil, nil
	}
	if unreach, ok := u.unreach(); ok && unreach.family == wire {
		l.withdrawLocked(unreach.routes, identifier)
	}
	l.withdrawLocked(withdrawn, identifier)
	limit := l.limit()
	kept, over := l.announceLocked(announced, identifier, limit)
	if len(kept) < len(announced) {
		u.nlri, changed = kept, true
	}
	if reaches {
		kept, more := l.announceLocked(reach.routes, identifier, limit)
		if over = over || more; len(kept) < len(reach.routes) {
			reach.routes, changed = kept, true
			u.setReach(reach)
		}
	}
	if changed && !u.announces() {
		u.trim()
	}
	if over {
		end = l.overLocked(limit)
	} else if len(l.prefixes) <= limit.Max && l.blocked == 0 {
		l.warned = false
	}
	if l.blocked > 0 && len(l.prefixes) < limit.Max && !l.hinted {
		l.hinted, room = true, true
	}
	return changed, room, end
}

func (l *limiter) withdrawLocked(routes []byte, identifier int) {
	eachRoute(l.family, routes, identifier, func(_ []byte, k pathKey) {
		if identifier > 0 {
			if _, there := l.paths[k]; !there {
				return
			}
			delete(l.paths, k)
		}
		if n := l.prefixes[k.prefix]; n > 1 {
			l.prefixes[k.prefix] = n - 1
		} else {
			delete(l.prefixes, k.prefix)
		}
	})
}

// announceLocked returns those routes that are let in, and whether any were too much.
func (l *limiter) announceLocked(routes []byte, identifier int, limit PrefixLimit) (kept []byte, over bool) {
	whole := true
	eachRoute(l.family, routes, identifier, func(b []byte, k pathKey) {
		n, known := l.prefixes[k.prefix]
		if !known && limit.Max > 0 && n == 0 && len(l.prefixes) >= limit.Max {
			over = true
			if limit.Action == LimitBlock {
				l.blocked++
				if whole {
					whole, kept = false, append([]byte(nil), kept...)
				}
				return
			}
		}
		if identifier > 0 {
			if _, there := l.paths[k]; !there {
				l.paths[k] = struct{}{}
				l.prefixes[k.prefix] = n + 1
			}
		} else {
			l.prefixes[k.prefix] = 1
		}
		if whole {
			kept = routes[:len(kept)+len(b)]
		} else {
			kept = append(kept, b...)
		}
	})
	return kept, over
}

// overLocked is what happens at the limit, besides that routes are left out.
func (l *limiter) overLocked(limit PrefixLimit) *ending {
	if limit.Action == LimitRestart {
		data := binary.BigEndian.AppendUint16(nil, l.family.wire().Afi()) // RFC 4486 §4
		data = append(data, l.family.wire().Safi())
		data = binary.BigEndian.AppendUint32(data, uint32(limit.Max))
		return &ending{
			code: bgp.BGP_ERROR_CEASE, subcode: bgp.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED, data: data, rest: limit.RestartAfter,
			text: fmt.Sprintf("Cease: Maximum Number of Prefixes Reached (sent): more than %d of %s; next try in %s", limit.Max, l.family, limit.RestartAfter),
		}
	}
	if !l.warned {
		l.warned = true
		l.log.WithFields(logrus.Fields{"family": l.family.String(), "limit": limit.Max, "action": limit.Action.String()}).
			Warn("BGP neighbor announces more prefixes than its limit")
	}
	return nil
}

// asked is called when the neighbour is asked for all its routes.
func (l *limiter) asked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked, l.hinted = 0, false
}

func (l *limiter) state() LimitState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LimitState{PrefixLimit: l.limit(), Family: l.family, Prefixes: len(l.prefixes), Blocked: l.blocked}
}

// limitOf is a neighbour's limit of a family.
func (n *Neighbor) limitOf(f Family) PrefixLimit {
	if f == IPv4 {
		return n.Limit4
	}
	return n.Limit6
}

// normalizeLimits fills in defaults.
func (n *Neighbor) normalizeLimits() error {
	for _, l := range []*PrefixLimit{&n.Limit4, &n.Limit6} {
		if l.Max < 0 || l.Action > LimitRestart || l.RestartAfter < 0 {
			return fmt.Errorf("neighbor %s: prefix limit %+v is none", n.Name, *l)
		}
		if l.RestartAfter == 0 {
			l.RestartAfter = DefaultRestartAfter
		}
	}
	return nil
}

// --- of the peer's goroutine

// newLimiters are those of a session.
func (p *peer) newLimiters(families []Family) (all []*limiter) {
	for _, f := range families {
		if p.config().limitOf(f).Max > 0 {
			all = append(all, newLimiter(f, func() PrefixLimit { return p.config().limitOf(f) }, p.log))
		}
	}
	return all
}

// roomAgain is called when a blocked neighbour has made room.
func (p *peer) roomAgain() {
	p.post(func() { p.wantsHeal = true })
}

// heal asks a blocked neighbour for all its routes, now and then.
func (p *peer) heal(now time.Time) {
	if !p.wantsHeal || now.Before(p.healAt) || p.sessWire == nil || p.status.current() != Established {
		return
	}
	p.wantsHeal, p.healAt = false, now.Add(healEvery)
	if !p.sessWire.openOrZero().refresh {
		p.log.Warn("BGP neighbor has made room for prefixes that were left out, but cannot send them again (RFC 2918): reset the session")
		return
	}
	var families []Family
	for _, l := range p.status.sessionLimits() {
		if l.state().Blocked > 0 {
			l.asked()
			families = append(families, l.family)
		}
	}
	p.log.Info("BGP neighbor has made room for prefixes that were left out, and is asked for all of them")
	p.askAnew(families)
}

// limitsChanged is for a reload, which may have changed them.
func (p *peer) limitsChanged() {
	p.post(func() {
		if p.rested != p.limits() {
			p.restUntil, p.healAt = time.Time{}, time.Time{}
		}
		for _, l := range p.status.sessionLimits() {
			if s := l.state(); s.Blocked > 0 && (s.Max == 0 || s.Prefixes < s.Max || s.Action != LimitBlock) {
				p.wantsHeal = true
			}
		}
	})
}

// limits are the configured ones.
func (p *peer) limits() [2]PrefixLimit { return [2]PrefixLimit{p.config().Limit4, p.config().Limit6} }

// resting reports whether the neighbour is left alone for a while.
func (p *peer) resting(now time.Time) bool { return now.Before(p.restUntil) }

func (st *peerStatus) setLimits(all []*limiter) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.limits = all
}

func (st *peerStatus) sessionLimits() []*limiter {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.limits
}

// limitsLocked are the states of the limits that a session has, or of those that there are to be.
func (st *peerStatus) limitsLocked(cfg Neighbor) (all []LimitState) {
	if st.state != Established {
		for _, f := range cfg.Families {
			if l := cfg.limitOf(f); l.Max > 0 {
				all = append(all, LimitState{PrefixLimit: l, Family: f})
			}
		}
		return all
	}
	for _, l := range st.limits {
		if s := l.state(); s.Max > 0 {
			all = append(all, s)
		}
	}
	return all
}
