package minivpp

import (
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/bfd"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// BFD: bfd.api, without authentication, echo and several hops.

func bfdKey(index interface_types.InterfaceIndex, local, peer ip_types.Address) plane.BFDKey {
	return plane.BFDKey{Interface: uint32(index), Local: binapi.FromAddress(local), Peer: binapi.FromAddress(peer)}
}

func bfdTimers(tx, rx uint32, multiplier uint8) plane.BFDTimers {
	return plane.BFDTimers{
		MinTx: time.Duration(tx) * time.Microsecond, MinRx: time.Duration(rx) * time.Microsecond, Multiplier: multiplier,
	}
}

func (s *Server) bfdUDPAdd(_ *client, q *bfd.BfdUDPAdd, _ *bfd.BfdUDPAddReply) error {
	if q.IsAuthenticated {
		return api.UNIMPLEMENTED
	}
	return s.AddBFD(bfdKey(q.SwIfIndex, q.LocalAddr, q.PeerAddr), bfdTimers(q.DesiredMinTx, q.RequiredMinRx, q.DetectMult))
}

func (s *Server) bfdUDPMod(_ *client, q *bfd.BfdUDPMod, _ *bfd.BfdUDPModReply) error {
	return s.ModBFD(bfdKey(q.SwIfIndex, q.LocalAddr, q.PeerAddr), bfdTimers(q.DesiredMinTx, q.RequiredMinRx, q.DetectMult))
}

func (s *Server) bfdUDPDel(_ *client, q *bfd.BfdUDPDel, _ *bfd.BfdUDPDelReply) error {
	return s.DelBFD(bfdKey(q.SwIfIndex, q.LocalAddr, q.PeerAddr))
}

func (s *Server) bfdUDPSessionSetFlags(_ *client, q *bfd.BfdUDPSessionSetFlags, _ *bfd.BfdUDPSessionSetFlagsReply) error {
	return s.SetBFD(bfdKey(q.SwIfIndex, q.LocalAddr, q.PeerAddr), q.Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0)
}

func (s *Server) bfdUDPSessionDump(_ *client, _ *bfd.BfdUDPSessionDump, send func(*bfd.BfdUDPSessionDetails)) {
	for _, b := range s.BFDSessions() {
		e := toBFDEvent(b)
		send(&bfd.BfdUDPSessionDetails{
			SwIfIndex: e.SwIfIndex, LocalAddr: e.LocalAddr, PeerAddr: e.PeerAddr, State: e.State,
			RequiredMinRx: e.RequiredMinRx, DesiredMinTx: e.DesiredMinTx, DetectMult: e.DetectMult,
		})
	}
}

func toBFDEvent(b plane.BFDSession) *bfd.BfdUDPSessionEvent {
	return &bfd.BfdUDPSessionEvent{
		SwIfIndex: interface_types.InterfaceIndex(b.Interface), LocalAddr: binapi.ToAddress(b.Local), PeerAddr: binapi.ToAddress(b.Peer),
		State: bfd.BfdState(b.State), DetectMult: b.Multiplier,
		RequiredMinRx: uint32(b.MinRx.Microseconds()), DesiredMinTx: uint32(b.MinTx.Microseconds()),
	}
}

// wantBfdEvents is wantInterfaceEvents for the states of sessions.
func (s *Server) wantBfdEvents(c *client, q *bfd.WantBfdEvents, _ *bfd.WantBfdEventsReply) error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if q.EnableDisable == s.hub.sessions[c] {
		return api.INVALID_REGISTRATION
	}
	if q.EnableDisable {
		s.hub.sessions[c] = true
	} else {
		delete(s.hub.sessions, c)
	}
	return nil
}

// bfdEvents sends an event for each change; VPP's have no pid.
func (h *hub) bfdEvents(batch []plane.Event) {
	h.mu.Lock()
	var clients []*client
	for c := range h.sessions {
		clients = append(clients, c)
	}
	h.mu.Unlock()
	for _, e := range batch {
		if e.Kind != plane.EventBFD {
			continue
		}
		for _, c := range clients {
			c.post(toBFDEvent(*e.BFD))
		}
	}
}
