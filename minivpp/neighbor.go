package minivpp

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// Neighbours: ip_neighbor.api, for ARP and ND alike.

// neighborLimits are what ip_neighbor_config sets.
type neighborLimits struct {
	number, age uint32
	recycle     bool
}

// defaultNeighborLimits are VPP's.
var defaultNeighborLimits = neighborLimits{number: 50000}

func (s *Server) ipNeighborAddDel(_ *client, q *ip_neighbor.IPNeighborAddDel, r *ip_neighbor.IPNeighborAddDelReply) error {
	r.StatsIndex = ^uint32(0)
	idx := uint32(q.Neighbor.SwIfIndex)
	if _, err := s.Interface(idx); err != nil {
		return err
	}
	addr := binapi.FromAddress(q.Neighbor.IPAddress)
	if !addr.IsValid() {
		return api.INVALID_ADDRESS_FAMILY
	}
	if !q.IsAdd {
		return s.DelNeighbor(idx, addr)
	}
	stats, err := s.AddNeighbor(idx, plane.Neighbor{
		Interface: idx, Addr: addr, MAC: q.Neighbor.MacAddress,
		Static: q.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC != 0,
		NoFIB:  q.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY != 0,
	})
	if err == nil {
		r.StatsIndex = stats
	}
	return err
}

func toNeighbor(n plane.Neighbor) ip_neighbor.IPNeighbor {
	out := ip_neighbor.IPNeighbor{
		SwIfIndex:  interface_types.InterfaceIndex(n.Interface),
		MacAddress: n.MAC,
		IPAddress:  binapi.ToAddress(n.Addr),
	}
	if n.Static {
		out.Flags |= ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC
	}
	if n.NoFIB {
		out.Flags |= ip_neighbor.IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY
	}
	return out
}

func (s *Server) ipNeighborDump(_ *client, q *ip_neighbor.IPNeighborDump, send func(*ip_neighbor.IPNeighborDetails)) {
	if q.Af > ip_types.ADDRESS_IP6 {
		return
	}
	for _, n := range s.Neighbors(uint32(q.SwIfIndex), q.Af == ip_types.ADDRESS_IP6) {
		send(&ip_neighbor.IPNeighborDetails{Age: n.Age.Seconds(), Neighbor: toNeighbor(n)})
	}
}

// ipNeighborFlush removes the neighbours of a family, static ones too as VPP does, on one interface or on all.
func (s *Server) ipNeighborFlush(_ *client, q *ip_neighbor.IPNeighborFlush, _ *ip_neighbor.IPNeighborFlushReply) error {
	idx := uint32(q.SwIfIndex)
	if idx != plane.NoInterface {
		if _, err := s.Interface(idx); err != nil {
			return err
		}
	}
	if q.Af > ip_types.ADDRESS_IP6 {
		return api.INVALID_ADDRESS_FAMILY
	}
	for _, n := range s.Neighbors(idx, q.Af == ip_types.ADDRESS_IP6) {
		// It may have gone by itself meanwhile.
		_ = s.DelNeighbor(n.Interface, n.Addr)
	}
	return nil
}

// ipNeighborConfig keeps the limits for ip_neighbor_config_get. The plane has its own limits and its own ageing, so a client
// that wants something else than VPP's defaults is told that it does not get it.
func (s *Server) ipNeighborConfig(_ *client, q *ip_neighbor.IPNeighborConfig, _ *ip_neighbor.IPNeighborConfigReply) error {
	if q.Af > ip_types.ADDRESS_IP6 {
		return api.INVALID_ADDRESS_FAMILY
	}
	want := neighborLimits{number: q.MaxNumber, age: q.MaxAge, recycle: q.Recycle}
	if want != defaultNeighborLimits {
		return api.UNIMPLEMENTED
	}
	return nil
}

func (s *Server) ipNeighborConfigGet(_ *client, q *ip_neighbor.IPNeighborConfigGet, r *ip_neighbor.IPNeighborConfigGetReply) error {
	if q.Af > ip_types.ADDRESS_IP6 {
		r.MaxNumber, r.MaxAge = ^uint32(0), ^uint32(0)
		return api.INVALID_ADDRESS_FAMILY
	}
	r.Af, r.MaxNumber, r.MaxAge, r.Recycle = q.Af, defaultNeighborLimits.number, defaultNeighborLimits.age, defaultNeighborLimits.recycle
	return nil
}
