package vppagent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/adapter/socketclient"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/core"

	"rlr/binapi"
	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// runAgent runs an agent until the test ends, or stop is called.
func runAgent(t *testing.T, socket, stats string, cfg vppagent.Config) (a *vppagent.Agent, stop func()) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	if testing.Verbose() {
		log.SetLevel(logrus.DebugLevel)
	}
	a = vppagent.New(vppagent.Options{
		Socket: socket, StatsSocket: stats, Config: cfg, Log: logrus.NewEntry(log),
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

func start(t *testing.T, d *dataplanetest.Dataplane, cfg vppagent.Config) *vppagent.Agent {
	t.Helper()
	a, _ := runAgent(t, d.APISocket, d.StatsSocket, cfg)
	return a
}

// within is a context for one wait.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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
func alien(t *testing.T, socket string) *core.Connection {
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

func blackhole(p string) fib.Route {
	return fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix(p)}, Kind: fib.Blackhole}
}

func unicast(table uint32, p string, hops ...fib.NextHop) fib.Route {
	return fib.Route{Key: fib.Key{Table: table, Prefix: netip.MustParsePrefix(p)}, NextHops: hops}
}

func hop(addr, iface string, weight uint8) fib.NextHop {
	h := fib.NextHop{Interface: iface, Weight: weight}
	if addr != "" {
		h.Addr = netip.MustParseAddr(addr)
	}
	return h
}

// write applies changes that must all succeed.
func write(t *testing.T, a *vppagent.Agent, del bool, routes ...fib.Route) {
	t.Helper()
	changes := make([]fib.Change, len(routes))
	for i, r := range routes {
		changes[i] = fib.Change{Route: r, Delete: del}
	}
	for i, err := range a.Apply(within(t), changes) {
		if err != nil {
			t.Errorf("%v: %v", routes[i].Key, err)
		}
	}
}

func held(t *testing.T, a *vppagent.Agent) map[fib.Key]fib.Held {
	t.Helper()
	list, err := a.Dump(within(t))
	if err != nil {
		t.Fatalf("Dump: %v", err)
	}
	m := make(map[fib.Key]fib.Held)
	for _, h := range list {
		m[h.Key] = h
	}
	return m
}

func wantHeld(t *testing.T, a *vppagent.Agent, want ...fib.Route) {
	t.Helper()
	got := held(t, a)
	for _, r := range want {
		if h, ok := got[r.Key]; !ok || h.Shadowed || !h.Equal(r) {
			t.Errorf("%v: dataplane holds %v %v %v, want %v %v", r.Key, ok, h.Kind, h.NextHops, r.Kind, r.NextHops)
		}
		delete(got, r.Key)
	}
	for k, h := range got {
		if !h.Shadowed {
			t.Errorf("%v: dataplane holds it, too", k)
		}
	}
}

func TestRoutes(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		configured(t, a)
		if errs := a.Apply(within(t), []fib.Change{{Route: blackhole("10.9.0.0/16")}}); !errors.Is(errs[0], fib.ErrDisconnected) {
			t.Errorf("a route is written before the connection's first dump: %v", errs)
		}
		wantHeld(t, a)
		routes := []fib.Route{
			unicast(0, "10.2.0.0/24", hop("169.254.12.2", "tun12", 1)),
			unicast(0, "10.3.0.0/24", hop("169.254.12.2", "tun12", 3), hop("fe80::2", "tun13", 1)), // RFC 8950
			unicast(0, "10.4.0.0/24", hop("10.2.0.9", "", 1)),                                      // recursive
			unicast(0, "10.5.0.0/24", hop("", "tun13", 1)),                                         // attached
			unicast(0, "fd42:2::/48", hop("fe80::2", "tun12", 1)),
			unicast(10, "10.2.0.0/24", hop("10.1.0.9", "eth1", 1)),
			unicast(0, "0.0.0.0/0", hop("169.254.12.2", "tun12", 1)),
			unicast(0, "::/0", hop("fe80::2", "tun12", 1), hop("fe80::2", "tun13", 1)),
			{Key: fib.Key{Prefix: netip.MustParsePrefix("10.6.0.0/16")}, Kind: fib.Unreachable},
			{Key: fib.Key{Prefix: netip.MustParsePrefix("fd42:6::/48")}, Kind: fib.Prohibit},
			{Key: fib.Key{Table: 10, Prefix: netip.MustParsePrefix("fd42:7::/48")}, Kind: fib.Blackhole},
			blackhole("10.7.0.0/16"),
		}
		write(t, a, false, routes...)
		wantHeld(t, a, routes...)

		// In place, from each kind to the next.
		for i := range routes {
			next := routes[(i+1)%len(routes)]
			if next.Prefix.Addr().Is4() == routes[i].Prefix.Addr().Is4() && next.Table == routes[i].Table {
				routes[i].Kind, routes[i].NextHops = next.Kind, next.NextHops
			}
		}
		write(t, a, false, routes...)
		wantHeld(t, a, routes...)
		entries, err := a.FIB(within(t), vppagent.FIBFilter{Prefix: netip.MustParsePrefix("10.6.0.0/16")})
		if err != nil || len(entries) != 1 || !entries[0].Ours || entries[0].Source != "rlr/router1" {
			t.Errorf("FIB of a prefix: %+v, %v", entries, err)
		}
		table := uint32(10)
		entries, err = a.FIB(within(t), vppagent.FIBFilter{Table: &table, Address: netip.MustParseAddr("10.1.0.77")})
		if err != nil || len(entries) != 1 || entries[0].Prefix.String() != "10.1.0.0/24" || entries[0].Paths[0].Interface != "eth1" {
			t.Errorf("FIB for an address: %+v, %v", entries, err)
		}
		entries, err = a.FIB(within(t), vppagent.FIBFilter{Prefix: netip.MustParsePrefix("10.99.0.0/16")})
		if err != nil || len(entries) != 0 {
			t.Errorf("FIB of a prefix that is not there: %+v, %v", entries, err)
		}

		write(t, a, true, routes[1:]...)
		write(t, a, true, routes[1]) // again: nothing to delete is no error
		wantHeld(t, a, routes[0])
	})
}

func TestRoutesThatCannotBe(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		configured(t, a)
		wantHeld(t, a)
		var many []fib.NextHop
		for i := range 256 {
			many = append(many, hop(fmt.Sprintf("169.254.%d.2", i), "tun12", 1))
		}
		good := unicast(0, "10.9.0.0/16", hop("169.254.12.2", "tun12", 1))
		changes := []struct {
			route fib.Route
			want  error // nil: any error but those two
		}{
			{unicast(0, "10.0.0.0/16", hop("", "nope", 1)), fib.ErrNoInterface},
			{unicast(0, "10.1.0.0/16", hop("169.254.12.2", "tun12", 1), hop("", "nope", 1)), fib.ErrNoInterface},
			{unicast(99, "10.2.0.0/16", hop("169.254.12.2", "tun12", 1)), fib.ErrNoInterface},
			{unicast(0, "10.3.0.0/16"), nil},
			{unicast(0, "10.4.0.0/16", many...), nil},
			{fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix("10.5.0.0/16")}, Kind: fib.Connected}, nil},
			{good, fib.ErrStopped}, // stands for none
		}
		list := make([]fib.Change, len(changes))
		for i, c := range changes {
			list[i].Route = c.route
		}
		for i, err := range a.Apply(within(t), list) {
			known := errors.Is(err, fib.ErrNoInterface) || errors.Is(err, fib.ErrDisconnected)
			switch want := changes[i].want; {
			case want == fib.ErrStopped && err == nil, want == nil && err != nil && !known:
			case want == fib.ErrNoInterface && errors.Is(err, want):
			default:
				t.Errorf("%v: %v, want %v", changes[i].route.Key, err, want)
			}
		}
		wantHeld(t, a, good)
	})
}

// TestAlienStateIsNotTouched configures, changes and cleans beside another client's things.
func TestAlienStateIsNotTouched(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		conn := alien(t, d.APISocket)
		ctx := within(t)
		ifs, ips := interfaces.NewServiceClient(conn), ip.NewServiceClient(conn)
		loop, err := ifs.CreateLoopbackInstance(ctx, &interfaces.CreateLoopbackInstance{})
		if err != nil {
			t.Fatal(err)
		}
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(ifs.SwInterfaceTagAddDel(ctx, &interfaces.SwInterfaceTagAddDel{IsAdd: true, SwIfIndex: loop.SwIfIndex, Tag: "rlr/router12/dum0/00000000"}))
		must(ifs.SwInterfaceSetFlags(ctx, &interfaces.SwInterfaceSetFlags{SwIfIndex: loop.SwIfIndex, Flags: interface_types.IF_STATUS_API_FLAG_ADMIN_UP}))
		must(ifs.SwInterfaceAddDelAddress(ctx, &interfaces.SwInterfaceAddDelAddress{
			SwIfIndex: loop.SwIfIndex, IsAdd: true, Prefix: binapi.ToAddressWithPrefix(netip.MustParsePrefix("192.0.2.1/24")),
		}))
		must(ips.IPTableAddDel(ctx, &ip.IPTableAddDel{IsAdd: true, Table: ip.IPTable{TableID: 77, Name: "theirs"}}))
		route := func(p string) {
			t.Helper()
			must(ips.IPRouteAddDelV2(ctx, &ip.IPRouteAddDelV2{IsAdd: true, Route: ip.IPRouteV2{
				Prefix: binapi.ToPrefix(netip.MustParsePrefix(p)), NPaths: 1,
				Paths: []fib_types.FibPath{binapi.ToPath(binapi.Path{Addr: netip.MustParseAddr("192.0.2.9"), SwIfIndex: uint32(loop.SwIfIndex)}, netip.MustParseAddr("10.0.0.0"))},
			}}))
		}
		route("198.51.100.0/24")
		route("10.2.0.0/16")

		a := start(t, d, site(d.Dir))
		configured(t, a)
		wantHeld(t, a)
		ours := unicast(0, "10.2.0.0/16", hop("169.254.12.2", "tun12", 1))
		write(t, a, false, ours, blackhole("10.3.0.0/16"))
		// The API's own source is the better one.
		if h := held(t, a)[ours.Key]; !h.Shadowed {
			t.Errorf("a route behind another source: %+v", h)
		}
		a.SetConfig(vppagent.Config{Router: "router1"})
		configured(t, a)
		if err := a.Clean(ctx); err != nil {
			t.Fatal(err)
		}
		all := statuses(t, a)
		if len(all) != 2 {
			t.Errorf("interfaces %+v", all)
		}
		for _, i := range all {
			if i.SwIfIndex == uint32(loop.SwIfIndex) && fmt.Sprint(i.Addresses) != "[192.0.2.1/24]" {
				t.Errorf("theirs is %+v", i)
			}
		}
		for _, p := range prefixes("198.51.100.0/24", "10.2.0.0/16") {
			entries, err := a.FIB(ctx, vppagent.FIBFilter{Prefix: p})
			if err != nil || len(entries) != 1 || entries[0].Paths[0].NextHop.String() != "192.0.2.9" {
				t.Errorf("their route: %+v, %v", entries, err)
			}
		}
		table := uint32(77)
		if entries, err := a.FIB(ctx, vppagent.FIBFilter{Table: &table}); err != nil || len(entries) == 0 {
			t.Errorf("their table: %v, %v", entries, err)
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

// TestSomebodyElseDeletes deletes an interface of ours behind our back: it comes back, and so do the routes over it.
func TestSomebodyElseDeletes(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		s := syncer(t, a)
		before := configured(t, a)
		route := unicast(0, "10.2.0.0/16", hop("fe80::2", "tun12", 1))
		other := unicast(0, "10.3.0.0/16", hop("fe80::2", "tun13", 1))
		rev := s.feed.Update(route, other)
		s.wait(t, rev)
		wantHeld(t, a, route, other)

		conn := alien(t, d.APISocket)
		index := interface_types.InterfaceIndex(before["tun12"].SwIfIndex)
		if _, err := memif.NewServiceClient(conn).MemifDelete(within(t), &memif.MemifDelete{SwIfIndex: index}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "tun12 is back", func() bool {
			i, err := a.Interfaces(within(t))
			return err == nil && slices.ContainsFunc(i, func(i vppagent.InterfaceStatus) bool {
				return i.Name == "tun12" && i.State == vppagent.Configured && i.DataplaneName != "" && i.MTU == 1420
			})
		})
		configured(t, a)
		eventually(t, "the routes are back", func() bool {
			e, _ := s.Get(route.Key)
			h := held(t, a)[route.Key]
			return e.State == fib.Installed && h.Equal(route)
		})
		wantHeld(t, a, route, other)
		if s.Status().Refused != 0 {
			t.Errorf("%+v", s.Status())
		}
	})
}

// following is a fib.Syncer that is wired to an agent as cmd/rlr does it.
type following struct {
	*fib.Syncer
	feed, direct *fib.Feed
}

func syncer(t *testing.T, a *vppagent.Agent) *following {
	t.Helper()
	s := &following{Syncer: fib.NewSyncer(fib.Options{Target: a, MinBackoff: 20 * time.Millisecond})}
	s.feed, s.direct = s.Feed("static", 200), s.Feed("direct", 240)
	t.Cleanup(a.Watch(func(c vppagent.Change) {
		switch c.Kind {
		case vppagent.Attached, vppagent.RoutesChanged:
			s.Invalidate()
		case vppagent.InterfacesChanged:
			s.direct.Replace(a.Connected())
			s.InterfacesChanged()
		}
	}))
	s.direct.Replace(a.Connected())
	s.direct.Complete()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Syncer.Run: %v", err)
		}
	})
	return s
}

func (s *following) wait(t *testing.T, rev uint64) {
	t.Helper()
	if err := s.WaitSynced(within(t), rev); err != nil {
		t.Fatalf("WaitSynced: %v; %+v", err, s.Status())
	}
}

// TestRouterRestarts leaves routes in the dataplane, as a crash would, and sees the next life take them over.
func TestRouterRestarts(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		var routes []fib.Route
		for i := range 2000 {
			routes = append(routes, unicast(0, fmt.Sprintf("20.%d.%d.0/24", i/250, i%250), hop("169.254.12.2", "tun12", 1)))
		}
		a, stop := runAgent(t, d.APISocket, d.StatsSocket, site(d.Dir))
		configured(t, a)
		wantHeld(t, a)
		write(t, a, false, routes...)
		stop()

		a = start(t, d, site(d.Dir))
		s := syncer(t, a)
		configured(t, a)
		gone, changed := routes[0], routes[1]
		changed.NextHops = []fib.NextHop{hop("169.254.12.2", "tun12", 1), hop("fe80::2", "tun13", 1)}
		s.wait(t, s.feed.Update(append([]fib.Route{changed}, routes[2:]...)...))
		if e, _ := s.Get(gone.Key); e.State != fib.Stale {
			t.Errorf("a route that nobody has wanted yet is %v", e.State)
		}
		if st := s.Status(); st.Written != 1 || st.Deleted != 0 {
			t.Errorf("written %d, deleted %d; want only the difference", st.Written, st.Deleted)
		}
		s.wait(t, s.feed.Complete())
		wantHeld(t, a, append([]fib.Route{changed}, routes[2:]...)...)
		if st := s.Status(); st.Written != 1 || st.Deleted != 1 {
			t.Errorf("written %d, deleted %d", st.Written, st.Deleted)
		}
	})
}

// TestDataplaneRestarts replaces the dataplane under a running router: everything is built again.
func TestDataplaneRestarts(t *testing.T) {
	for _, kind := range []dataplanetest.Kind{dataplanetest.Embedded, dataplanetest.VPP} {
		t.Run(string(kind), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "r")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "api.sock")
			var a *vppagent.Agent
			var s *following
			var attached []bool
			var pid uint32
			routes := []fib.Route{
				unicast(0, "10.2.0.0/16", hop("169.254.12.2", "tun12", 1)), unicast(10, "fd42:2::/48", hop("fd42:10::9", "eth1", 1)),
				blackhole("10.3.0.0/16"),
			}
			for life := range 3 {
				t.Run(fmt.Sprint("life", life), func(t2 *testing.T) {
					d := dataplanetest.Start(t2, kind)
					_ = os.Remove(socket)
					if err := os.Symlink(d.APISocket, socket); err != nil {
						t2.Fatal(err)
					}
					if a == nil {
						a, _ = runAgent(t, socket, "", site(dir))
						a.Watch(func(c vppagent.Change) {
							if c.Kind == vppagent.Attached {
								attached = append(attached, c.NewInstance)
							}
						})
						s = syncer(t, a)
						s.feed.Update(routes...)
						s.feed.Complete()
					}
					configured(t2, a)
					s.wait(t2, s.Revision())
					wantInterfaces(t2, statuses(t2, a), map[string]string{"tun12": "memif ok", "tun13": "memif ok", "dum0": "loopback ok", "eth1": "memif ok"})
					wantHeld(t2, a, routes...)
					if kind == dataplanetest.VPP {
						if now := a.Status().PID; now == pid {
							t2.Errorf("process %d again", now)
						}
						pid = a.Status().PID
						if life == 1 { // without a word
							if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
								t2.Fatal(err)
							}
						}
					}
				})
				if t.Failed() || a == nil {
					return // no VPP, for instance
				}
				eventually(t, "the end is noticed", func() bool { return !a.Status().Connected })
				if err := a.Status().Err; err == nil {
					t.Error("no reason for the end")
				}
				if errs := a.Apply(within(t), []fib.Change{{Route: blackhole("10.9.0.0/16")}}); !errors.Is(errs[0], fib.ErrDisconnected) {
					t.Errorf("Apply without a dataplane: %v", errs)
				}
				if i, err := a.Interfaces(within(t)); err != nil || len(i) != 4 || i[0].State != vppagent.Pending {
					t.Errorf("Interfaces without a dataplane: %+v, %v", i, err)
				}
			}
		})
	}
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
