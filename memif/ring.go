package memif

// A ring in shared memory (memif_ring_t):
//
//	+0   cookie u32
//	+4   flags u16 (written by the consumer), head u16 (written by the slave)
//	+64  tail u16 (written by the master)
//	+128 descriptors, 16 bytes each: flags u16, region u16, length u32, offset u32, metadata u32
//
// The slave owns all buffers, so the roles of head and tail depend on the direction. Slave to master: the slave puts
// filled buffers at head, the master returns them at tail. Master to slave: the slave puts empty buffers at head, the
// master fills them and says so at tail.
//
// Go has no 16-bit atomics. flags and head share a 32-bit word that both sides write, so head is advanced by an
// atomic add in the upper half (the carry falls off the end) and flags change by atomic and/or: neither disturbs the
// other, nor a 16-bit store by VPP. sync/atomic is sequentially consistent, which is more than the acquire and
// release that the protocol needs, and exactly what the sleep protocol needs (see rxQueue.wait). With the race detector
// it is not: there an atomic store to memory outside Go's heap is only a release, and a later load may overtake it. So
// indexes are published by read-modify-write operations, which are full barriers everywhere.

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

const (
	ringHeaderSize = 128
	descSize       = 16
	// ringAlign is what 64-bit loads of descriptors need; VPP and libmemif put rings at multiples of it.
	ringAlign = 16
)

func ringBytes(log2 uint8) int { return ringHeaderSize + descSize<<log2 }

type ring struct {
	cookie    *uint32
	flagsHead *uint32
	tailWord  *uint32
	desc      unsafe.Pointer
	size      uint16
	mask      uint16
}

// descriptor is a private copy of one ring entry.
type descriptor struct {
	flags, region  uint16
	length, offset uint32
}

// openRing lays a ring over region[offset:]. It fails unless all of the ring is inside and aligned.
func openRing(region []byte, offset uint32, log2 uint8) (ring, error) {
	if log2 > maxLog2RingSize {
		return ring{}, fmt.Errorf("ring of 2^%d descriptors", log2)
	}
	if offset%ringAlign != 0 {
		return ring{}, fmt.Errorf("ring at unaligned offset %d", offset)
	}
	if uint64(offset)+uint64(ringBytes(log2)) > uint64(len(region)) {
		return ring{}, fmt.Errorf("ring at offset %d reaches beyond its region of %d bytes", offset, len(region))
	}
	base := unsafe.Pointer(&region[offset])
	return ring{
		cookie:    (*uint32)(base),
		flagsHead: (*uint32)(unsafe.Add(base, 4)),
		tailWord:  (*uint32)(unsafe.Add(base, 64)),
		desc:      unsafe.Add(base, ringHeaderSize),
		size:      1 << log2,
		mask:      1<<log2 - 1,
	}, nil
}

func (r *ring) valid() bool       { return atomic.LoadUint32(r.cookie) == ringCookie }
func (r *ring) init()             { atomic.StoreUint32(r.cookie, ringCookie) }
func (r *ring) head() uint16      { return uint16(atomic.LoadUint32(r.flagsHead) >> 16) }
func (r *ring) tail() uint16      { return uint16(atomic.LoadUint32(r.tailWord)) }
func (r *ring) setTail(t uint16)  { atomic.SwapUint32(r.tailWord, uint32(t)) }
func (r *ring) addHead(n uint16)  { atomic.AddUint32(r.flagsHead, uint32(n)<<16) }
func (r *ring) maskInterrupts()   { atomic.OrUint32(r.flagsHead, ringFlagMaskInt) }
func (r *ring) unmaskInterrupts() { atomic.AndUint32(r.flagsHead, ^uint32(ringFlagMaskInt)) }
func (r *ring) wantsInterrupt() bool {
	return atomic.LoadUint32(r.flagsHead)&ringFlagMaskInt == 0
}

// load copies the descriptor at index, each half in one access: what is checked is what is used.
func (r *ring) load(index uint16) descriptor {
	p := unsafe.Add(r.desc, uintptr(index&r.mask)*descSize)
	lo := atomic.LoadUint64((*uint64)(p))
	hi := atomic.LoadUint64((*uint64)(unsafe.Add(p, 8)))
	return descriptor{flags: uint16(lo), region: uint16(lo >> 16), length: uint32(lo >> 32), offset: uint32(hi)}
}

// store writes the descriptor at index. The index that publishes it is written later and orders it.
func (r *ring) store(index uint16, d descriptor) {
	p := unsafe.Add(r.desc, uintptr(index&r.mask)*descSize)
	*(*uint64)(unsafe.Add(p, 8)) = uint64(d.offset)
	*(*uint64)(p) = uint64(d.flags) | uint64(d.region)<<16 | uint64(d.length)<<32
}

// buffer gives the memory that a descriptor of the peer points to, or nil if it points anywhere else.
func (d descriptor) buffer(regions [][]byte) []byte {
	if int(d.region) >= len(regions) || d.length == 0 {
		return nil
	}
	mem := regions[d.region]
	if uint64(d.offset)+uint64(d.length) > uint64(len(mem)) {
		return nil
	}
	return mem[d.offset : uint64(d.offset)+uint64(d.length)]
}
