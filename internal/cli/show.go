package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// showCommand holds all that a router can tell. Each command below it fetches rows and has one renderer.
func showCommand(o *options) *cobra.Command {
	show := &cobra.Command{
		Use:     "show",
		Short:   "Show what the router knows",
		Example: "  rlr show status\n  rlr show route for 10.2.0.2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("show what? %s", strings.Join(childNames(cmd), ", "))
		},
	}
	show.AddCommand(
		showStatus(o),
		showTable(o, tableCommand[ctl.Interface]{
			use: "interfaces [NAME]", short: "Interfaces of the dataplane, with counters",
			example: "  rlr show interfaces\n  rlr show interfaces tun12 --json",
			fetch:   (*ctl.Client).Interfaces, render: renderInterfaces,
			name: func(i ctl.Interface) string { return i.Name }, thing: "interface",
		}),
		showTable(o, tableCommand[ctl.Neighbor]{
			use: "neighbors [INTERFACE]", short: "ARP and ND entries of the dataplane (BGP's neighbours: show bgp)",
			example: "  rlr show neighbors\n  rlr show neighbors eth0",
			fetch:   (*ctl.Client).Neighbors, render: renderNeighbors,
			name: func(n ctl.Neighbor) string { return n.Interface },
			all:  completeInterfaces,
		}),
		showProtocols(o),
		showTable(o, tableCommand[ctl.BGPSession]{
			use: "bgp [NEIGHBOR]", short: "BGP sessions",
			example: "  rlr show bgp\n  rlr show bgp router2 --json",
			fetch:   (*ctl.Client).BGP, render: renderBGP,
			name: func(b ctl.BGPSession) string { return b.Name }, thing: "BGP neighbour",
		}),
		showRoute(o),
		showFIB(o),
		showROA(o),
		showTable(o, tableCommand[ctl.BFDSession]{
			use: "bfd [NEIGHBOR]", short: "BFD sessions, by which dead links are found",
			example: "  rlr show bfd\n  rlr show bfd router2 --json",
			fetch:   (*ctl.Client).BFD, render: renderBFD,
			name: func(b ctl.BFDSession) string { return b.Neighbor }, thing: "neighbour with BFD",
		}),
		showTable(o, tableCommand[ctl.WireGuard]{
			use: "wireguard [NAME]", short: "WireGuard links",
			example: "  rlr show wireguard",
			fetch:   (*ctl.Client).WireGuard, render: renderWireGuard,
			name: func(w ctl.WireGuard) string { return w.Name }, thing: "WireGuard link",
		}),
		showTable(o, tableCommand[ctl.ACL]{
			use: "acl [NAME]", short: "Packet filters: where they are applied, and what their rules decided",
			example: "  rlr show acl\n  rlr show acl no8080 --json",
			fetch:   (*ctl.Client).ACL, render: renderACLs,
			name: func(a ctl.ACL) string { return a.Name }, thing: "ACL",
		}),
		showTable(o, tableCommand[ctl.ErrorRecord]{
			use: "errors [SUBSYSTEM]", short: "What went wrong, and how often",
			example: "  rlr show errors",
			fetch:   (*ctl.Client).Errors, render: renderErrors,
			name: func(e ctl.ErrorRecord) string { return e.Subsystem },
		}),
		showLog(o),
	)
	return show
}

// doWhat is what a command does that only has others below it: it says which.
func doWhat(cmd *cobra.Command, _ []string) error {
	return usage("do what? %s", strings.Join(childNames(cmd), ", "))
}

func childNames(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// tableCommand describes a command that prints rows with a name.
type tableCommand[R any] struct {
	use, short, example string

	fetch  func(*ctl.Client, context.Context) ([]R, error)
	render func(*screen, []R)
	name   func(R) string // what the argument chooses by
	thing  string         // what a name stands for, where an unknown name is a mistake; "" where no row is an answer too
	all    cobra.CompletionFunc
}

func showTable[R any](o *options, t tableCommand[R]) *cobra.Command {
	complete := t.all
	if complete == nil {
		complete = completeRows(t.fetch, t.name)
	}
	return &cobra.Command{
		Use: t.use, Short: t.short, Example: t.example,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				rows, err := t.fetch(c, ctx)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					if rows, err = t.choose(rows, args[0]); err != nil {
						return err
					}
				}
				if o.json {
					return jsonRows(cmd.OutOrStdout(), rows)
				}
				s := o.screen(cmd)
				t.render(s, rows)
				return s.done()
			})
		},
	}
}

// choose keeps the rows with the name, or with the only name that it abbreviates.
func (t tableCommand[R]) choose(rows []R, word string) ([]R, error) {
	var all []string
	seen := make(map[string]bool)
	for _, r := range rows {
		if n := t.name(r); !seen[n] {
			seen[n] = true
			all = append(all, n)
		}
	}
	name, err := unique(word, all)
	if err != nil {
		return nil, err
	}
	if name == "" && t.thing != "" {
		sort.Strings(all)
		return nil, ctl.NotFound("no %s %q (there is: %s)", t.thing, word, dash(strings.Join(all, ", ")))
	}
	out := []R{}
	for _, r := range rows {
		if t.name(r) == name {
			out = append(out, r)
		}
	}
	return out, nil
}

func showStatus(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "The router and its dataplane in a few lines",
		Example: "  rlr show status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.ask(cmd, func(ctx context.Context, c *ctl.Client) error {
				st, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), st)
				}
				s := o.screen(cmd)
				renderStatus(s, st)
				return s.done()
			})
		},
	}
}

func renderStatus(s *screen, st ctl.Status) {
	line := func(label, value string) { s.printf("%-12s %s\n", label, value) }
	s.printf("%s, rlr %s\n", s.paint(bold, st.Name), st.Version)
	line("Router ID", dash(st.RouterID))
	if st.AS != 0 {
		line("AS", count(st.AS))
	}
	line("Up", fmt.Sprintf("%s, pid %d", ago(st.UptimeS), st.PID))
	line("Config", dash(st.Config))
	d := st.Dataplane
	state := s.paint(stateStyle(d.State), d.State)
	if d.PID == 0 { // nobody has answered yet
		line("Dataplane", fmt.Sprintf("%s, %s", d.Kind, state))
	} else {
		line("Dataplane", fmt.Sprintf("%s %s, %s, up %s, pid %d", d.Kind, clean(d.Version), state, ago(d.UptimeS), d.PID))
	}
	if d.Instead != "" {
		line("", s.paint(notice, "instead of VPP: "+clean(d.Instead)))
	}
	if d.Restarts > 0 {
		line("", s.paint(notice, fmt.Sprintf("restarted %d times", d.Restarts)))
	}
	if d.Error != "" {
		line("", s.paint(bad, clean(d.Error)))
	}
	line("API socket", dash(d.APISocket))
	sessions := fmt.Sprintf("%d of %d established", st.Sessions.Established, st.Sessions.Total)
	if st.Sessions.Established < st.Sessions.Total {
		sessions = s.paint(notice, sessions)
	}
	line("Sessions", sessions)
	renderFIBStatus(s, line, st)
	memory := bytesText(st.RSSBytes)
	if d.RSSBytes > 0 {
		memory += fmt.Sprintf(", %s %s", d.Kind, bytesText(d.RSSBytes))
	}
	line("Memory", memory)
	for _, h := range d.Heaps {
		line("", heapText(s, h))
	}
	line("CPU time", fmt.Sprintf("%.2f s", st.CPUS))
	renderDiffers(s, d.Differs)
}

// heapText tells how full a heap is, in warning colours when little is left.
func heapText(s *screen, h ctl.Heap) string {
	share := float64(h.UsedBytes) / float64(max(h.TotalBytes, 1))
	text := fmt.Sprintf("%s %s of %s (%.0f %%)", clean(h.Name), bytesText(h.UsedBytes), bytesText(h.TotalBytes), 100*share)
	switch {
	case share > 0.9:
		return s.paint(bad, text)
	case share > 0.75:
		return s.paint(notice, text)
	}
	return text
}

// renderDiffers lists what a dataplane's API has otherwise than the router needs it.
func renderDiffers(s *screen, list []ctl.APIMessage) {
	if len(list) == 0 {
		return
	}
	s.printf("\nThe dataplane's API differs:\n")
	t := newTable("Message", "Feature", "Need", "Wanted", "Found")
	for _, m := range list {
		need := c(m.Need)
		if m.Need == "required" {
			need = styled(bad, m.Need)
		}
		t.add(c(m.Message), c(m.Feature), need, c(m.Wanted), c(clean(cmp.Or(m.Found, "none"))))
	}
	t.print(s)
}

// stateStyle colours the words for states that the tables use.
func stateStyle(state string) style {
	switch state {
	case "up", "ok", "connected", "Established", "installed":
		return good
	case "down", "failed", "Idle", "error":
		return bad
	case "":
		return plain
	}
	return notice
}

func upDown(up bool) cell {
	if up {
		return styled(good, "up")
	}
	return styled(bad, "down")
}

func renderInterfaces(s *screen, rows []ctl.Interface) {
	t := newTable("Name", " Idx", "Kind", "Admin", "Link", " MTU", "VRF", "Address",
		" Rx packets", " Rx bytes", " Tx packets", " Tx bytes", " Drops")
	for _, i := range rows {
		addrs := append([]string{}, i.Addresses...)
		if i.Unnumbered != "" {
			addrs = append(addrs, "as "+i.Unnumbered)
		}
		if len(addrs) == 0 {
			addrs = []string{"-"}
		}
		index := dash("")
		if i.Dataplane != "" {
			index = count(i.SwIfIndex)
		}
		t.add(c(i.Name), c(index), c(i.Kind), upDown(i.Admin), upDown(i.Link), c(count(i.MTU)),
			c(dash(i.VRF)), c(addrs[0]), c(count(i.RxPackets)), c(bytesText(i.RxBytes)),
			c(count(i.TxPackets)), c(bytesText(i.TxBytes)), c(count(i.Drops)))
		for _, a := range addrs[1:] {
			t.add(c(""), c(""), c(""), c(""), c(""), c(""), c(""), c(a))
		}
	}
	t.print(s)
	for _, i := range rows {
		if i.Error != "" {
			s.printf("%s: %s: %s\n", i.Name, s.paint(stateStyle(i.State), i.State), clean(i.Error))
		}
	}
}

func renderNeighbors(s *screen, rows []ctl.Neighbor) {
	t := newTable("Address", "MAC", "Interface", "Kind", " Age")
	for _, n := range rows {
		kind, age := "dynamic", ago(n.AgeS)
		if n.Static {
			kind, age = "static", "-"
		}
		t.add(c(n.Address), c(n.MAC), c(n.Interface), c(kind), c(age))
	}
	t.print(s)
}

func renderBGP(s *screen, rows []ctl.BGPSession) {
	heads := []string{"Name", "Address", "Interface", " AS", "State", " Uptime", " Received", " Accepted", " Advertised"}
	made := slices.ContainsFunc(rows, func(b ctl.BGPSession) bool { return b.Runtime || b.Dynamic })
	if made {
		heads = append(heads, "Made")
	}
	t := newTable(append(heads, "Last error")...)
	oldest := 0.0
	for _, b := range rows {
		oldest = max(oldest, b.CountsAgeS)
		figure := func(n uint64) cell {
			if b.Uncounted {
				return c("-")
			}
			return c(count(n))
		}
		state, up := styled(stateStyle(b.State), b.State), "-"
		if b.Disabled {
			state = styled(faint, "disabled")
		}
		if b.State == "Established" {
			up = ago(b.UptimeS)
		}
		cells := []cell{
			c(b.Name), c(b.Address), c(dash(b.Interface)), c(count(b.AS)), state, c(up), figure(b.Received),
			figure(b.Accepted), figure(b.Advertised),
		}
		if made {
			cells = append(cells, c(dash(madeText(b.Runtime, b.Dynamic))))
		}
		t.add(append(cells, c(clean(b.LastError)))...)
	}
	t.print(s)
	if oldest > 0 {
		s.printf("\nBGP is busy: routes were counted up to %s ago.\n", ago(oldest))
	}
}

// madeText says how something came to be that is not in the configuration file.
func madeText(runtime, dynamic bool) string {
	switch {
	case dynamic:
		return "dynamic"
	case runtime:
		return "runtime"
	}
	return ""
}

func renderWireGuard(s *screen, rows []ctl.WireGuard) {
	for n, w := range rows {
		if n > 0 {
			s.printf("\n")
		}
		line := func(label, value string) { s.printf("  %-12s %s\n", label, value) }
		s.printf("%s\n", s.paint(bold, w.Name))
		line("public key", w.PublicKey)
		line("listening", dash(w.Listen))
		line("peer", w.PeerKey)
		line("endpoint", dash(clean(w.Endpoint)))
		shake := s.paint(notice, "none yet")
		if w.HandshakeAgeS >= 0 {
			shake = ago(w.HandshakeAgeS) + " ago"
		}
		line("handshake", shake)
		line("transfer", fmt.Sprintf("%s received, %s sent", bytesText(w.RxBytes), bytesText(w.TxBytes)))
		extra := "no preshared key"
		if w.PresharedKey {
			extra = "preshared key"
		}
		if w.KeepaliveS > 0 {
			extra += ", keepalive every " + ago(w.KeepaliveS)
		}
		line("with", extra)
		if w.DataplaneDrops > 0 {
			line("dropped", fmt.Sprintf("%d frames that the dataplane had no room for", w.DataplaneDrops))
		}
	}
}

func renderBFD(s *screen, rows []ctl.BFDSession) {
	if len(rows) == 0 {
		s.printf("no BFD sessions: a neighbour has one while its session is established and its configuration says bfd\n")
		return
	}
	t := newTable("Neighbor", "Interface", "Local", "Peer", "State", " Since", " Interval", " Multiplier", "Error")
	for _, b := range rows {
		t.add(c(dash(b.Neighbor)), c(dash(b.Interface)), c(dash(b.Local)), c(b.Peer), styled(stateStyle(b.State), b.State), c(ago(b.SinceS)),
			c(fmt.Sprintf("%g ms", b.IntervalMs)), c(count(uint64(b.Multiplier))), c(clean(b.Error)))
	}
	t.print(s)
}

func renderErrors(s *screen, rows []ctl.ErrorRecord) {
	if len(rows) == 0 {
		s.printf("no errors\n")
		return
	}
	t := newTable(" Count", " Last", "Subsystem", "Object", "Error")
	for _, e := range rows {
		t.add(c(count(e.Count)), c(ago(e.LastAgoS)+" ago"), c(e.Subsystem), c(dash(clean(e.Object))), styled(bad, clean(e.Error)))
	}
	t.print(s)
}

func showLog(o *options) *cobra.Command {
	var f ctl.LogFilter
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "The last lines of the router's log",
		Example: "  rlr show log -n 20\n  rlr show log --follow",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := o.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if o.json {
				return streamJSON(cmd.OutOrStdout(), func(visit func(ctl.LogRecord) error) error {
					return client.Log(cmd.Context(), f, visit)
				})
			}
			s := o.screen(cmd)
			return client.Log(cmd.Context(), f, func(r ctl.LogRecord) error {
				renderLog(s, r)
				return s.done()
			})
		},
	}
	cmd.Flags().IntVarP(&f.Lines, "lines", "n", 50, "how `MANY` lines; 0 is all that the router keeps")
	cmd.Flags().BoolVarP(&f.Follow, "follow", "f", false, "go on with new lines as they come")
	return cmd
}

func renderLog(s *screen, r ctl.LogRecord) {
	st := plain
	switch r.Level {
	case "warning":
		st = notice
	case "error", "fatal", "panic":
		st = bad
	case "debug", "trace":
		st = faint
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.Time, s.paint(st, fmt.Sprintf("%-7s", r.Level)), clean(r.Message))
	keys := make([]string, 0, len(r.Fields))
	for k := range r.Fields {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%s", s.paint(faint, clean(k)), quote(clean(r.Fields[k])))
	}
	s.printf("%s\n", b.String())
}

// quote marks where a value with spaces begins and ends.
func quote(v string) string {
	if v == "" || strings.ContainsAny(v, ` "=`) {
		return fmt.Sprintf("%q", v)
	}
	return v
}

// streamJSON prints the rows of a stream as one array.
func streamJSON[R any](w io.Writer, run func(visit func(R) error) error) error {
	a := &jsonArray{w: w}
	if err := run(func(r R) error { return a.add(r) }); err != nil {
		return err
	}
	return a.close()
}
