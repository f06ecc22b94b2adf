package man

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that does something has help, an example that is of it, a line in the manual, completion of its arguments where it
// takes any, and, where it answers, --json.
func TestCommandTree(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/rlr.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.ReplaceAll(string(page), `\-`, "-")
	seen := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
				walk(sub)
			}
		}
		path := c.CommandPath()
		if c.Short == "" {
			t.Errorf("%s: no short help", path)
		}
		if !c.Runnable() {
			return
		}
		seen++
		if !strings.Contains(c.Example, path) {
			t.Errorf("%s: no example of it: %q", path, c.Example)
		}
		if !strings.Contains(manual, path) {
			t.Errorf("%s: the manual does not have it", path)
		}
		takes := strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(c.Use, c.Name())), "[flags]")
		if takes != "" && c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
			t.Errorf("%s: no completion of %s", path, takes)
		}
		if strings.HasPrefix(path, "rlr show") && c.Flags().Lookup("json") == nil && c.InheritedFlags().Lookup("json") == nil {
			t.Errorf("%s: no --json", path)
		}
	}
	walk(tree())
	t.Log(seen, "commands")
	if seen < 40 {
		t.Errorf("only %d commands", seen)
	}
}
