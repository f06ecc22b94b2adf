package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// This file is the third one that knows of fields that GoBGP does not export: it takes from GoBGP what is to be announced, and
// keeps it from announcing anything itself. export.go says why.
//
// GoBGP announces nothing to a neighbour whose state says that we have just restarted. It would go on when all neighbours have
// sent End-of-RIBs, and so there is one more that never comes (see running.quiet), or after a deferral of at most 18 hours, which
// is disarmed here for each session.

const (
	queueField   = "outgoingCh"
	queueInput   = "input"  // chan interface{}
	queueOutput  = "output" // chan interface{}
	queueLength  = "length" // chan int
	messagePaths = "Paths"  // []*table.Path

	withdrawField = "IsWithdraw" // of *table.Path
	sourceID      = "ID"         // of *table.PeerInfo, which its GetSource returns
	sourceAddress = "Address"

	notesField = "sentPaths" // sync.Map, of peer

	fsmLockField = "lock"  // sync.Mutex
	confField    = "pConf" // pConfAccess
	confPointer  = "conf"  // atomic.Pointer[oc.Neighbor]
)

func checkQueueFields() error {
	peers, _ := reflect.TypeFor[server.BgpServer]().FieldByName(peersField) // checkIdle has looked, and checkROATable for the lock
	peer := peers.Type.Elem()
	fsm, _ := peer.Elem().FieldByName(fsmField)
	queue, ok := fsm.Type.Elem().FieldByName(queueField)
	if !ok || queue.Type.Kind() != reflect.Pointer {
		return unexpected("fsm." + queueField)
	}
	for name, want := range map[string]reflect.Type{
		queueInput: reflect.TypeFor[chan any](), queueOutput: reflect.TypeFor[chan any](), queueLength: reflect.TypeFor[chan int](),
	} {
		if f, ok := queue.Type.Elem().FieldByName(name); !ok || f.Type != want {
			return unexpected("InfiniteChannel." + name)
		}
	}
	if f, ok := peer.Elem().FieldByName(notesField); !ok || f.Type != reflect.TypeFor[sync.Map]() {
		return unexpected("peer." + notesField)
	}
	if mu, ok := fsm.Type.Elem().FieldByName(fsmLockField); !ok || mu.Type != reflect.TypeFor[sync.Mutex]() {
		return unexpected("fsm." + fsmLockField)
	}
	conf, ok := fsm.Type.Elem().FieldByName(confField)
	if !ok || conf.Type.Kind() != reflect.Struct {
		return unexpected("fsm." + confField)
	}
	if f, ok := conf.Type.FieldByName(confPointer); !ok || f.Type != reflect.TypeFor[atomic.Pointer[oc.Neighbor]]() {
		return unexpected("pConfAccess." + confPointer)
	}
	// A method whose result is paths tells their type. Names of methods are constants, for the linker.
	stale, ok := peer.MethodByName("StaleAll")
	if !ok || stale.Type.NumOut() != 1 || stale.Type.Out(0).Kind() != reflect.Slice {
		return unexpected("peer.StaleAll")
	}
	return checkPath(stale.Type.Out(0).Elem())
}

func checkPath(path reflect.Type) error {
	if path.Kind() != reflect.Pointer || !path.Implements(reflect.TypeFor[outPath]()) {
		return unexpected("table.Path")
	}
	if f, ok := path.Elem().FieldByName(withdrawField); !ok || f.Type.Kind() != reflect.Bool {
		return unexpected("Path." + withdrawField)
	}
	source, ok := path.MethodByName("GetSource")
	if !ok || source.Type.NumIn() != 1 || source.Type.NumOut() != 1 || source.Type.Out(0).Kind() != reflect.Pointer {
		return unexpected("Path.GetSource")
	}
	for _, name := range []string{sourceID, sourceAddress} {
		if f, ok := source.Type.Out(0).Elem().FieldByName(name); !ok || f.Type != reflect.TypeFor[netip.Addr]() {
			return unexpected("PeerInfo." + name)
		}
	}
	return nil
}

// outPath is what GoBGP tells of a path.
type outPath interface {
	GetFamily() bgp.Family
	GetNlri() bgp.NLRI
	IsEOR() bool
	LocalID() uint32
	GetPathAttrs() []bgp.PathAttributeInterface
	GetAsList() []uint32
}

// outgoing is a path that GoBGP announces, or withdraws.
type outgoing struct {
	outPath
	v reflect.Value // *table.Path
}

func (o outgoing) withdrawn() bool { return o.v.Elem().FieldByName(withdrawField).Bool() }

// source is the BGP Identifier of the neighbour that the path is from; invalid for our own.
func (o outgoing) source() netip.Addr {
	info := o.v.MethodByName("GetSource").Call(nil)[0].Elem()
	if !info.FieldByName(sourceAddress).Interface().(netip.Addr).IsValid() {
		return netip.Addr{}
	}
	return info.FieldByName(sourceID).Interface().(netip.Addr)
}

// pathsOf are those of a message of GoBGP's.
func pathsOf(m any) (reflect.Value, bool) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return v, false
	}
	paths := v.Elem().FieldByName(messagePaths)
	return paths, paths.IsValid() && paths.Kind() == reflect.Slice
}

// eachOutgoing visits the paths of a message of GoBGP's.
func eachOutgoing(m any, visit func(outgoing)) {
	all, ok := pathsOf(m)
	if !ok {
		return
	}
	for i := range all.Len() {
		one := all.Index(i)
		if p, ok := one.Interface().(outPath); ok && !one.IsNil() {
			visit(outgoing{p, one})
		}
	}
}

// gobgpPeer finds what GoBGP knows of a neighbour. GoBGP's lock is held by whatever changes neighbours, and shared by their
// sessions' events; the caller holds it.
func gobgpPeer(s *server.BgpServer, id netip.Addr) (reflect.Value, error) {
	peer := reflect.ValueOf(s).Elem().FieldByName(peersField).MapIndex(reflect.ValueOf(id))
	if !peer.IsValid() {
		return peer, fmt.Errorf("GoBGP does not know %s", id)
	}
	return peer.Elem(), nil
}

func gobgpLock(s *server.BgpServer) *sync.RWMutex {
	return (*sync.RWMutex)(unsafe.Pointer(reflect.ValueOf(s).Elem().FieldByName(sharedField).Elem().FieldByName(lockField).UnsafeAddr()))
}

// tellsAll reports whether a message of GoBGP's is a whole table: End-of-RIBs end it.
func tellsAll(m any) bool {
	paths, ok := pathsOf(m)
	if !ok || paths.Len() == 0 {
		return false
	}
	last, ok := paths.Index(paths.Len() - 1).Interface().(outPath)
	return ok && last.IsEOR()
}

// takeQueue takes what GoBGP tells a neighbour that it has just been told of, and that has no session yet: run gives each message
// to take, until GoBGP forgets the neighbour. GoBGP waits while take works. It keeps notes of what it has told, for whom several
// paths to a prefix are told, and for what policies reject later; forget throws them away.
func takeQueue(s *server.BgpServer, id netip.Addr, take func(any)) (run, forget func(), err error) {
	mu := gobgpLock(s)
	mu.Lock()
	defer mu.Unlock()
	peer, err := gobgpPeer(s, id)
	if err != nil {
		return nil, nil, err
	}
	notes := (*sync.Map)(unsafe.Pointer(peer.FieldByName(notesField).UnsafeAddr()))
	queue := peer.FieldByName(fsmField).Elem().FieldByName(queueField).Elem()
	channel := func(name string) *chan any {
		return (*chan any)(unsafe.Pointer(queue.FieldByName(name).UnsafeAddr()))
	}
	input, output := channel(queueInput), channel(queueOutput)
	length := (*chan int)(unsafe.Pointer(queue.FieldByName(queueLength).UnsafeAddr()))
	// The goroutine that works it closes the other two when it ends, as it finds them then.
	close(*input)
	for range *output { // nothing is in it: there has been no session
	}
	for range *length { // likewise
	}
	in, out, none := make(chan any), make(chan any), make(chan int)
	*input, *output, *length = in, out, none
	return func() {
		defer close(none)
		defer close(out)
		for m := range in {
			take(m)
		}
	}, notes.Clear, nil
}

// farAway is when the deferrals end.
var farAway = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// disarm keeps the deferral of a session of a neighbour's from ending, which has begun: GoBGP looks then how long ago the
// neighbour's last session ended.
func disarm(s *server.BgpServer, id netip.Addr) {
	mu := gobgpLock(s)
	mu.RLock()
	defer mu.RUnlock()
	peer, err := gobgpPeer(s, id)
	if err != nil {
		return // it has just gone
	}
	fsm := peer.FieldByName(fsmField).Elem()
	lock := (*sync.Mutex)(unsafe.Pointer(fsm.FieldByName(fsmLockField).UnsafeAddr()))
	conf := (*atomic.Pointer[oc.Neighbor])(unsafe.Pointer(fsm.FieldByName(confField).FieldByName(confPointer).UnsafeAddr()))
	lock.Lock()
	defer lock.Unlock()
	next := *conf.Load()
	next.Timers.State.Downtime = farAway
	conf.Store(&next)
}
