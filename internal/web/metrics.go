package web

import (
	"context"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rlr/internal/ctl"
)

// Figures are what /metrics tells, as `rlr show` has it.
type Figures struct {
	Status     ctl.Status
	Interfaces []ctl.Interface
	BGP        []ctl.BGPSession
	BFD        []ctl.BFDSession
	WireGuard  []ctl.WireGuard
}

// metrics answers in Prometheus' formats. Labels are names of the configuration, so that there are no more series than it has
// lines; what the router is made of is told by the collectors for Go programs.
func metrics(look func(context.Context) (Figures, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		f, err := look(req.Context())
		if err != nil {
			http.Error(w, "the router cannot tell its figures", http.StatusServiceUnavailable)
			return
		}
		reg := prometheus.NewRegistry()
		reg.MustRegister(figures{f}, runtimeCollector, processCollector)
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, req)
	}
}

var (
	runtimeCollector = collectors.NewGoCollector()
	processCollector = collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
)

// figures is a prometheus.Collector of one answer.
type figures struct{ Figures }

// Describe implements prometheus.Collector. It describes nothing, because what there is depends on the router's state.
func (figures) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f figures) Collect(out chan<- prometheus.Metric) {
	s := f.Status
	router := series{out: out}
	router.gauge("rlr_info", "The router's version and dataplane", 1, "version", s.Version, "dataplane", s.Dataplane.Kind, "dataplane_version", s.Dataplane.Version)
	router.gauge("rlr_uptime_seconds", "Time since the router started", s.UptimeS)
	router.gauge("rlr_memory_bytes", "Resident memory", float64(s.RSSBytes), "part", "router")
	if s.Dataplane.RSSBytes > 0 {
		router.gauge("rlr_memory_bytes", "Resident memory", float64(s.Dataplane.RSSBytes), "part", "vpp")
	}
	router.gauge("rlr_dataplane_up", "Whether the dataplane is connected", truth(s.Dataplane.State == "connected"))
	router.counter("rlr_dataplane_restarts_total", "Restarts of the dataplane since the router started", float64(s.Dataplane.Restarts))
	f.collectRoutes(router)
	f.collectInterfaces(out)
	f.collectSessions(out)
	for _, w := range f.WireGuard {
		link := series{out, []string{"interface", w.Name}}
		link.counter("rlr_wireguard_receive_bytes_total", "Bytes received from the WireGuard peer", float64(w.RxBytes))
		link.counter("rlr_wireguard_transmit_bytes_total", "Bytes sent to the WireGuard peer", float64(w.TxBytes))
		if w.HandshakeAgeS >= 0 {
			link.gauge("rlr_wireguard_handshake_age_seconds", "Time since the latest handshake with the WireGuard peer; absent before the first", w.HandshakeAgeS)
		}
	}
}

func (f figures) collectRoutes(router series) {
	for _, state := range []string{"installed", "queued", "pending", "failed", "shadowed", "stale"} {
		router.gauge("rlr_routes", "Routes by what became of them in the dataplane", float64(f.Status.FIB.States[state]), "state", state)
	}
	fib := f.Status.FIB
	for result, n := range map[string]uint64{"written": fib.Written, "deleted": fib.Deleted, "refused": fib.Refused, "unanswered": fib.Unanswered} {
		router.counter("rlr_route_operations_total", "Routes that the dataplane was asked to take, by its answer", float64(n), "result", result)
	}
	for kind, n := range map[string]uint64{"missing": fib.Drift.Missing, "changed": fib.Drift.Changed, "extra": fib.Drift.Extra} {
		router.counter("rlr_route_drift_total", "Routes that were not in the dataplane as they should be, and were put right", float64(n), "kind", kind)
	}
	if fib.Latency.Count > 0 {
		const what = "Time from a neighbor's UPDATE to the dataplane's confirmation, of the latest 512 single routes: "
		router.gauge("rlr_route_latency_median_seconds", what+"the median", fib.Latency.MedianMs/1000)
		router.gauge("rlr_route_latency_p99_seconds", what+"the 99th percentile", fib.Latency.P99Ms/1000)
	}
}

func (f figures) collectInterfaces(out chan<- prometheus.Metric) {
	for _, i := range f.Interfaces {
		of := series{out, []string{"interface", i.Name}}
		of.gauge("rlr_interface_up", "Whether the interface's link is up", truth(i.Admin && i.Link), "kind", i.Kind)
		of.counter("rlr_interface_receive_bytes_total", "Bytes received", float64(i.RxBytes))
		of.counter("rlr_interface_receive_packets_total", "Packets received", float64(i.RxPackets))
		of.counter("rlr_interface_receive_errors_total", "Packets that could not be received", float64(i.RxErrors))
		of.counter("rlr_interface_transmit_bytes_total", "Bytes sent", float64(i.TxBytes))
		of.counter("rlr_interface_transmit_packets_total", "Packets sent", float64(i.TxPackets))
		of.counter("rlr_interface_transmit_errors_total", "Packets that could not be sent", float64(i.TxErrors))
		of.counter("rlr_interface_drops_total", "Packets that the dataplane dropped", float64(i.Drops))
	}
}

func (f figures) collectSessions(out chan<- prometheus.Metric) {
	for _, b := range f.BGP {
		of := series{out, []string{"neighbor", b.Name}}
		of.gauge("rlr_bgp_session_up", "Whether the BGP session is Established", truth(b.State == "Established"), "as", strconv.FormatUint(uint64(b.AS), 10))
		of.gauge("rlr_bgp_session_uptime_seconds", "Time since the BGP session was established; 0 while it is not", b.UptimeS)
		of.counter("rlr_bgp_session_flaps_total", "Ends of established BGP sessions", float64(b.Flaps))
		of.counter("rlr_bgp_malformed_updates_total", "UPDATEs whose routes were taken as withdrawn (RFC 7606)", float64(b.Malformed))
		if b.Uncounted {
			continue
		}
		of.gauge("rlr_bgp_prefixes_received", "Prefixes that the neighbor has announced", float64(b.Received))
		of.gauge("rlr_bgp_prefixes_accepted", "Of these, what passed the import policy", float64(b.Accepted))
		of.gauge("rlr_bgp_prefixes_advertised", "Prefixes that we have announced to the neighbor", float64(b.Advertised))
	}
	for _, b := range f.BFD {
		series{out, []string{"neighbor", b.Neighbor, "interface", b.Interface}}.gauge("rlr_bfd_session_up", "Whether the BFD session is up", truth(b.State == "up"))
	}
}

// series are metrics with some labels in common.
type series struct {
	out    chan<- prometheus.Metric
	labels []string // names and values
}

func (s series) gauge(name, help string, value float64, labels ...string) {
	s.put(prometheus.GaugeValue, name, help, value, labels)
}

func (s series) counter(name, help string, value float64, labels ...string) {
	s.put(prometheus.CounterValue, name, help, value, labels)
}

func (s series) put(kind prometheus.ValueType, name, help string, value float64, more []string) {
	var names, values []string
	for _, l := range [][]string{s.labels, more} {
		for i := 0; i < len(l); i += 2 {
			names, values = append(names, l[i]), append(values, l[i+1])
		}
	}
	s.out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
