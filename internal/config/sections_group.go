package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// This file is about settings that neighbours share: groups, and the neighbours that come by themselves.

// groups decodes `bgp.groups`, in the file's order.
func (d *decoder) groups(v value) (all []Group) {
	d.entries(v, "groups must be a mapping of names to settings", func(name string, at mark, v value) {
		d.checkName(at, "a group", name, maxName)
		g := Group{Name: name, Settings: defaultNeighbor()}
		d.neighborSettings(v, groupSection, &g.Settings)
		all = append(all, g)
	})
	return all
}

// defaultNeighbor has the defaults that depend on nothing else.
func defaultNeighbor() Neighbor {
	return Neighbor{HoldTime: DefaultHoldTime, ConnectRetry: DefaultConnectRetry, GracefulRestart: DefaultGracefulRestart}
}

// fromGroup is what a neighbour, or a dynamic one, has before its own settings.
func (d *decoder) fromGroup(v value, groups []Group) Neighbor {
	node := below(v.node, "group")
	if node == nil || node.Kind != scalarNode {
		return defaultNeighbor()
	}
	r, err := expand(node.Value, d.opt.env)
	if err != nil {
		return defaultNeighbor()
	}
	for _, g := range groups {
		if g.Name == r.text {
			n := g.Settings
			n.Families = slices.Clone(n.Families)
			return n
		}
	}
	return defaultNeighbor()
}

// Limits of a dynamic entry.
const (
	maxDynamic     = 10000
	maxForgetAfter = 24 * time.Hour
)

func (d *decoder) dynamic(v value, groups []Group) Dynamic {
	e := Dynamic{Limit: DefaultDynamicLimit, ForgetAfter: DefaultForgetAfter, Settings: d.fromGroup(v, groups)}
	d.mapping(v, dynamicSection, func(key string, v value) {
		switch key {
		case "prefix":
			if text, ok := d.text(v, "prefix must be a prefix"); ok {
				e.Prefix, _ = d.prefix(v, text, "prefix")
			}
		case "group":
			e.Group, _ = d.text(v, "group must be the name of a group")
		case "as":
			e.AS, e.External = d.dynamicAS(v)
		case "limit":
			n, _ := d.number(v, key, 1, maxDynamic)
			e.Limit = int(n)
		case "forget-after":
			e.ForgetAfter = d.duration(v, key, time.Second, maxForgetAfter, time.Second)
		}
	})
	if !d.has(v.path + "/prefix") {
		d.errorf(v, "the prefix of the dynamic neighbors is missing; write prefix: 10.1.0.0/24")
	}
	if !d.has(v.path + "/group") {
		d.errorf(v, "the group of the dynamic neighbors is missing; write group: and the name of one of bgp.groups, whose settings they get")
	}
	switch grouped := e.Settings.AS; {
	case d.has(v.path + "/as"):
	case grouped != 0:
		e.AS = []uint32{grouped}
	case e.Settings.External:
		e.External = true
	case d.has(v.path+"/group") && !d.has(join("bgp/groups", e.Group, "as")):
		d.errorf(v, "the as of the dynamic neighbors is missing; write as: and a number, or a list of those that may come")
	}
	e.Settings.Group = e.Group
	return e
}

// dynamicAS decodes a neighbour's, or a list of numbers.
func (d *decoder) dynamicAS(v value) (all []uint32, external bool) {
	if v.node.Kind != sequenceNode {
		as, external := d.neighborAS(v)
		if as != 0 {
			all = []uint32{as}
		}
		return all, external
	}
	d.list(v, "as must be a number or a list of numbers", func(_ int, v value) {
		as, other := d.neighborAS(v)
		if other {
			d.errorf(v, "external is any AS but our own: write as: external, without a list")
			return
		}
		if as != 0 && slices.Contains(all, as) {
			d.errorf(v, "AS %s is here twice; remove one", v.node.Value)
			return
		}
		if as != 0 {
			all = append(all, as)
		}
	})
	if len(v.node.Content) == 0 {
		d.errorf(v, "as is empty; write the numbers of those that may come")
	}
	return all, false
}

// checkGroups finishes what a group can know of itself.
func (d *decoder) checkGroups(c *Config) {
	if c.Control.GRPC != "" && !d.has("router/as") {
		d.errorPath("control/grpc", "GoBGP's API is about BGP, which needs our AS number; write router: {as: NUMBER}")
	}
	for i := range c.BGP.Groups {
		if s := &c.BGP.Groups[i].Settings; s.AS == asInternal {
			s.AS = c.Router.AS
		}
	}
}

func (d *decoder) checkDynamic(c *Config, own map[netip.Addr]string) {
	seen := map[netip.Prefix]int{}
	for i := range c.BGP.Dynamic {
		e, path := &c.BGP.Dynamic[i], join("bgp/dynamic", i)
		internal := 0
		for j, as := range e.AS {
			if as == asInternal {
				e.AS[j] = c.Router.AS
			}
			if e.AS[j] == c.Router.AS {
				internal++
			}
		}
		slices.Sort(e.AS)
		if internal > 0 && internal < len(e.AS) {
			d.errorPath(path+"/as", "our own AS %d and others are together here; write one entry for internal neighbors, and one for external", c.Router.AS)
		}
		p := e.Prefix
		if !p.IsValid() || p != p.Masked() || len(e.AS) == 0 && !e.External {
			continue
		}
		at := path + "/prefix"
		if first, dup := seen[p]; dup {
			d.errorPath(at, "%s is here twice; the first one is on line %d: remove one", p, d.marks[join("bgp/dynamic", first)].line)
		}
		seen[p] = i
		if isLinkLocal6(p.Addr()) {
			d.errorPath(at, "%s is link-local; neighbors on a link are written one by one, with their interface", p)
		}
		e.Settings.AS, e.Settings.Address = 0, p.Addr() // for the defaults that depend on them
		if !e.External {
			e.Settings.AS = e.AS[0]
		}
		if len(e.Settings.Families) == 0 {
			e.Settings.Families = []Family{IPv6}
			if p.Addr().Is4() {
				e.Settings.Families = []Family{IPv4}
			}
		}
		d.checkLocalAddress(c, path, &e.Settings, Interface{}, own)
		d.checkSession(c, path, &e.Settings)
		e.Settings.AS, e.Settings.External, e.Settings.Address = 0, false, netip.Addr{}
	}
}

func (d *decoder) control(v value) (c Control) {
	var at value
	d.mapping(v, controlSection, func(key string, v value) {
		switch key {
		case "socket":
			c.Socket = d.socketPath(v, "control.socket")
		case "grpc":
			at, c.GRPC = v, d.grpc(v)
		case "bird-socket":
			c.Bird = d.birdSocket(v)
		case "grpc-public":
			c.GRPCPublic = d.boolean(v, key)
		}
	})
	a, err := netip.ParseAddrPort(c.GRPC)
	switch {
	case err == nil && !a.Addr().IsLoopback() && !c.GRPCPublic:
		d.errorf(at, "everybody who reaches %s could change the neighbors; listen at 127.0.0.1:%d or at a unix socket, or say that this is meant by grpc-public: true", a, a.Port())
	case c.GRPCPublic && (err != nil || a.Addr().IsLoopback()) && !(c.GRPC == "" && d.has("control/grpc")):
		d.errorPath("control/grpc-public", "grpc-public says nothing without an address in grpc that others can reach; remove it")
	}
	return c
}

// birdSocket decodes the absolute path of a unix socket, or its name in the router's folder.
func (d *decoder) birdSocket(v value) string {
	const what = "bird-socket must be the path of a socket"
	s, ok := d.text(v, what)
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(s, "/"):
		return d.socketPath(v, "control.bird-socket")
	case !birdName.MatchString(s):
		d.errorf(v, "%s, not %q; a name without a folder is in the router's own, and begins with bird: bird.ctl", what, shorten(s))
		return ""
	}
	return s
}

var birdName = regexp.MustCompile(`^bird[a-zA-Z0-9._-]{0,24}$`)

// grpc decodes an address and port, the absolute path of a unix socket, or its name in the router's folder.
func (d *decoder) grpc(v value) string {
	what := "grpc must be the path of a socket, or an address and port such as 127.0.0.1:50051"
	s, ok := d.text(v, what)
	if !ok {
		return ""
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		if a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.Addr().IsMulticast() {
			d.errorf(v, "%s, not %q", what, shorten(s))
			return ""
		}
		return a.String()
	}
	if len(s) > 0 && s[0] == '/' {
		return d.socketPath(v, "control.grpc")
	}
	if !grpcName.MatchString(s) {
		d.errorf(v, "%s, not %q; a name without a folder is in the router's own, and begins with gobgp or grpc: gobgp.sock", what, shorten(s))
		return ""
	}
	return s
}

// grpcName is what a socket in the router's folder may be called, where the names of other files are not like it.
var grpcName = regexp.MustCompile(`^(gobgp|grpc)[a-zA-Z0-9._-]{0,24}$`)

// referGroups reports groups that do not exist.
func (d *decoder) referGroups(c *Config) {
	names := make([]string, len(c.BGP.Groups))
	for i, g := range c.BGP.Groups {
		names[i] = g.Name
	}
	refer := func(path, name string) {
		if name != "" && !slices.Contains(names, name) {
			d.errorPath(path, "group %q does not exist; %s", shorten(name), d.exists("group", name, names))
		}
	}
	for i, n := range c.BGP.Neighbors {
		refer(join("bgp/neighbors", i, "group"), n.Group)
	}
	for i, e := range c.BGP.Dynamic {
		refer(join("bgp/dynamic", i, "group"), e.Group)
	}
}

// groupBlocks prints the groups.
func groupBlocks(groups []Group) *block {
	b := newBlock()
	for _, g := range groups {
		b.put(g.Name, g.Settings.block().node)
	}
	return b
}

// member prints a neighbour of a group: what is not as the group has it, even where it is the default.
func (n Neighbor) member(groups []Group) *block {
	own := n
	own.Group = ""
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == n.Group })
	if i < 0 {
		return own.block()
	}
	mine, theirs := own.fill(newBlock().everything()), groups[i].Settings.fill(newBlock().everything())
	out := newBlock()
	for k := 0; k < len(mine.node.Content); k += 2 {
		key, v := mine.node.Content[k], mine.node.Content[k+1]
		if !sameNode(v, below(theirs.node, key.Value)) {
			out.put(key.Value, v)
		}
	}
	return out.text("group", n.Group)
}

// sameNode reports whether two printed values say the same.
func sameNode(a, b *yaml.Node) bool {
	return a != nil && b != nil && a.Kind == b.Kind && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, sameNode)
}

func (e Dynamic) block() *block {
	b := newBlock().text("prefix", e.Prefix.String())
	b.text("group", e.Group)
	if e.External {
		b.text("as", "external")
	} else if len(e.AS) == 1 {
		b.number("as", uint64(e.AS[0]), 0)
	} else {
		list := &yaml.Node{Kind: sequenceNode, Style: yaml.FlowStyle}
		for _, as := range e.AS {
			list.Content = append(list.Content, &yaml.Node{Kind: scalarNode, Tag: "!!int", Value: strconv.FormatUint(uint64(as), 10)})
		}
		b.put("as", list)
	}
	b.number("limit", uint64(e.Limit), DefaultDynamicLimit)
	return b.duration("forget-after", e.ForgetAfter, DefaultForgetAfter)
}
