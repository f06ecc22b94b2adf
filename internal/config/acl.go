package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// ACL is an entry of `acl`: rules of which the first that matches a packet decides. A packet that none matches is dropped.
type ACL struct {
	Name  string
	Rules []ACLRule // at least one
}

// ACLAction is what a rule does with a packet.
type ACLAction string

// The actions.
const (
	ACLDeny    ACLAction = "deny"    // drop it, silently
	ACLPermit  ACLAction = "permit"  // let it through
	ACLReflect ACLAction = "reflect" // let it through, and the rest of its flow and the answers by the same interface too
)

// ACLRule is a rule. Conditions that are not given hold for any packet.
type ACLRule struct {
	Action          ACLAction
	Protocol        uint8        // of IP; 0: any
	Source          netip.Prefix // masked; invalid: any
	Destination     netip.Prefix // masked; invalid: any
	SourcePort      Range        // of TCP and UDP; AnyPort without a condition
	DestinationPort Range
	ICMPType        Range // of ICMP and ICMPv6; AnyICMP without a condition
	ICMPCode        Range
	TCPFlags        TCPFlags
}

// Range is of numbers, both ends in it.
type Range struct{ First, Last uint16 }

// Ranges without a condition.
var (
	AnyPort = Range{0, 65535}
	AnyICMP = Range{0, 255}
)

// TCPFlags holds for segments whose flags, of those in Mask, are Value; with a Mask of 0 for all.
type TCPFlags struct{ Mask, Value uint8 }

// Protocols that have names (RFC 5237 §2 leaves the rest to numbers).
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
)

var protocolNames = map[uint8]string{ProtocolICMP: "icmp", ProtocolTCP: "tcp", ProtocolUDP: "udp", ProtocolICMPv6: "icmp6"}

// ProtocolName is how the configuration writes a protocol.
func ProtocolName(n uint8) string {
	if name, ok := protocolNames[n]; ok {
		return name
	}
	return strconv.Itoa(int(n))
}

// tcpFlags are TCP's, by bit (RFC 9293 §3.1).
var tcpFlags = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"}

// Words is how the configuration writes the condition.
func (f TCPFlags) Words() (out []string) {
	for bit, name := range tcpFlags {
		switch {
		case f.Mask&(1<<bit) == 0:
		case f.Value&(1<<bit) != 0:
			out = append(out, name)
		default:
			out = append(out, "no-"+name)
		}
	}
	return out
}

func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Families says for which families a rule is: addresses and ICMP choose one.
func (r ACLRule) Families() (ip4, ip6 bool) {
	ip4, ip6 = true, true
	for _, p := range []netip.Prefix{r.Source, r.Destination} {
		if p.IsValid() {
			ip4, ip6 = ip4 && p.Addr().Is4(), ip6 && p.Addr().Is6()
		}
	}
	return ip4 && r.Protocol != ProtocolICMPv6, ip6 && r.Protocol != ProtocolICMP
}

// ACLs are the names of those that an interface applies, in their order: the first rule of all that matches decides.
type ACLs struct {
	In  []string // to packets that it receives
	Out []string // to packets that it sends
}

var (
	aclRuleSection = &section{"a rule of an ACL", []key{
		{name: "action"},
		{name: "protocol"},
		{name: "source"},
		{name: "destination"},
		{name: "source-port"},
		{name: "destination-port"},
		{name: "icmp-type"},
		{name: "icmp-code"},
		{name: "tcp-flags"},
	}}
	interfaceACLSection = &section{"the acl of an interface", []key{{name: "in"}, {name: "out"}}}
)

// Limits of VPP's messages and of its tags: a name shares 63 characters with the router's, and a list of ACLs has a length of
// 8 bits for both directions.
const (
	maxACLName  = 24
	maxACLRules = 4096
	maxACLList  = 100
)

func (d *decoder) acls(v value) (out []ACL) {
	d.entries(v, "acl must be a mapping of names to lists of rules", func(name string, at mark, v value) {
		d.checkName(at, "an ACL", name, maxACLName)
		if name == DN42ACL {
			d.errorAt(at, "the ACL %s is built in; choose another name", name)
		}
		a := ACL{Name: name}
		if v.isNull() || v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
			d.errorAt(at, "ACL %s has no rule, so it would drop everything; if it shall, write [{action: deny}]", shorten(name))
		}
		d.list(v, "an ACL must be a list of rules", func(_ int, v value) { a.Rules = append(a.Rules, d.aclRule(v)) })
		if len(a.Rules) > maxACLRules {
			d.errorAt(at, "ACL %s has %d rules; it can have %d: use shorter prefixes, or several ACLs", shorten(name), len(a.Rules), maxACLRules)
		}
		out = append(out, a)
	})
	return out
}

func (d *decoder) aclRule(v value) ACLRule {
	r := ACLRule{SourcePort: AnyPort, DestinationPort: AnyPort, ICMPType: AnyICMP, ICMPCode: AnyICMP}
	before := len(d.errs)
	d.mapping(v, aclRuleSection, func(key string, v value) {
		switch key {
		case "action":
			r.Action = ACLAction(d.choice(v, "action", string(ACLPermit), string(ACLDeny), string(ACLReflect)))
		case "protocol":
			r.Protocol = d.protocol(v)
		case "source":
			r.Source = d.aclPrefix(v, key)
		case "destination":
			r.Destination = d.aclPrefix(v, key)
		case "source-port":
			r.SourcePort = d.numbers(v, key, AnyPort)
		case "destination-port":
			r.DestinationPort = d.numbers(v, key, AnyPort)
		case "icmp-type":
			r.ICMPType = d.numbers(v, key, AnyICMP)
		case "icmp-code":
			r.ICMPCode = d.numbers(v, key, AnyICMP)
		case "tcp-flags":
			r.TCPFlags = d.tcpFlags(v)
		}
	})
	if len(d.errs) > before {
		return r
	}
	if !d.has(v.path + "/action") {
		d.errorf(v, "the action of the rule is missing; write action: permit, deny or reflect")
	}
	d.checkRule(v, r)
	return r
}

// checkRule looks at what the conditions of a rule mean together.
func (d *decoder) checkRule(v value, r ACLRule) {
	icmp := r.Protocol == ProtocolICMP || r.Protocol == ProtocolICMPv6
	ports := r.Protocol == ProtocolTCP || r.Protocol == ProtocolUDP
	needs := func(key string, ok bool, what string) {
		if path := v.path + "/" + key; !ok && d.has(path) {
			d.errorKey(path, "%s needs protocol: %s", key, what)
		}
	}
	needs("source-port", ports, "tcp or udp")
	needs("destination-port", ports, "tcp or udp")
	needs("icmp-type", icmp, "icmp or icmp6")
	needs("icmp-code", icmp, "icmp or icmp6")
	needs("tcp-flags", r.Protocol == ProtocolTCP, "tcp")
	if r.Source.IsValid() && r.Destination.IsValid() && r.Source.Addr().Is4() != r.Destination.Addr().Is4() {
		d.errorPath(v.path+"/destination", "source %s is IPv%d and destination %s is IPv%d, so that no packet matches; write a rule for each family",
			r.Source, version(r.Source.Addr()), r.Destination, version(r.Destination.Addr()))
		return
	}
	if ip4, ip6 := r.Families(); !ip4 && !ip6 {
		here, other := "icmp6 belongs to IPv6", "icmp"
		if r.Protocol == ProtocolICMP {
			here, other = "icmp belongs to IPv4", "icmp6"
		}
		d.errorPath(v.path+"/protocol", "%s, and the addresses do not; write protocol: %s", here, other)
	}
}

// protocol decodes a name or a number.
func (d *decoder) protocol(v value) uint8 {
	const what = "protocol must be tcp, udp, icmp, icmp6 or a number from 1 to 255"
	s, ok := d.text(v, what)
	if !ok {
		return 0
	}
	var names []string
	for n, name := range protocolNames {
		if name == s {
			return n
		}
		names = append(names, name)
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err == nil && n > 0 {
		return uint8(n)
	}
	slices.Sort(names)
	hint := ""
	switch near := nearest(s, names); {
	case s == "icmpv6" || s == "ipv6-icmp":
		hint = "; write icmp6"
	case s == "any" || s == "all" || s == "ip" || s == "0":
		hint = "; for any, remove it"
	case near != "":
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	d.errorf(v, "%s, not %q%s", what, shorten(s), hint)
	return 0
}

func (d *decoder) aclPrefix(v value, key string) netip.Prefix {
	s, ok := d.text(v, key+" must be a prefix such as 10.1.0.0/24")
	if !ok {
		return netip.Prefix{}
	}
	p, ok := d.prefix(v, s, key)
	if !ok {
		return netip.Prefix{}
	}
	return p
}

// numbers decodes a number, or a range of them: FIRST-LAST.
func (d *decoder) numbers(v value, key string, within Range) Range {
	what := fmt.Sprintf("%s must be a number from %d to %d, or a range such as %d-%d", key, within.First, within.Last, within.Last/8, within.Last)
	s, ok := d.text(v, what)
	if !ok {
		return within
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	lo, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	hi, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	switch {
	case err != nil || err2 != nil || hi > uint64(within.Last) || lo > uint64(within.Last):
		d.errorf(v, "%s, not %q", what, shorten(s))
	case lo > hi:
		d.errorf(v, "%s begins after its end; write %s: %d-%d", key, key, hi, lo)
	default:
		return Range{uint16(lo), uint16(hi)}
	}
	return within
}

// tcpFlags decodes a list of flags that are set, or with "no-" before them not set.
func (d *decoder) tcpFlags(v value) (f TCPFlags) {
	what := "tcp-flags must be a list of " + strings.Join(tcpFlags, ", ") + ", each perhaps with no- before it, such as [syn, no-ack]"
	d.words(v, what, func(_ int, v value, s string) {
		name, unset := strings.CutPrefix(s, "no-")
		bit := slices.Index(tcpFlags, name)
		switch {
		case s == "" && !emptyText(v): // it was refused already
		case bit < 0:
			d.errorf(v, "%s, not %q", what, shorten(s))
		case f.Mask&(1<<bit) != 0:
			d.errorf(v, "the flag %s is there twice; remove one", name)
		default:
			f.Mask |= 1 << bit
			if !unset {
				f.Value |= 1 << bit
			}
		}
	})
	return f
}

func (d *decoder) interfaceACLs(v value) (a ACLs) {
	d.mapping(v, interfaceACLSection, func(key string, v value) {
		seen := map[string]bool{}
		var names []string
		d.words(v, key+" must be a list of names of ACLs", func(_ int, v value, s string) {
			if s == "" && emptyText(v) {
				d.errorf(v, "the name of an ACL is empty; remove it")
			} else if s != "" {
				d.once(v, seen, s)
			}
			names = append(names, s)
		})
		if len(names) > maxACLList {
			d.errorf(v, "%s has %d ACLs; it can have %d: put rules together", key, len(names), maxACLList)
		}
		if key == "in" {
			a.In = names
		} else {
			a.Out = names
		}
	})
	return a
}

// referACLs reports ACLs of interfaces that do not exist.
func (d *decoder) referACLs(c *Config) {
	there := make([]string, len(c.ACLs))
	known := make(map[string]bool, len(c.ACLs))
	for i := range c.ACLs {
		there[i], known[c.ACLs[i].Name] = c.ACLs[i].Name, true
	}
	for _, i := range c.Interfaces {
		for direction, names := range map[string][]string{"in": i.ACL.In, "out": i.ACL.Out} {
			for n, name := range names {
				if name != "" && !known[name] {
					d.errorPath(join("interfaces", i.Name, "acl", direction, n), "ACL %q does not exist; %s", shorten(name), d.exists("ACL", name, there))
				}
			}
		}
	}
}

// DN42ACL is the ACL that needs no definition: what may cross a tunnel of DN42. It is among a Config's ACLs when an interface
// applies it.
const DN42ACL = "dn42"

// dn42ACL lets packets pass between addresses of DN42, and what link-local addresses need: neighbour discovery, sessions. Its last
// rule says what happens anyway, so that it is counted.
func dn42ACL() ACL {
	rule := ACLRule{Action: ACLPermit, SourcePort: AnyPort, DestinationPort: AnyPort, ICMPType: AnyICMP, ICMPCode: AnyICMP}
	a := ACL{Name: DN42ACL}
	add := func(protocol uint8, source, destination string) {
		r := rule
		r.Protocol = protocol
		if source != "" {
			r.Source = netip.MustParsePrefix(source)
		}
		if destination != "" {
			r.Destination = netip.MustParsePrefix(destination)
		}
		a.Rules = append(a.Rules, r)
	}
	nets := []string{"172.20.0.0/14", "10.0.0.0/8", "172.31.0.0/16"}
	for _, source := range nets {
		for _, destination := range nets {
			add(0, source, destination)
		}
	}
	add(0, "fd00::/8", "fd00::/8")
	add(0, "fe80::/10", "fe80::/10")
	add(ProtocolICMPv6, "fe80::/10", "")
	add(ProtocolICMPv6, "", "fe80::/10")
	rule.Action = ACLDeny
	add(0, "", "")
	return a
}

// builtinACLs adds what interfaces apply without a definition.
func (c *Config) builtinACLs() {
	for _, i := range c.Interfaces {
		if slices.Contains(i.ACL.In, DN42ACL) || slices.Contains(i.ACL.Out, DN42ACL) {
			if !slices.ContainsFunc(c.ACLs, func(a ACL) bool { return a.Name == DN42ACL }) {
				c.ACLs = append(c.ACLs, dn42ACL())
			}
			return
		}
	}
}

func (r ACLRule) block() *block {
	b := newBlock().flow().text("action", string(r.Action))
	if r.Protocol != 0 {
		if name, ok := protocolNames[r.Protocol]; ok {
			b.text("protocol", name)
		} else {
			b.number("protocol", uint64(r.Protocol), 0)
		}
	}
	if r.Source.IsValid() {
		b.text("source", r.Source.String())
	}
	if r.Destination.IsValid() {
		b.text("destination", r.Destination.String())
	}
	b.numbers("source-port", r.SourcePort, AnyPort)
	b.numbers("destination-port", r.DestinationPort, AnyPort)
	b.numbers("icmp-type", r.ICMPType, AnyICMP)
	b.numbers("icmp-code", r.ICMPCode, AnyICMP)
	return b.words("tcp-flags", r.TCPFlags.Words())
}

// numbers writes a range, a single number as such.
func (b *block) numbers(key string, r, otherwise Range) *block {
	switch {
	case r == otherwise:
		return b
	case r.First == r.Last:
		return b.put(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: r.String()})
	}
	return b.text(key, r.String())
}

// aclBlock is the section `acl`.
func (c *Config) aclBlock() *block {
	b := newBlock()
	for _, a := range c.ACLs {
		if a.Name == DN42ACL {
			continue
		}
		var rules []*block
		for _, r := range a.Rules {
			rules = append(rules, r.block())
		}
		b.blocks(a.Name, rules)
	}
	return b
}
