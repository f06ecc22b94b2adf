package vppagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/codec"

	"rlr/fib"
)

// session sends requests over a govpp adapter and hands each reply to who waits for it.
//
// It stands where govpp's core.Connection would. Both use govpp's messages and codec; but core keeps replies of abandoned
// requests in channels that it uses again, so that a late reply is taken for another request's; it drops replies when a
// reader is 100 ms late; and its context has room for 65,536 requests at most. Here every request has its own number of
// 32 bits, nothing is dropped, and a reply that nobody waits for any more goes nowhere.

// Limits for a request whose context ends later. VPP answers in milliseconds, and dumps a million routes in seconds, or it is
// stuck.
const (
	callTimeout = 10 * time.Second
	dumpTimeout = 60 * time.Second
	cliTimeout  = 60 * time.Second // commands such as ping take their time
)

type session struct {
	vpp  adapter.VppAPI
	many func(n int32)   // tells the connection of n more, or fewer, pipelines with many requests; may be nil
	done <-chan struct{} // the connection has ended
	err  func() error    // why

	mu    sync.Mutex
	next  uint32 // context of the next request
	calls map[uint32]*call
	bulks []*bulk
	watch map[uint16]func(data []byte) // events
	ids   map[string]uint16            // by name, what GetMsgID told
}

// call is a request that waits for its replies.
type call struct {
	receive func(id uint16, data []byte) (last bool, err error)
	done    chan error // one slot
}

// bulk is a number of requests with consecutive contexts; see session.pipeline.
type bulk struct {
	first, n uint32
	answered []bool
	receive  func(i int, data []byte)
	slots    chan struct{}
}

// newSession takes the messages of an adapter that is not connected yet. done is closed when its connection has ended, and
// err then tells why.
func newSession(vpp adapter.VppAPI, done <-chan struct{}, err func() error) *session {
	s := &session{
		vpp: vpp, done: done, err: err, next: 1,
		calls: make(map[uint32]*call), watch: make(map[uint16]func([]byte)), ids: make(map[string]uint16),
	}
	vpp.SetMsgCallback(s.received)
	return s
}

// received takes every message, in the connection's goroutine. What it calls holds s.mu, and must be quick.
func (s *session) received(id uint16, data []byte) {
	if len(data) < 6 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if event := s.watch[id]; event != nil {
		event(data)
		return
	}
	number := binary.BigEndian.Uint32(data[2:6])
	for _, b := range s.bulks {
		if i := number - b.first; i < b.n {
			if !b.answered[i] {
				b.answered[i] = true
				b.receive(int(i), data)
				<-b.slots
			}
			return
		}
	}
	c := s.calls[number]
	if c == nil {
		return
	}
	if last, err := c.receive(id, data); last || err != nil {
		delete(s.calls, number)
		c.done <- err
	}
}

// GetMessageID implements binapi.Identifier.
func (s *session) GetMessageID(m api.Message) (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.ids[m.GetMessageName()]; ok {
		return id, nil
	}
	id, err := s.vpp.GetMsgID(m.GetMessageName(), m.GetCrcString())
	if err == nil {
		s.ids[m.GetMessageName()] = id
	}
	return id, err
}

// event calls handle, in the connection's goroutine, with each message of m's kind, decoded into m. handle must be quick and
// must not use the session. Before the first request that makes VPP send them.
func (s *session) event(m api.Message, handle func()) error {
	id, err := s.GetMessageID(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch[id] = func(data []byte) {
		if codec.DecodeMsg(data, m) == nil {
			handle()
		}
	}
	return nil
}

func (s *session) encode(m api.Message) ([]byte, error) {
	id, err := s.GetMessageID(m)
	if err != nil {
		return nil, err
	}
	return codec.EncodeMsg(m, id)
}

// lost is the error of what the end of the connection left unanswered.
func (s *session) lost() error {
	return fmt.Errorf("%w: %w", fib.ErrDisconnected, s.err())
}

// call sends a request and decodes its reply. Errors: api.VPPApiError of a reply that refuses, fib.ErrDisconnected, the
// context's, *adapter.UnknownMsgError; all wrapped with the request's name.
func (s *session) call(ctx context.Context, req, reply api.Message) error {
	if err := s.ask(ctx, callTimeout, req, reply); err != nil {
		return fmt.Errorf("%s: %w", req.GetMessageName(), err)
	}
	if err := api.RetvalToVPPApiError(retval(reply)); err != nil {
		return fmt.Errorf("%s: %w", req.GetMessageName(), err)
	}
	return nil
}

// retval is a reply's return value; every reply of VPP's has one by that name.
func retval(reply api.Message) int32 {
	f := reflect.ValueOf(reply).Elem().FieldByName("Retval")
	if !f.IsValid() || f.Kind() != reflect.Int32 {
		return 0
	}
	return int32(f.Int())
}

// ask is call without a look at the return value, and with a limit of its own.
func (s *session) ask(ctx context.Context, limit time.Duration, req, reply api.Message) error {
	replyID, err := s.GetMessageID(reply)
	if err != nil {
		return err
	}
	data, err := s.encode(req)
	if err != nil {
		return err
	}
	return s.wait(ctx, limit, func(id uint16, data []byte) (bool, error) {
		if id != replyID {
			return true, fmt.Errorf("message %d came instead of %s", id, reply.GetMessageName())
		}
		return true, codec.DecodeMsg(data, reply)
	}, data)
}

// wait sends encoded requests under one context, and returns when receive has said that it has all replies.
func (s *session) wait(
	ctx context.Context, limit time.Duration, receive func(uint16, []byte) (bool, error), requests ...[]byte,
) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := &call{receive: receive, done: make(chan error, 1)}
	s.mu.Lock()
	number := s.takeLocked(1)
	s.calls[number] = c
	s.mu.Unlock()
	defer func() { // receive is not called any more once the lock was had
		s.mu.Lock()
		delete(s.calls, number)
		s.mu.Unlock()
	}()
	for _, data := range requests {
		if s.vpp.SendMsg(number, data) != nil {
			return s.lost()
		}
	}
	select {
	case err := <-c.done:
		return err
	case <-s.done:
		return s.lost()
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// takeLocked returns the first of n consecutive contexts that are never 0, which some events carry.
func (s *session) takeLocked(n uint32) uint32 {
	if s.next > ^uint32(0)-n {
		s.next = 1
	}
	first := s.next
	s.next += n
	return first
}

// dump sends a request that is answered by any number of D, and visits each, in the connection's goroutine; visit must be
// quick and must not use the session. Each D is new.
func dump[D any, P interface {
	*D
	api.Message
}](ctx context.Context, s *session, req api.Message, visit func(P),
) error {
	fail := func(err error) error { return fmt.Errorf("%s: %w", req.GetMessageName(), err) }
	detailsID, err := s.GetMessageID(P(new(D)))
	if err != nil {
		return fail(err)
	}
	endID, err := s.GetMessageID(&memclnt.ControlPingReply{})
	if err != nil {
		return fail(err)
	}
	data, err := s.encode(req)
	if err != nil {
		return fail(err)
	}
	ping, err := s.encode(&memclnt.ControlPing{}) // VPP answers in order, so its reply comes after the last of the details
	if err != nil {
		return fail(err)
	}
	err = s.wait(ctx, dumpTimeout, func(id uint16, data []byte) (bool, error) {
		switch id {
		case endID:
			return true, nil
		case detailsID:
			d := P(new(D))
			if err := codec.DecodeMsg(data, d); err != nil {
				return true, err
			}
			visit(d)
			return false, nil
		default:
			return true, fmt.Errorf("message %d came instead of %s", id, P(new(D)).GetMessageName())
		}
	}, data, ping)
	if err != nil {
		return fail(err)
	}
	return nil
}

// errStalled ends a pipeline that gets no answers.
var errStalled = errors.New("VPP does not answer")

// pipeline sends n requests, at most window of them unanswered, and calls receive with each one's number and reply, in the
// connection's goroutine, as in dump. A request's encoded bytes are used before the next is asked for. It returns nil when all
// are answered. After an error receive is not called any more.
func (s *session) pipeline(
	ctx context.Context, n, window int, request func(i int) ([]byte, error), receive func(i int, data []byte),
) error {
	b := &bulk{n: uint32(n), answered: make([]bool, n), receive: receive, slots: make(chan struct{}, window)}
	s.mu.Lock()
	b.first = s.takeLocked(b.n)
	s.bulks = append(s.bulks, b)
	s.mu.Unlock()
	defer s.dropBulk(b)
	if s.many != nil && n >= manyRequests {
		s.many(1)
		defer s.many(-1)
	}
	for i := range n {
		data, err := request(i)
		if err != nil {
			return err
		}
		if err := s.slot(ctx, b); err != nil {
			return err
		}
		if s.vpp.SendMsg(b.first+uint32(i), data) != nil {
			return s.lost()
		}
	}
	for range window { // all slots are free when all are answered
		if err := s.slot(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// manyRequests are enough for their replies to be read by the hundred, late by replyPause.
const manyRequests = 512

// slot waits for room in the window. An answer comes within callTimeout of the one before, or VPP is stuck.
func (s *session) slot(ctx context.Context, b *bulk) error {
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	stalled := time.NewTimer(callTimeout)
	defer stalled.Stop()
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-s.done:
		return s.lost()
	case <-ctx.Done():
		return ctx.Err()
	case <-stalled.C:
		return errStalled
	}
}

func (s *session) dropBulk(b *bulk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.bulks {
		if s.bulks[i] == b {
			s.bulks = append(s.bulks[:i], s.bulks[i+1:]...)
			return
		}
	}
}
