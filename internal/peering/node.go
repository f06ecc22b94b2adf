package peering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Node is a DN42 router with its first peer. Complete fills in what has a default.
type Node struct {
	Name      string
	AS        uint32
	Prefixes  []netip.Prefix
	Addresses []netip.Addr // the node's own
	LinkLocal netip.Addr   // on all its tunnels
	KeyFile   string       // of the WireGuard key, as the configuration names it
	PublicKey string       // of the same
	Listen    uint16       // for the first peer
	ROA       string       // a URL; "": routes are not validated

	Peer        Side
	PeerAddress netip.Addr // link-local
}

// loopback is the interface with a node's own addresses.
const loopback = "dum0"

// Complete fills in what has not been said and follows from the rest. Error: what was said does not go together.
func (n *Node) Complete() error {
	if len(n.Addresses) == 0 {
		for _, p := range n.Prefixes {
			n.Addresses = append(n.Addresses, firstAddress(p))
		}
	}
	for _, a := range n.Addresses {
		if !slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return fmt.Errorf("the address %s is in none of the prefixes of the node", a)
		}
	}
	if !n.LinkLocal.IsValid() {
		n.LinkLocal = LinkLocalOf(n.AS)
	}
	if n.LinkLocal == n.PeerAddress {
		return fmt.Errorf("%s would be the link-local address of both sides; choose another for ours by --link-local", n.LinkLocal)
	}
	if n.Listen == 0 {
		n.Listen = PortFor(n.Peer.AS)
	}
	if n.Peer.Name == "" {
		n.Peer.Name = fmt.Sprintf("as%d", n.Peer.AS)
	}
	if n.Peer.AS == n.AS {
		return errors.New("the peer has our own AS number; a peer is another network")
	}
	if n.PublicKey != "" && n.PublicKey == n.Peer.PublicKey {
		return errors.New("the peer's public key is our own")
	}
	return nil
}

// firstAddress is the first of a prefix that a router can have.
func firstAddress(p netip.Prefix) netip.Addr {
	if p.IsSingleIP() {
		return p.Addr()
	}
	return p.Addr().Next()
}

// Peering is that with the first peer.
func (n *Node) Peering() Peering {
	them := n.Peer
	them.KeyFile, them.Loopback = them.Name+".key", loopback
	return Peering{
		Interface: n.Peer.Name, Neighbors: []string{n.Peer.Name}, Them: them,
		Us: Side{
			Name: NameFor(n.Name, n.AS), AS: n.AS, PublicKey: n.PublicKey, KeyFile: n.KeyFile, Port: n.Listen, Loopback: loopback,
		},
		MTU: DefaultMTU, Keepalive: DefaultKeepalive,
		Sessions: []Session{{
			Ours: n.LinkLocal, Theirs: n.PeerAddress, Bits: 64, Families: []string{"ipv4", "ipv6"}, Policy: DN42Policy,
			Link: Link{Crypto: wireguardCrypto},
		}},
	}
}

// Config returns the node's configuration.
func (n *Node) Config() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p := n.Peering()
	line("# A DN42 node, written by `rlr init dn42`. Every key is explained in docs/configuration.md and rlr.yaml(5).")
	line("# After a change: `rlr check -c FILE` says what is wrong, and `rlr reload` applies the difference.")
	line("")
	line("router:")
	line("  name: %s", yamlWord(n.Name))
	line("  as: %d", n.AS)
	line("  id: %s  # any four bytes that no other router of the AS has", n.id())
	line("")
	line("# Links to other networks.")
	line("interfaces:")
	line("  # The node's own addresses. Tunnels borrow them: what the node itself sends, comes from here.")
	line("  %s:", loopback)
	line("    loopback: true")
	line("    addresses: %s", yamlList(n.hosts()))
	line("")
	line("  # One tunnel for each peer. DN42's networks listen at 2 and the last four digits of the peer's AS number, and have the")
	line("  # last four digits of their own as link-local address on all tunnels. `rlr peer %s` prints the peer's side.", p.Interface)
	b.WriteString(p.tunnel())
	line("")
	line("# What is announced needs an end: packets to addresses of ours that nobody has are dropped here, and do not wander.")
	line("static:")
	for _, x := range n.Prefixes {
		line("  - {prefix: %s, blackhole: true}", yamlWord(x.String()))
	}
	line("")
	if n.ROA != "" {
		line("# Which AS may announce which prefix. drop-invalid refuses what contradicts the registry; strict, all that is not in it.")
		line("roa:")
		line("  urls: [%s]", quoted(n.ROA))
		line("  refresh: 15m")
		line("  policy: drop-invalid")
		line("")
	}
	line("bgp:")
	line("  # The registered prefixes.")
	line("  originate: %s", yamlList(n.Prefixes))
	line("  # One session for each peer carries IPv4 and IPv6. The policy dn42 lets through what DN42's networks expect of each other;")
	line("  # dn42 says what the link is like, by the numbers of the wiki: {latency: 3, bandwidth: 24, crypto: 34} for 20 ms, 100 Mb/s.")
	line("  neighbors:")
	b.WriteString(p.neighbors())
	return b.String()
}

// id is the first IPv4 address, or made of the AS number, which is as unique.
func (n *Node) id() netip.Addr {
	for _, a := range n.Addresses {
		if a.Is4() {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{byte(n.AS >> 24), byte(n.AS >> 16), byte(n.AS >> 8), byte(n.AS)})
}

func (n *Node) hosts() []netip.Prefix {
	var out []netip.Prefix
	for _, a := range n.Addresses {
		out = append(out, host(a))
	}
	return out
}
