package minivpp_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.fd.io/govpp/adapter/socketclient"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/core"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// The conformance tests talk to a dataplane as any client of VPP does, with stock govpp, and run on minivpp and on a real
// VPP. What they expect was found by running them on VPP 26.06.

// vpp is a connected client.
type vpp struct {
	t    *testing.T
	conn *core.Connection
	ctx  context.Context
	ifc  interfaces.RPCService
	ip   ip.RPCService
}

func connect(t *testing.T, d *dataplanetest.Dataplane) *vpp {
	t.Helper()
	conn, err := core.Connect(socketclient.NewVppClient(d.APISocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Disconnect)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return &vpp{t: t, conn: conn, ctx: ctx, ifc: interfaces.NewServiceClient(conn), ip: ip.NewServiceClient(conn)}
}

// want checks the outcome of a request: 0 for success or VPP's error value.
func (v *vpp) want(err error, want api.VPPApiError, what string) {
	v.t.Helper()
	var got api.VPPApiError
	if err != nil && !errors.As(err, &got) {
		v.t.Fatalf("%s: %v", what, err)
	}
	if got != want {
		v.t.Errorf("%s: retval %d, want %d", what, got, want)
	}
}

func (v *vpp) ok(err error, what string) {
	v.t.Helper()
	if err != nil {
		v.t.Fatalf("%s: %v", what, err)
	}
}

// receiver is what the generated clients of dumps have.
type receiver[D any] interface {
	Recv() (*D, error)
}

// all collects a dump.
func all[D any](t *testing.T, r receiver[D], err error) []*D {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var list []*D
	for {
		d, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
}

// interfaces returns the interfaces that a dump shows.
func (v *vpp) interfaces(q interfaces.SwInterfaceDump) []*interfaces.SwInterfaceDetails {
	v.t.Helper()
	r, err := v.ifc.SwInterfaceDump(v.ctx, &q)
	return all[interfaces.SwInterfaceDetails](v.t, r, err)
}

func (v *vpp) names(q interfaces.SwInterfaceDump) []string {
	v.t.Helper()
	var names []string
	for _, i := range v.interfaces(q) {
		names = append(names, i.InterfaceName)
	}
	slices.Sort(names)
	return names
}

// iface returns one interface.
func (v *vpp) iface(idx interface_types.InterfaceIndex) *interfaces.SwInterfaceDetails {
	v.t.Helper()
	list := v.interfaces(interfaces.SwInterfaceDump{SwIfIndex: idx})
	if len(list) != 1 {
		v.t.Fatalf("interface %d: %d details", idx, len(list))
	}
	return list[0]
}

// loopback creates a loopback that is up, with addresses.
func (v *vpp) loopback(addresses ...string) interface_types.InterfaceIndex {
	v.t.Helper()
	r, err := v.ifc.CreateLoopback(v.ctx, &interfaces.CreateLoopback{})
	v.ok(err, "create loopback")
	v.up(r.SwIfIndex, true)
	for _, a := range addresses {
		v.ok(v.address(r.SwIfIndex, a, true), "add "+a)
	}
	return r.SwIfIndex
}

func (v *vpp) up(idx interface_types.InterfaceIndex, up bool) {
	v.t.Helper()
	var f interface_types.IfStatusFlags
	if up {
		f = interface_types.IF_STATUS_API_FLAG_ADMIN_UP
	}
	_, err := v.ifc.SwInterfaceSetFlags(v.ctx, &interfaces.SwInterfaceSetFlags{SwIfIndex: idx, Flags: f})
	v.ok(err, "set flags")
}

func (v *vpp) address(idx interface_types.InterfaceIndex, a string, add bool) error {
	_, err := v.ifc.SwInterfaceAddDelAddress(v.ctx, &interfaces.SwInterfaceAddDelAddress{
		SwIfIndex: idx, IsAdd: add, Prefix: binapi.ToAddressWithPrefix(netip.MustParsePrefix(a)),
	})
	return err
}

// addresses returns an interface's addresses of a family.
func (v *vpp) addresses(idx interface_types.InterfaceIndex, ip6 bool) []string {
	v.t.Helper()
	r, err := v.ip.IPAddressDump(v.ctx, &ip.IPAddressDump{SwIfIndex: idx, IsIPv6: ip6})
	var list []string
	for _, d := range all[ip.IPAddressDetails](v.t, r, err) {
		list = append(list, binapi.FromAddressWithPrefix(d.Prefix).String())
	}
	slices.Sort(list)
	return list
}

// via makes paths; each is "ADDRESS", and goes out of idx, or is recursive when that is AnyInterface.
func via(dst string, idx uint32, addrs ...string) []fib_types.FibPath {
	var paths []fib_types.FibPath
	for _, a := range addrs {
		paths = append(paths, binapi.ToPath(binapi.Path{Addr: netip.MustParseAddr(a), SwIfIndex: idx}, netip.MustParsePrefix(dst).Addr()))
	}
	return paths
}

// route writes with a source; 0 is the API's.
func (v *vpp) route(dst string, src uint8, add, multipath bool, paths []fib_types.FibPath) error {
	_, err := v.ip.IPRouteAddDelV2(v.ctx, &ip.IPRouteAddDelV2{IsAdd: add, IsMultipath: multipath, Route: ip.IPRouteV2{
		Prefix: binapi.ToPrefix(netip.MustParsePrefix(dst)), Src: src, NPaths: uint8(len(paths)), Paths: paths,
	}})
	return err
}

// routes dumps table 0 of a family: the next hops by prefix.
func (v *vpp) routes(src uint8, ip6 bool) map[string][]string {
	v.t.Helper()
	r, err := v.ip.IPRouteV2Dump(v.ctx, &ip.IPRouteV2Dump{Src: src, Table: ip.IPTable{IsIP6: ip6}})
	found := map[string][]string{}
	for _, d := range all[ip.IPRouteV2Details](v.t, r, err) {
		hops := []string{}
		for _, p := range d.Route.Paths {
			path, err := binapi.FromPath(p)
			if err != nil {
				v.t.Errorf("%s: %v", d.Route.Prefix, err)
				continue
			}
			if path.Addr.IsValid() {
				hops = append(hops, path.Addr.String())
			} else {
				hops = append(hops, path.Type.String())
			}
		}
		slices.Sort(hops)
		// VPP shows a connected prefix with the interface's address in it.
		found[binapi.FromPrefix(d.Route.Prefix).Masked().String()] = hops
	}
	return found
}

// lookup returns the prefix and the next hops of the entry that a lookup finds.
func (v *vpp) lookup(prefix string, exact uint8) (string, []string, error) {
	r, err := v.ip.IPRouteLookupV2(v.ctx, &ip.IPRouteLookupV2{Exact: exact, Prefix: binapi.ToPrefix(netip.MustParsePrefix(prefix))})
	if err != nil {
		return "", nil, err
	}
	var hops []string
	for _, p := range r.Route.Paths {
		if path, err := binapi.FromPath(p); err == nil && path.Addr.IsValid() {
			hops = append(hops, path.Addr.String())
		}
	}
	slices.Sort(hops)
	return binapi.FromPrefix(r.Route.Prefix).String(), hops, nil
}
