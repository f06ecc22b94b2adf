package minivpp

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// segment is the memory that statistics clients map. All numbers in it are in the host's order; pointers are addresses as
// VPP would have them, of which clients subtract the base.
//
//	0      header: version, base, epoch, in_progress, pointer to the directory
//	4096   first half  ┐ a directory, and the vectors that it points to;
//	...    second half ┘ one is in use, the other is for the next layout
type segment struct {
	fd   int
	mem  []byte
	half int // the one in use
}

const (
	segmentSize   = 8 << 20 // sparse: only what is used takes memory
	segmentHeader = 4096
	segmentHalf   = (segmentSize - segmentHeader) / 2 &^ 7
	// segmentBase is the address that the segment pretends to be at. Clients that are written in Go load pointers as such, so
	// it must be where Go has neither heap nor code.
	segmentBase    = 0x10_0000_0000
	segmentVersion = 2
)

// Offsets in the header (vlib_stats_shared_header_t).
const (
	offVersion = 8 * iota
	offBase
	offEpoch
	offInProgress
	offDirectory
)

// Directory types (stat_directory_type_t).
const (
	dirScalar   = 1
	dirSimple   = 2
	dirCombined = 3
	dirNames    = 4
	dirSymlink  = 6
)

// A directory entry (vlib_stats_entry_t): the type, padding, a value or pointer, and the name.
const (
	entrySize    = 144
	entryValue   = 8
	entryName    = 16
	entryNameMax = 127
)

func newSegment() (*segment, error) {
	fd, err := unix.MemfdCreate("stat segment", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	if err = unix.Ftruncate(fd, segmentSize); err == nil {
		// A client that could shorten the file would kill every other and us with SIGBUS.
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	var mem []byte
	if err == nil {
		mem, err = unix.Mmap(fd, 0, segmentSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &segment{fd: fd, mem: mem}
	s.store(offVersion, segmentVersion)
	s.store(offBase, segmentBase)
	return s, nil
}

func (s *segment) close() {
	_ = unix.Munmap(s.mem)
	unix.Close(s.fd)
}

// store writes an 8-byte value at an offset that is a multiple of 8, so that a reader sees it whole.
func (s *segment) store(offset int, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.mem[offset])), v)
}

func (s *segment) load(offset int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.mem[offset])))
}

var errSegmentFull = errors.New("the statistics segment is full")

// layout builds a new directory in the free half and makes it the current one. If it does not fit, the old one stays.
func (s *segment) layout(build func(*builder)) error {
	start := segmentHeader
	if s.half == 0 {
		start += segmentHalf
	}
	b := &builder{seg: s, next: start, end: start + segmentHalf}
	// The number of entries is needed before the first is placed, so the builder runs twice: to count, and to write.
	build(b)
	b.dir, b.count = b.vector(b.count*entrySize, b.count), 0
	b.writing = true
	build(b)
	if b.full {
		return errSegmentFull
	}
	s.store(offInProgress, 1)
	s.store(offDirectory, segmentBase+uint64(b.dir))
	s.store(offEpoch, s.load(offEpoch)+1)
	s.store(offInProgress, 0)
	s.half = 1 - s.half
	return nil
}

// builder fills one half of a segment.
type builder struct {
	seg       *segment
	next, end int
	dir       int // offset of the directory's first entry
	count     int // entries
	writing   bool
	full      bool
}

// vector reserves n bytes for a vector of length elements, zeroed, and returns the offset of the first. VPP's vectors have
// their length in the 8 bytes before it.
func (b *builder) vector(n, length int) int {
	n = (n + 7) &^ 7
	if b.full || b.next+8+n > b.end {
		b.full = true
		return b.end - 8 // somewhere harmless: the layout will not be used
	}
	at := b.next + 8
	b.next = at + n
	clear(b.seg.mem[at:b.next])
	b.seg.store(at-8, uint64(length))
	return at
}

// entry writes a directory entry and returns the offset of its value.
func (b *builder) entry(name string, typ uint32, value uint64) (index, offset int) {
	index = b.count
	b.count++
	if !b.writing || b.full {
		return index, b.end - 8
	}
	at := b.dir + index*entrySize
	binary.NativeEndian.PutUint32(b.seg.mem[at:], typ)
	copy(b.seg.mem[at+entryName:], clip(name, entryNameMax))
	b.seg.store(at+entryValue, value)
	return index, at + entryValue
}

func (b *builder) scalar(name string, value uint64) (offset int) {
	_, offset = b.entry(name, dirScalar, value)
	return offset
}

// counters makes a vector of one thread's vector of n counters of size bytes, and returns where the first counter is.
func (b *builder) counters(name string, typ uint32, size, n int) (index, offset int) {
	if !b.writing {
		return b.entry(name, typ, 0)
	}
	threads := b.vector(8, 1)
	values := b.vector(size*n, n)
	b.seg.store(threads, segmentBase+uint64(values))
	index, _ = b.entry(name, typ, segmentBase+uint64(threads))
	return index, values
}

// strings makes a vector of strings.
func (b *builder) strings(name string, list []string) {
	if !b.writing {
		b.entry(name, dirNames, 0)
		return
	}
	vec := b.vector(8*len(list), len(list))
	for i, s := range list {
		at := b.vector(len(s)+1, len(s)+1)
		if b.full {
			return
		}
		copy(b.seg.mem[at:], s)
		b.seg.store(vec+8*i, segmentBase+uint64(at))
	}
	b.entry(name, dirNames, segmentBase+uint64(vec))
}

// symlink makes an entry for one element of another entry's vector.
func (b *builder) symlink(name string, entry, element int) {
	_, at := b.entry(name, dirSymlink, 0)
	if b.writing && !b.full {
		binary.NativeEndian.PutUint32(b.seg.mem[at:], uint32(entry))
		binary.NativeEndian.PutUint32(b.seg.mem[at+4:], uint32(element))
	}
}
