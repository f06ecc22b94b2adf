package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"rlr/internal/netnstest"
)

// These tests are about what other implementations make of our announcements over a link-local session, and we of theirs, with
// their default settings for next hops.

var farRoutes = []string{"10.2.0.0/24 via fe80::2 dev near0", "fd00:2::/64 via fe80::2 dev near0"}

// contains waits until what a command prints has all the words.
func contains(t *testing.T, ask func() string, words ...string) {
	t.Helper()
	eventually(t, 30*time.Second, func() string {
		got := ask()
		for _, w := range words {
			if !strings.Contains(got, w) {
				return fmt.Sprintf("no %q in\n%s", w, got)
			}
		}
		return ""
	})
}

func TestLinkLocalBird(t *testing.T) {
	bird := netnstest.Program(t, "RLR_BIRD", "bird", "/usr/sbin/bird")
	if !netnstest.InNamespace(t) {
		return
	}
	f := netnstest.NewFar(t)
	conf := f.File("bird.conf", `
router id 10.2.0.1;
protocol device {}
protocol static { ipv4; route 10.2.0.0/24 blackhole; }
protocol static { ipv6; route fd00:2::/64 blackhole; }
protocol bgp r1 {
	local fe80::2 as 65002;
	neighbor fe80::1 % 'far0' as 65001;
	connect retry time 2;
	error wait time 1, 2;
	ipv4 { import all; export where source = RTS_STATIC; extended next hop; };
	ipv6 { import all; export where source = RTS_STATIC; };
}
`)
	f.Start(bird, "-f", "-c", conf, "-s", filepath.Join(f.Dir, "ctl"), "-P", filepath.Join(f.Dir, "pid"))
	r := nearRouter(t, nil)
	r.established()
	r.wantFeed(farRoutes...)
	b := &farBird{t, f.Dir}
	contains(t, b.show, "10.1.0.0/24", "fd00:1::/64", "via fe80::1 on far0", "BGP.as_path: 65001")
	eventually(t, 10*time.Second, func() string { // an answer may come in pieces
		if got := b.show(); strings.Count(got, "via fe80::1 on far0") != 2 || strings.Contains(got, "unreachable") {
			return "bird has\n" + got
		}
		return ""
	})
}

// farBird asks BIRD's control socket, which is in the file system and not in the namespace.
type farBird struct {
	t   *testing.T
	dir string
}

func (b *farBird) show() string {
	return (&bird{t: b.t, dir: b.dir}).ask("show route protocol r1 all")
}

func TestLinkLocalFRR(t *testing.T) {
	bgpd := netnstest.Program(t, "RLR_FRR_BGPD", "/usr/lib/frr/bgpd")
	if !netnstest.InNamespace(t) {
		return
	}
	f := netnstest.StartFRR(t, netnstest.NewFar(t), bgpd, "", `
router bgp 65002
 bgp router-id 10.2.0.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor fe80::1 remote-as 65001
 neighbor fe80::1 interface far0
 neighbor fe80::1 timers connect 2
 neighbor fe80::1 capability extended-nexthop
 address-family ipv4 unicast
  network 10.2.0.0/24
  neighbor fe80::1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd00:2::/64
  neighbor fe80::1 activate
 exit-address-family
`)
	r := nearRouter(t, nil)
	r.established()
	r.wantFeed(farRoutes...)
	contains(t, func() string { return f.Vty("show bgp ipv4 unicast 10.1.0.0/24") }, "65001", "fe80::1", "valid, external", "best")
	contains(t, func() string { return f.Vty("show bgp ipv6 unicast fd00:1::/64") }, "65001", "fe80::1", "valid, external", "best")
}

func TestLinkLocalOpenBGPD(t *testing.T) {
	bgpd := netnstest.Program(t, "RLR_OPENBGPD", "/usr/sbin/bgpd")
	if !netnstest.InNamespace(t) {
		return
	}
	netnstest.Users(t, "_openbgpd")
	f := netnstest.NewFar(t)
	conf := f.File("bgpd.conf", fmt.Sprintf(`
AS 65002
router-id 10.2.0.1
fib-update no
socket "%s/ctl"
network 10.2.0.0/24
network fd00:2::/64
neighbor fe80::1%%far0 {
	remote-as 65001
	local-address fe80::2%%far0
	announce IPv4 unicast
	announce IPv6 unicast
}
allow from any
allow to any
`, f.Dir))
	f.Start(bgpd, "-d", "-f", conf)
	r := nearRouter(t, nil)
	r.established()
	r.wantFeed(farRoutes[1])
	contains(t, func() string {
		out, _ := f.Command(filepath.Join(filepath.Dir(bgpd), "bgpctl"), "-s", f.Dir+"/ctl", "show", "rib", "detail").CombinedOutput()
		return string(out)
	}, "fd00:1::/64", "Nexthop fe80::1", "valid")
}

// ExaBGP knows no zones, so its session is between IPv4 addresses, and carries both families.
func TestExaBGP(t *testing.T) {
	exabgp := netnstest.Program(t, "RLR_EXABGP", "exabgp", "/usr/sbin/exabgp")
	if !netnstest.InNamespace(t) {
		return
	}
	f := netnstest.NewFar(t)
	heard := filepath.Join(f.Dir, "heard")
	tee := f.File("heard.sh", `while read -r line; do echo "$line" >> `+heard+"; done\n") // whose own output must stay open
	conf := f.File("exabgp.conf", fmt.Sprintf(`
process heard { run /bin/sh %s; encoder json; }
neighbor 10.9.0.1 {
	router-id 10.2.0.1; local-address 10.9.0.2; local-as 65002; peer-as 65001; hold-time 30;
	family { ipv4 unicast; ipv6 unicast; }
	api { processes [ heard ]; receive { parsed; update; } }
	static { route 10.2.0.0/24 next-hop 10.9.0.2; route fd00:2::/64 next-hop fd00:9::2; }
}
`, tee))
	f.Start("env", "exabgp.daemon.user=root", "exabgp.daemon.drop=false", "exabgp.api.cli=false", "exabgp.log.level=WARNING", exabgp, conf)
	r := nearRouter(t, func(n *Neighbor) {
		n.Address, n.LocalAddress, n.NextHop6, n.Passive = a("10.9.0.2"), a("10.9.0.1"), a("fd00:9::1"), true
	})
	r.established()
	r.wantFeed("10.2.0.0/24 via 10.9.0.2", "fd00:2::/64 via fd00:9::2")
	contains(t, func() string { b, err := os.ReadFile(heard); return string(b) + fmt.Sprint(err) },
		`"10.9.0.1": [ { "nlri": "10.1.0.0/24" } ]`, `"fd00:9::1": [ { "nlri": "fd00:1::/64" } ]`, `"as-path": [ 65001 ]`)
}

// GoBGP's own daemon, over link-local addresses.
func TestLinkLocalGoBGP(t *testing.T) {
	gobgpd := os.Getenv("RLR_GOBGPD")
	if gobgpd == "" {
		gobgpd = buildGoBGP(t)
		t.Setenv("RLR_GOBGPD", gobgpd) // for the run in the namespace, which has no network
	}
	if !netnstest.InNamespace(t) {
		return
	}
	f := netnstest.NewFar(t)
	socket := filepath.Join(f.Dir, "api")
	f.Start(gobgpd, "-p", "-t", "yaml", "--api-hosts", "unix://"+socket, "-f", f.File("gobgpd.yaml", `
global: {config: {as: 65002, router-id: 10.2.0.1}}
neighbors:
  - config: {neighbor-address: "fe80::1%far0", peer-as: 65001}
    transport: {config: {local-address: "fe80::2%far0"}}
    timers: {config: {connect-retry: 2, idle-hold-time-after-reset: 1}}
    afi-safis: [{config: {afi-safi-name: ipv4-unicast}}, {config: {afi-safi-name: ipv6-unicast}}]
`))
	r := nearRouter(t, nil)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := api.NewGoBgpServiceClient(conn)
	r.established()
	for _, p := range []string{"10.2.0.0/24", "fd00:2::/64"} {
		m, err := apiPath(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.AddPath(t.Context(), &api.AddPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Path: m}); err != nil {
			t.Fatal(err)
		}
	}
	r.wantFeed(farRoutes...)
	contains(t, func() string {
		all := ""
		for _, family := range both {
			stream, err := client.ListPath(t.Context(), &api.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: apiFamily(family)})
			for _, m := range collect(t, stream, err) {
				for _, p := range m.GetDestination().GetPaths() {
					attrs, err := apiutil.GetNativePathAttributes(p)
					if err != nil {
						t.Fatal(err)
					}
					d := Path{}
					d.attributes(attrs)
					all += fmt.Sprintf("%s via %s [%s] best %v\n", m.GetDestination().GetPrefix(), nextHopOf(attrs), d.ASPath, p.GetBest())
				}
			}
		}
		return all
	}, "10.1.0.0/24 via fe80::1 [65001] best true", "fd00:1::/64 via fe80::1 [65001] best true")
}

// apiPath is a path of one's own for GoBGP's API.
func apiPath(prefix string) (*api.Path, error) {
	p, err := localPath(Origin{Prefix: netip.MustParsePrefix(prefix)})
	if err != nil {
		return nil, err
	}
	m := &api.Path{Family: apiFamily(familyOf(p.Family))}
	if m.Nlri, err = apiutil.MarshalNLRI(p.Nlri); err != nil {
		return nil, err
	}
	m.Pattrs, err = apiutil.MarshalPathAttributes(p.Attrs)
	return m, err
}

// buildGoBGP installs the daemon of the version that the router is built with.
func buildGoBGP(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command to install gobgpd with")
	}
	version, err := exec.Command(tool, "list", "-m", "-f", "{{.Version}}", "github.com/osrg/gobgp/v4").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(tool, "install", "github.com/osrg/gobgp/v4/cmd/gobgpd@"+strings.TrimSpace(string(version)))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("gobgpd cannot be installed; is the module proxy reachable? %v\n%s", err, out)
	}
	return filepath.Join(dir, "gobgpd")
}
