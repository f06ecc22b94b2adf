package vppagent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
)

// The settings of an interface that exists. settle compares what is configured with what is there and returns the requests
// that make up the difference, in the order in which VPP takes them; it does nothing itself, so a table can test it.

// request is a message with a place for its reply.
type request struct {
	req, reply api.Message
	// optional: a refusal is not an error of the interface.
	optional bool
}

// defaultMTU is VPP's for IP packets on loopbacks and memifs, bytes (src/vnet/interface.c: VNET_MTU_L3 from the hardware's 9000).
const defaultMTU = 9000

// settle returns what to do to have, an interface of ours, so that it becomes want. lender is the index of want.Unnumbered.
func settle(want *Interface, have *observed, lender uint32) []request {
	index := interface_types.InterfaceIndex(have.index)
	linkLocal, addresses := want.addresses()
	var todo []request
	add := func(req, reply api.Message) { todo = append(todo, request{req: req, reply: reply}) }

	if want.Unnumbered == "" {
		lender = noInterface
	}
	moved := have.table4 != want.Table || have.table6 != want.Table
	if have.lender != noInterface && (moved || have.lender != lender) {
		add(unnumbered(have.index, have.lender, false))
	}
	present := have.addresses
	if moved { // an interface with addresses stays in its table
		for _, p := range present {
			add(address(have.index, p, false))
		}
		present = nil
	}
	if have.table4 != want.Table {
		add(&interfaces.SwInterfaceSetTable{SwIfIndex: index, VrfID: want.Table}, new(interfaces.SwInterfaceSetTableReply))
	}
	if have.table6 != want.Table {
		add(&interfaces.SwInterfaceSetTable{SwIfIndex: index, IsIPv6: true, VrfID: want.Table}, new(interfaces.SwInterfaceSetTableReply))
	}
	todo = append(todo, settleIP6(have, linkLocal, slices.ContainsFunc(addresses, isIP6), lender != noInterface)...)
	// Deletions first: 10.0.0.1/24 keeps 10.0.0.1/25 out.
	for _, p := range present {
		if !slices.Contains(addresses, p) {
			add(address(have.index, p, false))
		}
	}
	for _, p := range addresses {
		if !slices.Contains(present, p) {
			add(address(have.index, p, true))
		}
	}
	if lender != noInterface && (moved || have.lender != lender) {
		add(unnumbered(have.index, lender, true))
	}
	if mtu := uint32(orDefault(want.MTU, defaultMTU)); have.mtu != mtu {
		add(&interfaces.SwInterfaceSetMtu{SwIfIndex: index, Mtu: []uint32{mtu, 0, 0, 0}}, new(interfaces.SwInterfaceSetMtuReply))
	}
	if have.admin != want.Enabled {
		add(&interfaces.SwInterfaceSetFlags{SwIfIndex: index, Flags: adminFlag(want.Enabled)}, new(interfaces.SwInterfaceSetFlagsReply))
	}
	todo = append(todo, settleNeighbors(want, have)...)
	if have.name != want.Name { // for whoever reads VPP's own tables; another interface may have the name already
		todo = append(todo, request{
			req:   &interfaces.SwInterfaceSetInterfaceName{SwIfIndex: index, Name: want.Name},
			reply: new(interfaces.SwInterfaceSetInterfaceNameReply), optional: true,
		})
	}
	return todo
}

func adminFlag(up bool) interface_types.IfStatusFlags {
	if up {
		return interface_types.IF_STATUS_API_FLAG_ADMIN_UP
	}
	return 0
}

func isIP6(p netip.Prefix) bool { return p.Addr().Is6() }

// settleIP6 enables IPv6 and sets the link-local address, or disables it when nothing needs it.
func settleIP6(have *observed, linkLocal netip.Addr, addresses, lent bool) []request {
	index := interface_types.InterfaceIndex(have.index)
	enable := func(on bool) request {
		return request{
			req:   &ip.SwInterfaceIP6EnableDisable{SwIfIndex: index, Enable: on},
			reply: new(ip.SwInterfaceIP6EnableDisableReply),
		}
	}
	switch {
	case linkLocal.IsValid() && have.linkLocal != linkLocal:
		var todo []request
		if !have.linkLocal.IsValid() {
			todo = append(todo, enable(true))
		}
		return append(todo, request{
			req:   &ip.SwInterfaceIP6SetLinkLocalAddress{SwIfIndex: index, IP: binapi.ToIP6(linkLocal)},
			reply: new(ip.SwInterfaceIP6SetLinkLocalAddressReply),
		})
	case !linkLocal.IsValid() && addresses && !have.linkLocal.IsValid():
		return []request{enable(true)}
	case !linkLocal.IsValid() && !addresses && !lent && have.linkLocal.IsValid():
		return []request{enable(false)}
	}
	return nil
}

// apply makes requests one after the other: each may need the one before.
func apply(ctx context.Context, s *session, todo []request) error {
	for _, r := range todo {
		err := s.call(ctx, r.req, r.reply)
		if err != nil && (!r.optional || !isRefusal(err)) {
			return err
		}
	}
	return nil
}

// createInterface makes an interface and marks it as ours.
func createInterface(ctx context.Context, s *session, cfg *Config, want *Interface, w *world) (uint32, error) {
	var index uint32
	var err error
	switch {
	case want.Loopback != nil:
		index, err = createLoopback(ctx, s, want)
	case want.Memif != nil:
		index, err = createMemif(ctx, s, want, w)
	}
	if err != nil {
		return 0, err
	}
	err = s.call(ctx, &interfaces.SwInterfaceTagAddDel{
		IsAdd: true, SwIfIndex: interface_types.InterfaceIndex(index), Tag: cfg.tag(want),
	}, new(interfaces.SwInterfaceTagAddDelReply))
	if err != nil && isRefusal(err) { // an interface that we could not recognize must not stay
		return 0, fmt.Errorf("%w (and then: %v)", err, deleteInterface(ctx, s, &observed{index: index, device: deviceOf(want)}))
	}
	return index, err
}

// Names of device classes in sw_interface_details.
const (
	deviceLoopback = "Loopback"
	deviceMemif    = "memif"
)

func deviceOf(i *Interface) string {
	if i.Memif != nil {
		return deviceMemif
	}
	return deviceLoopback
}

func deleteInterface(ctx context.Context, s *session, have *observed) error {
	index := interface_types.InterfaceIndex(have.index)
	switch have.device {
	case deviceLoopback:
		return s.call(ctx, &interfaces.DeleteLoopback{SwIfIndex: index}, new(interfaces.DeleteLoopbackReply))
	case deviceMemif:
		return deleteMemif(ctx, s, index)
	default:
		return fmt.Errorf("cannot delete an interface of kind %q", have.device)
	}
}
