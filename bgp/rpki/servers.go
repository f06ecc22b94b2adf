package rpki

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// servers are the RTR servers, in order of preference (RFC 8210 §10). One is used: the first that answers. A server is
// connected to when all better ones have failed, and let go when one of them is back. Data of a server that was lost stays in
// use until another has told all, or its expire interval is over.
type servers struct {
	dial    func(context.Context, Server) (net.Conn, error)
	changed func() // tells the Collector
	work    sync.WaitGroup
	stop    context.CancelFunc

	mu    sync.Mutex // guards the servers
	list  []*server
	woken chan struct{} // closed, and made anew, when somebody's turn may have come
	left  serverData    // of servers that were configured before, until one of these has told all
}

func newServers(list []Server, refresh time.Duration, before *servers, o *Options, changed func()) *servers {
	g := &servers{dial: o.Dial, changed: changed, woken: make(chan struct{})}
	if before != nil {
		g.left = before.current(time.Now()).data
	}
	for i, s := range list {
		g.list = append(g.list, &server{
			Server: s, rank: i, all: g, refresh: refresh, state: StateConnecting,
			log: o.Log.WithFields(logrus.Fields{"server": s.Address}),
		})
	}
	return g
}

func (g *servers) start(ctx context.Context) {
	ctx, g.stop = context.WithCancel(ctx)
	for _, s := range g.list {
		g.work.Go(func() { s.run(ctx) })
	}
}

func (g *servers) close() {
	g.stop()
	g.work.Wait()
}

// turn waits until s is to connect, and returns the context of that. ok is false when ctx has ended.
func (g *servers) turn(ctx context.Context, s *server) (attempt context.Context, ok bool) {
	for {
		g.mu.Lock()
		if ctx.Err() != nil {
			g.mu.Unlock()
			return nil, false
		}
		if g.isTurnLocked(s) {
			attempt, s.cancel = context.WithCancel(ctx)
			if s.data.known {
				s.state = StateStale
			} else if s.lastErr == nil {
				s.state = StateConnecting
			}
			g.mu.Unlock()
			return attempt, true
		}
		s.state, s.data = StateStandby, serverData{}
		wait := g.woken
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
		}
	}
}

func (g *servers) isTurnLocked(s *server) bool {
	for _, better := range g.list[:s.rank] {
		if better.live || !better.failed {
			return false
		}
	}
	return true
}

// ended notes the end of an attempt or a connection, and says whether it was one that had told all.
func (g *servers) ended(ctx context.Context, s *server, err error) (wasLive bool) {
	g.mu.Lock()
	s.cancel()
	wasLive = s.live
	s.live = false
	if !errors.Is(err, context.Canceled) {
		known := s.lastErr != nil && s.lastErr.Error() == err.Error()
		s.failed, s.lastErr, s.lastErrAt = true, err, time.Now()
		s.state = StateFailed
		if s.data.known {
			s.state = StateStale
		}
		if !known || wasLive {
			s.log.WithError(err).Warn("RTR server failed")
		}
	}
	g.wakeLocked()
	g.mu.Unlock()
	if ctx.Err() == nil {
		g.changed()
	}
	return wasLive
}

func (g *servers) wakeLocked() {
	close(g.woken)
	g.woken = make(chan struct{})
}

// committed takes over what a server has told.
func (g *servers) committed(s *server, d serverData) {
	g.mu.Lock()
	if !s.live {
		s.log.WithFields(logrus.Fields{"serial": d.serial, "version": d.version, "roas": len(d.vrps)}).Info("RTR server synchronized")
		for _, worse := range g.list[s.rank+1:] {
			if worse.cancel != nil {
				worse.cancel()
			}
		}
	}
	s.data, s.live, s.failed, s.state = d, true, false, StateOK
	g.left = serverData{}
	for _, o := range g.list { // of those that were lost, nobody has need any more
		if !o.live && o.rank > s.rank {
			o.data = serverData{}
		}
	}
	g.wakeLocked()
	g.mu.Unlock()
	g.changed()
}

func (g *servers) dataOf(s *server) serverData {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.data
}

// resumable says whether a session of an earlier connection can be gone on with.
func (g *servers) resumable(s *server, version uint8) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.data.goesOn && s.data.version == version
}

// forget makes the next query one for all. The data is used until then.
func (g *servers) forget(s *server) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.data.goesOn = false
}

func (g *servers) upToDate(s *server, session uint16, serial uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.data.session == session && s.data.serial == serial
}

func (g *servers) refreshAt(s *server) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.data.updated.Add(min(s.refresh, s.data.timers.refresh))
}

// retry is the longest pause between two attempts.
func (g *servers) retry(s *server) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.data.known {
		return s.data.timers.retry
	}
	return min(s.refresh, defaultTimers.retry)
}

// provider is whose data is used.
type provider struct {
	server *server // nil: one of an earlier configuration, or nobody's
	data   serverData
}

// current returns the data in use: of the best server that is live, else the latest that has not expired.
func (g *servers) current(now time.Time) provider {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.currentLocked(now)
}

func (g *servers) currentLocked(now time.Time) provider {
	best := provider{data: g.left}
	for _, s := range g.list {
		if s.live {
			best = provider{s, s.data}
			break
		}
		if s.data.known && s.data.updated.After(best.data.updated) {
			best = provider{s, s.data}
		}
	}
	if best.data.known && !now.Before(best.data.expires()) { // RFC 8210 §6: it must not be used any longer
		return provider{}
	}
	return best
}

// settled says whether there is data, or every server has failed once.
func (g *servers) settled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.list {
		if s.live {
			return true
		}
		if !s.failed {
			return false
		}
	}
	return true
}

func (g *servers) status(now time.Time) []Source {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.currentLocked(now).server
	var out []Source
	for _, s := range g.list {
		row := Source{
			Kind: KindRTR, Name: s.Address, State: s.state, Used: s == used, Dataplane: s.Dataplane,
			LastError: s.lastErr, LastErrorAt: s.lastErrAt,
		}
		if s.data.known {
			row.count(s.data.vrps)
			row.Session, row.Serial, row.Version = s.data.session, s.data.serial, s.data.version
			row.Updated, row.Expires = s.data.updated, s.data.expires()
			if !now.Before(row.Expires) {
				row.State = StateExpired
			}
		}
		out = append(out, row)
	}
	return out
}
