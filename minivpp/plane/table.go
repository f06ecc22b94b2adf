package plane

// FIB tables: prefixes, who holds them, and the API to read and change them.
//
// A table is a bart trie of entries, changed in place under Plane.mu; workers hold it for reading for one batch of frames. Each
// change holds it for well under a microsecond's worth of work, so neither side waits long, and nothing is ever copied whole.
// Dumps hold only Plane.ctl, which keeps other changes out but not packets, as a dump in VPP blocks its main thread only.

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"go.fd.io/govpp/api"
)

type tableKey struct {
	id  uint32
	ip6 bool
}

type table struct {
	tableKey
	name   string
	held   bool // by the API; table 0 always is
	users  int  // interfaces bound to it
	hash   FlowHash
	routes bart.Table[*entry]
}

// holding is one source's paths in an entry.
type holding struct {
	source uint8
	list   *pathList
}

// entry is a prefix of a table. The best source's holding is in place, since hardly any prefix has two.
type entry struct {
	list   *pathList
	source uint8
	stats  uint32
	others []holding // best first
}

// specials4 and specials6 are the entries that every table has, as VPP makes them.
var (
	specials4 = []struct {
		prefix netip.Prefix
		source uint8
	}{
		{netip.MustParsePrefix("0.0.0.0/0"), SourceDefaultRoute},
		{netip.MustParsePrefix("0.0.0.0/32"), SourceDefaultRoute},
		{netip.MustParsePrefix("240.0.0.0/4"), SourceSpecial},
		{netip.MustParsePrefix("224.0.0.0/4"), SourceSpecial},
		{netip.MustParsePrefix("255.255.255.255/32"), SourceDefaultRoute},
	}
	default6   = netip.MustParsePrefix("::/0")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
)

func (p *Plane) newTableLocked(k tableKey, name string) *table {
	t := &table{tableKey: k, name: name, hash: hashDefault}
	p.tables[k] = t
	drop := []Path{{Type: PathDrop, SwIfIndex: NoInterface, Weight: 1}}
	if k.ip6 {
		p.setLocked(t, default6, SourceDefaultRoute, drop)
		p.setLocked(t, linkLocal6, SourceSpecial, drop)
		return t
	}
	for _, s := range specials4 {
		p.setLocked(t, s.prefix, s.source, drop)
	}
	return t
}

// AddTable makes a table, for ip_table_add_del. Making it again does nothing, nor does table 0, as in VPP.
func (p *Plane) AddTable(id uint32, ip6 bool, name string) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	k := tableKey{id, ip6}
	t := p.tables[k]
	if t == nil {
		t = p.newTableLocked(k, name)
	}
	t.held = true
	return nil
}

// DelTable gives up a table. It goes with all its routes, at once or when the last interface has left it. Table 0 stays.
func (p *Plane) DelTable(id uint32, ip6 bool) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tables[tableKey{id, ip6}]
	if t == nil || id == 0 {
		return nil
	}
	t.held = false
	p.reapTableLocked(t)
	return nil
}

func (p *Plane) reapTableLocked(t *table) {
	if t.held || t.users > 0 {
		return
	}
	for _, e := range t.routes.All() {
		p.releaseLocked(e.list)
		for _, h := range e.others {
			p.releaseLocked(h.list)
		}
		p.stats.free(e.stats)
	}
	delete(p.tables, t.tableKey)
	p.routeGen++
	p.hosts.tableGone(t)
}

// Tables lists the tables, by family and id.
func (p *Plane) Tables() []Table {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]Table, 0, len(p.tables))
	for k, t := range p.tables {
		out = append(out, Table{ID: k.id, IP6: k.ip6, Name: t.name})
	}
	slices.SortFunc(out, func(a, b Table) int {
		if a.IP6 != b.IP6 {
			if b.IP6 {
				return -1
			}
			return 1
		}
		return int(int64(a.ID) - int64(b.ID))
	})
	return out
}

// AddRoute adds or replaces a source's paths of a prefix, for ip_route_add_del(_v2), and returns the entry's statistics index.
// Source 0 means API. Host bits of pfx are cleared.
// Errors: NO_SUCH_FIB, NO_MATCHING_INTERFACE, INVALID_VALUE (no paths, or a source that does not exist).
func (p *Plane) AddRoute(tableID uint32, pfx netip.Prefix, r RouteUpdate) (uint32, error) {
	if !pfx.IsValid() {
		return NoInterface, api.INVALID_PREFIX_LENGTH
	}
	pfx = pfx.Masked()
	p.ctl.Lock()
	defer p.ctl.Unlock()
	t, src, err := p.routeTarget(tableID, pfx, r)
	if err != nil {
		return NoInterface, err
	}
	if len(r.Paths) == 0 {
		return NoInterface, errNoPaths
	}
	paths, err := p.checkPaths(r.Paths)
	if err != nil {
		return NoInterface, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Multipath {
		if e, ok := t.routes.Get(pfx); ok {
			if l := e.held(src); l != nil {
				paths = mergePaths(l.paths, paths)
			}
		}
	}
	return p.setLocked(t, pfx, src, paths).stats, nil
}

// errNoPaths is VPP's NO_PATHS_IN_ROUTE, a newer name for the value that govpp calls PREFIX_MATCHES_NEXT_HOP.
const errNoPaths = api.VPPApiError(-52)

// DelRoute removes a source's paths from a prefix: all, or with Multipath those given. A route that is not there is no error.
// Errors: NO_SUCH_FIB, INVALID_VALUE.
func (p *Plane) DelRoute(tableID uint32, pfx netip.Prefix, r RouteUpdate) (uint32, error) {
	if !pfx.IsValid() {
		return NoInterface, api.INVALID_PREFIX_LENGTH
	}
	pfx = pfx.Masked()
	p.ctl.Lock()
	defer p.ctl.Unlock()
	t, src, err := p.routeTarget(tableID, pfx, r)
	if err != nil {
		return NoInterface, err
	}
	if r.Multipath && len(r.Paths) == 0 {
		return NoInterface, errNoPaths
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Multipath {
		if e, ok := t.routes.Get(pfx); ok {
			if l := e.held(src); l != nil {
				if rest := withoutPaths(l.paths, r.Paths); len(rest) > 0 {
					p.setLocked(t, pfx, src, rest)
					return NoInterface, nil
				}
			}
		}
	}
	p.unsetLocked(t, pfx, src)
	return NoInterface, nil
}

func (p *Plane) routeTarget(tableID uint32, pfx netip.Prefix, r RouteUpdate) (*table, uint8, error) {
	t := p.tables[tableKey{tableID, pfx.Addr().Is6()}]
	if t == nil {
		return nil, 0, api.NO_SUCH_FIB
	}
	src := r.Source
	if src == SourceInvalid {
		src = SourceAPI
	}
	if int(src) >= len(p.sources) {
		return nil, 0, api.INVALID_VALUE
	}
	return t, src, nil
}

// checkPaths returns a normalised copy, sorted so that the order in which a client names paths does not matter.
func (p *Plane) checkPaths(in []Path) ([]Path, error) {
	out := slices.Clone(in)
	for i := range out {
		path := &out[i]
		if path.Weight == 0 {
			path.Weight = 1
		}
		switch path.Type {
		case PathNormal, PathSourceLookup:
			if path.Addr.Is4In6() {
				path.Addr = path.Addr.Unmap()
			}
			path.Addr = path.Addr.WithZone("")
			if path.Addr.IsValid() && path.Addr.IsUnspecified() {
				path.Addr = netip.Addr{}
			}
			if path.SwIfIndex == NoInterface {
				ip6 := path.Addr.Is6()
				if _, ok := p.tables[tableKey{path.TableID, ip6}]; !ok {
					return nil, api.NO_SUCH_FIB
				}
				continue
			}
			path.TableID = 0
			fallthrough
		case PathInterfaceRx, PathDVR:
			if p.at(path.SwIfIndex) == nil {
				return nil, api.NO_MATCHING_INTERFACE
			}
		case PathLocal:
			if path.SwIfIndex != NoInterface && p.at(path.SwIfIndex) == nil {
				return nil, api.NO_MATCHING_INTERFACE
			}
		default:
			path.SwIfIndex = NoInterface
		}
	}
	slices.SortFunc(out, comparePaths)
	return out, nil
}

func comparePaths(a, b Path) int {
	if c := int(a.Preference) - int(b.Preference); c != 0 {
		return c
	}
	if c := int(a.Type) - int(b.Type); c != 0 {
		return c
	}
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if a.SwIfIndex != b.SwIfIndex {
		return int(int64(a.SwIfIndex) - int64(b.SwIfIndex))
	}
	return int(int64(a.TableID) - int64(b.TableID))
}

// samePath compares what identifies a path: not its weight or preference.
func samePath(a, b Path) bool {
	return a.Type == b.Type && a.Addr == b.Addr && a.SwIfIndex == b.SwIfIndex && a.TableID == b.TableID
}

// mergePaths is old with add in it; a path that is there already takes the new weight and preference.
func mergePaths(old, add []Path) []Path {
	out := withoutPaths(old, add)
	out = append(out, add...)
	slices.SortFunc(out, comparePaths)
	return out
}

func withoutPaths(old, del []Path) []Path {
	out := make([]Path, 0, len(old))
	for _, o := range old {
		if !slices.ContainsFunc(del, func(d Path) bool {
			if d.Addr.IsValid() && d.Addr.IsUnspecified() {
				d.Addr = netip.Addr{}
			}
			if d.SwIfIndex != NoInterface {
				d.TableID = 0
			}
			return samePath(o, d)
		}) {
			out = append(out, o)
		}
	}
	return out
}

func (e *entry) held(src uint8) *pathList {
	if e.source == src {
		return e.list
	}
	for _, h := range e.others {
		if h.source == src {
			return h.list
		}
	}
	return nil
}

// setLocked makes paths the holding of src in a prefix. The caller holds ctl and mu, and gives paths away.
func (p *Plane) setLocked(t *table, pfx netip.Prefix, src uint8, paths []Path) *entry {
	l := p.internLocked(paths)
	p.routeGen++
	e, ok := t.routes.Get(pfx)
	if !ok {
		e = &entry{list: l, source: src, stats: p.stats.take()}
		t.routes.Insert(pfx, e)
		return e
	}
	switch {
	case e.source == src:
		p.releaseLocked(e.list)
		e.list = l
	case p.betterSource(src, e.source):
		e.dropOther(p, src)
		e.others = slices.Insert(e.others, 0, holding{e.source, e.list})
		e.source, e.list = src, l
	default:
		e.dropOther(p, src)
		i := 0
		for i < len(e.others) && p.betterSource(e.others[i].source, src) {
			i++
		}
		e.others = slices.Insert(e.others, i, holding{src, l})
	}
	return e
}

func (e *entry) dropOther(p *Plane, src uint8) {
	for i, h := range e.others {
		if h.source == src {
			p.releaseLocked(h.list)
			e.others = slices.Delete(e.others, i, i+1)
			break
		}
	}
	if len(e.others) == 0 {
		e.others = nil
	}
}

// unsetLocked removes src's holding from a prefix, and the entry when it was the last.
func (p *Plane) unsetLocked(t *table, pfx netip.Prefix, src uint8) {
	e, ok := t.routes.Get(pfx)
	if !ok {
		return
	}
	p.routeGen++
	if e.source != src {
		e.dropOther(p, src)
		return
	}
	p.releaseLocked(e.list)
	if len(e.others) > 0 {
		e.source, e.list = e.others[0].source, e.others[0].list
		if e.others = e.others[1:]; len(e.others) == 0 {
			e.others = nil
		}
		return
	}
	p.stats.free(e.stats)
	t.routes.Delete(pfx)
}

func (e *entry) export(tableID uint32, pfx netip.Prefix) RouteEntry {
	r := RouteEntry{Table: tableID, Prefix: pfx, Source: e.source, Paths: e.list.paths, StatsIndex: e.stats}
	r.Sources = append(make([]uint8, 0, 1+len(e.others)), e.source)
	for _, h := range e.others {
		r.Sources = append(r.Sources, h.source)
	}
	return r
}

// Routes visits every entry of a table in the order of prefixes until visit returns false. Packets flow meanwhile, but no other
// call that changes the plane does: visit must not call the plane.
// Errors: NO_SUCH_FIB.
func (p *Plane) Routes(tableID uint32, ip6 bool, visit func(RouteEntry) bool) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	t := p.tables[tableKey{tableID, ip6}]
	if t == nil {
		return api.NO_SUCH_FIB
	}
	for pfx, e := range t.routes.AllSorted() {
		if !visit(e.export(tableID, pfx)) {
			break
		}
	}
	return nil
}

// Lookup returns the longest match of an address.
// Errors: NO_SUCH_FIB, NO_SUCH_ENTRY.
func (p *Plane) Lookup(tableID uint32, addr netip.Addr) (RouteEntry, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	addr = addr.Unmap().WithZone("")
	t := p.tables[tableKey{tableID, addr.Is6()}]
	if t == nil {
		return RouteEntry{}, api.NO_SUCH_FIB
	}
	if !addr.IsValid() {
		return RouteEntry{}, api.NO_SUCH_ENTRY
	}
	return t.longest(netip.PrefixFrom(addr, addr.BitLen()))
}

// LookupPrefix returns the most specific entry that covers a prefix, for ip_route_lookup without exact.
// Errors: NO_SUCH_FIB, NO_SUCH_ENTRY.
func (p *Plane) LookupPrefix(tableID uint32, pfx netip.Prefix) (RouteEntry, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	t := p.tables[tableKey{tableID, pfx.Addr().Is6()}]
	if t == nil {
		return RouteEntry{}, api.NO_SUCH_FIB
	}
	return t.longest(pfx.Masked())
}

func (t *table) longest(pfx netip.Prefix) (RouteEntry, error) {
	match, e, ok := t.routes.LookupPrefixLPM(pfx)
	if !ok {
		return RouteEntry{}, api.NO_SUCH_ENTRY
	}
	return e.export(t.id, match), nil
}

// LookupExact returns the entry of a prefix.
// Errors: NO_SUCH_FIB, NO_SUCH_ENTRY.
func (p *Plane) LookupExact(tableID uint32, pfx netip.Prefix) (RouteEntry, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	t := p.tables[tableKey{tableID, pfx.Addr().Is6()}]
	if t == nil {
		return RouteEntry{}, api.NO_SUCH_FIB
	}
	pfx = pfx.Masked()
	e, ok := t.routes.Get(pfx)
	if !ok {
		return RouteEntry{}, api.NO_SUCH_ENTRY
	}
	return e.export(tableID, pfx), nil
}

// indexPool hands out the lowest free index, as VPP's pools nearly do.
type indexPool struct {
	next uint32
	back []uint32
}

func (x *indexPool) take() uint32 {
	if n := len(x.back); n > 0 {
		i := x.back[n-1]
		x.back = x.back[:n-1]
		return i
	}
	x.next++
	return x.next - 1
}

func (x *indexPool) free(i uint32) { x.back = append(x.back, i) }
