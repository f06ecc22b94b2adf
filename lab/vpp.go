package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rlr/internal/ctl"
)

// This file finds the processes that a router on VPP is made of, by what the command line and /proc tell.

// onVPP is the kind of a dataplane that is a VPP.
const onVPP = "vpp"

// installedVPP returns the path of the VPP that routers would use, "" when there is none.
func installedVPP(ctx context.Context, binary string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, "--json", "doctor").Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // it exits with 1 where something is wrong with the host, and tells all the same
		return "", fmt.Errorf("rlr doctor: %w", err)
	}
	return vppOfDoctor(out)
}

func vppOfDoctor(answer []byte) (string, error) {
	var rows []struct {
		Subject string `json:"subject"`
		Value   string `json:"value"`
	}
	if err := json.Unmarshal(answer, &rows); err != nil {
		return "", fmt.Errorf("rlr doctor: %w", err)
	}
	for _, r := range rows {
		path, _, _ := strings.Cut(r.Value, ", release ")
		if r.Subject != "vpp" || !filepath.IsAbs(path) {
			continue
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", fmt.Errorf("find VPP: %w", err)
		}
		return real, nil
	}
	return "", nil
}

// vppctl returns what VPP's command line prints, without colours.
func (p *play) vppctl(ctx context.Context, router string, words ...string) (string, error) {
	var out struct {
		Output string `json:"output"`
	}
	err := p.ask(ctx, &out, router, append([]string{"vppctl"}, words...)...)
	return colours.ReplaceAllString(out.Output, ""), err
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// routerPID returns the pid of a router that we started.
func (p *play) routerPID(router string) int {
	i := slices.IndexFunc(p.procs, func(c *child) bool { return c.name == router })
	return p.procs[i].pid
}

// dataplaneOf asks a router for its dataplane.
func (p *play) dataplaneOf(ctx context.Context, router string) (ctl.DataplaneStatus, error) {
	var st ctl.Status
	err := p.ask(ctx, &st, router, "show", "status")
	return st.Dataplane, err
}

// helper is a process that holds a router's sessions on VPP.
type helper struct {
	pid       int
	namespace string // the application namespace that it is attached to
}

// defaultNamespace is of the helper with the listeners; another one has the connections that the router makes to link-local
// addresses.
const defaultNamespace = "default"

var vclConfigName = regexp.MustCompile(`(?:^|\x00)VCL_CONFIG=[^\x00]*/vcl-([^\x00/]+)\.conf(?:\x00|$)`)

// helpersOf finds the helpers of a router among its children, by their environment: VCL_CONFIG names VCL's configuration.
func helpersOf(router int) ([]helper, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find helpers: %w", err)
	}
	var out []helper
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.parent != router || st.state == 'Z' {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // it ended
		}
		if m := vclConfigName.FindSubmatch(env); m != nil {
			out = append(out, helper{pid, string(m[1])})
		}
	}
	slices.SortFunc(out, func(a, b helper) int { return strings.Compare(a.namespace, b.namespace) })
	return out, nil
}

// leftVPPs finds the VPPs of routers in dir.
func leftVPPs(dir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find left VPPs: %w", err)
	}
	var left []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !startedIn(dir, string(line)) {
			continue
		}
		if id, err := identify("vpp", pid); err == nil {
			left = append(left, id)
		}
	}
	return left, nil
}

// endLeftVPPs ends the VPPs of routers in dir that were killed: a router that is killed leaves its VPP forwarding, on purpose.
func endLeftVPPs(ctx context.Context, dir string) error {
	left, err := leftVPPs(dir)
	if err != nil {
		return err
	}
	return endAll(ctx, left)
}

// startedIn reports whether a command line, as /proc has it, is that of a VPP with its configuration below dir.
func startedIn(dir, cmdline string) bool {
	words := strings.Split(strings.TrimSuffix(cmdline, "\x00"), "\x00")
	n := len(words)
	return n >= 3 && words[n-2] == "-c" && strings.HasPrefix(words[n-1], dir+"/") && filepath.Base(words[n-1]) == "startup.conf"
}

// pssBytes is a process's share of memory: pages that it shares with n others count as an nth (proc_pid_smaps(5)).
func pssBytes(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return parsePSS(string(b))
}

func parsePSS(smaps string) (uint64, error) {
	for line := range strings.Lines(smaps) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kib, err := strconv.ParseUint(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("smaps_rollup tells no Pss")
}

// openFiles counts the file descriptors of a process.
func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// vppSession is a row of VPP's `show session verbose 2`.
type vppSession struct {
	local, remote string // address:port
	state         string
	swIfIndex     int
}

var (
	sessionLine   = regexp.MustCompile(`^\[\d+:\d+\]\[\w+\] (\S+)->(\S+)\s+(\S+)`)
	sessionOnLine = regexp.MustCompile(`\bsw_if_index (-?\d+)`)
)

func parseSessions(text string) []vppSession {
	var out []vppSession
	for line := range strings.Lines(text) {
		if m := sessionLine.FindStringSubmatch(line); m != nil {
			out = append(out, vppSession{local: m[1], remote: m[2], state: m[3]})
		} else if m := sessionOnLine.FindStringSubmatch(line); m != nil && len(out) > 0 {
			out[len(out)-1].swIfIndex, _ = strconv.Atoi(m[1]) //nolint:errcheck // the pattern has digits
		}
	}
	return out
}

// tableRows counts the rows of a table of VPP's that begin with an index.
func tableRows(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			if _, err := strconv.Atoi(f[0]); err == nil {
				n++
			}
		}
	}
	return n
}

// breakableVPP is an installation of VPP in all but the program, which is a script that becomes VPP, unless told otherwise.
type breakableVPP struct{ dir string }

// Modes of the script.
const (
	vppFails     = "fail"
	vppFailsOnce = "once"
	vppSlow      = "slow"
)

// newBreakableVPP makes it for the real program in dir, and returns dir.
func newBreakableVPP(dir, real string) (string, error) {
	b := breakableVPP{dir}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		return "", fmt.Errorf("breakable VPP: %w", err)
	}
	prefix := filepath.Dir(filepath.Dir(real))
	for _, sub := range []string{"lib", "lib64", "share", "etc"} {
		if _, err := os.Stat(filepath.Join(prefix, sub)); err != nil {
			continue
		}
		if err := os.Symlink(filepath.Join(prefix, sub), filepath.Join(dir, sub)); err != nil {
			return "", fmt.Errorf("breakable VPP: %w", err)
		}
	}
	script := fmt.Sprintf(`#!/bin/sh
mode=$(cat '%[1]s' 2>/dev/null)
date +%%s.%%N >>'%[2]s'
case $mode in
%[3]s) echo "broken by the lab" >&2; exit 1 ;;
%[4]s) rm '%[1]s'; echo "broken by the lab once" >&2; exit 1 ;;
%[5]s) sleep 5 ;;
esac
exec '%[6]s' "$@"
`, b.mode(), b.starts(), vppFails, vppFailsOnce, vppSlow, real)
	if err := os.WriteFile(filepath.Join(dir, "bin", "vpp"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		return "", fmt.Errorf("breakable VPP: %w", err)
	}
	return dir, nil
}

func (b breakableVPP) mode() string   { return filepath.Join(b.dir, "mode") }
func (b breakableVPP) starts() string { return filepath.Join(b.dir, "starts") }

// set tells the script what to do from now on; "" is to become VPP.
func (b breakableVPP) set(mode string) error {
	if mode == "" {
		err := os.Remove(b.mode())
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.WriteFile(b.mode(), []byte(mode+"\n"), 0o600)
}

// times returns when the script was started, in seconds since 1970.
func (b breakableVPP) times() ([]float64, error) {
	text, err := os.ReadFile(b.starts())
	if err != nil {
		return nil, err
	}
	var out []float64
	for _, w := range strings.Fields(string(text)) {
		t, err := strconv.ParseFloat(w, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.starts(), err)
		}
		out = append(out, t)
	}
	return out, nil
}
