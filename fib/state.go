package fib

import "fmt"

// State says where a key stands between what is wanted and what the dataplane holds.
type State uint8

const (
	Queued    State = iota // waits to be written, or for the dataplane's first dump
	Installed              // the dataplane confirmed it, or showed it in a dump, or makes it itself (Connected)
	Pending                // a next hop's interface or the table is not there yet
	Failed                 // the dataplane refused; tried again, ever more slowly
	Shadowed               // a better source of the dataplane, or a Connected candidate, forwards instead of our route
	Stale                  // a left-over of an earlier life that no feed wants so far; it forwards until every feed is complete
	numStates
)

var stateNames = [numStates]string{"queued", "installed", "pending", "failed", "shadowed", "stale"}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Symbol is the state's mark in a table of routes: * installed, q queued, ? pending, ! failed, s shadowed, - stale.
func (s State) Symbol() byte {
	if s < numStates {
		return "q*?!s-"[s]
	}
	return ' '
}

// Candidate is one feed's route for a key.
type Candidate struct {
	Feed       string
	Preference int
	Route      Route // next hops resolved as in Entry.Best
}

// Entry is all that is known of a key, at the moment it was asked for. Its slices are the caller's to read, not to modify.
type Entry struct {
	Key
	State State
	Err   error // why Pending or Failed
	// Best is what the preferred candidate says, with interfaces filled in for next hops found in the connected routes; for
	// a Stale entry it is what the dataplane holds.
	Best       Route
	Candidates []Candidate // best first; none when Stale or about to be deleted
	Revision   uint64      // of the last change that a feed made to it; 0: none yet
}

// Status sums a Syncer up.
type Status struct {
	Synced     bool   // the dataplane has been dumped since it last (re)connected, so routes are being written
	Err        error  // why the last dump failed, while !Synced
	Complete   bool   // every feed is complete, so left-overs are deleted
	Revision   uint64 // of the latest change
	Unsettled  int    // keys that wait to be looked at
	Routes     int    // all keys
	States     map[State]int
	Dumps      uint64 // since the start
	Written    uint64 // confirmed additions and replacements
	Deleted    uint64 // confirmed deletions
	Refused    uint64 // changes that the dataplane refused
	Unanswered uint64 // changes lost with the connection
}
