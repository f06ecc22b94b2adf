package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

// serve runs a server on loopback until the test ends, and returns where.
func serve(t *testing.T, open func(context.Context, net.Conn) (net.Conn, error)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	s := &Server{
		Name: "test", Log: logrus.NewEntry(log), Open: open,
		Listen: func(context.Context) (net.Listener, error) { return l, nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dialHost(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

func page(t *testing.T, size int) (*httptest.Server, []byte) {
	t.Helper()
	body := make([]byte, size)
	_, _ = rand.Read(body)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(web.Close)
	return web, body
}

func fetch(client *http.Client, url string) ([]byte, error) {
	r, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// Go's own client speaks SOCKS: to addresses and to names.
func TestSocks(t *testing.T) {
	web, body := page(t, 3<<20)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(web.URL, "http://"))
	s := Socks{Dial: dialHost, Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "web.dn42" {
			return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}}
	proxy, _ := url.Parse("socks5://" + serve(t, s.Open))
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for _, target := range []string{web.URL, "http://web.dn42:" + port} {
		if got, err := fetch(client, target); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes, %v", target, len(got), err)
		}
	}
	for target, want := range map[string]string{"http://nowhere.dn42": "host unreachable", "http://127.0.0.1:1": "connection refused"} {
		if _, err := fetch(client, target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
	}
}

// What is no request of SOCKS is answered where it can be, and ends.
func TestSocksInput(t *testing.T) {
	addr := serve(t, Socks{Dial: dialHost}.Open)
	const hello, agreed = "\x05\x01\x00", "\x05\x00"
	refused := func(code byte) string { return agreed + "\x05" + string(code) + "\x00\x01\x00\x00\x00\x00\x00\x00" }
	for _, c := range []struct{ name, say, want string }{
		{"HTTP", "GET / HTTP/1.0\r\n\r\n", ""},
		{"SOCKS 4", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", ""},
		{"a password wanted", "\x05\x01\x02", "\x05\xff"},
		{"no method", "\x05\x00", "\x05\xff"},
		{"BIND", hello + "\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x01", refused(byte(replyCommand))},
		{"UDP", hello + "\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x01", refused(byte(replyCommand))},
		{"an address of type 9", hello + "\x05\x01\x00\x09", refused(byte(replyAddressType))},
		{"another version in the request", hello + "\x04\x01\x00\x01", refused(byte(replyFailure))},
		{"half a request", hello + "\x05\x01\x00\x03\x50abc", refused(byte(replyFailure))},
		{"a closed port", hello + "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01", refused(byte(replyRefused))},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, c.say)
			_ = conn.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(conn)
			if string(got) != c.want || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("answer %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	for err, want := range map[error]reply{
		syscall.ECONNREFUSED: replyRefused, syscall.ENETUNREACH: replyNetwork, syscall.EHOSTUNREACH: replyHost,
		syscall.ETIMEDOUT: replyTimeout, context.DeadlineExceeded: replyTimeout, io.EOF: replyFailure,
	} {
		if got := replyFor(fmt.Errorf("x: %w", err)); got != want {
			t.Errorf("%v is %d, want %d", err, got, want)
		}
	}
}

// Each direction ends by itself, and what was said before is not lost.
func TestHalfClose(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		conn, err := back.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write(bytes.ToUpper(all))
	}()
	addr := serve(t, func(ctx context.Context, _ net.Conn) (net.Conn, error) {
		return dialHost(ctx, netip.MustParseAddrPort(back.Addr().String()))
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := bytes.Repeat([]byte("hello "), 100_000)
	_, _ = conn.Write(say)
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, bytes.ToUpper(say)) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// A connection in which nothing happens ends after a while; one of which only one way is used does not.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a1, a2 := net.Pipe()
		b1, b2 := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			join(context.Background(), a2, b2)
		}()
		began := time.Now()
		buf := make([]byte, 16)
		for range 5 {
			time.Sleep(idleLimit - time.Second)
			_, _ = a1.Write([]byte("x"))
			if _, err := b1.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		<-done
		if d := time.Since(began); d < 5*(idleLimit-time.Second)+idleLimit || d > 6*idleLimit {
			t.Errorf("it ended after %v", d)
		}
	})
}

// A listener that fails is made again; the end of the server ends its connections.
func TestListenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		log := logrus.New()
		log.SetOutput(t.Output())
		s := &Server{Name: "test", Log: logrus.NewEntry(log), Listen: func(context.Context) (net.Listener, error) {
			tries++
			return nil, errors.New("no dataplane")
		}}
		ctx, cancel := context.WithTimeout(context.Background(), 10*listenRetry-time.Millisecond)
		defer cancel()
		if err := s.Run(ctx); err != nil || tries != 10 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}
