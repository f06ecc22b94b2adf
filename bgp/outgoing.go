package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// This file keeps the order of what neighbours are told.
//
// GoBGP v4.8.0 queues what it has to tell a neighbour, and packs all that has come together since the last time into as few
// UPDATEs as possible: withdrawals first, then routes with the same attributes together. Of several changes of one prefix it
// keeps only the last, but it takes paths from different neighbours for different ones. When the best path of a prefix moves
// from one neighbour to another and the neighbour that is told is slow, both are packed, in any order: it may be left with the
// older one for ever, or with a route that has been withdrawn. So the queue between GoBGP and each of its sessions is one of
// ours, in which a prefix is once, with its last change. A slow neighbour's queue is then no longer than the table, too.

const (
	queueField   = "outgoingCh"
	queueInput   = "input"  // chan interface{}
	queueOutput  = "output" // chan interface{}
	queueLength  = "length" // chan int
	messagePaths = "Paths"  // []*table.Path
)

func checkQueueFields() error {
	peers, _ := reflect.TypeFor[server.BgpServer]().FieldByName(peersField) // checkIdle has looked, and checkROATable for the lock
	fsm, _ := peers.Type.Elem().Elem().FieldByName(fsmField)
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
	return nil
}

// replaceQueue gives a neighbour that GoBGP has just been told of, and that has no session yet, a queue of ours; run works it
// until GoBGP forgets the neighbour. several says whether its session carries several paths to a prefix. GoBGP's lock is held by
// whatever changes neighbours, and shared by their sessions' events.
func replaceQueue(s *server.BgpServer, id netip.Addr, several func() bool) (run func(), err error) {
	v := reflect.ValueOf(s).Elem()
	mu := (*sync.RWMutex)(unsafe.Pointer(v.FieldByName(sharedField).Elem().FieldByName(lockField).UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	peer := v.FieldByName(peersField).MapIndex(reflect.ValueOf(id))
	if !peer.IsValid() {
		return nil, fmt.Errorf("GoBGP does not know %s", id)
	}
	queue := peer.Elem().FieldByName(fsmField).Elem().FieldByName(queueField).Elem()
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
	o := &outbox{several: several, in: make(chan any), out: make(chan any), length: make(chan int)}
	*input, *output, *length = o.in, o.out, o.length
	return o.run, nil
}

// outbox is the queue between GoBGP and a session.
type outbox struct {
	in, out chan any
	length  chan int
	several func() bool

	message reflect.Value // *server.fsmOutgoingMsg, under construction; invalid: nothing waits
	paths   reflect.Value // its Paths; nil ones are passed over
	at      map[outKey]int
	dead    int   // nil ones
	other   []any // anything else, which GoBGP's session has to see
}

// outKey is a path for a neighbour. Without ADD-PATH (RFC 7911) the prefix is all there is to it.
type outKey struct {
	family bgp.Family
	prefix netip.Prefix
	id     uint32
	other  string // in place of a prefix, or the path itself where it is a marker
}

// outPath is what we must know of *table.Path.
type outPath interface {
	GetFamily() bgp.Family
	GetNlri() bgp.NLRI
	IsEOR() bool
	LocalID() uint32
}

// packTime is how long a session may take from when it has got a message to when it asks whether there is more.
const packTime = time.Second

// run works the queue until GoBGP closes it. It always says that nothing more waits: what does is in one message, which the
// session takes when it is ready for it. Having taken one it looks whether there is another, to pack them together, and then
// asks for the length. There is none until it has asked. If it does not, it was no session: GoBGP throws away what waits
// when a session ends.
func (o *outbox) run() {
	defer close(o.length)
	defer close(o.out)
	packing := time.NewTimer(packTime)
	packing.Stop()
	defer packing.Stop()
	taken := false
	for {
		var out chan any
		var next any
		switch {
		case taken:
		case len(o.other) > 0:
			out, next = o.out, o.other[0]
		case o.message.IsValid():
			out, next = o.out, o.message.Interface()
		}
		select {
		case m, open := <-o.in:
			if !open {
				return
			}
			o.add(m)
		case out <- next:
			if len(o.other) > 0 {
				o.other = o.other[1:]
			} else {
				o.message, o.at, o.dead = reflect.Value{}, nil, 0
			}
			taken = true
			packing.Reset(packTime)
		case o.length <- 0:
			taken = false
		case <-packing.C:
			taken = false
		}
	}
}

func (o *outbox) add(m any) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || !v.Elem().FieldByName(messagePaths).IsValid() {
		o.other = append(o.other, m)
		return
	}
	all := v.Elem().FieldByName(messagePaths)
	if !o.message.IsValid() {
		o.message = reflect.New(v.Elem().Type())
		o.paths = o.message.Elem().FieldByName(messagePaths)
		o.paths.Set(reflect.MakeSlice(all.Type(), 0, all.Len()))
		o.at = map[outKey]int{}
	}
	several := o.several()
	for i := range all.Len() {
		one := all.Index(i)
		p, ok := one.Interface().(outPath)
		if one.IsNil() || !ok {
			continue
		}
		key := keyOfOut(p, one, several)
		if old, there := o.at[key]; there {
			o.paths.Index(old).SetZero()
			o.dead++
		}
		o.at[key] = o.paths.Len()
		o.paths.Set(reflect.Append(o.paths, one))
	}
	if o.dead > len(o.at)+1024 {
		o.compact()
	}
}

func keyOfOut(p outPath, v reflect.Value, several bool) outKey {
	if p.IsEOR() {
		return outKey{family: p.GetFamily(), other: "end"}
	}
	if pfx, ok := prefixOf(p.GetNlri()); ok {
		key := outKey{family: p.GetFamily(), prefix: pfx}
		if several {
			key.id = p.LocalID()
		}
		return key
	}
	return outKey{family: p.GetFamily(), other: fmt.Sprint(v.Pointer())}
}

// compact throws the nil ones away.
func (o *outbox) compact() {
	live := reflect.MakeSlice(o.paths.Type(), 0, len(o.at))
	where := make([]int, o.paths.Len())
	for i := range o.paths.Len() {
		where[i] = live.Len()
		if one := o.paths.Index(i); !one.IsNil() {
			live = reflect.Append(live, one)
		}
	}
	for key, i := range o.at {
		o.at[key] = where[i]
	}
	o.paths.Set(live)
	o.dead = 0
}
