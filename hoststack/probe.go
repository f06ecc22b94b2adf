package hoststack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// This file is ping and traceroute. A run opens its own conduit into the dataplane, numbers its echo requests with an
// identifier that no other run of this Prober uses, and matches what comes back by identifier, sequence number and
// destination. VPP's own ping reports counts without times, and it has no traceroute: hence ours.

// Prober makes probes through a dataplane. It may be used by many goroutines at once.
type Prober struct {
	probes Probes
	ifs    Interfaces

	mu   sync.Mutex
	used map[uint16]bool // echo identifiers of the runs in progress
}

// NewProber returns a Prober through a dataplane.
func NewProber(probes Probes, ifs Interfaces) *Prober {
	return &Prober{probes: probes, ifs: ifs, used: make(map[uint16]bool)}
}

// Limits of a request; what is beyond them is an error and not silently changed.
const (
	MaxCount   = 100000
	MaxPayload = maxPayload // bytes of data
	MaxTimeout = time.Minute
	MinPause   = time.Millisecond // between two requests
)

// Target says where probes go, and from where.
type Target struct {
	Addr      netip.Addr // a zone is an interface's name
	Source    netip.Addr // invalid: the address that the dataplane would use
	Table     uint32
	Interface string // out of which probes leave; "" means by the table's routes
	Size      int    // bytes of data in each request
	DontFrag  bool   // IPv4 only: routers must answer instead of fragmenting
}

// PingRequest asks for a ping.
type PingRequest struct {
	Target
	Count    int           // 0 means 4
	Interval time.Duration // from request to request; 0 means 1 s
	Timeout  time.Duration // for each answer; 0 means 1 s
	TTL      int           // 0 means 64
}

// TraceRequest asks for a traceroute.
type TraceRequest struct {
	Target
	MaxHops int           // 0 means 30
	Count   int           // requests a hop; 0 means 3
	Timeout time.Duration // for each answer; 0 means 1 s
}

// Reply is one answer, or its absence.
type Reply struct {
	Seq   int        // from 1
	Hop   int        // of a traceroute, from 1
	From  netip.Addr // invalid when nothing came in time
	RTT   time.Duration
	TTL   int    // in the answer's header, as it arrived
	Bytes int    // of ICMP in the answer
	Err   string // "" for an echo reply; else what the error message says, or "timeout"
	Final bool   // of a traceroute: no hop is beyond this one
}

// Summary ends a ping.
type Summary struct {
	Sent, Received int
	Min, Avg, Max  time.Duration // of the echo replies; zero without any
}

// Ping sends echo requests and calls report for each answer or timeout, one call at a time. It returns when every request
// is answered or has timed out, or with the context's error. Errors: unknown interface, no route or source address for the
// target, a value out of its limits.
func (p *Prober) Ping(ctx context.Context, req PingRequest, report func(Reply)) (Summary, error) {
	req.Count, req.Interval = orDefault(req.Count, 4), orDefault(req.Interval, time.Second)
	req.Timeout, req.TTL = orDefault(req.Timeout, time.Second), orDefault(req.TTL, 64)
	if err := errors.Join(limits("count", req.Count, 1, MaxCount), limits("TTL", req.TTL, 1, 255),
		limits("interval", req.Interval, MinPause, time.Hour), limits("timeout", req.Timeout, MinPause, MaxTimeout)); err != nil {
		return Summary{}, fmt.Errorf("ping %s: %w", req.Addr, err)
	}
	r, err := p.open(ctx, req.Target)
	if err != nil {
		return Summary{}, fmt.Errorf("ping %s: %w", req.Addr, err)
	}
	defer r.close()

	var s Summary
	var total time.Duration
	r.report = func(reply Reply) {
		if reply.Err == "" {
			s.Received++
			total += reply.RTT
			s.Max = max(s.Max, reply.RTT)
			if s.Min == 0 || reply.RTT < s.Min {
				s.Min = reply.RTT
			}
			s.Avg = total / time.Duration(s.Received)
		}
		report(reply)
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for s.Sent < req.Count || len(r.waiting) > 0 {
		select {
		case <-next.C:
			if s.Sent < req.Count {
				s.Sent++
				r.send(request{seq: s.Sent}, uint8(req.TTL), req.Timeout)
				next.Reset(req.Interval)
			}
		case a, ok := <-r.answers:
			if !ok {
				return s, fmt.Errorf("ping %s: %w", req.Addr, r.readErr)
			}
			r.match(a)
		case <-r.expire.C:
			r.timeouts(nil)
		case <-ctx.Done():
			return s, fmt.Errorf("ping %s: %w", req.Addr, ctx.Err())
		}
	}
	return s, nil
}

// Traceroute sends Count requests for each hop and goes on when all of them are answered or have timed out. What a hop leaves
// unanswered that does answer other requests is asked again. It ends at the target, at a node that says that the target cannot
// be reached, or after MaxHops. Errors are those of Ping.
func (p *Prober) Traceroute(ctx context.Context, req TraceRequest, report func(Reply)) error {
	req.MaxHops, req.Count = orDefault(req.MaxHops, 30), orDefault(req.Count, 3)
	req.Timeout = orDefault(req.Timeout, time.Second)
	if err := errors.Join(limits("hops", req.MaxHops, 1, 255), limits("count", req.Count, 1, 16),
		limits("timeout", req.Timeout, MinPause, MaxTimeout)); err != nil {
		return fmt.Errorf("traceroute %s: %w", req.Addr, err)
	}
	r, err := p.open(ctx, req.Target)
	if err != nil {
		return fmt.Errorf("traceroute %s: %w", req.Addr, err)
	}
	defer r.close()

	last := false
	r.report = func(reply Reply) {
		last = last || reply.Final
		report(reply)
	}
	for hop := 1; hop <= req.MaxHops && !last; hop++ {
		if err := r.hop(ctx, hop, req.Count, req.Timeout); err != nil {
			return fmt.Errorf("traceroute %s: %w", req.Addr, err)
		}
	}
	return nil
}

// Routers limit the rate of their errors, VPP's to one in a millisecond for a pair of addresses (src/vnet/ip/icmp6.c). So a
// hop's requests follow each other with a pause, after the answer to the one before if there is one soon: a machine that is
// busy lets them pile up otherwise, and they arrive at the router together.
const (
	hopPause = 3 * time.Millisecond  // from an answer to the next request
	hopWait  = 50 * time.Millisecond // for an answer, until the next request is made all the same
	hopTries = 3                     // of each request
)

// hop makes the requests for one hop and waits for what becomes of them.
func (r *run) hop(ctx context.Context, hop, count int, timeout time.Duration) error {
	var todo []request
	for k := range count {
		todo = append(todo, request{seq: (hop-1)*count + k + 1, hop: hop})
	}
	answered := false
	next := time.NewTimer(0)
	defer next.Stop()
	for len(todo) > 0 || len(r.waiting) > 0 {
		select {
		case <-next.C:
			if len(todo) > 0 {
				r.send(todo[0], uint8(hop), timeout)
				todo = todo[1:]
				next.Reset(hopWait)
			}
		case a, ok := <-r.answers:
			if !ok {
				return r.readErr
			}
			if r.match(a) {
				answered = true
				next.Reset(hopPause)
			}
		case <-r.expire.C:
			r.timeouts(func(q request) (again bool) {
				if again = answered && q.tries < hopTries; again {
					todo = append(todo, q)
					next.Reset(hopPause)
				}
				return again
			})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// run is one ping or traceroute. Its fields belong to the goroutine that started it, except for what the reader writes
// before it closes answers.
type run struct {
	prober  *Prober
	conduit io.ReadWriteCloser
	echo    echo // with the fields that every request of the run has
	report  func(Reply)

	answers chan timedAnswer // closed by the reader
	readErr error            // why the reader ended; read after answers is closed
	stop    chan struct{}    // ends a reader that nobody listens to

	waiting []request // in the order of their deadlines
	sends   uint16    // wraps
	expire  *time.Timer
}

type request struct {
	seq, hop int    // as reported
	wire     uint16 // sequence number in the packet: of each try its own
	tries    int
	sent     time.Time
	deadline time.Time
}

type timedAnswer struct {
	answer
	at time.Time
}

// open checks the target and starts the reader.
func (p *Prober) open(ctx context.Context, t Target) (*run, error) {
	dst := t.Addr.Unmap()
	if dst.IsUnspecified() || dst.IsMulticast() {
		return nil, fmt.Errorf("%s is no address of a node", dst)
	}
	if err := limits("size", t.Size, 0, MaxPayload); err != nil {
		return nil, err
	}
	index, err := interfaceIndex(p.ifs, interfaceOf(t.Interface, dst, t.Source), dst)
	if err != nil {
		return nil, err
	}
	dst = dst.WithZone("")
	src := t.Source.Unmap().WithZone("")
	if !src.IsValid() {
		if src, err = p.probes.SourceFor(ctx, t.Table, index, dst); err != nil {
			return nil, err
		}
		src = src.Unmap().WithZone("")
	}
	if src.Is4() != dst.Is4() {
		return nil, fmt.Errorf("source %s is of another family: %w", src, syscall.EADDRNOTAVAIL)
	}
	id, err := p.takeID()
	if err != nil {
		return nil, err
	}
	conduit, err := p.probes.OpenProbe(ctx, t.Table, index, src, dst)
	if err != nil {
		p.releaseID(id)
		return nil, err
	}
	r := &run{
		prober: p, conduit: conduit,
		echo:    echo{src: src, dst: dst, id: id, size: t.Size, dontFrag: t.DontFrag},
		answers: make(chan timedAnswer, 16),
		stop:    make(chan struct{}),
		expire:  time.NewTimer(time.Hour),
	}
	go r.read()
	return r, nil
}

// close ends the reader and waits for it.
func (r *run) close() {
	close(r.stop)
	_ = r.conduit.Close() // ends the reader; there is nothing else that it could fail to do
	for range r.answers {
	}
	r.expire.Stop()
	r.prober.releaseID(r.echo.id)
}

func (r *run) read() {
	defer close(r.answers)
	buf := make([]byte, 65536)
	for {
		n, err := r.conduit.Read(buf)
		if err != nil {
			r.readErr = fmt.Errorf("the dataplane ended the probe: %w", err)
			return
		}
		now := time.Now()
		a, err := parseAnswer(buf[:n])
		if err != nil || a.id != r.echo.id || a.dst != r.echo.dst {
			continue // somebody else's
		}
		select {
		case r.answers <- timedAnswer{answer: a, at: now}:
		case <-r.stop:
			return
		}
	}
}

// send makes one request. A packet that cannot be sent is reported like one that is not answered, with its reason.
func (r *run) send(q request, ttl uint8, timeout time.Duration) {
	r.sends++
	q.wire = r.sends
	q.tries++
	e := r.echo
	e.seq, e.ttl = q.wire, ttl
	packet, err := e.marshal()
	q.sent = time.Now()
	if err == nil {
		_, err = r.conduit.Write(packet)
	}
	if err != nil {
		r.report(Reply{Seq: q.seq, Hop: q.hop, Err: err.Error()})
		return
	}
	q.deadline = q.sent.Add(timeout)
	r.waiting = append(r.waiting, q)
	r.arm()
}

// match reports an answer if its request still waits: duplicates and late answers do not.
func (r *run) match(a timedAnswer) bool {
	i := slices.IndexFunc(r.waiting, func(q request) bool { return q.wire == a.seq })
	if i < 0 {
		return false
	}
	q := r.waiting[i]
	r.waiting = slices.Delete(r.waiting, i, i+1)
	r.arm()
	r.report(Reply{
		Seq: q.seq, Hop: q.hop, From: a.from, RTT: max(a.at.Sub(q.sent), 0), TTL: int(a.ttl), Bytes: a.bytes, Err: a.err,
		Final: q.hop > 0 && a.err != "time exceeded",
	})
	return true
}

// timeouts reports what was not answered in time, unless again takes it; nil takes nothing.
func (r *run) timeouts(again func(request) bool) {
	now := time.Now()
	for len(r.waiting) > 0 && !r.waiting[0].deadline.After(now) {
		q := r.waiting[0]
		r.waiting = r.waiting[1:]
		if again == nil || !again(q) {
			r.report(Reply{Seq: q.seq, Hop: q.hop, Err: "timeout"})
		}
	}
	r.arm()
}

func (r *run) arm() {
	if len(r.waiting) > 0 {
		r.expire.Reset(time.Until(r.waiting[0].deadline))
	}
}

// takeID picks an identifier at random, so that late answers to an earlier process's probes match nothing.
func (p *Prober) takeID() (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.used) > 1<<15 {
		return 0, errors.New("too many probes at once")
	}
	for {
		id := uint16(rand.Uint32())
		if !p.used[id] {
			p.used[id] = true
			return id, nil
		}
	}
}

func (p *Prober) releaseID(id uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, id)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func limits[T int | time.Duration](what string, v, low, high T) error {
	if v < low || v > high {
		return fmt.Errorf("%s is %v, must be between %v and %v", what, v, low, high)
	}
	return nil
}
