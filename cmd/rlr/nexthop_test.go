package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rlr/fib"
	"rlr/hoststack"
	"rlr/internal/ctl"
	"rlr/vppagent"
)

// nextHopForms are the ways in which implementations write the next hop of a session between link-local addresses, as they stand
// in MP_REACH_NLRI. All mean the neighbour: a global address of its own is on no link of ours.
var nextHopForms = []struct{ name, bytes string }{
	{"global", "fd000000000000000000000000000002"},
	{"link-local", "fe800000000000000000000000000002"},
	{"global, link-local", "fd000000000000000000000000000002" + "fe800000000000000000000000000002"},
	{"unspecified, link-local", "00000000000000000000000000000000" + "fe800000000000000000000000000002"},
	{"link-local, link-local", "fe800000000000000000000000000002" + "fe800000000000000000000000000002"},
	{"unspecified", "00000000000000000000000000000000"},
}

// TestNextHops: a router has fe80::1 on three links, and no other address there, and a neighbour fe80::2 on each, which announces
// routes of both families with each form of a next hop. A packet from behind the router finds each of them, by the right link:
// only the network that has announced a prefix answers for it.
func TestNextHops(t *testing.T) { eachDataplane(t, playNextHops) }

func playNextHops(t *testing.T, kind string) {
	dir := shortTemp(t)
	socket := func(name string) string { return filepath.Join(dir, name+".sock") }
	var config strings.Builder
	fmt.Fprintf(&config, `
router: {name: r1, id: 172.20.0.1, as: 65000}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [172.20.0.1/32, "fd42::1/128"]}
  lan: {memif: {socket: %s, role: master}, addresses: [172.20.1.1/24, "fd42:1::1/64"]}
`, kind, socket("lan"))
	for n := 1; n <= 3; n++ {
		fmt.Fprintf(&config, "  tun%d: {memif: {socket: %s, role: master}, addresses: [\"fe80::1/64\"], unnumbered: dum0}\n", n, socket(fmt.Sprint("tun", n)))
	}
	config.WriteString("bgp:\n  neighbors:\n")
	for n := 1; n <= 3; n++ {
		fmt.Fprintf(&config, "    - {name: peer%d, address: \"fe80::2\", interface: tun%d, as: %d, families: [ipv4, ipv6], import: all, export: all, passive: true}\n", n, n, 65000+n)
	}
	client := routerIn(t, dir, "r1", config.String())

	host := newFar(t, "host", []vppagent.Interface{farLink("eth0", socket("lan"), "172.20.1.2/24", "fd42:1::2/64")},
		farRoute("0.0.0.0/0", "172.20.1.1", "eth0"), farRoute("::/0", "fd42:1::1", "eth0"))
	net4 := func(n, form int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", n, form)) }
	net6 := func(n, form int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("fd10:%d:%d::/48", n, form)) }
	for n := 1; n <= 3; n++ {
		var own []netip.Prefix
		for form := range nextHopForms {
			own = append(own, netip.PrefixFrom(net4(n, form).Addr().Next(), 32), netip.PrefixFrom(net6(n, form).Addr().Next(), 128))
		}
		link := farLink("eth0", socket(fmt.Sprint("tun", n)), "fe80::2/64")
		link.Unnumbered = "lo"
		far := newFar(t, fmt.Sprint("far", n), []vppagent.Interface{link, farLoopback(own...)},
			farRoute("172.20.1.0/24", "fe80::1", "eth0"), farRoute("fd42:1::/64", "fe80::1", "eth0"))
		speaker := far.speak("eth0", "fe80::2", "fe80::1", uint32(65000+n))
		for form, f := range nextHopForms {
			hop, err := hex.DecodeString(f.bytes)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range []netip.Prefix{net4(n, form), net6(n, form)} {
				update := announcement(uint32(65000+n), hop, p)
				want := fmt.Sprintf("000%d01%02x%s00%02x", i+1, len(hop), f.bytes, p.Bits()) // AFI, SAFI, length, next hop, reserved, length of the prefix
				if !strings.Contains(hex.EncodeToString(update), want) {
					t.Fatalf("the UPDATE %x has no %s", update, want)
				}
				if err := speaker.send(update); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for n := 1; n <= 3; n++ {
		for form, f := range nextHopForms {
			for _, p := range []netip.Prefix{net4(n, form), net6(n, form)} {
				t.Run(fmt.Sprintf("tun%d/%s/%s", n, f.name, p), func(t *testing.T) {
					awaiting(t, 30*time.Second, func(ctx context.Context) error {
						return routeIs(ctx, client, p, fmt.Sprint("tun", n), "fe80::2")
					})
					answered(t, host, p.Addr().Next(), 63)
				})
			}
		}
	}
}

// routeIs asks for a route of BGP's that is installed, with one path.
func routeIs(ctx context.Context, client *ctl.Client, prefix netip.Prefix, iface, hop string) error {
	found := false
	err := client.Routes(ctx, ctl.RouteFilter{Prefix: prefix}, func(r ctl.Route) error {
		found = true
		if len(r.Paths) != 1 || r.State != fib.Installed.String() || r.Paths[0].Interface != iface || r.Paths[0].NextHop != hop {
			return fmt.Errorf("%s is %s %s: %+v, want one path by %s on %s", r.Prefix, r.State, r.Error, r.Paths, hop, iface)
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("no route to %s", prefix)
	}
	return err
}

// answered pings until two in a row are answered, with this TTL.
func answered(t *testing.T, from *farNode, to netip.Addr, ttl int) {
	t.Helper()
	awaiting(t, 20*time.Second, func(ctx context.Context) error {
		var bad error
		_, err := from.prober.Ping(ctx, hoststack.PingRequest{
			Target: hoststack.Target{Addr: to}, Count: 2, Interval: 5 * time.Millisecond, Timeout: time.Second,
		}, func(r hoststack.Reply) {
			if r.From != to || r.TTL != ttl {
				bad = fmt.Errorf("a reply %+v instead of one from %s with TTL %d", r, to, ttl)
			}
		})
		if err != nil {
			return err
		}
		return bad
	})
}
