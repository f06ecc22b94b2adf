package config

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (d *decoder) static(v value) Static {
	s := Static{}
	var actions []string
	d.mapping(v, staticSection, func(key string, v value) {
		switch key {
		case "prefix":
			if text, ok := d.text(v, "prefix must be a prefix"); ok {
				s.Prefix, _ = d.prefix(v, text, "prefix")
			}
		case "via":
			actions = append(actions, key)
			s.Action = Forward
			d.list(v, "via must be a list of next hops", func(_ int, v value) {
				s.Via = append(s.Via, d.nextHop(v))
			})
			if len(s.Via) == 0 && (v.isNull() || len(v.node.Content) == 0) {
				d.errorf(v, "via has no next hop; give at least one, or blackhole: true")
			}
		default:
			actions = append(actions, key)
			s.Action = Action(key)
			if !d.boolean(v, key) && v.node.Value == "false" {
				d.errorf(v, "%s: false says nothing; remove it", key)
			}
		}
	})
	if !d.has(v.path + "/prefix") {
		d.errorf(v, "the prefix of the route is missing; write prefix: 10.9.0.0/16")
	}
	switch len(actions) {
	case 0:
		d.errorf(v, "the route does nothing; give it one of via: [{address: …}], blackhole: true, unreachable: true or prohibit: true")
	case 1:
	default:
		d.errorf(v, "the route has %s at once; keep one of them", strings.Join(actions, " and "))
	}
	return s
}

func (d *decoder) nextHop(v value) NextHop {
	n := NextHop{Weight: 1}
	d.mapping(v, viaSection, func(key string, v value) {
		switch key {
		case "address":
			n.Address, _ = d.address(v, "address")
		case "interface":
			n.Interface, _ = d.text(v, "interface must be the name of an interface")
		case "weight":
			w, _ := d.number(v, "weight", 1, math.MaxUint8)
			n.Weight = uint8(w)
		}
	})
	if !d.has(v.path+"/address") && !d.has(v.path+"/interface") {
		d.errorf(v, "the next hop is empty; give it an address, an interface, or both")
	}
	return n
}

func (d *decoder) bgp(v value) BGP {
	b := BGP{Multipath: 1, Deferral: DefaultDeferral, Farewell: DefaultFarewell}
	var neighbors, dynamic []value // after the groups that they refer to
	d.mapping(v, bgpSection, func(key string, v value) {
		switch key {
		case "originate":
			d.words(v, "originate must be a list of prefixes", func(_ int, v value, s string) {
				var p netip.Prefix
				if s != "" {
					p, _ = d.prefix(v, s, "a prefix of originate")
				}
				b.Originate = append(b.Originate, p)
			})
		case "redistribute":
			b.Redistribute = d.redistribute(v)
		case "multipath":
			n, _ := d.number(v, "multipath", 1, 64)
			b.Multipath = int(n)
		case "cluster-id":
			b.ClusterID = d.identifier(v, "cluster-id")
		case "deferral":
			b.Deferral = d.duration(v, key, time.Second, maxTimer, time.Second)
		case "graceful-shutdown":
			b.Farewell = d.duration(v, key, 0, time.Minute, time.Millisecond)
		case "ebgp-requires-policy":
			before := len(d.errs)
			b.PolicyOptional = !d.boolean(v, key) && len(d.errs) == before
		case "dn42":
			b.DN42 = d.dn42(v)
		case "neighbors":
			neighbors = append(neighbors, v)
		case "groups":
			b.Groups = d.groups(v)
		case "dynamic":
			dynamic = append(dynamic, v)
		}
	})
	for _, v := range neighbors {
		d.list(v, "neighbors must be a list of neighbors", func(_ int, v value) {
			b.Neighbors = append(b.Neighbors, d.neighbor(v, b.Groups))
		})
	}
	for _, v := range dynamic {
		d.list(v, "dynamic must be a list of prefixes with their groups", func(_ int, v value) {
			b.Dynamic = append(b.Dynamic, d.dynamic(v, b.Groups))
		})
	}
	return b
}

func (d *decoder) redistribute(v value) (r Redistribute) {
	d.mapping(v, redistributeSection, func(key string, v value) {
		switch key {
		case "static":
			r.Static = d.boolean(v, "static")
			return
		case "learned":
			r.Learned = d.boolean(v, "learned")
			return
		}
		if v.node.Kind == scalarNode && !v.isNull() {
			if s, _ := expand(v.node.Value, d.opt.env); s.text == string(All) {
				r.Connected.All = true
				return
			}
		}
		d.words(v, "connected must be all or a list of interfaces", func(_ int, _ value, s string) {
			r.Connected.Interfaces = append(r.Connected.Interfaces, s)
		})
	})
	return r
}

// Limits of a neighbour's timers: 16 bits of seconds (RFC 4271 §4.2).
const maxTimer = math.MaxUint16 * time.Second

// neighbor decodes a neighbour: its group's settings, and over them its own.
func (d *decoder) neighbor(v value, groups []Group) Neighbor {
	n := d.fromGroup(v, groups)
	d.neighborSettings(v, neighborSection, &n)
	d.neighborMissing(v, n)
	return n
}

// neighborSettings decodes what a neighbour and a group have.
func (d *decoder) neighborSettings(v value, s *section, n *Neighbor) {
	d.mapping(v, s, func(key string, v value) {
		switch key {
		case "name":
			n.Name = d.name(v, "a neighbor", maxName)
		case "description":
			n.Description, _ = d.text(v, "description must be a text")
		case "disabled":
			n.Disabled = d.boolean(v, key)
		case "address":
			n.Address = d.neighborAddress(v)
		case "interface":
			n.Interface, _ = d.text(v, "interface must be the name of an interface")
		case "as":
			n.AS, n.External = d.neighborAS(v)
		case "local-address":
			n.LocalAddress, _ = d.address(v, "local-address")
		case "passive":
			n.Passive = d.boolean(v, key)
		case "next-hop-self":
			n.NextHopSelf = d.boolean(v, key)
		case "route-reflector-client":
			n.RouteReflectorClient = d.boolean(v, key)
		case "multihop":
			n.Multihop = d.boolean(v, key)
		case "hold-time":
			n.HoldTime = d.duration(v, "hold-time", 0, maxTimer, time.Second)
			if n.HoldTime > 0 && n.HoldTime < 3*time.Second { // RFC 4271 §4.2
				d.errorf(v, "hold-time must be 0 (never) or from 3s to %s, not %s", formatDuration(maxTimer), formatDuration(n.HoldTime))
			}
		case "connect-retry":
			n.ConnectRetry = d.duration(v, "connect-retry", time.Second, maxTimer, time.Second)
		case "families":
			n.Families = nil
			d.families(v, n)
		case "import":
			n.Import, n.FamilyImport = d.policy(v, key)
		case "export":
			n.Export, n.FamilyExport = d.policy(v, key)
		case "dn42":
			n.DN42 = d.dn42Link(v)
		case "graceful-restart":
			n.GracefulRestart = d.gracefulRestart(v)
		case "group":
			n.Group, _ = d.text(v, "group must be the name of a group")
		default:
			d.session(key, v, n)
		}
	})
}

// Limits of the times of graceful restart: 12 bits (RFC 4724 §3) and 24 bits (RFC 9494 §3) of seconds.
const (
	maxRestartTime = (1<<12 - 1) * time.Second
	maxLongLived   = (1<<24 - 1) * time.Second
)

// gracefulRestart decodes a mode, or a mapping of all.
func (d *decoder) gracefulRestart(v value) GracefulRestart {
	g := DefaultGracefulRestart
	mode := func(v value, key string) {
		g.Mode = GracefulMode(d.choice(v, key, string(GracefulOn), string(GracefulHelper), string(GracefulOff)))
	}
	if v.node.Kind == scalarNode && !v.isNull() {
		mode(v, "graceful-restart")
		return g
	}
	d.mapping(v, gracefulSection, func(key string, v value) {
		switch key {
		case "mode":
			mode(v, key)
		case "restart-time":
			g.RestartTime = d.duration(v, key, time.Second, maxRestartTime, time.Second)
		case "stale-time":
			g.StaleTime = d.duration(v, key, time.Second, maxTimer, time.Second)
		case "long-lived":
			g.LongLived = d.duration(v, key, 0, maxLongLived, time.Second)
		}
	})
	if g.Mode == GracefulOff && g.LongLived > 0 {
		d.errorPath(v.path+"/long-lived", "long-lived needs graceful restart (RFC 9494); write mode: on or mode: helper, or remove it")
	}
	return g
}

// neighborMissing reports the keys that a neighbour must have.
func (d *decoder) neighborMissing(v value, n Neighbor) {
	for _, key := range []string{"name", "as"} {
		if !d.has(v.path+"/"+key) && !d.has(join("bgp/groups", n.Group, key)) {
			d.errorf(v, "the %s of the neighbor is missing%s", key, map[string]string{
				"name": "; write name: and a word by which commands and logs call it",
				"as":   "; write as: and its number, as: internal, or as: external for any other",
			}[key])
		}
	}
	if !d.has(v.path+"/address") && !d.has(v.path+"/interface") {
		d.errorf(v, "the address of the neighbor is missing; write address: 169.254.12.2, or address: fe80::2 and interface: NAME, or interface: NAME alone to find it there")
	}
}

func (d *decoder) neighborAddress(v value) netip.Addr {
	a, ok := d.address(v, "address")
	if ok && (a.IsUnspecified() || a.IsMulticast() || a.IsLoopback()) {
		d.errorf(v, "%s is not the address of a neighbor; sessions run to unicast addresses of other routers", a)
		return netip.Addr{}
	}
	return a
}

// asInternal stands for the router's own number until the whole file is read.
const asInternal = math.MaxUint32

func (d *decoder) neighborAS(v value) (as uint32, external bool) {
	if v.node.Kind == scalarNode {
		switch r, _ := expand(v.node.Value, d.opt.env); r.text {
		case "internal":
			return asInternal, false
		case "external":
			return 0, true
		}
	}
	return d.as(v, "as must be a number from 1 to 4294967294, internal or external"), false
}

func (d *decoder) families(v value, n *Neighbor) {
	d.words(v, "families must be a list of ipv4 and ipv6", func(_ int, v value, s string) {
		f := Family(s)
		switch {
		case s == "":
		case f != IPv4 && f != IPv6:
			d.errorf(v, "a family is ipv4 or ipv6, not %q", shorten(s))
		default:
			if slices.Contains(n.Families, f) {
				d.errorf(v, "family %s is here twice; remove one", f)
				return
			}
			n.Families = append(n.Families, f)
		}
	})
	slices.Sort(n.Families) // their order says nothing
	if len(n.Families) == 0 && (v.isNull() || v.node.Kind == sequenceNode && len(v.node.Content) == 0) {
		d.errorf(v, "families is empty; write [ipv4], [ipv6] or [ipv4, ipv6]")
	}
}

// policy decodes import and export: a policy's name, or one for each family.
func (d *decoder) policy(v value, key string) (all Policy, of map[Family]Policy) {
	what := key + " must be all, none, dn42, the name of a policy, or {ipv4: …, ipv6: …}"
	if v.node.Kind != mappingNode {
		s, _ := d.text(v, what)
		return Policy(s), nil
	}
	of = map[Family]Policy{}
	d.mapping(v, familyPolicySection, func(family string, v value) {
		s, _ := d.text(v, key+" of "+family+" must be all, none, dn42 or the name of a policy")
		of[Family(family)] = Policy(s)
	})
	return "", of
}
