package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

func showROA(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "roa [PREFIX]",
		Short: "ROAs: who may announce which prefix, and where that is known from",
		Long: `ROAs: who may announce which prefix, and where that is known from.

With PREFIX, those that cover it, which decide on its routes, and those within it. AS 0 means that nobody may.
A source is
  ok          and in use, where it is marked with a *
  stale       in use, but what came after it was bad, or nothing came
  standby     a server that is not needed, for a better one is there
  connecting  not heard of yet
  failed      without data
  expired     a server that was silent for so long that its data is not used any more`,
		Example: `  rlr show roa
  rlr show roa 172.20.1.0/24
  rlr show roa --json`,
		Annotations:       map[string]string{wholeWord: "sh ro is show route, as in birdc"},
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var f ctl.ROAFilter
			if len(args) == 1 {
				var err error
				if f.Prefix, err = roaPrefix(args[0]); err != nil {
					return err
				}
			}
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			st, err := client.ROA(cmd.Context())
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(cmd.OutOrStdout(), tableBuffer)
			if o.json {
				err = roaJSON(cmd.Context(), w, client, st, f)
			} else {
				err = renderROA(cmd.Context(), &screen{w: w, colour: Coloured(cmd.OutOrStdout())}, client, st, f)
			}
			return cmp.Or(w.Flush(), err)
		},
	}
}

// roaPrefix reads a prefix, or an address for the prefix of it alone.
func roaPrefix(arg string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(arg); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	var p netip.Prefix
	if err := setPrefix(&p, arg); err != nil {
		return p, usage("%q is neither a prefix such as 172.20.1.0/24, without host bits, nor an address", arg)
	}
	return p, nil
}

// roaJSON prints one object: the status, and the ROAs as they come.
func roaJSON(ctx context.Context, w io.Writer, client *ctl.Client, st ctl.ROAStatus, f ctl.ROAFilter) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s,\n  \"roas\": ", strings.TrimSuffix(string(b), "\n}")); err != nil {
		return err
	}
	if err := streamJSON(w, func(visit func(ctl.ROA) error) error { return client.ROAs(ctx, f, visit) }); err != nil {
		return err
	}
	_, err = io.WriteString(w, "}\n")
	return err
}

func renderROA(ctx context.Context, s *screen, client *ctl.Client, st ctl.ROAStatus, f ctl.ROAFilter) error {
	if st.Policy == "" {
		s.printf("routes are not validated: the configuration has no roa\n")
		return s.done()
	}
	s.printf("policy %s, %d IPv4 and %d IPv6 ROAs\n\n", s.paint(bold, st.Policy), st.IPv4, st.IPv6)
	t := newTable("", "Kind", "Source", "State", " IPv4", " IPv6", " Serial", " Age", "Last error")
	for _, r := range st.Sources {
		mark, serial, age, trouble := "", "-", "-", "-"
		if r.Used {
			mark = "*"
		}
		if r.Serial != nil {
			serial = count(*r.Serial)
		}
		if r.AgeS != nil {
			age = ago(*r.AgeS)
		}
		if r.LastError != "" {
			trouble = fmt.Sprintf("%s (%s ago)", clean(r.LastError), ago(r.LastErrorAgoS))
		}
		name := clean(r.Name)
		if r.Over == "dataplane" {
			name += " over the dataplane"
		}
		t.add(c(mark), c(r.Kind), c(name), styled(stateStyle(r.State), r.State), c(count(r.IPv4)), c(count(r.IPv6)), c(serial), c(age), c(trouble))
	}
	t.print(s)
	for _, r := range st.Sources {
		if r.Skipped > 0 {
			s.printf("%s: %s\n", clean(r.Name), s.paint(notice, fmt.Sprintf("%d entries are no ROA; the first: %s", r.Skipped, clean(r.SkippedBy))))
		}
	}
	s.printf("\n%s\n", s.paint(bold, fmt.Sprintf("%-28s %3s %10s  %s", "Prefix", "Max", "AS", "Sources")))
	none := true
	err := client.ROAs(ctx, f, func(r ctl.ROA) error {
		none = false
		s.printf("%-28s %3d %10d  %s\n", clean(r.Prefix), r.MaxLength, r.AS, clean(strings.Join(r.Sources, ", ")))
		return s.done()
	})
	if err == nil && none && f.Prefix.IsValid() {
		s.printf("none covers %s: its routes are unknown\n", f.Prefix)
	}
	return cmp.Or(err, s.done())
}
