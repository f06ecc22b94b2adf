package vppagent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// shown is what VPP 26.06 prints for "show session verbose 2 thread 0 proto tcp rmt fe80::2 force-print", shortened.
const shown = `[0:1][T] fe80::1:49152->fe80::2:179	SYN_SENT
 session: state: connecting opaque: 0x1 flags: half-open
[0:3][T] fe80::1:179->fe80::2:64336	ESTABLISHED
 index: 1 cfg_flags: No csum offload cong_algo: cubic snd_mss: 1428
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 2
 transport: flags: none
 Rx fifo: cursize 0 nitems 1048576 has_event 0
 session: state: ready opaque: 0x0 flags:
[0:4] CLOSED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 7
[0:5][T] fe80::1:179->fe80::2:6433	ESTABLISHED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 4294967295
[0:6][T] fe80::1:179->fe80::2:64337	CLOSED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 5
[0:7][CT:T] 10.0.0.1:179->10.0.0.2:1000	TIME_WAIT
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 1
[0:8][U] 10.0.0.1:53->10.0.0.2:53	-
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 3
[0:9][T] 10.0.0.1:1->10.0.0.2:2	ESTABLISHED
[0:10][T] fe80::1:179->fe80::2:65000	ESTABLISHED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 3
[0:11][T] fe80::1:179->fe80::2:65000	ESTABLISHED
 next_node 0 opaque 0x0 fib_index 1 sw_if_index 4
Thread 0: 8 sessions matched filter
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 9
`

func TestFindSessions(t *testing.T) {
	for _, test := range []struct {
		local, remote string
		want          []uint32
	}{
		{"[fe80::1]:179", "[fe80::2]:64336", []uint32{2}},
		{"[fe80::1%tun1]:179", "[fe80::2%tun1]:64336", []uint32{2}},
		{"[fe80::1]:49152", "[fe80::2]:179", []uint32{noInterface}}, // half-open: not told
		{"[fe80::1]:179", "[fe80::2]:6433", []uint32{noInterface}},  // ~0, and not the longer port's
		{"[fe80::1]:179", "[fe80::2]:64337", nil},
		{"[fe80::2]:64336", "[fe80::1]:179", nil},
		{"[fe80::1]:179", "[fe80::2]:65000", []uint32{3, 4}}, // of two tables
		{"10.0.0.1:179", "10.0.0.2:1000", []uint32{1}},
		{"10.0.0.1:53", "10.0.0.2:53", nil},
		{"10.0.0.1:1", "10.0.0.2:2", []uint32{noInterface}},
		{"10.0.0.1:17", "10.0.0.2:1000", nil},
	} {
		got := findSessions(shown, netip.MustParseAddrPort(test.local), netip.MustParseAddrPort(test.remote))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s to %s: %d, want %d", test.local, test.remote, got, test.want)
		}
	}
}

func FuzzFindSessions(f *testing.F) {
	f.Add(shown)
	f.Add("[0:3][T] fe80::1:179->fe80::2:64336\n sw_if_index 99999999999999999999")
	local, remote := netip.MustParseAddrPort("[fe80::1]:179"), netip.MustParseAddrPort("[fe80::2]:64336")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(findSessions(text, local, remote)); n > strings.Count(text, "->") {
			t.Errorf("%d sessions", n)
		}
	})
}
