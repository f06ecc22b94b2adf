package cli

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestAgo(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0s", 0.9: "0s", 59: "59s", 60: "1m00s", 3599: "59m59s", 3600: "1h00m", 172799: "47h59m", 172800: "2d00h",
		90 * 86400: "90d00h", -1: "-", math.NaN(): "-", math.Inf(1): "-",
	} {
		if got := ago(s); got != want {
			t.Errorf("ago(%g) = %s, want %s", s, got, want)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", math.MaxUint64: "16.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[2Jb\nc\u009bd é"); got != "a?[2Jb?c?d é" {
		t.Errorf("%q", got)
	}
}

// Colours change how a table looks and not how it is laid out.
func TestTableColours(t *testing.T) {
	draw := func(colour bool) string {
		var b bytes.Buffer
		tab := newTable("Name", " N", "State")
		tab.add(c("a"), c("1"), styled(good, "up"))
		tab.add(c("long"), c("1000"), styled(bad, "down"))
		tab.add(c("b"), c(""), c(""))
		tab.print(&screen{w: &b, colour: colour})
		return b.String()
	}
	text := draw(false)
	if text != "Name     N  State\na        1  up\nlong  1000  down\nb\n" {
		t.Errorf("%q", text)
	}
	coloured := draw(true)
	if !strings.Contains(coloured, "\x1b[32mup\x1b[0m") {
		t.Errorf("%q", coloured)
	}
	for _, code := range []string{"\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"} {
		coloured = strings.ReplaceAll(coloured, code, "")
	}
	if coloured != text {
		t.Errorf("%q without its codes is not %q", coloured, text)
	}
}

func TestColoured(t *testing.T) {
	if Coloured(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteErrors(t *testing.T) {
	s := &screen{w: fullDisk{}}
	s.printf("x")
	if s.done() == nil {
		t.Error("a failed write was forgotten")
	}
	if err := jsonRows(fullDisk{}, []int{1}); err == nil {
		t.Error("a failed write was forgotten")
	}
}

func FuzzParseRouteWords(f *testing.F) {
	f.Add("for 10.0.0.1 all")
	f.Add("10.0.0.0/8 count protocol p table")
	f.Fuzz(func(t *testing.T, line string) {
		q, err := parseRouteWords(strings.Fields(line))
		if err == nil && q.filter.Prefix.IsValid() && q.filter.Prefix != q.filter.Prefix.Masked() {
			t.Errorf("%q gives %v", line, q.filter.Prefix)
		}
	})
}
