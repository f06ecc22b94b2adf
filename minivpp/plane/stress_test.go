package plane

import (
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestConcurrent changes everything at once while packets and connections flow. The race detector and the end of Run judge.
func TestConcurrent(t *testing.T) {
	a, b := newRig(t), newRig(t)
	ab, _ := cable(a, b, []string{"10.0.0.1/24", "2001:db8::1/64", "fe80::1/128"}, []string{"10.0.0.2/24", "2001:db8::2/64", "fe80::2/128"})
	cancel := a.Subscribe(func(e Event) { a.Interface(e.Interface) })
	defer cancel()
	serve(t, must(b.ListenTCP(0, ap("[::]:80"))), "B")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	loop := func(fn func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, rand.Uint64()))
			for ctx.Err() == nil {
				fn(rng)
			}
		})
	}
	for range 2 {
		loop(func(rng *rand.Rand) {
			var k [16]byte
			put32(k[:], rng.Uint32()&0x00ffff00|0x14000000)
			p := via(sprintf("10.0.0.%d", 2+rng.IntN(4)), []uint32{ab, NoInterface}[rng.IntN(2)])
			if rng.IntN(2) == 0 {
				a.AddRoute(0, prefix24(k), RouteUpdate{Paths: []Path{p}, Multipath: rng.IntN(2) == 0})
			} else {
				a.DelRoute(0, prefix24(k), RouteUpdate{})
			}
		})
	}
	loop(func(*rand.Rand) {
		if idx, err := a.CreateLoopback([6]byte{}, nil); err == nil {
			a.AddAddress(idx, mustPrefix("10.7.0.1/24"))
			a.SetAdmin(idx, true)
			a.SetUnnumbered(ab, idx, true)
			a.DeleteLoopback(idx)
		}
	})
	loop(func(*rand.Rand) {
		near, far := wire()
		if idx, err := a.AttachPort("x", [6]byte{2}, near, 2); err == nil {
			a.SetAdmin(idx, true)
			a.EnableIP6(idx, true)
			far.out <- frame([6]byte{2}, theirs(1), ip6("fe80::9", "ff02::1", protoICMPv6, 9, echo6(1, 1)))
			a.DialTCP(ctx, 0, idx, netip.AddrPort{}, ap("[fe80::7]:9"))
			a.DetachPort(idx)
		}
	})
	loop(func(rng *rand.Rand) {
		n := netip.AddrFrom4([4]byte{10, 0, 0, byte(3 + rng.IntN(3))})
		a.AddNeighbor(ab, Neighbor{Addr: n, MAC: theirs(2), Static: rng.IntN(2) == 0})
		a.Neighbors(NoInterface, false)
		a.DelNeighbor(ab, n)
	})
	loop(func(rng *rand.Rand) {
		a.Routes(0, false, func(RouteEntry) bool { return rng.IntN(100) > 0 })
		a.Interfaces()
		a.Tables()
		a.Errors()
		a.SetMTU(ab, MTU{L3: 1400 + uint32(rng.IntN(100))})
	})
	probe := must(a.OpenProbe(0, NoInterface))
	loop(func(rng *rand.Rand) {
		probe.Write(ip4("0.0.0.0", sprintf("20.%d.%d.1", rng.IntN(256), rng.IntN(256)), protoUDP, 3, udp(1, 2, 100)))
		probe.Write(ip4("0.0.0.0", "10.0.0.2", protoICMP, 3, echo4(1, 5)))
	})
	wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			if _, err := probe.Read(buf); err != nil {
				return
			}
		}
	})
	var sessions atomic.Int64
	wg.Go(func() {
		for ctx.Err() == nil {
			c, err := a.DialTCP(ctx, 0, ab, netip.AddrPort{}, ap("[fe80::2]:80"))
			if err != nil {
				continue
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(c, make([]byte, 10)); err == nil {
				sessions.Add(1)
			}
			c.Close()
		}
	})
	time.Sleep(700 * time.Millisecond) // not to wait for anything: so long it shall take
	eventually(t, "a session was made meanwhile", func() bool { return sessions.Load() > 0 })
	stop()
	probe.Close()
	wg.Wait()
	t.Logf("%d sessions, %v", sessions.Load(), a.Errors())
}

// TestStoppedPlane: calls after Run has ended fail, and do not hang.
func TestStoppedPlane(t *testing.T) {
	p := New(Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	idx := must(p.CreateLoopback([6]byte{}, nil))
	p.AddAddress(idx, mustPrefix("10.0.0.1/32"))
	p.SetAdmin(idx, true)
	l := must(p.ListenTCP(0, ap("0.0.0.0:80")))
	c := must(p.DialTCP(testContext(t), 0, NoInterface, netip.AddrPort{}, ap("10.0.0.1:80")))
	probe := must(p.OpenProbe(0, NoInterface))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil { // the connection that waited
		_, err = l.Accept()
		if err == nil {
			t.Error("accept")
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read")
	}
	if _, err := probe.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	if _, err := p.DialTCP(testContext(t), 0, NoInterface, netip.AddrPort{}, ap("10.0.0.1:80")); err == nil {
		t.Error("dial")
	}
	if _, err := p.ListenTCP(0, ap("0.0.0.0:81")); err == nil {
		t.Error("listen")
	}
	if _, err := p.OpenProbe(0, NoInterface); err == nil {
		t.Error("probe")
	}
	if _, err := p.AttachPort("x", [6]byte{}, newTestPort(), 1); err == nil {
		t.Error("attach")
	}
	l.Close()
	c.Close()
}
