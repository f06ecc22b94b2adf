package fib

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

var errRefused = errors.New("refused")

// fakeTarget is a dataplane with faults. Every rule that a Syncer must keep is checked where it would break it.
type fakeTarget struct {
	t  *testing.T
	mu sync.Mutex
	ch chooser

	ours     map[Key]Route
	wrote    map[Key]bool // the Syncer did, in this life of the dataplane
	better   map[Key]bool // another source shadows ours
	worse    map[Key]bool // another source forwards while there is none of ours
	aliens   map[Key]Route
	ifaces   map[string]bool
	poison   map[Key]bool // refused for ever
	doubtful map[Key]bool // keys whose change was lost with the connection

	faults     bool
	room       int // for how many routes; 0: for all
	decoupled  bool
	invalidate func()
	up         bool
	fresh      bool // a new connection, not dumped yet: the target refuses to write (the first gate's other half)
	told       bool // the Syncer knows that it must dump
	mayDelete  func(Key) bool
	applied    int
	maxBatch   int
	dumpsAsked int
}

func (f *fakeTarget) chance(percent int) bool { return f.faults && f.ch.IntN(100) < percent }

func (f *fakeTarget) Dump(ctx context.Context) ([]Held, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dumpsAsked++
	switch {
	case !f.up || f.chance(10):
		return nil, fmt.Errorf("dump: %w", ErrDisconnected)
	case f.chance(10):
		return nil, errRefused
	}
	if f.chance(3) {
		f.restart()
	}
	f.told, f.fresh = false, false
	clear(f.doubtful)
	var held []Held
	for k, r := range f.ours {
		if !f.better[k] {
			held = append(held, Held{Route: r})
		}
	}
	for k, r := range f.aliens {
		_, hidden := f.ours[k]
		switch {
		case f.better[k]:
			held = append(held, Held{Route: r, Shadowed: true, Alien: true})
		case f.worse[k] && !hidden:
			held = append(held, Held{Route: r, Alien: true})
		}
	}
	if f.chance(3) {
		f.restart() // what was told is of before
	}
	return held, nil
}

// restart is a new life of the dataplane, without any route.
func (f *fakeTarget) restart() {
	clear(f.ours)
	clear(f.wrote)
	clear(f.better)
	clear(f.worse)
	f.up, f.fresh = true, true
	f.invalidate()
}

func (f *fakeTarget) Apply(ctx context.Context, changes []Change) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxBatch = max(f.maxBatch, len(changes))
	if f.decoupled {
		f.t.Error("written while decoupled")
	}
	if f.told {
		f.t.Error("written before the dump that the Syncer knew it needed")
	}
	errs := make([]error, len(changes))
	seen := make(map[Key]bool)
	deleting := false
	for i, c := range changes {
		if seen[c.Key] {
			f.t.Errorf("%v twice in a batch", c.Key)
		}
		if deleting && !c.Delete {
			f.t.Error("addition after a deletion")
		}
		seen[c.Key], deleting = true, deleting || c.Delete
		if f.up && f.chance(2) {
			f.up = false
		}
		if f.chance(1) {
			f.restart()
		}
		errs[i] = f.apply(c)
		if errors.Is(errs[i], ErrDisconnected) {
			f.told = true
		}
	}
	return errs
}

func (f *fakeTarget) apply(c Change) error {
	lost := false
	switch {
	case f.fresh || !f.up && (!f.faults || f.ch.IntN(2) == 0):
		f.doubtful[c.Key] = true
		return ErrDisconnected
	case !f.up: // done, but nobody heard
		f.doubtful[c.Key] = true
		lost = true
	case f.poison[c.Key] || f.chance(5):
		return errRefused
	}
	if c.Delete {
		if _, ok := f.ours[c.Key]; !ok && !lost && !f.doubtful[c.Key] && !f.better[c.Key] {
			f.t.Errorf("%v deleted, which is not there", c.Key)
		}
		if !f.mayDelete(c.Key) {
			f.t.Errorf("left-over %v deleted before the feeds were complete", c.Key)
		}
		delete(f.ours, c.Key)
	} else {
		for _, h := range c.NextHops {
			if h.Interface != "" && !f.ifaces[h.Interface] {
				if lost {
					return ErrDisconnected
				}
				return fmt.Errorf("next hop %v: %w", h, ErrNoInterface)
			}
		}
		if c.Kind == Connected {
			f.t.Errorf("connected %v written", c.Key)
		}
		_, there := f.ours[c.Key]
		if c.Replaces && !there && !f.better[c.Key] && !f.doubtful[c.Key] {
			f.t.Errorf("%v is to replace what is not there", c.Key)
		}
		if !there && !lost && (f.chance(5) || f.room > 0 && len(f.ours) >= f.room) {
			return fmt.Errorf("%w (test)", ErrFull)
		}
		if old, ok := f.ours[c.Key]; ok && old.Equal(c.Route) && !f.better[c.Key] && !f.doubtful[c.Key] {
			f.t.Errorf("%v written again, unchanged", c.Key)
		}
		f.wrote[c.Key] = true
		f.ours[c.Key] = Route{Key: c.Key, Kind: c.Kind, NextHops: slices.Clone(c.NextHops)}
	}
	f.applied++
	if lost {
		return ErrDisconnected
	}
	return nil
}
