package minivpp

import (
	"strings"

	"go.fd.io/govpp/api"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"

	"rlr/minivpp/plane"
)

// Interfaces: interface.api without sub-interfaces.

// swInterfaceDump sends one interface, or those whose name contains the filter (in any case), or all. As in VPP, an index of
// 0 means all too.
func (s *Server) swInterfaceDump(_ *client, q *interfaces.SwInterfaceDump, send func(*interfaces.SwInterfaceDetails)) {
	if idx := uint32(q.SwIfIndex); !q.NameFilterValid && idx != plane.NoInterface && idx != 0 {
		if i, err := s.Interface(idx); err == nil {
			send(details(i))
		}
		return
	}
	filter := strings.ToLower(text(q.NameFilter))
	for _, i := range s.Interfaces() {
		if q.NameFilterValid && !strings.Contains(strings.ToLower(i.Name), filter) {
			continue
		}
		send(details(i))
	}
}

func details(i plane.Interface) *interfaces.SwInterfaceDetails {
	return &interfaces.SwInterfaceDetails{
		SwIfIndex:        interface_types.InterfaceIndex(i.Index),
		SupSwIfIndex:     i.Index,
		L2Address:        i.MAC,
		Flags:            flags(i.AdminUp, i.LinkUp),
		LinkMtu:          uint16(min(i.LinkMTU, 1<<16-1)),
		Mtu:              []uint32{i.MTU.L3, i.MTU.IP4, i.MTU.IP6, i.MTU.MPLS},
		InterfaceName:    clip(i.Name, 63),
		InterfaceDevType: i.Kind,
		Tag:              clip(i.Tag, 63),
	}
}

func flags(admin, link bool) (f interface_types.IfStatusFlags) {
	if admin {
		f |= interface_types.IF_STATUS_API_FLAG_ADMIN_UP
	}
	if link {
		f |= interface_types.IF_STATUS_API_FLAG_LINK_UP
	}
	return f
}

// swInterfaceSetFlags sets the admin state; the link state is the link's.
func (s *Server) swInterfaceSetFlags(_ *client, q *interfaces.SwInterfaceSetFlags, _ *interfaces.SwInterfaceSetFlagsReply) error {
	return s.SetAdmin(uint32(q.SwIfIndex), q.Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0)
}

func (s *Server) swInterfaceSetMtu(_ *client, q *interfaces.SwInterfaceSetMtu, _ *interfaces.SwInterfaceSetMtuReply) error {
	if len(q.Mtu) != 4 {
		return api.INVALID_VALUE
	}
	return s.SetMTU(uint32(q.SwIfIndex), plane.MTU{L3: q.Mtu[0], IP4: q.Mtu[1], IP6: q.Mtu[2], MPLS: q.Mtu[3]})
}

// hwInterfaceSetMtu sets what the link carries. A loopback has no link to set it on, and local0 is not an ethernet.
func (s *Server) hwInterfaceSetMtu(_ *client, q *interfaces.HwInterfaceSetMtu, _ *interfaces.HwInterfaceSetMtuReply) error {
	i, err := s.Interface(uint32(q.SwIfIndex))
	switch {
	case err != nil:
		return err
	case i.Kind == plane.KindLocal:
		return api.FEATURE_DISABLED
	case i.Kind == plane.KindLoopback:
		return unsupported
	}
	return s.SetLinkMTU(i.Index, uint32(q.Mtu))
}

// unsupported is VNET_API_ERROR_UNSUPPORTED, which govpp has no name for.
const unsupported = api.VPPApiError(-126)

func (s *Server) swInterfaceTagAddDel(_ *client, q *interfaces.SwInterfaceTagAddDel, _ *interfaces.SwInterfaceTagAddDelReply) error {
	if _, err := s.Interface(uint32(q.SwIfIndex)); err != nil {
		return err
	}
	if !q.IsAdd {
		return s.SetTag(uint32(q.SwIfIndex), "")
	}
	tag := clip(text(q.Tag), 63)
	if tag == "" {
		return api.INVALID_VALUE
	}
	return s.SetTag(uint32(q.SwIfIndex), tag)
}

func (s *Server) swInterfaceSetInterfaceName(_ *client, q *interfaces.SwInterfaceSetInterfaceName, _ *interfaces.SwInterfaceSetInterfaceNameReply) error {
	if _, err := s.Interface(uint32(q.SwIfIndex)); err != nil {
		return err
	}
	name := text(q.Name)
	if name == "" {
		return api.INVALID_VALUE
	}
	return s.SetName(uint32(q.SwIfIndex), name)
}

func (s *Server) swInterfaceSetMacAddress(_ *client, q *interfaces.SwInterfaceSetMacAddress, _ *interfaces.SwInterfaceSetMacAddressReply) error {
	return s.SetMAC(uint32(q.SwIfIndex), q.MacAddress)
}

func (s *Server) swInterfaceGetMacAddress(_ *client, q *interfaces.SwInterfaceGetMacAddress, r *interfaces.SwInterfaceGetMacAddressReply) error {
	i, err := s.Interface(uint32(q.SwIfIndex))
	r.MacAddress = i.MAC
	return err
}

// swInterfaceSetRxMode sets the mode of receive queues, which a memif has while its link is up; without queues there is
// nothing to do, and that is no error. The mode is remembered and has no effect: the plane always sleeps when there is
// nothing to do, which is what a client wants that sets "adaptive" or "interrupt". Polling is refused, because it would not
// happen.
func (s *Server) swInterfaceSetRxMode(_ *client, q *interfaces.SwInterfaceSetRxMode, _ *interfaces.SwInterfaceSetRxModeReply) error {
	i, err := s.Interface(uint32(q.SwIfIndex))
	if err != nil {
		return err
	}
	n := queues(i)
	mode := q.Mode
	if mode == interface_types.RX_MODE_API_DEFAULT {
		mode = interface_types.RX_MODE_API_INTERRUPT
	}
	switch {
	case q.QueueIDValid && q.QueueID >= n:
		return api.UNIMPLEMENTED // VPP's answer for a queue that there is not
	case n == 0:
		return nil
	case mode != interface_types.RX_MODE_API_INTERRUPT && mode != interface_types.RX_MODE_API_ADAPTIVE:
		return api.UNIMPLEMENTED
	}
	s.settings.mu.Lock()
	defer s.settings.mu.Unlock()
	s.settings.rxMode[i.Index] = mode
	return nil
}

// queues is the number of receive queues.
func queues(i plane.Interface) uint32 {
	if i.Memif == nil || !i.LinkUp {
		return 0
	}
	return uint32(max(i.Memif.Queues, 1))
}

// swInterfaceRxPlacementDump shows the receive queues of interfaces whose link is up, and the modes that were set.
func (s *Server) swInterfaceRxPlacementDump(_ *client, q *interfaces.SwInterfaceRxPlacementDump, send func(*interfaces.SwInterfaceRxPlacementDetails)) {
	for _, i := range s.Interfaces() {
		if idx := uint32(q.SwIfIndex); idx != plane.NoInterface && idx != i.Index {
			continue
		}
		s.settings.mu.Lock()
		mode, ok := s.settings.rxMode[i.Index]
		s.settings.mu.Unlock()
		if !ok {
			mode = interface_types.RX_MODE_API_INTERRUPT
		}
		for queue := range queues(i) {
			send(&interfaces.SwInterfaceRxPlacementDetails{
				SwIfIndex: interface_types.InterfaceIndex(i.Index), QueueID: queue, Mode: mode,
			})
		}
	}
}

// forgetInterface drops what was remembered about an interface that is gone.
func (s *Server) forgetInterface(idx uint32) {
	s.settings.mu.Lock()
	defer s.settings.mu.Unlock()
	delete(s.settings.rxMode, idx)
}

func (s *Server) swInterfaceSetTable(_ *client, q *interfaces.SwInterfaceSetTable, _ *interfaces.SwInterfaceSetTableReply) error {
	return s.SetTable(uint32(q.SwIfIndex), q.IsIPv6, q.VrfID)
}

func (s *Server) swInterfaceGetTable(_ *client, q *interfaces.SwInterfaceGetTable, r *interfaces.SwInterfaceGetTableReply) error {
	i, err := s.Interface(uint32(q.SwIfIndex))
	switch {
	case err != nil:
		r.VrfID = ^uint32(0)
	case q.IsIPv6:
		r.VrfID = i.Table6
	default:
		r.VrfID = i.Table4
	}
	return err
}

// swInterfaceClearStats starts the counters of one or all interfaces again at 0.
func (s *Server) swInterfaceClearStats(_ *client, q *interfaces.SwInterfaceClearStats, _ *interfaces.SwInterfaceClearStatsReply) error {
	return s.ClearCounters(uint32(q.SwIfIndex))
}

func (s *Server) createLoopback(_ *client, q *interfaces.CreateLoopback, r *interfaces.CreateLoopbackReply) error {
	idx, err := s.CreateLoopback(q.MacAddress, nil)
	r.SwIfIndex = interface_types.InterfaceIndex(idx)
	return err
}

func (s *Server) createLoopbackInstance(_ *client, q *interfaces.CreateLoopbackInstance, r *interfaces.CreateLoopbackInstanceReply) error {
	var instance *uint32
	if q.IsSpecified {
		instance = &q.UserInstance
	}
	idx, err := s.CreateLoopback(q.MacAddress, instance)
	r.SwIfIndex = interface_types.InterfaceIndex(idx)
	return err
}

func (s *Server) deleteLoopback(_ *client, q *interfaces.DeleteLoopback, _ *interfaces.DeleteLoopbackReply) error {
	return s.DeleteLoopback(uint32(q.SwIfIndex))
}
