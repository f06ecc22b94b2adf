package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rlr/internal/config"
)

// renderAll writes what a play writes, with real keys.
func renderAll(t *testing.T, s scenario, sabotage string) string {
	t.Helper()
	dir := t.TempDir()
	p := &play{
		scenario: s, net: s.network(sabotage), place: &place{scenario: s.name, dir: dir},
		opt: Options{Dataplane: "embedded"},
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	names := p.net.links()
	ports, release, err := allocatePorts(2 * len(names))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var tunnels []tunnel
	for i, name := range names {
		ends, err := p.net.ends(name)
		if err != nil {
			t.Fatal(err)
		}
		sides, err := bindRelay()
		if err != nil {
			t.Fatal(err)
		}
		tun := tunnel{name: name, ends: ends}
		copy(tun.listen[:], ports[2*i:2*i+2])
		tun.relay = newRelay(name, sides, tun.listen)
		defer tun.relay.close()
		tunnels = append(tunnels, tun)
	}
	if err := p.writeConfigs(tunnels); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every configuration of every scenario, also the sabotaged ones, is one that rlr takes.
func TestConfigurations(t *testing.T) {
	for _, s := range scenarios() {
		for _, sabotage := range append([]string{""}, checkNames(s)...) {
			dir := renderAll(t, s, sabotage)
			for _, n := range s.network(sabotage).nodes {
				path := filepath.Join(dir, "etc", n.name+".yaml")
				cfg, err := config.Load(path)
				if err != nil {
					text, _ := os.ReadFile(path)
					t.Fatalf("%s sabotaged %q: %v\n%s", s.name, sabotage, err, text)
				}
				if cfg.Router.Name != n.name || cfg.Router.AS != n.as || len(cfg.Interfaces) != len(n.interfaces) ||
					len(cfg.Static) != len(n.static) || len(cfg.BGP.Neighbors) != len(n.neighbors) || len(cfg.BGP.Originate) != len(n.originate) {
					t.Errorf("%s sabotaged %q: %s is not what was meant: %+v", s.name, sabotage, n.name, cfg)
				}
			}
			keys, err := filepath.Glob(filepath.Join(dir, "etc", "*.key"))
			if err != nil || len(keys) != 3*len(s.network(sabotage).links()) {
				t.Errorf("%s: keys %v, %v", s.name, keys, err)
			}
			for _, k := range keys {
				if st, err := os.Stat(k); err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v, %v", k, st.Mode(), err)
				}
			}
		}
	}
}

func checkNames(s scenario) []string {
	var names []string
	for _, c := range s.checks {
		names = append(names, c.Name)
	}
	return names
}

// The two ends of a tunnel have each other's keys and the relay between them.
func TestTunnelEndsMatch(t *testing.T) {
	dir := renderAll(t, threeSites(), "")
	load := func(name string) config.WireGuard {
		cfg, err := config.Load(filepath.Join(dir, "etc", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		i, ok := cfg.Interface("tun12")
		if !ok {
			t.Fatalf("%s has no tun12", name)
		}
		return *i.WireGuard
	}
	a, b := load("router1"), load("router2")
	if a.PrivateKey.Key() == b.PrivateKey.Key() || a.Peer.PublicKey == b.Peer.PublicKey {
		t.Error("both ends have the same keys")
	}
	if a.PresharedKey.Key() != b.PresharedKey.Key() || !a.PresharedKey.IsSet() {
		t.Error("the preshared keys differ")
	}
	if a.Peer.Endpoint == b.Listen.String() || a.Peer.Endpoint == b.Peer.Endpoint {
		t.Error("an end talks to the other one directly, not to the relay")
	}
}

func TestScenariosAreComplete(t *testing.T) {
	seen := make(map[string]bool)
	for _, info := range List() {
		if seen[info.Name] || info.Summary == "" || len(info.Checks) == 0 || len(info.Routers) == 0 {
			t.Errorf("%+v", info)
		}
		seen[info.Name] = true
		checks := make(map[string]bool)
		for _, c := range info.Checks {
			if checks[c.Name] || c.Proves == "" || c.Sabotage == "" {
				t.Errorf("%s: check %+v", info.Name, c)
			}
			checks[c.Name] = true
		}
		if !checks["processes-unprivileged"] {
			t.Errorf("%s does not check what its processes are", info.Name)
		}
	}
	for _, s := range scenarios() {
		speaks := slices.ContainsFunc(s.network("").nodes, func(n node) bool { return len(n.neighbors) > 0 })
		for _, want := range []string{"sessions", "routes", "fib-agrees"} {
			if speaks && !slices.Contains(checkNames(s), want) {
				t.Errorf("%s has BGP sessions, and no check %s", s.name, want)
			}
		}
		for _, name := range s.vppOnly {
			if !slices.Contains(checkNames(s), name) {
				t.Errorf("%s has no check %s, which is for VPP only", s.name, name)
			}
		}
	}
	if !seen["three-sites"] || !seen["link-local"] || !seen["survival"] {
		t.Errorf("there are %v", seen)
	}
}

// The addresses that the issue and the article name.
func TestThreeSitesPlan(t *testing.T) {
	net := threeSitesNetwork("")
	if got := strings.Join(net.links(), " "); got != "tun12 tun13 tun23" {
		t.Errorf("tunnels: %s", got)
	}
	for _, tc := range []struct{ node, iface, want string }{
		{"router1", "eth0", "10.1.0.1/24"},
		{"server1", "eth0", "10.1.0.2/24"},
		{"router1", "tun12", "169.254.12.1/30"},
		{"router2", "tun12", "169.254.12.2/30"},
		{"router1", "tun13", "169.254.13.1/30"},
		{"router3", "tun13", "169.254.13.2/30"},
		{"router2", "tun23", "169.254.23.1/30"},
		{"router3", "tun23", "169.254.23.2/30"},
	} {
		if got := net.node(tc.node).iface(tc.iface).addresses; !slices.Equal(got, []string{tc.want}) {
			t.Errorf("%s %s: %v", tc.node, tc.iface, got)
		}
	}
	for i, name := range []string{"router1", "router2", "router3"} {
		n := net.node(name)
		if n.as != uint32(65001+i) || n.id != strings.Replace("10.N.0.1", "N", string(rune('1'+i)), 1) || len(n.neighbors) != 2 {
			t.Errorf("%s: %+v", name, n)
		}
		for _, p := range n.neighbors {
			if p.hold != "30s" {
				t.Errorf("%s-%s: hold time %s", name, p.name, p.hold)
			}
		}
	}
}

func TestUnknownNames(t *testing.T) {
	if _, err := Run(t.Context(), "four-sites", Options{}); err == nil {
		t.Error("four-sites was run")
	}
	if _, err := Up(t.Context(), "four-sites", Options{}); err == nil {
		t.Error("four-sites was started")
	}
	if _, err := Run(t.Context(), "three-sites", Options{Sabotage: "gravity"}); err == nil {
		t.Error("gravity was sabotaged")
	}
	if err := Down(t.Context(), "four-sites"); err == nil {
		t.Error("four-sites was stopped")
	}
	if err := Cut(t.Context(), "four-sites", "tun12"); err == nil {
		t.Error("four-sites was cut")
	}
}
