// A process that this one may or may not be the parent of: VPP outlives a router that was killed, and `rlr restart` replaces
// the router's program while VPP stays its child. So processes are known by pid, start time and boot, never by pid alone, and
// waited for through a pidfd (pidfd_open(2)), which works for both kinds; a child is then reaped.

package rootless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// identity tells a process from every other one, also from a later one with its pid.
type identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot, field 22 of proc_pid_stat(5)
	Boot      string `json:"boot_id"`
	Binary    string `json:"binary"`            // as /proc/PID/exe says; of a script, its interpreter
	Program   string `json:"program,omitempty"` // as it was started; "" when it was found by its command line
}

// procStat is what is used of /proc/PID/stat.
type procStat struct {
	state     byte
	startTime uint64
}

var errNoProcess = errors.New("no such process")

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, errNoProcess
	}
	// The name in parentheses may hold anything, parentheses too.
	i := strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/%d/stat: start time: %w", pid, err)
	}
	return procStat{state: f[0][0], startTime: start}, nil
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // unknown everywhere is the same everywhere
	return strings.TrimSpace(string(b))
}

// identify describes a running process.
func identify(pid int) (identity, error) {
	st, err := readStat(pid)
	if err != nil {
		return identity{}, err
	}
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return identity{PID: pid, StartTime: st.startTime, Boot: bootID(), Binary: exe}, nil
}

// alive says whether this very process still runs. A zombie does not.
func (id identity) alive() bool {
	st, err := readStat(id.PID)
	return err == nil && st.startTime == id.StartTime && id.Boot == bootID() && st.state != 'Z' && st.state != 'X'
}

// runs says whether the process runs the program at path, in the version that is there now.
func (id identity) runs(path string) bool {
	if id.Program != "" && id.Program != path {
		return false
	}
	exe, err := os.Readlink("/proc/" + strconv.Itoa(id.PID) + "/exe")
	return err == nil && exe == id.Binary && !strings.HasSuffix(exe, " (deleted)")
}

// deathWatch waits for the end of one process.
type deathWatch struct {
	id identity
	fd int // pidfd; -1 where the kernel has none
}

// watchDeath fails with errNoProcess when the process is gone.
func watchDeath(id identity) (*deathWatch, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, errNoProcess
	case err != nil: // ENOSYS, or a sandbox that forbids it
		fd = -1
	}
	// The descriptor is of whoever has the pid now; it is ours if the start time is still the same after the open.
	if st, err := readStat(id.PID); err != nil || st.startTime != id.StartTime {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, errNoProcess
	}
	return &deathWatch{id: id, fd: fd}, nil
}

func (w *deathWatch) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
	}
}

// wait returns nil when the process has ended, ctx's error when ctx did first.
func (w *deathWatch) wait(ctx context.Context) error {
	if w.fd < 0 {
		return w.waitByLooking(ctx)
	}
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return w.waitByLooking(ctx)
	}
	defer unix.Close(wake[0])
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = unix.Close(wake[1]); close(closed) })
	defer func() {
		if stop() {
			_ = unix.Close(wake[1])
		} else {
			<-closed
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return w.waitByLooking(ctx)
		case fds[0].Revents != 0:
			return nil
		case fds[1].Revents != 0:
			return ctx.Err()
		}
	}
}

// waitByLooking is for kernels without pidfds.
func (w *deathWatch) waitByLooking(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for w.id.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// signal sends to this process and to no later one with its pid.
func (w *deathWatch) signal(sig unix.Signal) error {
	if w.fd >= 0 {
		err := unix.PidfdSendSignal(w.fd, sig, nil, 0)
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if !w.id.alive() {
		return unix.ESRCH
	}
	return unix.Kill(w.id.PID, sig)
}

// reap takes the exit status of an ended process if it was our child, so that no zombie is left, and says in words how it
// ended.
func reap(pid int) string { return wait4(pid, unix.WNOHANG) }

// reapNow is reap for a child that was killed just now.
func reapNow(pid int) string { return wait4(pid, 0) }

func wait4(pid, options int) string {
	var ws unix.WaitStatus
	for {
		got, err := unix.Wait4(pid, &ws, options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || got != pid:
			return "ended"
		case ws.Signaled():
			return "killed by " + unix.SignalName(ws.Signal())
		}
		return "exited with status " + strconv.Itoa(ws.ExitStatus())
	}
}

// record keeps the identity of the VPP of a folder for the next router.
func (id identity) record(file string) error {
	b, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("record vpp: %w", err)
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("record vpp: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("record vpp: %w", err)
	}
	return nil
}

// recorded returns the process that was recorded in file if it is still running.
func recorded(file string) (identity, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return identity{}, false
	}
	var id identity
	if json.Unmarshal(b, &id) != nil || id.PID <= 1 || !id.alive() {
		return identity{}, false
	}
	return id, true
}

// findByConfig looks for a process that was started with this startup.conf: a router that was killed between starting VPP
// and its answer left no record.
func findByConfig(conf string) (identity, bool) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.HasSuffix(string(b), "\x00-c\x00"+conf+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if id, err := identify(pid); err == nil && id.alive() {
			return id, true
		}
	}
	return identity{}, false
}

// Memory returns the resident set of a process and its proportional share of it, in bytes. The share is 0 where the kernel
// does not tell it to us.
func Memory(pid int) (rss, pss uint64, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	if f := readFields(dir + "/smaps_rollup"); f["Rss"] != "" {
		return kilobytes(f["Rss"]), kilobytes(f["Pss"]), nil
	}
	f := readFields(dir + "/status")
	if f["VmRSS"] == "" {
		return 0, 0, fmt.Errorf("memory of process %d: %w", pid, errNoProcess)
	}
	return kilobytes(f["VmRSS"]), 0, nil
}

// unpin lets all threads of a process run where this one may. VPP pins its main thread to the core on which it happened to
// start, and has no setting against it: several routers would share one core while another is idle.
func unpin(pid int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("unpin process %d: %w", pid, err)
	}
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return fmt.Errorf("unpin process %d: %w", pid, err)
	}
	var failed error
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = fmt.Errorf("unpin process %d: %w", pid, err)
		}
	}
	return failed
}

// environment is what VPP may see of ours: the router's own may hold keys (`${ENV}` in its configuration).
func environment() []string {
	var env []string
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
