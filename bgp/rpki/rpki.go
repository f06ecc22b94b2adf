// Package rpki knows which AS may announce which prefix: it collects ROAs and tells of a route whether they allow it.
//
//	files ──────┐                          ┌──► Table (immutable) ──► validation of routes (RFC 6811)
//	URLs ───────┼──► Collector ──merges──►─┤
//	RTR servers ┘     (one goroutine         └──► Status, for people
//	                   a source)
//
// Each source keeps its last good data and says in its Status what is wrong; a source that fails never empties the table.
// The Collector merges what all of them have into a Table, which nobody changes afterwards: readers need no lock, and two
// Tables can be compared, which is how a speaker finds the routes that a change concerns.
//
// Files and URLs hold JSON in StayRTR's schema; servers speak RTR (RFC 8210, and RFC 6810 where they do not know that). The
// PDUs are GoBGP's. What JSON or a server says is from outside: it is bounded, checked, and none of it ends the router.
package rpki

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// VRP is a validated ROA payload (RFC 6811 §2): AS may announce Prefix and what is within it, up to MaxLength.
type VRP struct {
	Prefix    netip.Prefix // masked
	MaxLength uint8        // bits, not less than Prefix's
	AS        uint32       // 0: nobody may (RFC 7607, RFC 6483 §4)
}

func (v VRP) String() string { return fmt.Sprintf("%s-%d AS%d", v.Prefix, v.MaxLength, v.AS) }

// check reports why v cannot be.
func (v VRP) check() error {
	switch {
	case !v.Prefix.IsValid() || v.Prefix.Addr().Is4In6():
		return fmt.Errorf("%s is not a prefix", v.Prefix)
	case v.Prefix != v.Prefix.Masked():
		return fmt.Errorf("prefix %s has host bits set", v.Prefix)
	case int(v.MaxLength) < v.Prefix.Bits() || int(v.MaxLength) > v.Prefix.Addr().BitLen():
		return fmt.Errorf("maximum length %d of %s is not between %d and %d", v.MaxLength, v.Prefix, v.Prefix.Bits(), v.Prefix.Addr().BitLen())
	}
	return nil
}

// compare orders by prefix, IPv4 first, then maximum length and AS.
func (v VRP) compare(o VRP) int {
	return cmp.Or(v.Prefix.Addr().Compare(o.Prefix.Addr()), cmp.Compare(v.Prefix.Bits(), o.Prefix.Bits()),
		cmp.Compare(v.MaxLength, o.MaxLength), cmp.Compare(v.AS, o.AS))
}

// sorted brings VRPs into order, each once. It works in place.
func sorted(l []VRP) []VRP {
	slices.SortFunc(l, VRP.compare)
	return slices.Clip(slices.Compact(l))
}

// State is the outcome of a validation.
type State uint8

// The states of RFC 6811 §2.
const (
	Unknown State = iota // no VRP covers the prefix; the RFC's NotFound
	Valid
	Invalid // VRPs cover the prefix, and none allows the route
)

func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Valid:
		return "valid"
	case Invalid:
		return "invalid"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Table holds VRPs. It never changes. A nil *Table has none.
type Table struct {
	vrps []VRP // in order, each once
	ip4  int   // how many of them are IPv4; they come first
	at   bart.Table[span]
}

// span is where a prefix's VRPs are in Table.vrps.
type span struct{ from, to int }

// NewTable merges lists of VRPs.
func NewTable(lists ...[]VRP) *Table {
	t := &Table{vrps: sorted(slices.Concat(lists...))}
	for from := 0; from < len(t.vrps); {
		to := from + 1
		for to < len(t.vrps) && t.vrps[to].Prefix == t.vrps[from].Prefix {
			to++
		}
		t.at.Insert(t.vrps[from].Prefix, span{from, to})
		if t.vrps[from].Prefix.Addr().Is4() {
			t.ip4 = to
		}
		from = to
	}
	return t
}

// Len returns how many VRPs of each family there are.
func (t *Table) Len() (ip4, ip6 int) {
	if t == nil {
		return 0, 0
	}
	return t.ip4, len(t.vrps) - t.ip4
}

// All returns the VRPs in order: IPv4 first, by prefix. The list must not be changed.
func (t *Table) All() []VRP {
	if t == nil {
		return nil
	}
	return t.vrps
}

// Validate judges a route (RFC 6811 §2). An origin of 0 stands for the RFC's NONE, the origin of a path that ends with an
// AS_SET: no VRP matches either.
func (t *Table) Validate(prefix netip.Prefix, origin uint32) State {
	state := Unknown
	for v := range t.Covering(prefix) {
		if origin != 0 && v.AS == origin && int(v.MaxLength) >= prefix.Bits() {
			return Valid
		}
		state = Invalid
	}
	return state
}

// Covering returns the VRPs whose prefix is prefix, or contains it, the longest first: those that decide on its routes.
func (t *Table) Covering(prefix netip.Prefix) iter.Seq[VRP] {
	return func(yield func(VRP) bool) {
		if t == nil {
			return
		}
		for _, s := range t.at.Supernets(prefix) {
			for _, v := range t.vrps[s.from:s.to] {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// Within returns the VRPs whose prefix is longer than prefix and within it, in order.
func (t *Table) Within(prefix netip.Prefix) iter.Seq[VRP] {
	return func(yield func(VRP) bool) {
		if t == nil {
			return
		}
		for p, s := range t.at.Subnets(prefix) {
			if p == prefix.Masked() {
				continue
			}
			for _, v := range t.vrps[s.from:s.to] {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// Diff returns what next has and old has not, and the reverse, each in order.
func Diff(old, next *Table) (added, removed []VRP) {
	a, b := old.All(), next.All()
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].compare(b[0]); {
		case c == 0:
			a, b = a[1:], b[1:]
		case c < 0:
			removed, a = append(removed, a[0]), a[1:]
		default:
			added, b = append(added, b[0]), b[1:]
		}
	}
	return append(added, b...), append(removed, a...)
}
