package minivpp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/ping"
	"go.fd.io/govpp/binapi/vlib"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// noPaths is VNET_API_ERROR_NO_PATHS_IN_ROUTE; govpp has an old name for the number.
const noPaths = api.VPPApiError(-52)

// sources returns the FIB sources by id.
func (v *vpp) sources() map[uint8]fib.FibSource {
	r, err := fib.NewServiceClient(v.conn).FibSourceDump(v.ctx, &fib.FibSourceDump{})
	found := map[uint8]fib.FibSource{}
	for _, d := range all[fib.FibSourceDetails](v.t, r, err) {
		found[d.Src.ID] = d.Src
	}
	return found
}

func (v *vpp) addSource(name string, priority uint8) uint8 {
	r, err := fib.NewServiceClient(v.conn).FibSourceAdd(v.ctx, &fib.FibSourceAdd{Src: fib.FibSource{Name: name, Priority: priority}})
	v.ok(err, "add source")
	return r.ID
}

func TestSources(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		byName := map[string]fib.FibSource{}
		for _, s := range v.sources() {
			byName[s.Name] = s
		}
		for name, want := range map[string]fib.FibSource{
			"interface": {ID: 4, Priority: 0x03}, "API": {ID: 8, Priority: 0x80}, "CLI": {ID: 9, Priority: 0x81},
			"adjacency": {ID: 15, Priority: 0xd0}, "default-route": {ID: 20, Priority: 0xfd},
		} {
			if got := byName[name]; got.ID != want.ID || got.Priority != want.Priority {
				t.Errorf("source %s is %+v, want %+v", name, got, want)
			}
		}
		one, two := v.addSource("rlr", 0x40), v.addSource("rlr", 0x40)
		if one == two {
			t.Errorf("two sources have the id %d", one)
		}
		for _, id := range []uint8{one, two} {
			if s := v.sources()[id]; s.Name != "rlr" || s.Priority != 0x40 {
				t.Errorf("source %d is %+v", id, s)
			}
		}
	})
}

func TestRoutes(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := uint32(v.loopback("10.1.0.1/24", "2001:db8::1/64"))
		ours := v.addSource("rlr", 0x40)
		const dst = "192.0.2.0/24"
		check := func(src uint8, want ...string) {
			t.Helper()
			if d := cmp.Diff(want, v.routes(src, false)[dst]); d != "" {
				t.Errorf("source %d: %s", src, d)
			}
		}
		check(ours)
		v.ok(v.route(dst, ours, true, false, via(dst, lo, "10.1.0.2")), "add")
		check(ours, "10.1.0.2")
		v.ok(v.route(dst, ours, true, false, via(dst, lo, "10.1.0.3", "10.1.0.4")), "replace")
		check(ours, "10.1.0.3", "10.1.0.4")
		v.ok(v.route(dst, ours, true, true, via(dst, lo, "10.1.0.5")), "add a path")
		check(ours, "10.1.0.3", "10.1.0.4", "10.1.0.5")
		v.ok(v.route(dst, ours, false, true, via(dst, lo, "10.1.0.3")), "remove a path")
		check(ours, "10.1.0.4", "10.1.0.5")
		v.want(v.route(dst, ours, true, false, nil), noPaths, "no paths")
		v.want(v.route(dst, ours, false, true, nil), noPaths, "no paths to remove")

		// Another source with a worse priority does not show, not even when asked for, but keeps the entry.
		v.ok(v.route(dst, 0, true, false, via(dst, lo, "10.1.0.9")), "add as API")
		check(8)
		check(0, "10.1.0.4", "10.1.0.5")
		v.ok(v.route(dst, ours, false, false, nil), "delete ours")
		check(8, "10.1.0.9")
		check(ours)
		v.ok(v.route(dst, 0, false, false, nil), "delete the API's")
		check(0)
		v.ok(v.route(dst, 0, false, false, nil), "delete what is not there")

		// IPv4 via IPv6 (RFC 8950), IPv6, a drop, and a next hop that is looked up.
		v.ok(v.route(dst, ours, true, false, via(dst, lo, "2001:db8::2")), "IPv4 via IPv6")
		check(ours, "2001:db8::2")
		v.ok(v.route(dst, ours, true, false, via(dst, ^uint32(0), "10.1.0.7")), "recursive")
		check(ours, "10.1.0.7")
		drop := binapi.ToPath(binapi.Path{Type: fib_types.FIB_API_PATH_TYPE_DROP}, netip.MustParseAddr("192.0.2.0"))
		v.ok(v.route(dst, ours, true, false, []fib_types.FibPath{drop}), "drop")
		check(ours, "FIB_API_PATH_TYPE_DROP")
		const dst6 = "2001:db8:9::/48"
		v.ok(v.route(dst6, ours, true, false, via(dst6, lo, "fe80::9")), "via link-local")
		if d := cmp.Diff([]string{"fe80::9"}, v.routes(ours, true)[dst6]); d != "" {
			t.Error(d)
		}
		if got := v.routes(ours, false); len(got) != 1 {
			t.Errorf("ours are %v", got)
		}
	})
}

func TestRouteErrors(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := uint32(v.loopback("10.1.0.1/24"))
		const dst = "192.0.2.0/24"
		add := func(prefix ip_types.Prefix, table uint32, paths ...fib_types.FibPath) error {
			_, err := v.ip.IPRouteAddDelV2(v.ctx, &ip.IPRouteAddDelV2{IsAdd: true, Route: ip.IPRouteV2{
				TableID: table, Prefix: prefix, NPaths: uint8(len(paths)), Paths: paths,
			}})
			return err
		}
		prefix := binapi.ToPrefix(netip.MustParsePrefix(dst))
		good := via(dst, lo, "10.1.0.2")[0]
		long := prefix
		long.Len = 33
		v.want(add(prefix, 99, good), api.NO_SUCH_FIB, "no such table")
		v.want(add(long, 0, good), api.INVALID_PREFIX_LENGTH, "a length of 33")
		v.want(add(prefix, 0, via(dst, 77, "10.1.0.2")...), api.NO_MATCHING_INTERFACE, "no such interface")
		bad := via(dst, ^uint32(0), "10.1.0.2")[0]
		bad.TableID = 99
		v.want(add(prefix, 0, bad), api.NO_SUCH_FIB, "a next hop in no table")

		// Host bits are forgotten.
		v.ok(add(binapi.ToPrefix(netip.MustParsePrefix("198.51.100.7/24")), 0, good), "host bits")
		if _, ok := v.routes(8, false)["198.51.100.0/24"]; !ok {
			t.Errorf("with host bits: %v", v.routes(8, false))
		}
	})
}

func TestRoutesVersion1(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := uint32(v.loopback("10.1.0.1/24"))
		route := ip.IPRoute{Prefix: binapi.ToPrefix(netip.MustParsePrefix("192.0.2.0/24")), NPaths: 1, Paths: via("192.0.2.0/24", lo, "10.1.0.2")}
		r, err := v.ip.IPRouteAddDel(v.ctx, &ip.IPRouteAddDel{IsAdd: true, Route: route})
		v.ok(err, "add")
		found := map[string]uint32{}
		dump, err := v.ip.IPRouteDump(v.ctx, &ip.IPRouteDump{})
		for _, d := range all[ip.IPRouteDetails](t, dump, err) {
			found[binapi.FromPrefix(d.Route.Prefix).String()] = d.Route.StatsIndex
		}
		if idx, ok := found["192.0.2.0/24"]; !ok || idx != r.StatsIndex {
			t.Errorf("dumped %v, stats index %d", found, r.StatsIndex)
		}
		got, err := v.ip.IPRouteLookup(v.ctx, &ip.IPRouteLookup{Prefix: route.Prefix, Exact: 1})
		v.ok(err, "lookup")
		if len(got.Route.Paths) != 1 || got.Route.Paths[0].SwIfIndex != lo {
			t.Errorf("found %+v", got.Route)
		}
		if src := v.routes(8, false); len(src["192.0.2.0/24"]) != 1 {
			t.Errorf("the API's routes are %v", src)
		}
	})
}

func TestLookup(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := uint32(v.loopback("10.1.0.1/24"))
		for i, dst := range []string{"192.0.0.0/16", "192.0.2.0/24"} {
			v.ok(v.route(dst, 0, true, false, via(dst, lo, fmt.Sprintf("10.1.0.%d", i+2))), "add")
		}
		for _, q := range []struct {
			prefix string
			exact  uint8
			want   string
			hop    string
		}{
			{"192.0.2.7/32", 0, "192.0.2.0/24", "10.1.0.3"},
			{"192.0.3.7/32", 0, "192.0.0.0/16", "10.1.0.2"},
			{"192.0.2.0/24", 0, "192.0.2.0/24", "10.1.0.3"},
			{"192.0.2.0/23", 0, "192.0.0.0/16", "10.1.0.2"},
			{"192.0.2.0/24", 1, "192.0.2.0/24", "10.1.0.3"},
		} {
			got, hops, err := v.lookup(q.prefix, q.exact)
			if err != nil || got != q.want || len(hops) != 1 || hops[0] != q.hop {
				t.Errorf("%s exact %d: %s via %v, %v", q.prefix, q.exact, got, hops, err)
			}
		}
		_, _, err := v.lookup("192.0.2.0/25", 1)
		v.want(err, api.NO_SUCH_ENTRY, "exact /25")
		if got, _, err := v.lookup("8.8.8.8/32", 0); err != nil || got != "0.0.0.0/0" {
			t.Errorf("8.8.8.8 finds %s, %v", got, err)
		}
	})
}

func TestTables(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		table := func(add bool, id uint32, ip6 bool) error {
			_, err := v.ip.IPTableAddDel(v.ctx, &ip.IPTableAddDel{IsAdd: add, Table: ip.IPTable{TableID: id, IsIP6: ip6, Name: "blue"}})
			return err
		}
		tables := func() map[string]string {
			r, err := v.ip.IPTableDump(v.ctx, &ip.IPTableDump{})
			found := map[string]string{}
			for _, d := range all[ip.IPTableDetails](t, r, err) {
				found[fmt.Sprintf("%d %v", d.Table.TableID, d.Table.IsIP6)] = strings.TrimRight(d.Table.Name, "\x00")
			}
			return found
		}
		want := map[string]string{"0 false": "ipv4-VRF:0", "0 true": "ipv6-VRF:0"}
		if d := cmp.Diff(want, tables()); d != "" {
			t.Error(d)
		}
		v.ok(table(true, 10, false), "add")
		v.ok(table(true, 10, false), "add again")
		v.ok(table(true, 10, true), "add IPv6")
		v.ok(table(true, 0, false), "add 0")
		v.ok(table(false, 0, false), "delete 0")
		v.ok(table(false, 99, false), "delete what is not there")
		want["10 false"], want["10 true"] = "blue", "blue"
		if d := cmp.Diff(want, tables()); d != "" {
			t.Error(d)
		}

		lo := v.loopback()
		set := func(id uint32) error {
			_, err := v.ifc.SwInterfaceSetTable(v.ctx, &interfaces.SwInterfaceSetTable{SwIfIndex: lo, VrfID: id})
			return err
		}
		v.want(set(99), api.NO_SUCH_FIB, "set a table that is not there")
		v.ok(set(10), "set")
		v.ok(v.address(lo, "10.1.0.1/24", true), "address")
		v.want(set(0), api.ADDRESS_FOUND_FOR_INTERFACE, "set with an address")
		got, err := v.ifc.SwInterfaceGetTable(v.ctx, &interfaces.SwInterfaceGetTable{SwIfIndex: lo})
		v.ok(err, "get")
		got6, err := v.ifc.SwInterfaceGetTable(v.ctx, &interfaces.SwInterfaceGetTable{SwIfIndex: lo, IsIPv6: true})
		v.ok(err, "get IPv6")
		if got.VrfID != 10 || got6.VrfID != 0 {
			t.Errorf("tables %d and %d", got.VrfID, got6.VrfID)
		}
		// The address is in its table, and not in the default one.
		if found := v.routes(0, false); len(found["10.1.0.1/32"]) != 0 {
			t.Errorf("table 0 has %v", found)
		}
		r, err := v.ip.IPRouteLookupV2(v.ctx, &ip.IPRouteLookupV2{TableID: 10, Prefix: binapi.ToPrefix(netip.MustParsePrefix("10.1.0.1/32"))})
		if err != nil || binapi.FromPrefix(r.Route.Prefix).String() != "10.1.0.1/32" || r.Route.TableID != 10 {
			t.Errorf("in table 10: %+v, %v", r, err)
		}
		_, _, err = v.lookup("10.1.0.1/32", 1)
		v.want(err, api.NO_SUCH_ENTRY, "in table 0")

		v.ok(v.address(lo, "10.1.0.1/24", false), "address off")
		v.ok(set(0), "back")
		v.ok(table(false, 10, false), "delete")
		v.ok(table(false, 10, true), "delete IPv6")
		delete(want, "10 false")
		delete(want, "10 true")
		if d := cmp.Diff(want, tables()); d != "" {
			t.Error(d)
		}
		free, err := v.ip.IPTableAllocate(v.ctx, &ip.IPTableAllocate{Table: ip.IPTable{TableID: ^uint32(0), Name: "any"}})
		v.ok(err, "allocate")
		if name := tables()[fmt.Sprintf("%d false", free.Table.TableID)]; name != "any" {
			t.Errorf("allocated %+v, tables %v", free.Table, tables())
		}
	})
}

func TestTableFlush(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := v.loopback("10.1.0.1/24")
		ours := v.addSource("rlr", 0x40)
		v.ok(v.route("192.0.2.0/24", 0, true, false, via("192.0.2.0/24", uint32(lo), "10.1.0.2")), "add as API")
		v.ok(v.route("192.0.3.0/24", ours, true, false, via("192.0.3.0/24", uint32(lo), "10.1.0.2")), "add as ours")
		_, err := v.ip.IPTableFlush(v.ctx, &ip.IPTableFlush{})
		v.ok(err, "flush")
		if got := v.routes(8, false); len(got) != 0 {
			t.Errorf("the API's routes are still %v", got)
		}
		if got := v.routes(ours, false); len(got) != 1 {
			t.Errorf("ours are %v", got)
		}
		if v.iface(lo).Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0 {
			t.Error("the interface is still up")
		}
		_, err = v.ip.IPTableFlush(v.ctx, &ip.IPTableFlush{Table: ip.IPTable{TableID: 99}})
		v.want(err, api.NO_SUCH_FIB, "flush what is not there")
	})
}

func TestNeighbors(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		n := ip_neighbor.NewServiceClient(v.conn)
		lo, other := v.loopback("10.1.0.1/24"), v.loopback()
		_, err := v.ip.SwInterfaceIP6EnableDisable(v.ctx, &ip.SwInterfaceIP6EnableDisable{SwIfIndex: other, Enable: true})
		v.ok(err, "IPv6")
		watcher, err := v.conn.WatchEvent(v.ctx, &ip_neighbor.IPNeighborEventV2{})
		v.ok(err, "watch")
		defer watcher.Close()
		_, err = n.WantIPNeighborEventsV2(v.ctx, &ip_neighbor.WantIPNeighborEventsV2{Enable: true, SwIfIndex: anyIndex})
		v.ok(err, "want events")
		next := func(flag ip_neighbor.IPNeighborEventFlags, addr string) {
			t.Helper()
			for {
				select {
				case e := <-watcher.Events():
					ev := e.(*ip_neighbor.IPNeighborEventV2)
					if ev.Flags == flag && binapi.FromAddress(ev.Neighbor.IPAddress).String() == addr {
						return
					}
				case <-v.ctx.Done():
					t.Fatalf("no event %s of %s", flag, addr)
				}
			}
		}
		change := func(add bool, i interface_types.InterfaceIndex, addr string, last byte, f ip_neighbor.IPNeighborFlags) error {
			_, err := n.IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{IsAdd: add, Neighbor: ip_neighbor.IPNeighbor{
				SwIfIndex: i, Flags: f, MacAddress: [6]byte{2, 0, 0, 0, 0, last}, IPAddress: binapi.ToAddress(netip.MustParseAddr(addr)),
			}})
			return err
		}
		list := func(i interface_types.InterfaceIndex, af ip_types.AddressFamily) (rows []string) {
			r, err := n.IPNeighborDump(v.ctx, &ip_neighbor.IPNeighborDump{SwIfIndex: i, Af: af})
			for _, d := range all[ip_neighbor.IPNeighborDetails](t, r, err) {
				rows = append(rows, fmt.Sprintf("%s %s %d", d.Neighbor.IPAddress, d.Neighbor.MacAddress, d.Neighbor.Flags))
			}
			return rows
		}
		v.ok(change(true, lo, "10.1.0.2", 2, ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC), "add")
		next(ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_ADDED, "10.1.0.2")
		v.ok(change(true, other, "fe80::2", 3, ip_neighbor.IP_API_NEIGHBOR_FLAG_NONE), "add IPv6")
		next(ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_ADDED, "fe80::2")
		if d := cmp.Diff([]string{"10.1.0.2 02:00:00:00:00:02 1"}, list(anyIndex, ip_types.ADDRESS_IP4)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"fe80::2 02:00:00:00:00:03 0"}, list(other, ip_types.ADDRESS_IP6)); d != "" {
			t.Error(d)
		}
		if got := list(lo, ip_types.ADDRESS_IP6); got != nil {
			t.Errorf("on the other interface: %v", got)
		}
		if got := v.routes(15, false); len(got["10.1.0.2/32"]) == 0 {
			t.Errorf("the neighbour has no route: %v", got)
		}
		v.want(change(false, lo, "10.1.0.9", 2, 0), api.NO_SUCH_ENTRY, "delete what is not there")
		v.want(change(true, 77, "10.1.0.9", 2, 0), api.INVALID_SW_IF_INDEX, "no such interface")
		v.ok(change(false, lo, "10.1.0.2", 2, 0), "delete")
		next(ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_REMOVED, "10.1.0.2")
		_, err = n.IPNeighborFlush(v.ctx, &ip_neighbor.IPNeighborFlush{Af: ip_types.ADDRESS_IP6, SwIfIndex: anyIndex})
		v.ok(err, "flush")
		next(ip_neighbor.IP_NEIGHBOR_API_EVENT_FLAG_REMOVED, "fe80::2")
		if got := append(list(anyIndex, ip_types.ADDRESS_IP4), list(anyIndex, ip_types.ADDRESS_IP6)...); len(got) != 0 {
			t.Errorf("left over: %v", got)
		}
		limits, err := n.IPNeighborConfigGet(v.ctx, &ip_neighbor.IPNeighborConfigGet{Af: ip_types.ADDRESS_IP6})
		v.ok(err, "config")
		if limits.MaxNumber != 50000 || limits.MaxAge != 0 || limits.Recycle {
			t.Errorf("limits %+v", limits)
		}
	})
}

func TestPing(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		v.loopback("10.1.0.1/24")
		watcher, err := v.conn.WatchEvent(v.ctx, &ping.PingFinishedEvent{})
		v.ok(err, "watch")
		defer watcher.Close()
		// Nobody answers for 10.1.0.2.
		_, err = ping.NewServiceClient(v.conn).WantPingFinishedEvents(v.ctx, &ping.WantPingFinishedEvents{
			Address: binapi.ToAddress(netip.MustParseAddr("10.1.0.2")), Repeat: 2, Interval: 0.05,
		})
		v.ok(err, "ping")
		select {
		case e := <-watcher.Events():
			if got := e.(*ping.PingFinishedEvent); got.RequestCount != 2 || got.ReplyCount != 0 {
				t.Errorf("%+v", got)
			}
		case <-v.ctx.Done():
			t.Fatal("no event")
		}
	})
}

func TestCommandLine(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := uint32(v.loopback("10.1.0.1/24", "2001:db8::1/64"))
		v.ok(v.route("192.0.2.0/24", 0, true, false, via("192.0.2.0/24", lo, "10.1.0.2")), "add a route")
		for i, a := range []string{"10.1.0.9", "2001:db8::9"} {
			_, err := ip_neighbor.NewServiceClient(v.conn).IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{
				IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
					SwIfIndex: interface_types.InterfaceIndex(lo), Flags: ip_neighbor.IPNeighborFlags(1 - i),
					MacAddress: [6]byte{2, 0, 0, 0, 0, byte(9 + i)}, IPAddress: binapi.ToAddress(netip.MustParseAddr(a)),
				},
			})
			v.ok(err, "neighbour")
		}
		cli := func(line string) (int32, string) {
			r := &vlib.CliInbandReply{}
			if err := v.conn.Invoke(v.ctx, &vlib.CliInband{Cmd: line}, r); err != nil {
				t.Fatal(err)
			}
			return r.Retval, r.Reply
		}
		for _, q := range []struct {
			line string
			fail bool
			want []string // parts of the answer; the whole of it when it fails
		}{
			{"show version", false, []string{"\n"}},
			{"sh ver", false, []string{"\n"}},
			{"show version verbose", false, []string{"Version:", "Current PID:"}},
			{"show interface", false, []string{"Name               Idx    State  MTU (L3/IP4/IP6/MPLS)     Counter          Count", "loop0                             1      up          9000/0/0/0"}},
			{"sh int addr", false, []string{"local0 (dn):\n", "loop0 (up):\n  L3 10.1.0.1/24\n  L3 2001:db8::1/64\n"}},
			{"show hardware-interfaces brief", false, []string{"loop0                              1     up   loop0\n"}},
			{"show ip fib", false, []string{"ipv4-VRF:0", "192.0.2.0/24", "via 10.1.0.2 loop0"}},
			{"show ip fib 192.0.2.7", false, []string{"192.0.2.0/24"}},
			{"show ip6 fib", false, []string{"ipv6-VRF:0", "2001:db8::/64"}},
			{"show ip fib table 99", false, nil},
			{"show ip neighbors", false, []string{
				"     Age                       IP                    Flags      Ethernet              Interface       \n",
				"10.1.0.9                   S    02:00:00:00:00:09 loop0\n", "2001:db8::9                 D    02:00:00:00:00:0a loop0\n",
			}},
			{"show ip6 neighbors", false, []string{"2001:db8::9 "}},
			{"show ip table", false, []string{"table_id:0 ipv4-VRF:0\n"}},
			{"show fib source", false, []string{"[8] API prio:128", "[4] interface prio:3"}},
			{"show memif", false, []string{"sockets\n"}},
			{"show plugins", false, []string{"memif", "ping"}},
			{"show errors", false, []string{"Count"}},
			{"show clock", false, []string{"Time now"}},
			{"set interface state loop0 down", false, nil},
			{"set int state loop0 up", false, nil},
			{"ip route add 198.51.100.0/24 via 10.1.0.2", false, nil},
			{"show ip fib 198.51.100.0/24", false, []string{"198.51.100.0/24", "CLI"}},
			{"ip route del 198.51.100.0/24", false, nil},
			{"", true, []string{"unknown input `'\n"}},
			{"foo", true, []string{"unknown input `foo'\n"}},
			{"show", true, []string{"show: unknown input `'\n"}},
			{"show foo bar", true, []string{"show: unknown input `foo bar'\n"}},
			{"sho int nope", true, []string{"show interface: unknown input `nope'\n"}},
			{"set interface state nope up", true, []string{"set interface state: unknown interface `nope up'\n"}},
			{"set int state loop0 maybe", true, []string{"set interface state: unknown flags `maybe'\n"}},
		} {
			retval, out := cli(q.line)
			if (retval != 0) != q.fail || q.fail && retval != -1 {
				t.Errorf("%q: retval %d", q.line, retval)
			}
			for _, part := range q.want {
				if q.fail && out != part || !strings.Contains(out, part) {
					t.Errorf("%q lacks %q:\n%s", q.line, part, out)
				}
			}
		}
	})
}
