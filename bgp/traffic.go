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
//	from the peer ──► repair (RFC 7606) ──► next hops ──► limits of prefixes ──► GoBGP
//	to the peer  ◄── next hops ◄── GoBGP
//
// receive is called by the goroutine of GoBGP that reads, send by the one that writes. An UPDATE that nothing is done to passes
// as the bytes that it came in.
type traffic struct {
	log      *logrus.Entry
	tally    *tally
	internal bool        // the peer is in our AS
	families []Family    // that we carry with it
	as4      bool        // it writes AS numbers in 4 bytes (RFC 6793)
	limit    int         // bytes of a message (RFC 8654)
	mixed    bool        // it takes IPv4 routes with IPv6 next hops (RFC 8950)
	self     [2]hopBytes // our next hops as the peer is to have them, for IPv4 and IPv6 routes
	limits   []*limiter
	room     func()    // there is room for prefixes that were left out
	said     time.Time // of the last log line about a malformed UPDATE
}

// tally counts, over all sessions with a neighbour, what happened to its UPDATEs.
type tally struct {
	withdrawn atomic.Uint64 // UPDATEs whose routes were treated as withdrawn (RFC 7606 §2)
	discarded atomic.Uint64 // attributes left out
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
	t.limits, t.room = p.newLimiters(t.families), p.roomAgain
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
	changed, end := t.repair(&u)
	if end != nil {
		return nil, end
	}
	if u.nameHop() {
		changed = true
	}
	for _, l := range t.limits {
		less, room, end := l.apply(&u, t.identifier(l.family.wire()))
		if end != nil {
			return nil, end
		}
		if changed = changed || less; room {
			t.room()
		}
	}
	switch {
	case !changed:
		return msg, nil
	case u.empty():
		return nil, nil
	}
	out, ok := u.messages(t.limit, t.identifier)
	if !ok {
		return nil, &ending{code: bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, subcode: bgp.BGP_ERROR_SUB_MALFORMED_ATTRIBUTE_LIST}
	}
	return join(out), nil
}

// identifier is how many bytes of path identifier the peer's routes of a family have (RFC 7911 §3).
func (t *traffic) identifier(bgp.Family) int { return 0 }

// shapes reports whether send does anything.
func (t *traffic) shapes() bool { return t.internal || !t.mixed }

// send returns what the peer is to get in place of an UPDATE of GoBGP's.
func (t *traffic) send(msg []byte) []byte {
	u, ok := parseUpdate(msg[headerLen:])
	if !ok || u.broken {
		return msg
	}
	changed := t.internal && u.ownHop(t.self)
	if !t.mixed && u.plain(t.self[0]) {
		changed = true
	}
	switch {
	case !changed:
		return msg
	case u.empty():
		return nil
	}
	out, ok := u.messages(t.limit, t.identifier)
	if !ok {
		t.log.Error("an UPDATE to the BGP neighbor is too long, and left out")
		return nil
	}
	return join(out)
}

func join(msgs [][]byte) []byte {
	if len(msgs) == 1 {
		return msgs[0]
	}
	var all []byte
	for _, m := range msgs {
		all = append(all, m...)
	}
	return all
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
