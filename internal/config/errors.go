package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a configuration file.
type Error struct {
	File string // as given to Load
	Line int    // from 1; 0 when the file as a whole is meant
	Col  int    // in characters, from 1
	Msg  string // what is wrong, and what would be right

	// NotYet says that nothing is wrong but that this release cannot do it.
	NotYet bool
}

func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// Errors is what Load returns for a file that is not a configuration: never empty. Mistakes come in the file's order, and
// after all of them the keys that are not available yet.
type Errors []Error

// Error returns a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Error) int {
		if a.NotYet != b.NotYet {
			if b.NotYet {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}
