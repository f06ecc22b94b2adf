package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"gopkg.in/yaml.v3"
)

// ROAPolicy says what is done with a route of an external neighbour by its validation (RFC 6811).
type ROAPolicy string

// The policies.
const (
	ROAStrict      ROAPolicy = "strict"       // only valid ones pass
	ROADropInvalid ROAPolicy = "drop-invalid" // all but invalid ones
	ROAOff         ROAPolicy = "off"          // all; the state is shown, and policies may match it
)

// ROA is the `roa` section; without one it is zero.
type ROA struct {
	Files   []string // as written; see FilePath
	URLs    []string
	RTR     []RTRServer // in order of preference
	Refresh time.Duration
	Policy  ROAPolicy
}

// RTRServer is an entry of `roa.rtr`.
type RTRServer struct {
	Address   string // HOST:PORT; the host is an IP address with Dataplane
	Dataplane bool   // over the dataplane's TCP instead of the kernel's
}

// DefaultROARefresh is how often URLs are fetched, and servers are asked at the latest: what DN42's operators agreed on.
const DefaultROARefresh = 15 * time.Minute

// Configured says whether routes are validated.
func (r ROA) Configured() bool { return len(r.Files)+len(r.URLs)+len(r.RTR) > 0 }

// ROAFile returns where a file of `roa.files` is: a relative one is beside the configuration, in dir.
func ROAFile(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

var (
	roaSection = &section{"roa", []key{{name: "files"}, {name: "urls"}, {name: "rtr"}, {name: "refresh"}, {name: "policy"}}}
	rtrSection = &section{"roa.rtr", []key{{name: "address"}, {name: "over"}}}
)

// Ways to an RTR server.
const (
	overKernel    = "kernel"
	overDataplane = "dataplane"
)

func (d *decoder) roa(v value) ROA {
	before := len(d.errs)
	r := ROA{Refresh: DefaultROARefresh, Policy: ROADropInvalid}
	d.mapping(v, roaSection, func(key string, v value) {
		switch key {
		case "files":
			seen := map[string]bool{}
			d.words(v, "roa.files must be a list of paths", func(_ int, v value, s string) {
				switch {
				case s == "" && emptyText(v):
					d.errorf(v, "a path of roa.files is empty; remove it")
				case s != "":
					s = filepath.Clean(s)
					d.once(v, seen, s)
				}
				r.Files = append(r.Files, s)
			})
		case "urls":
			seen := map[string]bool{}
			d.words(v, "roa.urls must be a list of URLs", func(_ int, v value, s string) {
				if (s != "" || emptyText(v)) && d.webAddress(v, s) {
					d.once(v, seen, s)
				}
				r.URLs = append(r.URLs, s)
			})
		case "rtr":
			r.RTR = d.rtrServers(v)
		case "refresh":
			r.Refresh = d.duration(v, "roa.refresh", time.Minute, 24*time.Hour, time.Second)
		case "policy":
			r.Policy = ROAPolicy(d.choice(v, "roa.policy", string(ROAStrict), string(ROADropInvalid), string(ROAOff)))
		}
	})
	if !r.Configured() && len(d.errs) == before {
		d.errorf(v, "roa has no source; give it files, urls or rtr, or remove it")
	}
	return r
}

// emptyText tells an empty text from a value that was refused already.
func emptyText(v value) bool { return v.node.Kind == scalarNode && !v.isNull() && v.node.Value == "" }

func (d *decoder) once(v value, seen map[string]bool, s string) {
	if seen[s] {
		d.errorf(v, "%q is there twice; remove one", shorten(s))
	}
	seen[s] = true
}

// webAddress checks an http or https URL.
func (d *decoder) webAddress(v value, s string) bool {
	const what = "roa.urls must be URLs such as https://dn42.burble.com/roa/dn42_roa_46.json"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		d.errorf(v, "%s, not %q", what, shorten(s))
	case u.Scheme != "http" && u.Scheme != "https":
		d.errorf(v, "%s; %q is neither http nor https", what, shorten(u.Scheme))
	case u.User != nil:
		d.errorf(v, "a URL of roa.urls cannot have a user and a password: it is printed; remove them")
	case u.Fragment != "":
		d.errorf(v, "a URL of roa.urls is fetched as a whole; remove #%s", shorten(u.Fragment))
	default:
		return true
	}
	return false
}

func (d *decoder) rtrServers(v value) (out []RTRServer) {
	seen := map[string]bool{}
	add := func(v value, s RTRServer) {
		if s.Address != "" {
			d.once(v, seen, s.Address)
		}
		out = append(out, s)
	}
	const what = "roa.rtr must be a list of servers, each HOST:PORT, or a mapping with its address"
	if v.node.Kind == scalarNode {
		d.words(v, what, func(_ int, v value, s string) { add(v, RTRServer{Address: d.rtrAddress(v, s)}) })
		return out
	}
	d.list(v, what, func(_ int, v value) {
		if v.node.Kind == scalarNode && !v.isNull() {
			s, _ := d.text(v, what)
			add(v, RTRServer{Address: d.rtrAddress(v, s)})
			return
		}
		var s RTRServer
		at, over := v, v
		d.mapping(v, rtrSection, func(key string, v value) {
			switch key {
			case "address":
				at = v
				text, _ := d.text(v, "address must be HOST:PORT such as 127.0.0.1:8282")
				s.Address = d.rtrAddress(v, text)
			case "over":
				over = v
				s.Dataplane = d.choice(v, key, overKernel, overDataplane) == overDataplane
			}
		})
		host, _, _ := net.SplitHostPort(s.Address)
		if _, err := netip.ParseAddr(host); err != nil && s.Dataplane && host != "" {
			d.errorf(over, "a server that is reached over the dataplane has an IP address, for there is no resolver; %q is a name", shorten(host))
		}
		if !d.has(v.path + "/address") {
			d.errorf(v, "the address of the server is missing; write address: HOST:PORT")
		}
		add(at, s)
	})
	return out
}

// rtrAddress checks the address of a server; "" was refused already.
func (d *decoder) rtrAddress(v value, s string) string {
	if s == "" && !emptyText(v) {
		return ""
	}
	return d.hostPort(v, s, "an RTR server must be HOST:PORT such as 127.0.0.1:8282", "[2001:db8::1]:8282")
}

// checkROA needs somebody whose routes can be validated.
func (d *decoder) checkROA(c *Config) {
	if d.has("roa") && !d.has("router/as") {
		d.errorKey("roa", "roa validates routes of BGP, which needs an AS number; write router: {as: NUMBER}")
	}
}

func (r ROA) block() *block {
	b := newBlock()
	if !r.Configured() {
		return b
	}
	b.words("files", r.Files)
	b.words("urls", r.URLs)
	if len(r.RTR) > 0 {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, s := range r.RTR {
			n := escaped(s.Address)
			if s.Dataplane {
				n = newBlock().flow().text("address", s.Address).text("over", overDataplane).node
			}
			list.Content = append(list.Content, n)
		}
		b.put("rtr", list)
	}
	b.duration("refresh", r.Refresh, DefaultROARefresh)
	return b.word("policy", string(r.Policy), string(ROADropInvalid))
}
