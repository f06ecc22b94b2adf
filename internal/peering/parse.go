package peering

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// This file reads what a person says about a node: texts of flags and answers. Errors say what would be right; whoever asked
// knows for what.

// Lengths of names, as in the configuration: an interface's are Linux's.
const (
	maxRouterName    = 32
	maxInterfaceName = 15
)

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// CheckName reports what is wrong with a router's name.
func CheckName(s string) error {
	return checkName(s, maxRouterName)
}

// CheckPeerName reports what is wrong with the name of a peer, which its interface has too.
func CheckPeerName(s string) error {
	if slices.Contains(reservedNames, s) {
		return fmt.Errorf("a peer cannot be named %q: something else has that name", s)
	}
	return checkName(s, maxInterfaceName)
}

func checkName(s string, limit int) error {
	switch {
	case s == "":
		return errors.New("a name is a letter and then letters, digits, '.', '_' and '-', not nothing")
	case !strings.Contains(letters, s[:1]) || strings.Trim(s, letters+"0123456789._-") != "":
		return fmt.Errorf("a name is a letter and then letters, digits, '.', '_' and '-', not %q", s)
	case len(s) > limit:
		return fmt.Errorf("%q has %d characters, and at most %d fit", s, len(s), limit)
	case s == "links":
		return errors.New(`"links" is the name of the folder of cables beside the routers' own`)
	}
	return nil
}

// ParseAS reads an AS number, with or without "AS" before it.
func ParseAS(s string) (uint32, error) {
	digits := s
	if len(s) > 2 && strings.EqualFold(s[:2], "as") {
		digits = s[2:]
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("an AS number is from 1 to 4294967294, not %q", s)
	case n == 0, n == 23456, n == 1<<16-1, n == 1<<32-1: // RFC 7607, RFC 6793 §9, RFC 7300
		return 0, fmt.Errorf("AS %d is reserved, and nobody's", n)
	}
	return uint32(n), nil
}

// ParsePrefixes reads prefixes that are registered in DN42, separated by commas or spaces.
func ParsePrefixes(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, word := range words(s) {
		p, err := netip.ParsePrefix(word)
		switch {
		case err != nil:
			return nil, fmt.Errorf("a prefix is ADDRESS/LENGTH such as 172.20.1.0/27, not %q", word)
		case p != p.Masked():
			return nil, fmt.Errorf("%s has host bits set; the prefix is %s", p, p.Masked())
		case !announceable(p):
			return nil, fmt.Errorf("%s is nothing that DN42's networks accept: that is 172.20.0.0/14 with lengths 21 to 29, and fd00::/8 with 44 to 64", p)
		}
		for _, q := range out {
			if q.Overlaps(p) {
				return nil, fmt.Errorf("%s and %s overlap; name the registered one", q, p)
			}
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errors.New("a node announces one prefix at least, such as 172.20.1.0/27")
	}
	return out, nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// ParseAddresses reads the node's own addresses.
func ParseAddresses(s string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, word := range words(s) {
		a, err := netip.ParseAddr(word)
		if err != nil || a.Zone() != "" || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() {
			return nil, fmt.Errorf("an address of a node is one out of its prefixes, such as 172.20.1.1, not %q", word)
		}
		if slices.Contains(out, a) {
			return nil, fmt.Errorf("%s is there twice", a)
		}
		out = append(out, a)
	}
	return out, nil
}

// ParseLinkLocal reads a link-local address, perhaps with its prefix length.
func ParseLinkLocal(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSuffix(s, "/64"))
	if err != nil || !a.Is6() || !a.IsLinkLocalUnicast() || a.Zone() != "" || a == netip.MustParseAddr("fe80::") {
		return netip.Addr{}, fmt.Errorf("a link-local address is such as fe80::1234, not %q", s)
	}
	return a, nil
}

// ParseKey reads a WireGuard public key.
func ParseKey(s string) (string, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 || slices.Max(b) == 0 {
		return "", errors.New(`a WireGuard key is 44 characters of base64 that end in "=", as wg pubkey and rlr pubkey print it`)
	}
	return s, nil
}

// NoEndpoint is what is said of a peer that finds us, and not we it.
const NoEndpoint = "none"

// ParseEndpoint reads HOST:PORT, HOST or none. A host alone listens at the port that DN42's networks choose for us.
func ParseEndpoint(s string, port uint16) (string, error) {
	bad := fmt.Errorf("an endpoint is HOST:PORT such as peer.example.net:20207, a HOST that listens at port %d, or %s for a peer that connects to us; not %q", port, NoEndpoint, s)
	if s == NoEndpoint {
		return "", nil
	}
	name, p := s, strconv.Itoa(int(port))
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		name = a.String()
	} else if strings.Contains(s, ":") {
		if name, p, err = net.SplitHostPort(s); err != nil {
			return "", bad
		}
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || !isHost(name) {
		return "", bad
	}
	return net.JoinHostPort(name, p), nil
}

func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return !a.IsUnspecified() && !a.IsMulticast()
	}
	if s == "" || len(s) > 253 || strings.Contains(s, "..") || strings.ContainsAny(s[:1], ".-") {
		return false
	}
	return strings.Trim(s, letters+"0123456789._-") == "" && strings.ContainsAny(s, letters)
}

// ParsePort reads a UDP port.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("a port is a number from 1 to 65535, not %q", s)
	}
	return uint16(n), nil
}

// ParseROA reads the URL of a table of ROAs, or none.
func ParseROA(s string) (string, error) {
	switch {
	case s == NoEndpoint:
		return "", nil
	case strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://"):
		return s, nil
	}
	return "", fmt.Errorf("the ROAs come from a URL such as %s, or from %s; not %q", DefaultROA, NoEndpoint, s)
}
