package vppagent

import (
	"fmt"
	"net/netip"

	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
)

// The messages of routes. A million routes share some hundred sets of next hops, and differ in the prefix only. So govpp's codec
// encodes each set once, and a route's message is that with its own prefix written over: encoding each of them whole costs more
// than all else that is done for a route here.

// Offsets in an encoded ip_route_add_del_v2: u16 id, u32 client, u32 context, u8 is_add, u8 is_multipath, u32 table_id, u32
// stats_index, then the prefix.
const (
	offsetFamily  = 20
	offsetAddress = 21
	offsetLength  = 37
)

// routeShape is all of a route but its prefix. Routes that do the same share their slice of next hops, which its address then
// stands for; where they do not, there is a template more.
type routeShape struct {
	table  uint32
	kind   fib.Kind
	delete bool
	v4     bool
	hops   *fib.NextHop
	n      int
}

// template is an encoded message, and the routes' error when there can be none.
type template struct {
	data []byte
	err  error
}

// of returns the message for a prefix, valid until the next call.
func (t *template) of(p netip.Prefix) []byte {
	addr := t.data[offsetAddress : offsetAddress+16]
	if a := p.Addr(); a.Is4() {
		b := a.As4()
		copy(addr, b[:])
	} else {
		b := a.As16()
		copy(addr, b[:])
	}
	t.data[offsetLength] = byte(p.Bits())
	return t.data
}

// routeEncoder has the templates of one batch: next hops' addresses and interfaces' indexes do not change during one.
type routeEncoder struct {
	s         *session
	source    uint8
	indexes   map[string]uint32
	templates map[routeShape]*template
}

// template returns the one for a change. Its error is the change's.
func (e *routeEncoder) template(c *fib.Change) *template {
	shape := routeShape{table: c.Table, kind: c.Kind, delete: c.Delete, v4: c.Prefix.Addr().Is4()}
	if !c.Delete && len(c.NextHops) > 0 {
		shape.hops, shape.n = &c.NextHops[0], len(c.NextHops)
	}
	t := e.templates[shape]
	if t == nil {
		t = e.encode(c)
		e.templates[shape] = t
	}
	return t
}

func (e *routeEncoder) encode(c *fib.Change) *template {
	req := &ip.IPRouteAddDelV2{
		IsAdd: !c.Delete,
		Route: ip.IPRouteV2{TableID: c.Table, Prefix: binapi.ToPrefix(c.Prefix), Src: e.source},
	}
	if !c.Delete {
		paths, err := routePaths(&c.Route, e.indexes)
		if err != nil {
			return &template{err: err}
		}
		req.Route.Paths, req.Route.NPaths = paths, uint8(len(paths))
	}
	data, err := e.s.encode(req)
	return &template{data, err}
}

// backupPreference is a path's that VPP uses while none of preference 0 works.
const backupPreference = 1

// maxPaths is what the message's counter of paths holds.
const maxPaths = 255

func routePaths(r *fib.Route, indexes map[string]uint32) ([]fibPath, error) {
	special := func(t fib_types.FibPathType) ([]fibPath, error) {
		return []fibPath{binapi.ToPath(binapi.Path{Type: t, SwIfIndex: noInterface}, r.Prefix.Addr())}, nil
	}
	switch r.Kind {
	case fib.Unicast:
	case fib.Blackhole:
		return special(fib_types.FIB_API_PATH_TYPE_DROP)
	case fib.Unreachable:
		return special(fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH)
	case fib.Prohibit:
		return special(fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT)
	default:
		return nil, fmt.Errorf("route of kind %d cannot be written", r.Kind)
	}
	if len(r.NextHops) == 0 || len(r.NextHops) > maxPaths {
		return nil, fmt.Errorf("route has %d next hops, between 1 and %d fit", len(r.NextHops), maxPaths)
	}
	paths := make([]fibPath, 0, len(r.NextHops))
	for _, h := range r.NextHops {
		p := binapi.Path{Addr: h.Addr, SwIfIndex: noInterface, TableID: r.Table, Weight: h.Weight}
		if h.Backup {
			p.Preference = backupPreference
		}
		if h.Interface != "" {
			index, ok := indexes[h.Interface]
			if !ok {
				return nil, fmt.Errorf("%s: %w", h.Interface, fib.ErrNoInterface)
			}
			p.SwIfIndex = index
		}
		paths = append(paths, binapi.ToPath(p, r.Prefix.Addr()))
	}
	return paths, nil
}
