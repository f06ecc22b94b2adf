package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPeering plays testdata/peering on both dataplanes.
func TestPeering(t *testing.T) {
	cmds := scriptCommands()
	cmds["freeport"], cmds["var"], cmds["paste"], cmds["noSecrets"] = freeport, variable, paste, noSecrets
	onBoth(t, testscript.Params{Dir: "testdata/peering", Cmds: cmds})
}

// freeport sets variables to UDP ports that nobody has: freeport VARIABLE….
func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VARIABLE…")
	}
	for _, name := range args {
		c, err := net.ListenUDP("udp", &net.UDPAddr{}) // all of them are held until the last is found
		ts.Check(err)
		defer c.Close()
		ts.Setenv(name, strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port))
	}
}

// variable sets a variable to what the last command printed: var NAME.
func variable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: var NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// mode checks the permissions of files: mode MODE FILE….
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mode MODE FILE…")
	}
	for _, name := range args[1:] {
		st, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", name, got, args[0])
		}
	}
}

// paste does by hand what an operator does with the parts that `rlr peer --json` has printed, each below its section: paste FILE.
func paste(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: paste FILE")
	}
	var block struct {
		Parts []struct{ Into, Text string }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &block))
	text := ts.ReadFile(args[0])
	for _, p := range block.Parts {
		section, _, _ := strings.Cut(p.Into, " ")
		before, after, ok := strings.Cut(text, section+":\n")
		if !ok {
			ts.Fatalf("%s has no %s", args[0], section)
		}
		text = before + section + ":\n" + p.Text + after
	}
	if len(block.Parts) != 2 {
		ts.Fatalf("%d parts", len(block.Parts))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// noSecrets checks that what the last command printed has none of the keys in these files: noSecrets FILE….
func noSecrets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: noSecrets FILE…")
	}
	said := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	for _, name := range args {
		key := strings.TrimSpace(ts.ReadFile(name))
		if len(key) != 44 {
			ts.Fatalf("%s holds no key", name)
		}
		if strings.Contains(said, key) {
			ts.Fatalf("the key of %s is in the output", name)
		}
	}
}
