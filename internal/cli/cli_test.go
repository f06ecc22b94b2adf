package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

var update = flag.Bool("update", false, "write the golden files")

// Every renderer, as text and as JSON: testdata/NAME.txt and NAME.json hold the command line, its exit code and its output.
func TestGolden(t *testing.T) {
	runtimeDir(t)
	router(t, "router1", handlers())
	for _, tc := range []struct{ name, line string }{
		{"status", "show status"},
		{"interfaces", "show interfaces"},
		{"interfaces-one", "show interfaces tun12"},
		{"neighbors", "show neighbors"},
		{"protocols", "show protocols"},
		{"protocols-all", "show protocols all"},
		{"bgp", "show bgp"},
		{"bgp-unknown", "show bgp nobody"},
		{"route", "show route"},
		{"route-all", "show route all"},
		{"route-for", "show route for 10.2.0.2"},
		{"route-prefix", "show route 10.1.0.0/24"},
		{"route-none", "show route 10.77.0.0/24"},
		{"route-failed", "show route failed"},
		{"route-count", "show route count"},
		{"fib", "show fib"},
		{"fib-prefix", "show fib 10.2.0.0/24"},
		{"roa", "show roa"},
		{"roa-prefix", "show roa 10.2.0.0/24"},
		{"roa-address", "sh roa fd42:1::1"},
		{"roa-none", "show roa 10.9.0.0/24"},
		{"roa-wrong", "show roa 10.9.0.1/24"},
		{"wireguard", "show wireguard"},
		{"bfd", "show bfd"},
		{"bfd-one", "show bfd alice"},
		{"bfd-unknown", "show bfd nosuch"},
		{"acl", "show acl"},
		{"acl-one", "show acl lan"},
		{"acl-unknown", "show acl nosuch"},
		{"errors", "show errors"},
		{"log", "show log"},
		{"ping", "ping 10.2.0.2"},
		{"ping-lost", "ping 10.99.0.1 -c 1"},
		{"traceroute", "traceroute 10.2.0.2"},
		{"traceroute-prohibited", "traceroute 10.2.0.3"},
		{"vppctl", "vppctl show interface"},
		{"neighbor-disable", "neighbor disable router2"},
		{"neighbor-soft", "neighbor reset router2 --soft"},
		{"neighbor-soft-in", "neighbor reset router2 soft in"},
		{"neighbor-unknown", "neighbor enable nobody"},
		{"policy-test", "policy test 10.2.0.1/24 --neighbor router2"},
		{"policy-test-export", "policy test 10.2.0.0/24 --neighbor router2 --export"},
		{"policy-test-unknown", "policy test 10.2.0.0/24 -n nobody"},
		{"policy-test-prefix", "policy test 10.2.0.0 -n router2"},
		{"fib-decouple", "fib decouple"},
		{"fib-couple", "fib couple"},
		{"fib-resync", "fib resync"},
		{"fib-what", "fib"},
		{"reload", "reload"},
		{"check", "check -c good.yaml"},
		{"check-print", "check -c good.yaml --print"},
		{"check-broken", "check -c broken.yaml"},
		{"doctor", "doctor"},
		{"run-broken", "run -c wrong.yaml"},
		{"peer", "peer -c good.yaml alice"},
		{"peer-interface", "peer -c good.yaml tun-bob --endpoint [2001:db8::1]:4000"},
		{"peer-bird", "peer -c good.yaml alice --for bird --endpoint router1.example.net"},
		{"peer-which", "peer -c good.yaml"},
		{"peer-unknown", "peer -c good.yaml carol"},
		{"peer-nowhere", "peer -c good.yaml bob"},
		{"peer-port", "peer -c good.yaml bob --endpoint router1.example.net"},
		{"peer-wrong", "peer -c wrong.yaml alice"},
		{"init-what", "init"},
		{"init-missing", "init dn42 --name router1"},
		{"init-wrong", "init dn42 --name router1 --as 0"},
		{"genkey", "genkey"},
		{"genpsk", "genpsk"},
		{"version", "version"},
		{"lab-list", "lab list"},
		{"lab-up", "lab up three-sites"},
		{"lab-down", "lab down three-sites"},
		{"lab-cut", "lab cut three-sites tun12"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := strings.Fields(tc.line)
			golden(t, tc.name+".txt", tc.line, rlr(t, args...))
			if strings.HasPrefix(tc.line, "vppctl") {
				args = append([]string{"--json"}, args...)
			} else {
				args = append(args, "--json")
			}
			r := rlr(t, args...)
			golden(t, tc.name+".json", strings.Join(args, " "), r)
			if r.stdout != "" && !json.Valid([]byte(r.stdout)) {
				t.Errorf("not one JSON document: %s", r.stdout)
			}
		})
	}
}

// A dataplane that is refused, and one that lacks a feature, are shown with the messages that differ.
func TestStatusOfOtherAPI(t *testing.T) {
	runtimeDir(t)
	h := handlers()
	h.Status = func(context.Context) (ctl.Status, error) {
		return ctl.Status{Name: "router1", Version: "1.2.3", Dataplane: ctl.DataplaneStatus{
			Kind: "vpp", State: "connecting", Error: "VPP is incompatible",
			Differs: []ctl.APIMessage{
				{Message: "ip_route_add_del_v2", Feature: "route", Need: "required", Wanted: "521ef330", Found: "0badcafe"},
				{Message: "memif_dump", Feature: "memif", Need: "optional", Wanted: "51077d14"},
			},
		}}, nil
	}
	router(t, "router1", h)
	golden(t, "status-api.txt", "show status", rlr(t, "show", "status"))
	golden(t, "status-api.json", "show status --json", rlr(t, "show", "status", "--json"))
}

// VPP's heaps are shown with how full they are.
func TestStatusOfVPP(t *testing.T) {
	runtimeDir(t)
	h := handlers()
	h.Status = func(context.Context) (ctl.Status, error) {
		return ctl.Status{Name: "router1", Version: "1.2.3", RSSBytes: 50 << 20, Dataplane: ctl.DataplaneStatus{
			Kind: "vpp", State: "connected", Version: "26.06-release", PID: 4712, APISocket: "/run/rlr/router1/api.sock", UptimeS: 3725,
			RSSBytes: 90 << 20, PSSBytes: 80 << 20,
			Heaps: []ctl.Heap{
				{Name: "main heap", TotalBytes: 137 << 20, UsedBytes: 66 << 20}, {Name: "stat segment", TotalBytes: 22 << 20, UsedBytes: 20 << 20},
			},
		}}, nil
	}
	router(t, "router1", h)
	golden(t, "status-vpp.txt", "show status", rlr(t, "show", "status"))
	golden(t, "status-vpp.json", "show status --json", rlr(t, "show", "status", "--json"))
}

func golden(t *testing.T, name, line string, r result) {
	t.Helper()
	got := fmt.Sprintf("$ rlr %s\n%s", line, r.stdout)
	if r.stderr != "" {
		got += "--- stderr\n" + r.stderr
	}
	if r.code != 0 {
		got += fmt.Sprintf("--- exit %d\n", r.code)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// What a command does that depends on more than its output.
func TestExitCodes(t *testing.T) {
	runtimeDir(t)
	router(t, "router1", handlers())
	for _, tc := range []struct {
		line   string
		code   int
		stderr string
	}{
		{"show", 2, "show what? acl, bfd, bgp, errors"},
		{"neighbor", 2, "do what? add, del, disable, enable, reset"},
		{"lab", 2, "do what?"},
		{"nonsense", 2, `unknown command "nonsense"`},
		{"show nonsense", 2, `unknown command "nonsense"`},
		{"show status --colour", 2, "unknown flag"},
		{"show status extra", 2, "unknown command"},
		{"show bgp a b", 2, "at most 1"},
		{"run", 2, `"config" not set`},
		{"run -c broken.yaml", 1, "no dataplane"},
		{"run -c good.yaml", 0, ""},
		{"-r nobody show status", 1, `router "nobody" is not running: start it with`},
		{"show route 10.2.0.1", 2, `say "for 10.2.0.1"`},
		{"show route 10.2.0.1/24", 2, "host bits set: 10.2.0.0/24"},
		{"show route 10.2.0.0/99", 2, "not a prefix"},
		{"show route f 10.2.0.1", 2, `"f" is ambiguous: failed, for`},
		{"show route for", 2, "for what? give an address"},
		{"show route for 10.2.0.0/24", 2, "not an address"},
		{"show route for fe80::1%eth0", 2, "not an address"},
		{"show route for 10.2.0.1 10.2.0.0/24", 2, "not both"},
		{"show route 10.1.0.0/24 10.2.0.0/24", 2, "one prefix at a time"},
		{"show route sideways", 2, "neither a prefix nor one of all, count"},
		{"show fib sideways", 2, "neither a prefix nor one of for, table"},
		{"show fib table", 2, "table what?"},
		{"show protocols a b", 2, "one protocol at a time"},
		{"ping 10.2.0.2 -c -1", 2, "--count is 0 or more"},
		{"ping", 2, "accepts 1 arg"},
		{"traceroute 10.2.0.2 -m 0", 2, "--max-hops"},
		{"lab run four-sites", 2, `no lab "four-sites": there is link-local, three-sites`},
		{"lab run three-sites --sabotage nothing", 2, `no check "nothing": sessions, routes`},
		{"lab run three-sites --sabotage routes", 1, ""},
		{"lab run three-sites", 0, ""},
		{"lab run three-sites --dataplane linux", 2, "auto, embedded or vpp"},
		{"lab up three-sites --dataplane linux", 2, "auto, embedded or vpp"},
		{"lab exec -- run -c x.yaml", 1, "executed run -c x.yaml"},
		{"lab relay /nowhere", 0, ""},
		{"completion tcsh", 2, "invalid argument"},
		{"help show rou", 0, ""},
		{"help nonsense", 2, `no command "nonsense"`},
	} {
		r := rlr(t, strings.Fields(tc.line)...)
		if r.code != tc.code || !strings.Contains(r.stderr, tc.stderr) || tc.stderr == "" && r.stderr != "" {
			t.Errorf("rlr %s: exit %d, %q; want %d, %q", tc.line, r.code, r.stderr, tc.code, tc.stderr)
		}
	}
}

func TestPublicKey(t *testing.T) {
	if r := rlrInput(t, "PRIVATE=\n", "pubkey"); r.code != 0 || r.stdout != "PUBLIC=\n" {
		t.Errorf("%+v", r)
	}
	if r := rlrInput(t, "PRIVATE=\n", "pubkey", "--json"); r.code != 0 || !strings.Contains(r.stdout, `"public_key": "PUBLIC="`) {
		t.Errorf("%+v", r)
	}
	if r := rlrInput(t, "nonsense", "pubkey"); r.code != 2 || !strings.Contains(r.stderr, "not a key") {
		t.Errorf("%+v", r)
	}
}

// stop returns when the router is gone and not before.
func TestStop(t *testing.T) {
	runtimeDir(t)
	var claim *ctl.Claim
	h := handlers()
	h.Stop = func(_ context.Context, r ctl.StopRequest) (ctl.Done, error) {
		if !r.Clean {
			return ctl.Done{}, errors.New("no --clean")
		}
		time.AfterFunc(100*time.Millisecond, func() { claim.Close() })
		return ctl.Done{Message: "stopped"}, nil
	}
	claim = router(t, "router1", h)
	if r := rlr(t, "stop", "--clean"); r.code != 0 || r.stdout != "stopped\n" {
		t.Errorf("%+v", r)
	}
	if left := ctl.List(); len(left) != 0 {
		t.Errorf("still there: %v", left)
	}
}

// A restart has happened when the router that answers is younger.
func TestRestart(t *testing.T) {
	runtimeDir(t)
	h := handlers()
	asked := 0
	h.Status = func(context.Context) (ctl.Status, error) {
		asked++
		if asked < 3 {
			return ctl.Status{PID: 7, UptimeS: 100 + float64(asked)}, nil
		}
		return ctl.Status{PID: 7, UptimeS: 0.1}, nil
	}
	h.Restart = func(context.Context) (ctl.Done, error) { return ctl.Done{Message: "restarted"}, nil }
	router(t, "router1", h)
	if r := rlr(t, "restart"); r.code != 0 || r.stdout != "restarted\n" || asked < 3 {
		t.Errorf("%+v after %d questions", r, asked)
	}
}

func TestAbbreviations(t *testing.T) {
	runtimeDir(t)
	router(t, "router1", handlers())
	same := func(short, long string) {
		t.Helper()
		a, b := rlr(t, strings.Fields(short)...), rlr(t, strings.Fields(long)...)
		if a != b || a.code != 0 {
			t.Errorf("%q: %+v, %q: %+v", short, a, long, b)
		}
	}
	same("sh ro", "show route")
	same("sh ro c", "show route count")
	same("sh ro fa", "show route failed")
	same("sh ro fo 10.2.0.2 al", "show route for 10.2.0.2 all")
	same("sh ro p bgp t default", "show route protocol bgp table default")
	same("--json sh st", "show status --json")
	same("-r router1 sh bg", "-r router1 show bgp")
	same("--router=router1 sh bg router2", "show bgp router2")
	same("sh p all", "show protocols all")
	same("sh i tun12", "show interfaces tun12")
	same("n r router2", "neighbor reset router2")
	same("la l", "lab list")
	same("vp show ip fib", "vppctl show ip fib")
	for line, want := range map[string]string{
		"s":         `"s" is ambiguous: show, stop`,
		"sh i tun1": `"tun1" is ambiguous: tun12, tun13`,
		"gen":       `"gen" is ambiguous: genkey, genpsk`,
		"re":        `"re" is ambiguous: reload, restart`,
	} {
		if r := rlr(t, strings.Fields(line)...); r.code != 2 || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: %+v, want %s", line, r, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	runtimeDir(t)
	router(t, "router1", handlers())
	other := ctl.Handlers{BGP: rows(ctl.BGPSession{Name: "spine"})}
	router(t, "edge", other)
	for _, tc := range []struct {
		words []string
		want  string
	}{
		{[]string{"sh"}, "show"},
		{[]string{"-r", ""}, "edge router1"},
		{[]string{"-r", "router1", "show", "interfaces", ""}, "eth0 tun12 tun13"},
		{[]string{"-r", "router1", "sh", "int", "tun"}, "tun12 tun13"},
		{[]string{"-r", "router1", "show", "neighbors", "e"}, "eth0"},
		{[]string{"-r", "router1", "neighbor", "reset", ""}, "router2 router3 old transit transit2"},
		{[]string{"-r", "edge", "neighbor", "reset", ""}, "spine"},
		{[]string{"-r", "router1", "neighbor", "reset", "router2", ""}, "soft"},
		{[]string{"-r", "router1", "show", "route", ""}, "all count failed for protocol table"},
		{[]string{"-r", "router1", "sh", "ro", "count", "f"}, "failed for"},
		{[]string{"-r", "router1", "show", "route", "protocol", "router"}, "router2 router3"},
		{[]string{"-r", "router1", "show", "route", "table", ""}, "default"},
		{[]string{"-r", "router1", "show", "route", "for", ""}, ""},
		{[]string{"-r", "router1", "show", "fib", ""}, "for table"},
		{[]string{"-r", "router1", "show", "protocols", ""}, "direct static router2 router3 all"},
		{[]string{"-r", "nobody", "show", "interfaces", ""}, ""},
		{[]string{"-r", "router1", "ping", "-I", "eth"}, "eth0"},
		{[]string{"lab", "run", ""}, "link-local three-sites"},
		{[]string{"lab", "run", "three-sites", "--sabotage", "r"}, "routes"},
		{[]string{"lab", "cut", "three-sites", ""}, "tun12 tun13"},
		{[]string{"lab", "up", "--dataplane", ""}, "auto embedded vpp"},
		{[]string{"-r", "router1", "peer", "r"}, "router2 router3"},
		{[]string{"peer", "-c", "good.yaml", ""}, "alice bob"},
		{[]string{"peer", "--for", ""}, "bird rlr"},
		{[]string{"init", ""}, "dn42"},
		{[]string{"init", "dn42", "--as", ""}, ""},
		{[]string{"completion", ""}, "bash fish zsh"},
	} {
		r := rlr(t, append([]string{cobra.ShellCompNoDescRequestCmd}, tc.words...)...)
		var got []string
		for _, l := range strings.Split(r.stdout, "\n") {
			if l != "" && !strings.HasPrefix(l, ":") {
				got = append(got, l)
			}
		}
		if tc.words[0] == "completion" {
			slices.Sort(got)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("complete %q: %q, want %s (%s)", tc.words, got, tc.want, r.stderr)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := rlr(t, "completion", shell); r.code != 0 || !strings.Contains(r.stdout, "__complete") {
			t.Errorf("completion %s: exit %d, %d bytes", shell, r.code, len(r.stdout))
		}
	}
}

// Every command is documented, and every command takes --json.
func TestTree(t *testing.T) {
	seen := make(map[string]bool)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		seen[path] = true
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q", path, cmd.Short)
		}
		if !strings.Contains(cmd.Example, "rlr ") {
			t.Errorf("%s: no example", path)
		}
		if !cmd.Runnable() {
			t.Errorf("%s does nothing", path)
		}
		if cmd.InheritedFlags().Lookup("json") == nil && cmd.HasParent() {
			t.Errorf("%s has no --json", path)
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			checkExample(t, path, line)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := New(commands())
	root.InitDefaultHelpCmd() // cobra adds it when it executes
	walk(root)
	for _, want := range []string{
		"run", "check", "reload", "restart", "stop", "show status", "show interfaces", "show neighbors", "show protocols", "show bgp",
		"show route", "show fib", "show wireguard", "show errors", "show log", "neighbor enable", "neighbor disable", "neighbor reset",
		"ping", "traceroute", "vppctl", "lab list", "lab run", "lab up", "lab down", "lab cut", "lab heal", "genkey", "genpsk", "pubkey", "init dn42", "peer",
		"policy test", "version", "completion", "help",
	} {
		if !seen["rlr "+want] {
			t.Errorf("no command %q", want)
		}
	}
}

// checkExample makes sure that an example names a command and options that exist.
func checkExample(t *testing.T, path, line string) {
	t.Helper()
	_, after, found := strings.Cut(line, "rlr ")
	if !found {
		return
	}
	words, _, _ := strings.Cut(after, ">")
	words, _, _ = strings.Cut(words, "<")
	words, _, _ = strings.Cut(words, "&&")
	root := New(commands())
	args, err := expand(root, strings.Fields(strings.TrimRight(words, " )")))
	if err != nil {
		t.Errorf("%s: example %q: %v", path, line, err)
		return
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		t.Errorf("%s: example %q: %v", path, line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: example %q: %v", path, line, err)
	}
}

// Without the injected actions there are no such commands, rather than ones that fail.
func TestBareTree(t *testing.T) {
	root := New(Commands{})
	for _, name := range []string{"run", "check", "doctor", "genkey", "genpsk", "pubkey", "lab", "init", "peer"} {
		if sub, _, err := root.Find([]string{name}); err == nil && sub != root {
			t.Errorf("%s is there", name)
		}
	}
}

func TestSeveralRouters(t *testing.T) {
	runtimeDir(t)
	router(t, "router1", handlers())
	router(t, "router2", handlers())
	r := rlr(t, "show", "status")
	if r.code != 1 || !strings.Contains(r.stderr, "several routers run here: router1, router2; choose one with -r NAME") {
		t.Errorf("%+v", r)
	}
}
