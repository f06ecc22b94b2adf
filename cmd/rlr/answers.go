package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.fd.io/govpp/api"

	"rlr/bgp"
	"rlr/internal/config"
	"rlr/internal/ctl"
	"rlr/wg"
)

// defaultTable is the name of table 0 in answers, as VRFs have names.
const defaultTable = "default"

// handlers are the router's side of the control socket.
func (r *router) handlers() ctl.Handlers {
	return ctl.Handlers{
		Status:     r.status,
		Interfaces: r.interfaces,
		Neighbors:  r.neighbors,
		Protocols:  r.protocols,
		BGP:        func(context.Context) ([]ctl.BGPSession, error) { return r.sessions(), nil },
		BFD:        r.bfdRows,
		WireGuard:  r.wireguard,
		ACL:        r.aclRows,
		Errors:     r.errors,
		Routes:     r.routes,
		RouteCount: r.routeCount,
		FIB:        r.fibEntries,
		ROA:        r.roaStatus,
		ROAs:       r.roaRows,
		Log:        r.logRecords,
		Ping:       r.ping,
		Traceroute: r.traceroute,
		VPPCtl:     r.vppctl,
		Neighbor:   r.neighborAction,
		Route:      r.routeAction,
		FIBDo:      r.fibDo,
		PolicyTest: r.policyTest,
		Reload:     r.reload,
		Restart: func(context.Context) (ctl.Done, error) {
			if _, err := loadConfig(r.path); err != nil {
				return ctl.Done{}, ctl.BadRequest("the configuration would not start again:\n%v", err)
			}
			if r.dp.vpp != nil {
				r.dp.vpp.Leave() // it forwards meanwhile, and the new router adopts it
			}
			if r.speaker != nil {
				r.speaker.Leave()
			}
			r.end(errRestart)
			return ctl.Done{Message: "restarting"}, nil
		},
		Stop: r.stop,
	}
}

func (r *router) status(ctx context.Context) (ctl.Status, error) {
	cfg := r.config.Load()
	dp := r.agent.Status()
	st := ctl.Status{
		Name: cfg.Router.Name, Version: version, AS: cfg.Router.AS, PID: os.Getpid(), Config: r.path,
		UptimeS: time.Since(r.started).Seconds(), FIB: fibStatus(r.syncer.Status()),
		RSSBytes: residentBytes(), CPUS: cpuSeconds(),
		Dataplane: ctl.DataplaneStatus{
			Kind: string(r.dp.kind), State: "connecting", Version: dp.Version, PID: int(dp.PID), APISocket: r.dp.sockets.API,
			Instead: r.dp.instead,
		},
	}
	for _, n := range st.FIB.States {
		st.Routes += n
	}
	if cfg.Router.ID.IsValid() {
		st.RouterID = cfg.Router.ID.String()
	}
	if dp.Connected {
		st.Dataplane.State = "connected"
		st.Dataplane.UptimeS = time.Since(dp.Boot).Seconds()
	}
	if dp.Err != nil {
		st.Dataplane.Error = dp.Err.Error()
	}
	if r.dp.kind == config.VPP { // what the embedded one lacks, docs/minivpp.md tells
		for _, m := range dp.Missing {
			st.Dataplane.Differs = append(st.Dataplane.Differs, ctl.APIMessage{
				Message: m.Message, Feature: string(m.Feature), Need: m.Need.String(), Wanted: m.Want, Found: m.Found,
			})
		}
	}
	for _, h := range r.agent.Heaps(ctx) {
		st.Dataplane.Heaps = append(st.Dataplane.Heaps, ctl.Heap{Name: h.Name, TotalBytes: h.Total, UsedBytes: h.Used})
	}
	if r.dp.vpp != nil {
		v := r.dp.vpp.Status()
		st.Dataplane.RSSBytes, st.Dataplane.PSSBytes, st.Dataplane.Restarts = v.RSS, v.PSS, v.Restarts
		if v.Err != nil && !dp.Connected {
			st.Dataplane.Error = v.Err.Error()
		}
	}
	if r.speaker != nil {
		st.Sessions.Established, st.Sessions.Total = r.speaker.Established()
	}
	return st, nil
}

// residentBytes is the resident set size of this process; 0 where /proc is not mounted.
func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

// cpuSeconds is the user and system time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func (r *router) interfaces(ctx context.Context) ([]ctl.Interface, error) {
	list, err := r.agent.Interfaces(ctx)
	if err != nil {
		return nil, ctl.Unavailable("interfaces: %v", err)
	}
	cfg := r.config.Load()
	out := make([]ctl.Interface, 0, len(list))
	for _, i := range list {
		row := ctl.Interface{
			Name: i.Name, Dataplane: i.DataplaneName, SwIfIndex: i.SwIfIndex, Kind: i.Kind, Admin: i.Admin, Link: i.Link,
			MTU: i.MTU, MAC: i.MAC.String(), VRF: defaultTable, Addresses: []string{}, Unnumbered: i.Unnumbered,
			RxPackets: i.Counters.RxPackets, RxBytes: i.Counters.RxBytes, TxPackets: i.Counters.TxPackets, TxBytes: i.Counters.TxBytes,
			Drops: i.Counters.Drops, RxErrors: i.Counters.RxErrors, TxErrors: i.Counters.TxErrors, State: i.State.String(),
		}
		if c, ok := cfg.Interface(i.Name); ok {
			row.Kind = string(c.Kind())
		}
		for _, a := range i.Addresses {
			row.Addresses = append(row.Addresses, a.String())
		}
		if i.Err != nil {
			row.Error = i.Err.Error()
		}
		out = append(out, row)
	}
	return out, nil
}

func (r *router) neighbors(ctx context.Context) ([]ctl.Neighbor, error) {
	list, err := r.agent.Neighbors(ctx)
	if err != nil {
		return nil, ctl.Unavailable("neighbors: %v", err)
	}
	out := make([]ctl.Neighbor, 0, len(list))
	for _, n := range list {
		out = append(out, ctl.Neighbor{
			Address: n.Address.String(), MAC: n.MAC.String(), Interface: n.Interface, Static: n.Static, AgeS: n.Age.Seconds(),
		})
	}
	return out, nil
}

func (r *router) sessions() []ctl.BGPSession {
	if r.speaker == nil {
		return nil
	}
	var out []ctl.BGPSession
	ov := r.overlay.Load()
	for _, s := range r.speaker.Sessions() {
		row := ctl.BGPSession{
			Name: s.Neighbor.Name, Address: addressText(s.Neighbor.Address), Interface: s.Neighbor.Interface,
			AS: s.Neighbor.AS, State: s.State.String(), UptimeS: s.Uptime.Seconds(),
			Received: s.Received, Accepted: s.Accepted, Advertised: s.Advertised, LastError: s.ErrorText(),
			HoldTimeS: s.HoldTime.Seconds(), KeepaliveS: s.Keepalive.Seconds(), VRF: defaultTable,
			Flaps: s.Flaps, Disabled: s.Disabled, Families: []string{}, GracefulRestart: gracefulRestart(s.Graceful),
			Group: s.Neighbor.Group, Dynamic: s.Neighbor.Dynamic, Runtime: ov.hasNeighbor(s.Neighbor.Name),
			MaxPrefix: prefixLimits(s.Limits), AddPath: s.AddPath, Malformed: s.Malformed, Leaks: s.Leaks,
			BFD: s.BFD,
		}
		if s.Neighbor.Role != bgp.NoRole {
			row.Role = s.Neighbor.Role.String()
		}
		if row.Interface == "" {
			row.Interface = r.syncer.ResolveInterface(s.Neighbor.Table, s.Neighbor.Address)
		}
		if row.Uncounted = s.Counted.IsZero(); !row.Uncounted {
			if age := time.Since(s.Counted); age >= time.Second {
				row.CountsAgeS = age.Seconds()
			}
		}
		if s.LocalAddress.IsValid() {
			row.LocalAddr = s.LocalAddress.WithZone("").String()
		}
		if s.RouterID.IsValid() {
			row.RouterID = s.RouterID.String()
		}
		for _, f := range s.PerFamily {
			row.Prefixes = append(row.Prefixes, ctl.FamilyPrefixes{
				Family: f.Family.String(), Received: f.Received, Accepted: f.Accepted, Advertised: f.Advertised,
			})
		}
		for _, f := range s.Families {
			row.Families = append(row.Families, f.String())
		}
		out = append(out, row)
	}
	return out
}

// addressText is "" where there is none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.WithZone("").String()
}

func prefixLimits(all []bgp.LimitState) (out []ctl.PrefixLimit) {
	for _, l := range all {
		out = append(out, ctl.PrefixLimit{
			Family: l.Family.String(), Limit: l.Max, Action: l.Action.String(), Prefixes: l.Prefixes, Blocked: l.Blocked, Reached: l.Reached(),
		})
	}
	return out
}

func gracefulRestart(g bgp.Graceful) *ctl.GracefulRestart {
	out := &ctl.GracefulRestart{
		Mode: g.Mode.String(), State: ctl.GracefulNotNegotiated, Restarter: g.Restarter, PeerFamilies: []string{},
		PeerRestartS: g.RestartTime.Seconds(), PeerLongLivedS: g.LongLived.Seconds(), HelpingS: g.HelpingFor.Seconds(), Stale: g.Stale,
	}
	switch {
	case g.Mode == bgp.GracefulOff:
		out.State = ctl.GracefulOff
	case g.LastResort:
		out.State = ctl.GracefulLastResort
	case g.Helping:
		out.State = ctl.GracefulHelping
	case g.Restarting:
		out.State = ctl.GracefulRestarting
	case g.Aware:
		out.State = ctl.GracefulNegotiated
	}
	for _, f := range g.Families {
		out.PeerFamilies = append(out.PeerFamilies, f.String())
	}
	return out
}

// protocols lists every source of routes, as birdc does.
func (r *router) protocols(context.Context) ([]ctl.Protocol, error) {
	up := time.Since(r.started).Seconds()
	out := []ctl.Protocol{
		{Name: "direct", Proto: "direct", Table: defaultTable, State: "up", SinceS: up, Routes: r.direct.Len()},
		{Name: "static", Proto: "static", Table: defaultTable, State: "up", SinceS: up, Routes: r.static.Len()},
	}
	if r.config.Load().Dataplane.Learn {
		out = append(out, ctl.Protocol{
			Name: "learned", Proto: "learned", Table: defaultTable, State: "up", SinceS: up, Routes: r.learned.Len(),
		})
	}
	if r.others != nil {
		out = append(out, ctl.Protocol{
			Name: grpcProtocol, Proto: grpcProtocol, Table: defaultTable, State: "up", SinceS: up, Routes: r.others.Len(),
		})
	}
	for _, s := range r.sessions() {
		p := ctl.Protocol{
			Name: s.Name, Proto: "bgp", Table: s.VRF, State: "start", SinceS: s.UptimeS, Info: s.State, Routes: int(s.Accepted),
			Runtime: s.Runtime, Dynamic: s.Dynamic,
		}
		switch {
		case s.Disabled:
			p.State = "down"
		case s.State == bgp.Established.String():
			p.State = "up"
		}
		if s.Uncounted {
			p.Info += "  routes not counted yet"
		}
		if p.State != "up" && s.LastError != "" {
			p.Info += "  " + s.LastError
		}
		out = append(out, p)
	}
	return out, nil
}

func (r *router) wireguard(context.Context) ([]ctl.WireGuard, error) {
	out := []ctl.WireGuard{}
	r.links.each(func(name string, l *wg.Link) {
		s := l.Status()
		row := ctl.WireGuard{
			Name: name, PublicKey: s.PublicKey.String(), Listen: addrPort(s.Listen), PeerKey: s.PeerKey.String(),
			PresharedKey: s.PresharedKey, Endpoint: addrPort(s.Endpoint), HandshakeAgeS: -1,
			RxBytes: s.RxBytes, TxBytes: s.TxBytes, KeepaliveS: s.Keepalive.Seconds(), DataplaneDrops: s.Drops,
		}
		if !s.LastHandshake.IsZero() {
			row.HandshakeAgeS = time.Since(s.LastHandshake).Seconds()
		}
		out = append(out, row)
	})
	return out, nil
}

func addrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (r *router) errors(context.Context) ([]ctl.ErrorRecord, error) {
	out := r.journal.counted(time.Now())
	for _, e := range r.agent.Errors() {
		out = append(out, ctl.ErrorRecord{
			Subsystem: "vppagent", Object: e.Object, Error: e.Err, Count: e.Count, LastAgoS: time.Since(e.Last).Seconds(),
		})
	}
	return append(out, fibErrors(r.syncer.Status())...), nil
}

func (r *router) vppctl(ctx context.Context, req ctl.VPPCtlRequest) (ctl.VPPCtlResult, error) {
	if words := strings.Fields(req.Line); r.dp.kind == config.VPP && len(words) > 0 && words[0] == "ping" {
		return ctl.VPPCtlResult{}, ctl.BadRequest("VPP's ping would hold up its API, and with it all route changes, until it is done: use `rlr ping`")
	}
	out, err := r.agent.CLI(ctx, req.Line)
	var refused api.VPPApiError
	switch {
	case errors.As(err, &refused) && strings.TrimSpace(out) != "": // the text says more than the number
		return ctl.VPPCtlResult{}, ctl.BadRequest("%s", strings.TrimSpace(out))
	case err != nil:
		return ctl.VPPCtlResult{}, ctl.Unavailable("%v", err)
	}
	return ctl.VPPCtlResult{Output: out}, nil
}

func (r *router) stop(ctx context.Context, req ctl.StopRequest) (ctl.Done, error) {
	if req.Clean {
		if err := r.agent.Clean(ctx); err != nil {
			return ctl.Done{}, ctl.Unavailable("the dataplane could not be cleaned, so the router goes on: %v", err)
		}
	}
	r.end(nil)
	return ctl.Done{Message: "stopping"}, nil
}
