package minivpp

import (
	"math"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/ping"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

const maxPingInterval = time.Hour

// wantPingFinishedEvents answers at once, pings in table 0, and then sends the counts to the client that asked.
func (s *Server) wantPingFinishedEvents(c *client, q *ping.WantPingFinishedEvents, _ *ping.WantPingFinishedEventsReply) error {
	dst := binapi.FromAddress(q.Address)
	if !dst.IsValid() {
		return api.INVALID_ADDRESS_FAMILY
	}
	return c.beside(func() {
		var result plane.PingResult
		if q.Repeat > 0 { // the plane takes 0 for its default
			// A destination that cannot be pinged has 0 requests sent: VPP's event has no error either.
			result, _ = s.Ping(c.ctx, plane.PingRequest{
				Interface: plane.NoInterface, Dst: dst, Count: int(min(q.Repeat, math.MaxInt32)), Interval: interval(q.Interval),
			}, nil)
		}
		c.post(&ping.PingFinishedEvent{RequestCount: uint32(result.Sent), ReplyCount: uint32(result.Received)})
	})
}

// interval makes a duration of seconds that a client sent. The plane takes 0 for its default, so the shortest is 1 ms.
func interval(seconds float64) time.Duration {
	switch {
	case math.IsNaN(seconds) || seconds < 0.001:
		return time.Millisecond
	case seconds > maxPingInterval.Seconds():
		return maxPingInterval
	}
	return time.Duration(seconds * float64(time.Second))
}
