package main

import (
	"rlr/internal/config"
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
