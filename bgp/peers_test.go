package bgp

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	bird := program(t, "RLR_BIRD", "bird", "/usr/sbin/bird")
	if !inNamespace(t) {
		return
	}
	f := newFar(t)
	conf := f.file("bird.conf", `
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
	f.start(bird, "-f", "-c", conf, "-s", filepath.Join(f.dir, "ctl"), "-P", filepath.Join(f.dir, "pid"))
	r := nearRouter(t, nil)
	r.established()
	r.wantFeed(farRoutes...)
	b := &farBird{far: f}
	contains(t, b.show, "10.1.0.0/24", "fd00:1::/64", "via fe80::1 on far0", "BGP.as_path: 65001")
	eventually(t, 10*time.Second, func() string { // an answer may come in pieces
		if got := b.show(); strings.Count(got, "via fe80::1 on far0") != 2 || strings.Contains(got, "unreachable") {
			return "bird has\n" + got
		}
		return ""
	})
}

// farBird asks BIRD's control socket, which is in the file system and not in the namespace.
type farBird struct{ *far }

func (b *farBird) show() string {
	return (&bird{t: b.t, dir: b.dir}).ask("show route protocol r1 all")
}

func TestLinkLocalFRR(t *testing.T) {
	bgpd := program(t, "RLR_FRR_BGPD", "/usr/lib/frr/bgpd")
	if !inNamespace(t) {
		return
	}
	f := startFRR(t, bgpd, `
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
	contains(t, func() string { return f.vty("show bgp ipv4 unicast 10.1.0.0/24") }, "65001", "fe80::1", "valid, external", "best")
	contains(t, func() string { return f.vty("show bgp ipv6 unicast fd00:1::/64") }, "65001", "fe80::1", "valid, external", "best")
}

func TestLinkLocalOpenBGPD(t *testing.T) {
	bgpd := program(t, "RLR_OPENBGPD", "/usr/sbin/bgpd")
	if !inNamespace(t) {
		return
	}
	users(t, "_openbgpd")
	f := newFar(t)
	conf := f.file("bgpd.conf", fmt.Sprintf(`
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
`, f.dir))
	f.start(bgpd, "-d", "-f", conf)
	r := nearRouter(t, nil)
	r.established()
	r.wantFeed(farRoutes[1])
	contains(t, func() string {
		out, _ := f.command(filepath.Join(filepath.Dir(bgpd), "bgpctl"), "-s", f.dir+"/ctl", "show", "rib", "detail").CombinedOutput()
		return string(out)
	}, "fd00:1::/64", "Nexthop fe80::1", "valid")
}

// frr is FRR's bgpd with the zebra that it needs to know interfaces.
type frr struct{ *far }

// startFRR runs both with bgpd's configuration. zebra and vtysh are beside bgpd, or where they are usual.
func startFRR(t *testing.T, bgpd, config string) *frr {
	t.Helper()
	dir := filepath.Dir(bgpd)
	zebra := program(t, "RLR_FRR_ZEBRA", filepath.Join(dir, "zebra"))
	f := &frr{newFar(t)}
	zserv := filepath.Join(f.dir, "zserv.api")
	common := func(name, text string) []string {
		return []string{
			"-f", f.file(name+".conf", "log stdout informational\n"+text), "-z", zserv, "-i", filepath.Join(f.dir, name+".pid"),
			"--vty_socket", f.dir, "-u", "root", "-g", "root", "-P", "0",
		}
	}
	users(t, "frrvty", "frr")
	run(t, "mount", "-t", "tmpfs", "none", "/var/run")
	if err := os.MkdirAll("/var/run/frr", 0o755); err != nil {
		t.Fatal(err)
	}
	f.start(zebra, common("zebra", "")...)
	eventually(t, 10*time.Second, func() string {
		if _, err := os.Stat(zserv); err != nil {
			return err.Error()
		}
		return ""
	})
	f.start(bgpd, append(common("bgpd", config), "-p", "179", "-n")...)
	return f
}

// vty asks bgpd what vtysh would: a command and a zero byte, an answer and three zero bytes with the result.
func (f *frr) vty(command string) string {
	conn, err := net.Dial("unix", filepath.Join(f.dir, "bgpd.vty"))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	r := bufio.NewReader(conn)
	var said []byte
	for _, c := range []string{"enable", command} {
		fmt.Fprintf(conn, "%s\x00", c)
		said = said[:0]
		for !bytes.HasSuffix(said, []byte{0, 0, 0}) {
			b, err := r.ReadByte()
			if err != nil {
				return fmt.Sprintf("%v after %s", err, said)
			}
			said = append(said, b)
		}
		if _, err := r.ReadByte(); err != nil {
			return err.Error()
		}
	}
	return string(bytes.TrimRight(said, "\x00"))
}
