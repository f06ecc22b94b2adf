package bgp

import (
	"context"
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
	refuse(c.GetAllowOwnAsn() > 10, "allow_own_asn above 10")
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
		AllowOwnAS:           uint8(min(c.GetAllowOwnAsn(), 10)),
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

// settingsOf reads a group of GoBGP's API, whose settings are a neighbour's.
func (g *gateway) settingsOf(m *api.PeerGroup) (name string, settings Neighbor, err error) {
	c := m.GetConf()
	settings, err = g.neighborOf(&api.Peer{
		ApplyPolicy: m.GetApplyPolicy(), EbgpMultihop: m.GetEbgpMultihop(), RouteReflector: m.GetRouteReflector(), Timers: m.GetTimers(),
		Transport: m.GetTransport(), RouteServer: m.GetRouteServer(), AfiSafis: m.GetAfiSafis(), TtlSecurity: m.GetTtlSecurity(),
		Conf: &api.PeerConf{
			AuthPassword: c.GetAuthPassword(), LocalAsn: c.GetLocalAsn(), PeerAsn: c.GetPeerAsn(), RemovePrivate: c.GetRemovePrivate(),
			RouteFlapDamping: c.GetRouteFlapDamping(), AllowOwnAsn: c.GetAllowOwnAsn(), ReplacePeerAsn: c.GetReplacePeerAsn(),
		},
	})
	return c.GetPeerGroupName(), settings, err
}

func (g *gateway) AddPeerGroup(_ context.Context, r *api.AddPeerGroupRequest) (*api.AddPeerGroupResponse, error) {
	name, settings, err := g.settingsOf(r.GetPeerGroup())
	if err != nil {
		return nil, err
	}
	return &api.AddPeerGroupResponse{}, code(g.manage.AddGroup(name, settings))
}

// UpdatePeerGroup replaces a group's settings, and so those of its neighbours.
func (g *gateway) UpdatePeerGroup(_ context.Context, r *api.UpdatePeerGroupRequest) (*api.UpdatePeerGroupResponse, error) {
	name, settings, err := g.settingsOf(r.GetPeerGroup())
	if err != nil {
		return nil, err
	}
	return &api.UpdatePeerGroupResponse{}, code(g.manage.ReplaceGroup(name, settings))
}

func (g *gateway) DeletePeerGroup(_ context.Context, r *api.DeletePeerGroupRequest) (*api.DeletePeerGroupResponse, error) {
	return &api.DeletePeerGroupResponse{}, code(g.manage.DeleteGroup(r.GetName()))
}

func (g *gateway) AddDynamicNeighbor(_ context.Context, r *api.AddDynamicNeighborRequest) (*api.AddDynamicNeighborResponse, error) {
	p, err := dynamicPrefix(r.GetDynamicNeighbor().GetPrefix())
	if err != nil {
		return nil, err
	}
	return &api.AddDynamicNeighborResponse{}, code(g.manage.AddDynamic(p, r.GetDynamicNeighbor().GetPeerGroup()))
}

func (g *gateway) DeleteDynamicNeighbor(_ context.Context, r *api.DeleteDynamicNeighborRequest) (*api.DeleteDynamicNeighborResponse, error) {
	p, err := dynamicPrefix(r.GetPrefix())
	if err != nil {
		return nil, err
	}
	return &api.DeleteDynamicNeighborResponse{}, code(g.manage.DeleteDynamic(p))
}

func dynamicPrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, status.Errorf(codes.InvalidArgument, "%q is no prefix", text)
	}
	return p, nil
}
