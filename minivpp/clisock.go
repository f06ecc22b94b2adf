package minivpp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The CLI socket, for vppctl: telnet over a unix socket, as VPP's cli-listen. The client is asked for its terminal type;
// "vppctl" means a program that sends lines and wants a zero byte after each answer, anything else a person, who gets a
// prompt and an echo (RFC 854, RFC 857, RFC 1091).

// Telnet's bytes.
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWill = 251
	telnetDo   = 253
	telnetDont = 254
	telnetIAC  = 255

	telnetEcho  = 1
	telnetSGA   = 3
	telnetTType = 24
)

// greeting asks for character mode and for the terminal type.
var greeting = []byte{
	telnetIAC, telnetWill, telnetSGA,
	telnetIAC, telnetWill, telnetEcho,
	telnetIAC, telnetDo, telnetTType,
	telnetIAC, telnetSB, telnetTType, 1, telnetIAC, telnetSE,
}

const (
	maxLine   = 4096 // longest command, bytes; what is beyond is dropped
	cliPrompt = program + "# "
)

// terminal is a session on the CLI socket. It takes bytes and says what they mean; it does no I/O.
type terminal struct {
	line   []byte
	telnet []byte // an unfinished telnet command
	lastCR bool
	person bool // an interactive client
}

// input takes one byte: what to echo, and a whole line when there is one.
func (t *terminal) input(b byte) (echo string, line string, done bool) {
	if len(t.telnet) > 0 || b == telnetIAC {
		return t.command(b), "", false
	}
	wasCR := t.lastCR
	t.lastCR = b == '\r'
	switch {
	case b == '\n' && wasCR: // the second half of a line's end
		return "", "", false
	case b == '\r' || b == '\n':
		line = string(t.line)
		t.line = t.line[:0]
		return "\r\n", line, true
	case b == 0x08 || b == 0x7f:
		if len(t.line) == 0 {
			return "", "", false
		}
		t.line = t.line[:len(t.line)-1]
		return "\b \b", "", false
	case b == 0x03: // ^C
		t.line = t.line[:0]
		return "^C\r\n" + cliPrompt, "", false
	case b == 0x04 && len(t.line) == 0: // ^D
		return "", "quit", true
	case b < ' ' || len(t.line) >= maxLine:
		return "", "", false
	}
	t.line = append(t.line, b)
	return string(rune(b)), "", false
}

// command collects a telnet command. Of all of them, only the answer about the terminal type matters.
func (t *terminal) command(b byte) (echo string) {
	t.telnet = append(t.telnet, b)
	n := len(t.telnet)
	switch {
	case n == 1:
		return ""
	case t.telnet[1] == telnetSB:
		if n < 4 || t.telnet[n-2] != telnetIAC || b != telnetSE {
			if n > 128 {
				t.telnet = nil // nonsense
			}
			return ""
		}
		name, ok := bytes.CutPrefix(t.telnet[2:n-2], []byte{telnetTType, 0})
		if ok && !t.person && string(name) != "vppctl" {
			t.person = true
			echo = cliPrompt
		}
	case t.telnet[1] >= telnetWill && t.telnet[1] <= telnetDont && n < 3:
		return ""
	}
	t.telnet = nil
	return echo
}

// serveCLI talks to one client of the CLI socket until it quits or ctx ends.
func (s *Server) serveCLI(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	write := func(b []byte) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(s.limits.stall))
		_, err := conn.Write(b)
		return err == nil && ctx.Err() == nil
	}
	if !write(greeting) {
		return
	}
	var t terminal
	buf := make([]byte, 1024)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		for _, b := range buf[:n] {
			echo, line, done := t.input(b)
			if t.person && echo != "" && !write([]byte(echo)) {
				return
			}
			if done && !s.runLine(ctx, conn, &t, line, write) {
				return
			}
		}
	}
}

// runLine runs a command and sends its output. It reports whether the session goes on.
func (s *Server) runLine(ctx context.Context, conn *net.UnixConn, t *terminal, line string, write func([]byte) bool) bool {
	line = strings.TrimSpace(line)
	switch line {
	case "quit", "exit", "q":
		return false
	}
	var out string
	if line != "" {
		run := func(ctx context.Context) { out, _ = s.command(ctx, line) } // what went wrong is part of the text
		if at, _, _ := s.parse(line); at.slow {
			attended(ctx, conn, t.person, run)
		} else {
			run(ctx)
		}
		out = strings.ReplaceAll(out, "\n", "\r\n")
	}
	if t.person {
		out += cliPrompt
	} else {
		out += "\x00"
	}
	return write([]byte(out))
}

// attended runs fn until the client hangs up, or, if it is a person, presses a key, as VPP's ping does. What the client sends
// meanwhile stays unread.
func attended(ctx context.Context, conn *net.UnixConn, person bool, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		// An error is the deadline below, or the end of the server.
		_ = raw.Read(func(fd uintptr) bool {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
				return false
			case n > 0 && !person, n == 0 && err == nil && !hungUp(fd):
				return true // the next commands; or there are none, and it still wants the answers
			}
			cancel()
			return true
		})
	})
	fn(ctx)
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	watch.Wait()
	_ = conn.SetReadDeadline(time.Time{})
}

// hungUp tells a client that is gone from one that has only finished sending.
func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}
