package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Words abbreviate as in vppctl and birdc: a prefix that only one word has is that word. cobra's own prefix matching is a
// global variable and silently gives up where two match; this says which.

// expand replaces abbreviated command words in args by whole ones. Flags and everything after the last command word stay.
func expand(root *cobra.Command, args []string) ([]string, error) {
	out := slices.Clone(args)
	cmd := root
	for i := 0; i < len(out); i++ {
		a := out[i]
		switch {
		case a == "--":
			return out, nil
		case strings.HasPrefix(a, "-") && a != "-":
			if takesValue(cmd, a) {
				i++
			}
			continue
		case a == cobra.ShellCompRequestCmd || a == cobra.ShellCompNoDescRequestCmd:
			continue // the words to complete follow; the last may be empty
		case !cmd.HasSubCommands():
			return out, nil
		}
		completing := i == len(out)-1 && i > 0 && strings.HasPrefix(out[0], cobra.ShellCompRequestCmd)
		if completing {
			return out, nil
		}
		sub, err := subcommand(cmd, a)
		if err != nil || sub == nil {
			return out, err
		}
		out[i] = sub.Name()
		cmd = sub
	}
	return out, nil
}

// takesValue reports whether the flag's value is the next argument.
func takesValue(cmd *cobra.Command, arg string) bool {
	if strings.Contains(arg, "=") {
		return false
	}
	var f *pflag.Flag
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		f = lookup(cmd, func(s *pflag.FlagSet) *pflag.Flag { return s.Lookup(name) })
	} else if len(arg) == 2 { // a longer one has its value in the same word, or is a group of switches
		f = lookup(cmd, func(s *pflag.FlagSet) *pflag.Flag { return s.ShorthandLookup(arg[1:]) })
	}
	return f != nil && f.NoOptDefVal == ""
}

func lookup(cmd *cobra.Command, in func(*pflag.FlagSet) *pflag.Flag) *pflag.Flag {
	if f := in(cmd.Flags()); f != nil {
		return f
	}
	for c := cmd; c != nil; c = c.Parent() {
		if f := in(c.PersistentFlags()); f != nil {
			return f
		}
	}
	return nil
}

// wholeWord marks a command that is not abbreviated, so that others can be.
const wholeWord = "whole word"

// subcommand returns the command below cmd that word means, nil if none (which cobra reports with a suggestion).
func subcommand(cmd *cobra.Command, word string) (*cobra.Command, error) {
	var words []string
	byWord := make(map[string]*cobra.Command)
	for _, sub := range cmd.Commands() {
		for _, w := range append([]string{sub.Name()}, sub.Aliases...) {
			if (sub.Hidden || sub.Annotations[wholeWord] != "") && w != word {
				continue
			}
			words = append(words, w)
			byWord[w] = sub
		}
	}
	full, err := unique(word, words)
	if err != nil {
		return nil, usage("%s: %v", cmd.CommandPath(), err)
	}
	return byWord[full], nil
}

// unique returns the one of words that word is, or is the only prefix of; "" if none.
func unique(word string, words []string) (string, error) {
	var found []string
	for _, w := range words {
		if w == word {
			return w, nil
		}
		if word != "" && strings.HasPrefix(w, word) {
			found = append(found, w)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", usage("%q is ambiguous: %s", word, strings.Join(found, ", "))
}
