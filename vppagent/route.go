package vppagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"go.fd.io/govpp/api"
	vppfib "go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
)

// Routes: Agent is the fib.Target. A change is one ip_route_add_del_v2 with our source and is_multipath=0, which replaces all
// that our source has for the prefix, or deletes it. Thousands are under way at once, and many leave in one write.

type (
	fibPath   = fib_types.FibPath
	fibSource = vppfib.FibSource
)

var _ fib.Target = (*Agent)(nil)

// window is how many route changes may be unanswered. VPP answers a batch of its input at a time; more than this does not make
// it faster.
const window = 4096

// Dump implements fib.Target. It reads the tables whole, and not ip_route_v2_dump's selection by source: that leaves out the
// prefixes where another source is better, and that one is is worth knowing.
func (a *Agent) Dump(ctx context.Context) ([]fib.Held, error) {
	l, err := a.current()
	if err != nil {
		return nil, err
	}
	l.routes.RLock()
	defer l.routes.RUnlock()
	if l.cleaned {
		return nil, fmt.Errorf("%w: everything of ours was removed", fib.ErrDisconnected)
	}
	a.mu.Lock()
	names := maps.Clone(a.byIndex)
	a.mu.Unlock()
	all, err := sources(ctx, l.s)
	if err != nil {
		return nil, err
	}
	var held []fib.Held
	hops := make(map[hopKey][]fib.NextHop)
	entries := 0
	others, err := l.learning(ctx, all)
	if err != nil {
		return nil, err
	}
	err = l.dumpRoutes(ctx, anySource, func(r *ip.IPRouteV2) {
		entries++
		prefix := binapi.FromPrefix(r.Prefix)
		if !prefix.IsValid() {
			return
		}
		h := fib.Held{Route: fib.Route{Key: fib.Key{Table: r.TableID, Prefix: prefix.Masked()}}}
		switch {
		case r.Src == l.source:
			h.Kind, h.NextHops = heldPaths(r.Paths, names, hops)
		case all[r.Src].Priority < all[l.source].Priority:
			h.Shadowed = true
		}
		if r.Src != l.source {
			others.learn(r, &h)
			if !h.Shadowed && !h.Alien {
				return // a route of ours would win
			}
		}
		held = append(held, h)
	})
	if err != nil {
		return nil, err
	}
	l.guard.counted(entries)
	l.dumped.Store(true)
	return held, nil
}

// anySource selects all routes in ip_route_v2_dump.
const anySource = 0

// dumpRoutes visits the routes whose best source is the given one in all tables; see dump for what visit may do.
func (l *life) dumpRoutes(ctx context.Context, source uint8, visit func(*ip.IPRouteV2)) error {
	tables, err := l.tables(ctx)
	if err != nil {
		return err
	}
	var q questions
	for _, t := range tables {
		q.ask(func() error { return l.dumpTable(ctx, source, t, visit) })
	}
	return q.wait()
}

// tables returns all FIB tables but those of probes, which are ours and no part of anybody's routing.
func (l *life) tables(ctx context.Context) (tables []ip.IPTable, err error) {
	probes := l.a.probeTag()
	err = dump(ctx, l.s, &ip.IPTableDump{}, func(d *ip.IPTableDetails) {
		if d.Table.Name != probes {
			tables = append(tables, d.Table)
		}
	})
	return tables, err
}

func (l *life) dumpTable(ctx context.Context, source uint8, t ip.IPTable, visit func(*ip.IPRouteV2)) error {
	return dump(ctx, l.s, &ip.IPRouteV2Dump{Src: source, Table: t}, func(d *ip.IPRouteV2Details) { visit(&d.Route) })
}

// hopKey is a path; routes share the slice of a single one.
type hopKey struct {
	addr   netip.Addr
	index  uint32
	weight uint8
	backup bool
}

// heldPaths translates what we hold. What it cannot name equals nothing that is wanted, and so is replaced.
func heldPaths(paths []fibPath, names map[uint32]string, shared map[hopKey][]fib.NextHop) (fib.Kind, []fib.NextHop) {
	if len(paths) == 1 {
		switch paths[0].Type {
		case fib_types.FIB_API_PATH_TYPE_DROP:
			return fib.Blackhole, nil
		case fib_types.FIB_API_PATH_TYPE_ICMP_UNREACH:
			return fib.Unreachable, nil
		case fib_types.FIB_API_PATH_TYPE_ICMP_PROHIBIT:
			return fib.Prohibit, nil
		}
	}
	var hops []fib.NextHop
	for _, in := range paths {
		p, err := binapi.FromPath(in)
		if err != nil || p.Type != fib_types.FIB_API_PATH_TYPE_NORMAL {
			return fib.Unicast, []fib.NextHop{{Interface: "#" + in.Type.String()}}
		}
		k := hopKey{p.Addr, p.SwIfIndex, p.Weight, p.Preference > 0}
		if len(paths) == 1 && shared[k] != nil {
			return fib.Unicast, shared[k]
		}
		hop := fib.NextHop{Addr: p.Addr, Weight: p.Weight, Backup: k.backup}
		if p.SwIfIndex != noInterface {
			hop.Interface = nameOf(names, p.SwIfIndex)
		}
		hops = append(hops, hop)
		if len(paths) == 1 {
			shared[k] = hops
		}
	}
	return fib.Unicast, hops
}

// Apply implements fib.Target.
func (a *Agent) Apply(ctx context.Context, changes []fib.Change) []error {
	errs := make([]error, len(changes))
	l, err := a.current()
	if err == nil {
		l.routes.RLock()
		defer l.routes.RUnlock()
		if !l.dumped.Load() || l.cleaned { // the other half of fib's first gate: this connection's dump, not one of before
			err = fib.ErrDisconnected
		}
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	a.mu.Lock()
	indexes := maps.Clone(a.byName)
	a.mu.Unlock()
	_ = l.write(ctx, changes, indexes, errs) // it is in errs
	return errs
}

// write sends what can be sent, in portions that the memory guard lets through, and notes each change's result. The error is why
// some have none.
func (l *life) write(ctx context.Context, changes []fib.Change, indexes map[string]uint32, errs []error) error {
	encoder := routeEncoder{s: l.s, source: l.source, indexes: indexes, templates: make(map[routeShape]*template)}
	w := writing{life: l, changes: changes, errs: errs, refusals: make(map[int32]error)}
	for i := range changes {
		t := encoder.template(&changes[i])
		if errs[i] = t.err; t.err == nil {
			w.send, w.templates = append(w.send, i), append(w.templates, t)
			errs[i] = errUnanswered
		}
	}
	err := w.run(ctx)
	for _, i := range w.send {
		if errs[i] == errUnanswered {
			errs[i] = fmt.Errorf("%w: %w", fib.ErrDisconnected, errors.Join(err, errUnanswered))
		}
	}
	return err
}

// writing is a call of write.
type writing struct {
	*life
	changes   []fib.Change
	errs      []error
	send      []int // the changes that have a message
	templates []*template
	refusals  map[int32]error
}

func (w *writing) run(ctx context.Context) error {
	for from := 0; from < len(w.send); {
		fresh := 0
		for _, i := range w.send[from:] {
			if w.fresh(i) {
				fresh++
			}
		}
		room, full := fresh, error(nil)
		if fresh > 0 {
			room, full = w.admit(ctx, fresh)
		}
		to := from
		for ; to < len(w.send); to++ {
			if i := w.send[to]; w.fresh(i) {
				if room == 0 && full == nil {
					break // the guard wants to look again
				}
				if room == 0 {
					w.errs[i] = full
					continue
				}
				room--
			}
		}
		if err := w.portion(ctx, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// fresh reports whether a change needs memory for another route.
func (w *writing) fresh(i int) bool { return !w.changes[i].Delete && !w.changes[i].Replaces }

// portion sends those of a part that the guard has not refused.
func (w *writing) portion(ctx context.Context, from, to int) error {
	send := make([]int, 0, to-from)
	for at := from; at < to; at++ {
		if w.errs[w.send[at]] == errUnanswered {
			send = append(send, at)
		}
	}
	added, deleted := 0, 0
	err := w.s.pipeline(ctx, len(send), window,
		func(n int) ([]byte, error) {
			return w.templates[send[n]].of(w.changes[w.send[send[n]]].Prefix), nil
		},
		func(n int, data []byte) {
			// ip_route_add_del_v2_reply: u16 id, u32 context, i32 retval, u32 stats_index.
			if len(data) < 10 {
				return
			}
			i := w.send[send[n]]
			w.errs[i] = refusal(int32(binary.BigEndian.Uint32(data[6:10])), w.refusals)
			switch {
			case w.errs[i] != nil:
			case w.changes[i].Delete:
				deleted++
			case w.fresh(i):
				added++
			}
		})
	w.guard.wrote(added, deleted)
	return err
}

// errUnanswered marks a change without a reply.
var errUnanswered = errors.New("no answer to a route change")

// refusal returns the error of a return value, one for all routes that share it.
func refusal(retval int32, known map[int32]error) error {
	if retval == 0 {
		return nil
	}
	err := known[retval]
	if err == nil {
		err = fmt.Errorf("ip_route_add_del_v2: %w", api.RetvalToVPPApiError(retval))
		if errors.Is(err, api.NO_SUCH_FIB) || isGone(err) { // they went a moment ago, or will be made in a moment
			err = fmt.Errorf("%w: %w", fib.ErrNoInterface, err)
		}
		known[retval] = err
	}
	return err
}

// purgeLocked deletes those of our routes that match, and makes fib read what is left before it writes again. The caller has
// l.routes for itself. A prefix where another source is better may have a route of ours behind it, which cannot be seen: fib
// writes it anew after it has read the tables.
func (l *life) purgeLocked(ctx context.Context, match func(*ip.IPRouteV2) bool) error {
	var doomed []fib.Change
	err := l.dumpRoutes(ctx, l.source, func(r *ip.IPRouteV2) {
		if match(r) {
			doomed = append(doomed, l.deletion(r))
		}
	})
	if err != nil || len(doomed) == 0 {
		return err
	}
	return l.deleteLocked(ctx, doomed)
}

// purgeAllLocked deletes all our routes, those behind a better source, too: it deletes our source's route from each prefix
// where there might be one, which VPP takes for done when there is none.
func (l *life) purgeAllLocked(ctx context.Context) error {
	all, err := sources(ctx, l.s)
	if err != nil {
		return err
	}
	var doomed []fib.Change
	err = l.dumpRoutes(ctx, anySource, func(r *ip.IPRouteV2) {
		if r.Src == l.source || all[r.Src].Priority < all[l.source].Priority {
			doomed = append(doomed, l.deletion(r))
		}
	})
	if err != nil {
		return err
	}
	return l.deleteLocked(ctx, doomed)
}

func (l *life) deletion(r *ip.IPRouteV2) fib.Change {
	key := fib.Key{Table: r.TableID, Prefix: binapi.FromPrefix(r.Prefix).Masked()}
	return fib.Change{Route: fib.Route{Key: key}, Delete: true}
}

func (l *life) deleteLocked(ctx context.Context, doomed []fib.Change) error {
	l.dumped.Store(false)
	err := l.write(ctx, doomed, nil, make([]error, len(doomed)))
	l.log.WithField("routes", len(doomed)).Debug("routes removed with what they used")
	l.notify(RoutesChanged)
	return err
}
