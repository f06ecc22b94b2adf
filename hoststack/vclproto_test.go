package hoststack

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	ap4 = netip.MustParseAddrPort("10.0.0.1:179")
	ap6 = netip.MustParseAddrPort("[fe80::1]:179")
)

// sample messages of every kind.
var sample = []message{
	{Op: opReady},
	{Op: opDial, ID: 1, Local: ap6, Remote: ap6, Table: 7},
	{Op: opDial, ID: 1, Remote: ap4},
	{Op: opCancel, ID: 1},
	{Op: opListen, ID: 2, Local: netip.MustParseAddrPort("[::]:179")},
	{Op: opClose, ID: 2},
	{Op: opConnected, ID: 1, Local: ap4, Remote: ap4},
	{Op: opFailed, ID: 1, Errno: syscall.ECONNREFUSED, Text: "because"},
	{Op: opListening, ID: 2, Local: ap6},
	{Op: opAccepted, ID: acceptedID | 5, Listener: 2, Local: ap6, Remote: ap6},
	{Op: opEnded, ID: acceptedID | 5},
	{Op: opEnded, ID: 1, Errno: syscall.ECONNRESET},
}

func compareMessages(a, b message) string {
	return cmp.Diff(a, b, cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y }))
}

func TestMessagesSurvive(t *testing.T) {
	for _, m := range sample {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b)
		if diff := compareMessages(m, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", b, err, diff)
		}
	}
	long := message{Op: opFailed, ID: 1, Errno: syscall.EIO, Text: strings.Repeat("\x01", 10*maxMessage)} // six bytes each in JSON
	if b, err := long.encode(); err == nil && len(b) > maxMessage {
		t.Errorf("a message of %d bytes", len(b))
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{
		``, `null`, `{}`, `[]`, `{"op":"hello"}`, `{"op":"ready"}{"op":"ready"}`, `{"op":"ready","more":1}`, `{"op":"ready"} x`,
		`{"op":"dial","id":1}`,
		`{"op":"dial","id":0,"remote":"10.0.0.1:1"}`,
		`{"op":"dial","id":9223372036854775809,"remote":"10.0.0.1:1"}`,
		`{"op":"dial","id":1,"remote":"10.0.0.1:0"}`,
		`{"op":"dial","id":1,"remote":"0.0.0.0:1"}`,
		`{"op":"dial","id":1,"remote":"[::ffff:10.0.0.1]:1"}`,
		`{"op":"dial","id":1,"remote":"[fe80::1%eth0]:1"}`,
		`{"op":"dial","id":1,"remote":"10.0.0.1:1","local":"[::1]:0"}`,
		`{"op":"listen","id":1}`,
		`{"op":"listen","id":0,"local":"10.0.0.1:1"}`,
		`{"op":"listen","id":1,"local":"[fe80::1%eth0]:1"}`,
		`{"op":"connected","id":1,"remote":"10.0.0.1:1"}`,
		`{"op":"connected","id":9223372036854775809,"local":"10.0.0.2:1","remote":"10.0.0.1:1"}`,
		`{"op":"accepted","id":1,"listener":2,"local":"10.0.0.2:1","remote":"10.0.0.1:1"}`,
		`{"op":"accepted","id":9223372036854775809,"local":"10.0.0.2:1","remote":"10.0.0.1:1"}`,
		`{"op":"accepted","id":9223372036854775809,"listener":2,"local":"10.0.0.2:1"}`,
		`{"op":"failed","id":1,"errno":4096}`, `{"op":"failed","id":1,"errno":-1}`, `{"op":"failed","errno":5}`,
		`{"op":"ended","id":1,"errno":99999}`, `{"op":"ended"}`, `{"op":"cancel"}`, `{"op":"close","id":9223372036854775808}`,
		`{"op":"ready","id":18446744073709551616}`, `{"op":"ready","local":"x"}`,
	} {
		if m, err := decode([]byte(text)); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
}

// FuzzDecode looks for a message that is accepted and does not survive.
func FuzzDecode(f *testing.F) {
	for _, m := range sample {
		b, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"op":"dial","id":1,"remote":"10.0.0.1:1","local":":0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatal(err)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			if len(b) <= maxMessage/8 {
				t.Fatal(err)
			}
			return
		}
		got, err := decode(again)
		if len(m.Text) > maxText {
			m.Text, got.Text = "", ""
		}
		if diff := compareMessages(m, got); err != nil || diff != "" {
			t.Fatalf("%s: %v\n%s", again, err, diff)
		}
	})
}

func countFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestTakeMessage sends file descriptors along, and looks for those that are left open.
func TestTakeMessage(t *testing.T) {
	pipe := func() int {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(p[1])
		return p[0]
	}
	socket := func(domain, kind int) func() int {
		return func() int {
			fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	stream := socket(unix.AF_UNIX, unix.SOCK_STREAM)
	connected := message{Op: opConnected, ID: 1, Local: ap4, Remote: ap4}
	for _, test := range []struct {
		name string
		m    message
		fds  []func() int
		ok   bool
	}{
		{"as it should be", connected, []func() int{stream}, true},
		{"nothing to send", message{Op: opReady}, nil, true},
		{"none", connected, nil, false},
		{"two", connected, []func() int{stream, stream}, false},
		{"more than fit", connected, []func() int{
			stream, stream, stream, stream, stream, stream, stream, stream, stream, stream,
			stream, stream, stream, stream, stream, stream, stream, stream, stream, stream,
		}, false},
		{"not wanted", message{Op: opReady}, []func() int{stream}, false},
		{"a pipe", connected, []func() int{pipe}, false},
		{"packets", connected, []func() int{socket(unix.AF_UNIX, unix.SOCK_DGRAM)}, false},
		{"the kernel's TCP", connected, []func() int{socket(unix.AF_INET, unix.SOCK_STREAM)}, false},
		{"bad message", message{Op: opConnected}, []func() int{stream}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := countFiles(t)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			var fds []int
			for _, f := range test.fds {
				fds = append(fds, f())
			}
			b, err := test.m.encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendmsg(pair[0], b, unix.UnixRights(fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			buf, oob := make([]byte, maxMessage), make([]byte, 64)
			n, oobn, flags, _, err := unix.Recvmsg(pair[1], buf, oob, unix.MSG_CMSG_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			m, fd, err := takeMessage(buf[:n], oob[:oobn], flags)
			if (err == nil) != test.ok || err != nil && (!errors.Is(err, errProtocol) || fd != -1) {
				t.Errorf("%+v, %d, %v", m, fd, err)
			}
			for _, f := range append(fds, pair[0], pair[1], fd) {
				if f >= 0 {
					_ = unix.Close(f)
				}
			}
			if after := countFiles(t); after != before {
				t.Errorf("%d files open before, %d after", before, after)
			}
		})
	}
}

func TestVCLConfigIsInLines(t *testing.T) {
	want := "vcl {\n" +
		"  app-socket-api /run/r1/vpp/app_ns_sockets/r1-0-if\n" +
		"  namespace-id r1-0-if\n" +
		"  namespace-secret 42\n" +
		"  app-scope-global\n" +
		"  use-mq-eventfd\n" +
		"  heapsize 32M\n" +
		"  segment-size 67108864\n" +
		"  add-segment-size 67108864\n" +
		"  rx-fifo-size 1048576\n" +
		"  tx-fifo-size 1048576\n" +
		"  session-timeout 10.0\n" +
		"  app-timeout 10.0\n" +
		"}\n"
	if diff := cmp.Diff(want, vclConfig("/run/r1/vpp/app_ns_sockets/r1-0-if", "r1-0-if", 42)); diff != "" {
		t.Error(diff)
	}
	if text := vclConfig("/x/default", "default", 42); strings.Contains(text, "namespace") {
		t.Error(text)
	}
}

func TestNamespaceID(t *testing.T) {
	for key, want := range map[slotKey]string{
		{}: "default", {bound: true}: "r1-0-if", {table: 10}: "r1-10", {table: 10, bound: true}: "r1-10-if",
	} {
		if got := namespaceID("r1", key); got != want {
			t.Errorf("%+v: %s, want %s", key, got, want)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		library, vpp string
		ok           bool
	}{
		{"libvppcom.so.26.06", "26.06-release", true},
		{"libvppcom.so.26.06", "v26.06-rc0~123-gabc", true},
		{"libvppcom.so.26.06", "", true},
		{"libvppcom.so.26.06", "built at home", true},
		{"libvppcom.so", "26.06-release", true},
		{"libvppcom.so.25.10", "26.06-release", false},
		{"libvppcom.so.25.10", "26.10-rc0~1", false},
		{"libvppcom.so.25.10.0", "25.10.1-5~g1", true},
	} {
		path := filepath.Join(dir, test.library)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkVersion(path, test.vpp); (err == nil) != test.ok {
			t.Errorf("%s with VPP %q: %v", test.library, test.vpp, err)
		}
	}
}
