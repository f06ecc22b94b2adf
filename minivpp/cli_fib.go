package minivpp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// "show ip fib", "show ip6 fib" and "ip route".

// fibQuery is what the words behind "show ip fib" ask for.
type fibQuery struct {
	table   *uint32 // nil: every table
	prefix  netip.Prefix
	exact   bool // a prefix was given, not an address
	summary bool
}

func parseFIBQuery(ip6 bool, args []string) (fibQuery, error) {
	var q fibQuery
	for len(args) > 0 {
		pfx, isPrefix := parsePrefix(args[0])
		switch {
		case (args[0] == "table" || args[0] == "index") && len(args) > 1:
			id, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil {
				return q, unknownInput(strings.Join(args, " "))
			}
			table := uint32(id)
			q.table, args = &table, args[1:]
		case args[0] == "summary":
			q.summary = true
		case pfx.IsValid() && pfx.Addr().Is6() == ip6:
			q.prefix, q.exact = pfx, isPrefix
		default:
			return q, unknownInput(strings.Join(args, " "))
		}
		args = args[1:]
	}
	return q, nil
}

// parsePrefix reads a prefix, or an address as a prefix of its full length.
func parsePrefix(s string) (pfx netip.Prefix, isPrefix bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), false
	}
	return netip.Prefix{}, false
}

func (s *Server) showFIB(out *strings.Builder, ip6 bool, args []string) error {
	q, err := parseFIBQuery(ip6, args)
	if err != nil {
		return err
	}
	names := s.names()
	for _, t := range s.Tables() {
		if t.IP6 != ip6 || q.table != nil && *q.table != t.ID {
			continue
		}
		fmt.Fprintf(out, "%s, table %d\n", tableName(t), t.ID)
		switch {
		case q.summary:
			s.fibSummary(out, t)
		case q.prefix.IsValid():
			e, err := s.lookup(t.ID, binapi.ToPrefix(q.prefix), q.exact)
			if err != nil {
				fmt.Fprintln(out, "no match")
				continue
			}
			s.writeEntry(out, e, names)
		default:
			for _, e := range s.entries(ip.IPTable{TableID: t.ID, IsIP6: ip6}, 0) {
				s.writeEntry(out, e, names)
			}
		}
	}
	return nil
}

// fibSummary counts the entries by prefix length.
func (s *Server) fibSummary(out *strings.Builder, t plane.Table) {
	counts := [129]int{}
	// A table that went away meanwhile has none.
	_ = s.Routes(t.ID, t.IP6, func(e plane.RouteEntry) bool {
		counts[e.Prefix.Bits()]++
		return true
	})
	fmt.Fprintf(out, "%20s%16s\n", "Prefix length", "Count")
	for bits, n := range counts {
		if n > 0 {
			fmt.Fprintf(out, "%20d%16d\n", bits, n)
		}
	}
}

func (s *Server) writeEntry(out *strings.Builder, e plane.RouteEntry, names map[uint32]string) {
	sources := map[uint8]string{}
	for _, src := range s.Sources() {
		sources[src.ID] = src.Name
	}
	var from []string
	for _, id := range e.Sources {
		from = append(from, sources[id])
	}
	fmt.Fprintf(out, "%s\n  sources: %s\n", e.Prefix, strings.Join(from, ", "))
	for _, p := range e.Paths {
		fmt.Fprintf(out, "  %s\n", describePath(p, names))
	}
}

// describePath says what a path does, in words like VPP's forwarding lines.
func describePath(p plane.Path, names map[uint32]string) string {
	var what string
	switch {
	case p.Type == plane.PathLocal && p.SwIfIndex != plane.NoInterface:
		what = "receive on " + names[p.SwIfIndex]
	case p.Type == plane.PathLocal:
		what = "receive"
	case p.Type == plane.PathDrop:
		what = "drop"
	case p.Type == plane.PathUnreachable:
		what = "icmp unreachable"
	case p.Type == plane.PathProhibit:
		what = "icmp prohibited"
	case p.Addr.IsValid() && p.SwIfIndex != plane.NoInterface:
		what = fmt.Sprintf("via %s %s", p.Addr, names[p.SwIfIndex])
	case p.Addr.IsValid():
		what = fmt.Sprintf("via %s table %d (recursive)", p.Addr, p.TableID)
	case p.SwIfIndex != plane.NoInterface:
		what = "attached " + names[p.SwIfIndex]
	default:
		what = fmt.Sprintf("lookup in table %d", p.TableID)
	}
	return fmt.Sprintf("%s weight %d preference %d", what, max(p.Weight, 1), p.Preference)
}

// ipRoute is "ip route add|del PREFIX [table ID] via ...". It writes as VPP's CLI source, adding to the paths of a route as
// VPP's command does.
func (s *Server) ipRoute(_ context.Context, _ *strings.Builder, args []string) error {
	add := true
	for len(args) > 0 && (args[0] == "add" || args[0] == "del") {
		add = args[0] == "add"
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("expected ip4/ip6 destination address/length")
	}
	pfx, _ := parsePrefix(args[0])
	if !pfx.IsValid() {
		return unknownInput(strings.Join(args, " "))
	}
	args = args[1:]
	table := uint32(0)
	if len(args) > 1 && args[0] == "table" {
		id, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return unknownInput(strings.Join(args, " "))
		}
		table, args = uint32(id), args[2:]
	}
	paths, err := s.parsePaths(args, table)
	if err != nil {
		return err
	}
	update := plane.RouteUpdate{Source: plane.SourceCLI, Paths: paths, Multipath: len(paths) > 0}
	if add {
		_, err = s.AddRoute(table, pfx, update)
	} else {
		_, err = s.DelRoute(table, pfx, update)
	}
	return explain(err)
}

// parsePaths reads "via 10.0.0.1 [IFACE] [weight N] [via ...]", "via IFACE", "via drop".
func (s *Server) parsePaths(args []string, table uint32) ([]plane.Path, error) {
	var paths []plane.Path
	for len(args) > 0 {
		if args[0] != "via" || len(args) < 2 {
			return nil, fmt.Errorf("parse error `%s'", strings.Join(args, " "))
		}
		p := plane.Path{SwIfIndex: plane.NoInterface, TableID: table, Weight: 1}
		args = args[1:]
		if a, err := netip.ParseAddr(args[0]); err == nil {
			p.Addr, args = a.WithZone(""), args[1:]
		} else if args[0] == "drop" {
			p.Type, args = plane.PathDrop, args[1:]
		}
		if len(args) > 0 && p.Type != plane.PathDrop {
			if ifaces, err := s.pick(args[:1]); err == nil {
				p.SwIfIndex, args = ifaces[0].Index, args[1:]
			}
		}
		if !p.Addr.IsValid() && p.SwIfIndex == plane.NoInterface && p.Type != plane.PathDrop {
			return nil, fmt.Errorf("parse error `%s'", strings.Join(args, " "))
		}
		if i := slices.Index(args[:min(len(args), 1)], "weight"); i == 0 && len(args) > 1 {
			n, err := strconv.ParseUint(args[1], 10, 8)
			if err != nil {
				return nil, unknownInput(strings.Join(args, " "))
			}
			p.Weight, args = uint8(n), args[2:]
		}
		paths = append(paths, p)
	}
	return paths, nil
}
