package hoststack_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/fib"
	"rlr/hoststack"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// Probes through real VPPs in a row:
//
//	router1 ── link12 (and other12, with the same fe80:: addresses) ── router2 ── link23, MTU 1400 ── router3
//
// Each has a loopback: 172.20.N.N and fd42:N::N. Router1 reaches router3's by router2, and 198.51.100.0/24 and
// 2001:db8::/32 end as unreachable in router2.

// site is a router without protocols.
type site struct {
	*dataplanetest.Dataplane
	agent *vppagent.Agent
	log   *logrus.Entry
}

func newSite(t *testing.T, n int, interfaces []vppagent.Interface, routes ...fib.Route) *site {
	t.Helper()
	return configure(t, dataplanetest.Start(t, dataplanetest.VPP), n, interfaces, routes...)
}

func configure(t *testing.T, d *dataplanetest.Dataplane, n int, interfaces []vppagent.Interface, routes ...fib.Route) *site {
	t.Helper()
	logger := logrus.New()
	logger.SetOutput(t.Output())
	if testing.Verbose() {
		logger.SetLevel(logrus.DebugLevel)
	}
	s := &site{Dataplane: d, log: logger.WithField("router", n)}
	s.agent = vppagent.New(vppagent.Options{
		Socket: d.APISocket, Log: s.log, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
		Config: vppagent.Config{Router: fmt.Sprintf("router%d", n), Interfaces: append(interfaces, vppagent.Interface{
			Name: "dum0", Loopback: &vppagent.Loopback{}, Enabled: true,
			Addresses: prefixes(fmt.Sprintf("172.20.%d.%[1]d/32", n), fmt.Sprintf("fd42:%d::%[1]d/128", n)),
		})},
	})
	run(t, s.agent.Run)
	ctx := within(t)
	if err := s.agent.WaitConfigured(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.agent.Dump(ctx); err != nil {
		t.Fatal(err)
	}
	changes := make([]fib.Change, 0, len(routes))
	for _, r := range routes {
		changes = append(changes, fib.Change{Route: r})
	}
	if err := errors.Join(s.agent.Apply(ctx, changes)...); err != nil {
		t.Fatal(err)
	}
	return s
}

// probes returns a Prober whose memifs live until the test ends.
func (s *site) probes(t *testing.T, idle time.Duration) *hoststack.Prober {
	t.Helper()
	m := hoststack.NewMemifProbes(hoststack.MemifOptions{
		Socket: filepath.Join(s.Dir, "probe.sock"), Plumber: s.agent, Idle: idle, Log: s.log,
	})
	run(t, m.Run)
	return hoststack.NewProber(m, s.agent)
}

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func hwaddr(router, link byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, link, router} }

// cable is one end of an ethernet memif, with a static neighbour at the other.
func cable(name, socket string, link, router, peer byte, mtu int, addresses ...string) vppagent.Interface {
	i := vppagent.Interface{
		Name: name, Enabled: true, MAC: hwaddr(router, link), MTU: mtu, Addresses: prefixes(addresses...),
		Memif: &vppagent.Memif{Socket: socket, ID: uint32(link), Role: vppagent.MemifMaster},
		Neighbors: []vppagent.StaticNeighbor{
			{Address: netip.MustParseAddr(fmt.Sprintf("fe80::%d", peer)), MAC: hwaddr(peer, link)},
		},
	}
	if router > peer {
		i.Memif.Role = vppagent.MemifSlave
	}
	for _, p := range i.Addresses {
		if a := p.Addr().AsSlice(); !p.Addr().IsLinkLocalUnicast() {
			a[len(a)-1] = peer
			addr, _ := netip.AddrFromSlice(a)
			i.Neighbors = append(i.Neighbors, vppagent.StaticNeighbor{Address: addr, MAC: hwaddr(peer, link)})
		}
	}
	return i
}

func via(prefix, next, iface string) fib.Route {
	return fib.Route{
		Key:      fib.Key{Prefix: netip.MustParsePrefix(prefix)},
		NextHops: []fib.NextHop{{Addr: netip.MustParseAddr(next), Interface: iface}},
	}
}

func unreachable(prefix string) fib.Route {
	return fib.Route{Key: fib.Key{Prefix: netip.MustParsePrefix(prefix)}, Kind: fib.Unreachable}
}

func router1(dir string) []vppagent.Interface {
	return []vppagent.Interface{
		cable("link12", filepath.Join(dir, "a.sock"), 12, 1, 2, 0, "10.12.0.1/24", "fd00:12::1/64", "fe80::1/64"),
		cable("other12", filepath.Join(dir, "a.sock"), 21, 1, 2, 0, "10.21.0.1/24", "fe80::1/64"),
	}
}

func router1Routes() []fib.Route {
	var routes []fib.Route
	for _, p := range []string{"172.20.2.0/24", "172.20.3.0/24", "10.23.0.0/24", "198.51.100.0/24"} {
		routes = append(routes, via(p, "10.12.0.2", "link12"))
	}
	for _, p := range []string{"fd42:2::/32", "fd42:3::/32", "fd00:23::/64", "2001:db8::/32"} {
		routes = append(routes, via(p, "fe80::2", "link12"))
	}
	return routes
}

func router2(dir string) ([]vppagent.Interface, []fib.Route) {
	return []vppagent.Interface{
			cable("link12", filepath.Join(dir, "a.sock"), 12, 2, 1, 0, "10.12.0.2/24", "fd00:12::2/64", "fe80::2/64"),
			cable("other12", filepath.Join(dir, "a.sock"), 21, 2, 1, 0, "10.21.0.2/24", "fe80::2/64"),
			cable("link23", filepath.Join(dir, "b.sock"), 23, 2, 3, 1400, "10.23.0.2/24", "fd00:23::2/64", "fe80::2/64"),
		}, []fib.Route{
			via("172.20.1.0/24", "10.12.0.1", "link12"), via("fd42:1::/32", "fe80::1", "link12"),
			via("172.20.3.0/24", "10.23.0.3", "link23"), via("fd42:3::/32", "fe80::3", "link23"),
			unreachable("198.51.100.0/24"), unreachable("2001:db8::/32"),
		}
}

func router3(dir string) ([]vppagent.Interface, []fib.Route) {
	return []vppagent.Interface{
			cable("link23", filepath.Join(dir, "b.sock"), 23, 3, 2, 1400, "10.23.0.3/24", "fd00:23::3/64", "fe80::3/64"),
		}, []fib.Route{
			via("172.20.0.0/16", "10.23.0.2", "link23"), via("10.12.0.0/16", "10.23.0.2", "link23"),
			via("fd42::/16", "fe80::2", "link23"), via("fd00:12::/64", "fe80::2", "link23"),
		}
}

// row starts the three, and returns the first when all links are up.
func row(t *testing.T) *site {
	t.Helper()
	one := dataplanetest.Start(t, dataplanetest.VPP)
	s := configure(t, one, 1, router1(one.Dir), router1Routes()...)
	interfaces, routes := router2(one.Dir)
	two := newSite(t, 2, interfaces, routes...)
	interfaces, routes = router3(one.Dir)
	three := newSite(t, 3, interfaces, routes...)
	for _, o := range []*site{s, two, three} {
		o.waitLinks(t)
	}
	return s
}

func (s *site) waitLinks(t *testing.T) {
	t.Helper()
	eventually(t, "links are up", func() bool {
		list, err := s.agent.Interfaces(within(t))
		return err == nil && !slices.ContainsFunc(list, func(i vppagent.InterfaceStatus) bool { return i.Kind == "memif" && !i.Link })
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !reached(ok) {
		t.Fatalf("not in time: %s", what)
	}
}

// reached asks until the answer is yes.
func reached(ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// said is a reply in words.
func said(r hoststack.Reply) string {
	var b strings.Builder
	if r.Hop > 0 {
		fmt.Fprintf(&b, "hop %d ", r.Hop)
	}
	if r.From.IsValid() {
		fmt.Fprintf(&b, "%s ", r.From)
	}
	if r.Err != "" {
		b.WriteString(r.Err)
	} else {
		fmt.Fprintf(&b, "%d bytes TTL %d", r.Bytes, r.TTL)
	}
	return b.String()
}

func TestMemifProbes(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		s := row(t)
		p := s.probes(t, time.Minute)
		t.Run("ping", func(t *testing.T) { pings(t, p) })
		t.Run("refused", func(t *testing.T) { refused(t, p) })
		t.Run("traceroute", func(t *testing.T) { traceroutes(t, p) })
		t.Run("together", func(t *testing.T) { together(t, p) })
	})
}

func pings(t *testing.T, p *hoststack.Prober) {
	type target = hoststack.Target
	a := netip.MustParseAddr
	for _, c := range []struct {
		name string
		target
		ttl  int
		want string
	}{
		{name: "neighbour", target: target{Addr: a("10.12.0.2")}, want: "10.12.0.2 8 bytes TTL 64"},
		{name: "neighbour6", target: target{Addr: a("fd00:12::2")}, want: "fd00:12::2 8 bytes TTL 64"},
		{name: "beyond", target: target{Addr: a("172.20.3.3"), Size: 56}, want: "172.20.3.3 64 bytes TTL 63"},
		{name: "beyond6", target: target{Addr: a("fd42:3::3"), Size: 56}, want: "fd42:3::3 64 bytes TTL 63"},
		{name: "source", target: target{Addr: a("172.20.3.3"), Source: a("172.20.1.1")}, want: "172.20.3.3 8 bytes TTL 63"},
		{name: "source6", target: target{Addr: a("fd42:3::3"), Source: a("fd42:1::1")}, want: "fd42:3::3 8 bytes TTL 63"},
		{name: "other source", target: target{Addr: a("10.12.0.2"), Source: a("172.20.1.1")}, want: "10.12.0.2 8 bytes TTL 64"},
		{name: "by interface", target: target{Addr: a("10.21.0.2"), Interface: "other12"}, want: "10.21.0.2 8 bytes TTL 64"},
		{name: "by gateway on interface", target: target{Addr: a("172.20.3.3"), Interface: "link12"}, want: "172.20.3.3 8 bytes TTL 63"},
		{name: "link-local", target: target{Addr: a("fe80::2%link12"), Size: 100}, want: "fe80::2 108 bytes TTL 64"},
		{name: "link-local on the other", target: target{Addr: a("fe80::2"), Interface: "other12"}, want: "fe80::2 8 bytes TTL 64"},
		{name: "itself", target: target{Addr: a("172.20.1.1"), Size: 56}, want: "172.20.1.1 64 bytes TTL 64"},
		{name: "itself6", target: target{Addr: a("fd42:1::1"), Size: 56}, want: "fd42:1::1 64 bytes TTL 64"},
		{name: "itself by another", target: target{Addr: a("10.12.0.1"), Source: a("172.20.1.1")}, want: "10.12.0.1 8 bytes TTL 64"},
		{name: "itself link-local", target: target{Addr: a("fe80::1%link12")}, want: "fe80::1 8 bytes TTL 64"},
		{name: "TTL too small", target: target{Addr: a("172.20.3.3")}, ttl: 1, want: "10.12.0.2 time exceeded"},
		{name: "TTL too small6", target: target{Addr: a("fd42:3::3")}, ttl: 1, want: "fd00:12::2 time exceeded"},
		{name: "TTL exact", target: target{Addr: a("172.20.3.3")}, ttl: 2, want: "172.20.3.3 8 bytes TTL 63"},
		{name: "largest TTL", target: target{Addr: a("172.20.3.3")}, ttl: 254, want: "172.20.3.3 8 bytes TTL 63"},
		{name: "unreachable", target: target{Addr: a("198.51.100.7")}, want: "10.12.0.2 host unreachable"},
		// VPP counts itself twice when it makes fragments.
		{name: "fragmented on the way", target: target{Addr: a("172.20.3.3"), Size: 2000}, want: "172.20.3.3 2008 bytes TTL 62"},
		{name: "must not be fragmented", target: target{Addr: a("172.20.3.3"), Size: 1400, DontFrag: true}, want: "10.12.0.2 fragmentation needed (MTU 1400)"},
		{name: "just fits", target: target{Addr: a("172.20.3.3"), Size: 1372, DontFrag: true}, want: "172.20.3.3 1380 bytes TTL 63"},
		{name: "too big6", target: target{Addr: a("fd42:3::3"), Size: 1400}, want: "fd00:12::2 packet too big (MTU 1400)"},
		{name: "unreachable6", target: target{Addr: a("2001:db8::7")}, want: "fd00:12::2 no route to destination"},
		{name: "too big here", target: target{Addr: a("172.20.3.3"), Source: a("172.20.1.1"), Size: 9000, DontFrag: true}, want: "too long to leave here (MTU 9000): message too long"},
		{name: "too big here6", target: target{Addr: a("fd42:3::3"), Source: a("fd42:1::1"), Size: 9000}, want: "too long to leave here (MTU 9000): message too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			timeout := 10 * time.Second // on a busy machine
			if strings.HasPrefix(c.name, "unreachable") {
				timeout = time.Second // is waited for, as will be seen
			}
			req := hoststack.PingRequest{Target: c.target, Count: 3, Interval: 5 * time.Millisecond, TTL: c.ttl, Timeout: timeout}
			_, err := p.Ping(within(t), req, func(r hoststack.Reply) {
				lines = append(lines, said(r))
				if r.Err == "" && (r.RTT <= 0 || r.RTT > timeout) {
					t.Errorf("RTT %v", r.RTT)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.name, "unreachable") { // of which VPP says one in 100 ms (src/vnet/dpo/ip_null_dpo.c)
				if lines = slices.DeleteFunc(lines, func(l string) bool { return l == "timeout" }); len(lines) > 0 {
					lines = slices.Repeat(lines[:1], 3)
				}
			}
			if want := slices.Repeat([]string{c.want}, 3); !slices.Equal(lines, want) {
				t.Errorf("got %q, want %q each", lines, c.want)
			}
		})
	}
}

func refused(t *testing.T, p *hoststack.Prober) {
	a := netip.MustParseAddr
	for _, c := range []struct {
		name   string
		target hoststack.Target
		want   error
	}{
		{"no route", hoststack.Target{Addr: a("203.0.113.1")}, syscall.ENETUNREACH},
		{"no route6", hoststack.Target{Addr: a("3fff::1")}, syscall.ENETUNREACH},
		{"no route from a given source", hoststack.Target{Addr: a("203.0.113.1"), Source: a("172.20.1.1")}, syscall.ENETUNREACH},
		{"no such table", hoststack.Target{Addr: a("10.12.0.2"), Table: 77}, syscall.ENETUNREACH},
		{"somebody else's source", hoststack.Target{Addr: a("10.12.0.2"), Source: a("10.12.0.2")}, syscall.EADDRNOTAVAIL},
		{"somebody else's link-local source", hoststack.Target{Addr: a("fe80::2%link12"), Source: a("fe80::9")}, syscall.EADDRNOTAVAIL},
		{"the other side's address", hoststack.Target{Addr: a("10.12.0.2"), Source: a("10.12.0.77")}, syscall.EADDRNOTAVAIL},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := p.Ping(within(t), hoststack.PingRequest{Target: c.target}, func(hoststack.Reply) {})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
	t.Run("TTL that VPP cannot make", func(t *testing.T) {
		s, err := p.Ping(within(t), hoststack.PingRequest{Target: hoststack.Target{Addr: a("10.12.0.2")}, Count: 1, TTL: 255}, func(r hoststack.Reply) {
			if !strings.Contains(r.Err, "254") {
				t.Error(r.Err)
			}
		})
		if err != nil || s.Received != 0 {
			t.Error(s, err)
		}
	})
}

func traceroutes(t *testing.T, p *hoststack.Prober) {
	for _, c := range []struct {
		target string
		want   []string
	}{
		{"172.20.3.3", []string{"hop 1 10.12.0.2 time exceeded", "hop 2 172.20.3.3 8 bytes TTL 63"}},
		{"fd42:3::3", []string{"hop 1 fd00:12::2 time exceeded", "hop 2 fd42:3::3 8 bytes TTL 63"}},
		{"fe80::2%other12", []string{"hop 1 fe80::2 8 bytes TTL 64"}},
		{"10.12.0.1", []string{"hop 1 10.12.0.1 8 bytes TTL 64"}},
	} {
		t.Run(c.target, func(t *testing.T) {
			var lines []string
			req := hoststack.TraceRequest{Target: hoststack.Target{Addr: netip.MustParseAddr(c.target)}, Timeout: 3 * time.Second}
			err := p.Traceroute(within(t), req, func(r hoststack.Reply) { lines = append(lines, said(r)) })
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, w := range c.want {
				want = append(want, w, w, w)
			}
			if !slices.Equal(lines, want) {
				t.Errorf("got %q,\nwant %q", lines, want)
			}
		})
	}
}

// together runs probes that want the same addresses by different ways at once.
func together(t *testing.T, p *hoststack.Prober) {
	var wg sync.WaitGroup
	for _, target := range []string{
		"fe80::2%link12", "fe80::2%other12", "10.12.0.1", "172.20.3.3", "172.20.3.3", "fd42:3::3", "172.20.1.1", "fe80::1%link12", "fe80::1%other12",
	} {
		wg.Go(func() {
			s, err := p.Ping(within(t), hoststack.PingRequest{
				Target: hoststack.Target{Addr: netip.MustParseAddr(target)}, Count: 50, Interval: time.Millisecond, Timeout: 5 * time.Second,
			}, func(hoststack.Reply) {})
			if err != nil || s.Received != 50 {
				t.Errorf("%s: %+v, %v", target, s, err)
			}
		})
	}
	wg.Wait()
}

// The dataplane's side exists while somebody probes, and for a while; nobody else's punt redirect is touched.
func TestMemifProbesLife(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		d := dataplanetest.Start(t, dataplanetest.VPP)
		interfaces := router1(d.Dir)
		s := configure(t, d, 1, interfaces)
		itself := hoststack.PingRequest{Target: hoststack.Target{Addr: netip.MustParseAddr("172.20.1.1")}, Count: 1, Interval: time.Millisecond}
		// Nobody is at the other end of link12.
		away := hoststack.PingRequest{Target: hoststack.Target{Addr: netip.MustParseAddr("10.12.0.2")}, Count: 1, Timeout: time.Millisecond}
		ping := func(p *hoststack.Prober) error {
			if _, err := p.Ping(within(t), away, func(hoststack.Reply) {}); err != nil {
				return err
			}
			sum, err := p.Ping(within(t), itself, func(hoststack.Reply) {})
			if err == nil && sum.Received != 1 {
				err = fmt.Errorf("%+v", sum)
			}
			return err
		}
		before := s.traces(t)
		m := hoststack.NewMemifProbes(hoststack.MemifOptions{
			Socket: filepath.Join(s.Dir, "probe.sock"), Plumber: s.agent, Idle: 50 * time.Millisecond, Log: s.log,
		})
		p := hoststack.NewProber(m, s.agent)
		early, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.Ping(early, itself, func(hoststack.Reply) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("ping before Run: %v", err)
		}
		stop := run(t, m.Run)
		for range 3 { // made, removed when idle, and made again
			eventually(t, "ping", func() bool { return ping(p) == nil })
			after := ""
			if !reached(func() bool { after = s.traces(t); return after == before }) {
				t.Fatalf("not removed when idle:\n%s\nbefore:\n%s", after, before)
			}
		}
		eventually(t, "ping", func() bool { return ping(p) == nil })
		stop()
		if after := s.traces(t); after != before {
			t.Errorf("after Run:\n%s\nbefore:\n%s", after, before)
		}
		if err := ping(p); err == nil {
			t.Error("ping after Run")
		}

		// An interface that goes while it has the classifier takes that with it.
		open := func(s *site) (release func()) {
			t.Helper()
			_, _, _, release, err := s.agent.OpenProbe(within(t), filepath.Join(d.Dir, "probe.sock"), 0, hoststack.AnyInterface,
				netip.MustParseAddr("10.12.0.1"), netip.MustParseAddr("10.12.0.2"))
			if err != nil {
				t.Fatal(err)
			}
			return release
		}
		inacl := func() string { return s.shown(t, "show inacl type ip4") }
		none := inacl()
		release := open(s)
		if inacl() == none {
			t.Fatal("no interface has the classifier")
		}
		dum0 := vppagent.Interface{Name: "dum0", Loopback: &vppagent.Loopback{}, Enabled: true, Addresses: prefixes("172.20.1.1/32", "fd42:1::1/128")}
		for _, list := range [][]vppagent.Interface{{dum0}, append([]vppagent.Interface{dum0}, interfaces...)} {
			s.agent.SetConfig(vppagent.Config{Router: "router1", Interfaces: list})
			if err := s.agent.WaitConfigured(within(t)); err != nil {
				t.Fatal(err)
			}
			if got := inacl(); got != none {
				t.Errorf("classifiers on %d interfaces:\n%s", len(list), got)
			}
		}
		release()
		release()
		if err := s.agent.CloseProbes(within(t)); err != nil {
			t.Fatal(err)
		}
		before = s.traces(t)

		// What a router left that died is removed by the next one.
		open(s)
		if inacl() == none || s.traces(t) == before {
			t.Fatal("nothing was made")
		}
		next := configure(t, d, 1, interfaces)
		if after := next.traces(t); after != before {
			t.Errorf("next router:\n%s\nbefore:\n%s", after, before)
		}

		for _, line := range []string{"create loopback interface instance 9", "set interface state loop9 up", "ip punt redirect add rx all via loop9"} {
			if out, err := next.agent.CLI(within(t), line); err != nil {
				t.Fatal(out, err)
			}
		}
		alien := next.traces(t)
		q := next.probes(t, time.Millisecond)
		if err := ping(q); err == nil || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("with an alien punt redirect: %v", err)
		}
		eventually(t, "the alien punt redirect is as it was", func() bool { return next.traces(t) == alien })
	})
}

// traces is what probes change in VPP.
func (s *site) traces(t *testing.T) string {
	t.Helper()
	return s.shown(t, "show interface", "show ip punt redirect", "show ip6 punt redirect", "show ip table", "show ip6 table",
		"show inacl type ip4", "show classify tables")
}

func (s *site) shown(t *testing.T, lines ...string) string {
	t.Helper()
	var b strings.Builder
	for _, line := range lines {
		out, err := s.agent.CLI(within(t), line)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(out) {
			if strings.Contains(line, "show interface") { // without counters
				if l[0] == ' ' {
					continue
				}
				l = strings.Join(strings.Fields(l)[:3], " ") + "\n"
			}
			// VPP's words for an empty list depend on whether there has ever been one.
			if !strings.HasPrefix(l, "No input ACL") && !strings.Contains(l, "Intfc idx") {
				b.WriteString(l)
			}
		}
	}
	return b.String()
}

// When VPP dies, a ping ends with an error that says so, and one through the next VPP works.
func TestMemifProbesRestart(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		first := dataplanetest.Start(t, dataplanetest.VPP)
		stable := *first
		stable.APISocket = filepath.Join(first.Dir, "current.sock")
		point := func(at string) {
			t.Helper()
			_ = os.Remove(stable.APISocket)
			if err := os.Symlink(at, stable.APISocket); err != nil {
				t.Fatal(err)
			}
		}
		point(first.APISocket)
		s := configure(t, &stable, 1, nil)
		p := s.probes(t, time.Minute)
		req := hoststack.PingRequest{
			Target: hoststack.Target{Addr: netip.MustParseAddr("172.20.1.1")}, Count: 10000, Interval: time.Millisecond,
		}
		var once sync.Once
		_, err := p.Ping(within(t), req, func(r hoststack.Reply) {
			if r.Err != "" {
				return
			}
			once.Do(func() {
				if err := syscall.Kill(int(s.agent.Status().PID), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			})
		})
		if err == nil || !strings.Contains(err.Error(), "the dataplane") {
			t.Errorf("ping through VPP's death: %v", err)
		}
		point(dataplanetest.Start(t, dataplanetest.VPP).APISocket)
		req.Count = 1
		eventually(t, "ping through the next VPP", func() bool {
			sum, err := p.Ping(within(t), req, func(hoststack.Reply) {})
			return err == nil && sum.Received == 1
		})
	})
}
