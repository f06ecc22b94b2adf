package plane

import (
	"fmt"
	"net/netip"
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func mustAddr(s string) netip.Addr     { return netip.MustParseAddr(s) }

var sprintf = fmt.Sprintf

func prefix24(a [16]byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte(a[:4])), 24) }
