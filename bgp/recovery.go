package bgp

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

// recovered ends our restart: neighbours are told of routes from now on. lost says that the dataplane turned out to hold nothing;
// then those who were told that it does learn the truth by a new session.
func (s *Speaker) recovered(r *running, lost bool) {
	s.changes.Lock()
	defer s.changes.Unlock()
	r.recovering.Store(false)
	r.export.open()
	if !lost {
		return
	}
	for p := range r.peers {
		p.post(func() {
			if p.sess != nil && p.sess.restarted.Load() {
				p.sess.cease(&p.work, ceaseConfigChange, nil, causeQuiet)
			}
		})
		p.retry()
	}
}
