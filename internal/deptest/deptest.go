// Package deptest holds the program's layout to its design: who may import whom, and how large a file may grow.
//
// A table of allowed imports, each row with its reason, is compared with the import clauses of all files. Only the clauses
// are parsed: no build, no network, files for other systems included. Tests may import what they like (a conformance test
// needs both sides of a seam), except the programs. A package without a row is a violation too: the table is decided when a
// package is made, and not when it has grown ties already.
package deptest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Rule says what the packages in a folder may import besides the standard library and what everybody may. Of several rules
// that match a package, the one with the longest folder counts.
type Rule struct {
	Folder string   // from the module's root; its subfolders are included
	May    []string // import paths, subpackages included; "rlr/x" is ours
	Any    bool     // may import everything, except programs
	Why    string
}

// Everybody is what every package may import.
var Everybody = []string{
	"github.com/sirupsen/logrus", // the program's logger
	"golang.org/x/sync",          // errgroup: goroutines that somebody waits for
}

// Module is the name of the module in go.mod.
const Module = "rlr"

// programs are never imported: they wire, and hold nothing that another package needs.
const programs = Module + "/cmd"

// Violation is one thing that is not as designed.
type Violation struct {
	File string // from the root
	Line int
	Msg  string
}

func (v Violation) String() string { return fmt.Sprintf("%s:%d: %s", v.File, v.Line, v.Msg) }

// source is a parsed file of the tree.
type source struct {
	name string // from the root, with slashes
	file *ast.File
	fset *token.FileSet
	size int // lines
}

func (s source) folder() string { return path.Dir(s.name) }
func (s source) isTest() bool   { return strings.HasSuffix(s.name, "_test.go") }

// sources parses the Go files below root.
func sources(root string) ([]source, error) {
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() {
			if p != root && (name == "testdata" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || name[0] == '.' || name[0] == '_' {
			return nil
		}
		file, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(rel), file, fset, fset.File(file.Pos()).LineCount()})
		return nil
	})
	return all, err
}

// Imports compares the import clauses of the files below root with the rules.
func Imports(root string, rules []Rule) ([]Violation, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, f := range files {
		rule, ok := match(rules, f.folder())
		if !ok {
			out = append(out, Violation{f.name, 1, fmt.Sprintf("package %s is not in the import table; add a row with its reason", f.folder())})
			continue
		}
		for _, spec := range f.file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: import %s: %w", f.name, spec.Path.Value, err)
			}
			if why := forbidden(f, rule, to); why != "" {
				out = append(out, Violation{f.name, f.fset.Position(spec.Pos()).Line, fmt.Sprintf("%s must not import %s: %s", f.folder(), to, why)})
			}
		}
	}
	return out, nil
}

func match(rules []Rule, folder string) (Rule, bool) {
	var best Rule
	for _, r := range rules {
		if within(folder, r.Folder) && len(r.Folder) > len(best.Folder) {
			best = r
		}
	}
	return best, best.Folder != ""
}

// within reports whether a path is a folder, or below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// forbidden returns why an import is not allowed, or "".
func forbidden(f source, r Rule, to string) string {
	first, _, _ := strings.Cut(to, "/")
	switch {
	case within(to, programs) && !within(f.folder(), "cmd"):
		return "nothing imports a program: it only wires the packages"
	case f.isTest() || r.Any:
		return ""
	case to == "C":
		return "the program is built with CGO_ENABLED=0"
	case to != Module && first != Module && !strings.Contains(first, "."): // the standard library
		return ""
	case within(to, Module+"/"+r.Folder):
		return ""
	}
	for _, ok := range slices.Concat(Everybody, r.May) {
		if within(to, ok) {
			return ""
		}
	}
	return r.Why
}

// Sizes returns the files below root that have more lines than limit.
func Sizes(root string, limit int) ([]Violation, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	var out []Violation
	for _, f := range files {
		if f.size > limit && !ast.IsGenerated(f.file) {
			out = append(out, Violation{f.name, limit + 1, fmt.Sprintf("the file has %d lines, more than %d; split it by what it does", f.size, limit)})
		}
	}
	return out, nil
}

// Docs returns the packages below root without a package comment, or with one that does not begin as gofmt and godoc want.
func Docs(root string) ([]Violation, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	first := map[string]source{}
	documented := map[string]bool{}
	var folders []string
	for _, f := range files {
		if f.isTest() {
			continue
		}
		if _, seen := first[f.folder()]; !seen {
			first[f.folder()] = f
			folders = append(folders, f.folder())
		}
		text := f.file.Doc.Text()
		begin := "Package " + f.file.Name.Name + " "
		if f.file.Name.Name == "main" {
			begin = "Command "
		}
		documented[f.folder()] = documented[f.folder()] || strings.HasPrefix(text, begin)
	}
	var out []Violation
	for _, folder := range folders {
		if !documented[folder] {
			out = append(out, Violation{first[folder].name, 1, fmt.Sprintf("package %s has no comment that says what it is and why", folder)})
		}
	}
	return out, nil
}
