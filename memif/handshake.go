package memif

// The handshake. The master speaks first (HELLO: its limits), the slave answers with what it wants (INIT), its memory
// (ADD_REGION with a memfd), its rings (ADD_RING with an eventfd each) and CONNECT; the master acknowledges every
// message and ends with CONNECTED. The slave waits for each ACK before it sends on: VPP's master answers one message
// per event and would keep a second answer back.

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	noDeadline   time.Time
	errPeerGone  = errors.New("peer closed the connection")
	errShutdown  = errors.New("interface is shut down")
	errBadBuffer = errors.New("peer offered a buffer outside its memory")
)

// RejectedError is a DISCONNECT message: the peer's own reason.
type RejectedError struct{ Reason string }

func (e *RejectedError) Error() string { return "peer disconnected: " + e.Reason }

// software is what HELLO and INIT say about us. Ends of this kind order their interrupt tests (see rx.go).
const software = "rlr memif"

// session is one established connection: rings, memory and the socket that says when it is over.
type session struct {
	conn    *conn
	rx      []*rxQueue
	tx      []*txQueue
	regions [][]byte
	peer    Peer
}

// watch blocks until the session is over and says why. A reason of our own is told to the peer.
func (s *session) watch() error {
	for {
		m, fd, err := s.conn.recv(noDeadline)
		closeFD(fd)
		if err == nil {
			switch m := m.(type) {
			case ackMessage:
				continue // libmemif and VPP ignore these too
			case disconnectMessage:
				return &RejectedError{m.Reason}
			default:
				err = fmt.Errorf("unexpected %v message", m.kind())
			}
		}
		s.conn.disconnect(err)
		return err
	}
}

// release waits for readers and writers to leave the memory, then gives it back. The connection stays.
func (s *session) release() {
	for _, q := range s.rx {
		q.close()
	}
	for _, q := range s.tx {
		q.close()
	}
	unmapAll(s.regions)
	s.regions = nil
}

// expect receives the next message of the handshake, which must be a T.
func expect[T message](c *conn, deadline time.Time) (T, error) {
	var want T
	m, fd, err := c.recv(deadline)
	closeFD(fd) // none of the messages expected here brings one
	if err != nil {
		return want, err
	}
	switch m := m.(type) {
	case T:
		return m, nil
	case disconnectMessage:
		return want, &RejectedError{m.Reason}
	default:
		return want, fmt.Errorf("unexpected %v message instead of %v", m.kind(), want.kind())
	}
}

// slaveHandshake leads a fresh connection to CONNECTED. On error everything but the connection is released.
func (i *Interface) slaveHandshake(c *conn) (*session, error) {
	deadline := time.Now().Add(handshakeTime)
	hello, err := expect[helloMessage](c, deadline)
	if err != nil {
		return nil, err
	}
	if hello.MinVersion > protocolVersion || hello.MaxVersion < protocolVersion {
		return nil, fmt.Errorf("incompatible protocol version: peer speaks 0x%x to 0x%x", hello.MinVersion, hello.MaxVersion)
	}
	lay := layout{
		s2m:    min(i.cfg.Queues, int(hello.MaxS2M)+1),
		m2s:    min(i.cfg.Queues, int(hello.MaxM2S)+1),
		log2:   min(i.log2Ring, hello.MaxLog2RingSize),
		buffer: i.cfg.BufferSize,
	}
	s := &session{conn: c, peer: Peer{Software: hello.Name}}
	memfd, events, err := i.build(s, lay)
	defer func() {
		closeFD(memfd) // the peer has its own reference, and the mapping needs none
		if err != nil {
			s.release()
		}
	}()
	if err != nil {
		return nil, err
	}
	if err = i.announce(c, lay, memfd, events, deadline); err != nil {
		return nil, err
	}
	connected, err := expect[connectedMessage](c, deadline)
	if err != nil {
		return nil, err
	}
	s.peer.Interface = connected.Interface
	for _, q := range s.rx {
		q.start()
	}
	return s, nil
}

// announce tells the master about interface, memory and rings. events holds the eventfds in ring order.
func (i *Interface) announce(c *conn, lay layout, memfd int, events []int, deadline time.Time) error {
	step := func(m message, fd int) error {
		if err := c.send(m, fd); err != nil {
			return err
		}
		_, err := expect[ackMessage](c, deadline)
		return err
	}
	err := step(initMessage{Version: protocolVersion, ID: i.cfg.ID, Mode: i.cfg.Mode, Secret: i.cfg.Secret, Name: software}, -1)
	if err != nil {
		return err
	}
	if err := step(addRegionMessage{Index: 0, Size: uint64(lay.size())}, memfd); err != nil {
		return err
	}
	for k, fd := range events {
		m := addRingMessage{Index: uint16(k), Offset: uint32(lay.ring(k)), Log2Size: lay.log2, Flags: addRingFlagS2M}
		if k >= lay.s2m {
			m.Index, m.Flags = uint16(k-lay.s2m), 0
		}
		if err := step(m, fd); err != nil {
			return err
		}
	}
	return c.send(connectMessage{Interface: i.cfg.Name}, -1)
}

// layout is where a slave puts things in its region: the S2M rings, the M2S rings, then the buffers in the same order.
type layout struct {
	s2m, m2s int
	log2     uint8
	buffer   int
}

func (l layout) rings() int       { return l.s2m + l.m2s }
func (l layout) ring(k int) int   { return k * l.stride() }
func (l layout) stride() int      { return (ringBytes(l.log2) + 63) &^ 63 }
func (l layout) slots() int       { return 1 << l.log2 }
func (l layout) base(k int) int   { return l.rings()*l.stride() + k*l.slots()*l.buffer }
func (l layout) size() int        { return l.base(l.rings()) }
func (l layout) isS2M(k int) bool { return k < l.s2m }

// build makes the slave's memory, rings and queues. The queues own their eventfds; the numbers are for announce,
// which runs while the queues are open.
func (i *Interface) build(s *session, lay layout) (memfd int, events []int, err error) {
	memfd, mem, err := newRegion("memif "+i.cfg.Name[:min(len(i.cfg.Name), nameSize)], lay.size())
	if err != nil {
		return memfd, nil, err
	}
	s.regions = [][]byte{mem}
	for k := range lay.rings() {
		r, err := openRing(mem, uint32(lay.ring(k)), lay.log2)
		if err != nil {
			return memfd, nil, err
		}
		r.init()
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			return memfd, nil, fmt.Errorf("eventfd: %w", err)
		}
		own := ownBuffers{mem: mem, base: uint32(lay.base(k)), size: uint32(lay.buffer)}
		if lay.isS2M(k) {
			s.tx = append(s.tx, &txQueue{slave: true, ring: r, buffers: own, intFD: fd, fail: s.conn.interrupt, stats: &i.stats})
		} else {
			q := &rxQueue{slave: true, ring: r, buffers: own, masks: s.ordered(), fail: s.conn.interrupt, stats: &i.stats}
			if err := q.listen(fd); err != nil {
				return memfd, nil, err
			}
			s.rx = append(s.rx, q)
		}
		events = append(events, fd)
	}
	return memfd, events, nil
}

// ordered says whether the peer is one of us (see rx.go).
func (s *session) ordered() bool { return strings.HasPrefix(s.peer.Software, software) }

// candidate is a connection to a listener that has sent INIT.
type candidate struct {
	conn     *conn
	init     initMessage
	deadline time.Time
}

// hello begins a connection on the master's side, up to and including INIT.
func hello(c *conn, queues int) (*candidate, error) {
	deadline := time.Now().Add(handshakeTime)
	err := c.send(helloMessage{
		Name: software, MinVersion: protocolVersion, MaxVersion: protocolVersion,
		MaxRegion: maxRegions - 1, MaxM2S: uint16(queues - 1), MaxS2M: uint16(queues - 1), MaxLog2RingSize: maxLog2RingSize,
	}, -1)
	if err != nil {
		return nil, err
	}
	m, err := expect[initMessage](c, deadline)
	if err != nil {
		return nil, err
	}
	if m.Version != protocolVersion {
		return nil, fmt.Errorf("unsupported version 0x%x", m.Version)
	}
	return &candidate{conn: c, init: m, deadline: deadline}, nil
}

// masterHandshake takes the slave's memory and rings, up to CONNECTED. On error everything but the connection is
// released.
func (i *Interface) masterHandshake(cand *candidate) (s *session, err error) {
	m := &cand.init
	if m.Mode != i.cfg.Mode {
		return nil, fmt.Errorf("mode mismatch: %v here, %v there", i.cfg.Mode, m.Mode)
	}
	if i.cfg.Secret != "" {
		if m.Secret == "" {
			return nil, errors.New("secret required")
		}
		if subtle.ConstantTimeCompare([]byte(m.Secret), []byte(i.cfg.Secret)) != 1 {
			return nil, errors.New("incorrect secret")
		}
	}
	b := builder{iface: i, conn: cand.conn}
	defer b.close()
	if err := cand.conn.send(ackMessage{}, -1); err != nil {
		return nil, err
	}
	for {
		m, fd, err := cand.conn.recv(cand.deadline)
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case addRegionMessage:
			err = b.addRegion(m, fd)
		case addRingMessage:
			err = b.addRing(m, fd)
		case connectMessage:
			closeFD(fd)
			return b.finish(Peer{Software: cand.init.Name, Interface: m.Interface})
		case disconnectMessage:
			closeFD(fd)
			return nil, &RejectedError{m.Reason}
		default:
			closeFD(fd)
			err = fmt.Errorf("unexpected %v message", m.kind())
		}
		if err != nil {
			return nil, err
		}
		if err := cand.conn.send(ackMessage{}, -1); err != nil {
			return nil, err
		}
	}
}

// builder collects what the slave sends. Regions are mapped as they come; rings are opened at the end, when all
// regions are known. What is still in it at close is released.
type builder struct {
	iface   *Interface
	conn    *conn
	regions [][]byte
	shrinks bool // one of them
	s2m     []pendingRing
	m2s     []pendingRing
}

type pendingRing struct {
	msg addRingMessage
	fd  int
}

func (b *builder) close() {
	unmapAll(b.regions)
	for _, p := range append(b.s2m, b.m2s...) {
		closeFD(p.fd)
	}
}

func (b *builder) addRegion(m addRegionMessage, fd int) error {
	switch {
	case fd < 0:
		return errors.New("missing memory region fd")
	case int(m.Index) != len(b.regions):
		closeFD(fd)
		return fmt.Errorf("unexpected region index %d", m.Index)
	case len(b.regions) >= maxRegions:
		closeFD(fd)
		return errors.New("too many regions")
	}
	mem, shrinks, err := mapRegion(fd, m.Size)
	if err != nil {
		return err
	}
	b.regions = append(b.regions, mem)
	b.shrinks = b.shrinks || shrinks
	return nil
}

func (b *builder) addRing(m addRingMessage, fd int) error {
	rings := &b.m2s
	if m.Flags&addRingFlagS2M != 0 {
		rings = &b.s2m
	}
	var err error
	switch {
	case fd < 0:
		return errors.New("missing ring interrupt fd")
	case m.PrivateHeaderSize != 0:
		err = errors.New("private headers not supported")
	case int(m.Index) != len(*rings):
		err = fmt.Errorf("unexpected ring index %d", m.Index)
	case len(*rings) >= b.iface.cfg.Queues:
		err = fmt.Errorf("too many rings: %d are possible", b.iface.cfg.Queues)
	}
	if err != nil {
		closeFD(fd)
		return err
	}
	*rings = append(*rings, pendingRing{m, fd})
	return nil
}

// finish opens the rings and answers CONNECT.
func (b *builder) finish(peer Peer) (*session, error) {
	if len(b.s2m) == 0 || len(b.m2s) == 0 {
		return nil, errors.New("no rings")
	}
	i := b.iface
	s := &session{conn: b.conn, peer: peer}
	ok := false
	defer func() {
		if !ok {
			s.release() // the regions are still b's
		}
	}()
	for k := range b.s2m {
		r, err := b.open(&b.s2m[k])
		if err != nil {
			return nil, fmt.Errorf("slave-to-master ring %d: %w", k, err)
		}
		q := &rxQueue{ring: r, regions: b.regions, shrinks: b.shrinks, masks: s.ordered(), fail: b.conn.interrupt, stats: &i.stats}
		fd := b.s2m[k].take()
		if err := q.listen(fd); err != nil {
			return nil, fmt.Errorf("slave-to-master ring %d: %w", k, err)
		}
		s.rx = append(s.rx, q)
	}
	for k := range b.m2s {
		r, err := b.open(&b.m2s[k])
		if err != nil {
			return nil, fmt.Errorf("master-to-slave ring %d: %w", k, err)
		}
		fd := b.m2s[k].take()
		s.tx = append(s.tx, &txQueue{ring: r, regions: b.regions, shrinks: b.shrinks, intFD: fd, fail: b.conn.interrupt, stats: &i.stats})
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, fmt.Errorf("master-to-slave ring %d: interrupt descriptor: %w", k, err)
		}
	}
	if err := b.conn.send(connectedMessage{Interface: i.cfg.Name}, -1); err != nil {
		return nil, err
	}
	s.regions, b.regions = b.regions, nil
	ok = true
	return s, nil
}

// open finds a ring's memory.
func (b *builder) open(p *pendingRing) (r ring, err error) {
	if int(p.msg.Region) >= len(b.regions) {
		return ring{}, fmt.Errorf("no region %d", p.msg.Region)
	}
	if b.shrinks {
		defer contain(debug.SetPanicOnFault(true), b.conn.interrupt, &err)
	}
	r, err = openRing(b.regions[p.msg.Region], p.msg.Offset, p.msg.Log2Size)
	if err == nil && !r.valid() {
		err = errors.New("wrong cookie")
	}
	return r, err
}

// take hands the descriptor over.
func (p *pendingRing) take() int {
	fd := p.fd
	p.fd = -1
	return fd
}
