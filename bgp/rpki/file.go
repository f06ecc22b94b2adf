package rpki

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// lookEvery is how often a file is looked at. A look is one stat(2); what watches files otherwise (inotify) tells nothing of
// a network file system, and little of a file that is replaced by renaming another one.
const lookEvery = time.Second

// youngTime is for how long after its modification a file is read again although it looks the same: it may be changed twice
// in a tick of the file system's clock.
const youngTime = 3 * time.Second

// file is a JSON file, read again when it changes.
type file struct {
	held
	path    string
	log     *logrus.Entry
	changed func()

	seen fingerprint // of the latest look
	sum  [sha256.Size]byte
}

// fingerprint tells that a file has been changed or replaced.
type fingerprint struct {
	info os.FileInfo
	err  string
}

func (f fingerprint) same(o fingerprint) bool {
	if f.info == nil || o.info == nil {
		return f.info == nil && o.info == nil && f.err == o.err
	}
	return f.err == o.err && os.SameFile(f.info, o.info) && f.info.Size() == o.info.Size() && f.info.ModTime().Equal(o.info.ModTime())
}

func (f *file) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		f.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *file) name() string { return f.path }

func (f *file) status() Source { return f.describe(KindFile, f.path) }

// look reads the file if it may have changed.
func (f *file) look() {
	var now fingerprint
	info, err := os.Stat(f.path)
	if err != nil {
		now.err = err.Error()
	} else {
		now.info = info
	}
	if now.same(f.seen) && (info == nil || time.Since(info.ModTime()) > youngTime) {
		f.mu.Lock()
		if f.err == nil {
			f.updated = time.Now()
		}
		f.mu.Unlock()
		return
	}
	f.seen = now
	if err == nil {
		err = f.read(info)
	}
	if err != nil && f.bad(err) {
		f.log.WithError(err).WithField("file", f.path).Warn("ROA file cannot be used; the last good one stays in use")
	}
	if err != nil {
		f.sum = [sha256.Size]byte{}
		f.changed()
	}
}

func (f *file) read(info os.FileInfo) error {
	if !info.Mode().IsRegular() { // opening a FIFO would wait for a writer
		return fmt.Errorf("%s: %w", f.path, errNotRegular)
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	h := sha256.New()
	l, err := parse(io.TeeReader(in, h))
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if sum := [sha256.Size]byte(h.Sum(nil)); sum != f.sum {
		f.sum = sum
		f.good(l, time.Now())
		f.log.WithFields(logrus.Fields{"file": f.path, "roas": len(l.vrps), "skipped": l.skipped}).Info("ROA file read")
		f.changed()
		return nil
	}
	f.same(time.Now())
	return nil
}
