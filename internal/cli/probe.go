package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// probeFlags are what ping and traceroute have in common.
func probeFlags(cmd *cobra.Command, r *ctl.ProbeRequest, timeout *time.Duration) {
	f := cmd.Flags()
	f.StringVarP(&r.Source, "source", "S", "", "source `ADDRESS`")
	f.StringVarP(&r.Interface, "interface", "I", "", "leave by the interface `NAME`")
	f.StringVar(&r.VRF, "vrf", "", "look routes up in the VRF `NAME`")
	f.IntVarP(&r.Size, "size", "s", 56, "payload `BYTES`")
	f.DurationVarP(timeout, "timeout", "W", time.Second, "how long to wait for each answer")
	must(cmd.RegisterFlagCompletionFunc("interface", func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return completeInterfaces(cmd, nil, word)
	}))
}

func pingCommand(o *options) *cobra.Command {
	var r ctl.ProbeRequest
	var interval, timeout time.Duration
	cmd := &cobra.Command{
		Use:   "ping ADDRESS",
		Short: "Send echo requests from the router's dataplane",
		Long: `Send echo requests from the router's dataplane.

The exit code is 0 if at least one answer came. With --json the answers are printed as they come, in one document:
{"target": …, "replies": [{…}, …], "summary": {…}}.`,
		Example: `  rlr ping 10.2.0.2
  rlr ping fe80::2%tun12 -c 3`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Target, r.IntervalS, r.TimeoutS = args[0], interval.Seconds(), timeout.Seconds()
			if r.Count < 0 || interval <= 0 || timeout <= 0 {
				return usage("--count is 0 or more, --interval and --timeout are more than 0")
			}
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			out := pingText(o.screen(cmd), r)
			if o.json {
				out = pingJSON(cmd.OutOrStdout(), r)
			}
			return runPing(cmd, client, r, out)
		},
	}
	cmd.Flags().IntVarP(&r.Count, "count", "c", 4, "how many requests; 0 is until interrupted")
	cmd.Flags().DurationVarP(&interval, "interval", "i", time.Second, "time between requests")
	cmd.Flags().IntVarP(&r.TTL, "ttl", "t", 64, "TTL or hop limit of the requests")
	cmd.Flags().BoolVarP(&r.DontFrag, "dont-fragment", "D", false, "do not let routers fragment the requests")
	probeFlags(cmd, &r, &timeout)
	return cmd
}

// pingOutput prints a ping; start is called before the first reply.
type pingOutput struct {
	start func() error
	reply func(ctl.ProbeReply) error
	end   func(ctl.ProbeSummary) error
}

func runPing(cmd *cobra.Command, client *ctl.Client, r ctl.ProbeRequest, out pingOutput) error {
	started := false
	begin := func() error {
		if started {
			return nil
		}
		started = true
		return out.start()
	}
	seen := newTally()
	sum, err := client.Ping(cmd.Context(), r, func(p ctl.ProbeReply) error {
		seen.add(p)
		if err := begin(); err != nil {
			return err
		}
		return out.reply(p)
	})
	if err != nil {
		if cmd.Context().Err() == nil {
			return err
		}
		sum = seen.summary() // interrupted: the summary is of what was seen
	}
	if err := begin(); err != nil {
		return err
	}
	if err := out.end(sum); err != nil {
		return err
	}
	if sum.Received == 0 {
		return errSilent
	}
	return nil
}

// tally sums replies up as a router does.
type tally struct {
	sum   ctl.ProbeSummary
	total float64
}

func newTally() *tally { return &tally{} }

func (t *tally) add(p ctl.ProbeReply) {
	t.sum.Sent++
	if p.Error != "" || p.From == "" {
		return
	}
	if t.sum.Received == 0 || p.RTTMs < t.sum.MinMs {
		t.sum.MinMs = p.RTTMs
	}
	t.sum.MaxMs = max(t.sum.MaxMs, p.RTTMs)
	t.sum.Received++
	t.total += p.RTTMs
}

func (t *tally) summary() ctl.ProbeSummary {
	s := t.sum
	if s.Received > 0 {
		s.AvgMs = t.total / float64(s.Received)
	}
	if s.Sent > 0 {
		s.LossPercent = 100 * float64(s.Sent-s.Received) / float64(s.Sent)
	}
	return s
}

func pingText(s *screen, r ctl.ProbeRequest) pingOutput {
	return pingOutput{
		start: func() error {
			s.printf("PING %s: %d data bytes\n", r.Target, r.Size)
			return s.done()
		},
		reply: func(p ctl.ProbeReply) error {
			switch {
			case p.Error != "" && p.From != "":
				s.printf("from %s: seq=%d %s\n", p.From, p.Seq, s.paint(bad, clean(p.Error)))
			case p.Error != "":
				s.printf("seq=%d %s\n", p.Seq, s.paint(bad, clean(p.Error)))
			default:
				s.printf("%d bytes from %s: seq=%d ttl=%d time=%s\n", p.Bytes, p.From, p.Seq, p.TTL, milliseconds(p.RTTMs))
			}
			return s.done()
		},
		end: func(sum ctl.ProbeSummary) error {
			s.printf("--- %s: %d sent, %d received, %.0f%% lost\n", r.Target, sum.Sent, sum.Received, sum.LossPercent)
			if sum.Received > 0 {
				s.printf("round trip min/avg/max %.3f/%.3f/%.3f ms\n", sum.MinMs, sum.AvgMs, sum.MaxMs)
			}
			return s.done()
		},
	}
}

func pingJSON(w io.Writer, r ctl.ProbeRequest) pingOutput {
	replies := &jsonArray{w: w}
	return pingOutput{
		start: func() error { return jsonLead(w, r.Target, "replies") },
		reply: func(p ctl.ProbeReply) error { return replies.add(p) },
		end: func(sum ctl.ProbeSummary) error {
			b, err := json.Marshal(sum)
			if err != nil {
				return fmt.Errorf("print JSON: %w", err)
			}
			if err := replies.close(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, ",\"summary\":%s}\n", b)
			return err
		},
	}
}

// jsonLead begins an object whose last field is an array that is printed as it comes.
func jsonLead(w io.Writer, target, field string) error {
	b, err := json.Marshal(target)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "{\"target\":%s,%q:", b, field)
	return err
}

func tracerouteCommand(o *options) *cobra.Command {
	var r ctl.ProbeRequest
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "traceroute ADDRESS",
		Short: "Show the routers on the way to an address",
		Long: `Show the routers on the way to an address.

The exit code is 0 if the address itself answered. With --json the answers are printed as they come, in one document:
{"target": …, "hops": [{…}, …], "reached": true}.`,
		Example:           `  rlr traceroute 10.2.0.2`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Target, r.TimeoutS = args[0], timeout.Seconds()
			if r.Count < 1 || r.MaxHops < 1 || r.MaxHops > 255 || timeout <= 0 {
				return usage("--count is 1 or more, --max-hops 1 to 255, --timeout more than 0")
			}
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if o.json {
				return tracerouteJSON(cmd, client, r)
			}
			return tracerouteText(cmd, client, r, o.screen(cmd))
		},
	}
	cmd.Flags().IntVarP(&r.Count, "count", "q", 1, "probes for each hop")
	cmd.Flags().IntVarP(&r.MaxHops, "max-hops", "m", 30, "how far to go")
	probeFlags(cmd, &r, &timeout)
	return cmd
}

func tracerouteText(cmd *cobra.Command, client *ctl.Client, r ctl.ProbeRequest, s *screen) error {
	hop, from, reached := 0, "", false
	err := client.Traceroute(cmd.Context(), r, func(p ctl.ProbeReply) error {
		if hop == 0 {
			s.printf("traceroute to %s, %d hops at most", r.Target, r.MaxHops)
		}
		if p.Hop != hop {
			s.printf("\n%2d ", p.Hop)
			hop, from = p.Hop, ""
		}
		switch {
		case p.From == "":
			s.printf(" *")
		case p.From == from:
			s.printf("  %s", milliseconds(p.RTTMs))
		default:
			s.printf(" %s  %s", p.From, milliseconds(p.RTTMs))
			from = p.From
		}
		if p.From != "" && p.Error != "" && p.Error != timeExceeded {
			s.printf(" %s", s.paint(bad, clean(p.Error)))
		}
		reached = reached || p.Final && p.Error == ""
		return s.done()
	})
	if hop > 0 {
		s.printf("\n")
	}
	return errors.Join(err, s.done(), unreached(err, reached))
}

// timeExceeded is the error of a hop on the way, which is what traceroute wants.
const timeExceeded = "time exceeded"

func unreached(err error, reached bool) error {
	if err == nil && !reached {
		return errSilent
	}
	return nil
}

func tracerouteJSON(cmd *cobra.Command, client *ctl.Client, r ctl.ProbeRequest) error {
	w := cmd.OutOrStdout()
	hops := &jsonArray{w: w}
	started, reached := false, false
	start := func() error {
		if started {
			return nil
		}
		started = true
		return jsonLead(w, r.Target, "hops")
	}
	err := client.Traceroute(cmd.Context(), r, func(p ctl.ProbeReply) error {
		reached = reached || p.Final && p.Error == ""
		return errors.Join(start(), hops.add(p))
	})
	if err == nil {
		err = errors.Join(start(), hops.close())
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, ",\"reached\":%t}\n", reached); err != nil {
		return err
	}
	return unreached(nil, reached)
}
