package ctl

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRuntimeDir(t *testing.T) {
	t.Setenv(RuntimeEnv, "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if got := RouterDir("a"); got != "/run/user/7/rlr/a" {
		t.Error(got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", "/tmp/x")
	if got := RuntimeDir(); !strings.HasPrefix(got, "/tmp/x/rlr-") {
		t.Error(got)
	}
	t.Setenv(RuntimeEnv, "/lab/one/")
	if got := LinksDir(); got != "/lab/one/links" {
		t.Error(got)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"router1": true, "a.b-c_d": true, "": false, "links": false, "..": false, ".x": false, "a/b": false,
		"-x": false, "röuter": false, strings.Repeat("x", 33): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// claim holds a router's name, as a running router does.
func claim(t *testing.T, dir, name string) *Claim {
	t.Helper()
	t.Setenv(RuntimeEnv, dir)
	c, err := NewClaim(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestFind(t *testing.T) {
	root := base(t)
	wantErr := func(name, want string) {
		t.Helper()
		if r, err := Find(name); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q) = %v, %v; want an error with %q", name, r, err, want)
		}
	}
	wantFound := func(name, want string) {
		t.Helper()
		if r, err := Find(name); err != nil || r.String() != want {
			t.Errorf("Find(%q) = %v, %v; want %s", name, r, err, want)
		}
	}
	wantErr("", "no router is running")
	wantErr("edge", `"edge" is not running: start it with rlr run`)
	claim(t, root, "edge")
	wantFound("", "edge")
	one := filepath.Join(root, "three-sites-0a1b")
	r1 := claim(t, one, "router1")
	claim(t, one, "router2")
	t.Setenv(RuntimeEnv, root)
	wantErr("", "several routers run here: edge, three-sites-0a1b/router1, three-sites-0a1b/router2")
	wantFound("router1", "three-sites-0a1b/router1")
	wantFound("three-sites/router2", "three-sites-0a1b/router2")
	wantErr("router9", "running: edge, three-sites-0a1b/router1")
	two := filepath.Join(root, "three-sites-ffff")
	claim(t, two, "router1")
	t.Setenv(RuntimeEnv, root)
	wantErr("router1", "not unique")
	wantFound("three-sites-ffff/router1", "three-sites-ffff/router1")
	wantErr("three-sites/router1", "not unique")
	r1.Close()
	wantFound("router1", "three-sites-ffff/router1")
	t.Setenv(RuntimeEnv, one)
	wantFound("", "router2")
}

func TestClaim(t *testing.T) {
	root := base(t)
	first, err := NewClaim("router1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewClaim("router1")
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "already running, pid ") {
		t.Errorf("second claim: %v", err)
	}
	for _, d := range []string{root, first.Dir} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", d, st.Mode(), err)
		}
	}
	r, err := Find("router1")
	if err != nil || r.PID != os.Getpid() {
		t.Errorf("Find: %+v, %v", r, err)
	}
	done := make(chan error, 1)
	go func() { done <- r.WaitStopped(t.Context()) }()
	first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	again, err := NewClaim("router1")
	if err != nil {
		t.Fatalf("claim after close: %v", err)
	}
	defer again.Close()
	r, _ = Find("router1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.WaitStopped(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitStopped of a running router: %v", err)
	}
}

// A socket that a killed router left is replaced; the new one is private.
func TestStaleSocket(t *testing.T) {
	base(t)
	c, err := NewClaim("router1")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(c.Dir)})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	c.Close()
	start(t, "router1", Handlers{})
	st, err := os.Stat(SocketPath(RouterDir("router1")))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestClaimRefusals(t *testing.T) {
	root := base(t)
	if _, err := NewClaim("../x"); err == nil {
		t.Error("a name with a path was accepted")
	}
	t.Setenv(RuntimeEnv, filepath.Join(root, strings.Repeat("d", 100)))
	if _, err := NewClaim("router1"); err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("long path: %v", err)
	}
	t.Setenv(RuntimeEnv, root)
	if err := MakeDir(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp", RouterDir("trap")); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClaim("trap"); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("symlink: %v", err)
	}
}

func TestNotRunningClient(t *testing.T) {
	root := base(t)
	c := NewClient(Running{Name: "router1", Dir: filepath.Join(root, "router1")})
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "start it with") {
		t.Errorf("Status: %v", err)
	}
}

// A control socket that the configuration puts elsewhere is found through the router's directory.
func TestSocketElsewhere(t *testing.T) {
	root := base(t)
	claim, err := NewClaim("router1")
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Close()
	path := filepath.Join(filepath.Dir(root), "mine.sock")
	s, err := NewServer(claim, "v1", Handlers{
		Status: func(context.Context) (Status, error) { return Status{Name: "router1"}, nil },
	}, discard(), WithSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r, err := Find("router1")
	if err != nil || r.Socket() != path || r.PID != os.Getpid() {
		t.Fatalf("Find: %+v %s, %v", r, r.Socket(), err)
	}
	c := NewClient(r)
	if st, err := c.Status(t.Context()); err != nil || st.Name != "router1" {
		t.Errorf("Status: %+v, %v", st, err)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket stayed behind")
	}
}

// What is in the way of the socket and is not one is not removed.
func TestSocketPathTaken(t *testing.T) {
	base(t)
	claim, err := NewClaim("router1")
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Close()
	if err := os.WriteFile(SocketPath(claim.Dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(claim, "v1", Handlers{}, discard()); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("NewServer: %v", err)
	}
}
