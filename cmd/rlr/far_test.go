package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/fib"
	"rlr/hoststack"
	"rlr/internal/ctl"
	"rlr/minivpp"
	"rlr/rootless"
	"rlr/vppagent"
)

// This file has what stands around a router that is tested as a whole: networks in the test's process, whose packets are real and
// whose BGP speakers are made of bytes.

// eachDataplane plays a test with a router on each of them.
func eachDataplane(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{"embedded", "vpp"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "vpp" {
				needVPP(t)
			}
			test(t, kind)
		})
	}
}

// needVPP skips a test where no VPP is installed; RLR_REQUIRE_VPP=1 makes that a failure.
func needVPP(t *testing.T) {
	t.Helper()
	if vppPrefix() != "" {
		return
	}
	if os.Getenv("RLR_REQUIRE_VPP") == "1" {
		t.Fatal("RLR_REQUIRE_VPP=1, and there is no vpp")
	}
	t.Skip("no vpp installed")
}

// vppPrefix is where the VPP is installed that routers find; "" without one.
func vppPrefix() string {
	binary := rootless.FindVPP()
	if binary == "" {
		return ""
	}
	return filepath.Dir(filepath.Dir(binary))
}

// routerEnv is the environment of a router whose files are in dir.
func routerEnv(dir string) []string {
	env := []string{"RLR_RUNTIME_DIR=" + filepath.Join(dir, "r"), "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	if prefix := vppPrefix(); prefix != "" {
		env = append(env, "VPP_PREFIX="+prefix)
	}
	return env
}

// routerIn runs a router whose files are in dir, and returns a client of it.
func routerIn(t *testing.T, dir, name, config string) *ctl.Client {
	t.Helper()
	file := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "r", name)
	t.Cleanup(func() { // the VPP of a router that did not end well
		if err := rootless.StopLeftover(home, logrus.NewEntry(logrus.New())); err != nil {
			t.Error(err)
		}
	})
	s := startService(t, routerEnv(dir), "run", "-c", file)
	t.Cleanup(func() {
		took, err := s.terminate(20 * time.Second)
		t.Logf("router %s ended %v after SIGTERM", name, took.Round(time.Millisecond))
		if err != nil {
			t.Errorf("the router's end: %v", err)
		}
	})
	c := ctl.NewClient(ctl.Running{Name: name, Dir: home})
	t.Cleanup(c.Close)
	return c
}

// shortTemp is a folder whose sockets have short paths.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// awaiting waits for what nothing tells of.
func awaiting(t *testing.T, limit time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var latest error
	for {
		err := check(ctx)
		switch {
		case err == nil:
			return
		case ctx.Err() == nil || latest == nil:
			latest = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s: %v", limit, latest)
		case <-tick.C:
		}
	}
}

// farNode is a network: an embedded dataplane, configured without a router.
type farNode struct {
	t      *testing.T
	stack  hoststack.Stack
	prober *hoststack.Prober
}

func newFar(t *testing.T, name string, interfaces []vppagent.Interface, routes ...fib.Route) *farNode {
	t.Helper()
	dir := shortTemp(t)
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	log := logger.WithField("far", name)
	plane, err := minivpp.New(minivpp.Config{
		APISocket: filepath.Join(dir, "api.sock"), StatsSocket: filepath.Join(dir, "stats.sock"), RuntimeDir: dir, Version: version, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	running(t, plane.Run)
	<-plane.Ready()
	agent := vppagent.New(vppagent.Options{
		Socket: filepath.Join(dir, "api.sock"), Log: log, Config: vppagent.Config{Router: name, Interfaces: interfaces},
	})
	running(t, agent.Run)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := agent.WaitConfigured(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Dump(ctx); err != nil {
		t.Fatal(err)
	}
	var changes []fib.Change
	for _, r := range routes {
		changes = append(changes, fib.Change{Route: r})
	}
	if err := errors.Join(agent.Apply(ctx, changes)...); err != nil {
		t.Fatal(err)
	}
	return &farNode{t, hoststack.New(plane, agent), hoststack.NewProber(hoststack.InProcess(plane), agent)}
}

// running runs something until the test ends.
func running(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// farLink is an end of a cable to the router, whose end is the master.
func farLink(name, socket string, addresses ...string) vppagent.Interface {
	i := vppagent.Interface{Name: name, Enabled: true, Memif: &vppagent.Memif{Socket: socket, Role: vppagent.MemifSlave}}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
	}
	return i
}

func farLoopback(addresses ...netip.Prefix) vppagent.Interface {
	return vppagent.Interface{Name: "lo", Enabled: true, Loopback: &vppagent.Loopback{}, Addresses: addresses}
}

func farRoute(prefix, via, iface string) fib.Route {
	return fib.Route{
		Key:      fib.Key{Prefix: netip.MustParsePrefix(prefix)},
		NextHops: []fib.NextHop{{Addr: netip.MustParseAddr(via), Interface: iface}},
	}
}

// byteSpeaker is a BGP speaker that says what a test wants it to say, and keeps its session alive.
type byteSpeaker struct {
	conn  net.Conn
	wg    sync.WaitGroup
	mu    sync.Mutex   // of writes
	heard atomic.Int64 // announced prefixes that the router has told it of, again and again where it did
}

const byteHold = 90 // s

func bgpMessage(typ byte, body []byte) []byte {
	b := slices.Repeat([]byte{0xff}, 16)
	b = binary.BigEndian.AppendUint16(b, uint16(19+len(body)))
	return append(append(b, typ), body...)
}

// Types of messages (RFC 4271 §4.1).
const (
	bgpOpen, bgpUpdate, bgpKeepalive = 1, 2, 4
)

// speak connects from a local address, on an interface, to the router's, and comes up with both families, IPv4 over IPv6 next hops
// too (RFC 8950).
func (f *farNode) speak(iface, local, remote string, as uint32) *byteSpeaker {
	f.t.Helper()
	s := &byteSpeaker{}
	where := hoststack.Endpoints{Interface: iface, Local: netip.AddrPortFrom(netip.MustParseAddr(local), 0), Remote: netip.AddrPortFrom(netip.MustParseAddr(remote), 179)}
	awaiting(f.t, time.Minute, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := f.stack.Dial(ctx, where)
		if err != nil {
			return err
		}
		s.conn = conn
		if err := s.open(as); err != nil {
			conn.Close()
			return err
		}
		return nil
	})
	stop := make(chan struct{})
	s.wg.Go(s.listen)
	s.wg.Go(func() {
		tick := time.NewTicker(byteHold / 3 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = s.send(bgpMessage(bgpKeepalive, nil)) // its end is seen where it matters
			}
		}
	})
	f.t.Cleanup(func() { close(stop); s.conn.Close(); s.wg.Wait() })
	return s
}

// open does the handshake.
func (s *byteSpeaker) open(as uint32) error {
	caps := []byte{
		1, 4, 0, 1, 0, 1, // IPv4 unicast
		1, 4, 0, 2, 0, 1, // IPv6 unicast
		5, 6, 0, 1, 0, 1, 0, 2, // IPv4 with IPv6 next hops
	}
	caps = binary.BigEndian.AppendUint32(append(caps, 65, 4), as)
	body := append([]byte{4, 0x5b, 0xa0, 0, byteHold}, binary.BigEndian.AppendUint32(nil, as)...) // AS_TRANS; the number serves as identifier
	body = append(body, byte(len(caps)+2), 2, byte(len(caps)))
	if err := s.send(bgpMessage(bgpOpen, append(body, caps...))); err != nil {
		return err
	}
	if err := s.expect(bgpOpen); err != nil {
		return err
	}
	if err := s.send(bgpMessage(bgpKeepalive, nil)); err != nil {
		return err
	}
	return s.expect(bgpKeepalive)
}

func (s *byteSpeaker) expect(want byte) error {
	_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer func() { _ = s.conn.SetReadDeadline(time.Time{}) }()
	typ, body, err := readMessage(s.conn)
	if err != nil {
		return err
	}
	if typ != want {
		return fmt.Errorf("message of type %d (%x) instead of %d", typ, body, want)
	}
	return nil
}

func readMessage(r io.Reader) (typ byte, body []byte, err error) {
	header := make([]byte, 19)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, nil, err
	}
	body = make([]byte, max(int(binary.BigEndian.Uint16(header[16:])), len(header))-len(header))
	_, err = io.ReadFull(r, body)
	return header[18], body, err
}

// listen counts announced prefixes until the connection ends.
func (s *byteSpeaker) listen() {
	in := bufio.NewReaderSize(s.conn, 64<<10)
	for {
		typ, body, err := readMessage(in)
		if err != nil {
			return
		}
		if typ == bgpUpdate {
			s.heard.Add(int64(announcedIn(body)))
		}
	}
}

// announcedIn counts the prefixes that an UPDATE's body announces, as NLRI and in MP_REACH_NLRI.
func announcedIn(body []byte) (n int) {
	count := func(nlri []byte) {
		for ; len(nlri) > 0; n++ {
			nlri = nlri[min(1+(int(nlri[0])+7)/8, len(nlri)):]
		}
	}
	cut := func() (part []byte) { // a field after its length of two bytes
		k := 2 + int(binary.BigEndian.Uint16(body))
		part, body = body[2:k], body[k:]
		return part
	}
	cut()
	attrs := cut()
	count(body)
	for len(attrs) > 0 {
		head, length := 3, int(attrs[2])
		if attrs[0]&0x10 != 0 {
			head, length = 4, int(binary.BigEndian.Uint16(attrs[2:]))
		}
		if value := attrs[head : head+length]; attrs[1] == 14 {
			count(value[5+int(value[3]):])
		}
		attrs = attrs[head+length:]
	}
	return n
}

func (s *byteSpeaker) send(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := s.conn.Write(b)
	return err
}

// announcement is an UPDATE whose prefixes, of one family, have this next hop in MP_REACH_NLRI (RFC 4760 §3).
func announcement(as uint32, nextHop []byte, prefixes ...netip.Prefix) []byte {
	family := byte(2)
	if prefixes[0].Addr().Is4() {
		family = 1
	}
	mp := append([]byte{0, family, 1, byte(len(nextHop))}, nextHop...)
	mp = append(mp, 0)
	for _, p := range prefixes {
		mp = append(append(mp, byte(p.Bits())), p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
	}
	attrs := []byte{0x40, 1, 1, 0} // ORIGIN: IGP
	attrs = binary.BigEndian.AppendUint32(append(attrs, 0x40, 2, 6, 2, 1), as)
	attrs = binary.BigEndian.AppendUint16(append(attrs, 0x90, 14), uint16(len(mp)))
	attrs = append(attrs, mp...)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	return bgpMessage(bgpUpdate, append(body, attrs...))
}
