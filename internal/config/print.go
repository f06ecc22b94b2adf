package config

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Print writes the canonical form: every section in one order, references resolved, settings that have their default left
// out, except those whose default depends on something else. Secrets are written as references. Loading the output from the
// same folder gives an equal Config.
func (c *Config) Print(w io.Writer) error {
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(c.tree().node); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return e.Close()
}

func (c *Config) tree() *block {
	root := newBlock()
	r := newBlock()
	r.text("name", c.Router.Name)
	r.addr("id", c.Router.ID)
	r.number("as", uint64(c.Router.AS), 0)
	root.sub("router", r)
	dp := newBlock().text("kind", string(c.Dataplane.Kind))
	dp.sub("vpp", newBlock().text("attach", c.Dataplane.Attach))
	dp.duration("audit", c.Dataplane.Audit, DefaultAudit)
	dp.flag("learn", c.Dataplane.Learn)
	if c.Dataplane.FlowHash != HashPorts {
		dp.text("flow-hash", string(c.Dataplane.FlowHash))
	}
	root.sub("dataplane", dp)
	ifs := newBlock()
	for _, i := range c.Interfaces {
		ifs.sub(i.Name, i.block())
	}
	root.sub("interfaces", ifs)
	var routes []*block
	for _, s := range c.Static {
		routes = append(routes, s.block())
	}
	root.blocks("static", routes)
	root.sub("acl", c.aclBlock())
	root.sub("sets", c.Sets.block())
	policies := newBlock()
	for _, p := range c.Policies {
		var rules []*block
		for _, r := range p.Rules {
			rules = append(rules, r.block())
		}
		policies.blocks(p.Name, rules)
	}
	root.sub("policies", policies)
	root.sub("bgp", c.BGP.block(c.Router))
	root.sub("roa", c.ROA.block())
	root.sub("services", c.Services.block())
	root.sub("control", newBlock().text("socket", c.Control.Socket).text("bird-socket", c.Control.Bird).text("grpc", c.Control.GRPC).flag("grpc-public", c.Control.GRPCPublic))
	log := newBlock()
	log.word("level", string(c.Log.Level), "info")
	log.word("format", string(c.Log.Format), string(LogText))
	root.sub("log", log)
	return root
}

func (i Interface) block() *block {
	b := newBlock()
	mtu := DefaultMTU
	switch {
	case i.Memif != nil:
		m := newBlock()
		m.text("socket", i.Memif.Socket)
		m.text("role", string(i.Memif.Role))
		m.number("id", uint64(i.Memif.ID), 0)
		m.secret("secret", i.Memif.Secret)
		m.number("ring-size", uint64(i.Memif.RingSize), DefaultRingSize)
		m.number("buffer-size", uint64(i.Memif.BufferSize), DefaultBufferSize)
		m.number("queues", uint64(i.Memif.Queues), DefaultQueues)
		b.sub("memif", m)
	case i.WireGuard != nil:
		mtu = DefaultWireGuardMTU
		b.sub("wireguard", i.WireGuard.block())
	default:
		b.flag("loopback", i.Loopback)
	}
	b.words("addresses", texts(i.Addresses, netip.Prefix.String))
	b.number("mtu", uint64(i.MTU), uint64(mtu))
	b.text("urpf", string(i.URPF))
	switch i.MSSClamp {
	case AutoClamp:
	case NoClamp:
		b.text("mss-clamp", "false")
	default:
		b.number("mss-clamp", uint64(i.MSSClamp), 0)
	}
	b.text("unnumbered", i.Unnumbered)
	return b.sub("acl", newBlock().flow().words("in", i.ACL.In).words("out", i.ACL.Out))
}

func (w *WireGuard) block() *block {
	b := newBlock()
	b.addrPort("listen", w.Listen)
	b.secret("private-key", w.PrivateKey)
	b.secret("preshared-key", w.PresharedKey)
	p := newBlock()
	p.text("public-key", w.Peer.PublicKey.String())
	p.text("endpoint", w.Peer.Endpoint)
	p.duration("keepalive", w.Peer.Keepalive, 0)
	return b.sub("peer", p)
}

func (s Static) block() *block {
	b := newBlock().text("prefix", s.Prefix.String())
	if s.Action != Forward {
		return b.flag(string(s.Action), true)
	}
	var hops []*block
	for _, n := range s.Via {
		h := newBlock()
		h.addr("address", n.Address)
		h.text("interface", n.Interface)
		hops = append(hops, h.number("weight", uint64(n.Weight), 1).flow())
	}
	return b.blocks("via", hops)
}

func (g BGP) block(r Router) *block {
	b := newBlock()
	b.words("originate", texts(g.Originate, netip.Prefix.String))
	d := newBlock()
	if g.Redistribute.Connected.All {
		d.text("connected", string(All))
	}
	d.words("connected", g.Redistribute.Connected.Interfaces)
	b.sub("redistribute", d.flag("static", g.Redistribute.Static).flag("learned", g.Redistribute.Learned))
	b.number("multipath", uint64(g.Multipath), 1)
	if g.ClusterID != r.ID {
		b.addr("cluster-id", g.ClusterID)
	}
	b.duration("deferral", g.Deferral, DefaultDeferral)
	b.duration("graceful-shutdown", g.Farewell, DefaultFarewell)
	if g.PolicyOptional {
		b.put("ebgp-requires-policy", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "false"})
	}
	b.sub("dn42", newBlock().flow().number("region", uint64(g.DN42.Region), 0).number("country", uint64(g.DN42.Country), 0))
	b.sub("groups", groupBlocks(g.Groups))
	var all, dynamic []*block
	for _, n := range g.Neighbors {
		all = append(all, n.member(g.Groups))
	}
	for _, e := range g.Dynamic {
		dynamic = append(dynamic, e.block())
	}
	return b.blocks("neighbors", all).blocks("dynamic", dynamic)
}

func (n Neighbor) block() *block { return n.fill(newBlock()) }

func (n Neighbor) fill(b *block) *block {
	b.text("name", n.Name)
	b.text("description", n.Description)
	b.flag("disabled", n.Disabled)
	b.addr("address", n.Address)
	b.text("interface", n.Interface)
	if n.External {
		b.text("as", "external")
	} else {
		b.number("as", uint64(n.AS), 0)
	}
	b.addr("local-address", n.LocalAddress)
	b.flag("passive", n.Passive)
	b.flag("next-hop-self", n.NextHopSelf)
	b.flag("route-reflector-client", n.RouteReflectorClient)
	b.flag("multihop", n.Multihop)
	b.duration("hold-time", n.HoldTime, DefaultHoldTime)
	b.duration("connect-retry", n.ConnectRetry, DefaultConnectRetry)
	b.words("families", texts(n.Families, func(f Family) string { return string(f) }))
	b.policy("import", n.Import, n.FamilyImport)
	b.policy("export", n.Export, n.FamilyExport)
	b.sub("dn42", n.DN42.block())
	n.putSession(b)
	n.BFD.put(b)
	return n.GracefulRestart.put(b)
}

func (o BFD) put(b *block) *block {
	if o == DefaultBFD || o == (BFD{}) {
		return b.flag("bfd", o == DefaultBFD)
	}
	m := newBlock().flow()
	m.duration("interval", o.Interval, DefaultBFD.Interval)
	m.number("multiplier", uint64(o.Multiplier), uint64(DefaultBFD.Multiplier))
	return b.sub("bfd", m)
}

// put writes the shortest form.
func (g GracefulRestart) put(b *block) *block {
	usual := DefaultGracefulRestart
	if usual.Mode = g.Mode; g == usual {
		return b.word("graceful-restart", string(g.Mode), string(GracefulOn))
	}
	m := newBlock().flow()
	m.word("mode", string(g.Mode), string(GracefulOn))
	m.duration("restart-time", g.RestartTime, usual.RestartTime)
	m.duration("stale-time", g.StaleTime, usual.StaleTime)
	m.duration("long-lived", g.LongLived, usual.LongLived)
	return b.sub("graceful-restart", m)
}

func texts[T any](all []T, text func(T) string) []string {
	var out []string
	for _, v := range all {
		out = append(out, text(v))
	}
	return out
}

// block is a mapping under construction. A setting that says nothing is left out, and so is a block without any.
type block struct {
	node *yaml.Node
	all  bool // settings that have their default are there too
}

func newBlock() *block { return &block{node: &yaml.Node{Kind: yaml.MappingNode}} }

func (b *block) everything() *block {
	b.all = true
	return b
}

func (b *block) flow() *block {
	b.node.Style = yaml.FlowStyle
	return b
}

func (b *block) put(key string, v *yaml.Node) *block {
	b.node.Content = append(b.node.Content, stringNode(key), v)
	return b
}

// stringNode leaves it to the encoder to quote what would not be read back as a string.
func stringNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// escaped doubles dollar signs, which begin references.
func escaped(s string) *yaml.Node { return stringNode(strings.ReplaceAll(s, "$", "$$")) }

func (b *block) text(key, s string) *block {
	if s == "" {
		return b
	}
	return b.put(key, escaped(s))
}

func (b *block) word(key, s, otherwise string) *block {
	if s == otherwise && !b.all {
		return b
	}
	return b.text(key, s)
}

func (b *block) addr(key string, a netip.Addr) *block {
	if !a.IsValid() {
		return b
	}
	return b.text(key, a.String())
}

func (b *block) addrPort(key string, a netip.AddrPort) *block {
	if !a.IsValid() {
		return b
	}
	return b.text(key, a.String())
}

func (b *block) number(key string, n, otherwise uint64) *block {
	if n == otherwise && !b.all {
		return b
	}
	return b.put(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatUint(n, 10)})
}

func (b *block) flag(key string, set bool) *block {
	if !set && !b.all {
		return b
	}
	return b.put(key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(set)})
}

func (b *block) duration(key string, t, otherwise time.Duration) *block {
	if t == otherwise && !b.all {
		return b
	}
	return b.text(key, formatDuration(t))
}

// secret writes where a secret comes from.
func (b *block) secret(key string, s Secret) *block {
	switch {
	case s.File != "":
		return b.text(key+"-file", s.File)
	case s.Env != "":
		return b.put(key, stringNode(s.Env)) // a reference, not a text: its dollar sign is meant
	default:
		return b
	}
}

func (b *block) words(key string, words []string) *block {
	if len(words) == 0 {
		return b
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, w := range words {
		list.Content = append(list.Content, escaped(w))
	}
	return b.put(key, list)
}

func emptyList() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle} }

func (b *block) sub(key string, s *block) *block {
	if len(s.node.Content) == 0 {
		return b
	}
	return b.put(key, s.node)
}

func (b *block) blocks(key string, all []*block) *block {
	if len(all) == 0 {
		return b
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range all {
		list.Content = append(list.Content, s.node)
	}
	return b.put(key, list)
}
