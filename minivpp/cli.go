package minivpp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/vlib"
)

// The command line: a documented part of VPP's, for cli_inband, the CLI socket and people. As in VPP, commands form a tree
// of words, each of which may be shortened as long as it stays unique. A command that there is not is answered as VPP
// answers one that it does not know.

// command is a node of the tree: it has either sub-commands or a function, or both.
type command struct {
	word string
	help string // usage, one line
	sub  []*command
	slow bool // may take long: it does not hold up what else its client asks for
	// run gets the words that are left. Output is what it has written even when it errs.
	run func(ctx context.Context, out *strings.Builder, args []string) error
}

// unknownInput is VPP's complaint about words that it cannot use.
type unknownInput string

func (e unknownInput) Error() string { return fmt.Sprintf("unknown input `%s'", string(e)) }

// cliInband runs a line and returns what it wrote; the error of a command is part of the text, as in VPP. A slow command is
// answered when it is done, and its client's other requests meanwhile; it ends when the client leaves.
func (s *Server) cliInband(c *client, context uint32, data []byte) {
	var q vlib.CliInband
	if !c.decode(data, &q) {
		return
	}
	line := text(q.Cmd)
	run := func() {
		out, err := s.command(c.ctx, line)
		c.reply(context, &vlib.CliInbandReply{Reply: out}, retval(err))
	}
	if at, _, _ := s.parse(line); !at.slow {
		run()
		return
	}
	if err := c.beside(func() { run(); c.flush() }); err != nil {
		c.reply(context, &vlib.CliInbandReply{}, retval(err))
	}
}

// parse finds the command that a line means: its names, and the words that are left.
func (s *Server) parse(line string) (at *command, names, args []string) {
	at, args = s.commands, strings.Fields(line)
	for len(args) > 0 && len(at.sub) > 0 {
		next := at.find(args[0])
		if next == nil {
			break
		}
		at, args = next, args[1:]
		names = append(names, at.word)
	}
	return at, names, args
}

// command runs one line. The error is the retval of cli_inband; the text holds its explanation.
func (s *Server) command(ctx context.Context, line string) (string, error) {
	var out strings.Builder
	at, names, args := s.parse(line)
	if len(args) > 0 && (args[0] == "?" || args[0] == "help") && len(at.sub) > 0 {
		at.usage(&out)
		return out.String(), nil
	}
	err := error(unknownInput(strings.Join(args, " ")))
	if at.run != nil {
		err = at.run(ctx, &out, args)
	}
	if err == nil {
		return out.String(), nil
	}
	if len(names) > 0 {
		err = fmt.Errorf("%s: %w", strings.Join(names, " "), err)
	}
	fmt.Fprintf(&out, "%v\n", err)
	return out.String(), api.UNSPECIFIED
}

// find returns the sub-command that a word means: the one with that name, or the only one that starts with it.
func (c *command) find(word string) *command {
	var found *command
	for _, sub := range c.sub {
		switch {
		case sub.word == word:
			return sub
		case !strings.HasPrefix(sub.word, word):
		case found != nil:
			return nil // ambiguous
		default:
			found = sub
		}
	}
	return found
}

// usage lists the sub-commands.
func (c *command) usage(out *strings.Builder) {
	subs := slices.SortedFunc(slices.Values(c.sub), func(a, b *command) int { return strings.Compare(a.word, b.word) })
	for _, sub := range subs {
		help := sub.help
		if help == "" {
			help = sub.word + " commands"
		}
		fmt.Fprintf(out, "  %-30s %s\n", sub.word, help)
	}
}

// commandTree is every command that there is.
func (s *Server) commandTree() *command {
	fibs := func(ip6 bool) func(context.Context, *strings.Builder, []string) error {
		return func(_ context.Context, out *strings.Builder, args []string) error { return s.showFIB(out, ip6, args) }
	}
	neighbors := func(ip6 bool) func(context.Context, *strings.Builder, []string) error {
		return func(_ context.Context, out *strings.Builder, args []string) error {
			return s.showNeighbors(out, ip6, args)
		}
	}
	families := func(word string, ip6 bool) *command {
		return &command{word: word, sub: []*command{
			{word: "fib", help: "show " + word + " fib [table <id>] [<address>|<prefix>] [summary]", run: fibs(ip6)},
			{word: "neighbors", help: "show " + word + " neighbors [<interface>]", run: neighbors(ip6)},
			{word: "table", help: "show " + word + " table", run: func(_ context.Context, out *strings.Builder, args []string) error {
				return s.showTables(out, ip6, args)
			}},
		}}
	}
	show := &command{word: "show", help: "Show commands", sub: []*command{
		{word: "version", help: "show version [verbose]", run: s.showVersionCommand},
		{word: "clock", help: "show clock", run: s.showClock},
		{word: "interface", help: "show interface [address] [<interface> ...]", run: s.showInterface},
		{word: "hardware-interfaces", help: "show hardware-interfaces [brief] [<interface> ...]", run: s.showHardware},
		{word: "memif", help: "show memif [<interface> ...]", run: s.showMemif},
		{word: "plugins", help: "show plugins", run: s.showPlugins},
		{word: "errors", help: "show errors", run: s.showErrors},
		{word: "fib", sub: []*command{{word: "source", help: "show fib source", run: s.showSources}}},
		families("ip", false),
		families("ip6", true),
	}}
	root := &command{sub: []*command{
		show,
		{word: "set", help: "Set commands", sub: []*command{
			{word: "interface", help: "Interface commands", sub: []*command{
				{word: "state", help: "set interface state <interface> up|down", run: s.setInterfaceState},
				{word: "ip", sub: []*command{
					{word: "address", help: "set interface ip address [del] <interface> <prefix>|all", run: s.setInterfaceAddress},
				}},
			}},
		}},
		{word: "ip", help: "Internet protocol (IP) commands", sub: []*command{
			{word: "route", help: "ip route add|del <prefix> [table <id>] via <next-hop>|<interface> ...", run: s.ipRoute},
		}},
		{word: "ping", slow: true, help: "ping <address> [source <interface>] [size <n>] [interval <s>] [repeat <n>] [table-id <id>]", run: s.pingCommand},
	}}
	root.sub = append(root.sub, &command{word: "help", help: "help [<command>]", run: func(_ context.Context, out *strings.Builder, args []string) error {
		at := root
		for _, word := range args {
			next := at.find(word)
			if next == nil || len(next.sub) == 0 {
				return unknownInput(word)
			}
			at = next
		}
		at.usage(out)
		return nil
	}})
	return root
}

// noArguments refuses words behind a command that takes none.
func noArguments(args []string) error {
	if len(args) > 0 {
		return unknownInput(strings.Join(args, " "))
	}
	return nil
}

// explain makes a message of an error that the plane returned.
func explain(err error) error {
	var e api.VPPApiError
	if errors.As(err, &e) {
		return errors.New(strings.ToLower(strings.TrimPrefix(e.Error(), "VPPApiError: ")))
	}
	return err
}
