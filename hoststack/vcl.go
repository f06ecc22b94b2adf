package hoststack

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// This file is the Stack over VPP's own TCP, by VCL, VPP's client library.
//
// The library runs in helper processes (vclhelper.go): it lives in shared memory with VPP, belongs to threads, and asks for
// cgo or a loader; a crash in it, or of VPP, costs the helper and not the router. A helper is attached to one application
// namespace of VPP's. One in the default namespace has the listeners, and the connections to addresses that the FIB knows.
// Link-local peers need a second: VPP has no other way to say by which interface a connection leaves than the namespace's
// binding. The namespace is bound anew before each connect (Namespaces), one connect at a time; VPP copies the interface when
// it takes the connect, so it is told apart by its local port, which we choose, and looked up in VPP's list of sessions
// (Attributor) before the next one may begin. A listener takes the connections of every interface, and the same list tells
// afterwards by which one a link-local peer came in.

// Namespaces is the dataplane's side of interface binding. vppagent implements it.
type Namespaces interface {
	// BindNamespace makes an application namespace of VPP's (app_namespace_add_del_v4), or binds an existing one anew:
	// connections made in it from now on are of table and, unless swIfIndex is AnyInterface, of that interface.
	BindNamespace(ctx context.Context, id string, secret uint64, table, swIfIndex uint32) error
	// RemoveNamespace deletes it, and ends what is attached to it. One that is not there is no error.
	RemoveNamespace(ctx context.Context, id string) error
}

// Addresses tells which addresses are the dataplane's own. vppagent implements it.
type Addresses interface {
	// LinkLocalAddress returns the interface's.
	LinkLocalAddress(ctx context.Context, swIfIndex uint32) (netip.Addr, error)
	// HasAddress reports whether an address is delivered locally in table. Not for link-local ones.
	HasAddress(ctx context.Context, table uint32, addr netip.Addr) (bool, error)
}

// Attributor tells which interface a session of VPP's belongs to. vppagent implements it.
type Attributor interface {
	// SessionInterface returns the interface of the TCP session of table with these ends. found is false if there is none.
	// Of a session that is not established VPP does not show the interface: it is AnyInterface then.
	SessionInterface(ctx context.Context, table uint32, local, remote netip.AddrPort) (swIfIndex uint32, found bool, err error)
}

// VCLOptions of NewVCL. All are needed, if not said otherwise.
type VCLOptions struct {
	Name       string        // the router's: its namespaces in VPP are called after it
	Dir        string        // of the router's own, mode 0700, for VCL's configuration files
	Library    string        // path of libvppcom.so, of the VPP that is in use
	AppSockets string        // folder of application sockets: app_ns_sockets in VPP's runtime folder
	Helper     []string      // command that calls HelperMain
	Version    func() string // of the VPP that is in use, to be compared with the library's; nil or "": is not compared
	Interfaces Interfaces
	Namespaces Namespaces
	Addresses  Addresses
	Sessions   Attributor
	Log        *logrus.Entry // nil: none
}

// VCL is the Stack on VPP. Run must run for anything to work.
type VCL struct {
	opt    VCLOptions
	log    *logrus.Entry
	secret uint64 // of our namespaces

	started chan struct{}  // closed when Run has begun
	wg      sync.WaitGroup // slots

	mu    sync.Mutex
	ctx   context.Context // Run's; nil before it
	slots map[slotKey]*slot
}

// slotKey says which namespace a helper is attached to.
type slotKey struct {
	table uint32
	bound bool // to the interface of the connect that is being made
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$`)

// maxSocketPath is the kernel's limit.
const maxSocketPath = 107

// NewVCL checks the options. The library and VPP are looked for by Run: they may come later.
func NewVCL(opt VCLOptions) (*VCL, error) {
	switch {
	case !namePattern.MatchString(opt.Name):
		return nil, fmt.Errorf("VCL: name %q: 1 to 40 letters, digits and ._- are possible in VPP", opt.Name)
	case len(opt.Helper) == 0:
		return nil, errors.New("VCL: no helper command")
	case opt.Interfaces == nil || opt.Namespaces == nil || opt.Addresses == nil || opt.Sessions == nil:
		return nil, errors.New("VCL: no access to VPP's interfaces, namespaces, addresses and sessions")
	case strings.ContainsAny(opt.AppSockets+opt.Dir, " \t\n{}"):
		return nil, fmt.Errorf("VCL: the path %q: VPP's configuration cannot express a space or brace in it", opt.AppSockets)
	case !filepath.IsAbs(opt.AppSockets) || !filepath.IsAbs(opt.Dir) || !filepath.IsAbs(opt.Library):
		return nil, fmt.Errorf("VCL: paths must be absolute: %q, %q, %q", opt.AppSockets, opt.Dir, opt.Library)
	}
	if path := filepath.Join(opt.AppSockets, namespaceID(opt.Name, slotKey{^uint32(0), true})); len(path) > maxSocketPath {
		return nil, fmt.Errorf("VCL: socket path %s has %d characters, the kernel takes %d; choose a shorter name or runtime folder", path, len(path), maxSocketPath)
	}
	if opt.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		opt.Log = logrus.NewEntry(l)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // does not fail
	return &VCL{
		opt: opt, log: opt.Log, secret: binary.NativeEndian.Uint64(b[:])>>1 | 1, // VCL reads it as a positive number
		started: make(chan struct{}), slots: make(map[slotKey]*slot),
	}, nil
}

// namespaceID is the namespace's name in VPP; VPP calls the one that is always there "default".
func namespaceID(name string, key slotKey) string {
	switch {
	case key.bound:
		return fmt.Sprintf("%s-%d-if", name, key.table)
	case key.table != 0:
		return fmt.Sprintf("%s-%d", name, key.table)
	}
	return "default"
}

// Run keeps the helpers running until ctx ends. Listeners and connections end with it. It returns nil.
func (v *VCL) Run(ctx context.Context) error {
	v.mu.Lock()
	v.ctx = ctx
	v.slotLocked(slotKey{}) // so that the first Listen finds it ready
	v.mu.Unlock()
	close(v.started)
	<-ctx.Done()
	v.wg.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	for key := range v.slots {
		if key != (slotKey{}) {
			if err := v.opt.Namespaces.RemoveNamespace(clean, namespaceID(v.opt.Name, key)); err != nil {
				v.log.WithError(err).Debug("application namespace left in VPP")
			}
		}
	}
	return nil
}

// slot returns the keeper of a helper, and starts it at first.
func (v *VCL) slot(ctx context.Context, key slotKey) (*slot, error) {
	select {
	case <-v.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	return v.slotLocked(key), nil
}

func (v *VCL) slotLocked(key slotKey) *slot {
	s := v.slots[key]
	if s == nil {
		s = newSlot(v, key)
		v.slots[key] = s
		v.wg.Add(1)
		go func() {
			defer v.wg.Done()
			s.run(v.ctx)
		}()
	}
	return s
}

// Dial implements Stack. VPP's TCP binds a connection to an interface only if it is to a link-local address; another one with an
// interface is refused with syscall.EOPNOTSUPP.
func (v *VCL) Dial(ctx context.Context, e Endpoints) (net.Conn, error) {
	conn, err := v.dial(ctx, e)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err, Source: tcpAddr(e.Local), Addr: tcpAddr(e.Remote)}
	}
	return conn, nil
}

func (v *VCL) dial(ctx context.Context, e Endpoints) (net.Conn, error) {
	name := interfaceOf(e.Interface, e.Remote.Addr(), e.Local.Addr())
	index, err := interfaceIndex(v.opt.Interfaces, name, e.Remote.Addr())
	if err != nil {
		return nil, err
	}
	local, remote := withoutZone(e.Local), withoutZone(e.Remote)
	switch {
	case local.Addr().IsValid() && local.Addr().Is4() != remote.Addr().Is4():
		return nil, fmt.Errorf("local %s and remote %s are of different families: %w", e.Local.Addr(), e.Remote.Addr(), syscall.EADDRNOTAVAIL)
	case index != AnyInterface && !needsInterface(remote.Addr()):
		return nil, fmt.Errorf("to %s by interface %s: VPP binds only link-local connections to an interface: %w", remote.Addr(), name, syscall.EOPNOTSUPP)
	case remote.Addr().IsUnspecified() || remote.Addr().IsMulticast() || remote.Port() == 0:
		return nil, fmt.Errorf("no such remote address: %w", syscall.EADDRNOTAVAIL)
	}
	s, err := v.slot(ctx, slotKey{e.Table, index != AnyInterface})
	if err != nil {
		return nil, err
	}
	if err := v.checkLocal(ctx, e.Table, index, local); err != nil {
		return nil, err
	}
	if index == AnyInterface {
		return s.dial(ctx, local, remote)
	}
	return s.dialBound(ctx, binding{index: index, name: name}, local, remote)
}

// checkLocal makes sure that a local address is ours: VPP would send from any, and wait for an answer.
func (v *VCL) checkLocal(ctx context.Context, table, index uint32, local netip.AddrPort) error {
	a := local.Addr()
	if !a.IsValid() || a.IsUnspecified() {
		return nil
	}
	ours := false
	var err error
	if needsInterface(a) {
		var own netip.Addr
		own, err = v.opt.Addresses.LinkLocalAddress(ctx, index)
		ours = own == a
	} else {
		ours, err = v.opt.Addresses.HasAddress(ctx, table, a)
	}
	switch {
	case err != nil:
		return fmt.Errorf("is %s an address of VPP's: %w", a, err)
	case !ours:
		return fmt.Errorf("%s is no address of VPP's there: %w", a, syscall.EADDRNOTAVAIL)
	}
	return nil
}

// Listen implements Stack. The context bounds the call; the listener lives until it is closed, or Run ends: when a helper or
// VPP dies, it listens again as soon as there is another. While VPP is away Listen waits, or fails when it is known why.
// Errors: syscall.EADDRINUSE, EADDRNOTAVAIL wrapped in *net.OpError; what is wrong with the library or VPP.
func (v *VCL) Listen(ctx context.Context, table uint32, local netip.AddrPort) (net.Listener, error) {
	l, err := v.listen(ctx, table, withoutZone(local))
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: tcpAddr(local), Err: err}
	}
	return l, nil
}

func (v *VCL) listen(ctx context.Context, table uint32, local netip.AddrPort) (net.Listener, error) {
	if !local.IsValid() || needsInterface(local.Addr()) {
		// VPP refuses a link-local address; a listener on :: takes its connections.
		return nil, fmt.Errorf("VPP does not listen on %s: %w", local, syscall.EADDRNOTAVAIL)
	}
	s, err := v.slot(ctx, slotKey{table: table})
	if err != nil {
		return nil, err
	}
	return s.listen(ctx, local)
}

// HelperStatus tells about a helper process.
type HelperStatus struct {
	Namespace string // of VPP's that it is attached to
	PID       int    // 0: there is none now
	Err       error  // why the latest attempt to start one failed
}

// Helpers tells about the helper processes: those that run, or should.
func (v *VCL) Helpers() []HelperStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]HelperStatus, 0, len(v.slots))
	for key, s := range v.slots {
		s.mu.Lock()
		st := HelperStatus{Namespace: namespaceID(v.opt.Name, key), Err: s.err}
		if s.client != nil {
			st.PID = s.client.pid()
		}
		s.mu.Unlock()
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b HelperStatus) int { return strings.Compare(a.Namespace, b.Namespace) })
	return list
}
