package plane

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// cut makes fragments of a payload with random borders, and shuffles them.
func cut(rng *rand.Rand, payload []byte, id uint16) [][]byte {
	var out [][]byte
	for at := 0; at < len(payload); {
		n := min(8*(1+rng.IntN(30)), len(payload)-at)
		f := ip4("10.0.0.1", "10.0.0.2", protoUDP, 64, payload[at:at+n])
		put16(f[4:], id)
		field := uint16(at / 8)
		if at+n < len(payload) {
			field |= 0x2000
		}
		put16(f[6:], field)
		put16(f[10:], 0)
		put16(f[10:], checksum(f[:header4Len]))
		out = append(out, f)
		at += n
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestReassemble(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r reassembler
	r.init()
	for id := range uint16(300) {
		payload := make([]byte, 1+rng.IntN(3000))
		for k := range payload {
			payload[k] = byte(rng.Uint32())
		}
		frags := cut(rng, payload, id)
		if rng.IntN(3) == 0 { // duplicates are harmless before the packet is complete
			frags = slices.Insert(frags, 1, frags[0])
		}
		if len(frags) == 2 && bytes.Equal(frags[0], frags[1]) {
			continue
		}
		for k, f := range frags {
			whole := r.add4(f, 0, int64(id))
			if (whole != nil) != (k == len(frags)-1) {
				t.Fatalf("packet %d: fragment %d of %d: %v", id, k, len(frags), whole != nil)
			}
			if whole != nil && (!bytes.Equal(whole[header4Len:], payload) || checksum(whole[:header4Len]) != 0 || get16(whole[6:]) != 0) {
				t.Fatalf("packet %d differs", id)
			}
		}
	}
	if r.bytes != 0 || len(r.attempts) != len(r.order) {
		t.Errorf("%d bytes, %d attempts left", r.bytes, len(r.attempts))
	}
}

func TestReassembleHostile(t *testing.T) {
	part := func(at, n int, more bool, id uint16) []byte {
		f := ip4("10.0.0.1", "10.0.0.2", protoUDP, 64, make([]byte, n))
		put16(f[4:], id)
		field := uint16(at / 8)
		if more {
			field |= 0x2000
		}
		put16(f[6:], field)
		return f
	}
	for name, parts := range map[string][][]byte{
		"overlap":              {part(0, 16, true, 1), part(8, 16, true, 1), part(24, 8, false, 1), part(16, 8, true, 1)},
		"two ends":             {part(16, 8, false, 1), part(24, 8, false, 1), part(0, 16, true, 1)},
		"beyond the end":       {part(8, 8, false, 1), part(32, 8, true, 1), part(0, 8, true, 1)},
		"empty":                {part(0, 0, true, 1), part(0, 8, false, 1)},
		"odd length":           {part(0, 9, true, 1), part(16, 8, false, 1), part(8, 8, true, 1)},
		"longer than a packet": {part(65528, 100, false, 1), part(0, 8, true, 1)},
	} {
		var r reassembler
		r.init()
		for _, p := range parts {
			if whole := r.add4(p, 0, 0); whole != nil {
				t.Errorf("%s: made a packet of %d bytes", name, len(whole))
			}
		}
	}
	// Memory is bounded, by number and by bytes, and time heals.
	var r reassembler
	r.init()
	for id := range uint16(5000) {
		r.add4(part(0, 1400, true, id), 0, 0)
	}
	if len(r.attempts) > maxAttempts+1 || r.bytes > maxFragmentBytes+1400 {
		t.Errorf("%d attempts, %d bytes", len(r.attempts), r.bytes)
	}
	r.init()
	r.order, r.bytes = nil, 0
	for k := range 1000 {
		r.add4(part(k*1400/8*8, 1400, true, 1), 0, 0)
	}
	if r.bytes > maxPacket {
		t.Errorf("%d bytes of one packet", r.bytes)
	}
	r.add4(part(0, 8, true, 2), 0, 2*fragmentLife)
	if len(r.attempts) != 1 || r.bytes != 8 {
		t.Errorf("%d attempts, %d bytes after their time", len(r.attempts), r.bytes)
	}
}
