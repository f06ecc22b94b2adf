package bgp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack"
)

// This file is as much of BGP's messages as a transport must understand: where one ends (RFC 4271 §4.1), whose OPEN it is,
// and what a NOTIFICATION says in words.

const (
	headerLen     = bgp.BGP_HEADER_LENGTH
	maxOpenLen    = bgp.BGP_MAX_MESSAGE_LENGTH // an OPEN may not be longer even with extended messages (RFC 8654 §4)
	maxNoticeKept = 2 + 1 + 255                // code, subcode, and the longest shutdown communication (RFC 9003 §2)
)

// Codes of Cease (RFC 4486 §3) that we send ourselves.
const (
	ceaseShutdown     = bgp.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN
	ceaseDeconfigured = bgp.BGP_ERROR_SUB_PEER_DECONFIGURED
	ceaseReset        = bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET
	ceaseRejected     = bgp.BGP_ERROR_SUB_CONNECTION_REJECTED
	ceaseResources    = bgp.BGP_ERROR_SUB_OUT_OF_RESOURCES
	ceaseConfigChange = bgp.BGP_ERROR_SUB_OTHER_CONFIGURATION_CHANGE
	ceaseCollision    = bgp.BGP_ERROR_SUB_CONNECTION_COLLISION_RESOLUTION
	ceaseBFDDown      = 10 // RFC 9384 §3
)

// openInfo is what we read in a peer's OPEN: who it is, for collisions, and what it can do.
type openInfo struct {
	id      uint32 // BGP Identifier
	as      uint32
	refresh bool                          // RFC 2918
	as4     bool                          // RFC 6793
	long    bool                          // RFC 8654
	mixed   bool                          // IPv4 routes with IPv6 next hops, RFC 8950
	roles   []Role                        // RFC 9234
	paths   map[Family]bgp.BGPAddPathMode // RFC 7911
	caps    []bgp.ParameterCapabilityInterface
	gr      grOffer
}

// readFirst reads the first message of a connection. It returns what was read even when that is no message, for the one who
// has to answer it; err is only for a connection that ended or timed out.
func readFirst(r io.Reader) ([]byte, error) {
	buf := make([]byte, headerLen, 128)
	if n, err := io.ReadFull(r, buf); err != nil {
		return buf[:n], err
	}
	length := int(binary.BigEndian.Uint16(buf[16:]))
	if length < headerLen || length > maxOpenLen {
		return buf, nil
	}
	buf = append(buf, make([]byte, length-headerLen)...)
	n, err := io.ReadFull(r, buf[headerLen:])
	return buf[:headerLen+n], err
}

// parseOpen returns nil for anything that is not a well-formed OPEN.
func parseOpen(b []byte) *openInfo {
	if len(b) < headerLen || b[18] != bgp.BGP_MSG_OPEN {
		return nil
	}
	m, err := bgp.ParseBGPMessage(b)
	if err != nil {
		return nil
	}
	o, ok := m.Body.(*bgp.BGPOpen)
	if !ok || !o.ID.Is4() {
		return nil
	}
	id := o.ID.As4()
	info := &openInfo{id: binary.BigEndian.Uint32(id[:]), as: uint32(o.MyAS)}
	for _, p := range o.OptParams {
		caps, ok := p.(*bgp.OptionParameterCapability)
		if !ok {
			continue
		}
		info.caps = append(info.caps, caps.Capability...)
		for _, c := range caps.Capability {
			switch c := c.(type) {
			case *bgp.CapFourOctetASNumber:
				info.as, info.as4 = c.CapValue, true
			case *bgp.CapRouteRefresh:
				info.refresh = true
			case *bgp.CapAddPath:
				info.addPath(c)
			case *bgp.CapUnknown:
				info.readRole(c)
			case *bgp.CapExtendedNexthop:
				info.extendedNextHop(c)
			case *bgp.CapExtendedMessage:
				info.long = true
			case *bgp.CapGracefulRestart:
				info.gr.graceful(c)
			case *bgp.CapLongLivedGracefulRestart:
				info.gr.longLivedGraceful(c)
			}
		}
	}
	return info
}

// extendedNextHop reads RFC 8950 §4.
func (o *openInfo) extendedNextHop(c *bgp.CapExtendedNexthop) {
	for _, t := range c.Tuples {
		if t.NLRIAFI == bgp.AFI_IP && t.NLRISAFI == bgp.SAFI_UNICAST && t.NexthopAFI == bgp.AFI_IP6 {
			o.mixed = true
		}
	}
}

// identifier is the peer's BGP Identifier.
func (o *openInfo) identifier() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], o.id)
	return netip.AddrFrom4(b)
}

// keepaliveMessage is a KEEPALIVE.
func keepaliveMessage() []byte {
	b, err := bgp.NewBGPKeepAliveMessage().Serialize()
	if err != nil {
		panic("bgp: a KEEPALIVE does not serialize: " + err.Error())
	}
	return b
}

// dominates reports whether the connections that we made win over those of the peer (RFC 4271 §6.8, RFC 6286 §2.3).
func dominates(ourID netip.Addr, ourAS uint32, peer openInfo) bool {
	a := ourID.As4()
	id := binary.BigEndian.Uint32(a[:])
	return id > peer.id || id == peer.id && ourAS > peer.as
}

// notification builds the message; nothing in it can fail to serialize.
func notification(code, subcode uint8, data []byte) []byte {
	b, err := bgp.NewBGPNotificationMessage(code, subcode, data).Serialize()
	if err != nil {
		panic("bgp: a NOTIFICATION does not serialize: " + err.Error())
	}
	return b
}

// shutdownCommunication encodes a text for the peer's operator (RFC 9003 §2): at most 255 bytes of UTF-8.
func shutdownCommunication(text string) []byte {
	text = strings.ToValidUTF8(text, "?")
	for len(text) > 255 {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	if text == "" {
		return nil
	}
	return append([]byte{byte(len(text))}, text...)
}

// noticeText says in words what a NOTIFICATION's body says: code, subcode, data (RFC 4271 §4.5).
func noticeText(body []byte, wantAS, gotAS uint32) string {
	if len(body) < 2 {
		return "malformed NOTIFICATION"
	}
	code, sub, data := body[0], body[1], body[2:]
	name, ok := noticeNames[code]
	if !ok {
		return fmt.Sprintf("error code %d, subcode %d", code, sub)
	}
	text := name.name
	switch {
	case sub == 0:
	case int(sub) < len(name.subs) && name.subs[sub] != "":
		text += ": " + name.subs[sub]
	default:
		text += fmt.Sprintf(": subcode %d", sub)
	}
	if code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && sub == bgp.BGP_ERROR_SUB_BAD_PEER_AS && gotAS != 0 {
		text += fmt.Sprintf(" (peer AS %d, expected %d)", gotAS, wantAS)
	}
	if code == bgp.BGP_ERROR_CEASE && (sub == ceaseShutdown || sub == bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET) {
		if words := communication(data); words != "" {
			text += fmt.Sprintf(" %q", words)
		}
	}
	return text
}

// communication decodes a shutdown communication and keeps only what is safe to print.
func communication(data []byte) string {
	if len(data) == 0 || int(data[0]) > len(data)-1 {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(data[1:1+int(data[0])]), "?"))
}

type noticeName struct {
	name string
	subs []string
}

// noticeNames are the registry's: RFC 4271 §4.5, RFC 4486 §3, RFC 5492 §5, RFC 6608 §3, RFC 7313 §5, RFC 8538 §3, RFC 9234
// §4.2, RFC 9384 §3.
var noticeNames = map[uint8]noticeName{
	1: {"Message Header Error", []string{"", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"}},
	2: {"OPEN Message Error", []string{
		"", "Unsupported Version Number", "Bad Peer AS", "Bad BGP Identifier", "Unsupported Optional Parameter", "Authentication Failure",
		"Unacceptable Hold Time", "Unsupported Capability", "", "", "", "Role Mismatch",
	}},
	3: {"UPDATE Message Error", []string{
		"", "Malformed Attribute List", "Unrecognized Well-known Attribute", "Missing Well-known Attribute", "Attribute Flags Error",
		"Attribute Length Error", "Invalid ORIGIN Attribute", "AS Routing Loop", "Invalid NEXT_HOP Attribute", "Optional Attribute Error",
		"Invalid Network Field", "Malformed AS_PATH",
	}},
	4: {"Hold Timer Expired", nil},
	5: {"Finite State Machine Error", []string{
		"", "Receive Unexpected Message in OpenSent State", "Receive Unexpected Message in OpenConfirm State",
		"Receive Unexpected Message in Established State",
	}},
	6: {"Cease", []string{
		"", "Maximum Number of Prefixes Reached", "Administrative Shutdown", "Peer De-configured", "Administrative Reset",
		"Connection Rejected", "Other Configuration Change", "Connection Collision Resolution", "Out of Resources", "Hard Reset", "BFD Down",
	}},
	7: {"ROUTE-REFRESH Message Error", []string{"", "Invalid Message Length"}},
	8: {"Send Hold Timer Expired", nil}, // RFC 9687
}

// tap follows a byte stream of messages and reports each one's type, and the body of a NOTIFICATION or of a short UPDATE.
type tap struct {
	header [headerLen]byte
	have   int    // bytes of header
	left   int    // bytes of body to come
	body   []byte // of the NOTIFICATION or short UPDATE in progress
	lost   bool   // the stream made no sense: GoBGP ends the session, we stop looking
}

// maxUpdateKept is how long the body of an UPDATE may be that is reported: one route's is shorter.
const maxUpdateKept = 512

// between reports whether no message is in progress.
func (t *tap) between() bool { return t.have == 0 && !t.lost }

// feed takes the next bytes.
func (t *tap) feed(b []byte, message func(typ uint8, body []byte)) {
	for len(b) > 0 && !t.lost {
		if t.have < headerLen {
			n := copy(t.header[t.have:], b)
			t.have, b = t.have+n, b[n:]
			if t.have < headerLen {
				return
			}
			length := int(binary.BigEndian.Uint16(t.header[16:]))
			if length < headerLen {
				t.lost = true
				return
			}
			t.left, t.body = length-headerLen, t.body[:0]
		}
		n := min(t.left, len(b))
		switch t.header[18] {
		case bgp.BGP_MSG_NOTIFICATION:
			t.body = append(t.body, b[:min(n, maxNoticeKept-len(t.body))]...)
		case bgp.BGP_MSG_UPDATE:
			if len(t.body)+t.left <= maxUpdateKept {
				t.body = append(t.body, b[:n]...)
			}
		}
		t.left, b = t.left-n, b[n:]
		if t.left == 0 {
			t.have = 0
			message(t.header[18], t.body)
		}
	}
}

const (
	textTimeout = "connection timed out"
	// causeQuiet ends a session without leaving an error behind.
	causeQuiet = "-"
)

// connErrorText words the end of a connection that nobody announced.
func connErrorText(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed by the peer"
	case errors.As(err, &ne) && ne.Timeout():
		return textTimeout
	}
	return rootCause(err).Error()
}

// dialErrorText words why there is no connection.
func dialErrorText(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, syscall.ETIMEDOUT):
		return textTimeout
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to host"
	case errors.Is(err, syscall.ENETUNREACH):
		return "network is unreachable"
	case errors.Is(err, hoststack.ErrNoInterface):
		var oe *net.OpError
		if errors.As(err, &oe) {
			return oe.Err.Error() // it names the interface
		}
	}
	return connErrorText(err)
}

// rootCause strips what only repeats the addresses that the reader sees beside the text.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
