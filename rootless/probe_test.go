package rootless

import (
	"os"
	"path/filepath"
	"testing"
)

// tree writes files below a new folder that stands for "/".
func tree(t *testing.T, files map[string]string) string {
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
	root := tree(t, map[string]string{
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
	root := tree(t, map[string]string{"good/bin/vpp": "#!/bin/sh\n", "notexec/bin/vpp": "x"})
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
