// Package vppagent is the only writer of the dataplane's configuration: interfaces, addresses, tables, static neighbours and
// routes, through VPP's binary API with govpp's messages. It runs unchanged on VPP and on minivpp.
//
// The agent is level-triggered. For each life of a connection it looks at what the dataplane has, compares with the
// configuration, and makes the difference; an event, a new configuration, a failure's time to try again and a slow audit all
// lead to another look. Interfaces are known as ours by their tag, tables by their name, routes by their FIB source; nothing
// else is ever touched. What fails is the state of one interface, tried again ever more slowly, and not the end of anything.
package vppagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/api"

	"rlr/binapi"
	"rlr/fib"
)

// Options of New. Zero durations mean the defaults.
type Options struct {
	Socket      string // of the binary API
	StatsSocket string // of the statistics segment; "": no counters
	Config      Config
	Log         *logrus.Entry
	URPF6       bool // the dataplane's reverse path check lets link-local sources pass
	Sole        bool // nobody else configures this VPP: settings of the whole of it are ours to choose

	Ping       time.Duration // how often a silent VPP is asked whether it lives; 5 s
	Audit      time.Duration // how often the dataplane is compared with the configuration without a reason; 1 min
	MinBackoff time.Duration // first wait after a failure, doubled each time; 250 ms
	MaxBackoff time.Duration // longest wait; 30 s
	LinkWait   time.Duration // for how long a new dataplane's links are expected to come up; 10 s, as a memif connects every 3 s
}

// ChangeKind says what a Change is about.
type ChangeKind uint8

// Kinds of Change. Each is to be answered as it says, in the callback or later.
const (
	Attached          ChangeKind = iota // connected and configured: what the dataplane holds must be read anew (fib.Syncer.Invalidate)
	Detached                            // the connection ended; what there is to do, Attached will tell
	InterfacesChanged                   // interfaces came, went, or changed state or addresses (Connected, fib.Syncer.InterfacesChanged)
	RoutesChanged                       // routes of ours were removed with an interface or table (fib.Syncer.Invalidate)
)

func (k ChangeKind) String() string {
	return [...]string{"attached", "detached", "interfaces changed", "routes changed"}[k]
}

// Change tells a watcher that something is different. It is a hint: ask the agent what is.
type Change struct {
	Kind        ChangeKind
	NewInstance bool  // Attached: the dataplane is not the one of before (or the first)
	Err         error // Detached: why
}

// Status of the connection to the dataplane.
type Status struct {
	Connected bool
	Version   string       // as the dataplane tells it
	PID       uint32       // of its process
	Boot      time.Time    // when it started
	Since     time.Time    // of the connection, or of its loss
	Err       error        // why there is none
	Missing   []binapi.Row // messages that the dataplane does not have as we know them; it is refused for required ones
}

// Agent keeps a dataplane as it is configured. All methods may be called from any goroutine.
type Agent struct {
	opt Options
	log *logrus.Entry

	poke    chan struct{} // one slot: the configuration changed, or Clean was called
	pokeBFD chan struct{} // one slot: other BFD sessions are wanted

	mu       sync.Mutex
	cfg      Config
	cfgRev   uint64
	life     *life // nil while there is none
	status   Status
	instance instance // the latest
	byName   map[string]uint32
	byIndex  map[uint32]string
	state    map[string]*ifState   // by name of configured interface
	other    error                 // what failed besides interfaces
	aclErrs  map[string]error      // what became of ACLs that are not as configured
	routers  map[uint32]advertised // by index of the life's interfaces; nil before the first
	links    map[string]link       // our interfaces, at the latest look
	expected map[string]bool       // those that were up when the dataplane ended, and have not come up in the new one
	expectBy time.Time             // when that is over
	settled  uint64                // cfgRev that is completely in the dataplane; 0 none
	progress chan struct{}         // closed and replaced when settled, or life, changes
	watchers map[int]func(Change)
	watchSeq int
	errs     errorLog
	cleaning *cleaning
	lanes    []uint32 // indexes of the probes' interfaces
	bfds     map[*bfdWatch]bool
	bfdLeft  map[bfdKey]bool // sessions that were wanted until now
	bfdHeard uint64          // events of BFD sessions

	probes probes // has a lock of its own
}

// instance is a dataplane's identity: a restarted one has another process or another boot time.
type instance struct {
	pid  uint32
	boot time.Time
}

// same allows for the clock's being set and for rounding.
func (i instance) same(o instance) bool {
	return i.pid == o.pid && i.boot.Sub(o.boot).Abs() < 5*time.Second
}

// New makes an agent. Run starts it.
func New(opt Options) *Agent {
	setDefault(&opt.Ping, 5*time.Second)
	setDefault(&opt.Audit, time.Minute)
	setDefault(&opt.MinBackoff, 250*time.Millisecond)
	setDefault(&opt.MaxBackoff, 30*time.Second)
	setDefault(&opt.LinkWait, 10*time.Second)
	if opt.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		opt.Log = logrus.NewEntry(l)
	}
	a := &Agent{
		opt: opt, log: opt.Log, poke: make(chan struct{}, 1), pokeBFD: make(chan struct{}, 1),
		cfg: opt.Config.clone(), cfgRev: 1,
		byName: make(map[string]uint32), byIndex: make(map[uint32]string),
		state: make(map[string]*ifState), links: make(map[string]link),
		progress: make(chan struct{}), watchers: make(map[int]func(Change)),
		bfds: make(map[*bfdWatch]bool), bfdLeft: make(map[bfdKey]bool),
	}
	a.status.Since = time.Now()
	return a
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Run connects, configures, and follows the dataplane until ctx ends, reconnecting for ever. It leaves the dataplane as it is
// and returns nil.
func (a *Agent) Run(ctx context.Context) error {
	wait := a.opt.MinBackoff
	for {
		attached, err := a.live(ctx)
		if ctx.Err() != nil {
			a.detached(ctx.Err())
			return nil
		}
		a.detached(err)
		if attached {
			wait = a.opt.MinBackoff
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, a.opt.MaxBackoff)
		if errors.As(err, new(*binapi.IncompatibleError)) {
			wait = a.opt.MaxBackoff
		}
	}
}

// live runs one connection from beginning to end. attached says whether it was of use.
func (a *Agent) live(ctx context.Context) (attached bool, err error) {
	t := newTransport(a.opt.Socket, "rlr "+a.config().Router)
	s := newSession(t, t.Done(), t.Err)
	s.many = func(n int32) { t.bulks.Add(n) }
	if err := t.connect(ctx); err != nil {
		return false, err
	}
	defer t.Disconnect()
	l := &life{
		a: a, s: s, log: a.log, retry: make(map[string]*backoff), adaptive: make(map[uint32]bool), adverts: make(map[uint32]bool),
		bfdDoomed: make(map[bfdKey]time.Time), hashes: make(map[table]FlowHash), guards: make(map[uint32]Guard),
	}
	if err := l.begin(ctx); err != nil {
		return false, err
	}
	a.expectLinks(l.instance)
	if err := l.sweepProbes(ctx); err != nil { // what a router left that died
		if !isRefusal(err) {
			return false, err
		}
		a.errs.add("probes", err)
	}
	if err := errors.Join(l.calmReassembly(ctx), l.hastenWalks(ctx)); err != nil {
		a.log.WithError(err).Debug("VPP is not tuned")
	}
	if err := l.reconcile(ctx); err != nil {
		return false, err
	}
	fresh := a.attached(l)
	a.log.WithField("version", l.status.Version).WithField("pid", l.status.PID).WithField("new", fresh).Info("dataplane attached")
	return true, l.follow(ctx)
}

// attached publishes a life that is ready for use.
func (a *Agent) attached(l *life) (fresh bool) {
	a.mu.Lock()
	fresh = !a.instance.same(l.instance)
	a.instance, a.life, a.status = l.instance, l, l.status
	a.status.Connected, a.status.Since = true, time.Now()
	a.progressLocked()
	a.mu.Unlock()
	a.notify(Change{Kind: Attached, NewInstance: fresh})
	a.notify(Change{Kind: InterfacesChanged})
	return fresh
}

func (a *Agent) detached(err error) {
	a.mu.Lock()
	was := a.life != nil
	first := a.status.Err == nil || a.status.Err.Error() != err.Error()
	a.life = nil
	a.settled = 0
	if a.status.Connected {
		a.status.Since = time.Now()
	}
	a.status.Connected, a.status.Err, a.status.Missing = false, err, nil
	var incompatible *binapi.IncompatibleError
	if errors.As(err, &incompatible) {
		a.status.Missing = incompatible.Rows
	}
	clear(a.byName)
	clear(a.byIndex)
	// links stay: a dataplane that has lost only our connection goes on forwarding, and what it is not connected to any more
	// shows when it is attached again.
	if c := a.cleaning; c != nil {
		a.cleaning = nil
		c.done <- fmt.Errorf("%w: %w", fib.ErrDisconnected, err)
	}
	a.progressLocked()
	a.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	a.errs.add("dataplane", err)
	if first {
		a.log.WithError(err).Warn("no connection to the dataplane")
		if incompatible != nil {
			a.logReasons(incompatible.Rows)
		}
	}
	if was {
		a.notify(Change{Kind: Detached, Err: err})
	}
}

// logReasons tells for which messages a dataplane is refused, a line for each.
func (a *Agent) logReasons(rows []binapi.Row) {
	for _, row := range rows {
		if row.Need == binapi.Required {
			a.log.WithFields(logrus.Fields{
				"message": row.Message, "feature": row.Feature, "wanted": row.Want, "found": cmp.Or(row.Found, "none"),
			}).Warn("a message of VPP's API differs")
		}
	}
}

func (a *Agent) progressLocked() {
	close(a.progress)
	a.progress = make(chan struct{})
}

// notify calls the watchers, from the agent's goroutine.
func (a *Agent) notify(c Change) {
	a.mu.Lock()
	list := make([]func(Change), 0, len(a.watchers))
	for _, w := range a.watchers {
		list = append(list, w)
	}
	a.mu.Unlock()
	for _, w := range list {
		w(c)
	}
}

// Watch calls f at each change, from the agent's goroutine, in order; f must not block and may call the agent's methods that
// take no context. cancel ends it, but does not wait for a call that is under way.
func (a *Agent) Watch(f func(Change)) (cancel func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := a.watchSeq
	a.watchSeq++
	a.watchers[id] = f
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, id)
	}
}

// SetConfig replaces the configuration. The difference is applied soon; Interfaces tells what became of it, and
// WaitConfigured waits for it.
func (a *Agent) SetConfig(c Config) {
	a.mu.Lock()
	a.cfg = c.clone()
	a.cfgRev++
	a.mu.Unlock()
	a.kick()
}

func (a *Agent) kick() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

func (a *Agent) config() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// WaitConfigured waits until every configured interface and table exists and is set up as configured; their links may be
// down. It goes on waiting while one fails: the error at ctx's end names it.
func (a *Agent) WaitConfigured(ctx context.Context) error {
	for {
		a.mu.Lock()
		ok := a.life != nil && a.settled == a.cfgRev
		progress := a.progress
		a.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), a.unsettled())
		}
	}
}

// unsettled says why the configuration is not all there.
func (a *Agent) unsettled() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life == nil {
		if a.status.Err != nil {
			return fmt.Errorf("dataplane not attached: %w", a.status.Err)
		}
		return errors.New("dataplane not attached")
	}
	for name, st := range a.state {
		if st.err != nil {
			return fmt.Errorf("interface %s: %w", name, st.err)
		}
	}
	if a.other != nil {
		return a.other
	}
	for name, err := range a.aclErrs {
		return fmt.Errorf("ACL %s: %w", name, err)
	}
	return errors.New("the dataplane is being configured")
}

// current returns the life that is in use.
func (a *Agent) current() (*life, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life == nil {
		if a.status.Err != nil {
			return nil, fmt.Errorf("%w: %w", fib.ErrDisconnected, a.status.Err)
		}
		return nil, fib.ErrDisconnected
	}
	return a.life, nil
}

// Status tells about the connection.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// isRefusal reports whether VPP answered, and said no.
func isRefusal(err error) bool {
	var e api.VPPApiError
	return errors.As(err, &e)
}
