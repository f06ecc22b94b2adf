package vppagent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"rlr/binapi"
)

// InterfaceState is what became of a configured interface.
type InterfaceState uint8

// States.
const (
	Pending    InterfaceState = iota // not looked at yet, or there is no dataplane
	Configured                       // it is there, and as configured; its link may be down
	Failed                           // Err says why; it is tried again
	Alien                            // not ours
)

func (s InterfaceState) String() string {
	return [...]string{"pending", "ok", "failed", "alien"}[s]
}

// InterfaceStatus is an interface as it is.
type InterfaceStatus struct {
	Name          string // the configuration's; of an alien one the dataplane's
	DataplaneName string // "" when it does not exist
	SwIfIndex     uint32 // meaningless then
	Kind          string // loopback, memif, probe (ping's own, while it is needed), or the dataplane's name of the device
	State         InterfaceState
	Err           error
	Admin, Link   bool
	MTU           uint32 // of IP packets, bytes
	MAC           net.HardwareAddr
	Table         uint32
	Addresses     []netip.Prefix // and the link-local one last, as /128
	Unnumbered    string         // the lender's name
	Counters      Counters       // zero without a statistics segment
}

// Interfaces looks at all interfaces of the dataplane now: the configured ones in their order, then the others. Without a
// dataplane the configured ones are Pending. A statistics segment that cannot be read leaves the counters zero, and its error
// in Errors.
func (a *Agent) Interfaces(ctx context.Context) ([]InterfaceStatus, error) {
	cfg := a.config()
	l, err := a.current()
	if err != nil {
		list := make([]InterfaceStatus, 0, len(cfg.Interfaces))
		for i := range cfg.Interfaces {
			want := &cfg.Interfaces[i]
			list = append(list, InterfaceStatus{
				Name: want.Name, Kind: strings.ToLower(deviceOf(want)), State: Pending, Err: err, Table: want.Table, SwIfIndex: noInterface,
			})
		}
		return list, nil
	}
	w, err := look(ctx, l.s, l.report.Supports(binapi.Memif), func(*observed) bool { return true })
	if err != nil {
		return nil, err
	}
	counters := a.counters(ctx)
	names := make(map[uint32]string)
	for index, o := range w.interfaces {
		if names[index] = o.name; w.byOwner(&cfg, o) != "" {
			names[index] = w.byOwner(&cfg, o)
		}
	}
	list := make([]InterfaceStatus, 0, len(w.interfaces))
	a.mu.Lock()
	state := a.state
	a.mu.Unlock()
	shown := make(map[uint32]bool)
	for i := range cfg.Interfaces {
		want := &cfg.Interfaces[i]
		st := InterfaceStatus{Name: want.Name, Kind: strings.ToLower(deviceOf(want)), Table: want.Table, SwIfIndex: noInterface}
		if o := w.byName(&cfg, want.Name); o != nil {
			st.fill(o, names, counters)
			shown[o.index] = true
		}
		if s := state[want.Name]; s != nil {
			if st.State, st.Err = Configured, s.err; s.err != nil {
				st.State = Failed
			}
		}
		list = append(list, st)
	}
	for _, o := range w.sorted() {
		if !shown[o.index] {
			st := InterfaceStatus{Name: o.name, Kind: strings.ToLower(o.device), State: Alien}
			if o.tag == a.probeTag() {
				st.Kind, st.State = "probe", Configured
			}
			st.fill(o, names, counters)
			list = append(list, st)
		}
	}
	return list, nil
}

func (st *InterfaceStatus) fill(o *observed, names map[uint32]string, counters map[uint32]Counters) {
	st.DataplaneName, st.SwIfIndex = o.name, o.index
	st.Admin, st.Link, st.MTU, st.Table = o.admin, o.link, o.mtu, o.table4
	if o.mac != [6]byte{} {
		st.MAC = slices.Clone(o.mac[:])
	}
	st.Addresses = o.addresses
	if o.linkLocal.IsValid() {
		st.Addresses = append(slices.Clip(st.Addresses), netip.PrefixFrom(o.linkLocal, 128))
	}
	if o.lender != noInterface {
		st.Unnumbered = nameOf(names, o.lender)
	}
	st.Counters = counters[o.index]
}

// byOwner returns the configured name of an interface of ours, or "".
func (w *world) byOwner(cfg *Config, o *observed) string {
	name, _, ours := cfg.ownName(o.tag)
	if !ours || w.byName(cfg, name) != o {
		return ""
	}
	return name
}

func (a *Agent) counters(ctx context.Context) map[uint32]Counters {
	if a.opt.StatsSocket == "" {
		return nil
	}
	counters, err := interfaceCounters(ctx, a.opt.StatsSocket)
	if err != nil {
		a.errs.add("statistics", err)
	}
	return counters
}

// names returns the router's name of each interface of the dataplane, and the dataplane's of alien ones.
func (l *life) names(ctx context.Context) (map[uint32]string, error) {
	all, err := links(ctx, l.s)
	if err != nil {
		return nil, err
	}
	names := make(map[uint32]string, len(all))
	for index, o := range all {
		names[index] = o.name
		if own, ok := l.a.InterfaceName(index); ok {
			names[index] = own
		}
	}
	return names, nil
}

// Error is something that went wrong with the dataplane.
type Error struct {
	Object string // "interface tun12", "dataplane", …
	Err    string
	Count  uint64
	Last   time.Time
}

// errorLog counts errors by object and text. It keeps the latest maxErrors.
type errorLog struct {
	mu   sync.Mutex
	list []Error
}

const maxErrors = 100

func (l *errorLog) add(object string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, now := err.Error(), time.Now()
	at := slices.IndexFunc(l.list, func(e Error) bool { return e.Object == object && e.Err == text })
	e := Error{Object: object, Err: text, Count: 1, Last: now}
	switch {
	case at >= 0:
		e.Count += l.list[at].Count
		l.list = slices.Delete(l.list, at, at+1)
	case len(l.list) >= maxErrors:
		l.list = slices.Delete(l.list, 0, 1)
	}
	l.list = append(l.list, e)
}

// Errors returns what went wrong, the latest last.
func (a *Agent) Errors() []Error {
	a.errs.mu.Lock()
	defer a.errs.mu.Unlock()
	return slices.Clone(a.errs.list)
}
