package rootless

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be a vpp: `TESTBINARY fakevpp MODE -c DIR/startup.conf`.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "fakevpp" {
		os.Exit(fakeVPP(os.Args[2], filepath.Dir(os.Args[4])))
	}
	os.Exit(m.Run())
}

// fakeVPP does what the supervisor sees of a VPP.
func fakeVPP(mode, dir string) int {
	switch mode {
	case "dies":
		fmt.Println("unknown input `frobnicate'")
		return 3
	case "hangs": // never opens its socket
		time.Sleep(time.Minute)
		return 0
	}
	if mode == "stubborn" {
		signal.Ignore(syscall.SIGTERM)
	}
	l, err := net.Listen("unix", SocketsIn(dir).API)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	timer := -1
	if mode == "hasty" {
		if timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		if mode == "hasty" {
			every := unix.NsecToTimespec(hastyPeriod.Nanoseconds())
			if err := unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		if mode != "mute" {
			go fakeAnswer(c)
		}
	}
}

// fakeAnswer answers one sockclnt_create.
func fakeAnswer(c net.Conn) {
	defer c.Close()
	var request [socketHeader + 2 + 4 + answerNameLength]byte
	if _, err := io.ReadFull(c, request[:]); err != nil {
		return
	}
	if binary.BigEndian.Uint32(request[8:]) != 70 || binary.BigEndian.Uint16(request[16:]) != sockclntCreate {
		return
	}
	reply := make([]byte, socketHeader+2+4+4+4+4+2)
	binary.BigEndian.PutUint32(reply[8:], uint32(len(reply)-socketHeader))
	binary.BigEndian.PutUint16(reply[socketHeader:], sockclntCreate+1)
	_, _ = c.Write(reply)
}

// fakeBinary installs a vpp of the given kind and returns its path.
func fakeBinary(t *testing.T, mode string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(shortDir(t), "vpp")
	script := fmt.Sprintf("#!/bin/sh\nGORACE=atexit_sleep_ms=0 exec '%s' fakevpp %s \"$@\"\n", self, mode)
	if err := os.WriteFile(p, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// shortDir is a folder whose sockets have short paths.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// sharedMemory lists the files that a VPP in the router's folder dir has under /dev/shm.
func sharedMemory(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/dev/shm/" + sharedPrefix(filepath.Join(dir, "vpp")) + "*")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func contains(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one about %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}
