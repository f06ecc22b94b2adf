package minivpp

import (
	"net/netip"

	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// Addresses of interfaces, IPv6 on them, and unnumbered interfaces.

func (s *Server) swInterfaceAddDelAddress(_ *client, q *interfaces.SwInterfaceAddDelAddress, _ *interfaces.SwInterfaceAddDelAddressReply) error {
	idx := uint32(q.SwIfIndex)
	if _, err := s.Interface(idx); err != nil {
		return err
	}
	if q.DelAll {
		return s.DelAllAddresses(idx)
	}
	pfx := binapi.FromAddressWithPrefix(q.Prefix)
	switch {
	case !pfx.IsValid():
		return api.ADDRESS_LENGTH_MISMATCH
	case q.IsAdd:
		return s.AddAddress(idx, pfx)
	default:
		return s.DelAddress(idx, pfx)
	}
}

// ipAddressDump sends an interface's addresses of one family, without the link-local one, as VPP does.
func (s *Server) ipAddressDump(_ *client, q *ip.IPAddressDump, send func(*ip.IPAddressDetails)) {
	i, err := s.Interface(uint32(q.SwIfIndex))
	if err != nil {
		return
	}
	for _, pfx := range i.Addresses {
		if pfx.Addr().Is6() == q.IsIPv6 {
			send(&ip.IPAddressDetails{SwIfIndex: q.SwIfIndex, Prefix: binapi.ToAddressWithPrefix(pfx)})
		}
	}
}

// ipDump sends the interfaces that are not unnumbered, whatever the family: what VPP does, which its own code doubts too.
func (s *Server) ipDump(_ *client, q *ip.IPDump, send func(*ip.IPDetails)) {
	for _, i := range s.Interfaces() {
		if i.Unnumbered == plane.NoInterface {
			send(&ip.IPDetails{SwIfIndex: interface_types.InterfaceIndex(i.Index), IsIPv6: q.IsIPv6})
		}
	}
}

func (s *Server) ipUnnumberedDump(_ *client, q *ip.IPUnnumberedDump, send func(*ip.IPUnnumberedDetails)) {
	for _, i := range s.Interfaces() {
		idx := uint32(q.SwIfIndex)
		if i.Unnumbered == plane.NoInterface || (idx != plane.NoInterface && idx != i.Index) {
			continue
		}
		send(&ip.IPUnnumberedDetails{
			SwIfIndex:   interface_types.InterfaceIndex(i.Index),
			IPSwIfIndex: interface_types.InterfaceIndex(i.Unnumbered),
		})
	}
}

// swInterfaceSetUnnumbered: in the message, unnumbered_sw_if_index is the interface that borrows, sw_if_index the lender.
func (s *Server) swInterfaceSetUnnumbered(_ *client, q *interfaces.SwInterfaceSetUnnumbered, _ *interfaces.SwInterfaceSetUnnumberedReply) error {
	borrower, lender := uint32(q.UnnumberedSwIfIndex), uint32(q.SwIfIndex)
	if _, err := s.Interface(borrower); err != nil {
		return api.INVALID_SW_IF_INDEX
	}
	if q.IsAdd {
		if _, err := s.Interface(lender); err != nil {
			return api.INVALID_SW_IF_INDEX_2
		}
	}
	return s.SetUnnumbered(borrower, lender, q.IsAdd)
}

func (s *Server) swInterfaceIP6EnableDisable(_ *client, q *ip.SwInterfaceIP6EnableDisable, _ *ip.SwInterfaceIP6EnableDisableReply) error {
	return s.EnableIP6(uint32(q.SwIfIndex), q.Enable)
}

func (s *Server) swInterfaceIP6SetLinkLocalAddress(_ *client, q *ip.SwInterfaceIP6SetLinkLocalAddress, _ *ip.SwInterfaceIP6SetLinkLocalAddressReply) error {
	return s.SetLinkLocal(uint32(q.SwIfIndex), binapi.FromIP6(q.IP))
}

func (s *Server) swInterfaceIP6GetLinkLocalAddress(_ *client, q *ip.SwInterfaceIP6GetLinkLocalAddress, r *ip.SwInterfaceIP6GetLinkLocalAddressReply) error {
	i, err := s.Interface(uint32(q.SwIfIndex))
	if err != nil {
		return err
	}
	if !i.IP6Enabled || !i.LinkLocal.IsValid() || i.LinkLocal == netip.IPv6Unspecified() {
		return api.IP6_NOT_ENABLED
	}
	r.IP = binapi.ToIP6(i.LinkLocal)
	return nil
}
