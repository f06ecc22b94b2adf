// The supervisor of a router's VPP: starts it as an ordinary child process, waits until it answers, starts it again when it
// dies, and stops it with the router.
//
// VPP is in a session of its own and is not tied to its parent's death: a router that is killed leaves it forwarding, and the
// next router of the same folder adopts it, known by pid, start time and boot. Its output goes to a file and not to a pipe,
// for a pipe would end with the router. A VPP that dies is started again at once; one that dies at every start is started
// ever more rarely, and Status holds what it said last. One goroutine, Run's, starts, watches and stops; a lock on the folder
// keeps two routers from doing so.

package rootless

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// State of a supervised VPP.
type State uint8

const (
	Stopped  State = iota // Run has not begun, or has ended
	Starting              // the process runs and does not answer yet
	Running               // it answers at its API socket
	Waiting               // it died; the next start waits for its time
)

func (s State) String() string {
	switch s {
	case Starting:
		return "starting"
	case Running:
		return "running"
	case Waiting:
		return "waiting"
	}
	return "stopped"
}

// Options of a supervised VPP.
type Options struct {
	Binary   string       // path of the vpp program
	Dir      string       // the router's own folder, absolute; VPP's is `vpp` in it
	Sizes    Sizes        // see Size
	OnChange func(Status) // called at each change of state, from Run's goroutine; may be nil
	Log      *logrus.Entry
}

// Status is what the supervisor knows.
type Status struct {
	State    State
	PID      int // 0: no process
	Binary   string
	Version  string    // by the installation's libraries; "" when they do not tell
	Adopted  bool      // the process was there before this router
	Since    time.Time // of the state
	Restarts int       // starts after the first process
	Err      error     // why the last process died or could not be started; nil if none did
	Retry    time.Time // of the next start, in state Waiting
	RSS, PSS uint64    // bytes; 0: unknown
}

// timing is shorter in tests.
type timing struct {
	answer  time.Duration // for a new process to answer, and for one that is to be adopted
	stop    time.Duration // from SIGTERM to SIGKILL
	backoff backoff
	tidy    time.Duration // between looks at the size of the console file
}

var usualTiming = timing{
	answer:  30 * time.Second,
	stop:    5 * time.Second,
	backoff: backoff{first: 100 * time.Millisecond, longest: 30 * time.Second, early: time.Second, stable: time.Minute},
	tidy:    time.Minute,
}

// VPP is a supervised VPP. Make it with NewVPP.
type VPP struct {
	settings Settings
	folder   folder
	binary   string
	onChange func(Status)
	log      *logrus.Entry
	timing   timing
	version  string
	ready    chan struct{}

	mu     sync.Mutex
	begun  bool
	leave  bool
	status Status
}

// NewVPP checks the options against the VPP that is installed; nothing is started or written yet.
func NewVPP(o Options) (*VPP, error) {
	if o.Binary == "" {
		return nil, errors.New("vpp: no binary given")
	}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, fmt.Errorf("vpp %s: %w", o.Binary, err)
	}
	if err := unix.Access(binary, unix.X_OK); err != nil {
		return nil, fmt.Errorf("vpp %s: %w", binary, err)
	}
	load, err := availablePlugins(binary)
	if err != nil {
		return nil, fmt.Errorf("vpp %s: %w", binary, err)
	}
	dir := filepath.Join(o.Dir, "vpp")
	v := &VPP{
		settings: Settings{Dir: dir, Prefix: sharedPrefix(dir), Sizes: o.Sizes, Plugins: load},
		folder:   folder(dir),
		binary:   binary,
		onChange: o.OnChange,
		log:      o.Log,
		timing:   usualTiming,
		version:  VPPVersion(binary),
		ready:    make(chan struct{}),
	}
	if v.log == nil {
		v.log = logrus.NewEntry(logrus.StandardLogger())
	}
	if v.onChange == nil {
		v.onChange = func(Status) {}
	}
	if _, err := v.settings.Text(); err != nil {
		return nil, err
	}
	v.status = Status{Binary: binary, Version: v.version, Since: time.Now()}
	return v, nil
}

// Sockets are where VPP listens while it runs.
func (v *VPP) Sockets() Sockets { return SocketsIn(v.settings.Dir) }

// Ready is closed when VPP has answered for the first time.
func (v *VPP) Ready() <-chan struct{} { return v.ready }

// Leave makes the end of Run leave VPP running, for the next router to adopt.
func (v *VPP) Leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leave = true
}

// Status returns the state now, with the memory that the process has.
func (v *VPP) Status() Status {
	v.mu.Lock()
	s := v.status
	v.mu.Unlock()
	if s.PID != 0 {
		s.RSS, s.PSS, _ = Memory(s.PID) // died just now: unknown
	}
	return s
}

// change sets the status and tells of it.
func (v *VPP) change(set func(*Status)) {
	v.mu.Lock()
	v.status.Since = time.Now()
	set(&v.status)
	s := v.status
	v.mu.Unlock()
	v.onChange(s)
}

// count counts a restart; the change of state that follows tells of it.
func (v *VPP) count() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status.Restarts++
}

func (v *VPP) leaving() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leave
}

// Run keeps a VPP running until ctx ends, then stops it, or leaves it when Leave was called. It fails when the folder cannot
// be used, or another router uses it. A VPP that does not start is no error of Run: see Status.
func (v *VPP) Run(ctx context.Context) error {
	v.mu.Lock()
	if v.begun {
		v.mu.Unlock()
		return errors.New("vpp: Run was called twice")
	}
	v.begun = true
	v.mu.Unlock()

	lock, err := v.folder.own()
	if err != nil {
		return err
	}
	defer lock.Close()
	defer v.change(func(s *Status) { s.State, s.PID, s.Retry = Stopped, 0, time.Time{} })

	score := v.timing.backoff
	w, err := v.leftover()
	if err != nil {
		return err
	}
	for {
		lived, err := v.once(ctx, w)
		if ctx.Err() != nil {
			return err
		}
		w = nil
		pause := score.next(lived)
		v.log.WithError(err).WithField("retry", pause.String()).Warn("vpp is not running")
		v.change(func(s *Status) {
			s.State, s.PID, s.Err, s.Retry, s.Adopted = Waiting, 0, err, s.Since.Add(pause), false
		})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			v.count()
		}
	}
}

// once starts a process, unless w is one already, and attends it.
func (v *VPP) once(ctx context.Context, w *deathWatch) (lived time.Duration, err error) {
	adopted := w != nil
	if !adopted {
		if ctx.Err() != nil {
			return 0, nil
		}
		if w, err = v.start(); err != nil {
			return 0, err
		}
	}
	defer w.close()
	if adopted && !v.folder.configured(v.settings) {
		v.log.Warn("this vpp was started with other settings than it would get now; `rlr stop` and `rlr run` give it those")
	}
	return v.attend(ctx, w, adopted)
}

// attend watches a process from its start to its death, and says how long it was of use and how it died. When ctx ends it
// stops or leaves the process, and the error is that of stopping it.
func (v *VPP) attend(ctx context.Context, w *deathWatch, adopted bool) (lived time.Duration, err error) {
	v.change(func(s *Status) { s.State, s.PID, s.Adopted, s.Retry = Starting, w.id.PID, adopted, time.Time{} })
	watchCtx, stopWatch := context.WithCancel(context.Background())
	died := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if w.wait(watchCtx) == nil {
			close(died)
		}
	}()
	defer func() { stopWatch(); <-gone }()

	begin := time.Now()
	answerCtx, cancel := context.WithTimeout(ctx, v.timing.answer)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- awaitAnswer(answerCtx, v.Sockets().API) }()
	select {
	case <-died:
		cancel()
		<-answered
		return 0, v.obituary(w, "before it answered")
	case err = <-answered:
	}
	switch {
	case ctx.Err() != nil:
		return 0, v.end(w, died)
	case err != nil:
		_ = w.signal(unix.SIGKILL)
		<-died
		reap(w.id.PID)
		return 0, fmt.Errorf("vpp (pid %d) was killed: it did not answer within %s: %w%s", w.id.PID, v.timing.answer, err, v.folder.lastWords())
	}
	return v.useful(ctx, w, died, time.Since(begin), adopted)
}

// useful is attend from the answer on.
func (v *VPP) useful(ctx context.Context, w *deathWatch, died <-chan struct{}, took time.Duration, adopted bool) (time.Duration, error) {
	begin := time.Now()
	v.settle(w)
	v.log.WithFields(logrus.Fields{"pid": w.id.PID, "version": v.version, "adopted": adopted, "took": took.Round(time.Millisecond).String()}).Info("vpp is running")
	v.change(func(s *Status) { s.State = Running })
	select {
	case <-v.ready:
	default:
		close(v.ready)
	}
	tick := time.NewTicker(v.timing.tidy)
	defer tick.Stop()
	look := time.NewTicker(calmInterval)
	defer look.Stop()
	hasty, err := timersOf(w)
	if err != nil {
		v.log.WithError(err).Info("an idle vpp takes some 6 % of a core, because this system does not let its timer be slowed down")
		look.Stop()
	}
	defer hasty.close()
	for {
		select {
		case <-died:
			return time.Since(begin), v.obituary(w, "")
		case <-ctx.Done():
			return time.Since(begin), v.end(w, died)
		case <-tick.C:
			v.folder.trimConsole()
		case <-look.C:
			if err := hasty.calm(); err != nil {
				v.log.WithError(err).Warn("vpp's timer cannot be slowed down any more")
				look.Stop()
			}
		}
	}
}

// settle does what has to wait until the process has become VPP: a script may have been started instead, that became it.
func (v *VPP) settle(w *deathWatch) {
	if err := unpin(w.id.PID); err != nil {
		v.log.WithError(err).Debug("vpp stays on one core")
	}
	id, err := identify(w.id.PID)
	if err != nil || id.StartTime != w.id.StartTime {
		return // it died just now
	}
	id.Program = v.binary
	if err := id.record(v.folder.file("pid")); err != nil {
		v.log.WithError(err).Warn("the next router may not find this vpp by its record")
	}
}

// obituary reaps a process and says how it died, with what it said last.
func (v *VPP) obituary(w *deathWatch, when string) error {
	how := reap(w.id.PID)
	if when != "" {
		how += " " + when
	}
	return fmt.Errorf("vpp (pid %d) %s%s", w.id.PID, how, v.folder.lastWords())
}

// end stops a process or leaves it.
func (v *VPP) end(w *deathWatch, died <-chan struct{}) error {
	if v.leaving() {
		v.log.WithField("pid", w.id.PID).Info("vpp is left running")
		return nil
	}
	if err := v.kill(w, died); err != nil {
		return err
	}
	v.folder.sweep(v.settings.Prefix)
	v.log.WithField("pid", w.id.PID).Info("vpp is stopped")
	return nil
}

// kill ends a process, gently at first, and reaps it.
func (v *VPP) kill(w *deathWatch, died <-chan struct{}) error {
	if err := w.signal(unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop vpp (pid %d): %w", w.id.PID, err)
	}
	select {
	case <-died:
	case <-time.After(v.timing.stop):
		v.log.WithField("pid", w.id.PID).Warn("vpp does not stop, so it is killed")
		if err := w.signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill vpp (pid %d): %w", w.id.PID, err)
		}
		<-died
	}
	reap(w.id.PID)
	return nil
}

// start writes the configuration and starts a new process.
func (v *VPP) start() (*deathWatch, error) {
	v.folder.sweep(v.settings.Prefix)
	if err := v.folder.write(v.settings); err != nil {
		return nil, fmt.Errorf("start vpp: %w", err)
	}
	console, err := v.folder.newConsole()
	if err != nil {
		return nil, fmt.Errorf("start vpp: %w", err)
	}
	defer console.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("start vpp: %w", err)
	}
	defer null.Close()
	p, err := withSlack(func() (*os.Process, error) {
		return os.StartProcess(v.binary, []string{v.binary, "-c", v.folder.file("startup.conf")}, &os.ProcAttr{
			Dir:   v.settings.Dir,
			Env:   environment(),
			Files: []*os.File{null, console, console},
			// Its own session: a ctrl-C at the router's terminal is the router's to handle.
			Sys: &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("start vpp: %w", err)
	}
	pid := p.Pid
	_ = p.Release() // from here on the process is known by its identity, as one that was adopted is
	w, err := v.know(pid)
	if err == nil {
		return w, nil
	}
	// It is dead already, or cannot be looked at and must not stay.
	_ = unix.Kill(pid, unix.SIGKILL)
	return nil, fmt.Errorf("vpp (pid %d) %s at its start (%w)%s", pid, reapNow(pid), err, v.folder.lastWords())
}

// know identifies the process that was just started.
func (v *VPP) know(pid int) (*deathWatch, error) {
	id, err := identify(pid)
	if err != nil {
		return nil, err
	}
	w, err := watchDeath(id)
	if err != nil {
		return nil, err
	}
	// Where core files are written at all, VPP's would fill the folder, which is often in memory.
	if limit := (unix.Rlimit{}); unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &limit) == nil {
		limit.Cur = 0
		_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &limit, nil)
	}
	return w, nil
}

// leftover returns the process that an earlier router of this folder left, nil when there is none. One of another program
// than the one installed now is stopped: its shared memory would not match the installed libraries.
func (v *VPP) leftover() (*deathWatch, error) {
	id, ok := v.folder.running()
	if !ok {
		return nil, nil
	}
	w, err := watchDeath(id)
	if err != nil {
		return nil, nil // it died just now
	}
	if id.runs(v.binary) {
		return w, nil
	}
	defer w.close()
	v.log.WithFields(logrus.Fields{"pid": id.PID, "binary": id.Binary}).Info("an earlier vpp is of another program than the one installed now, and is replaced")
	return nil, v.terminate(w)
}

// terminate is kill for a process that nobody attends.
func (v *VPP) terminate(w *deathWatch) error {
	ctx, cancel := context.WithCancel(context.Background())
	died, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		if w.wait(ctx) == nil {
			close(died)
		}
	}()
	defer func() { cancel(); <-gone }()
	return v.kill(w, died)
}

// StopLeftover stops the VPP that an earlier router of the folder dir left running, if there is one: a router that forwards
// by other means now must not leave it so. It does nothing, and reports no error, when there is none or another router has
// it.
func StopLeftover(dir string, log *logrus.Entry) error {
	f := folder(filepath.Join(dir, "vpp"))
	if _, err := os.Stat(string(f)); err != nil {
		return nil
	}
	lock, err := f.own()
	if err != nil {
		return nil
	}
	defer lock.Close()
	id, ok := f.running()
	if !ok {
		return nil
	}
	w, err := watchDeath(id)
	if err != nil {
		return nil
	}
	defer w.close()
	v := &VPP{folder: f, log: log, timing: usualTiming}
	if err := v.terminate(w); err != nil {
		return err
	}
	f.sweep(sharedPrefix(string(f)))
	log.WithField("pid", id.PID).Info("vpp of an earlier router is stopped")
	return nil
}
