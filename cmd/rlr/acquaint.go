package main

import (
	"context"
	"net"
	"time"

	"rlr/hoststack"
)

// acquaintTime is how long a neighbour is asked for before a connection to it.
const acquaintTime = 500 * time.Millisecond

// acquainted is a stack of VPP's. Its TCP drops what it sends to a link-local address whose neighbour VPP does not know, and does not
// ask for it ("No rewrite for link local connection"): two such routers on one ethernet would wait for each other. An echo is asked
// for, as any packet that is forwarded.
type acquainted struct {
	hoststack.Stack
	prober *hoststack.Prober
	known  func(iface string) bool // the neighbours on it are: nobody need ask for them
}

func (a acquainted) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	if to := e.Remote.Addr(); to.IsLinkLocalUnicast() && to.Is6() && e.Interface != "" && !a.known(e.Interface) {
		// What comes of it does not matter: the connection tells.
		_, _ = a.prober.Ping(ctx, hoststack.PingRequest{
			Target: hoststack.Target{Addr: to.WithZone(""), Interface: e.Interface}, Count: 1, Interval: acquaintTime, Timeout: acquaintTime,
		}, func(hoststack.Reply) {})
	}
	return a.Stack.Dial(ctx, e)
}
