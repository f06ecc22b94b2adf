package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Lab are the actions of `rlr lab`.
type Lab struct {
	List func() []LabScenario
	// Run plays a scenario with its checks. It prints to Out; ok is false where a check failed.
	Run func(ctx context.Context, r LabRun) (ok bool, err error)
	// Up starts a scenario that stays; Down stops it.
	Up   func(ctx context.Context, r LabRun) (LabState, error)
	Down func(ctx context.Context, name string) error
	// Cut drops every datagram of a link silently, Heal ends that.
	Cut  func(ctx context.Context, name, link string) error
	Heal func(ctx context.Context, name, link string) error
	// Relay carries the tunnels of a lab that is up; Up starts it.
	Relay func(ctx context.Context, dir string) error
	// Exec gives up all privileges and executes this program again with args; labs start their routers so.
	Exec func(args []string) error
}

// LabScenario is a row of `lab list`.
type LabScenario struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Routers []string `json:"routers"`
	Links   []string `json:"links"` // those that can be cut
	Checks  []string `json:"checks"`
	Running bool     `json:"running"`
}

// LabRun says how to play a scenario.
type LabRun struct {
	Name      string
	Dataplane string // "" and "auto": as the configuration says
	Sabotage  string // the check to break; "": none
	JSON      bool
	Out       io.Writer // the result
	Progress  io.Writer // one line per step
}

// LabState is what `lab up` started.
type LabState struct {
	Scenario string      `json:"scenario"`
	Dir      string      `json:"dir"`
	Routers  []LabRouter `json:"routers"`
	Links    []string    `json:"links"`
}

// LabRouter is one process of a lab.
type LabRouter struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`
	Config string `json:"config"`
	Log    string `json:"log"`
}

func labCommand(o *options, l *Lab) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Networks of several routers on this machine, to play with and to prove things",
		Long: `Networks of several routers on this machine, to play with and to prove things. Every router is a process of its
own, without privileges; nothing of the host's network is touched.`,
		Example: "  rlr lab run three-sites\n  rlr lab up three-sites && rlr -r router1 show bgp",
		Args:    cobra.NoArgs,
		RunE:    doWhat,
	}
	cmd.AddCommand(labList(o, l), labRun(o, l), labUp(o, l), labDown(o, l),
		labLink(o, l, "cut", "Drop every datagram of a link silently; its sockets stay open", l.Cut),
		labLink(o, l, "heal", "Let a cut link work again", l.Heal), labRelay(l), labExec(l))
	return cmd
}

func (l *Lab) names() []string {
	var names []string
	for _, s := range l.List() {
		names = append(names, s.Name)
	}
	return names
}

func (l *Lab) completeNames(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return filterPrefix(l.names(), word), noFiles
}

// scenario resolves an abbreviated name.
func (l *Lab) scenario(word string) (string, error) {
	name, err := unique(word, l.names())
	if err == nil && name == "" {
		err = usage("no lab %q: there is %s", word, strings.Join(l.names(), ", "))
	}
	return name, err
}

func labList(o *options, l *Lab) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The labs that there are", Example: "  rlr lab list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.json {
				return jsonRows(cmd.OutOrStdout(), l.List())
			}
			s := o.screen(cmd)
			t := newTable("Name", "State", " Routers", " Checks", "Summary")
			for _, sc := range l.List() {
				state := styled(faint, "down")
				if sc.Running {
					state = styled(good, "up")
				}
				t.add(c(sc.Name), state, c(count(len(sc.Routers))), c(count(len(sc.Checks))), c(sc.Summary))
			}
			t.print(s)
			return s.done()
		},
	}
}

func dataplaneFlag(cmd *cobra.Command, kind *string) {
	cmd.Flags().StringVar(kind, "dataplane", "auto", "`KIND` of dataplane: auto, embedded or vpp; with vpp there is no fallback")
	must(cmd.RegisterFlagCompletionFunc("dataplane", cobra.FixedCompletions([]string{"auto", "embedded", "vpp"}, noFiles)))
}

func checkDataplane(kind string) error {
	if kind != "auto" && kind != "embedded" && kind != "vpp" {
		return usage("--dataplane %q: auto, embedded or vpp", kind)
	}
	return nil
}

func labRun(o *options, l *Lab) *cobra.Command {
	var r LabRun
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Play a lab with all its checks and print a table of results",
		Long: `Play a lab with all its checks and print a table of results. The exit code is 0 if every check passed.

--sabotage CHECK breaks the network so that exactly that check fails: the proof that it can.`,
		Example:           "  rlr lab run three-sites\n  rlr lab run three-sites --sabotage routes",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: l.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := l.scenario(args[0])
			if err == nil {
				err = checkDataplane(r.Dataplane)
			}
			if err == nil {
				err = l.checkSabotage(name, r.Sabotage)
			}
			if err != nil {
				return err
			}
			r.Name, r.JSON, r.Out, r.Progress = name, o.json, cmd.OutOrStdout(), cmd.OutOrStdout()
			if o.json {
				r.Progress = cmd.ErrOrStderr()
			}
			ok, err := l.Run(cmd.Context(), r)
			if err == nil && !ok {
				err = errSilent
			}
			return err
		},
	}
	dataplaneFlag(cmd, &r.Dataplane)
	cmd.Flags().StringVar(&r.Sabotage, "sabotage", "", "break the network so that exactly `CHECK` fails")
	must(cmd.RegisterFlagCompletionFunc("sabotage", func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, noFiles
		}
		return filterPrefix(l.checks(args[0]), word), noFiles
	}))
	return cmd
}

func (l *Lab) checks(name string) []string {
	for _, s := range l.List() {
		if s.Name == name {
			return s.Checks
		}
	}
	return nil
}

func (l *Lab) checkSabotage(name, check string) error {
	if check == "" {
		return nil
	}
	for _, have := range l.checks(name) {
		if have == check {
			return nil
		}
	}
	return usage("lab %s has no check %q: %s", name, check, strings.Join(l.checks(name), ", "))
}

func labUp(o *options, l *Lab) *cobra.Command {
	var r LabRun
	cmd := &cobra.Command{
		Use:               "up NAME",
		Short:             "Start a lab to play with; it stays until rlr lab down",
		Example:           "  rlr lab up three-sites\n  rlr -r server1 ping 10.2.0.2",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: l.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := l.scenario(args[0])
			if err == nil {
				err = checkDataplane(r.Dataplane)
			}
			if err != nil {
				return err
			}
			r.Name, r.JSON, r.Out, r.Progress = name, o.json, cmd.OutOrStdout(), cmd.ErrOrStderr()
			st, err := l.Up(cmd.Context(), r)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), st)
			}
			s := o.screen(cmd)
			renderLabState(s, st)
			return s.done()
		},
	}
	dataplaneFlag(cmd, &r.Dataplane)
	return cmd
}

func renderLabState(s *screen, st LabState) {
	t := newTable("Router", " PID", "Configuration", "Log")
	for _, r := range st.Routers {
		t.add(c(r.Name), c(count(r.PID)), c(r.Config), c(r.Log))
	}
	t.print(s)
	first := "NAME"
	if len(st.Routers) > 0 {
		first = st.Routers[0].Name
	}
	s.printf("\nrlr -r %s show bgp\n", first)
	if len(st.Links) > 0 {
		s.printf("rlr lab cut %s %s    (links: %s)\n", st.Scenario, st.Links[0], strings.Join(st.Links, ", "))
	}
	s.printf("rlr lab down %s\n", st.Scenario)
}

// labDone prints that something was done.
func labDone(cmd *cobra.Command, o *options, message string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{"message": message})
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), message)
	return err
}

func labDown(o *options, l *Lab) *cobra.Command {
	return &cobra.Command{
		Use: "down NAME", Short: "Stop a lab and remove its files",
		Example:           "  rlr lab down three-sites",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: l.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := l.scenario(args[0])
			if err != nil {
				return err
			}
			if err := l.Down(cmd.Context(), name); err != nil {
				return err
			}
			return labDone(cmd, o, "lab "+name+" is down")
		},
	}
}

func labLink(o *options, l *Lab, verb, short string, do func(context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME LINK", Short: short,
		Example: "  rlr lab " + verb + " three-sites tun12",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return filterPrefix(l.names(), word), noFiles
			}
			return filterPrefix(l.links(args), word), noFiles
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := l.scenario(args[0])
			if err != nil {
				return err
			}
			if err := do(cmd.Context(), name, args[1]); err != nil {
				return err
			}
			return labDone(cmd, o, fmt.Sprintf("link %s of lab %s: %s", args[1], name, map[string]string{"cut": "cut", "heal": "healed"}[verb]))
		},
	}
}

func (l *Lab) links(args []string) []string {
	for _, s := range l.List() {
		if len(args) == 1 && s.Name == args[0] {
			return s.Links
		}
	}
	return nil
}

func labRelay(l *Lab) *cobra.Command {
	return &cobra.Command{
		Use: "relay DIR", Short: "Carry the tunnels of a lab that is up", Hidden: true,
		Example: "  rlr lab relay /run/user/1000/rlr/three-sites-0a1b2c3d",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return l.Relay(cmd.Context(), args[0]) },
	}
}

func labExec(l *Lab) *cobra.Command {
	return &cobra.Command{
		Use: "exec -- ARGUMENT...", Short: "Give up all privileges, then be rlr with these arguments", Hidden: true,
		Example: "  rlr lab exec -- run -c router.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return l.Exec(args) },
	}
}
