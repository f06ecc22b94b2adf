package netnstest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FRR is FRR's bgpd with the zebra that it needs to know interfaces.
type FRR struct{ *Far }

// StartFRR runs both on the far side, with their configurations. zebra is beside bgpd, or where it is usual.
func StartFRR(t *testing.T, f *Far, bgpd, zebraConfig, config string) *FRR {
	t.Helper()
	dir := filepath.Dir(bgpd)
	zebra := Program(t, "RLR_FRR_ZEBRA", filepath.Join(dir, "zebra"))
	zserv := filepath.Join(f.Dir, "zserv.api")
	common := func(name, text string) []string {
		return []string{
			"-f", f.File(name+".conf", "log stdout informational\n"+text), "-z", zserv, "-i", filepath.Join(f.Dir, name+".pid"),
			"--vty_socket", f.Dir, "-u", "root", "-g", "root", "-P", "0",
		}
	}
	Users(t, "frrvty", "frr")
	Run(t, "mount", "-t", "tmpfs", "none", "/var/run")
	if err := os.MkdirAll("/var/run/frr", 0o755); err != nil {
		t.Fatal(err)
	}
	f.Start(zebra, common("zebra", zebraConfig)...)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		if _, err := os.Stat(zserv); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	f.Start(bgpd, append(common("bgpd", config), "-p", "179")...)
	return &FRR{f}
}

// Vty asks bgpd what vtysh would: a command and a zero byte, an answer and three zero bytes with the result.
func (f *FRR) Vty(command string) string {
	conn, err := net.Dial("unix", filepath.Join(f.Dir, "bgpd.vty"))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	r := bufio.NewReader(conn)
	var said []byte
	for _, c := range []string{"enable", command} {
		fmt.Fprintf(conn, "%s\x00", c)
		said = said[:0]
		for !bytes.HasSuffix(said, []byte{0, 0, 0}) {
			b, err := r.ReadByte()
			if err != nil {
				return fmt.Sprintf("%v after %s", err, said)
			}
			said = append(said, b)
		}
		if _, err := r.ReadByte(); err != nil {
			return err.Error()
		}
	}
	return string(bytes.TrimRight(said, "\x00"))
}
