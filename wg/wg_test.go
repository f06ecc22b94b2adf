package wg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPacketsCross(t *testing.T) {
	psk, err := NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	a, b := twoSites(t, func(a, b *Config) { a.Peer.PresharedKey, b.Peer.PresharedKey = &psk, &psk })
	ping := packet4(84, 1)
	b.dp.send(fromDP(2, typeIPv4, ping)) // the handshake begins with it
	a.dp.want(toDP(1, typeIPv4, ping))
	tests := []struct {
		name      string
		etherType uint16
		packet    []byte
	}{
		{"smallest", typeIPv4, packet4(20, 2)},
		{"odd", typeIPv4, packet4(33, 3)},
		{"full", typeIPv4, packet4(1420, 4)},
		{"ipv6", typeIPv6, packet6(1280, 5, "fe80::2")},
		{"ipv6 header only", typeIPv6, packet6(40, 6, "fe80::2")},
		{"jumbo", typeIPv4, packet4(9000, 7)},
		{"largest", typeIPv4, packet4(65000, 8)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a.dp.send(fromDP(1, tt.etherType, tt.packet))
			b.dp.want(toDP(2, tt.etherType, tt.packet))
			b.dp.send(fromDP(2, tt.etherType, tt.packet))
			a.dp.want(toDP(1, tt.etherType, tt.packet))
		})
	}
	t.Run("padding of short frames is not passed on", func(t *testing.T) {
		p := packet4(20, 9)
		b.dp.send(append(fromDP(2, typeIPv4, p), make([]byte, 26)...))
		a.dp.want(toDP(1, typeIPv4, p))
	})
	t.Run("multicast", func(t *testing.T) {
		p := packet6(100, 10, "ff02::1")
		f := fromDP(2, typeIPv6, p)
		copy(f, []byte{0x33, 0x33, 0, 0, 0, 1})
		b.dp.send(f)
		a.dp.want(toDP(1, typeIPv6, p))
	})
	t.Run("order and number", func(t *testing.T) {
		for k := range 2000 {
			p := packet4(100, byte(k))
			b.dp.send(fromDP(2, typeIPv4, p))
			if k%50 == 49 {
				for j := k - 49; j <= k; j++ {
					a.dp.want(toDP(1, typeIPv4, packet4(100, byte(j))))
				}
			}
		}
	})
	for _, s := range []*site{a, b} {
		st := s.Status()
		if st.LastHandshake.IsZero() || st.RxBytes == 0 || st.TxBytes == 0 || !st.PresharedKey || !st.Endpoint.IsValid() ||
			st.Drops+st.Malformed+st.Misplaced > 0 || st.LastError != "" || st.PeerKey != s.cfg.Peer.PublicKey || st.PublicKey != s.cfg.PrivateKey.Public() {
			t.Errorf("%s: %+v", s.cfg.Name, st)
		}
	}
	if e := a.Status().Endpoint; e != b.Status().Listen {
		t.Errorf("a's peer is at %v, listens at %v", e, b.Status().Listen)
	}
}

func TestDataplaneIsAnswered(t *testing.T) {
	s := runSite(t, 1, Config{PrivateKey: privateKey(t), Peer: Peer{PublicKey: privateKey(t).Public()}})
	for _, tt := range frameTests {
		if tt.want != answer {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			f := bytes.Clone(tt.frame)
			if bytes.Equal(f[:6], frameOwn[:]) {
				copy(f, siteMAC(1, 0))
			}
			s.dp.send(f)
			want := bytes.ReplaceAll(tt.reply, frameOwn[:], siteMAC(1, 0))
			if binary.BigEndian.Uint16(want[12:]) == typeIPv6 { // the MAC is in the sum
				want[etherSize+ipv6Size+2], want[etherSize+ipv6Size+3] = 0, 0
				binary.BigEndian.PutUint16(want[etherSize+ipv6Size+2:], icmpv6Sum(want[etherSize:]))
			}
			s.dp.want(want)
		})
	}
	if st := s.Status(); st.Answered == 0 || st.TxBytes > 0 {
		t.Errorf("%+v", st)
	}
}

func TestBadFramesAreCounted(t *testing.T) {
	s := runSite(t, 1, Config{PrivateKey: privateKey(t), Peer: Peer{PublicKey: privateKey(t).Public()}})
	s.dp.send([]byte{1, 2, 3}, fromDP(1, typeIPv4, packet4(100, 0)[:50]), fromDP(1, typeIPv6, packet4(100, 0)),
		fromDP(7, typeIPv4, packet4(100, 0)))
	eventually(t, "counters", func() bool { st := s.Status(); return st.Malformed == 3 && st.Misplaced == 1 })
}

// TestPresharedKey: with different ones there is a handshake that never ends; after the right one is set, there is
// traffic, on the same link.
func TestPresharedKey(t *testing.T) {
	t.Parallel()
	right, _ := NewPresharedKey()
	wrong, _ := NewPresharedKey()
	a, b := twoSites(t, func(a, b *Config) { a.Peer.PresharedKey, b.Peer.PresharedKey = &right, &wrong })
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	eventually(t, "an initiation, and a response to it", func() bool { return a.Status().TxBytes > 0 })
	if st := b.Status(); !st.LastHandshake.IsZero() || st.RxBytes > 0 {
		t.Errorf("handshake with a wrong pre-shared key: %+v", st)
	}
	if n := len(a.dp.frames); n > 0 {
		t.Errorf("%d packets came through", n)
	}
	peer := b.cfg.Peer
	peer.PresharedKey = &right
	if err := b.SetPeer(peer); err != nil {
		t.Fatal(err)
	}
	a.dp.want(toDP(1, typeIPv4, packet4(84, 1))) // it has been kept
}

// TestSetPeer: a change of what does not matter to the session leaves it alone; another key ends it.
func TestSetPeer(t *testing.T) {
	a, b := twoSites(t, nil)
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
	before := b.Status()
	peer := b.cfg.Peer
	peer.Keepalive = 7 * time.Second
	if err := b.SetPeer(peer); err != nil {
		t.Fatal(err)
	}
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 2)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 2)))
	if st := b.Status(); !st.LastHandshake.Equal(before.LastHandshake) || st.Keepalive != 7*time.Second || st.Endpoint != before.Endpoint {
		t.Errorf("before %+v\nafter %+v", before, st)
	}
	peer.PublicKey = privateKey(t).Public()
	if err := b.SetPeer(peer); err != nil {
		t.Fatal(err)
	}
	if st := b.Status(); !st.LastHandshake.IsZero() || st.PeerKey != peer.PublicKey {
		t.Errorf("after another key: %+v", st)
	}
	peer.Keepalive = -1
	if err := b.SetPeer(peer); err == nil {
		t.Error("a bad peer was taken")
	}
}

// fakeResolver answers with what the test has put in.
type fakeResolver struct {
	answer atomic.Pointer[[]netip.Addr]
	asked  atomic.Int32
}

func (r *fakeResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.asked.Add(1)
	if p := r.answer.Load(); p != nil && host == "site.example" {
		return *p, nil
	}
	return nil, errors.New("no such host")
}

func (r *fakeResolver) set(addrs ...string) {
	var out []netip.Addr
	for _, a := range addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	r.answer.Store(&out)
}

// TestNameMoves: the name means nothing at first, then a place where nobody answers, then the right one.
func TestNameMoves(t *testing.T) {
	t.Parallel()
	var r fakeResolver
	var nowhere *net.UDPConn
	a, b := twoSites(t, func(_, b *Config) {
		b.Resolver = &r
		b.Peer.Endpoint = "site.example:1"
	})
	if e := b.Status(); e.Endpoint.IsValid() || !strings.Contains(e.LastError, "no such host") {
		t.Fatalf("before the name exists: %+v", e)
	}
	port := a.Status().Listen.Port()
	nowhere, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: int(port)})
	if err != nil {
		t.Skip(err) // the port is taken there
	}
	defer nowhere.Close()
	peer := b.cfg.Peer
	peer.Endpoint = fmt.Sprintf("site.example:%d", port)
	if err := b.SetPeer(peer); err != nil {
		t.Fatal(err)
	}
	r.set("::1", "127.0.0.2") // the first cannot be reached from an IPv4 socket
	eventually(t, "endpoint of the name", func() bool { return b.Status().Endpoint == netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port) })
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	buf := make([]byte, 2000)
	if _, _, err := nowhere.ReadFromUDPAddrPort(buf); err != nil {
		t.Fatal(err)
	}
	r.set("127.0.0.1")
	a.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
	if e := b.Status().Endpoint; e != a.Status().Listen {
		t.Errorf("endpoint %v", e)
	}
}

// TestPeerMoves: a peer that comes from elsewhere is followed at once.
func TestPeerMoves(t *testing.T) {
	a, b := twoSites(t, nil)
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
	b.stop()
	cfg := b.cfg
	cfg.Socket, cfg.Peer.Endpoint = "", a.Status().Listen.String()
	moved := runSite(t, 2, cfg)
	moved.dp.send(fromDP(2, typeIPv4, packet4(84, 2)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 2)))
	if e := a.Status().Endpoint; e != moved.Status().Listen || e == b.cfg.Listen {
		t.Errorf("endpoint %v, moved to %v", e, moved.Status().Listen)
	}
	a.dp.send(fromDP(1, typeIPv4, packet4(84, 3)))
	moved.dp.want(toDP(2, typeIPv4, packet4(84, 3)))
}

func TestDataplaneRestarts(t *testing.T) {
	a, b := twoSites(t, nil)
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
	a.dp.stop()
	eventually(t, "link down", func() bool { return !a.Status().Connected })
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 2)))
	eventually(t, "the packet is dropped and counted", func() bool { return a.Status().Drops == 1 })
	a.dp = newDataplane(t, a.cfg.Socket)
	eventually(t, "link up", func() bool { return a.Status().Connected && a.dp.m.Up() })
	b.dp.send(fromDP(2, typeIPv4, packet4(84, 3)))
	a.dp.want(toDP(1, typeIPv4, packet4(84, 3)))
}

func TestListenAddress(t *testing.T) {
	key := privateKey(t)
	s := runSite(t, 1, Config{PrivateKey: key, Peer: Peer{PublicKey: privateKey(t).Public()}})
	at := s.Status().Listen
	if at.Addr() != netip.MustParseAddr("127.0.0.1") || at.Port() == 0 {
		t.Errorf("listens at %v", at)
	}
	cfg := s.cfg
	cfg.Listen, cfg.Socket = at, filepath.Join(shortDir(t), "s")
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("second on one port: %v", err)
	}
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", "[::1]:0"} {
		cfg := Config{PrivateKey: key, Listen: netip.MustParseAddrPort(listen), Peer: Peer{PublicKey: privateKey(t).Public()}}
		s := runSite(t, 1, cfg)
		if got := s.Status().Listen; got.Addr() != cfg.Listen.Addr() {
			t.Errorf("%s became %v", listen, got)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	key := privateKey(t)
	good := Config{
		PrivateKey: key, Socket: "s", MAC: siteMAC(1, 0), DataplaneMAC: siteMAC(1, 1),
		Peer: Peer{PublicKey: privateKey(t).Public()},
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.PrivateKey = PrivateKey{} }, "no private key"},
		{func(c *Config) { c.Peer.PublicKey = Key{} }, "no public key"},
		{func(c *Config) { c.Peer.PublicKey = key.Public() }, "our own"},
		{func(c *Config) { c.Peer.PresharedKey = &PresharedKey{} }, "all zeros"},
		{func(c *Config) { c.Peer.Keepalive = time.Millisecond }, "keepalive 1ms"},
		{func(c *Config) { c.Peer.Keepalive = 20 * time.Hour }, "keepalive"},
		{func(c *Config) { c.Peer.Endpoint = "host" }, "host:port"},
		{func(c *Config) { c.Peer.Endpoint = "host:0" }, "port must be"},
		{func(c *Config) { c.Peer.Endpoint = "host:99999" }, "port must be"},
		{func(c *Config) { c.Peer.Endpoint = ":1" }, "no host"},
		{func(c *Config) { c.MTU = 100 }, "MTU 100"},
		{func(c *Config) { c.MTU = 70000 }, "MTU 70000"},
		{func(c *Config) { c.MAC = nil }, "two MAC addresses"},
		{func(c *Config) { c.MAC = c.DataplaneMAC }, "both sides"},
		{func(c *Config) { c.DataplaneMAC = net.HardwareAddr{1, 0, 0, 0, 0, 0} }, "multicast"},
		{func(c *Config) { c.Socket = "" }, "no socket"},
	}
	for _, tt := range tests {
		cfg := good
		tt.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func TestStopIsClean(t *testing.T) {
	cycle := func() {
		a, b := twoSites(t, func(a, _ *Config) { a.Peer.Keepalive = time.Second })
		b.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
		a.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
		for _, s := range []*site{a, b} {
			s.stop()
			s.dp.stop()
		}
		if st := a.Status(); st.Connected || st.Listen.IsValid() {
			t.Errorf("stopped: %+v", st)
		}
	}
	cycle()
	goroutines := runtime.NumGoroutine()
	for range 3 {
		cycle()
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// TestFloodWithoutPeerStaysSmall: wireguard-go would keep 2048 packets of 64 KiB each for a peer that does not answer.
func TestFloodWithoutPeerStaysSmall(t *testing.T) {
	nobody, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	s := runSite(t, 1, Config{PrivateKey: privateKey(t), Peer: Peer{PublicKey: privateKey(t).Public(), Endpoint: nobody.LocalAddr().String()}})
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := memory()
	batch := make([][]byte, 64)
	for k := range batch {
		batch[k] = fromDP(1, typeIPv4, packet4(1400, byte(k)))
	}
	for range 64 {
		s.dp.send(batch...)
	}
	if after := memory(); after > before+32<<20 {
		t.Errorf("%d MB more", (after-before)>>20)
	}
}

func BenchmarkTunnel(b *testing.B) {
	x, y := twoSites(b, nil)
	y.dp.send(fromDP(2, typeIPv4, packet4(84, 1)))
	x.dp.want(toDP(1, typeIPv4, packet4(84, 1)))
	batch := make([][]byte, 32)
	for k := range batch {
		batch[k] = fromDP(2, typeIPv4, packet4(1400, byte(k)))
	}
	b.SetBytes(1400)
	b.ResetTimer()
	sent := 0
	for got := 0; got < b.N; {
		if sent-got < 512 {
			n, _ := y.dp.m.WriteBatch(0, batch)
			sent += n
		}
		select {
		case <-x.dp.frames:
			got++
		case <-time.After(100 * time.Millisecond):
			sent = got // some were lost in the socket
		}
	}
}
