// Command rlr is a rootless userspace router: `rlr run` is the router, everything else asks or plays with one.
//
// This package only wires: it turns a configuration into the parts' own settings (wire.go), starts them in the order in
// which they depend on each other (router.go, stages.go), and answers the control socket from what they know (answer*.go).
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"rlr/hoststack"
	"rlr/internal/cli"
	"rlr/internal/config"
	"rlr/rootless"
	"rlr/wg"
)

// version is set by the linker.
var version = "dev"

func main() {
	if len(os.Args) == 2 && os.Args[1] == helperCommand {
		if err := hoststack.HelperMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], commands(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func commands() cli.Commands {
	return cli.Commands{
		Version:  version,
		Run:      run,
		Check:    check,
		Peerings: peerings,
		Doctor: func() []cli.Finding {
			var out []cli.Finding
			for _, f := range rootless.Probe("/").Findings() {
				out = append(out, cli.Finding(f))
			}
			return out
		},
		NewPrivateKey: func() (string, error) {
			k, err := wg.NewPrivateKey()
			return k.Base64(), err
		},
		NewPresharedKey: func() (string, error) {
			k, err := wg.NewPresharedKey()
			return k.Base64(), err
		},
		Lab: labCommands(),
		PublicKey: func(private string) (string, error) {
			k, err := wg.ParsePrivateKey(private)
			if err != nil {
				return "", err
			}
			return k.Public().String(), nil
		},
	}
}

// run is `rlr run`: a router, and the same again for as long as it ends with errRestart.
func run(ctx context.Context, path string) error {
	err := runRouter(ctx, path)
	var mistakes config.Errors
	switch {
	case errors.As(err, &mistakes):
		return cli.Problems(problems(mistakes))
	case !errors.Is(err, errRestart):
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	// The same process id, so that whoever supervises us does not notice; the binary may be a newer one.
	return fmt.Errorf("restart %s: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}

func problems(mistakes config.Errors) []cli.Problem {
	out := make([]cli.Problem, len(mistakes))
	for i, m := range mistakes {
		out[i] = cli.Problem{File: m.File, Line: m.Line, Column: m.Col, Message: m.Msg}
	}
	return out
}

// check is `rlr check`.
func check(path string) ([]byte, []cli.Problem) {
	cfg, err := loadConfig(path)
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		return nil, problems(mistakes)
	}
	if err != nil {
		return nil, []cli.Problem{{File: path, Message: err.Error()}}
	}
	var b bytes.Buffer
	if err := cfg.Print(&b); err != nil {
		return nil, []cli.Problem{{File: path, Message: err.Error()}}
	}
	return b.Bytes(), nil
}
