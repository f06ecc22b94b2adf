package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestGoBGP plays testdata/gobgp with the stock gobgp command, of the version that the router is built with, on both
// dataplanes.
func TestGoBGP(t *testing.T) {
	command := installGoBGP(t)
	watchers := &watchers{all: map[string]*watcher{}}
	cmds := scriptCommands()
	cmds["gobgp"] = func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec(command, append([]string{"--target", apiTarget(ts)}, args...)...)
		if (err == nil) == neg {
			ts.Fatalf("gobgp %q: error %v", args, err)
		}
	}
	cmds["monitor"] = watchers.monitor(command)
	cmds["seen"] = watchers.seen
	onBoth(t, testscript.Params{Dir: "testdata/gobgp", Cmds: cmds})
}

func apiTarget(ts *testscript.TestScript) string {
	return "unix://" + filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), "r1", "gobgp.sock")
}

// installGoBGP builds the command with go install, as its users do.
func installGoBGP(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command to install gobgp with")
	}
	version := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/osrg/gobgp/v4" {
				version = m.Version
			}
		}
	}
	if version == "" {
		t.Fatal("this test is not built with GoBGP")
	}
	dir := t.TempDir()
	cmd := exec.Command(tool, "install", "github.com/osrg/gobgp/v4/cmd/gobgp@"+version)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("gobgp %s cannot be installed; is the module proxy reachable? %v\n%s", version, err, out)
	}
	return filepath.Join(dir, "gobgp")
}

// watchers are gobgp monitors that run beside the script.
type watchers struct{ all map[string]*watcher }

type watcher struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// monitor starts one: monitor NAME gobgp ARG....
func (l *watchers) monitor(command string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) < 3 || neg {
			ts.Fatalf("usage: monitor NAME gobgp ARG...")
		}
		w := &watcher{}
		l.all[args[0]] = w
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, command, append([]string{"--target", apiTarget(ts)}, args[2:]...)...)
		cmd.Stdout, cmd.Stderr = w, w
		ts.Check(cmd.Start())
		ts.Defer(func() {
			cancel()
			_ = cmd.Wait() // it was killed, or the router has ended
		})
	}
}

// seen waits until a monitor has printed something: seen NAME PATTERN.
func (l *watchers) seen(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg || l.all[args[0]] == nil {
		ts.Fatalf("usage: seen NAME PATTERN")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !re.MatchString(l.all[args[0]].String()); <-tick.C {
		if time.Now().After(deadline) {
			ts.Fatalf("not in time: %q in the output of monitor %s:\n%s", args[1], args[0], l.all[args[0]])
		}
	}
}
