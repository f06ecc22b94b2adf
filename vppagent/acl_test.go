package vppagent_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.fd.io/govpp/binapi/acl"
	"go.fd.io/govpp/binapi/acl_types"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/core"

	"rlr/binapi"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

var anyPort = vppagent.ACLRange{Last: 65535}

// denyPort is no8080 of the documentation for another port.
func denyPort(port uint16) vppagent.ACL {
	return vppagent.ACL{Name: "no8080", Rules: []vppagent.ACLRule{
		{IP4: true, IP6: true, Protocol: 6, First: anyPort, Second: vppagent.ACLRange{First: port, Last: port}},
		{Action: vppagent.ACLPermit, IP4: true, IP6: true},
	}}
}

// filtered is a site with ACLs.
func filtered(dir string, acls ...vppagent.ACL) vppagent.Config {
	cfg := site(dir)
	cfg.ACLs = acls
	return cfg
}

// dumpACLs returns the dataplane's, by index: the tag, and the rules as text.
func dumpACLs(t *testing.T, conn *core.Connection) map[uint32]string {
	t.Helper()
	r, err := acl.NewServiceClient(conn).ACLDump(within(t), &acl.ACLDump{ACLIndex: ^uint32(0)})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[uint32]string)
	for {
		d, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString(d.Tag)
		for _, r := range d.R {
			fmt.Fprintf(&b, " | %d %v>%v proto %d %d-%d %d-%d flags %x/%x", r.IsPermit, binapi.FromPrefix(r.SrcPrefix), binapi.FromPrefix(r.DstPrefix),
				r.Proto, r.SrcportOrIcmptypeFirst, r.SrcportOrIcmptypeLast, r.DstportOrIcmpcodeFirst, r.DstportOrIcmpcodeLast, r.TCPFlagsValue, r.TCPFlagsMask)
		}
		found[d.ACLIndex] = b.String()
	}
}

// applied returns an interface's ACLs, those for output after a bar.
func applied(t *testing.T, conn *core.Connection, index uint32) string {
	t.Helper()
	r, err := acl.NewServiceClient(conn).ACLInterfaceListDump(within(t), &acl.ACLInterfaceListDump{SwIfIndex: interface_types.InterfaceIndex(index)})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for {
		d, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return text
		}
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprint(d.Acls[:d.NInput], "|", d.Acls[d.NInput:])
	}
}

// TestACLs follows ACLs of ours beside one of somebody else's: made, replaced where they are, taken over by the next life of the
// router, put right, and removed.
func TestACLs(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		conn := alien(t, d.APISocket)
		theirs, err := acl.NewServiceClient(conn).ACLAddReplace(within(t), &acl.ACLAddReplace{ACLIndex: ^uint32(0), Tag: "theirs", Count: 1, R: []acl_types.ACLRule{{
			IsPermit: 1, SrcPrefix: binapi.ToPrefix(netip.MustParsePrefix("192.0.2.0/24")), DstPrefix: binapi.ToPrefix(netip.MustParsePrefix("0.0.0.0/0")),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		alone := dumpACLs(t, conn)

		lan := vppagent.ACL{Name: "lan", Rules: []vppagent.ACLRule{
			{Action: vppagent.ACLReflect, IP4: true, Protocol: 1, Source: netip.MustParsePrefix("10.1.0.0/24"), First: vppagent.ACLRange{First: 8, Last: 8}, Second: vppagent.ACLRange{Last: 255}},
			{Action: vppagent.ACLPermit, IP6: true, Protocol: 6, Destination: netip.MustParsePrefix("fd42::/16"), First: anyPort, Second: anyPort, TCPMask: 0x12, TCPValue: 0x02},
		}}
		cfg := filtered(d.Dir, denyPort(8080), lan)
		cfg.Interfaces[0].ACLIn, cfg.Interfaces[0].ACLOut = []string{"lan", "no8080"}, []string{"no8080"}
		a, stop := runAgent(t, d.APISocket, d.StatsSocket, cfg)
		tun12 := configured(t, a)["tun12"].SwIfIndex
		first, second := uint32(1), uint32(2) // VPP's pools count up
		want := map[uint32]string{
			theirs.ACLIndex: alone[theirs.ACLIndex],
			first: "rlr/router1/no8080 | 0 0.0.0.0/0>0.0.0.0/0 proto 6 0-65535 8080-8080 flags 0/0 | 0 ::/0>::/0 proto 6 0-65535 8080-8080 flags 0/0" +
				" | 1 0.0.0.0/0>0.0.0.0/0 proto 0 0-0 0-0 flags 0/0 | 1 ::/0>::/0 proto 0 0-0 0-0 flags 0/0",
			second: "rlr/router1/lan | 2 10.1.0.0/24>0.0.0.0/0 proto 1 8-8 0-255 flags 0/0 | 1 ::/0>fd42::/16 proto 6 0-65535 0-65535 flags 2/12",
		}
		check := func(what, list string) {
			t.Helper()
			if got := dumpACLs(t, conn); !mapsEqual(got, want) {
				t.Errorf("%s: ACLs\n%v, want\n%v", what, got, want)
			}
			if got := applied(t, conn, tun12); got != list {
				t.Errorf("%s: tun12 applies %s, want %s", what, got, list)
			}
		}
		both := fmt.Sprint([]uint32{second, first}, "|", []uint32{first})
		check("made", both)
		status, err := a.ACLs(within(t))
		if err != nil || len(status) != 2 || status[0].State != vppagent.Configured || !slices.Equal(status[0].In, []string{"tun12"}) ||
			!slices.Equal(status[0].Out, []string{"tun12"}) || len(status[0].Rules) != 2 || len(status[1].Rules) != 2 || status[1].Out != nil {
			t.Errorf("ACLs: %+v, %v", status, err)
		}

		cfg = filtered(d.Dir, denyPort(8081), lan)
		cfg.Interfaces[0].ACLIn, cfg.Interfaces[0].ACLOut = []string{"lan", "no8080"}, []string{"no8080"}
		a.SetConfig(cfg)
		configured(t, a)
		want[first] = strings.ReplaceAll(want[first], "8080-8080", "8081-8081")
		check("replaced", both)

		stop()
		a, stop = runAgent(t, d.APISocket, d.StatsSocket, cfg)
		configured(t, a)
		check("taken over", both)

		// Somebody takes the list of our interface away: the next look finds it. And an ACL of ours twice: one goes.
		_, err = acl.NewServiceClient(conn).ACLInterfaceSetACLList(within(t), &acl.ACLInterfaceSetACLList{SwIfIndex: interface_types.InterfaceIndex(tun12)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = acl.NewServiceClient(conn).ACLAddReplace(within(t), &acl.ACLAddReplace{ACLIndex: ^uint32(0), Tag: "rlr/router1/lan"}); err != nil {
			t.Fatal(err)
		}
		a.SetConfig(cfg)
		configured(t, a)
		check("put right", both)

		cfg = filtered(d.Dir, lan)
		a.SetConfig(cfg)
		configured(t, a)
		delete(want, first)
		check("not applied any more", "[]|[]")

		cfg.Interfaces[0].ACLOut = []string{"lan", "nosuch"}
		a.SetConfig(cfg)
		eventually(t, "the interface fails", func() bool { return statuses(t, a)["tun12"].State == vppagent.Failed })

		a.SetConfig(filtered(d.Dir))
		configured(t, a)
		delete(want, second)
		check("removed", "[]|[]")
		stop()
	})
}

func mapsEqual(a, b map[uint32]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// TestACLsOfNewDataplane replaces the dataplane under a running router: the ACLs are in the new one.
func TestACLsOfNewDataplane(t *testing.T) {
	for _, kind := range []dataplanetest.Kind{dataplanetest.Embedded, dataplanetest.VPP} {
		t.Run(string(kind), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "r")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "api.sock")
			cfg := filtered(dir, denyPort(8080))
			cfg.Interfaces[0].ACLIn = []string{"no8080"}
			var a *vppagent.Agent
			for life := range 2 {
				t.Run(fmt.Sprint("life", life), func(t2 *testing.T) {
					d := dataplanetest.Start(t2, kind)
					_ = os.Remove(socket)
					if err := os.Symlink(d.APISocket, socket); err != nil {
						t2.Fatal(err)
					}
					if a == nil {
						a, _ = runAgent(t, socket, "", cfg)
					}
					configured(t2, a)
					status, err := a.ACLs(within(t2))
					if err != nil || len(status) != 1 || status[0].State != vppagent.Configured || !slices.Equal(status[0].In, []string{"tun12"}) {
						t2.Errorf("%+v, %v", status, err)
					}
				})
				if t.Failed() || a == nil {
					return // no VPP, for instance
				}
				eventually(t, "the end is noticed", func() bool { return !a.Status().Connected })
				if st, err := a.ACLs(within(t)); err != nil || len(st) != 1 || st[0].State != vppagent.Pending || st[0].Err == nil {
					t.Errorf("without a dataplane: %+v, %v", st, err)
				}
			}
		})
	}
}
