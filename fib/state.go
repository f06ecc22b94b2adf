package fib

import (
	"fmt"
	"slices"
	"time"
)

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
	Synced     bool      // the dataplane has been dumped since it last (re)connected, so routes are being written
	Err        error     // why the last dump failed
	Complete   bool      // every feed is complete, so left-overs are deleted
	Decoupled  time.Time // since when nothing is written, until Couple; zero: routes are written
	Revision   uint64    // of the latest change
	Unsettled  int       // keys that wait to be looked at
	Routes     int       // all keys
	Learned    int       // routes of others
	States     map[State]int
	Bytes      uint64 // of memory that this takes, computed from the sizes of what is kept
	Dumps      uint64 // since the start
	DumpTook   time.Duration
	Audits     uint64        // of the dumps, those that had no reason
	AuditEvery time.Duration // 0: never
	Drift      Drift
	Written    uint64 // confirmed additions and replacements
	Deleted    uint64 // confirmed deletions
	Refused    uint64 // changes that the dataplane refused
	Unanswered uint64 // changes lost with the connection
	Latency    Latency
}

// Drift is what others did to our routes, as audits found it. What differs after a (re)connection is none of it.
type Drift struct {
	Missing uint64 // routes that the dataplane had confirmed and does not hold any more
	Changed uint64 // routes that it holds otherwise
	Extra   uint64 // routes under our name that we did not write
	Last    time.Time
	First   []Key // of the latest audit that found any, at most maxShown
}

// Count is the number of routes.
func (d Drift) Count() uint64 { return d.Missing + d.Changed + d.Extra }

func (d Drift) clone() Drift {
	d.First = slices.Clone(d.First)
	return d
}

// maxShown is how many keys are named where there may be many.
const maxShown = 10
