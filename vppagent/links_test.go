package vppagent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// TestLinksOfNewDataplane kills a VPP whose routes have next hops on a memif. In the next one the link takes a while to come
// up: the routes are written once all the same. Where it does not come up, next hops leave it after LinkWait. A router in whose
// process the dataplane is has no such thing.
func TestLinksOfNewDataplane(t *testing.T) {
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "api.sock")
	end := func(name string, role vppagent.MemifRole, address string) vppagent.Config {
		return vppagent.Config{Router: name, Interfaces: []vppagent.Interface{{
			Name: name, Memif: &vppagent.Memif{Socket: dir + "/cable.sock", Role: role}, Addresses: prefixes(address), Enabled: true,
		}}}
	}
	far := dataplanetest.Start(t, dataplanetest.VPP)
	b := start(t, far, end("right", vppagent.MemifMaster, "192.0.2.2/30"))
	configured(t, b)

	const n = 500
	var routes []fib.Route
	for i := range n {
		routes = append(routes, unicast(0, fmt.Sprintf("20.%d.%d.0/24", i/250, i%250), hop("192.0.2.2", "", 1)))
	}
	var a *vppagent.Agent
	var s *following
	up := func() bool { return len(a.Connected()) == 1 }
	way := func() string { return fmt.Sprint(held(t, a)[routes[n-1].Key].NextHops) }
	life := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t2 *testing.T) {
			d := dataplanetest.Start(t2, dataplanetest.VPP)
			_ = os.Remove(socket)
			if err := os.Symlink(d.APISocket, socket); err != nil {
				t2.Fatal(err)
			}
			if a == nil {
				a, _ = runAgent(t, socket, "", end("left", vppagent.MemifSlave, "192.0.2.1/30"), func(o *vppagent.Options) { o.LinkWait = 8 * time.Second })
				eventually(t2, "the link is up", up)
				s = syncer(t, a)
				s.feed.Update(routes...)
				s.feed.Complete()
			}
			configured(t2, a)
			s.wait(t2, s.Revision())
			test(t2)
			if err := syscall.Kill(int(a.Status().PID), syscall.SIGKILL); err != nil {
				t2.Fatal(err)
			}
			eventually(t2, "the end is noticed", func() bool { return !a.Status().Connected })
		})
	}
	const onLink, recursive = "[via 192.0.2.2 dev left]", "[via 192.0.2.2]"
	want := func(t *testing.T, hops string, written uint64) {
		t.Helper()
		if got := way(); got != hops || s.Status().Written != written {
			t.Errorf("%s, %d routes written, want %s and %d", got, s.Status().Written, hops, written)
		}
	}
	life("first", func(t *testing.T) { want(t, onLink, n) })
	again := func(t *testing.T, written uint64) {
		t.Helper()
		eventually(t, "the routes are written again", func() bool { return way() == onLink && s.Status().Written >= written })
	}
	life("second", func(t *testing.T) {
		again(t, 2*n)
		eventually(t, "the link is up again", up)
		s.wait(t, s.Revision())
		want(t, onLink, 2*n)
		eventually(t, "VPP forwards by what was written while the link was down", func() bool {
			out, err := a.CLI(within(t), "show ip fib "+routes[n-1].Key.Prefix.String())
			return err == nil && strings.Contains(out, "dpo-load-balance") && !strings.Contains(out, "dpo-drop")
		})
		b.SetConfig(vppagent.Config{Router: "right"}) // in normal operation a link that goes down is down
		eventually(t, "the next hops have left the link", func() bool { return way() == recursive })
		b.SetConfig(end("right", vppagent.MemifMaster, "192.0.2.2/30"))
		eventually(t, "the next hops are on the link", func() bool { return way() == onLink })
		s.wait(t, s.Revision())
	})
	b.SetConfig(vppagent.Config{Router: "right"})
	configured(t, b)
	life("third", func(t *testing.T) {
		again(t, 5*n)
		if up() {
			t.Error("there is a link without a far end")
		}
		want(t, onLink, 5*n)
		eventually(t, "the link is not waited for any more", func() bool { return way() == recursive })
	})
}
