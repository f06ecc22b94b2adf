package vppagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
)

// One pass from what is to what is configured, in the order in which VPP's objects depend on each other: tables, ACLs; what
// must go; loopbacks, memifs; the settings of those that lend addresses before those that borrow; ACLs and tables that must go.

// ifState is what became of a configured interface.
type ifState struct {
	index uint32 // noInterface: it is not there
	err   error
}

// link is what Connected and events need of an interface of ours.
type link struct {
	index     uint32
	loopback  bool
	admin, up bool
	table     uint32
	addresses []netip.Prefix
	linkLocal netip.Addr
}

func (l *link) same(o *link) bool {
	return l.index == o.index && l.admin == o.admin && l.up == o.up && l.table == o.table && l.linkLocal == o.linkLocal && slices.Equal(l.addresses, o.addresses)
}

// pass is one reconciliation.
type pass struct {
	*life
	cfg   Config
	w     *world
	state map[string]*ifState
	other error // a failure that is no interface's

	acls    map[string]uint32 // indexes of those that are as configured
	aclErrs map[string]error  // why the others are not
}

// reconcile makes one pass. Its error is the connection's; what VPP refuses is an interface's state.
func (l *life) reconcile(ctx context.Context) error {
	l.a.mu.Lock()
	cfg, rev := l.a.cfg, l.a.cfgRev
	l.a.mu.Unlock()
	if rev != l.tried { // a new configuration may well succeed where the old one failed
		clear(l.retry)
		l.tried = rev
	}
	w, err := look(ctx, l.s, l.report.Supports(binapi.Memif), func(o *observed) bool {
		return strings.HasPrefix(o.tag, cfg.tagPrefix())
	})
	if err != nil {
		return err
	}
	p := &pass{life: l, cfg: cfg, w: w, state: make(map[string]*ifState)}
	steps := []func(context.Context) error{p.makeTables, p.makeACLs, p.remove, p.create, p.settle, p.setHashes, p.dropACLs, p.dropTables}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for name := range l.retry {
		if st := p.state[name]; (st == nil || st.err == nil) && (name != "" || p.other == nil) {
			delete(l.retry, name)
		}
	}
	changed := l.a.publish(p, rev)
	l.setAdaptive(ctx, w.interfaces)
	l.advertise(ctx, w.interfaces)
	if changed {
		l.notify(InterfacesChanged)
	}
	return l.settleBFD(ctx)
}

// refused notes what VPP does not do, for what has no state of its own; other errors end the pass.
func (p *pass) refused(object string, err error) error {
	if err == nil || !isRefusal(err) {
		return err
	}
	if p.retry[""] == nil {
		p.log.WithError(err).WithField("object", object).Warn("dataplane refuses")
	}
	if p.other == nil { // one wait for all
		p.life.failed("")
	}
	p.other = errors.Join(p.other, fmt.Errorf("%s: %w", object, err))
	p.a.errs.add(object, err)
	return nil
}

func (p *pass) makeTables(ctx context.Context) error {
	missing, _ := planTables(&p.cfg, p.w)
	for t, name := range missing {
		if err := p.refused("table", setTable(ctx, p.s, t, name, true)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) dropTables(ctx context.Context) error {
	_, extra := planTables(&p.cfg, p.w)
	if len(extra) == 0 {
		return nil
	}
	p.routes.Lock()
	defer p.routes.Unlock()
	err := p.purgeLocked(ctx, func(r *ip.IPRouteV2) bool {
		return slices.Contains(extra, table{r.TableID, r.Prefix.Address.Af != 0})
	})
	if err != nil {
		return err
	}
	for _, t := range extra {
		if err := p.refused("table", setTable(ctx, p.s, t, "", false)); err != nil {
			return err
		}
	}
	return nil
}

// planRemoval returns the interfaces of ours that are not configured, or not as they were created, or there twice.
func planRemoval(cfg *Config, w *world) (doomed []*observed) {
	seen := make(map[string]bool)
	for _, o := range w.sorted() {
		name, creation, ours := cfg.ownName(o.tag)
		if !ours {
			continue
		}
		at := slices.IndexFunc(cfg.Interfaces, func(i Interface) bool { return i.Name == name })
		if at < 0 || seen[name] || cfg.Interfaces[at].creation() != creation {
			doomed = append(doomed, o)
			continue
		}
		seen[name] = true
	}
	return doomed
}

// remove deletes interfaces, after whatever refers to them: loans of addresses, and routes, which would stay in VPP without
// a way to go, even if another interface had the index afterwards.
func (p *pass) remove(ctx context.Context) error {
	doomed := planRemoval(&p.cfg, p.w)
	void := p.a.vanished(p.w)
	for _, o := range doomed {
		void[o.index] = true
	}
	if len(void) == 0 {
		return nil
	}
	p.routes.Lock()
	defer p.routes.Unlock()
	p.a.forget(void)
	err := p.purgeLocked(ctx, func(r *ip.IPRouteV2) bool {
		return slices.ContainsFunc(r.Paths, func(f fibPath) bool { return void[f.SwIfIndex] })
	})
	if err != nil {
		return err
	}
	for _, o := range p.w.sorted() {
		if _, _, ours := p.cfg.ownName(o.tag); ours && o.lender != noInterface && void[o.lender] {
			req, reply := unnumbered(o.index, o.lender, false)
			if err := p.refused(o.name, p.s.call(ctx, req, reply)); err != nil {
				return err
			}
			o.lender = noInterface
		}
	}
	for _, o := range doomed {
		if err := p.delete(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) delete(ctx context.Context, o *observed) error {
	if err := p.a.probes.detach(ctx, p.life, o.index); err != nil && !isRefusal(err) {
		return err
	}
	err := deleteInterface(ctx, p.s, o)
	if err != nil && !isRefusal(err) {
		return err
	}
	if err != nil && !isGone(err) {
		name, _, _ := p.cfg.ownName(o.tag)
		p.fail(name, fmt.Errorf("removing it: %w", err))
		return p.refused("removing interface "+name, err)
	}
	p.log.WithField("interface", o.name).Info("interface removed")
	delete(p.w.interfaces, o.index)
	return dropMemifSocket(ctx, p.s, o, p.w)
}

// fail gives an interface its state, and says so when it is news.
func (p *pass) fail(name string, err error) {
	st := p.state[name]
	if st == nil {
		st = &ifState{index: noInterface}
		p.state[name] = st
	}
	st.err = err
	if p.retry[name] == nil {
		p.log.WithField("interface", name).WithError(err).Warn("interface failed")
	}
	p.a.errs.add("interface "+name, err)
	p.life.failed(name)
}

// waits reports whether a failed interface is not to be tried again yet, and then keeps its state.
func (p *pass) waits(name string) bool {
	if !p.life.waits(name) {
		return false
	}
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	if st := p.a.state[name]; st != nil && st.err != nil {
		p.state[name] = &ifState{index: noInterface, err: st.err}
		return true
	}
	return false
}

// create makes what is missing: loopbacks, which others may borrow from, then cables.
func (p *pass) create(ctx context.Context) error {
	for _, memifs := range []bool{false, true} {
		for i := range p.cfg.Interfaces {
			want := &p.cfg.Interfaces[i]
			if (want.Memif != nil) != memifs || p.state[want.Name] != nil || p.waits(want.Name) {
				continue
			}
			if err := p.createOne(ctx, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) createOne(ctx context.Context, want *Interface) error {
	if err := p.cfg.check(want); err != nil {
		p.fail(want.Name, err)
		return nil
	}
	if o := p.w.byName(&p.cfg, want.Name); o != nil {
		p.state[want.Name] = &ifState{index: o.index}
		return nil
	}
	if want.Memif != nil && !p.report.Supports(binapi.Memif) {
		p.fail(want.Name, errors.New("this VPP has no memif plugin, or another version of its messages"))
		return nil
	}
	index, err := createInterface(ctx, p.s, &p.cfg, want, p.w)
	if err != nil {
		if !isRefusal(err) {
			return err
		}
		p.fail(want.Name, fmt.Errorf("creating it: %w", err))
		return nil
	}
	o, err := lookAt(ctx, p.s, index)
	if err != nil {
		if errors.Is(err, errGone) {
			p.fail(want.Name, err)
			return nil
		}
		return err
	}
	p.log.WithField("interface", want.Name).WithField("sw_if_index", index).Info("interface created")
	p.w.interfaces[index] = o
	delete(p.guards, index)
	p.state[want.Name] = &ifState{index: index}
	return nil
}

// settle gives each interface its settings: loopbacks, cables, and last those that borrow addresses.
func (p *pass) settle(ctx context.Context) error {
	turn := func(i *Interface) int {
		switch {
		case i.Unnumbered != "":
			return 2
		case i.Memif != nil:
			return 1
		}
		return 0
	}
	for now := range 3 {
		for i := range p.cfg.Interfaces {
			want := &p.cfg.Interfaces[i]
			if st := p.state[want.Name]; turn(want) != now || st == nil || st.err != nil {
				continue
			}
			if err := p.settleOne(ctx, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) settleOne(ctx context.Context, want *Interface) error {
	have := p.w.interfaces[p.state[want.Name].index]
	lender := uint32(noInterface)
	if want.Unnumbered != "" {
		st := p.state[want.Unnumbered]
		if st == nil || st.index == noInterface {
			p.fail(want.Name, fmt.Errorf("interface %s, whose addresses it is to use, does not exist", want.Unnumbered))
			return nil
		}
		lender = st.index
	}
	todo, err := p.settleACLs(ctx, want, have)
	if errors.Is(err, fib.ErrDisconnected) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		p.fail(want.Name, err)
		return nil
	}
	todo = append(todo, settle(want, have, lender)...)
	if len(todo) == 0 {
		return p.guard(ctx, want, have.index)
	}
	err = apply(ctx, p.s, todo)
	if err != nil && !isRefusal(err) {
		return err
	}
	// What is published is what is there, whatever was asked for.
	now, lookErr := lookAt(ctx, p.s, have.index)
	if lookErr != nil {
		if errors.Is(lookErr, errGone) {
			p.fail(want.Name, lookErr)
			return nil
		}
		return lookErr
	}
	now.memif = have.memif
	p.w.interfaces[have.index] = now
	if err != nil {
		p.fail(want.Name, err)
		return nil
	}
	return p.guard(ctx, want, have.index)
}

// setAdaptive sets the receive mode of memifs whose link has come up; memif resets it when it connects. Polling, the default,
// takes a whole core (VPP.md). Not every dataplane has modes: that it is refused is no failure.
func (l *life) setAdaptive(ctx context.Context, now map[uint32]*observed) {
	maps.DeleteFunc(l.adaptive, func(index uint32, _ bool) bool { return now[index] == nil || !now[index].link })
	for _, name := range l.a.ownIndexes() {
		o := now[name]
		if o == nil || !o.link || o.device != deviceMemif || l.adaptive[o.index] {
			continue
		}
		l.adaptive[o.index] = true
		err := l.s.call(ctx, &interfaces.SwInterfaceSetRxMode{
			SwIfIndex: interface_types.InterfaceIndex(o.index), Mode: interface_types.RX_MODE_API_ADAPTIVE,
		}, new(interfaces.SwInterfaceSetRxModeReply))
		if err != nil {
			l.log.WithError(err).WithField("interface", o.name).Debug("receive mode not set")
		}
	}
}
