package minivpp

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/memif"

	"rlr/minivpp/plane"
)

// memif interfaces and their sockets: memif.api of VPP's memif plugin.

const anySocket = ^uint32(0) // "any free id"

func (s *Server) memifSocketFilenameAddDel(_ *client, q *memif.MemifSocketFilenameAddDel, _ *memif.MemifSocketFilenameAddDelReply) error {
	if q.SocketID == 0 || q.SocketID == anySocket {
		return api.INVALID_ARGUMENT
	}
	return s.memifSocket(q.IsAdd, q.SocketID, text(q.SocketFilename))
}

func (s *Server) memifSocketFilenameAddDelV2(_ *client, q *memif.MemifSocketFilenameAddDelV2, r *memif.MemifSocketFilenameAddDelV2Reply) error {
	r.SocketID = q.SocketID
	if q.SocketID == 0 {
		return api.INVALID_ARGUMENT
	}
	if q.IsAdd && q.SocketID == anySocket {
		r.SocketID = s.freeSocketID()
	}
	return s.memifSocket(q.IsAdd, r.SocketID, text(q.SocketFilename))
}

func (s *Server) freeSocketID() uint32 {
	used := s.MemifSockets()
	for id := uint32(1); ; id++ {
		if _, ok := used[id]; !ok {
			return id
		}
	}
}

// memifSocket names or forgets a socket. A relative name is in the runtime directory, which gets the folders that the name
// has.
func (s *Server) memifSocket(add bool, id uint32, name string) error {
	switch {
	case id == anySocket:
		return api.INVALID_ARGUMENT
	case !add:
		return s.DeleteMemifSocket(id)
	case name == "":
		return api.INVALID_ARGUMENT
	case strings.HasPrefix(name, "@") || strings.Contains(name, ":"):
		return api.UNIMPLEMENTED // abstract sockets, and VPP's abstract: and tcp: prefixes
	}
	path := name
	if !filepath.IsAbs(name) {
		if !filepath.IsLocal(name) {
			return api.INVALID_ARGUMENT // it would leave the runtime directory
		}
		path = filepath.Join(s.cfg.RuntimeDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return api.SYSCALL_ERROR_1
		}
	}
	if have, ok := s.MemifSockets()[id]; ok && have == path {
		return nil
	}
	return s.SetMemifSocket(id, path)
}

func (s *Server) memifSocketFilenameDump(_ *client, _ *memif.MemifSocketFilenameDump, send func(*memif.MemifSocketFilenameDetails)) {
	sockets := s.MemifSockets()
	for _, id := range slices.Sorted(maps.Keys(sockets)) {
		send(&memif.MemifSocketFilenameDetails{SocketID: id, SocketFilename: clip(sockets[id], 107)})
	}
}

func (s *Server) memifCreate(_ *client, q *memif.MemifCreate, r *memif.MemifCreateReply) error {
	idx, err := s.memifNew(memif.MemifCreateV2{
		Role: q.Role, Mode: q.Mode, RxQueues: q.RxQueues, TxQueues: q.TxQueues, ID: q.ID, SocketID: q.SocketID,
		RingSize: q.RingSize, BufferSize: q.BufferSize, NoZeroCopy: q.NoZeroCopy, HwAddr: q.HwAddr, Secret: q.Secret,
	})
	r.SwIfIndex = interface_types.InterfaceIndex(idx)
	return err
}

func (s *Server) memifCreateV2(_ *client, q *memif.MemifCreateV2, r *memif.MemifCreateV2Reply) error {
	idx, err := s.memifNew(*q)
	r.SwIfIndex = interface_types.InterfaceIndex(idx)
	return err
}

// memifNew checks what VPP checks, and refuses what is not implemented: DMA, the punt-inject mode, and different numbers of
// queues for the two directions.
func (s *Server) memifNew(q memif.MemifCreateV2) (uint32, error) {
	ring := q.RingSize
	switch {
	case ring&(ring-1) != 0:
		return 0, api.INVALID_ARGUMENT
	case q.Mode == memif.MEMIF_MODE_API_PUNT_INJECT:
		return 0, api.SYSCALL_ERROR_2
	case q.Mode > memif.MEMIF_MODE_API_PUNT_INJECT:
		return 0, api.SYSCALL_ERROR_2
	case q.UseDma:
		return 0, api.UNIMPLEMENTED
	}
	slave := q.Role != memif.MEMIF_ROLE_API_MASTER
	queues := max(q.RxQueues, 1)
	if slave && queues != max(q.TxQueues, 1) {
		return 0, api.UNIMPLEMENTED
	}
	cfg := plane.MemifConfig{
		SocketID: q.SocketID, ID: q.ID, RingSize: ring, BufferSize: q.BufferSize, MAC: q.HwAddr,
		Secret: text(q.Secret), Mode: plane.MemifMode(q.Mode),
	}
	if slave { // the slave decides about queues
		cfg.Role, cfg.Queues = plane.MemifSlave, queues
	}
	return s.CreateMemif(cfg)
}

func (s *Server) memifDelete(_ *client, q *memif.MemifDelete, _ *memif.MemifDeleteReply) error {
	return s.DeleteMemif(uint32(q.SwIfIndex))
}

func (s *Server) memifDump(_ *client, _ *memif.MemifDump, send func(*memif.MemifDetails)) {
	for _, i := range s.Interfaces() {
		m := i.Memif
		if m == nil {
			continue
		}
		send(&memif.MemifDetails{
			SwIfIndex: interface_types.InterfaceIndex(i.Index), HwAddr: i.MAC, ID: m.ID,
			Role: memif.MemifRole(m.Role), Mode: memif.MemifMode(m.Mode), SocketID: m.SocketID,
			RingSize: m.RingSize, BufferSize: m.BufferSize, Flags: flags(i.AdminUp, i.LinkUp), IfName: clip(i.Name, 63),
		})
	}
}
