package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// stages runs the parts of a router in the order in which they depend on each other and stops them in the reverse order,
// each wholly before the next: BGP says goodbye while the dataplane still forwards its packets.
type stages struct {
	mu      sync.Mutex
	running []*stage
	failed  chan error // the first stage that ended by itself
}

type stage struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func newStages() *stages {
	return &stages{failed: make(chan error, 1)}
}

// start runs one part. A part that returns before it is stopped has failed, and takes the router with it.
func (s *stages) start(name string, run func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stage{name: name, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	s.running = append(s.running, st)
	s.mu.Unlock()
	go func() {
		defer close(st.done)
		st.err = run(ctx)
		if ctx.Err() == nil {
			err := st.err
			if err == nil {
				err = errors.New("ended unexpectedly")
			}
			select {
			case s.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
	return st
}

// stop ends one part, waits for it, and forgets it.
func (s *stages) stop(st *stage) error {
	st.cancel()
	<-st.done
	s.mu.Lock()
	for i, r := range s.running {
		if r == st {
			s.running = append(s.running[:i], s.running[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	if errors.Is(st.err, context.Canceled) {
		return nil
	}
	return st.err
}

// stopAll ends every part, newest first.
func (s *stages) stopAll() {
	for {
		s.mu.Lock()
		n := len(s.running)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		last := s.running[n-1]
		s.mu.Unlock()
		_ = s.stop(last) // its error was reported when it happened, or is that of being stopped
	}
}
