package hoststack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rlr/memif"
)

// fakePlumber is a dataplane that shows the packets of lane 0, and answers when it is told to.
type fakePlumber struct {
	t      *testing.T
	memif  *memif.Interface
	stop   func()
	from   netip.Addr
	mtu    int
	fail   error
	mu     sync.Mutex
	opened int
	closed int
}

func newPlumber(t *testing.T, socket string) *fakePlumber {
	t.Helper()
	f := &fakePlumber{t: t, mtu: 1500}
	f.listen(socket)
	return f
}

func (f *fakePlumber) listen(socket string) {
	f.t.Helper()
	var err error
	if f.memif, err = memif.New(memif.Config{Role: memif.Master, Mode: memif.IP, Socket: socket}); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.memif.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(f.stop)
	select {
	case <-f.memif.Ready():
	case err := <-done:
		done <- err
		f.t.Fatal(err)
	}
}

func (f *fakePlumber) OpenProbe(_ context.Context, _ string, _, _ uint32, src, _ netip.Addr) (uint32, netip.Addr, int, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, netip.Addr{}, 0, nil, f.fail
	}
	f.opened++
	if f.from.IsValid() {
		src = f.from
	}
	return 0, src, f.mtu, func() { f.mu.Lock(); f.opened--; f.mu.Unlock() }, nil
}

func (f *fakePlumber) CloseProbes(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func (f *fakePlumber) SourceFor(context.Context, uint32, uint32, netip.Addr) (netip.Addr, error) {
	return netip.Addr{}, syscall.ENETUNREACH
}

func (f *fakePlumber) counts() (opened, closed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened, f.closed
}

// next returns the next packet that the dataplane gets.
func (f *fakePlumber) next() []byte {
	f.t.Helper()
	buf, sizes := [][]byte{make([]byte, 65536)}, []int{0}
	if _, err := f.memif.ReadBatch(0, buf, sizes); err != nil {
		f.t.Fatal(err)
	}
	return buf[0][:sizes[0]]
}

// answer sends packets as fast as the ring takes them.
func (f *fakePlumber) answer(packets ...[]byte) {
	f.t.Helper()
	for len(packets) > 0 {
		n, err := f.memif.WriteBatch(0, packets)
		if err != nil {
			f.t.Fatal(err)
		}
		packets = packets[n:]
		runtime.Gosched()
	}
}

func startProbes(t *testing.T) (*MemifProbes, *fakePlumber) {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := newPlumber(t, filepath.Join(dir, "p"))
	m := NewMemifProbes(MemifOptions{Socket: filepath.Join(dir, "p"), Plumber: f, Idle: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m, f
}

func echoRequest(t *testing.T, src, dst string, id uint16, ttl uint8, size int) []byte {
	t.Helper()
	p, err := echo{src: addr(src), dst: addr(dst), id: id, seq: 1, ttl: ttl, size: size}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// replyTo turns a request around.
func replyTo(t *testing.T, request []byte) []byte {
	t.Helper()
	p := bytes.Clone(request)
	if p[0]>>4 == 4 {
		copy(p[12:16], request[16:20])
		copy(p[16:20], request[12:16])
		p[ipv4HeaderLen] = 0
		return p
	}
	copy(p[8:24], request[24:40])
	copy(p[24:40], request[8:24])
	p[ipv6HeaderLen] = 129
	return p
}

// sums reports whether an echo's checksums are right.
func sums(p []byte) bool {
	if p[0]>>4 == 4 {
		return checksum(p[:ipv4HeaderLen]) == 0 && checksum(p[ipv4HeaderLen:]) == 0
	}
	pseudo := append(bytes.Clone(p[8:40]), 0, 0, p[4], p[5], 0, 0, 0, protocolICMPv6)
	return checksum(append(pseudo, p[ipv6HeaderLen:]...)) == 0
}

func TestConduitWrites(t *testing.T) {
	m, f := startProbes(t)
	for _, c := range []struct {
		name, src, dst, from string
		ttl, want            uint8
	}{
		{"forwarded", "10.0.0.1", "10.0.0.2", "", 1, 2},
		{"forwarded6", "fd00::1", "fd00::2", "", 253, 254},
		{"to the node", "10.0.0.1", "10.0.0.9", "127.0.0.2", 255, 255},
		{"to the node6", "fd00:abcd::1", "fd00::9", "100::2", 64, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.from = netip.Addr{}
			if c.from != "" {
				f.from = addr(c.from)
			}
			o, err := m.OpenProbe(t.Context(), 0, AnyInterface, addr(c.src), addr(c.dst))
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			sent := echoRequest(t, c.src, c.dst, 7, c.ttl, 10)
			kept := bytes.Clone(sent)
			if n, err := o.Write(sent); err != nil || n != len(sent) {
				t.Fatal(n, err)
			}
			if !bytes.Equal(sent, kept) {
				t.Error("the caller's packet was changed")
			}
			got := f.next()
			h, body, err := parseIP(got)
			if err != nil {
				t.Fatal(err)
			}
			src := c.src
			if c.from != "" {
				src = c.from
			}
			if h.src != addr(src) || h.dst != addr(c.dst) || h.ttl != c.want || binary.BigEndian.Uint16(body[4:]) != 7 || !sums(got) {
				t.Errorf("%+v, checksums %v, % x", h, sums(got), got)
			}
		})
	}
}

func TestConduitRefuses(t *testing.T) {
	m, f := startProbes(t)
	f.mtu = 100
	o, err := m.OpenProbe(t.Context(), 0, AnyInterface, addr("10.0.0.1"), addr("10.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	o6, err := m.OpenProbe(t.Context(), 0, AnyInterface, addr("fd00::1"), addr("fd00::2"))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := echo{src: addr("10.0.0.1"), dst: addr("10.0.0.2"), ttl: 64, size: 100, dontFrag: true}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		o      io.Writer
		packet []byte
		want   error
	}{
		{"nothing", o, nil, syscall.EINVAL},
		{"no IP", o, []byte("hello, this is no packet"), syscall.EINVAL},
		{"cut", o, echoRequest(t, "10.0.0.1", "10.0.0.2", 1, 64, 10)[:25], syscall.EINVAL},
		{"another source", o, echoRequest(t, "10.0.0.3", "10.0.0.2", 1, 64, 0), syscall.EINVAL},
		{"another destination", o, echoRequest(t, "10.0.0.1", "10.0.0.3", 1, 64, 0), syscall.EINVAL},
		{"largest TTL", o, echoRequest(t, "10.0.0.1", "10.0.0.2", 1, 255, 0), syscall.EINVAL},
		{"too long, whole", o, whole, syscall.EMSGSIZE},
		{"too long6", o6, echoRequest(t, "fd00::1", "fd00::2", 1, 64, 100), syscall.EMSGSIZE},
		{"too long for IP", o, make([]byte, 70000), syscall.EMSGSIZE},
	} {
		if _, err := c.o.Write(c.packet); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := o.Write(echoRequest(t, "10.0.0.1", "10.0.0.2", 1, 64, 100)); err != nil {
		t.Errorf("too long, but may be fragmented: %v", err)
	}
	o.Close()
	o6.Close()
	if _, err := o.Write(whole); !errors.Is(err, io.EOF) {
		t.Errorf("write after close: %v", err)
	}
	if opened, _ := f.counts(); opened != 0 {
		t.Errorf("%d not released", opened)
	}
	f.fail = syscall.ENETUNREACH
	if _, err := m.OpenProbe(t.Context(), 0, AnyInterface, addr("10.0.0.1"), addr("10.0.0.2")); !errors.Is(err, f.fail) {
		t.Errorf("the plumber's error: %v", err)
	}
}

// Each probe gets its own answers, and nothing of what else comes.
func TestConduitReads(t *testing.T) {
	m, f := startProbes(t)
	var open []io.ReadWriteCloser
	var sent [][]byte
	for i, dst := range []string{"10.0.0.2", "10.0.0.2", "10.0.0.3"} {
		o, err := m.OpenProbe(t.Context(), 0, AnyInterface, addr("10.0.0.1"), addr(dst))
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		p := echoRequest(t, "10.0.0.1", dst, uint16(i), 64, i)
		if _, err := o.Write(p); err != nil {
			t.Fatal(err)
		}
		f.next()
		open, sent = append(open, o), append(sent, p)
	}
	f.answer([]byte{0x45}, bytes.Repeat([]byte{0xff}, 3000), sent[0], replyTo(t, echoRequest(t, "10.0.0.1", "10.0.0.3", 0, 64, 50)), echoRequest(t, "fd00::1", "fd00::2", 0, 64, 0))
	for i := range open {
		f.answer(replyTo(t, sent[i]))
	}
	for i, o := range open {
		buf := make([]byte, 100)
		n, err := o.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], replyTo(t, sent[i])) {
			t.Errorf("probe %d: % x, %v", i, buf[:n], err)
		}
	}
	// A flood without a reader is dropped, and leaves room for what comes after it.
	for range 3 * probeQueue {
		f.answer(replyTo(t, sent[0]))
	}
	f.answer(replyTo(t, sent[1]))
	if n, err := open[1].Read(make([]byte, 100)); err != nil || n != len(sent[1]) {
		t.Error(n, err)
	}
}

// When the link goes, probes end with the reason, and the plumber is told to remove what there may be.
func TestConduitsEnd(t *testing.T) {
	m, f := startProbes(t)
	src, dst := addr("10.0.0.1"), addr("10.0.0.2")
	o, err := m.OpenProbe(t.Context(), 0, AnyInterface, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	f.stop()
	if _, err := o.Read(make([]byte, 100)); err == nil || !strings.Contains(err.Error(), "dataplane has gone") {
		t.Errorf("read: %v", err)
	}
	if _, err := o.Write(echoRequest(t, "10.0.0.1", "10.0.0.2", 1, 64, 0)); err == nil {
		t.Error("a write went somewhere")
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.OpenProbe(short, 0, AnyInterface, src, dst); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open without a dataplane: %v", err)
	}
	f.listen(m.opt.Socket)
	again, err := m.OpenProbe(t.Context(), 0, AnyInterface, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	if _, closed := f.counts(); closed < 1 {
		t.Error("what the failed memifs were is still there")
	}
	if _, err := again.Write(echoRequest(t, "10.0.0.1", "10.0.0.2", 1, 64, 0)); err != nil {
		t.Error(err)
	}
	o.Close()
	again.Close()
	if _, err := again.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
		t.Errorf("read after close: %v", err)
	}
}
