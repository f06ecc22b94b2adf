package bgp

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// This file is graceful shutdown (RFC 8326): before the sessions close, all that we have announced is announced anew with a
// community that asks for other ways to be preferred, and for a moment we go on forwarding.

// farewell says goodbye to all neighbours and waits for Config.Farewell, if there is anybody to hear it.
func (s *Speaker) farewell(r *running) {
	s.mu.RLock()
	wait := s.cfg.Farewell
	s.mu.RUnlock()
	heard := false
	for p := range r.peers {
		if wait == 0 || p.status.current() != Established {
			continue
		}
		p.farewell.Store(true)
		p.tellAgain()
		heard = true
	}
	if !heard {
		return
	}
	s.log.WithField("wait", wait.String()).Info("BGP neighbors are told to find other ways")
	time.Sleep(wait)
}

// sayFarewell adds the community GRACEFUL_SHUTDOWN to what is announced, and within our AS the lowest preference (RFC 8326 §4).
func (u *update) sayFarewell(internal bool) {
	shutdown := binary.BigEndian.AppendUint32(nil, uint32(bgp.COMMUNITY_PLANNED_SHUT))
	all := attr{optTransitive, bgp.BGP_ATTR_TYPE_COMMUNITIES, nil}
	if old := u.find(bgp.BGP_ATTR_TYPE_COMMUNITIES); old != nil {
		all = *old
	}
	if !slices.ContainsFunc(slices.Collect(slices.Chunk(all.value, 4)), func(c []byte) bool { return string(c) == string(shutdown) }) {
		all.value = slices.Concat(all.value, shutdown)
	}
	u.put(all)
	if internal {
		u.put(attr{wellKnown, bgp.BGP_ATTR_TYPE_LOCAL_PREF, make([]byte, 4)})
	}
}
