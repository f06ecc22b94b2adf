package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/internal/ctl"
	"rlr/internal/netnstest"
	"rlr/memif"
)

// TestUnnumberedFRR: a router and an FRR whose neighbours are interfaces find one another by router advertisements, over a cable on
// which neither has an address besides its link-local one, and forward for one another.
func TestUnnumberedFRR(t *testing.T) {
	bgpd := netnstest.Program(t, "RLR_FRR_BGPD", "/usr/lib/frr/bgpd")
	netnstest.Program(t, "RLR_FRR_ZEBRA", filepath.Join(filepath.Dir(bgpd), "zebra"))
	t.Run("embedded", func(t *testing.T) { playUnnumberedFRR(t, "embedded", bgpd) })
	t.Run("vpp", func(t *testing.T) {
		needVPP(t)
		playUnnumberedFRR(t, "vpp", bgpd)
	})
}

func playUnnumberedFRR(t *testing.T, kind, bgpd string) {
	if !netnstest.InNamespace(t) {
		return
	}
	far, cable := netnstest.NewFarTap(t)
	frr := netnstest.StartFRR(t, far, bgpd, `
interface lo
 ip address 172.20.2.1/32
 ipv6 address fd42:2::1/128
`, `
router bgp 65002
 bgp router-id 172.20.2.1
 no bgp ebgp-requires-policy
 neighbor far0 interface remote-as external
 neighbor far0 timers connect 2
 address-family ipv4 unicast
  redistribute connected
 exit-address-family
 address-family ipv6 unicast
  redistribute connected
  neighbor far0 activate
 exit-address-family
`)
	dir := shortTemp(t)
	socket := filepath.Join(dir, "eth0.sock")
	client := routerIn(t, dir, "r1", fmt.Sprintf(`
router: {name: r1, id: 172.20.1.1, as: 65001}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [172.20.1.1/32, "fd42:1::1/128"]}
  eth0: {memif: {socket: %s, role: master}, unnumbered: dum0}
bgp:
  redistribute: {connected: [dum0]}
  neighbors:
    - {name: frr, interface: eth0, as: external, import: all, export: all, connect-retry: 1s}
`, kind, socket))
	patch(t, cable, socket)
	awaiting(t, time.Minute, func(ctx context.Context) error {
		sessions, err := client.BGP(ctx)
		if err != nil {
			return err
		}
		if s := sessions[0]; s.State != "Established" || s.Address != "fe80::2" || s.AS != 65002 {
			return fmt.Errorf("%+v; FRR: %s", s, frr.Vty("show bgp neighbors far0"))
		}
		return nil
	})
	for _, p := range []string{"172.20.2.1/32", "fd42:2::1/128"} {
		awaiting(t, 30*time.Second, func(ctx context.Context) error {
			return routeIs(ctx, client, netip.MustParsePrefix(p), "eth0", "fe80::2")
		})
	}
	for _, c := range []struct{ show, route string }{
		{"show bgp ipv4 unicast 172.20.1.1/32", "65001"}, {"show bgp ipv6 unicast fd42:1::1/128", "65001"},
	} {
		awaiting(t, 30*time.Second, func(context.Context) error {
			if said := frr.Vty(c.show); !strings.Contains(said, c.route) || !strings.Contains(said, "valid, external") {
				return fmt.Errorf("%s: %s", c.show, said)
			}
			return nil
		})
	}
	for from, to := range map[string]string{"172.20.1.1": "172.20.2.1", "fd42:1::1": "fd42:2::1"} {
		awaiting(t, 30*time.Second, func(ctx context.Context) error {
			sum, err := client.Ping(ctx, ctl.ProbeRequest{Target: to, Source: from, Count: 2, TimeoutS: 1, IntervalS: 0.02}, func(ctl.ProbeReply) error { return nil })
			if err == nil && sum.Received != 2 {
				err = fmt.Errorf("ping %s: %+v", to, sum)
			}
			return err
		})
	}
}

// patch joins a cable to a memif master, frame by frame, until the test ends.
func patch(t *testing.T, cable *os.File, socket string) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	link, err := memif.New(memif.Config{Socket: socket, Role: memif.Slave, Name: "far0", Log: logrus.NewEntry(log)})
	if err != nil {
		t.Fatal(err)
	}
	running(t, func(context.Context) error { // from the memif, until its Run has ended, which stops before this
		bufs, sizes := [][]byte{make([]byte, 65536)}, make([]int, 1)
		for {
			n, err := link.ReadBatch(0, bufs, sizes)
			if err != nil {
				return nil
			}
			for i := range n {
				_, _ = cable.Write(bufs[i][:sizes[i]])
			}
		}
	})
	running(t, link.Run)
	done := make(chan struct{})
	t.Cleanup(func() { cable.Close(); <-done })
	go func() {
		defer close(done)
		for buf := make([]byte, 65536); ; {
			n, err := cable.Read(buf)
			if err != nil {
				return
			}
			_, _ = link.WriteBatch(0, [][]byte{buf[:n]}) // lost while it is down, as on any cable
		}
	}()
}
