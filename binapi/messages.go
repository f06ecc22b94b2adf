// Package binapi says which messages of VPP's binary API the router speaks, checks at connect that a VPP has them, and
// converts between the API's types and net/netip.
//
// The messages are those of go.fd.io/govpp/binapi in the version that go.mod pins: a message is its name and the CRC of its
// definition, and a VPP whose CRC differs would read our bytes differently. So the check is by name and CRC, never by VPP's
// version number. Messages are grouped by feature: without a required one the router does not start on that VPP; without
// an optional one (a plugin that is not loaded, say) only the feature is missing.
package binapi

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/bfd"
	"go.fd.io/govpp/binapi/classify"
	"go.fd.io/govpp/binapi/fib"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip6_nd"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/binapi/mss_clamp"
	"go.fd.io/govpp/binapi/session"
	"go.fd.io/govpp/binapi/urpf"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/binapi/vpe"
)

// Feature names a group of messages that the router uses together.
type Feature string

// The features, in the order of Features.
const (
	System    Feature = "system"    // identity, version, liveness, command line
	Interface Feature = "interface" // listing, state, MTU, tags, names, events
	Loopback  Feature = "loopback"
	Memif     Feature = "memif" // a plugin of VPP
	Address   Feature = "address"
	Neighbor  Feature = "neighbor"
	Table     Feature = "table"     // FIB tables, for VRFs
	Route     Feature = "route"     // routes with a FIB source of our own
	Session   Feature = "session"   // application namespaces, for TCP of VPP that is bound to an interface
	Probe     Feature = "probe"     // ping and traceroute through a memif of the router's own
	Advertise Feature = "advertise" // router advertisements, for BGP neighbours without an address
	Fragments Feature = "fragments" // how often VPP looks for fragments that wait too long
	ACL       Feature = "acl"       // packet filters: a plugin of VPP
	MSSClamp  Feature = "mss-clamp" // TCP's segments fit a link: a plugin of VPP
	URPF      Feature = "urpf"      // sources without a way back are refused: a plugin of VPP
	FlowHash  Feature = "flow-hash" // what tells flows apart, where a route has several paths
	BFD       Feature = "bfd"       // who is silent is found in milliseconds
)

// Need says whether the router can do without a feature.
type Need uint8

// Needs.
const (
	Required Need = iota
	Optional
)

func (n Need) String() string {
	if n == Optional {
		return "optional"
	}
	return "required"
}

// Group is a feature with its messages: requests, replies, details and events.
type Group struct {
	Feature  Feature
	Need     Need
	Messages []api.Message
}

// Groups returns every feature with its messages, in a fixed order. The result is the caller's.
func Groups() []Group {
	return []Group{
		{System, Required, []api.Message{
			new(memclnt.ControlPing), new(memclnt.ControlPingReply),
			new(vpe.ShowVersion), new(vpe.ShowVersionReply),
			new(vpe.ShowVpeSystemTime), new(vpe.ShowVpeSystemTimeReply),
			new(vlib.CliInband), new(vlib.CliInbandReply),
		}},
		{Interface, Required, []api.Message{
			new(interfaces.SwInterfaceDump), new(interfaces.SwInterfaceDetails),
			new(interfaces.SwInterfaceSetFlags), new(interfaces.SwInterfaceSetFlagsReply),
			new(interfaces.SwInterfaceSetMtu), new(interfaces.SwInterfaceSetMtuReply),
			new(interfaces.HwInterfaceSetMtu), new(interfaces.HwInterfaceSetMtuReply),
			new(interfaces.SwInterfaceTagAddDel), new(interfaces.SwInterfaceTagAddDelReply),
			new(interfaces.SwInterfaceSetInterfaceName), new(interfaces.SwInterfaceSetInterfaceNameReply),
			new(interfaces.SwInterfaceSetTable), new(interfaces.SwInterfaceSetTableReply),
			new(interfaces.SwInterfaceGetTable), new(interfaces.SwInterfaceGetTableReply),
			new(interfaces.SwInterfaceSetMacAddress), new(interfaces.SwInterfaceSetMacAddressReply),
			new(interfaces.SwInterfaceSetRxMode), new(interfaces.SwInterfaceSetRxModeReply),
			new(interfaces.WantInterfaceEvents), new(interfaces.WantInterfaceEventsReply),
			new(interfaces.SwInterfaceEvent),
		}},
		{Loopback, Required, []api.Message{
			new(interfaces.CreateLoopback), new(interfaces.CreateLoopbackReply),
			new(interfaces.CreateLoopbackInstance), new(interfaces.CreateLoopbackInstanceReply),
			new(interfaces.DeleteLoopback), new(interfaces.DeleteLoopbackReply),
		}},
		{Memif, Optional, []api.Message{
			new(memif.MemifSocketFilenameAddDelV2), new(memif.MemifSocketFilenameAddDelV2Reply),
			new(memif.MemifSocketFilenameDump), new(memif.MemifSocketFilenameDetails),
			new(memif.MemifCreateV2), new(memif.MemifCreateV2Reply),
			new(memif.MemifDelete), new(memif.MemifDeleteReply),
			new(memif.MemifDump), new(memif.MemifDetails),
		}},
		{Address, Required, []api.Message{
			new(interfaces.SwInterfaceAddDelAddress), new(interfaces.SwInterfaceAddDelAddressReply),
			new(ip.IPAddressDump), new(ip.IPAddressDetails),
			new(ip.SwInterfaceIP6EnableDisable), new(ip.SwInterfaceIP6EnableDisableReply),
			new(ip.SwInterfaceIP6SetLinkLocalAddress), new(ip.SwInterfaceIP6SetLinkLocalAddressReply),
			new(ip.SwInterfaceIP6GetLinkLocalAddress), new(ip.SwInterfaceIP6GetLinkLocalAddressReply),
			new(interfaces.SwInterfaceSetUnnumbered), new(interfaces.SwInterfaceSetUnnumberedReply),
			new(ip.IPUnnumberedDump), new(ip.IPUnnumberedDetails),
		}},
		{Neighbor, Required, []api.Message{
			new(ip_neighbor.IPNeighborAddDel), new(ip_neighbor.IPNeighborAddDelReply),
			new(ip_neighbor.IPNeighborDump), new(ip_neighbor.IPNeighborDetails),
			new(ip_neighbor.WantIPNeighborEventsV2), new(ip_neighbor.WantIPNeighborEventsV2Reply),
			new(ip_neighbor.IPNeighborEventV2),
		}},
		{Table, Required, []api.Message{
			new(ip.IPTableAddDel), new(ip.IPTableAddDelReply),
			new(ip.IPTableDump), new(ip.IPTableDetails),
		}},
		{Route, Required, []api.Message{
			new(fib.FibSourceDump), new(fib.FibSourceDetails),
			new(fib.FibSourceAdd), new(fib.FibSourceAddReply),
			new(ip.IPRouteAddDelV2), new(ip.IPRouteAddDelV2Reply),
			new(ip.IPRouteV2Dump), new(ip.IPRouteV2Details),
			new(ip.IPRouteLookupV2), new(ip.IPRouteLookupV2Reply),
		}},
		{Session, Optional, []api.Message{ // minivpp has a TCP of its own
			new(session.AppNamespaceAddDelV4), new(session.AppNamespaceAddDelV4Reply),
		}},
		{Probe, Optional, []api.Message{
			new(ip.AddDelIPPuntRedirectV2), new(ip.AddDelIPPuntRedirectV2Reply),
			new(ip.IPPuntRedirectV2Dump), new(ip.IPPuntRedirectV2Details),
			new(ip.IPTableAllocate), new(ip.IPTableAllocateReply),
			new(ip.IPTableFlush), new(ip.IPTableFlushReply),
			new(classify.ClassifyAddDelTable), new(classify.ClassifyAddDelTableReply),
			new(classify.ClassifyAddDelSession), new(classify.ClassifyAddDelSessionReply),
			new(classify.ClassifySessionDump), new(classify.ClassifySessionDetails),
			new(classify.ClassifyTableByInterface), new(classify.ClassifyTableByInterfaceReply),
			new(classify.ClassifyTableInfo), new(classify.ClassifyTableInfoReply),
			new(classify.InputACLSetInterface), new(classify.InputACLSetInterfaceReply),
		}},
		{Advertise, Optional, []api.Message{
			new(ip6_nd.SwInterfaceIP6ndRaConfig), new(ip6_nd.SwInterfaceIP6ndRaConfigReply),
			new(ip6_nd.WantIP6RaEvents), new(ip6_nd.WantIP6RaEventsReply),
			new(ip6_nd.IP6RaEvent),
		}},
		{MSSClamp, Optional, []api.Message{
			new(mss_clamp.MssClampEnableDisable), new(mss_clamp.MssClampEnableDisableReply),
		}},
		{URPF, Optional, []api.Message{
			new(urpf.UrpfUpdate), new(urpf.UrpfUpdateReply),
		}},
		{FlowHash, Optional, []api.Message{
			new(ip.SetIPFlowHashV2), new(ip.SetIPFlowHashV2Reply),
		}},
		{Fragments, Optional, []api.Message{
			new(ip.IPReassemblyGet), new(ip.IPReassemblyGetReply),
			new(ip.IPReassemblySet), new(ip.IPReassemblySetReply),
		}},
		{ACL, Optional, []api.Message{
			new(acl.ACLAddReplace), new(acl.ACLAddReplaceReply),
			new(acl.ACLDel), new(acl.ACLDelReply),
			new(acl.ACLDump), new(acl.ACLDetails),
			new(acl.ACLInterfaceSetACLList), new(acl.ACLInterfaceSetACLListReply),
			new(acl.ACLInterfaceListDump), new(acl.ACLInterfaceListDetails),
			new(acl.ACLPluginGetConnTableMaxEntries), new(acl.ACLPluginGetConnTableMaxEntriesReply),
			new(acl.ACLStatsIntfCountersEnable), new(acl.ACLStatsIntfCountersEnableReply),
		}},
		{BFD, Optional, []api.Message{
			new(bfd.BfdUDPAdd), new(bfd.BfdUDPAddReply),
			new(bfd.BfdUDPMod), new(bfd.BfdUDPModReply),
			new(bfd.BfdUDPDel), new(bfd.BfdUDPDelReply),
			new(bfd.BfdUDPSessionSetFlags), new(bfd.BfdUDPSessionSetFlagsReply),
			new(bfd.BfdUDPSessionDump), new(bfd.BfdUDPSessionDetails),
			new(bfd.WantBfdEvents), new(bfd.WantBfdEventsReply),
			new(bfd.BfdUDPSessionEvent),
		}},
	}
}

// Messages returns the messages of every feature, required and optional: what api.Channel's CheckCompatiblity takes.
func Messages() []api.Message {
	var all []api.Message
	for _, g := range Groups() {
		all = append(all, g.Messages...)
	}
	return all
}
