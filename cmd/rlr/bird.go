package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rlr/internal/birdctl"
	"rlr/internal/config"
	"rlr/internal/ctl"
)

// startBird speaks BIRD's control protocol where the configuration says so.
func (r *router) startBird(cfg *config.Config) error {
	path := cfg.Control.Bird
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) {
		path = r.file(path)
	}
	l, err := ctl.ListenPrivate(path)
	if err != nil {
		return fmt.Errorf("control.bird-socket: %w", err)
	}
	s := birdctl.New(birdctl.Options{
		Router: r.handlers(), Version: version, Config: r.path, Log: r.subsystem("bird"),
		Check: func(context.Context) error {
			_, err := loadConfig(r.path)
			return err
		},
	})
	r.stages.start("bird", func(ctx context.Context) error {
		err := s.Serve(ctx, l)
		if gone := os.Remove(path); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	})
	return nil
}
