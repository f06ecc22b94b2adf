package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// report is a page as JSON.
type report struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// page answers 200 where all checks are well, and 503 where one is not: to a supervisor the status is the answer, the rest is
// for people.
func page(look func(context.Context) []Check) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		r := report{OK: true, Checks: look(req.Context())}
		for _, c := range r.Checks {
			r.OK = r.OK && c.OK
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Accept")
		h.Set("X-Content-Type-Options", "nosniff")
		write := r.text
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if prefersJSON(req.Header.Values("Accept")) {
			write = r.json
			h.Set("Content-Type", "application/json")
		}
		if !r.OK {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = write(w) // a client that has gone wants no answer
	}
}

func (r report) text(w io.Writer) error {
	var b strings.Builder
	b.WriteString(word(r.OK) + "\n")
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s: %s: %s\n", c.Name, word(c.OK), c.Detail)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func word(ok bool) string {
	if ok {
		return "ok"
	}
	return "failed"
}

func (r report) json(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// prefersJSON reports whether an Accept header (RFC 9110 §12.5.1) names JSON, and not text with at least the same weight. A
// wildcard means text, which is what a person with curl wants to see.
func prefersJSON(accept []string) bool {
	weight := func(names ...string) float64 {
		best := 0.0
		for _, field := range accept {
			for part := range strings.SplitSeq(field, ",") {
				kind, params, err := mime.ParseMediaType(part)
				if err != nil {
					continue
				}
				q := 1.0
				if s, ok := params["q"]; ok {
					if q, err = strconv.ParseFloat(s, 64); err != nil {
						q = 0
					}
				}
				for _, n := range names {
					if kind == n {
						best = max(best, q)
					}
				}
			}
		}
		return best
	}
	return weight("application/json") > weight("text/plain", "text/*")
}
