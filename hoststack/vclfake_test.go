package hoststack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file has helpers that are no helpers: what the router does when one says what it cannot mean, or dies at a bad moment.

// TestMain is also the helper process, as "rlr vcl-helper" is in the program, and the false ones.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "vcl-helper" {
		if err := HelperMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "vcl-fake" {
		fakes[os.Args[2]](new(fake))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fake is the helper's side of the control socket.
type fake struct{}

func (f *fake) say(m message, fd int) {
	if err := sendMessage(3, m, fd); err != nil {
		os.Exit(1)
	}
}

// hear returns the router's next message of a kind, and ends the process with the router.
func (f *fake) hear(kind op) message {
	b := make([]byte, maxMessage)
	for {
		n, err := unix.Read(3, b)
		if err != nil || n == 0 {
			os.Exit(0)
		}
		if m, err := decode(b[:n]); err == nil && m.Op == kind {
			return m
		}
	}
}

func (f *fake) pair() (ours, theirs int) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		os.Exit(1)
	}
	return p[0], p[1]
}

// connect answers a dial as a helper does.
func (f *fake) connect() (id uint64, ours int) {
	m := f.hear(opDial)
	ours, theirs := f.pair()
	f.say(message{Op: opConnected, ID: m.ID, Local: fakeLocal, Remote: m.Remote}, theirs)
	_ = unix.Close(theirs)
	return m.ID, ours
}

var (
	fakeLocal  = netip.MustParseAddrPort("10.0.0.1:1000")
	fakeRemote = netip.MustParseAddrPort("10.0.0.2:179")
)

// fakes by name. Each begins as a process of its own.
var fakes = map[string]func(f *fake){
	"good": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		id, ours := f.connect()
		_, _ = unix.Write(ours, []byte("hello"))
		f.say(message{Op: opEnded, ID: id}, -1)
		_ = unix.Shutdown(ours, unix.SHUT_WR)
		f.hear(opClose) // never
	},
	"resets": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		id, ours := f.connect()
		_, _ = unix.Write(ours, []byte("hello"))
		f.say(message{Op: opEnded, ID: id, Errno: syscall.ECONNRESET}, -1)
		_ = unix.Close(ours)
		f.hear(opClose)
	},
	"ends without a word": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		_, ours := f.connect()
		_, _ = unix.Write(ours, []byte("hello"))
		_ = unix.Close(ours)
		f.hear(opClose)
	},
	"dies": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		_, ours := f.connect()
		_, _ = unix.Write(ours, []byte("hello"))
	},
	"dies while dialing": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.hear(opDial)
	},
	"no fd": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.say(message{Op: opConnected, ID: f.hear(opDial).ID, Local: fakeLocal, Remote: fakeRemote}, -1)
		f.hear(opClose)
	},
	"fd of another kind": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.say(message{Op: opConnected, ID: f.hear(opDial).ID, Local: fakeLocal, Remote: fakeRemote}, 2)
		f.hear(opClose)
	},
	"fd too many": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.say(message{Op: opFailed, ID: f.hear(opDial).ID, Errno: syscall.EIO}, 2)
		f.hear(opClose)
	},
	"another remote": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		_, theirs := f.pair()
		f.say(message{Op: opConnected, ID: f.hear(opDial).ID, Local: fakeLocal, Remote: netip.MustParseAddrPort("10.0.0.3:179")}, theirs)
		f.hear(opClose)
	},
	"a failure that is none": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.say(message{Op: opFailed, ID: f.hear(opDial).ID}, -1)
		f.hear(opClose)
	},
	"a router's message": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.say(message{Op: opCancel, ID: f.hear(opDial).ID}, -1)
		f.hear(opClose)
	},
	"not JSON": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.hear(opDial)
		_, _ = unix.Write(3, []byte("hello"))
		f.hear(opClose)
	},
	"too long": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		f.hear(opDial)
		_, _ = unix.Write(3, make([]byte, 2*maxMessage))
		f.hear(opClose)
	},
	"unknown IDs": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		m := f.hear(opDial)
		_, theirs := f.pair()
		f.say(message{Op: opConnected, ID: m.ID + 1, Local: fakeLocal, Remote: fakeRemote}, theirs)
		f.say(message{Op: opFailed, ID: m.ID + 1, Errno: syscall.EIO}, -1)
		f.say(message{Op: opListening, ID: m.ID + 1, Local: fakeLocal}, -1)
		f.say(message{Op: opEnded, ID: m.ID + 1}, -1)
		f.say(message{Op: opAccepted, ID: acceptedID | 1, Listener: 1000, Local: fakeLocal, Remote: fakeRemote}, theirs)
		f.say(message{Op: opFailed, ID: m.ID, Errno: syscall.ECONNREFUSED}, -1)
		f.hear(opClose)
	},
	"listens, and accepts a flood": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		m := f.hear(opListen)
		f.say(message{Op: opListening, ID: m.ID, Local: fakeLocal}, -1)
		for i := range uint64(10 * backlog) {
			ours, theirs := f.pair()
			f.say(message{Op: opAccepted, ID: acceptedID | i + 1, Listener: m.ID, Local: fakeLocal, Remote: fakeRemote}, theirs)
			_, _ = unix.Close(ours), unix.Close(theirs)
		}
		f.hear(opClose)
	},
	"accepts one ID twice": func(f *fake) {
		f.say(message{Op: opReady}, -1)
		m := f.hear(opListen)
		f.say(message{Op: opListening, ID: m.ID, Local: fakeLocal}, -1)
		for range 2 {
			_, theirs := f.pair()
			f.say(message{Op: opAccepted, ID: acceptedID | 1, Listener: m.ID, Local: fakeLocal, Remote: fakeRemote}, theirs)
		}
		f.hear(opDial)
	},
	"not ready": func(f *fake) { f.say(message{Op: opEnded, ID: 1}, -1); f.hear(opClose) },
	"chatty":    func(f *fake) { fmt.Fprint(os.Stderr, strings.Repeat("a", 1<<16), "\n\nlast words") },
}

// fakeStack is a VCL with a false helper.
func fakeStack(t *testing.T, name string) *VCL {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "default"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := NewVCL(VCLOptions{
		Name: "a", Dir: dir, Library: filepath.Join(dir, "default"), AppSockets: dir, Helper: []string{os.Args[0], "vcl-fake", name},
		Interfaces: nowhere{}, Namespaces: nowhere{}, Addresses: nowhere{}, Sessions: nowhere{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = v.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("Run does not return")
		}
	})
	return v
}

// nowhere is a dataplane without anything.
type nowhere struct{}

func (nowhere) InterfaceIndex(string) (uint32, bool)                                { return 0, false }
func (nowhere) InterfaceName(uint32) (string, bool)                                 { return "", false }
func (nowhere) BindNamespace(context.Context, string, uint64, uint32, uint32) error { return nil }
func (nowhere) RemoveNamespace(context.Context, string) error                       { return nil }
func (nowhere) LinkLocalAddress(context.Context, uint32) (netip.Addr, error) {
	return netip.Addr{}, errors.New("nowhere")
}
func (nowhere) HasAddress(context.Context, uint32, netip.Addr) (bool, error) { return true, nil }
func (nowhere) SessionInterface(context.Context, uint32, netip.AddrPort, netip.AddrPort) (uint32, bool, error) {
	return 0, false, nil
}

func TestFalseHelpers(t *testing.T) {
	for _, test := range []struct {
		name    string
		dialErr error  // of Dial; nil: it connects
		readErr error  // after "hello"
		text    string // in the reason why the helper is gone; "": it stays
	}{
		{name: "good", readErr: io.EOF},
		{name: "resets", readErr: syscall.ECONNRESET},
		{name: "ends without a word", readErr: syscall.ECONNRESET},
		{name: "dies", readErr: syscall.ECONNRESET},
		{name: "dies while dialing", dialErr: ErrNoHelper},
		{name: "no fd", dialErr: ErrNoHelper},
		{name: "fd of another kind", dialErr: ErrNoHelper},
		{name: "fd too many", dialErr: ErrNoHelper},
		{name: "another remote", dialErr: ErrNoHelper},
		{name: "a failure that is none", dialErr: ErrNoHelper},
		{name: "a router's message", dialErr: ErrNoHelper},
		{name: "not JSON", dialErr: ErrNoHelper},
		{name: "too long", dialErr: ErrNoHelper},
		{name: "unknown IDs", dialErr: syscall.ECONNREFUSED},
		{name: "not ready", dialErr: ErrNoHelper, text: "ended comes first"},
		{name: "chatty", dialErr: ErrNoHelper, text: "last words"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := fakeStack(t, test.name)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			c, err := v.Dial(ctx, Endpoints{Remote: fakeRemote})
			if test.dialErr != nil {
				if !errors.Is(err, test.dialErr) || !strings.Contains(err.Error(), test.text) {
					t.Fatalf("got %v, want %v: %s", err, test.dialErr, test.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			if err == nil {
				err = io.EOF
			}
			if string(got) != "hello" || !errors.Is(err, test.readErr) {
				t.Errorf("got %q, %v, want %v", got, err, test.readErr)
			}
			if oe := (*net.OpError)(nil); test.readErr != io.EOF && (!errors.As(err, &oe) || oe.Addr.String() != fakeRemote.String()) {
				t.Errorf("%#v", err)
			}
			if c.LocalAddr().String() != fakeLocal.String() || c.RemoteAddr().String() != fakeRemote.String() {
				t.Errorf("%s to %s", c.LocalAddr(), c.RemoteAddr())
			}
		})
	}
}

func TestFalseListeners(t *testing.T) {
	t.Run("flood", func(t *testing.T) {
		l, err := fakeStack(t, "listens, and accepts a flood").Listen(context.Background(), 0, fakeRemote)
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr().String() != fakeLocal.String() {
			t.Errorf("listens on %s", l.Addr())
		}
		for range backlog { // as many are sure to be kept
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close: %v", err)
		}
		if c, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v, %v", c, err)
		}
	})
	t.Run("twice", func(t *testing.T) {
		v := fakeStack(t, "accepts one ID twice")
		l, err := v.Listen(context.Background(), 0, fakeRemote)
		if err != nil {
			t.Fatal(err)
		}
		first, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the helper that talks nonsense is ended, but: %v", err)
		}
		// The next helper listens again, and has as little sense.
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
	})
}
