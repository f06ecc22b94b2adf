package rootless

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"
)

const patience = time.Minute // spent only by a test that fails

// supervised is a VPP under test with the changes of state that it told of.
type supervised struct {
	*VPP
	changes chan Status
	cancel  context.CancelFunc
	ended   chan error
}

// supervise makes a VPP in the router's folder dir and runs it. It is stopped at the end of the test.
func supervise(t *testing.T, dir, binary string, adjust func(*timing)) *supervised {
	t.Helper()
	s := newSupervised(t, dir, binary)
	if adjust != nil {
		adjust(&s.timing)
	}
	s.run(t)
	return s
}

func newSupervised(t *testing.T, dir, binary string) *supervised {
	t.Helper()
	log, _ := test.NewNullLogger()
	s := &supervised{changes: make(chan Status, 1000), ended: make(chan error, 1)}
	var err error
	s.VPP, err = NewVPP(Options{
		Binary: binary, Dir: dir, Sizes: Sizes{Heap: minHeap, Stats: minStats, Buffers: usualBuffers},
		OnChange: func(st Status) { s.changes <- st }, Log: logrus.NewEntry(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *supervised) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.ended <- s.Run(ctx) }()
	t.Cleanup(func() { s.stop(t) })
}

// stop ends Run and waits for it; twice does no harm.
func (s *supervised) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		s.ended <- nil
	case <-time.After(patience):
		t.Fatal("Run did not end")
	}
}

// await returns the first change to a state.
func (s *supervised) await(t *testing.T, want State) Status {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case st := <-s.changes:
			if st.State == want {
				return st
			}
		case <-timeout:
			t.Fatalf("vpp did not become %s; it is %+v", want, s.Status())
		}
	}
}

// gone says that a process has ended and left no zombie.
func gone(pid int) bool {
	_, err := readStat(pid)
	return err != nil
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestRunStartsAndStops(t *testing.T) {
	t.Setenv("RLR_PRIVATE_KEY", "secret")
	dir := shortDir(t)
	s := supervise(t, dir, fakeBinary(t, "good"), nil)
	select {
	case <-s.Ready():
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	st := s.Status()
	if st.State != Running || st.PID == 0 || st.Adopted || st.Restarts != 0 || st.Err != nil || st.RSS == 0 {
		t.Errorf("status %+v", st)
	}
	if sid, err := unix.Getsid(st.PID); err != nil || sid != st.PID {
		t.Errorf("session %d (%v); want one of its own", sid, err)
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(st.PID) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(env), "secret") {
		t.Error("the router's environment is VPP's, too")
	}
	if fi, err := os.Stat(filepath.Join(dir, "vpp")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v; want 0700", fi.Mode(), err)
	}
	s.stop(t)
	if !gone(st.PID) {
		t.Errorf("process %d is still there", st.PID)
	}
	if _, err := os.Stat(s.Sockets().API); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is still there: %v", err)
	}
	if st := s.Status(); st.State != Stopped || st.PID != 0 {
		t.Errorf("status %+v after the end", st)
	}
}

func TestRunTwice(t *testing.T) {
	s := supervise(t, shortDir(t), fakeBinary(t, "good"), nil)
	s.await(t, Running)
	contains(t, s.Run(context.Background()), "twice")
}

func TestOneRouterPerFolder(t *testing.T) {
	dir, bin := shortDir(t), fakeBinary(t, "good")
	s := supervise(t, dir, bin, nil)
	s.await(t, Running)
	contains(t, newSupervised(t, dir, bin).Run(context.Background()), "another router")
}

func TestTwoRoutersSideBySide(t *testing.T) {
	bin := fakeBinary(t, "good")
	a, b := supervise(t, shortDir(t), bin, nil), supervise(t, shortDir(t), bin, nil)
	if pa, pb := a.await(t, Running).PID, b.await(t, Running).PID; pa == pb {
		t.Errorf("both have process %d", pa)
	}
}

func TestDeathAtEveryStartIsRetriedEverMoreRarely(t *testing.T) {
	s := supervise(t, shortDir(t), fakeBinary(t, "dies"), func(c *timing) { c.backoff.first = 20 * time.Millisecond })
	var last time.Duration
	for i := range 4 {
		st := s.await(t, Waiting)
		contains(t, st.Err, "exited with status 3", "unknown input `frobnicate'")
		if st.Restarts != i || st.PID != 0 {
			t.Errorf("death %d: status %+v", i, st)
		}
		pause := st.Retry.Sub(st.Since)
		if pause < last*3/2 {
			t.Errorf("death %d: retried after %s, and the time before after %s", i, pause, last)
		}
		last = pause
	}
	select {
	case <-s.Ready():
		t.Error("ready without ever having answered")
	default:
	}
	s.stop(t)
}

func TestNoAnswerIsADeath(t *testing.T) {
	for _, mode := range []string{"hangs", "mute"} {
		t.Run(mode, func(t *testing.T) {
			s := supervise(t, shortDir(t), fakeBinary(t, mode), func(c *timing) { c.answer = 300 * time.Millisecond })
			pid := s.await(t, Starting).PID
			st := s.await(t, Waiting)
			contains(t, st.Err, "did not answer within 300ms")
			if !gone(pid) {
				t.Errorf("process %d is still there", pid)
			}
		})
	}
}

func TestStopDuringTheStart(t *testing.T) {
	s := supervise(t, shortDir(t), fakeBinary(t, "hangs"), nil)
	pid := s.await(t, Starting).PID
	s.stop(t)
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	s := supervise(t, shortDir(t), fakeBinary(t, "stubborn"), func(c *timing) { c.stop = 100 * time.Millisecond })
	pid := s.await(t, Running).PID
	s.stop(t)
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func TestKilledProcessIsReplaced(t *testing.T) {
	s := supervise(t, shortDir(t), fakeBinary(t, "good"), func(c *timing) { c.backoff.early = 0 })
	for i := range 5 {
		pid := s.await(t, Running).PID
		kill(t, pid)
		st := s.await(t, Waiting)
		contains(t, st.Err, "killed by SIGKILL")
		if pause := st.Retry.Sub(st.Since); pause > 150*time.Millisecond {
			t.Errorf("death %d of one that was of use: retried after %s", i, pause)
		}
		if !gone(pid) {
			t.Errorf("process %d is a zombie", pid)
		}
	}
	if st := s.await(t, Running); st.Restarts != 5 {
		t.Errorf("%d restarts counted, want 5", st.Restarts)
	}
}

func TestProgramThatIsNotThereIsRetried(t *testing.T) {
	bin := fakeBinary(t, "good")
	s := newSupervised(t, shortDir(t), bin)
	away := bin + ".away"
	if err := os.Rename(bin, away); err != nil {
		t.Fatal(err)
	}
	s.run(t)
	contains(t, s.await(t, Waiting).Err, "no such file")
	if err := os.Rename(away, bin); err != nil {
		t.Fatal(err)
	}
	s.await(t, Running)
}

// leave makes a router that ends and leaves its VPP, and returns the VPP's pid.
func leave(t *testing.T, dir, binary string) int {
	t.Helper()
	s := supervise(t, dir, binary, nil)
	pid := s.await(t, Running).PID
	s.Leave()
	s.stop(t)
	if gone(pid) {
		t.Fatal("the process was not left")
	}
	return pid
}

func TestLeftProcessIsAdopted(t *testing.T) {
	for name, forget := range map[string]bool{"by its record": false, "without a record": true} {
		t.Run(name, func(t *testing.T) {
			dir, bin := shortDir(t), fakeBinary(t, "good")
			pid := leave(t, dir, bin)
			if forget {
				if err := os.Remove(filepath.Join(dir, "vpp", "pid")); err != nil {
					t.Fatal(err)
				}
			}
			s := supervise(t, dir, bin, nil)
			if st := s.await(t, Running); st.PID != pid || !st.Adopted || st.Restarts != 0 {
				t.Errorf("status %+v; want process %d adopted", st, pid)
			}
			// It is this process's child, as after `rlr restart`: its death is seen, and leaves no zombie.
			kill(t, pid)
			s.await(t, Waiting)
			if st := s.await(t, Running); st.PID == pid || st.Adopted {
				t.Errorf("status %+v after the adopted process died", st)
			}
			if !gone(pid) {
				t.Errorf("process %d is a zombie", pid)
			}
		})
	}
}

func TestAdoptedProcessIsStoppedWithTheRouter(t *testing.T) {
	dir, bin := shortDir(t), fakeBinary(t, "good")
	pid := leave(t, dir, bin)
	s := supervise(t, dir, bin, nil)
	s.await(t, Running)
	s.stop(t)
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func TestProcessOfAnotherProgramIsReplaced(t *testing.T) {
	dir := shortDir(t)
	pid := leave(t, dir, fakeBinary(t, "good"))
	s := supervise(t, dir, fakeBinary(t, "good"), nil)
	if st := s.await(t, Running); st.PID == pid || st.Adopted {
		t.Errorf("status %+v; want a new process", st)
	}
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

// freeze stops all threads of a process.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
		if err != nil {
			t.Fatal(err)
		}
		running := slices.ContainsFunc(threads, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
		if len(threads) > 0 && !running {
			return
		}
	}
	t.Fatalf("process %d does not stop", pid)
}

func TestLeftProcessThatDoesNotAnswerIsReplaced(t *testing.T) {
	dir, bin := shortDir(t), fakeBinary(t, "good")
	pid := leave(t, dir, bin)
	freeze(t, pid)
	s := supervise(t, dir, bin, func(c *timing) { c.answer = time.Second })
	contains(t, s.await(t, Waiting).Err, "did not answer")
	if st := s.await(t, Running); st.PID == pid {
		t.Error("the process that does not answer was kept")
	}
}

func TestRecordOfADeadProcessIsNotBelieved(t *testing.T) {
	dir, bin := shortDir(t), fakeBinary(t, "good")
	me, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*identity){
		"another start": func(id *identity) { id.StartTime++ },
		"another boot":  func(id *identity) { id.Boot = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			id := me
			change(&id)
			if err := os.MkdirAll(filepath.Join(dir, "vpp"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := id.record(filepath.Join(dir, "vpp", "pid")); err != nil {
				t.Fatal(err)
			}
			s := supervise(t, dir, bin, nil)
			if st := s.await(t, Running); st.PID == id.PID || st.Adopted {
				t.Errorf("status %+v; this test was taken for a VPP", st)
			}
			s.stop(t)
		})
	}
}

func TestStopLeftover(t *testing.T) {
	logger, _ := test.NewNullLogger()
	log := logrus.NewEntry(logger)
	dir, bin := shortDir(t), fakeBinary(t, "good")
	if err := StopLeftover(dir, log); err != nil {
		t.Errorf("of an empty folder: %v", err)
	}
	pid := leave(t, dir, bin)
	if err := StopLeftover(dir, log); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
	}
	// One that has a router stays.
	s := supervise(t, dir, bin, nil)
	pid = s.await(t, Running).PID
	if err := StopLeftover(dir, log); err != nil {
		t.Error(err)
	}
	if gone(pid) {
		t.Error("another router's process was stopped")
	}
}

func TestNewVPPRefuses(t *testing.T) {
	good := Sizes{Heap: minHeap, Stats: minStats, Buffers: usualBuffers}
	bin := fakeBinary(t, "good")
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no binary":      {Options{Dir: "/d", Sizes: good}, "no binary"},
		"missing binary": {Options{Binary: "/nonexistent/vpp", Dir: "/d", Sizes: good}, "/nonexistent/vpp"},
		"relative dir":   {Options{Binary: bin, Dir: "d", Sizes: good}, "absolute"},
		"no sizes":       {Options{Binary: bin, Dir: "/d"}, "heap"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewVPP(c.o)
			contains(t, err, c.want)
		})
	}
}

func TestConsoleIsTrimmed(t *testing.T) {
	f := folder(shortDir(t))
	c, err := f.newConsole()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := func(s string) {
		t.Helper()
		if _, err := c.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("x", consoleLimit) + "\nlast\n")
	f.trimConsole()
	write("after\n")
	if b, err := os.ReadFile(f.file("console.log")); err != nil || string(b) != "after\n" {
		t.Errorf("%d bytes (%v), want what was written since", len(b), err)
	}
	if b, err := os.ReadFile(f.file("console.log.1")); err != nil || len(b) != consoleLimit/2 || !strings.HasSuffix(string(b), "\nlast\n") {
		t.Errorf("%d bytes kept (%v), want the later half", len(b), err)
	}
}
