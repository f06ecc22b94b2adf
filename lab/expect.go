package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"rlr/internal/ctl"
)

// This file judges answers of the command line. Its functions are pure, and tested with canned answers.

const (
	established = "Established"
	holdExpired = "Hold Timer Expired" // RFC 4271 §6.5
)

// sessionsUp says which sessions of a router are not Established.
func sessionsUp(router string, rows []ctl.BGPSession) error {
	var down []string
	for _, b := range rows {
		if b.State != established {
			text := fmt.Sprintf("%s-%s %s", router, b.Name, b.State)
			if b.LastError != "" {
				text += " (" + b.LastError + ")"
			}
			down = append(down, text)
		}
	}
	if len(down) > 0 {
		return fmt.Errorf("not Established: %s", strings.Join(down, ", "))
	}
	return nil
}

// wantPath is a path that a route must have.
type wantPath struct {
	iface  string
	asPath string
	best   bool
}

func (w wantPath) String() string {
	s := fmt.Sprintf("%s [%s]", w.iface, w.asPath)
	if w.best {
		s = "best " + s
	}
	return s
}

// routeHas checks that a prefix is installed and has exactly these BGP paths, in any order.
func routeHas(rows []ctl.Route, prefix string, want ...wantPath) error {
	i := slices.IndexFunc(rows, func(r ctl.Route) bool { return r.Prefix == prefix })
	if i < 0 {
		return fmt.Errorf("no route to %s", prefix)
	}
	r := rows[i]
	if r.State != "installed" {
		return fmt.Errorf("%s is %s %s", prefix, r.State, r.Error)
	}
	var got []wantPath
	for _, p := range r.Paths {
		got = append(got, wantPath{p.Interface, p.ASPath, p.Best})
	}
	same := len(got) == len(want)
	for _, w := range want {
		same = same && slices.Contains(got, w)
	}
	if !same {
		return fmt.Errorf("%s: %s instead of %s", prefix, pathList(got), pathList(want))
	}
	return nil
}

func pathList(paths []wantPath) string {
	if len(paths) == 0 {
		return "no path"
	}
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}

// leadsTo checks that the best path of an installed route leads to the interface.
func leadsTo(rows []ctl.Route, prefix, iface string) error {
	i := slices.IndexFunc(rows, func(r ctl.Route) bool { return r.Prefix == prefix })
	if i < 0 {
		return fmt.Errorf("no route to %s", prefix)
	}
	for _, path := range rows[i].Paths {
		if path.Best && path.Interface != iface {
			return fmt.Errorf("the route to %s leads to %s, not to %s", prefix, path.Interface, iface)
		}
	}
	if rows[i].State != "installed" {
		return fmt.Errorf("%s is %s %s", prefix, rows[i].State, rows[i].Error)
	}
	return nil
}

// fibAgrees compares what a router wants with what its dataplane holds, both ways: every route is installed and forwards as
// its best paths say, and the router's entries in the dataplane are no more than its routes. It returns how many agree.
func fibAgrees(routes []ctl.Route, entries []ctl.FIBEntry) (int, error) {
	held := make(map[string]ctl.FIBEntry)
	for _, e := range entries {
		held[e.Prefix] = e
	}
	ours := ""
	wanted := make(map[string]bool)
	for _, r := range routes {
		wanted[r.Prefix] = true
		e, ok := held[r.Prefix]
		if !ok {
			return 0, fmt.Errorf("%s (%s) is not in the dataplane", r.Prefix, r.State)
		}
		if r.State != "installed" {
			return 0, fmt.Errorf("%s is %s; the dataplane has %s", r.Prefix, r.State, entryText(e))
		}
		if err := sameForwarding(r, e); err != nil {
			return 0, err
		}
		if !isDirect(r) {
			if ours != "" && e.Source != ours {
				return 0, fmt.Errorf("%s is held by source %s, other routes by %s", r.Prefix, e.Source, ours)
			}
			ours = e.Source
		}
	}
	for _, e := range entries {
		if ours != "" && e.Source == ours && !wanted[e.Prefix] {
			return 0, fmt.Errorf("the dataplane has %s, which is not a route", entryText(e))
		}
	}
	return len(routes), nil
}

func isDirect(r ctl.Route) bool {
	return slices.ContainsFunc(r.Paths, func(p ctl.Path) bool { return p.Best && p.Protocol == "direct" })
}

// dropTypes are the dataplane's names of what a route does instead of forwarding.
var dropTypes = map[string]string{"blackhole": "drop", "unreachable": "unreachable", "prohibit": "prohibit"}

func sameForwarding(r ctl.Route, e ctl.FIBEntry) error {
	differ := func(want []string) error {
		return fmt.Errorf("%s: the route says %s, the dataplane has %s", r.Prefix, strings.Join(want, ", "), entryText(e))
	}
	var want, got []string
	for _, p := range r.Paths {
		switch {
		case !p.Best:
		case p.Kind != "":
			want = append(want, dropTypes[p.Kind])
		default:
			want = append(want, hopText(p.NextHop, p.Interface))
		}
	}
	if isDirect(r) {
		// An attached prefix or one of our own addresses: the dataplane made it; what counts is the interface.
		for _, p := range e.Paths {
			if p.Backup { // it may be there, and stands by
				continue
			}
			if p.Type == "local" || slices.Contains(want, hopText("", p.Interface)) {
				return nil
			}
		}
		return differ(want)
	}
	for _, p := range e.Paths {
		if p.Backup { // it may be there, and stands by
			continue
		}
		if p.Type == "normal" {
			got = append(got, hopText(p.NextHop, p.Interface))
		} else {
			got = append(got, p.Type)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(want, got) {
		return differ(want)
	}
	return nil
}

func hopText(nextHop, iface string) string { return strings.TrimSpace(nextHop + " " + iface) }

func entryText(e ctl.FIBEntry) string {
	var paths []string
	for _, p := range e.Paths {
		text := hopText(p.NextHop, p.Interface)
		if p.Type != "normal" {
			text = strings.TrimSpace(p.Type + " " + text)
		}
		paths = append(paths, text)
	}
	return fmt.Sprintf("%s via %s (source %s)", e.Prefix, strings.Join(paths, ", "), e.Source)
}

// pingReport is what `rlr ping --json` prints.
type pingReport struct {
	Replies []ctl.ProbeReply `json:"replies"`
	Summary ctl.ProbeSummary `json:"summary"`
}

// repliesWith checks that every request was answered by the address with the TTL.
func (r pingReport) repliesWith(from string, ttl int) error {
	if r.Summary.Sent == 0 || r.Summary.Received != r.Summary.Sent {
		return fmt.Errorf("%d of %d pings answered%s", r.Summary.Received, r.Summary.Sent, firstError(r.Replies))
	}
	for _, p := range r.Replies {
		if p.From != from || p.TTL != ttl {
			return fmt.Errorf("reply from %s with TTL %d instead of %s with TTL %d", p.From, p.TTL, from, ttl)
		}
	}
	return nil
}

func firstError(replies []ctl.ProbeReply) string {
	for _, p := range replies {
		if p.Error != "" {
			return ": " + strings.TrimSpace(p.From+" "+p.Error)
		}
	}
	return ""
}

// traceReport is what `rlr traceroute --json` prints.
type traceReport struct {
	Hops    []ctl.ProbeReply `json:"hops"`
	Reached bool             `json:"reached"`
}

// passes checks that the way to the target has exactly these hops, the target the last of them.
func (r traceReport) passes(want ...string) error {
	var got []string
	for _, h := range r.Hops {
		for len(got) < h.Hop-1 {
			got = append(got, "*")
		}
		switch {
		case h.Hop == len(got)+1 && h.From == "":
			got = append(got, "*")
		case h.Hop == len(got)+1:
			got = append(got, h.From)
		case h.From != "" && got[h.Hop-1] == "*":
			got[h.Hop-1] = h.From
		}
	}
	if !slices.Equal(got, want) || !r.Reached {
		return fmt.Errorf("the way is %s instead of %s", wayText(got), wayText(want))
	}
	return nil
}

func wayText(hops []string) string {
	if len(hops) == 0 {
		return "unknown"
	}
	return strings.Join(hops, " → ")
}

// longestGap is the longest time between two replies that follow each other.
func longestGap(replies []time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(replies); i++ {
		longest = max(longest, replies[i].Sub(replies[i-1]))
	}
	return longest
}
