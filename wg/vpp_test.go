package wg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startVPP runs $VPP_PREFIX/bin/vpp and gives a function for CLI commands, and its folder. Without that variable the
// test is skipped, or fails with RLR_REQUIRE_VPP=1.
func startVPP(t *testing.T) (cli func(line string) (string, error), dir string) {
	t.Helper()
	prefix := os.Getenv("VPP_PREFIX")
	if prefix == "" {
		if os.Getenv("RLR_REQUIRE_VPP") == "1" {
			t.Fatal("RLR_REQUIRE_VPP=1, but VPP_PREFIX is not set")
		}
		t.Skip("no VPP_PREFIX")
	}
	dir = shortDir(t)
	conf := fmt.Sprintf(`unix { nodaemon runtime-dir %[1]s cli-listen %[1]s/cli }
api-segment { prefix %[2]s }
statseg { socket-name %[1]s/stats size 8M }
memory { main-heap-size 128M }
buffers { buffers-per-numa 4096 default data-size 2048 }
plugins { plugin default { disable } plugin memif_plugin.so { enable } plugin ping_plugin.so { enable } }
`, dir, filepath.Base(dir))
	file := filepath.Join(dir, "startup.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(prefix, "bin", "vpp"), "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	cli = func(line string) (string, error) {
		args := append([]string{"-s", dir + "/cli"}, strings.Fields(line)...)
		out, err := exec.Command(filepath.Join(prefix, "bin", "vppctl"), args...).CombinedOutput()
		return string(out), err
	}
	eventually(t, "VPP's CLI", func() bool { _, err := cli("show version"); return err == nil })
	return cli, dir
}

// TestVPPAsDataplane: VPP finds its neighbour at the other end of a link by ARP and by ND, and pings through it.
func TestVPPAsDataplane(t *testing.T) {
	cli, dir := startVPP(t)
	socket := filepath.Join(dir, "wg")
	for _, line := range []string{
		"create memif socket id 1 filename " + socket,
		"create interface memif socket-id 1 id 0 master hw-addr " + siteMAC(2, 1).String(),
		"set interface state memif1/0 up",
		"set interface mtu packet 1420 memif1/0",
		"set interface ip address memif1/0 169.254.12.2/30",
		"set interface ip address memif1/0 fd42::2/64",
	} {
		if out, err := cli(line); err != nil || strings.Contains(out, "error") || strings.Contains(out, "unknown") {
			t.Fatalf("%s: %v %s", line, err, out)
		}
	}
	a, b := twoSites(t, func(_, b *Config) { b.Socket = socket })
	if out, err := cli("set interface rx-mode memif1/0 interrupt"); err != nil {
		t.Fatal(err, out)
	}
	go func() { // the far router, which answers every echo request
		for f := range a.dp.frames {
			if reply := echoReply(f); reply != nil {
				a.dp.send(reply)
			}
		}
	}()
	for _, line := range []string{"ping 169.254.12.1 repeat 3 interval 0.1 size 1300", "ping fd42::1 repeat 3 interval 0.1"} {
		eventually(t, line, func() bool {
			out, err := cli(line)
			return err == nil && strings.Contains(out, "3 received")
		})
	}
	if st := b.Status(); st.Answered < 2 || st.Malformed > 0 || st.Misplaced > 0 {
		t.Errorf("%+v", st)
	}
}

// echoReply turns an echo request of either family around; nil for anything else.
func echoReply(f []byte) []byte {
	f = bytes.Clone(f)
	dst, src := bytes.Clone(f[:6]), bytes.Clone(f[6:12])
	copy(f, src)
	copy(f[6:], dst)
	p := f[etherSize:]
	swap := func(at, n int) {
		first := bytes.Clone(p[at : at+n])
		copy(p[at:], p[at+n:at+2*n])
		copy(p[at+n:], first)
	}
	switch {
	case p[0]>>4 == 4 && p[9] == 1 && p[20] == 8:
		swap(12, 4)
		p[20] = 0
		sum := uint32(binary.BigEndian.Uint16(p[22:])) + 8<<8 // RFC 1624: the type has become less by 8
		binary.BigEndian.PutUint16(p[22:], uint16(sum+sum>>16))
		return f
	case p[0]>>4 == 6 && p[6] == icmpv6 && p[40] == 128:
		swap(8, 16)
		p[40], p[42], p[43] = 129, 0, 0
		binary.BigEndian.PutUint16(p[42:], icmpv6Sum(p))
		return f
	default:
		return nil
	}
}
