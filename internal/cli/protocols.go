package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// protocolDetail is what `show protocols all --json` prints: the row, and for BGP its session.
type protocolDetail struct {
	ctl.Protocol
	Session *ctl.BGPSession `json:"session,omitempty"`
}

func showProtocols(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "protocols [all] [NAME]",
		Short:   "Sources of routes, as in birdc",
		Example: "  rlr show protocols\n  rlr show protocols all router2",
		Args:    cobra.MaximumNArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			names, dir := completeRows((*ctl.Client).Protocols, protocolName)(cmd, nil, word)
			if len(args) == 0 {
				names = append(names, "all\twith details")
			}
			return names, dir
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name, all, err := protocolWords(args)
			if err != nil {
				return err
			}
			return o.ask(cmd, func(ctx context.Context, client *ctl.Client) error {
				rows, err := client.Protocols(ctx)
				if err != nil {
					return err
				}
				if name != "" {
					t := tableCommand[ctl.Protocol]{name: protocolName, thing: "protocol"}
					if rows, err = t.choose(rows, name); err != nil {
						return err
					}
				}
				if !all {
					if o.json {
						return jsonRows(cmd.OutOrStdout(), rows)
					}
					s := o.screen(cmd)
					renderProtocols(s, rows)
					return s.done()
				}
				details, err := protocolDetails(ctx, client, rows)
				if err != nil {
					return err
				}
				if o.json {
					return jsonRows(cmd.OutOrStdout(), details)
				}
				s := o.screen(cmd)
				renderProtocolDetails(s, details)
				return s.done()
			})
		},
	}
}

func protocolName(p ctl.Protocol) string { return p.Name }

func protocolWords(args []string) (name string, all bool, err error) {
	for _, a := range args {
		switch {
		case !all && a == "all":
			all = true
		case name == "":
			name = a
		default:
			return "", false, usage("one protocol at a time, not %q and %q", name, a)
		}
	}
	return name, all, nil
}

func protocolDetails(ctx context.Context, client *ctl.Client, rows []ctl.Protocol) ([]protocolDetail, error) {
	sessions, err := client.BGP(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]protocolDetail, len(rows))
	for i, p := range rows {
		out[i].Protocol = p
		for _, b := range sessions {
			if p.Proto == "bgp" && b.Name == p.Name {
				out[i].Session = &b
			}
		}
	}
	return out, nil
}

func renderProtocols(s *screen, rows []ctl.Protocol) {
	protocolTable(rows).print(s)
}

func protocolTable(rows []ctl.Protocol) *table {
	t := newTable("Name", "Proto", "Table", "State", " Since", " Routes", "Info")
	for _, p := range rows {
		t.add(c(p.Name), c(p.Proto), c(dash(p.Table)), styled(stateStyle(p.State), p.State), c(ago(p.SinceS)),
			c(count(p.Routes)), c(strings.TrimSpace(clean(p.Info)+"  "+madeText(p.Runtime, p.Dynamic))))
	}
	return t
}

func renderProtocolDetails(s *screen, rows []protocolDetail) {
	for i, d := range rows {
		if i > 0 {
			s.printf("\n")
		}
		renderProtocols(s, []ctl.Protocol{d.Protocol})
		if d.Session != nil {
			renderSession(s, *d.Session)
		}
	}
}

func renderSession(s *screen, b ctl.BGPSession) {
	line := func(label, format string, args ...any) {
		s.printf("  %-18s %s\n", label+":", fmt.Sprintf(format, args...))
	}
	line("BGP state", "%s", s.paint(stateStyle(b.State), b.State))
	neighbor := b.Address
	if b.Interface != "" {
		neighbor += " on " + b.Interface
	}
	line("Neighbor address", "%s", neighbor)
	line("Neighbor AS", "%d", b.AS)
	if b.RouterID != "" {
		line("Neighbor ID", "%s", b.RouterID)
	}
	if b.Group != "" {
		line("Group", "%s", b.Group)
	}
	line("Source address", "%s", dash(b.LocalAddr))
	line("Families", "%s", dash(strings.Join(b.Families, ", ")))
	if b.Uncounted {
		line("Routes", "not counted yet: BGP is busy")
	} else {
		line("Hold timer", "%gs, keepalive %gs", b.HoldTimeS, b.KeepaliveS)
		routes := fmt.Sprintf("%d received, %d accepted, %d advertised", b.Received, b.Accepted, b.Advertised)
		if b.CountsAgeS > 0 {
			routes += ", counted " + ago(b.CountsAgeS) + " ago"
		}
		line("Routes", "%s", routes)
	}
	for _, l := range b.MaxPrefix {
		text := fmt.Sprintf("%s %d of %d, then %s", l.Family, l.Prefixes, l.Limit, l.Action)
		if l.Blocked > 0 {
			text += fmt.Sprintf("; %d announcements left out", l.Blocked)
		}
		if l.Reached {
			text = s.paint(bad, text)
		}
		line("Max prefix", "%s", text)
	}
	if b.BFD != "" {
		line("BFD", "%s", s.paint(stateStyle(b.BFD), b.BFD))
	}
	if b.AddPath != "" {
		line("Add path", "%s", b.AddPath)
	}
	if b.Role != "" {
		line("Role", "we are its %s; %d leaks", b.Role, b.Leaks)
	}
	if b.Malformed > 0 {
		line("Malformed updates", "%d, taken as withdrawals", b.Malformed)
	}
	if g := b.GracefulRestart; g != nil {
		line("Graceful restart", "%s", gracefulText(*g))
	}
	line("Flaps", "%d", b.Flaps)
	if b.LastError != "" {
		line("Last error", "%s", s.paint(bad, clean(b.LastError)))
	}
}

// gracefulText is the state of graceful restart, and what each side asks of the other.
func gracefulText(g ctl.GracefulRestart) string {
	words := []string{g.State}
	if g.HelpingS > 0 {
		words[0] += " for " + ago(g.HelpingS)
	}
	if g.Stale > 0 {
		words = append(words, count(g.Stale)+" stale routes")
	}
	if len(g.PeerFamilies) > 0 {
		keep := fmt.Sprintf("its %s kept for %gs", strings.Join(g.PeerFamilies, ", "), g.PeerRestartS)
		if g.PeerLongLivedS > 0 {
			keep += fmt.Sprintf(" and as a last resort for %gs", g.PeerLongLivedS)
		}
		words = append(words, keep)
	}
	if g.Restarter && g.State != ctl.GracefulNotNegotiated {
		words = append(words, "it keeps ours")
	}
	return strings.Join(words, "; ")
}
