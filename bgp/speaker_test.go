package bgp

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/fib"
	"rlr/hoststack/hoststacktest"
)

// recorder is a Feed that remembers.
type recorder struct {
	mu       sync.Mutex
	routes   map[fib.Key]fib.Route
	rev      uint64
	lost     int // routes withdrawn that were there
	complete int
	changed  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{routes: map[fib.Key]fib.Route{}, changed: make(chan struct{})}
}

func (f *recorder) change(do func()) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.rev++
	close(f.changed)
	f.changed = make(chan struct{})
	return f.rev
}

func (f *recorder) Update(routes ...fib.Route) uint64 {
	return f.change(func() {
		for _, r := range routes {
			f.routes[r.Key] = r
		}
	})
}

func (f *recorder) Withdraw(ks ...fib.Key) uint64 {
	return f.change(func() {
		for _, k := range ks {
			if _, there := f.routes[k]; there {
				f.lost++
			}
			delete(f.routes, k)
		}
	})
}

// counts returns how many routes were withdrawn, and how often the feed was completed.
func (f *recorder) counts() (lost, complete int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost, f.complete
}

func (f *recorder) Complete() uint64 { return f.change(func() { f.complete++ }) }

// text is the whole feed, a line a route, sorted.
func (f *recorder) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, k := range slices.SortedFunc(maps.Keys(f.routes), func(a, b fib.Key) int { return comparePrefixes(a.Prefix, b.Prefix) }) {
		var hops []string
		for _, h := range f.routes[k].NextHops {
			hops = append(hops, h.String())
		}
		slices.Sort(hops)
		lines = append(lines, fmt.Sprintf("%s %s", k, strings.Join(hops, ", ")))
	}
	return strings.Join(lines, "\n")
}

// testRouter is a speaker on a node of a test's network.
type testRouter struct {
	*Speaker
	t    *testing.T
	name string
	feed *recorder
	node *hoststacktest.Node
	stop func()
}

func testLog(t *testing.T, name string) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	if os.Getenv("BGP_TEST_LOG") != "" {
		l.SetOutput(os.Stderr)
		l.SetLevel(logrus.DebugLevel)
		l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "05.000"})
	}
	return l.WithField("router", name)
}

func newRouter(t *testing.T, node *hoststacktest.Node, name string, c Config) *testRouter {
	t.Helper()
	return newRouterWith(t, node, name, Options{Config: c})
}

// newRouterWith is newRouter with options besides the configuration.
func newRouterWith(t *testing.T, node *hoststacktest.Node, name string, o Options) *testRouter {
	t.Helper()
	feed := newRecorder()
	o.Stack, o.Feed, o.Log = node, feed, testLog(t, name)
	s, err := New(o)
	if err != nil {
		t.Fatalf("new speaker %s: %v", name, err)
	}
	return &testRouter{Speaker: s, t: t, name: name, feed: feed, node: node}
}

// start runs the routers. GoBGP's package variables are written at each one's start, so nothing may happen before all are up:
// origins and links come after.
func start(t *testing.T, routers ...*testRouter) {
	t.Helper()
	for _, r := range routers {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.stop = sync.OnceFunc(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: Run: %v", r.name, err)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s: Run does not end", r.name)
			}
		})
		t.Cleanup(r.stop)
		select {
		case <-r.Ready():
		case err := <-done:
			t.Fatalf("%s: Run: %v", r.name, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is not ready", r.name)
		}
	}
}

func eventually(t *testing.T, within time.Duration, what func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		wrong := what()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", within, wrong)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *testRouter) session(name string) Session {
	for _, s := range r.Sessions() {
		if s.Neighbor.Name == name {
			return s
		}
	}
	r.t.Fatalf("%s has no session %s", r.name, name)
	return Session{}
}

func (r *testRouter) established(names ...string) {
	r.t.Helper()
	eventually(r.t, 15*time.Second, func() string {
		for _, s := range r.Sessions() {
			if (len(names) == 0 || slices.Contains(names, s.Neighbor.Name)) && s.State != Established {
				return fmt.Sprintf("%s: session %s is %s (%s)", r.name, s.Neighbor.Name, s.State, s.ErrorText())
			}
		}
		return ""
	})
}

func (r *testRouter) originate(prefixes ...string) {
	r.t.Helper()
	var l []Origin
	for _, p := range prefixes {
		l = append(l, Origin{Prefix: netip.MustParsePrefix(p)})
	}
	if err := r.Originate(l); err != nil {
		r.t.Fatal(err)
	}
}

// wantFeed waits until the feed is these lines.
func (r *testRouter) wantFeed(lines ...string) {
	r.t.Helper()
	want := strings.Join(lines, "\n")
	eventually(r.t, 10*time.Second, func() string {
		if got := r.feed.text(); got != want {
			return fmt.Sprintf("%s: feed is\n%s\nwant\n%s", r.name, got, want)
		}
		return ""
	})
}

// paths is the table in lines: prefix, then for each path neighbour, next hop, AS path, and * for the best.
func (r *testRouter) paths(f Filter) string {
	r.t.Helper()
	var lines []string
	err := r.Paths(context.Background(), f, func(p Prefix) bool {
		for _, x := range p.Paths {
			line := p.Prefix.String()
			if x.Best {
				line += " *"
			}
			if x.Neighbor != "" {
				line += " from " + x.Neighbor + " via " + x.NextHop.String()
			}
			if x.Interface != "" {
				line += "%" + x.Interface
			}
			if x.ASPath != "" {
				line += " [" + x.ASPath + "]"
			}
			lines = append(lines, line)
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func (r *testRouter) wantPaths(f Filter, lines ...string) {
	r.t.Helper()
	want := strings.Join(lines, "\n")
	eventually(r.t, 10*time.Second, func() string {
		if got := r.paths(f); got != want {
			return fmt.Sprintf("%s: paths are\n%s\nwant\n%s", r.name, got, want)
		}
		return ""
	})
}

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(l ...string) (out []netip.Addr) {
	for _, s := range l {
		out = append(out, a(s))
	}
	return out
}

// twoSites is a network of two eBGP routers over one link, as the configuration leaves them.
func twoSites(t *testing.T, change func(one, two *Neighbor)) (r1, r2 *testRouter, link *hoststacktest.Link) {
	t.Helper()
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("r2")
	link = n.Connect(n1, "tun12", addrs("169.254.12.1", "fe80::1"), n2, "tun21", addrs("169.254.12.2", "fe80::2"))
	one := Neighbor{Name: "r2", Address: a("169.254.12.2"), AS: 65002, HoldTime: 30 * time.Second}
	two := Neighbor{Name: "r1", Address: a("169.254.12.1"), AS: 65001, HoldTime: 30 * time.Second}
	if change != nil {
		change(&one, &two)
	}
	r1 = newRouter(t, n1, "r1", Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{one}})
	r2 = newRouter(t, n2, "r2", Config{AS: 65002, RouterID: a("10.2.0.1"), Neighbors: []Neighbor{two}})
	return r1, r2, link
}

func TestExternal(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	start(t, r1, r2)
	r1.established()
	r2.established()
	r1.originate("10.1.0.0/24")
	r2.originate("10.2.0.0/24", "10.2.1.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2", "10.2.1.0/24 via 169.254.12.2")
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1")
	r1.wantPaths(Filter{}, "10.1.0.0/24 *", "10.2.0.0/24 * from r2 via 169.254.12.2 [65002]", "10.2.1.0/24 * from r2 via 169.254.12.2 [65002]")
	r1.wantPaths(Filter{Neighbor: "r2", Prefix: netip.MustParsePrefix("10.2.1.0/24")}, "10.2.1.0/24 * from r2 via 169.254.12.2 [65002]")

	s := r1.session("r2")
	if s.Received != 2 || s.Accepted != 2 || s.Advertised != 1 || s.HoldTime != 30*time.Second || s.Keepalive != 10*time.Second ||
		s.RouterID != a("10.2.0.1") || s.LocalAddress != a("169.254.12.1") || s.Flaps != 0 || s.LastError != "" {
		t.Errorf("session is %+v", s)
	}
	r2.originate("10.2.1.0/24")
	r1.wantFeed("10.2.1.0/24 via 169.254.12.2")

	r2.stop()
	eventually(t, 5*time.Second, func() string {
		if s := r1.session("r2"); s.LastError != "Cease: Administrative Shutdown (received)" || s.Flaps != 1 {
			return fmt.Sprintf("last error is %q, flaps %d", s.LastError, s.Flaps)
		}
		return ""
	})
	r1.wantFeed()
}
