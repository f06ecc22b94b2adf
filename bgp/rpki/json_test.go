package rpki

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var updateGoldens = flag.Bool("update", false, "write the golden files anew")

// text is a list, a line a VRP.
func (l list) text() string {
	var b strings.Builder
	for _, v := range l.vrps {
		fmt.Fprintln(&b, v)
	}
	if l.skipped > 0 {
		fmt.Fprintf(&b, "%d skipped: %v\n", l.skipped, l.why)
	}
	return b.String()
}

// What is read of files in StayRTR's schema, and what is said of others.
func TestParse(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d samples: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(path, func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l, err := parse(bytes.NewReader(b))
			got := l.text()
			wrong := strings.Contains(path, "wrong")
			if (err != nil) != wrong {
				t.Fatalf("error: %v", err)
			}
			if wrong {
				got = err.Error() + "\n"
			}
			golden := strings.TrimSuffix(path, ".json") + ".txt"
			if *updateGoldens {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("it is\n%s\nwant (%v)\n%s", got, err, want)
			}
		})
	}
}

// Each entry by itself says what is wrong with it.
func TestParseSlips(t *testing.T) {
	for entry, want := range map[string]string{
		`{"asn": "AS1", "prefix": "172.20.1.1/24"}`:                        "prefix 172.20.1.1/24 has host bits set",
		`{"asn": "AS1", "prefix": "172.20.1.0/24", "maxLength": 23}`:       "maximum length 23 of 172.20.1.0/24 is not between 24 and 32",
		`{"asn": "AS1", "prefix": "172.20.1.0/24", "maxLength": 129}`:      "maxLength 129 of 172.20.1.0/24 is not between 24 and 32",
		`{"asn": "AS1", "prefix": "::ffff:172.20.1.0/120"}`:                "::ffff:172.20.1.0/120 is not a prefix",
		`{"asn": "ASx", "prefix": "172.20.1.0/24"}`:                        `asn "ASx" is not a number from 0 to 4294967295, nor AS and one`,
		`{"asn": 4294967296, "prefix": "172.20.1.0/24"}`:                   "asn 4294967296 is not a number from 0 to 4294967295, nor AS and one",
		`{"prefix": "172.20.1.0/24"}`:                                      "the entry of 172.20.1.0/24 has no asn",
		`{"asn": 1, "prefix": "` + strings.Repeat("long", 1000) + `"}`:     `prefix "` + strings.Repeat("long", 10) + `…" is not one`,
		`{"asn": 1, "prefix": "172.20.1.0/24", "maxLength": "twentyfour"}`: "json: cannot unmarshal string into Go struct field entry.maxLength of type int",
	} {
		_, err := parse(strings.NewReader(`{"roas": [` + entry + `]}`))
		if err == nil || err.Error() != "none of its 1 entries is a ROA: roas[0]: "+want {
			t.Errorf("%s: %v", shorten(entry), err)
		}
	}
}

func TestParseBounds(t *testing.T) {
	begin := func(text string) io.Reader {
		return io.MultiReader(strings.NewReader(`{"roas":[`), &repeat{text: text})
	}
	if _, err := parseWithin(begin(`{"asn":"AS1","prefix":"10.0.0.0/8","ta":"`+strings.Repeat("x", 4000)+`"},`), 1<<20, maxVRPs); err != errTooLarge {
		t.Errorf("a list that does not end: %v", err)
	}
	if _, err := parseWithin(begin(`{"asn":1,"prefix":"::/0"},`), maxBytes, 1000); err != errTooMany {
		t.Errorf("too many ROAs: %v", err)
	}
}

// repeat is a text again and again.
type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(b []byte) (n int, err error) {
	for n < len(b) {
		c := copy(b[n:], r.text[r.at:])
		n, r.at = n+c, (r.at+c)%len(r.text)
	}
	return n, nil
}

// Whatever the bytes, parse returns, and what it returns are VRPs.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parse(bytes.NewReader(b))
		if err != nil {
			if len(l.vrps) > 0 || err.Error() == "" {
				t.Fatalf("%v and %d VRPs", err, len(l.vrps))
			}
			return
		}
		for _, v := range l.vrps {
			if err := v.check(); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.IsSortedFunc(l.vrps, VRP.compare) {
			t.Fatalf("not in order: %v", l.vrps)
		}
		NewTable(l.vrps)
	})
}
