package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/hoststack"
	"rlr/internal/config"
	"rlr/minivpp"
	"rlr/rootless"
	"rlr/vppagent"
)

// dataplane is who forwards: minivpp in this process, a VPP that we start and look after, or one that somebody else runs. All
// three are driven alike, through the sockets.
type dataplane struct {
	kind    config.DataplaneKind // config.VPP or config.Embedded
	sockets rootless.Sockets
	plane   *minivpp.Server // of the embedded one
	vpp     *rootless.VPP   // of the one that we started
	library string          // libvppcom of the VPP

	run   func(context.Context) error
	ready <-chan struct{}
}

// newDataplane makes the one that the configuration asks for. With kind auto it says in the log why it is not VPP.
func (r *router) newDataplane(cfg *config.Config) (*dataplane, error) {
	switch {
	case cfg.Dataplane.Attach != "":
		return attachedVPP(cfg.Dataplane.Attach)
	case cfg.Dataplane.Kind == config.VPP:
		return r.ownVPP()
	case cfg.Dataplane.Kind == config.Auto:
		d, err := r.ownVPP()
		if err == nil {
			return d, nil
		}
		var memory *rootless.MemoryError
		if !errors.Is(err, errNoVPP) && !errors.As(err, &memory) {
			return nil, err
		}
		r.log.WithField("reason", err.Error()).Info("the embedded dataplane forwards")
	}
	return r.embedded()
}

// errNoVPP is why a router without an installed VPP cannot have kind vpp.
var errNoVPP = errors.New("no vpp was found in $VPP_PREFIX/bin, PATH or the usual places: install VPP from FD.io's packages, " +
	"or use the embedded dataplane (dataplane: {kind: embedded})")

func (r *router) embedded() (*dataplane, error) {
	if err := rootless.StopLeftover(r.claim.Dir, r.subsystem("rootless")); err != nil {
		return nil, err
	}
	s := rootless.Sockets{API: r.file("api.sock"), Stats: r.file("stats.sock"), CLI: r.file("cli.sock")}
	plane, err := minivpp.New(minivpp.Config{
		APISocket: s.API, StatsSocket: s.Stats, CLISocket: s.CLI, RuntimeDir: r.claim.Dir, Version: version,
		Log: r.subsystem("minivpp"),
	})
	if err != nil {
		return nil, err
	}
	return &dataplane{kind: config.Embedded, sockets: s, plane: plane, run: plane.Run, ready: plane.Ready()}, nil
}

func (r *router) ownVPP() (*dataplane, error) {
	binary := rootless.FindVPP()
	if binary == "" {
		return nil, errNoVPP
	}
	sizes, err := rootless.Size(rootless.Probe("/"))
	if err != nil {
		return nil, err
	}
	library, err := rootless.FindLibrary(binary)
	if err != nil {
		return nil, err
	}
	vpp, err := rootless.NewVPP(rootless.Options{Binary: binary, Dir: r.claim.Dir, Sizes: sizes, Log: r.subsystem("rootless")})
	if err != nil {
		return nil, err
	}
	return &dataplane{kind: config.VPP, sockets: vpp.Sockets(), vpp: vpp, library: library, run: vpp.Run, ready: vpp.Ready()}, nil
}

// attachedVPP is a VPP that somebody else runs: it may come and go, and vppagent follows it.
func attachedVPP(socket string) (*dataplane, error) {
	binary := rootless.FindVPP()
	if binary == "" {
		return nil, fmt.Errorf("attach to %s: the library libvppcom is needed, and %w", socket, errNoVPP)
	}
	library, err := rootless.FindLibrary(binary)
	if err != nil {
		return nil, err
	}
	now := make(chan struct{})
	close(now)
	s := rootless.SocketsIn(filepath.Dir(socket))
	s.API = socket
	return &dataplane{
		kind: config.VPP, sockets: s, library: library, ready: now,
		run: func(ctx context.Context) error { <-ctx.Done(); return nil },
	}, nil
}

// outlives reports whether the dataplane goes on forwarding when this process ends without being asked to. A VPP that we
// started ends with us where we are the first process of a container.
func (d *dataplane) outlives() bool {
	return d.kind == config.VPP && (d.vpp == nil || os.Getpid() != 1)
}

// preserved reports whether it has been forwarding since before this process began, at the time started.
func (d *dataplane) preserved(st vppagent.Status, started time.Time) bool {
	switch {
	case !d.outlives() || !st.Connected:
		return false
	case d.vpp != nil:
		return d.vpp.Status().Adopted
	}
	return st.Boot.Before(started)
}

// helperCommand is what the executable is told to become VCL's helper process.
const helperCommand = "vcl-helper"

// access are the ways to the dataplane besides its binary API, and what has to run for them.
type access struct {
	stack  hoststack.Stack
	probes hoststack.Probes
	run    map[string]func(context.Context) error
}

// open makes them. They need vppagent, which names interfaces.
func (d *dataplane) open(name, dir string, agent *vppagent.Agent, log func(string) *logrus.Entry) (access, error) {
	if d.kind == config.Embedded {
		return access{stack: hoststack.New(d.plane, agent), probes: hoststack.InProcess(d.plane)}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return access{}, fmt.Errorf("find this program: %w", err)
	}
	vcl, err := hoststack.NewVCL(hoststack.VCLOptions{
		Name: name, Dir: dir, Library: d.library, AppSockets: d.sockets.Apps, Helper: []string{self, helperCommand},
		Version:    func() string { return agent.Status().Version },
		Interfaces: agent, Namespaces: agent, Addresses: agent, Sessions: agent, Log: log("hoststack"),
	})
	if err != nil {
		return access{}, err
	}
	probes := hoststack.NewMemifProbes(hoststack.MemifOptions{
		Socket: filepath.Join(dir, "probe.sock"), Plumber: agent, Log: log("probe"),
	})
	return access{
		stack: vcl, probes: probes,
		run: map[string]func(context.Context) error{"hoststack": vcl.Run, "probe": probes.Run},
	}, nil
}
