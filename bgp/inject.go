package bgp

import (
	"fmt"
	"net"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
)

// GoBGP's server takes connections from a channel that its own TCP listeners fill. Our connections come from the dataplane's
// stack and not from the kernel's, so we hand GoBGP a channel of ours in that place. The field is not exported: this file is
// the only one that knows of it, New fails if it is not there as expected, and a test fails before that.

const acceptField = "acceptCh"

// checkInjection reports why connections could not be handed to this version of GoBGP.
func checkInjection() error {
	f, ok := reflect.TypeFor[server.BgpServer]().FieldByName(acceptField)
	if !ok {
		return fmt.Errorf("this GoBGP has no field BgpServer.%s: rlr is built with a version that it was not made for", acceptField)
	}
	if want := reflect.TypeFor[chan net.Conn](); f.Type != want {
		return fmt.Errorf("this GoBGP's BgpServer.%s is a %s, not a %s: rlr is built with a version that it was not made for", acceptField, f.Type, want)
	}
	return nil
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
