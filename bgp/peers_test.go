package bgp

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
