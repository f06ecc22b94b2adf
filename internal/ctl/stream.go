package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// flushEvery bounds how long a row waits for more rows. Full tables are written in large pieces, single rows soon.
const flushEvery = 20 * time.Millisecond

// stream writes the frames of one answer. Rows are buffered and flushed by a timer, so that a million rows are not a million
// writes, and a ping's reply is seen when it comes.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration // how long a write may take

	mu    sync.Mutex // guards all below: the timer flushes too
	buf   []byte
	timer *time.Timer
	armed bool
	done  bool
	sent  bool
	err   error // the first failure to write; the caller is gone or too slow
}

func newStream(w http.ResponseWriter, patience time.Duration) *stream {
	s := &stream{w: w, patience: patience, rc: http.NewResponseController(w)}
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	return s
}

// emit writes a row. It blocks while the caller is slow, up to the stream's patience.
func (s *stream) emit(row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(frame{Row: b})
}

func (s *stream) writeLocked(f frame) error {
	if s.err != nil {
		return s.err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	s.buf = append(append(s.buf, b...), '\n')
	if len(s.buf) >= 32<<10 {
		return s.flushLocked()
	}
	if !s.armed {
		s.armed = true
		s.timer.Reset(flushEvery)
	}
	return nil
}

func (s *stream) flushLocked() error {
	if s.err != nil || len(s.buf) == 0 {
		return s.err
	}
	s.sent = true
	err := s.rc.SetWriteDeadline(time.Now().Add(s.patience))
	if err == nil {
		_, err = s.w.Write(s.buf)
	}
	if err == nil {
		err = s.rc.Flush()
	}
	s.buf = s.buf[:0]
	if err != nil {
		s.err = fmt.Errorf("write answer: %w", err)
	}
	return s.err
}

func (s *stream) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if !s.done {
		s.flushLocked() //nolint:errcheck // kept in s.err, which the next emit returns
	}
}

// finish writes the last frame: the end, or the error with an HTTP status where nothing was sent yet.
func (s *stream) finish(end any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := frame{}
	if err == nil {
		if end == nil {
			end = struct{}{}
		}
		f.End, err = json.Marshal(end)
	}
	if err != nil {
		f = frame{Error: asError(err)}
		if !s.sent && s.err == nil {
			s.w.WriteHeader(httpStatus(f.Error.Kind))
		}
	}
	if s.writeLocked(f) == nil {
		s.flushLocked() //nolint:errcheck // the caller is gone: nobody is left to tell
	}
}

// close makes sure that the timer does not write after the handler has returned.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.timer.Stop()
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Kind: e.Kind, Message: err.Error()} // with what was wrapped around it
	}
	return &Error{Kind: KindFailed, Message: err.Error()}
}

func httpStatus(k Kind) int {
	switch k {
	case KindNotFound:
		return http.StatusNotFound
	case KindBadRequest:
		return http.StatusBadRequest
	case KindUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
