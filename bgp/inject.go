package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"unsafe"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// This file, roatable.go and outgoing.go are the only ones that know of fields that GoBGP does not export; New fails if one is not
// there as expected, and a test fails before that.
//
// GoBGP's server takes connections from a channel that its own TCP listeners fill. Our connections come from the dataplane's
// stack and not from the kernel's, so we hand GoBGP a channel of ours in that place.
//
// After a connection that broke, GoBGP sits in Idle for 5 seconds, unless it is made to forget the routes. Where it is to keep
// them (RFC 4724), the time that the neighbour's state machine will sit there is set.

// GoBGP's implementation of its API is made together with listeners of its own, which take whoever comes. We make one without
// them, and put our own server before it (grpc.go).

const (
	acceptField = "acceptCh"

	peersField = "neighborMap" // map[netip.Addr]*peer
	fsmField   = "fsm"         // *fsm
	idleField  = "idleHoldTime"

	apiField    = "apiServer" // *server, the implementation of the API
	serverField = "bgpServer" // *BgpServer in it, all that its methods use
)

// checkInjection reports why this version of GoBGP is none for us.
func checkInjection() error {
	for _, check := range []func() error{checkIdle, checkPolicyFields, checkQueueFields, checkAPI} {
		if err := check(); err != nil {
			return err
		}
	}
	f, ok := reflect.TypeFor[server.BgpServer]().FieldByName(acceptField)
	if !ok {
		return fmt.Errorf("this GoBGP has no field BgpServer.%s: rlr is built with a version that it was not made for", acceptField)
	}
	if want := reflect.TypeFor[chan net.Conn](); f.Type != want {
		return fmt.Errorf("this GoBGP's BgpServer.%s is a %s, not a %s: rlr is built with a version that it was not made for", acceptField, f.Type, want)
	}
	return nil
}

// unexpected is the error for a field or method of GoBGP's that is not what our use of it takes for granted.
func unexpected(what string) error {
	return fmt.Errorf("this GoBGP's %s is not as expected: rlr is built with a version that it was not made for", what)
}

// injector gives s the channel on which it will take connections. It must be called before s.Serve: that is the only
// reader, and StartBgp replaces the channel only when it listens itself, which ListenPort -1 forbids.
func injector(s *server.BgpServer) (chan<- net.Conn, error) {
	if err := checkInjection(); err != nil {
		return nil, err
	}
	ch := make(chan net.Conn, 32)
	f := reflect.ValueOf(s).Elem().FieldByName(acceptField)
	*(*chan net.Conn)(unsafe.Pointer(f.UnsafeAddr())) = ch
	return ch, nil
}

func checkIdle() error {
	peers, ok := reflect.TypeFor[server.BgpServer]().FieldByName(peersField)
	if !ok || peers.Type.Kind() != reflect.Map || peers.Type.Key() != reflect.TypeFor[netip.Addr]() || peers.Type.Elem().Kind() != reflect.Pointer {
		return unexpected("BgpServer." + peersField)
	}
	fsm, ok := peers.Type.Elem().Elem().FieldByName(fsmField)
	if !ok || fsm.Type.Kind() != reflect.Pointer {
		return unexpected("peer." + fsmField)
	}
	if idle, ok := fsm.Type.Elem().FieldByName(idleField); !ok || idle.Type != reflect.TypeFor[float64]() {
		return unexpected("fsm." + idleField)
	}
	return nil
}

// skipIdle makes the next Idle of a neighbour short. It must be called from the goroutine of GoBGP that reads the neighbour's
// session, which the state machine waits for, and while nobody adds or deletes neighbours.
func skipIdle(s *server.BgpServer, id netip.Addr) {
	p := reflect.ValueOf(s).Elem().FieldByName(peersField).MapIndex(reflect.ValueOf(id))
	if !p.IsValid() {
		return
	}
	f := p.Elem().FieldByName(fsmField).Elem().FieldByName(idleField)
	*(*float64)(unsafe.Pointer(f.UnsafeAddr())) = 0
}

// GoBGP's policies cannot set a local preference of 0, which is what RFC 8326 §4.2 asks for: it takes a 0 for no such action.
// So the statements that mean 0 are written with another number, and corrected in place.

const (
	policyField     = "policy"       // *table.RoutingPolicy
	policyLock      = "mu"           // sync.RWMutex
	statementsField = "statementMap" // map[string]*table.Statement
	actionsField    = "ModActions"   // []table.Action
	actionValue     = "value"        // of *table.LocalPrefAction
	localPrefAction = "LocalPrefAction"
)

func checkPolicyFields() error {
	policy, ok := reflect.TypeFor[server.BgpServer]().FieldByName(policyField)
	if !ok || policy.Type.Kind() != reflect.Pointer {
		return unexpected("BgpServer." + policyField)
	}
	if mu, ok := policy.Type.Elem().FieldByName(policyLock); !ok || mu.Type != reflect.TypeFor[sync.RWMutex]() {
		return unexpected("RoutingPolicy." + policyLock)
	}
	all, ok := policy.Type.Elem().FieldByName(statementsField)
	if !ok || all.Type.Kind() != reflect.Map || all.Type.Key().Kind() != reflect.String || all.Type.Elem().Kind() != reflect.Pointer {
		return unexpected("RoutingPolicy." + statementsField)
	}
	if a, ok := all.Type.Elem().Elem().FieldByName(actionsField); !ok || a.Type.Kind() != reflect.Slice || a.Type.Elem().Kind() != reflect.Interface {
		return unexpected("Statement." + actionsField)
	}
	return nil
}

// zeroLocalPref makes statements set a local preference of 0. It reports how many it found.
func zeroLocalPref(s *server.BgpServer, statements map[string]bool) int {
	policy := reflect.ValueOf(s).Elem().FieldByName(policyField).Elem()
	mu := (*sync.RWMutex)(unsafe.Pointer(policy.FieldByName(policyLock).UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	done := 0
	all := policy.FieldByName(statementsField)
	for name := range statements {
		st := all.MapIndex(reflect.ValueOf(name))
		if !st.IsValid() {
			continue
		}
		actions := st.Elem().FieldByName(actionsField)
		for i := range actions.Len() {
			a := actions.Index(i).Elem().Elem()
			if a.Type().Name() != localPrefAction {
				continue
			}
			if v := a.FieldByName(actionValue); v.IsValid() && v.Kind() == reflect.Uint32 {
				*(*uint32)(unsafe.Pointer(v.UnsafeAddr())) = 0
				done++
			}
		}
	}
	return done
}

func checkAPI() error {
	f, ok := reflect.TypeFor[server.BgpServer]().FieldByName(apiField)
	if ok && f.Type.Kind() == reflect.Pointer && f.Type.Implements(reflect.TypeFor[api.GoBgpServiceServer]()) {
		if b, ok := f.Type.Elem().FieldByName(serverField); ok && b.Type == reflect.TypeFor[*server.BgpServer]() {
			return nil
		}
	}
	return unexpected("BgpServer." + apiField)
}

// apiOf returns GoBGP's implementation of its API, for s.
func apiOf(s *server.BgpServer) api.GoBgpServiceServer {
	f, _ := reflect.TypeFor[server.BgpServer]().FieldByName(apiField) // New has checked it
	v := reflect.New(f.Type.Elem())
	*(**server.BgpServer)(unsafe.Pointer(v.Elem().FieldByName(serverField).UnsafeAddr())) = s
	return v.Interface().(api.GoBgpServiceServer)
}
