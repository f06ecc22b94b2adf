package minivpp

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_neighbor"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// hub turns the plane's events into API messages for the clients that want them.
//
// As in VPP, interface events are collected and sent per interface: the flags say which "up" events were in the batch, not
// what the state is. So an interface that goes up and down within a batch has the flag of up, and a client must ask for
// the state.
type hub struct {
	srv   *Server
	state map[uint32]linkState // of run alone

	mu       sync.Mutex
	pending  []plane.Event
	ifaces   map[*client]uint32 // pid that the client gave
	adverts  map[*client]uint32 // likewise, of router advertisements
	sessions map[*client]bool   // who wants to know of BFD sessions
	watchers []watcher
	wake     chan struct{}
}

// watcher is a client's interest in neighbours. Several of one client for different addresses are possible.
type watcher struct {
	client  *client
	version int
	pid     uint32
	addr    netip.Addr // 0.0.0.0: any
	swIf    uint32     // or plane.NoInterface
}

func newHub(s *Server) *hub {
	return &hub{srv: s, state: map[uint32]linkState{}, ifaces: map[*client]uint32{}, adverts: map[*client]uint32{}, sessions: map[*client]bool{}, wake: make(chan struct{}, 1)}
}

// subscribe starts to collect the plane's events. It comes before the first client, so that none misses anything.
func (h *hub) subscribe() (cancel func()) {
	for _, i := range h.srv.Interfaces() {
		h.state[i.Index] = linkState{i.AdminUp, i.LinkUp}
	}
	return h.srv.Subscribe(func(e plane.Event) {
		h.mu.Lock()
		h.pending = append(h.pending, e)
		h.mu.Unlock()
		select {
		case h.wake <- struct{}{}:
		default:
		}
	})
}

// run sends what has been collected, until ctx ends.
func (h *hub) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		h.mu.Lock()
		batch := h.pending
		h.pending = nil
		h.mu.Unlock()
		h.interfaceEvents(batch)
		h.neighborEvents(batch)
		h.advertEvents(batch)
		h.bfdEvents(batch)
	}
}

type linkState struct{ admin, link bool }

// interfaceEvents sends one event for each interface of a batch, by index.
func (h *hub) interfaceEvents(batch []plane.Event) {
	type change struct{ admin, link, deleted bool }
	changes := map[uint32]change{}
	for _, e := range batch {
		c := changes[e.Interface]
		switch e.Kind {
		case plane.EventInterface:
			before := h.state[e.Interface]
			c.admin = c.admin || e.AdminUp && !before.admin
			c.link = c.link || e.LinkUp && !before.link
			h.state[e.Interface] = linkState{e.AdminUp, e.LinkUp}
		case plane.EventDeleted:
			c.deleted = true
			delete(h.state, e.Interface)
			h.srv.forgetInterface(e.Interface)
		default:
			continue
		}
		changes[e.Interface] = c
	}
	if len(changes) == 0 {
		return
	}
	h.mu.Lock()
	clients := maps.Clone(h.ifaces)
	h.mu.Unlock()
	for _, idx := range slices.Sorted(maps.Keys(changes)) {
		for client, pid := range clients {
			client.post(&interfaces.SwInterfaceEvent{
				PID: pid, SwIfIndex: interface_types.InterfaceIndex(idx),
				Flags: flags(changes[idx].admin, changes[idx].link), Deleted: changes[idx].deleted,
			})
		}
	}
}

func (h *hub) neighborEvents(batch []plane.Event) {
	h.mu.Lock()
	watchers := slices.Clone(h.watchers)
	h.mu.Unlock()
	for _, e := range batch {
		flag := ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_ADDED
		switch e.Kind {
		case plane.EventNeighborAdded:
		case plane.EventNeighborRemoved:
			flag = ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_REMOVED
		default:
			continue
		}
		for _, w := range watchers {
			switch {
			case !w.matches(e.Neighbor):
			case w.version == 2:
				w.client.post(&ip_neighbor.IPNeighborEventV2{PID: w.pid, Flags: flag, Neighbor: toNeighbor(e.Neighbor)})
			default: // version 1 cannot say which it was; VPP sends it for both
				w.client.post(&ip_neighbor.IPNeighborEvent{PID: w.pid, Neighbor: toNeighbor(e.Neighbor)})
			}
		}
	}
}

// matches is as in VPP (ip_neighbor_publish): an address counts with its interface only, and 0.0.0.0 stands for every
// address of both families.
func (w watcher) matches(n plane.Neighbor) bool {
	if w.addr == netip.IPv4Unspecified() {
		return w.swIf == plane.NoInterface || w.swIf == n.Interface
	}
	return w.addr == n.Addr && w.swIf == n.Interface
}

// forget ends every subscription of a client that left.
func (h *hub) forget(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ifaces, c)
	delete(h.adverts, c)
	delete(h.sessions, c)
	h.watchers = slices.DeleteFunc(h.watchers, func(w watcher) bool { return w.client == c })
}

// wantInterfaceEvents: asking for what one has is an error, as is ending what one has not (pub_sub_handler of VPP's
// src/vlibapi/api_helper_macros.h).
func (s *Server) wantInterfaceEvents(c *client, q *interfaces.WantInterfaceEvents, _ *interfaces.WantInterfaceEventsReply) error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	_, has := s.hub.ifaces[c]
	switch want := q.EnableDisable != 0; {
	case want == has:
		return api.INVALID_REGISTRATION
	case want:
		s.hub.ifaces[c] = q.PID
	default:
		delete(s.hub.ifaces, c)
	}
	return nil
}

func (s *Server) wantIPNeighborEvents(c *client, q *ip_neighbor.WantIPNeighborEvents, _ *ip_neighbor.WantIPNeighborEventsReply) error {
	return s.watchNeighbors(q.Enable, watcher{c, 1, q.PID, binapi.FromAddress(q.IP), uint32(q.SwIfIndex)})
}

func (s *Server) wantIPNeighborEventsV2(c *client, q *ip_neighbor.WantIPNeighborEventsV2, _ *ip_neighbor.WantIPNeighborEventsV2Reply) error {
	return s.watchNeighbors(q.Enable, watcher{c, 2, q.PID, binapi.FromAddress(q.IP), uint32(q.SwIfIndex)})
}

func (s *Server) watchNeighbors(enable bool, w watcher) error {
	if w.swIf != plane.NoInterface {
		if _, err := s.Interface(w.swIf); err != nil {
			return err
		}
	}
	if !w.addr.IsValid() {
		return api.INVALID_ADDRESS_FAMILY
	}
	if w.swIf == 0 {
		w.swIf = plane.NoInterface // VPP takes 0 for "any" too
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	switch i := slices.Index(s.hub.watchers, w); {
	case enable && i < 0:
		s.hub.watchers = append(s.hub.watchers, w)
	case !enable && i >= 0:
		s.hub.watchers = slices.Delete(s.hub.watchers, i, i+1)
	}
	return nil
}
