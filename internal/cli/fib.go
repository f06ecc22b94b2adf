package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// fibTimeout bounds `rlr fib`: reading and writing a million routes takes its time.
const fibTimeout = 10 * time.Minute

func fibCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fib",
		Short: "Stop writing routes to the dataplane, go on, or compare",
		Long: `Stop writing routes to the dataplane, go on with it, or compare what is there with what should be.

What the dataplane holds of ours forwards all the time. The protocols are not affected: what they learn while the
router is decoupled is written when it is coupled again. It stays decoupled over rlr reload, and not over a restart.`,
		Example: "  rlr fib decouple\n  rlr fib resync\n  rlr fib couple",
		Args:    cobra.NoArgs,
		RunE:    doWhat,
	}
	cmd.AddCommand(
		fibAction(o, ctl.FIBCouple, "Write routes to the dataplane again: read it, and write what differs", ""),
		fibAction(o, ctl.FIBDecouple, "Write no routes to the dataplane; what is there stays and forwards", ""),
		fibAction(o, ctl.FIBResync, "Read the dataplane's routes now, print what differs, and repair it", `

While the router is decoupled, nothing is repaired: the command then tells what coupling would do.`),
	)
	return cmd
}

func fibAction(o *options, action, short, more string) *cobra.Command {
	return &cobra.Command{
		Use: action, Short: short,
		Long:    short + "." + more,
		Example: "  rlr fib " + action,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.askFor(cmd, fibTimeout, func(ctx context.Context, c *ctl.Client) error {
				r, err := c.FIBDo(ctx, ctl.FIBRequest{Action: action})
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), r)
				}
				s := o.screen(cmd)
				renderFIBResult(s, r)
				return s.done()
			})
		},
	}
}

func renderFIBResult(s *screen, r ctl.FIBResult) {
	if !r.Read {
		s.printf("%s\n", clean(r.Message))
		return
	}
	differ := r.Missing + r.Changed + r.Extra
	s.printf("%s: the dataplane holds %d routes, ", clean(r.Message), r.Held)
	if differ == 0 {
		s.printf("%s\n", s.paint(good, "as they should be"))
	} else {
		s.printf("%s: %d missing, %d changed, %d extra; ", s.paint(notice, fmt.Sprintf("%d differ", differ)), r.Missing, r.Changed, r.Extra)
		s.printf("%s\n", strings.Join(outcomes(s, r), ", "))
	}
	if r.Stale > 0 {
		s.printf("%d are left over from before and stay until the protocols have said what they want\n", r.Stale)
	}
	if len(r.Differences) == 0 {
		return
	}
	t := newTable("Prefix", "Table", "Was", "Is", "Error")
	for _, d := range r.Differences {
		t.add(c(d.Prefix), c(clean(d.Table)), c(d.What), styled(stateStyle(d.State), d.State), styled(bad, clean(d.Error)))
	}
	t.print(s)
	if more := differ - len(r.Differences); more > 0 {
		s.printf("and %d more\n", more)
	}
}

func outcomes(s *screen, r ctl.FIBResult) (out []string) {
	add := func(n int, st style, what string) {
		if n > 0 {
			out = append(out, s.paint(st, fmt.Sprintf("%d %s", n, what)))
		}
	}
	add(r.Repaired, good, "repaired")
	add(r.Failed, bad, "failed")
	why := "waiting"
	if r.Decoupled {
		why = "not written, as the router is decoupled"
	}
	add(r.Waiting, notice, why)
	return out
}

// renderFIBStatus are the lines about routes of `show status`.
func renderFIBStatus(s *screen, line func(label, value string), st ctl.Status) {
	f := st.FIB
	routes := count(st.Routes)
	if f.BytesPerRoute > 0 {
		routes += fmt.Sprintf(", %d B each", f.BytesPerRoute)
	}
	if f.Learned > 0 {
		routes += fmt.Sprintf(", %d learned", f.Learned)
	}
	line("Routes", routes)
	if l := f.Latency; l.Count > 0 {
		line("", fmt.Sprintf("from UPDATE to dataplane: median %s, 99 %% %s", milliseconds(l.MedianMs), milliseconds(l.P99Ms)))
	}
	for _, state := range []string{"queued", "pending", "failed", "shadowed", "stale"} {
		if n := f.States[state]; n > 0 {
			line("", s.paint(stateStyle(state), fmt.Sprintf("%d %s", n, state)))
		}
	}
	if f.Decoupled {
		line("", s.paint(notice, decoupledText(f)))
	}
	if n := f.Drift.Missing + f.Drift.Changed + f.Drift.Extra; n > 0 {
		line("", s.paint(notice, fmt.Sprintf("%d changed by somebody else, %s ago", n, ago(f.Drift.LastAgoS))))
	}
}

func decoupledText(f ctl.FIBStatus) string {
	return fmt.Sprintf("decoupled for %s: no routes are written until rlr fib couple", ago(f.DecoupledS))
}

// decoupled heads the answer of a router that does not write.
func (p *fibPrinter) decoupled(f ctl.FIBStatus) {
	if f.Decoupled {
		p.printf("%s\n\n", p.paint(notice, decoupledText(f)))
	}
}
