package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A router's name is held by an flock on the file "pid" in its directory. The kernel gives the lock back whatever way a
// process ends, so that a stale socket or pid file can always be told from a live one, and two starts cannot both win.

// Claim is a router's directory, held by this process.
type Claim struct {
	Name string
	Dir  string
	file *os.File
}

// NewClaim creates the directory of the router and claims it. Where another process holds it, the error is ErrExists and
// says which.
func NewClaim(name string) (*Claim, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return claimDir(name, RouterDir(name))
}

func claimDir(name, dir string) (*Claim, error) {
	if n := len(SocketPath(dir)); n > maxSocketPath {
		return nil, fmt.Errorf("control socket %s: %d bytes, the kernel takes at most %d: set XDG_RUNTIME_DIR to a shorter path",
			SocketPath(dir), n, maxSocketPath)
	}
	if err := makeRuntime(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, pidName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim router %s: %w", name, err)
	}
	if err := lockExclusive(f); err != nil {
		pid, _ := readHolder(f)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, newError(KindExists, "router %s is already running, pid %d", name, pid)
		}
		return nil, fmt.Errorf("claim router %s: lock %s: %w", name, path, err)
	}
	c := &Claim{Name: name, Dir: dir, file: f}
	if err := c.write(""); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim router %s: %w", name, err)
	}
	return c, nil
}

// lockExclusive tries a few times: List takes the same lock for microseconds to see whether it is held.
func lockExclusive(f *os.File) error {
	var err error
	for range 5 {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// Close gives the name back. The directory stays.
func (c *Claim) Close() error { return c.file.Close() }

// write fills the pid file: our pid, and the control socket where it is not in the directory.
func (c *Claim) write(socket string) error {
	if err := c.file.Truncate(0); err != nil {
		return err
	}
	_, err := c.file.WriteAt(fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), socket), 0)
	return err
}

// readHolder reads what write wrote; zero while the holder is between its lock and its write.
func readHolder(f *os.File) (pid int, socket string) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil {
		return 0, ""
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	if pid, err = strconv.Atoi(first); err != nil {
		return 0, ""
	}
	return pid, strings.TrimSpace(rest)
}

// holder reports whether a live process holds the directory, its pid, and its control socket if that is elsewhere.
func holder(dir string) (pid int, socket string, live bool) {
	f, err := os.OpenFile(filepath.Join(dir, pidName), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, "", false
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, "", false // closing f gives the shared lock back
	}
	pid, socket = readHolder(f)
	return pid, socket, true
}

// WaitStopped waits until the router has ended.
func (r Running) WaitStopped(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, _, live := holder(r.Dir); !live || pid != 0 && r.PID != 0 && pid != r.PID {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for router %s to stop: %w", r.Name, ctx.Err())
		case <-tick.C:
		}
	}
}
