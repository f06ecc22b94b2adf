package vppagent

import (
	"context"

	interfaces "go.fd.io/govpp/binapi/interface"

	"rlr/binapi"
)

// createLoopback leaves the choice of the instance number to VPP.
func createLoopback(ctx context.Context, s *session, want *Interface) (uint32, error) {
	var reply interfaces.CreateLoopbackInstanceReply
	err := s.call(ctx, &interfaces.CreateLoopbackInstance{MacAddress: binapi.ToMAC(want.MAC)}, &reply)
	return uint32(reply.SwIfIndex), err
}
