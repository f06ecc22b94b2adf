// Package peering writes down a peering: what two networks that agree to exchange routes put into their configurations, each on
// its side.
//
// A Peering is a WireGuard tunnel and the BGP sessions over it, as one side has them; Reverse is the same as the other side has
// it. From that come the blocks of configuration, for rlr and for BIRD with wg-quick (block.go, bird.go), and a Node, the first
// configuration of a DN42 router (node.go), in which the block of the first peering stands. So both sides of a peering come from
// one description, and agree.
//
// Nothing secret is in these types: private keys are the names of files.
package peering

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Side is one side of a peering.
type Side struct {
	Name      string // what the other side calls it, its interface and its neighbor
	AS        uint32
	PublicKey string // in base64, of its WireGuard key
	KeyFile   string // with its private key, as its own configuration names it
	PSKFile   string // with the preshared key; "": there is none
	Port      uint16 // UDP, at which it listens; 0: any free one
	Endpoint  string // HOST:PORT, at which the other side finds it; "": it finds the other side
	Loopback  string // the interface whose addresses its tunnel borrows, in rlr; "": none
}

// Session is a BGP session over the tunnel.
type Session struct {
	Ours, Theirs netip.Addr // without zones
	Bits         int        // the length of their subnet's prefix on the tunnel; 0: the addresses are borrowed from loopbacks
	Families     []string   // ipv4, ipv6
	Policy       string     // import and export, on both sides; see DN42Policy
	Link         Link       // with DN42Policy
}

// Link is what a link is like, in DN42's numbers; 0: nothing is said.
type Link struct{ Latency, Bandwidth, Crypto uint16 }

// Peering is a tunnel and its sessions, as one side has them.
type Peering struct {
	Interface string // our name of the tunnel
	Neighbors []string
	Us, Them  Side
	MTU       int           // bytes of an IP packet
	Keepalive time.Duration // 0: none. It is for the side that finds the other: nobody else knows where to send one
	Sessions  []Session
}

// Policies of a Session.
const (
	AllPolicy  = "all"
	DN42Policy = "dn42" // what DN42's networks expect of each other
)

// Reverse returns the peering as the other side has it.
func (p Peering) Reverse() Peering {
	p.Us, p.Them = p.Them, p.Us
	p.Interface, p.Neighbors = p.Them.Name, nil
	p.Sessions = slices.Clone(p.Sessions)
	for i := range p.Sessions {
		s := &p.Sessions[i]
		s.Ours, s.Theirs = s.Theirs, s.Ours
		name := p.Them.Name
		if i > 0 {
			name += "-" + strconv.Itoa(i+1)
		}
		p.Neighbors = append(p.Neighbors, name)
	}
	return p
}

// Find reports an error unless one side at least knows where the other is.
func (p Peering) Find() error {
	if p.Us.Endpoint == "" && p.Them.Endpoint == "" {
		return fmt.Errorf("neither side of interface %s knows where the other is; say where we are by --endpoint HOST", p.Interface)
	}
	return nil
}

// Addresses are those of our end of the tunnel, each once.
func (p Peering) Addresses() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range p.Sessions {
		if a := netip.PrefixFrom(s.Ours, s.Bits); s.Bits > 0 && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Part is a piece of configuration, and where it belongs.
type Part struct {
	Into string `json:"into"` // a file, or a section of one
	Text string `json:"text"`
}

// NameFor returns what the other side calls a router: its name, unless that cannot be an interface's or a neighbor's there.
func NameFor(router string, as uint32) string {
	if CheckName(router) != nil || len(router) > maxInterfaceName || slices.Contains(reservedNames, router) {
		return "as" + strconv.FormatUint(uint64(as), 10)
	}
	return router
}

// reservedNames are what commands call sources of routes that are no neighbors, and the loopback.
var reservedNames = []string{"all", "direct", "static", "bgp", "learned", "grpc", loopback}
