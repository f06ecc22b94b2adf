package vppagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/acl_types"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/codec"

	"rlr/binapi"
)

// Packet filters, of VPP's acl plugin (src/plugins/acl).
//
// An ACL is ours by its tag, so that it is found again after a restart of the router; what is applied to an interface of ours
// is ours to say, as its addresses are. A changed ACL is replaced under its index: VPP exchanges the rules between two vectors
// of packets, so that no packet meets half of them, and interfaces are not touched. What an interface applies is set before
// anything else of it, above all before it goes up: an interface whose ACL cannot be had fails instead of being open.

// ACL is a list of rules. The first that matches a packet decides; none: the packet is dropped.
type ACL struct {
	Name  string
	Rules []ACLRule
}

// ACLAction is what becomes of a packet.
type ACLAction uint8

// Actions.
const (
	ACLDeny    ACLAction = iota
	ACLPermit            // this packet
	ACLReflect           // this packet, its flow and the answers
)

// ACLRule is a rule for one family, or for both where no address says which.
type ACLRule struct {
	Action              ACLAction
	IP4, IP6            bool         // for which families; at least one
	Protocol            uint8        // of IP; 0: any
	Source, Destination netip.Prefix // masked; invalid: any
	First, Second       ACLRange     // TCP's and UDP's source and destination ports, ICMP's types and codes; zero Protocol: ignored
	TCPMask, TCPValue   uint8        // the flags of Mask are as in Value
}

// ACLRange is of numbers, both ends in it.
type ACLRange struct{ First, Last uint16 }

// aclTag marks an ACL as ours.
func (c *Config) aclTag(name string) string { return c.tagPrefix() + name }

// apiRules are the rules as VPP has them, one for each family, and for each the number of the rule that it is of.
func (a *ACL) apiRules() (rules []acl_types.ACLRule, of []int) {
	for n := range a.Rules {
		r := &a.Rules[n]
		for _, ip6 := range []bool{false, true} {
			if ip6 && !r.IP6 || !ip6 && !r.IP4 {
				continue
			}
			rules, of = append(rules, r.api(ip6)), append(of, n)
		}
	}
	return rules, of
}

func (r *ACLRule) api(ip6 bool) acl_types.ACLRule {
	any := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if ip6 {
		any = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	prefix := func(p netip.Prefix) ip_types.Prefix {
		if !p.IsValid() {
			p = any
		}
		return binapi.ToPrefix(p)
	}
	return acl_types.ACLRule{
		IsPermit:  acl_types.ACLAction(r.Action),
		SrcPrefix: prefix(r.Source), DstPrefix: prefix(r.Destination),
		Proto:                  ip_types.IPProto(r.Protocol),
		SrcportOrIcmptypeFirst: r.First.First, SrcportOrIcmptypeLast: r.First.Last,
		DstportOrIcmpcodeFirst: r.Second.First, DstportOrIcmpcodeLast: r.Second.Last,
		TCPFlagsMask: r.TCPMask, TCPFlagsValue: r.TCPValue,
	}
}

// knows reports whether the dataplane has a message.
func (s *session) knows(m api.Message) bool {
	_, err := s.GetMessageID(m)
	return err == nil
}

// aclDetails asks for all ACLs.
func (q *questions) aclDetails(ctx context.Context, s *session, w *world) {
	w.acls = make(map[uint32]*acl.ACLDetails)
	if !s.knows(&acl.ACLDump{}) {
		return
	}
	q.ask(func() error {
		return dump(ctx, s, &acl.ACLDump{ACLIndex: noInterface}, func(d *acl.ACLDetails) { w.acls[d.ACLIndex] = d })
	})
}

// interfaceACLs asks what an interface applies.
func (q *questions) interfaceACLs(ctx context.Context, s *session, o *observed) {
	if !s.knows(&acl.ACLInterfaceListDump{}) {
		return
	}
	q.ask(func() error {
		req := &acl.ACLInterfaceListDump{SwIfIndex: interface_types.InterfaceIndex(o.index)}
		return dump(ctx, s, req, func(d *acl.ACLInterfaceListDetails) {
			if n := int(d.NInput); n <= len(d.Acls) {
				o.aclIn, o.aclOut = d.Acls[:n], d.Acls[n:]
			}
		})
	})
}

// ownACL returns our ACL of a name: of several, which an earlier life may have left, the first.
func (w *world) ownACL(cfg *Config, name string) *acl.ACLDetails {
	var found *acl.ACLDetails
	for _, d := range w.acls {
		if d.Tag == cfg.aclTag(name) && (found == nil || d.ACLIndex < found.ACLIndex) {
			found = d
		}
	}
	return found
}

// errNoACL is for a VPP without the plugin.
var errNoACL = errors.New("this VPP has no acl plugin, or another version of its messages")

// makeACLs makes and replaces ACLs.
func (p *pass) makeACLs(ctx context.Context) error {
	p.acls, p.aclErrs = make(map[string]uint32), make(map[string]error)
	if len(p.cfg.ACLs) == 0 {
		return nil
	}
	supported := p.report.Supports(binapi.ACL)
	if supported && !p.counting {
		err := p.s.countACLs(ctx)
		if err != nil && !isRefusal(err) {
			return err
		}
		if err != nil { // filters without counters are still filters
			p.a.errs.add("counters of ACLs", err)
		}
		p.counting = true
	}
	for i := range p.cfg.ACLs {
		want := &p.cfg.ACLs[i]
		if !supported {
			p.aclErrs[want.Name] = errNoACL
			continue
		}
		index, err := p.makeACL(ctx, want)
		if err != nil {
			p.aclErrs[want.Name] = err
			if err := p.refused("ACL "+want.Name, err); err != nil {
				return err
			}
			continue
		}
		p.acls[want.Name] = index
	}
	return nil
}

// makeACL returns the index of an ACL that is as it should be.
func (p *pass) makeACL(ctx context.Context, want *ACL) (uint32, error) {
	rules, _ := want.apiRules()
	index, what := uint32(noInterface), "ACL created"
	if have := p.w.ownACL(&p.cfg, want.Name); have != nil {
		if slices.Equal(have.R, rules) {
			return have.ACLIndex, nil
		}
		index, what = have.ACLIndex, "ACL replaced"
	}
	var reply acl.ACLAddReplaceReply
	err := p.s.call(ctx, &acl.ACLAddReplace{ACLIndex: index, Tag: p.cfg.aclTag(want.Name), Count: uint32(len(rules)), R: rules}, &reply)
	if err != nil {
		return 0, err
	}
	p.log.WithField("acl", want.Name).WithField("rules", len(rules)).Info(what)
	return reply.ACLIndex, nil
}

// settleACLs returns the request that makes an interface apply what it should, nil when it does.
func (p *pass) settleACLs(ctx context.Context, want *Interface, have *observed) ([]request, error) {
	indexes := func(names []string) (list []uint32, err error) {
		for _, name := range names {
			index, ok := p.acls[name]
			if !ok {
				return nil, fmt.Errorf("ACL %s: %w", name, p.aclErrs[name])
			}
			list = append(list, index)
		}
		return list, nil
	}
	if len(want.ACLIn)+len(want.ACLOut) > 0 {
		if err := p.roomForACLs(ctx); err != nil {
			return nil, err
		}
	}
	in, err := indexes(want.ACLIn)
	if err != nil {
		return nil, err
	}
	out, err := indexes(want.ACLOut)
	if err != nil || slices.Equal(in, have.aclIn) && slices.Equal(out, have.aclOut) {
		return nil, err
	}
	return []request{{
		req: &acl.ACLInterfaceSetACLList{
			SwIfIndex: interface_types.InterfaceIndex(have.index),
			Count:     uint8(len(in) + len(out)), NInput: uint8(len(in)), Acls: slices.Concat(in, out),
		},
		reply: new(acl.ACLInterfaceSetACLListReply),
	}}, nil
}

// flowBytes is what the acl plugin's table of reflected flows takes for each entry (fa_session_t, and an index of it).
const flowBytes = 128 + 4

// roomForACLs refuses the first ACL of a VPP whose heap has no room for the table of reflected flows, which VPP makes then: it
// would abort. A VPP that rlr started has a table that fits; this is for those of others.
func (p *pass) roomForACLs(ctx context.Context) error {
	if p.filtering || p.a.opt.StatsSocket == "" {
		return nil
	}
	for _, o := range p.w.interfaces {
		if len(o.aclIn)+len(o.aclOut) > 0 {
			p.filtering = true
			return nil
		}
	}
	var table acl.ACLPluginGetConnTableMaxEntriesReply
	if err := p.s.call(ctx, &acl.ACLPluginGetConnTableMaxEntries{}, &table); err != nil {
		return err
	}
	r, ok, err := readMemory(ctx, p.a.opt.StatsSocket, p.status.PID)
	if err != nil {
		p.a.errs.add("statistics", err)
	}
	if need := table.ConnTableMaxEntries*flowBytes + 4*heapSlack; err == nil && ok && r.main.top < need {
		return fmt.Errorf("VPP's main heap has %d MiB in one piece, and the acl plugin's table of %d flows needs %d: a larger main-heap-size, or acl-plugin { connection count max … }, in VPP's startup.conf",
			r.main.top>>20, table.ConnTableMaxEntries, need>>20)
	}
	p.filtering = true
	return nil
}

// dropACLs deletes those of ours that are not configured any more, after what applied them.
func (p *pass) dropACLs(ctx context.Context) error {
	for index, d := range p.w.acls {
		name, ours := strings.CutPrefix(d.Tag, p.cfg.tagPrefix())
		if wanted, ok := p.acls[name]; !ours || ok && wanted == index || p.aclErrs[name] != nil {
			continue
		}
		if err := p.refused("removing ACL "+name, p.s.call(ctx, &acl.ACLDel{ACLIndex: index}, new(acl.ACLDelReply))); err != nil {
			return err
		}
	}
	return nil
}

// countACLs makes VPP count what rules match. VPP up to 26.06 answers with another request's reply, whose only field is the
// same (vl_api_acl_stats_intf_counters_enable_t_handler in src/plugins/acl/acl.c).
func (s *session) countACLs(ctx context.Context) error {
	req := &acl.ACLStatsIntfCountersEnable{Enable: true}
	data, err := s.encode(req)
	if err != nil {
		return err
	}
	var reply acl.ACLStatsIntfCountersEnableReply
	own, err := s.GetMessageID(&reply)
	if err != nil {
		return err
	}
	other, err := s.GetMessageID(&acl.ACLDelReply{})
	if err != nil {
		return err
	}
	err = s.wait(ctx, callTimeout, func(id uint16, data []byte) (bool, error) {
		if id != own && id != other {
			return true, fmt.Errorf("message %d came instead of a reply", id)
		}
		return true, codec.DecodeMsg(data, &reply)
	}, data)
	if err == nil {
		err = api.RetvalToVPPApiError(reply.Retval)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", req.GetMessageName(), err)
	}
	return nil
}

// ACLCount is what a rule decided since the ACL was made or changed. Later packets of a reflected flow are not in it.
type ACLCount struct{ Packets, Bytes uint64 }

// ACLStatus is a configured ACL as it is.
type ACLStatus struct {
	Name    string
	State   InterfaceState
	Err     error
	Index   uint32     // in the dataplane; meaningless unless it is there
	Rules   []ACLCount // of the configured rules, in their order; nil when they could not be read
	In, Out []string   // interfaces that apply it
}

// ACLs looks at the configured ACLs now, in their order.
func (a *Agent) ACLs(ctx context.Context) ([]ACLStatus, error) {
	cfg := a.config()
	list := make([]ACLStatus, len(cfg.ACLs))
	for i := range cfg.ACLs {
		list[i] = ACLStatus{Name: cfg.ACLs[i].Name, Index: noInterface}
	}
	l, err := a.current()
	if err != nil {
		for i := range list {
			list[i].Err = err
		}
		return list, nil
	}
	w, err := look(ctx, l.s, l.report.Supports(binapi.Memif), func(*observed) bool { return true })
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	errs := a.aclErrs
	a.mu.Unlock()
	counted := make(map[string][][2]uint64)
	for i := range list {
		st := &list[i]
		if st.Err = errs[st.Name]; st.Err != nil {
			st.State = Failed
		}
		have := w.ownACL(&cfg, st.Name)
		if have == nil {
			continue
		}
		st.Index = have.ACLIndex
		counted[aclCounters(st.Index)] = nil
		if rules, _ := cfg.ACLs[i].apiRules(); st.Err == nil && slices.Equal(rules, have.R) {
			st.State = Configured
		}
		for _, o := range w.sorted() {
			name := o.name
			if own := w.byOwner(&cfg, o); own != "" {
				name = own
			}
			if slices.Contains(o.aclIn, st.Index) {
				st.In = append(st.In, name)
			}
			if slices.Contains(o.aclOut, st.Index) {
				st.Out = append(st.Out, name)
			}
		}
	}
	if a.opt.StatsSocket == "" || len(counted) == 0 {
		return list, nil
	}
	if err := readCounters(ctx, a.opt.StatsSocket, counted); err != nil {
		a.errs.add("statistics", err)
		return list, nil
	}
	for i := range list {
		list[i].count(&cfg.ACLs[i], counted[aclCounters(list[i].Index)])
	}
	return list, nil
}

// aclCounters is where the statistics segment has the counters of an ACL, by rule; see validate_and_reset_acl_counters in
// src/plugins/acl/acl.c.
func aclCounters(index uint32) string { return fmt.Sprintf("/acl/%d/matches", index) }

// count adds up the counters of VPP's rules by the configured ones that they are of.
func (st *ACLStatus) count(a *ACL, values [][2]uint64) {
	_, of := a.apiRules()
	if st.State != Configured || len(values) < len(of) {
		return
	}
	st.Rules = make([]ACLCount, len(a.Rules))
	for i, n := range of {
		st.Rules[n].Packets += values[i][0]
		st.Rules[n].Bytes += values[i][1]
	}
}

// readCounters is segment.counters for a segment that is opened for it.
func readCounters(ctx context.Context, socket string, into map[string][][2]uint64) error {
	s, err := openSegment(ctx, socket)
	if err != nil {
		return err
	}
	defer s.close()
	return s.counters(into)
}
