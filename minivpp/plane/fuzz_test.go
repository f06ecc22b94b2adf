package plane

import (
	"testing"
)

// fuzzRig is a router with everything that a frame can meet, run without goroutines: frames go straight into a worker.
func fuzzRig(tb testing.TB) (*rig, *worker) {
	r := newRig(tb)
	r.port("10.1.0.1/24", "2001:db8:1::1/64", "fe80::1/128")
	r.port("10.2.0.1/24", "2001:db8:2::1/64")
	r.near(1, "10.1.0.2", 0)
	r.near(1, "fe80::2", 0)
	r.near(2, "10.2.0.2", 1)
	r.near(2, "2001:db8:2::2", 1)
	r.ok(r.SetMTU(2, MTU{L3: 600}))
	r.route("192.0.2.0/24", via("10.2.0.2", NoInterface))
	must(r.ListenTCP(0, ap("0.0.0.0:179")))
	must(r.ListenTCP(0, ap("[::]:179")))
	probe := must(r.OpenProbe(0, NoInterface))
	tb.Cleanup(func() { probe.Close() })
	return r, r.newWorker()
}

// fixChecksums lets mutated packets get past the first checks, as an attacker's do.
func fixChecksums(f []byte) {
	if len(f) < etherLen+header4Len {
		return
	}
	b := f[etherLen:]
	switch get16(f[12:]) {
	case etherIPv4:
		if ihl := int(b[0]&15) * 4; ihl >= header4Len && ihl <= len(b) {
			put16(b[10:], 0)
			put16(b[10:], checksum(b[:ihl]))
			if total := int(get16(b[2:])); total >= ihl && total <= len(b) {
				m := b[ihl:total]
				switch {
				case b[9] == protoICMP && len(m) >= 4:
					put16(m[2:], 0)
					put16(m[2:], checksum(m))
				case b[9] == protoTCP && len(m) >= tcpLen:
					put16(m[16:], 0)
					put16(m[16:], fold(sum(m, pseudo(b[12:16], b[16:20], protoTCP, len(m)))))
				}
			}
		}
	case etherIPv6:
		if len(b) < header6Len {
			return
		}
		m := b[header6Len:min(len(b), header6Len+int(get16(b[4:])))]
		at := map[byte]int{protoICMPv6: 2, protoTCP: 16}[b[6]]
		if at > 0 && len(m) >= at+2 {
			put16(m[at:], 0)
			put16(m[at:], fold(sum(m, pseudo(b[8:24], b[24:40], b[6], len(m)))))
		}
	}
}

// FuzzFrame throws frames at a router. Whatever it sends must be well-formed, and nothing may panic.
func FuzzFrame(f *testing.F) {
	to := func(ip []byte) []byte { return frame(ours(0), theirs(0), ip) }
	syn := make([]byte, 24)
	syn[2], syn[3], syn[12], syn[13], syn[20], syn[21], syn[22] = 0, 179, 6<<4, 2, 2, 4, 5
	frag := ip4("10.1.0.2", "10.1.0.1", protoICMP, 64, echo4(1, 64))
	put16(frag[6:], 0x2000)
	for _, s := range [][]byte{
		to(ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 50))),
		to(ip4("10.1.0.2", "192.0.2.2", protoUDP, 64, udp(1, 2, 1000))),
		to(ip4("10.1.0.2", "10.1.0.1", protoICMP, 64, echo4(1, 5))),
		to(ip4("10.1.0.2", "10.1.0.1", protoTCP, 64, syn)),
		to(ip4("10.1.0.2", "10.1.0.1", protoICMP, 64, append([]byte{3, 4, 0, 0, 0, 0, 2, 0}, ip4("10.1.0.1", "10.1.0.2", protoTCP, 9, syn)...))),
		to(frag),
		to(ip6("2001:db8:1::2", "2001:db8:2::2", protoUDP, 64, udp(1, 2, 50))),
		to(ip6("fe80::2", "fe80::1", protoTCP, 64, syn)),
		to(ip6("2001:db8:1::2", "2001:db8:1::1", protoICMPv6, 64, echo6(1, 2))),
		to(ip6("2001:db8:1::2", "2001:db8:1::1", protoICMPv6, 64, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, ip6("2001:db8:1::1", "2001:db8:1::2", protoTCP, 9, syn)...))),
		to(ip6("2001:db8:1::2", "2001:db8:1::1", 44, 64, append([]byte{protoICMPv6, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 64)...))),
		to(ip6("2001:db8:1::2", "2001:db8:1::1", 0, 64, append([]byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, syn...))),
		to(ns("fe80::2", "fe80::1", "fe80::1", 255, option(1, theirs(0))...)),
		to(na("fe80::2", "fe80::1", "fe80::2", 0x60, option(2, theirs(0))...)),
		arp(1, everybody, theirs(0), [6]byte{}, "10.1.0.2", "10.1.0.1"),
	} {
		f.Add(s)
	}
	r, w := fuzzRig(f)
	slot := make([]byte, headroom+9100)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 9000 {
			return
		}
		r.icmpRate.init(icmpBurst)
		for _, fix := range []bool{false, true} {
			n := copy(slot[headroom-etherLen:], in)
			if fix {
				fixChecksums(slot[headroom-etherLen:][:n])
			}
			w.enter()
			w.receive(r.at(1), [][]byte{slot}, headroom-etherLen, []int{n})
			w.leave()
		}
		for k, p := range r.ports {
			for len(p.out) > 0 {
				if f := <-p.out; !wellFormed(f) {
					t.Errorf("port %d: % x\nfor % x", k, f, in)
				}
			}
		}
	})
}

func wellFormed(f []byte) bool {
	if len(f) < etherLen+header4Len || f[6]&1 != 0 {
		return false
	}
	b := f[etherLen:]
	switch get16(f[12:]) {
	case etherARP:
		return len(b) == arpLen
	case etherIPv4:
		ihl := int(b[0]&15) * 4
		return b[0]>>4 == 4 && ihl >= header4Len && ihl <= len(b) && int(get16(b[2:])) == len(b) && checksum(b[:ihl]) == 0 && b[8] > 0
	case etherIPv6:
		return len(b) >= header6Len && b[0]>>4 == 6 && header6Len+int(get16(b[4:])) == len(b) && b[7] > 0
	}
	return false
}

// BenchmarkForward is the path of a packet through a worker, without its ring.
func BenchmarkForward(b *testing.B) {
	r := newRig(b)
	r.attach(newTestPort(), ours(0), "10.1.0.1/24")
	r.ports[0].loss.Store(true)
	i, err := r.AttachPort("out", ours(1), nullPort{newTestPort()}, 1)
	r.ok(err)
	r.ok(r.AddAddress(i, mustPrefix("10.2.0.1/24")))
	r.ok(r.SetAdmin(i, true))
	r.near(i, "10.2.0.2", 1)
	for k := range 50000 {
		r.route(sprintf("20.%d.%d.0/24", k/256, k%256), via("10.2.0.2", i))
	}
	in := frame(ours(0), theirs(0), ip4("10.1.0.2", "20.3.7.9", protoUDP, 64, udp(1, 2, 18)))
	slots, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for k := range slots {
		slots[k], sizes[k] = make([]byte, 2048), len(in)
	}
	w := r.newWorker()
	from := r.at(1)
	b.ReportAllocs()
	for n := 0; n < b.N; n += batchSize {
		for k := range slots {
			copy(slots[k][headroom-etherLen:], in)
		}
		w.enter()
		w.receive(from, slots, headroom-etherLen, sizes)
		w.leave()
	}
	if x := must(r.Interface(i)); x.Counters.TxPackets < uint64(b.N) {
		b.Errorf("%d of %d forwarded", x.Counters.TxPackets, b.N)
	}
}

// nullPort takes everything.
type nullPort struct{ *testPort }

func (nullPort) WriteBatch(_ int, frames [][]byte) (int, error) { return len(frames), nil }

func BenchmarkAddRoute(b *testing.B) {
	r := newRig(b)
	idx := r.port("10.1.0.1/24")
	u := RouteUpdate{Paths: []Path{via("10.1.0.2", idx)}}
	b.ReportAllocs()
	for n := range b.N {
		var a [16]byte
		put32(a[:], uint32(n)*256+0x0b000000)
		if _, err := r.AddRoute(0, prefix24(a), u); err != nil {
			b.Fatal(err)
		}
	}
}
