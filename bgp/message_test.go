package bgp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"rlr/hoststack"
)

// This fails when GoBGP's accept channel changes its name, type or meaning.
func TestInjection(t *testing.T) {
	if err := checkInjection(); err != nil {
		t.Fatal(err)
	}
	s := server.NewBgpServer()
	defer s.Stop()
	ch, err := injector(s)
	if err != nil {
		t.Fatal(err)
	}
	field := reflect.ValueOf(s).Elem().FieldByName(acceptField)
	if field.Pointer() != reflect.ValueOf(ch).Pointer() {
		t.Error("GoBGP does not have the channel that it was given")
	}
	go s.Serve()
	one, other := net.Pipe()
	ch <- one // from a stranger: GoBGP closes it
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("GoBGP does not read the channel: %v", err)
	}
}

func TestNoticeText(t *testing.T) {
	for _, c := range []struct {
		body []byte
		want string
	}{
		{nil, "malformed NOTIFICATION"},
		{[]byte{6}, "malformed NOTIFICATION"},
		{[]byte{4, 0}, "Hold Timer Expired"},
		{[]byte{6, 2}, "Cease: Administrative Shutdown"},
		{append([]byte{6, 2}, shutdownCommunication("back at noon")...), `Cease: Administrative Shutdown "back at noon"`},
		{[]byte{6, 2, 9, 'x'}, "Cease: Administrative Shutdown"},
		{[]byte{6, 4, 3, 'a', 0x1b, 'b'}, `Cease: Administrative Reset "ab"`},
		{[]byte{6, 2, 2, 0xff, 'b'}, `Cease: Administrative Shutdown "?b"`},
		{[]byte{6, 7}, "Cease: Connection Collision Resolution"},
		{[]byte{6, 99}, "Cease: subcode 99"},
		{[]byte{2, 8}, "OPEN Message Error: subcode 8"},
		{[]byte{2, 2, 0, 1}, "OPEN Message Error: Bad Peer AS (peer AS 65009, expected 65002)"},
		{[]byte{3, 11}, "UPDATE Message Error: Malformed AS_PATH"},
		{[]byte{99, 1}, "error code 99, subcode 1"},
	} {
		if got := noticeText(c.body, 65002, 65009); got != c.want {
			t.Errorf("%x: %q, want %q", c.body, got, c.want)
		}
	}
}

func TestShutdownCommunication(t *testing.T) {
	if got := shutdownCommunication(""); got != nil {
		t.Errorf("%x for no text", got)
	}
	long := shutdownCommunication(strings.Repeat("ü", 200))
	if int(long[0]) != len(long)-1 || len(long) != 255 || communication(long) != strings.Repeat("ü", 127) {
		t.Errorf("a long text becomes %d bytes, %q", len(long), communication(long))
	}
}

func TestDominates(t *testing.T) {
	for _, c := range []struct {
		id   string
		as   uint32
		peer openInfo
		want bool
	}{
		{"10.0.0.2", 1, openInfo{id: 0x0a000001, as: 9}, true},
		{"10.0.0.1", 9, openInfo{id: 0x0a000002, as: 1}, false},
		{"200.0.0.1", 1, openInfo{id: 0x0a000002, as: 2}, true},
		{"10.0.0.1", 2, openInfo{id: 0x0a000001, as: 1}, true}, // RFC 6286
		{"10.0.0.1", 1, openInfo{id: 0x0a000001, as: 2}, false},
	} {
		if got := dominates(a(c.id), c.as, c.peer); got != c.want {
			t.Errorf("%s AS %d over %+v: %v", c.id, c.as, c.peer, got)
		}
	}
}

func TestDialErrorText(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "connection refused"},
		{fmt.Errorf("dial x: %w", &net.OpError{Op: "dial", Err: context.DeadlineExceeded}), "connection timed out"},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, "no route to host"},
		{&net.OpError{Op: "dial", Err: fmt.Errorf("interface tun9: %w", hoststack.ErrNoInterface)}, "interface tun9: no such interface in the dataplane"},
	} {
		if got := dialErrorText(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestParseOpen(t *testing.T) {
	if got := parseOpen(rawOpen(4242420001, "10.2.0.1", bothFamilies()...)); got == nil || got.as != 4242420001 || got.id != 0x0a020001 {
		t.Errorf("parsed %+v", got)
	}
}

// FuzzFirst is about what anybody may send us before anything else.
func FuzzFirst(f *testing.F) {
	f.Add([]byte{})
	f.Add(keepalive)
	f.Add(rawOpen(65002, "10.2.0.1", bothFamilies()...))
	f.Add(message(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2, 3, 'a', 'b'}))
	f.Add(message(bgp.BGP_MSG_OPEN, make([]byte, 12)))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := readFirst(bytes.NewReader(b))
		if len(first) > len(b) || !bytes.Equal(first, b[:len(first)]) {
			t.Fatalf("read %x of %x", first, b)
		}
		if err == nil && len(first) < headerLen {
			t.Fatalf("%d bytes taken for a message", len(first))
		}
		if err == nil {
			parseOpen(first)
			noticeText(first[headerLen:], 1, 2)
		}
	})
}

// FuzzTap checks that the tap sees the same messages however the stream is cut.
func FuzzTap(f *testing.F) {
	f.Add(append(slices.Clone(keepalive), message(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2, 1, 'x'})...), uint8(3))
	f.Add(message(bgp.BGP_MSG_NOTIFICATION, make([]byte, 300)), uint8(7))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n0123456789"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		see := func(chunk int) (seen []string) {
			var tp tap
			for part := range slices.Chunk(b, chunk) {
				tp.feed(part, func(typ uint8, notice []byte) {
					if len(notice) > maxNoticeKept {
						t.Fatalf("%d bytes of a NOTIFICATION kept", len(notice))
					}
					seen = append(seen, fmt.Sprintf("%d %x", typ, notice))
				})
			}
			return seen
		}
		whole, parts := see(max(len(b), 1)), see(int(step)+1)
		if !slices.Equal(whole, parts) {
			t.Fatalf("whole %q, in parts of %d %q", whole, int(step)+1, parts)
		}
	})
}
