package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"rlr/bgp"
	"rlr/internal/config"
	"rlr/internal/ctl"
)

// This file is what commands and GoBGP's API change of a running router. Each change is an edit of the configuration's text:
// the router's configuration is always that of its file with these edits made in it, so a change is checked, applied and
// reloaded as if it had been written down, and saving it is to make the same edit in the file.

// overlay makes a router's configuration of its file. Its value is never modified.
type overlay struct {
	path string
	base []byte        // the file's text, as it was read last
	text []byte        // with the edits
	gone []config.Edit // deletions of the file's entries
	adds []config.Edit // entries that the file has not, or has otherwise
}

func (o *overlay) hasNeighbor(name string) bool {
	return slices.ContainsFunc(o.adds, func(e config.Edit) bool { return e.Neighbor() == name })
}

func (o *overlay) hasStatic(prefix string) bool {
	return slices.ContainsFunc(o.adds, func(e config.Edit) bool { return e.Static() == prefix })
}

func remove(edits []config.Edit, e config.Edit) []config.Edit {
	return slices.DeleteFunc(slices.Clone(edits), e.Same)
}

// on makes the edits in another text of the file. One that the file has now is made no more.
func (o overlay) on(base []byte) (overlay, *config.Config, error) {
	cfg, err := parseConfig(o.path, base)
	if err != nil {
		return o, nil, err
	}
	next := overlay{path: o.path, base: base, text: base}
	revise := func(e config.Edit) error {
		text, revised, err := reviseConfig(o.path, next.text, e)
		if err == nil {
			next.text, cfg = text, revised
		}
		return err
	}
	for _, e := range o.gone {
		if e.Of(cfg) == nil {
			continue
		}
		if err := revise(e); err != nil {
			return o, nil, fmt.Errorf("with what was deleted by a command: %w", err)
		}
		next.gone = append(next.gone, e)
	}
	for _, e := range o.adds {
		there, before, was := e.Of(cfg), next, cfg
		if there == nil {
			e = e.Beside()
		}
		if err := revise(e.Instead()); err != nil {
			return o, nil, fmt.Errorf("with what was added by a command: %w: delete it by `%s`", err, undo(e))
		}
		switch {
		case there == nil || e.Replaces():
			next.adds = append(next.adds, e)
		case reflect.DeepEqual(e.Of(cfg), there):
			next, cfg = before, was // the file's own
		default:
			return o, nil, fmt.Errorf("%s was added by a command, and is in the file now with other settings: delete one of them, here by `%s`", subject(e), undo(e))
		}
	}
	return next, cfg, nil
}

// with makes one more edit.
func (o overlay) with(e config.Edit) (overlay, *config.Config, error) {
	text, cfg, err := reviseConfig(o.path, o.text, e)
	if err != nil {
		return o, nil, err
	}
	next := o
	next.text = text
	i := slices.IndexFunc(o.adds, e.Same)
	switch hidden := slices.ContainsFunc(o.gone, e.Same); {
	case e.Deletes():
		if next.adds = remove(o.adds, e); i < 0 || o.adds[i].Replaces() {
			next.gone = append(slices.Clone(o.gone), e)
		}
	case i >= 0 && !o.adds[i].Replaces():
		next.adds = append(remove(o.adds, e), e.Beside())
	case hidden:
		next.adds, next.gone = append(slices.Clone(o.adds), e.Instead()), remove(o.gone, e)
	default:
		next.adds = append(remove(o.adds, e), e)
	}
	return next, cfg, nil
}

func reviseConfig(path string, text []byte, e config.Edit) ([]byte, *config.Config, error) {
	return e.Revise(path, text, config.WithLinksDir(ctl.LinksDir()))
}

func subject(e config.Edit) string {
	switch {
	case e.Neighbor() != "":
		return "neighbor " + e.Neighbor()
	case e.Static() != "":
		return "the static route to " + e.Static()
	}
	return e.String()
}

// undo is the command that deletes an entry. There is none for groups and dynamic entries, which only GoBGP's API adds.
func undo(e config.Edit) string {
	switch {
	case e.Neighbor() != "":
		return "rlr neighbor del " + e.Neighbor()
	case e.Static() != "":
		return "rlr route del " + e.Static()
	}
	return "GoBGP's API, or rlr restart"
}

// change makes an edit, and in the file too where it is to be saved. What fails changes nothing, there and here.
func (r *router) change(ctx context.Context, save bool, e config.Edit) ([]string, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	old, oldConfig := *r.overlay.Load(), r.config.Load()
	base := old
	if !e.Deletes() && !e.Replaces() && e.Of(oldConfig) != nil {
		if !save || !slices.ContainsFunc(old.adds, e.Same) { // the same again, to be saved this time, is fine
			return nil, fmt.Errorf("%s %w", subject(e), bgp.ErrExists)
		}
		var err error
		if base, _, err = old.with(e.Deletion()); err != nil {
			return nil, err
		}
	}
	next, cfg, err := base.with(e)
	if err != nil && !(save && errors.Is(err, config.ErrNoEntry)) { // it may still be in the file
		return nil, err
	}
	undo := func() error { return nil }
	if save {
		if next, cfg, undo, err = r.save(next, e); err != nil {
			return nil, err
		}
	}
	changes, err := r.become(ctx, next, cfg)
	if err == nil {
		return changes, nil
	}
	_, back := r.become(ctx, old, oldConfig)
	return nil, errors.Join(err, undo(), back)
}

// save makes an edit in the configuration file, and moves it from an overlay into its base.
func (r *router) save(ov overlay, e config.Edit) (next overlay, cfg *config.Config, undo func() error, err error) {
	before, err := config.Read(r.path)
	if err != nil {
		return ov, nil, nil, err
	}
	if i := slices.IndexFunc(ov.adds, e.Same); i >= 0 {
		e = ov.adds[i] // which knows whether the file has it
	}
	revise := func(text []byte) (revised []byte, made bool, err error) {
		revised, _, err = reviseConfig(r.path, text, e)
		if e.Deletes() && errors.Is(err, config.ErrNoEntry) {
			return text, false, nil
		}
		return revised, true, err
	}
	after, made, err := revise(before)
	if err != nil {
		return ov, nil, nil, fmt.Errorf("nothing was changed: %w", err)
	}
	base, _, err := revise(ov.base)
	if err != nil {
		return ov, nil, nil, fmt.Errorf("nothing was changed: %w", err)
	}
	moved := ov
	moved.adds, moved.gone = remove(ov.adds, e), remove(ov.gone, e)
	if next, cfg, err = moved.on(base); err != nil {
		return ov, nil, nil, fmt.Errorf("nothing was changed: %w", err)
	}
	if !made {
		if reflect.DeepEqual(r.config.Load(), cfg) {
			return ov, nil, nil, fmt.Errorf("%s: %w", subject(e), config.ErrNoEntry)
		}
		return next, cfg, func() error { return nil }, nil
	}
	if err := replaceFile(r.path, before, after); err != nil {
		return ov, nil, nil, fmt.Errorf("nothing was changed: %w; without --save it lasts until the router restarts", err)
	}
	return next, cfg, func() error { return replaceFile(r.path, after, before) }, nil
}

// --- commands

func (r *router) neighborAction(ctx context.Context, req ctl.NeighborRequest) (ctl.Done, error) {
	if r.speaker == nil {
		return ctl.Done{}, ctl.NotFound("this router speaks no BGP: router.as is not set")
	}
	var err error
	done := ""
	switch req.Action {
	case ctl.NeighborAdd:
		return r.addNeighbor(ctx, req)
	case ctl.NeighborDel:
		return r.delNeighbor(ctx, req)
	case ctl.NeighborEnable:
		err, done = r.speaker.Enable(req.Name), "enabled"
	case ctl.NeighborDisable:
		err, done = r.speaker.Disable(req.Name, req.Message), "disabled"
	case ctl.NeighborReset:
		how := bgp.ResetHard
		done = "reset"
		switch {
		case !req.Soft:
		case req.Direction == ctl.DirectionIn:
			how, done = bgp.ResetSoftIn, "asked for its routes again"
		case req.Direction == ctl.DirectionOut:
			how, done = bgp.ResetSoftOut, "told our routes again"
		case req.Direction == "":
			how, done = bgp.ResetSoft, "asked for its routes and told ours again"
		default:
			return ctl.Done{}, ctl.BadRequest("soft reset %q: use in or out, or neither for both", req.Direction)
		}
		err = r.speaker.Reset(req.Name, how)
	default:
		return ctl.Done{}, ctl.BadRequest("neighbor action %q: use add, del, enable, disable or reset", req.Action)
	}
	if err != nil {
		return ctl.Done{}, neighborError(err)
	}
	return ctl.Done{Message: "neighbor " + req.Name + " " + done}, nil
}

// addNeighbor is `rlr neighbor add`.
func (r *router) addNeighbor(ctx context.Context, req ctl.NeighborRequest) (ctl.Done, error) {
	var settings []config.Setting
	name, place := req.Name, ""
	for _, s := range req.Settings {
		v, err := settingValue(s)
		if err != nil {
			return ctl.Done{}, err
		}
		if text, ok := v.(string); ok && (s.Key == "address" || s.Key == "interface" && place == "") {
			place = text
		}
		settings = append(settings, config.Setting{Key: s.Key, Value: v})
	}
	if name == "" {
		name = nameOf(place)
	}
	return r.changeNeighbor(ctx, req.Save, name, settings)
}

func (r *router) changeNeighbor(ctx context.Context, save bool, name string, settings []config.Setting) (ctl.Done, error) {
	e, err := config.AddNeighbor(name, settings)
	if err != nil {
		return ctl.Done{}, ctl.BadRequest("%v", err)
	}
	return r.done(ctx, "neighbor "+name+" added", save, e)
}

// done makes an edit and says so.
func (r *router) done(ctx context.Context, what string, save bool, e config.Edit) (ctl.Done, error) {
	changes, err := r.change(ctx, save, e)
	if err != nil {
		return ctl.Done{}, changeError(err)
	}
	if save {
		what += ", and saved in " + r.path
	} else {
		what += ", until the router restarts"
	}
	r.log.WithField("changes", strings.Join(changes, ", ")).Info("configuration changed by a command")
	return ctl.Done{Message: what}, nil
}

func changeError(err error) error {
	var known *ctl.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, bgp.ErrExists):
		return ctl.Exists("%v", err)
	case errors.Is(err, config.ErrNoEntry):
		return ctl.NotFound("%v: see `rlr show protocols` and `rlr show route protocol static`", err)
	}
	return ctl.BadRequest("%v", err)
}

// nameOf makes a name of an address or an interface, as names of neighbours are.
func nameOf(place string) string {
	const limit = 32
	name := "n-" + strings.Map(func(c rune) rune {
		if c == ':' || c == '%' {
			return '-'
		}
		return c
	}, place)
	if len(name) > limit { // the beginnings of addresses are alike
		name = "n-" + name[len(name)-limit+2:]
	}
	return name
}

func settingValue(s ctl.Setting) (any, error) {
	switch v := s.Value.(type) {
	case nil:
		return config.YAML(s.YAML), nil
	case float64: // JSON's only number
		if v != float64(uint64(v)) {
			return nil, ctl.BadRequest("%s: %v is no whole number", s.Key, v)
		}
		return uint64(v), nil
	case []any:
		var words []string
		for _, w := range v {
			words = append(words, fmt.Sprint(w))
		}
		return words, nil
	default:
		return v, nil
	}
}

// delNeighbor is `rlr neighbor del`. A neighbour is found by its name or its address.
func (r *router) delNeighbor(ctx context.Context, req ctl.NeighborRequest) (ctl.Done, error) {
	name := req.Name
	for _, s := range r.sessions() {
		at := s.Address
		if s.Interface != "" {
			at += "%" + s.Interface
		}
		if s.Name == name || s.Address == name || at == name {
			if s.Dynamic {
				return ctl.Done{}, ctl.BadRequest("neighbor %s is a dynamic one, and forgotten after the end of its session: use `rlr neighbor disable %s`, or change bgp.dynamic", s.Name, s.Name)
			}
			name = s.Name
			break
		}
	}
	return r.done(ctx, "neighbor "+name+" deleted", req.Save, config.DeleteNeighbor(name))
}

// routeAction is `rlr route`.
func (r *router) routeAction(ctx context.Context, req ctl.RouteRequest) (ctl.Done, error) {
	switch p := req.Prefix.Masked(); {
	case !p.IsValid():
		return ctl.Done{}, ctl.BadRequest("route: no prefix")
	case req.Action == ctl.RouteDel:
		return r.done(ctx, "route to "+p.String()+" deleted", req.Save, config.DeleteStatic(p.String()))
	case req.Action != ctl.RouteAdd:
		return ctl.Done{}, ctl.BadRequest("route action %q: use add or del", req.Action)
	case (req.Kind == "") == (len(req.Via) == 0):
		return ctl.Done{}, ctl.BadRequest("route to %s: give it next hops, or one of blackhole, unreachable and prohibit", p)
	default:
		s := config.Static{Prefix: p, Action: config.Forward}
		if req.Kind != "" {
			s.Action = config.Action(req.Kind)
		}
		for _, h := range req.Via {
			s.Via = append(s.Via, config.NextHop{Address: h.Address, Interface: h.Interface, Weight: max(h.Weight, 1)})
		}
		return r.done(ctx, "route to "+p.String()+" added", req.Save, config.AddStatic(s))
	}
}
