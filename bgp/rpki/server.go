package rpki

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/rtr"
	"github.com/sirupsen/logrus"
)

// This file is the router's end of RTR with one server (RFC 8210 §8): a connection, a query, its answer, and so on every
// refresh interval or when the server says that there is news. One goroutine does it all; between answers it waits in a read
// whose deadline is the next query.

// Server is an RTR server.
type Server struct {
	Address   string // HOST:PORT
	Dataplane bool   // reached over the dataplane's stack instead of the kernel's
}

const (
	dialPatience   = 10 * time.Second
	answerPatience = 30 * time.Second // between two PDUs of an answer, and for the rest of a PDU
	writePatience  = 10 * time.Second
	firstBackoff   = time.Second // after a first failure; it doubles up to the retry interval
)

// errTryOld is in the error where a server of version 0 may be what is there (RFC 8210 §7).
var errTryOld = errors.New("the server may know version 0 only")

// server is what is known of a Server. The fields below mu are guarded by the servers' mutex.
type server struct {
	Server
	rank    int // in the order of preference
	all     *servers
	refresh time.Duration // the longest that the configuration leaves between two queries
	log     *logrus.Entry

	cancel    context.CancelFunc // of the attempt or the connection under way
	state     SourceState
	live      bool // connected, and its data is complete
	failed    bool // since it was last live, or since the start
	data      serverData
	lastErr   error
	lastErrAt time.Time
}

// serverData is what a server has told.
type serverData struct {
	known   bool
	goesOn  bool // the next connection may ask for what has changed since
	version uint8
	session uint16
	serial  uint32
	timers  timers
	vrps    []VRP
	updated time.Time // the last End of Data
}

func (d *serverData) expires() time.Time { return d.updated.Add(d.timers.expire) }

// run serves until ctx ends.
func (s *server) run(ctx context.Context) {
	backoff := firstBackoff
	for {
		attempt, ok := s.all.turn(ctx, s)
		if !ok {
			return
		}
		err := s.connect(attempt, version1)
		if errors.Is(err, errTryOld) {
			err = s.connect(attempt, version0)
		}
		pushed := attempt.Err() != nil // by the end, or by a better one that is back
		if pushed {
			err = context.Canceled
		}
		wasLive := s.all.ended(ctx, s, err)
		if pushed {
			continue
		}
		if wasLive {
			backoff = firstBackoff
		}
		t := time.NewTimer(backoff)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		backoff = min(2*backoff, s.all.retry(s))
	}
}

// connect makes a connection and talks on it until one side ends it.
func (s *server) connect(ctx context.Context, version uint8) error {
	dial, done := context.WithTimeout(ctx, dialPatience)
	c, err := s.all.dial(dial, s.Server)
	done()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	k := &talk{server: s, conn: c, r: bufio.NewReaderSize(c, maxPDU), version: version}
	err = k.run()
	var wrong *protocolError
	if errors.As(err, &wrong) {
		if b := report(k.version, wrong); b != nil {
			_ = k.write(b) // it is a courtesy
		}
		s.all.forget(s)
	}
	if ctx.Err() == nil && !k.settled && k.version == version1 && closedBy(err) {
		err = fmt.Errorf("%w: %w", err, errTryOld)
	}
	return err
}

// talk is one connection.
type talk struct {
	*server
	conn    net.Conn
	r       *bufio.Reader
	version uint8
	settled bool // the server has answered in this version
	update  *update
	answer  bool // a Cache Response has begun the answer to the query
	again   bool // news came while an answer was under way
}

func (k *talk) run() error {
	if err := k.ask(!k.all.resumable(k.server, k.version)); err != nil {
		return err
	}
	next := time.Now().Add(answerPatience)
	for {
		var p pdu
		err := k.conn.SetReadDeadline(next)
		if err == nil {
			p, err = readPDU(k.r, k.conn, answerPatience)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && k.update == nil:
			err = k.ask(false)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("no answer within %s", answerPatience)
		case err == nil:
			err = k.negotiate(p)
			if err == nil {
				err = k.handle(p)
			}
		}
		if err != nil {
			return err
		}
		if k.update != nil {
			next = time.Now().Add(answerPatience)
		} else {
			next = k.all.refreshAt(k.server)
		}
	}
}

// closedBy reports whether the other side ended the connection.
func closedBy(err error) bool {
	for _, end := range []error{io.EOF, io.ErrClosedPipe, errClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// negotiate holds a PDU's version against ours (RFC 8210 §7).
func (k *talk) negotiate(p pdu) error {
	if p.kind == rtr.RTR_ERROR_REPORT {
		return nil // handle tells what it means
	}
	if !k.settled {
		switch {
		case p.kind == rtr.RTR_SERIAL_NOTIFY:
			return nil // its version does not count yet, nor does what it says
		case p.version < k.version:
			k.version = p.version
			if k.update != nil && !k.update.reset { // what it has begun to answer is of the other version's session
				return &protocolError{rtr.UNSUPPORTED_PROTOCOL_VERSION, p.raw, "the server answers a serial query in another version"}
			}
		}
	}
	if p.version != k.version {
		return &protocolError{rtr.UNSUPPORTED_PROTOCOL_VERSION, p.raw, fmt.Sprintf("the server speaks version %d where %d was agreed", p.version, k.version)}
	}
	k.settled = true
	return nil
}

func (k *talk) handle(p pdu) error {
	invalid := func(format string, args ...any) error {
		return &protocolError{rtr.CORRUPT_DATA, p.raw, fmt.Sprintf(format, args...)}
	}
	switch m := p.msg.(type) {
	case *rtr.RTRSerialNotify: // RFC 8210 §5.2
		switch {
		case !k.settled:
		case k.update != nil:
			k.again = true
		case !k.all.upToDate(k.server, p.session, m.SerialNumber):
			return k.ask(false)
		}
	case *rtr.RTRCacheResponse: // RFC 8210 §5.5
		if k.update == nil || k.answer {
			return invalid("a Cache Response to no query")
		}
		if !k.update.reset && p.session != k.update.session { // "must flush" (RFC 8210 §5.1)
			return invalid("the server has begun a new session in the middle of one")
		}
		k.update.session, k.answer = p.session, true
	case *rtr.RTRIPPrefix: // RFC 8210 §5.6, §5.7
		v, announced, err := vrpOf(m)
		switch {
		case !k.answer:
			return invalid("a prefix outside of an answer")
		case err != nil:
			return invalid("%v", err)
		}
		return k.update.add(v, announced, p.raw)
	case *rtr.RTREndOfData: // RFC 8210 §5.8
		if !k.answer || p.session != k.update.session {
			return invalid("an End of Data of no answer, or of another session")
		}
		return k.commit(p, m.SerialNumber)
	case *rtr.RTRCacheReset: // RFC 8210 §5.9: the server cannot tell what has changed since our serial
		if k.update == nil || k.answer || k.update.reset {
			return invalid("a Cache Reset to no serial query")
		}
		return k.ask(true)
	case *rtr.RTRErrorReport: // RFC 8210 §5.11, §12
		text := fmt.Sprintf("the server reports error %d", m.ErrorCode)
		if len(m.Text) > 0 {
			text = fmt.Sprintf("%s: %q", text, shorten(string(m.Text)))
		}
		if m.ErrorCode == rtr.UNSUPPORTED_PROTOCOL_VERSION && !k.settled && k.version == version1 {
			return fmt.Errorf("%s: %w", text, errTryOld)
		}
		// StayRTR answers so to a serial of a session that it does not know, where RFC 8210 §5.9 has a Cache Reset. Whatever
		// it is, a query for all is the way out.
		k.all.forget(k.server)
		return errors.New(text)
	case nil: // a Router Key
		if !k.answer {
			return invalid("a Router Key outside of an answer")
		}
	default:
		return &protocolError{rtr.INVALID_REQUEST, p.raw, fmt.Sprintf("a PDU of type %d, which only routers send", p.kind)}
	}
	return nil
}

// ask sends a query: for all, or for what has changed since the last answer.
func (k *talk) ask(reset bool) error {
	d := k.all.dataOf(k.server)
	k.update = &update{reset: reset || !d.goesOn, base: d.vrps, session: d.session, delta: map[VRP]bool{}}
	k.answer, k.again = false, false
	b, err := query(k.version, d.session, d.serial, k.update.reset)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return k.write(b)
}

func (k *talk) write(b []byte) error {
	if err := k.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	if _, err := k.conn.Write(b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// commit takes a whole answer over.
func (k *talk) commit(p pdu, serial uint32) error {
	vrps, err := k.update.result()
	if err != nil {
		return err
	}
	t := p.timers
	if k.version == version0 {
		t = defaultTimers
	}
	k.all.committed(k.server, serverData{
		known: true, goesOn: true, version: k.version, session: p.session, serial: serial, timers: t.bounded(), vrps: vrps, updated: time.Now(),
	})
	again := k.again
	k.update, k.answer, k.again = nil, false, false
	if again {
		return k.ask(false)
	}
	return nil
}

// update is an answer that is coming in.
type update struct {
	reset   bool // it begins from nothing
	session uint16
	base    []VRP
	adds    []VRP        // of a reset
	delta   map[VRP]bool // of what is no reset: what is there afterwards, and what is not
}

// add takes a prefix in. What is announced twice, or withdrawn and not there, shows that the two sides do not have the same
// data any more, and ends the session (RFC 8210 §12, errors 6 and 7).
func (u *update) add(v VRP, announced bool, raw []byte) error {
	there := false
	if !u.reset {
		var changed bool
		if there, changed = u.delta[v]; !changed {
			_, there = slices.BinarySearchFunc(u.base, v, VRP.compare)
		}
	}
	switch {
	case announced && there:
		return &protocolError{rtr.DUPLICATE_ANNOUNCEMENT_RECORD, raw, fmt.Sprintf("%s is announced twice", v)}
	case !announced && !there:
		return &protocolError{rtr.WITHDRAWAL_OF_UNKNOWN_RECORD, raw, fmt.Sprintf("%s is withdrawn and was not announced", v)}
	case len(u.adds) == maxVRPs || len(u.delta) == maxVRPs:
		return errTooMany
	case u.reset:
		u.adds = append(u.adds, v)
	default:
		u.delta[v] = announced
	}
	return nil
}

// result returns what there is after the update.
func (u *update) result() ([]VRP, error) {
	if u.reset {
		n := len(u.adds)
		if l := sorted(u.adds); len(l) == n {
			return l, nil
		}
		return nil, &protocolError{code: rtr.DUPLICATE_ANNOUNCEMENT_RECORD, text: "a prefix is announced twice"}
	}
	if len(u.delta) == 0 {
		return u.base, nil
	}
	var l []VRP
	for _, v := range u.base {
		if _, changed := u.delta[v]; !changed {
			l = append(l, v)
		}
	}
	for v, there := range u.delta {
		if there {
			l = append(l, v)
		}
	}
	if len(l) > maxVRPs {
		return nil, errTooMany
	}
	return sorted(l), nil
}
