package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// The server answers POST /v1/METHOD on a unix socket. The body is the method's parameters as one JSON object; the answer is
// a stream of lines, each a frame: rows, then an end or an error. A stream without either was cut off, which the client says.
// HTTP/1.1 is used because its library bounds headers, notices a caller that went away and cancels the handler's context.
//
// Nothing that a client does may hold the router up: requests are bounded in number, size and the time they take to arrive,
// and an answer that nobody reads is given up after writeTimeout.

const (
	maxBody       = 64 << 10
	maxRequests   = 64 // at once; follow and ping take one each
	headerTimeout = 5 * time.Second
	bodyTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 30 * time.Second
	stopTimeout   = 2 * time.Second

	versionHeader = "Rlr-Version"
	apiPrefix     = "/v1/"
)

// frame is one line of an answer.
type frame struct {
	Row   json.RawMessage `json:"row,omitempty"`
	End   json.RawMessage `json:"end,omitempty"`
	Error *Error          `json:"error,omitempty"`
}

// Server is a router's control socket.
type Server struct {
	claim    *Claim
	version  string
	socket   string
	log      *logrus.Entry
	patience time.Duration // writeTimeout; shorter in tests
	slots    chan struct{}
	routes   map[string]method
	ln       net.Listener
}

// method answers one request: it decodes the parameters, calls the handler and writes rows; end is what the last frame holds.
type method func(ctx context.Context, params []byte, emit func(any) error) (end any, err error)

// Option changes a Server.
type Option func(*Server)

// WithSocket puts the control socket elsewhere than into the router's directory; "" changes nothing. Clients find it through
// the directory all the same.
func WithSocket(path string) Option { return func(s *Server) { s.socket = path } }

// NewServer listens on the control socket of the claimed router, in place of a stale one. Version is told to clients.
func NewServer(claim *Claim, version string, h Handlers, log *logrus.Entry, opts ...Option) (*Server, error) {
	s := &Server{
		claim: claim, version: version, log: log, patience: writeTimeout,
		slots: make(chan struct{}, maxRequests), routes: methods(h),
	}
	for _, o := range opts {
		o(s)
	}
	if s.socket == "" {
		s.socket = SocketPath(claim.Dir)
	}
	ln, err := ListenPrivate(s.socket)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if s.socket != SocketPath(claim.Dir) {
		if err := claim.write(s.socket); err != nil {
			ln.Close()
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	s.ln = ln
	return s, nil
}

// ListenPrivate listens on a socket that only the user can connect to, from its first moment on: it gets its name when
// its mode is right. The socket stays when the listener is closed.
func ListenPrivate(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is there and is not a socket: remove it", path)
	}
	fresh := filepath.Join(filepath.Dir(path), fmt.Sprintf(".rlr%d", os.Getpid()))
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // that would be the name that it has not got any more
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Run serves until ctx ends. Requests that still run then have their contexts cancelled and get a moment to answer.
func (s *Server) Run(ctx context.Context) error {
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	w := s.log.WriterLevel(logrus.DebugLevel)
	defer w.Close()
	srv.ErrorLog = stdlog.New(w, "", 0)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("control socket: %w", err)
	case <-ctx.Done():
	}
	cancel()
	stop, stopped := context.WithTimeout(context.Background(), stopTimeout)
	defer stopped()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close()
	}
	<-served
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(versionHeader, s.version)
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := newStream(w, s.patience)
	defer out.close()
	end, err := s.answer(r, w, out)
	out.finish(end, err)
}

func (s *Server) answer(r *http.Request, w http.ResponseWriter, out *stream) (any, error) {
	name := strings.TrimPrefix(r.URL.Path, apiPrefix)
	m, ok := s.routes[name]
	if !ok || name == r.URL.Path || r.Method != http.MethodPost {
		return nil, BadRequest("router %s (rlr %s) does not know %s %s: use the rlr that it runs", s.claim.Name, s.version, r.Method, r.URL.Path)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return nil, Unavailable("router %s answers %d requests already: try again later", s.claim.Name, maxRequests)
	}
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, fmt.Errorf("control request: %w", err)
	}
	params, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, BadRequest("read request: %v", err)
	}
	// Without a deadline from here on: the library reads in the background to notice that the caller is gone.
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("control request: %w", err)
	}
	s.log.WithField("method", name).Debug("control request")
	return m(r.Context(), params, out.emit)
}

// decode fills p. A parameter that this version does not know must not be dropped silently: it would have narrowed the answer.
func decode[P any](params []byte) (P, error) {
	var p P
	if len(bytes.TrimSpace(params)) == 0 {
		return p, nil
	}
	dec := json.NewDecoder(bytes.NewReader(params))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, BadRequest("parameters: %v (if the router runs another version of rlr, use that one's command)", err)
	}
	return p, nil
}

func methods(h Handlers) map[string]method {
	return map[string]method{
		pathStatus:     one(h.Status),
		pathInterfaces: list(h.Interfaces),
		pathNeighbors:  list(h.Neighbors),
		pathProtocols:  list(h.Protocols),
		pathBGP:        list(h.BGP),
		pathWireGuard:  list(h.WireGuard),
		pathErrors:     list(h.Errors),
		pathACL:        list(h.ACL),
		pathBFD:        list(h.BFD),
		pathRoutes:     streamed(h.Routes),
		pathRouteCount: call(h.RouteCount),
		pathFIB:        streamed(h.FIB),
		pathROA:        one(h.ROA),
		pathROAs:       streamed(h.ROAs),
		pathLog:        streamed(h.Log),
		pathPing:       summed(h.Ping),
		pathTraceroute: streamed(h.Traceroute),
		pathVPPCtl:     call(h.VPPCtl),
		pathNeighbor:   call(h.Neighbor),
		pathRoute:      call(h.Route),
		pathFIBDo:      call(h.FIBDo),
		pathPolicyTest: streamed(h.PolicyTest),
		pathReload:     one(h.Reload),
		pathRestart:    one(h.Restart),
		pathStop:       call(h.Stop),
	}
}

var errNoHandler = Unavailable("this router cannot answer that")

// one adapts a handler without parameters and with one result.
func one[R any](f func(context.Context) (R, error)) method {
	if f == nil {
		return missing
	}
	return call(func(ctx context.Context, _ struct{}) (R, error) { return f(ctx) })
}

// call adapts a handler with parameters and one result.
func call[P, R any](f func(context.Context, P) (R, error)) method {
	if f == nil {
		return missing
	}
	return func(ctx context.Context, params []byte, emit func(any) error) (any, error) {
		p, err := decode[P](params)
		if err != nil {
			return nil, err
		}
		r, err := f(ctx, p)
		if err != nil {
			return nil, err
		}
		return nil, emit(r)
	}
}

// list adapts a handler that returns all rows at once.
func list[R any](f func(context.Context) ([]R, error)) method {
	if f == nil {
		return missing
	}
	return streamed(func(ctx context.Context, _ struct{}, emit func(R) error) error {
		rows, err := f(ctx)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := emit(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// streamed adapts a handler that emits rows.
func streamed[P, R any](f func(context.Context, P, func(R) error) error) method {
	if f == nil {
		return missing
	}
	return summed(func(ctx context.Context, p P, emit func(R) error) (struct{}, error) {
		return struct{}{}, f(ctx, p, emit)
	})
}

// summed adapts a handler that emits rows and ends with a summary.
func summed[P, R, S any](f func(context.Context, P, func(R) error) (S, error)) method {
	if f == nil {
		return missing
	}
	return func(ctx context.Context, params []byte, emit func(any) error) (any, error) {
		p, err := decode[P](params)
		if err != nil {
			return nil, err
		}
		return f(ctx, p, func(r R) error { return emit(r) })
	}
}

func missing(context.Context, []byte, func(any) error) (any, error) { return nil, errNoHandler }
