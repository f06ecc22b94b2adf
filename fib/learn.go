package fib

// Learning: routes of others in the dataplane (an operator's, DHCP's, another router's) as candidates of a feed, so that they
// are seen, and can be told to neighbours. The feed is fed by dumps alone. Its candidates are never written, for they are
// there; nor deleted, for they are not ours: where one is the best candidate, we want nothing. One goes when a dump does not
// show it any more, which is also how a route of ours that wins in the dataplane looks: it hides the other's.

// Learn makes the Syncer read others' routes into a feed of that name, as far as the target tells of them. changed (may be
// nil) is called, in Run's goroutine and with no lock held, after a dump that showed other ones than before. Call it before Run,
// once.
func (s *Syncer) Learn(name string, preference int, changed func()) *Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learnedChanged = changed
	s.learner = s.addFeedLocked(&Feed{s: s, name: name, preference: preference, learned: true, complete: true})
	return s.learner
}

// Learned returns the routes that the latest dump showed, in no order.
func (s *Syncer) Learned() []Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	routes := make([]Route, 0, len(s.learned))
	for k := range s.learned {
		if e := s.entries[k]; e != nil {
			if act := e.of(s.learner); act != nil {
				routes = append(routes, act.route(k))
			}
		}
	}
	return routes
}

func (s *Syncer) learnLocked(k key, h *Held, r *reading) {
	if s.learner == nil {
		return
	}
	r.learned[k] = struct{}{}
	act := s.internLocked(h.Kind, h.NextHops)
	if e := s.entries[k]; e == nil || e.of(s.learner) != act {
		r.news = true
		s.putLocked(s.learner, k, act)
	}
}

// forgetLearnedLocked withdraws what the dump did not show.
func (s *Syncer) forgetLearnedLocked(r *reading) {
	for k := range s.learned {
		if _, ok := r.learned[k]; !ok {
			r.news = true
			s.putLocked(s.learner, k, nil)
		}
	}
	s.learned = r.learned
}
