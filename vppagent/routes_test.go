package vppagent_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

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

func TestProbesTablesAreNotShown(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, vppagent.Config{Router: "router1"})
		configured(t, a)
		tables := ip.NewServiceClient(alien(t, d.APISocket))
		for id, name := range map[uint32]string{77: "rlr-probe/router1", 78: "rlr-probe/router2"} {
			if _, err := tables.IPTableAddDel(within(t), &ip.IPTableAddDel{IsAdd: true, Table: ip.IPTable{TableID: id, Name: name}}); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := a.FIB(within(t), vppagent.FIBFilter{})
		if err != nil {
			t.Fatal(err)
		}
		shown := make(map[uint32]bool)
		for _, e := range entries {
			shown[e.Table] = true
		}
		if !shown[0] || shown[77] || !shown[78] {
			t.Errorf("tables shown: %v", shown)
		}
	})
}
