// Package cli is the rlr command: the tree of commands, its abbreviations and completion, and the renderers.
//
// A command asks a running router over its control socket (internal/ctl) and renders the answer as text for people or, with
// --json, as JSON for programs. What needs the daemon's own packages (run, check, keys, labs) comes in as functions, so that this
// package knows nothing of the dataplane or of BGP and can be tested against canned answers.
//
// Text is written as the answer comes; JSON is one valid document per command, an array's rows a line each, so that a
// table of a million routes needs no memory here either.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
	"rlr/internal/peering"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1 // what was asked for did not work
	ExitUsage   = 2 // what was asked for cannot be meant: arguments, configuration
)

// Commands are the actions that need more than a running router. A nil one leaves its command out.
type Commands struct {
	Version string // of this program

	// Run runs a router in the foreground until ctx ends. For a wrong configuration it returns Problems.
	Run func(ctx context.Context, config string) error
	// Check returns what is wrong with a configuration, or its canonical form.
	Check func(config string) (canonical []byte, problems []Problem)

	// Peerings are the tunnels of a configuration with BGP sessions over them.
	Peerings func(config string) ([]peering.Peering, error)

	// Doctor says what the host allows.
	Doctor func() []Finding

	NewPrivateKey   func() (string, error)
	NewPresharedKey func() (string, error)
	PublicKey       func(private string) (string, error)

	Lab *Lab
}

// Problem is one mistake in a configuration.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // 0: the file as a whole
	Column  int    `json:"column"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are the error of a configuration that cannot be used: exit code 2, a line each.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Finding is a row of `rlr doctor`.
type Finding struct {
	Subject     string `json:"subject"`
	Value       string `json:"value"`
	OK          bool   `json:"ok"`
	Consequence string `json:"consequence"`
	Cure        string `json:"cure,omitempty"`
}

// usageError is a mistake in the arguments: exit code 2.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errSilent ends with exit code 1 where the output has said already what is wrong.
var errSilent = errors.New("failed")

// errInvalid ends with exit code 2 where the output has said already what is wrong.
var errInvalid = errors.New("invalid")

// Main runs the command line in args (without the program's name) and returns the exit code.
func Main(ctx context.Context, args []string, c Commands, stdin io.Reader, stdout, stderr io.Writer) int {
	root := New(c)
	args, err := expand(root, args)
	if err == nil {
		root.SetArgs(args)
		root.SetIn(stdin)
		root.SetOut(stdout)
		root.SetErr(stderr)
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return ExitOK
	}
	var problems Problems
	switch {
	case errors.Is(err, errSilent), errors.Is(err, errInvalid):
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems) // FILE:LINE:COL first, for editors
	default:
		fmt.Fprintln(stderr, "rlr:", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var u *usageError
	var p Problems
	switch {
	case errors.As(err, &u), errors.As(err, &p), errors.Is(err, errInvalid), errors.Is(err, ctl.ErrBadRequest):
		return ExitUsage
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"):
		return ExitUsage // cobra's own, which have no type
	}
	return ExitFailure
}

// options are the flags that every command has.
type options struct {
	router string
	json   bool
}

// New returns the command tree.
func New(c Commands) *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "rlr",
		Short: "A rootless userspace router on VPP",
		Long: `rlr is a router in one unprivileged process: BGP over a userspace TCP stack, WireGuard links,
and a dataplane driven through VPP's binary API.

Words may be abbreviated as long as they stay unique: "rlr sh ro" is "rlr show route".`,
		Example: `  rlr run -c router.yaml
  rlr show bgp
  rlr show route for 10.2.0.2`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&o.router, "router", "r", "",
		"router to ask: `NAME`, or LAB/NAME (not needed while only one runs)")
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON")
	must(root.RegisterFlagCompletionFunc("router", completeRouters))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v (see %s --help)", err, cmd.CommandPath())
	})
	root.AddCommand(
		showCommand(o), neighborCommand(o), routeCommand(o), policyCommand(o), fibCommand(o), pingCommand(o), tracerouteCommand(o), vppctlCommand(o),
		reloadCommand(o), restartCommand(o), stopCommand(o), versionCommand(o, c.Version), completionCommand(),
	)
	addDaemon(root, o, c)
	addPeering(root, o, c)
	addKeys(root, o, c)
	if c.Lab != nil {
		root.AddCommand(labCommand(o, c.Lab))
	}
	root.SetHelpCommand(helpCommand())
	wrapArgs(root)
	return root
}

// wrapArgs makes every complaint about arguments a usage error.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage("%v (see %s --help)", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// must reports a mistake in the tree itself, which every test that builds it would see.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// askTimeout bounds commands whose answer is known at once; a router that does not give it is stuck.
const askTimeout = 30 * time.Second

// client finds the router that is meant.
func (o *options) client() (*ctl.Client, ctl.Running, error) {
	r, err := ctl.Find(o.router)
	if err != nil {
		return nil, r, err
	}
	return ctl.NewClient(r), r, nil
}

// ask finds the router and calls f with a context that ends after askTimeout.
func (o *options) ask(cmd *cobra.Command, f func(context.Context, *ctl.Client) error) error {
	return o.askFor(cmd, askTimeout, f)
}

func (o *options) askFor(cmd *cobra.Command, timeout time.Duration, f func(context.Context, *ctl.Client) error) error {
	c, r, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	err = f(ctx, c)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("router %s (pid %d) does not answer", r.Name, r.PID)
	}
	return err
}

// screen returns where a command prints.
func (o *options) screen(cmd *cobra.Command) *screen {
	w := cmd.OutOrStdout()
	return &screen{w: w, colour: Coloured(w)}
}

// Coloured reports whether to use colours on w: a terminal, and nobody said no (no-color.org).
func Coloured(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && Terminal(w)
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]...",
		Short:   "Help about a command",
		Example: "  rlr help show route",
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := expand(cmd.Root(), args)
			if err != nil {
				return err
			}
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage("no command %q", strings.Join(args, " "))
			}
			return target.Help()
		},
	}
}

func versionCommand(o *options, version string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  rlr version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "rlr", version)
			return err
		},
	}
}
