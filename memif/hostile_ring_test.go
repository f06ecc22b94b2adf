package memif

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostileSlaveRings(t *testing.T) {
	good := descriptor{length: 5, offset: rawBuffers}
	chained := func(d descriptor) descriptor { d.flags |= descFlagNext; return d }
	tests := []struct {
		name  string
		descs []descriptor
		head  uint16
		bad   uint64 // frames counted as bad; the good last one must arrive
		over  string // or the session ends with this
	}{
		{"region", []descriptor{{region: 1, length: 5}, good}, 2, 1, ""},
		{"region 65535", []descriptor{{region: 65535, length: 5}, good}, 2, 1, ""},
		{"offset", []descriptor{{length: 5, offset: rawSize}, good}, 2, 1, ""},
		{"one byte too far", []descriptor{{length: 6, offset: rawSize - 5}, good}, 2, 1, ""},
		{"sum overflows 32 bits", []descriptor{{length: 1<<32 - 1, offset: 1<<32 - 1}, good}, 2, 1, ""},
		{"length", []descriptor{{length: 1<<32 - 1}, good}, 2, 1, ""},
		{"empty", []descriptor{{offset: rawBuffers}, good}, 2, 1, ""},
		{"bad in the middle of a chain", []descriptor{chained(good), chained(descriptor{region: 9, length: 1}), good, good}, 4, 1, ""},
		{"all bad", []descriptor{{}, {}, {}, {}, {}, {}, {}, good}, 8, 7, ""},
		{"unknown flags are ignored", []descriptor{{flags: 0xfffe, length: 5, offset: rawBuffers}}, 1, 0, ""},
		{"head beyond the ring", []descriptor{good}, 9, 0, "impossible ring index"},
		{"head behind", []descriptor{good}, 65535, 0, "impossible ring index"},
		{"endless chain", []descriptor{
			chained(good), chained(good), chained(good), chained(good),
			chained(good), chained(good), chained(good), chained(good),
		}, 8, 0, "without end"},
	}
	sock := filepath.Join(shortDir(t), "s")
	master := start(t, Config{Role: Master, Socket: sock})
	frames := make(chan []byte, 10)
	go func() {
		_ = newReceiver(4, 100).receive(master.Interface, 0, 1<<30, func(_ int, f []byte) bool { frames <- bytes.Clone(f); return true })
	}()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			waitListener(t, sock)
			s := connectRawSlave(t, sock)
			master.waitLink(true)
			defer master.waitLink(false)
			defer s.c.close()
			before := master.Stats()
			copy(s.mem[rawBuffers:], "hello")
			for k, d := range tt.descs {
				s.s2m.store(uint16(k), d)
			}
			s.s2m.addHead(tt.head)
			s.interrupt()
			if tt.over != "" {
				if m, ok := s.recv().(disconnectMessage); !ok || !strings.Contains(m.Reason, tt.over) {
					t.Errorf("answer %+v, want %q", m, tt.over)
				}
				return
			}
			select {
			case f := <-frames:
				if string(f) != "hello" {
					t.Errorf("frame %q", f)
				}
			case <-time.After(patience):
				t.Fatal("the good frame does not arrive")
			}
			if bad := master.Stats().RxBad - before.RxBad; bad != tt.bad {
				t.Errorf("%d bad frames, want %d", bad, tt.bad)
			}
			if s.s2m.tail() != tt.head {
				t.Errorf("tail %d, want all %d slots back", s.s2m.tail(), tt.head)
			}
		})
	}
}

// TestHalfChain: the rest of a frame may come later, and waiting for it is no busy loop.
func TestHalfChain(t *testing.T) {
	sock := filepath.Join(shortDir(t), "s")
	master := start(t, Config{Role: Master, Socket: sock})
	waitListener(t, sock)
	s := connectRawSlave(t, sock)
	master.waitLink(true)
	frames := make(chan []byte, 10)
	go func() {
		_ = newReceiver(4, 100).receive(master.Interface, 0, 2, func(_ int, f []byte) bool { frames <- bytes.Clone(f); return true })
	}()
	copy(s.mem[rawBuffers:], "oneabc")
	s.s2m.store(0, descriptor{length: 3, offset: rawBuffers})
	s.s2m.store(1, descriptor{flags: descFlagNext, length: 2, offset: rawBuffers + 3})
	s.s2m.addHead(2)
	s.interrupt()
	if f := <-frames; string(f) != "one" {
		t.Fatalf("first frame %q", f)
	}
	for range 20 {
		s.interrupt()
	}
	s.s2m.store(2, descriptor{length: 1, offset: rawBuffers + 5})
	s.s2m.addHead(1)
	s.interrupt()
	if f := <-frames; string(f) != "abc" {
		t.Fatalf("second frame %q", f)
	}
	if w := master.Stats().Wakeups; w > 30 {
		t.Errorf("%d wake-ups for 22 interrupts", w)
	}
}

func TestHostileSlaveBuffers(t *testing.T) {
	space := descriptor{length: 100, offset: rawBuffers}
	tests := []struct {
		name  string
		descs []descriptor
		head  uint16
		over  string
	}{
		{"good", []descriptor{space}, 1, ""},
		{"chain of good ones", []descriptor{{length: 2, offset: rawBuffers}, {length: 2, offset: rawBuffers + 200}, {length: 9, offset: rawBuffers + 400}}, 3, ""},
		{"region", []descriptor{{region: 1, length: 100}}, 1, "outside its memory"},
		{"offset", []descriptor{{length: 100, offset: rawSize - 99}}, 1, "outside its memory"},
		{"empty", []descriptor{{offset: rawBuffers}, space}, 2, "outside its memory"},
		{"second of a chain", []descriptor{{length: 2, offset: rawBuffers}, {length: 1<<32 - 1, offset: 1<<32 - 1}}, 2, "outside its memory"},
		{"head beyond the ring", []descriptor{space}, 9, "impossible ring index"},
	}
	sock := filepath.Join(shortDir(t), "s")
	master := start(t, Config{Role: Master, Socket: sock})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			waitListener(t, sock)
			s := connectRawSlave(t, sock)
			master.waitLink(true)
			defer master.waitLink(false)
			defer s.c.close()
			if n, err := master.WriteBatch(0, [][]byte{[]byte("hello")}); n != 0 || err != nil {
				t.Fatalf("write without buffers: %d, %v", n, err)
			}
			for k, d := range tt.descs {
				s.m2s.store(uint16(k), d)
			}
			s.m2s.addHead(tt.head)
			n, _ := master.WriteBatch(0, [][]byte{[]byte("hello")})
			if tt.over != "" {
				if m, ok := s.recv().(disconnectMessage); !ok || !strings.Contains(m.Reason, tt.over) || n != 0 {
					t.Errorf("%d taken, answer %+v, want %q", n, m, tt.over)
				}
				return
			}
			var got []byte
			for k := range s.m2s.tail() {
				d := s.m2s.load(k)
				got = append(got, d.buffer([][]byte{s.mem})...)
				if last := k == s.m2s.tail()-1; last != (d.flags&descFlagNext == 0) {
					t.Errorf("descriptor %d: flags %d", k, d.flags)
				}
			}
			if n != 1 || string(got) != "hello" || s.m2s.tail() != tt.head {
				t.Errorf("%d taken, %q in %d slots", n, got, s.m2s.tail())
			}
		})
	}
}

// rawMaster accepts one slave and holds its memory.
type rawMaster struct {
	*rawPeer
	mem      []byte
	s2m, m2s ring
	m2sInt   int
	init     initMessage
}

func acceptRaw(t *testing.T, ln *net.UnixListener, limits helloMessage) *rawMaster {
	t.Helper()
	uc, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	m := &rawMaster{rawPeer: &rawPeer{t: t, c: newConn(uc)}}
	t.Cleanup(m.c.close)
	limits.MinVersion, limits.MaxVersion = protocolVersion, protocolVersion
	m.init = m.step(limits, -1).(initMessage)
	for {
		if err := m.c.send(ackMessage{}, -1); err != nil {
			t.Fatal(err)
		}
		msg, fd, err := m.c.recv(time.Now().Add(patience))
		if err != nil {
			t.Fatal(err)
		}
		switch msg := msg.(type) {
		case addRegionMessage:
			if m.mem, _, err = mapRegion(fd, msg.Size); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unmapAll([][]byte{m.mem}) })
		case addRingMessage:
			t.Cleanup(func() { closeFD(fd) })
			r, err := openRing(m.mem, msg.Offset, msg.Log2Size)
			if err != nil || !r.valid() {
				t.Fatal(err)
			}
			if msg.Flags&addRingFlagS2M != 0 {
				m.s2m = r
			} else {
				m.m2s, m.m2sInt = r, fd
			}
		case connectMessage:
			if err := m.c.send(connectedMessage{Interface: "evil"}, -1); err != nil {
				t.Fatal(err)
			}
			return m
		default:
			t.Fatalf("message %+v", msg)
		}
	}
}

func TestHostileMasterRings(t *testing.T) {
	ln, err := bind(filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	slave := start(t, Config{Role: Slave, Socket: ln.Addr().String(), BufferSize: 64})
	frames := make(chan []byte, 10)
	go func() {
		_ = newReceiver(4, 1000).receive(slave.Interface, 0, 1<<30, func(_ int, f []byte) bool { frames <- bytes.Clone(f); return true })
	}()
	tests := []struct {
		name  string
		descs []descriptor
		tail  uint16
		bad   uint64
		over  string
	}{
		{"good", []descriptor{{length: 5}}, 1, 0, ""},
		{"longer than the buffer", []descriptor{{length: 65}, {length: 5}}, 2, 1, ""},
		{"empty", []descriptor{{}, {length: 5}}, 2, 1, ""},
		{"region and offset are the slave's business", []descriptor{{region: 900, length: 5, offset: 1<<32 - 1}}, 1, 0, ""},
		{"tail beyond the ring", nil, 9, 0, "impossible ring index"},
		{"endless chain", []descriptor{
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
			{flags: 1, length: 1},
		}, 8, 0, "without end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := acceptRaw(t, ln, helloMessage{MaxLog2RingSize: rawLog2})
			slave.waitLink(true)
			defer slave.waitLink(false)
			defer m.c.close()
			if m.m2s.size != 8 || m.m2s.head() != 8 {
				t.Fatalf("ring of %d with head %d, want the master's limit of 8, all filled", m.m2s.size, m.m2s.head())
			}
			before := slave.Stats()
			for k, d := range tt.descs {
				place := m.m2s.load(uint16(k))
				if d.length == 5 {
					copy(place.buffer([][]byte{m.mem}), "hello")
				}
				m.m2s.store(uint16(k), d)
			}
			m.m2s.setTail(tt.tail)
			if _, err := unix.Write(m.m2sInt, interruptWord); err != nil {
				t.Fatal(err)
			}
			if tt.over != "" {
				if r, ok := m.recv().(disconnectMessage); !ok || !strings.Contains(r.Reason, tt.over) {
					t.Errorf("answer %+v, want %q", r, tt.over)
				}
				return
			}
			select {
			case f := <-frames:
				if string(f) != "hello" {
					t.Errorf("frame %q", f)
				}
			case <-time.After(patience):
				t.Fatal("the good frame does not arrive")
			}
			if bad := slave.Stats().RxBad - before.RxBad; bad != tt.bad {
				t.Errorf("%d bad frames, want %d", bad, tt.bad)
			}
			eventually(t, "buffers given back", func() bool { return m.m2s.head() == 8+tt.tail })
			for k := range m.m2s.size { // with place and length restored
				if d := m.m2s.load(k); d.region != 0 || d.length != 64 || d.flags != 0 || d.buffer([][]byte{m.mem}) == nil {
					t.Errorf("slot %d: %+v", k, d)
				}
			}
		})
	}
	t.Run("tail of the other ring", func(t *testing.T) {
		m := acceptRaw(t, ln, helloMessage{MaxLog2RingSize: rawLog2})
		slave.waitLink(true)
		m.s2m.setTail(7)
		if n, err := slave.WriteBatch(0, [][]byte{{1}}); n != 0 || err == nil {
			t.Errorf("%d taken, %v", n, err)
		}
		if r, ok := m.recv().(disconnectMessage); !ok || !strings.Contains(r.Reason, "impossible ring index") {
			t.Errorf("answer %+v", r)
		}
		slave.waitLink(false)
	})
}

// TestShrinkingMemory: unsealed memory (VPP's hugepages) that its owner takes away ends the session, not the process.
func TestShrinkingMemory(t *testing.T) {
	var failure error
	fail := func(err error) { failure = err }
	region := func() (fd int, mem []byte, r ring) {
		fd = unsealed(t, rawSize)
		mem, err := unix.Mmap(fd, 0, rawSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unmapAll([][]byte{mem}) })
		if r, err = openRing(mem, 0, rawLog2); err != nil {
			t.Fatal(err)
		}
		r.store(0, descriptor{length: 100, offset: 8192})
		r.addHead(1)
		return fd, mem, r
	}
	check := func(what string, n int, err, want error) {
		t.Helper()
		if n != 0 || !errors.Is(err, want) || !errors.Is(failure, errMemoryGone) {
			t.Errorf("%s: %d, %v, failure %v", what, n, err, failure)
		}
		failure = nil
	}
	for _, left := range []int64{0, 4096} { // without rings, without buffers
		fd, mem, r := region()
		rx := rxQueue{ring: r, regions: [][]byte{mem}, shrinks: true, fail: fail, stats: new(counters)}
		tx := txQueue{ring: r, regions: [][]byte{mem}, shrinks: true, fail: fail, stats: new(counters), intFD: -1}
		if err := unix.Ftruncate(fd, left); err != nil {
			t.Fatal(err)
		}
		n, err := rx.take([][]byte{make([]byte, 200)}, []int{0})
		check("take", n, err, errSessionEnded)
		n, err = tx.write([][]byte{make([]byte, 200), {1}})
		if left == 0 {
			check("write", n, err, ErrDown)
			_, err = rx.ready()
			check("ready", 0, err, errSessionEnded)
		}
		rx.mu.Lock() // nothing stays locked
		tx.mu.Lock()
	}
}

// TestHugepageMemory: a zero-copy slave's buffers are in hugepages without seals.
func TestHugepageMemory(t *testing.T) {
	fd, err := unix.MemfdCreate("memif test", unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	if err != nil {
		t.Skip(err)
	}
	const size = 2 << 20
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Skip(err)
	}
	mem, shrinks, err := mapRegion(fd, size)
	if errors.Is(err, unix.ENOMEM) {
		t.Skip("no hugepages")
	}
	if err != nil || !shrinks {
		t.Fatalf("shrinks %v, %v", shrinks, err)
	}
	unmapAll([][]byte{mem})
}
