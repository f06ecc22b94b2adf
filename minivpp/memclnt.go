package minivpp

import (
	"os"
	"time"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/memclnt"
	"go.fd.io/govpp/binapi/vlib"
	"go.fd.io/govpp/binapi/vpe"
	"go.fd.io/govpp/binapi/vpe_types"

	"rlr/binapi"
)

// Messages about the connection and the program: memclnt.api, vpe.api and vlib.api.

// memclntModule has fixed ids for the handshake, as every VPP (the order in memclnt.api): a client sends sockclnt_create
// before it can know any id.
func (s *Server) memclntModule() module {
	handshake := func(id uint16, proto api.Message, serve func(*client, uint32, []byte)) message {
		return message{id: id, proto: proto, serve: serve}
	}
	return module{memclnt.APIFile, memclnt.APIVersion, memclnt.VersionCrc, []group{
		{
			handshake(binapi.SockclntCreateID, new(memclnt.SockclntCreate), s.sockclntCreate),
			handshake(binapi.SockclntCreateID+1, new(memclnt.SockclntCreateReply), nil),
			handshake(binapi.SockclntCreateID+2, new(memclnt.SockclntDelete), s.sockclntDelete),
			handshake(binapi.SockclntCreateID+3, new(memclnt.SockclntDeleteReply), nil),
		},
		unary(s.memclntKeepalive),
		unary(s.controlPing),
		unary(s.apiVersions),
		unary(s.getFirstMsgID),
	}}
}

func (s *Server) vpeModule() module {
	return module{vpe.APIFile, vpe.APIVersion, vpe.VersionCrc, []group{
		unary(s.showVersion),
		unary(s.showSystemTime),
	}}
}

func (s *Server) vlibModule() module {
	return module{vlib.APIFile, vlib.APIVersion, vlib.VersionCrc, []group{
		{{proto: new(vlib.CliInband), serve: s.cliInband}, {proto: new(vlib.CliInbandReply)}},
		unary(s.showThreads),
	}}
}

// sockclntCreate registers the client and tells it the message table.
func (s *Server) sockclntCreate(c *client, context uint32, data []byte) {
	var q memclnt.SockclntCreate
	if !c.decode(data, &q) {
		return
	}
	if c.index == 0 {
		// VPP marks the handles of socket clients with the top bit (sock_api_registration_handle).
		c.index = 1<<31 | s.nextID.Add(1)&(1<<31-1)
	}
	c.log = s.log.WithField("client", text(q.Name))
	r := &memclnt.SockclntCreateReply{Index: c.index}
	for _, m := range s.messages.entries {
		r.MessageTable = append(r.MessageTable, memclnt.MessageTableEntry{
			Index: m.id, Name: m.proto.GetMessageName() + "_" + m.proto.GetCrcString(),
		})
	}
	r.Count = uint16(len(r.MessageTable))
	c.send(context, r)
}

// sockclntDelete answers and closes, or says that it knows no such client.
func (s *Server) sockclntDelete(c *client, context uint32, data []byte) {
	var q memclnt.SockclntDelete
	if !c.decode(data, &q) {
		return
	}
	r := &memclnt.SockclntDeleteReply{Response: 1}
	if q.Index != c.index {
		r.Response = -1
	} else {
		c.gone = true
	}
	c.send(context, r)
}

func (s *Server) memclntKeepalive(*client, *memclnt.MemclntKeepalive, *memclnt.MemclntKeepaliveReply) error {
	return nil
}

func (s *Server) controlPing(c *client, _ *memclnt.ControlPing, r *memclnt.ControlPingReply) error {
	r.ClientIndex = c.index
	r.VpePID = uint32(os.Getpid())
	return nil
}

// apiVersions lists the API files that this program knows, with the versions of their definitions.
func (s *Server) apiVersions(_ *client, _ *memclnt.APIVersions, r *memclnt.APIVersionsReply) error {
	for _, m := range s.messages.modules {
		var v memclnt.ModuleVersion
		v.Name = m.file + ".api"
		v.Major, v.Minor, v.Patch = version(m.version)
		r.APIVersions = append(r.APIVersions, v)
	}
	r.Count = uint32(len(r.APIVersions))
	return nil
}

// version splits "3.2.1".
func version(s string) (major, minor, patch uint32) {
	var parts [3]uint32
	i := 0
	for _, b := range []byte(s) {
		switch {
		case b == '.':
			if i++; i == len(parts) {
				return parts[0], parts[1], parts[2]
			}
		case b >= '0' && b <= '9':
			parts[i] = parts[i]*10 + uint32(b-'0')
		}
	}
	return parts[0], parts[1], parts[2]
}

func (s *Server) getFirstMsgID(_ *client, q *memclnt.GetFirstMsgID, r *memclnt.GetFirstMsgIDReply) error {
	first, ok := s.messages.first[text(q.Name)]
	if !ok {
		r.FirstMsgID = ^uint16(0)
		return api.INVALID_VALUE
	}
	r.FirstMsgID = first
	return nil
}

// showVersion says what this is, and does not claim to be a VPP.
func (s *Server) showVersion(_ *client, _ *vpe.ShowVersion, r *vpe.ShowVersionReply) error {
	r.Program = program
	r.Version = clip(program+" "+s.cfg.Version, 31)
	return nil
}

func (s *Server) showSystemTime(_ *client, _ *vpe.ShowVpeSystemTime, r *vpe.ShowVpeSystemTimeReply) error {
	r.VpeSystemTime = vpe_types.NewTimestamp(time.Now())
	return nil
}

// showThreads shows one thread: packets are forwarded by goroutines, which have no fixed processor.
func (s *Server) showThreads(_ *client, _ *vlib.ShowThreads, r *vlib.ShowThreadsReply) error {
	r.ThreadData = []vlib.ThreadData{{Name: "vpp_main", PID: uint32(os.Getpid())}}
	r.Count = 1
	return nil
}
