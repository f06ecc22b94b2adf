package vppagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A reader of VPP's statistics segment (vlib/stats/shared.h), version 2.
//
// VPP hands out a file descriptor of its memory over a unix socket; the reader maps it and follows pointers in it while VPP
// goes on writing. Here every pointer becomes an offset that is checked against the mapping, so that nothing that is read in
// the middle of a change can do harm; govpp's statsclient follows them as they are, and keeps a goroutine to watch the file
// system besides. The mapping lasts for one reading: a restarted VPP has another.

// Offsets in vlib_stats_shared_header_t.
const (
	headerVersion    = 0
	headerBase       = 8
	headerEpoch      = 16
	headerInProgress = 24
	headerDirectory  = 32
	headerSize       = 40
)

// Offsets in vlib_stats_entry_t, and the types that are read.
const (
	entryType     = 0
	entryValue    = 8
	entryName     = 16
	entrySize     = 144
	typeSimple    = 2
	typeCombined  = 3
	segmentFormat = 2
)

const (
	segmentTimeout = time.Second
	segmentTries   = 20
	maxEntries     = 1 << 20 // more than any segment has; a length that is being written may be anything
)

var (
	errSegmentBusy  = errors.New("statistics segment keeps changing")
	errSegmentBound = errors.New("statistics segment has a pointer out of bounds")
)

// segment is a mapped statistics segment.
type segment struct{ mem []byte }

// openSegment connects to the stats socket (SOCK_SEQPACKET), which answers with one file descriptor.
func openSegment(ctx context.Context, socket string) (*segment, error) {
	ctx, cancel := context.WithTimeout(ctx, segmentTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, fmt.Errorf("statistics segment: %w", err)
	}
	defer c.Close()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("statistics segment: not a unix socket")
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	oob := make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), oob)
	if err != nil && (n == 0 || !errors.Is(err, io.EOF)) { // VPP's message has no data, which Go takes for the end
		return nil, fmt.Errorf("statistics segment: %w", err)
	}
	fds, err := receivedFiles(oob[:n])
	if err != nil {
		return nil, fmt.Errorf("statistics segment: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "stats")
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < headerSize {
		return nil, fmt.Errorf("statistics segment of %d bytes", info.Size())
	}
	mem, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the statistics segment: %w", err)
	}
	s := &segment{mem}
	if v := s.load(headerVersion); v != segmentFormat {
		s.close()
		return nil, fmt.Errorf("statistics segment has format %d, not %d", v, segmentFormat)
	}
	return s, nil
}

// receivedFiles returns at least one descriptor, and closes all but the first.
func receivedFiles(oob []byte) ([]int, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range messages {
		if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) == 0 {
		return nil, errors.New("no file descriptor came")
	}
	for _, fd := range fds[1:] {
		syscall.Close(fd)
	}
	return fds[:1], nil
}

func (s *segment) close() { _ = syscall.Munmap(s.mem) }

// load reads 8 bytes at an offset within the header, whole.
func (s *segment) load(offset int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.mem[offset])))
}

// word reads 8 bytes at any offset.
func (s *segment) word(offset uint64) (uint64, error) {
	if offset%8 != 0 || offset > uint64(len(s.mem))-8 {
		return 0, errSegmentBound
	}
	return s.load(int(offset)), nil
}

// vector turns a pointer to a vector of elements of size bytes into an offset and a length, which is in the 8 bytes before.
// A null pointer is an empty vector.
func (s *segment) vector(pointer, size uint64) (offset, length uint64, err error) {
	if pointer == 0 {
		return 0, 0, nil
	}
	offset = pointer - s.load(headerBase)
	header, err := s.word(offset - 8)
	if err != nil {
		return 0, 0, err
	}
	length = header & 0xffffffff // vec_len is 32 bits wide, others follow
	if length > maxEntries || offset+length*size > uint64(len(s.mem)) {
		return 0, 0, errSegmentBound
	}
	return offset, length, nil
}

// counters reads the counters whose names are keys of into: by interface, summed over threads, packets and bytes (simple
// counters have no bytes).
func (s *segment) counters(into map[string][][2]uint64) error {
	return s.consistently(func() error {
		return s.entries(func(name string, kind uint32, value uint64) (err error) {
			if _, wanted := into[name]; wanted {
				into[name], err = s.sum(kind, value)
			}
			return err
		})
	})
}

// consistently repeats a reading until nothing changed meanwhile.
func (s *segment) consistently(read func() error) error {
	var err error
	for range segmentTries {
		epoch := s.load(headerEpoch)
		if s.load(headerInProgress) == 0 {
			err = read()
			if s.load(headerEpoch) == epoch && s.load(headerInProgress) == 0 {
				return err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return errors.Join(errSegmentBusy, err)
}

// entries visits the directory. value is a scalar or a pointer, as the kind has it.
func (s *segment) entries(visit func(name string, kind uint32, value uint64) error) error {
	directory, n, err := s.vector(s.load(headerDirectory), entrySize)
	if err != nil {
		return err
	}
	for i := range n {
		at := directory + i*entrySize
		entry := s.mem[at : at+entrySize]
		value, err := s.word(at + entryValue)
		if err != nil {
			return err
		}
		if err := visit(cString(entry[entryName:]), binary.NativeEndian.Uint32(entry[entryType:]), value); err != nil {
			return err
		}
	}
	return nil
}

// capacities visits the vectors of a combined counter, one a thread, with how long each is and can become where it is: the
// memory that it has is in the header of its dlmalloc chunk, in the 8 bytes before it (src/vppinfra/vec_bootstrap.h).
func (s *segment) capacities(pointer uint64, visit func(length, capacity int)) error {
	threads, n, err := s.vector(pointer, 8)
	if err != nil {
		return err
	}
	for t := range n {
		p, err := s.word(threads + 8*t)
		if err != nil || p == 0 {
			return err
		}
		values, length, err := s.vector(p, counterSize)
		if err != nil {
			return err
		}
		header := uint64(s.mem[values-4]) * 8
		chunk, err := s.word(values - header - 8)
		if err != nil {
			return err
		}
		size := chunk&^7 - 8
		if chunk&^7 < 8+header+length*counterSize || values+size-header > uint64(len(s.mem)) {
			return errSegmentBound
		}
		visit(int(length), int((size-header)/counterSize))
	}
	return nil
}

// sum adds up a vector of threads' vectors of counters.
func (s *segment) sum(kind uint32, pointer uint64) ([][2]uint64, error) {
	words := uint64(1)
	switch kind {
	case typeSimple:
	case typeCombined:
		words = 2
	default:
		return nil, nil
	}
	threads, n, err := s.vector(pointer, 8)
	if err != nil {
		return nil, err
	}
	var total [][2]uint64
	for t := range n {
		p, err := s.word(threads + 8*t)
		if err != nil {
			return nil, err
		}
		values, count, err := s.vector(p, 8*words)
		if err != nil {
			return nil, err
		}
		for uint64(len(total)) < count {
			total = append(total, [2]uint64{})
		}
		for i := range count {
			for w := range words {
				v, err := s.word(values + 8*(i*words+w))
				if err != nil {
					return nil, err
				}
				total[i][w] += v
			}
		}
	}
	return total, nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
