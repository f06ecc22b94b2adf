package birdctl

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"rlr/internal/ctl"
)

// words are the tokens of a command that are still to be read. A quoted one begins with the quote.
type words []string

// split makes tokens of a line: words, quoted texts, and the signs of filters.
func split(line string) (w words) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		n := 1
		switch {
		case line[0] == '"':
			if end := strings.IndexByte(line[1:], '"'); end >= 0 {
				w, line = append(w, line[:end+1]), line[end+2:]
				continue
			}
			n = len(line)
		case strings.HasPrefix(line, "&&"):
			n = 2
		case strings.IndexByte("[](),;~=", line[0]) < 0:
			if n = strings.IndexAny(line, " \t[](),;~=\"{"); n < 0 {
				n = len(line)
			} else if end := strings.IndexByte(line[n:], '}'); line[n] == '{' && end > 0 { // belongs to the prefix before it
				n += end + 1
			}
			n = max(n, 1) // a brace alone
		}
		w, line = append(w, line[:n]), line[n:]
	}
	return w
}

// next takes a word.
func (w *words) next() string {
	if len(*w) == 0 {
		return ""
	}
	first := (*w)[0]
	*w = (*w)[1:]
	return first
}

// take takes the next word if it is this one.
func (w *words) take(word string) bool {
	if len(*w) == 0 || (*w)[0] != word {
		return false
	}
	*w = (*w)[1:]
	return true
}

// done fails where something is left.
func (w words) done() error {
	if len(w) > 0 {
		return syntaxError{w[0]}
	}
	return nil
}

// text is a word without its quote.
func text(word string) string { return strings.TrimPrefix(word, `"`) }

func (c *client) command(ctx context.Context, line string) error {
	w := split(line)
	if len(w) == 0 {
		c.ok()
		return nil
	}
	verb := w.next()
	if c.restricted && verb != "show" && verb != "quit" && verb != "exit" && verb != "restrict" {
		return failure{codeDenied, "Access denied"}
	}
	switch verb {
	case "show":
		return c.show(ctx, w)
	case "restrict":
		if err := w.done(); err != nil {
			return err
		}
		c.restricted = true
		c.end(codeRestricted, "Access restricted")
		return nil
	case "configure":
		return c.configure(ctx, w)
	case "enable", "disable", "restart":
		return c.protocols(ctx, w, func(p ctl.Protocol) error { return c.administer(ctx, verb, p) })
	case "reload":
		direction := ""
		switch {
		case w.take("in"):
			direction = ctl.DirectionIn
		case w.take("out"):
			direction = ctl.DirectionOut
		}
		return c.protocols(ctx, w, func(p ctl.Protocol) error {
			if p.Proto != protoBGP || p.State != "up" {
				return nil
			}
			req := ctl.NeighborRequest{Name: p.Name, Action: ctl.NeighborReset, Soft: true, Direction: direction}
			if _, err := c.server.opt.Router.Neighbor(ctx, req); err != nil {
				return err
			}
			c.line(codeReloading, "%s: reloading", p.Name)
			return nil
		})
	case "quit", "exit":
		return io.EOF
	}
	return syntaxError{verb}
}

func (c *client) show(ctx context.Context, w words) error {
	what := w.next()
	switch what {
	case "route":
		return c.showRoute(ctx, w)
	case "protocols":
		return c.showProtocols(ctx, w)
	case "interfaces":
		summary := w.take("summary")
		if err := w.done(); err != nil {
			return err
		}
		return c.showInterfaces(ctx, summary)
	case "bfd":
		if !w.take("sessions") {
			return syntaxError{w.next()}
		}
		return c.showBFD(ctx, w)
	}
	if err := w.done(); err != nil {
		return err
	}
	switch what {
	case "status":
		return c.showStatus(ctx)
	case "memory":
		return c.showMemory(ctx)
	}
	return syntaxError{what}
}

// configure is rlr check, or rlr reload. The router reads its own file only, and has one way of applying it.
func (c *client) configure(ctx context.Context, w words) error {
	w.take("soft")
	check := w.take("check")
	if len(w) > 0 && text(w[0]) == c.server.opt.Config {
		w.next()
	}
	if err := w.done(); err != nil {
		return err
	}
	c.line(codeReading, "Reading configuration from %s", c.server.opt.Config)
	if check {
		if err := c.server.opt.Check(ctx); err != nil {
			return failure{codeBadConfig, err.Error()}
		}
		c.end(codeConfigOK, "Configuration OK")
		return nil
	}
	if _, err := c.server.opt.Router.Reload(ctx); err != nil {
		return failure{codeBadConfig, err.Error()}
	}
	c.end(codeReconfigured, "Reconfigured")
	return nil
}

// matching returns the protocols that a name, a quoted pattern, all, or nothing at all stands for.
func (c *client) matching(ctx context.Context, w words, optional bool) ([]ctl.Protocol, error) {
	all, err := c.server.opt.Router.Protocols(ctx)
	if err != nil {
		return nil, err
	}
	word := w.next()
	switch {
	case word == "" && !optional:
		return nil, syntaxError{}
	case word == "" || word == "all":
		return all, w.done()
	}
	if err := w.done(); err != nil {
		return nil, err
	}
	var some []ctl.Protocol
	for _, p := range all {
		match := p.Name == text(word)
		if strings.HasPrefix(word, `"`) {
			match, err = path.Match(text(word), p.Name)
			if err != nil {
				return nil, syntaxError{word}
			}
		}
		if match {
			some = append(some, p)
		}
	}
	switch {
	case len(some) > 0:
		return some, nil
	case strings.HasPrefix(word, `"`):
		return nil, failure{codeNoProtocol, "No protocols match"}
	}
	return nil, syntaxError{word}
}

func (c *client) protocols(ctx context.Context, w words, do func(ctl.Protocol) error) error {
	some, err := c.matching(ctx, w, false)
	if err != nil {
		return err
	}
	for _, p := range some {
		if err := do(p); err != nil {
			return err
		}
	}
	c.ok()
	return nil
}

// administer enables, disables or restarts a protocol: BGP's only, as the others are parts of the router.
func (c *client) administer(ctx context.Context, verb string, p ctl.Protocol) error {
	if p.Proto != protoBGP {
		return failure{codeFailed, p.Name + ": cannot be " + verb + "d, it is a part of the router"}
	}
	do := func(action string) error {
		_, err := c.server.opt.Router.Neighbor(ctx, ctl.NeighborRequest{Name: p.Name, Action: action})
		return err
	}
	sessions, err := c.server.opt.Router.BGP(ctx)
	if err != nil {
		return err
	}
	off := false
	for _, b := range sessions {
		off = off || b.Name == p.Name && b.Disabled
	}
	switch {
	case verb == "enable" && !off:
		c.line(codeAlreadyOn, "%s: already enabled", p.Name)
	case verb == "enable":
		err = do(ctl.NeighborEnable)
		if err == nil {
			c.line(codeEnabled, "%s: enabled", p.Name)
		}
	case off:
		c.line(codeAlreadyOff, "%s: already disabled", p.Name)
	case verb == "disable":
		if err = do(ctl.NeighborDisable); err == nil {
			c.line(codeDisabled, "%s: disabled", p.Name)
		}
	default:
		if err = do(ctl.NeighborReset); err == nil {
			c.line(codeRestarted, "%s: restarted", p.Name)
		}
	}
	var refused *ctl.Error
	if errors.As(err, &refused) {
		return failure{codeFailed, refused.Message}
	}
	return err
}
