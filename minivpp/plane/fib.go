package plane

// The forwarding information base below the tables: path lists, and what they resolve to.
//
// Most routes of a router share a few sets of next hops, so path lists are interned and shared, as in VPP: an entry of a full
// table is then a few words. What a list means for a packet (its hops: interface and neighbour, or a verdict) is worked out
// when a packet first needs it and kept in the list until an interface changes, or, for lists with recursive paths, any route.
// Nothing has to walk back from a changed object to its users: a generation number tells that a result is old.

import (
	"net/netip"
	"sync/atomic"
)

const (
	maxRecursion = 8  // levels of recursive next hops; deeper ones are unresolved, which also ends loops
	maxHops      = 64 // hops and buckets of a resolved list
)

// pathList is an immutable set of paths with its interfaces bound: a path keeps its interface even when the index is used
// again by another one, and is dead once it is deleted.
type pathList struct {
	paths  []Path
	ifaces []*iface // for each path, nil where SwIfIndex is NoInterface
	refs   int      // entries and sources that hold it; guarded by Plane.ctl
	result atomic.Pointer[resolution]
}

// verdict says what to do with a packet.
type verdict uint8

const (
	verdictDrop        verdict = iota // silently
	verdictTransmit                   // to a neighbour
	verdictLocal                      // to this node
	verdictUnreachable                // ICMP
	verdictProhibit                   // ICMP
	verdictLookup                     // again, in another table
	verdictNoRoute                    // the default entry: nobody has a route
)

// hop is one resolved way.
type hop struct {
	verdict verdict
	iface   *iface
	next    netip.Addr // neighbour; invalid: the packet's destination
	table   uint32     // for verdictLookup
}

// resolution is what a pathList means in the present state of interfaces and routes.
type resolution struct {
	hops      []hop
	buckets   []uint8 // flow hash modulo length gives the hop's index; nil with a single hop
	recursive bool
	ifaceGen  uint64
	routeGen  uint64
}

var dropHop = hop{verdict: verdictDrop}

// pick chooses the hop for a flow.
func (r *resolution) pick(hash uint32) *hop {
	if r.buckets == nil {
		return &r.hops[0]
	}
	return &r.hops[r.buckets[hash%uint32(len(r.buckets))]]
}

// resolve returns the list's present meaning. The caller holds Plane.mu, at least for reading.
func (p *Plane) resolve(l *pathList) *resolution {
	r := l.result.Load()
	if r != nil && r.ifaceGen == p.ifaceGen && (!r.recursive || r.routeGen == p.routeGen) {
		return r
	}
	var stack [maxRecursion]*pathList
	r = p.resolveDeep(l, stack[:0])
	l.result.Store(r)
	return r
}

type weighted struct {
	hop    hop
	weight uint32
}

// resolveDeep resolves l; stack holds the lists that are being resolved through it.
func (p *Plane) resolveDeep(l *pathList, stack []*pathList) *resolution {
	r := &resolution{ifaceGen: p.ifaceGen, routeGen: p.routeGen}
	var found []weighted
	best := 256
	stack = append(stack, l)
	for i := range l.paths {
		path := &l.paths[i]
		if int(path.Preference) > best {
			continue
		}
		before := len(found)
		found = p.resolvePath(l, i, stack, r, found)
		if len(found) > before && int(path.Preference) < best {
			best = int(path.Preference)
			found = found[before:] // the ones before were of a worse preference
		}
		if len(found) >= maxHops {
			found = found[:maxHops]
			break
		}
	}
	if len(found) == 0 {
		r.hops = []hop{dropHop}
		return r
	}
	r.hops = make([]hop, len(found))
	for i := range found {
		r.hops[i] = found[i].hop
	}
	r.buckets = buckets(found)
	return r
}

// resolvePath appends what path i of l leads to, nothing when it leads nowhere at present.
func (p *Plane) resolvePath(l *pathList, i int, stack []*pathList, r *resolution, found []weighted) []weighted {
	path, ifc := &l.paths[i], l.ifaces[i]
	weight := max(uint32(path.Weight), 1)
	one := func(h hop) []weighted { return append(found, weighted{h, weight}) }
	switch path.Type {
	case PathLocal:
		if ifc != nil && (ifc.deleted || !ifc.admin) {
			return found
		}
		return one(hop{verdict: verdictLocal, iface: ifc})
	case PathUnreachable:
		return one(hop{verdict: verdictUnreachable})
	case PathProhibit:
		return one(hop{verdict: verdictProhibit})
	case PathNormal:
	default:
		return one(dropHop)
	}
	if path.SwIfIndex != NoInterface {
		if ifc == nil || !ifc.usable() || p.deadLocked(ifc, path.Addr) {
			return found
		}
		return one(hop{verdict: verdictTransmit, iface: ifc, next: path.Addr})
	}
	if !path.Addr.IsValid() || path.Addr.IsUnspecified() {
		return one(hop{verdict: verdictLookup, table: path.TableID})
	}
	r.recursive = true
	return p.resolveRecursive(path, stack, found)
}

// resolveRecursive appends the hops of a path that has only an address, as the route to that address has them.
func (p *Plane) resolveRecursive(path *Path, stack []*pathList, found []weighted) []weighted {
	t := p.tables[tableKey{path.TableID, path.Addr.Is6()}]
	if t == nil || len(stack) >= maxRecursion {
		return found
	}
	e, ok := t.routes.Lookup(path.Addr)
	if !ok || e.source == SourceDefaultRoute {
		return found
	}
	for _, s := range stack {
		if s == e.list { // resolves through itself
			return found
		}
	}
	via := p.resolveDeep(e.list, stack)
	for j := range via.hops {
		h := via.hops[j]
		switch h.verdict {
		case verdictTransmit:
			if !h.next.IsValid() {
				h.next = path.Addr
			}
		case verdictUnreachable, verdictProhibit:
		default:
			continue
		}
		// The weight of a hop below is its share of the buckets there.
		share := uint32(1)
		if via.buckets != nil {
			share = 0
			for _, b := range via.buckets {
				if int(b) == j {
					share++
				}
			}
		}
		found = append(found, weighted{h, max(uint32(path.Weight), 1) * share})
	}
	return found
}

// buckets spreads hops over at most maxHops buckets in proportion to their weights, each at least once; nil for a single hop.
func buckets(found []weighted) []uint8 {
	if len(found) < 2 {
		return nil
	}
	div, total := found[0].weight, uint32(0)
	for _, f := range found {
		div = gcd(div, f.weight)
		total += f.weight
	}
	total /= div
	var out []uint8
	for i, f := range found {
		n := f.weight / div
		if total > maxHops {
			n = max(1, (n*maxHops+total/2)/total)
		}
		for range n {
			out = append(out, uint8(i))
		}
	}
	return out
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// internLocked returns the shared list of these paths with a reference added. paths is kept when it is new.
func (p *Plane) internLocked(paths []Path) *pathList {
	var space [256]byte
	key := space[:0]
	for i := range paths {
		key = appendPathKey(key, &paths[i])
	}
	if l := p.lists[string(key)]; l != nil {
		l.refs++
		return l
	}
	l := &pathList{paths: paths, ifaces: make([]*iface, len(paths)), refs: 1}
	for i := range paths {
		if idx := paths[i].SwIfIndex; idx < uint32(len(p.ifaces)) {
			l.ifaces[i] = p.ifaces[idx]
		}
	}
	p.lists[string(key)] = l
	return l
}

// releaseLocked gives back a reference that internLocked added.
func (p *Plane) releaseLocked(l *pathList) {
	l.refs--
	if l.refs > 0 {
		return
	}
	var space [256]byte
	key := space[:0]
	for i := range l.paths {
		key = appendPathKey(key, &l.paths[i])
	}
	if p.lists[string(key)] == l {
		delete(p.lists, string(key))
	}
}

// forgetListsLocked keeps lists over a deleted interface from being shared with routes over a later one of the same index.
func (p *Plane) forgetListsLocked(ifc *iface) {
	for key, l := range p.lists {
		for _, i := range l.ifaces {
			if i == ifc {
				delete(p.lists, key)
				break
			}
		}
	}
}

func appendPathKey(key []byte, path *Path) []byte {
	a := path.Addr.As16()
	fam := byte(0)
	switch {
	case path.Addr.Is4():
		fam = 4
	case path.Addr.Is6():
		fam = 6
	}
	key = append(key, byte(path.Type), fam, path.Weight, path.Preference, path.Flags,
		byte(path.SwIfIndex>>24), byte(path.SwIfIndex>>16), byte(path.SwIfIndex>>8), byte(path.SwIfIndex),
		byte(path.TableID>>24), byte(path.TableID>>16), byte(path.TableID>>8), byte(path.TableID))
	return append(key, a[:]...)
}
