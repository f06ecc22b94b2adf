package plane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.fd.io/govpp/api"
)

// slowACL decides as the documentation of the API reads, without masks, lists or numbers: the first rule that matches, -1 none.
func slowACL(rules []ACLRule, b []byte) int {
	var src, dst netip.Addr
	var proto byte
	var payload []byte
	later := false
	if b[0]>>4 == 4 {
		src, dst, proto = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9]
		payload, later = b[int(b[0]&15)*4:], binary.BigEndian.Uint16(b[6:])&0x1fff > 0
	} else {
		src, dst, proto, payload = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:]
	walk:
		for {
			switch proto {
			case 0, 43, 60, 135, 139, 140, 253, 254:
				if len(payload) < 8 {
					break walk
				}
				n := 8 + 8*int(payload[1])
				proto = payload[0]
				payload = payload[min(n, len(payload)):]
			case 44:
				if len(payload) < 8 {
					break walk
				}
				proto, later = payload[0], binary.BigEndian.Uint16(payload[2:])>>3 > 0
				payload = payload[8:]
				if later {
					break walk
				}
			default:
				break walk
			}
		}
	}
	known := !later && len(payload) >= 8
	var first, second uint16
	var flags byte
	if known {
		switch {
		case proto == 6 || proto == 17:
			first, second = binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])
			if proto == 6 && len(payload) > 13 {
				flags = payload[13]
			}
		case proto == 1 && src.Is4() || proto == 58 && src.Is6():
			first, second = uint16(payload[0]), uint16(payload[1])
		}
	}
	for n, r := range rules {
		in := func(a netip.Addr, p netip.Prefix) bool {
			return p.Addr().Is4() == a.Is4() && (p.Bits() == 0 || p.Masked() == p && p.Contains(a))
		}
		switch {
		case !in(src, r.Src) || !in(dst, r.Dst):
		case r.Proto == 0, r.Proto == proto && later:
			return n
		case r.Proto != proto || !known || first < r.Src4.First || first > r.Src4.Last || second < r.Dst4.First || second > r.Dst4.Last:
		case proto == 6 && flags&r.FlagsMask != r.FlagsValue:
		default:
			return n
		}
	}
	return -1
}

// randomRules makes rules that are likely to match what randomPacket makes.
func randomRules(r *rand.Rand, n int) (rules []ACLRule) {
	prefix := func(ip6 bool) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), 0, byte(r.IntN(4))})
		if ip6 {
			a = netip.AddrFrom16([16]byte{0xfd, byte(r.IntN(2)), 8: byte(r.IntN(2)) << 7, 15: byte(r.IntN(4))})
		}
		p := netip.PrefixFrom(a, []int{0, 8, 16, 17, 31, 32, 64, 65, 127, 128}[r.IntN(10)]%(a.BitLen()+1))
		if r.IntN(8) > 0 { // host bits are possible, and match nothing
			p = p.Masked()
		}
		return p
	}
	span := func() PortRange {
		first := uint16(r.IntN(6))
		return PortRange{first, first + uint16(r.IntN(200)*r.IntN(2))}
	}
	for range n {
		ip6 := r.IntN(2) == 0
		rules = append(rules, ACLRule{
			Action: ACLAction(r.IntN(3)), Src: prefix(ip6), Dst: prefix(ip6), Proto: []uint8{0, 6, 17, 1, 58, 47, 44, 60}[r.IntN(8)],
			Src4: span(), Dst4: span(), FlagsMask: uint8(r.IntN(4)), FlagsValue: uint8(r.IntN(4)),
		})
	}
	return rules
}

// randomPacket has a whole IP header, and anything behind it.
func randomPacket(r *rand.Rand) []byte {
	body := make([]byte, r.IntN(50))
	for k := range body {
		body[k] = byte(r.IntN(6))
	}
	proto := []byte{6, 17, 1, 58, 47, 44, 60, 0, 43, 253}[r.IntN(10)]
	if r.IntN(2) == 0 {
		b := ip4("10.0.0.0", "10.0.0.0", proto, 64, body)
		b[13], b[15], b[17], b[19] = byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(2)), byte(r.IntN(4))
		put16(b[6:], uint16(r.IntN(3)))
		return b
	}
	b := ip6("fd00::", "fd00::", 59, 64, body)
	b[6] = proto
	b[9], b[16], b[23], b[25], b[32], b[39] = byte(r.IntN(2)), byte(r.IntN(2))<<7, byte(r.IntN(4)), byte(r.IntN(2)), byte(r.IntN(2))<<7, byte(r.IntN(4))
	return b
}

// decided is what the matcher says.
func decided(a *acl, b []byte) int {
	var p tuple
	p.read(b)
	m := (&filter{acls: []*acl{a}}).decide(&p)
	if m == nil {
		return -1
	}
	for n := range a.counts {
		if m.count == &a.counts[n] {
			return n
		}
	}
	return -2
}

// TestACLModel compares the matcher with the model, for random rules and packets.
func TestACLModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	matched := 0
	for range 300 {
		rules := randomRules(r, 1+r.IntN(12))
		var a acl
		a.compile(rules)
		for range 100 {
			b := randomPacket(r)
			got, want := decided(&a, b), slowACL(rules, b)
			if got != want {
				t.Fatalf("seed %d: rule %d, want %d, for % x\nof %+v", seed, got, want, b, rules)
			}
			if want >= 0 {
				matched++
			}
		}
	}
	if matched < 1000 {
		t.Errorf("only %d of 30000 packets matched a rule: the test shows little", matched)
	}
}

// FuzzACL is TestACLModel for packets that a fuzzer makes.
func FuzzACL(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		f.Add(r.Uint64(), randomPacket(r))
	}
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		switch { // what input4 and input6 would not let through
		case len(b) < header4Len, b[0]>>4 != 4 && b[0]>>4 != 6, b[0]>>4 == 6 && len(b) < header6Len:
			return
		case b[0]>>4 == 4 && (b[0]&15 < 5 || int(b[0]&15)*4 > len(b)):
			return
		}
		rules := randomRules(rand.New(rand.NewPCG(seed, 0)), 8)
		var a acl
		a.compile(rules)
		if got, want := decided(&a, b), slowACL(rules, b); got != want {
			t.Fatalf("rule %d, want %d, for % x\nof %+v", got, want, b, rules)
		}
	})
}

func any4(action ACLAction, proto uint8) ACLRule {
	return ACLRule{Action: action, Src: mustPrefix("0.0.0.0/0"), Dst: mustPrefix("0.0.0.0/0"), Proto: proto, Src4: PortRange{0, 65535}, Dst4: PortRange{0, 65535}}
}

// flowKeyOf is the key of an IPv4 packet that goes out of an interface.
func flowKeyOf(proto uint8, sport, dport uint16, serial uint32) flowKey {
	return flowKey{src: addr128{lo: 1}, dst: addr128{lo: 2}, ports: [2]uint16{sport, dport}, proto: proto, serial: serial}
}

// TestFlows follows the times of flows: those that are idle end, TCP's by its state.
func TestFlows(t *testing.T) {
	const syn, ack, fin, synAck = 2, 16, 1, 18
	second := int64(time.Second)
	var f flows
	f.init()
	key := flowKeyOf(protoTCP, 1000, 80, 7)
	back, _ := key.reverse()
	check := func(what string, k flowKey, flags uint8, at int64, want bool) {
		t.Helper()
		if got := f.seen(&k, flags, at*second); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	check("before", key, syn, 0, false)
	f.add(&key, syn, 0)
	check("the answer", back, synAck, 100, true)
	check("half open, and idle for 119 s", back, synAck, 219, true)
	check("half open, and idle for 121 s", back, synAck, 340, false)
	f.add(&key, syn, 400*second)
	check("SYN and ACK", back, synAck, 401, true)
	check("ACK", key, ack, 402, true)
	check("established, and idle for 23 h", key, ack, 402+23*3600, true)
	check("FIN", key, fin|ack, 402+23*3600, true)
	check("closing, and idle for 121 s", back, ack, 402+23*3600+121, false)

	udp := flowKeyOf(protoUDP, 1000, 53, 7)
	f.add(&udp, 0, 0)
	check("UDP, idle for 599 s", udp, 0, 599, true)
	check("UDP, idle for 601 s", udp, 0, 1200, false)
	if f.any.Load() > 2 {
		t.Errorf("%d flows", f.any.Load())
	}
	other := flowKeyOf(protoUDP, 1000, 53, 8)
	f.add(&udp, 0, 2e5*second) // the sweep takes what has ended
	f.add(&other, 0, 2e5*second)
	if n := f.any.Load(); n != 2 || len(f.table) != 4 {
		t.Errorf("%d flows under %d keys", n, len(f.table))
	}
	f.forget(7)
	check("of an interface that was forgotten", udp, 0, 2e5, false)
	check("of another", other, 0, 2e5, true)

	for typ, want := range map[uint16]bool{8: true, 13: true, 0: false, 3: false} {
		echo := flowKeyOf(protoICMP, typ, 0, 7)
		echo.odd = true
		if r, ok := echo.reverse(); ok != want || typ == 8 && r.ports != [2]uint16{0, 0} {
			t.Errorf("the answer to ICMP %d: %v %v", typ, r.ports, ok)
		}
	}
}

// TestFlowsAreBounded fills the table: half-open TCP makes room, and nothing else does.
func TestFlowsAreBounded(t *testing.T) {
	var f flows
	f.init()
	f.limit = 100
	for n := range uint16(500) {
		key := flowKeyOf(protoTCP, n, 80, 1)
		if !f.add(&key, 2, int64(n)) {
			t.Fatalf("%d: no room", n)
		}
	}
	if f.any.Load() != 100 || len(f.table) != 200 {
		t.Errorf("%d flows under %d keys", f.any.Load(), len(f.table))
	}
	oldest, latest := flowKeyOf(protoTCP, 399, 80, 1), flowKeyOf(protoTCP, 499, 80, 1)
	if f.seen(&oldest, 2, 600) || !f.seen(&latest, 2, 600) {
		t.Error("not the oldest has gone")
	}
	for n := range uint16(200) {
		key := flowKeyOf(protoUDP, n, 53, 1)
		if got := f.add(&key, 0, 700); got != (n < 100) {
			t.Fatalf("UDP %d: %v", n, got)
		}
	}
}

// TestFlowsConcurrently is for the race detector.
func TestFlowsConcurrently(t *testing.T) {
	var f flows
	f.init()
	f.limit = 50
	var wg sync.WaitGroup
	for g := range uint32(4) {
		wg.Go(func() {
			for n := range 3000 {
				key := flowKeyOf([]uint8{protoTCP, protoUDP}[n%2], uint16(n%80), 80, g%2)
				if !f.seen(&key, uint8(n), int64(n)*int64(time.Second)) {
					f.add(&key, uint8(n), int64(n)*int64(time.Second))
				}
				back, _ := key.reverse()
				f.seen(&back, uint8(n>>3), int64(n)*int64(time.Second))
				if n%500 == 0 {
					f.forget(g % 2)
				}
			}
		})
	}
	wg.Wait()
	if n := int(f.any.Load()); n > 50 || len(f.table) > 2*n {
		t.Errorf("%d flows under %d keys", n, len(f.table))
	}
}

// TestACLDeniedIsDropped checks the counters of a packet that a filter drops, and that filters go with their interface.
func TestACLDeniedIsDropped(t *testing.T) {
	r := twoPorts(t)
	a := must(r.ReplaceACL(NoInterface, "", []ACLRule{any4(ACLDeny, protoUDP), any4(ACLPermit, 0)}))
	r.ok(r.SetInterfaceACLs(1, []uint32{a}, nil))
	r.CountACLs(true)
	r.send(0, ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 100)))
	r.send(0, ip4("10.1.0.2", "10.2.0.2", protoICMP, 64, echo4(1, 8)))
	if b := r.expectIP(1); b[9] != protoICMP {
		t.Errorf("came out: % x", b)
	}
	if x := must(r.Interface(1)); x.Counters.Drops != 1 || r.Errors()["acl-plugin: ACL deny packets"] != 1 {
		t.Errorf("drops %d, errors %v", x.Counters.Drops, r.Errors())
	}
	rules := r.ACLs()[0].Rules
	if rules[0].Packets != 1 || rules[0].Bytes != header4Len+udpLen+100 || rules[1].Packets != 1 {
		t.Errorf("counters %+v", rules)
	}
	if err := r.DeleteACL(a); err != api.ACL_IN_USE_INBOUND {
		t.Errorf("delete: %v", err)
	}
	r.ok(r.DetachPort(1))
	r.ok(r.DeleteACL(a))
}

// TestACLAllocatesNothing sends packets of a flow, of a rule and of none through filters in both directions.
func TestACLAllocatesNothing(t *testing.T) {
	r, _, run := filtered(t)
	for what, rules := range map[string][]ACLRule{
		"permit": {any4(ACLDeny, protoTCP), any4(ACLPermit, 0)}, "reflect": {any4(ACLReflect, 0)}, "deny": {any4(ACLDeny, 0)}, "none": {any4(ACLPermit, protoTCP)},
	} {
		a := must(r.ReplaceACL(NoInterface, "", rules))
		r.ok(r.SetInterfaceACLs(1, []uint32{a}, nil))
		r.ok(r.SetInterfaceACLs(2, nil, []uint32{a}))
		run()
		if n := testing.AllocsPerRun(100, run); n > 0 {
			t.Errorf("%s: %.1f allocations for %d packets", what, n, batchSize)
		}
	}
}

// filtered is a plane whose worker takes a batch of UDP packets with each call of run.
func filtered(tb testing.TB) (r *rig, w *worker, run func()) {
	r = newRig(tb)
	r.attach(newTestPort(), ours(0), "10.1.0.1/24")
	r.ports[0].loss.Store(true)
	i, err := r.AttachPort("out", ours(1), nullPort{newTestPort()}, 1)
	r.ok(err)
	r.ok(r.AddAddress(i, mustPrefix("10.2.0.1/24")))
	r.ok(r.SetAdmin(i, true))
	r.near(i, "10.2.0.2", 1)
	in := frame(ours(0), theirs(0), ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 18)))
	slots, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for k := range slots {
		slots[k], sizes[k] = make([]byte, 2048), len(in)
	}
	w = r.newWorker()
	from := r.at(1)
	return r, w, func() {
		for k := range slots {
			copy(slots[k][headroom-etherLen:], in)
		}
		w.enter()
		w.receive(from, slots, headroom-etherLen, sizes)
		w.leave()
	}
}

// BenchmarkACL is BenchmarkForward behind filters, for each packet.
func BenchmarkACL(b *testing.B) {
	deny := func(n int) (rules []ACLRule) {
		for range n {
			rules = append(rules, any4(ACLDeny, protoTCP))
		}
		return rules
	}
	for name, rules := range map[string][]ACLRule{
		"none": nil, "1": {any4(ACLPermit, 0)}, "10": append(deny(9), any4(ACLPermit, 0)), "100": append(deny(99), any4(ACLPermit, 0)), "reflect": {any4(ACLReflect, 0)},
	} {
		b.Run(name, func(b *testing.B) {
			r, _, run := filtered(b)
			if rules != nil {
				r.ok(r.SetInterfaceACLs(1, []uint32{must(r.ReplaceACL(NoInterface, "", rules))}, nil))
			}
			b.ReportAllocs()
			for n := 0; n < b.N; n += batchSize {
				run()
			}
		})
	}
}
