package wg

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	good := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	tests := []struct{ name, text, want string }{
		{"good", good, ""},
		{"empty", "", "empty"},
		{"illegal character", "!" + good[1:], "character 1 is wrong"},
		{"in the middle", good[:9] + "*" + good[10:], "character 10 is wrong"},
		{"newline", good + "\n", "character 45 is wrong"},
		{"no padding", good[:43], "43 characters, must have 44"},
		{"31 bytes", base64.StdEncoding.EncodeToString(make([]byte, 31)), "its end is wrong"},
		{"33 bytes", base64.StdEncoding.EncodeToString(make([]byte, 33)), "its end is wrong"},
		{"zero", base64.StdEncoding.EncodeToString(make([]byte, 32)), "all zeros"},
		{"hex", strings.Repeat("ab", 32), "64 characters"},
		{"url alphabet", strings.Repeat("_", 43) + "=", "character 1 is wrong"},
		{"dirty padding bits", good[:42] + "t=", "its end is wrong"},
		{"padding in the middle", good[:20] + "=" + good[21:], "its end is wrong"},
	}
	for _, tt := range tests {
		k, err := ParseKey(tt.text)
		if tt.want == "" {
			if err != nil || k.String() != tt.text {
				t.Errorf("%s: %v, %v", tt.name, k, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && len(tt.text) > 10 && strings.Contains(err.Error(), tt.text[:10]) {
			t.Errorf("%s: the error shows the key: %v", tt.name, err)
		}
	}
}

// TestPublic has the two key pairs of RFC 7748 §6.1.
func TestPublic(t *testing.T) {
	for private, public := range map[string]string{
		"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a": "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
		"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb": "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
	} {
		b, err := hex.DecodeString(private)
		if err != nil {
			t.Fatal(err)
		}
		if got := PrivateKey(b).Public(); hex.EncodeToString(got[:]) != public {
			t.Errorf("%x", got)
		}
	}
}

func TestNewKeys(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		k, err := NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		if k[0]&7 != 0 || k[31]&0x80 != 0 || k[31]&0x40 == 0 {
			t.Errorf("not clamped: %s", k.Base64())
		}
		p, err := NewPresharedKey()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrivateKey(k.Base64())
		if err != nil || again != k || again.Public() != k.Public() {
			t.Errorf("%v", err)
		}
		if q, err := ParsePresharedKey(p.Base64()); err != nil || q != p {
			t.Errorf("%v", err)
		}
		for _, s := range []string{k.Base64(), p.Base64()} {
			if seen[s] {
				t.Error("the same key twice")
			}
			seen[s] = true
		}
	}
}

// TestSecretsDoNotPrint tries every way in which a key may come into a log.
func TestSecretsDoNotPrint(t *testing.T) {
	var private PrivateKey
	var psk PresharedKey
	for k := range private {
		private[k], psk[k] = 0xa7, 0xb9
	}
	cfg := Config{
		Name: "tun1", PrivateKey: private, Socket: "s", MAC: siteMAC(1, 0), DataplaneMAC: siteMAC(1, 1),
		Peer: Peer{PublicKey: Key{1}, PresharedKey: &psk},
	}
	link, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = nil
	var texts []string
	for _, v := range []any{private, &private, psk, &psk, cfg, &cfg, cfg.Peer, link, []any{link}, *link.cfg.Peer.PresharedKey, []PrivateKey{private}, map[string]PrivateKey{"k": private}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%o", "%U"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
	}
	for _, v := range []any{private, psk, cfg} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	for _, text := range texts {
		low := strings.ToLower(text)
		for _, leak := range []string{"a7a7", "b9b9", "167 167", "185 185", "0xa7", "0xb9", "247 247", private.Base64()[:8], psk.Base64()[:8], "p6en", "167,167"} {
			if strings.Contains(low, strings.ToLower(leak)) {
				t.Errorf("%q shows %q", text, leak)
			}
		}
	}
}

func TestPublicKeyText(t *testing.T) {
	k := privateKey(t).Public()
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var again Key
	if err := json.Unmarshal(b, &again); err != nil || again != k {
		t.Errorf("%s became %v, %v", b, again, err)
	}
	if err := json.Unmarshal([]byte(`"x"`), &again); err == nil {
		t.Error("a bad key was read")
	}
}
