// Package birdctl answers BIRD 2's control protocol, so that birdc and the looking glasses and exporters made for BIRD work with the
// router: it is another rendering of what the router's own control socket tells. Formats and codes are those of BIRD 2.0.12
// (doc/reply_codes, nest/proto.c, nest/rt-show.c), as the program itself prints them; what is not supported is answered as BIRD
// answers a wrong command.
package birdctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/internal/ctl"
)

// Options are what a Server needs.
type Options struct {
	Router  ctl.Handlers // what is asked
	Version string       // of rlr
	Config  string       // path of the configuration file, for configure
	// Check says what is wrong with the configuration file, for configure check.
	Check func(context.Context) error
	Log   *logrus.Entry
}

// Server answers clients. Make it with New.
type Server struct{ opt Options }

// New makes a server.
func New(o Options) *Server { return &Server{o} }

const (
	maxLine      = 4096
	maxClients   = 64
	writeTimeout = 30 * time.Second // for a client that reads slowly
)

// Serve answers on a listener until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	slots := make(chan struct{}, maxClients)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("bird control socket: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		clients.Go(func() {
			defer func() { <-slots }()
			s.talk(ctx, conn)
		})
	}
}

// talk is one client's conversation.
func (s *Server) talk(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &client{server: s, out: bufio.NewWriter(slowly{conn})}
	c.end(codeWelcome, "BIRD 2.0.12 ready. (rlr "+s.opt.Version+")")
	in := bufio.NewReaderSize(conn, maxLine)
	for c.out.Flush() == nil && !c.over {
		line, tooLong, err := in.ReadLine()
		switch {
		case err != nil:
			return
		case tooLong:
			for tooLong && err == nil {
				_, tooLong, err = in.ReadLine()
			}
			c.end(codeTooLong, "command too long")
		default:
			c.answer(ctx, string(line))
		}
	}
}

// slowly gives each write its own time.
type slowly struct{ conn net.Conn }

func (s slowly) Write(b []byte) (int, error) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.conn.Write(b)
}

// code is a reply code of BIRD's doc/reply_codes.
type code int

const (
	codeOK           code = 0
	codeWelcome      code = 1
	codeReading      code = 2
	codeReconfigured code = 3
	codeAlreadyOff   code = 8
	codeDisabled     code = 9
	codeAlreadyOn    code = 10
	codeEnabled      code = 11
	codeRestarted    code = 12
	codeStatus       code = 13
	codeRouteCount   code = 14
	codeReloading    code = 15
	codeRestricted   code = 16
	codeConfigOK     code = 20
	codeVersion      code = 1000
	codeInterface    code = 1001
	codeProtocol     code = 1002
	codeAddress      code = 1003
	codeFlags        code = 1004
	codeSummary      code = 1005
	codeDetails      code = 1006
	codeRoute        code = 1007
	codeRouteDetails code = 1008
	codeUptime       code = 1011
	codeAttributes   code = 1012
	codeMemory       code = 1018
	codeBFD          code = 1020
	codeProtocolHead code = 2002
	codeSummaryHead  code = 2005
	codeNoRoute      code = 8001
	codeBadConfig    code = 8002
	codeNoProtocol   code = 8003
	codeDenied       code = 8007
	codeFailed       code = 8006 // "reload failed", the nearest to a command that could not be done
	codeTooLong      code = 9000
	codeSyntax       code = 9001
)

// client is a conversation's state.
type client struct {
	server     *Server
	out        *bufio.Writer
	last       code // of the latest line of this reply
	restricted bool
	over       bool
}

// line writes a line of a reply: with its code where that differs from the line's before.
func (c *client) line(n code, format string, args ...any) {
	if n == c.last {
		c.out.WriteByte(' ')
	} else {
		fmt.Fprintf(c.out, "%04d-", n)
		c.last = n
	}
	fmt.Fprintf(c.out, format, args...)
	c.out.WriteByte('\n')
}

// end writes the last line of a reply.
func (c *client) end(n code, text string) {
	fmt.Fprintf(c.out, "%04d %s\n", n, strings.ReplaceAll(text, "\n", "; "))
	c.last = -1
}

// ok ends a reply of which nothing is left to say.
func (c *client) ok() { c.end(codeOK, "") }

// syntaxError is a command that does not exist.
type syntaxError struct{ at string }

func (e syntaxError) Error() string {
	if e.at == "" {
		return "syntax error, unexpected END"
	}
	return fmt.Sprintf("syntax error, unexpected %q", e.at)
}

// failure is an error with a code of its own.
type failure struct {
	code code
	text string
}

func (f failure) Error() string { return f.text }

func (c *client) answer(ctx context.Context, text string) {
	c.last = -1
	err := c.command(ctx, text)
	var syntax syntaxError
	var failed failure
	switch {
	case err == nil:
	case errors.As(err, &syntax):
		c.end(codeSyntax, err.Error())
	case errors.As(err, &failed):
		c.end(failed.code, failed.text)
	case errors.Is(err, io.EOF):
		c.over = true
	default:
		c.end(codeFailed, err.Error())
	}
}
