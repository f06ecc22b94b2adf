package vppagent_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// runAgent runs an agent until the test ends, or stop is called.
func runAgent(t *testing.T, d *dataplanetest.Dataplane, cfg vppagent.Config) (a *vppagent.Agent, stop func()) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	if testing.Verbose() {
		log.SetLevel(logrus.DebugLevel)
	}
	a = vppagent.New(vppagent.Options{
		Socket: d.APISocket, StatsSocket: d.StatsSocket, Config: cfg, Log: logrus.NewEntry(log),
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not return")
		}
	}
	t.Cleanup(stop)
	return a, stop
}

// within is a context for one wait.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func configured(t *testing.T, a *vppagent.Agent) map[string]vppagent.InterfaceStatus {
	t.Helper()
	ctx := within(t)
	if err := a.WaitConfigured(ctx); err != nil {
		t.Fatalf("WaitConfigured: %v", err)
	}
	list, err := a.Interfaces(ctx)
	if err != nil {
		t.Fatalf("Interfaces: %v", err)
	}
	m := make(map[string]vppagent.InterfaceStatus)
	for _, i := range list {
		m[i.Name] = i
	}
	return m
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }

// site is a configuration with one of everything.
func site(d *dataplanetest.Dataplane) vppagent.Config {
	return vppagent.Config{
		Router: "router1",
		Tables: []vppagent.Table{{ID: 10, Name: "blue"}},
		Interfaces: []vppagent.Interface{
			{
				Name: "tun12", Memif: &vppagent.Memif{Socket: filepath.Join(d.Dir, "tun12.sock"), ID: 1, Role: vppagent.MemifMaster},
				MAC: mac(12), MTU: 1420, Addresses: prefixes("169.254.12.1/30", "fe80::1/64"), Enabled: true,
				Neighbors: []vppagent.StaticNeighbor{{Address: netip.MustParseAddr("fe80::2"), MAC: mac(21)}},
			},
			{
				Name: "tun13", Memif: &vppagent.Memif{Socket: filepath.Join(d.Dir, "tun13.sock"), ID: 1},
				MAC: mac(13), Unnumbered: "dum0", Addresses: prefixes("fe80::1/64"), Enabled: true,
			},
			{Name: "dum0", Loopback: &vppagent.Loopback{}, Addresses: prefixes("172.20.1.1/32", "fd42:1::1/128"), Enabled: true},
			{
				Name: "eth1", Memif: &vppagent.Memif{Socket: filepath.Join(d.Dir, "lan.sock"), ID: 7, Secret: "s3cret"},
				Table: 10, Addresses: prefixes("10.1.0.1/24", "fd42:10::1/64"), Enabled: true,
			},
		},
	}
}

func TestConfigures(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a, _ := runAgent(t, d, site(d))
		got := configured(t, a)
		for name, i := range got {
			t.Logf("%s: %+v", name, i)
		}
		for _, line := range []string{"show interface", "show interface address", "show ip fib table 0", "show ip6 interface tun12", "show memif", "show ip neighbors"} {
			out, err := a.CLI(within(t), line)
			t.Logf("%s: %v\n%s", line, err, out)
		}
		held, err := a.Dump(within(t))
		t.Logf("dump: %v %v", held, err)
		fibs, err := a.FIB(within(t), vppagent.FIBFilter{})
		t.Logf("fib: %v", err)
		for _, e := range fibs {
			t.Logf("%+v", e)
		}
		t.Logf("connected %v", a.Connected())
		errs := a.Apply(within(t), []fib.Change{
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.9.0.0/16")}, NextHops: []fib.NextHop{{Addr: netip.MustParseAddr("169.254.12.2"), Interface: "tun12"}}}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.8.0.0/16")}, Kind: fib.Blackhole}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.7.0.0/16")}, Kind: fib.Unreachable}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.6.0.0/16")}, Kind: fib.Prohibit}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.5.0.0/16")}, NextHops: []fib.NextHop{{Addr: netip.MustParseAddr("10.9.1.1")}}}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.4.0.0/16")}, NextHops: []fib.NextHop{{Addr: netip.MustParseAddr("fe80::2"), Interface: "tun12", Weight: 3}, {Interface: "tun13"}}}},
			{Route: fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.3.0.0/16")}, NextHops: []fib.NextHop{{Interface: "nope"}}}},
			{Route: fib.Route{Key: fib.Key{Table: 99, Prefix: netip.MustParsePrefix("10.3.0.0/16")}, NextHops: []fib.NextHop{{Interface: "tun13"}}}},
		})
		t.Logf("apply: %v", errs)
		held, err = a.Dump(within(t))
		t.Logf("dump: %+v %v", held, err)
	})
}
