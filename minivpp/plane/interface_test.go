package plane

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.fd.io/govpp/api"
)

func TestInterfaces(t *testing.T) {
	r := newRig(t)
	all := r.Interfaces()
	if len(all) != 1 || all[0].Name != "local0" || all[0].Index != 0 || all[0].Kind != "local" || all[0].AdminUp || all[0].LinkUp {
		t.Errorf("%+v", all)
	}
	l0, l1 := must(r.CreateLoopback([6]byte{}, nil)), must(r.CreateLoopback([6]byte{2, 3, 4, 5, 6, 7}, nil))
	seven := uint32(7)
	l7 := must(r.CreateLoopback([6]byte{}, &seven))
	if _, err := r.CreateLoopback([6]byte{}, &seven); err != api.INVALID_REGISTRATION {
		t.Error(err)
	}
	x := must(r.Interface(l1))
	if x.Name != "loop1" || x.MAC != ([6]byte{2, 3, 4, 5, 6, 7}) || x.Kind != "Loopback" || x.MTU.L3 != 9000 || x.LinkMTU != 9000 || x.AdminUp || x.LinkUp || x.Unnumbered != NoInterface {
		t.Errorf("%+v", x)
	}
	if x := must(r.Interface(l7)); x.Name != "loop7" || x.MAC != ([6]byte{0xde, 0xad, 0, 0, 0, 7}) || x.Index != 3 {
		t.Errorf("%+v", x)
	}
	// The lowest free index and instance are used again.
	r.ok(r.DeleteLoopback(l0))
	if idx := must(r.CreateLoopback([6]byte{}, nil)); idx != l0 || must(r.Interface(idx)).Name != "loop0" {
		t.Errorf("index %d", idx)
	}
	for name, err := range map[string]error{
		"DeleteLoopback":  r.DeleteLoopback(0),
		"DeleteLoopback2": r.DeleteLoopback(99),
		"DeleteMemif":     r.DeleteMemif(l1),
		"SetAdmin":        r.SetAdmin(99, true),
		"SetTag":          r.SetTag(99, "x"),
		"AddAddress":      r.AddAddress(99, mustPrefix("10.0.0.1/24")),
	} {
		if err != api.INVALID_SW_IF_INDEX {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.ok(r.SetTag(l1, "rlr/a/b"))
	r.ok(r.SetName(l1, "dum0"))
	r.ok(r.SetAdmin(l1, true))
	if x := must(r.Interface(l1)); x.Tag != "rlr/a/b" || x.Name != "dum0" || !x.AdminUp || !x.LinkUp {
		t.Errorf("%+v", x)
	}
	if err := r.SetName(l1, ""); err != api.INVALID_VALUE {
		t.Error(err)
	}
	if err := r.SetLinkMTU(l1, 60000); err != api.INVALID_VALUE {
		t.Error(err)
	}
	r.ok(r.SetLinkMTU(l1, 1500))
	if x := must(r.Interface(l1)); x.MTU.L3 != 1500 || x.LinkMTU != 1500 {
		t.Errorf("%+v", x)
	}
}

func TestAddresses(t *testing.T) {
	r := newRig(t)
	a, b := must(r.CreateLoopback([6]byte{2, 0, 0, 0, 0, 1}, nil)), must(r.CreateLoopback([6]byte{}, nil))
	r.ok(r.AddTable(5, false, ""))
	c := must(r.CreateLoopback([6]byte{}, nil))
	r.ok(r.SetTable(c, false, 5))
	for _, s := range []struct {
		idx  uint32
		pfx  string
		want error
	}{
		{0, "10.0.0.1/24", api.UNSUPPORTED},
		{a, "10.0.0.1/24", nil},
		{a, "10.0.0.1/24", api.ADDRESS_IN_USE},
		{a, "10.0.0.1/25", api.ADDRESS_IN_USE},
		{a, "10.0.0.2/24", nil},
		{b, "10.0.0.9/24", api.ADDRESS_IN_USE},
		{b, "10.0.0.9/32", api.ADDRESS_IN_USE},
		{b, "10.0.0.9/8", api.ADDRESS_IN_USE},
		{b, "10.0.1.9/24", nil},
		{c, "10.0.0.9/24", nil}, // another table
		{b, "10.9.0.1/0", api.ADDRESS_LENGTH_MISMATCH},
		{a, "2001:db8::1/64", nil},
		{a, "2001:db8::1/64", api.DUPLICATE_IF_ADDRESS},
		{b, "2001:db8::2/64", api.DUPLICATE_IF_ADDRESS},
		{a, "fe80::1/64", api.ADDRESS_LENGTH_MISMATCH},
		{a, "fe80::1/128", nil},
	} {
		if err := r.AddAddress(s.idx, mustPrefix(s.pfx)); err != s.want {
			t.Errorf("%d %s: %v", s.idx, s.pfx, err)
		}
	}
	x := must(r.Interface(a))
	if len(x.Addresses) != 3 || x.LinkLocal != mustAddr("fe80::1") || !x.IP6Enabled {
		t.Errorf("%+v", x)
	}
	if err := r.SetTable(a, false, 5); err != api.ADDRESS_FOUND_FOR_INTERFACE {
		t.Error(err)
	}
	if err := r.SetTable(a, false, 6); err != api.NO_SUCH_FIB {
		t.Error(err)
	}
	for pfx, want := range map[string]error{
		"10.0.0.7/24": api.ADDRESS_NOT_FOUND_FOR_INTERFACE,
		"10.0.0.1/25": api.ADDRESS_NOT_FOUND_FOR_INTERFACE,
		"fe80::1/128": api.ADDRESS_NOT_DELETABLE,
		"fe80::2/128": api.ADDRESS_NOT_FOUND_FOR_INTERFACE,
	} {
		if err := r.DelAddress(a, mustPrefix(pfx)); err != want {
			t.Errorf("%s: %v", pfx, err)
		}
	}
	// IPv6 ends with its last reason.
	r.ok(r.DelAddress(a, mustPrefix("2001:db8::1/64")))
	if x := must(r.Interface(a)); x.IP6Enabled || x.LinkLocal.IsValid() {
		t.Errorf("%+v", x)
	}
	if err := r.EnableIP6(a, false); err != api.IP6_NOT_ENABLED {
		t.Error(err)
	}
	r.ok(r.EnableIP6(a, true))
	if x := must(r.Interface(a)); x.LinkLocal != mustAddr("fe80::ff:fe00:1") {
		t.Errorf("EUI-64 is %v", x.LinkLocal)
	}
	if err := r.EnableIP6(a, true); err != api.VALUE_EXIST {
		t.Error(err)
	}
	r.ok(r.SetLinkLocal(a, mustAddr("fe80::77")))
	if err := r.SetLinkLocal(a, mustAddr("2001:db8::1")); err != api.INVALID_VALUE {
		t.Error(err)
	}
	r.ok(r.EnableIP6(a, false))
	r.ok(r.EnableIP6(a, false))
	if x := must(r.Interface(a)); x.IP6Enabled {
		t.Errorf("%+v", x)
	}
	// Unnumbered.
	if err := r.SetUnnumbered(b, 99, true); err != api.INVALID_SW_IF_INDEX_2 {
		t.Error(err)
	}
	if err := r.SetUnnumbered(99, a, true); err != api.INVALID_SW_IF_INDEX {
		t.Error(err)
	}
	if err := r.SetUnnumbered(c, a, true); err != api.UNEXPECTED_INTF_STATE {
		t.Error(err)
	}
	r.ok(r.SetUnnumbered(b, a, true))
	if x := must(r.Interface(b)); x.Unnumbered != a {
		t.Errorf("%+v", x)
	}
	r.ok(r.DeleteLoopback(a))
	if x := must(r.Interface(b)); x.Unnumbered != NoInterface {
		t.Errorf("%+v", x)
	}
}

// TestMemif moves packets between two planes by the real memif, and follows its link.
func TestMemif(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	for _, mode := range []MemifMode{MemifEthernet, MemifIP} {
		a, b := newRig(t), newRig(t)
		events := make(chan Event, 64)
		a.Subscribe(func(e Event) { events <- e })
		for _, r := range []*rig{a, b} {
			r.ok(r.SetMemifSocket(1, path))
			r.ok(r.SetMemifSocket(1, path))
			if err := r.SetMemifSocket(1, path+"x"); err != api.ENTRY_ALREADY_EXISTS {
				t.Error(err)
			}
		}
		ma := must(a.CreateMemif(MemifConfig{SocketID: 1, ID: 3, Role: MemifMaster, Mode: mode, RingSize: 64, Queues: 2}))
		mb := must(b.CreateMemif(MemifConfig{SocketID: 1, ID: 3, Role: MemifSlave, Mode: mode, RingSize: 64, Queues: 2}))
		x := must(a.Interface(ma))
		if x.Name != "memif1/3" || x.Kind != "memif" || x.Memif.Socket != path || x.Memif.BufferSize != 2048 || x.AdminUp || x.LinkUp {
			t.Errorf("%+v %+v", x, x.Memif)
		}
		a.ok(a.AddAddress(ma, mustPrefix("10.0.0.1/24")))
		b.ok(b.AddAddress(mb, mustPrefix("10.0.0.2/24")))
		a.ok(a.SetAdmin(ma, true))
		b.ok(b.SetAdmin(mb, true))
		for e := range events {
			if e.Interface == ma && e.AdminUp && e.LinkUp {
				break
			}
		}
		eventually(t, "link up", func() bool { return must(b.Interface(mb)).LinkUp })
		res, err := b.Ping(testContext(t), PingRequest{Interface: NoInterface, Dst: mustAddr("10.0.0.1"), Count: 3, Interval: time.Millisecond, Size: 6000}, nil)
		if err != nil || res.Received != 3 {
			t.Errorf("mode %d: %+v %v %v %v", mode, res, err, a.Errors(), b.Errors())
		}
		serve(t, must(a.ListenTCP(0, ap("0.0.0.0:80"))), "A")
		c, err := b.DialTCP(testContext(t), 0, NoInterface, netip.AddrPort{}, ap("10.0.0.1:80"))
		b.ok(err)
		readLine(t, c)
		transfer(t, c, 1<<20)
		for name, err := range map[string]error{
			"used id":    second(a.CreateMemif(MemifConfig{SocketID: 1, ID: 3})),
			"other role": second(a.CreateMemif(MemifConfig{SocketID: 1, ID: 4, Role: MemifSlave})),
		} {
			if err != api.SUBIF_ALREADY_EXISTS {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := a.DeleteMemifSocket(1); err != api.UNEXPECTED_INTF_STATE {
			t.Error(err)
		}
		b.ok(b.DeleteMemif(mb))
		for e := range events {
			if e.Kind == EventInterface && e.Interface == ma && !e.LinkUp {
				break
			}
		}
		a.ok(a.DeleteMemif(ma))
		if e := <-events; e.Kind != EventDeleted || e.Interface != ma {
			t.Errorf("%+v", e)
		}
		a.ok(a.DeleteMemifSocket(1))
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is left")
		}
	}
}

func TestMemifErrors(t *testing.T) {
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := newRig(t)
	r.ok(r.SetMemifSocket(1, filepath.Join(dir, "missing", "s")))
	r.ok(r.SetMemifSocket(2, filepath.Join(dir, "s")))
	for name, tt := range map[string]struct {
		cfg  MemifConfig
		want error
	}{
		"no socket": {MemifConfig{SocketID: 7}, api.INVALID_ARGUMENT},
		"mode":      {MemifConfig{SocketID: 2, Mode: 9}, api.SYSCALL_ERROR_2},
		"ring size": {MemifConfig{SocketID: 2, RingSize: 1000}, api.INVALID_ARGUMENT},
		"secret":    {MemifConfig{SocketID: 2, Secret: "0123456789012345678901234567890"}, api.INVALID_ARGUMENT},
		"no listen": {MemifConfig{SocketID: 1}, api.SYSCALL_ERROR_4},
	} {
		if _, err := r.CreateMemif(tt.cfg); err != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(r.Interfaces()); n != 1 {
		t.Errorf("%d interfaces", n)
	}
	for name, err := range map[string]error{
		"delete 0":       r.DeleteMemifSocket(0),
		"delete unknown": r.DeleteMemifSocket(7),
		"empty":          r.SetMemifSocket(3, ""),
		"no id":          r.SetMemifSocket(NoInterface, "x"),
	} {
		if err != api.INVALID_ARGUMENT {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestClearCounters(t *testing.T) {
	r := twoPorts(t)
	for range 3 {
		r.send(0, ip4("10.1.0.2", "10.2.0.2", protoUDP, 64, udp(1, 2, 3)))
		r.expectIP(1)
	}
	eventually(t, "counted", func() bool { return must(r.Interface(2)).Counters.TxPackets == 3 })
	if err := r.ClearCounters(99); err != api.INVALID_SW_IF_INDEX {
		t.Error(err)
	}
	r.ok(r.ClearCounters(1))
	if a, b := must(r.Interface(1)).Counters, must(r.Interface(2)).Counters; a != (Counters{}) || b.TxPackets != 3 || b.TxUnicast != 3 {
		t.Errorf("%+v %+v", a, b)
	}
	r.ok(r.ClearCounters(NoInterface))
	if b := must(r.Interface(2)).Counters; b != (Counters{}) {
		t.Errorf("%+v", b)
	}
}
