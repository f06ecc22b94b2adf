package bgp

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"

	"rlr/hoststack"
)

// peer is one neighbour's transport: it dials, takes what the listener accepted, resolves collisions, and hands GoBGP one
// session at a time.
//
// One goroutine owns the state. What happens elsewhere (a dial came back, GoBGP closed the session) is posted to it as a
// function; each such function only notes what it knows, and step, which runs after it, does what the whole state asks for.
// So every order of events goes through the same code, and a missed event is at worst late.
type peer struct {
	cfg      atomic.Pointer[Neighbor] // replaced by a reload that needs no new session
	farewell atomic.Bool              // we are about to go: see farewell.go
	life     atomic.Uint64            // of the dataplane when a session was last established
	telling  atomic.Pointer[teller]   // of the session; nil: there is none, or its policy is not known
	id       netip.Addr
	local    localSpeaker
	stack    hoststack.Stack
	log      *logrus.Entry
	// arrived is Options.Arrived; set before the peer starts.
	arrived func(netip.Prefix, time.Time)

	bfd     BFDMonitor // nil: the dataplane has none
	backups *backups
	pulse   *pulse

	goodbye []byte // the shutdown communication of Disable; guarded by Speaker.changes
	known   bool   // to GoBGP; guarded by running.peerMu

	mailMu sync.Mutex
	mail   []func()
	ended  bool // nobody reads mail any more
	wake   chan struct{}

	// Of the goroutine.
	ctx       context.Context
	gobgp     gobgpSide
	out, in   *wire // candidates: made by us, made by the peer
	sess      *session
	sessWire  *wire // the chosen one
	sessTaken bool
	calmUntil time.Time      // nothing is offered to GoBGP before
	staleBy   time.Time      // when stale routes go whether the peer has sent all or not
	restUntil time.Time      // no session before, except by order
	rested    [2]PrefixLimit // the limits when that began
	wantsHeal bool           // prefixes were left out, and there is room
	healAt    time.Time      // not before
	confirmBy time.Time      // when a chosen session must have its KEEPALIVE
	probed    *wire          // for whose sake the established session was probed
	proveFrom time.Time      // from when on a message on it proves that it lives; zero: seen says how many there were then
	seen      uint64
	giveAt    time.Time
	dialAt    time.Time
	dialing   context.CancelFunc // non-nil while a dial is in progress
	dialID    int
	closing   bool            // disabled or to be removed: nothing new
	down      []chan struct{} // closed once closing is done
	work      sync.WaitGroup
	watched   watching

	status peerStatus
}

// gobgpSide is what a peer needs of GoBGP.
type gobgpSide interface {
	give(*session)
	hurryLost(*peer)  // shortens GoBGP's idle time after a session that is lost; see skipIdle
	restarting() bool // we have restarted, and the first routes of all neighbours are not here
	tell(*peer, *session, *wire)
	resetLost(*peer) error // ends the established session of a peer; it waits for GoBGP to take the order
}

// localSpeaker is what a peer must know of us.
type localSpeaker struct {
	as       uint32
	id       netip.Addr
	cluster  netip.Addr // cluster id (RFC 4456)
	outlived bool       // our dataplane forwards when we are gone
	life     func() uint64
}

const (
	firstDial = 300 * time.Millisecond // after start or loss, plus as much jitter
	// collisionGrace is how long a connection that would lose a collision waits for the OPEN on the one that would win.
	collisionGrace = 2 * time.Second
	// proofDelay is how long after the probe messages may still be old ones, on their way when the peer lost the session.
	proofDelay = time.Second
	// hurryEvery is how often a lost session is spared GoBGP's idle time, in the long run; hurryBurst is how often in a row: a
	// dataplane that dies several times is no reason to keep a good peer waiting.
	hurryEvery = 10 * time.Second
	hurryBurst = 6
	// calm is GoBGP's idle time, and one of a second after a reset: RFC 4271 §8.1.1 damps a session that keeps failing.
	calm = 5 * time.Second
	// probePoll is how often a session that has to prove itself is looked at.
	probePoll = 100 * time.Millisecond
	// giveRetry is when a session is offered to GoBGP again if nothing was heard from it; longer than it stays idle.
	giveRetry = 8 * time.Second
)

func newPeer(cfg Neighbor, id netip.Addr, local localSpeaker, stack hoststack.Stack, log *logrus.Entry) *peer {
	p := &peer{
		id: id, local: local, stack: stack,
		log:  log.WithFields(logrus.Fields{"neighbor": cfg.Name, "address": cfg.Address.String(), "as": cfg.AS}),
		wake: make(chan struct{}, 1),
	}
	p.cfg.Store(&cfg)
	p.status.init(cfg)
	p.closing = cfg.Disabled
	return p
}

func (p *peer) config() *Neighbor { return p.cfg.Load() }

// internal reports whether the neighbour is in our AS.
func (p *peer) internal() bool { return p.config().AS == p.local.as }

// post has f run by the peer's goroutine. It never blocks; it reports false after the goroutine's end.
func (p *peer) post(f func()) bool {
	p.mailMu.Lock()
	defer p.mailMu.Unlock()
	if p.ended {
		return false
	}
	p.mail = append(p.mail, f)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// run is the peer's goroutine. At its end every connection is closed.
func (p *peer) run(ctx context.Context, gobgp gobgpSide) {
	p.ctx, p.gobgp = ctx, gobgp
	p.dialAt = time.Now().Add(firstDial/2 + rand.N(firstDial/2))
	p.watched.pause = p.dialAt // WireGuard's handshake begins with the first packet; where the peer starts, too, it may be early
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			p.end()
			return
		case <-p.wake:
			p.readMail()
		case <-timer.C:
		}
		timer.Reset(p.step(time.Now()))
	}
}

func (p *peer) readMail() {
	p.mailMu.Lock()
	mail := p.mail
	p.mail = nil
	p.mailMu.Unlock()
	for _, f := range mail {
		f()
	}
}

func (p *peer) end() {
	p.mailMu.Lock()
	p.ended = true
	p.mailMu.Unlock()
	p.closing = true
	p.readMail() // connections may wait in it
	p.stopDial()
	p.followBFD(time.Now())
	for _, w := range []*wire{p.out, p.in} {
		if w != nil {
			w.close()
		}
	}
	if p.sess != nil {
		p.sess.hangUp()
	}
	p.work.Wait()
	for _, c := range p.down {
		close(c)
	}
}

// shutdown ends the session with a Cease, refuses what comes, and returns a channel that is closed when GoBGP has let go of
// the session. The peer stays so until resume.
func (p *peer) shutdown(subcode uint8, data []byte, why string) <-chan struct{} {
	return p.close(subcode, data, func(s *session) { s.cease(&p.work, subcode, data, why) })
}

// close is shutdown with another end of the session than a Cease.
func (p *peer) close(subcode uint8, data []byte, end func(*session)) <-chan struct{} {
	done := make(chan struct{})
	ok := p.post(func() {
		p.closing = true
		p.down = append(p.down, done)
		p.stopDial()
		for _, w := range []*wire{p.out, p.in} {
			if w != nil {
				p.forget(w)
				w.refuse(&p.work, bgp.BGP_ERROR_CEASE, subcode, data)
			}
		}
		if p.sess != nil {
			end(p.sess)
		}
	})
	if !ok {
		close(done)
	}
	return done
}

// resume undoes shutdown.
func (p *peer) resume() {
	p.post(func() { p.closing = false })
	p.retry()
}

// retry makes a peer that waits try again at once.
func (p *peer) retry() {
	p.post(func() { p.dialAt, p.giveAt, p.restUntil = time.Time{}, time.Time{}, time.Time{} })
}

// reset ends the session that there is; the next one begins when GoBGP has sat out its idle time.
func (p *peer) reset(communication []byte) {
	p.post(func() {
		if p.sess == nil || p.closing {
			return
		}
		p.sess.cease(&p.work, ceaseReset, communication, "Cease: Administrative Reset (sent)")
	})
	p.retry()
}

// step brings the connections nearer to one established session and returns when to look again.
func (p *peer) step(now time.Time) time.Duration {
	p.dropFailed()
	if p.sess != nil && p.sessWire == nil {
		p.decide(now)
	}
	p.resolveLate(now)
	p.watchConfirm(now)
	p.watchStale(now)
	p.heal(now)
	p.offer(now)
	p.dial(now)
	p.updateState()
	p.followBFD(now)
	p.reportDown()
	return p.nextStep(now)
}

// reportDown tells those who wait for the end of a shutdown.
func (p *peer) reportDown() {
	if p.closing && p.sess == nil && p.status.fsmState() < bgp.BGP_FSM_OPENSENT {
		for _, c := range p.down {
			close(c)
		}
		p.down = nil
	}
}

func (p *peer) nextStep(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if p.wantsDial() {
		sooner(p.dialAt)
	}
	if p.sess == nil && (p.out != nil || p.in != nil) {
		sooner(later(p.giveAt, p.calmUntil))
	}
	sooner(p.confirmBy)
	if next := p.bfdNext(); next.After(now) {
		sooner(next)
	}
	sooner(p.staleBy)
	if p.resting(now) {
		sooner(p.restUntil)
	}
	if p.wantsHeal {
		sooner(later(p.healAt, now.Add(probePoll)))
	}
	if p.probed != nil {
		sooner(now.Add(probePoll))
	}
	if p.out != nil && p.in != nil {
		for _, w := range []*wire{p.out, p.in} {
			if !w.openedAt.IsZero() {
				sooner(w.openedAt.Add(collisionGrace))
			}
		}
	}
	return max(next.Sub(now), time.Millisecond)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// --- connections come

// accepted takes a connection that the listener has attributed to this neighbour.
func (p *peer) accepted(w *wire) {
	if p.closing || p.ctx.Err() != nil || p.resting(time.Now()) {
		w.refuse(&p.work, bgp.BGP_ERROR_CEASE, ceaseRejected, nil) // RFC 4486 §4
		return
	}
	if p.in != nil { // the peer gave up its earlier one, or should have
		p.discard(p.in, "replaced by a newer connection")
	}
	p.log.Debug("connection accepted")
	p.adopt(w)
}

func (p *peer) adopt(w *wire) {
	if w.dialed {
		p.out = w
	} else {
		p.in = w
	}
	if p.sess != nil && p.sessWire == nil {
		p.sess.addWire(w)
	}
	p.work.Go(func() {
		w.read(func(first []byte, err error) {
			p.post(func() { p.gotFirst(w, first, err) })
		}, func(text string) {
			if e := w.extra; len(e) > headerLen && e[18] == bgp.BGP_MSG_NOTIFICATION {
				text = p.sessionNotice(false, e[headerLen:])
			}
			p.post(func() {
				if w.failed == "" {
					w.failed = text
				}
			})
		})
	})
}

func (p *peer) gotFirst(w *wire, first []byte, err error) {
	if w != p.out && w != p.in {
		return
	}
	w.openedAt, w.first = time.Now(), first
	switch {
	case err != nil:
		if w.failed = connErrorText(err); w.failed == textTimeout {
			w.failed = "no OPEN from the peer within " + openWait.String()
		}
	case first[18] == bgp.BGP_MSG_NOTIFICATION:
		// The peer does not want this connection. GoBGP would sit in Idle for it.
		w.failed = p.sessionNotice(false, first[headerLen:])
	default:
		w.open = parseOpen(first) // nil: GoBGP answers what is wrong with it
	}
}

// dropFailed removes candidates that ended. A session without any stays with GoBGP: the next connection gets its OPEN.
func (p *peer) dropFailed() {
	for _, w := range []*wire{p.out, p.in} {
		if w != nil && w.failed != "" {
			p.status.connectFailed(w.failed)
			p.discard(w, w.failed)
		}
	}
}

// discard closes a candidate without a word: for one that is dead, or that the peer itself gave up.
func (p *peer) discard(w *wire, why string) {
	p.log.WithField("reason", why).Debug("connection dropped")
	p.forget(w)
	w.close()
}

// refuse closes a candidate that lost a collision (RFC 4271 §6.8).
func (p *peer) refuse(w *wire) {
	p.log.WithField("dialed", w.dialed).Debug("connection lost a collision")
	p.forget(w)
	w.refuse(&p.work, bgp.BGP_ERROR_CEASE, ceaseCollision, nil)
}

func (p *peer) forget(w *wire) {
	if p.out == w {
		p.out = nil
	}
	if p.in == w {
		p.in = nil
	}
	if p.sess != nil {
		p.sess.dropWire(w)
	}
}

// --- GoBGP

// offer gives GoBGP a session when there is a connection and GoBGP wants one.
func (p *peer) offer(now time.Time) {
	w := p.out
	if w == nil {
		w = p.in
	}
	if p.sess != nil || w == nil || p.closing || now.Before(p.calmUntil) || p.resting(now) {
		return
	}
	if p.status.fsmState() != bgp.BGP_FSM_ACTIVE && now.Before(p.giveAt) {
		return
	}
	p.giveAt = now.Add(giveRetry)
	p.sess = newSession(p.id, w, p, p.claims, p.config().Role)
	p.sess.arrived = p.arrived
	if p.out != nil && p.in != nil {
		p.sess.addWire(p.in)
	}
	p.sessTaken, p.sessWire, p.probed = false, nil, nil
	p.gobgp.give(p.sess)
}

// sessionTaken implements watcher.
func (p *peer) sessionTaken(s *session) {
	p.post(func() {
		if s == p.sess {
			p.sessTaken = true
		}
	})
}

// sessionConfirmed implements watcher.
func (p *peer) sessionConfirmed(s *session) {
	p.post(func() {
		if s == p.sess && p.sessWire != nil {
			p.gobgp.tell(p, s, p.sessWire)
		}
	})
}

// sessionRefresh implements watcher.
func (p *peer) sessionRefresh(s *session) {
	p.post(func() {
		if s == p.sess {
			p.tellAgain()
		}
	})
}

// tellAgain tells the neighbour everything once more.
func (p *peer) tellAgain() {
	if t := p.telling.Load(); t != nil {
		t.again()
	}
}

// sessionLost implements watcher. It declines for a session that keeps failing: GoBGP's idle time damps it (RFC 4271 §8.1.1).
// Where it must not decline, the peer itself waits.
func (p *peer) sessionLost(must bool) bool {
	if !p.status.mayHurry(time.Now()) {
		if !must {
			return false
		}
		p.post(func() { p.calmUntil = time.Now().Add(calm) })
	}
	return p.gobgp.resetLost(p) == nil
}

// sessionRests implements watcher.
func (p *peer) sessionRests(d time.Duration) {
	p.post(func() { p.restUntil, p.rested = time.Now().Add(d), p.limits() })
}

// sessionKept implements watcher.
func (p *peer) sessionKept() {
	if p.status.mayHurry(time.Now()) {
		p.gobgp.hurryLost(p)
	}
}

// sessionNotice implements watcher.
func (p *peer) sessionNotice(sent bool, body []byte) string {
	text := noticeText(body, p.config().AS, p.status.peerAS())
	if sent {
		return text + " (sent)"
	}
	return text + " (received)"
}

// sessionEnded implements watcher.
func (p *peer) sessionEnded(s *session, taken bool, cause string) {
	p.post(func() { p.sessionOver(s, taken, cause) })
}

func (p *peer) sessionOver(s *session, taken bool, cause string) {
	if s != p.sess {
		return
	}
	chosen := p.sessWire != nil
	p.sess, p.sessWire, p.sessTaken, p.confirmBy, p.probed = nil, nil, false, time.Time{}, nil
	now := time.Now()
	p.giveAt = now.Add(giveRetry) // or GoBGP's next state
	if !taken {
		return // GoBGP was not ready; the connections wait
	}
	if chosen && cause == "" {
		cause = "ended after an unexpected message from the peer"
	}
	p.staleBy, p.wantsHeal = time.Time{}, false
	if s.confirmed.Load() {
		p.status.flapped()
		p.status.hold(s.keeps(), now)
	}
	if cause != "" && cause != causeQuiet {
		p.status.sessionFailed(cause)
		if s.confirmed.Load() {
			p.log.WithFields(logrus.Fields{"error": cause, "stale": len(s.keeps().kept) > 0}).Info("BGP session ended")
		} else {
			p.log.WithField("error", cause).Debug("BGP session not established")
		}
	}
	for _, w := range []*wire{p.out, p.in} {
		if w != nil && w.sentOpen { // it has had one OPEN from us; a second would be an error
			p.discard(w, "the session ended")
		}
	}
	if !s.confirmed.Load() {
		p.status.attemptFailed(now)
		return // the next attempt is due when it is due: what went wrong may go wrong again
	}
	p.dialAt = now.Add(firstDial + rand.N(firstDial))
}

// fsmChanged notes what GoBGP says of its state, and of the peer's capabilities.
func (p *peer) fsmChanged(state bgp.FSMState, caps []bgp.ParameterCapabilityInterface) {
	p.status.setFSM(state, p.config().Families, caps)
	p.post(func() {
		if state == bgp.BGP_FSM_ACTIVE {
			p.giveAt = time.Time{}
		}
	})
}

// updateState works out what RFC 4271 §8.2.2 calls the state. GoBGP cannot say: to it every neighbour is passive, and a session
// is open before there is a choice of connections.
func (p *peer) updateState() {
	fsm, state := p.status.fsmState(), Active
	switch {
	case p.closing, p.resting(time.Now()):
		state = Idle
	case p.sessWire != nil && p.sess.confirmed.Load() && fsm == bgp.BGP_FSM_ESTABLISHED:
		state = Established
	case p.sessWire != nil:
		state = OpenConfirm
	case p.sessTaken && (p.out != nil || p.in != nil):
		state = OpenSent
	case p.dialing != nil:
		state = Connect
	case fsm == bgp.BGP_FSM_IDLE:
		state = Idle
	}
	if old := p.status.setState(state); state != old && state == Established {
		p.log.Info("BGP session established")
		p.life.Store(p.local.life())
		if now := time.Now(); len(p.status.heldFamilies(now)) > 0 {
			p.staleBy = now.Add(p.config().Graceful.StaleTime)
		}
	}
}
