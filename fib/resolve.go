package fib

import (
	"errors"
	"net/netip"
	"slices"
)

// Next hops are looked up in the connected candidates of the same table, longest match first, not in the routes that
// other protocols would like: a next hop is a neighbour on an interface, and a route of BGP's must not be able to move it.
// What is found is remembered for each action until the connected candidates change; then every key is looked at again.

var (
	errNoNextHops = errors.New("route has no next hop")
	errLinkLocal  = errors.New("link-local next hop without an interface")
)

// lookup is an action in a table.
type lookup struct {
	table uint32
	act   *action
}

// connectedLocked keeps Syncer.connected when a feed's action for k changed from old to act.
func (s *Syncer) connectedLocked(k key, e *entry, old, act *action) {
	if (old == nil || old.kind != Connected) && (act == nil || act.kind != Connected) {
		return
	}
	name := ""
	for _, c := range append([]candidate{e.best}, e.rest...) {
		if c.feed != nil && c.act.kind == Connected && len(c.act.hops) > 0 {
			name = c.act.hops[0].Interface
			break
		}
	}
	if s.connected[k] == name {
		return
	}
	if name == "" {
		delete(s.connected, k)
	} else {
		s.connected[k] = name
	}
	s.resolveAsked = true
}

// resolveIfAsked looks all next hops up again when connected routes have changed, and asks for a scan if one moved.
func (s *Syncer) resolveIfAsked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.resolveAsked {
		return
	}
	s.resolveAsked = false
	old := s.resolved
	s.resolved = make(map[lookup]*action, len(old))
	for l, act := range old {
		if s.resolveLocked(l.table, l.act) != act {
			s.scanAsked = true
		}
	}
	s.progressLocked()
}

// ResolveInterface returns the interface on which addr is a neighbour according to the connected routes of table: that of
// the longest match, or "".
func (s *Syncer) ResolveInterface(table uint32, addr netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interfaceLocked(table, addr)
}

func (s *Syncer) interfaceLocked(table uint32, addr netip.Addr) string {
	name := ""
	matches(table, addr, func(k key) bool {
		name = s.connected[k]
		return name != ""
	})
	return name
}

// matches calls found with the key of every prefix that contains addr, longest first, until it says true.
func matches(table uint32, addr netip.Addr, found func(key) bool) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return
	}
	for bits := addr.BitLen(); bits >= 0; bits-- {
		k, _ := makeKey(table, netip.PrefixFrom(addr, bits))
		if found(k) {
			return
		}
	}
}

// resolveLocked returns act with the interfaces of its next hops filled in as far as they are known.
func (s *Syncer) resolveLocked(table uint32, act *action) *action {
	if !act.lookup {
		return act
	}
	if r := s.resolved[lookup{table, act}]; r != nil {
		return r
	}
	hops := slices.Clone(act.hops)
	for i, h := range hops {
		if h.Interface == "" && h.Addr.IsValid() && !isLinkLocal6(h.Addr) {
			hops[i].Interface = s.interfaceLocked(table, h.Addr)
		}
	}
	r := s.internLocked(act.kind, hops)
	s.resolved[lookup{table, act}] = r
	return r
}

// wantLocked returns what the dataplane should hold of ours for k, nil for nothing, or an error if that cannot be held.
func (s *Syncer) wantLocked(k key, e *entry) (*action, error) {
	switch {
	case !e.wanted() && e.leftover && !s.complete:
		return e.have, nil // the second gate
	case !e.wanted() || e.best.act.kind == Connected:
		return nil, nil
	}
	act := s.resolveLocked(k.table, e.best.act)
	if act.kind != Unicast {
		return act, nil
	}
	if len(act.hops) == 0 {
		return nil, errNoNextHops
	}
	for _, h := range act.hops {
		switch {
		case h.Interface == "" && !h.Addr.IsValid():
			return nil, errNoNextHops
		case h.Interface == "" && isLinkLocal6(h.Addr):
			return nil, errLinkLocal
		}
	}
	return act, nil
}

// isLinkLocal6 reports whether an address needs an interface to mean anything. IPv4's 169.254.0.0/16, which tunnels are
// numbered from, is looked up as any other.
func isLinkLocal6(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }
