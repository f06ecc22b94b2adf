package memif

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRejected(t *testing.T) {
	tests := []struct {
		name          string
		master, slave Config
		want          string
	}{
		{"id", Config{ID: 1}, Config{ID: 2}, "unmatched interface id 2"},
		{"secret", Config{Secret: "right"}, Config{Secret: "wrong"}, "incorrect secret"},
		{"no secret", Config{Secret: "right"}, Config{}, "secret required"},
		{"secret prefix", Config{Secret: "right"}, Config{Secret: "righ"}, "incorrect secret"},
		{"mode", Config{Mode: IP}, Config{}, "mode mismatch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sock := filepath.Join(shortDir(t), "s")
			tt.master.Role, tt.master.Socket = Master, sock
			tt.slave.Role, tt.slave.Socket = Slave, sock
			master, slave := start(t, tt.master), start(t, tt.slave)
			slave.waitError("peer disconnected: " + tt.want)
			if master.Up() || slave.Up() {
				t.Error("link is up")
			}
			if tt.name != "id" {
				master.waitError(tt.want)
			}
		})
	}
}

func TestSecondSlaveIsRefused(t *testing.T) {
	sock := filepath.Join(shortDir(t), "s")
	_, first := pair(t, Config{Socket: sock})
	second := start(t, Config{Role: Slave, Socket: sock})
	second.waitError("already connected")
	if !first.Up() {
		t.Error("first slave lost its link")
	}
	first.close()
	second.waitLink(true)
}

func TestMastersShareASocket(t *testing.T) {
	sock := filepath.Join(shortDir(t), "s")
	one := start(t, Config{Role: Master, Socket: sock, ID: 1, Queues: 4})
	two := start(t, Config{Role: Master, Socket: sock, ID: 2, Queues: 2})
	sOne := start(t, Config{Role: Slave, Socket: sock, ID: 1})
	sTwo := start(t, Config{Role: Slave, Socket: sock, ID: 2})
	for _, e := range []*end{one, two, sOne, sTwo} {
		e.waitLink(true)
	}
	for k, e := range []struct{ m, s *end }{{one, sOne}, {two, sTwo}} {
		sendAll(t, e.s.Interface, 0, [][]byte{{byte(k)}})
		err := newReceiver(1, 10).receive(e.m.Interface, 0, 1, func(_ int, f []byte) bool { return f[0] == byte(k) })
		if err != nil {
			t.Fatal(err)
		}
	}
	// The same ID again is refused, and the end of one does not disturb the other.
	i, err := New(Config{Role: Master, Socket: sock, ID: 2, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already has an interface with id 2") {
		t.Errorf("second master with one id: %v", err)
	}
	select {
	case <-i.Ready():
		t.Error("ready in spite of the failure")
	default:
	}
	<-two.Ready()
	one.close()
	sOne.waitLink(false)
	if !two.Up() {
		t.Error("other interface went down")
	}
	two.close()
	if _, err := os.Lstat(sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket file after the last master: %v", err)
	}
}

func TestSocketFile(t *testing.T) {
	run := func(sock string) error {
		i, err := New(Config{Role: Master, Socket: sock, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return i.Run(ctx)
	}
	t.Run("mode", func(t *testing.T) {
		master, _ := pair(t, Config{})
		st, err := os.Stat(master.cfg.Socket)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	})
	t.Run("left-over is replaced", func(t *testing.T) {
		sock := filepath.Join(shortDir(t), "s")
		ln, err := net.Listen("unixpacket", sock)
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ln.Close()
		if err := run(sock); err != nil {
			t.Error(err)
		}
	})
	for _, network := range []string{"unixpacket", "unix"} {
		t.Run("live "+network, func(t *testing.T) {
			sock := filepath.Join(shortDir(t), "s")
			ln, err := net.Listen(network, sock)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			if err := run(sock); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(sock); err != nil {
				t.Errorf("live socket was removed: %v", err)
			}
		})
	}
	t.Run("not a socket", func(t *testing.T) {
		sock := filepath.Join(shortDir(t), "s")
		if err := os.WriteFile(sock, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(sock); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("got %v", err)
		}
		if b, _ := os.ReadFile(sock); string(b) != "precious" {
			t.Error("file was touched")
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if err := run(filepath.Join(shortDir(t), "none", "s")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("replaced by another is left alone", func(t *testing.T) {
		master, _ := pair(t, Config{})
		if err := os.Remove(master.cfg.Socket); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(master.cfg.Socket, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		master.close()
		if _, err := os.Lstat(master.cfg.Socket); err != nil {
			t.Error(err)
		}
	})
}
