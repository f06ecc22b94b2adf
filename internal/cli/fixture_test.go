package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/internal/ctl"
	"rlr/internal/peering"
)

// result is what a command line did.
type result struct {
	code           int
	stdout, stderr string
}

// rlr runs a command line.
func rlr(t *testing.T, args ...string) result {
	t.Helper()
	return rlrInput(t, "", args...)
}

func rlrInput(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := Main(t.Context(), args, commands(), strings.NewReader(stdin), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// commands are the injected actions, canned.
func commands() Commands {
	return Commands{
		Version: "1.2.3",
		Run: func(_ context.Context, config string) error {
			if config == "broken.yaml" {
				return errors.New("run broken.yaml: no dataplane")
			}
			if config == "wrong.yaml" {
				return Problems{{File: config, Line: 3, Column: 7, Message: "AS 0"}, {File: config, Message: "too big"}}
			}
			return nil
		},
		Check: func(config string) ([]byte, []Problem) {
			if config == "broken.yaml" {
				return nil, []Problem{
					{File: config, Line: 3, Column: 7, Message: `unknown key "colour": did you mean "color"?`},
					{File: config, Message: "too big"},
				}
			}
			return []byte("router: {name: router1}\n"), nil
		},
		Doctor: func() []Finding {
			return []Finding{
				{Subject: "privileges", Value: "uid 1000, 0 capabilities", OK: true, Consequence: "none are needed"},
				{Subject: "memory", Value: "32 MiB", Consequence: "the kernel may kill the router", Cure: "give it at least 64 MiB"},
			}
		},
		Peerings: func(config string) ([]peering.Peering, error) {
			if config == "wrong.yaml" {
				return nil, Problems{{File: config, Line: 3, Column: 7, Message: "AS 0"}}
			}
			return twoPeerings(), nil
		},
		NewPrivateKey:   func() (string, error) { return "PRIVATE=", nil },
		NewPresharedKey: func() (string, error) { return "SHARED=", nil },
		PublicKey: func(private string) (string, error) {
			if private != "PRIVATE=" {
				return "", errors.New("not a key")
			}
			return "PUBLIC=", nil
		},
		Lab: &Lab{
			List: func() []LabScenario {
				return []LabScenario{
					{
						Name: "link-local", Summary: "The same fe80::1 on two tunnels",
						Routers: []string{"router1", "router2", "router3"}, Links: []string{}, Checks: []string{"sessions"},
					},
					{
						Name: "three-sites", Summary: "Three sites, three tunnels", Running: true,
						Routers: []string{"router1", "server1"}, Links: []string{"tun12", "tun13"}, Checks: []string{"sessions", "routes"},
					},
				}
			},
			Run: func(_ context.Context, r LabRun) (bool, error) {
				_, err := io.WriteString(r.Out, "run "+r.Name+" on "+r.Dataplane+" without "+r.Sabotage+"\n")
				return r.Sabotage == "", err
			},
			Up: func(_ context.Context, r LabRun) (LabState, error) {
				return LabState{
					Scenario: r.Name, Dir: "/run/lab", Links: []string{"tun12", "tun13"},
					Routers: []LabRouter{{Name: "router1", PID: 12, Config: "/run/lab/router1.yaml", Log: "/run/lab/router1.log"}},
				}, nil
			},
			Down:  func(context.Context, string) error { return nil },
			Cut:   func(context.Context, string, string) error { return nil },
			Heal:  func(context.Context, string, string) error { return nil },
			Relay: func(context.Context, string) error { return nil },
			Exec:  func(args []string) error { return errors.New("executed " + strings.Join(args, " ")) },
		},
	}
}

// twoPeerings are one whose endpoint the configuration tells, and one that it does not.
func twoPeerings() []peering.Peering {
	session := peering.Session{
		Ours: netip.MustParseAddr("fe80::207"), Theirs: netip.MustParseAddr("fe80::1"), Bits: 64,
		Families: []string{"ipv4", "ipv6"}, Policy: peering.DN42Policy, Link: peering.Link{Crypto: 34},
	}
	us := peering.Side{Name: "router1", AS: 4242420207, PublicKey: "OURS=", Port: 20001, Endpoint: "203.0.113.1:20001"}
	alice := peering.Peering{
		Interface: "alice", Neighbors: []string{"alice"}, Us: us, MTU: 1420, Keepalive: 25 * time.Second,
		Them: peering.Side{
			Name: "alice", AS: 4242420001, PublicKey: "ALICE=", KeyFile: "alice.key", PSKFile: "alice.psk", Port: 20207,
			Endpoint: "alice.example.net:20207", Loopback: "dum0",
		},
		Sessions: []peering.Session{session},
	}
	bob := alice
	bob.Interface, bob.Neighbors = "tun-bob", []string{"bob"}
	bob.Us.Port, bob.Us.Endpoint = 0, ""
	bob.Them = peering.Side{Name: "bob", AS: 4242420002, PublicKey: "BOB=", KeyFile: "bob.key"}
	return []peering.Peering{alice, bob}
}

// runtimeDir gives the test a runtime directory with a short path.
func runtimeDir(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv(ctl.RuntimeEnv, filepath.Join(dir, "rlr"))
}

// router runs a control socket with canned answers.
func router(t *testing.T, name string, h ctl.Handlers) *ctl.Claim {
	t.Helper()
	claim, err := ctl.NewClaim(name)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := ctl.NewServer(claim, "1.2.3", h, logrus.NewEntry(log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); claim.Close() })
	return claim
}

func rows[R any](r ...R) func(context.Context) ([]R, error) {
	return func(context.Context) ([]R, error) { return r, nil }
}

// handlers answer as router1 of three-sites would, with one of everything that a renderer treats specially.
func handlers() ctl.Handlers {
	return ctl.Handlers{
		Status: func(context.Context) (ctl.Status, error) {
			return ctl.Status{
				Name: "router1", Version: "1.2.3", AS: 65001, RouterID: "10.1.0.1", PID: 4711, Config: "/etc/rlr/router1.yaml",
				Dataplane: ctl.DataplaneStatus{
					Kind: "embedded", State: "connected", Version: "minivpp 1.2.3", PID: 4711,
					APISocket: "/run/rlr/router1/api.sock", UptimeS: 3725,
				},
				FIB: ctl.FIBStatus{
					Decoupled: true, DecoupledS: 61, Synced: true, States: map[string]int{"installed": 2, "queued": 1, "failed": 1, "pending": 1},
					Learned: 1, Bytes: 700, BytesPerRoute: 140, Dumps: 3, Audits: 1, AuditEveryS: 60,
					Latency: ctl.Latency{Count: 40, MedianMs: 0.8, P99Ms: 3.25, MaxMs: 12},
					Drift:   ctl.Drift{Missing: 2, Changed: 1, LastAgoS: 5, First: []string{"10.2.0.0/24"}},
				},
				UptimeS: 3726.25, Routes: 5, Sessions: ctl.SessionCount{Total: 2, Established: 1}, RSSBytes: 33 << 20, CPUS: 1.25,
			}, nil
		},
		Interfaces: rows(
			ctl.Interface{
				Name: "eth0", Dataplane: "memif1/0", SwIfIndex: 1, Kind: "memif", Admin: true, Link: true, MTU: 1500, VRF: "default",
				MAC: "02:00:00:00:00:01", Addresses: []string{"10.1.0.1/24"}, RxPackets: 12, RxBytes: 1200, TxPackets: 1 << 40,
				TxBytes: 5 << 30, State: "ok",
			},
			ctl.Interface{
				Name: "tun12", Dataplane: "memif2/0", SwIfIndex: 2, Kind: "wireguard", Admin: true, MTU: 1420, VRF: "default",
				Addresses: []string{"169.254.12.1/30", "fe80::1/64"}, Drops: 3, State: "ok",
			},
			ctl.Interface{
				Name: "tun13", Kind: "wireguard", Addresses: []string{}, Unnumbered: "dum0", State: "failed", Error: "no memif\x1b[2J socket",
			},
		),
		Neighbors: rows(
			ctl.Neighbor{Address: "10.1.0.2", MAC: "02:00:00:00:00:02", Interface: "eth0", AgeS: 12},
			ctl.Neighbor{Address: "fe80::2", MAC: "02:00:00:00:00:03", Interface: "tun12", Static: true},
		),
		Protocols: rows(
			ctl.Protocol{Name: "direct", Proto: "direct", Table: "default", State: "up", SinceS: 100, Routes: 3},
			ctl.Protocol{Name: "static", Proto: "static", Table: "default", State: "up", SinceS: 100},
			ctl.Protocol{Name: "router2", Proto: "bgp", Table: "default", State: "up", SinceS: 90000, Info: "Established", Routes: 2},
			ctl.Protocol{Name: "router3", Proto: "bgp", Table: "default", State: "start", SinceS: 7, Info: "Active"},
		),
		BGP: rows(sessions()...),
		WireGuard: rows(
			ctl.WireGuard{
				Name: "tun12", PublicKey: "AAA=", Listen: "127.0.0.1:51812", PeerKey: "BBB=", PresharedKey: true,
				Endpoint: "127.0.0.1:51821", HandshakeAgeS: 61, RxBytes: 2048, TxBytes: 100, KeepaliveS: 25, DataplaneDrops: 2,
			},
			ctl.WireGuard{Name: "tun13", PublicKey: "CCC=", PeerKey: "DDD=", HandshakeAgeS: -1},
		),
		BFD: rows(
			ctl.BFDSession{Neighbor: "router2", Interface: "tun12", Local: "169.254.12.1", Peer: "169.254.12.2", State: "up", SinceS: 4000, IntervalMs: 50, Multiplier: 3},
			ctl.BFDSession{Neighbor: "alice", Interface: "tun13", Local: "fe80::1", Peer: "fe80::2", State: "down", SinceS: 3, IntervalMs: 12.5, Multiplier: 5},
			ctl.BFDSession{Neighbor: "bob", Local: "10.1.0.1", Peer: "10.9.0.1", State: "failed", SinceS: 1, IntervalMs: 300, Multiplier: 3, Error: "10.9.0.1 is on the link of no interface"},
		),
		ACL: rows(
			ctl.ACL{Name: "no8080", State: "ok", In: []string{"eth0", "tun12"}, Out: []string{"tun12"}, Rules: []ctl.ACLRule{
				{Number: 1, Action: "deny", Protocol: "tcp", DestinationPort: "8080", Packets: at(uint64(12)), Bytes: at(uint64(720))},
				{Number: 2, Action: "permit", Packets: at(uint64(1234567)), Bytes: at(uint64(98765432))},
			}},
			ctl.ACL{Name: "lan", State: "failed", Error: "acl_add_replace: VPPApiError: Invalid value (-12)", In: []string{}, Out: []string{}, Rules: []ctl.ACLRule{
				{Number: 1, Action: "reflect", Protocol: "tcp", Source: "10.1.0.0/24", SourcePort: "1024-65535", TCPFlags: []string{"syn", "no-ack"}},
				{Number: 2, Action: "permit", Protocol: "icmp6", Destination: "fd42::/16", ICMPType: "128", ICMPCode: "0"},
			}},
		),
		Errors: rows(
			ctl.ErrorRecord{Subsystem: "bgp", Object: "router3", Error: "dial: connection refused", Count: 12, LastAgoS: 3},
			ctl.ErrorRecord{Subsystem: "vppagent", Error: "tun13: no memif", Count: 1, LastAgoS: 4000},
		),
		Routes:     routes,
		RouteCount: countRoutes,
		FIB:        fib,
		ROA:        roaStatus,
		ROAs:       roas,
		Log:        logLines,
		Ping:       ping,
		Traceroute: traceroute,
		VPPCtl: func(_ context.Context, r ctl.VPPCtlRequest) (ctl.VPPCtlResult, error) {
			return ctl.VPPCtlResult{Output: "vpp# " + r.Line}, nil
		},
		Neighbor: func(_ context.Context, r ctl.NeighborRequest) (ctl.Done, error) {
			if r.Name != "router2" {
				return ctl.Done{}, ctl.NotFound("no BGP neighbour %q", r.Name)
			}
			msg := r.Name + ": " + r.Action
			if r.Soft {
				msg += strings.TrimSuffix(" (soft "+r.Direction, " ") + ")"
			}
			return ctl.Done{Message: msg}, nil
		},
		FIBDo:      fibDo,
		PolicyTest: policyTest,
		Reload: func(context.Context) (ctl.Done, error) {
			return ctl.Done{Message: "2 changes", Changes: []string{"neighbor router3: added", "interface eth1: removed"}}, nil
		},
	}
}

func policyTest(_ context.Context, r ctl.PolicyRequest, emit func(ctl.PolicyResult) error) error {
	if r.Neighbor != "router2" {
		return ctl.NotFound("no BGP neighbour %q", r.Neighbor)
	}
	before := ctl.PolicyRoute{
		ASPath: "65002", NextHop: "169.254.12.2", Origin: "igp", MED: 5, Communities: []string{"65001:1"}, LargeCommunities: []string{},
	}
	after := before
	after.LocalPref, after.Communities = 200, []string{"65001:1", "no-export"}
	there := false
	in := ctl.PolicyResult{
		Prefix: r.Prefix, Neighbor: r.Neighbor, Direction: "import", From: "router2", Accepted: true, Policy: "customers", Rule: 3, RuleName: "ours",
		Reason: "it matches: prefix mine", Validity: "unknown", Before: before, After: after, InTable: &there,
		Rules: []ctl.PolicyRule{
			{Policy: "customers", Rule: 1, Asks: "as-path length 6 or more", Why: "it does not have as-path length 6 or more"},
			{Policy: "customers", Rule: 2, Name: "preferred", Asks: "community 65001:1", Matched: true, Action: "continue", Changes: []string{"local-pref none → 200", "community no-export added"}},
			{Policy: "customers", Rule: 3, Name: "ours", Asks: "prefix mine", Matched: true, Action: "accept"},
		},
	}
	out := ctl.PolicyResult{
		Prefix: r.Prefix, Neighbor: r.Neighbor, Direction: "export", Supposed: true, Policy: "none",
		Reason: "an external neighbor without export passes nothing (RFC 8212)", Validity: "valid", Before: ctl.PolicyRoute{ASPath: "", NextHop: "0.0.0.0"}, After: ctl.PolicyRoute{},
		Blocked: "there is no session",
		Rules:   []ctl.PolicyRule{{Policy: "none", Name: "end of the policy", Matched: true, Action: "reject"}},
	}
	for _, one := range []ctl.PolicyResult{in, out} {
		if r.Direction != "" && r.Direction != one.Direction {
			continue
		}
		if err := emit(one); err != nil {
			return err
		}
	}
	return nil
}

func fibDo(_ context.Context, r ctl.FIBRequest) (ctl.FIBResult, error) {
	switch r.Action {
	case ctl.FIBDecouple:
		return ctl.FIBResult{Decoupled: true, Message: "decoupled: what the dataplane holds stays"}, nil
	case ctl.FIBCouple:
		return ctl.FIBResult{Message: "coupled", Read: true, Held: 4}, nil
	}
	return ctl.FIBResult{
		Message: "compared", Decoupled: true, Read: true, Held: 4, Missing: 7, Changed: 5, Extra: 1, Stale: 2, Repaired: 9, Failed: 2, Waiting: 2,
		Differences: []ctl.FIBDifference{
			{Prefix: "10.2.0.0/24", Table: "default", What: "missing", State: "installed"},
			{Prefix: "10.3.0.0/24", Table: "default", What: "changed", State: "failed", Error: "no room"},
			{Prefix: "10.4.0.0/24", Table: "default", What: "extra", State: "removed"},
		},
	}, nil
}

func sessions() []ctl.BGPSession {
	return []ctl.BGPSession{
		{
			Name: "router2", Address: "169.254.12.2", Interface: "tun12", LocalAddr: "169.254.12.1", AS: 65002, State: "Established",
			UptimeS: 90000, Received: 2, Accepted: 2, Advertised: 3, Families: []string{"ipv4", "ipv6"}, HoldTimeS: 30, KeepaliveS: 10,
			RouterID: "10.2.0.1", VRF: "default", GracefulRestart: &ctl.GracefulRestart{
				Mode: "on", State: ctl.GracefulNegotiated, Restarter: true, PeerFamilies: []string{"ipv4", "ipv6"}, PeerRestartS: 120, PeerLongLivedS: 3600,
			},
			AddPath: "both", Role: "customer", Leaks: 2, Malformed: 1, MaxPrefix: []ctl.PrefixLimit{
				{Family: "ipv4", Limit: 210000, Action: "block", Prefixes: 210000, Blocked: 7, Reached: true},
				{Family: "ipv6", Limit: 9000, Action: "warn", Prefixes: 12},
			},
		},
		{
			Name: "router3", Address: "fe80::2", Interface: "tun13", AS: 4242420001, State: "Active",
			LastError: "Hold Timer Expired", Families: []string{"ipv4"}, Flaps: 1, VRF: "default",
			GracefulRestart: &ctl.GracefulRestart{Mode: "helper", State: ctl.GracefulHelping, PeerFamilies: []string{"ipv4"}, PeerRestartS: 120, HelpingS: 8, Stale: 2},
		},
		{Name: "old", Address: "10.9.9.9", AS: 65009, State: "Idle", Disabled: true, VRF: "default"},
		{
			Name: "transit", Address: "10.8.8.8", AS: 65008, State: "Established", UptimeS: 300, Received: 210000, Accepted: 210000,
			HoldTimeS: 90, KeepaliveS: 30, Families: []string{"ipv4"}, VRF: "default", CountsAgeS: 12.5,
		},
		{Name: "transit2", Address: "10.8.8.9", AS: 65008, State: "Established", UptimeS: 2, Families: []string{"ipv4"}, VRF: "default", Uncounted: true},
	}
}

func cannedRoutes() []ctl.Route {
	direct := func(p, dev string) ctl.Route {
		return ctl.Route{Prefix: p, Table: "default", State: "installed", Paths: []ctl.Path{
			{Protocol: "direct", Interface: dev, Best: true, Preference: 240, AgeS: 100, Communities: []string{}, Weight: 1},
		}}
	}
	return []ctl.Route{
		direct("10.1.0.0/24", "eth0"),
		{Prefix: "10.2.0.0/24", Table: "default", State: "installed", Paths: []ctl.Path{
			{
				Protocol: "bgp", Neighbor: "router2", NextHop: "169.254.12.2", Interface: "tun12", Best: true, Preference: 100,
				ASPath: "65002", ROA: "valid", Origin: "IGP", LocalPref: 100, MED: 5, Communities: []string{"65001:1", "no-export"},
				Large: []string{"65001:1:2"}, Weight: 1, AgeS: 72,
			},
			{
				Protocol: "bgp", Neighbor: "router3", NextHop: "169.254.13.2", Interface: "tun13", Preference: 100,
				ASPath: "65003 65002", Origin: "IGP", Communities: []string{}, Weight: 1, AgeS: 70, Stale: true,
			},
		}},
		{Prefix: "172.20.1.0/27", Table: "default", State: "queued", Paths: []ctl.Path{
			{Protocol: "static", Kind: "blackhole", Best: true, Preference: 200, Communities: []string{}, AgeS: 1},
		}},
		{Prefix: "10.9.0.0/16", Table: "blue", State: "failed", Error: "no such table", Paths: []ctl.Path{
			{Protocol: "static", NextHop: "10.1.0.9", Interface: "eth1", Best: true, Preference: 200, Communities: []string{}, Weight: 2},
			{Protocol: "static", NextHop: "10.1.0.10", Interface: "eth1", Best: true, Preference: 200, Communities: []string{}, Weight: 1},
		}},
		{Prefix: "2001:db8:1234:5678::/64", Table: "blue", State: "pending", Paths: []ctl.Path{
			{Protocol: "bgp", Neighbor: "spine", NextHop: "fe80::2", Interface: "eth1", Best: true, Preference: 100, Communities: []string{}},
		}},
	}
}

func chooseRoutes(f ctl.RouteFilter) []ctl.Route {
	var out []ctl.Route
	for _, r := range cannedRoutes() {
		switch {
		case f.Failed && r.State != "failed", f.Table != "" && r.Table != f.Table:
		case f.Prefix.IsValid() && r.Prefix != f.Prefix.String(), f.For.IsValid() && r.Prefix != "10.2.0.0/24":
		case f.Protocol != "" && r.Paths[0].Neighbor != f.Protocol && r.Paths[0].Protocol != f.Protocol:
		default:
			out = append(out, r)
		}
	}
	return out
}

func routes(_ context.Context, f ctl.RouteFilter, emit func(ctl.Route) error) error {
	for _, r := range chooseRoutes(f) {
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}

func countRoutes(_ context.Context, f ctl.RouteFilter) (ctl.RouteCount, error) {
	var n ctl.RouteCount
	for _, r := range chooseRoutes(f) {
		n.Routes++
		n.Paths += len(r.Paths)
		if r.State == "installed" {
			n.Installed++
		}
	}
	return n, nil
}

func fib(_ context.Context, f ctl.FIBFilter, emit func(ctl.FIBEntry) error) error {
	for _, e := range []ctl.FIBEntry{
		{Prefix: "0.0.0.0/0", Table: "default", Source: "default-route", Paths: []ctl.FIBPath{{Type: "drop", Weight: 1}}},
		{Prefix: "10.1.0.0/24", Table: "default", Source: "interface", Paths: []ctl.FIBPath{{Type: "normal", Interface: "eth0", Weight: 1}}},
		{Prefix: "10.2.0.0/24", Table: "default", Source: "rlr", Paths: []ctl.FIBPath{
			{Type: "normal", NextHop: "169.254.12.2", Interface: "tun12", Weight: 1},
			{Type: "normal", NextHop: "169.254.13.2", Interface: "tun13", Weight: 2},
			{Type: "normal", NextHop: "169.254.23.2", Interface: "tun23", Weight: 1, Backup: true},
		}},
		{Prefix: "::/0", Table: "blue", Source: "default-route"},
	} {
		if f.Prefix.IsValid() && f.Prefix.String() != e.Prefix {
			continue
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	return nil
}

func logLines(_ context.Context, f ctl.LogFilter, emit func(ctl.LogRecord) error) error {
	for i, r := range []ctl.LogRecord{
		{Time: "2026-01-02T03:04:05.000Z", Level: "info", Message: "session up", Fields: map[string]string{"neighbor": "router2", "subsystem": "bgp"}},
		{Time: "2026-01-02T03:04:06.000Z", Level: "warning", Message: "session\ndown", Fields: map[string]string{"error": "Hold Timer Expired"}},
	} {
		if f.Lines == 1 && i == 0 {
			continue
		}
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}

func ping(_ context.Context, r ctl.ProbeRequest, emit func(ctl.ProbeReply) error) (ctl.ProbeSummary, error) {
	if r.Target == "10.99.0.1" {
		return ctl.ProbeSummary{Sent: 1, LossPercent: 100}, emit(ctl.ProbeReply{Seq: 1, Error: "timeout"})
	}
	for _, p := range []ctl.ProbeReply{
		{Seq: 1, From: r.Target, RTTMs: 0.5, TTL: 62, Bytes: 64},
		{Seq: 2, From: "10.1.0.1", Error: "host unreachable"},
		{Seq: 3, Error: "timeout"},
		{Seq: 4, From: r.Target, RTTMs: 123.456, TTL: 62, Bytes: 64},
	} {
		if err := emit(p); err != nil {
			return ctl.ProbeSummary{}, err
		}
	}
	return ctl.ProbeSummary{Sent: 4, Received: 2, LossPercent: 50, MinMs: 0.5, AvgMs: 61.978, MaxMs: 123.456}, nil
}

func traceroute(_ context.Context, r ctl.ProbeRequest, emit func(ctl.ProbeReply) error) error {
	for _, p := range []ctl.ProbeReply{
		{Hop: 1, From: "10.1.0.1", RTTMs: 0.25, Error: "time exceeded"},
		{Hop: 1, From: "10.1.0.1", RTTMs: 0.2, Error: "time exceeded"},
		{Hop: 2, Error: "timeout"},
		{Hop: 2, From: "169.254.12.2", RTTMs: 1.5, Error: "time exceeded"},
		{Hop: 3, From: r.Target, RTTMs: 2, Final: true},
	} {
		if p.Final && r.Target != "10.2.0.2" {
			p = ctl.ProbeReply{Hop: 3, From: "169.254.12.2", Error: "administratively prohibited", Final: true}
		}
		if err := emit(p); err != nil {
			return err
		}
	}
	return nil
}

func at[T any](v T) *T { return &v }

func roaStatus(context.Context) (ctl.ROAStatus, error) {
	return ctl.ROAStatus{Policy: "strict", IPv4: 2, IPv6: 1, Sources: []ctl.ROASource{
		{Kind: "file", Name: "/etc/rlr/roa.json", State: ctl.ROAOK, Used: true, IPv4: 1, AgeS: at(0.5), Skipped: 2, SkippedBy: "roas[3]: prefix \"x\" is not one"},
		{
			Kind: "url", Name: "https://example.net/roa.json", State: ctl.ROAStale, Used: true, IPv4: 1, AgeS: at(3725.0),
			LastError: "the server answers 503 \x1b[2JService Unavailable", LastErrorAgoS: 12,
		},
		{
			Kind: "rtr", Name: "127.0.0.1:8282", State: ctl.ROAOK, Used: true, Over: "kernel", IPv6: 1, AgeS: at(61.0),
			Serial: at(uint32(0)), Session: at(uint16(7)), Version: at(uint8(1)), ExpiresS: at(7139.0),
		},
		{Kind: "rtr", Name: "172.20.129.4:8282", State: ctl.ROAStandby, Over: "dataplane"},
		{Kind: "rtr", Name: "[fd00::1]:323", State: ctl.ROAFailed, Over: "kernel", LastError: "connect: refused", LastErrorAgoS: 1},
	}}, nil
}

func roas(_ context.Context, f ctl.ROAFilter, emit func(ctl.ROA) error) error {
	for _, r := range []ctl.ROA{
		{Prefix: "10.2.0.0/16", MaxLength: 24, AS: 65002, Sources: []string{"/etc/rlr/roa.json"}},
		{Prefix: "10.3.0.0/16", MaxLength: 16, AS: 0, Sources: []string{"https://example.net/roa.json"}},
		{Prefix: "fd42:1::/48", MaxLength: 64, AS: 4242420001, Sources: []string{"127.0.0.1:8282"}},
	} {
		if f.Prefix.IsValid() && !netip.MustParsePrefix(r.Prefix).Overlaps(f.Prefix) {
			continue
		}
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}
