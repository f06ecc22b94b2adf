package plane

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go.fd.io/govpp/api"
)

// model is the FIB, slow and obvious: a list of holdings.
type model struct {
	held map[netip.Prefix]map[uint8][]Path
	prio func(uint8) uint8
}

func (m *model) best(pfx netip.Prefix) (uint8, []Path, bool) {
	found, src := false, uint8(0)
	for s := range m.held[pfx] {
		if !found || m.prio(s) < m.prio(src) || (m.prio(s) == m.prio(src) && s < src) {
			found, src = true, s
		}
	}
	return src, m.held[pfx][src], found
}

func (m *model) lookup(a netip.Addr) (netip.Prefix, bool) {
	var best netip.Prefix
	ok := false
	for pfx := range m.held {
		if len(m.held[pfx]) > 0 && pfx.Contains(a) && (!ok || pfx.Bits() > best.Bits()) {
			best, ok = pfx, true
		}
	}
	return best, ok
}

// TestFIBModel compares tables with the model under random changes by several sources.
func TestFIBModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		r := newRig(t)
		var idx []uint32
		for range 3 {
			idx = append(idx, r.port())
		}
		private := must(r.AddSource("rlr", 0x90))
		srcs := []uint8{SourceAPI, SourceCLI, private}
		ip6 := seed%2 == 1
		m := &model{held: map[netip.Prefix]map[uint8][]Path{}, prio: func(s uint8) uint8 { return r.Sources()[s].Priority }}
		r.ok(r.Routes(0, ip6, func(e RouteEntry) bool {
			m.held[e.Prefix] = map[uint8][]Path{e.Source: e.Paths}
			return true
		}))
		rng := rand.New(rand.NewPCG(seed, 1))
		addr := func() netip.Addr {
			var b [16]byte
			put32(b[:], 0x0a000000|rng.Uint32()&0x00030303)
			if ip6 {
				b[0] = 0x20
				return netip.AddrFrom16(b)
			}
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		path := func() Path { return via(addr().String(), idx[rng.IntN(3)]) }
		for step := range 3000 {
			a := addr()
			pfx := netip.PrefixFrom(a, rng.IntN(33)).Masked()
			src := srcs[rng.IntN(3)]
			u := RouteUpdate{Source: src, Multipath: rng.IntN(2) == 0}
			for range 1 + rng.IntN(2) {
				if p := path(); !slices.Contains(u.Paths, p) {
					u.Paths = append(u.Paths, p)
				}
			}
			have := m.held[pfx]
			if have == nil {
				have = map[uint8][]Path{}
				m.held[pfx] = have
			}
			if rng.IntN(3) > 0 {
				must(r.AddRoute(0, pfx, u))
				paths := u.Paths
				if u.Multipath {
					for _, p := range have[src] {
						if !slices.Contains(paths, p) {
							paths = append(slices.Clone(paths), p)
						}
					}
				}
				slices.SortFunc(paths, comparePaths)
				have[src] = paths
			} else {
				must(r.DelRoute(0, pfx, u))
				if u.Multipath {
					have[src] = slices.DeleteFunc(slices.Clone(have[src]), func(p Path) bool { return slices.Contains(u.Paths, p) })
				} else {
					have[src] = nil
				}
				if len(have[src]) == 0 {
					delete(have, src)
				}
			}
			a = addr()
			want, ok := m.lookup(a)
			got, err := r.Lookup(0, a)
			if ok != (err == nil) || got.Prefix != want {
				t.Fatalf("seed %d step %d: lookup %v gave %v (%v), want %v", seed, step, a, got.Prefix, err, want)
			}
			s, paths, _ := m.best(want)
			if got.Source != s || !slices.Equal(got.Paths, paths) || len(got.Sources) != len(m.held[want]) {
				t.Fatalf("seed %d step %d: %v: %+v, want source %d paths %v", seed, step, want, got, s, paths)
			}
		}
		n := 0
		var last netip.Prefix
		r.ok(r.Routes(0, ip6, func(e RouteEntry) bool {
			if c := e.Prefix.Addr().Compare(last.Addr()); n > 0 && (c < 0 || (c == 0 && e.Prefix.Bits() <= last.Bits())) {
				t.Errorf("%v after %v", e.Prefix, last)
			}
			last = e.Prefix
			n++
			return true
		}))
		want := 0
		for _, h := range m.held {
			if len(h) > 0 {
				want++
			}
		}
		if n != want {
			t.Errorf("%d entries, want %d", n, want)
		}
		// Everything deleted: what is left are the specials, and no path list leaks.
		for pfx, h := range m.held {
			for s := range h {
				must(r.DelRoute(0, pfx, RouteUpdate{Source: s}))
			}
		}
		for _, l := range r.lists {
			if l.refs <= 0 || l.paths[0].Type != PathDrop {
				t.Errorf("leaked %+v refs %d", l.paths, l.refs)
			}
		}
	}
}

// hopsOf sends flows and counts the frames of each port.
func hopsOf(r *rig, dst string, flows int) []int {
	for k := range flows {
		r.send(0, ip4("10.1.0.2", dst, protoUDP, 64, udp(uint16(1000+k), 9, 1)))
	}
	r.allOut(flows)
	out := make([]int, len(r.ports))
	for k, p := range r.ports {
		out[k] = len(p.out)
		for range out[k] {
			<-p.out
		}
	}
	return out
}

// allOut waits until so many frames are in the ports' hands.
func (r *rig) allOut(want int) {
	r.tb.Helper()
	eventually(r.tb, "all frames leave", func() bool {
		n := 0
		for _, p := range r.ports {
			n += len(p.out)
		}
		return n >= want
	})
}

func TestECMP(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24")
	var idx []uint32
	for k := 1; k <= 3; k++ {
		i := r.port(sprintf("10.2.%d.1/24", k))
		r.near(i, sprintf("10.2.%d.2", k), k)
		idx = append(idx, i)
	}
	weighted := func(w ...uint8) []Path {
		var p []Path
		for k, x := range w {
			v := via(sprintf("10.2.%d.2", k+1), idx[k])
			v.Weight = x
			p = append(p, v)
		}
		return p
	}
	near := func(got, want int) bool { return got > want*8/10 && got < want*12/10 }
	r.route("192.0.2.0/24", weighted(1, 1, 1)...)
	if n := hopsOf(r, "192.0.2.1", 3000); !near(n[1], 1000) || !near(n[2], 1000) || !near(n[3], 1000) || n[0] != 0 {
		t.Errorf("equal: %v", n)
	}
	r.route("192.0.2.0/24", weighted(1, 2, 3)...)
	if n := hopsOf(r, "192.0.2.1", 3000); !near(n[1], 500) || !near(n[2], 1000) || !near(n[3], 1500) {
		t.Errorf("1:2:3: %v", n)
	}
	r.route("192.0.2.0/24", weighted(200, 100)...)
	if n := hopsOf(r, "192.0.2.1", 3000); !near(n[1], 2000) || !near(n[2], 1000) {
		t.Errorf("200:100: %v", n)
	}
	// A flow stays on its path.
	for range 50 {
		r.send(0, ip4("10.1.0.2", "192.0.2.7", protoUDP, 64, udp(7, 9, 1)))
	}
	r.allOut(50)
	if a, b := len(r.ports[1].out), len(r.ports[2].out); a+b != 50 || a*b != 0 {
		t.Errorf("one flow on two paths: %d and %d", a, b)
	}
	hopsOf(r, "192.0.2.1", 0)
	// Interface down: its path is not used, without a change to the route.
	r.ok(r.SetAdmin(idx[0], false))
	if n := hopsOf(r, "192.0.2.1", 100); n[1] != 0 || n[2] != 100 {
		t.Errorf("after down: %v", n)
	}
	r.ok(r.SetAdmin(idx[0], true))
	// Preference: the worse path only when the better cannot.
	p := weighted(1, 1)
	p[1].Preference = 1
	r.route("192.0.2.0/24", p...)
	if n := hopsOf(r, "192.0.2.1", 100); n[1] != 100 {
		t.Errorf("preference: %v", n)
	}
	r.ok(r.SetAdmin(idx[0], false))
	if n := hopsOf(r, "192.0.2.1", 100); n[2] != 100 {
		t.Errorf("backup: %v", n)
	}
	r.ok(r.SetAdmin(idx[0], true))
	// Recursive through a weighted pair.
	r.route("198.51.100.0/24", via("192.0.2.9", NoInterface))
	r.route("192.0.2.0/24", weighted(1, 3)...)
	if n := hopsOf(r, "198.51.100.1", 2000); !near(n[1], 500) || !near(n[2], 1500) {
		t.Errorf("recursive: %v", n)
	}
	r.route("192.0.2.0/24", weighted(1)...)
	if n := hopsOf(r, "198.51.100.1", 100); n[1] != 100 {
		t.Errorf("recursive after a change below: %v", n)
	}
}

// TestRecursion: loops, self-references and depth do not hang and do not forward; the default entry resolves nothing.
func TestRecursion(t *testing.T) {
	r := twoPorts(t)
	fate := func(dst string, want verdict) {
		t.Helper()
		w := r.begin()
		h, _ := w.lookup(r.tables[tableKey{0, false}], mustAddr(dst), ip4("10.1.0.2", dst, protoUDP, 64, udp(1, 2, 3)))
		w.finish()
		if h.verdict != want {
			t.Errorf("%s: %v, want %v", dst, h.verdict, want)
		}
	}
	r.route("20.0.0.0/8", via("21.0.0.1", NoInterface))
	r.route("21.0.0.0/8", via("20.0.0.1", NoInterface))
	fate("20.0.0.9", verdictDrop)
	r.route("22.0.0.0/8", via("22.0.0.1", NoInterface))
	fate("22.0.0.9", verdictDrop)
	r.route("23.0.0.0/8", via("99.0.0.1", NoInterface))
	fate("23.0.0.9", verdictDrop)
	for k := 30; k < 50; k++ {
		r.route(sprintf("%d.0.0.0/8", k), via(sprintf("%d.0.0.1", k+1), NoInterface))
	}
	r.route("50.0.0.0/8", via("10.2.0.2", 2))
	fate("30.0.0.1", verdictDrop)
	fate("45.0.0.1", verdictTransmit)
	r.route("60.0.0.0/8", via("10.2.0.77", NoInterface)) // resolves through the connected prefix
	fate("60.0.0.1", verdictTransmit)
	r.route("61.0.0.0/8", via("10.2.0.1", NoInterface)) // our own address
	fate("61.0.0.1", verdictDrop)
	r.route("62.0.0.0/8", Path{SwIfIndex: NoInterface, TableID: 0}) // again in the same table
	fate("62.0.0.1", verdictDrop)
	r.ok(r.AddTable(5, false, ""))
	r.route("63.0.0.0/8", Path{SwIfIndex: NoInterface, TableID: 5})
	must(r.AddRoute(5, mustPrefix("63.1.0.0/16"), RouteUpdate{Paths: []Path{via("10.2.0.2", 2)}}))
	fate("63.1.0.1", verdictTransmit)
	fate("63.2.0.1", verdictNoRoute)
	r.ok(r.DelTable(5, false))
	fate("63.1.0.1", verdictDrop)
}

// TestDeletedInterface: a route over a deleted interface stays dead when the index is used again, and new routes over the new
// interface live.
func TestDeletedInterface(t *testing.T) {
	r := twoPorts(t)
	r.route("192.0.2.0/24", via("10.2.0.2", 2))
	r.ok(r.DetachPort(2))
	r.ports = r.ports[:1]
	if idx := r.port("10.2.0.1/24"); idx != 2 {
		t.Fatalf("index %d is not used again", idx)
	}
	r.near(2, "10.2.0.2", 1)
	r.send(0, ip4("10.1.0.2", "192.0.2.1", protoUDP, 64, udp(1, 2, 3)))
	r.quiet(0, "10.1.0.1")
	r.route("198.51.100.0/24", via("10.2.0.2", 2)) // the very same path
	r.send(0, ip4("10.1.0.2", "198.51.100.1", protoUDP, 64, udp(1, 2, 3)))
	r.expectIP(1)
	r.route("192.0.2.0/24", via("10.2.0.2", 2)) // the route put anew
	r.send(0, ip4("10.1.0.2", "192.0.2.1", protoUDP, 64, udp(1, 2, 3)))
	r.expectIP(1)
}

func TestRouteErrors(t *testing.T) {
	r := twoPorts(t)
	p := mustPrefix("192.0.2.0/24")
	for _, tt := range []struct {
		name  string
		table uint32
		u     RouteUpdate
		want  error
	}{
		{"no table", 9, RouteUpdate{Paths: []Path{via("10.2.0.2", 2)}}, api.NO_SUCH_FIB},
		{"no interface", 0, RouteUpdate{Paths: []Path{via("10.2.0.2", 99)}}, api.NO_MATCHING_INTERFACE},
		{"no source", 0, RouteUpdate{Source: 99, Paths: []Path{via("10.2.0.2", 2)}}, api.INVALID_VALUE},
		{"no paths", 0, RouteUpdate{}, errNoPaths},
		{"no table of the next hop", 0, RouteUpdate{Paths: []Path{{SwIfIndex: NoInterface, TableID: 9}}}, api.NO_SUCH_FIB},
	} {
		if _, err := r.AddRoute(tt.table, p, tt.u); err != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := r.DelRoute(0, p, RouteUpdate{}); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
	if _, err := r.LookupExact(0, p); err != api.NO_SUCH_ENTRY {
		t.Error(err)
	}
	if err := r.Routes(9, false, nil); err != api.NO_SUCH_FIB {
		t.Error(err)
	}
	for k := range 300 {
		if _, err := r.AddSource("x", 1); err != nil {
			if err != api.LIMIT_EXCEEDED || k != 255-len(fixedSources) {
				t.Errorf("source %d: %v", k, err)
			}
			break
		}
	}
}

// TestConnectedRoutes: a fresh table has what VPP's has, and the connected routes follow the addresses.
func TestConnectedRoutes(t *testing.T) {
	list := func(r *rig, ip6 bool) map[string]string {
		out := map[string]string{}
		r.ok(r.Routes(0, ip6, func(e RouteEntry) bool {
			s := r.Sources()[e.Source].Name
			for _, p := range e.Paths {
				switch {
				case p.Type == PathDrop:
					s += " drop"
				case p.Type == PathLocal:
					s += sprintf(" local %v dev %d", p.Addr, p.SwIfIndex)
				case p.Addr.IsValid():
					s += sprintf(" via %v dev %d", p.Addr, p.SwIfIndex)
				default:
					s += sprintf(" dev %d", p.SwIfIndex)
				}
			}
			out[e.Prefix.String()] = s
			return true
		}))
		return out
	}
	r := newRig(t)
	fresh4 := map[string]string{
		"0.0.0.0/0": "default-route drop", "0.0.0.0/32": "default-route drop", "224.0.0.0/4": "special drop",
		"240.0.0.0/4": "special drop", "255.255.255.255/32": "default-route drop",
	}
	fresh6 := map[string]string{"::/0": "default-route drop", "fe80::/10": "special drop"}
	check := func(ip6 bool, fresh, more map[string]string) {
		t.Helper()
		got := list(r, ip6)
		for k, v := range fresh {
			if got[k] != v {
				t.Errorf("%s: %q, want %q", k, got[k], v)
			}
			delete(got, k)
		}
		for k, v := range more {
			if got[k] != v {
				t.Errorf("%s: %q, want %q", k, got[k], v)
			}
			delete(got, k)
		}
		if len(got) > 0 {
			t.Errorf("also %v", got)
		}
	}
	check(false, fresh4, nil)
	check(true, fresh6, nil)
	idx := r.port("10.1.0.1/24", "10.1.0.9/24", "10.3.0.1/31", "10.4.0.1/32", "2001:db8::1/64", "2001:db8:1::1/128")
	want4 := map[string]string{
		"10.1.0.0/24": "interface dev 1", "10.1.0.0/32": "interface drop", "10.1.0.255/32": "interface drop",
		"10.1.0.1/32": "interface local 10.1.0.1 dev 1", "10.1.0.9/32": "interface local 10.1.0.9 dev 1",
		"10.3.0.0/31": "interface dev 1", "10.3.0.0/32": "interface via 10.3.0.0 dev 1", "10.3.0.1/32": "interface local 10.3.0.1 dev 1",
		"10.4.0.1/32": "interface local 10.4.0.1 dev 1",
	}
	want6 := map[string]string{
		"2001:db8::/64": "interface dev 1", "2001:db8::1/128": "interface local 2001:db8::1 dev 1",
		"2001:db8:1::1/128": "interface local 2001:db8:1::1 dev 1",
	}
	check(false, fresh4, want4)
	check(true, fresh6, want6)
	r.ok(r.SetAdmin(idx, false))
	check(false, fresh4, nil)
	check(true, fresh6, nil)
	r.ok(r.SetAdmin(idx, true))
	r.ok(r.DelAddress(idx, mustPrefix("10.1.0.1/24")))
	delete(want4, "10.1.0.1/32")
	check(false, fresh4, want4) // the prefix stays for the other address
	r.ok(r.DelAddress(idx, mustPrefix("10.1.0.9/24")))
	for _, k := range []string{"10.1.0.0/24", "10.1.0.0/32", "10.1.0.255/32", "10.1.0.9/32"} {
		delete(want4, k)
	}
	check(false, fresh4, want4)
	// An API route for the same prefix waits behind, and comes forward.
	r.route("10.3.0.0/31", Path{Type: PathDrop})
	check(false, fresh4, want4)
	r.ok(r.DelAllAddresses(idx))
	check(false, fresh4, map[string]string{"10.3.0.0/31": "API drop"})
	check(true, fresh6, nil)
}
