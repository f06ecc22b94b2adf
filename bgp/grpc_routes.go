package bgp

import (
	"context"
	"fmt"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file is about routes that others put in by GoBGP's API; injected.go has what becomes of them.

// ours says why a path is none for others to change; nil if it is.
func (g *gateway) ours(table api.TableType, vrf string, path *api.Path) error {
	f := path.GetFamily()
	family := familyOf(bgp.NewFamily(uint16(f.GetAfi()), uint8(f.GetSafi())))
	if (table != api.TableType_TABLE_TYPE_GLOBAL && table != api.TableType_TABLE_TYPE_UNSPECIFIED) || vrf != "" {
		return status.Error(codes.Unimplemented, "routes are only added to, and deleted from, the global table")
	}
	if family == 0 {
		return status.Error(codes.Unimplemented, "this router has unicast routes of IPv4 and IPv6 only")
	}
	if path.GetNeighborIp() != "" {
		return status.Error(codes.InvalidArgument, "a route that is added here is the router's own, and not a neighbor's")
	}
	nlri, err := apiutil.GetNativeNlri(path)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "prefix: %v", err)
	}
	p, ok := prefixOf(nlri)
	switch {
	case !ok || p.Addr().Is4() != (family == IPv4):
		return status.Error(codes.InvalidArgument, "the route has no prefix of its family")
	case g.s.originated(p):
		return status.Errorf(codes.FailedPrecondition, "the router announces %s by its configuration (bgp.originate or bgp.redistribute): change it there", p)
	}
	return nil
}

func (g *gateway) AddPath(ctx context.Context, r *api.AddPathRequest) (*api.AddPathResponse, error) {
	if err := g.ours(r.GetTableType(), r.GetVrfId(), r.GetPath()); err != nil {
		return nil, err
	}
	return g.GoBgpServiceServer.AddPath(ctx, r)
}

// receiver looks at what a streaming method receives.
type receiver struct {
	grpc.ClientStreamingServer[api.AddPathStreamRequest, api.AddPathStreamResponse]
	check func(*api.AddPathStreamRequest) error
}

func (r receiver) Recv() (*api.AddPathStreamRequest, error) {
	m, err := r.ClientStreamingServer.Recv()
	if err == nil {
		err = r.check(m)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (g *gateway) AddPathStream(stream grpc.ClientStreamingServer[api.AddPathStreamRequest, api.AddPathStreamResponse]) error {
	return g.GoBgpServiceServer.AddPathStream(receiver{stream, func(m *api.AddPathStreamRequest) error {
		for _, p := range m.GetPaths() {
			if err := g.ours(m.GetTableType(), m.GetVrfId(), p); err != nil {
				return err
			}
		}
		return nil
	}})
}

// DeletePath deletes a route, or all that were added here.
func (g *gateway) DeletePath(ctx context.Context, r *api.DeletePathRequest) (*api.DeletePathResponse, error) {
	if len(r.GetUuid()) > 0 {
		return g.GoBgpServiceServer.DeletePath(ctx, r)
	}
	if r.GetPath() != nil {
		if err := g.ours(r.GetTableType(), r.GetVrfId(), r.GetPath()); err != nil {
			return nil, err
		}
		return g.GoBgpServiceServer.DeletePath(ctx, r)
	}
	wanted := bgp.NewFamily(uint16(r.GetFamily().GetAfi()), uint8(r.GetFamily().GetSafi()))
	for _, family := range []Family{IPv4, IPv6} {
		if r.GetFamily() != nil && familyOf(wanted) != family {
			continue
		}
		var own []*apiutil.Path
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family.wire()}
		err := g.r.gobgp.ListPath(req, func(nlri bgp.NLRI, paths []*apiutil.Path) {
			p, ok := prefixOf(nlri)
			for _, path := range paths {
				if ok && !path.PeerAddress.IsValid() && !g.s.originated(p) {
					own = append(own, path)
				}
			}
		})
		if err == nil && len(own) > 0 {
			err = g.r.gobgp.DeletePath(apiutil.DeletePathRequest{Paths: own})
		}
		if err != nil {
			return nil, fmt.Errorf("delete %s routes: %w", family, err)
		}
	}
	return &api.DeletePathResponse{}, nil
}
