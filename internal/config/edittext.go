package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// This file makes edits in a text. Nodes say where things begin, and only that: where they end is found by indents, as YAML's
// block style has it, or by brackets.

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

// reach follows the keys to where the entries of an edit are. It returns the last mapping and the keys that are missing in it,
// or the list or mapping itself.
func reach(at *yaml.Node, e Edit) (above *yaml.Node, missing []string, entries *yaml.Node, err error) {
	keys := strings.Split(e.kind.path, ".")
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
	if want := e.kind.container(); at.Kind != want {
		return nil, nil, nil, fmt.Errorf("%s is not written as a %s: %w", e.kind.path, map[yaml.Kind]string{sequenceNode: "list", yaml.MappingNode: "mapping"}[want], ErrLayout)
	}
	return nil, nil, at, nil
}

// container is what entries are in.
func (k editKind) container() yaml.Kind {
	if k.key == "" {
		return yaml.MappingNode
	}
	return sequenceNode
}

// texts are an entry as a line of its own, as an element in brackets or braces, and as the only one there.
func (e Edit) texts() (line, element, alone string, err error) {
	item, err := yaml.Marshal(e.item)
	text := strings.TrimSpace(string(item))
	if e.kind.container() == sequenceNode {
		return "- " + text, text, "[" + text + "]", err
	}
	text = e.name + ": " + text
	return text, text, "{" + text + "}", err
}

// insert adds an entry at the end of what is in block style, and at the beginning of what is in brackets or braces.
func (t *textEditor) insert(root *yaml.Node, e Edit) error {
	line, element, alone, err := e.texts()
	if err != nil {
		return err
	}
	at, missing, entries, err := reach(root, e)
	switch {
	case err != nil:
		return err
	case entries == nil && at.Kind == scalarNode: // a key without a value
		t.insertLine(at.Line, branch(at.Column+1, missing, line))
	case entries == nil && at.Style&yaml.FlowStyle != 0:
		for _, k := range slices.Backward(missing[1:]) {
			alone = "{" + k + ": " + alone + "}"
		}
		t.insertFlow(at, missing[0]+": "+alone)
	case entries == nil:
		indent := at.Content[0].Column - 1
		t.insertLine(t.lastLine(at, indent-1), branch(indent, missing, line))
	case entries.Style&yaml.FlowStyle != 0:
		t.insertFlow(entries, element)
	default:
		indent := entries.Column - 1
		t.insertLine(t.lastLine(entries.Content[len(entries.Content)-1], indent), branch(indent, nil, line))
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

// branch writes an entry's line below keys, each further in than the one before.
func branch(indent int, keys []string, line string) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%*s%s:\n", indent, "", k)
		indent += 2
	}
	fmt.Fprintf(&b, "%*s%s", indent, "", line)
	return b.String()
}

// remove takes an entry away, with the lines that it alone is on. Comments stay.
func (t *textEditor) remove(root *yaml.Node, e Edit) error {
	_, _, entries, err := reach(root, e)
	if err != nil {
		return err
	}
	var begins, values []*yaml.Node // of each entry
	found := -1
	if entries != nil {
		begins, values = entries.Content, entries.Content
		if entries.Kind == yaml.MappingNode {
			begins, values = nil, nil
			for i := 0; i+1 < len(entries.Content); i += 2 {
				begins, values = append(begins, entries.Content[i]), append(values, entries.Content[i+1])
			}
		}
		for i := range values {
			if found < 0 && e.is(begins[i], values[i]) {
				found = i
			}
		}
	}
	if found < 0 {
		return ErrNoEntry
	}
	item := values[found]
	if item.Kind == yaml.AliasNode || item.Anchor != "" {
		return fmt.Errorf("it is shared by an anchor: %w", ErrLayout)
	}
	if entries.Style&yaml.FlowStyle != 0 {
		return t.removeFlow(begins, values, found)
	}
	indent, first := entries.Column-1, begins[found].Line
	if entries.Kind == sequenceNode { // the dash may be on a line before
		for first > entries.Line && !(t.indent(first) == indent && strings.HasPrefix(t.line(first)[indent:], "-")) {
			first--
		}
	}
	to := len(t.text)
	if last := t.lastLine(item, indent); last < len(t.starts) {
		to = t.starts[last]
	}
	t.splice(t.starts[first-1], to, "")
	return nil
}

// is reports whether an entry is the edit's. key is the entry's in a mapping.
func (e Edit) is(key, v *yaml.Node) bool {
	if e.kind.key == "" {
		return key.Value == e.name
	}
	n := below(v, e.kind.key)
	return n != nil && (n.Value == e.name || e.kind.key == "prefix" && canonical(n.Value) == e.name)
}

// canonical is how a prefix is written usually.
func canonical(prefix string) string {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return prefix
	}
	return p.String()
}

// removeFlow takes an entry in brackets or braces away, with the comma that it needs no more.
func (t *textEditor) removeFlow(begins, values []*yaml.Node, i int) error {
	from := t.offset(begins[i])
	if i+1 < len(begins) {
		t.splice(from, t.offset(begins[i+1]), "")
		return nil
	}
	to, err := t.flowEnd(t.offset(values[i]))
	if err != nil {
		return err
	}
	if i > 0 { // the comma is before it
		before, err := t.flowEnd(t.offset(values[i-1]))
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
