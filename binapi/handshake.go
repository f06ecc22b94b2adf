package binapi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/codec"
)

// SockclntCreateID is the id of sockclnt_create in every VPP: the one message whose id a client must know before it has the
// table (VL_API_SOCKCLNT_CREATE, from the order of src/vlibmemory/vl_memory_msg_enum.h and memclnt.api).
const SockclntCreateID = 15

// FrameHeader is the length of the header before each message on the API socket: 8 unused bytes, the message's length in
// network order, 4 unused bytes (msgbuf_t in src/vlibmemory).
const FrameHeader = 16

// maxTable bounds the reply that ReadMessageTable accepts, bytes. A VPP with every plugin has some 3,000 entries of 66 bytes.
const maxTable = 4 << 20

// MessageTable is a VPP's message table: the id of each name_crc.
type MessageTable map[string]uint16

// CRC returns the CRC of a message by name, or "" when the table does not have it.
func (t MessageTable) CRC(name string) string {
	for key := range t {
		// A name may be the beginning of another (ip_route_add_del, ip_route_add_del_v2): the CRC is what follows the last "_".
		if i := strings.LastIndexByte(key, '_'); i >= 0 && key[:i] == name {
			return key[i+1:]
		}
	}
	return ""
}

// ReadMessageTable connects to VPP's API socket, reads the message table and disconnects. The context bounds it all; without a
// deadline of its own it takes at most 5 s.
func ReadMessageTable(ctx context.Context, socket string) (MessageTable, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connecting to VPP's API: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	table, err := handshake(conn)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("reading the message table of %s: %w", socket, err)
	}
	return table, nil
}

func handshake(conn io.ReadWriter) (MessageTable, error) {
	msg, err := codec.EncodeMsg(&memclnt.SockclntCreate{Name: "rlr-check"}, SockclntCreateID)
	if err != nil {
		return nil, err
	}
	frame := append(make([]byte, FrameHeader), msg...)
	binary.BigEndian.PutUint32(frame[8:12], uint32(len(msg)))
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	var header [FrameHeader]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[8:12])
	if n < 2 || n > maxTable {
		return nil, fmt.Errorf("reply of %d bytes", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(conn, data); err != nil {
		return nil, err
	}
	return decodeTable(data)
}

func decodeTable(data []byte) (MessageTable, error) {
	var reply memclnt.SockclntCreateReply
	if err := codec.DecodeMsg(data, &reply); err != nil {
		return nil, fmt.Errorf("decoding the reply: %w", err)
	}
	if reply.Response != 0 {
		return nil, fmt.Errorf("VPP refused with %d", reply.Response)
	}
	table := make(MessageTable, len(reply.MessageTable))
	for _, e := range reply.MessageTable {
		name, _, _ := strings.Cut(e.Name, "\x00")
		table[name] = e.Index
	}
	return table, nil
}
