package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Keys for the tests: base64 of 32 bytes that are not secret.
var (
	goodKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	ownKey  = func() string { k, _ := publicOf(Key(bytes.Repeat([]byte{7}, 32))); return k.String() }()
)

var testEnv = map[string]string{
	"GOODKEY": goodKey + "\n", "WG_KEY": goodKey, "BADKEY": "c2hvcnQ=", "LONG": strings.Repeat("x", 25), "MEMIF_SECRET": "sesame",
	"ROUTER": "router1", "PORT": "8080", "AS": "65001", "PREFIXES": "10.1.0.0/24, fd42:1::/48", "DOLLAR": "$", "EMPTY": "", "FAR": "internal",
}

// parseIn parses a file's content as if it were in a folder with the keys of the tests. Git keeps no modes, so they are
// made here.
func parseIn(t testing.TB, dir, name string, data []byte) (*Config, error) {
	t.Helper()
	return Parse(filepath.Join(dir, name), data, testOptions()...)
}

func testOptions() []Option {
	return []Option{
		WithLinksDir("/run/user/1000/rlr/links-of-a-lab-with-a-rather-long-name"),
		WithEnv(func(name string) (string, bool) { v, ok := testEnv[name]; return v, ok }),
	}
}

func keyFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"good.key", goodKey + "\n", 0o600},
		{"other.key", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32)) + "\n", 0o400},
		{"open.key", goodKey + "\n", 0o644},
		{"group.key", goodKey + "\n", 0o640},
		{"bad.key", "this is not base64!\n", 0o600},
		{"short.key", "c2hvcnQ=\n", 0o600},
		{"empty.key", "\n", 0o600},
		{"large.key", strings.Repeat("A", maxSecret+1), 0o600},
		{"memif.secret", "sesame\n", 0o600},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil { // the umask may have taken bits
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("differs from %s (go test -update writes it anew)\n--- want\n%s--- got\n%s", path, want, got)
	}
}

func samples(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file matches %s (%v)", pattern, err)
	}
	return files
}

// readSample returns a sample; OWNKEY in it stands for the public key of good.key.
func readSample(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(data, []byte("OWNKEY"), []byte(ownKey))
}

// Each wrong configuration gives exactly its report.
func TestWrong(t *testing.T) {
	dir := keyFolder(t)
	for _, path := range samples(t, "testdata/wrong/*.yaml") {
		name := filepath.Base(path)
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			_, err := parseIn(t, dir, name, readSample(t, path))
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("loads; error is %v", err)
			}
			for _, e := range errs {
				if e.Line < 1 || e.Col < 1 {
					t.Errorf("without a position: %v", e)
				}
				if strings.Contains(e.Msg, goodKey) || strings.Contains(e.Msg, testEnv["BADKEY"]) {
					t.Errorf("reveals a secret: %v", e)
				}
			}
			report := strings.ReplaceAll(err.Error()+"\n", dir+"/", "")
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", []byte(report))
		})
	}
}

// Each right configuration has its canonical form, and that loads to the same configuration.
func TestRight(t *testing.T) {
	dir := keyFolder(t)
	for _, path := range samples(t, "testdata/right/*.yaml") {
		name := filepath.Base(path)
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			cfg, err := parseIn(t, dir, name, readSample(t, path))
			if err != nil {
				t.Fatal(err)
			}
			text := printed(t, cfg)
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", []byte(text))
			roundTrip(t, dir, cfg, text)
		})
	}
}

func printed(t testing.TB, cfg *Config) string {
	t.Helper()
	var b strings.Builder
	if err := cfg.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func roundTrip(t testing.TB, dir string, cfg *Config, text string) {
	t.Helper()
	again, err := parseIn(t, dir, "printed.yaml", []byte(text))
	if err != nil {
		t.Fatalf("the canonical form does not load: %v\n%s", err, text)
	}
	if !reflect.DeepEqual(cfg, again) {
		t.Fatalf("the canonical form is another configuration\n%+v\n%+v\n%s", cfg, again, text)
	}
	if second := printed(t, again); second != text {
		t.Fatalf("the canonical form changes when it is printed again\n--- first\n%s--- second\n%s", text, second)
	}
}
