package vppagent_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"

	vppfib "go.fd.io/govpp/binapi/fib"
	"go.fd.io/govpp/binapi/fib_types"
	"go.fd.io/govpp/binapi/ip"

	"rlr/binapi"
	"rlr/fib"
	"rlr/minivpp/dataplanetest"
	"rlr/vppagent"
)

// meddler is another client of the dataplane that writes routes under our name, as nothing but the binary API can: VPP's
// command line has a source of its own.
type meddler struct {
	t      *testing.T
	ctx    context.Context
	ip     ip.RPCService
	source uint8
}

func newMeddler(t *testing.T, socket, name string) *meddler {
	t.Helper()
	conn := alien(t, socket)
	m := &meddler{t: t, ctx: within(t), ip: ip.NewServiceClient(conn)}
	dump, err := vppfib.NewServiceClient(conn).FibSourceDump(m.ctx, &vppfib.FibSourceDump{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		d, err := dump.Recv()
		if err != nil {
			break
		}
		if d.Src.Name == name {
			m.source = d.Src.ID
		}
	}
	if m.source == 0 {
		t.Fatalf("no FIB source %q", name)
	}
	return m
}

func (m *meddler) route(add bool, prefix string) {
	m.t.Helper()
	p := netip.MustParsePrefix(prefix)
	_, err := m.ip.IPRouteAddDelV2(m.ctx, &ip.IPRouteAddDelV2{IsAdd: add, Route: ip.IPRouteV2{
		Prefix: binapi.ToPrefix(p), Src: m.source, NPaths: 1, Paths: []fib_types.FibPath{
			binapi.ToPath(binapi.Path{Type: fib_types.FIB_API_PATH_TYPE_DROP, SwIfIndex: ^uint32(0)}, p.Addr()),
		},
	}})
	if err != nil {
		m.t.Fatal(err)
	}
}

// audited audits, and waits until what that found is repaired.
func (s *following) audited(t *testing.T) fib.Status {
	t.Helper()
	before := s.Status().Audits
	s.Audit()
	eventually(t, "an audit", func() bool { return s.Status().Audits > before })
	s.wait(t, s.Revision())
	return s.Status()
}

func stateOf(t *testing.T, s *following, prefix string) fib.Entry {
	t.Helper()
	e, ok := s.Get(fib.Key{Prefix: netip.MustParsePrefix(prefix)})
	if !ok {
		t.Fatalf("no entry for %s", prefix)
	}
	return e
}

// TestDriftIsRepaired has others delete, replace, add and hide our routes.
func TestDriftIsRepaired(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		configured(t, a)
		s := syncer(t, a)
		tunnel := hop("169.254.12.2", "tun12", 1)
		routes := []fib.Route{
			unicast(0, "10.2.0.0/24", tunnel), unicast(0, "10.3.0.0/24", hop("169.254.12.2", "tun12", 3), hop("fe80::2", "tun13", 1)),
			unicast(0, "10.4.0.0/24", hop("10.2.0.9", "", 1)), unicast(0, "10.5.0.0/24", hop("", "tun13", 1)),
			unicast(0, "fd42:2::/48", hop("fe80::2", "tun12", 1)), unicast(10, "10.2.0.0/24", hop("10.1.0.9", "eth1", 1)),
			unicast(0, "0.0.0.0/0", tunnel), blackhole("10.7.0.0/16"),
		}
		s.feed.Update(routes...)
		s.wait(t, s.feed.Complete())
		written := s.Status().Written
		if st := s.audited(t); st.Drift.Count() != 0 || st.Written != written {
			t.Fatalf("an audit of an untouched dataplane: %+v", st)
		}
		wantHeld(t, a, routes...)

		m := newMeddler(t, d.APISocket, "rlr/router1")
		m.route(false, "10.2.0.0/24")
		m.route(true, "10.3.0.0/24")
		m.route(true, "10.99.0.0/24")
		st := s.audited(t)
		if dr := st.Drift; dr.Missing != 1 || dr.Changed != 1 || dr.Extra != 1 || len(dr.First) != 3 || dr.First[0].Prefix.String() != "10.2.0.0/24" {
			t.Errorf("drift %+v", dr)
		}
		wantHeld(t, a, routes...)

		// A better route of the command line's hides ours, whatever it does to it; without it, ours is there again.
		cli := func(line string) {
			t.Helper()
			if _, err := a.CLI(within(t), line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		cli("ip route add 10.2.0.0/24 via 169.254.12.2 " + dataplaneName(t, a, "tun12"))
		s.audited(t)
		if e := stateOf(t, s, "10.2.0.0/24"); e.State != fib.Shadowed {
			t.Errorf("behind the command line's route: %v", e.State)
		}
		cli("ip route del 10.2.0.0/24 via 169.254.12.2 " + dataplaneName(t, a, "tun12"))
		s.audited(t)
		if e := stateOf(t, s, "10.2.0.0/24"); e.State != fib.Installed {
			t.Errorf("after the command line's route: %v", e.State)
		}
		if got := s.Status(); got.Drift.Count() != 3 {
			t.Errorf("what another source has is no drift: %+v", got.Drift)
		}
		wantHeld(t, a, routes...)
	})
}

func dataplaneName(t *testing.T, a *vppagent.Agent, name string) string {
	t.Helper()
	i, ok := statuses(t, a)[name]
	if !ok {
		t.Fatalf("no interface %s", name)
	}
	return i.DataplaneName
}

// TestDecoupledOnADataplane: nothing is written, whatever happens; then everything is.
func TestDecoupledOnADataplane(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		a := start(t, d, site(d.Dir))
		configured(t, a)
		s := syncer(t, a)
		tunnel := hop("169.254.12.2", "tun12", 1)
		kept, gone, fresh := unicast(0, "10.2.0.0/24", tunnel), unicast(0, "10.3.0.0/24", tunnel), unicast(0, "10.4.0.0/24", tunnel)
		s.feed.Update(kept, gone)
		s.wait(t, s.feed.Complete())
		if err := s.Decouple(within(t)); err != nil {
			t.Fatal(err)
		}
		s.feed.Update(fresh)
		s.wait(t, s.feed.Withdraw(gone.Key))
		newMeddler(t, d.APISocket, "rlr/router1").route(false, "10.2.0.0/24")
		if st := s.audited(t); st.Drift.Missing != 1 {
			t.Errorf("drift %+v", st.Drift)
		}
		wantHeld(t, a, gone)
		c, err := s.Couple(within(t))
		if err != nil || c.Missing != 2 || c.Extra != 1 || c.Repaired != 3 {
			t.Errorf("couple: %+v, %v", c, err)
		}
		wantHeld(t, a, kept, fresh)
	})
}

// TestLearnedRoutes has routes of others come, go, and stand where ours would be.
func TestLearnedRoutes(t *testing.T) {
	dataplanetest.Each(t, func(t *testing.T, d *dataplanetest.Dataplane) {
		cfg := site(d.Dir)
		cfg.Learn = true
		a := start(t, d, cfg)
		configured(t, a)
		s := syncer(t, a)
		s.wait(t, s.feed.Complete())
		learned := func() []string {
			s.audited(t)
			var out []string
			for _, r := range s.Learned() {
				out = append(out, r.Key.String())
			}
			slices.Sort(out)
			return out
		}
		want := func(when string, list ...string) {
			t.Helper()
			if got := learned(); !slices.Equal(got, list) {
				t.Errorf("%s: learned %v, want %v", when, got, list)
			}
		}
		want("interfaces, neighbours and the dataplane's own entries")
		cli := func(line string) {
			t.Helper()
			if _, err := a.CLI(within(t), line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		tun := dataplaneName(t, a, "tun12")
		cli("ip route add 198.51.100.0/24 via 169.254.12.2 " + tun)
		cli("ip route add 203.0.113.0/24 via drop")
		cli("ip route add 2001:db8:9::/48 via fe80::2 " + tun)
		want("the command line's routes", "198.51.100.0/24", "2001:db8:9::/48", "203.0.113.0/24")
		e := stateOf(t, s, "198.51.100.0/24")
		if theirs := unicast(0, "198.51.100.0/24", hop("169.254.12.2", "tun12", 1)); e.State != fib.Installed || !e.Best.Equal(theirs) {
			t.Errorf("learned %+v, want %+v", e, theirs)
		}
		if e := stateOf(t, s, "203.0.113.0/24"); e.Best.Kind != fib.Blackhole {
			t.Errorf("learned %+v, want a blackhole", e)
		}
		// Ours beside theirs: theirs is the better one, and stays when ours goes.
		s.wait(t, s.feed.Update(blackhole("198.51.100.0/24")))
		s.audited(t)
		if e := stateOf(t, s, "198.51.100.0/24"); e.State != fib.Shadowed || len(e.Candidates) != 2 || e.Candidates[1].Feed != "learned" {
			t.Errorf("ours behind theirs: %+v", e)
		}
		s.wait(t, s.feed.Withdraw(fib.Key{Prefix: netip.MustParsePrefix("198.51.100.0/24")}))
		want("after ours", "198.51.100.0/24", "2001:db8:9::/48", "203.0.113.0/24")
		entries, err := a.FIB(within(t), vppagent.FIBFilter{Prefix: netip.MustParsePrefix("198.51.100.0/24")})
		if err != nil || len(entries) != 1 || entries[0].Source != "CLI" {
			t.Errorf("the dataplane holds %+v, %v", entries, err)
		}
		cli("ip route del 198.51.100.0/24 via 169.254.12.2 " + tun)
		cli("ip route del 203.0.113.0/24 via drop")
		want("without some of them", "2001:db8:9::/48")
		if st := s.Status(); st.Drift.Count() != 0 || st.Routes != 1+len(a.Connected()) {
			t.Errorf("at the end: %+v; %v", st, slices.Collect(maps.Keys(st.States)))
		}
		cfg.Learn = false
		a.SetConfig(cfg)
		want("without learning")
	})
}
