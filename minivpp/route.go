package minivpp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// Routes, FIB sources and FIB tables: the unicast part of ip.api, and fib.api.

func (s *Server) ipRouteAddDel(_ *client, q *ip.IPRouteAddDel, r *ip.IPRouteAddDelReply) error {
	var err error
	r.StatsIndex, err = s.routeAddDel(q.IsAdd, q.IsMultipath, ip.IPRouteV2{
		TableID: q.Route.TableID, Prefix: q.Route.Prefix, Paths: q.Route.Paths,
	})
	return err
}

func (s *Server) ipRouteAddDelV2(_ *client, q *ip.IPRouteAddDelV2, r *ip.IPRouteAddDelV2Reply) error {
	var err error
	r.StatsIndex, err = s.routeAddDel(q.IsAdd, q.IsMultipath, q.Route)
	return err
}

func (s *Server) routeAddDel(add, multipath bool, route ip.IPRouteV2) (statsIndex uint32, err error) {
	const none = ^uint32(0)
	update := plane.RouteUpdate{Source: route.Src, Multipath: multipath}
	if len(route.Paths) > 0 {
		update.Paths = make([]plane.Path, len(route.Paths))
	}
	for i, p := range route.Paths {
		if update.Paths[i], err = toPath(p); err != nil {
			return none, err
		}
	}
	pfx := binapi.FromPrefix(route.Prefix) // VPP too takes host bits and forgets them
	if !pfx.IsValid() {
		return none, api.INVALID_PREFIX_LENGTH
	}
	if !add {
		_, err := s.DelRoute(route.TableID, pfx, update)
		return none, err
	}
	return s.AddRoute(route.TableID, pfx, update)
}

func toPath(in fib_types.FibPath) (plane.Path, error) {
	p, err := binapi.FromPath(in)
	if errors.Is(err, binapi.ErrPath) {
		return plane.Path{}, api.UNIMPLEMENTED
	}
	return plane.Path{
		Type: plane.PathType(p.Type), Addr: p.Addr, SwIfIndex: p.SwIfIndex, TableID: p.TableID,
		Weight: p.Weight, Preference: p.Preference, Flags: uint8(p.Flags),
	}, err
}

// fromPaths converts for a dump. VPP's own dumps leave the fields of other path types 0.
func fromPaths(paths []plane.Path, dst netip.Addr) []fib_types.FibPath {
	out := make([]fib_types.FibPath, len(paths))
	for i, p := range paths {
		out[i] = binapi.ToPath(binapi.Path{
			Type: fib_types.FibPathType(p.Type), Addr: p.Addr, SwIfIndex: p.SwIfIndex, TableID: p.TableID,
			Weight: p.Weight, Preference: p.Preference, Flags: fib_types.FibPathFlags(p.Flags),
		}, dst)
		out[i].Nh.ViaLabel, out[i].Nh.ObjID, out[i].Nh.ClassifyTableIndex = 0, 0, 0
	}
	return out
}

// routeV2 converts an entry: the best source, and its paths.
func routeV2(e plane.RouteEntry) ip.IPRouteV2 {
	r := ip.IPRouteV2{
		TableID: e.Table, StatsIndex: e.StatsIndex, Prefix: binapi.ToPrefix(e.Prefix), Src: e.Source,
		Paths: fromPaths(e.Paths[:min(len(e.Paths), 255)], e.Prefix.Addr()),
	}
	r.NPaths = uint8(len(r.Paths))
	return r
}

func routeV1(e plane.RouteEntry) ip.IPRoute {
	r := routeV2(e)
	return ip.IPRoute{TableID: r.TableID, StatsIndex: r.StatsIndex, Prefix: r.Prefix, NPaths: r.NPaths, Paths: r.Paths}
}

// entries collects a table's routes, because the plane must not be held up while a client reads them. source 0 means all.
func (s *Server) entries(table ip.IPTable, source uint8) []plane.RouteEntry {
	var all []plane.RouteEntry
	// A table that does not exist is empty, as in VPP.
	_ = s.Routes(table.TableID, table.IsIP6, func(e plane.RouteEntry) bool {
		if source == 0 || source == e.Source {
			all = append(all, e)
		}
		return true
	})
	return all
}

func (s *Server) ipRouteDump(_ *client, q *ip.IPRouteDump, send func(*ip.IPRouteDetails)) {
	for _, e := range s.entries(q.Table, 0) {
		send(&ip.IPRouteDetails{Route: routeV1(e)})
	}
}

// ipRouteV2Dump sends the entries whose best source is the one that was asked for: an entry that a better source has too is
// not shown, as in VPP (fib_table_walk_w_src_cb).
func (s *Server) ipRouteV2Dump(_ *client, q *ip.IPRouteV2Dump, send func(*ip.IPRouteV2Details)) {
	for _, e := range s.entries(q.Table, q.Src) {
		send(&ip.IPRouteV2Details{Route: routeV2(e)})
	}
}

func (s *Server) ipRouteLookup(_ *client, q *ip.IPRouteLookup, r *ip.IPRouteLookupReply) error {
	e, err := s.lookup(q.TableID, q.Prefix, q.Exact != 0)
	if err == nil {
		r.Route = routeV1(e)
	}
	return err
}

func (s *Server) ipRouteLookupV2(_ *client, q *ip.IPRouteLookupV2, r *ip.IPRouteLookupV2Reply) error {
	e, err := s.lookup(q.TableID, q.Prefix, q.Exact != 0)
	if err == nil {
		r.Route = routeV2(e)
	}
	return err
}

// lookup finds the entry of a prefix, or the longest one that covers it.
func (s *Server) lookup(tableID uint32, prefix ip_types.Prefix, exact bool) (plane.RouteEntry, error) {
	pfx := binapi.FromPrefix(prefix)
	if !pfx.IsValid() {
		return plane.RouteEntry{}, api.NO_SUCH_ENTRY
	}
	if exact {
		return s.LookupExact(tableID, pfx)
	}
	return s.LookupPrefix(tableID, pfx)
}

func (s *Server) fibSourceAdd(_ *client, q *fib.FibSourceAdd, r *fib.FibSourceAddReply) error {
	var err error
	r.ID, err = s.AddSource(text(q.Src.Name), q.Src.Priority)
	return err
}

func (s *Server) fibSourceDump(_ *client, _ *fib.FibSourceDump, send func(*fib.FibSourceDetails)) {
	for _, src := range s.Sources() {
		send(&fib.FibSourceDetails{Src: fib.FibSource{Priority: src.Priority, ID: src.ID, Name: clip(src.Name, 64)}})
	}
}

func (s *Server) ipTableAddDel(_ *client, q *ip.IPTableAddDel, _ *ip.IPTableAddDelReply) error {
	return s.tableAddDel(q.IsAdd, q.Table)
}

func (s *Server) ipTableAddDelV2(_ *client, q *ip.IPTableAddDelV2, _ *ip.IPTableAddDelV2Reply) error {
	return s.tableAddDel(q.IsAdd, q.Table) // there are no multicast tables to create or not
}

// tableAddDel: table 0 always exists, and VPP says 0 to whatever is asked about it.
func (s *Server) tableAddDel(add bool, t ip.IPTable) error {
	switch {
	case t.TableID == 0:
		return nil
	case add:
		return s.AddTable(t.TableID, t.IsIP6, text(t.Name))
	default:
		return s.DelTable(t.TableID, t.IsIP6)
	}
}

// ipTableAllocate adds the table with the given id, or with a free one for ~0.
func (s *Server) ipTableAllocate(_ *client, q *ip.IPTableAllocate, r *ip.IPTableAllocateReply) error {
	r.Table = q.Table
	r.Table.Name = text(q.Table.Name)
	if r.Table.TableID == ^uint32(0) {
		used := map[uint32]bool{}
		for _, t := range s.Tables() {
			used[t.ID] = true
		}
		for r.Table.TableID = 1; used[r.Table.TableID]; r.Table.TableID++ {
		}
	}
	return s.tableAddDel(true, r.Table)
}

// ipTableFlush removes the routes that the API source has in a table, and takes the table's interfaces down, as VPP does.
func (s *Server) ipTableFlush(_ *client, q *ip.IPTableFlush, _ *ip.IPTableFlushReply) error {
	if !slices.ContainsFunc(s.Tables(), func(t plane.Table) bool { return t.ID == q.Table.TableID && t.IP6 == q.Table.IsIP6 }) {
		return api.NO_SUCH_FIB
	}
	for _, i := range s.Interfaces() {
		table := i.Table4
		if q.Table.IsIP6 {
			table = i.Table6
		}
		if table == q.Table.TableID && i.AdminUp {
			if err := s.SetAdmin(i.Index, false); err != nil {
				return err
			}
		}
	}
	for _, e := range s.entries(q.Table, 0) {
		if !slices.Contains(e.Sources, plane.SourceAPI) {
			continue
		}
		if _, err := s.DelRoute(q.Table.TableID, e.Prefix, plane.RouteUpdate{Source: plane.SourceAPI}); err != nil {
			return err
		}
	}
	return nil
}

// tableName is the name that was given, or else VPP's for it.
func tableName(t plane.Table) string {
	switch {
	case t.Name != "":
		return t.Name
	case t.IP6:
		return fmt.Sprintf("ipv6-VRF:%d", t.ID)
	default:
		return fmt.Sprintf("ipv4-VRF:%d", t.ID)
	}
}

func (s *Server) ipTableDump(_ *client, _ *ip.IPTableDump, send func(*ip.IPTableDetails)) {
	for _, t := range s.Tables() {
		send(&ip.IPTableDetails{Table: ip.IPTable{TableID: t.ID, IsIP6: t.IP6, Name: clip(tableName(t), 63)}})
	}
}

func (s *Server) setIPFlowHash(_ *client, q *ip.SetIPFlowHash, _ *ip.SetIPFlowHashReply) error {
	var flags plane.FlowHash
	for flag, on := range map[plane.FlowHash]bool{
		plane.HashSource: q.Src, plane.HashDestination: q.Dst, plane.HashSourcePort: q.Sport, plane.HashDestinationPort: q.Dport,
		plane.HashProtocol: q.Proto, plane.HashReverse: q.Reverse, plane.HashSymmetric: q.Symmetric,
	} {
		if on {
			flags |= flag
		}
	}
	return s.SetFlowHash(q.VrfID, q.IsIPv6, flags)
}

func (s *Server) setIPFlowHashV2(_ *client, q *ip.SetIPFlowHashV2, _ *ip.SetIPFlowHashV2Reply) error {
	return s.SetFlowHash(q.TableID, q.Af == ip_types.ADDRESS_IP6, plane.FlowHash(q.FlowHashConfig))
}
