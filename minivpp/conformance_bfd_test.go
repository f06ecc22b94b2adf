package minivpp_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/bfd"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_neighbor"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// bfdPeer is the far end of a session.
type bfdPeer struct {
	port   *port
	polls  int // that we were asked to end
	theirs int // the state that was heard last
}

const (
	bfdAdminDown = iota
	bfdDown
	bfdInit
	bfdUp
)

var bfdPeerMAC = [6]byte{2, 0, 0, 0, 0, 0xaa}

// as RFC 5880 §6.8.6 has it, and another thing that a peer may say: nothing.
const (
	asTold = -1
	silent = -2
)

// answer takes a frame of the dataplane's and sends a packet with our state, if it was one of BFD.
func (p *bfdPeer) answer(v *vpp, f []byte, state int) {
	if len(f) < 14+20+8+24 || f[12] != 8 || f[14+9] != 17 || binary.BigEndian.Uint16(f[14+20+2:]) != 3784 {
		return
	}
	in := f[14+20+8:]
	if f[14+8] != 255 || in[0]>>5 != 1 || in[3] != 24 {
		v.t.Errorf("TTL %d, version %d, length %d", f[14+8], in[0]>>5, in[3])
	}
	p.theirs = int(in[1] >> 6)
	flags := byte(0)
	if in[1]&0x20 != 0 { // a poll
		flags = 0x10
		p.polls++
	}
	switch state {
	case silent:
		return
	case asTold:
		state = []int{bfdAdminDown: bfdDown, bfdDown: bfdInit, bfdInit: bfdUp, bfdUp: bfdUp}[p.theirs]
	}
	out := append(udp(p.port.mac, "10.9.0.2", "10.9.0.1", 1), make([]byte, 6)...) // 24 bytes in place of 18
	ip := out[14:]
	ip[8] = 255
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^uint16(onesSum(ip[:20])))
	u := ip[20:]
	binary.BigEndian.PutUint16(u, 50000)
	binary.BigEndian.PutUint16(u[2:], 3784)
	binary.BigEndian.PutUint16(u[4:], 8+24)
	binary.BigEndian.PutUint16(u[6:], 0)
	c := u[8:]
	c[0], c[1], c[2], c[3] = 1<<5, byte(state)<<6|flags, 3, 24
	binary.BigEndian.PutUint32(c[4:], 77)
	copy(c[8:12], in[4:8])
	binary.BigEndian.PutUint32(c[12:], 100_000)
	binary.BigEndian.PutUint32(c[16:], 100_000)
	binary.BigEndian.PutUint32(c[20:], 0)
	p.port.send(v, out)
}

func onesSum(b []byte) uint32 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

func TestBFD(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		v := connect(t, d)
		s := bfd.NewServiceClient(v.conn)
		p := &bfdPeer{port: v.plug(d, 1, "10.9.0.1/24", v.waitLink)}
		_, err := ip_neighbor.NewServiceClient(v.conn).IPNeighborAddDel(v.ctx, &ip_neighbor.IPNeighborAddDel{
			IsAdd: true, Neighbor: ip_neighbor.IPNeighbor{
				SwIfIndex: p.port.idx, Flags: ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC, MacAddress: bfdPeerMAC,
				IPAddress: binapi.ToAddress(netip.MustParseAddr("10.9.0.2")),
			},
		})
		v.ok(err, "neighbor")
		watch, err := v.conn.WatchEvent(v.ctx, &bfd.BfdUDPSessionEvent{})
		v.ok(err, "watch")
		defer watch.Close()
		_, err = s.WantBfdEvents(v.ctx, &bfd.WantBfdEvents{EnableDisable: true})
		v.ok(err, "want_bfd_events")
		_, err = s.WantBfdEvents(v.ctx, &bfd.WantBfdEvents{EnableDisable: true})
		v.want(err, api.INVALID_REGISTRATION, "want_bfd_events again")

		local, peer := binapi.ToAddress(netip.MustParseAddr("10.9.0.1")), binapi.ToAddress(netip.MustParseAddr("10.9.0.2"))
		add := &bfd.BfdUDPAdd{
			SwIfIndex: p.port.idx, DesiredMinTx: 100_000, RequiredMinRx: 100_000, DetectMult: 3, LocalAddr: local, PeerAddr: peer,
		}
		bad := *add
		bad.DetectMult = 0
		_, err = s.BfdUDPAdd(v.ctx, &bad)
		v.want(err, api.INVALID_ARGUMENT, "multiplier 0")
		bad = *add
		bad.SwIfIndex = 99
		_, err = s.BfdUDPAdd(v.ctx, &bad)
		v.want(err, api.INVALID_SW_IF_INDEX, "no interface")
		bad = *add
		bad.PeerAddr = binapi.ToAddress(netip.MustParseAddr("fe80::2"))
		_, err = s.BfdUDPAdd(v.ctx, &bad)
		v.want(err, api.INVALID_ARGUMENT, "two families")
		del := &bfd.BfdUDPDel{SwIfIndex: p.port.idx, LocalAddr: local, PeerAddr: peer}
		_, err = s.BfdUDPDel(v.ctx, del)
		v.want(err, api.BFD_ENOENT, "removal of none")
		mod := &bfd.BfdUDPMod{
			SwIfIndex: p.port.idx, DesiredMinTx: 200_000, RequiredMinRx: 150_000, DetectMult: 5, LocalAddr: local, PeerAddr: peer,
		}
		_, err = s.BfdUDPMod(v.ctx, mod)
		v.want(err, api.BFD_ENOENT, "change of none")

		_, err = s.BfdUDPAdd(v.ctx, add)
		v.ok(err, "bfd_udp_add")
		_, err = s.BfdUDPAdd(v.ctx, add)
		v.want(err, api.BFD_EEXIST, "bfd_udp_add again")

		var session bfd.BfdState // as events tell it
		until := func(what string, say int, done func() bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(v.ctx, 10*time.Second)
			defer cancel()
			for !done() {
				select {
				case e := <-watch.Events():
					got := e.(*bfd.BfdUDPSessionEvent)
					if got.SwIfIndex != p.port.idx || got.LocalAddr != local || got.PeerAddr != peer {
						t.Errorf("an event of %+v", got)
					}
					session = got.State
				case f := <-p.port.frames:
					p.answer(v, f, say)
				case <-ctx.Done():
					t.Fatalf("%s: the session is %s, the latest packet said %d, %d polls", what, session, p.theirs, p.polls)
				}
			}
		}
		up := func() bool { return session == bfd.BFD_STATE_API_UP }
		down := func() bool { return session == bfd.BFD_STATE_API_DOWN }
		until("it comes up", asTold, up)
		dump := func() bfd.BfdUDPSessionDetails {
			t.Helper()
			stream, err := s.BfdUDPSessionDump(v.ctx, &bfd.BfdUDPSessionDump{})
			list := all[bfd.BfdUDPSessionDetails](t, stream, err)
			if len(list) != 1 {
				t.Fatalf("%d sessions", len(list))
			}
			return *list[0]
		}
		want := bfd.BfdUDPSessionDetails{
			SwIfIndex: p.port.idx, LocalAddr: local, PeerAddr: peer, State: bfd.BFD_STATE_API_UP,
			RequiredMinRx: 100_000, DesiredMinTx: 100_000, DetectMult: 3,
		}
		if got := dump(); got != want {
			t.Errorf("a session is\n%+v\nwant\n%+v", got, want)
		}
		_, err = s.BfdUDPMod(v.ctx, mod)
		v.ok(err, "bfd_udp_mod")
		want.DesiredMinTx, want.RequiredMinRx, want.DetectMult = 200_000, 150_000, 5
		if got := dump(); got != want {
			t.Errorf("changed it is\n%+v\nwant\n%+v", got, want)
		}
		before := p.polls
		until("new timers", asTold, func() bool { return p.polls > before })
		until("the peer is silent", silent, down)
		until("it speaks again", asTold, up)
		until("the peer says that it is down", bfdDown, down)
		until("and then that it is not", asTold, up)
		flags := &bfd.BfdUDPSessionSetFlags{SwIfIndex: p.port.idx, LocalAddr: local, PeerAddr: peer}
		_, err = s.BfdUDPSessionSetFlags(v.ctx, flags)
		v.ok(err, "set_flags down")
		until("it is taken down by order, which the peer hears", asTold, func() bool { return p.theirs == bfdAdminDown })
		if got := dump(); got.State != bfd.BFD_STATE_API_ADMIN_DOWN {
			t.Errorf("taken down it is %s", got.State)
		}
		flags.Flags, session = interface_types.IF_STATUS_API_FLAG_ADMIN_UP, 0
		_, err = s.BfdUDPSessionSetFlags(v.ctx, flags)
		v.ok(err, "set_flags up")
		until("it may come up again", asTold, up)
		_, err = s.BfdUDPDel(v.ctx, del)
		v.ok(err, "bfd_udp_del")
		stream, err := s.BfdUDPSessionDump(v.ctx, &bfd.BfdUDPSessionDump{})
		if list := all[bfd.BfdUDPSessionDetails](t, stream, err); len(list) != 0 {
			t.Errorf("%d sessions are left", len(list))
		}
	})
}
