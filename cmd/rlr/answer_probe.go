package main

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"rlr/hoststack"
	"rlr/internal/ctl"
)

// ping answers `rlr ping`.
func (r *router) ping(ctx context.Context, req ctl.ProbeRequest, emit func(ctl.ProbeReply) error) (ctl.ProbeSummary, error) {
	target, err := r.target(req)
	if err != nil {
		return ctl.ProbeSummary{}, err
	}
	if req.Count == 0 {
		req.Count = hoststack.MaxCount // until the caller goes
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := r.prober.Ping(ctx, hoststack.PingRequest{
		Target: target, Count: req.Count, Interval: seconds(req.IntervalS), Timeout: seconds(req.TimeoutS), TTL: req.TTL,
	}, forward(cancel, emit))
	return ctl.ProbeSummary{
		Sent: s.Sent, Received: s.Received, LossPercent: lossPercent(s), MinMs: ms(s.Min), AvgMs: ms(s.Avg), MaxMs: ms(s.Max),
	}, probeError(ctx, err)
}

// traceroute answers `rlr traceroute`.
func (r *router) traceroute(ctx context.Context, req ctl.ProbeRequest, emit func(ctl.ProbeReply) error) error {
	target, err := r.target(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = r.prober.Traceroute(ctx, hoststack.TraceRequest{
		Target: target, MaxHops: req.MaxHops, Count: req.Count, Timeout: seconds(req.TimeoutS),
	}, forward(cancel, emit))
	return probeError(ctx, err)
}

// forward streams replies to a caller, and ends the probe when the caller has gone.
func forward(cancel context.CancelCauseFunc, emit func(ctl.ProbeReply) error) func(hoststack.Reply) {
	return func(p hoststack.Reply) {
		row := ctl.ProbeReply{
			Seq: p.Seq, Hop: p.Hop, From: addrString(p.From), RTTMs: ms(p.RTT), TTL: p.TTL, Bytes: p.Bytes, Error: p.Err, Final: p.Final,
		}
		if err := emit(row); err != nil {
			cancel(err)
		}
	}
}

func probeError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return ctl.BadRequest("%v", err)
	}
	return nil
}

// target checks what a caller asks to probe.
func (r *router) target(req ctl.ProbeRequest) (hoststack.Target, error) {
	addr, err := parseTarget(req.Target)
	if err != nil {
		return hoststack.Target{}, err
	}
	if req.VRF != "" && req.VRF != defaultTable {
		return hoststack.Target{}, ctl.NotFound("no VRF %q: there is only %s", req.VRF, defaultTable)
	}
	if _, err := netip.ParseAddr(req.Interface); err == nil && req.Source == "" {
		req.Interface, req.Source = "", req.Interface // as with ping(8), -I takes either
	}
	t := hoststack.Target{Addr: addr, Interface: req.Interface, Size: req.Size, DontFrag: req.DontFrag}
	if req.Interface != "" {
		if _, ok := r.agent.InterfaceIndex(req.Interface); !ok {
			return t, ctl.NotFound("no interface %q: see `rlr show interfaces`", req.Interface)
		}
	}
	if req.Source == "" {
		return t, nil
	}
	if t.Source, err = netip.ParseAddr(req.Source); err == nil {
		return t, nil
	}
	// An interface as source means its first address of the target's family.
	iface, ok := r.config.Load().Interface(req.Source)
	if !ok {
		return t, ctl.BadRequest("source %s: neither an address nor an interface", strconv.Quote(req.Source))
	}
	for _, p := range iface.Addresses {
		if p.Addr().Is4() == addr.Is4() {
			t.Source = p.Addr()
			return t, nil
		}
	}
	return t, ctl.BadRequest("source %s: the interface has no address of the target's family", req.Source)
}

func (r *router) logRecords(ctx context.Context, f ctl.LogFilter, emit func(ctl.LogRecord) error) error {
	records, more, stop := r.journal.read(f.Lines)
	defer stop()
	for _, rec := range records {
		if err := emit(rec); err != nil {
			return err
		}
	}
	if !f.Follow {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case rec := <-more:
			if err := emit(rec); err != nil {
				return err
			}
		}
	}
}

func lossPercent(s hoststack.Summary) float64 {
	if s.Sent == 0 {
		return 0
	}
	return 100 * float64(s.Sent-s.Received) / float64(s.Sent)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
