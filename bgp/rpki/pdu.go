package rpki

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/rtr"
)

// This file is RTR's PDUs on a connection. GoBGP's package encodes and decodes them; it knows version 0 only, so the version,
// the timers of an End of Data of version 1 (RFC 8210 §5.8) and the Router Key PDU, which we have no use for, are read here.

// The versions.
const (
	version0 uint8 = 0 // RFC 6810
	version1 uint8 = 1 // RFC 8210
)

const (
	routerKeyType = 9        // RFC 8210 §5.10
	maxPDU        = 64 << 10 // bytes; only Error Report and Router Key have no length of their own
	endOfDataLen1 = 24       // RFC 8210 §5.8
)

// pdu is a PDU that was received.
type pdu struct {
	version uint8
	kind    uint8
	session uint16 // or the flags, or an error's code: what the type has there
	msg     rtr.RTRMessage
	timers  timers // of an End of Data of version 1
	raw     []byte
}

// timers of RFC 8210 §6.
type timers struct{ refresh, retry, expire time.Duration }

// The values of RFC 8210 §6, where nothing was said; a server's are brought within its bounds.
var defaultTimers = timers{refresh: time.Hour, retry: 10 * time.Minute, expire: 2 * time.Hour}

func (t timers) bounded() timers {
	bound := func(d, lo, hi time.Duration) time.Duration { return min(max(d, lo*time.Second), hi*time.Second) }
	t = timers{bound(t.refresh, 1, 86400), bound(t.retry, 1, 7200), bound(t.expire, 600, 172800)}
	t.refresh, t.retry = min(t.refresh, t.expire/2), min(t.retry, t.expire/2) // "MUST be larger than either"
	return t
}

// errClosed is the end of a connection between two PDUs.
var errClosed = errors.New("the server closed the connection")

// protocolError is an error of the other side's that it is told of (RFC 8210 §12).
type protocolError struct {
	code uint16
	pdu  []byte
	text string
}

func (e *protocolError) Error() string { return e.text }

// readPDU reads one PDU. Where nothing of it has come when the connection's read deadline passes, the error is
// os.ErrDeadlineExceeded and the next call goes on from there; the rest must come within patience.
func readPDU(r *bufio.Reader, c net.Conn, patience time.Duration) (pdu, error) {
	head, err := r.Peek(rtr.RTR_MIN_LEN)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errClosed
		}
		return pdu{}, err
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n < rtr.RTR_MIN_LEN || n > maxPDU {
		return pdu{}, &protocolError{rtr.CORRUPT_DATA, append([]byte(nil), head...), fmt.Sprintf("a PDU of type %d has a length of %d", head[1], n)}
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return pdu{}, err
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		return pdu{}, fmt.Errorf("in the middle of a PDU: %w", err)
	}
	return decodePDU(raw)
}

// lengths of the PDUs that have one length.
var lengths = map[uint8]int{
	rtr.RTR_SERIAL_NOTIFY: rtr.RTR_SERIAL_NOTIFY_LEN, rtr.RTR_SERIAL_QUERY: rtr.RTR_SERIAL_QUERY_LEN,
	rtr.RTR_RESET_QUERY: rtr.RTR_RESET_QUERY_LEN, rtr.RTR_CACHE_RESPONSE: rtr.RTR_CACHE_RESPONSE_LEN,
	rtr.RTR_IPV4_PREFIX: rtr.RTR_IPV4_PREFIX_LEN, rtr.RTR_IPV6_PREFIX: rtr.RTR_IPV6_PREFIX_LEN, rtr.RTR_CACHE_RESET: rtr.RTR_CACHE_RESET_LEN,
}

// decodePDU decodes a whole PDU, whose length field is right.
func decodePDU(raw []byte) (pdu, error) {
	if len(raw) < rtr.RTR_MIN_LEN || binary.BigEndian.Uint32(raw[4:]) != uint32(len(raw)) {
		return pdu{}, &protocolError{code: rtr.CORRUPT_DATA, text: "the length of a PDU is wrong"}
	}
	p := pdu{version: raw[0], kind: raw[1], session: binary.BigEndian.Uint16(raw[2:]), raw: raw}
	want, fixed := lengths[p.kind]
	if p.kind == rtr.RTR_END_OF_DATA {
		want, fixed = rtr.RTR_END_OF_DATA_LEN, true
		if p.version >= version1 {
			want = endOfDataLen1
		}
	}
	switch {
	case fixed && len(raw) != want:
		return p, &protocolError{rtr.CORRUPT_DATA, raw, fmt.Sprintf("a PDU of type %d has %d bytes instead of %d", p.kind, len(raw), want)}
	case p.kind == routerKeyType && p.version >= version1:
		return p, nil
	}
	msg, err := rtr.ParseRTR(raw)
	if msg == nil {
		return p, &protocolError{rtr.UNSUPPORTED_PDU_TYPE, raw, fmt.Sprintf("PDU type %d is unknown", p.kind)}
	}
	if err != nil {
		return p, &protocolError{rtr.CORRUPT_DATA, raw, fmt.Sprintf("a PDU of type %d: %v", p.kind, err)}
	}
	p.msg = msg
	if p.kind == rtr.RTR_END_OF_DATA && p.version >= version1 {
		second := func(at int) time.Duration { return time.Duration(binary.BigEndian.Uint32(raw[at:])) * time.Second }
		p.timers = timers{refresh: second(12), retry: second(16), expire: second(20)}
	}
	return p, nil
}

// vrpOf returns what a prefix PDU announces or withdraws.
func vrpOf(m *rtr.RTRIPPrefix) (v VRP, announced bool, err error) {
	v = VRP{Prefix: netip.PrefixFrom(m.Prefix, int(m.PrefixLen)), MaxLength: m.MaxLen, AS: m.AS}
	return v, m.Flags&1 == rtr.ANNOUNCEMENT, v.check()
}

// query is the bytes of a Serial Query, or of a Reset Query where there is no serial.
func query(version uint8, session uint16, serial uint32, reset bool) ([]byte, error) {
	if reset {
		q := rtr.NewRTRResetQuery()
		q.Version = version
		return q.Serialize()
	}
	q := rtr.NewRTRSerialQuery(session, serial)
	q.Version = version
	return q.Serialize()
}

// report is the bytes of an Error Report; nil for an error in an Error Report, which is not answered (RFC 8210 §5.11).
func report(version uint8, e *protocolError) []byte {
	if len(e.pdu) < rtr.RTR_MIN_LEN {
		e.pdu = nil
	}
	m := rtr.NewRTRErrorReport(e.code, e.pdu[:min(len(e.pdu), 256)], []byte(e.text))
	if m == nil {
		return nil
	}
	m.Version = version
	b, err := m.Serialize()
	if err != nil {
		return nil
	}
	return b
}
