package memif

import (
	"reflect"
	"strings"
	"testing"
)

var sampleMessages = []message{
	ackMessage{},
	helloMessage{Name: "VPP 26.06", MinVersion: 0x200, MaxVersion: 0x200, MaxRegion: 256, MaxM2S: 255, MaxS2M: 3, MaxLog2RingSize: 14},
	initMessage{Version: 0x200, ID: 0xdeadbeef, Mode: IP, Secret: strings.Repeat("s", 24), Name: "rlr"},
	addRegionMessage{Index: 1, Size: 1 << 40},
	addRingMessage{Flags: 1, Index: 2, Region: 3, Offset: 4, Log2Size: 5, PrivateHeaderSize: 6},
	connectMessage{Interface: "memif0/0"},
	connectedMessage{Interface: "memif1/7"},
	disconnectMessage{Code: 9, Reason: "interface deleted"},
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range sampleMessages {
		raw := encode(m)
		got, err := decode(raw)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%v: %+v became %+v, %v", m.kind(), m, got, err)
		}
	}
}

// TestWireLayout holds the byte positions of memif_msg_t in VPP's memif.h, which packs its structs.
func TestWireLayout(t *testing.T) {
	tests := []struct {
		m    message
		at   int
		want string
	}{
		{sampleMessages[1], 0, "\x02\x00VPP 26.06\x00"},
		{sampleMessages[1], 34, "\x00\x02\x00\x02\x00\x01\xff\x00\x03\x00\x0e\x00"},
		{sampleMessages[2], 0, "\x03\x00\x00\x02\xef\xbe\xad\xde\x01ssssssssssssssssssssssssrlr\x00"},
		{sampleMessages[3], 0, "\x04\x00\x01\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"},
		{sampleMessages[4], 0, "\x05\x00\x01\x00\x02\x00\x03\x00\x04\x00\x00\x00\x05\x06\x00\x00"},
		{sampleMessages[5], 0, "\x06\x00memif0/0\x00"},
		{sampleMessages[6], 0, "\x07\x00memif1/7\x00"},
		{sampleMessages[7], 0, "\x08\x00\x09\x00\x00\x00interface deleted\x00"},
	}
	for _, tt := range tests {
		if got := string(encode(tt.m)[tt.at : tt.at+len(tt.want)]); got != tt.want {
			t.Errorf("%v at %d: % x, want % x", tt.m.kind(), tt.at, got, tt.want)
		}
	}
}

func TestLongStringsAreCut(t *testing.T) {
	long := strings.Repeat("a", 200)
	for _, m := range []message{connectMessage{long}, disconnectMessage{Reason: long}, helloMessage{Name: long}} {
		raw := encode(m)
		if got, err := decode(raw); err != nil || len(raw) != messageSize || strings.Contains(string(raw), strings.Repeat("a", 96)) {
			t.Errorf("%v: %+v, %v", m.kind(), got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range sampleMessages {
		f.Add(encode(m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decode(raw)
		if err != nil {
			return
		}
		again, err := decode(encode(m))
		if err != nil {
			t.Fatal(err)
		}
		// A string that fills its field to the last byte is cut by a terminator on the way out; nothing else changes.
		if third, err := decode(encode(again)); err != nil || !reflect.DeepEqual(third, again) {
			t.Fatalf("%+v, %+v, %v", again, third, err)
		}
	})
}

// FuzzReader lets a ring and its memory be anything: whatever comes out stays within the buffers, and every consumed
// slot is accounted for.
func FuzzReader(f *testing.F) {
	f.Add(make([]byte, 512), uint16(3), uint16(0), false)
	f.Add([]byte("\x01\x00\x00\x00\x05\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00"), uint16(8), uint16(0), true)
	f.Fuzz(func(t *testing.T, data []byte, produced, next uint16, slave bool) {
		const log2 = 3
		mem := make([]byte, 2048)
		r, err := openRing(mem, 0, log2)
		if err != nil {
			t.Fatal(err)
		}
		copy(mem[ringHeaderSize:], data)
		r.setTail(produced)
		r.addHead(produced)
		failed := 0
		q := rxQueue{
			slave: slave, ring: r, next: next, regions: [][]byte{mem, mem[:100]}, stats: new(counters),
			buffers: ownBuffers{mem: mem, base: 512, size: 64},
			fail:    func(error) { failed++ },
		}
		bufs := [][]byte{make([]byte, 64), make([]byte, 1000), {}, make([]byte, 3)}
		sizes := make([]int, len(bufs))
		n, err := q.take(bufs, sizes)
		if (err != nil) != (failed > 0) || n > 0 && err != nil {
			t.Fatalf("%d frames, %v, %d failures", n, err, failed)
		}
		for k := range n {
			if sizes[k] <= 0 || sizes[k] > len(bufs[k]) {
				t.Fatalf("frame %d has %d bytes of %d", k, sizes[k], len(bufs[k]))
			}
		}
		used := q.next - next
		if used > 8 || int(used) < n {
			t.Fatalf("%d frames from %d slots", n, used)
		}
	})
}

// FuzzWriter fills whatever buffers a hostile slave puts up.
func FuzzWriter(f *testing.F) {
	f.Add(make([]byte, 128), uint16(8), uint16(10))
	f.Add([]byte("\x00\x00\x00\x00\x05\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00"), uint16(1), uint16(4))
	f.Fuzz(func(t *testing.T, data []byte, head, length uint16) {
		mem := make([]byte, 2048)
		r, err := openRing(mem, 0, 3)
		if err != nil {
			t.Fatal(err)
		}
		copy(mem[ringHeaderSize:], data)
		r.addHead(head)
		r.maskInterrupts()
		failed := 0
		q := txQueue{ring: r, regions: [][]byte{mem}, stats: new(counters), intFD: -1, fail: func(error) { failed++ }}
		frames := [][]byte{make([]byte, length), {1}}
		n, err := q.write(frames)
		if n < 0 || n > len(frames) || err != nil && failed == 0 || q.next > 8 {
			t.Fatalf("%d taken, %v, %d failures, %d slots", n, err, failed, q.next)
		}
	})
}
