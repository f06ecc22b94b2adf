package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"rlr/hoststack"
	"rlr/internal/config"
	"rlr/internal/proxy"
)

// This file joins programs of the host with the router's networks: SOCKS from here to there, exposed services from there to here.

// proxies are the ones that run, by what the configuration says of each.
type proxies struct {
	mu     sync.Mutex
	stages map[string]*stage
}

// applyProxies makes the running proxies those of a configuration. One that did not change is not touched.
func (r *router) applyProxies(cfg *config.Config) {
	r.proxies.mu.Lock()
	defer r.proxies.mu.Unlock()
	want := map[string]*proxy.Server{}
	if s := cfg.Services.Socks; s.Listen.IsValid() {
		want[fmt.Sprint("socks5 ", s.Listen, s.DNS)] = r.socks(s)
	}
	for _, e := range cfg.Services.Expose {
		want[fmt.Sprint("expose ", e.Listen, " to ", e.To)] = r.expose(e)
	}
	for key, st := range r.proxies.stages {
		if want[key] == nil {
			_ = r.stages.stop(st) // a proxy's end is never an error
			delete(r.proxies.stages, key)
		}
	}
	for key, s := range want {
		if r.proxies.stages[key] == nil {
			r.proxies.stages[key] = r.stages.start(key, s.Run)
		}
	}
}

func (r *router) socks(s config.Socks) *proxy.Server {
	lookup := net.DefaultResolver
	if len(s.DNS) > 0 {
		lookup = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dialDNS(ctx, s.DNS) }}
	}
	open := proxy.Socks{
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return r.access.stack.Dial(ctx, hoststack.Endpoints{Remote: to})
		},
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return lookup.LookupNetIP(ctx, "ip", host)
		},
	}
	return &proxy.Server{
		Name: "socks5", Log: r.subsystem("proxy"), Open: open.Open,
		Listen: func(ctx context.Context) (net.Listener, error) {
			var l net.ListenConfig
			return l.Listen(ctx, "tcp", s.Listen.String())
		},
	}
}

// dialDNS connects to the first server that there is. A connection that is no packets' makes net.Resolver speak DNS over TCP (RFC
// 7766), which is what the dataplane's stack has.
func (r *router) dialDNS(ctx context.Context, servers []netip.Addr) (conn net.Conn, err error) {
	for _, a := range servers {
		if conn, err = r.access.stack.Dial(ctx, hoststack.Endpoints{Remote: netip.AddrPortFrom(a, 53)}); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (r *router) expose(e config.Expose) *proxy.Server {
	return &proxy.Server{
		Name: "expose " + e.Listen.String(), Log: r.subsystem("proxy"),
		Listen: func(ctx context.Context) (net.Listener, error) { return r.access.stack.Listen(ctx, 0, e.Listen) },
		Open: func(ctx context.Context, _ net.Conn) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", e.To)
		},
	}
}

// proxyChanges are a reload's lines about them.
func proxyChanges(old, next config.Services) (out []string) {
	switch o, n := old.Socks, next.Socks; {
	case o.Listen == n.Listen && slices.Equal(o.DNS, n.DNS):
	case !o.Listen.IsValid():
		out = append(out, "services.socks5 added")
	case !n.Listen.IsValid():
		out = append(out, "services.socks5 removed")
	default:
		out = append(out, "services.socks5 changed")
	}
	for _, e := range old.Expose {
		if !slices.Contains(next.Expose, e) {
			out = append(out, "exposed service "+e.Listen.String()+" removed")
		}
	}
	for _, e := range next.Expose {
		if !slices.Contains(old.Expose, e) {
			out = append(out, "exposed service "+e.Listen.String()+" added")
		}
	}
	return out
}
