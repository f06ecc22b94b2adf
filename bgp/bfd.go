package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// This file ends sessions by BFD (RFC 5882): the dataplane tells within milliseconds that the way to a neighbour is gone, and
// what was learned by it goes at once.
//
// A neighbour is watched from when it is configured, and not from when its session is established: VPP sends a neighbour nothing,
// not even our TCP, from when it is told to watch it until it has heard of it (adj_bfd_notify in src/vnet/adj/adj_bfd.c). That
// costs a second or two, in which no route should depend on it. And who has no BFD would never be reached: so one who does not
// answer is not watched, for a while or until the session that is established without ends.

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

// BFDMonitor is the dataplane's BFD. WatchBFD has a session on an interface ("": the one in whose subnet remote is), from local if
// that is given, until stop is called, and tells changed whether it is up; changed does not block.
type BFDMonitor interface {
	WatchBFD(iface string, local, remote netip.Addr, b BFD, changed func(up bool)) (stop func())
}

const (
	// bfdPatience is how long a neighbour that was never heard of may be silent: sessions of BFD that are not up send every second,
	// and WireGuard asks for a handshake every five.
	bfdPatience = 15 * time.Second
	// bfdBrief is the same where the session is established: packets get there, and VPP sends none of them meanwhile.
	bfdBrief = 5 * time.Second
	// bfdProven is the same for one that has answered until now: most likely its link is dead.
	bfdProven = 2 * time.Minute
	// bfdDoubt is how long a neighbour may be silent that this machine was too busy to hear: it is up again within three seconds, if it
	// is there at all.
	bfdDoubt = 5 * time.Second
	// bfdPause is how long one who was silent is not watched, so that BGP can do without.
	bfdPause = 30 * time.Second
)

// watching is a peer's BFD.
type watching struct {
	cfg    BFD
	from   netip.Addr // LocalAddress
	stop   func()     // nil: it is not watched
	turn   int        // counts the times that it was
	up     bool
	limit  time.Duration // of its silence
	tried  bool          // it was watched with this configuration
	in     *session      // that was established when that began last
	proven bool          // the neighbour has answered, since it was configured
	since  time.Time     // that it is not up, or not watched
	pause  time.Time     // it is not watched before
	doubt  time.Time     // it is down, and may be there: until then the session goes on
}

// followBFD has the neighbour watched as the configuration says.
func (p *peer) followBFD(now time.Time) {
	w, cfg := &p.watched, p.config()
	wanted := p.bfd != nil && !p.closing && cfg.BFD.Interval > 0
	switch {
	case w.tried && (!wanted || w.cfg != cfg.BFD || w.from != cfg.LocalAddress):
		if w.stop != nil {
			w.stop()
		}
		*w = watching{turn: w.turn, proven: w.proven && wanted}
	case w.stop != nil && !w.up && now.Sub(w.since) >= w.limit:
		p.log.WithField("for", now.Sub(w.since).Round(time.Second).String()).Info("the BGP neighbor does not answer by BFD, and is not watched for now")
		w.stop()
		w.stop, w.since, w.pause = nil, now, now.Add(bfdPause)
		p.dialAt = now
	case !w.doubt.IsZero() && !now.Before(w.doubt):
		p.endByBFD()
	}
	// While a session is established without, the neighbour is asked once, and only if there is reason to think that it answers.
	again := p.status.current() != Established || !w.tried || w.proven && w.in != p.sess
	if wanted && w.stop == nil && !now.Before(w.pause) && again {
		p.watch(cfg, now)
	}
	switch {
	case w.stop == nil && wanted:
		p.status.setBFD("no answer")
	case w.stop == nil:
		p.status.setBFD("")
	case w.up:
		p.status.setBFD("up")
	default:
		p.status.setBFD("down")
	}
}

// bfdNext is when followBFD may have something to do; zero: when something happens.
func (p *peer) bfdNext() time.Time {
	switch w := &p.watched; {
	case w.stop == nil:
		return w.pause
	case w.up:
		return time.Time{}
	case !w.doubt.IsZero():
		return w.doubt
	default:
		return w.since.Add(w.limit)
	}
}

func (p *peer) watch(cfg *Neighbor, now time.Time) {
	iface := cfg.Interface
	if iface == "" {
		iface = cfg.Address.Zone()
	}
	w := &p.watched
	*w = watching{
		cfg: cfg.BFD, from: cfg.LocalAddress, turn: w.turn + 1, limit: bfdPatience, tried: true, proven: w.proven, since: now,
	}
	if p.status.current() == Established {
		w.limit, w.in = bfdBrief, p.sess
	}
	turn := w.turn
	w.stop = p.bfd.WatchBFD(iface, cfg.LocalAddress, cfg.Address, cfg.BFD, func(up bool) {
		p.post(func() { p.bfdChanged(turn, up) })
	})
}

func (p *peer) bfdChanged(turn int, up bool) {
	w := &p.watched
	if w.stop == nil || w.turn != turn || w.up == up {
		return // it is over, or no news
	}
	w.up, w.since = up, time.Now()
	if up {
		if !w.doubt.IsZero() {
			p.log.Info("the BGP neighbor answers by BFD again")
		}
		w.doubt = time.Time{}
		w.proven, w.limit = true, bfdProven
		p.stopDial() // it may wait for an answer to what was not sent
		p.dialAt = time.Time{}
		return
	}
	if late := p.pulse.late(); late > w.cfg.Interval*time.Duration(w.cfg.Multiplier)/6 && p.status.current() == Established {
		p.log.WithField("late", late.Round(time.Millisecond).String()).
			Warn("the BGP neighbor is not heard of by BFD, but this machine is late itself: its session goes on for now. Give bfd a longer interval, or the machine less to do")
		w.doubt = w.since.Add(bfdDoubt)
		return
	}
	p.endByBFD()
}

// heedBFD has what BFD needs, or not any more. The caller holds Speaker.changes.
func (s *Speaker) heedBFD(r *running, on bool) {
	r.backUpIf(on)
	switch {
	case on && r.calm == nil:
		var ctx context.Context
		ctx, r.calm = context.WithCancel(r.ctx)
		r.work.Go(func() { s.pulse.beat(ctx) })
	case !on && r.calm != nil:
		r.calm()
		r.calm = nil
	}
}

// endByBFD ends the session, whose neighbour does not answer.
func (p *peer) endByBFD() {
	p.watched.doubt = time.Time{}
	if p.sess != nil && p.status.current() == Established {
		p.sess.cease(&p.work, ceaseBFDDown, nil, "Cease: BFD Down (sent)")
	}
}
