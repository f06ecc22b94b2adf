package rootless

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func TestStartupConf(t *testing.T) {
	sizes, err := Size(Host{MemoryLimit: 256 * mib}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Settings{
		"startup.conf": {Dir: "/run/user/1000/rlr/router1/vpp", Prefix: "rlr-0123456789abcdef", Sizes: sizes, Plugins: []string{"acl_plugin.so", "memif_plugin.so", "ping_plugin.so"}},
	} {
		got, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNoPathOutsideTheFolder(t *testing.T) {
	const dir = "/x/y"
	s := Settings{Dir: dir, Prefix: "p", Sizes: Sizes{Heap: minHeap, Stats: minStats, Buffers: usualBuffers}}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(text) {
		if strings.HasPrefix(word, "/") && !strings.HasPrefix(word, dir) {
			t.Errorf("path %s is not in the router's folder", word)
		}
	}
}

func TestSettingsThatVPPWouldMisread(t *testing.T) {
	good := Sizes{Heap: minHeap, Stats: minStats, Buffers: usualBuffers}
	for name, c := range map[string]struct {
		s    Settings
		want string
	}{
		"relative":   {Settings{Dir: "vpp", Prefix: "p", Sizes: good}, "absolute"},
		"space":      {Settings{Dir: "/a b/vpp", Prefix: "p", Sizes: good}, `" "`},
		"newline":    {Settings{Dir: "/a\nb/vpp", Prefix: "p", Sizes: good}, `"\n"`},
		"brace":      {Settings{Dir: "/a}b/vpp", Prefix: "p", Sizes: good}, `"}"`},
		"comment":    {Settings{Dir: "/a#b/vpp", Prefix: "p", Sizes: good}, `"#"`},
		"too long":   {Settings{Dir: "/" + strings.Repeat("d", 80), Prefix: "p", Sizes: good}, "107"},
		"no prefix":  {Settings{Dir: "/d", Sizes: good}, "prefix"},
		"no heap":    {Settings{Dir: "/d", Prefix: "p", Sizes: Sizes{Stats: minStats, Buffers: usualBuffers}}, "heap"},
		"no stats":   {Settings{Dir: "/d", Prefix: "p", Sizes: Sizes{Heap: minHeap, Buffers: usualBuffers}}, "stats"},
		"no buffers": {Settings{Dir: "/d", Prefix: "p", Sizes: Sizes{Heap: minHeap, Stats: minStats}}, "buffers"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.s.Text()
			contains(t, err, c.want)
		})
	}
}

func TestLongestAcceptedFolderTakesItsSockets(t *testing.T) {
	s := Settings{Prefix: "p", Sizes: Sizes{Heap: minHeap, Stats: minStats, Buffers: usualBuffers}}
	s.Dir = "/" + strings.Repeat("d", maxSocketPath-1-len("/app_ns_sockets/")-maxNamespace)
	if _, err := s.Text(); err != nil {
		t.Errorf("a folder of %d bytes is refused: %v", len(s.Dir), err)
	}
	s.Dir += "d"
	if _, err := s.Text(); err == nil {
		t.Errorf("a folder of %d bytes is accepted", len(s.Dir))
	}
}

func TestSharedPrefixIsTheFolders(t *testing.T) {
	if a, b := sharedPrefix("/a/vpp"), sharedPrefix("/b/vpp"); a == b {
		t.Errorf("two folders share the prefix %s", a)
	}
	if a, b := sharedPrefix("/a/vpp"), sharedPrefix("/a/vpp"); a != b {
		t.Errorf("one folder has the prefixes %s and %s", a, b)
	}
}
