package bgp

import (
	"net/netip"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// neighborOf reads a neighbour of GoBGP's API. What this router cannot do is refused: a setting that is dropped in silence is
// one that somebody relies on.
func (g *gateway) neighborOf(m *api.Peer) (Neighbor, error) {
	c := m.GetConf()
	var cannot []string
	refuse := func(is bool, what string) {
		if is {
			cannot = append(cannot, what)
		}
	}
	refuse(c.GetAuthPassword() != "", "auth_password (no TCP-MD5)")
	refuse(c.GetLocalAsn() != 0 && c.GetLocalAsn() != g.s.local.as, "local_asn other than the router's")
	refuse(c.GetVrf() != "", "vrf")
	refuse(c.GetAllowOwnAsn() != 0, "allow_own_asn")
	refuse(c.GetRemovePrivate() != api.RemovePrivate_REMOVE_PRIVATE_UNSPECIFIED, "remove_private")
	refuse(c.GetReplacePeerAsn(), "replace_peer_asn")
	refuse(c.GetRouteFlapDamping(), "route_flap_damping")
	refuse(c.GetAllowAspathLoopLocal(), "allow_aspath_loop_local")
	refuse(m.GetRouteServer().GetRouteServerClient(), "route_server_client")
	refuse(m.GetTtlSecurity().GetEnabled(), "ttl_security")
	refuse(m.GetBfd().GetEnabled(), "bfd")
	refuse(m.GetTransport().GetBindInterface() != "", "bind_interface (use neighbor_interface)")
	p := m.GetApplyPolicy()
	refuse(len(p.GetImportPolicy().GetPolicies())+len(p.GetExportPolicy().GetPolicies()) > 0, "apply_policy")
	if id := m.GetRouteReflector().GetRouteReflectorClusterId(); id != "" {
		refuse(m.GetRouteReflector().GetRouteReflectorClient() && id != g.s.local.cluster.String(), "a cluster id other than the router's")
	}
	n := Neighbor{
		Interface: c.GetNeighborInterface(), AS: c.GetPeerAsn(), Group: c.GetPeerGroup(), Disabled: c.GetAdminDown(),
		Passive:              m.GetTransport().GetPassiveMode(),
		HoldTime:             time.Duration(m.GetTimers().GetConfig().GetHoldTime()) * time.Second,
		ConnectRetry:         time.Duration(m.GetTimers().GetConfig().GetConnectRetry()) * time.Second,
		RouteReflectorClient: m.GetRouteReflector().GetRouteReflectorClient(),
		Multihop:             m.GetEbgpMultihop().GetEnabled(),
	}
	for _, f := range m.GetAfiSafis() {
		wire := f.GetConfig().GetFamily()
		family := familyOf(bgp.NewFamily(uint16(wire.GetAfi()), uint8(wire.GetSafi())))
		refuse(family == 0, "a family other than unicast of IPv4 and IPv6")
		if family != 0 {
			n.Families = append(n.Families, family)
		}
	}
	if len(cannot) > 0 {
		return n, status.Errorf(codes.Unimplemented, "this router has not: %s", strings.Join(cannot, ", "))
	}
	var err error
	if text := c.GetNeighborAddress(); text != "" {
		if n.Address, err = netip.ParseAddr(text); err != nil {
			return n, status.Errorf(codes.InvalidArgument, "neighbor address %q is no address", text)
		}
		if zone := n.Address.Zone(); zone != "" {
			n.Address, n.Interface = n.Address.WithZone(""), zone
		}
	}
	if text := m.GetTransport().GetLocalAddress(); text != "" {
		local, err := netip.ParseAddr(text)
		if err != nil {
			return n, status.Errorf(codes.InvalidArgument, "local address %q is no address", text)
		}
		if !local.IsUnspecified() {
			n.LocalAddress = local.WithZone("")
		}
	}
	return n, nil
}
