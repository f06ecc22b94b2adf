package config

import (
	"net/netip"
	"slices"
)

// reservedNames are what `show protocols` calls the other sources of routes.
var reservedNames = []string{"all", "direct", "static", "bgp", "learned", "grpc"}

func (d *decoder) checkBGP(c *Config, own map[netip.Addr]string) {
	b := &c.BGP
	if (len(b.Neighbors)+len(b.Dynamic) > 0 || len(b.Originate) > 0) && !d.has("router/as") {
		d.errorKey("bgp", "BGP needs our AS number; write router: {as: NUMBER}")
	}
	if len(b.Neighbors)+len(b.Dynamic) > 0 && !c.Router.ID.IsValid() && !d.has("router/id") {
		d.errorKey("bgp", "BGP needs a router ID, and no interface has an IPv4 address to take it from; write router: {id: 10.1.0.1}")
	}
	if !b.ClusterID.IsValid() {
		b.ClusterID = c.Router.ID // RFC 4456 §7
	}
	seen := map[netip.Prefix]bool{}
	for i, p := range b.Originate {
		if !p.IsValid() || p != p.Masked() {
			continue
		}
		d.checkRouted(join("bgp/originate", i), p)
		if seen[p] {
			d.errorPath(join("bgp/originate", i), "%s is here twice; remove one", p)
		}
		seen[p] = true
	}
	chosen := map[string]bool{}
	for i, name := range b.Redistribute.Connected.Interfaces {
		if chosen[name] {
			d.errorPath(join("bgp/redistribute/connected", i), "interface %q is here twice; remove one", shorten(name))
		}
		chosen[name] = true
	}
	if b.Redistribute.Learned && !c.Dataplane.Learn {
		d.errorPath("bgp/redistribute/learned", "nothing is learned from the dataplane; write learn: true into dataplane, or remove it")
	}
	d.checkNeighborNames(b.Neighbors)
	for i := range b.Neighbors {
		d.checkNeighbor(c, join("bgp/neighbors", i), &b.Neighbors[i], own)
		d.checkSession(c, join("bgp/neighbors", i), &b.Neighbors[i])
	}
	d.checkGroups(c)
	d.checkDynamic(c, own)
	d.checkPolicies(c)
}

func (d *decoder) checkNeighborNames(all []Neighbor) {
	type place struct {
		addr  netip.Addr
		iface string
	}
	names, places := map[string]int{}, map[place]string{}
	for i, n := range all {
		path := join("bgp/neighbors", i)
		if first, dup := names[n.Name]; dup && n.Name != "" {
			d.errorPath(path+"/name", "neighbor %s is here twice; the first one is on line %d: choose another name", n.Name, d.marks[join("bgp/neighbors", first)].line)
		} else {
			names[n.Name] = i
		}
		if slices.Contains(reservedNames, n.Name) {
			d.errorPath(path+"/name", "a neighbor cannot be named %q: commands call another source of routes so", n.Name)
		}
		if !n.Address.IsValid() && (d.has(path+"/address") || n.Interface == "") {
			continue
		}
		p := place{addr: n.Address}
		if !n.Address.IsValid() {
			p.iface = n.Interface
			if first, dup := places[p]; dup {
				d.errorPath(path+"/interface", "interface %s is neighbor %s's already, which has no address either; give both their addresses, or remove one", n.Interface, first)
				continue
			}
			places[p] = n.Name
			continue
		}
		if isLinkLocal6(n.Address) {
			p.iface = n.Interface
		}
		if first, dup := places[p]; dup {
			d.errorPath(path+"/address", "%s is the address of neighbor %s already; one session carries all families: remove one", describe(n.Address, n.Interface), first)
		} else {
			places[p] = n.Name
		}
	}
}

// checkNeighbor is about the neighbour's place.
func (d *decoder) checkNeighbor(c *Config, path string, n *Neighbor, own map[netip.Addr]string) {
	iface, known := d.iface(c, n.Interface)
	if known && iface.Loopback {
		d.errorPath(path+"/interface", "%s is a loopback, and no neighbor is there; name the interface that leads to it", n.Interface)
	}
	a := n.Address
	if !a.IsValid() {
		if !d.has(path + "/address") {
			d.checkFound(path, n, iface)
		}
		return
	}
	at := path + "/address"
	external := n.AS != asInternal && n.AS != c.Router.AS
	switch owner, ours := own[a]; {
	case ours:
		d.errorPath(at, "%s is our own address, on interface %s; write the neighbor's", a, owner)
	case known && isLinkLocal6(a) && a == iface.LinkLocal():
		d.errorPath(at, "%s is our own address on interface %s; write the neighbor's", a, iface.Name)
	case isLinkLocal6(a) && !d.has(path+"/interface"):
		d.errorPath(at, "%s is link-local, and could be on any interface; say on which by interface: NAME", a)
	case n.BFD != BFD{} && n.Multihop:
		d.errorPath(path+"/bfd", "BFD over several hops (RFC 5883) is not available: remove bfd, or multihop")
	case isLinkLocal6(a) && n.Multihop:
		d.errorPath(path+"/multihop", "a link-local neighbor is on the link itself; remove multihop")
	case !isLinkLocal6(a) && external && !n.Multihop && !d.has(path+"/multihop") && !d.onLink(c, a, n.Interface):
		d.errorPath(at, "%s", offLink(a, n.Interface))
	}
	d.checkLocalAddress(c, path, n, iface, own)
}

func offLink(a netip.Addr, iface string) string {
	if iface == "" {
		return a.String() + " is in no subnet of an interface; set multihop: true if other routers are between, or give an interface an address beside it"
	}
	return a.String() + " is in no subnet of interface " + shorten(iface) + "; set multihop: true if other routers are between, or give the interface an address beside it"
}

// onLink reports whether an address is on a connected subnet, or on one that a static route, by interface alone, or an
// unnumbered interface that the neighbour names, declares to be so. An interface that does not exist is an error of its own.
func (d *decoder) onLink(c *Config, a netip.Addr, iface string) bool {
	if iface != "" {
		if i, ok := d.iface(c, iface); !ok || i.Unnumbered != "" {
			return true
		}
	}
	for _, i := range c.Interfaces {
		if iface != "" && i.Name != iface {
			continue
		}
		for _, p := range i.Addresses {
			if !p.IsValid() || p.Contains(a) { // an invalid one could have been the one
				return true
			}
		}
	}
	for _, s := range c.Static {
		for _, n := range s.Via {
			if !n.Address.IsValid() && n.Interface != "" && (iface == "" || iface == n.Interface) && s.Prefix.IsValid() && s.Prefix.Contains(a) {
				return true
			}
		}
	}
	return false
}

func (d *decoder) checkLocalAddress(c *Config, path string, n *Neighbor, iface Interface, own map[netip.Addr]string) {
	l, at := n.LocalAddress, path+"/local-address"
	if !l.IsValid() {
		return
	}
	_, ours := own[l]
	switch {
	case l.Is4() != n.Address.Is4():
		d.errorPath(at, "local-address %s and the neighbor's %s are of different families; use one of ours of the same", l, n.Address)
	case isLinkLocal6(l) != isLinkLocal6(n.Address):
		d.errorPath(at, "local-address %s and the neighbor's %s must both be link-local, or neither", l, n.Address)
	case isLinkLocal6(l) && l != iface.LinkLocal():
		d.errorPath(at, "local-address %s is not an address of interface %s; %s", l, shorten(n.Interface), d.addressesOf(own, iface, l))
	case !isLinkLocal6(l) && !ours:
		d.errorPath(at, "local-address %s is not an address of any interface; %s", l, d.addressesOf(own, iface, l))
	}
}

// addressesOf lists which addresses of ours a session could have instead of l.
func (d *decoder) addressesOf(own map[netip.Addr]string, iface Interface, l netip.Addr) string {
	if isLinkLocal6(l) {
		if a := iface.LinkLocal(); a.IsValid() {
			return "it has " + a.String()
		}
		return "give it that address, or remove local-address"
	}
	var there []string
	for a := range own {
		if a.Is4() == l.Is4() {
			there = append(there, a.String())
		}
	}
	return d.exists("address of that family", l.String(), there)
}

// checkSession is about the session's settings, and fills in those that depend on others.
func (d *decoder) checkSession(c *Config, path string, n *Neighbor) {
	if n.AS == asInternal {
		n.AS = c.Router.AS
	}
	internal := n.AS == c.Router.AS
	if n.RouteReflectorClient && !internal && n.AS != 0 && c.Router.AS != 0 {
		d.errorPath(path+"/route-reflector-client", "a client of a route reflector is in our own AS %d, and this neighbor is in %d (RFC 4456); remove it", c.Router.AS, n.AS)
	}
	if len(n.Families) == 0 && !d.has(path+"/address") {
		n.Families = []Family{IPv4, IPv6}
	}
	if len(n.Families) == 0 && n.Address.IsValid() {
		n.Families = []Family{IPv6}
		if n.Address.Is4() {
			n.Families = []Family{IPv4}
		}
	}
	d.checkSessionKeys(path, n, internal)
	// RFC 8212 §2: an external session without a policy carries nothing.
	otherwise := None
	if internal || c.BGP.PolicyOptional {
		otherwise = All
	}
	if n.Import == "" {
		n.Import = otherwise
	}
	if n.Export == "" {
		n.Export = otherwise
	}
}
