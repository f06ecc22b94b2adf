package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"
)

// mark is a place in the file, both from 1.
type mark struct{ line, col int }

// value is a node that is about to be decoded.
type value struct {
	node *yaml.Node // never an alias
	at   mark       // where it is written: of an alias, the alias
	path string     // its keys and indexes, joined by "/": how the checks find it again
}

// later is a key of a feature that is to come.
type later struct {
	key   key
	at    mark
	value value
}

// decoder holds what is known of a file: its errors, and where each value was written.
type decoder struct {
	file, dir  string
	opt        options
	errs       Errors
	marks      map[string]mark     // of values, by path
	keyMarks   map[string]mark     // of the keys of mappings, by the path of the value
	keysOf     map[string][]string // of the mappings that references lead to, by path
	laters     []later
	setNames   []setWord
	ifaceIndex map[string]int
	root       value
	budget     int // nodes that may still be visited
}

// maxNodes bounds the work that aliases of aliases can ask for.
const maxNodes = 1 << 17

// maxErrors bounds a report: nobody reads more, and each is fixed by itself.
const maxErrors = 200

func newDecoder(file, dir string, o options) *decoder {
	return &decoder{file: file, dir: dir, opt: o, marks: map[string]mark{}, keyMarks: map[string]mark{}, keysOf: map[string][]string{}, budget: maxNodes}
}

// finish returns all errors, sorted.
func (d *decoder) finish() Errors {
	d.errs.sort()
	if n := len(d.errs); n > maxErrors {
		d.errs = append(d.errs[:maxErrors], Error{File: d.file, Msg: fmt.Sprintf("and %d more", n-maxErrors)})
	}
	return d.errs
}

func (d *decoder) errorAt(at mark, format string, args ...any) {
	d.errs = append(d.errs, Error{File: d.file, Line: at.line, Col: at.col, Msg: oneLine(fmt.Sprintf(format, args...))})
}

// oneLine replaces what a terminal would not print as it is: messages repeat parts of the file.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

func (d *decoder) errorf(v value, format string, args ...any) { d.errorAt(v.at, format, args...) }

// errorPath reports an error at the value of a path, or at the nearest value above it that is written in the file.
func (d *decoder) errorPath(path, format string, args ...any) {
	for {
		if at, ok := d.marks[path]; ok {
			d.errorAt(at, format, args...)
			return
		}
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			d.errorAt(d.root.at, format, args...)
			return
		}
		path = path[:i]
	}
}

// errorKey reports an error at the key of a path: something about the entry as a whole.
func (d *decoder) errorKey(path, format string, args ...any) {
	if at, ok := d.keyMarks[path]; ok {
		d.errorAt(at, format, args...)
		return
	}
	d.errorPath(path, format, args...)
}

// has reports whether a path is written in the file, rightly or not.
func (d *decoder) has(path string) bool {
	_, ok := d.marks[path]
	return ok
}

// resolve follows an alias, and notes where the value is.
func (d *decoder) resolve(n *yaml.Node, path string) value {
	v := value{node: n, at: mark{max(n.Line, 1), max(n.Column, 1)}, path: path}
	if n.Kind == yaml.AliasNode {
		v.node = n.Alias
	}
	d.marks[path] = v.at
	if d.budget--; d.budget == 0 {
		d.errorf(v, "aliases make the configuration larger than %d values; write less by aliases", maxNodes)
	}
	return v
}

func (v value) isNull() bool {
	return v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!null" && v.node.Style == 0
}

// kind describes a node in a message.
func (v value) kind() string {
	switch {
	case v.node.Kind == yaml.MappingNode:
		return "a mapping"
	case v.node.Kind == yaml.SequenceNode:
		return "a list"
	case v.isNull():
		return "nothing"
	default:
		return quote(shorten(v.node.Value))
	}
}

// shorten bounds what a message repeats of the file.
func shorten(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

// mapping calls visit for each key of the section that is available. Everything else is reported. A section without any
// content counts as empty: its lines may be commented out.
func (d *decoder) mapping(v value, s *section, visit func(key string, v value)) {
	d.entries(v, s.name+" must be a mapping of keys", func(name string, at mark, v value) {
		k, ok := s.key(name)
		switch {
		case !ok && name == "<<":
			d.errorAt(at, "merge keys (<<) are not supported; write the keys out")
		case !ok:
			d.errorAt(at, "unknown key %q; %s", shorten(name), d.didYouMean(name, s))
		case k.never != "":
			d.errorAt(at, "%s is not supported: %s", name, k.never)
		case k.later != "":
			d.laters = append(d.laters, later{k, at, v})
		default:
			visit(name, v)
		}
	})
}

func (d *decoder) didYouMean(name string, s *section) string {
	if len(d.errs) >= maxErrors {
		return "remove it"
	}
	available, later := s.names()
	all := strings.Join(available, ", ")
	if near := nearest(name, append(available, later...)); near != "" {
		return fmt.Sprintf("did you mean %q? (%s has %s)", near, s.name, all)
	}
	return fmt.Sprintf("%s has %s", s.name, all)
}

// entries calls visit for each entry of a mapping, once per key.
func (d *decoder) entries(v value, must string, visit func(name string, at mark, v value)) {
	if v.isNull() {
		return
	}
	if v.node.Kind != yaml.MappingNode {
		d.errorf(v, "%s, not %s", must, v.kind())
		return
	}
	d.checkTag(v)
	seen := map[string]mark{}
	for i := 0; i+1 < len(v.node.Content) && d.budget > 0; i += 2 {
		k := v.node.Content[i]
		at := mark{k.Line, k.Column}
		if k.Kind != yaml.ScalarNode || k.Style&yaml.TaggedStyle != 0 {
			d.errorAt(at, "a key must be a plain word")
			continue
		}
		if first, dup := seen[k.Value]; dup {
			d.errorAt(at, "key %q is here twice; it is on line %d already: remove one of them", shorten(k.Value), first.line)
			continue
		}
		seen[k.Value] = at
		path := k.Value
		if v.path != "" {
			path = v.path + "/" + k.Value
		}
		d.keyMarks[path] = at
		visit(k.Value, at, d.resolve(v.node.Content[i+1], path))
	}
}

// list calls visit for each element.
func (d *decoder) list(v value, what string, visit func(i int, v value)) {
	if v.isNull() {
		return
	}
	if v.node.Kind != yaml.SequenceNode {
		d.errorf(v, "%s, not %s; write [ … ]", what, v.kind())
		return
	}
	d.checkTag(v)
	for i, n := range v.node.Content {
		if d.budget <= 0 {
			return
		}
		visit(i, d.resolve(n, v.path+"/"+strconv.Itoa(i)))
	}
}

// words decodes a list of scalars. One ${NAME} may stand for the whole list, its elements separated by commas or spaces:
// that is how a container gives one.
func (d *decoder) words(v value, what string, visit func(i int, v value, text string)) {
	if v.node.Kind == yaml.ScalarNode && !v.isNull() {
		if r, err := expand(v.node.Value, d.opt.env); err != nil || r.whole {
			if err != nil {
				d.errorf(v, "%v", err)
				return
			}
			for i, w := range strings.FieldsFunc(r.text, func(c rune) bool { return strings.ContainsRune(", \t\r\n", c) }) {
				d.marks[v.path+"/"+strconv.Itoa(i)] = v.at
				visit(i, v, w)
			}
			return
		}
	}
	d.list(v, what, func(i int, v value) {
		text, _ := d.text(v, what)
		visit(i, v, text)
	})
}

func (d *decoder) checkTag(v value) {
	if v.node.Style&yaml.TaggedStyle != 0 {
		d.errorf(v, "YAML tags such as %s are not supported; remove it", shorten(v.node.Tag))
	}
}

// text decodes a scalar to its expanded text. what says what it must be.
func (d *decoder) text(v value, what string) (string, bool) {
	s, _, ok := d.scalar(v, what)
	return s, ok
}

// scalar is text, and says whether the text is a string by quotes.
func (d *decoder) scalar(v value, what string) (s string, quoted, ok bool) {
	if v.node.Kind != yaml.ScalarNode || v.isNull() {
		d.errorf(v, "%s, not %s", what, v.kind())
		return "", false, false
	}
	d.checkTag(v)
	r, err := expand(v.node.Value, d.opt.env)
	if err != nil {
		d.errorf(v, "%v", err)
		return "", false, false
	}
	if r.any { // what a shell or a file put into the environment often ends with a newline
		r.text = strings.TrimSpace(r.text)
	}
	if strings.ContainsFunc(r.text, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar }) {
		d.errorf(v, "%s, in one line of printable characters", what)
		return "", false, false
	}
	return r.text, v.node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 && !r.any, true
}

// boolean decodes true or false.
func (d *decoder) boolean(v value, key string) bool {
	what := key + " must be true or false"
	s, quoted, ok := d.scalar(v, what)
	switch {
	case !ok:
	case quoted:
		d.errorf(v, "%s, not the string %q; remove the quotes", what, shorten(s))
	case s == "true":
		return true
	case s != "false":
		d.errorf(v, "%s, not %q", what, shorten(s))
	}
	return false
}

// number decodes an integer between lo and hi.
func (d *decoder) number(v value, key string, lo, hi uint64) (uint64, bool) {
	what := fmt.Sprintf("%s must be a number from %d to %d", key, lo, hi)
	s, quoted, ok := d.scalar(v, what)
	if !ok {
		return 0, false
	}
	if quoted {
		d.errorf(v, "%s, not the string %q; remove the quotes", what, shorten(s))
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < lo || n > hi {
		d.errorf(v, "%s, not %s", what, shorten(s))
		return 0, false
	}
	return n, true
}

// choice decodes one of a few words.
func (d *decoder) choice(v value, key string, words ...string) string {
	what := key + " must be " + either(words)
	s, ok := d.text(v, what)
	if !ok {
		return ""
	}
	if !slices.Contains(words, s) {
		hint := ""
		if near := nearest(s, words); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		d.errorf(v, "%s, not %q%s", what, shorten(s), hint)
		return ""
	}
	return s
}

func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// duration decodes a time with its unit, in steps of unit.
func (d *decoder) duration(v value, key string, lo, hi, unit time.Duration) time.Duration {
	what := fmt.Sprintf("%s must be a time such as %s", key, formatDuration(min(max(30*time.Second, lo), hi)))
	s, ok := d.text(v, what)
	if !ok {
		return 0
	}
	t, err := time.ParseDuration(s)
	switch {
	case err != nil && isDigits(s):
		d.errorf(v, "%s; the unit is missing: write %ss", what, shorten(s))
	case err != nil:
		d.errorf(v, "%s, not %q", what, shorten(s))
	case t < lo || t > hi:
		d.errorf(v, "%s must be from %s to %s, not %s", key, formatDuration(lo), formatDuration(hi), shorten(s))
	case t%unit != 0:
		d.errorf(v, "%s must be a multiple of %s, not %s", key, formatDuration(unit), shorten(s))
	default:
		return t
	}
	return 0
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// formatDuration writes 90s as 1m30s, and 60s as 1m, where time.Duration writes 1m0s.
func formatDuration(t time.Duration) string {
	s := t.String()
	if before, ok := strings.CutSuffix(s, "m0s"); ok {
		s = before + "m"
	}
	if before, ok := strings.CutSuffix(s, "h0m"); ok {
		s = before + "h"
	}
	return s
}

// address decodes an IP address without a zone.
func (d *decoder) address(v value, key string) (netip.Addr, bool) {
	what := key + " must be an IP address"
	s, ok := d.text(v, what)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		d.errorf(v, "%s without a prefix length, not %q", what, shorten(s))
	case err != nil:
		d.errorf(v, "%s, not %q%s", what, shorten(s), because(s))
	case a.Zone() != "":
		d.errorf(v, "%q has a zone; write the address as %q, and interface: %s", shorten(s), a.WithZone(""), shorten(a.Zone()))
	case a.Is4In6():
		d.errorf(v, "%q is an IPv4 address in IPv6 form; write %s", shorten(s), a.Unmap())
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// because explains why a text that looks like an IPv4 address is none.
func because(s string) string {
	host, _, _ := strings.Cut(s, "/")
	parts := strings.Split(host, ".")
	if strings.Trim(host, "0123456789.") != "" || host == "" {
		return ""
	}
	if len(parts) != 4 {
		return fmt.Sprintf("; it has %d parts, an IPv4 address has four", len(parts))
	}
	for _, p := range parts {
		switch n, err := strconv.ParseUint(p, 10, 64); {
		case err != nil:
			return "; a part is empty"
		case n > math.MaxUint8:
			return fmt.Sprintf("; %s is more than 255", p)
		case len(p) > 1 && p[0] == '0':
			return fmt.Sprintf("; write %d instead of %s", n, p)
		}
	}
	return ""
}

// parsePrefix parses an address with a prefix length, host bits kept.
func (d *decoder) parsePrefix(v value, s, what, example string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		d.errorf(v, "%q is an IPv4 address in IPv6 form; write it as IPv4", shorten(s))
		return netip.Prefix{}, false
	}
	if err == nil {
		return p, true
	}
	host, length, slash := strings.Cut(s, "/")
	a, aerr := netip.ParseAddr(host)
	switch {
	case aerr == nil && a.Zone() != "":
		d.errorf(v, "%s, not %q; an address of an interface has no zone: remove %%%s", what, shorten(s), shorten(a.Zone()))
	case aerr == nil && !slash:
		d.errorf(v, "%s such as %s, not %q; the prefix length is missing: write %s/%d for the address alone", what, example, shorten(s), s, a.BitLen())
	case aerr == nil:
		d.errorf(v, "%s such as %s, not %q; the prefix length of IPv%d is 0 to %d, not %s", what, example, shorten(s), version(a), a.BitLen(), quote(shorten(length)))
	default:
		d.errorf(v, "%s such as %s, not %q%s", what, example, shorten(s), because(s))
	}
	return netip.Prefix{}, false
}

// prefix decodes a network: host bits must be zero.
func (d *decoder) prefix(v value, s, key string) (netip.Prefix, bool) {
	p, ok := d.parsePrefix(v, s, key+" must be a prefix", "10.1.0.0/24")
	if !ok {
		return p, false
	}
	if m := p.Masked(); m != p {
		d.errorf(v, "%s has host bits set; the prefix is %s", p, m)
		return p, false
	}
	if p.Addr().IsMulticast() {
		d.errorf(v, "%s is multicast; only unicast prefixes are routed", p)
		return p, false
	}
	return p, true
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}
