package bgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is what an operator asks of paths.

// Established returns how many of the configured neighbours have an established session. It is cheap.
func (s *Speaker) Established() (established, total int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.peers {
		if p.status.snapshot(*p.config()).State == Established {
			established++
		}
	}
	return established, len(s.peers)
}

// Filter selects what Paths visits. The zero value selects all.
type Filter struct {
	Prefix   netip.Prefix   // exactly this one
	Prefixes []netip.Prefix // exactly these, in any order; a table is best read in pieces: each is a copy that GoBGP makes at once
	Neighbor string         // a neighbour's name: only its paths; prefixes without any are left out
}

// wanted are the prefixes of a family that the filter names; nil where it names none at all.
func (f Filter) wanted(family Family) []*apiutil.LookupPrefix {
	list := make([]*apiutil.LookupPrefix, 0, len(f.Prefixes)+1)
	add := func(p netip.Prefix) {
		if p.IsValid() && p.Addr().Is4() == (family == IPv4) {
			list = append(list, &apiutil.LookupPrefix{Prefix: p.Masked().String()})
		}
	}
	add(f.Prefix)
	for _, p := range f.Prefixes {
		add(p)
	}
	return list
}

// names says whether the filter names prefixes.
func (f Filter) names() bool { return f.Prefix.IsValid() || f.Prefixes != nil }

// Count is how much a table has.
type Count struct {
	Prefixes int
	Paths    int
}

// Count counts what neighbours have announced and import has let through, without the paths of our own and without looking at
// them one by one. Prefixes that we announce ourselves are not counted, nor what neighbours say of them.
func (s *Speaker) Count(ctx context.Context) (Count, error) {
	var n Count
	own := s.feeder.injectedPrefixes()
	s.mu.RLock()
	r := s.running
	for o := range s.origins {
		own = append(own, o.Prefix)
	}
	s.mu.RUnlock()
	slices.SortFunc(own, comparePrefixes)
	own = slices.Compact(own) // a prefix may have several origins
	if r == nil {
		return n, nil
	}
	for _, family := range []Family{IPv4, IPv6} {
		f := family.wire()
		t, err := r.gobgp.GetTable(ctx, &api.GetTableRequest{
			TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())},
		})
		if err != nil {
			return n, fmt.Errorf("bgp: count %s paths: %w", family, err)
		}
		n.Prefixes += int(t.GetNumDestination())
		n.Paths += int(t.GetNumPath())
		for part := range slices.Chunk(Filter{Prefixes: own}.wanted(family), 1024) {
			req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f, Prefixes: part}
			err := r.gobgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
				n.Prefixes--
				n.Paths -= len(paths)
			})
			if err = cmp.Or(err, ctx.Err()); err != nil {
				return n, fmt.Errorf("bgp: count our own %s paths: %w", family, err)
			}
		}
	}
	return n, nil
}

// Prefix is a destination and the paths to it, the best first.
type Prefix struct {
	Table  uint32
	Prefix netip.Prefix
	Paths  []Path
}

// Path is one way to a prefix.
type Path struct {
	Neighbor         string     // its name; "" for a path of our own
	NextHop          netip.Addr // where packets go: not always what the neighbour wrote (see the feed); invalid for our own
	Interface        string     // of a link-local next hop
	Unusable         bool       // the next hop is none: the path is not used for forwarding
	Best             bool       // several paths with Best are an equal-cost set
	Stale            bool       // kept of a session that is lost, or is back but has not announced the path again (RFC 4724 §4.2)
	ASPath           string     // "65002 65003"; sets in braces, confederation sequences in parentheses and sets in brackets
	Communities      []string   // "65001:2", or a well-known one's name
	LargeCommunities []string
	Origin           string // igp, egp or incomplete
	LocalPref        uint32 // 0: absent
	MED              uint32 // 0: absent or 0
	ROA              string // valid, invalid or unknown; "" where routes are not validated, and for a path of our own
	Since            time.Time
}

// Paths calls visit for every prefix that the filter selects, IPv4 first, in the order of prefixes, until visit returns
// false. It works on a copy of the table. Errors: the context's; ErrNoNeighbor for a name that no neighbour has.
func (s *Speaker) Paths(ctx context.Context, f Filter, visit func(Prefix) bool) error {
	if f.Neighbor != "" {
		if _, err := s.peerByName(f.Neighbor); err != nil {
			return fmt.Errorf("bgp: %w", err)
		}
	}
	s.mu.RLock()
	r, multipath := s.running, max(s.cfg.Multipath, 1)
	s.mu.RUnlock()
	if r == nil {
		return nil
	}
	for _, family := range []Family{IPv4, IPv6} {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire()}
		if req.Prefixes = f.wanted(family); len(req.Prefixes) == 0 && f.names() {
			continue
		}
		var found []Prefix
		err := r.gobgp.ListPath(req, func(nlri bgp.NLRI, paths []*apiutil.Path) {
			pfx, ok := prefixOf(nlri)
			if !ok || ctx.Err() != nil {
				return
			}
			if e := (Prefix{Prefix: pfx, Paths: s.describe(paths, f.Neighbor, multipath)}); len(e.Paths) > 0 {
				found = append(found, e)
			}
		})
		if err != nil {
			return fmt.Errorf("bgp: list %s paths: %w", family, err)
		}
		slices.SortFunc(found, func(a, b Prefix) int { return comparePrefixes(a.Prefix, b.Prefix) })
		for _, e := range found {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("bgp: list paths: %w", err)
			}
			if !visit(e) {
				return nil
			}
		}
	}
	return nil
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// describe words a prefix's paths; only is a neighbour's name or "".
func (s *Speaker) describe(paths []*apiutil.Path, only string, multipath int) []Path {
	var l []Path
	best, resort := 0, len(paths) > 0 && lastResort(paths[0].Attrs) // the first is the best one
	for _, p := range paths {
		d := Path{Since: time.Unix(p.Age, 0), Best: p.Best && best < multipath && lastResort(p.Attrs) == resort, Stale: p.Stale}
		if d.Best {
			best++
		}
		if p.PeerAddress.IsValid() {
			peer := s.peerByID(p.PeerAddress)
			if peer == nil {
				continue // it has just gone
			}
			d.Neighbor, d.ROA = peer.config().Name, s.validation(p)
			hop, ok := peer.forward(p)
			if !ok {
				hop.Addr = nextHopOf(p.Attrs)
			}
			d.NextHop, d.Interface, d.Unusable = hop.Addr, hop.Interface, !ok
		}
		if only != "" && d.Neighbor != only {
			continue
		}
		d.attributes(p.Attrs)
		l = append(l, d)
	}
	return l
}

func (d *Path) attributes(attrs []bgp.PathAttributeInterface) {
	for _, a := range attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeAsPath:
			d.ASPath = asPathText(a)
		case *bgp.PathAttributeOrigin:
			d.Origin = originText(a.Value)
		case *bgp.PathAttributeLocalPref:
			d.LocalPref = a.Value
		case *bgp.PathAttributeMultiExitDisc:
			d.MED = a.Value
		case *bgp.PathAttributeCommunities:
			for _, c := range a.Value {
				d.Communities = append(d.Communities, communityText(c))
			}
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				d.LargeCommunities = append(d.LargeCommunities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
		}
	}
}

// asPathText writes an AS_PATH with the delimiters that are usual for its segments (RFC 4271 §4.3, RFC 5065 §3).
func asPathText(a *bgp.PathAttributeAsPath) string {
	var segments []string
	for _, seg := range a.Value {
		as := make([]string, 0, 8)
		for _, n := range seg.GetAS() {
			as = append(as, strconv.FormatUint(uint64(n), 10))
		}
		text := strings.Join(as, " ")
		switch seg.GetType() {
		case bgp.BGP_ASPATH_ATTR_TYPE_SET:
			text = "{" + text + "}"
		case bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ:
			text = "(" + text + ")"
		case bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET:
			text = "[" + text + "]"
		}
		if text != "" {
			segments = append(segments, text)
		}
	}
	return strings.Join(segments, " ")
}

func originText(v uint8) string {
	switch v {
	case bgp.BGP_ORIGIN_ATTR_TYPE_IGP:
		return "igp"
	case bgp.BGP_ORIGIN_ATTR_TYPE_EGP:
		return "egp"
	}
	return "incomplete"
}

// communityText names the well-known communities (RFC 1997, RFC 7999, RFC 8326, RFC 9494).
func communityText(c uint32) string {
	switch c {
	case 0xffff0000:
		return "graceful-shutdown"
	case 0xffff0006:
		return "llgr-stale"
	case 0xffff0007:
		return "no-llgr"
	case 0xffff029a:
		return "blackhole"
	case 0xffffff01:
		return "no-export"
	case 0xffffff02:
		return "no-advertise"
	case 0xffffff03:
		return "no-export-subconfed"
	case 0xffffff04:
		return "no-peer"
	}
	return fmt.Sprintf("%d:%d", c>>16, c&0xffff)
}
