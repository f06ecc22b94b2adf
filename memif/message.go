package memif

// The control messages of memif 2.0: 128 bytes each, packed, in host byte order (both ends share a machine, and
// every machine that this program is built for is little-endian). The layout is that of VPP's
// src/plugins/memif/memif.h (memif_msg_t); descriptors travel beside a message as SCM_RIGHTS, see conn.go.
//
// A message is decoded into plain Go values once and never looked at again as bytes. Decoding accepts every
// 128-byte message of a known type; what the values may be is judged where they are used.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	messageSize = 128

	// protocolVersion is memif 2.0, the only version there is.
	protocolVersion = 2 << 8

	// ringCookie begins every ring (MEMIF_COOKIE).
	ringCookie = 0x3E31F20

	secretSize = 24
	nameSize   = 32
	reasonSize = 96
)

type messageType uint16

const (
	typeAck           messageType = 1
	typeHello         messageType = 2
	typeInit          messageType = 3
	typeAddRegion     messageType = 4
	typeAddRing       messageType = 5
	typeConnect       messageType = 6
	typeConnected     messageType = 7
	typeDisconnect    messageType = 8
	addRingFlagS2M                = 1 << 0
	descFlagNext                  = 1 << 0
	ringFlagMaskInt               = 1 << 0
	maxRegions                    = 256
	maxQueues                     = 256
	maxLog2RingSize               = 15 // indexes are 16 bits wide: a full ring of 2^16 would look empty
	minRingSize                   = 2
	maxRingSize                   = 1 << maxLog2RingSize
	maxBufferSize                 = 1<<16 - 1 // VPP keeps buffer and descriptor lengths in 16 bits
	minBufferSize                 = 64
	maxFrame                      = 1<<16 + 64 // a 64 KiB packet and its link header
	defaultRingSize               = 1024
	defaultBufferSize             = 2048
)

func (t messageType) String() string {
	names := [...]string{"none", "ack", "hello", "init", "add-region", "add-ring", "connect", "connected", "disconnect"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// message is any of the structs below.
type message interface {
	kind() messageType
	put(b []byte) // writes the body, b begins after the type
}

type ackMessage struct{}

// helloMessage is the master's first word: what it can take. The ring and region fields are the highest index.
type helloMessage struct {
	Name                   string
	MinVersion, MaxVersion uint16
	MaxRegion              uint16
	MaxM2S, MaxS2M         uint16
	MaxLog2RingSize        uint8
}

// initMessage is the slave's answer: which interface of the listener it wants.
type initMessage struct {
	Version uint16
	ID      uint32
	Mode    Mode
	Secret  string
	Name    string
}

type addRegionMessage struct {
	Index uint16
	Size  uint64
}

type addRingMessage struct {
	Flags             uint16
	Index             uint16
	Region            uint16
	Offset            uint32
	Log2Size          uint8
	PrivateHeaderSize uint16
}

type connectMessage struct{ Interface string }

type connectedMessage struct{ Interface string }

type disconnectMessage struct {
	Code   uint32
	Reason string
}

func (ackMessage) kind() messageType        { return typeAck }
func (helloMessage) kind() messageType      { return typeHello }
func (initMessage) kind() messageType       { return typeInit }
func (addRegionMessage) kind() messageType  { return typeAddRegion }
func (addRingMessage) kind() messageType    { return typeAddRing }
func (connectMessage) kind() messageType    { return typeConnect }
func (connectedMessage) kind() messageType  { return typeConnected }
func (disconnectMessage) kind() messageType { return typeDisconnect }

var le = binary.LittleEndian

func (ackMessage) put([]byte) {}

func (m helloMessage) put(b []byte) {
	putString(b[:nameSize], m.Name)
	le.PutUint16(b[32:], m.MinVersion)
	le.PutUint16(b[34:], m.MaxVersion)
	le.PutUint16(b[36:], m.MaxRegion)
	le.PutUint16(b[38:], m.MaxM2S)
	le.PutUint16(b[40:], m.MaxS2M)
	b[42] = m.MaxLog2RingSize
}

func (m initMessage) put(b []byte) {
	le.PutUint16(b, m.Version)
	le.PutUint32(b[2:], m.ID)
	b[6] = byte(m.Mode)
	copy(b[7:7+secretSize], m.Secret) // all 24 bytes count: a secret of that length has no terminator
	putString(b[31:31+nameSize], m.Name)
}

func (m addRegionMessage) put(b []byte) {
	le.PutUint16(b, m.Index)
	le.PutUint64(b[2:], m.Size)
}

func (m addRingMessage) put(b []byte) {
	le.PutUint16(b, m.Flags)
	le.PutUint16(b[2:], m.Index)
	le.PutUint16(b[4:], m.Region)
	le.PutUint32(b[6:], m.Offset)
	b[10] = m.Log2Size
	le.PutUint16(b[11:], m.PrivateHeaderSize)
}

func (m connectMessage) put(b []byte)   { putString(b[:nameSize], m.Interface) }
func (m connectedMessage) put(b []byte) { putString(b[:nameSize], m.Interface) }

func (m disconnectMessage) put(b []byte) {
	le.PutUint32(b, m.Code)
	putString(b[4:4+reasonSize], m.Reason)
}

// encode gives the 128 bytes of a message.
func encode(m message) []byte {
	b := make([]byte, messageSize)
	le.PutUint16(b, uint16(m.kind()))
	m.put(b[2:])
	return b
}

var errMessageSize = errors.New("malformed message")

// decode reads one message; it fails on a wrong size or an unknown type only.
func decode(raw []byte) (message, error) {
	if len(raw) != messageSize {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", errMessageSize, len(raw), messageSize)
	}
	b := raw[2:]
	switch t := messageType(le.Uint16(raw)); t {
	case typeAck:
		return ackMessage{}, nil
	case typeHello:
		return helloMessage{
			Name:       getString(b[:nameSize]),
			MinVersion: le.Uint16(b[32:]), MaxVersion: le.Uint16(b[34:]),
			MaxRegion: le.Uint16(b[36:]),
			MaxM2S:    le.Uint16(b[38:]), MaxS2M: le.Uint16(b[40:]),
			MaxLog2RingSize: b[42],
		}, nil
	case typeInit:
		return initMessage{
			Version: le.Uint16(b), ID: le.Uint32(b[2:]), Mode: Mode(b[6]),
			Secret: getRaw(b[7 : 7+secretSize]), Name: getString(b[31 : 31+nameSize]),
		}, nil
	case typeAddRegion:
		return addRegionMessage{Index: le.Uint16(b), Size: le.Uint64(b[2:])}, nil
	case typeAddRing:
		return addRingMessage{
			Flags: le.Uint16(b), Index: le.Uint16(b[2:]), Region: le.Uint16(b[4:]), Offset: le.Uint32(b[6:]),
			Log2Size: b[10], PrivateHeaderSize: le.Uint16(b[11:]),
		}, nil
	case typeConnect:
		return connectMessage{Interface: getString(b[:nameSize])}, nil
	case typeConnected:
		return connectedMessage{Interface: getString(b[:nameSize])}, nil
	case typeDisconnect:
		return disconnectMessage{Code: le.Uint32(b), Reason: getString(b[4 : 4+reasonSize])}, nil
	default:
		return nil, fmt.Errorf("unknown message type 0x%x", uint16(t))
	}
}

// putString copies s and leaves at least one zero after it, as C expects.
func putString(b []byte, s string) { copy(b[:len(b)-1], s) }

// getRaw reads up to the first zero, or all.
func getRaw(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// getString is getRaw for text that ends in logs: bytes that are not printable ASCII become "?".
func getString(b []byte) string {
	text := []byte(getRaw(b))
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = '?'
		}
	}
	return string(text)
}
