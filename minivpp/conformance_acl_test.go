package minivpp_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/adapter/statsclient"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/acl_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/ip_neighbor"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// anyNew is the index of an ACL that is to be made.
const anyNew = ^uint32(0)

// rule makes an ACL's rule of "deny|permit|reflect SRC DST PROTO FIRST-FIRST SECOND-SECOND".
func rule(text string) acl_types.ACLRule {
	var action, src, dst string
	var r acl_types.ACLRule
	_, err := fmt.Sscanf(text, "%s %s %s %d %d-%d %d-%d", &action, &src, &dst, &r.Proto,
		&r.SrcportOrIcmptypeFirst, &r.SrcportOrIcmptypeLast, &r.DstportOrIcmpcodeFirst, &r.DstportOrIcmpcodeLast)
	if err != nil {
		panic(err)
	}
	r.IsPermit = acl_types.ACLAction(slices.Index([]string{"deny", "permit", "reflect"}, action))
	r.SrcPrefix, r.DstPrefix = binapi.ToPrefix(netip.MustParsePrefix(src)), binapi.ToPrefix(netip.MustParsePrefix(dst))
	return r
}

// both makes rules for IPv4 and IPv6 of texts with "any" for all addresses of a family.
func both(texts ...string) (rules []acl_types.ACLRule) {
	for _, t := range texts {
		rules = append(rules, rule(strings.ReplaceAll(t, "any", "0.0.0.0/0")), rule(strings.ReplaceAll(t, "any", "::/0")))
	}
	return rules
}

// filters are requests of the acl plugin.
type filters struct {
	*vpp
	acl.RPCService
}

func (v *vpp) filters() *filters { return &filters{v, acl.NewServiceClient(v.conn)} }

// replace makes an ACL, or replaces the one with an index.
func (f *filters) replace(index uint32, rules ...acl_types.ACLRule) (uint32, error) {
	r, err := f.ACLAddReplace(f.ctx, &acl.ACLAddReplace{ACLIndex: index, Tag: "test", Count: uint32(len(rules)), R: rules})
	if err != nil {
		return index, err
	}
	return r.ACLIndex, nil
}

func (f *filters) make(rules ...acl_types.ACLRule) uint32 {
	f.t.Helper()
	index, err := f.replace(anyNew, rules...)
	f.ok(err, "acl_add_replace")
	return index
}

func (f *filters) apply(idx interfaceIndex, in, out []uint32) error {
	_, err := f.ACLInterfaceSetACLList(f.ctx, &acl.ACLInterfaceSetACLList{
		SwIfIndex: idx, Count: uint8(len(in) + len(out)), NInput: uint8(len(in)), Acls: slices.Concat(in, out),
	})
	return err
}

// count turns the counters on. VPP answers with another message than it should, which govpp does not take.
func (f *filters) count() {
	f.t.Helper()
	_, err := f.ACLStatsIntfCountersEnable(f.ctx, &acl.ACLStatsIntfCountersEnable{Enable: true})
	if err != nil && !strings.Contains(err.Error(), "acl_del_reply") {
		f.t.Fatalf("acl_stats_intf_counters_enable: %v", err)
	}
}

// TestACLErrors is what is refused, and how.
func TestACLErrors(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		f := v.filters()
		version, err := f.ACLPluginGetVersion(v.ctx, &acl.ACLPluginGetVersion{})
		v.ok(err, "acl_plugin_get_version")
		if version.Major != 1 || version.Minor != 4 {
			t.Errorf("version %d.%d", version.Major, version.Minor)
		}
		table, err := f.ACLPluginGetConnTableMaxEntries(v.ctx, &acl.ACLPluginGetConnTableMaxEntries{})
		v.ok(err, "acl_plugin_get_conn_table_max_entries")
		if table.ConnTableMaxEntries < 1000 {
			t.Errorf("%d flows", table.ConnTableMaxEntries)
		}

		good := rule("permit 10.0.0.0/8 0.0.0.0/0 6 0-65535 80-90")
		for what, c := range map[string]struct {
			change func(*acl_types.ACLRule)
			want   api.VPPApiError
		}{
			"IPv4 source longer than 32":  {func(r *acl_types.ACLRule) { r.SrcPrefix.Len = 33 }, api.INVALID_SRC_ADDRESS},
			"IPv4 destination too long":   {func(r *acl_types.ACLRule) { r.DstPrefix.Len = 64 }, api.INVALID_DST_ADDRESS},
			"destination of no family":    {func(r *acl_types.ACLRule) { r.DstPrefix.Address.Af = 7 }, api.INVALID_DST_ADDRESS},
			"two families":                {func(r *acl_types.ACLRule) { r.DstPrefix = binapi.ToPrefix(netip.MustParsePrefix("::/0")) }, api.INVALID_SRC_ADDRESS},
			"source ports the wrong way":  {func(r *acl_types.ACLRule) { r.SrcportOrIcmptypeFirst, r.SrcportOrIcmptypeLast = 2, 1 }, api.INVALID_VALUE_2},
			"destination ports, the same": {func(r *acl_types.ACLRule) { r.DstportOrIcmpcodeLast = 1 }, api.INVALID_VALUE_2},
		} {
			bad := good
			c.change(&bad)
			_, err := f.replace(anyNew, good, bad)
			v.want(err, c.want, what)
		}
		_, err = f.replace(77, good)
		v.want(err, api.NO_SUCH_ENTRY, "replace what is not there")
		_, err = f.ACLAddReplace(v.ctx, &acl.ACLAddReplace{ACLIndex: anyNew, Tag: strings.Repeat("x", 64)})
		v.want(err, api.INVALID_VALUE, "a tag without an end")

		a, b := f.make(good), f.make()
		if a == b {
			t.Errorf("two ACLs with the index %d", a)
		}
		lo := v.loopback("10.1.0.1/24")
		v.want(f.apply(77, []uint32{a}, nil), api.INVALID_SW_IF_INDEX, "an interface that is not there")
		v.want(f.apply(lo, []uint32{a, 77}, nil), api.NO_SUCH_ENTRY, "an ACL that is not there")
		v.want(f.apply(lo, []uint32{a, a}, nil), 1, "an ACL twice")
		v.ok(f.apply(lo, []uint32{a, b}, []uint32{b}), "apply")
		if got := f.applied(lo); got != fmt.Sprint([]uint32{a, b}, []uint32{b}) {
			t.Errorf("applied: %s", got)
		}
		_, err = f.ACLDel(v.ctx, &acl.ACLDel{ACLIndex: a})
		v.want(err, api.ACL_IN_USE_INBOUND, "delete what is applied to input")
		v.ok(f.apply(lo, []uint32{a}, []uint32{b}), "apply less")
		_, err = f.ACLDel(v.ctx, &acl.ACLDel{ACLIndex: b})
		v.want(err, api.ACL_IN_USE_OUTBOUND, "delete what is applied to output")
		again, err := f.replace(a, good, good)
		v.ok(err, "replace")
		if again != a || len(f.dump(a)) != 2 {
			t.Errorf("replaced %d: index %d, rules %v", a, again, f.dump(a))
		}
		if got := f.dump(a)[1]; got != good {
			t.Errorf("dumped as %+v", got)
		}

		_, err = f.ACLDel(v.ctx, &acl.ACLDel{ACLIndex: 77})
		v.want(err, api.NO_SUCH_ENTRY, "delete what is not there")
		_, err = v.ifc.DeleteLoopback(v.ctx, &interfaces.DeleteLoopback{SwIfIndex: lo})
		v.ok(err, "delete the interface")
		for _, index := range []uint32{a, b} {
			_, err = f.ACLDel(v.ctx, &acl.ACLDel{ACLIndex: index})
			v.ok(err, "delete")
		}
		if f.dump(anyNew) != nil {
			t.Errorf("left: %v", f.dump(anyNew))
		}
		if got := f.applied(0); got != "[] []" {
			t.Errorf("local0 has %s", got)
		}
	})
}

// dump returns the rules of one ACL, or of all.
func (f *filters) dump(index uint32) (rules []acl_types.ACLRule) {
	f.t.Helper()
	r, err := f.ACLDump(f.ctx, &acl.ACLDump{ACLIndex: index})
	for _, d := range all[acl.ACLDetails](f.t, r, err) {
		if d.Tag != "test" || int(d.Count) != len(d.R) {
			f.t.Errorf("dumped: %+v", d)
		}
		rules = append(rules, d.R...)
	}
	return rules
}

// applied is an interface's list: input, output.
func (f *filters) applied(idx interfaceIndex) (text string) {
	f.t.Helper()
	r, err := f.ACLInterfaceListDump(f.ctx, &acl.ACLInterfaceListDump{SwIfIndex: idx})
	for _, d := range all[acl.ACLInterfaceListDetails](f.t, r, err) {
		text += fmt.Sprint(d.Acls[:d.NInput], d.Acls[d.NInput:])
	}
	return text
}

// cables is a dataplane between two cables, with neighbours at their far ends.
type cables struct {
	*filters
	lan, wan *port
	id       uint16 // of the latest packet
}

const (
	lan4, wan4 = "10.1.0.2", "10.2.0.2"
	lan6, wan6 = "fd42:1::2", "fd42:2::2"
)

func (v *vpp) cables(d *dataplanetest.Dataplane) *cables {
	v.t.Helper()
	c := &cables{filters: v.filters(), lan: v.plug(d, 1, "10.1.0.1/24", v.waitLink), wan: v.plug(d, 2, "10.2.0.1/24", v.waitLink)}
	v.ok(v.address(c.lan.idx, "fd42:1::1/64", true), "address")
	v.ok(v.address(c.wan.idx, "fd42:2::1/64", true), "address")
	for _, n := range []struct {
		p    *port
		addr string
	}{{c.lan, lan4}, {c.lan, lan6}, {c.wan, wan4}, {c.wan, wan6}} {
		_, err := ip_neighbor.NewServiceClient(v.conn).IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{
			IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
				SwIfIndex: n.p.idx, Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC, MacAddress: [6]byte{2, 0, 0, 0, 0, 0xbb},
				IPAddress: binapi.ToAddress(netip.MustParseAddr(n.addr)),
			},
		})
		v.ok(err, "neighbour")
	}
	c.count()
	return c
}

// sample is a packet: "PROTO SRC>DST FIRST SECOND", and what is special of it.
type sample struct {
	proto    uint8
	src, dst string
	ports    [2]uint16 // or ICMP's type and code
	flags    uint8     // of TCP
	later    bool      // a fragment that is not the first
	behind   bool      // an IPv6 destination options header
}

// payload is what follows the IP header, before the packet's own number.
const payloadLen = 24

// frame makes the packet with a number at its end.
func (s sample) frame(mac [6]byte, id uint16) []byte {
	p := make([]byte, payloadLen)
	switch s.proto {
	case 1, 58:
		p[0], p[1] = byte(s.ports[0]), byte(s.ports[1])
	case 6, 17:
		binary.BigEndian.PutUint16(p, s.ports[0])
		binary.BigEndian.PutUint16(p[2:], s.ports[1])
		p[13] = s.flags
		if s.proto == 17 {
			binary.BigEndian.PutUint16(p[4:], payloadLen)
			p[13] = 0
		}
	}
	binary.BigEndian.PutUint16(p[payloadLen-2:], id)
	src, dst := netip.MustParseAddr(s.src), netip.MustParseAddr(s.dst)
	f := append(append(mac[:], 2, 0, 0, 0, 0, 0xaa), 0x08, 0)
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, s.proto
		binary.BigEndian.PutUint16(h[2:], 20+payloadLen)
		binary.BigEndian.PutUint16(h[4:], id)
		if s.later {
			binary.BigEndian.PutUint16(h[6:], 100)
		}
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(h[i:]))
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
		return slices.Concat(f, h, p)
	}
	binary.BigEndian.PutUint16(f[12:], 0x86dd)
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, s.proto, 64
	var ext []byte
	switch {
	case s.later:
		h[6], ext = 44, []byte{s.proto, 0, 100 >> 5, 100 << 3 & 0xff, 0, 0, 0, byte(id)}
	case s.behind:
		h[6], ext = 60, []byte{s.proto, 0, 1, 4, 0, 0, 0, 0}
	}
	binary.BigEndian.PutUint16(h[4:], uint16(payloadLen+len(ext)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return slices.Concat(f, h, ext, p)
}

// markers are packets that every filter of the tests lets through: when one is here, what came before it of its family is, too.
var markers = []sample{{proto: 99, src: lan4, dst: wan4}, {proto: 99, src: lan6, dst: wan6}}

// passMarkers are rules for them.
var passMarkers = both("permit any any 99 0-0 0-0")

// through sends packets from one side to the other, and tells which came out.
func (c *cables) through(from, to *port, samples ...sample) (passed []bool) {
	c.t.Helper()
	ends := slices.Clone(markers)
	for i := range ends {
		if from == c.wan {
			ends[i].src, ends[i].dst = ends[i].dst, ends[i].src
		}
	}
	first, missing := c.id, len(ends)
	for _, s := range slices.Concat(samples, ends) {
		from.send(c.vpp, s.frame(from.mac, c.id))
		c.id++
	}
	passed = make([]bool, len(samples))
	for missing > 0 {
		select {
		case f := <-to.frames:
			if len(f) < 14+20+payloadLen {
				continue // ARP
			}
			switch n := binary.BigEndian.Uint16(f[len(f)-2:]) - first; {
			case int(n) < len(samples):
				passed[n] = true
			case int(n) < len(samples)+len(ends):
				missing--
			}
		case <-c.ctx.Done():
			c.t.Fatal("a marker does not come out")
		}
	}
	return passed
}

// matches reads an ACL's counters until they are as wanted: packets, bytes of each rule.
func (c *cables) matches(d *dataplanetest.Dataplane, index uint32, want ...[2]uint64) {
	c.t.Helper()
	s := statsclient.NewStatsClient(d.StatsSocket)
	c.ok(s.Connect(), "connect")
	defer func() { c.ok(s.Disconnect(), "disconnect") }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	var last any
	for {
		entries, err := s.DumpStats(fmt.Sprintf("^/acl/%d/matches$", index))
		last = err
		if err == nil && len(entries) == 1 {
			var got [][2]uint64
			for _, thread := range entries[0].Data.(adapter.CombinedCounterStat) {
				for n, v := range thread {
					for len(got) <= n {
						got = append(got, [2]uint64{})
					}
					got[n][0] += v[0]
					got[n][1] += v[1]
				}
			}
			if len(got) > len(want) && slices.Equal(got[:len(want)], want) {
				return
			}
			last = got
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("/acl/%d/matches: %v, want %v", index, last, want)
		}
	}
}

// TestACLMatches sends packets of all kinds through rules of all kinds, on input and on output.
func TestACLMatches(t *testing.T) {
	samples := []struct {
		what string
		s    sample
		rule int // that decides; -1 none
	}{
		{"tcp/8080", sample{proto: 6, src: lan4, dst: wan4, ports: [2]uint16{1000, 8080}, flags: 2}, 0},
		{"tcp/8080 again", sample{proto: 6, src: lan4, dst: wan4, ports: [2]uint16{1001, 8080}, flags: 16}, 0},
		{"tcp/8081", sample{proto: 6, src: lan4, dst: wan4, ports: [2]uint16{1000, 8081}, flags: 2}, 2},
		{"udp/8080", sample{proto: 17, src: lan4, dst: wan4, ports: [2]uint16{1000, 8080}}, 4},
		{"udp from 2000", sample{proto: 17, src: lan4, dst: wan4, ports: [2]uint16{2000, 8080}}, -1},
		{"tcp/8080 over IPv6", sample{proto: 6, src: lan6, dst: wan6, ports: [2]uint16{1000, 8080}}, 1},
		{"tcp/8080 behind options", sample{proto: 6, src: lan6, dst: wan6, ports: [2]uint16{1000, 8080}, behind: true}, 1},
		{"tcp/22, SYN, over IPv6", sample{proto: 6, src: lan6, dst: wan6, ports: [2]uint16{1000, 22}, flags: 2}, 3},
		{"tcp/22, ACK, over IPv6", sample{proto: 6, src: lan6, dst: wan6, ports: [2]uint16{1000, 22}, flags: 18}, 9},
		{"a later fragment of TCP", sample{proto: 6, src: lan4, dst: wan4, later: true}, 0},
		{"a later fragment of TCP over IPv6", sample{proto: 6, src: lan6, dst: wan6, later: true}, 1},
		{"a later fragment of UDP", sample{proto: 17, src: lan4, dst: wan4, later: true}, 4},
		{"echo", sample{proto: 1, src: lan4, dst: wan4, ports: [2]uint16{8, 0}}, 5},
		{"echo reply", sample{proto: 1, src: lan4, dst: wan4, ports: [2]uint16{0, 0}}, -1},
		{"echo with a code", sample{proto: 1, src: lan4, dst: wan4, ports: [2]uint16{8, 1}}, -1},
		{"echo over IPv6", sample{proto: 58, src: lan6, dst: wan6, ports: [2]uint16{128, 0}}, 6},
		{"GRE to 10.2.0.2", sample{proto: 47, src: lan4, dst: wan4}, 7},
		{"GRE from elsewhere", sample{proto: 47, src: "10.1.0.3", dst: wan4}, -1},
		{"GRE to elsewhere over IPv6", sample{proto: 47, src: lan6, dst: wan6}, -1},
	}
	tcp22 := func(action string, mask, value uint8) acl_types.ACLRule {
		r := rule(action + " ::/0 fd42:2::/33 6 0-65535 22-22")
		r.TCPFlagsMask, r.TCPFlagsValue = mask, value
		return r
	}
	rules := append(both("deny any any 6 0-65535 8080-8080"),
		rule("permit 10.1.0.2/31 10.2.0.0/16 6 0-65535 0-65535"), tcp22("deny", 0x12, 0x02),
		rule("permit 0.0.0.0/0 10.2.0.2/32 17 1000-1999 8080-8080"),
		rule("permit 0.0.0.0/0 0.0.0.0/0 1 8-8 0-0"), rule("permit ::/0 ::/0 58 128-129 0-255"),
		rule("permit 10.1.0.2/32 10.2.0.2/32 47 0-0 0-0"), passMarkers[0], tcp22("permit", 0x12, 0x12), passMarkers[1])
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		c := connect(t, d).cables(d)
		list := make([]sample, len(samples))
		for i := range samples {
			list[i] = samples[i].s
		}
		for i, passed := range c.through(c.lan, c.wan, list...) {
			if !passed {
				t.Errorf("%s does not come through without filters", samples[i].what)
			}
		}
		index := c.make(rules...)
		for _, direction := range []string{"in", "out"} {
			link := uint64(0) // on output the ethernet header counts
			if direction == "in" {
				c.ok(c.apply(c.lan.idx, []uint32{index}, nil), "apply")
			} else {
				c.ok(c.apply(c.lan.idx, nil, nil), "apply nothing")
				c.ok(c.apply(c.wan.idx, nil, []uint32{index}), "apply")
				link = 14
			}
			counts := make([][2]uint64, len(rules))
			for i, passed := range c.through(c.lan, c.wan, list...) {
				s := samples[i]
				want := s.rule >= 0 && rules[s.rule].IsPermit != 0
				if passed != want {
					t.Errorf("%s: %s passed: %v", direction, s.what, passed)
				}
				if s.rule >= 0 {
					counts[s.rule][0]++
					counts[s.rule][1] += uint64(len(s.s.frame(c.lan.mac, 0))) - 14 + link
				}
			}
			counts[8], counts[10] = [2]uint64{1, 20 + payloadLen + link}, [2]uint64{1, 40 + payloadLen + link} // the markers
			c.matches(d, index, counts...)
			_, err := c.replace(index, rules...)
			c.ok(err, "replace")
			c.matches(d, index, make([][2]uint64, len(rules))...)
		}
		// Two lists: the first that matches decides, in the order of the interface.
		all := c.make(both("permit any any 0 0-0 0-0")...)
		for _, c2 := range []struct {
			list []uint32
			want bool
		}{{[]uint32{index, all}, false}, {[]uint32{all, index}, true}} {
			c.ok(c.apply(c.wan.idx, nil, c2.list), "apply")
			if got := c.through(c.lan, c.wan, samples[0].s); got[0] != c2.want {
				t.Errorf("%v: %v", c2.list, got)
			}
		}
		c.ok(c.apply(c.wan.idx, nil, []uint32{index, all}), "apply")
		if got := c.through(c.lan, c.wan, samples[4].s); !got[0] {
			t.Error("the second list is not asked")
		}
	})
}

// TestACLReplaceDropsNothing changes a rule again and again while packets of other flows go through: all arrive.
func TestACLReplaceDropsNothing(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		c := connect(t, d).cables(d)
		rules := func(port int) []acl_types.ACLRule {
			return both(fmt.Sprintf("deny any any 6 0-65535 %d-%d", port, port), "permit any any 0 0-0 0-0")
		}
		index := c.make(rules(8080)...)
		c.ok(c.apply(c.lan.idx, []uint32{index}, nil), "apply")
		c.ok(c.apply(c.wan.idx, nil, []uint32{index}), "apply")

		stop, done := make(chan struct{}), make(chan error, 1)
		other := connect(t, d).filters()
		var replaced atomic.Int64
		go func() {
			for ; ; replaced.Add(1) {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if _, err := other.replace(index, rules(8080+int(replaced.Load()%2))...); err != nil {
					done <- err
					return
				}
			}
		}()
		list := make([]sample, 20)
		for i := range list {
			list[i] = sample{proto: 17, src: lan4, dst: wan4, ports: [2]uint16{1000, uint16(i)}}
			if i%2 == 0 {
				list[i].src, list[i].dst = lan6, wan6
			}
		}
		sent := 0
		for round := 0; round < 300 || replaced.Load() < 100 && !t.Failed(); round++ {
			if got := c.through(c.lan, c.wan, list...); slices.Contains(got, false) {
				t.Errorf("lost after %d packets: %v", sent, got)
			}
			sent += len(list)
		}
		close(stop)
		c.ok(<-done, "replace")
		t.Logf("%d changes while %d packets went through", replaced.Load(), sent)
	})
}

// TestACLReflect lets answers in, and nothing else.
func TestACLReflect(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		c := connect(t, d).cables(d)
		rules := append(both("deny any any 6 0-65535 25-25", "reflect any any 6 0-65535 0-65535", "reflect any any 17 0-65535 0-65535",
			"reflect any any 58 0-255 0-255", "reflect any any 1 0-255 0-255"), passMarkers...)
		out := c.make(rules...)
		in := c.make(passMarkers...)
		c.ok(c.apply(c.wan.idx, []uint32{in}, []uint32{out}), "apply")
		for _, family := range []struct {
			lan, wan, other  string
			icmp, ask, reply uint16
		}{{lan4, wan4, "10.2.0.3", 1, 8, 0}, {lan6, wan6, "fd42:2::3", 58, 128, 129}} {
			packet := func(proto uint16, src, dst string, a, b uint16) sample {
				return sample{proto: uint8(proto), src: src, dst: dst, ports: [2]uint16{a, b}, flags: 2}
			}
			icmp := func(src, dst string, typ uint16) sample { return packet(family.icmp, src, dst, typ, 0) }
			answers := []sample{
				packet(17, family.wan, family.lan, 53, 1000), packet(6, family.wan, family.lan, 80, 1000), icmp(family.wan, family.lan, family.reply),
			}
			if got := c.through(c.wan, c.lan, answers...); slices.Contains(got, true) {
				t.Errorf("before anybody asked: %v", got)
			}
			asked := c.through(c.lan, c.wan,
				packet(17, family.lan, family.wan, 1000, 53), packet(6, family.lan, family.wan, 1000, 80), icmp(family.lan, family.wan, family.ask),
				packet(6, family.lan, family.wan, 1000, 25))
			if !slices.Equal(asked, []bool{true, true, true, false}) {
				t.Errorf("asked: %v", asked)
			}
			if got := c.through(c.wan, c.lan, answers...); slices.Contains(got, false) {
				t.Errorf("answers: %v", got)
			}
			others := []sample{
				packet(17, family.wan, family.lan, 53, 1001), packet(17, family.wan, family.lan, 54, 1000), packet(17, family.other, family.lan, 53, 1000),
				packet(6, family.wan, family.lan, 53, 1000), packet(17, family.wan, family.lan, 80, 1000), packet(6, family.wan, family.lan, 25, 1000),
				icmp(family.wan, family.lan, family.ask), icmp(family.other, family.lan, family.reply),
			}
			if got := c.through(c.wan, c.lan, others...); slices.Contains(got, true) {
				t.Errorf("others: %v", got)
			}
			// The rules may change: what was let through goes on, and what comes anew does not.
			_, err := c.replace(out, passMarkers...)
			c.ok(err, "replace")
			if got := c.through(c.lan, c.wan, packet(17, family.lan, family.wan, 1000, 53), packet(17, family.lan, family.wan, 1002, 53)); !slices.Equal(got, []bool{true, false}) {
				t.Errorf("after the change: %v", got)
			}
			_, err = c.replace(out, rules...)
			c.ok(err, "replace")
		}
		// Another list ends the flows.
		marked := c.make(passMarkers...)
		answer := sample{proto: 17, src: wan4, dst: lan4, ports: [2]uint16{53, 1000}}
		if got := c.through(c.wan, c.lan, answer); !got[0] {
			t.Error("the flow has ended by itself")
		}
		c.ok(c.apply(c.wan.idx, []uint32{in, marked}, []uint32{out}), "apply")
		for deadline := time.Now().Add(5 * time.Second); c.through(c.wan, c.lan, answer)[0]; { // VPP clears in the background
			if time.Now().After(deadline) {
				t.Fatal("the flow goes on")
			}
		}
	})
}
