package peering

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// This file is a peering as rlr's configuration has it: an interface, and neighbors.

// RLR returns our side for an rlr.
func (p Peering) RLR() []Part {
	return []Part{
		{Into: "interfaces", Text: p.tunnel()},
		{Into: "neighbors (of bgp)", Text: p.neighbors()},
	}
}

func (p Peering) tunnel() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("  %s:", yamlWord(p.Interface))
	line("    wireguard:")
	if p.Us.Port != 0 {
		line("      listen: \":%d\"", p.Us.Port)
	}
	line("      private-key-file: %s  # of the key whose public one is %s", yamlWord(p.Us.KeyFile), p.Us.PublicKey)
	if p.Us.PSKFile != "" {
		line("      preshared-key-file: %s  # the same on both sides", yamlWord(p.Us.PSKFile))
	}
	peer := []string{"public-key: " + quoted(p.Them.PublicKey)}
	if p.Them.Endpoint != "" {
		peer = append(peer, "endpoint: "+quoted(p.Them.Endpoint))
	}
	if p.Them.Endpoint != "" && p.Keepalive > 0 {
		peer = append(peer, fmt.Sprintf("keepalive: %ds", p.Keepalive/time.Second))
	}
	line("      peer: {%s}", strings.Join(peer, ", "))
	if a := p.Addresses(); len(a) > 0 {
		line("    addresses: %s", yamlList(a))
	}
	if p.Us.Loopback != "" {
		line("    unnumbered: %s  # the loopback with our addresses", yamlWord(p.Us.Loopback))
	}
	line("    mtu: %d", p.MTU)
	return b.String()
}

func (p Peering) neighbors() string {
	var b strings.Builder
	for i, s := range p.Sessions {
		line := func(format string, args ...any) { fmt.Fprintf(&b, "      "+format+"\n", args...) }
		fmt.Fprintf(&b, "    - name: %s\n", yamlWord(p.Neighbors[i]))
		line("address: %s", yamlWord(s.Theirs.String()))
		line("interface: %s", yamlWord(p.Interface))
		line("as: %d", p.Them.AS)
		line("families: [%s]", strings.Join(s.Families, ", "))
		line("import: %s", s.Policy)
		line("export: %s", s.Policy)
		if s.Policy == DN42Policy {
			line("max-prefix: %d", importLimit)
			if l := s.Link.yaml(); l != "" {
				line("dn42: {%s}", l)
			}
		}
	}
	return b.String()
}

func (l Link) yaml() string {
	var out []string
	for _, n := range []struct {
		key   string
		value uint16
	}{{"latency", l.Latency}, {"bandwidth", l.Bandwidth}, {"crypto", l.Crypto}} {
		if n.value != 0 {
			out = append(out, fmt.Sprintf("%s: %d", n.key, n.value))
		}
	}
	return strings.Join(out, ", ")
}

// plainWord is a text that YAML takes for a string without quotes, wherever it stands, unless it is one of yamlTypes.
var plainWord = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9._/-]*$|^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(/[0-9]+)?$`)

// yamlTypes are the words that mean something else than themselves, in YAML 1.1 or 1.2.
var yamlTypes = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}

func yamlWord(s string) string {
	if plainWord.MatchString(s) && !slices.Contains(yamlTypes, strings.ToLower(s)) {
		return s
	}
	return quoted(s)
}

// quoted writes a text in double quotes, with the configuration's own escape for dollar signs.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$", "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func yamlList(all []netip.Prefix) string {
	var words []string
	for _, p := range all {
		words = append(words, yamlWord(p.String()))
	}
	return "[" + strings.Join(words, ", ") + "]"
}
