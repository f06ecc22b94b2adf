package main

import (
	"context"
	"slices"

	"rlr/internal/config"
	"rlr/internal/ctl"
	"rlr/vppagent"
)

// agentACLs are the packet filters as the dataplane has them.
func agentACLs(cfg *config.Config) (out []vppagent.ACL) {
	actions := map[config.ACLAction]vppagent.ACLAction{
		config.ACLDeny: vppagent.ACLDeny, config.ACLPermit: vppagent.ACLPermit, config.ACLReflect: vppagent.ACLReflect,
	}
	for _, a := range cfg.ACLs {
		va := vppagent.ACL{Name: a.Name}
		for _, r := range a.Rules {
			vr := vppagent.ACLRule{
				Action: actions[r.Action], Protocol: r.Protocol, Source: r.Source, Destination: r.Destination,
				First: vppagent.ACLRange(r.SourcePort), Second: vppagent.ACLRange(r.DestinationPort),
				TCPMask: r.TCPFlags.Mask, TCPValue: r.TCPFlags.Value,
			}
			vr.IP4, vr.IP6 = r.Families()
			if r.Protocol == config.ProtocolICMP || r.Protocol == config.ProtocolICMPv6 {
				vr.First, vr.Second = vppagent.ACLRange(r.ICMPType), vppagent.ACLRange(r.ICMPCode)
			}
			va.Rules = append(va.Rules, vr)
		}
		out = append(out, va)
	}
	return out
}

// aclRows answers `show acl`.
func (r *router) aclRows(ctx context.Context) ([]ctl.ACL, error) {
	list, err := r.agent.ACLs(ctx)
	if err != nil {
		return nil, ctl.Unavailable("ACLs: %v", err)
	}
	cfg := r.config.Load()
	out := make([]ctl.ACL, 0, len(list))
	for _, st := range list {
		row := ctl.ACL{Name: st.Name, State: st.State.String(), In: []string{}, Out: []string{}, Rules: []ctl.ACLRule{}}
		row.In, row.Out = append(row.In, st.In...), append(row.Out, st.Out...)
		if st.Err != nil {
			row.Error = st.Err.Error()
		}
		at := slices.IndexFunc(cfg.ACLs, func(a config.ACL) bool { return a.Name == st.Name })
		if at < 0 {
			continue // a reload took it away while we looked
		}
		for n, rule := range cfg.ACLs[at].Rules {
			shown := aclRule(n+1, rule)
			if len(st.Rules) == len(cfg.ACLs[at].Rules) {
				shown.Packets, shown.Bytes = &st.Rules[n].Packets, &st.Rules[n].Bytes
			}
			row.Rules = append(row.Rules, shown)
		}
		out = append(out, row)
	}
	return out, nil
}

func aclRule(number int, r config.ACLRule) ctl.ACLRule {
	out := ctl.ACLRule{Number: number, Action: string(r.Action), TCPFlags: r.TCPFlags.Words()}
	if r.Protocol != 0 {
		out.Protocol = config.ProtocolName(r.Protocol)
	}
	if r.Source.IsValid() {
		out.Source = r.Source.String()
	}
	if r.Destination.IsValid() {
		out.Destination = r.Destination.String()
	}
	for _, c := range []struct {
		to        *string
		have, any config.Range
	}{
		{&out.SourcePort, r.SourcePort, config.AnyPort},
		{&out.DestinationPort, r.DestinationPort, config.AnyPort},
		{&out.ICMPType, r.ICMPType, config.AnyICMP},
		{&out.ICMPCode, r.ICMPCode, config.AnyICMP},
	} {
		if c.have != c.any {
			*c.to = c.have.String()
		}
	}
	return out
}
