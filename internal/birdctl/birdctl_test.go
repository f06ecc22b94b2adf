package birdctl

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

var update = flag.Bool("update", false, "write the golden files anew")

// router is one with a bit of everything.
func router(done *[]string) ctl.Handlers {
	rows := []ctl.Route{
		{Prefix: "10.1.0.0/24", Paths: []ctl.Path{{Protocol: "static", Kind: "blackhole", Best: true, Preference: 200}}},
		{Prefix: "10.1.0.1/32", Paths: []ctl.Path{{Protocol: "direct", Interface: "dum0", Best: true, Preference: 240}}},
		{Prefix: "10.2.0.0/24", Paths: []ctl.Path{
			{Protocol: "bgp", Neighbor: "router2", NextHop: "169.254.12.2", Interface: "tun12", Best: true, Preference: 100, ASPath: "65002", Origin: "igp", Communities: []string{"65002:7", "no-export"}, Large: []string{"1:2:3"}, MED: 5, ROA: "valid", AgeS: 61},
			{Protocol: "bgp", Neighbor: "router3", NextHop: "169.254.13.2", Interface: "tun13", Preference: 100, ASPath: "65003 65002", Origin: "incomplete", LocalPref: 50, AgeS: 100000},
		}},
		{Prefix: "fd00:2::/48", Paths: []ctl.Path{{Protocol: "bgp", Neighbor: "router2", NextHop: "fe80::2", Interface: "tun12", Best: true, Preference: 100, ASPath: "65002", Origin: "igp", AgeS: 61}}},
	}
	note := func(format string, args ...any) { *done = append(*done, fmt.Sprintf(format, args...)) }
	return ctl.Handlers{
		Status: func(context.Context) (ctl.Status, error) {
			return ctl.Status{
				Name: "router1", Version: "v1", AS: 65001, RouterID: "10.1.0.1", UptimeS: 3600, RSSBytes: 45 << 20,
				Dataplane: ctl.DataplaneStatus{Kind: "vpp", Version: "26.06-release", RSSBytes: 100 << 20}, FIB: ctl.FIBStatus{Bytes: 1 << 20},
			}, nil
		},
		Protocols: func(context.Context) ([]ctl.Protocol, error) {
			return []ctl.Protocol{
				{Name: "direct", Proto: "direct", State: "up", SinceS: 60},
				{Name: "static", Proto: "static", State: "up", SinceS: 60},
				{Name: "router2", Proto: "bgp", State: "up", SinceS: 60},
				{Name: "router3", Proto: "bgp", State: "start", SinceS: 60},
				{Name: "old", Proto: "bgp", State: "down", SinceS: 200000},
			}, nil
		},
		BGP: func(context.Context) ([]ctl.BGPSession, error) {
			return []ctl.BGPSession{
				{
					Name: "router2", Address: "fe80::2", Interface: "tun12", LocalAddr: "fe80::1", AS: 65002, State: "Established", RouterID: "10.2.0.1", HoldTimeS: 30, KeepaliveS: 10,
					Families: []string{"ipv4", "ipv6"}, Prefixes: []ctl.FamilyPrefixes{{Family: "ipv4", Received: 3, Accepted: 2, Advertised: 1}, {Family: "ipv6", Received: 1, Accepted: 1}},
				},
				{Name: "router3", Address: "169.254.13.2", Interface: "tun13", AS: 65003, State: "Active", Families: []string{"ipv4"}, LastError: "Hold Timer Expired (sent)"},
				{Name: "old", Address: "10.9.9.9", AS: 65001, State: "Idle", Disabled: true, Families: []string{"ipv4"}},
			}, nil
		},
		Interfaces: func(context.Context) ([]ctl.Interface, error) {
			return []ctl.Interface{
				{Name: "dum0", SwIfIndex: 1, Kind: "loopback", Admin: true, Link: true, MTU: 1500, Addresses: []string{"10.1.0.1/32", "fd00:1::1/128"}},
				{Name: "tun12", SwIfIndex: 2, Kind: "wireguard", Admin: true, MTU: 1420, Addresses: []string{"169.254.12.1/30", "fe80::1/64", "2001:db8::1/64", "127.0.0.9/8"}},
			}, nil
		},
		BFD: func(context.Context) ([]ctl.BFDSession, error) {
			return []ctl.BFDSession{{Neighbor: "router2", Interface: "tun12", Peer: "fe80::2", State: "up", SinceS: 60, IntervalMs: 50, Multiplier: 3}}, nil
		},
		Routes: func(_ context.Context, f ctl.RouteFilter, emit func(ctl.Route) error) error {
			if f.Protocol == "direct" { // as if it were unknown
				return ctl.NotFound("no protocol")
			}
			for _, r := range rows {
				p := netip.MustParsePrefix(r.Prefix)
				of := func(x ctl.Path) bool { return f.Protocol == "" || x.Neighbor == f.Protocol || x.Protocol == f.Protocol }
				if f.Prefix.IsValid() && f.Prefix != p || f.For.IsValid() && !p.Contains(f.For) || !of(r.Paths[0]) {
					continue
				}
				if err := emit(r); err != nil {
					return err
				}
			}
			return nil
		},
		Neighbor: func(_ context.Context, r ctl.NeighborRequest) (ctl.Done, error) {
			if r.Name == "router3" {
				return ctl.Done{}, ctl.Unavailable("router3 cannot now")
			}
			note("%s %s soft=%v %s", r.Action, r.Name, r.Soft, r.Direction)
			return ctl.Done{}, nil
		},
		Reload: func(context.Context) (ctl.Done, error) { note("reload"); return ctl.Done{}, nil },
	}
}

type conversation struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func talk(t *testing.T, done *[]string) *conversation {
	t.Helper()
	dir, err := os.MkdirTemp("", "b")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Router: router(done), Version: "v1", Config: "/etc/r.yaml", Check: func(context.Context) error {
		return errors.New("r.yaml:3:5: unknown key \"x\"\nr.yaml:4:5: another")
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		conn.Close()
		os.RemoveAll(dir)
	})
	return &conversation{t, conn, bufio.NewReader(conn)}
}

var times = regexp.MustCompile(`\d\d\d\d-\d\d-\d\d( \d\d:\d\d:\d\d\.\d\d\d)?|\d\d:\d\d:\d\d\.\d\d\d`)

// reply reads to the line whose code ends the reply.
func (c *conversation) reply() string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("after %q: %v", all.String(), err)
		}
		all.WriteString(times.ReplaceAllStringFunc(line, func(s string) string { return strings.Repeat("T", len(s)) }))
		if len(line) > 4 && line[4] == ' ' && strings.Trim(line[:4], "0123456789") == "" {
			return all.String()
		}
	}
}

func (c *conversation) ask(command string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.conn, command); err != nil {
		c.t.Fatal(err)
	}
	return c.reply()
}

// Each answer is as it was, and as BIRD's own are: the golden file was compared with those of BIRD 2.0.12.
func TestAnswers(t *testing.T) {
	var done []string
	c := talk(t, &done)
	var all strings.Builder
	all.WriteString(c.reply())
	for _, command := range []string{
		"show status", "show memory", "show protocols", "show protocols all router2", `show protocols all "r*3"`, `show protocols "x*"`, "show protocols nosuch",
		"show route", "show route all for 10.2.0.7", "show route 10.2.0.0/24 primary", "show route for 192.0.2.1", "show route table master6", "show route table nosuch",
		"show route count", "show route count table master4", "show route protocol router2", `show route protocol "router2" primary all`, "show route filtered protocol router2",
		"show route where net ~ [ 10.1.0.0/24 ]", "show route where net ~ [ 10.1.0.0/16+, 10.2.0.0/8{24,24} ] count", "show route where net ~ [ 10.1.0.1/32- ]",
		"show route where net = 10.2.0.0/24 && bgp_path.first = 65003", "show route where bgp_path.last = 65002 table master4", "show route where bgp_path ~ [= * 65003 * =]",
		"show route where (65002,7) ~ bgp_community", `show route where proto = "static"`, "show route where source = RTS_BGP", "show route where net ~ [ x ]", "show route where bgp_path.last = x",
		"show route for x", "show route 10.2.0.0/24 nonsense", "show route protocol direct", "show route export router2",
		"show interfaces", "show interfaces summary", "show bfd sessions", "show bfd", "show symbols", "show", "", "eval 1+1",
		"configure check", "configure", `configure soft "/etc/r.yaml"`, `configure "/etc/other.yaml"`,
		"disable router2", "disable old", "enable old", "enable router2", "restart router2", "restart router3", "disable static", `restart "router*"`, "disable",
		"reload router2", "reload in router2", "reload out all", strings.Repeat("x", 2*maxLine),
		"restrict", "disable router2", "configure check", "show route count",
	} {
		shown := command
		if len(shown) > 100 {
			shown = "a long line"
		}
		fmt.Fprintf(&all, "### %s\n%s", shown, c.ask(command))
	}
	fmt.Fprintf(&all, "### done\n%s\n", strings.Join(done, "\n"))
	const path = "testdata/answers.golden"
	if *update {
		if err := os.WriteFile(path, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if all.String() != string(want) {
		t.Errorf("differs from %s (go test -update writes it anew)\n--- want\n%s--- got\n%s", path, want, all.String())
	}
	if _, err := fmt.Fprintln(c.conn, "quit"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.ReadByte(); err == nil {
		t.Error("the connection goes on after quit")
	}
}

// Whatever comes is answered, and nothing ends the server.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{"show route where net ~ [ 10.0.0.0/8{1,", `show protocols "["`, "show route for", "reload in", `"`, "show route where (1,2", "&&", "{}", "show route where net ~ [ 1/2{ }"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\n\r") || strings.HasPrefix(strings.TrimSpace(line), "quit") || strings.HasPrefix(strings.TrimSpace(line), "exit") {
			return
		}
		var done []string
		c := &client{server: New(Options{Router: router(&done), Check: func(context.Context) error { return nil }})}
		var out strings.Builder
		c.out = bufio.NewWriter(&out)
		c.answer(t.Context(), line)
		c.out.Flush()
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if last := lines[len(lines)-1]; len(last) < 5 || last[4] != ' ' {
			t.Errorf("the reply to %q ends with %q", line, last)
		}
	})
}
