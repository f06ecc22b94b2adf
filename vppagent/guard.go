package vppagent

import (
	"context"
	"errors"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/mss_clamp"
	"go.fd.io/govpp/binapi/urpf"

	"rlr/binapi"
)

// What an interface does to packets besides forwarding them. It is told at the beginning of a life, for a new interface, and when
// it changes; VPP keeps it by index, also when the interface is gone, so each is first told of nothing.

// Guard is that of an interface; the zero value is nothing.
type Guard struct {
	// MSS4 and MSS6 are the largest segment sizes (bytes) that TCP through the interface may ask for, in both directions; 0: any.
	MSS4, MSS6 uint16
	// Optional: a dataplane that has no such clamp is good enough.
	Optional bool
	URPF     URPFMode
}

// URPFMode says which sources may come in (RFC 3704). The values are the API's.
type URPFMode uint8

// Modes.
const (
	URPFOff    URPFMode = iota
	URPFLoose           // there is a route to the source
	URPFStrict          // and it leaves by the interface
)

// errURPF6 is said of a dataplane whose check drops what comes from fe80:: addresses, and with it neighbor discovery and BGP.
var errURPF6 = errors.New("only IPv4 sources are checked: VPP's check of IPv6 drops link-local ones")

// settleGuard makes the difference between what an interface was told and what it is to do.
func (p *pass) settleGuard(want *Interface, index uint32) (todo []request, err error) {
	clamps, checks := p.report.Supports(binapi.MSSClamp), p.report.Supports(binapi.URPF)
	g := want.Guard
	switch {
	case !clamps && g.MSS4+g.MSS6 > 0 && !g.Optional:
		return nil, errors.New("mss-clamp: this VPP has no plugin for it (mss_clamp_plugin.so), or another version of its messages")
	case !checks && g.URPF != URPFOff:
		return nil, errors.New("urpf: this VPP has no plugin for it (urpf_plugin.so), or another version of its messages")
	}
	have, told := p.guards[index]
	if told && have == g {
		return nil, nil
	}
	steps := []Guard{g}
	if !told {
		steps = []Guard{{}, g}
	}
	for _, g := range steps {
		if clamps {
			todo = append(todo, request{req: clampOf(index, g), reply: new(mss_clamp.MssClampEnableDisableReply)})
		}
		for _, ip6 := range []bool{false, true} {
			if !checks || ip6 && !p.a.opt.URPF6 {
				continue
			}
			todo = append(todo, request{req: &urpf.UrpfUpdate{
				IsInput: true, Mode: urpf.UrpfMode(g.URPF), Af: familyOf(ip6), SwIfIndex: interface_types.InterfaceIndex(index),
			}, reply: new(urpf.UrpfUpdateReply)})
		}
	}
	return todo, nil
}

func clampOf(index uint32, g Guard) api.Message {
	m := &mss_clamp.MssClampEnableDisable{SwIfIndex: interface_types.InterfaceIndex(index), IPv4Mss: g.MSS4, IPv6Mss: g.MSS6}
	const both = mss_clamp.MSS_CLAMP_DIR_RX | mss_clamp.MSS_CLAMP_DIR_TX
	if g.MSS4 > 0 {
		m.IPv4Direction = both
	}
	if g.MSS6 > 0 {
		m.IPv6Direction = both
	}
	return m
}

// guard is the last step of an interface's settings.
func (p *pass) guard(ctx context.Context, want *Interface, index uint32) error {
	todo, err := p.settleGuard(want, index)
	if err == nil {
		if err = apply(ctx, p.s, todo); err != nil && !isRefusal(err) {
			return err
		}
	}
	if err != nil {
		delete(p.guards, index)
		p.fail(want.Name, err)
		return nil
	}
	if want.Guard.URPF != URPFOff && !p.a.opt.URPF6 && p.guards[index] != want.Guard {
		p.a.errs.add("urpf on "+want.Name, errURPF6)
	}
	p.guards[index] = want.Guard
	return nil
}
