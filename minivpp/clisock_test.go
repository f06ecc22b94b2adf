package minivpp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestHangUp: a ping that would last for hours ends when its client goes, or presses a key, and not when it has only finished
// sending.
func TestHangUp(t *testing.T) {
	s := start(t, func(s *Server) { s.cfg.CLISocket = filepath.Join(filepath.Dir(s.cfg.APISocket), "cli.sock") })
	if _, err := s.CreateLoopback([6]byte{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.AddAddress(1, netip.MustParsePrefix("10.0.0.1/24")), s.SetAdmin(1, true)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, send string
		then       func(*net.UnixConn) error
		want       string // in the answer
	}{
		{"person presses a key", "\xff\xfa\x18\x00xterm\xff\xf0ping 10.0.0.9 repeat 100000\r", func(c *net.UnixConn) error {
			if _, err := expectText(c, "repeat 100000\r\n"); err != nil {
				return err
			}
			_, err := io.WriteString(c, "x")
			return err
		}, "Statistics:"},
		{"half closed", "ping 10.0.0.1 repeat 2 interval 0.001\n", (*net.UnixConn).CloseWrite, "2 sent, 2 received"},
		{"more commands", "ping 10.0.0.1 repeat 2 interval 0.001\n", func(c *net.UnixConn) error {
			_, err := io.WriteString(c, "show clock\n")
			return err
		}, "2 sent, 2 received"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialCLI(t, s)
			io.WriteString(c, tt.send)
			if err := tt.then(c); err != nil {
				t.Fatal(err)
			}
			if got, err := expectText(c, tt.want); err != nil {
				t.Errorf("%q: %v", got, err)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		near, far := socketPair(t)
		done := make(chan struct{})
		go func() { defer close(done); s.serveCLI(t.Context(), near) }()
		io.WriteString(far, "ping 10.0.0.9 repeat 100000\n")
		if _, err := io.ReadFull(far, make([]byte, len(greeting))); err != nil {
			t.Fatal(err)
		}
		far.Close()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("it still pings")
		}
	})
}

// expectText reads until what has been read contains a text.
func expectText(r io.Reader, want string) (got string, err error) {
	for b := make([]byte, 4096); err == nil && !strings.Contains(got, want); {
		var n int
		n, err = r.Read(b)
		got += string(b[:n])
	}
	return got, err
}

func dialCLI(t *testing.T, s *Server) *net.UnixConn {
	c, err := net.Dial("unix", s.cfg.CLISocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.UnixConn)
}

func socketPair(t *testing.T) (a, b *net.UnixConn) {
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near.(*net.UnixConn), far.(*net.UnixConn)
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
