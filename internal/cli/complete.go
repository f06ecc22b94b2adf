package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rlr/internal/ctl"
)

// completeTimeout bounds how long the shell waits at a tab.
const completeTimeout = 2 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completeRouters offers the running routers, qualified by their lab where the name alone is not unique.
func completeRouters(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	all := ctl.List()
	seen := make(map[string]int)
	for _, r := range all {
		seen[r.Name]++
	}
	var out []string
	for _, r := range all {
		name := r.Name
		if seen[name] > 1 {
			name = r.String()
		}
		if strings.HasPrefix(name, word) {
			out = append(out, name)
		}
	}
	return out, noFiles
}

// routerOf reads -r of the command line that is being completed.
func routerOf(cmd *cobra.Command) string {
	if f := cmd.Flag("router"); f != nil {
		return f.Value.String()
	}
	return ""
}

// fetchNames asks the router for the names in rows; none where there is no router.
func fetchNames[R any](cmd *cobra.Command, fetch func(*ctl.Client, context.Context) ([]R, error), name func(R) string) []string {
	r, err := ctl.Find(routerOf(cmd))
	if err != nil {
		return nil
	}
	client := ctl.NewClient(r)
	defer client.Close()
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background() // cobra completes without one
	}
	ctx, cancel := context.WithTimeout(parent, completeTimeout)
	defer cancel()
	rows, err := fetch(client, ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, row := range rows {
		if n := name(row); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func filterPrefix(names []string, word string) []string {
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, word) {
			out = append(out, n)
		}
	}
	return out
}

// completeRows offers the names in a command's own rows, for its first argument.
func completeRows[R any](fetch func(*ctl.Client, context.Context) ([]R, error), name func(R) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return filterPrefix(fetchNames(cmd, fetch, name), word), noFiles
	}
}

func completeInterfaces(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return completeRows((*ctl.Client).Interfaces, func(i ctl.Interface) string { return i.Name })(cmd, args, word)
}

// completeSessions offers the neighbours that are chosen, each with its state.
func completeSessions(choose func(ctl.BGPSession) bool) cobra.CompletionFunc {
	return completeRows((*ctl.Client).BGP, func(b ctl.BGPSession) string {
		if !choose(b) {
			return ""
		}
		state := b.State
		if b.Disabled {
			state = "disabled"
		}
		return fmt.Sprintf("%s\t%s, AS %d", b.Name, state, b.AS)
	})
}

func completeNeighbors(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return completeSessions(func(ctl.BGPSession) bool { return true })(cmd, args, word)
}

// completeReset offers the words after a neighbour's name.
func completeReset(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return completeNeighbors(cmd, args, word)
	case 1:
		return filterPrefix([]string{"soft\tthe session goes on"}, word), noFiles
	case 2:
		return filterPrefix([]string{"in\tapply the import policy again", "out\tannounce all again"}, word), noFiles
	}
	return nil, noFiles
}

// completeGroups offers the groups that have neighbours now.
func completeGroups(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	return filterPrefix(fetchNames(cmd, (*ctl.Client).BGP, func(b ctl.BGPSession) string { return b.Group }), word), noFiles
}

// completeFlagInterfaces is completeInterfaces for an option, whatever the arguments are.
func completeFlagInterfaces(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	return completeInterfaces(cmd, nil, word)
}

func completeChoice(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return filterPrefix(words, word), noFiles
	}
}

// completeRoute offers the words of `show route` that are not there yet, and values after those that take one.
func completeRoute(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return completeWords(cmd, args, word, routeWords)
}

func completeFIB(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return completeWords(cmd, args, word, fibWords)
}

func completeWords(cmd *cobra.Command, args []string, word string, words []string) ([]string, cobra.ShellCompDirective) {
	last := ""
	if len(args) > 0 {
		last, _ = unique(args[len(args)-1], words) //nolint:errcheck // an ambiguous word has no values to offer
	}
	switch last {
	case "for":
		return nil, noFiles
	case "protocol":
		return filterPrefix(append(fetchNames(cmd, (*ctl.Client).Protocols, protocolName), "bgp"), word), noFiles
	case "table":
		tables := fetchNames(cmd, (*ctl.Client).Protocols, func(p ctl.Protocol) string { return p.Table })
		return filterPrefix(tables, word), noFiles
	}
	used := make(map[string]bool)
	for _, a := range args {
		if w, err := unique(a, words); err == nil {
			used[w] = true
		}
	}
	var out []string
	for _, w := range words {
		if !used[w] && strings.HasPrefix(w, word) {
			out = append(out, w)
		}
	}
	return out, noFiles
}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash | zsh | fish}",
		Short: "Print a script that completes rlr's words in your shell",
		Long: `Print a script that completes rlr's words in your shell: commands, options, and the names of routers,
interfaces and neighbours that are there now.`,
		Example: `  source <(rlr completion bash)
  rlr completion fish > ~/.config/fish/completions/rlr.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			}
			return root.GenFishCompletion(w, true)
		},
	}
}
