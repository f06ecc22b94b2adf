package vppagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/vpe"
	"go.fd.io/govpp/codec"
	"go.fd.io/govpp/core"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// listen serves one connection at a time with serve.
func listen(t *testing.T, serve func(net.Conn)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket
}

// readFrame reads a message from a client.
func readFrame(c net.Conn) ([]byte, error) {
	var header [binapi.FrameHeader]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint32(header[8:12]))
	_, err := io.ReadFull(c, msg)
	return msg, err
}

// handshake answers a client's first message with a table of one message.
func handshake(c net.Conn) error {
	if _, err := readFrame(c); err != nil {
		return err
	}
	msg, err := codec.EncodeMsg(&memclnt.SockclntCreateReply{
		Index: 7, Count: 1, MessageTable: []memclnt.MessageTableEntry{{Index: 99, Name: "show_version_51077d14"}},
	}, 16)
	if err != nil {
		return err
	}
	_, err = c.Write(frame(nil, msg))
	return err
}

func ended(t *testing.T, tr *transport) {
	t.Helper()
	select {
	case <-tr.Done():
	case <-time.After(time.Minute):
		t.Fatal("the end of the connection is not noticed")
	}
	if tr.Err() == nil {
		t.Error("no reason for the end")
	}
}

func TestTransportNoticesTheEnd(t *testing.T) {
	for name, last := range map[string]func(net.Conn){
		"closed":             func(net.Conn) {},
		"half a header":      func(c net.Conn) { _, _ = c.Write(make([]byte, 5)) },
		"half a message":     func(c net.Conn) { _, _ = c.Write(append(frame(nil, make([]byte, 100))[:50], 0)) },
		"a huge message":     func(c net.Conn) { _, _ = c.Write([]byte{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 15: 0}); wait(c) },
		"an empty message":   func(c net.Conn) { _, _ = c.Write(frame(nil, nil)) },
		"a message too many": func(c net.Conn) { _, _ = c.Write(frame(nil, []byte{0, 99, 0, 0, 0, 1})) },
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTransport(listen(t, func(c net.Conn) {
				if err := handshake(c); err == nil {
					last(c)
				}
			}), "test")
			if err := tr.Connect(); err != nil {
				t.Fatal(err)
			}
			ended(t, tr)
			if err := tr.SendMsg(1, make([]byte, 10)); err == nil {
				t.Error("sent after the end")
			}
			if err := tr.Disconnect(); err != nil {
				t.Error(err)
			}
		})
	}
}

// wait keeps a connection open until the client closes it.
func wait(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func TestTransportRefusesWhatIsNoVPP(t *testing.T) {
	refused := func(c net.Conn) {
		_, _ = readFrame(c)
		msg, _ := codec.EncodeMsg(&memclnt.SockclntCreateReply{Response: -1}, 16)
		_, _ = c.Write(frame(nil, msg))
		wait(c)
	}
	garbage := func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.9\r\n")); wait(c) }
	for name, serve := range map[string]func(net.Conn){"closed": func(net.Conn) {}, "refused": refused, "garbage": garbage} {
		tr := newTransport(listen(t, serve), "test")
		if err := tr.Connect(); err == nil {
			t.Errorf("%s: connected", name)
			_ = tr.Disconnect()
		}
	}
	silent := newTransport(listen(t, wait), "test")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := silent.connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	nobody := newTransport(filepath.Join(t.TempDir(), "nobody"), "test")
	if err := nobody.Connect(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
}

// TestTransportKeepsOrder sends more than fits while nobody reads, and ends while somebody waits to send.
func TestTransportKeepsOrder(t *testing.T) {
	const n, size = 4000, 1000
	read := make(chan struct{})
	result := make(chan error, 1)
	tr := newTransport(listen(t, func(c net.Conn) {
		if err := handshake(c); err != nil {
			result <- err
			return
		}
		<-read
		for i := range n {
			msg, err := readFrame(c)
			if err == nil && (len(msg) != size || binary.BigEndian.Uint32(msg[2:]) != 7 || binary.BigEndian.Uint32(msg[6:]) != uint32(i)) {
				err = fmt.Errorf("message %d is % x…", i, msg[:10])
			}
			if err != nil {
				result <- err
				return
			}
		}
		result <- nil
		<-read
	}), "test")
	if err := tr.Connect(); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := tr.SendMsg(uint32(i), make([]byte, size)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
		for tr.SendMsg(0, make([]byte, size)) == nil { // until the end, and nobody reads
		}
		sent <- nil
	}()
	read <- struct{}{}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := tr.Disconnect(); err != nil {
		t.Error(err)
	}
	<-sent
	close(read)
	if id, err := tr.GetMsgID("show_version", "51077d14"); err != nil || id != 99 {
		t.Errorf("GetMsgID: %d, %v", id, err)
	}
	if _, err := tr.GetMsgID("show_version", "00000000"); err == nil {
		t.Error("another CRC is found")
	}
}

// TestTransportIsAGovppAdapter puts govpp's own connection on it.
func TestTransportIsAGovppAdapter(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		conn, err := core.Connect(newTransport(d.APISocket, "test"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Disconnect()
		reply, err := vpe.NewServiceClient(conn).ShowVersion(context.Background(), &vpe.ShowVersion{})
		if err != nil || reply.Version == "" {
			t.Errorf("%+v, %v", reply, err)
		}
	})
}
