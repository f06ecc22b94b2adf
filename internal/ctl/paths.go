package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Where a router's sockets and files are.
//
//	BASE/NAME/control.sock, bird.ctl, api.sock, …   a router
//	BASE/links/                                     relative memif sockets of these routers
//	BASE/SCENARIO-ID/NAME/…                         a router of a lab
//	BASE/SCENARIO-ID/links/                         the cables of that lab
//
// BASE is $RLR_RUNTIME_DIR, or $XDG_RUNTIME_DIR/rlr, or rlr-UID in the temporary directory. A lab starts its routers with
// RLR_RUNTIME_DIR set to its own folder, so a router never knows whether it is in a lab.

const (
	// RuntimeEnv names the environment variable that replaces the base directory.
	RuntimeEnv = "RLR_RUNTIME_DIR"

	linksName   = "links"
	controlName = "control.sock"
	pidName     = "pid"

	// maxSocketPath is what sockaddr_un holds on Linux, without the final zero byte.
	maxSocketPath = 107
)

// RuntimeDir returns the base directory. It does not create it.
func RuntimeDir() string {
	if d := os.Getenv(RuntimeEnv); d != "" {
		return filepath.Clean(d)
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "rlr")
	}
	return filepath.Join(os.TempDir(), "rlr-"+strconv.Itoa(os.Getuid()))
}

// RouterDir returns the directory of the router with this name. It does not create it.
func RouterDir(name string) string { return filepath.Join(RuntimeDir(), name) }

// LinksDir returns the directory that relative memif sockets are in, beside the routers' directories.
func LinksDir() string { return filepath.Join(RuntimeDir(), linksName) }

// SocketPath returns the control socket in a router's directory.
func SocketPath(dir string) string { return filepath.Join(dir, controlName) }

// CheckName says why a router cannot have this name: it is the name of a directory.
func CheckName(name string) error {
	if name == "" {
		return errors.New("a router needs a name")
	}
	if name == linksName {
		return fmt.Errorf("router name %q is taken by the directory of the cables: choose another", name)
	}
	if len(name) > 32 {
		return fmt.Errorf("router name %q is longer than 32 bytes", name)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return fmt.Errorf("router name %q: only letters, digits, '.', '_' and '-' after the first", name)
		}
	}
	return nil
}

// MakeDir creates a private directory (0700) and its parents. An existing one must be the user's own, and is made private:
// the base may be in a temporary directory where everybody can create names.
func MakeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	return checkDir(dir)
}

// makeRuntime creates the base directory and one below it, both private.
func makeRuntime(dir string) error {
	if base := RuntimeDir(); strings.HasPrefix(dir, base+string(filepath.Separator)) {
		if err := MakeDir(base); err != nil {
			return err
		}
	}
	return MakeDir(dir)
}

func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory: remove it", dir)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: set XDG_RUNTIME_DIR to a directory of your own", dir, st.Uid)
	}
	if info.Mode().Perm() != 0o700 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("make %s private: %w", dir, err)
		}
	}
	return nil
}

// Running is a router that runs on this machine.
type Running struct {
	Name string
	Lab  string // the lab's directory name, SCENARIO-ID; "" for a router outside a lab
	Dir  string
	PID  int

	socket string // "": in Dir
}

// Socket returns its control socket.
func (r Running) Socket() string {
	if r.socket != "" {
		return r.socket
	}
	return SocketPath(r.Dir)
}

func (r Running) String() string {
	if r.Lab != "" {
		return r.Lab + "/" + r.Name
	}
	return r.Name
}

// List returns the user's running routers, those of labs after the others, by name.
func List() []Running {
	base := RuntimeDir()
	var out []Running
	for _, name := range subdirs(base) {
		if r, ok := probe(base, "", name); ok {
			out = append(out, r)
			continue
		}
		for _, inner := range subdirs(filepath.Join(base, name)) {
			if r, ok := probe(base, name, inner); ok {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b Running) int {
		return cmp.Or(cmp.Compare(a.Lab, b.Lab), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func subdirs(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // no directory, no routers
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != linksName {
			names = append(names, e.Name())
		}
	}
	return names
}

func probe(base, lab, name string) (Running, bool) {
	r := Running{Name: name, Lab: lab, Dir: filepath.Join(base, lab, name)}
	var live bool
	r.PID, r.socket, live = holder(r.Dir)
	return r, live
}

// Find returns the router that name means: NAME, or LAB/NAME where LAB may be a scenario without its ID. An empty name means
// the only router that runs. The error is ErrNotFound and says how to go on.
func Find(name string) (Running, error) {
	all := List()
	var found []Running
	for _, r := range all {
		if matches(r, name) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && name == "":
		return Running{}, NotFound("several routers run here: %s; choose one with -r NAME", names(found))
	case len(found) > 1:
		return Running{}, NotFound("router %q is not unique: %s; choose one with -r", name, names(found))
	case name == "":
		return Running{}, NotFound("no router is running in %s: start one with rlr run -c FILE", RuntimeDir())
	case len(all) > 0:
		return Running{}, NotFound("router %q is not running: start it with rlr run -c FILE (running: %s)", name, names(all))
	}
	return Running{}, NotFound("router %q is not running: start it with rlr run -c FILE", name)
}

func matches(r Running, name string) bool {
	lab, router, qualified := strings.Cut(name, "/")
	switch {
	case name == "":
		return true
	case !qualified:
		return r.Name == name
	}
	scenario := r.Lab
	if i := strings.LastIndexByte(r.Lab, '-'); i >= 0 {
		scenario = r.Lab[:i]
	}
	return r.Name == router && (r.Lab == lab || scenario == lab)
}

func names(rs []Running) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}
