package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// MaxSize bounds a configuration file, in bytes.
const MaxSize = 4 << 20

// Option changes how a file is read.
type Option func(*options)

type options struct {
	linksDir string
	env      func(string) (string, bool)
}

// WithLinksDir says where relative memif sockets will be, so that a path which the kernel would refuse is found by the
// check. Without it only absolute ones are measured.
func WithLinksDir(dir string) Option { return func(o *options) { o.linksDir = dir } }

// WithEnv replaces the process's environment.
func WithEnv(lookup func(name string) (string, bool)) Option {
	return func(o *options) { o.env = lookup }
}

// Load reads and checks a configuration. The error, if any, is of type Errors.
func Load(path string, opts ...Option) (*Config, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, opts...)
}

// Read returns a configuration's text, for Parse and for edits of it. The error, if any, is of type Errors.
func Read(path string) ([]byte, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{{File: path, Msg: err.Error()}}
	}
	return data, nil
}

// Parse is Load for a file's content. Files of secrets are looked for relative to the folder of path. The error, if any, is
// of type Errors.
func Parse(path string, data []byte, opts ...Option) (*Config, error) {
	o := options{env: os.LookupEnv}
	for _, f := range opts {
		f(&o)
	}
	d := newDecoder(path, filepath.Dir(path), o)
	cfg := &Config{}
	if root, ok := d.syntax(data); ok {
		cfg = d.config(root)
		d.refer(cfg)
		d.check(cfg)
	}
	if errs := d.finish(); len(errs) > 0 {
		return nil, errs
	}
	return cfg, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", cause(err))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", cause(err))
	}
	return data, nil
}

// cause strips the operation and the path from an error of os: the message names the file already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
