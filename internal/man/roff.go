// Package man makes the manual pages: rlr(1) from the command tree, rlr.yaml(5) from docs/configuration.md.
//
// Both are written once, where they are used, and the pages follow: `make man` writes them into docs/man, and a test fails
// while they are old. The pages use the classic man macros only, which every man(7) formatter knows.
package man

import (
	"fmt"
	"regexp"
	"strings"
)

// page is a manual page under construction.
type page struct{ b strings.Builder }

func newPage(title string, section int) *page {
	p := &page{}
	p.b.WriteString(".\\\" Made by `make man`; changes here are lost.\n")
	fmt.Fprintf(&p.b, ".TH %s %d \"\" rlr \"rlr manual\"\n", strings.ToUpper(title), section)
	return p
}

func (p *page) bytes() []byte { return []byte(p.b.String()) }

// heading writes a .SH or .SS.
func (p *page) heading(macro, text string) {
	fmt.Fprintf(&p.b, ".%s \"%s\"\n", macro, strings.ReplaceAll(escape(text), `"`, `\(dq`))
}

// paragraph writes running text.
func (p *page) paragraph(text string) {
	p.b.WriteString(".PP\n")
	p.text(text)
}

// text writes lines of running text, with the marks of Markdown in them.
func (p *page) text(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			p.b.WriteString(guard(inline(line)) + "\n")
		}
	}
}

// item writes a term and what it means.
func (p *page) item(term, text string) {
	fmt.Fprintf(&p.b, ".TP\n%s\n", guard(inline(term)))
	p.text(text)
}

// bullet writes an element of a list.
func (p *page) bullet(text string) {
	p.b.WriteString(".IP \\(bu 2\n")
	p.text(text)
}

// verbatim writes text as it is.
func (p *page) verbatim(text string) {
	p.b.WriteString(".PP\n.RS 4\n.nf\n")
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		p.b.WriteString(guard(escape(strings.TrimRight(line, "\n"))) + "\n")
	}
	p.b.WriteString(".fi\n.RE\n")
}

// escape keeps text from being taken for requests of roff. A hyphen would be set as a dash that cannot be copied into a shell.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, `-`, `\-`, `~`, `\(ti`, `^`, `\(ha`, "`", `\(ga`).Replace(s)
}

// guard protects the beginning of a line, where a dot or a quote begins a request.
func guard(s string) string {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

// marks are Markdown's: code, strong, emphasis, a link.
var marks = regexp.MustCompile("`([^`]+)`|\\*\\*([^*]+)\\*\\*|\\*([^*]+)\\*|\\[([^\\]]+)\\]\\(([^)]+)\\)")

func inline(s string) string {
	var b strings.Builder
	at := 0
	for _, m := range marks.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(escape(s[at:m[0]]))
		group := func(i int) string { return escape(s[m[2*i]:m[2*i+1]]) }
		switch {
		case m[2] >= 0:
			b.WriteString(`\fB` + group(1) + `\fR`)
		case m[4] >= 0:
			b.WriteString(`\fB` + group(2) + `\fR`)
		case m[6] >= 0:
			b.WriteString(`\fI` + group(3) + `\fR`)
		default:
			b.WriteString(group(4))
		}
		at = m[1]
	}
	b.WriteString(escape(s[at:]))
	return b.String()
}
