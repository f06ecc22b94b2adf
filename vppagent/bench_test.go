package vppagent_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/core"

	"rlr/binapi"
	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// BenchmarkProgramming adds the same routes by the agent, by govpp's Stream with 1,000 requests in flight, and by govpp's Invoke,
// in turn, and reports the medians of the rates (routes/s) and of the pairwise ratios. `make bench` runs it.
func BenchmarkProgramming(b *testing.B) {
	for _, kind := range []dataplanetest.Kind{dataplanetest.Embedded, dataplanetest.VPP} {
		b.Run(string(kind), func(b *testing.B) {
			d := dataplanetest.StartWith(b, kind, dataplanetest.Memory{Heap: 512, Stats: 64})
			a, _ := runAgent(b, d.APISocket, "", benchConfig)
			if err := a.WaitConfigured(within(b)); err != nil {
				b.Fatal(err)
			}
			if _, err := a.Dump(within(b)); err != nil {
				b.Fatal(err)
			}
			index, _ := a.InterfaceIndex("dum0")
			govpp := alien(b, d.APISocket)
			const rounds, routes, single = 5, 100_000, 10_000
			var agent, stream, invoke, overStream, overInvoke []float64
			for b.Loop() {
				for range rounds {
					of, os, oi := byAgent(b, a, routes, fib.DefaultBatch), byStream(b, govpp, index, routes), byInvoke(b, govpp, index, single)
					agent, stream, invoke = append(agent, of), append(stream, os), append(invoke, oi)
					overStream, overInvoke = append(overStream, of/os), append(overInvoke, of/oi)
				}
			}
			for name, values := range map[string][]float64{
				"agent-routes/s": agent, "stream-routes/s": stream, "invoke-routes/s": invoke,
				"agent/stream": overStream, "agent/invoke": overInvoke,
			} {
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchPrefix is the i-th of many IPv4 /24s.
func benchPrefix(i int) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x14000000+uint32(i)<<8)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// byAgent programs routes in batches, as fib does, deletes them again, and returns how many it added in a second.
func byAgent(b testing.TB, a *vppagent.Agent, n, batch int) float64 {
	changes := make([]fib.Change, n)
	for i := range changes {
		changes[i] = fib.Change{Route: fib.Route{Key: fib.Key{Prefix: benchPrefix(i)}, NextHops: benchHops}}
	}
	write := func() time.Duration {
		began := time.Now()
		for part := range slices.Chunk(changes, batch) {
			if err := errors.Join(a.Apply(b.Context(), part)...); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	took := write()
	for i := range changes {
		changes[i].Delete = true
	}
	write()
	return float64(n) / took.Seconds()
}

func benchRequest(i int, index uint32, add bool) *ip.IPRouteAddDel {
	path := binapi.ToPath(binapi.Path{Addr: netip.MustParseAddr("192.0.2.2"), SwIfIndex: index}, netip.IPv4Unspecified())
	r := ip.IPRoute{Prefix: binapi.ToPrefix(benchPrefix(i))}
	if add {
		r.NPaths, r.Paths = 1, []fib_types.FibPath{path}
	}
	return &ip.IPRouteAddDel{IsAdd: add, Route: r}
}

func byStream(b testing.TB, conn *core.Connection, index uint32, n int) float64 {
	const inFlight = 1000
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	write := func(add bool) time.Duration {
		s, err := conn.NewStream(ctx, core.WithRequestSize(inFlight), core.WithReplySize(inFlight), core.WithReplyTimeout(5*time.Second))
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		slots, done := make(chan struct{}, inFlight), make(chan error, 1)
		began := time.Now()
		go func() {
			for range n {
				m, err := s.RecvMsg()
				if err == nil {
					err = api.RetvalToVPPApiError(m.(*ip.IPRouteAddDelReply).Retval)
				}
				if err != nil {
					done <- fmt.Errorf("stream: %w", err)
					return
				}
				<-slots
			}
			done <- nil
		}()
		for i := range n {
			select {
			case slots <- struct{}{}:
			case err := <-done:
				b.Fatal(err)
			}
			if err := s.SendMsg(benchRequest(i, index, add)); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	took := write(true)
	write(false)
	return float64(n) / took.Seconds()
}

func byInvoke(b testing.TB, conn *core.Connection, index uint32, n int) float64 {
	write := func(add bool) time.Duration {
		began := time.Now()
		for i := range n {
			var reply ip.IPRouteAddDelReply
			if err := conn.Invoke(b.Context(), benchRequest(i, index, add), &reply); err != nil {
				b.Fatal(err)
			}
			if err := api.RetvalToVPPApiError(reply.Retval); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	took := write(true)
	write(false)
	return float64(n) / took.Seconds()
}
