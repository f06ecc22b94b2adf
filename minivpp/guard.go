package minivpp

import (
	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/mss_clamp"
	"go.fd.io/govpp/binapi/urpf"

	"rlr/minivpp/plane"
)

func (s *Server) mssClampEnableDisable(_ *client, q *mss_clamp.MssClampEnableDisable, _ *mss_clamp.MssClampEnableDisableReply) error {
	value := func(mss uint16, d, flag mss_clamp.MssClampDir) uint16 {
		if d&flag == 0 {
			return 0
		}
		return mss
	}
	const in, out = mss_clamp.MSS_CLAMP_DIR_RX, mss_clamp.MSS_CLAMP_DIR_TX
	return s.SetClamp(uint32(q.SwIfIndex), plane.Clamp{
		In4: value(q.IPv4Mss, q.IPv4Direction, in), Out4: value(q.IPv4Mss, q.IPv4Direction, out),
		In6: value(q.IPv6Mss, q.IPv6Direction, in), Out6: value(q.IPv6Mss, q.IPv6Direction, out),
	})
}

func (s *Server) urpfUpdate(_ *client, q *urpf.UrpfUpdate, _ *urpf.UrpfUpdateReply) error {
	return s.urpf(q.IsInput, q.SwIfIndex, q.Af, q.Mode)
}

func (s *Server) urpfUpdateV2(_ *client, q *urpf.UrpfUpdateV2, _ *urpf.UrpfUpdateV2Reply) error {
	if q.TableID != ^uint32(0) {
		return api.UNIMPLEMENTED // sources are looked up in the interface's own table
	}
	return s.urpf(q.IsInput, q.SwIfIndex, q.Af, q.Mode)
}

func (s *Server) urpf(input bool, index interface_types.InterfaceIndex, af ip_types.AddressFamily, mode urpf.UrpfMode) error {
	if !input || mode > urpf.URPF_API_MODE_STRICT {
		return api.UNIMPLEMENTED
	}
	return s.SetURPF(uint32(index), af == ip_types.ADDRESS_IP6, plane.URPFMode(mode))
}
