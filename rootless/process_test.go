package rootless

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper starts a child that does nothing.
func sleeper(t *testing.T) identity {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	id, err := identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDeathWatch(t *testing.T) {
	for name, pidfd := range map[string]bool{"pidfd": true, "looking": false} {
		t.Run(name, func(t *testing.T) {
			w, err := watchDeath(sleeper(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { w.close() }()
			if !pidfd {
				w.close()
			}
			short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := w.wait(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("wait for one that lives: %v", err)
			}
			if err := w.signal(unix.SIGKILL); err != nil {
				t.Error(err)
			}
			long, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := w.wait(long); err != nil {
				t.Errorf("wait for one that was killed: %v", err)
			}
			if got := reap(w.id.PID); got != "killed by SIGKILL" {
				t.Errorf("it %s", got)
			}
			if !gone(w.id.PID) {
				t.Error("a zombie is left")
			}
			if err := w.signal(unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
				t.Errorf("signal to a dead one: %v, want ESRCH", err)
			}
		})
	}
}

func TestWatchOfAnotherProcessWithThatPID(t *testing.T) {
	id := sleeper(t)
	id.StartTime--
	if _, err := watchDeath(id); !errors.Is(err, errNoProcess) {
		t.Errorf("got %v, want errNoProcess", err)
	}
	if id.alive() {
		t.Error("a later process with its pid is taken for it")
	}
}

func TestIdentityOfNobody(t *testing.T) {
	if _, err := identify(1 << 30); !errors.Is(err, errNoProcess) {
		t.Errorf("got %v, want errNoProcess", err)
	}
	for _, text := range []string{"", "{", `{"pid":0}`, `{"pid":-1}`, `{"pid":1}`, "null"} {
		file := shortDir(t) + "/pid"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, ok := recorded(file); ok {
			t.Errorf("record %q gave %+v", text, id)
		}
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	rss, pss, err := Memory(os.Getpid())
	if err != nil || rss < 1<<20 || pss > rss {
		t.Errorf("rss %d, pss %d, %v", rss, pss, err)
	}
	if _, _, err := Memory(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestUnpin(t *testing.T) {
	var ours unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		t.Fatal(err)
	}
	pid := sleeper(t).PID
	var one unix.CPUSet
	for cpu := range 1024 {
		if ours.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(pid, &one); err != nil {
		t.Fatal(err)
	}
	if err := unpin(pid); err != nil {
		t.Fatal(err)
	}
	var got unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &got); err != nil || got != ours {
		t.Errorf("may run on %d cores (%v), want %d", got.Count(), err, ours.Count())
	}
}

func TestBackoff(t *testing.T) {
	b := usualTiming.backoff
	// Killed ten times in a row after it was of use: back at once each time.
	for i := range 10 {
		if got := b.next(5 * time.Second); got != 100*time.Millisecond {
			t.Errorf("kill %d: %s", i, got)
		}
	}
	// A death at every start: ever more rarely, to a limit.
	b = usualTiming.backoff
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		if got := b.next(0); got != want*time.Millisecond {
			t.Errorf("death %d at the start: %s, want %s", i, got, want*time.Millisecond)
		}
	}
	// A long life forgives.
	if got := b.next(time.Hour); got != 100*time.Millisecond {
		t.Errorf("after an hour: %s", got)
	}
	// One that is killed by a route soon after each start does not spin for ever.
	var last time.Duration
	for range 100 {
		last = b.next(2 * time.Second)
	}
	if last != b.longest {
		t.Errorf("after 100 short lives: %s, want %s", last, b.longest)
	}
}
