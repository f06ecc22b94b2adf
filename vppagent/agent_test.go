package vppagent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/adapter/socketclient"
	"go.fd.io/govpp/core"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// runAgent runs an agent until the test ends, or stop is called.
func runAgent(
	t testing.TB, socket, stats string, cfg vppagent.Config, change ...func(*vppagent.Options),
) (a *vppagent.Agent, stop func()) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	if testing.Verbose() {
		log.SetLevel(logrus.DebugLevel)
	}
	opt := vppagent.Options{
		Socket: socket, StatsSocket: stats, Config: cfg, Log: logrus.NewEntry(log),
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
	}
	for _, f := range change {
		f(&opt)
	}
	a = vppagent.New(opt)
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
		case <-time.After(time.Minute):
			t.Error("Run does not return")
		}
	}
	t.Cleanup(stop)
	return a, stop
}

func start(t *testing.T, d *dataplanetest.Dataplane, cfg vppagent.Config) *vppagent.Agent {
	t.Helper()
	a, _ := runAgent(t, d.APISocket, d.StatsSocket, cfg)
	return a
}

// within is a context for one wait.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx := within(t)
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}

func statuses(t *testing.T, a *vppagent.Agent) map[string]vppagent.InterfaceStatus {
	t.Helper()
	list, err := a.Interfaces(within(t))
	if err != nil {
		t.Fatalf("Interfaces: %v", err)
	}
	m := make(map[string]vppagent.InterfaceStatus)
	for _, i := range list {
		m[i.Name] = i
	}
	return m
}

func configured(t *testing.T, a *vppagent.Agent) map[string]vppagent.InterfaceStatus {
	t.Helper()
	if err := a.WaitConfigured(within(t)); err != nil {
		t.Fatalf("WaitConfigured: %v", err)
	}
	return statuses(t, a)
}

// alien is another client of the dataplane, with govpp as it is.
func alien(t testing.TB, socket string) *core.Connection {
	t.Helper()
	conn, err := core.Connect(socketclient.NewVppClient(socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Disconnect)
	return conn
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }

// site is a configuration with one of everything.
func site(dir string) vppagent.Config {
	return vppagent.Config{
		Router: "router1",
		Tables: []vppagent.Table{{ID: 10, Name: "blue"}},
		Interfaces: []vppagent.Interface{
			{
				Name: "tun12", Memif: &vppagent.Memif{Socket: filepath.Join(dir, "tun12.sock"), ID: 1, Role: vppagent.MemifMaster},
				MAC: mac(12), MTU: 1420, Addresses: prefixes("169.254.12.1/30", "fe80::1/64"), Enabled: true,
				Neighbors: []vppagent.StaticNeighbor{{Address: netip.MustParseAddr("fe80::2"), MAC: mac(21)}},
			},
			{
				Name: "tun13", Memif: &vppagent.Memif{Socket: filepath.Join(dir, "tun13.sock"), ID: 1},
				MAC: mac(13), Unnumbered: "dum0", Addresses: prefixes("fe80::1/64"), Enabled: true,
			},
			{Name: "dum0", Loopback: &vppagent.Loopback{}, Addresses: prefixes("172.20.1.1/32", "fd42:1::1/128"), Enabled: true},
			{
				Name: "eth1", Memif: &vppagent.Memif{Socket: filepath.Join(dir, "lan.sock"), ID: 7, Secret: "s3cret"},
				Table: 10, Addresses: prefixes("10.1.0.1/24", "fd42:10::1/64"), Enabled: true,
			},
		},
	}
}

// describe is what of a status the configuration decides.
func describe(i vppagent.InterfaceStatus) string {
	return fmt.Sprintf("%s %s admin %v mtu %d table %d %v lender %q mac %v", i.Kind, i.State, i.Admin, i.MTU, i.Table, i.Addresses, i.Unnumbered, i.MAC)
}

func wantInterfaces(t *testing.T, got map[string]vppagent.InterfaceStatus, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if g := describe(got[name]); !strings.HasPrefix(g, w) {
			t.Errorf("%s is\n\t%s (%v), want\n\t%s", name, g, got[name].Err, w)
		}
	}
	for name, i := range got {
		if i.State != vppagent.Alien && want[name] == "" {
			t.Errorf("unexpected interface %s", name)
		}
	}
}

func TestConfigures(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a, stop := runAgent(t, d.APISocket, d.StatsSocket, site(d.Dir))
		first := configured(t, a)
		linkLocal := first["eth1"].Addresses[2] // VPP made it up
		wantInterfaces(t, first, map[string]string{
			"tun12": `memif ok admin true mtu 1420 table 0 [169.254.12.1/30 fe80::1/128] lender "" mac 02:00:00:00:00:0c`,
			"tun13": `memif ok admin true mtu 9000 table 0 [fe80::1/128] lender "dum0" mac 02:00:00:00:00:0d`,
			"dum0":  `loopback ok admin true mtu 9000 table 0 [172.20.1.1/32 fd42:1::1/128 fe80:`,
			"eth1":  fmt.Sprintf(`memif ok admin true mtu 9000 table 10 [10.1.0.1/24 fd42:10::1/64 %v] lender ""`, linkLocal),
		})
		if st := a.Status(); !st.Connected || st.Version == "" || st.PID == 0 || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		neighbors, err := a.Neighbors(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(neighbors, func(n vppagent.Neighbor) bool {
			return n.Address == netip.MustParseAddr("fe80::2") && n.Interface == "tun12" && n.Static && n.MAC.String() == "02:00:00:00:00:15"
		}) {
			t.Errorf("neighbours %+v", neighbors)
		}
		// Only the loopback is up: nobody is at the other end of the cables.
		if got := fmt.Sprint(a.Connected()); got != "[172.20.1.1/32 fd42:1::1/128]" {
			t.Errorf("connected %s", got)
		}
		index := first["tun12"].SwIfIndex
		if i, ok := a.InterfaceIndex("tun12"); !ok || i != index {
			t.Errorf("InterfaceIndex %d %v, want %d", i, ok, index)
		}
		if name, ok := a.InterfaceName(index); !ok || name != "tun12" {
			t.Errorf("InterfaceName %q %v", name, ok)
		}
		if out, err := a.CLI(within(t), "show version"); err != nil || !strings.Contains(out, "vpp") {
			t.Errorf("CLI: %q, %v", out, err)
		}
		if out, err := a.CLI(within(t), "no such command"); err == nil {
			t.Errorf("CLI takes everything: %q", out)
		}
		stop()

		// The next life finds everything as it should be, and leaves it.
		again := configured(t, start(t, d, site(d.Dir)))
		for name, i := range first {
			if j := again[name]; j.SwIfIndex != i.SwIfIndex || describe(j) != describe(i) {
				t.Errorf("%s was %+v, is %+v", name, i, j)
			}
		}
	})
}

func TestConfigurationChanges(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		first := configured(t, a)
		c := site(d.Dir)
		c.Tables = []vppagent.Table{{ID: 20, Name: "red"}}
		tun12, tun13, dum0, eth1 := &c.Interfaces[0], &c.Interfaces[1], &c.Interfaces[2], &c.Interfaces[3]
		tun12.Addresses, tun12.MTU, tun12.Enabled = prefixes("169.254.12.5/30", "169.254.12.1/31", "fe80::7/64"), 1280, false
		tun12.Neighbors = []vppagent.StaticNeighbor{
			{Address: netip.MustParseAddr("fe80::2"), MAC: mac(22)}, {Address: netip.MustParseAddr("169.254.12.6"), MAC: mac(23)},
		}
		tun13.Unnumbered, tun13.Addresses = "", prefixes("169.254.13.1/30")
		dum0.Addresses = prefixes("172.20.1.2/32")
		eth1.Table = 20
		c.Interfaces = append(c.Interfaces, vppagent.Interface{
			Name: "dum1", Loopback: &vppagent.Loopback{}, MAC: mac(99), Addresses: prefixes("172.20.9.9/32"), Enabled: true,
		})
		a.SetConfig(c)
		got := configured(t, a)
		wantInterfaces(t, got, map[string]string{
			"tun12": `memif ok admin false mtu 1280 table 0 [169.254.12.1/31 169.254.12.5/30 fe80::7/128] lender "" mac 02:00:00:00:00:0c`,
			"tun13": `memif ok admin true mtu 9000 table 0 [169.254.13.1/30] lender ""`,
			"dum0":  `loopback ok admin true mtu 9000 table 0 [172.20.1.2/32] lender ""`,
			"eth1":  `memif ok admin true mtu 9000 table 20 [10.1.0.1/24 fd42:10::1/64 fe80:`,
			"dum1":  `loopback ok admin true mtu 9000 table 0 [172.20.9.9/32] lender "" mac 02:00:00:00:00:63`,
		})
		for name, i := range first {
			if got[name].SwIfIndex != i.SwIfIndex {
				t.Errorf("%s was made anew", name)
			}
		}
		neighbors, err := a.Neighbors(within(t))
		if err != nil {
			t.Fatal(err)
		}
		var static []string
		for _, n := range neighbors {
			if n.Static && n.Interface == "tun12" {
				static = append(static, fmt.Sprint(n.Address, " ", n.MAC))
			}
		}
		if fmt.Sprint(static) != "[169.254.12.6 02:00:00:00:00:17 fe80::2 02:00:00:00:00:16]" {
			t.Errorf("static neighbours %v", static)
		}
		tables := []uint32{}
		entries, err := a.FIB(within(t), vppagent.FIBFilter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			tables = append(tables, e.Table)
		}
		if slices.Contains(tables, 10) || !slices.Contains(tables, 20) {
			t.Errorf("tables of the FIB: %v", slices.Compact(tables))
		}

		// Another ring makes another interface; what is not configured any more goes.
		c.Interfaces = c.Interfaces[:1]
		c.Interfaces[0].Memif.RingSize = 256
		c.Interfaces[0].Enabled = true
		c.Tables = nil
		a.SetConfig(c)
		got = configured(t, a)
		wantInterfaces(t, got, map[string]string{"tun12": `memif ok admin true mtu 1280 table 0 [169.254.12.1/31 169.254.12.5/30 fe80::7/128]`})
		if err := a.Clean(within(t)); err != nil {
			t.Fatal(err)
		}
		for name, i := range statuses(t, a) {
			if i.SwIfIndex != 0 {
				t.Errorf("%s is left: %+v", name, i)
			}
		}
		if errs := a.Apply(within(t), []fib.Change{{Route: blackhole("10.9.0.0/16")}}); !errors.Is(errs[0], fib.ErrDisconnected) {
			t.Errorf("a route is written after Clean: %v", errs)
		}
	})
}

func TestOneInterfacesFailureIsItsOwn(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		c := site(d.Dir)
		c.Interfaces[0].Addresses = prefixes("172.20.1.1/24", "172.20.1.9/25") // the second overlaps
		c.Interfaces[1].Unnumbered = "nope"
		c.Interfaces[3].Memif.Secret = strings.Repeat("x", 25)
		a := start(t, d, c)
		states := map[string]vppagent.InterfaceState{
			"tun12": vppagent.Failed, "tun13": vppagent.Failed, "dum0": vppagent.Configured, "eth1": vppagent.Failed,
		}
		var got map[string]vppagent.InterfaceStatus
		eventually(t, "states", func() bool {
			got = statuses(t, a)
			for name, want := range states {
				if got[name].State != want || (got[name].Err != nil) != (want == vppagent.Failed) {
					return false
				}
			}
			return true
		})
		if !strings.Contains(got["tun13"].Err.Error(), "nope") || !strings.Contains(got["eth1"].Err.Error(), "secret") {
			t.Errorf("errors %v, %v", got["tun13"].Err, got["eth1"].Err)
		}
		if len(a.Errors()) == 0 {
			t.Error("no errors are told")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := a.WaitConfigured(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "interface") {
			t.Errorf("WaitConfigured: %v", err)
		}
		a.SetConfig(site(d.Dir))
		wantInterfaces(t, configured(t, a), map[string]string{"tun12": "memif ok", "tun13": "memif ok", "dum0": "loopback ok", "eth1": "memif ok"})
	})
}

// TestLinksComeUp joins two memifs of the same dataplane.
func TestLinksComeUp(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		c := vppagent.Config{Router: "router1", Interfaces: []vppagent.Interface{
			{
				Name: "left", Memif: &vppagent.Memif{Socket: d.Dir + "/cable.sock", Role: vppagent.MemifMaster},
				Addresses: prefixes("192.0.2.1/30"), Enabled: true,
			},
			{ // another name for the same socket, as a VPP's socket either listens or connects
				Name: "right", Memif: &vppagent.Memif{Socket: d.Dir + "/./cable.sock", Role: vppagent.MemifSlave},
				Table: 5, Addresses: prefixes("192.0.2.2/30"), Enabled: true,
			},
		}, Tables: []vppagent.Table{{ID: 5, Name: "five"}}}
		a := start(t, d, c)
		configured(t, a)
		up := func() int { return len(a.Connected()) }
		eventually(t, "both ends are up", func() bool { return up() == 2 })
		c.Interfaces[1].Enabled = false // which does not cut the cable
		a.SetConfig(c)
		eventually(t, "one end is down", func() bool { return up() == 1 })
		right := c.Interfaces[1]
		c.Interfaces = c.Interfaces[:1]
		a.SetConfig(c)
		eventually(t, "the cable is cut", func() bool { return up() == 0 })
		right.Enabled = true
		c.Interfaces = append(c.Interfaces, right)
		a.SetConfig(c)
		eventually(t, "both ends are up again", func() bool { return up() == 2 })
		if d.Kind == dataplanetest.VPP {
			eventually(t, "the receive mode is adaptive", func() bool {
				out, err := a.CLI(within(t), "show interface rx-placement")
				return err == nil && strings.Count(out, "(adaptive)") == 2
			})
		}
		// Packets of the dataplane itself are counted.
		if _, err := a.CLI(within(t), "ping 192.0.2.2 repeat 2 interval 0.01"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "counters", func() bool {
			l := statuses(t, a)["left"].Counters
			return l.TxPackets > 0 && l.TxBytes > 0 && l.RxPackets > 0
		})
	})
}
