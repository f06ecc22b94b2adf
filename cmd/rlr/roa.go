package main

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"time"

	"rlr/bgp"
	"rlr/bgp/rpki"
	"rlr/hoststack"
	"rlr/internal/config"
	"rlr/internal/ctl"
)

// This file joins what knows of ROAs: the collector gathers them, the speaker judges routes by them.

// roaTimeout is how long a start, or a reload, waits for the sources of ROAs to tell.
const roaTimeout = 3 * time.Second

func (r *router) newCollector() *rpki.Collector {
	return rpki.New(rpki.Options{
		Config: roaConfig(r.config.Load(), filepath.Dir(r.path)), Dir: r.claim.Dir, Log: r.subsystem("roa"),
		Dial: r.dialROA, Changed: r.roasChanged,
	})
}

// roaConfig is the collector's part.
func roaConfig(cfg *config.Config, dir string) rpki.Config {
	out := rpki.Config{URLs: cfg.ROA.URLs, Refresh: cfg.ROA.Refresh}
	for _, f := range cfg.ROA.Files {
		out.Files = append(out.Files, config.ROAFile(dir, f))
	}
	for _, s := range cfg.ROA.RTR {
		out.Servers = append(out.Servers, rpki.Server{Address: s.Address, Dataplane: s.Dataplane})
	}
	return out
}

func roaPolicy(p config.ROAPolicy) bgp.ROAPolicy {
	switch p {
	case config.ROAStrict:
		return bgp.ROAStrict
	case config.ROADropInvalid:
		return bgp.ROADropInvalid
	}
	return bgp.ROAOff
}

// dialROA connects to an RTR server.
func (r *router) dialROA(ctx context.Context, s rpki.Server) (net.Conn, error) {
	if !s.Dataplane {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Address)
	}
	remote, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		return nil, err
	}
	return r.access.stack.Dial(ctx, hoststack.Endpoints{Remote: remote})
}

// roasChanged gives the speaker the table of the moment, or none where the configuration does not want routes to be validated.
func (r *router) roasChanged() {
	r.roaMu.Lock() // who comes last tells the latest
	defer r.roaMu.Unlock()
	if !r.config.Load().ROA.Configured() {
		r.speaker.SetROAs(nil)
		return
	}
	r.speaker.SetROAs(r.roas.Table())
}

// startROAs gathers, and waits for a moment, so that routes are not let in, or kept out, that a second later are not.
func (r *router) startROAs(ctx context.Context) {
	r.stages.start("roa", r.roas.Run)
	r.waitROAs(ctx)
}

func (r *router) waitROAs(ctx context.Context) {
	if !r.config.Load().ROA.Configured() {
		return
	}
	ctx, done := context.WithTimeout(ctx, roaTimeout)
	defer done()
	if err := r.roas.WaitLoaded(ctx); err != nil {
		r.log.Warn("not every source of ROAs has told yet; see rlr show roa")
	}
	r.roasChanged()
}

// reloadROAs applies a new configuration of the sources. It must come before a policy is applied that needs them, and after
// one that does not.
func (r *router) reloadROAs(ctx context.Context, old, next *config.Config) {
	if reflect.DeepEqual(old.ROA, next.ROA) {
		return
	}
	r.roas.Apply(roaConfig(next, filepath.Dir(r.path)))
	r.waitROAs(ctx)
}

// applyBGP gives the speaker a new configuration, and new ROAs at the right moment.
func (r *router) applyBGP(ctx context.Context, old, next *config.Config) error {
	if next.ROA.Configured() {
		r.reloadROAs(ctx, old, next)
	}
	err := r.speaker.Apply(bgpConfig(next))
	if !next.ROA.Configured() {
		r.reloadROAs(ctx, old, next)
		r.roasChanged()
	}
	return err
}

// roaStatus answers the first part of `show roa`.
func (r *router) roaStatus(context.Context) (ctl.ROAStatus, error) {
	cfg := r.config.Load()
	out := ctl.ROAStatus{Sources: []ctl.ROASource{}}
	if r.roas == nil || !cfg.ROA.Configured() {
		return out, nil
	}
	out.Policy = string(cfg.ROA.Policy)
	out.IPv4, out.IPv6 = r.roas.Table().Len()
	now := time.Now()
	for _, s := range r.roas.Sources() {
		row := ctl.ROASource{
			Kind: s.Kind, Name: s.Name, State: string(s.State), Used: s.Used, IPv4: s.IPv4, IPv6: s.IPv6, Skipped: s.Skipped,
		}
		if s.SkippedBy != nil {
			row.SkippedBy = s.SkippedBy.Error()
		}
		if !s.Updated.IsZero() {
			age := now.Sub(s.Updated).Seconds()
			row.AgeS = &age
		}
		if s.Kind == rpki.KindRTR {
			row.Over = "kernel"
			if s.Dataplane {
				row.Over = "dataplane"
			}
			if !s.Updated.IsZero() {
				left := s.Expires.Sub(now).Seconds()
				row.Serial, row.Session, row.Version, row.ExpiresS = &s.Serial, &s.Session, &s.Version, &left
			}
		}
		if s.LastError != nil {
			row.LastError, row.LastErrorAgoS = s.LastError.Error(), now.Sub(s.LastErrorAt).Seconds()
		}
		out.Sources = append(out.Sources, row)
	}
	return out, nil
}

// roaRows answers the second part.
func (r *router) roaRows(ctx context.Context, f ctl.ROAFilter, emit func(ctl.ROA) error) error {
	if r.roas == nil || !r.config.Load().ROA.Configured() {
		return nil
	}
	t := r.roas.Table()
	row := func(v rpki.VRP) error {
		return emit(ctl.ROA{Prefix: v.Prefix.String(), MaxLength: int(v.MaxLength), AS: v.AS, Sources: r.roas.Of(v)})
	}
	if !f.Prefix.IsValid() {
		for _, v := range t.All() {
			if err := row(v); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	for v := range t.Covering(f.Prefix) {
		if err := row(v); err != nil {
			return err
		}
	}
	for v := range t.Within(f.Prefix) {
		if err := row(v); err != nil {
			return err
		}
	}
	return ctx.Err()
}
