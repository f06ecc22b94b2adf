package cli

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// This file changes static routes of a running router.

func routeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "route",
		Short:   "Add or delete a static route",
		Example: "  rlr route add 10.9.0.0/16 via 10.1.0.9\n  rlr route del 10.9.0.0/16",
		Args:    cobra.NoArgs,
		RunE:    doWhat,
	}
	cmd.AddCommand(routeAdd(o), routeDel(o))
	return cmd
}

func routeAdd(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add PREFIX {via ADDRESS [interface NAME] [weight N]... | interface NAME | blackhole | unreachable | prohibit}",
		Short: "Add a static route, until the router restarts or for good",
		Long: `Add a static route, until the router restarts or, with --save, for good. It survives a reload either way.

Several next hops, each begun by via, are used together, in the proportion of their weights. A link-local next hop needs its
interface. blackhole drops silently; unreachable and prohibit tell the sender. --save writes the route into the configuration
file, and changes nothing else there.`,
		Example: `  rlr route add 10.9.0.0/16 via 10.1.0.9
  rlr route add 10.9.0.0/16 via 10.1.0.9 weight 2 via 10.1.0.10
  rlr route add fd42:9::/32 via fe80::2 interface tun12 --save
  rlr route add 172.20.1.0/27 blackhole`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeRouteAdd,
	}
	save := cmd.Flags().Bool("save", false, "write it into the configuration file too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := parseRouteAdd(args)
		if err != nil {
			return err
		}
		r.Save = *save
		return o.route(cmd, r)
	}
	return cmd
}

func routeDel(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del PREFIX",
		Short: "Delete a static route, until the router restarts or for good",
		Long: `Delete a static route: one that was added by rlr route add, or one of the configuration, which is back when the router
restarts. With --save it is deleted from the configuration file too; the comments there stay.`,
		Example:           "  rlr route del 10.9.0.0/16\n  rlr route del 10.9.0.0/16 --save",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeStatic,
	}
	save := cmd.Flags().Bool("save", false, "delete it from the configuration file too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := routePrefix(args[0])
		if err != nil {
			return err
		}
		return o.route(cmd, ctl.RouteRequest{Action: ctl.RouteDel, Prefix: p, Save: *save})
	}
	return cmd
}

func (o *options) route(cmd *cobra.Command, r ctl.RouteRequest) error {
	return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
		d, err := c.Route(ctx, r)
		if err != nil {
			return err
		}
		return printDone(cmd, o, d)
	})
}

// routePrefix reads a prefix, or an address that is one by itself.
func routePrefix(word string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(word)
	switch {
	case err != nil:
		return p, usage("%q is not a prefix; write one such as 10.9.0.0/16", word)
	case p != p.Masked():
		return p, usage("%s has host bits set; the prefix is %s", p, p.Masked())
	}
	return p, nil
}

var (
	routeKinds = []string{"blackhole", "unreachable", "prohibit"}
	hopWords   = []string{"via", "interface", "weight"}
)

// parseRouteAdd reads PREFIX and what becomes of packets to it.
func parseRouteAdd(args []string) (ctl.RouteRequest, error) {
	r := ctl.RouteRequest{Action: ctl.RouteAdd}
	var err error
	if r.Prefix, err = routePrefix(args[0]); err != nil {
		return r, err
	}
	all := append(slices.Clone(routeKinds), hopWords...)
	for i := 1; i < len(args); i++ {
		word, err := unique(args[i], all)
		switch {
		case err != nil:
			return r, err
		case word == "":
			return r, usage("%q is none of %s", args[i], strings.Join(all, ", "))
		case slices.Contains(routeKinds, word):
			if r.Kind != "" {
				return r, usage("%s or %s, not both", r.Kind, word)
			}
			r.Kind = word
			continue
		}
		if i++; i == len(args) {
			return r, usage("%s what?", word)
		}
		if err := setHop(&r, word, args[i]); err != nil {
			return r, err
		}
	}
	if r.Kind != "" && len(r.Via) > 0 {
		return r, usage("a route is %s or has next hops, not both", r.Kind)
	}
	return r, nil
}

// setHop reads one word of a next hop, and its value. via begins one; so does an interface that follows no address.
func setHop(r *ctl.RouteRequest, word, value string) error {
	last := len(r.Via) - 1
	switch {
	case word == "via":
		a, err := netip.ParseAddr(value)
		if err != nil {
			return usage("via %q: write the address of the next router", value)
		}
		r.Via = append(r.Via, ctl.RouteHop{Address: a.Unmap().WithZone(""), Interface: a.Zone()})
	case word == "interface" && (last < 0 || r.Via[last].Interface != ""):
		r.Via = append(r.Via, ctl.RouteHop{Interface: value})
	case word == "interface":
		r.Via[last].Interface = value
	case last < 0:
		return usage("weight of what? write via ADDRESS before it")
	default:
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil || n == 0 {
			return usage("weight %q: write a number from 1 to 255", value)
		}
		r.Via[last].Weight = uint8(n)
	}
	return nil
}

// completeRouteAdd offers what may follow.
func completeRouteAdd(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, noFiles
	}
	last, _ := unique(args[len(args)-1], hopWords) //nolint:errcheck // an ambiguous word has no values to offer
	switch {
	case len(args) > 1 && last == "interface":
		return completeInterfaces(cmd, nil, word)
	case len(args) > 1 && last != "":
		return nil, noFiles
	case len(args) == 1:
		return filterPrefix(append([]string{"via", "interface"}, routeKinds...), word), noFiles
	}
	return filterPrefix(hopWords, word), noFiles
}

// completeStatic offers the prefixes of static routes.
func completeStatic(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	prefixes := fetchNames(cmd, func(c *ctl.Client, ctx context.Context) (all []ctl.Route, err error) {
		err = c.Routes(ctx, ctl.RouteFilter{Protocol: "static"}, func(r ctl.Route) error {
			all = append(all, r)
			return nil
		})
		return all, err
	}, func(r ctl.Route) string { return r.Prefix })
	return filterPrefix(prefixes, word), noFiles
}
