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

// This file changes BGP neighbours of a running router.

func neighborCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "neighbor",
		Short:   "Add, delete, enable, disable or reset a BGP neighbour",
		Example: "  rlr neighbor add 192.0.2.9 --as 65009 --import all --export all\n  rlr neighbor disable router2\n  rlr neighbor reset router2 soft in",
		Args:    cobra.NoArgs,
		RunE:    doWhat,
	}
	reset := neighborAction(o, ctl.NeighborReset, "Close a BGP session and open it again")
	soft := reset.Flags().Bool("soft", false, "the same as the word soft")
	reset.ValidArgsFunction = completeReset
	reset.Use, reset.Args = "reset NAME [soft [in|out]]", cobra.RangeArgs(1, 3)
	reset.Long = `Close a BGP session and open it again.

With soft, the session goes on. "soft in" applies the import policy again to what the neighbour has announced, and asks it to
announce all again, if it can do that (ROUTE-REFRESH, RFC 2918). "soft out" announces all of ours again. "soft" does both.`
	reset.Example += "\n  rlr neighbor reset router2 soft in"
	reset.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := resetRequest(args, *soft)
		if err != nil {
			return err
		}
		return o.neighbor(cmd, r)
	}
	enable := neighborAction(o, ctl.NeighborEnable, "Let a disabled BGP neighbour connect again")
	enable.ValidArgsFunction = completeSessions(func(b ctl.BGPSession) bool { return b.Disabled })
	cmd.AddCommand(neighborAdd(o), neighborDel(o), enable, neighborDisable(o), reset)
	return cmd
}

func neighborDisable(o *options) *cobra.Command {
	cmd := neighborAction(o, ctl.NeighborDisable, "Close a BGP session and keep it closed until it is enabled or the router restarts")
	cmd.ValidArgsFunction = completeSessions(func(b ctl.BGPSession) bool { return !b.Disabled })
	cmd.Example += "\n  rlr neighbor disable router2 --message \"new tunnel at 14:00 UTC\""
	message := cmd.Flags().String("message", "", "tell the other side's operator this `TEXT` (RFC 9003)")
	must(cmd.RegisterFlagCompletionFunc("message", cobra.NoFileCompletions))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(*message) > maxMessage {
			return usage("the message has %d bytes, and a NOTIFICATION carries %d: make it shorter", len(*message), maxMessage)
		}
		return o.neighbor(cmd, ctl.NeighborRequest{Name: args[0], Action: ctl.NeighborDisable, Message: *message})
	}
	return cmd
}

// maxMessage is the longest shutdown communication, in bytes (RFC 9003 §2).
const maxMessage = 255

func neighborAction(o *options, action, short string) *cobra.Command {
	return &cobra.Command{
		Use: action + " NAME", Short: short,
		Example:           "  rlr neighbor " + action + " router2",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNeighbors,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.neighbor(cmd, ctl.NeighborRequest{Name: args[0], Action: action})
		},
	}
}

// resetRequest reads NAME [soft [in|out]].
func resetRequest(args []string, soft bool) (ctl.NeighborRequest, error) {
	r := ctl.NeighborRequest{Name: args[0], Action: ctl.NeighborReset, Soft: soft}
	words := args[1:]
	if len(words) > 0 && strings.HasPrefix("soft", words[0]) {
		r.Soft, words = true, words[1:]
	}
	if r.Soft && len(words) == 1 {
		for _, d := range []string{ctl.DirectionIn, ctl.DirectionOut} {
			if strings.HasPrefix(d, words[0]) {
				r.Direction, words = d, nil
				break
			}
		}
	}
	if len(words) > 0 {
		return r, usage("unknown word %q; write rlr neighbor reset %s, and perhaps soft, soft in or soft out", words[0], args[0])
	}
	return r, nil
}

func (o *options) neighbor(cmd *cobra.Command, r ctl.NeighborRequest) error {
	return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
		d, err := c.Neighbor(ctx, r)
		if err != nil {
			return err
		}
		return printDone(cmd, o, d)
	})
}

// neighborKeys are the settings that have options of their own, in the configuration's order. A switch has no value.
var neighborKeys = []struct {
	key, value, usage string
	complete          cobra.CompletionFunc
}{
	{"as", "AS", "the neighbour's AS `NUMBER`, or internal", nil},
	{"description", "TEXT", "a `TEXT` for people", nil},
	{"interface", "", "the `INTERFACE` that the neighbour is on; needed for a link-local address", completeFlagInterfaces},
	{"local-address", "", "which `ADDRESS` of ours the session uses", nil},
	{"passive", "switch", "wait for the neighbour to connect", nil},
	{"next-hop-self", "switch", "announce us as the next hop to an internal neighbour", nil},
	{"route-reflector-client", "switch", "an internal neighbour that gets the routes of others", nil},
	{"multihop", "switch", "an external neighbour that is not on a link of ours", nil},
	{"hold-time", "", "how long a silent neighbour counts as alive: a `TIME` such as 30s", nil},
	{"connect-retry", "", "the `TIME` between attempts to connect", nil},
	{"families", "list", "which routes the session carries: `FAMILY`[,FAMILY] of ipv4 and ipv6", completeChoice("ipv4", "ipv6", "ipv4,ipv6")},
	{"import", "", "which routes are accepted: a `POLICY` such as all or none", completeChoice("all", "none")},
	{"export", "", "which routes are announced: a `POLICY` such as all or none", completeChoice("all", "none")},
	{"group", "", "whose settings the neighbour gets: a `GROUP` of the configuration", completeGroups},
}

func neighborAdd(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [ADDRESS] --as NUMBER",
		Short: "Add a BGP neighbour, until the router restarts or for good",
		Long: `Add a BGP neighbour, until the router restarts or, with --save, for good. It survives a reload either way.

The options are the keys of a neighbour in the configuration (rlr.yaml(5)), with the same defaults: an external neighbour without
--import and --export carries no routes. --set gives any key, with its value in YAML. Without --name the neighbour is called by
its address. --save writes the neighbour into the configuration file, and changes nothing else there.`,
		Example: `  rlr neighbor add 192.0.2.9 --as 65009 --import all --export all
  rlr neighbor add fe80::9 --interface tun12 --as 4242420009 --name alice --families ipv4,ipv6 --group peers --save
  rlr neighbor add 10.1.0.9 --as internal --set 'graceful-restart={mode: helper, stale-time: 5m}'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	name := f.String("name", "", "what commands and logs call it: a `NAME`")
	values := make([]*string, len(neighborKeys))
	switches := make([]*bool, len(neighborKeys))
	for i, k := range neighborKeys {
		if k.value == "switch" {
			switches[i] = f.Bool(k.key, false, k.usage)
			continue
		}
		values[i] = f.String(k.key, "", k.usage)
		complete := k.complete
		if complete == nil {
			complete = cobra.NoFileCompletions
		}
		must(cmd.RegisterFlagCompletionFunc(k.key, complete))
	}
	set := f.StringArray("set", nil, "any `KEY=VALUE` of a neighbour, the value in YAML; may be repeated")
	save := f.Bool("save", false, "write it into the configuration file too")
	must(cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("set", cobra.NoFileCompletions))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := ctl.NeighborRequest{Name: *name, Action: ctl.NeighborAdd, Save: *save}
		if len(args) == 1 {
			a, iface, err := neighborAddress(args[0])
			if err != nil {
				return err
			}
			r.Settings = append(r.Settings, ctl.Setting{Key: "address", Value: a.String()})
			if iface != "" && !cmd.Flags().Changed("interface") {
				r.Settings = append(r.Settings, ctl.Setting{Key: "interface", Value: iface})
			}
		}
		for i, k := range neighborKeys {
			switch {
			case !cmd.Flags().Changed(k.key):
			case k.value == "switch":
				r.Settings = append(r.Settings, ctl.Setting{Key: k.key, Value: *switches[i]})
			default:
				r.Settings = append(r.Settings, ctl.Setting{Key: k.key, Value: settingValue(k.value, *values[i])})
			}
		}
		for _, s := range *set {
			key, value, ok := strings.Cut(s, "=")
			if !ok || key == "" || value == "" {
				return usage("--set %q: write KEY=VALUE", s)
			}
			r.Settings = append(r.Settings, ctl.Setting{Key: key, YAML: value})
		}
		if len(args) == 0 && !slices.ContainsFunc(r.Settings, func(s ctl.Setting) bool { return s.Key == "interface" || s.Key == "address" }) {
			return usage("which neighbour? write its address, or --interface NAME (see %s --help)", cmd.CommandPath())
		}
		return o.neighbor(cmd, r)
	}
	return cmd
}

// settingValue is an option's value as the configuration has it.
func settingValue(kind, text string) any {
	switch kind {
	case "AS":
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			return n
		}
	case "list":
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return text
}

// neighborAddress reads ADDRESS or ADDRESS%INTERFACE.
func neighborAddress(word string) (netip.Addr, string, error) {
	a, err := netip.ParseAddr(word)
	if err != nil {
		return a, "", usage("%q is not an address; write the neighbour's, and its name by --name", word)
	}
	return a.Unmap().WithZone(""), a.Zone(), nil
}

func neighborDel(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del NAME",
		Short: "Delete a BGP neighbour, until the router restarts or for good",
		Long: `Delete a BGP neighbour: one that was added by rlr neighbor add, or one of the configuration, which is back when the
router restarts. With --save it is deleted from the configuration file too; the comments there stay.`,
		Example:           "  rlr neighbor del router2\n  rlr neighbor del 192.0.2.9 --save",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSessions(func(b ctl.BGPSession) bool { return !b.Dynamic }),
	}
	save := cmd.Flags().Bool("save", false, "delete it from the configuration file too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.neighbor(cmd, ctl.NeighborRequest{Name: args[0], Action: ctl.NeighborDel, Save: *save})
	}
	return cmd
}
