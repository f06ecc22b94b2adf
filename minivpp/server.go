// Package minivpp is the embedded dataplane: it serves VPP's binary API, command line and statistics segment over unix
// sockets as VPP does, and forwards packets with the plane of minivpp/plane.
//
// A client needs to know nothing of minivpp: govpp, or any program that speaks VPP's API socket, connects, gets the message
// table, and finds the messages with VPP's own names and CRCs. What is not implemented is not in the table, so that a
// compatibility check tells the truth; a field or flag of an implemented message that is not implemented is answered with
// VPP's own error value. docs/minivpp.md lists what there is.
//
// One goroutine reads each client and works through its requests in order, but for pings, which run beside them; one writes
// to it; one more, for all clients, turns the plane's events into messages. The plane has its own locks, so clients do not wait for each other.
package minivpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"go.fd.io/govpp/binapi/interface_types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"rlr/minivpp/plane"
)

// Config of a Server. A socket path that is empty is not served. Every socket is for its owner alone (mode 0600).
type Config struct {
	APISocket   string // VPP's socksvr, usually api.sock
	StatsSocket string // VPP's statseg, usually stats.sock
	CLISocket   string // VPP's cli-listen, for vppctl
	RuntimeDir  string // where a memif socket with a relative name is; "" = the directory of APISocket
	Version     string // of the program, shown by "show version"; "" = "unversioned"
	Log         *logrus.Entry
}

// Server is a running or runnable dataplane. The plane's methods for TCP and probes are promoted: it is a
// hoststack.Backend.
type Server struct {
	*plane.Plane

	cfg      Config
	log      *logrus.Entry
	messages *table
	commands *command
	hub      *hub
	boot     time.Time
	ready    chan struct{}
	nextID   atomic.Uint32 // of clients

	limits   limits
	settings settings
}

// settings are values that the API may set and read back without effect on forwarding.
type settings struct {
	mu     sync.Mutex
	rxMode map[uint32]interface_types.RxMode // by sw_if_index
}

// New returns a server that does not run yet.
func New(cfg Config) (*Server, error) {
	if cfg.APISocket == "" {
		return nil, errors.New("minivpp: no API socket given")
	}
	for _, path := range []string{cfg.APISocket, cfg.StatsSocket, cfg.CLISocket} {
		if len(path) > maxSocketPath {
			return nil, fmt.Errorf("minivpp: socket path %s is longer than the kernel's %d bytes", path, maxSocketPath)
		}
	}
	if cfg.RuntimeDir == "" {
		cfg.RuntimeDir = filepath.Dir(cfg.APISocket)
	}
	if cfg.Version == "" {
		cfg.Version = "unversioned"
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = logrus.NewEntry(quiet)
	}
	s := &Server{
		Plane: plane.New(plane.Config{Log: cfg.Log}),
		cfg:   cfg, log: cfg.Log, boot: time.Now(), ready: make(chan struct{}), limits: defaultLimits,
	}
	s.settings.rxMode = map[uint32]interface_types.RxMode{}
	if err := s.SetMemifSocket(0, filepath.Join(cfg.RuntimeDir, "memif.sock")); err != nil {
		return nil, fmt.Errorf("minivpp: setting the default memif socket: %w", err)
	}
	s.hub = newHub(s)
	s.commands = s.commandTree()
	var err error
	if s.messages, err = newTable(s.modules()); err != nil {
		return nil, fmt.Errorf("minivpp: %w", err)
	}
	return s, nil
}

// Ready is closed when the sockets accept.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, and runs the plane. It returns nil when ctx ended, and at once with an error when a socket
// cannot be opened, for instance because another process serves it.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.RuntimeDir, 0o700); err != nil {
		return fmt.Errorf("minivpp: creating the runtime directory: %w", err)
	}
	var listeners []*net.UnixListener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	open := func(network, path string) (*net.UnixListener, error) {
		l, err := listen(ctx, network, path)
		if err != nil {
			return nil, fmt.Errorf("minivpp: %w", err)
		}
		listeners = append(listeners, l)
		return l, nil
	}

	g, ctx := errgroup.WithContext(ctx)
	services := []struct {
		network, path string
		serve         func(context.Context, *net.UnixListener) error
	}{
		{"unix", s.cfg.APISocket, func(ctx context.Context, l *net.UnixListener) error { return s.accept(ctx, l, s.serveAPI) }},
		{"unix", s.cfg.CLISocket, func(ctx context.Context, l *net.UnixListener) error { return s.accept(ctx, l, s.serveCLI) }},
		{"unixpacket", s.cfg.StatsSocket, s.serveStats},
	}
	type started struct {
		l     *net.UnixListener
		serve func(context.Context, *net.UnixListener) error
	}
	var start []started
	for _, service := range services {
		if service.path == "" {
			continue
		}
		l, err := open(service.network, service.path)
		if err != nil {
			return err
		}
		start = append(start, started{l, service.serve})
	}

	unsubscribe := s.hub.subscribe()
	defer unsubscribe()
	g.Go(func() error { return s.Plane.Run(ctx) })
	g.Go(func() error { return s.hub.run(ctx) })
	for _, service := range start {
		g.Go(func() error { return service.serve(ctx, service.l) })
	}
	close(s.ready)
	s.log.WithField("socket", s.cfg.APISocket).Debug("embedded dataplane ready")
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// accept serves each connection of a listener in its own goroutine, and returns when ctx has ended and all are done.
func (s *Server) accept(ctx context.Context, l *net.UnixListener, serve func(context.Context, *net.UnixConn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
			wg.Go(func() {
				defer conn.Close()
				serve(ctx, conn)
			})
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			// Out of file descriptors for now: the clients that there are go on.
			s.log.WithError(err).Warn("cannot accept an API client")
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		default:
			return fmt.Errorf("minivpp: accepting on %s: %w", l.Addr(), err)
		}
	}
}

// maxSocketPath is the length of sockaddr_un's path without its terminating zero.
const maxSocketPath = 107

// listen opens a unix socket that only its owner can connect to. A socket file that nobody listens on is a left-over of a
// process that was killed, and is replaced.
func listen(ctx context.Context, network, path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// The mode of the socket before bind becomes the mode of the file (unix(7)), so there is no moment in which others
		// could connect.
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := config.Listen(ctx, network, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		info, statErr := os.Lstat(path)
		if statErr != nil || info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("listening on %s: it exists and is not a socket: %w", path, err)
		}
		conn, dialErr := net.Dial(network, path)
		if dialErr == nil {
			conn.Close()
		}
		// Any other answer comes from somebody who lives: EAGAIN from one who is too busy, EPROTOTYPE from another kind.
		if !errors.Is(dialErr, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("listening on %s: another process serves it: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing an abandoned socket: %w", err)
		}
		l, err = config.Listen(ctx, network, path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return l.(*net.UnixListener), nil
}
