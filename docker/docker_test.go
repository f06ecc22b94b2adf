// Package docker_test checks the files of the images as far as that goes without an engine and a registry: the Dockerfiles'
// instructions, the compose file's promises, and the routers' configurations, through the program's own reader.
package docker_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"rlr/internal/config"
	"rlr/wg"
)

// instruction is one of a Dockerfile, its continued lines joined.
type instruction struct {
	name string // upper case
	args string
}

func readDockerfile(t *testing.T, name string) []instruction {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []instruction
	var joined string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if before, ok := strings.CutSuffix(line, `\`); ok {
			joined += before
			continue
		}
		joined += line
		word, args, _ := strings.Cut(joined, " ")
		out = append(out, instruction{strings.ToUpper(word), strings.TrimSpace(args)})
		joined = ""
	}
	if joined != "" {
		t.Errorf("%s ends in the middle of an instruction", name)
	}
	return out
}

func named(list []instruction, name string) []string {
	var args []string
	for _, i := range list {
		if i.name == name {
			args = append(args, i.args)
		}
	}
	return args
}

func TestDockerfiles(t *testing.T) {
	known := []string{"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}
	for _, name := range []string{"Dockerfile", "Dockerfile.slim"} {
		t.Run(name, func(t *testing.T) {
			list := readDockerfile(t, name)
			stages := map[string]bool{}
			for _, i := range list {
				if !slices.Contains(known, i.name) {
					t.Errorf("unknown instruction %s", i.name)
				}
				f := strings.Fields(i.args)
				switch i.name {
				case "FROM":
					base := f[0]
					if strings.HasPrefix(base, "--platform") {
						base = f[1]
					}
					if base != "scratch" && (!strings.Contains(base, ":") || strings.HasSuffix(base, ":latest")) {
						t.Errorf("base image %s without a version", base)
					}
					if len(f) > 2 && strings.EqualFold(f[len(f)-2], "as") {
						stages[f[len(f)-1]] = true
					}
				case "COPY":
					checkCopy(t, f, stages)
				}
			}
			users := named(list, "USER")
			if len(users) == 0 || !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(users[len(users)-1]) {
				t.Errorf("users %q: the image must run as a numeric user that is not root", users)
			}
			if checks := named(list, "HEALTHCHECK"); len(checks) != 1 || !strings.Contains(checks[0], `CMD ["/usr/local/bin/rlr", "show", "status"]`) {
				t.Errorf("health checks %q", checks)
			}
			if entry := named(list, "ENTRYPOINT"); len(entry) != 1 || entry[0] != `["/usr/local/bin/rlr"]` {
				t.Errorf("entry point %q", entry)
			}
			if _, err := os.Stat(name + ".dockerignore"); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkCopy looks whether the sources of a COPY from the build context are there.
func checkCopy(t *testing.T, args []string, stages map[string]bool) {
	t.Helper()
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		if from, ok := strings.CutPrefix(args[0], "--from="); ok {
			if !stages[from] {
				t.Errorf("COPY from stage %s, which does not exist", from)
			}
			return
		}
		args = args[1:]
	}
	for _, source := range args[:max(0, len(args)-1)] {
		if _, err := os.Stat(filepath.Join("..", source)); err != nil {
			t.Errorf("COPY %s: %v", source, err)
		}
	}
}

// The build leaves out what .dockerignore says: nothing of it may be needed.
func TestBuildNeedsNothingThatIsIgnored(t *testing.T) {
	b, err := os.ReadFile("Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	ignored := strings.Fields(string(b))
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}} {{join .EmbedFiles \" \"}}{{end}}{{end}}", "../cmd/rlr").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		first, _, _ := strings.Cut(strings.TrimPrefix(name, "rlr/"), "/")
		if slices.Contains(ignored, first) {
			t.Errorf("%s is built in, and %s is ignored", name, first)
		}
	}
}

// service is what is checked of a service in compose.yaml.
type service struct {
	Image       string
	Restart     string
	Init        bool
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	PidsLimit   int      `yaml:"pids_limit"`
	StopGrace   string   `yaml:"stop_grace_period"`
	Tmpfs       []string
	Build       struct{ Context, Dockerfile string }
	MemLimit    string `yaml:"mem_limit"`
	Networks    []string
	NetworkMode string `yaml:"network_mode"`
	Environment map[string]string
	Volumes     []string
}

type compose struct {
	Name     string
	Node     any `yaml:"x-node"`
	Router   any `yaml:"x-router"`
	Server   any `yaml:"x-server"`
	LAN      any `yaml:"x-lan"`
	Services map[string]service
	Networks map[string]any
	Volumes  map[string]any
}

// readCompose refuses keys that are not in the types above: a privilege that somebody adds is a key that somebody adds here.
func readCompose(t *testing.T) compose {
	t.Helper()
	f, err := os.Open("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	var c compose
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComposeGivesNoPrivileges(t *testing.T) {
	c := readCompose(t)
	if len(c.Services) != 6 {
		t.Errorf("%d services, want three routers and three servers", len(c.Services))
	}
	for name, s := range c.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s: read_only %v, cap_drop %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		if len(s.Tmpfs) != 1 || !strings.HasPrefix(s.Tmpfs[0], "/run/rlr:") {
			t.Errorf("%s: tmpfs %v: only the router's folder is writable", name, s.Tmpfs)
		}
		if s.MemLimit == "" || s.PidsLimit == 0 {
			t.Errorf("%s: no limits", name)
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, ".") {
				if _, err := os.Stat(source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			} else if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
	}
}

// keys are what keys.sh prints, and what it is for compose.yaml.
func keys(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, tunnel := range []string{"12", "13", "23"} {
		for side := 1; side <= 2; side++ {
			k, err := wg.NewPrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			env[fmt.Sprintf("TUN%s_KEY%d", tunnel, side)] = k.Base64()
			env[fmt.Sprintf("TUN%s_PUB%d", tunnel, side)] = k.Public().String()
		}
	}
	return env
}

// expand puts the variables of .env into a value as compose does. A variable that is missing is an error.
func expand(t *testing.T, value string, env map[string]string) string {
	t.Helper()
	return regexp.MustCompile(`\$\{(\w+)(:\?[^}]*)?\}`).ReplaceAllStringFunc(value, func(s string) string {
		name := regexp.MustCompile(`\w+`).FindString(s)
		v, ok := env[name]
		if !ok {
			t.Errorf("compose.yaml wants %s, which keys.sh does not make", name)
		}
		return v
	})
}

// load reads a service's configuration in its environment.
func load(t *testing.T, s service, env map[string]string) *config.Config {
	t.Helper()
	for name, value := range s.Environment {
		t.Setenv(name, expand(t, value, env))
	}
	file, _, _ := strings.Cut(s.Volumes[0], ":")
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConfigurations(t *testing.T) {
	c, env := readCompose(t), keys(t)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		t.Run(name, func(t *testing.T) {
			s := c.Services[name]
			cfg := load(t, s, env)
			if cfg.Router.Name != name {
				t.Errorf("the service runs router %s", cfg.Router.Name)
			}
			wanted := config.VPP
			if s.Image == "rlr:slim" {
				wanted = config.Embedded
			}
			if cfg.Dataplane.Kind != wanted {
				t.Errorf("image %s and dataplane %s", s.Image, cfg.Dataplane.Kind)
			}
			for _, i := range cfg.Interfaces {
				if i.Memif != nil && filepath.Dir(i.Memif.Socket) != strings.SplitN(s.Volumes[1], ":", 2)[1] {
					t.Errorf("%s: socket %s is not in the volume %s", i.Name, i.Memif.Socket, s.Volumes[1])
				}
			}
		})
	}
}

// Each cable has a master and a slave in the same volume; each tunnel's sides know each other's keys, ports and names.
func TestEndsFit(t *testing.T) {
	c, env := readCompose(t), keys(t)
	cables := map[string][]string{}
	type side struct{ key, peer, port, endpoint string }
	tunnels := map[string][]side{}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		t.Run(name, func(t *testing.T) {
			s := c.Services[name]
			for _, i := range load(t, s, env).Interfaces {
				switch {
				case i.Memif != nil:
					cable := s.Volumes[1] + "/" + filepath.Base(i.Memif.Socket)
					cables[cable] = append(cables[cable], fmt.Sprint(i.Memif.Role))
				case i.WireGuard != nil:
					key, err := wg.ParsePrivateKey(expand(t, s.Environment[strings.ToUpper(i.Name)+"_KEY"], env))
					if err != nil {
						t.Fatal(err)
					}
					_, port, _ := strings.Cut(i.WireGuard.Listen.String(), "]:")
					tunnels[i.Name] = append(tunnels[i.Name], side{
						key: key.Public().String(), peer: expand(t, s.Environment[strings.ToUpper(i.Name)+"_PEER"], env),
						port: name + ":" + port, endpoint: i.WireGuard.Peer.Endpoint,
					})
				}
			}
		})
	}
	if len(cables) != 3 || len(tunnels) != 3 {
		t.Errorf("%d cables and %d tunnels, want three of each", len(cables), len(tunnels))
	}
	for name, roles := range cables {
		if slices.Sort(roles); !slices.Equal(roles, []string{"master", "slave"}) {
			t.Errorf("%s has %v, want a master and a slave", name, roles)
		}
	}
	for name, s := range tunnels {
		if len(s) != 2 || s[0].key != s[1].peer || s[1].key != s[0].peer || s[0].port != s[1].endpoint || s[1].port != s[0].endpoint {
			t.Errorf("%s: the sides do not fit: %+v", name, s)
		}
	}
}

func TestKeysScript(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	bin := filepath.Join(t.TempDir(), "rlr")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/rlr").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command("sh", "keys.sh")
	cmd.Env = append(os.Environ(), "RLR="+bin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			got[name] = value
		}
	}
	want := keys(t)
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("names %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for name, value := range got {
		if private, ok := strings.CutSuffix(name, "_KEY1"); ok {
			k, err := wg.ParsePrivateKey(value)
			if err != nil || k.Public().String() != got[private+"_PUB1"] {
				t.Errorf("%s: %v, or another public key", name, err)
			}
		}
	}
}
