package peering

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tools(check error) Tools {
	return Tools{
		NewPrivateKey: func() (string, error) { return "PRIVATE", nil },
		PublicKey: func(s string) (string, error) {
			if s != "PRIVATE" && s != "OWN" {
				return "", errors.New("not a key")
			}
			return keyA, nil
		},
		Check: func(config string) error {
			text, err := os.ReadFile(config)
			if err != nil {
				return err
			}
			if !strings.Contains(string(text), "router1") {
				return errors.New("that is not the configuration")
			}
			return check
		},
	}
}

// names lists a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	f := Files{Config: filepath.Join(dir, "a.yaml"), Key: filepath.Join(dir, "router1.key")}
	if err := node().Write(f, tools(errors.New("a mistake"))); err == nil || !strings.Contains(err.Error(), "a mistake") {
		t.Errorf("%v", err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("a configuration with a mistake leaves %s", got)
	}
	if err := node().Write(f, tools(nil)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "a.yaml router1.key" {
		t.Errorf("written: %s", got)
	}
	st, err := os.Stat(f.Key)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	before := read(t, f.Config)
	if !strings.Contains(before, "private-key-file: router1.key ") || read(t, f.Key) != "PRIVATE\n" {
		t.Error(before)
	}
	n := node()
	n.AS = 4242420208
	if err := n.Write(f, tools(nil)); err == nil || read(t, f.Config) != before {
		t.Errorf("overwritten: %v", err)
	}
	f.Force = true
	if err := n.Write(f, tools(nil)); err != nil || read(t, f.Config) == before {
		t.Errorf("not overwritten: %v", err)
	}
	if got := names(t, dir); got != "a.yaml router1.key" {
		t.Errorf("left: %s", got)
	}
}

func TestWriteWithKey(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	f := Files{Config: filepath.Join(dir, "a.yaml"), Key: filepath.Join(other, "own.key"), Existing: true}
	if err := node().Write(f, tools(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(f.Key, []byte("OWN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := node().Write(f, tools(nil)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "a.yaml" || read(t, f.Key) != "OWN\n" || !strings.Contains(read(t, f.Config), "private-key-file: "+f.Key+" ") {
		t.Errorf("%s\n%s", got, read(t, f.Config))
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
