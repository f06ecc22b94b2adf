// Command testreport runs `go test` and ends with what an operator of a CI wants to know: what ran on which dataplane, and
// what was skipped, and why.
//
// go test without -v hides the reason of a skipped test, and with it the summary drowns. So the tests run with -json; a line
// per package and the output of failed tests are printed as they come, and the rest is counted. A test ran on a dataplane
// when an element of its name is "embedded" or "vpp" (TestPing/embedded): that is how the conformance suite names them.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout, os.Getenv("RLR_REQUIRE_VPP") == "1")
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	os.Exit(code)
}

// run executes GO test ARGS… with -json and reports to w.
func run(args []string, w io.Writer, requireVPP bool) (int, error) {
	if len(args) < 2 || args[1] != "test" {
		return 2, errors.New("usage: testreport GO test ARGS…")
	}
	// An interrupt reaches the tests too: they clean up, and the report still says what was done. It is caught and not
	// ignored, because a child would inherit that.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	cmd := exec.Command(args[0], append([]string{"test", "-json"}, args[2:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 2, fmt.Errorf("pipe from go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 2, fmt.Errorf("start go test: %w", err)
	}
	r := newReport(w)
	readErr := r.read(out)
	if readErr != nil {
		_, _ = io.Copy(io.Discard, out) // or go test would wait for its reader
	}
	err = cmd.Wait()
	ok := r.summary(strings.Join(args, " "), requireVPP)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1), nil
	case err != nil:
		return 2, fmt.Errorf("go test: %w", err)
	case readErr != nil:
		return 2, fmt.Errorf("read from go test: %w", readErr)
	case !ok:
		return 1, nil
	}
	return 0, nil
}

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// dataplanes are the elements of a test's name that say where it ran.
var dataplanes = []string{embedded, vpp}

const (
	embedded = "embedded"
	vpp      = "vpp"

	// takesMinutes is in the reason of a test that RLR_LONG=1 would have run: it was left out, and nothing is missing here.
	takesMinutes = "takes minutes"
)

// report collects events.
type report struct {
	w       io.Writer
	started time.Time
	output  map[string][]string // of tests that have not ended, by package and name
	passed  int
	failed  []string
	skipped map[string][]string       // reasons to tests
	ran     map[string]map[string]int // dataplane to action to tests
	missed  int                       // tests of VPP that were skipped for want of something, not of time
}

func newReport(w io.Writer) *report {
	r := &report{w: w, started: time.Now(), output: map[string][]string{}, skipped: map[string][]string{}, ran: map[string]map[string]int{}}
	for _, d := range dataplanes {
		r.ran[d] = map[string]int{}
	}
	return r
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			r.take(e)
		} else if len(line) > 0 {
			r.printf("%s", line) // go test itself
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) printf(format string, args ...any) { _, _ = fmt.Fprintf(r.w, format, args...) }

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		r.printf("%s", e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.takePackage(e, key)
		} else {
			r.takeTest(e, key)
		}
		delete(r.output, key)
	}
}

func (r *report) takePackage(e event, key string) {
	switch e.Action {
	case "fail":
		// A test that never ended, for a panic or a timeout, left its output behind.
		prefix := e.Package + " "
		for _, k := range slices.Sorted(maps.Keys(r.output)) {
			if strings.HasPrefix(k, prefix) && k != key {
				r.printf("%s", strings.Join(r.output[k], ""))
				delete(r.output, k)
			}
		}
		r.printf("%s", strings.Join(r.output[key], ""))
		r.failed = append(r.failed, e.Package)
	case "skip":
		r.printf("-     %s (no tests)\n", e.Package)
	default:
		r.printf("ok    %s  %.1fs\n", e.Package, e.Elapsed)
	}
}

func (r *report) takeTest(e event, key string) {
	name := e.Package + " " + e.Test
	elements := strings.Split(strings.ToLower(e.Test), "/")
	for _, d := range dataplanes {
		if slices.Contains(elements, d) {
			r.ran[d][e.Action]++
		}
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed = append(r.failed, name)
		r.printf("%s", strings.Join(r.output[key], ""))
	case "skip":
		why := reason(r.output[key])
		r.skipped[why] = append(r.skipped[why], name)
		if slices.Contains(elements, vpp) && !strings.Contains(why, takesMinutes) {
			r.missed++
		}
	}
}

// reason finds what a test said when it was skipped: the lines between === RUN and --- SKIP, without their place.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if file, text, ok := strings.Cut(line, ": "); ok && strings.Contains(file, ".go:") {
			line = text
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return said[len(said)-1]
}

// summary writes the last lines. It reports whether all is well.
func (r *report) summary(command string, requireVPP bool) bool {
	ok := len(r.failed) == 0
	r.printf("\n%s\n", command)
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		r.printf("skipped: %s\n", why)
		for _, name := range r.skipped[why] {
			r.printf("         %s\n", name)
		}
	}
	for _, name := range r.failed {
		r.printf("FAILED:  %s\n", name)
	}
	for _, d := range dataplanes {
		n := r.ran[d]
		switch {
		case n["pass"]+n["fail"]+n["skip"] == 0:
			r.printf("dataplane %-8s: no test ran\n", d)
		default:
			r.printf("dataplane %-8s: %d tests passed, %d failed, %d skipped\n", d, n["pass"], n["fail"], n["skip"])
		}
	}
	if n := r.ran[vpp]; requireVPP && (r.missed > 0 || n["pass"]+n["fail"] == 0) {
		r.printf("RLR_REQUIRE_VPP=1, but not every test of VPP ran\n")
		ok = false
	}
	if !strings.Contains(command+" ", " -race ") {
		r.printf("without the race detector: there is no C compiler\n")
	}
	skips := 0
	for _, names := range r.skipped {
		skips += len(names)
	}
	r.printf("%d tests passed, %d failed, %d skipped, in %s\n", r.passed, len(r.failed), skips, time.Since(r.started).Round(time.Second))
	return ok
}
