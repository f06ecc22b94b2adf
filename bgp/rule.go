package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// This file is the language of named policies: what a rule can ask of a route, and what it can do to it. compile.go turns it
// into what GoBGP executes.

// Policy names what a session lets through in one direction: one of the following, or a key of Config.Policies.
type Policy string

// The policies that need no definition.
const (
	PolicyDefault Policy = ""     // nothing was said: iBGP passes all, eBGP does what Config.EBGPDefault says
	PolicyAll     Policy = "all"  // everything
	PolicyNone    Policy = "none" // nothing
	PolicyDN42    Policy = "dn42" // what DN42's networks expect of each other; see dn42.go
)

func (p Policy) String() string {
	if p == PolicyDefault {
		return "default"
	}
	return string(p)
}

// builtin reports whether a policy needs no definition, and so can have none.
func (p Policy) builtin() bool {
	return p == PolicyDefault || p == PolicyAll || p == PolicyNone || p == PolicyDN42
}

// RuleAction is what becomes of a route that a rule matches.
type RuleAction uint8

// The actions.
const (
	Continue RuleAction = iota // the next rule sees the route as this one leaves it
	Accept
	Reject
)

func (a RuleAction) String() string {
	names := [...]string{"continue", "accept", "reject"}
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Rule is one of a named policy's. The rules are tried in order, until one accepts or rejects; a route that none of them does
// so to is rejected.
type Rule struct {
	Name   string // for explanations; may be empty
	Match  Match
	Set    Set
	Action RuleAction

	// fresh says that the route is known to lack the communities that are added: no look for duplicates is needed.
	fresh bool
}

// Match is what a rule asks of a route. Fields that are not set ask nothing; all that are set must hold. Of a list, one
// member suffices.
type Match struct {
	Prefixes         []PrefixRange
	NotPrefixes      bool // of Prefixes, none may hold
	Families         []Family
	ASContains       []uint32 // anywhere in a sequence of the AS path; our own in front of it does not count
	ASLast           []uint32 // the last in the AS path: who originated the route
	ASNeighbor       []uint32 // the first in the AS path, our own left out: whom we have the route from
	ASLength         *Span    // RFC 4271 §9.1.2.2 a: a set counts as one; our own in front does not count
	Communities      []string // "65001:1", "65001:*"
	NotCommunities   bool     // of Communities, none may hold
	LargeCommunities []string // "65001:1:2", "65001:1:*", "65001:*:*"
	Origins          []string // igp, egp, incomplete
	NextHops         []netip.Addr
	Sources          []Source
	ROA              Validity // "" is any

	// Words are how the configuration says it, by key; explanations prefer them to what they stand for.
	Words map[string]string
}

// PrefixRange is every prefix in Prefix whose length is from Min to Max.
type PrefixRange struct {
	Prefix   netip.Prefix
	Min, Max int
}

// Contains reports whether p is in the range.
func (r PrefixRange) Contains(p netip.Prefix) bool {
	return r.Prefix.Contains(p.Addr()) && p.Bits() >= r.Prefix.Bits() && r.Min <= p.Bits() && p.Bits() <= r.Max
}

func (r PrefixRange) String() string {
	switch {
	case r.Min == r.Prefix.Bits() && r.Max == r.Min:
		return r.Prefix.String()
	case r.Min == r.Prefix.Bits() && r.Max == r.Prefix.Addr().BitLen():
		return r.Prefix.String() + "+"
	}
	return fmt.Sprintf("%s %d-%d", r.Prefix, r.Min, r.Max)
}

// Span is a range of numbers. A negative Max is no limit.
type Span struct{ Min, Max int }

func (s Span) String() string {
	switch {
	case s.Max < 0:
		return fmt.Sprintf("%d or more", s.Min)
	case s.Min == s.Max:
		return strconv.Itoa(s.Min)
	}
	return fmt.Sprintf("%d-%d", s.Min, s.Max)
}

// Source is where a route comes from.
type Source string

// The sources. A prefix of ours may have several.
const (
	SourceOwn       Source = "own"       // we announce it: any of the next four
	SourceOriginate Source = "originate" // the configuration says so
	SourceConnected Source = "connected"
	SourceStatic    Source = "static"
	SourceLearned   Source = "learned"  // others' routes in the dataplane
	SourceInternal  Source = "internal" // a neighbour in our AS
	SourceExternal  Source = "external" // a neighbour in another
)

// Validity is a result of route origin validation (RFC 6811 §2).
type Validity string

// The results.
const (
	ROAValid   Validity = "valid"
	ROAInvalid Validity = "invalid"
	ROAUnknown Validity = "unknown" // NotFound in the RFC
)

// Set is what a rule changes.
type Set struct {
	LocalPref   *uint32
	MED         *MED
	Origin      string     // "" leaves it
	Prepend     uint8      // so many times more: our AS in an export policy, the neighbour's in an import policy
	NextHopSelf bool       // only of use towards iBGP neighbours
	NextHop     netip.Addr // for routes of its own family

	Communities      Edit
	LargeCommunities Edit
}

// MED sets MULTI_EXIT_DISC or, if Relative, adds to it; an absent one counts as 0, and what would leave its 32 bits is not done.
type MED struct {
	Value    int64
	Relative bool
}

// Edit changes a list of communities: replaced by With if Replace is set, then without Remove, then with Add.
type Edit struct {
	Replace bool
	With    []string
	Remove  []string // may be patterns, as in Match
	Add     []string
}

func (e Edit) empty() bool { return !e.Replace && len(e.Remove) == 0 && len(e.Add) == 0 }

func (s Set) empty() bool {
	return s.LocalPref == nil && s.MED == nil && s.Origin == "" && s.Prepend == 0 && !s.NextHopSelf && !s.NextHop.IsValid() &&
		s.Communities.empty() && s.LargeCommunities.empty()
}

// communityNumber parses "65001:1" and the names of well-known communities; the low half of a pattern may be "*".
func communityNumber(s string) (high, low uint16, any bool, err error) {
	bad := fmt.Errorf("%q is not a community, as 65001:1 is", s)
	h, l, ok := strings.Cut(s, ":")
	if !ok {
		if c, known := namedCommunities[s]; known {
			return uint16(c >> 16), uint16(c), false, nil
		}
		return 0, 0, false, bad
	}
	hn, err := strconv.ParseUint(h, 10, 16)
	if err != nil {
		return 0, 0, false, bad
	}
	if l == "*" {
		return uint16(hn), 0, true, nil
	}
	ln, err := strconv.ParseUint(l, 10, 16)
	if err != nil {
		return 0, 0, false, bad
	}
	return uint16(hn), uint16(ln), false, nil
}

// namedCommunities are the communities that have names (RFC 1997, RFC 7999, RFC 8326, RFC 9494).
var namedCommunities = map[string]uint32{
	"graceful-shutdown": 0xffff0000, "llgr-stale": 0xffff0006, "no-llgr": 0xffff0007, "blackhole": 0xffff029a,
	"no-export": 0xffffff01, "no-advertise": 0xffffff02, "no-export-subconfed": 0xffffff03, "no-peer": 0xffffff04,
}

// communityPattern is the regular expression of a community, or of a pattern of them.
func communityPattern(s string) (string, error) {
	high, low, any, err := communityNumber(s)
	switch {
	case err != nil:
		return "", err
	case any && high == wellKnownHigh:
		return "", fmt.Errorf("%q is a pattern of well-known communities, which are named one by one", s)
	case any:
		return fmt.Sprintf(`^%d:\d+$`, high), nil
	}
	return fmt.Sprintf("^%d:%d$", high, low), nil
}

// wellKnownHigh is the upper half of all well-known communities (RFC 1997 §2).
const wellKnownHigh = 0xffff

// exactCommunity is a community as GoBGP reads it in a list to add.
func exactCommunity(s string) (string, error) {
	high, low, any, err := communityNumber(s)
	if err != nil {
		return "", err
	}
	if any {
		return "", fmt.Errorf("%q is a pattern, and only a community can be added", s)
	}
	return fmt.Sprintf("%d:%d", high, low), nil
}

// largePattern is the regular expression of a large community (RFC 8092), or of a pattern of them.
func largePattern(s string) (string, error) {
	parts := strings.Split(s, ":")
	bad := fmt.Errorf("%q is not a large community, as 65001:1:2 is", s)
	if len(parts) != 3 {
		return "", bad
	}
	for i, p := range parts {
		if i > 0 && p == "*" {
			parts[i] = `\d+`
			continue
		}
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return "", bad
		}
		parts[i] = strconv.FormatUint(n, 10)
	}
	return "^" + strings.Join(parts, ":") + "$", nil
}

func exactLarge(s string) (string, error) {
	p, err := largePattern(s)
	if err != nil {
		return "", err
	}
	if strings.Contains(p, `\`) {
		return "", fmt.Errorf("%q is a pattern, and only a large community can be added", s)
	}
	return strings.Trim(p, "^$"), nil
}

// check reports all that is wrong with a rule.
func (r *Rule) check() error {
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	m, s := &r.Match, &r.Set
	for _, p := range m.Prefixes {
		if !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() || p.Min < p.Prefix.Bits() || p.Max < p.Min || p.Max > p.Prefix.Addr().BitLen() {
			fail(fmt.Errorf("%s is no range of prefixes", p))
		}
	}
	for _, f := range m.Families {
		if f != IPv4 && f != IPv6 {
			fail(fmt.Errorf("unknown %s", f))
		}
	}
	for _, c := range slices.Concat(m.Communities, s.Communities.Remove) {
		_, err := communityPattern(c)
		fail(err)
	}
	for _, c := range slices.Concat(s.Communities.Add, s.Communities.With) {
		_, err := exactCommunity(c)
		fail(err)
	}
	for _, c := range slices.Concat(m.LargeCommunities, s.LargeCommunities.Remove) {
		_, err := largePattern(c)
		fail(err)
	}
	for _, c := range slices.Concat(s.LargeCommunities.Add, s.LargeCommunities.With) {
		_, err := exactLarge(c)
		fail(err)
	}
	for _, o := range append(slices.Clone(m.Origins), s.Origin) {
		if _, ok := origins[o]; !ok && o != "" {
			fail(fmt.Errorf("%q is no origin: igp, egp or incomplete", o))
		}
	}
	for _, src := range m.Sources {
		if !slices.Contains([]Source{SourceOwn, SourceOriginate, SourceConnected, SourceStatic, SourceLearned, SourceInternal, SourceExternal}, src) {
			fail(fmt.Errorf("%q is no source of routes", src))
		}
	}
	if _, ok := validities[m.ROA]; !ok && m.ROA != "" {
		fail(fmt.Errorf("%q is no result of route origin validation", m.ROA))
	}
	if m.NextHops != nil && len(m.NextHops) == 0 { // GoBGP would take it for any
		fail(errors.New("no next hop is asked for"))
	}
	if l := m.ASLength; l != nil && (l.Min < 0 || l.Max >= 0 && l.Max < l.Min) {
		fail(fmt.Errorf("%d to %d is no range of lengths", l.Min, l.Max))
	}
	if s.MED != nil && (s.MED.Value > maxUint32 || s.MED.Value < -maxUint32 || !s.MED.Relative && s.MED.Value < 0) {
		fail(fmt.Errorf("MED %d does not fit into 32 bits", s.MED.Value))
	}
	if s.NextHopSelf && s.NextHop.IsValid() {
		fail(errors.New("the next hop is either ourselves or an address"))
	}
	if r.Action == Reject && !s.empty() {
		fail(errors.New("a route that is rejected is not changed"))
	}
	return errors.Join(errs...)
}

const maxUint32 = 1<<32 - 1

// checkPolicies checks the named policies, and that the neighbours name none but these.
func (c *Config) checkPolicies() error {
	var errs []error
	for name, rules := range c.Policies {
		if name.builtin() {
			errs = append(errs, fmt.Errorf("policy %s is built in", name))
		}
		for i := range rules {
			if err := rules[i].check(); err != nil {
				errs = append(errs, fmt.Errorf("policy %s, rule %d: %w", name, i+1, err))
			}
		}
	}
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		for _, d := range []direction{importing, exporting} {
			for _, f := range both {
				p := n.policy(c, d, f)
				rules, known := c.Policies[p]
				switch {
				case !known && !p.builtin():
					errs = append(errs, fmt.Errorf("neighbor %s: there is no policy %s", n.Name, p))
				case d == exporting && n.AS == c.AS && slices.ContainsFunc(rules, func(r Rule) bool { return r.Match.NextHops != nil }):
					// GoBGP would ask it of the next hop of another route when it decides about a withdrawal; see compiler.ahead.
					errs = append(errs, fmt.Errorf("neighbor %s: policy %s asks for the next hop, which an export policy to our own AS cannot", n.Name, p))
				case d == importing && slices.ContainsFunc(rules, func(r Rule) bool { return r.Set.NextHopSelf }):
					errs = append(errs, fmt.Errorf("neighbor %s: policy %s sets the next hop to ourselves, which makes no sense on import", n.Name, p))
				}
			}
		}
		if err := n.DN42.check(); err != nil {
			errs = append(errs, fmt.Errorf("neighbor %s: %w", n.Name, err))
		}
	}
	if err := c.DN42.check(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// both are the families that there are.
var both = []Family{IPv4, IPv6}
