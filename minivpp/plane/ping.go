package plane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// pingPatience is how long Ping waits for answers after the last request.
const pingPatience = time.Second

// complete puts the defaults in.
func (r PingRequest) complete() PingRequest {
	r.Dst = r.Dst.Unmap().WithZone("")
	if r.Count <= 0 {
		r.Count = 5
	}
	if r.Interval <= 0 {
		r.Interval = time.Second
	}
	if r.Size <= 0 {
		r.Size = 56
	}
	if r.TTL == 0 {
		r.TTL = 64
	}
	r.Size = min(r.Size, maxPacket-header6Len-8)
	return r
}

// Ping sends echo requests and calls each for every answer until all have come or a second has passed since the last request,
// or ctx ends. each may be nil.
// Errors: those of OpenProbe and of the first request; ctx's.
func (p *Plane) Ping(ctx context.Context, r PingRequest, each func(PingReply)) (PingResult, error) {
	r = r.complete()
	if !r.Dst.IsValid() {
		return PingResult{}, errors.New("ping: no destination")
	}
	conduit, err := p.OpenProbe(r.Table, r.Interface)
	if err != nil {
		return PingResult{}, fmt.Errorf("ping %v: %w", r.Dst, err)
	}
	stop := context.AfterFunc(ctx, func() { conduit.Close() })
	defer stop()
	defer conduit.Close()
	b := conduit.(*probe)
	id := uint16(rand.Uint32())
	var result PingResult
	answered := 0
	// When the requests left whose answers may still come, by sequence number: a long series uses the numbers again.
	sent := make([]time.Time, min(r.Count, 1<<16))
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-b.done:
			if err := ctx.Err(); err != nil {
				return result, err
			}
			return result, fmt.Errorf("ping %v: %w", r.Dst, errStopped)
		case <-pause.C:
			if result.Sent == r.Count {
				return result, nil
			}
			sent[result.Sent%len(sent)] = time.Now()
			if _, err := b.Write(echoRequest(r, id, uint16(result.Sent))); err != nil && result.Sent == 0 && ctx.Err() == nil {
				return result, fmt.Errorf("ping %v: %w", r.Dst, err)
			}
			result.Sent++
			pause.Reset(r.Interval)
			if result.Sent == r.Count {
				pause.Reset(max(pingPatience, r.Interval))
			}
		case k := <-b.in:
			reply, ok := parseReply(k, r.Dst, id)
			if !ok || reply.Seq >= len(sent) || sent[reply.Seq].IsZero() {
				continue
			}
			answered++
			reply.RTT = time.Since(sent[reply.Seq])
			sent[reply.Seq] = time.Time{}
			if reply.Reply {
				result.Received++
			}
			if each != nil {
				each(reply)
			}
			if answered == r.Count {
				return result, nil
			}
		}
	}
}

func echoRequest(r PingRequest, id, seq uint16) []byte {
	header := header4Len
	if r.Dst.Is6() {
		header = header6Len
	}
	b := make([]byte, header+8+r.Size)
	m := b[header:]
	put16(m[4:], id)
	put16(m[6:], seq)
	for k := range m[8:] {
		m[8+k] = byte(k)
	}
	if r.Dst.Is6() {
		header6(b, netip.IPv6Unspecified(), r.Dst, protoICMPv6, r.TTL)
		m[0] = icmp6Echo // the probe adds source and checksum
		return b
	}
	b[0], b[8], b[9] = 0x45, r.TTL, protoICMP
	put16(b[4:], seq)
	d := r.Dst.As4()
	copy(b[16:], d[:])
	m[0] = icmp4Echo
	put16(m[2:], checksum(m))
	return b
}

// parseReply recognises the answer to one of our requests, be it a reply or an error about it.
func parseReply(k []byte, dst netip.Addr, id uint16) (PingReply, bool) {
	var r PingReply
	m, ok := icmpOf(k, &r)
	if !ok || len(m) < 8 || (k[0]>>4 == 6) != dst.Is6() {
		return r, false
	}
	r.Type, r.Code, r.Bytes = m[0], m[1], len(m)
	if (dst.Is4() && m[0] == icmp4EchoReply) || (dst.Is6() && m[0] == icmp6EchoReply) {
		r.Reply, r.Seq = true, int(get16(m[6:]))
		return r, get16(m[4:]) == id
	}
	var inner PingReply
	q, ok := icmpOf(m[8:], &inner)
	if !ok || len(q) < 8 || get16(q[4:]) != id || (q[0] != icmp4Echo && q[0] != icmp6Echo) {
		return r, false
	}
	r.Seq = int(get16(q[6:]))
	return r, true
}

// icmpOf returns the ICMP message of a packet, which may be cut short.
func icmpOf(k []byte, r *PingReply) ([]byte, bool) {
	switch {
	case len(k) >= header4Len && k[0]>>4 == 4 && k[9] == protoICMP && len(k) >= int(k[0]&15)*4 && k[0]&15 >= 5:
		r.From, r.TTL = addr4(k[12:16]), k[8]
		return k[int(k[0]&15)*4:], true
	case len(k) >= header6Len && k[0]>>4 == 6 && k[6] == protoICMPv6:
		r.From, r.TTL = addr6(k[8:24]), k[7]
		return k[header6Len:], true
	}
	return nil, false
}
