package minivpp_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_neighbor"
	vppmemif "go.fd.io/govpp/binapi/memif"

	"rlr/binapi"
	"rlr/memif"
	"rlr/minivpp/dataplanetest"
)

type interfaceIndex = interface_types.InterfaceIndex

// port is the test's end of a memif cable, and the dataplane's interface at the other.
type port struct {
	idx    interface_types.InterfaceIndex
	mac    [6]byte // the dataplane's
	cable  *memif.Interface
	frames chan []byte // that came in
}

// plug makes a memif interface with an address in the dataplane, connects to it, and waits until the dataplane says by an
// event that the link is up.
func (v *vpp) plug(d *dataplanetest.Dataplane, id uint32, address string, up func(interface_types.InterfaceIndex)) *port {
	v.t.Helper()
	m := vppmemif.NewServiceClient(v.conn)
	path := filepath.Join(d.Dir, "cable.sock")
	_, err := m.MemifSocketFilenameAddDelV2(v.ctx, &vppmemif.MemifSocketFilenameAddDelV2{IsAdd: true, SocketID: 1, SocketFilename: path})
	v.ok(err, "memif socket")
	p := &port{mac: [6]byte{2, 0xfe, 0, 0, 0, byte(id)}, frames: make(chan []byte, 64)}
	r, err := m.MemifCreateV2(v.ctx, &vppmemif.MemifCreateV2{SocketID: 1, ID: id, HwAddr: p.mac})
	v.ok(err, "memif create")
	p.idx = r.SwIfIndex
	v.ok(v.address(p.idx, address, true), "address")
	v.up(p.idx, true)

	p.cable, err = memif.New(memif.Config{ID: id, Role: memif.Slave, Mode: memif.Ethernet, Socket: path, Name: "test"})
	v.ok(err, "memif")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = p.cable.Run(ctx); done <- struct{}{} }()
	go func() {
		bufs, sizes := [][]byte{make([]byte, 2048)}, make([]int, 1)
		for {
			n, err := p.cable.ReadBatch(0, bufs, sizes)
			if err != nil {
				break
			}
			if n == 1 {
				select {
				case p.frames <- append([]byte(nil), bufs[0][:sizes[0]]...):
				case <-ctx.Done():
				}
			}
		}
		done <- struct{}{}
	}()
	v.t.Cleanup(func() { cancel(); <-done; <-done })
	up(p.idx)
	return p
}

// waitLink waits by asking until a link is up.
func (v *vpp) waitLink(idx interfaceIndex) {
	v.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for v.iface(idx).Flags&interface_types.IF_STATUS_API_FLAG_LINK_UP == 0 {
		select {
		case <-tick.C:
		case <-v.ctx.Done():
			v.t.Fatalf("the link of %d does not come up", idx)
		}
	}
}

// send puts a frame on the cable, which may still be coming up at our end.
func (p *port) send(v *vpp, frame []byte) {
	v.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := p.cable.WriteBatch(0, [][]byte{frame}); err == nil && n == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-v.ctx.Done():
			v.t.Fatal("the cable does not take the frame")
		}
	}
}

// udp makes an ethernet frame with an IPv4 UDP packet; its identification tells packets apart.
func udp(dstMAC [6]byte, src, dst string, id uint16) []byte {
	f := make([]byte, 14+20+8+18)
	copy(f, dstMAC[:])
	copy(f[6:], []byte{2, 0, 0, 0, 0, 0xaa})
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	h := f[14:]
	h[0], h[8], h[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint16(h[4:], id)
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(h[20:], 1234)
	binary.BigEndian.PutUint16(h[22:], 9)
	binary.BigEndian.PutUint16(h[24:], 26)
	return f
}

// next returns the next UDP packet that comes out: its destination MAC, destination address, identification and TTL.
func (p *port) next(v *vpp) (mac [6]byte, dst netip.Addr, id uint16, ttl byte) {
	v.t.Helper()
	for {
		select {
		case f := <-p.frames:
			if len(f) >= 34 && binary.BigEndian.Uint16(f[12:]) == 0x0800 && f[23] == 17 {
				h := f[14:]
				return [6]byte(f[:6]), netip.AddrFrom4([4]byte(h[16:20])), binary.BigEndian.Uint16(h[4:]), h[8]
			}
		case <-v.ctx.Done():
			v.t.Fatal("no packet came out")
		}
	}
}

// TestRouteForwards is the whole chain: a stock govpp client, the API, events, routes, and packets that follow them.
func TestRouteForwards(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		watcher, err := v.conn.WatchEvent(v.ctx, &interfaces.SwInterfaceEvent{})
		v.ok(err, "watch")
		defer watcher.Close()
		_, err = v.ifc.WantInterfaceEvents(v.ctx, &interfaces.WantInterfaceEvents{EnableDisable: 1})
		v.ok(err, "want events")
		linkUp := func(idx interface_types.InterfaceIndex) {
			t.Helper()
			for {
				select {
				case e := <-watcher.Events():
					ev := e.(*interfaces.SwInterfaceEvent)
					if ev.SwIfIndex == idx && ev.Flags&interface_types.IF_STATUS_API_FLAG_LINK_UP != 0 {
						return
					}
				case <-v.ctx.Done():
					t.Fatalf("no event: link of %d up", idx)
				}
			}
		}
		a := v.plug(d, 1, "10.1.0.1/24", linkUp)
		b := v.plug(d, 2, "10.2.0.1/24", linkUp)
		if f := v.iface(b.idx).Flags; f != interface_types.IF_STATUS_API_FLAG_LINK_UP|interface_types.IF_STATUS_API_FLAG_ADMIN_UP {
			t.Errorf("flags %s", f)
		}
		_, err = v.ifc.SwInterfaceSetRxMode(v.ctx, &interfaces.SwInterfaceSetRxMode{SwIfIndex: b.idx, Mode: interface_types.RX_MODE_API_ADAPTIVE})
		v.ok(err, "receive mode")
		dump, err := v.ifc.SwInterfaceRxPlacementDump(v.ctx, &interfaces.SwInterfaceRxPlacementDump{SwIfIndex: b.idx})
		queues := all[interfaces.SwInterfaceRxPlacementDetails](t, dump, err)
		if len(queues) != 1 || queues[0].Mode != interface_types.RX_MODE_API_ADAPTIVE || queues[0].SwIfIndex != b.idx {
			t.Errorf("queues %+v", queues)
		}
		hop := [6]byte{2, 0, 0, 0, 0, 0xbb}
		_, err = ip_neighbor.NewServiceClient(v.conn).IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{
			IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
				SwIfIndex: b.idx, Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC, MacAddress: hop,
				IPAddress: binapi.ToAddress(netip.MustParseAddr("10.2.0.2")),
			},
		})
		v.ok(err, "neighbour")

		const dst = "192.0.2.0/24"
		ours := v.addSource("rlr", 0x40)
		v.ok(v.route(dst, ours, true, false, via(dst, uint32(b.idx), "10.2.0.2")), "add the route")
		if _, ok := v.routes(ours, false)[dst]; !ok {
			t.Errorf("not dumped: %v", v.routes(ours, false))
		}
		a.send(v, udp(a.mac, "10.1.0.2", "192.0.2.7", 1))
		mac, to, id, ttl := b.next(v)
		if mac != hop || to != netip.MustParseAddr("192.0.2.7") || id != 1 || ttl != 63 {
			t.Errorf("came out: to %x %s, id %d, TTL %d", mac, to, id, ttl)
		}

		v.ok(v.route(dst, ours, false, false, nil), "delete the route")
		// The second packet shows that the first would have come out by now: packets stay in order.
		a.send(v, udp(a.mac, "10.1.0.2", "192.0.2.7", 2))
		a.send(v, udp(a.mac, "10.1.0.2", "10.2.0.2", 3))
		if _, to, id, _ := b.next(v); id != 3 || to != netip.MustParseAddr("10.2.0.2") {
			t.Errorf("after the deletion came out: id %d to %s", id, to)
		}
	})
}
