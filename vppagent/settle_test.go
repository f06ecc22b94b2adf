package vppagent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_neighbor"

	"rlr/binapi"
)

// told describes requests in a word or two each.
func told(todo []request) string {
	var list []string
	for _, r := range todo {
		switch m := r.req.(type) {
		case *interfaces.SwInterfaceAddDelAddress:
			list = append(list, fmt.Sprintf("%s%v", sign(m.IsAdd), binapi.FromAddressWithPrefix(m.Prefix)))
		case *interfaces.SwInterfaceSetTable:
			list = append(list, fmt.Sprintf("table%s=%d", map[bool]string{false: "4", true: "6"}[m.IsIPv6], m.VrfID))
		case *interfaces.SwInterfaceSetUnnumbered:
			list = append(list, fmt.Sprintf("%slender%d", sign(m.IsAdd), m.SwIfIndex))
		case *interfaces.SwInterfaceSetMtu:
			list = append(list, fmt.Sprintf("mtu=%d", m.Mtu[0]))
		case *interfaces.SwInterfaceSetFlags:
			list = append(list, fmt.Sprintf("admin=%d", m.Flags))
		case *interfaces.SwInterfaceSetInterfaceName:
			list = append(list, "name="+m.Name)
		case *ip.SwInterfaceIP6EnableDisable:
			list = append(list, fmt.Sprintf("%sip6", sign(m.Enable)))
		case *ip.SwInterfaceIP6SetLinkLocalAddress:
			list = append(list, fmt.Sprintf("ll=%v", binapi.FromIP6(m.IP)))
		case *ip_neighbor.IPNeighborAddDel:
			list = append(list, fmt.Sprintf("%s%v@%v", sign(m.IsAdd), binapi.FromAddress(m.Neighbor.IPAddress), m.Neighbor.MacAddress))
		default:
			list = append(list, fmt.Sprintf("%T", m))
		}
	}
	return strings.Join(list, " ")
}

func sign(add bool) string {
	if add {
		return "+"
	}
	return "-"
}

func pfx(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestSettle(t *testing.T) {
	const index, lender = 5, 3
	ll := netip.MustParseAddr("fe80::1")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	fresh := observed{index: index, name: "memif1/0", mtu: 9000, lender: noInterface}
	done := fresh
	done.name, done.admin = "x", true
	with := func(o observed, change func(*observed)) observed {
		change(&o)
		return o
	}
	for _, test := range []struct {
		name string
		want Interface
		have observed
		told string
	}{
		{"nothing to do", Interface{Enabled: true}, done, ""},
		{
			"all of it, in VPP's order",
			Interface{
				Table: 7, Addresses: pfx("10.0.0.1/24", "fd00::1/64", "fe80::1/64"), Unnumbered: "dum0", MTU: 1420, Enabled: true,
				Neighbors: []StaticNeighbor{{Address: netip.MustParseAddr("fe80::2%x"), MAC: mac}},
			},
			fresh,
			"table4=7 table6=7 +ip6 ll=fe80::1 +10.0.0.1/24 +fd00::1/64 +lender3 mtu=1420 admin=1 +fe80::2@02:00:00:00:00:09 name=x",
		},
		{
			"another table takes the addresses off and on",
			Interface{Table: 7, Addresses: pfx("10.0.0.1/24"), Unnumbered: "dum0", Enabled: true},
			with(done, func(o *observed) { o.addresses, o.lender = pfx("10.0.0.1/24", "10.9.0.1/24"), lender }),
			"-lender3 -10.0.0.1/24 -10.9.0.1/24 table4=7 table6=7 +10.0.0.1/24 +lender3",
		},
		{
			"deletions before additions, and only the difference",
			Interface{Addresses: pfx("10.0.0.1/25", "10.3.0.1/24"), Enabled: true},
			with(done, func(o *observed) { o.addresses = pfx("10.0.0.1/24", "10.3.0.1/24") }),
			"-10.0.0.1/24 +10.0.0.1/25",
		},
		{
			"an address twice", Interface{Addresses: pfx("10.0.0.1/25", "10.0.0.1/25"), Enabled: true}, done, "+10.0.0.1/25",
		},
		{
			"another lender",
			Interface{Unnumbered: "dum0", Enabled: true},
			with(done, func(o *observed) { o.lender = 4 }), "-lender4 +lender3",
		},
		{"no lender", Interface{Enabled: true}, with(done, func(o *observed) { o.lender = 4 }), "-lender4"},
		{
			"a made-up link-local address is replaced",
			Interface{Addresses: pfx("fe80::1/64"), Enabled: true},
			with(done, func(o *observed) { o.linkLocal = netip.MustParseAddr("fe80::fe:1") }), "ll=fe80::1",
		},
		{
			"a made-up one stays while there are IPv6 addresses",
			Interface{Addresses: pfx("fd00::1/64"), Enabled: true},
			with(done, func(o *observed) { o.linkLocal, o.addresses = ll, pfx("fd00::1/64") }), "",
		},
		{"nothing of IPv6 is left", Interface{Enabled: true}, with(done, func(o *observed) { o.linkLocal = ll }), "-ip6"},
		{
			"but what is lent needs it",
			Interface{Unnumbered: "dum0", Enabled: true},
			with(done, func(o *observed) { o.linkLocal, o.lender = ll, lender }), "",
		},
		{"down", Interface{}, done, "admin=0"},
		{"the default MTU again", Interface{Enabled: true}, with(done, func(o *observed) { o.mtu = 1420 }), "mtu=9000"},
		{
			"neighbours: another MAC replaces, others go",
			Interface{Enabled: true, Neighbors: []StaticNeighbor{{ll, mac}}},
			with(done, func(o *observed) {
				o.neighbors = []observedNeighbor{{ll, [6]byte{2}}, {netip.MustParseAddr("10.0.0.9"), [6]byte{2, 9}}}
			}),
			"+fe80::1@02:00:00:00:00:09 -10.0.0.9@02:09:00:00:00:00",
		},
	} {
		test.want.Name = "x"
		if got := told(settle(&test.want, &test.have, lender)); got != test.told {
			t.Errorf("%s:\n\t%s, want\n\t%s", test.name, got, test.told)
		}
	}
}

func TestPlanRemoval(t *testing.T) {
	cfg := Config{Router: "r", Interfaces: []Interface{
		{Name: "keep", Loopback: &Loopback{}}, {Name: "anew", Memif: &Memif{Socket: "/s", RingSize: 256}},
	}}
	tag := func(router string, i Interface) string { return (&Config{Router: router}).tag(&i) }
	w := &world{interfaces: make(map[uint32]*observed)}
	add := func(index uint32, tag string) { w.interfaces[index] = &observed{index: index, tag: tag} }
	add(0, "")
	add(1, tag("r", cfg.Interfaces[0]))
	add(2, tag("r", cfg.Interfaces[0]))                                       // there twice
	add(3, tag("r", Interface{Name: "anew", Memif: &Memif{Socket: "/s"}}))    // with another ring
	add(4, tag("r", Interface{Name: "gone/x", Memif: &Memif{Socket: "/s"}}))  // not configured
	add(5, tag("r2", Interface{Name: "gone", Memif: &Memif{Socket: "/s"}}))   // somebody else's
	add(6, "rlr/r/")                                                          // not one of our tags
	add(7, "rlr/rkeep/00000000")                                              // nor this
	add(8, tag("r", Interface{Name: "keep", Loopback: &Loopback{}})+"/extra") // an interface "keep/HASH"
	var got []uint32
	for _, o := range planRemoval(&cfg, w) {
		got = append(got, o.index)
	}
	if !slices.Equal(got, []uint32{2, 3, 4, 8}) {
		t.Errorf("to be removed: %v", got)
	}
}

func TestPlanTables(t *testing.T) {
	cfg := Config{Router: "r", Tables: []Table{{ID: 0, Name: "default"}, {ID: 10, Name: "blue"}, {ID: 11, Name: strings.Repeat("x", 99)}}}
	w := &world{tables: map[table]string{
		{0, false}: "ipv4-VRF:0", {0, true}: "ipv6-VRF:0", {10, false}: "somebody's", {20, false}: "rlr/r/old", {20, true}: "rlr/r2/theirs",
	}}
	missing, extra := planTables(&cfg, w)
	if len(missing) != 3 || missing[table{10, true}] != "rlr/r/blue" || len(missing[table{11, true}]) != maxTag {
		t.Errorf("missing: %v", missing)
	}
	if !slices.Equal(extra, []table{{20, false}}) {
		t.Errorf("extra: %v", extra)
	}
}

func TestCreationTellsParametersApart(t *testing.T) {
	base := Interface{Name: "x", Memif: &Memif{Socket: "/s", ID: 1}}
	seen := map[string]string{}
	for name, change := range map[string]func(*Interface){
		"as it is":    func(*Interface) {},
		"socket":      func(i *Interface) { i.Memif.Socket = "/t" },
		"id":          func(i *Interface) { i.Memif.ID = 2 },
		"role":        func(i *Interface) { i.Memif.Role = MemifSlave },
		"mode":        func(i *Interface) { i.Memif.Mode = MemifIP },
		"ring size":   func(i *Interface) { i.Memif.RingSize = 256 },
		"buffer size": func(i *Interface) { i.Memif.BufferSize = 1024 },
		"queues":      func(i *Interface) { i.Memif.Queues = 2 },
		"secret":      func(i *Interface) { i.Memif.Secret = "s" },
		"MAC":         func(i *Interface) { i.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1} },
	} {
		i := base
		m := *base.Memif
		i.Memif = &m
		change(&i)
		if other, there := seen[i.creation()]; there {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[i.creation()] = name
	}
	i := base
	i.Memif = &Memif{Socket: "/s", ID: 1, RingSize: 1024, BufferSize: 2048, Queues: 1}
	i.Addresses, i.MTU = pfx("10.0.0.1/24"), 1400
	if seen[i.creation()] != "as it is" {
		t.Error("defaults that are spelled out, or settings, make another interface")
	}
}

func TestConfigCheck(t *testing.T) {
	loop := &Loopback{}
	for want, i := range map[string]Interface{
		"exactly one kind": {Name: "x"},
		"kind of":          {Name: "x", Loopback: loop, Memif: &Memif{Socket: "/s"}},
		"too long":         {Name: strings.Repeat("x", 60), Loopback: loop},
		"MAC":              {Name: "x", Loopback: loop, MAC: net.HardwareAddr{1}},
		"MTU":              {Name: "x", Loopback: loop, MTU: 70000},
		"socket path":      {Name: "x", Memif: &Memif{Socket: "/" + strings.Repeat("s", 107)}},
		"secret":           {Name: "x", Memif: &Memif{Socket: "/s", Secret: strings.Repeat("s", 25)}},
		"out of range":     {Name: "x", Memif: &Memif{Socket: "/s", RingSize: 1 << 16}},
		"queues":           {Name: "x", Memif: &Memif{Socket: "/s", Queues: 256}},
	} {
		if err := (&Config{Router: "r"}).check(&i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := (&Config{Router: "r"}).check(&Interface{Name: "x", Memif: &Memif{Socket: "/s"}}); err != nil {
		t.Error(err)
	}
}

func TestUptime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Time now 1.117782, Sat, 21 Nov 2026 03:40:36 GMT\nTime last": 1117782 * time.Microsecond,
		"Time now 12.5, x": 12500 * time.Millisecond,
		"":                 0, "Time now ": 0, "Time now -1,": 0, "Time now NaN,": 0, "Time now 1e300,": 0,
	} {
		if got := uptime(text); got.Round(time.Microsecond) != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
