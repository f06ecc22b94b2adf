package vppagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/vpe"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
	"rlr/fib"
)

// script is an adapter whose VPP is a function.
type script struct {
	mu       sync.Mutex
	callback adapter.MsgCallback
	ids      map[string]uint16
	names    map[uint16]string
	done     chan struct{}
	answer   func(name string, context uint32) // called for each request, in its own goroutine's turn
	requests []string
	contexts []uint32
}

func newScript() (*script, *session) {
	v := &script{ids: make(map[string]uint16), names: make(map[uint16]string), done: make(chan struct{})}
	for i, m := range binapi.Messages() {
		v.ids[m.GetMessageName()] = uint16(i + 10)
		v.names[uint16(i+10)] = m.GetMessageName()
	}
	return v, newSession(v, v.done, func() error { return errors.New("ended") })
}

func (v *script) Connect() error                        { return nil }
func (v *script) Disconnect() error                     { return nil }
func (v *script) WaitReady() error                      { return nil }
func (v *script) SetMsgCallback(cb adapter.MsgCallback) { v.callback = cb }

func (v *script) GetMsgID(name, crc string) (uint16, error) {
	if id, ok := v.ids[name]; ok {
		return id, nil
	}
	return 0, &adapter.UnknownMsgError{MsgName: name, MsgCrc: crc}
}

func (v *script) SendMsg(context uint32, data []byte) error {
	select {
	case <-v.done:
		return errors.New("ended")
	default:
	}
	name := v.names[binary.BigEndian.Uint16(data)]
	v.mu.Lock()
	v.requests = append(v.requests, name)
	v.contexts = append(v.contexts, context)
	v.mu.Unlock()
	if v.answer != nil {
		v.answer(name, context)
	}
	return nil
}

// reply sends m as VPP would.
func (v *script) reply(context uint32, m api.Message) {
	id := v.ids[m.GetMessageName()]
	data, err := codec.EncodeMsg(m, id)
	if err != nil {
		panic(err)
	}
	binary.BigEndian.PutUint32(data[2:6], context)
	v.callback(id, data)
}

func TestCallAndDump(t *testing.T) {
	v, s := newScript()
	v.answer = func(name string, context uint32) {
		switch name {
		case "show_version":
			v.reply(context, &vpe.ShowVersionReply{Version: "x"})
		case "create_loopback":
			v.reply(context, &interfaces.CreateLoopbackReply{Retval: int32(api.INVALID_VALUE)})
		case "sw_interface_dump":
			for i := range 3 {
				v.reply(context, &interfaces.SwInterfaceDetails{InterfaceName: fmt.Sprint("if", i), Mtu: make([]uint32, 4)})
			}
		case "ip_table_dump": // not what was asked for
			v.reply(context, &vpe.ShowVersionReply{})
		case "control_ping":
			v.reply(context, &memclnt.ControlPingReply{})
		}
	}
	ctx := context.Background()
	var version vpe.ShowVersionReply
	if err := s.call(ctx, &vpe.ShowVersion{}, &version); err != nil || version.Version != "x" {
		t.Errorf("call: %q, %v", version.Version, err)
	}
	if err := s.call(ctx, &interfaces.CreateLoopback{}, new(interfaces.CreateLoopbackReply)); !errors.Is(err, api.INVALID_VALUE) || !isRefusal(err) {
		t.Errorf("refused call: %v", err)
	}
	var names []string
	err := dump(ctx, s, &interfaces.SwInterfaceDump{}, func(d *interfaces.SwInterfaceDetails) { names = append(names, d.InterfaceName) })
	if err != nil || fmt.Sprint(names) != "[if0 if1 if2]" {
		t.Errorf("dump: %v, %v", names, err)
	}
	if err := dump(ctx, s, &ip.IPTableDump{}, func(*ip.IPTableDetails) {}); err == nil {
		t.Error("a dump takes another message for its details")
	}
	delete(v.ids, "show_version")
	clear(s.ids)
	var unknown *adapter.UnknownMsgError
	if err := s.call(ctx, &vpe.ShowVersion{}, &version); !errors.As(err, &unknown) {
		t.Errorf("call of a message that VPP does not have: %v", err)
	}
	if len(s.calls) != 0 {
		t.Errorf("%d calls are left", len(s.calls))
	}
}

func TestLateAndMissingReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newScript()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.call(ctx, &vpe.ShowVersion{}, new(vpe.ShowVersionReply)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no reply: %v", err)
		}
		late := v.contexts[0]
		v.answer = func(_ string, context uint32) {
			v.reply(late, &vpe.ShowVersionReply{Version: "late"})
			v.reply(context, &vpe.ShowVersionReply{Version: "now"})
		}
		var version vpe.ShowVersionReply
		if err := s.call(t.Context(), &vpe.ShowVersion{}, &version); err != nil || version.Version != "now" {
			t.Errorf("after a late reply: %q, %v", version.Version, err)
		}
		v.answer = nil
		began := time.Now()
		if err := s.call(t.Context(), &vpe.ShowVersion{}, &version); err == nil || time.Since(began) != callTimeout {
			t.Errorf("a caller without a deadline waits %v: %v", time.Since(began), err)
		}
		errs := make(chan error)
		go func() { errs <- s.call(t.Context(), &vpe.ShowVersion{}, &version) }()
		synctest.Wait()
		close(v.done)
		if err := <-errs; !errors.Is(err, fib.ErrDisconnected) {
			t.Errorf("end of the connection: %v", err)
		}
		if err := s.call(t.Context(), &vpe.ShowVersion{}, &version); !errors.Is(err, fib.ErrDisconnected) {
			t.Errorf("after it: %v", err)
		}
	})
}

// TestPipeline answers out of order, twice, and for others.
func TestPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, window = 500, 16
		v, s := newScript()
		request := func(int) ([]byte, error) { return s.encode(&ip.IPRouteAddDelV2{}) }
		var waiting []uint32
		most := 0
		flush := func() {
			rand.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
			for _, c := range waiting {
				v.reply(c, &ip.IPRouteAddDelV2Reply{StatsIndex: c})
				v.reply(c, &ip.IPRouteAddDelV2Reply{StatsIndex: c})
				v.reply(c+1000, &ip.IPRouteAddDelV2Reply{})
			}
			waiting = waiting[:0]
		}
		v.answer = func(_ string, context uint32) {
			waiting = append(waiting, context)
			if most = max(most, len(waiting)); len(waiting) == window {
				flush()
			}
		}
		got := make([]int, n)
		done := make(chan error)
		go func() {
			done <- s.pipeline(t.Context(), n, window,
				request, func(i int, _ []byte) { got[i]++ })
		}()
		synctest.Wait()
		flush()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, slices.Repeat([]int{1}, n)) || most != window {
			t.Errorf("answers %v, at most %d under way", got, most)
		}

		v.answer = func(_ string, context uint32) {
			if context%5 != 0 {
				v.reply(context, &ip.IPRouteAddDelV2Reply{})
			}
		}
		began := time.Now()
		err := s.pipeline(t.Context(), n, window, request, func(int, []byte) {})
		if !errors.Is(err, errStalled) || time.Since(began) != callTimeout {
			t.Errorf("missing answers: %v after %v", err, time.Since(began))
		}
		go func() {
			done <- s.pipeline(t.Context(), n, window, request, func(int, []byte) {})
		}()
		synctest.Wait()
		close(v.done)
		if err := <-done; !errors.Is(err, fib.ErrDisconnected) {
			t.Errorf("end of the connection: %v", err)
		}
		if len(s.bulks) != 0 {
			t.Errorf("%d are left", len(s.bulks))
		}
	})
}

func TestContextsWrapAround(t *testing.T) {
	_, s := newScript()
	s.next = ^uint32(0) - 5
	for range 20 {
		if first := s.takeLocked(4); first == 0 || first > first+3 {
			t.Fatalf("contexts from %d", first)
		}
	}
}

// FuzzReceived feeds a session with whatever VPP could send while all kinds of requests wait.
func FuzzReceived(f *testing.F) {
	for _, m := range binapi.Messages() {
		data, err := codec.EncodeMsg(m, 1)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.GetMessageName(), data)
		f.Add(m.GetMessageName(), data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		v, s := newScript()
		id := v.ids[name]
		if err := s.event(&interfaces.SwInterfaceEvent{}, func() {}); err != nil {
			t.Fatal(err)
		}
		v.answer = func(_ string, context uint32) {
			for _, c := range []uint32{context, context + 1, 0} {
				msg := append(slices.Clone(data), make([]byte, max(0, 6-len(data)))...)
				binary.BigEndian.PutUint32(msg[2:6], c)
				v.callback(id, msg)
			}
			v.callback(id, data)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.call(ctx, &vpe.ShowVersion{}, new(vpe.ShowVersionReply))
		_ = dump(ctx, s, &ip.IPRouteV2Dump{}, func(d *ip.IPRouteV2Details) {
			heldPaths(d.Route.Paths, nil, make(map[hopKey][]fib.NextHop))
			_, _ = (&life{}).entry(&d.Route, nil, nil)
		})
		l := &life{s: s}
		errs := make([]error, 3)
		l.write(ctx, make([]fib.Change, 3), nil, errs)
	})
}
