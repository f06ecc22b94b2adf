package rootless

import (
	"os"
	"path/filepath"
	"testing"
)

// makeTree writes files below a new folder that stands for "/".
func makeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestProbeReadsTheInnermostAndOuterLimits(t *testing.T) {
	root := makeTree(t, map[string]string{
		"proc/self/status":                          "Name:\tx\nCapEff:\t0000000000003000\nNoNewPrivs:\t1\n",
		"proc/self/cgroup":                          "0::/a/b\n",
		"proc/meminfo":                              "MemTotal:       1024000 kB\nHugePages_Free:    3\n",
		"sys/fs/cgroup/a/b/memory.max":              "max\n",
		"sys/fs/cgroup/a/memory.max":                "268435456\n",
		"sys/fs/cgroup/a/b/cpu.max":                 "50000 100000\n",
		"proc/sys/user/max_user_namespaces":         "1000\n",
		"proc/sys/kernel/unprivileged_userns_clone": "0\n",
	})
	h := Probe(root)
	if h.MemoryLimit != 268435456 {
		t.Errorf("memory limit %d, want that of the outer cgroup", h.MemoryLimit)
	}
	if h.CPUQuota != 0.5 {
		t.Errorf("cpu quota %v, want 0.5", h.CPUQuota)
	}
	if h.CapabilityCount() != 2 || !h.NoNewPrivs || h.HugepagesFree != 3 {
		t.Errorf("got %+v", h)
	}
	if h.TunDevice != Absent || h.UserNamespaces != Denied {
		t.Errorf("tun %v, user namespaces %v; want absent, denied", h.TunDevice, h.UserNamespaces)
	}
}

func TestProbeFindsControlGroupsWhereTheyAreMounted(t *testing.T) {
	const v1Mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"33 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	for name, c := range map[string]struct {
		files  map[string]string
		memory uint64
		cpu    float64
	}{
		"version 1": {map[string]string{
			"proc/self/mountinfo": v1Mounts, "proc/self/cgroup": "4:memory:/a/b\n1:cpu,cpuacct:/a\n0::/\n",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":     "268435456\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       "9223372036854771712\n",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us":     "150000\n",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us":    "100000\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":       "-1\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us":      "100000\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":     "1\n", // not ours
			"sys/fs/cgroup/unified/memory.max":                 "max\n",
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us":     "1\n",
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us":    "100000\n",
			"sys/fs/cgroup/memory/a/b/c/memory.limit_in_bytes": "1\n",
		}, 256 << 20, 1.5},
		"container that sees its group under its full name": {map[string]string{
			"proc/self/mountinfo":                        "40 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20, 0},
		"group outside of what is mounted": {map[string]string{
			"proc/self/mountinfo":                        "40 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"proc/self/cgroup":                           "4:memory:/other\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, 128 << 20, 0},
		"version 2 in an odd place": {map[string]string{
			"proc/self/mountinfo":    `40 31 0:32 / /my\040groups rw - cgroup2 cgroup2 rw` + "\n",
			"proc/self/cgroup":       "0::/a\n",
			"my groups/a/memory.max": "134217728\n",
			"my groups/a/cpu.max":    "max 100000\n",
		}, 128 << 20, 0},
		"nonsense": {map[string]string{
			"proc/self/mountinfo": "x\n - \n1 2 3 4 5 - cgroup\n", "proc/self/cgroup": "::\nx\n0::/a\n",
		}, 1000 << 20, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.files["proc/meminfo"] = "MemTotal: 1024000 kB\n"
			h := Probe(makeTree(t, c.files))
			if h.MemoryLimit != c.memory || h.CPUQuota != c.cpu {
				t.Errorf("memory %d MiB, %v cores; want %d MiB, %v", h.MemoryLimit>>20, h.CPUQuota, c.memory>>20, c.cpu)
			}
		})
	}
}

func TestProbeOfAnEmptyHostIsUnknownNotWrong(t *testing.T) {
	h := Probe(t.TempDir())
	if h.MemoryLimit != 0 || h.CPUQuota != 0 || h.UserNamespaces != Absent {
		t.Errorf("got %+v", h)
	}
	for _, f := range h.Findings() {
		if f.Value == "" || f.Consequence == "" {
			t.Errorf("finding without words: %+v", f)
		}
	}
}

func TestFindVPP(t *testing.T) {
	root := makeTree(t, map[string]string{"good/bin/vpp": "#!/bin/sh\n", "notexec/bin/vpp": "x"})
	if err := os.Chmod(filepath.Join(root, "good/bin/vpp"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(root, "good/bin"))
	for prefix, want := range map[string]string{
		"good":    filepath.Join(root, "good/bin/vpp"),
		"notexec": "", // a prefix that holds none is not answered from PATH
		"missing": "",
	} {
		t.Setenv("VPP_PREFIX", filepath.Join(root, prefix))
		if got := FindVPP(); got != want {
			t.Errorf("VPP_PREFIX=%s: %q, want %q", prefix, got, want)
		}
	}
	t.Setenv("VPP_PREFIX", "")
	if got, want := FindVPP(), filepath.Join(root, "good/bin/vpp"); got != want {
		t.Errorf("PATH: %q, want %q", got, want)
	}
}

func TestLowMemoryIsSaid(t *testing.T) {
	for _, f := range (Host{MemoryLimit: 32 << 20}).Findings() {
		if f.Subject == "memory" {
			if f.OK || f.Cure == "" {
				t.Errorf("32 MiB called fine: %+v", f)
			}
			return
		}
	}
	t.Error("no finding about memory")
}

// install makes the files of a VPP installation and returns its binary.
func install(t *testing.T, files ...string) string {
	t.Helper()
	tree := map[string]string{"bin/vpp": "#!/bin/sh\n"}
	for _, f := range files {
		tree[f] = ""
	}
	root := makeTree(t, tree)
	return filepath.Join(root, "bin/vpp")
}

func TestFindLibrary(t *testing.T) {
	for name, c := range map[string]struct {
		files         []string
		want, version string
	}{
		"packages": {[]string{"lib/x86_64-linux-gnu/libvppcom.so.26.06", "lib/x86_64-linux-gnu/libvnet.so.26.06"}, "lib/x86_64-linux-gnu/libvppcom.so.26.06", "26.06"},
		"headers":  {[]string{"lib/aarch64-linux-gnu/libvppcom.so.26.06", "lib/aarch64-linux-gnu/libvppcom.so"}, "lib/aarch64-linux-gnu/libvppcom.so", ""},
		"two":      {[]string{"lib/libvppcom.so.25.10", "lib/libvppcom.so.26.06"}, "lib/libvppcom.so.26.06", ""},
		"lib64":    {[]string{"lib64/libvppcom.so.26.06", "lib64/libvnet.so.26.06"}, "lib64/libvppcom.so.26.06", "26.06"},
		"others":   {[]string{"lib/libvppcomX.so", "lib/libvnet.so"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			binary := install(t, c.files...)
			got, err := FindLibrary(binary)
			if c.want == "" {
				contains(t, err, "libvppcom.so", binary)
			} else if want := filepath.Join(filepath.Dir(filepath.Dir(binary)), c.want); got != want || err != nil {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			if got := VPPVersion(binary); got != c.version {
				t.Errorf("release %q, want %q", got, c.version)
			}
		})
	}
}

func TestPlugins(t *testing.T) {
	const dir = "lib/x86_64-linux-gnu/vpp_plugins/"
	got, err := availablePlugins(install(t, dir+"memif_plugin.so", dir+"ping_plugin.so", dir+"dpdk_plugin.so"))
	if err != nil || len(got) != 2 || got[0] != "memif_plugin.so" || got[1] != "ping_plugin.so" {
		t.Errorf("%v, %v; want those that are there and are used", got, err)
	}
	_, err = availablePlugins(install(t, dir+"ping_plugin.so"))
	contains(t, err, "memif_plugin.so", "vpp-plugin-core")
	if got, err := availablePlugins(install(t)); err != nil || len(got) != len(plugins) {
		t.Errorf("%v, %v; want all when the folder is not known", got, err)
	}
}

func TestDoctorOnVPP(t *testing.T) {
	const plugin = "lib/vpp_plugins/memif_plugin.so"
	good := Host{VPP: install(t, plugin, "lib/libvppcom.so"), VPPLibrary: "/lib/libvppcom.so", MemoryLimit: 512 << 20, SharedMemory: Available}
	if _, err := good.CheckVPP(0); err != nil {
		t.Errorf("refused: %v", err)
	}
	for name, c := range map[string]struct {
		change        func(*Host)
		subject, want string
	}{
		"little memory": {func(h *Host) { h.MemoryLimit = 64 << 20 }, "memory", "176 MiB"},
		"no library":    {func(h *Host) { h.VPPLibrary = "" }, "libvppcom", "install"},
		"no /dev/shm":   {func(h *Host) { h.SharedMemory = Denied }, "/dev/shm", "tmpfs"},
		"no memif":      {func(h *Host) { h.VPP = install(t, "lib/vpp_plugins/x.so") }, "vpp", "memif_plugin.so"},
		"no vpp":        {func(h *Host) { h.VPP = "" }, "", "VPP_PREFIX"},
	} {
		t.Run(name, func(t *testing.T) {
			h := good
			c.change(&h)
			_, err := h.CheckVPP(0)
			contains(t, err, c.want)
			for _, f := range h.Findings() {
				if f.OK == (f.Subject == c.subject) {
					t.Errorf("finding %+v", f)
				}
				if !f.OK && f.Cure == "" {
					t.Errorf("no cure: %+v", f)
				}
			}
		})
	}
}
