package main

import (
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"rlr/a"}
{"Action":"run","Package":"rlr/a","Test":"TestPing"}
{"Action":"run","Package":"rlr/a","Test":"TestPing/embedded"}
{"Action":"output","Package":"rlr/a","Test":"TestPing/embedded","Output":"noise\n"}
{"Action":"pass","Package":"rlr/a","Test":"TestPing/embedded","Elapsed":0.1}
{"Action":"output","Package":"rlr/a","Test":"TestPing/vpp","Output":"=== RUN   TestPing/vpp\n"}
{"Action":"output","Package":"rlr/a","Test":"TestPing/vpp","Output":"    ping_test.go:12: VPP is not installed\n"}
{"Action":"output","Package":"rlr/a","Test":"TestPing/vpp","Output":"    --- SKIP: TestPing/vpp (0.00s)\n"}
{"Action":"skip","Package":"rlr/a","Test":"TestPing/vpp","Elapsed":0}
{"Action":"pass","Package":"rlr/a","Test":"TestPing","Elapsed":0.1}
{"Action":"pass","Package":"rlr/a","Elapsed":1.25}
{"Action":"skip","Package":"rlr/none"}
`

// A test of VPP that ran, and one that was left out because it is slow.
const long = `{"Action":"pass","Package":"rlr/a","Test":"TestPing/vpp","Elapsed":0.1}
` + onlyLong

const onlyLong = `{"Action":"output","Package":"rlr/a","Test":"TestLab/vpp","Output":"    lab_test.go:7: takes minutes: RLR_LONG=1, or make test-long\n"}
{"Action":"skip","Package":"rlr/a","Test":"TestLab/vpp","Elapsed":0}
`

const failures = `{"ImportPath":"rlr/c [rlr/c.test]","Action":"build-output","Output":"c/x.go:1:1: broken\n"}
{"Action":"output","Package":"rlr/b","Test":"TestBad","Output":"    b_test.go:1: wrong\n"}
{"Action":"fail","Package":"rlr/b","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"rlr/b","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"output","Package":"rlr/b","Output":"FAIL\n"}
{"Action":"fail","Package":"rlr/b","Elapsed":1}
plain text of go test
`

func summarize(t *testing.T, input string, requireVPP bool) (string, bool) {
	t.Helper()
	var b strings.Builder
	r := newReport(&b)
	if err := r.read(strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	ok := r.summary("go test -race ./...", requireVPP)
	return b.String(), ok
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name, input string
		requireVPP  bool
		ok          bool
		want        []string
		not         []string
	}{
		{
			name: "pass and skip", input: events, ok: true,
			want: []string{
				"ok    rlr/a  1.2s\n", "-     rlr/none (no tests)\n",
				"skipped: VPP is not installed\n         rlr/a TestPing/vpp\n",
				"dataplane embedded: 1 tests passed, 0 failed, 0 skipped\n",
				"dataplane vpp     : 0 tests passed, 0 failed, 1 skipped\n",
				"2 tests passed, 0 failed, 1 skipped, in ",
			},
			not: []string{"noise", "FAILED", "race detector"},
		},
		{name: "skip of VPP when it is required", input: events, requireVPP: true, want: []string{"RLR_REQUIRE_VPP=1, but"}},
		{
			name: "slow test left out when VPP is required", input: long, requireVPP: true, ok: true,
			want: []string{
				"skipped: takes minutes: RLR_LONG=1, or make test-long\n         rlr/a TestLab/vpp\n",
				"dataplane vpp     : 1 tests passed, 0 failed, 1 skipped\n",
			},
			not: []string{"RLR_REQUIRE_VPP=1, but"},
		},
		{name: "slow test left out, another for want of VPP", input: long + events, requireVPP: true, want: []string{"RLR_REQUIRE_VPP=1, but"}},
		{name: "none but a slow test of VPP", input: onlyLong, requireVPP: true, want: []string{"RLR_REQUIRE_VPP=1, but"}},
		{
			name: "failures", input: failures,
			want: []string{
				"c/x.go:1:1: broken\n", "b_test.go:1: wrong\n", "panic: test timed out\n", "FAIL\n", "plain text of go test\n",
				"FAILED:  rlr/b TestBad\n", "FAILED:  rlr/b\n", "dataplane vpp     : no test ran\n",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := summarize(t, c.input, c.requireVPP)
			if ok != c.ok {
				t.Errorf("ok is %v", ok)
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %q in\n%s", want, got)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("has %q in\n%s", not, got)
				}
			}
		})
	}
}

func TestRunNeedsTest(t *testing.T) {
	if code, err := run([]string{"go", "build"}, nil, false); code != 2 || err == nil {
		t.Errorf("code %d, error %v", code, err)
	}
}
