package bgp

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// traffic is what is done to the UPDATEs of one session on their way, because GoBGP does not do it, or not well:
//
//	from the peer ──► repair (RFC 7606) ──► next hops ──► OTC (RFC 9234) ──► limits of prefixes ──► GoBGP
//
// receive is called by the goroutine of GoBGP that reads. An UPDATE that nothing is done to passes as the bytes that it came in.
// What is particular to the session in what the peer is told is here, too; see teller.go.
type traffic struct {
	log      *logrus.Entry
	tally    *tally
	internal bool                          // the peer is in our AS
	families []Family                      // that we carry with it
	as4      bool                          // it writes AS numbers in 4 bytes (RFC 6793)
	limit    int                           // bytes of a message (RFC 8654)
	mixed    bool                          // it takes IPv4 routes with IPv6 next hops (RFC 8950)
	self     [2]hopBytes                   // our next hops as the peer is to have them, for IPv4 and IPv6 routes
	paths    map[Family]bgp.BGPAddPathMode // that were agreed on
	otc      *otc                          // nil without a role
	farewell *atomic.Bool                  // we are about to go
	limits   []*limiter
	backups  *backups  // nil: nobody asks for them
	room     func()    // there is room for prefixes that were left out
	said     time.Time // of the last log line about a malformed UPDATE
}

// tally counts, over all sessions with a neighbour, what happened to its UPDATEs.
type tally struct {
	withdrawn atomic.Uint64 // UPDATEs whose routes were treated as withdrawn (RFC 7606 §2)
	discarded atomic.Uint64 // attributes left out
	leaks     atomic.Uint64 // UPDATEs whose routes came the wrong way (RFC 9234 §5)
}

// newTraffic is what the session on w needs, whose OPENs are here.
func (p *peer) newTraffic(w *wire) *traffic {
	cfg, open := p.config(), w.openOrZero()
	t := &traffic{
		log: p.log, tally: &p.status.tally, internal: p.internal(), families: negotiated(cfg.Families, open.caps), as4: open.as4,
		limit: bgp.BGP_MAX_MESSAGE_LENGTH,
	}
	if open.long { // GoBGP's OPEN always has the capability
		t.limit = bgp.BGP_MAX_EXTENDED_MESSAGE_LENGTH
	}
	t.paths, t.farewell = cfg.AddPath.agreed(t.families, open), &p.farewell
	t.otc = newOTC(cfg.Role, p.local.as, open.as)
	t.limits, t.room = p.newLimiters(t.families), p.roomAgain
	t.backups = p.backups
	p.status.setLimits(t.limits)
	t.self = ownHops(cfg, w.local)
	if t.mixed = open.mixed; !t.mixed && w.local.Is6() && t.carries(bgp.RF_IPv4_UC) && len(t.self[0]) != 4 {
		t.log.Warn("the BGP neighbor takes no IPv4 routes with IPv6 next hops (RFC 8950), and there is no IPv4 next hop: it gets no IPv4 routes")
	}
	return t
}

// receive returns what GoBGP is to read in place of an UPDATE: often the same, perhaps nothing. Or it returns why the session
// ends.
func (t *traffic) receive(msg []byte) ([]byte, *ending) {
	u, ok := parseUpdate(msg[headerLen:])
	if !ok {
		return msg, nil // GoBGP ends the session (RFC 7606 §3 c)
	}
	if end := t.checkRoutes(&u); end != nil {
		return nil, end
	}
	if t.backups.enabled() {
		t.backups.note(true, u.keys(t.idsIn)...)
	}
	parts := u.parts()
	changed := len(parts) > 1
	for i := range parts {
		different, end := t.take(&parts[i])
		if end != nil {
			return nil, end
		}
		changed = changed || different
	}
	if !changed {
		return msg, nil
	}
	all, ok := t.messages(parts, t.idsIn)
	if !ok {
		return nil, &ending{code: bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, subcode: bgp.BGP_ERROR_SUB_MALFORMED_ATTRIBUTE_LIST}
	}
	return all, nil
}

// take does to an UPDATE of the peer's all that there is to do. It reports whether it changed it, or why the session ends.
func (t *traffic) take(u *update) (changed bool, end *ending) {
	if changed, end = t.repair(u); end != nil {
		return false, end
	}
	if u.nameHop() {
		changed = true
	}
	if t.otc != nil {
		marked, leak := t.otc.ingress(u)
		if leak {
			t.leaked(u)
		}
		changed = changed || marked || leak
	}
	for _, l := range t.limits {
		less, room, end := l.apply(u, t.idsIn(l.family.wire()))
		if end != nil {
			return false, end
		}
		if changed = changed || less; room {
			t.room()
		}
	}
	return changed, nil
}

// idsIn is how many bytes of path identifier the peer's routes of a family have, and idsOut ours (RFC 7911 §3).
func (t *traffic) idsIn(f bgp.Family) int {
	return identifierLen(t.paths[familyOf(f)], bgp.BGP_ADD_PATH_RECEIVE)
}

func (t *traffic) idsOut(f bgp.Family) int {
	return identifierLen(t.paths[familyOf(f)], bgp.BGP_ADD_PATH_SEND)
}

func identifierLen(agreed, direction bgp.BGPAddPathMode) int {
	if agreed&direction != 0 {
		return 4
	}
	return 0
}

// messages puts UPDATEs together, one after the other, without those that say nothing.
func (t *traffic) messages(parts []update, ids func(bgp.Family) int) ([]byte, bool) {
	var all []byte
	for i := range parts {
		if parts[i].empty() {
			continue
		}
		msgs, ok := parts[i].messages(t.limit, ids)
		if !ok {
			return nil, false
		}
		if len(parts) == 1 && len(msgs) == 1 {
			return msgs[0], true
		}
		for _, m := range msgs {
			all = append(all, m...)
		}
	}
	return all, true
}

// hopBytes is a next hop as MP_REACH_NLRI has it; empty where we have none to give.
type hopBytes []byte

// ownHops are our next hops towards a neighbour, for IPv4 and IPv6 routes, on a session with this local address.
func ownHops(cfg *Neighbor, local netip.Addr) (own [2]hopBytes) {
	v4, v6 := cfg.NextHop4, cfg.NextHop6
	if local = local.WithZone(""); local.Is4() {
		v4 = local
	} else if local.Is6() {
		v6 = local
		if !v4.IsValid() {
			v4 = local // RFC 8950
		}
	}
	if v4.IsValid() {
		own[0] = v4.AsSlice()
	}
	if v6.IsValid() {
		own[1] = v6.AsSlice()
	}
	return own
}
