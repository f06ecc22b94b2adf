package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/bgp"
	"rlr/bgp/rpki"
	"rlr/fib"
	"rlr/hoststack"
	"rlr/internal/config"
	"rlr/internal/ctl"
	"rlr/rootless"
	"rlr/vppagent"
)

// BIRD's preferences: of several protocols' routes to one prefix, the highest is used.
const (
	preferDirect = 240
	preferStatic = 200
	preferGRPC   = 150 // ours: who adds a route by hand means it, and who writes it down means it more
	preferBGP    = 100
	preferLearn  = 10 // of BIRD's kernel protocol, for routes that are not its own
)

const (
	startTimeout = 20 * time.Second // for the dataplane to open its API socket
	setupTimeout = 5 * time.Second  // for the first configuration to be in the dataplane; the router goes on without
)

// errRestart is how a router ends that is to be executed again.
var errRestart = errors.New("restart")

// router is one running router: the parts, and the configuration that they have.
type router struct {
	path    string // of the configuration file, absolute
	started time.Time
	claim   *ctl.Claim
	logger  *logrus.Logger
	log     *logrus.Entry
	journal *journal

	stages  *stages
	dp      *dataplane
	access  access
	agent   *vppagent.Agent
	syncer  *fib.Syncer
	direct  *fib.Feed
	static  *fib.Feed
	learned *fib.Feed
	others  *fib.Feed       // routes that GoBGP's API was given; nil without it
	speaker *bgp.Speaker    // nil without an AS
	roas    *rpki.Collector // nil without an AS
	prober  *hoststack.Prober
	links   *links
	proxies proxies

	lives  atomic.Uint64 // of the dataplane, so far
	health health

	ending chan error // errRestart, or nil for `rlr stop`

	discovering sync.Mutex
	found       map[string]netip.Addr // who is on which link; guarded by discovering

	originating sync.Mutex
	roaMu       sync.Mutex
	reloading   sync.Mutex                    // one reload, or change at run time, at a time
	overlay     atomic.Pointer[overlay]       // what makes the configuration of its file; changed under reloading
	config      atomic.Pointer[config.Config] // the accepted configuration; its value is never modified
}

// loadConfig reads a configuration as the router that it describes would.
func loadConfig(path string) (*config.Config, error) {
	return config.Load(path, config.WithLinksDir(ctl.LinksDir()))
}

// parseConfig is loadConfig for the text of a file.
func parseConfig(path string, text []byte) (*config.Config, error) {
	return config.Parse(path, text, config.WithLinksDir(ctl.LinksDir()))
}

// runRouter runs a router until ctx ends or somebody asks it to stop.
func runRouter(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	text, err := config.Read(path)
	if err != nil {
		return err
	}
	ov, cfg, err := (overlay{path: path}).on(text)
	if err != nil {
		return err
	}
	claim, err := ctl.NewClaim(cfg.Router.Name)
	if err != nil {
		return err
	}
	defer claim.Close()
	if err := ctl.MakeDir(ctl.LinksDir()); err != nil {
		return err
	}
	r := &router{path: path, started: time.Now(), claim: claim, stages: newStages(), ending: make(chan error, 1)}
	r.config.Store(cfg)
	r.overlay.Store(&ov)
	r.logger, r.journal = newLogger(os.Stderr, cfg.Log)
	r.log = r.subsystem("router")
	defer r.stages.stopAll()
	if err := r.build(); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	r.log.WithFields(logrus.Fields{"name": cfg.Router.Name, "dataplane": r.dp.kind, "pid": os.Getpid()}).Info("router is running")
	r.stages.start("memory", func(ctx context.Context) error { return tidy(ctx, rootless.Probe("/").MemoryLimit, r.dp.memory) })
	defer r.health.stop() // before the stages stop, the first of which answers to the end
	return r.wait(ctx)
}

// wait returns when the router is to end, and why. SIGHUP is a reload, as daemons have it.
func (r *router) wait(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			if _, err := r.reload(ctx); err != nil {
				r.log.WithError(err).Error("the configuration was not reloaded")
			}
		case <-ctx.Done():
			r.log.Info("stopping")
			return nil
		case err := <-r.ending:
			r.log.Info("stopping on request")
			return err
		case err := <-r.stages.failed:
			return err
		}
	}
}

func (r *router) subsystem(name string) *logrus.Entry { return r.logger.WithField("subsystem", name) }

// file is the path of a file in the router's folder.
func (r *router) file(name string) string { return filepath.Join(r.claim.Dir, name) }

// build makes the parts; nothing runs yet.
func (r *router) build() error {
	var err error
	cfg := r.config.Load()
	if r.dp, err = r.newDataplane(cfg); err != nil {
		return err
	}
	r.agent = vppagent.New(vppagent.Options{
		Socket: r.dp.sockets.API, StatsSocket: r.dp.sockets.Stats,
		Config: agentConfig(cfg, r.claim.Dir), Log: r.subsystem("vppagent"), Sole: r.dp.vpp != nil, URPF6: r.dp.plane != nil,
	})
	r.syncer = fib.NewSyncer(fib.Options{Target: r.agent, Log: r.subsystem("fib"), Audit: auditEvery(cfg)})
	r.direct = r.syncer.Feed("direct", preferDirect)
	r.static = r.syncer.Feed("static", preferStatic)
	bgpFeed := r.syncer.Feed("bgp", preferBGP)
	r.learned = r.syncer.Learn("learned", preferLearn, r.originate)
	if r.access, err = r.dp.open(cfg.Router.Name, r.claim.Dir, r.agent, r.subsystem); err != nil {
		return err
	}
	r.prober = hoststack.NewProber(r.access.probes, r.agent)
	if r.dp.plane == nil {
		r.access.stack = acquainted{r.access.stack, r.prober, func(name string) bool {
			i, ok := r.config.Load().Interface(name)
			return ok && i.WireGuard != nil // they are configured in VPP
		}}
	}
	r.links = newLinks(r.stages, r.subsystem("wg"))
	r.proxies.stages = map[string]*stage{}
	if cfg.Router.AS == 0 {
		bgpFeed.Complete()
		return nil
	}
	options := bgp.Options{
		Config: bgpConfig(cfg), Stack: r.access.stack, Feed: bgpFeed, Log: r.subsystem("bgp"),
		Outlived: r.dp.outlives(), Life: r.life, BFD: bfdOf{r.agent},
		Arrived: func(p netip.Prefix, at time.Time) { r.syncer.Arrived(fib.Key{Prefix: p}, at) },
	}
	if cfg.Control.GRPC != "" {
		r.others = r.syncer.Feed(grpcProtocol, preferGRPC)
		options.Injected = r.others
	}
	r.speaker, err = bgp.New(options)
	r.roas = r.newCollector()
	return err
}

// start runs the parts, each after what it depends on.
func (r *router) start(ctx context.Context) error {
	r.startWeb() // first, for it tells of the start and of the end
	r.stages.start("dataplane", r.dp.run)
	select {
	case <-r.dp.ready:
	case err := <-r.stages.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startTimeout):
		// A VPP that does not start is tried again and again; meanwhile `rlr show status` says why.
		r.log.WithField("socket", r.dp.sockets.API).Warn("the dataplane does not answer yet")
	}
	r.agent.Watch(r.dataplaneChanged)
	r.stages.start("vppagent", r.agent.Run)
	r.stages.start("fib", r.syncer.Run)
	for name, run := range r.access.run {
		r.stages.start(name, run)
	}
	cfg := r.config.Load()
	r.static.Replace(staticRoutes(cfg))
	own := r.static.Complete()
	if err := r.links.apply(cfg, r.claim.Dir); err != nil {
		return err
	}
	// Sessions that are dialled before their interface exists only fail and wait; so it is worth a moment.
	setup, done := context.WithTimeout(ctx, setupTimeout)
	defer done()
	if err := r.agent.WaitConfigured(setup); err != nil && ctx.Err() == nil {
		r.log.WithError(err).Warn("the dataplane does not hold the whole configuration yet; see rlr show interfaces")
	}
	r.updateConnected()
	r.direct.Complete()
	if r.speaker != nil {
		r.resume(ctx, own)
		r.startROAs(ctx)
		r.stages.start("bgp", r.speaker.Run)
	}
	if err := r.startGRPC(cfg); err != nil {
		return err
	}
	if err := r.startBird(cfg); err != nil {
		return err
	}
	r.applyProxies(cfg)
	control, err := ctl.NewServer(r.claim, version, r.handlers(), r.subsystem("control"), ctl.WithSocket(cfg.Control.Socket))
	if err != nil {
		return err
	}
	r.stages.start("control", control.Run)
	return nil
}

// resume tells BGP whether it is back from a restart over which the dataplane has forwarded by its routes: left-overs are
// there, in a dataplane that is older than this process. own is the revision of the routes that are no left-overs.
func (r *router) resume(ctx context.Context, own uint64) {
	ctx, done := context.WithTimeout(ctx, setupTimeout)
	defer done()
	if !r.dp.preserved(r.agent.Status(), r.started) || r.syncer.WaitSynced(ctx, own) != nil {
		return
	}
	if n := r.syncer.Status().States[fib.Stale]; n > 0 {
		r.log.WithField("routes", n).Info("the dataplane has forwarded meanwhile; its routes stay until the BGP neighbors have sent theirs")
		r.speaker.Resume()
	}
}

// life is the dataplane's present life, 0 while it is not known to be the one of before.
func (r *router) life() uint64 {
	if !r.agent.Status().Connected {
		return 0
	}
	return r.lives.Load()
}

// dataplaneChanged follows vppagent. What it says is a hint; the answer is always to look again.
func (r *router) dataplaneChanged(c vppagent.Change) {
	if c.Kind == vppagent.Attached && c.NewInstance && r.lives.Add(1) > 1 && r.speaker != nil {
		r.speaker.Void() // what the one before held is gone with it
	}
	switch c.Kind {
	case vppagent.Attached, vppagent.RoutesChanged:
		r.syncer.Invalidate()
	case vppagent.Detached:
		r.syncer.Invalidate() // what is found when it is back, is to be expected
		return                // nothing to look at; Attached follows
	}
	r.updateConnected()
	r.syncer.InterfacesChanged()
	r.discover()
}

// discover tells BGP who is on the links of neighbours without an address, and vppagent who of them is behind a tunnel.
func (r *router) discover() {
	found := r.agent.Routers()
	if r.speaker == nil || len(found) == 0 {
		return
	}
	r.discovering.Lock() // who comes last tells the latest
	defer r.discovering.Unlock()
	if maps.Equal(found, r.found) {
		return
	}
	r.found = found
	r.configureAgent()
	if err := r.speaker.Discovered(found); err != nil {
		r.log.WithError(err).Error("BGP does not take neighbors that were found")
	}
}

// configureAgent gives vppagent the accepted configuration; discovering is held.
func (r *router) configureAgent() {
	cfg := r.config.Load()
	r.agent.SetConfig(withRouters(cfg, agentConfig(cfg, r.claim.Dir), r.found))
}

// updateConnected gives the connected routes of the moment to those who use them.
func (r *router) updateConnected() {
	r.direct.Replace(r.agent.Reachable())
	r.originate()
}

// originate tells BGP what is our own, at the moment.
func (r *router) originate() {
	if err := r.tryOriginate(); err != nil {
		r.log.WithError(err).Error("BGP does not take our own routes")
	}
}

func (r *router) tryOriginate() error {
	if r.speaker == nil {
		return nil
	}
	r.originating.Lock() // who comes last tells the latest
	defer r.originating.Unlock()
	return r.speaker.Originate(origins(r.config.Load(), r.agent.Connected(), r.syncer.Learned()))
}

// end makes runRouter return; the first reason counts.
func (r *router) end(reason error) {
	select {
	case r.ending <- reason:
	default:
	}
}
