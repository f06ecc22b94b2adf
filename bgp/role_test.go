package bgp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func roleCap(r Role) bgp.ParameterCapabilityInterface {
	return bgp.NewCapUnknown(capRole, []byte{byte(r) - 1})
}

// RFC 9234 §4.2: our role, what the neighbour says, and whether there is a session.
func TestRoleAgreement(t *testing.T) {
	for _, c := range []struct {
		role   Role
		strict bool
		theirs []Role
		why    string // "": a session
	}{
		{Provider, false, []Role{Customer}, ""},
		{Customer, true, []Role{Provider}, ""},
		{RS, false, []Role{RSClient}, ""},
		{RSClient, false, []Role{RS}, ""},
		{Peer, true, []Role{Peer, Peer}, ""},
		{Peer, false, nil, ""},
		{Peer, true, nil, "we are peer, so the neighbor must be peer, and it says nothing"},
		{Provider, false, []Role{Provider}, "we are provider, so the neighbor must be customer, and it is provider"},
		{Customer, false, []Role{RS}, "we are customer, so the neighbor must be provider, and it is rs"},
		{Peer, false, []Role{Peer, Customer}, "we are peer, so the neighbor must be peer, and it says several things"},
		{Peer, false, []Role{77}, "we are peer, so the neighbor must be peer, and it is role 76"},
		{NoRole, false, []Role{Provider}, ""},
	} {
		t.Run(fmt.Sprintf("%s strict=%v, theirs %v", c.role, c.strict, c.theirs), func(t *testing.T) {
			r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(cfg *Config) {
				cfg.Neighbors[0].Role, cfg.Neighbors[0].StrictRole = c.role, c.strict
			})
			start(t, r1)
			p := dialRaw(t, node, "169.254.0.1")
			caps := bothFamilies()
			for _, r := range c.theirs {
				caps = append(caps, roleCap(r))
			}
			p.send(rawOpen(65002, "10.2.0.1", caps...))
			open := parseOpen(message(bgp.BGP_MSG_OPEN, p.expect(bgp.BGP_MSG_OPEN)))
			if open == nil || (c.role == NoRole) != (len(open.roles) == 0) || len(open.roles) > 0 && open.roles[0] != c.role {
				t.Fatalf("our OPEN says %+v", open)
			}
			if c.why == "" {
				p.send(keepalive)
				r1.established()
				return
			}
			if body := p.expect(bgp.BGP_MSG_NOTIFICATION); len(body) != 2 || body[0] != 2 || body[1] != 11 {
				t.Errorf("the connection ends with %x, want 020b", body)
			}
			eventually(t, 5*time.Second, func() string {
				if got := r1.session("raw").LastError; !strings.HasSuffix(got, c.why) {
					return fmt.Sprintf("the error is %q", got)
				}
				return ""
			})
		})
	}
}

// otcOf returns an UPDATE's OTC, 0 where there is none, and whether it announces anything.
func otcOf(body []byte) (as uint32, announces bool) {
	u, _ := parseUpdate(body)
	if a := u.find(attrOTC); a != nil {
		as = binary.BigEndian.Uint32(a.value)
	}
	return as, u.announces()
}

// RFC 9234 §5: what comes from the first neighbour, and what the second one hears of it.
func TestOnlyToCustomer(t *testing.T) {
	const none, leak = 0, ^uint32(0)
	for _, c := range []struct {
		from, to Role // ours towards the first and second
		otc      uint32
		heard    uint32 // leak: not at all
	}{
		{Customer, Provider, none, 65002},  // from a provider to a customer: marked at ingress
		{Customer, Provider, 65009, 65009}, // marked before
		{Customer, Customer, none, leak},   // from one provider to another
		{Customer, Peer, none, leak},
		{Customer, RSClient, 65009, leak},
		{Peer, Provider, none, 65002},
		{Peer, Provider, 65002, 65002},
		{Peer, Provider, 65009, leak}, // a peer passes on what it got from elsewhere
		{Peer, Peer, none, leak},
		{RSClient, RS, none, 65002},
		{Provider, Customer, none, none},  // from a customer up
		{Provider, Peer, none, 65001},     // and to a peer: marked at egress
		{Provider, Provider, none, 65001}, // and to another customer
		{Provider, Customer, 65002, leak}, // a customer leaks
		{RS, RS, none, 65001},
		{RS, RS, 65002, leak},
		{NoRole, Provider, none, 65001},
		{NoRole, Customer, 65009, leak}, // marked by somebody
		{NoRole, NoRole, 65009, 65009},
	} {
		t.Run(fmt.Sprintf("%s %s %d", c.from, c.to, c.otc), func(t *testing.T) {
			s := newStar(t, "169.254.1.2", "169.254.1.1", 65002, "169.254.2.2", "169.254.2.1", 65003, func(first, second *Neighbor) {
				first.Role, second.Role = c.from, c.to
			})
			attrs := [][]byte{{0x40, 1, 1, 0}, aspath(65002), attrBytes(0x40, 3, 169, 254, 1, 2)}
			if c.otc != none {
				attrs = append(attrs, attrBytes(0xc0, byte(attrOTC), binary.BigEndian.AppendUint32(nil, c.otc)...))
			}
			s.first.send(updateOf([]byte{24, 10, 7, 0}, attrs...))
			if c.heard != leak {
				got, announces := otcOf(s.second.expect(bgp.BGP_MSG_UPDATE))
				for !announces { // End-of-RIB
					got, announces = otcOf(s.second.expect(bgp.BGP_MSG_UPDATE))
				}
				if got != c.heard {
					t.Errorf("the second neighbor hears OTC %d, want %d", got, c.heard)
				}
				return
			}
			// What is our own is heard, and nothing before it.
			s.r1.originate("10.9.0.0/24")
			for {
				body := s.second.expect(bgp.BGP_MSG_UPDATE)
				u, _ := parseUpdate(body)
				if len(u.withdrawn) > 0 {
					t.Errorf("a withdrawal of what was never announced: %x", body)
				}
				if len(u.nlri) == 0 {
					continue
				}
				if u.nlri[2] != 9 {
					t.Errorf("the second neighbor hears %x", u.nlri)
				}
				break
			}
			if c.from == Provider || c.from == RS || c.from == Peer && c.otc != none {
				eventually(t, 5*time.Second, func() string {
					if n := s.r1.session("first").Leaks; n != 1 {
						return fmt.Sprintf("%d leaks are counted", n)
					}
					return ""
				})
				s.r1.wantFeed()
			}
		})
	}
}

// A route that is marked later is taken back from where it must not be.
func TestOnlyToCustomerTakesBack(t *testing.T) {
	s := newStar(t, "169.254.1.2", "169.254.1.1", 65002, "169.254.2.2", "169.254.2.1", 65003, func(_, second *Neighbor) { second.Role = Customer })
	attrs := [][]byte{{0x40, 1, 1, 0}, aspath(65002), attrBytes(0x40, 3, 169, 254, 1, 2)}
	expect := func(withdrawn, nlri int) {
		t.Helper()
		for {
			u, _ := parseUpdate(s.second.expect(bgp.BGP_MSG_UPDATE))
			if len(u.withdrawn)+len(u.nlri) == 0 {
				continue
			}
			if len(u.withdrawn) != withdrawn || len(u.nlri) != nlri {
				t.Errorf("%d bytes withdrawn, %d announced; want %d and %d", len(u.withdrawn), len(u.nlri), withdrawn, nlri)
			}
			return
		}
	}
	s.first.send(updateOf([]byte{24, 10, 7, 0}, attrs...))
	expect(0, 4)
	s.first.send(updateOf([]byte{24, 10, 7, 0}, append(attrs, attrBytes(0xc0, byte(attrOTC), 0, 0, 0xfd, 0xea))...))
	expect(4, 0)
	s.first.send(updateOf([]byte{24, 10, 7, 0}, attrs...))
	expect(0, 4)
}
