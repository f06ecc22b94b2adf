// Package config reads a router's YAML file.
//
// The file is decoded from yaml.v3's nodes and not by struct tags: every value keeps its line and column, so that a
// mistake found late (two interfaces whose subnets overlap) is reported where it is written, and all mistakes of a file
// are reported at once. Decoding goes in four steps, each of which collects errors and goes on:
//
//	syntax   bytes → nodes                      syntax.go
//	decode   nodes → Config, strict keys        decode.go, sections.go, schema.go, env.go, secret.go
//	refer    names → things that exist          reference.go
//	check    what the values mean together      check.go, check_bgp.go
//
// A Config holds only values: no node, no position, nothing that a caller could change behind another's back. Two of them
// are the same configuration when reflect.DeepEqual says so; that is how a reload finds what changed. Print writes the
// canonical form, and loading that again gives an equal Config.
package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

// Config is a checked configuration: names refer to things that exist, defaults are filled in.
type Config struct {
	Router     Router
	Dataplane  Dataplane
	Interfaces []Interface // in the file's order
	Static     []Static
	ACLs       []ACL // in the file's order
	Sets       Sets
	Policies   []RulePolicy
	BGP        BGP
	ROA        ROA
	Services   Services
	Control    Control
	Log        Log
}

// Interface returns the interface of that name.
func (c *Config) Interface(name string) (Interface, bool) {
	for _, i := range c.Interfaces {
		if i.Name == name {
			return i, true
		}
	}
	return Interface{}, false
}

// Router says who we are.
type Router struct {
	Name string
	ID   netip.Addr // IPv4; the first IPv4 address of a loopback, else of any interface, unless given. Invalid when there is none
	AS   uint32     // 0: no BGP
}

// DataplaneKind chooses who forwards.
type DataplaneKind string

// The kinds of dataplane.
const (
	Auto     DataplaneKind = "auto"     // vpp where it is installed, else embedded
	VPP      DataplaneKind = "vpp"      // FD.io VPP, and nothing else
	Embedded DataplaneKind = "embedded" // minivpp, in the router's process
)

// FlowHash says what of packets tells flows apart: those of one flow take one path.
type FlowHash string

// What a flow may be.
const (
	HashPorts     FlowHash = "ports"      // addresses, protocol, and ports of TCP and UDP
	HashAddresses FlowHash = "addresses"  // addresses alone
	HashFlowLabel FlowHash = "flow-label" // as ports, and IPv6's flow label (RFC 6438)
)

// URPF says which sources may come in (RFC 3704).
type URPF string

// What a source must have; "" is nothing.
const (
	URPFLoose  URPF = "loose"  // a route
	URPFStrict URPF = "strict" // a route that leaves by the interface
)

// Values of MSSClamp that are no size.
const (
	AutoClamp = 0 // what the MTU has room for, if that is less than on most links
	NoClamp   = -1

	minClamp = 536  // RFC 9293 §3.7.1
	maxClamp = 8960 // of 9000 bytes
)

// Dataplane is the `dataplane` section.
type Dataplane struct {
	Kind   DataplaneKind
	Attach string        // API socket of a running VPP to join; "" starts one
	Audit  time.Duration // how often its routes are compared with what they should be without a reason; 0 never
	// FlowHash is what tells flows apart where a route has several paths.
	FlowHash FlowHash
	Learn    bool // others' routes in it become routes of the protocol `learned`
}

// DefaultAudit is how often the dataplane's routes are audited; it is done less often where there are many.
const DefaultAudit = time.Minute

// InterfaceKind is what is behind an interface.
type InterfaceKind string

// The kinds of interface.
const (
	KindLoopback  InterfaceKind = "loopback"
	KindMemif     InterfaceKind = "memif"
	KindWireGuard InterfaceKind = "wireguard"
)

// Interface is an entry of `interfaces`. Exactly one of Loopback, Memif and WireGuard is set.
type Interface struct {
	Name       string
	Loopback   bool
	Memif      *Memif
	WireGuard  *WireGuard
	Addresses  []netip.Prefix // host bits kept; at most one is link-local IPv6
	MTU        int            // bytes of an IP packet
	URPF       URPF           // which sources may come in
	MSSClamp   int            // segment size of IPv4 TCP through it, bytes; IPv6's is 20 less. Or AutoClamp, NoClamp
	Unnumbered string         // the interface whose addresses it borrows, or ""
	ACL        ACLs
}

// Kind returns what is behind the interface.
func (i Interface) Kind() InterfaceKind {
	switch {
	case i.Memif != nil:
		return KindMemif
	case i.WireGuard != nil:
		return KindWireGuard
	default:
		return KindLoopback
	}
}

// LinkLocal returns the configured fe80:: address, invalid when there is none.
func (i Interface) LinkLocal() netip.Addr {
	for _, a := range i.Addresses {
		if isLinkLocal6(a.Addr()) {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// Default MTUs in bytes, by kind: WireGuard's is what fits through a path of 1500 bytes over IPv6.
const (
	DefaultMTU          = 1500
	DefaultWireGuardMTU = 1420
)

// Role is a memif end's part: the master listens, the slave connects and shares its memory.
type Role string

// The roles.
const (
	Master Role = "master"
	Slave  Role = "slave"
)

// Memif is a cable to another dataplane on this machine.
type Memif struct {
	Socket     string // as written; see SocketPath
	Role       Role
	ID         uint32
	Secret     Secret // up to 24 bytes; unset means none
	RingSize   int    // descriptors, a power of two
	BufferSize int    // bytes
	Queues     int    // pairs
}

// Defaults of a memif interface, VPP's own.
const (
	DefaultRingSize   = 1024
	DefaultBufferSize = 2048
	DefaultQueues     = 1
)

// SocketPath returns where the socket is: a relative one is in linksDir.
func (m Memif) SocketPath(linksDir string) string {
	if filepath.IsAbs(m.Socket) {
		return m.Socket
	}
	return filepath.Join(linksDir, m.Socket)
}

// WireGuard is a tunnel to one peer.
type WireGuard struct {
	Listen       netip.AddrPort // UDP of the host; zero: any free port. An unspecified address listens on all
	PrivateKey   Secret
	PresharedKey Secret // unset: none
	Peer         Peer
}

// Peer is a tunnel's other side.
type Peer struct {
	PublicKey Key
	Endpoint  string        // HOST:PORT, the host perhaps a name; "": learnt from the first packet
	Keepalive time.Duration // whole seconds; 0: none
}

// Action is what a static route does.
type Action string

// The actions.
const (
	Forward     Action = "via"
	Blackhole   Action = "blackhole"   // dropped silently
	Unreachable Action = "unreachable" // dropped, with ICMP destination unreachable
	Prohibit    Action = "prohibit"    // dropped, with ICMP administratively prohibited
)

// Static is an entry of `static`.
type Static struct {
	Prefix netip.Prefix // masked
	Action Action
	Via    []NextHop // for Forward
}

// NextHop is one way of a static route: an address, an interface, or both.
type NextHop struct {
	Address   netip.Addr // without zone; invalid: destinations are neighbours on Interface
	Interface string     // "": the connected route to Address says which
	Weight    uint8      // 1 to 255
}

// Family is an address family of BGP.
type Family string

// The families.
const (
	IPv4 Family = "ipv4" // AFI 1, SAFI 1
	IPv6 Family = "ipv6" // AFI 2, SAFI 1
)

// Policy names what a session lets through.
type Policy string

// The policies that need no definition.
const (
	All        Policy = "all"
	None       Policy = "none"
	PolicyDN42 Policy = "dn42"
)

// BGP is the `bgp` section.
type BGP struct {
	Originate    []netip.Prefix // masked
	Redistribute Redistribute
	Multipath    int        // paths an ECMP set may have
	ClusterID    netip.Addr // RFC 4456 §7; the router's ID unless given
	Deferral     time.Duration
	Farewell     time.Duration // from the news of our shutdown (RFC 8326) to the end of the sessions; 0: no news
	// PolicyOptional turns RFC 8212 off: an external neighbour without a policy has all.
	PolicyOptional bool
	DN42           DN42
	Groups         []Group
	Neighbors      []Neighbor
	Dynamic        []Dynamic
}

// Redistribute says which routes BGP announces besides Originate and its own.
type Redistribute struct {
	Connected Connected
	Static    bool
	Learned   bool // needs Dataplane.Learn
}

// Connected chooses connected routes by interface.
type Connected struct {
	All        bool
	Interfaces []string
}

// Has reports whether the connected routes of an interface are chosen.
func (c Connected) Has(iface string) bool {
	return c.All || slices.Contains(c.Interfaces, iface)
}

// Neighbor is an entry of `bgp.neighbors`.
type Neighbor struct {
	Name                 string
	Description          string
	Disabled             bool
	Address              netip.Addr // without zone; invalid: whoever is on Interface
	Interface            string     // always set for a link-local Address
	AS                   uint32     // the router's own for an internal neighbour
	External             bool       // any AS but ours will do, and AS is 0
	LocalAddress         netip.Addr // one of ours; invalid: the dataplane chooses
	Passive              bool
	NextHopSelf          bool
	RouteReflectorClient bool
	Multihop             bool          // the session may cross routers: TTL 64 instead of 1
	HoldTime             time.Duration // 0, or 3 s to 65535 s, whole seconds: what we propose (RFC 4271 §4.2)
	ConnectRetry         time.Duration
	Families             []Family
	Import, Export       Policy // of all families; "" where FamilyImport or FamilyExport says it of each
	FamilyImport         map[Family]Policy
	FamilyExport         map[Family]Policy
	DN42                 DN42Link
	GracefulRestart      GracefulRestart
	BFD                  BFD
	MaxPrefix4           PrefixLimit // of a family that the session carries
	MaxPrefix6           PrefixLimit
	AddPath              AddPath
	AllowOwnAS           uint8 // how often our AS may be in a path
	Role                 BGPRole
	StrictRole           bool
	Group                string // whose settings are the neighbour's where it has none of its own; "": none
}

// Group is an entry of `bgp.groups`.
type Group struct {
	Name string
	// Settings are a neighbour's, with the defaults filled in that depend on nothing else. What a group does not set and no
	// default fills in is zero.
	Settings Neighbor
}

// Dynamic is an entry of `bgp.dynamic`: connections from a prefix become neighbours.
type Dynamic struct {
	Prefix      netip.Prefix // masked
	Group       string
	AS          []uint32 // ascending: those that such a neighbour may have; empty where External
	External    bool     // any AS but ours will do
	Limit       int      // neighbours at once
	ForgetAfter time.Duration

	// Settings are what such a neighbour gets. Name, Address and AS are its own.
	Settings Neighbor
}

// Defaults of Dynamic.
const (
	DefaultDynamicLimit = 100
	DefaultForgetAfter  = 5 * time.Minute
)

// LimitAction is what happens when a neighbour announces more prefixes than its limit.
type LimitAction string

// The actions.
const (
	LimitBlock   LimitAction = "block"   // no further ones are let in
	LimitWarn    LimitAction = "warn"    // it is logged and shown
	LimitRestart LimitAction = "restart" // the session ends, and is tried again later
)

// PrefixLimit bounds the prefixes of a family that a neighbour may announce. The zero value is no limit.
type PrefixLimit struct {
	Limit        int
	Action       LimitAction
	RestartAfter time.Duration // of LimitRestart
}

// AddPathMode says in which directions a session carries several paths to a prefix (RFC 7911).
type AddPathMode string

// The modes; "" is neither.
const (
	AddPathReceive AddPathMode = "receive"
	AddPathSend    AddPathMode = "send"
	AddPathBoth    AddPathMode = "both"
)

// AddPath is a neighbour's `add-path`.
type AddPath struct {
	Mode    AddPathMode
	SendMax uint8 // most paths to a prefix that are sent; 0 where none are
}

// BGPRole is ours towards a neighbour (RFC 9234 §3).
type BGPRole string

// The roles; "" is none.
const (
	RoleProvider BGPRole = "provider"
	RoleCustomer BGPRole = "customer"
	RolePeer     BGPRole = "peer"
	RoleRS       BGPRole = "rs"        // we are a route server
	RoleRSClient BGPRole = "rs-client" // the neighbour is one
)

// BFD is a neighbour's `bfd`; the zero value is none.
type BFD struct {
	Interval   time.Duration // whole milliseconds
	Multiplier uint8
}

// DefaultBFD is what `bfd: true` means.
var DefaultBFD = BFD{Interval: 300 * time.Millisecond, Multiplier: 3}

// GracefulMode is how far graceful restart goes.
type GracefulMode string

// The modes.
const (
	GracefulOn     GracefulMode = "on"     // helper, and our own restart where the dataplane outlives us
	GracefulHelper GracefulMode = "helper" // keep a neighbour's routes while it restarts
	GracefulOff    GracefulMode = "off"
)

// GracefulRestart is a neighbour's `graceful-restart`, in whole seconds.
type GracefulRestart struct {
	Mode        GracefulMode
	RestartTime time.Duration // for which the neighbour is to keep our routes without a session
	StaleTime   time.Duration // for which its stale routes are kept once there is a session again
	LongLived   time.Duration // how much longer the neighbour is to keep our routes as a last resort; 0: no long-lived ones
}

// DefaultGracefulRestart is a neighbour's that says nothing of it.
var DefaultGracefulRestart = GracefulRestart{Mode: GracefulOn, RestartTime: 120 * time.Second, StaleTime: 360 * time.Second}

// Defaults of a neighbour.
const (
	DefaultHoldTime     = 90 * time.Second // RFC 4271 §10
	DefaultDeferral     = 120 * time.Second
	DefaultFarewell     = 2 * time.Second // long enough for a neighbour to find another way, short enough for a container's end
	DefaultRestartAfter = 15 * time.Minute
	DefaultSendMax      = 8
	DefaultConnectRetry = 10 * time.Second // much less than RFC 4271's 120 s: a healed link should be used at once
)

// Control is the `control` section.
type Control struct {
	Socket string // absolute; "": control.sock in the router's folder

	// Bird is where BIRD's control protocol is spoken: the path of a unix socket, in the router's folder where it is not absolute;
	// "": nowhere.
	Bird string

	// GRPC is where GoBGP's API is: an address and port, or the path of a unix socket, in the router's folder where it is not
	// absolute; "": nowhere. GRPCPublic allows an address that is not loopback.
	GRPC       string
	GRPCPublic bool
}

// LogLevel is a level of logrus, by its name.
type LogLevel string

// LogFormat is how a log line looks.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Log is the `log` section.
type Log struct {
	Level  LogLevel // error, warning, info, debug, trace
	Format LogFormat
}

func isLinkLocal6(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }
