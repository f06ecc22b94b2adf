package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.fd.io/govpp/adapter/socketclient"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/core"

	"rlr/binapi"
)

// TestFullTable plays testdata/fulltable: a table that is learned from the dataplane by one router, announced over one
// session, and shown by the other. RLR_LONG=1 makes it 200,000 routes.
func TestFullTable(t *testing.T) {
	n := 5_000
	if os.Getenv("RLR_LONG") != "" {
		n = 200_000
	}
	cmds := scriptCommands()
	cmds["flood"], cmds["measure"] = flood, measurer()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/fulltable", Cmds: cmds,
		Setup: func(env *testscript.Env) error {
			env.Setenv("N", strconv.Itoa(n))
			env.Setenv("ALL", strconv.Itoa(n+1)) // with the cable's own
			env.Setenv("JSON", strconv.Itoa(n+1+2))
			env.Setenv("TEXT", strconv.Itoa(2*(n+1)+1))
			return ownRuntime(env)
		},
	})
}

// flood puts blackhole routes into a router's dataplane, as another client: flood ROUTER COUNT.
func flood(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: flood ROUTER COUNT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(floodRoutes(filepath.Join(ts.Getenv("RLR_RUNTIME_DIR"), args[0], "api.sock"), n))
}

func floodRoutes(socket string, n int) error {
	conn, err := core.Connect(socketclient.NewVppClient(socket))
	if err != nil {
		return err
	}
	defer conn.Disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	stream, err := conn.NewStream(ctx, core.WithRequestSize(1024), core.WithReplySize(1024))
	if err != nil {
		return err
	}
	defer stream.Close()
	var first error
	const window = 500
	for i := range n + window {
		if i < n {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 0x14000000+uint32(i)<<8)
			p := netip.PrefixFrom(netip.AddrFrom4(a), 24)
			err := stream.SendMsg(&ip.IPRouteAddDelV2{IsAdd: true, Route: ip.IPRouteV2{
				Prefix: binapi.ToPrefix(p), NPaths: 1, Paths: []fib_types.FibPath{
					binapi.ToPath(binapi.Path{Type: fib_types.FIB_API_PATH_TYPE_DROP, SwIfIndex: binapi.AnyInterface}, p.Addr()),
				},
			}})
			if err != nil {
				return err
			}
		}
		if i >= window {
			m, err := stream.RecvMsg()
			if err != nil {
				return err
			}
			if r, ok := m.(*ip.IPRouteAddDelV2Reply); !ok || r.Retval != 0 {
				first = errors.Join(first, fmt.Errorf("route %d: %+v", i-window, m))
			}
		}
	}
	return first
}

// measurer returns a command that runs another, and checks how many lines it prints, and that it takes no more than twice the
// memory of the first one: measure LINES COMMAND [ARG …].
func measurer() func(*testscript.TestScript, bool, []string) {
	first := 0
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) < 2 || neg {
			ts.Fatalf("usage: measure LINES COMMAND [ARG]...")
		}
		lines, err := strconv.Atoi(args[0])
		ts.Check(err)
		path, err := lookPath(ts.Getenv("PATH"), args[1])
		ts.Check(err)
		cmd := exec.Command(path, args[2:]...)
		cmd.Env = []string{"RLR_RUNTIME_DIR=" + ts.Getenv("RLR_RUNTIME_DIR"), "PATH=" + ts.Getenv("PATH")}
		count := &lineCounter{}
		cmd.Stdout = count
		began := time.Now()
		ts.Check(cmd.Run())
		peak := int(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10)
		ts.Logf("%v: %d lines, %d bytes in %v, %d MB at most", args[1:], count.lines, count.bytes, time.Since(began), peak)
		if count.lines != lines {
			ts.Fatalf("%v printed %d lines, want %d", args[1:], count.lines, lines)
		}
		if first == 0 {
			first = peak
		}
		if peak > 2*first {
			ts.Fatalf("%v took %d MB, the first command %d", args[1:], peak, first)
		}
	}
}

// lineCounter keeps nothing of what it is told.
type lineCounter struct{ lines, bytes int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += bytes.Count(p, []byte("\n"))
	c.bytes += len(p)
	return len(p), nil
}
