package peering

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := func(v any, err error) string {
		if err != nil {
			return "error: " + err.Error()
		}
		return fmt.Sprint(v)
	}
	endpoint := func(s string) string { v, err := ParseEndpoint(s, 20207); return text(v, err) }
	as := func(s string) string { v, err := ParseAS(s); return text(v, err) }
	prefixes := func(s string) string { v, err := ParsePrefixes(s); return text(v, err) }
	addresses := func(s string) string { v, err := ParseAddresses(s); return text(v, err) }
	link := func(s string) string { v, err := ParseLinkLocal(s); return text(v, err) }
	key := func(s string) string { v, err := ParseKey(s); return text(v, err) }
	name := func(s string) string { return text("ok", CheckName(s)) }
	peer := func(s string) string { return text("ok", CheckPeerName(s)) }
	port := func(s string) string { v, err := ParsePort(s); return text(v, err) }
	roa := func(s string) string { v, err := ParseROA(s); return text(v, err) }
	for i, tc := range []struct {
		read    func(string) string
		in      string
		want    string // the start of it; after "error: " a part
		comment string
	}{
		{as, "4242420207", "4242420207", ""},
		{as, "AS4242420207", "4242420207", ""},
		{as, "as65001", "65001", ""},
		{as, "0", "error: AS 0 is reserved", ""},
		{as, "23456", "error: AS 23456 is reserved", ""},
		{as, "65535", "error: AS 65535 is reserved", ""},
		{as, "4294967295", "error: AS 4294967295 is reserved", ""},
		{as, "4294967296", "error: not \"4294967296\"", ""},
		{as, "-1", "error: an AS number", ""},
		{as, "AS", "error: an AS number", ""},
		{prefixes, "172.20.1.0/27, fd42:1::/48", "[172.20.1.0/27 fd42:1::/48]", ""},
		{prefixes, "172.20.0.53/32", "[172.20.0.53/32]", "anycast"},
		{prefixes, "10.127.3.0/24", "[10.127.3.0/24]", "ICVPN"},
		{prefixes, "172.20.1.0/30", "error: nothing that DN42", "too long"},
		{prefixes, "fd42::/32", "error: nothing that DN42", "too short"},
		{prefixes, "2001:db8::/48", "error: nothing that DN42", ""},
		{prefixes, "172.20.1.1/27", "error: the prefix is 172.20.1.0/27", ""},
		{prefixes, "172.20.1.0/24 172.20.1.0/27", "error: overlap", ""},
		{prefixes, "172.20.1.0", "error: ADDRESS/LENGTH", ""},
		{prefixes, " ,", "error: one prefix at least", ""},
		{addresses, "172.20.1.1,fd42:1::1", "[172.20.1.1 fd42:1::1]", ""},
		{addresses, "fe80::1", "error: an address of a node", ""},
		{addresses, "172.20.1.1 172.20.1.1", "error: twice", ""},
		{link, "fe80::ade0", "fe80::ade0", ""},
		{link, "fe80::ade0/64", "fe80::ade0", ""},
		{link, "fe80::", "error: a link-local", ""},
		{link, "fe80::1%eth0", "error: a link-local", ""},
		{link, "fd42::1", "error: a link-local", ""},
		{link, "169.254.1.1", "error: a link-local", ""},
		{key, keyA, keyA, ""},
		{key, keyA[:40], "error: 44 characters", ""},
		{key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "error: 44 characters", "zeros"},
		{key, "", "error: 44 characters", ""},
		{endpoint, "peer.example.net:51820", "peer.example.net:51820", ""},
		{endpoint, "peer.example.net", "peer.example.net:20207", ""},
		{endpoint, "203.0.113.5", "203.0.113.5:20207", ""},
		{endpoint, "2001:db8::5", "[2001:db8::5]:20207", ""},
		{endpoint, "[2001:db8::5]", "[2001:db8::5]:20207", ""},
		{endpoint, "[2001:db8::5]:1", "[2001:db8::5]:1", ""},
		{endpoint, "none", "", ""},
		{endpoint, "", "error: HOST:PORT", ""},
		{endpoint, "a b", "error: HOST:PORT", ""},
		{endpoint, "host:0", "error: HOST:PORT", ""},
		{endpoint, "host:70000", "error: HOST:PORT", ""},
		{endpoint, "1.2.3", "error: HOST:PORT", "neither an address nor a name"},
		{endpoint, "0.0.0.0", "error: HOST:PORT", ""},
		{endpoint, `x"}`, "error: HOST:PORT", "nothing that would end YAML's quotes"},
		{name, "router-1.x_y", "ok", ""},
		{name, "1router", "error: a letter", ""},
		{name, "é", "error: a letter", ""},
		{name, "links", "error: folder of cables", ""},
		{name, strings.Repeat("a", 33), "error: 33 characters", ""},
		{peer, "alice", "ok", ""},
		{peer, "static", "error: something else has that name", ""},
		{peer, "dum0", "error: something else has that name", ""},
		{peer, strings.Repeat("a", 16), "error: 16 characters", ""},
		{port, "20001", "20001", ""},
		{port, "0", "error: from 1 to 65535", ""},
		{roa, "none", "", ""},
		{roa, DefaultROA, DefaultROA, ""},
		{roa, "roa.json", "error: from a URL", ""},
	} {
		got := tc.read(tc.in)
		part, wrong := strings.CutPrefix(tc.want, "error: ")
		if wrong != strings.HasPrefix(got, "error: ") || wrong && !strings.Contains(got, part) || !wrong && got != tc.want {
			t.Errorf("%d: %q: %s, want %s", i, tc.in, got, tc.want)
		}
	}
}

func TestDerived(t *testing.T) {
	for as, want := range map[uint32]string{
		4242420207: "20207 fe80::207", 4242421234: "21234 fe80::1234", 4242420000: "20000 fe80::1:0", 64512: "24512 fe80::4512", 5: "20005 fe80::5",
	} {
		if got := fmt.Sprint(PortFor(as), " ", LinkLocalOf(as)); got != want {
			t.Errorf("AS %d: %s, want %s", as, got, want)
		}
	}
}
