package vppagent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
)

// settleNeighbors makes the static entries of an interface of ours those that are configured. Learned ones are VPP's.
func settleNeighbors(want *Interface, have *observed) (todo []request) {
	wanted := make([]observedNeighbor, 0, len(want.Neighbors))
	for _, n := range want.Neighbors {
		wanted = append(wanted, observedNeighbor{n.Address.WithZone(""), binapi.ToMAC(n.MAC)})
	}
	for _, n := range wanted {
		if !slices.Contains(have.neighbors, n) {
			todo = append(todo, neighbor(have.index, n, true)) // replaces an entry with another MAC address
		}
	}
	for _, n := range have.neighbors {
		if !slices.ContainsFunc(wanted, func(w observedNeighbor) bool { return w.addr == n.addr }) {
			todo = append(todo, neighbor(have.index, n, false))
		}
	}
	return todo
}

func neighbor(index uint32, n observedNeighbor, add bool) request {
	return request{
		req: &ip_neighbor.IPNeighborAddDel{IsAdd: add, Neighbor: ip_neighbor.IPNeighbor{
			SwIfIndex: interface_types.InterfaceIndex(index), Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC,
			MacAddress: n.mac, IPAddress: binapi.ToAddress(n.addr),
		}},
		reply: new(ip_neighbor.IPNeighborAddDelReply),
	}
}

// Neighbor is an ARP or ND entry of the dataplane.
type Neighbor struct {
	Address   netip.Addr
	MAC       net.HardwareAddr
	Interface string // "#5" when it is none of the dataplane's any more
	Static    bool
	Age       time.Duration // since it was last confirmed
}

// Neighbors returns all of the dataplane's, sorted by interface and address.
func (a *Agent) Neighbors(ctx context.Context) ([]Neighbor, error) {
	l, err := a.current()
	if err != nil {
		return nil, err
	}
	names, err := l.names(ctx)
	if err != nil {
		return nil, err
	}
	var list []Neighbor
	for _, af := range []ip_types.AddressFamily{ip_types.ADDRESS_IP4, ip_types.ADDRESS_IP6} {
		req := &ip_neighbor.IPNeighborDump{SwIfIndex: interface_types.InterfaceIndex(noInterface), Af: af}
		err := dump(ctx, l.s, req, func(d *ip_neighbor.IPNeighborDetails) {
			list = append(list, Neighbor{
				Address: binapi.FromAddress(d.Neighbor.IPAddress), MAC: d.Neighbor.MacAddress[:],
				Interface: nameOf(names, uint32(d.Neighbor.SwIfIndex)),
				Static:    d.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC != 0,
				Age:       time.Duration(d.Age * float64(time.Second)),
			})
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b Neighbor) int {
		if a.Interface != b.Interface {
			if a.Interface < b.Interface {
				return -1
			}
			return 1
		}
		return a.Address.Compare(b.Address)
	})
	return list, nil
}
