// Package wg is userspace WireGuard links into the dataplane. wireguard-go does the protocol on an ordinary UDP socket,
// and its "TUN device" is a memif in ethernet mode: no privilege is needed on either side.
//
//	peer ◄─ UDP ─► bind ◄─► wireguard-go ◄─► port ◄─ memif (slave) ─► dataplane (master)
//
// The dataplane sees an ethernet interface with one neighbour, whose MAC is known to both from the configuration;
// frame.go says what that neighbour answers. bind.go is the socket, window.go bounds the memory of what is between
// them, endpoint.go finds the peer, key.go keeps keys out of logs.
//
// A Link has one peer, which may have every inner address: what goes where is the router's business, not
// WireGuard's.
package wg

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.zx2c4.com/wireguard/device"

	"rlr/memif"
)

// Peer is the other end of a link.
type Peer struct {
	PublicKey    Key
	PresharedKey *PresharedKey // nil: none
	Endpoint     string        // host:port, re-resolved; "" waits for the peer to come
	Keepalive    time.Duration // whole seconds up to 65535; 0: none
}

// Config describes a link.
type Config struct {
	Name       string
	PrivateKey PrivateKey
	Listen     netip.AddrPort // zero address: every one; port 0: any
	Peer       Peer
	MTU        int    // of inner packets, to pad by; 0 = 1420. The dataplane enforces it
	Socket     string // memif socket of the dataplane, which is its master; the interface's id there is 0

	MAC          net.HardwareAddr // ours, what the dataplane sees as its neighbour
	DataplaneMAC net.HardwareAddr

	Resolver Resolver // nil: net.DefaultResolver
	Log      *logrus.Entry
}

// Status is a snapshot of a link.
type Status struct {
	PublicKey     Key            // ours
	Listen        netip.AddrPort // what the socket is bound to, zero while not running
	PeerKey       Key
	PresharedKey  bool
	Endpoint      netip.AddrPort // where the peer is now, zero when unknown
	Keepalive     time.Duration
	LastHandshake time.Time // zero: none yet
	RxBytes       uint64    // from the peer, with WireGuard's own
	TxBytes       uint64
	Connected     bool   // to the dataplane
	Drops         uint64 // packets that the dataplane had no room for, or was not there for
	Malformed     uint64 // packets of either side that are no IP packets
	Misplaced     uint64 // frames of the dataplane that were for another MAC
	Answered      uint64 // ARP requests and neighbour solicitations of the dataplane
	LastError     string // the latest trouble with socket, endpoint or peer; "" after a handshake
}

// memifRing and memifBuffer bound a link's shared memory to 2 MB.
const (
	memifRing   = 512
	memifBuffer = 2048
	defaultMTU  = device.DefaultMTU
	// leastMTU is IPv4's (RFC 791); below, it must be a mistake.
	leastMTU = 576
)

// Link is one WireGuard link.
type Link struct {
	cfg      Config
	log      *logrus.Entry
	resolver Resolver
	memif    *memif.Interface
	inbound  *window
	outbound *window
	bind     *bind
	poke     chan struct{} // wakes follow

	mu     sync.Mutex
	peer   Peer
	target target
	dev    *device.Device // while running
	port   *port          // likewise, and afterwards for its counters

	trouble trouble
}

// trouble is the latest error. wireguard-go reports errors from under its own locks and ours.
type trouble struct {
	mu     sync.Mutex
	text   string
	at     time.Time
	logged time.Time
}

// New checks the configuration. Nothing happens before Run.
func New(cfg Config) (*Link, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	t, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("wireguard %s: %w", cfg.Name, err)
	}
	if cfg.Log == nil {
		cfg.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	l := &Link{
		cfg: cfg, peer: cfg.Peer, target: t, log: cfg.Log, resolver: cfg.Resolver,
		inbound: newWindow(), outbound: newWindow(), poke: make(chan struct{}, 1),
	}
	if l.resolver == nil {
		l.resolver = net.DefaultResolver
	}
	l.memif, err = memif.New(memif.Config{
		Role: memif.Slave, Socket: cfg.Socket, Name: cfg.Name, RingSize: memifRing, BufferSize: memifBuffer, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("wireguard %s: %w", cfg.Name, err)
	}
	l.bind = &bind{listen: cfg.Listen, inbound: l.inbound, outbound: l.outbound, trying: func(unanswered int) {
		if unanswered >= failingAfter {
			l.wake()
		}
	}}
	return l, nil
}

func (c *Config) check() (target, error) {
	switch {
	case c.PrivateKey == PrivateKey{}:
		return target{}, errors.New("no private key")
	case c.MTU < leastMTU || c.MTU > mostPacket:
		return target{}, fmt.Errorf("MTU %d: must be %d to %d", c.MTU, leastMTU, mostPacket)
	case len(c.MAC) != 6 || len(c.DataplaneMAC) != 6:
		return target{}, errors.New("needs two MAC addresses of 6 bytes")
	case mac(c.MAC).multicast() || mac(c.DataplaneMAC).multicast():
		return target{}, errors.New("a MAC address is a multicast address")
	case mac(c.MAC) == mac(c.DataplaneMAC):
		return target{}, fmt.Errorf("both sides have the MAC address %s", c.MAC)
	}
	return c.Peer.check(c.PrivateKey)
}

func (p *Peer) check(own PrivateKey) (target, error) {
	switch {
	case p.PublicKey == Key{}:
		return target{}, errors.New("peer has no public key")
	case p.PublicKey == own.Public():
		return target{}, errors.New("peer's public key is our own")
	case p.PresharedKey != nil && *p.PresharedKey == PresharedKey{}:
		return target{}, errors.New("pre-shared key is all zeros")
	case p.Keepalive < 0 || p.Keepalive > 65535*time.Second || p.Keepalive%time.Second != 0:
		return target{}, fmt.Errorf("keepalive %v: must be whole seconds up to 65535", p.Keepalive)
	}
	return parseTarget(p.Endpoint)
}

// Format writes the name: no verb reaches the keys inside.
func (l *Link) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "wireguard "+l.cfg.Name) }

// Run keeps the link until ctx ends, then returns nil. It fails at once if the UDP address cannot be had. Run runs
// once.
func (l *Link) Run(ctx context.Context) error {
	// The memif ends when wireguard-go closes its device, which has its own order of doing so.
	memifCtx, stopMemif := context.WithCancel(context.WithoutCancel(ctx))
	p := newPort(&l.cfg, l.memif, l.inbound, l.outbound, memifCtx, stopMemif)
	l.mu.Lock()
	if l.port != nil {
		l.mu.Unlock()
		stopMemif()
		return fmt.Errorf("wireguard %s: Run called twice", l.cfg.Name)
	}
	l.port = p
	l.mu.Unlock()

	var wg sync.WaitGroup
	var memifErr error
	wg.Go(func() { memifErr = l.memif.Run(memifCtx) })
	dev := device.NewDevice(p, l.bind, l.deviceLog())
	err := l.start(dev)
	if err == nil {
		f := &follower{}
		l.point(ctx, f) // before the first handshake, which would not be tried again for 5 s
		if err = dev.Up(); err == nil {
			close(p.ready)
			l.log.WithField("listen", l.bind.local()).Info("wireguard link runs")
			l.follow(ctx, f)
		}
	}
	l.mu.Lock()
	l.dev = nil
	l.mu.Unlock()
	dev.Close()
	wg.Wait()
	if err = errors.Join(err, memifErr); err != nil {
		return fmt.Errorf("wireguard %s: %w", l.cfg.Name, err)
	}
	return nil
}

// start configures the device and lets it be found.
func (l *Link) start(dev *device.Device) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var c strings.Builder
	fmt.Fprintf(&c, "private_key=%s\nlisten_port=%d\n", hex.EncodeToString(l.cfg.PrivateKey[:]), l.cfg.Listen.Port())
	writePeer(&c, &l.peer)
	if err := dev.IpcSet(c.String()); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	l.dev = dev
	return nil
}

// writePeer writes the peer for wireguard-go's configuration protocol.
// https://www.wireguard.com/xplatform/#configuration-protocol
func writePeer(c *strings.Builder, p *Peer) {
	var psk PresharedKey
	if p.PresharedKey != nil {
		psk = *p.PresharedKey
	}
	fmt.Fprintf(c, "public_key=%s\npreshared_key=%s\n", hex.EncodeToString(p.PublicKey[:]), hex.EncodeToString(psk[:]))
	fmt.Fprintf(c, "persistent_keepalive_interval=%d\n", int(p.Keepalive/time.Second))
	c.WriteString("replace_allowed_ips=true\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n")
}

// SetPeer replaces the peer of a link, running or not. What does not change is not disturbed: the session stays when
// the keys are the same. Everything else of a Config needs a new Link.
func (l *Link) SetPeer(p Peer) error {
	t, err := p.check(l.cfg.PrivateKey)
	if err != nil {
		return fmt.Errorf("wireguard %s: %w", l.cfg.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dev != nil {
		var c strings.Builder
		if p.PublicKey != l.peer.PublicKey {
			c.WriteString("replace_peers=true\n")
		}
		writePeer(&c, &p)
		if err := l.dev.IpcSet(c.String()); err != nil {
			return fmt.Errorf("wireguard %s: set peer: %w", l.cfg.Name, err)
		}
	}
	l.peer, l.target = p, t
	l.wake()
	return nil
}

// wake lets follow look at the peer soon.
func (l *Link) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// setEndpoint says where the peer is.
func (l *Link) setEndpoint(to netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dev == nil {
		return
	}
	c := fmt.Sprintf("public_key=%s\nupdate_only=true\nendpoint=%s\n", hex.EncodeToString(l.peer.PublicKey[:]), to)
	if err := l.dev.IpcSet(c); err != nil {
		l.log.WithError(err).Warn("wireguard endpoint not set")
	}
}

// peerState is what only wireguard-go knows.
type peerState struct {
	endpoint         netip.AddrPort
	handshake        time.Time
	rxBytes, txBytes uint64
}

func (l *Link) peerState() peerState {
	l.mu.Lock()
	dev := l.dev
	l.mu.Unlock()
	if dev == nil {
		return peerState{}
	}
	text, err := dev.IpcGet()
	if err != nil {
		l.log.WithError(err).Debug("wireguard status")
		return peerState{}
	}
	return readState(text)
}

// readState picks its lines out of wireguard-go's answer. Others hold keys, and go no further.
func readState(text string) peerState {
	var s peerState
	var sec, nsec int64
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		number := func() int64 { n, _ := strconv.ParseInt(value, 10, 64); return n }
		switch key {
		case "endpoint":
			s.endpoint, _ = netip.ParseAddrPort(value)
		case "last_handshake_time_sec":
			sec = number()
		case "last_handshake_time_nsec":
			nsec = number()
		case "rx_bytes":
			s.rxBytes = uint64(number())
		case "tx_bytes":
			s.txBytes = uint64(number())
		}
	}
	if sec != 0 || nsec != 0 {
		s.handshake = time.Unix(sec, nsec)
	}
	return s
}

// Status is a snapshot.
func (l *Link) Status() Status {
	state := l.peerState()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		PublicKey: l.cfg.PrivateKey.Public(), Listen: l.bind.local(),
		PeerKey: l.peer.PublicKey, PresharedKey: l.peer.PresharedKey != nil, Keepalive: l.peer.Keepalive,
		Endpoint: state.endpoint, LastHandshake: state.handshake, RxBytes: state.rxBytes, TxBytes: state.txBytes,
		Connected: l.memif.Up(), LastError: l.trouble.since(state.handshake),
	}
	if l.port != nil {
		d := &l.port.drops
		s.Drops, s.Malformed, s.Misplaced, s.Answered = d.full.Load(), d.malformed.Load(), d.misplaced.Load(), d.answered.Load()
	}
	return s
}

// quiet is the least time between two warnings of a link: errors can come once a packet ("network is unreachable").
const quiet = 10 * time.Second

// fail notes trouble, and logs it unless it is old or too much.
func (l *Link) fail(err error) {
	t, now := &l.trouble, time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := l.log.WithError(err)
	if t.text == err.Error() || now.Sub(t.logged) < quiet {
		entry.Debug("wireguard")
	} else {
		t.logged = now
		entry.Warn("wireguard")
	}
	t.text, t.at = err.Error(), now
}

// since is the latest error after that time.
func (t *trouble) since(when time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at.After(when) {
		return t.text
	}
	return ""
}

// deviceLog takes wireguard-go's messages, which name peers by a part of their public keys.
func (l *Link) deviceLog() *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if l.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
				l.log.Debugf(format, args...)
			}
		},
		Errorf: func(format string, args ...any) { l.fail(fmt.Errorf(format, args...)) },
	}
}
