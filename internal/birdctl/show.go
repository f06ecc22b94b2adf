package birdctl

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"rlr/internal/ctl"
)

const protoBGP = "bgp"

// birdProtos are BIRD's names of what routes come from.
var birdProtos = map[string]string{protoBGP: "BGP", "static": "Static", "direct": "Direct", "learned": "Kernel", "grpc": "Pipe"}

// moment writes a time as BIRD's "iso short ms": today's by the clock, older ones by their day.
func moment(ageS float64) string {
	age := time.Duration(ageS * float64(time.Second))
	at := time.Now().Add(-age)
	if age < 20*time.Hour {
		return at.Format("15:04:05.000")
	}
	return at.Format(time.DateOnly)
}

func (c *client) showStatus(ctx context.Context) error {
	s, err := c.server.opt.Router.Status(ctx)
	if err != nil {
		return err
	}
	const long = "2006-01-02 15:04:05.000"
	began := time.Now().Add(-time.Duration(s.UptimeS * float64(time.Second))).Format(long)
	c.line(codeVersion, "BIRD 2.0.12 (rlr %s, dataplane %s %s)", s.Version, s.Dataplane.Kind, s.Dataplane.Version)
	c.line(codeUptime, "Router ID is %s", s.RouterID)
	c.line(codeUptime, "Hostname is %s", s.Name)
	c.line(codeUptime, "Current server time is %s", time.Now().Format(long))
	c.line(codeUptime, "Last reboot on %s", began)
	c.line(codeUptime, "Last reconfiguration on %s", began)
	c.end(codeStatus, "Daemon is up and running")
	return nil
}

func (c *client) showMemory(ctx context.Context) error {
	s, err := c.server.opt.Router.Status(ctx)
	if err != nil {
		return err
	}
	line := func(what string, bytes uint64) {
		c.line(codeMemory, "%-17s %8.1f MB", what, float64(bytes)/(1<<20))
	}
	c.line(codeMemory, "BIRD memory usage")
	line("Routing tables:", s.FIB.Bytes)
	if s.Dataplane.RSSBytes > 0 {
		line("VPP:", s.Dataplane.RSSBytes)
	}
	line("Total:", s.RSSBytes+s.Dataplane.RSSBytes)
	c.ok()
	return nil
}

func (c *client) showProtocols(ctx context.Context, w words) error {
	all := w.take("all")
	some, err := c.matching(ctx, w, true)
	if err != nil {
		return err
	}
	sessions := map[string]ctl.BGPSession{}
	list, err := c.server.opt.Router.BGP(ctx)
	if err != nil {
		return err
	}
	for _, b := range list {
		sessions[b.Name] = b
	}
	c.line(codeProtocolHead, "%-10s %-10s %-10s %-6s %-12s  %s", "Name", "Proto", "Table", "State", "Since", "Info")
	for _, p := range some {
		state, info := p.State, ""
		b, isBGP := sessions[p.Name]
		if isBGP {
			info = sessionInfo(b)
			if b.Disabled {
				state = "down"
			}
		}
		c.line(codeProtocol, "%-10s %-10s %-10s %-6s %-12s  %s", p.Name, birdProtos[p.Proto], "---", state, moment(p.SinceS), info)
		if all {
			if isBGP {
				c.bgpDetails(ctx, b)
			}
			c.line(codeDetails, "")
		}
	}
	c.ok()
	return nil
}

// sessionInfo is what BIRD writes of a session in one line.
func sessionInfo(b ctl.BGPSession) string {
	state := b.State
	if b.Disabled {
		return ""
	}
	if b.State == established || b.LastError == "" {
		return fmt.Sprintf("%-14s", state)
	}
	return fmt.Sprintf("%-14sError: %s", state, oneLine(b.LastError))
}

const established = "Established"

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

func (c *client) bgpDetails(ctx context.Context, b ctl.BGPSession) {
	line := func(format string, args ...any) { c.line(codeDetails, "  "+format, args...) }
	status, _ := c.server.opt.Router.Status(ctx) // only for our AS number: what is not known is 0
	address := b.Address
	if a, err := netip.ParseAddr(address); err == nil && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		address += "%" + b.Interface
	}
	line("BGP state:          %s", b.State)
	line("  Neighbor address: %s", address)
	line("  Neighbor AS:      %d", b.AS)
	line("  Local AS:         %d", status.AS)
	if b.State == established {
		kind := "external"
		if b.AS == status.AS {
			kind = "internal"
		}
		line("  Neighbor ID:      %s", b.RouterID)
		line("  Session:          %s AS4", kind)
		line("  Source address:   %s", b.LocalAddr)
		line("  Hold timer:       %.0f", b.HoldTimeS)
		line("  Keepalive timer:  %.0f", b.KeepaliveS)
	}
	if b.LastError != "" {
		line("  Last error:       %s", oneLine(b.LastError))
	}
	state := "DOWN"
	if b.State == established {
		state = "UP"
	}
	for _, f := range b.Families {
		line("Channel %s", f)
		line("  State:          %s", state)
		line("  Table:          %s", tableOf(f == "ipv6"))
		line("  Preference:     100")
		for _, n := range b.Prefixes {
			if n.Family == f {
				line("  Routes:         %d imported, %d filtered, %d exported, %d preferred", n.Accepted, n.Received-min(n.Accepted, n.Received), n.Advertised, n.Accepted)
			}
		}
	}
}

func tableOf(ip6 bool) string {
	if ip6 {
		return "master6"
	}
	return "master4"
}

func (c *client) showInterfaces(ctx context.Context, summary bool) error {
	all, err := c.server.opt.Router.Interfaces(ctx)
	if err != nil {
		return err
	}
	if summary {
		c.line(codeSummaryHead, "%-10s %-6s %-18s %s", "Interface", "State", "IPv4 address", "IPv6 address")
	}
	for _, i := range all {
		state, flags := "down", "AdminDown LinkDown"
		switch {
		case i.Admin && i.Link:
			state, flags = "up", "AdminUp LinkUp"
		case i.Admin:
			flags = "AdminUp LinkDown"
		}
		if !summary {
			kind := "MultiAccess Broadcast Multicast"
			if i.Kind == "loopback" {
				kind = "MultiAccess Loopback"
			}
			c.line(codeInterface, "%s %s (index=%d)", i.Name, state, i.SwIfIndex)
			c.line(codeFlags, "\t%s %s MTU=%d", kind, flags, i.MTU)
			for _, a := range i.Addresses {
				c.line(codeAddress, "\t%s (Preferred, scope %s)", a, scope(a))
			}
			continue
		}
		var v4, v6 string
		for _, a := range i.Addresses {
			if strings.Contains(a, ":") && v6 == "" {
				v6 = a
			} else if !strings.Contains(a, ":") && v4 == "" {
				v4 = a
			}
		}
		c.line(codeSummary, "%-10s %-6s %-18s %s", i.Name, state, v4, v6)
	}
	c.ok()
	return nil
}

func scope(address string) string {
	p, err := netip.ParsePrefix(address)
	switch a := p.Addr(); {
	case err != nil:
		return "undef"
	case a.IsLoopback():
		return "host"
	case a.IsLinkLocalUnicast():
		return "link"
	case a.IsPrivate():
		return "site"
	}
	return "univ"
}

func (c *client) showBFD(ctx context.Context, w words) error {
	if len(w) > 0 && text(w[0]) == "bfd1" {
		w.next()
	}
	if err := w.done(); err != nil {
		return err
	}
	all, err := c.server.opt.Router.BFD(ctx)
	if err != nil {
		return err
	}
	c.line(codeBFD, "bfd1:")
	c.line(codeBFD, "%-25s %-10s %-10s %-12s  %8s %8s", "IP address", "Interface", "State", "Since", "Interval", "Timeout")
	names := map[string]string{"up": "Up", "init": "Init", "down": "Down", "admin-down": "AdminDown", "failed": "Down"}
	for _, b := range all {
		c.line(codeBFD, "%-25s %-10s %-10s %-12s  %8.3f %8.3f", b.Peer, b.Interface, names[b.State], moment(b.SinceS), b.IntervalMs/1000, b.IntervalMs*float64(b.Multiplier)/1000)
	}
	c.ok()
	return nil
}
