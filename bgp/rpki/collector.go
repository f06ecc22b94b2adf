package rpki

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Config says where ROAs come from.
type Config struct {
	Files   []string // paths
	URLs    []string // http or https
	Servers []Server // in order of preference
	Refresh time.Duration
}

// DefaultRefresh is how often URLs are fetched and servers are asked at the latest.
const DefaultRefresh = 15 * time.Minute

// Options are what a Collector is made of. All are needed.
type Options struct {
	Config Config
	Dir    string // where the last good downloads are kept; made if it is not there
	Log    *logrus.Entry
	// Dial connects to an RTR server.
	Dial func(context.Context, Server) (net.Conn, error)
	// Changed is called when there is another Table. It must not block.
	Changed func()
}

// Collector gathers the VRPs of all sources. Its methods may be called from any goroutine, before, during and after Run.
type Collector struct {
	opt   Options
	http  *http.Client
	table atomic.Pointer[Table]
	dirty chan struct{} // holds one when a source has changed

	mu      sync.Mutex
	ctx     context.Context // nil before Run and after
	config  Config
	sources []*runner
	servers *servers
	former  []VRP         // of sources that were replaced, until those in their place are settled
	changed chan struct{} // closed when what the sources have now is in the table
}

// runner is a file or a URL with its goroutine.
type runner struct {
	source
	key  string
	stop func() // waits for it; nil before Run
}

// source is a file or a URL.
type source interface {
	run(ctx context.Context)
	current() (vrps []VRP, settled bool) // settled: it has data, or has failed once
	name() string
	status() Source
}

const (
	settleTime   = 200 * time.Millisecond // after a change, for more of them
	settleAtMost = time.Second
)

// New makes a Collector; nothing is read yet.
func New(o Options) *Collector {
	c := &Collector{opt: o, http: newHTTP(), dirty: make(chan struct{}, 1), changed: make(chan struct{})}
	c.table.Store(NewTable())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applyLocked(o.Config)
	return c
}

// Table returns the VRPs of the moment.
func (c *Collector) Table() *Table { return c.table.Load() }

// Run gathers until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	c.ctx = ctx
	for _, s := range c.sources {
		s.start(ctx)
	}
	if c.servers != nil {
		c.servers.start(ctx)
	}
	c.mu.Unlock()
	defer func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ctx = nil
		for _, s := range c.sources {
			s.stop()
		}
		if c.servers != nil {
			c.servers.close()
		}
		c.http.CloseIdleConnections()
	}()
	for {
		expires := c.merge()
		wake := time.NewTimer(expires)
		select {
		case <-ctx.Done():
			wake.Stop()
			return ctx.Err()
		case <-wake.C:
		case <-c.dirty:
			wake.Stop()
			c.settle(ctx)
		}
	}
}

// settle waits until no source has changed for a moment.
func (c *Collector) settle(ctx context.Context) {
	latest := time.NewTimer(settleAtMost)
	defer latest.Stop()
	for {
		quiet := time.NewTimer(settleTime)
		select {
		case <-c.dirty:
			quiet.Stop()
			continue
		case <-quiet.C:
		case <-latest.C:
		case <-ctx.Done():
		}
		quiet.Stop()
		return
	}
}

// merge makes a new Table where there is something new, and says when the next VRPs expire.
func (c *Collector) merge() (expires time.Duration) {
	now := time.Now()
	expires = 24 * time.Hour
	c.mu.Lock()
	var lists [][]VRP
	for _, s := range c.sources {
		l, _ := s.current()
		lists = append(lists, l)
	}
	if c.servers != nil {
		if p := c.servers.current(now); p.data.known {
			lists = append(lists, p.data.vrps)
			expires = p.data.expires().Sub(now)
		}
	}
	if c.settledLocked() {
		c.former = nil
	}
	lists = append(lists, c.former)
	merged := c.changed // what comes from now on is for the next time
	c.changed = make(chan struct{})
	c.mu.Unlock()
	defer close(merged)
	next := NewTable(lists...)
	if slices.Equal(next.vrps, c.table.Load().vrps) {
		return expires
	}
	ip4, ip6 := next.Len()
	c.opt.Log.WithFields(logrus.Fields{"ipv4": ip4, "ipv6": ip6}).Debug("ROAs changed")
	c.table.Store(next)
	c.opt.Changed()
	return expires
}

// poke has Run look at the sources again.
func (c *Collector) poke() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// Apply makes cfg the configuration. A source that stays keeps its data and goes on.
func (c *Collector) Apply(cfg Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applyLocked(cfg)
	c.poke()
}

func (c *Collector) applyLocked(cfg Config) {
	if cfg.Refresh == 0 {
		cfg.Refresh = DefaultRefresh
	}
	old := map[string]*runner{}
	for _, s := range c.sources {
		old[s.key] = s
	}
	var sources []*runner
	keep := func(key string, make func() source) {
		s := old[key]
		delete(old, key)
		if s == nil {
			s = &runner{source: make(), key: key}
			if c.ctx != nil {
				s.start(c.ctx)
			}
		}
		sources = append(sources, s)
	}
	for _, path := range cfg.Files {
		keep("file "+path, func() source { return &file{path: path, log: c.opt.Log, changed: c.poke} })
	}
	for _, u := range cfg.URLs {
		keep("url "+cfg.Refresh.String()+" "+u, func() source { return newDownload(u, cfg.Refresh, c) })
	}
	if len(old) > 0 && len(sources)+len(cfg.Servers) > 0 {
		c.former = c.table.Load().vrps // a router that lets only valid routes in would lose them for a moment
	}
	for _, s := range old {
		if s.stop != nil {
			s.stop()
		}
	}
	c.sources = sources
	if !slices.Equal(cfg.Servers, c.config.Servers) || cfg.Refresh != c.config.Refresh {
		before := c.servers
		if before != nil && c.ctx != nil {
			before.close()
		}
		c.servers = nil
		if len(cfg.Servers) > 0 {
			c.servers = newServers(cfg.Servers, cfg.Refresh, before, &c.opt, c.poke)
			if c.ctx != nil {
				c.servers.start(c.ctx)
			}
		}
	}
	c.config = cfg
}

func (r *runner) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	r.stop = func() {
		cancel()
		wg.Wait()
	}
}

// settledLocked says whether every source has data, or has failed once.
func (c *Collector) settledLocked() bool {
	for _, s := range c.sources {
		if _, ok := s.current(); !ok {
			return false
		}
	}
	return c.servers == nil || c.servers.settled()
}

// WaitLoaded waits until every source has data, or has failed once, and the Table has it. Errors: the context's.
func (c *Collector) WaitLoaded(ctx context.Context) error {
	for {
		c.mu.Lock()
		wait, settled := c.changed, c.settledLocked()
		c.mu.Unlock()
		if settled {
			c.poke() // what they have may be in the Table already; then nobody would tell
		}
		select {
		case <-wait:
			if settled {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Kinds of a Source.
const (
	KindFile = "file"
	KindURL  = "url"
	KindRTR  = "rtr"
)

// SourceState says what a source is worth at the moment.
type SourceState string

// The states.
const (
	StateConnecting SourceState = "connecting" // nothing is known yet
	StateOK         SourceState = "ok"
	StateStale      SourceState = "stale"   // the last good data is used: what came after it was bad, or nothing came
	StateStandby    SourceState = "standby" // a server that is not needed, because a better one is there
	StateFailed     SourceState = "failed"  // and there is no data
	StateExpired    SourceState = "expired" // of a server: there was no answer for so long that its data is not used any more
)

// Source is the state of one source.
type Source struct {
	Kind      string
	Name      string // the path, URL or address
	State     SourceState
	Used      bool // its VRPs are in the table
	Dataplane bool // a server that is reached over the dataplane
	IPv4      int  // VRPs
	IPv6      int
	Skipped   int   // entries that are none
	SkippedBy error // of the first of them
	Session   uint16
	Serial    uint32 // of a server
	Version   uint8
	Updated   time.Time // when the data was known to be what the source has; zero without data
	Expires   time.Time // of a server's data

	LastError   error // the latest; it stays when all is well again
	LastErrorAt time.Time
}

func (s *Source) count(l []VRP) {
	for _, v := range l {
		if v.Prefix.Addr().Is4() {
			s.IPv4++
		} else {
			s.IPv6++
		}
	}
}

// Sources returns the state of every source: files, URLs, then servers, in the configuration's order.
func (c *Collector) Sources() []Source {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Source
	for _, s := range c.sources {
		out = append(out, s.status())
	}
	if c.servers != nil {
		out = append(out, c.servers.status(time.Now())...)
	}
	return out
}

// Of returns the names of the sources that have a VRP.
func (c *Collector) Of(v VRP) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	has := func(l []VRP) bool {
		_, ok := slices.BinarySearchFunc(l, v, VRP.compare)
		return ok
	}
	var out []string
	for _, s := range c.sources {
		if l, _ := s.current(); has(l) {
			out = append(out, s.name())
		}
	}
	if c.servers != nil {
		if p := c.servers.current(time.Now()); p.data.known && has(p.data.vrps) {
			name := "(a former server)"
			if p.server != nil {
				name = p.server.Address
			}
			out = append(out, name)
		}
	}
	return out
}

// held is the last good data of a file or a URL, and what went wrong since.
type held struct {
	mu      sync.Mutex
	list    list
	known   bool
	updated time.Time
	err     error // of the latest look; nil when that was good
	last    error
	lastAt  time.Time
	looked  bool
}

func (h *held) current() ([]VRP, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list.vrps, h.looked
}

// good takes a list over.
func (h *held) good(l list, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list, h.known, h.updated, h.err, h.looked = l, true, at, nil, true
}

// same notes that the list is still what the source has.
func (h *held) same(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.updated, h.err, h.looked = at, nil, true
}

// bad notes an error, and says whether it is another one than before.
func (h *held) bad(err error) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = h.err == nil || h.err.Error() != err.Error()
	h.err, h.last, h.lastAt, h.looked = err, err, time.Now(), true
	return news
}

func (h *held) describe(kind, name string) Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Source{
		Kind: kind, Name: name, State: StateOK, Used: h.known, Skipped: h.list.skipped, SkippedBy: h.list.why,
		Updated: h.updated, LastError: h.last, LastErrorAt: h.lastAt,
	}
	s.count(h.list.vrps)
	switch {
	case !h.looked && !h.known:
		s.State = StateConnecting
	case h.known && h.err != nil:
		s.State = StateStale
	case h.err != nil:
		s.State = StateFailed
	}
	return s
}

var errNotRegular = errors.New("not a regular file")
