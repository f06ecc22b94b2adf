package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

func TestVPPOfDoctor(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(dir, "vpp")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := real + "-link"
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ answer, want string }{
		"found": {`[{"subject":"memory","value":"1 MiB"},{"subject":"vpp","value":"` + link + `, release 26.06"}]`, real},
		"none":  {`[{"subject":"vpp","value":"not found"}]`, ""},
		"empty": {`[]`, ""},
	} {
		got, err := vppOfDoctor([]byte(tc.answer))
		if err != nil || got != tc.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "rlr: no", `[{"subject":"vpp","value":"/not/there, release 26.06"}]`} {
		if got, err := vppOfDoctor([]byte(bad)); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestParsePSS(t *testing.T) {
	got, err := parsePSS("5588 7ffd [rollup]\nRss:    35160 kB\nPss:     6048 kB\nPss_Dirty:   2906 kB\n")
	if err != nil || got != 6048<<10 {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "Pss_Dirty: 1 kB\n", "Pss: many kB\n"} {
		if _, err := parsePSS(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestStartedIn(t *testing.T) {
	for line, want := range map[string]bool{
		"/opt/vpp/bin/vpp\x00-c\x00/run/lab/router1/vpp/startup.conf\x00":  true,
		"/bin/sh\x00/x/vpp\x00-c\x00/run/lab/router1/vpp/startup.conf\x00": true, // the breakable one, before it is VPP
		"/opt/vpp/bin/vpp\x00-c\x00/run/lab2/router1/vpp/startup.conf\x00": false,
		"less\x00/run/lab/router1/vpp/startup.conf\x00":                    false,
		"rlr\x00run\x00-c\x00/run/lab/etc/router1.yaml\x00":                false,
		"": false,
	} {
		if got := startedIn("/run/lab", line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

const verboseSessions = `[0:0][T] :::179->:::0	LISTEN
 index: 0 cfg_flags: No endpoint cong_algo: cubic snd_mss: 0
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 0
[0:2][T] fe80::1:56950->fe80::2:179	ESTABLISHED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 3
[0:3][T] fe80::1:179->fe80::2:64707	ESTABLISHED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 2
[0:4][T] fe80::1:179->fe80::2:50000	CLOSED
 next_node 0 opaque 0x0 fib_index 0 sw_if_index 2
Thread 0: active sessions 3
`

func TestMatchSessions(t *testing.T) {
	sessions := parseSessions(verboseSessions)
	if len(sessions) != 4 || sessions[1] != (vppSession{"fe80::1:56950", "fe80::2:179", "ESTABLISHED", 3}) || sessions[0].state != "LISTEN" {
		t.Fatalf("%+v", sessions)
	}
	ifs := []ctl.Interface{{Name: "tun13", SwIfIndex: 2}, {Name: "tun12", SwIfIndex: 3}}
	neighbors := []neighbor{{name: "router2", address: "fe80::2", iface: "tun12"}, {name: "router3", address: "fe80::2", iface: "tun13"}}
	got, err := matchSessions(sessions, ifs, neighbors)
	if want := []hubSession{{"router2", true}, {"router3", false}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = judgeDirections(got)
	says(t, "as planned", err, "")
	_, err = judgeDirections([]hubSession{{"router2", false}, {"router3", false}})
	says(t, "other way", err, "accepted from router2")
	_, err = matchSessions(sessions[:2], ifs, neighbors)
	says(t, "one is missing", err, "0 sessions on tun13")
	_, err = matchSessions(append(sessions, sessions[1]), ifs, neighbors)
	says(t, "one is there twice", err, "2 sessions on tun12")
	_, err = matchSessions(sessions, ifs[:1], neighbors)
	says(t, "no interface", err, "no interface tun12")
	sessions[2].local = "fe80::1:80"
	_, err = matchSessions(sessions, ifs, neighbors)
	says(t, "another port", err, "no BGP")
}

func TestTableRows(t *testing.T) {
	coloured := "\x1b[33mIndex\x1b[0m Secret\n0    \x1b[0m 0   default /x/default\n1    \x1b[0m 616 router1-0-if /x/if\n"
	if n := tableRows(colours.ReplaceAllString(coloured, "")); n != 2 {
		t.Error(n)
	}
	if n := tableRows("Index     Name   Namespace\n1  rlr  default\n2  rlr  x\n"); n != 2 {
		t.Error(n)
	}
}

func TestLeaked(t *testing.T) {
	before := map[string]holdings{"a": {sessions: 4, apps: 2, namespaces: 2, helpers: 2, files: 30, helperFiles: 37}}
	same := map[string]holdings{"a": before["a"]}
	says(t, "same", leaked(before, same), "")
	for want, change := range map[string]func(*holdings){
		"5 sessions":                func(h *holdings) { h.sessions++ },
		"3 applications":            func(h *holdings) { h.apps++ },
		"3 application namespaces":  func(h *holdings) { h.namespaces++ },
		"3 helpers":                 func(h *holdings) { h.helpers++ },
		"31 descriptors of the":     func(h *holdings) { h.files++ },
		"38 descriptors of helpers": func(h *holdings) { h.helperFiles++ },
	} {
		h := before["a"]
		change(&h)
		says(t, want, leaked(before, map[string]holdings{"a": h}), want)
	}
}

func TestJudgeDropped(t *testing.T) {
	up := func(flaps uint64, uptime float64) ctl.BGPSession {
		return ctl.BGPSession{State: established, Flaps: flaps, UptimeS: uptime}
	}
	before := map[string]ctl.BGPSession{"router2": up(1, 20), "router3": up(5, 20)}
	dropped := []string{"router3"}
	for name, tc := range map[string]struct {
		r2, r3 ctl.BGPSession
		want   string
	}{
		"as it should":  {up(1, 25), up(6, 2), ""},
		"the other too": {up(2, 1), up(6, 2), "router2 dropped too"},
		"not noticed":   {up(1, 25), up(5, 25), "has outlived its helper"},
		"not back":      {up(1, 25), ctl.BGPSession{Name: "router3", State: "Active", Flaps: 6}, "router3 Active"},
	} {
		says(t, name, judgeDropped(before, map[string]ctl.BGPSession{"router2": tc.r2, "router3": tc.r3}, dropped), tc.want)
	}
}

func TestJudgeCrashLoop(t *testing.T) {
	dead := ctl.DataplaneStatus{State: "connecting", Error: "vpp (pid 7) exited with status 1 before it answered"}
	backoff := []float64{0, .1, .3, .7, 1.5, 3.1}
	says(t, "backs off", judgeCrashLoop(backoff, dead), "")
	says(t, "once", judgeCrashLoop(backoff[:1], dead), "started 1 times")
	says(t, "even", judgeCrashLoop([]float64{0, 1, 2, 3, 4}, dead), "no back-off")
	var spun []float64
	for i := range 100 {
		spun = append(spun, float64(i*i))
	}
	says(t, "spun on", judgeCrashLoop(spun, dead), "started 100 times")
	says(t, "not told", judgeCrashLoop(backoff, ctl.DataplaneStatus{State: "connecting"}), "does not report it")
	says(t, "alive", judgeCrashLoop(backoff, ctl.DataplaneStatus{State: "connected", Error: dead.Error}), "does not report it")
}

func TestJudgeIdle(t *testing.T) {
	now := time.Now()
	before := usage{at: now, router: share{pid: 1}, vpp: share{pid: 2}, helpers: []share{{name: "default", pid: 3}}}
	after := func(cpu float64, pss uint64) usage {
		return usage{
			at: now.Add(5 * time.Second), router: share{pid: 1, cpu: 0.05, pss: 20e6}, rss: 40e6,
			vpp: share{pid: 2, cpu: cpu, pss: pss}, helpers: []share{{name: "default", pid: 3, cpu: 0.05, pss: 5e6}},
		}
	}
	p := newTestPlay(survival())
	text, err := p.judgeIdle(hub, before, after(0.15, 80e6))
	if says(t, "within", err, ""); !strings.Contains(text, "5.00 % of a core, 105.0 MB PSS") {
		t.Error(text)
	}
	for name, want := range map[string]float64{
		"cpu_percent": 1, "rss_bytes": 40e6, "vpp_cpu_percent": 3, "helpers_cpu_percent": 1, "total_cpu_percent": 5,
		"router_pss_bytes": 20e6, "vpp_pss_bytes": 80e6, "helpers_pss_bytes": 5e6, "total_pss_bytes": 105e6,
	} {
		if got := p.metrics[name]; got < want*0.999 || got > want*1.001 {
			t.Errorf("%s is %g instead of %g", name, got, want)
		}
	}
	_, err = p.judgeIdle(hub, before, after(0.25, 80e6))
	says(t, "busy", err, "7.00 % of a core")
	_, err = p.judgeIdle(hub, before, after(0.15, 180e6))
	says(t, "big", err, "205.0 MB PSS")
	other := after(0.15, 80e6)
	other.helpers[0].pid = 4
	_, err = p.judgeIdle(hub, before, other)
	says(t, "restarted", err, "processes changed")

	p = newTestPlay(threeSites())
	alone := usage{at: now, router: share{pid: 1}}
	later := usage{at: now.Add(5 * time.Second), router: share{pid: 1, cpu: 0.05}, rss: 40e6}
	_, err = p.judgeIdle("router1", alone, later)
	says(t, "embedded", err, "")
	later.rss = 65e6
	_, err = p.judgeIdle("router1", alone, later)
	says(t, "embedded and big", err, "65.0 MB resident")
	if _, ok := p.metrics["total_cpu_percent"]; ok || p.metrics["cpu_percent"] != 1 {
		t.Errorf("%v", p.metrics)
	}
}

// The script becomes the program, fails, fails once, and tells when it was started.
func TestBreakableVPP(t *testing.T) {
	prefix := t.TempDir()
	for _, d := range []string{"bin", "lib"} {
		if err := os.Mkdir(filepath.Join(prefix, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	real := filepath.Join(prefix, "bin", "vpp")
	if err := os.WriteFile(real, []byte("#!/bin/sh\necho real $*\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := newBreakableVPP(filepath.Join(t.TempDir(), "x"), real)
	if err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "lib")); err != nil || to != filepath.Join(prefix, "lib") {
		t.Errorf("lib: %s, %v", to, err)
	}
	b := breakableVPP{dir}
	run := func(want string, fails bool) {
		t.Helper()
		out, err := exec.Command(filepath.Join(dir, "bin", "vpp"), "-c", "x").CombinedOutput()
		if strings.TrimSpace(string(out)) != want || (err != nil) != fails {
			t.Errorf("%q, %v", out, err)
		}
	}
	set := func(mode string) {
		t.Helper()
		if err := b.set(mode); err != nil {
			t.Fatal(err)
		}
	}
	run("real -c x", false)
	set(vppFails)
	run("broken by the lab", true)
	run("broken by the lab", true)
	set("")
	set("")
	run("real -c x", false)
	set(vppFailsOnce)
	run("broken by the lab once", true)
	run("real -c x", false)
	times, err := b.times()
	if err != nil || len(times) != 6 || !slices.IsSorted(times) || times[0] < 1e9 {
		t.Errorf("%v, %v", times, err)
	}
}

// A skipped check neither fails the lab nor counts as passed.
func TestSkippedChecks(t *testing.T) {
	p := newTestPlay(scenario{name: "x", checks: []CheckInfo{{Name: "a"}, {Name: "b"}}})
	p.results["a"] = Check{Name: "a", OK: true, Detail: "fine"}
	p.skip("b", "there is no VPP")
	r := p.result()
	if !r.OK || !r.Checks[1].Skipped || r.Checks[1].Detail != "skipped: there is no VPP" {
		t.Errorf("%+v", r)
	}
	text := tableText(r, time.Second, false, "")
	if !strings.Contains(text, "skip  b  skipped: there is no VPP") || !strings.Contains(text, "1 of 2 checks passed, 1 skipped in 1.0 s") {
		t.Error(text)
	}
}

func TestHelpersAreFoundByTheirEnvironment(t *testing.T) {
	for env, want := range map[string]string{
		"A=b\x00VCL_CONFIG=/run/r/vcl-default.conf\x00C=d\x00": "default",
		"VCL_CONFIG=/run/r/vcl-router1-0-if.conf":              "router1-0-if",
		"XVCL_CONFIG=/run/r/vcl-default.conf\x00":              "",
	} {
		m := vclConfigName.FindStringSubmatch(env)
		if got := append(m, "", "")[1]; m != nil && got != want || m == nil && want != "" {
			t.Errorf("%q: %q", env, m)
		}
	}
}
