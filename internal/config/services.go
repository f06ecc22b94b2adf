package config

import (
	"net/netip"
	"slices"
)

// Services is the `services` section: what the router offers to others than its own commands.
type Services struct {
	HTTP   netip.AddrPort // TCP of the host, for /healthz, /readyz and /metrics; zero: not served. An unspecified address listens on all
	Socks  Socks
	Expose []Expose // in the file's order
}

// Socks is `services.socks5`.
type Socks struct {
	Listen netip.AddrPort // TCP of the host, on loopback; zero: not served
	DNS    []netip.Addr   // servers for names, asked by TCP over the dataplane; none: the host's way
}

// Expose is an entry of `services.expose`.
type Expose struct {
	Listen netip.AddrPort // TCP of the dataplane: one of our addresses, or an unspecified one
	To     string         // HOST:PORT, TCP of the host
}

func (d *decoder) services(v value) (s Services) {
	d.mapping(v, servicesSection, func(key string, v value) {
		switch key {
		case "http":
			s.HTTP = d.serve(v, "http")
		case "socks5":
			s.Socks = d.socks(v)
		case "expose":
			d.list(v, "expose must be a list of entries like {listen: \"172.20.1.1:80\", to: \"127.0.0.1:8080\"}", func(_ int, v value) {
				s.Expose = append(s.Expose, d.expose(v))
			})
		}
	})
	return s
}

const noPort = "; the port is a number from 1 to 65535"

// socks decodes an address and port, or a mapping.
func (d *decoder) socks(v value) (s Socks) {
	listen := func(v value, key string) {
		s.Listen = d.hostSocket(v, key, "1080", noPort)
		if s.Listen.IsValid() && !s.Listen.Addr().IsLoopback() {
			d.errorf(v, "%s would be open to everybody, as SOCKS here has no authentication; write 127.0.0.1:%d", s.Listen, s.Listen.Port())
		}
	}
	if v.node.Kind == scalarNode && !v.isNull() {
		listen(v, "socks5")
		return s
	}
	d.mapping(v, socksSection, func(key string, v value) {
		switch key {
		case "listen":
			listen(v, key)
		case "dns":
			d.words(v, "dns must be a list of IP addresses", func(_ int, v value, _ string) {
				if a, ok := d.address(v, "dns"); ok {
					s.DNS = append(s.DNS, a)
				}
			})
		}
	})
	if !d.has(v.path + "/listen") {
		d.errorf(v, "the address of socks5 is missing; write listen: 127.0.0.1:1080")
	}
	return s
}

func (d *decoder) expose(v value) (e Expose) {
	d.mapping(v, exposeSection, func(key string, v value) {
		switch key {
		case "listen":
			e.Listen = d.hostSocket(v, key, "80", noPort)
			if e.Listen.Port() == 179 {
				d.errorf(v, "port 179 is BGP's; write another one")
			}
		case "to":
			const what = "to must be HOST:PORT such as 127.0.0.1:8080"
			if s, ok := d.text(v, what); ok {
				e.To = d.hostPort(v, s, what, "[::1]:8080")
			}
		}
	})
	for _, key := range []string{"listen", "to"} {
		if !d.has(v.path + "/" + key) {
			d.errorf(v, "%s is missing; write {listen: \"172.20.1.1:80\", to: \"127.0.0.1:8080\"}", key)
		}
	}
	return e
}

// checkServices looks for what is exposed at addresses that are nobody's, or twice.
func (d *decoder) checkServices(c *Config, own map[netip.Addr]string) {
	for n, e := range c.Services.Expose {
		path := join("services", "expose", n, "listen")
		if !e.Listen.IsValid() {
			continue
		}
		if _, ours := own[e.Listen.Addr()]; !ours && !e.Listen.Addr().IsUnspecified() {
			d.errorPath(path, "%s is no address of an interface of this router; write one of them", e.Listen.Addr())
		}
		clash := slices.IndexFunc(c.Services.Expose[:n], func(o Expose) bool {
			return o.Listen.Port() == e.Listen.Port() && o.Listen.Addr().Is4() == e.Listen.Addr().Is4() &&
				(o.Listen == e.Listen || o.Listen.Addr().IsUnspecified() || e.Listen.Addr().IsUnspecified())
		})
		if clash >= 0 {
			d.errorPath(path, "%s is where entry %d listens, too (%s)", e.Listen, clash+1, c.Services.Expose[clash].Listen)
		}
	}
}

func (s Services) block() *block {
	b := newBlock().addrPort("http", s.HTTP)
	if len(s.Socks.DNS) > 0 {
		b.sub("socks5", newBlock().flow().addrPort("listen", s.Socks.Listen).
			words("dns", texts(s.Socks.DNS, netip.Addr.String)))
	} else {
		b.addrPort("socks5", s.Socks.Listen)
	}
	var all []*block
	for _, e := range s.Expose {
		all = append(all, newBlock().flow().addrPort("listen", e.Listen).text("to", e.To))
	}
	return b.blocks("expose", all)
}
