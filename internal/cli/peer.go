package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
	"rlr/internal/peering"
)

// Writers of the other side's configuration.
const (
	forRLR  = "rlr"
	forBIRD = "bird"
)

func peerCommand(o *options, peerings func(config string) ([]peering.Peering, error)) *cobra.Command {
	var file, writer, endpoint string
	cmd := &cobra.Command{
		Use:   "peer [NAME]",
		Short: "Print what the other side of a peering puts into its configuration",
		Long: `Print what the other side of a peering puts into its configuration: the WireGuard tunnel and the BGP sessions, for another rlr
or for a router with BIRD 2 and wg-quick. NAME is a neighbour's or an interface's; it is not needed with one peering only.

The configuration is that of the running router, or FILE. Nothing secret is printed: private and preshared keys are the names of
files, which the other side has or is given by another way.`,
		Example: "  rlr peer alice --endpoint router1.example.net\n  rlr peer -c router.yaml alice --for bird --endpoint 203.0.113.5",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if writer != forRLR && writer != forBIRD {
				return usage("--for: the other side has %s or %s, not %q", forRLR, forBIRD, writer)
			}
			if file == "" {
				err := o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
					st, err := c.Status(ctx)
					file = st.Config
					return err
				})
				if err != nil {
					return err
				}
			}
			all, err := peerings(file)
			if err != nil {
				return err
			}
			p, err := choosePeering(all, args)
			if err != nil {
				return err
			}
			if p.Us.Endpoint, err = ourEndpoint(p, endpoint); err != nil {
				return err
			}
			if err := p.Find(); err != nil {
				return usage("%v", err)
			}
			return printPeering(cmd, o, p, writer)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if file == "" {
				return completeNeighbors(cmd, args, word)
			}
			all, err := peerings(file)
			if err != nil || len(args) > 0 {
				return nil, noFiles
			}
			return filterPrefix(peeringNames(all), word), noFiles
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE` (default that of the running router)")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	cmd.Flags().StringVar(&writer, "for", forRLR, "what the other side has: `rlr` or bird")
	must(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{forBIRD, forRLR}, noFiles)))
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "where the other side finds us: `HOST`, or HOST:PORT")
	must(cmd.RegisterFlagCompletionFunc("endpoint", cobra.NoFileCompletions))
	return cmd
}

func peeringNames(all []peering.Peering) []string {
	var names []string
	for _, p := range all {
		names = append(names, p.Neighbors...)
	}
	return names
}

// choosePeering finds the one that is meant, by its interface or one of its neighbours.
func choosePeering(all []peering.Peering, args []string) (peering.Peering, error) {
	names := peeringNames(all)
	switch {
	case len(all) == 0:
		return peering.Peering{}, usage("no neighbor of this configuration is on a wireguard interface")
	case len(args) == 0 && len(all) > 1:
		return peering.Peering{}, usage("several peerings are there: say which, %s", strings.Join(names, ", "))
	case len(args) == 0:
		return all[0], nil
	}
	name, err := unique(args[0], names)
	if err != nil {
		return peering.Peering{}, err
	}
	for _, p := range all {
		for _, n := range p.Neighbors {
			if n == name {
				return p, nil
			}
		}
		if p.Interface == args[0] {
			return p, nil
		}
	}
	return peering.Peering{}, usage("no peering %q: there is %s", args[0], strings.Join(names, ", "))
}

// ourEndpoint is where the other side finds us: as --endpoint says, else as the configuration does.
func ourEndpoint(p peering.Peering, said string) (string, error) {
	if said == "" {
		return p.Us.Endpoint, nil
	}
	e, err := peering.ParseEndpoint(said, p.Us.Port)
	switch {
	case err != nil && p.Us.Port == 0:
		return "", usage("--endpoint: interface %s listens at any free port; give it one by listen: \":PORT\", or say HOST:PORT if you know it", p.Interface)
	case err != nil:
		return "", usage("--endpoint: %v", err)
	}
	return e, nil
}

func printPeering(cmd *cobra.Command, o *options, p peering.Peering, writer string) error {
	theirs := p.Reverse()
	parts := theirs.RLR()
	if writer == forBIRD {
		parts = theirs.BIRD()
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), struct {
			Name  string         `json:"name"`
			For   string         `json:"for"`
			Parts []peering.Part `json:"parts"`
		}{p.Interface, writer, parts})
	}
	s := o.screen(cmd)
	s.printf("# The peering of AS %s with AS %s, for the side of AS %s.\n", as(theirs.Us.AS), as(theirs.Them.AS), as(theirs.Us.AS))
	if theirs.Them.Endpoint == "" {
		s.printf("# We connect to you: there is no endpoint of ours.\n")
	}
	for _, part := range parts {
		s.printf("\n# Into %s:\n%s", part.Into, part.Text)
	}
	return s.done()
}

func as(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
