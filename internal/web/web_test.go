package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// running is a server on the loopback, with answers that the test gives.
type running struct {
	t      *testing.T
	url    string
	addr   string
	client *http.Client
	stop   context.CancelFunc
	done   chan error
}

func start(t *testing.T, o Options) *running {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.Log = logrus.NewEntry(log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, addr: l.Addr().String(), url: "http://" + l.Addr().String(), client: &http.Client{Transport: &http.Transport{}}, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- New(o).serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if r.done != nil {
			<-r.done
		}
		r.client.CloseIdleConnections()
	})
	return r
}

func (r *running) ask(method, path, accept string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

func checks(all ...Check) func(context.Context) []Check {
	return func(context.Context) []Check { return all }
}

var (
	fine   = Check{Name: "dataplane", OK: true, Detail: "connected"}
	broken = Check{Name: "routes", Detail: "not read yet"}
)

func TestPages(t *testing.T) {
	r := start(t, Options{Healthy: checks(fine), Ready: checks(fine, broken)})
	for _, tc := range []struct {
		method, path, accept string
		code                 int
		kind, body           string
	}{
		{"GET", "/healthz", "", 200, "text/plain; charset=utf-8", "ok\ndataplane: ok: connected\n"},
		{"GET", "/readyz", "", 503, "text/plain; charset=utf-8", "failed\ndataplane: ok: connected\nroutes: failed: not read yet\n"},
		{"GET", "/healthz", "*/*", 200, "text/plain; charset=utf-8", "ok\ndataplane: ok: connected\n"},
		{"GET", "/healthz", "application/json", 200, "application/json", `{"ok":true,"checks":[{"name":"dataplane","ok":true,"detail":"connected"}]}` + "\n"},
		{"HEAD", "/healthz", "", 200, "text/plain; charset=utf-8", ""},
		{"HEAD", "/readyz", "", 503, "text/plain; charset=utf-8", ""},
		{"GET", "/", "", 404, "text/plain; charset=utf-8", "404 page not found\n"},
		{"GET", "/healthz/x", "", 404, "text/plain; charset=utf-8", "404 page not found\n"},
		{"POST", "/healthz", "", 405, "text/plain; charset=utf-8", "Method Not Allowed\n"},
		{"DELETE", "/readyz", "", 405, "text/plain; charset=utf-8", "Method Not Allowed\n"},
	} {
		res, body := r.ask(tc.method, tc.path, tc.accept)
		if res.StatusCode != tc.code || res.Header.Get("Content-Type") != tc.kind || body != tc.body {
			t.Errorf("%s %s (%s): %d %q %q", tc.method, tc.path, tc.accept, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
		if tc.code == 200 && (res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Vary") != "Accept") {
			t.Errorf("%s: %v", tc.path, res.Header)
		}
	}
	_, body := r.ask("GET", "/readyz", "application/json")
	var got report
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.OK || len(got.Checks) != 2 || got.Checks[1] != broken {
		t.Errorf("%s: %+v, %v", body, got, err)
	}
}

func TestAccept(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                                     false,
		"*/*":                                  false,
		"application/json":                     true,
		"application/json; charset=utf-8":      true,
		"text/plain":                           false,
		"text/html, application/json;q=0.9":    true,
		"text/plain, application/json":         false,
		"text/plain;q=0.5, application/json":   true,
		"text/*;q=0.9, application/json;q=0.8": false,
		"application/json;q=0":                 false,
		"application/json;q=x":                 false,
		";;;, application/json":                true,
	} {
		if got := prefersJSON([]string{accept}); got != want {
			t.Errorf("Accept %q: JSON %t", accept, got)
		}
	}
}

// A request that is being answered when the router stops gets its answer; nobody else is served.
func TestGracefulEnd(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	r := start(t, Options{Ready: checks(), Healthy: func(context.Context) []Check {
		close(asked)
		<-answer
		return []Check{fine}
	}})
	got := make(chan string, 1)
	go func() {
		res, body := r.ask("GET", "/healthz", "")
		got <- res.Status + " " + body
	}()
	<-asked
	r.stop()
	for { // until the listener is closed
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(answer)
	if s := <-got; s != "200 OK ok\ndataplane: ok: connected\n" {
		t.Errorf("%q", s)
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done = nil
}

// Who sends nothing does not hold up the end.
func TestEndWithSilentClient(t *testing.T) {
	r := start(t, Options{Healthy: checks(fine), Ready: checks(fine)})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	r.ask("GET", "/healthz", "") // the server has accepted both by now
	begun := time.Now()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done = nil
	if took := time.Since(begun); took > closeTimeout+2*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// One client cannot have more connections than the limit, and one that goes makes room.
func TestConnectionLimit(t *testing.T) {
	r := start(t, Options{Healthy: checks(fine), Ready: checks(fine)})
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range maxConnections {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	more, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	if _, err := io.WriteString(more, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := more.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := more.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("connection %d was answered: %v", maxConnections+1, err)
	}
	held[0].Close()
	if err := more.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(more), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("%+v, %v", res, err)
	}
}

// Too large a request is refused, before anything is looked at.
func TestLargeRequest(t *testing.T) {
	r := start(t, Options{Ready: checks(fine), Healthy: func(context.Context) []Check {
		t.Error("it was answered")
		return nil
	}})
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	res, err := r.client.Do(req)
	if err != nil {
		return // the connection was reset before the answer was read: refused as well
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", res.Status)
	}
}

// An address that is taken ends Run with an error that names it.
func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := New(Options{Listen: netip.MustParseAddrPort(l.Addr().String()), Log: logrus.NewEntry(logrus.New()), Healthy: checks(), Ready: checks()})
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
}
