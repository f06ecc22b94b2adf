package man

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Command makes rlr(1).
func Command(root *cobra.Command) []byte {
	root.InitDefaultHelpFlag()
	p := newPage(root.Name(), 1)
	p.heading("SH", "NAME")
	p.text(root.Name() + " - " + strings.ToLower(root.Short[:1]) + root.Short[1:])
	p.heading("SH", "SYNOPSIS")
	p.text("`" + root.Name() + "` [*option*]... *command* [*argument*]...")
	p.heading("SH", "DESCRIPTION")
	p.help(root.Long)
	p.heading("SH", "OPTIONS")
	p.paragraph("Every command takes these; each has some of its own, and `--help`.")
	p.flags(root.PersistentFlags())
	p.heading("SH", "COMMANDS")
	p.tree(root)
	p.heading("SH", "EXIT STATUS")
	p.item("0", "What was asked for is done.")
	p.item("1", "It did not work: no router runs, a check of a lab failed, no answer came to a ping.")
	p.item("2", "It cannot be meant: a wrong argument, or a wrong configuration.")
	p.heading("SH", "ENVIRONMENT")
	p.item("`XDG_RUNTIME_DIR`", "The folder in which the routers' folders are. Without it they are in one of the user's under the temporary directory.")
	p.item("`NO_COLOR`", "No colours on terminals.")
	p.heading("SH", "FILES")
	p.item("`$XDG_RUNTIME_DIR/rlr/`*NAME*`/`", "The sockets of the router of that name, for its user only: `control.sock`, which the other commands use, and `api.sock`, the binary API of the dataplane.")
	p.item("`$XDG_RUNTIME_DIR/rlr/links/`", "The sockets of memif links whose configuration gives a plain name.")
	p.heading("SH", "EXAMPLES")
	p.verbatim(unindent(root.Example))
	p.heading("SH", "SEE ALSO")
	p.paragraph("`rlr.yaml`(5), `birdc`(8), `wg`(8)")
	return p.bytes()
}

// tree writes the commands below c that do something, in order.
func (p *page) tree(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() && sub.Name() != "help" {
			continue
		}
		if sub.Runnable() && !sub.HasAvailableSubCommands() {
			p.command(sub)
		}
		p.tree(sub)
	}
}

func (p *page) command(c *cobra.Command) {
	c.InitDefaultHelpFlag()
	p.heading("SS", strings.TrimSuffix(c.UseLine(), " [flags]"))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	p.help(text)
	p.flags(c.LocalNonPersistentFlags())
	if c.HasExample() {
		p.verbatim(unindent(c.Example))
	}
}

// help writes a command's text: paragraphs, and lines that are indented as they are.
func (p *page) help(text string) {
	for _, part := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(part, " ") || strings.HasPrefix(part, "\t") {
			p.verbatim(unindent(part))
			continue
		}
		p.b.WriteString(".PP\n")
		for line := range strings.Lines(part) {
			p.b.WriteString(guard(escape(strings.TrimSpace(line))) + "\n")
		}
	}
}

func (p *page) flags(set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		term := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			term = "`-" + f.Shorthand + "`, " + term
		}
		if name != "" {
			term += " *" + name + "*"
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		p.b.WriteString(".TP\n" + guard(inline(term)) + "\n" + guard(escape(usage)) + "\n")
	})
}

// unindent takes away the white space that all lines begin with.
func unindent(s string) string {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	least := -1
	for _, l := range lines {
		if n := len(l) - len(strings.TrimLeft(l, " \t")); strings.TrimSpace(l) != "" && (least < 0 || n < least) {
			least = n
		}
	}
	for i, l := range lines {
		if len(l) >= least && least > 0 {
			lines[i] = l[least:]
		}
	}
	return strings.Join(lines, "\n")
}
