package ctl

import (
	"context"
	"net/netip"
)

// Handlers are the router's answers, one per method. A handler returns an *Error (NotFound, BadRequest, Unavailable) where the
// caller can do something about it. The context ends when the caller goes away or the router stops.
//
// emit blocks while the caller is slow and fails when it is too slow or gone: a handler must hold no lock of the router while
// it calls emit, and return emit's error. A nil handler answers Unavailable.
type Handlers struct {
	Status     func(ctx context.Context) (Status, error)
	Interfaces func(ctx context.Context) ([]Interface, error)
	Neighbors  func(ctx context.Context) ([]Neighbor, error)
	Protocols  func(ctx context.Context) ([]Protocol, error)
	BGP        func(ctx context.Context) ([]BGPSession, error)
	BFD        func(ctx context.Context) ([]BFDSession, error)
	WireGuard  func(ctx context.Context) ([]WireGuard, error)
	Errors     func(ctx context.Context) ([]ErrorRecord, error)
	ACL        func(ctx context.Context) ([]ACL, error)

	Routes     func(ctx context.Context, f RouteFilter, emit func(Route) error) error
	RouteCount func(ctx context.Context, f RouteFilter) (RouteCount, error)
	FIB        func(ctx context.Context, f FIBFilter, emit func(FIBEntry) error) error
	ROA        func(ctx context.Context) (ROAStatus, error)
	ROAs       func(ctx context.Context, f ROAFilter, emit func(ROA) error) error
	Log        func(ctx context.Context, f LogFilter, emit func(LogRecord) error) error

	Ping       func(ctx context.Context, r ProbeRequest, emit func(ProbeReply) error) (ProbeSummary, error)
	Traceroute func(ctx context.Context, r ProbeRequest, emit func(ProbeReply) error) error

	VPPCtl   func(ctx context.Context, r VPPCtlRequest) (VPPCtlResult, error)
	Neighbor func(ctx context.Context, r NeighborRequest) (Done, error)
	Route    func(ctx context.Context, r RouteRequest) (Done, error)
	FIBDo    func(ctx context.Context, r FIBRequest) (FIBResult, error)
	// PolicyTest emits a result for each direction that is asked for.
	PolicyTest func(ctx context.Context, r PolicyRequest, emit func(PolicyResult) error) error
	Reload     func(ctx context.Context) (Done, error)
	// Restart and Stop answer before the router goes: they start what they say and return.
	Restart func(ctx context.Context) (Done, error)
	Stop    func(ctx context.Context, r StopRequest) (Done, error)
}

// RouteFilter chooses routes. All conditions that are set must hold.
type RouteFilter struct {
	Prefix   netip.Prefix `json:"prefix,omitzero"`    // exactly this one
	For      netip.Addr   `json:"for,omitzero"`       // the longest match of this address
	Protocol string       `json:"protocol,omitempty"` // a row of `show protocols`: a neighbour's name, static, direct, learned, grpc; or bgp for all of BGP
	Table    string       `json:"table,omitempty"`    // a VRF's name; "" is every table, and the default table with For
	Failed   bool         `json:"failed,omitempty"`   // only routes in state failed
}

// RouteCount answers `show route … count`.
type RouteCount struct {
	Routes    int `json:"routes"` // prefixes
	Paths     int `json:"paths"`
	Installed int `json:"installed"`
	Failed    int `json:"failed"`
}

// FIBFilter chooses entries of the dataplane. All conditions that are set must hold.
type FIBFilter struct {
	Prefix netip.Prefix `json:"prefix,omitzero"`
	For    netip.Addr   `json:"for,omitzero"`
	Table  string       `json:"table,omitempty"`
}

// ROAFilter chooses ROAs.
type ROAFilter struct {
	Prefix netip.Prefix `json:"prefix,omitzero"` // those that cover it, and those within it
}

// LogFilter chooses records of the log that the router keeps in memory.
type LogFilter struct {
	Lines  int  `json:"lines,omitempty"`  // the last so many; 0 is all that are kept
	Follow bool `json:"follow,omitempty"` // and then new ones as they come, until the caller goes
}

// VPPCtlRequest is one line for the dataplane's command line.
type VPPCtlRequest struct {
	Line string `json:"line"`
}

// VPPCtlResult is what the dataplane printed.
type VPPCtlResult struct {
	Output string `json:"output"`
}

// Actions of a NeighborRequest.
const (
	NeighborEnable  = "enable"
	NeighborDisable = "disable"
	NeighborReset   = "reset"
	NeighborAdd     = "add"
	NeighborDel     = "del"
)

// Directions of a soft reset.
const (
	DirectionIn  = "in"
	DirectionOut = "out"
)

// NeighborRequest changes a BGP neighbour until the next restart of the router, or for good where it is saved.
type NeighborRequest struct {
	Name   string `json:"name"` // or its address; add: "" makes one of the address
	Action string `json:"action"`
	Soft   bool   `json:"soft,omitempty"` // reset: keep the session, and ask for routes and announce ours again

	// Direction is for a soft reset: DirectionIn asks for routes again (RFC 2918), DirectionOut announces ours; "" does both.
	Direction string `json:"direction,omitempty"`

	Message  string    `json:"message,omitempty"`  // disable: for the other side's operator (RFC 9003)
	Settings []Setting `json:"settings,omitempty"` // add: the keys of a neighbour in the configuration, without its name
	Save     bool      `json:"save,omitempty"`     // add, del: in the configuration file too
}

// Setting is a key of the configuration, and its value: as a bool, a number, a string or a list of strings, or in YAML.
type Setting struct {
	Key   string `json:"key"`
	Value any    `json:"value,omitempty"`
	YAML  string `json:"yaml,omitempty"`
}

// Actions of a RouteRequest.
const (
	RouteAdd = "add"
	RouteDel = "del"
)

// RouteRequest adds or deletes a static route, until the next restart of the router, or for good where it is saved.
type RouteRequest struct {
	Action string       `json:"action"`
	Prefix netip.Prefix `json:"prefix"`
	Via    []RouteHop   `json:"via,omitempty"`  // add: forward
	Kind   string       `json:"kind,omitempty"` // add: blackhole, unreachable or prohibit, in place of Via
	Save   bool         `json:"save,omitempty"`
}

// RouteHop is a next hop of a RouteRequest: an address, an interface, or both.
type RouteHop struct {
	Address   netip.Addr `json:"address,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Weight    uint8      `json:"weight,omitempty"` // 0 is 1
}

// Actions of an FIBRequest.
const (
	FIBCouple   = "couple"
	FIBDecouple = "decouple"
	FIBResync   = "resync"
)

// FIBRequest is `rlr fib`. Decoupled lasts until couple, or the end of the router.
type FIBRequest struct {
	Action string `json:"action"`
}

// FIBResult says what couple and resync found, and what became of it.
type FIBResult struct {
	Message   string `json:"message"`
	Decoupled bool   `json:"decoupled"`
	Read      bool   `json:"read"` // the dataplane was read, so that the following means something
	Held      int    `json:"held"` // routes that it told of: ours, and the better ones of others
	Missing   int    `json:"missing"`
	Changed   int    `json:"changed"`
	Extra     int    `json:"extra"`
	Stale     int    `json:"stale"`    // left-overs that stay until every protocol has said what it wants
	Repaired  int    `json:"repaired"` // of missing, changed and extra
	Failed    int    `json:"failed"`
	Waiting   int    `json:"waiting"` // not written, because decoupled

	Differences []FIBDifference `json:"differences"` // the first ten
}

// FIBDifference is a route that was not in the dataplane as it should be.
type FIBDifference struct {
	Prefix string `json:"prefix"`
	Table  string `json:"table"`
	What   string `json:"what"`            // missing, changed, extra
	State  string `json:"state"`           // afterwards: a route's, or removed
	Error  string `json:"error,omitempty"` // why failed or pending
}

// StopRequest ends the router.
type StopRequest struct {
	Clean bool `json:"clean,omitempty"` // remove our state also from a dataplane that stays
}

// Done says what an action did.
type Done struct {
	Message string   `json:"message"`
	Changes []string `json:"changes,omitempty"` // reload: one line for each thing changed
}

// Paths of the methods. Additive: a method never changes its meaning.
const (
	pathStatus     = "status"
	pathInterfaces = "interfaces"
	pathNeighbors  = "neighbors"
	pathProtocols  = "protocols"
	pathBGP        = "bgp"
	pathRoutes     = "routes"
	pathRouteCount = "routes/count"
	pathFIB        = "fib"
	pathROA        = "roa"
	pathROAs       = "roa/list"
	pathBFD        = "bfd"
	pathWireGuard  = "wireguard"
	pathErrors     = "errors"
	pathACL        = "acl"
	pathLog        = "log"
	pathPing       = "ping"
	pathTraceroute = "traceroute"
	pathVPPCtl     = "vppctl"
	pathNeighbor   = "neighbor"
	pathRoute      = "route"
	pathFIBDo      = "fib/do"
	pathPolicyTest = "policy/test"
	pathReload     = "reload"
	pathRestart    = "restart"
	pathStop       = "stop"
)
