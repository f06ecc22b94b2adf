package lab

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"rlr/internal/ctl"
)

// says compares an error with what it must mention; "" is no error.
func says(t *testing.T, name string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

func decodeRows[R any](t *testing.T, text string) R {
	t.Helper()
	var rows R
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return rows
}

func TestSessionsUp(t *testing.T) {
	for name, tc := range map[string]struct{ rows, want string }{
		"up":   {`[{"name":"router2","state":"Established"},{"name":"router3","state":"Established"}]`, ""},
		"none": {`[]`, ""},
		"down": {`[{"name":"router2","state":"Established"},{"name":"x","state":"Active","last_error":"refused"}]`, "router1-x Active (refused)"},
	} {
		says(t, name, sessionsUp("router1", decodeRows[[]ctl.BGPSession](t, tc.rows)), tc.want)
	}
}

const firstRoutes = `[
 {"prefix":"10.1.0.0/24","table":"default","state":"installed","paths":[
  {"protocol":"direct","interface":"eth0","best":true,"preference":240}]},
 {"prefix":"10.2.0.0/24","table":"default","state":"installed","paths":[
  {"protocol":"bgp","neighbor":"router2","nexthop":"169.254.12.2","interface":"tun12","best":true,"as_path":"65002"},
  {"protocol":"bgp","neighbor":"router3","nexthop":"169.254.13.2","interface":"tun13","best":false,"as_path":"65003 65002"}]},
 {"prefix":"10.9.0.0/16","table":"default","state":"installed","paths":[{"protocol":"static","kind":"blackhole","best":true}]}]`

const firstFIB = `[
 {"prefix":"0.0.0.0/0","source":"default-route","paths":[{"type":"drop"}]},
 {"prefix":"10.1.0.0/24","source":"interface","paths":[{"type":"normal","nexthop":"","interface":"eth0","weight":1}]},
 {"prefix":"10.2.0.0/24","source":"rlr","paths":[{"type":"normal","nexthop":"169.254.12.2","interface":"tun12","weight":1}]},
 {"prefix":"10.9.0.0/16","source":"rlr","paths":[{"type":"drop","nexthop":"","interface":"","weight":1}]}]`

func TestRouteHas(t *testing.T) {
	direct := wantPath{"tun12", "65002", true}
	around := wantPath{"tun13", "65003 65002", false}
	for name, tc := range map[string]struct {
		change [2]string
		want   []wantPath
		err    string
	}{
		"as planned":   {want: []wantPath{direct, around}},
		"any order":    {want: []wantPath{around, direct}},
		"no route":     {change: [2]string{"10.2.0.0/24", "10.7.0.0/24"}, want: []wantPath{direct, around}, err: "no route to"},
		"other AS":     {change: [2]string{"65003 65002", "65033 65002"}, want: []wantPath{direct, around}, err: "instead of best tun12 [65002], tun13 [65003 65002]"},
		"other way":    {change: [2]string{`"tun12"`, `"tun23"`}, want: []wantPath{direct, around}, err: "best tun23"},
		"one too many": {want: []wantPath{direct}, err: "instead of"},
		"not there":    {want: []wantPath{direct, around, around}, err: "instead of"},
		"best swapped": {change: [2]string{`"tun12","best":true`, `"tun12","best":false`}, want: []wantPath{direct, around}, err: "10.2.0.0/24: tun12 [65002]"},
		"queued": {change: [2]string{
			`"10.2.0.0/24","table":"default","state":"installed"`,
			`"10.2.0.0/24","table":"default","state":"queued"`,
		}, want: []wantPath{direct, around}, err: "queued"},
	} {
		text := firstRoutes
		if tc.change[0] != "" {
			text = strings.Replace(text, tc.change[0], tc.change[1], 1)
		}
		says(t, name, routeHas(decodeRows[[]ctl.Route](t, text), "10.2.0.0/24", tc.want...), tc.err)
	}
}

func TestLeadsTo(t *testing.T) {
	rows := decodeRows[[]ctl.Route](t, firstRoutes)
	says(t, "here", leadsTo(rows, "10.2.0.0/24", "tun12"), "")
	says(t, "there", leadsTo(rows, "10.2.0.0/24", "tun13"), "leads to tun12, not to tun13")
	says(t, "nowhere", leadsTo(rows, "10.3.0.0/24", "tun13"), "no route to 10.3.0.0/24")
	rows[1].State = "failed"
	says(t, "failed", leadsTo(rows, "10.2.0.0/24", "tun12"), "failed")
}

func TestFIBAgrees(t *testing.T) {
	for name, tc := range map[string]struct {
		inRoutes bool
		change   [2]string
		err      string
	}{
		"agrees":       {},
		"not there":    {change: [2]string{`"10.2.0.0/24"`, `"10.7.0.0/24"`}, err: "10.2.0.0/24 (installed) is not in the dataplane"},
		"other hop":    {change: [2]string{`169.254.12.2`, `169.254.12.9`}, err: "the dataplane has 10.2.0.0/24 via 169.254.12.9 tun12"},
		"other iface":  {change: [2]string{`"tun12"`, `"tun13"`}, err: "the route says 169.254.12.2 tun12"},
		"dropped":      {change: [2]string{`{"type":"normal","nexthop":"169.254.12.2","interface":"tun12","weight":1}`, `{"type":"drop"}`}, err: "via drop"},
		"no drop":      {change: [2]string{`"rlr","paths":[{"type":"drop"`, `"rlr","paths":[{"type":"local"`}, err: "the route says drop"},
		"other source": {change: [2]string{`"10.2.0.0/24","source":"rlr"`, `"10.2.0.0/24","source":"CLI"`}, err: "source"},
		"one more":     {change: [2]string{`"0.0.0.0/0","source":"default-route"`, `"0.0.0.0/0","source":"rlr"`}, err: "which is not a route"},
		"direct away":  {change: [2]string{`"interface":"eth0"`, `"interface":"eth1"`}, err: "10.1.0.0/24: the route says eth0"},
		"queued":       {inRoutes: true, change: [2]string{`"installed","paths":[{"protocol":"static"`, `"queued","paths":[{"protocol":"static"`}, err: "10.9.0.0/16 is queued"},
		"ecmp":         {inRoutes: true, change: [2]string{`"best":false`, `"best":true`}, err: "the route says 169.254.12.2 tun12, 169.254.13.2 tun13"},
		"no best":      {inRoutes: true, change: [2]string{`"tun12","best":true`, `"tun12","best":false`}, err: "10.2.0.0/24"},
	} {
		routes, entries := firstRoutes, firstFIB
		if tc.change[0] != "" {
			text := &entries
			if tc.inRoutes {
				text = &routes
			}
			if !strings.Contains(*text, tc.change[0]) {
				t.Fatalf("%s changes nothing", name)
			}
			*text = strings.Replace(*text, tc.change[0], tc.change[1], 1)
		}
		n, err := fibAgrees(decodeRows[[]ctl.Route](t, routes), decodeRows[[]ctl.FIBEntry](t, entries))
		says(t, name, err, tc.err)
		if err == nil && n != 3 {
			t.Errorf("%s: %d routes agree", name, n)
		}
	}
}

func TestPingReport(t *testing.T) {
	const good = `{"target":"10.2.0.2","replies":[{"seq":1,"from":"10.2.0.2","ttl":62},{"seq":2,"from":"10.2.0.2","ttl":62}],
		"summary":{"sent":2,"received":2}}`
	for name, tc := range map[string]struct{ old, new, want string }{
		"fine":     {},
		"ttl":      {`"seq":2,"from":"10.2.0.2","ttl":62`, `"seq":2,"from":"10.2.0.2","ttl":61`, "TTL 61 instead of"},
		"stranger": {`"seq":1,"from":"10.2.0.2"`, `"seq":1,"from":"10.2.0.3"`, "reply from 10.2.0.3"},
		"lost":     {`"received":2`, `"received":1`, "1 of 2 pings answered"},
		"none":     {`"sent":2,"received":2`, `"sent":0,"received":0`, "0 of 0"},
	} {
		says(t, name, decodeRows[pingReport](t, strings.Replace(good, tc.old, tc.new, 1)).repliesWith("10.2.0.2", 62), tc.want)
	}
	lost := decodeRows[pingReport](t, `{"replies":[{"seq":1,"from":"10.1.0.1","error":"host unreachable"}],"summary":{"sent":1}}`)
	says(t, "why", lost.repliesWith("10.2.0.2", 62), "10.1.0.1 host unreachable")
}

func TestTraceReport(t *testing.T) {
	for name, tc := range map[string]struct{ hops, want string }{
		"fine":       {`{"hop":1,"from":"a"},{"hop":2,"from":"b"},{"hop":3,"from":"c","final":true}`, ""},
		"retried":    {`{"hop":1,"from":""},{"hop":1,"from":"a"},{"hop":2,"from":"b"},{"hop":3,"from":"c"}`, ""},
		"missing":    {`{"hop":1,"from":"a"},{"hop":3,"from":"c"}`, "a → * → c instead of a → b → c"},
		"silent":     {`{"hop":1,"from":"a"},{"hop":2,"from":""},{"hop":3,"from":"c"}`, "a → * → c"},
		"one more":   {`{"hop":1,"from":"a"},{"hop":2,"from":"x"},{"hop":3,"from":"b"},{"hop":4,"from":"c"}`, "a → x → b → c"},
		"other":      {`{"hop":1,"from":"z"},{"hop":2,"from":"b"},{"hop":3,"from":"c"}`, "z → b → c"},
		"nothing":    {``, "unknown instead of"},
		"first dark": {`{"hop":2,"from":"b"}`, "* → b"},
	} {
		r := decodeRows[traceReport](t, `{"hops":[`+tc.hops+`],"reached":true}`)
		says(t, name, r.passes("a", "b", "c"), tc.want)
	}
	says(t, "not reached", traceReport{Hops: []ctl.ProbeReply{{Hop: 1, From: "a"}}}.passes("a"), "the way is")
}

func TestLongestGap(t *testing.T) {
	at := func(ms ...int) (out []time.Time) {
		for _, m := range ms {
			out = append(out, time.UnixMilli(int64(m)))
		}
		return out
	}
	if g := longestGap(at(0, 100, 200, 25200, 25300)); g != 25*time.Second {
		t.Error(g)
	}
	if longestGap(nil) != 0 || longestGap(at(5)) != 0 {
		t.Error("a gap between fewer than two")
	}
}

func TestJudgeHoldTimer(t *testing.T) {
	row := func(state, last string) []ctl.BGPSession { return []ctl.BGPSession{{State: state, LastError: last}} }
	says(t, "ended", judgeHoldTimer(row("Active", "sent: Hold Timer Expired")), "")
	says(t, "still up", judgeHoldTimer(row("Established", "Hold Timer Expired")), "still Established")
	says(t, "reset", judgeHoldTimer(row("Idle", "Administrative Reset")), `"Administrative Reset" instead of`)
	says(t, "none", judgeHoldTimer(nil), "0 sessions")
}

func TestJudgeSameAddress(t *testing.T) {
	ifs := decodeRows[[]ctl.Interface](t, `[{"name":"tun12","addresses":["fe80::1/64"]},{"name":"tun13","addresses":["172.20.1.1/32","fe80::1/128"]}]`)
	peers := decodeRows[[]ctl.BGPSession](t, `[{"interface":"tun12","address":"fe80::2"},{"interface":"tun13","address":"fe80::2"}]`)
	says(t, "same", judgeSameAddress(ifs, peers, 3), "")
	says(t, "one session", judgeSameAddress(ifs, peers[:1], 3), "fe80::2 on tun13 as neighbour")
	ifs[1].Addresses = []string{"fe80::31/64"}
	says(t, "other", judgeSameAddress(ifs, peers, 3), "fe80::1 on tun13")
}

func TestJudgeDataplane(t *testing.T) {
	st := ctl.Status{PID: 7, Dataplane: ctl.DataplaneStatus{Kind: "embedded", PID: 7}}
	says(t, "auto", judgeDataplane("r", "auto", st), "")
	says(t, "embedded", judgeDataplane("r", "embedded", st), "")
	says(t, "fallback", judgeDataplane("r", "vpp", st), "dataplane vpp was asked for, embedded it is")
	st.Dataplane.PID = 8
	says(t, "elsewhere", judgeDataplane("r", "auto", st), "pid 8")
}

// The stream of a ping is read as it comes, in pieces, and may end anywhere.
func TestFollow(t *testing.T) {
	const doc = `{"target":"10.2.0.2","replies":[
{"seq":1,"from":"10.2.0.2","ttl":62,"rtt_ms":1},
{"seq":2,"error":"timeout","from":""},
{"seq":3,"from":"10.1.0.1","error":"host unreachable"},
{"seq":4,"from":"10.2.0.2","ttl":62,"rtt_ms":1}
]
,"summary":{"sent":4}}`
	for cut := 0; cut <= len(doc); cut++ {
		s := &stream{}
		s.follow(strings.NewReader(doc[:cut]))
		if len(s.replies)+s.lost > 4 {
			t.Fatalf("after %d bytes: %d replies, %d lost", cut, len(s.replies), s.lost)
		}
		if cut == len(doc) && (len(s.replies) != 2 || s.lost != 2) {
			t.Errorf("%d replies, %d lost", len(s.replies), s.lost)
		}
	}
	s := &stream{}
	s.follow(strings.NewReader("rlr: router server1 is not running"))
	if len(s.replies) != 0 {
		t.Error("replies from an error message")
	}
}
