package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(old)), func(o Origin) bool { return next[o] })
	fresh := slices.DeleteFunc(slices.Collect(maps.Keys(next)), func(o Origin) bool { return old[o] })
	if err := changeOrigins(r.gobgp, fresh, gone); err != nil {
		return fmt.Errorf("bgp: originate: %w", err)
	}
	return nil
}

// originated reports whether we announce a prefix as our own.
func (s *Speaker) originated(p netip.Prefix) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.origins[Origin{Prefix: p}]
}

func changeOrigins(gobgp *server.BgpServer, fresh, gone []Origin) error {
	paths := func(origins []Origin) ([]*apiutil.Path, error) {
		var l []*apiutil.Path
		for _, o := range origins {
			p, err := localPath(o)
			if err != nil {
				return nil, err
			}
			l = append(l, p)
		}
		return l, nil
	}
	add, err := paths(fresh)
	if err != nil {
		return err
	}
	del, err := paths(gone)
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
