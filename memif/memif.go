// Package memif is the memif protocol (version 2.0, as VPP's memif plugin and libmemif speak it): packets between two
// processes of one machine through rings in shared memory. It is the cable between routers of a lab, between wg and
// the dataplane, and between minivpp and VPP.
//
// The slave makes the memory and connects; the master listens and maps it. After the handshake on a unix socket
// (message.go, conn.go, handshake.go, listener.go) the socket's only task is to end when the peer does; packets go
// through the rings (ring.go, rx.go, tx.go), and an eventfd per ring wakes a reader that sleeps.
//
// The peer is not trusted. Its memory must be sealed against shrinking (region.go). Each value in shared memory is
// copied once, checked, and then used; indexes that make no sense end the session with a reason, descriptors that
// point outside the memory cost the frame. A session that ends is set up anew, for ever, and readers wait through
// that.
//
// Why not gomemif: see DESIGN.md ("Our own memif package").
package memif

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// ErrDown says that there is no peer at the moment.
var ErrDown = errors.New("memif: link is down")

// Role is an end of the cable. Exactly one end is Master.
type Role uint8

const (
	Master Role = iota // listens, maps the slave's memory
	Slave              // connects, owns the memory
)

func (r Role) String() string {
	if r == Slave {
		return "slave"
	}
	return "master"
}

// Mode is what the frames are; the numbers are the protocol's (memif_interface_mode_t).
type Mode uint8

const (
	Ethernet Mode = iota // ethernet frames without FCS
	IP                   // IPv4 or IPv6 packets
)

func (m Mode) String() string {
	switch m {
	case Ethernet:
		return "ethernet"
	case IP:
		return "ip"
	default:
		return fmt.Sprintf("mode %d", uint8(m))
	}
}

// Config describes one end of one link.
type Config struct {
	ID     uint32 // tells apart the links of one socket
	Role   Role
	Mode   Mode
	Socket string // unix socket: a path of at most 107 bytes, or "@name" in the abstract namespace
	Secret string // up to 24 bytes; a master without one takes any. VPP's own slaves send 23 at most
	Name   string // our interface's name, told to the peer; 31 bytes of it travel

	RingSize   int // descriptors a ring: a power of two, 2 to 32768; 0 = 1024. The slave's counts (VPP as master takes 16384 at most)
	BufferSize int // bytes, 64 to 65535; 0 = 2048. The slave's counts. VPP drops single buffers with more than 9216 bytes
	Queues     int // pairs of queues, 1 to 256; 0 = 1. The smaller of both ends' counts

	// OnLink is called when the link comes and goes, from the goroutine of Run, which does nothing else meanwhile.
	OnLink func(up bool)
	Log    *logrus.Entry
}

// Interface is one end of a link.
type Interface struct {
	cfg      Config
	log      *logrus.Entry
	log2Ring uint8

	state   atomic.Pointer[state]
	started atomic.Bool
	stats   counters

	incoming chan *candidate // master: connections that asked for this interface
	ready    chan struct{}   // see Ready
	done     chan struct{}   // closed when Run has ended

	mu        sync.Mutex
	lastError string
	peer      Peer
}

// state is what readers and writers see; it is replaced, never changed.
type state struct {
	sess    *session // nil while down
	ended   bool
	changed chan struct{} // closed when the state has been replaced
}

// Peer is what the other end has told about itself, as of the last connection.
type Peer struct {
	Software  string // "VPP 26.06-release"
	Interface string // its name for its end
}

// Stats counts since New.
type Stats struct {
	RxFrames, RxBytes uint64
	RxTooLong         uint64 // dropped: longer than the reader's buffer
	RxBad             uint64 // dropped: descriptor outside the shared memory, or empty
	TxFrames, TxBytes uint64
	TxFull            uint64 // batches that did not fit completely
	TxUnsendable      uint64 // dropped: empty, over 64 KiB, or longer than all buffers of the ring
	Interrupts        uint64 // sent to the peer
	Wakeups           uint64 // of sleeping readers
	Connects          uint64
	Peer              Peer
	LastError         string // why the link last went down or did not come up; "" after it came up
}

// New checks the configuration. Nothing happens before Run.
func New(cfg Config) (*Interface, error) {
	if cfg.RingSize == 0 {
		cfg.RingSize = defaultRingSize
	}
	if cfg.BufferSize == 0 {
		cfg.BufferSize = defaultBufferSize
	}
	if cfg.Queues == 0 {
		cfg.Queues = 1
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("memif %q: %w", cfg.Name, err)
	}
	if cfg.Log == nil {
		cfg.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	i := &Interface{
		cfg:      cfg,
		log:      cfg.Log.WithFields(logrus.Fields{"memif": cfg.Socket, "id": cfg.ID}),
		log2Ring: uint8(bits.TrailingZeros(uint(cfg.RingSize))),
		incoming: make(chan *candidate),
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
	}
	i.state.Store(&state{changed: make(chan struct{})})
	return i, nil
}

// maxPath is what the kernel's sockaddr_un holds, without the terminator.
const maxPath = 107

func (c *Config) check() error {
	switch {
	case c.Role > Slave:
		return fmt.Errorf("role %d: must be Master or Slave", c.Role)
	case c.Mode > IP:
		return fmt.Errorf("%v: must be Ethernet or IP", c.Mode)
	case c.Socket == "" || c.Socket == "@":
		return errors.New("no socket")
	case len(c.Socket) > maxPath:
		return fmt.Errorf("socket path is %d bytes long, the kernel takes %d", len(c.Socket), maxPath)
	case strings.IndexByte(c.Socket, 0) >= 0:
		return errors.New("socket path contains a zero byte")
	case len(c.Secret) > secretSize:
		return fmt.Errorf("secret is %d bytes long, at most %d are possible", len(c.Secret), secretSize)
	case strings.IndexByte(c.Secret, 0) >= 0:
		return errors.New("secret contains a zero byte")
	case c.RingSize < minRingSize || c.RingSize > maxRingSize || bits.OnesCount(uint(c.RingSize)) != 1:
		return fmt.Errorf("ring size %d: must be a power of two from %d to %d", c.RingSize, minRingSize, maxRingSize)
	case c.BufferSize < minBufferSize || c.BufferSize > maxBufferSize:
		return fmt.Errorf("buffer size %d: must be from %d to %d", c.BufferSize, minBufferSize, maxBufferSize)
	case c.Queues < 1 || c.Queues > maxQueues:
		return fmt.Errorf("%d queues: must be from 1 to %d", c.Queues, maxQueues)
	case 2*c.Queues*c.RingSize*(c.BufferSize+descSize) > 1<<32-1-1<<20:
		return errors.New("rings and buffers together do not fit into 4 GiB")
	}
	return nil
}

// Run keeps the link up until ctx ends, then returns nil. A slave connects again and again; a master fails at once if
// it cannot listen: the path is in use by a live process, or by another interface with this ID. Run runs once.
func (i *Interface) Run(ctx context.Context) error {
	if !i.started.CompareAndSwap(false, true) {
		return errors.New("memif: Run called twice")
	}
	defer func() {
		close(i.done)
		i.setState(&state{ended: true})
	}()
	if i.cfg.Role == Slave {
		return i.runSlave(ctx)
	}
	return i.runMaster(ctx)
}

// Ready is closed when Run has begun well: a master listens, a slave tries to connect. It is never closed when Run fails
// at once.
func (i *Interface) Ready() <-chan struct{} { return i.ready }

// Up says whether there is a peer.
func (i *Interface) Up() bool { return i.state.Load().sess != nil }

// Queues is the number of receive queues agreed with the peer, 0 while down.
func (i *Interface) Queues() int {
	if s := i.state.Load().sess; s != nil {
		return len(s.rx)
	}
	return 0
}

// ReadBatch copies received frames into bufs[k][:sizes[k]] and says how many. It blocks until there is at least one,
// also while there is no peer or the peer has no such queue, and returns net.ErrClosed when Run has ended. A frame
// longer than its buffer is dropped and counted. One goroutine per queue; sizes is as long as bufs.
func (i *Interface) ReadBatch(queue int, bufs [][]byte, sizes []int) (int, error) {
	bufs = bufs[:min(len(bufs), len(sizes))]
	if queue < 0 || len(bufs) == 0 {
		return 0, fmt.Errorf("memif: read from queue %d into %d buffers", queue, len(bufs))
	}
	for {
		st := i.state.Load()
		if st.ended {
			return 0, net.ErrClosed
		}
		if st.sess != nil && queue < len(st.sess.rx) {
			n, err := st.sess.rx[queue].read(bufs, sizes)
			if err == nil {
				return n, nil
			}
		}
		<-st.changed
	}
}

// WriteBatch sends frames and says how many were taken: fewer when the ring is full, the rest is the caller's to drop
// or to retry; 0 and ErrDown when there is no peer. Frames that can never be sent (empty, over 64 KiB) are taken and
// counted. It never blocks and may be called by several goroutines. A queue number beyond the agreed count wraps.
func (i *Interface) WriteBatch(queue int, frames [][]byte) (int, error) {
	if queue < 0 {
		return 0, fmt.Errorf("memif: write to queue %d", queue)
	}
	s := i.state.Load().sess
	if s == nil {
		return 0, ErrDown
	}
	return s.tx[queue%len(s.tx)].write(frames)
}

// Stats is a snapshot.
func (i *Interface) Stats() Stats {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := &i.stats
	return Stats{
		RxFrames: c.rxFrames.Load(), RxBytes: c.rxBytes.Load(), RxTooLong: c.rxTooLong.Load(), RxBad: c.rxBad.Load(),
		TxFrames: c.txFrames.Load(), TxBytes: c.txBytes.Load(), TxFull: c.txFull.Load(), TxUnsendable: c.txUnsendable.Load(),
		Interrupts: c.interrupts.Load(), Wakeups: c.wakeups.Load(), Connects: c.connects.Load(),
		Peer: i.peer, LastError: i.lastError,
	}
}

func (i *Interface) setState(next *state) {
	next.changed = make(chan struct{})
	close(i.state.Swap(next).changed)
}

// serve carries one session from up to down and says why it ended.
func (i *Interface) serve(ctx context.Context, s *session) error {
	i.stats.connects.Add(1)
	i.mu.Lock()
	i.peer, i.lastError = s.peer, ""
	i.mu.Unlock()
	i.log.WithFields(logrus.Fields{"peer": s.peer.Interface, "software": s.peer.Software, "queues": len(s.rx)}).Info("memif link up")
	i.setState(&state{sess: s})
	if i.cfg.OnLink != nil {
		i.cfg.OnLink(true)
	}
	err := s.watch()
	i.setState(&state{})
	s.release()
	s.conn.close()
	i.mu.Lock()
	i.lastError = err.Error()
	i.mu.Unlock()
	if i.cfg.OnLink != nil {
		i.cfg.OnLink(false)
	}
	if ctx.Err() == nil {
		i.log.WithError(err).Info("memif link down")
	}
	return err
}

// note keeps why there is no link, and logs it when it is news.
func (i *Interface) note(err error) {
	i.mu.Lock()
	news := i.lastError != err.Error()
	i.lastError = err.Error()
	i.mu.Unlock()
	if !news {
		return
	}
	var rejected *RejectedError
	if errors.As(err, &rejected) {
		i.log.WithError(err).Warn("memif peer refuses")
		return
	}
	i.log.WithError(err).Debug("memif not connected")
}

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

func (i *Interface) runSlave(ctx context.Context) error {
	pause := retryFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	close(i.ready)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		begin := time.Now()
		err := i.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		i.note(err)
		if time.Since(begin) > retryMost {
			pause = retryFirst // it was up for a while, or it waited enough
		}
		timer.Reset(pause)
		pause = min(2*pause, retryMost)
	}
}

// connect makes one session and carries it to its end.
func (i *Interface) connect(ctx context.Context) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unixpacket", i.cfg.Socket)
	if err != nil {
		return err
	}
	c := newConn(nc.(*net.UnixConn))
	defer c.close()
	defer context.AfterFunc(ctx, func() { c.interrupt(errShutdown) })()
	s, err := i.slaveHandshake(c)
	if err != nil {
		c.disconnect(err)
		return err
	}
	return i.serve(ctx, s)
}

func (i *Interface) runMaster(ctx context.Context) error {
	l, err := listeners.join(i)
	if err != nil {
		return fmt.Errorf("memif %q: %w", i.cfg.Name, err)
	}
	defer listeners.leave(l, i)
	close(i.ready)
	for {
		select {
		case <-ctx.Done():
			return nil
		case cand := <-i.incoming:
			if err := i.accept(ctx, cand); ctx.Err() == nil {
				i.note(err)
			}
		}
	}
}

// accept makes a session out of a connection that has sent INIT, and carries it to its end.
func (i *Interface) accept(ctx context.Context, cand *candidate) error {
	defer cand.conn.close()
	defer context.AfterFunc(ctx, func() { cand.conn.interrupt(errShutdown) })()
	s, err := i.masterHandshake(cand)
	if err != nil {
		cand.conn.disconnect(err)
		return err
	}
	return i.serve(ctx, s)
}
