package bgp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"rlr/hoststack"
)

// nearStack is the kernel's TCP on our side of the cable.
type nearStack struct{}

func (nearStack) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(e.Local)}
	return d.DialContext(ctx, "tcp", e.Remote.String())
}

func (nearStack) Listen(ctx context.Context, _ uint32, local netip.AddrPort) (net.Listener, error) {
	var c net.ListenConfig
	network := "tcp6"
	if local.Addr().Is4() {
		network = "tcp4"
	}
	return c.Listen(ctx, network, local.String())
}

// nearRouter speaks with the far side over link-local addresses, and announces 10.1.0.0/24 and fd00:1::/64.
func nearRouter(t *testing.T, change func(*Neighbor)) *testRouter {
	t.Helper()
	n := Neighbor{Name: "far", Address: a("fe80::2%near0"), LocalAddress: a("fe80::1%near0"), AS: 65002, Families: both, HoldTime: 30 * time.Second}
	if change != nil {
		change(&n)
	}
	feed := newRecorder()
	s, err := New(Options{
		Config: Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{n}}, Stack: nearStack{}, Feed: feed, Log: testLog(t, "r1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &testRouter{Speaker: s, t: t, name: "r1", feed: feed}
	start(t, r)
	r.originate("10.1.0.0/24", "fd00:1::/64")
	return r
}
