package bgp

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// All the ways in which peers write the next hop of a link, over all kinds of session, and what we write.
func TestNextHopEncodings(t *testing.T) {
	join := func(x, y string) []byte { return append(b16(x), b16(y)...) }
	encodings := []struct {
		name string
		nh   []byte
	}{
		{"global", b16("fd00::2")},
		{"link-local", b16("fe80::2")},
		{"global, link-local", join("fd00::2", "fe80::2")},
		{"none, link-local", join("::", "fe80::2")},
		{"link-local twice", join("fe80::2", "fe80::2")},
		{"none", b16("::")},
		{"none twice", join("::", "::")},
		{"a third one's", join("fd00::3", "fe80::3")},
	}
	const onLink, global, v4 = "fe80::2 dev tun0", "fd00::2", "169.254.0.2"
	for _, c := range []struct {
		name, remote, local string
		change              func(*Config)
		want4, want6        [8]string // where packets go; "": nowhere
		ours                []byte    // our next hop of IPv6 routes
		ours4               []byte    // of IPv4 routes; nil: in the attribute NEXT_HOP
	}{
		{
			"over link-local", "fe80::2", "fe80::1", nil,
			[8]string{onLink, onLink, onLink, onLink, onLink, onLink, onLink, onLink},
			[8]string{onLink, onLink, onLink, onLink, onLink, onLink, onLink, onLink},
			b16("fe80::1"), b16("fe80::1"),
		},
		{
			"over global IPv6", "fd00::2", "fd00::1", nil,
			[8]string{global, onLink, global, onLink, onLink, global, global, "fd00::3"},
			[8]string{global, onLink, global, onLink, onLink, global, global, "fd00::3"},
			b16("fd00::1"), b16("fd00::1"),
		},
		{
			"over IPv4", "169.254.0.2", "169.254.0.1", nil,
			[8]string{global, onLink, global, onLink, onLink, v4, v4, "fd00::3"},
			[8]string{global, onLink, global, onLink, onLink, "", "", "fd00::3"},
			b16("fd00::1"), nil,
		},
		{
			"in our AS", "fd00::2", "fd00::1", func(c *Config) { c.AS = 65002 },
			[8]string{global, onLink, global, onLink, onLink, global, global, "fd00::3"},
			[8]string{global, onLink, global, onLink, onLink, global, global, "fd00::3"},
			b16("fd00::1"), b16("fd00::1"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r1, node, _ := rawSite(t, c.remote, c.local, c.change)
			start(t, r1)
			p := dialRaw(t, node, c.local)
			p.establish()
			var want4, want6 []string
			path := aspath(65002)
			if r1.cfg.AS == 65002 {
				path = aspath()
			}
			for i, e := range encodings {
				p.send(announce(bgp.AFI_IP, e.nh, fmt.Sprintf("10.0.%d.0/24", i), path))
				p.send(announce(bgp.AFI_IP6, e.nh, fmt.Sprintf("fd00:%d::/64", i+1), path))
				if w := c.want4[i]; w != "" {
					want4 = append(want4, fmt.Sprintf("10.0.%d.0/24 via %s", i, w))
				}
				if w := c.want6[i]; w != "" {
					want6 = append(want6, fmt.Sprintf("fd00:%d::/64 via %s", i+1, w))
				}
			}
			r1.wantFeed(append(want4, want6...)...)
			r1.settled()
			r1.originate("10.1.0.0/24")
			p.wantHop(bgp.AFI_IP, c.ours4)
			r1.originate("10.1.0.0/24", "fd00:99::/64")
			p.wantHop(bgp.AFI_IP6, c.ours)
		})
	}
}

// wantHop reads the next UPDATE with routes of a family that has a next hop of these bytes; nil is one without MP_REACH_NLRI.
func (p *rawPeer) wantHop(afi byte, want []byte) {
	p.t.Helper()
	for {
		body := p.expect(bgp.BGP_MSG_UPDATE)
		if len(body) == 4 || len(body) < 20 { // End-of-RIB
			continue
		}
		mp, there := attribute(body[4:], bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
		switch {
		case want == nil && !there:
			return
		case !there || mp[1] != afi:
			p.t.Errorf("an UPDATE of another family: %x", body)
		case !bytes.Equal(mp[4:4+mp[3]], want):
			p.t.Errorf("we announce next hop %x, want %x", mp[4:4+mp[3]], want)
		}
		return
	}
}

// What came by eBGP with a link-local next hop goes into our AS with ours: another link knows nothing of it.
func TestNextHopOffLink(t *testing.T) {
	for _, nh := range [][]byte{b16("fe80::2"), append(b16("::"), b16("fe80::2")...), b16("::"), append(b16("fe80::2"), b16("fe80::2")...)} {
		t.Run(fmt.Sprintf("%x", nh), func(t *testing.T) {
			n := newStar(t, "fe80::2", "fe80::1", 65002, "fd00::3", "fd00::1", 65001)
			n.first.send(reach(bgp.AFI_IP6, nh, "fd00:5::/64"))
			n.second.wantHop(bgp.AFI_IP6, b16("fd00::1"))
			n.first.send(reach(bgp.AFI_IP, nh, "10.5.0.0/24"))
			n.second.wantHop(bgp.AFI_IP, b16("fd00::1"))
		})
	}
	t.Run("a global one stays", func(t *testing.T) {
		n := newStar(t, "fd01::2", "fd01::1", 65002, "fd00::3", "fd00::1", 65001)
		n.first.send(reach(bgp.AFI_IP6, b16("fd01::2"), "fd00:5::/64"))
		n.second.wantHop(bgp.AFI_IP6, b16("fd01::2"))
	})
}

func TestNextHopToOurselves(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	p.establish()
	p.send(reach(bgp.AFI_IP, b4("169.254.0.1"), "10.0.1.0/24"))
	p.send(reach(bgp.AFI_IP, b4("169.254.0.2"), "10.0.2.0/24"))
	r1.wantFeed("10.0.2.0/24 via 169.254.0.2")
}

// A peer without RFC 8950 gets IPv4 routes with an IPv4 next hop of ours, or not at all.
func TestWithoutExtendedNextHop(t *testing.T) {
	for _, c := range []struct {
		own  string
		want []byte // the UPDATE's routes
	}{{"169.254.7.1", []byte{24, 10, 1, 0}}, {"", nil}} {
		t.Run("own "+c.own, func(t *testing.T) {
			r1, node, _ := rawSite(t, "fe80::2", "fe80::1", func(cfg *Config) {
				if c.own != "" {
					cfg.Neighbors[0].NextHop4 = a(c.own)
				}
			})
			start(t, r1)
			p := dialRaw(t, node, "fe80::1")
			p.send(rawOpen(65002, "10.2.0.1", bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC)))
			p.expect(bgp.BGP_MSG_OPEN)
			p.send(keepalive)
			r1.settled()
			r1.originate("10.1.0.0/24")
			r1.originate("10.1.0.0/24", "fd00:1::/64") // what is announced after it comes after it
			var routes []byte
			for last := false; !last; {
				u, _ := parseUpdate(p.expect(bgp.BGP_MSG_UPDATE))
				reach, six := u.reach()
				switch {
				case six && reach.family == bgp.RF_IPv6_UC:
					last = true
				case six:
					t.Errorf("an IPv4 route with next hop %x", reach.nextHop)
				case len(u.nlri) > 0:
					routes = append(routes, u.nlri...)
					if hop := u.find(bgp.BGP_ATTR_TYPE_NEXT_HOP); hop == nil || !bytes.Equal(hop.value, b4(c.own)) {
						t.Errorf("routes %x without our next hop", u.nlri)
					}
				}
			}
			if !bytes.Equal(routes, c.want) {
				t.Errorf("routes %x, want %x", routes, c.want)
			}
		})
	}
}
