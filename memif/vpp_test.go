package memif

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

// vpp is a real VPP for one test, with the memif and ping plugins only (the latter answers echo requests).
type vpp struct {
	t      *testing.T
	dir    string
	prefix string
}

// startVPP runs $VPP_PREFIX/bin/vpp unprivileged-style in a folder of its own. Without that variable the test is
// skipped, or fails with RLR_REQUIRE_VPP=1.
func startVPP(t *testing.T) *vpp {
	t.Helper()
	prefix := os.Getenv("VPP_PREFIX")
	if prefix == "" {
		if os.Getenv("RLR_REQUIRE_VPP") == "1" {
			t.Fatal("RLR_REQUIRE_VPP=1, but VPP_PREFIX is not set")
		}
		t.Skip("no VPP_PREFIX")
	}
	v := &vpp{t: t, dir: shortDir(t), prefix: prefix}
	conf := fmt.Sprintf(`unix { nodaemon runtime-dir %[1]s cli-listen %[1]s/cli }
api-segment { prefix %[2]s }
statseg { socket-name %[1]s/stats size 8M }
memory { main-heap-size 128M }
buffers { buffers-per-numa 4096 default data-size 2048 }
plugins { plugin default { disable } plugin memif_plugin.so { enable } plugin ping_plugin.so { enable } }
`, v.dir, filepath.Base(v.dir))
	file := filepath.Join(v.dir, "startup.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(prefix, "bin", "vpp"), "-c", file)
	cmd.Stdout, cmd.Stderr = &out, &out
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
		if t.Failed() {
			for line := range strings.Lines(out.String()) {
				if !strings.Contains(line, "vat-plug/load") {
					t.Log("vpp: ", line)
				}
			}
		}
	})
	eventually(t, "VPP's CLI socket", func() bool {
		select {
		case <-ended:
			t.Fatalf("vpp ended:\n%s", out.String())
		default:
		}
		_, err := v.try("show version")
		return err == nil
	})
	return v
}

func (v *vpp) try(line string) (string, error) {
	out, err := exec.Command(filepath.Join(v.prefix, "bin", "vppctl"), append([]string{"-s", v.dir + "/cli"}, strings.Fields(line)...)...).CombinedOutput()
	return string(out), err
}

// run gives one CLI command, which must say nothing bad.
func (v *vpp) run(line string) string {
	v.t.Helper()
	out, err := v.try(line)
	if err != nil || strings.Contains(out, "unknown input") || strings.Contains(out, "error") || strings.Contains(out, "failed") {
		v.t.Fatalf("vppctl %s: %v\n%s", line, err, out)
	}
	return out
}

var (
	vppMAC  = []byte{2, 0xaa, 0, 0, 0, 1}
	ourMAC  = []byte{2, 0xbb, 0, 0, 0, 2}
	vppAddr = []byte{192, 0, 2, 1}
	ourAddr = []byte{192, 0, 2, 2}
)

// echo is an ICMP echo request of n payload bytes, in an ethernet frame or not.
func echo(mode Mode, seq uint16, n int) []byte {
	var f []byte
	if mode == Ethernet {
		f = append(append(append(f, vppMAC...), ourMAC...), 8, 0)
	}
	ip := make([]byte, 20, 20+8+n)
	ip[0], ip[8], ip[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(ip[2:], uint16(28+n))
	copy(ip[12:], ourAddr)
	copy(ip[16:], vppAddr)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	icmp := make([]byte, 8+n)
	icmp[0] = 8
	binary.BigEndian.PutUint16(icmp[6:], seq)
	for k := range n {
		icmp[8+k] = byte(k) ^ byte(seq)
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return append(append(f, ip...), icmp...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for k := 0; k+1 < len(b); k += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[k:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// replySeq gives the sequence number of an echo reply with an intact payload.
func replySeq(mode Mode, f []byte) (uint16, int, bool) {
	if mode == Ethernet {
		if len(f) < 14 || !bytes.Equal(f[:6], ourMAC) || !bytes.Equal(f[6:12], vppMAC) {
			return 0, 0, false
		}
		f = f[14:]
	}
	if len(f) < 28 || f[9] != 1 || f[20] != 0 || int(binary.BigEndian.Uint16(f[2:])) != len(f) || checksum(f[20:]) != 0 {
		return 0, 0, false
	}
	seq := binary.BigEndian.Uint16(f[26:])
	for k, b := range f[28:] {
		if b != byte(k)^byte(seq) {
			return 0, 0, false
		}
	}
	return seq, len(f) - 28, true
}

// pinger holds the readers of one end: one goroutine a queue, for the whole test.
type pinger struct {
	t    *testing.T
	end  *end
	mode Mode
	got  chan [2]int
}

func newPinger(t *testing.T, e *end, mode Mode) *pinger {
	p := &pinger{t: t, end: e, mode: mode, got: make(chan [2]int, 1000)}
	for q := range e.Queues() {
		go func() {
			_ = newReceiver(32, 20000).receive(e.Interface, q, 1<<30, func(_ int, f []byte) bool {
				if seq, n, ok := replySeq(mode, f); ok {
					p.got <- [2]int{int(seq), n}
				}
				return true
			})
		}()
	}
	return p
}

// ping sends count echo requests in batches over all queues, and wants every reply.
func (p *pinger) ping(count, most int) {
	p.t.Helper()
	size := func(seq int) int { return seq * 37 % most }
	seen := map[int]bool{}
	for k := 0; k < count; {
		var batch [][]byte
		for ; len(batch) < 16 && k < count; k++ {
			batch = append(batch, echo(p.mode, uint16(k), size(k)))
		}
		sendAll(p.t, p.end.Interface, k/16, batch)
		for range batch {
			select {
			case r := <-p.got:
				if seen[r[0]] || r[1] != size(r[0]) {
					p.t.Fatalf("reply %d with %d bytes, want %d (or twice)", r[0], r[1], size(r[0]))
				}
				seen[r[0]] = true
			case <-time.After(patience):
				p.t.Fatalf("%d of %d replies: %+v", len(seen), count, p.end.Stats())
			}
		}
	}
	if s := p.end.Stats(); s.RxBad > 0 || s.RxTooLong > 0 {
		p.t.Errorf("%+v", s)
	}
}

func TestVPP(t *testing.T) {
	tests := []struct {
		name string
		ours Config
		vpp  string // options of "create interface memif"
		most int    // payload bytes
	}{
		{"VPP is master", Config{Role: Slave}, "master", 1400},
		{"VPP is master, ip mode, secret", Config{Role: Slave, Mode: IP, ID: 3, Secret: "open sesame"}, "id 3 master mode ip secret open sesame", 1400},
		{"VPP is master, jumbo", Config{Role: Slave}, "master", 8000},
		{"VPP is master, queues, largest ring it takes", Config{Role: Slave, Queues: 4, RingSize: 32768, BufferSize: 256}, "master rx-queues 2 tx-queues 2", 1400},
		{"VPP is slave", Config{Role: Master}, "slave no-zero-copy", 1400},
		{"VPP is slave, zero copy", Config{Role: Master}, "slave", 1400},
		{"VPP is slave, zero copy, jumbo", Config{Role: Master}, "slave", 8000},
		{"VPP is slave, jumbo, small ring", Config{Role: Master}, "slave no-zero-copy ring-size 256 buffer-size 1024", 8000},
		{"VPP is slave, queues, ip mode", Config{Role: Master, Mode: IP, Queues: 2}, "slave no-zero-copy rx-queues 4 tx-queues 4 mode ip", 1400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := startVPP(t)
			tt.ours.Socket, tt.ours.Name = filepath.Join(v.dir, "m"), "ours"
			v.run("create memif socket id 1 filename " + tt.ours.Socket)
			options := tt.vpp
			if strings.Contains(options, "secret ") { // the one value with a space
				options = strings.Replace(options, "open sesame", "opensesame", 1)
				tt.ours.Secret = "opensesame"
			}
			if !strings.HasPrefix(options, "id ") {
				options = "id 0 " + options
			}
			hw := ""
			if tt.ours.Mode == Ethernet {
				hw = " hw-addr 02:aa:00:00:00:01"
			}
			v.run("create interface memif socket-id 1 " + options + hw)
			name := fmt.Sprintf("memif1/%d", tt.ours.ID)
			v.run("set interface ip address " + name + " 192.0.2.1/24")
			if tt.ours.Mode == Ethernet {
				v.run("set ip neighbor " + name + " 192.0.2.2 02:bb:00:00:00:02")
			}
			e := start(t, tt.ours)
			if tt.ours.Role == Master {
				waitListener(t, tt.ours.Socket)
			}
			v.run("set interface state " + name + " up")
			e.waitLink(true)
			s := e.Stats()
			if !strings.HasPrefix(s.Peer.Software, "VPP ") || s.Peer.Interface != name {
				t.Errorf("peer %+v", s.Peer)
			}
			p := newPinger(t, e, tt.ours.Mode)
			for _, rxMode := range []string{"polling", "interrupt", "adaptive"} {
				v.run("set interface rx-mode " + name + " " + rxMode)
				p.ping(480, tt.most)
			}
			// The other side goes and comes back.
			v.run("delete interface memif " + name)
			e.waitLink(false)
			e.waitError("interface deleted")
		})
	}
}

// TestVPPRefuses: VPP's reasons arrive, and ours arrive at VPP.
func TestVPPRefuses(t *testing.T) {
	v := startVPP(t)
	sock := filepath.Join(v.dir, "m")
	v.run("create memif socket id 1 filename " + sock)
	v.run("create interface memif socket-id 1 id 0 master secret right")
	v.run("set interface state memif1/0 up")
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{ID: 5}, "unmatched interface id"},
		{Config{Mode: IP, Secret: "right"}, "mode mismatch"},
		{Config{Secret: "wrong"}, "incorrect secret"},
		{Config{}, "secret required"},
	} {
		tt.cfg.Role, tt.cfg.Socket = Slave, sock
		e := start(t, tt.cfg)
		e.waitError(tt.want)
		e.close()
	}
	e := start(t, Config{Role: Slave, Socket: sock, Secret: "right"})
	e.waitLink(true)
	e.close()

	sock = filepath.Join(v.dir, "o")
	start(t, Config{Role: Master, Socket: sock, Secret: "ours"})
	waitListener(t, sock)
	v.run("create memif socket id 2 filename " + sock)
	v.run("create interface memif socket-id 2 id 0 slave secret theirs")
	v.run("set interface state memif2/0 up")
	eventually(t, "our reason in VPP", func() bool {
		out, _ := v.try("show memif memif2/0")
		return strings.Contains(out, "incorrect secret")
	})
}

// TestVPPDies: a killed VPP is noticed at once, and a new one is connected to.
func TestVPPRestart(t *testing.T) {
	v := startVPP(t)
	sock := filepath.Join(v.dir, "m")
	create := func(v *vpp) {
		v.run("create memif socket id 1 filename " + sock)
		v.run("create interface memif socket-id 1 id 0 master mode ip")
		v.run("set interface ip address memif1/0 192.0.2.1/24")
		v.run("set interface state memif1/0 up")
	}
	e := start(t, Config{Role: Slave, Mode: IP, Socket: sock})
	create(v)
	e.waitLink(true)
	v.run("set interface rx-mode memif1/0 interrupt")
	newPinger(t, e, IP).ping(32, 1000)
	if _, err := v.try("restart"); err != nil {
		t.Log(err) // the CLI dies with it
	}
	e.waitLink(false)
	eventually(t, "VPP again", func() bool { _, err := v.try("show version"); return err == nil })
	create(v)
	e.waitLink(true)
}
