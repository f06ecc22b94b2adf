package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// Originate replaces the set of prefixes that we announce as our own: connected networks, static routes and what the
// configuration says. Each is announced with ourselves as next hop. Prefixes are masked, duplicates do not matter.
// Error: a prefix in a table other than 0, or one that is not valid; then nothing changes.
func (s *Speaker) Originate(origins []Origin) error {
	next := map[Origin]bool{}
	for _, o := range origins {
		if !o.Prefix.IsValid() {
			return fmt.Errorf("bgp: originate %s: no valid prefix", o.Prefix)
		}
		if o.Table != 0 {
			return fmt.Errorf("bgp: originate %s in table %d: sessions in a VRF are not available yet", o.Prefix, o.Table)
		}
		o.Prefix = netip.PrefixFrom(o.Prefix.Addr().Unmap(), o.Prefix.Bits()).Masked()
		next[o] = true
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	old, r := s.origins, s.running
	s.origins = next
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	if err := s.changeOrigins(r, old, next); err != nil {
		return fmt.Errorf("bgp: originate: %w", err)
	}
	return nil
}

// originated reports whether we announce a prefix as our own.
func (s *Speaker) originated(p netip.Prefix) bool { return hasPrefix(s.ownOrigins(), p) }

// changeOrigins announces and withdraws what differs. Policies that ask where our own prefixes come from know of new ones
// before they are announced, and of old ones until they are withdrawn. For a prefix that stays and comes from elsewhere now,
// the neighbours whose policies ask are told again.
func (s *Speaker) changeOrigins(r *running, old, next map[Origin]bool) error {
	if !s.cfg.asksOrigins() {
		return changeOrigins(r.gobgp, old, next)
	}
	moved := false
	for o := range next {
		moved = moved || !old[o] && hasPrefix(old, o.Prefix)
	}
	for o := range old {
		moved = moved || !next[o] && hasPrefix(next, o.Prefix)
	}
	between, err := r.install(policies(&s.cfg, s.ids(), old, next), false, nil)
	if err != nil {
		return err
	}
	if err := changeOrigins(r.gobgp, old, next); err != nil {
		return err
	}
	_, err = r.install(policies(&s.cfg, s.ids(), next), moved, between)
	return err
}

func hasPrefix(origins map[Origin]bool, p netip.Prefix) bool {
	for _, src := range []Source{"", SourceOriginate, SourceConnected, SourceStatic, SourceLearned} {
		if origins[Origin{Prefix: p, Source: src}] {
			return true
		}
	}
	return false
}

// ownOrigins is what we announce; nobody changes it.
func (s *Speaker) ownOrigins() map[Origin]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.origins
}

// changeOrigins announces and withdraws what differs. A prefix may have several origins; it is announced once.
func changeOrigins(gobgp *server.BgpServer, old, next map[Origin]bool) error {
	paths := func(in, notIn map[Origin]bool) ([]*apiutil.Path, error) {
		var l []*apiutil.Path
		seen := map[netip.Prefix]bool{}
		for o := range in {
			if seen[o.Prefix] || hasPrefix(notIn, o.Prefix) {
				continue
			}
			seen[o.Prefix] = true
			p, err := localPath(o)
			if err != nil {
				return nil, err
			}
			l = append(l, p)
		}
		return l, nil
	}
	add, err := paths(next, old)
	if err != nil {
		return err
	}
	del, err := paths(old, next)
	if err != nil {
		return err
	}
	if len(add) > 0 {
		if _, err := gobgp.AddPath(apiutil.AddPathRequest{Paths: add}); err != nil {
			return fmt.Errorf("add paths: %w", err)
		}
	}
	if len(del) > 0 {
		if err := gobgp.DeletePath(apiutil.DeletePathRequest{Paths: del}); err != nil {
			return fmt.Errorf("delete paths: %w", err)
		}
	}
	return nil
}

// localPath is a path of our own. The unspecified next hop makes GoBGP put each session's local address in its place.
func localPath(o Origin) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(o.Prefix)
	if err != nil {
		return nil, fmt.Errorf("prefix %s: %w", o.Prefix, err)
	}
	p := &apiutil.Path{Nlri: nlri, Age: time.Now().Unix()}
	origin := bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)
	if o.Prefix.Addr().Is4() {
		p.Family = bgp.RF_IPv4_UC
		nh, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
		if err != nil {
			return nil, fmt.Errorf("prefix %s: %w", o.Prefix, err)
		}
		p.Attrs = []bgp.PathAttributeInterface{origin, nh}
		return p, nil
	}
	p.Family = bgp.RF_IPv6_UC
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv6_UC, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	if err != nil {
		return nil, fmt.Errorf("prefix %s: %w", o.Prefix, err)
	}
	p.Attrs = []bgp.PathAttributeInterface{origin, reach}
	return p, nil
}
