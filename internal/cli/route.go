package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// routeQuery is what the words after `show route` mean. They come in any order and abbreviate, as in birdc.
type routeQuery struct {
	filter ctl.RouteFilter
	all    bool
	count  bool
}

// tableBuffer gathers the lines of a table that may be long: a write for each would take longer than all else.
const tableBuffer = 32 << 10

var routeWords = []string{"all", "count", "failed", "for", "protocol", "table"}

func showRoute(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "route [PREFIX | for ADDR] [all] [protocol P] [table T] [failed] [count]",
		Short: "Routes: every path known, which is used, and whether the dataplane has it",
		Long: `Routes: every path known, which is used, and whether the dataplane has it.

The mark before a prefix is the state of the route in the dataplane:
  *  installed   the dataplane confirmed it
  q  queued      to be written
  ?  pending     waits for an interface
  !  failed      the dataplane refused it; the reason stands below
  s  shadowed    somebody else's route for the same prefix wins there
  -  stale       left over from before, until the protocols have said what they want
While the router is decoupled ("rlr fib decouple"), what is not in the dataplane as it should be stays queued.
A * after the protocol marks the best path, as in birdc; several are an ECMP set.
With "all", and where the configuration has roa, a path's BGP.roa is valid, invalid or unknown.`,
		Example: `  rlr show route
  rlr show route for 10.2.0.2 all
  rlr show route protocol router2 count`,
		ValidArgsFunction: completeRoute,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := parseRouteWords(args)
			if err != nil {
				return err
			}
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if q.count {
				return o.ask(cmd, func(ctx context.Context, client *ctl.Client) error {
					return showRouteCount(ctx, cmd, o, client, q.filter)
				})
			}
			w := bufio.NewWriterSize(cmd.OutOrStdout(), tableBuffer)
			if o.json {
				err = streamJSON(w, func(visit func(ctl.Route) error) error {
					return client.Routes(cmd.Context(), q.filter, visit)
				})
			} else {
				p := &routePrinter{screen: &screen{w: w, colour: Coloured(cmd.OutOrStdout())}, all: q.all}
				err = client.Routes(cmd.Context(), q.filter, p.print)
			}
			return cmp.Or(w.Flush(), err)
		},
	}
}

func showRouteCount(ctx context.Context, cmd *cobra.Command, o *options, client *ctl.Client, f ctl.RouteFilter) error {
	n, err := client.RouteCount(ctx, f)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), n)
	}
	s := o.screen(cmd)
	s.printf("%d routes with %d paths, %d installed, %d failed\n", n.Routes, n.Paths, n.Installed, n.Failed)
	return s.done()
}

func parseRouteWords(args []string) (routeQuery, error) {
	var q routeQuery
	for i := 0; i < len(args); i++ {
		if isDestination(args[i]) {
			if err := setPrefix(&q.filter.Prefix, args[i]); err != nil {
				return q, err
			}
			continue
		}
		word, err := unique(args[i], routeWords)
		if err != nil {
			return q, err
		}
		value := ""
		if word == "for" || word == "protocol" || word == "table" {
			if i++; i >= len(args) {
				return q, usage("%s what? give %s", word, map[string]string{
					"for": "an address", "protocol": "a name from show protocols", "table": "the name of a VRF",
				}[word])
			}
			value = args[i]
		}
		switch word {
		case "all":
			q.all = true
		case "count":
			q.count = true
		case "failed":
			q.filter.Failed = true
		case "protocol":
			q.filter.Protocol = value
		case "table":
			q.filter.Table = value
		case "for":
			err = setFor(&q.filter.For, value)
		default:
			err = usage("%q is neither a prefix nor one of %s", args[i], strings.Join(routeWords, ", "))
		}
		if err != nil {
			return q, err
		}
	}
	if q.filter.For.IsValid() && q.filter.Prefix.IsValid() {
		return q, usage("give a prefix or for an address, not both")
	}
	return q, nil
}

// isDestination tells an address or prefix from a word: words have no digits, colons or slashes.
func isDestination(arg string) bool { return strings.ContainsAny(arg, "/:0123456789") }

func setPrefix(p *netip.Prefix, arg string) error {
	if p.IsValid() {
		return usage("one prefix at a time, not %s and %s", p, arg)
	}
	v, err := netip.ParsePrefix(arg)
	if err != nil {
		if a, aerr := netip.ParseAddr(arg); aerr == nil {
			return usage("%s is an address: say \"for %s\"", a, a)
		}
		return usage("%q is not a prefix such as 10.2.0.0/24", arg)
	}
	if v != v.Masked() {
		return usage("%s has host bits set: %s, or \"for %s\"", v, v.Masked(), v.Addr())
	}
	*p = v
	return nil
}

func setFor(a *netip.Addr, arg string) error {
	v, err := netip.ParseAddr(arg)
	if err != nil || v.Zone() != "" {
		return usage("%q is not an address such as 10.2.0.2", arg)
	}
	*a = v.Unmap()
	return nil
}

// routeMarks are the states of a route in one letter, as in DESIGN.md.
var routeMarks = map[string]string{
	"installed": "*", "queued": "q", "pending": "?", "failed": "!", "shadowed": "s", "stale": "-",
}

func routeMark(s *screen, state string) string {
	mark, ok := routeMarks[state]
	if !ok {
		mark = " " // a state of a newer router: `all` names it
	}
	return s.paint(stateStyle(state), mark)
}

// routePrinter prints routes as they come, in birdc's layout.
type routePrinter struct {
	*screen
	all   bool
	table string
	any   bool
}

func (p *routePrinter) print(r ctl.Route) error {
	if !p.any || r.Table != p.table {
		lead := ""
		if p.any {
			lead = "\n"
		}
		p.printf("%s%s\n", lead, p.paint(bold, "Table "+clean(r.Table)+":"))
		p.any, p.table = true, r.Table
	}
	mark, prefix := routeMark(p.screen, r.State), r.Prefix
	for _, path := range r.Paths {
		p.printf("%s %-20s %s\n", mark, prefix, p.head(path))
		if hop := hopText(path); hop != "" {
			p.printf("\t%s\n", hop)
		}
		if p.all {
			p.attributes(path)
		}
		mark, prefix = " ", ""
	}
	if len(r.Paths) == 0 {
		p.printf("%s %-20s %s\n", mark, prefix, r.State)
	}
	if r.Error != "" {
		p.printf("\t%s\n", p.paint(bad, clean(r.Error)))
	}
	if p.all {
		p.printf("\tState: %s\n", r.State)
	}
	return p.done()
}

// head is a path's line: unicast [router2 1m12s] * (100) [65002 IGP].
func (p *routePrinter) head(path ctl.Path) string {
	kind := path.Kind
	if kind == "" {
		kind = "unicast"
	}
	from := path.Neighbor
	if from == "" {
		from = path.Protocol
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s %s]", kind, clean(from), ago(path.AgeS))
	if path.Best {
		b.WriteString(" " + p.paint(good, "*"))
	}
	fmt.Fprintf(&b, " (%d)", path.Preference)
	if path.Protocol == "bgp" {
		as := path.ASPath
		if as == "" {
			as = "i" // nothing but our own AS
		}
		fmt.Fprintf(&b, " [%s]", clean(as))
	}
	if path.Runtime {
		b.WriteString(" runtime")
	}
	if path.Stale {
		b.WriteString(" " + p.paint(notice, "stale"))
	}
	return b.String()
}

func hopText(path ctl.Path) string {
	var parts []string
	switch {
	case path.NextHop != "":
		parts = append(parts, "via "+path.NextHop)
		if path.Interface != "" {
			parts = append(parts, "on "+path.Interface)
		}
	case path.Interface != "":
		parts = append(parts, "dev "+path.Interface)
	}
	if path.Weight > 1 {
		parts = append(parts, fmt.Sprintf("weight %d", path.Weight))
	}
	return strings.Join(parts, " ")
}

func (p *routePrinter) attributes(path ctl.Path) {
	if path.Protocol != "bgp" {
		return
	}
	line := func(name, value string) {
		if value != "" {
			p.printf("\tBGP.%s: %s\n", name, clean(value))
		}
	}
	line("origin", path.Origin)
	line("as_path", path.ASPath)
	line("next_hop", path.NextHop)
	line("local_pref", nonZero(path.LocalPref))
	line("med", nonZero(path.MED))
	line("community", strings.Join(path.Communities, " "))
	line("large_community", strings.Join(path.Large, " "))
	line("roa", path.ROA)
}

func nonZero(n uint32) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

var fibWords = []string{"for", "table"}

func showFIB(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "fib [PREFIX | for ADDR] [table T]",
		Short: "What the dataplane really holds, whoever put it there",
		Example: `  rlr show fib
  rlr show fib for 10.2.0.2`,
		ValidArgsFunction: completeFIB,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := parseFIBWords(args)
			if err != nil {
				return err
			}
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			w := bufio.NewWriterSize(cmd.OutOrStdout(), tableBuffer)
			if o.json {
				err = streamJSON(w, func(visit func(ctl.FIBEntry) error) error {
					return client.FIB(cmd.Context(), f, visit)
				})
				return cmp.Or(w.Flush(), err)
			}
			st, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			p := &fibPrinter{screen: &screen{w: w, colour: Coloured(cmd.OutOrStdout())}}
			p.decoupled(st.FIB)
			err = client.FIB(cmd.Context(), f, p.print)
			return cmp.Or(w.Flush(), err)
		},
	}
}

func parseFIBWords(args []string) (ctl.FIBFilter, error) {
	var f ctl.FIBFilter
	for i := 0; i < len(args); i++ {
		if isDestination(args[i]) {
			if err := setPrefix(&f.Prefix, args[i]); err != nil {
				return f, err
			}
			continue
		}
		word, err := unique(args[i], fibWords)
		if err != nil {
			return f, err
		}
		if word == "" {
			return f, usage("%q is neither a prefix nor one of %s", args[i], strings.Join(fibWords, ", "))
		}
		if i++; i >= len(args) {
			return f, usage("%s what?", word)
		}
		if word == "table" {
			f.Table = args[i]
		} else if err := setFor(&f.For, args[i]); err != nil {
			return f, err
		}
	}
	if f.For.IsValid() && f.Prefix.IsValid() {
		return f, usage("give a prefix or for an address, not both")
	}
	return f, nil
}

// fibPrinter prints entries as they come. The columns' widths are fixed for that reason.
type fibPrinter struct {
	*screen
	table string
	any   bool
}

func (p *fibPrinter) print(e ctl.FIBEntry) error {
	if !p.any || e.Table != p.table {
		lead := ""
		if p.any {
			lead = "\n"
		}
		p.printf("%s%s\n%s\n", lead, p.paint(bold, "Table "+clean(e.Table)+":"),
			p.paint(faint, fmt.Sprintf("%-22s %-20s %s", "Prefix", "Source", "Path")))
		p.any, p.table = true, e.Table
	}
	prefix, source := e.Prefix, e.Source
	for _, path := range e.Paths {
		p.printf("%-22s %-20s %s\n", prefix, clean(source), fibPathText(path, len(e.Paths) > 1))
		prefix, source = "", ""
	}
	if len(e.Paths) == 0 {
		p.printf("%-22s %-20s -\n", prefix, clean(source))
	}
	return p.done()
}

func fibPathText(path ctl.FIBPath, several bool) string {
	var parts []string
	if path.Type != "normal" {
		parts = append(parts, path.Type)
	}
	switch {
	case path.NextHop != "":
		parts = append(parts, "via "+path.NextHop)
	case path.Type == "normal" && path.Interface != "":
		parts = append(parts, "attached")
	}
	if path.Interface != "" {
		parts = append(parts, path.Interface)
	}
	if several {
		parts = append(parts, fmt.Sprintf("weight %d", path.Weight))
	}
	if path.Backup {
		parts = append(parts, "backup")
	}
	return strings.Join(parts, " ")
}
