package plane

// memif interfaces and their sockets, with VPP's rules: a socket id names a path, a path is for masters or for slaves.

import (
	"fmt"
	"maps"
	"math/bits"

	"go.fd.io/govpp/api"

	"rlr/memif"
)

// SetMemifSocket names a socket path, for memif_socket_filename_add_del. Naming it again the same does nothing. A relative path
// is the caller's to complete.
// Errors: INVALID_ARGUMENT for an empty path or the id ~0; ENTRY_ALREADY_EXISTS when the id has another path.
func (p *Plane) SetMemifSocket(id uint32, path string) error {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	if id == NoInterface || path == "" {
		return api.INVALID_ARGUMENT
	}
	if old, ok := p.sockets[id]; ok && old != path {
		return api.ENTRY_ALREADY_EXISTS
	}
	p.sockets[id] = path
	return nil
}

// DeleteMemifSocket forgets a socket id.
// Errors: INVALID_ARGUMENT for id 0 and for unknown ones; UNEXPECTED_INTF_STATE while an interface uses it.
func (p *Plane) DeleteMemifSocket(id uint32) error {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	if _, ok := p.sockets[id]; !ok || id == 0 {
		return api.INVALID_ARGUMENT
	}
	if len(p.memifsOn(id)) > 0 {
		return api.UNEXPECTED_INTF_STATE
	}
	delete(p.sockets, id)
	return nil
}

// MemifSockets maps socket ids to paths. Id 0 is in it once it has been set: the plane has no run-time folder of its own.
func (p *Plane) MemifSockets() map[uint32]string {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	return maps.Clone(p.sockets)
}

// memifsOn returns the interfaces of a socket id.
func (p *Plane) memifsOn(id uint32) []*MemifInfo {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var out []*MemifInfo
	for _, i := range p.ifaces {
		if i != nil && i.memif != nil && i.memif.SocketID == id {
			out = append(out, i.memif)
		}
	}
	return out
}

// CreateMemif makes memifS/I of socket id S and id I, for memif_create(_v2). It is down, and its link comes up when the peer
// does.
// Errors: INVALID_ARGUMENT (unknown socket id, ring size that is no power of two, what memif.New refuses);
// SUBIF_ALREADY_EXISTS (the id is taken, or the socket has the other role); SYSCALL_ERROR_2 for an unknown mode;
// SYSCALL_ERROR_4 when the socket cannot be listened on; SYSCALL_ERROR_1 after Run has ended.
func (p *Plane) CreateMemif(cfg MemifConfig) (uint32, error) {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	if p.stopped {
		return NoInterface, api.SYSCALL_ERROR_1
	}
	path, ok := p.sockets[cfg.SocketID]
	if !ok {
		return NoInterface, api.INVALID_ARGUMENT
	}
	for _, m := range p.memifsOn(cfg.SocketID) {
		if m.ID == cfg.ID || m.Role != cfg.Role {
			return NoInterface, api.SUBIF_ALREADY_EXISTS
		}
	}
	if cfg.Mode > MemifIP {
		return NoInterface, api.SYSCALL_ERROR_2
	}
	if cfg.RingSize == 0 {
		cfg.RingSize = 1024
	}
	if cfg.BufferSize == 0 {
		cfg.BufferSize = 2048
	}
	cfg.Queues = max(cfg.Queues, 1)
	if bits.OnesCount32(cfg.RingSize) != 1 || cfg.Role > MemifSlave {
		return NoInterface, api.INVALID_ARGUMENT
	}
	if cfg.MAC == ([6]byte{}) && cfg.Mode == MemifEthernet {
		cfg.MAC = madeUpMAC()
	}
	i := p.newIface(fmt.Sprintf("memif%d/%d", cfg.SocketID, cfg.ID), KindMemif, cfg.MAC)
	i.rawIP = cfg.Mode == MemifIP
	i.memif = &MemifInfo{MemifConfig: cfg, Socket: path}
	port, err := memif.New(memif.Config{
		ID: cfg.ID, Role: memif.Role(cfg.Role), Mode: memif.Mode(cfg.Mode), Socket: path, Secret: cfg.Secret, Name: i.name,
		RingSize: int(cfg.RingSize), BufferSize: int(cfg.BufferSize), Queues: int(cfg.Queues),
		OnLink: func(up bool) { p.setLink(i, up) },
		Log:    p.log.WithField("interface", i.name),
	})
	if err != nil {
		p.log.WithError(err).Warn("memif refused")
		return NoInterface, api.INVALID_ARGUMENT
	}
	d := p.startDevice(i, port, int(cfg.Queues))
	select {
	case <-port.Ready():
		return i.index, nil
	case <-d.failed: // a master that cannot listen
		p.ctl.Lock()
		p.mu.Lock()
		p.removeIfaceLocked(i)
		p.mu.Unlock()
		p.ctl.Unlock()
		d.stop()
		return NoInterface, api.SYSCALL_ERROR_4
	}
}

// DeleteMemif removes a memif; when it returns, its socket is free.
// Errors: INVALID_SW_IF_INDEX.
func (p *Plane) DeleteMemif(idx uint32) error { return p.removeDevice(idx, KindMemif) }

// lostByDevice counts frames that the device could not give us: longer than our buffers, or from a broken ring.
func (i *iface) lostByDevice() uint64 {
	if i.device == nil {
		return 0
	}
	m, ok := i.device.port.(*memif.Interface)
	if !ok {
		return 0
	}
	s := m.Stats()
	return s.RxTooLong + s.RxBad
}

// closePorts ends every device at the end of Run.
func (p *Plane) closePorts() {
	p.memifMu.Lock()
	defer p.memifMu.Unlock()
	p.stopped = true
	p.mu.RLock()
	var devices []*device
	for _, i := range p.ifaces {
		if i != nil && i.device != nil {
			devices = append(devices, i.device)
		}
	}
	p.mu.RUnlock()
	for _, d := range devices {
		d.stop()
	}
}
