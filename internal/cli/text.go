package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Terminal reports whether w is a terminal.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// waitReadable waits until a read from f has something to return: of a terminal a line, or its end. Error: ctx ended before;
// the read itself would not notice.
func waitReadable(ctx context.Context, f *os.File) error {
	const look = 100 // milliseconds between looks at ctx
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, look)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for %s: %w", f.Name(), err)
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// style is how a cell is printed on a terminal (ECMA-48 SGR parameters).
type style string

const (
	plain  style = ""
	bold   style = "1"
	faint  style = "2"
	good   style = "32"
	bad    style = "31"
	notice style = "33"
)

// screen is where text goes. The first error is kept and returned by done: what follows would not arrive either.
type screen struct {
	w      io.Writer
	colour bool
	err    error
}

func (s *screen) paint(st style, text string) string {
	if !s.colour || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, format, args...)
	}
}

func (s *screen) done() error { return s.err }

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

func c(text string) cell { return cell{text: text} }

func styled(st style, text string) cell { return cell{text, st} }

// table is text in columns. Numbers are right-aligned when their column's title starts with a space.
type table struct {
	titles []string
	rows   [][]cell
}

func newTable(titles ...string) *table { return &table{titles: titles} }

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

func (t *table) print(s *screen) {
	head := make([]cell, len(t.titles))
	for i, title := range t.titles {
		head[i] = styled(bold, strings.TrimSpace(title))
	}
	rows := append([][]cell{head}, t.rows...)
	width := make([]int, len(t.titles))
	for _, r := range rows {
		for i, f := range r {
			width[i] = max(width[i], utf8.RuneCountInString(f.text))
		}
	}
	for _, r := range rows {
		s.printf("%s\n", t.line(s, r, width))
	}
}

func (t *table) line(s *screen, row []cell, width []int) string {
	var b strings.Builder
	pad := 0 // kept back, so that no line ends in spaces
	for i, f := range row {
		gap := width[i] - utf8.RuneCountInString(f.text)
		before := 0
		if strings.HasPrefix(t.titles[i], " ") {
			before, gap = gap, 0
		}
		if f.text != "" {
			b.WriteString(strings.Repeat(" ", pad+before))
			b.WriteString(s.paint(f.style, f.text))
			pad = 0
		} else {
			pad += before
		}
		pad += gap + 2
	}
	return b.String()
}

// ago prints a span of time as people say it, with the two largest units.
func ago(seconds float64) string {
	if seconds < 0 || math.IsNaN(seconds) || seconds > 1e11 {
		return "-"
	}
	d := time.Duration(seconds) * time.Second
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 48:
		return fmt.Sprintf("%dd%02dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

// bytesText prints a number of bytes with a binary unit.
func bytesText(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, units := float64(n)/1024, "KMGTPE"
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

func count[N int | uint64 | uint32](n N) string { return fmt.Sprint(n) }

// dash shows that a field is empty on purpose.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// milliseconds prints a round trip.
func milliseconds(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// clean makes text from a router safe to print: no control characters, which could move a terminal's cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// printJSON prints one value, indented.
func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// jsonArray prints an array as its rows come, a line each.
type jsonArray struct {
	w    io.Writer
	rows int
}

func (a *jsonArray) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	lead := ",\n"
	if a.rows == 0 {
		lead = "[\n"
	}
	a.rows++
	_, err = io.WriteString(a.w, lead+string(b))
	return err
}

func (a *jsonArray) close() error {
	tail := "\n]\n"
	if a.rows == 0 {
		tail = "[]\n"
	}
	_, err := io.WriteString(a.w, tail)
	return err
}

// jsonRows prints rows as one array.
func jsonRows[R any](w io.Writer, rows []R) error {
	a := &jsonArray{w: w}
	for _, r := range rows {
		if err := a.add(r); err != nil {
			return err
		}
	}
	return a.close()
}
