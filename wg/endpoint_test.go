package wg

import (
	"net/netip"
	"strings"
	"testing"
)

func TestTracker(t *testing.T) {
	a, b, c := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.3:1")
	var none netip.AddrPort
	type step struct {
		resolved []netip.AddrPort
		current  netip.AddrPort
		shook    bool
		failing  bool
		want     netip.AddrPort // none: no change
	}
	list := func(l ...netip.AddrPort) []netip.AddrPort { return l }
	tests := []struct {
		name  string
		steps []step
	}{
		{"nothing known", []step{{nil, none, false, false, none}, {nil, a, true, true, none}}},
		{"first", []step{{list(a, b), none, false, false, a}, {list(a, b), a, true, false, none}}},
		{"first although failing", []step{{list(a, b), none, false, true, a}}},
		{"one address, failing", []step{{list(a), none, false, false, a}, {list(a), a, false, true, none}}},
		{"next when failing", []step{
			{list(a, b, c), none, false, false, a},
			{list(a, b, c), a, false, true, b},
			{list(a, b, c), b, false, true, c},
			{list(a, b, c), c, false, true, a},
		}},
		{"name changes while all is well", []step{{list(a), none, false, false, a}, {list(b), a, true, false, b}}},
		{"order of a name's addresses changes", []step{{list(a, b), none, false, false, a}, {list(b, a), a, true, false, none}}},
		{"peer has moved and is well", []step{{list(a), none, false, false, a}, {list(b), c, true, false, none}}},
		{"peer has moved and is gone", []step{
			{list(a), none, false, false, a},
			{list(a), c, true, false, none},
			{list(a), c, true, true, a},
			{list(a), a, true, true, c}, // back where it was good
			{list(a), c, true, true, a},
		}},
		{"a place that never was good is forgotten", []step{
			{list(a), none, false, false, a},
			{list(a), a, false, false, none},
			{list(b), a, false, true, b},
			{list(b), b, false, true, none},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tr tracker
			for k, s := range tt.steps {
				got, change := tr.next(s.resolved, s.current, s.shook, s.failing)
				if change != s.want.IsValid() || change && got != s.want {
					t.Errorf("step %d: %v %v, want %v", k, got, change, s.want)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	var r fakeResolver
	r.set("2001:db8::1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2")
	tests := []struct {
		endpoint, local string
		want            string
		err             string
	}{
		{"site.example:7", "", "[2001:db8::1]:7 192.0.2.1:7 192.0.2.2:7", ""},
		{"site.example:7", "::", "[2001:db8::1]:7 192.0.2.1:7 192.0.2.2:7", ""},
		{"site.example:7", "127.0.0.1", "192.0.2.1:7 192.0.2.2:7", ""},
		{"site.example:7", "::1", "[2001:db8::1]:7", ""},
		{"other.example:7", "", "", "no such host"},
		{"192.0.2.9:7", "", "192.0.2.9:7", ""},
		{"[::ffff:192.0.2.9]:7", "0.0.0.0", "192.0.2.9:7", ""},
		{"192.0.2.9:7", "::1", "", "family"},
		{"[fe80::1%eth0]:7", "::", "[fe80::1%eth0]:7", ""},
	}
	for _, tt := range tests {
		target, err := parseTarget(tt.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		var local netip.Addr
		if tt.local != "" {
			local = netip.MustParseAddr(tt.local)
		}
		got, err := target.resolve(t.Context(), &r, local)
		var text []string
		for _, a := range got {
			text = append(text, a.String())
		}
		if strings.Join(text, " ") != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s on %q: %v, %v", tt.endpoint, tt.local, text, err)
		}
	}
	if r.asked.Load() != 5 {
		t.Errorf("asked %d times: addresses need no resolver", r.asked.Load())
	}
}

func TestStateOfWireGuard(t *testing.T) {
	s := readState("private_key=00\nlisten_port=1\npublic_key=11\nendpoint=[fe80::1%2]:9\nlast_handshake_time_sec=5\nlast_handshake_time_nsec=7\ntx_bytes=3\nrx_bytes=4\n")
	if s.endpoint != netip.MustParseAddrPort("[fe80::1%2]:9") || s.handshake.UnixNano() != 5e9+7 || s.txBytes != 3 || s.rxBytes != 4 {
		t.Errorf("%+v", s)
	}
	if s := readState("last_handshake_time_sec=0\nlast_handshake_time_nsec=0\nendpoint=x\ntx_bytes=y\n"); s != (peerState{}) {
		t.Errorf("%+v", s)
	}
}
