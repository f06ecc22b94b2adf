package bgp

import (
	"net"
	"reflect"
	"sync"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"rlr/bgp/rpki"
)

// This file is the second one, after inject.go, that knows of fields that GoBGP does not export; New fails if one is not
// there as expected, and a test fails before that.
//
// GoBGP's policies ask its ROA table (the condition RpkiResult), and only its RTR client fills that: it dials by the kernel,
// tries again every 30 seconds, does not say when it is done, and leaves goroutines behind when the server stops. An RTR
// server of our own for it would be a port that anybody on the machine can talk to, and a second copy of everything. So the
// table is filled where it is: its methods Add and Delete are called, under the lock that GoBGP holds when its own client
// calls them. When that returns, GoBGP has the change.

const (
	roaTableField = "roaTable" // *table.ROATable
	sharedField   = "shared"   // *sharedData
	lockField     = "mu"       // sync.RWMutex
)

// roaSource is what GoBGP is told that our VRPs come from.
const roaSource = "rlr:0"

// roaBatch is how many VRPs are changed at a time: all of GoBGP waits meanwhile.
const roaBatch = 4096

// gobgpROA has the fields of GoBGP's table.ROA, in its order.
type gobgpROA struct {
	Family  int
	Network *net.IPNet
	MaxLen  uint8
	AS      uint32
	Src     string
}

// checkROATable reports why this version of GoBGP is none for us.
func checkROATable() error {
	s := reflect.TypeFor[server.BgpServer]()
	table, ok := s.FieldByName(roaTableField)
	if !ok || table.Type.Kind() != reflect.Pointer {
		return unexpected("BgpServer." + roaTableField)
	}
	// The names are constants, so that the linker keeps these methods and not all methods of the program.
	add, hasAdd := table.Type.MethodByName("Add")
	del, hasDel := table.Type.MethodByName("Delete")
	takesROA := func(m reflect.Method) bool {
		return m.Type.NumIn() == 2 && m.Type.NumOut() == 0 && m.Type.In(1).Kind() == reflect.Pointer &&
			m.Type.In(1).Elem().ConvertibleTo(reflect.TypeFor[gobgpROA]())
	}
	if !hasAdd || !hasDel || !takesROA(add) || !takesROA(del) {
		return unexpected("ROATable")
	}
	shared, ok := s.FieldByName(sharedField)
	if !ok || shared.Type.Kind() != reflect.Pointer {
		return unexpected("BgpServer." + sharedField)
	}
	if mu, ok := shared.Type.Elem().FieldByName(lockField); !ok || mu.Type != reflect.TypeFor[sync.RWMutex]() {
		return unexpected("sharedData." + lockField)
	}
	return nil
}

// roaTable is the ROA table of a GoBGP.
type roaTable struct {
	mu          *sync.RWMutex // GoBGP's own, which guards it
	add, delete reflect.Value // func(*table.ROA)
	roa         reflect.Type  // table.ROA
}

// roaTableOf finds the table of s. checkROATable must have found nothing.
func roaTableOf(s *server.BgpServer) *roaTable {
	v := reflect.ValueOf(s).Elem()
	field := v.FieldByName(roaTableField)
	table := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem() // as a value whose methods may be called
	t := &roaTable{add: table.MethodByName("Add"), delete: table.MethodByName("Delete")}
	t.mu = (*sync.RWMutex)(unsafe.Pointer(v.FieldByName(sharedField).Elem().FieldByName(lockField).UnsafeAddr()))
	t.roa = t.add.Type().In(0).Elem()
	return t
}

// change adds and deletes VRPs. It returns when GoBGP's policies see the change. It must not be called from GoBGP's goroutines.
func (t *roaTable) change(added, removed []rpki.VRP) {
	t.each(t.add, added)
	t.each(t.delete, removed)
}

func (t *roaTable) each(method reflect.Value, vrps []rpki.VRP) {
	for len(vrps) > 0 {
		n := min(len(vrps), roaBatch)
		t.mu.Lock()
		for _, v := range vrps[:n] {
			method.Call([]reflect.Value{t.value(v)})
		}
		t.mu.Unlock()
		vrps = vrps[n:]
	}
}

// value returns v as a *table.ROA.
func (t *roaTable) value(v rpki.VRP) reflect.Value {
	family := bgp.AFI_IP6
	if v.Prefix.Addr().Is4() {
		family = bgp.AFI_IP
	}
	roa := gobgpROA{
		Family:  family,
		Network: &net.IPNet{IP: v.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(v.Prefix.Bits(), v.Prefix.Addr().BitLen())},
		MaxLen:  v.MaxLength, AS: v.AS, Src: roaSource,
	}
	p := reflect.New(t.roa)
	p.Elem().Set(reflect.ValueOf(roa).Convert(t.roa))
	return p
}
