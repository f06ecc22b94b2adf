package minivpp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/binapi/ping"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
)

// shortDir is a directory whose name leaves room for sockets.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "mv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a server until the test ends.
func start(t testing.TB, change func(*Server)) *Server {
	dir := shortDir(t)
	s, err := New(Config{APISocket: filepath.Join(dir, "api.sock"), StatsSocket: filepath.Join(dir, "stats.sock")})
	if err != nil {
		t.Fatal(err)
	}
	change(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready")
	}
	return s
}

// raw is a client that writes bytes.
type raw struct {
	t     testing.TB
	conn  net.Conn
	r     *bufio.Reader
	table binapi.MessageTable
	index uint32
}

func dial(t testing.TB, s *Server) *raw {
	conn, err := net.Dial("unix", s.cfg.APISocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &raw{t: t, conn: conn, r: bufio.NewReaderSize(conn, 1<<16), table: binapi.MessageTable{}}
	c.write(c.frame(&memclnt.SockclntCreate{Name: "raw"}, 7))
	var reply memclnt.SockclntCreateReply
	if context := c.read(&reply); context != 7 {
		t.Fatalf("the handshake's context is %d", context)
	}
	c.index = reply.Index
	for _, e := range reply.MessageTable {
		c.table[e.Name] = e.Index
	}
	return c
}

// frame encodes a request.
func (c *raw) frame(m api.Message, context uint32) []byte {
	id := uint16(binapi.SockclntCreateID)
	if m.GetMessageName() != "sockclnt_create" {
		id = c.table[m.GetMessageName()+"_"+m.GetCrcString()]
	}
	data, err := codec.EncodeMsg(m, id)
	if err != nil {
		c.t.Fatal(err)
	}
	if headerLen(m) == 10 {
		binary.BigEndian.PutUint32(data[2:], c.index)
		binary.BigEndian.PutUint32(data[6:], context)
	} else {
		binary.BigEndian.PutUint32(data[2:], context)
	}
	out := append(make([]byte, binapi.FrameHeader), data...)
	binary.BigEndian.PutUint32(out[8:], uint32(len(data)))
	return out
}

func (c *raw) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read decodes the next message, which must be of m's type, and returns its context.
func (c *raw) read(m api.Message) (context uint32) {
	c.t.Helper()
	data, err := readFrame(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if id := binary.BigEndian.Uint16(data); m.GetMessageName() != "sockclnt_create_reply" && id != c.table[m.GetMessageName()+"_"+m.GetCrcString()] {
		c.t.Fatalf("message %d is not a %s", id, m.GetMessageName())
	}
	if err := codec.DecodeMsg(data, m); err != nil {
		c.t.Fatal(err)
	}
	return binary.BigEndian.Uint32(data[headerLen(m)-4:])
}

// ping checks that the connection works, and that nothing else was waiting on it.
func (c *raw) ping() {
	c.t.Helper()
	c.write(c.frame(&memclnt.ControlPing{}, 4711))
	var reply memclnt.ControlPingReply
	if context := c.read(&reply); context != 4711 || reply.Retval != 0 {
		c.t.Errorf("context %d, retval %d", context, reply.Retval)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	c := dial(t, start(t, func(*Server) {}))
	const n = 5000
	var all []byte
	for i := range uint32(n) {
		all = append(all, c.frame(&memclnt.ControlPing{}, i)...)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.conn.Write(all) })
	for i := range uint32(n) {
		if context := c.read(&memclnt.ControlPingReply{}); context != i {
			t.Fatalf("answer %d has context %d", i, context)
		}
	}
	wg.Wait()
}

// TestDroppedMessages: what VPP logs and drops must not be answered, and must not hurt.
func TestDroppedMessages(t *testing.T) {
	c := dial(t, start(t, func(*Server) {}))
	setFrame := func(f []byte, length int) []byte {
		f = f[:binapi.FrameHeader+length]
		binary.BigEndian.PutUint32(f[8:], uint32(length))
		return f
	}
	unknown := c.frame(&memclnt.ControlPing{}, 1)
	binary.BigEndian.PutUint16(unknown[16:], 60000)
	reply := c.frame(&memclnt.ControlPing{}, 1)
	binary.BigEndian.PutUint16(reply[16:], c.table["control_ping_reply_f6b0b8ca"])
	alien := c.frame(&memclnt.ControlPing{}, 1)
	binary.BigEndian.PutUint32(alien[18:], c.index+1)
	for name, f := range map[string][]byte{
		"an unknown id":          unknown,
		"a reply":                reply,
		"another client's index": alien,
		"no context":             setFrame(c.frame(&memclnt.ControlPing{}, 1), 8),
		"a truncated body":       setFrame(c.frame(&interfaces.SwInterfaceSetFlags{}, 1), 14),
		"a string that is longer than the message": func() []byte {
			f := c.frame(&vlib.CliInband{Cmd: "show version"}, 1)
			binary.BigEndian.PutUint32(f[26:], 1<<31)
			return f
		}(),
		"more paths than there are": func() []byte {
			f := c.frame(&ip.IPRouteAddDel{Route: ip.IPRoute{Paths: make([]fib_types.FibPath, 1)}}, 1)
			return setFrame(f, len(f)-binapi.FrameHeader-100)
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.write(f)
			c.ping()
		})
	}
}

func TestMalformedFramesCloseOneClientOnly(t *testing.T) {
	s := start(t, func(*Server) {})
	good := dial(t, s)
	for name, length := range map[string]uint32{"huge": 1 << 31, "just too long": maxMessage + 1, "empty": 0, "one byte": 1} {
		t.Run(name, func(t *testing.T) {
			bad := dial(t, s)
			header := make([]byte, binapi.FrameHeader)
			binary.BigEndian.PutUint32(header[8:], length)
			bad.write(header)
			if b, err := io.ReadAll(bad.r); len(b) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			good.t = t
			good.ping()
		})
	}
}

func TestRequestsBeforeTheHandshakeAreDropped(t *testing.T) {
	s := start(t, func(*Server) {})
	table := dial(t, s).table
	conn, err := net.Dial("unix", s.cfg.APISocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &raw{t: t, conn: conn, r: bufio.NewReader(conn), table: table}
	c.write(c.frame(&memclnt.ControlPing{}, 1)) // with client_index 0
	c.write(c.frame(&memclnt.SockclntCreate{Name: "late"}, 9))
	if context := c.read(&memclnt.SockclntCreateReply{}); context != 9 {
		t.Errorf("context %d", context)
	}
}

func TestDelete(t *testing.T) {
	s := start(t, func(*Server) {})
	c := dial(t, s)
	c.write(c.frame(&memclnt.SockclntDelete{Index: c.index + 1}, 1))
	var reply memclnt.SockclntDeleteReply
	if c.read(&reply); reply.Response != -1 {
		t.Errorf("another's index: %d", reply.Response)
	}
	c.write(c.frame(&memclnt.SockclntDelete{Index: c.index}, 2))
	if context := c.read(&reply); context != 2 || reply.Response != 1 {
		t.Errorf("context %d, response %d", context, reply.Response)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v", err)
	}
}

func TestGetFirstMsgID(t *testing.T) {
	c := dial(t, start(t, func(*Server) {}))
	c.write(c.frame(&memclnt.GetFirstMsgID{Name: "memif_" + hex8(memif.VersionCrc)}, 1))
	var reply memclnt.GetFirstMsgIDReply
	c.read(&reply)
	// The plugin's first message is the one that its module lists first.
	want := c.table["memif_socket_filename_add_del_a2ce1a10"]
	if reply.Retval != 0 || reply.FirstMsgID != want || want == 0 {
		t.Errorf("%+v, want %d", reply, want)
	}
}

func hex8(v uint32) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := range b {
		b[7-i] = digits[v>>(4*i)&15]
	}
	return string(b[:])
}

// TestKeptWaiting: a client that sends a lot before it reads gets all its answers.
func TestKeptWaiting(t *testing.T) {
	c := dial(t, start(t, func(s *Server) { s.limits.highWater = 1 << 10 }))
	const n = 20000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(n) {
			if _, err := c.conn.Write(c.frame(&memclnt.ControlPing{}, i)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range uint32(n) {
		if context := c.read(&memclnt.ControlPingReply{}); context != i {
			t.Fatalf("answer %d has context %d", i, context)
		}
	}
	wg.Wait()
}

// TestSlowClientIsDisconnected: events pile up for a client that does not read, and only it suffers.
func TestSlowClientIsDisconnected(t *testing.T) {
	s := start(t, func(s *Server) { s.limits.backlog = 4 << 10 })
	slow, good := dial(t, s), dial(t, s)
	slow.write(slow.frame(&interfaces.WantInterfaceEvents{EnableDisable: 1}, 1))
	slow.read(&interfaces.WantInterfaceEventsReply{})
	deadline := time.Now().Add(time.Minute)
	gone := func() bool {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		return len(s.hub.ifaces) == 0
	}
	for !gone() {
		if time.Now().After(deadline) {
			t.Fatal("the client is still there")
		}
		good.write(good.frame(&interfaces.CreateLoopback{}, 1))
		var r interfaces.CreateLoopbackReply
		good.read(&r)
		good.write(good.frame(&interfaces.DeleteLoopback{SwIfIndex: r.SwIfIndex}, 2))
		good.read(&interfaces.DeleteLoopbackReply{})
	}
	good.ping()
}

func TestStalledClientIsDisconnected(t *testing.T) {
	s := start(t, func(s *Server) { s.limits.highWater, s.limits.stall = 64<<10, 50*time.Millisecond })
	c := dial(t, s)
	f := c.frame(&vlib.CliInband{Cmd: "help show"}, 1)
	for {
		if _, err := c.conn.Write(f); err != nil {
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v", err)
			}
			return
		}
	}
}

func TestListen(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "a.sock")
	l, err := listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen(t.Context(), "unix", path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	l, err = listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatalf("an abandoned socket: %v", err)
	}
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t.Context(), "unix", file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file is now %q", b)
	}
}

func TestNewChecksTheConfiguration(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no socket, and no error")
	}
	if _, err := New(Config{APISocket: "/tmp/" + strings.Repeat("x", 200)}); err == nil {
		t.Error("a path too long, and no error")
	}
}

// FuzzClient feeds a client's reader and all handlers with whatever comes, in a real table.
func FuzzClient(f *testing.F) {
	probe := newFuzzClient(f)
	c := &raw{t: f, table: binapi.MessageTable{}, index: probe.index}
	for _, m := range probe.srv.messages.entries {
		c.table[m.proto.GetMessageName()+"_"+m.proto.GetCrcString()] = m.id
		if m.serve != nil {
			f.Add(c.frame(m.proto, 1))
		}
	}
	f.Add(c.frame(&vlib.CliInband{Cmd: "ip route add 10.0.0.0/8 via 10.0.0.1 weight 3"}, 1))
	f.Add(c.frame(&vlib.CliInband{Cmd: "set interface ip address local0 10.0.0.1/8"}, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newFuzzClient(t)
		r := bufio.NewReader(bytes.NewReader(data))
		var buf []byte
		for range 64 {
			var err error
			if buf, err = readFrame(r, buf); err != nil {
				break
			}
			// These would make folders and sockets, or wait.
			switch m := c.srv.messages.byID[binary.BigEndian.Uint16(buf)]; {
			case m == nil:
			case strings.HasPrefix(m.proto.GetMessageName(), "memif_"), m.proto.GetMessageName() == new(ping.WantPingFinishedEvents).GetMessageName():
				continue
			}
			c.dispatch(buf)
			c.mu.Lock()
			c.out = c.out[:0]
			c.mu.Unlock()
		}
	})
}

// newFuzzClient is a client of a server that does not run.
func newFuzzClient(t testing.TB) *client {
	dir := shortDir(t)
	s, err := New(Config{APISocket: filepath.Join(dir, "api.sock")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // so that a ping does not wait
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "pair")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{
		srv: s, conn: conn.(*net.UnixConn), log: s.log, ctx: ctx, index: 1 << 31,
		wake: make(chan struct{}, 1), drains: make(chan struct{}, 1),
	}
}

// BenchmarkRoutes adds routes, many requests with each write.
func BenchmarkRoutes(b *testing.B) {
	c := dial(b, start(b, func(*Server) {}))
	_ = c.conn.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var batch []byte
		for i := range b.N {
			var p ip.IPRouteAddDelV2
			p.IsAdd = true
			p.Route.Prefix.Len = 32
			p.Route.Prefix.Address.Un.SetIP4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			p.Route.NPaths = 1
			p.Route.Paths = append(p.Route.Paths, fib_types.FibPath{Type: fib_types.FIB_API_PATH_TYPE_DROP})
			batch = append(batch, c.frame(&p, uint32(i))...)
			if len(batch) > 32<<10 || i == b.N-1 {
				_, _ = c.conn.Write(batch)
				batch = batch[:0]
			}
		}
	})
	for range b.N {
		var r ip.IPRouteAddDelV2Reply
		c.read(&r)
		if r.Retval != 0 {
			b.Fatal(r.Retval)
		}
	}
	wg.Wait()
}

// TestPingDoesNotHoldUp: a ping of the command line is answered when it is done, and other requests of the client meanwhile; when
// the client leaves, it ends.
func TestPingDoesNotHoldUp(t *testing.T) {
	s := start(t, func(*Server) {})
	if _, err := s.CreateLoopback([6]byte{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.AddAddress(1, netip.MustParsePrefix("10.0.0.1/24")), s.SetAdmin(1, true)); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	for i := range uint32(maxJobs) {
		c.write(c.frame(&vlib.CliInband{Cmd: "ping 10.0.0.9 repeat 100000"}, i))
	}
	c.ping()
	c.write(c.frame(&vlib.CliInband{Cmd: "ping 10.0.0.1 repeat 1"}, 99))
	var reply vlib.CliInbandReply
	if context := c.read(&reply); context != 99 || reply.Retval != int32(api.EAGAIN) {
		t.Errorf("one ping too many: %+v", reply)
	}
	c.conn.Close() // the end of the test waits for the pings

	c = dial(t, s)
	c.write(c.frame(&vlib.CliInband{Cmd: "ping 10.0.0.1 repeat 1"}, 5))
	if context := c.read(&reply); context != 5 || reply.Retval != 0 || !strings.Contains(reply.Reply, "1 sent, 1 received") {
		t.Errorf("%+v", reply)
	}
}
