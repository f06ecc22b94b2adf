package bgp

import (
	"github.com/osrg/gobgp/v4/api"
)

// This file is our own restart (RFC 4724 §4.1): the beginning of a run that finds its routes in the dataplane, and the end of
// one that leaves them there.

// Resume says, before Run, that the dataplane holds the routes of an earlier run and has forwarded by them since. Neighbours
// are told so (R and F bits); what they announce reaches the feed at once when all have announced all, or at the deferral, and
// so does what they are told. It is for a speaker with Options.Outlived.
func (s *Speaker) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumed = s.local.outlived
}

// Void takes Resume back, also while Run runs: the dataplane has lost what it held. It does not block.
func (s *Speaker) Void() {
	s.mu.Lock()
	s.resumed = false
	s.mu.Unlock()
	select {
	case s.voided <- struct{}{}:
	default:
	}
}

// Leave makes the end of Run one that another run will follow: neighbours that keep our routes over a restart see the
// connection break, and only the others are told that we go.
func (s *Speaker) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
}

// recovered ends our restart. GoBGP goes on telling neighbours that come later that we have just restarted, and withholds
// routes from them: so it gets to know them anew, and all of them where the dataplane turned out to hold nothing.
func (s *Speaker) recovered(r *running, all bool) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if !r.recovering.Swap(false) && !all {
		return
	}
	restarting := map[string]bool{}
	err := r.gobgp.ListPeer(r.ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		restarting[p.GetConf().GetNeighborAddress()] = p.GetGracefulRestart().GetLocalRestarting()
	})
	if err != nil {
		return // the speaker ends
	}
	var again []*peer
	var down []<-chan struct{}
	for p := range r.peers {
		if restarting[p.id.String()] && (all || p.status.current() != Established) {
			again = append(again, p)
			down = append(down, p.shutdown(ceaseConfigChange, nil, causeQuiet))
		}
	}
	waitAll(down)
	for _, p := range again {
		if err := s.readd(r, p); err != nil {
			p.log.WithError(err).Error("BGP neighbor is lost until it is enabled anew")
		}
		p.resume()
	}
}

func (s *Speaker) readd(r *running, p *peer) error {
	r.peerMu.Lock()
	defer r.peerMu.Unlock()
	if !p.known {
		return nil
	}
	if err := r.deleteLocked(p); err != nil {
		return err
	}
	return r.addLocked(p)
}
