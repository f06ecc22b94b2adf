// Package hoststacktest is a network in memory whose nodes' stacks implement hoststack.Stack: for tests of what runs over a
// dataplane's TCP without a dataplane.
//
// It knows what matters to a routing protocol's transport. Addresses belong to interfaces, and a link-local one may be on
// many of them. A link can be cut: nothing is lost then, but nothing arrives, and SYNs go unanswered. A node can forget its
// connections, as one that lost its power: nobody is told, and whoever writes to it afterwards is reset.
package hoststacktest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"rlr/hoststack"
)

// Network is a set of nodes and links.
type Network struct {
	mu    sync.Mutex
	nodes []*Node
	port  uint16
}

// New returns an empty network.
func New() *Network { return &Network{port: 40000} }

// Node is one host. It implements hoststack.Stack for table 0.
type Node struct {
	name string
	net  *Network

	// Guarded by net.mu.
	ifs       []*nic
	listeners []*listener
	conns     map[*conn]bool
}

var _ hoststack.Stack = (*Node)(nil)

type nic struct {
	name  string
	node  *Node
	addrs []netip.Addr
	link  *Link
	peer  *nic
}

// Link joins two interfaces.
type Link struct {
	net *Network
	mu  sync.Mutex
	cut chan struct{} // closed while the link works; replaced by an open one when it is cut
}

// Node adds a node.
func (n *Network) Node(name string) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := &Node{name: name, net: n, conns: map[*conn]bool{}}
	n.nodes = append(n.nodes, node)
	return node
}

// Connect joins an interface of a to one of b. Addresses are given without zones.
func (n *Network) Connect(a *Node, aName string, aAddrs []netip.Addr, b *Node, bName string, bAddrs []netip.Addr) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &Link{net: n, cut: make(chan struct{})}
	close(l.cut)
	x := &nic{name: aName, node: a, addrs: aAddrs, link: l}
	y := &nic{name: bName, node: b, addrs: bAddrs, link: l}
	x.peer, y.peer = y, x
	a.ifs, b.ifs = append(a.ifs, x), append(b.ifs, y)
	return l
}

// Cut makes the link swallow everything.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.cut:
		l.cut = make(chan struct{})
	default:
	}
}

// Heal undoes Cut.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.cut:
	default:
		close(l.cut)
	}
}

// works returns a channel that is closed once the link works.
func (l *Link) works() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Forget makes the node lose its connections without a word to anybody. Its own ends are closed.
func (node *Node) Forget() {
	node.net.mu.Lock()
	conns := node.conns
	node.conns = map[*conn]bool{}
	node.net.mu.Unlock()
	for c := range conns {
		c.forget()
	}
}

// Conns returns how many connections the node has.
func (node *Node) Conns() int {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	return len(node.conns)
}

// Dial implements hoststack.Stack.
func (node *Node) Dial(ctx context.Context, e hoststack.Endpoints) (net.Conn, error) {
	opErr := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(e.Remote), Err: err}
	}
	if e.Table != 0 {
		return nil, opErr(syscall.ENETUNREACH)
	}
	node.net.mu.Lock()
	from, to, err := node.route(e)
	node.net.mu.Unlock()
	if err != nil {
		return nil, opErr(err)
	}
	select {
	case <-from.link.works():
	case <-ctx.Done():
		return nil, opErr(ctx.Err())
	}
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	l := to.node.listenerFor(e.Remote)
	if l == nil {
		return nil, opErr(syscall.ECONNREFUSED)
	}
	node.net.port++
	local := netip.AddrPortFrom(source(from, e).WithZone(""), node.net.port)
	ours, theirs := newPair(from.link)
	ours.node, theirs.node = node, to.node
	ours.local, ours.remote = addr(local, from.name), addr(e.Remote, from.name)
	theirs.local, theirs.remote = addr(e.Remote, to.name), addr(local, to.name)
	select {
	case l.backlog <- theirs:
	default:
		return nil, opErr(syscall.ECONNREFUSED)
	}
	node.conns[ours], to.node.conns[theirs] = true, true
	return ours, nil
}

// route finds our interface and the other's for a connection.
func (node *Node) route(e hoststack.Endpoints) (from, to *nic, err error) {
	remote := e.Remote.Addr().WithZone("")
	name := e.Interface
	if name == "" {
		name = e.Remote.Addr().Zone()
	}
	if name != "" && !slices.ContainsFunc(node.ifs, func(i *nic) bool { return i.name == name }) {
		return nil, nil, fmt.Errorf("interface %s: %w", name, hoststack.ErrNoInterface)
	}
	for _, i := range node.ifs {
		if (name == "" || i.name == name) && slices.Contains(i.peer.addrs, remote) {
			return i, i.peer, nil
		}
	}
	if remote.IsLinkLocalUnicast() {
		return nil, nil, syscall.EHOSTUNREACH
	}
	// Some node that is further away: whatever routes there are, they begin on the first interface.
	for _, other := range node.net.nodes {
		for _, i := range other.ifs {
			if other != node && slices.Contains(i.addrs, remote) && len(node.ifs) > 0 {
				return node.ifs[0], i, nil
			}
		}
	}
	return nil, nil, syscall.EHOSTUNREACH
}

func source(from *nic, e hoststack.Endpoints) netip.Addr {
	if e.Local.Addr().IsValid() {
		return e.Local.Addr()
	}
	for _, a := range from.addrs {
		if a.Is4() == e.Remote.Addr().Is4() && a.IsLinkLocalUnicast() == e.Remote.Addr().IsLinkLocalUnicast() {
			return a
		}
	}
	return from.addrs[0]
}

func addr(ap netip.AddrPort, nicName string) *net.TCPAddr {
	a := ap.Addr().WithZone("")
	if a.Is6() && a.IsLinkLocalUnicast() {
		a = a.WithZone(nicName)
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, ap.Port()))
}

func (node *Node) listenerFor(dst netip.AddrPort) *listener {
	for _, l := range node.listeners {
		a := l.addr.Addr()
		if l.addr.Port() == dst.Port() && (a == dst.Addr().WithZone("") || a.IsUnspecified() && a.Is4() == dst.Addr().Is4()) {
			return l
		}
	}
	return nil
}

// Listen implements hoststack.Stack.
func (node *Node) Listen(_ context.Context, table uint32, local netip.AddrPort) (net.Listener, error) {
	node.net.mu.Lock()
	defer node.net.mu.Unlock()
	if table != 0 {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRNOTAVAIL}
	}
	for _, l := range node.listeners {
		if l.addr == local {
			return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
		}
	}
	l := &listener{node: node, addr: local, backlog: make(chan *conn, 256), closed: make(chan struct{})}
	node.listeners = append(node.listeners, l)
	return l, nil
}

type listener struct {
	node    *Node
	addr    netip.AddrPort
	backlog chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: "tcp", Err: net.ErrClosed})
	l.once.Do(func() {
		err = nil
		l.node.net.mu.Lock()
		defer l.node.net.mu.Unlock()
		l.node.listeners = slices.DeleteFunc(l.node.listeners, func(o *listener) bool { return o == l })
		close(l.closed)
		for {
			select {
			case c := <-l.backlog:
				delete(l.node.conns, c)
				c.other.reset()
			default:
				return
			}
		}
	})
	return err
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
