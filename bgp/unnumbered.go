package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is about neighbours that are configured without an address: whoever is on their interface's link. Somebody else finds
// out who that is, by router advertisements, and tells Discovered; then such a neighbour is one with a link-local address.

// unnumbered reports whether a neighbour is found by its interface.
func (n *Neighbor) unnumbered() bool { return !n.Address.IsValid() && n.Interface != "" }

// normalizeUnnumbered checks what can be checked without an address.
func (n *Neighbor) normalizeUnnumbered() error {
	try := *n
	try.Address = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
	if n.Name == "" {
		n.Name = n.Interface
	}
	if len(n.Families) == 0 {
		n.Families = []Family{IPv4, IPv6}
	}
	try.Name, try.Families = n.Name, n.Families
	if err := try.normalize(); err != nil {
		return err
	}
	try.Address = netip.Addr{}
	*n = try
	return nil
}

// resolve returns the configuration with the addresses that were found, and without the neighbours that were not. Errors: one
// that was found is a neighbour already.
func (c Config) resolve(found map[string]netip.Addr) (Config, []Neighbor) {
	var known, missing []Neighbor
	addrs := map[netip.Addr]bool{}
	for _, n := range c.Neighbors {
		addrs[n.Address] = true
	}
	for _, n := range c.Neighbors {
		if n.unnumbered() {
			addr := found[n.Interface].WithZone(n.Interface)
			if !isLinkLocal(addr) || addrs[addr] {
				missing = append(missing, n)
				continue
			}
			n.Address, n.found = addr, true
		}
		known = append(known, n)
	}
	c.Neighbors = known
	return c, missing
}

// Discovered says who is on which link: the link-local address of the router there, by interface. It replaces what was said before.
// A neighbour whose address is not known any more keeps the latest one.
func (s *Speaker) Discovered(found map[string]netip.Addr) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	next := maps.Clone(s.found)
	if next == nil {
		next = map[string]netip.Addr{}
	}
	for name, a := range found {
		next[name] = a.WithZone("")
	}
	if maps.Equal(next, s.found) {
		return nil
	}
	s.found = next
	if !slices.ContainsFunc(s.asked.Neighbors, func(n Neighbor) bool { return n.unnumbered() }) {
		return nil
	}
	if err := s.applyLocked(s.asked); err != nil {
		return fmt.Errorf("bgp: neighbors that were found: %w", err)
	}
	return nil
}

// wrongAS says why a peer is refused that may have any AS but ours; nil if it is not. GoBGP takes any.
func (p *peer) wrongAS(o *openInfo) *ending {
	if !p.config().External || o.as != p.local.as && o.as != 0 {
		return nil
	}
	return &ending{
		code: bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, subcode: bgp.BGP_ERROR_SUB_BAD_PEER_AS,
		text: fmt.Sprintf("OPEN Message Error: Bad Peer AS (peer AS %d, expected another than ours) (sent)", o.as),
	}
}

// undiscovered is the state of a neighbour that was not found.
func undiscovered(n Neighbor) Session {
	s := Session{Neighbor: n, State: Active, Families: n.Families, Disabled: n.Disabled, Graceful: Graceful{Mode: n.Graceful.Mode}}
	if n.Disabled {
		s.State = Idle
		return s
	}
	s.ConnectError = "nobody has been heard of on interface " + n.Interface + " yet"
	return s
}
