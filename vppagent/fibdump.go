package vppagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
)

// FIBFilter says which entries FIB returns; zero values mean any. Of Prefix and Address at most one is given.
type FIBFilter struct {
	Table   *uint32
	Prefix  netip.Prefix // exactly this one
	Address netip.Addr   // the one that this address is forwarded by
}

// FIBEntry is what the dataplane holds for a prefix, whoever put it there: its best source's paths.
type FIBEntry struct {
	Table  uint32
	Prefix netip.Prefix
	Source string // VPP's name
	Ours   bool   // the best source is ours
	Paths  []FIBPath
}

// FIBPath is a path of an entry.
type FIBPath struct {
	Type      string // normal, local, drop, unreachable, prohibit, or VPP's name
	NextHop   netip.Addr
	Interface string
	Weight    uint8
	Backup    bool // used while no path without it works (VPP's path preference)
}

// FIB reads the dataplane's forwarding tables, sorted by table, family, address and length. A prefix or address that no entry
// is for gives none.
func (a *Agent) FIB(ctx context.Context, filter FIBFilter) ([]FIBEntry, error) {
	l, err := a.current()
	if err != nil {
		return nil, err
	}
	names, err := l.names(ctx)
	if err != nil {
		return nil, err
	}
	all, err := sources(ctx, l.s)
	if err != nil {
		return nil, err
	}
	var entries []FIBEntry
	add := func(r *ip.IPRouteV2) {
		if e, ok := l.entry(r, names, all); ok {
			entries = append(entries, e)
		}
	}
	if err := l.readFIB(ctx, filter, add); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b FIBEntry) int {
		if a.Table != b.Table {
			return int(int64(a.Table) - int64(b.Table))
		}
		return comparePrefixes(a.Prefix, b.Prefix)
	})
	return entries, nil
}

// readFIB visits the routes that a filter lets through. visit is not called from two goroutines at once.
func (l *life) readFIB(ctx context.Context, filter FIBFilter, visit func(*ip.IPRouteV2)) error {
	lookup, exact := filter.Prefix, uint8(1)
	if filter.Address.IsValid() {
		addr := filter.Address.Unmap().WithZone("")
		lookup, exact = netip.PrefixFrom(addr, addr.BitLen()), 0
	}
	tables, err := l.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if filter.Table != nil && *filter.Table != t.TableID || lookup.IsValid() && lookup.Addr().Is6() != t.IsIP6 {
			continue
		}
		if filter.Table == nil && t.Name == l.a.probeTag() { // of ping's, while it runs: nothing is routed by it
			continue
		}
		if !lookup.IsValid() {
			if err := l.dumpTable(ctx, 0, t, visit); err != nil {
				return err
			}
			continue
		}
		var reply ip.IPRouteLookupV2Reply
		err := l.s.call(ctx, &ip.IPRouteLookupV2{TableID: t.TableID, Exact: exact, Prefix: binapi.ToPrefix(lookup.Masked())}, &reply)
		switch {
		case errors.Is(err, api.NO_SUCH_ENTRY): // not in this table
		case err != nil:
			return err
		default:
			visit(&reply.Route)
		}
	}
	return nil
}

func (l *life) entry(r *ip.IPRouteV2, names map[uint32]string, all map[uint8]fibSource) (FIBEntry, bool) {
	prefix := binapi.FromPrefix(r.Prefix)
	if !prefix.IsValid() {
		return FIBEntry{}, false
	}
	// VPP keeps the host bits of an interface's subnet in its own IPv4 entry.
	e := FIBEntry{Table: r.TableID, Prefix: prefix.Masked(), Source: all[r.Src].Name, Ours: r.Src == l.source}
	if e.Source == "" {
		e.Source = fmt.Sprintf("source %d", r.Src)
	}
	for _, in := range r.Paths {
		p, _ := binapi.FromPath(in) // of a path that it does not know, the type is what there is to tell
		path := FIBPath{Type: pathType(in.Type), NextHop: p.Addr, Weight: max(in.Weight, 1), Backup: p.Preference > 0}
		if in.SwIfIndex != noInterface {
			path.Interface = nameOf(names, in.SwIfIndex)
		}
		e.Paths = append(e.Paths, path)
	}
	return e, true
}

func pathType(t fib_types.FibPathType) string {
	switch t {
	case fib_types.FIB_API_PATH_TYPE_NORMAL:
		return "normal"
	case fib_types.FIB_API_PATH_TYPE_LOCAL:
		return "local"
	case fib_types.FIB_API_PATH_TYPE_DROP:
		return "drop"
	case fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH:
		return "unreachable"
	case fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
		return "prohibit"
	default:
		return t.String()
	}
}
