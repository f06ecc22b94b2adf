package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rlr/bgp"
	"rlr/internal/config"
	"rlr/internal/ctl"
)

// grpcProtocol is what routes are called that GoBGP's API was given.
const grpcProtocol = "grpc"

// startGRPC serves GoBGP's API where the configuration says so. It is stopped before BGP is.
func (r *router) startGRPC(cfg *config.Config) error {
	if cfg.Control.GRPC == "" {
		return nil
	}
	l, socket, err := r.listenGRPC(cfg.Control.GRPC)
	if err != nil {
		return fmt.Errorf("control.grpc: %w", err)
	}
	r.stages.start("grpc", func(ctx context.Context) error {
		err := r.speaker.ServeGRPC(ctx, l, management{r, ctx})
		if socket == "" {
			return err
		}
		if gone := os.Remove(socket); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	})
	return nil
}

// listenGRPC listens at an address and port, or on a socket, whose path it returns.
func (r *router) listenGRPC(where string) (l net.Listener, socket string, err error) {
	if a, err := netip.ParseAddrPort(where); err == nil {
		l, err := net.Listen("tcp", a.String())
		return l, "", err
	}
	if !filepath.IsAbs(where) {
		where = r.file(where)
	}
	l, err = ctl.ListenPrivate(where)
	return l, where, err
}

// management is what GoBGP's API changes: as commands do.
type management struct {
	r   *router
	ctx context.Context // it ends with the API
}

func (m management) AddNeighbor(n bgp.Neighbor) error {
	name := n.Name
	if name == "" {
		name = nameOf(place(n))
	}
	e, err := config.AddNeighbor(name, neighborSettings(n, false))
	if err != nil {
		return err
	}
	return m.change(e)
}

func (m management) ReplaceNeighbor(n bgp.Neighbor) error {
	e, err := config.ChangeNeighbor(m.r.config.Load(), n.Name, neighborSettings(n, true))
	if err != nil {
		return err
	}
	return m.change(e)
}

func (m management) DeleteNeighbor(name string) error {
	return m.change(config.DeleteNeighbor(name))
}

func (m management) AddGroup(name string, settings bgp.Neighbor) error {
	e, err := config.AddGroup(name, neighborSettings(settings, false))
	if err != nil {
		return err
	}
	return m.change(e)
}

func (m management) ReplaceGroup(name string, settings bgp.Neighbor) error {
	e, err := config.AddGroup(name, neighborSettings(settings, false))
	if err != nil {
		return err
	}
	if e.Of(m.r.config.Load()) == nil {
		return fmt.Errorf("group %s: %w", name, bgp.ErrNoEntry)
	}
	return m.change(e.Instead())
}

func (m management) DeleteGroup(name string) error { return m.change(config.DeleteGroup(name)) }

func (m management) AddDynamic(p netip.Prefix, group string) error {
	return m.change(config.AddDynamic(p.String(), group))
}

func (m management) DeleteDynamic(p netip.Prefix) error {
	return m.change(config.DeleteDynamic(p.String()))
}

func (m management) change(e config.Edit) error {
	_, err := m.r.change(m.ctx, false, e)
	if errors.Is(err, config.ErrNoEntry) {
		return fmt.Errorf("%w: %w", bgp.ErrNoEntry, err)
	}
	return err
}

func place(n bgp.Neighbor) string {
	if n.Address.IsValid() {
		return n.Address.WithZone("").String()
	}
	return n.Interface
}

// neighborSettings are the keys of a neighbour that the API has words for, and that say something. A switch that is off says
// something to one that was on.
func neighborSettings(n bgp.Neighbor, off bool) []config.Setting {
	var out []config.Setting
	put := func(is bool, key string, v any) {
		if is {
			out = append(out, config.Setting{Key: key, Value: v})
		}
	}
	put(n.Address.IsValid(), "address", n.Address.WithZone("").String())
	put(n.Interface != "", "interface", n.Interface)
	put(n.AS != 0, "as", uint64(n.AS))
	put(n.Disabled || off, "disabled", n.Disabled)
	put(n.LocalAddress.IsValid(), "local-address", n.LocalAddress.WithZone("").String())
	put(n.Passive || off, "passive", n.Passive)
	put(n.RouteReflectorClient || off, "route-reflector-client", n.RouteReflectorClient)
	put(n.Multihop || off, "multihop", n.Multihop)
	put(n.HoldTime != 0, "hold-time", n.HoldTime.String())
	put(n.ConnectRetry >= time.Second, "connect-retry", n.ConnectRetry.String())
	var families []string
	for _, f := range slices.Sorted(slices.Values(n.Families)) {
		families = append(families, f.String())
	}
	put(families != nil, "families", families)
	put(n.AllowOwnAS != 0, "allow-own-as", uint64(n.AllowOwnAS))
	put(n.Group != "", "group", n.Group)
	return out
}
