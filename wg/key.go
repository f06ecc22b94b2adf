package wg

// Keys are Curve25519 points and scalars (RFC 7748) or 32 random bytes, written in base64 with padding as every
// WireGuard tool does. Secret ones have types of their own, which print, marshal and log as "(hidden)": only Base64
// reveals them.

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

const keySize = 32

// Key is a public key.
type Key [keySize]byte

// PrivateKey is a private key. It is hidden from fmt, encoding/json and the like.
type PrivateKey [keySize]byte

// PresharedKey is the symmetric key that two peers may add. It is hidden like a PrivateKey.
type PresharedKey [keySize]byte

const hidden = "(hidden)"

// NewPrivateKey makes a random private key, clamped as in RFC 7748 §5.
func NewPrivateKey() (PrivateKey, error) {
	var k PrivateKey
	if _, err := rand.Read(k[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("make private key: %w", err)
	}
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}

// NewPresharedKey makes a random pre-shared key.
func NewPresharedKey() (PresharedKey, error) {
	var k PresharedKey
	if _, err := rand.Read(k[:]); err != nil {
		return PresharedKey{}, fmt.Errorf("make pre-shared key: %w", err)
	}
	return k, nil
}

// ParseKey reads a public key. Its errors, and those of the other two parsers, say what is wrong without showing the
// text.
func ParseKey(text string) (Key, error) {
	k, err := parse(text)
	return Key(k), err
}

// ParsePrivateKey reads a private key. It need not be clamped.
func ParsePrivateKey(text string) (PrivateKey, error) {
	k, err := parse(text)
	return PrivateKey(k), err
}

// ParsePresharedKey reads a pre-shared key.
func ParsePresharedKey(text string) (PresharedKey, error) {
	k, err := parse(text)
	return PresharedKey(k), err
}

// textSize is the length of the base64 of a key.
const textSize = (keySize + 2) / 3 * 4

func parse(text string) (k [keySize]byte, err error) {
	if text == "" {
		return k, errors.New("key is empty")
	}
	if at := strings.IndexFunc(text, foreign); at >= 0 {
		return k, fmt.Errorf("key is not base64: character %d is wrong", at+1)
	}
	if len(text) != textSize {
		return k, fmt.Errorf("key has %d characters, must have %d (base64 of %d bytes)", len(text), textSize, keySize)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != keySize {
		return k, fmt.Errorf("key is not base64 of %d bytes: its end is wrong", keySize)
	}
	copy(k[:], raw)
	if k == [keySize]byte{} {
		return k, errors.New("key is all zeros")
	}
	return k, nil
}

// foreign says that a character is not of base64's standard alphabet (RFC 4648 §4).
func foreign(r rune) bool {
	return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '+' || r == '/' || r == '=')
}

// Public is the public key that belongs to k.
func (k PrivateKey) Public() Key {
	private, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return Key{} // cannot be: 32 bytes always are a key
	}
	return Key(private.PublicKey().Bytes())
}

func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Base64 reveals the key.
func (k PrivateKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Base64 reveals the key.
func (k PresharedKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

func (k PrivateKey) String() string   { return hidden }
func (k PresharedKey) String() string { return hidden }

// Format hides the key from every verb.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// Format hides the key from every verb.
func (k PresharedKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText is the base64 of the key.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKey(string(text))
	return err
}

// MarshalText hides the key.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalText hides the key.
func (k PresharedKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }
