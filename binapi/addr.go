package binapi

import (
	"net/netip"

	"go.fd.io/govpp/binapi/ethernet_types"
	"go.fd.io/govpp/binapi/ip_types"
)

// ToAddress converts to the API's address. A zone is lost; an invalid address becomes 0.0.0.0; an IPv4 address written as
// IPv6 (::ffff:1.2.3.4) stays IPv6.
func ToAddress(a netip.Addr) ip_types.Address {
	if a.Is6() {
		return ip_types.Address{Af: ip_types.ADDRESS_IP6, Un: ip_types.AddressUnionIP6(a.As16())}
	}
	return ip_types.Address{Af: ip_types.ADDRESS_IP4, Un: toUnion(a)}
}

// FromAddress converts from the API's address. It is invalid for a family that does not exist.
func FromAddress(a ip_types.Address) netip.Addr {
	switch a.Af {
	case ip_types.ADDRESS_IP4:
		return netip.AddrFrom4(a.Un.GetIP4())
	case ip_types.ADDRESS_IP6:
		return netip.AddrFrom16(a.Un.GetIP6())
	default:
		return netip.Addr{}
	}
}

// ToPrefix converts to the API's prefix, host bits as they are.
func ToPrefix(p netip.Prefix) ip_types.Prefix {
	return ip_types.Prefix{Address: ToAddress(p.Addr()), Len: uint8(max(p.Bits(), 0))}
}

// FromPrefix converts from the API's prefix, host bits as they are. It is invalid when the length or the family is.
func FromPrefix(p ip_types.Prefix) netip.Prefix {
	a := FromAddress(p.Address)
	if !a.IsValid() || int(p.Len) > a.BitLen() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, int(p.Len))
}

// ToAddressWithPrefix converts an interface's address with the length of its subnet.
func ToAddressWithPrefix(p netip.Prefix) ip_types.AddressWithPrefix {
	return ip_types.AddressWithPrefix(ToPrefix(p))
}

// FromAddressWithPrefix is the inverse of ToAddressWithPrefix; see FromPrefix for what is invalid.
func FromAddressWithPrefix(p ip_types.AddressWithPrefix) netip.Prefix {
	return FromPrefix(ip_types.Prefix(p))
}

// ToIP6 converts to the API's bare IPv6 address; anything else becomes ::.
func ToIP6(a netip.Addr) ip_types.IP6Address {
	if !a.Is6() {
		return ip_types.IP6Address{}
	}
	return ip_types.IP6Address(a.As16())
}

// FromIP6 converts from the API's bare IPv6 address.
func FromIP6(a ip_types.IP6Address) netip.Addr {
	return netip.AddrFrom16(a)
}

// ToMAC converts to the API's MAC address; anything that is not 6 bytes long becomes zero, for which VPP makes one up.
func ToMAC(mac []byte) ethernet_types.MacAddress {
	var m ethernet_types.MacAddress
	if len(mac) == len(m) {
		copy(m[:], mac)
	}
	return m
}

// toUnion places an address as the API's untagged union does: IPv4 in the first 4 of 16 bytes.
func toUnion(a netip.Addr) ip_types.AddressUnion {
	var u ip_types.AddressUnion
	switch {
	case a.Is4():
		u.SetIP4(a.As4())
	case a.Is6():
		u.SetIP6(a.As16())
	}
	return u
}
