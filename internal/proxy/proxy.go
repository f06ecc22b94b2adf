// Package proxy joins TCP connections of the host's programs with those of the dataplane's stack, for a router without privileges
// or a TUN device: programs of the host reach the router's networks through a SOCKS server, and a program of the host is
// reached from there at an address of the router's.
//
// Both are a Server: a listener on one stack, and for each connection one on the other. Who listens and who dials where is the
// caller's business, so that this package knows neither stack.
package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Server accepts connections and joins each with another one.
type Server struct {
	Name   string // in the log
	Listen func(ctx context.Context) (net.Listener, error)
	// Open finds out what a connection is to be joined with; it may talk to who made it. An error ends the connection.
	Open func(ctx context.Context, conn net.Conn) (net.Conn, error)
	Log  *logrus.Entry
}

const (
	maxConns    = 1024             // of a server; who comes then waits in the listener's queue
	listenRetry = time.Second      // when the listener failed: the dataplane may be on its way back
	openTimeout = 30 * time.Second // for all of Open
	// idleLimit ends connections in which nothing was said for so long: the other end may have gone without a word.
	idleLimit = time.Hour
)

// Run serves until ctx ends, whatever happens to the stacks; then it ends all connections, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	log := s.Log.WithField("service", s.Name)
	var conns sync.WaitGroup
	defer conns.Wait()
	slots := make(chan struct{}, maxConns)
	said := ""
	for ctx.Err() == nil {
		l, err := s.Listen(ctx)
		if err == nil {
			said = ""
			log.WithField("address", l.Addr().String()).Info("service listens")
			err = s.accept(ctx, l, slots, &conns, log)
		}
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != said {
			said = text
			log.WithError(err).Warn("service does not listen; trying again every second")
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
	return nil
}

func (s *Server) accept(ctx context.Context, l net.Listener, slots chan struct{}, conns *sync.WaitGroup, log *logrus.Entry) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := l.Accept()
		if err != nil {
			<-slots
			return err
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, conn, log)
		})
	}
}

func (s *Server) serve(ctx context.Context, conn net.Conn, log *logrus.Entry) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(openTimeout))
	other, err := s.Open(opening, conn)
	if err != nil {
		log.WithError(err).WithField("from", conn.RemoteAddr().String()).Debug("connection refused")
		return
	}
	_ = conn.SetDeadline(time.Time{})
	join(ctx, conn, other)
}

// join copies both ways until both sides have ended, or one has broken, or nobody says anything any more. It closes both.
func join(ctx context.Context, a, b net.Conn) {
	over := func() {
		_ = a.Close()
		_ = b.Close()
	}
	defer over()
	stop := context.AfterFunc(ctx, over)
	defer stop()
	var active atomic.Int64
	active.Store(time.Now().UnixNano())
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			if pump(way[1], way[0], &active) != nil {
				over()
			}
		})
	}
	both.Wait()
}

// pump copies from one connection to the other to its end, and passes the end on.
func pump(to, from net.Conn, active *atomic.Int64) error {
	buf := make([]byte, 32<<10)
	for {
		last := time.Unix(0, active.Load())
		_ = from.SetReadDeadline(last.Add(idleLimit))
		n, err := from.Read(buf)
		if n > 0 {
			active.Store(time.Now().UnixNano())
			if _, werr := to.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded) && active.Load() != last.UnixNano(): // the other way was busy
		case errors.Is(err, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return err
		default:
			return err
		}
	}
}
