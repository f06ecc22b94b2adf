package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// An Edit changes a configuration's text as a careful user would: entries of lists come and go, and every other byte stays,
// comments and blank lines with it. yaml.v3 says where values are; it does not write them, because its encoder would format
// the whole file anew.
type Edit struct {
	kind    editKind
	item    *yaml.Node // what is added; nil: an entry goes
	name    string     // the entry's
	instead bool       // an entry of that name goes first, if there is one
}

// editKind is where entries are.
type editKind struct {
	path string // of the list or mapping
	key  string // by which entries of the list are told apart; "": it is a mapping
}

var (
	editNeighbors = editKind{"bgp.neighbors", "name"}
	editDynamic   = editKind{"bgp.dynamic", "prefix"}
	editGroups    = editKind{"bgp.groups", ""}
	editStatics   = editKind{"static", "prefix"}
)

// Setting is a key of an entry and its value: a bool, a number, a string, a list of strings, or a YAML.
type Setting struct {
	Key   string
	Value any
}

// YAML is the value of a Setting as it would be written in the file.
type YAML string

// AddNeighbor adds an entry to bgp.neighbors.
func AddNeighbor(name string, settings []Setting) (Edit, error) {
	item, err := entry(append([]Setting{{"name", name}}, settings...))
	return Edit{kind: editNeighbors, item: item, name: name}, err
}

// ChangeNeighbor puts a neighbour in the place of the one that a configuration has, as that is but for some settings.
func ChangeNeighbor(c *Config, name string, settings []Setting) (Edit, error) {
	e, err := AddNeighbor(name, settings)
	if old, ok := e.Of(c).(Neighbor); ok && err == nil { // else there is nothing to keep
		item := old.member(c.BGP.Groups).flow()
		for i := 0; i < len(e.item.Content); i += 2 {
			item.replace(e.item.Content[i].Value, e.item.Content[i+1])
		}
		e.item = item.node
	}
	return e.Instead(), err
}

// replace sets a key that may be there.
func (b *block) replace(key string, v *yaml.Node) {
	for i := 0; i < len(b.node.Content); i += 2 {
		if b.node.Content[i].Value == key {
			b.node.Content[i+1] = v
			return
		}
	}
	b.put(key, v)
}

// DeleteNeighbor deletes the neighbour of that name.
func DeleteNeighbor(name string) Edit {
	return Edit{kind: editNeighbors, name: name}
}

// AddStatic adds an entry to static.
func AddStatic(s Static) Edit {
	return Edit{kind: editStatics, item: s.block().flow().node, name: s.Prefix.String()}
}

// DeleteStatic deletes the static route to a prefix.
func DeleteStatic(prefix string) Edit {
	return Edit{kind: editStatics, name: prefix}
}

// AddGroup adds an entry to bgp.groups.
func AddGroup(name string, settings []Setting) (Edit, error) {
	item, err := entry(settings)
	return Edit{kind: editGroups, item: item, name: name}, err
}

// DeleteGroup deletes the group of that name.
func DeleteGroup(name string) Edit { return Edit{kind: editGroups, name: name} }

// AddDynamic adds an entry to bgp.dynamic.
func AddDynamic(prefix, group string) Edit {
	item := newBlock().flow().text("prefix", prefix).text("group", group).node
	return Edit{kind: editDynamic, item: item, name: prefix}
}

// DeleteDynamic deletes the entry of a prefix.
func DeleteDynamic(prefix string) Edit { return Edit{kind: editDynamic, name: prefix} }

// Deletes reports whether the edit deletes an entry, and not adds one.
func (e Edit) Deletes() bool { return e.item == nil }

// Same reports whether two edits are about the same entry.
func (e Edit) Same(o Edit) bool { return e.kind == o.kind && e.name == o.name }

// Deletion is the edit that deletes the entry that this one is about.
func (e Edit) Deletion() Edit {
	e.item = nil
	return e
}

// Instead is the edit that puts an entry in the place of one of that name, if there is one.
func (e Edit) Instead() Edit {
	e.instead = true
	return e
}

// Beside is the edit that adds an entry where there is none of that name.
func (e Edit) Beside() Edit {
	e.instead = false
	return e
}

// Replaces reports whether the edit is one of Instead.
func (e Edit) Replaces() bool { return e.instead }

// Neighbor is the name of the neighbour that the edit is about, or "".
func (e Edit) Neighbor() string { return e.nameIn(editNeighbors) }

// Static is the prefix of the static route that the edit is about, or "".
func (e Edit) Static() string { return e.nameIn(editStatics) }

func (e Edit) nameIn(k editKind) string {
	if e.kind != k {
		return ""
	}
	return e.name
}

// Of returns the entry that the edit is about, in a configuration; nil if it is not there.
func (e Edit) Of(c *Config) any {
	switch e.kind {
	case editNeighbors:
		return find(c.BGP.Neighbors, func(n Neighbor) bool { return n.Name == e.name })
	case editDynamic:
		return find(c.BGP.Dynamic, func(d Dynamic) bool { return d.Prefix.String() == e.name })
	case editGroups:
		return find(c.BGP.Groups, func(g Group) bool { return g.Name == e.name })
	}
	return find(c.Static, func(s Static) bool { return s.Prefix.String() == e.name })
}

func find[T any](all []T, is func(T) bool) any {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i]
	}
	return nil
}

// ErrNoEntry is in the error for an entry that is not there.
var ErrNoEntry = errors.New("not in the configuration")

// ErrLayout is in the error for a file that is written in a way that is not edited.
var ErrLayout = errors.New("edit the file by hand, and reload it")

// entry makes the mapping of some settings, on one line. Dollar signs are a file's references, and there are none here.
func entry(settings []Setting) (*yaml.Node, error) {
	b := newBlock().flow()
	for _, s := range settings {
		switch v := s.Value.(type) {
		case nil:
			return nil, fmt.Errorf("%s has no value", s.Key)
		case string:
			b.put(s.Key, escaped(v))
		case YAML:
			doc, err := next(yaml.NewDecoder(strings.NewReader(string(v))))
			if err != nil || len(doc.Content) != 1 {
				return nil, fmt.Errorf("%s: %q is not a value in YAML", s.Key, shorten(string(v)))
			}
			b.put(s.Key, inFlow(doc.Content[0]))
		case []string:
			list := &yaml.Node{Kind: sequenceNode, Style: yaml.FlowStyle}
			for _, w := range v {
				list.Content = append(list.Content, escaped(w))
			}
			b.put(s.Key, list)
		default:
			n := &yaml.Node{}
			if err := n.Encode(v); err != nil {
				return nil, fmt.Errorf("%s: %w", s.Key, err)
			}
			b.put(s.Key, inFlow(n))
		}
	}
	return b.node, nil
}

// inFlow makes a value fit on the entry's line.
func inFlow(n *yaml.Node) *yaml.Node {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if n.Kind != scalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		inFlow(c)
	}
	return n
}

// Apply returns the text with the edit made in it. The text must be a configuration's.
func (e Edit) Apply(text []byte) ([]byte, error) {
	if e.instead && !e.Deletes() {
		without, err := e.Deletion().Apply(text)
		switch {
		case err == nil:
			text = without
		case !errors.Is(err, ErrNoEntry):
			return nil, err
		}
	}
	doc, err := next(yaml.NewDecoder(bytes.NewReader(text)))
	if err != nil || isEmpty(doc) {
		return nil, fmt.Errorf("%s: the file is not a configuration: %w", e, ErrLayout)
	}
	t := &textEditor{text: text, starts: lineStarts(text)}
	if e.Deletes() {
		err = t.remove(doc.Content[0], e)
	} else {
		err = t.insert(doc.Content[0], e)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	return t.text, nil
}

// String names the entry.
func (e Edit) String() string { return e.kind.path + " " + e.name }

// Revise makes the edit in the text of the configuration at path, and checks that the result is one, and that it differs in
// this alone. Errors: those of Parse for the text as it was; else what is wrong with the edit, without a place in a file.
func (e Edit) Revise(path string, text []byte, opts ...Option) ([]byte, *Config, error) {
	before, err := Parse(path, text, opts...)
	if err != nil {
		return nil, nil, err
	}
	out, err := e.Apply(text)
	if err != nil {
		return nil, nil, err
	}
	after, err := Parse(path, out, opts...)
	var mistakes Errors
	if errors.As(err, &mistakes) {
		var said []string
		for _, m := range mistakes {
			said = append(said, m.Msg)
		}
		return nil, nil, fmt.Errorf("%s: %s", e, strings.Join(said, "; "))
	}
	if !reflect.DeepEqual(e.without(before), e.without(after)) {
		return nil, nil, fmt.Errorf("%s: more than that would change: %w", e, ErrLayout)
	}
	return out, after, nil
}

// without is a configuration without the entry that the edit is about, and without what others have of it.
func (e Edit) without(c *Config) Config {
	rest := *c
	rest.BGP.Neighbors, rest.BGP.Dynamic, rest.BGP.Groups, rest.Static = nil, nil, nil, nil
	for _, n := range c.BGP.Neighbors {
		if e.kind == editGroups && n.Group == e.name {
			n = Neighbor{Name: n.Name, Group: n.Group, Address: n.Address}
		}
		if n.Name != e.Neighbor() {
			rest.BGP.Neighbors = append(rest.BGP.Neighbors, n)
		}
	}
	for _, d := range c.BGP.Dynamic {
		if e.kind == editGroups && d.Group == e.name {
			d.Settings, d.AS = Neighbor{}, nil
		}
		if d.Prefix.String() != e.nameIn(editDynamic) {
			rest.BGP.Dynamic = append(rest.BGP.Dynamic, d)
		}
	}
	for _, g := range c.BGP.Groups {
		if g.Name != e.nameIn(editGroups) {
			rest.BGP.Groups = append(rest.BGP.Groups, g)
		}
	}
	for _, s := range c.Static {
		if s.Prefix.String() != e.Static() {
			rest.Static = append(rest.Static, s)
		}
	}
	return rest
}
