package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/memif"
)

// host is an end of a cable in the lab's own process: it answers ARP and neighbour solicitations for its addresses, sends packets
// of any kind by its gateway, and remembers which of the lab's it has got. It is what stands behind a router where a ping is not
// enough.
type host struct {
	addr4, gateway4, addr6 netip.Addr
	mac                    [6]byte
	cable                  *memif.Interface

	passed traffic // as the router's interface should count: what the host has sent was received there
	deafen bool    // sabotage: it does not count what comes

	mu      sync.Mutex
	gateway [6]byte         // zero before it has answered
	got     map[uint32]bool // numbers of packets
	news    chan struct{}   // closed and replaced when something came
}

// probe is a packet of the lab's. Its number is in the payload.
type probe struct {
	proto        uint8 // 6, 17
	src, dst     netip.Addr
	sport, dport uint16
	number       uint32
}

const (
	etherIP4, etherIP6, etherARP = 0x0800, 0x86dd, 0x0806
	protoTCP, protoUDP           = 6, 17
	protoICMP6                   = 58
	probeMagic                   = 0x726c722d // "rlr-"
	probeTransport               = 20         // bytes of what stands for a transport header, TCP's and more than UDP's
)

// newHost plugs a host into a cable whose other end is a master, until the play ends.
func (p *play) newHost(ctx context.Context, cable string, last byte, addr4, gateway4, addr6 string) (*host, error) {
	h := &host{
		addr4: netip.MustParseAddr(addr4), gateway4: netip.MustParseAddr(gateway4), addr6: netip.MustParseAddr(addr6),
		mac: [6]byte{2, 0, 0, 0, 0, last}, got: make(map[uint32]bool), news: make(chan struct{}),
	}
	var err error
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	h.cable, err = memif.New(memif.Config{
		Role: memif.Slave, Mode: memif.Ethernet, Socket: p.place.link(cable), Name: "host", Log: logrus.NewEntry(quiet),
	})
	if err != nil {
		return nil, fmt.Errorf("host on %s: %w", cable, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	before := p.endRelay
	p.endRelay = func() { cancel(); before() }
	p.owned.Go(func() { h.cable.Run(ctx) }) //nolint:errcheck // a cable that fails carries nothing, which the checks tell
	p.owned.Go(h.read)
	return h, nil
}

// read takes frames until the cable ends.
func (h *host) read() {
	bufs, sizes := make([][]byte, 32), make([]int, 32)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for {
		n, err := h.cable.ReadBatch(0, bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			h.counted(&h.passed.txPackets, &h.passed.txBytes, sizes[i])
			h.take(bufs[i][:sizes[i]])
		}
	}
}

// write puts frames on the cable, and counts those that went.
func (h *host) write(frames [][]byte) (int, error) {
	n, err := h.cable.WriteBatch(0, frames)
	for _, f := range frames[:max(n, 0)] {
		h.counted(&h.passed.rxPackets, &h.passed.rxBytes, len(f))
	}
	return n, err
}

func (h *host) counted(packets, bytes *uint64, size int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.deafen {
		*packets, *bytes = *packets+1, *bytes+uint64(size)
	}
}

// traffic is what the router's interface should have counted of the host.
func (h *host) traffic() traffic {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.passed
}

func (h *host) deaf(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deafen = on
}

func (h *host) take(f []byte) {
	if len(f) < 14 {
		return
	}
	b := f[14:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case etherARP:
		h.takeARP(b)
	case etherIP4:
		if len(b) >= 20+probeTransport+8 && b[0] == 0x45 {
			h.takeProbe(b[20+probeTransport:])
		}
	case etherIP6:
		switch {
		case len(b) >= 40+24 && b[6] == protoICMP6 && b[40] == 135 && netip.AddrFrom16([16]byte(b[48:64])) == h.addr6:
			h.advertise([6]byte(f[6:12]), b)
		case len(b) >= 40+probeTransport+8:
			h.takeProbe(b[40+probeTransport:])
		}
	}
}

// takeARP answers requests, and notes the gateway's address. RFC 826.
func (h *host) takeARP(b []byte) {
	if len(b) < 28 {
		return
	}
	sender := netip.AddrFrom4([4]byte(b[14:18]))
	switch {
	case binary.BigEndian.Uint16(b[6:]) == 1 && netip.AddrFrom4([4]byte(b[24:28])) == h.addr4:
		h.sendARP(2, [6]byte(b[8:14]), sender)
	case sender == h.gateway4:
		h.mu.Lock()
		h.gateway = [6]byte(b[8:14])
		h.mu.Unlock()
	}
}

func (h *host) sendARP(op uint16, mac [6]byte, to netip.Addr) {
	f := h.frame(mac, etherARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, byte(op))
	f = append(append(f, h.mac[:]...), h.addr4.AsSlice()...)
	if op == 1 {
		mac = [6]byte{}
	}
	f = append(append(f, mac[:]...), to.AsSlice()...)
	h.write([][]byte{f}) //nolint:errcheck // asked again
}

// advertise answers a solicitation. RFC 4861 §4.4.
func (h *host) advertise(mac [6]byte, solicitation []byte) {
	m := make([]byte, 32)
	m[0], m[4] = 136, 0x60 // solicited, override
	copy(m[8:], h.addr6.AsSlice())
	m[24], m[25] = 2, 1
	copy(m[26:], h.mac[:])
	src, dst := h.addr6.AsSlice(), solicitation[8:24]
	pseudo := slices.Concat(src, dst, []byte{0, 0, 0, byte(len(m)), 0, 0, 0, protoICMP6}, m)
	binary.BigEndian.PutUint16(m[2:], onesComplement(pseudo))
	f := append(h.frame(mac, etherIP6), 0x60, 0, 0, 0, 0, byte(len(m)), protoICMP6, 255)
	h.write([][]byte{slices.Concat(f, src, dst, m)}) //nolint:errcheck // asked again
}

func (h *host) frame(mac [6]byte, etherType uint16) []byte {
	f := slices.Concat(mac[:], h.mac[:])
	return binary.BigEndian.AppendUint16(f, etherType)
}

// onesComplement is the Internet's checksum. RFC 1071.
func onesComplement(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func (h *host) takeProbe(b []byte) {
	if binary.BigEndian.Uint32(b) != probeMagic {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got[binary.BigEndian.Uint32(b[4:])] = true
	close(h.news)
	h.news = make(chan struct{})
}

// ready waits until the gateway has answered.
func (h *host) ready(ctx context.Context) error {
	return until(ctx, convergeLimit, func() error {
		h.mu.Lock()
		known := h.gateway != [6]byte{}
		h.mu.Unlock()
		if known {
			return nil
		}
		h.sendARP(1, [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, h.gateway4)
		return fmt.Errorf("%s does not answer ARP", h.gateway4)
	})
}

// packet is the packet as it leaves the host: what a transport header has besides ports is zero, which no router looks at.
func (q probe) packet() []byte {
	t := make([]byte, probeTransport)
	binary.BigEndian.PutUint16(t, q.sport)
	binary.BigEndian.PutUint16(t[2:], q.dport)
	payload := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(t, probeMagic), q.number)
	if q.proto == protoUDP {
		binary.BigEndian.PutUint16(payload[4:], uint16(len(payload)))
	} else {
		payload[12] = 5 << 4 // TCP without options
	}
	src, dst := q.src.AsSlice(), q.dst.AsSlice()
	if q.src.Is4() {
		b := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, q.proto, 0, 0}
		b = slices.Concat(b, src, dst)
		binary.BigEndian.PutUint16(b[10:], onesComplement(b))
		return append(b, payload...)
	}
	return slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(payload)), q.proto, 64}, src, dst, payload)
}

// send puts packets on the cable, all of them.
func (h *host) send(ctx context.Context, packets ...probe) error {
	h.mu.Lock()
	gateway := h.gateway
	h.mu.Unlock()
	var frames [][]byte
	for _, q := range packets {
		t := uint16(etherIP4)
		if q.src.Is6() {
			t = etherIP6
		}
		frames = append(frames, append(h.frame(gateway, t), q.packet()...))
	}
	for len(frames) > 0 {
		n, err := h.write(frames)
		if err != nil {
			return fmt.Errorf("the cable of %s: %w", h.addr4, err)
		}
		if frames = frames[n:]; len(frames) > 0 {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

var errMissing = errors.New("packets are missing")

// wait waits until packets with all these numbers have come, for at most limit.
func (h *host) wait(ctx context.Context, limit time.Duration, numbers ...uint32) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		h.mu.Lock()
		missing := 0
		for _, n := range numbers {
			if !h.got[n] {
				missing++
			}
		}
		news := h.news
		h.mu.Unlock()
		if missing == 0 {
			return nil
		}
		select {
		case <-news:
		case <-timer.C:
			return fmt.Errorf("%w: %d of %d did not arrive at %s in %s", errMissing, missing, len(numbers), h.addr4, limit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// count says how many packets with these numbers have come.
func (h *host) count(numbers ...uint32) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range numbers {
		if h.got[k] {
			n++
		}
	}
	return n
}
