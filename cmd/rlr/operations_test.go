package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.fd.io/govpp/adapter/socketclient"
	vppfib "go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/core"

	"rlr/binapi"
)

// TestOperations plays testdata/operations on both dataplanes.
func TestOperations(t *testing.T) {
	cmds := scriptCommands()
	cmds["meddle"] = meddle
	onBoth(t, testscript.Params{Dir: "testdata/operations", Cmds: cmds})
}

// onBoth plays scripts on both dataplanes, whose name is in KIND.
func onBoth(t *testing.T, p testscript.Params) {
	eachDataplane(t, func(t *testing.T, kind string) {
		p.Setup = func(env *testscript.Env) error {
			env.Setenv("KIND", kind)
			if prefix := vppPrefix(); prefix != "" {
				env.Setenv("VPP_PREFIX", prefix)
			}
			return ownRuntime(env)
		}
		testscript.Run(t, p)
	})
}

// meddle is another client of a router's dataplane, who deletes a route under the router's name, or makes it drop: meddle
// ROUTER add|del PREFIX.
func meddle(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 || neg {
		ts.Fatalf("usage: meddle ROUTER add|del PREFIX")
	}
	found, err := filepath.Glob(filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), args[0], "api.sock"))
	ts.Check(err)
	deeper, err := filepath.Glob(filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), args[0], "*", "api.sock"))
	ts.Check(err)
	if found = append(found, deeper...); len(found) != 1 {
		ts.Fatalf("API sockets of %s: %v", args[0], found)
	}
	conn, err := core.Connect(socketclient.NewVppClient(found[0]))
	ts.Check(err)
	defer conn.Disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dump, err := vppfib.NewServiceClient(conn).FibSourceDump(ctx, &vppfib.FibSourceDump{})
	ts.Check(err)
	var source uint8
	for d, err := dump.Recv(); err == nil; d, err = dump.Recv() {
		if d.Src.Name == "rlr/"+args[0] {
			source = d.Src.ID
		}
	}
	p := netip.MustParsePrefix(args[2])
	_, err = ip.NewServiceClient(conn).IPRouteAddDelV2(ctx, &ip.IPRouteAddDelV2{IsAdd: args[1] == "add", Route: ip.IPRouteV2{
		Prefix: binapi.ToPrefix(p), Src: source, NPaths: 1, Paths: []fib_types.FibPath{
			binapi.ToPath(binapi.Path{Type: fib_types.FIB_API_PATH_TYPE_DROP, SwIfIndex: binapi.AnyInterface}, p.Addr()),
		},
	}})
	ts.Check(err)
}
