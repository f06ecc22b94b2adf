package vppagent

import (
	"context"
	"fmt"

	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_types"

	"rlr/binapi"
)

// setHashes tells every table what a flow is. VPP does not say what it was told, so it is told once in a life, and then of changes.
// Where others may have set it, VPP's default is not restored but after another of our own.
func (p *pass) setHashes(ctx context.Context) error {
	if !p.report.Supports(binapi.FlowHash) {
		return nil
	}
	ids := []uint32{0}
	for i := range p.cfg.Tables {
		ids = append(ids, p.cfg.Tables[i].ID)
	}
	for _, id := range ids {
		for _, ip6 := range []bool{false, true} {
			t := table{id, ip6}
			have, told := p.hashes[t]
			if _, there := p.w.tables[t]; !there && id != 0 {
				delete(p.hashes, t) // it is told when it has been made
				continue
			}
			if told && have == p.cfg.FlowHash || !told && p.cfg.FlowHash == HashPorts && !p.a.opt.Sole {
				continue
			}
			err := p.s.call(ctx, &ip.SetIPFlowHashV2{TableID: id, Af: familyOf(ip6), FlowHashConfig: p.cfg.FlowHash.flags()}, new(ip.SetIPFlowHashV2Reply))
			if err != nil {
				if err := p.refused("flow-hash", fmt.Errorf("table %d: %w", id, err)); err != nil {
					return err
				}
				continue
			}
			p.hashes[t] = p.cfg.FlowHash
		}
	}
	return nil
}

func familyOf(ip6 bool) ip_types.AddressFamily {
	if ip6 {
		return ip_types.ADDRESS_IP6
	}
	return ip_types.ADDRESS_IP4
}

func (h FlowHash) flags() ip.IPFlowHashConfig {
	const addresses = ip.IP_API_FLOW_HASH_SRC_IP | ip.IP_API_FLOW_HASH_DST_IP
	const ports = addresses | ip.IP_API_FLOW_HASH_PROTO | ip.IP_API_FLOW_HASH_SRC_PORT | ip.IP_API_FLOW_HASH_DST_PORT
	switch h {
	case HashAddresses:
		return addresses
	case HashFlowLabel:
		return ports | ip.IP_API_FLOW_HASH_FLOW_LABEL
	}
	return ports
}
