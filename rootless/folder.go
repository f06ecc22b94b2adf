package rootless

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder is the folder of one VPP: 0700, with its configuration, sockets, console output, and the record of its process.
type folder string

const (
	consoleLimit = 1 << 20 // bytes of console output kept before the older half is dropped
	lastWordsMax = 10      // lines of it in an error
)

func (f folder) file(name string) string { return filepath.Join(string(f), name) }

// own makes the folder and locks it until the returned file is closed.
func (f folder) own() (*os.File, error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, fmt.Errorf("vpp folder: %w", err)
	}
	st, err := os.Lstat(string(f))
	if err != nil {
		return nil, fmt.Errorf("vpp folder: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || (ok && int(sys.Uid) != os.Geteuid()) {
		return nil, fmt.Errorf("vpp folder %s is not a folder of ours", f)
	}
	if st.Mode().Perm() != 0o700 {
		if err := os.Chmod(string(f), 0o700); err != nil { //nolint:gosec // a folder is entered by its owner
			return nil, fmt.Errorf("vpp folder: %w", err)
		}
	}
	lock, err := os.Open(string(f))
	if err != nil {
		return nil, fmt.Errorf("vpp folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("vpp folder %s: another router uses it: %w", f, err)
	}
	return lock, nil
}

// running finds the VPP of this folder that an earlier router left.
func (f folder) running() (identity, bool) {
	if id, ok := recorded(f.file("pid")); ok {
		return id, true
	}
	return findByConfig(f.file("startup.conf"))
}

func (f folder) write(s Settings) error {
	text, err := s.Text()
	if err != nil {
		return err
	}
	return os.WriteFile(f.file("startup.conf"), []byte(text), 0o600)
}

// configured reports whether the startup.conf that is there is what the settings say.
func (f folder) configured(s Settings) bool {
	there, err := os.ReadFile(f.file("startup.conf"))
	text, wrong := s.Text()
	return err == nil && wrong == nil && string(there) == text
}

// sweep removes what a VPP that is dead left: sockets that nobody answers at, and its shared memory.
func (f folder) sweep(prefix string) {
	s := SocketsIn(string(f))
	for _, p := range []string{s.API, s.Stats, s.CLI, f.file("pid")} {
		_ = os.Remove(p)
	}
	_ = os.RemoveAll(s.Apps)
	for _, region := range []string{"global_vm", "vpe-api"} {
		_ = os.Remove("/dev/shm/" + prefix + "-" + region)
	}
}

// newConsole opens the file that takes VPP's output; the one of the process before is kept beside it.
func (f folder) newConsole() (*os.File, error) {
	if err := os.Rename(f.file("console.log"), f.file("console.log.1")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(f.file("console.log"), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
}

// trimConsole keeps the console file from filling a folder in memory. VPP appends, so that it goes on at the new end.
func (f folder) trimConsole() {
	if st, err := os.Stat(f.file("console.log")); err != nil || st.Size() < consoleLimit {
		return
	}
	b, err := os.ReadFile(f.file("console.log"))
	if err != nil {
		return
	}
	_ = os.WriteFile(f.file("console.log.1"), b[max(0, len(b)-consoleLimit/2):], 0o600)
	_ = os.Truncate(f.file("console.log"), 0)
}

// lastWords is the end of the console output, as the tail of an error message.
func (f folder) lastWords() string {
	b, err := os.ReadFile(f.file("console.log"))
	if err != nil {
		return ""
	}
	b = bytes.ToValidUTF8(b[max(0, len(b)-4096):], []byte("?"))
	lines := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > lastWordsMax {
		lines = lines[len(lines)-lastWordsMax:]
	}
	if len(lines) == 0 {
		return ", without a word"
	}
	return "; it said last: " + strings.Join(lines, " | ")
}
