package rpki

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// document is a list in StayRTR's schema.
func document(vrps ...VRP) []byte {
	var entries []string
	for _, v := range vrps {
		entries = append(entries, fmt.Sprintf(`{"prefix":"%s","maxLength":%d,"asn":"AS%d"}`, v.Prefix, v.MaxLength, v.AS))
	}
	return []byte(`{"roas":[` + strings.Join(entries, ",\n") + `]}`)
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A file is read when it changes in whatever way; a bad one changes nothing and is told of.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "roa.json"), filepath.Join(dir, "other.json")
	synctest.Test(t, func(t *testing.T) {
		c := collect(t, Config{Files: []string{path}}, nil)
		defer c.stop()
		c.after(time.Second)
		c.sources(path + " failed")
		write(t, path, document(one))
		c.after(3*time.Second, one)
		c.sources(path + " ok used 1+0")
		write(t, path, document(two)) // of the same size, within a tick of the file system's clock perhaps
		c.after(3*time.Second, two)
		write(t, path, document(two, three)[:30])
		c.after(3*time.Second, two)
		c.sources(path + " stale used 1+0")
		if s := c.Sources()[0]; s.LastError == nil || s.LastError.Error() != path+": the JSON ends early" {
			t.Errorf("last error: %v", s.LastError)
		}
		write(t, other, document(two, three))
		if err := os.Rename(other, path); err != nil {
			t.Fatal(err)
		}
		c.after(3*time.Second, two, three)
		c.sources(path + " ok used 1+1")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		c.after(3*time.Second, two, three)
		c.sources(path + " stale used 1+1")
		if s := c.Sources()[0]; !errors.Is(s.LastError, errNotRegular) {
			t.Errorf("last error: %v", s.LastError)
		}
		// A second file, and then only that one.
		write(t, other, document(one))
		c.Apply(Config{Files: []string{path, other}})
		c.after(3*time.Second, one, two, three)
		if got := c.Of(one); len(got) != 1 || got[0] != other {
			t.Errorf("%s is of %q", one, got)
		}
		c.Apply(Config{Files: []string{other}})
		c.after(3*time.Second, one)
	})
}

// site is a web server of a test.
type site struct {
	mu       sync.Mutex
	body     []byte
	status   int
	etag     string
	modified string
	got      []string
}

func (s *site) set(f func(*site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *site) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.got
	s.got = nil
	return l
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, strings.TrimSpace(r.Header.Get("If-None-Match")+" "+r.Header.Get("If-Modified-Since")))
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	if s.modified != "" {
		w.Header().Set("Last-Modified", s.modified)
	}
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	if m := r.Header.Get("If-None-Match"); m != "" && m == s.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(s.body)
}

// RoundTrip answers without a network, for a bubble.
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

const rolesURL = "https://example.net/roa.json"

// What has not changed is not fetched again; what is bad changes nothing; the last good one is there at the next start.
func TestURL(t *testing.T) {
	dir := t.TempDir()
	s := &site{body: document(one), etag: `"1"`, modified: "Mon, 05 Jan 2026 00:00:00 GMT"}
	var c *collecting
	again := func(t *testing.T) {
		n := New(Options{Config: Config{URLs: []string{rolesURL}}, Dir: dir, Log: quiet(), Changed: func() {}})
		n.http = &http.Client{Transport: s}
		n.sources[0].source.(*download).http = n.http
		c = start(t, n)
	}
	synctest.Test(t, func(t *testing.T) {
		again(t)
		c.after(time.Second, one)
		c.sources(rolesURL + " ok used 1+0")
		c.after(15*time.Minute, one)
		want := []string{"", `"1" Mon, 05 Jan 2026 00:00:00 GMT`}
		if got := s.requests(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("requests: %q, want %q", got, want)
		}
		s.set(func(s *site) { s.body, s.etag = document(one, two), `"2"` })
		c.after(15*time.Minute, one, two)
		s.set(func(s *site) { s.body, s.etag = []byte("<html>"), `"3"` })
		c.after(15*time.Minute, one, two)
		c.sources(rolesURL + " stale used 2+0")
		s.set(func(s *site) { s.status = 503 })
		c.after(15*time.Minute, one, two)
		if e := c.Sources()[0].LastError; e == nil || e.Error() != "the server answers 503 Service Unavailable" {
			t.Errorf("last error: %v", e)
		}
		if n := len(s.requests()); n < 4 || n > 12 {
			t.Errorf("%d requests while it failed", n)
		}
		c.stop()
		// The server is still away when the router starts again.
		again(t)
		c.after(time.Second, one, two)
		c.sources(rolesURL + " stale used 2+0")
		s.set(func(s *site) { s.status, s.body = 0, document(three) })
		c.after(15*time.Minute, three)
		c.stop()
		// With the copy there is no need to fetch what has not changed.
		s.requests()
		again(t)
		c.after(time.Second, three)
		if got := s.requests(); len(got) != 1 || !strings.HasPrefix(got[0], `"3"`) {
			t.Errorf("requests: %q", got)
		}
		c.stop()
		// A copy that is damaged, or another URL's, is none.
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 1 {
			t.Fatalf("%q in the folder: %v", names, err)
		}
		for _, damaged := range []string{"", "{}\n", "{}\n{\"roas\":[]}", "x\n"} {
			write(t, names[0], []byte(damaged))
			s.set(func(s *site) { s.status = 503 })
			again(t)
			c.after(time.Second)
			c.sources(rolesURL + " failed")
			c.stop()
		}
	})
}

// Real sockets: a body beyond the bounds, a server that does not answer, one that is not there.
func TestURLBounds(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(maxBytes+1, 10))
		_, _ = w.Write([]byte(`{"roas":[]}`))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"roas":[`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.Handle("/good", &site{body: document(one)})
	web := httptest.NewServer(mux)
	defer web.Close()
	c := New(Options{Config: Config{}, Dir: filepath.Join(t.TempDir(), "new"), Log: quiet(), Changed: func() {}})
	c.http.Timeout = 300 * time.Millisecond
	fetch := func(url string) (*download, error) {
		d := newDownload(url, time.Hour, c)
		return d, d.fetch(context.Background())
	}
	d, err := fetch(web.URL + "/good")
	if err != nil || len(d.list.vrps) != 1 {
		t.Errorf("good: %v", err)
	}
	if _, err := os.Stat(d.copy); err != nil {
		t.Errorf("no copy: %v", err)
	}
	if _, err := fetch(web.URL + "/large"); !errors.Is(err, errTooLarge) {
		t.Errorf("large: %v", err)
	}
	if _, err := fetch(web.URL + "/slow"); err == nil || !strings.Contains(err.Error(), "Timeout") {
		t.Errorf("slow: %v", err)
	}
	if _, err := fetch(web.URL + "/none"); err == nil || err.Error() != "the server answers 404 Not Found" {
		t.Errorf("none: %v", err)
	}
	web.Close()
	if _, err := fetch(web.URL + "/good"); !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "/good") {
		t.Errorf("refused: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(c.opt.Dir, ".roa*")); err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %q, %v", left, err)
	}
}

// WaitLoaded returns when there is data, or the hope for some is gone.
func TestWaitLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roa.json")
	write(t, path, document(one))
	synctest.Test(t, func(t *testing.T) {
		a, b := newCache(t, 1, two), newCache(t, 1)
		a.down, b.mute = true, true
		c := collect(t, Config{Files: []string{path}, Servers: []Server{{Address: "a"}, {Address: "b"}}}, map[string]*cache{"a": a, "b": b})
		defer c.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.WaitLoaded(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while a server has not answered: %v", err)
		}
		if err := c.WaitLoaded(t.Context()); err != nil {
			t.Error(err)
		}
		c.after(0, one)
		if err := c.WaitLoaded(t.Context()); err != nil { // and later
			t.Error(err)
		}
	})
}

// StayRTR, where it is installed or RLR_STAYRTR says where it is: the table, a change, a restart.
func TestStayRTR(t *testing.T) {
	program := os.Getenv("RLR_STAYRTR")
	if program == "" {
		var err error
		if program, err = exec.LookPath("stayrtr"); err != nil {
			t.Skip("no stayrtr here")
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "roa.json")
	write(t, path, document(one, three))
	addr := freeAddress(t)
	run := func(protocol string) func() {
		cmd := exec.Command(program, "-bind", addr, "-cache", path, "-checktime=false", "-metrics.addr", "", "-refresh", "1", "-rtr.refresh", "2", "-protocol", protocol)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return sync.OnceFunc(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
	c := New(Options{
		Config: Config{Servers: []Server{{Address: addr}}}, Dir: dir, Log: quiet(), Changed: func() {},
		Dial: func(ctx context.Context, s Server) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Address)
		},
	})
	k := start(t, c)
	defer k.stop()
	expect := func(version int, want ...VRP) {
		t.Helper()
		late, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for {
			s := c.Sources()[0]
			if s.State == StateOK && int(s.Version) == version && slices.Equal(c.Table().All(), sorted(want)) {
				return
			}
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("the table is %v, want %v by version %d (%s, %v)", c.Table().All(), want, version, k.text(), s.LastError)
			}
		}
	}
	for _, version := range []int{1, 0} {
		write(t, path, document(one, three))
		stop := run(strconv.Itoa(version))
		defer stop()
		expect(version, one, three)
		write(t, path, document(two, three))
		expect(version, two, three)
		stop()
		if got := c.Table().All(); len(got) != 2 {
			t.Errorf("without the server: %v", got)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
