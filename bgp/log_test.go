package bgp

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

func TestLog(t *testing.T) {
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.TraceLevel)
	g := newLogger(log.WithField("router", "r1")).With("Topic", "Peer", "Key", "192.0.2.1")
	for _, c := range []struct {
		level slog.Level
		msg   string
		want  logrus.Level
	}{
		{slog.LevelError, "code logic bug", logrus.ErrorLevel},
		{slog.LevelWarn, "Session will be reset due to malformed BGP Header", logrus.WarnLevel},
		{slog.LevelWarn, "Closed an accepted connection", logrus.DebugLevel},
		{slog.LevelInfo, "Peer Up", logrus.DebugLevel},
		{slog.LevelDebug, "sent update", logrus.TraceLevel},
	} {
		g.Log(context.Background(), c.level, c.msg, "Remote Addr", "x", slog.Group("g", "a", 1))
		e := hook.LastEntry()
		if e.Message != c.msg || e.Level != c.want {
			t.Errorf("%s at %s: logged %q at %s", c.msg, c.level, e.Message, e.Level)
		}
		if e.Data["router"] != "r1" || e.Data["address"] != "192.0.2.1" || e.Data["remote_addr"] != "x" || e.Data["Topic"] != nil {
			t.Errorf("fields are %v", e.Data)
		}
	}
	log.SetLevel(logrus.InfoLevel)
	if g.Enabled(context.Background(), slog.LevelInfo) || g.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("GoBGP makes lines that nobody sees")
	}
	if !g.Enabled(context.Background(), slog.LevelWarn) {
		t.Error("warnings are off")
	}
}
