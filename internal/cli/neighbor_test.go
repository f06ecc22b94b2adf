package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"rlr/internal/ctl"
)

// changes runs a router that notes what it is asked to change.
func changes(t *testing.T) (asked func() string) {
	t.Helper()
	runtimeDir(t)
	h := handlers()
	last := ""
	note := func(r any) (ctl.Done, error) {
		b, err := json.Marshal(r)
		last = string(b)
		return ctl.Done{Message: "done"}, err
	}
	h.Neighbor = func(_ context.Context, r ctl.NeighborRequest) (ctl.Done, error) { return note(r) }
	h.Route = func(_ context.Context, r ctl.RouteRequest) (ctl.Done, error) { return note(r) }
	router(t, "router1", h)
	return func() string {
		was := last
		last = ""
		return was
	}
}

// What is typed becomes the request; what cannot be meant is told, and asks for nothing.
func TestChangeRequests(t *testing.T) {
	asked := changes(t)
	for _, c := range []struct {
		args []string
		want string // the request, or the beginning of a message
	}{
		{
			[]string{"neighbor", "add", "192.0.2.9", "--as", "65009", "--import", "all", "--passive", "--hold-time", "30s"},
			`{"name":"","action":"add","settings":[{"key":"address","value":"192.0.2.9"},{"key":"as","value":65009},{"key":"passive","value":true},{"key":"hold-time","value":"30s"},{"key":"import","value":"all"}]}`,
		},
		{
			[]string{"nei", "add", "fe80::9%tun12", "--as", "internal", "--name", "alice", "--families", "ipv4,ipv6", "--group", "peers", "--save"},
			`{"name":"alice","action":"add","settings":[{"key":"address","value":"fe80::9"},{"key":"interface","value":"tun12"},{"key":"as","value":"internal"},{"key":"families","value":["ipv4","ipv6"]},{"key":"group","value":"peers"}],"save":true}`,
		},
		{
			[]string{"neighbor", "add", "--interface", "eth1", "--as", "65001", "--set", "graceful-restart={mode: helper}"},
			`{"name":"","action":"add","settings":[{"key":"as","value":65001},{"key":"interface","value":"eth1"},{"key":"graceful-restart","yaml":"{mode: helper}"}]}`,
		},
		{[]string{"neighbor", "add", "--as", "65001"}, "rlr: which neighbour? write its address, or --interface NAME"},
		{[]string{"neighbor", "add", "alice", "--as", "65001"}, `rlr: "alice" is not an address`},
		{[]string{"neighbor", "add", "192.0.2.9", "--set", "hold-time"}, `rlr: --set "hold-time": write KEY=VALUE`},
		{[]string{"neighbor", "del", "alice", "--save"}, `{"name":"alice","action":"del","save":true}`},
		{[]string{"neighbor", "disable", "alice", "--message", "tea time"}, `{"name":"alice","action":"disable","message":"tea time"}`},
		{[]string{"neighbor", "disable", "alice", "--message", strings.Repeat("x", 256)}, "rlr: the message has 256 bytes, and a NOTIFICATION carries 255"},
		{[]string{"route", "add", "10.9.0.0/16", "via", "10.1.0.9"}, `{"action":"add","prefix":"10.9.0.0/16","via":[{"address":"10.1.0.9"}]}`},
		{
			[]string{"route", "add", "fd42::/48", "via", "fe80::2", "interface", "tun12", "weight", "3", "v", "fe80::3%tun13", "--save"},
			`{"action":"add","prefix":"fd42::/48","via":[{"address":"fe80::2","interface":"tun12","weight":3},{"address":"fe80::3","interface":"tun13"}],"save":true}`,
		},
		{[]string{"route", "add", "10.9.0.0/16", "int", "tun12"}, `{"action":"add","prefix":"10.9.0.0/16","via":[{"interface":"tun12"}]}`},
		{[]string{"route", "add", "10.9.9.9", "black"}, `{"action":"add","prefix":"10.9.9.9/32","kind":"blackhole"}`},
		{[]string{"route", "add", "10.9.9.9/16", "blackhole"}, "rlr: 10.9.9.9/16 has host bits set; the prefix is 10.9.0.0/16"},
		{[]string{"route", "add", "10.9.0.0/16", "blackhole", "prohibit"}, "rlr: blackhole or prohibit, not both"},
		{[]string{"route", "add", "10.9.0.0/16", "blackhole", "via", "10.1.0.9"}, "rlr: a route is blackhole or has next hops, not both"},
		{[]string{"route", "add", "10.9.0.0/16", "weight", "3"}, "rlr: weight of what?"},
		{[]string{"route", "add", "10.9.0.0/16", "via"}, "rlr: via what?"},
		{[]string{"route", "add", "10.9.0.0/16", "via", "10.1.0.9", "weight", "256"}, `rlr: weight "256"`},
		{[]string{"route", "add", "10.9.0.0/16", "through", "10.1.0.9"}, `rlr: "through" is none of blackhole, unreachable, prohibit, via, interface, weight`},
		{[]string{"route", "del", "fd42::/48"}, `{"action":"del","prefix":"fd42::/48"}`},
		{[]string{"route"}, "rlr: do what? add, del"},
	} {
		r := rlr(t, c.args...)
		got := asked()
		if !strings.HasPrefix(c.want, "rlr: ") {
			if got != c.want || r.code != ExitOK || r.stdout != "done\n" {
				t.Errorf("%q: asked\n%s\nwant\n%s\nsaid %q %q", c.args, got, c.want, r.stdout, r.stderr)
			}
			continue
		}
		if got != "" || !strings.HasPrefix(r.stderr, c.want) || r.code != ExitUsage {
			t.Errorf("%q: asked %q, said %q, want %q", c.args, got, r.stderr, c.want)
		}
	}
}

// What is not in the configuration file is marked.
func TestMade(t *testing.T) {
	runtimeDir(t)
	h := handlers()
	h.BGP = rows(
		ctl.BGPSession{Name: "router2", Address: "169.254.12.2", AS: 65002, State: "Established", UptimeS: 1, VRF: "default"},
		ctl.BGPSession{Name: "alice", Address: "fe80::9", Interface: "tun12", AS: 4242420009, State: "Active", VRF: "default", Runtime: true, Group: "peers", LastError: "no route"},
		ctl.BGPSession{Name: "10.4.0.2", Address: "10.4.0.2", AS: 65002, State: "Idle", Disabled: true, VRF: "default", Dynamic: true, Group: "hosts"},
	)
	h.Protocols = rows(
		ctl.Protocol{Name: "grpc", Proto: "grpc", Table: "default", State: "up", SinceS: 100, Routes: 1},
		ctl.Protocol{Name: "alice", Proto: "bgp", Table: "default", State: "start", Info: "Active  no route", Runtime: true},
		ctl.Protocol{Name: "10.4.0.2", Proto: "bgp", Table: "default", State: "down", Info: "Idle", Dynamic: true},
	)
	h.Routes = func(_ context.Context, _ ctl.RouteFilter, emit func(ctl.Route) error) error {
		return emit(ctl.Route{Prefix: "10.9.0.0/16", Table: "default", State: "installed", Paths: []ctl.Path{
			{Protocol: "static", NextHop: "10.1.0.9", Interface: "eth0", Best: true, Preference: 200, Communities: []string{}, Weight: 1, Runtime: true},
			{Protocol: "grpc", NextHop: "10.1.0.8", Interface: "eth0", Preference: 150, Communities: []string{}, Weight: 1},
		}})
	}
	router(t, "router1", h)
	for _, name := range []string{"bgp", "protocols", "route"} {
		line := "show " + name
		golden(t, "made-"+name+".txt", line, rlr(t, strings.Fields(line)...))
		golden(t, "made-"+name+".json", line+" --json", rlr(t, strings.Fields(line+" --json")...))
	}
	golden(t, "made-protocols-all.txt", "show protocols all alice", rlr(t, "show", "protocols", "all", "alice"))

	// Tab offers what makes sense, with its state.
	for line, want := range map[string]string{
		"neighbor enable ":                  "10.4.0.2\tdisabled, AS 65002",
		"neighbor disable ":                 "router2\tEstablished, AS 65002\nalice\tActive, AS 4242420009",
		"neighbor del ":                     "router2\tEstablished, AS 65002\nalice\tActive, AS 4242420009",
		"neighbor reset a":                  "alice\tActive, AS 4242420009",
		"neighbor reset alice ":             "soft\tthe session goes on",
		"neighbor reset alice soft o":       "out\tannounce all again",
		"neighbor add 10.0.0.1 --group ":    "peers\nhosts",
		"neighbor add 10.0.0.1 --import a":  "all",
		"neighbor add --interface tun1":     "tun12\ntun13",
		"route del ":                        "10.9.0.0/16",
		"route add 10.9.0.0/16 ":            "via\ninterface\nblackhole\nunreachable\nprohibit",
		"route add 10.9.0.0/16 via ":        "",
		"route add 10.9.0.0/16 interface ":  "eth0\ntun12\ntun13",
		"route add 1.0.0.0/8 via 10.0.0.1 ": "via\ninterface\nweight",
	} {
		r := rlr(t, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		got, _, _ := strings.Cut(r.stdout, ":4")
		if strings.TrimSpace(got) != want {
			t.Errorf("%q completes to\n%s\nwant\n%s", line, got, want)
		}
	}
}
