package hoststack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// ErrNoHelper is in the error of a Dial or Listen while VPP's TCP cannot be reached. The error says why.
var ErrNoHelper = errors.New("VPP's TCP is not available")

// slot keeps one helper running, and what must outlive it: the listeners.
type slot struct {
	v     *VCL
	key   slotKey
	log   *logrus.Entry
	ids   atomic.Uint64 // of dials and listeners
	ports atomic.Uint32 // the latest local port that we chose
	// turn is held by who binds the namespace, until VPP has taken the connect.
	turn chan struct{}

	mu        sync.Mutex
	client    *client       // nil while there is no helper that is attached
	err       error         // why the latest attempt to start one failed
	changed   chan struct{} // closed and replaced when one of the above changes
	wanted    chan struct{} // one slot: somebody waits for a bound helper
	listeners map[*vclListener]struct{}
	stopped   bool
}

// Back-off between attempts to start a helper.
const (
	minRestart = 100 * time.Millisecond
	maxRestart = 5 * time.Second
)

func newSlot(v *VCL, key slotKey) *slot {
	s := &slot{
		v: v, key: key, log: v.log.WithField("namespace", namespaceID(v.opt.Name, key)), turn: make(chan struct{}, 1),
		changed: make(chan struct{}), wanted: make(chan struct{}, 1), listeners: make(map[*vclListener]struct{}),
	}
	s.ports.Store(rand.Uint32()) // not those of the router that ran before
	return s
}

// run starts helpers until ctx ends.
func (s *slot) run(ctx context.Context) {
	defer s.stop()
	wait, said := time.Duration(0), ""
	for {
		if s.key.bound { // its namespace is there only after a Dial has bound it
			select {
			case <-s.wanted:
			case <-ctx.Done():
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		c, err := s.start(ctx)
		if err == nil {
			wait, said = 0, ""
			err = s.serve(ctx, c)
		} else {
			s.publish(nil, err)
		}
		if ctx.Err() != nil {
			return
		}
		wait = min(max(2*wait, minRestart), maxRestart)
		log := s.log.WithError(err).WithField("retry", wait.String())
		if text := err.Error(); text != said {
			said = text
			log.Warn("no TCP on VPP")
		} else {
			log.Debug("still no TCP on VPP")
		}
	}
}

// start starts a helper in the namespace.
func (s *slot) start(ctx context.Context) (*client, error) {
	if !s.key.bound && s.key.table != 0 {
		id := namespaceID(s.v.opt.Name, s.key)
		if err := s.v.opt.Namespaces.BindNamespace(ctx, id, s.v.secret, s.key.table, AnyInterface); err != nil {
			return nil, fmt.Errorf("application namespace %s: %w", id, err)
		}
	}
	return s.v.startHelper(ctx, s.key, s.log)
}

// serve lives with a helper until it ends.
func (s *slot) serve(ctx context.Context, c *client) error {
	c.accept = s.accepted
	again := s.current() // before anybody can listen by the new one
	select {
	case <-s.wanted:
	default:
	}
	s.publish(c, nil)
	s.log.WithField("pid", c.pid()).Info("TCP on VPP is available")
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		s.relisten(ctx, c, again)
	}()
	err := c.run(ctx)
	s.publish(nil, nil)
	cancel()
	wg.Wait()
	return err
}

func (s *slot) publish(c *client, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.err = c, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// stop closes the listeners for good.
func (s *slot) stop() {
	s.mu.Lock()
	s.stopped = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	for _, l := range s.current() {
		_ = l.Close()
	}
}

// current returns the listeners.
func (s *slot) current() []*vclListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.listeners))
}

// acquire returns the helper that is attached. It waits while one is being started, but not when that has just failed.
func (s *slot) acquire(ctx context.Context) (*client, error) {
	for first := true; ; first = false {
		s.mu.Lock()
		c, err, changed, stopped := s.client, s.err, s.changed, s.stopped
		s.mu.Unlock()
		switch {
		case stopped:
			return nil, net.ErrClosed
		case c != nil:
			return c, nil
		}
		select {
		case s.wanted <- struct{}{}:
		default:
		}
		if err != nil && !(s.key.bound && first) { // a bound one is started because we ask
			return nil, fmt.Errorf("%w: %w", ErrNoHelper, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *slot) dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	d, err := c.dial(s.ids.Add(1), s.key.table, local, remote, "")
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, d)
}

// binding is the interface of a connect.
type binding struct {
	index uint32
	name  string
}

const (
	// takenPatience bounds how long a connect may keep the others from binding the namespace.
	takenPatience = 3 * time.Second
	portAttempts  = 8
)

// dialBound connects by an interface.
func (s *slot) dialBound(ctx context.Context, b binding, local, remote netip.AddrPort) (net.Conn, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, d, err := s.beginBound(ctx, b, local, remote)
	<-s.turn
	if err != nil {
		return nil, err
	}
	conn, err := c.wait(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := s.leavesBy(ctx, b, d.local, remote); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// leavesBy makes sure that a connection is of the interface that was asked for: with the same addresses on several, nobody
// else would notice.
func (s *slot) leavesBy(ctx context.Context, b binding, local, remote netip.AddrPort) error {
	index, found, err := s.v.opt.Sessions.SessionInterface(ctx, s.key.table, local, remote)
	switch {
	case err != nil:
		return fmt.Errorf("find the session on VPP: %w", err)
	case found && index != b.index && index != AnyInterface:
		return fmt.Errorf("VPP connected by interface %d instead of %s", index, b.name)
	}
	return nil
}

// beginBound binds the namespace and connects. It returns when VPP has taken the connect, or refused it.
func (s *slot) beginBound(ctx context.Context, b binding, local, remote netip.AddrPort) (*client, *dialing, error) {
	id := namespaceID(s.v.opt.Name, s.key)
	if err := s.v.opt.Namespaces.BindNamespace(ctx, id, s.v.secret, s.key.table, b.index); err != nil {
		return nil, nil, fmt.Errorf("bind application namespace %s to interface %s: %w", id, b.name, err)
	}
	if !local.Addr().IsValid() {
		// VPP passes over link-local addresses when it chooses a source.
		a, err := s.v.opt.Addresses.LinkLocalAddress(ctx, b.index)
		if err != nil {
			return nil, nil, fmt.Errorf("link-local address of interface %s: %w: %w", b.name, syscall.EADDRNOTAVAIL, err)
		}
		local = netip.AddrPortFrom(a.WithZone(""), local.Port())
	}
	c, err := s.acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		from := local
		if from.Port() == 0 {
			from = netip.AddrPortFrom(from.Addr(), s.nextPort())
		}
		d, err := c.dial(s.ids.Add(1), s.key.table, from, remote, b.name)
		if err != nil {
			return nil, nil, err
		}
		err = s.taken(ctx, c, d, from, remote)
		if errors.Is(err, syscall.EADDRINUSE) && from != local && attempt < portAttempts {
			continue
		}
		if err != nil {
			c.cancel(d)
			return nil, nil, err
		}
		return c, d, nil
	}
}

// nextPort returns a local port for a connect, so that the session can be found before it is connected. One after the other:
// VPP lets a port be used again whose connection is in TIME-WAIT, but then connects only when that is over, 10 s later.
func (s *slot) nextPort() uint16 {
	const first, count = 49152, 16384 // RFC 6335 §6: dynamic ports
	return uint16(first + s.ports.Add(1)%count)
}

// taken waits until VPP has made a session of a connect: it has looked at the namespace's binding then. An error that has come
// instead is left for wait, but for a port in use.
func (s *slot) taken(ctx context.Context, c *client, d *dialing, local, remote netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, takenPatience)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-d.done:
			if errors.Is(d.err, syscall.EADDRINUSE) {
				return d.err
			}
			return nil
		case <-c.gone:
			return nil // wait tells
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("VPP has not taken the connect: %w", ctx.Err())
		}
		if _, found, err := s.v.opt.Sessions.SessionInterface(ctx, s.key.table, local, remote); found || err != nil {
			return err
		}
	}
}

// zoneOf names the interface of an accepted connection.
func (s *slot) zoneOf(ctx context.Context, local, remote netip.AddrPort) (string, error) {
	index, found, err := s.v.opt.Sessions.SessionInterface(ctx, s.key.table, local, remote)
	switch {
	case err != nil:
		return "", err
	case !found:
		return "", errors.New("VPP has no such session any more")
	}
	name, ok := s.v.opt.Interfaces.InterfaceName(index)
	if !ok {
		return "", fmt.Errorf("VPP has it on no interface that the router knows (%d)", int32(index))
	}
	return name, nil
}

// listen makes a listener that outlives helpers.
func (s *slot) listen(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	c, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	l := newVCLListener(s, local)
	if err := c.listen(ctx, s.ids.Add(1), s.key.table, l); err != nil {
		return nil, err
	}
	s.mu.Lock()
	stopped, same := s.stopped, s.client == c
	if !stopped {
		s.listeners[l] = struct{}{}
	}
	s.mu.Unlock()
	if stopped || !same { // same: or relisten may have missed it
		_ = l.Close()
		return nil, fmt.Errorf("%w: its helper ended", ErrNoHelper)
	}
	return l, nil
}

// relisten tells a new helper what to listen on. VPP may still be cleaning up after the one before: what fails is tried
// again.
func (s *slot) relisten(ctx context.Context, c *client, todo []*vclListener) {
	for wait := minRestart; len(todo) > 0; wait = min(2*wait, maxRestart) {
		var again []*vclListener
		for _, l := range todo {
			if err := c.listen(ctx, s.ids.Add(1), s.key.table, l); err != nil && ctx.Err() == nil && !l.isClosed() {
				s.log.WithError(err).WithField("address", l.where().String()).Warn("VPP does not listen again")
				again = append(again, l)
			}
		}
		todo = again
		if len(todo) == 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (s *slot) unlisten(l *vclListener) {
	s.mu.Lock()
	delete(s.listeners, l)
	c := s.client
	s.mu.Unlock()
	if c != nil {
		c.unlisten(l)
	}
}

// attributeTime bounds the search for the interface of an accepted connection.
const attributeTime = 3 * time.Second

// accepted finds out about an accepted connection what is missing, and delivers it. It may take its time.
func (s *slot) accepted(ctx context.Context, l *vclListener, conn *vclConn, local, remote netip.AddrPort) {
	if needsInterface(remote.Addr()) || needsInterface(local.Addr()) {
		ctx, cancel := context.WithTimeout(ctx, attributeTime)
		defer cancel()
		zone, err := s.zoneOf(ctx, local, remote)
		if err != nil {
			s.log.WithError(err).WithField("remote", remote.String()).Warn("connection closed: its interface is unknown")
			_ = conn.Close()
			return
		}
		conn.local, conn.remote = plainTCPAddr(local, zone), plainTCPAddr(remote, zone)
	}
	l.deliver(conn)
}
