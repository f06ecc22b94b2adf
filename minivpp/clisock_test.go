package minivpp

import (
	"strings"
	"testing"
)

// feed gives a terminal all bytes, and returns what it echoes and the lines.
func feed(t *terminal, data []byte) (echo string, lines []string) {
	for _, b := range data {
		e, line, done := t.input(b)
		echo += e
		if done {
			lines = append(lines, line)
		}
	}
	return echo, lines
}

func TestTerminal(t *testing.T) {
	ttype := func(name string) string { return "\xff\xfa\x18\x00" + name + "\xff\xf0" }
	tests := []struct {
		name, in string
		person   bool
		lines    string
	}{
		{"vppctl", ttype("vppctl") + "show version\n\x00quit\n", false, "show version|quit"},
		{"person", "\xff\xfb\x18" + ttype("xterm") + "sho\x7f\x7fhow int\r\n", true, "show int"},
		{"all ends of lines", "a\nb\rc\r\nd\r\n", false, "a|b|c|d"},
		{"empty lines", "\n\r\n", false, "|"},
		{"more backspaces than letters", "a\x7f\x7f\x7fb\n", false, "b"},
		{"control C", "foo\x03bar\n", false, "bar"},
		{"control D", "\x04", false, "quit"},
		{"control D within a line", "a\x04\n", false, "a"},
		{"telnet within a line", "sh\xff\xfd\x01ow\n", false, "show"},
		{"a too long line", strings.Repeat("x", maxLine+10) + "\n", false, strings.Repeat("x", maxLine)},
		{"endless telnet", "\xff\xfa" + strings.Repeat("x", 127) + "show\n", false, "show"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var term terminal
			_, lines := feed(&term, []byte(tt.in))
			if got := strings.Join(lines, "|"); got != tt.lines || term.person != tt.person {
				t.Errorf("lines %q, person %v", got, term.person)
			}
		})
	}
}

func FuzzTerminal(f *testing.F) {
	f.Add([]byte("\xff\xfa\x18\x00vppctl\xff\xf0show version\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var term terminal
		_, lines := feed(&term, data)
		for _, l := range lines {
			if len(l) > maxLine || strings.ContainsAny(l, "\r\n\x00") {
				t.Errorf("line %q", l)
			}
		}
		if len(term.telnet) > 129 || len(term.line) > maxLine {
			t.Errorf("keeps %d and %d bytes", len(term.telnet), len(term.line))
		}
	})
}
