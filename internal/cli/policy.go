package cli

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

func policyCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "policy",
		Short:   "Ask what policies do",
		Example: "  rlr policy test 10.2.0.0/24 --neighbor router2",
		Args:    cobra.NoArgs,
		RunE:    doWhat,
	}
	cmd.AddCommand(policyTestCommand(o))
	return cmd
}

func policyTestCommand(o *options) *cobra.Command {
	var r ctl.PolicyRequest
	var in, out bool
	var med uint32
	cmd := &cobra.Command{
		Use:   "test PREFIX",
		Short: "Say which rule decides about a route from or to a neighbour, and why",
		Long: `Say which rule decides about a route from or to a neighbour, and why.

The route is what the neighbour announced (import), or what the table has for the prefix (export). Where there is none, or
where an attribute is given, it is a route that is only supposed: from the neighbour itself, or our own.

The rules are executed as BGP executes them. The exit code is 0 whatever the answer is.`,
		Example: `  rlr policy test 172.20.1.0/24 --neighbor alice
  rlr policy test 10.9.0.0/16 --neighbor alice --import --as-path "4242420001 4242420002" --community 64511:3
  rlr policy test fd42:1::/48 --neighbor alice --export --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := netip.ParsePrefix(args[0])
			if err != nil {
				return usage("%q is not a prefix such as 10.2.0.0/24", args[0])
			}
			r.Prefix = p.Masked().String()
			switch {
			case in && !out:
				r.Direction = "import"
			case out && !in:
				r.Direction = "export"
			}
			for _, name := range []string{"as-path", "community", "large-community", "origin", "next-hop", "med"} {
				r.Suppose = r.Suppose || cmd.Flags().Changed(name)
			}
			if cmd.Flags().Changed("med") {
				r.MED = &med
			}
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				results, err := c.PolicyTest(ctx, r)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), results)
				}
				s := o.screen(cmd)
				for i, one := range results {
					if i > 0 {
						s.printf("\n")
					}
					printPolicy(s, one)
				}
				return s.done()
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&r.Neighbor, "neighbor", "n", "", "the neighbour's `NAME` or address")
	f.BoolVar(&in, "import", false, "only what comes from it")
	f.BoolVar(&out, "export", false, "only what goes to it")
	f.StringVar(&r.ASPath, "as-path", "", "suppose a route with this AS `PATH`, \"65002 65003\"")
	f.StringArrayVar(&r.Communities, "community", nil, "suppose a route with this `COMMUNITY`; may be given again")
	f.StringArrayVar(&r.LargeCommunities, "large-community", nil, "suppose a route with this large `COMMUNITY`; may be given again")
	f.StringVar(&r.Origin, "origin", "", "suppose a route of this `ORIGIN`: igp, egp or incomplete")
	f.StringVar(&r.NextHop, "next-hop", "", "suppose a route with this next hop `ADDRESS`")
	f.Uint32Var(&med, "med", 0, "suppose a route with this `MED`")
	must(cmd.MarkFlagRequired("neighbor"))
	must(cmd.RegisterFlagCompletionFunc("neighbor", func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return completeNeighbors(cmd, nil, word)
	}))
	must(cmd.RegisterFlagCompletionFunc("origin", cobra.FixedCompletions([]string{"igp", "egp", "incomplete"}, noFiles)))
	return cmd
}

// printPolicy writes an answer: the verdict first, then how it came about.
func printPolicy(s *screen, r ctl.PolicyResult) {
	verdict, st := "rejected", bad
	if r.Accepted {
		verdict, st = "accepted", good
	}
	preposition := "from"
	if r.Direction == "export" {
		preposition = "to"
	}
	s.printf("%s %s %s: %s\n", clean(r.Prefix), preposition, clean(r.Neighbor), s.paint(st, verdict))
	s.printf("  by      %s\n", clean(decider(r)))
	s.printf("  because %s\n", clean(r.Reason))
	if r.Accepted && r.Blocked != "" {
		s.printf("  but     %s\n", s.paint(notice, "it is not announced: "+clean(r.Blocked)))
	}
	if r.InTable != nil && *r.InTable != r.Accepted {
		s.printf("  but     %s\n", s.paint(notice, "the table does not have it so yet"))
	}
	route := "  route   "
	switch {
	case r.Supposed:
		route += "supposed, "
	case r.From != "":
		route += "from " + clean(r.From) + ", "
	default:
		route += "our own, "
	}
	s.printf("%s%s, ROA %s\n", route, clean(policyRoute(r.Before)), clean(r.Validity))
	if r.Accepted {
		s.printf("  leaves  %s\n", clean(policyRoute(r.After)))
	}
	if len(r.Rules) == 0 {
		return
	}
	s.printf("\n")
	t := newTable("Policy", " Rule", "Asks", "Result")
	for _, one := range r.Rules {
		t.add(policyRow(one)...)
		for _, change := range one.Changes {
			t.add(c(""), c(""), c(""), c("  "+clean(change)))
		}
	}
	t.print(s)
}

func decider(r ctl.PolicyResult) string {
	switch {
	case r.Policy == "":
		return "the router"
	case r.Rule == 0:
		return "policy " + r.Policy
	}
	text := "policy " + r.Policy + ", rule " + strconv.Itoa(r.Rule)
	if r.RuleName != "" {
		text += " (" + r.RuleName + ")"
	}
	return text
}

func policyRow(one ctl.PolicyRule) []cell {
	policy, rule, asks := one.Policy, "", one.Asks
	if policy == "" {
		policy = "router"
	}
	if one.Rule > 0 {
		rule = strconv.Itoa(one.Rule)
	}
	if asks == "" {
		asks = one.Name
	} else if one.Name != "" {
		asks = one.Name + ": " + asks
	}
	result := styled(faint, "no: "+clean(one.Why))
	if one.Matched {
		st := plain
		switch one.Action {
		case "accept":
			st = good
		case "reject":
			st = bad
		}
		result = styled(st, one.Action)
	}
	return []cell{c(clean(policy)), c(rule), c(clean(asks)), result}
}

// policyRoute is a route in a line.
func policyRoute(r ctl.PolicyRoute) string {
	l := []string{"as-path " + orNone(r.ASPath), "next-hop " + orNone(r.NextHop)}
	if r.LocalPref > 0 {
		l = append(l, "local-pref "+strconv.Itoa(int(r.LocalPref)))
	}
	if r.MED > 0 {
		l = append(l, "med "+strconv.Itoa(int(r.MED)))
	}
	if len(r.Communities) > 0 {
		l = append(l, "communities "+strings.Join(r.Communities, " "))
	}
	if len(r.LargeCommunities) > 0 {
		l = append(l, "large-communities "+strings.Join(r.LargeCommunities, " "))
	}
	return strings.Join(l, ", ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
