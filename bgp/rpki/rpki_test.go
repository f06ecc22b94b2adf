package rpki

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func vrp(prefix string, length uint8, as uint32) VRP {
	return VRP{netip.MustParsePrefix(prefix), length, as}
}

// The cases of RFC 6811 §2, and those of DN42.
func TestValidate(t *testing.T) {
	table := NewTable([]VRP{
		vrp("10.0.0.0/8", 24, 65001), vrp("10.1.0.0/16", 16, 65002), vrp("10.2.0.0/16", 24, 0), vrp("10.3.0.0/16", 16, 0),
		vrp("172.20.0.0/24", 24, 4242420001), vrp("172.20.0.0/24", 28, 4242420002),
	}, []VRP{vrp("fd42:1::/32", 48, 4242420001), vrp("fd42:1::/32", 48, 4242420001)})
	for _, c := range []struct {
		prefix string
		origin uint32
		want   State
	}{
		{"10.0.0.0/8", 65001, Valid},
		{"10.9.9.0/24", 65001, Valid},
		{"10.9.9.0/25", 65001, Invalid}, // longer than it may be
		{"10.9.9.0/24", 65002, Invalid}, // another's
		{"10.1.0.0/16", 65002, Valid},   // one of two that cover it
		{"10.1.0.0/16", 65001, Valid},
		{"10.1.1.0/24", 65002, Invalid},
		{"10.0.0.0/7", 65001, Unknown}, // shorter than what there is
		{"11.0.0.0/8", 65001, Unknown},
		{"10.2.0.0/16", 0, Invalid}, // AS0 matches nothing, not even an origin that is none
		{"10.3.0.0/16", 65009, Invalid},
		{"10.3.0.0/16", 65001, Valid}, // AS0 takes nothing away from what another ROA allows
		{"11.0.0.0/8", 0, Unknown},
		{"172.20.0.0/24", 4242420001, Valid},
		{"172.20.0.16/28", 4242420002, Valid},
		{"172.20.0.16/28", 4242420001, Invalid},
		{"fd42:1:2::/48", 4242420001, Valid},
		{"fd42:1:2:3::/64", 4242420001, Invalid},
		{"fd42:2::/32", 4242420001, Unknown},
	} {
		if got := table.Validate(netip.MustParsePrefix(c.prefix), c.origin); got != c.want {
			t.Errorf("%s of AS%d is %s, want %s", c.prefix, c.origin, got, c.want)
		}
	}
	if ip4, ip6 := table.Len(); ip4 != 6 || ip6 != 1 {
		t.Errorf("%d and %d VRPs, want 6 and 1", ip4, ip6)
	}
	var none *Table
	if ip4, ip6 := none.Len(); ip4+ip6 != 0 || none.All() != nil || none.Validate(netip.MustParsePrefix("10.0.0.0/8"), 1) != Unknown {
		t.Error("no table has VRPs")
	}
}

// dice makes VRPs that often touch each other.
type dice struct{ *rand.Rand }

func (d dice) prefix() netip.Prefix {
	addr := netip.AddrFrom4([4]byte{10, byte(d.IntN(4)) << 6, byte(d.IntN(256))})
	if d.IntN(2) == 0 {
		addr = netip.AddrFrom16([16]byte{0xfd, byte(d.IntN(4)) << 6, byte(d.IntN(256))})
	}
	p, err := addr.Prefix(d.IntN(25))
	if err != nil {
		panic(err)
	}
	return p
}

func (d dice) vrps() (out []VRP) {
	for range d.IntN(40) {
		p := d.prefix()
		out = append(out, VRP{p, uint8(p.Bits() + d.IntN(8)), uint32(d.IntN(4))})
	}
	return out
}

// A Table answers as a list would that is looked through every time.
func TestTableModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	old, oldList := NewTable(), []VRP(nil)
	for range 300 {
		list := d.vrps()
		table := NewTable(list[:len(list)/2], list[len(list)/2:])
		has := func(l []VRP, v VRP) bool { return slices.Contains(l, v) }
		for _, v := range table.All() {
			if !has(list, v) {
				t.Fatalf("the table has %s", v)
			}
		}
		for range 50 {
			p, origin := d.prefix(), uint32(d.IntN(4))
			want := Unknown
			var covering, within int
			for _, v := range sorted(slices.Clone(list)) {
				switch {
				case v.Prefix.Bits() > p.Bits() && p.Overlaps(v.Prefix):
					within++
				case v.Prefix.Bits() <= p.Bits() && v.Prefix.Overlaps(p):
					covering++
					if v.AS == origin && origin != 0 && int(v.MaxLength) >= p.Bits() {
						want = Valid
					} else if want == Unknown {
						want = Invalid
					}
				}
			}
			if got := table.Validate(p, origin); got != want {
				t.Fatalf("%s of AS%d is %s, want %s by %v", p, origin, got, want, list)
			}
			if c, w := len(slices.Collect(table.Covering(p))), len(slices.Collect(table.Within(p))); c != covering || w != within {
				t.Fatalf("%s: %d cover it and %d are within, want %d and %d of %v", p, c, w, covering, within, list)
			}
		}
		added, removed := Diff(old, table)
		for _, v := range added {
			if has(oldList, v) || !has(list, v) {
				t.Fatalf("%s is not new", v)
			}
		}
		for _, v := range removed {
			if !has(oldList, v) || has(list, v) {
				t.Fatalf("%s is not gone", v)
			}
		}
		if len(old.All())+len(added)-len(removed) != len(table.All()) {
			t.Fatalf("%d + %d - %d is not %d", len(old.All()), len(added), len(removed), len(table.All()))
		}
		old, oldList = table, list
	}
}

// BenchmarkTable: the Internet's ROAs, merged and asked.
func BenchmarkTable(b *testing.B) {
	const many = 800_000
	rnd := rand.New(rand.NewPCG(1, 1))
	list := make([]VRP, 0, many)
	for range many {
		p, _ := netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(220)), byte(rnd.IntN(256)), byte(rnd.IntN(256))}).Prefix(16 + rnd.IntN(9))
		list = append(list, VRP{p, 24, rnd.Uint32()})
	}
	b.Run("merge", func(b *testing.B) {
		for b.Loop() {
			NewTable(slices.Clone(list))
		}
	})
	table := NewTable(list)
	b.Run("validate", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			table.Validate(list[i%many].Prefix, 1)
		}
	})
}

func ExampleTable_Validate() {
	t := NewTable([]VRP{{netip.MustParsePrefix("172.20.1.0/24"), 26, 4242420001}})
	fmt.Println(t.Validate(netip.MustParsePrefix("172.20.1.0/26"), 4242420001))
	fmt.Println(t.Validate(netip.MustParsePrefix("172.20.1.0/27"), 4242420001))
	// Output:
	// valid
	// invalid
}
