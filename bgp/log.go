package bgp

import (
	"context"
	"log/slog"
	"strings"

	"github.com/sirupsen/logrus"
)

// logHandler passes GoBGP's log lines on. GoBGP's levels are those of a daemon of its own: what it calls info is how it works
// inside, and much of what it warns of is our transport's doing or ordinary life of a session, which this package reports
// itself and in better words. So its lines go a level down, except those about what a peer sent.
type logHandler struct {
	log    *logrus.Entry
	prefix string // of attributes in a group
}

var _ slog.Handler = logHandler{}

// newLogger returns a logger for GoBGP.
func newLogger(log *logrus.Entry) *slog.Logger {
	return slog.New(logHandler{log: log})
}

// peerFaults begin the lines that an operator should see as they are: they name a peer's fault and its consequence.
var peerFaults = []string{
	"Session will be reset due to malformed",
	"Some attributes were discarded",
	"the received Update message was treated as withdraw",
}

func logLevel(level slog.Level, msg string) logrus.Level {
	switch {
	case level >= slog.LevelError:
		return logrus.ErrorLevel
	case level >= slog.LevelWarn:
		for _, p := range peerFaults {
			if strings.HasPrefix(msg, p) {
				return logrus.WarnLevel
			}
		}
		return logrus.DebugLevel
	case level >= slog.LevelInfo:
		return logrus.DebugLevel
	}
	return logrus.TraceLevel
}

// Enabled implements slog.Handler. GoBGP builds long values for its debug lines, so it should not when nobody reads them.
func (h logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return h.log.Logger.IsLevelEnabled(logLevel(level, peerFaults[0]))
}

// Handle implements slog.Handler.
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	fields := logrus.Fields{"component": "gobgp"}
	r.Attrs(func(a slog.Attr) bool {
		h.add(fields, a)
		return true
	})
	h.log.WithFields(fields).Log(logLevel(r.Level, r.Message), r.Message)
	return nil
}

func (h logHandler) add(fields logrus.Fields, a slog.Attr) {
	if a.Key == "" || a.Key == "Topic" {
		return
	}
	key := h.prefix + strings.ToLower(strings.NewReplacer(" ", "_", "-", "_").Replace(a.Key))
	if key == "key" { // GoBGP's name for the neighbour's address
		key = "address"
	}
	fields[key] = a.Value.Resolve().String()
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	fields := logrus.Fields{}
	for _, a := range attrs {
		h.add(fields, a)
	}
	return logHandler{log: h.log.WithFields(fields), prefix: h.prefix}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{log: h.log, prefix: h.prefix + name + "."}
}
