package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func discard() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// base makes a short runtime directory for this test.
func base(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv(RuntimeEnv, filepath.Join(dir, "rlr"))
	return filepath.Join(dir, "rlr")
}

// start runs a router's control socket and returns a client.
func start(t *testing.T, name string, h Handlers) *Client {
	t.Helper()
	claim, err := NewClaim(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(claim, "v1", h, discard())
	if err != nil {
		t.Fatal(err)
	}
	s.patience = time.Second
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		claim.Close()
	})
	r, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(r)
	t.Cleanup(c.Close)
	return c
}

func TestMethods(t *testing.T) {
	base(t)
	var got []string
	note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	c := start(t, "router1", Handlers{
		Status: func(context.Context) (Status, error) { return Status{Name: "router1"}, nil },
		BGP:    func(context.Context) ([]BGPSession, error) { return []BGPSession{{Name: "a"}, {Name: "b"}}, nil },
		Routes: func(_ context.Context, f RouteFilter, emit func(Route) error) error {
			note("%v %v %q %v", f.Prefix, f.For, f.Protocol, f.Failed)
			for i := range 3 {
				if err := emit(Route{Prefix: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return nil
		},
		Ping: func(_ context.Context, r ProbeRequest, emit func(ProbeReply) error) (ProbeSummary, error) {
			return ProbeSummary{Sent: r.Count}, emit(ProbeReply{From: r.Target})
		},
		VPPCtl: func(_ context.Context, r VPPCtlRequest) (VPPCtlResult, error) {
			return VPPCtlResult{Output: r.Line}, nil
		},
		Neighbor: func(_ context.Context, r NeighborRequest) (Done, error) {
			return Done{}, NotFound("no neighbour %q", r.Name)
		},
		Stop: func(_ context.Context, r StopRequest) (Done, error) {
			return Done{Message: fmt.Sprint(r.Clean)}, nil
		},
	})
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.Name != "router1" {
		t.Errorf("Status: %+v, %v", s, err)
	}
	if b, err := c.BGP(ctx); err != nil || len(b) != 2 || b[1].Name != "b" {
		t.Errorf("BGP: %+v, %v", b, err)
	}
	var rows []string
	f := RouteFilter{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Protocol: "bgp", Failed: true}
	err := c.Routes(ctx, f, func(r Route) error { rows = append(rows, r.Prefix); return nil })
	if err != nil || strings.Join(rows, "") != "012" || got[0] != `10.0.0.0/8 invalid IP "bgp" true` {
		t.Errorf("Routes: %v, %v, handler saw %q", rows, err, got)
	}
	var from string
	sum, err := c.Ping(ctx, ProbeRequest{Target: "fe80::2%tun12", Count: 3}, func(r ProbeReply) error { from = r.From; return nil })
	if err != nil || sum.Sent != 3 || from != "fe80::2%tun12" {
		t.Errorf("Ping: %+v %q, %v", sum, from, err)
	}
	if r, err := c.VPPCtl(ctx, "show version"); err != nil || r.Output != "show version" {
		t.Errorf("VPPCtl: %+v, %v", r, err)
	}
	if _, err := c.Neighbor(ctx, NeighborRequest{Name: "x"}); !errors.Is(err, ErrNotFound) || err.Error() != `no neighbour "x"` {
		t.Errorf("Neighbor: %v", err)
	}
	if d, err := c.Stop(ctx, StopRequest{Clean: true}); err != nil || d.Message != "true" {
		t.Errorf("Stop: %+v, %v", d, err)
	}
	if _, err := c.WireGuard(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("WireGuard without a handler: %v", err)
	}
}

func TestEmptyListIsNotNil(t *testing.T) {
	base(t)
	c := start(t, "router1", Handlers{BGP: func(context.Context) ([]BGPSession, error) { return nil, nil }})
	b, err := c.BGP(t.Context())
	if err != nil || b == nil {
		t.Errorf("BGP: %#v, %v", b, err)
	}
}

// An error after rows comes after the rows; a large stream arrives whole and in order.
func TestStream(t *testing.T) {
	base(t)
	const n = 20000
	c := start(t, "router1", Handlers{
		FIB: func(_ context.Context, _ FIBFilter, emit func(FIBEntry) error) error {
			for i := range n {
				if err := emit(FIBEntry{Prefix: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return Unavailable("gone")
		},
	})
	i := 0
	err := c.FIB(t.Context(), FIBFilter{}, func(e FIBEntry) error {
		if e.Prefix != fmt.Sprint(i) {
			return fmt.Errorf("row %d is %s", i, e.Prefix)
		}
		i++
		return nil
	})
	if i != n || !errors.Is(err, ErrUnavailable) {
		t.Errorf("%d rows, then %v", i, err)
	}
}

// A row is seen while the handler still runs, and a client that leaves cancels the handler.
func TestFollowAndCancel(t *testing.T) {
	base(t)
	ended := make(chan error, 1)
	c := start(t, "router1", Handlers{
		Log: func(ctx context.Context, _ LogFilter, emit func(LogRecord) error) error {
			if err := emit(LogRecord{Message: "one"}); err != nil {
				return err
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Log(ctx, LogFilter{Follow: true}, func(LogRecord) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Log: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the handler was not cancelled")
	}
}

func TestVisitErrorEndsTheRequest(t *testing.T) {
	base(t)
	c := start(t, "router1", Handlers{
		Routes: func(ctx context.Context, _ RouteFilter, emit func(Route) error) error {
			for ctx.Err() == nil {
				if err := emit(Route{}); err != nil {
					return err
				}
			}
			return ctx.Err()
		},
	})
	stop := errors.New("enough")
	if err := c.Routes(t.Context(), RouteFilter{}, func(Route) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Routes: %v", err)
	}
}

// raw sends bytes to the router's socket and returns the whole answer.
func raw(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", SocketPath(RouterDir("router1")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, request); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("write: %v", err)
	}
	b, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		t.Logf("read: %v", err)
	}
	return string(b)
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: rlr\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestHostileRequests(t *testing.T) {
	base(t)
	start(t, "router1", Handlers{
		Routes: func(context.Context, RouteFilter, func(Route) error) error { return nil },
	})
	for _, tc := range []struct{ name, request, want string }{
		{"unknown method", post("/v1/nosuch", ""), "400 Bad Request"},
		{"unknown path", post("/routes", ""), "does not know POST /routes"},
		{"GET", "GET /v1/routes HTTP/1.1\r\nHost: rlr\r\nConnection: close\r\n\r\n", "does not know GET"},
		{"newer parameter", post("/v1/routes", `{"color":"red"}`), "another version"},
		{"not JSON", post("/v1/routes", `]`), "400 Bad Request"},
		{"bad prefix", post("/v1/routes", `{"prefix":"10.0.0.0/99"}`), "400 Bad Request"},
		{"huge body", post("/v1/routes", `{"protocol":"`+strings.Repeat("x", maxBody)+`"}`), "too large"},
		{"huge header", "POST /v1/routes HTTP/1.1\r\nHost: rlr\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
		{"fine", post("/v1/routes", ``), `{"end":{}}`},
	} {
		if got := raw(t, tc.request); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
}

// Clients that connect and say nothing, or never read, do not keep others from being answered.
func TestHangingClients(t *testing.T) {
	base(t)
	emitted := make(chan error, 1)
	c := start(t, "router1", Handlers{
		Status: func(context.Context) (Status, error) { return Status{Name: "router1"}, nil },
		Routes: func(_ context.Context, _ RouteFilter, emit func(Route) error) error {
			row := Route{Error: strings.Repeat("x", 4096)}
			for {
				if err := emit(row); err != nil {
					emitted <- err
					return err
				}
			}
		},
	})
	for i := range 200 {
		conn, err := net.Dial("unix", c.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i == 0 {
			io.WriteString(conn, post("/v1/routes", ""))
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("Status: %v", err)
	}
	select {
	case err := <-emitted:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("emit to a client that does not read: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("emit to a client that does not read never failed")
	}
}

func TestTooManyRequests(t *testing.T) {
	base(t)
	entered := make(chan struct{}, maxRequests)
	c := start(t, "router1", Handlers{
		Status: func(ctx context.Context) (Status, error) {
			entered <- struct{}{}
			<-ctx.Done()
			return Status{}, ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxRequests {
		wg.Go(func() { c.Status(ctx) })
	}
	for range maxRequests {
		<-entered
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("request %d: %v", maxRequests+1, err)
	}
	cancel()
	wg.Wait()
}

// A newer router's answer has fields and frames that this client does not know.
func TestNewerAnswer(t *testing.T) {
	for _, tc := range []struct{ stream, want string }{
		{`{"row":{"name":"r","new":1}}` + "\n" + `{"note":"hm"}` + "\n" + `{"end":{}}`, ""},
		{`{"row":{"name":"r"}}`, "ended before its answer did"},
		{`{"row":{"name":"r"}}` + "\nSorry", "does not understand"},
		{`{"end":{}}`, "empty answer"},
		{`{"error":{"kind":"brand-new","message":"no"}}`, "no"},
	} {
		dir := base(t)
		c := answerWith(t, dir, tc.stream)
		_, err := c.Status(t.Context())
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.stream, err)
		}
	}
}

func answerWith(t *testing.T, dir, body string) *Client {
	t.Helper()
	r := Running{Name: "router1", Dir: filepath.Join(dir, "router1")}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", r.Socket())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 4096))
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return NewClient(r)
}

func TestErrorFrame(t *testing.T) {
	b, err := json.Marshal(asError(fmt.Errorf("show x: %w", BadRequest("say y"))))
	if err != nil || string(b) != `{"kind":"bad-request","message":"show x: say y"}` {
		t.Errorf("%s, %v", b, err)
	}
	if k := asError(io.EOF).Kind; k != KindFailed {
		t.Errorf("a plain error has kind %s", k)
	}
}
