package bgp

import (
	"context"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file is what GoBGP's API could do, and a client of this router cannot: each method says what there is instead.

const (
	whyGlobal = "the router starts and stops BGP itself: use rlr restart and rlr stop"
	whyPolicy = "policies are the configuration's, and are written anew with each change of it: change it there, and run rlr reload"
	whyVRF    = "VRFs are the configuration's"
	whyROA    = "route origin validation is the configuration's (roa): change it there, and run rlr reload"
	whyKernel = "it would use the TCP of the host, or write files of the router's user: this router does neither for a client"
	whyLog    = "the router's log has its own level: change log.level in the configuration, and run rlr reload"
)

// refusing is GoBGP's implementation without what would break the router.
type refusing struct{ api.GoBgpServiceServer }

func refused(method, why string) error {
	return status.Errorf(codes.Unimplemented, "%s: %s", method, why)
}

func (refusing) StartBgp(context.Context, *api.StartBgpRequest) (*api.StartBgpResponse, error) {
	return nil, refused("StartBgp", whyGlobal)
}

func (refusing) StopBgp(context.Context, *api.StopBgpRequest) (*api.StopBgpResponse, error) {
	return nil, refused("StopBgp", whyGlobal)
}

func (refusing) AddPolicy(context.Context, *api.AddPolicyRequest) (*api.AddPolicyResponse, error) {
	return nil, refused("AddPolicy", whyPolicy)
}

func (refusing) DeletePolicy(context.Context, *api.DeletePolicyRequest) (*api.DeletePolicyResponse, error) {
	return nil, refused("DeletePolicy", whyPolicy)
}

func (refusing) SetPolicies(context.Context, *api.SetPoliciesRequest) (*api.SetPoliciesResponse, error) {
	return nil, refused("SetPolicies", whyPolicy)
}

func (refusing) AddDefinedSet(context.Context, *api.AddDefinedSetRequest) (*api.AddDefinedSetResponse, error) {
	return nil, refused("AddDefinedSet", whyPolicy)
}

func (refusing) DeleteDefinedSet(context.Context, *api.DeleteDefinedSetRequest) (*api.DeleteDefinedSetResponse, error) {
	return nil, refused("DeleteDefinedSet", whyPolicy)
}

func (refusing) AddStatement(context.Context, *api.AddStatementRequest) (*api.AddStatementResponse, error) {
	return nil, refused("AddStatement", whyPolicy)
}

func (refusing) DeleteStatement(context.Context, *api.DeleteStatementRequest) (*api.DeleteStatementResponse, error) {
	return nil, refused("DeleteStatement", whyPolicy)
}

func (refusing) AddPolicyAssignment(context.Context, *api.AddPolicyAssignmentRequest) (*api.AddPolicyAssignmentResponse, error) {
	return nil, refused("AddPolicyAssignment", whyPolicy)
}

func (refusing) DeletePolicyAssignment(context.Context, *api.DeletePolicyAssignmentRequest) (*api.DeletePolicyAssignmentResponse, error) {
	return nil, refused("DeletePolicyAssignment", whyPolicy)
}

func (refusing) SetPolicyAssignment(context.Context, *api.SetPolicyAssignmentRequest) (*api.SetPolicyAssignmentResponse, error) {
	return nil, refused("SetPolicyAssignment", whyPolicy)
}

func (refusing) AddVrf(context.Context, *api.AddVrfRequest) (*api.AddVrfResponse, error) {
	return nil, refused("AddVrf", whyVRF)
}

func (refusing) DeleteVrf(context.Context, *api.DeleteVrfRequest) (*api.DeleteVrfResponse, error) {
	return nil, refused("DeleteVrf", whyVRF)
}

func (refusing) AddRpki(context.Context, *api.AddRpkiRequest) (*api.AddRpkiResponse, error) {
	return nil, refused("AddRpki", whyROA)
}

func (refusing) DeleteRpki(context.Context, *api.DeleteRpkiRequest) (*api.DeleteRpkiResponse, error) {
	return nil, refused("DeleteRpki", whyROA)
}

func (refusing) EnableRpki(context.Context, *api.EnableRpkiRequest) (*api.EnableRpkiResponse, error) {
	return nil, refused("EnableRpki", whyROA)
}

func (refusing) DisableRpki(context.Context, *api.DisableRpkiRequest) (*api.DisableRpkiResponse, error) {
	return nil, refused("DisableRpki", whyROA)
}

func (refusing) ResetRpki(context.Context, *api.ResetRpkiRequest) (*api.ResetRpkiResponse, error) {
	return nil, refused("ResetRpki", whyROA)
}

func (refusing) EnableZebra(context.Context, *api.EnableZebraRequest) (*api.EnableZebraResponse, error) {
	return nil, refused("EnableZebra", whyKernel)
}

func (refusing) EnableMrt(context.Context, *api.EnableMrtRequest) (*api.EnableMrtResponse, error) {
	return nil, refused("EnableMrt", whyKernel)
}

func (refusing) DisableMrt(context.Context, *api.DisableMrtRequest) (*api.DisableMrtResponse, error) {
	return nil, refused("DisableMrt", whyKernel)
}

func (refusing) AddBmp(context.Context, *api.AddBmpRequest) (*api.AddBmpResponse, error) {
	return nil, refused("AddBmp", whyKernel)
}

func (refusing) DeleteBmp(context.Context, *api.DeleteBmpRequest) (*api.DeleteBmpResponse, error) {
	return nil, refused("DeleteBmp", whyKernel)
}

func (refusing) SetLogLevel(context.Context, *api.SetLogLevelRequest) (*api.SetLogLevelResponse, error) {
	return nil, refused("SetLogLevel", whyLog)
}
