package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func sampleResult() Result {
	return Result{
		Scenario: "three-sites", Dataplane: "embedded", OK: false,
		Checks: []Check{
			{Name: "sessions", OK: true, Detail: "6 session ends Established"},
			{Name: "processes-unprivileged", OK: false, Detail: "router3 ended by itself (exit status 1):\nrlr: no dataplane"},
		},
		Metrics: map[string]float64{"converge_ms": 3210, "outage_ms": 23456, "rss_bytes": 33e6, "cpu_percent": 0.4},
	}
}

func TestTable(t *testing.T) {
	for name, colour := range map[string]bool{"table.txt": false, "table-colour.txt": true} {
		got := tableText(sampleResult(), 47250*time.Millisecond, colour, "/run/lab/log")
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s%v", name, got, want, err)
		}
	}
}

// The JSON that scripts rely on, and nothing else on standard output.
func TestResultJSON(t *testing.T) {
	var b bytes.Buffer
	if err := printResult(Options{JSON: true, Out: &b}, sampleResult(), time.Second, &place{}); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", b.String(), err)
	}
	for _, key := range []string{"scenario", "dataplane", "ok", "checks", "metrics"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %s", key, b.String())
		}
	}
	if len(got) != 5 {
		t.Errorf("%d keys", len(got))
	}
}

func newTestPlay(s scenario) *play {
	return &play{scenario: s, progress: newProgress(Screen{}), results: make(map[string]Check), metrics: make(map[string]float64)}
}

func TestChecksAreRecorded(t *testing.T) {
	p := newTestPlay(scenario{name: "x", checks: []CheckInfo{{Name: "a"}, {Name: "b"}, {Name: "c"}}})
	p.check(t.Context(), "b", func(context.Context) (string, error) { return "fine", nil })
	p.check(t.Context(), "a", func(context.Context) (string, error) { return "ignored", errors.New("bad") })
	p.finishChecks(errors.New("power cut"), nil)
	r := p.result()
	want := []Check{{Name: "a", Detail: "bad"}, {Name: "b", OK: true, Detail: "fine"}, {Name: "c", Detail: "not reached: power cut"}}
	if r.OK || len(r.Checks) != 3 || r.Checks[0] != want[0] || r.Checks[1] != want[1] || r.Checks[2] != want[2] {
		t.Errorf("%+v", r)
	}
}

func TestProgressLines(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(Screen{W: &b})
	p.say("starting %d", 6)
	end := p.begin("sessions")
	end(p.verdict(Check{Name: "sessions", OK: true, Detail: "6 up\nand more"}))
	p.begin("quiet")("")
	p.close()
	p.close()
	got := regexp.MustCompile(`(?m)^ +\d+\.\d s`).ReplaceAllString(b.String(), "T")
	if got != "T  starting 6\nT  ok    sessions: 6 up\n" {
		t.Errorf("%q", got)
	}
}

// On a terminal the last line is a clock, which is gone at the end.
func TestProgressTerminal(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(Screen{W: &b, Terminal: true, Colour: true})
	end := p.begin("hold-timer")
	other := p.begin("failover")
	end("done")
	other("")
	p.close()
	got := b.String()
	if !strings.Contains(got, "... hold-timer, failover") || !strings.Contains(got, "... failover") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q", got)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	if err := until(t.Context(), time.Second, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	says(t, "limit", until(t.Context(), 0, func() error { return errors.New("never") }), "after 0s: never")
	n = 0
	err := until(t.Context(), time.Minute, func() error { n++; return final(errors.New("over")) })
	if says(t, "final", err, "over"); n != 1 {
		t.Errorf("%d tries", n)
	}
}
