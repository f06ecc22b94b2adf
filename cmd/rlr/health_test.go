package main

import (
	"strings"
	"testing"
	"time"

	"rlr/fib"
)

func TestAlive(t *testing.T) {
	for _, tc := range []struct {
		name   string
		v      vitals
		ok     bool
		detail string
	}{
		{"connected", vitals{connected: true, since: time.Hour}, true, "connected"},
		{"restarting", vitals{since: 4300 * time.Millisecond}, true, "away for 4s, restarting"},
		{"at the limit", vitals{since: dataplaneLimit}, false, "away for 1m30s, which is longer than a restart takes"},
	} {
		if c := alive(tc.v); c.OK != tc.ok || c.Detail != tc.detail || c.Name != "dataplane" {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
}

// A life of a router, as /readyz sees it.
func TestReady(t *testing.T) {
	var h health
	full := fib.Status{Synced: true, Complete: true, Routes: 100}
	for _, s := range []struct {
		name   string
		v      vitals
		failed string // the checks that fail, and what they say
	}{
		{"no dataplane yet", vitals{bgp: true, neighbors: 2}, "dataplane: away; routes: the dataplane is away; bgp: 0 of 2 sessions Established, first routes awaited"},
		{"connected", vitals{connected: true, life: 1, bgp: true}, "routes: the dataplane's routes have not been read; bgp: "},
		{"all routes wait", vitals{connected: true, life: 1, fib: fib.Status{Synced: true, Routes: 100, Unsettled: 100}, bgp: true}, "routes: 100 of 100 wait; bgp: "},
		{"written", vitals{connected: true, life: 1, fib: fib.Status{Synced: true, Routes: 100, Unsettled: 5}, bgp: true}, "bgp: "},
		{"no BGP at all", vitals{connected: true, life: 1, fib: fib.Status{Synced: true, Routes: 100}}, ""},
		{"first routes", vitals{connected: true, life: 1, fib: full, bgp: true}, ""},
		{"an audit reads, neighbours are busy", vitals{connected: true, life: 1, fib: fib.Status{Complete: true, Routes: 100, Unsettled: 90}, bgp: true}, ""},
		{"VPP died", vitals{life: 1, fib: full, bgp: true}, "dataplane: away; routes: the dataplane is away"},
		{"a new VPP", vitals{connected: true, life: 2, fib: fib.Status{Complete: true, Routes: 100, Unsettled: 100}, bgp: true}, "routes: the dataplane's routes"},
		{"its own routes", vitals{connected: true, life: 2, fib: full, bgp: true, neighbors: 2, deferral: time.Minute}, "bgp: 0 of 2"},
		{"and a session", vitals{connected: true, life: 2, fib: full, bgp: true, sessions: 1, neighbors: 2, deferral: time.Minute}, ""},
		{"or no session for long", vitals{connected: true, life: 2, fib: full, bgp: true, neighbors: 2, since: time.Minute, deferral: time.Minute}, ""},
	} {
		expectFailed(t, s.name, &h, s.v, s.failed)
	}
	h.stop()
	expectFailed(t, "stopping", &h, vitals{connected: true, life: 2, fib: full, bgp: true}, "router: stopping")
}

func expectFailed(t *testing.T, name string, h *health, v vitals, want string) {
	t.Helper()
	var wants []string
	if want != "" {
		wants = strings.Split(want, "; ")
	}
	var got []string
	for _, c := range h.ready(v) {
		if !c.OK {
			got = append(got, c.Name+": "+c.Detail)
		}
	}
	ok := len(got) == len(wants)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.HasPrefix(got[i], wants[i])
	}
	if !ok {
		t.Errorf("%s: %q, want %q", name, got, wants)
	}
}
