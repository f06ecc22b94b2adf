package man

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"rlr/internal/cli"
	"rlr/internal/peering"
)

var update = flag.Bool("update", false, "write the pages anew")

// tree is the whole command tree: with all the commands whose actions cmd/rlr gives.
func tree() *cobra.Command {
	return cli.New(cli.Commands{
		Run:             func(context.Context, string) error { return nil },
		Check:           func(string) ([]byte, []cli.Problem) { return nil, nil },
		Doctor:          func() []cli.Finding { return nil },
		NewPrivateKey:   func() (string, error) { return "", nil },
		NewPresharedKey: func() (string, error) { return "", nil },
		PublicKey:       func(string) (string, error) { return "", nil },
		Peerings:        func(string) ([]peering.Peering, error) { return nil, nil },
		Lab:             &cli.Lab{},
	})
}

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	markdown, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"rlr.1": Command(tree()), "rlr.yaml.5": Configuration(string(markdown))}
}

func TestPagesAreCurrent(t *testing.T) {
	for name, want := range pages(t) {
		path := filepath.Join("../../docs/man", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("docs/man/%s is old; run: make man", name)
		}
	}
}

// Every command that can be used has its section.
func TestEveryCommandIsThere(t *testing.T) {
	text := string(pages(t)["rlr.1"])
	count := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden {
				continue
			}
			if sub.Runnable() && !sub.HasAvailableSubCommands() {
				count++
				if !strings.Contains(text, ".SS \""+escape(sub.CommandPath())) {
					t.Errorf("%s has no section", sub.CommandPath())
				}
			}
			walk(sub)
		}
	}
	walk(tree())
	if count < 20 {
		t.Errorf("only %d commands: the tree is not whole", count)
	}
}

// groff, where it is installed, has nothing to complain about.
func TestGroffUnderstands(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	for name, text := range pages(t) {
		cmd := exec.Command(groff, "-man", "-ww", "-Tutf8", "-Kutf8", "-z")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestRoff(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{"a `--flag` and *NAME*", `a \fB\-\-flag\fR and \fINAME\fR`},
		{"**Strict.** [see](#there) it", `\fBStrict.\fR see it`},
		{`back\slash`, `back\eslash`},
		{".starts", `\&.starts`},
		{"'starts", `\&'starts`},
	} {
		if got := guard(inline(c.in)); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	got := string(Configuration("# T\nOne\ntwo.\n\n- a\n  b\n- c\n\n## Next\n<!-- x -->\n| key | type | default | meaning |\n|---|---|---|---|\n| `k` | number | 1 | what: [there](#x) |\n| `m` | | | none |\n\n```yaml\n.x: 1\n```\n"))
	want := ".SH \"DESCRIPTION\"\n.PP\nOne\ntwo.\n.IP \\(bu 2\na\nb\n.IP \\(bu 2\nc\n.SH \"NEXT\"\n" +
		".TP\n\\fBk\\fR (number; default 1)\nwhat\n.TP\n\\fBm\\fR\nnone\n.PP\n.RS 4\n.nf\n\\&.x: 1\n.fi\n.RE\n.SH \"SEE ALSO\"\n"
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}
