package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

// TestBulkOverSmallMTU: a session over a link that carries less than 1500 bytes, as every tunnel does, brings many routes across,
// whichever TCP the dataplane has.
func TestBulkOverSmallMTU(t *testing.T) { eachDataplane(t, playBulk) }

func playBulk(t *testing.T, kind string) {
	const routes = 2000
	for _, link := range []struct{ name, one, two, via string }{
		{"ipv4", "10.12.0.1/24", "10.12.0.2/24", ""},
		{"link-local", "fe80::1/64", "fe80::2/64", ", interface: tun"},
	} {
		t.Run(link.name, func(t *testing.T) {
			dir := shortTemp(t)
			router := func(n int, own, other, role string, originate []string) *ctl.Client {
				return routerIn(t, dir, fmt.Sprint("r", n), fmt.Sprintf(`
router: {name: r%d, id: 172.20.0.%d, as: %d}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [172.20.0.%d/32]}
  tun: {memif: {socket: %s, role: %s}, mtu: 1400, addresses: ["%s"]%s}
bgp:
  originate: [%s]
  neighbors:
    - {name: other, address: "%s"%s, as: %d, families: [ipv4, ipv6], import: all, export: all}
`, n, n, 65000+n, kind, n, filepath.Join(dir, "tun.sock"), role, own, unnumberedFor(link.via), strings.Join(originate, ", "),
					strings.Split(other, "/")[0], link.via, 65003-n))
			}
			var many []string
			for i := range routes {
				many = append(many, fmt.Sprintf("100.64.%d.%d/32", i>>8, i&255))
			}
			router(1, link.one, link.two, "master", many)
			client := router(2, link.two, link.one, "slave", nil)
			awaiting(t, 60*time.Second, func(ctx context.Context) error {
				n, err := client.RouteCount(ctx, ctl.RouteFilter{Protocol: "bgp"})
				if err == nil && n.Installed < routes {
					err = fmt.Errorf("r2 has %d of %d routes: %+v", n.Installed, routes, n)
				}
				return err
			})
		})
	}
}

// unnumberedFor lends a link of link-local addresses an IPv4 one.
func unnumberedFor(via string) string {
	if via == "" {
		return ""
	}
	return ", unnumbered: dum0"
}
