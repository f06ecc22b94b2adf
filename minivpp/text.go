package minivpp

import "strings"

// program is what minivpp calls itself.
const program = "minivpp"

// text is the part of a fixed-length string before its first zero.
func text(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// clip shortens s to n bytes, so that a zero follows it in a field of n+1.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
