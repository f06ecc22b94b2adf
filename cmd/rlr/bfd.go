package main

import (
	"context"
	"net/netip"
	"time"

	"rlr/bgp"
	"rlr/internal/ctl"
	"rlr/vppagent"
)

// bfdOf lets BGP watch its neighbours by the dataplane's BFD.
type bfdOf struct{ agent *vppagent.Agent }

// WatchBFD implements bgp.BFDMonitor.
func (b bfdOf) WatchBFD(iface string, local, remote netip.Addr, o bgp.BFD, changed func(bool)) (stop func()) {
	want := vppagent.BFD{Interface: iface, Local: local, Peer: remote, Interval: o.Interval, Multiplier: o.Multiplier}
	return b.agent.WatchBFD(want, func(s vppagent.BFDState) { changed(s == vppagent.BFDUp) })
}

func (r *router) bfdRows(context.Context) ([]ctl.BFDSession, error) {
	rows := []ctl.BFDSession{}
	neighbors := r.sessions()
	for _, s := range r.agent.BFDSessions() {
		row := ctl.BFDSession{
			Interface: s.Interface, Peer: s.Peer.String(), State: s.State.String(), SinceS: time.Since(s.Since).Seconds(),
			IntervalMs: float64(s.Interval.Microseconds()) / 1000, Multiplier: s.Multiplier,
		}
		if s.Local.IsValid() {
			row.Local = s.Local.String()
		}
		for _, n := range neighbors {
			if n.Address == row.Peer && (n.Interface == row.Interface || row.Interface == "") {
				row.Neighbor = n.Name
			}
		}
		if s.Err != nil {
			row.State, row.Error = "failed", s.Err.Error()
		}
		rows = append(rows, row)
	}
	return rows, nil
}
