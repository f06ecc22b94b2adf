package minivpp_test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/memif"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/binapi/vpe"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

const anyIndex = ^interface_types.InterfaceIndex(0)

func TestCompatibility(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		report, err := binapi.Check(v.ctx, v.conn, d.APISocket)
		v.ok(err, "check")
		ch, err := v.conn.NewAPIChannel()
		v.ok(err, "new channel")
		defer ch.Close()
		for _, g := range binapi.Groups() {
			// VPP's own TCP, probes and fragments; minivpp's are Go methods, or it has none, and it says that it has no such messages.
			if d.Kind == dataplanetest.Embedded && (g.Feature == binapi.Session || g.Feature == binapi.Probe || g.Feature == binapi.Fragments) {
				if report.Supports(g.Feature) {
					t.Errorf("minivpp has the messages of %s", g.Feature)
				}
				continue
			}
			if !report.Supports(g.Feature) {
				t.Errorf("%s:\n%s", g.Feature, report)
			}
			v.ok(ch.CheckCompatiblity(g.Messages...), "CheckCompatiblity")
		}
	})
}

func TestSystem(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		mem, vp, vl := memclnt.NewServiceClient(v.conn), vpe.NewServiceClient(v.conn), vlib.NewServiceClient(v.conn)

		pong, err := mem.ControlPing(v.ctx, &memclnt.ControlPing{})
		v.ok(err, "control_ping")
		if pong.VpePID == 0 || d.Kind == dataplanetest.Embedded && pong.VpePID != uint32(os.Getpid()) {
			t.Errorf("pid %d", pong.VpePID)
		}
		version, err := vp.ShowVersion(v.ctx, &vpe.ShowVersion{})
		v.ok(err, "show_version")
		if version.Program == "" || version.Version == "" {
			t.Errorf("version %+v", version)
		}
		now, err := vp.ShowVpeSystemTime(v.ctx, &vpe.ShowVpeSystemTime{})
		v.ok(err, "show_vpe_system_time")
		if age := time.Since(now.VpeSystemTime.ToTime()); age.Abs() > time.Minute {
			t.Errorf("system time %s", now.VpeSystemTime)
		}
		threads, err := vl.ShowThreads(v.ctx, &vlib.ShowThreads{})
		v.ok(err, "show_threads")
		if len(threads.ThreadData) == 0 || threads.ThreadData[0].Name != "vpp_main" {
			t.Errorf("threads %+v", threads)
		}
		_, err = mem.GetFirstMsgID(v.ctx, &memclnt.GetFirstMsgID{Name: "nonsense_00000000"})
		v.want(err, api.INVALID_VALUE, "get_first_msg_id of nonsense")
		_, err = mem.APIVersions(v.ctx, &memclnt.APIVersions{}) // VPP 26.06 lists none
		v.ok(err, "api_versions")
	})
}

func TestInterfaces(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		if names := v.names(interfaces.SwInterfaceDump{SwIfIndex: anyIndex}); !cmp.Equal(names, []string{"local0"}) {
			t.Errorf("at first there are %v", names)
		}
		lo, err := v.ifc.CreateLoopback(v.ctx, &interfaces.CreateLoopback{MacAddress: [6]byte{2, 0, 0, 0, 0, 1}})
		v.ok(err, "create_loopback")
		five, err := v.ifc.CreateLoopbackInstance(v.ctx, &interfaces.CreateLoopbackInstance{IsSpecified: true, UserInstance: 5})
		v.ok(err, "create_loopback_instance")
		_, err = v.ifc.CreateLoopbackInstance(v.ctx, &interfaces.CreateLoopbackInstance{IsSpecified: true, UserInstance: 5})
		v.want(err, api.INVALID_REGISTRATION, "the same instance again")

		for _, q := range []struct {
			dump interfaces.SwInterfaceDump
			want []string
		}{
			{interfaces.SwInterfaceDump{SwIfIndex: anyIndex}, []string{"local0", "loop0", "loop5"}},
			{interfaces.SwInterfaceDump{SwIfIndex: 0}, []string{"local0", "loop0", "loop5"}},
			{interfaces.SwInterfaceDump{SwIfIndex: lo.SwIfIndex}, []string{"loop0"}},
			{interfaces.SwInterfaceDump{SwIfIndex: 77}, nil},
			{interfaces.SwInterfaceDump{SwIfIndex: lo.SwIfIndex, NameFilterValid: true, NameFilter: "OOP5"}, []string{"loop5"}},
			{interfaces.SwInterfaceDump{SwIfIndex: anyIndex, NameFilterValid: true, NameFilter: "eth"}, nil},
		} {
			if d := cmp.Diff(q.want, v.names(q.dump)); d != "" {
				t.Errorf("dump %+v: %s", q.dump, d)
			}
		}

		i := v.iface(lo.SwIfIndex)
		if i.L2Address != [6]byte{2, 0, 0, 0, 0, 1} || i.InterfaceDevType != "Loopback" || i.SupSwIfIndex != uint32(lo.SwIfIndex) ||
			i.Flags != 0 || i.LinkMtu != 9000 || i.Mtu[0] != 9000 {
			t.Errorf("a new loopback is %+v", i)
		}
		v.up(lo.SwIfIndex, true)
		_, err = v.ifc.SwInterfaceSetMtu(v.ctx, &interfaces.SwInterfaceSetMtu{SwIfIndex: lo.SwIfIndex, Mtu: []uint32{1400, 0, 1300, 0}})
		v.ok(err, "set_mtu")
		_, err = v.ifc.HwInterfaceSetMtu(v.ctx, &interfaces.HwInterfaceSetMtu{SwIfIndex: lo.SwIfIndex, Mtu: 1500})
		v.want(err, unsupported, "hw_interface_set_mtu of a loopback")
		_, err = v.ifc.SwInterfaceTagAddDel(v.ctx, &interfaces.SwInterfaceTagAddDel{IsAdd: true, SwIfIndex: lo.SwIfIndex, Tag: "rlr/r1/dum0"})
		v.ok(err, "tag")
		_, err = v.ifc.SwInterfaceSetInterfaceName(v.ctx, &interfaces.SwInterfaceSetInterfaceName{SwIfIndex: lo.SwIfIndex, Name: "dum0"})
		v.ok(err, "set name")
		_, err = v.ifc.SwInterfaceSetMacAddress(v.ctx, &interfaces.SwInterfaceSetMacAddress{SwIfIndex: lo.SwIfIndex, MacAddress: [6]byte{2, 0, 0, 0, 0, 9}})
		v.ok(err, "set MAC")
		i = v.iface(lo.SwIfIndex)
		if i.Flags != interface_types.IF_STATUS_API_FLAG_LINK_UP|interface_types.IF_STATUS_API_FLAG_ADMIN_UP ||
			!cmp.Equal(i.Mtu, []uint32{1400, 0, 1300, 0}) || i.Tag != "rlr/r1/dum0" || i.InterfaceName != "dum0" ||
			i.L2Address != [6]byte{2, 0, 0, 0, 0, 9} {
			t.Errorf("after the changes it is %+v", i)
		}
		_, err = v.ifc.SwInterfaceSetRxMode(v.ctx, &interfaces.SwInterfaceSetRxMode{SwIfIndex: lo.SwIfIndex, Mode: interface_types.RX_MODE_API_ADAPTIVE})
		v.ok(err, "the receive mode of no queue")
		_, err = v.ifc.SwInterfaceSetRxMode(v.ctx, &interfaces.SwInterfaceSetRxMode{
			SwIfIndex: lo.SwIfIndex, Mode: interface_types.RX_MODE_API_ADAPTIVE, QueueIDValid: true, QueueID: 1,
		})
		v.want(err, api.UNIMPLEMENTED, "the receive mode of queue 1")
		got, err := v.ifc.SwInterfaceGetMacAddress(v.ctx, &interfaces.SwInterfaceGetMacAddress{SwIfIndex: lo.SwIfIndex})
		v.ok(err, "get MAC")
		if got.MacAddress != [6]byte{2, 0, 0, 0, 0, 9} {
			t.Errorf("MAC %s", got.MacAddress)
		}
		_, err = v.ifc.SwInterfaceSetInterfaceName(v.ctx, &interfaces.SwInterfaceSetInterfaceName{SwIfIndex: five.SwIfIndex})
		v.want(err, api.INVALID_VALUE, "no name")
		_, err = v.ifc.SwInterfaceTagAddDel(v.ctx, &interfaces.SwInterfaceTagAddDel{IsAdd: true, SwIfIndex: lo.SwIfIndex})
		v.want(err, api.INVALID_VALUE, "an empty tag")
		_, err = v.ifc.SwInterfaceTagAddDel(v.ctx, &interfaces.SwInterfaceTagAddDel{SwIfIndex: lo.SwIfIndex})
		v.ok(err, "delete the tag")
		if i := v.iface(lo.SwIfIndex); i.Tag != "" {
			t.Errorf("tag %q is still there", i.Tag)
		}

		_, err = v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: lo.SwIfIndex})
		v.ok(err, "delete_loopback")
		_, err = v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: 0})
		v.want(err, api.INVALID_SW_IF_INDEX, "delete local0")
		if names := v.names(interfaces.SwInterfaceDump{SwIfIndex: anyIndex}); !cmp.Equal(names, []string{"local0", "loop5"}) {
			t.Errorf("at last there are %v", names)
		}
	})
}

// unsupported is VNET_API_ERROR_UNSUPPORTED.
const unsupported = api.VPPApiError(-126)

func TestInterfacesThatAreNotThere(t *testing.T) {
	const none = interface_types.InterfaceIndex(77)
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		for what, call := range map[string]func() error{
			"set_flags": func() error {
				_, err := v.ifc.SwInterfaceSetFlags(v.ctx, &interfaces.SwInterfaceSetFlags{SwIfIndex: none})
				return err
			},
			"set_mtu": func() error {
				_, err := v.ifc.SwInterfaceSetMtu(v.ctx, &interfaces.SwInterfaceSetMtu{SwIfIndex: none, Mtu: []uint32{1, 2, 3, 4}})
				return err
			},
			"hw_set_mtu": func() error {
				_, err := v.ifc.HwInterfaceSetMtu(v.ctx, &interfaces.HwInterfaceSetMtu{SwIfIndex: none})
				return err
			},
			"tag": func() error {
				_, err := v.ifc.SwInterfaceTagAddDel(v.ctx, &interfaces.SwInterfaceTagAddDel{SwIfIndex: none, IsAdd: true, Tag: "x"})
				return err
			},
			"name": func() error {
				_, err := v.ifc.SwInterfaceSetInterfaceName(v.ctx, &interfaces.SwInterfaceSetInterfaceName{SwIfIndex: none, Name: "x"})
				return err
			},
			"set MAC": func() error {
				_, err := v.ifc.SwInterfaceSetMacAddress(v.ctx, &interfaces.SwInterfaceSetMacAddress{SwIfIndex: none})
				return err
			},
			"get MAC": func() error {
				_, err := v.ifc.SwInterfaceGetMacAddress(v.ctx, &interfaces.SwInterfaceGetMacAddress{SwIfIndex: none})
				return err
			},
			"rx mode": func() error {
				_, err := v.ifc.SwInterfaceSetRxMode(v.ctx, &interfaces.SwInterfaceSetRxMode{SwIfIndex: none})
				return err
			},
			"set table": func() error {
				_, err := v.ifc.SwInterfaceSetTable(v.ctx, &interfaces.SwInterfaceSetTable{SwIfIndex: none})
				return err
			},
			"get table": func() error {
				_, err := v.ifc.SwInterfaceGetTable(v.ctx, &interfaces.SwInterfaceGetTable{SwIfIndex: none})
				return err
			},
			"address": func() error { return v.address(none, "10.0.0.1/24", true) },
			"delete loopback": func() error {
				_, err := v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: none})
				return err
			},
			"unnumbered": func() error {
				_, err := v.ifc.SwInterfaceSetUnnumbered(v.ctx, &interfaces.SwInterfaceSetUnnumbered{UnnumberedSwIfIndex: none, IsAdd: true})
				return err
			},
			"IPv6": func() error {
				_, err := v.ip.SwInterfaceIP6EnableDisable(v.ctx, &ip.SwInterfaceIP6EnableDisable{SwIfIndex: none, Enable: true})
				return err
			},
			"set link-local": func() error {
				_, err := v.ip.SwInterfaceIP6SetLinkLocalAddress(v.ctx, &ip.SwInterfaceIP6SetLinkLocalAddress{SwIfIndex: none})
				return err
			},
			"get link-local": func() error {
				_, err := v.ip.SwInterfaceIP6GetLinkLocalAddress(v.ctx, &ip.SwInterfaceIP6GetLinkLocalAddress{SwIfIndex: none})
				return err
			},
			"memif delete": func() error {
				_, err := memif.NewServiceClient(v.conn).MemifDelete(v.ctx, &memif.MemifDelete{SwIfIndex: none})
				return err
			},
			"clear stats": func() error {
				_, err := v.ifc.SwInterfaceClearStats(v.ctx, &interfaces.SwInterfaceClearStats{SwIfIndex: none})
				return err
			},
		} {
			v.want(call(), api.INVALID_SW_IF_INDEX, what)
		}
		if list := v.addresses(none, false); list != nil {
			t.Errorf("addresses %v", list)
		}
	})
}

func TestInterfaceEvents(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		watcher, err := v.conn.WatchEvent(v.ctx, &interfaces.SwInterfaceEvent{})
		v.ok(err, "watch")
		defer watcher.Close()
		next := func(match func(*interfaces.SwInterfaceEvent) bool, what string) {
			t.Helper()
			for {
				select {
				case e := <-watcher.Events():
					if match(e.(*interfaces.SwInterfaceEvent)) {
						return
					}
				case <-v.ctx.Done():
					t.Fatalf("no event: %s", what)
				}
			}
		}
		want := func(on uint32) error {
			_, err := v.ifc.WantInterfaceEvents(v.ctx, &interfaces.WantInterfaceEvents{EnableDisable: on, PID: 4711})
			return err
		}
		v.want(want(0), api.INVALID_REGISTRATION, "stop before start")
		v.ok(want(1), "want")
		v.want(want(1), api.INVALID_REGISTRATION, "want again")

		lo := v.loopback()
		next(func(e *interfaces.SwInterfaceEvent) bool {
			return e.SwIfIndex == lo && e.Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0 && !e.Deleted && e.PID == 4711
		}, "up")
		v.up(lo, false)
		next(func(e *interfaces.SwInterfaceEvent) bool { return e.SwIfIndex == lo && e.Flags == 0 && !e.Deleted }, "down")
		v.up(lo, true)
		// A loopback's link follows its admin state.
		next(func(e *interfaces.SwInterfaceEvent) bool {
			return e.SwIfIndex == lo && e.Flags == interface_types.IF_STATUS_API_FLAG_ADMIN_UP|interface_types.IF_STATUS_API_FLAG_LINK_UP
		}, "up again")
		_, err = v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: lo})
		v.ok(err, "delete")
		next(func(e *interfaces.SwInterfaceEvent) bool { return e.SwIfIndex == lo && e.Deleted }, "deleted")
		v.ok(want(0), "stop")
	})
}

func TestAddresses(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo, other := v.loopback(), v.loopback()
		v.ok(v.address(lo, "10.1.0.1/24", true), "add")
		v.want(v.address(lo, "10.1.0.1/24", true), api.ADDRESS_IN_USE, "the same again")
		v.ok(v.address(lo, "10.1.0.2/24", true), "another one of the subnet")
		v.want(v.address(other, "10.1.0.3/24", true), api.ADDRESS_IN_USE, "the same subnet elsewhere")
		v.want(v.address(other, "10.1.0.0/16", true), api.ADDRESS_IN_USE, "an overlap")
		v.want(v.address(lo, "10.9.0.1/24", false), api.ADDRESS_NOT_FOUND_FOR_INTERFACE, "delete what is not there")
		v.ok(v.address(lo, "2001:db8::1/64", true), "add IPv6")
		if d := cmp.Diff([]string{"10.1.0.1/24", "10.1.0.2/24"}, v.addresses(lo, false)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"2001:db8::1/64"}, v.addresses(lo, true)); d != "" {
			t.Error(d)
		}
		found := v.routes(0, false)
		for _, p := range []string{"10.1.0.0/24", "10.1.0.1/32", "10.1.0.2/32", "10.1.0.0/32", "10.1.0.255/32"} {
			if _, ok := found[p]; !ok {
				t.Errorf("no route %s: %v", p, found)
			}
		}
		v.ok(v.address(lo, "10.1.0.1/24", false), "delete")
		if d := cmp.Diff([]string{"10.1.0.2/24"}, v.addresses(lo, false)); d != "" {
			t.Error(d)
		}
		_, err := v.ifc.SwInterfaceAddDelAddress(v.ctx, &interfaces.SwInterfaceAddDelAddress{SwIfIndex: lo, DelAll: true})
		v.ok(err, "delete all")
		if got := append(v.addresses(lo, false), v.addresses(lo, true)...); len(got) != 0 {
			t.Errorf("left over: %v", got)
		}
		if _, ok := v.routes(0, false)["10.1.0.0/24"]; ok {
			t.Error("the connected route is still there")
		}
	})
}

func TestIPv6LinkLocal(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		a, b := v.loopback(), v.loopback()
		get := func(i interface_types.InterfaceIndex) (netip.Addr, error) {
			r, err := v.ip.SwInterfaceIP6GetLinkLocalAddress(v.ctx, &ip.SwInterfaceIP6GetLinkLocalAddress{SwIfIndex: i})
			if err != nil {
				return netip.Addr{}, err
			}
			return binapi.FromIP6(r.IP), nil
		}
		_, err := get(a)
		v.want(err, api.IP6_NOT_ENABLED, "before IPv6 is enabled")
		_, err = v.ip.SwInterfaceIP6EnableDisable(v.ctx, &ip.SwInterfaceIP6EnableDisable{SwIfIndex: a, Enable: true})
		v.ok(err, "enable")
		if got, err := get(a); err != nil || !got.IsLinkLocalUnicast() {
			t.Errorf("made up: %s, %v", got, err)
		}
		// The same address on two interfaces, as on DN42's tunnels.
		for _, i := range []interface_types.InterfaceIndex{a, b} {
			_, err := v.ip.SwInterfaceIP6SetLinkLocalAddress(v.ctx, &ip.SwInterfaceIP6SetLinkLocalAddress{
				SwIfIndex: i, IP: binapi.ToIP6(netip.MustParseAddr("fe80::1")),
			})
			v.ok(err, "set")
			if got, err := get(i); err != nil || got.String() != "fe80::1" {
				t.Errorf("interface %d: %s, %v", i, got, err)
			}
		}
		if list := v.addresses(a, true); list != nil {
			t.Errorf("the link-local address is dumped: %v", list)
		}
		_, err = v.ip.SwInterfaceIP6EnableDisable(v.ctx, &ip.SwInterfaceIP6EnableDisable{SwIfIndex: a})
		v.ok(err, "disable")
		_, err = get(a)
		v.want(err, api.IP6_NOT_ENABLED, "after it")
		_, err = v.ip.SwInterfaceIP6EnableDisable(v.ctx, &ip.SwInterfaceIP6EnableDisable{SwIfIndex: a})
		v.want(err, api.IP6_NOT_ENABLED, "disable again")
	})
}

func TestUnnumbered(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lender, borrower := v.loopback("172.20.1.1/32"), v.loopback()
		set := func(add bool) error {
			_, err := v.ifc.SwInterfaceSetUnnumbered(v.ctx, &interfaces.SwInterfaceSetUnnumbered{
				SwIfIndex: lender, UnnumberedSwIfIndex: borrower, IsAdd: add,
			})
			return err
		}
		list := func(q interface_types.InterfaceIndex) (pairs [][2]interface_types.InterfaceIndex) {
			r, err := v.ip.IPUnnumberedDump(v.ctx, &ip.IPUnnumberedDump{SwIfIndex: q})
			for _, d := range all[ip.IPUnnumberedDetails](t, r, err) {
				pairs = append(pairs, [2]interface_types.InterfaceIndex{d.SwIfIndex, d.IPSwIfIndex})
			}
			return pairs
		}
		v.ok(set(true), "set")
		want := [][2]interface_types.InterfaceIndex{{borrower, lender}}
		if d := cmp.Diff(want, list(anyIndex)); d != "" {
			t.Error(d)
		}
		if got := list(lender); got != nil {
			t.Errorf("the lender is shown as %v", got)
		}
		if got := v.addresses(borrower, false); got != nil {
			t.Errorf("the borrower has addresses: %v", got)
		}
		v.ok(set(false), "unset")
		if got := list(anyIndex); got != nil {
			t.Errorf("still: %v", got)
		}
	})
}

func TestMemifConfiguration(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		m := memif.NewServiceClient(v.conn)
		socket := func(add bool, id uint32, name string) (uint32, error) {
			r, err := m.MemifSocketFilenameAddDelV2(v.ctx, &memif.MemifSocketFilenameAddDelV2{IsAdd: add, SocketID: id, SocketFilename: name})
			if err != nil {
				return 0, err
			}
			return r.SocketID, nil
		}
		sockets := func() map[uint32]string {
			r, err := m.MemifSocketFilenameDump(v.ctx, &memif.MemifSocketFilenameDump{})
			found := map[uint32]string{}
			for _, d := range all[memif.MemifSocketFilenameDetails](t, r, err) {
				found[d.SocketID] = d.SocketFilename
			}
			return found
		}
		_, err := socket(true, 0, d.Dir+"/x.sock")
		v.want(err, api.INVALID_ARGUMENT, "socket 0")
		_, err = socket(true, 7, d.Dir+"/a.sock")
		v.ok(err, "add")
		_, err = socket(true, 7, d.Dir+"/a.sock")
		v.ok(err, "add again")
		_, err = socket(true, 7, d.Dir+"/b.sock")
		v.want(err, api.ENTRY_ALREADY_EXISTS, "another name")
		_, err = socket(false, 9, "")
		v.want(err, api.INVALID_ARGUMENT, "delete what is not there")
		free, err := socket(true, ^uint32(0), "rel/c.sock")
		v.ok(err, "any id")
		want := map[uint32]string{0: d.Dir + "/memif.sock", 7: d.Dir + "/a.sock", free: d.Dir + "/rel/c.sock"}
		if diff := cmp.Diff(want, sockets()); diff != "" {
			t.Error(diff)
		}

		create := func(q memif.MemifCreateV2) (interface_types.InterfaceIndex, error) {
			r, err := m.MemifCreateV2(v.ctx, &q)
			if err != nil {
				return 0, err
			}
			return r.SwIfIndex, nil
		}
		master, err := create(memif.MemifCreateV2{SocketID: 7, ID: 3, HwAddr: [6]byte{2, 0, 0, 0, 0, 3}, RingSize: 512})
		v.ok(err, "create")
		_, err = create(memif.MemifCreateV2{SocketID: 7, ID: 3})
		v.want(err, api.SUBIF_ALREADY_EXISTS, "the same again")
		_, err = create(memif.MemifCreateV2{SocketID: 7, ID: 4, Role: memif.MEMIF_ROLE_API_SLAVE})
		v.want(err, api.SUBIF_ALREADY_EXISTS, "a slave on a master's socket")
		_, err = create(memif.MemifCreateV2{SocketID: 8, ID: 4})
		v.want(err, api.INVALID_ARGUMENT, "an unknown socket")
		_, err = create(memif.MemifCreateV2{SocketID: 7, ID: 4, RingSize: 1000})
		v.want(err, api.INVALID_ARGUMENT, "a ring of 1000")
		slave, err := create(memif.MemifCreateV2{SocketID: free, ID: 9, Role: memif.MEMIF_ROLE_API_SLAVE})
		v.ok(err, "create a slave")

		r, err := m.MemifDump(v.ctx, &memif.MemifDump{})
		type row struct {
			Index    interface_types.InterfaceIndex
			Name     string
			ID, Sock uint32
			Role     memif.MemifRole
		}
		var rows []row
		for _, d := range all[memif.MemifDetails](t, r, err) {
			rows = append(rows, row{d.SwIfIndex, d.IfName, d.ID, d.SocketID, d.Role})
		}
		wantRows := []row{
			{master, "memif7/3", 3, 7, memif.MEMIF_ROLE_API_MASTER},
			{slave, v.iface(slave).InterfaceName, 9, free, memif.MEMIF_ROLE_API_SLAVE},
		}
		if d := cmp.Diff(wantRows, rows); d != "" {
			t.Error(d)
		}
		i := v.iface(master)
		if i.InterfaceDevType != "memif" || i.L2Address != [6]byte{2, 0, 0, 0, 0, 3} || i.Flags != 0 || i.LinkMtu == 0 || i.Mtu[0] != 9000 {
			t.Errorf("a new memif is %+v", i)
		}
		_, err = v.ifc.HwInterfaceSetMtu(v.ctx, &interfaces.HwInterfaceSetMtu{SwIfIndex: master, Mtu: 1500})
		v.ok(err, "hw_interface_set_mtu")
		if i := v.iface(master); i.LinkMtu != 1500 {
			t.Errorf("the link's MTU is %d", i.LinkMtu)
		}
		_, err = v.ifc.HwInterfaceSetMtu(v.ctx, &interfaces.HwInterfaceSetMtu{SwIfIndex: 0, Mtu: 1500})
		v.want(err, api.FEATURE_DISABLED, "hw_interface_set_mtu of local0")
		_, err = socket(false, 7, "")
		v.want(err, api.UNEXPECTED_INTF_STATE, "delete a socket in use")
		_, err = m.MemifDelete(v.ctx, &memif.MemifDelete{SwIfIndex: master})
		v.ok(err, "delete")
		_, err = m.MemifDelete(v.ctx, &memif.MemifDelete{SwIfIndex: v.loopback()})
		v.want(err, api.INVALID_SW_IF_INDEX, "delete a loopback")
		_, err = socket(false, 7, "")
		v.ok(err, "delete the socket")
		if _, ok := sockets()[7]; ok {
			t.Error("the socket is still there")
		}
	})
}
