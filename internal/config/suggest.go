package config

import (
	"fmt"
	"slices"
	"strings"
)

// nearest returns the candidate that somebody who wrote word most likely meant, or "".
func nearest(word string, candidates []string) string {
	best, distance := "", len(word)
	folded := fold(word)
	for _, c := range candidates {
		n := edits(folded, fold(c))
		// A third of the letters may be wrong: "adress" is three edits from "addresses".
		if n <= max(1, len(c)/3) && n < distance {
			best, distance = c, n
		}
	}
	return best
}

// fold makes alike what people mix up: case, "_" and "-".
func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// edits counts insertions, deletions, replacements and swaps of neighbours that turn a into b.
func edits(a, b string) int {
	const long = 64 // nobody means one of our keys by more than that
	if len(a) > long || len(b) > long {
		return long
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// manyNames is how many names a message lists.
const manyNames = 12

// exists says what there is instead of a name that does not exist. It compares with all names, so it stops where the report
// does.
func (d *decoder) exists(what, name string, there []string) string {
	if len(d.errs) >= maxErrors {
		return "choose another"
	}
	there = slices.Clone(there)
	slices.Sort(there)
	near := ""
	if len(there) < 1000 {
		near = nearest(name, there)
	}
	switch {
	case near != "":
		return "did you mean " + quote(near) + "?"
	case len(there) == 0:
		return "there is no " + what + " at all"
	case len(there) > manyNames:
		return fmt.Sprintf("there are %s, … (%d)", strings.Join(there[:manyNames], ", "), len(there))
	case len(there) == 1:
		return "there is " + there[0]
	default:
		return "there are " + strings.Join(there, ", ")
	}
}

func quote(s string) string { return `"` + s + `"` }
