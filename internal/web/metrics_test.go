package web

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"rlr/internal/ctl"
)

var update = flag.Bool("update", false, "write the golden files anew")

func someFigures(context.Context) (Figures, error) {
	return Figures{
		Status: ctl.Status{
			Version: "v1", UptimeS: 90.5, RSSBytes: 45 << 20,
			Dataplane: ctl.DataplaneStatus{Kind: "vpp", State: "connected", Version: "26.06-release", RSSBytes: 100 << 20, Restarts: 2},
			FIB: ctl.FIBStatus{
				States: map[string]int{"installed": 1200, "failed": 3}, Written: 1300, Deleted: 97, Refused: 3,
				Drift: ctl.Drift{Missing: 1}, Latency: ctl.Latency{Count: 9, MedianMs: 0.8, P99Ms: 3.5},
			},
		},
		Interfaces: []ctl.Interface{
			{Name: "tun12", Kind: "wireguard", Admin: true, Link: true, RxBytes: 1000, RxPackets: 10, TxBytes: 2000, TxPackets: 20, Drops: 1},
			{Name: "eth0", Kind: "memif", Admin: true},
		},
		BGP: []ctl.BGPSession{
			{Name: "alice", AS: 4242420001, State: "Established", UptimeS: 60, Received: 700, Accepted: 690, Advertised: 4, Flaps: 1},
			{Name: "bob", AS: 4242420002, State: "Active", Uncounted: true},
		},
		BFD: []ctl.BFDSession{{Neighbor: "alice", Interface: "tun12", State: "up"}},
		WireGuard: []ctl.WireGuard{
			{Name: "tun12", RxBytes: 5000, TxBytes: 6000, HandshakeAgeS: 12.5, PeerKey: "secret-no-but-nobody's-business"},
			{Name: "tun13", HandshakeAgeS: -1},
		},
	}, nil
}

// /metrics is as Prometheus wants it, and as it was before.
func TestMetrics(t *testing.T) {
	r := start(t, Options{Healthy: checks(fine), Ready: checks(fine), Figures: someFigures})
	for range 2 { // the second scrape is as good as the first
		res, body := r.ask(http.MethodGet, "/metrics", "")
		if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
			t.Fatalf("%s, %s\n%s", res.Status, res.Header.Get("Content-Type"), body)
		}
		problems, err := promlint.New(strings.NewReader(body)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		var ours []string
		for line := range strings.Lines(body) {
			if strings.Contains(line, "rlr_") {
				ours = append(ours, line)
			}
		}
		if len(ours) == strings.Count(body, "\n") {
			t.Error("nothing is told of the process")
		}
		golden(t, strings.Join(ours, ""))
	}
}

func golden(t *testing.T, got string) {
	t.Helper()
	const path = "testdata/metrics.golden"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test -update writes it anew)\n--- want\n%s--- got\n%s", path, want, got)
	}
}

func TestNoMetrics(t *testing.T) {
	r := start(t, Options{Healthy: checks(fine), Ready: checks(fine), Figures: func(context.Context) (Figures, error) {
		return Figures{}, errors.New("10.1.0.1 is nobody's business")
	}})
	if res, body := r.ask(http.MethodGet, "/metrics", ""); res.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "10.1") {
		t.Errorf("%s: %q", res.Status, body)
	}
}
