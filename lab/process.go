package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// process names a process for certain: a pid alone may have been given to somebody else meanwhile.
type process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot: field 22 of /proc/PID/stat, proc(5)
}

// identify describes a live process.
func identify(name string, pid int) (process, error) {
	st, err := readStat(pid)
	if err != nil {
		return process{}, err
	}
	return process{Name: name, PID: pid, Start: st.start}, nil
}

// alive reports whether that very process still runs.
func (p process) alive() bool {
	st, err := readStat(p.PID)
	return err == nil && st.start == p.Start && st.state != 'Z' && st.state != 'X'
}

// procStat is what we read of /proc/PID/stat.
type procStat struct {
	state   byte
	parent  int
	session int
	ticks   uint64 // user and system time
	start   uint64
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(b))
}

// parseStat reads a line of proc(5). The command's name, in parentheses, may hold anything.
func parseStat(line string) (procStat, error) {
	i := strings.LastIndexByte(line, ')')
	f := strings.Fields(line[i+1:])
	if i < 0 || len(f) < 20 || len(f[0]) != 1 {
		return procStat{}, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}
	var st procStat
	st.state = f[0][0]
	var err error
	number := func(field int) uint64 { // numbered as in proc(5); f begins with the third
		v, e := strconv.ParseUint(f[field-3], 10, 64)
		err = errors.Join(err, e)
		return v
	}
	st.parent = int(number(4))
	st.session = int(number(6))
	st.ticks = number(14) + number(15)
	st.start = number(22)
	return st, err
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// seconds is the processor time that the process has used.
func (st procStat) seconds() float64 { return float64(st.ticks) / ticksPerSecond }

// privileges are the lines of /proc/PID/status that say what a process may do.
type privileges struct {
	uid        int
	effective  string // capability sets in hexadecimal
	permitted  string
	noNewPrivs bool
	rssBytes   uint64
}

func readPrivileges(pid int) (privileges, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return privileges{}, err
	}
	return parsePrivileges(b), nil
}

func parsePrivileges(status []byte) privileges {
	var p privileges
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Uid":
			p.uid, _ = strconv.Atoi(f[0]) //nolint:errcheck // the kernel writes numbers
		case "CapEff":
			p.effective = f[0]
		case "CapPrm":
			p.permitted = f[0]
		case "NoNewPrivs":
			p.noNewPrivs = f[0] == "1"
		case "VmRSS":
			kib, _ := strconv.ParseUint(f[0], 10, 64) //nolint:errcheck // the kernel writes numbers
			p.rssBytes = kib << 10
		}
	}
	return p
}

// child is a process that this program started.
type child struct {
	name string
	pid  int
	id   process
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; valid after done

	meant atomic.Bool // we end it ourselves
}

// spawnOptions say how to start a child.
type spawnOptions struct {
	name   string
	binary string
	args   []string
	env    []string
	log    string     // file for its output
	files  []*os.File // inherited as 3, 4, …
	shared bool       // stays in our session
}

// spawn starts a child in a session of its own, so that no signal of our terminal reaches it.
func spawn(o spawnOptions) (*child, error) {
	log, err := os.OpenFile(o.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.name, err)
	}
	defer log.Close()
	cmd := exec.Command(o.binary, o.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), o.env...)
	cmd.ExtraFiles = o.files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: !o.shared}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.name, err)
	}
	c := &child{name: o.name, pid: cmd.Process.Pid, cmd: cmd, done: make(chan struct{})}
	c.id, err = identify(o.name, c.pid) // it is not reaped before Wait below, so it is there
	if err != nil {
		cmd.Process.Kill() //nolint:errcheck // it is ours and not reaped: this cannot fail
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err != nil {
		<-c.done
		return nil, fmt.Errorf("start %s: %w", o.name, err)
	}
	return c, nil
}

// stopTimeout is how long a router has to stop by itself.
const stopTimeout = 10 * time.Second

// endAll asks processes to stop, waits, and kills those that do not.
func endAll(ctx context.Context, procs []process) error {
	signalAll(procs, syscall.SIGTERM)
	patient, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if waitGone(patient, procs) == nil {
		return nil
	}
	signalAll(procs, syscall.SIGKILL)
	hard, cancelHard := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancelHard()
	return waitGone(hard, procs)
}

func signalAll(procs []process, sig syscall.Signal) {
	for _, p := range procs {
		if p.alive() {
			syscall.Kill(p.PID, sig) //nolint:errcheck // it may be gone this very moment
		}
	}
}

func waitGone(ctx context.Context, procs []process) error {
	for _, p := range procs {
		for p.alive() {
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("%s (pid %d) does not stop", p.Name, p.PID)
			}
		}
	}
	return nil
}

// tail returns the last lines of a log, for an error message.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 4096
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > most {
		f.Seek(-most, io.SeekEnd) //nolint:errcheck // then more of the log is shown
	} else {
		f.Seek(0, io.SeekStart) //nolint:errcheck // as above
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}
