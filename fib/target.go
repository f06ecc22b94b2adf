package fib

import (
	"context"
	"errors"
)

// ErrDisconnected is a change's (or a dump's) result when the dataplane went away before it answered: the change may or
// may not have been made. The Syncer dumps again before it writes anything else.
var ErrDisconnected = errors.New("dataplane disconnected")

// ErrNoInterface is a change's result when a next hop's interface, or the route's table, is not in the dataplane (yet).
// The route is Pending, and is tried again after InterfacesChanged.
var ErrNoInterface = errors.New("interface does not exist")

// ErrFull is a change's result when the dataplane has no memory for one more route. The route is Failed, and is tried again when
// others have been deleted.
var ErrFull = errors.New("dataplane memory full")

// ErrStopped is WaitSynced's answer once Run has returned.
var ErrStopped = errors.New("fib: syncer has stopped")

// Held is a route of ours that the dataplane holds, or one of somebody else's.
type Held struct {
	Route
	// Shadowed: another source of the dataplane, which is better than ours, forwards for the key. Kind and NextHops then mean
	// nothing, unless Alien is set, too; and whether there is a route of ours behind it is not known: VPP tells of the best
	// source only.
	Shadowed bool
	// Alien: Kind and NextHops are somebody else's route, which may be learned (Syncer.Learn). Without Shadowed, ours would win
	// if there were one.
	Alien bool
}

// Change is one write: Route is added, or replaces what we hold for its key; with Delete, what we hold for the key goes.
type Change struct {
	Route
	Delete   bool
	Replaces bool // the dataplane holds a route of ours for the key, so that an addition needs no room for another
}

// Target is a dataplane that holds routes. A Syncer calls one method at a time, from one goroutine.
type Target interface {
	// Dump returns every route the dataplane holds that is ours, the keys where a better source forwards and, where they are to
	// be learned, the routes of others. An interface that the target cannot name gets a name that no configuration has, so that the route differs from what is wanted.
	Dump(ctx context.Context) ([]Held, error)

	// Apply writes changes, many in flight, and returns one result per change. Each key is in a call at most once, and
	// additions come before deletions; the target may write them in any order. It must not modify or keep NextHops.
	//
	// nil means that the dataplane confirmed the change; ErrDisconnected, ErrNoInterface and ErrFull (all may be wrapped) see there.
	// Every other error means that the dataplane refused, and holds what it held before.
	Apply(ctx context.Context, changes []Change) []error
}
