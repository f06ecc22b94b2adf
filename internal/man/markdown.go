package man

import (
	"regexp"
	"strings"
)

// Configuration makes rlr.yaml(5) of docs/configuration.md. It knows the Markdown which that file uses: headings,
// paragraphs, lists, fenced code, and tables of keys.
func Configuration(markdown string) []byte {
	p := newPage("rlr.yaml", 5)
	p.heading("SH", "NAME")
	p.text("rlr.yaml - configuration of the rlr router")
	c := converter{page: p}
	p.heading("SH", "DESCRIPTION")
	for line := range strings.Lines(markdown) {
		c.line(strings.TrimRight(line, "\n"))
	}
	c.flush()
	p.heading("SH", "SEE ALSO")
	p.paragraph("`rlr`(1)")
	return p.bytes()
}

// converter holds the block that the next lines may belong to.
type converter struct {
	*page
	lines  []string
	bullet bool // lines are an element of a list
	code   bool // lines are code
}

// flush writes the block.
func (c *converter) flush() {
	text := strings.Join(c.lines, "\n")
	switch {
	case text == "":
	case c.code:
		c.verbatim(text)
	case c.bullet:
		c.page.bullet(text)
	default:
		c.paragraph(text)
	}
	c.lines, c.bullet, c.code = nil, false, false
}

var linked = regexp.MustCompile(`:? ?\[[^\]]+\]\(#[^)]*\)`)

func (c *converter) line(s string) {
	switch {
	case strings.HasPrefix(s, "```"):
		closing := c.code
		c.flush()
		c.code = !closing
	case c.code:
		c.lines = append(c.lines, s)
	case s == "", strings.HasPrefix(s, "# "), strings.HasPrefix(s, "<!--"), strings.HasPrefix(s, "|---"), strings.HasPrefix(s, "| key"):
		c.flush()
	case strings.HasPrefix(s, "#"):
		c.flush()
		macro := "SS"
		if strings.HasPrefix(s, "## ") {
			macro = "SH"
		}
		text := strings.TrimLeft(s, "# ")
		if macro == "SH" {
			text = strings.ToUpper(text)
		}
		c.heading(macro, text)
	case strings.HasPrefix(s, "| "):
		c.flush()
		c.row(s)
	case strings.HasPrefix(s, "- "):
		c.flush()
		c.bullet = true
		c.lines = []string{s[2:]}
	default:
		c.lines = append(c.lines, s)
	}
}

// row writes a key: its type and default, and what it means.
func (c *converter) row(s string) {
	cells := strings.Split(strings.Trim(s, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	for len(cells) < 4 {
		cells = append(cells, "")
	}
	about := cells[1]
	if cells[2] != "" {
		if about != "" {
			about += "; "
		}
		if cells[2] != "required" {
			about += "default "
		}
		about += cells[2]
	}
	term := cells[0]
	if about != "" {
		term += " (" + about + ")"
	}
	c.item(term, linked.ReplaceAllString(cells[3], ""))
}
