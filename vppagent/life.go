package vppagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/binapi/vpe"

	"rlr/binapi"
)

// life is one connection to a dataplane, and all that is void with it: indexes, ids, subscriptions. Its goroutine is
// Agent.Run's.
type life struct {
	a        *Agent
	s        *session
	log      *logrus.Entry
	report   *binapi.Report
	instance instance
	status   Status
	source   uint8 // our FIB source

	events    chan struct{}        // one slot: an interface changed
	tried     uint64               // Agent.cfgRev of the latest pass
	retry     map[string]*backoff  // interfaces that failed; "" is everything else
	commands  atomic.Int32         // that VPP's command line is busy with
	heard     chan struct{}        // one slot: a router was heard of that is news
	adverts   map[uint32]bool      // interfaces that were told whether to advertise since their link came up
	adaptive  map[uint32]bool      // memifs whose receive mode was set since their link came up
	hashes    map[table]FlowHash   // that tables were told
	guards    map[uint32]Guard     // that interfaces were told, by index
	bfdDoomed map[bfdKey]time.Time // sessions that go then, unless they are wanted again
	counting  bool                 // the dataplane was told to count what ACLs match
	// filtering: there was room for what the first ACL of an interface takes.
	filtering bool

	// routes guards what our routes are in the dataplane: fib's writes share it, and who removes interfaces has it alone.
	routes  sync.RWMutex
	dumped  atomic.Bool // fib has seen what we hold, so it may write
	cleaned bool        // no routes are written any more
	guard   guard
}

// begin finds out who is there, and prepares our place in it.
func (l *life) begin(ctx context.Context) error {
	var err error
	if l.report, err = binapi.Check(ctx, l.s, l.a.opt.Socket); err != nil {
		return err
	}
	var ping memclnt.ControlPingReply
	if err := l.s.call(ctx, &memclnt.ControlPing{}, &ping); err != nil {
		return err
	}
	var version vpe.ShowVersionReply
	if err := l.s.call(ctx, &vpe.ShowVersion{}, &version); err != nil {
		return err
	}
	// The message show_vpe_system_time tells the time of day; how long VPP has run, only its command line tells.
	var clock vlib.CliInbandReply
	asked := time.Now()
	if err := l.s.call(ctx, &vlib.CliInband{Cmd: "show clock"}, &clock); err != nil {
		return err
	}
	l.instance = instance{ping.VpePID, asked.Add(-uptime(clock.Reply))}
	l.status = Status{Version: version.Version, PID: ping.VpePID, Boot: l.instance.boot, Missing: l.report.Rows}
	if l.source, err = source(ctx, l.s, l.a.sourceName()); err != nil {
		return err
	}
	if err := l.hear(ctx); err != nil {
		return err
	}
	if err := l.watchBFD(ctx); err != nil {
		return err
	}
	return l.subscribe(ctx)
}

// uptime reads "Time now 123.456, Sat, 21 Nov 2026 …"; 0 when it cannot.
func uptime(clock string) time.Duration {
	_, rest, _ := strings.Cut(clock, "Time now ")
	number, _, _ := strings.Cut(rest, ",")
	seconds, err := strconv.ParseFloat(number, 64)
	if err != nil || !(seconds >= 0 && seconds < 1e9) {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// sourceName is our FIB source's. Routers that share a VPP must not take each other's routes for theirs.
func (a *Agent) sourceName() string {
	cfg := a.config()
	name := "rlr/" + cfg.Router
	return name[:min(len(name), maxTag)]
}

// subscribe asks for interface events before the first look, so that nothing falls in between. An event says that something
// happened, not what is: its flags describe a batch of events.
func (l *life) subscribe(ctx context.Context) error {
	l.events = make(chan struct{}, 1)
	err := l.s.event(&interfaces.SwInterfaceEvent{}, func() {
		select {
		case l.events <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	return l.s.call(ctx, &interfaces.WantInterfaceEvents{EnableDisable: 1, PID: uint32(os.Getpid())},
		new(interfaces.WantInterfaceEventsReply))
}

// follow answers to events, the clock and new configurations until the connection or ctx ends.
func (l *life) follow(ctx context.Context) error {
	ping := time.NewTicker(l.a.opt.Ping)
	defer ping.Stop()
	audit := time.NewTicker(l.a.opt.Audit)
	defer audit.Stop()
	for {
		again := time.NewTimer(l.nextRetry())
		var err error
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.s.done:
			err = l.s.err()
		case <-ping.C:
			if l.commands.Load() == 0 {
				err = l.s.call(ctx, &memclnt.ControlPing{}, new(memclnt.ControlPingReply))
			}
			if err == nil {
				err = l.lookForRouters(ctx)
			}
		case <-l.heard:
			if err = l.approach(ctx); err == nil {
				l.notify(InterfacesChanged)
			}
		case <-l.events:
			err = l.eventful(ctx)
		case <-l.a.pokeBFD:
			err = l.settleBFD(ctx)
		case <-l.a.poke:
			l.cleanIfAsked(ctx)
			err = l.reconcile(ctx)
		case <-audit.C:
			err = l.reconcile(ctx)
		case <-again.C:
			err = l.reconcile(ctx)
		}
		again.Stop()
		if err != nil {
			return err
		}
	}
}

// eventful looks at the interfaces' states after an event, and at everything when interfaces came or went or one is not as
// administered.
func (l *life) eventful(ctx context.Context) error {
	now, err := links(ctx, l.s)
	if err != nil {
		return err
	}
	if !l.a.linksMoved(now) {
		return l.reconcile(ctx)
	}
	l.setAdaptive(ctx, now)
	l.advertise(ctx, now)
	l.notify(InterfacesChanged)
	return l.settleBFD(ctx)
}

// notify tells the watchers; before the life is in use they need not know, as Attached will tell them to look at everything.
func (l *life) notify(kind ChangeKind) {
	l.a.mu.Lock()
	used := l.a.life == l
	l.a.mu.Unlock()
	if used {
		l.a.notify(Change{Kind: kind})
	}
}

// backoff is when an interface that failed is tried again.
type backoff struct {
	wait time.Duration
	at   time.Time
}

func (l *life) failed(name string) {
	b := l.retry[name]
	if b == nil {
		b = &backoff{wait: l.a.opt.MinBackoff}
		l.retry[name] = b
	} else {
		b.wait = min(2*b.wait, l.a.opt.MaxBackoff)
	}
	b.at = time.Now().Add(b.wait)
}

// waits reports whether an interface has failed and is not to be tried again yet.
func (l *life) waits(name string) bool {
	b := l.retry[name]
	return b != nil && time.Now().Before(b.at)
}

// nextRetry returns how long until a failed interface is tried again, or links are not waited for any more; an hour when there
// are none.
func (l *life) nextRetry() time.Duration {
	wait := time.Hour
	if left, ok := l.a.expectsLinks(); ok {
		wait = left
	}
	for _, b := range l.retry {
		wait = min(wait, max(time.Until(b.at), 0))
	}
	for _, at := range l.bfdDoomed {
		wait = min(wait, max(time.Until(at), 0))
	}
	return wait
}

// cleaning is a call of Clean that waits.
type cleaning struct{ done chan error }

// Clean removes all that is ours from the dataplane: routes, interfaces, tables. Afterwards the agent wants nothing until
// SetConfig, and writes no routes over this connection any more. Stop the fib.Syncer first, or it goes on asking. Clean needs
// Run, and fails when there is no connection.
func (a *Agent) Clean(ctx context.Context) error {
	c := &cleaning{done: make(chan error, 1)}
	a.mu.Lock()
	if a.life == nil || a.cleaning != nil {
		a.mu.Unlock()
		return errors.New("cleaning the dataplane: no connection, or it is being cleaned")
	}
	a.cleaning = c
	a.mu.Unlock()
	a.kick()
	select {
	case err := <-c.done:
		if err != nil {
			return fmt.Errorf("cleaning the dataplane: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cleanIfAsked empties the configuration, so that a reconciliation removes everything, after the routes. What fails is the
// caller's to know; if it is the connection, follow notices by itself.
func (l *life) cleanIfAsked(ctx context.Context) {
	l.a.mu.Lock()
	c := l.a.cleaning
	if c == nil {
		l.a.mu.Unlock()
		return
	}
	l.a.cfg.Interfaces, l.a.cfg.Tables, l.a.cfg.ACLs = nil, nil, nil
	l.a.cfgRev++
	rev := l.a.cfgRev
	l.a.mu.Unlock()

	l.routes.Lock()
	l.cleaned = true
	err := l.purgeAllLocked(ctx)
	l.routes.Unlock()
	if err == nil {
		err = l.sweepProbes(ctx)
	}
	if err == nil {
		err = l.reconcile(ctx)
	}
	if err == nil {
		l.a.mu.Lock()
		settled := l.a.settled == rev
		l.a.mu.Unlock()
		if !settled {
			err = l.a.unsettled()
		}
	}
	l.a.mu.Lock()
	l.a.cleaning = nil
	l.a.mu.Unlock()
	c.done <- err
}
