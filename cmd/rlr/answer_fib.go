package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rlr/fib"
	"rlr/internal/ctl"
)

// This file is what an operator sees of the Syncer, and does to it.

func fibStatus(s fib.Status) ctl.FIBStatus {
	out := ctl.FIBStatus{
		Decoupled: !s.Decoupled.IsZero(), Synced: s.Synced, Complete: s.Complete, States: make(map[string]int), Learned: s.Learned,
		Bytes: s.Bytes, Dumps: s.Dumps, DumpS: s.DumpTook.Seconds(), Audits: s.Audits, AuditEveryS: s.AuditEvery.Seconds(),
		Unsettled: s.Unsettled, Written: s.Written, Deleted: s.Deleted, Refused: s.Refused, Unanswered: s.Unanswered,
		Latency: ctl.Latency{
			Count: s.Latency.Count, MedianMs: ms(s.Latency.Median), P99Ms: ms(s.Latency.P99), MaxMs: ms(s.Latency.Max),
		},
		Drift: ctl.Drift{Missing: s.Drift.Missing, Changed: s.Drift.Changed, Extra: s.Drift.Extra},
	}
	if out.Decoupled {
		out.DecoupledS = time.Since(s.Decoupled).Seconds()
	}
	for state, n := range s.States {
		out.States[state.String()] = n
	}
	if s.Routes > 0 {
		out.BytesPerRoute = s.Bytes / uint64(s.Routes)
	}
	if !s.Drift.Last.IsZero() {
		out.Drift.LastAgoS = time.Since(s.Drift.Last).Seconds()
	}
	for _, k := range s.Drift.First {
		out.Drift.First = append(out.Drift.First, k.Prefix.String())
	}
	return out
}

// fibErrors are the rows of `show errors`.
func fibErrors(s fib.Status) (out []ctl.ErrorRecord) {
	if s.Err != nil {
		out = append(out, ctl.ErrorRecord{Subsystem: "fib", Error: s.Err.Error(), Count: 1})
	}
	if !s.Decoupled.IsZero() {
		out = append(out, ctl.ErrorRecord{
			Subsystem: "fib", Count: 1, LastAgoS: time.Since(s.Decoupled).Seconds(),
			Error: "decoupled: no routes are written to the dataplane until `rlr fib couple`",
		})
	}
	if n := s.Drift.Count(); n > 0 {
		out = append(out, ctl.ErrorRecord{
			Subsystem: "fib", Object: firstPrefixes(s.Drift.First), Count: n, LastAgoS: time.Since(s.Drift.Last).Seconds(),
			Error: fmt.Sprintf("somebody else changed our routes in the dataplane: %d deleted, %d replaced, %d added under our name; %s",
				s.Drift.Missing, s.Drift.Changed, s.Drift.Extra, mendedText(s)),
		})
	}
	return out
}

func mendedText(s fib.Status) string {
	if s.Decoupled.IsZero() {
		return "repaired"
	}
	return "repaired until decoupled"
}

// firstPrefixes names three.
func firstPrefixes(keys []fib.Key) string {
	var names []string
	for i, k := range keys {
		if i == 3 {
			names = append(names, "…")
			break
		}
		names = append(names, k.Prefix.String())
	}
	return strings.Join(names, ", ")
}

// fibDo answers `rlr fib`.
func (r *router) fibDo(ctx context.Context, req ctl.FIBRequest) (ctl.FIBResult, error) {
	switch req.Action {
	case ctl.FIBDecouple:
		if err := r.syncer.Decouple(ctx); err != nil {
			return ctl.FIBResult{}, ctl.Unavailable("decoupled, but routes that were being written are not answered yet: %v", err)
		}
		r.log.Info("decoupled: no routes are written to the dataplane until `rlr fib couple`")
		return ctl.FIBResult{Decoupled: true, Message: "decoupled: what the dataplane holds stays, and nothing is written until `rlr fib couple`"}, nil
	case ctl.FIBCouple:
		was := r.syncer.Status().Decoupled
		c, err := r.syncer.Couple(ctx)
		if !was.IsZero() {
			r.log.Info("coupled: routes are written to the dataplane again")
		}
		if err != nil {
			return ctl.FIBResult{}, ctl.Unavailable("coupled, but the dataplane cannot be read now, and routes are written when it can: %v", err)
		}
		return r.fibResult("coupled", c), nil
	case ctl.FIBResync:
		c, err := r.syncer.Resync(ctx)
		if err != nil {
			return ctl.FIBResult{}, ctl.Unavailable("the dataplane cannot be read now: %v", err)
		}
		return r.fibResult("compared", c), nil
	}
	return ctl.FIBResult{}, ctl.BadRequest("fib action %q: use couple, decouple or resync", req.Action)
}

func (r *router) fibResult(message string, c fib.Comparison) ctl.FIBResult {
	out := ctl.FIBResult{
		Message: message, Decoupled: !r.syncer.Status().Decoupled.IsZero(), Read: true, Held: c.Held, Missing: c.Missing,
		Changed: c.Changed, Extra: c.Extra, Stale: c.Stale, Repaired: c.Repaired, Failed: c.Failed, Waiting: c.Waiting,
		Differences: []ctl.FIBDifference{},
	}
	for _, d := range c.First {
		row := ctl.FIBDifference{Prefix: d.Prefix.String(), Table: defaultTable, What: string(d.What), State: d.State.String()}
		if d.Gone {
			row.State = "removed"
		}
		if d.Err != nil {
			row.Error = d.Err.Error()
		}
		out.Differences = append(out.Differences, row)
	}
	return out
}
