package bgp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file is RFC 9234: what the two sides are to each other, agreed on in the OPENs, and the attribute OTC (Only to Customer)
// by which a route that goes the wrong way is recognized. GoBGP knows neither, and passes OTC on as it would any attribute.

// Role is ours towards a neighbour (RFC 9234 §3).
type Role uint8

// The roles. Each has one counterpart: provider and customer, rs (route server) and rs-client, peer and peer.
const (
	NoRole Role = iota
	Provider
	RS
	RSClient
	Customer
	Peer
)

// capRole is the capability's code; its value is a role's number less one (RFC 9234 §4.1).
const capRole = 9

func (r Role) String() string {
	names := [...]string{"none", "provider", "rs", "rs-client", "customer", "peer"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("role %d", uint8(r)-1)
}

// counterpart is what the other side must be (RFC 9234 §4.2, table 2).
func (r Role) counterpart() Role {
	return map[Role]Role{Provider: Customer, Customer: Provider, RS: RSClient, RSClient: RS, Peer: Peer}[r]
}

// up reports whether the other side is above us: what comes from there must not go there again.
func (r Role) up() bool { return r == Customer || r == RSClient }

// down reports the opposite.
func (r Role) down() bool { return r == Provider || r == RS }

// readRole notes a role of the peer's.
func (o *openInfo) readRole(c *bgp.CapUnknown) {
	if c.Code() == capRole && len(c.CapValue) == 1 {
		o.roles = append(o.roles, Role(min(c.CapValue[0], 254)+1))
	}
}

// withRole returns our OPEN with the capability, in an optional parameter of its own (RFC 5492 §4). The OPEN is left as it is where
// it has no room: its parameters have at most 255 bytes.
func withRole(open []byte, r Role) []byte {
	const fixed, more = headerLen + 10, 5
	if r == NoRole || len(open) < fixed || int(open[fixed-1])+more > 254 {
		return open
	}
	open = append(slices.Clone(open), bgp.BGP_OPT_CAPABILITY, 3, capRole, 1, byte(r)-1)
	open[fixed-1] += more
	binary.BigEndian.PutUint16(open[16:], uint16(len(open)))
	return open
}

// mismatch says why a peer's OPEN is refused for its role (RFC 9234 §4.2); nil if it is not.
func (n *Neighbor) mismatch(o *openInfo) *ending {
	var theirs string
	switch want := n.Role.counterpart(); {
	case n.Role == NoRole:
		return nil
	case len(o.roles) == 0 && !n.StrictRole:
		return nil
	case len(o.roles) == 0:
		theirs = "says nothing"
	case slices.ContainsFunc(o.roles, func(r Role) bool { return r != o.roles[0] }):
		theirs = "says several things"
	case o.roles[0] == want:
		return nil
	default:
		theirs = "is " + o.roles[0].String()
	}
	return &ending{
		code: bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, subcode: 11,
		text: fmt.Sprintf("OPEN Message Error: Role Mismatch (sent): we are %s, so the neighbor must be %s, and it %s", n.Role, n.Role.counterpart(), theirs),
	}
}

// otc is one session's part in RFC 9234 §5. What is told to the peer is marked, or left out, where it is told (teller.go).
type otc struct {
	role Role
	own  uint32 // AS
	peer uint32
}

func newOTC(role Role, own, peer uint32) *otc {
	if role == NoRole {
		return nil
	}
	return &otc{role: role, own: own, peer: peer}
}

// ingress marks what comes from above or beside, and reports a leak: a route that must not have come this way. The attribute is
// well-formed.
func (o *otc) ingress(u *update) (changed, leak bool) {
	if !u.announces() {
		return false, false
	}
	a := u.find(attrOTC)
	switch {
	case a != nil && o.role.down(): // from a customer, or a client of ours
		return false, true
	case a != nil && o.role == Peer && binary.BigEndian.Uint32(a.value) != o.peer:
		return false, true
	case a == nil && !o.role.down():
		u.put(attr{optTransitive, attrOTC, binary.BigEndian.AppendUint32(nil, o.peer)})
		return true, false
	}
	return false, false
}

// leaked treats an UPDATE as withdrawing its routes, because they have come the wrong way.
func (t *traffic) leaked(u *update) {
	u.asWithdrawal() // of one family: see receive
	t.tally.leaks.Add(1)
	t.complain(logrus.Fields{"role": t.otc.role.String(), "so_far": t.tally.leaks.Load()},
		"route leak from the BGP neighbor, by its attribute OTC: the routes are taken as withdrawn")
}
