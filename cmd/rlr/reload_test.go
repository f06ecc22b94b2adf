package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/bgp"
	"rlr/fib"
	"rlr/hoststack/hoststacktest"
	"rlr/internal/config"
)

// manySite is a configuration with neighbours in groups, as a test changes it.
type manySite struct {
	holdTime  string            // of the group that all are in
	neighbors map[int]string    // numbers, with settings of their own
	dynamic   map[string]string // prefixes, with their groups
}

// yaml writes the file of a router that has a tunnel for each of n neighbours, whoever of them there are.
func (s manySite) yaml(n int) string {
	var b strings.Builder
	b.WriteString("router: {name: r1, id: 10.0.0.1, as: 65001}\ninterfaces:\n  lo0: {loopback: true, addresses: [10.0.0.1/32]}\n")
	for i := range n {
		fmt.Fprintf(&b, "  eth%d: {memif: {socket: s%d.sock, role: master}, addresses: [169.254.%d.1/30]}\n", i, i, i)
	}
	fmt.Fprintf(&b, "bgp:\n  groups:\n    all: {import: all, export: all, connect-retry: 1s, hold-time: %s}\n    hosts: {}\n  neighbors:\n", s.holdTime)
	for i := range n {
		if own, there := s.neighbors[i]; there {
			fmt.Fprintf(&b, "    - {name: n%d, address: 169.254.%d.2, as: 65002, group: all%s}\n", i, i, own)
		}
	}
	b.WriteString("  dynamic:\n")
	for prefix, group := range s.dynamic {
		fmt.Fprintf(&b, "    - {prefix: %s, group: %s, as: 65002}\n", prefix, group)
	}
	return b.String()
}

type nothing struct{}

func (nothing) Update(...fib.Route) uint64 { return 0 }
func (nothing) Withdraw(...fib.Key) uint64 { return 0 }
func (nothing) Complete() uint64           { return 0 }

// runSpeaker runs a speaker until the test's end.
func runSpeaker(t *testing.T, node *hoststacktest.Node, c bgp.Config) *bgp.Speaker {
	t.Helper()
	l := logrus.New()
	l.SetOutput(io.Discard)
	s, err := bgp.New(bgp.Options{Config: c, Stack: node, Feed: nothing{}, Log: logrus.NewEntry(l)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-s.Ready()
	return s
}

// TestReloadManyNeighbors: of 50 neighbours, with one added, one changed and one removed, exactly those three sessions change;
// and with a setting of their group changed, exactly those that have it from there.
func TestReloadManyNeighbors(t *testing.T) {
	const n = 51
	network := hoststacktest.New()
	n1, n2 := network.Node("r1"), network.Node("r2")
	far := bgp.Config{AS: 65002, RouterID: netip.MustParseAddr("10.0.0.2")}
	site := manySite{holdTime: "30s", neighbors: map[int]string{}, dynamic: map[string]string{"10.9.0.0/16": "hosts"}}
	for i := range n {
		x, y := netip.AddrFrom4([4]byte{169, 254, byte(i), 1}), netip.AddrFrom4([4]byte{169, 254, byte(i), 2})
		network.Connect(n1, fmt.Sprintf("eth%d", i), []netip.Addr{x}, n2, fmt.Sprintf("tun%d", i), []netip.Addr{y})
		far.Neighbors = append(far.Neighbors, bgp.Neighbor{Name: fmt.Sprintf("n%d", i), Address: x, AS: 65001, ConnectRetry: time.Second})
		if i < n-1 {
			site.neighbors[i] = ""
		}
	}
	site.neighbors[7] = ", hold-time: 45s" // of its own, whatever the group says
	configOf := func() *config.Config {
		t.Helper()
		cfg, err := config.Parse("r1.yaml", []byte(site.yaml(n)))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	cfg := configOf()
	runSpeaker(t, n2, far)
	s := runSpeaker(t, n1, bgpConfig(cfg))

	// established waits for all sessions, and returns since when each is.
	established := func() map[string]time.Time {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); ; <-tick.C {
			since, waiting := map[string]time.Time{}, ""
			for _, one := range s.Sessions() {
				since[one.Neighbor.Name] = one.Since
				if one.State != bgp.Established {
					waiting = fmt.Sprintf("%s is %s (%s)", one.Neighbor.Name, one.State, one.ErrorText())
				}
			}
			if waiting == "" && len(since) == len(site.neighbors) {
				return since
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d sessions; %s", len(since), len(site.neighbors), waiting)
			}
		}
	}
	before := established()
	reload := func(says ...string) (changed []string) {
		t.Helper()
		next := configOf()
		if got := difference(cfg, next); !slices.Equal(got, says) {
			t.Errorf("the reload tells %q, want %q", got, says)
		}
		cfg = next
		if err := s.Apply(bgpConfig(cfg)); err != nil {
			t.Fatal(err)
		}
		after := established()
		for i := range n {
			name := fmt.Sprintf("n%d", i)
			if was, is := before[name], after[name]; !was.Equal(is) {
				changed = append(changed, name)
			}
		}
		before = after
		return changed
	}

	site.neighbors[50] = ""
	site.neighbors[20] = ", hold-time: 20s"
	delete(site.neighbors, 30)
	got := reload("neighbor n20 changed", "neighbor n50 added", "neighbor n30 removed")
	if want := []string{"n20", "n30", "n50"}; !slices.Equal(got, want) {
		t.Errorf("sessions that changed: %v, want %v", got, want)
	}

	// What needs no new session changes none, also for all at once.
	for i := range site.neighbors {
		site.neighbors[i] += ", passive: true"
	}
	var says []string
	for i := range n {
		if i != 30 {
			says = append(says, fmt.Sprintf("neighbor n%d changed", i))
		}
	}
	if got := reload(says...); len(got) > 0 {
		t.Errorf("sessions that changed: %v, want none", got)
	}

	// The group's hold time is everybody's who has none of their own.
	site.holdTime = "60s"
	says = slices.DeleteFunc(says, func(s string) bool { return s == "neighbor n7 changed" || s == "neighbor n20 changed" })
	if got := reload(says...); len(got) != n-3 || slices.Contains(got, "n7") || slices.Contains(got, "n20") {
		t.Errorf("sessions that changed: %v, want all but n7 and n20", got)
	}
	site.dynamic = map[string]string{"10.9.0.0/16": "all"}
	if got := reload("dynamic neighbors of 10.9.0.0/16 changed"); len(got) > 0 {
		t.Errorf("sessions that changed: %v, want none", got)
	}
}
