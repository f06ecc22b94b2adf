package rpki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of what a source may give. The whole Internet's ROAs are less than half of them; DN42's 3000, in 300 kB.
const (
	maxBytes = 192 << 20 // of a file or a download
	maxVRPs  = 2 << 20
	maxDepth = 64 // of what is skipped
)

var (
	errTooLarge = fmt.Errorf("larger than %d MiB: that is not a list of ROAs", maxBytes>>20)
	errTooMany  = fmt.Errorf("more than %d ROAs: the Internet has not half as many", maxVRPs)
)

// list is what a file or a download says.
type list struct {
	vrps    []VRP // in order, each once
	skipped int   // entries that are no VRP
	why     error // of the first of them
}

// entry is one of `roas` (StayRTR's schema; the other keys of an entry are for people).
type entry struct {
	Prefix    string `json:"prefix"`
	MaxLength *int   `json:"maxLength"`
	ASN       asn    `json:"asn"`
}

// asn is a number, or a string with or without "AS". Validators differ.
type asn struct {
	as    uint32
	given bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *asn) UnmarshalJSON(b []byte) error {
	text := string(b)
	if text == "null" {
		return nil
	}
	if b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		if len(text) > 2 && strings.EqualFold(text[:2], "AS") {
			text = text[2:]
		}
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("asn %s is not a number from 0 to %d, nor AS and one", shorten(string(b)), uint32(math.MaxUint32))
	}
	a.as, a.given = uint32(n), true
	return nil
}

func (e entry) vrp() (VRP, error) {
	p, err := netip.ParsePrefix(e.Prefix)
	if err != nil {
		return VRP{}, fmt.Errorf("prefix %q is not one", shorten(e.Prefix))
	}
	v := VRP{Prefix: p, MaxLength: uint8(p.Bits()), AS: e.ASN.as}
	if e.MaxLength != nil {
		if *e.MaxLength < 0 || *e.MaxLength > 128 {
			return VRP{}, fmt.Errorf("maxLength %d of %s is not between %d and %d", *e.MaxLength, p, p.Bits(), p.Addr().BitLen())
		}
		v.MaxLength = uint8(*e.MaxLength)
	}
	if !e.ASN.given {
		return VRP{}, fmt.Errorf("the entry of %s has no asn", p)
	}
	return v, v.check()
}

// parse reads {"roas": [{"prefix", "maxLength", "asn"}, …], …}. It holds one entry at a time besides the result. An entry that
// is no VRP is left out and counted: one slip in a registry must not keep all its later changes away. A list whose entries are
// all of that kind is none.
func parse(r io.Reader) (list, error) { return parseWithin(r, maxBytes, maxVRPs) }

// parseWithin is parse with other bounds.
func parseWithin(r io.Reader, bytes int64, vrps int) (list, error) {
	var l list
	limited := &io.LimitedReader{R: r, N: bytes + 1}
	dec := json.NewDecoder(limited)
	found := false
	err := object(dec, func(key string) error {
		if key != "roas" {
			return skip(dec)
		}
		if found {
			return errors.New(`the key "roas" is there twice`)
		}
		found = true
		return l.entries(dec, vrps)
	})
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("something follows the JSON object")
		}
	}
	switch {
	case limited.N <= 0:
		return list{}, errTooLarge
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return list{}, errors.New("the JSON ends early")
	case err != nil:
		return list{}, err
	case !found:
		return list{}, errors.New(`the JSON has no key "roas": it is not a list of ROAs as StayRTR and rpki-client have it`)
	case len(l.vrps) == 0 && l.skipped > 0:
		return list{}, fmt.Errorf("none of its %d entries is a ROA: %w", l.skipped, l.why)
	}
	l.vrps = sorted(l.vrps)
	return l, nil
}

func (l *list) entries(dec *json.Decoder, most int) error {
	if err := delim(dec, '['); err != nil {
		return fmt.Errorf("roas: %w", err)
	}
	for n := 0; dec.More(); n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("roas[%d]: %w", n, err)
		}
		var e entry
		var v VRP
		err := json.Unmarshal(raw, &e)
		if err == nil {
			v, err = e.vrp()
		}
		if err != nil {
			if l.skipped++; l.skipped == 1 {
				l.why = fmt.Errorf("roas[%d]: %w", n, err)
			}
			continue
		}
		if len(l.vrps) == most {
			return errTooMany
		}
		l.vrps = append(l.vrps, v)
	}
	return delim(dec, ']')
}

// object calls member for each key of an object; member reads the value.
func object(dec *json.Decoder, member func(key string) error) error {
	if err := delim(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return fmt.Errorf("%v is not a key", t)
		}
		if err := member(key); err != nil {
			return err
		}
	}
	return delim(dec, '}')
}

// skip passes over a value without keeping it.
func skip(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return fmt.Errorf("the JSON is nested more than %d deep", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func delim(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%q expected, not %v", rune(want), shorten(fmt.Sprint(t)))
	}
	return nil
}

// shorten bounds what a message repeats of somebody else's text.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
