package minivpp

import (
	"context"
	"encoding/binary"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/codec"
)

// newFuzzServer makes a server whose plane runs, without sockets.
func newFuzzServer(f *testing.F) *Server {
	log := logrus.New()
	log.SetOutput(io.Discard)
	dir := f.TempDir()
	s, err := New(Config{APISocket: filepath.Join("/tmp", "x.sock"), RuntimeDir: dir, Log: logrus.NewEntry(log)})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Plane.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done })
	return s
}

// FuzzDispatch gives arbitrary bodies to every handler: none may panic, hang, or take memory out of proportion.
func FuzzDispatch(f *testing.F) {
	s := newFuzzServer(f)
	for _, m := range s.messages.entries {
		if data, err := codec.EncodeMsg(m.proto, m.id); err == nil {
			f.Add(m.id, data[headerLen(m.proto):])
		}
	}
	f.Fuzz(func(t *testing.T, id uint16, body []byte) {
		m := s.messages.entries[int(id)%len(s.messages.entries)]
		if m.proto.GetMessageName() == "cli_inband" {
			return // FuzzCommand's
		}
		ctx, cancel := context.WithCancel(context.Background())
		c := &client{srv: s, ctx: ctx, log: s.log, index: 1, wake: make(chan struct{}, 1), drains: make(chan struct{}, 1)}
		data := binary.BigEndian.AppendUint16(nil, m.id)
		if n := headerLen(m.proto); n == 10 {
			data = binary.BigEndian.AppendUint32(data, c.index)
		}
		data = binary.BigEndian.AppendUint32(data, 7)
		c.dispatch(append(data, body...))
		cancel()
		c.wg.Wait()
		s.hub.forget(c)
		if err := c.failure(); err != nil {
			t.Errorf("%s: %v", m.proto.GetMessageName(), err)
		}
	})
}

// FuzzCommand gives arbitrary lines to the command line.
func FuzzCommand(f *testing.F) {
	s := newFuzzServer(f)
	for _, line := range []string{
		"show version verbose", "sh int addr local0", "show ip fib table 0 1.2.3.4", "show ip6 fib ::/0 summary", "show memif",
		"set interface ip address del local0 1.2.3.4/24", "ip route add 1.2.3.0/24 table 0 via 1.1.1.1 local0 weight 3 via drop",
		"ping 1.1.1.1 source local0 size 9 interval 0.001 repeat 3 table-id 0", "help show", "show ?", "show errors", "show clock",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, _ = s.command(ctx, line)
	})
}
