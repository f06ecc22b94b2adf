package rpki

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"
)

// This file fetches a list by HTTP: only when it has changed there (RFC 9110 §13.1), within bounds of time and size. The last
// good download is kept in a file of the router's folder with what a conditional request needs, so that a router that starts
// without the server has its ROAs all the same.

const (
	downloadPatience = 2 * time.Minute // for all of it
	firstRetry       = 15 * time.Second
)

// newHTTP makes a client over the kernel's network.
func newHTTP() *http.Client {
	return &http.Client{
		Timeout: downloadPatience,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialPatience}).DialContext,
			TLSHandshakeTimeout:   dialPatience,
			ResponseHeaderTimeout: answerPatience,
			IdleConnTimeout:       time.Minute,
			MaxIdleConns:          4,
			ForceAttemptHTTP2:     true,
		},
	}
}

// download is a URL, fetched again and again.
type download struct {
	held
	url     string
	refresh time.Duration
	copy    string // path of the last good download
	http    *http.Client
	log     *logrus.Entry
	changed func()

	have saved // of the list that is held
}

// saved is the first line of a copy: what was fetched when. The body follows.
type saved struct {
	URL      string    `json:"url"`
	ETag     string    `json:"etag,omitempty"`
	Modified string    `json:"last_modified,omitempty"`
	Fetched  time.Time `json:"fetched"`
}

func newDownload(rawURL string, refresh time.Duration, c *Collector) *download {
	sum := sha256.Sum256([]byte(rawURL))
	return &download{
		url: rawURL, refresh: refresh, copy: filepath.Join(c.opt.Dir, "roa-"+hex.EncodeToString(sum[:8])+".json"),
		http: c.http, log: c.opt.Log.WithField("url", redacted(rawURL)), changed: c.poke,
	}
}

// redacted is a URL without its password.
func redacted(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

func (d *download) name() string { return redacted(d.url) }

func (d *download) status() Source { return d.describe(KindURL, d.name()) }

func (d *download) run(ctx context.Context) {
	if err := d.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.WithError(err).Warn("the kept copy of a ROA download cannot be used")
	}
	retry := firstRetry
	for {
		err := d.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := d.refresh - rand.N(d.refresh/10) // so that not all routers come at once
		if err != nil {
			if d.bad(err) {
				d.log.WithError(err).Warn("ROA download failed; the last good one stays in use")
			}
			wait = min(retry, d.refresh)
			retry = min(2*retry, d.refresh)
		} else {
			retry = firstRetry
		}
		d.changed()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// load reads the copy.
func (d *download) load() error {
	f, err := os.Open(d.copy)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReader(io.LimitReader(f, maxBytes))
	head, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: %w", d.copy, err)
	}
	var s saved
	if err := json.Unmarshal(head, &s); err != nil {
		return fmt.Errorf("%s: %w", d.copy, err)
	}
	if s.URL != d.url {
		return fmt.Errorf("%s: it is the copy of another URL", d.copy)
	}
	l, err := parse(r)
	if err != nil {
		return fmt.Errorf("%s: %w", d.copy, err)
	}
	d.have = s
	d.good(l, s.Fetched)
	d.changed()
	return nil
}

// fetch gets what is new.
func (d *download) fetch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "rlr")
	req.Header.Set("Accept", "application/json")
	conditional := d.have.ETag != "" || d.have.Modified != ""
	if d.have.ETag != "" {
		req.Header.Set("If-None-Match", d.have.ETag)
	}
	if d.have.Modified != "" {
		req.Header.Set("If-Modified-Since", d.have.Modified)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // it would repeat the URL
			err = u.Err
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotModified && conditional:
		d.same(time.Now())
		return nil
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the server answers %s", shorten(resp.Status))
	case resp.ContentLength > maxBytes:
		return errTooLarge
	}
	return d.take(resp)
}

// take reads an answer while it writes the new copy, and puts that in the old one's place if the answer is good.
func (d *download) take(resp *http.Response) error {
	now := saved{URL: d.url, ETag: resp.Header.Get("ETag"), Modified: resp.Header.Get("Last-Modified"), Fetched: time.Now()}
	head, err := json.Marshal(now)
	if err != nil {
		return err
	}
	keep, keepErr := d.newCopy()
	body := io.Reader(resp.Body)
	if keepErr == nil {
		defer func() { _ = os.Remove(keep.Name()) }() // where it is not the copy by then
		defer func() { _ = keep.Close() }()
		if _, keepErr = keep.Write(append(head, '\n')); keepErr == nil {
			body = io.TeeReader(body, &copyWriter{w: keep, err: &keepErr})
		}
	}
	l, err := parse(body)
	if err != nil {
		return err
	}
	if keepErr == nil {
		keepErr = errors.Join(keep.Sync(), keep.Close())
	}
	if keepErr == nil {
		keepErr = os.Rename(keep.Name(), d.copy)
	}
	if keepErr != nil {
		d.log.WithError(keepErr).Warn("a ROA download could not be kept for the next start")
	}
	d.have = now
	d.good(l, now.Fetched)
	d.log.WithFields(logrus.Fields{"roas": len(l.vrps), "skipped": l.skipped}).Info("ROAs downloaded")
	return nil
}

func (d *download) newCopy() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(d.copy), 0o700); err != nil {
		return nil, err
	}
	return os.CreateTemp(filepath.Dir(d.copy), "."+filepath.Base(d.copy)+"-*")
}

// copyWriter keeps a copy of what is read. A full disk is no reason not to use a download: the error is kept for later.
type copyWriter struct {
	w   io.Writer
	err *error
}

func (c *copyWriter) Write(b []byte) (int, error) {
	if *c.err == nil {
		_, *c.err = io.Copy(c.w, bytes.NewReader(b))
	}
	return len(b), nil
}
