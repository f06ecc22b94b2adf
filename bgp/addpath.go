package bgp

import (
	"fmt"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// AddPath says how many paths to a prefix a session carries (RFC 7911). The zero value is one in each direction.
type AddPath struct {
	Receive bool
	SendMax uint8 // most paths to a prefix that the neighbour is told; 0: the best one, without identifiers
}

// mode is what our OPEN offers.
func (a AddPath) mode() (m bgp.BGPAddPathMode) {
	if a.Receive {
		m |= bgp.BGP_ADD_PATH_RECEIVE
	}
	if a.SendMax > 0 {
		m |= bgp.BGP_ADD_PATH_SEND
	}
	return m
}

// agreed is what two OPENs come to (RFC 7911 §4), in our terms.
func (a AddPath) agreed(families []Family, peer *openInfo) map[Family]bgp.BGPAddPathMode {
	all := map[Family]bgp.BGPAddPathMode{}
	for _, f := range families {
		theirs := peer.paths[f]
		if theirs&bgp.BGP_ADD_PATH_SEND != 0 {
			all[f] |= a.mode() & bgp.BGP_ADD_PATH_RECEIVE
		}
		if theirs&bgp.BGP_ADD_PATH_RECEIVE != 0 {
			all[f] |= a.mode() & bgp.BGP_ADD_PATH_SEND
		}
	}
	return all
}

// addPath reads RFC 7911 §4.
func (o *openInfo) addPath(c *bgp.CapAddPath) {
	if o.paths == nil {
		o.paths = map[Family]bgp.BGPAddPathMode{}
	}
	for _, t := range c.Tuples {
		if f := familyOf(t.Family); f != 0 {
			o.paths[f] = t.Mode
		}
	}
}

// offerPaths tells GoBGP.
func (n *Neighbor) offerPaths(f *api.AfiSafi) {
	if n.AddPath.mode() != 0 {
		f.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{Receive: n.AddPath.Receive, SendMax: uint32(n.AddPath.SendMax)}}
	}
}

// pathsText says in words what was agreed on.
func pathsText(m bgp.BGPAddPathMode) string {
	switch m {
	case bgp.BGP_ADD_PATH_RECEIVE:
		return "receive"
	case bgp.BGP_ADD_PATH_SEND:
		return "send"
	case bgp.BGP_ADD_PATH_BOTH:
		return "both"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// pathsAgreed are those of a session for which a wire was chosen.
func (s *session) pathsAgreed() map[Family]bgp.BGPAddPathMode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic.paths
}
