// The text of VPP's startup.conf, from settings to bytes and nothing else, so that a test can compare it whole.
//
// Three choices need a reason. Every path is in the router's own folder and the shared-memory prefix is the folder's own, so
// that two routers on one machine, or a router and a system's VPP, never meet. `page-size 4k` for buffers keeps VPP from
// asking for hugepages, which would be taken from the whole machine where they are allowed. The session layer's hash tables
// are made for a few BGP sessions instead of VPP's tens of thousands: each app namespace costs a pair of them.

package rootless

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxSocketPath is sun_path of unix(7) without its terminating zero.
const maxSocketPath = 107

// maxNamespace is the longest name of an app namespace that still gets a socket in a folder that was accepted.
const maxNamespace = 16

// Sockets are the unix sockets that a VPP opens.
type Sockets struct {
	API, Stats, CLI string
	Apps            string // folder with a socket per app namespace, named after it; the default one is "default"
}

// Settings is what a startup.conf says.
type Settings struct {
	Dir     string   // VPP's own folder: absolute; all sockets are in it
	Prefix  string   // of the names of its shared memory under /dev/shm
	Sizes   Sizes    // of heap, buffers and stats segment
	Plugins []string // file names; all others are disabled
}

// Plugins are the plugins that rlr uses, of those that a VPP may have.
var plugins = []string{
	"abf_plugin.so", aclPlugin, "memif_plugin.so", "mss_clamp_plugin.so", "ping_plugin.so", "urpf_plugin.so",
}

// aclPlugin has settings, which a VPP without it would not understand.
const aclPlugin = "acl_plugin.so"

// needed cannot be done without.
const neededPlugin = "memif_plugin.so"

// SocketsIn returns the sockets of a VPP whose folder is dir.
func SocketsIn(dir string) Sockets {
	return Sockets{
		API:   filepath.Join(dir, "api.sock"),
		Stats: filepath.Join(dir, "stats.sock"),
		CLI:   filepath.Join(dir, "cli.sock"),
		Apps:  filepath.Join(dir, "app_ns_sockets"),
	}
}

// check refuses what VPP would misread or the kernel would refuse.
func (s Settings) check() error {
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("vpp folder %q is not an absolute path", s.Dir)
	}
	// VPP splits its configuration at white space, nests by braces, and has no quotes.
	if i := strings.IndexFunc(s.Dir, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("{}#,\"'", r) || r < ' ' }); i >= 0 {
		return fmt.Errorf("vpp folder %q: VPP cannot take a path with %q in it", s.Dir, s.Dir[i:i+1])
	}
	if longest := filepath.Join(SocketsIn(s.Dir).Apps, strings.Repeat("n", maxNamespace)); len(longest) > maxSocketPath {
		return fmt.Errorf("vpp folder %s is too long: its sockets' paths would have %d bytes, and the kernel takes %d; set XDG_RUNTIME_DIR to a shorter path",
			s.Dir, len(longest), maxSocketPath)
	}
	if s.Prefix == "" {
		return fmt.Errorf("vpp in %s has no prefix for its shared memory", s.Dir)
	}
	return s.Sizes.check()
}

// Text returns the startup.conf.
func (s Settings) Text() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	sock := SocketsIn(s.Dir)
	var b strings.Builder
	b.WriteString("# written by rlr at each start of VPP\n")
	section(&b, "unix", "nodaemon", "nosyslog", "nocolor", "nobanner", "cli-no-pager", "runtime-dir "+s.Dir, "cli-listen "+sock.CLI)
	section(&b, "api-segment", "prefix "+s.Prefix)
	section(&b, "socksvr", "socket-name "+sock.API)
	section(&b, "statseg", "socket-name "+sock.Stats, "size "+mebibytes(s.Sizes.Stats), "page-size 4k")
	section(&b, "memory", "main-heap-size "+mebibytes(s.Sizes.Heap), "main-heap-page-size 4k")
	section(&b, "buffers", fmt.Sprintf("buffers-per-numa %d", s.Sizes.Buffers), "default data-size 2048", "page-size 4k")
	// Without use-private-rx-mqs the session node polls for ever. What an idle VPP takes with it is in calm.go.
	section(&b, "session", "enable", "use-app-socket-api", "use-private-rx-mqs",
		"v4-session-table-buckets 1024", "v4-session-table-memory 16M", "v4-halfopen-table-buckets 256", "v4-halfopen-table-memory 4M",
		"v6-session-table-buckets 1024", "v6-session-table-memory 16M", "v6-halfopen-table-buckets 256", "v6-halfopen-table-memory 4M",
		"local-endpoints-table-buckets 256", "local-endpoints-table-memory 4M")
	// VPP gives up a connection 2 s after the peer's FIN, whatever is still to be sent; other states have a minute.
	section(&b, "tcp", "closewait-time 60")
	if slices.Contains(s.Plugins, aclPlugin) {
		n := s.Sizes.reflections()
		section(&b, "acl-plugin", fmt.Sprintf("connection count max %d", n), fmt.Sprintf("connection hash buckets %d", 1<<(bits.Len(uint(n))-2)))
	}
	load := []string{"vat-path " + filepath.Join(s.Dir, "none"), "plugin default { disable }"} // the test programs' plugins are of no use
	for _, p := range s.Plugins {
		load = append(load, "plugin "+p+" { enable }")
	}
	section(&b, "plugins", load...)
	return b.String(), nil
}

func section(b *strings.Builder, name string, lines ...string) {
	b.WriteString(name + " {\n")
	for _, l := range lines {
		b.WriteString("  " + l + "\n")
	}
	b.WriteString("}\n")
}

func mebibytes(n uint64) string { return strconv.FormatUint(n>>20, 10) + "M" }

// sharedPrefix names the shared memory of the VPP in dir: the same at each start, so that what a killed one left is found,
// and another user's or another folder's never is.
func sharedPrefix(dir string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(os.Geteuid()) + ":" + dir))
	return "rlr-" + hex.EncodeToString(sum[:8])
}
