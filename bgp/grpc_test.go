package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// owner is a Management of a speaker whose configuration is nobody else's.
type owner struct {
	mu    sync.Mutex
	s     *Speaker
	notes []string
}

func (o *owner) change(f func([]Neighbor) ([]Neighbor, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.s.cfg
	l, err := f(slices.Clone(c.Neighbors))
	if err != nil {
		return err
	}
	c.Neighbors = l
	return o.s.Apply(c)
}

func (o *owner) AddNeighbor(n Neighbor) error {
	return o.change(func(l []Neighbor) ([]Neighbor, error) {
		if slices.ContainsFunc(l, func(x Neighbor) bool { return x.Address.WithZone("") == n.Address && x.Interface == n.Interface }) {
			return nil, fmt.Errorf("%s: %w", n.Address, ErrExists)
		}
		return append(l, n), nil
	})
}

func (o *owner) ReplaceNeighbor(n Neighbor) error {
	return o.change(func(l []Neighbor) ([]Neighbor, error) {
		for i := range l {
			if l[i].Name == n.Name {
				l[i] = n
			}
		}
		return l, nil
	})
}

func (o *owner) DeleteNeighbor(name string) error {
	return o.change(func(l []Neighbor) ([]Neighbor, error) {
		return slices.DeleteFunc(l, func(x Neighbor) bool { return x.Name == name }), nil
	})
}

func (o *owner) AddGroup(name string, n Neighbor) error { return o.note("add group", name, n.HoldTime) }

func (o *owner) ReplaceGroup(name string, n Neighbor) error {
	return o.note("replace group", name, n.HoldTime)
}

func (o *owner) DeleteGroup(name string) error { return o.note("delete group", name) }

func (o *owner) AddDynamic(p netip.Prefix, group string) error {
	return o.note("add dynamic", p, group)
}

func (o *owner) DeleteDynamic(p netip.Prefix) error { return o.note("delete dynamic", p) }

// note is for what only a configuration has.
func (o *owner) note(what ...any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notes = append(o.notes, strings.TrimSpace(fmt.Sprintln(what...)))
	return nil
}

// serveGRPC gives a client of a router's API. It ends before the router does.
func serveGRPC(t *testing.T, r *testRouter) api.GoBgpServiceClient {
	t.Helper()
	return serveGRPCFor(t, r, &owner{s: r.Speaker})
}

func serveGRPCFor(t *testing.T, r *testRouter, o *owner) api.GoBgpServiceClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.ServeGRPC(ctx, l, o) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ServeGRPC: %v", err)
		}
	})
	return api.NewGoBgpServiceClient(conn)
}

// collect reads a stream to its end.
func collect[T any](t *testing.T, stream grpc.ServerStreamingClient[T], err error) (all []*T) {
	t.Helper()
	for err == nil {
		var m *T
		if m, err = stream.Recv(); err == nil {
			all = append(all, m)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}

func wantCode(t *testing.T, err error, want codes.Code, says string) {
	t.Helper()
	if status.Code(err) != want || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("error %v, want %s with %q", err, want, says)
	}
}

// The neighbours of a router with the same fe80:: address on two tunnels, as the API sees them.
func TestGRPCNeighbors(t *testing.T) {
	r1, r2, _ := manyLinks(t, 2)
	c := r1.cfg
	c.Neighbors = append(slices.Clone(c.Neighbors),
		Neighbor{Name: "left", Address: a("fe80::2%tun0"), AS: 65003, Passive: true, Group: "mesh"},
		Neighbor{Name: "right", Address: a("fe80::2%tun1"), AS: 65004, Disabled: true})
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	start(t, r1, r2)
	client := serveGRPC(t, r1)
	ctx := t.Context()
	list := func(name string) string {
		stream, err := client.ListPeer(ctx, &api.ListPeerRequest{Address: name})
		var lines []string
		for _, m := range collect(t, stream, err) {
			p := m.GetPeer()
			if p.GetConf().GetNeighborAddress() != p.GetState().GetNeighborAddress() {
				t.Errorf("two addresses: %s", p)
			}
			lines = append(lines, fmt.Sprintf("%s %d passive=%t %s %s", p.Conf.NeighborAddress, p.Conf.PeerAsn, p.Transport.PassiveMode, p.Conf.PeerGroup, p.State.AdminState))
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	r1.established("n0", "n1")
	up := " ADMIN_STATE_UP"
	all := strings.Join([]string{
		"169.254.0.2 65002 passive=false " + up, "169.254.1.2 65002 passive=false " + up,
		"fe80::2%tun0 65003 passive=true mesh" + up, "fe80::2%tun1 65004 passive=false  ADMIN_STATE_DOWN",
	}, "\n")
	if got := list(""); got != all {
		t.Errorf("neighbors\n%s\nwant\n%s", got, all)
	}
	for name, want := range map[string]string{
		"169.254.0.2": "169.254.0.2 65002 passive=false " + up, "fe80::2%tun0": "fe80::2%tun0 65003 passive=true mesh" + up,
		"fe80::2%tun1": "fe80::2%tun1 65004 passive=false  ADMIN_STATE_DOWN", "192.0.2.1": "",
	} {
		if got := list(name); got != want {
			t.Errorf("neighbor %s is %q, want %q", name, got, want)
		}
	}

	// Enabled, the second fe80::2 has another name in GoBGP, which nobody sees.
	if _, err := client.EnablePeer(ctx, &api.EnablePeerRequest{Address: "fe80::2%tun1"}); err != nil {
		t.Fatal(err)
	}
	if got, want := list("fe80::2%tun1"), "fe80::2%tun1 65004 passive=false "+up; got != want {
		t.Errorf("neighbor is %q, want %q", got, want)
	}
	_, err := client.EnablePeer(ctx, &api.EnablePeerRequest{Address: "192.0.2.1"})
	wantCode(t, err, codes.NotFound, "192.0.2.1: no such neighbor")
	_, err = client.DeletePeer(ctx, &api.DeletePeerRequest{Address: "fe80::2"})
	wantCode(t, err, codes.NotFound, "fe80::2") // of which there are two
	if _, err = client.DeletePeer(ctx, &api.DeletePeerRequest{Address: "fe80::2%tun0"}); err != nil {
		t.Fatal(err)
	}
	if list("fe80::2%tun0") != "" || list("fe80::2") == "" {
		t.Errorf("neighbors after a deletion:\n%s", list(""))
	}

	// Disabling and resetting end the session with the words of the other side's operator.
	if _, err := client.DisablePeer(ctx, &api.DisablePeerRequest{Address: "169.254.0.2", Communication: "lunch"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ResetPeer(ctx, &api.ResetPeerRequest{Address: "169.254.1.2", Communication: "tea"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() string {
		for name, want := range map[string]string{"n0": "lunch", "n1": "tea"} {
			if got := r2.session(name).LastError; !strings.Contains(got, want) {
				return fmt.Sprintf("r2's %s: %q, want %q in it", name, got, want)
			}
		}
		return ""
	})
	if _, err := client.EnablePeer(ctx, &api.EnablePeerRequest{Address: "169.254.0.2"}); err != nil {
		t.Fatal(err)
	}
	r1.established("n0", "n1")
	for _, d := range []api.ResetPeerRequest_Direction{api.ResetPeerRequest_DIRECTION_IN, api.ResetPeerRequest_DIRECTION_OUT, api.ResetPeerRequest_DIRECTION_BOTH} {
		if _, err := client.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: d}); err != nil {
			t.Fatal(err)
		}
	}
	if s := r1.session("n0"); s.State != Established {
		t.Errorf("soft resets have ended a session: %+v", s)
	}
	stream, err := client.ListPeerGroup(ctx, &api.ListPeerGroupRequest{})
	if got := collect(t, stream, err); len(got) != 0 { // its only member is deleted
		t.Errorf("groups %v", got)
	}
}

// A neighbour that is added runs over the host stack.
func TestGRPCAdd(t *testing.T) {
	r1, r2, _ := twoSites(t, nil)
	c := r1.cfg
	c.Neighbors = nil
	if err := r1.Apply(c); err != nil {
		t.Fatal(err)
	}
	start(t, r1, r2)
	client := serveGRPC(t, r1)
	ctx := t.Context()
	watch, err := client.WatchEvent(ctx, &api.WatchEventRequest{
		Peer:  &api.WatchEventRequest_Peer{},
		Table: &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_TYPE_BEST}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	peer := &api.Peer{Conf: &api.PeerConf{NeighborAddress: "169.254.12.2", PeerAsn: 65002}}
	if _, err := client.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		t.Fatal(err)
	}
	r1.established()
	r2.originate("10.2.0.0/24")
	r1.wantFeed("10.2.0.0/24 via 169.254.12.2")
	states, prefixes := map[api.PeerState_SessionState]bool{}, []string{}
	for len(prefixes) == 0 {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		states[m.GetPeer().GetPeer().GetState().GetSessionState()] = true
		for _, p := range m.GetTable().GetPaths() {
			prefixes = append(prefixes, fmt.Sprint(p.GetNlri().GetPrefix().GetPrefix(), " from ", p.GetNeighborIp()))
		}
	}
	if !states[api.PeerState_SESSION_STATE_ESTABLISHED] || prefixes[0] != "10.2.0.0 from 169.254.12.2" {
		t.Errorf("states %v, prefixes %v", states, prefixes)
	}
	_, err = client.AddPeer(ctx, &api.AddPeerRequest{Peer: peer})
	wantCode(t, err, codes.AlreadyExists, "169.254.12.2")

	// What this router has not is told, and not dropped.
	for says, p := range map[string]*api.Peer{
		"auth_password":           {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1, AuthPassword: "secret"}},
		"local_asn":               {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1, LocalAsn: 3}},
		"route_server_client":     {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1}, RouteServer: &api.RouteServer{RouteServerClient: true}},
		"a family other than":     {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1}, AfiSafis: []*api.AfiSafi{{Config: &api.AfiSafiConfig{Family: &api.Family{Afi: api.Family_AFI_L2VPN, Safi: api.Family_SAFI_EVPN}}}}},
		"vrf, allow_own_asn":      {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1, Vrf: "blue", AllowOwnAsn: 11}},
		"remove_private":          {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1, RemovePrivate: api.RemovePrivate_REMOVE_PRIVATE_ALL}},
		"bind_interface (use nei": {Conf: &api.PeerConf{NeighborAddress: "10.0.0.1", PeerAsn: 1}, Transport: &api.Transport{BindInterface: "eth0"}},
	} {
		_, err := client.AddPeer(ctx, &api.AddPeerRequest{Peer: p})
		wantCode(t, err, codes.Unimplemented, says)
		if strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}

	// An update that needs a new session makes one, and keeps the name.
	stream, err := client.ListPeer(ctx, &api.ListPeerRequest{})
	got := collect(t, stream, err)[0].GetPeer()
	got.Timers.Config.HoldTime = 33
	if _, err := client.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: got, DoSoftResetIn: true}); err != nil {
		t.Fatal(err)
	}
	r1.established()
	if s := r1.session("169.254.12.2"); s.Neighbor.HoldTime != 33*time.Second || s.Neighbor.Passive {
		t.Errorf("after the update: %+v", s.Neighbor)
	}
	if _, err := client.DeletePeer(ctx, &api.DeletePeerRequest{Address: "169.254.12.2"}); err != nil {
		t.Fatal(err)
	}
	r1.wantFeed()
}

// Groups and dynamic neighbours are the configuration's.
func TestGRPCGroups(t *testing.T) {
	r1, _, _ := twoSites(t, nil)
	start(t, r1)
	o := &owner{s: r1.Speaker}
	client := serveGRPCFor(t, r1, o)
	ctx := t.Context()
	group := &api.PeerGroup{
		Conf:   &api.PeerGroupConf{PeerGroupName: "g", PeerAsn: 65009},
		Timers: &api.Timers{Config: &api.TimersConfig{HoldTime: 30}},
	}
	_, err1 := client.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: group})
	_, err2 := client.UpdatePeerGroup(ctx, &api.UpdatePeerGroupRequest{PeerGroup: group})
	_, err3 := client.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{DynamicNeighbor: &api.DynamicNeighbor{Prefix: "10.4.0.0/16", PeerGroup: "g"}})
	_, err4 := client.DeleteDynamicNeighbor(ctx, &api.DeleteDynamicNeighborRequest{Prefix: "10.4.0.0/16", PeerGroup: "g"})
	_, err5 := client.DeletePeerGroup(ctx, &api.DeletePeerGroupRequest{Name: "g"})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	want := []string{"add group g 30s", "replace group g 30s", "add dynamic 10.4.0.0/16 g", "delete dynamic 10.4.0.0/16", "delete group g"}
	if !slices.Equal(o.notes, want) {
		t.Errorf("asked for %q, want %q", o.notes, want)
	}
	group.Conf.AuthPassword = "secret"
	_, err := client.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: group})
	wantCode(t, err, codes.Unimplemented, "auth_password")
	_, err = client.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{DynamicNeighbor: &api.DynamicNeighbor{Prefix: "10.4", PeerGroup: "g"}})
	wantCode(t, err, codes.InvalidArgument, "no prefix")
}

// Routes of the API are announced, and forwarded by; the router's own are not touched.
func TestGRPCRoutes(t *testing.T) {
	injected := newRecorder()
	r1, r2, _ := twoSites(t, nil)
	r1 = newRouterWith(t, r1.node, "r1", Options{Config: r1.cfg, Injected: injected})
	start(t, r1, r2)
	r1.established()
	r1.originate("10.1.0.0/24")
	client := serveGRPC(t, r1)
	ctx := t.Context()
	wantInjected := func(lines ...string) {
		t.Helper()
		want := strings.Join(lines, "\n")
		eventually(t, 5*time.Second, func() string {
			if got := injected.text(); got != want {
				return fmt.Sprintf("injected are\n%s\nwant\n%s", got, want)
			}
			return ""
		})
	}
	path := func(prefix, nextHop string) *api.Path {
		p := netip.MustParsePrefix(prefix)
		family, hop := apiFamily(IPv4), &api.Attribute{Attr: &api.Attribute_NextHop{NextHop: &api.NextHopAttribute{NextHop: nextHop}}}
		nlri := &api.NLRI{Nlri: &api.NLRI_Prefix{Prefix: &api.IPAddressPrefix{PrefixLen: uint32(p.Bits()), Prefix: p.Addr().String()}}}
		if p.Addr().Is6() {
			family = apiFamily(IPv6)
			hop = &api.Attribute{Attr: &api.Attribute_MpReach{MpReach: &api.MpReachNLRIAttribute{Family: family, NextHops: []string{nextHop}, Nlris: []*api.NLRI{nlri}}}}
		}
		return &api.Path{Family: family, Nlri: nlri, Pattrs: []*api.Attribute{{Attr: &api.Attribute_Origin{Origin: &api.OriginAttribute{}}}, hop}}
	}
	for prefix, hop := range map[string]string{"10.7.0.0/24": "0.0.0.0", "10.8.0.0/24": "169.254.12.2", "fd08::/64": "fd00::2"} {
		if _, err := client.AddPath(ctx, &api.AddPathRequest{Path: path(prefix, hop)}); err != nil {
			t.Fatal(err)
		}
	}
	wantInjected("10.7.0.0/24 ", "10.8.0.0/24 via 169.254.12.2", "fd08::/64 via fd00::2")
	r1.wantFeed()
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1", "10.7.0.0/24 via 169.254.12.1", "10.8.0.0/24 via 169.254.12.1")
	if n, err := r1.Count(ctx); err != nil || n != (Count{}) {
		t.Errorf("count: %+v, %v, want none of neighbors'", n, err)
	}

	_, err := client.AddPath(ctx, &api.AddPathRequest{Path: path("10.1.0.0/24", "0.0.0.0")})
	wantCode(t, err, codes.FailedPrecondition, "announces 10.1.0.0/24 by its configuration")
	_, err = client.DeletePath(ctx, &api.DeletePathRequest{Path: path("10.1.0.0/24", "0.0.0.0")})
	wantCode(t, err, codes.FailedPrecondition, "announces 10.1.0.0/24 by its configuration")
	foreign := path("10.6.0.0/24", "0.0.0.0")
	foreign.NeighborIp = "169.254.12.2"
	_, err = client.AddPath(ctx, &api.AddPathRequest{Path: foreign})
	wantCode(t, err, codes.InvalidArgument, "not a neighbor's")
	_, err = client.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_TABLE_TYPE_VRF, VrfId: "blue", Path: path("10.6.0.0/24", "0.0.0.0")})
	wantCode(t, err, codes.Unimplemented, "global table")
	add, err := client.AddPathStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = add.Send(&api.AddPathStreamRequest{Paths: []*api.Path{path("10.1.0.0/24", "0.0.0.0")}}) // the answer tells
	_, err = add.CloseAndRecv()
	wantCode(t, err, codes.FailedPrecondition, "10.1.0.0/24")

	if _, err := client.DeletePath(ctx, &api.DeletePathRequest{Path: path("10.8.0.0/24", "169.254.12.2")}); err != nil {
		t.Fatal(err)
	}
	wantInjected("10.7.0.0/24 ", "fd08::/64 via fd00::2")
	if _, err := client.DeletePath(ctx, &api.DeletePathRequest{}); err != nil { // all
		t.Fatal(err)
	}
	wantInjected()
	r2.wantFeed("10.1.0.0/24 via 169.254.12.1")
}

// Every method of the API is one that is passed on, one that is ours, or one that is refused: a new GoBGP may have more.
func TestGRPCMethods(t *testing.T) {
	passed := []string{"GetBgp", "ListVrf", "ListPolicy", "ListDefinedSet", "ListStatement", "ListPolicyAssignment", "ListRpki", "ListRpkiTable", "ListBmp"}
	ours := []string{
		"ListPeer", "AddPeer", "DeletePeer", "UpdatePeer", "ResetPeer", "ShutdownPeer", "EnablePeer", "DisablePeer", "WatchEvent",
		"ListPeerGroup", "AddPeerGroup", "UpdatePeerGroup", "DeletePeerGroup", "ListDynamicNeighbor", "AddDynamicNeighbor", "DeleteDynamicNeighbor", "AddPath", "AddPathStream", "DeletePath", "ListPath", "GetTable",
	}
	r1, _, _ := twoSites(t, nil)
	start(t, r1)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r1.ServeGRPC(ctx, l, &owner{s: r1.Speaker}) }()
	defer func() { cancel(); <-done }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range api.GoBgpService_ServiceDesc.Methods {
		if slices.Contains(passed, m.MethodName) || slices.Contains(ours, m.MethodName) {
			continue
		}
		// All requests are alike when they are empty.
		err := conn.Invoke(t.Context(), "/"+api.GoBgpService_ServiceDesc.ServiceName+"/"+m.MethodName, &api.StopBgpRequest{}, &api.StopBgpResponse{})
		wantCode(t, err, codes.Unimplemented, m.MethodName+": ")
	}
	for _, s := range api.GoBgpService_ServiceDesc.Streams {
		if !slices.Contains(passed, s.StreamName) && !slices.Contains(ours, s.StreamName) {
			t.Errorf("%s is new: pass it on, or refuse it", s.StreamName)
		}
	}
	if s := r1.session("r2"); s.Disabled {
		t.Error("a refused method has changed something")
	}
}
