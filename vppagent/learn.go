package vppagent

import (
	"context"
	"slices"

	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/fib"
)

// noProtocols are VPP's sources of entries that are no routes of anybody's: what VPP makes of interfaces and neighbours, what
// it needs for itself, and features that borrow the FIB. All others are learned from: the API, the command line, DHCP, and
// sources that plugins or other routers have added.
var noProtocols = []string{
	"invalid", "special", "classify", "proxy", "interface", "BIER", "IPv6-proxy-nd", "IPv6-nd", "adjacency", "mpls",
	"attached_export", "recursive-resolution", "urpf-exempt", "default-route", "interpose",
}

// learning is what a dump needs to tell others' routes; nil when it is not to.
type learning struct {
	sources map[uint8]fibSource
	tables  map[uint32]bool
	names   map[uint32]string // others' interfaces, too
	hops    map[hopKey][]fib.NextHop
}

func (l *life) learning(ctx context.Context, all map[uint8]fibSource) (*learning, error) {
	cfg := l.a.config()
	if !cfg.Learn {
		return nil, nil
	}
	g := &learning{sources: all, tables: map[uint32]bool{0: true}, hops: make(map[hopKey][]fib.NextHop)}
	for _, t := range cfg.Tables {
		g.tables[t.ID] = true
	}
	var err error
	g.names, err = l.names(ctx)
	return g, err
}

// learn fills in h if r is somebody else's route that can be told to others: in one of our tables, no address of the dataplane
// itself, and no path that only VPP knows.
func (g *learning) learn(r *ip.IPRouteV2, h *fib.Held) {
	if g == nil || !g.tables[r.TableID] || slices.Contains(noProtocols, g.sources[r.Src].Name) || len(r.Paths) == 0 {
		return
	}
	for _, p := range r.Paths {
		switch p.Type {
		case fib_types.FIB_API_PATH_TYPE_NORMAL:
		case fib_types.FIB_API_PATH_TYPE_DROP, fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH, fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
			if len(r.Paths) > 1 {
				return
			}
		default:
			return
		}
	}
	h.Kind, h.NextHops = heldPaths(r.Paths, g.names, g.hops)
	h.Alien = true
}
