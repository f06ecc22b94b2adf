package wg

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/memif"
)

const patience = time.Minute // spent only by a test that fails

func quietLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// dataplane is the memif master of one link, with the link's frames in a channel.
type dataplane struct {
	t      testing.TB
	m      *memif.Interface
	frames chan []byte
	stop   func()
}

func newDataplane(t testing.TB, socket string) *dataplane {
	t.Helper()
	d := &dataplane{t: t, frames: make(chan []byte, 10000)}
	m, err := memif.New(memif.Config{Role: memif.Master, Socket: socket, Name: "memif0/0", Log: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	d.m = m
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	go func() {
		bufs, sizes := [][]byte{make([]byte, 70000), make([]byte, 70000)}, make([]int, 2)
		for {
			n, err := m.ReadBatch(0, bufs, sizes)
			if err != nil {
				return
			}
			for k := range n {
				d.frames <- bytes.Clone(bufs[k][:sizes[k]])
			}
		}
	}()
	d.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("master: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(func() { d.stop() })
	return d
}

// send waits for room; the link must be up.
func (d *dataplane) send(frames ...[]byte) {
	d.t.Helper()
	eventually(d.t, "room in the dataplane's ring", func() bool {
		n, _ := d.m.WriteBatch(0, frames)
		frames = frames[n:]
		return len(frames) == 0
	})
}

// want waits for exactly this frame, passing over others.
func (d *dataplane) want(frame []byte) {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case f := <-d.frames:
			if bytes.Equal(f, frame) {
				return
			}
			d.t.Fatalf("got  % x\nwant % x", f, frame)
		case <-deadline:
			d.t.Fatalf("frame does not arrive: % x", frame)
		}
	}
}

// site is one link with its dataplane, as a test holds it.
type site struct {
	*Link
	cfg    Config
	dp     *dataplane
	stop   func()
	result chan error
}

func privateKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// siteMAC gives the MAC address of link n (0) and of its dataplane (1).
func siteMAC(n, side byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, n, side} }

// runSite starts a link whose configuration is complete but for what is the same in all tests. With a socket given, its
// dataplane is the test's business.
func runSite(t testing.TB, n byte, cfg Config) *site {
	t.Helper()
	cfg.Name = fmt.Sprintf("tun%d", n)
	own := cfg.Socket == ""
	if own {
		cfg.Socket = filepath.Join(shortDir(t), "s")
	}
	cfg.MAC, cfg.DataplaneMAC = siteMAC(n, 0), siteMAC(n, 1)
	cfg.Log = quietLog()
	if !cfg.Listen.IsValid() {
		cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	s := &site{cfg: cfg, result: make(chan error, 1)}
	if own {
		s.dp = newDataplane(t, cfg.Socket)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Link = l
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.result <- l.Run(ctx) }()
	s.stop = func() {
		t.Helper()
		cancel()
		select {
		case err := <-s.result:
			s.result <- err
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	}
	t.Cleanup(func() { s.stop() })
	eventually(t, "link up with the dataplane and on the net", func() bool {
		st := l.Status()
		return st.Connected && st.Listen.IsValid() && (s.dp == nil || s.dp.m.Up())
	})
	return s
}

// twoSites are two links to each other. The second knows where the first is; change adapts both before they start.
func twoSites(t testing.TB, change func(a, b *Config)) (a, b *site) {
	t.Helper()
	keyA, keyB := privateKey(t), privateKey(t)
	cfgA := Config{PrivateKey: keyA, Peer: Peer{PublicKey: keyB.Public()}}
	cfgB := Config{PrivateKey: keyB, Peer: Peer{PublicKey: keyA.Public()}}
	if change != nil {
		change(&cfgA, &cfgB)
	}
	a = runSite(t, 1, cfgA)
	if cfgB.Peer.Endpoint == "" {
		cfgB.Peer.Endpoint = a.Status().Listen.String()
	}
	return a, runSite(t, 2, cfgB)
}

// ether puts an ethernet header before a packet.
func ether(dst, src net.HardwareAddr, etherType uint16, packet []byte) []byte {
	f := append(append([]byte{}, dst...), src...)
	return append(binary.BigEndian.AppendUint16(f, etherType), packet...)
}

// packet4 is an IPv4 packet of the given total size; fill tells packets apart.
func packet4(size int, fill byte) []byte {
	p := bytes.Repeat([]byte{fill}, size)
	copy(p, []byte{0x45, 0, byte(size >> 8), byte(size), 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2})
	return p
}

func packet6(size int, fill byte, dst string) []byte {
	p := bytes.Repeat([]byte{fill}, size)
	plen := size - 40
	copy(p, []byte{0x60, 0, 0, 0, byte(plen >> 8), byte(plen), 17, 64})
	copy(p[8:], netip.MustParseAddr("fe80::1").AsSlice())
	copy(p[24:], netip.MustParseAddr(dst).AsSlice())
	return p
}

// fromDP and toDP are a packet as a site's dataplane sends and gets it.
func fromDP(n byte, etherType uint16, p []byte) []byte {
	return ether(siteMAC(n, 0), siteMAC(n, 1), etherType, p)
}

func toDP(n byte, etherType uint16, p []byte) []byte {
	return ether(siteMAC(n, 1), siteMAC(n, 0), etherType, p)
}
