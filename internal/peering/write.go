package peering

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Tools are what Write needs of others.
type Tools struct {
	NewPrivateKey func() (string, error)
	PublicKey     func(private string) (string, error)
	Check         func(config string) error // as `rlr check`
}

// Files are where a node is written.
type Files struct {
	Config string
	Key    string // of the private key: read where Existing, else made
	// Existing says that the key is there.
	Existing bool
	Force    bool // what is there is replaced
}

// Write makes the node's key, unless it is there, and its configuration, beside each other. The configuration is checked before
// anything of that name is there; after an error all is as it was.
func (n *Node) Write(f Files, t Tools) error {
	if err := f.vacant(); err != nil {
		return err
	}
	private, err := f.private(t)
	if err != nil {
		return err
	}
	if n.PublicKey, err = t.PublicKey(private); err != nil {
		return fmt.Errorf("the private key in %s: %w", f.Key, err)
	}
	if err := n.Complete(); err != nil {
		return err
	}
	dir := filepath.Dir(f.Config)
	trial, err := os.MkdirTemp(dir, ".rlr-init-")
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	defer os.RemoveAll(trial)
	if f.Existing {
		n.KeyFile, err = filepath.Abs(f.Key)
	} else {
		n.KeyFile = "key"
		err = writeNew(filepath.Join(trial, n.KeyFile), private+"\n", 0o600)
	}
	if err != nil {
		return err
	}
	try := filepath.Join(trial, filepath.Base(f.Config))
	if err := writeNew(try, n.Config(), 0o644); err != nil {
		return err
	}
	if err := t.Check(try); err != nil {
		return fmt.Errorf("these answers make no configuration: %w", err)
	}
	if n.KeyFile, err = keyName(dir, f.Key); err != nil {
		return err
	}
	if !f.Existing {
		if err := f.put(f.Key, private+"\n", 0o600); err != nil {
			return err
		}
	}
	if err := f.put(f.Config, n.Config(), 0o644); err != nil {
		if !f.Existing && !f.Force {
			_ = os.Remove(f.Key) // ours, made just now
		}
		return err
	}
	return nil
}

// vacant reports what would be overwritten.
func (f Files) vacant() error {
	names := []string{f.Config, f.Key}
	if f.Existing {
		names = names[:1]
	}
	for _, name := range names {
		_, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && f.Force:
		case err != nil:
			return err
		default:
			return fmt.Errorf("%s is there already, and nothing was written; --force replaces it, and -c FILE writes elsewhere", name)
		}
	}
	return nil
}

func (f Files) private(t Tools) (string, error) {
	if !f.Existing {
		return t.NewPrivateKey()
	}
	b, err := os.ReadFile(f.Key)
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(b)), nil
}

// put writes a file that is there wholly or not at all.
func (f Files) put(name, text string, mode fs.FileMode) error {
	if !f.Force {
		return writeNew(name, text, mode)
	}
	temp := name + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(temp, text, mode); err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(name, text string, mode fs.FileMode) error {
	w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = w.WriteString(text)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		_ = os.Remove(name)
	}
	return err
}

// keyName is the name of the key's file from the configuration's folder, where it is in or below it, else its absolute path.
func keyName(dir, key string) (string, error) {
	absDir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	absKey, err := filepath.Abs(key)
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(absDir, absKey); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return rel, nil
	}
	return absKey, nil
}
