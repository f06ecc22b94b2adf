package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever the file, Parse returns: a Config whose canonical form loads to the same one, or a sorted report.
func FuzzParse(f *testing.F) {
	for _, path := range append(samples(f, "testdata/right/*.yaml"), samples(f, "testdata/wrong/*.yaml")...) {
		f.Add(readSample(f, path))
	}
	f.Add([]byte("router: {name: a}\nacl: &a [*a]\ninterfaces: {e: {acl: *a}}\n"))
	f.Add([]byte("router: &r {name: a}\nbgp: {neighbors: &n [&x {families: &f [ipv4, ipv6]}, *x, *x]}\nstatic: *n\n"))
	dir := keyFolder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := parseIn(t, dir, "fuzz.yaml", data)
		if err == nil {
			roundTrip(t, dir, cfg, printed(t, cfg))
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("the error is %T", err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for i, e := range errs {
			switch {
			case e.Msg == "" || e.Line < 0 || e.Line > lines+1 || e.Line > 0 && e.Col < 1:
				t.Fatalf("%d: %v", i, e)
			case strings.ContainsAny(e.Msg, "\n\x00"):
				t.Fatalf("%d: more than a line: %q", i, e.Msg)
			}
		}
	})
}

// What is escaped expands to itself.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "${A}", "a${A}b", "${", "$${A}", "${A", "$}"} {
		f.Add(s)
	}
	env := func(string) (string, bool) { return "value", true }
	f.Fuzz(func(t *testing.T, s string) {
		r, err := expand(escaped(s).Value, env)
		if err != nil || r.text != s || r.any || r.whole {
			t.Fatalf("%q, escaped, expands to %+v (%v)", s, r, err)
		}
		_, _ = expand(s, env)
	})
}

// Any valid configuration survives printing and loading.
func TestPrintParse(t *testing.T) {
	dir := keyFolder(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range uint64(300) {
		cfg := randomConfig(rand.New(rand.NewPCG(seed, i)))
		roundTrip(t, dir, cfg, printed(t, cfg))
		if t.Failed() {
			t.Fatalf("seed %d, configuration %d", seed, i)
		}
	}
}

// dice makes random values that are valid together: everything numbered by a counter is different from the rest.
type dice struct {
	*rand.Rand
	count int
}

func (d *dice) next() int {
	d.count++
	return d.count
}

func (d *dice) yes() bool { return d.IntN(2) == 0 }

func pick[T any](d *dice, from ...T) T { return from[d.IntN(len(from))] }

func randomConfig(r *rand.Rand) *Config {
	d := &dice{Rand: r}
	c := &Config{
		Router: Router{
			Name: pick(d, "router1", "a", "Null", "true", "no-1", "yes", "x.y_z"),
			ID:   netip.AddrFrom4([4]byte{1 + byte(d.IntN(200)), 0, 0, byte(d.IntN(256))}),
			AS:   pick(d, uint32(1), 65001, 4242420000, 4294967294),
		},
		Dataplane: pick(d, Dataplane{Kind: Auto}, Dataplane{Kind: Embedded}, Dataplane{Kind: VPP}, Dataplane{Kind: VPP, Attach: "/run/vpp/api.sock"}),
		Log:       Log{Level: LogLevel(pick(d, "error", "warning", "info", "debug", "trace")), Format: pick(d, LogText, LogJSON)},
	}
	c.Dataplane.FlowHash = pick(d, HashPorts, HashAddresses, HashFlowLabel)
	c.Dataplane.Audit, c.Dataplane.Learn = pick(d, 0, time.Second, DefaultAudit, 90*time.Second), d.yes()
	if d.yes() {
		c.Control.Socket = pick(d, "/tmp/x", "/tmp/with space", "/tmp/$dollar", "/tmp/#é")
	}
	c.Control.GRPC = pick(d, "", "gobgp.sock", "/tmp/g", "127.0.0.1:50051", "[::1]:1")
	if d.IntN(4) == 0 {
		c.Control.GRPC, c.Control.GRPCPublic = pick(d, "0.0.0.0:50051", "192.0.2.1:1"), true
	}
	if d.yes() {
		c.Services.HTTP = netip.MustParseAddrPort(pick(d, "127.0.0.1:8042", "[::]:80", "0.0.0.0:65535"))
	}
	c.Interfaces = append(c.Interfaces, Interface{Name: "lo", Loopback: true, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}})
	for range d.IntN(6) {
		c.Interfaces = append(c.Interfaces, d.iface())
	}
	d.acls(c)
	for range d.IntN(5) {
		c.Static = append(c.Static, d.static(c))
	}
	d.policies(c)
	c.BGP = d.bgp(c)
	if d.yes() {
		c.ROA = d.roa()
	}
	return c
}

// acls makes ACLs, and applies some of them.
func (d *dice) acls(c *Config) {
	var names []string
	for range d.IntN(4) {
		a := ACL{Name: fmt.Sprintf("%s%d", pick(d, "no8080-", "null", "y", "deny"), d.next())}
		for range 1 + d.IntN(4) {
			a.Rules = append(a.Rules, d.aclRule())
		}
		c.ACLs, names = append(c.ACLs, a), append(names, a.Name)
	}
	for i := range c.Interfaces {
		for _, name := range names {
			if d.yes() {
				c.Interfaces[i].ACL.In = append(c.Interfaces[i].ACL.In, name)
			}
			if d.yes() {
				c.Interfaces[i].ACL.Out = append(c.Interfaces[i].ACL.Out, name)
			}
		}
	}
	if d.yes() {
		c.Interfaces[0].ACL.In = append(c.Interfaces[0].ACL.In, DN42ACL)
		c.ACLs = append(c.ACLs, dn42ACL())
	}
}

func (d *dice) aclRule() ACLRule {
	r := ACLRule{
		Action:     pick(d, ACLDeny, ACLPermit, ACLReflect),
		Protocol:   pick(d, uint8(0), ProtocolTCP, ProtocolUDP, ProtocolICMP, ProtocolICMPv6, uint8(1+d.IntN(255))),
		SourcePort: AnyPort, DestinationPort: AnyPort, ICMPType: AnyICMP, ICMPCode: AnyICMP,
	}
	span := func(limit int) Range {
		first := d.IntN(limit + 1)
		return pick(d, Range{uint16(first), uint16(first)}, Range{uint16(first), uint16(first + d.IntN(limit+1-first))}, Range{0, uint16(limit)})
	}
	switch r.Protocol {
	case ProtocolTCP:
		r.TCPFlags.Mask = uint8(d.IntN(256))
		r.TCPFlags.Value = r.TCPFlags.Mask & uint8(d.IntN(256))
		fallthrough
	case ProtocolUDP:
		r.SourcePort, r.DestinationPort = span(65535), span(65535)
	case ProtocolICMP, ProtocolICMPv6:
		r.ICMPType, r.ICMPCode = span(255), span(255)
	}
	ip4, _ := r.Families()
	address := func() netip.Prefix {
		a := netip.AddrFrom16([16]byte{0x20, 1, 2: byte(d.IntN(256))})
		if ip4 {
			a = netip.AddrFrom4([4]byte{10, byte(d.IntN(256))})
		}
		return netip.PrefixFrom(a, d.IntN(a.BitLen()+1)).Masked()
	}
	if d.yes() {
		r.Source = address()
	}
	if d.yes() {
		r.Destination = address()
	}
	return r
}

func (d *dice) roa() ROA {
	r := ROA{Refresh: time.Duration(60+d.IntN(80000)) * time.Second, Policy: pick(d, ROAStrict, ROADropInvalid, ROAOff)}
	for range d.IntN(3) {
		r.Files = append(r.Files, fmt.Sprintf("%s%d.json", pick(d, "roa", "/tmp/with space", "$dollar", "é/"), d.next()))
	}
	for range d.IntN(3) {
		r.URLs = append(r.URLs, fmt.Sprintf("%s://%s/%d?a=$b", pick(d, "http", "https"), pick(d, "example.net", "[2001:db8::1]:8080"), d.next()))
	}
	for range d.IntN(3) {
		s := RTRServer{Address: fmt.Sprintf("%s:%d", pick(d, "127.0.0.1", "[::1]"), 1+d.next()), Dataplane: d.yes()}
		if !s.Dataplane && d.yes() {
			s.Address = fmt.Sprintf("rtr%d.example.net:8282", d.next())
		}
		r.RTR = append(r.RTR, s)
	}
	if !r.Configured() {
		r.Files = []string{"roa.json"}
	}
	return r
}

func (d *dice) policies(c *Config) {
	span := func() PrefixRange {
		return pick(d, PrefixRange{netip.MustParsePrefix("10.0.0.0/8"), 8, 8}, PrefixRange{netip.MustParsePrefix("fd00::/8"), 44, 64}, PrefixRange{netip.MustParsePrefix("0.0.0.0/0"), 0, 32})
	}
	c.Sets.Prefixes = []PrefixSet{{"p", []PrefixRange{span(), span()}}, {"none", nil}}
	c.Sets.AS = []ASSet{{"a", []uint32{65002}}}
	c.Sets.Communities = []WordSet{{"c", []string{"65001:1", "65001:*", "no-export"}}}
	c.Sets.LargeCommunities = []WordSet{{"l", []string{"65001:1:*"}}}
	for _, name := range []string{"in", "out"} {
		p := RulePolicy{Name: name}
		for range 1 + d.IntN(3) {
			p.Rules = append(p.Rules, d.rule())
		}
		c.Policies = append(c.Policies, p)
	}
}

func (d *dice) rule() Rule {
	maybe := func(l ...string) []string {
		if d.yes() {
			return nil
		}
		return l[:1+d.IntN(len(l))]
	}
	pref := d.Uint32()
	r := Rule{
		Name: pick(d, "", "x y"), Action: pick(d, ActionAccept, ActionReject),
		Match: Match{
			Prefix: maybe("p", span(d)), Family: pick(d, nil, []Family{IPv6}), ASContains: maybe("a", "65003"), ASLast: maybe("1"), ASNeighbor: maybe("a"),
			ASLength: pick(d, nil, &Span{1, -1}, &Span{2, 2}, &Span{0, 9}), Community: maybe("c", "no-peer", "1:*"), LargeCommunity: maybe("l", "1:2:3"),
			Origin: maybe("igp", "egp"), Source: maybe("own", "external"), ROA: pick(d, "", "valid", "invalid", "unknown"),
		},
	}
	if r.Action == ActionReject {
		return r
	}
	r.Set = Change{
		LocalPref: pick(d, nil, &pref), MED: pick(d, "", "0", "+7", "-7"), Origin: pick(d, "", "egp"), Prepend: uint8(d.IntN(33)),
		Communities:      CommunityEdit{Replace: pick(d, nil, []string{}, []string{"1:1"}), Remove: maybe("1:*"), Add: maybe("no-export", "2:2")},
		LargeCommunities: CommunityEdit{Remove: maybe("1:*:*"), Add: maybe("1:2:3")},
	}
	return r
}

func span(d *dice) string { return pick(d, "10.0.0.0/8+", "10.0.0.0/8 9-10", "fd00::/8") }

func (d *dice) iface() Interface {
	n := d.next()
	i := Interface{Name: fmt.Sprintf("%s%d", pick(d, "eth", "tun", "e_-.", "y", "x"), n), MTU: 1280 + d.IntN(7000)}
	switch d.IntN(3) {
	case 0:
		i.Loopback = true
	case 1:
		i.Memif = &Memif{
			Socket: fmt.Sprintf("s%d.sock", n), Role: pick(d, Master, Slave), ID: d.Uint32(),
			RingSize: 2 << d.IntN(14), BufferSize: 256 + d.IntN(4000), Queues: 1 + d.IntN(16),
		}
		if d.yes() {
			i.Memif.Secret = pick(d, Secret{Env: "${MEMIF_SECRET}", value: "sesame"}, Secret{File: "memif.secret", value: "sesame"})
		}
	default:
		i.WireGuard = d.wireguard(n)
	}
	if d.yes() {
		i.Unnumbered = "lo"
	} else {
		for range d.IntN(3) {
			m := d.next()
			i.Addresses = append(i.Addresses, pick(d,
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(m), 1, 1}), 16+d.IntN(17)),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(m), 15: 1}), 16+d.IntN(113))))
		}
	}
	if d.yes() {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix("fe80::1/64"))
	}
	return i
}

func (d *dice) wireguard(n int) *WireGuard {
	good := Key([]byte(strings.Repeat("\x07", 32)))
	w := &WireGuard{
		Listen:     netip.AddrPortFrom(pick(d, netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")), uint16(1000+n)),
		PrivateKey: Secret{File: "good.key", value: string(good[:])},
		Peer: Peer{
			PublicKey: Key{1, byte(d.IntN(256))},
			Endpoint:  pick(d, "", "peer.example.net:1", "[2001:db8::1]:51820", "192.0.2.1:65535", "[fe80::1%eth0]:5"),
			Keepalive: time.Duration(d.IntN(65536)) * time.Second,
		},
	}
	if d.yes() {
		w.PrivateKey = Secret{Env: "${GOODKEY}", value: string(good[:])}
		w.PresharedKey = w.PrivateKey
	}
	if d.yes() && w.Peer.Endpoint != "" {
		w.Listen = netip.AddrPort{}
	}
	return w
}

func (d *dice) static(c *Config) Static {
	n := byte(d.next())
	s := Static{
		Prefix: pick(d, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, n}), 16+d.IntN(17)), netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, n}), 16+d.IntN(113))),
		Action: pick(d, Forward, Blackhole, Unreachable, Prohibit),
	}
	if s.Action != Forward {
		return s
	}
	for range 1 + d.IntN(3) {
		h := NextHop{Address: netip.AddrFrom16([16]byte{0xfd, 15: byte(d.next())}), Weight: uint8(1 + d.IntN(255))}
		if last := c.Interfaces[len(c.Interfaces)-1]; !last.Loopback && d.yes() {
			h.Interface = last.Name
		}
		s.Via = append(s.Via, h)
	}
	return s
}

func (d *dice) bgp(c *Config) BGP {
	b := BGP{Multipath: 1 + d.IntN(64), ClusterID: c.Router.ID, Deferral: time.Duration(1+d.IntN(300)) * time.Second}
	b.PolicyOptional, b.DN42 = d.yes(), DN42{uint16(pick(d, 0, 41)), uint16(pick(d, 0, 1276))}
	for range d.IntN(3) {
		b.Originate = append(b.Originate, netip.PrefixFrom(netip.AddrFrom4([4]byte{12, byte(d.next())}), 16))
	}
	b.Redistribute.Static = d.yes()
	b.Redistribute.Learned = c.Dataplane.Learn && d.yes()
	switch d.IntN(3) {
	case 0:
		b.Redistribute.Connected.All = true
	case 1:
		b.Redistribute.Connected.Interfaces = c.interfaceNames()
	}
	if d.yes() {
		b.ClusterID = netip.AddrFrom4([4]byte{9, 9, 9, 9})
	}
	for range d.IntN(3) {
		g := d.neighbor(c)
		g.Name, g.Description, g.Address = "", "", netip.Addr{}
		if d.yes() {
			g.AS, g.External, g.Families, g.Import, g.Export, g.RouteReflectorClient = 0, false, nil, "", "", false
		}
		b.Groups = append(b.Groups, Group{Name: fmt.Sprintf("g%d", d.next()), Settings: g})
	}
	for range d.IntN(4) {
		n := d.neighbor(c)
		if len(b.Groups) > 0 && d.yes() {
			n = d.join(c, n, pick(d, b.Groups...))
		}
		b.Neighbors = append(b.Neighbors, n)
	}
	for _, g := range b.Groups {
		b.Dynamic = append(b.Dynamic, d.dynamic(c, g, b.PolicyOptional))
	}
	return b
}

// join makes a neighbour a member of a group, with what it cannot take back.
func (d *dice) join(c *Config, n Neighbor, g Group) Neighbor {
	s := g.Settings
	if s.Role != "" && n.AS == c.Router.AS {
		return n
	}
	n.Group = g.Name
	if s.LocalAddress.IsValid() {
		n.LocalAddress = s.LocalAddress
	}
	if n.MaxPrefix4.Limit == 0 && n.MaxPrefix6.Limit == 0 {
		n.MaxPrefix4, n.MaxPrefix6 = carried(n, s)
	}
	if n.AddPath.Mode == "" {
		n.AddPath = s.AddPath
	}
	if n.Role == "" && s.Role != "" {
		n.Role, n.StrictRole = s.Role, s.StrictRole
	}
	return n
}

// carried are a group's limits of the families that a session has.
func carried(n, s Neighbor) (four, six PrefixLimit) {
	if slices.Contains(n.Families, IPv4) {
		four = s.MaxPrefix4
	}
	if slices.Contains(n.Families, IPv6) {
		six = s.MaxPrefix6
	}
	return four, six
}

func (d *dice) dynamic(c *Config, g Group, optional bool) Dynamic {
	e := Dynamic{
		Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(d.next())}), 24), Group: g.Name,
		AS: pick(d, []uint32{2}, []uint32{2, 65002, 4200000000}), Limit: 1 + d.IntN(10000),
		ForgetAfter: time.Duration(1+d.IntN(80000)) * time.Second, Settings: g.Settings,
	}
	switch {
	case g.Settings.AS == c.Router.AS:
		e.AS = []uint32{c.Router.AS}
	case g.Settings.External || d.IntN(4) == 0:
		e.AS, e.External = nil, true
	}
	s := &e.Settings
	s.AS, s.External, s.Group = 0, false, g.Name
	if s.Families == nil {
		s.Families, s.Import, s.Export = []Family{IPv4}, None, None
		if optional {
			s.Import, s.Export = All, All
		}
	}
	s.MaxPrefix4, s.MaxPrefix6 = carried(*s, *s)
	return e
}

func (d *dice) neighbor(c *Config) Neighbor {
	m := d.next()
	n := Neighbor{
		Name:        fmt.Sprintf("n%d", m),
		Description: pick(d, "", "plain", "$5", "'", `"`, "a: b # c", "null", "1e3", "- x", "é ☃", "~", "0x10", "{", "*a", "&a", "!t", "%", "@", "`", "|", ">", "=", "<<", " padded "),
		Disabled:    d.yes(), Passive: d.yes(), NextHopSelf: d.yes(), Multihop: true,
		Address:      netip.AddrFrom4([4]byte{13, 0, byte(m), 1}),
		AS:           pick(d, uint32(2), 65002, 4200000000),
		HoldTime:     pick(d, 0, time.Duration(3+d.IntN(60000))*time.Second),
		ConnectRetry: time.Duration(1+d.IntN(60000)) * time.Second,
		Families:     pick(d, []Family{IPv4}, []Family{IPv6}, []Family{IPv4, IPv6}),
		Import:       pick(d, All, None, "in", PolicyDN42), Export: pick(d, All, None, "out"),
		GracefulRestart: pick(d, DefaultGracefulRestart, GracefulRestart{
			Mode: GracefulHelper, RestartTime: time.Duration(1+d.IntN(4095)) * time.Second,
			StaleTime: time.Duration(1+d.IntN(60000)) * time.Second, LongLived: time.Duration(d.IntN(1<<24)) * time.Second,
		}, GracefulRestart{Mode: GracefulOff, RestartTime: 120 * time.Second, StaleTime: 360 * time.Second}),
	}
	if slices.Contains(n.Families, IPv4) {
		n.MaxPrefix4 = pick(d, PrefixLimit{}, PrefixLimit{Limit: 1 + d.IntN(1000), Action: LimitBlock, RestartAfter: DefaultRestartAfter},
			PrefixLimit{Limit: 9, Action: LimitRestart, RestartAfter: time.Duration(1+d.IntN(60000)) * time.Second})
	}
	if slices.Contains(n.Families, IPv6) {
		n.MaxPrefix6 = pick(d, PrefixLimit{}, PrefixLimit{Limit: 7, Action: LimitWarn, RestartAfter: DefaultRestartAfter})
	}
	n.AddPath = pick(d, AddPath{}, AddPath{Mode: AddPathReceive}, AddPath{Mode: AddPathBoth, SendMax: uint8(1 + d.IntN(255))})
	n.AllowOwnAS = uint8(d.IntN(11))
	if n.Role = pick(d, BGPRole(""), RoleProvider, RoleRSClient); n.Role != "" {
		n.StrictRole = d.yes()
	}
	if d.yes() {
		n.LocalAddress = netip.MustParseAddr("203.0.113.1")
	}
	if d.IntN(4) == 0 {
		n.AS, n.External = 0, true
	}
	if d.IntN(3) == 0 {
		n.External = false
		n.AS, n.RouteReflectorClient, n.Role, n.StrictRole = c.Router.AS, d.yes(), "", false
	}
	return n
}
