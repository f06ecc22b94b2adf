package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file serves GoBGP's API, so that the stock gobgp command and what else speaks it work with this router. GoBGP's own
// implementation answers what only reads. What changes neighbours goes to the configuration's owner, because GoBGP would dial
// them with the kernel's TCP. What would take the router's own policies, routes or tables from under it is refused
// (grpc_refused.go). Neighbours are called by their addresses, also where GoBGP knows them by another one (see newIDLocked).

// Management changes which neighbours there are, as the owner of the configuration does it. Errors are ErrNoNeighbor,
// ErrNoEntry and ErrExists, or tell what is wrong with the neighbour.
type Management interface {
	AddNeighbor(Neighbor) error     // a zero field is one that nobody has set; the name may be missing
	ReplaceNeighbor(Neighbor) error // the one by that name; what the API has no word for stays
	DeleteNeighbor(name string) error

	AddGroup(name string, settings Neighbor) error // which have neither a name nor an address
	ReplaceGroup(name string, settings Neighbor) error
	DeleteGroup(name string) error

	AddDynamic(p netip.Prefix, group string) error
	DeleteDynamic(netip.Prefix) error
}

// ServeGRPC answers on l until ctx ends, once Run has begun; it closes l. Calls that still run then are cancelled and waited
// for. It must end before Run does.
func (s *Speaker) ServeGRPC(ctx context.Context, l net.Listener, m Management) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return l.Close()
	}
	s.mu.RLock()
	r := s.running
	s.mu.RUnlock()
	if r == nil {
		return errors.Join(errors.New("bgp: grpc: the speaker has ended"), l.Close())
	}
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	api.RegisterGoBgpServiceServer(g, &gateway{refusing: refusing{apiOf(r.gobgp)}, s: s, r: r, manage: m})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil {
		return fmt.Errorf("bgp: grpc: %w", err)
	}
	return ctx.Err()
}

// gateway is the API with our neighbours in it.
type gateway struct {
	refusing
	s      *Speaker
	r      *running
	manage Management
}

// sender changes what a streaming method sends, and leaves out what nobody is to see.
type sender[T any] struct {
	grpc.ServerStreamingServer[T]
	change func(*T) (seen bool)
}

func (s sender[T]) Send(m *T) error {
	if !s.change(m) {
		return nil
	}
	return s.ServerStreamingServer.Send(m)
}

// code puts an error of ours into words of gRPC.
func code(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoNeighbor), errors.Is(err, ErrNoEntry):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, ErrExists):
		return status.Error(codes.AlreadyExists, err.Error())
	}
	return status.Error(codes.InvalidArgument, err.Error())
}

// --- names

// find returns a neighbour by what a caller calls it: an address, which may lack its zone where only one has it, or a name.
func (g *gateway) find(name string) *peer {
	if p, err := g.s.peerByName(name); err == nil {
		return p
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return nil
	}
	if p := g.s.peerByID(a); p != nil && p.id == p.config().Address {
		return p
	}
	g.s.mu.RLock()
	defer g.s.mu.RUnlock()
	var found *peer
	for at, p := range g.s.peers {
		if at.WithZone("") == a.Unmap() {
			if found != nil {
				return nil
			}
			found = p
		}
	}
	return found
}

func (g *gateway) named(name string) (*peer, error) {
	if p := g.find(name); p != nil {
		return p, nil
	}
	return nil, code(fmt.Errorf("%s: %w", name, ErrNoNeighbor))
}

// inward is GoBGP's name of a neighbour, for a request.
func (g *gateway) inward(name string) string {
	if p := g.find(name); p != nil {
		return p.id.String()
	}
	return name
}

// outward is a neighbour's address for GoBGP's name, in an answer.
func (g *gateway) outward(id string) string {
	if a, err := netip.ParseAddr(id); err == nil {
		if p := g.s.peerByID(a); p != nil {
			return p.config().Address.String()
		}
	}
	return id
}

func (g *gateway) outwardPaths(paths []*api.Path) {
	for _, p := range paths {
		p.NeighborIp = g.outward(p.NeighborIp)
	}
}

// --- what reads

// ListPeer adds what GoBGP is not told of a neighbour, and those that it does not know because they are disabled.
func (g *gateway) ListPeer(r *api.ListPeerRequest, stream grpc.ServerStreamingServer[api.ListPeerResponse]) error {
	wanted := r.GetAddress()
	r.Address = g.inward(wanted)
	seen := map[netip.Addr]bool{}
	err := g.GoBgpServiceServer.ListPeer(r, sender[api.ListPeerResponse]{stream, func(m *api.ListPeerResponse) bool {
		a, err := netip.ParseAddr(m.GetPeer().GetConf().GetNeighborAddress())
		if err != nil || standIn(a) {
			return err != nil
		}
		seen[a] = true
		if p := g.s.peerByID(a); p != nil {
			g.describePeer(m.Peer, p)
		}
		return true
	}})
	if err != nil {
		return err
	}
	g.s.mu.RLock()
	var rest []*peer
	for _, p := range g.s.peers {
		if p.status.isDisabled() && !seen[p.id] && (wanted == "" || p.id.String() == r.Address) {
			rest = append(rest, p)
		}
	}
	g.s.mu.RUnlock()
	slices.SortFunc(rest, func(a, b *peer) int { return a.config().Address.Compare(b.config().Address) })
	for _, p := range rest {
		one := &api.Peer{State: &api.PeerState{
			SessionState: api.PeerState_SESSION_STATE_IDLE, AdminState: api.PeerState_ADMIN_STATE_DOWN,
		}}
		g.describePeer(one, p)
		if err := stream.Send(&api.ListPeerResponse{Peer: one}); err != nil {
			return err
		}
	}
	return nil
}

// describePeer completes what GoBGP says of a neighbour, all of which are passive to it. The sub-messages that a caller may
// take for granted are there for a disabled one too.
func (g *gateway) describePeer(m *api.Peer, p *peer) {
	n := p.config()
	if m.Conf == nil {
		m.Conf = &api.PeerConf{PeerAsn: n.AS, LocalAsn: p.local.as, Description: n.Name}
		m.Timers = &api.Timers{Config: &api.TimersConfig{HoldTime: uint64(n.HoldTime.Seconds())}, State: &api.TimersState{}}
		m.Transport, m.ApplyPolicy = &api.Transport{}, &api.ApplyPolicy{}
		m.EbgpMultihop, m.RouteServer = &api.EbgpMultihop{}, &api.RouteServer{}
		m.RouteReflector = &api.RouteReflector{RouteReflectorClient: n.RouteReflectorClient}
		m.GracefulRestart = &api.GracefulRestart{}
		m.State.PeerAsn, m.State.LocalAsn, m.State.Messages = n.AS, p.local.as, &api.Messages{Received: &api.Message{}, Sent: &api.Message{}}
		m.State.Queues = &api.Queues{}
		for _, f := range n.Families {
			m.AfiSafis = append(m.AfiSafis, &api.AfiSafi{Config: &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true}, State: &api.AfiSafiState{Family: apiFamily(f)}})
		}
	}
	m.Conf.NeighborAddress, m.Conf.PeerGroup = n.Address.String(), n.Group
	if m.State != nil {
		m.State.NeighborAddress, m.State.PeerGroup = n.Address.String(), n.Group
	}
	if t := m.Transport; t != nil {
		t.PassiveMode = n.Passive
		if t.LocalAddress = ""; n.LocalAddress.IsValid() {
			t.LocalAddress = n.LocalAddress.String()
		}
	}
	if t := m.Timers.GetConfig(); t != nil {
		t.ConnectRetry = uint64(n.ConnectRetry.Seconds())
	}
	if m.EbgpMultihop != nil {
		m.EbgpMultihop.Enabled = n.Multihop
	}
	if m.GracefulRestart != nil {
		m.GracefulRestart.LocalRestarting = p.restarter() && g.r.restarting()
	}
	t := p.telling.Load()
	if t == nil {
		return
	}
	for _, f := range m.AfiSafis {
		if family := familyOf(bgp.NewFamily(uint16(f.GetState().GetFamily().GetAfi()), uint8(f.GetState().GetFamily().GetSafi()))); family != 0 {
			f.State.Advertised = t.count[family-1].Load()
		}
	}
	if sent := m.GetState().GetMessages().GetSent(); sent != nil {
		sent.Update, sent.Total = sent.Update+t.updates.Load(), sent.Total+t.updates.Load()
	}
}

func (g *gateway) ListPath(r *api.ListPathRequest, stream grpc.ServerStreamingServer[api.ListPathResponse]) error {
	if r.GetTableType() == api.TableType_TABLE_TYPE_ADJ_OUT {
		return g.listAdjOut(r, stream)
	}
	r.Name = g.inward(r.GetName())
	return g.GoBgpServiceServer.ListPath(r, sender[api.ListPathResponse]{stream, func(m *api.ListPathResponse) bool {
		g.outwardPaths(m.GetDestination().GetPaths())
		return true
	}})
}

func (g *gateway) WatchEvent(r *api.WatchEventRequest, stream grpc.ServerStreamingServer[api.WatchEventResponse]) error {
	for _, f := range r.GetTable().GetFilters() {
		f.PeerAddress = g.inward(f.GetPeerAddress())
	}
	return g.GoBgpServiceServer.WatchEvent(r, sender[api.WatchEventResponse]{stream, func(m *api.WatchEventResponse) bool {
		g.outwardPaths(m.GetTable().GetPaths())
		if p := m.GetPeer().GetPeer(); p.GetConf() != nil {
			if a, err := netip.ParseAddr(p.Conf.NeighborAddress); err == nil && standIn(a) {
				return false
			}
			p.Conf.NeighborAddress = g.outward(p.Conf.NeighborAddress)
			if p.State != nil {
				p.State.NeighborAddress = p.Conf.NeighborAddress
			}
		}
		return true
	}})
}

// ListPeerGroup names the groups that have neighbours; their settings are in the configuration.
func (g *gateway) ListPeerGroup(r *api.ListPeerGroupRequest, stream grpc.ServerStreamingServer[api.ListPeerGroupResponse]) error {
	g.s.mu.RLock()
	var names []string
	for _, n := range g.s.cfg.Neighbors {
		names = append(names, n.Group)
	}
	for _, d := range g.s.cfg.Dynamic {
		names = append(names, d.Neighbor.Group)
	}
	g.s.mu.RUnlock()
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name == "" || r.GetPeerGroupName() != "" && r.GetPeerGroupName() != name {
			continue
		}
		group := &api.PeerGroup{Conf: &api.PeerGroupConf{PeerGroupName: name}, Info: &api.PeerGroupState{PeerGroupName: name}}
		if err := stream.Send(&api.ListPeerGroupResponse{PeerGroup: group}); err != nil {
			return err
		}
	}
	return nil
}

func (g *gateway) ListDynamicNeighbor(r *api.ListDynamicNeighborRequest, stream grpc.ServerStreamingServer[api.ListDynamicNeighborResponse]) error {
	g.s.mu.RLock()
	all := g.s.cfg.Dynamic
	g.s.mu.RUnlock()
	for _, d := range all {
		if r.GetPeerGroup() != "" && r.GetPeerGroup() != d.Neighbor.Group {
			continue
		}
		one := &api.DynamicNeighbor{Prefix: d.Prefix.String(), PeerGroup: d.Neighbor.Group}
		if err := stream.Send(&api.ListDynamicNeighborResponse{DynamicNeighbor: one}); err != nil {
			return err
		}
	}
	return nil
}

// --- neighbours

func (g *gateway) AddPeer(_ context.Context, r *api.AddPeerRequest) (*api.AddPeerResponse, error) {
	n, err := g.neighborOf(r.GetPeer())
	if err != nil {
		return nil, err
	}
	return &api.AddPeerResponse{}, code(g.manage.AddNeighbor(n))
}

// UpdatePeer replaces a neighbour's settings. The session ends where they need a new one.
func (g *gateway) UpdatePeer(_ context.Context, r *api.UpdatePeerRequest) (*api.UpdatePeerResponse, error) {
	p, err := g.named(r.GetPeer().GetConf().GetNeighborAddress())
	if err != nil {
		return nil, err
	}
	n, err := g.neighborOf(r.GetPeer())
	if err != nil {
		return nil, err
	}
	old := p.config()
	n.Name, n.Interface = old.Name, old.Interface
	if n.AS == 0 {
		n.AS = old.AS
	}
	if err := g.manage.ReplaceNeighbor(n); err != nil {
		return nil, code(err)
	}
	if r.GetDoSoftResetIn() {
		err = g.s.Reset(n.Name, ResetSoftIn)
	}
	return &api.UpdatePeerResponse{}, code(err)
}

func (g *gateway) DeletePeer(_ context.Context, r *api.DeletePeerRequest) (*api.DeletePeerResponse, error) {
	name := r.GetAddress()
	if name == "" {
		g.s.mu.RLock()
		for _, n := range g.s.cfg.Neighbors {
			if n.Interface == r.GetInterface() && n.Interface != "" && isLinkLocal(n.Address) {
				name = n.Address.String()
			}
		}
		g.s.mu.RUnlock()
	}
	p, err := g.named(name)
	if err != nil {
		return nil, err
	}
	return &api.DeletePeerResponse{}, code(g.manage.DeleteNeighbor(p.config().Name))
}

func (g *gateway) EnablePeer(_ context.Context, r *api.EnablePeerRequest) (*api.EnablePeerResponse, error) {
	p, err := g.named(r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &api.EnablePeerResponse{}, code(g.s.Enable(p.config().Name))
}

func (g *gateway) DisablePeer(_ context.Context, r *api.DisablePeerRequest) (*api.DisablePeerResponse, error) {
	p, err := g.named(r.GetAddress())
	if err != nil {
		return nil, err
	}
	return &api.DisablePeerResponse{}, code(g.s.Disable(p.config().Name, r.GetCommunication()))
}

// ShutdownPeer is the old name of DisablePeer.
func (g *gateway) ShutdownPeer(ctx context.Context, r *api.ShutdownPeerRequest) (*api.ShutdownPeerResponse, error) {
	_, err := g.DisablePeer(ctx, &api.DisablePeerRequest{Address: r.GetAddress(), Communication: r.GetCommunication()})
	return &api.ShutdownPeerResponse{}, err
}

// ResetPeer resets one, or all.
func (g *gateway) ResetPeer(_ context.Context, r *api.ResetPeerRequest) (*api.ResetPeerResponse, error) {
	var names []string
	if r.GetAddress() == "" || r.GetAddress() == "all" {
		for _, s := range g.s.Sessions() {
			names = append(names, s.Neighbor.Name)
		}
	} else {
		p, err := g.named(r.GetAddress())
		if err != nil {
			return nil, err
		}
		names = []string{p.config().Name}
	}
	var errs []error
	for _, name := range names {
		switch {
		case !r.GetSoft():
			errs = append(errs, g.s.ResetSaying(name, r.GetCommunication()))
		case r.GetDirection() == api.ResetPeerRequest_DIRECTION_IN:
			errs = append(errs, g.s.Reset(name, ResetSoftIn))
		case r.GetDirection() == api.ResetPeerRequest_DIRECTION_OUT:
			errs = append(errs, g.s.Reset(name, ResetSoftOut))
		default:
			errs = append(errs, g.s.Reset(name, ResetSoft))
		}
	}
	return &api.ResetPeerResponse{}, code(errors.Join(errs...))
}
