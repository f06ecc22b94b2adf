package birdctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"rlr/internal/ctl"
)

// query is a `show route`.
type query struct {
	filter   ctl.RouteFilter
	one      bool // a prefix or an address: not to find it is an error
	all      bool
	primary  bool
	filtered bool
	count    bool
	family   int // of the table: 4, 6; 0 is both
	where    []func(netip.Prefix, *ctl.Path) bool
}

func (c *client) parseRoute(ctx context.Context, w words) (q query, err error) {
	for len(w) > 0 {
		switch word := w.next(); word {
		case "all":
			q.all = true
		case "primary":
			q.primary = true
		case "filtered":
			q.filtered = true
		case "count":
			q.count = true
		case "for":
			target := w.next()
			a, err := netip.ParseAddr(target)
			if err != nil {
				p, perr := netip.ParsePrefix(target)
				if perr != nil {
					return q, syntaxError{target}
				}
				a = p.Addr()
			}
			q.filter.For, q.one = a.WithZone(""), true
		case "table":
			switch name := w.next(); name {
			case "master4":
				q.family = 4
			case "master6":
				q.family = 6
			case "all":
			default:
				return q, syntaxError{name}
			}
		case "protocol":
			some, err := c.matching(ctx, words{w.next()}, false)
			if err != nil {
				return q, err
			}
			q.filter.Protocol = some[0].Name
		case "where":
			if q.where, w, err = parseWhere(w); err != nil {
				return q, err
			}
		default:
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return q, syntaxError{word}
			}
			q.filter.Prefix, q.one = p.Masked(), true
		}
	}
	return q, nil
}

// parseWhere reads conditions that are joined by &&.
func parseWhere(w words) (all []func(netip.Prefix, *ctl.Path) bool, rest words, err error) {
	for {
		var one func(netip.Prefix, *ctl.Path) bool
		if one, w, err = parseCondition(w); err != nil {
			return nil, w, err
		}
		all = append(all, one)
		if !w.take("&&") {
			return all, w, nil
		}
	}
}

// parseCondition reads what looking glasses ask: net ~ [ … ], net = P, bgp_path.last = N, bgp_path.first = N, bgp_path ~ [= * N * =],
// (A,B) ~ bgp_community, proto = "NAME".
func parseCondition(w words) (func(netip.Prefix, *ctl.Path) bool, words, error) {
	unexpected := func() (func(netip.Prefix, *ctl.Path) bool, words, error) {
		return nil, w, syntaxError{w.next()}
	}
	switch word := w.next(); word {
	case "net":
		if w.take("=") {
			word := w.next()
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return nil, w, syntaxError{word}
			}
			return func(n netip.Prefix, _ *ctl.Path) bool { return n == p.Masked() }, w, nil
		}
		if !w.take("~") || !w.take("[") {
			return unexpected()
		}
		var set []prefixPattern
		for !w.take("]") {
			word := w.next()
			p, ok := parsePattern(word)
			if !ok {
				return nil, w, syntaxError{word}
			}
			set = append(set, p)
			w.take(",")
		}
		return func(n netip.Prefix, _ *ctl.Path) bool {
			return slices.ContainsFunc(set, func(p prefixPattern) bool { return p.matches(n) })
		}, w, nil
	case "bgp_path.last", "bgp_path.first":
		if !w.take("=") {
			return unexpected()
		}
		as := w.next()
		if _, err := strconv.ParseUint(as, 10, 32); err != nil {
			return nil, w, syntaxError{as}
		}
		return func(_ netip.Prefix, p *ctl.Path) bool {
			path := strings.Fields(p.ASPath)
			if len(path) == 0 {
				return false
			}
			if word == "bgp_path.last" {
				return path[len(path)-1] == as
			}
			return path[0] == as
		}, w, nil
	case "bgp_path": // ~ [= * N * =]
		if !w.take("~") || !w.take("[") || !w.take("=") || !w.take("*") {
			return unexpected()
		}
		as := w.next()
		if _, err := strconv.ParseUint(as, 10, 32); err != nil || !w.take("*") || !w.take("=") || !w.take("]") {
			return unexpected()
		}
		return func(_ netip.Prefix, p *ctl.Path) bool { return slices.Contains(strings.Fields(p.ASPath), as) }, w, nil
	case "(":
		high := w.next()
		if !w.take(",") {
			return unexpected()
		}
		low := w.next()
		if !w.take(")") || !w.take("~") || !w.take("bgp_community") {
			return unexpected()
		}
		return func(_ netip.Prefix, p *ctl.Path) bool { return slices.Contains(p.Communities, high+":"+low) }, w, nil
	case "proto":
		if !w.take("=") {
			return unexpected()
		}
		name := text(w.next())
		return func(_ netip.Prefix, p *ctl.Path) bool {
			return p.Neighbor == name || p.Neighbor == "" && p.Protocol == name
		}, w, nil
	default:
		return nil, w, syntaxError{word}
	}
}

// prefixPattern is one of a prefix set: PREFIX, PREFIX+ (and longer), PREFIX- (and shorter), PREFIX{MIN,MAX}.
type prefixPattern struct {
	prefix   netip.Prefix
	min, max int
}

func parsePattern(s string) (prefixPattern, bool) {
	body := s
	if at := strings.IndexAny(s, "+-{"); at >= 0 {
		body = s[:at]
	}
	p, err := netip.ParsePrefix(body)
	if err != nil {
		return prefixPattern{}, false
	}
	pattern := prefixPattern{p.Masked(), p.Bits(), p.Bits()}
	switch how := s[len(body):]; how {
	case "":
	case "+":
		pattern.max = p.Addr().BitLen()
	case "-":
		pattern.min = 0
	default:
		_, err = fmt.Sscanf(how, "{%d,%d}", &pattern.min, &pattern.max)
	}
	return pattern, err == nil
}

func (p prefixPattern) matches(n netip.Prefix) bool {
	if n.Addr().Is4() != p.prefix.Addr().Is4() || n.Bits() < p.min || n.Bits() > p.max {
		return false
	}
	if n.Bits() < p.prefix.Bits() { // it may be an upper part of the prefix
		return n.Contains(p.prefix.Addr())
	}
	return p.prefix.Contains(n.Addr())
}

// wanted chooses a route's paths.
func (q *query) wanted(n netip.Prefix, paths []ctl.Path) (some []ctl.Path) {
	if q.filtered || q.family != 0 && (q.family == 4) != n.Addr().Is4() {
		return nil
	}
	for i := range paths {
		p := &paths[i]
		fails := func(f func(netip.Prefix, *ctl.Path) bool) bool { return !f(n, p) }
		if q.primary && !p.Best || slices.ContainsFunc(q.where, fails) {
			continue
		}
		some = append(some, *p)
	}
	return some
}

// tally counts for `count`.
type tally struct{ routes, all, networks int }

func (t tally) text(table string) string {
	return fmt.Sprintf("%d of %d routes for %d networks in table %s", t.routes, t.all, t.networks, table)
}

func (c *client) showRoute(ctx context.Context, w words) error {
	q, err := c.parseRoute(ctx, w)
	if err != nil {
		return err
	}
	sessions, err := c.server.opt.Router.BGP(ctx)
	if err != nil {
		return err
	}
	status, err := c.server.opt.Router.Status(ctx)
	if err != nil {
		return err
	}
	print := printer{c: c, all: q.all, uptime: status.UptimeS, froms: map[string]string{}}
	for _, b := range sessions {
		print.froms[b.Name] = strings.Split(b.Address, "%")[0]
	}
	counts := map[string]*tally{"master4": {}, "master6": {}}
	found, table := false, ""
	err = c.server.opt.Router.Routes(ctx, q.filter, func(r ctl.Route) error {
		n, err := netip.ParsePrefix(r.Prefix)
		if err != nil {
			return nil
		}
		found = true
		some, of := q.wanted(n, r.Paths), tableOf(n.Addr().Is6())
		t := counts[of]
		t.all += len(r.Paths)
		if len(some) == 0 {
			return nil
		}
		t.routes, t.networks = t.routes+len(some), t.networks+1
		if q.count {
			return nil
		}
		if of != table {
			if table != "" {
				c.line(codeRoute, "")
			}
			c.line(codeRoute, "Table %s:", of)
			table = of
		}
		for i := range some {
			print.path(r.Prefix, i == 0, &some[i])
		}
		if c.out.Buffered() > 1<<15 {
			return c.out.Flush()
		}
		return nil
	})
	switch {
	case errors.Is(err, ctl.ErrNotFound), err == nil && q.one && !found:
		return failure{codeNoRoute, "Network not found"}
	case err != nil:
		return err
	case q.count && q.family != 0:
		of := tableOf(q.family == 6)
		c.end(codeRouteCount, counts[of].text(of))
	case q.count:
		var sum tally
		for _, of := range []string{"master4", "master6"} {
			t := counts[of]
			c.line(codeRoute, "%s", t.text(of))
			sum = tally{sum.routes + t.routes, sum.all + t.all, sum.networks + t.networks}
		}
		c.end(codeRouteCount, fmt.Sprintf("Total: %d of %d routes for %d networks in 2 tables", sum.routes, sum.all, sum.networks))
	default:
		c.ok()
	}
	return nil
}

// printer writes routes.
type printer struct {
	c      *client
	all    bool
	uptime float64           // the age of what is as old as the router
	froms  map[string]string // addresses of neighbours, by name
}

func (pr *printer) path(prefix string, first bool, p *ctl.Path) {
	c := pr.c
	if !first {
		prefix = ""
	}
	kind, proto, from, mark := p.Kind, p.Protocol, "", ""
	if kind == "" {
		kind = "unicast"
	}
	if p.Neighbor != "" {
		proto = p.Neighbor
		if a := pr.froms[p.Neighbor]; a != "" && a != p.NextHop {
			from = " from " + a
		}
	}
	if p.Best {
		mark = " *"
	}
	info := fmt.Sprintf(" (%d)", p.Preference)
	if p.Protocol == protoBGP {
		last := "?"
		if path := strings.Fields(p.ASPath); len(path) > 0 {
			last = "AS" + path[len(path)-1]
		}
		origin := map[string]string{"igp": "i", "egp": "e", "incomplete": "?"}[strings.ToLower(p.Origin)]
		info += fmt.Sprintf(" [%s%s]", strings.TrimPrefix(last, "?"), origin)
	}
	c.line(codeRoute, "%-20s %s [%s %s%s]%s%s", prefix, kind, proto, moment(cmp.Or(p.AgeS, pr.uptime)), from, mark, info)
	switch {
	case p.NextHop != "" && p.Interface != "":
		c.line(codeRoute, "\tvia %s on %s", p.NextHop, p.Interface)
	case p.NextHop != "":
		c.line(codeRoute, "\tvia %s", p.NextHop)
	case p.Interface != "":
		c.line(codeRoute, "\tdev %s", p.Interface)
	}
	if !pr.all {
		return
	}
	if p.Protocol != protoBGP {
		c.line(codeRouteDetails, "\tType: %s univ", strings.ToLower(birdProtos[p.Protocol]))
		return
	}
	c.line(codeRouteDetails, "\tType: BGP univ")
	attribute := func(name, format string, args ...any) { c.line(codeAttributes, "\tBGP."+name+": "+format, args...) }
	attribute("origin", "%s", map[string]string{"igp": "IGP", "egp": "EGP", "incomplete": "Incomplete"}[strings.ToLower(p.Origin)])
	attribute("as_path", "%s", p.ASPath)
	attribute("next_hop", "%s", p.NextHop)
	if p.MED != 0 {
		attribute("med", "%d", p.MED)
	}
	attribute("local_pref", "%d", cmp.Or(p.LocalPref, 100)) // BIRD fills in what an external neighbour does not say
	if len(p.Communities) > 0 {
		attribute("community", "%s", strings.Join(tuples(p.Communities, ","), " "))
	}
	if len(p.Large) > 0 {
		attribute("large_community", "%s", strings.Join(tuples(p.Large, ", "), " "))
	}
	if p.ROA != "" {
		c.line(codeAttributes, "\trlr.roa: %s", p.ROA)
	}
}

// tuples writes communities as BIRD does; well-known ones have names.
func tuples(list []string, between string) (out []string) {
	for _, s := range list {
		if strings.Contains(s, ":") {
			s = "(" + strings.ReplaceAll(s, ":", between) + ")"
		}
		out = append(out, s)
	}
	return out
}
