package minivpp

import (
	"errors"
	"fmt"
	"reflect"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/codec"
)

// The message table says which messages there are and what serves them. VPP gives each API file ("module") a block of
// consecutive ids when it starts, and tells clients the id of each name_crc; a client relies on nothing else, except that
// sockclnt_create has id 15. Modules, and the ids within them, come in the order of modules().

// wire is a generated message type M seen through its pointer.
type wire[M any] interface {
	*M
	api.Message
	codec.Marshaler
	codec.Unmarshaler
}

// message is one entry of the table.
type message struct {
	id    uint16
	proto api.Message
	// serve handles a request: data is the whole message, context what the reply must carry. It is nil for messages that
	// only go to clients: VPP has no handler for those either.
	serve func(c *client, context uint32, data []byte)
	// inside: the reply's retval is not at its beginning; who serves the request sets it.
	inside bool
}

// module is one API file.
type module struct {
	file    string // as in VPP: "interface"
	version string // of the API file: "3.2.3"
	crc     uint32 // of the API file
	group   []group
}

// group is a request with what answers it.
type group []message

type table struct {
	modules []module
	first   map[string]uint16 // the first id of a module by file_crc, for get_first_msg_id
	byID    map[uint16]*message
	byType  map[reflect.Type]uint16
	entries []message // in the order of ids
}

// firstID is where the ids of memclnt's successors start. memclnt's own are fixed (see memclnt.go).
const firstID = 100

func newTable(modules []module) (*table, error) {
	t := &table{
		modules: modules, first: map[string]uint16{}, byID: map[uint16]*message{}, byType: map[reflect.Type]uint16{},
	}
	next := uint16(firstID)
	for _, mod := range modules {
		t.first[fmt.Sprintf("%s_%08x", mod.file, mod.crc)] = next
		for _, g := range mod.group {
			for i := range g {
				m := g[i]
				if m.id == 0 {
					m.id = next
					next++
				}
				typ := reflect.TypeOf(m.proto)
				if _, ok := t.byType[typ]; ok || t.byID[m.id] != nil {
					return nil, fmt.Errorf("message %s is registered twice", m.proto.GetMessageName())
				}
				if err := checkReply(m.proto); err != nil && !m.inside {
					return nil, err
				}
				t.byID[m.id], t.byType[typ] = &m, m.id
				t.entries = append(t.entries, m)
			}
		}
	}
	return t, nil
}

// checkReply makes sure that a reply's retval is where reply writes it.
func checkReply(m api.Message) error {
	typ := reflect.TypeOf(m).Elem()
	if f, ok := typ.FieldByName("Retval"); ok && (f.Index[0] != 0 || f.Type.Kind() != reflect.Int32) {
		return fmt.Errorf("message %s does not start with its retval", m.GetMessageName())
	}
	return nil
}

// unary registers a request that has one reply. An error of fn becomes the reply's retval; the other fields of the reply
// are sent as fn left them, as VPP does.
func unary[Q, R any, PQ wire[Q], PR wire[R]](fn func(c *client, q PQ, r PR) error) group {
	return group{
		{proto: PQ(new(Q)), serve: func(c *client, context uint32, data []byte) {
			q := PQ(new(Q))
			if !c.decode(data, q) {
				return
			}
			r := PR(new(R))
			c.reply(context, r, retval(fn(c, q, r)))
		}},
		{proto: PR(new(R))},
	}
}

// unaryInside is unary for a reply whose retval is not at its beginning: fn sets it.
func unaryInside[Q, R any, PQ wire[Q], PR wire[R]](fn func(c *client, q PQ, r PR)) group {
	return group{
		{proto: PQ(new(Q)), serve: func(c *client, context uint32, data []byte) {
			q := PQ(new(Q))
			if !c.decode(data, q) {
				return
			}
			r := PR(new(R))
			fn(c, q, r)
			c.send(context, r)
		}},
		{proto: PR(new(R)), inside: true},
	}
}

// dump registers a request that is answered by any number of details and no reply: clients send a control_ping behind it
// to know where it ends.
func dump[Q, D any, PQ wire[Q], PD wire[D]](fn func(c *client, q PQ, send func(PD))) group {
	return group{
		{proto: PQ(new(Q)), serve: func(c *client, context uint32, data []byte) {
			q := PQ(new(Q))
			if !c.decode(data, q) {
				return
			}
			fn(c, q, func(d PD) {
				c.send(context, d)
				_ = c.throttle() // of a client that is given up, nothing more is sent; the reader hears of it
			})
		}},
		{proto: PD(new(D))},
	}
}

// event registers a message that only goes to clients.
func event[E any, PE wire[E]](PE) group { return group{{proto: PE(new(E))}} }

// retval converts a handler's error to the API's value: VPP's own numbers for errors that are api.VPPApiError,
// VNET_API_ERROR_UNSPECIFIED for the rest.
func retval(err error) int32 {
	var e api.VPPApiError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int32(e)
	default:
		return int32(api.UNSPECIFIED)
	}
}

// headerLen is the length of what precedes a message's own fields: its id, then client_index and context, or the context
// (in events: the client_index) alone.
func headerLen(m api.Message) int {
	switch m.GetMessageType() {
	case api.RequestMessage:
		return 10
	case api.ReplyMessage, api.EventMessage:
		return 6
	default:
		return 2
	}
}
