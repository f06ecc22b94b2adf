package lab

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

// With 10,000 routes, and on VPP with 200,000 more.
func TestRestart(t *testing.T) {
	needLong(t)
	eachDataplane(t, func(t *testing.T, kind string) {
		runtime := filepath.Join(shortDir(t), "rlr")
		p := newClone(t, runtime).play(t, "restart", "--dataplane", kind)
		wantPassed(t, p, playLimit)
		wantDataplane(t, p, kind)
		wantMetrics(t, p, "converge_ms", "route_latency_median_ms", "route_latency_p99_ms")
		for _, c := range p.result.Checks {
			t.Logf("%s: %s", c.Name, c.Detail)
			if only := slices.Contains(restart().vppOnly, c.Name); c.Skipped != (only && kind == embedded) {
				t.Errorf("%s on %s: skipped %v", c.Name, kind, c.Skipped)
			}
		}
		if kind == onVPP {
			wantMetrics(t, p, "router_back_ms", "wireguard_outage_ms", "many_routes", "many_learned_ms", "many_back_ms",
				"many_vpp_rss_bytes", "many_rss_bytes")
			if n := p.result.Metrics["many_routes"]; n < restartMany {
				t.Errorf("VPP died with %.0f routes", n)
			}
		}
		nothingLeft(t, runtime)
	})
}

func TestHostRoutes(t *testing.T) {
	got := hostRoutes(basePool, 300)
	if len(got) != 300 || got[0] != "100.64.0.0/32" || got[255] != "100.64.0.255/32" || got[299] != "100.64.1.43/32" {
		t.Errorf("%v", got)
	}
	// The pools do not meet.
	seen := make(map[string]bool)
	for _, list := range [][]string{
		hostRoutes(basePool, restartRoutes), hostRoutes(addedPool, changedRoutes), hostRoutes(singlePool, singleRoutes), hostRoutes(manyPool, restartMany),
	} {
		for _, r := range list {
			if seen[r] || !strings.HasPrefix(r, "100.") {
				t.Fatalf("%s", r)
			}
			seen[r] = true
		}
	}
}

// vppFIBText is what VPP 26.06 prints, with a table of a probe's behind the default one.
const vppFIBText = `ipv4-VRF:0, fib_index:0, flow hash:[src dst sport dport proto flowlabel ] epoch:0 flags:none locks:[adjacency:1, default-route:1, rlr:10001, ]
0.0.0.0/0
  unicast-ip4-chain
  [@0]: dpo-load-balance: [proto:ip4 index:1 buckets:1 uRPF:0 to:[3:180]]
    [0] [@0]: dpo-drop ip4
100.64.0.0/32
  unicast-ip4-chain
  [@0]: dpo-load-balance: [proto:ip4 index:31 buckets:1 uRPF:43 to:[2:100]]
    [0] [@5]: ipv4 via 10.12.0.2 core12: mtu:1500 next:5 flags:[] 02aabbccddee02aabbccddff0800
100.64.0.1/32
  unicast-ip4-chain
  [@0]: dpo-load-balance: [proto:ip4 index:32 buckets:1 uRPF:44 to:[1:50] via:[7:350]]
    [0] [@12]: dpo-load-balance: [proto:ip4 index:20 buckets:1 uRPF:21 to:[9:90]]
          [0] [@5]: ipv4 via 10.12.0.2 core12: mtu:1500 next:5 flags:[] 02aabbccddee02aabbccddff0800
ipv4-VRF:4294967295, fib_index:1, flow hash:[src dst sport dport proto flowlabel ] epoch:0 flags:none locks:[API:1, ]
100.64.0.0/32
  unicast-ip4-chain
  [@0]: dpo-load-balance: [proto:ip4 index:77 buckets:1 uRPF:43 to:[0:0]]
    [0] [@0]: dpo-drop ip4
`

func TestParseVPPFIB(t *testing.T) {
	got := parseVPPFIB(vppFIBText)
	want := map[string]vppRoute{"0.0.0.0/0": {1, 3}, "100.64.0.0/32": {31, 2}, "100.64.0.1/32": {32, 1}}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for p, r := range want {
		if got[p] != r {
			t.Errorf("%s: %v", p, got[p])
		}
	}
}

// Each witness alone gives a route away that was deleted and added.
func TestKept(t *testing.T) {
	before := map[string]vppRoute{"a": {31, 1}, "b": {32, 1}, "idle": {33, 0}}
	for name, tc := range map[string]struct {
		after  map[string]vppRoute
		routes string
		want   string
	}{
		"same":           {map[string]vppRoute{"a": {31, 1}, "b": {32, 5}}, "a b", ""},
		"another object": {map[string]vppRoute{"a": {40, 1}, "b": {32, 1}}, "a b", "was 31 and is 40"},
		"same index":     {map[string]vppRoute{"a": {31, 0}, "b": {32, 1}}, "a b", "had forwarded 1 packets, and now 0"},
		"gone":           {map[string]vppRoute{"a": {31, 1}}, "a b", "b is not in VPP"},
		"no witness":     {map[string]vppRoute{"idle": {33, 0}}, "idle", "forwarded no packet before"},
	} {
		n, err := kept(before, tc.after, strings.Fields(tc.routes))
		says(t, name, err, tc.want)
		if err == nil && n != len(strings.Fields(tc.routes)) {
			t.Errorf("%s: %d", name, n)
		}
	}
}

func TestTracedRoutes(t *testing.T) {
	const dump = `vl_api_control_ping_t:
vl_api_ip_route_add_del_t:
  is_add: 1
vl_api_ip_route_add_del_v2_t:
  is_add: 0
vl_api_ip_route_v2_dump_t:
`
	if n := tracedRoutes(dump); n != 2 {
		t.Errorf("%d", n)
	}
}

func TestSameRoutes(t *testing.T) {
	rows := func(text string) []ctl.Route { return decodeRows[[]ctl.Route](t, text) }
	const one = `{"prefix":"100.64.0.0/32","state":"installed","paths":[{"nexthop":"10.12.0.2","interface":"core12","best":true}]}`
	for name, tc := range map[string]struct{ after, want string }{
		"same":    {"[" + one + "]", ""},
		"state":   {"[" + strings.Replace(one, "installed", "stale", 1) + "]", `is "stale 10.12.0.2 core12"`},
		"way":     {"[" + strings.Replace(one, "core12", "core13", 1) + "]", `is "installed 10.12.0.2 core13"`},
		"missing": {"[]", `is ""`},
		"more":    {"[" + one + "," + strings.Replace(one, "64", "65", 1) + "]", "there were 1 routes, and now 2"},
	} {
		says(t, name, sameRoutes(rows("["+one+"]"), rows(tc.after)), tc.want)
	}
}

func TestJudgeLatency(t *testing.T) {
	for name, tc := range map[string]struct {
		l        ctl.Latency
		measured uint64
		want     string
	}{
		"good":     {ctl.Latency{MedianMs: 0.9, P99Ms: 4}, singleKept, ""},
		"few":      {ctl.Latency{MedianMs: 0.9, P99Ms: 4}, singleKept - 1, "router1 measured 511 of 560 routes"},
		"slow":     {ctl.Latency{MedianMs: 2, P99Ms: 4}, singleRoutes, "is wanted"},
		"outliers": {ctl.Latency{MedianMs: 0.9, P99Ms: 10}, singleRoutes, "is wanted"},
	} {
		p := &play{metrics: make(map[string]float64)}
		_, err := p.judgeLatency(tc.l, tc.measured, singleRoutes)
		says(t, name, err, tc.want)
	}
}

func TestStreamsJudge(t *testing.T) {
	ping := func(answered, latest int) *stream {
		return &stream{replies: make([]time.Time, answered), latest: latest}
	}
	for name, tc := range map[string]struct {
		there, back *stream
		want        string
	}{
		"all":  {ping(600, 600), ping(500, 500), ""},
		"lost": {ping(600, 601), ping(500, 500), "of 1101 pings 1 were lost"},
		"few":  {ping(500, 500), ping(499, 499), fmt.Sprint(streamMin)},
	} {
		_, err := restartStreams{there: tc.there, back: tc.back}.judge(time.Second, time.Time{})
		says(t, name, err, tc.want)
	}
}

func TestArrivedPackets(t *testing.T) {
	m := arrivedPackets.FindStringSubmatch(`100.64.0.0/10 fib:0 index:20 locks:2
  rlr refs:1 entry-flags:drop, src-flags:added,contributing,active,
 forwarding:   unicast-ip4-chain
  [@0]: dpo-load-balance: [proto:ip4 index:22 buckets:1 uRPF:25 to:[200000:10000000]]
    [0] [@0]: dpo-drop ip4
`)
	if m == nil || m[1] != "200000" {
		t.Errorf("%v", m)
	}
}
