package rootless

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cgroupDir is one control group that holds this process.
type cgroupDir struct {
	path string
	v1   bool
}

// cgroupMount is a line of proc_pid_mountinfo(5) about control groups.
type cgroupMount struct {
	root, point string   // the group that is mounted, and where
	controllers []string // of version 1; nil: version 2
	v1          bool
}

// cgroupDirs lists the control groups of this process, of both versions, each from the innermost to the outermost that can
// be seen: a limit of any of them binds. In a container without a cgroup namespace only the container's own group is mounted,
// under its full name.
func cgroupDirs(root string) []cgroupDir {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	mounts := cgroupMounts(root)
	var dirs []cgroupDir
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(f) != 3 {
			continue
		}
		v1 := f[1] != ""
		for _, m := range mounts {
			if m.v1 != v1 || (v1 && !shareOne(m.controllers, strings.Split(f[1], ","))) {
				continue
			}
			inside := filepath.Clean("/" + f[2])
			if m.root != "/" {
				rest, ok := strings.CutPrefix(inside+"/", m.root+"/")
				if !ok {
					rest = ""
				}
				inside = filepath.Clean("/" + rest)
			}
			for ; ; inside = filepath.Dir(inside) {
				dirs = append(dirs, cgroupDir{filepath.Join(root, m.point, inside), v1})
				if inside == "/" {
					break
				}
			}
		}
	}
	return dirs
}

func cgroupMounts(root string) []cgroupMount {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return []cgroupMount{{root: "/", point: "/sys/fs/cgroup"}} // where it is on most machines
	}
	var mounts []cgroupMount
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 3 {
			continue
		}
		m := cgroupMount{root: unescapeMount(f[3]), point: unescapeMount(f[4])}
		switch g[0] {
		case "cgroup2":
		case "cgroup":
			m.v1, m.controllers = true, strings.Split(g[2], ",")
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func shareOne(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// memory is the group's limit in bytes, 0 when it has none.
func (d cgroupDir) memory() uint64 {
	if d.v1 {
		if n := readNumber(filepath.Join(d.path, "memory.limit_in_bytes")); n < 1<<60 { // unlimited is 2^63 less a page
			return n
		}
		return 0
	}
	return readNumber(filepath.Join(d.path, "memory.max"))
}

// cpu is how many cores' worth of time the group may use, 0 when it is not limited.
func (d cgroupDir) cpu() float64 {
	if d.v1 {
		quota := readNumber(filepath.Join(d.path, "cpu.cfs_quota_us")) // -1, no limit, is read as 0
		period := readNumber(filepath.Join(d.path, "cpu.cfs_period_us"))
		if period == 0 {
			return 0
		}
		return float64(quota) / float64(period)
	}
	b, err := os.ReadFile(filepath.Join(d.path, "cpu.max")) // "QUOTA PERIOD", both µs, or "max PERIOD"
	if err != nil {
		return 0
	}
	var quota, period float64
	if n, _ := fmt.Sscan(string(b), &quota, &period); n != 2 || period <= 0 {
		return 0
	}
	return quota / period
}
