package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// servicesScenario is two sites without a single privilege whose programs reach each other: at each site a web server on the host's
// loopback is exposed on the site's overlay address, and a SOCKS server leads into the overlay.
//
//	web server 1 ─expose─ router1 ──tun12── router2 ─SOCKS─ curl
//	        curl ─SOCKS─ router1 ──tun12── router2 ─expose─ web server 2
func servicesScenario() scenario {
	return scenario{
		name:    "services",
		summary: "Two sites whose hosts' programs reach each other over the overlay: SOCKS into it, and exposed services out of it",
		checks: []CheckInfo{
			{"processes-unprivileged", "every router is an unprivileged process of its own on the dataplane asked for", "router2 is started in the lab's session with all privileges that the lab has"},
			{"ping", "router2 pings router1's overlay address", "a filter of router1's denies ICMP"},
			{"fetch", "a client at site 2 fetches a page of 1 MiB from 172.20.1.1:80, a web server on site 1's loopback", "router1 exposes it on port 81"},
			{"fetch-back", "and the other way round, from 172.20.2.1:80", "router2 exposes it on port 81"},
			{"curl", "curl gets it, too, from port 8080 (or Go's client, where there is no curl)", "router1 exposes it on port 8081"},
			{"closed", "a port that nobody has exposed gives nothing", "router1 exposes port 82"},
		},
		network: servicesNetwork,
		story:   servicesStory,
	}
}

const (
	pageSize   = 1 << 20
	fetchLimit = 10 * time.Second
	closedWait = 2 * time.Second
)

func servicesNetwork(sabotage string) network {
	router := func(n, other int) node {
		r := node{
			name: siteNode("router", n), direct: sabotage == "processes-unprivileged" && n == 2,
			interfaces: []iface{
				{name: "dum0", loopback: true, addresses: []string{loop4(n) + "/32"}},
				{name: "tun12", tunnel: "tun12", addresses: []string{fmt.Sprintf("172.20.12.%d/30", n)}},
			},
			static: []static{{prefix: loop4(other) + "/32", via: fmt.Sprintf("172.20.12.%d", other)}},
		}
		if sabotage == "ping" && n == 1 {
			r.acls = []ruleList{{"mute", []string{"{action: deny, protocol: icmp}", "{action: permit}"}}}
			r.iface("tun12").aclIn = []string{"mute"}
		}
		return r
	}
	return network{nodes: []node{router(1, 2), router(2, 1)}}
}

// site is what a host has besides its router.
type site struct {
	page  string // of its web server
	web   string // where that listens
	socks string // where the router does
}

func servicesStory(ctx context.Context, p *play) error {
	p.check(ctx, "processes-unprivileged", p.checkProcesses)
	var sites [2]*site
	for i := range sites {
		s, err := p.newSite(ctx, i+1)
		if err != nil {
			return err
		}
		sites[i] = s
		node := p.net.node(siteNode("router", i+1))
		node.services = s.services(i+1, p.opt.Sabotage)
		if err := p.writeConfig(*node); err != nil {
			return err
		}
		if err := p.rlrWithin(ctx, convergeLimit, node.name, "reload"); err != nil {
			return err
		}
	}
	p.check(ctx, "ping", func(ctx context.Context) (string, error) {
		r, err := p.pingUntil(ctx, "router2", loop4(1), 64)
		return fmt.Sprintf("%d of %d, %.2f ms", r.Summary.Received, r.Summary.Sent, r.Summary.AvgMs), err
	})
	fetch := func(check string, client, server int) {
		p.check(ctx, check, func(ctx context.Context) (string, error) {
			began := time.Now()
			err := until(ctx, fetchLimit, func() error {
				began = time.Now()
				return sites[client-1].gets(ctx, fmt.Sprintf("http://%s/", loop4(server)), sites[server-1].page)
			})
			return fmt.Sprintf("%d bytes from %s:80 through the SOCKS server of site %d in %d ms", pageSize, loop4(server), client, time.Since(began).Milliseconds()), err
		})
	}
	fetch("fetch", 2, 1)
	fetch("fetch-back", 1, 2)
	p.check(ctx, "curl", func(ctx context.Context) (string, error) { return sites[1].curls(ctx, loop4(1)+":8080", sites[0].page) })
	p.check(ctx, "closed", func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, closedWait)
		defer cancel()
		err := sites[1].gets(ctx, fmt.Sprintf("http://%s:82/", loop4(1)), sites[0].page)
		if err == nil {
			return "", fmt.Errorf("%s:82 gives the page", loop4(1))
		}
		if errors.Is(err, context.DeadlineExceeded) { // VPP does not refuse: it says nothing
			return "no answer in " + closedWait.String(), nil
		}
		return "refused", nil
	})
	return nil
}

// services is what router n has for the site: its SOCKS server, and the web server on two ports.
func (s *site) services(n int, sabotage string) string {
	ports := []int{80, 8080}
	switch {
	case sabotage == "fetch" && n == 1, sabotage == "fetch-back" && n == 2:
		ports[0] = 81
	case sabotage == "curl" && n == 1:
		ports[1] = 8081
	case sabotage == "closed" && n == 1:
		ports = append(ports, 82)
	}
	var exposed []string
	for _, port := range ports {
		exposed = append(exposed, fmt.Sprintf(`{listen: "%s:%d", to: "%s"}`, loop4(n), port, s.web))
	}
	return fmt.Sprintf(`{socks5: {listen: "%s"}, expose: [%s]}`, s.socks, strings.Join(exposed, ", "))
}

// newSite has a web server on the host's loopback until the play ends.
func (p *play) newSite(ctx context.Context, n int) (*site, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, 0).String())
	if err != nil {
		return nil, fmt.Errorf("web server: %w", err)
	}
	socks, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &site{page: strings.Repeat(fmt.Sprintf("site %d\n", n), pageSize/7+1)[:pageSize], web: l.Addr().String(), socks: socks}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s.page) }),
		ReadHeaderTimeout: fetchLimit,
	}
	before := p.endRelay
	p.endRelay = func() { server.Close(); before() }
	p.owned.Go(func() { server.Serve(l) }) //nolint:errcheck // closed
	return s, nil
}

// freePort is a TCP port of 127.0.0.1 that nobody listens at.
func freePort() (string, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, 0).String())
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// gets fetches a page by the site's SOCKS server.
func (s *site) gets(ctx context.Context, from, want string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	t := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: s.socks}), DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s: %d bytes of another page", from, len(got))
	}
	return err
}

// curls is gets by the program that people use.
func (s *site) curls(ctx context.Context, server, want string) (string, error) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		return "by Go's client: there is no curl", s.gets(ctx, fmt.Sprintf("http://%s/", server), want)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, curl, "-sS", "--fail", "--proxy", "socks5h://"+s.socks, "http://"+server+"/").Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return "", fmt.Errorf("curl: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	case err != nil:
		return "", fmt.Errorf("curl: %w", err)
	case string(out) != want:
		return "", fmt.Errorf("curl got %d bytes of another page", len(out))
	}
	return fmt.Sprintf("curl --proxy socks5h://%s http://%s/: %d bytes", s.socks, server, len(out)), nil
}
