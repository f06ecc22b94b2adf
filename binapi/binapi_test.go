package binapi

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/codec"
)

// without is a VPP that lacks some messages.
type without map[string]bool

func (w without) GetMessageID(m api.Message) (uint16, error) {
	if w[m.GetMessageName()] {
		return 0, &adapter.UnknownMsgError{MsgName: m.GetMessageName(), MsgCrc: m.GetCrcString()}
	}
	return 1, nil
}

func TestMessagesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Messages() {
		if seen[m.GetMessageName()] {
			t.Errorf("%s is listed twice", m.GetMessageName())
		}
		seen[m.GetMessageName()] = true
	}
	// A request whose answer is not checked would fail at its first use instead of at connect.
	for name := range seen {
		switch {
		case strings.HasSuffix(name, "_dump") && !seen[strings.TrimSuffix(name, "_dump")+"_details"]:
			t.Errorf("%s is listed without its details", name)
		case strings.HasSuffix(name, "_reply") && !seen[strings.TrimSuffix(name, "_reply")]:
			t.Errorf("%s is listed without its request", name)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name     string
		missing  without
		rows     int
		required bool
		lacks    []Feature
	}{
		{"all there", without{}, 0, false, nil},
		{"no memif plugin", without{"memif_create_v2": true, "memif_dump": true}, 2, false, []Feature{Memif}},
		{"no routes", without{"ip_route_add_del_v2": true}, 1, true, []Feature{Route}},
		{"both", without{"ip_route_add_del_v2": true, "memif_dump": true}, 2, true, []Feature{Memif, Route}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			report, err := Check(t.Context(), tt.missing, "")
			var incompatible *IncompatibleError
			if errors.As(err, &incompatible) != tt.required {
				t.Fatalf("error %v, want incompatible: %v", err, tt.required)
			}
			if len(report.Rows) != tt.rows {
				t.Errorf("%d rows, want %d: %+v", len(report.Rows), tt.rows, report.Rows)
			}
			var lacks []Feature
			for _, g := range Groups() {
				if !report.Supports(g.Feature) {
					lacks = append(lacks, g.Feature)
				}
			}
			if d := cmp.Diff(tt.lacks, lacks); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCheckOtherError(t *testing.T) {
	boom := errors.New("boom")
	if _, err := Check(t.Context(), failing{boom}, ""); !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
}

type failing struct{ err error }

func (f failing) GetMessageID(api.Message) (uint16, error) { return 0, f.err }

// serve answers one handshake on a socket with a reply, and returns the socket's path.
func serve(t *testing.T, reply []byte) string {
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var header [FrameHeader]byte
		if _, err := io.ReadFull(c, header[:]); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(header[8:12])))
		_, _ = c.Write(reply)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

func frame(t *testing.T, m api.Message) []byte {
	data, err := codec.EncodeMsg(m, 16)
	if err != nil {
		t.Fatal(err)
	}
	out := append(make([]byte, FrameHeader), data...)
	binary.BigEndian.PutUint32(out[8:12], uint32(len(data)))
	return out
}

func TestCheckTellsChangedFromMissing(t *testing.T) {
	socket := serve(t, frame(t, &memclnt.SockclntCreateReply{
		Count: 2,
		MessageTable: []memclnt.MessageTableEntry{
			{Index: 100, Name: "ip_route_add_del_0badcafe"},
			{Index: 101, Name: "ip_route_add_del_v2_deadbeef"},
		},
	}))
	report, err := Check(t.Context(), without{"ip_route_add_del_v2": true, "memif_dump": true}, socket)
	var incompatible *IncompatibleError
	if !errors.As(err, &incompatible) {
		t.Fatalf("error %v", err)
	}
	found := map[string]string{}
	for _, row := range report.Rows {
		found[row.Message] = row.Found
	}
	if d := cmp.Diff(map[string]string{"ip_route_add_del_v2": "deadbeef", "memif_dump": ""}, found); d != "" {
		t.Error(d)
	}
	for _, want := range []string{"1 of the messages", "ip_route_add_del_v2, wanted ", ", found deadbeef"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %s", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %s", err)
	}
}

func TestReadMessageTableRefusesNonsense(t *testing.T) {
	huge := make([]byte, FrameHeader)
	binary.BigEndian.PutUint32(huge[8:12], 1<<31)
	short := append(make([]byte, FrameHeader), 0, 16)
	binary.BigEndian.PutUint32(short[8:12], 2)
	for name, reply := range map[string][]byte{
		"huge": huge, "short": short, "cut": {0, 0, 0}, "refused": frame(t, &memclnt.SockclntCreateReply{Response: -1}),
	} {
		t.Run(name, func(t *testing.T) {
			if table, err := ReadMessageTable(t.Context(), serve(t, reply)); err == nil {
				t.Errorf("no error; table %v", table)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadMessageTable(ctx, serve(t, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancel", err)
	}
}

func FuzzDecodeTable(f *testing.F) {
	data, _ := codec.EncodeMsg(&memclnt.SockclntCreateReply{
		Count:        1,
		MessageTable: []memclnt.MessageTableEntry{{Index: 100, Name: "control_ping_51077d14"}},
	}, 16)
	f.Add(data)
	f.Add([]byte{0, 16})
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = decodeTable(data) })
}

func TestPrefixesBothWays(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0/0", "10.1.2.3/24", "192.0.2.1/32", "::/0", "fe80::1/64", "2001:db8::/128", "::ffff:1.2.3.4/128",
	} {
		p := netip.MustParsePrefix(s)
		if got := FromPrefix(ToPrefix(p)); got != p {
			t.Errorf("%s came back as %s", p, got)
		}
		if got := FromAddressWithPrefix(ToAddressWithPrefix(p)); got != p {
			t.Errorf("%s came back as %s", p, got)
		}
		if got := FromAddress(ToAddress(p.Addr())); got != p.Addr() {
			t.Errorf("%s came back as %s", p.Addr(), got)
		}
		// govpp's own text form is the witness that both ends are not wrong alike.
		if w, err := ip_types.ParsePrefix(s); err != nil || w != ToPrefix(p) && !p.Addr().Is4In6() {
			t.Errorf("%s: %v, govpp has %v (%v)", p, ToPrefix(p), w, err)
		}
	}
	if got := FromAddress(ToAddress(netip.MustParseAddr("fe80::1%eth0"))); got != netip.MustParseAddr("fe80::1") {
		t.Errorf("with a zone: %s", got)
	}
}

func TestNonsenseFromVPPIsInvalid(t *testing.T) {
	if p := FromPrefix(ip_types.Prefix{Address: ip_types.Address{Af: ip_types.ADDRESS_IP4}, Len: 33}); p.IsValid() {
		t.Errorf("/33 became %s", p)
	}
	if a := FromAddress(ip_types.Address{Af: 7}); a.IsValid() {
		t.Errorf("family 7 became %s", a)
	}
}

func TestPathsBothWays(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name  string
		path  Path
		dst   netip.Addr
		proto fib_types.FibPathNhProto
	}{
		{"attached next hop", Path{Addr: v4, SwIfIndex: 3, Weight: 1}, v4, fib_types.FIB_API_PATH_NH_PROTO_IP4},
		{"IPv4 over IPv6", Path{Addr: v6, SwIfIndex: 3, Weight: 2}, v4, fib_types.FIB_API_PATH_NH_PROTO_IP6},
		{"recursive", Path{Addr: v6, SwIfIndex: AnyInterface, TableID: 10, Weight: 1}, v6, fib_types.FIB_API_PATH_NH_PROTO_IP6},
		{"attached", Path{SwIfIndex: 3, Weight: 1}, v6, fib_types.FIB_API_PATH_NH_PROTO_IP6},
		{"drop", Path{Type: fib_types.FIB_API_PATH_TYPE_DROP, SwIfIndex: AnyInterface, Weight: 1}, v4, fib_types.FIB_API_PATH_NH_PROTO_IP4},
		{"local", Path{Type: fib_types.FIB_API_PATH_TYPE_LOCAL, SwIfIndex: AnyInterface, Weight: 1}, v6, fib_types.FIB_API_PATH_NH_PROTO_IP6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wire := ToPath(tt.path, tt.dst)
			if wire.Proto != tt.proto {
				t.Errorf("protocol %s, want %s", wire.Proto, tt.proto)
			}
			got, err := FromPath(wire)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.path {
				t.Errorf("came back as %+v, want %+v", got, tt.path)
			}
		})
	}
	if got := ToPath(Path{Type: fib_types.FIB_API_PATH_TYPE_DROP}, v4); got.SwIfIndex != AnyInterface || got.Weight != 1 {
		t.Errorf("a drop path has interface %d and weight %d", got.SwIfIndex, got.Weight)
	}
}

func TestUnsupportedPaths(t *testing.T) {
	for name, in := range map[string]fib_types.FibPath{
		"labels": {NLabels: 1}, "tunnel": {Type: fib_types.FIB_API_PATH_TYPE_UDP_ENCAP},
		"MPLS": {Proto: fib_types.FIB_API_PATH_NH_PROTO_MPLS}, "no such type": {Type: 99},
	} {
		if _, err := FromPath(in); !errors.Is(err, ErrPath) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestMAC(t *testing.T) {
	if got := ToMAC(net.HardwareAddr{2, 1, 2, 3, 4, 5}); got.String() != "02:01:02:03:04:05" {
		t.Errorf("%s", got)
	}
	if got := ToMAC([]byte{1, 2}); got != (ToMAC(nil)) {
		t.Errorf("a short address became %s", got)
	}
}
