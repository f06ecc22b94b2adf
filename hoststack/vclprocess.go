package hoststack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// This file starts helper processes.

var releasePattern = regexp.MustCompile(`(?:^|\.)(\d\d\.\d\d)(?:\b|$)`)

const libraryCure = "is VPP's library of the release in use there, with the libraries beside it?"

// checkVersion compares the release of the library, which is in its name (libvppcom.so.26.06), with VPP's ("26.06-release").
// Names that tell none pass: what matters is whether it attaches.
func checkVersion(library, vpp string) error {
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		return fmt.Errorf("VPP's client library: %w", err)
	}
	lib := releasePattern.FindStringSubmatch(strings.TrimPrefix(filepath.Base(real), "libvppcom.so"))
	run := releasePattern.FindStringSubmatch(strings.TrimPrefix(vpp, "v"))
	if lib != nil && run != nil && lib[1] != run[1] {
		return fmt.Errorf("VPP's client library %s is of release %s, the VPP in use is %s: they share memory, so they must be of one release", real, lib[1], vpp)
	}
	return nil
}

// vclConfig is VCL's configuration of a helper. VCL reads it by lines, and takes no notice of one that is all in one line.
func vclConfig(socket, namespace string, secret uint64) string {
	var b strings.Builder
	b.WriteString("vcl {\n")
	fmt.Fprintf(&b, "  app-socket-api %s\n", socket)
	if namespace != "default" {
		fmt.Fprintf(&b, "  namespace-id %s\n  namespace-secret %d\n", namespace, secret)
	}
	// Sizes are of address space; memory is taken as it is used. A fifo is the most that TCP's window can be.
	b.WriteString(`  app-scope-global
  use-mq-eventfd
  heapsize 32M
  segment-size 67108864
  add-segment-size 67108864
  rx-fifo-size 1048576
  tx-fifo-size 1048576
  session-timeout 10.0
  app-timeout 10.0
}
`)
	return b.String()
}

// startTimeout bounds how long a helper may take to attach to VPP.
const startTimeout = 10 * time.Second

// startHelper starts a process, and waits until it is attached.
func (v *VCL) startHelper(ctx context.Context, key slotKey, log *logrus.Entry) (*client, error) {
	if _, err := os.Stat(v.opt.Library); err != nil {
		return nil, fmt.Errorf("VPP's client library: %w: %s", err, libraryCure)
	}
	if v.opt.Version != nil {
		if err := checkVersion(v.opt.Library, v.opt.Version()); err != nil {
			return nil, err
		}
	}
	namespace := namespaceID(v.opt.Name, key)
	socket := filepath.Join(v.opt.AppSockets, namespace)
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("VPP's application socket: %w: VPP is not running, or without session { enable use-app-socket-api }", err)
	}
	config := filepath.Join(v.opt.Dir, fmt.Sprintf("vcl-%s.conf", namespace))
	if err := writePrivate(config, vclConfig(socket, namespace, v.secret)); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c := &client{
		exited: make(chan struct{}), stderr: &lines{log: log}, log: log, gone: make(chan struct{}), control: conn.(*net.UnixConn),
		dials: make(map[uint64]*dialing), conns: make(map[uint64]*vclConn),
		listens: make(map[uint64]*listenCall), listeners: make(map[uint64]*vclListener),
	}
	c.cmd = v.command(config, socket, theirs, c.stderr)
	if err := c.cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("VCL helper: %w", err)
	}
	_ = theirs.Close()
	go func() {
		c.exitErr = c.cmd.Wait()
		close(c.exited)
	}()
	if err := c.ready(ctx); err != nil {
		_ = c.cmd.Process.Kill()
		<-c.exited
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (v *VCL) command(config, socket string, control *os.File, stderr *lines) *exec.Cmd {
	cmd := exec.Command(v.opt.Helper[0], v.opt.Helper[1:]...)
	cmd.ExtraFiles = []*os.File{control} // descriptor 3
	cmd.Stderr = stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the router, which has goodbyes to say
	cmd.Env = []string{
		// Go's preemption signals interrupt VCL's system calls, which it takes for errors.
		"GODEBUG=asyncpreemptoff=1",
		"GOTRACEBACK=single",
		envConfig + "=" + config,
		envLibrary + "=" + v.opt.Library,
		envSocket + "=" + socket,
		"LD_LIBRARY_PATH=" + filepath.Dir(v.opt.Library),
	}
	if level := os.Getenv("VCL_DEBUG"); level != "" {
		cmd.Env = append(cmd.Env, "VCL_DEBUG="+level)
	}
	return cmd
}

// ready waits for the helper's first message.
func (c *client) ready(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.control.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	b := make([]byte, maxMessage)
	n, err := c.control.Read(b)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("VCL helper: not attached to VPP after %s", startTimeout)
	case err != nil || n == 0:
		select {
		case <-c.exited:
		case <-time.After(time.Second):
		}
		return c.exitReason()
	}
	m, err := decode(b[:n])
	if err == nil && m.Op != opReady {
		err = fmt.Errorf("%w: %s comes first", errProtocol, m.Op)
	}
	if err != nil {
		return fmt.Errorf("VCL helper: %w", err)
	}
	return c.control.SetReadDeadline(time.Time{})
}

// writePrivate replaces a file that only we may read: there is a secret in it.
func writePrivate(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "vcl-*") // mode 0600
	if err != nil {
		return fmt.Errorf("VCL's configuration: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("VCL's configuration: %w", err)
	}
	return nil
}

// lines logs what a helper prints, and keeps its last line.
type lines struct {
	log *logrus.Entry

	mu   sync.Mutex
	part []byte
	text string
}

// maxLine bounds what is kept of a line.
const maxLine = 1024

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		l.part = append(l.part, line[:min(len(line), max(0, maxLine-len(l.part)))]...)
		if whole {
			l.lineLocked()
		}
		rest = after
	}
	return len(b), nil
}

func (l *lines) lineLocked() {
	if text := strings.TrimSpace(string(l.part)); text != "" {
		l.text = text
		l.log.WithField("line", text).Debug("VCL helper")
	}
	l.part = l.part[:0]
}

func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lineLocked()
	return l.text
}
