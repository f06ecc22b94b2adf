package main

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"rlr/bgp"
	"rlr/fib"
	"rlr/internal/config"
	"rlr/internal/ctl"
	"rlr/vppagent"
	"rlr/wg"
)

// This file turns a configuration into what each part of the router wants to know. The functions are pure: the same
// configuration gives equal values, which is how a reload finds what changed.

// side tells the two ends of a WireGuard link's memif apart.
type side string

const (
	dataplaneSide side = "dataplane"
	wgSide        side = "wg"
)

// stableMAC makes a locally administered unicast address that a link keeps over restarts, so that both ends of its memif
// know each other from the start and a neighbour's cache stays right.
func stableMAC(router, iface string, s side) net.HardwareAddr {
	h := sha256.Sum256([]byte(router + "\x00" + iface + "\x00" + string(s)))
	mac := net.HardwareAddr(h[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// eui64 is the link-local address that a dataplane makes from a MAC address (RFC 4291 appendix A).
func eui64(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// linkLocal is our fe80:: address on an interface.
func linkLocal(cfg *config.Config, iface config.Interface) netip.Addr {
	if a := iface.LinkLocal(); a.IsValid() {
		return a
	}
	return eui64(stableMAC(cfg.Router.Name, iface.Name, dataplaneSide))
}

// wgSocket is where the dataplane listens for a WireGuard link.
func wgSocket(dir, iface string) string { return filepath.Join(dir, "wg-"+iface+".sock") }

// guardOf is what an interface does to packets. VPP's own TCP takes 1500 bytes for what every link carries, and learns of nothing else
// (src/vnet/tcp: default_mtu), so that without the clamp a session over a tunnel would come up and stop at its first full packet.
func guardOf(i config.Interface) (g vppagent.Guard) {
	g.URPF = map[config.URPF]vppagent.URPFMode{config.URPFLoose: vppagent.URPFLoose, config.URPFStrict: vppagent.URPFStrict}[i.URPF]
	const header4, header6 = 40, 60 // of IP and TCP, bytes
	switch {
	case i.MSSClamp == config.NoClamp || i.Loopback:
	case i.MSSClamp != config.AutoClamp:
		g.MSS4, g.MSS6 = uint16(i.MSSClamp), uint16(i.MSSClamp-(header6-header4))
	case i.MTU < config.DefaultMTU:
		g.MSS4, g.MSS6, g.Optional = uint16(i.MTU-header4), uint16(i.MTU-header6), true
	}
	return g
}

var agentHashes = map[config.FlowHash]vppagent.FlowHash{
	config.HashPorts: vppagent.HashPorts, config.HashAddresses: vppagent.HashAddresses, config.HashFlowLabel: vppagent.HashFlowLabel,
}

// agentConfig is what vppagent makes of the dataplane.
func agentConfig(cfg *config.Config, dir string) vppagent.Config {
	out := vppagent.Config{Router: cfg.Router.Name, Learn: cfg.Dataplane.Learn, ACLs: agentACLs(cfg), FlowHash: agentHashes[cfg.Dataplane.FlowHash]}
	for _, i := range cfg.Interfaces {
		vi := vppagent.Interface{
			Name:       i.Name,
			MAC:        stableMAC(cfg.Router.Name, i.Name, dataplaneSide),
			MTU:        i.MTU,
			Addresses:  addresses(cfg, i),
			Unnumbered: i.Unnumbered,
			ACLIn:      i.ACL.In,
			ACLOut:     i.ACL.Out,
			Enabled:    true,
			Advertise:  unnumberedOn(cfg, i),
			Bare:       i.WireGuard != nil,
			Guard:      guardOf(i),
		}
		switch {
		case i.Memif != nil:
			vi.Memif = &vppagent.Memif{
				Socket: i.Memif.SocketPath(ctl.LinksDir()), ID: i.Memif.ID, Role: memifRole(i.Memif.Role),
				RingSize: i.Memif.RingSize, BufferSize: i.Memif.BufferSize, Queues: i.Memif.Queues,
				Secret: string(i.Memif.Secret.Bytes()),
			}
		case i.WireGuard != nil:
			// The dataplane listens, so that the link finds it again when it has restarted.
			vi.Memif = &vppagent.Memif{Socket: wgSocket(dir, i.Name), Role: vppagent.MemifMaster}
			vi.Neighbors = peersOn(cfg, i)
		default:
			vi.Loopback = &vppagent.Loopback{}
		}
		out.Interfaces = append(out.Interfaces, vi)
	}
	return out
}

func memifRole(r config.Role) vppagent.MemifRole {
	if r == config.Master {
		return vppagent.MemifMaster
	}
	return vppagent.MemifSlave
}

// addresses are the interface's own, with the link-local one spelled out where IPv6 is needed and the configuration gives none.
func addresses(cfg *config.Config, i config.Interface) []netip.Prefix {
	if i.Loopback || i.LinkLocal().IsValid() || !needsIP6(cfg, i) {
		return i.Addresses
	}
	return append(slices.Clip(i.Addresses), netip.PrefixFrom(linkLocal(cfg, i), 128))
}

// needsIP6 says whether an interface takes part in IPv6: by an address of its own or of its lender, or for a session with an
// IPv6 neighbour.
func needsIP6(cfg *config.Config, i config.Interface) bool {
	is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	if slices.ContainsFunc(i.Addresses, is6) {
		return true
	}
	if lender, ok := cfg.Interface(i.Unnumbered); ok && slices.ContainsFunc(lender.Addresses, is6) {
		return true
	}
	return slices.ContainsFunc(cfg.BGP.Neighbors, func(n config.Neighbor) bool {
		return n.Interface == i.Name && !n.Address.Is4()
	})
}

// unnumberedOn says whether a BGP neighbour without an address is to be found on an interface.
func unnumberedOn(cfg *config.Config, i config.Interface) bool {
	return slices.ContainsFunc(cfg.BGP.Neighbors, func(n config.Neighbor) bool { return n.Interface == i.Name && !n.Address.IsValid() })
}

// withRouters adds the neighbours that were found behind tunnels: see peersOn.
func withRouters(cfg *config.Config, out vppagent.Config, found map[string]netip.Addr) vppagent.Config {
	for k := range out.Interfaces {
		vi := &out.Interfaces[k]
		if a := found[vi.Name]; vi.Advertise && vi.Bare && a.IsValid() {
			vi.Neighbors = append(vi.Neighbors, vppagent.StaticNeighbor{Address: a, MAC: stableMAC(cfg.Router.Name, vi.Name, wgSide)})
		}
	}
	return out
}

// peersOn lists the BGP neighbours that are known to be behind a tunnel. VPP sends no first SYN to a link-local address
// without a neighbour entry, and behind a tunnel there is nobody else who could answer.
func peersOn(cfg *config.Config, i config.Interface) []vppagent.StaticNeighbor {
	var out []vppagent.StaticNeighbor
	mac := stableMAC(cfg.Router.Name, i.Name, wgSide)
	for _, n := range cfg.BGP.Neighbors {
		on := n.Interface == i.Name
		if n.Interface == "" && !n.Multihop {
			on = slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Masked().Contains(n.Address) })
		}
		if on && n.Address.IsValid() {
			out = append(out, vppagent.StaticNeighbor{Address: n.Address, MAC: mac})
		}
	}
	return out
}

// linkConfig is a WireGuard link's own part.
func linkConfig(cfg *config.Config, i config.Interface, dir string) wg.Config {
	w := i.WireGuard
	out := wg.Config{
		Name:         i.Name,
		PrivateKey:   wg.PrivateKey(w.PrivateKey.Key()),
		Listen:       w.Listen,
		MTU:          i.MTU,
		Socket:       wgSocket(dir, i.Name),
		MAC:          stableMAC(cfg.Router.Name, i.Name, wgSide),
		DataplaneMAC: stableMAC(cfg.Router.Name, i.Name, dataplaneSide),
		Peer: wg.Peer{
			PublicKey: wg.Key(w.Peer.PublicKey),
			Endpoint:  w.Peer.Endpoint,
			Keepalive: w.Peer.Keepalive,
		},
	}
	if w.PresharedKey.IsSet() {
		psk := wg.PresharedKey(w.PresharedKey.Key())
		out.Peer.PresharedKey = &psk
	}
	return out
}

// bgpConfig is the speaker's part.
func bgpConfig(cfg *config.Config) bgp.Config {
	out := bgp.Config{
		AS: cfg.Router.AS, RouterID: cfg.Router.ID, ClusterID: cfg.BGP.ClusterID, Multipath: cfg.BGP.Multipath,
		Deferral: cfg.BGP.Deferral, Farewell: cfg.BGP.Farewell, ROA: roaPolicy(cfg.ROA.Policy), EBGPDefault: bgp.PolicyNone, Policies: bgpPolicies(cfg),
		DN42: bgp.DN42{Own: cfg.BGP.Originate, Region: cfg.BGP.DN42.Region, Country: cfg.BGP.DN42.Country},
	}
	if cfg.BGP.PolicyOptional {
		out.EBGPDefault = bgp.PolicyAll
	}
	for _, n := range cfg.BGP.Neighbors {
		out.Neighbors = append(out.Neighbors, neighborConfig(cfg, n))
	}
	for _, e := range cfg.BGP.Dynamic {
		n := e.Settings
		n.Address = e.Prefix.Addr() // where such a neighbour is, is where its prefix is
		out.Dynamic = append(out.Dynamic, bgp.Dynamic{
			Prefix: e.Prefix, AS: e.AS, External: e.External, Limit: e.Limit, ForgetAfter: e.ForgetAfter, Neighbor: neighborConfig(cfg, n),
		})
	}
	return out
}

func neighborConfig(cfg *config.Config, n config.Neighbor) bgp.Neighbor {
	out := bgp.Neighbor{
		Name: n.Name, Address: n.Address, Interface: n.Interface, AS: n.AS, External: n.External, LocalAddress: n.LocalAddress,
		HoldTime: n.HoldTime, ConnectRetry: n.ConnectRetry, Passive: n.Passive, Disabled: n.Disabled,
		NextHopSelf: n.NextHopSelf, RouteReflectorClient: n.RouteReflectorClient, Multihop: n.Multihop,
		Import: bgp.Policy(n.Import), Export: bgp.Policy(n.Export), Group: n.Group,
		ImportOf: familyPolicies(n.FamilyImport), ExportOf: familyPolicies(n.FamilyExport),
		DN42: bgp.DN42Link(n.DN42),
		Graceful: bgp.GracefulRestart{
			Mode: gracefulMode(n.GracefulRestart.Mode), RestartTime: n.GracefulRestart.RestartTime,
			StaleTime: n.GracefulRestart.StaleTime, LongLived: n.GracefulRestart.LongLived,
		},
		BFD:    bgp.BFD(n.BFD),
		Limit4: prefixLimit(n.MaxPrefix4), Limit6: prefixLimit(n.MaxPrefix6), AllowOwnAS: n.AllowOwnAS,
		AddPath: bgp.AddPath{Receive: n.AddPath.Mode == config.AddPathReceive || n.AddPath.Mode == config.AddPathBoth, SendMax: n.AddPath.SendMax},
		Role:    bgpRoles[n.Role], StrictRole: n.StrictRole,
	}
	for _, f := range n.Families {
		out.Families = append(out.Families, bgpFamily(f))
	}
	iface, found := interfaceTowards(cfg, n)
	if found && !n.Multihop {
		out.Interface = iface.Name // where a link-local next hop of this neighbour is, whatever the session's own addresses
	}
	if found && !out.LocalAddress.IsValid() && (!n.Address.IsValid() || n.Address.IsLinkLocalUnicast() && n.Address.Is6()) {
		out.LocalAddress = linkLocal(cfg, iface)
	}
	if found && n.Address.Is4() && slices.Contains(n.Families, config.IPv6) {
		out.NextHop6 = nextHop6(cfg, iface)
	}
	return out
}

var bgpRoles = map[config.BGPRole]bgp.Role{
	config.RoleProvider: bgp.Provider, config.RoleCustomer: bgp.Customer, config.RolePeer: bgp.Peer, config.RoleRS: bgp.RS,
	config.RoleRSClient: bgp.RSClient,
}

func prefixLimit(l config.PrefixLimit) bgp.PrefixLimit {
	out := bgp.PrefixLimit{Max: l.Limit, RestartAfter: l.RestartAfter}
	switch l.Action {
	case config.LimitWarn:
		out.Action = bgp.LimitWarn
	case config.LimitRestart:
		out.Action = bgp.LimitRestart
	}
	return out
}

// interfaceTowards returns the interface that a neighbour is on, as far as the configuration tells.
func interfaceTowards(cfg *config.Config, n config.Neighbor) (config.Interface, bool) {
	if n.Interface != "" {
		return cfg.Interface(n.Interface)
	}
	for _, i := range cfg.Interfaces {
		for _, p := range i.Addresses {
			if p.Masked().Contains(n.Address) {
				return i, true
			}
		}
	}
	return config.Interface{}, false
}

// nextHop6 is our next hop for IPv6 routes over a session between IPv4 addresses: a global address of the interface where
// there is one (RFC 2545 §3), else the link-local one.
func nextHop6(cfg *config.Config, i config.Interface) netip.Addr {
	for _, p := range i.Addresses {
		if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	return linkLocal(cfg, i)
}

func gracefulMode(m config.GracefulMode) bgp.GracefulMode {
	switch m {
	case config.GracefulHelper:
		return bgp.GracefulHelper
	case config.GracefulOff:
		return bgp.GracefulOff
	}
	return bgp.GracefulOn
}

// staticRoutes is the feed `static`.
func staticRoutes(cfg *config.Config) []fib.Route {
	var out []fib.Route
	for _, s := range cfg.Static {
		r := fib.Route{Key: fib.Key{Prefix: s.Prefix}}
		switch s.Action {
		case config.Blackhole:
			r.Kind = fib.Blackhole
		case config.Unreachable:
			r.Kind = fib.Unreachable
		case config.Prohibit:
			r.Kind = fib.Prohibit
		default:
			for _, v := range s.Via {
				r.NextHops = append(r.NextHops, fib.NextHop{Addr: v.Address, Interface: v.Interface, Weight: v.Weight})
			}
		}
		out = append(out, r)
	}
	return out
}

// auditEvery is the Syncer's way to say it.
func auditEvery(cfg *config.Config) time.Duration {
	if cfg.Dataplane.Audit == 0 {
		return -1
	}
	return cfg.Dataplane.Audit
}

// origins is what BGP announces as our own: `originate`, the connected routes that `redistribute` names, static routes, and
// those of others in the dataplane.
func origins(cfg *config.Config, connected, learned []fib.Route) []bgp.Origin {
	var out []bgp.Origin
	add := func(p netip.Prefix, src bgp.Source) {
		out = append(out, bgp.Origin{Prefix: p, Source: src})
	}
	for _, p := range cfg.BGP.Originate {
		add(p, bgp.SourceOriginate)
	}
	for _, r := range connected {
		if r.Table == 0 && slices.ContainsFunc(r.NextHops, func(h fib.NextHop) bool {
			return cfg.BGP.Redistribute.Connected.Has(h.Interface)
		}) {
			add(r.Prefix, bgp.SourceConnected)
		}
	}
	if cfg.BGP.Redistribute.Static {
		for _, s := range cfg.Static {
			add(s.Prefix, bgp.SourceStatic)
		}
	}
	if cfg.BGP.Redistribute.Learned {
		for _, r := range learned {
			if r.Table == 0 {
				add(r.Prefix, bgp.SourceLearned)
			}
		}
	}
	return out
}
