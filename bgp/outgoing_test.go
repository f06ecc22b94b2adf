package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// queued stands for GoBGP's paths and messages in the queue.
type queued struct {
	name string
	nlri bgp.NLRI
	end  bool
	id   uint32
}

func (q *queued) GetFamily() bgp.Family { return bgp.RF_IPv4_UC }
func (q *queued) GetNlri() bgp.NLRI     { return q.nlri }
func (q *queued) IsEOR() bool           { return q.end }
func (q *queued) LocalID() uint32       { return q.id }

type queuedMessage struct{ Paths []*queued }

func queue(name, prefix string) *queued {
	nlri, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix(prefix))
	if err != nil {
		panic(err)
	}
	return &queued{name: name, nlri: nlri}
}

func (m *queuedMessage) String() string {
	var l []string
	for _, q := range m.Paths {
		if q != nil {
			l = append(l, q.name)
		}
	}
	return strings.Join(l, " ")
}

// The queue has each prefix once, with its last change, and one message at a time.
func TestOutbox(t *testing.T) {
	several := false
	o := &outbox{several: func() bool { return several }, in: make(chan any), out: make(chan any), length: make(chan int)}
	done := make(chan struct{})
	go func() { defer close(done); o.run() }()
	take := func() string {
		t.Helper()
		select {
		case m := <-o.out:
			return fmt.Sprint(m)
		case <-time.After(10 * time.Second):
			t.Fatal("nothing comes")
		}
		return ""
	}
	want := func(what string) {
		t.Helper()
		if got := take(); got != what {
			t.Fatalf("got %q, want %q", got, what)
		}
	}
	send := func(paths ...*queued) { o.in <- &queuedMessage{paths} }
	a1, a2, b1 := queue("a1", "10.1.0.0/16"), queue("a2", "10.1.0.0/16"), queue("b1", "10.2.0.0/16")
	send(a1, nil, b1)
	send(a2, &queued{name: "end", end: true})
	want("b1 a2 end")
	// The session looks for more to pack; what has come meanwhile waits until it has packed.
	send(a1)
	select {
	case m := <-o.out:
		t.Fatalf("%v is packed with what was before it", m)
	default:
	}
	if n := <-o.length; n != 0 {
		t.Fatalf("%d wait", n)
	}
	want("a1")
	// Who asks for no length has thrown it away.
	send(a2)
	want("a2")
	if n := <-o.length; n != 0 {
		t.Fatalf("%d wait", n)
	}
	// What changes all the time takes no room.
	for range 5000 {
		send(a1)
	}
	send(b1)
	select {
	case m := <-o.out:
		if q := m.(*queuedMessage); fmt.Sprint(q) != "a1 b1" || len(q.Paths) > 2100 {
			t.Fatalf("%v, %d long", q, len(q.Paths))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes")
	}
	<-o.length
	o.in <- "something else"
	want("something else")
	<-o.length
	// With several paths to a prefix each has its place.
	several = true
	c1, c2, c3 := queue("c1", "10.3.0.0/16"), queue("c2", "10.3.0.0/16"), queue("c3", "10.3.0.0/16")
	c1.id, c2.id, c3.id = 1, 2, 1
	send(c1, c2, c3)
	want("c2 c3")
	<-o.length
	close(o.in)
	<-done
	if _, open := <-o.out; open {
		t.Error("the queue is open")
	}
}
