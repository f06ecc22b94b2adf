package peering

import (
	"fmt"
	"net/netip"
	"time"
)

// This file is what DN42's networks have agreed on, from its wiki (howto/Bird2, howto/wireguard).

// Network is an address space, and the lengths of the prefixes in it that may be announced.
type Network struct {
	Prefix   netip.Prefix
	Min, Max int
}

// Networks are those of DN42, its anycast addresses, and the networks that it is connected to.
var Networks = []Network{
	{netip.MustParsePrefix("172.20.0.0/14"), 21, 29},
	{netip.MustParsePrefix("172.20.0.0/24"), 28, 32},
	{netip.MustParsePrefix("172.21.0.0/24"), 28, 32},
	{netip.MustParsePrefix("172.22.0.0/24"), 28, 32},
	{netip.MustParsePrefix("172.23.0.0/24"), 28, 32},
	{netip.MustParsePrefix("172.31.0.0/16"), 16, 32},
	{netip.MustParsePrefix("10.100.0.0/14"), 14, 32},
	{netip.MustParsePrefix("10.127.0.0/16"), 16, 32},
	{netip.MustParsePrefix("10.0.0.0/8"), 15, 24},
	{netip.MustParsePrefix("fd00::/8"), 44, 64},
}

// announceable reports whether DN42's networks accept a prefix.
func announceable(p netip.Prefix) bool {
	for _, n := range Networks {
		if n.Prefix.Contains(p.Addr()) && p.Bits() >= n.Min && p.Bits() <= n.Max {
			return true
		}
	}
	return false
}

// lastFour are the last four decimal digits of an AS number, by which DN42 derives ports and addresses.
func lastFour(as uint32) uint32 { return as % 10000 }

// PortFor is the UDP port at which a network listens for a peer: 2, and the last four digits of the peer's AS number.
func PortFor(peer uint32) uint16 { return uint16(20000 + lastFour(peer)) }

// LinkLocalOf is the link-local address of a network on all its tunnels: the last four digits of its AS number, as they are
// written. fe80:: itself is no router's own address (RFC 4291 §2.6.1), so 0000 has another digit before it.
func LinkLocalOf(as uint32) netip.Addr {
	digits := fmt.Sprintf("%04d", lastFour(as))
	if digits == "0000" {
		return netip.MustParseAddr("fe80::1:0")
	}
	return netip.MustParseAddr("fe80::" + digits)
}

// importLimit is more routes of a family than DN42 has, and fewer than a leak of the Internet.
const importLimit = 9000

// wireguardCrypto is the number of encryption with forward secrecy.
const wireguardCrypto = 34

// Defaults of a DN42 node: what the wiki's examples and most networks have.
const (
	DefaultMTU       = 1420 // bytes of an IP packet
	DefaultKeepalive = 25 * time.Second
	DefaultROA       = "https://dn42.burble.com/roa/dn42_roa_46.json"
)
