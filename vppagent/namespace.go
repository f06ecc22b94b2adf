package vppagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/fib_types"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	vppsession "go.fd.io/govpp/binapi/session"

	"rlr/binapi"
)

// What hoststack needs of VPP to bind TCP connections to interfaces: application namespaces, and the list of sessions. Neither
// is configuration: a namespace is bound anew before each connect, by the one who connects.

// BindNamespace makes an application namespace, or binds an existing one anew (app_namespace_add_del_v4): connections made in
// it from now on are of the interface, or of any in table if swIfIndex is ^0. Those made before stay where they are.
func (a *Agent) BindNamespace(ctx context.Context, id string, secret uint64, table, swIfIndex uint32) error {
	l, err := a.current()
	if err != nil {
		return err
	}
	return l.s.call(ctx, &vppsession.AppNamespaceAddDelV4{
		IsAdd: true, NamespaceID: id, Secret: secret, SwIfIndex: interface_types.InterfaceIndex(swIfIndex), IP4FibID: table, IP6FibID: table,
	}, new(vppsession.AppNamespaceAddDelV4Reply))
}

// RemoveNamespace deletes an application namespace; VPP ends the applications in it. One that is not there is no error.
func (a *Agent) RemoveNamespace(ctx context.Context, id string) error {
	l, err := a.current()
	if err != nil {
		return err
	}
	err = l.s.call(ctx, &vppsession.AppNamespaceAddDelV4{
		NamespaceID: id, SwIfIndex: interface_types.InterfaceIndex(noInterface),
	}, new(vppsession.AppNamespaceAddDelV4Reply))
	if isRefusal(err) {
		return nil
	}
	return err
}

// LinkLocalAddress returns an interface's own (sw_interface_ip6_get_link_local_address).
func (a *Agent) LinkLocalAddress(ctx context.Context, swIfIndex uint32) (netip.Addr, error) {
	l, err := a.current()
	if err != nil {
		return netip.Addr{}, err
	}
	var reply ip.SwInterfaceIP6GetLinkLocalAddressReply
	req := &ip.SwInterfaceIP6GetLinkLocalAddress{SwIfIndex: interface_types.InterfaceIndex(swIfIndex)}
	if err := l.s.call(ctx, req, &reply); err != nil {
		return netip.Addr{}, err
	}
	addr := netip.AddrFrom16(reply.IP)
	if addr.IsUnspecified() {
		return netip.Addr{}, errors.New("IPv6 is not enabled on it")
	}
	return addr, nil
}

// HasAddress reports whether packets to an address are for the dataplane itself in table (ip_route_lookup_v2). Not for link-local
// ones, which are not in the table.
func (a *Agent) HasAddress(ctx context.Context, table uint32, addr netip.Addr) (bool, error) {
	l, err := a.current()
	if err != nil {
		return false, err
	}
	var reply ip.IPRouteLookupV2Reply
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	if err := l.s.call(ctx, &ip.IPRouteLookupV2{TableID: table, Prefix: binapi.ToPrefix(prefix)}, &reply); err != nil {
		return false, err
	}
	for _, p := range reply.Route.Paths {
		if p.Type == fib_types.FIB_API_PATH_TYPE_LOCAL {
			return true, nil
		}
	}
	return false, nil
}

// SessionInterface returns the interface of the TCP session of table with these ends; found is false if there is none. Of a
// session that is not established VPP does not show the interface: it is ^0 then. There is no API message for it: it reads
// "show session". VPP has one table of sessions for each FIB: of all sessions with these ends in table one at most is alive.
func (a *Agent) SessionInterface(ctx context.Context, table uint32, local, remote netip.AddrPort) (swIfIndex uint32, found bool, err error) {
	l, err := a.current()
	if err != nil {
		return noInterface, false, err
	}
	// The filter takes an address and port written like local's, but the port of an IPv6 address would be read as a part of
	// it. VPP shows ten sessions of a filter at most, without force-print. There is one list for each of its threads.
	for thread := range maxThreads {
		text, err := a.CLI(ctx, fmt.Sprintf("show session verbose 2 thread %d proto tcp rmt %s force-print", thread, remote.Addr().WithZone("")))
		if errors.As(err, new(api.VPPApiError)) {
			return noInterface, false, fmt.Errorf("%w: %s", err, strings.TrimSpace(text))
		}
		if err != nil {
			return noInterface, false, err
		}
		if strings.Contains(text, "invalid thread index") {
			break
		}
		for _, index := range findSessions(text, local, remote) {
			if index == noInterface {
				found = true // and there may be a better one
				continue
			}
			var reply interfaces.SwInterfaceGetTableReply
			req := &interfaces.SwInterfaceGetTable{SwIfIndex: interface_types.InterfaceIndex(index), IsIPv6: remote.Addr().Is6()}
			err := l.s.call(ctx, req, &reply)
			switch {
			case isRefusal(err): // it has just gone
			case err != nil:
				return noInterface, false, err
			case reply.VrfID == table:
				return index, true, nil
			}
		}
	}
	return noInterface, found, nil
}

// maxThreads bounds the search in an answer that never says that there is no such thread.
const maxThreads = 256

// sessionLine begins a session: "[0:3][T] fe80::1:179->fe80::2:64336 …", thread and session index first. The port is what
// follows the last colon.
var (
	sessionLine   = regexp.MustCompile(`^\[\d+:\d+\](?:\[CT:T\]|\[T\]) (\S+):(\d+)->(\S+):(\d+)(?:\s|$)`)
	interfaceWord = regexp.MustCompile(`\bsw_if_index (-?\d+)\b`)
)

// findSessions returns the interface of each session with these ends in what VPP shows, ^0 where it is not told.
func findSessions(text string, local, remote netip.AddrPort) (list []uint32) {
	in := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := sessionLine.FindStringSubmatch(line); m != nil {
			in = isEnd(m[1], m[2], local) && isEnd(m[3], m[4], remote) && !strings.HasSuffix(line, "CLOSED")
			if in {
				list = append(list, noInterface)
			}
		} else if strings.HasPrefix(line, "[") || strings.HasPrefix(line, "Thread ") {
			in = false
		}
		m := interfaceWord.FindStringSubmatch(line)
		if !in || m == nil {
			continue
		}
		if index, err := strconv.ParseUint(m[1], 10, 32); err == nil { // not -1
			list[len(list)-1] = uint32(index)
		}
		in = false
	}
	return list
}

func isEnd(addr, port string, want netip.AddrPort) bool {
	a, err := netip.ParseAddr(addr)
	p, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && a == want.Addr().WithZone("") && uint16(p) == want.Port()
}
