package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// An Edit changes a configuration's text as a careful user would: entries of lists come and go, and every other byte stays,
// comments and blank lines with it. yaml.v3 says where values are; it does not write them, because its encoder would format
// the whole file anew.
type Edit struct {
	list []string   // the path of the list's keys
	item *yaml.Node // what is added; nil: an entry goes
	key  string     // by which entries of the list are told apart
	name string     // its value in this one
}

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
	return Edit{list: []string{"bgp", "neighbors"}, item: item, key: "name", name: name}, err
}

// ChangeNeighbor adds a neighbour as a configuration has it, but for some settings; the deletion of the one that there is must
// come before it.
func ChangeNeighbor(c *Config, name string, settings []Setting) (Edit, error) {
	e, err := AddNeighbor(name, settings)
	if old, ok := e.Of(c).(Neighbor); ok && err == nil {
		item := old.member(c.BGP.Groups).flow()
		for i := 0; i < len(e.item.Content); i += 2 {
			item.replace(e.item.Content[i].Value, e.item.Content[i+1])
		}
		e.item = item.node
	}
	return e, err
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
	return Edit{list: []string{"bgp", "neighbors"}, key: "name", name: name}
}

// AddStatic adds an entry to static.
func AddStatic(s Static) Edit {
	return Edit{list: []string{"static"}, item: s.block().flow().node, key: "prefix", name: s.Prefix.String()}
}

// DeleteStatic deletes the static route to a prefix.
func DeleteStatic(prefix string) Edit {
	return Edit{list: []string{"static"}, key: "prefix", name: prefix}
}

// Deletes reports whether the edit deletes an entry, and not adds one.
func (e Edit) Deletes() bool { return e.item == nil }

// Same reports whether two edits are about the same entry.
func (e Edit) Same(o Edit) bool { return e.key == o.key && e.name == o.name }

// Deletion is the edit that deletes the entry that this one is about.
func (e Edit) Deletion() Edit {
	e.item = nil
	return e
}

// Neighbor is the name of the neighbour that the edit is about, or "".
func (e Edit) Neighbor() string {
	if e.key == "name" {
		return e.name
	}
	return ""
}

// Static is the prefix of the static route that the edit is about, or "".
func (e Edit) Static() string {
	if e.key == "prefix" {
		return e.name
	}
	return ""
}

// Of returns the entry that the edit is about, in a configuration: a Neighbor or a Static; nil if it is not there.
func (e Edit) Of(c *Config) any {
	for _, n := range c.BGP.Neighbors {
		if n.Name == e.Neighbor() {
			return n
		}
	}
	for _, s := range c.Static {
		if s.Prefix.String() == e.Static() {
			return s
		}
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
func (e Edit) Apply(text []byte) (out []byte, err error) {
	doc, err := next(yaml.NewDecoder(bytes.NewReader(text)))
	if err != nil || isEmpty(doc) {
		return nil, fmt.Errorf("%s: the file is not a configuration: %w", e.subject(), ErrLayout)
	}
	t := &textEditor{text: text, starts: lineStarts(text)}
	if e.Deletes() {
		err = t.remove(doc.Content[0], e)
	} else {
		err = t.insert(doc.Content[0], e)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.subject(), err)
	}
	return t.text, nil
}

func (e Edit) subject() string { return strings.Join(e.list, ".") + " " + e.name }

// textEditor has a text and where its lines begin.
type textEditor struct {
	text   []byte
	starts []int // offsets
}

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// offset is where a node begins. yaml.v3 counts columns in characters.
func (t *textEditor) offset(n *yaml.Node) int {
	at := t.starts[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(t.text[at:])
		at += size
	}
	return at
}

// line returns a line's text, counted from 1 as nodes do.
func (t *textEditor) line(n int) string {
	end := len(t.text)
	if n < len(t.starts) {
		end = t.starts[n]
	}
	return strings.TrimRight(string(t.text[t.starts[n-1]:end]), "\r\n")
}

func (t *textEditor) splice(from, to int, with string) {
	t.text = slices.Concat(t.text[:from], []byte(with), t.text[to:])
}

// lastLine is the last line of a node in block style whose key or dash is at an indent: what follows is not further in. Blank
// lines and comments at the end are not counted.
func (t *textEditor) lastLine(n *yaml.Node, indent int) int {
	last := deepest(n)
	for l := last + 1; l <= len(t.starts); l++ {
		s := t.line(l)
		switch trimmed := strings.TrimSpace(s); {
		case trimmed == "" || trimmed[0] == '#':
		case t.indent(l) <= indent && !strings.ContainsAny(trimmed[:1], "]}"):
			return last
		default:
			last = l
		}
	}
	return last
}

// deepest is the last line that a value of the node begins on.
func deepest(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, deepest(c))
	}
	return last
}

// indent is how many spaces a line begins with.
func (t *textEditor) indent(line int) int {
	s := t.line(line)
	return len(s) - len(strings.TrimLeft(s, " "))
}

// insertLine puts a line after another.
func (t *textEditor) insertLine(after int, s string) {
	eol := "\n"
	if bytes.Contains(t.text, []byte("\r\n")) {
		eol = "\r\n"
		s = strings.ReplaceAll(s, "\n", eol)
	}
	if after < len(t.starts) {
		t.splice(t.starts[after], t.starts[after], s+eol)
		return
	}
	if len(t.text) > 0 && t.text[len(t.text)-1] != '\n' {
		s = eol + s
	}
	t.splice(len(t.text), len(t.text), s+eol)
}

// find follows the keys of a list. It returns the last mapping and its keys that are missing, or the list.
func find(at *yaml.Node, keys []string) (mapping *yaml.Node, missing []string, list *yaml.Node, err error) {
	for i, name := range keys {
		if at.Kind != yaml.MappingNode {
			return nil, nil, nil, fmt.Errorf("%s is not written as a mapping: %w", strings.Join(keys[:i], "."), ErrLayout)
		}
		k := 0
		for k < len(at.Content) && at.Content[k].Value != name {
			k += 2
		}
		if k >= len(at.Content) {
			return at, keys[i:], nil, nil
		}
		v := at.Content[k+1]
		if v.Kind == yaml.AliasNode || v.Anchor != "" {
			return nil, nil, nil, fmt.Errorf("%s is shared by an anchor: %w", name, ErrLayout)
		}
		if (value{node: v}).isNull() && v.Value == "" && at.Style&yaml.FlowStyle == 0 { // its lines may be commented out
			return at.Content[k], keys[i+1:], nil, nil
		}
		at = v
	}
	if at.Kind != sequenceNode {
		return nil, nil, nil, fmt.Errorf("%s is not written as a list: %w", strings.Join(keys, "."), ErrLayout)
	}
	return nil, nil, at, nil
}

// insert adds an entry at the end of a block list, and at the beginning of one in brackets.
func (t *textEditor) insert(root *yaml.Node, e Edit) error {
	line, err := yaml.Marshal(e.item)
	if err != nil {
		return err
	}
	item := strings.TrimSpace(string(line))
	at, missing, list, err := find(root, e.list)
	switch {
	case err != nil:
		return err
	case list == nil && at.Kind == scalarNode: // a key without a value
		t.insertLine(at.Line, branch(at.Column+1, missing, item))
	case list == nil && at.Style&yaml.FlowStyle != 0:
		item = "[" + item + "]"
		for _, k := range slices.Backward(missing[1:]) {
			item = "{" + k + ": " + item + "}"
		}
		t.insertFlow(at, missing[0]+": "+item)
	case list == nil:
		indent := at.Content[0].Column - 1
		t.insertLine(t.lastLine(at, indent-1), branch(indent, missing, item))
	case list.Style&yaml.FlowStyle != 0:
		t.insertFlow(list, item)
	default:
		dash := list.Column - 1
		t.insertLine(t.lastLine(list.Content[len(list.Content)-1], dash), branch(dash, nil, item))
	}
	return nil
}

// insertFlow puts an element behind an opening bracket.
func (t *textEditor) insertFlow(at *yaml.Node, element string) {
	if len(at.Content) > 0 {
		element += ", "
	}
	from := t.offset(at) + 1
	t.splice(from, from, element)
}

// branch writes an entry of a list below keys, each further in than the one before.
func branch(indent int, keys []string, item string) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%*s%s:\n", indent, "", k)
		indent += 2
	}
	fmt.Fprintf(&b, "%*s- %s", indent, "", item)
	return b.String()
}

// remove takes an entry away, with the lines that it alone is on. Comments stay.
func (t *textEditor) remove(root *yaml.Node, e Edit) error {
	_, _, list, err := find(root, e.list)
	if err != nil {
		return err
	}
	i := -1
	if list != nil {
		i = slices.IndexFunc(list.Content, func(n *yaml.Node) bool {
			v := below(n, e.key)
			return v != nil && (v.Value == e.name || e.key == "prefix" && canonical(v.Value) == e.name)
		})
	}
	if i < 0 {
		return ErrNoEntry
	}
	item := list.Content[i]
	if item.Kind == yaml.AliasNode || item.Anchor != "" {
		return fmt.Errorf("it is shared by an anchor: %w", ErrLayout)
	}
	if list.Style&yaml.FlowStyle != 0 {
		return t.removeFlow(list.Content, i)
	}
	dash, first := list.Column-1, item.Line
	for first > list.Line && !(t.indent(first) == dash && strings.HasPrefix(t.line(first)[dash:], "-")) {
		first--
	}
	to := len(t.text)
	if last := t.lastLine(item, dash); last < len(t.starts) {
		to = t.starts[last]
	}
	t.splice(t.starts[first-1], to, "")
	return nil
}

// canonical is how a prefix is written usually.
func canonical(prefix string) string {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return prefix
	}
	return p.String()
}

// removeFlow takes an element of a list in brackets away, with the comma that it needs no more.
func (t *textEditor) removeFlow(elements []*yaml.Node, i int) error {
	from := t.offset(elements[i])
	if i+1 < len(elements) {
		t.splice(from, t.offset(elements[i+1]), "")
		return nil
	}
	to, err := t.flowEnd(from)
	if err != nil {
		return err
	}
	if i > 0 { // the comma is before it
		before, err := t.flowEnd(t.offset(elements[i-1]))
		if err != nil {
			return err
		}
		from = before
	}
	t.splice(from, to, "")
	return nil
}

// flowEnd is where a mapping in braces ends.
func (t *textEditor) flowEnd(from int) (int, error) {
	depth := 0
	for i := from; i < len(t.text); i++ {
		switch c := t.text[i]; c {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		case '"', '\'':
			end := bytes.IndexByte(t.text[i+1:], c)
			if end < 0 || c == '"' && t.text[i+end] == '\\' {
				return 0, fmt.Errorf("it has quotes that are not understood: %w", ErrLayout)
			}
			i += 1 + end
		case '#':
			if !bytes.ContainsAny(t.text[i-1:i], " \t\n") {
				continue
			}
			return 0, fmt.Errorf("it has a comment inside: %w", ErrLayout)
		}
		if depth == 0 {
			break
		}
	}
	return 0, fmt.Errorf("it is not written in braces: %w", ErrLayout)
}

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
		return nil, nil, fmt.Errorf("%s: %s", e.subject(), strings.Join(said, "; "))
	}
	if !reflect.DeepEqual(e.without(before), e.without(after)) {
		return nil, nil, fmt.Errorf("%s: more than that would change: %w", e.subject(), ErrLayout)
	}
	return out, after, nil
}

// without is a configuration without the entry that the edit is about.
func (e Edit) without(c *Config) Config {
	rest := *c
	rest.BGP.Neighbors = nil
	for _, n := range c.BGP.Neighbors {
		if e.key != "name" || n.Name != e.name {
			rest.BGP.Neighbors = append(rest.BGP.Neighbors, n)
		}
	}
	rest.Static = nil
	for _, s := range c.Static {
		if e.key != "prefix" || s.Prefix.String() != e.name {
			rest.Static = append(rest.Static, s)
		}
	}
	return rest
}
