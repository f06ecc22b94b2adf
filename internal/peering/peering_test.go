package peering

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update writes it anew): got\n%s\nwant\n%s", name, got, want)
	}
}

const (
	keyA = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	keyB = "86n1OEwpGuq85BVwzbKw9WagYIlmzwJ7RLbsP4y9vg0="
)

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

// node is one with everything that init asks for.
func node() *Node {
	return &Node{
		Name: "router1", AS: 4242420207, KeyFile: "router1.key", PublicKey: keyA, ROA: DefaultROA,
		Prefixes:    []netip.Prefix{netip.MustParsePrefix("172.20.1.0/27"), netip.MustParsePrefix("fd42:1::/48")},
		Peer:        Side{Name: "alice", AS: 4242420001, PublicKey: keyB, Endpoint: "peer.example.net:20207"},
		PeerAddress: a("fe80::ade0"),
	}
}

func TestNode(t *testing.T) {
	n := node()
	if err := n.Complete(); err != nil {
		t.Fatal(err)
	}
	golden(t, "node.yaml", n.Config())
	least := &Node{
		Name: "true", AS: 4242420000, KeyFile: "true.key", PublicKey: keyA, Prefixes: []netip.Prefix{netip.MustParsePrefix("fd42:2::/48")},
		Peer: Side{AS: 4201270003, PublicKey: keyB}, PeerAddress: a("fe80::3"),
	}
	if err := least.Complete(); err != nil {
		t.Fatal(err)
	}
	golden(t, "node-least.yaml", least.Config())
}

func TestCompleteRefuses(t *testing.T) {
	for want, change := range map[string]func(*Node){
		"link-local address of both sides": func(n *Node) { n.PeerAddress = a("fe80::207") },
		"in none of the prefixes":          func(n *Node) { n.Addresses = []netip.Addr{a("172.20.9.1")} },
		"our own AS number":                func(n *Node) { n.Peer.AS = n.AS },
		"public key is our own":            func(n *Node) { n.Peer.PublicKey = n.PublicKey },
	} {
		n := node()
		change(n)
		if err := n.Complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// many is a peering of every kind, by name.
func many() map[string]Peering {
	n := node()
	if err := n.Complete(); err != nil {
		panic(err)
	}
	plain := n.Peering()
	plain.Us.Endpoint = "router1.example.net:20001"
	dn42 := n.Peering()
	dn42.Sessions[0].Link = Link{Latency: 3, Bandwidth: 24, Crypto: 35}
	plain.Sessions[0].Policy = AllPolicy
	two := Peering{
		Interface: "tun12", Neighbors: []string{"spine", "spine-v6"}, MTU: 1360, Keepalive: 30 * time.Second,
		Us:   Side{Name: "r-1.x", AS: 65001, PublicKey: keyA, KeyFile: "r1.key", PSKFile: "r1.psk", Port: 51820},
		Them: Side{Name: "spine", AS: 65002, PublicKey: keyB, KeyFile: "spine.key", PSKFile: "spine.psk", Endpoint: "[2001:db8::1]:51821", Port: 51821},
		Sessions: []Session{
			{Ours: a("169.254.12.1"), Theirs: a("169.254.12.2"), Bits: 30, Families: []string{"ipv4"}, Policy: AllPolicy},
			{Ours: a("fe80::1"), Theirs: a("fe80::2"), Bits: 64, Families: []string{"ipv6"}, Policy: DN42Policy},
		},
	}
	borrowed := Peering{
		Interface: "wg0", Neighbors: []string{"bob"}, MTU: 1420,
		Us:       Side{Name: "router1", AS: 65001, PublicKey: keyA, KeyFile: "a.key", Endpoint: "203.0.113.1:4000", Port: 4000},
		Them:     Side{Name: "bob", AS: 65001, PublicKey: keyB, KeyFile: "bob.key", Loopback: "dum0"},
		Sessions: []Session{{Ours: a("172.20.1.1"), Theirs: a("172.20.2.1"), Families: []string{"ipv4"}, Policy: AllPolicy}},
	}
	return map[string]Peering{"plain": plain, "dn42": dn42, "two": two, "borrowed": borrowed}
}

func TestBlocks(t *testing.T) {
	for name, p := range many() {
		var b strings.Builder
		theirs := p.Reverse()
		for _, part := range append(theirs.RLR(), theirs.BIRD()...) {
			fmt.Fprintf(&b, "--- %s\n%s", part.Into, part.Text)
		}
		golden(t, name+".txt", b.String())
	}
}

// Twice the other side is our own, except for our own names.
func TestReverse(t *testing.T) {
	for name, p := range many() {
		twice := p.Reverse().Reverse()
		if name == "plain" && (p.Reverse().Interface != "router1" || p.Reverse().Us.Port != 0) {
			t.Errorf("%+v", p.Reverse())
		}
		twice.Interface, twice.Neighbors = p.Interface, p.Neighbors
		if !reflect.DeepEqual(twice, p) {
			t.Errorf("%s: %+v, want %+v", name, twice, p)
		}
	}
}

// BIRD 2 accepts the block, beside nothing but a router id.
func TestBIRDAccepts(t *testing.T) {
	program := os.Getenv("RLR_BIRD")
	if program == "" {
		var err error
		if program, err = exec.LookPath("bird"); err != nil {
			t.Skip("no bird here")
		}
	}
	for name, p := range many() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bird.conf")
			parts := p.Reverse().BIRD()
			text := "router id 10.0.0.1;\nprotocol device {}\n" + parts[1].Text
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(program, "-p", "-c", file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, text)
			}
			// and does not accept just anything
			if err := os.WriteFile(file, []byte(strings.Replace(text, "neighbor", "neighbour", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if exec.Command(program, "-p", "-c", file).Run() == nil {
				t.Error("bird -p accepts a mistake")
			}
		})
	}
}

func TestNameFor(t *testing.T) {
	for router, want := range map[string]string{
		"router1": "router1", "a-name-of-fifteen": "as64512", "static": "as64512", "dum0": "as64512", "bad name": "as64512",
	} {
		if got := NameFor(router, 64512); got != want {
			t.Errorf("%s: %s", router, got)
		}
	}
}
