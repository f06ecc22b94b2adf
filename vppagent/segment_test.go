package vppagent

import (
	"encoding/binary"
	"testing"
	"unsafe"
)

// fakeSegment lays out one combined counter of two threads and two interfaces.
func fakeSegment() []byte {
	const base = 0x7f00_0000_0000
	b := make([]byte, 1024)
	put := func(at int, v uint64) { binary.NativeEndian.PutUint64(b[at:], v) }
	put(headerVersion, segmentFormat)
	put(headerBase, base)
	put(headerDirectory, base+64)
	put(64-8, 1)
	binary.NativeEndian.PutUint32(b[64+entryType:], typeCombined)
	put(64+entryValue, base+256)
	copy(b[64+entryName:], statRx)
	put(256-8, 2)
	put(256, base+320)
	put(264, base+448)
	for _, at := range []int{320, 448} {
		put(at-8, 2)
		for i, v := range []uint64{1, 10, 2, 20} {
			put(at+8*i, v*uint64(at))
		}
	}
	return b
}

// aligned copies b to where a mapping could be.
func aligned(b []byte) []byte {
	words := make([]uint64, (len(b)+7)/8+headerSize/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	copy(mem, b)
	return mem
}

func TestSegment(t *testing.T) {
	s := &segment{aligned(fakeSegment())}
	read := map[string][][2]uint64{statRx: nil, statTx: nil}
	if err := s.counters(read); err != nil {
		t.Fatal(err)
	}
	if rx := read[statRx]; len(rx) != 2 || rx[0] != [2]uint64{768, 7680} || rx[1] != [2]uint64{1536, 15360} || read[statTx] != nil {
		t.Errorf("counters %v", read)
	}
	binary.NativeEndian.PutUint64(s.mem[headerInProgress:], 1)
	if err := s.counters(read); err == nil {
		t.Error("read in the middle of a change")
	}
}

func FuzzSegment(f *testing.F) {
	f.Add(fakeSegment())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > headerInProgress+8 {
			clear(b[headerInProgress : headerInProgress+8]) // the wait for its end is not the point
		}
		s := &segment{aligned(b)}
		_ = s.counters(map[string][][2]uint64{statRx: nil, statTx: nil, statDrops: nil})
	})
}
