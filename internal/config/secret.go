package config

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Key is a WireGuard public key.
type Key [32]byte

// String returns the key in base64, as every WireGuard tool writes it.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Secret is a key or a password. Its value never leaves by fmt, JSON or YAML: those show where it comes from. Secrets are
// equal (==) when they come from the same place and have the same value.
type Secret struct {
	File string // as written; relative to the configuration's folder
	Env  string // the ${NAME} reference as written, instead of File

	value string
}

// IsSet reports whether there is a secret at all.
func (s Secret) IsSet() bool { return s.File != "" || s.Env != "" }

// Bytes returns the secret's value; of a WireGuard key the 32 bytes, not the base64.
func (s Secret) Bytes() []byte { return []byte(s.value) }

// Key returns the value of a secret that is a WireGuard key, zero for one that is not set.
func (s Secret) Key() (k Key) {
	copy(k[:], s.value)
	return k
}

// String says where the secret comes from.
func (s Secret) String() string {
	switch {
	case s.File != "":
		return "file " + s.File
	case s.Env != "":
		return s.Env
	default:
		return ""
	}
}

// Format writes String for every verb, so that no %+v and no %x of a Config reveals a secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText writes String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// publicOf returns the public key of a private one, X25519 as in RFC 7748 §6.1.
func publicOf(private Key) (Key, error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return Key{}, err
	}
	return Key(k.PublicKey().Bytes()), nil
}

// parseKey decodes a WireGuard key. The error repeats nothing of the text, which may be a secret.
func parseKey(text string) (Key, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	var corrupt base64.CorruptInputError
	switch {
	case errors.As(err, &corrupt):
		return Key{}, fmt.Errorf("is not base64 (character %d); a WireGuard key is 44 characters that end in \"=\", as `rlr genkey` writes them", int64(corrupt)+1)
	case err != nil:
		return Key{}, errors.New("is not base64; a WireGuard key is 44 characters that end in \"=\", as `rlr genkey` writes them")
	case len(b) != 32:
		return Key{}, fmt.Errorf("is a key of %d bytes; a WireGuard key has 32, which is 44 characters of base64", len(b))
	}
	k := Key(b)
	if k == (Key{}) {
		return Key{}, errors.New("is a key of zeros; make one with `rlr genkey`")
	}
	return k, nil
}

// maxSecret bounds what is read of a secret's file, in bytes.
const maxSecret = 4096

// readSecret returns the content of a file that only its owner can read, without the white space around it.
func readSecret(dir, name string) (string, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, name)
	}
	// The look comes before the open: opening a FIFO would wait for a writer.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("file %q does not exist", path)
	case err != nil:
		return "", fmt.Errorf("file %q cannot be read: %w", path, cause(err))
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("file %q cannot be read: %w; it must belong to the user who runs the router", path, cause(err))
	}
	defer func() { _ = f.Close() }()
	// Looked at again through the open file: it may have been replaced.
	if info, err = f.Stat(); err != nil {
		return "", fmt.Errorf("file %q cannot be read: %w", path, cause(err))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("file %q can be read by others (mode %04o); run: chmod 600 %s", path, mode, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("file %q cannot be read: %w", path, cause(err))
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("file %q is larger than %d bytes: that is not a key", path, maxSecret)
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("file %q is empty", path)
	}
	return text, nil
}
