package bgp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/sirupsen/logrus"
)

// This file is the revised error handling of RFC 7606: a malformed attribute costs its routes, or only itself, and not the
// session. GoBGP has most of it, but leaves the routes of some such messages as they were, takes attributes from outside of our
// AS that mean something only in it, and ends the session where it need not. So UPDATEs are put right before GoBGP sees them.

// attrRule says what an attribute must be like, and what becomes of it if it is not: the routes are treated as withdrawn, or it
// is left out.
type attrRule struct {
	name     string
	flags    bgp.BGPAttrFlag // optional and transitive
	discard  bool            // RFC 7606 §2, attribute discard
	internal bool            // from outside of our AS it is left out, whatever it says
	wrong    func(v []byte, as4 bool) bool
}

const (
	wellKnown     = bgp.BGP_ATTR_FLAG_TRANSITIVE
	optional      = bgp.BGP_ATTR_FLAG_OPTIONAL
	optTransitive = bgp.BGP_ATTR_FLAG_OPTIONAL | bgp.BGP_ATTR_FLAG_TRANSITIVE
)

// attrOTC is Only to Customer (RFC 9234 §5), which GoBGP passes on without knowing it.
const attrOTC bgp.BGPAttrType = 35

// attrRules are RFC 7606 §7, and what later documents say in its terms.
var attrRules = map[bgp.BGPAttrType]attrRule{
	bgp.BGP_ATTR_TYPE_ORIGIN:                   {name: "ORIGIN", flags: wellKnown, wrong: func(v []byte, _ bool) bool { return len(v) != 1 || v[0] > 2 }}, // §7.1
	bgp.BGP_ATTR_TYPE_AS_PATH:                  {name: "AS_PATH", flags: wellKnown, wrong: wrongASPath},                                                   // §7.2
	bgp.BGP_ATTR_TYPE_NEXT_HOP:                 {name: "NEXT_HOP", flags: wellKnown, wrong: length(4)},                                                    // §7.3
	bgp.BGP_ATTR_TYPE_MULTI_EXIT_DISC:          {name: "MULTI_EXIT_DISC", flags: optional, wrong: length(4)},                                              // §7.4
	bgp.BGP_ATTR_TYPE_LOCAL_PREF:               {name: "LOCAL_PREF", flags: wellKnown, internal: true, wrong: length(4)},                                  // §7.5
	bgp.BGP_ATTR_TYPE_ATOMIC_AGGREGATE:         {name: "ATOMIC_AGGREGATE", flags: wellKnown, discard: true, wrong: length(0)},                             // §7.6
	bgp.BGP_ATTR_TYPE_AGGREGATOR:               {name: "AGGREGATOR", flags: optTransitive, discard: true, wrong: wrongAggregator},                         // §7.7
	bgp.BGP_ATTR_TYPE_COMMUNITIES:              {name: "COMMUNITIES", flags: optTransitive, wrong: multipleOf(4)},                                         // §7.8
	bgp.BGP_ATTR_TYPE_ORIGINATOR_ID:            {name: "ORIGINATOR_ID", flags: optional, internal: true, wrong: length(4)},                                // §7.9
	bgp.BGP_ATTR_TYPE_CLUSTER_LIST:             {name: "CLUSTER_LIST", flags: optional, internal: true, wrong: multipleOf(4)},                             // §7.10
	bgp.BGP_ATTR_TYPE_MP_REACH_NLRI:            {name: "MP_REACH_NLRI", flags: optional},
	bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI:          {name: "MP_UNREACH_NLRI", flags: optional},
	bgp.BGP_ATTR_TYPE_EXTENDED_COMMUNITIES:     {name: "EXTENDED COMMUNITIES", flags: optTransitive, wrong: multipleOf(8)},                                                           // §7.14
	bgp.BGP_ATTR_TYPE_AS4_PATH:                 {name: "AS4_PATH", flags: optTransitive, discard: true, wrong: func(v []byte, as4 bool) bool { return as4 || wrongASPath(v, true) }}, // RFC 6793 §6
	bgp.BGP_ATTR_TYPE_AS4_AGGREGATOR:           {name: "AS4_AGGREGATOR", flags: optTransitive, discard: true, wrong: func(v []byte, as4 bool) bool { return as4 || len(v) != 8 }},    // RFC 6793 §6
	bgp.BGP_ATTR_TYPE_IP6_EXTENDED_COMMUNITIES: {name: "IPv6 EXTENDED COMMUNITIES", flags: optTransitive, wrong: multipleOf(20)},                                                     // §7.15
	bgp.BGP_ATTR_TYPE_LARGE_COMMUNITY:          {name: "LARGE_COMMUNITY", flags: optTransitive, wrong: multipleOf(12)},                                                               // RFC 8092 §5
	attrOTC:                                    {name: "OTC", flags: optTransitive, wrong: length(4)},                                                                                // RFC 9234 §5
}

func length(n int) func([]byte, bool) bool {
	return func(v []byte, _ bool) bool { return len(v) != n }
}

func multipleOf(n int) func([]byte, bool) bool {
	return func(v []byte, _ bool) bool { return len(v) == 0 || len(v)%n != 0 }
}

func wrongAggregator(v []byte, as4 bool) bool {
	if as4 {
		return len(v) != 8
	}
	return len(v) != 6
}

// wrongASPath is RFC 7606 §7.2: an unknown segment, an empty one, or one that ends elsewhere.
func wrongASPath(v []byte, as4 bool) bool {
	size := 2
	if as4 {
		size = 4
	}
	for len(v) > 0 {
		if len(v) < 2 || v[0] == 0 || v[0] > bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET || v[1] == 0 || len(v) < 2+int(v[1])*size {
			return true
		}
		v = v[2+int(v[1])*size:]
	}
	return false
}

// hasConfederation reports a segment of RFC 5065 §3, which is malformed from outside of a confederation (§5).
func hasConfederation(v []byte, as4 bool) bool {
	size := 2
	if as4 {
		size = 4
	}
	for len(v) > 0 {
		if v[0] == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ || v[0] == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET {
			return true
		}
		v = v[2+int(v[1])*size:]
	}
	return false
}

// repair puts an UPDATE right whose routes are readable. It reports whether it changed it, or why the session ends.
func (t *traffic) repair(u *update) (changed bool, end *ending) {
	if changed = t.dropForeign(u); u.empty() {
		return changed, nil
	}
	var why string // the routes are treated as withdrawn
	blame := func(format string, args ...any) {
		if why == "" {
			why = fmt.Sprintf(format, args...)
		}
	}
	if u.broken {
		blame("the list of attributes ends amid one of them") // RFC 7606 §4
	}
	seen := map[bgp.BGPAttrType]bool{}
	kept := u.attrs[:0:0]
	for _, a := range u.attrs {
		rule, known := attrRules[a.typ]
		switch {
		case seen[a.typ]: // RFC 7606 §3 g: the first one counts
			if a.multiprotocol() {
				return false, &ending{code: bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, subcode: bgp.BGP_ERROR_SUB_MALFORMED_ATTRIBUTE_LIST}
			}
		case !known:
			kept = append(kept, a)
		case rule.internal && !t.internal:
		case a.flags&optTransitive != rule.flags: // RFC 7606 §3 c
			if a.flags = rule.flags; a.multiprotocol() {
				kept = append(kept, a) // its routes are needed
			}
			blame("%s has wrong flags", rule.name)
		case rule.wrong != nil && rule.wrong(a.value, t.as4):
			if !rule.discard {
				blame("%s is malformed", rule.name)
			}
		case a.typ == bgp.BGP_ATTR_TYPE_AS_PATH && !t.internal && hasConfederation(a.value, t.as4):
			blame("AS_PATH has a segment of a confederation")
		default:
			kept = append(kept, a)
		}
		seen[a.typ] = true
	}
	if len(kept) != len(u.attrs) {
		t.tally.discarded.Add(uint64(len(u.attrs) - len(kept)))
		changed = true
	}
	u.attrs = kept
	missing := func(typ bgp.BGPAttrType) bool { return u.find(typ) == nil }
	if u.announces() && (missing(bgp.BGP_ATTR_TYPE_ORIGIN) || missing(bgp.BGP_ATTR_TYPE_AS_PATH) || len(u.nlri) > 0 && missing(bgp.BGP_ATTR_TYPE_NEXT_HOP)) {
		blame("a mandatory attribute is missing") // RFC 7606 §3 d
	}
	if why == "" {
		return changed, nil
	}
	return true, t.withdraw(u, why)
}

// withdraw treats an UPDATE as withdrawing its routes. Where there are none, a malformed attribute may have been the one that
// had them, and the session ends (RFC 7606 §5.2).
func (t *traffic) withdraw(u *update, why string) *ending {
	if len(u.withdrawn)+len(u.nlri) == 0 && !slices.ContainsFunc(u.attrs, func(a attr) bool { return a.multiprotocol() }) {
		return &ending{code: bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, subcode: bgp.BGP_ERROR_SUB_MALFORMED_ATTRIBUTE_LIST}
	}
	u.asWithdrawal()
	t.tally.withdrawn.Add(1)
	t.complain(logrus.Fields{"error": why, "so_far": t.tally.withdrawn.Load()},
		"malformed UPDATE from the BGP neighbor: its routes are taken as withdrawn")
	return nil
}

// complain logs what is wrong with an UPDATE of the peer's, now and then.
func (t *traffic) complain(fields logrus.Fields, text string) {
	if now := time.Now(); now.Sub(t.said) >= complainEvery {
		t.said = now
		t.log.WithFields(fields).Warn(text)
	}
}

const complainEvery = 10 * time.Second

// carries reports whether the session carries a family.
func (t *traffic) carries(f bgp.Family) bool { return slices.Contains(t.families, familyOf(f)) }

// dropForeign takes out the routes of families that the session does not carry: GoBGP would end it. It reports whether there
// were any.
func (t *traffic) dropForeign(u *update) bool {
	before := len(u.attrs)
	u.attrs = slices.DeleteFunc(u.attrs, func(a attr) bool {
		return a.multiprotocol() && !t.carries(bgp.NewFamily(binary.BigEndian.Uint16(a.value), a.value[2]))
	})
	changed := len(u.attrs) != before
	if len(u.withdrawn)+len(u.nlri) > 0 && !t.carries(bgp.RF_IPv4_UC) {
		u.withdrawn, u.nlri, changed = nil, nil, true
	}
	if changed && !u.announces() {
		u.trim()
		u.broken = false
	}
	return changed
}

// checkRoutes ends the session for routes that cannot be read (RFC 7606 §5.3).
func (t *traffic) checkRoutes(u *update) *ending {
	bad := func(subcode uint8) *ending {
		return &ending{code: bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR, subcode: subcode}
	}
	id := t.idsIn(bgp.RF_IPv4_UC)
	if !readable(u.withdrawn, id, 32) || !readable(u.nlri, id, 32) {
		return bad(bgp.BGP_ERROR_SUB_INVALID_NETWORK_FIELD)
	}
	for _, a := range u.attrs {
		if !a.multiprotocol() {
			continue
		}
		if len(a.value) < 3 {
			return bad(bgp.BGP_ERROR_SUB_OPTIONAL_ATTRIBUTE_ERROR)
		}
		family := bgp.NewFamily(binary.BigEndian.Uint16(a.value), a.value[2])
		routes := a.value[3:]
		if a.typ == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI {
			if len(a.value) < 5 || len(a.value) < 5+int(a.value[3]) {
				return bad(bgp.BGP_ERROR_SUB_OPTIONAL_ATTRIBUTE_ERROR)
			}
			routes = a.value[5+int(a.value[3]):]
			if n := a.value[3]; t.carries(family) && n != 16 && n != 32 && (n != 4 || family != bgp.RF_IPv4_UC) {
				return bad(bgp.BGP_ERROR_SUB_OPTIONAL_ATTRIBUTE_ERROR) // RFC 7606 §7.11
			}
		}
		if !t.carries(family) {
			continue
		}
		most := 128
		if family == bgp.RF_IPv4_UC {
			most = 32
		}
		if !readable(routes, t.idsIn(family), most) {
			return bad(bgp.BGP_ERROR_SUB_OPTIONAL_ATTRIBUTE_ERROR)
		}
	}
	return nil
}

// readable reports whether a field of routes is one after the other, none longer than an address.
func readable(b []byte, identifier, bits int) bool {
	for len(b) > 0 {
		n := routeLen(b, identifier)
		if n == 0 || int(b[identifier]) > bits {
			return false
		}
		b = b[n:]
	}
	return true
}
