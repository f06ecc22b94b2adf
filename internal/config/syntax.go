package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// syntax turns the file's bytes into its one document's root. It reports whether there is a root to decode.
func (d *decoder) syntax(data []byte) (value, bool) {
	if len(data) > MaxSize {
		d.errorAt(mark{1, 1}, "the file is larger than %d bytes; a configuration is not", MaxSize)
		return value{}, false
	}
	if m, what := forbidden(data); what != "" {
		d.errorAt(m, "%s; the file must be UTF-8 text with lines that end in a newline", what)
		return value{}, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	doc, err := next(dec)
	switch {
	case errors.Is(err, io.EOF), err == nil && isEmpty(doc):
		d.errorAt(mark{1, 1}, `the file is empty; a configuration begins with "router: {name: NAME}"`)
		return value{}, false
	case err != nil:
		m, what := d.explain(data, err)
		d.errorAt(m, "%s", what)
		return value{}, false
	}
	if second, err := next(dec); err == nil {
		d.errorAt(mark{second.Line, second.Column}, `a second document; a configuration is one: remove the "---" before it`)
	} else if !errors.Is(err, io.EOF) {
		d.errorAt(secondDocument(data), `a second document, and not a valid one; a configuration is one: remove the "---" and what follows`)
	}
	return d.resolve(doc.Content[0], ""), true
}

// next parses one document. yaml.v3 has panicked on hostile input before; what it does with a file is its user's business,
// and a router that is told to reload a broken file must go on.
func next(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be parsed (%v)", r)
		}
	}()
	doc = &yaml.Node{}
	return doc, dec.Decode(doc)
}

func isEmpty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null" && doc.Content[0].Value == ""
}

// forbidden finds the first byte that a text has not: yaml.v3 would report it without a position.
func forbidden(data []byte) (mark, string) {
	at := mark{1, 1}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return at, fmt.Sprintf("byte 0x%02x is not UTF-8", data[i])
		case r == '\n':
			at = mark{at.line + 1, 1}
			i++
			continue
		case r == 0xFEFF && i == 0: // a byte order mark is not a column
			i += size
			continue
		case r == '\r' && i+1 < len(data) && data[i+1] == '\n':
		case r < ' ' && r != '\t', r == 0x7F, r >= 0x80 && r < 0xA0, r == 0x2028, r == 0x2029, r == 0xFFFE, r == 0xFFFF:
			// Among them are what YAML, but no editor, counts as the end of a line.
			return at, fmt.Sprintf("control character %U", r)
		}
		at.col++
		i += size
	}
	return mark{}, ""
}

var documentMark = regexp.MustCompile(`(?m)^---(\s|$)`)

// secondDocument finds where a second document begins, when its parse failed.
func secondDocument(data []byte) mark {
	all := documentMark.FindAllIndex(data, -1)
	if len(all) == 0 {
		return mark{1, 1}
	}
	at := all[0][0]
	if len(all) > 1 && len(bytes.TrimSpace(data[:at])) == 0 {
		at = all[1][0]
	}
	return mark{1 + bytes.Count(data[:at], []byte{'\n'}), 1}
}

// explain says where and what a syntax error is. yaml.v3 tells the line of what it was in the middle of, sometimes of the
// line before, and never a column; so the text is parsed again a byte a read, which stops close behind the mistake.
func (d *decoder) explain(data []byte, failure error) (mark, string) {
	problem := strings.TrimPrefix(failure.Error(), "yaml: ")
	problem = regexp.MustCompile(`^line \d+: `).ReplaceAllString(problem, "")
	if name, ok := unknownAnchor(problem); ok {
		at := bytes.Index(data, []byte("*"+name))
		return markOf(data, max(at, 0)), fmt.Sprintf(`alias "*%s" without an anchor "&%s" before it; quote a value that begins with "*"`, name, name)
	}
	end := stopsAt(data)
	lines := strings.Split(string(data), "\n")
	at := markOf(data, min(end, len(data)))
	for _, l := range []int{at.line, at.line + 1, at.line - 1} {
		if l < 1 || l > len(lines) {
			continue
		}
		text := lines[l-1]
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && strings.TrimSpace(text) != "" {
			return mark{l, tab + 1}, "a tab in the indentation; YAML allows only spaces there: replace it by two spaces"
		}
	}
	line := ""
	if at.line <= len(lines) {
		line = lines[at.line-1]
	}
	return at, advice(problem, line, end >= len(data))
}

func unknownAnchor(problem string) (string, bool) {
	rest, ok := strings.CutPrefix(problem, "unknown anchor '")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "' referenced")
}

var bareReference = regexp.MustCompile(`[:\[,]\s*\$\{`)

// advice turns the parser's words into an operator's.
func advice(problem, line string, atEnd bool) string {
	switch {
	case bareReference.MatchString(line) && strings.ContainsAny(line, "[{"):
		return `"${…}" without quotes between { } or [ ]; write "${NAME}" with its quotes`
	case strings.Contains(problem, "mapping values are not allowed"):
		return `a ":" that YAML does not expect here; check the indentation, and quote a value that contains ": "`
	case strings.Contains(problem, "cannot start any token"):
		return "a character that cannot begin a value; put the value in quotes"
	case strings.Contains(problem, "could not find expected ':'"):
		return `a key without its ":"; write "key: value"`
	case strings.Contains(problem, "end of stream") || atEnd:
		return "the file ends inside a quote or a bracket; close it (" + problem + ")"
	case strings.Contains(problem, "',' or '}'"), strings.Contains(problem, "',' or ']'"):
		return "a list or mapping in brackets is not closed, or a comma is missing; close it, and quote values with special characters"
	case strings.Contains(problem, "node content"):
		return `a value is missing or begins with ":"; put addresses such as "::1" in quotes`
	case strings.Contains(problem, "did not find expected key"), strings.Contains(problem, "'-' indicator"):
		return "the indentation matches no line above; give lines of one level the same number of spaces"
	default:
		return "this is not YAML: " + problem
	}
}

// lookahead is how many bytes yaml.v3's scanner reads beyond the character that it judges.
const lookahead = 4

// stopsAt returns the offset at which the parser gives up, len(data) or more when it came to the end.
func stopsAt(data []byte) int {
	// Padding tells a mistake in the last line from one that only the end of the file shows.
	r := &byteReader{data: append(bytes.Clone(data), "\n\n\n\n\n\n\n\n"...)}
	_, _ = next(yaml.NewDecoder(r))
	return max(r.read-lookahead, 0)
}

// byteReader reads a byte at a time, and counts.
type byteReader struct {
	data []byte
	read int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.read == len(r.data) {
		return 0, io.EOF
	}
	n := copy(p, r.data[r.read:r.read+1])
	r.read += n
	return n, nil
}

// markOf returns the line and column of an offset.
func markOf(data []byte, offset int) mark {
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return mark{1 + bytes.Count(before, []byte{'\n'}), 1 + utf8.RuneCount(before[start:])}
}
