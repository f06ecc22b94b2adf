package main

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"rlr/internal/cli"
	"rlr/internal/config"
	"rlr/internal/peering"
	"rlr/wg"
)

// This file makes peerings of a configuration, for `rlr peer`.

// peerings are those of a configuration file, in the order of its interfaces.
func peerings(path string) ([]peering.Peering, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	cfg, err := loadConfig(path)
	var mistakes config.Errors
	switch {
	case errors.As(err, &mistakes):
		return nil, cli.Problems(problems(mistakes))
	case err != nil:
		return nil, err
	}
	var out []peering.Peering
	for _, i := range cfg.Interfaces {
		if i.WireGuard == nil {
			continue
		}
		if p := peeringOn(cfg, i); len(p.Sessions) > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

// peeringOn is the tunnel with the sessions that are known to be on it. One whose neighbour has no address cannot be told of.
func peeringOn(cfg *config.Config, i config.Interface) peering.Peering {
	w := i.WireGuard
	p := peering.Peering{
		Interface: i.Name, MTU: i.MTU, Keepalive: w.Peer.Keepalive,
		Us: peering.Side{
			Name: peering.NameFor(cfg.Router.Name, cfg.Router.AS), AS: cfg.Router.AS,
			PublicKey: wg.PrivateKey(w.PrivateKey.Key()).Public().String(), Port: w.Listen.Port(),
		},
		Them: peering.Side{PublicKey: w.Peer.PublicKey.String(), Endpoint: w.Peer.Endpoint, Loopback: i.Unnumbered},
	}
	if w.Peer.Endpoint == "" && p.Keepalive == 0 {
		p.Keepalive = peering.DefaultKeepalive // the peer finds us, perhaps through a NAT
	}
	if a := w.Listen.Addr(); a.IsValid() && !a.IsUnspecified() {
		p.Us.Endpoint = w.Listen.String()
	}
	if _, port, err := net.SplitHostPort(w.Peer.Endpoint); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16) // checked by the configuration
		p.Them.Port = uint16(n)
	}
	for _, n := range cfg.BGP.Neighbors {
		on, found := interfaceTowards(cfg, n)
		if !found || on.Name != i.Name || n.Multihop || !n.Address.IsValid() {
			continue
		}
		s, ok := sessionOn(cfg, i, n)
		if !ok {
			continue
		}
		if len(p.Sessions) == 0 {
			p.Them.Name, p.Them.AS = n.Name, n.AS
			p.Them.KeyFile = n.Name + ".key" // our best guess; it is their affair
			if w.PresharedKey.IsSet() {
				p.Them.PSKFile = n.Name + ".psk"
			}
		}
		p.Sessions = append(p.Sessions, s)
		p.Neighbors = append(p.Neighbors, n.Name)
	}
	return p
}

func sessionOn(cfg *config.Config, i config.Interface, n config.Neighbor) (peering.Session, bool) {
	s := peering.Session{Theirs: n.Address, Policy: peering.AllPolicy}
	for _, f := range n.Families {
		s.Families = append(s.Families, string(f))
	}
	policies := slices.Concat([]config.Policy{n.Import, n.Export}, slices.Collect(maps.Values(n.FamilyImport)), slices.Collect(maps.Values(n.FamilyExport)))
	if slices.Contains(policies, config.PolicyDN42) {
		s.Policy = peering.DN42Policy
		s.Link = peering.Link{Latency: n.DN42.Latency, Bandwidth: n.DN42.Bandwidth, Crypto: n.DN42.Crypto}
	}
	switch {
	case n.Address.Is6() && n.Address.IsLinkLocalUnicast():
		s.Ours, s.Bits = linkLocal(cfg, i), 64
	default:
		s.Ours, s.Bits = addressTowards(cfg, i, n.Address)
	}
	if n.LocalAddress.IsValid() {
		s.Ours = n.LocalAddress
	}
	return s, s.Ours.IsValid()
}

// addressTowards is our address in the subnet that an address of a neighbour is in, and the length of that subnet's prefix. On an
// interface that borrows its addresses it is a borrowed one, and the length 0.
func addressTowards(cfg *config.Config, i config.Interface, a netip.Addr) (netip.Addr, int) {
	for _, p := range i.Addresses {
		if p.Masked().Contains(a) {
			return p.Addr(), p.Bits()
		}
	}
	lender, _ := cfg.Interface(i.Unnumbered)
	at := slices.IndexFunc(lender.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() && !p.Addr().IsLinkLocalUnicast() })
	if at < 0 {
		return netip.Addr{}, 0
	}
	return lender.Addresses[at].Addr(), 0
}
