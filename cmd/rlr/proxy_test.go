package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"rlr/internal/ctl"
)

// TestProxies: two routers on a cable. A program on one host fetches a page from a program on the other, by SOCKS into the
// networks, and by an exposed service out of them, and asks a name server there for where that is.
func TestProxies(t *testing.T) { eachDataplane(t, playProxies) }

const nearSide = `
router: {name: near}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [10.1.0.1/32]}
  eth0: {memif: {socket: %s, role: master}, addresses: [10.0.0.1/24, "fd00::1/64"]}
static: [{prefix: 10.2.0.1/32, via: [{address: 10.0.0.2}]}]
services: {socks5: {listen: "%s", dns: [10.9.9.9, 10.2.0.1]}}
`

const farSide = `
router: {name: far}
dataplane: {kind: %s}
interfaces:
  dum0: {loopback: true, addresses: [10.2.0.1/32]}
  eth0: {memif: {socket: %s, role: slave}, addresses: [10.0.0.2/24, "fd00::2/64"]}
static: [{prefix: 10.1.0.1/32, via: [{address: 10.0.0.1}]}]
`

func playProxies(t *testing.T, kind string) {
	dir := shortTemp(t)
	cable, socks := filepath.Join(dir, "cable.sock"), fmt.Sprintf("127.0.0.1:%d", freeTCP(t))
	body := make([]byte, 2<<20)
	_, _ = rand.Read(body)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(web.Close)
	exposed := fmt.Sprintf("services:\n  expose:\n    - {listen: \"10.2.0.1:80\", to: \"%[1]s\"}\n    - {listen: \"[::]:8080\", to: \"%[1]s\"}\n    - {listen: \"10.2.0.1:53\", to: \"%[2]s\"}\n",
		web.Listener.Addr(), nameServer(t, "web.dn42.", netip.MustParseAddr("10.2.0.1")))
	far := fmt.Sprintf(farSide, kind, cable)
	near := routerIn(t, dir, "near", fmt.Sprintf(nearSide, kind, cable, socks))
	other := routerIn(t, dir, "far", far+exposed)

	proxy, _ := url.Parse("socks5h://" + socks)
	client := &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}, Timeout: 10 * time.Second,
	}
	fetch := func(url string) error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		got, err := io.ReadAll(r.Body)
		if err == nil && !bytes.Equal(got, body) {
			err = fmt.Errorf("%d bytes that are not the page", len(got))
		}
		return err
	}
	fetches := func(urls ...string) {
		t.Helper()
		for _, u := range urls {
			awaiting(t, time.Minute, func(context.Context) error { return fetch(u) })
		}
	}
	const byAddress, byIPv6, byName = "http://10.2.0.1/", "http://[fd00::2]:8080/", "http://web.dn42/"
	fetches(byAddress, byIPv6, byName)
	if curl, err := exec.LookPath("curl"); err == nil {
		out, err := exec.Command(curl, "-sS", "-m", "20", "-x", "socks5h://"+socks, byName).Output()
		if err != nil || !bytes.Equal(out, body) {
			t.Errorf("curl: %d bytes, %v", len(out), err)
		}
	}
	for target, want := range map[string]string{
		"http://10.2.0.1:81/": "connection refused", "http://10.99.0.1/": "unreachable", "http://nothing.dn42/": "host unreachable",
	} {
		if err := fetch(target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
	}

	// A reload takes away what is not configured any more, and no other.
	reload := func(text string, changes ...string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "far.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		done, err := other.Reload(t.Context())
		if err != nil || strings.Join(done.Changes, "; ") != strings.Join(changes, "; ") {
			t.Fatalf("reload: %q, %v", done.Changes, err)
		}
	}
	reload(far+strings.Replace(exposed, "    - {listen: \"10.2.0.1:80\"", "    - {listen: \"10.2.0.1:82\"", 1),
		"exposed service 10.2.0.1:80 removed", "exposed service 10.2.0.1:82 added")
	fetches("http://10.2.0.1:82/", byIPv6)
	awaiting(t, time.Minute, func(context.Context) error {
		if err := fetch(byAddress); err == nil || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("what is not exposed any more: %w", err)
		}
		return nil
	})
	reload(far+exposed, "exposed service 10.2.0.1:82 removed", "exposed service 10.2.0.1:80 added")
	fetches(byAddress)

	// The dataplane's end is not the end of what it serves.
	if kind == "vpp" {
		for _, c := range []*ctl.Client{near, other} {
			status, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(int(status.Dataplane.PID), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		fetches(byAddress, byName)
	}
}

// nameServer answers over TCP for one name (RFC 7766).
func nameServer(t *testing.T, name string, addr netip.Addr) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	answer := func(conn net.Conn) error {
		defer conn.Close()
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return err
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			return err
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		switch q := m.Questions[0]; {
		case q.Name.String() != name:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
		out, err := m.Pack()
		if err != nil {
			return err
		}
		_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := answer(conn); err != nil {
				t.Logf("name server: %v", err)
			}
		}
	}()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}
