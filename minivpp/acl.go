package minivpp

import (
	"net/netip"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/acl_types"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
	"rlr/minivpp/plane"
)

// Packet filters: acl.api of VPP's acl plugin, without its filters by MAC address.

// aclPluginGetVersion tells the version of the plugin that this is like.
func (s *Server) aclPluginGetVersion(_ *client, _ *acl.ACLPluginGetVersion, r *acl.ACLPluginGetVersionReply) error {
	r.Major, r.Minor = 1, 4
	return nil
}

func (s *Server) aclPluginGetConnTableMaxEntries(_ *client, _ *acl.ACLPluginGetConnTableMaxEntries, r *acl.ACLPluginGetConnTableMaxEntriesReply) error {
	r.ConnTableMaxEntries = plane.MaxFlows
	return nil
}

// maxACLTag is the longest tag, without the terminating zero.
const maxACLTag = 63

func (s *Server) aclAddReplace(_ *client, q *acl.ACLAddReplace, r *acl.ACLAddReplaceReply) {
	index, err := s.aclReplace(q)
	r.ACLIndex, r.Retval = index, retval(err)
}

func (s *Server) aclReplace(q *acl.ACLAddReplace) (uint32, error) {
	tag := text(q.Tag)
	if len(tag) > maxACLTag {
		return q.ACLIndex, api.INVALID_VALUE
	}
	rules := make([]plane.ACLRule, 0, len(q.R))
	for i := range q.R {
		rule, err := toACLRule(&q.R[i])
		if err != nil {
			return q.ACLIndex, err
		}
		rules = append(rules, rule)
	}
	return s.ReplaceACL(q.ACLIndex, tag, rules)
}

// toACLRule checks what VPP checks (acl_add_list in src/plugins/acl/acl.c), in its order.
func toACLRule(r *acl_types.ACLRule) (plane.ACLRule, error) {
	src, dst := hostPrefix(r.SrcPrefix), hostPrefix(r.DstPrefix)
	switch {
	case !src.IsValid():
		return plane.ACLRule{}, api.INVALID_SRC_ADDRESS
	case !dst.IsValid():
		return plane.ACLRule{}, api.INVALID_DST_ADDRESS
	case r.SrcPrefix.Address.Af != r.DstPrefix.Address.Af:
		return plane.ACLRule{}, api.INVALID_SRC_ADDRESS
	case r.SrcportOrIcmptypeFirst > r.SrcportOrIcmptypeLast, r.DstportOrIcmpcodeFirst > r.DstportOrIcmpcodeLast:
		return plane.ACLRule{}, api.INVALID_VALUE_2
	}
	return plane.ACLRule{
		Action: plane.ACLAction(r.IsPermit), Src: src, Dst: dst, Proto: uint8(r.Proto),
		Src4:      plane.PortRange{First: r.SrcportOrIcmptypeFirst, Last: r.SrcportOrIcmptypeLast},
		Dst4:      plane.PortRange{First: r.DstportOrIcmpcodeFirst, Last: r.DstportOrIcmpcodeLast},
		FlagsMask: r.TCPFlagsMask, FlagsValue: r.TCPFlagsValue,
	}, nil
}

// hostPrefix keeps host bits; the zero prefix for one that is none.
func hostPrefix(p ip_types.Prefix) netip.Prefix {
	a := binapi.FromAddress(p.Address)
	if !a.IsValid() || p.Address.Af > ip_types.ADDRESS_IP6 || int(p.Len) > a.BitLen() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, int(p.Len))
}

func fromACLRule(r *plane.ACLRule) acl_types.ACLRule {
	prefix := func(p netip.Prefix) ip_types.Prefix {
		return ip_types.Prefix{Address: binapi.ToAddress(p.Addr()), Len: uint8(p.Bits())}
	}
	return acl_types.ACLRule{
		IsPermit: acl_types.ACLAction(r.Action), SrcPrefix: prefix(r.Src), DstPrefix: prefix(r.Dst), Proto: ip_types.IPProto(r.Proto),
		SrcportOrIcmptypeFirst: r.Src4.First, SrcportOrIcmptypeLast: r.Src4.Last,
		DstportOrIcmpcodeFirst: r.Dst4.First, DstportOrIcmpcodeLast: r.Dst4.Last,
		TCPFlagsMask: r.FlagsMask, TCPFlagsValue: r.FlagsValue,
	}
}

func (s *Server) aclDel(_ *client, q *acl.ACLDel, _ *acl.ACLDelReply) error {
	return s.DeleteACL(q.ACLIndex)
}

// aclDump sends one, or all; nothing for one that does not exist.
func (s *Server) aclDump(_ *client, q *acl.ACLDump, send func(*acl.ACLDetails)) {
	for _, a := range s.ACLs() {
		if q.ACLIndex != plane.NoInterface && q.ACLIndex != a.Index {
			continue
		}
		d := &acl.ACLDetails{ACLIndex: a.Index, Tag: a.Tag, Count: uint32(len(a.Rules))}
		for i := range a.Rules {
			d.R = append(d.R, fromACLRule(&a.Rules[i]))
		}
		send(d)
	}
}

// errACLTwice is what VPP answers to a list that has an ACL twice: the truth of an expression instead of its error value.
const errACLTwice = api.VPPApiError(1)

func (s *Server) aclInterfaceSetACLList(_ *client, q *acl.ACLInterfaceSetACLList, _ *acl.ACLInterfaceSetACLListReply) error {
	n := min(int(q.NInput), len(q.Acls))
	err := s.SetInterfaceACLs(uint32(q.SwIfIndex), q.Acls[:n], q.Acls[n:])
	if err == api.ENTRY_ALREADY_EXISTS {
		return errACLTwice
	}
	return err
}

// aclInterfaceListDump sends a list for each interface, also one without ACLs.
func (s *Server) aclInterfaceListDump(_ *client, q *acl.ACLInterfaceListDump, send func(*acl.ACLInterfaceListDetails)) {
	for _, i := range s.Interfaces() {
		if idx := uint32(q.SwIfIndex); idx != plane.NoInterface && idx != i.Index {
			continue
		}
		in, out, err := s.InterfaceACLs(i.Index)
		if err != nil {
			continue // it has gone meanwhile
		}
		send(&acl.ACLInterfaceListDetails{
			SwIfIndex: interface_types.InterfaceIndex(i.Index), Count: uint8(len(in) + len(out)), NInput: uint8(len(in)),
			Acls: append(in, out...),
		})
	}
}

func (s *Server) aclStatsIntfCountersEnable(_ *client, q *acl.ACLStatsIntfCountersEnable, _ *acl.ACLStatsIntfCountersEnableReply) error {
	s.CountACLs(q.Enable)
	return nil
}
