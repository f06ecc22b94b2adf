package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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
	cmds["api"] = callAPI
	cmds["monitor"] = watchers.monitor(command)
	cmds["seen"] = watchers.seen
	onBoth(t, testscript.Params{Dir: "testdata/gobgp", Cmds: cmds})
}

// callAPI calls what the gobgp command has no words for: api [-fails PATTERN] METHOD ARG....
func callAPI(ts *testscript.TestScript, neg bool, args []string) {
	fails := ""
	if len(args) > 1 && args[0] == "-fails" {
		fails, args = args[1], args[2:]
	}
	if len(args) < 2 || neg {
		ts.Fatalf("usage: api [-fails PATTERN] METHOD ARG...")
	}
	conn, err := grpc.NewClient(apiTarget(ts), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	client := api.NewGoBgpServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	group := func() *api.PeerGroup {
		as, err := strconv.ParseUint(args[2], 10, 32)
		ts.Check(err)
		hold, err := strconv.ParseUint(args[3], 10, 16)
		ts.Check(err)
		return &api.PeerGroup{
			Conf:   &api.PeerGroupConf{PeerGroupName: args[1], PeerAsn: uint32(as)},
			Timers: &api.Timers{Config: &api.TimersConfig{HoldTime: hold}},
		}
	}
	switch args[0] {
	case "add-group":
		_, err = client.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: group()})
	case "set-group":
		_, err = client.UpdatePeerGroup(ctx, &api.UpdatePeerGroupRequest{PeerGroup: group()})
	case "del-group":
		_, err = client.DeletePeerGroup(ctx, &api.DeletePeerGroupRequest{Name: args[1]})
	case "add-dynamic":
		_, err = client.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{DynamicNeighbor: &api.DynamicNeighbor{Prefix: args[1], PeerGroup: args[2]}})
	case "del-dynamic":
		_, err = client.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{Prefix: args[1], PeerGroup: args[2]})
	default:
		ts.Fatalf("api: no method %q", args[0])
	}
	if fails == "" {
		ts.Check(err)
	} else if err == nil || !regexp.MustCompile(fails).MatchString(err.Error()) {
		ts.Fatalf("api %q: error %v, want %q", args, err, fails)
	}
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
