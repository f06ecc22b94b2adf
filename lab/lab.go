// Package lab runs networks of several routers on one machine and proves what they do.
//
// A scenario is a topology, one YAML file per router, and checks. Every router is a process of its own, `rlr run`, without
// privileges and in its own session; servers are routers with nothing but a default route. Cables are memif sockets, tunnels are
// WireGuard over 127.0.0.1 through a UDP relay per tunnel, which can drop every datagram while all sockets stay open: that is how
// links die on the Internet. The network of the host is not touched.
//
// The checks use what a user has: the command line with --json, and packets. Nothing here looks into a router. For every
// check there is a sabotage, a real defect of the network with which exactly that check fails; a test proves each.
//
// Files are in rlr/SCENARIO-ID/ of the runtime directory (internal/ctl), the ID made from the clone's path, and ports are
// allocated: labs in several clones do not meet.
package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// Info describes a scenario.
type Info struct {
	Name    string
	Summary string
	Routers []string
	Links   []string // the tunnels, which can be cut
	Checks  []CheckInfo
	Running bool // in this clone, now
}

// CheckInfo describes a check of a scenario.
type CheckInfo struct {
	Name     string
	Proves   string // what is true when it passes
	Sabotage string // what Options.Sabotage breaks to make it fail
}

// Options say how to play a scenario. The zero value plays it with this program.
type Options struct {
	Binary    string // the rlr to run; "" is this program
	Dataplane string // "" or "auto", "embedded", "vpp"; with vpp there is no fallback
	Sabotage  string // the check to break
	JSON      bool   // print the Result as JSON instead of a table

	Out      io.Writer // the result; nil: nowhere
	Progress Screen    // a line per step
}

// Screen is where progress is shown.
type Screen struct {
	W        io.Writer // nil: nowhere
	Terminal bool      // W understands carriage returns: show a running clock
	Colour   bool
}

// Check is what came of one check.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"` // also of a skipped one
	Detail  string `json:"detail"`
	Skipped bool   `json:"skipped,omitempty"` // there is nothing to check on this dataplane; Detail says why
}

// Result is what came of a scenario.
type Result struct {
	Scenario  string             `json:"scenario"`
	Dataplane string             `json:"dataplane"` // that was used: embedded or vpp
	OK        bool               `json:"ok"`
	Checks    []Check            `json:"checks"`
	Metrics   map[string]float64 `json:"metrics"` // …_ms milliseconds, …_bytes bytes, …_percent percent of one core
}

// scenario is one lab.
type scenario struct {
	name    string
	summary string
	checks  []CheckInfo
	vppOnly []string // the checks that are skipped on the embedded dataplane
	timed   bool     // it measures milliseconds, and needs the machine to itself
	// network builds the topology, with the defect of a sabotage in it if that is where the defect is.
	network func(sabotage string) network
	// story runs the checks in their order. It returns an error only when going on makes no sense.
	story func(ctx context.Context, p *play) error
}

func scenarios() []scenario {
	return []scenario{aclScenario(), bfdScenario(), dn42Scenario(), ecmpScenario(), linkLocal(), restart(), servicesScenario(), survival(), threeSites()}
}

func findScenario(name string) (scenario, error) {
	for _, s := range scenarios() {
		if s.name == name {
			return s, nil
		}
	}
	return scenario{}, fmt.Errorf("no lab %q", name)
}

// List returns all scenarios, by name.
func List() []Info {
	var out []Info
	for _, s := range scenarios() {
		info := Info{Name: s.name, Summary: s.summary, Checks: s.checks, Links: s.network("").links()}
		for _, n := range s.network("").nodes {
			info.Routers = append(info.Routers, n.name)
		}
		if pl, err := findPlace(s.name, ""); err == nil {
			info.Running = pl.inUse()
		}
		out = append(out, info)
	}
	return out
}

// Run plays a scenario with all its checks, prints the result, and stops all that it started. The error says why
// the scenario could not be played at all, or that ctx ended; failed checks are in the Result.
func Run(ctx context.Context, name string, opt Options) (Result, error) {
	s, err := findScenario(name)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	p, err := newPlay(ctx, s, opt)
	if err != nil {
		return Result{}, err
	}
	defer p.cleanUp()
	if err := p.start(modeRun); err != nil {
		return Result{}, err
	}
	story, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.watchProcesses(cancel)
	p.finishChecks(s.story(story, p), context.Cause(story))
	if ctx.Err() != nil {
		return Result{}, fmt.Errorf("lab %s: interrupted", name)
	}
	p.stop()
	p.metric("lab_ms", float64(time.Since(began).Milliseconds()))
	r := p.result()
	p.keep = !r.OK
	p.progress.close()
	return r, printResult(opt, r, time.Since(began), p.place)
}

// State is a lab that is up.
type State struct {
	Scenario string
	Dir      string
	Routers  []Router
	Links    []string
}

// Router is one process of a lab.
type Router struct {
	Name   string
	PID    int
	Config string // paths
	Log    string
}

// Up starts a scenario and leaves it running.
func Up(ctx context.Context, name string, opt Options) (State, error) {
	s, err := findScenario(name)
	if err != nil {
		return State{}, err
	}
	p, err := newPlay(ctx, s, opt)
	if err != nil {
		return State{}, err
	}
	defer p.progress.close()
	err = p.start(modeUp)
	if err == nil {
		err = p.waitAnswering(ctx)
	}
	if err != nil {
		p.cleanUp()
		return State{}, err
	}
	p.release()
	st := State{Scenario: name, Dir: p.place.dir, Links: p.net.links()}
	for _, pr := range p.procs {
		if pr.name != relayName {
			st.Routers = append(st.Routers, Router{Name: pr.name, PID: pr.pid, Config: p.place.config(pr.name), Log: p.place.log(pr.name)})
		}
	}
	return st, nil
}

// Down stops a lab that Up started, or what a killed Run left, and removes its files.
func Down(ctx context.Context, name string) error {
	if _, err := findScenario(name); err != nil {
		return err
	}
	pl, err := findPlace(name, "")
	if err != nil {
		return err
	}
	return pl.down(ctx)
}

// Cut makes the relay of a tunnel drop every datagram, silently; its sockets stay open. The lab is one that runs.
func Cut(ctx context.Context, name, link string) error { return tellRelay(ctx, name, "cut", link) }

// Heal ends Cut.
func Heal(ctx context.Context, name, link string) error { return tellRelay(ctx, name, "heal", link) }

func tellRelay(ctx context.Context, name, verb, link string) error {
	if _, err := findScenario(name); err != nil {
		return err
	}
	pl, err := findPlace(name, "")
	if err != nil {
		return err
	}
	if !pl.inUse() {
		return fmt.Errorf("lab %s is not running: start it with rlr lab up %s", name, name)
	}
	return commandRelay(ctx, pl.relaySocket(), verb, link)
}

// binary returns the program to run the routers with.
func (o Options) binary() (string, error) {
	if o.Binary != "" {
		return o.Binary, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("lab: find this program: %w", err)
	}
	return exe, nil
}
