package vppagent

import (
	"context"
	"fmt"

	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/memif"

	"rlr/binapi"
)

// createMemif creates the interface, and before that its socket unless VPP knows one with that path.
func createMemif(ctx context.Context, s *session, want *Interface, w *world) (uint32, error) {
	m := want.Memif
	socket, err := memifSocket(ctx, s, m.Socket, w)
	if err != nil {
		return 0, err
	}
	if o := abandonedMemif(w, socket, m.ID); o != nil {
		if err := deleteInterface(ctx, s, o); err != nil {
			return 0, fmt.Errorf("removing what an earlier attempt left: %w", err)
		}
		delete(w.interfaces, o.index)
	}
	var reply memif.MemifCreateV2Reply
	err = s.call(ctx, &memif.MemifCreateV2{
		Role: m.apiRole(), Mode: m.apiMode(), ID: m.ID, SocketID: socket,
		RxQueues: uint8(m.queues()), TxQueues: uint8(m.queues()),
		RingSize: uint32(m.ringSize()), BufferSize: uint16(m.bufferSize()),
		HwAddr: binapi.ToMAC(want.MAC), Secret: m.Secret,
	}, &reply)
	if err != nil {
		return 0, fmt.Errorf("memif %d of socket %s: %w", m.ID, m.Socket, err)
	}
	return uint32(reply.SwIfIndex), nil
}

// memifSocket returns the id that VPP has for a path, made if need be.
func memifSocket(ctx context.Context, s *session, path string, w *world) (uint32, error) {
	for id, known := range w.sockets {
		if known == path {
			return id, nil
		}
	}
	var reply memif.MemifSocketFilenameAddDelV2Reply
	err := s.call(ctx, &memif.MemifSocketFilenameAddDelV2{IsAdd: true, SocketID: ^uint32(0), SocketFilename: path}, &reply)
	if err != nil {
		return 0, fmt.Errorf("memif socket %s: %w", path, err)
	}
	w.sockets[reply.SocketID] = path
	return reply.SocketID, nil
}

// abandonedMemif finds the memif that is in the way of ours because we died between making and marking it: it has our
// socket and id, which belong together with one configured interface, but no mark, and nobody ever used it.
func abandonedMemif(w *world, socket, id uint32) *observed {
	for _, o := range w.interfaces {
		if o.memif != nil && o.memif.SocketID == socket && o.memif.ID == id && o.tag == "" && !o.admin {
			return o
		}
	}
	return nil
}

func deleteMemif(ctx context.Context, s *session, index interface_types.InterfaceIndex) error {
	return s.call(ctx, &memif.MemifDelete{SwIfIndex: index}, new(memif.MemifDeleteReply))
}

// dropMemifSocket forgets the socket of a memif that was deleted, unless another uses it; VPP refuses that by itself.
func dropMemifSocket(ctx context.Context, s *session, deleted *observed, w *world) error {
	if deleted.memif == nil || deleted.memif.SocketID == 0 { // socket 0 is VPP's own
		return nil
	}
	id := deleted.memif.SocketID
	for _, o := range w.interfaces {
		if o != deleted && o.memif != nil && o.memif.SocketID == id {
			return nil
		}
	}
	err := s.call(ctx, &memif.MemifSocketFilenameAddDelV2{IsAdd: false, SocketID: id}, new(memif.MemifSocketFilenameAddDelV2Reply))
	if err != nil && !isRefusal(err) {
		return err
	}
	delete(w.sockets, id)
	return nil
}
