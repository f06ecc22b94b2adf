package main

import (
	"context"
	"fmt"
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

func (m manySize) config(kind string, socket func(string) string) string {
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
	for n := range m.lan {
		fmt.Fprintf(&b, "    - {name: lan%d, address: 172.20.1.%d, as: %d, group: all}\n", n, 2+n, 65001+n)
	}
	for n := range m.tunnels {
		fmt.Fprintf(&b, "    - {name: tun%d, address: \"fe80::2\", interface: tun%d, as: %d, group: all}\n", n, n, 65001+m.lan+n)
	}
	return b.String()
}

// announcements are the UPDATEs of a neighbour.
func (m manySize) announcements(n int) (all [][]byte) {
	var v4, v6 []netip.Prefix
	for j := range m.prefixes {
		v4 = append(v4, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(50 + n), byte(j >> 8), byte(j), 0}), 24))
		v6 = append(v6, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(n), byte(j >> 8), byte(j)}), 48))
	}
	hop4 := netip.AddrFrom4([4]byte{172, 20, 1, byte(2 + n)})
	hop6 := netip.AddrFrom16([16]byte{0xfd, 0x42, 0, 1, 15: byte(2 + n)})
	if n >= m.lan {
		hop4, hop6 = netip.MustParseAddr("fe80::2"), netip.MustParseAddr("fe80::2")
	}
	for _, l := range []struct {
		hop      netip.Addr
		prefixes []netip.Prefix
	}{{hop4, v4}, {hop6, v6}} {
		for part := range slices.Chunk(l.prefixes, 400) {
			all = append(all, announcement(uint32(65001+n), l.hop.AsSlice(), part...))
		}
	}
	return all
}

func (m manySize) play(t *testing.T, kind string) {
	dir := shortTemp(t)
	socket := func(name string) string { return filepath.Join(dir, name+".sock") }
	client := routerIn(t, dir, "r1", m.config(kind, socket))

	var addresses []string
	for n := range m.lan {
		addresses = append(addresses, fmt.Sprintf("172.20.1.%d/24", 2+n))
	}
	links := []vppagent.Interface{farLink("lan", socket("lan"), append(addresses, "fd42:1::2/64")...)}
	for n := range m.tunnels {
		links = append(links, farLink(fmt.Sprint("tun", n), socket(fmt.Sprint("tun", n)), "fe80::2/64"))
	}
	far := newFar(t, "far", links)
	begun := time.Now()
	var speakers []*byteSpeaker
	for n := range m.lan {
		speakers = append(speakers, far.speak("lan", fmt.Sprintf("172.20.1.%d", 2+n), "172.20.1.1", uint32(65001+n)))
	}
	for n := range m.tunnels {
		speakers = append(speakers, far.speak(fmt.Sprint("tun", n), "fe80::2", "fe80::1", uint32(65001+m.lan+n)))
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
