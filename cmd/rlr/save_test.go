package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that is replaced keeps its mode, and a symbolic link to it stays one; one that cannot be is left as it was.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "r.yaml"), filepath.Join(dir, "link.yaml")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("r.yaml", link); err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		got, err := os.ReadFile(file)
		info, serr := os.Stat(file)
		linked, lerr := os.Readlink(link)
		if err != nil || serr != nil || lerr != nil || string(got) != text || info.Mode() != 0o640 || linked != "r.yaml" {
			t.Errorf("file is %q, mode %s, link %q; want %q", got, info.Mode(), linked, text)
		}
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != 2 {
			t.Errorf("the folder has %v (%v)", all, err)
		}
	}
	if err := replaceFile(link, []byte("old"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	want("new")
	if err := replaceFile(link, []byte("old"), []byte("newer")); err == nil || !strings.Contains(err.Error(), "somebody else has changed it") {
		t.Errorf("a file that was changed meanwhile: %v", err)
	}
	want("new")
	if err := replaceFile(filepath.Join(dir, "none.yaml"), nil, []byte("newer")); err == nil {
		t.Error("a file that is not there was replaced")
	}
	if os.Geteuid() != 0 { // to whom no folder is read-only
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		err := replaceFile(file, []byte("new"), []byte("newer"))
		if cerr := os.Chmod(dir, 0o700); err == nil || cerr != nil {
			t.Errorf("in a read-only folder: %v, %v", err, cerr)
		}
	}
	want("new")
}
