// An idle VPP of 26.06 takes 2 % of a core, and 6.5 % with TCP sessions, which no setting of its own changes. Two things of
// Linux do, from outside, and bring both under 1.5 %.
//
// Its main loop has a wheel of timers that turns once in 10.24 ms, and rounds its sleep before each turn down to whole
// milliseconds (vlib_file_poll in src/vlib/file.c): it polls for the rest. With a timer slack of a millisecond (prctl(2)) it
// sleeps past the turn. And while there are sessions or listeners, a timerfd wakes it up 1,000 times a second for TCP's timers
// (session_wrk_tfd_timeout in src/vnet/session/session_node.c), which cuts that sleep anew each time. The shortest of these
// timers is TCP's retransmission, at least 200 ms: 50 times a second is enough. VPP sets 1,000 again after each activity.
//
// The other way, `cpu { workers 1 }`, puts the two into two threads. But each route that is deleted then waits for the worker's
// next loop (vlib_worker_wait_one_loop), which sleeps for up to 10 ms: a hundred routes a second.

package rootless

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	slack        = time.Millisecond
	hastyPeriod  = time.Millisecond // as VPP sets it
	calmPeriod   = 20 * time.Millisecond
	calmInterval = 100 * time.Millisecond // between looks at what VPP has set
)

// withSlack runs start, which starts a process, so that the process's sleeps may be longer by slack. Without prctl(2) they
// are not.
func withSlack(start func() (*os.Process, error)) (*os.Process, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()), 0, 0, 0); err == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0: the default again
	}
	return start()
}

// timers are the timerfds of a process, as descriptors of ours.
type timers []int

// timersOf takes copies of a process's timerfds by its pidfd (pidfd_getfd(2)). That needs the rights that a debugger needs: a
// system that keeps them from the same user's processes, or a sandbox without the call, is an error.
func timersOf(w *deathWatch) (timers, error) {
	dir := filepath.Join("/proc", strconv.Itoa(w.id.PID), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var t timers
	for _, e := range entries {
		what, err := os.Readlink(filepath.Join(dir, e.Name()))
		fd, bad := strconv.Atoi(e.Name())
		if err != nil || bad != nil || what != "anon_inode:[timerfd]" {
			continue
		}
		own, err := unix.PidfdGetfd(w.fd, fd, 0)
		if err != nil {
			t.close()
			return nil, os.NewSyscallError("pidfd_getfd", err)
		}
		t = append(t, own)
	}
	if len(t) == 0 {
		return nil, errors.New("it has no timerfd")
	}
	return t, nil
}

// calm slows down those that VPP has set to its hasty period. Should VPP change one in the same moment, then it is calm, too, until
// VPP's next change: a few wake-ups that it did not ask for.
func (t timers) calm() error {
	for _, fd := range t {
		var have unix.ItimerSpec
		if err := unix.TimerfdGettime(fd, &have); err != nil {
			return fmt.Errorf("timerfd_gettime: %w", err)
		}
		if time.Duration(have.Interval.Nano()) != hastyPeriod {
			continue
		}
		every := unix.NsecToTimespec(calmPeriod.Nanoseconds())
		if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
			return fmt.Errorf("timerfd_settime: %w", err)
		}
	}
	return nil
}

func (t timers) close() {
	for _, fd := range t {
		_ = unix.Close(fd)
	}
}
