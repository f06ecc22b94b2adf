package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// This file ends sessions by BFD (RFC 5882): the dataplane tells within milliseconds that the way to a neighbour is gone, and
// what was learned by it goes at once. A session of BFD lives as long as the BGP session that asks for it; that it was down
// before it was ever up says nothing, as the neighbour may have none.

// BFD says how a neighbour is watched; without an interval it is not.
type BFD struct {
	Interval   time.Duration // least time between packets, both ways
	Multiplier uint8         // so many of ours that are missing are a failure for the neighbour
}

// Defaults and limits of BFD.
const (
	MinBFDInterval       = 10 * time.Millisecond
	MaxBFDInterval       = 30 * time.Second
	DefaultBFDInterval   = 300 * time.Millisecond
	DefaultBFDMultiplier = 3
)

// normalize fills in what is left out, and refuses what no dataplane does.
func (b *BFD) normalize(multihop bool) error {
	switch {
	case *b == BFD{}:
		return nil
	case multihop:
		return errors.New("BFD over several hops (RFC 5883) is not available: remove bfd or multihop")
	case b.Interval == 0:
		b.Interval = DefaultBFDInterval
	}
	if b.Multiplier == 0 {
		b.Multiplier = DefaultBFDMultiplier
	}
	if b.Interval < MinBFDInterval || b.Interval > MaxBFDInterval {
		return fmt.Errorf("BFD interval %s is not between %s and %s", b.Interval, MinBFDInterval, MaxBFDInterval)
	}
	return nil
}

// BFDMonitor is the dataplane's BFD. WatchBFD has a session on an interface ("": the one in whose subnet remote is) until stop is
// called, and tells changed whether it is up; changed does not block.
type BFDMonitor interface {
	WatchBFD(iface string, local, remote netip.Addr, b BFD, changed func(up bool)) (stop func())
}

// bfdWatched is what a peer has asked for.
type bfdWatched struct {
	cfg   BFD
	sess  *session
	stop  func()
	upped bool // it was up
}

// followBFD has the established session watched as the configuration says, and no other.
func (p *peer) followBFD() {
	var cfg BFD
	var sess *session
	if p.bfd != nil && !p.closing && p.status.current() == Established {
		cfg, sess = p.config().BFD, p.sess
	}
	if cfg.Interval == 0 {
		sess = nil
	}
	if p.watched.sess == sess && (sess == nil || p.watched.cfg == cfg) {
		return
	}
	if p.watched.stop != nil {
		p.watched.stop()
	}
	p.watched = bfdWatched{}
	if sess == nil {
		p.status.setBFD("")
		return
	}
	remote := p.config().Address
	iface := p.config().Interface
	if iface == "" {
		iface = remote.Zone()
	}
	p.status.setBFD("down")
	p.watched = bfdWatched{cfg: cfg, sess: sess}
	p.watched.stop = p.bfd.WatchBFD(iface, p.sessWire.local, remote, cfg, func(up bool) {
		p.post(func() { p.bfdChanged(sess, cfg, up) })
	})
}

func (p *peer) bfdChanged(sess *session, cfg BFD, up bool) {
	w := &p.watched
	if w.sess != sess || w.cfg != cfg {
		return // of a session that is over
	}
	if up {
		w.upped = true
		p.status.setBFD("up")
		return
	}
	p.status.setBFD("down")
	if w.upped && sess == p.sess {
		sess.cease(&p.work, ceaseBFDDown, nil, "Cease: BFD Down (sent)")
	}
}
