package minivpp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_neighbor"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// The entries that there are, by what makes them: VPP itself, the API, the addresses of interface 1, and its neighbours.
var (
	ofVPP = []string{
		"0.0.0.0/0 src 20 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"0.0.0.0/32 src 20 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"224.0.0.0/4 src 1 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"240.0.0.0/4 src 1 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"255.255.255.255/32 src 20 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"::/0 src 20 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 1]",
		"fe80::/10 src 1",
	}
	ofAPI = []string{
		"192.0.2.0/24 src 8 [0 10.1.0.9 if 1 table 0 weight 1 pref 0 proto 0]",
		"198.51.100.0/24 src 8 [0 10.1.0.77 if -1 table 0 weight 1 pref 0 proto 0]",
		"203.0.113.0/24 src 8 [0 172.16.0.1 if -1 table 0 weight 1 pref 0 proto 0]",
	}
	ofAddresses = []string{
		"10.1.0.0/24 src 4 [0 invalid IP if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.0.0/32 src 4 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"10.1.0.1/32 src 4 [1 10.1.0.1 if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.0.255/32 src 4 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"10.1.1.1/32 src 4 [1 10.1.1.1 if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.2.0/31 src 4 [0 invalid IP if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.2.0/32 src 4 [1 10.1.2.0 if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.2.1/32 src 4 [0 10.1.2.1 if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.3.0/30 src 4 [0 invalid IP if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.3.0/32 src 4 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"10.1.3.1/32 src 4 [1 10.1.3.1 if 1 table 0 weight 1 pref 0 proto 0]",
		"10.1.3.3/32 src 4 [2 invalid IP if -1 table 0 weight 1 pref 0 proto 0]",
		"2001:db8:1::1/128 src 4 [1 2001:db8:1::1 if 1 table 0 weight 1 pref 0 proto 1]",
		"2001:db8::/64 src 4 [0 invalid IP if 1 table 0 weight 1 pref 0 proto 1]",
		"2001:db8::1/128 src 4 [1 2001:db8::1 if 1 table 0 weight 1 pref 0 proto 1]",
	}
	ofNeighbors = []string{
		"10.1.0.9/32 src 15 [0 10.1.0.9 if 1 table 0 weight 1 pref 0 proto 0]",
		"2001:db8::9/128 src 15 [0 2001:db8::9 if 1 table 0 weight 1 pref 0 proto 1]",
	}
	ofStatic = []string{
		"10.1.0.8/32 src 15 [0 10.1.0.8 if 1 table 0 weight 1 pref 0 proto 0]",
	}
)

// fib describes every entry of table 0 of a family: prefix, source, and paths. Left out are the entries that VPP makes for
// next hops which it must look up (source 18), because minivpp looks them up without, and VPP's own path for link-local
// destinations.
func (v *vpp) fib(ip6 bool) []string {
	v.t.Helper()
	r, err := v.ip.IPRouteV2Dump(v.ctx, &ip.IPRouteV2Dump{Table: ip.IPTable{IsIP6: ip6}})
	var rows []string
	for _, d := range all[ip.IPRouteV2Details](v.t, r, err) {
		row := fmt.Sprintf("%s src %d", binapi.FromPrefix(d.Route.Prefix).Masked(), d.Route.Src)
		if d.Route.Src == 18 {
			continue
		}
		if d.Route.Src == 1 && ip6 {
			rows = append(rows, row)
			continue
		}
		var paths []string
		for _, in := range d.Route.Paths {
			p, err := binapi.FromPath(in)
			if err != nil {
				v.t.Errorf("%s: %v", row, err)
			}
			paths = append(paths, fmt.Sprintf(" [%d %s if %d table %d weight %d pref %d proto %d]",
				p.Type, p.Addr, int32(p.SwIfIndex), p.TableID, p.Weight, p.Preference, in.Proto))
		}
		slices.Sort(paths)
		for _, p := range paths {
			row += p
		}
		rows = append(rows, row)
	}
	slices.Sort(rows)
	return rows
}

// TestWholeFIB compares every entry that a configuration makes, down to the paths.
func TestWholeFIB(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		lo := v.loopback("10.1.0.1/24", "10.1.1.1/32", "10.1.2.0/31", "10.1.3.1/30", "2001:db8::1/64", "2001:db8:1::1/128")
		borrower := v.loopback()
		_, err := v.ifc.SwInterfaceSetUnnumbered(v.ctx, &interfaces.SwInterfaceSetUnnumbered{SwIfIndex: lo, UnnumberedSwIfIndex: borrower, IsAdd: true})
		v.ok(err, "unnumbered")
		_, err = v.ip.SwInterfaceIP6SetLinkLocalAddress(v.ctx, &ip.SwInterfaceIP6SetLinkLocalAddress{SwIfIndex: lo, IP: binapi.ToIP6(netip.MustParseAddr("fe80::1"))})
		v.ok(err, "link-local")
		for _, n := range []string{"10.1.0.9", "10.1.0.8", "2001:db8::9", "fe80::9"} {
			var flags ip_neighbor.IPNeighborFlags
			if n == "10.1.0.8" {
				flags = ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC
			}
			_, err := ip_neighbor.NewServiceClient(v.conn).IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{
				IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{SwIfIndex: lo, Flags: flags, MacAddress: [6]byte{2}, IPAddress: binapi.ToAddress(netip.MustParseAddr(n))},
			})
			v.ok(err, "neighbour "+n)
		}
		v.ok(v.route("192.0.2.0/24", 0, true, false, via("192.0.2.0/24", uint32(lo), "10.1.0.9")), "route")
		v.ok(v.route("198.51.100.0/24", 0, true, false, via("198.51.100.0/24", ^uint32(0), "10.1.0.77")), "recursive route")
		v.ok(v.route("203.0.113.0/24", 0, true, false, via("203.0.113.0/24", ^uint32(0), "172.16.0.1")), "unresolved route")

		check := func(when string, want ...[]string) {
			t.Helper()
			got := append(v.fib(false), v.fib(true)...)
			if d := cmp.Diff(slices.Sorted(slices.Values(slices.Concat(want...))), slices.Sorted(slices.Values(got))); d != "" {
				t.Errorf("%s: %s", when, d)
			}
		}
		check("up", ofVPP, ofAPI, ofAddresses, ofNeighbors, ofStatic)
		v.up(lo, false)
		if d.Kind == dataplanetest.VPP {
			// VPP keeps the entry of a static neighbour while its interface is down; minivpp makes it again afterwards.
			check("down", ofVPP, ofAPI, ofStatic)
		} else {
			check("down", ofVPP, ofAPI)
		}
		v.up(lo, true)
		check("up again", ofVPP, ofAPI, ofAddresses, ofStatic)
		_, err = v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: lo})
		v.ok(err, "delete")
		check("deleted", ofVPP, ofAPI)
	})
}
