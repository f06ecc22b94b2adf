// Package web tells over HTTP how the router is: /healthz and /readyz, for what supervises it (a container platform, a load
// balancer), and /metrics for Prometheus.
//
// It is read-only, and knows nothing of the router: what is asked comes in as functions that look at the moment of the
// question. Whoever reaches the address may ask, so a page says no more than which part is well, and one client can neither
// hold a connection for long nor many of them.
package web

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"
)

// Limits of the server. A page is a few hundred bytes, and made from what is known already.
const (
	answerTimeout  = 5 * time.Second // for a page to be made; then it is a 503
	requestTimeout = 5 * time.Second // for a request to arrive
	writeTimeout   = 10 * time.Second
	idleTimeout    = 30 * time.Second // between requests of a connection
	closeTimeout   = time.Second      // for requests that are being answered when the router stops
	maxHeaderBytes = 8 << 10
	maxConnections = 64
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // for everybody to read: no addresses, no paths
}

// Options are what a Server needs.
type Options struct {
	Listen netip.AddrPort // TCP of the host
	// Healthy and Ready look at the router. They return before long, and the page is well when all their checks are.
	Healthy, Ready func(context.Context) []Check
	// Figures are for /metrics.
	Figures func(context.Context) (Figures, error)
	Log     *logrus.Entry
}

// Server serves the pages. Make it with New.
type Server struct {
	opt  Options
	http *http.Server
}

// New makes a server; nothing listens yet.
func New(o Options) *Server {
	return &Server{opt: o, http: &http.Server{
		Handler:           handler(o),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}}
}

func handler(o Options) http.Handler {
	mux := http.NewServeMux() // answers other methods than GET and HEAD with 405, other paths with 404
	mux.HandleFunc("GET /healthz", page(o.Healthy))
	mux.HandleFunc("GET /readyz", page(o.Ready))
	mux.HandleFunc("GET /metrics", metrics(o.Figures))
	return http.TimeoutHandler(mux, answerTimeout, "the router does not answer in time\n")
}

// Run serves until ctx ends. Requests that are being answered then are given closeTimeout. Error: the address cannot be
// listened at.
func (s *Server) Run(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.opt.Listen.String())
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	return s.serve(ctx, l)
}

func (s *Server) serve(ctx context.Context, l net.Listener) error {
	w := s.opt.Log.WriterLevel(logrus.DebugLevel) // broken connections are the clients' affair
	defer w.Close()
	s.http.ErrorLog = log.New(w, "", 0)
	s.opt.Log.WithField("listen", l.Addr().String()).Info("serving /healthz and /readyz")
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err := <-served:
		return fmt.Errorf("web: %w", err)
	case <-ctx.Done():
	}
	end, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	err := s.http.Shutdown(end)
	if err != nil {
		err = s.http.Close() // who is not done by now is not waited for
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
