package minivpp_test

import (
	"slices"
	"testing"
	"time"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/adapter/statsclient"
	interfaces "go.fd.io/govpp/binapi/interface"

	"rlr/minivpp/dataplanetest"
)

// TestStats reads the statistics segment with stock govpp.
func TestStats(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		a := v.loopback("10.1.0.1/24")
		c := statsclient.NewStatsClient(d.StatsSocket)
		v.ok(c.Connect(), "connect")
		defer func() { v.ok(c.Disconnect(), "disconnect") }()

		// get reads one entry until it is as wanted: counters may be a second old, and the directory may be changing.
		get := func(name string, good func(adapter.Stat) bool) {
			t.Helper()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			var last any
			for {
				entries, err := c.DumpStats("^" + name + "$")
				last = err
				if err == nil && len(entries) == 1 && string(entries[0].Name) == name {
					if last = entries[0].Data; good(entries[0].Data) {
						return
					}
				}
				select {
				case <-tick.C:
				case <-v.ctx.Done():
					t.Fatalf("%s: %v", name, last)
				}
			}
		}
		names := func(want ...string) func(adapter.Stat) bool {
			return func(s adapter.Stat) bool {
				var got []string
				for _, n := range s.(adapter.NameStat) {
					if len(n) > 0 {
						got = append(got, string(n))
					}
				}
				return slices.Equal(got, want)
			}
		}
		get("/if/names", names("local0", "loop0"))
		get("/sys/boottime", func(s adapter.Stat) bool {
			boot := time.Unix(int64(s.(adapter.ScalarStat)), 0)
			return time.Since(boot).Abs() < time.Minute
		})

		b := v.loopback()
		get("/if/names", names("local0", "loop0", "loop1"))
		for _, name := range []string{"drops", "punt", "ip4", "ip6", "rx-no-buf", "rx-miss", "rx-error", "tx-error"} {
			get("/if/"+name, func(s adapter.Stat) bool { return len(s.(adapter.SimpleCounterStat)[0]) > int(b) })
		}
		for _, name := range []string{"rx", "tx"} {
			get("/if/"+name, func(s adapter.Stat) bool { return len(s.(adapter.CombinedCounterStat)[0]) > int(b) })
		}
		get("/interfaces/loop1/rx", func(s adapter.Stat) bool { return len(s.(adapter.CombinedCounterStat)) > 0 })
		_, err := v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: a})
		v.ok(err, "delete")
		get("/if/names", names("local0", "deleted", "loop1"))
	})
}

// TestStatsCount checks the counters' values with packets that were counted.
func TestStatsCount(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		p := v.plug(d, 1, "10.1.0.1/24", func(idx interfaceIndex) { v.waitLink(idx) })
		frame := udp(p.mac, "10.1.0.2", "203.0.113.1", 1) // to nowhere
		for range 5 {
			p.send(v, frame)
		}
		c := statsclient.NewStatsClient(d.StatsSocket)
		v.ok(c.Connect(), "connect")
		defer func() { v.ok(c.Disconnect(), "disconnect") }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			entries, err := c.DumpStats("^/if/rx$", "^/if/ip4$", "^/if/drops$")
			counts := map[string]uint64{}
			for _, e := range entries {
				switch s := e.Data.(type) {
				case adapter.CombinedCounterStat:
					counts[string(e.Name)], counts["bytes"] = s[0][p.idx].Packets(), s[0][p.idx].Bytes()
				case adapter.SimpleCounterStat:
					counts[string(e.Name)] = uint64(s[0][p.idx])
				}
			}
			if err == nil && counts["/if/rx"] == 5 && counts["bytes"] == 5*uint64(len(frame)) && counts["/if/ip4"] == 5 && counts["/if/drops"] >= 5 {
				return
			}
			select {
			case <-tick.C:
			case <-v.ctx.Done():
				t.Fatalf("counters %v, %v", counts, err)
			}
		}
	})
}
