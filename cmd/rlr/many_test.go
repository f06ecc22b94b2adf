package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rlr/fib"
	"rlr/internal/ctl"
	"rlr/rootless"
	"rlr/vppagent"
)

// TestManyPrefixes: neighbours on a LAN, and some more over link-local addresses on tunnels of their own, announce prefixes of both
// families. All are forwarded to, and each neighbour is told of all that the others have announced. RLR_LONG=1 makes it fifty
// neighbours, ten of them link-local, with 1,100 prefixes of each family, in 20 s and 400 MB (which the race detector does not allow).
func TestManyPrefixes(t *testing.T) {
	size := manySize{lan: 8, tunnels: 3, prefixes: 150}
	if os.Getenv("RLR_LONG") != "" {
		size = manySize{lan: 40, tunnels: 10, prefixes: 1100}
	}
	eachDataplane(t, func(t *testing.T, kind string) { size.play(t, kind) })
}

type manySize struct{ lan, tunnels, prefixes int }

// config is the router's, with a neighbour on the LAN left out, and a setting of the second one.
func (m manySize) config(kind string, socket func(string) string, without int, second string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
router: {name: r1, id: 172.20.0.1, as: 65000}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [172.20.0.1/32, "fd42::1/128"]}
  lan: {memif: {socket: %s, role: master}, addresses: [172.20.1.1/24, "fd42:1::1/64"]}
`, kind, socket("lan"))
	for n := range m.tunnels {
		fmt.Fprintf(&b, "  tun%d: {memif: {socket: %s, role: master}, addresses: [\"fe80::1/64\"], unnumbered: dum0}\n", n, socket(fmt.Sprint("tun", n)))
	}
	b.WriteString("bgp:\n  groups: {all: {families: [ipv4, ipv6], import: all, export: all, passive: true}}\n  neighbors:\n")
	for n := range m.lan + 1 {
		own := ""
		if n == 1 {
			own = second
		}
		if n != without {
			fmt.Fprintf(&b, "    - {name: lan%d, address: 172.20.1.%d, as: %d, group: all%s}\n", n, 2+n, m.as(n), own)
		}
	}
	for n := range m.tunnels {
		fmt.Fprintf(&b, "    - {name: tun%d, address: \"fe80::2\", interface: tun%d, as: %d, group: all}\n", n, n, m.as(m.lan+1+n))
	}
	return b.String()
}

// as is a neighbour's: those on the LAN, one that comes later, those on tunnels.
func (m manySize) as(n int) uint32 { return uint32(65001 + n) }

// announcements are the UPDATEs of a neighbour.
func (m manySize) announcements(n int) (all [][]byte) {
	var v4, v6 []netip.Prefix
	for j := range m.prefixes {
		v4 = append(v4, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(50 + n), byte(j >> 8), byte(j), 0}), 24))
		v6 = append(v6, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(n), byte(j >> 8), byte(j)}), 48))
	}
	hop4 := netip.AddrFrom4([4]byte{172, 20, 1, byte(2 + n)})
	hop6 := netip.AddrFrom16([16]byte{0xfd, 0x42, 0, 1, 15: byte(2 + n)})
	if n > m.lan {
		hop4, hop6 = netip.MustParseAddr("fe80::2"), netip.MustParseAddr("fe80::2")
	}
	for _, l := range []struct {
		hop      netip.Addr
		prefixes []netip.Prefix
	}{{hop4, v4}, {hop6, v6}} {
		for part := range slices.Chunk(l.prefixes, 400) {
			all = append(all, announcement(m.as(n), l.hop.AsSlice(), part...))
		}
	}
	return all
}

func (m manySize) play(t *testing.T, kind string) {
	dir := shortTemp(t)
	socket := func(name string) string { return filepath.Join(dir, name+".sock") }
	client := routerIn(t, dir, "r1", m.config(kind, socket, m.lan, ""))

	var addresses []string
	for n := range m.lan + 1 {
		addresses = append(addresses, fmt.Sprintf("172.20.1.%d/24", 2+n))
	}
	links := []vppagent.Interface{farLink("lan", socket("lan"), append(addresses, "fd42:1::2/64")...)}
	for n := range m.tunnels {
		links = append(links, farLink(fmt.Sprint("tun", n), socket(fmt.Sprint("tun", n)), "fe80::2/64"))
	}
	far := newFar(t, "far", links)
	begun := time.Now()
	speakers := map[int]*byteSpeaker{}
	onLAN := func(n int) *byteSpeaker {
		return far.speak("lan", fmt.Sprintf("172.20.1.%d", 2+n), "172.20.1.1", m.as(n))
	}
	for n := range m.lan {
		speakers[n] = onLAN(n)
	}
	for i := range m.tunnels {
		n := m.lan + 1 + i
		speakers[n] = far.speak(fmt.Sprint("tun", i), "fe80::2", "fe80::1", m.as(n))
	}
	up := time.Now()
	for n, s := range speakers {
		s.wg.Go(func() {
			for _, b := range m.announcements(n) {
				if err := s.send(b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all := len(speakers) * m.prefixes * 2
	var installed, told time.Duration
	awaiting(t, 3*time.Minute, func(ctx context.Context) error {
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if n := status.FIB.States[fib.Installed.String()]; n < all {
			return fmt.Errorf("%d of %d routes are installed", n, all)
		}
		installed = time.Since(up)
		return nil
	})
	awaiting(t, 3*time.Minute, func(context.Context) error {
		for n, s := range speakers {
			if heard := s.heard.Load(); heard < int64(all-2*m.prefixes) {
				return fmt.Errorf("neighbor %d has been told of %d prefixes of %d", n, heard, all-2*m.prefixes)
			}
		}
		told = time.Since(up)
		return nil
	})
	sessions, err := client.BGP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions {
		if s.Flaps != 0 || s.Advertised != uint64(all-2*m.prefixes) || s.Accepted != uint64(2*m.prefixes) {
			t.Errorf("%s: flaps %d, accepted %d, advertised %d (%s)", s.Name, s.Flaps, s.Accepted, s.Advertised, s.LastError)
		}
	}
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	most, mostShares := memoryOf(t, status)
	held, shares := most, mostShares
	limited := os.Getenv("RLR_LONG") != "" && !raced
	if limited { // what the work has left behind is given back
		awaiting(t, 20*time.Second-time.Since(up), func(context.Context) error {
			if held, shares = memoryOf(t, status); held > 400<<20 {
				return fmt.Errorf("%d MB: %v", held>>20, shares)
			}
			return nil
		})
	}
	t.Logf("%s %s: %d neighbors, sessions after %v; then %d routes installed after %v, all told after %v; memory then %d MB: %v; after %v %d MB: %v",
		kind, status.Dataplane.Version, len(speakers), up.Sub(begun).Round(time.Millisecond), all, installed.Round(time.Millisecond), told.Round(time.Millisecond),
		most>>20, mostShares, time.Since(up).Round(time.Millisecond), held>>20, shares)
	if limited && max(installed, told) > 20*time.Second {
		t.Error("that is more than 20 s")
	}

	// One neighbour goes, one gets another hold time, one comes: nothing happens to the others' sessions.
	since := map[string]time.Duration{}
	for _, s := range sessions {
		since[s.Name] = time.Duration(s.UptimeS * float64(time.Second))
	}
	before := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "r1.yaml"), []byte(m.config(kind, socket, 0, ", hold-time: 60s")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	speakers[1], speakers[m.lan] = onLAN(1), onLAN(m.lan)
	awaiting(t, time.Minute, func(ctx context.Context) error {
		sessions, err := client.BGP(ctx)
		if err != nil {
			return err
		}
		changed := map[string]bool{}
		for _, s := range sessions {
			if s.State != "Established" {
				return fmt.Errorf("%s is %s (%s)", s.Name, s.State, s.LastError)
			}
			if uptime := time.Duration(s.UptimeS * float64(time.Second)); uptime < time.Since(before) || since[s.Name] == 0 {
				changed[s.Name] = true
			}
			if s.Name == "lan0" {
				return fmt.Errorf("lan0 is still there: %+v", s)
			}
		}
		if want := map[string]bool{"lan1": true, fmt.Sprint("lan", m.lan): true}; len(sessions) != len(since) || !maps.Equal(changed, want) {
			return fmt.Errorf("%d sessions, changed: %v, want %v", len(sessions), changed, want)
		}
		return nil
	})
	awaiting(t, time.Minute, func(context.Context) error {
		want := int64(all - 4*m.prefixes) // without lan0's, and lan1's own are not there yet
		if heard := speakers[m.lan].heard.Load(); heard != want {
			return fmt.Errorf("the new neighbor has been told of %d prefixes, want %d", heard, want)
		}
		return nil
	})
}

// share is a process's of the memory.
type share struct {
	name string
	pss  uint64 // bytes
}

func (s share) String() string { return fmt.Sprintf("%s %d MB", s.name, s.pss>>20) }

// memoryOf is what the router, its VPP and its helpers take together, and each of them.
func memoryOf(t *testing.T, status ctl.Status) (total uint64, shares []share) {
	t.Helper()
	parents := map[int]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p != status.PID && p != status.Dataplane.PID {
				continue
			}
			_, pss, err := rootless.Memory(pid)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			shares = append(shares, share{strings.TrimSpace(string(name)), pss})
			total += pss
			break
		}
	}
	slices.SortFunc(shares, func(a, b share) int { return int(b.pss>>10) - int(a.pss>>10) })
	return total, shares
}
