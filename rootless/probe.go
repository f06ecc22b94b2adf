// Package rootless knows what an unprivileged process may do on this host, and runs VPP within it.
//
// Probe reads only files under /proc, /sys and /dev, changes nothing, and needs no privilege. What it cannot read it reports
// as unknown rather than guessing.
package rootless

import (
	"errors"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what Probe found.
type Host struct {
	UID            int
	Capabilities   uint64  // effective set, bit n is capability n (capabilities(7))
	NoNewPrivs     bool    // prctl(2) PR_SET_NO_NEW_PRIVS
	Cores          int     // that this process may run on
	CPUQuota       float64 // cores' worth of time that the cgroup allows; 0: no limit
	MemoryLimit    uint64  // bytes: the smaller of the cgroup's limit and the machine's memory; 0: unknown
	HugepagesFree  int     // of the default size
	TunDevice      Access  // /dev/net/tun
	UserNamespaces Access
	SharedMemory   Access // /dev/shm, where VPP keeps a part of its API
	VPP            string // path of a vpp binary; empty: none found
	VPPVersion     string // release, such as 26.06; empty: unknown
	VPPLibrary     string // path of its libvppcom; empty: none found
}

// Access says whether something can be used.
type Access uint8

const (
	Unknown Access = iota
	Available
	Denied
	Absent
)

func (a Access) String() string {
	switch a {
	case Available:
		return "available"
	case Denied:
		return "denied"
	case Absent:
		return "absent"
	}
	return "unknown"
}

// Probe looks at the host. root is "/" outside tests; the process's own limits come from the kernel in any case.
func Probe(root string) Host {
	h := Host{UID: os.Geteuid(), Cores: runtime.NumCPU()}
	status := readFields(filepath.Join(root, "proc/self/status"))
	h.Capabilities, _ = strconv.ParseUint(status["CapEff"], 16, 64)
	h.NoNewPrivs = status["NoNewPrivs"] == "1"
	meminfo := readFields(filepath.Join(root, "proc/meminfo"))
	h.MemoryLimit = kilobytes(meminfo["MemTotal"])
	h.HugepagesFree, _ = strconv.Atoi(meminfo["HugePages_Free"])
	for _, dir := range cgroupDirs(root) {
		if n := dir.memory(); n > 0 && (h.MemoryLimit == 0 || n < h.MemoryLimit) {
			h.MemoryLimit = n
		}
		if q := dir.cpu(); q > 0 && (h.CPUQuota == 0 || q < h.CPUQuota) {
			h.CPUQuota = q
		}
	}
	h.SharedMemory = access(filepath.Join(root, "dev/shm"))
	h.TunDevice = access(filepath.Join(root, "dev/net/tun"))
	h.UserNamespaces = userNamespaces(root)
	if h.VPP = FindVPP(); h.VPP != "" {
		h.VPPVersion = VPPVersion(h.VPP)
		h.VPPLibrary, _ = FindLibrary(h.VPP)
	}
	return h
}

// CapabilityCount is how many capabilities are in the effective set.
func (h Host) CapabilityCount() int { return bits.OnesCount64(h.Capabilities) }

// FindVPP returns the path of the vpp binary: of $VPP_PREFIX/bin, else of PATH, else of the usual places (/usr, /usr/local,
// /opt/vpp*); empty when there is none. A VPP_PREFIX without a vpp in it means none, so that a mistyped prefix is not answered with another VPP.
func FindVPP() string {
	if prefix, ok := os.LookupEnv("VPP_PREFIX"); ok && prefix != "" {
		return firstExecutable([]string{filepath.Join(prefix, "bin")})
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	opt, _ := filepath.Glob("/opt/vpp*/bin")
	slices.Sort(opt)
	slices.Reverse(opt) // the newest release first
	return firstExecutable(append(append(dirs, "/usr/bin", "/usr/local/bin"), opt...))
}

func firstExecutable(dirs []string) string {
	for _, dir := range dirs {
		p := filepath.Join(dir, "vpp")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	return ""
}

func userNamespaces(root string) Access {
	if b, err := os.ReadFile(filepath.Join(root, "proc/sys/user/max_user_namespaces")); err == nil {
		if strings.TrimSpace(string(b)) == "0" {
			return Denied
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		return Absent
	}
	// Debian's and Ubuntu's own switches; absent elsewhere.
	if b, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/unprivileged_userns_clone")); err == nil && strings.TrimSpace(string(b)) == "0" {
		return Denied
	}
	if b, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns")); err == nil && strings.TrimSpace(string(b)) == "1" {
		return Denied
	}
	return Available
}

func access(path string) Access {
	switch err := unix.Access(path, unix.R_OK|unix.W_OK); {
	case err == nil:
		return Available
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return Absent
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		return Denied
	}
	return Unknown
}

// readFields reads a file of "Name: value" lines.
func readFields(path string) map[string]string {
	m := make(map[string]string)
	b, err := os.ReadFile(path)
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			m[name] = strings.TrimSpace(value)
		}
	}
	return m
}

// kilobytes converts "123 kB" to bytes.
func kilobytes(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSuffix(s, " kB"), 10, 54)
	if err != nil {
		return 0
	}
	return n * 1024
}

func readNumber(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64) // "max" is 0: no limit
	return n
}
