package config

import "slices"

// A section is a mapping of the file: its name in messages, and the keys that it may have.
type section struct {
	name string
	keys []key
}

// A key is one of a section's. later and never say why it cannot be used: later in this release, never at all.
type key struct {
	name  string
	later string
	never string
	// refers reports the references below a later key that lead nowhere: those are told in preference to "not available yet".
	refers func(*decoder, value)
}

func (s *section) key(name string) (key, bool) {
	for _, k := range s.keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// names returns the keys, those that can be used first.
func (s *section) names() (available, later []string) {
	for _, k := range s.keys {
		switch {
		case k.never != "":
		case k.later != "":
			later = append(later, k.name)
		default:
			available = append(available, k.name)
		}
	}
	return available, later
}

// What is not available yet, each with what there is instead. Taking a line away here and giving the key a case in
// sections.go is how a feature becomes available.
const (
	laterVRF     = "all interfaces and routes are in one table: remove it"
	laterTap     = "connect by memif or wireguard"
	laterBFD     = "a next hop is watched where it is a BGP neighbor only: remove it"
	laterSession = "remove it"
	laterDevice  = "connect by memif or wireguard"
)

var (
	rootSection = &section{"the configuration", []key{
		{name: "router"},
		{name: "dataplane"},
		{name: "interfaces"},
		{name: "static"},
		{name: "acl"},
		{name: "sets"},
		{name: "policies"},
		{name: "bgp"},
		{name: "roa"},
		{name: "services"},
		{name: "control"},
		{name: "log"},
		{name: "vrfs", later: laterVRF, refers: (*decoder).vrfReferences},
		{name: "devices", later: laterDevice},
	}}
	routerSection    = &section{"router", []key{{name: "name"}, {name: "id"}, {name: "as"}}}
	dataplaneSection = &section{"dataplane", []key{{name: "kind"}, {name: "vpp"}, {name: "audit"}, {name: "learn"}, {name: "flow-hash"}}}
	vppSection       = &section{"dataplane.vpp", []key{{name: "attach"}}}
	interfaceSection = &section{"an interface", []key{
		{name: "loopback"},
		{name: "memif"},
		{name: "wireguard"},
		{name: "addresses"},
		{name: "mtu"},
		{name: "unnumbered"},
		{name: "acl"},
		{name: "tap", later: laterTap},
		{name: "host-interface", later: laterTap},
		{name: "vrf", later: laterVRF, refers: refersTo("vrfs", "VRF")},
		{name: "urpf"},
		{name: "mss-clamp"},
	}}
	memifSection = &section{"memif", []key{
		{name: "socket"},
		{name: "role"},
		{name: "id"},
		{name: "secret-file"},
		{name: "secret"},
		{name: "ring-size"},
		{name: "buffer-size"},
		{name: "queues"},
	}}
	wireguardSection = &section{"wireguard", []key{
		{name: "listen"},
		{name: "private-key-file"},
		{name: "private-key"},
		{name: "preshared-key-file"},
		{name: "preshared-key"},
		{name: "peer"},
	}}
	peerSection = &section{"wireguard.peer", []key{
		{name: "public-key"},
		{name: "endpoint"},
		{name: "keepalive"},
		{name: "preshared-key-file"},
		{name: "preshared-key"},
	}}
	staticSection = &section{"a static route", []key{
		{name: "prefix"},
		{name: "via"},
		{name: "blackhole"},
		{name: "unreachable"},
		{name: "prohibit"},
		{name: "vrf", later: laterVRF, refers: refersTo("vrfs", "VRF")},
		{name: "bfd", later: laterBFD},
	}}
	viaSection = &section{"a next hop", []key{{name: "address"}, {name: "interface"}, {name: "weight"}}}
	bgpSection = &section{"bgp", []key{
		{name: "originate"},
		{name: "redistribute"},
		{name: "multipath"},
		{name: "cluster-id"},
		{name: "deferral"},
		{name: "graceful-shutdown"},
		{name: "ebgp-requires-policy"},
		{name: "dn42"},
		{name: "neighbors"},
		{name: "groups"},
		{name: "dynamic"},
	}}
	redistributeSection = &section{"bgp.redistribute", []key{{name: "connected"}, {name: "static"}, {name: "learned"}}}
	neighborSection     = &section{"a neighbor", []key{
		{name: "name"},
		{name: "description"},
		{name: "disabled"},
		{name: "address"},
		{name: "interface"},
		{name: "as"},
		{name: "local-address"},
		{name: "passive"},
		{name: "next-hop-self"},
		{name: "route-reflector-client"},
		{name: "multihop"},
		{name: "hold-time"},
		{name: "connect-retry"},
		{name: "families"},
		{name: "import"},
		{name: "export"},
		{name: "dn42"},
		{name: "bfd"},
		{name: "max-prefix"},
		{name: "add-path"},
		{name: "allow-own-as"},
		{name: "role"},
		{name: "graceful-restart"},
		{name: "group"},
		{name: "vrf", later: laterVRF, refers: refersTo("vrfs", "VRF")},
		{name: "ttl-security", never: "the dataplane's TCP, VPP's too, does not look at the TTL of what arrives (RFC 5082): remove it. What we send has TTL 255, so that the neighbor may demand it of us"},
		{name: "password", never: "TCP-MD5 (RFC 2385) does not exist in VPP's TCP, which carries the sessions: remove it, and protect the session by its wireguard link"},
	}}
	familyPolicySection = &section{"import or export", []key{{name: "ipv4"}, {name: "ipv6"}}}
	dn42Section         = &section{"bgp.dn42", []key{{name: "region"}, {name: "country"}}}
	dn42LinkSection     = &section{"dn42", []key{{name: "latency"}, {name: "bandwidth"}, {name: "crypto"}}}
	setsSection         = &section{"sets", []key{{name: "prefixes"}, {name: "as"}, {name: "communities"}, {name: "large-communities"}}}
	ruleSection         = &section{"a rule", []key{{name: "name"}, {name: "match"}, {name: "set"}, {name: "action"}}}
	matchSection        = &section{"match", []key{
		{name: "prefix"},
		{name: "not-prefix"},
		{name: "family"},
		{name: "as-path"},
		{name: "community"},
		{name: "not-community"},
		{name: "large-community"},
		{name: "origin"},
		{name: "next-hop"},
		{name: "source"},
		{name: "roa"},
	}}
	asPathSection = &section{"as-path", []key{{name: "contains"}, {name: "last"}, {name: "neighbor"}, {name: "length"}}}
	setSection    = &section{"set", []key{
		{name: "local-pref"},
		{name: "med"},
		{name: "origin"},
		{name: "prepend"},
		{name: "next-hop"},
		{name: "communities"},
		{name: "large-communities"},
	}}
	editSection        = &section{"communities", []key{{name: "replace"}, {name: "remove"}, {name: "add"}}}
	gracefulSection    = &section{"graceful-restart", []key{{name: "mode"}, {name: "restart-time"}, {name: "stale-time"}, {name: "long-lived"}}}
	bfdSection         = &section{"bfd", []key{{name: "interval"}, {name: "multiplier"}}}
	maxPrefixSection   = &section{"max-prefix", []key{{name: "ipv4"}, {name: "ipv6"}}}
	prefixLimitSection = &section{"max-prefix of a family", []key{{name: "limit"}, {name: "action"}, {name: "restart-after"}}}
	addPathSection     = &section{"add-path", []key{{name: "mode"}, {name: "send-max"}}}
	roleSection        = &section{"role", []key{{name: "name"}, {name: "strict"}}}
	dynamicSection     = &section{"a dynamic neighbor", []key{{name: "prefix"}, {name: "group"}, {name: "as"}, {name: "limit"}, {name: "forget-after"}}}
	controlSection     = &section{"control", []key{
		{name: "socket"},
		{name: "bird-socket"},
		{name: "grpc"},
		{name: "grpc-public"},
	}}
	servicesSection = &section{"services", []key{
		{name: "http"},
		{name: "socks5"},
		{name: "expose"},
	}}
	socksSection  = &section{"socks5", []key{{name: "listen"}, {name: "dns"}}}
	exposeSection = &section{"an exposed service", []key{{name: "listen"}, {name: "to"}}}
	logSection    = &section{"log", []key{{name: "level"}, {name: "format"}}}
)

// sections is the whole schema, for the test that compares it with docs/configuration.md.
var sections = []*section{
	rootSection, routerSection, dataplaneSection, vppSection, interfaceSection, memifSection, wireguardSection,
	peerSection, staticSection, viaSection, aclRuleSection, interfaceACLSection, setsSection, ruleSection, matchSection, asPathSection, setSection, editSection,
	bgpSection, dn42Section, redistributeSection, neighborSection, familyPolicySection, dn42LinkSection, gracefulSection, dynamicSection, roaSection,
	rtrSection, controlSection, logSection, maxPrefixSection, prefixLimitSection, addPathSection, roleSection,
	servicesSection, socksSection, exposeSection, bfdSection,
}

// groupSection are the keys of a neighbour that many can share.
var groupSection = &section{"a group", slices.DeleteFunc(slices.Clone(neighborSection.keys), func(k key) bool {
	return slices.Contains([]string{"name", "description", "address", "interface", "group"}, k.name)
})}
