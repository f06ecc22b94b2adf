package memif

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rawPeer is the other end of the control channel, in the test's hands.
type rawPeer struct {
	t *testing.T
	c *conn
}

func dialRaw(t *testing.T, sock string) *rawPeer {
	t.Helper()
	nc, err := net.Dial("unixpacket", sock)
	if err != nil {
		t.Fatal(err)
	}
	p := &rawPeer{t: t, c: newConn(nc.(*net.UnixConn))}
	t.Cleanup(p.c.close)
	p.recv() // hello
	return p
}

func (p *rawPeer) recv() message {
	p.t.Helper()
	m, fd, err := p.c.recv(time.Now().Add(patience))
	if err != nil {
		p.t.Fatal(err)
	}
	if fd >= 0 {
		p.t.Cleanup(func() { closeFD(fd) })
	}
	return m
}

// step sends and reads the answer.
func (p *rawPeer) step(m message, fd int) message {
	p.t.Helper()
	if err := p.c.send(m, fd); err != nil {
		p.t.Fatal(err)
	}
	return p.recv()
}

// memory is a sealed memfd with its mapping, which the master will map too.
func memory(t *testing.T, size int) (int, []byte) {
	t.Helper()
	fd, mem, err := newRegion("memif test", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd); unmapAll([][]byte{mem}) })
	return fd, mem
}

func event(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd) })
	return fd
}

func plainFile(t *testing.T) int {
	t.Helper()
	f, err := os.Create(filepath.Join(shortDir(t), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func unsealed(t *testing.T, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("memif test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

const rawLog2 = 3 // rings of 8 descriptors

// rawSlave is a slave whose memory the test writes as it likes: one region with an S2M ring, an M2S ring, and space.
type rawSlave struct {
	*rawPeer
	mem      []byte
	s2m, m2s ring
	s2mInt   int
}

const rawSize = 16384

// rawBuffers is where the space after the two rings begins.
var rawBuffers = uint32(2 * ringBytes(rawLog2))

func connectRawSlave(t *testing.T, sock string) *rawSlave {
	t.Helper()
	p := dialRaw(t, sock)
	fd, mem := memory(t, rawSize)
	s := &rawSlave{rawPeer: p, mem: mem, s2mInt: event(t)}
	var err error
	if s.s2m, err = openRing(mem, 0, rawLog2); err != nil {
		t.Fatal(err)
	}
	if s.m2s, err = openRing(mem, uint32(ringBytes(rawLog2)), rawLog2); err != nil {
		t.Fatal(err)
	}
	s.s2m.init()
	s.m2s.init()
	p.step(initMessage{Version: protocolVersion, Name: "test"}, -1)
	p.step(addRegionMessage{Size: rawSize}, fd)
	p.step(addRingMessage{Flags: addRingFlagS2M, Log2Size: rawLog2}, s.s2mInt)
	p.step(addRingMessage{Offset: uint32(ringBytes(rawLog2)), Log2Size: rawLog2}, event(t))
	if m, ok := p.step(connectMessage{Interface: "evil"}, -1).(connectedMessage); !ok {
		t.Fatalf("connect: %+v", m)
	}
	return s
}

// interrupt wakes the master.
func (s *rawSlave) interrupt() {
	if _, err := unix.Write(s.s2mInt, interruptWord); err != nil {
		s.t.Fatal(err)
	}
}

func TestHostileHandshake(t *testing.T) {
	initOK := initMessage{Version: protocolVersion, Name: "test"}
	ring := uint32(ringBytes(rawLog2))
	s2m := addRingMessage{Flags: addRingFlagS2M, Log2Size: rawLog2}
	tests := []struct {
		name  string
		steps func(p *rawPeer) message // gives the master's last answer
		want  string
	}{
		{"short message", func(p *rawPeer) message {
			if _, err := p.c.uc.Write([]byte{1, 2, 3}); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "3 bytes"},
		{"long message", func(p *rawPeer) message {
			if _, err := p.c.uc.Write(make([]byte, 4000)); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "instead of 128"},
		{"unknown type", func(p *rawPeer) message {
			if _, err := p.c.uc.Write(bytes.Repeat([]byte{0x77}, 128)); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "unknown message type 0x7777"},
		{"type none", func(p *rawPeer) message {
			if _, err := p.c.uc.Write(make([]byte, 128)); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "unknown message type 0x0"},
		{"no init", func(p *rawPeer) message { return p.step(connectMessage{}, -1) }, "unexpected connect"},
		{"version", func(p *rawPeer) message { return p.step(initMessage{Version: 0x300}, -1) }, "unsupported version"},
		{"hello of a slave", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(helloMessage{}, -1)
		}, "unexpected hello"},
		{"init twice", func(p *rawPeer) message { p.step(initOK, -1); return p.step(initOK, -1) }, "unexpected init"},
		{"region without fd", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRegionMessage{Size: 4096}, -1)
		}, "missing memory region"},
		{"region index", func(p *rawPeer) message {
			p.step(initOK, -1)
			fd, _ := memory(p.t, 4096)
			return p.step(addRegionMessage{Index: 1, Size: 4096}, fd)
		}, "unexpected region index 1"},
		{"region unsealed", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRegionMessage{Size: 4096}, unsealed(p.t, 4096))
		}, "not sealed"},
		{"region shorter than promised", func(p *rawPeer) message {
			p.step(initOK, -1)
			fd, _ := memory(p.t, 4096)
			return p.step(addRegionMessage{Size: 8192}, fd)
		}, "4096 bytes short"},
		{"region of nothing", func(p *rawPeer) message {
			p.step(initOK, -1)
			fd, _ := memory(p.t, 4096)
			return p.step(addRegionMessage{}, fd)
		}, "region of 0 bytes"},
		{"region without end", func(p *rawPeer) message {
			p.step(initOK, -1)
			fd, _ := memory(p.t, 4096)
			return p.step(addRegionMessage{Size: 1<<64 - 1}, fd)
		}, "region of 18446744073709551615 bytes"},
		{"region is a file", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRegionMessage{Size: 4096}, plainFile(p.t))
		}, "not a memfd"},
		{"region is an eventfd", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRegionMessage{Size: 4096}, event(p.t))
		}, "not a memfd"},
		{"ring without fd", func(p *rawPeer) message { p.step(initOK, -1); return p.step(s2m, -1) }, "missing ring interrupt"},
		{"ring index", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRingMessage{Index: 3, Log2Size: 1}, event(p.t))
		}, "unexpected ring index 3"},
		{"private header", func(p *rawPeer) message {
			p.step(initOK, -1)
			return p.step(addRingMessage{PrivateHeaderSize: 8}, event(p.t))
		}, "private headers"},
		{"too many rings", func(p *rawPeer) message {
			p.step(initOK, -1)
			p.step(s2m, event(p.t))
			again := s2m
			again.Index = 1
			return p.step(again, event(p.t))
		}, "too many rings"},
		{"two descriptors", func(p *rawPeer) message {
			p.step(initOK, -1)
			oob := unix.UnixRights(event(p.t), event(p.t))
			if _, _, err := p.c.uc.WriteMsgUnix(encode(s2m), oob, nil); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "more than one descriptor"},
		{"many descriptors", func(p *rawPeer) message {
			p.step(initOK, -1)
			fds := make([]int, 100)
			for k := range fds {
				fds[k] = event(p.t)
			}
			if _, _, err := p.c.uc.WriteMsgUnix(encode(s2m), unix.UnixRights(fds...), nil); err != nil {
				p.t.Fatal(err)
			}
			return p.recv()
		}, "more than one descriptor"},
		{"connect without rings", func(p *rawPeer) message { p.step(initOK, -1); return p.step(connectMessage{}, -1) }, "no rings"},
		{"ring in no region", rings(s2m, addRingMessage{Region: 1, Log2Size: rawLog2}), "no region 1"},
		{"ring unaligned", rings(s2m, addRingMessage{Offset: 8, Log2Size: rawLog2}), "unaligned"},
		{"ring beyond its region", rings(s2m, addRingMessage{Offset: 65536 - ring + 16, Log2Size: rawLog2}), "beyond its region"},
		{"ring at the end of the world", rings(s2m, addRingMessage{Offset: 1<<32 - 16, Log2Size: rawLog2}), "beyond its region"},
		{"ring too large", rings(s2m, addRingMessage{Log2Size: 16}), "2^16"},
		{"ring absurdly large", rings(s2m, addRingMessage{Log2Size: 255}), "2^255"},
		{"ring without cookie", rings(s2m, addRingMessage{Offset: 4096, Log2Size: rawLog2}), "wrong cookie"},
		{"interrupt descriptor is a file", func(p *rawPeer) message {
			p.step(initOK, -1)
			fd, mem := memory(p.t, 65536)
			le.PutUint32(mem, ringCookie)
			p.step(addRegionMessage{Size: 65536}, fd)
			p.step(s2m, plainFile(p.t))
			p.step(addRingMessage{Log2Size: rawLog2}, event(p.t))
			return p.step(connectMessage{}, -1)
		}, "interrupt descriptor"},
		{"disconnect", func(p *rawPeer) message {
			p.step(initOK, -1)
			if err := p.c.send(disconnectMessage{Reason: "no\x1b[31m more"}, -1); err != nil {
				p.t.Fatal(err)
			}
			return disconnectMessage{Reason: "-"}
		}, "-"},
	}
	sock := filepath.Join(shortDir(t), "s")
	master := start(t, Config{Role: Master, Socket: sock})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The listener comes up with Run.
			waitListener(t, sock)
			fds := openFDs(t)
			t.Cleanup(func() { // after the peer's own descriptors
				eventually(t, "descriptors closed", func() bool { return openFDs(t) <= fds })
			})
			got, ok := tt.steps(dialRaw(t, sock)).(disconnectMessage)
			if !ok || !strings.Contains(got.Reason, tt.want) {
				t.Errorf("answer %+v, want a disconnect with %q", got, tt.want)
			}
		})
	}
	// The peer has its answer before the master notes why.
	eventually(t, "the last error is the peer's reason, made harmless", func() bool {
		return strings.Contains(master.Stats().LastError, "no?[31m more")
	})
	slave := start(t, Config{Role: Slave, Socket: sock})
	slave.waitLink(true)
	master.waitLink(true)
}

// rings announces a region with a cookie at its beginning, then the two rings, and connects.
func rings(list ...addRingMessage) func(p *rawPeer) message {
	return func(p *rawPeer) message {
		p.step(initMessage{Version: protocolVersion, Name: "test"}, -1)
		fd, mem := memory(p.t, 65536)
		le.PutUint32(mem, ringCookie)
		p.step(addRegionMessage{Size: 65536}, fd)
		for _, m := range list {
			p.step(m, event(p.t))
		}
		return p.step(connectMessage{}, -1)
	}
}

func TestHostileMasterHandshake(t *testing.T) {
	version := helloMessage{MinVersion: protocolVersion, MaxVersion: protocolVersion, MaxLog2RingSize: 10}
	tests := []struct {
		name string
		send []message // what the master says, in turn; the slave's answers are read between
		want string
	}{
		{"too new", []message{helloMessage{MinVersion: 0x300, MaxVersion: 0x400}}, "incompatible protocol version"},
		{"too old", []message{helloMessage{MinVersion: 0x100, MaxVersion: 0x1ff}}, "incompatible protocol version"},
		{"no hello", []message{ackMessage{}}, "unexpected ack message instead of hello"},
		{"connected too early", []message{version, connectedMessage{}}, "unexpected connected message instead of ack"},
		{"hello twice", []message{version, version}, "unexpected hello message instead of ack"},
		{"rejected", []message{version, disconnectMessage{Reason: "go away"}}, "peer disconnected: go away"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := bind(filepath.Join(shortDir(t), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			slave := start(t, Config{Role: Slave, Socket: ln.Addr().String()})
			uc, err := ln.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			p := &rawPeer{t: t, c: newConn(uc)}
			defer p.c.close()
			for k, m := range tt.send {
				if err := p.c.send(m, -1); err != nil {
					t.Fatal(err)
				}
				if k < len(tt.send)-1 {
					p.recv()
				}
			}
			slave.waitError(tt.want)
		})
	}
}

// TestSilentPeerIsNotWaitedFor: Run ends at once even in the middle of a handshake with a peer that says nothing.
func TestSilentPeer(t *testing.T) {
	dir := shortDir(t)
	ln, err := bind(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	slave := start(t, Config{Role: Slave, Socket: ln.Addr().String()})
	uc, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	master := start(t, Config{Role: Master, Socket: filepath.Join(dir, "m")})
	waitListener(t, master.cfg.Socket)
	before := dialRaw(t, master.cfg.Socket) // says nothing
	after := dialRaw(t, master.cfg.Socket)
	after.step(initMessage{Version: protocolVersion}, -1) // falls silent in the middle
	begin := time.Now()
	slave.close()
	master.close()
	if d := time.Since(begin); d > handshakeTime/2 {
		t.Errorf("took %v", d)
	}
	for _, p := range []*rawPeer{before, after} {
		if m, ok := p.recv().(disconnectMessage); !ok || m.Reason != errShutdown.Error() {
			t.Errorf("answer %+v", m)
		}
	}
}

// TestHandOverTakesDeadlinesFromContext: a connection that arrives while Run is ending gets an answer, and nothing
// stays behind.
func TestConnectWhileEnding(t *testing.T) {
	for range 20 {
		sock := filepath.Join(shortDir(t), "s")
		i, err := New(Config{Role: Master, Socket: sock, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- i.Run(ctx) }()
		slave := start(t, Config{Role: Slave, Socket: sock})
		waitListener(t, sock)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		slave.close()
	}
}
