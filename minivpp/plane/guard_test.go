package plane

import (
	"slices"
	"testing"
)

// The checksum stays right wherever the option lies; what is no whole option is left alone.
func TestClampTCP(t *testing.T) {
	mss := func(n uint16) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	for _, c := range []struct {
		name          string
		options, want []byte
	}{
		{"alone", mss(1460), mss(1200)},
		{"at an odd place", slices.Concat([]byte{1}, mss(1460), []byte{1, 1, 0}), slices.Concat([]byte{1}, mss(1200), []byte{1, 1, 0})},
		{"small enough", mss(1200), mss(1200)},
		{"behind the end", slices.Concat([]byte{0}, mss(1460), []byte{0, 0, 0}), slices.Concat([]byte{0}, mss(1460), []byte{0, 0, 0})},
		{"cut off", []byte{1, 1, 2, 4}, []byte{1, 1, 2, 4}},
		{"without a length", []byte{1, 1, 1, 2}, []byte{1, 1, 1, 2}},
		{"of length 0", []byte{2, 0, 5, 180}, []byte{2, 0, 5, 180}},
	} {
		segment := make([]byte, tcpLen, 64)
		segment[12], segment[13] = byte(tcpLen+len(c.options))<<2, 2
		segment = append(segment, c.options...)
		b := ip4("10.0.0.1", "10.0.0.2", protoTCP, 64, segment)
		tcp := b[header4Len:]
		put16(tcp[16:], fold(sum(tcp, pseudo(b[12:16], b[16:20], protoTCP, len(tcp)))))
		clampTCP(b, 1200)
		if got := tcp[tcpLen:]; !slices.Equal(got, c.want) {
			t.Errorf("%s: % x instead of % x", c.name, got, c.want)
		}
		if rest := fold(sum(tcp, pseudo(b[12:16], b[16:20], protoTCP, len(tcp)))); rest != 0 {
			t.Errorf("%s: the checksum is wrong by %x", c.name, rest)
		}
	}
}
