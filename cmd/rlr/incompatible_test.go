package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
)

// TestIncompatible plays testdata/incompatible against a dataplane whose table of messages was changed on its way.
func TestIncompatible(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		socket := filepath.Join(d.Dir, "changed.sock")
		changeTable(t, socket, d.APISocket, func(table []memclnt.MessageTableEntry) []memclnt.MessageTableEntry {
			table = slices.DeleteFunc(table, func(e memclnt.MessageTableEntry) bool {
				return isMessage(e, "create_loopback")
			})
			for i, e := range table {
				if isMessage(e, "ip_route_add_del_v2") {
					table[i].Name = "ip_route_add_del_v2_0badcafe"
				}
			}
			return table
		})
		testscript.Run(t, testscript.Params{
			Dir: "testdata/incompatible",
			Setup: func(env *testscript.Env) error {
				env.Setenv("ATTACH", socket)
				env.Setenv("VPP_PREFIX", installation(t))
				return ownRuntime(env)
			},
			Cmds: scriptCommands(),
		})
	})
}

// isMessage says whether an entry of a table, NAME_CRC, is of a message by that name.
func isMessage(e memclnt.MessageTableEntry, name string) bool {
	key, _, _ := strings.Cut(e.Name, "\x00")
	crc, ok := strings.CutPrefix(key, name+"_")
	return ok && len(crc) == 8 && !strings.Contains(crc, "_")
}

// installation is the prefix of the installed VPP, else one that looks like it: to attach takes the client library, which is
// not loaded before there is a dataplane to connect to.
func installation(t *testing.T) string {
	t.Helper()
	if prefix := vppPrefix(); prefix != "" {
		return prefix
	}
	prefix := t.TempDir()
	for _, file := range []string{"bin/vpp", "lib/libvppcom.so"} {
		path := filepath.Join(prefix, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return prefix
}

// changeTable passes connections to a new socket on to a dataplane's, and changes the table of messages in its first answer.
func changeTable(t *testing.T, socket, api string, change func([]memclnt.MessageTableEntry) []memclnt.MessageTableEntry) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := passChanged(client, api, change); err != nil {
					t.Errorf("between router and dataplane: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

func passChanged(client net.Conn, api string, change func([]memclnt.MessageTableEntry) []memclnt.MessageTableEntry) error {
	defer client.Close()
	vpp, err := net.Dial("unix", api)
	if err != nil {
		return err
	}
	defer vpp.Close()
	asked := make(chan struct{})
	go func() { // what the router says, until it or the dataplane has had enough
		defer close(asked)
		_, _ = io.Copy(vpp, client)
		vpp.Close()
	}()
	defer func() { client.Close(); <-asked }()

	var header [binapi.FrameHeader]byte
	if _, err := io.ReadFull(vpp, header[:]); err != nil {
		return goodbye(err)
	}
	data := make([]byte, binary.BigEndian.Uint32(header[8:12]))
	if _, err := io.ReadFull(vpp, data); err != nil {
		return goodbye(err)
	}
	var reply memclnt.SockclntCreateReply
	if err := codec.DecodeMsg(data, &reply); err != nil {
		return err
	}
	reply.MessageTable = change(reply.MessageTable)
	reply.Count = uint16(len(reply.MessageTable))
	if data, err = codec.EncodeMsg(&reply, binary.BigEndian.Uint16(data)); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(header[8:12], uint32(len(data)))
	if _, err := client.Write(append(header[:], data...)); err != nil {
		return goodbye(err)
	}
	_, err = io.Copy(client, vpp)
	return goodbye(err)
}

// goodbye makes nothing of the error by which a connection ended.
func goodbye(err error) error {
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
