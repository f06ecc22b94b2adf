package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"rlr/internal/ctl"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rlr": main})
}

// TestScript plays testdata/script: what an operator types, and what must come of it.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: ownRuntime, Cmds: scriptCommands(),
	})
}

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"until": until, "private": private, "edit": edit, "hangup": hangup, "murder": murder, "slay": slay, "vppctl": vppctl,
		"mode": mode,
	}
}

// until runs a command again and again until its output matches, or does not any more: until [-not] PATTERN COMMAND [ARG …].
func until(ts *testscript.TestScript, neg bool, args []string) {
	want := true
	if len(args) > 0 && args[0] == "-not" {
		want, args = false, args[1:]
	}
	if len(args) < 2 || neg {
		ts.Fatalf("usage: until [-not] PATTERN COMMAND [ARG]...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		cmd := exec.Command(args[1], args[2:]...)
		path, err := lookPath(ts.Getenv("PATH"), args[1])
		ts.Check(err)
		cmd.Path, cmd.Err = path, nil
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "RLR_RUNTIME_DIR=" + ts.Getenv("RLR_RUNTIME_DIR")}
		out, err := cmd.CombinedOutput()
		if re.Match(out) == want && (want || err == nil) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not in time: %q (wanted %t) in the output of %v:\n%s", args[0], want, args[1:], out)
		}
		<-tick.C
	}
}

func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", name, path)
}

// private checks that only its owner can use a path below the runtime directory: private MODE PATH.
func private(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: private MODE PATH")
	}
	st, err := os.Stat(filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// hangup sends SIGHUP to a router: hangup NAME.
func hangup(ts *testscript.TestScript, neg bool, args []string) { kill(ts, neg, args, syscall.SIGHUP) }

// murder is kill -9: murder NAME.
func murder(ts *testscript.TestScript, neg bool, args []string) { kill(ts, neg, args, syscall.SIGKILL) }

// slay is kill -9 for a router's VPP: slay NAME.
func slay(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: slay NAME")
	}
	ts.Check(ts.Exec("rlr", "-r", args[0], "show", "status", "--json"))
	var st ctl.Status
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &st))
	if st.Dataplane.PID <= 1 {
		ts.Fatalf("%s has no VPP: %+v", args[0], st.Dataplane)
	}
	ts.Check(syscall.Kill(st.Dataplane.PID, syscall.SIGKILL))
}

func kill(ts *testscript.TestScript, neg bool, args []string, sig syscall.Signal) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: hangup NAME, murder NAME")
	}
	b, err := os.ReadFile(filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), args[0], "pid"))
	ts.Check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, sig))
}

// edit replaces text in a file: edit FILE PATTERN NEW, where \n in NEW is a new line.
func edit(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 || neg {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	old := ts.ReadFile(args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if !re.MatchString(old) {
		ts.Fatalf("no %q in %s", args[1], args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(re.ReplaceAllLiteralString(old, strings.ReplaceAll(args[2], `\n`, "\n"))), 0o644))
}
