package wg

// port is wireguard-go's tun.Device over our end of the memif. wireguard-go leaves 16 bytes before each packet, and the
// ethernet header takes 14 of them: no packet is copied but into and out of the ring.

import (
	"context"
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"rlr/memif"
)

// mostPacket is the largest inner packet whose message fits into a UDP datagram (wireguard-go's MaxContentSize, less
// the padding).
const mostPacket = 65535 - 32 - 40

type port struct {
	name      string
	mtu       int
	own       mac
	dataplane mac
	memif     *memif.Interface
	inbound   *window
	outbound  *window
	stop      context.CancelFunc // ends the memif
	done      <-chan struct{}    // closed by stop
	ready     chan struct{}      // closed when wireguard-go has started: before, it would drop what it reads
	events    chan tun.Event
	closeOnce sync.Once
	drops     drops

	frames [][]byte // of Read, which one goroutine calls
	sizes  []int

	mu  sync.Mutex // of Write
	out [][]byte
}

// drops counts frames that ended here.
type drops struct {
	full      atomic.Uint64 // to the dataplane: its ring was full, or it was not there
	malformed atomic.Uint64 // from either side
	misplaced atomic.Uint64 // from the dataplane, for another MAC
	answered  atomic.Uint64 // ARP and ND: not drops, but not passed on either
}

func newPort(cfg *Config, m *memif.Interface, inbound, outbound *window, ctx context.Context, stop context.CancelFunc) *port {
	return &port{
		name: cfg.Name, mtu: cfg.MTU, own: mac(cfg.MAC), dataplane: mac(cfg.DataplaneMAC),
		memif: m, inbound: inbound, outbound: outbound, stop: stop, done: ctx.Done(),
		ready: make(chan struct{}), events: make(chan tun.Event),
		frames: make([][]byte, batchSize), sizes: make([]int, batchSize),
	}
}

// Read implements tun.Device: packets for the peer. A size of 0 is a frame that was not.
func (p *port) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-p.ready:
	case <-p.done:
		return 0, os.ErrClosed
	}
	want, ok := p.outbound.room(min(len(bufs), batchSize), p.done)
	if !ok {
		return 0, os.ErrClosed
	}
	for k := range want {
		p.frames[k] = bufs[k][offset-etherSize:]
	}
	n, err := p.memif.ReadBatch(0, p.frames[:want], p.sizes)
	if err != nil {
		return 0, os.ErrClosed
	}
	passed := 0
	for k := range n {
		sizes[k] = p.fromDataplane(p.frames[k][:p.sizes[k]])
		if sizes[k] > 0 {
			passed++
		}
	}
	p.outbound.in(passed)
	return n, nil
}

func (p *port) fromDataplane(frame []byte) (size int) {
	v, size, reply := inspect(frame, p.own)
	switch v {
	case toPeer:
		if size > mostPacket {
			p.drops.malformed.Add(1)
			return 0
		}
		return size
	case answer:
		p.drops.answered.Add(1)
		p.toDataplane([][]byte{reply})
	case malformed:
		p.drops.malformed.Add(1)
	case misplaced:
		p.drops.misplaced.Add(1)
	case swallow:
	}
	return 0
}

// toDataplane sends frames; what finds no room is dropped.
func (p *port) toDataplane(frames [][]byte) {
	n, _ := p.memif.WriteBatch(0, frames) // its one error is that the link is down
	p.drops.full.Add(uint64(len(frames) - n))
}

// Write implements tun.Device: packets from the peer. Each has room for an ethernet header before it.
func (p *port) Write(bufs [][]byte, offset int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbound.out(len(bufs))
	p.out = p.out[:0]
	for _, buf := range bufs {
		size, etherType, ok := packetSize(buf[offset:])
		if !ok {
			p.drops.malformed.Add(1)
			continue
		}
		frame := buf[offset-etherSize : offset+size]
		copy(frame, p.dataplane[:])
		copy(frame[6:], p.own[:])
		binary.BigEndian.PutUint16(frame[12:], etherType)
		p.out = append(p.out, frame)
	}
	p.toDataplane(p.out)
	clear(p.out) // the buffers go back to wireguard-go's pool
	return len(bufs), nil
}

// Close implements tun.Device. Read ends with os.ErrClosed.
func (p *port) Close() error {
	p.closeOnce.Do(func() {
		p.stop()
		close(p.events)
	})
	return nil
}

// MTU implements tun.Device; wireguard-go pads by it.
func (p *port) MTU() (int, error) { return p.mtu, nil }

// Name implements tun.Device.
func (p *port) Name() (string, error) { return p.name, nil }

// BatchSize implements tun.Device.
func (p *port) BatchSize() int { return batchSize }

// Events implements tun.Device. There are none: the device goes up and down with Run.
func (p *port) Events() <-chan tun.Event { return p.events }

// File implements tun.Device.
func (p *port) File() *os.File { return nil }
