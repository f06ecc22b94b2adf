package plane

import (
	"testing"

	"go.fd.io/govpp/api"
)

// What a table takes for a flow decides whether two packets may go different ways.
func TestFlowHash(t *testing.T) {
	r := newRig(t)
	w := r.begin()
	packet4 := func(src, dst string, sport uint16) []byte { return ip4(src, dst, protoUDP, 64, udp(sport, 9, 1)) }
	labelled := func(label byte) []byte {
		b := ip6("fd00::1", "fd00::2", protoUDP, 64, udp(1, 9, 1))
		b[3] = label
		return b
	}
	const addresses = HashSource | HashDestination
	for _, c := range []struct {
		name string
		what FlowHash
		a, b []byte
		same bool
	}{
		{"ports tell", hashDefault, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.1", "10.0.0.2", 2), false},
		{"ports do not tell", addresses, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.1", "10.0.0.2", 2), true},
		{"sources tell", addresses, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.3", "10.0.0.2", 1), false},
		{"only destinations tell", HashDestination, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.3", "10.0.0.2", 1), true},
		{"labels do not tell", hashDefault, labelled(1), labelled(2), true},
		{"labels tell", hashDefault | HashFlowLabel, labelled(1), labelled(2), false},
		{"ways tell", addresses, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.2", "10.0.0.1", 1), false},
		{"ways do not tell", addresses | HashSymmetric, packet4("10.0.0.1", "10.0.0.2", 1), packet4("10.0.0.2", "10.0.0.1", 1), true},
	} {
		if got := w.flowHash(c.a, c.what) == w.flowHash(c.b, c.what); got != c.same {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	w.finish() // it holds the lock that a change needs
	if err := r.SetFlowHash(7, false, addresses); err != api.NO_SUCH_FIB {
		t.Errorf("a table that is not there: %v", err)
	}
}

// A table's choice is what its packets are spread by.
func TestFlowHashOfTable(t *testing.T) {
	r := newRig(t)
	r.port("10.1.0.1/24")
	var paths []Path
	for k := 1; k <= 2; k++ {
		i := r.port(sprintf("10.2.%d.1/24", k))
		r.near(i, sprintf("10.2.%d.2", k), k)
		paths = append(paths, via(sprintf("10.2.%d.2", k), i))
	}
	r.route("192.0.2.0/24", paths...)
	if n := hopsOf(r, "192.0.2.1", 200); n[1] == 0 || n[2] == 0 {
		t.Errorf("by ports: %v", n)
	}
	r.ok(r.SetFlowHash(0, false, HashSource|HashDestination))
	if n := hopsOf(r, "192.0.2.1", 200); n[1]+n[2] != 200 || n[1]*n[2] != 0 {
		t.Errorf("by addresses: %v", n)
	}
}
