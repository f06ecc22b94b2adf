package config

import (
	"math"
	"slices"
	"time"
)

// This file decodes what a neighbour says of its session besides addresses and timers, and checks it.

// session decodes a key of a neighbour's.
func (d *decoder) session(key string, v value, n *Neighbor) {
	switch key {
	case "bfd":
		n.BFD = d.bfd(v)
	case "max-prefix":
		d.maxPrefix(v, n)
	case "add-path":
		n.AddPath = d.addPath(v)
	case "allow-own-as":
		count, _ := d.number(v, key, 0, 10)
		n.AllowOwnAS = uint8(count)
	case "role":
		d.role(v, n)
	}
}

// Limits of BFD's timers. VPP takes shorter ones; what a process that shares its cores can hold, it does not.
const (
	minBFDInterval = 10 * time.Millisecond
	maxBFDInterval = 30 * time.Second
)

const bfdForms = "bfd must be true, false, or a mapping like {interval: 50ms, multiplier: 3}"

// bfd decodes true, false, or a mapping.
func (d *decoder) bfd(v value) BFD {
	if v.node.Kind == scalarNode && !v.isNull() {
		switch text, ok := d.text(v, bfdForms); {
		case text == "true":
			return DefaultBFD
		case text != "false" && ok:
			d.errorf(v, "%s, not %q", bfdForms, shorten(text))
		}
		return BFD{}
	}
	b := DefaultBFD
	d.mapping(v, bfdSection, func(key string, v value) {
		switch key {
		case "interval":
			b.Interval = d.duration(v, key, minBFDInterval, maxBFDInterval, time.Millisecond)
		case "multiplier":
			n, _ := d.number(v, key, 1, math.MaxUint8)
			b.Multiplier = uint8(n)
		}
	})
	return b
}

// maxPrefix decodes a number for both families, or a mapping of families.
func (d *decoder) maxPrefix(v value, n *Neighbor) {
	n.MaxPrefix4, n.MaxPrefix6 = PrefixLimit{}, PrefixLimit{} // of a group, whose value this one replaces
	if v.node.Kind == scalarNode && !v.isNull() {
		n.MaxPrefix4 = d.prefixLimit(v, "max-prefix")
		n.MaxPrefix6 = n.MaxPrefix4
		return
	}
	d.mapping(v, maxPrefixSection, func(key string, v value) {
		if key == "ipv4" {
			n.MaxPrefix4 = d.prefixLimit(v, key)
		} else {
			n.MaxPrefix6 = d.prefixLimit(v, key)
		}
	})
	if !d.has(v.path+"/ipv4") && !d.has(v.path+"/ipv6") {
		d.errorf(v, "max-prefix is empty; write a number, or {ipv4: NUMBER, ipv6: NUMBER}")
	}
}

// prefixLimit decodes a number, or a mapping of all.
func (d *decoder) prefixLimit(v value, key string) PrefixLimit {
	l := PrefixLimit{Action: LimitBlock, RestartAfter: DefaultRestartAfter}
	if v.node.Kind == scalarNode && !v.isNull() {
		max, _ := d.number(v, key, 1, math.MaxInt32)
		l.Limit = int(max)
		return l
	}
	d.mapping(v, prefixLimitSection, func(key string, v value) {
		switch key {
		case "limit":
			max, _ := d.number(v, key, 1, math.MaxInt32)
			l.Limit = int(max)
		case "action":
			l.Action = LimitAction(d.choice(v, key, string(LimitBlock), string(LimitWarn), string(LimitRestart)))
		case "restart-after":
			l.RestartAfter = d.duration(v, key, time.Second, maxTimer, time.Second)
		}
	})
	switch {
	case !d.has(v.path + "/limit"):
		d.errorf(v, "the limit is missing; write limit: and the most prefixes that are let in")
	case d.has(v.path+"/restart-after") && l.Action != LimitRestart:
		d.errorPath(v.path+"/restart-after", "restart-after is for action: restart; write that, or remove it")
	}
	return l
}

// addPath decodes a mode, or a mapping of all.
func (d *decoder) addPath(v value) AddPath {
	a := AddPath{SendMax: DefaultSendMax}
	mode := func(v value, key string) {
		a.Mode = AddPathMode(d.choice(v, key, string(AddPathReceive), string(AddPathSend), string(AddPathBoth)))
	}
	if v.node.Kind == scalarNode && !v.isNull() {
		mode(v, "add-path")
	} else {
		d.mapping(v, addPathSection, func(key string, v value) {
			switch key {
			case "mode":
				mode(v, key)
			case "send-max":
				max, _ := d.number(v, key, 1, math.MaxUint8)
				a.SendMax = uint8(max)
			}
		})
		if !d.has(v.path + "/mode") {
			d.errorf(v, "the mode of add-path is missing; write mode: receive, send or both")
		}
		if d.has(v.path+"/send-max") && a.Mode == AddPathReceive {
			d.errorPath(v.path+"/send-max", "send-max is for paths that we send; write mode: both, or remove it")
		}
	}
	if a.Mode == AddPathReceive {
		a.SendMax = 0
	}
	return a
}

// role decodes ours, or a mapping of all.
func (d *decoder) role(v value, n *Neighbor) {
	n.Role, n.StrictRole = "", false
	name := func(v value, key string) {
		n.Role = BGPRole(d.choice(v, key, string(RoleProvider), string(RoleCustomer), string(RolePeer), string(RoleRS), string(RoleRSClient)))
	}
	if v.node.Kind == scalarNode && !v.isNull() {
		name(v, "role")
		return
	}
	d.mapping(v, roleSection, func(key string, v value) {
		switch key {
		case "name":
			name(v, key)
		case "strict":
			n.StrictRole = d.boolean(v, key)
		}
	})
	if !d.has(v.path + "/name") {
		d.errorf(v, "the name of the role is missing; write name: provider, customer, peer, rs or rs-client")
	}
}

// checkSessionKeys is about what the values mean together.
func (d *decoder) checkSessionKeys(path string, n *Neighbor, internal bool) {
	if n.Role != "" && internal {
		d.errorPath(path+"/role", "a role is one towards another AS (RFC 9234), and this neighbor is in ours; remove it")
	}
	for _, f := range []struct {
		family Family
		limit  *PrefixLimit
	}{{IPv4, &n.MaxPrefix4}, {IPv6, &n.MaxPrefix6}} {
		if slices.Contains(n.Families, f.family) || len(n.Families) == 0 {
			continue
		}
		if d.has(path + "/max-prefix/" + string(f.family)) {
			d.errorPath(path+"/max-prefix/"+string(f.family), "the session does not carry %s: add it to families, or remove it", f.family)
		}
		*f.limit = PrefixLimit{} // of a number for all
	}
}

// checkFound is about a neighbour that is to be found on its interface.
func (d *decoder) checkFound(path string, n *Neighbor, iface Interface) {
	switch l := n.LocalAddress; {
	case n.Multihop:
		d.errorPath(path+"/multihop", "a neighbor without an address is on the link itself; remove multihop, or give its address")
	case l.IsValid() && (!isLinkLocal6(l) || l != iface.LinkLocal()):
		d.errorPath(path+"/local-address", "local-address %s is not the link-local address of interface %s, which such a session has; remove it", l, shorten(n.Interface))
	}
}

// putSession writes the keys of this file, each in its shortest form.
func (n Neighbor) putSession(b *block) {
	four, six := n.MaxPrefix4, n.MaxPrefix6
	m := newBlock().flow()
	four.put(m, "ipv4")
	six.put(m, "ipv6")
	b.sub("max-prefix", m)
	switch {
	case n.AddPath.Mode == "":
	case n.AddPath.SendMax == 0 || n.AddPath.SendMax == DefaultSendMax:
		b.text("add-path", string(n.AddPath.Mode))
	default:
		a := newBlock().flow()
		a.text("mode", string(n.AddPath.Mode))
		b.sub("add-path", a.number("send-max", uint64(n.AddPath.SendMax), DefaultSendMax))
	}
	b.number("allow-own-as", uint64(n.AllowOwnAS), 0)
	switch {
	case n.Role == "":
	case !n.StrictRole:
		b.text("role", string(n.Role))
	default:
		r := newBlock().flow()
		r.text("name", string(n.Role))
		b.sub("role", r.flag("strict", true))
	}
}

func (l PrefixLimit) put(b *block, key string) {
	usual := PrefixLimit{Limit: l.Limit, Action: LimitBlock, RestartAfter: DefaultRestartAfter}
	switch {
	case l.Limit == 0:
	case l == usual:
		b.number(key, uint64(l.Limit), 0)
	default:
		m := newBlock().flow()
		m.number("limit", uint64(l.Limit), 0)
		m.word("action", string(l.Action), string(LimitBlock))
		b.sub(key, m.duration("restart-after", l.RestartAfter, DefaultRestartAfter))
	}
}
