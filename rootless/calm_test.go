package rootless

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"
)

// periods returns the periods of a process's timerfds, by proc_pid_fdinfo(5).
func periods(t *testing.T, pid int) []time.Duration {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed just now
		}
		_, rest, found := strings.Cut(string(b), "it_interval: (")
		seconds, rest, ok := strings.Cut(rest, ", ")
		nanoseconds, _, ok2 := strings.Cut(rest, ")")
		if !found {
			continue
		}
		s, err := strconv.ParseInt(seconds, 10, 64)
		n, err2 := strconv.ParseInt(nanoseconds, 10, 64)
		if !ok || !ok2 || err != nil || err2 != nil {
			t.Fatalf("%s: %s", f, b)
		}
		all = append(all, time.Duration(s)*time.Second+time.Duration(n))
	}
	return all
}

func awaitPeriod(t *testing.T, pid int, want time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		have := periods(t, pid)
		if len(have) == 1 && have[0] == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the timers of process %d have the periods %v, want %v", pid, have, want)
		}
	}
}

// A fake VPP sets its timer to a hasty period again each time that it gets a connection.
func TestCalm(t *testing.T) {
	log, hook := test.NewNullLogger()
	s := newSupervised(t, shortDir(t), fakeBinary(t, "hasty"))
	s.log = log.WithField("test", t.Name())
	s.run(t)
	pid := s.await(t, Running).PID
	for _, e := range hook.AllEntries() {
		if strings.Contains(e.Message, "slowed down") {
			if err, _ := e.Data["error"].(error); err != nil && strings.Contains(err.Error(), "pidfd_getfd") {
				t.Skipf("this system does not let a process have its child's descriptors: %v", err)
			}
			t.Errorf("%s: %v", e.Message, e.Data)
		}
	}
	for range 3 {
		if err := awaitAnswer(t.Context(), s.Sockets().API); err != nil {
			t.Fatal(err)
		}
		awaitPeriod(t, pid, calmPeriod)
	}
}

// A process's sleeps are longer by the slack that its parent had, and the parent's are as before.
func TestSlack(t *testing.T) {
	own := func() time.Duration {
		ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(ns)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := own()
	var inside time.Duration
	if _, err := withSlack(func() (*os.Process, error) { inside = own(); return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if inside != slack {
		t.Errorf("the slack of a start is %s, want %s", inside, slack)
	}
	if after := own(); after != before || after == inside {
		t.Errorf("the slack is %s afterwards, was %s", after, before)
	}
}
