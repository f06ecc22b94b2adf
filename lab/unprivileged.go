package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecUnprivileged gives up every capability and the chance to get one back, and then executes this program again with args.
// It returns only with an error.
//
// Labs start their routers this way, so that a lab proves what it says also where root runs it. For an ordinary user it
// changes nothing but no_new_privs.
func ExecUnprivileged(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// Capabilities are a thread's; execve(2) takes those of the thread that calls it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := dropPrivileges(); err != nil {
		return err
	}
	err = syscall.Exec(exe, append([]string{"rlr"}, args...), os.Environ())
	return fmt.Errorf("execute %s: %w", exe, err)
}

// dropPrivileges works on the calling thread. With no_new_privs, execve(2) gives root no capability that the thread does not
// have (capabilities(7)).
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}
