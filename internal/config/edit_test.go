package config

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func editNeighbor(t *testing.T, name string, settings ...Setting) Edit {
	t.Helper()
	e, err := AddNeighbor(name, settings)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func editGroup(t *testing.T, name string, settings ...Setting) Edit {
	t.Helper()
	e, err := AddGroup(name, settings)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// alice needs no more of a configuration than an AS number and an address.
func alice(t *testing.T) Edit {
	return editNeighbor(t, "alice",
		Setting{"address", "192.0.2.9"}, Setting{"as", 65009}, Setting{"multihop", true}, Setting{"families", []string{"ipv4", "ipv6"}})
}

const aliceText = "{name: alice, address: 192.0.2.9, as: 65009, multihop: true, families: [ipv4, ipv6]}"

const editHead = "router: {name: r, id: 10.0.0.1, as: 65001}\ninterfaces: {lo: {loopback: true, addresses: [10.0.0.1/32, \"fd00::1/128\"]}}\n"

// An edit changes the lines that it is about, and no other byte.
func TestEdit(t *testing.T) {
	blackhole := AddStatic(Static{Prefix: netip.MustParsePrefix("fd42::/48"), Action: Blackhole})
	via := AddStatic(Static{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Action: Forward, Via: []NextHop{
		{Address: netip.MustParseAddr("10.0.0.7"), Weight: 2}, {Address: netip.MustParseAddr("fd00::7"), Weight: 1},
	}})
	bob := "{name: bob, address: 192.0.2.2, as: 65002, multihop: true}"
	for _, c := range []struct {
		name          string
		edit          Edit
		before, after string
	}{
		{"no section", alice(t), "log: {level: debug} # loud\n\n# the end\n", "log: {level: debug} # loud\nbgp:\n  neighbors:\n    - " + aliceText + "\n\n# the end\n"},
		{"empty section", alice(t), "bgp: # soon\n  # neighbors:\n", "bgp: # soon\n  neighbors:\n    - " + aliceText + "\n  # neighbors:\n"},
		{"no list", alice(t), "bgp:\n    multipath: 2 # ways\n\nlog: {}\n", "bgp:\n    multipath: 2 # ways\n    neighbors:\n      - " + aliceText + "\n\nlog: {}\n"},
		{"a section in braces", alice(t), "bgp: {multipath: 2} # ways\n", "bgp: {neighbors: [" + aliceText + "], multipath: 2} # ways\n"},
		{"an empty one", alice(t), "bgp: {}\n", "bgp: {neighbors: [" + aliceText + "]}\n"},
		{"empty list", alice(t), "bgp:\n  neighbors:\n  deferral: 9s\n", "bgp:\n  neighbors:\n    - " + aliceText + "\n  deferral: 9s\n"},
		{"brackets", alice(t), "bgp: {neighbors: [ " + bob + " ]}\n", "bgp: {neighbors: [" + aliceText + ",  " + bob + " ]}\n"},
		{"empty brackets", alice(t), "bgp:\n  neighbors: [ ]", "bgp:\n  neighbors: [" + aliceText + " ]"},
		{"a list", alice(t), "bgp:\n  neighbors:\n    # Bob\n    - " + bob + " # of Berlin\n    # - old\n\n  deferral: 9s\n", "bgp:\n  neighbors:\n    # Bob\n    - " + bob + " # of Berlin\n    - " + aliceText + "\n    # - old\n\n  deferral: 9s\n"},
		{"a list not further in", alice(t), "bgp:\n  neighbors:\n  - name: bob\n    address: 192.0.2.2\n\n    as: 65002\n    multihop: true\n  deferral: 9s\n", "bgp:\n  neighbors:\n  - name: bob\n    address: 192.0.2.2\n\n    as: 65002\n    multihop: true\n  - " + aliceText + "\n  deferral: 9s\n"},
		{"braces over lines", alice(t), "bgp:\n  neighbors:\n    - {name: bob, address: 192.0.2.2,\n       as: 65002, multihop: true\n       }\n", "bgp:\n  neighbors:\n    - {name: bob, address: 192.0.2.2,\n       as: 65002, multihop: true\n       }\n    - " + aliceText + "\n"},
		{"no last newline", alice(t), "bgp:\n  neighbors:\n    - " + bob, "bgp:\n  neighbors:\n    - " + bob + "\n    - " + aliceText + "\n"},
		{"CRLF", alice(t), "bgp:\r\n  multipath: 2\r\n", "bgp:\r\n  multipath: 2\r\n  neighbors:\r\n    - " + aliceText + "\r\n"},
		{"a static route", blackhole, "static:\n- {prefix: 10.8.0.0/16, blackhole: true}\n", "static:\n- {prefix: 10.8.0.0/16, blackhole: true}\n- {prefix: 'fd42::/48', blackhole: true}\n"},
		{"with next hops", via, "", "static:\n  - {prefix: 10.9.0.0/16, via: [{address: 10.0.0.7, weight: 2}, {address: 'fd00::7'}]}\n"},
		{"a dollar sign", editNeighbor(t, "d", Setting{"description", "5 $"}, Setting{"address", "192.0.2.3"}, Setting{"as", "internal"}), "", "bgp:\n  neighbors:\n    - {name: d, description: 5 $$, address: 192.0.2.3, as: internal}\n"},

		{"a group", editGroup(t, "g", Setting{"hold-time", "30s"}), "bgp:\n  multipath: 2\n", "bgp:\n  multipath: 2\n  groups:\n    g: {hold-time: 30s}\n"},
		{"one more", editGroup(t, "g", Setting{"import", "all"}), "bgp:\n  groups:\n    f:\n      passive: true\n    # h: {}\n  deferral: 9s\n", "bgp:\n  groups:\n    f:\n      passive: true\n    g: {import: all}\n    # h: {}\n  deferral: 9s\n"},
		{"in braces", editGroup(t, "g"), "bgp: {groups: {f: {}}}\n", "bgp: {groups: {g: {}, f: {}}}\n"},
		{"without the groups", editGroup(t, "g"), "bgp: {multipath: 2}\n", "bgp: {groups: {g: {}}, multipath: 2}\n"},
		{"a changed one", editGroup(t, "g", Setting{"hold-time", "9s"}).Instead(), "bgp:\n  groups:\n    g: # ours\n      hold-time: 30s\n    h: {}\n  neighbors:\n    - {name: bob, address: 192.0.2.2, as: 65002, multihop: true, group: g}\n", "bgp:\n  groups:\n    h: {}\n    g: {hold-time: 9s}\n  neighbors:\n    - {name: bob, address: 192.0.2.2, as: 65002, multihop: true, group: g}\n"},
		{"none of it", DeleteGroup("g"), "bgp: {groups: {f: {}, g: {passive: true}}}\n", "bgp: {groups: {f: {}}}\n"},
		{"the first of them", DeleteGroup("f"), "bgp: {groups: {f: {}, g: {passive: true}}}\n", "bgp: {groups: {g: {passive: true}}}\n"},
		{"a dynamic entry", AddDynamic("10.4.0.0/16", "g"), "bgp:\n  groups: {g: {as: 65002}}\n", "bgp:\n  groups: {g: {as: 65002}}\n  dynamic:\n    - {prefix: 10.4.0.0/16, group: g}\n"},
		{"none any more", DeleteDynamic("10.4.0.0/16"), "bgp:\n  groups: {g: {as: 65002}}\n  dynamic:\n  - prefix: 10.4.0.0/16\n    group: g\n", "bgp:\n  groups: {g: {as: 65002}}\n  dynamic:\n"},

		{"delete the first", DeleteNeighbor("bob"), "bgp:\n  neighbors:\n    # Bob\n    - " + bob + "\n\n    # Alice\n    - " + aliceText + "\n", "bgp:\n  neighbors:\n    # Bob\n\n    # Alice\n    - " + aliceText + "\n"},
		{"delete the last", DeleteNeighbor("alice"), "bgp:\n  neighbors:\n    - " + bob + "\n    -\n      name: alice\n      address: 192.0.2.9\n      # one more\n      as: 65009\n      multihop: true\n    # the end\n  deferral: 9s\n", "bgp:\n  neighbors:\n    - " + bob + "\n    # the end\n  deferral: 9s\n"},
		{"delete the only one", DeleteNeighbor("bob"), "bgp:\n  neighbors:\n    - " + bob + "\nlog: {}\n", "bgp:\n  neighbors:\nlog: {}\n"},
		{"delete in brackets", DeleteNeighbor("bob"), "bgp: {neighbors: [" + bob + ", " + aliceText + "]}\n", "bgp: {neighbors: [" + aliceText + "]}\n"},
		{"the last of them", DeleteNeighbor("alice"), "bgp: {neighbors: [" + bob + ", " + aliceText + "]}\n", "bgp: {neighbors: [" + bob + "]}\n"},
		{"the only one of them", DeleteNeighbor("bob"), "bgp: {neighbors: [" + bob + "]}\n", "bgp: {neighbors: []}\n"},
		{"quotes", DeleteNeighbor("q"), "bgp: {neighbors: [{name: q, description: \"}]\", address: 192.0.2.2, as: 65002, multihop: true}]}\n", "bgp: {neighbors: []}\n"},
		{"a prefix written otherwise", DeleteStatic("fd42::/48"), "static:\n  - {prefix: \"FD42:0::/48\", blackhole: true}\n", "static:\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			head := editHead
			if strings.Contains(c.before, "\r") {
				head = strings.ReplaceAll(head, "\n", "\r\n")
			}
			out, _, err := c.edit.Revise("r.yaml", []byte(head+c.before))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(out), head+c.after; strings.ReplaceAll(got, `"`, `'`) != strings.ReplaceAll(want, `"`, `'`) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A neighbour that is changed keeps what is not changed of it.
func TestChangeNeighbor(t *testing.T) {
	text := editHead + "bgp:\n  groups: {g: {hold-time: 30s, multihop: true, passive: true}}\n  neighbors:\n    - {name: bob, description: \"$$5\", address: 192.0.2.2, as: 65002, group: g, graceful-restart: helper}\n"
	before, err := Parse("r.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	add, err := ChangeNeighbor(before, "bob", []Setting{{"passive", false}, {"as", uint64(65003)}, {"hold-time", "1m0s"}})
	if err != nil {
		t.Fatal(err)
	}
	_, after, err := add.Revise("r.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := before.BGP.Neighbors[0]
	want.Passive, want.AS, want.HoldTime = false, 65003, time.Minute
	if got := after.BGP.Neighbors[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What is refused changes nothing, and says why.
func TestEditRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   Edit
		text   string
		want   string
		target error
	}{
		{"not there", DeleteNeighbor("bob"), editHead, "bgp.neighbors bob: not in the configuration", ErrNoEntry},
		{"shared", alice(t), editHead + "bgp:\n  neighbors: &n []\n", "bgp.neighbors alice: neighbors is shared by an anchor: edit the file by hand, and reload it", ErrLayout},
		{"invalid", editNeighbor(t, "x", Setting{"address", "192.0.2.9"}, Setting{"as", 0}), editHead, "AS 0 is reserved", nil},
		{"twice", alice(t), editHead + "bgp:\n  neighbors:\n    - " + aliceText + "\n", "neighbor alice is here twice", nil},
		{"a group with members", DeleteGroup("g"), editHead + "bgp:\n  groups: {g: {}}\n  neighbors:\n    - {name: bob, address: 192.0.2.2, as: 65002, multihop: true, group: g}\n", `bgp.groups g: group "g" does not exist`, nil},
		{"no configuration", alice(t), "router: {}\n", "router.name is missing", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, cfg, err := c.edit.Revise("r.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || c.target != nil && !errors.Is(err, c.target) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if out != nil || cfg != nil {
				t.Error("there is a result")
			}
		})
	}
}

// An entry that is added is there, and when it is deleted again the file is what it was, byte by byte.
func TestEditBack(t *testing.T) {
	dir := keyFolder(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range uint64(200) {
		cfg := randomConfig(rand.New(rand.NewPCG(seed, i)))
		text := []byte(printed(t, cfg))
		add := alice(t)
		out, err := add.Apply(text)
		if err != nil {
			t.Fatalf("seed %d, configuration %d: %v\n%s", seed, i, err, text)
		}
		changed, err := parseIn(t, dir, "r.yaml", out)
		if err != nil || len(changed.BGP.Neighbors) != len(cfg.BGP.Neighbors)+1 || !reflect.DeepEqual(add.without(changed), add.without(cfg)) {
			t.Fatalf("seed %d, configuration %d: %v\n%s", seed, i, err, out)
		}
		back, err := DeleteNeighbor("alice").Apply(out)
		if err != nil {
			t.Fatalf("seed %d, configuration %d: %v\n%s", seed, i, err, out)
		}
		if len(cfg.BGP.Neighbors) == 0 { // the key of the list stays
			back = bytes.Replace(back, []byte("\n  neighbors:\n"), []byte("\n"), 1)
		}
		if !bytes.Equal(back, text) {
			t.Fatalf("seed %d, configuration %d: back is\n%s\nand was\n%s", seed, i, back, text)
		}
	}
}

// Whatever the file, an edit of it returns.
func FuzzEdit(f *testing.F) {
	for _, path := range append(samples(f, "testdata/right/*.yaml"), samples(f, "testdata/wrong/*.yaml")...) {
		f.Add(readSample(f, path), "router2")
	}
	f.Add([]byte("bgp: {neighbors: [{name: a}, {name: \"b\\\"\"}, {name: 'c'}]}"), "c")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		add := alice(t)
		group := editGroup(t, name, Setting{"hold-time", "30s"})
		for _, e := range []Edit{group, group.Instead(), AddDynamic(name, "g"), DeleteGroup(name), DeleteDynamic(name)} {
			_, _ = e.Apply(data) // no more than that it returns
		}
		if out, err := add.Apply(data); err == nil && len(out) <= len(data) {
			t.Fatalf("nothing was added to %q", data)
		}
		if out, err := DeleteNeighbor(name).Apply(data); err == nil && len(out) >= len(data) {
			t.Fatalf("nothing was deleted from %q", data)
		}
	})
}
