package peering

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// This file is a peering as BIRD 2 and wg-quick have it.

// BIRD returns our side for a router with BIRD 2 and wg-quick. The block of BIRD stands alone: it needs no template and no
// filter of its configuration.
func (p Peering) BIRD() []Part {
	return []Part{
		{Into: "/etc/wireguard/" + p.Interface + ".conf (then: wg-quick up " + p.Interface + ")", Text: p.quick()},
		{Into: "bird.conf", Text: p.protocols()},
	}
}

func (p Peering) quick() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("[Interface]")
	line("# your private key, whose public one is %s", p.Us.PublicKey)
	line("PostUp = wg set %%i private-key /etc/wireguard/%s", p.Us.KeyFile)
	if p.Us.PSKFile != "" {
		line("# the preshared key, the same on both sides")
		line("PostUp = wg set %%i peer %s preshared-key /etc/wireguard/%s", p.Them.PublicKey, p.Us.PSKFile)
	}
	if p.Us.Port != 0 {
		line("ListenPort = %d", p.Us.Port)
	}
	for _, a := range p.Addresses() {
		line("Address = %s", a)
	}
	for _, s := range p.Sessions {
		if s.Bits == 0 {
			line("PostUp = ip address add %s peer %s dev %%i", host(s.Ours), host(s.Theirs))
		}
	}
	line("MTU = %d", p.MTU)
	line("Table = off")
	line("")
	line("[Peer]")
	line("PublicKey = %s", p.Them.PublicKey)
	if p.Them.Endpoint != "" {
		line("Endpoint = %s", p.Them.Endpoint)
	}
	if p.Them.Endpoint != "" && p.Keepalive > 0 {
		line("PersistentKeepalive = %d", p.Keepalive/time.Second)
	}
	line("AllowedIPs = 0.0.0.0/0, ::/0")
	return b.String()
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (p Peering) protocols() string {
	var b strings.Builder
	for i, s := range p.Sessions {
		if i > 0 {
			b.WriteByte('\n')
		}
		zone := ""
		if s.Theirs.IsLinkLocalUnicast() && s.Theirs.Is6() {
			zone = " % '" + p.Interface + "'"
		}
		fmt.Fprintf(&b, "protocol bgp %s {\n", birdSymbol(p.Neighbors[i]))
		fmt.Fprintf(&b, "\tlocal %s as %d;\n", s.Ours, p.Us.AS)
		fmt.Fprintf(&b, "\tneighbor %s%s as %d;\n", s.Theirs, zone, p.Them.AS)
		for _, f := range s.Families {
			p.channel(&b, s, f)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (p Peering) channel(b *strings.Builder, s Session, family string) {
	fmt.Fprintf(b, "\t%s {\n", family)
	if family == "ipv4" && s.Ours.Is6() {
		b.WriteString("\t\textended next hop on;\n") // RFC 8950
	}
	own := "source ~ [ RTS_STATIC, RTS_BGP ]" // not the kernel's, nor connected ones
	if s.Policy == DN42Policy {
		nets := birdSet(family)
		fmt.Fprintf(b, "\t\timport where net ~ %s;\n", nets)
		fmt.Fprintf(b, "\t\texport where %s && net ~ %s;\n", own, nets)
		fmt.Fprintf(b, "\t\timport limit %d action block;\n", importLimit)
	} else {
		b.WriteString("\t\timport all;\n")
		fmt.Fprintf(b, "\t\texport where %s;\n", own)
	}
	b.WriteString("\t};\n")
}

// birdSymbol makes a name one that BIRD takes without quotes.
func birdSymbol(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '.' {
			return '_'
		}
		return r
	}, name)
}

// birdSet is DN42's address space of a family.
func birdSet(family string) string {
	var all []string
	for _, n := range Networks {
		if n.Prefix.Addr().Is4() == (family == "ipv4") {
			all = append(all, fmt.Sprintf("%s{%d,%d}", n.Prefix, n.Min, n.Max))
		}
	}
	return "[ " + strings.Join(all, ", ") + " ]"
}
