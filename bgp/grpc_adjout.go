package bgp

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// This file is a neighbour's Adj-RIB-Out for GoBGP's API: what it has been told, which GoBGP itself does not know.

// toldPath is a path as a neighbour has been told it.
type toldPath struct {
	key   outKey
	nlri  bgp.NLRI
	attrs []bgp.PathAttributeInterface
}

// told returns the paths of a family that the neighbour has been told, by prefix.
func (t *teller) told(f Family, wanted func(netip.Prefix) bool) ([]toldPath, error) {
	type entry struct {
		key outKey
		set *attrSet
	}
	t.mu.Lock()
	o := t.out
	t.mu.Unlock()
	o.mu.Lock()
	var all []entry
	for key, a := range o.at {
		if key.family() == f && o.tellers[t] && t.sent.has(a.slot) && a.set != nil && wanted(key.prefix) {
			all = append(all, entry{key, a.set})
		}
	}
	o.mu.Unlock()
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(comparePrefixes(a.key.prefix, b.key.prefix), cmp.Compare(a.key.id, b.key.id))
	})
	id := t.shape.idsOut(f.wire()) > 0
	options := &bgp.MarshallingOption{ExtendedMessage: true, AddPath: map[bgp.Family]bgp.BGPAddPathMode{}}
	if id {
		options.AddPath[f.wire()] = bgp.BGP_ADD_PATH_RECEIVE
	}
	var paths []toldPath
	for _, e := range all {
		hop := t.shape.hop(e.set)
		msg := t.shape.pack(nil, f, t.shape.dress(e.set, hop), hop, e.key.appendTo(nil, id))
		if len(hop) == 0 || len(msg) == 0 {
			continue
		}
		m, err := bgp.ParseBGPMessage(msg, options)
		if err != nil {
			return nil, err
		}
		nlri, err := bgp.NewIPAddrPrefix(e.key.prefix)
		if err != nil {
			return nil, err
		}
		paths = append(paths, toldPath{e.key, nlri, m.Body.(*bgp.BGPUpdate).PathAttributes})
	}
	return paths, nil
}

// lookups selects the prefixes that a request asks for; none asks for all.
func lookups(l []*api.TableLookupPrefix) (func(netip.Prefix) bool, error) {
	if len(l) == 0 {
		return func(netip.Prefix) bool { return true }, nil
	}
	type lookup struct {
		typ    api.TableLookupPrefix_Type
		prefix netip.Prefix
	}
	var all []lookup
	for _, one := range l {
		p, err := netip.ParsePrefix(one.GetPrefix())
		if err != nil {
			a, err := netip.ParseAddr(one.GetPrefix())
			if err != nil {
				return nil, status.Errorf(codes.InvalidArgument, "%q is no prefix", one.GetPrefix())
			}
			all = append(all, lookup{api.TableLookupPrefix_TYPE_SHORTER, netip.PrefixFrom(a, a.BitLen())})
			continue
		}
		all = append(all, lookup{one.GetType(), p.Masked()})
	}
	return func(p netip.Prefix) bool {
		return slices.ContainsFunc(all, func(l lookup) bool {
			switch l.typ {
			case api.TableLookupPrefix_TYPE_LONGER:
				return l.prefix.Overlaps(p) && p.Bits() >= l.prefix.Bits()
			case api.TableLookupPrefix_TYPE_SHORTER:
				return l.prefix.Overlaps(p) && p.Bits() <= l.prefix.Bits()
			}
			return l.prefix == p
		})
	}, nil
}

func (g *gateway) listAdjOut(r *api.ListPathRequest, stream grpc.ServerStreamingServer[api.ListPathResponse]) error {
	p, err := g.named(r.GetName())
	if err != nil {
		return err
	}
	wanted, err := lookups(r.GetPrefixes())
	if err != nil {
		return err
	}
	t, family := p.telling.Load(), familyOf(bgp.NewFamily(uint16(r.GetFamily().GetAfi()), uint8(r.GetFamily().GetSafi())))
	if t == nil || family == 0 {
		return nil
	}
	paths, err := t.told(family, wanted)
	if err != nil {
		return status.Errorf(codes.Internal, "adj-out: %v", err)
	}
	for i := 0; i < len(paths); {
		d := &api.Destination{Prefix: paths[i].key.prefix.String()}
		for first := paths[i].key.prefix; i < len(paths) && paths[i].key.prefix == first; i++ {
			one, err := paths[i].message(r, family)
			if err != nil {
				return status.Errorf(codes.Internal, "adj-out: %s: %v", d.Prefix, err)
			}
			d.Paths = append(d.Paths, one)
		}
		if err := stream.Send(&api.ListPathResponse{Destination: d}); err != nil {
			return err
		}
	}
	return nil
}

// message is the path as the API has it.
func (p toldPath) message(r *api.ListPathRequest, f Family) (*api.Path, error) {
	m := &api.Path{Family: apiFamily(f), Best: true, LocalIdentifier: p.key.id, Age: timestamppb.Now()}
	var err error
	if !r.GetEnableOnlyBinary() {
		if m.Nlri, err = apiutil.MarshalNLRI(p.nlri); err != nil {
			return nil, err
		}
		if m.Pattrs, err = apiutil.MarshalPathAttributes(p.attrs); err != nil {
			return nil, err
		}
	}
	if r.GetEnableOnlyBinary() || r.GetEnableNlriBinary() {
		if m.NlriBinary, err = p.nlri.Serialize(); err != nil {
			return nil, err
		}
	}
	if r.GetEnableOnlyBinary() || r.GetEnableAttributeBinary() {
		for _, a := range p.attrs {
			b, err := a.Serialize()
			if err != nil {
				return nil, err
			}
			m.PattrsBinary = append(m.PattrsBinary, b)
		}
	}
	return m, nil
}

// GetTable counts; GoBGP does not know of what neighbours are told.
func (g *gateway) GetTable(ctx context.Context, r *api.GetTableRequest) (*api.GetTableResponse, error) {
	if r.GetTableType() != api.TableType_TABLE_TYPE_ADJ_OUT {
		r.Name = g.inward(r.GetName())
		return g.GoBgpServiceServer.GetTable(ctx, r)
	}
	p, err := g.named(r.GetName())
	if err != nil {
		return nil, err
	}
	answer := &api.GetTableResponse{}
	if t, f := p.telling.Load(), familyOf(bgp.NewFamily(uint16(r.GetFamily().GetAfi()), uint8(r.GetFamily().GetSafi()))); t != nil && f != 0 {
		paths, err := t.told(f, func(netip.Prefix) bool { return true })
		if err != nil {
			return nil, status.Errorf(codes.Internal, "adj-out: %v", err)
		}
		for i := range paths {
			if answer.NumPath++; i == 0 || paths[i].key.prefix != paths[i-1].key.prefix {
				answer.NumDestination++
			}
		}
	}
	return answer, nil
}
