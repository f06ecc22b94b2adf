package vppagent

import (
	"net/netip"

	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"

	"rlr/binapi"
)

// address adds or deletes an interface's address.
func address(index uint32, p netip.Prefix, add bool) (*interfaces.SwInterfaceAddDelAddress, *interfaces.SwInterfaceAddDelAddressReply) {
	return &interfaces.SwInterfaceAddDelAddress{
		SwIfIndex: interface_types.InterfaceIndex(index), IsAdd: add, Prefix: binapi.ToAddressWithPrefix(p),
	}, new(interfaces.SwInterfaceAddDelAddressReply)
}

// unnumbered makes an interface use the lender's addresses, or stop it. In VPP's message SwIfIndex is the lender.
func unnumbered(index, lender uint32, add bool) (*interfaces.SwInterfaceSetUnnumbered, *interfaces.SwInterfaceSetUnnumberedReply) {
	return &interfaces.SwInterfaceSetUnnumbered{
		SwIfIndex: interface_types.InterfaceIndex(lender), UnnumberedSwIfIndex: interface_types.InterfaceIndex(index), IsAdd: add,
	}, new(interfaces.SwInterfaceSetUnnumberedReply)
}
