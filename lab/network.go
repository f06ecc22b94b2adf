package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// network is a topology: what is to be written into the configurations. Addresses are strings as they stand there.
type network struct {
	nodes []node
	files map[string]string // beside the configurations: name and content
}

// node is a router or a server.
type node struct {
	name       string
	id         string // router ID; "" for a server
	as         uint32 // 0 for a server
	interfaces []iface
	static     []static
	originate  []string
	announce   []string // interfaces whose connected routes are announced
	neighbors  []neighbor
	acls       []ruleList
	policies   []ruleList
	roa        string // the section, as a mapping; "" is none
	dn42       string // bgp.dn42, likewise
	direct     bool   // sabotage: started without a session of its own and without giving up privileges
	learn      bool   // announces what others put into its dataplane
	flowHash   string // "" is the default
	services   string // the section, as a mapping; "" is none
	breakable  bool   // its VPP is started by a script, which can be told to fail
}

// iface is one of loopback, cable or tunnel.
type iface struct {
	name       string
	loopback   bool
	cable      string // memif: two interfaces with the same cable are its ends
	role       string // of a cable's end: master, slave
	ring       int    // of a cable's end: packets that wait for a busy reader; 0 is the default
	tunnel     string // WireGuard: two interfaces with the same tunnel are its ends
	addresses  []string
	unnumbered string
	aclIn      []string
	aclOut     []string
}

type static struct {
	prefix    string
	via       string // address; "" with blackhole
	iface     string // for a link-local address
	blackhole bool
	paths     string // several next hops, as a list's elements
}

// ruleList is an ACL or a policy: its name, and its rules in their order.
type ruleList struct {
	name  string
	rules []string
}

type neighbor struct {
	name     string
	address  string
	iface    string // for a link-local address
	as       uint32
	hold     string
	families string // "" is what the address says
	passive  bool   // waits for the other side's connection
	graceful string // graceful-restart; "" is the default
	in, out  string // policies; "" is all
	dn42     string // what the link is like, as a mapping
	bfd      string // "" is none
}

// tunnelMTU is WireGuard's usual one: 1500 bytes less IPv6, UDP and WireGuard.
const tunnelMTU = 1420

// links returns the names of the tunnels, sorted.
func (n network) links() []string {
	var out []string
	for _, node := range n.nodes {
		for _, i := range node.interfaces {
			if i.tunnel != "" && !slices.Contains(out, i.tunnel) {
				out = append(out, i.tunnel)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (n network) node(name string) *node {
	for i := range n.nodes {
		if n.nodes[i].name == name {
			return &n.nodes[i]
		}
	}
	return nil
}

// anchor announces networks, each with an end: without it, packets to what is unused of them would wander between routers.
func (n *node) anchor(networks ...string) {
	for _, p := range networks {
		n.originate = append(n.originate, p)
		n.static = append(n.static, static{prefix: p, blackhole: true})
	}
}

func (n *node) iface(name string) *iface {
	for i := range n.interfaces {
		if n.interfaces[i].name == name {
			return &n.interfaces[i]
		}
	}
	return nil
}

func (n *node) neighbor(name string) *neighbor {
	for i := range n.neighbors {
		if n.neighbors[i].name == name {
			return &n.neighbors[i]
		}
	}
	return nil
}

// end is one end of a tunnel.
type end struct {
	node, iface string
}

func (e end) String() string { return e.node + "-" + e.iface }

// ends returns both ends of a tunnel.
func (n network) ends(tunnel string) ([2]end, error) {
	var found []end
	for _, node := range n.nodes {
		for _, i := range node.interfaces {
			if i.tunnel == tunnel {
				found = append(found, end{node.name, i.name})
			}
		}
	}
	if len(found) != 2 {
		return [2]end{}, fmt.Errorf("tunnel %s has %d ends", tunnel, len(found))
	}
	return [2]end{found[0], found[1]}, nil
}

// wireguard is what an end of a tunnel is configured with.
type wireguard struct {
	listen    string // address and port
	endpoint  string // the relay
	keyFile   string
	pskFile   string
	peerKey   string
	keepalive string
}

// render writes the configuration of a node.
func (n node) render(dataplane string, wg map[end]wireguard) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	router := "name: " + n.name
	if n.id != "" {
		router += ", id: " + n.id
	}
	if n.as != 0 {
		router += fmt.Sprintf(", as: %d", n.as)
	}
	line("router: {%s}", router)
	if n.learn {
		dataplane += ", learn: true"
	}
	if n.flowHash != "" {
		dataplane += ", flow-hash: " + n.flowHash
	}
	line("dataplane: {kind: %s}", dataplane)
	line("interfaces:")
	for _, i := range n.interfaces {
		i.render(line, wg[end{n.name, i.name}])
	}
	renderRules(line, "acl", n.acls)
	renderRules(line, "policies", n.policies)
	if len(n.static) > 0 {
		line("static:")
	}
	for _, s := range n.static {
		switch {
		case s.paths != "":
			line("  - {prefix: %s, via: [%s]}", quoted(s.prefix), s.paths)
		case s.blackhole:
			line("  - {prefix: %s, blackhole: true}", quoted(s.prefix))
		case s.iface != "":
			line("  - {prefix: %s, via: [{address: %s, interface: %s}]}", quoted(s.prefix), quoted(s.via), s.iface)
		default:
			line("  - {prefix: %s, via: [{address: %s}]}", quoted(s.prefix), quoted(s.via))
		}
	}
	if n.services != "" {
		line("services: %s", n.services)
	}
	if n.roa != "" {
		line("roa: %s", n.roa)
	}
	if n.as != 0 {
		n.renderBGP(line)
	}
	return []byte(b.String())
}

func renderRules(line func(string, ...any), section string, lists []ruleList) {
	if len(lists) > 0 {
		line("%s:", section)
	}
	for _, l := range lists {
		line("  %s:", l.name)
		for _, r := range l.rules {
			line("    - %s", r)
		}
	}
}

func (i iface) render(line func(string, ...any), wg wireguard) {
	line("  %s:", i.name)
	switch {
	case i.loopback:
		line("    loopback: true")
	case i.cable != "":
		memif := fmt.Sprintf("socket: %s.sock, role: %s", i.cable, i.role)
		if i.ring != 0 {
			memif += fmt.Sprintf(", ring-size: %d", i.ring)
		}
		line("    memif: {%s}", memif)
	default:
		line("    wireguard:")
		line("      listen: %s", wg.listen)
		line("      private-key-file: %s", wg.keyFile)
		line("      peer: {public-key: %q, endpoint: %q, preshared-key-file: %s, keepalive: %s}",
			wg.peerKey, wg.endpoint, wg.pskFile, wg.keepalive)
		line("    mtu: %d", tunnelMTU)
	}
	if len(i.addresses) > 0 {
		line("    addresses: [%s]", quotedList(i.addresses))
	}
	if i.unnumbered != "" {
		line("    unnumbered: %s", i.unnumbered)
	}
	if len(i.aclIn)+len(i.aclOut) > 0 {
		line("    acl: {in: [%s], out: [%s]}", quotedList(i.aclIn), quotedList(i.aclOut))
	}
}

func (n node) renderBGP(line func(string, ...any)) {
	line("bgp:")
	if len(n.originate) > 0 {
		line("  originate: [%s]", quotedList(n.originate))
	}
	var from []string
	if len(n.announce) > 0 {
		from = append(from, fmt.Sprintf("connected: [%s]", strings.Join(n.announce, ", ")))
	}
	if n.learn {
		from = append(from, "learned: true")
	}
	if len(from) > 0 {
		line("  redistribute: {%s}", strings.Join(from, ", "))
	}
	if n.dn42 != "" {
		line("  dn42: %s", n.dn42)
	}
	line("  neighbors:")
	for _, p := range n.neighbors {
		text := fmt.Sprintf("name: %s, address: %s", p.name, quoted(p.address))
		if p.iface != "" {
			text += ", interface: " + p.iface
		}
		text += fmt.Sprintf(", as: %d, hold-time: %s, connect-retry: %s", p.as, p.hold, connectRetry)
		if p.families != "" {
			text += ", families: " + p.families
		}
		if p.passive {
			text += ", passive: true"
		}
		if p.graceful != "" {
			text += ", graceful-restart: " + p.graceful
		}
		if p.dn42 != "" {
			text += ", dn42: " + p.dn42
		}
		if p.bfd != "" {
			text += ", bfd: " + p.bfd
		}
		line("    - {%s, import: %s, export: %s}", text, cmp.Or(p.in, "all"), cmp.Or(p.out, "all"))
	}
}

// connectRetry is how soon a router dials again. Two seconds make a lab quick and are within what operators use.
const connectRetry = "2s"

func quoted(s string) string { return fmt.Sprintf("%q", s) }

func quotedList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoted(s)
	}
	return strings.Join(out, ", ")
}
