package config

import (
	"fmt"
	"strings"
)

// reference is what a scalar says after expansion.
type reference struct {
	text  string // expanded
	whole bool   // the scalar was one ${NAME} and nothing else
	any   bool   // there was a ${NAME} at all
}

// expand replaces ${NAME} by the environment's value and $$ by a dollar sign. There are no other forms and no defaults, so
// that a dollar sign never means something else than it seems to.
func expand(s string, env func(string) (string, bool)) (reference, error) {
	if !strings.Contains(s, "$") {
		return reference{text: s}, nil
	}
	var r reference
	var b strings.Builder
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			break
		}
		if tail, ok := strings.CutPrefix(after, "$"); ok {
			b.WriteByte('$')
			rest = tail
			continue
		}
		body, ok := strings.CutPrefix(after, "{")
		name, tail, closed := strings.Cut(body, "}")
		if !ok || !closed {
			return r, fmt.Errorf(`a single "$"; write ${NAME} for the value of an environment variable, and $$ for a dollar sign`)
		}
		if !isEnvName(name) {
			return r, fmt.Errorf(`"${%s}" is not a reference; write ${NAME}, NAME of letters, digits and "_"`, name)
		}
		v, ok := env(name)
		if !ok {
			return r, fmt.Errorf("environment variable %s is not set; set it where the router is started", name)
		}
		b.WriteString(v)
		r.any = true
		r.whole = r.whole || before == "" && tail == "" && rest == s
		rest = tail
	}
	r.text = b.String()
	return r, nil
}

func isEnvName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c == '_', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
