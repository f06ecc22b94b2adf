package plane

// BFD (RFC 5880) over one hop (RFC 5881): asynchronous mode, without echo, demand or authentication. A session's parameters and
// answers to requests are VPP's (src/vnet/bfd).

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.fd.io/govpp/api"
)

// BFDKey names a session.
type BFDKey struct {
	Interface   uint32
	Local, Peer netip.Addr // without zones
}

// BFDTimers are what this side of a session wants. The unit on the wire is a microsecond.
type BFDTimers struct {
	MinTx, MinRx time.Duration
	Multiplier   uint8
}

// BFDState is a session's (RFC 5880 §4.1), with the API's and the wire's values.
type BFDState uint8

// States.
const (
	BFDAdminDown BFDState = iota
	BFDDown
	BFDInit
	BFDUp
)

// BFDSession is a session as it is.
type BFDSession struct {
	BFDKey
	BFDTimers
	State BFDState
}

const (
	bfdPort    = 3784 // RFC 5881 §4
	bfdLen     = 24
	bfdVersion = 1
	bfdSlow    = time.Second // RFC 5880 §6.8.3: the least interval of a session that is not up
	bfdTOS     = 0xc0        // network control

	bfdPoll, bfdFinal, bfdAuth, bfdDemand, bfdMultipoint = 0x20, 0x10, 4, 2, 1

	bfdNoDiagnostic, bfdTimeExpired, bfdNeighborDown, bfdAdministrative = 0, 1, 3, 7
)

// bfds are the sessions. The lock is a leaf: what is sent is made under it and leaves after it.
type bfds struct {
	mu   sync.Mutex
	all  []*bfdSession
	news bool          // for settleBFD
	wake chan struct{} // holds one when something may be due
}

// bfdSession has RFC 5880 §6.8.1's variables.
type bfdSession struct {
	BFDSession
	iface         *iface
	port          uint16 // source, RFC 5881 §4
	local, remote uint32 // discriminators
	diagnostic    uint8
	poll          bool // a poll sequence is under way

	remoteState        BFDState
	remoteTx, remoteRx time.Duration
	remoteMultiplier   uint8

	next   int64 // to send, the plane's clock
	expire int64 // when the peer has been silent for too long; 0: it was not heard
}

func (s *bfdSession) desired() time.Duration {
	if s.State == BFDUp {
		return s.MinTx
	}
	return max(s.MinTx, bfdSlow)
}

// schedule is RFC 5880 §6.8.7: an interval less a random part.
func (s *bfdSession) schedule(now int64) {
	wait := max(s.desired(), s.remoteRx)
	least := wait / 10 // of jitter, with a multiplier of 1
	if s.Multiplier > 1 {
		least = 0
	}
	s.next = now + int64(wait-least-rand.N(wait/4-least+1))
}

func (s *bfdSession) detection() time.Duration {
	return time.Duration(s.remoteMultiplier) * max(s.MinRx, s.remoteTx)
}

// bfdTarget is whom routes forward to.
type bfdTarget struct {
	iface *iface
	peer  netip.Addr
}

// deadLocked reports whether a session says that a neighbour does not answer: then no route's path to it is used, as in VPP
// (src/vnet/adj/adj_bfd.c), from when the session is made. The caller holds Plane.mu.
func (p *Plane) deadLocked(i *iface, peer netip.Addr) bool {
	return len(p.dead) > 0 && p.dead[bfdTarget{i, peer}]
}

// settleBFD takes over what sessions say of their neighbours, for all routes at once. The caller holds none of the locks.
func (p *Plane) settleBFD() {
	p.bfd.mu.Lock()
	if !p.bfd.news {
		p.bfd.mu.Unlock()
		return
	}
	p.bfd.news = false
	dead := map[bfdTarget]bool{}
	for _, s := range p.bfd.all {
		if s.State != BFDUp {
			dead[bfdTarget{s.iface, s.Peer}] = true
		}
	}
	p.bfd.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(dead, p.dead) {
		p.dead = dead
		p.ifaceGen++
	}
}

// silent: RFC 5880 §6.8.7, the peer wants nothing; or nobody is to hear of us.
func (s *bfdSession) silent() bool { return s.State == BFDAdminDown || s.remoteRx == 0 }

func (b *bfds) init() { b.wake = make(chan struct{}, 1) }

func (b *bfds) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *bfds) find(k BFDKey) *bfdSession {
	for _, s := range b.all {
		if s.BFDKey == k {
			return s
		}
	}
	return nil
}

// withBFD calls f with the session of that name, nil if there is none. Errors: INVALID_SW_IF_INDEX, INVALID_ARGUMENT, f's.
func (p *Plane) withBFD(k BFDKey, f func(*iface, *bfdSession) error) error {
	defer p.bfd.kick()
	return p.change(k.Interface, func(i *iface) error {
		if k.Local.Is4() != k.Peer.Is4() {
			return api.INVALID_ARGUMENT
		}
		p.bfd.mu.Lock()
		defer p.bfd.mu.Unlock()
		return f(i, p.bfd.find(k))
	})
}

func (t BFDTimers) check() error {
	if t.Multiplier < 1 || t.MinTx < time.Microsecond {
		return api.INVALID_ARGUMENT
	}
	return nil
}

// AddBFD makes a session, which begins at once. Errors: INVALID_SW_IF_INDEX, INVALID_ARGUMENT, BFD_EEXIST.
func (p *Plane) AddBFD(k BFDKey, t BFDTimers) error {
	return p.withBFD(k, func(i *iface, s *bfdSession) error {
		if err := t.check(); err != nil {
			return err
		}
		if s != nil {
			return api.BFD_EEXIST
		}
		s = &bfdSession{
			BFDSession: BFDSession{k, t, BFDDown}, iface: i, port: uint16(49152 + rand.N(16384)),
			remoteState: BFDDown, remoteRx: time.Microsecond,
		}
		for s.local == 0 || slices.ContainsFunc(p.bfd.all, func(o *bfdSession) bool { return o.local == s.local }) {
			s.local = rand.Uint32()
		}
		p.bfd.all = append(p.bfd.all, s)
		p.bfd.news = true
		return nil
	})
}

// ModBFD changes a session's timers. Errors: INVALID_SW_IF_INDEX, INVALID_ARGUMENT, BFD_ENOENT.
func (p *Plane) ModBFD(k BFDKey, t BFDTimers) error {
	return p.withBFD(k, func(_ *iface, s *bfdSession) error {
		if err := t.check(); err != nil {
			return err
		}
		if s == nil {
			return api.BFD_ENOENT
		}
		if s.BFDTimers != t {
			s.BFDTimers, s.poll, s.next = t, s.State == BFDUp, p.now()
		}
		return nil
	})
}

// DelBFD removes a session without a word to the peer. Errors: INVALID_SW_IF_INDEX, INVALID_ARGUMENT, BFD_ENOENT.
func (p *Plane) DelBFD(k BFDKey) error {
	return p.withBFD(k, func(_ *iface, s *bfdSession) error {
		if s == nil {
			return api.BFD_ENOENT
		}
		p.bfd.all = slices.DeleteFunc(p.bfd.all, func(o *bfdSession) bool { return o == s })
		p.bfd.news = true
		return nil
	})
}

// SetBFD takes a session down by order, which the peer is told, or lets it come up again. Errors: as of DelBFD.
func (p *Plane) SetBFD(k BFDKey, up bool) error {
	var say *bfdSession
	err := p.withBFD(k, func(_ *iface, s *bfdSession) error {
		switch {
		case s == nil:
			return api.BFD_ENOENT
		case up && s.State == BFDAdminDown:
			p.bfdChanged(s, BFDDown, bfdNoDiagnostic)
		case !up && s.State != BFDAdminDown:
			p.bfdChanged(s, BFDAdminDown, bfdAdministrative)
			say = s
		}
		return nil
	})
	if say != nil {
		w := p.begin()
		p.bfd.mu.Lock()
		k := w.bfdPacket(say, 0)
		p.bfd.mu.Unlock()
		w.bfdSend(say, k)
		w.finish()
	}
	return err
}

// BFDSessions returns the sessions, ordered by interface and addresses.
func (p *Plane) BFDSessions() []BFDSession {
	p.bfd.mu.Lock()
	defer p.bfd.mu.Unlock()
	var list []BFDSession
	for _, s := range p.bfd.all {
		list = append(list, s.BFDSession)
	}
	slices.SortFunc(list, func(a, b BFDSession) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Local.Compare(b.Local), a.Peer.Compare(b.Peer))
	})
	return list
}

// forget removes the sessions of an interface that is gone.
func (b *bfds) forget(i *iface) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = slices.DeleteFunc(b.all, func(s *bfdSession) bool { return s.iface == i })
	b.news = true
	b.kick()
}

// bfdChanged is called with the lock of the sessions.
func (p *Plane) bfdChanged(s *bfdSession, state BFDState, diagnostic uint8) {
	s.State, s.diagnostic = state, diagnostic
	s.poll = state == BFDUp // RFC 5880 §6.8.3: the interval changes
	s.next = p.now()
	p.bfd.news = true
	session := s.BFDSession
	p.events.emit(Event{Kind: EventBFD, Interface: s.Interface, BFD: &session})
}

// runBFD sends what is due, and notices who is silent.
func (p *Plane) runBFD(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.bfd.wake:
		case <-timer.C:
		}
		wait := p.bfdDue()
		p.settleBFD()
		timer.Reset(wait)
	}
}

// bfdDue returns how long until something is due.
func (p *Plane) bfdDue() time.Duration {
	type outgoing struct {
		s *bfdSession
		k packet
	}
	w := p.begin()
	defer w.finish()
	wait := time.Hour
	var out []outgoing
	p.bfd.mu.Lock()
	for _, s := range p.bfd.all {
		if s.expire != 0 && w.now >= s.expire {
			s.expire, s.remote, s.remoteState, s.remoteRx = 0, 0, BFDDown, time.Microsecond // RFC 5880 §6.8.1
			if s.State == BFDUp || s.State == BFDInit {
				p.bfdChanged(s, BFDDown, bfdTimeExpired)
			}
		}
		if !s.silent() {
			if w.now >= s.next {
				flags := byte(0)
				if s.poll {
					flags = bfdPoll
				}
				out = append(out, outgoing{s, w.bfdPacket(s, flags)})
				s.schedule(w.now)
			}
			wait = min(wait, time.Duration(s.next-w.now))
		}
		if s.expire != 0 {
			wait = min(wait, time.Duration(s.expire-w.now))
		}
	}
	p.bfd.mu.Unlock()
	for _, o := range out {
		w.bfdSend(o.s, o.k)
	}
	return max(wait, 0)
}

// bfdPacket makes one (RFC 5880 §4.1) in UDP in IP. It is called with the lock of the sessions.
func (w *worker) bfdPacket(s *bfdSession, flags byte) packet {
	header := header4Len
	if s.Local.Is6() {
		header = header6Len
	}
	k := w.newPacket(header + udpLen + bfdLen)
	b := k.ip()
	u := b[header:]
	c := u[udpLen:]
	c[0], c[1], c[2], c[3] = bfdVersion<<5|s.diagnostic, byte(s.State)<<6|flags, s.Multiplier, bfdLen
	put32(c[4:], s.local)
	put32(c[8:], s.remote)
	put32(c[12:], uint32(s.desired().Microseconds()))
	put32(c[16:], uint32(s.MinRx.Microseconds()))
	put32(c[20:], 0)
	put16(u, s.port)
	put16(u[2:], bfdPort)
	put16(u[4:], udpLen+bfdLen)
	put16(u[6:], 0)
	if s.Local.Is4() {
		w.header4(b, s.Local, s.Peer, protoUDP, bfdTOS)
		put16(b[10:], 0)
		put16(b[10:], checksum(b[:header]))
		put16(u[6:], fold(sum(u, pseudo(b[12:16], b[16:20], protoUDP, len(u)))))
	} else {
		header6(b, s.Local, s.Peer, protoUDP, ownTTL)
		b[0], b[1] = b[0]|bfdTOS>>4, bfdTOS<<4&0xff
		put16(u[6:], fold(sum(u, pseudo(b[8:24], b[24:40], protoUDP, len(u)))))
	}
	return k
}

// bfdSend is called without the lock of the sessions.
func (w *worker) bfdSend(s *bfdSession, k packet) {
	if s.iface.deleted {
		return
	}
	w.from = s.iface.t4
	if s.Local.Is6() {
		w.from = s.iface.t6
	}
	w.toNeighbor(s.iface, s.Peer, k, nil)
}

// inputBFD takes a datagram for the port of BFD; b is a packet for one of our addresses, whose UDP header is at at. It reports
// false where BFD is not in use: then the datagram is like any other.
func (w *worker) inputBFD(i *iface, b []byte, at int) bool {
	if i == nil || get16(b[at+2:]) != bfdPort {
		return false
	}
	p := w.p
	p.bfd.mu.Lock()
	used := len(p.bfd.all) > 0
	s, ok := p.bfdReceived(i, b, at, w.now)
	var answer packet
	final := s != nil && ok && b[at+udpLen+1]&bfdPoll != 0
	if final {
		answer = w.bfdPacket(s, bfdFinal)
	}
	p.bfd.mu.Unlock()
	if used && !ok {
		w.drop(i, errBFD)
	}
	if final {
		w.bfdSend(s, answer)
	}
	return used
}

// bfdReceived is RFC 5880 §6.8.6 and RFC 5881 §5. It returns the session, and whether the packet is right.
func (p *Plane) bfdReceived(i *iface, b []byte, at int, now int64) (*bfdSession, bool) {
	c := b[at+udpLen:]
	key, ttl, sum16 := BFDKey{Interface: i.index}, byte(0), uint16(0)
	if b[0]>>4 == 4 {
		key.Local, key.Peer, ttl = addr4(b[16:20]), addr4(b[12:16]), b[8]
		if get16(b[at+6:]) != 0 {
			sum16 = fold(sum(b[at:], pseudo(b[12:16], b[16:20], protoUDP, len(b)-at)))
		}
	} else {
		key.Local, key.Peer, ttl = addr6(b[24:40]), addr6(b[8:24]), b[7]
		sum16 = fold(sum(b[at:], pseudo(b[8:24], b[24:40], protoUDP, len(b)-at)))
	}
	if ttl != 255 || sum16 != 0 || len(c) < bfdLen || c[0]>>5 != bfdVersion || int(c[3]) < bfdLen || int(c[3]) > len(c) || c[2] == 0 ||
		c[1]&(bfdAuth|bfdMultipoint) != 0 || get32(c[4:]) == 0 {
		return nil, false
	}
	state, yours := BFDState(c[1]>>6), get32(c[8:])
	s := p.bfd.find(key)
	if s == nil || yours != 0 && yours != s.local || yours == 0 && state > BFDDown {
		return nil, false
	}
	s.remote, s.remoteState, s.remoteMultiplier = get32(c[4:]), state, c[2]
	s.remoteTx = time.Duration(get32(c[12:])) * time.Microsecond
	if rx := time.Duration(get32(c[16:])) * time.Microsecond; rx != s.remoteRx {
		s.remoteRx = rx
		if s.State == BFDUp && int64(max(s.desired(), rx)) < s.next-now {
			s.schedule(now)
		}
	}
	if c[1]&bfdFinal != 0 {
		s.poll = false
	}
	if s.State == BFDAdminDown {
		return s, true
	}
	s.expire = now + int64(s.detection())
	switch {
	case state == BFDAdminDown && s.State != BFDDown, state == BFDDown && s.State == BFDUp:
		p.bfdChanged(s, BFDDown, bfdNeighborDown)
	case s.State == BFDDown && state == BFDDown:
		p.bfdChanged(s, BFDInit, bfdNoDiagnostic)
	case s.State == BFDDown && state == BFDInit, s.State == BFDInit && state >= BFDInit:
		p.bfdChanged(s, BFDUp, bfdNoDiagnostic)
	}
	p.bfd.kick()
	return s, true
}
