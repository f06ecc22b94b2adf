package ctl

import "fmt"

// Kind says what a caller can do about an Error.
type Kind string

const (
	KindNotFound    Kind = "not-found"   // the named thing is not there
	KindBadRequest  Kind = "bad-request" // the request cannot be meant; the message names the cure
	KindUnavailable Kind = "unavailable" // not now: starting, stopping, dataplane away, too many requests
	KindExists      Kind = "exists"      // the router runs already; or what was to be added is there
	KindFailed      Kind = "failed"      // everything else
)

// Error is what a handler returns to say more than that it failed, and what a Client returns for an answered request.
// errors.Is compares the kind with the sentinels below.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
}

var (
	ErrNotFound    = &Error{Kind: KindNotFound}
	ErrBadRequest  = &Error{Kind: KindBadRequest}
	ErrUnavailable = &Error{Kind: KindUnavailable}
	ErrExists      = &Error{Kind: KindExists}
)

func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Kind)
	}
	return e.Message
}

// Is makes errors.Is(err, ErrNotFound) true for every Error of that kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && (t.Message == "" || t.Message == e.Message)
}

func newError(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// NotFound returns an error for a named thing that is not there.
func NotFound(format string, args ...any) error { return newError(KindNotFound, format, args...) }

// BadRequest returns an error for a request that cannot be meant; the message names the cure.
func BadRequest(format string, args ...any) error { return newError(KindBadRequest, format, args...) }

// Exists returns an error for what is to be added and is there.
func Exists(format string, args ...any) error { return newError(KindExists, format, args...) }

// Unavailable returns an error for what cannot be answered now.
func Unavailable(format string, args ...any) error { return newError(KindUnavailable, format, args...) }
