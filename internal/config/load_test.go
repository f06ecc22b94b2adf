package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "router: {name: a}\n")
	cfg, err := Load(good)
	if err != nil || cfg.Router.Name != "a" {
		t.Fatalf("%+v, %v", cfg, err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none.yaml"), "none.yaml: the configuration cannot be read: no such file or directory"},
		{"folder", dir, ": the configuration cannot be read: is a directory"},
		{"too large", write("large.yaml", "router: {name: a}\n"+strings.Repeat("#", MaxSize)), "large.yaml:1:1: the file is larger than 4194304 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(c.path)
			var errs Errors
			if !errors.As(err, &errs) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Files of secrets are beside the configuration, wherever the process is.
func TestSecretsAreRelativeToTheFile(t *testing.T) {
	dir := keyFolder(t)
	path := filepath.Join(dir, "router.yaml")
	text := "router: {name: a}\ninterfaces: {m: {memif: {socket: s, role: slave, secret-file: memif.secret}}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := cfg.Interfaces[0].Memif.Secret; string(s.Bytes()) != "sesame" || s.File != "memif.secret" {
		t.Errorf("secret is %q from %q", s.Bytes(), s.File)
	}
}

// No way of printing shows a secret.
func TestSecretsStaySecret(t *testing.T) {
	dir := keyFolder(t)
	cfg, err := parseIn(t, dir, "x.yaml", readSample(t, "testdata/right/03-everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	key := string(cfg.Interfaces[4].WireGuard.PrivateKey.Bytes())
	if len(key) != 32 {
		t.Fatalf("the sample has no key: %d bytes", len(key))
	}
	var shown []string
	for _, i := range cfg.Interfaces {
		var all []any
		if i.WireGuard != nil {
			all = append(all, *i.WireGuard, i.WireGuard, i.WireGuard.PrivateKey, &i.WireGuard.PrivateKey)
		}
		if i.Memif != nil {
			all = append(all, *i.Memif, i.Memif, i.Memif.Secret)
		}
		for _, v := range all {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				shown = append(shown, fmt.Sprintf(verb, v))
			}
			j, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			y, err := yaml.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, string(j), string(y))
		}
	}
	shown = append(shown, printed(t, cfg))
	for _, s := range shown {
		for _, secret := range []string{key, goodKey, fmt.Sprintf("%x", key), "sesame", fmt.Sprintf("%x", "sesame"), strings.Trim(fmt.Sprint([]byte(key)[:8]), "[]")} {
			if strings.Contains(s, secret) {
				t.Errorf("a secret is shown: %s", s)
			}
		}
	}
}

// Files made to be slow to read are not: quadratic work would show.
func TestLargeFiles(t *testing.T) {
	repeat := func(head, line string) []byte {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < MaxSize/8; i++ {
			b.WriteString(strings.ReplaceAll(line, "#", fmt.Sprint(i)))
		}
		return []byte(b.String())
	}
	const base = "router: {name: a, as: 1, id: 1.1.1.1}\n"
	for name, data := range map[string][]byte{
		"unknown keys":       repeat("", "key#: 1\n"),
		"duplicate keys":     repeat("", "a: 1\n"),
		"interfaces":         repeat(base+"interfaces:\n", "  i#: {loopback: true}\n"),
		"dangling lenders":   repeat(base+"interfaces:\n", "  i#: {loopback: true, unnumbered: j#}\n"),
		"same address":       repeat(base+"interfaces:\n", "  i#: {loopback: true, addresses: [10.0.0.1/8]}\n"),
		"dangling VRFs":      repeat(base+"interfaces:\n", "  i#: {loopback: true, vrf: v#}\n"),
		"static":             repeat(base+"static:\n", "  - {prefix: 10.0.0.0/8, blackhole: true}\n"),
		"neighbors":          repeat(base+"bgp:\n  neighbors:\n", "  - {name: n#, address: 10.0.0.1, as: 1}\n"),
		"deep lists":         []byte(strings.Repeat("[", MaxSize-100)),
		"deep mappings":      []byte(strings.Repeat("{a: ", MaxSize/4-100)),
		"long word":          []byte(base + "log: {level: " + strings.Repeat("x", MaxSize-100) + "}\n"),
		"aliases of lists":   repeat(base+"x: &a {y: ["+strings.Repeat("z,", 50_000)+"]}\nvrfs:\n", "  v#: {interfaces: *a}\n"),
		"neighbors by alias": repeat(base+"bgp:\n  neighbors:\n  - &n {name: n, address: 10.0.0.1, families: &f ["+strings.Repeat("ipv4,", 50_000)+"]}\n", "  - *n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseIn(t, ".", "large.yaml", data)
			var errs Errors
			if err != nil && (!errors.As(err, &errs) || len(errs) > maxErrors+1) {
				t.Errorf("%d errors", len(errs))
			}
			for _, e := range errs {
				if len(e.Error()) > 1000 {
					t.Errorf("an error of %d bytes", len(e.Error()))
				}
			}
		})
	}
}
