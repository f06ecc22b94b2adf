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
	held    int             // packet buffers for rings, of the one that we started
	instead string          // why the installed VPP does not forward, with kind auto

	run   func(context.Context) error
	ready <-chan struct{}
}

// newDataplane makes the one that the configuration asks for. With kind auto it says in the log why it is not VPP.
func (r *router) newDataplane(cfg *config.Config) (*dataplane, error) {
	switch {
	case cfg.Dataplane.Attach != "":
		return attachedVPP(cfg.Dataplane.Attach)
	case cfg.Dataplane.Kind == config.VPP:
		return r.ownVPP(cfg)
	case cfg.Dataplane.Kind == config.Auto:
		d, err := r.ownVPP(cfg)
		if err == nil {
			return d, nil
		}
		if !errors.As(err, new(*unusableError)) {
			return nil, err
		}
		r.log.WithField("reason", err.Error()).Info("the embedded dataplane forwards")
		d, embedErr := r.embedded()
		if embedErr == nil && !errors.Is(err, rootless.ErrNoVPP) {
			d.instead = err.Error()
		}
		return d, embedErr
	}
	return r.embedded()
}

// unusableError is why this host cannot have a VPP of the router's own, as `rlr doctor` says it too. With kind vpp it is the
// end, and with kind auto the reason for the embedded dataplane.
type unusableError struct{ why error }

func (e *unusableError) Error() string {
	var memory *rootless.MemoryError
	if errors.As(e.why, &memory) { // which says what to do instead
		return e.why.Error()
	}
	return fmt.Sprintf("%v, or use the embedded dataplane (dataplane: {kind: embedded})", e.why)
}

func (e *unusableError) Unwrap() error { return e.why }

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

func (r *router) ownVPP(cfg *config.Config) (*dataplane, error) {
	host := rootless.Probe("/")
	held := heldBuffers(cfg)
	sizes, err := host.CheckVPP(held)
	if err != nil {
		return nil, &unusableError{err}
	}
	vpp, err := rootless.NewVPP(rootless.Options{Binary: host.VPP, Dir: r.claim.Dir, Sizes: sizes, Log: r.subsystem("rootless")})
	if err != nil {
		return nil, err
	}
	return &dataplane{
		kind: config.VPP, sockets: vpp.Sockets(), vpp: vpp, library: host.VPPLibrary, held: held, run: vpp.Run, ready: vpp.Ready(),
	}, nil
}

// memory is what a VPP of ours takes, in bytes; 0 without one.
func (d *dataplane) memory() uint64 {
	if d.vpp == nil {
		return 0
	}
	return d.vpp.Status().PSS
}

// sparedBuffers is how many packet buffers interfaces that come later may hold of those that VPP has for its work: the rings of one
// of usual size. VPP's buffers cannot become more while it runs.
const sparedBuffers = 2048

// heldBuffers is how many packet buffers the rings of the memif interfaces hold: of those whose slave is the dataplane, all.
func heldBuffers(cfg *config.Config) int {
	held := 0
	for _, i := range cfg.Interfaces {
		if i.Memif != nil && i.Memif.Role == config.Slave {
			held += 2 * i.Memif.RingSize * i.Memif.Queues
		}
	}
	return held
}

// attachedVPP is a VPP that somebody else runs: it may come and go, and vppagent follows it.
func attachedVPP(socket string) (*dataplane, error) {
	binary := rootless.FindVPP()
	if binary == "" {
		return nil, fmt.Errorf("attach to %s: the library libvppcom is needed, and %w", socket, rootless.ErrNoVPP)
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
