package hoststack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/memif"
)

// This file is Probes for a dataplane in another process: packets go through memifs, which vppagent makes there on demand
// (vppagent/probe.go says how they are routed, and how answers come back). All probes that are open at a time share them.
//
// The memifs exist from the first probe until none has been open for a while, so that an idle router costs VPP nothing and
// gets nothing of what VPP punts. When a memif goes down (VPP died, or removed it) every open probe ends with an error; the
// next one begins anew.

// ProbePlumber is the other half, in the dataplane. vppagent implements it.
type ProbePlumber interface {
	// OpenProbe prepares the way of packets from src to dst. They are to be written, with the source from, to the IP-mode
	// memif with the ID lane at socket, where the dataplane listens. What is longer than mtu leaves only in fragments. Answers
	// may come from any lane's memif. release ends it.
	OpenProbe(ctx context.Context, socket string, table, swIfIndex uint32, src, dst netip.Addr) (
		lane uint32, from netip.Addr, mtu int, release func(), err error)
	// CloseProbes removes everything that OpenProbe has made.
	CloseProbes(ctx context.Context) error
	// SourceFor is Probes.SourceFor.
	SourceFor(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error)
}

// MemifOptions of NewMemifProbes.
type MemifOptions struct {
	Socket  string // path, at most 107 bytes; nobody else's
	Plumber ProbePlumber
	Idle    time.Duration // how long the memifs outlive the last probe; 0 means 15 s
	Log     *logrus.Entry
}

// MemifProbes implements Probes. Its methods may be called from any goroutine.
type MemifProbes struct {
	opt     MemifOptions
	log     *logrus.Entry
	opening chan struct{} // one slot: who makes or removes memifs
	kick    chan struct{} // one slot: wakes Run
	started chan struct{} // closed by Run

	mu      sync.Mutex
	stopped bool
	shared  *cables // nil while there are none
	idle    time.Time
	broken  bool // a cable failed: what the plumber has made is to be removed
}

// Limits of the shared memory, which is 2 rings of them for each lane, and of waiting.
const (
	probeRing     = 256
	probeBuffer   = 2048
	probeQueue    = 128 // answers that wait for a reader
	lanePatience  = 5 * time.Second
	sweepPatience = 5 * time.Second
)

var (
	errProbesStopped = errors.New("the router is stopping")
	errProbesLost    = errors.New("the dataplane has gone, or has removed the probes' interface")
)

// NewMemifProbes returns Probes that work once Run does. Nothing happens in the dataplane before the first probe.
func NewMemifProbes(opt MemifOptions) *MemifProbes {
	opt.Idle = orDefault(opt.Idle, 15*time.Second)
	if opt.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		opt.Log = logrus.NewEntry(l)
	}
	return &MemifProbes{
		opt: opt, log: opt.Log, opening: make(chan struct{}, 1), kick: make(chan struct{}, 1), started: make(chan struct{}),
	}
}

// cables are the memifs of one lifetime, and the probes through them.
type cables struct {
	m      *MemifProbes
	ctx    context.Context // of the memifs
	cancel context.CancelFunc
	wg     sync.WaitGroup
	lanes  map[uint32]*cable // guarded by MemifProbes.opening

	mu   sync.Mutex
	open []*memifConduit
	err  error // why it has ended
}

type cable struct {
	memif *memif.Interface
	up    chan struct{} // closed at the first link
}

// Run makes probes possible until ctx ends. Then it ends them, and removes what is in the dataplane as far as that answers:
// the plumber should outlive it. It runs once.
func (m *MemifProbes) Run(ctx context.Context) error {
	close(m.started)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.mu.Lock()
			m.stopped = true
			m.mu.Unlock()
			m.opening <- struct{}{} // who has it is done in lanePatience
			m.tearDown(errProbesStopped)
			<-m.opening
			return nil
		case <-m.kick:
		case <-timer.C:
		}
		timer.Reset(m.tidy())
	}
}

// tidy removes what is broken or has not been used for a while, and says when to look again.
func (m *MemifProbes) tidy() time.Duration {
	m.opening <- struct{}{}
	defer func() { <-m.opening }()
	m.mu.Lock()
	broken, shared, left := m.broken, m.shared, time.Until(m.idle)
	m.mu.Unlock()
	switch {
	case broken:
		m.tearDown(errProbesLost)
	case shared == nil || shared.used():
		return time.Hour
	case left > 0:
		return left
	default:
		m.tearDown(nil)
	}
	return time.Hour
}

// tearDown ends the cables, if there are any. The caller has opening.
func (m *MemifProbes) tearDown(why error) {
	m.mu.Lock()
	shared, broken := m.shared, m.broken
	m.shared, m.broken = nil, false
	m.mu.Unlock()
	if shared == nil && !broken {
		return
	}
	if shared != nil {
		shared.end(why)
		shared.wg.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), sweepPatience)
	defer cancel()
	if err := m.opt.Plumber.CloseProbes(ctx); err != nil {
		m.log.WithError(err).Debug("probes' interfaces not removed") // the plumber looks for them when it connects again
	}
}

func (m *MemifProbes) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// SourceFor implements Probes.
func (m *MemifProbes) SourceFor(ctx context.Context, table, swIfIndex uint32, dst netip.Addr) (netip.Addr, error) {
	return m.opt.Plumber.SourceFor(ctx, table, swIfIndex, dst)
}

// OpenProbe implements Probes. It waits for Run, and may take seconds when the dataplane is busy.
func (m *MemifProbes) OpenProbe(ctx context.Context, table, swIfIndex uint32, src, dst netip.Addr) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, lanePatience)
	defer cancel()
	select {
	case <-m.started:
	case <-ctx.Done():
		return nil, fmt.Errorf("open probe: %w", ctx.Err())
	}
	select {
	case m.opening <- struct{}{}:
		defer func() { <-m.opening }()
	case <-ctx.Done():
		return nil, fmt.Errorf("open probe: %w", ctx.Err())
	}
	shared, err := m.cables()
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	lane, from, mtu, release, err := m.opt.Plumber.OpenProbe(ctx, m.opt.Socket, table, swIfIndex, src, dst)
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	c := &memifConduit{
		shared: shared, release: release, src: src, dst: dst, from: from, mtu: mtu,
		in: make(chan []byte, probeQueue), done: make(chan struct{}),
	}
	if c.cable, err = shared.connect(ctx, lane); err == nil {
		err = shared.add(c)
	}
	if err != nil {
		release()
		m.lost(shared, errProbesLost)
		return nil, fmt.Errorf("open probe: %w", err)
	}
	return c, nil
}

// cables returns the cables there are, or begins. The caller has opening.
func (m *MemifProbes) cables() (*cables, error) {
	m.mu.Lock()
	broken := m.broken
	m.mu.Unlock()
	if broken {
		m.tearDown(errProbesLost)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil, errProbesStopped
	}
	m.idle = time.Now().Add(m.opt.Idle)
	if m.shared == nil {
		m.shared = &cables{m: m, lanes: make(map[uint32]*cable)}
		m.shared.ctx, m.shared.cancel = context.WithCancel(context.Background())
		m.wake() // should nothing come of it
	}
	return m.shared, nil
}

// lost ends cables of which one has failed. It does not wait for them.
func (m *MemifProbes) lost(s *cables, why error) {
	m.mu.Lock()
	if m.shared == s {
		m.broken = true
	}
	m.mu.Unlock()
	s.end(why)
	m.wake()
}

// connect returns a lane's memif when its link is up.
func (s *cables) connect(ctx context.Context, lane uint32) (*cable, error) {
	c := s.lanes[lane]
	if c == nil {
		c = &cable{up: make(chan struct{})}
		var err error
		var seen bool // by Run's goroutine only
		c.memif, err = memif.New(memif.Config{
			ID: lane, Role: memif.Slave, Mode: memif.IP, Socket: s.m.opt.Socket, Name: fmt.Sprintf("probe%d", lane),
			RingSize: probeRing, BufferSize: probeBuffer, Log: s.m.log,
			OnLink: func(up bool) {
				switch {
				case up && !seen:
					seen = true
					close(c.up)
				case !up && s.ctx.Err() == nil:
					s.m.lost(s, errProbesLost)
				}
			},
		})
		if err != nil {
			return nil, err
		}
		s.lanes[lane] = c
		s.wg.Go(func() {
			if err := c.memif.Run(s.ctx); err != nil {
				s.m.log.WithError(err).Error("probes' memif failed")
			}
		})
		s.wg.Go(func() { s.read(c) })
	}
	select {
	case <-c.up:
		return c, nil
	case <-s.ctx.Done():
		return nil, errProbesLost
	case <-ctx.Done():
		return nil, fmt.Errorf("probes' memif at %s: %s: %w", s.m.opt.Socket, c.memif.Stats().LastError, ctx.Err())
	}
}

// read hands what comes from a lane to the probes that it may concern. Everything else that VPP punts ends here.
func (s *cables) read(c *cable) {
	const batch = 4
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, 65536)
	}
	for {
		n, err := c.memif.ReadBatch(0, bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			if a, err := parseAnswer(bufs[i][:sizes[i]]); err == nil {
				s.deliver(a, bufs[i][:sizes[i]])
			}
		}
	}
}

func (s *cables) deliver(a answer, packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		if c.dst == a.dst && c.id.Load() == int64(a.id) && len(c.in) < cap(c.in) { // under mu this is the only sender
			c.in <- slices.Clone(packet)
		}
	}
}

func (s *cables) used() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) > 0
}

func (s *cables) add(c *memifConduit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.open = append(s.open, c)
	return nil
}

// end ends all probes, with an error for their readers, and the memifs.
func (s *cables) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = why
		if why == nil {
			s.err = errProbesLost
		}
	}
	for _, c := range s.open {
		c.end(s.err)
	}
	s.cancel()
}

// memifConduit is one probe through a cable.
type memifConduit struct {
	shared    *cables
	cable     *cable
	release   func()
	src, dst  netip.Addr
	from      netip.Addr // the source to write
	mtu       int
	id        atomic.Int64
	in        chan []byte
	done      chan struct{}
	closing   sync.Once
	err       error // why it has ended, once done is closed
	releasing sync.Once
}

func (c *memifConduit) end(why error) {
	c.closing.Do(func() {
		c.err = why
		close(c.done)
	})
}

// Read returns one packet; what does not fit into b is cut.
func (c *memifConduit) Read(b []byte) (int, error) {
	select {
	case <-c.done:
		return 0, c.err
	default:
	}
	select {
	case <-c.done:
		return 0, c.err
	case p := <-c.in:
		return copy(b, p), nil
	}
}

// Close ends the probe. The memifs stay for the next one.
func (c *memifConduit) Close() error {
	c.end(io.EOF)
	c.releasing.Do(func() {
		s, m := c.shared, c.shared.m
		s.mu.Lock()
		s.open = slices.DeleteFunc(s.open, func(o *memifConduit) bool { return o == c })
		last := len(s.open) == 0
		s.mu.Unlock()
		c.release()
		if last {
			m.mu.Lock()
			m.idle = time.Now().Add(m.opt.Idle)
			m.mu.Unlock()
			m.wake()
		}
	})
	return nil
}

// maxHops is a packet's largest TTL: one hop more, which is VPP's own, must fit.
const maxHops = 254

// dontFragment is IPv4's flag, in byte 6 of the header (RFC 791 §3.1). IPv6 packets are never fragmented on the way.
const dontFragment = 0x40

// Write sends an echo request from src to dst. Errors: EINVAL for anything else; EMSGSIZE; ENOBUFS when VPP takes no more at
// the moment; why the probe ended.
func (c *memifConduit) Write(packet []byte) (int, error) {
	select {
	case <-c.done:
		return 0, c.err
	default:
	}
	h, body, err := parseIP(packet)
	switch {
	case len(packet) > 65535:
		return 0, syscall.EMSGSIZE
	case err != nil || len(body) < echoHeaderLen || h.src != c.src || h.dst != c.dst:
		return 0, fmt.Errorf("probe: not an echo request from %s to %s: %w", c.src, c.dst, syscall.EINVAL)
	case len(packet) > c.mtu && (h.version == 6 || packet[6]&dontFragment != 0):
		return 0, fmt.Errorf("too long to leave here (MTU %d): %w", c.mtu, syscall.EMSGSIZE)
	case h.ttl > maxHops && c.from == c.src:
		return 0, fmt.Errorf("probe: VPP counts as a hop, so a TTL of %d is the largest: %w", maxHops, syscall.EINVAL)
	}
	c.id.Store(int64(binary.BigEndian.Uint16(body[4:])))
	out := slices.Clone(packet)
	c.address(out, h)
	n, err := c.cable.memif.WriteBatch(0, [][]byte{out})
	switch {
	case err != nil:
		return 0, fmt.Errorf("probe: %w", err)
	case n == 0:
		return 0, fmt.Errorf("probe: %w", syscall.ENOBUFS)
	}
	return len(packet), nil
}

// address makes the packet what is to go into VPP: one TTL more when VPP forwards it, and the source that the plumber wants.
func (c *memifConduit) address(p []byte, h ipHeader) {
	hops := h.ttl
	if c.from == c.src {
		hops++
	}
	if h.version == 4 {
		p[8] = hops
		src := c.from.As4()
		copy(p[12:], src[:])
		clear(p[10:12])
		binary.BigEndian.PutUint16(p[10:], checksum(p[:int(p[0]&0x0f)*4]))
		return
	}
	p[7] = hops
	if c.from != c.src {
		src := c.from.As16()
		icmp := p[ipv6HeaderLen:]
		binary.BigEndian.PutUint16(icmp[2:], adjust(binary.BigEndian.Uint16(icmp[2:]), p[8:24], src[:]))
		copy(p[8:], src[:])
	}
}

// adjust returns a checksum after a change of what it covers (RFC 1624 §3).
func adjust(sum uint16, before, after []byte) uint16 {
	s := uint32(^sum)
	for i := 0; i+1 < len(before); i += 2 {
		s += uint32(^binary.BigEndian.Uint16(before[i:])) + uint32(binary.BigEndian.Uint16(after[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
