package vppagent

import (
	"context"

	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/vlib"
)

// walkQuota is how long VPP may be at updating routes without a look at packets, in seconds, when a next hop has gone and thousands of
// routes have to turn to another path. By default that is 100 µs, and then it sleeps for a millisecond (src/vnet/fib/fib_walk.c): a
// hundred thousand routes would take seconds. There is no message for it.
const walkQuota = "0.002"

// hastenWalks sets it, in a VPP that nobody else has set up.
func (l *life) hastenWalks(ctx context.Context) error {
	if !l.a.opt.Sole {
		return nil
	}
	return l.s.call(ctx, &vlib.CliInband{Cmd: "set fib walk quota " + walkQuota}, new(vlib.CliInbandReply))
}

// VPP looks for fragments that wait too long 20 times a second and family. Its main loop sleeps in whole milliseconds and
// spins the rest of the way to a timer, so each of these looks costs an idle VPP half a millisecond on average. Fragments that
// wait a little longer cost nothing: their number is limited.
const reassemblyWalk = 1000 // ms

// calmReassembly makes VPP look less often. It is a setting of all of VPP, so it is left alone where others may have set it.
func (l *life) calmReassembly(ctx context.Context) error {
	if !l.a.opt.Sole {
		return nil
	}
	for _, is6 := range []bool{false, true} {
		var now ip.IPReassemblyGetReply
		if err := l.s.call(ctx, &ip.IPReassemblyGet{IsIP6: is6, Type: ip.IP_REASS_TYPE_FULL}, &now); err != nil {
			return err
		}
		if now.ExpireWalkIntervalMs >= reassemblyWalk {
			continue
		}
		err := l.s.call(ctx, &ip.IPReassemblySet{
			TimeoutMs: now.TimeoutMs, MaxReassemblies: now.MaxReassemblies, MaxReassemblyLength: now.MaxReassemblyLength,
			ExpireWalkIntervalMs: reassemblyWalk, IsIP6: is6, Type: ip.IP_REASS_TYPE_FULL,
		}, new(ip.IPReassemblySetReply))
		if err != nil {
			return err
		}
	}
	return nil
}
