package plane

// Why packets were dropped, for VPP's "show errors".

type cause uint8

const (
	errRunt cause = iota
	errNotForUs
	errEtherType
	errInterfaceDown
	errNotEnabled
	errVersion
	errLength
	errChecksum
	errMartian
	errMulticast
	errScope
	errTTL
	errNoRoute
	errBlackhole
	errUnreachable
	errProhibited
	errTooBig
	errNoAdjacency
	errUnresolved
	errARP
	errND
	errReassembly
	errExtension
	errUnknownProtocol
	errNoListener
	errSocketFull
	errTransportChecksum
	errICMPLimit
	errACL
	errFlows
	errBFD
	errURPF
	numErrors
)

var causeNames = [numErrors]string{
	errURPF:              "ip-rx-urpf: no way back to the source",
	errRunt:              "ethernet-input: frame too short",
	errNotForUs:          "ethernet-input: destination MAC is not ours",
	errEtherType:         "ethernet-input: unknown ethernet type",
	errInterfaceDown:     "ethernet-input: interface is down",
	errNotEnabled:        "ip-input: IP is not enabled on the interface",
	errVersion:           "ip-input: wrong IP version or header length",
	errLength:            "ip-input: length in the header is wrong",
	errChecksum:          "ip4-input: bad header checksum",
	errMartian:           "ip-input: address that must not be on a wire",
	errMulticast:         "ip-input: multicast or broadcast that nobody here wants",
	errScope:             "ip6-input: link-local packet for another node",
	errTTL:               "ip-rewrite: TTL or hop limit ended",
	errNoRoute:           "ip-lookup: no route",
	errBlackhole:         "ip-drop: drop route or unresolved next hop",
	errUnreachable:       "ip-drop: unreachable route",
	errProhibited:        "ip-drop: prohibit route",
	errTooBig:            "ip-rewrite: larger than the MTU",
	errNoAdjacency:       "ip-rewrite: egress interface cannot send",
	errUnresolved:        "ip-neighbor: next hop did not answer",
	errARP:               "arp-input: not acceptable",
	errND:                "icmp6-neighbor: not acceptable",
	errReassembly:        "ip-local: fragments that did not become a packet",
	errExtension:         "ip6-local: bad extension header",
	errUnknownProtocol:   "ip-local: unknown protocol",
	errNoListener:        "udp-local: no listener",
	errSocketFull:        "udp-local: nobody reads fast enough",
	errTransportChecksum: "ip-local: bad transport checksum",
	errICMPLimit:         "icmp: error not sent, rate limit",
	errACL:               "acl-plugin: ACL deny packets",
	errFlows:             "acl-plugin: too many sessions to add new",
	errBFD:               "bfd: not acceptable, or of no session",
}

// Errors counts drops by cause since New; causes that never happened are not in it.
func (p *Plane) Errors() map[string]uint64 {
	out := map[string]uint64{}
	for i := range p.errors {
		if n := p.errors[i].Load(); n > 0 {
			out[causeNames[i]] = n
		}
	}
	return out
}
