package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBirdc: BIRD's own client, as Debian has it, with a router that has a neighbour.
func TestBirdc(t *testing.T) {
	birdc, err := exec.LookPath("birdc")
	if err != nil {
		if birdc = "/usr/sbin/birdc"; exec.Command(birdc, "-h").Run() != nil {
			t.Skip("no birdc installed (Debian: bird2)")
		}
	}
	eachDataplane(t, func(t *testing.T, kind string) { playBirdc(t, kind, birdc) })
}

func playBirdc(t *testing.T, kind, birdc string) {
	dir := shortTemp(t)
	cable, socket := filepath.Join(dir, "cable.sock"), filepath.Join(dir, "r/one/bird.ctl")
	side := func(name string, n, peer int, role, more string) string {
		return fmt.Sprintf(`
router: {name: %[1]s, id: 10.%[2]d.0.1, as: 6500%[2]d}
dataplane: {kind: %[4]s}
interfaces: {eth0: {memif: {socket: %[5]s, role: %[6]s}, addresses: [10.0.0.%[2]d/24, "fe80::%[2]d/64"]}}
static: [{prefix: 10.%[2]d.0.0/24, blackhole: true}]
control: {bird-socket: bird.ctl}
bgp:
  originate: [10.%[2]d.0.0/24, "fd00:%[2]d::/48"]
  neighbors:
    - {name: router%[3]d, address: 10.0.0.%[3]d, as: 6500%[3]d, families: [ipv4, ipv6], import: all, export: all, connect-retry: 1s}
%[7]s`, name, n, peer, kind, cable, role, more)
	}
	routerIn(t, dir, "one", side("one", 1, 2, "master", "    - {name: off, address: 10.0.0.9, as: 65009, disabled: true}\n"))
	routerIn(t, dir, "two", side("two", 2, 1, "slave", ""))
	ask := func(ctx context.Context, command string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, birdc, "-s", socket, command).CombinedOutput()
		return string(out), err
	}
	wants := func(command string, lines ...string) {
		t.Helper()
		awaiting(t, time.Minute, func(ctx context.Context) error {
			out, err := ask(ctx, command)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", command, err, out)
			}
			for _, l := range lines {
				if !strings.Contains(strings.Join(strings.Fields(out), " "), l) {
					return fmt.Errorf("%s does not say %q:\n%s", command, l, out)
				}
			}
			return nil
		})
	}
	wants("show status", "Router ID is 10.1.0.1", "Daemon is up and running")
	wants("show protocols", "router2 BGP --- up", "off BGP --- down", "Established")
	wants("show protocols all router2", "BGP state: Established", "Neighbor AS: 65002", "Channel ipv4 State: UP", "Routes: 1 imported, 0 filtered, 1 exported, 1 preferred")
	wants("show route for 10.2.0.9 all", "10.2.0.0/24 unicast [router2", "via 10.0.0.2 on eth0", "BGP.as_path: 65002", "BGP.local_pref: 100")
	wants("show route where bgp_path.last = 65002", "fd00:2::/48 unicast [router2")
	wants("show route protocol static", "10.1.0.0/24 blackhole [static", "* (200)")
	wants("show route count", "routes for 3 networks in table master4", "in 2 tables")
	wants("show interfaces summary", "eth0 up 10.0.0.1/24 fe80::1")
	wants("configure check", "Configuration OK")
	wants("disable router2", "router2: disabled")
	wants("show protocols router2", "router2 BGP --- down")
	wants("enable router2", "router2: enabled")
	wants("show protocols router2", "Established")
	wants("reload out router2", "router2: reloading")
	if err := os.WriteFile(filepath.Join(dir, "one.yaml"), []byte("router: {name: one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := ask(t.Context(), "configure"); err == nil || !strings.Contains(out, "one.yaml:2:1: the file ends inside") {
		t.Errorf("configure with a broken file: %v, %s", err, out)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
}
