package bgp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// session is the connection that GoBGP sees. GoBGP knows one connection a neighbour and closes every other, while RFC 4271
// §6.8 asks for both to get as far as their OPENs before one is closed. So GoBGP is given a session as soon as there is a
// first wire; its OPEN goes out on every wire that there is; the peer's goroutine chooses one by §6.8, and only then does
// GoBGP read: the OPEN that came on the chosen wire, and then the wire itself.
//
// A session also watches the messages go by, because GoBGP does not tell why a session ended in words that an operator
// understands.
type session struct {
	noSyscalls
	remote *net.TCPAddr // the neighbour's identity, which is what GoBGP finds it by
	watch  watcher
	role   Role
	claims func() (restarted, preserved bool) // of us, for the OPEN
	// arrived, if not nil, is told of each UPDATE with a single route. It must not block.
	arrived func(netip.Prefix, time.Time)

	mu       sync.Mutex
	local    *net.TCPAddr
	wires    []*wire // that GoBGP's OPEN goes to
	chosen   *wire
	open     []byte // GoBGP's OPEN; nil until it took the session
	inbox    inbox  // read on chosen, and no whole message yet, or not its turn
	prefix   []byte // messages for GoBGP that it has not read yet
	unread   int    // how long prefix is while GoBGP has read none of it, not even its OPEN
	readBy   time.Time
	cause    string // why it ended; the first cause stays
	lost     bool   // the wire is of no use any more, which GoBGP does not know yet
	sawClose bool

	terms    terms
	traffic  *traffic
	doom     *ending // the peer's OPEN is refused
	graceful bool    // it ended so that GoBGP keeps the peer's routes
	ceased   bool    // we ended it with a NOTIFICATION, and GoBGP is still to be told
	insert   []byte  // messages for GoBGP besides the peer's

	ready  chan struct{} // closed when chosen is set
	ended  chan struct{} // closed by Close, and by us when we end it
	kick   chan struct{} // a read deadline was set while a read waited for ready
	reader tap           // of GoBGP's reading goroutine: there is one at a time
	block  []byte        // that goroutine's, for what it reads

	restarted  atomic.Bool   // an OPEN of ours has said that we have just restarted
	confirmed  atomic.Bool   // the peer answered our OPEN with a KEEPALIVE
	messages   atomic.Uint64 // read
	lastUpdate atomic.Int64  // time of the last UPDATE read, UnixNano
}

// watcher is told what passes through a session. The methods are called from GoBGP's goroutines, with the session locked, and
// must not block nor call it.
type watcher interface {
	sessionTaken(*session)               // GoBGP wrote its OPEN
	sessionConfirmed(*session)           // the peer's KEEPALIVE came: Established follows
	sessionRefresh(*session)             // the peer asks for our routes anew (RFC 2918)
	sessionLost(must bool) bool          // an established one's wire is dead: GoBGP was asked for a reset. May wait for GoBGP; the session is not locked
	sessionKept()                        // the same, but GoBGP gets the error and keeps the routes
	sessionEnded(*session, bool, string) // GoBGP closed it; whether it had taken it; why, "" when it is not known
	sessionNotice(sent bool, body []byte) string
	sessionRests(time.Duration) // we end it, and there shall be no other for so long
}

func newSession(remote netip.Addr, w *wire, watch watcher, claims func() (restarted, preserved bool), role Role) *session {
	s := &session{
		remote: &net.TCPAddr{IP: remote.AsSlice(), Port: bgp.BGP_PORT, Zone: remote.Zone()},
		watch:  watch, claims: claims, role: role,
		ready: make(chan struct{}), ended: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	s.addWire(w)
	return s
}

// addWire makes w another candidate. GoBGP's OPEN goes out on it if GoBGP has written it already.
func (s *session) addWire(w *wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.local == nil {
		s.local = tcpAddr(w.conn.LocalAddr())
	}
	s.wires = append(s.wires, w)
	if s.open != nil {
		s.sendOpenLocked(w)
	}
}

func (s *session) sendOpenLocked(w *wire) {
	w.sentOpen = true
	restarted, preserved := s.claims()
	if restarted {
		s.restarted.Store(true)
	}
	open := withRole(restartFlags(s.open, restarted, preserved), s.role)
	if err := w.send(open); err != nil {
		w.close() // its reader reports it
	}
}

// dropWire takes a candidate out that failed or lost.
func (s *session) dropWire(w *wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.wires {
		if c == w {
			s.wires = append(s.wires[:i], s.wires[i+1:]...)
			return
		}
	}
}

// choose lets GoBGP read from w, beginning with what was read already. The other candidates are the caller's.
func (s *session) choose(w *wire, t terms, tr *traffic, doom *ending) {
	first, extra := w.take()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terms, s.traffic, s.doom = t, tr, doom
	s.chosen, s.prefix, s.wires = w, withoutRestart(first), nil
	s.inbox = inbox{buf: extra}
	s.unread = len(s.prefix)
	s.local = tcpAddr(w.conn.LocalAddr())
	if !s.readBy.IsZero() {
		_ = w.conn.SetReadDeadline(s.readBy)
	}
	close(s.ready)
}

// swap makes w the wire in place of the chosen one, behind GoBGP's back: GoBGP has the peer's OPEN and waits for the KEEPALIVE.
// It reports false if that cannot be: the peer's OPEN is not the same on both, or something else came after it.
func (s *session) swap(w *wire) bool {
	first, extra := w.take()
	s.mu.Lock()
	defer s.mu.Unlock()
	unread := len(s.prefix) == s.unread
	if s.confirmed.Load() || !unread && len(s.prefix)+s.inbox.len() > 0 || s.reader.have > 0 || !bytes.Equal(s.chosen.first, first) {
		return false
	}
	s.prefix, s.unread, s.inbox = nil, -1, inbox{buf: extra}
	if unread {
		s.prefix, s.unread = withoutRestart(first), len(first)
	}
	s.sendOpenLocked(w)
	if !unread {
		_ = w.send(keepaliveMessage()) // GoBGP's answer to the OPEN went to the old one; if this fails, so will GoBGP's next read
	}
	s.chosen = w
	s.local = tcpAddr(w.conn.LocalAddr())
	if !s.readBy.IsZero() {
		_ = w.conn.SetReadDeadline(s.readBy)
	}
	return true
}

// Read implements net.Conn.
func (s *session) Read(b []byte) (int, error) {
	if err := s.waitChosen(); err != nil {
		return 0, err
	}
	for {
		s.mu.Lock()
		end := s.doom
		if end == nil && len(s.prefix) == 0 {
			if s.reader.between() {
				s.prefix, s.insert = s.insert, nil
			}
			end = s.nextLocked()
		}
		w, n, over := s.chosen, 0, s.overLocked()
		if end == nil {
			n = copy(b, s.prefix)
		}
		if n > 0 {
			s.prefix = s.prefix[n:]
			s.reader.feed(b[:n], s.receivedLocked)
			s.mu.Unlock()
			return n, nil
		}
		s.mu.Unlock()
		if end != nil {
			s.finish(w, end)
		}
		if end != nil || over {
			return 0, s.lose(io.EOF, end != nil)
		}
		if s.block == nil {
			s.block = make([]byte, blockLen)
		}
		n, err := w.conn.Read(s.block)
		s.mu.Lock()
		if s.chosen != w {
			s.mu.Unlock()
			continue // swapped meanwhile: nothing that the old one said counts
		}
		s.inbox.put(s.block[:n])
		if n > 0 {
			s.mu.Unlock()
			continue // an error will come again
		}
		if s.readBy.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) { // not GoBGP's
			if !s.overLocked() { // it was pretend's
				_ = w.conn.SetReadDeadline(time.Time{})
			}
			s.mu.Unlock()
			continue
		}
		over = err != nil && !errors.Is(err, os.ErrDeadlineExceeded) // GoBGP ends its own reads by a deadline
		if over {
			s.setCauseLocked(connErrorText(err))
		}
		s.mu.Unlock()
		if over {
			return 0, s.lose(err, false)
		}
		return 0, err
	}
}

// blockLen is how much is read at once. A full table comes in messages of one to four kilobytes.
const blockLen = 8 << 10

// nextLocked makes the next message that has come GoBGP's to read, unless there is one. It returns what ends the session in its
// place. A NOTIFICATION in an established session does: see lose.
func (s *session) nextLocked() *ending {
	for len(s.prefix) == 0 {
		msg := s.inbox.next(s.limitLocked())
		if msg == nil {
			return nil
		}
		switch {
		case s.inbox.raw || len(msg) < headerLen:
		case msg[18] == bgp.BGP_MSG_NOTIFICATION && s.confirmed.Load():
			s.receivedLocked(msg[18], msg[headerLen:])
			return &ending{}
		case msg[18] == bgp.BGP_MSG_ROUTE_REFRESH && len(msg) == headerLen+4 && s.confirmed.Load():
			s.receivedLocked(msg[18], msg[headerLen:])
			s.watch.sessionRefresh(s)
			continue
		case msg[18] == bgp.BGP_MSG_UPDATE && s.traffic != nil:
			changed, end := s.traffic.receive(msg)
			if end != nil {
				return end
			}
			if len(changed) == 0 {
				s.receivedLocked(msg[18], msg[headerLen:])
			}
			msg = changed
		}
		s.prefix = msg
	}
	return nil
}

// limitLocked is how long a message of the peer's may be.
func (s *session) limitLocked() int {
	if s.traffic != nil {
		return s.traffic.limit
	}
	return bgp.BGP_MAX_MESSAGE_LENGTH
}

func (s *session) waitChosen() error {
	for {
		s.mu.Lock()
		by := s.readBy
		s.mu.Unlock()
		var expire <-chan time.Time
		if !by.IsZero() {
			wait := time.Until(by)
			if wait <= 0 {
				return os.ErrDeadlineExceeded
			}
			t := time.NewTimer(wait)
			defer t.Stop()
			expire = t.C
		}
		select {
		case <-s.ended:
			return io.EOF
		default:
		}
		select {
		case <-s.ready:
			return nil
		case <-s.ended:
			return io.EOF
		case <-s.kick:
		case <-expire:
			return os.ErrDeadlineExceeded
		}
	}
}

// receivedLocked is called for each whole message that GoBGP reads.
func (s *session) receivedLocked(typ uint8, body []byte) {
	s.messages.Add(1)
	switch typ {
	case bgp.BGP_MSG_NOTIFICATION:
		s.setCauseLocked(s.watch.sessionNotice(false, body))
	case bgp.BGP_MSG_UPDATE:
		now := time.Now()
		s.lastUpdate.Store(now.UnixNano())
		if s.arrived == nil {
			break
		}
		if p, ok := singleRoute(body); ok {
			s.arrived(p, now)
		}
	case bgp.BGP_MSG_KEEPALIVE:
		if !s.confirmed.Swap(true) {
			s.insert = endOfRIB(s.terms.flush)
			s.watch.sessionConfirmed(s)
		}
	}
}

// lastUpdateAt returns when the last UPDATE came; the zero time if none has.
func (s *session) lastUpdateAt() time.Time {
	if n := s.lastUpdate.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Write implements net.Conn. GoBGP writes whole messages; the first is its OPEN. UPDATEs of its own go nowhere: see export.go.
func (s *session) Write(b []byte) (int, error) {
	if len(b) > headerLen && b[18] == bgp.BGP_MSG_UPDATE {
		return len(b), nil
	}
	s.mu.Lock()
	heard, lost := s.chosen != nil || len(s.wires) > 0, s.lost || s.ceased
	s.mu.Unlock()
	notice := len(b) > headerLen && b[18] == bgp.BGP_MSG_NOTIFICATION
	expired := notice && b[headerLen] == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED
	switch {
	case lost && expired:
		return len(b), s.holdTimerExpired()
	case lost:
		return len(b), nil // GoBGP learns it from its reader
	}
	if heard && notice {
		s.setCause(s.watch.sessionNotice(true, b[headerLen:]))
	}
	s.mu.Lock()
	w, first := s.chosen, s.open == nil
	if w == nil {
		if first {
			s.open = append([]byte(nil), b...)
		}
		for _, c := range s.wires {
			if first {
				s.sendOpenLocked(c)
			} else {
				_ = c.send(b) // a NOTIFICATION: GoBGP gives up
			}
		}
	}
	s.mu.Unlock()
	if first {
		s.watch.sessionTaken(s)
	}
	if w == nil {
		return len(b), nil
	}
	for {
		w.wmu.Lock()
		n, err := w.conn.Write(b)
		w.wmu.Unlock()
		if err == nil {
			if expired {
				err = s.holdTimerExpired()
			}
			return n, err
		}
		s.mu.Lock()
		swapped := s.chosen != w
		if swapped {
			w = s.chosen
		}
		s.mu.Unlock()
		switch {
		case swapped:
		case s.confirmed.Load():
			s.failed(w, err)
			return len(b), nil
		default:
			s.setCause(connErrorText(err))
			return n, err
		}
	}
}

// tell sends the peer UPDATEs. It waits for as long as the peer takes, and reports false where the session is over.
func (s *session) tell(w *wire, msgs []byte) bool {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if w.isParting() {
		return false
	}
	if _, err := w.conn.Write(msgs); err != nil {
		s.failed(w, err)
		return false
	}
	return true
}

// shaper is what is done to UPDATEs. There is one once a wire is chosen.
func (s *session) shaper() *traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic
}

// probe sends a KEEPALIVE besides GoBGP's own: a peer that has forgotten the connection answers with a reset.
func (s *session) probe() {
	s.mu.Lock()
	w := s.chosen
	s.mu.Unlock()
	if w != nil {
		w.trySend(keepaliveMessage()) // GoBGP's reader finds out what comes of it
	}
}

// Close implements net.Conn. GoBGP may call it more than once.
func (s *session) Close() error {
	s.mu.Lock()
	if s.sawClose {
		s.mu.Unlock()
		return nil
	}
	s.sawClose = true
	s.endLocked()
	w, taken, cause := s.chosen, s.open != nil, s.cause
	s.mu.Unlock()
	if w != nil {
		w.close()
	}
	s.watch.sessionEnded(s, taken, cause)
	return nil
}

func (s *session) setCause(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setCauseLocked(text)
}

func (s *session) setCauseLocked(text string) {
	if s.cause == "" {
		s.cause = text
	}
}

// LocalAddr implements net.Conn: what GoBGP gives as next hop.
func (s *session) LocalAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// RemoteAddr implements net.Conn: what GoBGP finds the neighbour by.
func (s *session) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn.
func (s *session) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (s *session) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy = t
	select {
	case s.kick <- struct{}{}:
	default:
	}
	if s.chosen != nil && !s.sawClose { // after that, part reads
		return s.chosen.conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn. Before there is a chosen wire, writes have their own bound.
func (s *session) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	w := s.chosen
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.conn.SetWriteDeadline(t)
}

// noSyscalls makes GoBGP's code for socket options (TTL, MSS, TOS) find nothing to do: the dataplane's stack decides those.
type noSyscalls struct{}

func (noSyscalls) SyscallConn() (syscall.RawConn, error) { return noSocket{}, nil }

type noSocket struct{}

func (noSocket) Control(func(uintptr)) error    { return nil }
func (noSocket) Read(func(uintptr) bool) error  { return nil }
func (noSocket) Write(func(uintptr) bool) error { return nil }

// tcpAddr returns a copy in the form that GoBGP reads: IPv4 in 4 bytes.
func tcpAddr(a net.Addr) *net.TCPAddr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return &net.TCPAddr{}
	}
	c := *t
	if v4 := c.IP.To4(); v4 != nil {
		c.IP, c.Zone = v4, ""
	}
	return &c
}
