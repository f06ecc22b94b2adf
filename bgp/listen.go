package bgp

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"

	"rlr/hoststack"
)

// listener accepts on port 179 of one table and family, whatever happens to the dataplane below: it tries again until the
// end. A connection belongs to the neighbour whose address and interface it comes from; others are closed at once, so that a
// stranger costs no more than an accept.
type listener struct {
	stack hoststack.Stack
	table uint32
	any   netip.Addr // 0.0.0.0 or ::
	find  func(remote netip.Addr) *peer
	log   *logrus.Entry

	strangers *strangers
	// welcome takes the connection of somebody who is no neighbour, but may become one. It must not block.
	welcome func(conn net.Conn, remote, local netip.Addr) bool
}

const listenRetry = time.Second

// run returns when ctx ends.
func (l *listener) run(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		nl, err := l.stack.Listen(ctx, l.table, netip.AddrPortFrom(l.any, bgp.BGP_PORT))
		if err == nil {
			said = ""
			err = l.serve(ctx, nl)
		}
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			l.log.WithError(err).Warn("BGP does not listen; trying again every second")
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
}

// serve accepts until the listener breaks or ctx ends.
func (l *listener) serve(ctx context.Context, nl net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = nl.Close() })
	defer stop()
	defer nl.Close()
	l.log.WithField("address", nl.Addr().String()).Debug("BGP listens")
	for {
		conn, err := nl.Accept()
		if err != nil {
			return err
		}
		l.attribute(conn)
	}
}

// attribute hands a connection to its neighbour.
func (l *listener) attribute(conn net.Conn) {
	remote, local := addrOf(conn.RemoteAddr()), addrOf(conn.LocalAddr())
	p := l.find(remote)
	log := l.log.WithFields(logrus.Fields{"remote": remote.String(), "local": local.String()})
	if p == nil && l.welcome(conn, remote, local) {
		return
	}
	if p == nil {
		if l.strangers.count(remote) {
			log.Info("BGP connection from an address that is no neighbor's")
		}
		_ = conn.Close()
		return
	}
	if want := p.config().LocalAddress; want.IsValid() && want != local {
		if l.strangers.count(remote) {
			log.WithField("neighbor", p.config().Name).Info("BGP connection to an address that is not this neighbor's local address")
		}
		_ = conn.Close()
		return
	}
	w := newWire(conn, false)
	if !p.post(func() { p.accepted(w) }) {
		w.close()
	}
}

// strangers counts connections that belong to no neighbour.
type strangers struct {
	mu     sync.Mutex
	total  uint64
	last   netip.Addr
	lastAt time.Time
	said   time.Time
}

const strangersEvery = time.Minute // between two log lines

// count notes one, and reports whether to log it.
func (s *strangers) count(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.last, s.lastAt = a, time.Now()
	if s.lastAt.Sub(s.said) < strangersEvery {
		return false
	}
	s.said = s.lastAt
	return true
}
