package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/fib"
)

// This file is what a caller says: the configuration of a speaker and its neighbours, and the checks that need no network.

// Family is an address family whose unicast routes a session carries (RFC 4760).
type Family uint8

// The families.
const (
	IPv4 Family = iota + 1
	IPv6
)

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// wire returns the family's number in messages.
func (f Family) wire() bgp.Family {
	if f == IPv4 {
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
}

// familyOf is the inverse of wire; 0 for what we do not carry.
func familyOf(f bgp.Family) Family {
	switch f {
	case bgp.RF_IPv4_UC:
		return IPv4
	case bgp.RF_IPv6_UC:
		return IPv6
	}
	return 0
}

// Defaults and limits of the configuration.
const (
	DefaultHoldTime     = 90 * time.Second // RFC 4271 §10
	DefaultConnectRetry = 5 * time.Second  // RFC 4271 §10 suggests 120 s: too long for a tunnel that has just healed
	DefaultDeferral     = 120 * time.Second
	MinHoldTime         = 3 * time.Second // RFC 4271 §4.2
	MaxHoldTime         = 65535 * time.Second
)

// Config is a speaker's configuration.
type Config struct {
	AS          uint32
	RouterID    netip.Addr // an IPv4 address (RFC 6286: any value but 0)
	ClusterID   netip.Addr // of a route reflector (RFC 4456 §7), an IPv4 address; invalid: the router id
	Neighbors   []Neighbor
	Dynamic     []Dynamic
	Multipath   int    // most next hops of a route; 0 and 1 mean one
	EBGPDefault Policy // of an eBGP neighbour that has no import or export: PolicyNone is RFC 8212; PolicyDefault means all
	Policies    map[Policy][]Rule
	DN42        DN42          // what PolicyDN42 must know of us
	ROA         ROAPolicy     // of eBGP neighbours, by the VRPs of SetROAs
	Farewell    time.Duration // between the news of our shutdown (RFC 8326) and the end of the sessions; 0: no such news
	Deferral    time.Duration // the longest wait for the neighbours' first routes before Feed.Complete; 0 means DefaultDeferral
}

// Neighbor is one configured peer. Address with its zone names it within its table. One with an Interface and no Address is
// whoever is on that link: see Discovered.
type Neighbor struct {
	Name         string     // for people: status, logs, errors
	Address      netip.Addr // the zone of a link-local address is the interface's name
	Interface    string     // where link-local next hops of this neighbour are; "" means the address's zone
	Table        uint32     // only 0 today
	AS           uint32
	External     bool       // any AS but ours will do, and AS is 0
	LocalAddress netip.Addr // that our end of the session must have; invalid: any
	HoldTime     time.Duration
	ConnectRetry time.Duration // between attempts, start to start, less up to a quarter of jitter (RFC 4271 §10); 0 means DefaultConnectRetry
	Families     []Family      // none means the family of Address
	Passive      bool          // wait for the neighbour to connect
	Disabled     bool          // administratively down from the start
	Group        string        // for people: whose settings these are
	Dynamic      bool          // it came by itself; only the speaker sets this

	BFD                  BFD
	Graceful             GracefulRestart
	NextHopSelf          bool // towards an iBGP neighbour: routes learned by eBGP get our address as next hop
	RouteReflectorClient bool // RFC 4456
	Multihop             bool // the neighbour is not on a connected network

	// NextHop4 and NextHop6 are our next hops for routes of a family that the session's own local address does not fit: IPv6
	// over a session between IPv4 addresses needs NextHop6. IPv4 over IPv6 needs none (RFC 8950).
	NextHop4, NextHop6 netip.Addr

	AllowOwnAS uint8   // how often our AS may be in an AS_PATH of this neighbour's (RFC 4271 §9.1.2: not once)
	AddPath    AddPath // RFC 7911
	Role       Role    // ours towards an external neighbour (RFC 9234)
	StrictRole bool    // the neighbour must have one too

	found bool // its address was found, not configured

	Limit4, Limit6 PrefixLimit // of the prefixes that the neighbour may announce

	// Import and Export are for all families that ImportOf and ExportOf do not name.
	Import, Export     Policy
	ImportOf, ExportOf map[Family]Policy
	DN42               DN42Link
}

// Errors of Apply.
var (
	// ErrNeedsRestart is in the error for a change that only a new Speaker can make: AS, router id, cluster id, multipath.
	ErrNeedsRestart = errors.New("needs a restart")
	// ErrNoNeighbor is in the error for a name that no neighbour has.
	ErrNoNeighbor = errors.New("no such neighbor")
	// ErrNoEntry is in the error for a group, or an entry for dynamic neighbours, that there is none of.
	ErrNoEntry = errors.New("no such entry")
	// ErrExists is in the error for what there is already.
	ErrExists = errors.New("exists already")

	errNotRunning = errors.New("BGP is not running")
)

// Feed takes the best paths; *fib.Feed is one. Its methods must not block for long.
type Feed interface {
	Update(routes ...fib.Route) uint64
	Withdraw(keys ...fib.Key) uint64
	Complete() uint64
}

// Origin is a prefix that we announce as our own, with ourselves as next hop and origin IGP (RFC 4271 §5.1.1).
type Origin struct {
	Table  uint32
	Prefix netip.Prefix
	Source Source // SourceOriginate, SourceConnected, SourceStatic or SourceLearned, for policies; "" is SourceOriginate
}

// check returns the configuration with its defaults filled in, or all that is wrong with it.
func (c Config) check() (Config, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.AS == 0 {
		fail("AS 0 is reserved (RFC 7607)")
	}
	if c.RouterID = c.RouterID.Unmap(); !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		fail("router id %s is not an IPv4 address other than 0.0.0.0 (RFC 6286)", c.RouterID)
	}
	if !c.ClusterID.IsValid() {
		c.ClusterID = c.RouterID
	}
	if c.ClusterID = c.ClusterID.Unmap(); !c.ClusterID.Is4() || c.ClusterID.IsUnspecified() {
		fail("cluster id %s is not an IPv4 address other than 0.0.0.0", c.ClusterID)
	}
	if c.Multipath < 0 || c.Multipath > 64 {
		fail("multipath %d is not between 0 and 64", c.Multipath)
	}
	if c.Deferral == 0 {
		c.Deferral = DefaultDeferral
	}
	c.Neighbors = slices.Clone(c.Neighbors)
	names, addrs, links := map[string]bool{}, map[netip.Addr]bool{}, map[string]bool{}
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		if err := n.normalize(); err != nil {
			errs = append(errs, err)
			continue
		}
		if n.Role != NoRole && (n.AS == c.AS || n.Role > Peer) {
			fail("neighbor %s: role %s is not one towards AS %d (RFC 9234 §4)", n.Name, n.Role, n.AS)
		}
		if n.unnumbered() {
			if links[n.Interface] {
				fail("neighbor %s: interface %s has another neighbor without an address", n.Name, n.Interface)
			}
			links[n.Interface] = true
			if names[n.Name] {
				fail("neighbor %s: the name is used twice", n.Name)
			}
			names[n.Name] = true
			continue
		}
		if names[n.Name] {
			fail("neighbor %s: the name is used twice", n.Name)
		}
		if addrs[n.Address] {
			fail("neighbor %s: address %s is used twice", n.Name, n.Address)
		}
		names[n.Name], addrs[n.Address] = true, true
	}
	errs = append(errs, c.checkPolicies())
	c.Dynamic = slices.Clone(c.Dynamic)
	for i := range c.Dynamic {
		if err := c.Dynamic[i].normalize(); err != nil {
			errs = append(errs, err)
		}
	}
	return c, errors.Join(errs...)
}

// normalize fills in defaults and gives a link-local neighbour its zone.
func (n *Neighbor) normalize() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("neighbor %s: %w", n.Name, fmt.Errorf(format, args...))
	}
	n.Address, n.LocalAddress = n.Address.Unmap(), n.LocalAddress.Unmap()
	if n.unnumbered() {
		return n.normalizeUnnumbered()
	}
	if n.Name == "" {
		n.Name = n.Address.String()
	}
	linkLocal := isLinkLocal(n.Address)
	if linkLocal && n.Address.Zone() == "" {
		n.Address = n.Address.WithZone(n.Interface)
	}
	if !linkLocal {
		n.Address = n.Address.WithZone("")
	}
	if n.Interface == "" {
		n.Interface = n.Address.Zone()
	}
	if isLinkLocal(n.LocalAddress) {
		n.LocalAddress = n.LocalAddress.WithZone(n.Interface)
	}
	switch {
	case !n.Address.IsValid() || n.Address.IsUnspecified() || n.Address.IsMulticast():
		return fail("%s is no address of a neighbor", n.Address)
	case n.Table != 0:
		return fail("table %d: sessions in a VRF are not available yet", n.Table)
	case (n.AS == 0) != n.External:
		return fail("AS %d is none, or not any external one (RFC 7607)", n.AS)
	case linkLocal && n.Address.Zone() == "":
		return fail("link-local address %s needs an interface", n.Address)
	case linkLocal && n.Interface != n.Address.Zone():
		return fail("interface %s and zone %s differ", n.Interface, n.Address.Zone())
	case linkLocal && n.Multihop:
		return fail("link-local address %s cannot be multihop", n.Address)
	case n.LocalAddress.IsValid() && n.LocalAddress.Is4() != n.Address.Is4():
		return fail("local address %s is of another family than %s", n.LocalAddress, n.Address)
	case n.LocalAddress.IsValid() && isLinkLocal(n.LocalAddress) != linkLocal:
		return fail("local address %s and address %s must both be link-local or neither", n.LocalAddress, n.Address)
	case n.HoldTime != 0 && (n.HoldTime < MinHoldTime || n.HoldTime > MaxHoldTime):
		return fail("hold time %s is not between %s and %s", n.HoldTime, MinHoldTime, MaxHoldTime)
	case n.HoldTime%time.Second != 0:
		return fail("hold time %s is not whole seconds", n.HoldTime)
	case n.ConnectRetry < 0 || n.ConnectRetry > 0 && n.ConnectRetry < 100*time.Millisecond:
		return fail("connect retry %s is under 100 ms", n.ConnectRetry)
	}
	if n.HoldTime == 0 {
		n.HoldTime = DefaultHoldTime
	}
	if n.ConnectRetry == 0 {
		n.ConnectRetry = DefaultConnectRetry
	}
	if err := errors.Join(n.Graceful.normalize(), n.BFD.normalize(n.Multihop)); err != nil {
		return fail("%w", err)
	}
	return errors.Join(n.normalizeFamilies(), n.normalizeLimits())
}

func (n *Neighbor) normalizeFamilies() error {
	if len(n.Families) == 0 {
		n.Families = []Family{IPv6}
		if n.Address.Is4() {
			n.Families = []Family{IPv4}
		}
	}
	n.Families = slices.Compact(slices.Sorted(slices.Values(n.Families)))
	for _, f := range n.Families {
		if f != IPv4 && f != IPv6 {
			return fmt.Errorf("neighbor %s: unknown %s", n.Name, f)
		}
	}
	n.NextHop4, n.NextHop6 = n.NextHop4.Unmap(), n.NextHop6.WithZone("")
	if n.NextHop4.IsValid() && !n.NextHop4.Is4() {
		return fmt.Errorf("neighbor %s: next hop %s is not IPv4", n.Name, n.NextHop4)
	}
	if n.NextHop6.IsValid() && !n.NextHop6.Is6() {
		return fmt.Errorf("neighbor %s: next hop %s is not IPv6", n.Name, n.NextHop6)
	}
	if n.Address.Is4() && slices.Contains(n.Families, IPv6) && !n.NextHop6.IsValid() {
		return fmt.Errorf("neighbor %s: IPv6 routes over a session between IPv4 addresses need an IPv6 next hop", n.Name)
	}
	return nil
}

// policy returns what the neighbour's import or export of a family comes to.
func (n *Neighbor) policy(c *Config, d direction, f Family) Policy {
	if p := n.said(d, f); p != PolicyDefault {
		return p
	}
	if n.AS != c.AS && c.EBGPDefault == PolicyNone { // RFC 8212 §2
		return PolicyNone
	}
	return PolicyAll
}

func isLinkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }
