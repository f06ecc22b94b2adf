package minivpp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"rlr/minivpp/plane"
)

// Commands that change something or send packets.

func (s *Server) setInterfaceState(_ context.Context, _ *strings.Builder, args []string) error {
	if len(args) == 0 {
		return unknownInput("")
	}
	ifaces, err := s.pick(args[:1])
	if err != nil {
		return fmt.Errorf("unknown interface `%s'", strings.Join(args, " "))
	}
	if len(args) != 2 || args[1] != "up" && args[1] != "down" {
		return fmt.Errorf("unknown flags `%s'", strings.Join(args[1:], " "))
	}
	return explain(s.SetAdmin(ifaces[0].Index, args[1] == "up"))
}

// setInterfaceAddress is "set interface ip address [del] IFACE PREFIX|all".
func (s *Server) setInterfaceAddress(_ context.Context, _ *strings.Builder, args []string) error {
	del := len(args) > 0 && args[0] == "del"
	if del {
		args = args[1:]
	}
	if len(args) != 2 {
		return unknownInput(strings.Join(args, " "))
	}
	ifaces, err := s.pick(args[:1])
	if err != nil {
		return fmt.Errorf("unknown interface `%s'", strings.Join(args, " "))
	}
	idx := ifaces[0].Index
	if del && args[1] == "all" {
		return explain(s.DelAllAddresses(idx))
	}
	pfx, err := netip.ParsePrefix(args[1])
	if err != nil {
		return fmt.Errorf("expected IP4/IP6 address/prefix-length, not `%s'", args[1])
	}
	if del {
		return explain(s.DelAddress(idx, pfx))
	}
	return explain(s.AddAddress(idx, pfx))
}

// pingCommand keeps its client waiting until it is done, as in VPP; other clients go on.
func (s *Server) pingCommand(ctx context.Context, out *strings.Builder, args []string) error {
	q, err := s.parsePing(args)
	if err != nil {
		return err
	}
	result, err := s.Ping(ctx, q, func(r plane.PingReply) {
		what := ""
		if !r.Reply {
			what = fmt.Sprintf(" ICMP type %d code %d", r.Type, r.Code)
		}
		fmt.Fprintf(out, "%d bytes from %s: icmp_seq=%d ttl=%d time=%.4f ms%s\n",
			r.Bytes, r.From, r.Seq, r.TTL, float64(r.RTT)/float64(time.Millisecond), what)
	})
	if err != nil && ctx.Err() == nil {
		return explain(err)
	}
	loss := 0.0
	if result.Sent > 0 {
		loss = float64(max(result.Sent-result.Received, 0)) / float64(result.Sent) * 100
	}
	fmt.Fprintf(out, "\nStatistics: %d sent, %d received, %.0f%% packet loss\n", result.Sent, result.Received, loss)
	return nil
}

func (s *Server) parsePing(args []string) (plane.PingRequest, error) {
	q := plane.PingRequest{Interface: plane.NoInterface, Count: 5, Interval: time.Second}
	if len(args) > 1 && (args[0] == "ipv4" || args[0] == "ipv6") {
		args = args[1:]
	}
	if len(args) == 0 {
		return q, errors.New("expecting IP4/IP6 address `'. Usage: ping <addr> [source <intf>] [size <datasz>] [repeat <count>]")
	}
	var err error
	if q.Dst, err = netip.ParseAddr(args[0]); err != nil || q.Dst.Zone() != "" {
		return q, fmt.Errorf("expecting IP4/IP6 address `%s'", args[0])
	}
	for args = args[1:]; len(args) > 0; args = args[2:] {
		if len(args) < 2 {
			return q, unknownInput(strings.Join(args, " "))
		}
		n, numErr := strconv.ParseUint(args[1], 10, 31)
		switch args[0] {
		case "source":
			ifaces, err := s.pick(args[1:2])
			if err != nil {
				return q, fmt.Errorf("unknown interface `%s'", args[1])
			}
			q.Interface, numErr = ifaces[0].Index, nil
		case "repeat":
			q.Count = int(min(max(n, 1), 100_000))
		case "size":
			q.Size = int(min(n, 8000))
		case "table-id":
			q.Table = uint32(n)
		case "interval":
			var seconds float64
			seconds, numErr = strconv.ParseFloat(args[1], 64)
			q.Interval = interval(seconds)
		default:
			return q, unknownInput(strings.Join(args, " "))
		}
		if numErr != nil {
			return q, unknownInput(strings.Join(args, " "))
		}
	}
	return q, nil
}
