package minivpp_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/mss_clamp"
	"go.fd.io/govpp/binapi/urpf"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// ipPacket is a frame with an IP packet, whose payload has a checksum at a place.
func ipPacket(mac [6]byte, src, dst string, proto byte, payload []byte, sumAt int) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f := sample{proto: proto, src: src, dst: dst}.frame(mac, 1)
	header := f[14 : len(f)-payloadLen]
	pseudo := slices.Concat(s.AsSlice(), d.AsSlice(), binary.BigEndian.AppendUint32(nil, uint32(len(payload))), []byte{0, 0, 0, proto})
	binary.BigEndian.PutUint16(payload[sumAt:], 0)
	binary.BigEndian.PutUint16(payload[sumAt:], ^uint16(onesSum(slices.Concat(pseudo, payload))))
	if s.Is4() {
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(payload)))
		binary.BigEndian.PutUint16(header[10:], 0)
		binary.BigEndian.PutUint16(header[10:], ^uint16(onesSum(header)))
	} else {
		binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	}
	return slices.Concat(f[:14], header, payload)
}

// syn is a TCP header with these flags and options.
func syn(flags byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, 4000)
	binary.BigEndian.PutUint16(h[2:], 179)
	h[12], h[13] = byte(5+len(options)/4)<<4, flags
	return append(h, options...)
}

// carried sends a TCP segment through and returns it as it comes out; its checksum must be right.
func (c *cables) carried(from, to *port, src, dst string, segment []byte) []byte {
	c.t.Helper()
	from.send(c.vpp, ipPacket(from.mac, src, dst, 6, slices.Clone(segment), 16))
	at := 14 + 20
	if netip.MustParseAddr(src).Is6() {
		at = 14 + 40
	}
	for {
		select {
		case f := <-to.frames:
			if len(f) < at+20 || f[14]>>4 == 4 && f[23] != 6 || f[14]>>4 == 6 && f[20] != 6 || f[12] == 8 && f[13] == 6 {
				continue
			}
			out := f[at : at+len(segment)]
			pseudo := slices.Concat(netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice(),
				binary.BigEndian.AppendUint32(nil, uint32(len(out))), []byte{0, 0, 0, 6})
			if sum := onesSum(slices.Concat(pseudo, out)); uint16(sum) != 0xffff {
				c.t.Errorf("checksum of % x is wrong", out)
			}
			return out
		case <-c.ctx.Done():
			c.t.Fatal("a segment does not come out")
		}
	}
}

// TestMSSClamp: what TCP asks for is lowered in the directions asked for, and nothing else of a segment changes.
func TestMSSClamp(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		c := v.cables(d)
		clamp := func(idx interfaceIndex, mss4, mss6 uint16, dir mss_clamp.MssClampDir) {
			t.Helper()
			_, err := mss_clamp.NewServiceClient(v.conn).MssClampEnableDisable(v.ctx, &mss_clamp.MssClampEnableDisable{
				SwIfIndex: idx, IPv4Mss: mss4, IPv6Mss: mss6, IPv4Direction: dir, IPv6Direction: dir,
			})
			v.ok(err, "mss_clamp_enable_disable")
		}
		const both = mss_clamp.MSS_CLAMP_DIR_RX | mss_clamp.MSS_CLAMP_DIR_TX
		mss := func(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
		check := func(what string, back bool, segment []byte, want4, want6 []byte) {
			t.Helper()
			from, to, src4, dst4, src6, dst6 := c.lan, c.wan, lan4, wan4, lan6, wan6
			if back {
				from, to, src4, dst4, src6, dst6 = c.wan, c.lan, wan4, lan4, wan6, lan6
			}
			for _, f := range []struct {
				src, dst string
				want     []byte
			}{{src4, dst4, want4}, {src6, dst6, want6}} {
				if got := c.carried(from, to, f.src, f.dst, segment)[20:]; !slices.Equal(got, f.want) {
					t.Errorf("%s: %s: options % x instead of % x", what, f.src, got, f.want)
				}
			}
		}
		big := syn(2, mss(1460)...)
		check("without a clamp", false, big, mss(1460), mss(1460))
		clamp(c.wan.idx, 1380, 1360, both)
		check("out", false, big, mss(1380), mss(1360))
		check("in", true, big, mss(1380), mss(1360))
		check("a SYN ACK", true, syn(0x12, mss(1460)...), mss(1380), mss(1360))
		check("small enough", false, syn(2, mss(536)...), mss(536), mss(536))
		check("no SYN", false, syn(0x10, mss(1460)...), mss(1460), mss(1460))
		check("without the option", false, syn(2, 1, 1, 4, 2), []byte{1, 1, 4, 2}, []byte{1, 1, 4, 2})
		check("after others", false, syn(2, slices.Concat([]byte{4, 2, 1, 1}, mss(1460))...),
			slices.Concat([]byte{4, 2, 1, 1}, mss(1380)), slices.Concat([]byte{4, 2, 1, 1}, mss(1360)))
		clamp(c.wan.idx, 1380, 1360, mss_clamp.MSS_CLAMP_DIR_RX)
		check("out, where only in is clamped", false, big, mss(1460), mss(1460))
		check("in alone", true, big, mss(1380), mss(1360))
		clamp(c.wan.idx, 0, 0, mss_clamp.MSS_CLAMP_DIR_NONE)
		check("no more", true, big, mss(1460), mss(1460))
	})
}

// TestURPF: what has no way back does not come in.
func TestURPF(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		c := v.cables(d)
		check := func(mode urpf.UrpfMode) {
			t.Helper()
			for _, af := range []ip_types.AddressFamily{ip_types.ADDRESS_IP4, ip_types.ADDRESS_IP6} {
				_, err := urpf.NewServiceClient(v.conn).UrpfUpdate(v.ctx, &urpf.UrpfUpdate{IsInput: true, Mode: mode, Af: af, SwIfIndex: c.lan.idx})
				v.ok(err, "urpf_update")
			}
		}
		samples := []sample{
			{proto: 17, src: lan4, dst: wan4},
			{proto: 17, src: "10.2.0.77", dst: wan4},
			{proto: 17, src: "172.31.0.1", dst: wan4},
			{proto: 17, src: lan6, dst: wan6},
			{proto: 17, src: "fd42:2::77", dst: wan6},
			{proto: 17, src: "fd99::1", dst: wan6},
		}
		want := func(what string, passed ...bool) {
			t.Helper()
			if got := c.through(c.lan, c.wan, samples...); !slices.Equal(got, passed) {
				t.Errorf("%s: passed %v instead of %v", what, got, passed)
			}
		}
		want("off", true, true, true, true, true, true)
		check(urpf.URPF_API_MODE_LOOSE)
		want("loose", true, true, false, true, true, false)
		check(urpf.URPF_API_MODE_STRICT)
		want("strict", true, false, false, true, false, false)
		v.ok(v.route("172.31.0.0/24", 0, true, false, via("172.31.0.0/24", uint32(c.lan.idx), lan4)), "route")
		want("strict, with a route back", true, false, true, true, false, false)
		if d.Kind == dataplanetest.Embedded { // VPP drops what comes from a link-local address, in both modes: vppagent knows
			c.wantEcho()
		}
		check(urpf.URPF_API_MODE_OFF)
		want("off again", true, true, true, true, true, true)
	})
}

// wantEcho pings the dataplane's link-local address on lan from one of the link.
func (c *cables) wantEcho() {
	c.t.Helper()
	r, err := ip.NewServiceClient(c.conn).SwInterfaceIP6GetLinkLocalAddress(c.ctx, &ip.SwInterfaceIP6GetLinkLocalAddress{SwIfIndex: c.lan.idx})
	c.ok(err, "link-local address")
	const near = "fe80::aa"
	_, err = ip_neighbor.NewServiceClient(c.conn).IPNeighborAddDel(c.ctx, &ip_neighbor.IPNeighborAddDel{
		IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
			SwIfIndex: c.lan.idx, Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC, MacAddress: [6]byte{2, 0, 0, 0, 0, 0xbb},
			IPAddress: binapi.ToAddress(netip.MustParseAddr(near)),
		},
	})
	c.ok(err, "neighbour")
	echo := append([]byte{128, 0, 0, 0, 0, 1, 0, 1}, fmt.Sprintf("%-16s", "hello")...)
	c.lan.send(c.vpp, ipPacket(c.lan.mac, near, binapi.FromIP6(r.IP).String(), 58, echo, 2))
	for {
		select {
		case f := <-c.lan.frames:
			if len(f) >= 14+48 && f[14]>>4 == 6 && f[20] == 58 && f[54] == 129 {
				return
			}
		case <-c.ctx.Done():
			c.t.Fatal("no answer to an echo from a link-local address")
		}
	}
}

// TestFlowHash: every table takes a flow hash by either message, and one that is not there takes none.
func TestFlowHash(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		c := ip.NewServiceClient(v.conn)
		const ports = ip.IP_API_FLOW_HASH_SRC_IP | ip.IP_API_FLOW_HASH_DST_IP | ip.IP_API_FLOW_HASH_SRC_PORT | ip.IP_API_FLOW_HASH_DST_PORT | ip.IP_API_FLOW_HASH_PROTO
		for _, af := range []ip_types.AddressFamily{ip_types.ADDRESS_IP4, ip_types.ADDRESS_IP6} {
			for _, flags := range []ip.IPFlowHashConfig{ip.IP_API_FLOW_HASH_SRC_IP | ip.IP_API_FLOW_HASH_DST_IP, ports | ip.IP_API_FLOW_HASH_FLOW_LABEL, ports} {
				_, err := c.SetIPFlowHashV2(v.ctx, &ip.SetIPFlowHashV2{Af: af, FlowHashConfig: flags})
				v.ok(err, "set_ip_flow_hash_v2")
			}
			_, err := c.SetIPFlowHashV2(v.ctx, &ip.SetIPFlowHashV2{TableID: 77, Af: af, FlowHashConfig: ports})
			v.want(err, api.NO_SUCH_FIB, "set_ip_flow_hash_v2 of no table")
			is6 := af == ip_types.ADDRESS_IP6
			_, err = c.SetIPFlowHash(v.ctx, &ip.SetIPFlowHash{IsIPv6: is6, Src: true, Dst: true, Sport: true, Dport: true, Proto: true})
			v.ok(err, "set_ip_flow_hash")
			_, err = c.SetIPFlowHash(v.ctx, &ip.SetIPFlowHash{VrfID: 77, IsIPv6: is6, Src: true})
			v.want(err, api.NO_SUCH_FIB, "set_ip_flow_hash of no table")
		}
	})
}
