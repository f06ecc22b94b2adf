package minivpp

import (
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/bfd"
	"go.fd.io/govpp/binapi/fib"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip6_nd"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/binapi/mss_clamp"
	"go.fd.io/govpp/binapi/ping"
	"go.fd.io/govpp/binapi/urpf"
)

// modules is everything that the API offers.
func (s *Server) modules() []module {
	return []module{
		s.memclntModule(),
		s.vpeModule(),
		s.vlibModule(),
		{interfaces.APIFile, interfaces.APIVersion, interfaces.VersionCrc, []group{
			dump(s.swInterfaceDump),
			unary(s.swInterfaceSetFlags),
			unary(s.swInterfaceSetMtu),
			unary(s.hwInterfaceSetMtu),
			unary(s.swInterfaceTagAddDel),
			unary(s.swInterfaceSetInterfaceName),
			unary(s.swInterfaceSetMacAddress),
			unary(s.swInterfaceGetMacAddress),
			unary(s.swInterfaceSetRxMode),
			dump(s.swInterfaceRxPlacementDump),
			unary(s.swInterfaceSetTable),
			unary(s.swInterfaceGetTable),
			unary(s.swInterfaceClearStats),
			unary(s.wantInterfaceEvents),
			event((*interfaces.SwInterfaceEvent)(nil)),
			unary(s.createLoopback),
			unary(s.createLoopbackInstance),
			unary(s.deleteLoopback),
			unary(s.swInterfaceAddDelAddress),
			unary(s.swInterfaceSetUnnumbered),
		}},
		{ip.APIFile, ip.APIVersion, ip.VersionCrc, []group{
			dump(s.ipAddressDump),
			dump(s.ipDump),
			dump(s.ipUnnumberedDump),
			unary(s.swInterfaceIP6EnableDisable),
			unary(s.swInterfaceIP6SetLinkLocalAddress),
			unary(s.swInterfaceIP6GetLinkLocalAddress),
			unary(s.ipTableAddDel),
			unary(s.ipTableAddDelV2),
			unary(s.ipTableAllocate),
			unary(s.ipTableFlush),
			unary(s.setIPFlowHash),
			unary(s.setIPFlowHashV2),
			dump(s.ipTableDump),
			unary(s.ipRouteAddDel),
			unary(s.ipRouteAddDelV2),
			dump(s.ipRouteDump),
			dump(s.ipRouteV2Dump),
			unary(s.ipRouteLookup),
			unary(s.ipRouteLookupV2),
		}},
		{fib.APIFile, fib.APIVersion, fib.VersionCrc, []group{
			unary(s.fibSourceAdd),
			dump(s.fibSourceDump),
		}},
		{ip_neighbor.APIFile, ip_neighbor.APIVersion, ip_neighbor.VersionCrc, []group{
			unary(s.ipNeighborAddDel),
			dump(s.ipNeighborDump),
			unary(s.ipNeighborFlush),
			unary(s.ipNeighborConfig),
			unary(s.ipNeighborConfigGet),
			unary(s.wantIPNeighborEvents),
			event((*ip_neighbor.IPNeighborEvent)(nil)),
			unary(s.wantIPNeighborEventsV2),
			event((*ip_neighbor.IPNeighborEventV2)(nil)),
		}},
		{ip6_nd.APIFile, ip6_nd.APIVersion, ip6_nd.VersionCrc, []group{
			unary(s.swInterfaceIP6ndRaConfig),
			unary(s.wantIP6RaEvents),
			event((*ip6_nd.IP6RaEvent)(nil)),
		}},
		{memif.APIFile, memif.APIVersion, memif.VersionCrc, []group{
			unary(s.memifSocketFilenameAddDel),
			unary(s.memifSocketFilenameAddDelV2),
			dump(s.memifSocketFilenameDump),
			unary(s.memifCreate),
			unary(s.memifCreateV2),
			unary(s.memifDelete),
			dump(s.memifDump),
		}},
		{mss_clamp.APIFile, mss_clamp.APIVersion, mss_clamp.VersionCrc, []group{unary(s.mssClampEnableDisable)}},
		{urpf.APIFile, urpf.APIVersion, urpf.VersionCrc, []group{unary(s.urpfUpdate), unary(s.urpfUpdateV2)}},
		{acl.APIFile, acl.APIVersion, acl.VersionCrc, []group{
			unary(s.aclPluginGetVersion),
			unary(s.aclPluginGetConnTableMaxEntries),
			unaryInside(s.aclAddReplace),
			unary(s.aclDel),
			unary(s.aclInterfaceSetACLList),
			dump(s.aclDump),
			dump(s.aclInterfaceListDump),
			unary(s.aclStatsIntfCountersEnable),
		}},
		{bfd.APIFile, bfd.APIVersion, bfd.VersionCrc, []group{
			unary(s.bfdUDPAdd),
			unary(s.bfdUDPMod),
			unary(s.bfdUDPDel),
			unary(s.bfdUDPSessionSetFlags),
			dump(s.bfdUDPSessionDump),
			unary(s.wantBfdEvents),
			event((*bfd.BfdUDPSessionEvent)(nil)),
		}},
		{ping.APIFile, ping.APIVersion, ping.VersionCrc, []group{
			unary(s.wantPingFinishedEvents),
			event((*ping.PingFinishedEvent)(nil)),
		}},
	}
}
