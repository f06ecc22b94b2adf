package bgp

import (
	"context"
	"math/rand/v2"
	"net"
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
	cfg   atomic.Pointer[Neighbor] // replaced by a reload that needs no new session
	id    netip.Addr
	local localSpeaker
	stack hoststack.Stack
	log   *logrus.Entry

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
	confirmBy time.Time // when a chosen session must have its KEEPALIVE
	probed    *wire     // for whose sake the established session was probed
	proveFrom time.Time // from when on a message on it proves that it lives; zero: seen says how many there were then
	seen      uint64
	giveAt    time.Time
	dialAt    time.Time
	dialing   context.CancelFunc // non-nil while a dial is in progress
	dialID    int
	restartIt bool            // once GoBGP is idle
	restarted time.Time       // the last time
	closing   bool            // disabled or to be removed: nothing new
	down      []chan struct{} // closed once closing is done
	work      sync.WaitGroup

	status peerStatus
}

// gobgpSide is what a peer needs of GoBGP.
type gobgpSide interface {
	give(*session)
	// restart makes GoBGP forget the neighbour's state machine and begin with a fresh one, which does not sit in Idle. It does
	// not wait for that.
	restart(*peer)
}

// localSpeaker is what a peer must know of us.
type localSpeaker struct {
	as uint32
	id netip.Addr
}

const (
	firstDial = 300 * time.Millisecond // after start or loss, plus as much jitter
	// collisionGrace is how long a connection that would lose a collision waits for the OPEN on the one that would win.
	collisionGrace = 2 * time.Second
	// proofDelay is how long after the probe messages may still be old ones, on their way when the peer lost the session.
	proofDelay = time.Second
	// restartEvery is how often a lost session is spared GoBGP's idle time.
	restartEvery = 10 * time.Second
	// probePoll is how often a session that has to prove itself is looked at.
	probePoll = 100 * time.Millisecond
	// giveRetry is when a session is offered to GoBGP again if nothing was heard from it.
	giveRetry = 5 * time.Second
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
	done := make(chan struct{})
	ok := p.post(func() {
		p.closing = true
		p.down = append(p.down, done)
		p.stopDial()
		for _, w := range []*wire{p.out, p.in} {
			if w != nil {
				p.forget(w)
				w.refuse(bgp.BGP_ERROR_CEASE, subcode, data)
			}
		}
		if p.sess != nil {
			p.sess.cease(subcode, data, why)
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
	p.post(func() { p.dialAt, p.giveAt = time.Time{}, time.Time{} })
}

// step brings the connections nearer to one established session and returns when to look again.
func (p *peer) step(now time.Time) time.Duration {
	p.dropFailed()
	if p.sess != nil && p.sessWire == nil {
		p.decide(now)
	}
	p.resolveLate(now)
	p.watchConfirm(now)
	p.restart(now)
	p.offer(now)
	p.dial(now)
	p.updateState()
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
		sooner(p.giveAt)
	}
	sooner(p.confirmBy)
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

// --- connections come

// accepted takes a connection that the listener has attributed to this neighbour.
func (p *peer) accepted(w *wire) {
	if p.closing || p.ctx.Err() != nil {
		w.refuse(bgp.BGP_ERROR_CEASE, ceaseRejected, nil) // RFC 4486 §4
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
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		w.readFirst(func(first []byte, err error) {
			p.post(func() { p.gotFirst(w, first, err) })
		})
	}()
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
	w.refuse(bgp.BGP_ERROR_CEASE, ceaseCollision, nil)
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

// --- collisions

// decide chooses the wire that GoBGP reads from, once it is known which (RFC 4271 §6.8).
func (p *peer) decide(now time.Time) {
	if !p.sessTaken {
		return // GoBGP may still refuse: then nothing was decided
	}
	opened := func(w *wire) bool { return w != nil && !w.openedAt.IsZero() }
	if p.out == nil || p.in == nil {
		for _, w := range []*wire{p.out, p.in} {
			if opened(w) {
				p.choose(w, now)
			}
		}
		return
	}
	for _, w := range []*wire{p.out, p.in} {
		if opened(w) && w.open == nil {
			p.discard(w, "not an OPEN, and there is another connection")
			return
		}
	}
	winner, loser := p.out, p.in
	switch {
	case opened(p.out):
		winner, loser = p.rank(p.out.open)
	case opened(p.in):
		winner, loser = p.rank(p.in.open)
	default:
		return
	}
	switch {
	case opened(winner):
		p.refuse(loser)
		p.choose(winner, now)
	case now.Sub(loser.openedAt) >= collisionGrace:
		// The winner by the rule has not said a word. A live peer sends its OPEN at once, so it is as good as dead.
		p.refuse(winner)
		p.choose(loser, now)
	}
}

// rank orders out and in by the rule: the connection made by the speaker with the higher identifier wins.
func (p *peer) rank(peer *openInfo) (winner, loser *wire) {
	if dominates(p.local.id, p.local.as, *peer) {
		return p.out, p.in
	}
	return p.in, p.out
}

func (p *peer) choose(w *wire, now time.Time) {
	p.stopDial()
	p.sessWire = w
	p.confirmBy = now.Add(openWait)
	p.status.opened(w, p.sess)
	p.sess.choose(w)
	p.out, p.in = nil, nil
}

// resolveLate deals with a connection that the peer makes while there is a chosen one.
func (p *peer) resolveLate(now time.Time) {
	if p.sess == nil || p.sessWire == nil || p.in == nil || p.closing {
		return
	}
	if !p.sess.confirmed.Load() {
		p.resolveOpenConfirm()
		return
	}
	// RFC 4271 §6.8 closes the new connection. But a peer that lost its session without a word connects anew and would be
	// turned away until our hold timer ends. So the old session must prove itself: its peer answers a KEEPALIVE with a reset
	// if it has forgotten the connection, and with messages of its own if not.
	switch {
	case p.probed != p.in:
		p.probed, p.proveFrom = p.in, now.Add(proofDelay)
		s := p.sess
		p.work.Go(s.probe) // in a goroutine: a full send buffer may hold it up
	case !p.proveFrom.IsZero():
		if !now.Before(p.proveFrom) {
			p.proveFrom, p.seen = time.Time{}, p.sess.messages.Load()
		}
	case p.sess.messages.Load() != p.seen:
		p.refuse(p.in)
		p.probed = nil
	}
}

func (p *peer) resolveOpenConfirm() {
	old := p.sessWire
	switch {
	case old.dialed && dominates(p.local.id, p.local.as, *old.openOrZero()):
		p.refuse(p.in)
	case p.in.open != nil:
		// The peer's identifier is the higher one, or the older connection was the peer's too: the new one stays.
		in := p.in
		if !p.sess.swap(in) {
			p.sess.cease(ceaseCollision, nil, causeQuiet) // the new one waits until GoBGP wants a session again
			return
		}
		p.in, p.sessWire = nil, in
		p.log.WithField("dialed", old.dialed).Debug("connection lost a collision")
		old.refuse(bgp.BGP_ERROR_CEASE, ceaseCollision, nil)
		p.status.opened(in, p.sess)
	}
}

func (w *wire) openOrZero() *openInfo {
	if w.open == nil {
		return &openInfo{}
	}
	return w.open
}

// watchConfirm ends a session whose peer does not answer our OPEN with a KEEPALIVE: GoBGP would wait for ever.
func (p *peer) watchConfirm(now time.Time) {
	if p.confirmBy.IsZero() || p.sess == nil {
		return
	}
	if p.sess.confirmed.Load() {
		p.confirmBy = time.Time{}
		return
	}
	if now.After(p.confirmBy) {
		p.confirmBy = time.Time{}
		p.sess.setCause("no KEEPALIVE from the peer within " + openWait.String())
		p.sess.hangUp()
	}
}

// --- GoBGP

// offer gives GoBGP a session when there is a connection and GoBGP wants one.
func (p *peer) offer(now time.Time) {
	w := p.out
	if w == nil {
		w = p.in
	}
	if p.sess != nil || w == nil || p.closing {
		return
	}
	if p.status.fsmState() != bgp.BGP_FSM_ACTIVE && now.Before(p.giveAt) {
		return
	}
	p.giveAt = now.Add(giveRetry)
	p.sess = newSession(p.id, w, p)
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
func (p *peer) sessionConfirmed(*session) { p.post(func() {}) }

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
	if cause != "" && cause != causeQuiet {
		p.status.sessionFailed(cause)
		if s.confirmed.Load() {
			p.log.WithField("error", cause).Info("BGP session ended")
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
		return // the next attempt is due when it is due: what went wrong may go wrong again
	}
	p.dialAt = now.Add(firstDial + rand.N(firstDial))
	p.restartIt = true
}

// restart spares a neighbour whose session was lost the 5 seconds that GoBGP stays idle after any error. Once in a while
// only: a session that keeps failing is damped by them (RFC 4271 §8.1.1, IdleHoldTime).
func (p *peer) restart(now time.Time) {
	if !p.restartIt || p.sess != nil || p.status.fsmState() != bgp.BGP_FSM_IDLE {
		return
	}
	p.restartIt = false
	if p.closing || now.Sub(p.restarted) < restartEvery {
		return
	}
	p.restarted = now
	p.gobgp.restart(p)
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

// --- dialing

func (p *peer) wantsDial() bool {
	return !p.config().Passive && !p.closing && p.sessWire == nil && p.in == nil && p.out == nil
}

// dial starts an attempt when it is time. An attempt lasts until the next one begins, which cancels it: a SYN that a silent
// tunnel has eaten is repeated by TCP ever more slowly, and a new attempt sends a fresh one.
func (p *peer) dial(now time.Time) {
	if !p.wantsDial() || now.Before(p.dialAt) {
		return
	}
	if p.dialing != nil {
		p.stopDial()
		p.status.connectFailed(textTimeout)
	}
	// RFC 4271 §10: the interval times a random value between 0.75 and 1.0.
	interval := time.Duration(float64(p.config().ConnectRetry) * (0.75 + rand.Float64()/4))
	p.dialAt = now.Add(interval)
	ctx, cancel := context.WithTimeout(p.ctx, interval)
	p.dialing = cancel
	p.dialID++
	id := p.dialID
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		conn, err := p.stack.Dial(ctx, hoststack.Endpoints{
			Table:     p.config().Table,
			Interface: p.config().Address.Zone(),
			Local:     localPort(p.config().LocalAddress),
			Remote:    netip.AddrPortFrom(p.config().Address, bgp.BGP_PORT),
		})
		if !p.post(func() { p.dialed(id, conn, err) }) && err == nil {
			_ = conn.Close()
		}
	}()
}

func localPort(a netip.Addr) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, 0)
}

func (p *peer) dialed(id int, conn net.Conn, err error) {
	current := id == p.dialID && p.dialing != nil
	if current {
		p.stopDial()
	}
	switch {
	case err != nil && current:
		p.status.connectFailed(dialErrorText(err))
	case err != nil:
	case !current || p.closing || p.ctx.Err() != nil || p.sessWire != nil || p.out != nil:
		_ = conn.Close()
	default:
		p.log.Debug("connected")
		p.adopt(newWire(conn, true))
	}
}

// updateState works out what RFC 4271 §8.2.2 calls the state. GoBGP cannot say: to it every neighbour is passive, and a session
// is open before there is a choice of connections.
func (p *peer) updateState() {
	fsm, state := p.status.fsmState(), Active
	switch {
	case p.closing:
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
	}
}

func (p *peer) stopDial() {
	if p.dialing != nil {
		p.dialing()
		p.dialing = nil
	}
}
