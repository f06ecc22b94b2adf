package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rlr/internal/ctl"
	"rlr/internal/web"
	"rlr/wg"
)

// service runs routers as a container platform does: a process with an environment, whose output is a log and whose state is
// asked by HTTP.
type service struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error
	mu   sync.Mutex
	out  bytes.Buffer
}

func (s *service) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (s *service) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// startService runs rlr with nothing but env as its environment.
func startService(t *testing.T, env []string, args ...string) *service {
	t.Helper()
	program, err := exec.LookPath("rlr") // testscript.Main has put it there
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, done: make(chan error, 1)}
	s.cmd = exec.Command(program, args...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = env, s, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() {
		if s.done != nil {
			_ = s.cmd.Process.Kill()
			<-s.done
		}
		if t.Failed() {
			t.Logf("the log of %v:\n%s", args, s.log())
		}
	})
	return s
}

// terminate sends SIGTERM and returns how long the process took to end, and how it did.
func (s *service) terminate(limit time.Duration) (time.Duration, error) {
	s.t.Helper()
	begun := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.done:
		s.done = nil
		return time.Since(begun), err
	case <-time.After(limit):
		return time.Since(begun), errors.New("it runs still")
	}
}

// probe asks a page for its status and, as JSON, for its checks.
func probe(url string) (int, []web.Check, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	var page struct{ Checks []web.Check }
	err = json.NewDecoder(res.Body).Decode(&page)
	return res.StatusCode, page.Checks, err
}

// awaitPage asks until ok says so.
func awaitPage(t *testing.T, s *service, url string, ok func(code int, checks []web.Check) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		code, checks, err := probe(url)
		if err == nil && ok(code, checks) {
			return
		}
		select {
		case err := <-s.done:
			s.done = nil
			t.Fatalf("the router ended: %v", err)
		case <-deadline:
			t.Fatalf("%s: %d %+v %v", url, code, checks, err)
		case <-tick.C:
		}
	}
}

// fromEnvironment has nothing of its own: that is the file in an image which is the same everywhere.
const fromEnvironment = `
router: {name: "${NAME}", as: "${AS}"}
dataplane: {kind: "${DATAPLANE}"}
interfaces:
  dum0: {loopback: true, addresses: "${ADDRESSES}"}
  peer1:
    wireguard:
      listen: ${WG_LISTEN}
      private-key: ${WG_KEY}
      preshared-key: ${WG_PSK}
      peer: {public-key: "${PEER_KEY}", endpoint: "${PEER_ENDPOINT}", keepalive: "${KEEPALIVE}"}
    addresses: ["${LINK_LOCAL}/64"]
    unnumbered: dum0
bgp:
  originate: ${PREFIXES}
  neighbors:
    - name: ${PEER_NAME}
      address: ${PEER_ADDRESS}
      interface: peer1
      as: ${PEER_AS}
      families: ${FAMILIES}
      import: ${IMPORT}
      export: ${EXPORT}
      connect-retry: ${RETRY}
services: {http: "${BIND}:${PORT}"}
log: {format: "${LOG}"}
`

// A router whose whole configuration and keys come from the environment, as on a container platform: it tells by HTTP that it is
// there and when it is ready, and is gone within 10 s of SIGTERM, having said goodbye to its peer.
func TestEnvironmentOnly(t *testing.T) { eachDataplane(t, playEnvironmentOnly) }

func playEnvironmentOnly(t *testing.T, kind string) {
	dir := shortTemp(t)
	file := filepath.Join(dir, "router.yaml")
	if err := os.WriteFile(file, []byte(fromEnvironment), 0o644); err != nil {
		t.Fatal(err)
	}
	udp1, udp2, tcp1, tcp2 := freeUDP(t), freeUDP(t), freeTCP(t), freeTCP(t)
	key1, key2 := newKey(t), newKey(t)
	psk, err := wg.NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	common := append(routerEnv(dir),
		"DATAPLANE="+kind, "WG_PSK="+psk.Base64(), "KEEPALIVE=25s", "FAMILIES=ipv4,ipv6", "IMPORT=all", "EXPORT=all", "RETRY=1s",
		"BIND=127.0.0.1", "LOG=json",
	)
	environment := func(me, peer int, listen, to, port int, own, theirs wg.PrivateKey) []string {
		return append(append([]string(nil), common...),
			fmt.Sprintf("NAME=router%d", me), fmt.Sprintf("AS=%d", 4242420000+me),
			fmt.Sprintf("ADDRESSES=172.20.%d.1/32,fd42:%d::1/128", me, me), fmt.Sprintf("PREFIXES=172.20.%d.0/27 fd42:%d::/48", me, me),
			fmt.Sprintf("LINK_LOCAL=fe80::%d", me), fmt.Sprintf("WG_LISTEN=127.0.0.1:%d", listen), "WG_KEY="+own.Base64(),
			"PEER_KEY="+theirs.Public().String(), fmt.Sprintf("PEER_ENDPOINT=127.0.0.1:%d", to), fmt.Sprintf("PEER_NAME=router%d", peer),
			fmt.Sprintf("PEER_ADDRESS=fe80::%d", peer), fmt.Sprintf("PEER_AS=%d", 4242420000+peer), fmt.Sprintf("PORT=%d", port))
	}
	router1 := startService(t, environment(1, 2, udp1, udp2, tcp1, key1, key2), "run", "-c", file)
	url1 := fmt.Sprintf("http://127.0.0.1:%d", tcp1)
	awaitPage(t, router1, url1+"/healthz", func(code int, _ []web.Check) bool { return code == http.StatusOK })
	// Its routes are written, and the peer is awaited.
	awaitPage(t, router1, url1+"/readyz", func(code int, checks []web.Check) bool {
		return code == http.StatusServiceUnavailable && len(checks) == 3 && checks[0].OK && checks[1].OK && !checks[2].OK
	})
	router2 := startService(t, environment(2, 1, udp2, udp1, tcp2, key2, key1), "run", "-c", file)
	awaitPage(t, router1, url1+"/readyz", func(code int, checks []web.Check) bool { return code == http.StatusOK })
	awaitPage(t, router2, fmt.Sprintf("http://127.0.0.1:%d/readyz", tcp2), func(code int, checks []web.Check) bool {
		return code == http.StatusOK && strings.Contains(checks[2].Detail, "1 of 1 sessions Established")
	})

	page, err := http.Get(url1 + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	figures, err := io.ReadAll(page.Body)
	page.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`rlr_bgp_session_up{as="4242420002",neighbor="router2"} 1`, "rlr_dataplane_up 1", `rlr_interface_up{interface="peer1",kind="wireguard"} 1`} {
		if !strings.Contains(string(figures), line+"\n") {
			t.Errorf("/metrics does not say %s:\n%s", line, figures)
		}
	}

	t.Setenv(ctl.RuntimeEnv, filepath.Join(dir, "r"))
	if kind == "vpp" {
		playDataplaneRestart(t, router1, url1)
	}

	took, err := router1.terminate(10 * time.Second)
	t.Logf("stopped %v after SIGTERM", took.Round(time.Millisecond))
	if err != nil {
		t.Errorf("after SIGTERM and %v: %v", took, err)
	}
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp1)); err == nil {
		c.Close()
		t.Error("the port is served still")
	}
	awaitGoodbye(t)
	for _, s := range []*service{router1, router2} {
		for _, secret := range []string{key1.Base64(), key2.Base64(), psk.Base64()} {
			if strings.Contains(s.log(), secret) {
				t.Error("a key is in the log")
			}
		}
	}
	if took, err := router2.terminate(10 * time.Second); err != nil {
		t.Errorf("router2, after %v: %v", took, err)
	}
}

// playDataplaneRestart kills router1's VPP: the router is not ready until the next one has the routes, and healthy all the time.
func playDataplaneRestart(t *testing.T, router1 *service, url string) {
	t.Helper()
	found, err := ctl.Find("router1")
	if err != nil {
		t.Fatal(err)
	}
	c := ctl.NewClient(found)
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || st.Dataplane.PID <= 1 {
		t.Fatalf("%+v %v", st.Dataplane, err)
	}
	if err := syscall.Kill(st.Dataplane.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ready := func(want int) {
		awaitPage(t, router1, url+"/readyz", func(code int, _ []web.Check) bool {
			if health, checks, err := probe(url + "/healthz"); err != nil || health != http.StatusOK {
				t.Errorf("/healthz: %d %+v %v", health, checks, err)
			}
			return code == want
		})
	}
	ready(http.StatusServiceUnavailable)
	ready(http.StatusOK)
}

// awaitGoodbye asks router2 until its peer has told it that it went.
func awaitGoodbye(t *testing.T) {
	t.Helper()
	found, err := ctl.Find("router2")
	if err != nil {
		t.Fatal(err)
	}
	c := ctl.NewClient(found)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := c.BGP(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 1 && strings.Contains(rows[0].LastError, "Cease") {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%+v", rows)
		case <-tick.C:
		}
	}
}

func newKey(t *testing.T) wg.PrivateKey {
	t.Helper()
	k, err := wg.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func freeUDP(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func freeTCP(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
