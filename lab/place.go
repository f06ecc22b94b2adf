package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rlr/internal/ctl"
)

// place is a lab's directory:
//
//	lock            held (flock) while the lab runs: by `lab run`, or by the relay of `lab up`
//	state.json      the processes, so that a killed lab can be cleaned up
//	relay.sock      commands for the relay
//	etc/, log/      configurations and keys, logs
//	links/, NAME/   cables and routers' own directories (internal/ctl)
type place struct {
	scenario string
	dir      string
	lock     *os.File
}

const (
	modeRun = "run"
	modeUp  = "up"
)

// state is state.json.
type state struct {
	Mode      string    `json:"mode"`
	Owner     process   `json:"owner"`
	Processes []process `json:"processes"`
}

// findPlace returns the directory of a scenario for the clone that the binary belongs to.
func findPlace(scenario, binary string) (*place, error) {
	binary, err := Options{Binary: binary}.binary()
	if err != nil {
		return nil, err
	}
	id, err := cloneID(binary)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(ctl.RuntimeDir(), scenario+"-"+id)
	return &place{scenario: scenario, dir: dir}, nil
}

// cloneID is made from the path of the clone that the program was built in: the directory above it with a go.mod, else the
// program's own.
func cloneID(binary string) (string, error) {
	path, err := filepath.Abs(binary)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", fmt.Errorf("lab: find this clone: %w", err)
	}
	root := filepath.Dir(path)
	for d := root; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			root = d
			break
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	sum := sha256.Sum256([]byte(root))
	return hex.EncodeToString(sum[:4]), nil
}

// etc is a file that routers read.
func (pl *place) etc(file string) string { return filepath.Join(pl.dir, "etc", file) }

func (pl *place) config(node string) string { return pl.etc(node + ".yaml") }

// link is the socket of a cable.
func (pl *place) link(cable string) string { return filepath.Join(pl.dir, "links", cable+".sock") }
func (pl *place) log(node string) string   { return filepath.Join(pl.dir, "log", node+".log") }
func (pl *place) breakable(node string) string {
	return filepath.Join(pl.dir, "etc", node+"-vpp")
}
func (pl *place) relaySocket() string { return filepath.Join(pl.dir, "relay.sock") }
func (pl *place) statePath() string   { return filepath.Join(pl.dir, "state.json") }
func (pl *place) lockPath() string    { return filepath.Join(pl.dir, "lock") }

// inUse reports whether a lab runs here.
func (pl *place) inUse() bool {
	f, err := os.Open(pl.lockPath())
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// claim takes the place for a new lab. What a killed lab left there is stopped and removed.
func (pl *place) claim(ctx context.Context) error {
	for {
		if err := ctl.MakeDir(filepath.Dir(pl.dir)); err != nil {
			return err
		}
		if err := ctl.MakeDir(pl.dir); err != nil {
			return err
		}
		f, err := os.OpenFile(pl.lockPath(), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed under us by a lab that ended just now
			}
			return fmt.Errorf("lab %s: %w", pl.scenario, err)
		}
		if err := flockSoon(ctx, f); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return pl.busy()
			}
			return fmt.Errorf("lab %s: lock %s: %w", pl.scenario, pl.lockPath(), err)
		}
		if !sameFile(f, pl.lockPath()) {
			f.Close() // the lab that held it removed it as it ended
			continue
		}
		pl.lock = f
		break
	}
	if err := pl.killLeft(ctx); err != nil {
		return err
	}
	return pl.empty()
}

// flockSoon tries for a moment: inUse takes the lock for microseconds.
func flockSoon(ctx context.Context, f *os.File) error {
	for try := 0; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || try == 5 {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

func (pl *place) busy() error {
	st, err := pl.readState()
	switch {
	case err == nil && st.Mode == modeUp:
		return fmt.Errorf("lab %s is up already: use it, or stop it with rlr lab down %s", pl.scenario, pl.scenario)
	case err == nil:
		return fmt.Errorf("lab %s runs already, pid %d: wait for its end", pl.scenario, st.Owner.PID)
	}
	return fmt.Errorf("lab %s is just starting or stopping in another process: try again", pl.scenario)
}

func (pl *place) readState() (state, error) {
	var st state
	b, err := os.ReadFile(pl.statePath())
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(b, &st)
}

// writeState replaces state.json as a whole, so that a reader never sees half of it.
func (pl *place) writeState(st state) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("lab %s: state: %w", pl.scenario, err)
	}
	tmp := pl.statePath() + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("lab %s: state: %w", pl.scenario, err)
	}
	if err := os.Rename(tmp, pl.statePath()); err != nil {
		return fmt.Errorf("lab %s: state: %w", pl.scenario, err)
	}
	return nil
}

// killLeft ends the processes in state.json that still are the ones that were started.
func (pl *place) killLeft(ctx context.Context) error {
	st, err := pl.readState()
	if err != nil {
		return nil //nolint:nilerr // no lab was here, or it died before it started anything
	}
	if err := endAll(ctx, st.Processes); err != nil {
		return err
	}
	return endLeftVPPs(ctx, pl.dir)
}

// empty removes all but the lock.
func (pl *place) empty() error {
	entries, err := os.ReadDir(pl.dir)
	if err != nil {
		return fmt.Errorf("lab %s: clean up: %w", pl.scenario, err)
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(pl.lockPath()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(pl.dir, e.Name())); err != nil {
			return fmt.Errorf("lab %s: clean up: %w", pl.scenario, err)
		}
	}
	return nil
}

// remove gives the place back. With keepLogs the configurations and logs stay for the user to read, the keys do not.
func (pl *place) remove(keepLogs bool) error {
	defer pl.lock.Close()
	if !keepLogs {
		return os.RemoveAll(pl.dir)
	}
	keys, err := filepath.Glob(filepath.Join(pl.dir, "etc", "*.key"))
	if err != nil {
		return err
	}
	for _, k := range append(keys, pl.statePath()) {
		if err := os.Remove(k); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// down ends whatever lab is here. The lock's holder is the last to go.
func (pl *place) down(ctx context.Context) error {
	st, err := pl.readState()
	if err != nil {
		if pl.inUse() {
			return pl.busy()
		}
		return fmt.Errorf("lab %s is not up", pl.scenario)
	}
	if st.Mode == modeRun && pl.inUse() {
		return fmt.Errorf("lab %s is run by pid %d: interrupt that instead", pl.scenario, st.Owner.PID)
	}
	if err := endAll(ctx, st.Processes); err != nil {
		return err
	}
	if err := endLeftVPPs(ctx, pl.dir); err != nil {
		return err
	}
	if err := pl.claim(ctx); err != nil {
		return err
	}
	return pl.remove(false)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
