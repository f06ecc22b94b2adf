// Package fib is the router's memory of what every forwarding entry should be and what the dataplane holds.
//
// Feeds (connected, static, BGP) say what they want; the Syncer picks the preferred candidate of each prefix, finds the
// interfaces of its next hops, and makes a Target's routes so. It is level-triggered: whatever happened (start, restart of
// the dataplane, a lost event, a doubt), it dumps, compares and writes the difference.
package fib

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Key names one forwarding entry: a prefix in a table. Table is VPP's table id, not its FIB index;
// IPv4 and IPv6 tables of the same id are one VRF.
type Key struct {
	Table  uint32
	Prefix netip.Prefix // masked
}

func (k Key) String() string {
	if k.Table == 0 {
		return k.Prefix.String()
	}
	return fmt.Sprintf("%s table %d", k.Prefix, k.Table)
}

// Kind says what a forwarding entry does with a packet.
type Kind uint8

// What a forwarding entry can do.
const (
	Unicast     Kind = iota // forwarded to NextHops
	Blackhole               // dropped silently
	Unreachable             // dropped, ICMP destination unreachable to the source
	Prohibit                // dropped, ICMP administratively prohibited to the source
	Connected               // the dataplane makes this entry itself from an interface's address: never written
)

// NextHop is one path of a unicast route.
//
// Addr may be of the other family (RFC 8950). An invalid Addr means attached: the destination is a neighbour on Interface.
// Interface is the configuration's name, never a sw_if_index; empty means that the Syncer looks Addr up in the connected
// routes of the table and, where it finds none, leaves the path recursive.
type NextHop struct {
	Addr      netip.Addr // without zone
	Interface string
	Weight    uint8 // 0 counts as 1
	// Backup: the dataplane uses it while none of the others works (VPP's path preference), without being told.
	Backup bool
}

func (n NextHop) String() string {
	var b strings.Builder
	if n.Addr.IsValid() {
		b.WriteString("via " + n.Addr.String())
	}
	if n.Interface != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("dev " + n.Interface)
	}
	if n.Backup {
		b.WriteString(" backup")
	}
	return b.String()
}

// Route is what a feed wants for a key, and what a target says that it holds.
type Route struct {
	Key
	Kind     Kind
	NextHops []NextHop // for Unicast and Connected; order does not matter
}

// Equal reports whether two routes forward alike: the same key and kind, and the same set of next hops.
func (r Route) Equal(o Route) bool {
	if r.Key != o.Key || r.Kind != o.Kind {
		return false
	}
	return slices.Equal(r.sortedHops(), o.sortedHops())
}

func (r Route) sortedHops() []NextHop {
	hops := slices.Clone(r.NextHops)
	for i := range hops {
		if hops[i].Weight == 0 {
			hops[i].Weight = 1
		}
	}
	return sortHops(hops)
}
