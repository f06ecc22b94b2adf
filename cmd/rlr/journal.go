package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rlr/internal/config"
	"rlr/internal/ctl"
)

// journal is the router's memory of its own log: the last lines for `show log`, and each distinct warning or error with its
// count for `show errors`. It is a logrus hook, so that nothing can be reported in one place and missing in the other.
type journal struct {
	mu     sync.Mutex
	lines  []ctl.LogRecord // ring of journalLines
	next   int
	errors map[errorKey]*errorCount
	follow map[chan ctl.LogRecord]bool
}

const (
	journalLines  = 1000
	journalErrors = 256 // distinct ones; more are counted under "other"
)

type errorKey struct{ subsystem, object, text string }

type errorCount struct {
	count uint64
	last  time.Time
}

// newLogger returns the program's logger, which writes lines to w, and its journal.
func newLogger(w io.Writer, cfg config.Log) (*logrus.Logger, *journal) {
	j := &journal{errors: make(map[errorKey]*errorCount), follow: make(map[chan ctl.LogRecord]bool)}
	l := logrus.New()
	l.SetOutput(w)
	setLevel(l, cfg)
	if cfg.Format == config.LogJSON {
		l.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	} else {
		l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	}
	l.AddHook(j)
	return l, j
}

// setLevel applies log.level; config has checked that it is one.
func setLevel(l *logrus.Logger, cfg config.Log) {
	level, err := logrus.ParseLevel(string(cfg.Level))
	if err != nil {
		level = logrus.InfoLevel
	}
	l.SetLevel(level)
}

// Levels makes the journal a logrus.Hook for all that is logged.
func (j *journal) Levels() []logrus.Level { return logrus.AllLevels }

// Fire records one entry.
func (j *journal) Fire(e *logrus.Entry) error {
	rec := ctl.LogRecord{
		Time:    e.Time.Format("2006-01-02T15:04:05.000Z07:00"),
		Level:   e.Level.String(),
		Message: e.Message,
		Fields:  make(map[string]string, len(e.Data)),
	}
	for k, v := range e.Data {
		rec.Fields[k] = fmt.Sprint(v)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) < journalLines {
		j.lines = append(j.lines, rec)
	} else {
		j.lines[j.next] = rec
		j.next = (j.next + 1) % journalLines
	}
	if e.Level <= logrus.WarnLevel {
		j.countLocked(rec, e.Time)
	}
	for ch := range j.follow {
		select {
		case ch <- rec:
		default: // a reader that is too slow misses lines; the router does not wait for it
		}
	}
	return nil
}

func (j *journal) countLocked(rec ctl.LogRecord, at time.Time) {
	k := errorKey{subsystem: rec.Fields["subsystem"], text: rec.Message}
	for _, f := range []string{"neighbor", "interface", "link", "prefix", "socket"} {
		if v := rec.Fields[f]; v != "" {
			k.object = v
			break
		}
	}
	if err := rec.Fields[logrus.ErrorKey]; err != "" {
		k.text += ": " + err
	}
	c := j.errors[k]
	if c == nil {
		if len(j.errors) >= journalErrors {
			k = errorKey{subsystem: "log", text: "other errors, see the log"}
		}
		if c = j.errors[k]; c == nil {
			c = &errorCount{}
			j.errors[k] = c
		}
	}
	c.count++
	c.last = at
}

// read returns the newest n records, oldest first (n ≤ 0 means all), and a channel of those that come after them until stop
// is called.
func (j *journal) read(n int) (records []ctl.LogRecord, more <-chan ctl.LogRecord, stop func()) {
	ch := make(chan ctl.LogRecord, 256)
	j.mu.Lock()
	defer j.mu.Unlock()
	records = append(append(records, j.lines[j.next:]...), j.lines[:j.next]...)
	if n > 0 && n < len(records) {
		records = records[len(records)-n:]
	}
	j.follow[ch] = true
	return records, ch, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.follow, ch)
	}
}

// counted returns the distinct warnings and errors so far.
func (j *journal) counted(now time.Time) []ctl.ErrorRecord {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]ctl.ErrorRecord, 0, len(j.errors))
	for k, c := range j.errors {
		out = append(out, ctl.ErrorRecord{
			Subsystem: k.subsystem, Object: k.object, Error: k.text,
			Count: c.count, LastAgoS: now.Sub(c.last).Seconds(),
		})
	}
	return out
}
