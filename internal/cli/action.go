package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// addDaemon adds the commands that read a configuration themselves.
func addDaemon(root *cobra.Command, o *options, c Commands) {
	if c.Run != nil {
		root.AddCommand(runCommand(c.Run))
	}
	if c.Check != nil {
		root.AddCommand(checkCommand(o, c.Check))
	}
	if c.Doctor != nil {
		root.AddCommand(doctorCommand(o, c.Doctor))
	}
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `FILE`")
	must(cmd.MarkFlagRequired("config"))
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
}

func runCommand(run func(context.Context, string) error) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a router in the foreground",
		Long: `Run a router in the foreground until SIGTERM or SIGINT, or rlr stop.

No privilege is needed. SIGHUP is rlr reload.`,
		Example: "  rlr run -c router.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), file) },
	}
	configFlag(cmd, &file)
	return cmd
}

func checkCommand(o *options, check func(string) ([]byte, []Problem)) *cobra.Command {
	var file string
	var canonical bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration without running it",
		Long: `Check a configuration without running it.

Each mistake is one line, FILE:LINE:COL: what is wrong, and what would be right; the exit code is then 2.`,
		Example: "  rlr check -c router.yaml\n  rlr check -c router.yaml --print",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, problems := check(file)
			if o.json {
				return checkJSON(cmd.OutOrStdout(), text, problems, canonical)
			}
			for _, p := range problems {
				fmt.Fprintln(cmd.ErrOrStderr(), p)
			}
			if len(problems) > 0 {
				return errInvalid
			}
			if canonical {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
			return err
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&canonical, "print", false, "print the canonical form")
	return cmd
}

func checkJSON(w io.Writer, text []byte, problems []Problem, canonical bool) error {
	out := struct {
		OK       bool      `json:"ok"`
		Problems []Problem `json:"problems"`
		Config   string    `json:"config,omitempty"`
	}{OK: len(problems) == 0, Problems: append([]Problem{}, problems...)}
	if canonical {
		out.Config = string(text)
	}
	if err := printJSON(w, out); err != nil {
		return err
	}
	if !out.OK {
		return errInvalid
	}
	return nil
}

func doctorCommand(o *options, doctor func() []Finding) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host allows, what follows for a router, and what to do about it",
		Long: `Say what this host allows, what follows for a router, and what to do about it.

The exit code is 1 where something would keep a router from working well.`,
		Example: "  rlr doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, fine := doctor(), true
			for _, f := range findings {
				fine = fine && f.OK
			}
			var err error
			if o.json {
				err = printJSON(cmd.OutOrStdout(), findings)
			} else {
				err = printFindings(o.screen(cmd), findings)
			}
			if err == nil && !fine {
				err = errSilent
			}
			return err
		},
	}
}

func printFindings(s *screen, findings []Finding) error {
	t := newTable("", "Subject", "Value", "What follows")
	for _, f := range findings {
		mark := styled(good, "ok")
		if !f.OK {
			mark = styled(bad, "!!")
		}
		t.add(mark, c(clean(f.Subject)), c(clean(f.Value)), c(clean(f.Consequence)))
		if f.Cure != "" {
			t.add(c(""), c(""), c(""), c("→ "+clean(f.Cure)))
		}
	}
	t.print(s)
	return s.done()
}

// printDone prints what an action did.
func printDone(cmd *cobra.Command, o *options, d ctl.Done) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), d)
	}
	s := o.screen(cmd)
	s.printf("%s\n", clean(d.Message))
	for _, line := range d.Changes {
		s.printf("  %s\n", clean(line))
	}
	return s.done()
}

func reloadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again and apply the difference",
		Long: `Read the configuration again and apply the difference. Sessions and links that did not change stay up.
A configuration with mistakes changes nothing.`,
		Example: "  rlr reload\n  rlr -r router1 reload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				d, err := c.Reload(ctx)
				if err != nil {
					return err
				}
				return printDone(cmd, o, d)
			})
		},
	}
}

func restartCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Stop the router and execute it again; a dataplane that outlives it keeps forwarding",
		Long: `Stop the router and execute it again, perhaps in a newer version. A VPP keeps forwarding meanwhile; the
embedded dataplane stops with the router. The command returns when the router answers again.`,
		Example: "  rlr restart",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				before, err := c.Status(ctx)
				if err != nil {
					return err
				}
				d, err := c.Restart(ctx)
				if err != nil {
					return err
				}
				if err := waitRestarted(ctx, o, before); err != nil {
					return err
				}
				return printDone(cmd, o, d)
			})
		},
	}
}

// waitRestarted waits for an answer of a router that is younger than before.
func waitRestarted(ctx context.Context, o *options, before ctl.Status) error {
	asked := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the router did not come back: see its log: %w", ctx.Err())
		case <-tick.C:
		}
		client, _, err := o.client()
		if err != nil {
			continue
		}
		st, err := client.Status(ctx)
		client.Close()
		if err == nil && (st.PID != before.PID || st.UptimeS < before.UptimeS+time.Since(asked).Seconds()/2) {
			return nil
		}
	}
}

func stopCommand(o *options) *cobra.Command {
	var r ctl.StopRequest
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the router",
		Long: `Stop the router: close its BGP sessions properly, remove its state from the dataplane it started, and stop that.
A dataplane that it only attached to keeps forwarding, unless --clean removes our state there too.`,
		Example: "  rlr stop\n  rlr -r router1 stop --clean",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, running, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
			defer cancel()
			d, err := client.Stop(ctx, r)
			if err != nil {
				return err
			}
			if err := running.WaitStopped(ctx); err != nil {
				return err
			}
			return printDone(cmd, o, d)
		},
	}
	cmd.Flags().BoolVar(&r.Clean, "clean", false, "remove our state also from a dataplane that stays")
	return cmd
}

func vppctlCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vppctl COMMAND...",
		Short: "Run a command of the dataplane's own command line",
		Long: `Run a command of the dataplane's own command line, as VPP's vppctl does. The embedded dataplane answers a
documented part of it ("rlr vppctl help").`,
		Example:           "  rlr vppctl show interface\n  rlr vppctl show ip fib 10.2.0.0/24",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				r, err := c.VPPCtl(ctx, strings.Join(args, " "))
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), r)
				}
				out := r.Output
				if out != "" && !strings.HasSuffix(out, "\n") {
					out += "\n"
				}
				_, err = io.WriteString(cmd.OutOrStdout(), out)
				return err
			})
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the first word is the dataplane's
	return cmd
}

// addKeys adds WireGuard's key commands, which work as those of wg(8).
func addKeys(root *cobra.Command, o *options, c Commands) {
	if c.NewPrivateKey != nil {
		root.AddCommand(keyCommand(o, "genkey", "Make a WireGuard private key", "  (umask 077; rlr genkey > router1.key)",
			"private_key", c.NewPrivateKey))
	}
	if c.NewPresharedKey != nil {
		root.AddCommand(keyCommand(o, "genpsk", "Make a WireGuard preshared key", "  (umask 077; rlr genpsk > tun12.psk)",
			"preshared_key", c.NewPresharedKey))
	}
	if c.PublicKey == nil {
		return
	}
	root.AddCommand(&cobra.Command{
		Use: "pubkey", Short: "Print the public key of the WireGuard private key on standard input",
		Example: "  rlr pubkey < router1.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
			if err != nil {
				return fmt.Errorf("read the private key: %w", err)
			}
			key, err := c.PublicKey(strings.TrimSpace(string(in)))
			if err != nil {
				return usage("%v", err)
			}
			return printKey(cmd, o, "public_key", key)
		},
	})
}

func keyCommand(o *options, use, short, example, field string, make func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := make()
			if err != nil {
				return err
			}
			return printKey(cmd, o, field, key)
		},
	}
}

func printKey(cmd *cobra.Command, o *options, field, key string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{field: key})
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), key)
	return err
}
